//! Subscribers by event type: handlers in a struct, each for one type of event, from any number of topics.
//!
//! An [`EventSubscriber`] names its handlers. Given to [`AppBuilder::subscriber`](crate::AppBuilder::subscriber), it hears what is
//! published from the start of the app on: transient events by reference as they are published, durable ones after their
//! commit.
//!
//! # Order
//! Events of one topic come in the order in which they were published, each once. Topics take turns, a batch at a time.
//!
//! # Falling behind
//! As the topics have it: publishers of transient events wait, durable ones are read from the log. A subscriber may drop
//! the oldest instead; its subscriptions then say how many it has missed.
//!
//! # A handler that fails
//! An error or a panic stops this subscriber, is traced, and shows in the status and on the map. Its subscriptions end, so it
//! holds up nobody.
//!
//! # The end
//! When the app shuts down, a subscriber handles what was published before the topics were closed. What it publishes itself
//! meanwhile is refused with [`PublishError::Closed`](crate::PublishError::Closed), and its commands with
//! [`SendError::Unavailable`](crate::SendError::Unavailable).
//!
//! # Again after a restart
//! It is not remembered what a subscriber has heard: it is for what happens while the program runs. For effects that
//! must not be lost, write a [reactor](crate::Reactor).

mod engine;

use std::any::{Any, TypeId};
use std::error::Error;
use std::fmt;

use serde::Serialize;

pub(crate) use self::engine::{Engine, SubscriberGauge};
use self::engine::{Handler, Hearing, TypedHearing};
use crate::bus::{Carried, Reference};
use crate::event::{Header, MemberOf, SetInfo};
use crate::processor::ConsumerState;
use crate::projection::HandlerOutcome;

/// Handlers by event type, from any number of topics.
///
/// It hears what is published while the app runs, and keeps no checkpoint: what is committed while it is down, or after it has
/// stopped, it never hears. For effects that must not be lost, write a [reactor](crate::Reactor), or resume a
/// [subscription](crate::Subscribe::after).
///
/// # A handler that fails
/// An error or a panic stops this subscriber for good, and shows in the status and on the map. So a passing error, such as a
/// topic that is full, is better handled than returned.
///
/// # Publishing and sending
/// Handlers are not asynchronous: publish with [`try_publish`](crate::Publisher::try_publish), and send commands with
/// [`Sending::begin`](crate::Sending::begin). Several subscribers share a thread, so one that blocks may wait for ever for another.
///
/// # The end
/// When the app shuts down, its topics are closed and the subscriber handles what was published before. What it publishes
/// itself from then on is refused: where one subscriber feeds another, let the sources become quiet first.
///
/// Write one with `#[subscriber]`, or by hand:
///
/// ```
/// use tidings::{App, Bus, EventSubscriber, Memory, Publisher, Subscriptions, TransientEvent};
///
/// #[derive(TransientEvent)]
/// struct Quote { cents: u64 }
/// #[derive(TransientEvent)]
/// struct Alert;
///
/// struct Risk {
///     alerts: Publisher<Alert>,
/// }
///
/// impl EventSubscriber for Risk {
///     const NAME: &'static str = "risk";
///     fn subscriptions(to: &mut Subscriptions<Self>) {
///         to.on(|risk: &mut Self, quote: &Quote| {
///             if quote.cents > 100 && risk.alerts.try_publish(Alert).is_err() {
///                 eprintln!("an alert was not shown"); // an error returned here would stop the subscriber
///             }
///         });
///         to.publishes::<Alert>();
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::new();
/// let quotes = bus.topic::<Quote>().publisher("exchange");
/// let mut alerts = bus.topic::<Alert>().subscribe().named("display").open();
/// let risk = Risk { alerts: bus.topic().publisher("risk") };
/// let app = App::builder().store(Memory::new()).bus(bus).subscriber(risk).start().await?;
/// assert_eq!(app.map().findings(), []);
///
/// quotes.publish(Quote { cents: 101 }).await?;
/// assert_eq!(alerts.next().await?.expect("the bus is open").len(), 1);
/// # app.shutdown().await?;
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a subscriber by event type",
    label = "not a subscriber",
    note = "put `#[subscriber(name = \"…\")]` on an `impl {Self}` block with `#[on]` handlers"
)]
pub trait EventSubscriber: Send + Sized + 'static {
    /// Its name, unique in the app. The publishers that it holds bear the same name, so that the map knows them as one.
    const NAME: &'static str;

    /// Names the handlers, and what it publishes.
    fn subscriptions(to: &mut Subscriptions<Self>);
}

/// What an [`EventSubscriber`] hears and publishes.
pub struct Subscriptions<S> {
    hearings: Vec<Box<dyn Hearing<S>>>,
    publishes: Vec<Reference>,
    drop_oldest: bool,
    events: Vec<TypeId>,
    /// The names of events that were given a second handler.
    twice: Vec<&'static str>,
}

impl<S: EventSubscriber> Subscriptions<S> {
    pub(crate) fn of_subscriber() -> Self {
        let mut subscriptions = Self {
            hearings: Vec::new(),
            publishes: Vec::new(),
            drop_oldest: false,
            events: Vec::new(),
            twice: Vec::new(),
        };
        S::subscriptions(&mut subscriptions);
        subscriptions
    }

    /// Handles events of type `E`.
    ///
    /// For an enum of events and one of its parts alike: both handlers get what is meant for both, in the order in which they
    /// were named.
    pub fn on<E: Carried, O: HandlerOutcome>(
        &mut self,
        handler: impl Fn(&mut S, &E) -> O + Send + 'static,
    ) -> &mut Self {
        self.add::<E>(move |subscriber, item| {
            E::find(item).map(|event| handler(subscriber, event).into_result())
        })
    }

    /// Handles events of type `E`, which stand in the log, with their headers.
    pub fn on_with_header<E: MemberOf, O: HandlerOutcome>(
        &mut self,
        handler: impl Fn(&mut S, &E, &Header) -> O + Send + 'static,
    ) -> &mut Self {
        self.add::<E>(move |subscriber, envelope| {
            let event = E::from_set(&envelope.event)?;
            Some(handler(subscriber, event, &envelope.header).into_result())
        })
    }

    /// Says that its handlers publish events of type `E`, or cause them by the commands that they send. It is for the map.
    pub fn publishes<E: Carried>(&mut self) -> &mut Self {
        self.publishes.push(Reference::to::<E>());
        self
    }

    /// When it falls behind, goes on with the oldest event that its topics retain: nobody waits for it, and it reads no log.
    pub fn drop_oldest(&mut self) -> &mut Self {
        self.drop_oldest = true;
        self
    }

    fn add<E: Carried>(
        &mut self,
        call: impl Fn(&mut S, &E::On) -> Option<Result<(), Box<dyn Error + Send + Sync>>>
        + Send
        + 'static,
    ) -> &mut Self {
        let event = TypeId::of::<E>();
        if self.events.contains(&event) {
            self.twice.push(E::EVENT);
            return self;
        }
        self.events.push(event);
        let handler =
            Handler { heard: Reference::to::<E>(), event: E::EVENT, call: Box::new(call) };
        let known = self.hearings.iter_mut().find_map(|hearing| {
            let hearing: &mut dyn Any = &mut **hearing;
            hearing.downcast_mut::<TypedHearing<S, E::On>>()
        });
        match known {
            Some(hearing) => hearing.handlers.push(handler),
            None => self.hearings.push(Box::new(TypedHearing { handlers: vec![handler] })),
        }
        self
    }

    /// The names of events that have two handlers.
    pub(crate) fn twice(&self) -> &[&'static str] {
        &self.twice
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hearings.is_empty()
    }

    /// The durable sets that are heard.
    pub(crate) fn sets(&self) -> Vec<SetInfo> {
        self.hearings.iter().filter_map(|hearing| hearing.set()).collect()
    }

    pub(crate) fn heard(&self) -> Vec<Reference> {
        self.hearings.iter().flat_map(|hearing| hearing.heard()).collect()
    }

    pub(crate) fn published(&self) -> Vec<Reference> {
        self.publishes.clone()
    }
}

impl<S> fmt::Debug for Subscriptions<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriptions")
            .field("topics", &self.hearings.len())
            .field("handlers", &self.events.len())
            .finish_non_exhaustive()
    }
}

/// The state of a subscriber by event type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SubscriberStatus {
    /// Its name.
    pub name: &'static str,
    /// Whether it is live or has stopped.
    pub state: ConsumerState,
    /// How many events it has heard, those that no handler is for among them.
    pub heard: u64,
    /// Why it stopped, with all causes.
    pub trouble: Option<String>,
}
