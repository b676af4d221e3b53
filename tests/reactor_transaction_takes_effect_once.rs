//! Guarantee 20: what a reactor writes through its transaction takes effect exactly once, however often its event is delivered.
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
#[path = "support/outside.rs"]
mod outside;

use std::path::Path;
use std::time::Duration;

use bank::*;
use outside::*;
use tidings::sqlite::{Transaction, rusqlite};
use tidings::{App, Delivery, LetterState, reactor};

/// Writes a line for each deposit, and tells the outside of each withdrawal.
struct Clerk(Outside);

#[reactor(name = "clerk", concurrency = 4, retry(attempts = 3, first = "1 ms", longest = "1 ms"))]
impl Clerk {
    #[on]
    fn deposited(
        &self,
        tx: &Transaction<'_>,
        event: &Deposited,
        delivery: &Delivery,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        tx.execute_batch("CREATE TABLE IF NOT EXISTS line (cents INTEGER, delivery TEXT)")?;
        let line = (event.cents, delivery.id.to_string());
        tx.execute("INSERT INTO line VALUES (?1, ?2)", line)?;
        assert!(event.cents != 14, "fourteen");
        if event.cents == 13 && delivery.attempt < 3 {
            return Err("thirteen".into());
        }
        if event.cents == 15 {
            tx.execute_batch("COMMIT")?;
        }
        Ok(())
    }

    #[on]
    async fn withdrawn(&self, event: &Withdrawn, delivery: &Delivery) -> Result<(), Answer> {
        self.0.arrive(event.cents, delivery).await
    }
}

async fn start(path: &Path, outside: &Outside) -> App {
    let builder = App::builder().store(sqlite(path)).aggregate::<Account>();
    builder.reactor(Clerk(outside.clone())).start().await.unwrap()
}

fn query<T: rusqlite::types::FromSql>(path: &Path, sql: &str) -> Vec<T> {
    let views = path.with_file_name("log.views.db");
    let connection = rusqlite::Connection::open(views).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

async fn level(app: &App) {
    until("the reactor is level", || status(app).lag_events == 0).await;
}

async fn deposit(app: &App, account: &str, cents: i64) {
    app.send(account, Deposit { cents }).await.unwrap();
}

const LINES: &str = "SELECT cents FROM line ORDER BY rowid";

#[tokio::test]
async fn a_repeat_after_a_restart_takes_no_effect() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let outside = Outside::default();
    outside.treat(1, Treatment::Hold);
    let app = start(&path, &outside).await;
    deposit(&app, "slow", 100).await;
    app.send("slow", Withdraw { cents: 1 }).await.unwrap();
    deposit(&app, "a", 2).await;
    deposit(&app, "a", 3).await;
    until("the lines are written", || {
        query::<Option<i64>>(&path, "SELECT max(position) FROM tidings_handled") == [Some(4)]
    })
    .await;
    // The withdrawal holds the checkpoint back, so that the deposits behind it are delivered again.
    app.shutdown_within(Duration::ZERO).await.unwrap_err();
    drop(app);
    outside.release(1);
    let app = start(&path, &outside).await;
    level(&app).await;
    assert_eq!(outside.attempts(1).len(), 2);
    app.shutdown().await.unwrap();
    drop(app);
    assert_eq!(query::<i64>(&path, LINES), [100, 2, 3]);
    let app = start(&path, &outside).await;
    deposit(&app, "a", 4).await;
    level(&app).await;
    app.shutdown().await.unwrap();
    assert_eq!(query::<i64>(&path, LINES), [100, 2, 3, 4]);
    // What lies behind the checkpoint is forgotten with the next transaction.
    let handled = query::<i64>(&path, "SELECT position FROM tidings_handled");
    assert_eq!(handled, [5]);
}

#[tokio::test]
async fn an_attempt_that_fails_or_panics_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = start(&path, &Outside::default()).await;
    deposit(&app, "a", 13).await;
    deposit(&app, "b", 14).await;
    deposit(&app, "c", 1).await;
    level(&app).await;
    until("the first is handled at last", || letters(&app).of_key("account-a").is_empty()).await;
    until("the second is parked", || {
        let letters = letters(&app).of_key("account-b");
        letters.iter().any(|letter| letter.state == LetterState::Parked)
    })
    .await;
    let [letter] = letters(&app).list().try_into().unwrap();
    assert_eq!((letter.error(), letter.tried), (Some("it panicked: fourteen"), 1));
    app.shutdown().await.unwrap();
    let mut lines = query::<i64>(&path, LINES);
    lines.sort_unstable();
    assert_eq!(lines, [1, 13]);
}

#[tokio::test]
async fn a_handler_that_ends_its_transaction_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = start(&path, &Outside::default()).await;
    deposit(&app, "a", 15).await;
    until("it is parked", || status(&app).letters == 1).await;
    let [letter] = letters(&app).list().try_into().unwrap();
    assert_eq!(letter.error(), Some("a handler ended the transaction that it was given"));
    assert_eq!((letter.state, letter.tried), (LetterState::Parked, 1));
    // What it committed is its effect: a repeat does nothing.
    assert_eq!(letters(&app).retry(letter.position).await.unwrap().handled, 1);
    app.shutdown().await.unwrap();
    assert_eq!(query::<i64>(&path, LINES), [15]);
}
