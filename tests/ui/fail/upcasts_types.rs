use serde::{Deserialize, Serialize};
use tidings::{Event, Json, upcasts};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited", version = 4)]
struct Deposited {
    cents: i64,
}

#[derive(Serialize, Deserialize)]
struct DepositedV2 {
    euros: i64,
}

#[derive(Deserialize)]
struct DepositedV3 {
    cents: i64,
}

#[upcasts]
impl Deposited {
    #[upcast(from = 1)]
    fn first(_: Json) -> DepositedV3 {
        DepositedV3 { cents: 0 }
    }

    #[upcast(from = 2)]
    fn second(old: DepositedV2) -> DepositedV2 {
        old
    }

    #[upcast(from = 3)]
    fn third(old: DepositedV3) -> i64 {
        old.cents
    }
}

struct Undecodable;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.closed", version = 2)]
struct Closed;

#[upcasts]
impl Closed {
    #[upcast(from = 1)]
    fn first(_: Undecodable) -> Closed {
        Closed
    }
}

struct NoEvent;

#[upcasts]
impl NoEvent {
    #[upcast(from = 1)]
    fn first(_: Json) -> NoEvent {
        NoEvent
    }
}

fn main() {}
