//! Guarantees 8 and 15: `decide` sees the fold of every earlier event, committed or ahead of the commit; a caller is answered,
//! and a handler called, only after the commit.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]

#[path = "support/bank.rs"]
mod bank;

use bank::*;
use proptest::prelude::*;
use tidings::testing::{Faulty, Gate, ManualClock, Operation};
use tidings::{App, Memory, Position, SendError, Timestamp};

async fn held() -> (App, Gate) {
    let (store, faults) = Faulty::new(Memory::new());
    let app = App::builder()
        .store(store)
        .aggregate::<Account>()
        .projection(Balances::default())
        .start()
        .await
        .unwrap();
    (app, faults.hold(Operation::Commit))
}

fn decided(app: &App) -> u64 {
    let status = app.status();
    status.aggregates[0].shards.iter().map(|s| s.decided).sum()
}

#[tokio::test]
async fn nobody_is_answered_while_the_commit_is_held_and_later_commands_are_decided_meanwhile() {
    let (app, mut gate) = held().await;
    let mut deposit = app.send("a", Deposit { cents: 10 });
    not_yet("the deposit's answer", &mut deposit).await;
    gate.reached(1).await;
    // Decided on ten cents that are not durable yet.
    let mut withdraw = app.send("a", Withdraw { cents: 7 });
    let mut check = app.send("a", Check { cents: 3 });
    let mut rejected = app.send("a", Withdraw { cents: 4 });
    not_yet("the withdrawal's answer", &mut withdraw).await;
    not_yet("the check's answer", &mut check).await;
    not_yet("the rejection", &mut rejected).await;
    until("all four are decided", || decided(&app) == 4).await;
    not_yet("the deposit's answer", &mut deposit).await;
    not_yet("the withdrawal's answer", &mut withdraw).await;
    not_yet("the check's answer", &mut check).await;
    not_yet("the rejection", &mut rejected).await;
    assert_eq!(app.store().head().unwrap(), Position::START);

    // The first group holds the deposit alone; the others wait for the second.
    gate.let_through(1);
    assert_eq!(deposit.await.unwrap().version.as_u64(), 1);
    gate.reached(2).await;
    not_yet("the withdrawal's answer", &mut withdraw).await;
    not_yet("the rejection", &mut rejected).await;
    gate.open();
    assert_eq!(withdraw.await.unwrap().version.as_u64(), 2);
    let checked = check.await.unwrap();
    assert_eq!((checked.version.as_u64(), checked.events), (2, 0));
    let lacking = Overdrawn { cents: 3, entries: 2 };
    assert!(matches!(rejected.await, Err(SendError::Rejected(reason)) if reason == lacking));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_rejection_on_committed_state_waits_for_nothing() {
    let (app, mut gate) = held().await;
    let mut deposit = app.send("a", Deposit { cents: 10 });
    not_yet("the deposit's answer", &mut deposit).await;
    gate.reached(1).await;
    let rejected = soon("a rejection", app.send("b", Withdraw { cents: 1 })).await;
    assert!(matches!(rejected, Err(SendError::Rejected(_))));
    gate.open();
    deposit.await.unwrap();
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn no_handler_and_no_subscriber_sees_an_event_before_its_commit_is_durable() {
    let (app, mut gate) = held().await;
    let topic = app.topic::<AccountEvent>().unwrap();
    let mut subscription = topic.subscribe().open();
    let view = app.view::<Balances>();
    let mut deposit = app.send("a", Deposit { cents: 10 });
    not_yet("the answer", &mut deposit).await;
    gate.reached(1).await;
    {
        let mut next = Box::pin(subscription.next());
        not_yet("the event", &mut next).await;
    }
    assert_eq!((app.head(), topic.status().published), (Position::START, 0));
    assert_eq!(*view.read(), Balances::default());
    gate.open();
    let receipt = deposit.await.unwrap();
    // A caller with a receipt finds its event published.
    assert_eq!((app.head(), topic.status().published), (receipt.position, 1));
    let batch = soon("the event", subscription.next()).await.unwrap().unwrap();
    assert_eq!(batch.iter().next().unwrap().position, receipt.position);
    assert_eq!(view.at_least(receipt.position).await.unwrap().of["a"], 10);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_event_bears_the_time_of_its_decision() {
    let clock = ManualClock::at(Timestamp::from_micros(17));
    let app = App::builder()
        .store(Memory::new())
        .aggregate::<Account>()
        .clock(clock.clone())
        .start()
        .await
        .unwrap();
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    clock.set(Timestamp::from_micros(39));
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    let times: Vec<_> =
        entries(app.store(), "a").iter().map(|event| event.time.as_micros()).collect();
    assert_eq!(times, [17, 39]);
    app.shutdown().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// A task pipelines withdrawals and deposits, and each is decided as if it had run alone.
    #[test]
    fn each_decision_sees_the_fold_of_all_before_it(
        amounts in prop::collection::vec((-50..50_i64, any::<bool>()), 1..80),
        held in any::<bool>(),
    ) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(async {
            let (app, gate) = held_if(held).await;
            let mut sends = Vec::new();
            for (cents, pause) in &amounts {
                let (deposit, withdraw) = (Deposit { cents: *cents }, Withdraw { cents: -*cents });
                let (app, cents) = (app.clone(), *cents);
                sends.push(begin(async move {
                    match cents >= 0 {
                        true => app.send("a", deposit).await,
                        false => app.send("a", withdraw).await,
                    }
                }).await);
                if *pause {
                    if let Some(gate) = &gate { gate.let_through(1); }
                    tokio::task::yield_now().await;
                }
            }
            drop(gate);
            let mut model = Account::default();
            for ((cents, _), send) in amounts.iter().zip(sends) {
                let answer = send.end().await;
                if *cents < 0 && -cents > model.cents {
                    let lacking = Overdrawn { cents: model.cents, entries: model.entries };
                    assert!(matches!(answer, Err(SendError::Rejected(reason)) if reason == lacking));
                } else {
                    model.cents += cents;
                    model.entries += 1;
                    assert_eq!(answer.unwrap().version.as_u64(), model.entries);
                }
            }
            assert_eq!(fold(&entries(app.store(), "a")), model);
            app.shutdown().await.unwrap();
        });
    }
}

async fn held_if(yes: bool) -> (App, Option<Gate>) {
    let (app, gate) = held().await;
    (app, yes.then_some(gate))
}
