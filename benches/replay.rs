//! A view in memory, built from a log of a million events, beside a bare scan that decodes and folds the same rows.
//!
//! `cargo bench --bench replay [-- --json]`
//!
//! There are two bare scans. The first reads whole rows, as the replay does, since a handler is given the whole header; the
//! second reads only what this view needs: stream, name and payload. Both decode the payload with `serde_json` and fold it
//! into the same map. All results must be the same, or the run ends.

#![expect(clippy::expect_used, clippy::panic, reason = "a benchmark ends where something is wrong")]

#[path = "support/account.rs"]
mod account;
#[path = "support/report.rs"]
mod report;

use std::path::Path;
use std::time::Instant;

use tidings::sqlite::rusqlite::{Connection, Result};
use tidings::{
    App, Commit, Durability, Event, EventSet, EventStore, ExpectedVersion, Header, Recorded,
    Sqlite, StreamId, Timestamp,
};

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
    let path = directory.path().join("bank.db");
    fill(&path);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
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

/// What a bare scan reads of each row.
#[derive(Clone, Copy)]
enum Columns {
    All,
    Needed,
}

/// The view, and how long it took from the start of the app until it was level.
async fn replay(path: &Path) -> (Balances, std::time::Duration) {
    let store = Sqlite::open(path).expect("a log");
    let start = Instant::now();
    let app = App::builder()
        .store(store)
        .aggregate::<Account>()
        .projection(Balances::default())
        .start()
        .await
        .expect("an app");
    let view = app.view::<Balances>();
    let timeout = std::time::Duration::from_secs(600);
    let of = view.at_least(app.head()).timeout(timeout).await.expect("a view").of.clone();
    let elapsed = start.elapsed();
    app.shutdown().await.expect("a shutdown");
    (Balances { of }, elapsed)
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
    let store = Sqlite::options().durability(Durability::Os).open(path).expect("a log");
    let numbers: Vec<u64> = (0..EVENTS).collect();
    for numbers in numbers.chunks(4_096) {
        let mut group: Vec<_> = numbers
            .iter()
            .map(|number| {
                let account = (number * 7_919) % ACCOUNTS;
                let event: AccountEvent = match number % 3 {
                    0 => Withdrawn { cents: 1 }.into(),
                    _ => {
                        let payer = "a customer of the bank".to_owned();
                        Deposited { cents: 3, payer }.into()
                    }
                };
                let stream = StreamId::new("account", &format!("acc-{account}")).expect("a stream");
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
        assert!(outcomes.iter().all(std::result::Result::is_ok));
    }
}
