use serde::{Deserialize, Serialize};
use tidings::{Event, Json, aggregate};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited", version = 2, oldest = 2)]
struct Deposited {
    cents: i64,
}

struct Undecodable;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.closed")]
struct Closed;

#[derive(Default)]
struct Account {
    cents: i64,
}

#[aggregate(category = "account", events = AccountEvent)]
impl Account {
    #[apply]
    fn deposited(&mut self, event: &Deposited) {
        self.cents += event.cents;
    }

    #[upcast(event = "account.pinged", version = 1)]
    fn pinged(_: Undecodable) -> Deposited {
        Deposited { cents: 0 }
    }

    #[upcast(event = "account.ended", version = 1)]
    fn ended(_: Json) -> Closed {
        Closed
    }
}

fn main() {}
