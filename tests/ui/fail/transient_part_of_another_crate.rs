use tidings::TransientEvent;

#[derive(TransientEvent)]
enum Value {
    String(String),
    Number(u64),
}

fn main() {}
