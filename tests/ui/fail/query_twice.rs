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

#[derive(Default)]
struct Balances {
    cents: i64,
}

#[projection(name = "balances")]
impl Balances {
    #[on]
    fn deposited(&mut self, event: &Deposited) {
        self.cents += event.cents;
    }

    #[query]
    fn balance(&self, _: Balance) -> i64 {
        self.cents
    }

    #[query]
    fn again(&self, _: &Balance) -> i64 {
        self.cents
    }
}

fn main() {}
