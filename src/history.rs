//! Looking back: what an aggregate was, what has happened to it, and why.
//!
//! The log keeps every event, so every earlier state can be had again by folding what led up to it. Nothing here changes
//! anything: live aggregates and the views that serve are left alone, and go on meanwhile.
//!
//! - [`App::load`](crate::App::load): an aggregate at a version or at a time.
//! - [`App::history`](crate::App::history): the events of a stream, with who, when and why.
//! - [`App::trace`](crate::App::trace): a story, as the tree of what has caused what.
//! - [`App::as_of`](crate::App::as_of): a projection as it was, see [`AsOf`](crate::AsOf).
//! - [`Diff`]: what differs between two of these.
//!
//! # Positions and clocks
//! Positions order the events of a log, and versions those of a stream. A time is what a clock said when an event was decided:
//! after a clock was set back, an event of an earlier time stands behind one of a later time. The state at a time is that
//! of everything before the first event that was decided later. So it is one state that there has been, and always the
//! same one; but where clocks were wrong by an hour, it may be off by as much. Ask for a version or a position where that matters.
//!
//! # What it costs
//! A load reads its stream, and what is told as of a position reads the log up to there. Nothing of it is kept.

mod diff;
mod events;
mod load;
mod trace;

use std::sync::Arc;

use tokio::sync::oneshot;

pub use self::diff::{Diff, DiffError, Difference};
pub use self::events::History;
pub use self::load::{Loaded, Loading, StreamPoint};
pub use self::trace::{Trace, TraceNode, Traced};
pub(crate) use self::trace::{story_at, trace};
use crate::actor::Panic;
use crate::event::{DecodeError, EventSet, ReadAs, Recorded};
use crate::retry::UnknownEvents;
use crate::store::{Decoder, StoreError};
use crate::stream::{InvalidStreamId, Position, StreamId, Version};

/// Why the log does not say what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The id cannot name an aggregate.
    #[error(transparent)]
    InvalidStream(#[from] InvalidStreamId),
    /// Nothing has ever happened there.
    #[error("stream {stream} has no events: look for another id")]
    NoEvents {
        /// The stream.
        stream: StreamId,
    },
    /// The stream has not got so far.
    #[error("stream {stream} stands at version {actual} and has no version {wanted} yet")]
    BeyondStream {
        /// The stream.
        stream: StreamId,
        /// The version that was asked for.
        wanted: Version,
        /// The version of its last event.
        actual: Version,
    },
    /// The log has not got so far.
    #[error("the log stands at position {head} and has no position {wanted} yet")]
    BeyondLog {
        /// The position that was asked for.
        wanted: Position,
        /// The position of its last event.
        head: Position,
    },
    /// The stream holds an event that its type cannot read.
    #[error("stream {stream} cannot be read at version {version}")]
    Unreadable {
        /// The stream.
        stream: StreamId,
        /// The event's place in it.
        version: Version,
        /// What is wrong with it.
        #[source]
        source: Arc<DecodeError>,
    },
    /// User code panicked while it read or applied an event.
    #[error("the code that reads stream {stream} panicked after version {version}: {message}")]
    Panicked {
        /// The stream.
        stream: StreamId,
        /// The version of the last event that it had no trouble with.
        version: Version,
        /// The panic's message.
        message: String,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Store(#[source] Arc<StoreError>),
}

impl From<StoreError> for HistoryError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// What a stored event of a stream is today; none if the program does not know it and passes over such. The code that finds out is the
/// user's, and may panic.
fn read<S: EventSet>(
    decoder: &Decoder,
    event: &Recorded,
    unknown: UnknownEvents,
) -> Result<Option<ReadAs<S>>, HistoryError> {
    match decoder.read::<S>(event) {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.is_unknown() && unknown == UnknownEvents::Ignore => Ok(None),
        Err(error) => Err(HistoryError::Unreadable {
            stream: event.header.stream.clone(),
            version: event.header.version,
            source: Arc::new(error),
        }),
    }
}

/// Whether somebody still waits for what is being read.
pub(crate) trait Awaited {
    fn is_awaited(&self) -> bool;
}

impl<T> Awaited for oneshot::Sender<T> {
    fn is_awaited(&self) -> bool {
        !self.is_closed()
    }
}

/// Does `work` on a thread for waiting. It is told when nobody waits for it any more, and may end then with whatever it likes.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce(&dyn Awaited) -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, HistoryError> {
    let (reply, answer) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let done = Panic::catch(|| work(&reply));
        // Whoever has asked may have gone away.
        let _ = reply.send(done);
    });
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
        HistoryError::from(StoreError::Failed { place: "the log".into(), source })
    };
    match answer.await {
        Ok(Ok(done)) => done,
        // User code is caught where it is called.
        Ok(Err(panic)) => Err(failed(format!("it panicked: {}", panic.message).into())),
        Err(_) => Err(failed("the runtime of who asks is shutting down".into())),
    }
}
