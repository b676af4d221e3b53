//! Guarantee 35: upcasting is pure and total. Whatever payload an older version could write is readable today, reads the same each
//! time, and reads the same for every reader.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "macros", feature = "sqlite"))]

#[path = "support/stored.rs"]
mod stored;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde::{Deserialize, Serialize};
use stored::{KINDS, Old, append, log, old, stream};
use tidings::{
    Aggregate, App, Codec, Command, DecodeError, Event, EventSet, Header, Json, Position,
    aggregate, decode_event, projection, reactor, upcasts,
};

/// Version 1: one amount as a fraction, no currency. Its type is gone from the program, and is here to write what it wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct V1 {
    euros: f64,
    payer: Option<String>,
}

/// Version 2: cents, with notes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct V2 {
    cents: i64,
    payer: Payer,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    notes: BTreeMap<i8, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Payer {
    Unknown,
    Named(String),
    Numbered { number: u64 },
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "till.paid", version = 4)]
struct Paid {
    cents: i64,
    payer: String,
    notes: u64,
    currency: String,
}

/// Version 3, by its JSON alone.
#[upcasts]
impl Paid {
    #[upcast(from = 1)]
    fn in_cents(old: Json) -> V2 {
        let cents = (old["euros"].as_f64().unwrap_or_default() * 100.0).round() as i64;
        let payer = old["payer"].as_str().map(str::to_owned);
        V2 { cents, payer: payer.map_or(Payer::Unknown, Payer::Named), notes: BTreeMap::new() }
    }

    #[upcast(from = 2)]
    fn without_enum(old: V2) -> Json {
        let payer = match old.payer {
            Payer::Unknown => String::new(),
            Payer::Named(name) => name,
            Payer::Numbered { number } => number.to_string(),
        };
        serde_json::json!({ "cents": old.cents, "payer": payer, "notes": old.notes.len() })
    }

    #[upcast(from = 3)]
    fn with_currency(mut old: Json) -> Json {
        old["currency"] = "EUR".into();
        old
    }
}

impl Paid {
    /// What `stored` is today, by hand.
    fn of(stored: &Stored) -> Self {
        let currency = "EUR".to_owned();
        match stored {
            Stored::V1(V1 { euros, payer }) => {
                let cents = (euros * 100.0).round() as i64;
                Self { cents, payer: payer.clone().unwrap_or_default(), notes: 0, currency }
            }
            Stored::V2(V2 { cents, payer, notes }) => {
                let payer = match payer {
                    Payer::Unknown => String::new(),
                    Payer::Named(name) => name.clone(),
                    Payer::Numbered { number } => number.to_string(),
                };
                Self { cents: *cents, payer, notes: notes.len() as u64, currency }
            }
            Stored::Today(paid) => paid.clone(),
        }
    }
}

/// A payload of one of the versions.
#[derive(Clone, Debug)]
enum Stored {
    V1(V1),
    V2(V2),
    Today(Paid),
}

impl Stored {
    fn written(&self) -> (u32, Json) {
        match self {
            Self::V1(v1) => (1, serde_json::to_value(v1).unwrap()),
            Self::V2(v2) => (2, serde_json::to_value(v2).unwrap()),
            Self::Today(paid) => (Paid::VERSION, serde_json::to_value(paid).unwrap()),
        }
    }
}

fn any_stored() -> impl Strategy<Value = Stored> {
    let text = || "\\PC{0,12}";
    // Amounts of few enough digits for what serde_json reads to be what it has written.
    let v1 = (-100_000_000_000_i64..100_000_000_000, proptest::option::of(text()));
    let v1 = v1.prop_map(|(cents, payer)| Stored::V1(V1 { euros: cents as f64 / 100.0, payer }));
    let payer = prop_oneof![
        Just(Payer::Unknown),
        text().prop_map(Payer::Named),
        any::<u64>().prop_map(|number| Payer::Numbered { number }),
    ];
    let v2 = (any::<i64>(), payer, btree_map(any::<i8>(), text(), 0..3));
    let v2 = v2.prop_map(|(cents, payer, notes)| Stored::V2(V2 { cents, payer, notes }));
    let today =
        (any::<i64>(), text(), any::<u64>(), text()).prop_map(|(cents, payer, notes, currency)| {
            Stored::Today(Paid { cents, payer, notes, currency })
        });
    prop_oneof![v1, v2, today]
}

/// Reads aloud what it has folded.
#[derive(Command, Clone)]
struct Tell(Arc<Mutex<Vec<Paid>>>);

#[derive(Debug, Default, Clone, PartialEq)]
struct Till {
    paid: Vec<Paid>,
}

#[aggregate(category = "till", events = TillEvent, derive(Clone, PartialEq))]
impl Till {
    #[command]
    fn tell(&self, command: Tell) {
        command.0.lock().unwrap().clone_from(&self.paid);
    }

    #[apply]
    fn paid(&mut self, event: &Paid) {
        self.paid.push(event.clone());
    }
}

#[derive(Default)]
struct Book {
    paid: Vec<Paid>,
    /// By the header, which tells the stored version.
    versions: Vec<u32>,
}

#[projection(name = "book")]
impl Book {
    #[on]
    fn paid(&mut self, event: &Paid, header: &Header) {
        self.paid.push(event.clone());
        self.versions.push(header.schema_version);
    }
}

#[derive(Default)]
struct Bell(Arc<Mutex<Vec<Paid>>>);

#[reactor(name = "bell", concurrency = 1)]
impl Bell {
    #[on]
    async fn paid(&self, event: &Paid) {
        self.0.lock().unwrap().push(event.clone());
    }
}

#[test]
fn whatever_an_older_version_could_write_is_readable_and_reads_the_same_twice() {
    let mut runner = TestRunner::new(Config { cases: 2_000, ..Config::default() });
    runner
        .run(&any_stored(), |stored| {
            let (version, payload) = stored.written();
            let bytes = payload.to_string().into_bytes();
            let read = || decode_event::<Paid>(version, Codec::Json, &bytes);
            let first = read().unwrap();
            prop_assert_eq!(&first, &Paid::of(&stored));
            prop_assert_eq!(&first, &read().unwrap());
            let TillEvent::Paid(of_set) =
                TillEvent::decode(Paid::NAME, version, Codec::Json, &bytes).unwrap();
            prop_assert_eq!(first, of_set);
            Ok(())
        })
        .unwrap();
}

#[test]
fn aggregate_projection_reactor_and_topic_read_what_is_folded_in_the_shape_of_today() {
    for kind in KINDS {
        let mut runner = TestRunner::new(Config { cases: 12, ..Config::default() });
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runner
            .run(&vec(any_stored(), 1..12), |stored| {
                runtime.block_on(read_by_all(kind, &stored));
                Ok(())
            })
            .unwrap();
    }
}

async fn read_by_all(kind: stored::Kind, events: &[Stored]) {
    let directory = tempfile::tempdir().unwrap();
    let log = log(kind, directory.path());
    let stream = stream("till", "1");
    let written = events.iter().map(|event| {
        let (version, payload) = event.written();
        old(&stream, Paid::NAME, version, payload)
    });
    append(&log, written.collect::<Vec<Old<'_>>>());
    let mut expected = Till::default();
    events.iter().for_each(|event| expected.apply(&Paid::of(event).into()));

    // Each reader twice: a second start reads the log anew.
    for is_first in [true, false] {
        let bell = Bell::default();
        let rung = Arc::clone(&bell.0);
        let builder = App::builder().store(log.restart().0).aggregate::<Till>();
        let app = builder.projection(Book::default()).reactor(bell).start().await.unwrap();
        let told = Tell(Arc::default());
        app.send("1", told.clone()).await.unwrap();
        assert_eq!(*told.0.lock().unwrap(), expected.paid, "the aggregate");
        let view = app.view::<Book>().at_least(app.head()).await.unwrap();
        assert_eq!(view.paid, expected.paid, "the projection");
        let versions: Vec<_> = events.iter().map(|event| event.written().0).collect();
        assert_eq!(view.versions, versions);
        drop(view);
        let topic = app.topic::<TillEvent>().unwrap();
        let mut subscription = topic.subscribe().after(Position::START).open();
        let mut heard = Vec::new();
        while heard.len() < events.len() {
            let batch = subscription.next().await.unwrap().unwrap();
            heard.extend(batch.of::<Paid>().cloned());
        }
        assert_eq!(heard, expected.paid, "the topic");
        drop(subscription);
        app.reached("bell", app.head(), Duration::from_secs(30)).await.unwrap();
        let rung = rung.lock().unwrap().clone();
        // It keeps its place where the views are, so the second start has nothing to tell it.
        let to_be_rung = if is_first { &*expected.paid } else { &[] };
        assert_eq!(rung, to_be_rung, "the reactor");
        app.shutdown().await.unwrap();
    }
}

/// Hands JSON on that is not of the next shape.
#[derive(Event, Debug, Serialize, Deserialize)]
#[event(name = "till.closed", version = 3, oldest = 2)]
struct Closed {
    by: String,
}

#[upcasts]
impl Closed {
    #[upcast(from = 2)]
    fn by_nobody(_: Json) -> Json {
        serde_json::json!({ "by": 7 })
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let next = error.source().map(|source| format!(": {}", chain(source))).unwrap_or_default();
    format!("{error}{next}")
}

#[test]
fn what_cannot_be_read_is_an_error_that_names_the_version_and_the_way_out() {
    let refused = |version, payload: &[u8]| {
        decode_event::<Closed>(version, Codec::Json, payload).expect_err("it cannot be read")
    };
    let mistake = refused(2, b"{}");
    assert!(matches!(mistake, DecodeError::Payload { name: "till.closed", version: 2, .. }));
    let text = chain(&mistake);
    assert!(text.contains("the step from version 2 hands on does not fit version 3"), "{text}");
    assert!(text.contains("invalid type: integer `7`"), "{text}");

    let payload = refused(2, b"{");
    assert!(matches!(payload, DecodeError::Payload { name: "till.closed", version: 2, .. }));

    let text = refused(1, b"{}").to_string();
    assert_eq!(
        text,
        "event \"till.closed\" is stored with schema version 1, this program reads versions 2 to 3: write a step from it, \
         `#[upcast(from = 1)]` under `#[upcasts]`, or read it in the aggregate"
    );
    let text = refused(4, b"{}").to_string();
    assert!(text.ends_with("a newer program wrote it, which can read it"), "{text}");
}

/// An event that is implemented by hand reads its own version, unless it says otherwise.
#[derive(Debug, Serialize, Deserialize)]
struct ByHand;

impl Event for ByHand {
    const NAME: &'static str = "till.by_hand";
    const VERSION: u32 = 2;
}

#[test]
fn an_event_by_hand_reads_its_own_version_alone() {
    assert!(decode_event::<ByHand>(2, Codec::Json, b"null").is_ok());
    assert!(matches!(
        decode_event::<ByHand>(1, Codec::Json, b"null"),
        Err(DecodeError::UnknownVersion { found: 1, oldest: 2, known: 2, .. })
    ));
}
