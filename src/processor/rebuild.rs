//! Building a view anew beside the one that serves.
//!
//! ```text
//!  thread of the rebuild                    actor of the projection
//!  shadow: folds the log from its start     folds what is new into the view that is read
//!     └─ level with the head ── hands over ─▶ goes on until it is no earlier than the shadow
//!                                             folds the shadow up to its own position
//!                                             puts it in the place of the view, and goes on
//! ```
//!
//! A shadow is a processor that reads the log only and whose keeper nobody reads. Only the projection's own processor ever
//! changes the view that is read. The thread has the least priority where the system knows one for threads: a rebuild takes
//! the time that nobody else wants.
//!
//! # Handlers that are live-only
//! They do not run in a shadow: the view that serves meanwhile runs them for each event. What of theirs is parked stays parked
//! when the views are switched.
//!
//! # Decisions about letters
//! A shadow folds what people have decided. What they decide while it is built is carried over when the views are switched; if it
//! is about an event that the shadow has folded otherwise, the rebuild ends with an error.

mod as_of;

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

pub(crate) use self::as_of::FoldedView;
use super::gauge::Gauge;
use super::{
    ConsumerState, Interrupt, Keeper, PAUSES, Processor, Progress, Sources, Step, Stopping,
    Trouble, Wiring,
};
use crate::clock::Clock;
use crate::event::Recorded;
use crate::letters::desk::{ConsumerLetters, LetterError, What};
use crate::letters::shelf::{Change, Shelf, Shelved};
use crate::letters::{Letter, LetterState, ResolutionKind};
use crate::retry::FailurePolicy;
use crate::sequencer::Head;
use crate::store::{Decoder, Filter};
use crate::stream::Position;
use crate::telemetry::chain;

/// How many positions before the head a shadow is handed over: the view that serves waits while so many are folded, some
/// milliseconds.
const NEAR: u64 = 2_048;

/// How many events a shadow reads from the log at a time. Nobody waits for it, so its chunks may be larger.
pub(super) const PAGE: usize = 8_192;

/// How far a rebuild has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RebuildProgress {
    /// Every event up to here is folded.
    pub position: Position,
    /// The end of the log.
    pub head: Position,
    /// How many positions of the log it passes in a second, since it began.
    pub rate: u64,
    /// How long it will take until it is level if it goes on so; none before that can be said.
    pub eta: Option<Duration>,
}

/// A view that was built anew and is the one that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rebuilt {
    /// Where the views were switched.
    pub position: Position,
    /// How many positions of the log were passed.
    pub passed: u64,
    /// How long it took, the switch included.
    pub took: Duration,
}

/// Why a view was not built anew. The one that was there is still read, and goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// The app has no such projection.
    #[error("projection {0} is not part of this app: give it to `App::builder().projection(…)`")]
    Unknown(&'static str),
    /// It is being built anew already.
    #[error("projection {0} is being rebuilt already: wait for that, or cancel it")]
    Busy(&'static str),
    /// It was cancelled.
    #[error("the rebuild of projection {0} was cancelled")]
    Cancelled(&'static str),
    /// It met what it may not pass: an event that cannot be handled, and the projection stops at such or has too many of them.
    #[error("the rebuild of projection {name} ended at position {position}")]
    Stopped {
        /// The projection's name.
        name: &'static str,
        /// Every event up to here was folded.
        position: Position,
        /// What it met.
        #[source]
        trouble: Arc<Trouble>,
    },
    /// While it ran, a person has decided about an event that it had folded otherwise.
    #[error(
        "a letter at position {position} was decided about while projection {name} was rebuilt: begin again"
    )]
    Decided {
        /// The projection's name.
        name: &'static str,
        /// The event's place in the log.
        position: Position,
    },
    /// There is no view of this version to go back to.
    #[error("projection {0} has no older view of its version: rebuild it with `.keep_old()` first")]
    NothingKept(&'static str),
    /// The view cannot be opened, or not be put in the place of the other.
    #[error("the rebuilt view of projection {name} cannot be used")]
    View {
        /// The projection's name.
        name: &'static str,
        /// What is wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The projection has stopped, or the app was shut down.
    #[error("projection {0} has stopped: start the app again and rebuild it then")]
    Ended(&'static str),
}

/// What becomes of the view that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Old {
    Drop,
    Keep,
}

/// The same, when its time has come.
pub(crate) enum Replaced {
    Dropped,
    /// With these letters.
    Kept(Vec<Change>),
}

/// Who a processor is.
pub(super) enum Role<K: Keeper> {
    /// It keeps the view that is read.
    Own(Own<K>),
    /// It builds one that may take its place.
    Shadow(Job),
}

/// What the processor of a view knows of rebuilds.
pub(super) struct Own<K: Keeper> {
    handovers: Option<mpsc::Receiver<Box<Processor<K>>>>,
    /// A shadow that waits to be no later than the view.
    shadow: Option<Box<Processor<K>>>,
    /// The view was folded by another version of the program: it is read, and folded no further.
    outdated: bool,
}

impl<K: Keeper> Default for Own<K> {
    fn default() -> Self {
        Self { handovers: None, shadow: None, outdated: false }
    }
}

impl<K: Keeper> Role<K> {
    /// Waits for a shadow.
    ///
    /// # Cancel safety
    /// None is lost.
    pub(super) async fn shadow(&mut self) {
        if let Self::Own(Own { handovers: Some(handovers), shadow, .. }) = self
            && shadow.is_none()
            && let Some(handed) = handovers.recv().await
        {
            *shadow = Some(handed);
            return;
        }
        std::future::pending().await
    }

    pub(super) fn is_shadow(&self) -> bool {
        matches!(self, Self::Shadow(_))
    }

    /// Whether it goes on once the log can be read and the view be written again, rather than end.
    pub(super) fn insists(&self) -> bool {
        !matches!(self, Self::Shadow(Job { insists: false, .. }))
    }

    pub(super) fn is_outdated(&self) -> bool {
        matches!(self, Self::Own(Own { outdated: true, .. }))
    }

    /// Takes the shadow whose time has come, if the view stands at `position`.
    fn take(&mut self, position: Position) -> Option<Box<Processor<K>>> {
        let Self::Own(Own { handovers, shadow, outdated }) = self else {
            return None;
        };
        if shadow.is_none() {
            *shadow = handovers.as_mut().and_then(|handovers| handovers.try_recv().ok());
        }
        // A view that is not folded any further has nothing to run for the events in between.
        shadow.take_if(|shadow| *outdated || shadow.position <= position)
    }
}

/// One rebuild, for those who ordered it.
pub(super) struct Job {
    name: &'static str,
    old: Old,
    begun: Instant,
    from: Position,
    head: watch::Receiver<Head>,
    shown: watch::Sender<RebuildProgress>,
    /// Gone when the processor has ended, by whatever way.
    progress: Weak<watch::Sender<Progress>>,
    cancelled: watch::Receiver<bool>,
    busy: Arc<AtomicBool>,
    outcome: Option<oneshot::Sender<Result<Rebuilt, RebuildError>>>,
    /// Whether it goes on once the log can be read and the shadow be written again, rather than end with an error.
    insists: bool,
}

impl Job {
    pub(super) fn show(&self, position: Position) {
        let (head, passed) = (self.head.borrow().position, self.from.behind(position));
        let elapsed = self.begun.elapsed();
        let rate = (passed as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
        let left = position.behind(head);
        let eta = (rate > 0).then(|| Duration::from_millis(left.saturating_mul(1_000) / rate));
        let shown = RebuildProgress { position, head, rate, eta };
        self.shown.send_replace(shown);
        tell(&self.progress, |progress| progress.rebuild = Some(shown));
    }

    fn is_cancelled(&self) -> bool {
        *self.cancelled.borrow()
    }

    fn end(mut self, outcome: Result<Rebuilt, RebuildError>) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Result<Rebuilt, RebuildError>) {
        let Some(reply) = self.outcome.take() else {
            return;
        };
        tell(&self.progress, |progress| {
            progress.rebuild = None;
            if let (true, Err(error)) = (progress.outdated, &outcome) {
                progress.state = ConsumerState::Stopped;
                progress.trouble = match error {
                    RebuildError::Stopped { trouble, .. } => Some(Arc::clone(trouble)),
                    _ => None,
                };
            }
        });
        match &outcome {
            Ok(Rebuilt { position, took, .. }) => {
                info!(projection = self.name, %position, ?took, "the rebuilt view is read");
            }
            Err(RebuildError::Cancelled(_) | RebuildError::Ended(_)) => {
                info!(projection = self.name, "the rebuild is given up");
            }
            Err(error) => {
                error!(projection = self.name, error = chain(error), "the rebuild has failed");
            }
        }
        self.busy.store(false, Ordering::Release);
        // Whoever ordered it may have gone away.
        let _ = reply.send(outcome);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.settle(Err(RebuildError::Ended(self.name)));
    }
}

/// A rebuild that has begun.
#[derive(Debug)]
pub struct Begun {
    pub(crate) progress: watch::Receiver<RebuildProgress>,
    pub(crate) cancel: Arc<watch::Sender<bool>>,
    pub(crate) outcome: oneshot::Receiver<Result<Rebuilt, RebuildError>>,
}

/// The threads of rebuilds, which the app joins when it ends.
#[derive(Clone, Default)]
pub(crate) struct Crew(Arc<Mutex<Vec<JoinHandle<()>>>>);

impl Crew {
    /// Joins all threads; no more are started when the app is stopping.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut *self.0.lock());
        for thread in threads {
            if thread.join().is_err() {
                error!("the thread of a rebuild panicked");
            }
        }
    }
}

/// What a shadow begins with.
pub(crate) struct Shadow<K: Keeper> {
    pub(crate) keeper: K,
    pub(crate) sources: Sources<K::Target>,
    pub(crate) shelf: Arc<Shelf>,
}

/// Where shadows of one projection are built.
pub(crate) struct Workshop<K: Keeper> {
    pub(crate) name: &'static str,
    pub(crate) decoder: Decoder,
    pub(crate) head: watch::Receiver<Head>,
    pub(crate) stopping: watch::Receiver<Stopping>,
    pub(crate) progress: Weak<watch::Sender<Progress>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: FailurePolicy,
    gauge: Arc<Gauge>,
    /// The letters of the view that is read.
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) crew: Crew,
    handovers: mpsc::Sender<Box<Processor<K>>>,
    busy: Arc<AtomicBool>,
    /// Ends the rebuild that runs.
    cancel: Mutex<Arc<watch::Sender<bool>>>,
}

impl<K: Keeper> Workshop<K> {
    /// The workshop of a processor, which hears of shadows from now on.
    pub(crate) fn of(processor: &mut Processor<K>, crew: Crew, outdated: bool) -> Self {
        let (handovers, receiver) = mpsc::channel(1);
        processor.role = Role::Own(Own { handovers: Some(receiver), shadow: None, outdated });
        let wiring = &processor.wiring;
        Self {
            name: wiring.name,
            decoder: wiring.decoder.clone(),
            head: wiring.head.clone(),
            stopping: wiring.stopping.clone(),
            progress: Arc::downgrade(&wiring.progress),
            clock: Arc::clone(&wiring.clock),
            policy: wiring.policy,
            gauge: Arc::clone(&wiring.gauge),
            shelf: Arc::clone(&wiring.clerk.shelf),
            crew,
            handovers,
            busy: Arc::default(),
            cancel: Mutex::new(Arc::new(watch::Sender::new(false))),
        }
    }

    /// Whether the view that is read was folded by another version of the program.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_outdated(&self) -> bool {
        self.gauge.watch().borrow().outdated
    }

    /// Ends the rebuild that runs; false if none does.
    pub(crate) fn cancel(&self) -> bool {
        let busy = self.busy.load(Ordering::Acquire);
        if busy {
            self.cancel.lock().send_replace(true);
        }
        busy
    }

    /// Builds a shadow on a thread of its own. `make` is called there.
    pub(crate) fn begin(
        &self,
        old: Old,
        make: impl FnOnce() -> Result<Shadow<K>, RebuildError> + Send + 'static,
    ) -> Result<Begun, RebuildError> {
        let name = self.name;
        let mut threads = self.crew.0.lock();
        if self.handovers.is_closed() || *self.stopping.borrow() != Stopping::No {
            return Err(RebuildError::Ended(name));
        }
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(RebuildError::Busy(name));
        }
        let head = self.head.borrow().position;
        let position = Position::START;
        let (shown, progress) =
            watch::channel(RebuildProgress { position, head, rate: 0, eta: None });
        let (outcome, outcome_receiver) = oneshot::channel();
        let cancel = Arc::new(watch::Sender::new(false));
        *self.cancel.lock() = Arc::clone(&cancel);
        let mut job = Job {
            name,
            old,
            begun: Instant::now(),
            from: Position::START,
            head: self.head.clone(),
            shown,
            progress: Weak::clone(&self.progress),
            cancelled: cancel.subscribe(),
            busy: Arc::clone(&self.busy),
            outcome: Some(outcome),
            insists: true,
        };
        tell(&self.progress, |progress| {
            progress.rebuild = Some(*job.shown.borrow());
            if progress.outdated {
                progress.state = ConsumerState::Rebuilding;
                progress.trouble = None;
            }
        });
        let (shelf, handovers) = (Arc::clone(&self.shelf), self.handovers.clone());
        let (decoder, clock, policy) = (self.decoder.clone(), Arc::clone(&self.clock), self.policy);
        let (head, stopping) = (self.head.clone(), self.stopping.clone());
        let (unread, gauge) = (self.gauge.watch().borrow().clone(), Arc::clone(&self.gauge));
        let work = move || {
            lower_priority();
            let shadow = match make() {
                Ok(shadow) => shadow,
                Err(error) => return job.end(Err(error)),
            };
            // Nobody gives orders about the letters of a shadow.
            let shelf_of_shadow = Arc::clone(&shadow.shelf);
            let (_, clerk) = ConsumerLetters::new(name, shadow.shelf, Arc::clone(decoder.store()));
            let progress = Arc::new(watch::Sender::new(unread));
            let gauge = Arc::new(gauge.of_shadow(progress.subscribe(), shelf_of_shadow));
            let wiring =
                Wiring { name, decoder, head, stopping, progress, gauge, clock, policy, clerk };
            let mut shadow = Box::new(Processor::new(shadow.keeper, shadow.sources, wiring));
            job.from = shadow.position;
            shadow.role = Role::Shadow(job);
            shadow.build_and_hand_over(&shelf, &handovers);
        };
        let thread = std::thread::Builder::new().name("tidings-rebuild".into()).spawn(work);
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => return Err(RebuildError::View { name, source: error.into() }),
        }
        threads.retain(|thread| !thread.is_finished());
        info!(projection = name, "a rebuild begins");
        Ok(Begun { progress, cancel, outcome: outcome_receiver })
    }
}

impl<K: Keeper> Processor<K> {
    /// The life of a shadow, on a thread of its own.
    fn build_and_hand_over(
        mut self: Box<Self>,
        shelf: &Shelf,
        handovers: &mpsc::Sender<Box<Processor<K>>>,
    ) {
        let name = self.wiring.name;
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return self.end(Err(RebuildError::View { name, source: error.into() })),
        };
        runtime.block_on(async move {
            let mut stopping = self.wiring.stopping.clone();
            let cancelled = match &self.role {
                Role::Shadow(job) => job.cancelled.clone(),
                Role::Own(_) => return,
            };
            let built = tokio::select! {
                biased;
                () = is_true(cancelled) => Err(RebuildError::Cancelled(name)),
                _ = stopping.wait_for(|stopping| *stopping != Stopping::No) => {
                    Err(RebuildError::Ended(name))
                }
                built = self.build(shelf) => built,
            };
            match built {
                // If the projection has ended meanwhile, the shadow comes back and is dropped, which says so.
                Ok(()) => drop(handovers.send(self).await),
                Err(error) => self.end(Err(error)),
            }
        });
    }

    /// Folds the log until the head is near and nothing is to be tried again.
    async fn build(&mut self, shelf: &Shelf) -> Result<(), RebuildError> {
        loop {
            self.adopt(shelf)?;
            let head = self.wiring.head.borrow().position;
            self.fold_to(head).await?;
            let head = self.wiring.head.borrow().position;
            if self.position.behind(head) > NEAR {
                continue;
            }
            let due = {
                let shelved = self.wiring.clerk.shelf.read();
                shelved.next_due(self.position, |_| true).map(|(due, _)| due)
            };
            if due.is_none() {
                return Ok(());
            }
            self.wiring.clerk.wait(due).await;
            self.attend_shadow().await?;
        }
    }

    /// Folds the log up to `last`, whatever it takes.
    async fn fold_to(&mut self, last: Position) -> Result<(), RebuildError> {
        let name = self.wiring.name;
        let mut pause = PAUSES.0;
        loop {
            let mut folded = self.fold_rings_or_log(last).await;
            while let Err(Interrupt::Failed(failure)) = folded {
                folded = match self.put_aside(failure).await {
                    Ok(Step::Stop) => Ok(Step::Stop),
                    Ok(_) => self.fold_rings_or_log(last).await,
                    Err(interrupt) => Err(interrupt),
                };
            }
            let trouble = match folded {
                Ok(Step::Stop) if self.position < last => return Err(RebuildError::Ended(name)),
                Ok(_) => return Ok(()),
                Err(Interrupt::Trouble(trouble @ Trouble::View(_))) if self.role.insists() => {
                    trouble
                }
                Err(interrupt) => return Err(self.stopped(interrupt)),
            };
            // Nothing of the chunk was kept: it is read again once the shadow can be written.
            warn!(projection = name, error = chain(&trouble), "the rebuild tries again");
            (self.position, self.time) = self.keeper.checkpoint();
            if self.pause(pause).await {
                return Err(RebuildError::Ended(name));
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Takes the short way where the topics are known, as they are to a shadow that is about to be used.
    async fn fold_rings_or_log(&mut self, last: Position) -> Result<Step, Interrupt> {
        if self.position < last && self.join() {
            while self.position < last {
                if let Step::Behind = self.fold_live(last)? {
                    break;
                }
                tokio::task::yield_now().await;
            }
            self.leave();
        }
        self.catch_up(Some(last)).await
    }

    async fn attend_shadow(&mut self) -> Result<(), RebuildError> {
        match self.attend().await {
            Ok(()) => Ok(()),
            Err(interrupt) => Err(self.stopped(interrupt)),
        }
    }

    fn stopped(&self, interrupt: Interrupt) -> RebuildError {
        let trouble = match interrupt {
            Interrupt::Trouble(trouble) => trouble,
            Interrupt::Failed(failure) => (*failure).into(),
        };
        let (name, position) = (self.wiring.name, self.position);
        RebuildError::Stopped { name, position, trouble: Arc::new(trouble) }
    }

    /// Brings over what people have decided about the letters on `shelf`, and what was handled there lets it try again.
    fn adopt(&mut self, shelf: &Shelf) -> Result<(), RebuildError> {
        let name = self.wiring.name;
        let mut changes = Vec::new();
        {
            let (theirs, ours) = (shelf.read().resolutions(), self.wiring.clerk.shelf.read());
            for resolution in theirs {
                let position = resolution.position;
                if ours.resolution(position) == Some(&resolution) {
                    continue;
                }
                match (ours.at(position).cloned(), &resolution.kind) {
                    (None, _) if position > self.position => {}
                    (None, _) => return Err(RebuildError::Decided { name, position }),
                    (Some(letter), ResolutionKind::Discarded { .. }) => {
                        changes.push(Change::Remove(letter.key, position));
                    }
                    (Some(mut letter), ResolutionKind::Edited { payload }) => {
                        letter.edited = Some(Arc::clone(payload));
                        letter.state = LetterState::Waiting;
                        changes.push(Change::Put(Box::new(letter)));
                    }
                }
                changes.push(Change::Resolve(resolution));
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let position = self.position;
        let chunk = self.keeper.keep(&mut |_| super::Chunk {
            changes: std::mem::take(&mut changes),
            ..super::Chunk::up_to(position)
        });
        self.kept(chunk).map_err(|interrupt| self.stopped(interrupt))
    }

    /// Brings a shadow to `position`, and to what has been decided and handled about the letters on `shelf`.
    async fn draw_level(&mut self, position: Position, shelf: &Shelf) -> Result<(), RebuildError> {
        self.adopt(shelf)?;
        self.fold_to(position).await?;
        let firsts: Vec<_> = {
            let ours = self.wiring.clerk.shelf.read();
            ours.firsts().map(|letter| (Arc::clone(&letter.key), letter.position)).collect()
        };
        for (key, position) in firsts {
            if shelf.read().at(position).is_none() {
                // The view has handled it.
                self.wiring.clerk.shelf.read().set_due(&key, Some(Instant::now()));
            }
        }
        loop {
            let due = {
                let shelved = self.wiring.clerk.shelf.read();
                let next = shelved.next_due(self.position, |_| true);
                next.map(|(due, _)| due).filter(|due| *due <= Instant::now())
            };
            if due.is_none() {
                return Ok(());
            }
            self.attend_shadow().await?;
        }
    }

    /// The end of a shadow.
    fn end(mut self: Box<Self>, outcome: Result<Rebuilt, RebuildError>) {
        let role = std::mem::replace(&mut self.role, Role::Own(Own::default()));
        // First: where it was kept is free when others hear of the end.
        drop(self);
        if let Role::Shadow(job) = role {
            job.end(outcome);
        }
    }

    /// Puts a shadow in the place of the view, if one waits and its time has come.
    pub(super) async fn switch_if_due(&mut self) {
        let Some(mut shadow) = self.role.take(self.position) else {
            return;
        };
        let position = self.position.max(shadow.position);
        let shelf = Arc::clone(&self.wiring.clerk.shelf);
        // Those of the shadow know no topic. Where it takes these out of the rings, the view joins them again afterwards.
        std::mem::swap(&mut self.sources, &mut shadow.sources);
        let levelling: Pin<Box<dyn Future<Output = _> + '_>> =
            Box::pin(shadow.draw_level(position, &shelf));
        let leveled = levelling.await;
        std::mem::swap(&mut self.sources, &mut shadow.sources);
        self.free().await;
        let switched = leveled.and_then(|()| self.switch(&mut shadow));
        shadow.end(switched);
    }

    fn switch(&mut self, shadow: &mut Self) -> Result<Rebuilt, RebuildError> {
        let name = self.wiring.name;
        let Role::Shadow(job) = &shadow.role else {
            return Err(RebuildError::Ended(name));
        };
        if job.is_cancelled() {
            return Err(RebuildError::Cancelled(name));
        }
        let shelved = self.letters_after(shadow);
        let replaced = match job.old {
            Old::Drop => Replaced::Dropped,
            Old::Keep => Replaced::Kept(self.wiring.clerk.shelf.read().all()),
        };
        let at = (shadow.position, shadow.time);
        self.keeper
            .install(&mut shadow.keeper, at, &shelved.all(), replaced)
            .map_err(|source| RebuildError::View { name, source })?;
        self.wiring.clerk.shelf.replace(shelved);
        self.wiring.clerk.settle();
        (self.position, self.time) = at;
        if let Role::Own(own) = &mut self.role {
            own.outdated = false;
        }
        self.wiring.progress.send_modify(|progress| {
            (progress.position, progress.time) = at;
            progress.outdated = false;
        });
        let (passed, took) = (job.from.behind(shadow.position), job.begun.elapsed());
        Ok(Rebuilt { position: shadow.position, passed, took })
    }

    /// The letters of a shadow, and those of events that it does not handle since their handlers are live-only.
    fn letters_after(&self, shadow: &Self) -> Shelved {
        let mut shelved = std::mem::take(&mut *shadow.wiring.clerk.shelf.read());
        let letters = self.wiring.clerk.shelf.read().list();
        for letter in letters {
            if self.is_live_only(&letter) && shelved.at(letter.position).is_none() {
                shelved.apply(Change::Put(Box::new(letter)));
            }
        }
        shelved
    }

    /// Whether the letter's event is not handled in a replay. If its name does not tell, it is read; one that the log does not give is
    /// kept.
    fn is_live_only(&self, letter: &Letter) -> bool {
        let source = self.routes.get(&*letter.event).and_then(|i| self.sources.get(*i));
        let Some(source) = source else { return false };
        source.is_live_only(&letter.event).unwrap_or_else(|| {
            let before = Position::new(letter.position.as_u64().saturating_sub(1));
            let page = self.wiring.decoder.store().read_log(before, &Filter::All, 1);
            let event = page.ok().and_then(|page| page.events.into_iter().next());
            event.is_none_or(|event| {
                let event = match &letter.edited {
                    Some(payload) => Recorded::edited(&event.header, Arc::clone(payload)),
                    None => event,
                };
                source.is_event_live_only(&event, &self.wiring.decoder)
            })
        })
    }

    /// Stands still until there is a view to fold into, or the app stops it.
    pub(super) async fn wait_for_view(&mut self) -> Step {
        while self.role.is_outdated() {
            if *self.wiring.stopping.borrow() != Stopping::No {
                return Step::Stop;
            }
            while let Some(order) = self.wiring.clerk.next_order() {
                let position = match &order.what {
                    What::Edit(position, _) | What::Discard(position, _) => *position,
                    What::Retry(key) => {
                        let shelved = self.wiring.clerk.shelf.read();
                        shelved.first(key).map_or(self.position, |letter| letter.position)
                    }
                };
                let consumer = self.wiring.name;
                // Whoever gave the order may have gone away.
                let _ = order.reply.send(Err(LetterError::NotReached { consumer, position }));
            }
            self.switch_if_due().await;
            if !self.role.is_outdated() {
                break;
            }
            tokio::select! {
                stopping = self.wiring.stopping.changed() => if stopping.is_err() {
                    return Step::Stop;
                },
                () = self.role.shadow() => {}
                () = self.wiring.clerk.wait(None) => {}
            }
        }
        Step::Behind
    }
}

fn tell(progress: &Weak<watch::Sender<Progress>>, what: impl FnOnce(&mut Progress)) {
    if let Some(progress) = progress.upgrade() {
        progress.send_modify(what);
    }
}

/// Waits until it is true; for ever if nobody can say so any more.
async fn is_true(mut told: watch::Receiver<bool>) {
    if told.wait_for(|told| *told).await.is_err() {
        std::future::pending().await
    }
}

/// Lets everybody else go first, where threads have priorities of their own. The threads that it starts inherit it.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        warn!(error = &io::Error::from(error) as &dyn Error, "a rebuild runs with full priority");
    }
}
