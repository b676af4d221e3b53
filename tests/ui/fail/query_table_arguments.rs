use serde::{Deserialize, Serialize};
use tidings::{Event, Query, aggregate, projection};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited")]
struct Deposited {
    cents: i64,
}

#[derive(Default)]
struct Account {
    cents: i64,
}

#[aggregate(category = "account", events = AccountEvent)]
impl Account {
    #[apply]
    fn deposited(&mut self, event: &Deposited) {
        self.cents += event.cents;
    }
}

#[derive(Query)]
#[query(reply = i64)]
struct Balance;

#[derive(Query)]
#[query(reply = u8)]
struct Count;

#[derive(Query)]
#[query(reply = String)]
struct Holder;

struct Connection;
struct Transaction;

struct Balances;

#[projection(name = "balances", schema = "CREATE TABLE balance (cents INTEGER)")]
impl Balances {
    #[on]
    fn deposited(&self, tx: &Transaction, event: &Deposited) {
        let _ = (tx, event.cents);
    }

    #[query]
    fn balance(&self, _: Balance) -> i64 {
        0
    }

    #[query]
    fn count(&self, _: &Connection, _: Count) -> u8 {
        0
    }

    #[query]
    fn holder(_: Holder) -> String {
        String::new()
    }

    #[query]
    fn nothing() -> i64 {
        0
    }

    #[query]
    fn written(_: &Transaction, _: Balance) -> i64 {
        0
    }

    #[query]
    fn owned(_: Connection, _: Count, _: u8) -> u8 {
        0
    }
}

fn main() {}
