//! What keeps a consumer from going on.

use std::error::Error;
use std::sync::Arc;

use crate::event::Header;
use crate::id::EventId;
use crate::store::StoreError;
use crate::stream::{Position, StreamId};

/// What keeps a consumer from going on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// An event could not be handled, and the consumer may not pass it.
    #[error("it could not handle event {name} {event_id} at position {position} of {stream}")]
    Handler {
        /// The event's place in the log.
        position: Position,
        /// The event's identity.
        event_id: EventId,
        /// The event's stored name.
        name: String,
        /// The event's stream.
        stream: StreamId,
        /// What the handler says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An event could not be handled, and as many keys are parked as may be.
    #[error(
        "{keys} keys with {letters} letters are parked, and it may park no more: retry or discard some, and it goes on"
    )]
    TooManyParked {
        /// How many keys are parked.
        keys: usize,
        /// How many letters they hold, those that wait included.
        letters: usize,
        /// What was to be parked.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[source] StoreError),
    /// The view cannot be written; what was folded since its checkpoint is folded again.
    #[error("the view cannot be written")]
    View(#[source] Box<dyn Error + Send + Sync>),
    /// Checkpoint and letters cannot be written; what was handled since is handled again after a crash.
    #[error("its checkpoint and its letters cannot be written")]
    Ledger(#[source] Box<dyn Error + Send + Sync>),
    /// The program does not know the event, and the consumer may not pass it.
    #[error(
        "it does not know event {name} at position {position} of {stream}: start a program that does"
    )]
    UnknownEvent {
        /// The event's place in the log.
        position: Position,
        /// The event's stored name.
        name: String,
        /// The event's stream.
        stream: StreamId,
    },
    /// A handler committed or rolled back the transaction that it was given.
    #[error("a handler ended the transaction that it was given")]
    EndedTransaction,
}

/// An event that could not be handled.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) header: Header,
    /// What it is kept in order by.
    pub(crate) key: Arc<str>,
    pub(crate) source: Box<dyn Error + Send + Sync>,
    pub(crate) span: Option<u64>,
}

impl Trouble {
    /// The program does not know the event with this header.
    pub(crate) fn unknown(header: &Header) -> Self {
        let (position, stream) = (header.position, header.stream.clone());
        Self::UnknownEvent { position, name: header.name.clone().into_owned(), stream }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let Failure { header, source, .. } = failure;
        Self::Handler {
            position: header.position,
            event_id: header.event_id,
            name: header.name.into_owned(),
            stream: header.stream,
            source,
        }
    }
}
