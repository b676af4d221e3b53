//! A handler that panics, fails, hangs or is late reaches its caller alone; those who are asked together do not wait for it.
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

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bank::*;
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::{App, AppBuilder, Memory, Query, QueryError, projection};
use tokio::sync::{Barrier, Semaphore};

/// What a handler is to do.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Fine,
    Panicking,
    Hanging,
}

macro_rules! moody {
    ($($query:ident)+) => { $(
        #[derive(Query, Clone)]
        #[query(reply = &'static str)]
        struct $query(Mood);
    )+ };
}
moody!(OfView OfRows OfClosure OfMany);

#[derive(Default)]
struct View;

#[projection(name = "view", version = 1)]
impl View {
    #[on]
    fn deposited(&mut self, _: &Deposited) {}

    #[query]
    fn of_view(&self, OfView(mood): OfView) -> &'static str {
        assert!(mood != Mood::Panicking, "the view is in a mood");
        "fine"
    }
}

struct Rows;

#[projection(name = "rows", version = 1, schema = "CREATE TABLE moody_deposit (cents INTEGER)")]
impl Rows {
    #[on]
    fn deposited(&self, tx: &Transaction<'_>, event: &Deposited) -> rusqlite::Result<usize> {
        tx.execute("INSERT INTO moody_deposit VALUES (?1)", [event.cents])
    }

    #[query]
    fn of_rows(db: &Connection, OfRows(mood): OfRows) -> rusqlite::Result<&'static str> {
        db.query_row("SELECT count(*) FROM moody_deposit", [], |_| {
            assert!(mood != Mood::Panicking, "the rows are in a mood");
            Ok("fine")
        })
    }
}

fn builder() -> AppBuilder {
    App::builder()
        .store(Memory::new())
        .aggregate::<Account>()
        .projection(View)
        .projection(Rows)
        .answer(|OfClosure(mood): OfClosure, _| async move {
            tokio::task::yield_now().await;
            match mood {
                Mood::Fine => Ok("fine"),
                Mood::Panicking => panic!("the closure is in a mood"),
                Mood::Hanging => std::future::pending().await,
            }
        })
}

#[track_caller]
fn panicked<R>(answer: Result<R, QueryError>, name: &str) {
    match answer {
        Err(QueryError::Panicked { query, message }) => {
            assert_eq!(query, name);
            assert!(message.ends_with("in a mood"), "{message}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it answered"),
    }
}

#[tokio::test]
async fn a_panic_in_a_handler_reaches_its_caller_only() {
    let app = builder().start().await.unwrap();
    for _ in 0..10 {
        let mood = Mood::Panicking;
        let (of_view, of_rows, of_closure, fine) = tokio::join!(
            app.query(OfView(mood)).into_future(),
            app.query(OfRows(mood)).into_future(),
            app.query(OfClosure(mood)).into_future(),
            app.query(OfClosure(Mood::Fine)).into_future(),
        );
        panicked(of_view, "OfView");
        panicked(of_rows, "OfRows");
        panicked(of_closure, "OfClosure");
        assert_eq!(fine.unwrap(), "fine");
    }
    // The views are neither locked nor stopped.
    let last = app.send("a", Deposit { cents: 1 }).await.unwrap().position;
    assert_eq!(app.query(OfView(Mood::Fine)).at_least(last).await.unwrap(), "fine");
    assert_eq!(app.query(OfRows(Mood::Fine)).at_least(last).await.unwrap(), "fine");
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_panics_before_it_is_a_future_is_caught_too() {
    #[derive(Query, Clone)]
    #[query(reply = ())]
    struct Sudden;

    let app = App::builder()
        .store(Memory::new())
        .answer(|_: Sudden, _| -> std::future::Ready<_> { panic!("sudden, in a mood") })
        .respond("first", |_: Sudden, _| -> std::future::Ready<_> { panic!("in a mood") })
        .respond("second", |_: Sudden, _| async { Ok(()) })
        .start()
        .await
        .unwrap();
    panicked(app.query(Sudden).await, "Sudden");
    let gathered = app.gather(Sudden).await.unwrap();
    assert_eq!(gathered.replies, [("second", ())]);
    let (name, error) = gathered.failed.into_iter().next().unwrap();
    assert_eq!(name, "first");
    panicked::<()>(Err(error), "Sudden");
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_hangs_is_given_up_when_the_time_is_over() {
    let app = builder().start().await.unwrap();
    for deadline in [Duration::ZERO, Duration::from_millis(50)] {
        let asked = Instant::now();
        let asking = app.query(OfClosure(Mood::Hanging)).within(deadline);
        let answer = soon("the end of the time", asking).await;
        assert!(matches!(
            answer,
            Err(QueryError::TimedOut { query: "OfClosure", waited, view: None }) if waited == deadline
        ));
        assert!(asked.elapsed() >= deadline);
    }
    // What is there already is in time in any case, and five seconds are the default.
    let asking = app.query(OfView(Mood::Fine));
    assert!(format!("{asking:?}").contains("within: 5s"));
    assert_eq!(asking.within(Duration::ZERO).await.unwrap(), "fine");
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_query_on_tables_that_nobody_waits_for_any_more_is_not_begun() {
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    static BLOCKED: AtomicBool = AtomicBool::new(true);

    #[derive(Query)]
    #[query(reply = ())]
    struct Slow;

    struct Slowly;

    #[projection(name = "slowly", version = 1, schema = "CREATE TABLE slowly (cents INTEGER)")]
    impl Slowly {
        #[on]
        fn deposited(&self, _: &Transaction<'_>, _: &Deposited) {}

        #[query]
        fn slow(_: &Connection, _: Slow) {
            HANDLED.fetch_add(1, Ordering::SeqCst);
            while BLOCKED.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
    }

    // On a runtime with one thread for blocking, which the first query keeps to itself.
    let asked = tokio::task::spawn_blocking(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            let app = App::builder().store(Memory::new()).aggregate::<Account>();
            let app = app.projection(Slowly).start().await.unwrap();
            let first = begin(app.query(Slow).into_future()).await;
            until("the first is handled", || HANDLED.load(Ordering::SeqCst) == 1).await;
            let second = app.query(Slow).within(Duration::from_millis(20)).await;
            assert!(matches!(second, Err(QueryError::TimedOut { view: None, .. })));
            BLOCKED.store(false, Ordering::SeqCst);
            soon("the first", first.end()).await.unwrap();
            app.query(Slow).await.unwrap();
            assert_eq!(HANDLED.load(Ordering::SeqCst), 2);
            app.shutdown().await.unwrap();
        });
    });
    asked.await.unwrap();
}

#[tokio::test]
async fn gathering_reports_replies_failures_and_who_was_late_in_the_order_of_registration() {
    let app = builder()
        .respond("late", |_: OfMany, _| std::future::pending())
        .respond("first", |OfMany(mood): OfMany, _| async move {
            assert!(mood == Mood::Fine);
            Ok("first")
        })
        .respond("panicking", |_: OfMany, _| async { panic!("it is in a mood") })
        .respond("failing", |_: OfMany, _| async { Err("no".into()) })
        .respond("second", |_: OfMany, _| async {
            tokio::task::yield_now().await;
            Ok("second")
        })
        .start()
        .await
        .unwrap();
    let gathering = app.gather(OfMany(Mood::Fine)).within(Duration::from_millis(30));
    let gathered = soon("what they say", gathering).await.unwrap();
    assert_eq!(gathered.replies, [("first", "first"), ("second", "second")]);
    assert_eq!(gathered.late, ["late"]);
    assert!(!gathered.is_complete());
    let mut failed = gathered.failed.into_iter();
    let (name, error) = failed.next().unwrap();
    assert_eq!(name, "panicking");
    panicked::<()>(Err(error), "OfMany");
    let (name, error) = failed.next().unwrap();
    assert!(matches!(error, QueryError::Failed { source, .. } if source.to_string() == "no"));
    assert_eq!((name, failed.count()), ("failing", 0));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn those_who_respond_are_asked_all_at_once() {
    // Each waits for the others.
    let barrier = Arc::new(Barrier::new(40));
    let mut builder = builder();
    for number in 0..40 {
        let barrier = Arc::clone(&barrier);
        builder = builder.respond(format!("{number}").leak(), move |_: OfMany, _| {
            let barrier = Arc::clone(&barrier);
            async move {
                barrier.wait().await;
                Ok("here")
            }
        });
    }
    let app = builder.start().await.unwrap();
    let gathered = soon("all of them", app.gather(OfMany(Mood::Fine))).await.unwrap();
    assert!(gathered.is_complete());
    let names: Vec<_> = gathered.replies.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, (0..40).map(|number| number.to_string()).collect::<Vec<_>>());
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_query_whose_clone_panics_spoils_one_reply_at_most() {
    #[derive(Query)]
    #[query(reply = ())]
    struct Fragile(Arc<AtomicUsize>);

    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "the clone is in a mood");
            Self(Arc::clone(&self.0))
        }
    }

    let builder = builder().respond("first", |_: Fragile, _| async { Ok(()) });
    let builder = builder.respond("second", |_: Fragile, _| async { Ok(()) });
    let app = builder.start().await.unwrap();
    let gathered = app.gather(Fragile(Arc::default())).await.unwrap();
    assert_eq!(gathered.failed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["first"]);
    assert_eq!(gathered.replies, [("second", ())]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_query_that_is_dropped_drops_its_handler_where_it_waits() {
    #[derive(Query)]
    #[query(reply = ())]
    struct Waiting;

    let places = Arc::new(Semaphore::new(1));
    let handler_places = Arc::clone(&places);
    let app = App::builder()
        .store(Memory::new())
        .answer(move |_: Waiting, _| {
            let places = Arc::clone(&handler_places);
            async move {
                let _place = places.acquire().await?;
                std::future::pending().await
            }
        })
        .start()
        .await
        .unwrap();
    let asked = begin(app.query(Waiting).into_future()).await;
    assert_eq!(places.available_permits(), 0);
    drop(asked);
    assert_eq!(places.available_permits(), 1);
    app.shutdown().await.unwrap();
}
