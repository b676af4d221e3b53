//! Guarantee 6: the same command id twice gives the first receipt and appends nothing, for ever, across restarts.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]

#[path = "support/bank.rs"]
mod bank;

use std::collections::HashMap;

use bank::*;
use futures_util::future::join_all;
use proptest::prelude::*;
use tidings::testing::{Faulty, Operation};
use tidings::{App, CommandId, EventStore, Memory, Outcome, Receipt, SendError};

async fn start(store: impl EventStore) -> App {
    let builder = App::builder().store(store).aggregate::<Account>();
    builder.aggregate::<Ledger>().start().await.unwrap()
}

#[track_caller]
fn is_repeat(first: &Receipt, again: &Receipt) {
    let mut expected = first.clone();
    assert_eq!(first.outcome, Outcome::Applied);
    expected.outcome = Outcome::AlreadyKnown;
    assert_eq!(again, &expected);
}

#[tokio::test]
async fn a_repeat_gets_the_first_receipt_and_appends_nothing() {
    let app = start(Memory::new()).await;
    let id = CommandId::from_name("one");
    let send = || app.send("a", DepositAll { parts: vec![1, 2] }).command_id(id);
    let first = send().await.unwrap();
    app.send("a", Deposit { cents: 4 }).await.unwrap();
    is_repeat(&first, &send().await.unwrap());
    is_repeat(&first, &send().await.unwrap());
    assert_eq!((first.events, first.version.as_u64()), (2, 2));
    assert_eq!(app.store().head().unwrap().as_u64(), 3);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn two_in_flight_at_once_take_effect_once() {
    let (store, faults) = Faulty::new(Memory::new());
    let app = start(store).await;
    let id = CommandId::from_name("one");
    let mut gate = faults.hold(Operation::Commit);
    let mut first = app.send("a", Deposit { cents: 1 }).command_id(id);
    not_yet("the first answer", &mut first).await;
    gate.reached(1).await;
    let mut second = app.send("a", Deposit { cents: 1 }).command_id(id);
    not_yet("the second answer", &mut second).await;
    until("the second waits", || {
        app.status().aggregates[0].shards.iter().any(|shard| shard.waiting == 1)
    })
    .await;
    gate.open();
    let first = first.await.unwrap();
    is_repeat(&first, &second.await.unwrap());
    assert_eq!(app.store().head().unwrap().as_u64(), 1);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_repeat_in_flight_that_would_be_rejected_by_now_gets_the_first_receipt() {
    let (store, faults) = Faulty::new(Memory::new());
    let app = start(store).await;
    app.send("a", Deposit { cents: 5 }).await.unwrap();
    let id = CommandId::from_name("one");
    let withdraw = || app.send("a", Withdraw { cents: 5 }).command_id(id);
    let mut gate = faults.hold(Operation::Commit);
    let first = begin(withdraw()).await;
    gate.reached(1).await;
    let second = begin(withdraw()).await;
    until("the second has arrived", || {
        let shards = &app.status().aggregates[0].shards;
        shards.iter().any(|shard| shard.waiting > 0)
            || shards.iter().map(|shard| shard.decided).sum::<u64>() > 2
    })
    .await;
    gate.open();
    is_repeat(&first.end().await.unwrap(), &second.end().await.unwrap());
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_repeat_of_a_commit_that_fails_takes_effect_instead() {
    let (store, faults) = Faulty::new(Memory::new());
    let app = start(store).await;
    let id = CommandId::from_name("one");
    let mut gate = faults.hold(Operation::Commit);
    let mut first = app.send("a", Deposit { cents: 1 }).command_id(id);
    not_yet("the first answer", &mut first).await;
    gate.reached(1).await;
    let mut second = app.send("a", Deposit { cents: 1 }).command_id(id);
    not_yet("the second answer", &mut second).await;
    faults.fail(Operation::Commit, 1, tidings::testing::Fault::Full);
    gate.open();
    assert!(matches!(first.await, Err(SendError::Store(_))));
    assert_eq!(second.await.unwrap().outcome, Outcome::Applied);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_repeat_after_a_restart_gets_the_first_receipt() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let (with, without) = (CommandId::from_name("with"), CommandId::from_name("without"));
    let mut firsts = Vec::new();
    for _ in 0..3 {
        let app = start(sqlite(&path)).await;
        let receipts = [
            app.send("a", DepositAll { parts: vec![1, 2, 3] }).command_id(with).await.unwrap(),
            app.send("a", Check { cents: 6 }).command_id(without).await.unwrap(),
        ];
        if firsts.is_empty() {
            firsts.extend(receipts);
        } else {
            is_repeat(&firsts[0], &receipts[0]);
            is_repeat(&firsts[1], &receipts[1]);
        }
        // What comes between moves neither of them.
        app.send("a", Deposit { cents: 1 }).await.unwrap();
        app.shutdown().await.unwrap();
        drop(app);
    }
}

#[tokio::test]
async fn a_command_without_events_is_known_too() {
    let app = start(Memory::new()).await;
    let id = CommandId::from_name("one");
    app.send("a", Deposit { cents: 5 }).await.unwrap();
    let first = app.send("a", Check { cents: 5 }).command_id(id).await.unwrap();
    assert_eq!((first.events, first.version.as_u64()), (0, 1));
    assert!(first.versions().is_empty());
    // Decided anew it would be rejected.
    app.send("a", Withdraw { cents: 5 }).await.unwrap();
    let again = app.send("a", Check { cents: 5 }).command_id(id).await.unwrap();
    is_repeat(&first, &again);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_repeat_that_would_be_rejected_by_now_gets_the_first_receipt() {
    let app = start(Memory::new()).await;
    let id = CommandId::from_name("one");
    app.send("a", Deposit { cents: 5 }).await.unwrap();
    let first = app.send("a", Withdraw { cents: 5 }).command_id(id).await.unwrap();
    let again = app.send("a", Withdraw { cents: 5 }).command_id(id).await.unwrap();
    is_repeat(&first, &again);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_rejected_command_is_decided_again_under_its_id() {
    let app = start(Memory::new()).await;
    let id = CommandId::from_name("one");
    let withdraw = || app.send("a", Withdraw { cents: 5 }).command_id(id);
    assert!(matches!(withdraw().await, Err(SendError::Rejected(_))));
    app.send("a", Deposit { cents: 5 }).await.unwrap();
    assert_eq!(withdraw().await.unwrap().outcome, Outcome::Applied);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_id_of_another_aggregate_is_refused() {
    let app = start(Memory::new()).await;
    let id = CommandId::from_name("one");
    app.send("a", Deposit { cents: 5 }).command_id(id).await.unwrap();
    for other in ["b", "c", "d", "e"] {
        let answer = app.send(other, Deposit { cents: 5 }).command_id(id).await;
        assert!(matches!(
            answer,
            Err(SendError::CommandIdReused { first, stream, .. })
                if first == account("a") && stream == account(other)
        ));
    }
    let answer = app.send("a", Book { number: 1 }).command_id(id).await;
    assert!(matches!(answer, Err(SendError::CommandIdReused { .. })));
    assert_eq!(app.store().head().unwrap().as_u64(), 1);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_id_for_two_aggregates_in_flight_at_once_is_refused_for_one() {
    for number in 0..20 {
        let (store, faults) = Faulty::new(Memory::new());
        let app = start(store).await;
        let gate = faults.hold(Operation::Commit);
        let id = CommandId::from_name("one");
        let mut sends: Vec<_> = ["a", "b", "c", "d"]
            .iter()
            .map(|other| app.send(format!("{other}{number}"), Deposit { cents: 5 }).command_id(id))
            .collect();
        for send in &mut sends {
            not_yet("the answer", send).await;
        }
        // The accounts that lose stay as they were.
        drop(gate);
        let answers = join_all(sends).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        assert!(
            answers
                .iter()
                .all(|answer| matches!(answer, Ok(_) | Err(SendError::CommandIdReused { .. })))
        );
        for other in ["a", "b", "c", "d"] {
            let account = format!("{other}{number}");
            let expected = entries(app.store(), &account).len() as u64 + 1;
            let receipt = app.send(&account, Deposit { cents: 1 }).await.unwrap();
            assert_eq!(receipt.version.as_u64(), expected);
        }
        app.shutdown().await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each command is sent several times, all of them at once and in any order: each takes effect once, and all its senders
    /// learn the same.
    #[test]
    fn shuffled_duplicates_take_effect_once(
        commands in prop::collection::vec((0..4_usize, 1..100_i64, 1..5_usize), 1..40),
        seed in any::<u64>(),
        max_live in 1..5_usize,
    ) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async {
            let app = App::builder().store(Memory::new()).aggregate::<Account>()
                .max_live(max_live).inbox(3).start().await.unwrap();
            let mut sends: Vec<_> = commands.iter().enumerate()
                .flat_map(|(number, (_, _, times))| std::iter::repeat_n(number, *times))
                .collect();
            let mut dice = Dice::new(seed);
            for last in (1..sends.len()).rev() {
                sends.swap(last, dice.below(last as u64 + 1) as usize);
            }
            let answers = join_all(sends.into_iter().map(|number| {
                let (account, cents, _) = commands[number];
                let app = app.clone();
                async move {
                    let id = CommandId::from_name(&number.to_string());
                    let account = account.to_string();
                    let receipt = match number % 3 {
                        0 => app.send(account, Deposit { cents }).command_id(id).await,
                        1 => app.send(account, DepositAll { parts: vec![cents, 1] }).command_id(id).await,
                        _ => app.send(account, Check { cents: 0 }).command_id(id).await,
                    };
                    (number, receipt.unwrap())
                }
            })).await;
            let mut firsts: HashMap<usize, Receipt> = HashMap::new();
            let mut applied = 0;
            for (number, mut receipt) in answers {
                applied += u64::from(receipt.outcome == Outcome::Applied);
                receipt.outcome = Outcome::Applied;
                let first = firsts.entry(number).or_insert_with(|| receipt.clone());
                assert_eq!(first, &receipt);
            }
            assert_eq!(applied, commands.len() as u64);
            for name in 0..4_usize {
                let mut expected = 0;
                for (number, (_, cents, _)) in commands.iter().enumerate().filter(|(_, c)| c.0 == name) {
                    expected += [*cents, cents + 1, 0][number % 3];
                }
                assert_eq!(fold(&entries(app.store(), &name.to_string())).cents, expected);
            }
            app.shutdown().await.unwrap();
        });
    }
}
