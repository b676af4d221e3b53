//! Asking the one who answers.

use std::error::Error;
use std::fmt;
use std::future::{Future, ready};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;

use super::answers::Answerer;
use super::{Query, QueryContext, QueryError};
use crate::actor::Panic;
use crate::app::App;
use crate::projection::Watching;
use crate::stream::Position;

/// A query to be asked; await it for its reply.
///
/// # Errors
/// See [`QueryError`].
///
/// # Panics
/// Outside of a tokio runtime with a timer, unless a view in memory answers at once.
///
/// # Cancel safety
/// A query changes nothing, so it can be dropped at any time: its handler is dropped where it waits. A query on tables that
/// has begun runs to its end on its thread; its reply is lost.
#[must_use = "a query is not asked unless it is awaited"]
pub struct Asking<Q> {
    query: Q,
    context: QueryContext,
}

impl<Q: Query> Asking<Q> {
    pub(crate) fn new(app: App, query: Q) -> Self {
        Self { query, context: QueryContext::new(app) }
    }

    /// Asks for a reply that holds everything up to `position`, such as that of a receipt: it reads your own write.
    ///
    /// A projection waits until its view has it. A closure is told, in [`QueryContext::position`].
    pub fn at_least(mut self, position: Position) -> Self {
        self.context.position = position;
        self
    }

    /// Waits for this long at most, for the position and the handler together; five seconds unless set.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.context.within = deadline;
        self
    }
}

impl<Q: Query> fmt::Debug for Asking<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking")
            .field("query", &Q::NAME)
            .field("position", &self.context.position)
            .field("within", &self.context.within)
            .finish()
    }
}

impl<Q: Query> IntoFuture for Asking<Q> {
    type Output = Result<Q::Reply, QueryError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let app = self.context.app.clone();
        match app.answers().answerer::<Q>() {
            Some(answerer) => (answerer.handler)(self.query, self.context),
            None => Box::pin(ready(Err(QueryError::Unanswered(Q::NAME)))),
        }
    }
}

/// Asks `query` again whenever a view has moved that its answer may come from.
pub(crate) fn watch<Q>(app: App, query: Q) -> Watching<Result<Q::Reply, QueryError>>
where
    Q: Query + Clone,
    Q::Reply: Clone + PartialEq,
{
    let progress = match app.answers().answerer::<Q>() {
        Some(Answerer { progress: Some(progress), .. }) => vec![progress.clone()],
        // A closure may read every view of the app.
        Some(_) => app.progress_of_projections(),
        None => Vec::new(),
    };
    let answer = move || app.query(query.clone()).into_future();
    Watching::new(Q::NAME, progress, answer, |answer| answer)
}

/// What `handler` says to a query of type `Q`, if it says so in time.
pub(super) async fn answered<Q: Query, R>(
    within: Duration,
    handler: impl Future<Output = Result<R, Box<dyn Error + Send + Sync>>>,
) -> Result<R, QueryError> {
    let caught = AssertUnwindSafe(handler).catch_unwind();
    let handled = tokio::time::timeout(within, caught).await.map_err(|_| QueryError::TimedOut {
        query: Q::NAME,
        waited: within,
        view: None,
    })?;
    QueryError::unless_answered::<Q, R>(handled.map_err(Panic::new))
}
