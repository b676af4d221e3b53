//! A view in memory, built from a log of a million events, beside a bare scan that decodes and folds the same rows.
//!
//! `cargo bench --bench replay [-- --json]`
//!
//! There are two bare scans. The first reads whole rows, as the replay does, since a handler is given the whole header; the
//! second reads only what this view needs: stream, name and payload. Both decode the payload with `serde_json` and fold it
//! into the same map. All results must be the same, or the run ends.
//!
//! Then a view of events that are stored in version 1 and read through two steps, typed ones and steps of JSON, beside a view of
//! the same events stored in their newest version, 3. Each case is measured after the other in each round; two steps are to
//! cost less than 30 % of the rate.

#![expect(clippy::expect_used, clippy::panic, reason = "a benchmark ends where something is wrong")]

#[path = "support/account.rs"]
mod account;
#[path = "support/report.rs"]
mod report;
#[path = "support/versions.rs"]
mod versions;

use std::path::Path;
use std::time::{Duration, Instant};

use tidings::sqlite::rusqlite::{Connection, Result};
use tidings::{
    Aggregate, App, Commit, Durability, Event, EventSet, EventStore, ExpectedVersion, Header,
    InMemory, Projection, Recorded, Sqlite, StreamId, Timestamp,
};
use tokio::runtime::Runtime;

use self::account::{Account, AccountEvent, Balances, Deposited, Withdrawn};
use self::report::{ROUNDS, Report, per_second};

/// What a server with many threads should use: a command is allocated by its caller and freed by the sequencer, for which
/// glibc's allocator takes a lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVENTS: u64 = 1_000_000;
const ACCOUNTS: u64 = 10_000;

fn main() {
    let report = Report::from_args("replay");
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let runtime = Runtime::new().expect("a runtime");
    if report.wants("bare scan") {
        beside_a_scan(&report, directory.path(), &runtime);
    }
    if report.wants("two steps") {
        through_steps(&report, directory.path(), &runtime);
    }
}

fn beside_a_scan(report: &Report, directory: &Path, runtime: &Runtime) {
    let path = directory.join("bank.db");
    fill(&path);
    let (mut whole, mut needed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (replayed, elapsed) = runtime.block_on(replay(&path));
        let value = per_second(EVENTS, elapsed);
        for (samples, columns) in [(&mut whole, Columns::All), (&mut needed, Columns::Needed)] {
            let start = Instant::now();
            let scanned = scan(&path, columns).expect("a scan");
            samples.push((value, per_second(EVENTS, start.elapsed())));
            assert!(replayed.of == scanned.of, "the views differ");
        }
    }
    report.print("1,000,000 events / bare scan of whole rows", "events/s", &whole);
    report.print("1,000,000 events / bare scan of 3 columns", "events/s", &needed);
}

/// Views of the same events, stored as version 1 and as version 3.
fn through_steps(report: &Report, directory: &Path, runtime: &Runtime) {
    let (old, new) = (directory.join("old.db"), directory.join("new.db"));
    let payer = "a customer of the bank";
    fill_with(&old, |number| {
        let payload = versions::V1 { cents: number as i64, payer: payer.to_owned() };
        Stored::new(versions::typed::Deposited::NAME, 1, serde_json::to_vec(&payload))
    });
    fill_with(&new, |number| {
        let payload = versions::typed::Deposited {
            cents: number as i64,
            payer: payer.to_owned(),
            currency: "EUR".to_owned(),
            reference: None,
        };
        Stored::new(versions::typed::Deposited::NAME, 3, serde_json::to_vec(&payload))
    });
    macro_rules! replay {
        ($way:ident, $path:expr) => {
            runtime.block_on(replay_into::<versions::$way::Account, _, _>(
                $path,
                versions::$way::Balances::default(),
                |balances| balances.of.clone(),
            ))
        };
    }
    let (mut typed, mut json) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let rate = |elapsed| per_second(EVENTS, elapsed);
        let (newest, baseline) = replay!(typed, &new);
        let (through_types, elapsed) = replay!(typed, &old);
        typed.push((rate(elapsed), rate(baseline)));
        let (through_json, elapsed) = replay!(json, &old);
        json.push((rate(elapsed), rate(baseline)));
        assert!(newest == through_types && newest == through_json, "the views differ");
    }
    report.print("two steps, typed / newest version", "events/s", &typed);
    report.print("two steps, JSON / newest version", "events/s", &json);
}

/// What a bare scan reads of each row.
#[derive(Clone, Copy)]
enum Columns {
    All,
    Needed,
}

/// The view, and how long it took from the start of the app until it was level.
async fn replay(path: &Path) -> (Balances, Duration) {
    let balances = Balances::default();
    let (of, elapsed) = replay_into::<Account, _, _>(path, balances, |view| view.of.clone()).await;
    (Balances { of }, elapsed)
}

/// What is taken out of the view, and how long it took from the start of the app until it was level.
async fn replay_into<A: Aggregate, P: Projection<Storage = InMemory>, T>(
    path: &Path,
    projection: P,
    take: impl FnOnce(&P) -> T,
) -> (T, Duration) {
    let store = Sqlite::open(path).expect("a log");
    let start = Instant::now();
    let builder = App::builder().store(store).aggregate::<A>().projection(projection);
    let app = builder.start().await.expect("an app");
    let view = app.view::<P>();
    let timeout = Duration::from_secs(600);
    let taken = take(&*view.at_least(app.head()).timeout(timeout).await.expect("a view"));
    let elapsed = start.elapsed();
    app.shutdown().await.expect("a shutdown");
    (taken, elapsed)
}

fn scan(path: &Path, columns: Columns) -> Result<Balances> {
    let connection = Connection::open(path)?;
    // The columns that no view needs stand behind the three.
    let others = match columns {
        Columns::All => {
            ", position, version, schema_version, time, event_id, command_id, correlation_id, \
             causation_id, metadata"
        }
        Columns::Needed => "",
    };
    let sql = format!("SELECT stream, name, payload{others} FROM events ORDER BY position");
    let mut statement = connection.prepare(&sql)?;
    let count = statement.column_count();
    let mut rows = statement.query([])?;
    let mut balances = Balances::default();
    while let Some(row) = rows.next()? {
        for other in 3..count {
            std::hint::black_box(row.get_ref(other)?);
        }
        let stream = row.get_ref(0)?.as_str()?;
        let account = stream.split_once('-').map_or(stream, |(_, id)| id);
        let payload = row.get_ref(2)?.as_bytes()?;
        let cents = match row.get_ref(1)?.as_str()? {
            Deposited::NAME => {
                serde_json::from_slice::<Deposited>(payload).expect("an event").cents
            }
            Withdrawn::NAME => {
                -serde_json::from_slice::<Withdrawn>(payload).expect("an event").cents
            }
            other => panic!("an unknown event {other}"),
        };
        balances.change(account, cents);
    }
    Ok(balances)
}

fn fill(path: &Path) {
    fill_with(path, |number| {
        let event: AccountEvent = match number % 3 {
            0 => Withdrawn { cents: 1 }.into(),
            _ => Deposited { cents: 3, payer: "a customer of the bank".to_owned() }.into(),
        };
        let mut payload = Vec::new();
        event.encode(&mut payload).expect("a payload");
        Stored { name: event.name(), version: event.schema_version(), payload }
    });
}

/// An event as it is stored.
struct Stored {
    name: &'static str,
    version: u32,
    payload: Vec<u8>,
}

impl Stored {
    fn new(name: &'static str, version: u32, payload: serde_json::Result<Vec<u8>>) -> Self {
        Self { name, version, payload: payload.expect("a payload") }
    }
}

/// Fills a log with a million events in ten thousand streams.
fn fill_with(path: &Path, event: impl Fn(u64) -> Stored) {
    let store = Sqlite::options().durability(Durability::Os).open(path).expect("a log");
    let numbers: Vec<u64> = (0..EVENTS).collect();
    for numbers in numbers.chunks(4_096) {
        let mut group: Vec<_> = numbers
            .iter()
            .map(|number| {
                let account = (number * 7_919) % ACCOUNTS;
                let Stored { name, version, payload } = event(*number);
                let stream = StreamId::new("account", &format!("acc-{account}")).expect("a stream");
                let now = Timestamp::from(std::time::SystemTime::now());
                let header = Header::new(stream.clone(), name, version, now);
                let recorded = Recorded { header, payload: payload.into() };
                Commit::new().command_id(tidings::CommandId::fresh()).append(
                    stream,
                    ExpectedVersion::Any,
                    vec![recorded],
                )
            })
            .collect();
        let outcomes = store.commit(&mut group).expect("a commit");
        assert!(outcomes.iter().all(std::result::Result::is_ok));
    }
}
