//! The check of a whole log: does it still keep what a log promises?
//!
//! It reads every row, and judges it by the rows before it: positions and versions without gaps, each event naming the one
//! before it in its stream, ids that are one and only, payloads that can be parsed, archives that hold what was moved there.

use std::fmt;
use std::path::Path;

use hashbrown::{HashMap, HashSet};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row};
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::Sqlite;
use super::archive::{self, Known, Stored, stored};
use super::file::{self, failed};
use super::tail::{Secret, StreamKey};
use crate::codec::Codec;
use crate::event::Metadata;
use crate::store::StoreError;
use crate::stream::{Position, StreamId};

/// How many rows are read in one view: the write-ahead log cannot be emptied while a view is held.
const WINDOW: u64 = 16_384;

/// How many damages are listed. A log with more is restored from a backup, not mended row by row.
const LISTED: usize = 1_000;

/// How many archives are kept open at once: the rows of a stream lie in few, and a process may open a thousand files or so.
const OPEN: usize = 64;

const ROW: &str = "SELECT position, stream, version, previous, name, schema_version, time, event_id, \
     command_id, correlation_id, causation_id, metadata, payload FROM events";

/// What the check of a log has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Checked {
    /// How many events were read.
    pub events: u64,
    /// How many streams they are of.
    pub streams: u64,
    /// How many commands without events were read.
    pub commands: u64,
    /// How many events lie in archives.
    pub archived: u64,
    /// How many payloads could not be parsed because this program was built without the feature for their format.
    pub unread: u64,
    /// What is damaged, in the order in which it was found: the first 1,000.
    pub damage: Vec<Damage>,
    /// How many damages there are in all.
    pub damages: u64,
}

impl Checked {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damages == 0
    }

    fn note(&mut self, at: At<'_>, what: impl Into<String>) {
        self.damages += 1;
        if self.damage.len() < LISTED {
            let position = at.position.map(Position::new);
            let stream = at.stream.and_then(StreamId::from_stored);
            self.damage.push(Damage { position, stream, what: what.into() });
        }
    }
}

/// One thing that is damaged in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The event's position, if it is one event that is damaged.
    pub position: Option<Position>,
    /// Its stream, if that can be read.
    pub stream: Option<StreamId>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "position {position}")?;
            if let Some(stream) = &self.stream {
                write!(f, " ({stream})")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}

impl Sqlite {
    /// Reads all of the log at `path` and its archives, and says what is damaged: each position and stream by name.
    ///
    /// It reads only, and may run while the log is open, in this process or in another; a log that is too damaged to be opened
    /// can be checked all the same. `progress` is told now and then how many events were read, and of how many. The index
    /// and the views are not looked at: they are derived, and are written anew when they are deleted.
    ///
    /// A payload has no checksum: one in which a letter was changed so that it can still be parsed is not found. An
    /// export has checksums.
    ///
    /// It takes about 40 bytes of memory for each stream, and room for a list of all ids among the temporary files. It blocks:
    /// call it from a thread that may wait.
    ///
    /// # Errors
    /// [`StoreError`] if there is nothing to check: the file cannot be read, or is no log of this format. Whatever else is
    /// wrong stands in [`Checked`].
    ///
    /// # Examples
    /// ```
    /// use tidings::Sqlite;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("bank.db");
    /// # drop(Sqlite::open(&path)?);
    /// let checked = Sqlite::check(&path, |read, of| println!("{read} of {of} events"))?;
    /// for damage in &checked.damage {
    ///     eprintln!("{damage}");
    /// }
    /// assert!(checked.is_sound());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check(
        path: impl AsRef<Path>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Checked, StoreError> {
        let path = path.as_ref();
        let path = path.canonicalize().map_err(|error| file::io_failed(path, error))?;
        let log = file::connect_to_read(&path)?;
        file::is_log(&log, &path)?;
        let mut checking = Checking {
            log,
            path: &path,
            found: Checked::default(),
            // Streams have a number here as they have in the log; which one does not matter.
            secret: Secret(*crate::id::fresh().as_bytes()),
            streams: HashMap::new(),
            log_id: None,
            archives: Vec::new(),
            open: HashMap::new(),
            judged: HashSet::new(),
        };
        checking.database();
        checking.identity();
        let last = checking.events(&mut progress)?;
        checking.event_ids()?;
        checking.commands(last)?;
        checking.found.streams = checking.streams.len() as u64;
        Ok(checking.found)
    }
}

/// Which event a damage is of.
#[derive(Debug, Clone, Copy, Default)]
struct At<'a> {
    position: Option<u64>,
    stream: Option<&'a str>,
}

const NOWHERE: At<'static> = At { position: None, stream: None };

struct Checking<'a> {
    log: Connection,
    path: &'a Path,
    found: Checked,
    secret: Secret,
    /// The version and position of the last event of each stream.
    streams: HashMap<StreamKey, (u64, u64)>,
    log_id: Option<Uuid>,
    archives: Vec<Known>,
    /// None for one that cannot be opened.
    open: HashMap<i64, Option<Connection>>,
    /// The archives of which it is said what is wrong with them as a whole.
    judged: HashSet<i64>,
}

impl Checking<'_> {
    /// SQLite's own check, of pages and of the types of columns.
    fn database(&mut self) {
        let found = &mut self.found;
        let mut check = |sql: &str| -> rusqlite::Result<()> {
            let mut select = self.log.prepare(sql)?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let what: String = row.get(0)?;
                for line in what.lines().filter(|line| *line != "ok") {
                    found.note(NOWHERE, format!("the database: {line}"));
                }
            }
            Ok(())
        };
        if let Err(error) = check("PRAGMA integrity_check") {
            found.note(NOWHERE, format!("the database: {error}"));
        }
    }

    fn identity(&mut self) {
        for key in ["log_id", "stream_key"] {
            let value: rusqlite::Result<Option<[u8; 16]>> = self
                .log
                .query_row("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0))
                .optional();
            match value {
                Ok(Some(value)) if key == "log_id" => self.log_id = Some(Uuid::from_bytes(value)),
                Ok(Some(_)) => {}
                Ok(None) => self.found.note(NOWHERE, format!("the log's {key} is missing")),
                Err(error) => self.found.note(NOWHERE, format!("the log's {key}: {error}")),
            }
        }
        match archive::known(&self.log, self.path) {
            Ok(archives) => self.archives = archives,
            Err(error) => self.found.note(NOWHERE, format!("the list of archives: {error}")),
        }
    }

    /// Reads all events, and returns the last position.
    fn events(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<u64, StoreError> {
        let last: rusqlite::Result<Option<i64>> =
            self.log.query_row("SELECT max(position) FROM events", [], |row| row.get(0));
        let last = match last {
            Ok(last) => last.unwrap_or_default().max(0) as u64,
            Err(error) => {
                self.found.note(NOWHERE, format!("the events cannot be found: {error}"));
                return Ok(0);
            }
        };
        self.twice(
            "SELECT NULL, stream, 'a row has position ' || position || ': positions begin with 1' \
             FROM events WHERE position < 1",
        )?;
        let most = self.most_rows();
        let mut through = 0;
        while through < last {
            match self.next_after(through) {
                // In one step: a number that was changed may lie anywhere.
                Ok(Some(next)) => {
                    self.missing(through + 1, next);
                    through = next - 1;
                }
                Err(error) if is_damage(&error) && through > most => {
                    let what = format!("the events after {through} cannot be found: {error}");
                    self.found.note(At { position: Some(through + 1), stream: None }, what);
                    break;
                }
                Err(error) if !is_damage(&error) => return Err(failed(self.path, error)),
                _ => {}
            }
            let end = last.min(through.saturating_add(WINDOW));
            through = self.window(through, end)?;
            progress(through, last);
        }
        Ok(last)
    }

    /// How many rows there is room for in the log's files, at the least that one takes: its ids have 16 bytes.
    fn most_rows(&self) -> u64 {
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        (bytes(self.path) + bytes(&file::beside(self.path, "-wal"))) / 32
    }

    fn next_after(&self, through: u64) -> rusqlite::Result<Option<u64>> {
        self.log
            .prepare_cached("SELECT min(position) FROM events WHERE position > ?")?
            .query_row([through as i64], |row| row.get(0))
            .map(|next: Option<i64>| next.map(|next| next as u64))
    }

    /// The rows after `through` up to `end`. What cannot be read in one go is read row by row, so that each one that is lost
    /// has its name. Returns how far it has come: to the last row, and not into a gap behind it.
    fn window(&mut self, through: u64, end: u64) -> Result<u64, StoreError> {
        let mut read = Vec::new();
        let collected = self.collect(through, end, &mut read);
        let mut expected = through + 1;
        match collected {
            Ok(()) if read.is_empty() => {
                self.missing(expected, end + 1);
                Ok(end)
            }
            Ok(()) => {
                for event in read {
                    self.missing(expected, event.position);
                    expected = event.position + 1;
                    self.event(event);
                }
                Ok(expected - 1)
            }
            Err(error) if is_damage(&error) => {
                for position in expected..=end {
                    read.clear();
                    match self.collect(position - 1, position, &mut read) {
                        Ok(()) => match read.pop() {
                            Some(event) => self.event(event),
                            None => self.missing(position, position + 1),
                        },
                        Err(error) if is_damage(&error) => {
                            let at = At { position: Some(position), stream: None };
                            self.found.note(at, format!("the event cannot be read: {error}"));
                        }
                        Err(error) => return Err(failed(self.path, error)),
                    }
                }
                Ok(end)
            }
            Err(error) => Err(failed(self.path, error)),
        }
    }

    fn collect(&self, through: u64, end: u64, read: &mut Vec<Event>) -> rusqlite::Result<()> {
        let mut select = self.log.prepare_cached(&format!(
            "{ROW} WHERE position > ? AND position <= ? ORDER BY position"
        ))?;
        let mut rows = select.query([through as i64, end as i64])?;
        while let Some(row) = rows.next()? {
            read.push(Event::of(row, self.path)?);
        }
        Ok(())
    }

    fn missing(&mut self, from: u64, to: u64) {
        match to.saturating_sub(from) {
            0 => {}
            // Each by its name, as long as they can be listed.
            count if count <= LISTED as u64 => {
                for position in from..to {
                    let at = At { position: Some(position), stream: None };
                    self.found.note(at, "the event is missing");
                }
            }
            _ => {
                let what = format!("the events at positions {from} to {} are missing", to - 1);
                self.found.note(At { position: Some(from), stream: None }, what);
            }
        }
    }

    /// Judges one row by itself, and by those of its stream before it.
    fn event(&mut self, event: Event) {
        self.found.events += 1;
        let Event { position, stream, version, previous, event_id, payload, faults } = event;
        let at = At { position: Some(position), stream: stream.as_deref() };
        for fault in faults {
            self.found.note(at, fault);
        }
        match payload {
            Some(Payload::Sound) | None => {}
            Some(Payload::Unread) => self.found.unread += 1,
            Some(Payload::Archived(number)) => {
                self.found.archived += 1;
                if let Err(what) = self.archived(number, position, event_id) {
                    self.found.note(at, what);
                }
            }
        }
        let (Some(stream), Some(version), Some(previous)) = (&stream, version, previous) else {
            return;
        };
        let head = self.streams.entry(self.secret.key_of(stream)).or_default();
        let (last, before) = *head;
        // An event whose predecessor is another than the last one that was read follows one that is lost: the count
        // goes on from what it says. Otherwise it goes on by one, so that a wrong number is one damage and not two.
        let follows = previous == before;
        *head = (if follows { last + 1 } else { version }, position);
        if !follows {
            let what = match (previous, before) {
                (0, before) => format!(
                    "it claims to be the first of its stream, after the event at position {before}"
                ),
                (previous, 0) => format!(
                    "it follows the event at position {previous}, which is not in its stream or is lost"
                ),
                (previous, before) => format!(
                    "it follows the event at position {previous}; the one before it in its stream stands at position {before}"
                ),
            };
            self.found.note(at, what);
        } else if version != last + 1 {
            self.found
                .note(at, format!("it has version {version}, where version {} belongs", last + 1));
        }
    }

    /// Looks an event up in the archive that it was moved to.
    fn archived(
        &mut self,
        number: i64,
        position: u64,
        event_id: Option<Uuid>,
    ) -> Result<(), String> {
        if !self.open.contains_key(&number) {
            let is_first = self.judged.insert(number);
            let opened = self.open_archive(number, is_first);
            if let Err(what) = &opened
                && is_first
            {
                self.found.note(NOWHERE, what.clone());
            }
            if self.open.len() >= OPEN {
                self.open.clear();
            }
            self.open.insert(number, opened.ok());
        }
        let Some(Some(archive)) = self.open.get(&number) else {
            return Err(format!("its payload lies in archive {number}, which cannot be read"));
        };
        let read = || -> rusqlite::Result<Option<Event>> {
            let mut select = archive.prepare_cached(&format!("{ROW} WHERE position = ?"))?;
            let mut rows = select.query([position as i64])?;
            rows.next()?.map(|row| Event::of(row, self.path)).transpose()
        };
        match read() {
            Err(error) => Err(format!("it cannot be read in archive {number}: {error}")),
            Ok(None) => Err(format!("it is missing in archive {number}")),
            Ok(Some(event)) => match (event.faults.first(), event.payload) {
                (Some(fault), _) => Err(format!("in archive {number}: {fault}")),
                _ if event.event_id != event_id => {
                    Err(format!("archive {number} holds another event at its position"))
                }
                (_, Some(Payload::Unread)) => {
                    self.found.unread += 1;
                    Ok(())
                }
                (_, Some(Payload::Archived(_))) => {
                    Err(format!("archive {number} does not hold its payload"))
                }
                _ => Ok(()),
            },
        }
    }

    fn open_archive(&mut self, number: i64, is_first: bool) -> Result<Connection, String> {
        let known = self.archives.iter().find(|known| known.number() == number);
        let known =
            known.ok_or_else(|| format!("the log does not say where archive {number} is"))?;
        let place = known.place().display().to_string();
        if !known.place().exists() {
            return Err(format!("archive {number}, {place}, is missing: put the file back there"));
        }
        let open = || -> Result<(Connection, bool, String), StoreError> {
            let archive = file::connect_to_read(known.place())?;
            let refused = |error| failed(known.place(), error);
            let identity = file::archive_of(&archive).map_err(refused)?;
            let is_ours = self.log_id.is_some_and(|log_id| identity == Some((log_id, known.id())));
            let sound = match is_first {
                true => archive
                    .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
                    .map_err(refused)?,
                false => "ok".to_owned(),
            };
            Ok((archive, is_ours, sound))
        };
        match open() {
            Err(error) => Err(format!("archive {number}: {error}")),
            Ok((_, false, _)) => {
                Err(format!("archive {number}, {place}, is another file: put the right one there"))
            }
            Ok((archive, true, sound)) => {
                if sound != "ok" {
                    self.found.note(NOWHERE, format!("archive {number}, {place}: {sound}"));
                }
                Ok(archive)
            }
        }
    }

    /// Ids that are there twice. The database sorts them, with temporary files for what does not fit into memory.
    fn event_ids(&mut self) -> Result<(), StoreError> {
        self.twice(
            "SELECT position, stream, 'another event has the same id' FROM events WHERE event_id IN \
             (SELECT event_id FROM events GROUP BY event_id HAVING count(*) > 1) ORDER BY position",
        )?;
        // The events of one command stand next to each other.
        self.twice(
            "WITH runs AS MATERIALIZED (SELECT position, stream, command_id FROM (SELECT position, stream, \
             command_id, lag(command_id) OVER (ORDER BY position) AS before FROM events) \
             WHERE command_id IS NOT NULL AND command_id IS NOT before) \
             SELECT position, stream, 'its command id stands in another commit, too' FROM runs \
             WHERE command_id IN (SELECT command_id FROM runs GROUP BY command_id HAVING count(*) > 1) \
             ORDER BY position",
        )
    }

    fn commands(&mut self, last: u64) -> Result<(), StoreError> {
        self.twice(
            "SELECT NULL, stream, 'command number ' || number || ' has an id that another one has, too' \
             FROM commands WHERE id IN (SELECT id FROM commands GROUP BY id HAVING count(*) > 1) \
             OR id IN (SELECT command_id FROM events WHERE command_id IS NOT NULL)",
        )?;
        let mut read = || -> rusqlite::Result<()> {
            let mut select = self.log.prepare(
                "SELECT number, length(id), stream, position FROM commands ORDER BY number",
            )?;
            let mut rows = select.query([])?;
            let mut expected = 1;
            while let Some(row) = rows.next()? {
                self.found.commands += 1;
                let number: i64 = row.get(0)?;
                if number != expected {
                    let what = format!("commands {expected} to {} are missing", number - 1);
                    self.found.note(NOWHERE, what);
                }
                expected = number + 1;
                if row.get::<_, i64>(1)? != 16 {
                    self.found.note(NOWHERE, format!("the id of command {number} is none"));
                }
                let stream: String = row.get(2)?;
                if StreamId::from_stored(&stream).is_none() {
                    self.found.note(NOWHERE, format!("command {number} names stream {stream:?}"));
                }
                if row.get::<_, i64>(3)? as u64 > last {
                    self.found
                        .note(NOWHERE, format!("command {number} stands after the log's end"));
                }
            }
            Ok(())
        };
        match read() {
            Err(error) if is_damage(&error) => {
                self.found.note(NOWHERE, format!("the commands cannot be read: {error}"));
                Ok(())
            }
            other => other.map_err(|error| failed(self.path, error)),
        }
    }

    /// Notes what the statement finds: position, stream, and what is wrong.
    fn twice(&mut self, sql: &str) -> Result<(), StoreError> {
        let found = &mut self.found;
        let mut read = || -> rusqlite::Result<()> {
            let mut select = self.log.prepare(sql)?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let position: Option<i64> = row.get(0)?;
                let stream = row.get_ref(1)?.as_str_or_null().unwrap_or_default();
                let what: String = row.get(2)?;
                found.note(At { position: position.map(|at| at as u64), stream }, what);
            }
            Ok(())
        };
        match read() {
            Err(error) if is_damage(&error) => {
                found.note(NOWHERE, format!("ids cannot be compared: {error}"));
                Ok(())
            }
            other => other.map_err(|error| failed(self.path, error)),
        }
    }
}

/// What a row says, with what is wrong with it alone. What is none could not be read.
struct Event {
    position: u64,
    stream: Option<String>,
    version: Option<u64>,
    previous: Option<u64>,
    event_id: Option<Uuid>,
    payload: Option<Payload>,
    faults: Vec<String>,
}

enum Payload {
    Sound,
    /// In a format that this program was built without.
    Unread,
    Archived(i64),
}

impl Event {
    fn of(row: &Row<'_>, path: &Path) -> rusqlite::Result<Self> {
        let position = row.get::<_, i64>(0)? as u64;
        let mut faults = Vec::new();
        let mut number = |column: usize, name: &str| -> rusqlite::Result<Option<u64>> {
            match row.get_ref(column)?.as_i64() {
                Ok(number) => Ok(Some(number as u64)),
                Err(error) => {
                    faults.push(format!("its {name}: {error}"));
                    Ok(None)
                }
            }
        };
        let (version, previous) = (number(2, "version")?, number(3, "previous position")?);
        number(6, "time")?;
        let schema_version = number(5, "schema version")?;
        if schema_version.is_some_and(|version| u32::try_from(version).is_err()) {
            faults.push("its schema version is out of range".to_owned());
        }
        let stream = row.get_ref(1)?.as_str().ok().map(str::to_owned);
        if stream.as_deref().and_then(StreamId::from_stored).is_none() {
            faults.push(format!("its stream has no valid name: {stream:?}"));
        }
        if !row.get_ref(4)?.as_str().is_ok_and(|name| !name.is_empty()) {
            faults.push("it has no name".to_owned());
        }
        let mut id = |column: usize, name: &str| -> rusqlite::Result<Option<Uuid>> {
            let read = row.get_ref(column)?.as_blob_or_null().ok();
            let id = read.flatten().map(Uuid::from_slice);
            if read.is_none() || matches!(id, Some(Err(_))) || (column == 7 && id.is_none()) {
                faults.push(format!("its {name} is none"));
            }
            Ok(id.and_then(Result::ok))
        };
        let event_id = id(7, "event id")?;
        for (column, name) in [(8, "command id"), (9, "correlation id"), (10, "causation id")] {
            id(column, name)?;
        }
        match row.get_ref(11)?.as_bytes_or_null() {
            Ok(None) => {}
            Ok(Some(json)) => {
                if let Err(error) = serde_json::from_slice::<Metadata>(json) {
                    faults.push(format!("its metadata cannot be parsed: {error}"));
                }
            }
            Err(error) => faults.push(format!("its metadata: {error}")),
        }
        let payload = match stored(row.get_ref(12)?, position, path) {
            Ok(Stored::Archived(number)) => Some(Payload::Archived(number)),
            Ok(Stored::Here(codec, _)) if !codec.is_available() => Some(Payload::Unread),
            // Whoever parses JSON without looking at its texts does not see whether they are any.
            Ok(Stored::Here(Codec::Json, payload)) if std::str::from_utf8(payload).is_err() => {
                faults.push("its payload cannot be parsed: it is not UTF-8".to_owned());
                None
            }
            Ok(Stored::Here(codec, payload)) => match codec.decode::<IgnoredAny>(payload) {
                Ok(_) => Some(Payload::Sound),
                Err(error) => {
                    // What the format says, which names the place within the payload.
                    let error = std::error::Error::source(&error)
                        .map_or_else(|| error.to_string(), ToString::to_string);
                    faults.push(format!("its payload cannot be parsed: {error}"));
                    None
                }
            },
            Err(StoreError::Damaged { what, .. }) => {
                faults.push(what);
                None
            }
            Err(error) => {
                faults.push(error.to_string());
                None
            }
        };
        Ok(Self { position, stream, version, previous, event_id, payload, faults })
    }
}

/// Whether an error is of what stands in the file, and not of reading it.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => matches!(
            code,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TypeMismatch
        ),
        None => true,
    }
}
