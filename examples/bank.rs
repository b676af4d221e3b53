//! A bank account: deposit, withdraw, overdraft rejected, duplicate request ignored, balance read back.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tidings::{
    App, Command, CommandId, Event, Header, Memory, Outcome, SendError, aggregate, projection,
};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited", version = 1)]
struct Deposited {
    cents: i64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.withdrawn", version = 1)]
struct Withdrawn {
    cents: i64,
}

#[derive(Command, Clone)]
struct Deposit {
    cents: i64,
}

#[derive(Command, Clone)]
struct Withdraw {
    cents: i64,
}

#[derive(Debug)]
struct Overdrawn {
    short: i64,
}
impl std::fmt::Display for Overdrawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cents short", self.short)
    }
}
impl std::error::Error for Overdrawn {}

#[derive(Default)]
struct Account {
    cents: i64,
}

#[aggregate(category = "account", events = AccountEvent, error = Overdrawn)]
impl Account {
    #[command]
    fn deposit(&self, cmd: Deposit) -> Deposited {
        Deposited { cents: cmd.cents }
    }
    #[command]
    fn withdraw(&self, cmd: Withdraw) -> Result<Withdrawn, Overdrawn> {
        if cmd.cents > self.cents {
            return Err(Overdrawn {
                short: cmd.cents - self.cents,
            });
        }
        Ok(Withdrawn { cents: cmd.cents })
    }
    #[apply]
    fn deposited(&mut self, e: &Deposited) {
        self.cents += e.cents
    }
    #[apply]
    fn withdrawn(&mut self, e: &Withdrawn) {
        self.cents -= e.cents
    }
}

#[derive(Default)]
struct Balances {
    of: HashMap<String, i64>,
}

#[projection(name = "balances", version = 1)]
impl Balances {
    #[on]
    fn deposited(&mut self, e: &Deposited, h: &Header) {
        *self.of.entry(h.stream.id().into()).or_default() += e.cents
    }
    #[on]
    fn withdrawn(&mut self, e: &Withdrawn, h: &Header) {
        *self.of.entry(h.stream.id().into()).or_default() -= e.cents
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = App::builder()
        .store(Memory::new())
        .aggregate::<Account>()
        .projection(Balances::default())
        .start()
        .await?;
    app.send("acc-1", Deposit { cents: 100 }).await?;
    let request = CommandId::from_name("request-17");
    app.send("acc-1", Withdraw { cents: 70 })
        .command_id(request)
        .await?;
    let repeat = app
        .send("acc-1", Withdraw { cents: 70 })
        .command_id(request)
        .await?;
    assert_eq!(repeat.outcome, Outcome::AlreadyKnown);
    match app.send("acc-1", Withdraw { cents: 70 }).await {
        Err(SendError::Rejected(Overdrawn { short })) => println!("rejected: {short} cents short"),
        other => panic!("{other:?}"),
    }
    let position = app.head();
    println!(
        "balance: {}",
        app.view::<Balances>().at_least(position).await?.of["acc-1"]
    );
    app.shutdown().await?;
    Ok(())
}
