//! What a shard has done on threads that are made for waiting: loading aggregates, looking up command ids, writing snapshots.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Aggregate;
use super::snapshot::{Due, Keeper, Loaded, Since};
use crate::actor::Panic;
use crate::event::DecodeError;
use crate::id::CommandId;
use crate::retry::UnknownEvents;
use crate::store::{Decoder, KnownCommand, Snapshot, StoreError};
use crate::stream::{StreamId, Version};

/// How many events of one stream are loaded before the others get their turn, the first time. Each time it is twice as many, up
/// to 64 times: a store that looks for the next event from the end of the stream looks past all those that are left.
const STRETCH: usize = 1_000;
const LONGEST: usize = 64 * STRETCH;

/// How many threads of a shard wait at a time; each holds a reader of the store, and SQLite keeps this many unless told
/// otherwise. A stream whose reading hangs takes one of them; the others go on.
const THREADS: usize = 4;

/// How many snapshots are written before the others get their turn.
const SAVED: usize = 256;

/// An aggregate with the version that its state is folded up to.
pub(super) struct Live<A> {
    pub(super) aggregate: A,
    pub(super) version: Version,
    /// Counted only if it has snapshots.
    pub(super) since: Since,
    /// How many unknown events were passed over while it was loaded.
    pub(super) ignored: u64,
}

/// What is wanted for one stream.
pub(super) struct Wanted {
    pub(super) stream: StreamId,
    pub(super) load: bool,
    pub(super) ids: Vec<CommandId>,
}

/// What an errand reports.
pub(super) enum Report<A> {
    Found(Found<A>),
    /// The snapshots are written, or could not be.
    Saved,
}

/// What came of it.
pub(super) struct Found<A> {
    pub(super) stream: StreamId,
    pub(super) result: Result<Findings<A>, LoadError>,
}

pub(super) struct Findings<A> {
    /// The aggregate, if it was to be loaded.
    pub(super) live: Option<Live<A>>,
    /// A snapshot of it, if one is due. The shard has it written, after those that it has asked for before.
    pub(super) snapshot: Option<Snapshot>,
    /// The ids that were looked up, each with what the log knows of it.
    pub(super) ids: Vec<(CommandId, Option<KnownCommand>)>,
}

/// Why an aggregate could not be loaded.
#[derive(Debug, Clone)]
pub(super) enum LoadError {
    Unreadable { version: Version, source: Arc<DecodeError> },
    Panicked(Panic),
    Store(Arc<StoreError>),
}

impl From<StoreError> for LoadError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// What a shard wants to be done, and the threads that do it.
pub(super) struct Errands<A> {
    office: Office<A>,
    board: Arc<Mutex<Board<A>>>,
    reports: mpsc::Sender<Report<A>>,
}

/// What is needed to do an errand.
struct Office<A> {
    decoder: Decoder,
    /// None if the aggregate has no snapshots.
    keeper: Option<Keeper<A>>,
}

impl<A> Clone for Office<A> {
    fn clone(&self) -> Self {
        Self { decoder: self.decoder.clone(), keeper: self.keeper.clone() }
    }
}

struct Board<A> {
    errands: VecDeque<Errand<A>>,
    threads: usize,
}

enum Errand<A> {
    /// Something is wanted for a stream; how far it has been loaded, if that has begun.
    Stream(Wanted, Option<Loading<A>>),
    Save(Vec<Due<A>>),
}

/// An aggregate that is being loaded.
struct Loading<A> {
    live: Live<A>,
    /// It comes from a snapshot, and the event that this ends with was not seen yet.
    unproven: bool,
    /// There is a snapshot that cannot be used.
    ignored: bool,
    /// How many events are folded the next time.
    stretch: usize,
    /// How long reading and folding its events has taken so far, without waiting for its turn.
    took: Duration,
}

impl<A: Aggregate> Errands<A> {
    pub(super) fn new(
        decoder: Decoder,
        keeper: Option<Keeper<A>>,
        reports: mpsc::Sender<Report<A>>,
    ) -> Self {
        let board = Board { errands: VecDeque::new(), threads: 0 };
        Self { office: Office { decoder, keeper }, board: Arc::new(Mutex::new(board)), reports }
    }

    /// Has it done on a thread for waiting; what comes of it is reported as soon as it is done.
    pub(super) fn run(&self, wanted: Wanted) {
        self.push(Errand::Stream(wanted, None));
    }

    /// Has snapshots written, in the same way.
    pub(super) fn save(&self, due: Vec<Due<A>>) {
        self.push(Errand::Save(due));
    }

    fn push(&self, errand: Errand<A>) {
        let mut board = self.board.lock();
        board.errands.push_back(errand);
        if board.threads < THREADS {
            board.threads += 1;
            let (office, reports) = (self.office.clone(), self.reports.clone());
            let board = Arc::clone(&self.board);
            tokio::task::spawn_blocking(move || work(&office, &board, &reports));
        }
    }
}

/// Does one errand after the other, until there is none.
fn work<A: Aggregate>(
    office: &Office<A>,
    board: &Mutex<Board<A>>,
    reports: &mpsc::Sender<Report<A>>,
) {
    loop {
        let next = {
            let mut board = board.lock();
            let next = board.errands.pop_front();
            if next.is_none() {
                board.threads -= 1;
            }
            next
        };
        let report = match next {
            None => return,
            Some(Errand::Save(due)) => match office.save(due) {
                None => Report::Saved,
                Some(rest) => {
                    board.lock().errands.push_back(Errand::Save(rest));
                    continue;
                }
            },
            Some(Errand::Stream(wanted, loading)) => {
                let stream = wanted.stream.clone();
                // User code is in here: its `Default`, its `Deserialize`, its `apply`.
                let step = Panic::catch(|| office.step(wanted, loading));
                let result = match step.unwrap_or_else(|panic| Err(LoadError::Panicked(panic))) {
                    Ok(Step::Unfinished(wanted, loading)) => {
                        board.lock().errands.push_back(Errand::Stream(wanted, Some(loading)));
                        continue;
                    }
                    Ok(Step::Finished(findings)) => Ok(findings),
                    Err(error) => Err(error),
                };
                Report::Found(Found { stream, result })
            }
        };
        // A shard that has ended needs no answer, and wants nothing more.
        if reports.blocking_send(report).is_err() {
            board.lock().errands.clear();
        }
    }
}

enum Step<A> {
    Finished(Findings<A>),
    /// The rest of a long stream, to be continued behind the others.
    Unfinished(Wanted, Loading<A>),
}

impl<A: Aggregate> Office<A> {
    /// Goes on with one stream.
    fn step(&self, wanted: Wanted, loading: Option<Loading<A>>) -> Result<Step<A>, LoadError> {
        let (mut live, mut snapshot) = (None, None);
        if wanted.load {
            let mut loading = loading.unwrap_or_else(|| self.begin(&wanted.stream));
            // The events alone: what it takes to read a snapshot back is not less after the next one.
            let begun = Instant::now();
            let is_unfinished = self.fold(&wanted.stream, &mut loading)?.is_break();
            loading.took += begun.elapsed();
            if is_unfinished {
                return Ok(Step::Unfinished(wanted, loading));
            }
            snapshot = self.take(&wanted.stream, &mut loading);
            live = Some(loading.live);
        }
        let look_up = |id| Ok((id, self.decoder.store().find_command(id)?));
        let ids = wanted.ids.into_iter().map(look_up);
        let ids = ids.collect::<Result<_, StoreError>>()?;
        Ok(Step::Finished(Findings { live, snapshot, ids }))
    }

    /// The aggregate before its first event, or where its snapshot has it.
    fn begin(&self, stream: &StreamId) -> Loading<A> {
        let loaded = match &self.keeper {
            None => Loaded::Nothing,
            Some(keeper) => keeper.load(stream),
        };
        let ignored = matches!(loaded, Loaded::Ignored);
        let (live, unproven) = match loaded {
            Loaded::Found(live) => (live, true),
            Loaded::Nothing | Loaded::Ignored => (Live::empty(), false),
        };
        Loading { live, unproven, ignored, stretch: STRETCH, took: Duration::ZERO }
    }

    /// Folds the next stretch of the stream; breaks if there is more.
    fn fold(
        &self,
        stream: &StreamId,
        loading: &mut Loading<A>,
    ) -> Result<ControlFlow<()>, LoadError> {
        let mut left = loading.stretch;
        loading.stretch = LONGEST.min(left * 2);
        let mut failed = None;
        // The last event of a snapshot is read again: a stream that does not hold it never came to that state.
        let behind = u64::from(loading.unproven);
        let after = Version::new(loading.live.version.as_u64() - behind);
        self.decoder.store().read_stream(stream, after, &mut |recorded| {
            if loading.unproven {
                loading.unproven = false;
                return ControlFlow::Continue(());
            }
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            match self.decoder.read::<A::Event>(&recorded) {
                Ok(read) => {
                    let live = &mut loading.live;
                    read.as_slice().iter().for_each(|event| live.aggregate.apply(event));
                    live.version = recorded.header.version;
                    live.since.add(1, recorded.payload.len());
                    ControlFlow::Continue(())
                }
                Err(error)
                    if error.is_unknown() && A::unknown_events() == UnknownEvents::Ignore =>
                {
                    loading.live.ignored += 1;
                    loading.live.version = recorded.header.version;
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    let version = recorded.header.version;
                    failed = Some(LoadError::Unreadable { version, source: Arc::new(error) });
                    ControlFlow::Break(())
                }
            }
        })?;
        match failed {
            Some(error) => Err(error),
            None if loading.unproven => {
                let version = Some(loading.live.version);
                if let Some(keeper) = &self.keeper {
                    keeper.ignore(stream, version, "the stream does not reach so far");
                }
                (loading.live, loading.unproven) = (Live::empty(), false);
                loading.ignored = true;
                self.fold(stream, loading)
            }
            None if left == 0 => Ok(ControlFlow::Break(())),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    /// The snapshot of an aggregate that was just loaded, if one is due.
    fn take(&self, stream: &StreamId, loading: &mut Loading<A>) -> Option<Snapshot> {
        let keeper = self.keeper.as_ref()?;
        let Loading { live, ignored, took, .. } = loading;
        // One that could not be used is replaced, so that it is met only once.
        let is_due = keeper.is_due_after_load(live, *took)
            || (*ignored && live.version > Version::EMPTY && live.has_seen_all());
        if !is_due {
            return None;
        }
        live.since = Since::default();
        keeper.take(stream, live)
    }

    /// Writes some of the snapshots, and returns the rest.
    fn save(&self, mut due: Vec<Due<A>>) -> Option<Vec<Due<A>>> {
        let keeper = self.keeper.as_ref()?;
        let rest = due.split_off(due.len().min(SAVED));
        keeper.save(due);
        (!rest.is_empty()).then_some(rest)
    }
}

impl<A> Live<A> {
    /// Whether no event was passed over. The program may know it one day, and a snapshot would lack it for ever.
    pub(super) fn has_seen_all(&self) -> bool {
        self.ignored == 0
    }
}

impl<A: Aggregate> Live<A> {
    /// Before the first event.
    fn empty() -> Self {
        let (version, since) = (Version::EMPTY, Since::default());
        Self { aggregate: A::default(), version, since, ignored: 0 }
    }
}
