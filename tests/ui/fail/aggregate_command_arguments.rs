use serde::{Deserialize, Serialize};
use tidings::{Command, Context, Event, aggregate};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited")]
struct Deposited {
    cents: i64,
}

#[derive(Command, Clone)]
struct Deposit {
    cents: i64,
}

#[derive(Command, Clone)]
struct Close;

#[derive(Command, Clone)]
struct Reopen;

#[derive(Default)]
struct Account {
    cents: i64,
}

#[aggregate(category = "account", events = AccountEvent)]
impl Account {
    #[command]
    fn deposit(&self) -> Deposited {
        Deposited { cents: 1 }
    }

    #[command]
    fn close(&self, _: Close, context: Context) {
        let _ = context;
    }

    #[command]
    fn reopen(&self, _: Reopen, context: &Context, cents: i64) {
        let _ = (context, cents);
    }

    #[command]
    fn several(&self, (a, b): (Deposit, Close)) {
        let _ = (a, b);
    }

    #[apply]
    fn deposited(&mut self, event: &Deposited) {
        self.cents += event.cents;
    }
}

fn main() {}
