//! Guarantee 23, its second half: while a view is rebuilt the old one keeps serving and keeps up, whatever becomes of the rebuild;
//! and no reader sees an empty view, half of one, or an earlier one.
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

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bank::*;
use book::*;
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::testing::{Fault, Faults, Faulty, Operation};
use tidings::{
    App, ConsumerState, ConsumerStatus, EventStore, FailurePolicy, Handlers, Header, InMemory,
    LetterError, Memory, OnFailure, Position, Projection, RebuildError, Retry, Tables, Trouble,
    ViewError,
};

/// An app with both kinds of views over a log that obeys.
async fn both() -> (App, Faults) {
    let (store, faults) = Faulty::new(Memory::new());
    let app = App::builder()
        .store(store)
        .aggregate::<Account>()
        .projection(Balances::default())
        .projection(Passbook::<1>)
        .start()
        .await
        .unwrap();
    (app, faults)
}

async fn deposits(app: &App, amounts: std::ops::Range<i64>) {
    for cents in amounts {
        app.send((cents % 3).to_string(), Deposit { cents }).await.unwrap();
    }
}

async fn in_memory(app: &App) -> Balances {
    app.view::<Balances>().at_least(app.head()).await.unwrap().clone()
}

/// Both views at the head are what a naive fold of the log is.
#[track_caller]
fn assert_right(app: &App, views: [Balances; 2]) {
    let right = Balances::of_log(app.store());
    for view in views {
        assert_eq!(view, right);
    }
}

async fn check(app: &App) {
    assert_right(app, [in_memory(app).await, level::<1>(app).await]);
}

fn status(app: &App, name: &str) -> ConsumerStatus {
    let consumers = app.status().consumers;
    consumers.into_iter().find(|consumer| consumer.name == name).unwrap()
}

fn versions(connection: &Connection) -> rusqlite::Result<Vec<u32>> {
    connection
        .prepare("SELECT DISTINCT version FROM book_seen ORDER BY version")?
        .query_map([], |row| row.get(0))?
        .collect()
}

async fn settled(app: &App, name: &'static str) {
    until("it is live", || status(app, name).state == ConsumerState::Live).await;
}

#[tokio::test]
async fn the_old_views_are_read_and_go_on_while_the_new_ones_are_built() {
    let (app, faults) = both().await;
    deposits(&app, 0..50).await;
    check(&app).await;
    let mut gate = faults.hold(Operation::ReadLog);
    let mut memory = app.rebuild::<Balances>().begin();
    let mut tables = app.rebuild_with(Passbook::<1>).begin();
    soon("both rebuilds to read the log", gate.reached(2)).await;
    for round in 0..10 {
        deposits(&app, 50 + round * 10..60 + round * 10).await;
        // The log is held: the views are compared with what was sent.
        for view in [in_memory(&app).await, level::<1>(&app).await] {
            assert_eq!(view.seen.len() as i64, 60 + round * 10);
            assert_eq!(view.of.values().sum::<i64>(), sum(&view));
        }
    }
    for name in ["balances", "book"] {
        let status = status(&app, name);
        assert_eq!((status.state, status.lag_events), (ConsumerState::Live, 0));
        assert_eq!(status.rebuild.unwrap().position, Position::START);
    }
    not_yet("the rebuild in memory", &mut memory).await;
    not_yet("the rebuild in tables", &mut tables).await;
    gate.open();
    let memory = soon("the rebuild in memory", memory).await.unwrap();
    let tables = soon("the rebuild in tables", tables).await.unwrap();
    for rebuilt in [memory, tables] {
        assert_eq!((rebuilt.position, rebuilt.passed), (app.head(), 150));
    }
    check(&app).await;
    deposits(&app, 150..170).await;
    check(&app).await;
    assert!(app.status().consumers.iter().all(|consumer| consumer.rebuild.is_none()));
    app.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_never_sees_an_empty_half_or_earlier_view() {
    let (app, _) = both().await;
    deposits(&app, 0..3_000).await;
    check(&app).await;
    let ended = Arc::new(AtomicBool::new(false));
    let (reading, over) = (app.clone(), Arc::clone(&ended));
    let reader = tokio::spawn(async move {
        let (mut memory, mut tables, mut reads) = (3_000, 3_000, 0);
        while !over.load(Ordering::Relaxed) {
            let seen = reading.view::<Balances>().read().seen.len();
            assert!(seen >= memory, "{seen} after {memory} in memory");
            memory = seen;
            let reader = reading.view::<Passbook<1>>().read();
            let seen = reader.query(view).await.unwrap();
            assert!(seen.seen.len() >= tables, "{} after {tables} in tables", seen.seen.len());
            assert_eq!(seen.of.values().sum::<i64>(), sum(&seen));
            tables = seen.seen.len();
            reads += 1;
            tokio::task::yield_now().await;
        }
        reads
    });
    let (writing, over) = (app.clone(), Arc::clone(&ended));
    let writer = tokio::spawn(async move {
        let mut cents = 3_000;
        while !over.load(Ordering::Relaxed) {
            deposits(&writing, cents..cents + 10).await;
            cents += 10;
        }
    });
    for _ in 0..3 {
        soon("a rebuild in memory", app.rebuild::<Balances>()).await.unwrap();
        soon("a rebuild in tables", app.rebuild_with(Passbook::<1>)).await.unwrap();
    }
    ended.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    assert!(reader.await.unwrap() > 0);
    check(&app).await;
    app.shutdown().await.unwrap();
}

/// What the balances of a view come to by the events that it has seen: the event at position n deposits n - 1 cents.
fn sum(seen: &Balances) -> i64 {
    seen.seen.iter().map(|position| *position as i64 - 1).sum()
}

#[tokio::test]
async fn cancelled_it_leaves_the_old_view_and_can_begin_again() {
    let (app, faults) = both().await;
    deposits(&app, 0..20).await;
    check(&app).await;
    let mut gate = faults.hold(Operation::ReadLog);
    let memory = app.rebuild::<Balances>().begin();
    let tables = app.rebuild_with(Passbook::<1>).begin();
    soon("both rebuilds to read the log", gate.reached(2)).await;
    memory.cancel();
    assert!(app.cancel_rebuild::<Passbook<1>>());
    assert!(matches!(soon("the end", memory).await, Err(RebuildError::Cancelled("balances"))));
    assert!(matches!(soon("the end", tables).await, Err(RebuildError::Cancelled("book"))));
    assert!(!app.cancel_rebuild::<Passbook<1>>());
    gate.open();
    deposits(&app, 20..30).await;
    check(&app).await;
    soon("a rebuild in memory", app.rebuild::<Balances>()).await.unwrap();
    soon("a rebuild in tables", app.rebuild_with(Passbook::<1>)).await.unwrap();
    check(&app).await;
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_second_rebuild_at_once_is_refused() {
    let (app, faults) = both().await;
    deposits(&app, 0..5).await;
    check(&app).await;
    let mut gate = faults.hold(Operation::ReadLog);
    let first = app.rebuild_with(Passbook::<1>).begin();
    soon("the rebuild to read the log", gate.reached(1)).await;
    let second = app.rebuild_with(Passbook::<1>).await;
    assert!(matches!(second, Err(RebuildError::Busy("book"))));
    // Dropped, it goes on.
    drop(first);
    gate.open();
    until("it has ended", || status(&app, "book").rebuild.is_none()).await;
    soon("another rebuild", app.rebuild_with(Passbook::<1>)).await.unwrap();
    app.shutdown().await.unwrap();
    assert!(matches!(app.rebuild_with(Passbook::<1>).await, Err(RebuildError::Ended("book"))));
    assert!(matches!(app.rebuild_with(Cursed).await, Err(RebuildError::Unknown("cursed"))));
}

#[tokio::test]
async fn a_shutdown_ends_it_in_time() {
    let (app, faults) = both().await;
    deposits(&app, 0..20).await;
    check(&app).await;
    let mut gate = faults.hold(Operation::ReadLog);
    let memory = app.rebuild::<Balances>().begin();
    let tables = app.rebuild_with(Passbook::<1>).begin();
    soon("both rebuilds to read the log", gate.reached(2)).await;
    let ending = begin(app.shutdown()).await;
    // Not by going to their end: that needs the log.
    assert!(matches!(soon("the end", memory).await, Err(RebuildError::Ended("balances"))));
    assert!(matches!(soon("the end", tables).await, Err(RebuildError::Ended("book"))));
    gate.open();
    soon("the app to end", ending.end()).await.unwrap();
}

#[tokio::test]
async fn a_log_that_cannot_be_read_for_a_while_delays_it_only() {
    let (app, faults) = both().await;
    deposits(&app, 0..20).await;
    check(&app).await;
    faults.fail(Operation::ReadLog, 1, Fault::Failed);
    soon("a rebuild in tables", app.rebuild_with(Passbook::<1>)).await.unwrap();
    assert!(faults.count(Operation::ReadLog) >= 2);
    check(&app).await;
    app.shutdown().await.unwrap();
}

fn beside(log: &Path, name: &str) -> PathBuf {
    log.with_file_name(format!("log.views.db.book.{name}"))
}

#[tokio::test]
async fn what_a_crash_left_of_it_is_thrown_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = start::<1>(&path).await;
    deposits(&app, 0..20).await;
    let before = level::<1>(&app).await;
    app.shutdown().await.unwrap();
    drop(app);
    for end in ["", "-journal"] {
        let file = beside(&path, &format!("shadow{end}"));
        std::fs::write(file, b"half of a page").unwrap();
    }
    let app = start::<1>(&path).await;
    assert!(!beside(&path, "shadow").exists() && !beside(&path, "shadow-journal").exists());
    assert_eq!(level::<1>(&app).await, before);
    soon("a rebuild", app.rebuild_with(Passbook::<1>)).await.unwrap();
    assert!(!beside(&path, "shadow").exists());
    assert_eq!(level::<1>(&app).await, before);
    app.shutdown().await.unwrap();
    drop(app);
    // The switch lasts.
    let app = start::<1>(&path).await;
    assert_eq!(level::<1>(&app).await, before);
    app.shutdown().await.unwrap();
}

/// Adds each amount as often as it was told when it was made.
#[derive(Default)]
struct Tilted {
    times: i64,
    cents: i64,
}

impl Projection for Tilted {
    const NAME: &'static str = "tilted";
    const VERSION: u32 = 1;
    type Storage = InMemory;

    fn handlers(handlers: &mut Handlers<Self, InMemory>) {
        handlers.on(|view: &mut Self, event: &Deposited, _: &Header| {
            view.cents += event.cents * view.times
        });
    }
}

/// The same in a table.
#[derive(Default)]
struct TiltedTable {
    times: i64,
}

impl Projection for TiltedTable {
    const NAME: &'static str = "tilted_table";
    const VERSION: u32 = 1;
    type Storage = Tables;

    fn handlers(handlers: &mut Handlers<Self, Tables>) {
        handlers.schema("CREATE TABLE tilted (cents INTEGER); INSERT INTO tilted VALUES (0);").on(
            |view: &Self, tx: &Transaction<'_>, event: &Deposited, _: &Header| {
                tx.execute("UPDATE tilted SET cents = cents + ?1", [event.cents * view.times])
            },
        );
    }
}

/// The sums in memory and in the table, level with the log.
async fn sums(app: &App) -> (i64, i64) {
    let memory = app.view::<Tilted>().at_least(app.head()).await.unwrap().cents;
    let tables = app.view::<TiltedTable>().at_least(app.head()).await.unwrap();
    let sum = |db: &Connection| db.query_row("SELECT cents FROM tilted", [], |row| row.get(0));
    (memory, tables.query(sum).await.unwrap())
}

#[tokio::test]
async fn the_old_view_can_be_kept_and_comes_back_level() {
    for on_disk in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.db");
        let builder = App::builder();
        let builder = match on_disk {
            true => builder.store(sqlite(&path)),
            false => builder.store(Memory::new()),
        };
        let app = builder
            .aggregate::<Account>()
            .projection(Tilted { times: 1, cents: 0 })
            .projection(TiltedTable { times: 1 })
            .start()
            .await
            .unwrap();
        app.send("1", Deposit { cents: 5 }).await.unwrap();
        assert_eq!(sums(&app).await, (5, 5));
        assert!(matches!(
            app.switch_back::<Tilted>().await,
            Err(RebuildError::NothingKept("tilted"))
        ));
        assert!(matches!(
            app.switch_back::<TiltedTable>().await,
            Err(RebuildError::NothingKept("tilted_table"))
        ));
        let thrice = Tilted { times: 3, cents: 0 };
        soon("a rebuild", app.rebuild_with(thrice).keep_old()).await.unwrap();
        soon("a rebuild", app.rebuild_with(TiltedTable { times: 3 }).keep_old()).await.unwrap();
        assert_eq!(sums(&app).await, (15, 15));
        app.send("2", Deposit { cents: 10 }).await.unwrap();
        assert_eq!(sums(&app).await, (45, 45));
        // Back they catch up with what they have not seen, and with that alone.
        let back = soon("the switch", app.switch_back::<Tilted>().keep_old()).await.unwrap();
        assert_eq!((back.position, back.passed), (Position::new(2), 1));
        soon("the switch", app.switch_back::<TiltedTable>().keep_old()).await.unwrap();
        assert_eq!(sums(&app).await, (15, 15));
        app.send("1", Deposit { cents: 1 }).await.unwrap();
        assert_eq!(sums(&app).await, (16, 16));
        // And there again.
        soon("the switch", app.switch_back::<Tilted>()).await.unwrap();
        assert_eq!(sums(&app).await.0, 48);
        assert!(!app.drop_kept::<Tilted>());
        assert!(app.drop_kept::<TiltedTable>());
        assert!(!app.drop_kept::<TiltedTable>());
        assert!(matches!(
            app.switch_back::<TiltedTable>().await,
            Err(RebuildError::NothingKept("tilted_table"))
        ));
        app.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_kept_view_that_was_not_switched_back_is_still_kept() {
    let (store, faults) = Faulty::new(Memory::new());
    let tilted = Tilted { times: 1, cents: 0 };
    let app = App::builder().store(store).aggregate::<Account>().projection(tilted).start().await;
    let app = app.unwrap();
    app.send("1", Deposit { cents: 5 }).await.unwrap();
    app.view::<Tilted>().at_least(app.head()).await.unwrap();
    soon("a rebuild", app.rebuild_with(Tilted { times: 3, cents: 0 }).keep_old()).await.unwrap();
    app.send("1", Deposit { cents: 5 }).await.unwrap();
    let mut gate = faults.hold(Operation::ReadLog);
    let back = app.switch_back::<Tilted>().begin();
    // It is near enough to be handed over at once, and is brought level there.
    soon("the log to be read", gate.reached(1)).await;
    back.cancel();
    gate.open();
    assert!(matches!(soon("the end", back).await, Err(RebuildError::Cancelled("tilted"))));
    assert_eq!(app.view::<Tilted>().at_least(app.head()).await.unwrap().cents, 30);
    soon("the switch", app.switch_back::<Tilted>()).await.unwrap();
    assert_eq!(app.view::<Tilted>().read().cents, 10);
    app.shutdown().await.unwrap();
}

/// An app that keeps the book of this version, whose log can be held.
async fn start_held<const VERSION: u32>(path: &Path) -> (App, tidings::testing::Gate) {
    let (store, faults) = Faulty::new(sqlite(path));
    let gate = faults.hold(Operation::ReadLog);
    // When it starts it reads the newest event and the oldest.
    gate.let_through(2);
    let app = App::builder()
        .store(store)
        .aggregate::<Account>()
        .projection(Passbook::<VERSION>)
        .keep_old_views()
        .start()
        .await
        .unwrap();
    (app, gate)
}

#[tokio::test]
async fn a_raised_version_is_built_while_the_old_one_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = start::<1>(&path).await;
    deposits(&app, 0..20).await;
    let old = level::<1>(&app).await;
    app.shutdown().await.unwrap();
    drop(app);
    let (app, mut gate) = start_held::<2>(&path).await;
    soon("the rebuild to read the log", gate.reached(1)).await;
    let reader = app.view::<Passbook<2>>().read();
    assert_eq!(reader.query(view).await.unwrap(), old);
    assert_eq!(reader.query(versions).await.unwrap(), [1]);
    assert_eq!(status(&app, "book").state, ConsumerState::Rebuilding);
    assert_eq!(status(&app, "book").rebuild.unwrap().head.as_u64(), 20);
    // The old one goes no further, and nobody is told that it has.
    deposits(&app, 20..25).await;
    let view = app.view::<Passbook<2>>();
    let waited = view.at_least(app.head()).timeout(Duration::from_millis(20)).await;
    assert!(matches!(waited, Err(ViewError::TimedOut { reached, .. }) if reached.as_u64() == 20));
    gate.open();
    settled(&app, "book").await;
    assert_eq!(level::<2>(&app).await, Balances::of_log(app.store()));
    let reader = app.view::<Passbook<2>>().read();
    assert_eq!(reader.query(versions).await.unwrap(), [2]);
    assert_eq!(status(&app, "book").rebuild, None);
    app.shutdown().await.unwrap();
    drop(app);
    // The program of the earlier version comes back: its view was kept, and has to catch up only.
    let (app, mut gate) = start_held::<1>(&path).await;
    soon("the rebuild to read the log", gate.reached(1)).await;
    let progress = status(&app, "book").rebuild.unwrap();
    assert_eq!((progress.position.as_u64(), progress.head.as_u64()), (20, 25));
    gate.open();
    settled(&app, "book").await;
    assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_raised_version_whose_rebuild_was_cut_off_begins_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = start::<1>(&path).await;
    deposits(&app, 0..20).await;
    let old = level::<1>(&app).await;
    app.shutdown().await.unwrap();
    drop(app);
    let (app, mut gate) = start_held::<2>(&path).await;
    soon("the rebuild to read the log", gate.reached(1)).await;
    let ending = begin(app.shutdown()).await;
    until("it is given up", || status(&app, "book").rebuild.is_none()).await;
    gate.open();
    soon("the app to end", ending.end()).await.unwrap();
    drop(app);
    let (app, gate) = start_held::<2>(&path).await;
    assert_eq!(app.view::<Passbook<2>>().read().query(view).await.unwrap(), old);
    assert!(app.cancel_rebuild::<Passbook<2>>());
    until("it stands still", || status(&app, "book").state == ConsumerState::Stopped).await;
    assert_eq!(app.view::<Passbook<2>>().read().query(versions).await.unwrap(), [1]);
    gate.open();
    soon("a rebuild by hand", app.rebuild_with(Passbook::<2>)).await.unwrap();
    assert_eq!(app.view::<Passbook<2>>().read().query(versions).await.unwrap(), [2]);
    settled(&app, "book").await;
    deposits(&app, 20..25).await;
    assert_eq!(level::<2>(&app).await, Balances::of_log(app.store()));
    app.shutdown().await.unwrap();
}

/// What a projection cannot fold, in which of its folds.
#[derive(Clone, Default)]
struct Curse(Arc<Mutex<BTreeSet<i64>>>);

impl Curse {
    fn lay(&self, cents: i64) {
        self.0.lock().unwrap().insert(cents);
    }

    fn lift(&self) {
        self.0.lock().unwrap().clear();
    }

    fn check(&self, cents: i64) -> Result<(), Box<dyn Error + Send + Sync>> {
        match self.0.lock().unwrap().contains(&cents) {
            true => Err(format!("{cents} cents are cursed").into()),
            false => Ok(()),
        }
    }
}

/// Stops at what it cannot fold.
#[derive(Default)]
struct Strict {
    curse: Curse,
    cents: i64,
}

impl Projection for Strict {
    const NAME: &'static str = "strict";
    const VERSION: u32 = 1;
    type Storage = InMemory;

    fn handlers(handlers: &mut Handlers<Self, InMemory>) {
        handlers.on(|view: &mut Self, event: &Deposited, _: &Header| {
            view.curse.check(event.cents)?;
            view.cents += event.cents;
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        });
    }

    fn failures() -> FailurePolicy {
        FailurePolicy { on_failure: OnFailure::Stop, ..FailurePolicy::default() }
    }
}

#[tokio::test]
async fn an_event_that_it_may_not_pass_ends_it_and_the_old_view_stays() {
    let curse = Curse::default();
    let app = App::builder()
        .store(Memory::new())
        .aggregate::<Account>()
        .projection(Strict::default())
        .start()
        .await
        .unwrap();
    for cents in [1, 2, 3] {
        app.send("1", Deposit { cents }).await.unwrap();
    }
    app.view::<Strict>().at_least(app.head()).await.unwrap();
    curse.lay(2);
    let ended = app.rebuild_with(Strict { curse, cents: 0 }).await;
    let Err(RebuildError::Stopped { name: "strict", position, trouble }) = ended else {
        panic!("{ended:?}");
    };
    assert_eq!(position, Position::new(1));
    assert!(
        matches!(&*trouble, Trouble::Handler { position, .. } if *position == Position::new(2))
    );
    app.send("1", Deposit { cents: 4 }).await.unwrap();
    assert_eq!(app.view::<Strict>().at_least(app.head()).await.unwrap().cents, 10);
    assert_eq!(status(&app, "strict").state, ConsumerState::Live);
    app.shutdown().await.unwrap();
}

/// Part of no app here.
struct Cursed;

/// What [`Greets`] is told, and tells.
#[derive(Clone)]
struct Greeter {
    curse: Curse,
    greeted: Arc<Mutex<Vec<u64>>>,
}

impl Projection for Cursed {
    const NAME: &'static str = "cursed";
    const VERSION: u32 = 1;
    type Storage = Tables;

    fn handlers(handlers: &mut Handlers<Self, Tables>) {
        handlers.schema("CREATE TABLE cursed (cents INTEGER PRIMARY KEY)").on(
            |_: &Self, tx: &Transaction<'_>, event: &Deposited, _: &Header| {
                tx.execute("INSERT INTO cursed VALUES (?1)", [event.cents])
            },
        );
    }
}

/// Notes deposits in a table, and greets those who withdraw, live only. Parks what it cannot handle.
struct Greets<const VERSION: u32>(Greeter);

impl<const VERSION: u32> Projection for Greets<VERSION> {
    const NAME: &'static str = "greets";
    const VERSION: u32 = VERSION;
    type Storage = Tables;

    fn handlers(handlers: &mut Handlers<Self, Tables>) {
        handlers
            .schema("CREATE TABLE greets (position INTEGER PRIMARY KEY, cents INTEGER)")
            .on(|view: &Self, tx: &Transaction<'_>, event: &Deposited, header: &Header| {
                view.0.curse.check(event.cents)?;
                let row = (header.position.as_u64() as i64, event.cents);
                tx.execute("INSERT INTO greets VALUES (?1, ?2)", row)?;
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            })
            .on(|view: &Self, _: &Transaction<'_>, event: &Withdrawn, header: &Header| {
                view.0.curse.check(-event.cents)?;
                view.0.greeted.lock().unwrap().push(header.position.as_u64());
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            })
            .live_only::<Withdrawn>();
    }

    fn failures() -> FailurePolicy {
        FailurePolicy { retry: Retry::NEVER, max_parked_keys: 2, ..FailurePolicy::default() }
    }
}

impl Greeter {
    fn new() -> Self {
        Self { curse: Curse::default(), greeted: Arc::default() }
    }

    fn greeted(&self) -> Vec<u64> {
        self.greeted.lock().unwrap().clone()
    }
}

async fn greets<const VERSION: u32>(store: impl EventStore, greeter: &Greeter) -> App {
    let greets = Greets::<VERSION>(greeter.clone());
    App::builder().store(store).aggregate::<Account>().projection(greets).start().await.unwrap()
}

/// The deposits that the table holds, level with the log.
async fn noted<const VERSION: u32>(app: &App) -> Vec<i64> {
    let reader = app.view::<Greets<VERSION>>().at_least(app.head()).await.unwrap();
    let rows = |db: &Connection| {
        db.prepare("SELECT cents FROM greets ORDER BY position")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<Vec<_>, _>>()
    };
    reader.query(rows).await.unwrap()
}

async fn withdraw(app: &App, id: &str, cents: i64) {
    app.send(id, Withdraw { cents }).await.unwrap();
}

#[tokio::test]
async fn live_only_handlers_run_once_for_each_event_whatever_is_rebuilt() {
    let greeter = Greeter::new();
    let (store, faults) = Faulty::new(Memory::new());
    let app = greets::<1>(store, &greeter).await;
    app.send("1", Deposit { cents: 100 }).await.unwrap();
    withdraw(&app, "1", 1).await;
    noted::<1>(&app).await;
    let mut gate = faults.hold(Operation::ReadLog);
    let rebuild = app.rebuild_with(Greets::<1>(greeter.clone())).begin();
    soon("the rebuild to read the log", gate.reached(1)).await;
    // The view that serves runs them meanwhile.
    withdraw(&app, "1", 2).await;
    noted::<1>(&app).await;
    assert_eq!(greeter.greeted(), [2, 3]);
    gate.open();
    soon("the rebuild", rebuild).await.unwrap();
    assert_eq!(greeter.greeted(), [2, 3]);
    withdraw(&app, "1", 3).await;
    noted::<1>(&app).await;
    assert_eq!(greeter.greeted(), [2, 3, 4]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_a_live_only_handler_failed_at_stays_parked() {
    let greeter = Greeter::new();
    let app = greets::<1>(Memory::new(), &greeter).await;
    app.send("1", Deposit { cents: 100 }).await.unwrap();
    greeter.curse.lay(-7);
    withdraw(&app, "1", 7).await;
    app.send("1", Deposit { cents: 50 }).await.unwrap();
    app.send("2", Deposit { cents: 60 }).await.unwrap();
    assert_eq!(noted::<1>(&app).await, [100, 60]);
    soon("the rebuild", app.rebuild_with(Greets::<1>(greeter.clone()))).await.unwrap();
    // Nothing waits for it that the rebuilt view has folded.
    assert_eq!(noted::<1>(&app).await, [100, 50, 60]);
    let letters = app.letters().of("greets").unwrap();
    let positions: Vec<_> = letters.list().iter().map(|letter| letter.position.as_u64()).collect();
    assert_eq!(positions, [2]);
    greeter.curse.lift();
    assert_eq!(letters.retry(Position::new(2)).await.unwrap().handled, 1);
    assert_eq!(greeter.greeted(), [2]);
    assert!(app.letters().is_empty());
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_raised_version_handles_live_only_what_nobody_has_handled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let greeter = Greeter::new();
    let app = greets::<1>(sqlite(&path), &greeter).await;
    app.send("1", Deposit { cents: 100 }).await.unwrap();
    withdraw(&app, "1", 1).await;
    noted::<1>(&app).await;
    app.shutdown().await.unwrap();
    drop(app);
    // Without the projection: nobody greets.
    let app = App::builder().store(sqlite(&path)).aggregate::<Account>().start().await.unwrap();
    withdraw(&app, "1", 2).await;
    app.shutdown().await.unwrap();
    drop(app);
    let app = greets::<2>(sqlite(&path), &greeter).await;
    settled(&app, "greets").await;
    withdraw(&app, "1", 3).await;
    assert_eq!(noted::<2>(&app).await, [100]);
    assert_eq!(greeter.greeted(), [2, 3, 4]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn its_letters_take_the_place_of_the_old_ones() {
    let greeter = Greeter::new();
    let app = greets::<1>(Memory::new(), &greeter).await;
    greeter.curse.lay(10);
    greeter.curse.lay(20);
    for (id, cents) in [("1", 10), ("1", 11), ("2", 20), ("2", 21), ("3", 30)] {
        app.send(id, Deposit { cents }).await.unwrap();
    }
    assert_eq!(noted::<1>(&app).await, [30]);
    // What was decided stays decided.
    let letters = app.letters().of("greets").unwrap();
    letters.discard(Position::new(1), "no such account").await.unwrap();
    assert_eq!(noted::<1>(&app).await, [11, 30]);
    greeter.curse.lift();
    soon("the rebuild", app.rebuild_with(Greets::<1>(greeter.clone()))).await.unwrap();
    assert_eq!(noted::<1>(&app).await, [11, 20, 21, 30]);
    assert!(letters.list().is_empty());
    assert_eq!(letters.resolutions().len(), 1);
    // What fails in the rebuild is parked with it.
    greeter.curse.lay(20);
    soon("the rebuild", app.rebuild_with(Greets::<1>(greeter.clone()))).await.unwrap();
    assert_eq!(noted::<1>(&app).await, [11, 30]);
    let positions: Vec<_> = letters.list().iter().map(|letter| letter.position.as_u64()).collect();
    assert_eq!(positions, [3, 4]);
    greeter.curse.lift();
    assert_eq!(letters.retry(Position::new(3)).await.unwrap().handled, 2);
    assert_eq!(noted::<1>(&app).await, [11, 20, 21, 30]);
    // And what is decided later holds for the view that is there.
    greeter.curse.lay(11);
    greeter.curse.lay(20);
    greeter.curse.lay(30);
    let ended = app.rebuild_with(Greets::<1>(greeter.clone())).await;
    assert!(matches!(
        ended,
        Err(RebuildError::Stopped { ref trouble, .. })
            if matches!(**trouble, Trouble::TooManyParked { keys: 2, .. })
    ));
    assert_eq!(noted::<1>(&app).await, [11, 20, 21, 30]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_decision_made_meanwhile_is_carried_over() {
    let greeter = Greeter::new();
    let (store, faults) = Faulty::new(Memory::new());
    let app = greets::<1>(store, &greeter).await;
    greeter.curse.lay(10);
    for (id, cents) in [("1", 10), ("1", 11), ("2", 20)] {
        app.send(id, Deposit { cents }).await.unwrap();
    }
    assert_eq!(noted::<1>(&app).await, [20]);
    let letters = app.letters().of("greets").unwrap();
    let mut gate = faults.hold(Operation::ReadLog);
    let rebuild = app.rebuild_with(Greets::<1>(greeter.clone())).begin();
    soon("the rebuild to read the log", gate.reached(1)).await;
    // The rebuild has looked at the letters before it began to read; the order needs the log, too.
    let discard = begin(letters.discard(Position::new(1), "no such account")).await;
    gate.open();
    soon("the rebuild", rebuild).await.unwrap();
    soon("the discard", discard.end()).await.unwrap();
    assert_eq!(noted::<1>(&app).await, [11, 20]);
    assert!(letters.list().is_empty());
    assert_eq!(letters.resolutions().len(), 1);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_outdated_view_takes_no_orders_about_letters() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let greeter = Greeter::new();
    let app = greets::<1>(sqlite(&path), &greeter).await;
    greeter.curse.lay(10);
    app.send("1", Deposit { cents: 10 }).await.unwrap();
    noted::<1>(&app).await;
    app.shutdown().await.unwrap();
    drop(app);
    let (store, faults) = Faulty::new(sqlite(&path));
    let mut gate = faults.hold(Operation::ReadLog);
    gate.let_through(2);
    let app = greets::<2>(store, &greeter).await;
    soon("the rebuild to read the log", gate.reached(1)).await;
    let refused = app.letters().of("greets").unwrap().retry(Position::new(1)).await;
    assert!(matches!(refused, Err(LetterError::NotReached { consumer: "greets", .. })));
    gate.open();
    settled(&app, "greets").await;
    greeter.curse.lift();
    app.letters().of("greets").unwrap().retry(Position::new(1)).await.unwrap();
    assert_eq!(noted::<2>(&app).await, [10]);
    app.shutdown().await.unwrap();
}
