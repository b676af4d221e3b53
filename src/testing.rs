//! What tests of a domain need: given/when/then.

mod given;

pub use given::{Given, Then, When, given, given_nothing};
