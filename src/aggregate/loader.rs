//! What a shard has done on threads that are made for waiting: loading aggregates, and looking up command ids.

use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Aggregate;
use crate::actor::Panic;
use crate::event::DecodeError;
use crate::id::CommandId;
use crate::store::{EventStore, KnownCommand, StoreError};
use crate::stream::{StreamId, Version};

/// How many events of one stream are loaded before the others of the same errand get their turn. A long stream goes on as an
/// errand of its own.
const STRETCH: usize = 1_000;

/// An aggregate with the version that its state is folded up to.
pub(super) struct Live<A> {
    pub(super) aggregate: A,
    pub(super) version: Version,
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
    Unreadable {
        version: Version,
        source: Arc<DecodeError>,
    },
    Panicked(Panic),
    Store(Arc<StoreError>),
}

impl From<StoreError> for LoadError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// Runs an errand on a thread for waiting; reports each stream as soon as it is done.
pub(super) fn run<A: Aggregate>(
    store: Arc<dyn EventStore>,
    errand: Vec<Wanted>,
    found: mpsc::Sender<Found<A>>,
) {
    tokio::task::spawn_blocking(move || {
        for wanted in errand {
            let start = Live {
                aggregate: A::default(),
                version: Version::EMPTY,
            };
            step(&store, wanted, start, &found);
        }
    });
}

/// Goes on with one stream, and either reports it or leaves the rest to an errand of its own.
fn step<A: Aggregate>(
    store: &Arc<dyn EventStore>,
    wanted: Wanted,
    mut live: Live<A>,
    found: &mpsc::Sender<Found<A>>,
) {
    let result = if wanted.load {
        match fold(&**store, &wanted.stream, &mut live) {
            Ok(ControlFlow::Break(())) => {
                let (store, found) = (Arc::clone(store), found.clone());
                tokio::task::spawn_blocking(move || step(&store, wanted, live, &found));
                return;
            }
            Ok(ControlFlow::Continue(())) => Ok(()),
            Err(error) => Err(error),
        }
    } else {
        Ok(())
    };
    let result = result.and_then(|()| {
        let look_up = |id| Ok((id, store.find_command(id)?));
        let ids = wanted
            .ids
            .into_iter()
            .map(look_up)
            .collect::<Result<_, StoreError>>()?;
        Ok(Findings {
            live: wanted.load.then_some(live),
            ids,
        })
    });
    // A shard that has ended needs no answer.
    let _ = found.blocking_send(Found {
        stream: wanted.stream,
        result,
    });
}

/// Folds the next stretch of the stream; breaks if there is more.
fn fold<A: Aggregate>(
    store: &dyn EventStore,
    stream: &StreamId,
    live: &mut Live<A>,
) -> Result<ControlFlow<()>, LoadError> {
    let codec = store.codec();
    let mut left = STRETCH;
    let mut failed = None;
    let read = Panic::catch(|| {
        store.read_stream(stream, live.version, &mut |recorded| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            match recorded.decode::<A::Event>(codec) {
                Ok(event) => {
                    live.aggregate.apply(&event);
                    live.version = recorded.header.version;
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    let version = recorded.header.version;
                    failed = Some(LoadError::Unreadable {
                        version,
                        source: Arc::new(error),
                    });
                    ControlFlow::Break(())
                }
            }
        })
    });
    read.map_err(LoadError::Panicked)??;
    match failed {
        Some(error) => Err(error),
        None if left == 0 => Ok(ControlFlow::Break(())),
        None => Ok(ControlFlow::Continue(())),
    }
}
