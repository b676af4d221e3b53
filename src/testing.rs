//! What tests of programs, of projections and of stores are written with.

mod contract;

pub use self::contract::store_contract;
pub use crate::bus::testing::{Publisher, ReadError, TopicFeed};
