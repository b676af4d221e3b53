//! A projection that has parked one key of 10,000, beside itself with nothing parked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::Connection;
use tidings::{App, Header, LetterState, Memory, Projection, Sqlite, projection};

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
}

/// From the log, and live.
async fn both<P: Folding>(bench: &Bench, name: &str) {
    let log = &bench.large;
    bench
        .case(
            &format!("{name} from the log, a key parked / none parked"),
            "events/s",
            log.events,
            async || catch_up::<P>(log, true).await,
            async || catch_up::<P>(log, false).await,
        )
        .await;
    bench
        .case(
            &format!("{name} live, a key parked / none parked"),
            "events/s",
            log.events,
            async || live::<P>(log.events, true).await,
            async || live::<P>(log.events, false).await,
        )
        .await;
}

/// How long it takes from the start of the app until the view is level.
async fn catch_up<P: Folding>(log: &Log, poisoned: bool) -> Duration {
    let views = Views::new();
    let store = Sqlite::open(log.path()).expect("a log");
    let start = Instant::now();
    let app = App::builder()
        .store(store)
        .views(views.path())
        .aggregate::<Account>()
        .projection(P::new(poisoned))
        .start()
        .await
        .expect("an app");
    P::wait(&app).await;
    let elapsed = start.elapsed();
    check::<P>(&app, log.events, poisoned).await;
    elapsed
}

/// How long it takes from the first of so many commands until all are answered and the view is level.
async fn live<P: Folding>(events: u64, poisoned: bool) -> Duration {
    let app = App::builder()
        .store(Memory::new())
        .aggregate::<Account>()
        .projection(P::new(poisoned))
        .start()
        .await
        .expect("an app");
    let start = Instant::now();
    send(&app, events).await;
    P::wait(&app).await;
    let elapsed = start.elapsed();
    check::<P>(&app, events, poisoned).await;
    elapsed
}

/// Every event was folded, but those of the parked key.
async fn check<P: Folding>(app: &App, events: u64, poisoned: bool) {
    let of_poisoned = (0..events).filter(|number| deposits::stream(*number, STREAMS) == POISONED);
    let parked = if poisoned { of_poisoned.count() } else { 0 };
    assert_eq!(P::folded(app).await, events - parked as u64);
    let letters = app.letters().of(P::NAME).expect("a consumer").list();
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

/// A projection that can be measured.
trait Folding: Projection {
    /// One that folds all events, or none of the poisoned key.
    fn new(poisoned: bool) -> Self;

    /// Waits until it is level.
    async fn wait(app: &App);

    /// How many events it has folded.
    async fn folded(app: &App) -> u64;
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
    folded: u64,
    balances: Balances,
}

#[projection(name = "counted")]
impl Counted {
    #[on]
    fn deposited(&mut self, event: &Deposited, header: &Header) -> Result<(), Poison> {
        taste(self.poisoned, header)?;
        self.folded += 1;
        self.balances.change(header.stream.id(), event.cents);
        Ok(())
    }
}

impl Folding for Counted {
    fn new(poisoned: bool) -> Self {
        Self { poisoned, folded: 0, balances: Balances::default() }
    }

    async fn wait(app: &App) {
        app.view::<Self>().at_least(app.head()).timeout(PATIENCE).await.expect("a view");
    }

    async fn folded(app: &App) -> u64 {
        app.view::<Self>().read().folded
    }
}

/// In tables.
struct Booked {
    poisoned: bool,
}

#[projection(
    name = "booked",
    schema = "CREATE TABLE booked (
                  id TEXT PRIMARY KEY, cents INTEGER NOT NULL, folded INTEGER NOT NULL
              ) WITHOUT ROWID"
)]
impl Booked {
    #[on]
    fn deposited(
        &self,
        tx: &Transaction<'_>,
        event: &Deposited,
        header: &Header,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        taste(self.poisoned, header)?;
        let sql = "INSERT INTO booked VALUES (?1, ?2, 1) ON CONFLICT (id)
                   DO UPDATE SET cents = cents + excluded.cents, folded = folded + 1";
        tx.prepare_cached(sql)?.execute((header.stream.id(), event.cents))?;
        Ok(())
    }
}

impl Folding for Booked {
    fn new(poisoned: bool) -> Self {
        Self { poisoned }
    }

    async fn wait(app: &App) {
        app.view::<Self>().at_least(app.head()).timeout(PATIENCE).await.expect("a view");
    }

    async fn folded(app: &App) -> u64 {
        let sum = |db: &Connection| {
            db.query_row("SELECT coalesce(sum(folded), 0) FROM booked", [], |row| row.get(0))
        };
        let folded: i64 = app.view::<Self>().read().query(sum).await.expect("a sum");
        folded as u64
    }
}
