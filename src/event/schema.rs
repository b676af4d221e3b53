//! What an event set says of each of its events.

use super::Event;
use crate::codec::Codec;
use crate::shape::Form;

/// One event of an [`EventSet`](super::EventSet), as it is written today.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EventSchema {
    /// Its name in the log.
    pub name: &'static str,
    /// The names that it had before; its versions are one line through all of them.
    pub former_names: &'static [&'static str],
    /// The version of its shape.
    pub version: u32,
    /// The format of its payload.
    pub codec: Codec,
    /// Its shape.
    pub shape: Form,
    /// Its JSON Schema; none if it does not derive `schemars::JsonSchema`, or without the feature `schemars`.
    pub json_schema: Option<serde_json::Value>,
}

impl EventSchema {
    /// What `E` says of itself, without a JSON Schema.
    pub fn of<E: Event>() -> Self {
        Self {
            name: E::NAME,
            former_names: E::FORMER_NAMES,
            version: E::VERSION,
            codec: E::CODEC,
            shape: E::shape(),
            json_schema: None,
        }
    }
}
