//! Asking everyone who responds.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::{Either, join_all, ready};
use tracing::{Instrument, debug_span};

use super::answers::Responder;
use super::ask::answered;
use super::{Query, QueryContext, QueryError};
use crate::actor::Panic;
use crate::app::App;
use crate::stream::Position;
use crate::telemetry;

/// A query to be asked of everyone who responds to it; await it for what they say.
///
/// All are asked at once, in the task of who asks: they share its thread, so one that computes or blocks holds up the
/// others, while one that waits, fails, panics or hangs does not. It is ready when everyone has answered or the time is over.
///
/// # Errors
/// [`QueryError::NoResponder`] if nobody was registered for the query. What the responders fail with is part of
/// [`Gathered`].
///
/// # Panics
/// Outside of a tokio runtime with a timer.
///
/// # Cancel safety
/// A query changes nothing, so it can be dropped at any time: the responders are dropped where they wait.
#[must_use = "a query is not asked unless it is awaited"]
pub struct Gathering<Q> {
    query: Q,
    context: QueryContext,
}

/// What the responders to a query said, each under its name and in the order of registration.
#[non_exhaustive]
pub struct Gathered<Q: Query> {
    /// The replies of those who answered in time.
    pub replies: Vec<(&'static str, Q::Reply)>,
    /// Those who failed or panicked, and how.
    pub failed: Vec<(&'static str, QueryError)>,
    /// Those who had not answered when the time was over.
    pub late: Vec<&'static str>,
}

impl<Q: Query + Clone> Gathering<Q> {
    pub(crate) fn new(app: App, query: Q) -> Self {
        Self { query, context: QueryContext::new(app) }
    }

    /// Tells the responders, in [`QueryContext::position`], what their replies must hold.
    pub fn at_least(mut self, position: Position) -> Self {
        self.context.position = position;
        self
    }

    /// Waits for this long at most; five seconds unless set.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.context.within = deadline;
        self
    }
}

impl<Q: Query> Gathered<Q> {
    /// Whether everyone has replied: nobody was late, and nobody failed.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.late.is_empty()
    }
}

impl<Q: Query + Clone> IntoFuture for Gathering<Q> {
    type Output = Result<Gathered<Q>, QueryError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { query, context } = self;
            let responders = context.app.answers().responders::<Q>();
            if responders.is_empty() {
                return Err(QueryError::NoResponder(Q::NAME));
            }
            let asked: Vec<_> =
                responders.iter().map(|responder| ask(responder, &query, &context)).collect();
            let answers = join_all(asked).await;
            let mut gathered =
                Gathered { replies: Vec::new(), failed: Vec::new(), late: Vec::new() };
            for (responder, answer) in responders.iter().zip(answers) {
                match answer {
                    Ok(reply) => gathered.replies.push((responder.name, reply)),
                    Err(QueryError::TimedOut { .. }) => gathered.late.push(responder.name),
                    Err(error) => gathered.failed.push((responder.name, error)),
                }
            }
            Ok(gathered)
        })
    }
}

/// What one of the responders says.
fn ask<Q: Query + Clone>(
    responder: &Responder<Q>,
    query: &Q,
    context: &QueryContext,
) -> impl Future<Output = Result<Q::Reply, QueryError>> + Send + use<Q> {
    let span = debug_span!(
        telemetry::QUERY,
        query = Q::NAME,
        position = %context.position,
        responder = responder.name
    );
    // The user's `Clone` may panic too.
    let begun =
        span.in_scope(|| Panic::catch(|| (responder.handler)(query.clone(), context.clone())));
    let answer = match begun {
        Ok(handler) => Either::Left(answered::<Q, _>(context.within, handler)),
        Err(panic) => Either::Right(ready(QueryError::unless_answered::<Q, _>(Err(panic)))),
    };
    answer.instrument(span)
}

impl<Q: Query> fmt::Debug for Gathering<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathering")
            .field("query", &Q::NAME)
            .field("position", &self.context.position)
            .field("within", &self.context.within)
            .finish()
    }
}

impl<Q: Query> fmt::Debug for Gathered<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replied: Vec<_> = self.replies.iter().map(|(name, _)| name).collect();
        f.debug_struct("Gathered")
            .field("query", &Q::NAME)
            .field("replied", &replied)
            .field("failed", &self.failed)
            .field("late", &self.late)
            .finish()
    }
}
