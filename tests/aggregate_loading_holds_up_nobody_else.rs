//! Loading one aggregate, however long it takes, does not hold up others of its shard.
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
use tidings::testing::{Fault, Faulty, Operation};
use tidings::{App, Memory, SendError};

#[tokio::test]
async fn others_are_loaded_and_decided_while_one_is_being_loaded() {
    let (store, faults) = Faulty::new(Memory::new());
    let builder = App::builder().store(store).aggregate::<Account>();
    let app = builder.arbiters(1).start().await.unwrap();
    app.send("warm", Deposit { cents: 5 }).await.unwrap();
    let mut gate = faults.hold_stream(account("slow"));
    let slow = begin(app.send("slow", Deposit { cents: 1 })).await;
    gate.reached(1).await;
    soon("a live account", app.send("warm", Withdraw { cents: 5 })).await.unwrap();
    for number in 0..300 {
        let cold = app.send(number.to_string(), Deposit { cents: 1 });
        soon("a cold account", cold).await.unwrap();
    }
    gate.open();
    assert_eq!(slow.end().await.unwrap().version.as_u64(), 1);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn those_that_arrive_together_with_the_slow_one_do_not_wait_for_it() {
    let (store, faults) = Faulty::new(Memory::new());
    let builder = App::builder().store(store).aggregate::<Account>();
    let app = builder.arbiters(1).start().await.unwrap();
    // While everything is held, the streams gather behind the first.
    let gate = faults.hold_stream(account("0"));
    let mut sends = Vec::new();
    for number in 0..100 {
        sends.push(begin(app.send(number.to_string(), Deposit { cents: 1 })).await);
    }
    let slow = sends.remove(0);
    for send in sends {
        soon("another account", send.end()).await.unwrap();
    }
    gate.open();
    slow.end().await.unwrap();
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_long_stream_is_loaded_whole() {
    let (store, faults) = Faulty::new(Memory::new());
    let builder = App::builder().store(store).aggregate::<Account>();
    let app = builder.max_live(1).arbiters(1).start().await.unwrap();
    for length in [999, 1, 1, 2_999] {
        let parts = vec![1; length];
        app.send("long", DepositAll { parts }).await.unwrap();
        let total = entries(app.store(), "long").len() as i64;
        // Others push it out of the memory.
        for other in ["a", "b", "c"] {
            app.send(other, Deposit { cents: 1 }).await.unwrap();
        }
        until("it is passivated", || app.status().aggregates[0].live() <= 1).await;
        let answer = app.send("long", Withdraw { cents: total + 1 }).await;
        let lacking = Overdrawn { cents: total, entries: total as u64 };
        assert!(matches!(answer, Err(SendError::Rejected(reason)) if reason == lacking));
    }
    assert!(faults.count(Operation::ReadStream) > 8);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_reported_and_tried_again_with_the_next_command() {
    let (store, faults) = Faulty::new(Memory::new());
    let builder = App::builder().store(store).aggregate::<Account>();
    let app = builder.start().await.unwrap();
    for operation in [Operation::ReadStream, Operation::FindCommand] {
        let name = format!("{operation:?}");
        let id = tidings::CommandId::from_name(&name);
        faults.fail(operation, 1, Fault::Failed);
        let answer = app.send(&name, Deposit { cents: 1 }).command_id(id).await;
        assert!(matches!(answer, Err(SendError::Store(_))));
        let again = app.send(&name, Deposit { cents: 1 }).command_id(id).await;
        assert_eq!(again.unwrap().version.as_u64(), 1);
    }
    app.shutdown().await.unwrap();
}
