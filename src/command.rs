//! Commands: what is sent, and what comes back.

mod send;

use std::ops::RangeInclusive;
use std::sync::Arc;

pub use self::send::Sending;
pub(crate) use self::send::Way;
use crate::aggregate::Aggregate;
use crate::clock::Timestamp;
use crate::event::{DecodeError, Header, Metadata};
use crate::id::{CausationId, CommandId, CorrelationId};
use crate::store::{Durability, StoreError};
use crate::stream::{InvalidStreamId, Position, StreamId, Version};

/// A wish to change something, sent to one aggregate; it can be rejected.
///
/// Derive it with `#[derive(Command)]`. It is cloned for each decision, since it is decided again if the commit that
/// its first decision relied on fails.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a command",
    label = "not a command",
    note = "add `#[derive(Command, Clone)]` to the type"
)]
pub trait Command: Clone + Send + 'static {
    /// The command's name in traces: the name of its type.
    const NAME: &'static str;
}

/// Says which aggregate a command is sent to; `#[aggregate]` implements it for each command that has a `#[command]`.
#[diagnostic::on_unimplemented(
    message = "no aggregate handles `{Self}`",
    label = "no aggregate handles this command",
    note = "add `#[command] fn …(&self, command: {Self}) -> …` to the aggregate that it is sent to"
)]
pub trait SentTo: Command {
    /// The aggregate that decides it.
    type Aggregate: Aggregate<Command: From<Self>>;
}

/// What surrounds a command while it is decided: everything that a pure decision may need to know from outside.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Context {
    /// The stream of the aggregate that decides.
    pub stream: StreamId,
    /// When the command is decided; the time of its events.
    pub time: Timestamp,
    /// The command's identity.
    pub command_id: CommandId,
    /// The story that the command belongs to.
    pub correlation_id: CorrelationId,
    /// What its events will name as their cause.
    pub causation_id: CausationId,
    /// What the sender attached.
    pub metadata: Metadata,
}

impl Context {
    /// The context of a command that starts a story of its own.
    pub fn new(stream: StreamId, time: Timestamp, command_id: CommandId) -> Self {
        Self {
            stream,
            time,
            command_id,
            correlation_id: CorrelationId::from_uuid(command_id.into()),
            causation_id: CausationId::from_uuid(command_id.into()),
            metadata: Metadata::default(),
        }
    }

    /// Makes `event` the cause: its story goes on.
    #[must_use]
    pub fn caused_by(mut self, event: &Header) -> Self {
        self.correlation_id = event.correlation_id;
        self.causation_id = CausationId::from_uuid(event.event_id.into());
        self
    }
}

/// What a command returns once its events are durable: enough to read your own write.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The command.
    pub command_id: CommandId,
    /// The stream of the aggregate that decided it.
    pub stream: StreamId,
    /// The stream's version after the command.
    pub version: Version,
    /// How many events the command appended; zero if it was accepted with nothing to record.
    pub events: u32,
    /// The position of the command's last event; of the log's head at that time if it appended none.
    pub position: Position,
    /// How safe the events are.
    pub durability: Durability,
    /// Whether this send appended the events, or an earlier one with the same command id.
    pub outcome: Outcome,
}

impl Receipt {
    /// The versions that the command appended; an empty range if none.
    pub fn versions(&self) -> RangeInclusive<u64> {
        let last = self.version.as_u64();
        (last + 1).saturating_sub(u64::from(self.events))..=last
    }
}

/// Whether a receipt is the first for its command id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// This send took effect.
    Applied,
    /// An earlier send of the same command id took effect; this one changed nothing.
    AlreadyKnown,
}

/// Why a command did not take effect. `R` is the aggregate's own error type.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError<R> {
    /// The aggregate rejected the command.
    #[error("rejected: {0}")]
    Rejected(R),
    /// The id cannot name an aggregate.
    #[error(transparent)]
    InvalidStream(#[from] InvalidStreamId),
    /// The command id belongs to a command of another aggregate.
    #[error("command id {command_id} was already used for stream {first}, not for {stream}")]
    CommandIdReused {
        /// The id.
        command_id: CommandId,
        /// Where it was used first.
        first: StreamId,
        /// Where it was sent this time.
        stream: StreamId,
    },
    /// The aggregate's stream holds an event that its type cannot read; nothing was decided.
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
    /// An event of the decision has no form in the log's format; nothing was appended.
    #[error("an event that {stream} decided on cannot be written")]
    Unwritable {
        /// The stream.
        stream: StreamId,
        /// What the codec says.
        #[source]
        source: crate::codec::CodecError,
    },
    /// User code panicked while it decided or applied; nothing was appended, and the aggregate was loaded anew.
    #[error("the code of aggregate {stream} panicked: {message}")]
    Panicked {
        /// The stream of the aggregate.
        stream: StreamId,
        /// The panic's message.
        message: String,
    },
    /// The stream kept moving under the command, because something else than its aggregate writes to it.
    #[error("stream {stream} changed under the command {attempts} times; send it again")]
    Contended {
        /// The stream.
        stream: StreamId,
        /// How often the command was decided.
        attempts: u32,
    },
    /// The log failed. Unless it is read-only or full the outcome is unknown: send the same command id again.
    #[error("the log failed")]
    Store(#[source] Arc<StoreError>),
    /// The command was sent by a handler that stands at the end of so many handlers which have caused one another that it is
    /// taken for a circle; nothing was decided.
    #[error("{depth} handlers have caused one another up to this command: a circle is cut here")]
    TooDeep {
        /// How many handlers stand behind it.
        depth: u8,
    },
    /// The app is shut down, or no aggregate of this type is registered with it.
    #[error("the app does not take commands for {category}: {reason}")]
    Unavailable {
        /// The aggregate's category.
        category: &'static str,
        /// Why.
        reason: Unavailable,
    },
}

/// Why an app takes no commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The aggregate's type was not given to the builder.
    #[error("register it with `App::builder().aggregate::<…>()`")]
    NotRegistered,
    /// The app is shutting down or has shut down.
    #[error("the app is shut down")]
    ShutDown,
}
