//! How a subscription is described before it begins.

use std::hash::Hash;
use std::sync::Arc;

use serde::Serialize;

use super::batch::Batch;
use super::latest::{Keep, LatestBy};
use super::reader::Reader;
use super::ring::{Item, Join, Standing};
use super::subscription::{EventIter, EventStream, Subscription, SubscriptionError, handle_each};
use super::topic::Topic;
use crate::event::Envelope;
use crate::stream::Position;

/// What happens when a subscription falls behind by more than its topic holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Overflow {
    /// Publishers wait for it: the default of transient topics. Nothing is missed.
    Block,
    /// It goes on with the oldest event that is retained, and is told how many it has missed.
    DropOldest,
    /// It reads on in the log, and comes back: the default of durable topics. Nothing is missed, and nobody waits.
    FromLog,
    /// It gets the newest event of each key that it did not see, and nobody waits.
    Latest,
}

/// A subscription that is about to begin: where it starts, what happens when it falls behind, and in which shape it reads.
///
/// It begins, and events are kept for it, when one of the last five is called:
///
/// | shape | for | a batch is |
/// |---|---|---|
/// | [`open`](Self::open) | a loop in a task | lent until the next one is asked for |
/// | [`for_each`](Self::for_each) | an async closure | lent to the closure |
/// | [`stream`](Self::stream) | combinators of `Stream` | shared with the topic |
/// | [`iter`](Self::iter) | a thread | shared with the topic |
/// | [`actor`](Self::actor), [`batch_actor`](Self::batch_actor) | an actix actor | lent to its method |
///
/// No shape copies an event. Dropping what they return unsubscribes at once.
#[must_use = "a subscription begins when it is opened"]
pub struct Subscribe<T: Item> {
    topic: Topic<T>,
    name: Option<Box<str>>,
    join: Join,
    overflow: Overflow,
    keep: Option<Arc<dyn Keep<T>>>,
}

impl<T: Item> Subscribe<T> {
    pub(super) fn new(topic: &Topic<T>, overflow: Overflow) -> Self {
        Self { topic: topic.clone(), name: None, join: Join::End, overflow, keep: None }
    }

    /// The name under which the status and the map show it. That of a component that also publishes, under the same name,
    /// connects what it hears with what it says.
    pub fn named(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Starts with the oldest event that the topic retains, not with the next one.
    pub fn from_oldest(mut self) -> Self {
        self.join = Join::Oldest;
        self
    }

    /// When it falls behind, goes on with the oldest event that the topic retains, after the rest of the batch in whose middle it
    /// was overtaken. The batch after the gap says exactly [how many were missed](Batch::missed). Nobody waits for it.
    ///
    /// The number is too great by some hundred after a durable topic met an event that it could not decode, which sends all
    /// readers to the log.
    pub fn drop_oldest(mut self) -> Self {
        self.overflow = Overflow::DropOldest;
        self.keep = None;
        self
    }

    /// Delivers, of the events that it did not see yet, only the newest of each key, in the order in which they were
    /// published. For dashboards and prices. Nobody waits for it; beside what is being handled it holds a copy of one event for
    /// each key at most. Of a log it delivers the newest of each key of each page, some hundred events.
    ///
    /// `key` is also called by publishers that need room, and events are cloned and dropped there. None of that may use the topic
    /// or its subscriptions. Where it panics the subscription ends with [`SubscriptionError::Key`].
    pub fn latest_by<K, F>(mut self, key: F) -> Self
    where
        T: Clone,
        K: Hash + Eq + Send + 'static,
        F: Fn(&T) -> K + Send + Sync + 'static,
    {
        self.overflow = Overflow::Latest;
        self.keep = Some(LatestBy::new(key));
        self
    }

    /// Begins, as something to ask for the next batch.
    pub fn open(self) -> Subscription<T> {
        Subscription::new(self.begin(None))
    }

    /// Begins, as a `Stream`.
    pub fn stream(self) -> EventStream<T> {
        EventStream::new(self.begin(None))
    }

    /// Begins, as an iterator that keeps its thread waiting. Not for threads that run tasks.
    pub fn iter(self) -> EventIter<T> {
        EventIter::new(self.begin(None).blocking())
    }

    /// Begins, and calls `handle` with each batch while the future that this returns is polled, until the topic is closed and
    /// all was handled. The next batch is not asked for before the last call is done.
    ///
    /// To let it run by itself, spawn the future: `tokio::spawn(topic.subscribe().for_each(async move |batch| …))`, with a closure that
    /// owns what it uses.
    ///
    /// # Errors
    /// As [`Subscription::next`].
    ///
    /// # Cancel safety
    /// Dropping the future unsubscribes at once, and drops the future of a call that is being made.
    ///
    /// # Examples
    /// ```
    /// use tidings::{Batch, Topic, TransientEvent};
    ///
    /// #[derive(TransientEvent)]
    /// struct Tick(u64);
    ///
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let topic = Topic::<Tick>::new();
    /// let mut sum = 0;
    /// let summing = topic.subscribe().for_each(async |ticks: Batch<'_, Tick>| {
    ///     sum += ticks.iter().map(|tick| tick.0).sum::<u64>();
    /// });
    /// let publisher = topic.publisher("clock");
    /// publisher.publish(Tick(2)).await?;
    /// publisher.publish(Tick(3)).await?;
    /// topic.close();
    /// summing.await?;
    /// assert_eq!(sum, 5);
    /// # Ok(()) }
    /// ```
    pub fn for_each<F>(self, handle: F) -> impl Future<Output = Result<(), SubscriptionError>>
    where
        F: AsyncFnMut(Batch<'_, T>),
    {
        handle_each(self.begin(None), handle)
    }

    /// Begins. `name` is for one that was given none.
    pub(super) fn begin(self, name: Option<&str>) -> Reader<T> {
        let name = self.name.or_else(|| name.map(Box::from)).unwrap_or_default();
        let standing = Standing::new(name, self.overflow);
        Reader::new(&self.topic, standing, self.join, self.keep)
    }
}

impl<E: Send + Sync + 'static> Subscribe<Envelope<E>> {
    /// Starts with the first event after this position: how a subscriber resumes that keeps the position it has finished.
    /// [`Position::START`] is the beginning of the log. What the topic does not retain is read from the log.
    pub fn after(mut self, position: Position) -> Self {
        self.join = Join::After(position);
        self
    }
}

impl<T: Item> std::fmt::Debug for Subscribe<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscribe")
            .field("topic", &self.topic.name())
            .field("overflow", &self.overflow)
            .finish_non_exhaustive()
    }
}
