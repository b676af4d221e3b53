//! Guarantee 21 for reactors: events of one key are handled one after the other in the order of the log, those of several keys at once, as
//! many as declared.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(feature = "sqlite")]

#[path = "support/bank.rs"]
mod bank;
#[path = "support/outside.rs"]
mod outside;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bank::*;
use outside::*;
use tidings::{App, Delivery, Memory, Reactor, reactor};

/// Four at once, by stream.
struct Fours(Outside);

#[reactor(name = "fours", concurrency = 4)]
impl Fours {
    #[on]
    async fn deposited(&self, event: &Deposited, delivery: &Delivery) -> Result<(), Answer> {
        self.0.arrive(event.cents, delivery).await
    }
}

/// By the last digit of the cents.
struct Digits(Outside);

#[reactor(name = "digits", concurrency = 4)]
impl Digits {
    #[on(key = event.cents % 10)]
    async fn deposited(&self, event: &Deposited, delivery: &Delivery) -> Result<(), Answer> {
        self.0.arrive(event.cents, delivery).await
    }

    #[on(key = taken.cents % 10)]
    async fn withdrawn(&self, taken: &Withdrawn, delivery: &Delivery) -> Result<(), Answer> {
        self.0.arrive(-taken.cents, delivery).await
    }
}

/// One after the other, whatever the key.
struct Single(Outside);

#[reactor(name = "single", concurrency = 1)]
impl Single {
    #[on]
    async fn deposited(&self, event: &Deposited, delivery: &Delivery) -> Result<(), Answer> {
        self.0.arrive(event.cents, delivery).await
    }
}

async fn start(reactor: impl Reactor) -> App {
    let builder = App::builder().store(Memory::new()).aggregate::<Account>();
    builder.reactor(reactor).start().await.unwrap()
}

async fn deposit(app: &App, account: &str, cents: i64) {
    app.send(account, Deposit { cents }).await.unwrap();
}

#[tokio::test]
async fn one_key_waits_for_its_event_and_the_others_go_on() {
    let outside = Outside::default();
    let app = start(Fours(outside.clone())).await;
    outside.treat(1, Treatment::Hold);
    for (account, cents) in [("a", 1), ("a", 2), ("b", 3), ("c", 4), ("a", 5), ("b", 6)] {
        deposit(&app, account, cents).await;
    }
    until("the others are done", || outside.done().len() == 3).await;
    assert_eq!(outside.inside(), [1]);
    assert!(outside.attempts(2).is_empty() && outside.attempts(5).is_empty());
    let done = outside.done();
    let place = |cents| done.iter().position(|done| *done == cents).unwrap();
    assert!(place(3) < place(6), "those of b are in order");
    assert_eq!(status(&app).position.as_u64(), 0);
    outside.release(1);
    until("all are done", || outside.done().len() == 6).await;
    assert_eq!(outside.done()[3..], [1, 2, 5]);
    until("the checkpoint has moved over all", || status(&app).lag_events == 0).await;
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn as_many_keys_as_declared_are_handled_at_once() {
    let outside = Outside::default();
    let app = start(Fours(outside.clone())).await;
    for number in 1..=6 {
        outside.treat(number, Treatment::Hold);
        deposit(&app, &format!("account{number}"), number).await;
    }
    until("four are inside", || outside.inside() == [1, 2, 3, 4]).await;
    outside.release(3);
    until("the next has come in", || outside.inside() == [1, 2, 4, 5]).await;
    for number in 1..=6 {
        outside.release(number);
    }
    until("all are done", || outside.done().len() == 6).await;
    assert_eq!(outside.most_inside(), 4);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_declared_key_keeps_events_of_several_streams_and_types_in_order() {
    let outside = Outside::default();
    let app = start(Digits(outside.clone())).await;
    outside.treat(17, Treatment::Hold);
    deposit(&app, "a", 17).await;
    deposit(&app, "b", 27).await;
    deposit(&app, "a", 18).await;
    app.send("b", Withdraw { cents: 7 }).await.unwrap();
    until("the other key is done", || outside.done() == [18]).await;
    assert_eq!(outside.inside(), [17]);
    outside.release(17);
    until("all are done", || outside.done().len() == 4).await;
    assert_eq!(outside.done()[1..], [17, 27, -7]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn with_one_at_once_the_order_is_that_of_the_log() {
    let outside = Outside::default();
    let app = start(Single(outside.clone())).await;
    outside.treat(1, Treatment::Hold);
    let mut dice = Dice::new(21);
    for cents in 1..=200 {
        deposit(&app, &format!("account{}", dice.roll() % 7), cents).await;
    }
    outside.release(1);
    until("all are done", || outside.done().len() == 200).await;
    assert_eq!(outside.done(), (1..=200).collect::<Vec<_>>());
    assert_eq!(outside.most_inside(), 1);
    app.shutdown().await.unwrap();
}

/// Yields to others a few times, and sees which keys are in hand meanwhile.
#[derive(Clone, Default)]
struct Crowd {
    inside: Arc<Mutex<HashMap<String, i64>>>,
    done: Arc<Mutex<HashMap<String, Vec<i64>>>>,
    most: Arc<Mutex<usize>>,
}

#[reactor(name = "crowd", concurrency = 8, retry(attempts = 20, first = "1 ms", longest = "1 ms"))]
impl Crowd {
    #[on]
    async fn deposited(&self, event: &Deposited, delivery: &Delivery) -> Result<(), String> {
        let key = delivery.stream.as_str().to_owned();
        {
            let mut inside = self.inside.lock().unwrap();
            let other = inside.insert(key.clone(), event.cents);
            assert_eq!(other, None, "two events of {key} are in hand");
            let mut most = self.most.lock().unwrap();
            *most = inside.len().max(*most);
        }
        for _ in 0..event.cents % 5 {
            tokio::task::yield_now().await;
        }
        self.inside.lock().unwrap().remove(&key);
        // Every seventh fails at first, some more than once.
        if event.cents % 7 == 0 && i64::from(delivery.attempt) <= event.cents % 3 {
            return Err("not yet".into());
        }
        self.done.lock().unwrap().entry(key).or_default().push(event.cents);
        Ok(())
    }
}

#[tokio::test]
async fn under_load_and_with_failures_each_key_is_in_order_and_never_in_hand_twice() {
    let crowd = Crowd::default();
    let app = start(crowd.clone()).await;
    let mut expected: HashMap<String, Vec<i64>> = HashMap::new();
    let mut dice = Dice::new(42);
    for cents in 1..=1_500 {
        let account = format!("account{}", dice.roll() % 40);
        deposit(&app, &account, cents).await;
        expected.entry(format!("account-{account}")).or_default().push(cents);
    }
    until("all are done", || status(&app).lag_events == 0 && status(&app).letters == 0).await;
    assert_eq!(*crowd.done.lock().unwrap(), expected);
    let most = *crowd.most.lock().unwrap();
    assert!((2..=8).contains(&most), "{most} at once");
    assert!(status(&app).retries > 0);
    app.shutdown().await.unwrap();
}
