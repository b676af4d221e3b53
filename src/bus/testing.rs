//! A topic that a test or a benchmark feeds itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ring::Turn;
use super::topic::{HistoryPage, Topic};
use crate::clock::Timestamp;
use crate::event::{Envelope, Header};
use crate::stream::{Position, StreamId, Version};

/// A [`Topic`] that is fed by hand, without an app: to test subscribers, and to measure.
///
/// # Examples
/// ```
/// use tidings::testing::TopicFeed;
///
/// let feed = TopicFeed::new("numbers", 1_024);
/// feed.publish(feed.envelopes([1, 2, 3]));
/// assert_eq!(feed.topic().status().head.as_u64(), 3);
/// ```
pub struct TopicFeed<E> {
    topic: Topic<Envelope<E>>,
    stream: StreamId,
    last: AtomicU64,
}

impl<E: Send + Sync + 'static> TopicFeed<E> {
    /// A topic that retains the newest `capacity` events, without a log to fall back to.
    ///
    /// # Panics
    /// If `name` cannot be the category of a stream.
    pub fn new(name: &'static str, capacity: usize) -> Self {
        Self::of(name, Topic::durable(name, capacity, Position::START, None, Box::default()))
    }

    /// A topic with a log that was at position `after` when the topic was made.
    ///
    /// `log` reads at most so many events (but at least one, if there is one) after this position, and says up to where it
    /// has looked.
    ///
    /// # Panics
    /// If `name` cannot be the category of a stream.
    pub fn with_log<L>(name: &'static str, capacity: usize, after: Position, log: L) -> Self
    where
        L: Fn(Position, usize) -> Result<(Vec<Envelope<E>>, Position), ReadError>
            + Send
            + Sync
            + 'static,
    {
        let history = move |after, limit| {
            log(after, limit).map(|(events, through)| HistoryPage { events, through })
        };
        let topic = Topic::durable(name, capacity, after, Some(Arc::new(history)), Box::default());
        Self::of(name, topic)
    }

    fn of(name: &'static str, topic: Topic<Envelope<E>>) -> Self {
        #[expect(clippy::expect_used, reason = "a test's mistake, and documented")]
        let stream = StreamId::new(name, "1").expect("the name must be a category");
        let last = AtomicU64::new(topic.status().head.as_u64());
        Self { topic, stream, last }
    }

    /// The topic.
    pub fn topic(&self) -> Topic<Envelope<E>> {
        self.topic.clone()
    }

    /// Puts each event into an envelope with the next position, of one stream, at time zero.
    pub fn envelopes<I>(&self, events: I) -> impl Iterator<Item = Envelope<E>>
    where
        I: IntoIterator<Item = E>,
    {
        let blank = Header::new(self.stream.clone(), "event", 1, Timestamp::from_micros(0));
        events.into_iter().map(move |event| {
            let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
            let mut header = blank.clone();
            header.position = Position::new(number);
            header.version = Version::new(number);
            Envelope { header, event }
        })
    }

    /// Publishes a batch. Positions must ascend from call to call.
    pub fn publish(&self, events: impl IntoIterator<Item = Envelope<E>>) {
        self.topic.publish(events);
    }

    /// The right to publish, held: for a loop that publishes one by one.
    pub fn publisher(&self) -> FeedPublisher<'_, E> {
        FeedPublisher(self.topic.turn())
    }

    /// Says that nothing more will come.
    pub fn close(&self) {
        self.topic.end();
    }
}

/// Why a log could not be read.
pub type ReadError = Box<dyn std::error::Error + Send + Sync>;

impl<E> fmt::Debug for TopicFeed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicFeed").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// The right to publish into a [`TopicFeed`]; one at a time.
pub struct FeedPublisher<'a, E>(Turn<'a, Envelope<E>>);

impl<E: Send + Sync + 'static> FeedPublisher<'_, E> {
    /// Publishes a batch.
    pub fn publish(&mut self, events: impl IntoIterator<Item = Envelope<E>>) {
        self.0.publish(events);
    }
}

impl<E> fmt::Debug for FeedPublisher<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedPublisher").finish_non_exhaustive()
    }
}
