//! Guarantee 10: snapshots change nothing. A snapshot and the events after it are the same as all events; one that cannot be
//! used, for whatever reason, is ignored, and never read as an empty or as half a state.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]

#[path = "support/snapshots.rs"]
mod snapshots;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;
use serde::{Deserialize, Deserializer, Serialize};
use snapshots::*;
use tidings::sqlite::rusqlite::Connection;
use tidings::testing::{Fault, Faults, Faulty, Operation};
use tidings::{
    App, Command, Commit, Durability, Event, EventStore, ExpectedVersion, Header, Memory, Recorded,
    SendError, Shape, ShardStatus, Snapshot, Sqlite, StreamId, Timestamp, Version, aggregate,
};

const ACCOUNTS: u8 = 4;

#[derive(Debug, Clone)]
enum Step {
    Send(u8, Wish),
    /// Sent at once, so that they are decided ahead.
    Burst(Vec<(u8, Wish)>),
    /// With another policy.
    Restart(usize, usize),
    DeleteAll,
    /// The next so many snapshots that are asked for come back spoilt.
    Spoil(Spoilt, u64),
    Fail(Operation, u64, Fault),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wish = prop_oneof![
        4 => (1..100_i64, 1..4_u8).prop_map(|(cents, parts)| Wish::Deposit(cents, parts)),
        2 => (1..200_i64).prop_map(Wish::Withdraw),
        1 => (-10..10_i32).prop_map(|rate| Wish::Grow(f64::from(rate) / 7.0)),
    ];
    let one = (0..ACCOUNTS, wish);
    let operation = prop_oneof![
        3 => Just(Operation::Commit),
        1 => Just(Operation::LoadSnapshot),
        1 => Just(Operation::SaveSnapshots),
    ];
    let fault = prop_oneof![Just(Fault::Full), Just(Fault::Failed), Just(Fault::FailedAfterwards),];
    let spoilt = prop_oneof![
        Just(Spoilt::Gone),
        Just(Spoilt::OtherShape),
        Just(Spoilt::Cut),
        Just(Spoilt::TooNew),
        Just(Spoilt::OfAnother),
        Just(Spoilt::Unreadable),
    ];
    let step = prop_oneof![
        6 => one.clone().prop_map(|(account, wish)| Step::Send(account, wish)),
        6 => prop::collection::vec(one, 1..30).prop_map(Step::Burst),
        3 => (0..POLICIES, 1..6_usize).prop_map(|(policy, live)| Step::Restart(policy, live)),
        1 => Just(Step::DeleteAll),
        2 => (spoilt, 1..4_u64).prop_map(|(spoilt, times)| Step::Spoil(spoilt, times)),
        2 => (operation, 1..4_u64, fault).prop_map(|(operation, nth, fault)| Step::Fail(operation, nth, fault)),
    ];
    (0..POLICIES, prop::collection::vec(step, 1..25)).prop_map(|(policy, mut steps)| {
        steps.insert(0, Step::Restart(policy, 2));
        steps
    })
}

/// Where the log is between two apps.
enum Place<'a> {
    Memory(Faults),
    File(&'a Path),
}

impl Place<'_> {
    fn open(&self, meddler: &Meddler) -> (Faulty<dyn EventStore>, Faults) {
        match self {
            Place::Memory(faults) => faults.restart(),
            Place::File(path) => {
                let log = Sqlite::options().durability(Durability::Os).open(path).unwrap();
                let (_, faults) = Faulty::new(Meddled::new(log, meddler));
                faults.restart()
            }
        }
    }
}

/// An app with its means, for one of the policies.
struct Run {
    app: App,
    faults: Faults,
    policy: usize,
}

async fn start(place: &Place<'_>, meddler: &Meddler, policy: usize, live: usize) -> Run {
    let (store, faults) = place.open(meddler);
    let app = with_policy(App::builder().store(store), policy)
        .arbiters(1)
        .max_live(live)
        .passivate_after(Duration::from_millis(1))
        .start()
        .await
        .unwrap();
    Run { app, faults, policy }
}

/// Runs the steps, and compares every state with the fold of all events after each of them. Returns how many snapshots were
/// written and ignored.
async fn check(place: Place<'_>, meddler: &Meddler, steps: Vec<Step>) -> (u64, u64) {
    let mut run: Option<Run> = None;
    let mut counts = (0, 0);
    for step in steps {
        match (step, &run) {
            (Step::Restart(policy, live), _) => {
                if let Some(run) = run.take() {
                    end(run, &mut counts).await;
                }
                run = Some(start(&place, meddler, policy, live).await);
            }
            (_, None) => {}
            (Step::Send(account, wish), Some(run)) => {
                // Rejected, refused by a fault: whatever came of it, the log says.
                let _ = send(&run.app, run.policy, &account.to_string(), wish).await;
            }
            (Step::Burst(wishes), Some(run)) => {
                let sends = wishes.into_iter().map(|(account, wish)| async move {
                    let _ = send(&run.app, run.policy, &account.to_string(), wish).await;
                });
                join_all(sends).await;
            }
            (Step::DeleteAll, Some(run)) => run.app.delete_snapshots().await.unwrap(),
            (Step::Spoil(spoilt, times), _) => meddler.spoil(spoilt, times),
            (Step::Fail(operation, nth, fault), Some(run)) => {
                run.faults.fail(operation, nth, fault);
                continue;
            }
        }
        if let Some(run) = &run {
            run.faults.recover();
            for account in 0..ACCOUNTS {
                let id = account.to_string();
                let found = state(&run.app, run.policy, &id).await;
                assert_eq!(found, replay(run.app.store(), &id), "account {account}");
            }
        }
    }
    if let Some(run) = run.take() {
        end(run, &mut counts).await;
    }
    // At last, with all snapshots that are left and a policy that takes none.
    meddler.spoil(Spoilt::Gone, 0);
    let run = start(&place, meddler, NO_OCCASION, 10).await;
    for account in 0..ACCOUNTS {
        let id = account.to_string();
        assert_eq!(state(&run.app, run.policy, &id).await, replay(run.app.store(), &id));
    }
    end(run, &mut counts).await;
    counts
}

async fn end(run: Run, counts: &mut (u64, u64)) {
    run.app.shutdown().await.unwrap();
    let status = shard(&run.app);
    counts.0 += status.snapshots_written;
    counts.1 += status.snapshots_ignored;
}

fn shard(app: &App) -> ShardStatus {
    app.status().aggregates[0].shards[0]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_and_what_follows_are_all_events_in_memory(steps in steps()) {
        let meddler = Meddler::default();
        let (_, faults) = Faulty::new(Meddled::new(Memory::new(), &meddler));
        runtime().block_on(check(Place::Memory(faults), &meddler, steps));
    }

    #[test]
    fn a_snapshot_and_what_follows_are_all_events_in_sqlite(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.db");
        runtime().block_on(check(Place::File(&path), &Meddler::default(), steps));
    }
}

/// What the properties above would not notice: that nothing was ever written.
#[tokio::test]
async fn snapshots_are_written_and_a_load_reads_no_more_than_what_follows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let (_, faults) = Faulty::new(Meddled::new(Memory::new(), &Meddler::default()));
    for place in [Place::File(&path), Place::Memory(faults)] {
        let meddler = Meddler::default();
        // In memory the meddler that counts was given at the beginning: only what is answered is compared there.
        let counts = matches!(place, Place::File(_));
        let run = start(&place, &meddler, EVERY_3, 10).await;
        deposit(&run.app, EVERY_3, 20, 3).await;
        let mut written = (0, 0);
        end(run, &mut written).await;
        assert_eq!(written, (6, 0));
        for policy in [NO_OCCASION, NO_SNAPSHOTS] {
            let run = start(&place, &meddler, policy, 10).await;
            let before = meddler.events_read();
            let found = state(&run.app, policy, "1").await;
            // Two events after the snapshot at 18, and that one once more.
            let read = meddler.events_read() - before;
            if counts {
                assert_eq!(read, if policy == NO_OCCASION { 3 } else { 20 });
            }
            assert_eq!(found, replay(run.app.store(), "1"));
            assert_eq!(found.entries, 20);
            end(run, &mut written).await;
        }
    }
}

#[tokio::test]
async fn each_occasion_has_a_snapshot_taken() {
    for (policy, deposits, every) in [
        (EVERY_1, 4, 1),
        (EVERY_3, 7, 3),
        (BYTES_40, 9, 4),
        (NO_OCCASION, 9, 10),
        (NO_SNAPSHOTS, 9, 10),
    ] {
        let app = with_policy(App::builder().store(Memory::new()), policy).arbiters(1);
        let app = app.start().await.unwrap();
        deposit(&app, policy, deposits, every).await;
        app.shutdown().await.unwrap();
        assert_eq!(shard(&app).snapshots_written, deposits / every, "policy {policy}");
    }

    // When it leaves the memory, once, though it comes back and leaves again.
    let app = with_policy(App::builder().store(Memory::new()), ON_PASSIVATION)
        .arbiters(1)
        .passivate_after(Duration::from_millis(10));
    let app = app.start().await.unwrap();
    send(&app, ON_PASSIVATION, "1", Wish::Deposit(5, 2)).await.unwrap();
    for _ in 0..2 {
        until("it is passivated", || app.status().aggregates[0].live() == 0).await;
        until("the snapshot is written", || shard(&app).snapshots_written == 1).await;
        assert_eq!(state(&app, ON_PASSIVATION, "1").await.entries, 2);
    }
    let snapshot = app.store().load_snapshot(&stream("1")).unwrap().unwrap();
    assert_eq!(snapshot.version, Version::new(2));
    app.shutdown().await.unwrap();

    // After a load that took longer than it should.
    let app = with_policy(App::builder().store(Memory::new()), SLOWER_THAN_NOTHING)
        .arbiters(1)
        .max_live(1);
    let app = app.start().await.unwrap();
    for id in ["1", "2"] {
        send(&app, SLOWER_THAN_NOTHING, id, Wish::Deposit(5, 3)).await.unwrap();
    }
    assert_eq!(shard(&app).snapshots_written, 0);
    for _ in 0..2 {
        assert_eq!(state(&app, SLOWER_THAN_NOTHING, "1").await.entries, 3);
        assert_eq!(state(&app, SLOWER_THAN_NOTHING, "2").await.entries, 3);
    }
    app.shutdown().await.unwrap();
    assert!(app.store().load_snapshot(&stream("1")).unwrap().is_some());
}

/// A state that takes long to be read back, from however new a snapshot.
#[derive(Default, Shape, Serialize, Deserialize)]
struct Heavy {
    #[serde(deserialize_with = "slowly")]
    times: u32,
}

fn slowly<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    std::thread::sleep(Duration::from_millis(600));
    u32::deserialize(deserializer)
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "heavy.lifted", version = 1)]
struct Lifted;

#[derive(Command, Clone)]
struct Lift;

#[aggregate(category = "heavy", events = HeavyEvent, snapshot(every = 2, slower_than = "500 ms"))]
impl Heavy {
    #[command]
    fn lift(&self, _: Lift) -> Lifted {
        Lifted
    }
    #[apply]
    fn lifted(&mut self, _: &Lifted) {
        self.times += 1;
    }
}

/// Otherwise each load would be followed by one more that helps nobody.
#[tokio::test]
async fn a_snapshot_that_takes_long_to_read_is_no_occasion_for_another_one() {
    let app = App::builder().store(Memory::new()).aggregate::<Heavy>().arbiters(1);
    let app = app.passivate_after(Duration::from_millis(10)).start().await.unwrap();
    for _ in 0..3 {
        app.send("1", Lift).await.unwrap();
    }
    until("it is written", || shard(&app).snapshots_written == 1).await;
    until("it is passivated", || app.status().aggregates[0].live() == 0).await;
    // It is loaded from version 2, and one event after it, before a fourth is decided.
    app.send("1", Lift).await.unwrap();
    app.shutdown().await.unwrap();
    let heavy = StreamId::new("heavy", "1").unwrap();
    let snapshot = app.store().load_snapshot(&heavy).unwrap().unwrap();
    assert_eq!((shard(&app).snapshots_written, snapshot.version), (2, Version::new(4)));
}

/// Deposits so many times, and waits for the snapshot each time that one is due: of two that wait the newer one is written.
async fn deposit(app: &App, policy: usize, times: u64, every: u64) {
    for deposits in 1..=times {
        send(app, policy, "1", Wish::Deposit(5, 1)).await.unwrap();
        until("it is written", || shard(app).snapshots_written == deposits / every).await;
    }
}

/// The state that is decided ahead of a commit which fails must not be stored.
#[tokio::test]
async fn a_state_whose_commit_failed_is_never_stored() {
    let (store, faults) = Faulty::new(Memory::new());
    let app = with_policy(App::builder().store(store), EVERY_1).arbiters(1).start().await.unwrap();
    send(&app, EVERY_1, "1", Wish::Deposit(1, 1)).await.unwrap();
    until("it is written", || shard(&app).snapshots_written == 1).await;
    let mut gate = faults.hold(Operation::Commit);
    let sends: Vec<_> = (0..5)
        .map(|_| {
            tokio::spawn({
                let app = app.clone();
                async move { send(&app, EVERY_1, "1", Wish::Deposit(100, 1)).await }
            })
        })
        .collect();
    gate.reached(1).await;
    until("all are decided", || shard(&app).decided == 6).await;
    faults.fail_all(Operation::Commit, Fault::Failed);
    drop(gate);
    for sent in sends {
        assert!(matches!(
            sent.await.unwrap(),
            Err(SendError::Store(_) | SendError::Contended { .. })
        ));
    }
    faults.recover();
    app.shutdown().await.unwrap();
    let snapshot = app.store().load_snapshot(&stream("1")).unwrap().unwrap();
    assert_eq!(snapshot.version, Version::new(1));
    assert_eq!(
        serde_json::from_slice::<Ledger>(&snapshot.state).unwrap(),
        replay(app.store(), "1")
    );
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_written_fails_no_command_and_is_counted() {
    let (store, faults) = Faulty::new(Memory::new());
    let app = with_policy(App::builder().store(store), EVERY_1).arbiters(1).start().await.unwrap();
    faults.fail_all(Operation::SaveSnapshots, Fault::Failed);
    for failed in 1..=5 {
        send(&app, EVERY_1, "1", Wish::Deposit(1, 1)).await.unwrap();
        until("it has failed", || shard(&app).snapshots_failed == failed).await;
    }
    // Nor does one whose state has no form in JSON.
    faults.recover();
    send(&app, EVERY_1, "1", Wish::Jam).await.unwrap();
    assert_eq!(state(&app, EVERY_1, "1").await.entries, 6);
    app.shutdown().await.unwrap();
    assert_eq!((shard(&app).snapshots_written, shard(&app).snapshots_failed), (0, 6));
}

/// Written with the state of the ledger, and read with each of those that a program may have become.
#[tokio::test]
async fn a_snapshot_of_another_shape_is_ignored_and_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    write_ledger(&path).await;
    other_shape::<Renamed>(&path).await;
    write_ledger(&path).await;
    other_shape::<Extended>(&path).await;
    write_ledger(&path).await;
    other_shape::<Retyped>(&path).await;
    write_ledger(&path).await;
    other_shape::<Revised>(&path).await;
}

/// Deposits once, with a snapshot of the ledger after it.
async fn write_ledger(path: &Path) {
    let meddler = Meddler::default();
    let run = start(&Place::File(path), &meddler, EVERY_1, 10).await;
    send(&run.app, EVERY_1, "1", Wish::Deposit(7, 3)).await.unwrap();
    end(run, &mut (0, 0)).await;
}

async fn other_shape<A: Former>(path: &Path) {
    let open = || Sqlite::options().durability(Durability::Os).open(path).unwrap();
    for ignored in [1, 0] {
        let app = App::builder().store(open()).aggregate::<A>().arbiters(1).start().await.unwrap();
        let expected = replay(app.store(), "1");
        assert_eq!(A::ask(&app, "1").await, (expected.cents, expected.entries));
        app.shutdown().await.unwrap();
        // It was replaced by one of today's shape.
        assert_eq!(shard(&app).snapshots_ignored, ignored, "{}", std::any::type_name::<A>());
    }
}

#[tokio::test]
async fn a_snapshot_damaged_on_the_disk_is_ignored() {
    for damage in [
        "state = substr(state, 1, 20)",
        "state = replace(state, '\"entries\":3', '\"entries\":4')",
        "state = ''",
        "version = 2",
        "version = 900",
        "shape = zeroblob(24)",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.db");
        write_ledger(&path).await;
        let log = Connection::open(&path).unwrap();
        assert_eq!(log.execute(&format!("UPDATE snapshots SET {damage}"), []).unwrap(), 1);
        drop(log);
        for ignored in [1, 0] {
            let run = start(&Place::File(&path), &Meddler::default(), NO_OCCASION, 10).await;
            let found = state(&run.app, NO_OCCASION, "1").await;
            assert_eq!(found, replay(run.app.store(), "1"));
            assert_eq!((found.cents, found.entries), (21, 3));
            let mut counts = (0, 0);
            end(run, &mut counts).await;
            assert_eq!(counts, (ignored, ignored), "{damage}");
        }
    }
}

/// One that has seen what the stream does not hold: of a log that was cut off, or put together by hand.
#[tokio::test]
async fn a_snapshot_that_is_ahead_of_its_stream_is_ignored() {
    let store = Arc::new(Memory::new());
    let app = with_policy(App::builder().store(Shared(Arc::clone(&store))), EVERY_1);
    let app = app.arbiters(1).start().await.unwrap();
    send(&app, EVERY_1, "1", Wish::Deposit(7, 3)).await.unwrap();
    app.shutdown().await.unwrap();
    let snapshot = store.load_snapshot(&stream("1")).unwrap().unwrap();
    assert_eq!(snapshot.version, Version::new(3));
    for (id, version) in [("1", 4), ("1", u64::MAX), ("2", 3), ("1", 0)] {
        let spoilt =
            Snapshot::new(stream(id), Version::new(version), snapshot.shape, &*snapshot.state);
        store.save_snapshots(vec![spoilt]).unwrap();
        let app = with_policy(App::builder().store(Shared(Arc::clone(&store))), NO_OCCASION);
        let app = app.arbiters(1).start().await.unwrap();
        assert_eq!(state(&app, NO_OCCASION, id).await, replay(app.store(), id));
        assert_eq!(shard(&app).snapshots_ignored, 1);
        app.shutdown().await.unwrap();
    }
}

fn stream(id: &str) -> StreamId {
    StreamId::new("ledger", id).unwrap()
}

/// An event whose `Drop` panics once when it is told to.
#[derive(Event, Clone, Serialize, Deserialize)]
#[event(name = "fragile.added", version = 1)]
struct Added {
    value: u32,
}

static ARMED: AtomicBool = AtomicBool::new(false);

impl Drop for Added {
    fn drop(&mut self) {
        assert!(!ARMED.swap(false, Ordering::SeqCst), "it breaks");
    }
}

#[derive(Command, Clone)]
struct Add {
    value: u32,
}

#[derive(Command, Clone)]
struct Sum;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Is(u32);

#[derive(Default, Shape, Serialize, Deserialize)]
struct Fragile {
    sum: u32,
}

#[aggregate(category = "fragile", events = FragileEvent, error = Is, snapshot(every = 1))]
impl Fragile {
    #[command]
    fn sum(&self, _: Sum) -> Result<Added, Is> {
        Err(Is(self.sum))
    }
    #[command]
    fn add(&self, Add { value }: Add) -> Added {
        Added { value }
    }
    #[apply]
    fn added(&mut self, event: &Added) {
        self.sum += event.value;
    }
}

/// Where user code panics while it is told that its commit was refused, nobody says so any more to whoever has the state.
#[tokio::test]
async fn a_state_whose_refused_event_panics_when_it_is_dropped_is_never_used() {
    let store = Arc::new(Memory::new());
    let start =
        || App::builder().store(Arc::clone(&store)).aggregate::<Fragile>().arbiters(1).start();
    let app = start().await.unwrap();
    app.send("1", Add { value: 1 }).await.unwrap();
    // Somebody else appends to the stream, so the next decision is stale.
    let fragile = StreamId::new("fragile", "1").unwrap();
    let header = Header::new(fragile.clone(), "fragile.added", 1, Timestamp::default());
    let event = Recorded { header, payload: br#"{"value":10}"#.as_slice().into() };
    let commit = Commit::new().append(fragile.clone(), ExpectedVersion::Any, vec![event]);
    app.send("1", Add { value: 100 }).await.unwrap();
    assert!(store.commit(&mut [commit]).unwrap()[0].is_ok());
    ARMED.store(true, Ordering::SeqCst);
    assert!(app.send("1", Add { value: 1_000 }).await.is_err());
    assert!(!ARMED.load(Ordering::SeqCst), "nothing broke");
    let sum = app.send("1", Sum).await.unwrap_err();
    assert!(matches!(sum, SendError::Rejected(Is(111))), "{sum}");
    app.shutdown().await.unwrap();
    let app = start().await.unwrap();
    app.send("1", Add { value: 10_000 }).await.unwrap();
    app.shutdown().await.unwrap();
    let snapshot = store.load_snapshot(&fragile).unwrap().unwrap();
    assert_eq!(std::str::from_utf8(&snapshot.state).unwrap(), r#"{"sum":10111}"#);
}

/// A program that passes over an event keeps no state without it for one that knows the event.
#[tokio::test]
async fn a_state_that_lacks_an_event_is_never_stored() {
    let store = Arc::new(Memory::new());
    let app = with_policy(App::builder().store(Shared(Arc::clone(&store))), NO_SNAPSHOTS);
    let app = app.start().await.unwrap();
    for (id, wish) in
        [("1", Wish::Deposit(7, 1)), ("1", Wish::Withdraw(5)), ("2", Wish::Deposit(7, 1))]
    {
        send(&app, NO_SNAPSHOTS, id, wish).await.unwrap();
    }
    app.shutdown().await.unwrap();
    let app = App::builder().store(Shared(Arc::clone(&store))).aggregate::<Forgetful>().arbiters(1);
    let app = app.start().await.unwrap();
    for id in ["1", "2"] {
        app.send(id, Touch).await.unwrap();
    }
    app.shutdown().await.unwrap();
    assert_eq!(shard(&app).ignored, 1);
    assert_eq!(store.load_snapshot(&stream("1")).unwrap(), None);
    assert_eq!(store.load_snapshot(&stream("2")).unwrap().unwrap().version, Version::new(2));
}
