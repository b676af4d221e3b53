//! Guarantees 19 to 22 together: whatever fails, is tried again, discarded, edited or restarted, each consumer handles the
//! events of each key in the log's order, each once, and none is missing but those that a person discarded.
//!
//! Each seed is a schedule of its own: an app over a log of 20 to 60 events, whose consumers fail, panic and are mended by a person,
//! and which ends in order or crashes, several times over. `TIDINGS_SCHEDULES` says how many are run: 200 unless set, and 10,000 in a
//! release build before a change lands. The number is printed at the end, with what has happened.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "macros", feature = "sqlite", feature = "testing"))]

#[path = "support/bank.rs"]
mod bank;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bank::*;
use serde::{Deserialize, Serialize};
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::testing::{Chaos, Faults, Faulty};
use tidings::{
    App, ConsumerLetters, Delivery, DeliveryId, Event, EventStore, FailurePolicy, Handlers, Header,
    InMemory, LetterError, Memory, Projection, Reactions, Reactor, ResolutionKind, Retry, Tables,
    aggregate,
};

/// How many schedules are run unless `TIDINGS_SCHEDULES` says otherwise.
const SCHEDULES: u64 = 200;

/// Where the first seed lies; `TIDINGS_FIRST_SEED` sets it, to run one again that has failed.
const FIRST: u64 = 0;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// What a consumer has handled: under which key, at which position, how much.
type Handled = Vec<(String, u64, i64)>;

/// Tries twice at once, and parks then.
fn policy() -> FailurePolicy {
    let retry = Retry { attempts: 3, first: Duration::ZERO, longest: Duration::ZERO };
    FailurePolicy { retry, ..FailurePolicy::default() }
}

/// A view in memory, in order by stream.
struct Listed {
    chaos: Chaos,
    handled: Handled,
}

impl Projection for Listed {
    const NAME: &'static str = "listed";
    const VERSION: u32 = 1;
    type Storage = InMemory;
    fn handlers(handlers: &mut Handlers<Self, InMemory>) {
        handlers.on(|listed: &mut Self, event: &Deposited, header: &Header| -> Outcome {
            listed.chaos.at(Self::NAME, header)?;
            let key = header.stream.as_str().to_owned();
            listed.handled.push((key, header.position.as_u64(), event.cents));
            Ok(())
        });
    }
    fn failures() -> FailurePolicy {
        policy()
    }
}

/// A table in order by stream.
struct Tabled(Chaos);

impl Projection for Tabled {
    const NAME: &'static str = "tabled";
    const VERSION: u32 = 1;
    type Storage = Tables;
    fn handlers(handlers: &mut Handlers<Self, Tables>) {
        handlers.schema(
            "CREATE TABLE tabled (number INTEGER PRIMARY KEY, key TEXT, position INT, cents INT)",
        );
        handlers.on(
            |tabled: &Self, tx: &Transaction<'_>, event: &Deposited, header: &Header| -> Outcome {
                enter(tx, "tabled", header.stream.as_str(), event, header)?;
                Ok(tabled.0.at(Self::NAME, header)?)
            },
        );
    }
    fn failures() -> FailurePolicy {
        policy()
    }
}

/// A table in order by a key of its own, which goes across streams.
struct Keyed(Chaos);

impl Projection for Keyed {
    const NAME: &'static str = "keyed";
    const VERSION: u32 = 1;
    type Storage = Tables;
    fn handlers(handlers: &mut Handlers<Self, Tables>) {
        handlers.schema(
            "CREATE TABLE keyed (number INTEGER PRIMARY KEY, key TEXT, position INT, cents INT)",
        );
        handlers
            .on(
                |keyed: &Self,
                 tx: &Transaction<'_>,
                 event: &Deposited,
                 header: &Header|
                 -> Outcome {
                    enter(tx, "keyed", &series(event.cents), event, header)?;
                    Ok(keyed.0.at(Self::NAME, header)?)
                },
            )
            .key(|event: &Deposited, _| series(event.cents));
    }
    fn failures() -> FailurePolicy {
        policy()
    }
}

/// Effects outside, in order by stream.
struct Outer {
    chaos: Chaos,
    outside: Outside,
    /// Which start of the app this is.
    life: u64,
    faults: Faults,
}

/// What has happened outside: in which life, under which key, at which position, with which id.
type Outside = Arc<Mutex<Vec<(u64, String, u64, DeliveryId)>>>;

impl Reactor for Outer {
    const NAME: &'static str = "outer";
    fn handlers(handlers: &mut Reactions<Self>) {
        handlers.on(|outer: &Self, _: &Deposited, delivery: &Delivery| {
            Box::pin(async move {
                outer.chaos.at(Self::NAME, &delivery.header)?;
                tokio::task::yield_now().await;
                let mut outside = outer.outside.lock().unwrap();
                // A process that has crashed does nothing any more.
                if !outer.faults.has_crashed() {
                    let key = delivery.stream.as_str().to_owned();
                    outside.push((outer.life, key, delivery.position.as_u64(), delivery.id));
                }
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            })
        });
    }
    fn failures() -> FailurePolicy {
        policy()
    }
}

/// Writes through a transaction, in order by a key of its own.
struct Guarded(Chaos);

impl Reactor for Guarded {
    const NAME: &'static str = "guarded";
    fn handlers(handlers: &mut Reactions<Self>) {
        handlers.in_transaction(
            |guarded: &Self,
             tx: &Transaction<'_>,
             event: &Deposited,
             delivery: &Delivery|
             -> Outcome {
                tx.execute_batch(GUARDED)?;
                enter(tx, "guarded", &series(event.cents), event, delivery)?;
                Ok(guarded.0.at(Self::NAME, delivery)?)
            },
        );
        handlers.key(|event: &Deposited, _| series(event.cents));
    }
    fn failures() -> FailurePolicy {
        policy()
    }
}

const GUARDED: &str = "CREATE TABLE IF NOT EXISTS
    guarded (number INTEGER PRIMARY KEY, key TEXT, position INT, cents INT)";

#[derive(Event, Clone, Debug, Serialize, Deserialize)]
#[event(name = "mirror.seen", version = 1)]
struct Seen {
    cents: i64,
}

#[derive(Debug, thiserror::Error)]
#[error("{0} cents are a multiple of seven")]
struct Sevens(i64);

/// Decides on the events of others, in order by its instances, and rejects some until a person does something about them.
#[derive(Default)]
struct Mirror;

#[aggregate(category = "mirror", events = MirrorEvent, error = Sevens)]
impl Mirror {
    #[on(to = series(event.cents))]
    fn deposited(&self, event: &Deposited) -> Result<Seen, Sevens> {
        match event.cents {
            cents if cents % 7 == 0 && cents < EDITED => Err(Sevens(cents)),
            cents => Ok(Seen { cents }),
        }
    }
    #[apply]
    fn seen(&mut self, _: &Seen) {}
}

/// What a person adds to an amount that is edited. It leaves the amount in its series, and tells which one it was.
const EDITED: i64 = 3_000;

/// Three keys over all amounts.
fn series(cents: i64) -> String {
    format!("series-{}", cents % 3)
}

fn enter(
    tx: &Transaction<'_>,
    table: &str,
    key: &str,
    event: &Deposited,
    header: &Header,
) -> rusqlite::Result<usize> {
    let position = header.position.as_u64() as i64;
    let sql = format!("INSERT INTO {table} (key, position, cents) VALUES (?1, ?2, ?3)");
    tx.execute(&sql, (key, position, event.cents))
}

fn rows(table: &'static str) -> impl FnOnce(&Connection) -> rusqlite::Result<Handled> {
    move |connection| {
        connection
            .prepare(&format!("SELECT key, position, cents FROM {table} ORDER BY number"))?
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64, row.get(2)?)))?
            .collect()
    }
}

const CONSUMERS: [&str; 6] = ["listed", "tabled", "keyed", "outer", "guarded", "mirror"];

/// One schedule, while it runs.
struct Schedule {
    seed: u64,
    chaos: Chaos,
    app: App,
    life: u64,
    faults: Faults,
    outside: Outside,
    /// What a person was told was discarded, by consumer and position.
    discarded: BTreeSet<(&'static str, u64)>,
    /// What a person wanted discarded.
    wanted: BTreeSet<(&'static str, u64)>,
    done: Arc<Done>,
}

/// What has happened in all schedules: one in which nothing happens proves nothing.
#[derive(Default, Debug)]
struct Done {
    events: AtomicU64,
    crashes: AtomicU64,
    ends: AtomicU64,
    letters: AtomicU64,
    retries: AtomicU64,
    discards: AtomicU64,
    edits: AtomicU64,
    /// Effects outside that happened again.
    repeats: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

async fn start(
    store: impl EventStore,
    chaos: &Chaos,
    outside: &Outside,
    (life, faults): (u64, &Faults),
) -> App {
    let (outside, faults) = (Arc::clone(outside), faults.clone());
    let builder =
        App::builder().store(store).arbiters(1).aggregate::<Account>().aggregate::<Mirror>();
    let builder = builder
        .projection(Listed { chaos: chaos.clone(), handled: Handled::new() })
        .projection(Tabled(chaos.clone()))
        .projection(Keyed(chaos.clone()))
        .reactor(Outer { chaos: chaos.clone(), outside, life, faults })
        .reactor(Guarded(chaos.clone()));
    builder.start().await.unwrap()
}

impl Schedule {
    async fn begin(seed: u64, directory: &Path, done: Arc<Done>) -> Self {
        let chaos = Chaos::seeded(seed).failing(12).refusing(8).panicking(4);
        let (store, faults) = Faulty::with_views(Memory::new(), directory.join("views.db"));
        let outside = Outside::default();
        let app = start(store, &chaos, &outside, (0, &faults)).await;
        let (discarded, wanted) = (BTreeSet::new(), BTreeSet::new());
        Self { seed, chaos, app, life: 0, faults, outside, discarded, wanted, done }
    }

    async fn run(mut self) {
        let events = 20 + self.chaos.below(41);
        let accounts = 3 + self.chaos.below(3);
        for number in 1..=events {
            if self.chaos.below(20) == 0 {
                self.chaos.strike(&self.faults, 3);
            }
            let account = format!("a{}", self.chaos.below(accounts));
            // If it is refused, whether it was written shows in the log.
            let _ = self.app.send(account, Deposit { cents: number as i64 }).await;
            // What a process is told after it has crashed is lost.
            if self.chaos.below(4) == 0 && !self.faults.has_crashed() {
                self.meddle().await;
            }
            match self.chaos.below(40) {
                _ if self.faults.has_crashed() => self.restart().await,
                0 => {
                    self.faults.crash();
                    self.restart().await;
                }
                1 => self.restart().await,
                2 | 3 => self.level().await,
                _ => {}
            }
        }
        self.settle().await;
        self.check().await;
        self.app.shutdown().await.unwrap();
    }

    /// Ends the app, as far as it has not crashed, and starts it over what that leaves.
    async fn restart(&mut self) {
        if self.faults.has_crashed() {
            count(&self.done.crashes);
            let _ = self.app.shutdown_within(Duration::ZERO).await;
        } else {
            count(&self.done.ends);
            self.app.shutdown().await.unwrap();
        }
        let (store, faults) = self.faults.restart();
        self.faults = faults;
        self.life += 1;
        let life = (self.life, &self.faults);
        self.app = start(store, &self.chaos, &self.outside, life).await;
    }

    fn letters(&self, consumer: &str) -> ConsumerLetters {
        self.app.letters().of(consumer).unwrap().clone()
    }

    /// Waits until every consumer has seen all there is, or the process has crashed.
    async fn level(&self) {
        let is_level = || self.app.status().consumers.iter().all(|status| status.lag_events == 0);
        until("all are level", || self.faults.has_crashed() || is_level()).await;
    }

    /// What a consumer answers; nothing if the process crashes meanwhile, by a commit of the mirror.
    async fn answer<T>(&self, asked: impl Future<Output = T>) -> Option<T> {
        let crash = until("it crashes or answers", || self.faults.has_crashed());
        tokio::select! {
            answer = asked => Some(answer),
            () = crash => None,
        }
    }

    /// A person does something about a letter.
    async fn meddle(&mut self) {
        let consumer = CONSUMERS[self.chaos.below(6) as usize];
        let letters = self.letters(consumer);
        let list = letters.list();
        let picked = self.chaos.below(list.len() as u64) as usize;
        let Some(letter) = list.get(picked) else { return };
        let (position, first) = (letter.position, letters.of_key(&letter.key).into_iter().next());
        count(&self.done.letters);
        let what = self.chaos.below(6);
        let asked = match what {
            0 => self.answer(letters.retry(position)).await,
            1 | 2 => self.answer(letters.retry_key(&letter.key)).await,
            3 => match letters.groups().into_iter().next() {
                Some(group) => self.answer(letters.retry_group(&group)).await,
                None => return,
            },
            4 => {
                self.wanted.insert((consumer, position.as_u64()));
                let discarded = self.answer(letters.discard(position, "a slip")).await;
                if matches!(discarded, Some(Ok(_))) && !self.faults.has_crashed() {
                    self.discarded.insert((consumer, position.as_u64()));
                    count(&self.done.discards);
                }
                discarded
            }
            _ => {
                let Some(first) = first else { return };
                let recorded = &whole_log_of(&self.faults)[first.position.as_u64() as usize - 1];
                let stored: Deposited = serde_json::from_slice(&recorded.payload).unwrap();
                let payload = format!(r#"{{"cents":{}}}"#, stored.cents + EDITED);
                let edited = self.answer(letters.edit(first.position, payload)).await;
                if matches!(edited, Some(Ok(_))) {
                    count(&self.done.edits);
                }
                edited
            }
        };
        let Some(asked) = asked else { return };
        match asked {
            Ok(_) => count(&self.done.retries),
            Err(
                LetterError::NotFound { .. }
                | LetterError::NotFirst { .. }
                | LetterError::NotReached { .. },
            ) => {}
            // A commit of the mirror may have crashed the process meanwhile.
            Err(_) if self.faults.has_crashed() => {}
            Err(error) => panic!("seed {}: {consumer} at {position}: {error}", self.seed),
        }
    }

    /// Mends everything, and lets a person try all letters again.
    async fn settle(&mut self) {
        self.chaos.mend();
        self.restart().await;
        self.level().await;
        for consumer in CONSUMERS {
            let letters = self.letters(consumer);
            while let Some(letter) = letters.list().first() {
                match soon("the last retry", letters.retry_key(&letter.key)).await {
                    Ok(retried) if consumer == "mirror" => {
                        // What it rejects it rejects for ever.
                        for letter in retried.failed {
                            self.wanted.insert((consumer, letter.position.as_u64()));
                            letters.discard(letter.position, "a slip").await.unwrap();
                        }
                    }
                    Ok(retried) => assert_eq!(retried.failed, [], "seed {}", self.seed),
                    // It was tried by itself meanwhile.
                    Err(LetterError::NotFound { .. }) => {}
                    Err(error) => panic!("seed {}: {consumer}: {error}", self.seed),
                }
            }
        }
    }

    async fn check(&self) {
        let head = self.app.head();
        let listed = self.app.view::<Listed>().read().handled.clone();
        let tabled = self.app.view::<Tabled>().read().query(rows("tabled")).await.unwrap();
        let keyed = self.app.view::<Keyed>().read().query(rows("keyed")).await.unwrap();
        let by_stream = |stream: &str, _| stream.to_owned();
        self.check_consumer("listed", listed, by_stream);
        self.check_consumer("tabled", tabled, by_stream);
        self.check_consumer("keyed", keyed, |_, cents| series(cents));
        let reader = self.app.view::<Keyed>().read();
        let guarded = reader.query(rows("guarded")).await.unwrap();
        self.check_guarded(&by_key(guarded));
        self.check_outside();
        self.check_mirror();
        self.done.events.fetch_add(head.as_u64(), Ordering::Relaxed);
    }

    /// Compares what a consumer has handled with the log and with what people decided.
    #[track_caller]
    fn check_consumer(
        &self,
        consumer: &'static str,
        handled: Handled,
        key: impl Fn(&str, i64) -> String,
    ) {
        let (discarded, edited) = self.decided(consumer);
        let expected = self.log(key).filter_map(|(key, position, stored)| {
            let cents = edited.get(&position).copied().unwrap_or(stored);
            (!discarded.contains(&position)).then_some((key, position, cents))
        });
        let (expected, found) = (by_key(expected), by_key(handled));
        assert_eq!(found, expected, "seed {}: {consumer}", self.seed);
    }

    /// The rows of a reactor: an event that was discarded or edited may have been handled before, in a process that crashed before
    /// it could say so.
    #[track_caller]
    fn check_guarded(&self, found: &BTreeMap<String, Vec<(u64, i64)>>) {
        let (discarded, edited) = self.decided("guarded");
        let all = by_key(self.log(|_, cents| series(cents)));
        for (key, expected) in &all {
            let rows = found.get(key).cloned().unwrap_or_default();
            let expected: Vec<_> = expected
                .iter()
                .filter(|(at, _)| !discarded.contains(at) || rows.iter().any(|row| row.0 == *at))
                .map(|(at, stored)| {
                    let edited = edited.get(at).filter(|cents| rows.contains(&(*at, **cents)));
                    (*at, edited.copied().unwrap_or(*stored))
                })
                .collect();
            assert_eq!(rows, expected, "seed {}: guarded: {key}", self.seed);
        }
        assert!(found.keys().all(|key| all.contains_key(key)), "seed {}: {found:?}", self.seed);
    }

    /// The effects outside: in each life those of a key happen in order and once; over all lives none is missing, none comes before
    /// an earlier one of its key, and a repeat has the same id.
    #[track_caller]
    fn check_outside(&self) {
        let seed = self.seed;
        let (discarded, _) = self.decided("outer");
        let outside = self.outside.lock().unwrap();
        let mut ids = BTreeMap::new();
        let mut lives = BTreeMap::<_, Vec<u64>>::new();
        let mut firsts = BTreeMap::<_, Vec<u64>>::new();
        for (life, key, position, id) in &*outside {
            let known = ids.insert(*position, *id);
            assert!(known.is_none_or(|known| known == *id), "seed {seed}: {position} has two ids");
            lives.entry((life, key)).or_default().push(*position);
            let first = firsts.entry(key.clone()).or_default();
            if known.is_none() {
                first.push(*position);
            } else {
                count(&self.done.repeats);
            }
        }
        for (life, positions) in lives {
            assert!(positions.is_sorted_by(|a, b| a < b), "seed {seed}: {life:?}: {positions:?}");
        }
        for (key, expected) in by_key(self.log(|stream, _| stream.to_owned())) {
            let found = firsts.remove(&key).unwrap_or_default();
            let expected: Vec<_> = expected
                .iter()
                .map(|(at, _)| *at)
                .filter(|at| !discarded.contains(at) || found.contains(at))
                .collect();
            assert_eq!(found, expected, "seed {seed}: outer: {key}");
        }
        assert!(firsts.is_empty(), "seed {seed}: outer: {firsts:?}");
    }

    /// The events that the mirror has caused: of each key in order and once each, none missing but those that were discarded.
    #[track_caller]
    fn check_mirror(&self) {
        let seed = self.seed;
        let (discarded, _) = self.decided("mirror");
        let log = whole_log_of(&self.faults);
        for (key, expected) in by_key(self.log(|_, cents| series(cents))) {
            let of_key = log.iter().filter(|seen| seen.stream.as_str() == format!("mirror-{key}"));
            let found: Vec<_> = of_key
                .map(|seen| serde_json::from_slice::<Seen>(&seen.payload).unwrap().cents % EDITED)
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .filter(|(at, cents)| !discarded.contains(at) || found.contains(cents))
                .map(|(_, cents)| *cents)
                .collect();
            assert_eq!(found, expected, "seed {seed}: mirror: {key}");
        }
    }

    /// The events of the log with their keys.
    fn log(&self, key: impl Fn(&str, i64) -> String) -> impl Iterator<Item = (String, u64, i64)> {
        let mut deposits = whole_log_of(&self.faults);
        deposits.retain(|recorded| recorded.stream.category() == "account");
        deposits.into_iter().map(move |recorded| {
            let event: Deposited = serde_json::from_slice(&recorded.payload).unwrap();
            let key = key(recorded.header.stream.as_str(), event.cents);
            (key, recorded.header.position.as_u64(), event.cents)
        })
    }

    /// What was discarded, and what was edited to what, as the consumer has written it down: all that a person was told, and nothing
    /// that nobody wanted.
    #[track_caller]
    fn decided(&self, consumer: &'static str) -> (BTreeSet<u64>, BTreeMap<u64, i64>) {
        let seed = self.seed;
        let (mut discarded, mut edited) = (BTreeSet::new(), BTreeMap::new());
        for resolution in self.letters(consumer).resolutions() {
            let position = resolution.position.as_u64();
            match resolution.kind {
                ResolutionKind::Discarded { reason } => {
                    assert_eq!(reason, "a slip", "seed {seed}: {consumer}");
                    discarded.insert(position);
                }
                ResolutionKind::Edited { payload } => {
                    let event: Deposited = serde_json::from_slice(&payload).unwrap();
                    edited.insert(position, event.cents);
                }
                kind => panic!("{kind:?}"),
            }
        }
        let of = |all: &BTreeSet<(&str, u64)>| -> BTreeSet<u64> {
            let own = all.iter().filter(|(name, _)| *name == consumer);
            own.map(|(_, position)| *position).collect()
        };
        let (told, wanted) = (of(&self.discarded), of(&self.wanted));
        assert!(told.is_subset(&discarded), "seed {seed}: {consumer}: {told:?} {discarded:?}");
        assert!(discarded.is_subset(&wanted), "seed {seed}: {consumer}: {discarded:?} {wanted:?}");
        (discarded, edited)
    }
}

/// What stands under each key, in order.
fn by_key(
    handled: impl IntoIterator<Item = (String, u64, i64)>,
) -> BTreeMap<String, Vec<(u64, i64)>> {
    let mut keys = BTreeMap::<_, Vec<_>>::new();
    for (key, position, cents) in handled {
        keys.entry(key).or_default().push((position, cents));
    }
    keys
}

/// The log, whether or not the process has crashed.
fn whole_log_of(faults: &Faults) -> Vec<tidings::Recorded> {
    whole_log(&faults.restart().0)
}

/// A directory in memory if there is one: nothing here has to survive a power cut.
fn directory() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(number) => number.parse().unwrap_or_else(|_| panic!("{name} is no number: {number}")),
        Err(_) => otherwise,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_each_key_is_kept_whatever_fails_and_whoever_meddles() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let told = panic.payload_as_str().is_some_and(|text| text.contains("was told to panic"));
        if !told {
            report(panic);
        }
    }));
    let (first, schedules) =
        (number("TIDINGS_FIRST_SEED", FIRST), number("TIDINGS_SCHEDULES", SCHEDULES));
    let done = Arc::new(Done::default());
    let directory = directory();
    let mut running = tokio::task::JoinSet::new();
    for seed in first..first + schedules {
        if running.len() == 8 {
            running.join_next().await.unwrap().unwrap();
        }
        let (done, directory) = (Arc::clone(&done), directory.path().join(seed.to_string()));
        running.spawn(async move {
            std::fs::create_dir(&directory).unwrap();
            let schedule = Schedule::begin(seed, &directory, done).await.run();
            let schedule = std::panic::AssertUnwindSafe(schedule);
            if let Err(panic) = futures_util::FutureExt::catch_unwind(schedule).await {
                eprintln!("seed {seed} has failed: run it with TIDINGS_FIRST_SEED={seed} TIDINGS_SCHEDULES=1");
                std::panic::resume_unwind(panic);
            }
            std::fs::remove_dir_all(&directory).unwrap();
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    println!("{schedules} schedules from seed {first}: {done:?}");
    let Done { events, crashes, ends, letters, retries, discards, edits, repeats } = &*done;
    for counter in [events, crashes, ends, letters, retries, discards, edits, repeats] {
        assert!(schedules < 100 || counter.load(Ordering::Relaxed) > schedules / 10, "{done:?}");
    }
}
