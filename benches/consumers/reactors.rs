//! Deliveries to reactors, beside bare loops that read the log and call the same handler; and what guards an effect, beside a
//! bare transaction.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection, TransactionBehavior};
use tidings::{
    App, Delivery, Header, InboxError, Reactions, Reactor, ReactorOptions, Sqlite, idempotent,
    reactor,
};
use tokio::sync::Notify;

use crate::account::{Account, Deposited};
use crate::{Bench, Log, Views, deposits, folder};

/// How long a handler waits that calls a service near by.
const CALL: Duration = Duration::from_millis(1);

pub(crate) async fn measure(bench: &Bench) {
    deliveries::<1>(bench).await;
    deliveries::<16>(bench).await;
    deliveries::<64>(bench).await;
    calls::<64>(bench).await;
    guarded(bench).await;
}

/// A handler that does nothing, so many at once.
async fn deliveries<const AT_ONCE: usize>(bench: &Bench) {
    let log = &bench.large;
    bench
        .case(
            &format!("reactor, empty handler, {AT_ONCE} at once / bare loop"),
            "deliveries/s",
            log.events,
            async || react(log, Counter::<AT_ONCE>::default()).await,
            async || loop_over(log, 1, Duration::ZERO).await,
        )
        .await;
}

/// A handler that waits, so many at once.
async fn calls<const AT_ONCE: usize>(bench: &Bench) {
    let log = &bench.small;
    bench
        .case(
            &format!("reactor, handler of 1 ms, {AT_ONCE} at once / bare stream"),
            "deliveries/s",
            log.events,
            async || react(log, Counter::<AT_ONCE> { wait: CALL, ..Counter::default() }).await,
            async || loop_over(log, AT_ONCE, CALL).await,
        )
        .await;
}

/// What guards an effect: the transaction of a reactor, and an inbox.
async fn guarded(bench: &Bench) {
    let log = &bench.small;
    bench
        .case(
            "reactor, handler in a transaction / bare transactions",
            "effects/s",
            log.events,
            async || react(log, Paying::default()).await,
            async || pay(log, false).expect("payments"),
        )
        .await;
    bench
        .case(
            "idempotent function / bare transactions",
            "effects/s",
            log.events,
            async || pay(log, true).expect("payments"),
            async || pay(log, false).expect("payments"),
        )
        .await;
}

/// How many events were handled, and who waits for the last.
#[derive(Default)]
struct Handled {
    count: AtomicU64,
    wanted: u64,
    done: Notify,
}

impl Handled {
    fn add(&self) {
        if self.count.fetch_add(1, Ordering::Relaxed) + 1 == self.wanted {
            self.done.notify_one();
        }
    }
}

/// A reactor that can be measured.
trait Measured: Reactor {
    fn begin(&mut self, handled: Arc<Handled>);
}

/// How long it takes from the start of the app until each event was handled.
async fn react(log: &Log, mut reactor: impl Measured) -> Duration {
    let views = Views::new();
    let store = Sqlite::open(log.path()).expect("a log");
    let handled = Arc::new(Handled { wanted: log.events, ..Handled::default() });
    reactor.begin(Arc::clone(&handled));
    let start = Instant::now();
    let app = App::builder()
        .store(store)
        .views(views.path())
        .aggregate::<Account>()
        .reactor(reactor)
        .start()
        .await
        .expect("an app");
    handled.done.notified().await;
    let elapsed = start.elapsed();
    app.shutdown().await.expect("a shutdown");
    assert_eq!(handled.count.load(Ordering::Relaxed), log.events);
    assert!(app.letters().is_empty());
    elapsed
}

/// Counts, after a wait.
#[derive(Default)]
struct Counter<const AT_ONCE: usize> {
    handled: Arc<Handled>,
    wait: Duration,
}

impl<const AT_ONCE: usize> Measured for Counter<AT_ONCE> {
    fn begin(&mut self, handled: Arc<Handled>) {
        self.handled = handled;
    }
}

impl<const AT_ONCE: usize> Reactor for Counter<AT_ONCE> {
    const NAME: &'static str = "counter";

    fn handlers(handlers: &mut Reactions<Self>) {
        handlers.on(|counter: &Self, event: &Deposited, _: &Delivery| {
            Box::pin(count(&counter.handled, event, counter.wait))
        });
    }

    fn options() -> ReactorOptions {
        ReactorOptions { concurrency: AT_ONCE, ..ReactorOptions::default() }
    }
}

/// The handler that both sides call.
async fn count(handled: &Handled, event: &Deposited, wait: Duration) {
    assert_eq!(event.cents, 1);
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    handled.add();
}

/// How long it takes to read a log and to call the handler for each event, so many at once, in no order of keys.
async fn loop_over(log: &Log, at_once: usize, wait: Duration) -> Duration {
    let store = Sqlite::open(log.path()).expect("a log");
    let handled = &Handled { wanted: log.events, ..Handled::default() };
    let start = Instant::now();
    let events =
        deposits::read(&store).map(|(_, event)| async move { count(handled, &event, wait).await });
    match at_once {
        // A stream has a cost of its own.
        1 => {
            for event in events {
                event.await;
            }
        }
        _ => stream::iter(events).buffer_unordered(at_once).collect::<()>().await,
    }
    let elapsed = start.elapsed();
    assert_eq!(handled.count.load(Ordering::Relaxed), log.events);
    elapsed
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS paid (id TEXT NOT NULL, cents INTEGER NOT NULL)";

/// The effect of each event.
fn insert(db: &Connection, id: &str, event: &Deposited) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO paid VALUES (?1, ?2)")?.execute((id, event.cents))?;
    Ok(())
}

/// Writes a row for each event in the transaction that it is given.
#[derive(Default)]
struct Paying(Arc<Handled>);

impl Measured for Paying {
    fn begin(&mut self, handled: Arc<Handled>) {
        self.0 = handled;
    }
}

#[reactor(name = "paying")]
impl Paying {
    #[on]
    fn deposited(
        &self,
        tx: &Transaction<'_>,
        event: &Deposited,
        header: &Header,
    ) -> rusqlite::Result<()> {
        let id = header.stream.id();
        if insert(tx, id, event).is_err() {
            // It is the first.
            tx.execute_batch(TABLE)?;
            insert(tx, id, event)?;
        }
        self.0.add();
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum PayError {
    #[error(transparent)]
    Inbox(#[from] InboxError),
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
}

#[idempotent(name = "pay", key = key, keep = "7 days")]
fn pay_once(
    tx: &rusqlite::Transaction<'_>,
    key: &str,
    id: &str,
    event: &Deposited,
) -> Result<(), PayError> {
    Ok(insert(tx, id, event)?)
}

/// How long it takes to read a log and to write a row for each event, in a transaction each.
fn pay(log: &Log, guarded: bool) -> Result<Duration, PayError> {
    let directory = folder();
    let mut db = open(&directory.path().join("paid.db"))?;
    let store = Sqlite::open(log.path()).expect("a log");
    let start = Instant::now();
    for (header, event) in deposits::read(&store) {
        let id = header.stream.id();
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match guarded {
            true => pay_once(&tx, &header.event_id.to_string(), id, &event)?,
            false => insert(&tx, id, &event)?,
        }
        tx.commit()?;
    }
    let elapsed = start.elapsed();
    let rows: i64 = db.query_row("SELECT count(*) FROM paid", [], |row| row.get(0))?;
    assert_eq!(rows as u64, log.events);
    Ok(elapsed)
}

/// A database in the mode of the file of views: it can be an instant older after a power cut.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    db.execute_batch(TABLE)?;
    Ok(db)
}
