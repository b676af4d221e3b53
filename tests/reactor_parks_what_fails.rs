//! Guarantees 21 and 22 for reactors: an event that fails parks its key and no other, later events of that key wait in order, retry
//! drains them in order, and nothing is skipped without a record.
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

use std::error::Error;
use std::time::Duration;

use bank::*;
use outside::*;
use tidings::{
    App, Commit, ConsumerState, Delivery, ErrorClass, EventStore, ExpectedVersion, Header,
    LetterError, LetterState, Memory, Position, Reactor, Recorded, Timestamp, reactor,
};

fn classify(error: &(dyn Error + 'static)) -> ErrorClass {
    match error.downcast_ref::<Answer>() {
        Some(Answer::Never(_)) => ErrorClass::Permanent,
        _ => ErrorClass::Transient,
    }
}

/// Tells the outside of each deposit, at most three times.
struct Teller(Outside);

#[reactor(
    name = "teller",
    concurrency = 4,
    retry(attempts = 3, first = "1 ms", longest = "1 ms"),
    classify = classify
)]
impl Teller {
    #[on]
    async fn deposited(&self, event: &Deposited, delivery: &Delivery) -> Result<(), Answer> {
        self.0.arrive(event.cents, delivery).await
    }
}

/// The same, and stops before what fails.
struct Stubborn(Outside);

#[reactor(
    name = "stubborn",
    concurrency = 1,
    retry(attempts = 3, first = "1 ms", longest = "1 ms"),
    classify = classify,
    on_failure = stop
)]
impl Stubborn {
    #[on]
    async fn deposited(&self, event: &Deposited, delivery: &Delivery) -> Result<(), Answer> {
        self.0.arrive(event.cents, delivery).await
    }
}

/// Waits no longer than ten milliseconds, and parks one key at most.
struct Impatient(Outside);

#[reactor(
    name = "impatient",
    timeout = "10 ms",
    retry(attempts = 1, first = "1 ms", longest = "1 ms"),
    max_parked_keys = 1
)]
impl Impatient {
    #[on]
    async fn deposited(&self, event: &Deposited, delivery: &Delivery) -> Result<(), Answer> {
        self.0.arrive(event.cents, delivery).await
    }
}

async fn start(store: impl EventStore, reactor: impl Reactor) -> App {
    let builder = App::builder().store(store).aggregate::<Account>();
    builder.reactor(reactor).start().await.unwrap()
}

async fn deposit(app: &App, account: &str, cents: i64) -> Position {
    app.send(account, Deposit { cents }).await.unwrap().position
}

async fn level(app: &App) {
    until("the reactor is level", || status(app).lag_events == 0).await;
}

/// Waits until the letters of `key` are in these states, in the order of the log.
async fn shelved(app: &App, key: &str, states: &[LetterState]) {
    until("the letters are as expected", || {
        let letters = letters(app).of_key(key);
        letters.iter().map(|letter| letter.state).collect::<Vec<_>>() == states
    })
    .await;
}

use LetterState::{Parked, Waiting};

#[tokio::test]
async fn what_fails_too_often_is_parked_and_other_keys_go_on() {
    let outside = Outside::default();
    outside.treat(1, Treatment::Fail(u32::MAX));
    let app = start(Memory::new(), Teller(outside.clone())).await;
    let failing = deposit(&app, "a", 1).await;
    deposit(&app, "a", 2).await;
    deposit(&app, "b", 3).await;
    deposit(&app, "a", 4).await;
    shelved(&app, "account-a", &[Parked, Waiting, Waiting]).await;
    level(&app).await;
    assert_eq!(outside.done(), [3]);
    let letter = letters(&app).at(failing).unwrap();
    assert_eq!((letter.tried, letter.attempts.len()), (3, 3));
    assert!(letter.attempts.iter().all(|attempt| attempt.class == ErrorClass::Transient));
    assert_eq!(letter.error(), Some("1 cents are too much today"));
    let status = status(&app);
    assert_eq!((status.parked_keys, status.letters, status.retries), (1, 3, 2));
    assert_eq!((status.state, status.trouble), (ConsumerState::Live, None));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_retry_drains_the_key_in_order_with_the_attempts_counted_on() {
    let outside = Outside::default();
    outside.treat(1, Treatment::Fail(u32::MAX));
    let app = start(Memory::new(), Teller(outside.clone())).await;
    let failing = deposit(&app, "a", 1).await;
    for cents in 2..=5 {
        deposit(&app, "a", cents).await;
    }
    shelved(&app, "account-a", &[Parked, Waiting, Waiting, Waiting, Waiting]).await;
    let letters = letters(&app);
    let failed = letters.retry(failing).await.unwrap();
    assert_eq!((failed.handled, failed.failed.len()), (0, 1));
    assert_eq!(failed.failed[0].tried, 4);
    outside.release(1);
    let retried = letters.retry(failing).await.unwrap();
    assert_eq!((retried.handled, retried.failed), (5, vec![]));
    assert_eq!(outside.done(), [1, 2, 3, 4, 5]);
    let attempts = outside.attempts(1);
    assert_eq!(attempts.iter().map(|seen| seen.attempt).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(attempts.iter().all(|seen| seen.id == attempts[0].id));
    // The key is free again.
    deposit(&app, "a", 6).await;
    until("the next is done", || outside.done().last() == Some(&6)).await;
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_error_that_does_not_pass_parks_at_once() {
    let outside = Outside::default();
    outside.treat(1, Treatment::Refuse);
    let app = start(Memory::new(), Teller(outside.clone())).await;
    deposit(&app, "a", 1).await;
    shelved(&app, "account-a", &[Parked]).await;
    let [letter] = letters(&app).list().try_into().unwrap();
    assert_eq!((letter.tried, letter.attempts[0].class), (1, ErrorClass::Permanent));
    assert_eq!(outside.attempts(1).len(), 1);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_panic_parks_at_once_and_harms_nobody_else() {
    let outside = Outside::default();
    outside.treat(1, Treatment::Panic);
    outside.treat(2, Treatment::Hold);
    let app = start(Memory::new(), Teller(outside.clone())).await;
    deposit(&app, "b", 2).await;
    until("another is in hand", || outside.inside() == [2]).await;
    deposit(&app, "a", 1).await;
    shelved(&app, "account-a", &[Parked]).await;
    assert_eq!(letters(&app).list()[0].error(), Some("it panicked: 1 cents"));
    outside.release(2);
    level(&app).await;
    assert_eq!(outside.done(), [2]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_dropped_and_counts_as_one_that_passes() {
    let outside = Outside::default();
    outside.treat(1, Treatment::Hold);
    let app = start(Memory::new(), Impatient(outside.clone())).await;
    let position = deposit(&app, "a", 1).await;
    shelved(&app, "account-a", &[Parked]).await;
    assert!(outside.inside().is_empty(), "the attempt was dropped");
    let letter = letters(&app).at(position).unwrap();
    assert_eq!(letter.error(), Some("it was not done within 10ms"));
    assert_eq!(letter.attempts[0].class, ErrorClass::Transient);
    app.shutdown().await.unwrap();
}

/// A log that holds a deposit whose payload is none, between two that are good.
fn with_an_unreadable_event() -> Memory {
    let store = Memory::new();
    let recorded = |payload: &str| Recorded {
        header: Header::new(account("a"), "account.deposited", 1, Timestamp::from_micros(1)),
        payload: payload.as_bytes().into(),
    };
    let events = [r#"{"cents":1}"#, r#"{"euros":2}"#, r#"{"cents":3}"#].map(recorded);
    let commit = Commit::new().append(account("a"), ExpectedVersion::Any, events.into());
    store.commit(&mut [commit]).unwrap().pop().unwrap().unwrap();
    store
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_parked_and_can_be_edited() {
    let outside = Outside::default();
    let app = start(with_an_unreadable_event(), Teller(outside.clone())).await;
    shelved(&app, "account-a", &[Parked, Waiting]).await;
    let letters = letters(&app);
    let unreadable = Position::new(2);
    assert!(letters.at(unreadable).unwrap().error().unwrap().contains("does not fit its type"));
    let refused = letters.edit(unreadable, *br#"{"dollars":2}"#).await.unwrap_err();
    assert!(matches!(refused, LetterError::Edit(_)), "{refused}");
    assert_eq!(letters.list().len(), 2);
    let edited = letters.edit(unreadable, *br#"{"cents":2}"#).await.unwrap();
    assert_eq!(edited.handled, 2);
    assert_eq!(outside.done(), [1, 2, 3]);
    assert_eq!(letters.resolutions().len(), 1);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_letter_that_is_discarded_is_skipped_with_its_reason_on_record() {
    let outside = Outside::default();
    outside.treat(1, Treatment::Refuse);
    let app = start(Memory::new(), Teller(outside.clone())).await;
    let refused = deposit(&app, "a", 1).await;
    let waiting = deposit(&app, "a", 2).await;
    shelved(&app, "account-a", &[Parked, Waiting]).await;
    let letters = letters(&app);
    let early = letters.retry(waiting).await.unwrap_err();
    assert!(matches!(early, LetterError::NotFirst { .. }), "{early}");
    let discarded = letters.discard(refused, "the customer is gone").await.unwrap();
    assert_eq!((discarded.handled, discarded.failed), (1, vec![]));
    assert_eq!(outside.done(), [2]);
    assert!(format!("{:?}", letters.resolutions()).contains("the customer is gone"));
    let gone = letters.discard(refused, "again").await.unwrap_err();
    assert!(matches!(gone, LetterError::NotFound { .. }), "{gone}");
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn letters_beyond_the_checkpoint_survive_a_restart_and_are_delivered_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let outside = Outside::default();
    outside.treat(1, Treatment::Hold);
    outside.treat(2, Treatment::Refuse);
    let app = start(sqlite(&path), Teller(outside.clone())).await;
    // It is held before the letters, and the checkpoint with it.
    deposit(&app, "slow", 1).await;
    let refused = deposit(&app, "a", 2).await;
    deposit(&app, "a", 3).await;
    shelved(&app, "account-a", &[Parked, Waiting]).await;
    assert_eq!(status(&app).position, Position::START);
    app.shutdown_within(Duration::ZERO).await.unwrap_err();
    drop(app);
    outside.release(1);
    let app = start(sqlite(&path), Teller(outside.clone())).await;
    deposit(&app, "a", 4).await;
    shelved(&app, "account-a", &[Parked, Waiting, Waiting]).await;
    level(&app).await;
    assert_eq!(outside.attempts(2).len(), 1, "it waits for a person");
    assert_eq!(outside.done(), [1]);
    outside.release(2);
    assert_eq!(letters(&app).retry(refused).await.unwrap().handled, 3);
    assert_eq!(outside.done(), [1, 2, 3, 4]);
    assert_eq!(outside.attempts(2).last().unwrap().attempt, 2);
    app.shutdown().await.unwrap();
    drop(app);
    let app = start(sqlite(&path), Teller(outside.clone())).await;
    assert!(letters(&app).list().is_empty());
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_event_that_was_edited_survives_a_restart_as_a_letter_of_its_old_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let outside = Outside::default();
    outside.treat(1, Treatment::Hold);
    outside.treat(2, Treatment::Refuse);
    outside.treat(7, Treatment::Refuse);
    let app = start(sqlite(&path), Teller(outside.clone())).await;
    deposit(&app, "slow", 1).await;
    let refused = deposit(&app, "a", 2).await;
    shelved(&app, "account-a", &[Parked]).await;
    let edited = letters(&app).edit(refused, *br#"{"cents":7}"#).await.unwrap();
    assert_eq!(edited.failed[0].error(), Some("7 cents are never taken"));
    app.shutdown_within(Duration::ZERO).await.unwrap_err();
    drop(app);
    outside.release(1);
    outside.release(7);
    let app = start(sqlite(&path), Teller(outside.clone())).await;
    level(&app).await;
    assert_eq!(letters(&app).retry(refused).await.unwrap().handled, 1);
    assert_eq!(outside.done(), [1, 7]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_reactor_that_may_not_pass_an_event_tries_it_in_its_place_and_then_stops() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let outside = Outside::default();
    outside.treat(2, Treatment::Fail(2));
    outside.treat(4, Treatment::Fail(u32::MAX));
    let app = start(sqlite(&path), Stubborn(outside.clone())).await;
    for (account, cents) in [("a", 1), ("a", 2), ("b", 3), ("c", 4), ("d", 5)] {
        deposit(&app, account, cents).await;
    }
    until("it has stopped", || status(&app).state == ConsumerState::Stopped).await;
    assert_eq!(outside.done(), [1, 2, 3]);
    assert_eq!(outside.attempts(2).len(), 3);
    assert_eq!(outside.attempts(4).iter().map(|seen| seen.attempt).max(), Some(3));
    let stopped = status(&app);
    assert_eq!((stopped.position, stopped.letters), (Position::new(3), 0));
    let trouble = stopped.trouble.unwrap();
    assert!(trouble.contains("account-c") && trouble.contains("4 cents"), "{trouble}");
    let map = app.map();
    let shown = map.components.iter().find(|component| component.name == "stubborn").unwrap();
    assert_eq!(shown.trouble.as_deref(), Some(&*trouble));
    app.shutdown().await.unwrap();
    drop(app);
    outside.release(4);
    let app = start(sqlite(&path), Stubborn(outside.clone())).await;
    level(&app).await;
    assert_eq!(outside.done(), [1, 2, 3, 4, 5]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn too_many_parked_keys_stop_it_until_there_is_room() {
    let outside = Outside::default();
    outside.treat(1, Treatment::Fail(u32::MAX));
    outside.treat(2, Treatment::Fail(u32::MAX));
    let app = start(Memory::new(), Impatient(outside.clone())).await;
    let first = deposit(&app, "a", 1).await;
    shelved(&app, "account-a", &[Parked]).await;
    let second = deposit(&app, "b", 2).await;
    until("it stands still", || status(&app).state == ConsumerState::Stopped).await;
    deposit(&app, "c", 3).await;
    let still = status(&app);
    assert_eq!(still.position, first);
    assert!(still.trouble.unwrap().contains("1 keys with 1 letters are parked"));
    assert!(outside.attempts(3).is_empty());
    outside.release(1);
    assert_eq!(letters(&app).retry(first).await.unwrap().handled, 1);
    level(&app).await;
    assert_eq!(outside.done(), [1, 3]);
    assert_eq!(letters(&app).list()[0].position, second);
    assert_eq!(status(&app).state, ConsumerState::Live);
    app.shutdown().await.unwrap();
    let refused = letters(&app).retry(second).await.unwrap_err();
    assert!(matches!(refused, LetterError::Stopped { consumer: "impatient" }), "{refused}");
}

/// Its errors cannot be classified, or not be shown.
struct Brittle(Outside);

#[derive(Debug)]
struct Unspeakable(i64);

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            1 => panic!("unspeakable"),
            cents => write!(f, "{cents} cents"),
        }
    }
}

impl Error for Unspeakable {}

fn classify_or_panic(error: &(dyn Error + 'static)) -> ErrorClass {
    match error.downcast_ref() {
        Some(Unspeakable(2)) => panic!("no class"),
        _ => ErrorClass::Permanent,
    }
}

#[reactor(name = "brittle", classify = classify_or_panic)]
impl Brittle {
    #[on]
    async fn deposited(&self, event: &Deposited, delivery: &Delivery) -> Result<(), Unspeakable> {
        if event.cents < 3 {
            return Err(Unspeakable(event.cents));
        }
        self.0.arrive(event.cents, delivery).await.map_err(|_| Unspeakable(event.cents))
    }
}

#[tokio::test]
async fn errors_and_classifications_that_panic_park_their_event_alone() {
    let outside = Outside::default();
    let app = start(Memory::new(), Brittle(outside.clone())).await;
    for (account, cents) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        deposit(&app, account, cents).await;
    }
    level(&app).await;
    let mut done = outside.done();
    done.sort_unstable();
    assert_eq!(done, [3, 4]);
    shelved(&app, "account-a", &[Parked]).await;
    shelved(&app, "account-b", &[Parked]).await;
    let letters = letters(&app).of_key("account-a");
    assert!(letters[0].error().unwrap().contains("unspeakable"), "{letters:?}");
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_letter_that_is_being_tried_is_not_taken_for_a_parked_one() {
    let outside = Outside::default();
    outside.treat(1, Treatment::Refuse);
    let app = start(Memory::new(), Teller(outside.clone())).await;
    let refused = deposit(&app, "a", 1).await;
    shelved(&app, "account-a", &[Parked]).await;
    outside.treat(1, Treatment::Hold);
    let letters = letters(&app);
    let retried = tokio::spawn(async move { letters.retry(refused).await });
    until("it is tried again", || outside.inside() == [1]).await;
    let found = status(&app);
    assert_eq!((found.in_flight, found.parked_keys, found.retrying_keys), (1, 0, 1));
    outside.release(1);
    assert_eq!(retried.await.unwrap().unwrap().handled, 1);
    app.shutdown().await.unwrap();
}
