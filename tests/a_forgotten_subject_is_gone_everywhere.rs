//! A subject that is forgotten cannot be read anywhere: not in live aggregates, views, topics, letters, reloads, rebuilds and
//! traces, nor in any file; and everything else stays as it was.
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

use std::sync::Mutex;
use std::time::Duration;

use people::*;
use tidings::{
    App, Filter, ForgetError, Memory, Outcome, Personal, Position, SealError, SendError, Sqlite,
    StreamId, SubjectEvent,
};

/// In no file by chance.
const NAME: &str = "Ada Lovelace, Countess";
const STREET: &str = "12 St James's Square";

/// Everything that was traced in this process.
static TRACED: Mutex<String> = Mutex::new(String::new());

struct Traces;

impl tracing::Subscriber for Traces {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut Text);
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut Text);
    }
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Text);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Text;

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let mut traced = TRACED.lock().unwrap();
        traced.push_str(&format!("{}={value:?} ", field.name()));
    }
    fn record_error(
        &mut self,
        _: &tracing::field::Field,
        value: &(dyn std::error::Error + 'static),
    ) {
        TRACED.lock().unwrap().push_str(&texts(value));
    }
}

async fn table(app: &App, position: Position) -> Vec<String> {
    app.view::<Table>().at_least(position).await.unwrap().query(rows).await.unwrap()
}

async fn fill(app: &App) {
    app.send("7", Join::new("c-7", NAME)).await.unwrap();
    app.send("8", Join::new("c-8", "Grace Hopper")).await.unwrap();
    let address = Address { street: STREET.to_owned(), city: "London".to_owned() };
    let to = Personal::new("c-7", address);
    let reported_by = Some(Personal::new("c-8", "a neighbour".to_owned()));
    app.send("7", Move { to, reported_by }).await.unwrap();
}

/// What must be so from the moment on in which the subject is forgotten.
async fn check_forgotten(app: &App, position: Position) {
    assert_eq!(ask(app, "7").await, Answer { name: forgotten("c-7"), tier: 1 });
    assert_eq!(ask(app, "8").await, Answer { name: known("Grace Hopper"), tier: 1 });
    assert_eq!(table(app, position).await, ["c-8 Grace Hopper", "customer-7 1", "customer-8 1"],);
    let view = app.view::<InMind>().at_least(position).await.unwrap();
    assert_eq!(view.forgotten, ["c-7"]);
    assert_eq!(view.names["customer-7"].get().ok(), None);
    assert!(view.names["customer-7"].is_forgotten());
    assert_eq!(view.names["customer-8"].get().unwrap(), "Grace Hopper");
    drop(view);
    app.reached("parking", position, Duration::from_secs(5)).await.unwrap();
    let letters = app.letters().of("parking").unwrap();
    for letter in letters.list() {
        let payload = letters.payload(letter.position).await.unwrap();
        assert!(!String::from_utf8_lossy(&payload).contains(NAME));
    }
    for refused in [
        app.send("7", Join::new("c-7", NAME)).await.map(drop),
        app.send("9", Join::new("c-7", NAME)).await.map(drop),
        app.send("7", JoinAgain).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, SendError::Unwritable { .. }), "{error:?}");
        let cause = cause::<SealError>(&error).unwrap();
        assert!(matches!(cause, SealError::Forgotten { subject } if subject == "c-7"), "{cause}");
        assert!(!format!("{error:?} {}", texts(&error)).contains(NAME));
    }
}

#[tokio::test]
async fn in_memory() {
    let app = people(Memory::new()).start().await.unwrap();
    let topic = app.topic::<CustomerEvent>().unwrap();
    let mut heard = topic.subscribe().open();
    let mut told = app.topic::<SubjectEvent>().unwrap().subscribe().open();
    fill(&app).await;
    assert_eq!(ask(&app, "7").await, Answer { name: known(NAME), tier: 1 });
    let batch = heard.next().await.unwrap().unwrap();
    let CustomerEvent::Joined(joined) = &batch.iter().next().unwrap().event else {
        panic!("it is another event");
    };
    assert_eq!(joined.name.get().unwrap(), NAME);
    let receipt = app.forget("c-7").await.unwrap();
    assert_eq!(receipt.outcome, Outcome::Applied);
    assert_eq!(receipt.stream.as_str(), "tidings.subject-c-7");
    // What a subscriber holds already, too.
    assert!(joined.name.get().is_err());
    check_forgotten(&app, receipt.position).await;
    let batch = told.next().await.unwrap().unwrap();
    let SubjectEvent::Forgotten(event) = &batch.iter().next().unwrap().event else {
        panic!("it is another event");
    };
    assert_eq!(event.subject, "c-7");

    let again = app.forget("c-7").await.unwrap();
    assert_eq!((again.outcome, again.position), (Outcome::AlreadyKnown, receipt.position));
    // One of whom nothing was ever seen can be forgotten, and nothing is written of it later.
    app.forget("c-99").await.unwrap();
    assert!(app.send("99", Join::new("c-99", "Nobody")).await.is_err());
    assert!(matches!(app.forget("").await, Err(ForgetError::Subject(_))));
    assert!(matches!(app.forget("x".repeat(497)).await, Err(ForgetError::Subject(_))));
    app.forget("x".repeat(496)).await.unwrap();
    app.shutdown().await.unwrap();
    assert!(matches!(app.forget("c-8").await, Err(ForgetError::Ended)));
}

#[tokio::test]
async fn in_files_and_over_a_restart() {
    let _ = tracing::subscriber::set_global_default(Traces);
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path();
    let path = files.join("bank.db");
    let app = people(Sqlite::open(&path).unwrap()).start().await.unwrap();
    assert!(!files.join("bank.keys.db").exists(), "there is nothing to seal yet");
    fill(&app).await;
    let before = table(&app, app.head()).await;
    assert!(before.contains(&format!("c-7 {NAME}")));
    let views = ["bank.views.db", "bank.views.db-wal"];
    for needle in [NAME, STREET] {
        let files = holding(files, needle.as_bytes());
        assert!(files.iter().all(|file| views.contains(&file.as_str())), "{files:?}");
    }
    assert!(!holding(files, NAME.as_bytes()).is_empty(), "nothing is looked for");
    // The keys themselves, of whom is forgotten and of whom is not.
    let key = |subject: &str| -> Vec<u8> {
        let select = "SELECT key FROM keys WHERE subject = ?";
        let keys = open_keys(&files.join("bank.keys.db"));
        keys.query_row(select, [subject], |row| row.get(0)).unwrap()
    };
    let (destroyed, kept) = (key("c-7"), key("c-8"));
    assert!(!holding(files, &destroyed).is_empty());

    let receipt = app.forget("c-7").await.unwrap();
    assert_eq!(holding(files, &destroyed), [""; 0]);
    assert!(!holding(files, &kept).is_empty());
    check_forgotten(&app, receipt.position).await;
    for needle in [NAME, STREET] {
        assert_eq!(holding(files, needle.as_bytes()), [""; 0]);
    }

    // What is built anew is what was kept up.
    let kept_up = table(&app, receipt.position).await;
    app.rebuild::<Table>().await.unwrap();
    app.rebuild::<InMind>().await.unwrap();
    assert_eq!(table(&app, receipt.position).await, kept_up);
    check_forgotten(&app, receipt.position).await;
    app.shutdown().await.unwrap();
    drop(app);

    let app = people(Sqlite::open(&path).unwrap()).start().await.unwrap();
    // Its state is in a snapshot, sealed as its events are.
    let stream = StreamId::new("customer", "7").unwrap();
    let snapshot = app.store().load_snapshot(&stream).unwrap().unwrap();
    assert!(String::from_utf8_lossy(&snapshot.state).contains(r#""subject":"c-7","sealed":"A"#));
    check_forgotten(&app, receipt.position).await;
    let again = app.forget("c-7").await.unwrap();
    assert_eq!((again.outcome, again.position), (Outcome::AlreadyKnown, receipt.position));
    // The events themselves are as they were, and the log says once who was forgotten.
    let log = app.store().read_log(Position::START, &Filter::All, 100).unwrap().events;
    let names: Vec<_> = log.iter().map(|event| &*event.name).collect();
    assert_eq!(
        names,
        ["customer.joined", "customer.joined", "customer.moved", "tidings.subject_forgotten"]
    );
    app.shutdown().await.unwrap();
    drop(app);
    for needle in [NAME, STREET] {
        assert_eq!(holding(files, needle.as_bytes()), [""; 0]);
    }
    assert_eq!(holding(files, &destroyed), [""; 0]);
    let traced = TRACED.lock().unwrap();
    assert!(traced.contains("customer-7"), "nothing is traced");
    assert!(!traced.contains(NAME) && !traced.contains(STREET));
}

/// The write-ahead log of the views cannot be emptied while somebody reads it, and then the process dies.
#[tokio::test]
async fn what_a_crash_leaves_of_a_deleted_row_goes_with_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let app =
        people(Sqlite::open(directory.path().join("bank.db")).unwrap()).start().await.unwrap();
    fill(&app).await;
    assert!(table(&app, app.head()).await.contains(&format!("c-7 {NAME}")));
    let reader =
        tidings::sqlite::rusqlite::Connection::open(directory.path().join("bank.views.db"));
    let reader = reader.unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").unwrap();
    let receipt = app.forget("c-7").await.unwrap();
    check_forgotten(&app, receipt.position).await;
    assert!(
        !holding(directory.path(), NAME.as_bytes()).is_empty(),
        "nothing is left to be emptied"
    );
    let crashed = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), crashed.path().join(file.file_name())).unwrap();
    }
    drop(reader);
    app.shutdown().await.unwrap();
    drop(app);

    let app = people(Sqlite::open(crashed.path().join("bank.db")).unwrap()).start().await.unwrap();
    check_forgotten(&app, receipt.position).await;
    for needle in [NAME, STREET] {
        assert_eq!(holding(crashed.path(), needle.as_bytes()), [""; 0]);
    }
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn many_keys_are_destroyed_without_a_trace_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bank.db");
    let app = App::builder()
        .store(Sqlite::options().durability(tidings::Durability::Os).open(&path).unwrap())
        .aggregate::<Customer>()
        .start()
        .await
        .unwrap();
    // In no order, and of many lengths, so that pages are split and filled in all ways.
    let subject = |number: u32| {
        let scattered = number.wrapping_mul(2_654_435_761);
        format!("{scattered:08x}{}", "-".repeat((scattered % 200) as usize))
    };
    let sends = (0..400).map(|number| {
        let send = app.send(number.to_string(), Join::new(&subject(number), "somebody"));
        async move { send.await.unwrap() }
    });
    futures_util::future::join_all(sends).await;
    let keys: Vec<Vec<u8>> = {
        let db = open_keys(&directory.path().join("bank.keys.db"));
        (0..400)
            .map(|number| {
                let select = "SELECT key FROM keys WHERE subject = ?";
                db.query_row(select, [subject(number)], |row| row.get(0)).unwrap()
            })
            .collect()
    };
    for number in (0..400).step_by(7) {
        app.forget(subject(number)).await.unwrap();
    }
    for number in (0..400).filter(|number| number % 21 == 0 || number % 50 == 1) {
        let is_there = !holding(directory.path(), &keys[number as usize]).is_empty();
        assert_eq!(is_there, number % 7 != 0, "the key of number {number}");
        let answer = ask(&app, &number.to_string()).await;
        assert_eq!(answer.name.unwrap().is_ok(), number % 7 != 0);
    }
    app.shutdown().await.unwrap();
}
