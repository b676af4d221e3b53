//! Queries: a question of a type of its own, and the one reply to it.
//!
//! A [`Query`] names the type of its reply. [`App::query`] hands it to the one handler that the app has for its type: a
//! `#[query]` method of a projection, which reads the projection's view, or a closure given to [`AppBuilder::answer`].
//! [`App::gather`] asks everyone who was registered with [`AppBuilder::respond`], and collects what they say.
//!
//! A query changes nothing, so a failed one can be asked again. It leaves no trace in the log.
//!
//! # No queue
//! The handler runs in the task of who asks, as a function that is called: there is nothing to fill up and nothing to
//! bound, and who wants fewer queries at once asks fewer. Queries on tables alone are run elsewhere, on tokio's threads for
//! blocking; one that nobody waits for any more is not begun.
//!
//! # A view that is behind
//! A reply may be older than the newest event, unless [`at_least`](Asking::at_least) says how old it may be. A projection
//! then answers from a state with everything up to that position, or not at all. A closure is told the position in its
//! [`QueryContext`], and hands it on to the views that it reads: one that does not, answers from what it finds.
//!
//! # A handler that fails, panics or hangs
//! An error or a panic reaches the caller of that query, and nobody else. One that waits for too long is dropped where it
//! waits when the time is over, five seconds unless told otherwise with [`within`](Asking::within). One that computes or
//! blocks holds up its caller's task, and cannot be cut short.
//!
//! # A query that is watched
//! [`App::watch`] asks again whenever the view has moved that the query is answered from, and yields the replies that differ
//! from the one before; see [`Watching`](crate::Watching).
//!
//! # After the shutdown
//! Queries are still answered, from the views as they ended: a position that they have not reached is refused at once.
//!
//! [`AppBuilder::answer`]: crate::AppBuilder::answer
//! [`AppBuilder::respond`]: crate::AppBuilder::respond

mod answers;
mod ask;
mod gather;

use std::error::Error;
use std::time::Duration;

pub(crate) use self::answers::Answers;
pub use self::ask::Asking;
pub(crate) use self::ask::watch;
pub use self::gather::{Gathered, Gathering};
use crate::actor::Panic;
use crate::app::App;
use crate::projection::ViewError;
use crate::stream::Position;

/// How long a query may take, unless told otherwise; as long as a read of a view.
const WITHIN: Duration = Duration::from_secs(5);

/// A question about what has happened, with a reply of one type; it changes nothing.
///
/// Derive it with `#[derive(Query)]`. It is routed by its type: an app has one handler for each.
///
/// # Examples
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tidings::{App, Command, Event, Memory, Query, QueryError, aggregate, projection};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(name = "till.sold")]
/// # struct Sold { cents: i64 }
/// # #[derive(Command, Clone)]
/// # struct Sell { cents: i64 }
/// # #[derive(Default)]
/// # struct Till;
/// # #[aggregate(category = "till", events = TillEvent)]
/// # impl Till {
/// #     #[command]
/// #     fn sell(&self, Sell { cents }: Sell) -> Sold { Sold { cents } }
/// #     #[apply]
/// #     fn sold(&mut self, _: &Sold) {}
/// # }
/// #[derive(Query)]
/// #[query(reply = usize)]
/// struct SalesAbove { cents: i64 }
///
/// #[derive(Default)]
/// struct Sales(Vec<i64>);
///
/// #[projection(name = "sales", version = 1)]
/// impl Sales {
///     #[on]
///     fn sold(&mut self, event: &Sold) { self.0.push(event.cents) }
///
///     #[query]
///     fn above(&self, query: SalesAbove) -> usize {
///         self.0.iter().filter(|cents| **cents > query.cents).count()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app = App::builder().store(Memory::new()).aggregate::<Till>().projection(Sales::default());
/// let app = app.start().await?;
/// let receipt = app.send("1", Sell { cents: 250 }).await?;
/// let dear = app.query(SalesAbove { cents: 200 }).at_least(receipt.position).await?;
/// assert_eq!(dear, 1);
/// # app.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a query",
    label = "not a query",
    note = "add `#[derive(Query)]` and `#[query(reply = …)]` to the type"
)]
pub trait Query: Send + 'static {
    /// What it is answered with.
    type Reply: Send + 'static;

    /// The query's name in traces and errors: the name of its type.
    const NAME: &'static str;
}

/// What a `#[query]` method may return: the reply, or a [`Result`] of it with any error.
#[diagnostic::on_unimplemented(
    message = "a handler of a query with the reply `{R}` cannot return `{Self}`",
    label = "neither `{R}` nor a `Result<{R}, _>`",
    note = "return `{R}` or `Result<{R}, E>` with an error that converts into `Box<dyn std::error::Error + Send + Sync>`"
)]
pub trait IntoReply<R> {
    /// The same as a plain result.
    ///
    /// # Errors
    /// The handler's own.
    fn into_reply(self) -> Result<R, Box<dyn Error + Send + Sync>>;
}

impl<R> IntoReply<R> for R {
    fn into_reply(self) -> Result<R, Box<dyn Error + Send + Sync>> {
        Ok(self)
    }
}

impl<R, E: Into<Box<dyn Error + Send + Sync>>> IntoReply<R> for Result<R, E> {
    fn into_reply(self) -> Result<R, Box<dyn Error + Send + Sync>> {
        self.map_err(Into::into)
    }
}

/// What surrounds a query while a closure answers it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QueryContext {
    /// The app that was asked: its views, other queries.
    pub app: App,
    /// What the reply must hold, as the caller said with [`at_least`](Asking::at_least); [`Position::START`] if nothing was
    /// said. Hand it on: `context.app.view::<…>().at_least(context.position).await?`.
    pub position: Position,
    /// How long the whole query may take.
    pub within: Duration,
}

impl QueryContext {
    fn new(app: App) -> Self {
        Self { app, position: Position::START, within: WITHIN }
    }
}

/// Why a query was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Nothing in the app answers queries of this type: a mistake in the program's own wiring.
    #[error(
        "nothing answers query {0}: write `#[query] fn …` in a projection of the app, or `App::builder().answer(…)`"
    )]
    Unanswered(&'static str),
    /// Nobody in the app responds to queries of this type: a mistake in the program's own wiring.
    #[error("nobody responds to query {0}: write `App::builder().respond(…)`")]
    NoResponder(&'static str),
    /// It was not answered in time; it may be if it is asked again.
    #[error("query {query} was not answered within {waited:?}")]
    TimedOut {
        /// The query's name.
        query: &'static str,
        /// How long it was waited for.
        waited: Duration,
        /// Where the view stood, if it was the view that had not reached the position.
        #[source]
        view: Option<ViewError>,
    },
    /// The projection that answers it has stopped before the position, so the view will not reach it.
    #[error("query {query} asks for a position that its view will not reach")]
    Stopped {
        /// The query's name.
        query: &'static str,
        /// Where the view stands, and why.
        #[source]
        view: ViewError,
    },
    /// Its handler returned an error.
    #[error("query {query} failed")]
    Failed {
        /// The query's name.
        query: &'static str,
        /// What the handler says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Its handler panicked.
    #[error("the handler of query {query} panicked: {message}")]
    Panicked {
        /// The query's name.
        query: &'static str,
        /// The panic's message.
        message: String,
    },
}

impl QueryError {
    /// The view did not reach the position of a query of type `Q`.
    pub(crate) fn of_view<Q: Query>(view: ViewError) -> Self {
        let query = Q::NAME;
        match view {
            ViewError::TimedOut { waited, .. } => {
                Self::TimedOut { query, waited, view: Some(view) }
            }
            _ => Self::Stopped { query, view },
        }
    }

    /// What a handler for queries of type `Q` said, or its panic.
    pub(crate) fn unless_answered<Q: Query, R>(
        handled: Result<Result<R, Box<dyn Error + Send + Sync>>, Panic>,
    ) -> Result<R, Self> {
        let query = Q::NAME;
        match handled {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(source)) => Err(Self::Failed { query, source }),
            Err(panic) => Err(Self::Panicked { query, message: panic.message.to_string() }),
        }
    }
}
