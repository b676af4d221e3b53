//! A view in tables, rebuilt from a log of a million events beside the one that serves, against a bare loop that does the same
//! upserts; and what that costs live commands meanwhile.
//!
//! `cargo bench --bench rebuild [-- --json]`; `TIDINGS_EVENTS` sets another number of events.
//!
//! The bare loop reads name, stream and payload of each row, decodes the payload with `serde_json` and runs the same prepared
//! upsert, 2,048 in a transaction, into a file in WAL mode with `synchronous=NORMAL`. Both views must be the same, or the run
//! ends. Commands are deposits, 64 at a time on their way, with `Durability::Fsync`: for a while without a rebuild, then from its
//! beginning to its end, and for a while after it.

#![expect(clippy::expect_used, clippy::panic, reason = "a benchmark ends where something is wrong")]

#[path = "support/account.rs"]
mod account;
#[path = "support/report.rs"]
mod report;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{Connection, Result};
use tidings::{
    App, Commit, Durability, Event, EventSet, EventStore, ExpectedVersion, Handlers, Header,
    Projection, Recorded, Sqlite, StreamId, Tables, Timestamp,
};

use self::account::{Account, AccountEvent, Deposit, Deposited, Withdrawn};
use self::report::{ROUNDS, Report, per_second};

/// What a server with many threads should use: a command is allocated by its caller and freed by the sequencer, for which
/// glibc's allocator takes a lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVENTS: u64 = 1_000_000;
const ACCOUNTS: u64 = 10_000;
/// How many commands are on their way at a time.
const SENDERS: u64 = 64;
/// How many accounts they go to; all of them are live before anything is counted, since loading one takes longer than deciding.
const LIVE: u64 = 1_024;
/// How long commands are counted without a rebuild, before and after it.
const ALONE: Duration = Duration::from_secs(2);

const SCHEMA: &str = "CREATE TABLE balance (account TEXT PRIMARY KEY, cents INTEGER NOT NULL)";
const UPSERT: &str = "INSERT INTO balance VALUES (?1, ?2)
                      ON CONFLICT (account) DO UPDATE SET cents = cents + excluded.cents";

/// Balances in a table.
#[derive(Default)]
struct Book;

impl Projection for Book {
    const NAME: &'static str = "book";
    const VERSION: u32 = 1;
    type Storage = Tables;

    fn handlers(handlers: &mut Handlers<Self, Tables>) {
        let add = |tx: &Transaction<'_>, header: &Header, cents: i64| {
            tx.prepare_cached(UPSERT)?.execute((header.stream.id(), cents))
        };
        handlers
            .schema(SCHEMA)
            .on(move |_: &Self, tx: &Transaction<'_>, event: &Deposited, header: &Header| {
                add(tx, header, event.cents)
            })
            .on(move |_: &Self, tx: &Transaction<'_>, event: &Withdrawn, header: &Header| {
                add(tx, header, -event.cents)
            });
    }
}

fn main() {
    let report = Report::from_args("rebuild");
    let events = std::env::var("TIDINGS_EVENTS")
        .map_or(EVENTS, |events| events.parse().expect("TIDINGS_EVENTS is a number of events"));
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let path = directory.path().join("bank.db");
    fill(&path, events);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut alone, mut commands) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (rebuilt, rows, elapsed) = runtime.block_on(rebuild(&path));
        let start = Instant::now();
        let bare = bare(&path, &directory.path().join("bare.db")).expect("a bare loop");
        alone.push((per_second(rebuilt, elapsed), per_second(rebuilt, start.elapsed())));
        assert!(rows == bare, "the views differ");
    }
    for _ in 0..ROUNDS {
        commands.push(runtime.block_on(under_load(&path)));
    }
    report.print("a table rebuilt / bare loop of upserts", "events/s", &alone);
    report.print("commands during a rebuild / without", "commands/s", &commands);
}

async fn start(path: &Path) -> App {
    let store = Sqlite::open(path).expect("a log");
    let app = App::builder().store(store).aggregate::<Account>().projection(Book).start().await;
    let app = app.expect("an app");
    let timeout = Duration::from_secs(600);
    app.view::<Book>().at_least(app.head()).timeout(timeout).await.expect("a view");
    app
}

/// How many events were rebuilt, what the view holds then, and how long it took, the switch included.
async fn rebuild(path: &Path) -> (u64, BTreeMap<String, i64>, Duration) {
    let app = start(path).await;
    let rebuilt = app.rebuild::<Book>().await.expect("a rebuild");
    let rows = app.view::<Book>().read().query(balances).await.expect("the rows");
    app.shutdown().await.expect("a shutdown");
    (rebuilt.passed, rows, rebuilt.took)
}

/// Commands in a second, during a rebuild and without one.
async fn under_load(path: &Path) -> (f64, f64) {
    let app = start(path).await;
    for account in 0..LIVE {
        app.send(format!("acc-{account}"), Deposit { cents: 1 }).await.expect("a receipt");
    }
    let (sent, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let senders: Vec<_> = (0..SENDERS)
        .map(|number| {
            let (app, sent, over) = (app.clone(), Arc::clone(&sent), Arc::clone(&over));
            tokio::spawn(async move {
                let mut account = number;
                while !over.load(Ordering::Relaxed) {
                    let id = format!("acc-{}", account % LIVE);
                    app.send(id, Deposit { cents: 1 }).await.expect("a receipt");
                    sent.fetch_add(1, Ordering::Relaxed);
                    account += SENDERS;
                }
            })
        })
        .collect();
    let counted = async |work: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
        let (before, start) = (sent.load(Ordering::Relaxed), Instant::now());
        work.await;
        per_second(sent.load(Ordering::Relaxed) - before, start.elapsed())
    };
    let before = counted(Box::pin(tokio::time::sleep(ALONE))).await;
    let rebuilding = app.rebuild::<Book>();
    let during = counted(Box::pin(async {
        rebuilding.await.expect("a rebuild");
    }))
    .await;
    let after = counted(Box::pin(tokio::time::sleep(ALONE))).await;
    over.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.expect("a sender");
    }
    app.shutdown().await.expect("a shutdown");
    (during, (before + after) / 2.0)
}

fn balances(connection: &Connection) -> Result<BTreeMap<String, i64>> {
    connection
        .prepare("SELECT account, cents FROM balance")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn bare(log: &Path, view: &Path) -> Result<BTreeMap<String, i64>> {
    for end in ["", "-wal", "-shm"] {
        // There is none before the first round.
        let _ = std::fs::remove_file(format!("{}{end}", view.display()));
    }
    let (log, view) = (Connection::open(log)?, Connection::open(view)?);
    view.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    view.execute_batch(SCHEMA)?;
    let mut statement =
        log.prepare("SELECT stream, name, payload FROM events ORDER BY position")?;
    let (mut rows, mut upsert) = (statement.query([])?, view.prepare(UPSERT)?);
    let mut count = 0_u64;
    view.execute_batch("BEGIN")?;
    while let Some(row) = rows.next()? {
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
        upsert.execute((account, cents))?;
        count += 1;
        if count.is_multiple_of(2_048) {
            view.execute_batch("COMMIT; BEGIN")?;
        }
    }
    view.execute_batch("COMMIT")?;
    balances(&view)
}

fn fill(path: &Path, events: u64) {
    let store = Sqlite::options().durability(Durability::Os).open(path).expect("a log");
    let numbers: Vec<u64> = (0..events).collect();
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
