//! The domain that is measured: an account that deposits.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tidings::{Command, Event, Header, aggregate, projection};

/// Money came in.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited", version = 1)]
pub(crate) struct Deposited {
    /// How much.
    pub(crate) cents: i64,
    /// From whom.
    pub(crate) payer: String,
}

/// Money went out.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.withdrawn", version = 1)]
pub(crate) struct Withdrawn {
    /// How much.
    pub(crate) cents: i64,
}

/// Takes money in.
#[derive(Command, Clone)]
pub(crate) struct Deposit {
    /// How much.
    pub(crate) cents: i64,
}

/// Pays money out.
#[derive(Command, Clone)]
pub(crate) struct Withdraw {
    /// How much.
    pub(crate) cents: i64,
}

/// Not enough money.
#[derive(Debug, thiserror::Error)]
#[error("overdrawn")]
pub(crate) struct Overdrawn;

/// An account.
#[derive(Default)]
pub(crate) struct Account {
    cents: i64,
}

#[aggregate(category = "account", events = AccountEvent, error = Overdrawn)]
impl Account {
    #[command]
    fn deposit(&self, command: Deposit) -> Deposited {
        Deposited { cents: command.cents, payer: "a customer of the bank".to_owned() }
    }

    #[command]
    fn withdraw(&self, command: Withdraw) -> Result<Withdrawn, Overdrawn> {
        if command.cents > self.cents {
            return Err(Overdrawn);
        }
        Ok(Withdrawn { cents: command.cents })
    }

    #[apply]
    fn deposited(&mut self, event: &Deposited) {
        self.cents += event.cents;
    }

    #[apply]
    fn withdrawn(&mut self, event: &Withdrawn) {
        self.cents -= event.cents;
    }
}

/// Balances by account.
#[derive(Default)]
pub(crate) struct Balances {
    /// In cents.
    pub(crate) of: HashMap<String, i64>,
}

impl Balances {
    /// Changes the balance of `account`.
    pub(crate) fn change(&mut self, account: &str, cents: i64) {
        match self.of.get_mut(account) {
            Some(balance) => *balance += cents,
            None => {
                self.of.insert(account.to_owned(), cents);
            }
        }
    }
}

#[projection(name = "balances", version = 1)]
impl Balances {
    #[on]
    fn deposited(&mut self, event: &Deposited, header: &Header) {
        self.change(header.stream.id(), event.cents);
    }

    #[on]
    fn withdrawn(&mut self, event: &Withdrawn, header: &Header) {
        self.change(header.stream.id(), -event.cents);
    }
}
