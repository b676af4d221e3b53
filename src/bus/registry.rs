//! The topics of one process, found by the type of what they carry.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::carried::Carried;
use super::map::{ComponentKind, Declared, Map, Place, Reference};
use super::topic::{Topic, TopicOptions, TopicStatus};
use super::topics::Topics;
use crate::event::{Envelope, EventSet, TransientEvent};

/// The transient topics of a program, found by type, and what is known of who publishes and who hears.
///
/// It is a handle: all clones are the same bus. Give one to [`AppBuilder::bus`](crate::AppBuilder::bus) to share it with an app,
/// which closes it when it shuts down; an app that is given none makes its own. It needs no app.
///
/// # Two types of one name
/// Each has a topic of its own; a topic is found by its type alone. The [map](Self::map) tells them apart by their types, and
/// names them among its [findings](Map::findings).
///
/// # Examples
/// ```
/// use tidings::{Bus, TransientEvent};
///
/// #[derive(TransientEvent)]
/// struct Tick(u64);
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::new();
/// let mut ticks = bus.topic::<Tick>().subscribe().named("display").open();
/// bus.topic::<Tick>().publisher("clock").publish(Tick(1)).await?;
/// bus.close();
///
/// assert_eq!(ticks.next().await?.expect("one was published")[0].0, 1);
/// assert!(ticks.next().await?.is_none());
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct Bus(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    topics: Vec<Entry>,
    declared: Vec<Declared>,
    apps: Vec<Weak<Wired>>,
    closed: bool,
}

#[derive(Clone)]
struct Entry {
    place: Place,
    topic: Arc<dyn Registered>,
}

trait Registered: Any + Send + Sync {
    fn status(&self) -> TopicStatus;
    fn close(&self);
    fn as_any(&self) -> &dyn Any;
}

impl<T: TransientEvent> Registered for Topic<T> {
    fn status(&self) -> TopicStatus {
        Topic::status(self)
    }

    fn close(&self) {
        Topic::close(self);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The bus has a topic of this type already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("topic {topic} is there already: make it with its options before it is used")]
pub struct TopicExists {
    /// The name of the topic.
    pub topic: &'static str,
}

/// What an app adds to the map of its bus.
pub(crate) struct Wired {
    pub(crate) topics: Arc<Topics>,
    pub(crate) declared: Vec<Declared>,
}

impl Bus {
    /// A bus without topics.
    pub fn new() -> Self {
        Self::default()
    }

    /// The topic of `T`, made with the defaults if it does not exist yet. On a bus that is closed, it is closed too.
    pub fn topic<T: TransientEvent>(&self) -> Topic<T> {
        let mut state = self.0.lock();
        state.get().unwrap_or_else(|| state.add(TopicOptions::default()))
    }

    /// Makes the topic of `T` with these options.
    ///
    /// # Errors
    /// [`TopicExists`] if it was made before, by this or by [`topic`](Self::topic).
    pub fn topic_with<T: TransientEvent>(
        &self,
        options: TopicOptions<T>,
    ) -> Result<Topic<T>, TopicExists> {
        let mut state = self.0.lock();
        match state.get::<T>() {
            Some(_) => Err(TopicExists { topic: T::NAME }),
            None => Ok(state.add(options)),
        }
    }

    /// Says something about a part of the program that nobody can see: what it hears and publishes. Publishers and
    /// subscriptions of the same name belong to it.
    ///
    /// # Examples
    /// ```
    /// # use tidings::{Bus, TransientEvent};
    /// # #[derive(TransientEvent)] struct Quote;
    /// # #[derive(TransientEvent)] struct Alert;
    /// let bus = Bus::new();
    /// bus.component("risk").hears::<Quote>().publishes::<Alert>();
    /// let findings = bus.map().findings();
    /// assert_eq!(findings.len(), 2); // nobody publishes quotes, and nobody hears alerts
    /// ```
    pub fn component(&self, name: impl Into<Box<str>>) -> Component {
        Component { bus: self.clone(), name: name.into() }
    }

    /// What is wired to this bus, and to the apps that share it, as it is now.
    pub fn map(&self) -> Map {
        let (topics, mut declared, apps) = {
            let state = self.0.lock();
            (state.topics.clone(), state.declared.clone(), state.apps.clone())
        };
        let mut found: Vec<_> =
            topics.iter().map(|entry| (entry.place, entry.topic.status())).collect();
        for app in apps.iter().filter_map(Weak::upgrade) {
            found.extend(app.topics.places());
            declared.extend(app.declared.iter().cloned());
        }
        Map::new(found, &declared)
    }

    /// Closes all its topics: nothing is published any more, and subscriptions end when they are level.
    pub fn close(&self) {
        let topics = {
            let mut state = self.0.lock();
            state.closed = true;
            state.topics.clone()
        };
        topics.iter().for_each(|entry| entry.topic.close());
    }

    /// The state of each of its topics, in the order of their names.
    pub fn status(&self) -> Vec<TopicStatus> {
        let topics = self.0.lock().topics.clone();
        let mut status: Vec<_> = topics.iter().map(|entry| entry.topic.status()).collect();
        status.sort_by_key(|topic| topic.name);
        status
    }

    /// Shows an app on the map as long as it lives.
    pub(crate) fn attach(&self, app: &Arc<Wired>) {
        let mut state = self.0.lock();
        state.apps.retain(|known| known.strong_count() > 0);
        state.apps.push(Arc::downgrade(app));
    }
}

impl State {
    fn get<T: TransientEvent>(&self) -> Option<Topic<T>> {
        let wanted = TypeId::of::<T>();
        let entry = self.topics.iter().find(|entry| entry.place.is(wanted))?;
        entry.topic.as_any().downcast_ref().cloned()
    }

    fn add<T: TransientEvent>(&mut self, options: TopicOptions<T>) -> Topic<T> {
        let topic = Topic::with(options);
        if self.closed {
            topic.close();
        }
        self.topics.push(Entry { place: Place::of::<T>(), topic: Arc::new(topic.clone()) });
        topic
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics = self.0.lock().topics.clone();
        let names = topics.iter().map(|entry| entry.topic.status().name);
        f.debug_tuple("Bus").field(&names.collect::<Vec<_>>()).finish()
    }
}

impl fmt::Debug for Wired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wired").field("topics", &self.topics).finish_non_exhaustive()
    }
}

/// A part of the program, to be described; made by [`Bus::component`].
#[derive(Debug, Clone)]
pub struct Component {
    bus: Bus,
    name: Box<str>,
}

impl Component {
    /// It hears events of type `E`.
    pub fn hears<E: Carried>(self) -> Self {
        self.declare(vec![Reference::to::<E>()], Vec::new())
    }

    /// It publishes events of type `E`, or causes them.
    pub fn publishes<E: Carried>(self) -> Self {
        self.declare(Vec::new(), vec![Reference::to::<E>()])
    }

    fn declare(self, hears: Vec<Reference>, publishes: Vec<Reference>) -> Self {
        let (name, kind) = (self.name.clone(), ComponentKind::Other);
        let declared = Declared { name, kind, hears, publishes, condition: None };
        self.bus.0.lock().declared.push(declared);
        self
    }
}

/// Where the topics of an app are found.
#[derive(Debug)]
pub struct Routes<'a> {
    bus: &'a Bus,
    topics: &'a mut Topics,
}

impl<'a> Routes<'a> {
    pub(crate) fn new(bus: &'a Bus, topics: &'a mut Topics) -> Self {
        Self { bus, topics }
    }

    pub(super) fn transient<T: TransientEvent>(&mut self) -> Topic<T> {
        self.bus.topic()
    }

    pub(super) fn durable<S: EventSet>(&mut self) -> Topic<Envelope<S>> {
        self.topics.of()
    }
}
