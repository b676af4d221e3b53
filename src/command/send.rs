//! Sending a command.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use tokio::sync::oneshot;
use tracing::Span;

use super::{Receipt, SendError, SentTo, Unavailable};
use crate::aggregate::Aggregate;
use crate::aggregate::directory::Directory;
use crate::aggregate::inbox::Waiting;
use crate::aggregate::shard::{Incoming, Lookup};
use crate::event::{Header, Metadata};
use crate::id::{CausationId, CommandId, CorrelationId};
use crate::stream::{InvalidStreamId, StreamId};

type Answer<A> = Result<Receipt, SendError<<A as Aggregate>::Error>>;

/// A command on its way; await it for its [`Receipt`].
///
/// Commands that one task sends one after the other, each polled once before the next, reach their aggregate in that order.
/// If the aggregate's inbox is full, the command waits before it for room; none that is sent later overtakes it.
///
/// # Errors
/// See [`SendError`].
///
/// # Cancel safety
/// Dropped before it is first polled, or while it waits for room, nothing was sent. Dropped later, the command takes effect or not, and the answer is
/// lost: send it again with the same [`command_id`](Self::command_id) to learn which.
#[must_use = "a command is not sent unless it is awaited"]
pub struct Sending<C: SentTo> {
    state: State<C>,
}

enum State<C: SentTo> {
    Unsent(Box<Unsent<C>>),
    Sent {
        answer: oneshot::Receiver<Answer<C::Aggregate>>,
        /// Its place before the inbox, if that was full.
        waiting: Option<Waiting<Incoming<C::Aggregate>>>,
    },
    Done,
}

struct Unsent<C: SentTo> {
    directory: Option<Arc<Directory<C::Aggregate>>>,
    stream: Result<StreamId, InvalidStreamId>,
    command: C,
    command_id: Option<CommandId>,
    cause: Option<(CorrelationId, CausationId)>,
    correlation_id: Option<CorrelationId>,
    metadata: Metadata,
}

impl<C: SentTo> Sending<C> {
    pub(crate) fn new(
        directory: Option<Arc<Directory<C::Aggregate>>>,
        id: &str,
        command: C,
    ) -> Self {
        let stream = StreamId::new(C::Aggregate::CATEGORY, id);
        let unsent = Unsent {
            directory,
            stream,
            command,
            command_id: None,
            cause: None,
            correlation_id: None,
            metadata: Metadata::default(),
        };
        Self {
            state: State::Unsent(Box::new(unsent)),
        }
    }

    /// Gives the command an id from outside, such as that of a request: sent again with the same id, it changes nothing and
    /// gets the first receipt, for ever.
    pub fn command_id(self, id: CommandId) -> Self {
        self.with(|unsent| unsent.command_id = Some(id))
    }

    /// Makes the command part of a story that began outside. Without this, and without a cause, it begins its own.
    pub fn correlation_id(self, id: CorrelationId) -> Self {
        self.with(|unsent| unsent.correlation_id = Some(id))
    }

    /// Names the event that caused the command: its story goes on, and the command's events name it as their cause.
    pub fn caused_by(self, event: &Header) -> Self {
        let cause = (
            event.correlation_id,
            CausationId::from_uuid(event.event_id.into()),
        );
        self.with(|unsent| unsent.cause = Some(cause))
    }

    /// Attaches text that each of the command's events will carry.
    pub fn metadata(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|unsent| unsent.metadata.insert(key, value))
    }

    fn with(mut self, set: impl FnOnce(&mut Unsent<C>)) -> Self {
        if let State::Unsent(unsent) = &mut self.state {
            set(unsent);
        }
        self
    }
}

impl<C: SentTo> Unsent<C> {
    /// Puts the command into the inbox of its shard, if there is room.
    fn send(self) -> State<C> {
        let (reply, answer) = oneshot::channel();
        let unavailable = |reason| SendError::Unavailable {
            category: C::Aggregate::CATEGORY,
            reason,
        };
        let refused = |error| {
            let (reply, answer) = oneshot::channel();
            // The receiver is at hand.
            let _ = reply.send(Err(error));
            State::Sent {
                answer,
                waiting: None,
            }
        };
        let Some(directory) = self.directory else {
            return refused(unavailable(Unavailable::NotRegistered));
        };
        let stream = match self.stream {
            Ok(stream) => stream,
            Err(error) => return refused(error.into()),
        };
        let Some(shard) = directory.shard_of(&stream) else {
            return refused(unavailable(Unavailable::ShutDown));
        };
        let (command_id, lookup) = match self.command_id {
            Some(id) => (id, Lookup::Needed),
            None => (CommandId::fresh(), Lookup::Fresh),
        };
        let (correlation_id, causation_id) = self.cause.unwrap_or_else(|| {
            let uuid = command_id.into();
            (CorrelationId::from_uuid(uuid), CausationId::from_uuid(uuid))
        });
        let incoming = Incoming {
            stream,
            command: self.command.into(),
            command_id,
            lookup,
            correlation_id: self.correlation_id.unwrap_or(correlation_id),
            causation_id,
            metadata: self.metadata,
            reply,
            span: Span::current(),
            attempts: 0,
        };
        match shard.put(incoming) {
            Ok(waiting) => State::Sent { answer, waiting },
            Err(_) => refused(unavailable(Unavailable::ShutDown)),
        }
    }
}

/// Nothing in it is pinned: what must not move is boxed.
impl<C: SentTo> Unpin for Sending<C> {}

impl<C: SentTo> Future for Sending<C> {
    type Output = Answer<C::Aggregate>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let shut_down = || {
            Err(SendError::Unavailable {
                category: C::Aggregate::CATEGORY,
                reason: Unavailable::ShutDown,
            })
        };
        loop {
            match std::mem::replace(&mut self.state, State::Done) {
                State::Unsent(unsent) => self.state = unsent.send(),
                State::Sent {
                    mut answer,
                    waiting,
                } => {
                    return match Pin::new(&mut answer).poll(cx) {
                        Poll::Ready(answer) => Poll::Ready(answer.unwrap_or_else(|_| shut_down())),
                        Poll::Pending => {
                            self.state = State::Sent { answer, waiting };
                            Poll::Pending
                        }
                    };
                }
                // A future that was polled to its end: like std's, it stays silent.
                State::Done => return Poll::Pending,
            }
        }
    }
}

impl<C: SentTo> fmt::Debug for Sending<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Unsent(_) => "unsent",
            State::Sent { waiting, .. } if waiting.as_ref().is_some_and(Waiting::is_outside) => {
                "waiting for room"
            }
            State::Sent { .. } => "sent",
            State::Done => "done",
        };
        f.debug_struct("Sending")
            .field("command", &C::NAME)
            .field("state", &state)
            .finish()
    }
}
