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
#[event(name = "account.paid_in", formerly = "account.deposited")]
struct PaidIn {
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

    #[apply]
    fn paid_in(&mut self, event: &PaidIn) {
        self.cents += event.cents;
    }
}

fn main() {}
