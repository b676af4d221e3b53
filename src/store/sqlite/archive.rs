//! Archives: files in the log's own format that take the payloads of closed streams.
//!
//! ```text
//!  bank.db                                       bank-2024.db
//!  position  stream    version  …  payload       position  stream    version  …  payload
//!         7  order-12        1     archive 1 ──▶        7  order-12        1     {"total":…}
//!         8  order-13        1     {"total":…}
//! ```
//! The rows stay in the log, with everything but their payload and metadata: positions, versions, names and ids have no gaps,
//! and nothing that is derived from them changes. A reader that meets such a row fetches the rest from the archive.
//!
//! # Crashes
//! The log takes note of the archive; all rows are written into it, in one transaction that is synced; then the log lets go of
//! them, in small transactions. So what the log has let go of is on the disk elsewhere, wherever a crash comes between. The way
//! back is the same: rows return first, and the file is deleted when that is synced.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::file::{self, damaged, failed};
use super::{Shared, Sqlite};
use crate::codec::Codec;
use crate::store::StoreError;
use crate::stream::{Position, StreamId};

/// How many rows, and about how many bytes, go in one transaction: commits wait for a few milliseconds at most.
const ROWS: usize = 256;
const BYTES: u64 = 1 << 20;

/// How many archives one reader keeps open.
const OPEN: usize = 4;

const ROW: &str = "position, stream, version, previous, name, schema_version, time, event_id, command_id, \
     correlation_id, causation_id, metadata, payload";

/// An archive that a log knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// What stands in the rows of the log. No number is given twice.
    number: i64,
    id: Uuid,
    place: PathBuf,
}

impl Known {
    pub(super) fn number(&self) -> i64 {
        self.number
    }

    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    fn lost(&self, log: &Path, what: &str) -> StoreError {
        StoreError::Archive {
            place: log.display().to_string(),
            archive: self.place.display().to_string(),
            what: what.to_owned(),
        }
    }
}

/// Reads which archives a log knows.
pub(super) fn known(conn: &Connection, log: &Path) -> rusqlite::Result<Vec<Known>> {
    let directory = log.parent().unwrap_or(Path::new(""));
    conn.prepare("SELECT number, id, file FROM archives ORDER BY number")?
        .query_map([], |row| {
            Ok(Known {
                number: row.get(0)?,
                id: Uuid::from_bytes(row.get(1)?),
                // A path that begins at the root is taken as it is.
                place: directory.join(row.get::<_, String>(2)?),
            })
        })?
        .collect()
}

/// What moved into an archive, or back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Archived {
    /// The archive's file.
    pub file: PathBuf,
    /// How many events it holds, or held.
    pub events: u64,
}

/// Why streams were not archived, or an archive was not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// There is nothing in the stream. Nothing was changed.
    #[error("stream {stream} has no event: only streams of the log can be archived")]
    NoSuchStream {
        /// The stream.
        stream: StreamId,
    },
    /// No stream was named, or all of their events lie in archives already. Nothing was changed.
    #[error("there is nothing to archive: all events of these streams lie in archives already")]
    Nothing,
    /// Something else is there. Nothing was changed.
    #[error("{file} is there already and is no archive of these streams: choose another path")]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// The path has to be stored as text. Nothing was changed.
    #[error("{file:?} cannot be written as text: choose another path")]
    NoText {
        /// The path.
        file: PathBuf,
    },
    /// The log knows of no archive there. Nothing was changed.
    #[error("{file} is no archive of this log: `Sqlite::archives` lists them")]
    Unknown {
        /// The file.
        file: PathBuf,
    },
    /// A file could not be read or written. All events are readable as before; try again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Sqlite {
    /// Moves the payloads and metadata of whole streams into a new archive at `path`, and frees their room in the log.
    ///
    /// It is meant for streams that are closed: of an order that was delivered, an account that was closed. They are read as
    /// before, from the archive, at the price of a second look-up for each event; positions, versions, names and ids stay in
    /// the log. New events may still be appended, and stay in the log until the stream is archived again, to another path.
    ///
    /// A relative path begins at the log's directory, so that log and archives can be moved together. The archive has to stay
    /// there; what is archived is not in a copy of the log alone. Its file never changes.
    ///
    /// The log lets go of the rows in small transactions, between which commits go on. The room is used for new events; the
    /// file itself becomes smaller with [`vacuum`](Self::vacuum) only. It blocks: call it from a thread that may wait. To call it
    /// while an app runs, open the log as an `Arc<Sqlite>` and give the app a clone.
    ///
    /// # Crashes
    /// All events are readable after a crash at any moment. Call it again with the same streams and path to go on, or
    /// [`restore`](Self::restore) the archive.
    ///
    /// # Errors
    /// [`ArchiveError`].
    ///
    /// # Examples
    /// ```
    /// use tidings::{Commit, EventStore, ExpectedVersion, Header, Recorded, Sqlite, StreamId, Timestamp};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// let log = Sqlite::open(directory.path().join("shop.db"))?;
    /// let order = StreamId::new("order", "12")?;
    /// let header = Header::new(order.clone(), "order.delivered", 1, Timestamp::from_micros(0));
    /// let delivered = Recorded { header, payload: br#"{"to":"Ada"}"#.as_slice().into() };
    /// log.commit(&mut [Commit::new().append(order.clone(), ExpectedVersion::Any, vec![delivered])])?;
    ///
    /// let archived = log.archive(&[order], "shop-2024.db")?;
    /// assert_eq!(archived.events, 1);
    /// assert_eq!(log.restore("shop-2024.db")?.events, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn archive(
        &self,
        streams: &[StreamId],
        path: impl AsRef<Path>,
    ) -> Result<Archived, ArchiveError> {
        let path = path.as_ref();
        let stored =
            path.to_str().ok_or_else(|| ArchiveError::NoText { file: path.to_path_buf() })?;
        let _alone = self.archiving.lock();
        let mut positions = Vec::new();
        for stream in streams {
            let of_stream = self.readers.positions_of(stream)?;
            if of_stream.is_empty() {
                return Err(ArchiveError::NoSuchStream { stream: stream.clone() });
            }
            positions.extend(of_stream);
        }
        positions.sort_unstable();
        positions.dedup();
        let log = file::connect_to_read(&self.shared.files.log)?;
        let place = self.place(path);
        let known = match self.shared.archive_at(&place) {
            Some(known) => known,
            None => {
                if self.shared.files.are_taken(&place) || place.symlink_metadata().is_ok() {
                    return Err(ArchiveError::Exists { file: place });
                }
                positions = self.still_here(&log, positions)?;
                if positions.is_empty() {
                    return Err(ArchiveError::Nothing);
                }
                self.register(stored, &place)?
            }
        };
        if let Err(error) = self.fill(&known, &log, &positions) {
            // Only what nothing refers to is taken back; if even that fails, the same call goes on from here.
            let is_full = matches!(&error, ArchiveError::Store(StoreError::Full { .. }));
            // What is there for another reason may be somebody else's file.
            if is_full || matches!(place.try_exists(), Ok(false)) {
                let _ = self.withdraw(&known, &log);
            }
            return Err(error);
        }
        let events = self.let_go(&known)?;
        Ok(Archived { file: place, events })
    }

    /// Brings the events of the archive at `path` back into the log, and deletes the file.
    ///
    /// A copy of the log knows the archive as well: at the same place, if its path began at the root. It cannot read those events
    /// when the file is deleted.
    ///
    /// They come back in small transactions, between which commits go on. It blocks: call it from a thread that may wait.
    ///
    /// # Crashes
    /// All events are readable after a crash at any moment. Call it again to go on.
    ///
    /// # Errors
    /// [`ArchiveError::Unknown`] if the log knows of no archive there, [`ArchiveError::Store`].
    pub fn restore(&self, path: impl AsRef<Path>) -> Result<Archived, ArchiveError> {
        let _alone = self.archiving.lock();
        let place = self.place(path.as_ref());
        let known = self
            .shared
            .archive_at(&place)
            .ok_or_else(|| ArchiveError::Unknown { file: place.clone() })?;
        let log = file::connect_to_read(&self.shared.files.log)?;
        let is_there = place.try_exists().map_err(|error| file::io_failed(&place, error))?;
        let events = match is_there && self.is_filled(&known)? {
            true => self.take_back(&known)?,
            false => 0,
        };
        self.withdraw(&known, &log)?;
        Ok(Archived { file: place, events })
    }

    /// The files of the archives that events of this log lie in.
    pub fn archives(&self) -> Vec<PathBuf> {
        self.shared.archives.read().iter().map(|known| known.place.clone()).collect()
    }

    /// Gives room that is free within the log back to the file system, by writing the log's file anew.
    ///
    /// Commits wait meanwhile, readers do not. Until it is done it takes as much room as the log will have, twice: beside the log and
    /// among the temporary files. While another program reads the log, its write-ahead log may keep that room. It is of use after [`archive`](Self::archive): no event ever leaves the log otherwise.
    ///
    /// # Errors
    /// [`StoreError`]; the log is as before.
    pub fn vacuum(&self) -> Result<(), StoreError> {
        let _alone = self.archiving.lock();
        self.writer.lock().vacuum()
    }

    fn place(&self, path: &Path) -> PathBuf {
        let directory = self.shared.files.log.parent().unwrap_or(Path::new(""));
        directory.join(path)
    }

    /// Those of `positions` whose payloads lie in the log itself.
    fn still_here(&self, log: &Connection, positions: Vec<u64>) -> Result<Vec<u64>, StoreError> {
        let path = &self.shared.files.log;
        let mut select = log
            .prepare("SELECT 1 FROM events WHERE position = ? AND typeof(payload) <> 'integer'")
            .map_err(|error| failed(path, error))?;
        let mut here = Vec::with_capacity(positions.len());
        for position in positions {
            if select.exists([position as i64]).map_err(|error| failed(path, error))? {
                here.push(position);
            }
        }
        Ok(here)
    }

    /// Takes note of a new archive: from then on, rows may refer to it.
    fn register(&self, stored: &str, place: &Path) -> Result<Known, StoreError> {
        let id = crate::id::fresh();
        // Synced, so that no power cut leaves a file of which the log knows nothing.
        let number = self.writer.lock().maintain_synced(|log| {
            let number: i64 = log.query_row(
                "SELECT coalesce((SELECT value FROM meta WHERE key = 'last_archive'), 0) + 1",
                [],
                |row| row.get(0),
            )?;
            log.execute("INSERT OR REPLACE INTO meta VALUES ('last_archive', ?)", [number])?;
            // An earlier try may have reached the log though it failed. No row refers to what nobody knew of.
            log.execute("DELETE FROM archives WHERE file = ?", [stored])?;
            log.execute(
                "INSERT INTO archives VALUES (?, ?, ?)",
                params![number, id.as_bytes(), stored],
            )?;
            Ok(number)
        })?;
        let known = Known { number, id, place: place.to_path_buf() };
        self.shared.archives.write().push(known.clone());
        Ok(known)
    }

    /// Forgets an archive that no row refers to, and deletes its file.
    fn withdraw(&self, known: &Known, log: &Connection) -> Result<(), StoreError> {
        // What a crash must not undo when the file is gone: the rows that came back.
        self.writer.lock().maintain_synced(|log| {
            log.execute("UPDATE archives SET file = file WHERE number = ?", [known.number])
        })?;
        if self.is_needed(known, log)? {
            return Err(known.lost(
                &self.shared.files.log,
                "does not hold all that the log has moved there: put the right file there",
            ));
        }
        for suffix in ["", "-journal"] {
            match std::fs::remove_file(file::beside(&known.place, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file::io_failed(&known.place, error));
                }
                _ => {}
            }
        }
        self.writer
            .lock()
            .maintain(|log| log.execute("DELETE FROM archives WHERE number = ?", [known.number]))?;
        self.shared.archives.write().retain(|other| other != known);
        // A file that somebody has open takes its room until it is closed.
        self.readers.close_idle();
        Ok(())
    }

    /// Whether anything was written into the archive's file. A transaction that a crash has left in it is undone first, which
    /// whoever only reads cannot do.
    fn is_filled(&self, known: &Known) -> Result<bool, StoreError> {
        let is_new = file::connect_to_write(&known.place).and_then(|file| file::is_new(&file));
        match is_new.map_err(|error| failed(&known.place, error)) {
            Err(StoreError::Foreign { .. }) => Err(known.lost(&self.shared.files.log, FOREIGN)),
            is_new => Ok(!is_new?),
        }
    }

    /// Whether a row of the log refers to the archive.
    fn is_needed(&self, known: &Known, log: &Connection) -> Result<bool, StoreError> {
        log.prepare("SELECT 1 FROM events WHERE typeof(payload) = 'integer' AND payload = ?")
            .and_then(|mut select| select.exists([known.number]))
            .map_err(|error| failed(&self.shared.files.log, error))
    }

    /// Writes the rows at `positions` into the archive, all in one synced transaction, or sees that they are in it.
    fn fill(&self, known: &Known, log: &Connection, positions: &[u64]) -> Result<(), ArchiveError> {
        let path = &self.shared.files.log;
        let refused = |error| failed(&known.place, error);
        let is_there =
            known.place.try_exists().map_err(|error| file::io_failed(&known.place, error))?;
        if !is_there && self.is_needed(known, log)? {
            return Err(known.lost(path, MISSING).into());
        }
        let mut archive = file::connect_to_write(&known.place).map_err(refused)?;
        if !file::is_new(&archive).map_err(refused)? {
            check_identity(&archive, known, &self.shared)?;
            let mut select =
                archive.prepare("SELECT 1 FROM events WHERE position = ?").map_err(refused)?;
            for position in self.still_here(log, positions.to_vec())? {
                if !select.exists([position as i64]).map_err(refused)? {
                    return Err(ArchiveError::Exists { file: known.place.clone() });
                }
            }
            // Whoever wrote it may have ended before it had done this.
            return Ok(sync(&known.place)?);
        }
        archive.pragma_update(None, "synchronous", "FULL").map_err(refused)?;
        let tx = archive.transaction().map_err(refused)?;
        file::create_archive(&tx, self.log_id, known.id).map_err(refused)?;
        {
            let mut insert = tx
                .prepare(&format!(
                    "INSERT INTO events ({ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                ))
                .map_err(refused)?;
            let mut select = log
                .prepare(&format!(
                    "SELECT {ROW} FROM events WHERE position = ? AND typeof(payload) <> 'integer'"
                ))
                .map_err(|error| failed(path, error))?;
            for position in positions {
                let mut rows =
                    select.query([*position as i64]).map_err(|error| failed(path, error))?;
                let Some(row) = rows.next().map_err(|error| failed(path, error))? else {
                    continue;
                };
                for column in 0..13 {
                    let value = row.get_ref(column).map_err(|error| failed(path, error))?;
                    insert
                        .raw_bind_parameter(column + 1, ToSqlOutput::Borrowed(value))
                        .map_err(refused)?;
                }
                insert.raw_execute().map_err(refused)?;
            }
        }
        tx.commit().map_err(refused)?;
        drop(archive);
        sync(&known.place)?;
        Ok(())
    }

    /// Leaves of each row in the archive only where it lies.
    fn let_go(&self, known: &Known) -> Result<u64, StoreError> {
        self.each_batch(known, "NULL, length(payload)", &mut |log, rows| {
            let mut select = log.prepare_cached(
                "SELECT position, stream, version, previous, name, schema_version, time, event_id, \
                 command_id, correlation_id, causation_id FROM events \
                 WHERE position = ? AND event_id = ? AND typeof(payload) <> 'integer'",
            )?;
            // A row that is written over stays on its page, with the room that it does not take any more; a deleted one
            // lets its page be merged with the next, so that whole pages become free.
            let mut delete = log.prepare_cached("DELETE FROM events WHERE position = ?")?;
            let mut insert = log.prepare_cached(&format!(
                "INSERT INTO events ({ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)"
            ))?;
            for Moving { position, event_id, .. } in rows {
                let kept: Option<Vec<Raw>> = select
                    .query_row(params![position, event_id], |row| {
                        (0..11).map(|column| row.get(column)).collect()
                    })
                    .optional()?;
                let Some(kept) = kept else { continue };
                delete.execute([position])?;
                for (column, value) in kept.iter().enumerate() {
                    insert.raw_bind_parameter(column + 1, value)?;
                }
                insert.raw_bind_parameter(12, known.number)?;
                insert.raw_execute()?;
            }
            Ok(())
        })
    }

    /// Brings the rows of the archive back into the log.
    fn take_back(&self, known: &Known) -> Result<u64, StoreError> {
        self.each_batch(known, "metadata, payload", &mut |log, rows| {
            let mut update = log.prepare_cached(
                "UPDATE events SET metadata = ?, payload = ? \
                 WHERE position = ? AND event_id = ? AND typeof(payload) = 'integer' AND payload = ?",
            )?;
            for Moving { position, event_id, metadata, payload } in rows {
                update.execute(params![metadata, payload, position, event_id, known.number])?;
            }
            Ok(())
        })
    }

    /// Hands all rows of the archive to `work`, in batches, each within a transaction of the log.
    fn each_batch(
        &self,
        known: &Known,
        columns: &str,
        work: &mut dyn FnMut(&Connection, &[Moving]) -> rusqlite::Result<()>,
    ) -> Result<u64, StoreError> {
        let refused = |error| failed(&known.place, error);
        let archive = file::connect_to_read(&known.place)?;
        check_identity(&archive, known, &self.shared)?;
        let mut select = archive
            .prepare(&format!("SELECT position, event_id, {columns} FROM events ORDER BY position"))
            .map_err(refused)?;
        let mut rows = select.query([]).map_err(refused)?;
        let (mut batch, mut bytes, mut events) = (Vec::new(), 0, 0);
        loop {
            let row = rows.next().map_err(refused)?;
            let is_last = row.is_none();
            if let Some(row) = row {
                let moving = Moving::of(row).map_err(refused)?;
                bytes += moving.bytes();
                events += 1;
                batch.push(moving);
            }
            if is_last || batch.len() >= ROWS || bytes >= BYTES {
                self.writer.lock().maintain(|log| work(log, &batch))?;
                batch.clear();
                bytes = 0;
            }
            if is_last {
                return Ok(events);
            }
        }
    }
}

/// What is moved of a row.
struct Moving {
    position: i64,
    event_id: Vec<u8>,
    metadata: Raw,
    /// Or its length alone.
    payload: Raw,
}

impl Moving {
    fn of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            position: row.get(0)?,
            event_id: row.get(1)?,
            metadata: row.get(2)?,
            payload: row.get(3)?,
        })
    }

    fn bytes(&self) -> u64 {
        match &self.payload {
            Raw::Text(bytes) | Raw::Blob(bytes) => bytes.len() as u64,
            Raw::Integer(length) => length.unsigned_abs(),
            Raw::Null | Raw::Real(_) => 0,
        }
    }
}

/// A value of a row as it stands there: text is what the log says is text, whether it is or not.
enum Raw {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl FromSql for Raw {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(text) => Self::Text(text.to_vec()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        })
    }
}

impl ToSql for Raw {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Shared {
    fn archive_at(&self, place: &Path) -> Option<Known> {
        self.archives.read().iter().find(|known| known.place == place).cloned()
    }
}

const MISSING: &str = "is missing: put the file back there";
const FOREIGN: &str = "is the file of another archive, or of another log: put the right one there";

/// Sees that a file is the archive that the log means.
fn check_identity(archive: &Connection, known: &Known, shared: &Shared) -> Result<(), StoreError> {
    let log = &shared.files.log;
    match file::archive_of(archive) {
        Ok(Some((log_id, id))) if log_id == shared.log_id && id == known.id => Ok(()),
        Ok(_) => Err(known.lost(log, FOREIGN)),
        Err(error) => match failed(&known.place, error) {
            StoreError::Foreign { .. } => Err(known.lost(log, FOREIGN)),
            error => Err(error),
        },
    }
}

/// Syncs a file, and that it is in its directory.
fn sync(place: &Path) -> Result<(), StoreError> {
    let synced = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    let directory = place.parent().filter(|parent| !parent.as_os_str().is_empty());
    synced(place)
        .and_then(|()| synced(directory.unwrap_or(Path::new("."))))
        .map_err(|error| file::io_failed(place, error))
}

/// The archives that a reader has open: the one it used last stands last.
#[derive(Default)]
pub(super) struct Archives {
    open: Vec<(Known, Connection)>,
}

/// What an archive holds of an event.
pub(super) struct Fetched {
    /// As JSON, if there is any.
    pub(super) metadata: Option<Vec<u8>>,
    pub(super) codec: Codec,
    pub(super) payload: std::sync::Arc<[u8]>,
}

impl Archives {
    /// Fetches what the archive of this number holds of the event at `position`.
    #[cold]
    pub(super) fn fetch(
        &mut self,
        shared: &Shared,
        number: i64,
        position: u64,
        event_id: Uuid,
    ) -> Result<Fetched, StoreError> {
        let (known, archive) = self.opened(shared, number)?;
        let refused = |error| failed(&known.place, error);
        let mut select = archive
            .prepare_cached(
                "SELECT metadata, payload FROM events WHERE position = ? AND event_id = ?",
            )
            .map_err(refused)?;
        let mut rows =
            select.query(params![position as i64, event_id.as_bytes()]).map_err(refused)?;
        let row = rows.next().map_err(refused)?.ok_or_else(|| {
            damaged(&known.place, format!("the event at position {position} is missing"))
        })?;
        let metadata = row.get_ref(0).map_err(refused)?.as_bytes_or_null().map_err(|error| {
            damaged(&known.place, format!("metadata of the event at position {position}: {error}"))
        })?;
        match stored(row.get_ref(1).map_err(refused)?, position, &known.place)? {
            Stored::Here(codec, payload) => Ok(Fetched {
                metadata: metadata.map(<[u8]>::to_vec),
                codec,
                payload: payload.into(),
            }),
            Stored::Archived(_) => Err(damaged(
                &known.place,
                format!("the payload of the event at position {position} is missing"),
            )),
        }
    }

    fn opened(&mut self, shared: &Shared, number: i64) -> Result<&(Known, Connection), StoreError> {
        if let Some(at) = self.open.iter().position(|(known, _)| known.number == number) {
            let found = self.open.remove(at);
            self.open.push(found);
        } else {
            let known = shared.archives.read().iter().find(|known| known.number == number).cloned();
            let known = known.ok_or_else(|| StoreError::Archive {
                place: shared.files.log.display().to_string(),
                archive: format!("number {number}"),
                what: "the log does not know: restore the log from a backup".to_owned(),
            })?;
            let is_there =
                known.place.try_exists().map_err(|error| file::io_failed(&known.place, error))?;
            if !is_there {
                return Err(known.lost(&shared.files.log, MISSING));
            }
            let archive = file::connect_to_read(&known.place).map_err(|error| {
                match known.place.exists() {
                    true => error,
                    // It was restored since it was looked for.
                    false => known.lost(&shared.files.log, MISSING),
                }
            })?;
            check_identity(&archive, &known, shared)?;
            if self.open.len() >= OPEN {
                self.open.remove(0);
            }
            self.open.push((known, archive));
        }
        let gone = || damaged(&shared.files.log, format!("archive {number} cannot be opened"));
        self.open.last().ok_or_else(gone)
    }
}

/// A payload as it stands in a row.
pub(super) enum Stored<'a> {
    Here(Codec, &'a [u8]),
    /// In the archive of this number.
    Archived(i64),
}

/// What stands in the column of the payload.
#[inline]
pub(super) fn stored<'a>(
    value: ValueRef<'a>,
    position: u64,
    path: &Path,
) -> Result<Stored<'a>, StoreError> {
    match value {
        ValueRef::Text(json) => Ok(Stored::Here(Codec::Json, json)),
        ValueRef::Blob([tag, payload @ ..]) => match file::of_tag(*tag) {
            Some(codec) => Ok(Stored::Here(codec, payload)),
            None => Err(StoreError::Format {
                place: format!(
                    "{}: the payload at position {}",
                    path.display(),
                    Position::new(position)
                ),
                found: i64::from(*tag),
                known: file::FORMAT,
                advice: "open the log with the version that wrote it, or a newer one",
            }),
        },
        ValueRef::Integer(number) => Ok(Stored::Archived(number)),
        ValueRef::Blob([]) | ValueRef::Null | ValueRef::Real(_) => Err(damaged(
            path,
            format!("the payload of the event at position {position} has no format"),
        )),
    }
}
