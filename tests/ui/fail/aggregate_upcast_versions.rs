use serde::{Deserialize, Serialize};
use tidings::{Event, Json, aggregate, upcasts};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited", version = 2)]
struct Deposited {
    cents: i64,
}

#[upcasts]
impl Deposited {
    #[upcast(from = 1)]
    fn first(old: Json) -> Json {
        old
    }
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.closed", formerly = "account.ended")]
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

    #[apply]
    fn closed(&mut self, _: &Closed) {}

    #[upcast(event = "account.deposited", version = 1)]
    fn covered(_: Json) {}

    #[upcast(event = "account.deposited", version = 2)]
    fn current(_: Json) {}

    #[upcast(event = "account.ended", version = 1)]
    fn current_by_its_former_name(_: Json) {}
}

fn main() {}
