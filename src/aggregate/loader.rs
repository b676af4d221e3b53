//! What a shard has done on threads that are made for waiting: loading aggregates, and looking up command ids.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Aggregate;
use crate::actor::Panic;
use crate::event::DecodeError;
use crate::id::CommandId;
use crate::retry::UnknownEvents;
use crate::store::{Decoder, KnownCommand, StoreError};
use crate::stream::{StreamId, Version};

/// How many events of one stream are loaded before the others get their turn.
const STRETCH: usize = 1_000;

/// How many threads of a shard wait at a time; each holds a reader of the store, and SQLite keeps this many unless told
/// otherwise. A stream whose reading hangs takes one of them; the others go on.
const THREADS: usize = 4;

/// An aggregate with the version that its state is folded up to.
pub(super) struct Live<A> {
    pub(super) aggregate: A,
    pub(super) version: Version,
    /// How many unknown events were passed over while it was loaded.
    pub(super) ignored: u64,
}

/// What is wanted for one stream.
pub(super) struct Wanted {
    pub(super) stream: StreamId,
    pub(super) load: bool,
    pub(super) ids: Vec<CommandId>,
}

/// What came of it.
pub(super) struct Found<A> {
    pub(super) stream: StreamId,
    pub(super) result: Result<Findings<A>, LoadError>,
}

pub(super) struct Findings<A> {
    /// The aggregate, if it was to be loaded.
    pub(super) live: Option<Live<A>>,
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
    decoder: Decoder,
    board: Arc<Mutex<Board<A>>>,
    found: mpsc::Sender<Found<A>>,
}

struct Board<A> {
    errands: VecDeque<Errand<A>>,
    threads: usize,
}

/// What is to be done for one stream.
struct Errand<A> {
    wanted: Wanted,
    /// How far it has been loaded; none if that has not begun.
    live: Option<Live<A>>,
}

impl<A: Aggregate> Errands<A> {
    pub(super) fn new(decoder: Decoder, found: mpsc::Sender<Found<A>>) -> Self {
        let board = Board { errands: VecDeque::new(), threads: 0 };
        Self { decoder, board: Arc::new(Mutex::new(board)), found }
    }

    /// Has it done on a thread for waiting; what comes of it is reported as soon as it is done.
    pub(super) fn run(&self, wanted: Wanted) {
        let mut board = self.board.lock();
        board.errands.push_back(Errand { wanted, live: None });
        if board.threads < THREADS {
            board.threads += 1;
            let (decoder, found) = (self.decoder.clone(), self.found.clone());
            let board = Arc::clone(&self.board);
            tokio::task::spawn_blocking(move || work(&decoder, &board, &found));
        }
    }
}

/// Does one errand after the other, until there is none.
fn work<A: Aggregate>(decoder: &Decoder, board: &Mutex<Board<A>>, found: &mpsc::Sender<Found<A>>) {
    loop {
        let next = {
            let mut board = board.lock();
            let next = board.errands.pop_front();
            if next.is_none() {
                board.threads -= 1;
            }
            next
        };
        let Some(errand) = next else { return };
        let stream = errand.wanted.stream.clone();
        // User code is in here: its `Default`, its `Deserialize`, its `apply`.
        let step = Panic::catch(|| step(decoder, errand));
        let result = match step.unwrap_or_else(|panic| Err(LoadError::Panicked(panic))) {
            Ok(Step::Unfinished(errand)) => {
                board.lock().errands.push_back(errand);
                continue;
            }
            Ok(Step::Finished(findings)) => Ok(findings),
            Err(error) => Err(error),
        };
        // A shard that has ended needs no answer, and wants nothing more.
        if found.blocking_send(Found { stream, result }).is_err() {
            board.lock().errands.clear();
        }
    }
}

enum Step<A> {
    Finished(Findings<A>),
    /// The rest of a long stream, to be continued behind the others.
    Unfinished(Errand<A>),
}

/// Goes on with one stream.
fn step<A: Aggregate>(decoder: &Decoder, errand: Errand<A>) -> Result<Step<A>, LoadError> {
    let Errand { wanted, live } = errand;
    let live = if wanted.load {
        let mut live = live.unwrap_or_else(|| Live {
            aggregate: A::default(),
            version: Version::EMPTY,
            ignored: 0,
        });
        if fold(decoder, &wanted.stream, &mut live)?.is_break() {
            let live = Some(live);
            return Ok(Step::Unfinished(Errand { wanted, live }));
        }
        Some(live)
    } else {
        None
    };
    let look_up = |id| Ok((id, decoder.store().find_command(id)?));
    let ids = wanted.ids.into_iter().map(look_up);
    let ids = ids.collect::<Result<_, StoreError>>()?;
    Ok(Step::Finished(Findings { live, ids }))
}

/// Folds the next stretch of the stream; breaks if there is more.
fn fold<A: Aggregate>(
    decoder: &Decoder,
    stream: &StreamId,
    live: &mut Live<A>,
) -> Result<ControlFlow<()>, LoadError> {
    let mut left = STRETCH;
    let mut failed = None;
    decoder.store().read_stream(stream, live.version, &mut |recorded| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        left -= 1;
        match decoder.read::<A::Event>(&recorded) {
            Ok(read) => {
                read.as_slice().iter().for_each(|event| live.aggregate.apply(event));
                live.version = recorded.header.version;
                ControlFlow::Continue(())
            }
            Err(DecodeError::UnknownName { .. })
                if A::unknown_events() == UnknownEvents::Ignore =>
            {
                live.ignored += 1;
                live.version = recorded.header.version;
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
        None if left == 0 => Ok(ControlFlow::Break(())),
        None => Ok(ControlFlow::Continue(())),
    }
}
