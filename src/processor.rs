//! The durable loop behind projections: catch up from the log, go live, keep the checkpoint.
//!
//! A processor folds events in commit order, each once. It reads the log in pages until it is level, then joins the
//! topics' rings; when it falls behind a ring it goes back to the log. What it folds and the position that it has reached
//! move together, which is the business of its [`Keeper`].
//!
//! # A handler that fails
//! The processor stops before that event, with the reason in its status. It holds up nobody: rings do not wait for it.
//!
//! # A log that cannot be read, a view that cannot be written
//! It is tried again with growing pauses, and the status says so; nothing is skipped.

mod catch_up;
#[cfg(feature = "sqlite")]
pub(crate) mod file;
pub(crate) mod gauge;
pub(crate) mod ledger;
mod parking;
pub(crate) mod rebuild;
mod source;
mod trouble;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use serde::Serialize;
use tokio::sync::watch;
use tracing::{debug_span, error, warn};

use self::catch_up::ReadAhead;
use self::gauge::Gauge;
use self::parking::letters;
pub(crate) use self::parking::{read, read_edited};
use self::rebuild::{Own, Replaced, Role};
pub use self::rebuild::{RebuildError, RebuildProgress, Rebuilt};
pub(crate) use self::source::{Handler, Source, Sources, TypedSource};
pub(crate) use self::trouble::Failure;
pub use self::trouble::Trouble;
use crate::bus::Peek;
use crate::clock::{Clock, Timestamp};
use crate::event::Header;
use crate::letters::desk::Clerk;
use crate::letters::shelf::{Change, Fate, Glance, Shelf};
use crate::retry::{FailurePolicy, UnknownEvents};
use crate::sequencer::Head;
use crate::store::{Decoder, Filter, Page};
use crate::stream::Position;
use crate::telemetry::{self, chain};

/// The first and the longest pause before the log is read again after it failed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How many events are read from the log at a time: enough to make the step to a reading thread cheap.
const PAGE: usize = 2_048;

/// Where a processor stands.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// Every event up to here is folded.
    pub(crate) position: Position,
    /// When the newest event that it has passed was decided, as far as it knows: it has seen those that it handles, and the
    /// head whenever it was level.
    pub(crate) time: Timestamp,
    pub(crate) state: ConsumerState,
    /// When it said so.
    pub(crate) at: Timestamp,
    /// Why it stopped, or why it tries again.
    pub(crate) trouble: Option<Arc<Trouble>>,
    /// How far the view that may take its place has got.
    pub(crate) rebuild: Option<RebuildProgress>,
    /// The view was folded by another version of the program, and is folded no further.
    pub(crate) outdated: bool,
}

/// What a consumer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConsumerState {
    /// It reads events from the log.
    CatchingUp,
    /// It gets events as they are committed.
    Live,
    /// Its version was raised: the view of the earlier version is read, and not folded any further, while the new one is
    /// built.
    Rebuilding,
    /// The log cannot be read, the view not written, or an event that it may not pass not be handled; it tries again.
    Retrying,
    /// It stopped at an event that it could not handle, or because the app shut down.
    Stopped,
}

impl ConsumerState {
    /// As it is written in figures and traces: `catching_up`, `live`, `rebuilding`, `retrying`, `stopped`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CatchingUp => "catching_up",
            Self::Live => "live",
            Self::Rebuilding => "rebuilding",
            Self::Retrying => "retrying",
            Self::Stopped => "stopped",
        }
    }
}

/// A part of the events that was folded in one go.
pub(crate) struct Chunk {
    /// Every event up to here is folded.
    pub(crate) through: Position,
    /// When the last event that was handled was decided, if there was any.
    pub(crate) time: Option<Timestamp>,
    /// How many events handlers have handled.
    pub(crate) handled: u64,
    /// How many unknown events were passed over.
    pub(crate) ignored: u64,
    /// What changes on the shelf.
    pub(crate) changes: Vec<Change>,
    /// The event that stopped it.
    pub(crate) failure: Option<Box<Failure>>,
    /// A handler ended the transaction that it was given.
    pub(crate) ended: bool,
    /// A handler was told that a subject of personal data is forgotten.
    #[cfg(feature = "personal")]
    pub(crate) forgets: bool,
}

impl Chunk {
    /// Nothing folded, up to `through`.
    pub(crate) fn up_to(through: Position) -> Self {
        let (handled, ignored, changes) = Default::default();
        Self {
            through,
            time: None,
            handled,
            ignored,
            changes,
            failure: None,
            ended: false,
            #[cfg(feature = "personal")]
            forgets: false,
        }
    }
}

/// What a fold has to know of letters.
pub(crate) struct Sorting<'s> {
    shelf: &'s Shelf,
    /// None if nothing is parked and nothing was decided by a person.
    glance: Option<Glance>,
    /// Events up to here are a replay.
    replayed: Position,
    decoder: &'s Decoder,
    unknown: UnknownEvents,
}

impl<'s> Sorting<'s> {
    fn new(shelf: &'s Shelf, replayed: Position, wiring: &'s Wiring) -> Self {
        let (decoder, unknown) = (&wiring.decoder, wiring.policy.unknown);
        Self { shelf, glance: shelf.glance(), replayed, decoder, unknown }
    }

    /// For an event that is handled whatever stands on the shelf.
    fn without_letters(shelf: &'s Shelf, replayed: Position, wiring: &'s Wiring) -> Self {
        Self { glance: None, ..Self::new(shelf, replayed, wiring) }
    }

    fn fate(&self, position: Position) -> Fate {
        match &self.glance {
            Some(glance) if glance.has_resolved => self.shelf.read().fate(position),
            _ => Fate::Handle,
        }
    }

    /// What is to be known of letters; none if there are none.
    fn letters(&self) -> Option<&Glance> {
        self.glance.as_ref().filter(|glance| glance.has_letters)
    }

    /// Whether the event at `position` is a letter.
    fn is_letter(&self, position: Position) -> bool {
        self.letters().is_some() && self.shelf.read().at(position).is_some()
    }

    /// Whether the event is a letter or has to wait behind one of its key, which has this hash; takes note of it then. It is
    /// not locked while a handler runs, nor for most events of other keys.
    fn sets_aside(&self, key: &str, hash: u64, header: &Header, chunk: &mut Chunk) -> bool {
        let Some(glance) = self.letters() else {
            return false;
        };
        if header.position > glance.last && !glance.may_hold(hash) {
            return false;
        }
        let shelved = self.shelf.read();
        // Whatever its key is by now: it is handled as the letter that it became.
        if shelved.at(header.position).is_some() {
            return true;
        }
        if !shelved.waits(key, header.position) {
            return false;
        }
        let letter = shelved.wait(key, header);
        chunk.changes.extend(letter.map(|letter| Change::Put(Box::new(letter))));
        true
    }
}

/// Keeps what a processor folds, together with the position.
pub(crate) trait Keeper: Send + 'static {
    /// What handlers fold into.
    type Target;

    /// How many events may be folded in one go while others wait.
    const CHUNK: usize;

    /// How many events may be folded in one go.
    fn chunk(&self) -> usize {
        Self::CHUNK
    }

    /// Whether it can fold now, rather than having to wait for a reader of its view.
    fn is_free(&self) -> bool {
        true
    }

    /// Where the view stands.
    fn checkpoint(&self) -> (Position, Timestamp);

    /// Events up to here are a replay; all of them for a shadow of a view that others fold meanwhile.
    fn replayed(&self) -> Position;

    /// Lets `fold` change the target, and moves the position and the letters with it: all of it or nothing.
    ///
    /// Of a chunk that ends with a failure a keeper may take back what came before; then it returns it without changes.
    ///
    /// # Errors
    /// The view could not be written; it stands where it stood.
    fn keep(
        &mut self,
        fold: &mut dyn FnMut(&mut Self::Target) -> Chunk,
    ) -> Result<Chunk, Box<dyn Error + Send + Sync>>;

    /// Writes down the position that was passed without folding anything. Called at the end.
    ///
    /// # Errors
    /// The view could not be written; it stands where it stood.
    fn close(&mut self, position: Position) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// Puts the view of `shadow`, which stands at `at`, in the place of its own, and `letters` in the place of all others: all of
    /// it or nothing.
    ///
    /// # Errors
    /// The view could not be written; it stands where it stood.
    fn install(
        &mut self,
        shadow: &mut Self,
        at: (Position, Timestamp),
        letters: &[Change],
        replaced: Replaced,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let _ = (shadow, at, letters, replaced);
        Err("it keeps no view that could be replaced".into())
    }
}

/// Everything that a processor needs from the app.
pub(crate) struct Wiring {
    pub(crate) name: &'static str,
    pub(crate) decoder: Decoder,
    pub(crate) head: watch::Receiver<Head>,
    pub(crate) stopping: watch::Receiver<Stopping>,
    pub(crate) progress: Arc<watch::Sender<Progress>>,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: FailurePolicy,
    pub(crate) clerk: Clerk,
}

/// How the app wants its processors to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// Not at all.
    No,
    /// When they are level with the head, which moves no more.
    WhenLevel,
    /// At once, after what they are folding.
    Now,
}

/// The loop.
pub(crate) struct Processor<K: Keeper> {
    keeper: K,
    sources: Sources<K::Target>,
    /// Which source handles the events of a name.
    routes: HashMap<&'static str, usize>,
    filter: Filter,
    wiring: Wiring,
    position: Position,
    time: Timestamp,
    role: Role<K>,
}

/// Why a step of the loop ends.
enum Step {
    /// Level with the rings.
    Level,
    /// A ring has moved on without this reader.
    Behind,
    /// The app wants it to end.
    Stop,
}

/// What interrupts the loop.
enum Interrupt {
    /// An event could not be handled. Nothing after it is folded; what came before it in its chunk may have been taken back.
    Failed(Box<Failure>),
    Trouble(Trouble),
}

impl From<Trouble> for Interrupt {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl<K: Keeper> Processor<K> {
    pub(crate) fn new(keeper: K, sources: Sources<K::Target>, wiring: Wiring) -> Self {
        let mut routes = HashMap::new();
        for (index, source) in sources.iter().enumerate() {
            let names = source.names().into_iter();
            // What events of former names are read as is only known when one is met.
            let names = names.chain(source.set().former_names.iter().copied());
            routes.extend(names.map(|name| (name, index)));
        }
        let sets = sources.iter().map(|source| source.set());
        let filter = Filter::of_sets(routes.keys().copied(), sets);
        let (position, time) = keeper.checkpoint();
        let role = Role::Own(Own::default());
        Self { keeper, sources, routes, filter, wiring, position, time, role }
    }

    /// The processor's life: until the app stops it, or an event does.
    pub(crate) async fn run(mut self) {
        let mut ended;
        loop {
            if let Step::Stop = self.wait_for_view().await {
                ended = Ok(());
                break;
            }
            ended = self.work().await;
            let Err(Trouble::TooManyParked { .. }) = &ended else {
                break;
            };
            let trouble = ended.as_ref().err().map(|trouble| chain(trouble)).unwrap_or_default();
            error!(projection = self.wiring.name, error = trouble, "stands still");
            self.report(ConsumerState::Stopped, ended.err().map(Arc::new));
            ended = Ok(());
            if let Step::Stop = self.wait_for_room().await {
                break;
            }
        }
        let closed = self.keeper.close(self.position).map_err(Trouble::View);
        let trouble = ended.and(closed).err();
        if let Some(trouble) = &trouble {
            error!(projection = self.wiring.name, error = chain(trouble), "stopped");
        }
        // A rebuild cannot hand over any more; it ends by itself, and has nobody left whom it could tell.
        self.wiring.progress.send_modify(|progress| progress.rebuild = None);
        self.report(ConsumerState::Stopped, trouble.map(Arc::new));
    }

    async fn work(&mut self) -> Result<(), Trouble> {
        let mut pause = PAUSES.0;
        loop {
            let before = self.position;
            let mut followed = self.follow().await;
            while let Err(Interrupt::Failed(failure)) = followed {
                followed = match self.put_aside(failure).await {
                    Ok(Step::Stop) => return Ok(()),
                    Ok(_) => self.follow().await,
                    Err(interrupt) => Err(interrupt),
                };
            }
            let trouble = match followed {
                Err(Interrupt::Trouble(trouble @ Trouble::View(_))) => trouble,
                Err(Interrupt::Trouble(trouble)) => return Err(trouble),
                _ => return Ok(()),
            };
            // Nothing of the chunk was kept: it is read again, from the log, once the view can be written.
            warn!(projection = self.wiring.name, error = chain(&trouble), "tries again");
            self.leave();
            (self.position, self.time) = self.keeper.checkpoint();
            if self.position > before {
                pause = PAUSES.0;
            }
            self.report(ConsumerState::Retrying, Some(Arc::new(trouble)));
            if self.pause(pause).await {
                return Ok(());
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Catches up and goes live, again and again, until the app stops it.
    async fn follow(&mut self) -> Result<(), Interrupt> {
        loop {
            if let Step::Stop = self.catch_up(None).await? {
                return Ok(());
            }
            if let Step::Stop = self.live().await? {
                return Ok(());
            }
        }
    }

    /// Reads the log until it is level with the rings and has joined them, or up to `last`.
    async fn catch_up(&mut self, last: Option<Position>) -> Result<Step, Interrupt> {
        self.report(ConsumerState::CatchingUp, None);
        let mut pause = PAUSES.0;
        let store = Arc::clone(self.wiring.decoder.store());
        let page = if self.role.is_shadow() { rebuild::PAGE } else { PAGE };
        let mut ahead = ReadAhead::new(store, self.filter.clone(), page);
        loop {
            let head = *self.wiring.head.borrow();
            let end = last.unwrap_or(head.position);
            self.level_with(&head);
            if self.position >= end {
                if last.is_some() || self.join() {
                    return Ok(Step::Level);
                }
            } else {
                let page = match ahead.page(self.position, end).await {
                    Ok(page) => page,
                    Err(error) if !self.role.insists() => return Err(Trouble::Log(error).into()),
                    Err(error) => {
                        warn!(
                            projection = self.wiring.name,
                            error = chain(&error),
                            "the log cannot be read"
                        );
                        self.report(ConsumerState::Retrying, Some(Arc::new(Trouble::Log(error))));
                        if self.pause(pause).await {
                            return Ok(Step::Stop);
                        }
                        pause = (pause * 2).min(PAUSES.1);
                        continue;
                    }
                };
                pause = PAUSES.0;
                self.fold_page(&page, end).await?;
                self.report(ConsumerState::CatchingUp, None);
            }
            if self.must_stop() {
                return Ok(Step::Stop);
            }
            if last.is_none() || self.role.is_shadow() {
                self.attend().await?;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn fold_page(&mut self, page: &Page, end: Position) -> Result<(), Interrupt> {
        // Beyond `end` the store may hold what the sequencer has not published yet; that comes through the rings.
        let through = page.through.min(end);
        let known = page.events.partition_point(|event| event.header.position <= through);
        let events = page.events.get(..known).unwrap_or_default();
        let mut rest = events;
        loop {
            let (now, later) = rest.split_at(rest.len().min(self.keeper.chunk()));
            rest = later;
            let through = match later.first() {
                Some(next) => before(next.header.position),
                None => through,
            };
            self.free().await;
            let (sources, routes) = (&self.sources, &self.routes);
            let (shelf, replayed) = (&self.wiring.clerk.shelf, self.keeper.replayed());
            let wiring = &self.wiring;
            let chunk = self.keeper.keep(&mut |target| {
                let sorting = Sorting::new(shelf, replayed, wiring);
                let mut chunk = Chunk::up_to(through);
                for recorded in now {
                    let source = routes.get(&*recorded.header.name).and_then(|i| sources.get(*i));
                    match source {
                        Some(source) => {
                            source.fold_recorded(target, recorded, &sorting, &mut chunk);
                        }
                        None => source::pass_unknown(sources, recorded, &sorting, &mut chunk),
                    }
                    if chunk.failure.is_some() {
                        chunk.through = before(recorded.header.position);
                        break;
                    }
                }
                chunk
            });
            self.kept(chunk)?;
            if rest.is_empty() {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits until no reader holds the view; others on the same thread go on meanwhile.
    async fn free(&self) {
        while !self.keeper.is_free() && *self.wiring.stopping.borrow() != Stopping::Now {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Takes note of what was folded.
    fn kept(
        &mut self,
        chunk: Result<Chunk, Box<dyn Error + Send + Sync>>,
    ) -> Result<(), Interrupt> {
        let chunk = chunk.map_err(Trouble::View)?;
        if chunk.ended {
            return Err(Trouble::EndedTransaction.into());
        }
        let shelf = Arc::clone(&self.wiring.clerk.shelf);
        let before = (!chunk.changes.is_empty()).then(|| shelf.read().count().1);
        shelf.apply(chunk.changes);
        if let Some(failure) = chunk.failure {
            (self.position, self.time) = self.keeper.checkpoint();
            // What can be taken back was taken back, and is not counted: it is folded again.
            if self.position >= chunk.through {
                self.wiring.gauge.count(chunk.handled);
                self.wiring.gauge.ignore(chunk.ignored);
            }
            return Err(Interrupt::Failed(failure));
        }
        self.wiring.gauge.count(chunk.handled);
        self.wiring.gauge.ignore(chunk.ignored);
        self.position = self.position.max(chunk.through);
        self.time = self.time.max(chunk.time.unwrap_or_default());
        let Some(before) = before else {
            return Ok(());
        };
        let shelved = shelf.read();
        let (keys, letters) = shelved.count();
        // What is tried or decided meanwhile makes room, or needs none.
        if letters <= before || !shelved.is_full(usize::MAX, false, 0) {
            return Ok(());
        }
        let source = "too many events wait behind a parked key".into();
        Err(Trouble::TooManyParked { keys, letters, source }.into())
    }

    /// Joins all rings behind the current position, or none.
    fn join(&mut self) -> bool {
        let position = self.position;
        if self.sources.iter_mut().all(|source| source.join(position)) {
            return true;
        }
        self.leave();
        false
    }

    fn leave(&mut self) {
        self.sources.iter_mut().for_each(|source| source.leave());
    }

    /// Folds what is published, as it is published.
    async fn live(&mut self) -> Result<Step, Interrupt> {
        self.report(ConsumerState::Live, None);
        loop {
            self.attend().await?;
            let head = *self.wiring.head.borrow_and_update();
            while self.position < head.position {
                self.attend().await?;
                self.free().await;
                if let Step::Behind = self.fold_live(head.position)? {
                    self.leave();
                    return Ok(Step::Behind);
                }
                self.level_with(&head);
                self.report(ConsumerState::Live, None);
                if *self.wiring.stopping.borrow() == Stopping::Now {
                    return Ok(Step::Stop);
                }
                tokio::task::yield_now().await;
            }
            self.switch_if_due().await;
            if self.must_stop() {
                return Ok(Step::Stop);
            }
            let head = &mut self.wiring.head;
            let moves = async {
                // Without a sequencer nothing more comes; letters are attended to all the same.
                if head.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let told = tokio::select! {
                () = moves => Ok(()),
                told = self.wiring.stopping.changed() => told,
                () = letters(&mut self.wiring.clerk, self.position) => Ok(()),
                () = self.role.shadow() => Ok(()),
            };
            if told.is_err() {
                // There is nobody left who could tell it to end.
                return Ok(Step::Stop);
            }
        }
    }

    /// Folds a chunk of what the rings hold up to `head`, merged in commit order.
    fn fold_live(&mut self, head: Position) -> Result<Step, Interrupt> {
        let _span = debug_span!(telemetry::FOLD, projection = self.wiring.name).entered();
        let (sources, position) = (&mut self.sources, self.position);
        let (shelf, replayed) = (&self.wiring.clerk.shelf, self.keeper.replayed());
        let wiring = &self.wiring;
        let mut behind = false;
        let chunk_size = self.keeper.chunk();
        let chunk = self.keeper.keep(&mut |target| {
            let sorting = Sorting::new(shelf, replayed, wiring);
            let mut chunk = Chunk::up_to(position);
            let mut room = chunk_size;
            while room > 0 && chunk.failure.is_none() {
                match earliest(sources, head) {
                    Earliest::Lagged => {
                        behind = true;
                        break;
                    }
                    Earliest::None => {
                        chunk.through = head;
                        break;
                    }
                    Earliest::Source { index, until } => {
                        if let Some(source) = sources.get_mut(index) {
                            source.fold_live(target, until, &sorting, &mut room, &mut chunk);
                        }
                    }
                }
            }
            chunk
        });
        self.kept(chunk)?;
        Ok(if behind { Step::Behind } else { Step::Level })
    }

    /// Whether the app wants it to end here.
    fn must_stop(&self) -> bool {
        match *self.wiring.stopping.borrow() {
            Stopping::No => false,
            Stopping::WhenLevel => self.position >= self.wiring.head.borrow().position,
            Stopping::Now => true,
        }
    }

    /// Waits; true if the app wants it to end.
    async fn pause(&mut self, pause: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(pause) => false,
            _ = self.wiring.stopping.wait_for(|stopping| *stopping != Stopping::No) => true,
        }
    }

    /// Takes note of the time that it is level with, if it is: events that are not for it are passed as well.
    fn level_with(&mut self, head: &Head) {
        if self.position >= head.position {
            self.time = self.time.max(head.time);
        }
    }

    fn report(&self, state: ConsumerState, trouble: Option<Arc<Trouble>>) {
        if let Role::Shadow(job) = &self.role {
            return job.show(self.position);
        }
        let at = self.wiring.clock.now();
        self.wiring.progress.send_modify(|progress| {
            (progress.position, progress.time) = (self.position, self.time);
            (progress.state, progress.at, progress.trouble) = (state, at, trouble);
        });
    }
}

/// Which source holds the earliest event up to `head`.
enum Earliest {
    /// One has been overtaken by its ring: what it missed may be earlier than what the others show.
    Lagged,
    None,
    Source {
        index: usize,
        /// The last position before another source's earliest event.
        until: Position,
    },
}

fn earliest<T>(sources: &mut [Box<dyn Source<T>>], head: Position) -> Earliest {
    let (mut first, mut until) = (None, head);
    for (index, source) in sources.iter_mut().enumerate() {
        let position = match source.peek() {
            Peek::Lagged => return Earliest::Lagged,
            Peek::Empty => continue,
            Peek::Next(position) if position > head => continue,
            Peek::Next(position) => position,
        };
        match first {
            Some((_, earlier)) if earlier < position => until = until.min(before(position)),
            Some((_, later)) => {
                until = until.min(before(later));
                first = Some((index, position));
            }
            None => first = Some((index, position)),
        }
    }
    match first {
        Some((index, _)) => Earliest::Source { index, until },
        None => Earliest::None,
    }
}

pub(crate) fn before(position: Position) -> Position {
    Position::new(position.as_u64().saturating_sub(1))
}
