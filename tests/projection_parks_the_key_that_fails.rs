//! Guarantees 21 and 22: a failing event parks its key and no other, later events of that key wait in order, a retry drains them in
//! order, and nothing is skipped without a record of what and why.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "sqlite", feature = "testing"))]

#[path = "support/bank.rs"]
mod bank;

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bank::*;
use serde::{Deserialize, Deserializer, Serialize};
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::testing::{Fault, Faulty, Operation};
use tidings::{
    App, Command, ConsumerLetters, ConsumerState, ErrorClass, Event, EventStore, FailurePolicy,
    Handlers, Header, InMemory, LetterError, LetterState, Memory, Position, Projection,
    ResolutionKind, Retry, Tables, aggregate, projection,
};

/// Which amounts a projection cannot fold, and how often yet.
#[derive(Clone, Default)]
struct Rules(Arc<Mutex<HashMap<i64, (ErrorClass, u32)>>>);

impl Rules {
    fn refuse(&self, cents: i64) -> &Self {
        self.0.lock().unwrap().insert(cents, (ErrorClass::Permanent, u32::MAX));
        self
    }

    fn fail(&self, cents: i64, times: u32) -> &Self {
        self.0.lock().unwrap().insert(cents, (ErrorClass::Transient, times));
        self
    }

    fn mend(&self) {
        self.0.lock().unwrap().clear();
    }

    fn check(&self, cents: i64) -> Result<(), Box<dyn Error + Send + Sync>> {
        match self.0.lock().unwrap().get_mut(&cents) {
            None | Some((_, 0)) => Ok(()),
            Some((class, times)) => {
                *times -= 1;
                match class {
                    ErrorClass::Permanent => Err(format!("{cents} cents are too few").into()),
                    ErrorClass::Transient => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
                }
            }
        }
    }
}

/// How both projections deal with failures here.
fn policy() -> FailurePolicy {
    let retry =
        Retry { attempts: 4, first: Duration::from_millis(1), longest: Duration::from_millis(2) };
    FailurePolicy { retry, max_parked_keys: 3, ..FailurePolicy::default() }
}

/// What was folded, in order: the account and the amount.
type Folded = Vec<(String, i64)>;

#[derive(Default)]
struct Listed {
    rules: Rules,
    folded: Folded,
}

impl Projection for Listed {
    const NAME: &'static str = "listed";
    const VERSION: u32 = 1;
    type Storage = InMemory;
    fn handlers(handlers: &mut Handlers<Self, InMemory>) {
        handlers.on(|listed: &mut Self, event: &Deposited, header: &Header| {
            listed.rules.check(event.cents)?;
            listed.folded.push((header.stream.id().to_owned(), event.cents));
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        });
    }
    fn failures() -> FailurePolicy {
        policy()
    }
}

struct Tabled<const VERSION: u32>(Rules);

impl<const VERSION: u32> Projection for Tabled<VERSION> {
    const NAME: &'static str = "tabled";
    const VERSION: u32 = VERSION;
    type Storage = Tables;
    fn handlers(handlers: &mut Handlers<Self, Tables>) {
        handlers.schema("CREATE TABLE tabled (number INTEGER PRIMARY KEY, id TEXT, cents INTEGER)");
        handlers.on(|tabled: &Self, tx: &Transaction<'_>, event: &Deposited, header: &Header| {
            let row = (header.stream.id(), event.cents);
            tx.execute("INSERT INTO tabled (id, cents) VALUES (?1, ?2)", row)?;
            tabled.0.check(event.cents)
        });
    }
    fn failures() -> FailurePolicy {
        policy()
    }
}

fn tabled(connection: &Connection) -> rusqlite::Result<Folded> {
    connection
        .prepare("SELECT id, cents FROM tabled ORDER BY number")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

async fn start<const VERSION: u32>(store: impl EventStore, rules: &Rules) -> App {
    let listed = Listed { rules: rules.clone(), folded: Folded::new() };
    let builder = App::builder().store(store).aggregate::<Account>();
    let builder = builder.projection(listed).projection(Tabled::<VERSION>(rules.clone()));
    builder.start().await.unwrap()
}

async fn deposit(app: &App, deposits: &[(&str, i64)]) -> Position {
    for (id, cents) in deposits {
        app.send(id, Deposit { cents: *cents }).await.unwrap();
    }
    app.head()
}

/// What both views have folded at the head.
async fn folded<const VERSION: u32>(app: &App) -> [Folded; 2] {
    let listed = app.view::<Listed>().at_least(app.head()).await.unwrap().folded.clone();
    let reader = app.view::<Tabled<VERSION>>().at_least(app.head()).await.unwrap();
    [listed, reader.query(tabled).await.unwrap()]
}

/// Waits until both views hold `expected`: that in tables is read as it was until its new version is level.
async fn rebuilt<const VERSION: u32>(app: &App, expected: &Folded) {
    let holds = async {
        while folded::<VERSION>(app).await.iter().any(|folded| folded != expected) {
            tokio::task::yield_now().await;
        }
    };
    soon("the new version of the view", holds).await;
}

fn both(app: &App) -> [&ConsumerLetters; 2] {
    ["listed", "tabled"].map(|name| app.letters().of(name).unwrap())
}

#[track_caller]
fn check_letters(letters: &ConsumerLetters, expected: &[(u64, LetterState)]) {
    let found: Vec<_> =
        letters.list().iter().map(|letter| (letter.position.as_u64(), letter.state)).collect();
    assert_eq!(found, expected, "{}", letters.consumer());
}

fn owned(folded: &[(&str, i64)]) -> Folded {
    folded.iter().map(|(id, cents)| ((*id).to_owned(), *cents)).collect()
}

#[tokio::test]
async fn a_failing_event_parks_its_key_and_a_retry_drains_it_in_order() {
    let rules = Rules::default();
    rules.refuse(2);
    let app = start::<1>(Memory::new(), &rules).await;
    deposit(&app, &[("a", 1), ("a", 2), ("b", 3), ("a", 4), ("c", 5), ("a", 6)]).await;
    let others = owned(&[("a", 1), ("b", 3), ("c", 5)]);
    assert_eq!(folded::<1>(&app).await, [others.clone(), others.clone()]);
    for letters in both(&app) {
        let waiting = LetterState::Waiting;
        check_letters(letters, &[(2, LetterState::Parked), (4, waiting), (6, waiting)]);
        let letter = letters.at(Position::new(2)).unwrap();
        assert_eq!((&*letter.key, &*letter.event), ("account-a", "account.deposited"));
        assert_eq!((letter.tried, letter.error()), (1, Some("2 cents are too few")));
        assert_eq!(letter.attempts[0].class, ErrorClass::Permanent);
        let groups = letters.groups();
        assert_eq!((groups.len(), groups[0].letters), (1, 3));

        // It fails again, and nothing overtakes it.
        let retried = letters.retry(Position::new(2)).await.unwrap();
        assert_eq!((retried.handled, retried.failed.len()), (0, 1));
        assert_eq!(letters.at(Position::new(2)).unwrap().tried, 2);
        assert!(matches!(
            letters.retry(Position::new(4)).await,
            Err(LetterError::NotFirst { first, .. }) if first == Position::new(2)
        ));
        assert!(matches!(letters.retry(Position::new(1)).await, Err(LetterError::NotFound { .. })));
    }
    assert_eq!(folded::<1>(&app).await, [others.clone(), others.clone()]);

    rules.mend();
    for letters in both(&app) {
        let group = letters.groups().remove(0);
        let retried = letters.retry_group(&group).await.unwrap();
        assert_eq!((retried.handled, retried.failed), (3, vec![]));
        assert_eq!(letters.list(), []);
    }
    deposit(&app, &[("a", 7)]).await;
    let mut all = others;
    all.extend(owned(&[("a", 2), ("a", 4), ("a", 6), ("a", 7)]));
    assert_eq!(folded::<1>(&app).await, [all.clone(), all]);
    assert!(app.letters().is_empty());
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_error_that_passes_is_tried_again_by_itself() {
    let rules = Rules::default();
    // Whichever projection meets it three times, the fourth goes well.
    rules.fail(2, 3);
    let app = start::<1>(Memory::new(), &rules).await;
    deposit(&app, &[("a", 1), ("a", 2), ("a", 3), ("b", 4)]).await;
    folded::<1>(&app).await;
    until("all letters are handled", || app.letters().is_empty()).await;
    for folded in folded::<1>(&app).await {
        let of_a: Vec<_> = folded.iter().filter(|(id, _)| id == "a").map(|(_, c)| *c).collect();
        assert_eq!((of_a, folded.len()), (vec![1, 2, 3], 4));
    }
    // One that does not pass in time is parked.
    rules.fail(5, u32::MAX);
    deposit(&app, &[("a", 5)]).await;
    let parked = |letters: &ConsumerLetters| {
        letters.at(app.head()).is_some_and(|letter| letter.state == LetterState::Parked)
    };
    until("both have given up", || both(&app).into_iter().all(parked)).await;
    for letters in both(&app) {
        let letter = letters.at(app.head()).unwrap();
        assert_eq!((letter.tried, letter.attempts.len()), (4, 4));
        assert!(letter.attempts.iter().all(|attempt| attempt.class == ErrorClass::Transient));
    }
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_waits_before_another_failure_of_the_same_chunk_is_not_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let rules = Rules::default();
    let builder = App::builder().store(sqlite(&path)).aggregate::<Account>();
    let app = builder.start().await.unwrap();
    deposit(&app, &[("a", 2), ("a", 3), ("b", 2), ("a", 4), ("c", 5), ("b", 6), ("d", 2)]).await;
    app.shutdown().await.unwrap();
    drop(app);
    rules.refuse(2);
    // All of it is one chunk.
    let app = start::<1>(sqlite(&path), &rules).await;
    let of_c = owned(&[("c", 5)]);
    assert_eq!(folded::<1>(&app).await, [of_c.clone(), of_c]);
    let (parked, waiting) = (LetterState::Parked, LetterState::Waiting);
    for letters in both(&app) {
        let all = [(1, parked), (2, waiting), (3, parked), (4, waiting), (6, waiting), (7, parked)];
        check_letters(letters, &all);
    }
    app.shutdown().await.unwrap();
}

/// Starts an app on the log at `path`, lets it fail at "a" 2 with 3 behind it, and ends it.
async fn fail_and_end(path: &Path, rules: &Rules) {
    rules.refuse(2);
    let app = start::<1>(sqlite(path), rules).await;
    deposit(&app, &[("a", 1), ("a", 2), ("b", 3), ("a", 4)]).await;
    folded::<1>(&app).await;
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn parked_keys_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let rules = Rules::default();
    fail_and_end(&path, &rules).await;
    rules.mend();
    let app = start::<1>(sqlite(&path), &rules).await;
    deposit(&app, &[("a", 5), ("b", 6)]).await;
    for (letters, mut folded) in both(&app).into_iter().zip(folded::<1>(&app).await) {
        assert_eq!(folded, owned(&[("a", 1), ("b", 3), ("b", 6)]));
        let waiting = LetterState::Waiting;
        check_letters(letters, &[(2, LetterState::Parked), (4, waiting), (5, waiting)]);
        assert_eq!(letters.at(Position::new(2)).unwrap().attempts.len(), 1);
        assert_eq!(letters.retry_key("account-a").await.unwrap().handled, 3);
        folded.clear();
    }
    let all = owned(&[("a", 1), ("b", 3), ("b", 6), ("a", 2), ("a", 4), ("a", 5)]);
    assert_eq!(folded::<1>(&app).await, [all.clone(), all]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_discarded_letter_leaves_a_record_that_a_view_built_anew_obeys() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let rules = Rules::default();
    fail_and_end(&path, &rules).await;
    let app = start::<1>(sqlite(&path), &rules).await;
    folded::<1>(&app).await;
    for letters in both(&app) {
        let retried = letters.discard(Position::new(2), "a slip of the pen").await.unwrap();
        assert_eq!((retried.handled, retried.failed), (1, vec![]));
        let resolutions = letters.resolutions();
        assert_eq!((resolutions.len(), resolutions[0].position.as_u64()), (1, 2));
        assert!(matches!(
            &resolutions[0].kind,
            ResolutionKind::Discarded { reason } if reason == "a slip of the pen"
        ));
    }
    app.shutdown().await.unwrap();
    drop(app);
    // A view in memory begins anew with each start; that in tables does, since its version has risen.
    let app = start::<2>(sqlite(&path), &rules).await;
    let without = owned(&[("a", 1), ("b", 3), ("a", 4)]);
    rebuilt::<2>(&app, &without).await;
    assert!(app.letters().is_empty());
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_edited_payload_is_checked_and_taken_in_place_of_the_stored_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let rules = Rules::default();
    fail_and_end(&path, &rules).await;
    let app = start::<1>(sqlite(&path), &rules).await;
    folded::<1>(&app).await;
    for letters in both(&app) {
        let refused = letters.edit(Position::new(2), r#"{"cents":"twenty"}"#).await;
        assert!(matches!(refused, Err(LetterError::Edit(_))));
        let retried = letters.edit(Position::new(2), r#"{"cents":20}"#).await.unwrap();
        assert_eq!((retried.handled, retried.failed), (2, vec![]));
    }
    app.shutdown().await.unwrap();
    drop(app);
    let app = start::<2>(sqlite(&path), &rules).await;
    let edited = owned(&[("a", 1), ("a", 20), ("b", 3), ("a", 4)]);
    rebuilt::<2>(&app, &edited).await;
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn too_many_parked_keys_stop_it_until_there_is_room() {
    let rules = Rules::default();
    rules.refuse(0);
    let app = start::<1>(Memory::new(), &rules).await;
    deposit(&app, &[("a", 0), ("b", 0), ("c", 0), ("d", 0), ("e", 1)]).await;
    let status = |name| app.status().consumer(name).unwrap().clone();
    for name in ["listed", "tabled"] {
        until("it has stopped", || status(name).state == ConsumerState::Stopped).await;
        let status = status(name);
        assert_eq!(status.position.as_u64(), 3);
        let trouble = status.trouble.unwrap();
        assert!(trouble.contains("3 keys with 3 letters are parked"), "{trouble}");
    }
    for letters in both(&app) {
        letters.discard(Position::new(1), "no deposit at all").await.unwrap();
        let name = letters.consumer();
        until("it goes on", || status(name).state != ConsumerState::Stopped).await;
    }
    let of_e = owned(&[("e", 1)]);
    assert_eq!(folded::<1>(&app).await, [of_e.clone(), of_e]);
    for letters in both(&app) {
        let parked = LetterState::Parked;
        check_letters(letters, &[(2, parked), (3, parked), (4, parked)]);
    }
    app.shutdown().await.unwrap();
}

/// An event that can be written, and read back only once it is mended.
#[derive(Event, Serialize)]
#[event(name = "note.taken")]
struct Taken {
    text: String,
}

impl<'de> Deserialize<'de> for Taken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Form {
            text: String,
        }
        let Form { text } = Form::deserialize(deserializer)?;
        match text.as_str() {
            "scribble" => Err(serde::de::Error::custom("illegible")),
            "blot" => panic!("ink everywhere"),
            _ => Ok(Self { text }),
        }
    }
}

#[derive(Command, Clone)]
struct Take {
    text: &'static str,
}

#[derive(Default)]
struct Note;

#[aggregate(category = "note", events = NoteEvent)]
impl Note {
    #[command]
    fn take(&self, command: Take) -> Taken {
        Taken { text: command.text.to_owned() }
    }
    #[apply]
    fn taken(&mut self, _: &Taken) {}
}

#[derive(Default)]
struct Notes(Vec<String>);

#[projection(name = "notes")]
impl Notes {
    #[on]
    fn taken(&mut self, event: &Taken) {
        self.0.push(event.text.clone());
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_parked_raw_under_its_stream() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let builder = || App::builder().store(sqlite(&path)).aggregate::<Note>();
    let app = builder().start().await.unwrap();
    for (id, text) in [("a", "one"), ("a", "scribble"), ("b", "two"), ("a", "three")] {
        app.send(id, Take { text }).await.unwrap();
    }
    app.shutdown().await.unwrap();
    drop(app);
    let app = builder().projection(Notes::default()).start().await.unwrap();
    let view = app.view::<Notes>();
    assert_eq!(view.at_least(app.head()).await.unwrap().0, ["one", "two"]);
    let letters = app.letters().of("notes").unwrap();
    check_letters(letters, &[(2, LetterState::Parked), (4, LetterState::Waiting)]);
    let letter = letters.at(Position::new(2)).unwrap();
    assert_eq!(&*letter.key, "note-a");
    assert!(letter.error().unwrap().contains("illegible"), "{letter:?}");
    let error = letters.edit(Position::new(2), r#"{"text":"blot"}"#).await.unwrap_err();
    assert!(matches!(error, LetterError::Store { .. }), "{error}");
    letters.edit(Position::new(2), r#"{"text":"legible"}"#).await.unwrap();
    assert_eq!(view.read().0, ["one", "two", "legible", "three"]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_letter_that_the_log_cannot_be_read_for_is_tried_again() {
    let rules = Rules::default();
    rules.refuse(2);
    let (store, faults) = Faulty::new(Memory::new());
    let app = start::<1>(store, &rules).await;
    deposit(&app, &[("a", 1), ("a", 2), ("b", 3), ("a", 4)]).await;
    folded::<1>(&app).await;
    rules.mend();
    for letters in both(&app) {
        faults.fail(Operation::ReadLog, 1, Fault::Failed);
        let retried = soon("the letters", letters.retry(Position::new(2))).await.unwrap();
        assert_eq!((retried.handled, retried.failed), (2, vec![]));
    }
    deposit(&app, &[("a", 5)]).await;
    let all = owned(&[("a", 1), ("b", 3), ("a", 2), ("a", 4), ("a", 5)]);
    assert_eq!(folded::<1>(&app).await, [all.clone(), all]);
    app.shutdown().await.unwrap();
}

/// Keeps deposits in order by their amount.
#[derive(Default)]
struct ByAmount {
    rules: Rules,
    folded: Folded,
}

#[projection(name = "by_amount")]
impl ByAmount {
    #[on(key = event.cents)]
    fn deposited(
        &mut self,
        event: &Deposited,
        header: &Header,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.rules.check(event.cents)?;
        self.folded.push((header.stream.id().to_owned(), event.cents));
        Ok(())
    }
}

#[tokio::test]
async fn a_declared_key_is_parked_across_streams() {
    let rules = Rules::default();
    rules.refuse(2);
    let view = ByAmount { rules: rules.clone(), ..ByAmount::default() };
    let builder = App::builder().store(Memory::new()).aggregate::<Account>().projection(view);
    let app = builder.start().await.unwrap();
    let head = deposit(&app, &[("a", 2), ("a", 3), ("b", 2), ("b", 4)]).await;
    let view = app.view::<ByAmount>();
    assert_eq!(view.at_least(head).await.unwrap().folded, owned(&[("a", 3), ("b", 4)]));
    let letters = app.letters().of("by_amount").unwrap();
    check_letters(letters, &[(1, LetterState::Parked), (3, LetterState::Waiting)]);
    assert_eq!(letters.of_key("2").len(), 2);
    rules.mend();
    letters.retry_key("2").await.unwrap();
    let all = owned(&[("a", 3), ("b", 4), ("a", 2), ("b", 2)]);
    assert_eq!(view.read().folded, all);
    app.shutdown().await.unwrap();
}

/// Stops rather than pass an event.
#[derive(Default)]
struct Strict {
    rules: Rules,
    folded: Folded,
}

#[projection(
    name = "strict",
    on_failure = stop,
    retry(attempts = 4, first = "1 ms", longest = "2 ms"),
)]
impl Strict {
    #[on]
    fn deposited(
        &mut self,
        event: &Deposited,
        header: &Header,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.rules.check(event.cents)?;
        self.folded.push((header.stream.id().to_owned(), event.cents));
        Ok(())
    }
}

/// Classes every error as one that passes, and so tries it to the end.
fn passes(_: &(dyn Error + 'static)) -> ErrorClass {
    ErrorClass::Transient
}

/// Hears of what is new alone.
#[derive(Default)]
struct Bell {
    rules: Rules,
    rung: u32,
}

#[projection(name = "bell", classify = passes, retry(attempts = 2, first = "1 ms"), max_parked_keys = 1)]
impl Bell {
    #[on(live_only)]
    fn deposited(&mut self, event: &Deposited) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.rules.check(event.cents)?;
        self.rung += 1;
        Ok(())
    }
}

#[tokio::test]
async fn a_live_only_handler_does_not_run_for_what_was_there_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let rules = Rules::default();
    for start in 0..2 {
        let bell = Bell { rules: rules.clone(), rung: 0 };
        let builder = App::builder().store(sqlite(&path)).aggregate::<Account>().projection(bell);
        let app = builder.start().await.unwrap();
        assert_eq!(app.head().as_u64(), start);
        deposit(&app, &[("a", 1)]).await;
        assert_eq!(app.view::<Bell>().at_least(app.head()).await.unwrap().rung, 1);
        if start == 1 {
            rules.refuse(2);
            deposit(&app, &[("a", 2)]).await;
            let letters = app.letters().of("bell").unwrap();
            until("it has given up", || letters.list().iter().any(|l| l.tried == 2)).await;
            check_letters(letters, &[(3, LetterState::Parked)]);
        }
        app.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn one_that_needs_total_order_tries_again_in_place_and_then_stops() {
    let rules = Rules::default();
    rules.fail(2, 3).fail(4, u32::MAX);
    let view = Strict { rules, ..Strict::default() };
    let builder = App::builder().store(Memory::new()).aggregate::<Account>().projection(view);
    let app = builder.start().await.unwrap();
    deposit(&app, &[("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5)]).await;
    let status = || app.status().consumers.remove(0);
    until("it has stopped", || status().state == ConsumerState::Stopped).await;
    assert_eq!(status().position.as_u64(), 3);
    assert!(status().trouble.unwrap().contains("at position 4 of account-b"));
    let folded = app.view::<Strict>().read().folded.clone();
    assert_eq!(folded, owned(&[("a", 1), ("b", 2), ("a", 3)]));
    assert!(app.letters().is_empty());
    app.shutdown().await.unwrap();
}

/// Keeps deposits in order by their amount, or as a later version of the program by their stream.
struct Rekeyed<const BY_STREAM: bool> {
    rules: Rules,
    folded: Vec<i64>,
}

impl<const BY_STREAM: bool> Projection for Rekeyed<BY_STREAM> {
    const NAME: &'static str = "rekeyed";
    const VERSION: u32 = 1;
    type Storage = InMemory;
    fn handlers(handlers: &mut Handlers<Self, InMemory>) {
        handlers.on(|rekeyed: &mut Self, event: &Deposited, _: &Header| {
            rekeyed.rules.check(event.cents)?;
            rekeyed.folded.push(event.cents);
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        });
        if !BY_STREAM {
            handlers.key(|event: &Deposited, _| event.cents);
        }
    }
}

#[tokio::test]
async fn a_letter_whose_key_is_another_by_now_is_folded_once() {
    async fn start<const BY_STREAM: bool>(path: &Path, rules: &Rules) -> App {
        let view = Rekeyed::<BY_STREAM> { rules: rules.clone(), folded: Vec::new() };
        let builder = App::builder().store(sqlite(path)).aggregate::<Account>();
        builder.projection(view).start().await.unwrap()
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let rules = Rules::default();
    rules.refuse(2);
    let app = start::<false>(&path, &rules).await;
    let head = deposit(&app, &[("a", 1), ("a", 2), ("a", 3)]).await;
    let folded = app.view::<Rekeyed<false>>().at_least(head).await.unwrap().folded.clone();
    assert_eq!(folded, [1, 3]);
    app.shutdown().await.unwrap();
    drop(app);

    rules.mend();
    let app = start::<true>(&path, &rules).await;
    let view = app.view::<Rekeyed<true>>();
    let letters = app.letters().of("rekeyed").unwrap();
    let before = view.at_least(head).await.unwrap().folded.clone();
    check_letters(letters, &[(2, LetterState::Parked)]);
    assert_eq!(letters.retry(Position::new(2)).await.unwrap().handled, 1);
    assert_eq!((before, view.read().folded.clone()), (vec![1, 3], vec![1, 3, 2]));
    app.shutdown().await.unwrap();
}

/// An error that cannot be shown.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("unspeakable")
    }
}

impl Error for Unspeakable {}

/// Cannot fold 2, 3 and 4, and neither name the key of 2, nor show the error of 3, nor tell the class of that of 4.
#[derive(Default)]
struct Brittle(Vec<i64>);

impl Projection for Brittle {
    const NAME: &'static str = "brittle";
    const VERSION: u32 = 1;
    type Storage = InMemory;
    fn handlers(handlers: &mut Handlers<Self, InMemory>) {
        handlers.on(|brittle: &mut Self, event: &Deposited, _: &Header| {
            match event.cents {
                2 => return Err("two".into()),
                3 => return Err(Unspeakable.into()),
                4 => return Err("four".into()),
                cents => brittle.0.push(cents),
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        });
        handlers.key(|event: &Deposited, _| match event.cents {
            2 => panic!("no key"),
            cents => cents,
        });
    }
    fn failures() -> FailurePolicy {
        let classify = |error: &(dyn Error + 'static)| match error.is::<Unspeakable>() {
            false if error.to_string() == "four" => panic!("no class"),
            _ => ErrorClass::Permanent,
        };
        FailurePolicy { classify, ..FailurePolicy::default() }
    }
}

#[tokio::test]
async fn keys_errors_and_classifications_that_panic_park_their_event_alone() {
    let builder = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = builder.projection(Brittle::default()).start().await.unwrap();
    let deposits = [("a", 1), ("a", 2), ("b", 3), ("c", 4), ("d", 5), ("e", 2)];
    let head = deposit(&app, &deposits).await;
    let view = app.view::<Brittle>().at_least(head).await.unwrap().0.clone();
    assert_eq!(view, [1, 5]);
    let listed = app.letters().of("brittle").unwrap().list();
    let keys: Vec<_> = listed.iter().map(|letter| (&*letter.key, letter.state)).collect();
    let parked = LetterState::Parked;
    let expected = [("account-a", parked), ("3", parked), ("4", parked), ("account-e", parked)];
    assert_eq!(keys, expected);
    assert!(listed[1].error().unwrap().contains("unspeakable"), "{listed:?}");
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_log_that_cannot_be_read_for_a_letter_holds_up_no_other_key() {
    let rules = Rules::default();
    rules.refuse(2);
    let (store, faults) = Faulty::new(Memory::new());
    let app = start::<1>(store, &rules).await;
    deposit(&app, &[("a", 1), ("a", 2)]).await;
    folded::<1>(&app).await;
    rules.mend();
    faults.fail_all(Operation::ReadLog, Fault::Failed);
    let reads = faults.count(Operation::ReadLog);
    let retries = both(&app).map(|letters| {
        let letters = letters.clone();
        tokio::spawn(async move { letters.retry(Position::new(2)).await })
    });
    until("both have tried to read", || faults.count(Operation::ReadLog) >= reads + 2).await;
    deposit(&app, &[("b", 3)]).await;
    let others = owned(&[("a", 1), ("b", 3)]);
    assert_eq!(folded::<1>(&app).await, [others.clone(), others]);
    faults.recover();
    for retried in retries {
        assert_eq!(retried.await.unwrap().unwrap().handled, 1);
    }
    let all = owned(&[("a", 1), ("b", 3), ("a", 2)]);
    assert_eq!(folded::<1>(&app).await, [all.clone(), all]);
    app.shutdown().await.unwrap();
}

/// Looks at its own app while it folds.
#[derive(Default)]
struct Nosy {
    app: Arc<OnceLock<App>>,
    rules: Rules,
}

#[projection(name = "nosy")]
impl Nosy {
    #[on]
    fn deposited(&mut self, event: &Deposited) -> Result<(), Box<dyn Error + Send + Sync>> {
        let letters = self.app.get().map(|app| app.status().consumers[0].letters);
        assert!(letters.is_none_or(|letters| letters <= 1));
        self.rules.check(event.cents)
    }
}

#[tokio::test]
async fn a_handler_may_look_at_the_letters_of_its_own_app() {
    let (cell, rules) = (Arc::new(OnceLock::new()), Rules::default());
    rules.refuse(1);
    let view = Nosy { app: Arc::clone(&cell), rules };
    let builder = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = builder.projection(view).start().await.unwrap();
    cell.set(app.clone()).unwrap();
    let head = deposit(&app, &[("a", 1), ("b", 2)]).await;
    let patience = Duration::from_secs(5);
    app.reached("nosy", head, patience).await.unwrap();
    let head = deposit(&app, &[("b", 3)]).await;
    app.reached("nosy", head, patience).await.unwrap();
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn to_discard_a_letter_that_waits_does_not_try_the_one_before_it() {
    let rules = Rules::default();
    rules.refuse(1);
    let app = start::<1>(Memory::new(), &rules).await;
    deposit(&app, &[("a", 1), ("a", 2), ("a", 3)]).await;
    folded::<1>(&app).await;
    for letters in both(&app) {
        let discarded = letters.discard(Position::new(2), "sent twice").await.unwrap();
        assert_eq!((discarded.handled, discarded.failed), (0, vec![]));
        check_letters(letters, &[(1, LetterState::Parked), (3, LetterState::Waiting)]);
        assert_eq!(letters.at(Position::new(1)).unwrap().tried, 1);
    }
    rules.mend();
    for letters in both(&app) {
        assert_eq!(letters.retry(Position::new(1)).await.unwrap().handled, 2);
    }
    let all = owned(&[("a", 1), ("a", 3)]);
    assert_eq!(folded::<1>(&app).await, [all.clone(), all]);
    app.shutdown().await.unwrap();
}
