//! The topics of an app, one for each set of events.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::map::Place;
use super::topic::{History, HistoryPage, Topic, TopicStatus};
use crate::codec::Codec;
use crate::event::{DecodeError, Envelope, EventSet, Recorded};
use crate::store::{EventStore, Filter};
use crate::stream::Position;

/// All topics of an app.
pub(crate) struct Topics {
    store: Arc<dyn EventStore>,
    /// The head of the log when the app started.
    start: Position,
    capacity: usize,
    topics: HashMap<TypeId, Box<dyn AnyTopic>>,
}

trait AnyTopic: Any + Send + Sync {
    fn place(&self) -> Place;
    fn status(&self) -> TopicStatus;
    fn close(&self);
    fn as_any(&self) -> &dyn Any;

    /// Decodes those of `events` that belong to the topic; what it returns publishes them.
    fn decode<'a>(
        &'a self,
        events: &[Recorded],
        codec: Codec,
    ) -> Result<Publication<'a>, DecodeError>;
}

/// Publishes events that were decoded before.
type Publication<'a> = Box<dyn FnOnce() + 'a>;

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

    fn decode<'a>(
        &'a self,
        events: &[Recorded],
        codec: Codec,
    ) -> Result<Publication<'a>, DecodeError> {
        let own = events.iter().filter(|event| S::NAMES.contains(&&*event.header.name));
        let envelopes = own.map(|recorded| envelope::<S>(recorded.clone(), codec));
        let envelopes = envelopes.collect::<Result<Vec<_>, _>>()?;
        Ok(Box::new(move || self.publish(envelopes)))
    }
}

impl Topics {
    /// How many events a topic retains unless the app says otherwise: several of the largest group commits.
    pub(crate) const CAPACITY: usize = 16_384;

    pub(crate) fn new(store: Arc<dyn EventStore>, start: Position, capacity: usize) -> Self {
        Self { store, start, capacity, topics: HashMap::new() }
    }

    /// The topic of the events of `S`, made if it does not exist yet.
    pub(crate) fn of<S: EventSet>(&mut self) -> Topic<Envelope<S>> {
        if let Some(topic) = self.get() {
            return topic;
        }
        let history = history(Arc::clone(&self.store));
        let topic = Topic::durable(S::CATEGORY, self.capacity, self.start, Some(history));
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

    /// Publishes `events` as the log holds them, in every topic that they belong to: all, or none if one cannot be decoded.
    pub(crate) fn publish(&self, events: &[Recorded], codec: Codec) -> Result<(), DecodeError> {
        let topics = self.topics.values().map(|topic| topic.decode(events, codec));
        let publications = topics.collect::<Result<Vec<_>, _>>()?;
        publications.into_iter().for_each(|publish| publish());
        Ok(())
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
fn history<S: EventSet>(store: Arc<dyn EventStore>) -> History<Envelope<S>> {
    let filter = Filter::Names(S::NAMES.to_vec());
    Arc::new(move |after, limit| {
        let page = store.read_log(after, &filter, limit)?;
        let codec = store.codec();
        let events = page.events.into_iter().map(|recorded| envelope(recorded, codec));
        let events = events.collect::<Result<_, DecodeError>>()?;
        Ok(HistoryPage { events, through: page.through })
    })
}

fn envelope<S: EventSet>(recorded: Recorded, codec: Codec) -> Result<Envelope<S>, DecodeError> {
    let event = recorded.decode(codec)?;
    Ok(Envelope { header: recorded.header, event })
}
