//! An account: deposit, withdraw, an overdraft rejected, a repeated request ignored, the balance read back.
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tidings::{App, Command, CommandId, Event, Header, Memory, Outcome, aggregate, projection};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.booked")]
struct Booked {
    cents: i64,
}
#[derive(Command, Clone)]
struct Deposit(i64);
#[derive(Command, Clone)]
struct Withdraw(i64);
#[derive(Debug, thiserror::Error)]
#[error("{0} cents short")]
struct Overdrawn(i64);

#[derive(Default)]
struct Account(i64);
#[aggregate(category = "account", events = AccountEvent, error = Overdrawn)]
impl Account {
    #[command]
    fn deposit(&self, Deposit(cents): Deposit) -> Booked {
        Booked { cents }
    }
    #[command]
    fn withdraw(&self, Withdraw(cents): Withdraw) -> Result<Booked, Overdrawn> {
        if cents > self.0 { Err(Overdrawn(cents - self.0)) } else { Ok(Booked { cents: -cents }) }
    }
    #[apply]
    fn booked(&mut self, event: &Booked) {
        self.0 += event.cents;
    }
}

#[derive(Default)]
struct Balances(HashMap<String, i64>);
#[projection(name = "balances", version = 1)]
impl Balances {
    #[on]
    fn booked(&mut self, event: &Booked, header: &Header) {
        *self.0.entry(header.stream.id().to_owned()).or_default() += event.cents;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = app.projection(Balances::default()).start().await?;
    app.send("acc-1", Deposit(100)).await?;
    let request = CommandId::from_name("request 17");
    let first = app.send("acc-1", Withdraw(70)).command_id(request).await?;
    let again = app.send("acc-1", Withdraw(70)).command_id(request).await?;
    assert_eq!((again.outcome, again.position), (Outcome::AlreadyKnown, first.position));
    let rejected = app.send("acc-1", Withdraw(70)).await.map(|receipt| receipt.position);
    let balances = app.view::<Balances>();
    println!("{rejected:?} {:?}", balances.at_least(first.position).await?.0.get("acc-1"));
    Ok(app.shutdown().await?)
}
