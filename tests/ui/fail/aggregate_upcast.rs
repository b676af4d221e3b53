use serde::{Deserialize, Serialize};
use tidings::{Event, Json, aggregate};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited", version = 2, oldest = 2)]
struct Deposited {
    cents: i64,
}

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
    fn pinged(_: Json) {}

    #[upcast(event = "account.pinged", version = 1)]
    fn pinged_again(_: Json) {}

    #[upcast(event = "account.closed")]
    fn closed(_: Json) {}

    #[upcast]
    fn nameless(_: Json) {}

    #[upcast(event = "account.street", version = 1, with_next = "account.city")]
    fn address(_: Json, _: Json) {}

    #[upcast(event = "account.first", version = 1, with_next = "account.second", next_version = 1)]
    fn pair(_: Json, _: Json) {}

    #[upcast(event = "account.second", version = 1, with_next = "account.third", next_version = 1)]
    fn next_pair(_: Json, _: Json) {}

    #[upcast(event = "account.moved", version = 1)]
    fn moved(&self, _: Json) {}

    #[upcast(event = "account.moved", version = 2)]
    fn moved_with_next(_: Json, _: Json) {}

    #[upcast(event = "account.moved", version = 0)]
    fn fails(_: Json) -> Result<Deposited, String> {
        Err(String::new())
    }
}

fn main() {}
