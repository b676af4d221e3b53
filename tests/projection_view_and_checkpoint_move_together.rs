//! Guarantee 19: a view and its checkpoint move together. Each event affects the view exactly once over crash, restart and
//! redelivery.
#![cfg(feature = "sqlite")]

#[path = "support/bank.rs"]
mod bank;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bank::*;
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection, params};
use tidings::{App, ConsumerState, Handlers, Header, Projection, StartError, StoreError, Tables};

/// Balances in a table, and every position that was folded in another: folding one twice breaks its primary key.
struct Book<const VERSION: u32>;

impl<const VERSION: u32> Projection for Book<VERSION> {
    const NAME: &'static str = "book";
    const VERSION: u32 = VERSION;
    type Storage = Tables;

    fn handlers(handlers: &mut Handlers<Self, Tables>) {
        handlers
            .schema(
                "CREATE TABLE book_balance (account TEXT PRIMARY KEY, cents INTEGER NOT NULL);
                 CREATE TABLE book_seen (position INTEGER PRIMARY KEY, version INTEGER NOT NULL);",
            )
            .on(
                |_: &Self, tx: &Transaction<'_>, event: &Deposited, header: &Header| {
                    Self::add(tx, header, event.cents)
                },
            )
            .on(
                |_: &Self, tx: &Transaction<'_>, event: &Withdrawn, header: &Header| {
                    Self::add(tx, header, -event.cents)
                },
            );
    }
}

impl<const VERSION: u32> Book<VERSION> {
    fn add(tx: &Transaction<'_>, header: &Header, cents: i64) -> rusqlite::Result<()> {
        tx.execute(
            "INSERT INTO book_balance VALUES (?1, ?2)
             ON CONFLICT (account) DO UPDATE SET cents = cents + excluded.cents",
            params![header.stream.id(), cents],
        )?;
        tx.execute(
            "INSERT INTO book_seen VALUES (?1, ?2)",
            params![header.position.as_u64() as i64, VERSION],
        )?;
        Ok(())
    }
}

/// The view as it stands in the tables; the same shape as the naive one.
fn view(connection: &Connection) -> rusqlite::Result<Balances> {
    let of = connection
        .prepare("SELECT account, cents FROM book_balance")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    let seen = connection
        .prepare("SELECT position FROM book_seen ORDER BY position")?
        .query_map([], |row| row.get::<_, i64>(0).map(|p| p as u64))?
        .collect::<Result<_, _>>()?;
    Ok(Balances { of, seen })
}

/// Which version of the projection wrote the rows.
fn versions(connection: &Connection) -> rusqlite::Result<Vec<u32>> {
    connection
        .prepare("SELECT DISTINCT version FROM book_seen ORDER BY version")?
        .query_map([], |row| row.get(0))?
        .collect()
}

async fn try_start<const VERSION: u32>(path: &Path) -> Result<App, StartError> {
    App::builder()
        .store(sqlite(path))
        .aggregate::<Account>()
        .projection(Book::<VERSION>)
        .start()
        .await
}

async fn start<const VERSION: u32>(path: &Path) -> App {
    try_start::<VERSION>(path).await.unwrap()
}

/// The view at the head of the log.
async fn level<const VERSION: u32>(app: &App) -> Balances {
    let reader = app.view::<Book<VERSION>>().at_least(app.head()).await;
    reader.unwrap().query(view).await.unwrap()
}

async fn stop(app: App) {
    app.shutdown().await.unwrap();
}

async fn deposits(app: &App, amounts: std::ops::Range<i64>) {
    for cents in amounts {
        let id = (cents % 3).to_string();
        app.send(id, Deposit { cents }).await.unwrap();
    }
}

#[tokio::test]
async fn a_restart_goes_on_behind_the_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    for restart in 0..5 {
        let app = start::<1>(&path).await;
        // Before anything new happens the old is there.
        assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
        deposits(&app, restart * 10..restart * 10 + 10).await;
        assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
        assert_eq!(app.head().as_u64(), restart as u64 * 10 + 10);
        stop(app).await;
    }
}

#[tokio::test]
async fn a_lost_checkpoint_file_is_built_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = start::<1>(&path).await;
    deposits(&app, 0..20).await;
    stop(app).await;
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(directory.path().join(format!("log.views.db{suffix}")));
    }
    let app = start::<1>(&path).await;
    assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
    stop(app).await;
}

#[tokio::test]
async fn a_raised_version_builds_the_view_anew_from_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = start::<1>(&path).await;
    deposits(&app, 0..20).await;
    stop(app).await;
    let app = start::<2>(&path).await;
    assert_eq!(level::<2>(&app).await, Balances::of_log(app.store()));
    let reader = app.view::<Book<2>>().read();
    assert_eq!(reader.query(versions).await.unwrap(), [2]);
    stop(app).await;
}

/// Everything that belongs to the log, and nothing of its views.
fn files_of_log(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let files = std::fs::read_dir(directory).unwrap();
    let files = files.map(|file| file.unwrap().path());
    files.filter(|file| !file.to_str().unwrap().contains("views"))
}

#[tokio::test]
async fn a_view_ahead_of_an_older_log_is_built_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = start::<1>(&path).await;
    deposits(&app, 0..10).await;
    stop(app).await;
    let backup: Vec<_> = files_of_log(directory.path())
        .map(|file| (std::fs::read(&file).unwrap(), file))
        .collect();
    let app = start::<1>(&path).await;
    deposits(&app, 10..30).await;
    stop(app).await;
    files_of_log(directory.path()).for_each(|file| std::fs::remove_file(file).unwrap());
    for (bytes, file) in backup {
        std::fs::write(file, bytes).unwrap();
    }
    let app = start::<1>(&path).await;
    assert_eq!(app.head().as_u64(), 10);
    assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
    deposits(&app, 100..105).await;
    assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
    stop(app).await;
}

#[tokio::test]
async fn a_view_of_another_log_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (mine, other) = (
        directory.path().join("mine.db"),
        directory.path().join("other.db"),
    );
    let app = start::<1>(&mine).await;
    deposits(&app, 0..10).await;
    stop(app).await;
    let views = directory.path().join("mine.views.db");
    let rows = || view(&Connection::open(&views).unwrap()).unwrap();
    let before = rows();
    let builder = App::builder().store(sqlite(&other)).aggregate::<Account>();
    let started = builder.projection(Book::<1>).views(&views).start().await;
    assert!(matches!(
        started,
        Err(StartError::View {
            name: "book",
            source: StoreError::Foreign { .. }
        })
    ));
    // It was left as it is.
    assert_eq!(rows(), before);
    let app = start::<1>(&mine).await;
    assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
    stop(app).await;
}

#[tokio::test]
async fn a_table_view_beside_a_log_in_memory_works_too() {
    let builder = App::builder()
        .store(tidings::Memory::new())
        .aggregate::<Account>();
    let app = builder.projection(Book::<1>).start().await.unwrap();
    deposits(&app, 0..10).await;
    assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
    stop(app).await;
}

/// What the killed process is told by.
const CHILD: &str = "TIDINGS_TEST_LOG_OF_CHILD";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_again_and_again_folds_each_event_once() {
    if let Some(path) = std::env::var_os(CHILD) {
        return commit_until_killed(Path::new(&path)).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let mut dice = Dice::new(19);
    let mut heads = vec![0];
    for _ in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("a_process_that_is_killed_again_and_again_folds_each_event_once")
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It is killed at any point once it has acknowledged something.
        let lines = 1 + dice.below(60) as usize;
        let output = BufReader::new(child.stdout.take().unwrap());
        let acknowledged = output
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok())
            .take(lines)
            .last();
        child.kill().unwrap();
        child.wait().unwrap();

        let app = start::<1>(&path).await;
        let head = app.head().as_u64();
        assert!(head >= acknowledged.expect("the child ended by itself"));
        assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
        heads.push(head);
        stop(app).await;
    }
    assert!(heads.is_sorted_by(|a, b| a < b), "{heads:?}");
}

async fn commit_until_killed(path: &Path) {
    let app = start::<1>(path).await;
    let mut number = app.head().as_u64();
    // Far longer than it lives, should nobody kill it.
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while std::time::Instant::now() < end {
        let mut sends = Vec::new();
        for _ in 0..20 {
            number += 1;
            let id = (number % 7).to_string();
            sends.push(
                begin(app.send(
                    id,
                    Deposit {
                        cents: number as i64,
                    },
                ))
                .await,
            );
        }
        for send in sends {
            let receipt = send.end().await.unwrap();
            println!("acknowledged {}", receipt.position);
        }
    }
}

#[tokio::test]
async fn a_shut_down_view_says_that_it_has_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = start::<1>(&path).await;
    deposits(&app, 0..3).await;
    app.shutdown().await.unwrap();
    let status = app.status();
    assert_eq!(status.projections[0].state, ConsumerState::Stopped);
    assert_eq!(
        (
            status.projections[0].lag_events,
            &status.projections[0].trouble
        ),
        (0, &None)
    );
    assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
}
