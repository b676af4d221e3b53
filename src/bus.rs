//! Typed topics: the hurry beside the log's truth.
//!
//! A [`Topic`] hands the committed events of one kind of aggregate to any number of subscribers. The sequencer publishes
//! into it, after the commit and in commit order; nobody else can. Each subscriber has a cursor of its own, gets what is
//! there as a [`Batch`] by reference, and is woken once when it sleeps. A plain task reads with [`Topic::subscribe`], an
//! actix actor receives in its own context with `Topic::subscribe_actor`.
//!
//! # Falling behind
//! A publisher never waits. A topic retains its newest events only; a subscriber that falls further behind reads on in the
//! log and comes back to the ring when it is level. It sees each event once, in order, with none missing, and slows nobody.
//!
//! # A log that fails
//! The subscription ends with a [`SubscriptionError`] that says up to where it delivered. There is never a silent gap.
//!
//! # Subscribers that hold on
//! A batch borrows from the ring. Holding it keeps at most one segment of events in memory, and nobody waits for it.
//!
//! # The end
//! When the app shuts down, a subscription delivers what was published and ends.

mod actor;
mod doorbell;
mod ring;
mod subscription;
mod sync;
#[cfg(feature = "testing")]
pub(crate) mod testing;
mod topic;
mod topics;

pub use self::actor::Subscriber;
pub use self::subscription::{Batch, Start, Subscription, SubscriptionError};
pub use self::topic::{Topic, TopicStatus};

pub(crate) use self::ring::Peek;
pub(crate) use self::topic::Cursor;
pub(crate) use self::topics::Topics;
