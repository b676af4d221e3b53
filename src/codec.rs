//! How the payload of an event is written into the log.
//!
//! Events say it one by one (`#[event(codec = MessagePack)]`), and the log keeps it with each payload: formats lie side by side,
//! and an event that was written in one and is declared in another today stays readable.
//!
//! Every format takes a value as what it is to people: names stand beside the fields, so that events can be changed as in
//! JSON, and what has a text (an id, an address) is written as that text. So each payload has one and the same form as a JSON
//! value, whichever format it lies in.

mod json;
#[cfg(feature = "cbor")]
mod readable;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The format of payloads in the log.
///
/// The variants are there in every program. The formats other than JSON work with a feature of this crate; without it
/// [`encode`](Self::encode) and [`decode`](Self::decode) fail with an error that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Codec {
    /// JSON text, readable with any database tool. It has no form for a float that is infinite or no number: that becomes null, as
    /// which no float is read back.
    #[default]
    Json,
    /// MessagePack with the names of fields; with the feature `messagepack`.
    MessagePack,
    /// CBOR (RFC 8949) with the names of fields; with the feature `cbor`.
    Cbor,
}

impl Codec {
    /// Whether this program was built with what the format takes.
    pub const fn is_available(self) -> bool {
        match self {
            Self::Json => true,
            Self::MessagePack => cfg!(feature = "messagepack"),
            Self::Cbor => cfg!(feature = "cbor"),
        }
    }

    /// The feature of this crate that the format takes; none for JSON.
    pub const fn feature(self) -> Option<&'static str> {
        match self {
            Self::Json => None,
            Self::MessagePack => Some("messagepack"),
            Self::Cbor => Some("cbor"),
        }
    }

    /// Appends `value` to `bytes`.
    ///
    /// # Errors
    /// [`CodecError`] if the value has no form in this format, such as a map in JSON with keys that are no strings, or if this
    /// program was built without the format.
    pub fn encode<T: Serialize>(self, value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        match self {
            Self::Json => serde_json::to_writer(bytes, value).map_err(CodecError::unfit),
            #[cfg(feature = "messagepack")]
            Self::MessagePack => {
                let mut serializer =
                    rmp_serde::Serializer::new(bytes).with_struct_map().with_human_readable();
                value.serialize(&mut serializer).map_err(CodecError::unfit)
            }
            #[cfg(feature = "cbor")]
            Self::Cbor => {
                ciborium::into_writer(&readable::Readable(value), bytes).map_err(CodecError::unfit)
            }
            #[cfg(not(all(feature = "messagepack", feature = "cbor")))]
            missing => Err(CodecError::missing(missing)),
        }
    }

    /// Reads a value back from all of `bytes`.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not a whole value of this type and nothing else, if lists and objects lie more than about 120
    /// deep within each other, or if this program was built without
    /// the format.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, CodecError> {
        match self {
            Self::Json => serde_json::from_slice(bytes).map_err(CodecError::unfit),
            #[cfg(feature = "messagepack")]
            Self::MessagePack => {
                let mut rest = bytes;
                let mut deserializer =
                    rmp_serde::Deserializer::new(&mut rest).with_human_readable();
                deserializer.set_max_depth(DEEPEST);
                let value = T::deserialize(&mut deserializer).map_err(CodecError::unfit)?;
                all_read(rest).map(|()| value)
            }
            #[cfg(feature = "cbor")]
            Self::Cbor => {
                let mut rest = bytes;
                let read: Result<readable::Readable<T>, _> =
                    ciborium::de::from_reader_with_recursion_limit(&mut rest, DEEPEST);
                let value = read.map_err(CodecError::unfit)?.0;
                all_read(rest).map(|()| value)
            }
            #[cfg(not(all(feature = "messagepack", feature = "cbor")))]
            missing => Err(CodecError::missing(missing)),
        }
    }

    /// Reads a payload of any shape as a JSON value: the one that it would have been if it had been written as JSON.
    ///
    /// Bytes become a list of numbers, and keys that are numbers become text, as `serde_json` writes both; what JSON cannot
    /// say (a number that is none) becomes null. CBOR does not say how wide a number is: an `f32` has the digits of an `f64` here.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_json(self, bytes: &[u8]) -> Result<serde_json::Value, CodecError> {
        match self {
            // The plain way, and the faster one.
            Self::Json => self.decode(bytes),
            _ => self.decode::<json::AnyJson>(bytes).map(|json::AnyJson(value)| value),
        }
    }
}

/// How deep lists and objects may lie within each other: as deep as in JSON, whose own limit this is. Without one, a payload of
/// a few kilobytes takes all of a thread's stack.
#[cfg(any(feature = "messagepack", feature = "cbor"))]
const DEEPEST: usize = 128;

/// JSON has its own check of this.
#[cfg(any(feature = "messagepack", feature = "cbor"))]
fn all_read(rest: &[u8]) -> Result<(), CodecError> {
    match rest.len() {
        0 => Ok(()),
        bytes => Err(CodecError(Fault::Trailing { bytes })),
    }
}

/// A payload that could not be written or read; the format's own error stands behind
/// [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CodecError(Fault);

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the payload does not fit its type")]
    Unfit { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{bytes} bytes stand behind the end of the payload")]
    #[cfg(any(feature = "messagepack", feature = "cbor"))]
    Trailing { bytes: usize },
    #[error(
        "this program was built without the feature `{feature}` of tidings, which payloads in {codec:?} take: enable it"
    )]
    #[cfg(not(all(feature = "messagepack", feature = "cbor")))]
    Missing { codec: Codec, feature: &'static str },
}

impl CodecError {
    pub(crate) fn unfit(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        #[cfg(feature = "personal")]
        if let Some(source) = crate::personal::take_failure() {
            return Self(Fault::Unfit { source });
        }
        Self(Fault::Unfit { source: Box::new(source) })
    }

    #[cfg(not(all(feature = "messagepack", feature = "cbor")))]
    fn missing(codec: Codec) -> Self {
        Self(Fault::Missing { codec, feature: codec.feature().unwrap_or_default() })
    }
}
