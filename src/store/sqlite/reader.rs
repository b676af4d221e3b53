//! Reading the log: a pool of read-only connections, which neither wait for the writer nor hold it up.

mod row;

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, Row, params};

use self::row::{
    Names, check_place, decode, missing, number, stored_stream, text, uuid, uuid_or_none,
};
use super::Shared;
use super::archive::Archives;
use super::file::{self, damaged, failed};
use super::index::Index;
use super::snapshots;
use super::tail::{Head, Place};
use crate::clock::Timestamp;
use crate::event::Recorded;
use crate::id::{CommandId, CorrelationId};
use crate::store::{Filter, KnownCommand, Page, Snapshot, StoreError};
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

/// Up to how many events a walk brings home whole, and how many bytes of payloads: it meets each page once then, and not again on
/// the way forwards. A longer stream would be read again for each stretch that its reader folds.
const WHOLE: u64 = 2_048;
const WHOLE_BYTES: usize = 1 << 20;

/// How many positions are looked up in one view of the log.
const STEPS: u64 = 16_384;

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
    archives: Archives,
}

/// How often a read is tried that met an archive it cannot read: when the archive was restored meanwhile, a new view of the
/// log has the events itself.
const VIEWS: u32 = 3;

impl Readers {
    pub(super) fn new(shared: Arc<Shared>, kept: usize) -> Self {
        Self { shared, idle: Mutex::default(), kept }
    }

    /// A reader whose work failed is closed: its connection may be the reason.
    fn with<T>(
        &self,
        mut work: impl FnMut(&Shared, &mut Reader) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        for _ in 1..VIEWS {
            match self.with_view(&mut work) {
                Err(StoreError::Archive { .. }) => {}
                done => return done,
            }
        }
        self.with_view(&mut work)
    }

    fn with_view<T>(
        &self,
        work: &mut impl FnMut(&Shared, &mut Reader) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => Reader {
                log: file::connect_to_read(&self.shared.files.log)?,
                index: Index::open(&self.shared.files.index)?,
                names: Names::default(),
                archives: Archives::default(),
            },
        };
        let found = work(&self.shared, &mut reader)?;
        let mut idle = self.idle.lock();
        if idle.len() < self.kept {
            idle.push(reader);
        }
        Ok(found)
    }

    /// Closes the connections that nobody reads with, and the archives that they have open.
    pub(super) fn close_idle(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
    }

    pub(super) fn stream(
        &self,
        stream: &StreamId,
        after: Version,
        each: &mut dyn FnMut(Recorded) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let walked = self.with(|shared, reader| reader.walk(shared, stream, after))?;
        let Walked { rows: mut newest, positions: mut left } = walked;
        let mut version = after;
        let mut rows = Vec::with_capacity(left.len().min(CHUNK));
        while !left.is_empty() {
            let rest = left.len().saturating_sub(CHUNK);
            let next = left.split_off(rest);
            self.with(|shared, reader| {
                rows.clear();
                reader.rows(shared, stream, version, next.clone(), &mut rows)
            })?;
            version = version.plus(rows.len() as u64);
            for event in rows.drain(..) {
                if each(event).is_break() {
                    return Ok(());
                }
            }
        }
        while let Some(event) = newest.pop() {
            if each(event).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The positions of all events of a stream, the last one first.
    pub(super) fn positions_of(&self, stream: &StreamId) -> Result<Vec<u64>, StoreError> {
        self.with(|shared, reader| {
            let head = reader.head(shared, stream)?;
            let mut positions = Vec::new();
            let path = &shared.files.log;
            reader.positions(path, head.position, head.version, &mut positions)?;
            Ok(positions)
        })
    }

    pub(super) fn log(
        &self,
        after: Position,
        filter: &Filter,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.with(|shared, reader| reader.page(shared, after.as_u64(), filter, limit))
    }

    pub(super) fn snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        // In this order: what leaves the memory is in the table before.
        if let Some(pending) = self.shared.snapshots.get(stream) {
            return Ok(Some(pending));
        }
        self.with(|shared, reader| {
            snapshots::select(&reader.log, shared.secret, &shared.files.log, stream)
        })
    }

    /// Looks for the events of a story in the next window.
    pub(super) fn story(
        &self,
        story: CorrelationId,
        after: Position,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.with(|shared, reader| {
            let (after, head) = (after.as_u64(), shared.head());
            let mut events = Vec::new();
            let through = match limit == 0 || after >= head {
                true => after,
                false => {
                    let end = head.min(after.saturating_add(WINDOW));
                    reader.of_story(shared, after, end, story, limit, &mut events)?
                }
            };
            Ok(Page { events, through: Position::new(through) })
        })
    }

    /// Window by window, so that no view of the log is held for long.
    pub(super) fn position_at(&self, time: Timestamp) -> Result<Position, StoreError> {
        let head = self.shared.head();
        let mut after = 0;
        while after < head {
            let end = head.min(after + WINDOW);
            let found = self
                .with(|shared, reader| reader.first_later(&shared.files.log, after, end, time))?;
            if let Some(later) = found {
                return Ok(Position::new(later - 1));
            }
            after = end;
        }
        Ok(Position::new(head))
    }

    pub(super) fn commands_without_events(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(CommandId, KnownCommand)>, StoreError> {
        self.with(|shared, reader| {
            let path = &shared.files.log;
            let refused = |error| failed(path, error);
            let mut select = reader
                .log
                .prepare_cached(
                    "SELECT stream, version, position, id FROM commands \
                     WHERE number > ? AND position <= ? ORDER BY number LIMIT ?",
                )
                .map_err(refused)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut rows =
                select.query([after as i64, shared.head() as i64, limit]).map_err(refused)?;
            let mut commands = Vec::new();
            while let Some(row) = rows.next().map_err(refused)? {
                let id = CommandId::from_uuid(uuid(row, 3, path)?);
                let stream = stored_stream(text(row, 0, path)?, path)?;
                let version = Version::new(number(row, 1, path)?);
                let position = Position::new(number(row, 2, path)?);
                commands.push((id, KnownCommand { stream, version, events: 0, position }));
            }
            Ok(commands)
        })
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
#[derive(Default)]
struct Walked {
    /// The newest events: as many as may be kept at once.
    rows: Vec<Recorded>,
    /// The positions of those before them.
    positions: Vec<u64>,
}

impl Reader {
    fn walk(
        &mut self,
        shared: &Shared,
        stream: &StreamId,
        after: Version,
    ) -> Result<Walked, StoreError> {
        let head = self.head(shared, stream)?;
        let count = after.behind(Version::new(head.version));
        let path = &shared.files.log;
        let mut walked = Walked::default();
        let mut target = head.position;
        if count <= WHOLE {
            walked.rows.reserve_exact(count as usize);
            let (names, archives) = (&mut self.names, &mut self.archives);
            let (rows, mut bytes) = (&mut walked.rows, 0);
            let mut version = head.version;
            let select = select!("WHERE position <= ? ORDER BY position DESC");
            target = back(&self.log, path, select, 3, target, count, &mut |row, _| {
                let (event, _) = decode(row, Some(stream), names, archives, shared)?;
                check_place(&event, stream, version, path)?;
                version -= 1;
                bytes += event.payload.len();
                rows.push(event);
                Ok(bytes < WHOLE_BYTES)
            })?;
        }
        let left = count - walked.rows.len() as u64;
        self.positions(path, target, left, &mut walked.positions)?;
        Ok(walked)
    }

    /// The positions of the `left` newest events of a stream up to the one at `target`, the last one first.
    fn positions(
        &self,
        path: &Path,
        mut target: u64,
        mut left: u64,
        positions: &mut Vec<u64>,
    ) -> Result<(), StoreError> {
        positions.reserve_exact(left as usize);
        while left > 0 {
            let steps = left.min(STEPS);
            let select =
                "SELECT position, previous FROM events WHERE position <= ? ORDER BY position DESC";
            target = back(&self.log, path, select, 1, target, steps, &mut |_, position| {
                positions.push(position);
                Ok(true)
            })?;
            left -= steps;
        }
        Ok(())
    }

    fn head(&self, shared: &Shared, stream: &StreamId) -> Result<Head, StoreError> {
        let key = shared.secret.key(stream);
        let head = shared.tail.read().head(&key);
        match head {
            Some(head) => Ok(head),
            None => self
                .index
                .head(&key)
                .map(Option::unwrap_or_default)
                .map_err(|error| failed(&shared.files.index, error)),
        }
    }

    /// Reads the events at `positions` (the last one first) into `events` (the first one first).
    fn rows(
        &mut self,
        shared: &Shared,
        stream: &StreamId,
        after: Version,
        mut positions: Vec<u64>,
        events: &mut Vec<Recorded>,
    ) -> Result<(), StoreError> {
        let path = &shared.files.log;
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
                let (event, _) =
                    decode(row, Some(stream), &mut self.names, &mut self.archives, shared)?;
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
        // Rows beyond this may be in the file already, but a stream that is read next may not show them yet.
        let head = shared.head();
        let mut events = Vec::new();
        let through = if limit == 0 || after >= head {
            after
        } else {
            match filter {
                Filter::All => self.unfiltered(shared, after, head, limit, &mut events)?,
                Filter::Names(names) if names.is_empty() => head,
                Filter::Names(_) | Filter::NamesAndUnknown { .. } => {
                    let wanted = Wanted::of(filter);
                    let mut through = after;
                    while through < head && events.len() < limit {
                        let end = head.min(through.saturating_add(WINDOW));
                        let room = limit - events.len();
                        through =
                            self.filtered(shared, through, end, &wanted, room, &mut events)?;
                    }
                    through
                }
            }
        };
        Ok(Page { events, through: Position::new(through) })
    }

    fn unfiltered(
        &mut self,
        shared: &Shared,
        after: u64,
        head: u64,
        limit: usize,
        events: &mut Vec<Recorded>,
    ) -> Result<u64, StoreError> {
        let path = &shared.files.log;
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
            let (event, _) = decode(row, None, &mut self.names, &mut self.archives, shared)?;
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
        shared: &Shared,
        after: u64,
        end: u64,
        wanted: &Wanted,
        limit: usize,
        events: &mut Vec<Recorded>,
    ) -> Result<u64, StoreError> {
        let path = &shared.files.log;
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
            events.push(decode(row, None, &mut self.names, &mut self.archives, shared)?.0);
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
        self.check_all_seen(path, after, through, seen)?;
        Ok(through)
    }

    /// The events of a story in a window. Where a story begins its id stands in another column. What is looked through is counted on
    /// the way; a second pass for that would take as long again.
    fn of_story(
        &mut self,
        shared: &Shared,
        after: u64,
        end: u64,
        story: CorrelationId,
        limit: usize,
        events: &mut Vec<Recorded>,
    ) -> Result<u64, StoreError> {
        let path = &shared.files.log;
        let refused = |error| failed(path, error);
        let view = View::of(&self.log, true).map_err(refused)?;
        let id = story.as_uuid().as_bytes().as_slice();
        let (seen, found): (i64, String) = self
            .log
            .prepare_cached(
                "SELECT count(*), json_group_array(position) \
                 FILTER (WHERE coalesce(correlation_id, command_id, event_id) = ?3) \
                 FROM events WHERE position > ?1 AND position <= ?2",
            )
            .and_then(|mut select| {
                let window = params![after as i64, end as i64, id];
                select.query_row(window, |row| Ok((row.get(0)?, row.get(1)?)))
            })
            .map_err(refused)?;
        self.check_all_seen(path, after, end, seen)?;
        let mut found: Vec<u64> = serde_json::from_str(&found)
            .map_err(|error| damaged(path, format!("positions are no numbers: {error}")))?;
        found.sort_unstable();
        let through = match found.get(limit - 1) {
            Some(last) => *last,
            None => end,
        };
        found.truncate(limit);
        let mut select = self.log.prepare_cached(select!("WHERE position = ?")).map_err(refused)?;
        for position in found {
            let mut rows = select.query([position as i64]).map_err(refused)?;
            let row = rows.next().map_err(refused)?.ok_or_else(|| missing(path, position))?;
            events.push(decode(row, None, &mut self.names, &mut self.archives, shared)?.0);
        }
        drop(select);
        view.end().map_err(refused)?;
        Ok(through)
    }

    /// The position of the first event of the window that was decided after `time`.
    fn first_later(
        &self,
        path: &Path,
        after: u64,
        end: u64,
        time: Timestamp,
    ) -> Result<Option<u64>, StoreError> {
        // Times beyond the range of SQLite's numbers are stored as negative ones, which are later than all others.
        let (seen, found): (i64, Option<i64>) = self
            .log
            .prepare_cached(
                "SELECT count(*), min(position) FILTER (WHERE (time < 0, time) > (?3 < 0, ?3)) \
                 FROM events WHERE position > ?1 AND position <= ?2",
            )
            .and_then(|mut select| {
                let window = params![after as i64, end as i64, time.as_micros() as i64];
                select.query_row(window, |row| Ok((row.get(0)?, row.get(1)?)))
            })
            .map_err(|error| failed(path, error))?;
        self.check_all_seen(path, after, end, seen)?;
        Ok(found.map(|position| position as u64))
    }

    /// Positions are unique, so as many rows as there are places means a row for each.
    fn check_all_seen(
        &self,
        path: &Path,
        after: u64,
        through: u64,
        seen: i64,
    ) -> Result<(), StoreError> {
        match seen as u64 == through - after {
            true => Ok(()),
            false => Err(self.first_missing(path, after)?),
        }
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

/// Walks back along a stream from its event at `target`, over `count` events or until `each` says that it was the last.
/// Returns the position of the event before those.
///
/// `select` reads rows from a position downwards, with `previous` in column `previous`.
fn back(
    log: &Connection,
    path: &Path,
    select: &str,
    previous: usize,
    mut target: u64,
    count: u64,
    each: &mut dyn FnMut(&Row<'_>, u64) -> Result<bool, StoreError>,
) -> Result<u64, StoreError> {
    let refused = |error| failed(path, error);
    // One view for all rows: the locks of a view cost as much as a row.
    let view = View::of(log, count > 1).map_err(refused)?;
    let mut left = count;
    {
        let mut select = log.prepare_cached(select).map_err(refused)?;
        while left > 0 {
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
                let goes_on = each(row, position)?;
                target = number(row, previous, path)?;
                left -= 1;
                if left == 0 {
                    break;
                }
                if target == 0 || target >= position {
                    let what = format!(
                        "the event at position {position} names position {target} as the one before it in its stream"
                    );
                    return Err(damaged(path, what));
                }
                if !goes_on {
                    left = 0;
                }
                if left == 0 || position - target > NEAR {
                    break;
                }
            }
        }
    }
    view.end().map_err(refused)?;
    Ok(target)
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
