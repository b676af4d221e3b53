//! Guarantee 20: effects outside happen at least once, each attempt with the same delivery id, over failures, restarts and crashes.
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
use futures_util::FutureExt;
use outside::*;
use tidings::testing::{Fault, Faulty, Operation};
use tidings::{
    App, ConsumerState, Delivery, DeliveryId, EventStore, Header, Memory, Reactions, Reactor,
    StartError, projection, reactor,
};

/// Tells the outside of each deposit.
struct Teller(Outside);

#[reactor(name = "teller", retry(attempts = 3, first = "1 ms", longest = "1 ms"))]
impl Teller {
    #[on]
    async fn deposited(&self, event: &Deposited, delivery: &Delivery) -> Result<(), Answer> {
        self.0.arrive(event.cents, delivery).await
    }
}

async fn start(store: impl EventStore, outside: &Outside) -> App {
    let builder = App::builder().store(store).aggregate::<Account>();
    builder.reactor(Teller(outside.clone())).start().await.unwrap()
}

/// Deposits so many cents into the account `a`.
async fn deposit(app: &App, cents: impl IntoIterator<Item = i64>) {
    for cents in cents {
        app.send("a", Deposit { cents }).await.unwrap();
    }
}

async fn level(app: &App) {
    until("the reactor is level", || status(app).lag_events == 0).await;
}

#[tokio::test]
async fn each_event_is_delivered_with_an_id_of_its_own() {
    let outside = Outside::default();
    let app = start(Memory::new(), &outside).await;
    deposit(&app, 1..=3).await;
    level(&app).await;
    assert_eq!(outside.done(), [1, 2, 3]);
    for Arrival { delivery, .. } in outside.arrived() {
        assert_eq!(delivery.id, DeliveryId::of("teller", delivery.event_id));
        assert_eq!((delivery.attempt, delivery.is_replay), (1, false));
    }
    let status = status(&app);
    assert_eq!((status.state, status.lag_age), (ConsumerState::Live, Duration::ZERO));
    assert_eq!((status.handled, status.retries, status.letters), (3, 0, 0));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn every_attempt_of_an_event_has_the_same_id() {
    let outside = Outside::default();
    outside.treat(7, Treatment::Fail(2));
    let app = start(Memory::new(), &outside).await;
    deposit(&app, [7]).await;
    until("it is done", || outside.done() == [7]).await;
    let attempts = outside.attempts(7);
    assert_eq!(attempts.iter().map(|delivery| delivery.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(attempts.iter().all(|delivery| delivery.id == attempts[0].id));
    until("no letter is left", || status(&app).letters == 0).await;
    assert_eq!(status(&app).retries, 2);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_restart_goes_on_behind_what_was_handled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let outside = Outside::default();
    let app = start(sqlite(&path), &outside).await;
    deposit(&app, 1..=3).await;
    level(&app).await;
    app.shutdown().await.unwrap();
    drop(app);
    let app = start(sqlite(&path), &outside).await;
    assert_eq!(status(&app).position, app.head());
    deposit(&app, [4]).await;
    level(&app).await;
    assert_eq!(outside.done(), [1, 2, 3, 4]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_waits_for_attempts_that_have_begun_and_begins_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let outside = Outside::default();
    outside.treat(1, Treatment::Hold);
    let app = start(sqlite(&path), &outside).await;
    deposit(&app, 1..=2).await;
    until("the first is held", || outside.inside() == [1]).await;
    let mut end = Box::pin(app.shutdown());
    not_yet("the end", &mut end).await;
    // No command is taken any more, so the reactor has been told as well.
    until("the app is closing", || {
        let sent = app.send("b", Check { cents: 0 }).into_future().now_or_never();
        matches!(sent, Some(Err(_)))
    })
    .await;
    outside.release(1);
    soon("the end", end).await.unwrap();
    assert_eq!(outside.done(), [1]);
    drop(app);
    let app = start(sqlite(&path), &outside).await;
    level(&app).await;
    assert_eq!(outside.done(), [1, 2]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_not_done_before_the_deadline_is_delivered_again_with_the_same_id() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let outside = Outside::default();
    outside.treat(2, Treatment::Hold);
    let app = start(sqlite(&path), &outside).await;
    deposit(&app, 1..=3).await;
    until("the second is held", || outside.inside() == [2]).await;
    let late = app.shutdown_within(Duration::ZERO).await.unwrap_err();
    let said =
        late.problems.iter().any(|problem| problem == "reactor teller was not level in time");
    assert!(said, "{late}");
    assert!(outside.inside().is_empty(), "the attempt was dropped");
    drop(app);
    outside.release(2);
    let app = start(sqlite(&path), &outside).await;
    level(&app).await;
    assert_eq!(outside.done(), [1, 2, 3]);
    let attempts = outside.attempts(2);
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0].id, attempts[1].id);
    app.shutdown().await.unwrap();
}

/// What stands in the files after a crash: everything that was written before.
fn crash(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_in_hand_at_a_crash_is_delivered_again_with_the_same_ids_in_the_order_of_its_key()
{
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let outside = Outside::default();
    outside.treat(1, Treatment::Hold);
    let app = start(sqlite(&path), &outside).await;
    app.send("slow", Deposit { cents: 1 }).await.unwrap();
    deposit(&app, 2..=4).await;
    // All but the first are done; it holds the checkpoint back.
    until("the others are done", || outside.done() == [2, 3, 4]).await;
    assert_eq!(status(&app).position.as_u64(), 0);
    let copy = directory.path().join("after");
    crash(directory.path(), &copy);
    let again = Outside::default();
    let app_again = start(sqlite(copy.join("log.db")), &again).await;
    level(&app_again).await;
    let mut done = again.done();
    assert_eq!(done.iter().filter(|cents| **cents != 1).collect::<Vec<_>>(), [&2, &3, &4]);
    done.sort_unstable();
    assert_eq!(done, [1, 2, 3, 4]);
    for cents in 1..=4 {
        assert_eq!(outside.attempts(cents)[0].id, again.attempts(cents)[0].id);
    }
    app_again.shutdown().await.unwrap();
    outside.release(1);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_read_again() {
    let outside = Outside::default();
    let (store, faults) = Faulty::new(Memory::new());
    let app = start(store, &outside).await;
    faults.fail(Operation::ReadLog, 1, Fault::Failed);
    deposit(&app, 1..=2).await;
    level(&app).await;
    assert_eq!(outside.done(), [1, 2]);
    assert_eq!(status(&app).trouble, None);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn more_events_than_the_window_holds_are_all_delivered() {
    let outside = Outside::default();
    let app = App::builder().store(Memory::new()).aggregate::<Account>().start().await.unwrap();
    app.shutdown().await.unwrap();
    let app = start(Memory::new(), &outside).await;
    outside.treat(0, Treatment::Hold);
    app.send("slow", Deposit { cents: 0 }).await.unwrap();
    app.send("a", DepositAll { parts: (1..=3_000).collect() }).await.unwrap();
    // As many as it may have in hand; the first of them is held.
    until("the window is full", || outside.done().len() == 1_023).await;
    outside.release(0);
    level(&app).await;
    let mut done = outside.done();
    done.retain(|cents| *cents != 0);
    assert_eq!(done, (1..=3_000).collect::<Vec<_>>());
    app.shutdown().await.unwrap();
}

/// Hears of what happens after its first start alone.
struct Newcomer(Outside);

#[reactor(name = "newcomer", start = newest)]
impl Newcomer {
    #[on]
    async fn deposited(&self, event: &Deposited, delivery: &Delivery) -> Result<(), Answer> {
        self.0.arrive(event.cents, delivery).await
    }
}

/// Hears of old deposits, and of new withdrawals.
struct Historian(Outside);

#[reactor(name = "historian")]
impl Historian {
    #[on]
    async fn deposited(&self, event: &Deposited, delivery: &Delivery) -> Result<(), Answer> {
        self.0.arrive(event.cents, delivery).await
    }

    #[on(live_only)]
    async fn withdrawn(&self, event: &Withdrawn, delivery: &Delivery) -> Result<(), Answer> {
        self.0.arrive(-event.cents, delivery).await
    }
}

async fn with_old_events(path: &Path) {
    let app = App::builder().store(sqlite(path)).aggregate::<Account>().start().await.unwrap();
    deposit(&app, [10]).await;
    app.send("a", Withdraw { cents: 1 }).await.unwrap();
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_reactor_may_begin_with_what_comes_after_its_first_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    with_old_events(&path).await;
    let outside = Outside::default();
    let builder = || App::builder().store(sqlite(&path)).aggregate::<Account>();
    let app = builder().reactor(Newcomer(outside.clone())).start().await.unwrap();
    app.shutdown().await.unwrap();
    drop(app);
    // What comes while it is down comes after its first start.
    let app = builder().start().await.unwrap();
    deposit(&app, [11]).await;
    app.shutdown().await.unwrap();
    drop(app);
    let app = builder().reactor(Newcomer(outside.clone())).start().await.unwrap();
    deposit(&app, [12]).await;
    level(&app).await;
    assert_eq!(outside.done(), [11, 12]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_handler_may_leave_out_what_was_in_the_log_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    with_old_events(&path).await;
    let outside = Outside::default();
    let builder = App::builder().store(sqlite(&path)).aggregate::<Account>();
    let app = builder.reactor(Historian(outside.clone())).start().await.unwrap();
    app.send("a", Withdraw { cents: 2 }).await.unwrap();
    deposit(&app, [11]).await;
    level(&app).await;
    assert_eq!(outside.done(), [10, -2, 11]);
    let replays = outside.arrived().into_iter().map(|arrival| arrival.delivery.is_replay);
    assert_eq!(replays.collect::<Vec<_>>(), [true, false, false]);
    app.shutdown().await.unwrap();
}

/// Handlers with as much as they need.
struct Modest(Outside);

#[reactor(name = "modest")]
impl Modest {
    #[on]
    async fn deposited(&self, event: &Deposited) {
        self.0.treat(event.cents, Treatment::Refuse);
    }

    #[on]
    async fn withdrawn(&self, event: &Withdrawn, header: &Header) {
        assert_eq!(header.name, "account.withdrawn");
        self.0.treat(-event.cents, Treatment::Refuse);
    }
}

#[tokio::test]
async fn a_handler_may_take_the_event_alone_or_with_its_header() {
    let outside = Outside::default();
    let builder = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = builder.reactor(Modest(outside.clone())).start().await.unwrap();
    deposit(&app, [5]).await;
    app.send("a", Withdraw { cents: 3 }).await.unwrap();
    level(&app).await;
    assert_eq!(status(&app).letters, 0);
    app.shutdown().await.unwrap();
}

struct Silent;

impl Reactor for Silent {
    const NAME: &'static str = "silent";
    fn handlers(_: &mut Reactions<Self>) {}
}

struct Repeating;

impl Reactor for Repeating {
    const NAME: &'static str = "repeating";
    fn handlers(handlers: &mut Reactions<Self>) {
        handlers.on(|_: &Self, _: &Deposited, _: &Delivery| Box::pin(async {}));
        handlers.on(|_: &Self, _: &Deposited, _: &Delivery| Box::pin(async {}));
    }
}

struct Forgetful;

impl Reactor for Forgetful {
    const NAME: &'static str = "forgetful";
    fn handlers(handlers: &mut Reactions<Self>) {
        handlers.on(|_: &Self, _: &Deposited, _: &Delivery| Box::pin(async {}));
        handlers.live_only::<Withdrawn>();
    }
}

#[derive(Default)]
struct Namesake;

#[projection(name = "teller")]
impl Namesake {
    #[on]
    fn deposited(&mut self, _: &Deposited) {}
}

#[tokio::test]
async fn an_app_with_a_reactor_that_does_not_fit_says_why_and_has_no_effects() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    with_old_events(&path).await;
    let outside = Outside::default();
    let builder = || App::builder().store(Memory::new()).aggregate::<Account>();
    let error = builder().reactor(Silent).start().await.unwrap_err();
    assert!(matches!(error, StartError::ReactorNoHandlers("silent")), "{error}");
    let error = builder().reactor(Repeating).start().await.unwrap_err();
    let expected = "reactor \"repeating\" has two handlers for event \"account.deposited\": merge them into one";
    assert_eq!(error.to_string(), expected);
    let error = builder().reactor(Forgetful).start().await.unwrap_err();
    assert!(matches!(error, StartError::ReactorUnhandled { event: "account.withdrawn", .. }));
    let teller = || Teller(outside.clone());
    let error = builder().projection(Namesake).reactor(teller()).start().await.unwrap_err();
    assert!(matches!(error, StartError::ConsumerTwice("teller")), "{error}");
    let twice = App::builder().store(sqlite(&path)).aggregate::<Account>();
    let error = twice.reactor(teller()).reactor(teller()).start().await.unwrap_err();
    assert!(matches!(error, StartError::ConsumerTwice("teller")), "{error}");
    assert!(outside.arrived().is_empty(), "what the log held was not handled");
}

#[tokio::test]
async fn the_map_shows_a_reactor_and_what_it_hears() {
    let outside = Outside::default();
    let app = start(Memory::new(), &outside).await;
    let map = app.map();
    let teller = map.components.iter().find(|component| component.name == "teller").unwrap();
    assert_eq!(teller.kind, tidings::ComponentKind::Reactor);
    assert_eq!(teller.hears[0].events, ["account.deposited"]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn events_of_a_restored_log_are_not_taken_for_those_that_were_there_before() {
    let directory = tempfile::tempdir().unwrap();
    let (path, backup) = (directory.path().join("log.db"), directory.path().join("backup"));
    let app = App::builder().store(sqlite(&path)).aggregate::<Account>().start().await.unwrap();
    deposit(&app, [1]).await;
    app.shutdown().await.unwrap();
    drop(app);
    std::fs::copy(&path, &backup).unwrap();
    let outside = Outside::default();
    let builder = || App::builder().store(sqlite(&path)).aggregate::<Account>();
    let app = builder().start().await.unwrap();
    deposit(&app, [2, 3, 4]).await;
    app.shutdown().await.unwrap();
    drop(app);
    // The reactor begins behind these events.
    let app = builder().reactor(Newcomer(outside.clone())).start().await.unwrap();
    app.shutdown().await.unwrap();
    drop(app);
    std::fs::copy(&backup, &path).unwrap();
    let app = builder().reactor(Newcomer(outside.clone())).start().await.unwrap();
    deposit(&app, [5, 6]).await;
    level(&app).await;
    assert_eq!(outside.done(), [5, 6]);
    assert!(outside.arrived().iter().all(|arrival| !arrival.delivery.is_replay));
    app.shutdown().await.unwrap();
}
