//! Projections: events folded into views that answer queries.
//!
//! A [`Projection`] names its handlers, one for each event that it cares about, from any number of aggregates. Their
//! events reach it in commit order, each once: first from the log, then live. It keeps its view either [`InMemory`],
//! where it is folded from the beginning with each start of the app, or in SQLite `Tables`, where it resumes from the
//! checkpoint that it keeps beside its rows.
//!
//! # A handler that fails
//! The event is tried again if the error may pass, and [parked](crate::Letters) if it does not or does not in time. Later events
//! of its key, which is its stream unless declared otherwise, wait behind it; all others are folded. A projection that needs all
//! events in one order [stops](crate::OnFailure::Stop) instead. Tables hold nothing of an event that failed; a view in memory holds
//! what its handler had changed before it failed, so such a handler should check first and change then.
//!
//! # A view that is behind
//! A view follows the log by microseconds to milliseconds. [`View::at_least`] waits until it holds what a receipt or another
//! reader has seen; it answers from that state or a later one, or not at all. What is parked is missing in it:
//! [`App::letters`](crate::App::letters) says what that is.
//!
//! # A view that is to be built anew
//! [`App::rebuild`](crate::App::rebuild) folds the view anew from the start of the log, beside the one that serves: in memory,
//! or in a file of its own beside the tables. When both are level they are switched, tables in one transaction; readers see the old
//! view or the new one, never an empty or an earlier one. It can be [cancelled](crate::Rebuild::cancel), and a crash leaves the old
//! view. A view in tables whose version was raised, with the same schema, is rebuilt so by itself: the old tables are read as they
//! stand until the new ones are level; a position that they do not hold is waited for by [`at_least`](View::at_least), for as long as
//! its timeout says. With another schema text, the version raised or not, the queries of this program could not read the old tables:
//! they are dropped, and the view is built anew in their place, incomplete until it is level.
//!
//! Handlers that are live-only do not run in a rebuild: the view that serves meanwhile has run them. After a raised version they run
//! for the events that no earlier version has handled.
//!
//! # A view as it was
//! [`App::as_of`](crate::App::as_of) folds a view up to an earlier position, beside the one that serves; see [`AsOf`].
//!
//! # A view that moves
//! [`View::watch`] yields an answer whenever it has changed, and holds up nobody; see [`Watching`].

mod as_of;
mod memory;
pub(crate) mod rebuild;
#[cfg(feature = "sqlite")]
pub(crate) mod tables;
mod watching;

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use self::as_of::{AsOf, AsOfError, LogPoint};
pub use self::memory::{AtLeast, InMemory, View, ViewRef};
pub use self::rebuild::Rebuild;
#[cfg(feature = "sqlite")]
pub use self::tables::{TableAtLeast, TableReader, TableView, Tables, Transaction};
pub use self::watching::Watching;
use crate::app::{Building, StartError};
use crate::event::{Event, Header, MemberOf};
use crate::processor::{ConsumerState, Handler, Progress, Sources, Trouble, TypedSource};
use crate::query::Answers;
use crate::retry::FailurePolicy;
use crate::stream::Position;

/// Events folded into a view (read model).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a projection",
    label = "not a projection",
    note = "put `#[projection(name = \"…\", version = 1)]` on an `impl {Self}` block with `#[on]` handlers"
)]
pub trait Projection: Send + Sync + Sized + 'static {
    /// Its name, unique in the app, never changed: its checkpoint is kept under it.
    const NAME: &'static str;

    /// Raise it when the handlers or the tables change: the view is then built anew from the log. With the same schema text the
    /// old tables are read until the new ones are level; with another one they are dropped at once.
    const VERSION: u32;

    /// Where the view lives: [`InMemory`] or `Tables`.
    type Storage: Storage;

    /// Names the handlers.
    fn handlers(handlers: &mut Handlers<Self, Self::Storage>);

    /// What becomes of an event that a handler fails at.
    fn failures() -> FailurePolicy {
        FailurePolicy::default()
    }
}

/// Where a view can live; closed.
pub trait Storage: private::Storage {
    /// How the view of `P` is read.
    type View<P: Projection<Storage = Self>>: Clone + Send + Sync + 'static;
}

pub(crate) mod private {
    use std::sync::Arc;

    use super::rebuild::Rebuilds;
    use super::{Building, Projection};
    use crate::app::StartError;

    /// What the app needs to know of a way to keep views.
    pub trait Storage: Sized + 'static {
        /// What handlers fold into.
        type Target<P: Send + Sync + 'static>: 'static;

        /// What the queries of a view are answered from.
        type Reader<P: Send + Sync + 'static>: 'static;

        /// Starts the actor of `projection`, and returns how it is read and how it is built anew.
        #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
        fn start<P: Projection<Storage = Self>>(
            projection: P,
            building: &mut Building,
        ) -> Result<(<Self as super::Storage>::View<P>, Arc<dyn Rebuilds<P>>), StartError>
        where
            Self: super::Storage;
    }
}

/// The handlers of a projection, one for each event that it cares about.
pub struct Handlers<P: Send + Sync + 'static, S: Storage> {
    sources: Sources<S::Target<P>>,
    /// The stored names of events that were given a second handler.
    twice: Vec<&'static str>,
    /// The stored names of events that something was said of, and that have no handler.
    unhandled: Vec<&'static str>,
    /// What is to be done once the view can be read, for each type of query that it answers.
    answers: Vec<Answer<S::Reader<P>>>,
    #[cfg(feature = "sqlite")]
    schema: Option<&'static str>,
    /// Whether a handler does not run in a replay.
    pub(crate) differs_in_a_replay: bool,
    storage: PhantomData<S>,
}

/// Registers how queries of one type are answered from a `V`.
type Answer<V> = Box<dyn FnOnce(&V, &mut Answers) -> Result<(), StartError>>;

impl<P: Projection<Storage = S>, S: Storage> Handlers<P, S> {
    pub(crate) fn of_projection() -> Self {
        let (sources, twice) = (Vec::new(), Vec::new());
        let mut handlers = Self {
            sources,
            twice,
            unhandled: Vec::new(),
            answers: Vec::new(),
            #[cfg(feature = "sqlite")]
            schema: None,
            differs_in_a_replay: false,
            storage: PhantomData,
        };
        P::handlers(&mut handlers);
        handlers
    }

    fn add<E: MemberOf>(
        &mut self,
        handler: impl Fn(&mut S::Target<P>, &E, &Header) -> Result<(), Box<dyn Error + Send + Sync>>
        + Send
        + Sync
        + 'static,
    ) -> &mut Self {
        let call = Box::new(move |target: &mut S::Target<P>, set: &E::Set, header: &Header| {
            match E::from_set(set) {
                Some(event) => handler(target, event, header),
                None => Ok(()),
            }
        });
        let handler = Handler { call, key: None, live_only: false };
        let free = match self.source::<E>() {
            Some(source) => source.handle(E::INDEX, handler),
            None => {
                let mut source = TypedSource::<S::Target<P>, E::Set>::new();
                let free = source.handle(E::INDEX, handler);
                self.sources.push(Box::new(source));
                free
            }
        };
        if !free {
            self.twice.push(<E as Event>::NAME);
        }
        self
    }

    /// What answers the queries of a view that is read through `reader`.
    fn answers(reader: &S::Reader<P>) -> Result<Answers, StartError> {
        let mut answers = Answers::default();
        let handlers = Self::of_projection().answers;
        handlers.into_iter().try_for_each(|answer| answer(reader, &mut answers))?;
        Ok(answers)
    }

    /// The sources of the events that have a handler.
    pub(crate) fn take_sources(&mut self) -> Result<Sources<S::Target<P>>, StartError> {
        if let Some(event) = self.twice.first() {
            return Err(StartError::HandlerTwice { projection: P::NAME, event });
        }
        if let Some(event) = self.unhandled.first() {
            return Err(StartError::Unhandled { projection: P::NAME, event });
        }
        Ok(std::mem::take(&mut self.sources))
    }

    fn source<E: MemberOf>(&mut self) -> Option<&mut TypedSource<S::Target<P>, E::Set>> {
        self.sources.iter_mut().find_map(|source| source.as_any_mut().downcast_mut())
    }

    fn handler<E: MemberOf>(&mut self) -> Option<&mut Handler<S::Target<P>, E::Set>> {
        let handler = self.source::<E>().and_then(|source| source.handler(E::INDEX));
        if handler.is_none() {
            self.unhandled.push(<E as Event>::NAME);
        }
        self.source::<E>()?.handler(E::INDEX)
    }

    /// Keeps events of type `E`, which has a handler, in order by `key`: when one fails, those with the same key wait behind it. By
    /// their stream, unless this is said.
    pub fn key<E: MemberOf, D: fmt::Display>(
        &mut self,
        key: impl Fn(&E, &Header) -> D + Send + Sync + 'static,
    ) -> &mut Self {
        if let Some(handler) = self.handler::<E>() {
            handler.key = Some(Box::new(move |set, header| match E::from_set(set) {
                Some(event) => key(event, header).to_string(),
                None => String::new(),
            }));
        }
        self
    }

    /// Runs the handler of events of type `E` for what is committed from now on only: not for what was in the log when the view
    /// was begun, or is built anew. A view in memory is built anew with each start of the app.
    pub fn live_only<E: MemberOf>(&mut self) -> &mut Self {
        self.differs_in_a_replay = true;
        if let Some(handler) = self.handler::<E>() {
            handler.live_only = true;
        }
        self
    }
}

impl<P: Send + Sync + 'static, S: Storage> fmt::Debug for Handlers<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.sources.iter().flat_map(|source| source.names());
        f.debug_set().entries(names).finish()
    }
}

/// What a handler may return: nothing, or a [`Result`] of nothing with any error.
#[diagnostic::on_unimplemented(
    message = "an event handler cannot return `{Self}`",
    label = "neither `()` nor a `Result<(), _>`",
    note = "return `()` or `Result<(), E>` with an error that converts into `Box<dyn std::error::Error + Send + Sync>`"
)]
pub trait HandlerOutcome {
    /// The same as a plain result.
    ///
    /// # Errors
    /// The handler's own.
    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>>;
}

impl HandlerOutcome for () {
    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }
}

/// What `Connection::execute` returns: the number of changed rows, which is dropped.
impl<E: Into<Box<dyn Error + Send + Sync>>> HandlerOutcome for Result<usize, E> {
    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.map(drop).map_err(Into::into)
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> HandlerOutcome for Result<(), E> {
    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.map_err(Into::into)
    }
}

/// Why a view did not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The view did not reach the position in time; it may later.
    #[error("{name} stands at position {reached} and did not reach {wanted} within {waited:?}")]
    TimedOut {
        /// The projection's name.
        name: &'static str,
        /// The position that was asked for.
        wanted: Position,
        /// Where the view stood when the time was over.
        reached: Position,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The projection has stopped before the position, so the view will not reach it.
    #[error("{name} stopped at position {reached} and will not reach {wanted}")]
    Stopped {
        /// The projection's name.
        name: &'static str,
        /// The position that was asked for.
        wanted: Position,
        /// Where the view stands.
        reached: Position,
        /// Why it stopped; none if the app was shut down.
        #[source]
        trouble: Option<Arc<Trouble>>,
    },
    /// No consumer of the app has this name.
    #[error("the app has no consumer {name:?}; it has {known:?}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names of its consumers.
        known: Vec<&'static str>,
    },
    /// A query on a table view failed.
    #[error("the query on projection {name} failed")]
    Query {
        /// The projection's name.
        name: &'static str,
        /// What the database says.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
}

/// How long a read waits for its position, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until a consumer has reached `wanted`; needs no timer if it has.
pub(crate) async fn reached(
    name: &'static str,
    mut progress: watch::Receiver<Progress>,
    wanted: Position,
    patience: Duration,
) -> Result<(), ViewError> {
    if progress.borrow().position >= wanted {
        return Ok(());
    }
    let arrival = progress.wait_for(|progress| {
        progress.position >= wanted || progress.state == ConsumerState::Stopped
    });
    let arrived = tokio::time::timeout(patience, arrival)
        .await
        .map(|arrived| arrived.map(|progress| (progress.position, progress.trouble.clone())));
    match arrived {
        Ok(Ok((position, _))) if position >= wanted => Ok(()),
        Ok(Ok((reached, trouble))) => Err(ViewError::Stopped { name, wanted, reached, trouble }),
        Ok(Err(_)) => {
            let reached = progress.borrow().position;
            Err(ViewError::Stopped { name, wanted, reached, trouble: None })
        }
        Err(_) => {
            let reached = progress.borrow().position;
            Err(ViewError::TimedOut { name, wanted, reached, waited: patience })
        }
    }
}
