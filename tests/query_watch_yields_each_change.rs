//! A watched query yields its answer at once and again whenever it has changed, holds up nobody, and ends with its projection.
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

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bank::*;
use futures_util::StreamExt;
use parking_lot::{Condvar, Mutex};
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::{
    App, ConsumerState, EventStore, Memory, Query, QueryError, View, ViewError, Watching,
    projection,
};

macro_rules! counts {
    ($($query:ident)+) => { $(
        #[derive(Query, Clone)]
        #[query(reply = u64)]
        struct $query;
    )+ };
}
counts!(InView InRows InStrict InClosure Unheard Moody);

/// How many deposits there were.
#[derive(Default)]
struct Counted(u64);

#[projection(name = "counted", version = 1)]
impl Counted {
    #[on]
    fn deposited(&mut self, _: &Deposited) {
        self.0 += 1;
    }

    #[query]
    fn in_view(&self, _: InView) -> u64 {
        self.0
    }

    #[query]
    fn moody(&self, _: Moody) -> Result<u64, &'static str> {
        match self.0 {
            1 => Err("one"),
            2 => panic!("two"),
            count => Ok(count),
        }
    }
}

/// The same in a table.
struct Rows;

#[projection(name = "rows", version = 1, schema = "CREATE TABLE deposit (cents INTEGER NOT NULL)")]
impl Rows {
    #[on]
    fn deposited(&self, tx: &Transaction<'_>, event: &Deposited) -> rusqlite::Result<usize> {
        tx.execute("INSERT INTO deposit VALUES (?1)", [event.cents])
    }

    #[query]
    fn in_rows(db: &Connection, _: InRows) -> rusqlite::Result<u64> {
        rows(db)
    }
}

fn rows(db: &Connection) -> rusqlite::Result<u64> {
    db.query_row("SELECT count(*) FROM deposit", [], |row| row.get::<_, i64>(0)).map(|n| n as u64)
}

/// How many bookings there were, of another aggregate.
#[derive(Default)]
struct Bookings(u64);

#[projection(name = "bookings", version = 1)]
impl Bookings {
    #[on]
    fn booked(&mut self, _: &Booked) {
        self.0 += 1;
    }
}

/// How many deposits there were. It stops at one of 13 cents, but has counted it before that.
#[derive(Default)]
struct Strict(u64);

#[projection(name = "strict", version = 1, on_failure = stop)]
impl Strict {
    #[on]
    fn deposited(&mut self, event: &Deposited) -> Result<(), &'static str> {
        self.0 += 1;
        if event.cents == 13 { Err("thirteen") } else { Ok(()) }
    }

    #[query]
    fn in_strict(&self, _: InStrict) -> u64 {
        self.0
    }
}

/// How many deposits there were. It parks those of 13 cents, of one account at most, until it is mended.
#[derive(Default)]
struct Parking {
    count: u64,
    mended: Arc<AtomicBool>,
}

#[projection(name = "parking", version = 1, max_parked_keys = 1)]
impl Parking {
    #[on]
    fn deposited(&mut self, event: &Deposited) -> Result<(), &'static str> {
        if event.cents == 13 && !self.mended.load(Ordering::Relaxed) {
            return Err("thirteen");
        }
        self.count += 1;
        Ok(())
    }
}

async fn start() -> App {
    start_on(Memory::new()).await
}

async fn start_on(store: impl EventStore) -> App {
    App::builder()
        .store(store)
        .aggregate::<Account>()
        .aggregate::<Ledger>()
        .projection(Counted::default())
        .projection(Balances::default())
        .projection(Bookings::default())
        .projection(Rows)
        .answer(|_: InClosure, context| async move {
            let deposits = context.app.view::<Counted>().read().0;
            Ok(deposits + context.app.view::<Bookings>().read().0)
        })
        .start()
        .await
        .unwrap()
}

/// Deposits a cent, and waits until all views hold it.
async fn deposit(app: &App, id: &str) {
    let position = app.send(id, Deposit { cents: 1 }).await.unwrap().position;
    app.view::<Counted>().at_least(position).await.unwrap();
    app.view::<Balances>().at_least(position).await.unwrap();
    app.view::<Rows>().at_least(position).await.unwrap();
}

fn counted(view: &View<Counted>) -> Watching<u64> {
    view.watch(|counted: &Counted| counted.0)
}

async fn next<A>(watching: &mut Watching<A>) -> Option<A> {
    soon("an answer", watching.next()).await
}

#[tokio::test]
async fn the_first_answer_comes_at_once_and_another_with_each_change() {
    let app = start().await;
    let mut in_memory = counted(&app.view::<Counted>());
    let mut in_tables = app.view::<Rows>().watch(rows);
    let mut typed = app.watch(InView);
    let mut typed_in_tables = app.watch(InRows);
    for count in 0..20 {
        assert_eq!(next(&mut in_memory).await, Some(count));
        assert_eq!(next(&mut in_tables).await.unwrap().unwrap(), count);
        assert_eq!(next(&mut typed).await.unwrap().unwrap(), count);
        assert_eq!(next(&mut typed_in_tables).await.unwrap().unwrap(), count);
        app.send("a", Deposit { cents: 1 }).await.unwrap();
    }
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_that_waits_is_woken_by_the_change() {
    let app = start().await;
    let (view, rows_view) = (app.view::<Counted>(), app.view::<Rows>());
    let (mut in_memory, mut in_tables) = (counted(&view), rows_view.watch(rows));
    next(&mut in_memory).await;
    next(&mut in_tables).await;
    let in_memory = begin(in_memory.next()).await;
    let in_tables = begin(in_tables.next()).await;
    assert!(!in_memory.is_done() && !in_tables.is_done());
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    assert_eq!(soon("the change", in_memory.end()).await, Some(1));
    assert_eq!(soon("the change", in_tables.end()).await.unwrap().unwrap(), 1);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_the_same_is_not_yielded_again() {
    let app = start().await;
    let mut of_a = app
        .view::<Balances>()
        .watch(|balances: &Balances| balances.of.get("a").copied().unwrap_or_default());
    assert_eq!(next(&mut of_a).await, Some(0));
    for _ in 0..3 {
        deposit(&app, "b").await;
        not_yet("what has not changed", &mut pin!(of_a.next())).await;
    }
    deposit(&app, "a").await;
    assert_eq!(next(&mut of_a).await, Some(1));
    // Back to what it was before the last answer is a change.
    let position = app.send("a", Withdraw { cents: 1 }).await.unwrap().position;
    app.view::<Balances>().at_least(position).await.unwrap();
    assert_eq!(next(&mut of_a).await, Some(0));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_asks_seldom_gets_the_newest_and_nothing_between() {
    let app = start().await;
    let mut in_memory = counted(&app.view::<Counted>());
    let mut in_tables = app.view::<Rows>().watch(rows);
    assert_eq!(next(&mut in_memory).await, Some(0));
    assert_eq!(next(&mut in_tables).await.unwrap().unwrap(), 0);
    for _ in 0..100 {
        deposit(&app, "a").await;
    }
    assert_eq!(next(&mut in_memory).await, Some(100));
    not_yet("what came between", &mut pin!(in_memory.next())).await;
    assert_eq!(next(&mut in_tables).await.unwrap().unwrap(), 100);
    app.shutdown().await.unwrap();
    assert_eq!(next(&mut in_memory).await, None);
    assert!(next(&mut in_tables).await.is_none());
}

#[tokio::test]
async fn a_query_runs_once_for_each_move_and_only_when_somebody_asks() {
    let app = start().await;
    until("all projections are live", || {
        app.status().consumers.iter().all(|projection| projection.state == ConsumerState::Live)
    })
    .await;
    let runs = Arc::new(AtomicU64::new(0));
    let mut watching = app.view::<Counted>().watch({
        let runs = Arc::clone(&runs);
        move |counted: &Counted| {
            runs.fetch_add(1, Ordering::Relaxed);
            counted.0
        }
    });
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    assert_eq!(next(&mut watching).await, Some(0));
    for move_number in 1..=10 {
        deposit(&app, "a").await;
        assert_eq!(next(&mut watching).await, Some(move_number));
        // The view stands still: however often somebody asks, nothing is done.
        for _ in 0..5 {
            not_yet("an answer", &mut pin!(watching.next())).await;
        }
        assert_eq!(runs.load(Ordering::Relaxed), move_number + 1);
    }
    for _ in 0..50 {
        deposit(&app, "a").await;
    }
    assert_eq!(runs.load(Ordering::Relaxed), 11);
    assert_eq!(next(&mut watching).await, Some(60));
    assert_eq!(runs.load(Ordering::Relaxed), 12);
    app.shutdown().await.unwrap();
}

/// Holds up whoever passes while it is closed.
#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock() = closed;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let mut closed = self.closed.lock();
        while *closed {
            assert!(!self.opened.wait_for(&mut closed, PATIENCE).timed_out(), "nobody opened it");
        }
    }
}

#[tokio::test]
async fn a_query_that_hangs_holds_up_nobody_and_its_answer_is_not_lost() {
    // In a file: tables in memory cannot be written while they are read.
    let directory = tempfile::tempdir().unwrap();
    let app = start_on(sqlite(directory.path().join("bank.db"))).await;
    let gate = Arc::new(Gate::default());
    gate.set(true);
    let mut slow = app.view::<Rows>().watch({
        let gate = Arc::clone(&gate);
        move |db: &Connection| {
            let count = rows(db);
            gate.pass();
            count
        }
    });
    let mut fast = app.view::<Rows>().watch(rows);
    // Whoever asked for it has given up, three times.
    for _ in 0..3 {
        not_yet("the slow answer", &mut pin!(slow.next())).await;
    }
    for count in 0..10 {
        assert_eq!(next(&mut fast).await.unwrap().unwrap(), count);
        deposit(&app, "a").await;
    }
    gate.set(false);
    // It had begun at any time, with what was there; what came later is not forgotten.
    let mut count = next(&mut slow).await.unwrap().unwrap();
    while count < 10 {
        let later = next(&mut slow).await.unwrap().unwrap();
        assert!(later > count);
        count = later;
    }
    app.shutdown().await.unwrap();
    assert!(next(&mut slow).await.is_none());
}

#[tokio::test]
async fn an_error_is_yielded_each_time_and_is_not_the_end() {
    let app = start().await;
    let fails = Arc::new(AtomicBool::new(false));
    let mut watching = app.view::<Rows>().watch({
        let fails = Arc::clone(&fails);
        move |db: &Connection| match fails.load(Ordering::Relaxed) {
            true => db.query_row("SELECT nothing", [], |row| row.get::<_, i64>(0)),
            false => Ok(7),
        }
    });
    assert_eq!(next(&mut watching).await.unwrap().unwrap(), 7);
    fails.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        deposit(&app, "a").await;
        let error = next(&mut watching).await.unwrap().unwrap_err();
        assert!(matches!(error, ViewError::Query { name: "rows", .. }), "{error}");
    }
    fails.store(false, Ordering::Relaxed);
    deposit(&app, "a").await;
    // The same as the last answer, but something else was yielded since.
    assert_eq!(next(&mut watching).await.unwrap().unwrap(), 7);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_fails_or_panics_is_asked_again_with_the_next_move() {
    let app = start().await;
    let mut watching = app.watch(Moody);
    assert_eq!(next(&mut watching).await.unwrap().unwrap(), 0);
    deposit(&app, "a").await;
    assert!(matches!(next(&mut watching).await.unwrap(), Err(QueryError::Failed { .. })));
    deposit(&app, "a").await;
    assert!(matches!(next(&mut watching).await.unwrap(), Err(QueryError::Panicked { .. })));
    deposit(&app, "a").await;
    assert_eq!(next(&mut watching).await.unwrap().unwrap(), 3);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_closure_is_asked_again_when_any_projection_has_moved() {
    let app = start().await;
    let mut watching = app.watch(InClosure);
    assert_eq!(next(&mut watching).await.unwrap().unwrap(), 0);
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    assert_eq!(next(&mut watching).await.unwrap().unwrap(), 1);
    app.send("l", Book { number: 1 }).await.unwrap();
    assert_eq!(next(&mut watching).await.unwrap().unwrap(), 2);
    app.shutdown().await.unwrap();
    assert!(next(&mut watching).await.is_none());
}

#[tokio::test]
async fn a_query_that_nobody_answers_says_so_and_ends() {
    let app = start().await;
    let mut watching = app.watch(Unheard);
    let error = next(&mut watching).await.unwrap().unwrap_err();
    assert!(matches!(error, QueryError::Unanswered("Unheard")), "{error}");
    assert!(next(&mut watching).await.is_none());
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn it_ends_when_its_projection_stops_with_the_last_answer_first() {
    let app = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = app.projection(Strict::default()).projection(Rows).start().await.unwrap();
    let mut untyped = app.view::<Strict>().watch(|strict: &Strict| strict.0);
    let (mut typed, mut other) = (app.watch(InStrict), app.view::<Rows>().watch(rows));
    assert_eq!(next(&mut untyped).await, Some(0));
    assert_eq!(next(&mut typed).await.unwrap().unwrap(), 0);
    app.send("a", Deposit { cents: 13 }).await.unwrap();
    // What the handler had counted before it failed.
    assert_eq!(next(&mut untyped).await, Some(1));
    assert_eq!(next(&mut typed).await.unwrap().unwrap(), 1);
    assert_eq!(next(&mut untyped).await, None);
    assert!(next(&mut typed).await.is_none());
    // The other one goes on.
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    while next(&mut other).await.unwrap().unwrap() < 2 {}
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_projection_that_stands_still_with_too_many_letters_is_not_the_end() {
    let mended = Arc::<AtomicBool>::default();
    let parking = Parking { mended: Arc::clone(&mended), ..Parking::default() };
    let app = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = app.projection(parking).start().await.unwrap();
    let view = app.view::<Parking>();
    let mut watching = view.watch(|parking: &Parking| parking.count);
    assert_eq!(next(&mut watching).await, Some(0));
    let parked = app.send("a", Deposit { cents: 13 }).await.unwrap().position;
    let one = app.send("b", Deposit { cents: 1 }).await.unwrap().position;
    view.at_least(one).await.unwrap();
    assert_eq!(next(&mut watching).await, Some(1));
    // A second account is one too many: the projection stands still, which is not the end.
    app.send("c", Deposit { cents: 13 }).await.unwrap();
    until("the projection stands still", || {
        app.status().consumers[0].state == ConsumerState::Stopped
    })
    .await;
    let watching = begin(watching.next()).await;
    assert!(!watching.is_done());
    mended.store(true, Ordering::Relaxed);
    app.letters().of("parking").unwrap().retry(parked).await.unwrap();
    assert!(matches!(soon("the change", watching.end()).await, Some(2 | 3)));
    app.shutdown().await.unwrap();
    assert_eq!(view.read().count, 3);
}

#[tokio::test]
async fn a_letter_that_is_handled_later_is_a_change() {
    let mended = Arc::<AtomicBool>::default();
    let parking = Parking { mended: Arc::clone(&mended), ..Parking::default() };
    let app = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = app.projection(parking).start().await.unwrap();
    let view = app.view::<Parking>();
    let mut watching = view.watch(|parking: &Parking| parking.count);
    let parked = app.send("a", Deposit { cents: 13 }).await.unwrap().position;
    view.at_least(parked).await.unwrap();
    until("the projection is live", || app.status().consumers[0].state == ConsumerState::Live)
        .await;
    assert_eq!(next(&mut watching).await, Some(0));
    mended.store(true, Ordering::Relaxed);
    app.letters().of("parking").unwrap().retry(parked).await.unwrap();
    assert_eq!(next(&mut watching).await, Some(1));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn it_ends_with_the_app_and_answers_once_after_that() {
    let app = start().await;
    let mut asked_before = counted(&app.view::<Counted>());
    let mut never_asked = app.view::<Rows>().watch(rows);
    assert_eq!(next(&mut asked_before).await, Some(0));
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    app.shutdown().await.unwrap();
    let mut begun_after = app.watch(InView);
    assert_eq!(next(&mut asked_before).await, Some(1));
    assert_eq!(next(&mut never_asked).await.unwrap().unwrap(), 1);
    assert_eq!(next(&mut begun_after).await.unwrap().unwrap(), 1);
    for _ in 0..2 {
        assert_eq!(next(&mut asked_before).await, None);
        assert!(next(&mut never_asked).await.is_none());
        assert!(next(&mut begun_after).await.is_none());
    }
}

#[tokio::test]
async fn one_that_watches_a_view_does_not_keep_the_app_alive() {
    let app = start().await;
    let mut watching = counted(&app.view::<Counted>());
    assert_eq!(next(&mut watching).await, Some(0));
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    drop(app);
    assert_eq!(next(&mut watching).await, Some(1));
    assert_eq!(next(&mut watching).await, None);
}

/// What was yielded grew with each answer, and ended with `last`.
#[track_caller]
fn check_grown(answers: &[u64], last: u64) {
    assert!(answers.is_sorted_by(|earlier, later| earlier < later), "{answers:?}");
    assert_eq!(answers.last(), Some(&last));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_each_yields_changes_only_and_the_last_state() {
    let app = start().await;
    let counted = tokio::spawn(counted(&app.view::<Counted>()).collect::<Vec<_>>());
    let in_rows = app.view::<Rows>().watch(rows).map(Result::unwrap);
    let in_rows = tokio::spawn(in_rows.collect::<Vec<_>>());
    let typed = tokio::spawn(app.watch(InView).map(Result::unwrap).collect::<Vec<_>>());
    let closure = tokio::spawn(app.watch(InClosure).map(Result::unwrap).collect::<Vec<_>>());
    let writers = (0..4).map(|writer| {
        let app = app.clone();
        tokio::spawn(async move {
            for number in 0..100 {
                app.send(writer.to_string(), Deposit { cents: 1 }).await.unwrap();
                app.send(writer.to_string(), Book { number }).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        soon("a writer", writer).await.unwrap();
    }
    app.shutdown().await.unwrap();
    for watched in [counted, in_rows, typed] {
        check_grown(&soon("the end", watched).await.unwrap(), 400);
    }
    check_grown(&soon("the end", closure).await.unwrap(), 800);
}
