use tidings::TransientEvent;

struct Quote;

#[derive(TransientEvent)]
enum Market {
    Quote(Quote),
}

#[derive(TransientEvent)]
enum Bourse {
    Quote(Quote),
}

fn main() {}
