//! Who answers which query.

use std::any::{Any, TypeId};
use std::error::Error;
use std::future::{Future, ready};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hashbrown::HashMap;
use tokio::sync::watch;
use tracing::{Instrument, debug_span};

use super::{Query, QueryContext, QueryError};
use crate::app::{App, StartError};
use crate::processor::Progress;
use crate::telemetry;

/// The handlers of an app's queries, by the type of the query.
#[derive(Default)]
pub(crate) struct Answers {
    /// An [`Answerer`] each.
    answerers: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    /// A vector of [`Responder`]s each, in the order of their registration.
    responders: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

/// A function from queries of type `Q` to what becomes of them.
type Handler<Q, E> = Box<
    dyn Fn(Q, QueryContext) -> BoxFuture<'static, Result<<Q as Query>::Reply, E>> + Send + Sync,
>;

/// The one that answers queries of type `Q`.
pub(super) struct Answerer<Q: Query> {
    /// It sees to the deadline and to panics itself.
    pub(super) handler: Handler<Q, QueryError>,
    /// Where the projection shows its progress whose view it answers from; none if it may read whatever it likes.
    pub(super) progress: Option<watch::Receiver<Progress>>,
}

/// One of those who respond to queries of type `Q`.
pub(super) struct Responder<Q: Query> {
    pub(super) name: &'static str,
    pub(super) handler: Handler<Q, Box<dyn Error + Send + Sync>>,
}

impl Answers {
    /// Makes `answerer` the one that answers queries of type `Q`, from the view whose progress is shown in `progress` if it
    /// is that of a projection.
    pub(crate) fn add_answerer<Q, A>(
        &mut self,
        progress: Option<watch::Receiver<Progress>>,
        answerer: impl Fn(Q, QueryContext) -> A + Send + Sync + 'static,
    ) -> Result<(), StartError>
    where
        Q: Query,
        A: Future<Output = Result<Q::Reply, QueryError>> + Send + 'static,
    {
        let handler: Handler<Q, QueryError> = Box::new(move |query, context| {
            let span = debug_span!(telemetry::QUERY, query = Q::NAME, position = %context.position);
            Box::pin(answerer(query, context).instrument(span))
        });
        let answerer = Answerer::<Q> { handler, progress };
        match self.answerers.insert(TypeId::of::<Q>(), Box::new(answerer)) {
            None => Ok(()),
            Some(_) => Err(StartError::AnswerTwice(Q::NAME)),
        }
    }

    /// Makes `handler` the one that answers queries of type `Q`.
    pub(crate) fn add_handler<Q, A>(
        &mut self,
        handler: impl Fn(Q, QueryContext) -> A + Send + Sync + 'static,
    ) -> Result<(), StartError>
    where
        Q: Query,
        A: Future<Output = Result<Q::Reply, Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.add_answerer(None, move |query, context| {
            let handler = Arc::clone(&handler);
            super::ask::answered::<Q, _>(
                context.within,
                async move { handler(query, context).await },
            )
        })
    }

    /// Adds one to those who respond to queries of type `Q`.
    pub(crate) fn add_responder<Q, A>(
        &mut self,
        name: &'static str,
        handler: impl Fn(Q, QueryContext) -> A + Send + Sync + 'static,
    ) -> Result<(), StartError>
    where
        Q: Query,
        A: Future<Output = Result<Q::Reply, Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let handler = Box::new(move |query, context| Box::pin(handler(query, context)) as _);
        let responder = Responder { name, handler };
        let responders = self
            .responders
            .entry(TypeId::of::<Q>())
            .or_insert_with(|| Box::new(Vec::<Responder<Q>>::new()));
        if let Some(responders) = responders.downcast_mut::<Vec<Responder<Q>>>() {
            if responders.iter().any(|responder| responder.name == name) {
                return Err(StartError::ResponderTwice { query: Q::NAME, responder: name });
            }
            responders.push(responder);
        }
        Ok(())
    }

    /// Asks `query` of the one who answers here.
    pub(crate) fn ask<Q: Query>(
        &self,
        query: Q,
        app: App,
    ) -> BoxFuture<'static, Result<Q::Reply, QueryError>> {
        match self.answerer::<Q>() {
            Some(answerer) => (answerer.handler)(query, QueryContext::new(app)),
            None => Box::pin(ready(Err(QueryError::Unanswered(Q::NAME)))),
        }
    }

    /// What answers queries of type `Q`.
    pub(super) fn answerer<Q: Query>(&self) -> Option<&Answerer<Q>> {
        self.answerers.get(&TypeId::of::<Q>())?.downcast_ref()
    }

    /// Everyone who responds to queries of type `Q`.
    pub(super) fn responders<Q: Query>(&self) -> &[Responder<Q>] {
        let responders = self.responders.get(&TypeId::of::<Q>());
        match responders.and_then(|any| any.downcast_ref::<Vec<Responder<Q>>>()) {
            Some(responders) => responders,
            None => &[],
        }
    }
}
