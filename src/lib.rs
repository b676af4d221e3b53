#![doc = include_str!("../README.md")]

#[doc(hidden)]
pub mod __private;
mod actor;
mod aggregate;
mod app;
mod bus;
mod clock;
mod codec;
mod command;
pub mod docs;
mod event;
mod http;
mod id;
#[cfg(feature = "sqlite")]
mod inbox;
mod letters;
#[cfg(feature = "metrics")]
pub mod metrics;
mod processor;
mod projection;
mod query;
mod reactor;
mod retry;
mod sequencer;
mod store;
mod stream;
mod subscriber;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;

/// What the handlers and the queries of table projections work with.
#[cfg(feature = "sqlite")]
pub mod sqlite {
    pub use crate::projection::Transaction;
    pub use rusqlite;
}

pub use aggregate::{Aggregate, AggregateSubscriptions, IntoDecision};
pub use app::{
    AggregateStatus, App, AppBuilder, AppStatus, ShardStatus, ShutdownError, StartError,
};
pub use bus::{
    Batch, BatchSubscriber, Bus, Carried, Component, ComponentKind, EventIter, EventStream,
    Finding, Grounds, Group, GroupStatus, Handling, Hook, Item, Keeping, Map, MapComponent,
    MapHearing, MapPublishing, MapTopic, Member, MemberStatus, Overflow, Publish, PublishError,
    Publisher, Routed, SharedBatch, Subscribe, Subscriber, Subscription, SubscriptionError,
    SubscriptionHandle, SubscriptionStatus, Topic, TopicExists, TopicOptions, TopicStatus,
};
pub use clock::{Clock, SystemClock, Timestamp};
pub use codec::{Codec, CodecError};
pub use command::{Command, Context, Outcome, Receipt, SendError, Sending, SentTo, Unavailable};
pub use event::{
    DecodeError, Envelope, Event, EventSet, Header, Json, MemberOf, Metadata, Neighbours, ReadAs,
    Recorded, TransientEvent, Upcasts, decode_event,
};
pub use http::{InvalidReadToken, ReadToken};
pub use id::{CausationId, CommandId, CorrelationId, DeliveryId, EventId};
#[cfg(feature = "sqlite")]
pub use inbox::InboxError;
pub use letters::{
    Attempt, ConsumerLetters, Letter, LetterError, LetterGroup, LetterState, Letters, Resolution,
    ResolutionKind, Retried,
};
pub use processor::gauge::{ConsumerKind, ConsumerStatus, LastError};
pub use processor::{ConsumerState, RebuildError, RebuildProgress, Rebuilt, Trouble};
pub use projection::{
    AtLeast, HandlerOutcome, Handlers, InMemory, Projection, Rebuild, Storage, View, ViewError,
    ViewRef, Watching,
};
#[cfg(feature = "sqlite")]
pub use projection::{TableAtLeast, TableReader, TableView, Tables};
pub use query::{Asking, Gathered, Gathering, IntoReply, Query, QueryContext, QueryError};
pub use reactor::{Delivery, Reacting, Reactions, Reactor, ReactorOptions, StartFrom};
pub use retry::{ErrorClass, FailurePolicy, OnFailure, Retry, UnknownEvents};
pub use sequencer::SequencerStatus;
pub use store::{
    Commit, Committed, Durability, EventStore, Filter, KnownCommand, Memory, Page, Refused,
    StoreError,
};
#[cfg(feature = "sqlite")]
pub use store::{Sqlite, SqliteOptions};
pub use stream::{ExpectedVersion, InvalidStreamId, Position, StreamId, Version};
pub use subscriber::{EventSubscriber, SubscriberStatus, Subscriptions};
#[cfg(all(feature = "macros", feature = "sqlite"))]
pub use tidings_macros::idempotent;
#[cfg(feature = "macros")]
pub use tidings_macros::{
    Command, Event, Query, TransientEvent, aggregate, projection, reactor, subscriber, upcasts,
};
