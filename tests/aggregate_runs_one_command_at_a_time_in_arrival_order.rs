//! Guarantee 7: at most one live actor for an aggregate; its commands run one at a time, in the order of their arrival.
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
use std::time::Duration;

use bank::*;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidings::testing::{Faulty, Operation};
use tidings::{App, Command, Context, Event, EventStore, Memory, aggregate};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "queue.entered", version = 1)]
struct Entered {
    sender: usize,
    number: u64,
}

#[derive(Command, Clone)]
struct Enter {
    sender: usize,
    number: u64,
}

#[derive(Default)]
struct Queue {
    length: u64,
}

/// Which aggregates are deciding at this moment.
static DECIDING: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[aggregate(category = "queue", events = QueueEvent, error = std::convert::Infallible)]
impl Queue {
    #[command]
    fn enter(&self, command: Enter, context: &Context) -> Entered {
        let name = context.stream.id().to_owned();
        {
            let mut deciding = DECIDING.lock();
            assert!(!deciding.contains(&name), "{name} decides twice at once");
            deciding.push(name.clone());
        }
        if name == "held" {
            drop(HELD.lock());
        }
        // Long enough that a second actor would be caught.
        std::thread::yield_now();
        DECIDING.lock().retain(|other| *other != name);
        Entered { sender: command.sender, number: command.number }
    }
    #[apply]
    fn entered(&mut self, _: &Entered) {
        self.length += 1;
    }
}

/// The senders' numbers in the order in which they stand in the streams.
fn order(store: &dyn EventStore) -> HashMap<(String, usize), Vec<u64>> {
    let mut order: HashMap<_, Vec<u64>> = HashMap::new();
    for recorded in whole_log(store) {
        let QueueEvent::Entered(Entered { sender, number }) = recorded.decode().unwrap();
        let key = (recorded.stream.id().to_owned(), sender);
        order.entry(key).or_default().push(number);
    }
    order
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_senders_each_find_their_commands_in_the_order_of_sending() {
    const SENDERS: usize = 8;
    const EACH: u64 = 400;
    let app = App::builder()
        .store(Memory::new())
        .aggregate::<Queue>()
        .arbiters(2)
        .max_live(2)
        .passivate_after(Duration::from_millis(1))
        .start()
        .await
        .unwrap();
    let senders = (0..SENDERS).map(|sender| {
        let app = app.clone();
        tokio::spawn(async move {
            for start in (0..EACH).step_by(10) {
                let mut sends = Vec::new();
                for number in start..start + 10 {
                    let id = (number % 3).to_string();
                    let send = app.send(id, Enter { sender, number });
                    sends.push(begin(send).await);
                }
                for send in sends {
                    send.end().await.unwrap();
                }
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        soon("a sender", sender).await.unwrap();
    }
    let order = order(app.store());
    assert_eq!(order.len(), SENDERS * 3);
    for ((id, sender), numbers) in order {
        let expected: Vec<_> = (0..EACH).filter(|n| (n % 3).to_string() == id).collect();
        assert_eq!(numbers, expected, "sender {sender} at {id}");
    }
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn commands_that_wait_for_a_load_keep_their_order_with_those_that_come_later() {
    let (store, faults) = Faulty::new(Memory::new());
    let app = App::builder().store(store).aggregate::<Queue>().start().await.unwrap();
    let mut gate = faults.hold(Operation::ReadStream);
    let enter = |number| app.send("waits", Enter { sender: 0, number });
    let mut sends = Vec::new();
    for number in 0..50 {
        // Some have an id to be looked up, and none overtakes another.
        let id = tidings::CommandId::from_name(&number.to_string());
        let send = enter(number);
        sends.push(begin(if number % 3 == 0 { send.command_id(id) } else { send }).await);
    }
    gate.reached(1).await;
    until("all wait", || {
        let status = app.status();
        status.aggregates[0].shards.iter().map(|s| s.waiting).sum::<usize>() == 50
    })
    .await;
    gate.open();
    for number in 50..100 {
        sends.push(begin(enter(number)).await);
    }
    for send in sends {
        send.end().await.unwrap();
    }
    assert_eq!(order(app.store())[&("waits".into(), 0)], (0..100).collect::<Vec<_>>());
    // One load served them all.
    assert_eq!(faults.count(Operation::ReadStream), 1);
    app.shutdown().await.unwrap();
}

/// Deciding at this aggregate waits until the lock is free.
static HELD: Mutex<()> = Mutex::new(());

async fn decided(app: &App, expected: u64) {
    until("they are decided", || {
        let status = app.status();
        status.aggregates[0].shards.iter().map(|s| s.decided).sum::<u64>() >= expected
    })
    .await;
}

#[tokio::test]
#[expect(
    clippy::await_holding_lock,
    reason = "it holds the shard's thread, which no task of this one waits for"
)]
async fn commands_begun_in_order_arrive_in_order_though_the_inbox_is_full() {
    let builder = App::builder().store(Memory::new()).aggregate::<Queue>();
    let app = builder.inbox(2).start().await.unwrap();
    let enter = |number| app.send("held", Enter { sender: 0, number });
    let held = HELD.lock();
    let mut sends = vec![begin(enter(0)).await];
    until("the shard is held", || DECIDING.lock().contains(&"held".into())).await;
    // Two have room, one waits for it.
    for number in 1..4 {
        sends.push(begin(enter(number)).await);
    }
    drop(held);
    // The inbox has room again, but the one that waits was there before the next.
    decided(&app, 3).await;
    for number in 4..8 {
        sends.push(begin(enter(number)).await);
    }
    for send in sends {
        soon("an answer", send.end()).await.unwrap();
    }
    assert_eq!(order(app.store())[&("held".into(), 0)], (0..8).collect::<Vec<_>>());
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn commands_that_nobody_awaits_any_more_keep_no_room_in_the_inbox() {
    let (store, faults) = Faulty::new(Memory::new());
    let builder = App::builder().store(store).aggregate::<Queue>();
    let app = builder.inbox(4).arbiters(1).start().await.unwrap();
    let gate = faults.hold(Operation::Commit);
    let enter = |number| app.send("full", Enter { sender: 0, number });
    let mut sends = Vec::new();
    for number in 0..500 {
        sends.push(begin(enter(number)).await);
    }
    gate.open();
    // They are kept, and polled no more.
    soon("another one's answer", app.send("other", Enter { sender: 0, number: 0 })).await.unwrap();
    for send in sends {
        soon("an answer", send.end()).await.unwrap();
    }
    app.shutdown().await.unwrap();
}
