use serde::{Deserialize, Serialize};
use tidings::{Command, Event, Header, aggregate, projection};

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
struct Account {
    cents: i64,
}

#[aggregate(category = "account", events = AccountEvent)]
impl Account {
    #[command]
    fn deposit(&self, command: Deposit) -> Deposited {
        Deposited {
            cents: command.cents,
        }
    }

    #[apply]
    fn deposited(&mut self, event: &Deposited) {
        self.cents += event.cents;
    }
}

#[derive(Default)]
struct Balances {
    cents: i64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.closed")]
struct Closed;

#[projection(name = "balances")]
impl Balances {
    #[on]
    fn nothing(&mut self) {}

    #[on]
    fn deposited(&mut self, _: &Deposited, header: Header) {
        let _ = header;
    }

    #[on]
    fn more(&mut self, _: &Closed, _: &Header, _: u8) {}
}

fn main() {}
