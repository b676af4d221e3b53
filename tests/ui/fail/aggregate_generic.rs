use serde::{Deserialize, Serialize};
use tidings::{Command, Event, aggregate};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited")]
struct Deposited {
    cents: i64,
}

#[derive(Command, Clone)]
struct Deposit {
    cents: i64,
}

#[derive(Default)]
struct Account<T> {
    cents: T,
}

#[aggregate(category = "account", events = AccountEvent)]
impl<T> Account<T> {
    #[apply]
    fn deposited(&mut self, event: &Deposited) {
        let _ = (&self.cents, event);
    }
}

fn main() {}
