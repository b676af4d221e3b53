//! A projection that may not pass an event stops before one that fails or panics, and says why; all others go on. Guarantee 24 with it:
//! `at_least` never answers from an earlier state.
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

use std::time::Duration;

use bank::*;
use serde::{Deserialize, Deserializer, Serialize};
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite;
use tidings::testing::{Fault, Faulty, Operation};
use tidings::{
    App, Command, ConsumerState, ConsumerStatus, Event, EventStore, Header, Memory, Position,
    ViewError, aggregate, projection,
};

/// Cannot stand a deposit of 13 cents, and panics at 14.
#[derive(Default)]
struct Superstitious {
    cents: i64,
}

#[projection(name = "superstitious", version = 1, on_failure = stop)]
impl Superstitious {
    #[on]
    fn deposited(&mut self, event: &Deposited) -> Result<(), String> {
        check(event)?;
        self.cents += event.cents;
        Ok(())
    }
}

struct SuperstitiousTable;

#[projection(
    name = "superstitious_table",
    version = 1,
    on_failure = stop,
    schema = "CREATE TABLE deposit (position INTEGER PRIMARY KEY, cents INTEGER NOT NULL)"
)]
impl SuperstitiousTable {
    #[on]
    fn deposited(
        &self,
        tx: &Transaction<'_>,
        event: &Deposited,
        header: &Header,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        tx.execute(
            "INSERT INTO deposit VALUES (?1, ?2)",
            (header.position.as_u64() as i64, event.cents),
        )?;
        check(event)?;
        Ok(())
    }
}

fn check(event: &Deposited) -> Result<(), String> {
    assert!(event.cents != 14, "fourteen");
    match event.cents {
        13 => Err("thirteen".into()),
        _ => Ok(()),
    }
}

fn status(app: &App, name: &str) -> ConsumerStatus {
    app.status().consumer(name).unwrap().clone()
}

async fn start(store: impl EventStore) -> App {
    App::builder()
        .store(store)
        .aggregate::<Account>()
        .projection(Superstitious::default())
        .projection(SuperstitiousTable)
        .projection(Balances::default())
        .start()
        .await
        .unwrap()
}

async fn deposit(app: &App, cents: i64) -> Position {
    app.send("a", Deposit { cents }).await.unwrap().position
}

async fn check_stopped(bad: i64, text: &str, live: bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = if live {
        start(sqlite(&path)).await
    } else {
        let builder = App::builder().store(sqlite(&path)).aggregate::<Account>();
        builder.start().await.unwrap()
    };
    let before = deposit(&app, 1).await;
    if live {
        // All are level and live before the bad one comes.
        app.view::<Superstitious>().at_least(before).await.unwrap();
        app.view::<SuperstitiousTable>().at_least(before).await.unwrap();
    }
    let before = deposit(&app, 2).await;
    let failing = deposit(&app, bad).await;
    let last = deposit(&app, 4).await;
    let app = match live {
        true => app,
        false => {
            app.shutdown().await.unwrap();
            drop(app);
            start(sqlite(&path)).await
        }
    };
    for name in ["superstitious", "superstitious_table"] {
        until("it has stopped", || status(&app, name).state == ConsumerState::Stopped).await;
        let status = status(&app, name);
        assert_eq!((status.position, status.lag_events), (before, 2));
        let trouble = status.trouble.unwrap();
        assert!(trouble.contains(text) && trouble.contains("account-a"), "{trouble}");
        assert!(trouble.contains("at position 3"), "{trouble}");
    }
    // What it has, it answers from; what it will never have, it refuses at once.
    let view = app.view::<Superstitious>();
    assert_eq!(view.at_least(before).await.unwrap().cents, 3);
    let refused = soon("the refusal", view.at_least(failing).timeout(Duration::MAX)).await;
    assert!(matches!(
        refused,
        Err(ViewError::Stopped { reached, trouble: Some(_), .. }) if reached == before
    ));
    let table = app.view::<SuperstitiousTable>();
    let rows = |connection: &rusqlite::Connection| {
        connection
            .prepare("SELECT cents FROM deposit ORDER BY position")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<i64>>>()
    };
    let reader = table.at_least(before).await.unwrap();
    assert_eq!(reader.query(rows).await.unwrap(), [1, 2]);
    let refused = table.at_least(last).await;
    assert!(matches!(refused, Err(ViewError::Stopped { .. })));
    // The others go on.
    let later = deposit(&app, 5).await;
    let balances = app.view::<Balances>();
    assert_eq!(balances.at_least(later).await.unwrap().of["a"], 12 + bad);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_error_in_a_live_handler_stops_it_before_the_event() {
    check_stopped(13, "thirteen", true).await;
}

#[tokio::test]
async fn a_panic_in_a_live_handler_stops_it_before_the_event() {
    check_stopped(14, "fourteen", true).await;
}

#[tokio::test]
async fn an_error_while_catching_up_stops_it_before_the_event() {
    check_stopped(13, "thirteen", false).await;
}

#[tokio::test]
async fn a_panic_while_catching_up_stops_it_before_the_event() {
    check_stopped(14, "fourteen", false).await;
}

/// An event that its code cannot read back: it panics.
#[derive(Event, Serialize)]
#[event(name = "vase.broken", version = 1)]
struct Broken {}

impl<'de> Deserialize<'de> for Broken {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("shards everywhere")
    }
}

#[derive(Command, Clone)]
struct Break;

#[derive(Default)]
struct Vase;

#[aggregate(category = "vase", events = VaseEvent, error = std::convert::Infallible)]
impl Vase {
    #[command]
    fn break_it(&self, _: Break) -> Broken {
        Broken {}
    }
    #[apply]
    fn broken(&mut self, _: &Broken) {}
}

#[derive(Default)]
struct Vases;

#[projection(name = "vases", version = 1, on_failure = stop)]
impl Vases {
    #[on]
    fn broken(&mut self, _: &Broken) {}
}

#[tokio::test]
async fn a_panic_while_reading_an_event_stops_it_before_the_event() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let builder = || {
        let builder = App::builder().store(sqlite(&path)).aggregate::<Vase>();
        builder.projection(Vases)
    };
    let app = builder().start().await.unwrap();
    let broken = app.send("a", Break).await.unwrap();
    app.view::<Vases>().at_least(broken.position).await.unwrap();
    app.shutdown().await.unwrap();
    drop(app);
    let app = builder().start().await.unwrap();
    until("it has stopped", || status(&app, "vases").state == ConsumerState::Stopped).await;
    let trouble = status(&app, "vases").trouble.unwrap();
    assert!(trouble.contains("shards everywhere"), "{trouble}");
    assert!(trouble.contains("at position 1"), "{trouble}");
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_restart_meets_the_same_event_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = start(sqlite(&path)).await;
    deposit(&app, 1).await;
    deposit(&app, 13).await;
    until("it has stopped", || status(&app, "superstitious_table").state == ConsumerState::Stopped)
        .await;
    app.shutdown().await.unwrap();
    drop(app);
    let app = start(sqlite(&path)).await;
    until("it has stopped again", || {
        status(&app, "superstitious_table").state == ConsumerState::Stopped
    })
    .await;
    assert_eq!(status(&app, "superstitious_table").position.as_u64(), 1);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn at_least_waits_for_its_position_and_times_out_without_it() {
    let builder = App::builder().store(Memory::new()).aggregate::<Account>();
    let builder = builder.projection(Balances::default());
    let app = builder.start().await.unwrap();
    let view = app.view::<Balances>();
    let early = view.at_least(Position::new(1));
    assert!(matches!(
        early.timeout(Duration::from_millis(20)).await,
        Err(ViewError::TimedOut { wanted, reached, .. })
            if wanted == Position::new(1) && reached == Position::START
    ));
    let waiting = begin(view.at_least(Position::new(2)).into_future()).await;
    deposit(&app, 1).await;
    deposit(&app, 2).await;
    let answer = waiting.end().await.unwrap();
    assert!(answer.position() >= Position::new(2));
    assert_eq!(answer.of["a"], 3);
    drop(answer);
    app.shutdown().await.unwrap();
    let never = soon("the refusal", view.at_least(Position::new(3))).await;
    assert!(matches!(never, Err(ViewError::Stopped { trouble: None, .. })));
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_said_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let builder = App::builder().store(sqlite(&path)).aggregate::<Account>();
    let app = builder.start().await.unwrap();
    let last = deposit(&app, 1).await;
    app.shutdown().await.unwrap();
    drop(app);
    let (store, faults) = Faulty::new(sqlite(&path));
    let builder = App::builder().aggregate::<Account>().store(store);
    let builder = builder.projection(Balances::default());
    // The start itself reads the newest event and the oldest.
    faults.fail(Operation::ReadLog, 3, Fault::Failed);
    faults.fail(Operation::ReadLog, 4, Fault::Failed);
    let app = builder.start().await.unwrap();
    until("it says that it tries again", || {
        let status = status(&app, "balances");
        status.state == ConsumerState::Retrying && status.trouble.is_some()
    })
    .await;
    assert_eq!(app.view::<Balances>().at_least(last).await.unwrap().of["a"], 1);
    let status = status(&app, "balances");
    assert_eq!(status.trouble, None);
    app.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_never_answers_from_an_earlier_state() {
    let directory = tempfile::tempdir().unwrap();
    let app = start(sqlite(directory.path().join("log.db"))).await;
    let writers = (0..4).map(|writer| {
        let app = app.clone();
        tokio::spawn(async move {
            let (memory, table) = (app.view::<Balances>(), app.view::<SuperstitiousTable>());
            let id = writer.to_string();
            for number in 1..=100 {
                let receipt = app.send(&id, Deposit { cents: 1 }).await.unwrap();
                {
                    let read = memory.at_least(receipt.position).await.unwrap();
                    assert!(read.position() >= receipt.position);
                    assert_eq!(read.of[&id], number);
                }
                if number % 10 == 0 {
                    let position = receipt.position.as_u64() as i64;
                    let reader = table.at_least(receipt.position).await.unwrap();
                    let rows = reader.query(move |connection| {
                        let sql = "SELECT COUNT(*) FROM deposit WHERE position <= ?1";
                        connection.query_row(sql, [position], |row| row.get::<_, i64>(0))
                    });
                    assert_eq!(rows.await.unwrap(), position);
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        soon("a writer", writer).await.unwrap();
    }
    app.shutdown().await.unwrap();
}
