//! A shutdown answers what was taken, refuses what comes later, and joins every thread; so does dropping the app.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(target_os = "linux")]

#[path = "support/bank.rs"]
mod bank;

use std::process::Command;
use std::time::Duration;

use bank::*;
use tidings::testing::{Faulty, Operation};
use tidings::{App, AppBuilder, Memory, SendError, Unavailable};

fn builder() -> AppBuilder {
    App::builder()
        .store(Memory::new())
        .aggregate::<Account>()
        .aggregate::<Ledger>()
        .projection(Balances::default())
        .arbiters(2)
}

#[tokio::test]
async fn what_was_taken_is_answered_and_what_comes_later_is_refused() {
    let (store, faults) = Faulty::new(Memory::new());
    let app = builder().store(store).start().await.unwrap();
    let topic = app.topic::<AccountEvent>().unwrap();
    let mut subscription = topic.subscribe().open();
    app.send("loaded", Deposit { cents: 1 }).await.unwrap();
    let mut commits = faults.hold(Operation::Commit);
    let mut loads = faults.hold(Operation::ReadStream);
    let in_flight = begin(app.send("loaded", Deposit { cents: 1 })).await;
    commits.reached(1).await;
    let decided = begin(app.send("loaded", Withdraw { cents: 2 })).await;
    let loading = begin(app.send("cold", Deposit { cents: 5 })).await;
    loads.reached(1).await;

    let ending = begin(app.shutdown()).await;
    until("it is closed", || {
        let mut send = Box::pin(app.send("late", Deposit { cents: 1 }));
        let waker = std::task::Waker::noop();
        let polled = send.as_mut().poll(&mut std::task::Context::from_waker(waker));
        matches!(
            polled,
            std::task::Poll::Ready(Err(SendError::Unavailable {
                category: "account",
                reason: Unavailable::ShutDown
            }))
        )
    })
    .await;
    loads.open();
    commits.open();
    assert_eq!(in_flight.end().await.unwrap().version.as_u64(), 2);
    assert_eq!(decided.end().await.unwrap().version.as_u64(), 3);
    assert_eq!(loading.end().await.unwrap().version.as_u64(), 1);
    ending.end().await.unwrap();
    let late = app.send("late", Deposit { cents: 1 }).await;
    assert!(matches!(late, Err(SendError::Unavailable { reason: Unavailable::ShutDown, .. })));

    // The view came level, and the subscription delivers everything before it ends.
    let expected = Balances::of_log(app.store());
    assert_eq!(*app.view::<Balances>().read(), expected);
    let mut heard = 0;
    while let Some(batch) = soon("the end", subscription.next()).await.unwrap() {
        heard += batch.len();
    }
    assert_eq!(heard, expected.seen.len());
    soon("the second shutdown", app.shutdown()).await.unwrap();
}

#[tokio::test]
async fn two_shutdowns_at_once_both_wait_for_the_end() {
    let (store, faults) = Faulty::new(Memory::new());
    let app = builder().store(store).start().await.unwrap();
    let mut gate = faults.hold(Operation::Commit);
    let held = begin(app.send("a", Deposit { cents: 1 })).await;
    gate.reached(1).await;
    let mut first = Box::pin(app.shutdown());
    let mut second = Box::pin(app.shutdown());
    not_yet("the first end", &mut first).await;
    not_yet("the second end", &mut second).await;
    gate.open();
    held.end().await.unwrap();
    soon("the second end", second).await.unwrap();
    soon("the first end", first).await.unwrap();
}

#[tokio::test]
async fn a_deadline_that_passes_is_said() {
    let (store, faults) = Faulty::new(Memory::new());
    let app = builder().store(store).start().await.unwrap();
    let mut gate = faults.hold(Operation::Commit);
    let held = begin(app.send("a", Deposit { cents: 1 })).await;
    gate.reached(1).await;
    let ended = app.shutdown_within(Duration::from_millis(50)).await;
    let problems = ended.unwrap_err().problems;
    assert!(problems.iter().any(|problem| problem.contains("account")), "{problems:?}");
    // The command is answered when the disk comes back.
    gate.open();
    assert!(soon("the answer", held.end()).await.is_ok());
}

#[tokio::test]
async fn a_type_that_was_not_given_to_the_builder_is_said() {
    let app = App::builder().store(Memory::new()).aggregate::<Account>().start().await.unwrap();
    let answer = app.send("a", Book { number: 1 }).await;
    assert!(matches!(
        answer,
        Err(SendError::Unavailable { category: "ledger", reason: Unavailable::NotRegistered })
    ));
    assert!(app.try_view::<Balances>().is_none());
    app.shutdown().await.unwrap();
}

/// Tells the process that it is the one in which threads are counted.
const CHILD: &str = "TIDINGS_TEST_COUNTS_THREADS";

/// Runs `test` of this file in a process of its own, where nobody else starts threads; true in that process.
fn alone(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .status();
    assert!(status.unwrap().success());
    false
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Blocks until so many threads are left.
#[track_caller]
fn wait_for_threads(expected: usize) {
    runtime().block_on(until("the threads have ended", || threads() == expected));
}

#[test]
fn a_shutdown_joins_every_thread() {
    if !alone("a_shutdown_joins_every_thread") {
        return;
    }
    let before = threads();
    for _ in 0..5 {
        let runtime = runtime();
        runtime.block_on(async {
            let app = builder().start().await.unwrap();
            for number in 0..50 {
                app.send(number.to_string(), Deposit { cents: 1 }).await.unwrap();
            }
            assert!(threads() > before + 5);
            app.shutdown().await.unwrap();
        });
        drop(runtime);
        assert_eq!(threads(), before);
    }
}

#[test]
fn dropping_the_app_ends_every_thread() {
    if !alone("dropping_the_app_ends_every_thread") {
        return;
    }
    let before = threads();
    let runtime = runtime();
    runtime.block_on(async {
        let app = builder().start().await.unwrap();
        app.send("a", Deposit { cents: 1 }).await.unwrap();
        let another = app.clone();
        drop(app);
        another.send("a", Deposit { cents: 1 }).await.unwrap();
    });
    drop(runtime);
    wait_for_threads(before);
}

#[test]
fn an_app_that_does_not_start_leaves_no_thread() {
    if !alone("an_app_that_does_not_start_leaves_no_thread") {
        return;
    }
    let before = threads();
    let runtime = runtime();
    let started = runtime.block_on(builder().aggregate::<Account>().start());
    assert!(started.is_err());
    drop(runtime);
    wait_for_threads(before);
}

#[test]
fn a_shutdown_goes_on_when_its_runtime_has_gone() {
    if !alone("a_shutdown_goes_on_when_its_runtime_has_gone") {
        return;
    }
    let before = threads();
    let (store, faults) = Faulty::new(Memory::new());
    let runtime = runtime();
    let (gate, held) = runtime.block_on(async {
        let app = builder().store(store).start().await.unwrap();
        let mut gate = faults.hold(Operation::Commit);
        let held = begin(app.send("a", Deposit { cents: 1 })).await;
        gate.reached(1).await;
        let mut ending = Box::pin(app.shutdown());
        not_yet("the end", &mut ending).await;
        (gate, held)
    });
    drop(runtime);
    gate.let_through(1);
    gate.open();
    let runtime = self::runtime();
    runtime.block_on(held.end()).unwrap();
    drop(runtime);
    wait_for_threads(before);
}
