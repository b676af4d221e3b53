//! Sending a command.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use tokio::sync::oneshot;
use tracing::Span;
use uuid::Uuid;

use super::{Receipt, SendError, SentTo, Unavailable};
use crate::aggregate::Aggregate;
use crate::aggregate::directory::Directory;
use crate::aggregate::inbox::{Place, Sent};
use crate::aggregate::shard::{Incoming, Lookup};
use crate::bus;
use crate::event::{EventSet, Header, Metadata};
use crate::id::{CausationId, CommandId, CorrelationId};
use crate::stream::StreamId;

pub(crate) type Answer<A> = Result<Receipt, SendError<<A as Aggregate>::Error>>;

/// A command on its way; await it for its [`Receipt`].
///
/// It is sent when it is polled for the first time, and commands reach their aggregate in the order in which they were
/// sent, however many are in flight. If the inbox of its shard is full, it waits in line.
///
/// # Errors
/// See [`SendError`].
///
/// # Panics
/// When it is polled again after it has answered.
///
/// # Cancel safety
/// Dropped before it is first polled, or while it waits in line, nothing was sent. Dropped later, the command takes effect
/// or not, and the answer is lost: send it again with the same [`command_id`](Self::command_id) to learn which.
#[must_use = "a command is not sent unless it is awaited"]
pub struct Sending<C: SentTo> {
    way: Way<C::Aggregate>,
}

/// The way of a command to its aggregate, and of the answer back.
pub(crate) enum Way<A: Aggregate> {
    Unsent {
        directory: Arc<Directory<A>>,
        incoming: Box<Incoming<A>>,
        answer: oneshot::Receiver<Answer<A>>,
    },
    Refused(SendError<A::Error>),
    Sent {
        answer: oneshot::Receiver<Answer<A>>,
        /// Kept while the command waits in line for a full inbox.
        place: Option<Place<Box<Incoming<A>>>>,
    },
    Done,
}

impl<C: SentTo> Sending<C> {
    pub(crate) fn new(
        directory: Option<Arc<Directory<C::Aggregate>>>,
        id: &str,
        command: C,
    ) -> Self {
        let way = match bus::into_topic(<C::Aggregate as Aggregate>::Event::CATEGORY) {
            Ok(depth) => Way::new(directory, id, command.into(), depth),
            Err(depth) => Way::Refused(SendError::TooDeep { depth }),
        };
        Self { way }
    }

    /// Gives the command an id from outside, such as that of a request: sent again with the same id, it changes nothing and
    /// gets the first receipt, for ever.
    ///
    /// One id is one command: give each command of a request its own, as in
    /// `CommandId::from_name(&format!("{request}/pay"))`. Ids are known across all aggregates; sent to another one, an id is
    /// refused with [`SendError::CommandIdReused`]. That the command itself is the same is not checked. A rejection is not
    /// remembered: the same id is then decided again.
    pub fn command_id(self, id: CommandId) -> Self {
        self.with(|incoming| {
            incoming.command_id = id;
            incoming.lookup = Lookup::Needed;
        })
    }

    /// Makes the command part of a story that began outside. Without this, and without a cause, it begins its own.
    pub fn correlation_id(self, id: CorrelationId) -> Self {
        self.with(|incoming| incoming.correlation_id = Some(id))
    }

    /// Names the event that caused the command: its story goes on, unless another one was set with
    /// [`correlation_id`](Self::correlation_id), and the command's events name it as their cause.
    pub fn caused_by(self, event: &Header) -> Self {
        self.with(|incoming| {
            incoming.correlation_id.get_or_insert(event.correlation_id);
            incoming.causation_id = Some(CausationId::from_uuid(event.event_id.into()));
        })
    }

    /// Attaches text that each of the command's events will carry.
    pub fn metadata(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|incoming| incoming.metadata.insert(key, value))
    }

    /// Sends the command now rather than when it is polled for the first time: it takes its place behind everything that
    /// was sent before. Await it later for the receipt.
    ///
    /// # Examples
    /// ```
    /// # use tidings::{App, SentTo};
    /// # async fn import<C: SentTo>(app: &App, lines: Vec<C>) -> usize {
    /// // All on their way before the first answer, and in this order.
    /// let sent: Vec<_> = lines.into_iter().map(|line| app.send("acc-1", line).begin()).collect();
    /// let mut receipts = 0;
    /// for sending in sent {
    ///     receipts += usize::from(sending.await.is_ok());
    /// }
    /// # receipts }
    /// ```
    pub fn begin(mut self) -> Self {
        self.way = self.way.begin();
        self
    }

    fn with(mut self, set: impl FnOnce(&mut Incoming<C::Aggregate>)) -> Self {
        self.way.with(set);
        self
    }
}

impl<A: Aggregate> Way<A> {
    /// The way of `command`, caused by so many handlers, to the aggregate `id`.
    pub(crate) fn new(
        directory: Option<Arc<Directory<A>>>,
        id: &str,
        command: A::Command,
        depth: u8,
    ) -> Self {
        let (directory, stream) = match (directory, StreamId::new(A::CATEGORY, id)) {
            (None, _) => return Self::Refused(unavailable::<A>(Unavailable::NotRegistered)),
            (_, Err(error)) => return Self::Refused(error.into()),
            (Some(directory), Ok(stream)) => (directory, stream),
        };
        let (reply, answer) = oneshot::channel();
        let incoming = Box::new(Incoming {
            stream,
            command,
            command_id: CommandId::from_uuid(Uuid::nil()),
            lookup: Lookup::Fresh,
            correlation_id: None,
            causation_id: None,
            metadata: Metadata::default(),
            reply,
            span: Span::none(),
            depth,
            attempts: 0,
        });
        Self::Unsent { directory, incoming, answer }
    }

    /// Changes the command, if it was not sent yet.
    pub(crate) fn with(&mut self, set: impl FnOnce(&mut Incoming<A>)) {
        if let Self::Unsent { incoming, .. } = self {
            set(incoming);
        }
    }

    fn begin(self) -> Self {
        match self {
            Self::Unsent { directory, incoming, answer } => enqueue(&directory, incoming, answer),
            begun => begun,
        }
    }
}

/// Puts the command into the inbox of its shard, or into the line before it.
fn enqueue<A: Aggregate>(
    directory: &Directory<A>,
    mut incoming: Box<Incoming<A>>,
    answer: oneshot::Receiver<Answer<A>>,
) -> Way<A> {
    let Some(shard) = directory.shard_of(&incoming.stream) else {
        return Way::Refused(unavailable::<A>(Unavailable::ShutDown));
    };
    incoming.span = Span::current();
    match shard.send(incoming) {
        Sent::Queued => Way::Sent { answer, place: None },
        Sent::InLine(place) => Way::Sent { answer, place: Some(place) },
        Sent::Closed => Way::Refused(unavailable::<A>(Unavailable::ShutDown)),
    }
}

fn unavailable<A: Aggregate>(reason: Unavailable) -> SendError<A::Error> {
    SendError::Unavailable { category: A::CATEGORY, reason }
}

/// Nothing in it is pinned: what must not move is boxed.
impl<A: Aggregate> Unpin for Way<A> {}
impl<C: SentTo> Unpin for Sending<C> {}

impl<C: SentTo> Future for Sending<C> {
    type Output = Answer<C::Aggregate>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.way).poll(cx)
    }
}

impl<A: Aggregate> Future for Way<A> {
    type Output = Answer<A>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut *self, Self::Done).begin() {
            Self::Sent { mut answer, place } => match Pin::new(&mut answer).poll(cx) {
                Poll::Ready(Ok(answer)) => Poll::Ready(answer),
                Poll::Ready(Err(_)) => Poll::Ready(Err(unavailable::<A>(Unavailable::ShutDown))),
                Poll::Pending => {
                    *self = Self::Sent { answer, place };
                    Poll::Pending
                }
            },
            Self::Refused(error) => Poll::Ready(Err(error)),
            #[expect(clippy::panic, reason = "documented: the contract of every future")]
            Self::Unsent { .. } | Self::Done => panic!("a command was polled after its answer"),
        }
    }
}

impl<C: SentTo> fmt::Debug for Sending<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.way {
            Way::Unsent { .. } => "unsent",
            Way::Refused(_) => "refused",
            Way::Sent { place: Some(_), .. } => "waiting in line",
            Way::Sent { place: None, .. } => "sent",
            Way::Done => "done",
        };
        f.debug_struct("Sending").field("command", &C::NAME).field("state", &state).finish()
    }
}
