//! A query reaches the one handler that the app has for its type, and comes back with a reply of that type.
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
use std::num::ParseIntError;

use bank::*;
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::{
    App, AppBuilder, Handlers, Header, InMemory, Memory, Projection, Query, QueryContext,
    QueryError, StartError, projection,
};

#[derive(Query, Clone)]
#[query(reply = Option<i64>)]
struct Deposits {
    account: String,
}

#[derive(Query)]
#[query(reply = usize)]
struct Accounts;

#[derive(Query)]
#[query(reply = String)]
struct Greeting(&'static str);

#[derive(Query)]
#[query(reply = i64)]
struct Sum;

#[derive(Query)]
#[query(reply = u32)]
struct Parsed(&'static str);

#[derive(Default)]
struct Totals(std::collections::BTreeMap<String, i64>);

#[projection(name = "totals", version = 1)]
impl Totals {
    #[on]
    fn deposited(&mut self, event: &Deposited, header: &Header) {
        *self.0.entry(header.stream.id().into()).or_default() += event.cents;
    }

    #[query]
    fn deposits(&self, query: &Deposits) -> Option<i64> {
        self.0.get(&query.account).copied()
    }

    #[query]
    fn accounts(&self, _: Accounts) -> usize {
        self.0.len()
    }

    #[query]
    fn parsed(&self, Parsed(text): Parsed) -> Result<u32, ParseIntError> {
        text.parse()
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
    fn sum(db: &Connection, _: Sum) -> rusqlite::Result<i64> {
        db.query_row("SELECT sum(cents) FROM deposit", [], |row| row.get(0))
    }
}

fn builder() -> AppBuilder {
    App::builder().store(Memory::new()).aggregate::<Account>()
}

async fn start() -> App {
    builder()
        .projection(Totals::default())
        .projection(Rows)
        .answer(|Greeting(name): Greeting, _| async move { Ok(format!("hello {name}")) })
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn each_query_is_answered_by_the_handler_for_its_type() {
    let app = start().await;
    app.send("a", Deposit { cents: 5 }).await.unwrap();
    let last = app.send("b", Deposit { cents: 7 }).await.unwrap().position;
    let deposits = app.query(Deposits { account: "b".into() }).at_least(last).await;
    assert_eq!(deposits.unwrap(), Some(7));
    assert_eq!(app.query(Deposits { account: "c".into() }).await.unwrap(), None);
    assert_eq!(app.query(Accounts).await.unwrap(), 2);
    assert_eq!(app.query(Sum).at_least(last).await.unwrap(), 12);
    assert_eq!(app.query(Greeting("you")).await.unwrap(), "hello you");
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_error_of_a_handler_comes_back_as_the_source() {
    let app = start().await;
    assert_eq!(app.query(Parsed("12")).await.unwrap(), 12);
    let error = app.query(Parsed("twelve")).await.unwrap_err();
    assert_eq!(error.to_string(), "query Parsed failed");
    assert!(error.source().is_some_and(|source| source.is::<ParseIntError>()));
    // The sum of no rows is NULL, which is no number.
    let error = app.query(Sum).await.unwrap_err();
    assert!(matches!(&error, QueryError::Failed { query: "Sum", .. }));
    assert!(error.source().is_some_and(|source| source.is::<rusqlite::Error>()));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_query_without_a_handler_says_what_to_write() {
    let app = builder().start().await.unwrap();
    let error = app.query(Accounts).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "nothing answers query Accounts: write `#[query] fn …` in a projection of the app, or `App::builder().answer(…)`"
    );
    let error = app.gather(Deposits { account: "a".into() }).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "nobody responds to query Deposits: write `App::builder().respond(…)`"
    );
    app.shutdown().await.unwrap();
}

/// Answers with a function, rather than with a closure.
async fn accounts(_: Accounts, _: QueryContext) -> Result<usize, Box<dyn Error + Send + Sync>> {
    Ok(0)
}

/// A projection that is written by hand, with two handlers for one query.
struct Undecided;

impl Projection for Undecided {
    const NAME: &'static str = "undecided";
    const VERSION: u32 = 1;
    type Storage = InMemory;

    fn handlers(handlers: &mut Handlers<Self, InMemory>) {
        handlers.on(|_: &mut Self, _: &Deposited, _: &Header| {});
        handlers.answer(|_: &Self, _: Accounts| 1_usize);
        handlers.answer(|_: &Self, _: Accounts| Ok::<usize, std::fmt::Error>(2));
    }
}

#[tokio::test]
async fn two_handlers_for_one_query_are_refused_at_the_start() {
    #[track_caller]
    fn refused(started: Result<App, StartError>) {
        match started {
            Err(error @ StartError::AnswerTwice("Accounts")) => {
                assert!(error.to_string().starts_with("query Accounts is answered twice"));
            }
            other => panic!("{other:?}"),
        }
    }
    refused(builder().answer(accounts).answer(accounts).start().await);
    refused(builder().answer(accounts).projection(Totals::default()).start().await);
    refused(builder().projection(Undecided).start().await);
    // One of a kind is fine, beside any number of those who respond.
    let builder = builder().answer(accounts).respond("first", accounts).respond("second", accounts);
    let app = builder.start().await.unwrap();
    assert_eq!(app.query(Accounts).await.unwrap(), 0);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn two_responders_of_one_name_are_refused_at_the_start() {
    let builder = builder().respond("first", accounts).respond("first", accounts);
    let error = builder.start().await.unwrap_err();
    assert!(matches!(error, StartError::ResponderTwice { query: "Accounts", responder: "first" }));
}

#[tokio::test]
async fn queries_are_answered_after_the_shutdown_from_the_views_as_they_ended() {
    let app = start().await;
    let last = app.send("a", Deposit { cents: 5 }).await.unwrap().position;
    app.shutdown().await.unwrap();
    assert_eq!(app.query(Accounts).at_least(last).await.unwrap(), 1);
    assert_eq!(app.query(Sum).at_least(last).await.unwrap(), 5);
    assert_eq!(app.query(Greeting("you")).await.unwrap(), "hello you");
    let never = soon("the refusal", app.query(Accounts).at_least(last.next())).await;
    assert!(matches!(never, Err(QueryError::Stopped { query: "Accounts", .. })));
}

#[test]
fn a_program_with_many_threads_asks_from_all_of_them() {
    #[tokio::main(flavor = "multi_thread", worker_threads = 2)]
    async fn main() {
        let app = start().await;
        app.send("a", Deposit { cents: 5 }).await.unwrap();
        let asking = (0..8).map(|_| {
            let app = app.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    app.query(Accounts).at_least(app.head()).await.unwrap();
                    assert_eq!(app.query(Sum).at_least(app.head()).await.unwrap(), 5);
                }
            })
        });
        for asked in asking.collect::<Vec<_>>() {
            soon("an answer", asked).await.unwrap();
        }
        app.shutdown().await.unwrap();
    }
    main();
}

#[tokio::test]
async fn nothing_prints_what_is_asked_or_answered() {
    let builder = builder().projection(Totals::default());
    let app = builder
        .respond("first", |query: Deposits, _| async move { Ok(query.account.parse().ok()) })
        .start()
        .await
        .unwrap();
    let asking = app.query(Deposits { account: "4711".into() });
    assert!(format!("{asking:?}").contains("Deposits"));
    assert!(!format!("{asking:?}").contains("4711"));
    let gathering = app.gather(Deposits { account: "4711".into() });
    assert!(!format!("{gathering:?}").contains("4711"));
    let gathered = gathering.await.unwrap();
    assert_eq!(gathered.replies, [("first", Some(4711))]);
    assert!(format!("{gathered:?}").contains("first"));
    assert!(!format!("{gathered:?}").contains("4711"));
    app.shutdown().await.unwrap();
}
