use serde::{Deserialize, Serialize};
use tidings::{Event, Header, TransientEvent, aggregate, subscriber};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited")]
struct Deposited {
    cents: i64,
}

#[derive(Default)]
struct Account;

#[aggregate(category = "account", events = AccountEvent)]
impl Account {
    #[apply]
    fn deposited(&mut self, _: &Deposited) {}
}

#[derive(TransientEvent)]
struct Tick;

#[derive(TransientEvent)]
struct Tock;

#[derive(TransientEvent)]
struct Alert;

struct Risk;

#[subscriber(name = "risk")]
impl Risk {
    #[on]
    fn shared(&self, _: &Tick) {}

    #[on]
    async fn waits(&mut self, _: &Tock) {}

    #[on]
    fn by_value(&mut self, _: Alert) {}

    #[on]
    fn nothing(&mut self) {}

    #[on]
    fn more(&mut self, _: &Deposited, _: &Header, _: u8) {}

    #[query]
    fn query(&self) {}
}

fn main() {}
