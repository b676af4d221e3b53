use serde::{Deserialize, Serialize};
use tidings::{Command, Event, Header, aggregate};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited")]
struct Deposited {
    cents: i64,
}

#[derive(Command, Clone)]
struct Deposit {
    cents: i64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.closed")]
struct Closed;

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
    fn deposited(&mut self, event: &mut Deposited) {
        self.cents += event.cents;
    }

    #[apply]
    fn closed(&mut self, _: &Closed, header: &Header) {
        let _ = header;
    }

    #[apply]
    fn nothing(&mut self) {}

    #[apply]
    fn text(&mut self, _: &[u8]) {}
}

fn main() {}
