//! What tests of programs, of projections and of stores are written with.

mod clock;
mod contract;
mod faults;

pub use self::clock::ManualClock;
pub use self::contract::store_contract;
pub use self::faults::{Fault, Faults, Faulty, Gate, Operation};
pub use crate::bus::testing::{Publisher, ReadError, TopicFeed};
