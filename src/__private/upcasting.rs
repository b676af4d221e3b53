//! Reading what was stored as it was before.

use std::convert::Infallible;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::equal;
use crate::aggregate::IntoDecision;
use crate::codec::Codec;
use crate::event::{
    self, DecodeError, EventSet, Json, MemberOf, Neighbours, ReadAs, Recorded, Upcasts, upcasting,
};

/// The versions that a type of event reads, and under which names.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    name: &'static str,
    former: &'static [&'static str],
    oldest: u32,
    version: u32,
}

impl Line {
    const fn has(&self, name: &str) -> bool {
        equal(name.as_bytes(), self.name.as_bytes()) || !super::is_new(name, self.former)
    }
}

/// The [`Line`] of an event.
pub const fn line<E: MemberOf>() -> Line {
    Line { name: E::NAME, former: E::FORMER_NAMES, oldest: E::OLDEST, version: E::VERSION }
}

/// The names that an event had before.
pub const fn former_names<E: MemberOf>() -> &'static [&'static str] {
    E::FORMER_NAMES
}

/// The index of the type that reads an event with this name and version: the one of exactly this version, else the next newer
/// one that has steps from it, else the newest, which says what it reads.
pub fn reader(lines: &[Line], name: &str, version: u32) -> Option<usize> {
    let named = || lines.iter().enumerate().filter(|(_, line)| line.has(name));
    let reads = |line: &Line| line.oldest <= version && version <= line.version;
    let nearest = named().filter(|(_, line)| reads(line)).min_by_key(|(_, line)| line.version);
    nearest.or_else(|| named().max_by_key(|(_, line)| line.version)).map(|(index, _)| index)
}

/// Whether none of `earlier` is stored with the same name and version.
pub const fn is_new_line(line: &Line, earlier: &[Line]) -> bool {
    let mut rest = earlier;
    while let [first, tail @ ..] = rest {
        if first.version == line.version && shares_name(first, line) {
            return false;
        }
        rest = tail;
    }
    true
}

const fn shares_name(a: &Line, b: &Line) -> bool {
    let mut former = a.former;
    while let [first, tail @ ..] = former {
        if b.has(first) {
            return true;
        }
        former = tail;
    }
    b.has(a.name)
}

/// Whether an event is stored with this name and version today.
pub const fn is_current(lines: &[Line], name: &str, version: u32) -> bool {
    let mut rest = lines;
    while let [first, tail @ ..] = rest {
        if first.version == version && first.has(name) {
            return true;
        }
        rest = tail;
    }
    false
}

/// Whether an event has steps from this version.
pub const fn has_steps(lines: &[Line], name: &str, version: u32) -> bool {
    let mut rest = lines;
    while let [first, tail @ ..] = rest {
        if first.oldest <= version && version < first.version && first.has(name) {
            return true;
        }
        rest = tail;
    }
    false
}

/// How many names there are in `lists`.
pub const fn total(lists: &[&[&str]]) -> usize {
    let (mut rest, mut total) = (lists, 0);
    while let [first, tail @ ..] = rest {
        total += first.len();
        rest = tail;
    }
    total
}

/// The names of all `lists`, of which there are `N`.
pub const fn concat<const N: usize>(lists: &[&[&'static str]]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut free: &mut [&'static str] = &mut names;
    let mut rest = lists;
    while let [list, tail @ ..] = rest {
        let mut list = *list;
        while let [name, others @ ..] = list {
            let [place, places @ ..] = free else { return names };
            *place = *name;
            (list, free) = (others, places);
        }
        rest = tail;
    }
    names
}

/// Reads an event of an older version through the type's steps.
///
/// # Errors
/// As [`Upcasts::upcast_steps`].
pub fn upcast<E: Upcasts>(version: u32, codec: Codec, payload: &[u8]) -> Result<E, DecodeError> {
    E::upcast_steps(version, codec, payload)
}

/// The type reads no such version.
#[cold]
pub fn unknown_version<E: Upcasts>(version: u32) -> DecodeError {
    event::unknown_version::<E>(version)
}

/// What the step from `version` takes, as it is stored.
///
/// # Errors
/// [`DecodeError::Payload`] if it is not of this shape.
pub fn stored<E: Upcasts, T: DeserializeOwned>(
    version: u32,
    codec: Codec,
    payload: &[u8],
) -> Result<T, DecodeError> {
    upcasting::payload(E::NAME, version, codec, payload)
}

/// The same, for a step of JSON.
///
/// # Errors
/// As [`stored`].
pub fn stored_json<E: Upcasts>(
    version: u32,
    codec: Codec,
    payload: &[u8],
) -> Result<Json, DecodeError> {
    upcasting::payload_json(E::NAME, version, codec, payload)
}

/// What the step from version `from` gave, as the type that the next one takes.
///
/// # Errors
/// [`DecodeError::Payload`] if it is not of this shape.
pub fn typed<E: Upcasts, T: DeserializeOwned>(from: u32, json: Json) -> Result<T, DecodeError> {
    upcasting::typed(E::NAME, from, json)
}

/// What the step from version `from` gave, as the JSON that the next one takes.
///
/// # Errors
/// [`DecodeError::Payload`] if it has no form in JSON.
pub fn untyped<E: Upcasts, T: Serialize>(from: u32, value: T) -> Result<Json, DecodeError> {
    upcasting::untyped(E::NAME, from, value)
}

/// Whether `event` is stored with this name and version.
pub fn is(event: &Recorded, name: &str, version: u32) -> bool {
    event.schema_version == version && event.name == name
}

/// The payload of a stored event with this name.
///
/// # Errors
/// [`DecodeError::Payload`] if it is not of this shape.
pub fn payload<T: DeserializeOwned>(
    event: &Recorded,
    name: &'static str,
) -> Result<T, DecodeError> {
    upcasting::payload(name, event.schema_version, event.codec, &event.payload)
}

/// The same, as JSON.
///
/// # Errors
/// As [`payload`].
pub fn payload_json(event: &Recorded, name: &'static str) -> Result<Json, DecodeError> {
    upcasting::payload_json(name, event.schema_version, event.codec, &event.payload)
}

/// What an upcast of the set gave.
pub fn read_as<S: EventSet, D: IntoDecision<S, Infallible>>(decision: D) -> ReadAs<S> {
    let mut events = Vec::new();
    let Ok(()) = decision.into_decision(&mut events);
    match (events.pop(), events.is_empty()) {
        (Some(event), true) => ReadAs::One(event),
        (Some(event), false) => {
            events.push(event);
            ReadAs::Many(events)
        }
        (None, _) => ReadAs::Many(events),
    }
}

/// The event before `event` in its stream, if it is stored with this name and version and makes a pair with it.
///
/// # Errors
/// [`DecodeError::Neighbour`] if the log cannot be read.
pub fn before(
    event: &Recorded,
    neighbours: &dyn Neighbours,
    (name, version): (&'static str, u32),
    of_one_command: bool,
) -> Result<Option<Recorded>, DecodeError> {
    if of_one_command && event.command_id.is_none() {
        return Ok(None);
    }
    let found = neighbours.before(event).map_err(|source| unreadable(event, source))?;
    Ok(found.filter(|first| is(first, name, version) && is_pair(first, event, of_one_command)))
}

/// Whether the event after `event` in its stream is stored with this name and version and makes a pair with it.
///
/// # Errors
/// [`DecodeError::Neighbour`] if the log cannot be read.
pub fn is_before(
    event: &Recorded,
    neighbours: &dyn Neighbours,
    (name, version): (&'static str, u32),
    of_one_command: bool,
) -> Result<bool, DecodeError> {
    if of_one_command && event.command_id.is_none() {
        return Ok(false);
    }
    let found = neighbours.after(event).map_err(|source| unreadable(event, source))?;
    Ok(found.is_some_and(|next| is(&next, name, version) && is_pair(event, &next, of_one_command)))
}

/// Two neighbours make a pair. If the second is stored like this today, only if one command made both: the last event of the
/// older kind would otherwise be taken for the first half of whatever is appended after it, by readers that have read it alone.
fn is_pair(first: &Recorded, second: &Recorded, of_one_command: bool) -> bool {
    !of_one_command || first.command_id == second.command_id
}

fn unreadable(event: &Recorded, source: Box<dyn std::error::Error + Send + Sync>) -> DecodeError {
    DecodeError::Neighbour { name: event.name.clone().into_owned(), source }
}

/// What an event gave that is one half of a pair, and stands alone: if nothing reads it so, the error says that.
///
/// # Errors
/// [`DecodeError::Unpaired`] in the place of an unknown name or version.
pub fn alone<S>(
    name: &'static str,
    version: u32,
    read: Result<ReadAs<S>, DecodeError>,
) -> Result<ReadAs<S>, DecodeError> {
    read.map_err(|error| match error {
        DecodeError::UnknownName { .. } | DecodeError::UnknownVersion { .. } => {
            DecodeError::Unpaired { name, version }
        }
        other => other,
    })
}
