//! Guarantee 16 for the app: a store that is slow makes senders wait, and what is queued stays bounded.
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
use tidings::testing::{Faulty, Operation};
use tidings::{App, Memory};

/// Far more than may be queued anywhere.
const COMMANDS: u64 = 20_000;

#[tokio::test]
async fn a_held_commit_makes_senders_wait() {
    let (store, faults) = Faulty::new(Memory::new());
    let builder = App::builder().store(store).aggregate::<Account>();
    let app = builder.arbiters(1).inbox(64).start().await.unwrap();
    let gate = faults.hold(Operation::Commit);
    let mut sends = Vec::new();
    for number in 0..COMMANDS {
        sends.push(begin(app.send((number % 10).to_string(), Deposit { cents: 1 })).await);
    }
    let shard = || app.status().aggregates[0].shards[0];
    let last = sends.pop().unwrap();
    // It takes what it may, and no more: 16 turns of 256 commands each at most.
    let mut before = u64::MAX;
    while shard().turns < 16 || shard().decided != before {
        before = shard().decided;
        for send in &mut sends {
            send.poll().await;
        }
        tokio::task::yield_now().await;
    }
    assert!(shard().decided <= 17 * 256, "{:?}", shard());
    assert!(app.status().sequencer.queued_turns <= 16);
    assert!(sends.iter().all(|send| !send.is_done()));
    gate.open();
    for send in sends {
        soon("an answer", send.end()).await.unwrap();
    }
    soon("the last answer", last.end()).await.unwrap();
    assert_eq!(app.head().as_u64(), COMMANDS);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_held_load_makes_senders_wait() {
    let (store, faults) = Faulty::new(Memory::new());
    let builder = App::builder().store(store).aggregate::<Account>();
    let app = builder.arbiters(1).inbox(64).start().await.unwrap();
    let gate = faults.hold(Operation::ReadStream);
    let mut sends = Vec::new();
    for number in 0..COMMANDS {
        sends.push(begin(app.send(number.to_string(), Deposit { cents: 1 })).await);
    }
    let shard = || app.status().aggregates[0].shards[0];
    let mut most = 0;
    for _ in 0..200 {
        for send in sends.iter_mut().skip(most) {
            send.poll().await;
        }
        most = most.max(shard().waiting);
        tokio::task::yield_now().await;
    }
    assert!(most <= 4_096 + 256, "{most} wait");
    assert!(faults.count(Operation::ReadStream) <= 4);
    gate.open();
    for send in sends {
        soon("an answer", send.end()).await.unwrap();
    }
    assert_eq!(app.head().as_u64(), COMMANDS);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_subscriber_that_never_reads_keeps_nothing_in_memory_and_misses_nothing() {
    let builder = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = builder.topic_capacity(64).start().await.unwrap();
    let topic = app.topic::<AccountEvent>().unwrap();
    let mut subscription = topic.subscribe().open();
    for _ in 0..50 {
        let parts = vec![1; 100];
        app.send("a", DepositAll { parts }).await.unwrap();
        let status = topic.status();
        assert!(status.retained <= 2 * 64, "{status:?}");
    }
    let mut heard = Vec::new();
    while heard.len() < 5_000 {
        let batch = soon("the events", subscription.next()).await.unwrap().unwrap();
        heard.extend(batch.iter().map(|envelope| envelope.position.as_u64()));
    }
    assert_eq!(heard, (1..=5_000).collect::<Vec<_>>());
    app.shutdown().await.unwrap();
}
