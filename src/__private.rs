//! What the code of the macros calls. It promises nothing.
//!
//! The functions ask for [`MemberOf`] and [`SentTo`], which the macros implement, instead of the derived traits above
//! them: a type that lacks its derive is then one error at that implementation, and none at each of these calls.

mod upcasting;

use std::marker::PhantomData;
pub use std::sync::Arc;
pub use std::vec::Vec;

pub use self::upcasting::{
    Line, alone, before, concat, former_names, has_steps, is, is_before, is_current, is_new_line,
    line, payload, payload_json, read_as, reader, stored, stored_json, total, typed,
    unknown_version, untyped, upcast,
};
use crate::codec::{Codec, CodecError};
use crate::command::SentTo;
use crate::event::{DecodeError, EventSchema, EventSet, MemberOf, decode_event};
#[cfg(feature = "sqlite")]
pub use crate::inbox::{Call, begin, once, settle};
use crate::shape::{Describing, Form, Shape};
pub use crate::shape::{EnumForm, StructForm};

/// A type that may have a [`Shape`].
///
/// Its own method is found before the one of [`HasNoShape`], if its bound holds: so generated code asks what a type can do,
/// without a demand that it can.
#[derive(Debug)]
pub struct Probe<T: ?Sized>(PhantomData<T>);

impl<T: Shape + ?Sized> Probe<T> {
    /// The form of the type.
    pub fn form_or(describing: &mut Describing, _: impl FnOnce(&mut Describing) -> Form) -> Form {
        T::form(describing)
    }
}

/// A type that has no [`Shape`].
pub trait HasNoShape {
    /// What `otherwise` says.
    fn form_or(
        describing: &mut Describing,
        otherwise: impl FnOnce(&mut Describing) -> Form,
    ) -> Form {
        otherwise(describing)
    }
}

impl<T: ?Sized> HasNoShape for Probe<T> {}

#[cfg(feature = "schemars")]
impl<T: schemars::JsonSchema> Probe<T> {
    /// The JSON Schema of the type.
    pub fn json_schema() -> Option<serde_json::Value> {
        Some(schemars::schema_for!(T).to_value())
    }
}

/// A type that has no JSON Schema.
pub trait HasNoJsonSchema {
    /// None.
    fn json_schema() -> Option<serde_json::Value> {
        None
    }
}

impl<T: ?Sized> HasNoJsonSchema for Probe<T> {}

/// What an event says of itself.
pub fn schema<E: MemberOf>(json_schema: Option<serde_json::Value>) -> EventSchema {
    EventSchema { json_schema, ..EventSchema::of::<E>() }
}

/// A form that is not described.
pub fn opaque(name: &str) -> Form {
    Form::Opaque(name.to_owned())
}

/// The form of a type without a [`Shape`].
pub fn unseen(name: &str) -> Form {
    Form::Unseen(name.to_owned())
}

/// The stored name of an event.
pub const fn name<E: MemberOf>() -> &'static str {
    E::NAME
}

/// The schema version of an event.
pub const fn version<E: MemberOf>() -> u32 {
    E::VERSION
}

/// Appends an event's payload.
///
/// # Errors
/// As [`EventSet::encode`].
pub fn encode<E: MemberOf>(event: &E, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    E::CODEC.encode(event, bytes)
}

/// The format of an event's payload.
pub const fn codec<E: MemberOf>() -> Codec {
    E::CODEC
}

/// Reads an event back.
///
/// # Errors
/// As [`decode_event`].
pub fn decode<E: MemberOf>(
    schema_version: u32,
    codec: Codec,
    payload: &[u8],
) -> Result<E, DecodeError> {
    decode_event(schema_version, codec, payload)
}

/// No event of the set has this name.
#[cold]
pub fn unknown_name<S: EventSet>(name: &str) -> DecodeError {
    DecodeError::UnknownName { category: S::CATEGORY, name: name.to_owned(), known: S::NAMES }
}

/// The name of a command.
pub const fn command_name<C: SentTo>() -> &'static str {
    C::NAME
}

/// A second one of the same command.
pub fn clone_command<C: SentTo>(command: &C) -> C {
    command.clone()
}

/// Whether `name` is none of `earlier`.
pub const fn is_new(name: &str, earlier: &[&str]) -> bool {
    let mut rest = earlier;
    while let [first, tail @ ..] = rest {
        if equal(name.as_bytes(), first.as_bytes()) {
            return false;
        }
        rest = tail;
    }
    true
}

/// Slices cannot be compared with `==` in a constant.
const fn equal(mut a: &[u8], mut b: &[u8]) -> bool {
    loop {
        match (a, b) {
            ([], []) => return true,
            ([x, a_rest @ ..], [y, b_rest @ ..]) if *x == *y => (a, b) = (a_rest, b_rest),
            _ => return false,
        }
    }
}
