//! The shape of a type is what serde writes of it, with every attribute of serde; the same shape has the same digest everywhere, and
//! another shape another one.
#![cfg(feature = "macros")]
#![allow(dead_code, reason = "fields that are read and never written")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests: a broken assumption is a failed test"
)]

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidings::{
    CommandId, Event, EventId, Form, Metadata, Position, Shape, StreamId, Timestamp, Version,
};

/// The text of the shape of `T`, whose values serde writes as these.
#[track_caller]
fn check<T: Shape + Serialize>(expected: &str, values: &[(T, Value)]) {
    let form = Form::of::<T>();
    assert_eq!(form.to_string(), expected);
    for (value, json) in values {
        assert_eq!(serde_json::to_value(value).unwrap(), *json);
        form.admits(json).unwrap();
    }
    let text = serde_json::to_string(&form).unwrap();
    assert_eq!(serde_json::from_str::<Form>(&text).unwrap(), form, "it comes back from {text}");
}

#[track_caller]
fn refuses<T: Shape>(json: Value, expected: &str) {
    assert_eq!(Form::of::<T>().admits(&json).unwrap_err(), expected);
}

#[derive(Shape, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    first_field: bool,
    #[serde(rename = "c-c")]
    second: Option<String>,
    #[serde(default, alias = "old_third", skip_serializing_if = "Vec::is_empty")]
    third: Vec<u8>,
    #[serde(skip)]
    _skipped: Unshaped,
    #[serde(skip_serializing, default)]
    only_read: i8,
    #[serde(skip_deserializing)]
    only_written: u16,
    #[serde(rename(serialize = "out", deserialize = "in"))]
    both: (char, f64),
}

#[derive(Default)]
struct Unshaped;

#[test]
fn named_fields() {
    let named = |second: Option<&str>, third: &[u8]| Named {
        first_field: true,
        second: second.map(str::to_owned),
        third: third.to_vec(),
        _skipped: Unshaped,
        only_read: 1,
        only_written: 2,
        both: ('x', 0.5),
    };
    check(
        "{ c-c: text? = default, firstField: bool, onlyRead: i8 never written = default, \
         onlyWritten: u16 never read, out: (char, f64) read as in, \
         third: [u8] written sometimes = default or read as old_third }",
        &[
            (
                named(None, &[]),
                json!({ "firstField": true, "c-c": null, "onlyWritten": 2, "out": ["x", 0.5] }),
            ),
            (
                named(Some("a"), &[7]),
                json!({
                    "firstField": true, "c-c": "a", "third": [7], "onlyWritten": 2, "out": ["x", 0.5],
                }),
            ),
        ],
    );
    let written = || serde_json::to_value(named(None, &[7])).unwrap();
    let with = |name: &str, value: Value| {
        let mut json = written();
        json.as_object_mut().unwrap().insert(name.to_owned(), value);
        json
    };
    refuses::<Named>(with("firstField", json!(1)), "firstField: expected bool, found a number");
    refuses::<Named>(with("third", json!([256])), "third: expected u8, found a number");
    refuses::<Named>(with("out", json!(["xy", 1])), "out.0: expected char, found text");
    refuses::<Named>(with("out", json!(["x"])), "out: expected (char, f64), found a list");
    refuses::<Named>(with("only_read", json!(1)), "only_read: expected no such field");
    refuses::<Named>(with("onlyRead", json!(1)), "onlyRead: expected no such field");
    refuses::<Named>(json!({}), "c-c: expected text?, found nothing");
}

#[derive(Shape, Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Tier {
    OnlyGold,
    #[serde(alias = "none", alias = "nothing")]
    Basic,
    #[serde(skip)]
    _Hidden,
    #[serde(other)]
    Unknown,
}

#[derive(Shape, Serialize, Deserialize)]
#[serde(rename_all_fields = "UPPERCASE")]
enum External {
    Bare,
    New(u8),
    Two(u8, String),
    Fields {
        of: Tier,
    },
    #[serde(skip_deserializing)]
    Written,
}

#[derive(Shape, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Internal {
    BareName,
    New(Inner),
    Fields { of: Tier },
}

#[derive(Shape, Serialize, Deserialize)]
struct Inner {
    x: i32,
}

#[derive(Shape, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    Bare,
    New(Inner),
    Two(bool, bool),
}

#[derive(Shape, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Inner(Inner),
    Nothing,
}

#[derive(Shape, Serialize, Deserialize)]
enum LastUntagged {
    Named(u8),
    #[serde(untagged)]
    Other(String),
}

#[test]
fn variants() {
    check(
        "<basic or read as none or nothing | only_gold | unknown or any other>",
        &[(Tier::OnlyGold, json!("only_gold")), (Tier::Unknown, json!("unknown"))],
    );
    check(
        "<Bare | Fields { OF: <basic or read as none or nothing | only_gold | unknown or any other> } | \
         New u8 | Two (u8, text) | Written never read>",
        &[
            (External::Bare, json!("Bare")),
            (External::New(1), json!({ "New": 1 })),
            (External::Two(1, "a".to_owned()), json!({ "Two": [1, "a"] })),
            (External::Fields { of: Tier::Basic }, json!({ "Fields": { "OF": "basic" } })),
            (External::Written, json!("Written")),
        ],
    );
    check(
        "<kind: bare-name | fields { of: <basic or read as none or nothing | only_gold | unknown or any other> } | \
         new { x: i32 }>",
        &[
            (Internal::BareName, json!({ "kind": "bare-name" })),
            (Internal::New(Inner { x: 1 }), json!({ "kind": "new", "x": 1 })),
            (Internal::Fields { of: Tier::Basic }, json!({ "kind": "fields", "of": "basic" })),
        ],
    );
    check(
        "<t, c: Bare | New { x: i32 } | Two (bool, bool)>",
        &[
            (Adjacent::Bare, json!({ "t": "Bare" })),
            (Adjacent::New(Inner { x: 1 }), json!({ "t": "New", "c": { "x": 1 } })),
            (Adjacent::Two(true, false), json!({ "t": "Two", "c": [true, false] })),
        ],
    );
    check(
        "<untagged: Number i64 | Inner { x: i32 } | Nothing>",
        &[
            (Untagged::Number(1), json!(1)),
            (Untagged::Inner(Inner { x: 1 }), json!({ "x": 1 })),
            (Untagged::Nothing, json!(null)),
        ],
    );
    check(
        "<Named u8 | Other text untagged>",
        &[
            (LastUntagged::Named(1), json!({ "Named": 1 })),
            (LastUntagged::Other("a".to_owned()), json!("a")),
        ],
    );
    refuses::<External>(json!({ "New": "a" }), "New: expected u8, found text");
    refuses::<Internal>(json!({ "kind": "new", "x": "a" }), "x: expected i32, found text");
    refuses::<Adjacent>(json!({ "t": "Two", "c": 1 }), "c: expected (bool, bool), found a number");
    refuses::<Untagged>(
        json!("a"),
        "expected <untagged: Number i64 | Inner { x: i32 } | Nothing>, found text",
    );
}

#[derive(Shape, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    inner: Inner,
    #[serde(flatten)]
    maybe: Option<Money>,
    own: u8,
}

#[derive(Shape, Serialize, Deserialize)]
struct Money {
    cents: i64,
}

#[derive(Shape, Serialize, Deserialize)]
struct Rest {
    own: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, i64>,
}

#[derive(Shape, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct Closed {
    a: u8,
    b: (),
}

#[derive(Shape, Serialize, Deserialize)]
#[serde(tag = "type")]
struct Tagged {
    a: u8,
}

#[test]
fn flattened_closed_and_tagged_fields() {
    check(
        "{ cents: i64 written sometimes = default, own: u8, x: i32 }",
        &[
            (Flat { inner: Inner { x: 1 }, maybe: None, own: 2 }, json!({ "x": 1, "own": 2 })),
            (
                Flat { inner: Inner { x: 1 }, maybe: Some(Money { cents: 3 }), own: 2 },
                json!({ "x": 1, "own": 2, "cents": 3 }),
            ),
        ],
    );
    let rest = BTreeMap::from([("more".to_owned(), 2)]);
    check(
        "{ own: u8, ..[text => i64] }",
        &[(Rest { own: 1, rest }, json!({ "own": 1, "more": 2 }))],
    );
    check(
        "{ a: u8 = default, b: nothing = default, no other }",
        &[(Closed { a: 1, b: () }, json!({ "a": 1, "b": null }))],
    );
    check(
        "{ a: u8, type: text never read }",
        &[(Tagged { a: 1 }, json!({ "type": "Tagged", "a": 1 }))],
    );
    refuses::<Closed>(json!({ "a": 1, "b": null, "c": 1 }), "c: expected no such field");
}

#[derive(Shape, Serialize, Deserialize)]
struct New(i64);

#[derive(Shape, Serialize, Deserialize)]
struct NewOption(Option<i64>);

#[derive(Shape, Serialize, Deserialize)]
#[serde(transparent)]
struct Transparent {
    only: Option<i64>,
}

#[derive(Shape, Serialize, Deserialize)]
struct HoldsThem {
    new: NewOption,
    transparent: Transparent,
}

#[derive(Shape, Serialize, Deserialize)]
struct Pair(u8, Cow<'static, str>);

#[derive(Shape, Serialize, Deserialize)]
struct Bare;

#[derive(Shape, Serialize, Deserialize)]
struct Empty {}

#[derive(Shape, Serialize, Deserialize)]
struct Generic<T> {
    of: T,
}

#[derive(Shape, Serialize, Deserialize)]
struct Tree {
    label: String,
    children: Vec<Tree>,
    forest: Option<Box<Forest>>,
}

#[derive(Shape, Serialize, Deserialize)]
struct Forest {
    first: Rc<Tree>,
    next: Option<Box<Forest>>,
}

#[test]
fn types_of_every_form() {
    check("i64", &[(New(1), json!(1))]);
    check("new(i64?)", &[(NewOption(None), json!(null)), (NewOption(Some(1)), json!(1))]);
    check("i64?", &[(Transparent { only: Some(1) }, json!(1))]);
    check("(u8, text)", &[(Pair(1, "a".into()), json!([1, "a"]))]);
    check("nothing", &[(Bare, json!(null))]);
    check("{}", &[(Empty {}, json!({}))]);
    check("{ of: [text] }", &[(Generic { of: vec!["a".to_owned()] }, json!({ "of": ["a"] }))]);
    check("{ of: bool }", &[(Generic { of: true }, json!({ "of": true }))]);
    let leaf = || Tree { label: String::new(), children: vec![], forest: None };
    let forest = Forest { first: Rc::new(leaf()), next: None };
    let leaf_json = json!({ "label": "", "children": [], "forest": null });
    check(
        "{ children: [around(1)], \
         forest: { first: around(2), next: around(1)? = default }? = default, label: text }",
        &[(
            Tree { label: "a".to_owned(), children: vec![leaf()], forest: Some(Box::new(forest)) },
            json!({
                "label": "a",
                "children": [leaf_json],
                "forest": { "first": leaf_json, "next": null },
            }),
        )],
    );
    // What may be missing is what serde lets be missing.
    assert_eq!(
        Form::of::<HoldsThem>().to_string(),
        "{ new: new(i64?), transparent: i64? = default }"
    );
    assert!(serde_json::from_str::<HoldsThem>(r#"{"new":null}"#).is_ok());
    assert!(serde_json::from_str::<HoldsThem>(r#"{"transparent":null}"#).is_err());
}

#[test]
fn types_of_the_standard_library_and_of_the_crate() {
    check::<[u8; 3]>("[u8; 3]", &[([1, 2, 3], json!([1, 2, 3]))]);
    check("[i16]", &[(VecDeque::from([1_i16]), json!([1]))]);
    check("[i32]", &[(BTreeSet::from([1]), json!([1]))]);
    check("[u64]", &[(HashSet::from([1_usize]), json!([1]))]);
    check("[u32 => text]", &[(HashMap::from([(1_u32, "a")]), json!({ "1": "a" }))]);
    check("i128", &[(-1_i128, json!(-1))]);
    check("f32", &[(0.5_f32, json!(0.5)), (f32::NAN, json!(null))]);
    check("<Err text | Ok u8>", &[(Ok::<u8, String>(1), json!({ "Ok": 1 }))]);
    check("anything", &[(json!({ "a": [1] }), json!({ "a": [1] }))]);
    check("text?", &[(Some(Arc::<str>::from("a")), json!("a"))]);
    check(
        "{ nanos: u32, secs: u64 }",
        &[(Duration::from_millis(1_500), json!({ "secs": 1, "nanos": 500_000_000 }))],
    );
    check(
        "{ nanos_since_epoch: u32, secs_since_epoch: u64 }",
        &[(SystemTime::UNIX_EPOCH, json!({ "secs_since_epoch": 0, "nanos_since_epoch": 0 }))],
    );
    check("opaque(\"IP address\")", &[(IpAddr::from([1, 1, 1, 1]), json!("1.1.1.1"))]);
    let id = EventId::fresh();
    check("uuid", &[(id, json!(id.to_string()))]);
    check("uuid", &[(CommandId::from_name("a"), json!(CommandId::from_name("a").to_string()))]);
    check("u64", &[(Timestamp::from_micros(7), json!(7))]);
    check("u64", &[(Version::new(7), json!(7))]);
    check("u64", &[(Position::new(7), json!(7))]);
    check("text", &[(StreamId::new("account", "1").unwrap(), json!("account-1"))]);
    let mut metadata = Metadata::default();
    metadata.insert("tenant", "a");
    check(
        "[text => text]?",
        &[(metadata, json!({ "tenant": "a" })), (Metadata::default(), json!(null))],
    );
}

mod cents {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
    pub(super) fn serialize<S: Serializer>(cents: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&cents.to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
struct Foreign(i64);

#[derive(Shape, Serialize, Deserialize)]
struct Opaque {
    #[serde(with = "cents")]
    a: i64,
    #[serde(serialize_with = "cents::serialize")]
    b: i64,
    #[serde(deserialize_with = "cents::deserialize", default)]
    c: i64,
    #[shape(opaque)]
    d: BTreeMap<String, Foreign>,
    #[shape(opaque = "number")]
    e: Foreign,
}

#[derive(Shape, Serialize, Deserialize, Clone)]
#[serde(from = "Money", into = "Money")]
struct Through(i64);

impl From<Money> for Through {
    fn from(money: Money) -> Self {
        Self(money.cents)
    }
}

impl From<Through> for Money {
    fn from(through: Through) -> Self {
        Self { cents: through.0 }
    }
}

#[derive(Shape, Serialize, Deserialize)]
#[shape(opaque = "by hand")]
struct ByHand {
    _field: Foreign,
}

#[test]
fn what_is_not_described_has_a_name() {
    check(
        "{ a: opaque(\"i64 with cents\"), b: opaque(\"i64 written with cents::serialize\"), \
         c: opaque(\"i64 read with cents::deserialize\") = default, \
         d: opaque(\"BTreeMap<String, Foreign>\"), e: opaque(\"number\") }",
        &[(
            Opaque { a: 1, b: 2, c: 3, d: BTreeMap::new(), e: Foreign(4) },
            json!({ "a": "1", "b": "2", "c": 3, "d": {}, "e": 4 }),
        )],
    );
    check("{ cents: i64 }", &[(Through(1), json!({ "cents": 1 }))]);
    check::<ByHand>("opaque(\"by hand\")", &[]);
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "x.happened")]
struct Happened {
    seen: Inner,
    unseen: Vec<Foreign>,
    within: Option<Tier>,
    #[shape(opaque = "number")]
    marked: Foreign,
}

#[derive(Event, Shape, Serialize, Deserialize)]
#[event(name = "x.both")]
struct Both {
    parts: Vec<Both>,
}

#[test]
fn an_event_is_described_as_far_as_its_parts_are() {
    let shape = Happened::shape();
    assert_eq!(
        shape.to_string(),
        "{ marked: opaque(\"number\"), seen: { x: i32 }, unseen: unseen(\"Vec<Foreign>\"), \
         within: <basic or read as none or nothing | only_gold | unknown or any other>? = default }"
    );
    assert_eq!(shape.unseen(), [("unseen".to_owned(), "Vec<Foreign>")]);
    assert_eq!(Both::shape(), Form::of::<Both>());
    assert_eq!(Both::shape().to_string(), "{ parts: [around(1)] }");
}

#[test]
fn the_digest_is_of_the_form_alone() {
    let digest = Form::of::<Money>().digest();
    assert_eq!(digest, Form::of::<Through>().digest(), "names of types are no part of it");
    // Snapshots in files of users stand under it: it must be the same in every build.
    assert_eq!(uuid::Uuid::from_bytes(digest).to_string(), "f2aeffc9-2c49-5bef-be37-9dbf171c9309");

    mod other_order {
        use super::*;
        #[derive(Shape, Serialize, Deserialize)]
        pub(super) struct Forest {
            next: Option<Box<Forest>>,
            first: Rc<Tree>,
        }
    }
    assert_eq!(Form::of::<Generic<(u8, u8)>>().digest(), Form::of::<Generic<(u8, u8)>>().digest());
    assert_ne!(Form::of::<Generic<(u8, u8)>>().digest(), Form::of::<Generic<[u8; 2]>>().digest());
    assert_ne!(Form::of::<Generic<u8>>().digest(), Form::of::<Generic<i8>>().digest());
    assert_ne!(Form::of::<Closed>().digest(), Form::of::<Flat>().digest());
    assert!(Form::of::<other_order::Forest>().to_string().starts_with("{ first: "));
}

#[derive(Debug, PartialEq, Shape, Serialize, Deserialize)]
struct Zoo {
    number: i32,
    wide: u64,
    text: String,
    maybe: Option<(bool, char)>,
    bytes: Vec<u8>,
    map: BTreeMap<String, Option<i8>>,
    kind: Kind,
    #[serde(flatten)]
    rest: BTreeMap<String, Kind>,
}

#[derive(Debug, Clone, PartialEq, Shape, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Kind {
    A,
    B { x: Option<f64> },
    C { list: Vec<u16> },
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::A),
        proptest::option::of(-1.0e9..1.0e9).prop_map(|x| Kind::B { x }),
        any::<Vec<u16>>().prop_map(|list| Kind::C { list }),
    ]
}

prop_compose! {
    fn zoo()(
        number in any::<i32>(),
        wide in any::<u64>(),
        text in any::<String>(),
        maybe in any::<Option<(bool, char)>>(),
        bytes in any::<Vec<u8>>(),
        map in any::<BTreeMap<String, Option<i8>>>(),
        kind in kind(),
        rest in proptest::collection::btree_map("rest[0-9]", self::kind(), 0..3),
    ) -> Zoo {
        Zoo { number, wide, text, maybe, bytes, map, kind, rest }
    }
}

#[track_caller]
fn round<T: Shape + Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let json = serde_json::to_value(value).unwrap();
    Form::of::<T>().admits(&json).expect("what serde writes");
    assert_eq!(serde_json::from_value::<T>(json).unwrap(), *value);
}

/// A field of `value` with something else in its place.
fn damaged(value: &Zoo, place: usize) -> Value {
    let mut json = serde_json::to_value(value).unwrap();
    let fields = ["number", "wide", "text", "maybe", "bytes", "map", "kind"];
    let field = fields.get(place % fields.len()).unwrap();
    let found = json.get_mut(*field).unwrap();
    // No field takes a number that is not whole.
    *found = json!(0.5);
    json
}

proptest! {
    #[test]
    fn whatever_serde_writes_is_of_the_shape(value in zoo()) {
        round(&value);
    }

    #[test]
    fn what_is_not_of_the_shape_serde_does_not_read(value in zoo(), place in any::<usize>()) {
        let json = damaged(&value, place);
        prop_assert!(Form::of::<Zoo>().admits(&json).is_err());
        prop_assert!(serde_json::from_value::<Zoo>(json).is_err());
    }
}
