//! What an engine does with the events of one name: it reads one, finds its key, and tries to have it handled.

use std::any::Any;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;

use hashbrown::HashMap;

use super::Delivery;
use crate::event::{DecodeError, EventSet, Header, Recorded, SetInfo};
use crate::id::DeliveryId;
use crate::store::{Decoder, Filter};

/// Why an attempt failed.
pub(crate) type Cause = Box<dyn Error + Send + Sync>;

/// What an engine handles.
#[derive(Default)]
pub(crate) struct Routes {
    /// By the stored names of the events.
    by_name: HashMap<&'static str, Route>,
    /// The sets of the events.
    sets: Vec<SetInfo>,
}

impl Routes {
    /// Adds what is done with the events of `set` of these names; the flag says that it is not done in a replay. Those of a former
    /// name are among them: what they are read as is only known when one is met.
    pub(crate) fn add(
        &mut self,
        set: SetInfo,
        names: impl IntoIterator<Item = (&'static str, bool)>,
        prepare: &Arc<Prepare>,
    ) {
        let former = set.former_names.iter().map(|name| (*name, false));
        for (name, live_only) in names.into_iter().chain(former) {
            let new = || Route { prepare: Arc::clone(prepare), live_only };
            // Of two versions of one event, each part knows by itself whether it is for a replay.
            self.by_name.entry(name).or_insert_with(new).live_only &= live_only;
        }
        self.sets.push(set);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Route> {
        self.by_name.get(name)
    }

    /// Why an event cannot be read, if the program does not know its name.
    pub(crate) fn unknown(&self, event: &Header) -> Option<DecodeError> {
        self.sets.iter().find_map(|set| set.unknown(event))
    }

    pub(crate) fn filter(&self) -> Filter {
        Filter::of_sets(self.by_name.keys().copied(), self.sets.iter().copied())
    }
}

/// How the events of one name are handled.
pub(crate) struct Route {
    /// Reads an event, and says what is to be done with it.
    pub(crate) prepare: Arc<Prepare>,
    /// Not for what was in the log when the consumer began.
    pub(crate) live_only: bool,
}

pub(crate) type Prepare =
    dyn Fn(&Recorded, &Decoder) -> Result<Prepared, DecodeError> + Send + Sync;

/// An event, as its set.
pub(crate) type Decoded = dyn Any + Send + Sync;

/// Reads what a stored event is today: events of one set, each with its index in it.
pub(crate) type ReadSet =
    fn(&Recorded, &Decoder) -> Result<Vec<(usize, Arc<Decoded>)>, DecodeError>;

/// The [`ReadSet`] of the set `S`.
pub(crate) fn read<S: EventSet>(
    recorded: &Recorded,
    decoder: &Decoder,
) -> Result<Vec<(usize, Arc<Decoded>)>, DecodeError> {
    let read = decoder.read::<S>(recorded)?;
    let events = read.into_iter();
    Ok(events.map(|event| (event.index(), Arc::new(event) as Arc<Decoded>)).collect())
}

/// An event that was read and can be handled.
pub(crate) struct Prepared {
    /// What it is kept in order by; its stream if this is none.
    pub(crate) key: Option<String>,
    /// Begins one attempt to handle it. An error passes unless the consumer classifies it otherwise or it is [`Permanent`].
    pub(crate) attempt: Box<dyn Fn(Delivery) -> Attempting + Send>,
    /// Whether an attempt can be cut short.
    pub(crate) limit: Limit,
}

/// One of the events that a stored one is read as, with its handler.
pub(crate) struct Part {
    /// Its place among them.
    pub(crate) place: usize,
    pub(crate) key: Option<String>,
    pub(crate) attempt: Box<dyn Fn(Delivery) -> Attempting + Send>,
    pub(crate) limit: Limit,
    /// Not for what was in the log when the consumer began.
    pub(crate) live_only: bool,
}

impl Prepared {
    /// One attempt handles all `parts`, one after the other, up to the first that fails. They are kept in order by the key of the
    /// first; each is a delivery of its own.
    pub(crate) fn of(consumer: &'static str, mut parts: Vec<Part>) -> Self {
        let is_one = parts.len() == 1;
        if let Some(Part { key, attempt, limit, .. }) =
            parts.pop_if(|part| is_one && part.place == 0 && !part.live_only)
        {
            return Self { key, attempt, limit };
        }
        let key = parts.first_mut().and_then(|part| part.key.take());
        let is_limited = parts.iter().all(|part| part.limit == Limit::Timeout);
        let attempt = move |delivery: Delivery| -> Attempting {
            let due = parts.iter().filter(|part| !(part.live_only && delivery.is_replay));
            let begin = |part: &Part| {
                let header = delivery.header.part(part.place).into_owned();
                let id = DeliveryId::of(consumer, header.event_id);
                (part.attempt)(Delivery { id, header, ..delivery.clone() })
            };
            let attempts: Vec<_> = due.map(begin).collect();
            Box::pin(async move {
                for attempt in attempts {
                    attempt.await?;
                }
                Ok(())
            })
        };
        let limit = if is_limited { Limit::Timeout } else { Limit::None };
        Self { key, attempt: Box::new(attempt), limit }
    }
}

/// One attempt. It may be dropped half-way, unless it has no limit.
pub(crate) type Attempting = Pin<Box<dyn Future<Output = Result<(), Cause>> + Send>>;

/// How long an attempt may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// As long as the consumer's options say.
    Timeout,
    /// To its end: dropping it would not stop it.
    None,
}

/// Marks an error that does not pass, whatever the consumer's classification says.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Permanent(pub(crate) Cause);
