//! Aggregates: the consistency boundary of a domain, and how one decides.
//!
//! An aggregate is the fold of its own stream. [`Aggregate::decide`] looks at that state and answers a command with events
//! or a rejection; [`Aggregate::apply`] folds one event. Both are pure and synchronous: no clock, no randomness, no
//! input or output. What a decision needs from outside comes in with the command and its [`Context`].
//!
//! Write one with `#[aggregate]`, or implement the traits by hand:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use tidings::{Aggregate, Codec, CodecError, Command, Context, DecodeError, Event, EventSet, MemberOf, SentTo};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Lit;
//! impl Event for Lit {
//!     const NAME: &'static str = "lamp.lit";
//!     const VERSION: u32 = 1;
//! }
//!
//! enum LampEvent {
//!     Lit(Lit),
//! }
//! impl EventSet for LampEvent {
//!     const CATEGORY: &'static str = "lamp";
//!     const NAMES: &'static [&'static str] = &[Lit::NAME];
//!     fn index(&self) -> usize {
//!         match self {
//!             Self::Lit(_) => Lit::INDEX,
//!         }
//!     }
//!     fn name(&self) -> &'static str {
//!         match self {
//!             Self::Lit(_) => Lit::NAME,
//!         }
//!     }
//!     fn schema_version(&self) -> u32 {
//!         match self {
//!             Self::Lit(_) => Lit::VERSION,
//!         }
//!     }
//!     fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
//!         match self {
//!             Self::Lit(event) => Codec::Json.encode(event, bytes),
//!         }
//!     }
//!     fn decode(name: &str, version: u32, codec: Codec, payload: &[u8]) -> Result<Self, DecodeError> {
//!         match name {
//!             Lit::NAME => tidings::decode_event(version, codec, payload).map(Self::Lit),
//!             _ => Err(DecodeError::UnknownName {
//!                 category: Self::CATEGORY,
//!                 name: name.to_owned(),
//!                 known: Self::NAMES,
//!             }),
//!         }
//!     }
//! }
//! impl MemberOf for Lit {
//!     type Set = LampEvent;
//!     const INDEX: usize = 0;
//!     fn from_set(set: &LampEvent) -> Option<&Self> {
//!         match set {
//!             LampEvent::Lit(event) => Some(event),
//!         }
//!     }
//!     fn take(set: LampEvent) -> Option<Self> {
//!         match set {
//!             LampEvent::Lit(event) => Some(event),
//!         }
//!     }
//! }
//!
//! #[derive(Clone)]
//! struct Light;
//! impl Command for Light {
//!     const NAME: &'static str = "Light";
//! }
//! impl SentTo for Light {
//!     type Aggregate = Lamp;
//! }
//!
//! #[derive(Default)]
//! struct Lamp {
//!     lit: bool,
//! }
//! impl Aggregate for Lamp {
//!     const CATEGORY: &'static str = "lamp";
//!     type Event = LampEvent;
//!     type Command = Light;
//!     type Error = std::convert::Infallible;
//!     fn decide(&self, _: Light, _: &Context, events: &mut Vec<LampEvent>) -> Result<(), Self::Error> {
//!         if !self.lit {
//!             events.push(LampEvent::Lit(Lit));
//!         }
//!         Ok(())
//!     }
//!     fn apply(&mut self, event: &LampEvent) {
//!         match event {
//!             LampEvent::Lit(_) => self.lit = true,
//!         }
//!     }
//!     fn command_name(_: &Light) -> &'static str {
//!         Light::NAME
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tidings::{App, Memory};
//! let app = App::builder().store(Memory::new()).aggregate::<Lamp>().start().await?;
//! assert_eq!(app.send("hall", Light).await?.events, 1);
//! assert_eq!(app.send("hall", Light).await?.events, 0);
//! app.shutdown().await?;
//! # Ok(())
//! # }
//! ```

pub(crate) mod directory;
pub(crate) mod inbox;
mod loader;
pub(crate) mod shard;
pub(crate) mod subscriptions;
mod turn;

pub use self::subscriptions::AggregateSubscriptions;
use crate::command::Context;
use crate::event::EventSet;
use crate::retry::UnknownEvents;

/// A consistency boundary: state folded from its own stream, which decides commands.
///
/// The empty stream folds to [`Default`]. One lives at a time for each stream of a process; its commands are decided one
/// by one, in the order of their arrival.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate",
    label = "not an aggregate",
    note = "put `#[aggregate(category = \"…\", events = …, error = …)]` on an `impl {Self}` block"
)]
pub trait Aggregate: Default + Send + 'static {
    /// The category of its streams; no hyphen. It stands in the log, so it must never change.
    const CATEGORY: &'static str;

    /// The enum of its events.
    type Event: EventSet;

    /// The enum of its commands; for a single command, that command.
    type Command: Clone + Send + 'static;

    /// Why it rejects.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Decides `command` against the current state: pushes the events that follow from it, or rejects.
    ///
    /// `events` comes in empty. What was pushed before a rejection is dropped.
    ///
    /// # Errors
    /// The aggregate's own reason to reject the command.
    fn decide(
        &self,
        command: Self::Command,
        context: &Context,
        events: &mut Vec<Self::Event>,
    ) -> Result<(), Self::Error>;

    /// Folds one event into the state. It cannot fail: the event has happened.
    fn apply(&mut self, event: &Self::Event);

    /// The command's name in traces.
    fn command_name(command: &Self::Command) -> &'static str;

    /// What happens when its stream, or a category that it subscribes to, holds an event of a name that the program does not know;
    /// it is an error unless said.
    fn unknown_events() -> UnknownEvents {
        UnknownEvents::Refuse
    }

    /// Names the events of other aggregates that it decides on; none unless said.
    fn subscribe(_to: &mut AggregateSubscriptions<Self>) {}
}

/// What a command handler may return: one event, several (a tuple, array or `Vec`), perhaps one (`Option`), none (`()`),
/// or a [`Result`] of any of these with the aggregate's error type.
#[diagnostic::on_unimplemented(
    message = "a command handler of this aggregate cannot return `{Self}`",
    label = "neither an event that this aggregate applies, nor `()`, nor a tuple, array, `Vec`, `Option` or `Result` of these",
    note = "an event that it returns needs `#[apply] fn …(&mut self, event: &…)` in the aggregate",
    note = "a `Result` that it returns needs the error type named by `#[aggregate(error = …)]`"
)]
pub trait IntoDecision<S: EventSet, R> {
    /// Pushes the events, or returns the rejection.
    ///
    /// # Errors
    /// The rejection.
    fn into_decision(self, events: &mut Vec<S>) -> Result<(), R>;
}

impl<S: EventSet, R> IntoDecision<S, R> for () {
    fn into_decision(self, _: &mut Vec<S>) -> Result<(), R> {
        Ok(())
    }
}

impl<S: EventSet, R, T: IntoDecision<S, R>> IntoDecision<S, R> for Option<T> {
    fn into_decision(self, events: &mut Vec<S>) -> Result<(), R> {
        self.map_or(Ok(()), |decision| decision.into_decision(events))
    }
}

impl<S: EventSet, R, T: IntoDecision<S, R>> IntoDecision<S, R> for Result<T, R> {
    fn into_decision(self, events: &mut Vec<S>) -> Result<(), R> {
        self?.into_decision(events)
    }
}

impl<S: EventSet, R, T: IntoDecision<S, R>> IntoDecision<S, R> for Vec<T> {
    fn into_decision(self, events: &mut Vec<S>) -> Result<(), R> {
        self.into_iter().try_for_each(|decision| decision.into_decision(events))
    }
}

impl<S: EventSet, R, T: IntoDecision<S, R>, const N: usize> IntoDecision<S, R> for [T; N] {
    fn into_decision(self, events: &mut Vec<S>) -> Result<(), R> {
        self.into_iter().try_for_each(|decision| decision.into_decision(events))
    }
}

macro_rules! tuple {
    ($($t:ident)+) => {
        impl<S: EventSet, R, $($t: IntoDecision<S, R>),+> IntoDecision<S, R> for ($($t,)+) {
            #[allow(non_snake_case, reason = "each variable bears the name of its type parameter")]
            fn into_decision(self, events: &mut Vec<S>) -> Result<(), R> {
                let ($($t,)+) = self;
                $($t.into_decision(events)?;)+
                Ok(())
            }
        }
    };
}

tuple!(A);
tuple!(A B);
tuple!(A B C);
tuple!(A B C D);
tuple!(A B C D E);
tuple!(A B C D E F);
