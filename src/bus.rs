//! Typed topics: the fastest way for events between the parts of one process.
//!
//! A [`Topic`] carries events of one type to any number of subscribers. One write serves all of them: each has a cursor of
//! its own, gets what is there as a batch by reference, and is woken once when it sleeps. An idle topic uses no processor.
//!
//! - A **transient** topic, of a [`TransientEvent`](crate::TransientEvent), lives in memory. Any number of [publishers](Publisher)
//!   feed it. It needs no app and no store.
//! - A **durable** topic, of the [`Envelope`](crate::Envelope)s of an aggregate's events, belongs to an app. The sequencer alone
//!   publishes into it, after the commit and in commit order.
//!
//! # Falling behind
//! Each subscription declares what happens then ([`Overflow`]): publishers wait, the oldest events are dropped and counted,
//! the newest of each key are kept, or it reads on in the log. A subscription holds up nobody unless it says so, and one that
//! stops, panics or is dropped holds up nobody at all.
//!
//! # Order
//! A subscriber sees the events of a topic in the order in which they were published, each once. Those of one publisher are
//! in the order of its calls.
//!
//! # Sharing the work
//! The members of a [`Group`] share the events of a transient topic: each goes to one of them, and those of one key in order.
//!
//! # A log that fails
//! A subscription that must read the log and cannot ends with a [`SubscriptionError`] that says up to where it delivered.
//! There is never a silent gap.
//!
//! # Subscribers that hold on
//! A batch borrows from the ring, or shares it. Holding it keeps a few hundred events in memory at most; publishers wait for it
//! only where the subscription blocks, and only when they are a capacity ahead.
//!
//! # What is wired
//! Where the topics of a program belong together, a [`Bus`] finds them by type, and its [`Map`] shows who publishes what and who
//! hears it: events that nobody hears, handlers for what nobody publishes, and circles.
//!
//! # The end
//! When a topic is closed, a subscription delivers what was published and ends. The app closes its topics when it shuts down.

mod actor;
mod barrier;
mod batch;
mod carried;
mod causation;
mod doorbell;
#[cfg(test)]
#[cfg(tidings_loom)]
mod explored;
mod group;
mod hook;
mod latest;
mod listen;
mod map;
mod publisher;
mod reader;
mod registry;
mod ring;
mod subscribe;
mod subscription;
mod sync;
#[cfg(feature = "testing")]
pub(crate) mod testing;
mod topic;
mod topics;

pub use self::actor::{BatchSubscriber, Subscriber, SubscriptionHandle};
pub use self::batch::{Batch, SharedBatch};
pub use self::carried::{Carried, Routed};
pub use self::group::{Group, GroupStatus, Member, MemberStatus};
pub use self::hook::{Handling, Hook};
pub use self::map::{
    ComponentKind, Finding, Grounds, Keeping, Map, MapComponent, MapHearing, MapPublishing,
    MapTopic,
};
pub use self::publisher::{Publish, PublishError, Publisher};
pub use self::registry::{Bus, Component, TopicExists};
pub use self::ring::Item;
pub use self::subscribe::{Overflow, Subscribe};
pub use self::subscription::{EventIter, EventStream, Subscription, SubscriptionError};
pub use self::topic::{SubscriptionStatus, Topic, TopicOptions, TopicStatus};

pub(crate) use self::causation::{LIMIT, into_topic};
pub(crate) use self::listen::Listener;
pub(crate) use self::map::{Condition, Declared, Reference};
pub(crate) use self::registry::{Routes, Wired};
pub(crate) use self::ring::Peek;
pub(crate) use self::topic::Cursor;
pub(crate) use self::topics::Topics;
