//! The log in an SQLite database.
//!
//! One file holds the log and can be read with any SQLite tool: table `events`, a row for each event in commit order,
//! the payload as JSON text, or as a blob whose first byte names its format: 1 MessagePack, 2 CBOR. Beside it lie an index that
//! can be derived from it, a lock file, and SQLite's own
//! write-ahead log:
//!
//! ```text
//! bank.db         the log: events, commands without events          append-only, no secondary index
//!                 snapshots                                         may be deleted
//! bank.index.db   where streams end, where commands stand           derived; may be deleted while the log is closed
//! bank.views.db   the views of table projections                    derived; built anew if deleted
//! bank.keys.db    the keys of personal data, if there is any         not derived: without it that data is gone
//! bank.db.lock    held while the log is open, by one process
//! ```
//! Payloads of closed streams may lie in [archives](Sqlite::archive), files that are as much a part of the log as its own.
//!
//! A commit appends to the log and to maps in memory, nothing else: an index that is kept up within the commit costs
//! a random page for each stream, three to eight times as much as the events themselves. A thread of the store moves what
//! the maps gathered into the index file, sorted, and in few large transactions.
//!
//! # Crashes
//! The log is a prefix of whole commits with everything acknowledged. The index says through which position it has come;
//! what is younger is read from the log when it is opened. An index that is missing, damaged, of another log, or ahead
//! of a log that was restored from a backup is written anew. No answer ever depends on it.
//!
//! # A full disk
//! A commit that finds no room fails with [`StoreError::Full`] and leaves nothing behind. When there is room again the
//! next one succeeds; the log need not be opened again.
//!
//! # Other programs
//! They may read the file while the log is open. They must not write it.

mod archive;
mod check;
pub(crate) mod file;
mod flusher;
mod index;
mod reader;
mod snapshots;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

pub use self::archive::{ArchiveError, Archived};
pub use self::check::{Checked, Damage};
use self::file::{Files, Identity, Lock, failed};
use self::flusher::{Flusher, Signals};
use self::index::{IndexWriter, Indexed};
use self::reader::Readers;
use self::snapshots::Pending;
use self::tail::{Generation, Secret, Tail, Through};
use self::writer::{Writer, catch_up};
use super::{
    Commit, Committed, Durability, EventStore, Filter, KnownCommand, Page, Refused, Snapshot,
    StoreError,
};
use crate::clock::Timestamp;
use crate::event::Recorded;
use crate::id::{CommandId, CorrelationId};
use crate::stream::{Position, StreamId, Version};

/// A log in an SQLite database, open.
///
/// Commits are durable in the mode it was opened with, [`Durability::Fsync`] unless
/// [said otherwise](SqliteOptions::durability). Reads use connections of their own; they neither wait for commits nor
/// hold them up. Dropping it closes the log.
///
/// # Examples
/// ```
/// use tidings::{Durability, EventStore, Sqlite};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("bank.db");
/// let log = Sqlite::open(&path)?;
/// assert_eq!(log.durability(), Durability::Fsync);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the log is closed when this is dropped"]
pub struct Sqlite {
    // In the order in which they are to be dropped. The last connection to a file empties its write-ahead log, and one that
    // only reads cannot: so the readers go before the writer, the flusher, which writes the index, after both.
    readers: Readers,
    writer: Mutex<Writer>,
    _flusher: Flusher,
    shared: Arc<Shared>,
    durability: Durability,
    log_id: Uuid,
    /// Held by whoever moves events into an archive or out of one.
    archiving: Mutex<()>,
    _lock: Lock,
}

/// How to open a log.
#[derive(Debug, Clone)]
#[must_use = "nothing is opened until `open` is called"]
pub struct SqliteOptions {
    durability: Durability,
    readers: usize,
    tail: usize,
    log_id: Option<Uuid>,
}

/// What the writer, the readers and the flusher have in common.
struct Shared {
    files: Files,
    secret: Secret,
    log_id: Uuid,
    /// How much the tail gathers before it goes to the index.
    generation: usize,
    tail: RwLock<Tail>,
    /// The position of the last event that readers may see. Set while the tail is locked.
    head: AtomicU64,
    signals: Signals,
    snapshots: Pending,
    /// Before a row refers to one, and as long as one may.
    archives: RwLock<Vec<archive::Known>>,
}

impl Sqlite {
    /// Opens the log at `path`, or makes one there; the directory must exist.
    ///
    /// # Errors
    /// As [`SqliteOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::options().open(path)
    }

    /// Opens a log in another way than the default.
    pub fn options() -> SqliteOptions {
        SqliteOptions {
            durability: Durability::Fsync,
            readers: 4,
            tail: tail::GENERATION,
            log_id: None,
        }
    }
}

impl SqliteOptions {
    /// What an acknowledged commit survives. [`Durability::Memory`] means [`Durability::Os`] here: a file outlives the
    /// process in any case.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability.max(Durability::Os);
        self
    }

    /// How many connections for reading are kept open, 4 unless set; when more threads read at once, more are opened
    /// for the moment.
    pub fn readers(mut self, kept: usize) -> Self {
        self.readers = kept;
        self
    }

    /// How many streams or commands, whichever are more, are kept in memory before the index takes them in; 131,072 unless
    /// set.
    ///
    /// The store holds up to four times as many for a moment, at about 70 bytes each, and the heads of four times as many
    /// as a cache, at about 40. More make commits to very many
    /// streams cheaper, fewer save memory and the time to open a log after a crash.
    pub fn tail(mut self, entries: usize) -> Self {
        self.tail = entries.max(1);
        self
    }

    /// The identity of the log: one that is made gets it, and one that is there must have it.
    ///
    /// A new log has one of its own unless this is set, and refuses the views and the keys of personal data of another. Set it to that
    /// of a whole log that is imported into the new one, and its files can be put beside it.
    pub fn log_id(mut self, log_id: Uuid) -> Self {
        self.log_id = Some(log_id);
        self
    }

    /// Opens the log at `path`, or makes one there; the directory must exist.
    ///
    /// Reads the newest events if the log was not closed properly, and all events if its index is missing: two or three
    /// seconds for each million.
    ///
    /// # Errors
    /// - [`StoreError::Locked`]: it is open already, in this process or in another.
    /// - [`StoreError::Foreign`], [`StoreError::Format`]: the file belongs to another program, to another version, or is a log of
    ///   another identity than the one that was [asked for](Self::log_id).
    /// - [`StoreError::ReadOnly`], [`StoreError::Full`]: the place cannot be written to.
    /// - [`StoreError::Damaged`]: the log contradicts itself.
    /// - [`StoreError::Failed`]: anything else, such as a directory that does not exist.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Sqlite, StoreError> {
        let files = Files::at(path.as_ref())?;
        let lock = files.lock()?;
        let (log, identity) = match file::open_log(&files.log, self.durability, self.log_id) {
            Ok(opened) => opened,
            Err(error) => {
                lock.withdraw();
                return Err(error);
            }
        };
        let archives =
            archive::known(&log, &files.log).map_err(|error| failed(&files.log, error))?;
        let (mut index, indexed) = open_index(&files, &log, &identity)?;
        let shared = Arc::new(Shared {
            files,
            secret: identity.secret,
            log_id: identity.log_id,
            generation: self.tail,
            tail: RwLock::new(Tail::new(self.tail, Generation::default(), Uuid::nil())),
            head: AtomicU64::new(0),
            signals: Signals::default(),
            snapshots: Pending::default(),
            archives: RwLock::new(archives),
        });
        let through = shared.load(&log, &mut index, indexed)?;
        let flusher =
            Flusher::start(Arc::clone(&shared), index).map_err(|error| StoreError::Failed {
                place: shared.files.index.display().to_string(),
                source: error.into(),
            })?;
        Ok(Sqlite {
            _flusher: flusher,
            writer: Mutex::new(Writer::new(Arc::clone(&shared), self.durability, log, through)?),
            readers: Readers::new(Arc::clone(&shared), self.readers),
            shared,
            durability: self.durability,
            log_id: identity.log_id,
            archiving: Mutex::new(()),
            _lock: lock,
        })
    }
}

impl EventStore for Sqlite {
    fn commit(&self, group: &mut [Commit]) -> Result<Vec<Result<Committed, Refused>>, StoreError> {
        self.writer.lock().commit(group)
    }

    fn head(&self) -> Result<Position, StoreError> {
        Ok(Position::new(self.shared.head()))
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        each: &mut dyn FnMut(Recorded) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.readers.stream(stream, after, each)
    }

    fn read_log(&self, after: Position, filter: &Filter, limit: usize) -> Result<Page, StoreError> {
        self.readers.log(after, filter, limit)
    }

    fn read_story(
        &self,
        story: CorrelationId,
        after: Position,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.readers.story(story, after, limit)
    }

    fn position_at(&self, time: Timestamp) -> Result<Position, StoreError> {
        self.readers.position_at(time)
    }

    fn find_command(&self, id: CommandId) -> Result<Option<KnownCommand>, StoreError> {
        self.readers.command(id)
    }

    fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        self.readers.snapshot(stream)
    }

    fn save_snapshots(&self, snapshots: Vec<Snapshot>) -> Result<(), StoreError> {
        if self.shared.snapshots.add(snapshots) {
            return self.writer.lock().write_snapshots();
        }
        Ok(())
    }

    fn delete_snapshots(&self) -> Result<(), StoreError> {
        self.writer.lock().delete_snapshots()
    }

    fn commands_without_events(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(CommandId, KnownCommand)>, StoreError> {
        self.readers.commands_without_events(after, limit)
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn log_id(&self) -> Uuid {
        self.log_id
    }

    fn views_beside(&self) -> Option<PathBuf> {
        Some(self.shared.files.views.clone())
    }

    fn keys_beside(&self) -> Option<PathBuf> {
        Some(self.shared.files.keys.clone())
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        if let Err(error) = self.writer.get_mut().write_snapshots() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the last snapshots cannot be written and are dropped"
            );
        }
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite")
            .field("log", &self.shared.files.log)
            .field("id", &self.log_id)
            .field("durability", &self.durability)
            .field("head", &self.shared.head())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    fn set_head(&self, position: u64) {
        self.head.store(position, Ordering::Release);
    }

    fn flush_soon(&self) {
        self.signals.want();
    }

    /// Waits until the tail can take another group: memory is bounded by what the index has not taken yet.
    fn make_room(&self) -> Result<(), StoreError> {
        while self.tail.read().is_full() {
            self.signals.attempt()?;
        }
        Ok(())
    }

    /// Brings the tail to the end of the log, through the index if it lacks much.
    fn load(
        &self,
        log: &Connection,
        index: &mut IndexWriter,
        indexed: Indexed,
    ) -> Result<Through, StoreError> {
        let mut generation = Generation {
            through: indexed.through,
            newest: indexed.newest,
            ..Generation::default()
        };
        let mut newest = indexed.newest;
        let before = indexed.through.position;
        catch_up(log, self, &mut generation, &mut |full| {
            index.flush(full).map_err(|error| failed(&self.files.index, error))?;
            newest = full.newest;
            full.heads.clear();
            full.commands.clear();
            Ok(())
        })?;
        let through = generation.through;
        if through.position > before {
            tracing::info!(
                log = %self.files.log.display(),
                after = before,
                through = through.position,
                "read what the index lacked"
            );
        }
        let mut tail = self.tail.write();
        *tail = Tail::new(self.generation, generation, newest);
        self.set_head(through.position);
        Ok(through)
    }
}

/// Opens the index, and begins it anew if it is not one of this log.
fn open_index(
    files: &Files,
    log: &Connection,
    identity: &Identity,
) -> Result<(IndexWriter, Indexed), StoreError> {
    let why = match IndexWriter::open(&files.index, identity.log_id) {
        Err(error) => error.to_string(),
        Ok(None) => "it is of another format".to_owned(),
        Ok(Some((_, indexed))) if indexed.log_id != identity.log_id => {
            "it belongs to another log".to_owned()
        }
        Ok(Some((index, indexed))) => {
            if holds(log, &indexed.through).map_err(|error| failed(&files.log, error))? {
                return Ok((index, indexed));
            }
            "it has seen events that the log does not hold: the log was restored, or lost its end"
                .to_owned()
        }
    };
    // What is not ours is not ours to delete, though it bears the name that the index should have.
    if !files.index_is_ours()? {
        return Err(StoreError::Foreign {
            place: files.index.display().to_string(),
            kind: "index; move it away to have one written",
        });
    }
    tracing::warn!(index = %files.index.display(), why, "writing the index anew");
    files.delete_index()?;
    IndexWriter::open(&files.index, identity.log_id)
        .map_err(|error| failed(&files.index, error))?
        .ok_or_else(|| file::damaged(&files.index, "it cannot be written anew".to_owned()))
}

/// Whether the log holds what stands at the end of `through`.
fn holds(log: &Connection, through: &Through) -> rusqlite::Result<bool> {
    let is_there = |sql: &str, number: u64, id: Uuid| -> rusqlite::Result<bool> {
        if number == 0 {
            return Ok(true);
        }
        let found: Option<[u8; 16]> =
            log.query_row(sql, [number as i64], |row| row.get(0)).optional()?;
        Ok(found.map(Uuid::from_bytes) == Some(id))
    };
    Ok(is_there("SELECT event_id FROM events WHERE position = ?", through.position, through.event)?
        && is_there("SELECT id FROM commands WHERE number = ?", through.bare, through.bare_id)?)
}
