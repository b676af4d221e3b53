//! How the payload of an event is written into the log.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The format of payloads in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Codec {
    /// JSON text, readable with any database tool.
    #[default]
    Json,
}

impl Codec {
    /// Appends `value` to `bytes`.
    ///
    /// # Errors
    /// [`CodecError`] if the value has no form in this format, such as a map with keys that are no strings.
    pub fn encode<T: Serialize>(self, value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        match self {
            Self::Json => serde_json::to_writer(bytes, value).map_err(CodecError::new),
        }
    }

    /// Reads a value back from all of `bytes`.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not a whole value of this type.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, CodecError> {
        match self {
            Self::Json => serde_json::from_slice(bytes).map_err(CodecError::new),
        }
    }
}

/// A payload that could not be written or read; the format's own error stands behind
/// [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[error("the payload does not fit its type")]
pub struct CodecError {
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl CodecError {
    pub(crate) fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { source: Box::new(source) }
    }
}
