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

#[derive(Default)]
struct Account {
    cents: i64,
}

#[aggregate(category = "account", events = AccountEvent)]
impl Account {
    #[comand]
    fn deposit(&self, command: Deposit) -> Deposited {
        Deposited {
            cents: command.cents,
        }
    }

    #[apply(Deposited)]
    fn deposited(&mut self, event: &Deposited) {
        self.cents += event.cents;
    }

    #[on]
    fn happened(&self, event: &Deposited) {
        let _ = event;
    }

    #[apply]
    #[command]
    fn both(&mut self, event: &Closed) {
        let _ = event;
    }
}

fn main() {}
