//! What tests of programs, of consumers and of stores are written with.
//!
//! - One aggregate's rules: [`given()`].
//! - What a projection, a reactor or an aggregate makes of events: [`events()`].
//! - A whole app: [`Faulty`] puts failures, waiting and crashes between it and its log, [`Chaos`] lets handlers and the fakes that
//!   they call fail by a seed, [`ManualClock`] holds the time still, [`App::settle`](crate::App::settle) waits until nothing moves.
//! - A store: [`store_contract`].

mod chaos;
mod clock;
mod contract;
mod events;
mod faults;
mod given;

pub use self::chaos::{Chaos, ChaosError};
pub use self::clock::ManualClock;
pub use self::contract::store_contract;
pub use self::events::{Events, Heard, Projected, Reacted, events};
pub use self::faults::{Fault, Faults, Faulty, Gate, Operation};
pub use self::given::{Given, Then, When, given, given_nothing};
pub use crate::app::settle::{Settling, Unsettled};
pub use crate::bus::testing::{FeedPublisher, ReadError, TopicFeed};
