//! What parking, reactors and subscribing aggregates cost, each beside the same work without.
//!
//! `cargo bench --bench consumers [-- --json] [-- --events=20000] [-- part of a case's name]`
//!
//! Each case is measured five times, each time with its baseline beside it, in turns of who is first. What a consumer has done is
//! looked at afterwards: each event must have been handled, once, or stand among its letters, or the run ends.

#![expect(clippy::expect_used, reason = "a benchmark ends where something is wrong")]

#[path = "support/account.rs"]
mod account;
#[path = "support/log.rs"]
mod log;
#[path = "support/report.rs"]
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidings::sqlite::Transaction;
use tidings::{
    App, Header, LetterState, Memory, Projection, Sqlite, projection,
};

use self::account::{Account, Deposit, Deposited};
use self::report::{ROUNDS, Report, per_second};

/// What a server with many threads should use: a command is allocated by its caller and freed by the sequencer, for which
/// glibc's allocator takes a lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many streams there are; one of them is the poisoned key.
const STREAMS: u64 = 10_000;

/// How many commands are sent but not answered at any time.
const IN_FLIGHT: usize = 4_096;

/// The stream whose events cannot be handled.
const POISONED: &str = "acc-7";

fn main() {
    let report = Report::from_args("consumers");
    let events = events();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let bench = Bench { report, events, directory };
    log::fill(&bench.log(), events, STREAMS);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        bench.parking::<Counted>("memory").await;
        bench.parking::<Booked>("tables").await;
    });
}

/// How many events there are: 400,000 unless `--events=` says otherwise.
fn events() -> u64 {
    let argument = std::env::args().find_map(|argument| {
        argument.strip_prefix("--events=").map(|events| events.parse().expect("a number"))
    });
    argument.unwrap_or(400_000)
}

struct Bench {
    report: Report,
    events: u64,
    directory: tempfile::TempDir,
}

impl Bench {
    /// A log in which the streams have their events in turn.
    fn log(&self) -> std::path::PathBuf {
        self.directory.path().join("bank.db")
    }

    /// A projection that has parked one key of 10,000, beside itself with nothing parked: from the log, and live.
    async fn parking<P: Folding>(&self, name: &str) {
        let case = format!("{name}, one key of 10,000 parked, from the log");
        if self.report.wants(&case) {
            let samples = self.both(async |poisoned| self.catch_up::<P>(poisoned).await).await;
            self.report.print(&format!("{case} / nothing parked"), "events/s", &samples);
        }
        let case = format!("{name}, one key of 10,000 parked, live");
        if self.report.wants(&case) {
            let samples = self.both(async |poisoned| self.live::<P>(poisoned).await).await;
            self.report.print(&format!("{case} / nothing parked"), "events/s", &samples);
        }
    }

    /// Events per second with a poisoned key and without one, in turns.
    async fn both(&self, measure: impl AsyncFn(bool) -> Duration) -> Vec<(f64, f64)> {
        let mut samples = Vec::new();
        for round in 0..ROUNDS {
            let poisoned_first = round % 2 == 0;
            let one = per_second(self.events, measure(poisoned_first).await);
            let other = per_second(self.events, measure(!poisoned_first).await);
            samples.push(if poisoned_first { (one, other) } else { (other, one) });
        }
        samples
    }

    /// How long it takes from the start of the app until the view is level.
    async fn catch_up<P: Folding>(&self, poisoned: bool) -> Duration {
        let views = self.directory.path().join("views.db");
        let store = Sqlite::open(self.log()).expect("a log");
        let start = Instant::now();
        let app = App::builder()
            .store(store)
            .views(&views)
            .aggregate::<Account>()
            .projection(P::new(poisoned))
            .start()
            .await
            .expect("an app");
        P::wait(&app).await;
        let elapsed = start.elapsed();
        self.check::<P>(&app, poisoned).await;
        for suffix in ["", "-wal", "-shm"] {
            // The last connection to the file may have removed the other two.
            let _ = std::fs::remove_file(self.directory.path().join(format!("views.db{suffix}")));
        }
        elapsed
    }

    /// How long it takes from the first command until all are answered and the view is level.
    async fn live<P: Folding>(&self, poisoned: bool) -> Duration {
        let app = App::builder()
            .store(Memory::new())
            .aggregate::<Account>()
            .projection(P::new(poisoned))
            .start()
            .await
            .expect("an app");
        let start = Instant::now();
        send(&app, self.events).await;
        P::wait(&app).await;
        let elapsed = start.elapsed();
        self.check::<P>(&app, poisoned).await;
        elapsed
    }

    /// Every event was folded, but those of the parked key.
    async fn check<P: Folding>(&self, app: &App, poisoned: bool) {
        let of_poisoned = (0..self.events).filter(|n| log::stream(*n, STREAMS) == POISONED).count();
        let parked = if poisoned { of_poisoned } else { 0 };
        assert_eq!(P::folded(app).await, self.events - parked as u64);
        let letters = app.letters().of(P::NAME).expect("a consumer").list();
        assert_eq!(letters.len(), parked);
        let failed = letters.iter().filter(|letter| letter.state == LetterState::Parked);
        assert_eq!(failed.count(), usize::from(poisoned));
        app.shutdown().await.expect("a shutdown");
    }
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
                    let id = log::stream(number, STREAMS);
                    app.send(id, Deposit { cents: 1 }).await.expect("a receipt");
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("a sender");
    }
}

/// Longer than any case takes.
const PATIENCE: Duration = Duration::from_secs(600);

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
    balances: account::Balances,
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
        Self { poisoned, folded: 0, balances: account::Balances::default() }
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
        let sum = |db: &tidings::sqlite::rusqlite::Connection| {
            db.query_row("SELECT coalesce(sum(folded), 0) FROM booked", [], |row| row.get(0))
        };
        let folded: i64 = app.view::<Self>().read().query(sum).await.expect("a sum");
        folded as u64
    }
}
