//! Every event that a released version has written is still read, as what it was read before: a corpus of stored examples goes
//! through all that reads them, and whatever breaks turns it red.
#![cfg(all(feature = "macros", feature = "testing"))]
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a broken assumption is a failed test"
)]
#![allow(dead_code, reason = "the aggregates are there for their events, and no app runs them")]

use std::fs;
use std::marker::PhantomData;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidings::testing::{GoldenCorpus, Recording, golden_corpus, schema_lock};
use tidings::{
    Codec, CodecError, DecodeError, Event, EventSchema, EventSet, MemberOf, Neighbours, ReadAs,
    Recorded, aggregate, decode_event,
};

const CATEGORY: &str = "account";
const NAME: &str = "account.deposited";

/// The first release.
mod first {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "account.deposited", version = 1)]
    pub(super) struct Deposited {
        pub(super) dollars: i64,
    }

    #[derive(Default)]
    pub(super) struct Account;

    #[aggregate(category = "account", events = AccountEvent)]
    impl Account {
        #[apply]
        fn deposited(&mut self, _: &Deposited) {}
    }
}

/// The second release.
#[derive(Debug, Clone, PartialEq, Event, Serialize, Deserialize)]
#[event(name = "account.deposited", version = 2, oldest = 2)]
struct Deposited {
    cents: i64,
    note: Option<String>,
}

impl MemberOf for Deposited {
    type Set = Second<Right>;

    const INDEX: usize = 0;

    fn from_set(set: &Second<Right>) -> Option<&Self> {
        Some(&set.0)
    }

    fn take(set: Second<Right>) -> Option<Self> {
        Some(set.0)
    }
}

/// How the second release reads the events of the first one.
trait Reads: Send + Sync + 'static {
    fn read(old: &first::Deposited, stored: &Recorded, beside: &dyn Neighbours) -> Vec<Deposited>;
}

/// The set of the second release.
struct Second<R>(Deposited, PhantomData<R>);

impl<R: Reads> EventSet for Second<R> {
    const CATEGORY: &'static str = CATEGORY;
    const NAMES: &'static [&'static str] = &[NAME];

    fn index(&self) -> usize {
        0
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn schema_version(&self) -> u32 {
        2
    }

    fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        Codec::Json.encode(&self.0, bytes)
    }

    fn decode(_: &str, version: u32, codec: Codec, payload: &[u8]) -> Result<Self, DecodeError> {
        decode_event(version, codec, payload).map(|event| Self(event, PhantomData))
    }

    fn read(event: &Recorded, beside: &dyn Neighbours) -> Result<ReadAs<Self>, DecodeError> {
        if event.schema_version != 1 {
            return event.decode().map(ReadAs::One);
        }
        let old: first::Deposited = decode_event(1, event.codec, &event.payload)?;
        let events = R::read(&old, event, beside).into_iter();
        Ok(ReadAs::Many(events.map(|event| Self(event, PhantomData)).collect()))
    }

    fn schemas() -> Vec<EventSchema> {
        vec![EventSchema::of::<Deposited>()]
    }
}

fn deposited(cents: i64) -> Deposited {
    Deposited { cents, note: None }
}

struct Right;

impl Reads for Right {
    fn read(old: &first::Deposited, _: &Recorded, _: &dyn Neighbours) -> Vec<Deposited> {
        vec![deposited(old.dollars * 100)]
    }
}

struct Wrong;

impl Reads for Wrong {
    fn read(old: &first::Deposited, _: &Recorded, _: &dyn Neighbours) -> Vec<Deposited> {
        vec![Deposited { cents: old.dollars, note: Some("old".to_owned()) }]
    }
}

struct Dropping;

impl Reads for Dropping {
    fn read(_: &first::Deposited, _: &Recorded, _: &dyn Neighbours) -> Vec<Deposited> {
        vec![]
    }
}

struct Panicking;

impl Reads for Panicking {
    fn read(old: &first::Deposited, _: &Recorded, _: &dyn Neighbours) -> Vec<Deposited> {
        panic!("{}", old.dollars)
    }
}

/// Reads an event together with the one after it.
struct Merging;

impl Reads for Merging {
    fn read(old: &first::Deposited, stored: &Recorded, beside: &dyn Neighbours) -> Vec<Deposited> {
        let dollars = |event: Recorded| {
            decode_event::<first::Deposited>(1, event.codec, &event.payload).unwrap().dollars
        };
        if beside.before(stored).unwrap().is_some() {
            return vec![];
        }
        let after = beside.after(stored).unwrap().map(dollars);
        vec![deposited((old.dollars + after.unwrap_or(0)) * 100)]
    }
}

struct Repository {
    folder: TempDir,
}

impl Repository {
    /// As the first release has left it.
    fn of_first_release() -> Self {
        let repository = Self { folder: tempfile::tempdir().unwrap() };
        let written = repository.first(Recording::New).try_check().unwrap();
        assert_eq!(written, [repository.file(1)]);
        assert!(repository.first(Recording::Nothing).try_check().unwrap().is_empty());
        repository
    }

    fn corpus(&self, recording: Recording) -> GoldenCorpus {
        let lock = self.folder.path().join("tidings.lock.json");
        golden_corpus(self.folder.path().join("corpus")).lock(lock).recording(recording)
    }

    fn first(&self, recording: Recording) -> GoldenCorpus {
        let example = first::Deposited { dollars: 7 };
        self.corpus(recording).events::<first::AccountEvent>().example(example)
    }

    fn second<R: Reads>(&self, recording: Recording) -> Result<usize, String> {
        let example = Deposited { cents: 5, note: Some("five".to_owned()) };
        let corpus = self.corpus(recording).events::<Second<R>>().example(example);
        let folder = format!("{}/", self.folder.path().display());
        corpus
            .try_check()
            .map(|written| written.len())
            .map_err(|findings| findings.to_string().replace(&folder, ""))
    }

    fn file(&self, version: u32) -> PathBuf {
        self.folder.path().join(format!("corpus/{NAME}.v{version}.json"))
    }

    fn json(&self, version: u32) -> Value {
        serde_json::from_str(&fs::read_to_string(self.file(version)).unwrap()).unwrap()
    }
}

#[test]
fn a_new_version_is_recorded_and_the_old_one_is_read_as_what_it_was() {
    let repository = Repository::of_first_release();
    let first = repository.json(1);
    assert_eq!(
        first,
        json!({
            "category": "account",
            "stored": [
                { "name": NAME, "version": 1, "codec": "json", "payload": { "dollars": 7 } },
            ],
            "read_as": [{ "name": NAME, "version": 1, "payload": { "dollars": 7 } }],
        })
    );
    // The raised version changes what the old one is read as: that is said once, and accepted.
    let found = repository.second::<Right>(Recording::New).unwrap_err();
    assert_eq!(
        found,
        "the events in corpus are not all read as they were:\n\n\
         account.deposited.v1.json: it is read as something else than before\n  \
         account.deposited was of version 1, is of version 2\n  \
         account.deposited.dollars was 7, is nothing\n  \
         account.deposited.cents was nothing, is 700\n  \
         account.deposited.note was nothing, is null\n  \
         → if it is meant, accept it: `TIDINGS_ACCEPT=1 cargo test`"
    );
    assert!(!repository.file(2).exists(), "nothing is written beside a finding");
    assert_eq!(repository.second::<Right>(Recording::Changes), Ok(2));
    assert_eq!(repository.second::<Right>(Recording::Nothing), Ok(0));
    assert_eq!(repository.json(1)["stored"], first["stored"]);
    assert_eq!(repository.json(1)["read_as"][0]["payload"], json!({ "cents": 700, "note": null }));
    assert_eq!(repository.json(2)["read_as"][0]["payload"], json!({ "cents": 5, "note": "five" }));
}

#[test]
fn a_step_that_changes_turns_it_red() {
    let repository = Repository::of_first_release();
    assert_eq!(repository.second::<Right>(Recording::Changes), Ok(2));
    let before = fs::read_to_string(repository.file(1)).unwrap();
    for recording in [Recording::New, Recording::Nothing] {
        let found = repository.second::<Wrong>(recording).unwrap_err();
        for expected in [
            "account.deposited.v1.json: it is read as something else than before",
            "account.deposited.cents was 700, is 7\n",
            "account.deposited.note was null, is \"old\"",
        ] {
            assert!(found.contains(expected), "{found}");
        }
        assert!(!found.contains("v2.json"), "{found}");
        let found = repository.second::<Dropping>(recording).unwrap_err();
        assert!(found.contains("was account.deposited, is no event"), "{found}");
    }
    assert_eq!(fs::read_to_string(repository.file(1)).unwrap(), before);
    assert_eq!(repository.second::<Dropping>(Recording::Changes), Ok(1));
    assert_eq!(repository.json(1)["read_as"], json!([]));
}

#[test]
fn what_is_not_read_is_never_accepted() {
    let repository = Repository::of_first_release();
    assert_eq!(repository.second::<Right>(Recording::Changes), Ok(2));
    let found = repository.second::<Panicking>(Recording::Changes).unwrap_err();
    assert!(
        found.contains(
            "event \"account.deposited\" of version 1 is not read\n  what reads it panics: 7"
        ),
        "{found}"
    );
    // The first release does not read what the second one has written.
    let found = repository.first(Recording::Changes).try_check().unwrap_err().to_string();
    assert!(found.contains("event \"account.deposited\" of version 2 is not read"), "{found}");
    assert!(found.contains("is stored with schema version 2"), "{found}");
    let damaged =
        fs::read_to_string(repository.file(2)).unwrap().replace("\"cents\":5", "\"cents\":\"5\"");
    fs::write(repository.file(2), damaged).unwrap();
    let found = repository.second::<Right>(Recording::Changes).unwrap_err();
    assert!(found.contains("account.deposited.v2.json: event \"account.deposited\""), "{found}");
    assert!(found.contains("expected i64"), "{found}");
}

#[test]
fn an_event_that_is_read_with_its_neighbour_has_it_in_its_file() {
    let repository = Repository::of_first_release();
    let mut file = repository.json(1);
    let mut after = file["stored"][0].clone();
    after["payload"]["dollars"] = json!(2);
    file["stored"].as_array_mut().unwrap().push(after);
    fs::write(repository.file(1), file.to_string()).unwrap();
    assert_eq!(repository.second::<Merging>(Recording::Changes), Ok(2));
    let read_as = repository.json(1)["read_as"].clone();
    assert_eq!(
        read_as,
        json!([{ "name": NAME, "version": 2, "payload": { "cents": 900, "note": null } }])
    );
    let found = repository.second::<Right>(Recording::Nothing).unwrap_err();
    assert!(
        found.contains("was account.deposited, is account.deposited, account.deposited"),
        "{found}"
    );
}

#[test]
fn a_version_without_a_file_is_named() {
    let repository = Repository::of_first_release();
    let lock = repository.folder.path().join("tidings.lock.json");
    let locked = schema_lock().file(lock).recording(Recording::New);
    locked.events::<first::AccountEvent>().check();
    fs::remove_file(repository.file(1)).unwrap();
    let found = repository.second::<Right>(Recording::Nothing).unwrap_err();
    for expected in [
        "account.deposited.v1.json is missing: tidings.lock.json says that this version was released",
        r#""stored": [{"name": "account.deposited", "version": 1, "codec": "json", "payload": …}]"#,
        "account.deposited.v2.json is missing\n  → run this test without the variable `CI`",
    ] {
        assert!(found.contains(expected), "{found}");
    }
    // Written by hand, as the finding says, it is completed.
    let by_hand = r#"{"category": "account", "stored": [{"name": "account.deposited", "version": 1,
        "codec": "json", "payload": {"dollars": 3}}], "read_as": []}"#;
    fs::write(repository.file(1), by_hand).unwrap();
    assert_eq!(repository.second::<Right>(Recording::Changes), Ok(2));
    assert_eq!(repository.json(1)["read_as"][0]["payload"]["cents"], 300);
}

#[test]
fn an_event_without_an_example_is_named() {
    let repository = Repository::of_first_release();
    let corpus = repository.corpus(Recording::Changes).events::<Second<Right>>();
    let found = corpus.try_check().unwrap_err().to_string();
    assert!(
        found.contains("account.deposited, version 2: it has no example\n  → `.example(…)`"),
        "{found}"
    );
}

#[test]
fn files_that_are_none_of_the_corpus_are_named_all_at_once() {
    let repository = Repository::of_first_release();
    let corpus = repository.file(1);
    let of = |name: &str| corpus.with_file_name(name);
    let stored = fs::read_to_string(&corpus).unwrap();
    fs::write(of("a.json"), "{").unwrap();
    fs::write(of("b.json"), &stored).unwrap();
    fs::write(of("c.v1.json"), r#"{"category":"c","stored":[{"name":"c","version":1,"codec":"json","payload":1}],"read_as":[]}"#).unwrap();
    fs::write(of("notes.txt"), "none of its files").unwrap();
    let found = repository.first(Recording::Changes).try_check().unwrap_err().to_string();
    for expected in [
        "a.json: it is no stored event: EOF",
        "b.json: it holds no event of its name and version",
        "c.v1.json: none of the given sets holds the events of category \"c\"",
    ] {
        assert!(found.contains(expected), "{found}");
    }
    let cause = std::panic::catch_unwind(|| repository.first(Recording::New).check()).unwrap_err();
    assert!(cause.downcast_ref::<String>().unwrap().contains("a.json"));
}

/// An event whose serde traits are implemented by hand, so that its derived shape is wrong.
#[derive(Event)]
#[event(name = "odd.happened")]
struct Odd {
    at: u64,
}

impl Serialize for Odd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.at)
    }
}

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(|at| Self { at })
    }
}

#[derive(Default)]
struct Oddity;

#[aggregate(category = "odd", events = OddEvent)]
impl Oddity {
    #[apply]
    fn happened(&mut self, _: &Odd) {}
}

#[test]
fn a_shape_that_is_not_what_serde_writes_is_named() {
    let repository = Repository::of_first_release();
    let corpus = repository.first(Recording::New).events::<OddEvent>().example(Odd { at: 1 });
    let found = corpus.try_check().unwrap_err().to_string();
    assert!(found.contains("what serde writes is not of the event's shape"), "{found}");
    assert!(found.contains("expected { at: u64 }, found a number"), "{found}");
}

/// An event in a format that is not text.
#[cfg(feature = "messagepack")]
mod packed {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "packed.sent", codec = MessagePack)]
    struct Sent {
        cents: i64,
    }

    #[derive(Default)]
    struct Parcel;

    #[aggregate(category = "packed", events = PackedEvent)]
    impl Parcel {
        #[apply]
        fn sent(&mut self, _: &Sent) {}
    }

    #[test]
    fn bytes_are_kept_as_digits() {
        let repository = Repository { folder: tempfile::tempdir().unwrap() };
        let corpus = |recording| {
            repository.corpus(recording).events::<PackedEvent>().example(Sent { cents: 7 })
        };
        let written = corpus(Recording::New).try_check().unwrap();
        let text = fs::read_to_string(&written[0]).unwrap();
        // A map of one entry, a text of five bytes, seven.
        assert!(text.contains(r#""codec": "messagepack""#), "{text}");
        assert!(text.contains(r#""payload": "81a563656e747307""#), "{text}");
        assert!(corpus(Recording::Nothing).try_check().unwrap().is_empty());
        fs::write(&written[0], text.replace("6e747307", "6e747308")).unwrap();
        let found = corpus(Recording::Nothing).try_check().unwrap_err().to_string();
        assert!(found.contains("packed.sent.cents was 7, is 8"), "{found}");
        fs::write(&written[0], text.replace("6e747307", "6e7z")).unwrap();
        let found = corpus(Recording::Changes).try_check().unwrap_err().to_string();
        assert!(found.contains("its payload is no text of hexadecimal digits"), "{found}");
    }
}

/// An order as the programs of "How to change an event" have it: version 1, both versions, version 2.
#[cfg(all(feature = "cbor", feature = "messagepack"))]
mod orders {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "order.placed")]
    pub(super) struct PlacedV1 {
        pub(super) total: i64,
    }

    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "order.called", codec = Cbor)]
    pub(super) struct Called {
        pub(super) name: String,
    }

    pub(super) mod first {
        use super::{Called, PlacedV1};
        use tidings::aggregate;

        #[derive(Default)]
        pub(in super::super) struct Order;

        #[aggregate(category = "order", events = pub(in super::super) OrderEvent)]
        impl Order {
            #[apply]
            fn placed(&mut self, _: &PlacedV1) {}
            #[apply]
            fn called(&mut self, _: &Called) {}
        }
    }

    pub(super) mod last {
        use serde::{Deserialize, Serialize};
        use tidings::{Event, Json, aggregate, upcasts};

        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "order.placed", version = 2, oldest = 2)]
        pub(in super::super) struct Placed {
            pub(in super::super) net: i64,
            pub(in super::super) tax: i64,
        }

        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "order.named", version = 2, formerly = "order.called", codec = MessagePack)]
        pub(in super::super) struct Named {
            pub(in super::super) first: String,
            pub(in super::super) last: String,
        }

        #[upcasts]
        impl Named {
            #[upcast(from = 1)]
            fn two_names(old: Json) -> Json {
                let name = old["name"].as_str().unwrap_or_default();
                let (first, last) = name.split_once(' ').unwrap_or(("", name));
                serde_json::json!({ "first": first, "last": last })
            }
        }

        #[derive(Default)]
        pub(in super::super) struct Order;

        #[aggregate(category = "order", events = pub(in super::super) OrderEvent)]
        impl Order {
            #[apply]
            fn placed(&mut self, _: &Placed) {}
            #[apply]
            fn named(&mut self, _: &Named) {}
            #[upcast(
                event = "order.placed",
                version = 1,
                with_next = "order.placed",
                next_version = 2
            )]
            fn pair(_: Json, new: Placed) -> Placed {
                new
            }
            #[upcast(event = "order.placed", version = 1)]
            fn alone(old: Json) -> (Placed, Named) {
                let net = old["total"].as_i64().unwrap_or_default();
                (Placed { net, tax: 0 }, Named { first: "no".into(), last: "body".into() })
            }
        }
    }
}

#[cfg(all(feature = "cbor", feature = "messagepack"))]
#[test]
fn what_the_macros_write_is_read_through_steps_splits_pairs_and_former_names() {
    use orders::{Called, PlacedV1, first, last};
    let repository = Repository { folder: tempfile::tempdir().unwrap() };
    let written = repository
        .corpus(Recording::New)
        .events::<first::OrderEvent>()
        .example(PlacedV1 { total: 7 })
        .example(Called { name: "Ada Byron".into() })
        .try_check()
        .unwrap();
    assert_eq!(written.len(), 2);
    let last = |recording| {
        let corpus = repository.corpus(recording).events::<last::OrderEvent>();
        corpus
            .example(last::Placed { net: 5, tax: 1 })
            .example(last::Named { first: "Ada".into(), last: "King".into() })
            .try_check()
    };
    assert_eq!(last(Recording::Changes).unwrap().len(), 4);
    assert_eq!(last(Recording::Nothing).unwrap().len(), 0);
    let file = |name: &str| repository.folder.path().join("corpus").join(name);
    let read_as = |name: &str| {
        let text = fs::read_to_string(file(name)).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["read_as"].clone()
    };
    let named = |first: &str, last: &str| json!({ "name": "order.named", "version": 2, "payload": { "first": first, "last": last } });
    let placed = |net: i64, tax: i64| json!({ "name": "order.placed", "version": 2, "payload": { "net": net, "tax": tax } });
    assert_eq!(read_as("order.called.v1.json"), json!([named("Ada", "Byron")]));
    assert_eq!(read_as("order.named.v2.json"), json!([named("Ada", "King")]));
    assert_eq!(read_as("order.placed.v1.json"), json!([placed(7, 0), named("no", "body")]));

    // Completed with the event that stood behind it: one command has made both.
    let text = fs::read_to_string(file("order.placed.v1.json")).unwrap();
    let mut pair: Value = serde_json::from_str(&text).unwrap();
    pair["stored"].as_array_mut().unwrap().push(json!({
        "name": "order.placed", "version": 2, "codec": "json", "payload": { "net": 6, "tax": 1 },
    }));
    fs::write(file("order.placed.v1.json"), pair.to_string()).unwrap();
    assert_eq!(last(Recording::Changes).unwrap().len(), 1);
    assert_eq!(read_as("order.placed.v1.json"), json!([placed(6, 1)]));
}

/// The same name in another category.
mod namesake {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "account.deposited")]
    pub(super) struct Deposited {}

    #[derive(Default)]
    pub(super) struct Safe;

    #[aggregate(category = "safe", events = SafeEvent)]
    impl Safe {
        #[apply]
        fn deposited(&mut self, _: &Deposited) {}
    }
}

#[test]
fn two_events_of_one_name_do_not_share_a_file() {
    let repository = Repository::of_first_release();
    let corpus = repository.first(Recording::New).events::<namesake::SafeEvent>();
    let found = corpus.example(namesake::Deposited {}).try_check().unwrap_err().to_string();
    assert!(
        found.contains(
            "account.deposited: categories \"account\" and \"safe\" both have an event of this name"
        ),
        "{found}"
    );
}

#[cfg(feature = "personal")]
mod personal {
    use super::*;
    use tidings::{Personal, Shape};

    #[derive(Shape, Serialize, Deserialize, PartialEq)]
    struct Address {
        street: String,
    }

    macro_rules! events {
        ($module:ident $($codec:ident)?) => {
            mod $module {
                use super::*;

                #[derive(Event, Serialize, Deserialize)]
                #[event(name = "member.joined" $(, codec = $codec)?)]
                pub(super) struct Joined {
                    pub(super) name: Personal<String>,
                    pub(super) address: Option<Personal<Address>>,
                    pub(super) age: Personal<u8>,
                }

                #[derive(Default)]
                pub(super) struct Member;

                #[aggregate(category = "member", events = pub(super) MemberEvent)]
                impl Member {
                    #[apply]
                    fn joined(&mut self, _: &Joined) {}
                }
            }
        };
    }

    events!(text);
    events!(packed MessagePack);

    macro_rules! check {
        ($module:ident) => {{
            let repository = Repository { folder: tempfile::tempdir().unwrap() };
            let check = |recording, name: &str| {
                let address = Address { street: "Piccadilly".into() };
                let example = $module::Joined {
                    name: Personal::new("m-1", name.to_owned()),
                    address: Some(Personal::new("m-1", address)),
                    age: Personal::new("m-1", 36),
                };
                let lock = schema_lock().file(repository.folder.path().join("tidings.lock.json"));
                lock.events::<$module::MemberEvent>().recording(recording).check();
                let corpus = repository.corpus(recording).events::<$module::MemberEvent>();
                corpus.example(example).try_check().unwrap().len()
            };
            assert_eq!(check(Recording::New, "Ada"), 1);
            // In the next run its keys are the same, and the example counts no more.
            assert_eq!(check(Recording::Nothing, "Bob"), 0);
            let file = repository.folder.path().join("corpus/member.joined.v1.json");
            let text = fs::read_to_string(&file).unwrap();
            assert!(!text.contains("Piccadilly") && text.contains("m-1"), "{text}");
        }};
    }

    #[test]
    fn an_event_with_sealed_values_is_kept_and_read_in_every_run() {
        check!(text);
        check!(packed);
    }
}
