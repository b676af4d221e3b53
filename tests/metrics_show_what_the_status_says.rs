//! The figures that an app shows through the `metrics` facade are those of its status, and each is described.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(feature = "metrics")]

#[path = "support/bank.rs"]
mod bank;
#[path = "support/barrier.rs"]
mod barrier;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bank::*;
use barrier::Barrier;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};
use tidings::testing::ManualClock;
use tidings::{App, Memory, projection};

/// Keeps the newest value of each figure. All clones are the same.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    /// By name and labels.
    values: BTreeMap<String, f64>,
    described: BTreeSet<String>,
    written: BTreeSet<String>,
}

/// One figure of a book.
struct Line {
    book: Book,
    key: String,
}

impl Line {
    fn new(book: &Book, key: &Key) -> Arc<Self> {
        book.0.lock().unwrap().written.insert(key.name().to_owned());
        let labels: Vec<_> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        let key = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::new(Self { book: book.clone(), key })
    }

    fn write(&self, value: f64) {
        self.book.0.lock().unwrap().values.insert(self.key.clone(), value);
    }
}

impl CounterFn for Line {
    fn increment(&self, _: u64) {
        panic!("{} is told as a whole", self.key);
    }
    fn absolute(&self, value: u64) {
        self.write(value as f64);
    }
}

impl GaugeFn for Line {
    fn increment(&self, _: f64) {
        panic!("{} is told as a whole", self.key);
    }
    fn decrement(&self, _: f64) {
        panic!("{} is told as a whole", self.key);
    }
    fn set(&self, value: f64) {
        self.write(value);
    }
}

impl Recorder for Book {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe_gauge(name, unit, SharedString::default());
    }
    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        assert_eq!(name.as_str().ends_with("_seconds"), unit == Some(Unit::Seconds));
        self.0.lock().unwrap().described.insert(name.as_str().to_owned());
    }
    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("{} is no histogram", name.as_str());
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Line::new(self, key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Line::new(self, key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("{} is no histogram", key.name());
    }
}

#[derive(Default)]
struct Watched(Barrier);

#[projection(name = "watched")]
impl Watched {
    #[on]
    fn deposited(&mut self, event: &Deposited) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.0.pass();
        if event.cents == 13 { Err("thirteen".into()) } else { Ok(()) }
    }
}

#[tokio::test]
async fn figures_are_written_down_while_it_runs_and_when_it_ends() {
    let book = Book::default();
    assert!(metrics::set_global_recorder(book.clone()).is_ok());
    let value = |figure: &str| book.0.lock().unwrap().values.get(figure).copied();
    let of_watched = |figure: &str| value(&format!("{figure}{{consumer=watched,kind=projection}}"));
    let state = |state: &str| {
        let labels = format!("consumer=watched,kind=projection,state={state}");
        value(&format!("tidings_consumer_state{{{labels}}}"))
    };

    let (clock, barrier) = (ManualClock::default(), Barrier::default());
    let builder = App::builder().store(Memory::new()).clock(clock.clone()).aggregate::<Account>();
    let builder = builder.projection(Watched(barrier.clone()));
    let app = builder.watchdog(Duration::from_millis(20)).start().await.unwrap();
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    app.settle().await.unwrap();
    until("it is live", || state("live") == Some(1.0)).await;
    barrier.set(true);
    for cents in [2, 13] {
        clock.advance(Duration::from_secs(20));
        app.send("a", Deposit { cents }).await.unwrap();
    }
    until("its lag shows", || of_watched("tidings_consumer_lag_seconds") == Some(40.0)).await;
    assert_eq!(of_watched("tidings_consumer_lag_events"), Some(2.0));
    let stalled = || of_watched("tidings_consumer_stalled_seconds").is_some_and(|time| time > 0.0);
    until("that it stands still shows", stalled).await;
    barrier.set(false);
    app.settle().await.unwrap();
    app.letters().of("watched").unwrap().retry_key("account-a").await.unwrap();
    app.shutdown().await.unwrap();

    // The last word is that of the end.
    let expected = [
        ("tidings_consumer_lag_events", 0.0),
        ("tidings_consumer_lag_seconds", 0.0),
        ("tidings_consumer_stalled_seconds", 0.0),
        ("tidings_consumer_parked_keys", 1.0),
        ("tidings_consumer_retrying_keys", 0.0),
        ("tidings_consumer_letters", 1.0),
        ("tidings_consumer_in_flight", 0.0),
        ("tidings_consumer_events_total", 2.0),
        ("tidings_consumer_retries_total", 1.0),
    ];
    for (figure, expected) in expected {
        assert_eq!(of_watched(figure), Some(expected), "{figure}");
    }
    assert_eq!((state("live"), state("stopped")), (Some(0.0), Some(1.0)));
    assert_eq!(value("tidings_log_head{}"), Some(3.0));
    assert_eq!(value("tidings_sequencer_commits_total{}"), Some(3.0));
    assert_eq!(value("tidings_sequencer_groups_total{}"), Some(3.0));
    assert_eq!(value("tidings_aggregate_decisions_total{category=account}"), Some(3.0));

    let pages = book.0.lock().unwrap();
    assert_eq!(pages.written, pages.described);
    assert_eq!(pages.written.len(), 18);
}
