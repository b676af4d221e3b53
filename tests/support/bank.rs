//! The small domain that the tests of the guarantees share: accounts, and a ledger beside them.
#![allow(dead_code, unused_imports, reason = "each test file that mounts this uses a part of it")]

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::{MaybeDone, maybe_done};
use serde::{Deserialize, Serialize};
use tidings::{
    App, AppBuilder, Codec, Command, CommandId, Event, EventStore, Filter, Header, Position,
    Receipt, Recorded, SendError, Sqlite, SqliteOptions, StreamId, Version, aggregate, projection,
};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "account.deposited", version = 1)]
pub(crate) struct Deposited {
    pub(crate) cents: i64,
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "account.withdrawn", version = 1)]
pub(crate) struct Withdrawn {
    pub(crate) cents: i64,
}

/// Folding it panics while its fuse is lit.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "account.rigged", version = 1)]
pub(crate) struct Rigged {
    pub(crate) fuse: String,
}

#[derive(Command, Clone, Debug)]
pub(crate) struct Deposit {
    pub(crate) cents: i64,
}

/// Rejected if it is more than there is.
#[derive(Command, Clone, Debug)]
pub(crate) struct Withdraw {
    pub(crate) cents: i64,
}

/// Emits an event for each part.
#[derive(Command, Clone, Debug)]
pub(crate) struct DepositAll {
    pub(crate) parts: Vec<i64>,
}

/// Accepted without an event if there is as much, rejected if there is not.
#[derive(Command, Clone, Debug)]
pub(crate) struct Check {
    pub(crate) cents: i64,
}

/// Panics while it is decided.
#[derive(Command, Clone, Debug)]
pub(crate) struct Explode;

#[derive(Command, Clone, Debug)]
pub(crate) struct Rig {
    pub(crate) fuse: String,
}

/// What an account rejects with: the state that it decided on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("only {cents} cents after {entries} entries")]
pub(crate) struct Overdrawn {
    pub(crate) cents: i64,
    pub(crate) entries: u64,
}

#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) cents: i64,
    pub(crate) entries: u64,
}

#[aggregate(category = "account", events = AccountEvent, error = Overdrawn)]
impl Account {
    #[command]
    fn deposit(&self, command: Deposit) -> Deposited {
        Deposited { cents: command.cents }
    }
    #[command]
    fn withdraw(&self, command: Withdraw) -> Result<Withdrawn, Overdrawn> {
        self.has(command.cents)?;
        Ok(Withdrawn { cents: command.cents })
    }
    #[command]
    fn deposit_all(&self, command: DepositAll) -> Vec<Deposited> {
        let parts = command.parts.into_iter();
        parts.map(|cents| Deposited { cents }).collect()
    }
    #[command]
    fn check(&self, command: Check) -> Result<(), Overdrawn> {
        self.has(command.cents)
    }
    #[command]
    fn explode(&self, _: Explode) {
        panic!("boom");
    }
    #[command]
    fn rig(&self, command: Rig) -> Rigged {
        Rigged { fuse: command.fuse }
    }
    #[apply]
    fn deposited(&mut self, event: &Deposited) {
        self.cents += event.cents;
        self.entries += 1;
    }
    #[apply]
    fn withdrawn(&mut self, event: &Withdrawn) {
        self.cents -= event.cents;
        self.entries += 1;
    }
    #[apply]
    fn rigged(&mut self, event: &Rigged) {
        assert!(!is_lit(&event.fuse), "the fuse {} was lit", event.fuse);
        self.entries += 1;
    }
}

impl Account {
    fn has(&self, cents: i64) -> Result<(), Overdrawn> {
        if cents > self.cents {
            return Err(Overdrawn { cents: self.cents, entries: self.entries });
        }
        Ok(())
    }
}

static LIT: Mutex<Option<HashSet<String>>> = Mutex::new(None);

/// From now on folding an event with this fuse panics.
pub(crate) fn light(fuse: &str) {
    LIT.lock().unwrap().get_or_insert_default().insert(fuse.into());
}

pub(crate) fn put_out(fuse: &str) {
    LIT.lock().unwrap().get_or_insert_default().remove(fuse);
}

fn is_lit(fuse: &str) -> bool {
    LIT.lock().unwrap().get_or_insert_default().contains(fuse)
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "ledger.booked", version = 1)]
pub(crate) struct Booked {
    pub(crate) number: u64,
}

#[derive(Command, Clone, Debug)]
pub(crate) struct Book {
    pub(crate) number: u64,
}

#[derive(Default, Clone, Debug)]
pub(crate) struct Ledger;

#[aggregate(category = "ledger", events = LedgerEvent, error = std::convert::Infallible)]
impl Ledger {
    #[command]
    fn book(&self, command: Book) -> Booked {
        Booked { number: command.number }
    }
    #[apply]
    fn booked(&mut self, _: &Booked) {}
}

/// Every balance, and every event of an account that it has seen, by position.
#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Balances {
    pub(crate) of: BTreeMap<String, i64>,
    pub(crate) seen: Vec<u64>,
}

#[projection(name = "balances", version = 1)]
impl Balances {
    #[on]
    fn deposited(&mut self, event: &Deposited, header: &Header) {
        self.add(header, event.cents);
    }
    #[on]
    fn withdrawn(&mut self, event: &Withdrawn, header: &Header) {
        self.add(header, -event.cents);
    }
}

impl Balances {
    fn add(&mut self, header: &Header, cents: i64) {
        *self.of.entry(header.stream.id().into()).or_default() += cents;
        self.seen.push(header.position.as_u64());
    }

    /// The naive fold of a log.
    pub(crate) fn of_log(store: &dyn EventStore) -> Self {
        let mut balances = Self::default();
        for recorded in whole_log(store) {
            if recorded.header.stream.category() != "account" {
                continue;
            }
            match recorded.decode::<AccountEvent>().unwrap() {
                AccountEvent::Deposited(event) => balances.add(&recorded.header, event.cents),
                AccountEvent::Withdrawn(event) => balances.add(&recorded.header, -event.cents),
                AccountEvent::Rigged(_) => {}
            }
        }
        balances
    }
}

pub(crate) fn account(id: &str) -> StreamId {
    StreamId::new("account", id).unwrap()
}

/// The events of a log, read past the app.
pub(crate) fn whole_log(store: &dyn EventStore) -> Vec<Recorded> {
    let page = store.read_log(Position::START, &Filter::All, usize::MAX).unwrap();
    page.events
}

/// The events of an account, read past the app.
pub(crate) fn entries(store: &dyn EventStore, id: &str) -> Vec<Recorded> {
    let mut events = Vec::new();
    store
        .read_stream(&account(id), Version::EMPTY, &mut |event| {
            events.push(event);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    events
}

/// The fold of an account's first `entries` events, read past the app.
pub(crate) fn fold(events: &[Recorded]) -> Account {
    let mut account = Account::default();
    for recorded in events {
        let event = recorded.decode::<AccountEvent>().unwrap();
        tidings::Aggregate::apply(&mut account, &event);
    }
    account
}

/// A log in a file, as fast as a file goes.
pub(crate) fn sqlite(path: impl AsRef<std::path::Path>) -> Sqlite {
    Sqlite::options().durability(tidings::Durability::Os).open(path).unwrap()
}

/// How long a test waits for something that is bound to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `holds` does.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits for `future`, not for ever.
pub(crate) async fn soon<F: IntoFuture>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future.into_future()).await {
        Ok(output) => output,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Polls `future` once; it must not be ready.
pub(crate) async fn not_yet<F: Future + Unpin>(what: &str, future: &mut F) {
    let polled = std::future::poll_fn(|cx| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_ready())
    });
    assert!(!polled.await, "{what} came too early");
}

/// A future that was polled once: a command among these has its place in the order.
pub(crate) struct Begun<F: Future>(std::pin::Pin<Box<MaybeDone<F>>>);

pub(crate) async fn begin<F: Future>(future: F) -> Begun<F> {
    let mut begun = Box::pin(maybe_done(future));
    std::future::poll_fn(|cx| {
        let _ = begun.as_mut().poll(cx);
        std::task::Poll::Ready(())
    })
    .await;
    Begun(begun)
}

impl<F: Future> Begun<F> {
    /// Polls it once more.
    pub(crate) async fn poll(&mut self) {
        std::future::poll_fn(|cx| {
            let _ = self.0.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(*self.0, MaybeDone::Done(_))
    }

    pub(crate) async fn end(mut self) -> F::Output {
        self.0.as_mut().await;
        self.0.as_mut().take_output().unwrap()
    }
}

/// Random numbers that are the same for the same seed (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
