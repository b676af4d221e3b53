//! What tests of programs, of consumers and of stores are written with.
//!
//! - One aggregate's rules: [`given()`].
//! - What a projection, a reactor or an aggregate makes of events: [`events()`].
//! - A whole app: [`Faulty`] puts failures, waiting and crashes between it and its log, [`Chaos`] lets handlers and the fakes that
//!   they call fail by a seed, [`ManualClock`] holds the time still, [`App::settle`](crate::App::settle) waits until nothing moves.
//! - A store: [`store_contract`].
//! - What was ever released: [`schema_lock`] notices each change of an event, [`golden_corpus`] reads one of each version of each event.
//!
//! # In a repository
//! Two tests keep every event readable that a released version has written, and two places hold what they go by:
//!
//! ```text
//! tests/events.rs                         the two tests
//! tests/corpus/account.deposited.v1.json  one for each version of each event, as it was stored
//! tests/corpus/account.deposited.v2.json
//! tidings.lock.json                       the shape of each version of each event
//! ```
//!
//! The first run writes the files, and they are committed. From then on:
//!
//! - A change of an event without a raised version fails the first test, which says who still reads what.
//! - A raised version adds a file and an entry. The ones before it stay, and the second test reads them through every step: it
//!   shows what they are read as since, which is accepted once.
//! - On a build server (the variable `CI` is set) nothing is written: a version that nobody has recorded fails both tests.
//!
//! So the build fails before a release could be made that does not read what an earlier one has written.

mod chaos;
mod clock;
mod contract;
mod corpus;
mod events;
mod faults;
mod given;
mod recording;
mod schema_lock;
mod sealing;

pub use self::chaos::{Chaos, ChaosError};
pub use self::clock::ManualClock;
pub use self::contract::store_contract;
pub use self::corpus::{GoldenCorpus, golden_corpus};
pub use self::events::{Events, Heard, Projected, Reacted, events};
pub use self::faults::{Fault, Faults, Faulty, Gate, Operation};
pub use self::given::{Given, Then, When, given, given_nothing};
pub use self::recording::{Findings, Recording};
pub use self::schema_lock::{SchemaLock, schema_lock};
pub use crate::app::settle::{Settling, Unsettled};
pub use crate::bus::testing::{FeedPublisher, ReadError, TopicFeed};
