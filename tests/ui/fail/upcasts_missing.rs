use serde::{Deserialize, Serialize};
use tidings::Event;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited", version = 2)]
struct Deposited {
    cents: i64,
}

fn main() {}
