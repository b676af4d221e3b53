//! The journey of a command until its receipt, beside a bare database that appends the same rows.
//!
//! `cargo bench --bench journey [-- --json] [-- part of a case's name]`
//!
//! Each case is measured five times, each time with its baseline beside it. The durable baselines write the very rows
//! that the case has written, read back from its log, into a table with the same columns and no index, in transactions
//! as large as the case's mean group, with an fsync each. Every command must be answered with success, and the log
//! must have grown by as many events, or the run ends.

#![expect(clippy::expect_used, reason = "a benchmark ends where something is wrong")]

#[path = "support/account.rs"]
mod account;
#[path = "support/report.rs"]
mod report;
#[path = "support/rows.rs"]
mod rows;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidings::{
    App, Commit, EventSet, EventStore, ExpectedVersion, Header, Memory, Recorded, Sqlite, StreamId,
    Timestamp, Version,
};
use tokio::sync::{mpsc, oneshot};

use self::account::{Account, AccountEvent, Deposit, Deposited};
use self::report::{ROUNDS, Report, median, per_second};
use self::rows::Bare;

/// What a server with many threads should use: a command is allocated by its caller and freed by the sequencer, for which
/// glibc's allocator takes a lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many commands are sent but not answered at any time.
const IN_FLIGHT: usize = 4_096;

fn main() {
    let report = Report::from_args("journey");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        if report.wants("memory") {
            memory(&report).await;
        }
        if report.wants("fsync, 10,000 aggregates") {
            durable(&report, "fsync, 10,000 aggregates", 10_000, None).await;
        }
        if report.wants("fsync, one hot aggregate") {
            durable(&report, "fsync, one hot aggregate", 1, None).await;
        }
        if report.wants("fsync, 1,000,000 streams") {
            let log = Directory::new();
            fill(&log.log(), 1_000_000);
            durable(&report, "fsync, 1,000,000 streams, 10,000 used", 10_000, Some(&log)).await;
            durable(&report, "fsync, 1,000,000 streams, all used", 1_000_000, Some(&log)).await;
        }
        if report.wants("fsync, one caller") {
            one_caller(&report).await;
        }
        if report.wants("live aggregates") {
            live(&report).await;
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
        self.0
            .path()
            .join(format!("bare-{}.db", Timestamp::from(std::time::SystemTime::now()).as_micros()))
    }
}

async fn start(store: impl EventStore) -> App {
    App::builder().store(store).aggregate::<Account>().start().await.expect("an app")
}

/// The ids of the aggregates, in an order in which neighbours are far apart.
fn ids(count: usize) -> Arc<Vec<String>> {
    Arc::new((0..count).map(|n| format!("acc-{}", (n * 7_919_317) % count)).collect())
}

/// Sends `commands` commands, so many in flight, to the aggregates in turn; returns how long it took.
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
                    let receipt = app.send(id, Deposit { cents: 1 }).await.expect("a receipt");
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

/// Without a disk, beside one tokio task that answers each request through a oneshot channel and does nothing else.
async fn memory(report: &Report) {
    const COMMANDS: usize = 1_000_000;
    let ids = ids(10_000);
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        let app = start(Memory::new()).await;
        // The first command of each aggregate loads it.
        send(&app, &ids, ids.len()).await;
        let elapsed = send(&app, &ids, COMMANDS).await;
        assert_eq!(app.head().as_u64() as usize, COMMANDS + ids.len());
        app.shutdown().await.expect("a shutdown");
        samples.push((per_second(COMMANDS as u64, elapsed), bare_ask(COMMANDS).await));
    }
    report.print("memory, 10,000 aggregates / tokio ask", "commands/s", &samples);
}

/// Requests per second through a tokio channel to a task that replies.
async fn bare_ask(requests: usize) -> f64 {
    let (sender, mut receiver) = mpsc::channel::<(u64, oneshot::Sender<u64>)>(1_024);
    let server = tokio::spawn(async move {
        let mut sum = 0;
        while let Some((number, reply)) = receiver.recv().await {
            sum += number;
            reply.send(sum).expect("an asker");
        }
    });
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let askers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (sender, next) = (sender.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                while next.fetch_add(1, Ordering::Relaxed) < requests as u64 {
                    let (reply, answer) = oneshot::channel();
                    sender.send((1, reply)).await.expect("a server");
                    answer.await.expect("an answer");
                }
            })
        })
        .collect();
    for asker in askers {
        asker.await.expect("an asker");
    }
    let elapsed = start.elapsed();
    drop(sender);
    server.await.expect("a server");
    per_second(requests as u64, elapsed)
}

/// With an fsync for each group, beside a bare database.
async fn durable(report: &Report, case: &str, aggregates: usize, shared: Option<&Directory>) {
    const COMMANDS: usize = 200_000;
    let ids = ids(aggregates);
    let (mut samples, mut singles, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let own = Directory::new();
        let directory = shared.unwrap_or(&own);
        let store = Sqlite::open(directory.log()).expect("a log");
        let before = store.head().expect("a head").as_u64();
        let app = start(store).await;
        if shared.is_none() {
            send(&app, &ids, aggregates.min(10_000)).await;
        }
        let first = app.head().as_u64() + 1;
        let groups = app.status().sequencer.groups;
        let elapsed = send(&app, &ids, COMMANDS).await;
        assert_eq!(app.head().as_u64(), first - 1 + COMMANDS as u64);
        assert!(app.head().as_u64() > before);
        let groups = app.status().sequencer.groups - groups;
        app.shutdown().await.expect("a shutdown");
        drop(app);
        let rows = rows::read(&directory.log(), first, COMMANDS).expect("rows");
        let size = COMMANDS / groups.max(1) as usize;
        sizes.push(size as f64);
        let mut bare = Bare::create(&own.bare(), &directory.log()).expect("a bare database");
        let baseline = bare.append(&rows, size).expect("rows appended");
        let value = per_second(COMMANDS as u64, elapsed);
        samples.push((value, per_second(COMMANDS as u64, baseline)));
        if aggregates == 1 {
            let rows = rows.get(..500).expect("rows");
            let single = bare.append(rows, 1).expect("rows appended");
            singles.push((value, per_second(rows.len() as u64, single)));
        }
    }
    report.print(&format!("{case} / bare append"), "commands/s", &samples);
    report.note(&format!("{case}: commands in a group"), "commands", median(sizes.into_iter()));
    if !singles.is_empty() {
        report.print(&format!("{case} / bare append, an fsync each"), "commands/s", &singles);
    }
}

/// One caller that waits for each receipt, in turns with one bare transaction at a time, so that both find the disk and the
/// processors in the same state.
async fn one_caller(report: &Report) {
    const COMMANDS: usize = 1_000;
    let ids = ids(100);
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        let directory = Directory::new();
        let app = start(Sqlite::open(directory.log()).expect("a log")).await;
        send(&app, &ids, ids.len()).await;
        let rows = rows::read(&directory.log(), 1, ids.len()).expect("rows");
        let mut bare = Bare::create(&directory.bare(), &directory.log()).expect("a bare database");
        let (mut latencies, mut baselines) = (Vec::new(), Vec::new());
        for (id, row) in ids.iter().zip(&rows).cycle().take(COMMANDS) {
            let start = Instant::now();
            app.send(id, Deposit { cents: 1 }).await.expect("a receipt");
            latencies.push(start.elapsed().as_secs_f64() * 1e6);
            let baseline = bare.append(std::slice::from_ref(row), 1).expect("a row appended");
            baselines.push(baseline.as_secs_f64() * 1e6);
        }
        app.shutdown().await.expect("a shutdown");
        samples.push((median(latencies.into_iter()), median(baselines.into_iter())));
    }
    report.print("fsync, one caller: latency / bare commit", "us", &samples);
}

/// What a live aggregate costs in memory beside its state.
async fn live(report: &Report) {
    const AGGREGATES: usize = 100_000;
    let directory = Directory::new();
    fill(&directory.log(), AGGREGATES);
    let app = start(Sqlite::open(directory.log()).expect("a log")).await;
    let ids = ids(AGGREGATES);
    send(&app, &ids, 10_000).await;
    let (before, few) =
        (resident(), app.status().aggregates.iter().map(|a| a.live()).sum::<usize>());
    send(&app, &ids, AGGREGATES).await;
    let (after, many) =
        (resident(), app.status().aggregates.iter().map(|a| a.live()).sum::<usize>());
    assert!(many > few);
    report.note(
        "memory of a live aggregate, all included",
        "bytes",
        (after - before) / (many - few) as f64,
    );
    app.shutdown().await.expect("a shutdown");
}

/// The resident memory of this process in bytes.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(f64::NAN)
        * 4_096.0
}

/// Writes a log in which each of `streams` streams has one event.
fn fill(path: &Path, streams: usize) {
    let store = Sqlite::options().durability(tidings::Durability::Os).open(path).expect("a log");
    let ids: Vec<_> = (0..streams).collect();
    for ids in ids.chunks(4_096) {
        let mut group: Vec<_> = ids
            .iter()
            .map(|id| {
                let stream = StreamId::new("account", &format!("acc-{id}")).expect("a stream");
                let event = AccountEvent::from(Deposited {
                    cents: 1,
                    payer: "a customer of the bank".to_owned(),
                });
                let mut payload = Vec::new();
                event.encode(&mut payload).expect("a payload");
                let now = Timestamp::from(std::time::SystemTime::now());
                let header = Header::new(stream.clone(), event.name(), event.schema_version(), now);
                let recorded = Recorded { header, payload: payload.into() };
                let expected = ExpectedVersion::Exact(Version::EMPTY);
                Commit::new().command_id(tidings::CommandId::fresh()).append(
                    stream,
                    expected,
                    vec![recorded],
                )
            })
            .collect();
        let outcomes = store.commit(&mut group).expect("a commit");
        assert!(outcomes.iter().all(Result::is_ok));
    }
}
