//! The handle of a topic.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::causation;
use super::hook::Hook;
use super::publisher::Publisher;
use super::ring::{self, Item, Ring, TooOld, Turn};
use super::subscribe::{Overflow, Subscribe};
use crate::actor::Panic;
use crate::event::{Envelope, TransientEvent};
use crate::stream::Position;

/// A reader's place in the topic of a set of events.
pub(crate) type Cursor<E> = ring::Cursor<Envelope<E>>;

/// The error of a log, whichever store keeps it.
pub(crate) type HistoryError = Box<dyn std::error::Error + Send + Sync>;

/// Reads the events of a topic from the log: at most so many (but at least one, if there is one) after this position.
/// It may block.
pub(crate) type History<T> =
    Arc<dyn Fn(Position, usize) -> Result<HistoryPage<T>, HistoryError> + Send + Sync>;

/// One step of reading a topic's events from the log.
#[derive(Debug)]
pub(crate) struct HistoryPage<T> {
    /// The events, in commit order.
    pub(crate) events: Vec<T>,
    /// Every event of the topic up to here was seen and is in `events`. Read on after this position.
    pub(crate) through: Position,
}

/// How many events a transient topic holds unless told otherwise: within a core's second cache, whatever their size up to a
/// hundred bytes. Measured, more brings nothing.
const CAPACITY: usize = 4_096;

/// A typed, ordered, in-memory topic with any number of subscribers.
///
/// A `Topic<Tick>` of a [`TransientEvent`] is made with [`new`](Self::new) and fed by its [publishers](Self::publisher). A
/// `Topic<Envelope<AccountEvent>>` belongs to an app, which alone publishes into it what it has committed; see
/// [`App::topic`](crate::App::topic). Cloning the handle is cheap; all clones are the same topic.
///
/// # Order
/// A subscriber sees the events in the order in which they were published, each once; those of one publisher in the order of its
/// calls.
///
/// # Falling behind
/// Each subscription says what happens then ([`Overflow`]). Publishers wait for one of a transient topic unless it says
/// otherwise, and never for one of a durable topic.
///
/// # The end
/// A transient topic ends when it is [closed](Self::close), not when its publishers are dropped: others may come.
///
/// # Examples
/// ```
/// use tidings::{Topic, TransientEvent};
///
/// #[derive(TransientEvent)]
/// struct Greeting(&'static str);
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let topic = Topic::<Greeting>::new();
/// let mut subscription = topic.subscribe().open();
/// let publisher = topic.publisher("host");
/// publisher.publish(Greeting("hello")).await?;
/// publisher.publish(Greeting("goodbye")).await?;
/// topic.close();
///
/// let mut heard = Vec::new();
/// while let Some(batch) = subscription.next().await? {
///     heard.extend(batch.iter().map(|greeting| greeting.0));
/// }
/// assert_eq!(heard, ["hello", "goodbye"]);
/// assert_eq!(topic.status().published, 2);
/// # Ok(()) }
/// ```
pub struct Topic<T>(Arc<Shared<T>>);

struct Shared<T> {
    name: &'static str,
    ring: Arc<Ring<T>>,
    history: Option<History<T>>,
    hooks: Box<[Arc<dyn Hook<T>>]>,
    causation_depth: u8,
    publishers: Publishers,
    /// What a subscription does that does not say otherwise.
    overflow: Overflow,
}

/// What differs from the defaults of a transient topic.
#[must_use = "a topic is made of it with `Topic::with`"]
pub struct TopicOptions<T> {
    capacity: usize,
    causation_depth: u8,
    hooks: Vec<Arc<dyn Hook<T>>>,
}

impl<T> TopicOptions<T> {
    /// How many events a publisher may be ahead of a subscription that blocks, and how many at least are retained for those
    /// that do not, from 1; 4,096 unless set. A batch has an eighth of it at most, and never more than 128 events.
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = events.max(1);
        self
    }

    /// How many handlers may cause one another by events before one of this topic is refused, from 1 to 255; 64 unless set.
    pub fn causation_depth(mut self, handlers: u8) -> Self {
        self.causation_depth = handlers.max(1);
        self
    }

    /// Calls `hook` around publishing and handling, after those that were given before.
    pub fn hook(mut self, hook: impl Hook<T>) -> Self {
        self.hooks.push(Arc::new(hook));
        self
    }
}

impl<T> Default for TopicOptions<T> {
    fn default() -> Self {
        Self { capacity: CAPACITY, causation_depth: causation::LIMIT, hooks: Vec::new() }
    }
}

impl<T> fmt::Debug for TopicOptions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicOptions")
            .field("capacity", &self.capacity)
            .field("causation_depth", &self.causation_depth)
            .field("hooks", &self.hooks.len())
            .finish()
    }
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
    /// How many events were published since the topic was made.
    pub published: u64,
    /// The position of the last event that must be read from the log; [`Position::START`] for a transient topic.
    pub floor: Position,
    /// The position of the newest event, the same as `floor` if none is held; [`Position::START`] for a transient topic.
    pub head: Position,
    /// Whether the topic is closed and nothing more will come.
    pub closed: bool,
    /// The names of those who may publish; the app's sequencer is none of them.
    pub publishers: Vec<Arc<str>>,
    /// The subscriptions; those of projections are not among them.
    pub subscriptions: Vec<SubscriptionStatus>,
}

/// What a subscription is at, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SubscriptionStatus {
    /// Its name; empty if it was given none.
    pub name: Box<str>,
    /// What happens when it falls behind.
    pub overflow: Overflow,
    /// How many of the topic's events it is not done with yet.
    pub lag: u64,
    /// How many events it has missed, or will find to be gone when it reads on; exact once it has.
    pub missed: u64,
    /// Into which topics it was seen to publish while it handled events.
    pub publishes: Vec<&'static str>,
    /// How many members share it, if it is a [group](crate::Group).
    pub members: Option<usize>,
}

impl<T: TransientEvent> Topic<T> {
    /// A transient topic that belongs to nobody else.
    #[expect(clippy::new_without_default, reason = "a default topic would read like a shared one")]
    pub fn new() -> Self {
        Self::with(TopicOptions::default())
    }

    /// A transient topic that belongs to nobody else, with these options.
    pub fn with(options: TopicOptions<T>) -> Self {
        let TopicOptions { capacity, causation_depth, hooks } = options;
        Self(Arc::new(Shared {
            name: T::NAME,
            ring: Arc::new(Ring::new(capacity, Position::START)),
            history: None,
            hooks: hooks.into_boxed_slice(),
            causation_depth,
            publishers: Publishers::default(),
            overflow: Overflow::Block,
        }))
    }

    /// Who publishes into it, under a name that the status shows.
    pub fn publisher(&self, name: &str) -> Publisher<T> {
        Publisher::new(self, name)
    }

    /// Says that nothing will be published any more: publishers get their events back, and subscriptions end once they have
    /// everything.
    pub fn close(&self) {
        self.0.ring.close();
    }

    #[inline]
    pub(super) fn admits(&self, event: &T) -> bool {
        self.0.hooks.iter().all(|hook| hook.admits(self.0.name, event))
    }

    /// Notes that a handler publishes here; true if it stands at the end of too many.
    pub(super) fn is_too_deep(&self, depth: u8) -> bool {
        causation::note(self.0.name);
        let cut = depth >= self.0.causation_depth;
        if cut {
            tracing::error!(
                topic = self.0.name,
                depth,
                "handlers cause one another in a circle, which is cut here"
            );
        }
        cut
    }

    #[inline]
    pub(super) fn tell_published(&self, events: usize) {
        if events > 0 {
            self.0.hooks.iter().for_each(|hook| hook.published(self.0.name, events));
        }
    }

    pub(super) fn publishers(&self) -> &Publishers {
        &self.0.publishers
    }
}

impl<T: Item> Topic<T> {
    /// The topic's name: that of the transient event, or the category of the durable ones.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Begins a subscription. As it is, it gets every event from now on.
    pub fn subscribe(&self) -> Subscribe<T> {
        Subscribe::new(self, self.0.overflow)
    }

    /// What the topic is at. It takes short locks and counts; ask it as often as a person looks.
    pub fn status(&self) -> TopicStatus {
        let ring = &self.0.ring;
        let extent = ring.extent();
        let subscriptions = ring.standings();
        let oldest = extent.published.saturating_sub(extent.retained as u64);
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
            publishers: self.0.publishers.names(),
            subscriptions: subscriptions
                .iter()
                .map(|standing| SubscriptionStatus {
                    name: standing.name.clone(),
                    overflow: standing.overflow,
                    lag: extent.published.saturating_sub(standing.done()),
                    missed: match standing.overflow {
                        // What it will find to be gone counts already.
                        Overflow::DropOldest => {
                            standing.missed() + oldest.saturating_sub(standing.done())
                        }
                        _ => standing.missed(),
                    },
                    publishes: standing.published_into(),
                    members: standing.members(),
                })
                .collect(),
        }
    }

    pub(super) fn ring(&self) -> &Arc<Ring<T>> {
        &self.0.ring
    }

    #[inline]
    pub(super) fn hooks(&self) -> &[Arc<dyn Hook<T>>] {
        &self.0.hooks
    }

    pub(super) fn history(&self) -> Option<&History<T>> {
        self.0.history.as_ref()
    }
}

impl<E: Send + Sync + 'static> Topic<Envelope<E>> {
    /// A topic that retains at least the newest `capacity` events. `after` is the head of the log when the app started:
    /// events up to it never were in the ring. `history` is the log that subscribers go back to.
    pub(crate) fn durable(
        name: &'static str,
        capacity: usize,
        after: Position,
        history: Option<History<Envelope<E>>>,
        hooks: Box<[Arc<dyn Hook<Envelope<E>>>]>,
    ) -> Self {
        Self(Arc::new(Shared {
            name,
            ring: Arc::new(Ring::new(capacity, after)),
            history,
            hooks,
            causation_depth: causation::LIMIT,
            publishers: Publishers::default(),
            overflow: Overflow::FromLog,
        }))
    }

    /// Publishes `events`, which are durable and ascend in position, and wakes each sleeping reader once.
    pub(crate) fn publish(&self, events: impl IntoIterator<Item = Envelope<E>>) {
        let published = self.turn().publish(events);
        self.published(published);
    }

    /// The same for events with the depth of each.
    pub(crate) fn publish_deep(&self, events: impl IntoIterator<Item = (u8, Envelope<E>)>) {
        let mut turn = self.turn();
        let events = events.into_iter().map(|(depth, event)| turn.publish_at(depth, event));
        let published = events.count();
        drop(turn);
        self.published(published);
    }

    /// Tells the hooks; one that panics keeps nobody from what is committed.
    fn published(&self, events: usize) {
        if events == 0 || self.0.hooks.is_empty() {
            return;
        }
        let told = || self.0.hooks.iter().for_each(|hook| hook.published(self.0.name, events));
        if let Err(panic) = Panic::catch(told) {
            tracing::error!(topic = self.0.name, panic = &*panic.message, "a hook panicked");
        }
    }

    /// Sends every reader to the log, where alone the events up to position `through` are.
    pub(crate) fn send_to_log(&self, through: Position) {
        self.0.ring.send_to_log(through);
    }

    /// The right to publish; one at a time. Worth holding where events are published one by one.
    pub(super) fn turn(&self) -> Turn<'_, Envelope<E>> {
        self.0.ring.publisher()
    }

    /// Says that nothing will be published any more: subscriptions end once they are level.
    pub(crate) fn end(&self) {
        self.0.ring.close();
    }

    /// A cursor before the first event after position `after`.
    ///
    /// # Errors
    /// [`TooOld`] if an event of this topic after `after` is not retained any more, or never was.
    pub(crate) fn join(&self, after: Position) -> Result<Cursor<E>, TooOld> {
        self.0.ring.join(after)
    }
}

impl<T> Clone for Topic<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Topic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// Who may publish into a topic, by name, each as often as it is there.
#[derive(Debug, Default)]
pub(super) struct Publishers(Mutex<Vec<Arc<str>>>);

impl Publishers {
    pub(super) fn enter(&self, name: &Arc<str>) {
        self.0.lock().push(Arc::clone(name));
    }

    pub(super) fn leave(&self, name: &str) {
        let mut names = self.0.lock();
        if let Some(index) = names.iter().position(|known| **known == *name) {
            names.swap_remove(index);
        }
    }

    /// Each name once, in order.
    fn names(&self) -> Vec<Arc<str>> {
        let mut names = self.0.lock().clone();
        names.sort_unstable();
        names.dedup();
        names
    }
}
