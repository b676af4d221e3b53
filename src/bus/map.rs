//! The map: who publishes what, and who hears it.
//!
//! # What it knows
//! What was declared: by `#[subscriber]`, by the `#[on]` lists of projections, by aggregates, by the [components of the
//! bus](crate::Bus::component). What is live: publishers and subscriptions, each under its name. And what was seen: into which
//! topics a handler has published. One name is one component, however it is known; aggregates and projections have
//! names of their own.
//!
//! # What it cannot know
//! What a handler hands to another task and publishes there, and what a subscription without a name does with what it hears.

mod findings;
mod mermaid;

use std::any::{TypeId, type_name};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

pub use self::findings::Finding;
use super::carried::{Carried, Routed};
use super::subscribe::Overflow;
use super::topic::{SubscriptionStatus, TopicStatus};

/// What is wired to a [`Bus`](crate::Bus) at one moment.
///
/// # Examples
/// ```
/// use tidings::{Bus, TransientEvent};
///
/// #[derive(TransientEvent)]
/// struct Tick;
///
/// let bus = Bus::new();
/// let clock = bus.topic::<Tick>().publisher("clock");
/// let display = bus.topic::<Tick>().subscribe().named("display").drop_oldest().open();
/// let text = bus.map().to_mermaid();
/// assert_eq!(
///     text,
///     r#"flowchart LR
///     t0(["Tick"])
///     c0["clock"]
///     c1["display"]
///     c0 --> t0
///     t0 -->|"drop oldest, lag 0"| c1
/// "#
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Map {
    /// Every topic, in the order of their names.
    pub topics: Vec<MapTopic>,
    /// Everyone who publishes or hears, in the order of their names.
    pub components: Vec<MapComponent>,
}

/// A topic on a [`Map`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MapTopic {
    /// Its name; with its type, if another one has the same name.
    pub name: String,
    /// Whether a log keeps its events.
    pub keeping: Keeping,
    /// The type that it carries.
    pub carries: &'static str,
    /// The names of the events on it.
    pub events: Vec<&'static str>,
    /// How many of the newest events it holds at least; none if nobody has made it yet.
    pub capacity: Option<usize>,
    /// How many events were published since it was made.
    pub published: u64,
    /// Its name without the type.
    #[serde(skip)]
    plain: &'static str,
}

/// Whether a log keeps what a topic carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeping {
    /// Its events live in memory only.
    Transient,
    /// Its events are those of an aggregate, and stand in the log.
    Durable,
}

/// Who publishes or hears, on a [`Map`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MapComponent {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ComponentKind,
    /// What it hears, in the order of the topics.
    pub hears: Vec<MapHearing>,
    /// What it publishes, in the order of the topics.
    pub publishes: Vec<MapPublishing>,
    /// Why it has stopped, or cannot go on.
    pub trouble: Option<String>,
}

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ComponentKind {
    /// It is known by the name of a publisher, of a subscription, or of a declaration.
    Other,
    /// A subscriber by event type.
    Subscriber,
    /// An aggregate; its name is its category.
    Aggregate,
    /// A projection.
    Projection,
    /// A reactor.
    Reactor,
}

/// What a component hears of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MapHearing {
    /// The topic.
    pub topic: String,
    /// The events.
    pub events: Vec<&'static str>,
    /// Why it is on the map.
    pub grounds: Grounds,
    /// What its subscriptions are at; empty if it has none now.
    pub subscriptions: Vec<SubscriptionStatus>,
}

/// What a component publishes on one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MapPublishing {
    /// The topic.
    pub topic: String,
    /// The events; all of the topic, unless it was declared which.
    pub events: Vec<&'static str>,
    /// Why it is on the map.
    pub grounds: Grounds,
}

/// Why something is on a [`Map`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grounds {
    /// Somebody has said so.
    Declared,
    /// There is a publisher, or a subscription.
    Live,
    /// It was seen to happen while events were handled.
    Seen,
}

/// A topic, known by the type that it carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    carries: TypeId,
    type_name: &'static str,
    name: &'static str,
    keeping: Keeping,
    events: &'static [&'static str],
}

impl Place {
    pub(crate) fn of<T: Routed>() -> Self {
        Self {
            carries: TypeId::of::<T>(),
            type_name: type_name::<T>(),
            name: T::TOPIC,
            keeping: if T::set().is_some() { Keeping::Durable } else { Keeping::Transient },
            events: T::EVENTS,
        }
    }

    pub(super) fn is(&self, carries: TypeId) -> bool {
        self.carries == carries
    }
}

/// Some events of a topic.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    place: Place,
    events: Vec<&'static str>,
}

impl Reference {
    pub(crate) fn to<E: Carried>() -> Self {
        let place = Place::of::<E::On>();
        // What is no event among others stands for all of them: an enum of events.
        let one = place.events.contains(&E::EVENT);
        let events = if one { vec![E::EVENT] } else { once_each(place.events) };
        Self { place, events }
    }

    pub(crate) fn to_some<T: Routed>(events: Vec<&'static str>) -> Self {
        Self { place: Place::of::<T>(), events: once_each(&events) }
    }
}

/// What somebody says about a component.
#[derive(Clone)]
pub(crate) struct Declared {
    pub(crate) name: Box<str>,
    pub(crate) kind: ComponentKind,
    pub(crate) hears: Vec<Reference>,
    pub(crate) publishes: Vec<Reference>,
    pub(crate) condition: Option<Arc<dyn Fn() -> Condition + Send + Sync>>,
}

/// How a component is.
#[derive(Debug)]
pub(crate) struct Condition {
    /// How far it is behind, if it has no subscription that could say it.
    pub(crate) lag: Option<u64>,
    pub(crate) trouble: Option<String>,
}

impl fmt::Debug for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Declared").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Map {
    pub(super) fn new(found: Vec<(Place, TopicStatus)>, declared: &[Declared]) -> Self {
        let mut draft =
            Draft { topics: Topics::new(&found, declared), components: BTreeMap::new() };
        declared.iter().for_each(|declared| draft.declared(declared));
        for (place, status) in &found {
            draft.live(place, status);
        }
        // After everything that stands on better grounds.
        for (place, status) in &found {
            draft.seen(place, status);
        }
        let mut components: Vec<_> = draft.components.into_values().collect();
        components.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
        for component in &mut components {
            component.hears.sort_by(|a, b| a.topic.cmp(&b.topic));
            component.publishes.sort_by(|a, b| a.topic.cmp(&b.topic));
        }
        Self { topics: draft.topics.shown, components }
    }

    /// What is strange about the wiring, in the order of [`Finding`]'s variants. None is an error.
    ///
    /// # What is not reported
    /// - A durable event that nobody hears, in a program without projections and subscribers by event type: it keeps a log.
    /// - A transient event that nobody hears, unless it was declared that it is published, and a subscription to what nobody
    ///   publishes, unless it was declared with the type of the event: who is not there may come later.
    pub fn findings(&self) -> Vec<Finding> {
        findings::of(self)
    }

    /// The map as a flowchart for [Mermaid](https://mermaid.js.org). What was only seen to happen is dotted.
    pub fn to_mermaid(&self) -> String {
        mermaid::text(self)
    }

    fn topic(&self, name: &str) -> Option<&MapTopic> {
        self.topics.iter().find(|topic| topic.name == name)
    }
}

/// The topics of a map, and how they are found.
struct Topics {
    names: Vec<(TypeId, String)>,
    shown: Vec<MapTopic>,
}

impl Topics {
    fn new(found: &[(Place, TopicStatus)], declared: &[Declared]) -> Self {
        let mut places: Vec<(Place, Option<&TopicStatus>)> = Vec::new();
        let found = found.iter().map(|(place, status)| (*place, Some(status)));
        let said =
            declared.iter().flat_map(|declared| declared.hears.iter().chain(&declared.publishes));
        for (place, status) in found.chain(said.map(|reference| (reference.place, None))) {
            if !places.iter().any(|(known, _)| known.is(place.carries)) {
                places.push((place, status));
            }
        }
        let name = |place: &Place| {
            let same = places.iter().filter(|(other, _)| other.name == place.name).count();
            match same {
                1 => place.name.to_owned(),
                _ => format!("{} ({})", place.name, place.type_name),
            }
        };
        let names = places.iter().map(|(place, _)| (place.carries, name(place))).collect();
        let shown = places.iter().map(|(place, status)| MapTopic {
            name: name(place),
            keeping: place.keeping,
            carries: place.type_name,
            events: once_each(place.events),
            capacity: status.map(|status| status.capacity),
            published: status.map_or(0, |status| status.published),
            plain: place.name,
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort_by(|a, b| a.name.cmp(&b.name));
        Self { names, shown }
    }

    fn name(&self, place: &Place) -> String {
        let found = self.names.iter().find(|(carries, _)| place.is(*carries));
        found.map_or_else(|| place.name.to_owned(), |(_, name)| name.clone())
    }

    /// The one topic that is named so; none if there are several.
    fn only(&self, plain: &str) -> Option<&MapTopic> {
        let mut named = self.shown.iter().filter(|topic| topic.plain == plain);
        named.next().filter(|_| named.next().is_none())
    }
}

/// A map in the making.
struct Draft {
    topics: Topics,
    /// By name. Aggregates and projections have names of their own, which nothing is to be confused with.
    components: BTreeMap<(ComponentKind, String), MapComponent>,
}

impl Draft {
    fn component(&mut self, kind: ComponentKind, name: &str) -> &mut MapComponent {
        let key = (kind.max(ComponentKind::Subscriber), name.to_owned());
        let component = self.components.entry(key).or_insert_with(|| MapComponent {
            name: name.to_owned(),
            kind,
            hears: Vec::new(),
            publishes: Vec::new(),
            trouble: None,
        });
        component.kind = component.kind.max(kind);
        component
    }

    fn declared(&mut self, declared: &Declared) {
        let named = |topics: &Topics, references: &[Reference]| -> Vec<_> {
            let named = references.iter();
            named
                .map(|reference| (topics.name(&reference.place), reference.events.clone()))
                .collect()
        };
        let hears = named(&self.topics, &declared.hears);
        let publishes = named(&self.topics, &declared.publishes);
        let condition = declared.condition.as_ref().map(|condition| condition());
        let lag = condition.as_ref().and_then(|condition| condition.lag);
        let component = self.component(declared.kind, &declared.name);
        for (topic, events) in hears {
            let hearing = component.hearing(topic, Grounds::Declared);
            add(&mut hearing.events, &events);
            if let (Some(lag), true) = (lag, hearing.subscriptions.is_empty()) {
                hearing.subscriptions.push(SubscriptionStatus {
                    name: declared.name.clone(),
                    overflow: Overflow::FromLog,
                    lag,
                    missed: 0,
                    members: None,
                    publishes: Vec::new(),
                });
            }
        }
        for (topic, events) in publishes {
            component.publishing(topic, Grounds::Declared, &events);
        }
        component.trouble = component.trouble.take().or(condition.and_then(|found| found.trouble));
    }

    fn live(&mut self, place: &Place, status: &TopicStatus) {
        let topic = self.topics.name(place);
        for name in &status.publishers {
            let publisher = self.component(ComponentKind::Other, name);
            publisher.publishing(topic.clone(), Grounds::Live, place.events);
        }
        for (index, subscription) in status.subscriptions.iter().enumerate() {
            let component =
                self.component(ComponentKind::Other, &hearer(subscription, index, &topic));
            let hearing = component.hearing(topic.clone(), Grounds::Live);
            if hearing.grounds == Grounds::Live {
                add(&mut hearing.events, place.events);
            }
            hearing.subscriptions.push(subscription.clone());
        }
    }

    fn seen(&mut self, place: &Place, status: &TopicStatus) {
        let topic = self.topics.name(place);
        for (index, subscription) in status.subscriptions.iter().enumerate() {
            for plain in &subscription.publishes {
                let Some(into) = self.topics.only(plain) else {
                    continue;
                };
                let (into, events) = (into.name.clone(), into.events.clone());
                let component =
                    self.component(ComponentKind::Other, &hearer(subscription, index, &topic));
                component.publishing(into, Grounds::Seen, &events);
            }
        }
    }
}

/// The name of who holds a subscription. One without a name must not be taken for another.
fn hearer(subscription: &SubscriptionStatus, index: usize, topic: &str) -> String {
    match &*subscription.name {
        "" => format!("subscription {} of {topic}, without a name", index + 1),
        name => name.to_owned(),
    }
}

impl MapComponent {
    fn hearing(&mut self, topic: String, grounds: Grounds) -> &mut MapHearing {
        let known = self.hears.iter().position(|hearing| hearing.topic == topic);
        let index = known.unwrap_or_else(|| {
            let (events, subscriptions) = (Vec::new(), Vec::new());
            self.hears.push(MapHearing { topic, events, grounds, subscriptions });
            self.hears.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "it was found, or pushed, just above")]
        &mut self.hears[index]
    }

    /// Adds events, unless better grounds say which events of the topic it publishes.
    fn publishing(&mut self, topic: String, grounds: Grounds, events: &[&'static str]) {
        match self.publishes.iter_mut().find(|publishing| publishing.topic == topic) {
            Some(known) if known.grounds == grounds => add(&mut known.events, events),
            Some(_) => {}
            None => {
                self.publishes.push(MapPublishing { topic, events: once_each(events), grounds })
            }
        }
    }
}

fn add(known: &mut Vec<&'static str>, events: &[&'static str]) {
    for event in events {
        if !known.contains(event) {
            known.push(event);
        }
    }
}

/// The names, each once: two events of one set may be versions of the same.
fn once_each(names: &[&'static str]) -> Vec<&'static str> {
    let mut events = Vec::with_capacity(names.len());
    add(&mut events, names);
    events
}
