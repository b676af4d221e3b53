//! Loading aggregates, with snapshots and without, and what it costs to take them.
//!
//! `cargo bench --bench snapshots [-- --json] [-- part of a case's name]`
//!
//! A load is timed from the send of a command to its answer. The command is rejected at once with the state that it was decided
//! on, so that nothing is committed and each state is checked. Each aggregate is loaded once by an app that was just started.
//!
//! The bare query of 1,000 events reads the same rows of the same columns from a table that has an index on stream and version,
//! decodes them with `serde_json`, and folds them in the same way. The log has no such index.

#![expect(clippy::expect_used, clippy::panic, reason = "a benchmark ends where something is wrong")]

#[path = "support/report.rs"]
mod report;
#[path = "snapshots/savings.rs"]
mod savings;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidings::sqlite::rusqlite::{self, Connection};
use tidings::{
    Aggregate, App, Commit, Durability, EventSet, EventStore, ExpectedVersion, Header, Recorded,
    SendError, Sqlite, StreamId, Timestamp, Version,
};

use self::report::{ROUNDS, Report, per_second};
use self::savings::{Save, Saved, Savings, SavingsEvent, Spend, To, fold, keep_every};

/// What a server with many threads should use: a command is allocated by its caller and freed by the sequencer, for which
/// glibc's allocator takes a lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many commands are sent but not answered at any time.
const IN_FLIGHT: usize = 4_096;

fn main() {
    let report = Report::from_args("snapshots");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        if report.wants("load 1,000 events") {
            cold_load(&report).await;
        }
        if report.wants("load 100,000 events") {
            long_load(&report).await;
        }
        // Each has as many events as make it due twice at least.
        for (accounts, every) in [(1, 100), (1, 1_000), (1_000, 100), (100, 1_000)] {
            let case = match accounts {
                1 => format!("fsync, one hot aggregate, every {every}"),
                _ => format!("fsync, {accounts} aggregates, every {every}"),
            };
            if report.wants(&case) {
                durable(&report, &case, accounts, every).await;
            }
        }
    });
}

/// A folder on the disk that the build writes to; gone when dropped.
struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder"))
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("bank.db")
    }

    fn bare(&self) -> PathBuf {
        self.0.path().join("bare.db")
    }
}

async fn start(path: &Path) -> App {
    let store = Sqlite::open(path).expect("a log");
    App::builder().store(store).aggregate::<Savings>().start().await.expect("an app")
}

/// Loads an aggregate, and returns its state and how long it took.
async fn load(app: &App, id: &str) -> ((i64, u64), Duration) {
    let start = Instant::now();
    match app.send(id, To(Spend)).await {
        Err(SendError::Rejected(state)) => ((state.cents, state.events), start.elapsed()),
        other => panic!("{other:?}"),
    }
}

/// Aggregates of 1,000 events each, whose events stand in the log in turns, beside a bare query.
async fn cold_load(report: &Report) {
    const STREAMS: u64 = 100;
    const EVENTS: u64 = 1_000;
    let directory = Directory::new();
    fill(&directory.log(), (0..STREAMS * EVENTS).map(|number| number % STREAMS));
    copy_with_index(&directory.log(), &directory.bare()).expect("a copy");
    keep_every(0);
    let (mut samples, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(store_alone(&directory, STREAMS, EVENTS));
        let app = start(&directory.log()).await;
        // The first load opens the connections.
        load(&app, "none").await;
        let mut bare = Some(Connection::open(directory.bare()).expect("a database"));
        let (mut loads, mut queries) = (Duration::ZERO, Duration::ZERO);
        for stream in 0..STREAMS {
            let (state, took) = load(&app, &stream.to_string()).await;
            loads += took;
            // On a thread for waiting, as a program on tokio has to: the processors are as busy for it as they are for the load.
            let connection = bare.take().expect("a database");
            let begun = Instant::now();
            let query = move || {
                let mut select = connection.prepare_cached(SELECT).expect("a statement");
                let queried = bare_load(&mut select, &format!("savings-{stream}"));
                drop(select);
                (queried.expect("a query"), connection)
            };
            let (queried, connection) = tokio::task::spawn_blocking(query).await.expect("a query");
            queries += begun.elapsed();
            bare = Some(connection);
            assert_eq!((state, state.1), (queried, EVENTS));
        }
        app.shutdown().await.expect("a shutdown");
        samples.push((per_second(STREAMS * EVENTS, loads), per_second(STREAMS * EVENTS, queries)));
    }
    report.print("load 1,000 events / bare indexed query", "events/s", &samples);
    report.print("read 1,000 events, store alone / bare query", "events/s", &alone);
}

/// The same without the app: what the store hands over is decoded and folded on the thread that asks.
fn store_alone(directory: &Directory, streams: u64, events: u64) -> (f64, f64) {
    let store = Sqlite::open(directory.log()).expect("a log");
    let bare = Connection::open(directory.bare()).expect("a database");
    let mut select = bare.prepare(SELECT).expect("a statement");
    let (mut loads, mut queries) = (Duration::ZERO, Duration::ZERO);
    for stream in 0..streams {
        let id = StreamId::new("savings", &stream.to_string()).expect("a stream");
        let mut state = Savings::default();
        let begun = Instant::now();
        let read = store.read_stream(&id, Version::EMPTY, &mut |recorded| {
            state.apply(&recorded.decode().expect("an event"));
            ControlFlow::Continue(())
        });
        loads += begun.elapsed();
        read.expect("a stream");
        let begun = Instant::now();
        let queried = bare_load(&mut select, id.as_str()).expect("a query");
        queries += begun.elapsed();
        assert_eq!((state.state(), queried.1), (queried, events));
    }
    (per_second(streams * events, loads), per_second(streams * events, queries))
}

const SELECT: &str = "SELECT name, payload, position, stream, version, schema_version, time, event_id, \
     command_id, correlation_id, causation_id, metadata FROM events WHERE stream = ? ORDER BY version";

/// What a program without a framework does.
fn bare_load(select: &mut rusqlite::Statement<'_>, stream: &str) -> rusqlite::Result<(i64, u64)> {
    let columns = select.column_count();
    let mut rows = select.query([stream])?;
    let mut state = (0, 0);
    while let Some(row) = rows.next()? {
        for other in 2..columns {
            std::hint::black_box(row.get_ref(other)?);
        }
        fold(&mut state, row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_bytes()?);
    }
    Ok(state)
}

/// The log's table of events in a database of its own, with an index on stream and version.
fn copy_with_index(log: &Path, path: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    connection.execute("ATTACH ? AS log", [log.to_str()])?;
    let table: String = connection.query_row(
        "SELECT sql FROM log.sqlite_schema WHERE type = 'table' AND name = 'events'",
        [],
        |row| row.get(0),
    )?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; {table}; INSERT INTO events SELECT * FROM log.events ORDER BY position; \
         CREATE UNIQUE INDEX by_stream ON events (stream, version);"
    ))
}

/// An aggregate of 100,000 events with a snapshot and 100 events after that, beside one of 100 events.
async fn long_load(report: &Report) {
    const LONG: u64 = 100_000;
    const SHORT: u64 = 100;
    const APPS: usize = 21;
    let directory = Directory::new();
    // Stream 0 is the long one, streams 1 to 20 are short; the tail of the long one stands among them.
    let tail = (0..SHORT).flat_map(|_| 0..=20);
    fill(&directory.log(), std::iter::repeat_n(0, (LONG - SHORT) as usize));
    keep_every(SHORT as u32 + 1);
    // The snapshot is taken at LONG - SHORT, since the load folds all that is there.
    let app = start(&directory.log()).await;
    assert_eq!(load(&app, "0").await.0.1, LONG - SHORT);
    let written = || {
        app.status()
            .aggregates
            .iter()
            .flat_map(|a| &a.shards)
            .map(|s| s.snapshots_written)
            .sum::<u64>()
    };
    while written() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    app.shutdown().await.expect("a shutdown");
    drop(app);
    fill(&directory.log(), tail);
    let (mut samples, mut full) = (Vec::new(), Vec::new());
    for round in 0..APPS {
        let app = start(&directory.log()).await;
        load(&app, "none").await;
        let short = (1 + round % 20).to_string();
        // Which of them is first changes from round to round.
        let ((long, long_took), (short, short_took)) = match round % 2 {
            0 => (load(&app, "0").await, load(&app, &short).await),
            _ => {
                let short = load(&app, &short).await;
                (load(&app, "0").await, short)
            }
        };
        assert_eq!((long.1, short.1), (LONG, SHORT));
        app.shutdown().await.expect("a shutdown");
        let us = |took: Duration| took.as_secs_f64() * 1e6;
        samples.push((us(long_took), us(short_took)));
    }
    report.print("load 100,000 events, snapshot + 100 / 100", "us", &samples);
    keep_every(0);
    for _ in 0..ROUNDS {
        let app = start(&directory.log()).await;
        load(&app, "none").await;
        let (short, short_took) = load(&app, "1").await;
        let (long, long_took) = load(&app, "0").await;
        assert_eq!((long.1, short.1), (LONG, SHORT));
        app.shutdown().await.expect("a shutdown");
        full.push((long_took.as_secs_f64() * 1e6, short_took.as_secs_f64() * 1e6));
    }
    report.print("load 100,000 events, no snapshot / 100", "us", &full);
}

/// The rate of commands with an fsync for each group, with snapshots beside without.
async fn durable(report: &Report, case: &str, accounts: usize, every: u32) {
    const COMMANDS: usize = 200_000;
    let ids: Arc<Vec<_>> =
        Arc::new((0..accounts).map(|id| ((id * 7_919) % accounts).to_string()).collect());
    let (mut samples, mut counts) = (Vec::new(), Vec::new());
    // One more than elsewhere, and in changing order: the difference that is looked for is small.
    for round in 0..ROUNDS + 2 {
        let mut rates = [0.0, 0.0];
        let mut order = [0, every];
        if round % 2 == 1 {
            order.reverse();
        }
        for every in order {
            keep_every(every);
            let directory = Directory::new();
            let app = start(&directory.log()).await;
            send(&app, &ids, accounts).await;
            let groups = app.status().sequencer.groups;
            let elapsed = send(&app, &ids, COMMANDS).await;
            assert_eq!(app.head().as_u64() as usize, accounts + COMMANDS);
            let groups = app.status().sequencer.groups - groups;
            let written: u64 = app
                .status()
                .aggregates
                .iter()
                .flat_map(|a| &a.shards)
                .map(|s| s.snapshots_written)
                .sum();
            app.shutdown().await.expect("a shutdown");
            drop(app);
            let log = Connection::open(directory.log()).expect("the log");
            let kept: u64 = log
                .query_row("SELECT count(*) FROM snapshots", [], |row| row.get::<_, i64>(0))
                .expect("a count") as u64;
            let wanted = if every > 0 { accounts as u64 } else { 0 };
            assert_eq!(kept, wanted, "streams with a snapshot");
            if let Some(rate) = rates.get_mut(usize::from(every == 0)) {
                *rate = per_second(COMMANDS as u64, elapsed);
            }
            if every > 0 {
                counts.push((written as f64, groups as f64));
            }
        }
        samples.push((rates[0], rates[1]));
    }
    report.print(&format!("{case} / off"), "commands/s", &samples);
    report.print(&format!("{case}: snapshots / groups"), "", &counts);
}

/// Sends so many commands, in turns to the aggregates.
async fn send(app: &App, ids: &Arc<Vec<String>>, commands: usize) -> Duration {
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let senders: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (app, ids, next) = (app.clone(), Arc::clone(ids), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed) as usize;
                    if number >= commands {
                        return;
                    }
                    let id = ids.get(number % ids.len()).expect("an id");
                    let receipt = app.send(id, To(Save { cents: 1 })).await.expect("a receipt");
                    assert_eq!(receipt.events, 1);
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("a sender");
    }
    start.elapsed()
}

/// Appends an event to each of these streams, one after the other.
fn fill(path: &Path, streams: impl Iterator<Item = u64>) {
    let store = Sqlite::options().durability(Durability::Os).open(path).expect("a log");
    let streams: Vec<_> = streams.collect();
    for streams in streams.chunks(4_096) {
        let mut group: Vec<_> = streams
            .iter()
            .map(|id| {
                let stream = StreamId::new("savings", &id.to_string()).expect("a stream");
                let payer = "a customer of the bank".to_owned();
                let event = SavingsEvent::from(Saved { cents: 1, payer });
                let mut payload = Vec::new();
                event.encode(&mut payload).expect("a payload");
                let now = Timestamp::from(std::time::SystemTime::now());
                let header = Header::new(stream.clone(), event.name(), event.schema_version(), now);
                let recorded = Recorded { header, payload: payload.into() };
                Commit::new().command_id(tidings::CommandId::fresh()).append(
                    stream,
                    ExpectedVersion::Any,
                    vec![recorded],
                )
            })
            .collect();
        let outcomes = store.commit(&mut group).expect("a commit");
        assert!(outcomes.iter().all(Result::is_ok));
    }
}
