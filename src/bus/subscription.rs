//! The subscriptions of users: from the ring while they keep up, from the log while they do not.

use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::pin::Pin;
use std::slice;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::ring::{Ready, TooOld};
use super::topic::{Cursor, HistoryError, HistoryPage, Topic};
use crate::event::Envelope;
use crate::stream::Position;

/// How many events are read from the log at once. Large enough to make the way to a thread that may block cheap, small
/// enough that a subscriber that starts at the beginning of a long log needs little memory.
const PAGE: usize = 512;

/// Where a subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With the next event that is published.
    #[default]
    Now,
    /// With the first event after this position: how a subscriber resumes that keeps the position it has finished.
    /// [`Position::START`] is the beginning of the log.
    After(Position),
}

/// Why a subscription ended early. It has delivered everything before, and nothing after.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// The log could not be read. Subscribe again after `after` once the cause is gone.
    #[error("topic {topic} could not read its log after position {after}")]
    Log {
        /// The topic.
        topic: &'static str,
        /// The last position that was delivered or passed.
        after: Position,
        /// What the log says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The log does not hold what the topic has published: it was changed from outside, or belongs to another app.
    #[error("the log of topic {topic} has a hole after position {after}: {what}")]
    Hole {
        /// The topic.
        topic: &'static str,
        /// The last position that was delivered or passed.
        after: Position,
        /// What is wrong.
        what: &'static str,
    },
    /// The events after `after` are only in the log, and the topic has none.
    #[error("topic {topic} has no log to read the events after position {after} from")]
    NoLog {
        /// The topic.
        topic: &'static str,
        /// The last position that was delivered or passed.
        after: Position,
    },
    /// The log must be read, which takes a tokio runtime, and there is none or it is shutting down.
    #[error("topic {topic} needs a running tokio runtime to read its log after position {after}")]
    NoRuntime {
        /// The topic.
        topic: &'static str,
        /// The last position that was delivered or passed.
        after: Position,
    },
}

/// One reader of a [`Topic`]: each event from its start on, in order, once. Dropping it unsubscribes.
///
/// It never slows the publisher. One that falls further behind than the topic retains reads on in the log, in pages on
/// a thread that may block, and comes back to the ring when it is level.
///
/// To send a command because of an event, name the event as its [cause](crate::Sending::caused_by) and derive the command's
/// id from it, as in `CommandId::from_name(&format!("reserve/{}", envelope.event_id))`: seen again after a restart from an
/// older position, it changes nothing. It is no `Stream`, since a batch is lent, not given.
#[must_use = "dropping a subscription unsubscribes"]
pub struct Subscription<E: Send + Sync + 'static> {
    reader: Reader<E>,
}

impl<E: Send + Sync + 'static> Subscription<E> {
    pub(super) fn new(topic: &Topic<E>, start: Start) -> Self {
        Self { reader: Reader::new(topic, start) }
    }

    /// Waits for the next events, in order and by reference; `None` when the app has shut down and all were delivered.
    ///
    /// A batch is what is there, at most a few hundred events. Its events count as delivered when this returns.
    ///
    /// # Errors
    /// [`SubscriptionError`] if events had to be read from the log and could not. The next call tries again.
    ///
    /// # Cancel safety
    /// Safe: a call that is dropped before it returns has delivered nothing.
    pub async fn next(&mut self) -> Result<Option<Batch<'_, E>>, SubscriptionError> {
        match poll_fn(|cx| self.reader.poll_ready(cx)).await? {
            Next::Events => Ok(Some(self.reader.take(usize::MAX))),
            Next::End => Ok(None),
        }
    }

    /// The position up to which everything was delivered: what to keep, to resume with [`Start::After`].
    pub fn position(&self) -> Position {
        self.reader.seen()
    }
}

impl<E: Send + Sync + 'static> fmt::Debug for Subscription<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topic", &self.reader.topic.name())
            .field("position", &self.reader.seen())
            .finish()
    }
}

/// Some events of a topic, in order, by reference: dereferences to a slice, which is never empty when it is delivered.
#[derive(Debug)]
pub struct Batch<'a, E>(&'a [Envelope<E>]);

impl<E> Deref for Batch<'_, E> {
    type Target = [Envelope<E>];

    fn deref(&self) -> &[Envelope<E>] {
        self.0
    }
}

impl<E> Clone for Batch<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Batch<'_, E> {}

impl<'a, E> IntoIterator for Batch<'a, E> {
    type Item = &'a Envelope<E>;
    type IntoIter = slice::Iter<'a, Envelope<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'a, E> IntoIterator for &Batch<'a, E> {
    type Item = &'a Envelope<E>;
    type IntoIter = slice::Iter<'a, Envelope<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// What a subscription does: read the ring, or the log while the ring is too young.
pub(super) struct Reader<E: Send + Sync + 'static> {
    topic: Topic<E>,
    cursor: Cursor<E>,
    source: Source<E>,
}

enum Source<E> {
    Ring,
    /// Everything up to `after` is delivered, the ring begins only after `floor`, and `loading` is on its way.
    Log {
        after: Position,
        floor: Position,
        loading: Option<Loading<E>>,
    },
    Page(Page<E>),
}

type Loading<E> = JoinHandle<Result<HistoryPage<E>, HistoryError>>;

struct Page<E> {
    events: Vec<Envelope<E>>,
    /// How many of them are delivered.
    index: usize,
    /// Everything up to here was delivered before the page.
    after: Position,
    /// Everything up to here is delivered with the page.
    through: Position,
}

/// What stands before a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Events,
    End,
}

impl<E: Send + Sync + 'static> Reader<E> {
    pub(super) fn new(topic: &Topic<E>, start: Start) -> Self {
        let (cursor, source) = match start {
            Start::Now => (topic.join_at_end(), Source::Ring),
            Start::After(after) => match topic.join(after) {
                Ok(cursor) => (cursor, Source::Ring),
                Err(gone) => (topic.join_lagged(after), Source::log(gone)),
            },
        };
        Self { topic: topic.clone(), cursor, source }
    }

    /// Everything up to here is delivered.
    pub(super) fn seen(&self) -> Position {
        match &self.source {
            Source::Ring => self.cursor.seen(),
            Source::Log { after, .. } => *after,
            Source::Page(page) => page.seen(),
        }
    }

    /// Waits until [`take`](Self::take) has something to give.
    pub(super) fn poll_ready(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Next, SubscriptionError>> {
        loop {
            match &mut self.source {
                Source::Ring => match ready!(self.cursor.poll_ready(cx)) {
                    Ready::Next => return Poll::Ready(Ok(Next::Events)),
                    Ready::Closed => return Poll::Ready(Ok(Next::End)),
                    Ready::Lagged => {
                        let seen = self.cursor.seen();
                        self.source = rejoin(&mut self.cursor, seen);
                    }
                },
                Source::Log { after, floor, loading } => {
                    let (after, floor) = (*after, *floor);
                    let pending = match loading {
                        Some(pending) => pending,
                        None => match load(&self.topic, after) {
                            Ok(started) => loading.insert(started),
                            Err(error) => return Poll::Ready(Err(error)),
                        },
                    };
                    let loaded = ready!(Pin::new(pending).poll(cx));
                    *loading = None;
                    let page = loaded
                        .unwrap_or_else(|failed| Err(failed.into()))
                        .map_err(|source| SubscriptionError::Log {
                            topic: self.topic.name(),
                            after,
                            source,
                        })
                        .and_then(|page| Page::checked(&self.topic, after, floor, page));
                    match page {
                        Ok(page) => self.source = Source::Page(page),
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                Source::Page(page) if page.index < page.events.len() => {
                    return Poll::Ready(Ok(Next::Events));
                }
                Source::Page(page) => self.source = rejoin(&mut self.cursor, page.through),
            }
        }
    }

    /// The next events, at most `max`; they are delivered. Empty unless [`poll_ready`](Self::poll_ready) said otherwise.
    pub(super) fn take(&mut self, max: usize) -> Batch<'_, E> {
        Batch(match &mut self.source {
            Source::Ring => self.cursor.take(max),
            Source::Log { .. } => &[],
            Source::Page(page) => page.take(max),
        })
    }
}

/// Where a reader that has everything up to `after` reads on.
fn rejoin<E: Send + Sync + 'static>(cursor: &mut Cursor<E>, after: Position) -> Source<E> {
    match cursor.rejoin(after) {
        Ok(()) => Source::Ring,
        Err(gone) => Source::log(gone),
    }
}

/// Starts to read a page after `after` on a thread that may block.
fn load<E: Send + Sync + 'static>(
    topic: &Topic<E>,
    after: Position,
) -> Result<Loading<E>, SubscriptionError> {
    let topic_name = topic.name();
    let history = topic.history().ok_or(SubscriptionError::NoLog { topic: topic_name, after })?;
    let runtime = Handle::try_current()
        .map_err(|_| SubscriptionError::NoRuntime { topic: topic_name, after })?;
    let history = history.clone();
    Ok(runtime.spawn_blocking(move || history(after, PAGE)))
}

impl<E> Source<E> {
    fn log(gone: TooOld) -> Self {
        Self::Log { after: gone.after, floor: gone.floor, loading: None }
    }
}

impl<E: Send + Sync + 'static> Page<E> {
    /// Accepts a page of events after `after` from a log that must reach `floor` at least, since the ring, which is filled
    /// after the log, begins there.
    fn checked(
        topic: &Topic<E>,
        after: Position,
        floor: Position,
        page: HistoryPage<E>,
    ) -> Result<Self, SubscriptionError> {
        let hole = |what| SubscriptionError::Hole { topic: topic.name(), after, what };
        let HistoryPage { events, through } = page;
        let mut last = after;
        for event in &events {
            if event.position <= last {
                return Err(hole("its events do not stand in the order of their positions"));
            }
            last = event.position;
        }
        if last > through {
            return Err(hole("it hands out events that it says it has not reached"));
        }
        if through == after && after < floor {
            return Err(hole("it ends before events that were published"));
        }
        Ok(Self { events, index: 0, after, through })
    }

    fn take(&mut self, max: usize) -> &[Envelope<E>] {
        let ahead = self.events.get(self.index..).unwrap_or(&[]);
        let taken = ahead.get(..max).unwrap_or(ahead);
        self.index += taken.len();
        taken
    }

    fn seen(&self) -> Position {
        if self.index == self.events.len() {
            return self.through;
        }
        let last = self.index.checked_sub(1);
        last.and_then(|index| self.events.get(index)).map_or(self.after, |event| event.position)
    }
}
