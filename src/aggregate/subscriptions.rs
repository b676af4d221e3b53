//! Aggregates that subscribe to the events of others: choreography.

use std::any::TypeId;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;

use super::Aggregate;
use super::directory::Directory;
use super::shard::Lookup;
use crate::bus::{self, Reference};
use crate::command::{SendError, Way};
use crate::event::{Envelope, Event, Header, MemberOf, Recorded, SetInfo};
use crate::id::{CausationId, CommandId};
use crate::reactor::route::{
    self, Attempting, Decoded, Limit, Part, Prepare, Prepared, ReadSet, Routes,
};
use crate::reactor::{Delivery, ReactorOptions};
use crate::retry::{ErrorClass, FailurePolicy};
use crate::store::Decoder;

/// The events of others that an aggregate subscribes to; see [`Aggregate::subscribe`].
///
/// # How an event is decided on
/// It is read from the log, goes to the one instance that it names, and is decided like a command: in its turn, against the newest
/// state, and its events are committed before the next event of the same instance comes. The command's id is derived from the
/// event, so it takes effect once, however often it is delivered. Its events name the event as their cause, belong to its story,
/// and carry its metadata.
///
/// # An event that cannot be decided on
/// A rejection, a panic and an event that cannot be read [park](crate::Letters) the instance's events: the instance goes on deciding
/// commands, other instances get their events. Errors of the log are tried again.
///
/// # Circles
/// An event that stands at the end of 64 that have caused one another through subscriptions is parked rather than decided on.
pub struct AggregateSubscriptions<A: Aggregate> {
    routes: Vec<Subscribed<A>>,
    /// The stored names of events that were named twice.
    twice: Vec<&'static str>,
}

/// One type of event that is subscribed to.
struct Subscribed<A: Aggregate> {
    event: &'static str,
    heard: Reference,
    set: SetInfo,
    /// Its index in the set.
    index: usize,
    read: ReadSet,
    decision: Box<Decision<A>>,
}

/// The instance that an event goes to, and the command that it is to it; none if it is of another type.
type Decision<A> =
    dyn Fn(Arc<Decoded>, &Header) -> Option<(String, <A as Aggregate>::Command)> + Send + Sync;

impl<A: Aggregate> AggregateSubscriptions<A> {
    fn of_aggregate() -> Self {
        let mut subscriptions = Self { routes: Vec::new(), twice: Vec::new() };
        A::subscribe(&mut subscriptions);
        subscriptions
    }

    /// Subscribes to events of type `E`: `to` names the instance that decides on one by its id, `command` makes it a command.
    pub fn on<E: MemberOf>(
        &mut self,
        to: impl Fn(&E, &Header) -> String + Send + Sync + 'static,
        command: impl Fn(E) -> A::Command + Send + Sync + 'static,
    ) -> &mut Self {
        let event = <E as Event>::NAME;
        let set = SetInfo::of::<E::Set>();
        // By its index, not by its name: two events of one set may be versions of the same.
        if self.routes.iter().any(|route| route.set.id == set.id && route.index == E::INDEX) {
            self.twice.push(event);
            return self;
        }
        let decision = Box::new(move |event: Arc<Decoded>, header: &Header| {
            let set = Arc::into_inner(event.downcast::<E::Set>().ok()?)?;
            let event = E::take(set)?;
            Some((to(&event, header), command(event)))
        });
        let (index, read) = (E::INDEX, route::read::<E::Set> as ReadSet);
        let heard = Reference::to_some::<Envelope<E::Set>>(vec![event]);
        self.routes.push(Subscribed { event, heard, set, index, read, decision });
        self
    }
}

/// How many instances of a category decide on events at a time: enough to fill the groups that are committed together.
const CONCURRENCY: usize = 256;

/// What aggregates subscribe to.
#[derive(Default)]
pub(crate) struct Subscribing {
    pub(crate) hears: Vec<Reference>,
    /// The sets that the events belong to.
    pub(crate) sets: Vec<SetInfo>,
    pub(crate) routes: Routes,
}

/// What the aggregates of `directory` subscribe to, and how it reaches them.
///
/// # Errors
/// The name of an event that was named twice.
pub(crate) fn routes<A: Aggregate>(
    directory: &Arc<Directory<A>>,
) -> Result<Subscribing, &'static str> {
    let subscriptions = AggregateSubscriptions::<A>::of_aggregate();
    if let Some(event) = subscriptions.twice.first() {
        return Err(event);
    }
    let mut subscribing = Subscribing::default();
    let mut sets: HashMap<TypeId, Vec<Subscribed<A>>> = HashMap::new();
    for subscribed in subscriptions.routes {
        subscribing.hears.push(subscribed.heard.clone());
        subscribing.sets.push(subscribed.set);
        sets.entry(subscribed.set.id).or_default().push(subscribed);
    }
    for subscribed in sets.into_values() {
        let Some(first) = subscribed.first() else { continue };
        let names: Vec<_> = subscribed.iter().map(|subscribed| (subscribed.event, false)).collect();
        let (set, read) = (first.set, first.read);
        let (directory, subscribed) = (Arc::clone(directory), Arc::<[_]>::from(subscribed));
        let prepare: Arc<Prepare> = Arc::new(move |recorded: &Recorded, decoder: &Decoder| {
            let mut parts = Vec::new();
            for (place, (index, event)) in read(recorded, decoder)?.into_iter().enumerate() {
                let found = subscribed.iter().find(|subscribed| subscribed.index == index);
                let header = recorded.header.part(place);
                let decision = found.and_then(|found| (found.decision)(event, &header));
                parts.extend(decision.map(|decision| part(place, decision, &directory)));
            }
            Ok(Prepared::of(A::CATEGORY, parts))
        });
        subscribing.routes.add(set, names, &prepare);
    }
    Ok(subscribing)
}

fn part<A: Aggregate>(
    place: usize,
    (id, command): (String, A::Command),
    directory: &Arc<Directory<A>>,
) -> Part {
    let (key, directory) = (Some(id.clone()), Arc::clone(directory));
    let attempt = move |delivery: Delivery| -> Attempting {
        let (directory, id) = (Arc::clone(&directory), id.clone());
        let command = command.clone();
        Box::pin(
            async move { Ok(decide_on::<A>(directory, &delivery.header, &id, command).await?) },
        )
    };
    // Its answer tells whether it took effect, so it is waited for as long as that takes.
    Part { place, key, attempt: Box::new(attempt), limit: Limit::None, live_only: false }
}

/// How the engine of aggregates of type `A` runs, and what becomes of an event that fails.
pub(crate) fn options<A: Aggregate>() -> (ReactorOptions, FailurePolicy) {
    let options = ReactorOptions { concurrency: CONCURRENCY, ..ReactorOptions::default() };
    let unknown = A::unknown_events();
    (options, FailurePolicy { classify: classify::<A>, unknown, ..FailurePolicy::default() })
}

/// The key of the metadata under which an event says how many events have caused one another up to it.
const HOPS: &str = "tidings.hops";

/// Lets the aggregate `id` decide on the event with the header `cause`, which is `command` to it.
///
/// # Errors
/// What the aggregate answers. That it has decided on the event before is none.
async fn decide_on<A: Aggregate>(
    directory: Arc<Directory<A>>,
    cause: &Header,
    id: &str,
    command: A::Command,
) -> Result<(), SendError<A::Error>> {
    let hops = cause.metadata.get(HOPS).and_then(|hops| hops.parse::<u8>().ok()).unwrap_or(0);
    if hops >= bus::LIMIT {
        return Err(SendError::TooDeep { depth: hops });
    }
    let hops = hops + 1;
    let mut way = Way::new(Some(directory), id, command, hops);
    way.with(|incoming| {
        incoming.command_id = CommandId::caused_by(A::CATEGORY, cause.event_id);
        incoming.lookup = Lookup::Needed;
        incoming.correlation_id = Some(cause.correlation_id);
        incoming.causation_id = Some(CausationId::from_uuid(cause.event_id.into()));
        incoming.metadata = cause.metadata.clone();
        incoming.metadata.insert(HOPS, hops.to_string());
    });
    match way.await {
        // An earlier version of the program sent it to another instance, where it took effect.
        Ok(_) | Err(SendError::CommandIdReused { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The class of what an aggregate answers: errors of the log pass.
fn classify<A: Aggregate>(error: &(dyn Error + 'static)) -> ErrorClass {
    match error.downcast_ref::<SendError<A::Error>>() {
        Some(SendError::Store(_) | SendError::Contended { .. } | SendError::Unavailable { .. }) => {
            ErrorClass::Transient
        }
        _ => ErrorClass::Permanent,
    }
}

impl<A: Aggregate> fmt::Debug for AggregateSubscriptions<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.routes.iter().map(|route| route.event)).finish()
    }
}
