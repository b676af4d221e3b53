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
mod history;
mod http;
mod id;
#[cfg(feature = "sqlite")]
mod inbox;
mod letters;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "personal")]
pub mod personal;
mod processor;
mod projection;
mod query;
mod reactor;
mod retry;
mod sequencer;
mod shape;
mod store;
mod stream;
mod subscriber;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;

/// What the [`Form`] of a type is made of.
pub mod forms {
    pub use crate::shape::{
        Describing, Field, Fields, Reading, Tagging, Variant, Variants, Writing,
    };
}

/// What the handlers and the queries of table projections work with.
#[cfg(feature = "sqlite")]
pub mod sqlite {
    pub use crate::projection::Transaction;
    pub use rusqlite;
}

pub use aggregate::{Aggregate, AggregateSubscriptions, IntoDecision, Snapshots};
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
    DecodeError, Envelope, Event, EventSchema, EventSet, Header, Json, MemberOf, Metadata,
    Neighbours, ReadAs, Recorded, TransientEvent, Upcasts, decode_event,
};
pub use history::{
    Diff, DiffError, Difference, History, HistoryError, Loaded, Loading, StreamPoint, Trace,
    TraceNode, Traced,
};
pub use http::{InvalidReadToken, ReadToken};
pub use id::{CausationId, CommandId, CorrelationId, DeliveryId, EventId};
#[cfg(feature = "sqlite")]
pub use inbox::InboxError;
pub use letters::{
    Attempt, ConsumerLetters, Letter, LetterError, LetterGroup, LetterState, Letters, Resolution,
    ResolutionKind, Retried,
};
#[cfg(feature = "personal")]
#[doc(no_inline)]
pub use personal::{
    ForgetError, Personal, PersonalError, SealError, SubjectEvent, SubjectForgotten,
};
pub use processor::gauge::{ConsumerKind, ConsumerStatus, LastError};
pub use processor::{ConsumerState, RebuildError, RebuildProgress, Rebuilt, Trouble};
pub use projection::{
    AsOf, AsOfError, AtLeast, HandlerOutcome, Handlers, InMemory, LogPoint, Projection, Rebuild,
    Storage, View, ViewError, ViewRef, Watching,
};
#[cfg(feature = "sqlite")]
pub use projection::{TableAtLeast, TableReader, TableView, Tables};
pub use query::{Asking, Gathered, Gathering, IntoReply, Query, QueryContext, QueryError};
pub use reactor::{Delivery, Reacting, Reactions, Reactor, ReactorOptions, StartFrom};
pub use retry::{ErrorClass, FailurePolicy, OnFailure, Retry, UnknownEvents};
pub use sequencer::SequencerStatus;
pub use shape::{Form, Shape};
#[cfg(feature = "transfer")]
pub use store::transfer;
#[cfg(feature = "sqlite")]
pub use store::{ArchiveError, Archived, Checked, Damage, Sqlite, SqliteOptions};
pub use store::{
    Commit, Committed, Durability, EventStore, Filter, KnownCommand, Memory, Page, Refused,
    Snapshot, StoreError,
};
pub use stream::{ExpectedVersion, InvalidStreamId, Position, StreamId, Version};
pub use subscriber::{EventSubscriber, SubscriberStatus, Subscriptions};
#[cfg(all(feature = "macros", feature = "sqlite"))]
pub use tidings_macros::idempotent;
#[cfg(feature = "macros")]
pub use tidings_macros::{
    Command, Event, Query, Shape, TransientEvent, aggregate, projection, reactor, subscriber,
    upcasts,
};
