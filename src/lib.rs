#![doc = "Tidings."]

mod aggregate;
#[allow(
    dead_code,
    unused_imports,
    reason = "the sequencer and the processors use its inner interface"
)]
mod bus;
mod clock;
mod codec;
mod command;
mod event;
mod id;
mod projection;
mod store;
mod stream;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;

pub use aggregate::{Aggregate, IntoDecision};
pub use bus::{Batch, Start, Subscriber, Subscription, SubscriptionError, Topic, TopicStatus};
pub use clock::{Clock, SystemClock, Timestamp};
pub use codec::{Codec, CodecError};
pub use command::{Command, Context, Outcome, Receipt, SendError, SentTo, Unavailable};
pub use event::{
    DecodeError, Envelope, Event, EventSet, Header, MemberOf, Metadata, Recorded, decode_event,
};
pub use id::{CausationId, CommandId, CorrelationId, EventId};
pub use projection::{HandlerOutcome, Handlers, InMemory, Projection, Storage};
pub use store::{
    Commit, Committed, Durability, EventStore, Filter, KnownCommand, Memory, Page, Refused,
    StoreError,
};
pub use stream::{ExpectedVersion, InvalidStreamId, Position, StreamId, Version};
