//! Guarantee 12: a panic in user code reaches the caller of that command as an error, and harms nothing else.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]

#[path = "support/bank.rs"]
mod bank;

use std::sync::atomic::{AtomicBool, Ordering};

use bank::*;
use serde::ser::Error;
use serde::{Deserialize, Serialize, Serializer};
use tidings::testing::{Faulty, Operation};
use tidings::{App, Command, Event, EventStore, Memory, SendError, aggregate};

async fn start(store: impl EventStore) -> App {
    let builder = App::builder().store(store).aggregate::<Account>();
    builder.arbiters(1).start().await.unwrap()
}

#[track_caller]
fn panicked<T: std::fmt::Debug, R: std::fmt::Debug>(
    answer: Result<T, SendError<R>>,
    expected: &str,
) {
    match answer {
        Err(SendError::Panicked { message, .. }) => assert!(message.contains(expected)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_panic_while_deciding_reaches_its_caller_only() {
    let app = start(Memory::new()).await;
    app.send("a", Deposit { cents: 5 }).await.unwrap();
    app.send("b", Deposit { cents: 5 }).await.unwrap();
    let exploded = begin(app.send("a", Explode)).await;
    let same = begin(app.send("a", Withdraw { cents: 5 })).await;
    let other = begin(app.send("b", Withdraw { cents: 5 })).await;
    panicked(exploded.end().await, "boom");
    assert_eq!(same.end().await.unwrap().version.as_u64(), 2);
    assert_eq!(other.end().await.unwrap().version.as_u64(), 2);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_panic_while_deciding_ahead_loses_nothing_that_was_decided_before() {
    let (store, faults) = Faulty::new(Memory::new());
    let app = start(store).await;
    let mut gate = faults.hold(Operation::Commit);
    let before = begin(app.send("a", Deposit { cents: 5 })).await;
    gate.reached(1).await;
    let exploded = begin(app.send("a", Explode)).await;
    let after = begin(app.send("a", Withdraw { cents: 5 })).await;
    panicked(soon("the panic", exploded.end()).await, "boom");
    gate.open();
    assert_eq!(before.end().await.unwrap().version.as_u64(), 1);
    assert_eq!(after.end().await.unwrap().version.as_u64(), 2);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_panic_while_applying_appends_nothing_and_the_account_goes_on_as_committed() {
    let app = start(Memory::new()).await;
    app.send("a", Deposit { cents: 5 }).await.unwrap();
    light("applying");
    let rigged = app.send("a", Rig { fuse: "applying".into() }).await;
    panicked(rigged, "was lit");
    assert_eq!(entries(app.store(), "a").len(), 1);
    assert_eq!(app.send("a", Withdraw { cents: 5 }).await.unwrap().version.as_u64(), 2);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_panic_while_loading_reaches_all_who_wait_and_no_other_account() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = start(sqlite(&path)).await;
    app.send("a", Rig { fuse: "loading".into() }).await.unwrap();
    app.send("b", Deposit { cents: 5 }).await.unwrap();
    app.shutdown().await.unwrap();
    drop(app);

    let (store, faults) = Faulty::new(sqlite(&path));
    let app = start(store).await;
    light("loading");
    let gate = faults.hold(Operation::ReadStream);
    let first = begin(app.send("a", Deposit { cents: 1 })).await;
    let second = begin(app.send("a", Deposit { cents: 2 })).await;
    let other = begin(app.send("b", Withdraw { cents: 5 })).await;
    drop(gate);
    panicked(soon("the panic", first.end()).await, "was lit");
    panicked(soon("the panic", second.end()).await, "was lit");
    assert_eq!(soon("the other", other.end()).await.unwrap().version.as_u64(), 2);
    // It is tried again with the next command, and works once its code does.
    panicked(app.send("a", Deposit { cents: 3 }).await, "was lit");
    put_out("loading");
    assert_eq!(app.send("a", Deposit { cents: 4 }).await.unwrap().version.as_u64(), 2);
    app.shutdown().await.unwrap();
}

/// An event whose payload cannot be written: its code panics, or says no.
#[derive(Event, Deserialize)]
#[event(name = "mine.laid", version = 1)]
struct Laid {
    panics: bool,
}

impl Serialize for Laid {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        assert!(!self.panics, "cannot be written");
        Err(S::Error::custom("will not be written"))
    }
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "mine.swept", version = 1)]
struct Swept {}

#[derive(Command, Clone)]
struct Lay {
    panics: bool,
}

#[derive(Command, Clone)]
struct Sweep;

static EXPLODES: AtomicBool = AtomicBool::new(false);

struct Mine;

impl Default for Mine {
    fn default() -> Self {
        assert!(!EXPLODES.load(Ordering::SeqCst), "no default");
        Self
    }
}

#[aggregate(category = "mine", events = MineEvent, error = std::convert::Infallible)]
impl Mine {
    #[command]
    fn lay(&self, command: Lay) -> Laid {
        Laid { panics: command.panics }
    }
    #[command]
    fn sweep(&self, _: Sweep) -> Swept {
        Swept {}
    }
    #[apply]
    fn laid(&mut self, _: &Laid) {}
    #[apply]
    fn swept(&mut self, _: &Swept) {}
}

#[tokio::test]
async fn a_panic_while_writing_an_event_or_making_an_empty_aggregate_reaches_its_caller_only() {
    let builder = App::builder().store(Memory::new()).aggregate::<Mine>();
    let app = builder.arbiters(1).start().await.unwrap();
    app.send("a", Sweep).await.unwrap();
    let answer = soon("an answer", app.send("a", Lay { panics: true })).await;
    panicked(answer, "cannot be written");
    let answer = app.send("a", Lay { panics: false }).await;
    assert!(matches!(answer, Err(SendError::Unwritable { .. })));
    assert_eq!(app.send("a", Sweep).await.unwrap().version.as_u64(), 2);

    EXPLODES.store(true, Ordering::SeqCst);
    let answer = soon("an answer", app.send("b", Sweep)).await;
    panicked(answer, "no default");
    EXPLODES.store(false, Ordering::SeqCst);
    assert_eq!(app.send("b", Sweep).await.unwrap().version.as_u64(), 1);
    app.shutdown().await.unwrap();
}
