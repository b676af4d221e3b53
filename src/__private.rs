//! What the code of the macros calls. It promises nothing.
//!
//! The functions ask for [`MemberOf`] and [`SentTo`], which the macros implement, instead of the derived traits above
//! them: a type that lacks its derive is then one error at that implementation, and none at each of these calls.

mod upcasting;

pub use std::sync::Arc;
pub use std::vec::Vec;

pub use self::upcasting::{
    Line, alone, before, concat, former_names, has_steps, is, is_before, is_current, is_new_line,
    line, payload, read_as, reader, stored, total, typed, unknown_version, untyped, upcast,
};
use crate::codec::{Codec, CodecError};
use crate::command::SentTo;
use crate::event::{DecodeError, EventSet, MemberOf, decode_event};
#[cfg(feature = "sqlite")]
pub use crate::inbox::{Call, begin, once, settle};

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
