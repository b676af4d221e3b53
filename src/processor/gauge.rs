//! What a consumer shows of itself: one gauge, which the status, the map, the watchdog and the figures are read from.
//!
//! A consumer of any kind is registered once, with `Building::consumer`, when the app is put together. It then reports its
//! [`Progress`], keeps its letters on its shelf, and counts in the gauge what it has handled.
//!
//! # Level means done
//! A consumer reports a position when the effects of every event up to there are kept: one that stands at the head has nothing
//! in hand but the letters on its shelf. Its end is [`ConsumerState::Stopped`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{ConsumerState, Progress, RebuildProgress};
use crate::clock::Timestamp;
use crate::letters::shelf::Shelf;
use crate::sequencer::Head;
use crate::stream::Position;
use crate::telemetry::chain;

/// The rate is taken over so many steps of a second.
const WINDOW: usize = 10;
const STEP: Duration = Duration::from_secs(1);

/// What is said of a consumer that ended without a word: only a panic in the framework's own code does that.
const GONE: &str = "it panicked outside of its handlers: start the app again";

/// What kind of consumer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConsumerKind {
    /// It folds events into a view.
    Projection,
    /// It has effects outside of the store.
    Reactor,
    /// It decides on the events of others.
    Aggregate,
}

impl ConsumerKind {
    /// As it is written in figures: `projection`, `reactor`, `aggregate`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Projection => "projection",
            Self::Reactor => "reactor",
            Self::Aggregate => "aggregate",
        }
    }
}

impl fmt::Display for ConsumerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of a durable consumer: a projection, a reactor, or the aggregates of a category that subscribe.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// Its name.
    pub name: &'static str,
    /// What kind of consumer it is.
    pub kind: ConsumerKind,
    /// What it is doing.
    pub state: ConsumerState,
    /// Every event up to here is handled, or stands among its letters.
    pub position: Position,
    /// How many positions lie between it and the head of the log.
    pub lag_events: u64,
    /// How much older the newest event that it has handled is than the newest one in the log; zero when it is level. Events
    /// that are not for it count as handled when it comes level. Before it has handled any, this is the age of the whole log.
    ///
    /// It does not grow while nothing is written: for how long a consumer has stood still, see [`stalled`](Self::stalled).
    pub lag_age: Duration,
    /// How many events its handlers handled a second, over the last ten seconds; letters that were tried again are among them.
    pub rate: f64,
    /// How many events its handlers have handled since the app was started.
    pub handled: u64,
    /// How many events it has passed over since the app was started, because the program does not know them.
    pub ignored: u64,
    /// How many attempts have begun and not ended; zero for a projection.
    pub in_flight: usize,
    /// How often an event was tried again since the app was started.
    pub retries: u64,
    /// How many keys wait for a person, since their first letter has failed for good.
    pub parked_keys: usize,
    /// How many keys have letters that are tried again by themselves.
    pub retrying_keys: usize,
    /// How many letters it holds, those that wait behind others included.
    pub letters: usize,
    /// The newest error among its letters and its trouble; none when it has neither.
    pub last_error: Option<LastError>,
    /// What keeps it from going on, with all causes.
    pub trouble: Option<String>,
    /// For how long it has stood still, once the watchdog has [reported](crate::AppBuilder::watchdog) it: it has been behind the
    /// head all the time, or has stopped with trouble.
    pub stalled: Option<Duration>,
    /// How far the view that is to take the place of this one has got, while it is being rebuilt.
    pub rebuild: Option<RebuildProgress>,
}

/// The newest error of a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LastError {
    /// When it happened.
    pub at: Timestamp,
    /// The error, with all its causes.
    pub error: String,
}

/// What a consumer shows of itself.
pub(crate) struct Gauge {
    name: &'static str,
    kind: ConsumerKind,
    head: watch::Receiver<Head>,
    progress: watch::Receiver<Progress>,
    shelf: Arc<Shelf>,
    /// When the log began.
    origin: Timestamp,
    handled: AtomicU64,
    ignored: AtomicU64,
    in_flight: AtomicUsize,
    /// What was seen at the last looks.
    seen: Mutex<Seen>,
}

/// What the watchdog has seen of a consumer.
struct Seen {
    /// Where it stood, and the last moment at which that was no stand-still.
    position: Position,
    since: Instant,
    reported: bool,
    /// How many events it had handled, at each step of the window.
    handled: VecDeque<(Instant, u64)>,
}

/// Whether a consumer is at rest; if not, who it is and why.
#[cfg(feature = "testing")]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unrest {
    None,
    Moves(String),
    /// It stands still, and does not go on by itself.
    ForGood(String),
}

/// What a look at a consumer has brought to light.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It stands still.
    Stalled,
    /// It goes on, after it had stood still for so long.
    GoesOn(Duration),
}

impl Gauge {
    pub(crate) fn new(
        name: &'static str,
        kind: ConsumerKind,
        head: watch::Receiver<Head>,
        progress: watch::Receiver<Progress>,
        shelf: Arc<Shelf>,
        origin: Timestamp,
    ) -> Self {
        let (position, since) = (progress.borrow().position, Instant::now());
        let handled = VecDeque::from([(since, 0)]);
        let seen = Mutex::new(Seen { position, since, reported: false, handled });
        let (handled, ignored, in_flight) = Default::default();
        Self { name, kind, head, progress, shelf, origin, handled, ignored, in_flight, seen }
    }

    /// The same for a shadow of its view, which nobody looks at.
    pub(crate) fn of_shadow(&self, progress: watch::Receiver<Progress>, shelf: Arc<Shelf>) -> Self {
        Self::new(self.name, self.kind, self.head.clone(), progress, shelf, self.origin)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn kind(&self) -> ConsumerKind {
        self.kind
    }

    /// Where it reports its progress.
    pub(crate) fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Tells of each change of its letters.
    #[cfg(feature = "testing")]
    pub(crate) fn watch_letters(&self) -> watch::Receiver<()> {
        self.shelf.watch()
    }

    /// Why it is not at rest at `head`: it is not level, or has letters that are tried again. Parked ones do not count.
    #[cfg(feature = "testing")]
    pub(crate) fn unrest(&self, head: Position) -> Unrest {
        let status = self.status();
        let who = format!("{} {}", status.kind, status.name);
        let why = status.trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
        if status.position < head {
            let state = status.state.as_str();
            let text =
                format!("{who} stands at position {} of {head}, {state}{why}", status.position);
            return match status.state {
                ConsumerState::Stopped => Unrest::ForGood(text),
                _ => Unrest::Moves(text),
            };
        }
        if status.rebuild.is_some() || status.state == ConsumerState::Rebuilding {
            return Unrest::Moves(format!("{who} is being rebuilt"));
        }
        match status.retrying_keys {
            0 => Unrest::None,
            keys => {
                let error = status.last_error.map(|last| format!(": {}", last.error));
                let error = error.unwrap_or_default();
                Unrest::Moves(format!("{who} tries the letters of {keys} keys again{error}"))
            }
        }
    }

    /// Handlers have handled so many events more.
    pub(crate) fn count(&self, handled: u64) {
        self.handled.fetch_add(handled, Ordering::Relaxed);
    }

    /// So many unknown events more were passed over.
    pub(crate) fn ignore(&self, ignored: u64) {
        self.ignored.fetch_add(ignored, Ordering::Relaxed);
    }

    /// So many attempts are under way.
    pub(crate) fn set_in_flight(&self, attempts: usize) {
        self.in_flight.store(attempts, Ordering::Relaxed);
    }

    /// How many events it is behind, and what keeps it from going on.
    pub(crate) fn condition(&self) -> (u64, Option<String>) {
        let (head, (progress, gone)) = (*self.head.borrow(), self.progress());
        (progress.position.behind(head.position), trouble(&progress, gone))
    }

    /// The state of the consumer.
    pub(crate) fn status(&self) -> ConsumerStatus {
        let (head, (progress, gone)) = (*self.head.borrow(), self.progress());
        let lag_events = progress.position.behind(head.position);
        let trouble = trouble(&progress, gone);
        let (handled, now) = (self.handled.load(Ordering::Relaxed), Instant::now());
        let (rate, stalled) = {
            let seen = self.seen.lock();
            (seen.rate(handled, now), seen.reported.then(|| now.duration_since(seen.since)))
        };
        let of_trouble = trouble.clone().map(|error| LastError { at: progress.at, error });
        let (keys, retrying_keys, letters, of_letters) = {
            let shelved = self.shelf.read();
            let (keys, letters) = shelved.count();
            let attempts = shelved.firsts().filter_map(|letter| letter.attempts.last());
            let newest = attempts.max_by_key(|attempt| attempt.at);
            let newest = newest.map(|found| LastError { at: found.at, error: found.error.clone() });
            (keys, shelved.retrying(), letters, newest)
        };
        ConsumerStatus {
            name: self.name,
            kind: self.kind,
            state: if gone { ConsumerState::Stopped } else { progress.state },
            position: progress.position,
            lag_events,
            lag_age: match lag_events {
                0 => Duration::ZERO,
                _ => progress.time.max(self.origin).until(head.time),
            },
            rate,
            handled,
            ignored: self.ignored.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            retries: self.shelf.retries(),
            parked_keys: keys.saturating_sub(retrying_keys),
            retrying_keys,
            letters,
            last_error: of_trouble.into_iter().chain(of_letters).max_by_key(|error| error.at),
            trouble,
            stalled,
            rebuild: progress.rebuild,
        }
    }

    /// Takes note of where the consumer stands. It is said once that it stands still: for `limit` while the head is ahead of it,
    /// or with trouble that has stopped it. And once that it goes on.
    pub(crate) fn look(&self, limit: Duration) -> Option<Finding> {
        let (head, (progress, gone)) = (self.head.borrow().position, self.progress());
        let now = Instant::now();
        let mut seen = self.seen.lock();
        seen.step(self.handled.load(Ordering::Relaxed), now);
        let stopped =
            gone || (progress.state == ConsumerState::Stopped && progress.trouble.is_some());
        // What moves is the position; where a view is rebuilt that is not folded meanwhile, that of the rebuild.
        let position = match progress.rebuild {
            Some(rebuild) if progress.state == ConsumerState::Rebuilding => rebuild.position,
            _ => progress.position,
        };
        let stands = stopped || (position == seen.position && position < head);
        let stood = now.duration_since(seen.since);
        if !stands {
            (seen.position, seen.since) = (position, now);
            return std::mem::take(&mut seen.reported).then_some(Finding::GoesOn(stood));
        }
        if seen.reported || (!stopped && stood < limit) {
            return None;
        }
        seen.reported = true;
        Some(Finding::Stalled)
    }

    /// Where it stands, and whether it has ended without a word.
    fn progress(&self) -> (Progress, bool) {
        let ended = self.progress.has_changed().is_err();
        let progress = self.progress.borrow().clone();
        let gone = ended && progress.state != ConsumerState::Stopped;
        (progress, gone)
    }
}

impl Seen {
    /// Moves the window of the rate on, if it is time.
    fn step(&mut self, handled: u64, now: Instant) {
        if self.handled.back().is_some_and(|(last, _)| now.duration_since(*last) < STEP) {
            return;
        }
        if self.handled.len() >= WINDOW {
            self.handled.pop_front();
        }
        self.handled.push_back((now, handled));
    }

    /// Events a second since the window began.
    fn rate(&self, handled: u64, now: Instant) -> f64 {
        let Some((since, before)) = self.handled.front() else {
            return 0.0;
        };
        let seconds = now.duration_since(*since).as_secs_f64();
        let more = handled.saturating_sub(*before);
        if seconds > 0.0 { more as f64 / seconds } else { 0.0 }
    }
}

fn trouble(progress: &Progress, gone: bool) -> Option<String> {
    let trouble = progress.trouble.as_deref().map(|trouble| chain(trouble));
    trouble.or_else(|| gone.then(|| GONE.to_owned()))
}
