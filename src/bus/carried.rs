//! Events by their own type: on which topic each of them travels, and how it is found there.

use super::batch::Batch;
use super::registry::Routes;
use super::ring::Item;
use super::topic::Topic;
use crate::event::{Envelope, Event, EventSet, Header, MemberOf, SetInfo, TransientEvent};

/// An event that can be subscribed to by its own type, whatever topic carries it.
///
/// - An event of an aggregate travels in an [`Envelope`] on the topic of its set.
/// - `#[derive(TransientEvent)]` puts a type on a topic of its own. On an enum it also does this for the type in each variant
///   that is named as its type, as in `enum Market { Quote(Quote), Trade(Trade) }`: both travel on the topic of `Market`.
///
/// # Examples
/// ```
/// use tidings::{Topic, TransientEvent};
///
/// struct Quote { cents: u64 }
/// struct Trade;
///
/// #[derive(TransientEvent)]
/// enum Market {
///     Quote(Quote),
///     Trade(Trade),
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let topic = Topic::<Market>::new();
/// let mut subscription = topic.subscribe().open();
/// let publisher = topic.publisher("exchange");
/// publisher.publish(Quote { cents: 7 }.into()).await?;
/// publisher.publish(Trade.into()).await?;
///
/// let batch = subscription.next().await?.expect("the topic is open");
/// let quotes: Vec<_> = batch.of::<Quote>().map(|quote| quote.cents).collect();
/// assert_eq!(quotes, [7]);
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event that travels on a topic",
    label = "neither a transient event, nor an event of any aggregate",
    note = "for an event in memory add `#[derive(TransientEvent)]` to the type, or to an enum with a variant `{Self}({Self})`",
    note = "for an event in the log add `#[apply] fn …(&mut self, event: &{Self})` to the aggregate that it belongs to"
)]
pub trait Carried: Send + Sync + Sized + 'static {
    /// What its topic carries: itself, the enum of which it is a part, or the envelope of its set.
    type On: Routed;

    /// Its name, as the map shows it.
    const EVENT: &'static str;

    /// The event in `item`, if it is this one.
    fn find(item: &Self::On) -> Option<&Self>;
}

impl<E: MemberOf> Carried for E {
    type On = Envelope<E::Set>;

    const EVENT: &'static str = <E as Event>::NAME;

    #[inline]
    fn find(item: &Self::On) -> Option<&Self> {
        E::from_set(&item.event)
    }
}

/// What a topic carries that can be found by its type: a [`TransientEvent`], or the [`Envelope`] of an [`EventSet`]; closed.
pub trait Routed: Item + private::Routed {}

impl<T: TransientEvent> Routed for T {}

impl<S: EventSet> Routed for Envelope<S> {}

pub(crate) mod private {
    use crate::bus::registry::Routes;
    use crate::bus::topic::Topic;
    use crate::event::{Header, SetInfo};

    /// What the bus needs to know of what a topic carries.
    pub trait Routed: Sized {
        /// The name of the topic.
        const TOPIC: &'static str;
        /// The names of the events on it.
        const EVENTS: &'static [&'static str];

        /// The set of events, if they are durable.
        fn set() -> Option<SetInfo>;

        /// The topic, made if it does not exist yet.
        fn topic(routes: &mut Routes<'_>) -> Topic<Self>;

        fn header(&self) -> Option<&Header>;
    }
}

/// A topic that carries one event is named as it.
struct Whole<T>(T);

impl<T: TransientEvent> Whole<T> {
    const EVENTS: &'static [&'static str] = &[T::NAME];
}

impl<T: TransientEvent> private::Routed for T {
    const TOPIC: &'static str = T::NAME;
    const EVENTS: &'static [&'static str] =
        if T::PARTS.is_empty() { Whole::<T>::EVENTS } else { T::PARTS };

    fn set() -> Option<SetInfo> {
        None
    }

    fn topic(routes: &mut Routes<'_>) -> Topic<Self> {
        routes.transient()
    }

    fn header(&self) -> Option<&Header> {
        None
    }
}

impl<S: EventSet> private::Routed for Envelope<S> {
    const TOPIC: &'static str = S::CATEGORY;
    const EVENTS: &'static [&'static str] = S::NAMES;

    fn set() -> Option<SetInfo> {
        Some(SetInfo::of::<S>())
    }

    fn topic(routes: &mut Routes<'_>) -> Topic<Self> {
        routes.durable()
    }

    fn header(&self) -> Option<&Header> {
        Some(&self.header)
    }
}

impl<'a, T: Routed> Batch<'a, T> {
    /// Those of the events that are of type `E`, in order.
    pub fn of<E: Carried<On = T>>(&self) -> impl Iterator<Item = &'a E> + use<'a, T, E> {
        self.events().iter().filter_map(E::find)
    }
}

impl<'a, S: EventSet> Batch<'a, Envelope<S>> {
    /// Those of the events that are of type `E`, in order, each with its header.
    pub fn with_headers_of<E: MemberOf<Set = S>>(
        &self,
    ) -> impl Iterator<Item = (&'a E, &'a Header)> + use<'a, S, E> {
        let found = |item: &'a Envelope<S>| Some((E::from_set(&item.event)?, &item.header));
        self.events().iter().filter_map(found)
    }
}
