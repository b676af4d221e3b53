//! Personal data is in no file in plaintext, whatever it is; what is not as it was sealed, and what lacks its key, is an error that
//! says so, and never an empty value.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "personal", feature = "sqlite", feature = "testing"))]

#[path = "support/people.rs"]
mod people;

use std::ops::ControlFlow;
use std::path::Path;

use people::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tidings::{
    App, Codec, Commit, EventStore, ExpectedVersion, Memory, Personal, PersonalError, Recorded,
    SealError, SendError, Sqlite, StartError, StoreError, StreamId, Version,
};

async fn start(store: impl EventStore) -> App {
    App::builder().store(store).aggregate::<Customer>().start().await.unwrap()
}

/// What asking a customer whose events cannot be read says.
async fn unreadable(app: &App, id: &str) -> SealError {
    let error = app.send(id, Ask).await.unwrap_err();
    assert!(matches!(error, SendError::Unreadable { .. }), "{error:?}");
    cause::<SealError>(&error).unwrap_or_else(|| panic!("{}", texts(&error))).clone()
}

fn events_of(log: &dyn EventStore, id: &str) -> Vec<Recorded> {
    let mut events = Vec::new();
    let stream = StreamId::new("customer", id).unwrap();
    log.read_stream(&stream, Version::EMPTY, &mut |event| {
        events.push(event);
        ControlFlow::Continue(())
    })
    .unwrap();
    events
}

/// Writes the event into another stream, with another payload.
fn write(log: &dyn EventStore, id: &str, event: &Recorded, payload: String) {
    let stream = StreamId::new("customer", id).unwrap();
    let header = tidings::Header::new(stream.clone(), event.name.clone(), 1, event.time);
    let event = Recorded { header, payload: payload.into_bytes().into() };
    let commit = Commit::new().append(stream, ExpectedVersion::Any, vec![event]);
    assert!(log.commit(&mut [commit]).unwrap()[0].is_ok());
}

fn text(event: &Recorded) -> String {
    String::from_utf8(event.payload.to_vec()).unwrap()
}

#[test]
fn no_file_holds_a_value_and_each_comes_back() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bank.db");
    let app = runtime.block_on(start(Sqlite::open(&path).unwrap()));
    let value = (0..20_u8, "\\PC{8,60}", "[a-zA-Z ]{8,200}");
    let values = prop::collection::vec(value, 60);
    let values = values.new_tree(&mut TestRunner::default()).unwrap().current();
    for (id, (subject, name, street)) in values.iter().enumerate() {
        let (id, subject) = (id.to_string(), format!("c-{subject}"));
        runtime.block_on(async {
            app.send(&id, Join::new(&subject, name)).await.unwrap();
            let reported_by = Some(Personal::new(subject.as_str(), street.clone()));
            let to = Address { street: street.clone(), city: name.clone() };
            let to = Personal::new(subject.as_str(), to);
            app.send(&id, Move { to, reported_by }).await.unwrap();
        });
    }
    runtime.block_on(app.shutdown()).unwrap();
    drop(app);
    let app = runtime.block_on(start(Sqlite::open(&path).unwrap()));
    for (id, (_, name, street)) in values.iter().enumerate() {
        assert_eq!(runtime.block_on(ask(&app, &id.to_string())).name, known(name));
        for value in [name, street] {
            assert_eq!(holding(directory.path(), value.as_bytes()), [""; 0], "{value:?}");
            let escaped = serde_json::to_string(value).unwrap();
            let escaped = escaped.trim_matches('"').as_bytes();
            assert_eq!(holding(directory.path(), escaped), [""; 0], "{value:?}");
        }
    }
    // The same value is never sealed to the same text.
    let payloads: std::collections::HashSet<_> = (0..values.len())
        .flat_map(|id| events_of(app.store(), &id.to_string()))
        .map(|e| e.payload)
        .collect();
    assert_eq!(payloads.len(), 2 * values.len());
    runtime.block_on(app.shutdown()).unwrap();
}

#[cfg(feature = "transfer")]
#[tokio::test]
async fn an_export_is_sealed_and_the_keys_fit_the_log_that_it_is_imported_into() {
    use tidings::transfer::{export_log, import, verify};

    let [from, to] = [(), ()].map(|()| tempfile::tempdir().unwrap());
    let app = start(Sqlite::open(from.path().join("bank.db")).unwrap()).await;
    app.send("7", Join::new("c-7", "Ada Lovelace")).await.unwrap();
    let mut export = Vec::new();
    export_log(app.store(), &mut export).unwrap();
    app.shutdown().await.unwrap();
    drop(app);
    assert!(!String::from_utf8(export.clone()).unwrap().contains("Lovelace"));

    std::fs::copy(from.path().join("bank.keys.db"), to.path().join("bank.keys.db")).unwrap();
    let [path, other] = ["bank.db", "other.db"].map(|name| to.path().join(name));
    drop(Sqlite::open(&other).unwrap());
    let log_id = verify(export.as_slice()).unwrap().log_id;
    let refused = Sqlite::options().log_id(log_id).open(other);
    assert!(matches!(refused, Err(StoreError::Foreign { .. })), "{refused:?}");
    let log = Sqlite::options().log_id(log_id).open(path).unwrap();
    import(&log, export.as_slice()).unwrap();
    let app = start(log).await;
    assert_eq!(ask(&app, "7").await.name, known("Ada Lovelace"));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_was_changed_is_refused_with_its_subject() {
    let app = start(Memory::new()).await;
    app.send("7", Join::new("c-7", "Ada Lovelace")).await.unwrap();
    app.send("8", Join::new("c-8", "Grace Hopper")).await.unwrap();
    let (ada, grace) = (&events_of(app.store(), "7")[0], &events_of(app.store(), "8")[0]);
    assert!(text(ada).starts_with(r#"{"name":{"subject":"c-7","sealed":"A"#), "{}", text(ada));

    // Of another subject.
    write(app.store(), "swapped", ada, text(ada).replace("c-7", "c-8"));
    let error = unreadable(&app, "swapped").await;
    assert!(matches!(&error, SealError::Changed { subject, .. } if subject == "c-8"), "{error}");
    // Any one letter of the text.
    let sealed: serde_json::Value = serde_json::from_str(&text(grace)).unwrap();
    let sealed = sealed["name"]["sealed"].as_str().unwrap().to_owned();
    for (place, letter) in sealed.char_indices().filter(|(_, letter)| *letter != '=') {
        let other = if letter == 'A' { 'B' } else { 'A' };
        let mut tampered = sealed.clone();
        tampered.replace_range(place..=place, &other.to_string());
        let id = format!("tampered {place}");
        write(app.store(), &id, grace, text(grace).replace(&sealed, &tampered));
        let error = app.send(&id, Ask).await.unwrap_err();
        assert!(matches!(error, SendError::Unreadable { .. }), "{place}: {error:?}");
    }
    // Shortened, emptied, and of a form to come.
    for other in ["", "AQ==", "AgAA", &sealed[..sealed.len() - 8]] {
        let id = format!("shortened to {}", other.len());
        write(app.store(), &id, grace, text(grace).replace(&sealed, other));
        let error = unreadable(&app, &id).await;
        assert!(matches!(error, SealError::Form { .. } | SealError::Changed { .. }), "{error}");
    }
    // Of a subject without a key.
    write(app.store(), "unknown", ada, text(ada).replace("c-7", "c-77"));
    let error = unreadable(&app, "unknown").await;
    assert!(matches!(&error, SealError::Missing { subject, .. } if subject == "c-77"), "{error}");
    // Of another type: what was sealed is not quoted.
    let moved = text(ada).replace(r#""name""#, r#""reported_by":null,"to""#);
    let mut as_moved = ada.clone();
    as_moved.header.name = "customer.moved".into();
    write(app.store(), "mistyped", &as_moved, moved);
    let error = unreadable(&app, "mistyped").await;
    assert!(matches!(error, SealError::Shape { .. }), "{error}");
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn plaintext_is_neither_accepted_nor_quoted() {
    let app = start(Memory::new()).await;
    app.send("7", Join::new("c-7", "Ada Lovelace")).await.unwrap();
    let ada = &events_of(app.store(), "7")[0];
    for plain in [
        r#"{"name":"Grace Hopper","tier":1}"#,
        r#"{"name":{"subject":"c-7","sealed":"Grace Hopper"},"tier":1}"#,
        r#"{"name":{"subject":"c-7","value":"Grace Hopper"},"tier":1}"#,
        r#"{"name":["Grace Hopper"],"tier":1}"#,
        r#"{"name":17,"tier":1}"#,
    ] {
        let id = format!("plain {plain}");
        write(app.store(), &id, ada, plain.to_owned());
        let error = app.send(&id, Ask).await.unwrap_err();
        let text =
            format!("{error:?} {}", texts(&error)).replace(&format!("{id:?}"), "").replace(&id, "");
        assert!(matches!(error, SendError::Unreadable { .. }), "{error:?}");
        assert!(!text.contains("Grace"), "{text}");
    }
    let mut bytes = Vec::new();
    let error = Codec::Json.encode(&Personal::new("c-7", "Grace Hopper"), &mut bytes).unwrap_err();
    assert!(matches!(cause(&error), Some(SealError::Outside { subject }) if subject == "c-7"));
    assert!(!String::from_utf8_lossy(&bytes).contains("Grace"));
    // What is read outside stays sealed, and is not put into a log as it is.
    let sealed: Joined = Codec::Json.decode(&ada.payload).unwrap();
    let expected = PersonalError::Sealed { subject: "c-7".to_owned() };
    assert_eq!(sealed.name.get(), Err(expected));
    let mut again = Vec::new();
    Codec::Json.encode(&sealed, &mut again).unwrap();
    assert_eq!(*again, *ada.payload);
    let error = app.send("9", Join { name: sealed.name }).await.unwrap_err();
    assert!(matches!(cause(&error), Some(SealError::Sealed { .. })), "{}", texts(&error));
    let long = app.send("9", Join::new(&"x".repeat(497), "Grace")).await.unwrap_err();
    assert!(matches!(cause(&long), Some(SealError::Subject { bytes: 497 })), "{}", texts(&long));
    let empty = app.send("9", Join::new("", "Grace")).await.unwrap_err();
    assert!(matches!(cause(&empty), Some(SealError::Subject { bytes: 0 })), "{}", texts(&empty));
    app.shutdown().await.unwrap();
}

/// A log with one customer, closed.
async fn filled(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("bank.db");
    let app = start(Sqlite::open(&path).unwrap()).await;
    app.send("7", Join::new("c-7", "Ada Lovelace")).await.unwrap();
    app.shutdown().await.unwrap();
    path
}

#[tokio::test]
async fn a_missing_file_of_keys_is_named_and_may_be_put_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path()).await;
    let keys = directory.path().join("bank.keys.db");
    let away = directory.path().join("away");
    std::fs::rename(&keys, &away).unwrap();
    let app = start(Sqlite::open(&path).unwrap()).await;
    let error = unreadable(&app, "7").await;
    let SealError::Missing { subject, keys: named } = &error else { panic!("{error}") };
    assert_eq!(subject, "c-7");
    assert!(named.ends_with("bank.keys.db"), "{named}");
    assert!(!keys.exists(), "it is made to read nothing from");
    app.shutdown().await.unwrap();
    drop(app);
    std::fs::rename(&away, &keys).unwrap();
    let app = start(Sqlite::open(&path).unwrap()).await;
    assert_eq!(ask(&app, "7").await.name, known("Ada Lovelace"));
    app.shutdown().await.unwrap();
}

/// What is lost for ever holds up nothing for ever.
#[tokio::test]
async fn without_its_keys_an_event_is_read_again_once_its_subject_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path()).await;
    std::fs::remove_file(directory.path().join("bank.keys.db")).unwrap();
    let app = start(Sqlite::open(&path).unwrap()).await;
    assert!(matches!(unreadable(&app, "7").await, SealError::Missing { .. }));
    app.forget("c-7").await.unwrap();
    assert_eq!(ask(&app, "7").await, Answer { name: forgotten("c-7"), tier: 1 });
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_file_of_keys_that_is_damaged_or_of_another_log_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path()).await;
    let keys = directory.path().join("bank.keys.db");
    let whole = std::fs::read(&keys).unwrap();
    let refused = async |app: tidings::AppBuilder| {
        let error = app.start().await.unwrap_err();
        assert!(texts(&error).contains("bank.keys.db"), "{}", texts(&error));
        match error {
            StartError::Keys(error) => error,
            other => panic!("{other:?}"),
        }
    };
    let app = || App::builder().store(Sqlite::open(&path).unwrap()).aggregate::<Customer>();

    std::fs::write(&keys, b"not a database, by far").unwrap();
    assert!(matches!(refused(app()).await, StoreError::Foreign { .. }));
    std::fs::copy(&path, &keys).unwrap();
    assert!(matches!(refused(app()).await, StoreError::Foreign { .. }));
    let elsewhere = tempfile::tempdir().unwrap();
    filled(elsewhere.path()).await;
    std::fs::copy(elsewhere.path().join("bank.keys.db"), &keys).unwrap();
    assert!(matches!(refused(app()).await, StoreError::Foreign { .. }));
    std::fs::write(&keys, &whole).unwrap();
    open_keys(&keys).pragma_update(None, "user_version", 2).unwrap();
    assert!(matches!(refused(app()).await, StoreError::Format { found: 2, .. }));

    // A key that is another one, or none.
    let id = "7";
    for (key, is_other) in [("randomblob(32)", true), ("zeroblob(32)", false), ("x'00ff'", false)] {
        std::fs::write(&keys, &whole).unwrap();
        let _ = std::fs::remove_file(directory.path().join("bank.keys.db-wal"));
        open_keys(&keys).execute(&format!("UPDATE keys SET key = {key}"), []).unwrap();
        let app = app().start().await.unwrap();
        let error = unreadable(&app, id).await;
        assert!(texts(&error).contains("bank.keys.db"), "{}", texts(&error));
        match (is_other, &error) {
            (true, SealError::Changed { .. }) => {}
            (false, SealError::Keys(error)) => {
                assert!(matches!(**error, StoreError::Damaged { .. }), "{error:?}");
            }
            _ => panic!("{key}: {error:?}"),
        }
        // Nothing is sealed with such a key's place, either.
        if !is_other {
            assert!(app.send("8", Join::new("c-7", "Ada")).await.is_err());
        }
        app.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn keys_can_be_kept_elsewhere_and_are_opened_once() {
    let directory = tempfile::tempdir().unwrap();
    let (path, keys) = (directory.path().join("bank.db"), directory.path().join("apart.db"));
    let app = App::builder().store(Sqlite::open(&path).unwrap()).keys(&keys);
    let app = app.aggregate::<Customer>().start().await.unwrap();
    app.send("7", Join::new("c-7", "Ada")).await.unwrap();
    assert!(keys.exists() && !directory.path().join("bank.keys.db").exists());
    let other = App::builder().store(Sqlite::open(directory.path().join("other.db")).unwrap());
    let error = other.keys(&keys).start().await.unwrap_err();
    assert!(matches!(error, StartError::Keys(StoreError::Locked { .. })), "{error:?}");
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_log_in_memory_keeps_its_keys_there_whatever_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("apart.db");
    let app = App::builder().store(Memory::new()).keys(&keys).aggregate::<Customer>();
    let app = app.start().await.unwrap();
    app.send("7", Join::new("c-7", "Ada")).await.unwrap();
    assert_eq!(ask(&app, "7").await.name, known("Ada"));
    app.forget("c-7").await.unwrap();
    assert_eq!(ask(&app, "7").await.name, forgotten("c-7"));
    app.shutdown().await.unwrap();
    assert!(!keys.exists());
}
