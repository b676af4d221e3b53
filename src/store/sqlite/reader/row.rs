//! Events from the rows of the log.

use std::borrow::Cow;
use std::path::Path;
use std::sync::LazyLock;

use dashmap::DashSet;
use hashbrown::HashSet;
use rusqlite::Row;
use rusqlite::types::{FromSqlResult, ValueRef};
use uuid::Uuid;

use super::super::Shared;
use super::super::archive::{Archives, Stored, stored};
use super::super::file::{damaged, failed, own_id};
use crate::clock::Timestamp;
use crate::event::{Header, Metadata, Recorded};
use crate::id::{CausationId, CommandId, CorrelationId, EventId};
use crate::store::StoreError;
use crate::stream::{Position, StreamId, Version};

/// An event from a row of [`select!`], and the position of its stream's event before it.
///
/// `expected` spares the copy of the stream's name when it is the one that stands there.
#[inline]
pub(super) fn decode(
    row: &Row<'_>,
    expected: Option<&StreamId>,
    names: &mut Names,
    archives: &mut Archives,
    shared: &Shared,
) -> Result<(Recorded, u64), StoreError> {
    let path = &shared.files.log;
    let stream = text(row, 1, path)?;
    let stream = match expected {
        Some(expected) if expected.as_str() == stream => expected.clone(),
        _ => stored_stream(stream, path)?,
    };
    let metadata = |json: Option<&[u8]>| match json {
        None => Ok(Metadata::default()),
        Some(json) => serde_json::from_slice(json)
            .map_err(|error| damaged(path, format!("metadata of {}: {error}", at(row)))),
    };
    let position = number(row, 0, path)?;
    let event_id = EventId::from_uuid(uuid(row, 7, path)?);
    let command_id = uuid_or_none(row, 8, path)?.map(CommandId::from_uuid);
    let own = own_id(event_id, command_id);
    let payload = row.get_ref(12).map_err(|error| failed(path, error))?;
    let (metadata, codec, payload) = match stored(payload, position, path)? {
        Stored::Here(codec, payload) => {
            let json = column(row, 11, path, ValueRef::as_bytes_or_null)?;
            (metadata(json)?, codec, payload.into())
        }
        Stored::Archived(number) => {
            let fetched = archives.fetch(shared, number, position, event_id.into())?;
            (metadata(fetched.metadata.as_deref())?, fetched.codec, fetched.payload)
        }
    };
    let header = Header {
        event_id,
        name: names.intern(text(row, 4, path)?),
        schema_version: number(row, 5, path)? as u32,
        codec,
        stream,
        version: Version::new(number(row, 2, path)?),
        position: Position::new(position),
        time: Timestamp::from_micros(number(row, 6, path)?),
        command_id,
        correlation_id: CorrelationId::from_uuid(uuid_or_none(row, 9, path)?.unwrap_or(own)),
        causation_id: CausationId::from_uuid(uuid_or_none(row, 10, path)?.unwrap_or(own)),
        metadata,
    };
    Ok((Recorded { header, payload }, number(row, 3, path)?))
}

pub(super) fn check_place(
    event: &Recorded,
    stream: &StreamId,
    version: u64,
    path: &Path,
) -> Result<(), StoreError> {
    let header = &event.header;
    if header.stream == *stream && header.version.as_u64() == version {
        return Ok(());
    }
    let what = format!(
        "position {} holds version {} of stream {}, where version {version} of stream {stream} belongs",
        header.position, header.version, header.stream
    );
    Err(damaged(path, what))
}

pub(super) fn stored_stream(name: &str, path: &Path) -> Result<StreamId, StoreError> {
    StreamId::from_stored(name)
        .ok_or_else(|| damaged(path, format!("{name:?} cannot be the name of a stream")))
}

pub(super) fn missing(path: &Path, position: u64) -> StoreError {
    damaged(path, format!("the event at position {position} is missing"))
}

/// Numbers are stored as they are, also beyond the range of SQLite's: those wrap there and back.
#[inline]
pub(super) fn number(row: &Row<'_>, index: usize, path: &Path) -> Result<u64, StoreError> {
    column(row, index, path, ValueRef::as_i64).map(|number| number as u64)
}

#[inline]
pub(super) fn text<'row>(
    row: &'row Row<'_>,
    index: usize,
    path: &Path,
) -> Result<&'row str, StoreError> {
    column(row, index, path, ValueRef::as_str)
}

#[inline]
pub(super) fn uuid(row: &Row<'_>, index: usize, path: &Path) -> Result<Uuid, StoreError> {
    uuid_or_none(row, index, path)?
        .ok_or_else(|| damaged(path, format!("an id of {} is missing", at(row))))
}

#[inline]
pub(super) fn uuid_or_none(
    row: &Row<'_>,
    index: usize,
    path: &Path,
) -> Result<Option<Uuid>, StoreError> {
    column(row, index, path, ValueRef::as_blob_or_null)?
        .map(Uuid::from_slice)
        .transpose()
        .map_err(|error| damaged(path, format!("an id of {}: {error}", at(row))))
}

#[inline]
pub(super) fn column<'row, T>(
    row: &'row Row<'_>,
    index: usize,
    path: &Path,
    read: impl FnOnce(&ValueRef<'row>) -> FromSqlResult<T>,
) -> Result<T, StoreError> {
    let value = row.get_ref(index).map_err(|error| failed(path, error))?;
    read(&value).map_err(|error| damaged(path, format!("column {index} of {}: {error}", at(row))))
}

/// Names the row in an error.
pub(super) fn at(row: &Row<'_>) -> String {
    match row.get::<_, i64>("position") {
        Ok(position) => format!("the event at position {position}"),
        Err(_) => "a row".to_owned(),
    }
}

/// The names of events, each kept once for the whole program.
///
/// A program has a few hundred of them and meets them a million times. What is beyond [`Names::MOST`] can only come
/// from a log that is misused, and is copied instead of kept.
#[derive(Default)]
pub(super) struct Names {
    met: HashSet<&'static str>,
}

/// Shared by the readers of all logs, which meet new names at the same time only when they begin.
static NAMES: LazyLock<DashSet<&'static str>> = LazyLock::new(DashSet::new);

impl Names {
    const MOST: usize = 10_000;

    fn intern(&mut self, name: &str) -> Cow<'static, str> {
        if let Some(name) = self.met.get(name) {
            return Cow::Borrowed(name);
        }
        let known = NAMES.get(name).map(|known| *known);
        let name = match known {
            Some(name) => name,
            None if NAMES.len() >= Self::MOST => return Cow::Owned(name.to_owned()),
            None => {
                // Two readers may both leak their copy; each name is met for the first time only once.
                let name: &'static str = Box::leak(name.into());
                NAMES.insert(name);
                name
            }
        };
        self.met.insert(name);
        Cow::Borrowed(name)
    }
}
