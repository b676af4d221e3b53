//! Subscriptions of tasks and threads.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::Stream;

use super::actor::SubscriptionHandle;
use super::batch::{Batch, SharedBatch};
use super::causation::{self, Within};
use super::reader::{Next, Reader};
use super::ring::Item;
use crate::event::Envelope;
use crate::stream::Position;

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
    /// The function that reads the key off an event of topic `topic`, or the copying of an event, panicked.
    /// The subscription is over.
    #[error("the key function of a subscription to topic {topic} panicked: {panic}")]
    Key {
        /// The topic.
        topic: &'static str,
        /// What the panic says.
        panic: Arc<str>,
    },
}

/// One reader of a [`Topic`](crate::Topic): each event from its start on, in order, once. Dropping it unsubscribes.
///
/// To send a command because of a durable event, name the event as its [cause](crate::Sending::caused_by) and derive the
/// command's id from it, as in `CommandId::from_name(&format!("reserve/{}", envelope.event_id))`: seen again after a restart
/// from an older position, it changes nothing.
#[must_use = "dropping a subscription unsubscribes"]
pub struct Subscription<T: Item> {
    reader: Reader<T>,
}

impl<T: Item> Subscription<T> {
    pub(super) fn new(reader: Reader<T>) -> Self {
        Self { reader }
    }

    /// A handle that ends the subscription from elsewhere when it is dropped; one that sleeps wakes up, and ends.
    pub fn handle(&self) -> SubscriptionHandle {
        SubscriptionHandle::of(&self.reader)
    }

    /// Waits for the next events, in order and by reference; `None` when the topic is closed and all were delivered.
    ///
    /// A batch is what is there, at most a few hundred events; in a stream of events it may wait a few microseconds for more.
    /// Its events count as delivered when this returns, and as done
    /// with, for publishers that wait, when it is called again.
    ///
    /// # Errors
    /// [`SubscriptionError`] if events had to be read from the log and could not. The next call tries again.
    ///
    /// # Cancel safety
    /// Safe: a call that is dropped before it returns has delivered nothing.
    pub async fn next(&mut self) -> Result<Option<Batch<'_, T>>, SubscriptionError> {
        match poll_fn(|cx| self.reader.poll_ready(cx)).await? {
            Next::Events => Ok(Some(self.reader.take())),
            Next::End => Ok(None),
        }
    }
}

impl<T: Item> Subscription<T> {
    /// The next events, if there are any and the log need not be read for them; otherwise as [`next`](Self::next), which may
    /// wait some microseconds for more.
    ///
    /// None also means that the topic is closed; ask [`next`](Self::next) or its status to know.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn try_next(&mut self) -> Result<Option<Batch<'_, T>>, SubscriptionError> {
        self.reader.look();
        match self.reader.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(Next::Events)) => Ok(Some(self.reader.take())),
            Poll::Ready(Ok(Next::End)) | Poll::Pending => Ok(None),
            Poll::Ready(Err(error)) => Err(error),
        }
    }
}

impl<E: Send + Sync + 'static> Subscription<Envelope<E>> {
    /// The position up to which everything was delivered: what to keep, to resume with
    /// [`Subscribe::after`](crate::Subscribe::after).
    pub fn position(&self) -> Position {
        self.reader.seen()
    }
}

impl<T: Item> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(&self.reader, "Subscription", f)
    }
}

fn describe<T: Item>(reader: &Reader<T>, shape: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.debug_struct(shape)
        .field("topic", &reader.topic.name())
        .field("name", &reader.standing.name)
        .field("overflow", &reader.standing.overflow)
        .finish_non_exhaustive()
}

/// Hands each batch to `handle`.
pub(super) async fn handle_each<T: Item>(
    mut reader: Reader<T>,
    mut handle: impl AsyncFnMut(Batch<'_, T>),
) -> Result<(), SubscriptionError> {
    let mut handler = Some(Arc::clone(&reader.standing));
    while let Next::Events = poll_fn(|cx| reader.poll_ready(cx)).await? {
        let batch = reader.take();
        let depth = batch.causation_depth();
        // A closure that returns a future may publish before that.
        let future = pin!(causation::within(&mut handler, depth, || handle(batch)));
        Within { handler: &mut handler, depth, future }.await;
    }
    Ok(())
}

/// A subscription as a `Stream` of [shared batches](SharedBatch); made by [`Subscribe::stream`](crate::Subscribe::stream).
///
/// It ends when the topic is closed and all was delivered. After an error it tries again when it is polled again.
#[must_use = "dropping a subscription unsubscribes"]
pub struct EventStream<T: Item> {
    reader: Reader<T>,
    ended: bool,
}

impl<T: Item> EventStream<T> {
    pub(super) fn new(reader: Reader<T>) -> Self {
        Self { reader, ended: false }
    }

    /// A handle that ends the subscription from elsewhere when it is dropped; one that sleeps wakes up, and ends.
    pub fn handle(&self) -> SubscriptionHandle {
        SubscriptionHandle::of(&self.reader)
    }
}

// Nothing in it is pinned, whatever the events are.
impl<T: Item> Unpin for EventStream<T> {}

impl<T: Item> Stream for EventStream<T> {
    type Item = Result<SharedBatch<T>, SubscriptionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.reader.poll_ready(cx).map(|next| match next {
            Ok(Next::Events) => Some(Ok(self.reader.take_shared())),
            Ok(Next::End) => {
                self.ended = true;
                None
            }
            Err(error) => Some(Err(error)),
        })
    }
}

impl<T: Item> fmt::Debug for EventStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(&self.reader, "EventStream", f)
    }
}

/// How often a thread that lingers tells its core so between two polls: about as long as a poll takes in a runtime.
const PAUSES: u32 = 4;

/// A subscription as an iterator of [shared batches](SharedBatch) for a thread; made by
/// [`Subscribe::iter`](crate::Subscribe::iter).
///
/// It waits for the next events, and ends when the topic is closed and all was delivered. After an error it tries again when
/// it is asked again.
///
/// # Panics
/// `next` does within a task of the `futures` crate's own executors; on a thread that runs other tasks it keeps them waiting.
#[must_use = "dropping a subscription unsubscribes"]
pub struct EventIter<T: Item> {
    reader: Reader<T>,
    ended: bool,
}

impl<T: Item> EventIter<T> {
    pub(super) fn new(reader: Reader<T>) -> Self {
        Self { reader, ended: false }
    }

    /// A handle that ends the subscription from elsewhere when it is dropped; one that sleeps wakes up, and ends.
    pub fn handle(&self) -> SubscriptionHandle {
        SubscriptionHandle::of(&self.reader)
    }
}

impl<T: Item> Iterator for EventIter<T> {
    type Item = Result<SharedBatch<T>, SubscriptionError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = poll_fn(|cx| {
            let next = self.reader.poll_ready(cx);
            if next.is_pending() {
                // It is polled again at once where it lingers. On a core that runs two threads the other gets on faster.
                (0..PAUSES).for_each(|_| std::hint::spin_loop());
            }
            next
        });
        match futures_executor::block_on(next) {
            Ok(Next::Events) => Some(Ok(self.reader.take_shared())),
            Ok(Next::End) => {
                self.ended = true;
                None
            }
            Err(error) => Some(Err(error)),
        }
    }
}

impl<T: Item> fmt::Debug for EventIter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(&self.reader, "EventIter", f)
    }
}
