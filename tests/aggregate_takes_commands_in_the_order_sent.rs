//! Promise 7: the commands of an aggregate run in the order in which they were sent, also past a full inbox.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use serde::{Deserialize, Serialize};
use tidings::{App, Command, Event, Memory, Sending, aggregate};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "line.joined")]
struct Joined {
    number: u64,
}

#[derive(Command, Clone)]
struct Join {
    number: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("{number} came after {last}")]
struct Late {
    number: u64,
    last: u64,
}

#[derive(Default)]
struct Line {
    last: u64,
}

#[aggregate(category = "line", events = LineEvent, error = Late)]
impl Line {
    #[command]
    fn join(&self, Join { number }: Join) -> Result<Joined, Late> {
        if number != self.last + 1 {
            return Err(Late {
                number,
                last: self.last,
            });
        }
        Ok(Joined { number })
    }

    #[apply]
    fn joined(&mut self, event: &Joined) {
        self.last = event.number;
    }
}

#[track_caller]
async fn check(inbox: usize, window: usize) {
    let app = App::builder()
        .store(Memory::new())
        .aggregate::<Line>()
        .inbox(inbox);
    let app = app.start().await.unwrap();
    let mut in_flight: VecDeque<Sending<Join>> = VecDeque::new();
    for number in 1..=20_000 {
        if in_flight.len() == window {
            in_flight.pop_front().unwrap().await.unwrap();
        }
        let mut sending = app.send("1", Join { number });
        match poll_fn(|cx| Poll::Ready(Pin::new(&mut sending).poll(cx))).await {
            Poll::Ready(answer) => drop(answer.unwrap()),
            Poll::Pending => in_flight.push_back(sending),
        }
    }
    for sending in in_flight {
        sending.await.unwrap();
    }
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn many_in_flight_arrive_in_order() {
    check(1_024, 1_000).await;
}

#[tokio::test]
async fn a_command_that_waits_for_room_is_not_overtaken() {
    check(8, 12).await;
    check(1, 100).await;
}

#[tokio::test]
async fn a_command_that_is_never_polled_is_never_sent() {
    let app = App::builder()
        .store(Memory::new())
        .aggregate::<Line>()
        .inbox(1);
    let app = app.start().await.unwrap();
    let mut number = 1;
    for _ in 0..1_000 {
        let mut sent = app.send("1", Join { number });
        let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut sent).poll(cx))).await;
        // Never polled, never sent.
        drop(app.send("1", Join { number: number + 7 }));
        if first.is_pending() {
            sent.await.unwrap();
        }
        number += 1;
    }
    assert_eq!(app.head().as_u64(), 1_000);
    app.shutdown().await.unwrap();
}
