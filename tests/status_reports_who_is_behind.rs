//! Guarantee 25: lag is reported in events and in age against the head of the log; a stopped reader is reported.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]

#[path = "support/bank.rs"]
mod bank;
#[path = "support/barrier.rs"]
mod barrier;

use std::error::Error;
use std::io;
use std::sync::{Mutex, Once};
use std::time::Duration;

use bank::*;
use barrier::Barrier;
use tidings::testing::ManualClock;
use tidings::{
    App, AppBuilder, Clock, ConsumerKind, ConsumerState, ConsumerStatus, Memory, Timestamp,
    projection,
};

/// When the clock of a test begins.
const NOON: Timestamp = Timestamp::from_micros(12 * 3_600_000_000);

/// A handler cannot fold this for good, nor that in time.
const REFUSED: i64 = 13;
const BUSY: i64 = 14;

fn fold(cents: i64) -> Result<(), Box<dyn Error + Send + Sync>> {
    match cents {
        REFUSED => Err("thirteen".into()),
        BUSY => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        _ => Ok(()),
    }
}

#[derive(Default)]
struct Watched(Barrier);

#[projection(name = "watched", retry(attempts = 1_000_000, first = "1 h"))]
impl Watched {
    #[on]
    fn deposited(&mut self, event: &Deposited) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.0.pass();
        fold(event.cents)
    }
}

struct Strict;

#[projection(name = "strict", on_failure = stop)]
impl Strict {
    #[on]
    fn deposited(&mut self, event: &Deposited) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(fold(event.cents).map_err(|error| io::Error::other(Unfit(error)))?)
    }
}

/// An error with a cause.
#[derive(Debug, thiserror::Error)]
#[error("it does not fit")]
struct Unfit(#[source] Box<dyn Error + Send + Sync>);

fn bank(clock: &ManualClock) -> AppBuilder {
    App::builder()
        .store(Memory::new())
        .clock(clock.clone())
        .aggregate::<Account>()
        .aggregate::<Ledger>()
}

fn status(app: &App, name: &str) -> ConsumerStatus {
    app.status().consumer(name).unwrap().clone()
}

async fn level(app: &App, name: &str) {
    until("it is level", || status(app, name).lag_events == 0).await;
}

#[tokio::test]
async fn lag_is_told_in_events_and_in_age() {
    let (clock, barrier) = (ManualClock::at(NOON), Barrier::default());
    let app = bank(&clock).projection(Watched(barrier.clone())).start().await.unwrap();
    let deposit = |cents| app.send("a", Deposit { cents });
    let lag = || {
        let status = status(&app, "watched");
        (status.position.as_u64(), status.lag_events, status.lag_age.as_secs())
    };
    assert_eq!(lag(), (0, 0, 0));

    // Before it has handled any event, the whole log is what it is behind.
    barrier.set(true);
    deposit(1).await.unwrap();
    clock.advance(Duration::from_secs(40));
    deposit(2).await.unwrap();
    assert_eq!(lag(), (0, 2, 40));
    barrier.set(false);
    level(&app, "watched").await;
    assert_eq!(lag(), (2, 0, 0));

    // An hour without an event for it is no lag: it was level with what others wrote meanwhile.
    clock.advance(Duration::from_secs(3_600));
    app.send("1", Book { number: 1 }).await.unwrap();
    level(&app, "watched").await;
    barrier.set(true);
    clock.advance(Duration::from_secs(5));
    deposit(3).await.unwrap();
    assert_eq!(lag(), (3, 1, 5));
    app.send("1", Book { number: 2 }).await.unwrap();
    clock.advance(Duration::from_secs(2));
    deposit(4).await.unwrap();
    assert_eq!(lag(), (3, 3, 7));
    // Against the head of the log, not against the clock: nothing more was written.
    clock.advance(Duration::from_secs(60));
    assert_eq!(lag(), (3, 3, 7));
    barrier.set(false);
    level(&app, "watched").await;
    let done = status(&app, "watched");
    assert_eq!((done.kind, done.state), (ConsumerKind::Projection, ConsumerState::Live));
    assert_eq!((done.handled, done.retries, done.letters), (4, 0, 0));
    assert!(done.rate > 0.0, "{done:?}");
    assert_eq!((done.trouble, done.last_error, done.stalled), (None, None, None));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn keys_that_wait_and_keys_that_are_tried_again_are_told_apart() {
    let clock = ManualClock::at(NOON);
    let app = bank(&clock).projection(Watched::default()).start().await.unwrap();
    for (id, cents) in [("a", 1), ("a", REFUSED), ("a", 2), ("b", BUSY), ("c", 3)] {
        clock.advance(Duration::from_secs(1));
        app.send(id, Deposit { cents }).await.unwrap();
        level(&app, "watched").await;
    }
    let found = status(&app, "watched");
    assert_eq!((found.parked_keys, found.retrying_keys, found.letters), (1, 1, 3));
    assert_eq!((found.state, found.handled, found.retries), (ConsumerState::Live, 2, 0));
    let newest = found.last_error.unwrap();
    assert_eq!(newest.error, io::Error::from(io::ErrorKind::TimedOut).to_string());
    assert!(newest.at.until(clock.now()) < Duration::from_secs(2));
    let letters = app.letters().of("watched").unwrap();
    letters.retry_key("account-a").await.unwrap();
    let found = status(&app, "watched");
    assert_eq!((found.retries, found.last_error.unwrap().error.as_str()), (1, "thirteen"));
    let data = serde_json::to_value(app.status()).unwrap();
    let consumer = &data["consumers"][0];
    assert_eq!((&consumer["kind"], &consumer["letters"]), (&"projection".into(), &3.into()));
    app.shutdown().await.unwrap();
}

/// What was traced about consumers that stand still or go on, by whichever test of this file: the message and the consumer.
static TRACED: Mutex<Vec<(tracing::Level, String)>> = Mutex::new(Vec::new());

struct Traces;

impl tracing::Subscriber for Traces {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().ends_with("watchdog")
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        TRACED.lock().unwrap().push((*event.metadata().level(), text.0));
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[derive(Default)]
struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!("{field}={value:?} "));
    }
}

/// Records what is traced, and returns how often each level was about `consumer`.
fn traced(consumer: &str) -> (usize, usize) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| tracing::subscriber::set_global_default(Traces).unwrap());
    let of = format!("consumer={consumer:?} ");
    let traced = TRACED.lock().unwrap();
    let count = |level| traced.iter().filter(|(l, text)| *l == level && text.contains(&of)).count();
    (count(tracing::Level::WARN), count(tracing::Level::INFO))
}

#[derive(Default)]
struct Held(Barrier);

#[projection(name = "held")]
impl Held {
    #[on]
    fn deposited(&mut self, _: &Deposited) {
        self.0.pass();
    }
}

#[tokio::test]
async fn a_reader_that_stands_still_is_reported_once_and_again_when_it_goes_on() {
    assert_eq!(traced("held"), (0, 0));
    let (clock, barrier) = (ManualClock::at(NOON), Barrier::default());
    let builder = bank(&clock).projection(Held(barrier.clone()));
    let app = builder.watchdog(Duration::from_millis(20)).start().await.unwrap();
    for round in 1..=2 {
        barrier.set(true);
        app.send("a", Deposit { cents: round }).await.unwrap();
        // The handler blocks the thread of all projections, and is seen all the same.
        until("it is reported", || status(&app, "held").stalled.is_some()).await;
        let since = status(&app, "held").stalled.unwrap();
        assert!(since >= Duration::from_millis(20), "{since:?}");
        until("it stands longer", || status(&app, "held").stalled.unwrap() > since * 3).await;
        let times = usize::try_from(round).unwrap();
        assert_eq!(traced("held"), (times, times - 1));
        barrier.set(false);
        until("it goes on", || status(&app, "held").stalled.is_none()).await;
        until("that is traced", || traced("held") == (times, times)).await;
    }
    app.shutdown().await.unwrap();
    // While it was level, before, between and after, it did not stand still.
    assert_eq!(traced("held"), (2, 2));
}

#[tokio::test]
async fn a_reader_that_stopped_is_reported_at_once_with_all_causes() {
    let clock = ManualClock::at(NOON);
    assert_eq!(traced("strict").0, 0);
    // It need not be waited for as long as one that may go on.
    let builder = bank(&clock).projection(Strict).watchdog(Duration::from_secs(3_600));
    let app = builder.start().await.unwrap();
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    clock.advance(Duration::from_secs(9));
    app.send("a", Deposit { cents: REFUSED }).await.unwrap();
    until("it is reported", || status(&app, "strict").stalled.is_some()).await;
    let found = status(&app, "strict");
    assert_eq!((found.state, found.position.as_u64()), (ConsumerState::Stopped, 1));
    assert_eq!((found.lag_events, found.lag_age), (1, Duration::from_secs(9)));
    let trouble = found.trouble.unwrap();
    assert!(
        trouble.ends_with("at position 2 of account-a: it does not fit: thirteen"),
        "{trouble}"
    );
    let last = found.last_error.unwrap();
    assert_eq!((last.error, last.at), (trouble.clone(), clock.now()));
    until("that is traced", || traced("strict").0 == 1).await;
    let map = app.map();
    let part = map.components.iter().find(|part| part.name == "strict").unwrap();
    assert_eq!(part.trouble.as_ref(), Some(&trouble));
    app.shutdown().await.unwrap();
    // That the app ended it is no news.
    assert_eq!(traced("strict").0, 1);
}
