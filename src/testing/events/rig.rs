//! A log, the views beside it, and apps that come and go over both.

use std::any::TypeId;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Entry, Events};
use crate::aggregate::Aggregate;
use crate::app::{App, AppBuilder};
use crate::command::{Command, Context, SentTo};
use crate::event::{EventSet, Recorded};
use crate::letters::{Letter, LetterState};
use crate::processor::gauge::ConsumerStatus;
use crate::store::{Commit, EventStore, Filter, Memory};
use crate::stream::{ExpectedVersion, Position, StreamId, Version};
use crate::testing::clock::ManualClock;
use crate::testing::faults::{Faulty, keep_views};
use crate::testing::given::{Stored, fail, with_sources};

/// A position, or why there is none.
pub(super) type Sent<'a> = Pin<Box<dyn Future<Output = Result<Position, String>> + Send + 'a>>;

pub(super) fn show(event: &Recorded) -> String {
    let payload = String::from_utf8_lossy(&event.payload);
    format!("{} {} v{} {payload}", event.stream, event.name, event.schema_version)
}

/// Takes the events of `S` into the log, as they are.
pub(super) struct Scribe<S>(PhantomData<fn() -> S>);

pub(super) struct Write<S>(Stored, PhantomData<fn() -> S>);

impl<S> Default for Scribe<S> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<S> Clone for Write<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<S: EventSet> Command for Write<S> {
    const NAME: &'static str = "Write";
}

impl<S: EventSet> SentTo for Write<S> {
    type Aggregate = Scribe<S>;
}

impl<S: EventSet> Aggregate for Scribe<S> {
    const CATEGORY: &'static str = S::CATEGORY;
    type Event = S;
    type Command = Write<S>;
    type Error = Infallible;

    fn decide(
        &self,
        command: Write<S>,
        _: &Context,
        events: &mut Vec<S>,
    ) -> Result<(), Infallible> {
        events.push(command.0.read());
        Ok(())
    }

    fn apply(&mut self, _: &S) {}

    fn command_name(_: &Write<S>) -> &'static str {
        Write::<S>::NAME
    }
}

pub(super) fn send<'a, S: EventSet>(app: &'a App, entry: &'a Entry) -> Sent<'a> {
    let mut sending = app.send(&entry.id, Write::<S>(entry.stored.clone(), PhantomData));
    for (key, value) in &entry.metadata {
        sending = sending.metadata(key, value);
    }
    Box::pin(async move {
        let sent = sending.await.map(|receipt| receipt.position);
        sent.map_err(|error| with_sources(&error))
    })
}

/// A log with a history on its way into it, and the views beside it.
pub(super) struct Rig {
    pub(super) history: Events,
    /// Where the events of the history stand in the log.
    positions: Mutex<Vec<Position>>,
    log: Arc<dyn EventStore>,
    directory: PathBuf,
}

/// How long a consumer may take for an event.
const PATIENCE: Duration = Duration::from_secs(30);

impl Rig {
    #[track_caller]
    pub(super) fn new(history: Events) -> Self {
        let log: Arc<dyn EventStore> = Arc::new(Memory::for_tests());
        let directory = std::env::temp_dir().join(format!("tidings-testing-{}", log.log_id()));
        if let Err(error) = std::fs::create_dir(&directory) {
            fail(format_args!("{} cannot be made: {error}", directory.display()));
        }
        Self { history, positions: Mutex::default(), log, directory }
    }

    /// The file in which the views end.
    fn views(&self) -> PathBuf {
        self.directory.join("views.db")
    }

    async fn start(
        &self,
        views: PathBuf,
        clock: &ManualClock,
        wire: impl FnOnce(AppBuilder) -> AppBuilder,
    ) -> Result<App, String> {
        let (store, _) = Faulty::before(Arc::clone(&self.log), Some(views));
        let builder = App::builder().store(store).clock(clock.clone()).arbiters(1);
        let builder = self.history.sets.iter().fold(builder, |builder, (_, take)| take(builder));
        let builder = wire(builder).without_pauses();
        builder
            .start()
            .await
            .map_err(|error| format!("the app does not start: {}", with_sources(&error)))
    }

    async fn send(
        &self,
        app: &App,
        clock: &ManualClock,
        entry: &Entry,
    ) -> Result<Position, String> {
        clock.set(entry.time);
        let sent = (entry.send)(app, entry).await;
        let position = sent.map_err(|error| format!("{} is refused: {error}", entry.stored))?;
        self.positions.lock().push(position);
        Ok(position)
    }

    /// Lets a consumer that keeps nothing but its checkpoint handle the history as it is committed, and another anew. The apps have
    /// ended; their views can be read.
    pub(super) async fn fold_live_and_anew(
        &self,
        name: &str,
        wire: impl Fn(AppBuilder) -> AppBuilder,
    ) -> Result<(App, App, Letters), String> {
        let clock = ManualClock::default();
        let live = self.start(self.views(), &clock, &wire).await?;
        for entry in &self.history.entries {
            self.send(&live, &clock, entry).await?;
        }
        let first = settled(&live, name).await?;
        end(&live).await?;
        let anew = self.start(self.views(), &clock, &wire).await?;
        let again = settled(&anew, name).await?;
        end(&anew).await?;
        check_same_letters(&first, &again)?;
        Ok((live, anew, again))
    }

    /// Lets a consumer handle each event as it is committed, and again after a crash.
    pub(super) async fn deliver_twice(
        &self,
        name: &str,
        wire: impl Fn(AppBuilder) -> AppBuilder,
        crash: Crash,
    ) -> Result<Letters, String> {
        let clock = ManualClock::default();
        let mut views = self.views();
        let mut once: Option<(Vec<String>, Letters, Position)> = None;
        // What stands in the log already is the past.
        let past = self.positions.lock().len();
        let mut entries = self.history.entries.iter().skip(past);
        loop {
            let app = self.start(views.clone(), &clock, &wire).await?;
            let letters = settled(&app, name).await?;
            let before = keep_views(&views).map_err(|error| error.to_string())?;
            if let Some((first, first_letters, head)) = &once {
                check_same_rows(first, &rows(&before)?)?;
                check_same_letters(first_letters, &letters)?;
                self.check_same_log(*head)?;
            }
            let Some(entry) = entries.next() else {
                end(&app).await?;
                // Without tables there is no file.
                if before.exists() {
                    std::fs::rename(before, self.views()).map_err(|error| error.to_string())?;
                }
                return Ok(letters);
            };
            let position = self.send(&app, &clock, entry).await?;
            let letters = settled(&app, name).await?;
            end(&app).await?;
            once = Some((rows(&views)?, letters, app.head()));
            match crash {
                Crash::BeforeTheCommit => views = before,
                Crash::BeforeTheCheckpoint => set_back(&views, name, position)?,
            }
        }
    }

    fn check_same_log(&self, head: Position) -> Result<(), String> {
        let page = self.log.read_log(head, &Filter::All, usize::MAX);
        let page = page.map_err(|error| with_sources(&error))?;
        let mut text = String::new();
        for event in &page.events {
            // Writing into a string cannot fail.
            let _ = write!(text, "\n  again: {}", show(event));
        }
        if text.is_empty() {
            return Ok(());
        }
        Err(format!("a second delivery caused events that the first had caused already{text}"))
    }

    /// Writes the events of `S` into the log before any app is started.
    pub(super) fn write_past<S: EventSet>(&mut self) -> Result<(), String> {
        let is_past = |entry: &Entry| entry.category == S::CATEGORY;
        let (past, rest) = self.history.entries.drain(..).partition(is_past);
        self.history.entries = past;
        self.history.sets.retain(|(set, _)| *set != TypeId::of::<S>());
        for entry in &self.history.entries {
            let stream =
                StreamId::new(entry.category, &entry.id).map_err(|error| error.to_string())?;
            let commit = Commit::new().append(
                stream.clone(),
                ExpectedVersion::Any,
                vec![entry.stored.recorded(stream, entry.time, &entry.metadata)],
            );
            self.log.commit(&mut [commit]).map_err(|error| with_sources(&error))?;
            self.positions.lock().push(self.log.head().map_err(|error| with_sources(&error))?);
        }
        self.history.entries.extend::<Vec<Entry>>(rest);
        Ok(())
    }

    /// The events of `stream` that were caused, not given.
    pub(super) fn caused(&self, stream: &StreamId) -> Result<Vec<Recorded>, String> {
        let positions = self.positions.lock();
        let mut events = Vec::new();
        let read = self.log.read_stream(stream, Version::EMPTY, &mut |event| {
            if !positions.contains(&event.header.position) {
                events.push(event);
            }
            ControlFlow::Continue(())
        });
        read.map(|()| events).map_err(|error| with_sources(&error))
    }

    #[track_caller]
    pub(super) fn check_letters(&self, letters: &Letters, expected: &[(u64, &str)]) {
        let positions = self.positions.lock();
        let nth = |position| positions.iter().position(|sent| *sent == position);
        let found: Vec<_> = letters
            .iter()
            .map(|(position, key)| (nth(*position).map_or(0, |nth| nth as u64 + 1), key.as_str()))
            .collect();
        if found != expected {
            self.fail(&format!(
                "other events are parked or wait than expected\n  expected: {expected:?}\n  found:    {found:?}"
            ));
        }
    }

    #[cfg(feature = "sqlite")]
    #[track_caller]
    pub(super) fn check_query<T: PartialEq + std::fmt::Debug>(
        &self,
        query: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
        expected: T,
    ) {
        match rusqlite::Connection::open(self.views()).and_then(|connection| query(&connection)) {
            Ok(found) if found == expected => {}
            Ok(found) => self.fail(&format!(
                "the query returns something else than expected\n  expected: {expected:?}\n  found:    {found:?}"
            )),
            Err(error) => self.fail(&format!("the query failed: {error}")),
        }
    }

    #[track_caller]
    pub(super) fn fail(&self, problem: &str) -> ! {
        let mut text = String::from("  history:");
        for (nth, entry) in self.history.entries.iter().enumerate() {
            // Writing into a string cannot fail.
            let _ =
                write!(text, "\n    {} {}-{} {}", nth + 1, entry.category, entry.id, entry.stored);
        }
        fail(format_args!("{problem}\n{text}"))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // What cannot be removed from the temporary directory stays there until somebody else does.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// When a process crashes between the two deliveries of an event.
#[derive(Debug, Clone, Copy)]
pub(super) enum Crash {
    /// Before the transaction that holds the handler's rows and the checkpoint.
    BeforeTheCommit,
    /// After the handler's effects, before the checkpoint.
    BeforeTheCheckpoint,
}

/// What is parked or waits, by position and key.
pub(super) type Letters = Vec<(Position, String)>;

/// Waits until the consumer has come level and tries nothing any more, and returns its letters.
async fn settled(app: &App, name: &str) -> Result<Letters, String> {
    let waiting = async {
        loop {
            let status = app.status().consumers.into_iter().find(|status| status.name == name);
            let Some(ConsumerStatus { lag_events, trouble, .. }) = status else {
                return Err(format!("{name} hears of no event"));
            };
            if let Some(trouble) = trouble {
                return Err(format!("{name} stands still: {trouble}"));
            }
            let letters = app.letters().of(name).map(|of| of.list()).unwrap_or_default();
            let rests = |letter: &Letter| match letter.state {
                LetterState::Retrying { .. } => false,
                LetterState::Parked => true,
                // The first of its key is tried next.
                LetterState::Waiting => {
                    let is_earlier = |other: &Letter| other.position < letter.position;
                    letters.iter().any(|other| other.key == letter.key && is_earlier(other))
                }
            };
            if lag_events == 0 && letters.iter().all(rests) {
                let letters = letters.iter();
                return Ok(letters.map(|l| (l.position, l.key.to_string())).collect());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(letters) => letters,
        Err(_) => Err(format!("{name} has not come to rest within {PATIENCE:?}")),
    }
}

async fn end(app: &App) -> Result<(), String> {
    app.shutdown().await.map_err(|error| error.to_string())
}

fn check_same_letters(first: &Letters, again: &Letters) -> Result<(), String> {
    if first == again {
        return Ok(());
    }
    Err(format!(
        "other events are parked after a second delivery than after the first\n  first: {first:?}\n  again: {again:?}"
    ))
}

fn check_same_rows(first: &[String], again: &[String]) -> Result<(), String> {
    if first == again {
        return Ok(());
    }
    let mut text = String::from(
        "the tables are not the same after a second delivery as after the first: a handler may depend only on the event, \
         its header and the tables",
    );
    for (title, rows, others) in [("first", first, again), ("again", again, first)] {
        for row in rows.iter().filter(|row| !others.contains(row)) {
            // Writing into a string cannot fail.
            let _ = write!(text, "\n  {title}: {row}");
        }
    }
    Err(text)
}

/// Each row of the tables beside those of the framework, sorted.
#[cfg(feature = "sqlite")]
fn rows(views: &Path) -> Result<Vec<String>, String> {
    let read = || -> rusqlite::Result<Vec<String>> {
        let connection = rusqlite::Connection::open(views)?;
        let tables: Vec<String> = connection
            .prepare(
                "SELECT name FROM sqlite_schema WHERE type = 'table'
                     AND name NOT LIKE 'tidings\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut rows = Vec::new();
        for table in tables {
            let sql = format!("SELECT * FROM \"{}\"", table.replace('"', "\"\""));
            let mut statement = connection.prepare(&sql)?;
            let columns = 0..statement.column_count();
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                let value = |column| row.get::<_, rusqlite::types::Value>(column);
                let values: Vec<_> = columns.clone().map(value).collect::<rusqlite::Result<_>>()?;
                rows.push(format!("{table}: {values:?}"));
            }
        }
        rows.sort_unstable();
        Ok(rows)
    };
    read().map_err(|error| format!("the tables cannot be compared: {error}"))
}

/// Without a file there are no tables.
#[cfg(not(feature = "sqlite"))]
fn rows(_: &Path) -> Result<Vec<String>, String> {
    Ok(Vec::new())
}

/// Sets the checkpoint of a consumer back before the event at `position`.
#[cfg(feature = "sqlite")]
fn set_back(views: &Path, name: &str, position: Position) -> Result<(), String> {
    let sql = "UPDATE tidings_views SET position = min(position, ?2) WHERE name = ?1";
    let before = position.as_u64().saturating_sub(1) as i64;
    rusqlite::Connection::open(views)
        .and_then(|connection| connection.execute(sql, (name, before)))
        .map(drop)
        .map_err(|error| format!("the checkpoint cannot be set back: {error}"))
}

/// Without a file, every start begins anew.
#[cfg(not(feature = "sqlite"))]
fn set_back(_: &Path, _: &str, _: Position) -> Result<(), String> {
    Ok(())
}

/// Does `work` on a thread and a runtime of its own, whatever runs here.
pub(super) fn blocking<F: Future<Output: Send>>(work: impl FnOnce() -> F + Send) -> F::Output {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.map(|runtime| runtime.block_on(work()))
    };
    let ran = std::thread::scope(|scope| scope.spawn(run).join());
    match ran {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => fail(format_args!("a runtime cannot be made: {error}")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
