//! The identities that travel with every event: of the event, of its command, and of the story both belong to.
//!
//! All are UUIDs in newtypes of their own, so that one cannot be passed where another is meant. Fresh ones are
//! UUIDv7 (RFC 9562 §5.7): they sort by the millisecond in which they were made, which keeps an index over them
//! append-only.

use rand::Rng;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{Clock, SystemClock, Timestamp};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID of any version.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID itself.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// The identity of one event, for ever.
    EventId
}

id! {
    /// The identity of one command: the same id sent twice takes effect once.
    ///
    /// An id that comes from the outside (a request id, the place of a line in a file) makes a retry safe. Without one,
    /// each send gets a fresh id.
    CommandId
}

id! {
    /// The story that a command or an event belongs to: handed down from cause to effect, unchanged.
    CorrelationId
}

id! {
    /// What directly caused an event: the id of an event, or of the command if no event caused that.
    CausationId
}

id! {
    /// The delivery of one event to one reactor: the same on each attempt, for ever.
    ///
    /// Hand it to what is outside (an idempotency key of a payment service, a message id), so that a repeat is known there.
    DeliveryId
}

/// A UUIDv7 of the millisecond `now`. The rest is random, so that ids made in the same millisecond are in no order.
fn v7(now: Timestamp) -> Uuid {
    let mut random = [0; 10];
    rand::rng().fill_bytes(&mut random);
    uuid::Builder::from_unix_timestamp_millis(now.as_micros() / 1_000, &random).into_uuid()
}

/// A fresh UUIDv7, for what needs an identity of no type of its own.
pub(crate) fn fresh() -> Uuid {
    v7(SystemClock.now())
}

impl EventId {
    /// Makes a fresh id (UUIDv7).
    pub fn fresh() -> Self {
        Self::made_at(SystemClock.now())
    }

    pub(crate) fn made_at(now: Timestamp) -> Self {
        Self(v7(now))
    }

    /// The id of one of the events that this one is read as, by its place among them.
    pub(crate) fn part(self, place: usize) -> Self {
        Self(Uuid::new_v5(&self.0, format!("part {place}").as_bytes()))
    }
}

impl CommandId {
    /// The id of the one command that the event `cause` is to the aggregates of `category`.
    pub(crate) fn caused_by(category: &str, cause: EventId) -> Self {
        /// Where the names of caused commands live; it must never change.
        const CAUSED: Uuid = Uuid::from_u128(0x6f2e_94c1_0d1b_4b57_8a3e_c2d9_41f7_5b08);
        Self(Uuid::new_v5(&CAUSED, format!("{category}/{cause}").as_bytes()))
    }

    /// Makes a fresh id (UUIDv7).
    pub fn fresh() -> Self {
        Self::made_at(SystemClock.now())
    }

    pub(crate) fn made_at(now: Timestamp) -> Self {
        Self(v7(now))
    }

    /// Derives the id that always belongs to `name` (UUIDv5, RFC 9562 §5.5): the same name, the same id.
    ///
    /// # Examples
    /// ```
    /// use tidings::CommandId;
    ///
    /// let line_17 = CommandId::from_name("purchases-1997.txt:17");
    /// assert_eq!(line_17, CommandId::from_name("purchases-1997.txt:17"));
    /// assert_ne!(line_17, CommandId::from_name("purchases-1997.txt:18"));
    /// ```
    pub fn from_name(name: &str) -> Self {
        /// Where the names of commands live; any fixed UUID serves, and this one must never change.
        const COMMANDS: Uuid = Uuid::from_u128(0x0b7d_3f52_86c4_4d0e_9b5a_5d1c_7a3e_4f60);
        Self(Uuid::new_v5(&COMMANDS, name.as_bytes()))
    }
}

impl DeliveryId {
    /// The id under which `event` is delivered to the reactor of this name (UUIDv5, RFC 9562 §5.5).
    ///
    /// # Examples
    /// ```
    /// use tidings::{DeliveryId, EventId};
    ///
    /// let event = EventId::fresh();
    /// assert_eq!(DeliveryId::of("mailer", event), DeliveryId::of("mailer", event));
    /// assert_ne!(DeliveryId::of("mailer", event), DeliveryId::of("search", event));
    /// ```
    pub fn of(reactor: &str, event: EventId) -> Self {
        /// Where the names of deliveries live; any fixed UUID serves, and this one must never change.
        const DELIVERIES: Uuid = Uuid::from_u128(0x5e1c_9a34_d07b_4f28_8c63_2b9f_60a1_7dd4);
        // The id of the event has a fixed length, so that no two pairs of name and event make the same text.
        let name = [reactor.as_bytes(), event.as_uuid().as_bytes()].concat();
        Self(Uuid::new_v5(&DELIVERIES, &name))
    }
}
