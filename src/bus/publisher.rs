//! Publishing transient events.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::causation;
use super::doorbell::SeatNumber;
use super::ring::Refusal;
use super::topic::Topic;
use crate::event::TransientEvent;

/// Publishes into a [`Topic`]; any number of them may, from any thread. Made by [`Topic::publisher`].
///
/// Events of one publisher keep their order. Where a subscription [blocks](crate::Overflow::Block), a publisher that is a
/// capacity ahead of it waits, or gets its event back.
///
/// # Publishing in a handler
/// A handler that publishes into the topic that it subscribes to, or into one whose subscribers wait for it, must not wait
/// for room on its own thread: use [`try_publish`](Self::try_publish), or wait in a task of its own. A publisher that waits is
/// told when a reader has made half a capacity of room or has nothing left to read, so a handler must not wait for one either.
///
/// # Circles
/// An event that is published in a handler is one deeper than the event that is handled. At the depth that the topic allows
/// (64 unless set), a circle of handlers that cause one another is cut: the event is refused as [`PublishError::TooDeep`].
///
/// A handler is what the bus calls: `receive` of an actor, an `#[on]` method of a subscriber, the closure of a `for_each`, also while
/// it awaits. A loop over [`next`](crate::Subscription::next), a stream or an iterator is none, and neither is what a handler spawns
/// or gives to `ctx.wait`: what is published there begins anew.
///
/// # Examples
/// ```
/// use tidings::{PublishError, Topic, TransientEvent};
///
/// #[derive(TransientEvent)]
/// struct Tick(u64);
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let topic = Topic::<Tick>::with(tidings::TopicOptions::default().capacity(2));
/// let mut subscription = topic.subscribe().open();
/// let publisher = topic.publisher("clock");
/// publisher.publish(Tick(1)).await?;
/// publisher.try_publish(Tick(2))?;
/// let full = publisher.try_publish(Tick(3));
/// assert!(matches!(full, Err(PublishError::Full(Tick(3)))));
///
/// let first = subscription.next().await?.expect("the topic is open");
/// assert_eq!(first[0].0, 1);
/// # Ok(()) }
/// ```
pub struct Publisher<T: TransientEvent> {
    topic: Topic<T>,
    name: Arc<str>,
}

/// Why an event was not published. It is given back.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PublishError<T> {
    /// A subscription that blocks is a whole capacity behind.
    #[error("the topic is full: a subscription that blocks is a whole capacity behind")]
    Full(T),
    /// The topic is closed.
    #[error("the topic is closed")]
    Closed(T),
    /// So many handlers have caused one another that the topic takes it for a circle.
    #[error("{depth} handlers have caused one another up to this event: a circle is cut here")]
    TooDeep {
        /// The event.
        event: T,
        /// How many handlers stand behind it.
        depth: u8,
    },
}

impl<T> PublishError<T> {
    /// The event.
    pub fn into_event(self) -> T {
        match self {
            Self::Full(event) | Self::Closed(event) | Self::TooDeep { event, .. } => event,
        }
    }
}

impl<T> fmt::Debug for PublishError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("Full"),
            Self::Closed(_) => f.write_str("Closed"),
            Self::TooDeep { depth, .. } => f.debug_struct("TooDeep").field("depth", depth).finish(),
        }
    }
}

impl<T: TransientEvent> Publisher<T> {
    pub(super) fn new(topic: &Topic<T>, name: &str) -> Self {
        let name = Arc::from(name);
        topic.publishers().enter(&name);
        Self { topic: topic.clone(), name }
    }

    /// The topic.
    pub fn topic(&self) -> &Topic<T> {
        &self.topic
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Publishes `event`, and waits for room where it must.
    ///
    /// # Errors
    /// [`PublishError::Closed`] and [`PublishError::TooDeep`], with the event.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the event is not published, and is dropped. Nothing is published before the first poll.
    pub fn publish(&self, event: T) -> Publish<'_, T> {
        let depth = causation::depth();
        Publish { publisher: self, event: Some(event), depth, asked: false, seat: None }
    }

    /// Publishes `event` if there is room.
    ///
    /// # Errors
    /// All of [`PublishError`], with the event.
    #[inline]
    pub fn try_publish(&self, event: T) -> Result<(), PublishError<T>> {
        if !self.topic.admits(&event) {
            return Ok(());
        }
        self.offer(causation::depth(), event)
    }

    /// Publishes `event`, and keeps the thread waiting for room where it must. Not for threads that run tasks.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    ///
    /// # Panics
    /// Within a task of the `futures` crate's own executors, where it must wait; the event is dropped then.
    #[inline]
    pub fn publish_blocking(&self, event: T) -> Result<(), PublishError<T>> {
        let depth = causation::depth();
        if !self.topic.admits(&event) {
            return Ok(());
        }
        match self.offer(depth, event) {
            Err(PublishError::Full(event)) => self.wait_and_publish(depth, event),
            outcome => outcome,
        }
    }

    #[cold]
    fn wait_and_publish(&self, depth: u8, event: T) -> Result<(), PublishError<T>> {
        futures_executor::block_on(Publish {
            publisher: self,
            event: Some(event),
            depth,
            asked: true,
            seat: None,
        })
    }

    /// Publishes all `events`, taking them out of the vector, and waits for room where it must. Subscribers are woken once for
    /// what fits at a time, so it costs less for each event than publishing them one by one.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), without an event: those that are not published are still in `events`.
    ///
    /// # Cancel safety
    /// Safe: dropped before it is ready, the events that are not published are still in `events`.
    pub async fn publish_batch(&self, events: &mut Vec<T>) -> Result<(), PublishError<()>> {
        let depth = causation::depth();
        self.keep_admitted(events);
        match self.offer_batch(depth, events) {
            Err(PublishError::Full(())) => {
                PublishBatch { publisher: self, events, depth, seat: None }.await
            }
            outcome => outcome,
        }
    }

    /// Publishes as many of `events` as there is room for, taking them out of the vector from the front.
    ///
    /// # Errors
    /// All of [`PublishError`], without an event: those that are not published are still in `events`.
    pub fn try_publish_batch(&self, events: &mut Vec<T>) -> Result<(), PublishError<()>> {
        self.keep_admitted(events);
        self.offer_batch(causation::depth(), events)
    }

    /// Publishes all `events`, and keeps the thread waiting for room where it must. Not for threads that run tasks.
    ///
    /// # Errors
    /// As [`publish_batch`](Self::publish_batch).
    ///
    /// # Panics
    /// Within a task of the `futures` crate's own executors, where it must wait.
    pub fn publish_batch_blocking(&self, events: &mut Vec<T>) -> Result<(), PublishError<()>> {
        let depth = causation::depth();
        self.keep_admitted(events);
        match self.offer_batch(depth, events) {
            Err(PublishError::Full(())) => futures_executor::block_on(PublishBatch {
                publisher: self,
                events,
                depth,
                seat: None,
            }),
            outcome => outcome,
        }
    }

    fn keep_admitted(&self, events: &mut Vec<T>) {
        if !self.topic.hooks().is_empty() {
            events.retain(|event| self.topic.admits(event));
        }
    }

    #[inline]
    fn offer(&self, depth: u8, event: T) -> Result<(), PublishError<T>> {
        if depth > 0 && self.topic.is_too_deep(depth) {
            return Err(PublishError::TooDeep { event, depth });
        }
        match self.topic.ring().publish_one(depth, event) {
            Ok(()) => {
                self.topic.tell_published(1);
                Ok(())
            }
            Err((Refusal::Full, event)) => Err(PublishError::Full(event)),
            Err((Refusal::Closed, event)) => Err(PublishError::Closed(event)),
        }
    }

    fn offer_batch(&self, depth: u8, events: &mut Vec<T>) -> Result<(), PublishError<()>> {
        if depth > 0 && self.topic.is_too_deep(depth) {
            return Err(PublishError::TooDeep { event: (), depth });
        }
        let before = events.len();
        let outcome = self.topic.ring().publish_many(depth, events);
        self.topic.tell_published(before - events.len());
        outcome.map_err(|refusal| match refusal {
            Refusal::Full => PublishError::Full(()),
            Refusal::Closed => PublishError::Closed(()),
        })
    }

    /// Waits until there may be room, on a seat that is taken on the first call.
    fn poll_room(&self, seat: &mut Option<SeatNumber>, cx: &Context<'_>) -> Poll<()> {
        let ring = self.topic.ring();
        let seat = seat.get_or_insert_with(|| ring.room.join());
        ring.room.sleep(seat, cx, || ring.has_room())
    }

    fn leave(&self, seat: &mut Option<SeatNumber>) {
        if let Some(seat) = seat.take() {
            self.topic.ring().room.leave(&seat);
        }
    }
}

impl<T: TransientEvent> Clone for Publisher<T> {
    fn clone(&self) -> Self {
        Self::new(&self.topic, &self.name)
    }
}

impl<T: TransientEvent> Drop for Publisher<T> {
    fn drop(&mut self) {
        self.topic.publishers().leave(&self.name);
    }
}

impl<T: TransientEvent> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("topic", &self.topic.name())
            .field("name", &self.name)
            .finish()
    }
}

/// Publishes one event; made by [`Publisher::publish`].
#[must_use = "an event is published when this is awaited"]
pub struct Publish<'p, T: TransientEvent> {
    publisher: &'p Publisher<T>,
    event: Option<T>,
    depth: u8,
    /// Whether the hooks were asked.
    asked: bool,
    seat: Option<SeatNumber>,
}

// The event is moved, never pinned.
impl<T: TransientEvent> Unpin for Publish<'_, T> {}

impl<T: TransientEvent> Future for Publish<'_, T> {
    type Output = Result<(), PublishError<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        while let Some(event) = this.event.take() {
            if !std::mem::replace(&mut this.asked, true) && !this.publisher.topic.admits(&event) {
                return Poll::Ready(Ok(()));
            }
            match this.publisher.offer(this.depth, event) {
                Err(PublishError::Full(event)) => this.event = Some(event),
                outcome => return Poll::Ready(outcome),
            }
            if this.publisher.poll_room(&mut this.seat, cx).is_pending() {
                return Poll::Pending;
            }
        }
        // Polled again after it was ready: the event is gone.
        Poll::Pending
    }
}

impl<T: TransientEvent> Drop for Publish<'_, T> {
    fn drop(&mut self) {
        self.publisher.leave(&mut self.seat);
    }
}

impl<T: TransientEvent> fmt::Debug for Publish<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish").field("publisher", self.publisher).finish_non_exhaustive()
    }
}

struct PublishBatch<'p, T: TransientEvent> {
    publisher: &'p Publisher<T>,
    events: &'p mut Vec<T>,
    depth: u8,
    seat: Option<SeatNumber>,
}

impl<T: TransientEvent> Future for PublishBatch<'_, T> {
    type Output = Result<(), PublishError<()>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match this.publisher.offer_batch(this.depth, this.events) {
                Err(PublishError::Full(())) => {}
                outcome => return Poll::Ready(outcome),
            }
            if this.publisher.poll_room(&mut this.seat, cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl<T: TransientEvent> Drop for PublishBatch<'_, T> {
    fn drop(&mut self) {
        self.publisher.leave(&mut self.seat);
    }
}
