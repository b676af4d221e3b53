//! The schema lock names every change of an event: who still reads what, the field, and the line to write. Each verdict is checked
//! against what serde makes of real payloads.
#![cfg(all(feature = "macros", feature = "testing"))]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests: a broken assumption is a failed test"
)]
#![allow(
    dead_code,
    reason = "the events are described and decoded, and not all of their fields are read"
)]

use std::fs;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tidings::testing::{Findings, Recording, SchemaLock, schema_lock};
use tidings::{
    Codec, CodecError, DecodeError, Event, EventSchema, EventSet, Shape, aggregate, decode_event,
};

/// The set of one event.
struct Of<E>(E);

impl<E: Event> EventSet for Of<E> {
    const CATEGORY: &'static str = "account";
    const NAMES: &'static [&'static str] = &[E::NAME];

    fn index(&self) -> usize {
        0
    }

    fn name(&self) -> &'static str {
        E::NAME
    }

    fn schema_version(&self) -> u32 {
        E::VERSION
    }

    fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        E::CODEC.encode(&self.0, bytes)
    }

    fn decode(name: &str, version: u32, codec: Codec, payload: &[u8]) -> Result<Self, DecodeError> {
        if name != E::NAME {
            let (category, known) = (Self::CATEGORY, Self::NAMES);
            return Err(DecodeError::UnknownName { category, name: name.to_owned(), known });
        }
        decode_event(version, codec, payload).map(Self)
    }

    fn schemas() -> Vec<EventSchema> {
        vec![EventSchema::of::<E>()]
    }
}

struct Repository {
    folder: TempDir,
}

impl Repository {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn lock(&self, recording: Recording) -> SchemaLock {
        schema_lock().file(self.folder.path().join("tidings.lock.json")).recording(recording)
    }

    fn check<S: EventSet>(&self, recording: Recording) -> Result<usize, String> {
        let checked = self.lock(recording).events::<S>().try_check();
        checked.map(|written| written.len()).map_err(|findings| self.without_path(&findings))
    }

    fn without_path(&self, findings: &Findings) -> String {
        let folder = format!("{}/", self.folder.path().display());
        findings.to_string().replace(&folder, "")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.folder.path().join("tidings.lock.json")).unwrap()
    }
}

/// What is found when `Old` was released and `New` takes its place; `old` and `new` are payloads of theirs.
#[track_caller]
fn change<Old: Event, New: Event>(old: &str, new: &str, expected: &str) {
    reads::<Old>(old, true);
    reads::<New>(new, true);
    let repository = Repository::new();
    assert_eq!(repository.check::<Of<Old>>(Recording::New), Ok(1), "first run");
    assert_eq!(repository.check::<Of<Old>>(Recording::Nothing), Ok(0), "unchanged");
    let before = repository.text();
    for recording in [Recording::New, Recording::Nothing] {
        let found = repository.check::<Of<New>>(recording).unwrap_err();
        let start = "the events of this program do not fit tidings.lock.json:\n\n";
        assert_eq!(found.strip_prefix(start).unwrap_or(&found).trim(), expected.trim());
        assert_eq!(repository.text(), before, "nothing is written");
    }
    let backward = !expected.contains("this program does not read what is stored");
    let judged = !expected.contains("cannot be judged");
    if judged {
        reads::<New>(old, backward);
        let forward =
            expected.contains("both directions") || expected.contains("forward-compatible");
        reads::<Old>(new, forward);
    }
    let accepted = repository.check::<Of<New>>(Recording::Changes);
    if backward {
        assert_eq!(accepted, Ok(1));
        assert_eq!(repository.check::<Of<New>>(Recording::Nothing), Ok(0), "accepted");
    } else {
        assert!(accepted.is_err(), "a change that breaks the log is never accepted");
        assert_eq!(repository.text(), before);
    }
}

#[track_caller]
fn reads<E: DeserializeOwned>(payload: &str, expected: bool) {
    let read = serde_json::from_str::<E>(payload);
    assert_eq!(read.is_ok(), expected, "{payload}: {:?}", read.err());
}

/// Two releases of one event.
macro_rules! change {
    ($old:tt $old_payload:literal => $new:tt $new_payload:literal, $expected:literal) => {{
        mod old {
            use super::*;
            #[derive(Event, Serialize, Deserialize)]
            #[event(name = "account.deposited", version = 1)]
            pub(super) struct Deposited $old
        }
        mod new {
            use super::*;
            #[derive(Event, Serialize, Deserialize)]
            #[event(name = "account.deposited", version = 1)]
            pub(super) struct Deposited $new
        }
        change::<old::Deposited, new::Deposited>($old_payload, $new_payload, $expected);
    }};
}

#[derive(Shape, Serialize, Deserialize)]
enum Tier {
    Basic,
    Gold,
}

#[derive(Shape, Serialize, Deserialize)]
enum MoreTiers {
    Basic,
    Silver,
    Gold,
}

#[derive(Shape, Serialize, Deserialize)]
#[serde(tag = "tier")]
enum TaggedTier {
    Basic,
    Gold,
}

#[derive(Serialize, Deserialize)]
struct Foreign(i64);

#[derive(Shape, Serialize, Deserialize)]
struct Money {
    cents: i64,
}

#[derive(Shape, Serialize, Deserialize)]
struct MoneyIn {
    cents: i64,
    currency: String,
}

#[test]
fn fields() {
    change!({ cents: i64 } r#"{"cents":1}"# => { cents: i64, note: String } r#"{"cents":1,"note":""}"#, r##"
account.deposited, version 1: forward-compatible, but not backward
  the release before it reads what this program writes; this program does not read what is stored
  `note` is new and has no default: stored events have no such field
    → `#[serde(default)]` on `note`
  → or raise the version: `#[event(name = "account.deposited", version = 2)]`, and `#[upcast(from = 1)]` in its `#[upcasts]`
  → or, if version 1 was never released, delete its entry from the lock"##);
    change!({ cents: i64 } r#"{"cents":1}"# => { cents: i64, note: Option<String> } r#"{"cents":1,"note":null}"#, r##"
account.deposited, version 1: compatible in both directions
  this program and the release before it read each other's events
  `note` is new: stored events have no such field, and are read with its default
  → if it is meant, accept it: `TIDINGS_ACCEPT=1 cargo test`"##);
    change!({ cents: i64 } r#"{"cents":1}"# => { cents: i64, #[serde(default)] note: String } r#"{"cents":1,"note":""}"#, r##"
account.deposited, version 1: compatible in both directions
  this program and the release before it read each other's events
  `note` is new: stored events have no such field, and are read with its default
  → if it is meant, accept it: `TIDINGS_ACCEPT=1 cargo test`"##);
    change!({ cents: i64, note: String } r#"{"cents":1,"note":""}"# => { cents: i64 } r#"{"cents":1}"#, r##"
account.deposited, version 1: backward-compatible
  this program reads what is stored; the release before it does not read what this one writes
  `note` is gone: what is stored of it is not read
  the release before needs `note`, which is no longer written
  → if it is meant, accept it: `TIDINGS_ACCEPT=1 cargo test`"##);
    change!({ cents: i64, #[serde(default)] note: String } r#"{"cents":1,"note":""}"# => { cents: i64 } r#"{"cents":1}"#, r##"
account.deposited, version 1: compatible in both directions
  this program and the release before it read each other's events
  `note` is gone: what is stored of it is not read
  → if it is meant, accept it: `TIDINGS_ACCEPT=1 cargo test`"##);
    change!({ cents: i64 } r#"{"cents":1}"# => { amount: i64 } r#"{"amount":1}"#, r##"
account.deposited, version 1: breaking
  this program does not read what is stored, and the release before it does not read what this one writes
  `amount` is new and has no default: stored events have no such field
    → `#[serde(default)]` on `amount`; or `#[serde(rename = "cents")]`, if it is what `cents` was
  `cents` is gone: what is stored of it is not read
  the release before needs `cents`, which is no longer written
  → or raise the version: `#[event(name = "account.deposited", version = 2)]`, and `#[upcast(from = 1)]` in its `#[upcasts]`
  → or, if version 1 was never released, delete its entry from the lock"##);
    change!({ note: Option<String> } r#"{"note":"x"}"# => { remark: Option<String> } r#"{"remark":"x"}"#, r##"
account.deposited, version 1: compatible in both directions
  this program and the release before it read each other's events
  `remark` is new: stored events have no such field, and are read with its default
  `note` is gone: what is stored of it is not read
    → `#[serde(alias = "note")]` on `remark`, if that is what it was
  → if it is meant, accept it: `TIDINGS_ACCEPT=1 cargo test`"##);
    change!({ cents: i64 } r#"{"cents":1}"# => { #[serde(alias = "cents")] amount: i64 } r#"{"amount":1}"#, r##"
account.deposited, version 1: backward-compatible
  this program reads what is stored; the release before it does not read what this one writes
  `cents` is called `amount`, and is read under both names
  the release before needs `cents`, which is no longer written
  → if it is meant, accept it: `TIDINGS_ACCEPT=1 cargo test`"##);
    change!({ note: String } r#"{"note":""}"# => { #[serde(default, skip_serializing_if = "String::is_empty")] note: String } r#"{}"#, r##"
account.deposited, version 1: backward-compatible
  this program reads what is stored; the release before it does not read what this one writes
  the release before needs `note`, which is not always written
  → if it is meant, accept it: `TIDINGS_ACCEPT=1 cargo test`"##);
}

#[test]
fn values() {
    change!({ note: Option<String> } r#"{"note":null}"# => { note: String } r#"{"note":""}"#, r##"
account.deposited, version 1: forward-compatible, but not backward
  the release before it reads what this program writes; this program does not read what is stored
  `note` was text? and is text: not all that is stored fits
    → restore `note`: text?
  → or raise the version: `#[event(name = "account.deposited", version = 2)]`, and `#[upcast(from = 1)]` in its `#[upcasts]`
  → or, if version 1 was never released, delete its entry from the lock"##);
    change!({ note: String } r#"{"note":""}"# => { note: Option<String> } r#"{"note":null}"#, r##"
account.deposited, version 1: backward-compatible
  this program reads what is stored; the release before it does not read what this one writes
  `note` was text and is text?
  the release before takes text for `note`, and not every text?
  → if it is meant, accept it: `TIDINGS_ACCEPT=1 cargo test`"##);
    change!({ cents: i32 } r#"{"cents":1}"# => { cents: i64 } r#"{"cents":4294967296}"#, r##"
account.deposited, version 1: backward-compatible
  this program reads what is stored; the release before it does not read what this one writes
  `cents` was i32 and is i64
  the release before takes i32 for `cents`, and not every i64
  → if it is meant, accept it: `TIDINGS_ACCEPT=1 cargo test`"##);
    change!({ cents: i64 } r#"{"cents":4294967296}"# => { cents: i32 } r#"{"cents":1}"#, r##"
account.deposited, version 1: forward-compatible, but not backward
  the release before it reads what this program writes; this program does not read what is stored
  `cents` was i64 and is i32: not all that is stored fits
    → restore `cents`: i64
  → or raise the version: `#[event(name = "account.deposited", version = 2)]`, and `#[upcast(from = 1)]` in its `#[upcasts]`
  → or, if version 1 was never released, delete its entry from the lock"##);
    change!({ cents: i64 } r#"{"cents":1}"# => { cents: String } r#"{"cents":"1"}"#, r##"
account.deposited, version 1: breaking
  this program does not read what is stored, and the release before it does not read what this one writes
  `cents` was i64 and is text: not all that is stored fits
    → restore `cents`: i64
  the release before takes i64 for `cents`, and not every text
  → or raise the version: `#[event(name = "account.deposited", version = 2)]`, and `#[upcast(from = 1)]` in its `#[upcasts]`
  → or, if version 1 was never released, delete its entry from the lock"##);
    change!({ paid: Money } r#"{"paid":{"cents":1}}"# => { paid: MoneyIn } r#"{"paid":{"cents":1,"currency":""}}"#, r##"
account.deposited, version 1: forward-compatible, but not backward
  the release before it reads what this program writes; this program does not read what is stored
  `paid.currency` is new and has no default: stored events have no such field
    → `#[serde(default)]` on `currency`
  → or raise the version: `#[event(name = "account.deposited", version = 2)]`, and `#[upcast(from = 1)]` in its `#[upcasts]`
  → or, if version 1 was never released, delete its entry from the lock"##);
    change!({ at: std::net::IpAddr } r#"{"at":"1.1.1.1"}"# => { at: String } r#"{"at":"here"}"#, r##"
account.deposited, version 1: cannot be judged
  a part has changed that is not described
  `at` was opaque("IP address") and is text: what serde writes of it cannot be seen
    → `#[shape(opaque = "…")]` gives it a name that stays; `#[derive(Shape)]` describes it
  → if serde writes the same as before, accept it: `TIDINGS_ACCEPT=1 cargo test`
  → or raise the version: `#[event(name = "account.deposited", version = 2)]`, and `#[upcast(from = 1)]` in its `#[upcasts]`"##);
    change!({ cents: i64 } r#"{"cents":1}"# => { #[shape(opaque = "cents")] cents: Foreign } r#"{"cents":1}"#, r##"
account.deposited, version 1: cannot be judged
  a part has changed that is not described
  `cents` was i64 and is opaque("cents"): what serde writes of it cannot be seen
    → `#[shape(opaque = "…")]` gives it a name that stays; `#[derive(Shape)]` describes it
  → if serde writes the same as before, accept it: `TIDINGS_ACCEPT=1 cargo test`
  → or raise the version: `#[event(name = "account.deposited", version = 2)]`, and `#[upcast(from = 1)]` in its `#[upcasts]`"##);
}

#[test]
fn variants() {
    change!({ tier: Tier } r#"{"tier":"Gold"}"# => { tier: MoreTiers } r#"{"tier":"Silver"}"#, r##"
account.deposited, version 1: backward-compatible
  this program reads what is stored; the release before it does not read what this one writes
  `tier` can also be `Silver`, which is new
  the release before does not know `tier` as `Silver`
  → if it is meant, accept it: `TIDINGS_ACCEPT=1 cargo test`"##);
    change!({ tier: MoreTiers } r#"{"tier":"Silver"}"# => { tier: Tier } r#"{"tier":"Gold"}"#, r##"
account.deposited, version 1: forward-compatible, but not backward
  the release before it reads what this program writes; this program does not read what is stored
  `tier` could be `Silver`, which is gone
    → restore the variant `Silver`, or `#[serde(alias = "Silver")]` on the one that took its place
  → or raise the version: `#[event(name = "account.deposited", version = 2)]`, and `#[upcast(from = 1)]` in its `#[upcasts]`
  → or, if version 1 was never released, delete its entry from the lock"##);
    change!({ tier: Tier } r#"{"tier":"Gold"}"# => { tier: TaggedTier } r#"{"tier":{"tier":"Gold"}}"#, r##"
account.deposited, version 1: breaking
  this program does not read what is stored, and the release before it does not read what this one writes
  `tier` says in another way which variant it is
    → restore `#[serde(tag = …, content = …, untagged)]` on its type
  → or raise the version: `#[event(name = "account.deposited", version = 2)]`, and `#[upcast(from = 1)]` in its `#[upcasts]`
  → or, if version 1 was never released, delete its entry from the lock"##);
}

/// What is found when `New` is checked against the lock of `Old`.
#[track_caller]
fn finds<Old: EventSet, New: EventSet>(expected: &str) {
    let repository = Repository::new();
    assert_eq!(repository.check::<Old>(Recording::New), Ok(1), "first run");
    let before = repository.text();
    let found = repository.check::<New>(Recording::Changes).unwrap_err();
    let start = "the events of this program do not fit tidings.lock.json:\n\n";
    assert_eq!(found.strip_prefix(start).unwrap_or(&found).trim(), expected.trim());
    assert_eq!(repository.text(), before, "nothing is written");
}

mod first {
    use super::*;
    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "account.deposited", version = 1)]
    pub(super) struct Deposited {
        pub(super) cents: i64,
    }
}

mod second {
    use super::*;
    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "account.deposited", version = 2, oldest = 2)]
    pub(super) struct Deposited {
        pub(super) cents: i64,
        pub(super) note: String,
    }
}

mod other {
    use super::*;
    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "account.closed", version = 1)]
    pub(super) struct Closed {
        pub(super) why: Vec<Foreign>,
        pub(super) by: Option<Foreign>,
    }
}

/// A set that reads both versions.
struct Reading;

impl EventSet for Reading {
    const CATEGORY: &'static str = "account";
    const NAMES: &'static [&'static str] = &["account.deposited"];

    fn index(&self) -> usize {
        0
    }

    fn name(&self) -> &'static str {
        "account.deposited"
    }

    fn schema_version(&self) -> u32 {
        2
    }

    fn encode(&self, _: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(())
    }

    fn decode(name: &str, version: u32, codec: Codec, payload: &[u8]) -> Result<Self, DecodeError> {
        match version {
            1 => Of::<first::Deposited>::decode(name, version, codec, payload).map(|_| Self),
            _ => Of::<second::Deposited>::decode(name, version, codec, payload).map(|_| Self),
        }
    }

    fn schemas() -> Vec<EventSchema> {
        vec![EventSchema::of::<second::Deposited>()]
    }
}

/// A set that writes both versions.
struct Both;

impl EventSet for Both {
    const CATEGORY: &'static str = "account";
    const NAMES: &'static [&'static str] = &["account.deposited", "account.deposited"];

    fn index(&self) -> usize {
        0
    }

    fn name(&self) -> &'static str {
        "account.deposited"
    }

    fn schema_version(&self) -> u32 {
        2
    }

    fn encode(&self, _: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(())
    }

    fn decode(name: &str, version: u32, codec: Codec, payload: &[u8]) -> Result<Self, DecodeError> {
        Reading::decode(name, version, codec, payload).map(|_| Self)
    }

    fn schemas() -> Vec<EventSchema> {
        vec![EventSchema::of::<second::Deposited>(), EventSchema::of::<first::Deposited>()]
    }
}

/// A set that says nothing of its events.
struct Silent;

impl EventSet for Silent {
    const CATEGORY: &'static str = "account";
    const NAMES: &'static [&'static str] = &["account.deposited"];

    fn index(&self) -> usize {
        0
    }

    fn name(&self) -> &'static str {
        "account.deposited"
    }

    fn schema_version(&self) -> u32 {
        1
    }

    fn encode(&self, _: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(())
    }

    fn decode(name: &str, version: u32, codec: Codec, payload: &[u8]) -> Result<Self, DecodeError> {
        Of::<first::Deposited>::decode(name, version, codec, payload).map(|_| Self)
    }
}

#[test]
fn a_version_that_is_no_longer_read() {
    finds::<Of<first::Deposited>, Of<second::Deposited>>(
        r##"
account.deposited, version 1: breaking: it was released, and is no longer read
  → `#[upcast(from = 1)]` in the `#[upcasts]` of the event, which leads to version 2"##,
    );
}

#[test]
fn a_version_that_goes_back() {
    finds::<Of<second::Deposited>, Of<first::Deposited>>(
        r##"
account.deposited: version 1 is older than version 2, which was released
  → `#[event(name = "account.deposited", version = 2)]`, or a higher one"##,
    );
}

#[test]
fn an_event_that_is_gone_and_one_that_cannot_be_seen() {
    finds::<Of<first::Deposited>, Of<other::Closed>>(
        r##"
account.closed: a part of it cannot be seen
  by: `Option<Foreign>` has no `Shape`
    → `#[derive(tidings::Shape)]` on the type, or `#[shape(opaque)]` on the field if it is of another crate
  why: `Vec<Foreign>` has no `Shape`
    → `#[derive(tidings::Shape)]` on the type, or `#[shape(opaque)]` on the field if it is of another crate

account.deposited, version 1: breaking: it was released, and the set of category "account" has no such event
  → restore it; or, if it is called otherwise today, `formerly = "account.deposited"` in the `#[event(…)]` of that
  → or read it as what took its place: `#[upcast(event = "account.deposited", version = 1)]` in the `#[aggregate]`"##,
    );
}

#[test]
fn a_set_that_says_nothing() {
    finds::<Of<first::Deposited>, Silent>(
        r##"
account.deposited: `schema_lock_names_every_change::Silent` does not say what its shape is
  → implement `EventSet::schemas`, with `EventSchema::of` for each event"##,
    );
}

#[test]
fn a_raised_version_is_added_and_the_one_before_it_stays() {
    let repository = Repository::new();
    assert_eq!(repository.check::<Of<first::Deposited>>(Recording::New), Ok(1));
    let in_ci = repository.check::<Reading>(Recording::Nothing).unwrap_err();
    assert!(in_ci.contains("not level with the events of this program"), "{in_ci}");
    assert!(in_ci.contains("without the variable `CI`"), "{in_ci}");
    assert_eq!(repository.check::<Reading>(Recording::New), Ok(1));
    let lock: serde_json::Value = serde_json::from_str(&repository.text()).unwrap();
    let versions = &lock["categories"]["account"]["account.deposited"];
    assert_eq!(
        *versions,
        serde_json::json!([
            { "version": 1, "shape": { "struct": { "fields": [{ "name": "cents", "form": "i64" }] } } },
            { "version": 2, "shape": { "struct": { "fields": [
                { "name": "cents", "form": "i64" }, { "name": "note", "form": "text" },
            ] } } },
        ])
    );
    assert_eq!(repository.check::<Reading>(Recording::Nothing), Ok(0));
}

#[test]
fn two_versions_may_be_written_side_by_side() {
    let repository = Repository::new();
    assert_eq!(repository.check::<Of<first::Deposited>>(Recording::New), Ok(1));
    assert_eq!(repository.check::<Both>(Recording::New), Ok(1));
    assert_eq!(repository.check::<Both>(Recording::Nothing), Ok(0));
    assert_eq!(
        repository.check::<Reading>(Recording::Nothing),
        Ok(0),
        "and then the newer one alone"
    );
    let found = repository.check::<Of<first::Deposited>>(Recording::Nothing).unwrap_err();
    assert!(found.contains("version 1 is older than version 2, which was released"), "{found}");
}

#[test]
fn a_lock_that_is_not_there_fails_on_a_build_server() {
    let repository = Repository::new();
    let found = repository.check::<Of<first::Deposited>>(Recording::Nothing).unwrap_err();
    assert!(found.contains("tidings.lock.json is missing"), "{found}");
    assert_eq!(fs::read_dir(repository.folder.path()).unwrap().count(), 0);
}

#[test]
fn a_category_that_nobody_names() {
    let repository = Repository::new();
    assert_eq!(repository.check::<Of<first::Deposited>>(Recording::New), Ok(1));
    let found = repository.check::<Elsewhere>(Recording::Changes).unwrap_err();
    assert!(
        found.contains("category \"account\" is in the lock with account.deposited"),
        "{found}"
    );
    let both =
        repository.lock(Recording::New).events::<Of<first::Deposited>>().events::<Elsewhere>();
    assert_eq!(both.try_check().unwrap().len(), 1);
    let none = repository.lock(Recording::New).try_check().unwrap_err().to_string();
    assert!(none.contains(".events::<AccountEvent>()"), "{none}");
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "elsewhere.happened")]
struct Happened {}

#[derive(Default)]
struct Anything;

#[aggregate(category = "elsewhere", events = Elsewhere)]
impl Anything {
    #[apply]
    fn happened(&mut self, _: &Happened) {}
}

#[test]
fn a_file_that_is_no_lock() {
    let repository = Repository::new();
    let file = repository.folder.path().join("tidings.lock.json");
    for (text, expected) in [
        ("{", "is no schema lock: EOF"),
        (r#"{"format":1,"categories":{},"more":1}"#, "is no schema lock: unknown field"),
        (
            r#"{"format":2,"categories":{}}"#,
            "is of format 2, and this version of Tidings reads format 1",
        ),
    ] {
        fs::write(&file, text).unwrap();
        let found = repository.check::<Of<first::Deposited>>(Recording::Changes).unwrap_err();
        assert!(found.contains(expected), "{found}");
        assert_eq!(repository.text(), text, "it is left as it is");
    }
}

#[test]
fn check_fails_the_test_with_all_findings() {
    let repository = Repository::new();
    assert_eq!(repository.check::<Of<first::Deposited>>(Recording::New), Ok(1));
    let lock = repository.lock(Recording::New).events::<Of<other::Closed>>().events::<Elsewhere>();
    let cause = std::panic::catch_unwind(|| lock.check()).unwrap_err();
    let text = cause.downcast_ref::<String>().unwrap();
    for expected in ["account.closed: a part", "account.deposited, version 1: breaking"] {
        assert!(text.contains(expected), "{text}");
    }
}

#[cfg(feature = "schemars")]
mod json_schemas {
    use super::*;

    #[derive(Event, Serialize, Deserialize, schemars::JsonSchema)]
    #[event(name = "account.renamed", version = 3, oldest = 3)]
    struct Renamed {
        name: String,
    }

    #[derive(Default)]
    struct Described;

    #[aggregate(category = "account", events = DescribedEvent)]
    impl Described {
        #[apply]
        fn renamed(&mut self, _: &Renamed) {}
    }

    #[test]
    fn every_event_has_its_file() {
        let repository = Repository::new();
        let folder = repository.folder.path().join("schemas");
        let lock =
            |recording| repository.lock(recording).events::<DescribedEvent>().json_schemas(&folder);
        assert_eq!(lock(Recording::New).try_check().unwrap().len(), 2);
        let file = folder.join("account.renamed.v3.json");
        let schema: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(schema["properties"]["name"]["type"], "string");
        assert_eq!(lock(Recording::Nothing).try_check().unwrap().len(), 0);
        fs::write(&file, "{}").unwrap();
        let stale = lock(Recording::Nothing).try_check().unwrap_err().to_string();
        assert!(stale.contains("account.renamed.v3.json is missing, or not level"), "{stale}");
        assert_eq!(lock(Recording::New).try_check().unwrap(), [file]);
    }

    #[test]
    fn an_event_without_one_is_named() {
        let repository = Repository::new();
        let folder = repository.folder.path().join("schemas");
        let lock = repository.lock(Recording::New).events::<Elsewhere>().json_schemas(folder);
        let found = lock.try_check().unwrap_err().to_string();
        assert!(found.contains("elsewhere.happened: it has no JSON Schema"), "{found}");
        assert!(found.contains("#[derive(schemars::JsonSchema)]"), "{found}");
    }
}

/// A program release by release, as `#[aggregate]` writes its set: what the lock says is to be written is what the next one has.
mod releases {
    macro_rules! release {
        ($release:ident { $($events:item)* } { $($handlers:tt)* }) => {
            pub(super) mod $release {
                use serde::{Deserialize, Serialize};
                use tidings::{Event, Json, aggregate, upcasts};

                $($events)*

                #[derive(Default)]
                pub(in super::super) struct Member;

                #[aggregate(category = "member", events = pub(in super::super) MemberEvent)]
                impl Member { $($handlers)* }

                // Not every release has steps.
                #[allow(unused_imports, dead_code)]
                mod used {
                    use super::{Json, upcasts};
                }
            }
        };
    }

    release!(first {
        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.joined")]
        pub(in super::super) struct Joined { name: String }

        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.moved")]
        pub(in super::super) struct Moved { street: String, city: String }

        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.promoted")]
        pub(in super::super) struct Promoted { tier: u8 }
    } {
        #[apply]
        fn joined(&mut self, _: &Joined) {}
        #[apply]
        fn moved(&mut self, _: &Moved) {}
        #[apply]
        fn promoted(&mut self, _: &Promoted) {}
    });

    release!(careless {
        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.joined")]
        pub(in super::super) struct Joined { first: String, last: String }

        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.city_changed")]
        pub(in super::super) struct CityChanged { city: String }

        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.rose")]
        pub(in super::super) struct Rose { tier: u8 }
    } {
        #[apply]
        fn joined(&mut self, _: &Joined) {}
        #[apply]
        fn city(&mut self, _: &CityChanged) {}
        #[apply]
        fn rose(&mut self, _: &Rose) {}
    });

    release!(second {
        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.joined", version = 2)]
        pub(in super::super) struct Joined { first: String, last: String }

        #[upcasts]
        impl Joined {
            #[upcast(from = 1)]
            fn two_names(old: Json) -> Joined {
                Joined { first: String::new(), last: old["name"].as_str().unwrap_or_default().to_owned() }
            }
        }

        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.city_changed")]
        pub(in super::super) struct CityChanged { city: String }

        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.rose", formerly = "member.promoted")]
        pub(in super::super) struct Rose { tier: u8 }
    } {
        #[apply]
        fn joined(&mut self, _: &Joined) {}
        #[apply]
        fn city(&mut self, _: &CityChanged) {}
        #[apply]
        fn rose(&mut self, _: &Rose) {}
        #[upcast(event = "member.moved", version = 1)]
        fn moved(old: Json) -> CityChanged {
            CityChanged { city: old["city"].as_str().unwrap_or_default().to_owned() }
        }
    });

    release!(renamed_with_another_shape {
        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.joined", oldest = 1)]
        pub(in super::super) struct Joined { name: String }

        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.moved")]
        pub(in super::super) struct Moved { street: String, city: String }

        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.rose", formerly = "member.promoted")]
        pub(in super::super) struct Rose { tier: String }
    } {
        #[apply]
        fn joined(&mut self, _: &Joined) {}
        #[apply]
        fn moved(&mut self, _: &Moved) {}
        #[apply]
        fn rose(&mut self, _: &Rose) {}
    });

    release!(renamed_and_set_back {
        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.came", formerly = "member.joined")]
        pub(in super::super) struct Came { first: String, last: String }

        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.city_changed")]
        pub(in super::super) struct CityChanged { city: String }

        #[derive(Event, Serialize, Deserialize)]
        #[event(name = "member.rose", formerly = "member.promoted")]
        pub(in super::super) struct Rose { tier: u8 }
    } {
        #[apply]
        fn came(&mut self, _: &Came) {}
        #[apply]
        fn city(&mut self, _: &CityChanged) {}
        #[apply]
        fn rose(&mut self, _: &Rose) {}
        #[upcast(event = "member.moved", version = 1)]
        fn moved(_: Json) {}
    });
}

#[test]
fn the_lines_that_it_says_are_the_ones_that_mend() {
    finds::<releases::first::MemberEvent, releases::careless::MemberEvent>(
        r##"
member.joined, version 1: breaking
  this program does not read what is stored, and the release before it does not read what this one writes
  `first` is new and has no default: stored events have no such field
    → `#[serde(default)]` on `first`; or `#[serde(rename = "name")]`, if it is what `name` was
  `last` is new and has no default: stored events have no such field
    → `#[serde(default)]` on `last`; or `#[serde(rename = "name")]`, if it is what `name` was
  `name` is gone: what is stored of it is not read
  the release before needs `name`, which is no longer written
  → or raise the version: `#[event(name = "member.joined", version = 2)]`, and `#[upcast(from = 1)]` in its `#[upcasts]`
  → or, if version 1 was never released, delete its entry from the lock

member.moved, version 1: breaking: it was released, and the set of category "member" has no such event
  → restore it; or, if it is called otherwise today, `formerly = "member.moved"` in the `#[event(…)]` of that
  → or read it as what took its place: `#[upcast(event = "member.moved", version = 1)]` in the `#[aggregate]`

member.promoted, version 1: breaking: it was released, and the set of category "member" has no such event
  → restore it; or, if it is called otherwise today, `formerly = "member.promoted"` in the `#[event(…)]` of that
  → or read it as what took its place: `#[upcast(event = "member.promoted", version = 1)]` in the `#[aggregate]`"##,
    );
    let repository = Repository::new();
    assert_eq!(repository.check::<releases::first::MemberEvent>(Recording::New), Ok(1));
    assert_eq!(repository.check::<releases::second::MemberEvent>(Recording::New), Ok(1));
    assert_eq!(repository.check::<releases::second::MemberEvent>(Recording::Nothing), Ok(0));
}

#[test]
fn an_event_that_was_renamed_is_compared_with_what_it_was() {
    finds::<releases::first::MemberEvent, releases::renamed_with_another_shape::MemberEvent>(
        r##"
member.rose, version 1: breaking
  this program does not read what is stored, and the release before it does not read what this one writes
  it was called member.promoted
  `tier` was u8 and is text: not all that is stored fits
    → restore `tier`: u8
  the release before takes u8 for `tier`, and not every text
  → or raise the version: `#[event(name = "member.rose", version = 2)]`, and `#[upcast(from = 1)]` in its `#[upcasts]`
  → or, if version 1 was never released, delete its entry from the lock"##,
    );
    finds::<releases::second::MemberEvent, releases::renamed_and_set_back::MemberEvent>(
        r##"
member.came: version 1 is older than version 2, which was released
  → `#[event(name = "member.came", version = 2)]`, or a higher one"##,
    );
}

/// Another set of the same category.
struct Twin;

impl EventSet for Twin {
    const CATEGORY: &'static str = "account";
    const NAMES: &'static [&'static str] = &[];

    fn index(&self) -> usize {
        0
    }

    fn name(&self) -> &'static str {
        ""
    }

    fn schema_version(&self) -> u32 {
        1
    }

    fn encode(&self, _: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(())
    }

    fn decode(_: &str, _: u32, _: Codec, _: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self)
    }
}

#[test]
fn no_set_is_passed_over_for_another_of_its_category() {
    let repository = Repository::new();
    let lock = || repository.lock(Recording::New).events::<Of<first::Deposited>>();
    let found = lock().events::<Twin>().try_check().unwrap_err().to_string();
    assert!(found.contains("category \"account\" has two sets, "), "{found}");
    assert_eq!(
        lock().events::<Of<first::Deposited>>().try_check().unwrap().len(),
        1,
        "given twice"
    );
}
