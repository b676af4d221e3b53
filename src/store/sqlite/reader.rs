//! Reading the log: a pool of read-only connections, which neither wait for the writer nor hold it up.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use dashmap::DashSet;
use hashbrown::HashSet;
use parking_lot::Mutex;
use rusqlite::types::{FromSqlResult, ValueRef};
use rusqlite::{Connection, Row};
use uuid::Uuid;

use super::Shared;
use super::file::{self, damaged, failed, own_id};
use super::index::Index;
use super::tail::{Head, Place};
use crate::clock::Timestamp;
use crate::codec::Codec;
use crate::event::{Header, Metadata, Recorded};
use crate::id::{CausationId, CommandId, CorrelationId, EventId};
use crate::store::{Filter, KnownCommand, Page, StoreError};
use crate::stream::{Position, StreamId, Version};

/// Selects the columns that [`decode`] reads.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT position, stream, version, previous, name, schema_version, time, event_id, command_id, \
             correlation_id, causation_id, metadata, payload FROM events ",
            $rest
        )
    };
}

/// How many events are read in one go: then the connection lets go of its view of the log, so that the WAL can be
/// emptied, and the caller's code runs while nothing is held.
const CHUNK: usize = 256;

/// How many events a filter looks through in one go; the same reason.
const WINDOW: u64 = 65_536;

/// How many rows the walk along a stream steps over instead of seeking: a step takes a quarter of the time.
const NEAR: u64 = 4;

/// The connections that read.
pub(super) struct Readers {
    shared: Arc<Shared>,
    idle: Mutex<Vec<Reader>>,
    /// How many are kept open; more are opened when more threads read at once.
    kept: usize,
}

struct Reader {
    log: Connection,
    index: Index,
    names: Names,
}

impl Readers {
    pub(super) fn new(shared: Arc<Shared>, kept: usize) -> Self {
        Self { shared, idle: Mutex::default(), kept }
    }

    /// A reader whose work failed is closed: its connection may be the reason.
    fn with<T>(
        &self,
        work: impl FnOnce(&Shared, &mut Reader) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => Reader {
                log: file::connect_to_read(&self.shared.files.log)?,
                index: Index::open(&self.shared.files.index)?,
                names: Names::default(),
            },
        };
        let found = work(&self.shared, &mut reader)?;
        let mut idle = self.idle.lock();
        if idle.len() < self.kept {
            idle.push(reader);
        }
        Ok(found)
    }

    pub(super) fn stream(
        &self,
        stream: &StreamId,
        after: Version,
        each: &mut dyn FnMut(Recorded) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut left = match self.with(|shared, reader| reader.walk(shared, stream, after))? {
            Walked::Rows(mut rows) => {
                while let Some(event) = rows.pop() {
                    if each(event).is_break() {
                        break;
                    }
                }
                return Ok(());
            }
            Walked::Positions(positions) => positions,
        };
        let mut version = after;
        let mut rows = Vec::with_capacity(CHUNK);
        while !left.is_empty() {
            let rest = left.len().saturating_sub(CHUNK);
            let next = left.split_off(rest);
            self.with(|shared, reader| {
                reader.rows(&shared.files.log, stream, version, next, &mut rows)
            })?;
            version = version.plus(rows.len() as u64);
            for event in rows.drain(..) {
                if each(event).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    pub(super) fn log(
        &self,
        after: Position,
        filter: &Filter,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.with(|shared, reader| reader.page(shared, after.as_u64(), filter, limit))
    }

    pub(super) fn command(&self, id: CommandId) -> Result<Option<KnownCommand>, StoreError> {
        self.with(|shared, reader| {
            let place = shared.tail.read().command(&id);
            let place = match place {
                Some(place) => Some(place),
                None => {
                    reader.index.command(&id).map_err(|error| failed(&shared.files.index, error))?
                }
            };
            place.map(|place| known(&reader.log, &shared.files.log, id, place)).transpose()
        })
    }
}

/// What a walk back along a stream brings home, the last one first.
enum Walked {
    /// The events themselves: few enough to be kept at once.
    Rows(Vec<Recorded>),
    /// Their positions.
    Positions(Vec<u64>),
}

impl Reader {
    fn walk(
        &mut self,
        shared: &Shared,
        stream: &StreamId,
        after: Version,
    ) -> Result<Walked, StoreError> {
        let key = shared.secret.key(stream);
        let head = shared.tail.read().head(&key);
        let head = match head {
            Some(head) => head,
            None => self
                .index
                .head(&key)
                .map_err(|error| failed(&shared.files.index, error))?
                .unwrap_or_default(),
        };
        let count = after.behind(Version::new(head.version)) as usize;
        let path = &shared.files.log;
        if count > CHUNK {
            return self.positions(path, head, count).map(Walked::Positions);
        }
        let refused = |error| failed(path, error);
        let mut rows = Vec::with_capacity(count);
        let mut position = head.position;
        // One view for all rows: the locks of a view cost as much as a row.
        let view = View::of(&self.log, count > 1).map_err(refused)?;
        for version in (after.as_u64() + 1..=head.version).rev() {
            let mut select =
                self.log.prepare_cached(select!("WHERE position = ?")).map_err(refused)?;
            let mut found = select.query([position as i64]).map_err(refused)?;
            let row = found.next().map_err(refused)?;
            let row = row.ok_or_else(|| missing(path, position))?;
            let (event, previous) = decode(row, Some(stream), &mut self.names, path)?;
            check_place(&event, stream, version, path)?;
            rows.push(event);
            position = previous;
        }
        view.end().map_err(refused)?;
        Ok(Walked::Rows(rows))
    }

    /// The positions of the last `count` events of a stream, the last one first.
    fn positions(&self, path: &Path, head: Head, count: usize) -> Result<Vec<u64>, StoreError> {
        let refused = |error| failed(path, error);
        let mut positions = Vec::with_capacity(count);
        let mut target = head.position;
        let mut select = self
            .log
            .prepare_cached(
                "SELECT position, previous FROM events WHERE position <= ? ORDER BY position DESC",
            )
            .map_err(refused)?;
        while positions.len() < count {
            let mut rows = select.query([target as i64]).map_err(refused)?;
            loop {
                let row = rows.next().map_err(refused)?;
                let row = row.ok_or_else(|| missing(path, target))?;
                let position = number(row, 0, path)?;
                if position > target {
                    continue;
                }
                if position < target {
                    return Err(missing(path, target));
                }
                positions.push(position);
                if positions.len() == count {
                    break;
                }
                let previous = number(row, 1, path)?;
                if previous == 0 || previous >= position {
                    let what = format!(
                        "the event at position {position} names position {previous} as the one before it in its stream"
                    );
                    return Err(damaged(path, what));
                }
                target = previous;
                if position - previous > NEAR {
                    break;
                }
            }
        }
        Ok(positions)
    }

    /// Reads the events at `positions` (the last one first) into `events` (the first one first).
    fn rows(
        &mut self,
        path: &Path,
        stream: &StreamId,
        after: Version,
        mut positions: Vec<u64>,
        events: &mut Vec<Recorded>,
    ) -> Result<(), StoreError> {
        let refused = |error| failed(path, error);
        let mut version = after.as_u64();
        let view = View::of(&self.log, true).map_err(refused)?;
        let mut select = self
            .log
            .prepare_cached(select!("WHERE position >= ? ORDER BY position"))
            .map_err(refused)?;
        while let Some(mut target) = positions.pop() {
            let mut rows = select.query([target as i64]).map_err(refused)?;
            loop {
                let row = rows.next().map_err(refused)?;
                let row = row.ok_or_else(|| missing(path, target))?;
                let position = number(row, 0, path)?;
                if position < target {
                    continue;
                }
                if position > target {
                    return Err(missing(path, target));
                }
                version += 1;
                let (event, _) = decode(row, Some(stream), &mut self.names, path)?;
                check_place(&event, stream, version, path)?;
                events.push(event);
                match positions.last() {
                    Some(next) if next - target <= NEAR => target = *next,
                    _ => break,
                }
                positions.pop();
            }
        }
        drop(select);
        view.end().map_err(refused)
    }

    fn page(
        &mut self,
        shared: &Shared,
        after: u64,
        filter: &Filter,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let path = &shared.files.log;
        // Rows beyond this may be in the file already, but a stream that is read next may not show them yet.
        let head = shared.head();
        let mut events = Vec::new();
        let through = if limit == 0 || after >= head {
            after
        } else {
            match filter {
                Filter::All => self.unfiltered(path, after, head, limit, &mut events)?,
                Filter::Names(names) if names.is_empty() => head,
                Filter::Names(_) | Filter::NamesAndUnknown { .. } => {
                    let wanted = Wanted::of(filter);
                    let mut through = after;
                    while through < head && events.len() < limit {
                        let end = head.min(through.saturating_add(WINDOW));
                        let room = limit - events.len();
                        through = self.filtered(path, through, end, &wanted, room, &mut events)?;
                    }
                    through
                }
            }
        };
        Ok(Page { events, through: Position::new(through) })
    }

    fn unfiltered(
        &mut self,
        path: &Path,
        after: u64,
        head: u64,
        limit: usize,
        events: &mut Vec<Recorded>,
    ) -> Result<u64, StoreError> {
        let refused = |error| failed(path, error);
        let end = head.min(after.saturating_add(limit as u64));
        events.reserve_exact((end - after) as usize);
        let mut through = after;
        let mut select = self
            .log
            .prepare_cached(select!("WHERE position > ? AND position <= ? ORDER BY position"))
            .map_err(refused)?;
        let mut rows = select.query([after as i64, end as i64]).map_err(refused)?;
        while let Some(row) = rows.next().map_err(refused)? {
            let (event, _) = decode(row, None, &mut self.names, path)?;
            if event.header.position.as_u64() != through + 1 {
                return Err(missing(path, through + 1));
            }
            through += 1;
            events.push(event);
        }
        if through < end {
            return Err(missing(path, through + 1));
        }
        Ok(through)
    }

    /// The database filters, so that rows nobody wants are not unpacked. That none was skipped is then known from
    /// their number: positions are unique, so as many rows as there are places means a row for each.
    fn filtered(
        &mut self,
        path: &Path,
        after: u64,
        end: u64,
        wanted: &Wanted,
        limit: usize,
        events: &mut Vec<Recorded>,
    ) -> Result<u64, StoreError> {
        let refused = |error| failed(path, error);
        let mut select = self
            .log
            .prepare_cached(&format!(
                select!("WHERE position > ? AND position <= ? AND ({}) ORDER BY position LIMIT ?"),
                wanted.condition
            ))
            .map_err(refused)?;
        let mut at = 0;
        let mut bind = |value: &dyn rusqlite::ToSql| {
            at += 1;
            select.raw_bind_parameter(at, value)
        };
        bind(&(after as i64)).map_err(refused)?;
        bind(&(end as i64)).map_err(refused)?;
        for value in &wanted.values {
            bind(value).map_err(refused)?;
        }
        bind(&i64::try_from(limit).unwrap_or(i64::MAX)).map_err(refused)?;
        let before = events.len();
        let mut rows = select.raw_query();
        while let Some(row) = rows.next().map_err(refused)? {
            events.push(decode(row, None, &mut self.names, path)?.0);
        }
        let found = events.len() - before;
        let through = match events.last() {
            Some(last) if found >= limit => last.header.position.as_u64(),
            _ => end,
        };
        if found as u64 == through - after {
            return Ok(through);
        }
        let seen: i64 = self
            .log
            .prepare_cached("SELECT count(*) FROM events WHERE position > ? AND position <= ?")
            .and_then(|mut count| count.query_row([after as i64, through as i64], |row| row.get(0)))
            .map_err(refused)?;
        if seen as u64 != through - after {
            return Err(self.first_missing(path, after)?);
        }
        Ok(through)
    }

    fn first_missing(&self, path: &Path, after: u64) -> Result<StoreError, StoreError> {
        let find = || -> rusqlite::Result<u64> {
            let mut select = self
                .log
                .prepare("SELECT position FROM events WHERE position > ? ORDER BY position")?;
            let mut rows = select.query([after as i64])?;
            let mut expected = after + 1;
            while let Some(row) = rows.next()?
                && row.get::<_, i64>(0)? as u64 == expected
            {
                expected += 1;
            }
            Ok(expected)
        };
        find().map(|position| missing(path, position)).map_err(|error| failed(path, error))
    }
}

/// A filter as a condition of SQL, with the values of its parameters.
struct Wanted {
    condition: String,
    values: Vec<Cow<'static, str>>,
}

impl Wanted {
    fn of(filter: &Filter) -> Self {
        let marks = |names: &[&'static str]| vec!["?"; names.len()].join(", ");
        let mut values = Vec::new();
        let condition = match filter {
            Filter::All => "TRUE".to_owned(),
            Filter::Names(names) => {
                values.extend(names.iter().copied().map(Cow::Borrowed));
                format!("name IN ({})", marks(names))
            }
            Filter::NamesAndUnknown { names, categories, known } => {
                values.extend(names.iter().chain(known).copied().map(Cow::Borrowed));
                // The hyphen ends the category, and the full stop is what comes after it.
                for category in categories {
                    values.extend([format!("{category}-").into(), format!("{category}.").into()]);
                }
                let ranges = vec!["(stream >= ? AND stream < ?)"; categories.len()];
                format!(
                    "name IN ({}) OR (name NOT IN ({}) AND ({}))",
                    marks(names),
                    marks(known),
                    if ranges.is_empty() { "FALSE".to_owned() } else { ranges.join(" OR ") },
                )
            }
        };
        Self { condition, values }
    }
}

/// One view of the log for several statements.
struct View<'a>(Option<&'a Connection>);

impl<'a> View<'a> {
    fn of(conn: &'a Connection, worth_it: bool) -> rusqlite::Result<Self> {
        if worth_it {
            conn.prepare_cached("BEGIN")?.raw_execute()?;
        }
        Ok(Self(worth_it.then_some(conn)))
    }

    /// Not on drop: a reader that failed in between is closed, and the view with it.
    fn end(self) -> rusqlite::Result<()> {
        match self.0 {
            Some(conn) => conn.prepare_cached("COMMIT")?.raw_execute().map(drop),
            None => Ok(()),
        }
    }
}

/// What the log knows of the command `id` at `place`.
pub(super) fn known(
    log: &Connection,
    path: &Path,
    id: CommandId,
    place: Place,
) -> Result<KnownCommand, StoreError> {
    let refused = |error| failed(path, error);
    match place {
        Place::Bare(number) => {
            let mut select = log
                .prepare_cached(
                    "SELECT stream, version, position, id FROM commands WHERE number = ?",
                )
                .map_err(refused)?;
            let mut rows = select.query([number as i64]).map_err(refused)?;
            let row = rows.next().map_err(refused)?;
            let gone = || damaged(path, format!("the row of command {id} is missing"));
            command_row(row.ok_or_else(gone)?, id, path)?
                .map(|(stream, version, position)| KnownCommand {
                    stream,
                    version,
                    events: 0,
                    position,
                })
                .ok_or_else(gone)
        }
        Place::Events(first) => {
            let mut select = log
                .prepare_cached(
                    "SELECT stream, version, position, command_id FROM events WHERE position >= ? \
                     ORDER BY position",
                )
                .map_err(refused)?;
            let mut rows = select.query([first as i64]).map_err(refused)?;
            let mut found: Option<KnownCommand> = None;
            while let Some(row) = rows.next().map_err(refused)?
                && let Some((stream, version, position)) = command_row(row, id, path)?
            {
                let known = found.get_or_insert(KnownCommand {
                    stream: stream.clone(),
                    version,
                    events: 0,
                    position,
                });
                known.events += 1;
                known.position = position;
                if stream == known.stream {
                    known.version = version;
                }
            }
            found.ok_or_else(|| missing(path, first))
        }
    }
}

/// Stream, version and position of a row, if it is one of the command's.
fn command_row(
    row: &Row<'_>,
    id: CommandId,
    path: &Path,
) -> Result<Option<(StreamId, Version, Position)>, StoreError> {
    if uuid_or_none(row, 3, path)? != Some(id.into()) {
        return Ok(None);
    }
    let position = number(row, 2, path)?;
    Ok(Some((
        stored_stream(text(row, 0, path)?, path)?,
        Version::new(number(row, 1, path)?),
        Position::new(position),
    )))
}

/// An event from a row of [`select!`], and the position of its stream's event before it.
///
/// `expected` spares the copy of the stream's name when it is the one that stands there.
#[inline]
fn decode(
    row: &Row<'_>,
    expected: Option<&StreamId>,
    names: &mut Names,
    path: &Path,
) -> Result<(Recorded, u64), StoreError> {
    let stream = text(row, 1, path)?;
    let stream = match expected {
        Some(expected) if expected.as_str() == stream => expected.clone(),
        _ => stored_stream(stream, path)?,
    };
    let metadata = match column(row, 11, path, ValueRef::as_bytes_or_null)? {
        None => Metadata::default(),
        Some(json) => serde_json::from_slice(json)
            .map_err(|error| damaged(path, format!("metadata of {}: {error}", at(row))))?,
    };
    let event_id = EventId::from_uuid(uuid(row, 7, path)?);
    let command_id = uuid_or_none(row, 8, path)?.map(CommandId::from_uuid);
    let own = own_id(event_id, command_id);
    let header = Header {
        event_id,
        name: names.intern(text(row, 4, path)?),
        schema_version: number(row, 5, path)? as u32,
        codec: Codec::Json,
        stream,
        version: Version::new(number(row, 2, path)?),
        position: Position::new(number(row, 0, path)?),
        time: Timestamp::from_micros(number(row, 6, path)?),
        command_id,
        correlation_id: CorrelationId::from_uuid(uuid_or_none(row, 9, path)?.unwrap_or(own)),
        causation_id: CausationId::from_uuid(uuid_or_none(row, 10, path)?.unwrap_or(own)),
        metadata,
    };
    let payload = column(row, 12, path, ValueRef::as_bytes)?.into();
    Ok((Recorded { header, payload }, number(row, 3, path)?))
}

fn check_place(
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

fn stored_stream(name: &str, path: &Path) -> Result<StreamId, StoreError> {
    StreamId::from_stored(name)
        .ok_or_else(|| damaged(path, format!("{name:?} cannot be the name of a stream")))
}

fn missing(path: &Path, position: u64) -> StoreError {
    damaged(path, format!("the event at position {position} is missing"))
}

/// Numbers are stored as they are, also beyond the range of SQLite's: those wrap there and back.
#[inline]
fn number(row: &Row<'_>, index: usize, path: &Path) -> Result<u64, StoreError> {
    column(row, index, path, ValueRef::as_i64).map(|number| number as u64)
}

#[inline]
fn text<'row>(row: &'row Row<'_>, index: usize, path: &Path) -> Result<&'row str, StoreError> {
    column(row, index, path, ValueRef::as_str)
}

#[inline]
fn uuid(row: &Row<'_>, index: usize, path: &Path) -> Result<Uuid, StoreError> {
    uuid_or_none(row, index, path)?
        .ok_or_else(|| damaged(path, format!("an id of {} is missing", at(row))))
}

#[inline]
fn uuid_or_none(row: &Row<'_>, index: usize, path: &Path) -> Result<Option<Uuid>, StoreError> {
    column(row, index, path, ValueRef::as_blob_or_null)?
        .map(Uuid::from_slice)
        .transpose()
        .map_err(|error| damaged(path, format!("an id of {}: {error}", at(row))))
}

#[inline]
fn column<'row, T>(
    row: &'row Row<'_>,
    index: usize,
    path: &Path,
    read: impl FnOnce(&ValueRef<'row>) -> FromSqlResult<T>,
) -> Result<T, StoreError> {
    let value = row.get_ref(index).map_err(|error| failed(path, error))?;
    read(&value).map_err(|error| damaged(path, format!("column {index} of {}: {error}", at(row))))
}

/// Names the row in an error.
fn at(row: &Row<'_>) -> String {
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
struct Names {
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
