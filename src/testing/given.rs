//! given / when / then: tests of one aggregate's rules, without an app, a store or a clock.
//!
//! [`given`] folds a history, [`when`](Given::when) decides a command against it, and what follows says what must come of
//! it. Events are compared by stored name, schema version and payload, as the log would keep them, so they need neither
//! `PartialEq` nor `Debug`; rejections and the aggregate itself need both.
//!
//! # What each run checks besides
//! - **The codec.** Each event, of the history or decided, is written and read back. It must come back as the same event
//!   with the same payload: otherwise the next replay would fold something else than what was decided.
//! - **Replay.** The state that lived through the run must equal the one that is folded from the events as read back. It
//!   does not if `apply` looks at a clock, or at a field that is not stored.
//! - **Purity.** The command is decided again, on the replayed state, and must come to the same decision: the framework
//!   does that too, when a commit fails.
//!
//! # Panics
//! A check that fails panics at the line of the test that called it, with the events as stored.

use std::convert::Infallible;
use std::fmt::{self, Debug, Write as _};

use super::sealing::{reading, writing};
use crate::aggregate::{Aggregate, IntoDecision};
use crate::clock::Timestamp;
use crate::codec::Codec;
use crate::command::{Context, SentTo};
use crate::event::{EventSet, Header, Metadata, Recorded};
use crate::id::CommandId;
use crate::stream::StreamId;

/// Begins a test of `A` whose stream holds `events`: one event, several as a tuple, array or `Vec`, or `()`.
///
/// # Panics
/// If an event does not survive being stored.
///
/// # Examples
#[cfg_attr(feature = "macros", doc = "```")]
#[cfg_attr(not(feature = "macros"), doc = "```ignore")]
/// use serde::{Deserialize, Serialize};
/// use tidings::testing::{given, given_nothing};
/// use tidings::{Command, Event, aggregate};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(name = "account.deposited", version = 1)]
/// struct Deposited { cents: i64 }
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(name = "account.withdrawn", version = 1)]
/// struct Withdrawn { cents: i64 }
///
/// #[derive(Command, Clone)]
/// struct Withdraw { cents: i64 }
///
/// #[derive(Debug, PartialEq, thiserror::Error)]
/// #[error("overdrawn by {short} cents")]
/// struct Overdrawn { short: i64 }
///
/// #[derive(Debug, Default, PartialEq)]
/// struct Account { cents: i64 }
///
/// #[aggregate(category = "account", events = AccountEvent, error = Overdrawn)]
/// impl Account {
///     #[command]
///     fn withdraw(&self, command: Withdraw) -> Result<Withdrawn, Overdrawn> {
///         match command.cents - self.cents {
///             short @ 1.. => Err(Overdrawn { short }),
///             _ => Ok(Withdrawn { cents: command.cents }),
///         }
///     }
///     #[apply]
///     fn deposited(&mut self, event: &Deposited) { self.cents += event.cents }
///     #[apply]
///     fn withdrawn(&mut self, event: &Withdrawn) { self.cents -= event.cents }
/// }
///
/// given::<Account>((Deposited { cents: 100 }, Withdrawn { cents: 20 }))
///     .when(Withdraw { cents: 50 })
///     .then(Withdrawn { cents: 50 })
///     .then_state(|account| assert_eq!(account.cents, 30))
///     .when(Withdraw { cents: 31 })
///     .then_rejected(Overdrawn { short: 1 });
///
/// given_nothing::<Account>()
///     .when(Withdraw { cents: 1 })
///     .then_rejected_with(|error| error.short > 0);
/// ```
#[track_caller]
pub fn given<A>(events: impl IntoDecision<A::Event, Infallible>) -> Given<A>
where
    A: Aggregate + PartialEq + Debug,
{
    given_nothing::<A>().and(events)
}

/// Begins a test of `A` whose stream is empty.
pub fn given_nothing<A>() -> Given<A>
where
    A: Aggregate + PartialEq + Debug,
{
    Given {
        live: A::default(),
        history: Vec::new(),
        id: "given".to_owned(),
        time: Timestamp::default(),
        metadata: Metadata::default(),
    }
}

/// A history, and what surrounds the command that comes next.
#[must_use = "a history checks little by itself: go on with `when`"]
pub struct Given<A: Aggregate> {
    /// The state that lives through the run.
    live: A,
    history: Vec<Stored>,
    id: String,
    time: Timestamp,
    metadata: Metadata,
}

impl<A: Aggregate + PartialEq + Debug> Given<A> {
    /// Adds to the history.
    ///
    /// # Panics
    /// If an event does not survive being stored.
    #[track_caller]
    pub fn and(mut self, events: impl IntoDecision<A::Event, Infallible>) -> Self {
        let mut set = Vec::new();
        let Ok(()) = events.into_decision(&mut set);
        for event in set {
            self.history.push(Stored::of(&event));
            self.live.apply(&event);
        }
        self
    }

    /// The time at which commands are decided; the Unix epoch, if it is not said.
    pub fn at(mut self, time: Timestamp) -> Self {
        self.time = time;
        self
    }

    /// The id of the aggregate, without its category; `given`, if it is not said.
    pub fn stream_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Attaches metadata to the commands.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key, value);
        self
    }

    /// Decides `command` against the history.
    ///
    /// # Panics
    /// If the stream id is not valid, if an event does not survive being stored, if the replayed state differs from the
    /// live one, or if the command is decided otherwise when it is decided again.
    #[track_caller]
    pub fn when<C>(mut self, command: C) -> When<A>
    where
        C: SentTo<Aggregate = A>,
        A::Command: From<C>,
    {
        self.check_replay();
        let command = A::Command::from(command);
        let name = A::command_name(&command);
        let context = self.context();
        let decision = decide(&self.live, command.clone(), &context);
        let again = decide(&self.replayed(), command, &context);
        if !decision.agrees(&again) {
            fail(format_args!(
                "{name} is not decided the same way twice: a decision may depend only on the state, the command and its \
                 context\n{}\n{}",
                decision.show("first"),
                again.show("again"),
            ));
        }
        let outcome = match decision {
            Decision::Rejected(rejection) => Outcome::Rejected(rejection),
            Decision::Accepted(set, stored) => {
                for event in &set {
                    self.live.apply(event);
                }
                let new = stored.len();
                self.history.extend(stored);
                Outcome::Accepted { new }
            }
        };
        self.check_replay();
        When { given: self, command: name, outcome }
    }

    #[track_caller]
    fn context(&self) -> Context {
        match StreamId::new(A::CATEGORY, &self.id) {
            Ok(stream) => {
                let mut context =
                    Context::new(stream, self.time, CommandId::from_name("given/when/then"));
                context.metadata = self.metadata.clone();
                context
            }
            Err(error) => fail(format_args!("the stream id is not valid: {error}")),
        }
    }

    /// The state folded from the events as the log would hand them out.
    #[track_caller]
    fn replayed(&self) -> A {
        let mut state = A::default();
        for event in &self.history {
            state.apply(&event.read::<A::Event>());
        }
        state
    }

    #[track_caller]
    fn check_replay(&self) {
        let replayed = self.replayed();
        if self.live != replayed {
            fail(format_args!(
                "a replay of the events gives another state: `apply` may depend only on the state and on what of the \
                 event is stored\n  live:     {:?}\n  replayed: {replayed:?}\n{}",
                self.live,
                list("events", &self.history),
            ));
        }
    }
}

impl<A: Aggregate> Debug for Given<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given")
            .field("category", &A::CATEGORY)
            .field("id", &self.id)
            .field("events", &self.history.len())
            .finish_non_exhaustive()
    }
}

/// A command that was decided; say what must have come of it.
#[must_use = "say what must come of it: `then`, `then_nothing` or `then_rejected`"]
pub struct When<A: Aggregate> {
    given: Given<A>,
    command: &'static str,
    outcome: Outcome<A::Error>,
}

enum Outcome<R> {
    Accepted {
        /// How many events, the last ones of the history, were decided.
        new: usize,
    },
    Rejected(R),
}

impl<A: Aggregate + PartialEq + Debug> When<A> {
    /// The command was accepted with exactly `events`, in this order: one event, several as a tuple, array or `Vec`.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn then(self, events: impl IntoDecision<A::Event, Infallible>) -> Then<A> {
        let mut set = Vec::new();
        let Ok(()) = events.into_decision(&mut set);
        let expected: Vec<Stored> = set.iter().map(Stored::of).collect();
        match self.found() {
            Ok(found) if *found == *expected => {}
            found => fail(format_args!(
                "{} was not decided as expected\n{}\n{}",
                self.command,
                list("expected", &expected),
                show_found::<A>(found),
            )),
        }
        Then { given: self.given }
    }

    /// The command was accepted, with no event.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn then_nothing(self) -> Then<A> {
        self.then(())
    }

    /// The command was rejected with `rejection`.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn then_rejected(self, rejection: A::Error) -> Then<A>
    where
        A::Error: PartialEq,
    {
        match self.found() {
            Err(found) if *found == rejection => {}
            found => fail(format_args!(
                "{} was not rejected as expected\n  expected: rejected: {rejection:?}\n{}",
                self.command,
                show_found::<A>(found),
            )),
        }
        Then { given: self.given }
    }

    /// The command was rejected, and `is_expected` holds for the rejection: for errors without `PartialEq`, or of which
    /// only a part matters.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn then_rejected_with(self, is_expected: impl FnOnce(&A::Error) -> bool) -> Then<A> {
        match self.found() {
            Err(found) if is_expected(found) => {}
            found => fail(format_args!(
                "{} was not rejected as expected\n{}",
                self.command,
                show_found::<A>(found),
            )),
        }
        Then { given: self.given }
    }

    fn found(&self) -> Result<&[Stored], &A::Error> {
        match &self.outcome {
            Outcome::Rejected(rejection) => Err(rejection),
            Outcome::Accepted { new } => {
                let history = &self.given.history;
                let (_, new) = history.split_at(history.len().saturating_sub(*new));
                Ok(new)
            }
        }
    }
}

impl<A: Aggregate> Debug for When<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("When")
            .field("given", &self.given)
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

/// What came of a command was as expected; its events are part of the history.
pub struct Then<A: Aggregate> {
    given: Given<A>,
}

impl<A: Aggregate + PartialEq + Debug> Then<A> {
    /// Hands the state after the command to `check`, which asserts what it likes.
    pub fn then_state(self, check: impl FnOnce(&A)) -> Self {
        check(&self.given.live);
        self
    }

    /// Goes on with the next command.
    ///
    /// # Panics
    /// As [`Given::when`].
    #[track_caller]
    pub fn when<C>(self, command: C) -> When<A>
    where
        C: SentTo<Aggregate = A>,
        A::Command: From<C>,
    {
        self.given.when(command)
    }

    /// Goes on at another time.
    pub fn at(self, time: Timestamp) -> Given<A> {
        self.given.at(time)
    }
}

impl<A: Aggregate> Debug for Then<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Then").field("given", &self.given).finish()
    }
}

enum Decision<A: Aggregate> {
    Accepted(Vec<A::Event>, Vec<Stored>),
    Rejected(A::Error),
}

#[track_caller]
fn decide<A: Aggregate>(state: &A, command: A::Command, context: &Context) -> Decision<A> {
    let mut events = Vec::new();
    match state.decide(command, context, &mut events) {
        Ok(()) => {
            let stored = events.iter().map(Stored::of).collect();
            Decision::Accepted(events, stored)
        }
        Err(rejection) => Decision::Rejected(rejection),
    }
}

impl<A: Aggregate> Decision<A> {
    /// Rejections are compared by what they say: nothing else is asked of an error.
    fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Accepted(_, a), Self::Accepted(_, b)) => a == b,
            (Self::Rejected(a), Self::Rejected(b)) => a.to_string() == b.to_string(),
            _ => false,
        }
    }

    fn show(&self, title: &str) -> String {
        match self {
            Self::Accepted(_, stored) => list(title, stored),
            Self::Rejected(rejection) => format!("  {title}: rejected: {rejection:?}"),
        }
    }
}

/// An event as the log would keep it.
#[derive(Clone)]
pub(super) struct Stored {
    name: &'static str,
    schema_version: u32,
    codec: Codec,
    payload: Vec<u8>,
}

impl Stored {
    /// Stores `event`, and checks that reading gives the same event back.
    #[track_caller]
    pub(super) fn of<S: EventSet>(event: &S) -> Self {
        let stored = Self::written(event);
        let read = stored.read::<S>();
        let again = Self::written(&read);
        if event.index() != read.index() || stored != again {
            fail(format_args!(
                "{} is another event after it was stored and read back: its `Serialize` and `Deserialize` do not fit \
                 together\n  stored: {stored}\n  again:  {again}",
                stored.name,
            ));
        }
        stored
    }

    /// An event of the log.
    pub(super) fn of_recorded<S: EventSet>(event: &Recorded) -> Self {
        let name = S::NAMES.iter().find(|name| **name == event.name);
        Self {
            name: name.copied().unwrap_or_default(),
            schema_version: event.schema_version,
            codec: event.codec,
            payload: event.payload.to_vec(),
        }
    }

    /// The event on its way into the log.
    pub(super) fn recorded(
        &self,
        stream: StreamId,
        time: Timestamp,
        metadata: &[(String, String)],
    ) -> Recorded {
        let mut header = Header::new(stream, self.name, self.schema_version, time);
        header.codec = self.codec;
        for (key, value) in metadata {
            header.metadata.insert(key, value);
        }
        Recorded { header, payload: self.payload.as_slice().into() }
    }

    #[track_caller]
    fn written<S: EventSet>(event: &S) -> Self {
        let mut payload = Vec::new();
        if let Err(error) = writing(|| event.encode(&mut payload)) {
            fail(format_args!("{} cannot be stored: {}", event.name(), with_sources(&error),));
        }
        let (schema_version, codec) = (event.schema_version(), event.codec());
        Self { name: event.name(), schema_version, codec, payload }
    }

    #[track_caller]
    pub(super) fn read<S: EventSet>(&self) -> S {
        let decode = || S::decode(self.name, self.schema_version, self.codec, &self.payload);
        match reading(decode) {
            Ok(event) => event,
            Err(error) => fail(format_args!(
                "an event cannot be read back: {}\n  stored: {self}",
                with_sources(&error),
            )),
        }
    }

    /// Whether the payload has the same bytes in another order, and means the same: a `HashMap` writes its keys in an
    /// order of its own each time. The bytes count because large numbers lose digits as JSON values.
    fn is_reordered(&self, other: &Self) -> bool {
        let sorted = |payload: &[u8]| {
            let mut bytes = payload.to_vec();
            bytes.sort_unstable();
            bytes
        };
        let value = |payload| self.codec.decode_json(payload).ok();
        sorted(&self.payload) == sorted(&other.payload)
            && value(&self.payload) == value(&other.payload)
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        (self.name, self.schema_version) == (other.name, other.schema_version)
            && (self.payload == other.payload || self.is_reordered(other))
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = match (self.codec, self.codec.decode_json(&self.payload)) {
            (Codec::Json, _) | (_, Err(_)) => String::from_utf8_lossy(&self.payload),
            (_, Ok(value)) => value.to_string().into(),
        };
        write!(f, "{} v{} {payload}", self.name, self.schema_version)
    }
}

fn list(title: &str, events: &[Stored]) -> String {
    let mut text = match events.len() {
        0 => format!("  {title}: no event"),
        1 => format!("  {title}: 1 event"),
        n => format!("  {title}: {n} events"),
    };
    for event in events {
        // Writing into a string cannot fail.
        let _ = write!(text, "\n    {event}");
    }
    text
}

fn show_found<A: Aggregate>(found: Result<&[Stored], &A::Error>) -> String {
    match found {
        Ok(events) => list("found", events),
        Err(rejection) => format!("  found: rejected: {rejection:?}"),
    }
}

pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

#[track_caller]
#[expect(clippy::panic, reason = "this is how a test fails")]
pub(super) fn fail(message: fmt::Arguments<'_>) -> ! {
    panic!("{message}")
}
