//! Why an app could not be started.

use crate::store::StoreError;

/// Why an app could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No store was given.
    #[error("no store was given: call `.store(…)` with a `Sqlite` or a `Memory`")]
    NoStore,
    /// Two aggregates have the same category, or an aggregate was given twice.
    #[error("category {0:?} is used by two aggregates: each needs its own")]
    CategoryTwice(&'static str),
    /// The aggregates of a category decide twice on the same event.
    #[error("aggregate {category:?} decides twice on event {event:?}: decide on it once")]
    DecidedTwice {
        /// The category.
        category: &'static str,
        /// The event's stored name.
        event: &'static str,
    },
    /// A category cannot stand in a stream id.
    #[error("aggregate category {category:?} is not valid")]
    Category {
        /// The category.
        category: &'static str,
        /// What is wrong with it.
        source: crate::stream::InvalidStreamId,
    },
    /// Two projections have the same name, or a projection was given twice.
    #[error("projection {0:?} exists twice: each needs a name of its own")]
    ProjectionTwice(&'static str),
    /// A projection has no handler.
    #[error("projection {0:?} handles no event: name handlers in `Projection::handlers`")]
    NoHandlers(&'static str),
    /// A projection has two handlers for the same event.
    #[error("projection {projection:?} has two handlers for event {event:?}: merge them into one")]
    HandlerTwice {
        /// The projection.
        projection: &'static str,
        /// The event's stored name.
        event: &'static str,
    },
    /// Something was said of an event that a projection has no handler for.
    #[error(
        "projection {projection:?} has no handler for event {event:?}: name that before its key or `live_only`"
    )]
    Unhandled {
        /// The projection.
        projection: &'static str,
        /// The event's stored name.
        event: &'static str,
    },
    /// Two consumers have the same name: projections, reactors and aggregates that subscribe keep their checkpoints under it.
    #[error(
        "two consumers have the name {0:?}: projections and reactors keep their checkpoints under it, so each needs its own"
    )]
    ConsumerTwice(&'static str),
    /// A reactor has no handler.
    #[error("reactor {0:?} handles no event: name handlers in `Reactor::handlers`")]
    ReactorNoHandlers(&'static str),
    /// A reactor has two handlers for the same event.
    #[error("reactor {reactor:?} has two handlers for event {event:?}: merge them into one")]
    ReactorHandlerTwice {
        /// The reactor.
        reactor: &'static str,
        /// The event's stored name.
        event: &'static str,
    },
    /// Something was said of an event that a reactor has no handler for.
    #[error(
        "reactor {reactor:?} has no handler for event {event:?}: name that before its key or `live_only`"
    )]
    ReactorUnhandled {
        /// The reactor.
        reactor: &'static str,
        /// The event's stored name.
        event: &'static str,
    },
    /// The checkpoint and the letters of a consumer cannot be read.
    #[error("the checkpoint of {name:?} cannot be read")]
    Ledger {
        /// The consumer.
        name: &'static str,
        /// What is wrong.
        source: StoreError,
    },
    /// Two subscribers have the same name, or a subscriber was given twice.
    #[error("subscriber {0:?} exists twice: each needs a name of its own")]
    SubscriberTwice(&'static str),
    /// A subscriber has no handler.
    #[error("subscriber {0:?} handles no event: name handlers in `EventSubscriber::subscriptions`")]
    SubscriberNoHandlers(&'static str),
    /// A subscriber has two handlers for the same event.
    #[error("subscriber {subscriber:?} has two handlers for event {event:?}: merge them into one")]
    SubscriberHandlerTwice {
        /// The subscriber.
        subscriber: &'static str,
        /// The event's name.
        event: &'static str,
    },
    /// Two sets hold events with the same stored name, so that a reader of the log could not tell them apart.
    #[error("event name {0:?} is used by two sets of events: rename one of them")]
    NameTwice(&'static str),
    /// Queries of one type are answered by two projections or handlers.
    #[error(
        "query {0} is answered twice: remove one of its `#[query]` methods and `.answer(…)` handlers"
    )]
    AnswerTwice(&'static str),
    /// Two responders to one query have the same name.
    #[error("query {query} has two responders of the name {responder:?}: each needs its own")]
    ResponderTwice {
        /// The query.
        query: &'static str,
        /// The name.
        responder: &'static str,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Store(#[from] StoreError),
    /// The keys of personal data cannot be read.
    #[cfg(feature = "personal")]
    #[error("the keys of personal data cannot be read")]
    Keys(#[source] StoreError),
    /// The view of a projection cannot be opened.
    #[error("the view of projection {name:?} cannot be opened")]
    View {
        /// The projection.
        name: &'static str,
        /// What is wrong.
        source: StoreError,
    },
    /// A thread cannot be started.
    #[error("a thread cannot be started")]
    Thread(#[from] std::io::Error),
    /// The framework's own code panicked.
    #[error("starting panicked: {0}")]
    Panicked(String),
}
