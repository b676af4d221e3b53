use serde::{Deserialize, Serialize};
use tidings::{Event, Json, upcasts};

/// Nothing leads from version 1, and nothing leads to version 4.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited", version = 4)]
struct Deposited {
    cents: i64,
}

#[upcasts]
impl Deposited {
    #[upcast(from = 2)]
    fn second(old: Json) -> Json {
        old
    }
}

/// The last step leads back to where it came from, or further.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.withdrawn", version = 2)]
struct Withdrawn {
    cents: i64,
}

#[upcasts]
impl Withdrawn {
    #[upcast(from = 1)]
    fn first(old: Json) -> Json {
        old
    }

    #[upcast(from = 2)]
    fn second(old: Json) -> Json {
        old
    }

    #[upcast(from = 3)]
    fn third(old: Json) -> Json {
        old
    }
}

/// Version 1 is not read.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.closed", version = 3, oldest = 2)]
struct Closed;

#[upcasts]
impl Closed {
    #[upcast(from = 1)]
    fn first(old: Json) -> Json {
        old
    }

    #[upcast(from = 2)]
    fn second(old: Json) -> Json {
        old
    }
}

fn main() {}
