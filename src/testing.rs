//! What tests of programs, of projections and of stores are written with.

mod contract;
mod given;

pub use self::contract::store_contract;
pub use self::given::{Given, Then, When, given, given_nothing};
pub use crate::bus::testing::{Publisher, ReadError, TopicFeed};
