//! What the macros write raises no warning, however strict the crate is; `cargo clippy` is the test.
#![cfg(feature = "macros")]
#![deny(
    warnings,
    missing_docs,
    missing_debug_implementations,
    rust_2018_idioms,
    unreachable_pub,
    unused_qualifications,
    unused_results,
    let_underscore_drop,
    single_use_lifetimes,
    unused_lifetimes,
    private_interfaces,
    private_bounds,
    clippy::all,
    clippy::pedantic
)]

use serde::{Deserialize, Serialize};
use tidings::{
    Command, Context, Event, Header, Query, TransientEvent, aggregate, projection, subscriber,
};

/// Money came in.
#[derive(Event, Debug, Serialize, Deserialize)]
#[event(name = "account.deposited")]
pub struct Deposited {
    /// How much.
    pub cents: i64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.closed", version = 2, oldest = 2)]
struct Closed;

/// Please add money.
#[derive(Command, Clone, Debug)]
pub struct Deposit {
    /// How much.
    pub cents: i64,
}

#[derive(Command, Clone)]
struct Close;

/// An account.
#[derive(Debug, Default)]
pub struct Account {
    cents: i64,
}

#[aggregate(category = "account", events = AccountEvent)]
impl Account {
    #[command]
    fn deposit(&self, command: Deposit, _context: &Context) -> Deposited {
        Deposited { cents: command.cents }
    }

    #[command]
    fn close(&self, _: Close) -> Option<Closed> {
        (self.cents == 0).then_some(Closed)
    }

    #[apply]
    fn deposited(&mut self, event: &Deposited) {
        self.cents += event.cents;
    }

    #[apply]
    fn closed(&mut self, _: &Closed) {}
}

mod within {
    use super::{Command, Deserialize, Event, Serialize, aggregate};

    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "lamp.lit")]
    struct Lit;

    #[derive(Command, Clone, Debug)]
    pub(crate) struct Light;

    #[derive(Debug, Default)]
    pub(crate) struct Lamp {
        lit: bool,
    }

    #[aggregate(category = "lamp", events = LampEvent)]
    impl Lamp {
        #[command]
        fn light(&self, _: Light) -> Option<Lit> {
            (!self.lit).then_some(Lit)
        }

        #[apply]
        fn lit(&mut self, _: &Lit) {
            self.lit = true;
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Log;

    #[aggregate(category = "log", events = pub(crate) LogEvent)]
    impl Log {
        #[apply]
        fn written(&mut self, _: &Written) {}
    }

    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(name = "log.written")]
    pub(crate) struct Written;
}

/// How much is there?
#[derive(Query, Debug)]
#[query(reply = i64)]
pub struct Sum;

#[derive(Query)]
#[query(reply = Option<u64>)]
struct Last;

/// What something costs.
#[derive(Debug)]
pub struct Price(pub u64);

/// What happens at the exchange.
#[derive(TransientEvent, Debug)]
pub enum Market {
    /// A price.
    Price(Price),
    /// Nothing more for today.
    Closed,
}

/// Watches.
#[derive(Debug, Default)]
pub struct Watch {
    seen: u64,
}

#[subscriber(name = "watch", publishes(Market), overflow = drop_oldest)]
impl Watch {
    #[on]
    fn price(&mut self, price: &Price) -> Result<(), std::fmt::Error> {
        self.seen = self.seen.checked_add(price.0).ok_or(std::fmt::Error)?;
        Ok(())
    }

    #[on]
    fn deposited(&mut self, _: &Deposited, header: &Header) {
        self.seen = header.position.as_u64();
    }
}

/// All money there is.
#[derive(Debug, Default)]
pub struct Total {
    cents: i64,
    last: u64,
}

#[projection(name = "total", version = 3)]
impl Total {
    #[on]
    fn deposited(&mut self, event: &Deposited, header: &Header) {
        self.cents += event.cents;
        self.last = header.position.as_u64();
    }

    #[on]
    fn closed(&mut self, _: &Closed) -> Result<(), std::fmt::Error> {
        self.last.checked_add(1).map(drop).ok_or(std::fmt::Error)
    }

    #[query]
    fn sum(&self, _: &Sum) -> i64 {
        self.cents
    }

    #[query]
    fn last(&self, _: Last) -> Result<Option<u64>, std::fmt::Error> {
        Ok((self.last > 0).then_some(self.last))
    }
}

/// Guards.
#[cfg(feature = "sqlite")]
pub mod guarded {
    use tidings::sqlite::rusqlite::Transaction;
    use tidings::{InboxError, idempotent};

    /// Pays.
    ///
    /// # Errors
    /// It was paid otherwise before.
    #[idempotent(name = "pay", key = id, keep = "7 days")]
    pub fn pay(tx: &Transaction<'_>, id: &str, mut cents: i64) -> Result<i64, InboxError> {
        cents += tx.last_insert_rowid();
        Ok(cents)
    }

    impl super::Account {
        /// Pays out.
        ///
        /// # Errors
        /// It was paid out otherwise before.
        #[idempotent(name = "pay_out", key = id, keep = "7 days", input = (id, cents))]
        pub async fn pay_out(
            &mut self,
            tx: &Transaction<'_>,
            id: u64,
            cents: i64,
        ) -> Result<(), InboxError> {
            self.cents -= std::future::ready(tx.last_insert_rowid().min(cents)).await;
            Ok(())
        }
    }
}

#[test]
fn a_strict_crate_compiles_what_the_macros_write() {
    use tidings::{Aggregate, Timestamp};

    let context = Context::new(
        tidings::StreamId::new("lamp", "hall").expect("a valid id"),
        Timestamp::from_micros(0),
        tidings::CommandId::fresh(),
    );
    let mut lamp = within::Lamp::default();
    let mut events = Vec::new();
    assert!(lamp.decide(within::Light.into(), &context, &mut events).is_ok());
    for event in &events {
        lamp.apply(event);
    }
    within::Log.apply(&within::Written.into());
    assert!(Account::default().decide(Close.into(), &context, &mut Vec::new()).is_ok());
}
