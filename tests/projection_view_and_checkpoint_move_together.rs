//! Guarantee 19: a view and its checkpoint move together. Each event affects the view exactly once over crash, restart and
//! redelivery.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(feature = "sqlite")]

#[path = "support/bank.rs"]
mod bank;
#[path = "support/book.rs"]
mod book;

use std::path::{Path, PathBuf};

use bank::*;
use book::*;
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::{App, ConsumerState, Handlers, Header, Projection, StartError, StoreError, Tables};

/// Which version of the projection wrote the rows.
fn versions(connection: &Connection) -> rusqlite::Result<Vec<u32>> {
    connection
        .prepare("SELECT DISTINCT version FROM book_seen ORDER BY version")?
        .query_map([], |row| row.get(0))?
        .collect()
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
    until("it is built", || app.status().consumers[0].state == ConsumerState::Live).await;
    assert_eq!(level::<2>(&app).await, Balances::of_log(app.store()));
    let reader = app.view::<Passbook<2>>().read();
    assert_eq!(reader.query(versions).await.unwrap(), [2]);
    stop(app).await;
}

/// A file of views as it was before consumers kept letters in it, with a view at position 10.
const FORMAT_1: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA application_id = 1414087766;
    PRAGMA user_version = 1;
    CREATE TABLE tidings_views (
        name TEXT PRIMARY KEY,
        version INTEGER NOT NULL,
        schema TEXT NOT NULL,
        created TEXT NOT NULL,
        log_id BLOB NOT NULL,
        position INTEGER NOT NULL,
        time INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE book_balance (account TEXT PRIMARY KEY, cents INTEGER NOT NULL);
    CREATE TABLE book_seen (position INTEGER PRIMARY KEY, version INTEGER NOT NULL);";

#[tokio::test]
async fn a_file_of_an_earlier_format_is_taken_over_with_its_views() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = App::builder().store(sqlite(&path)).aggregate::<Account>().start().await.unwrap();
    deposits(&app, 0..10).await;
    let (folded, log_id) = (Balances::of_log(app.store()), app.store().log_id());
    deposits(&app, 10..20).await;
    stop(app).await;
    let old = Connection::open(directory.path().join("log.views.db")).unwrap();
    old.execute_batch(FORMAT_1).unwrap();
    for (account, cents) in &folded.of {
        old.execute("INSERT INTO book_balance VALUES (?1, ?2)", (account, cents)).unwrap();
    }
    for position in 1..=10 {
        old.execute("INSERT INTO book_seen VALUES (?1, 7)", [position]).unwrap();
    }
    let schema = "CREATE TABLE book_balance (account TEXT PRIMARY KEY, cents INTEGER NOT NULL);
                 CREATE TABLE book_seen (position INTEGER PRIMARY KEY, version INTEGER NOT NULL);";
    let created = r#"[["table","book_balance"],["table","book_seen"]]"#;
    let row = (schema, created, log_id.as_bytes());
    old.execute("INSERT INTO tidings_views VALUES ('book', 1, ?1, ?2, ?3, 10, 0)", row).unwrap();
    drop(old);
    let app = start::<1>(&path).await;
    assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
    // What was folded before is still there, and was not folded again.
    let reader = app.view::<Passbook<1>>().read();
    assert_eq!(reader.query(versions).await.unwrap(), [1, 7]);
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
    let backup: Vec<_> =
        files_of_log(directory.path()).map(|file| (std::fs::read(&file).unwrap(), file)).collect();
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
    let (mine, other) = (directory.path().join("mine.db"), directory.path().join("other.db"));
    let app = start::<1>(&mine).await;
    deposits(&app, 0..10).await;
    stop(app).await;
    let views = directory.path().join("mine.views.db");
    let rows = || view(&Connection::open(&views).unwrap()).unwrap();
    let before = rows();
    let builder = App::builder().store(sqlite(&other)).aggregate::<Account>();
    let started = builder.projection(Passbook::<1>).views(&views).start().await;
    assert!(matches!(
        started,
        Err(StartError::View { name: "book", source: StoreError::Foreign { .. } })
    ));
    // So is one whose name the file does not know yet.
    let builder = App::builder().store(sqlite(&other)).aggregate::<Account>();
    let started = builder.projection(Newcomer).views(&views).start().await;
    assert!(matches!(
        started,
        Err(StartError::View { name: "newcomer", source: StoreError::Foreign { .. } })
    ));
    // It was left as it is.
    assert_eq!(rows(), before);
    let app = start::<1>(&mine).await;
    assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
    stop(app).await;
}

/// A projection that no file has seen yet.
struct Newcomer;

impl Projection for Newcomer {
    const NAME: &'static str = "newcomer";
    const VERSION: u32 = 1;
    type Storage = Tables;

    fn handlers(handlers: &mut Handlers<Self, Tables>) {
        handlers.on(|_: &Self, _: &Transaction<'_>, _: &Deposited, _: &Header| {});
    }
}

#[tokio::test]
async fn a_view_that_cannot_be_written_is_tried_again_until_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = start::<1>(&path).await;
    deposits(&app, 0..10).await;
    level::<1>(&app).await;
    let other_program = Connection::open(directory.path().join("log.views.db")).unwrap();
    other_program.execute_batch("BEGIN IMMEDIATE").unwrap();
    deposits(&app, 10..20).await;
    let state = || app.status().consumers.first().unwrap().state;
    until("the projection says that it tries again", || state() == ConsumerState::Retrying).await;
    other_program.execute_batch("ROLLBACK").unwrap();
    assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
    until("the projection is live again", || state() == ConsumerState::Live).await;
    stop(app).await;
}

#[tokio::test]
async fn a_views_file_that_was_only_begun_is_begun_again() {
    let directory = tempfile::tempdir().unwrap();
    let views = Connection::open(directory.path().join("log.views.db")).unwrap();
    views.pragma_update(None, "journal_mode", "WAL").unwrap();
    drop(views);
    let app = start::<1>(&directory.path().join("log.db")).await;
    deposits(&app, 0..10).await;
    assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
    stop(app).await;
}

#[tokio::test]
async fn a_table_view_beside_a_log_in_memory_works_too() {
    let builder = App::builder().store(tidings::Memory::new()).aggregate::<Account>();
    let app = builder.projection(Passbook::<1>).start().await.unwrap();
    deposits(&app, 0..10).await;
    assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
    stop(app).await;
}

#[tokio::test]
async fn a_shut_down_view_says_that_it_has_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = start::<1>(&path).await;
    deposits(&app, 0..3).await;
    app.shutdown().await.unwrap();
    let status = app.status();
    assert_eq!(status.consumers[0].state, ConsumerState::Stopped);
    assert_eq!((status.consumers[0].lag_events, &status.consumers[0].trouble), (0, &None));
    assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
}
