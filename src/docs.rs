//! Guides: what takes more than one item to tell.

#[doc = include_str!("docs/how_to_change_an_event.md")]
pub mod how_to_change_an_event {}

#[doc = include_str!("docs/how_it_can_fail.md")]
pub mod how_it_can_fail {}
