//! Faults, crashes and chaos in the hands of those who test their programs: what outlives a crash, and what a seed decides.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "macros", feature = "sqlite", feature = "testing"))]

#[path = "support/bank.rs"]
mod bank;

use std::collections::HashSet;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use bank::*;
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite;
use tidings::testing::{Chaos, Fault, Faults, Faulty, Operation};
use tidings::{
    App, CommandId, ErrorClass, EventStore, ExpectedVersion, Header, Memory, Outcome, Position,
    Timestamp, projection,
};

/// The number of deposits, in a table.
struct Counted;

#[projection(name = "counted", version = 1, schema = "CREATE TABLE counted (position INT)")]
impl Counted {
    #[on]
    fn deposited(
        &self,
        tx: &Transaction<'_>,
        _: &Deposited,
        header: &Header,
    ) -> rusqlite::Result<usize> {
        tx.execute("INSERT INTO counted VALUES (?1)", [header.position.as_u64() as i64])
    }
}

async fn start(store: impl EventStore) -> App {
    let builder = App::builder().store(store).aggregate::<Account>().projection(Counted);
    builder.start().await.unwrap()
}

/// The positions that the view holds; each once, if it is right.
async fn counted(app: &App) -> Vec<i64> {
    let view = app.view::<Counted>().at_least(app.head()).await.unwrap();
    view.query(|db| {
        db.prepare("SELECT position FROM counted ORDER BY 1")?
            .query_map([], |row| row.get(0))?
            .collect()
    })
    .await
    .unwrap()
}

async fn crash_and_restart(app: App, faults: &Faults) -> (App, Faults) {
    faults.crash();
    assert!(faults.has_crashed());
    let _ = app.shutdown_within(Duration::ZERO).await;
    drop(app);
    let (store, faults) = faults.restart();
    assert!(!faults.has_crashed());
    (start(store).await, faults)
}

/// Lets a commit crash, and checks what the next app finds of it.
async fn check_crash_at_a_commit(store: impl EventStore, views: &Path, fault: Fault, left: u64) {
    let (store, faults) = Faulty::with_views(store, views);
    let app = start(store).await;
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    counted(&app).await;
    faults.fail(Operation::Commit, 1, fault);
    let id = CommandId::fresh();
    assert!(app.send("a", Deposit { cents: 2 }).command_id(id).await.is_err());
    assert!(faults.has_crashed());
    // The process is gone: nothing of it reaches the log.
    assert!(app.send("b", Deposit { cents: 3 }).await.is_err());
    assert!(app.store().head().is_err());

    let (app, _) = crash_and_restart(app, &faults).await;
    assert_eq!(app.head().as_u64(), left);
    assert_eq!(counted(&app).await, (1..=left as i64).collect::<Vec<_>>());
    let again = app.send("a", Deposit { cents: 2 }).command_id(id).await.unwrap();
    let known = if left == 2 { Outcome::AlreadyKnown } else { Outcome::Applied };
    assert_eq!((again.outcome, again.position.as_u64()), (known, 2));
    assert_eq!(counted(&app).await, [1, 2]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_crash_before_a_commit_loses_it_and_one_after_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (before, after) = (Fault::Crash, Fault::CrashAfterwards);
    check_crash_at_a_commit(Memory::new(), &path("1.db"), before, 1).await;
    check_crash_at_a_commit(Memory::new(), &path("2.db"), after, 2).await;
    let file = || sqlite(path("log.db"));
    check_crash_at_a_commit(file(), &path("3.db"), before, 1).await;
}

#[tokio::test]
async fn views_are_what_they_were_at_the_crash() {
    let directory = tempfile::tempdir().unwrap();
    let (store, faults) = Faulty::new(sqlite(directory.path().join("log.db")));
    let app = start(store).await;
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    assert_eq!(counted(&app).await, [1]);
    faults.crash();
    // The crashed app, which still runs, goes on folding.
    let views = app.store().views_beside().unwrap();
    rusqlite::Connection::open(views)
        .unwrap()
        .execute("INSERT INTO counted VALUES (9)", [])
        .unwrap();
    assert_eq!(counted(&app).await, [1, 9]);
    let (app, faults) = crash_and_restart(app, &faults).await;
    assert_eq!(counted(&app).await, [1]);
    // The file beside the log goes on from its copy, crash after crash.
    app.send("a", Deposit { cents: 2 }).await.unwrap();
    assert_eq!(counted(&app).await, [1, 2]);
    let (app, faults) = crash_and_restart(app, &faults).await;
    assert_eq!(counted(&app).await, [1, 2]);
    app.shutdown().await.unwrap();
    // An orderly end leaves everything where it is.
    let (store, _) = faults.restart();
    let app = start(store).await;
    assert_eq!(counted(&app).await, [1, 2]);
    app.shutdown().await.unwrap();
}

#[test]
fn a_second_crash_changes_nothing() {
    let (_, faults) = Faulty::new(Memory::new());
    faults.crash();
    faults.crash();
    faults.recover();
    assert!(faults.has_crashed());
}

/// What a chaos does to 1,000 events at a consumer, attempt by attempt.
fn fates(chaos: &Chaos, consumer: &str) -> Vec<Vec<&'static str>> {
    let mut header = Header::new(account("a"), "account.deposited", 1, Timestamp::default());
    let mut fates = Vec::new();
    for position in 1..=1_000 {
        header.position = Position::new(position);
        let attempt = || {
            let attempt = std::panic::AssertUnwindSafe(|| chaos.at(consumer, &header));
            match std::panic::catch_unwind(attempt) {
                Ok(Ok(())) => "fine",
                Ok(Err(error)) => match ErrorClass::of(&error as &(dyn Error + 'static)) {
                    ErrorClass::Transient => "failing",
                    ErrorClass::Permanent => "refusing",
                },
                Err(_) => "panicking",
            }
        };
        fates.push((0..5).map(|_| attempt()).collect());
    }
    fates
}

#[test]
fn the_same_seed_makes_the_same_trouble_for_as_long() {
    let chaos = |seed| Chaos::seeded(seed).failing(10).refusing(20).panicking(5);
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if !text.contains("was told to panic") {
            eprintln!("{panic}");
        }
    }));
    let first = fates(&chaos(1), "mailer");
    assert_eq!(first, fates(&chaos(1), "mailer"));
    assert_ne!(first, fates(&chaos(1), "printer"));
    assert_ne!(first, fates(&chaos(2), "mailer"));
    for (kind, share) in [("failing", 100), ("refusing", 200), ("panicking", 50)] {
        let met: Vec<_> = first.iter().filter(|attempts| attempts[0] == kind).collect();
        assert!((share / 2..share * 2).contains(&met.len()), "{kind}: {}", met.len());
        let lasted: HashSet<_> = met
            .iter()
            .map(|attempts| attempts.iter().take_while(|a| **a == kind).count())
            .collect();
        assert_eq!(lasted, HashSet::from([1, 2, 3, 4]), "{kind}");
    }
    assert!(first.iter().all(|attempts| attempts[4] == "fine"));
    let mended = chaos(1);
    mended.mend();
    assert!(fates(&mended, "mailer").iter().flatten().all(|fate| *fate == "fine"));
}

#[test]
fn a_strike_hits_one_of_the_next_commits() {
    let mut struck = HashSet::new();
    for seed in 0..64 {
        let (store, faults) = Faulty::new(Memory::new());
        let fault = Chaos::seeded(seed).strike(&faults, 3);
        assert_eq!(fault, Chaos::seeded(seed).strike(&Faulty::new(Memory::new()).1, 3));
        let append = || {
            let header = Header::new(account("a"), "account.deposited", 1, Timestamp::default());
            let event = tidings::Recorded { header, payload: br#"{"cents":1}"#.as_slice().into() };
            let commit = tidings::Commit::new();
            store.commit(&mut [commit.append(account("a"), ExpectedVersion::Any, vec![event])])
        };
        let hit = (1..=3).find(|_| append().is_err()).expect("none was hit");
        let crashes = matches!(fault, Fault::Crash | Fault::CrashAfterwards);
        assert_eq!(faults.has_crashed(), crashes);
        let written = matches!(fault, Fault::FailedAfterwards | Fault::CrashAfterwards);
        let (left, _) = faults.restart();
        assert_eq!(left.head().unwrap().as_u64(), hit - 1 + u64::from(written));
        struck.insert((fault, hit));
    }
    assert_eq!(struck.len(), 12, "{struck:?}");
}

#[test]
fn interleaving_keeps_what_stands_under_one_key_in_order() {
    let keys = || [vec![1, 2, 3], vec![], vec![11, 12], vec![21]];
    let mut orders = HashSet::new();
    for seed in 0..2_000 {
        let order = Chaos::seeded(seed).interleave(keys());
        assert_eq!(order, Chaos::seeded(seed).interleave(keys()));
        for key in keys() {
            let of_one: Vec<_> = order.iter().copied().filter(|n| key.contains(n)).collect();
            assert_eq!(of_one, key);
        }
        orders.insert(order);
    }
    // Six events of three, two and one: 6! / (3! · 2! · 1!).
    assert_eq!(orders.len(), 60);
}
