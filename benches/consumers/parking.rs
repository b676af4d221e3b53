//! A consumer that has parked one key of 10,000, beside itself with nothing parked.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::Connection;
use tidings::{
    App, AppBuilder, ErrorClass, Header, LetterState, Memory, Projection, Reactor, Sqlite,
    projection, reactor,
};

use crate::account::{Account, Balances, Deposit, Deposited};
use crate::{Bench, Log, STREAMS, Views, deposits};

/// The stream whose events cannot be handled.
const POISONED: &str = "acc-0";

/// How many commands are sent but not answered at any time.
const IN_FLIGHT: usize = 4_096;

/// Longer than any case takes.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) async fn measure(bench: &Bench) {
    both::<Counted>(bench, "memory").await;
    both::<Booked>(bench, "tables").await;
    both::<Counting>(bench, "reactor").await;
}

/// From the log, and live.
async fn both<C: Consumer>(bench: &Bench, name: &str) {
    let log = &bench.large;
    bench
        .case(
            &format!("{name} from the log, a key parked / none parked"),
            "events/s",
            log.events,
            async || catch_up::<C>(log, true).await,
            async || catch_up::<C>(log, false).await,
        )
        .await;
    bench
        .case(
            &format!("{name} live, a key parked / none parked"),
            "events/s",
            log.events,
            async || live::<C>(log.events, true).await,
            async || live::<C>(log.events, false).await,
        )
        .await;
}

/// How long it takes from the start of the app until the consumer is level.
async fn catch_up<C: Consumer>(log: &Log, poisoned: bool) -> Duration {
    let views = Views::new();
    let store = Sqlite::open(log.path()).expect("a log");
    let handled = Arc::default();
    let builder = App::builder().store(store).views(views.path()).aggregate::<Account>();
    let start = Instant::now();
    let app = C::join(builder, poisoned, &handled).start().await.expect("an app");
    app.reached(C::NAME, app.head(), PATIENCE).await.expect("a level consumer");
    let elapsed = start.elapsed();
    check::<C>(&app, log.events, poisoned, &handled).await;
    elapsed
}

/// How long it takes from the first of so many commands until all are answered and the consumer is level.
async fn live<C: Consumer>(events: u64, poisoned: bool) -> Duration {
    let handled = Arc::default();
    let builder = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = C::join(builder, poisoned, &handled).start().await.expect("an app");
    let start = Instant::now();
    send(&app, events).await;
    app.reached(C::NAME, app.head(), PATIENCE).await.expect("a level consumer");
    let elapsed = start.elapsed();
    check::<C>(&app, events, poisoned, &handled).await;
    elapsed
}

/// Every event was handled, but those of the parked key.
async fn check<C: Consumer>(app: &App, events: u64, poisoned: bool, handled: &AtomicU64) {
    let of_poisoned = (0..events).filter(|number| deposits::stream(*number, STREAMS) == POISONED);
    let parked = if poisoned { of_poisoned.count() } else { 0 };
    assert_eq!(C::handled(app, handled).await, events - parked as u64);
    let letters = app.letters().of(C::NAME).expect("a consumer").list();
    assert_eq!(letters.len(), parked);
    let failed = letters.iter().filter(|letter| letter.state == LetterState::Parked);
    assert_eq!(failed.count(), usize::from(poisoned));
    app.shutdown().await.expect("a shutdown");
}

/// Sends so many commands, to the streams in turn.
async fn send(app: &App, commands: u64) {
    let next = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (app, next) = (app.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= commands {
                        return;
                    }
                    let id = deposits::stream(number, STREAMS);
                    app.send(id, Deposit { cents: 1 }).await.expect("a receipt");
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("a sender");
    }
}

/// A consumer that can be measured.
trait Consumer {
    const NAME: &'static str;

    /// Puts it into an app: one that handles all events, or none of the poisoned key.
    fn join(builder: AppBuilder, poisoned: bool, handled: &Arc<AtomicU64>) -> AppBuilder;

    /// How many events it has handled; `handled` has counted them if it can.
    async fn handled(app: &App, handled: &AtomicU64) -> u64;
}

/// The event cannot be handled.
#[derive(Debug, thiserror::Error)]
#[error("poisoned")]
struct Poison;

/// Whether the event can be handled.
fn taste(poisoned: bool, header: &Header) -> Result<(), Poison> {
    if poisoned && header.stream.id() == POISONED { Err(Poison) } else { Ok(()) }
}

/// In memory.
struct Counted {
    poisoned: bool,
    handled: u64,
    balances: Balances,
}

#[projection(name = "counted")]
impl Counted {
    #[on]
    fn deposited(&mut self, event: &Deposited, header: &Header) -> Result<(), Poison> {
        taste(self.poisoned, header)?;
        self.handled += 1;
        self.balances.change(header.stream.id(), event.cents);
        Ok(())
    }
}

impl Consumer for Counted {
    const NAME: &'static str = <Self as Projection>::NAME;

    fn join(builder: AppBuilder, poisoned: bool, _: &Arc<AtomicU64>) -> AppBuilder {
        builder.projection(Self { poisoned, handled: 0, balances: Balances::default() })
    }

    async fn handled(app: &App, _: &AtomicU64) -> u64 {
        app.view::<Self>().read().handled
    }
}

/// In tables.
struct Booked {
    poisoned: bool,
}

#[projection(
    name = "booked",
    schema = "CREATE TABLE booked (
                  id TEXT PRIMARY KEY, cents INTEGER NOT NULL, handled INTEGER NOT NULL
              ) WITHOUT ROWID"
)]
impl Booked {
    #[on]
    fn deposited(
        &self,
        tx: &Transaction<'_>,
        event: &Deposited,
        header: &Header,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        taste(self.poisoned, header)?;
        let sql = "INSERT INTO booked VALUES (?1, ?2, 1) ON CONFLICT (id)
                   DO UPDATE SET cents = cents + excluded.cents, handled = handled + 1";
        tx.prepare_cached(sql)?.execute((header.stream.id(), event.cents))?;
        Ok(())
    }
}

impl Consumer for Booked {
    const NAME: &'static str = <Self as Projection>::NAME;

    fn join(builder: AppBuilder, poisoned: bool, _: &Arc<AtomicU64>) -> AppBuilder {
        builder.projection(Self { poisoned })
    }

    async fn handled(app: &App, _: &AtomicU64) -> u64 {
        let sum = |db: &Connection| {
            db.query_row("SELECT coalesce(sum(handled), 0) FROM booked", [], |row| row.get(0))
        };
        let handled: i64 = app.view::<Self>().read().query(sum).await.expect("a sum");
        handled as u64
    }
}

/// Has an effect outside: it counts.
struct Counting {
    poisoned: bool,
    handled: Arc<AtomicU64>,
}

#[reactor(name = "counting", classify = ErrorClass::of)]
impl Counting {
    #[on]
    async fn deposited(&self, _: &Deposited, header: &Header) -> Result<(), Poison> {
        taste(self.poisoned, header)?;
        self.handled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Consumer for Counting {
    const NAME: &'static str = <Self as Reactor>::NAME;

    fn join(builder: AppBuilder, poisoned: bool, handled: &Arc<AtomicU64>) -> AppBuilder {
        builder.reactor(Self { poisoned, handled: Arc::clone(handled) })
    }

    async fn handled(_: &App, handled: &AtomicU64) -> u64 {
        handled.load(Ordering::Relaxed)
    }
}
