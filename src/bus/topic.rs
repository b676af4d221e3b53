//! The handle of a topic.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::ring::{self, Publisher, Ring, TooOld};
use super::subscription::{Start, Subscription};
use crate::event::Envelope;
use crate::stream::Position;

/// A reader's place in a [`Topic`].
pub(crate) type Cursor<E> = ring::Cursor<Envelope<E>>;

/// The error of a log, whichever store keeps it.
pub(crate) type HistoryError = Box<dyn std::error::Error + Send + Sync>;

/// Reads the events of a topic from the log: at most so many (but at least one, if there is one) after this position.
/// It may block.
pub(crate) type History<E> =
    Arc<dyn Fn(Position, usize) -> Result<HistoryPage<E>, HistoryError> + Send + Sync>;

/// One step of reading a topic's events from the log.
#[derive(Debug)]
pub(crate) struct HistoryPage<E> {
    /// The events, in commit order.
    pub(crate) events: Vec<Envelope<E>>,
    /// Every event of the topic up to here was seen and is in `events`. Read on after this position.
    pub(crate) through: Position,
}

/// A typed, ordered, durable topic: the committed events of one kind of aggregate, for any number of subscribers.
///
/// Cloning the handle is cheap; all clones are the same topic.
///
/// # Examples
/// ```
/// # #[cfg(feature = "testing")]
/// # {
/// use tidings::testing::TopicFeed;
/// use tidings::{Start, Topic};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidings::SubscriptionError> {
/// let feed = TopicFeed::<String>::new("greetings", 1_024);
/// let topic: Topic<String> = feed.topic();
/// let mut subscription = topic.subscribe(Start::Now);
/// feed.publish(feed.envelopes(["hello".to_owned(), "goodbye".to_owned()]));
/// feed.close();
///
/// let mut heard = Vec::new();
/// while let Some(batch) = subscription.next().await? {
///     heard.extend(batch.iter().map(|envelope| envelope.event.clone()));
/// }
/// assert_eq!(heard, ["hello", "goodbye"]);
/// assert_eq!(topic.status().published, 2);
/// # Ok(()) }
/// # main().unwrap();
/// # }
/// ```
pub struct Topic<E>(Arc<Shared<E>>);

struct Shared<E> {
    name: &'static str,
    ring: Arc<Ring<Envelope<E>>>,
    history: Option<History<E>>,
}

/// What a [`Topic`] is at, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TopicStatus {
    /// The topic's name.
    pub name: &'static str,
    /// How many subscribers read it, projections and such among them.
    pub subscribers: usize,
    /// How many of them sleep because they have read everything.
    pub idle: usize,
    /// How many events the topic holds in memory.
    pub retained: usize,
    /// How many of the newest events it holds at least, once so many were published.
    pub capacity: usize,
    /// How many events were published since the app started.
    pub published: u64,
    /// The position of the last event that must be read from the log.
    pub floor: Position,
    /// The position of the newest event; the same as `floor` if none is held.
    pub head: Position,
    /// Whether the app is shut down and nothing more will come.
    pub closed: bool,
}

impl<E: Send + Sync + 'static> Topic<E> {
    /// A topic that retains at least the newest `capacity` events. `after` is the head of the log when the app started:
    /// events up to it never were in the ring. `history` is the log that subscribers go back to.
    pub(crate) fn new(
        name: &'static str,
        capacity: usize,
        after: Position,
        history: Option<History<E>>,
    ) -> Self {
        Self(Arc::new(Shared { name, ring: Arc::new(Ring::new(capacity, after)), history }))
    }

    /// The topic's name: the category of its events.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// What the topic is at. It takes a short lock and counts; ask it as often as a person looks.
    pub fn status(&self) -> TopicStatus {
        let ring = &self.0.ring;
        let extent = ring.extent();
        TopicStatus {
            name: self.0.name,
            subscribers: ring.bell.readers(),
            idle: ring.bell.idle(),
            retained: extent.retained,
            capacity: ring.capacity(),
            published: extent.published,
            floor: extent.floor,
            head: extent.head,
            closed: ring.is_closed(),
        }
    }

    /// Subscribes from `start` on; every event from there is delivered in order, once, from the log where it has to.
    pub fn subscribe(&self, start: Start) -> Subscription<E> {
        Subscription::new(self, start)
    }

    /// Publishes `events`, which are durable and ascend in position, and wakes each sleeping reader once.
    pub(crate) fn publish(&self, events: impl IntoIterator<Item = Envelope<E>>) {
        self.publisher().publish(events);
    }

    /// The right to publish; one at a time. Worth holding where events are published one by one.
    pub(super) fn publisher(&self) -> Publisher<'_, Envelope<E>> {
        self.0.ring.publisher()
    }

    /// Says that nothing will be published any more: subscriptions end once they are level.
    pub(crate) fn close(&self) {
        self.0.ring.close();
    }

    /// A cursor before the first event after position `after`.
    ///
    /// # Errors
    /// [`TooOld`] if an event of this topic after `after` is not retained any more, or never was.
    pub(crate) fn join(&self, after: Position) -> Result<Cursor<E>, TooOld> {
        self.0.ring.join(after)
    }

    pub(super) fn join_at_end(&self) -> Cursor<E> {
        self.0.ring.join_at_end()
    }

    /// A cursor that has to go to the log first.
    pub(super) fn join_lagged(&self, seen: Position) -> Cursor<E> {
        self.0.ring.join_lagged(seen)
    }

    pub(super) fn history(&self) -> Option<&History<E>> {
        self.0.history.as_ref()
    }
}

impl<E> Clone for Topic<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E> fmt::Debug for Topic<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("name", &self.0.name).finish_non_exhaustive()
    }
}
