//! Each event names the format of its payload; all formats lie side by side in one log, and what was written in one is readable
//! when its event is declared in another.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(
    feature = "cbor",
    feature = "macros",
    feature = "messagepack",
    feature = "sqlite",
    feature = "testing"
))]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidings::sqlite::rusqlite::Connection;
use tidings::{
    App, Codec, Command, CommandId, Commit, Event, EventSet, EventStore, ExpectedVersion, Filter,
    Header, LetterError, Position, Recorded, Sqlite, StoreError, StreamId, Timestamp, aggregate,
    decode_event, projection,
};

const CODECS: [Codec; 3] = [Codec::Json, Codec::MessagePack, Codec::Cbor];

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "parcel.packed")]
struct Packed {
    grams: u32,
    label: String,
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "parcel.weighed", codec = MessagePack)]
struct Weighed {
    grams: u32,
    by: CommandId,
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "parcel.sent", version = 2, oldest = 2, codec = Cbor)]
struct Sent {
    to: String,
    carrier: CommandId,
}

#[derive(Command, Clone)]
struct Pack {
    grams: u32,
}

#[derive(Default)]
struct Parcel {
    grams: u32,
    is_sent: bool,
}

#[aggregate(category = "parcel", events = ParcelEvent)]
impl Parcel {
    #[command]
    fn pack(&self, command: Pack) -> Vec<ParcelEvent> {
        let Pack { grams } = command;
        vec![
            Packed { grams, label: "fragile ☃".into() }.into(),
            Weighed { grams: grams + 1, by: scales() }.into(),
            Sent { to: "Ada".into(), carrier: scales() }.into(),
        ]
    }

    #[apply]
    fn packed(&mut self, event: &Packed) {
        self.grams = event.grams;
    }

    #[apply]
    fn weighed(&mut self, event: &Weighed) {
        self.grams = event.grams;
    }

    #[apply]
    fn sent(&mut self, _: &Sent) {
        self.is_sent = true;
    }
}

fn scales() -> CommandId {
    CommandId::from_name("scales")
}

/// Folds what is not too heavy.
#[derive(Default)]
struct Scales(Vec<u32>);

#[projection(name = "scales", version = 1)]
impl Scales {
    #[on]
    fn weighed(&mut self, event: &Weighed) -> Result<(), String> {
        match event.grams {
            0..1_000 => {
                self.0.push(event.grams);
                Ok(())
            }
            grams => Err(format!("{grams} g are too much")),
        }
    }
}

#[tokio::test]
async fn events_of_one_log_are_written_and_read_each_in_its_format() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let start = || App::builder().store(Sqlite::open(&path).unwrap()).aggregate::<Parcel>();
    let app = start().projection(Scales::default()).start().await.unwrap();
    app.send("1", Pack { grams: 7 }).await.unwrap();
    app.shutdown().await.unwrap();
    drop(app);
    assert_eq!(formats(&path), [("text", None), ("blob", Some(1)), ("blob", Some(2))]);

    // Loaded from the log, as an aggregate and as a view.
    let app = start().projection(Scales::default()).start().await.unwrap();
    let receipt = app.send("1", Pack { grams: 8 }).await.unwrap();
    let view = app.view::<Scales>();
    assert_eq!(view.at_least(receipt.position).await.unwrap().0, [8, 9]);
    app.shutdown().await.unwrap();
    drop(app);

    let log = Sqlite::open(&path).unwrap();
    let events = log.read_log(Position::START, &Filter::All, 10).unwrap().events;
    let codecs: Vec<_> = events.iter().map(|event| event.codec).collect();
    assert_eq!(codecs, [CODECS, CODECS].concat());
    let sent = events[2].decode::<ParcelEvent>().unwrap();
    assert!(matches!(&sent, ParcelEvent::Sent(sent) if sent.carrier == scales()));
    assert_eq!((sent.codec(), sent.schema_version()), (Codec::Cbor, 2));
}

/// The type of each payload in the log, and its first byte if it is a blob.
fn formats(path: &Path) -> Vec<(&'static str, Option<u8>)> {
    let log = Connection::open(path).unwrap();
    let mut select = log.prepare("SELECT payload FROM events ORDER BY position").unwrap();
    let formats = select.query_map([], |row| {
        use tidings::sqlite::rusqlite::types::ValueRef;
        Ok(match row.get_ref(0)? {
            ValueRef::Text(_) => ("text", None),
            ValueRef::Blob(bytes) => ("blob", bytes.first().copied()),
            _ => ("other", None),
        })
    });
    formats.unwrap().collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn a_letter_of_any_format_is_shown_and_edited_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let start = || {
        App::builder()
            .store(Sqlite::open(&path).unwrap())
            .aggregate::<Parcel>()
            .projection(Scales::default())
    };
    let app = start().start().await.unwrap();
    app.send("1", Pack { grams: 5_000 }).await.unwrap();
    app.view::<Scales>().at_least(app.head()).await.unwrap();
    let letters = app.letters().of("scales").unwrap();
    let shown = letters.payload(Position::new(2)).await.unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown, json!({"grams": 5_001, "by": scales().to_string()}));
    let refused = letters.edit(Position::new(2), r#"{"grams":5}"#).await.unwrap_err();
    assert!(matches!(refused, LetterError::Edit(_)), "{refused}");
    // What was shown, with one number changed.
    let edited = json!({"grams": 5, "by": shown["by"]});
    letters.edit(Position::new(2), edited.to_string()).await.unwrap();
    assert_eq!(app.view::<Scales>().read().0, [5]);
    app.shutdown().await.unwrap();
    drop(app);
    // A view that is folded anew takes the edited payload, too.
    let app = start().start().await.unwrap();
    assert_eq!(app.view::<Scales>().at_least(app.head()).await.unwrap().0, [5]);
    app.shutdown().await.unwrap();
}

/// The event of one name as it was declared one after the other.
macro_rules! declared {
    ($module:ident, $codec:ident) => {
        mod $module {
            use super::*;
            #[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
            #[event(name = "thing.changed", codec = $codec)]
            pub(super) struct Changed {
                pub(super) text: String,
                #[serde(default)]
                pub(super) note: Option<String>,
            }
        }
    };
}

declared!(in_json, Json);
declared!(in_messagepack, MessagePack);
declared!(in_cbor, Cbor);

#[test]
fn an_event_that_is_declared_in_another_format_stays_readable() {
    let formats =
        [in_json::Changed::CODEC, in_messagepack::Changed::CODEC, in_cbor::Changed::CODEC];
    assert_eq!(formats, CODECS);
    // As it was before the field `note` was added, and with the fields in another order.
    for codec in CODECS {
        for old in [json!({"text": "a"}), json!({"note": null, "text": "a"})] {
            let mut bytes = Vec::new();
            codec.encode(&old, &mut bytes).unwrap();
            let read = decode_event::<in_cbor::Changed>(1, codec, &bytes).unwrap();
            assert_eq!((read.text.as_str(), read.note), ("a", None));
            let read = decode_event::<in_json::Changed>(1, codec, &bytes).unwrap();
            assert_eq!((read.text.as_str(), read.note), ("a", None));
            let read = decode_event::<in_messagepack::Changed>(1, codec, &bytes).unwrap();
            assert_eq!((read.text.as_str(), read.note), ("a", None));
        }
    }
}

/// Everything that a payload is likely to hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Anything {
    id: uuid::Uuid,
    small: i8,
    signed: i64,
    unsigned: u64,
    ratio: f64,
    single: f32,
    text: String,
    letter: char,
    maybe: Option<u32>,
    nothing: (),
    list: Vec<Option<String>>,
    pair: (u8, String),
    by_name: BTreeMap<String, i32>,
    by_number: HashMap<u16, bool>,
    choice: Choice,
    tagged: Tagged,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Choice {
    Unit,
    One(uuid::Uuid),
    Two(u8, String),
    Named { id: uuid::Uuid, inner: Box<Option<Choice>> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Plain,
    Full { id: uuid::Uuid, at: u64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Rest {
    address: std::net::IpAddr,
    flag: bool,
}

fn choice() -> impl Strategy<Value = Choice> {
    let leaf = prop_oneof![
        Just(Choice::Unit),
        any::<u128>().prop_map(|id| Choice::One(uuid::Uuid::from_u128(id))),
        (any::<u8>(), ".*").prop_map(|(number, text)| Choice::Two(number, text)),
    ];
    leaf.prop_recursive(3, 8, 1, |inner| {
        (any::<u128>(), prop::option::of(inner)).prop_map(|(id, inner)| Choice::Named {
            id: uuid::Uuid::from_u128(id),
            inner: Box::new(inner),
        })
    })
}

prop_compose! {
    fn anything()(
        (id, small, signed, unsigned) in any::<(u128, i8, i64, u64)>(),
        ratio in prop::num::f64::NORMAL | prop::num::f64::ZERO,
        single in prop::num::f32::NORMAL,
        (text, letter, maybe) in (".*", any::<char>(), any::<Option<u32>>()),
        list in prop::collection::vec(prop::option::of(".*"), 0..4),
        pair in (any::<u8>(), ".*"),
        by_name in prop::collection::btree_map(".*", any::<i32>(), 0..4),
        by_number in prop::collection::hash_map(any::<u16>(), any::<bool>(), 0..4),
        choice in choice(),
        tagged in prop::option::of(any::<(u128, u64)>()),
        (address, flag) in any::<(u32, bool)>(),
    ) -> Anything {
        Anything {
            id: uuid::Uuid::from_u128(id), small, signed, unsigned, ratio, single, text, letter,
            maybe, nothing: (), list, pair, by_name, by_number, choice,
            tagged: tagged.map_or(Tagged::Plain, |(id, at)| {
                Tagged::Full { id: uuid::Uuid::from_u128(id), at }
            }),
            rest: Rest { address: std::net::Ipv4Addr::from(address).into(), flag },
        }
    }
}

proptest! {
    #[test]
    fn every_value_comes_back_from_every_format(value in anything()) {
        for codec in CODECS {
            let mut bytes = b"before".to_vec();
            codec.encode(&value, &mut bytes).unwrap();
            let payload = bytes.strip_prefix(b"before").unwrap();
            prop_assert_eq!(&codec.decode::<Anything>(payload).unwrap(), &value);
            // The form as a JSON value is the same one for all, and reads as the type.
            let json = codec.decode_json(payload).unwrap();
            let read: Anything = serde_json::from_value(json.clone()).unwrap();
            prop_assert_eq!((read.id, &read.choice, &read.rest), (value.id, &value.choice, &value.rest));
            prop_assert_eq!(read.by_number, value.by_number.clone());
            let mut text = Vec::new();
            Codec::Json.encode(&value, &mut text).unwrap();
            let keys = |json: &serde_json::Value| json.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            let from_text: serde_json::Value = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(keys(&json), keys(&from_text));
            prop_assert_eq!(&json["id"], &from_text["id"]);
            prop_assert_eq!(&json["choice"], &from_text["choice"]);
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for codec in CODECS {
            let _ = codec.decode::<Anything>(&bytes);
            let _ = codec.decode_json(&bytes);
        }
    }

    #[test]
    fn a_payload_that_is_cut_off_or_too_long_is_an_error(
        value in anything(),
        cut in any::<prop::sample::Index>(),
        more in prop::collection::vec(any::<u8>(), 1..5),
    ) {
        for codec in CODECS {
            let mut bytes = Vec::new();
            codec.encode(&value, &mut bytes).unwrap();
            let cut = &bytes[..cut.index(bytes.len())];
            prop_assert!(codec.decode::<Anything>(cut).is_err());
            prop_assert!(codec.decode_json(cut).is_err());
            let whole = bytes.len();
            bytes.extend(&more);
            // White space behind JSON belongs to it.
            if codec != Codec::Json || !more.iter().all(u8::is_ascii_whitespace) {
                prop_assert!(codec.decode::<Anything>(&bytes).is_err(), "{} of {}", more.len(), whole);
                prop_assert!(codec.decode_json(&bytes).is_err());
            }
        }
    }
}

#[test]
fn bytes_and_numbers_as_keys_have_a_form_in_json() {
    // {"b": h'0102', 7: null} and {true: 1.5}, which no type of ours writes.
    let cbor = [0xa2, 0x61, b'b', 0x42, 1, 2, 7, 0xf6];
    assert_eq!(Codec::Cbor.decode_json(&cbor).unwrap(), json!({"b": [1, 2], "7": null}));
    let messagepack = [0x81, 0xc3, 0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0];
    assert_eq!(Codec::MessagePack.decode_json(&messagepack).unwrap(), json!({"true": 1.5}));
}

#[test]
fn a_payload_of_a_format_from_the_future_is_named_and_holds_up_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let log = Sqlite::open(&path).unwrap();
    for id in ["1", "2"] {
        let stream = StreamId::new("thing", id).unwrap();
        let header = Header::new(stream.clone(), "thing.changed", 1, Timestamp::default());
        let event = Recorded { header, payload: b"{}".as_slice().into() };
        log.commit(&mut [Commit::new().append(stream, ExpectedVersion::Any, vec![event])]).unwrap();
    }
    drop(log);
    let sql = "UPDATE events SET payload = x'c801' WHERE position = 2";
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let log = Sqlite::open(&path).unwrap();
    assert_eq!(log.read_log(Position::START, &Filter::All, 1).unwrap().events.len(), 1);
    match log.read_log(Position::START, &Filter::All, 2) {
        Err(error @ StoreError::Format { found: 200, .. }) => {
            assert!(error.to_string().contains("position 2"), "{error}");
        }
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn a_payload_that_is_nested_too_deep_is_an_error_and_no_end_of_the_stack() {
    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "only read")]
    enum Nested {
        End(u8),
        List(Vec<Nested>),
    }
    // An array of one, in an array of one, and so on.
    for (codec, array, end) in
        [(Codec::Json, b'[', b'0'), (Codec::MessagePack, 0x91, 0), (Codec::Cbor, 0x81, 0)]
    {
        let nested = |deep: usize| {
            let mut bytes = vec![array; deep];
            bytes.push(end);
            if codec == Codec::Json {
                bytes.extend(vec![b']'; deep]);
            }
            bytes
        };
        let bytes = nested(100);
        codec.decode_json(&bytes).unwrap();
        codec.decode::<Nested>(&bytes).unwrap();
        for deep in [1_000, 1_020, 100_000] {
            let bytes = nested(deep);
            assert!(codec.decode_json(&bytes).is_err(), "{codec:?}, {deep}");
            assert!(codec.decode::<Nested>(&bytes).is_err(), "{codec:?}, {deep}");
            assert!(codec.decode::<serde_json::Value>(&bytes).is_err(), "{codec:?}, {deep}");
            let _ = codec.decode::<serde::de::IgnoredAny>(&bytes);
        }
    }
}

#[test]
fn a_whole_number_with_a_point_is_one_in_json_too() {
    for codec in CODECS {
        let mut bytes = Vec::new();
        codec.encode(&[1.0_f32, -2.0], &mut bytes).unwrap();
        let json = codec.decode_json(&bytes).unwrap();
        assert_eq!(json, serde_json::json!([1.0, -2.0]), "{codec:?}");
    }
}
