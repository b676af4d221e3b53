//! What tests of programs, of projections and of stores are written with.

mod clock;
mod contract;
mod faults;
mod given;

pub use self::clock::ManualClock;
pub use self::contract::store_contract;
pub use self::faults::{Fault, Faults, Faulty, Gate, Operation};
pub use self::given::{Given, Then, When, given, given_nothing};
pub use crate::app::settle::{Settling, Unsettled};
pub use crate::bus::testing::{FeedPublisher, ReadError, TopicFeed};
