//! What tests of an app are made of.

pub use crate::bus::testing::{Publisher, ReadError, TopicFeed};
