//! A query that asks for a position is answered from a state that holds it, or not at all.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "macros", feature = "sqlite"))]

#[path = "support/bank.rs"]
mod bank;

use std::error::Error;
use std::time::Duration;

use bank::*;
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::{App, Memory, Position, Query, QueryError, ViewError, projection};

/// How many deposits there were; the reply names what it is, for three ways to answer.
macro_rules! counts {
    ($($query:ident)+) => { $(
        #[derive(Query)]
        #[query(reply = u64)]
        struct $query;
    )+ };
}
counts!(InView InRows InClosure);

/// Cannot stand a deposit of 13 cents.
#[derive(Default)]
struct Counted(u64);

#[projection(name = "counted", version = 1, on_failure = stop)]
impl Counted {
    #[on]
    fn deposited(&mut self, event: &Deposited) -> Result<(), &'static str> {
        if event.cents == 13 {
            return Err("thirteen");
        }
        self.0 += 1;
        Ok(())
    }

    #[query]
    fn in_view(&self, _: InView) -> u64 {
        self.0
    }
}

struct Rows;

#[projection(name = "rows", version = 1, schema = "CREATE TABLE deposit (cents INTEGER NOT NULL)")]
impl Rows {
    #[on]
    fn deposited(&self, tx: &Transaction<'_>, event: &Deposited) -> rusqlite::Result<usize> {
        tx.execute("INSERT INTO deposit VALUES (?1)", [event.cents])
    }

    #[query]
    fn in_rows(db: &Connection, _: &InRows) -> rusqlite::Result<u64> {
        let count = db.query_row("SELECT count(*) FROM deposit", [], |row| row.get::<_, i64>(0))?;
        Ok(count as u64)
    }
}

async fn start() -> App {
    App::builder()
        .store(Memory::new())
        .aggregate::<Account>()
        .projection(Counted::default())
        .projection(Rows)
        .answer(|_: InClosure, context| async move {
            let view = context.app.view::<Counted>();
            Ok(view.at_least(context.position).timeout(context.within).await?.0)
        })
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_is_never_from_an_earlier_state() {
    let app = start().await;
    let writers = (0..4).map(|writer| {
        let app = app.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                let receipt = app.send(writer.to_string(), Deposit { cents: 1 }).await.unwrap();
                // Every event is a deposit, so a position is their number at that time.
                let (position, wanted) = (receipt.position, receipt.position.as_u64());
                assert!(app.query(InView).at_least(position).await.unwrap() >= wanted);
                assert!(app.query(InRows).at_least(position).await.unwrap() >= wanted);
                assert!(app.query(InClosure).at_least(position).await.unwrap() >= wanted);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        soon("a writer", writer).await.unwrap();
    }
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_query_waits_for_its_position() {
    let app = start().await;
    let asked = [
        begin(app.query(InView).at_least(Position::new(2)).into_future()).await,
        begin(app.query(InRows).at_least(Position::new(2)).into_future()).await,
        begin(app.query(InClosure).at_least(Position::new(2)).into_future()).await,
    ];
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    assert!(asked.iter().all(|asked| !asked.is_done()));
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    for asked in asked {
        assert_eq!(soon("the answer", asked.end()).await.unwrap(), 2);
    }
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_query_for_a_position_that_does_not_come_says_where_the_view_stands() {
    let app = start().await;
    let short = Duration::from_millis(20);
    for answer in [
        app.query(InView).at_least(Position::new(1)).within(short).await,
        app.query(InRows).at_least(Position::new(1)).within(short).await,
    ] {
        let error = answer.unwrap_err();
        assert!(error.to_string().ends_with("was not answered within 20ms"), "{error}");
        assert!(matches!(
            error,
            QueryError::TimedOut { waited, view: Some(ViewError::TimedOut { reached, .. }), .. }
                if waited == short && reached == Position::START
        ));
    }
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_query_beyond_where_its_projection_stopped_is_refused_and_says_why() {
    let app = start().await;
    let before = app.send("a", Deposit { cents: 1 }).await.unwrap().position;
    let failing = app.send("a", Deposit { cents: 13 }).await.unwrap().position;
    let asked = app.query(InView).at_least(failing).within(Duration::MAX);
    let error = soon("the refusal", asked).await.unwrap_err();
    let QueryError::Stopped { query: "InView", view } = &error else { panic!("{error}") };
    assert!(matches!(view, ViewError::Stopped { trouble: Some(_), .. }));
    assert!(error.source().is_some_and(|source| source.is::<ViewError>()));
    // What it has, it answers from, and the other projection goes on.
    assert_eq!(app.query(InView).at_least(before).await.unwrap(), 1);
    assert_eq!(app.query(InRows).at_least(failing).await.unwrap(), 2);
    app.shutdown().await.unwrap();
}
