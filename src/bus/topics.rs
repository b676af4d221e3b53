//! The topics of an app, one for each set of events.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::hook::Hook;
use super::map::Place;
use super::topic::{History, HistoryError, HistoryPage, Topic, TopicStatus};
use crate::actor::Panic;
use crate::event::{Envelope, EventSet, ReadAs, Recorded, SetInfo};
use crate::store::{Decoder, Filter};
use crate::stream::Position;

/// All topics of an app.
pub(crate) struct Topics {
    decoder: Decoder,
    /// The head of the log when the app started.
    start: Position,
    capacity: usize,
    topics: HashMap<TypeId, Box<dyn AnyTopic>>,
    /// The [`Hooks`] of topics that are not made yet.
    hooks: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

type Hooks<S> = Vec<Arc<dyn Hook<Envelope<S>>>>;

trait AnyTopic: Any + Send + Sync {
    fn place(&self) -> Place;
    fn status(&self) -> TopicStatus;
    fn close(&self);
    fn as_any(&self) -> &dyn Any;

    /// Publishes those of `events` that belong to the topic.
    fn publish_recorded(&self, events: &[Recorded], decoder: &Decoder);
}

impl<S: EventSet> AnyTopic for Topic<Envelope<S>> {
    fn place(&self) -> Place {
        Place::of::<Envelope<S>>()
    }

    fn status(&self) -> TopicStatus {
        Topic::status(self)
    }

    fn close(&self) {
        self.end();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn publish_recorded(&self, events: &[Recorded], decoder: &Decoder) {
        let set = SetInfo::of::<S>();
        let own = events.iter().filter(|event| set.reads(&event.header.name));
        let (mut envelopes, failure) = decode::<S>(own.cloned(), decoder);
        // The events that one is read as are handled as one, which a ring does not know: readers find them in the log.
        let split = envelopes.windows(2).position(
            |pair| matches!(pair, [one, next] if one.header.position == next.header.position),
        );
        envelopes.truncate(split.unwrap_or(envelopes.len()));
        self.publish(envelopes);
        if let Some(unknown) = events.iter().rev().find(|event| set.unknown(event).is_some()) {
            // Its durable readers have to meet it; what they do then is their own policy.
            self.send_to_log(unknown.header.position);
        }
        if let Some(failure) = &failure {
            tracing::error!(
                error = &**failure as &dyn std::error::Error,
                topic = self.name(),
                "an event cannot be published; the topic's readers find it in the log"
            );
        }
        if let Some(last) = events.last().filter(|_| failure.is_some() || split.is_some()) {
            self.send_to_log(last.header.position);
        }
    }
}

impl Topics {
    /// How many events a topic retains unless the app says otherwise: several of the largest group commits.
    pub(crate) const CAPACITY: usize = 16_384;

    pub(crate) fn new(decoder: Decoder, start: Position, capacity: usize) -> Self {
        Self { decoder, start, capacity, topics: HashMap::new(), hooks: HashMap::new() }
    }

    /// Gives a hook to the topic of the events of `S`, which is not made yet.
    pub(crate) fn hook<S: EventSet>(&mut self, hook: Arc<dyn Hook<Envelope<S>>>) {
        let hooks = self.hooks.entry(TypeId::of::<S>());
        let hooks = hooks.or_insert_with(|| Box::new(Hooks::<S>::new()));
        if let Some(hooks) = hooks.downcast_mut::<Hooks<S>>() {
            hooks.push(hook);
        }
    }

    /// The topic of the events of `S`, made if it does not exist yet.
    pub(crate) fn of<S: EventSet>(&mut self) -> Topic<Envelope<S>> {
        if let Some(topic) = self.get() {
            return topic;
        }
        let history = history(self.decoder.clone());
        let hooks = self.hooks.remove(&TypeId::of::<S>());
        let hooks = hooks.and_then(|hooks| hooks.downcast::<Hooks<S>>().ok());
        let hooks = hooks.map_or_else(Box::default, |hooks| hooks.into_boxed_slice());
        let topic = Topic::durable(S::CATEGORY, self.capacity, self.start, Some(history), hooks);
        self.topics.insert(TypeId::of::<S>(), Box::new(topic.clone()));
        topic
    }

    /// The topic of the events of `S`, if it exists.
    pub(crate) fn get<S: EventSet>(&self) -> Option<Topic<Envelope<S>>> {
        self.topics.get(&TypeId::of::<S>())?.as_any().downcast_ref::<Topic<Envelope<S>>>().cloned()
    }

    /// The state of each topic, in the order of their names.
    pub(crate) fn status(&self) -> Vec<TopicStatus> {
        let mut status: Vec<_> = self.topics.values().map(|topic| topic.status()).collect();
        status.sort_unstable_by_key(|topic| topic.name);
        status
    }

    /// Each topic with its state, in the order of their names.
    pub(super) fn places(&self) -> Vec<(Place, TopicStatus)> {
        let topics = self.topics.values().map(|topic| (topic.place(), topic.status()));
        let mut topics: Vec<_> = topics.collect();
        topics.sort_unstable_by_key(|(_, status)| status.name);
        topics
    }

    /// Publishes `events` as the log holds them, in every topic that they belong to. Readers of a topic whose events cannot
    /// all be decoded read them from the log; no other topic waits for that.
    pub(crate) fn publish(&self, events: &[Recorded]) {
        self.topics.values().for_each(|topic| topic.publish_recorded(events, &self.decoder));
    }

    /// Tells every subscriber that nothing more will come.
    pub(crate) fn close(&self) {
        self.topics.values().for_each(|topic| topic.close());
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.topics.values().map(|topic| topic.status().name)).finish()
    }
}

/// Reads the events of a topic from the log.
fn history<S: EventSet>(decoder: Decoder) -> History<Envelope<S>> {
    let filter = Filter::Names(SetInfo::of::<S>().stored_names().collect());
    Arc::new(move |after, limit| {
        let page = decoder.store().read_log(after, &filter, limit)?;
        let (events, failure) = decode::<S>(page.events.into_iter(), &decoder);
        match (failure, events.last()) {
            (None, _) => Ok(HistoryPage { events, through: page.through }),
            // What comes before it first; who reads on after that meets it.
            (Some(_), Some(last)) => Ok(HistoryPage { through: last.header.position, events }),
            (Some(failure), None) => Err(failure),
        }
    })
}

/// Decodes events up to the first that cannot be decoded; the code that does it is the user's.
fn decode<S: EventSet>(
    events: impl Iterator<Item = Recorded>,
    decoder: &Decoder,
) -> (Vec<Envelope<S>>, Option<HistoryError>) {
    let mut envelopes = Vec::with_capacity(events.size_hint().0);
    for recorded in events {
        match Panic::catch(|| decoder.read(&recorded)) {
            Ok(Ok(ReadAs::One(event))) => {
                envelopes.push(Envelope { header: recorded.header, event })
            }
            Ok(Ok(ReadAs::Many(events))) => {
                envelopes.extend(events.into_iter().enumerate().map(|(place, event)| Envelope {
                    header: recorded.header.part(place).into_owned(),
                    event,
                }));
            }
            Ok(Err(error)) => return (envelopes, Some(error.into())),
            Err(panic) => {
                let position = recorded.header.position;
                let what = format!("decoding the event at {position} panicked: {}", panic.message);
                return (envelopes, Some(what.into()));
            }
        }
    }
    (envelopes, None)
}
