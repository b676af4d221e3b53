//! Reactors: handlers with effects outside the store, such as mail, a payment service or a search index.
//!
//! A [`Reactor`] names its handlers, one for each event that it cares about, from any number of aggregates. They are
//! asynchronous; events of one key are handled one after the other, in the order of the log, and those of several keys at once, as
//! many as the reactor's options say.
//!
//! # At least once
//! A reactor keeps a checkpoint in the file of the views. It moves on when every event up to it is finished, and is written down
//! every 50 milliseconds or 512 events, and at the end. After a crash, what came after it is delivered again, with the same
//! [delivery id](Delivery::id): hand that to what is outside, so that a repeat is known there. At most 1,024 events lie
//! between the checkpoint and the newest that was handled.
//!
//! # Exactly once
//! A handler that takes a transaction writes to the database of the views, each event in a transaction of its own,
//! in which the delivery id is written down as well: a repeat does nothing.
//!
//! # A handler that fails
//! Every error passes, unless the reactor's classification says otherwise: what is outside fails in ways that pass. The
//! event becomes a [letter](crate::Letter) and is tried again after growing pauses; later events of its key, which is its stream
//! unless declared otherwise, wait behind it, all others go on. After the last attempt it waits for a person. A panic and an event that
//! cannot be read wait for a person at once.
//!
//! # A handler that hangs
//! Each attempt has a timeout, after which it is dropped; that counts as an error that passes. Only a transaction is not cut short.
//!
//! # The end
//! When the app shuts down, the attempts that have begun are finished, and nothing new is begun. What fails meanwhile, or is not
//! done before the deadline, is delivered again after the next start.
//!
//! # What is kept where
//! Checkpoint and letters stand in the file of the views. Without the feature `sqlite` they last as long as the process, and
//! each start begins anew.
//!
//! # Which thread
//! The attempts of a reactor share one thread, and so do several reactors: a handler that computes for long, or blocks, holds the
//! others up. Move such work to `tokio::task::spawn_blocking`. Transactions are made on threads for waiting.

mod engine;
mod keeping;
mod lanes;
pub(crate) mod route;
#[cfg(feature = "sqlite")]
mod transaction;
mod window;

use std::any::TypeId;
use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

pub(crate) use self::engine::{Engine, Wiring};
use self::route::{Attempting, Decoded, Limit, Part, Prepare, Prepared, ReadSet, Routes};
use crate::app::{App, Building, StartError, WeakApp};
use crate::bus::Reference;
use crate::event::{Event, Header, MemberOf, Recorded, SetInfo};
use crate::id::{CommandId, DeliveryId};
use crate::projection::HandlerOutcome;
#[cfg(feature = "sqlite")]
use crate::projection::Transaction;
use crate::retry::FailurePolicy;
use crate::store::Decoder;

/// Handlers with effects outside the store, at least once for each event.
///
/// Write one with `#[reactor]`, or by hand:
///
/// ```
/// use tidings::{Reactions, Reactor, ReactorOptions};
/// # use serde::{Deserialize, Serialize};
/// # use tidings::{Delivery, Event, aggregate};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(name = "order.placed")]
/// # struct Placed { customer: String }
/// # #[derive(Default)]
/// # struct Order;
/// # #[aggregate(category = "order", events = OrderEvent)]
/// # impl Order {
/// #     #[apply]
/// #     fn placed(&mut self, _: &Placed) {}
/// # }
/// # struct Smtp;
/// # impl Smtp {
/// #     async fn send(&self, _: String, _: &str) -> std::io::Result<()> { Ok(()) }
/// # }
///
/// struct Mailer {
///     smtp: Smtp,
/// }
///
/// impl Reactor for Mailer {
///     const NAME: &'static str = "mailer";
///
///     fn handlers(handlers: &mut Reactions<Self>) {
///         handlers.on(|mailer: &Self, event: &Placed, delivery: &Delivery| {
///             // The service knows a message that it has sent by its id.
///             Box::pin(mailer.smtp.send(delivery.id.to_string(), &event.customer))
///         });
///         handlers.key(|event: &Placed, _| event.customer.clone());
///     }
///
///     fn options() -> ReactorOptions {
///         ReactorOptions { concurrency: 8, ..ReactorOptions::default() }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a reactor",
    label = "not a reactor",
    note = "put `#[reactor(name = \"…\")]` on an `impl {Self}` block with `#[on]` handlers"
)]
pub trait Reactor: Send + Sync + Sized + 'static {
    /// Its name, unique among the projections and reactors of the app, never changed: its checkpoint is kept under it, and the
    /// ids of its deliveries are made of it.
    const NAME: &'static str;

    /// Names the handlers.
    fn handlers(handlers: &mut Reactions<Self>);

    /// How many keys at once, how long each, and from where on.
    fn options() -> ReactorOptions {
        ReactorOptions::default()
    }

    /// What becomes of an event that a handler fails at; [`FailurePolicy::for_effects`] unless said otherwise.
    fn failures() -> FailurePolicy {
        FailurePolicy::for_effects()
    }
}

/// What an engine does.
pub(crate) struct Plan {
    pub(crate) routes: Routes,
    pub(crate) hears: Vec<Reference>,
    pub(crate) publishes: Vec<Reference>,
    pub(crate) options: ReactorOptions,
    pub(crate) failures: FailurePolicy,
}

/// How a reactor handles its events.
#[derive(Debug, Clone, Copy)]
pub struct ReactorOptions {
    /// How many events may be handled at once, each of another key; at least one. With one, they are handled in the order of the
    /// log, apart from letters.
    pub concurrency: usize,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Where it begins when the app starts with it for the first time.
    pub start: StartFrom,
}

impl Default for ReactorOptions {
    /// Sixteen at once, 30 seconds, from the oldest event on.
    fn default() -> Self {
        Self { concurrency: 16, timeout: Duration::from_secs(30), start: StartFrom::default() }
    }
}

/// Where a consumer begins that has no checkpoint yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartFrom {
    /// With the first event in the log.
    #[default]
    Oldest,
    /// With what is committed after its first start.
    Newest,
}

/// One event on its way to a reactor. Dereferences to the event's [`Header`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// The same on each attempt, for ever: hand it to what is outside, so that a repeat is known there.
    pub id: DeliveryId,
    /// Which attempt this is, from 1. It counts on over a restart if the event had failed before; after a crash in the middle of
    /// an attempt it does not know of that.
    pub attempt: u32,
    /// Whether the event was in the log when the reactor was started for the first time.
    pub is_replay: bool,
    /// What is known of the event apart from its payload.
    pub header: Header,
    app: WeakApp,
}

impl Delivery {
    /// The app, to ask a query or to send a command; none if its last handle was dropped.
    ///
    /// # Examples
    /// A command takes effect once, however often its event is delivered, if its id is [derived](Self::command_id):
    ///
    /// ```
    /// # use tidings::{Delivery, SentTo};
    /// # async fn handler<Ship: SentTo>(ship: Ship, order: &str, delivery: &Delivery)
    /// # -> Result<(), Box<dyn std::error::Error + Send + Sync>>
    /// # where <Ship::Aggregate as tidings::Aggregate>::Error: 'static {
    /// let app = delivery.app().ok_or("the app is gone")?;
    /// app.send(order, ship).command_id(delivery.command_id("ship")).caused_by(delivery).await?;
    /// # Ok(()) }
    /// ```
    pub fn app(&self) -> Option<App> {
        self.app.upgrade()
    }

    /// The id of the command that the reactor calls `name` while it handles this event: the same on each attempt.
    pub fn command_id(&self, name: &str) -> CommandId {
        CommandId::from_name(&format!("{}/{name}", self.id))
    }
}

impl Deref for Delivery {
    type Target = Header;

    fn deref(&self) -> &Header {
        &self.header
    }
}

/// One attempt of a handler: a boxed future.
pub type Reacting<'a, O> = Pin<Box<dyn Future<Output = O> + Send + 'a>>;

/// The handlers of a reactor, one for each event that it cares about.
pub struct Reactions<R> {
    reactions: Vec<Reaction<R>>,
    /// The stored names of events that were given a second handler.
    twice: Vec<&'static str>,
    /// The stored names of events that something was said of, and that have no handler.
    unhandled: Vec<&'static str>,
    #[cfg(feature = "sqlite")]
    needs_guard: bool,
}

/// The handler of one type of event. An event goes through it as its set, whose type it knows by itself.
struct Reaction<R> {
    name: &'static str,
    set: SetInfo,
    heard: Reference,
    /// Its index in the set.
    index: usize,
    read: ReadSet,
    call: Arc<Call<R>>,
    key: Option<Box<KeyOf>>,
    limit: Limit,
    live_only: bool,
}

impl<R> Reaction<R> {
    /// Whether it is the one to `E`. Its name does not tell: two events of one set may be versions of the same.
    fn is<E: MemberOf>(&self) -> bool {
        self.set.id == TypeId::of::<E::Set>() && self.index == E::INDEX
    }
}

type Call<R> = dyn Fn(Arc<Bound<R>>, Arc<Decoded>, Delivery) -> Attempting + Send + Sync;

type KeyOf = dyn Fn(&Decoded, &Header) -> String + Send + Sync;

/// What handlers work with.
struct Bound<R> {
    reactor: R,
    #[cfg(feature = "sqlite")]
    guard: Option<transaction::Guard>,
}

#[cfg(feature = "sqlite")]
impl<R> Bound<R> {
    fn once(
        &self,
        delivery: &Delivery,
        handler: impl FnOnce(&Transaction<'_>) -> Result<(), route::Cause>,
    ) -> Result<(), route::Cause> {
        let guard = self.guard.as_ref().ok_or("its database is not open")?;
        guard.once(delivery, handler)
    }
}

impl<R: Reactor> Reactions<R> {
    pub(crate) fn of_reactor() -> Self {
        let mut reactions = Self {
            reactions: Vec::new(),
            twice: Vec::new(),
            unhandled: Vec::new(),
            #[cfg(feature = "sqlite")]
            needs_guard: false,
        };
        R::handlers(&mut reactions);
        reactions
    }

    /// Handles each event of type `E` with `handler`, which gets the reactor, the event and its delivery, and returns a boxed future.
    ///
    /// The future may be dropped half-way, after its timeout or at the end of the app.
    pub fn on<E, O>(
        &mut self,
        handler: impl for<'a> Fn(&'a R, &'a E, &'a Delivery) -> Reacting<'a, O> + Send + Sync + 'static,
    ) -> &mut Self
    where
        E: MemberOf,
        O: HandlerOutcome,
    {
        let handler = Arc::new(handler);
        self.add::<E>(Limit::Timeout, move |bound, decoded, delivery| {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                let event = event::<E>(&*decoded).ok_or(OtherEvent(E::NAME))?;
                handler(&bound.reactor, event, &delivery).await.into_result()
            })
        })
    }

    /// Handles each event of type `E` with `handler` exactly once: in a transaction of its own on the database of the views, which
    /// the framework commits. It runs on a thread for waiting, and is not cut short.
    #[cfg(feature = "sqlite")]
    pub fn in_transaction<E, O>(
        &mut self,
        handler: impl Fn(&R, &Transaction<'_>, &E, &Delivery) -> O + Send + Sync + 'static,
    ) -> &mut Self
    where
        E: MemberOf,
        O: HandlerOutcome,
    {
        self.needs_guard = true;
        let handler = Arc::new(handler);
        self.add::<E>(Limit::None, move |bound, decoded, delivery| {
            let handler = Arc::clone(&handler);
            let span = tracing::Span::current();
            let handle = move || {
                let event = event::<E>(&*decoded).ok_or(OtherEvent(E::NAME))?;
                let _entered = span.enter();
                bound.once(&delivery, |transaction| {
                    handler(&bound.reactor, transaction, event, &delivery).into_result()
                })
            };
            Box::pin(async move {
                match tokio::task::spawn_blocking(handle).await {
                    Ok(outcome) => outcome,
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(error) => Err(error.into()),
                    },
                }
            })
        })
    }

    /// Keeps events of type `E`, which has a handler, in order by `key`: those with the same key are handled one after the
    /// other, and wait when one fails. By their stream, unless this is said.
    pub fn key<E: MemberOf, D: fmt::Display>(
        &mut self,
        key: impl Fn(&E, &Header) -> D + Send + Sync + 'static,
    ) -> &mut Self {
        if let Some(reaction) = self.reaction::<E>() {
            reaction.key = Some(Box::new(move |decoded, header| match event::<E>(decoded) {
                Some(event) => key(event, header).to_string(),
                None => header.stream.as_str().to_owned(),
            }));
        }
        self
    }

    /// Handles events of type `E`, which has a handler, only if they are committed after the reactor was started for the first time.
    pub fn live_only<E: MemberOf>(&mut self) -> &mut Self {
        if let Some(reaction) = self.reaction::<E>() {
            reaction.live_only = true;
        }
        self
    }

    fn add<E: MemberOf>(
        &mut self,
        limit: Limit,
        call: impl Fn(Arc<Bound<R>>, Arc<Decoded>, Delivery) -> Attempting + Send + Sync + 'static,
    ) -> &mut Self {
        let name = <E as Event>::NAME;
        if self.reactions.iter().any(Reaction::is::<E>) {
            self.twice.push(name);
            return self;
        }
        self.reactions.push(Reaction {
            name,
            set: SetInfo::of::<E::Set>(),
            heard: Reference::to::<E>(),
            index: E::INDEX,
            read: route::read::<E::Set>,
            call: Arc::new(call),
            key: None,
            limit,
            live_only: false,
        });
        self
    }

    /// The reaction to `E`; takes note if there is none.
    fn reaction<E: MemberOf>(&mut self) -> Option<&mut Reaction<R>> {
        let name = <E as Event>::NAME;
        let found = self.reactions.iter_mut().find(|reaction| reaction.is::<E>());
        if found.is_none() {
            self.unhandled.push(name);
        }
        found
    }

    /// What is wrong with the handlers, if anything is.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        let reactor = R::NAME;
        if let Some(event) = self.twice.first() {
            return Err(StartError::ReactorHandlerTwice { reactor, event });
        }
        if let Some(event) = self.unhandled.first() {
            return Err(StartError::ReactorUnhandled { reactor, event });
        }
        match self.reactions.is_empty() {
            true => Err(StartError::ReactorNoHandlers(reactor)),
            false => Ok(()),
        }
    }

    /// The sets of its events.
    pub(crate) fn sets(&self) -> Vec<SetInfo> {
        self.reactions.iter().map(|reaction| reaction.set).collect()
    }

    pub(crate) fn heard(&self) -> Vec<Reference> {
        self.reactions.iter().map(|reaction| reaction.heard.clone()).collect()
    }

    /// Binds the handlers to `reactor`.
    pub(crate) fn bind(self, reactor: R, building: &mut Building) -> Result<Routes, StartError> {
        #[cfg(feature = "sqlite")]
        let guard = match self.needs_guard {
            true => Some(
                transaction::Guard::open(building, R::NAME)
                    .map_err(|source| StartError::Ledger { name: R::NAME, source })?,
            ),
            false => None,
        };
        #[cfg(not(feature = "sqlite"))]
        let _ = building;
        let bound = Arc::new(Bound {
            reactor,
            #[cfg(feature = "sqlite")]
            guard,
        });
        let mut sets: HashMap<TypeId, Vec<Reaction<R>>> = HashMap::new();
        for reaction in self.reactions {
            sets.entry(reaction.set.id).or_default().push(reaction);
        }
        let mut routes = Routes::default();
        for reactions in sets.into_values() {
            let Some(first) = reactions.first() else { continue };
            let (read, set) = (first.read, first.set);
            let names: Vec<_> =
                reactions.iter().map(|reaction| (reaction.name, reaction.live_only)).collect();
            routes.add(set, names, &prepare(read, reactions.into(), &bound));
        }
        Ok(routes)
    }
}

/// What is done with the events of one set.
fn prepare<R: Reactor>(
    read: ReadSet,
    reactions: Arc<[Reaction<R>]>,
    bound: &Arc<Bound<R>>,
) -> Arc<Prepare> {
    let bound = Arc::clone(bound);
    Arc::new(move |recorded: &Recorded, decoder: &Decoder| {
        let mut parts = Vec::new();
        for (place, (index, event)) in read(recorded, decoder)?.into_iter().enumerate() {
            let found = reactions.iter().find(|reaction| reaction.index == index);
            let Some(Reaction { call, key, limit, live_only, .. }) = found else { continue };
            let key = key.as_ref().map(|key| key(&*event, &recorded.header.part(place)));
            let (bound, call) = (Arc::clone(&bound), Arc::clone(call));
            let attempt =
                move |delivery: Delivery| call(Arc::clone(&bound), Arc::clone(&event), delivery);
            let (limit, live_only) = (*limit, *live_only);
            parts.push(Part { place, key, attempt: Box::new(attempt), limit, live_only });
        }
        Ok(Prepared::of(R::NAME, parts))
    })
}

/// A set of events hands out another event than the one of the name.
#[derive(Debug, thiserror::Error)]
#[error("the event of the name {0:?} is none of the type with that name")]
struct OtherEvent(&'static str);

fn event<E: MemberOf>(decoded: &Decoded) -> Option<&E> {
    decoded.downcast_ref::<E::Set>().and_then(E::from_set)
}

impl<R> fmt::Debug for Reactions<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.reactions.iter().map(|reaction| reaction.name)).finish()
    }
}
