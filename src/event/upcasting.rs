//! From an older schema version of an event to the version of today.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DecodeError, Event};
use crate::codec::{Codec, CodecError};

/// A payload as JSON, for steps from shapes that have no type any more.
pub type Json = serde_json::Value;

/// The steps by which events stored with an older schema version become events of today.
///
/// Write them with `#[upcasts]`; `#[derive(Event)]` asks for them when the version is above the oldest
/// that the type reads. They are pure and total: no clock, no randomness, no input or output, and an answer for every payload
/// of their version.
///
/// # Examples
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings::{Codec, Event, Json, decode_event, upcasts};
///
/// #[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
/// #[event(name = "account.deposited", version = 3)]
/// struct Deposited {
///     cents: i64,
///     currency: String,
///     source: Option<String>,
/// }
///
/// #[derive(Deserialize)]
/// struct DepositedV2 {
///     cents: i64,
///     currency: String,
/// }
///
/// #[upcasts]
/// impl Deposited {
///     /// The type of version 1 is gone.
///     #[upcast(from = 1)]
///     fn currency(mut old: Json) -> Json {
///         old["currency"] = "EUR".into();
///         old
///     }
///
///     #[upcast(from = 2)]
///     fn source(old: DepositedV2) -> Deposited {
///         Deposited { cents: old.cents, currency: old.currency, source: None }
///     }
/// }
///
/// let deposited: Deposited = decode_event(1, Codec::Json, br#"{"cents":7}"#)?;
/// assert_eq!(deposited, Deposited { cents: 7, currency: "EUR".into(), source: None });
/// # Ok::<(), tidings::DecodeError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "no steps lead to this version of `{Self}`",
    label = "older versions of the event could not be read",
    note = "write `#[upcasts] impl {Self} {{ … }}` with a `#[upcast(from = 1)] fn …(old: Json) -> Json` for each older version",
    note = "if older versions were never stored, or the aggregate reads them, say from where on the type reads: `oldest = …` in `#[event(…)]`"
)]
pub trait Upcasts: Event {
    /// Reads a payload of an older version and takes it through the steps, up to the version of today.
    ///
    /// # Errors
    /// [`DecodeError`] if no step leads from this version, the payload is not of its shape, or a step gives something that the next
    /// does not take.
    fn upcast_steps(version: u32, codec: Codec, payload: &[u8]) -> Result<Self, DecodeError>;
}

/// A step gave JSON that is not of the shape of its version, or took a value that has no form in JSON.
#[derive(Debug, thiserror::Error)]
#[error("what the step from version {from} hands on does not fit version {}", u64::from(*from) + 1)]
struct StepMistake {
    from: u32,
    source: serde_json::Error,
}

/// The payload that the step from `version` takes.
///
/// # Errors
/// [`DecodeError::Payload`] if it is not of this shape.
pub(crate) fn payload<T: DeserializeOwned>(
    name: &'static str,
    version: u32,
    codec: Codec,
    payload: &[u8],
) -> Result<T, DecodeError> {
    codec.decode(payload).map_err(|source| unfit(name, version, codec, source))
}

/// The payload that a step of JSON takes from `version`, whatever format it is stored in.
///
/// # Errors
/// [`DecodeError::Payload`] if it is not of the format.
pub(crate) fn payload_json(
    name: &'static str,
    version: u32,
    codec: Codec,
    payload: &[u8],
) -> Result<Json, DecodeError> {
    codec.decode_json(payload).map_err(|source| unfit(name, version, codec, source))
}

fn unfit(name: &'static str, version: u32, codec: Codec, source: CodecError) -> DecodeError {
    match codec.feature() {
        Some(feature) if !codec.is_available() => {
            DecodeError::MissingFeature { name: name.to_owned(), codec, feature }
        }
        _ => DecodeError::Payload { name, version, source },
    }
}

/// What the step from version `from` gave, as the type that the next one takes.
///
/// # Errors
/// [`DecodeError::Payload`] if it is not of this shape.
pub(crate) fn typed<T: DeserializeOwned>(
    name: &'static str,
    from: u32,
    json: Json,
) -> Result<T, DecodeError> {
    serde_json::from_value(json).map_err(|source| mistake(name, from, source))
}

/// What the step from version `from` gave, as the JSON that the next one takes.
///
/// # Errors
/// [`DecodeError::Payload`] if it has no form in JSON.
pub(crate) fn untyped<T: Serialize>(
    name: &'static str,
    from: u32,
    value: T,
) -> Result<Json, DecodeError> {
    serde_json::to_value(value).map_err(|source| mistake(name, from, source))
}

fn mistake(name: &'static str, version: u32, source: serde_json::Error) -> DecodeError {
    let source = CodecError::unfit(StepMistake { from: version, source });
    DecodeError::Payload { name, version, source }
}
