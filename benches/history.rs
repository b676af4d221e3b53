//! Looking back into a log of a million events: what a story, an earlier view and an earlier aggregate cost.
//!
//! `cargo bench --bench history [-- --json]`
//!
//! A story is read beside a bare scan with the same condition, an earlier view beside a bare scan that decodes and folds the same
//! rows. The results must be the same, or the run ends.

#![expect(clippy::expect_used, clippy::panic, reason = "a benchmark ends where something is wrong")]

#[path = "support/account.rs"]
mod account;
#[path = "support/report.rs"]
mod report;

use std::path::Path;
use std::time::{Duration, Instant};

use tidings::sqlite::rusqlite::{Connection, Result};
use tidings::{
    App, CommandId, Commit, CorrelationId, Durability, Event, EventSet, EventStore,
    ExpectedVersion, Header, Position, Recorded, Sqlite, StreamId, Timestamp,
};

use self::account::{Account, AccountEvent, Balances, Deposited, Withdrawn};
use self::report::{ROUNDS, Report, per_second};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVENTS: u64 = 1_000_000;
const ACCOUNTS: u64 = 10_000;

/// When the log begins; an event every second.
const BEGIN: u64 = 1_700_000_000;

fn main() {
    let report = Report::from_args("history");
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let path = directory.path().join("bank.db");
    let (first, last) = fill(&path);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let app = runtime.block_on(start(&path));
    let connection = Connection::open(&path).expect("a connection");
    let (mut oldest, mut newest, mut half) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let found = scan(&connection, first).expect("a scan");
        let scanned = per_second(EVENTS, started.elapsed());
        for (story, samples) in [(first, &mut oldest), (last, &mut newest)] {
            let started = Instant::now();
            let trace = runtime.block_on(app.trace(story)).expect("a trace");
            samples.push((per_second(EVENTS, started.elapsed()), scanned));
            assert!(trace.events().count() == found, "the stories differ");
        }

        let until = Position::new(EVENTS / 2);
        let started = Instant::now();
        let then = runtime.block_on(app.as_of::<Balances>(until)).expect("a view");
        let folded = per_second(EVENTS / 2, started.elapsed());
        let started = Instant::now();
        let bare = fold(&connection, until).expect("a scan");
        half.push((folded, per_second(EVENTS / 2, started.elapsed())));
        assert!(then.read().of == bare.of, "the views differ");
    }
    report.print("the oldest story of 1,000,000 events / bare scan", "events/s", &oldest);
    report.print("the newest story of 1,000,000 events / bare scan", "events/s", &newest);
    report.print("a view as of position 500,000 / bare scan", "events/s", &half);

    let time = Timestamp::from_micros((BEGIN + EVENTS) * 1_000_000);
    let started = Instant::now();
    app.store().position_at(time).expect("a position");
    let took = started.elapsed();
    report.note("where the log stood at a time", "events/s", per_second(EVENTS, took));
    runtime.block_on(app.shutdown()).expect("a shutdown");
}

async fn start(path: &Path) -> App {
    let app = App::builder()
        .store(Sqlite::open(path).expect("a log"))
        .aggregate::<Account>()
        .projection(Balances::default())
        .start()
        .await
        .expect("an app");
    let view = app.view::<Balances>().at_least(app.head()).timeout(Duration::from_secs(600));
    drop(view.await.expect("a view"));
    app
}

/// How many events of a story there are.
fn scan(connection: &Connection, story: CorrelationId) -> Result<usize> {
    let sql = "SELECT position FROM events \
               WHERE coalesce(correlation_id, command_id, event_id) = ?1 ORDER BY position";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([story.as_uuid().as_bytes().as_slice()], |row| row.get(0))?;
    Ok(rows.collect::<Result<Vec<i64>>>()?.len())
}

fn fold(connection: &Connection, until: Position) -> Result<Balances> {
    let sql = "SELECT stream, name, payload, position, version, schema_version, time, event_id, \
               command_id, correlation_id, causation_id, metadata \
               FROM events WHERE position <= ?1 ORDER BY position";
    let mut statement = connection.prepare(sql)?;
    let count = statement.column_count();
    let mut rows = statement.query([until.as_u64() as i64])?;
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

/// A log with an event of each story every second; the first and the last story.
fn fill(path: &Path) -> (CorrelationId, CorrelationId) {
    let store = Sqlite::options().durability(Durability::Os).open(path).expect("a log");
    let id_at = |number: u64| {
        let mut random = [0; 10];
        random.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
        uuid::Builder::from_unix_timestamp_millis((BEGIN + number) * 1_000, &random).into_uuid()
    };
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
                let time = Timestamp::from_micros((BEGIN + number) * 1_000_000);
                let (name, version) = (event.name(), event.schema_version());
                let mut header = Header::new(stream.clone(), name, version, time);
                header.correlation_id = id_at(*number).into();
                header.causation_id = id_at(*number).into();
                let recorded = Recorded { header, payload: payload.into() };
                Commit::new().command_id(CommandId::from_uuid(id_at(*number))).append(
                    stream,
                    ExpectedVersion::Any,
                    vec![recorded],
                )
            })
            .collect();
        let outcomes = store.commit(&mut group).expect("a commit");
        assert!(outcomes.iter().all(std::result::Result::is_ok));
    }
    (id_at(0).into(), id_at(EVENTS - 1).into())
}
