use tidings::{aggregate, projection};

#[aggregate(category = "account", events = AccountEvent)]
#[derive(Default)]
struct Account;

#[projection(name = "balances")]
fn balances() {}

fn main() {}
