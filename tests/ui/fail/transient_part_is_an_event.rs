use tidings::TransientEvent;

#[derive(TransientEvent)]
struct Quote;

#[derive(TransientEvent)]
enum Market {
    Quote(Quote),
}

fn main() {}
