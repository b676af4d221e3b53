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
    fn tick(&mut self, _: &Tick, _: &Header) {}
}

fn main() {}
