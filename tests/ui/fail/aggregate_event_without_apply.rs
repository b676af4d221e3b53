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

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.closed")]
struct Closed;

#[derive(Command, Clone)]
struct Close;

#[derive(Command, Clone)]
struct Leave;

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

    #[command]
    fn close(&self, _: Close) -> Closed {
        Closed
    }

    #[command]
    fn leave(&self, _: Leave) -> Option<(Deposited, Closed)> {
        None
    }

    #[apply]
    fn deposited(&mut self, event: &Deposited) {
        self.cents += event.cents;
    }
}

fn main() {}
