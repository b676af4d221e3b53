//! Guarantee 11: passivation loses no command and runs none twice.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]

#[path = "support/bank.rs"]
mod bank;

use std::time::Duration;

use bank::*;
use tidings::testing::{Faulty, Operation};
use tidings::{App, CommandId, EventStore, Memory, SendError};

fn live(app: &App) -> usize {
    app.status().aggregates[0].live()
}

#[tokio::test]
async fn an_idle_account_leaves_the_memory_and_comes_back_as_it_was() {
    let (store, faults) = Faulty::new(Memory::new());
    let app = App::builder()
        .store(store)
        .aggregate::<Account>()
        .passivate_after(Duration::from_millis(10))
        .start()
        .await
        .unwrap();
    app.send("a", Deposit { cents: 5 }).await.unwrap();
    until("it is passivated", || live(&app) == 0).await;
    let receipt = app.send("a", Withdraw { cents: 5 }).await.unwrap();
    assert_eq!(receipt.version.as_u64(), 2);
    assert_eq!(faults.count(Operation::ReadStream), 2);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn no_more_than_max_live_stay_in_memory() {
    let app = App::builder()
        .store(Memory::new())
        .aggregate::<Account>()
        .arbiters(1)
        .max_live(10)
        .start()
        .await
        .unwrap();
    for number in 0..200 {
        app.send(number.to_string(), Deposit { cents: 1 }).await.unwrap();
        let live = live(&app);
        assert!(live <= 11, "{live} are live");
    }
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_account_with_a_commit_on_its_way_stays() {
    let (store, faults) = Faulty::new(Memory::new());
    let app = App::builder()
        .store(store)
        .aggregate::<Account>()
        .arbiters(1)
        .max_live(1)
        .passivate_after(Duration::ZERO)
        .start()
        .await
        .unwrap();
    let mut gate = faults.hold(Operation::Commit);
    let deposit = begin(app.send("a", Deposit { cents: 5 })).await;
    gate.reached(1).await;
    let mut others = Vec::new();
    for number in 0..20 {
        others.push(begin(app.send(number.to_string(), Deposit { cents: 1 })).await);
    }
    until("the others are decided", || app.status().aggregates[0].shards[0].decided == 21).await;
    // It was not loaded again from a log that does not hold the deposit yet.
    let withdraw = begin(app.send("a", Withdraw { cents: 5 })).await;
    gate.open();
    assert_eq!(deposit.end().await.unwrap().version.as_u64(), 1);
    assert_eq!(withdraw.end().await.unwrap().version.as_u64(), 2);
    for other in others {
        assert_eq!(other.end().await.unwrap().version.as_u64(), 1);
    }
    app.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_commands_on_many_accounts_each_take_effect_once_in_memory() {
    for seed in 0..12 {
        check(Memory::new(), seed, 2_000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_commands_on_many_accounts_each_take_effect_once_in_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    for seed in 100..103 {
        check(sqlite(directory.path().join(format!("{seed}.db"))), seed, 1_000).await;
    }
}

async fn check(store: impl EventStore, seed: u64, commands: u64) {
    const SENDERS: u64 = 4;
    let (store, faults) = Faulty::new(store);
    let mut dice = Dice::new(seed);
    let app = App::builder()
        .store(store)
        .aggregate::<Account>()
        .arbiters(1 + dice.below(3) as usize)
        .max_live(1 + dice.below(6) as usize)
        .passivate_after(Duration::from_millis(dice.below(4)))
        .start()
        .await
        .unwrap();
    let senders = (0..SENDERS).map(|sender| {
        let (app, faults) = (app.clone(), faults.clone());
        let mut dice = Dice::new(seed * 1_000 + sender);
        tokio::spawn(async move {
            // Each sender has accounts of its own, so that it can foretell every answer.
            let mut model: Vec<Account> = vec![Account::default(); 25];
            let mut number = 0;
            while number < commands / SENDERS {
                let gate = dice.chance(10).then(|| faults.hold(Operation::Commit));
                let mut sends = Vec::new();
                for _ in 0..1 + dice.below(20) {
                    number += 1;
                    let index = dice.below(model.len() as u64) as usize;
                    let cents = dice.below(100) as i64;
                    let account = format!("{sender}.{index}");
                    let id = dice
                        .chance(20)
                        .then(|| CommandId::from_name(&format!("{sender}:{number}")));
                    let withdraw = dice.chance(50);
                    let (app, state) = (app.clone(), &mut model[index]);
                    let send = begin(async move {
                        macro_rules! send {
                            ($command:expr) => {{
                                let send = app.send(account, $command);
                                match id {
                                    Some(id) => send.command_id(id).await,
                                    None => send.await,
                                }
                            }};
                        }
                        match withdraw {
                            true => send!(Withdraw { cents }),
                            false => send!(Deposit { cents }),
                        }
                    })
                    .await;
                    let expected = match withdraw {
                        true if cents > state.cents => Err(state.cents),
                        true => Ok(-cents),
                        false => Ok(cents),
                    };
                    if let Ok(cents) = expected {
                        state.cents += cents;
                        state.entries += 1;
                    }
                    sends.push((send, expected.map(|_| state.entries)));
                }
                drop(gate);
                for (send, expected) in sends {
                    match (soon("an answer", send.end()).await, expected) {
                        (Ok(receipt), Ok(version)) => {
                            assert_eq!(receipt.version.as_u64(), version, "seed {seed}");
                        }
                        (Err(SendError::Rejected(reason)), Err(cents)) => {
                            assert_eq!(reason.cents, cents, "seed {seed}");
                        }
                        (answer, expected) => {
                            panic!("seed {seed}: {answer:?} instead of {expected:?}")
                        }
                    }
                }
            }
            (sender, model)
        })
    });
    let mut events = 0;
    for sender in senders.collect::<Vec<_>>() {
        let (sender, model) = sender.await.unwrap();
        for (index, expected) in model.into_iter().enumerate() {
            events += expected.entries;
            let found = fold(&entries(app.store(), &format!("{sender}.{index}")));
            assert_eq!(found, expected, "seed {seed}");
        }
    }
    assert_eq!(app.store().head().unwrap().as_u64(), events, "seed {seed}");
    app.shutdown().await.unwrap();
}
