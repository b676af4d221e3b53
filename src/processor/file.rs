//! The file beside the log in which consumers keep what they know: views in tables, checkpoints, letters.
//!
//! All consumers of an app share it. It is in WAL mode with `synchronous=NORMAL`: after a power cut it may be a little older,
//! and what came after is handled again.
//!
//! # One writer at a time
//! SQLite admits one writer, and lets others poll for their turn. The consumers of an app take turns by a lock of their own
//! instead, which hands over at once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use tracing::{info, warn};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::letters::rows;
use crate::store::StoreError;
use crate::stream::Position;

/// What marks a file as a file of views: "TIDV".
const APPLICATION_ID: i64 = 0x5449_4456;

/// The format of the file's own tables. Format 1 had no letters.
const FORMAT: i64 = 2;

/// How long a write waits for another program that writes to the file, before the consumer says that it tries again.
const BUSY: Duration = Duration::from_secs(1);

/// The file; a handle to it.
#[derive(Debug, Clone)]
pub(crate) struct ViewsFile {
    place: Place,
    turn: Arc<Mutex<()>>,
}

/// Where the file is.
#[derive(Debug, Clone)]
enum Place {
    Path(PathBuf),
    /// In memory, under the log's identity, for as long as a connection is open.
    Memory(Uuid),
}

impl ViewsFile {
    /// The file at `path`; without one, in memory for the log of this identity.
    pub(crate) fn new(path: Option<PathBuf>, log_id: Uuid) -> Self {
        let place = path.map_or(Place::Memory(log_id), Place::Path);
        Self { place, turn: Arc::default() }
    }

    /// Waits for the turn to write; it ends with the guard.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    pub(crate) fn read_only(&self) -> rusqlite::Result<Connection> {
        self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn connect(&self, access: OpenFlags) -> rusqlite::Result<Connection> {
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match &self.place {
            Place::Path(path) => Connection::open_with_flags(path, flags)?,
            Place::Memory(log) => Connection::open_with_flags(
                Path::new(&format!("file:/tidings-views-{log}?vfs=memdb")),
                flags | OpenFlags::SQLITE_OPEN_URI,
            )?,
        };
        connection.busy_timeout(BUSY)?;
        Ok(connection)
    }

    /// A connection that keeps views in memory alive when their projections have ended.
    pub(crate) fn anchor(&self) -> rusqlite::Result<Option<Mutex<Connection>>> {
        match self.place {
            Place::Path(_) => Ok(None),
            Place::Memory(_) => self.read_only().map(|open| Some(Mutex::new(open))),
        }
    }

    /// Opens the file for writing, and makes it one of views if it is new.
    pub(crate) fn open(&self) -> Result<Connection, StoreError> {
        let _turn = self.turn();
        let access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = self.connect(access).map_err(|error| self.failed(error))?;
        let number = |pragma: &str| {
            connection
                .pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
                .map_err(|error| self.failed(error))
        };
        let (application, format) = (number("application_id")?, number("user_version")?);
        let tables = objects(&connection).map_err(|error| self.failed(error))?;
        // A file without stamps and tables is new, or was begun by a program that was killed.
        let is_new = (application, format) == (0, 0) && tables.is_empty();
        if !is_new && application != APPLICATION_ID {
            return Err(StoreError::Foreign { place: self.to_string(), kind: "file of views" });
        }
        if !is_new && !(1..=FORMAT).contains(&format) {
            return Err(StoreError::Format {
                place: self.to_string(),
                found: format,
                known: FORMAT,
                advice: "use the version of Tidings that wrote it, or one after it",
            });
        }
        let begin = |connection: &mut Connection| {
            connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID};
                 PRAGMA user_version = {FORMAT};
                 CREATE TABLE IF NOT EXISTS tidings_views (
                     name TEXT PRIMARY KEY,
                     version INTEGER NOT NULL,
                     schema TEXT NOT NULL,
                     created TEXT NOT NULL,
                     log_id BLOB NOT NULL,
                     position INTEGER NOT NULL,
                     time INTEGER NOT NULL
                 ) WITHOUT ROWID;"
            ))?;
            if is_new || format == 1 {
                // Events up to here are a replay to a view; those of format 1 have been folded.
                transaction.execute_batch(
                    "ALTER TABLE tidings_views ADD COLUMN replayed INTEGER NOT NULL DEFAULT 0",
                )?;
            }
            transaction.execute_batch(rows::SCHEMA)?;
            transaction.commit()
        };
        begin(&mut connection).map_err(|error| self.failed(error))?;
        Ok(connection)
    }

    pub(crate) fn failed(&self, error: rusqlite::Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => {
                StoreError::Foreign { place: self.to_string(), kind: "file of views" }
            }
            _ => StoreError::Failed { place: self.to_string(), source: error.into() },
        }
    }
}

impl fmt::Display for ViewsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Path(path) => path.display().fmt(f),
            Place::Memory(_) => f.write_str("the views in memory"),
        }
    }
}

/// A consumer as its code declares it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Declared {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    /// The SQL that makes its tables; empty if it has none.
    pub(crate) schema: &'static str,
    pub(crate) log_id: Uuid,
    pub(crate) head: Position,
    /// What is done if it stands further than the log, which is then an older copy.
    pub(crate) ahead: Ahead,
}

/// What a consumer does that is ahead of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// Its view is built anew.
    BuildAnew,
    /// It goes on at the head: what it did cannot be undone.
    GoOn,
}

/// What the file knows of a consumer.
pub(crate) struct Entry {
    version: u32,
    schema: String,
    created: Vec<(String, String)>,
    log_id: Uuid,
    pub(crate) position: Position,
    pub(crate) time: Timestamp,
    /// Events up to here were there before the consumer began: for it they are a replay.
    pub(crate) replayed: Position,
}

impl Entry {
    /// Finds the consumer, or builds its tables if it is new or its past is of no use.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] if the file belongs to another log.
    pub(crate) fn prepare(
        connection: &mut Connection,
        file: &ViewsFile,
        declared: &Declared,
    ) -> Result<Self, StoreError> {
        let _turn = file.turn();
        let entry =
            Self::find_or_build(connection, declared).map_err(|error| file.failed(error))?;
        if entry.log_id == declared.log_id {
            return Ok(entry);
        }
        Err(StoreError::Foreign { place: file.to_string(), kind: "file of views of this log" })
    }

    /// If the file belongs to another log, it is left as it is, and an entry of that log is returned.
    fn find_or_build(connection: &mut Connection, declared: &Declared) -> rusqlite::Result<Self> {
        let Declared { name, version, schema, log_id, head, ahead } = *declared;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some(stranger) = Self::find(&transaction, "log_id <> ?1", log_id.as_bytes())? {
            return Ok(stranger);
        }
        // Letters beyond the head are of events that an older copy of the log does not hold.
        rows::forget_after(&transaction, name, head)?;
        if let Some(mut entry) = Self::find(&transaction, "name = ?1", name)? {
            let is_ahead = entry.position > head;
            let reason = if entry.version != version {
                "its version has changed"
            } else if entry.schema != schema {
                "its schema has changed"
            } else if is_ahead && ahead == Ahead::BuildAnew {
                "it is ahead of the log, which must be an older copy"
            } else {
                if is_ahead {
                    warn!(
                        consumer = name,
                        position = %entry.position,
                        %head,
                        "it is ahead of the log, which must be an older copy, and goes on at the head"
                    );
                    save(&transaction, name, head, entry.time)?;
                    entry.position = head;
                }
                if entry.replayed > head {
                    // What will stand there was not there when it began.
                    transaction.execute(
                        "UPDATE tidings_views SET replayed = ?2 WHERE name = ?1",
                        params![name, head.as_u64() as i64],
                    )?;
                    entry.replayed = head;
                }
                transaction.commit()?;
                return Ok(entry);
            };
            warn!(projection = name, position = %entry.position, reason, "the view is built anew");
            for (kind, name) in entry.created.iter().rev() {
                let name = name.replace('"', "\"\"");
                transaction.execute_batch(&format!("DROP {kind} IF EXISTS \"{name}\""))?;
            }
            transaction.execute("DELETE FROM tidings_views WHERE name = ?1", [name])?;
            rows::forget(&transaction, name)?;
        } else {
            info!(consumer = name, "it begins");
        }
        let before = objects(&transaction)?;
        transaction.execute_batch(schema)?;
        let mut created = objects(&transaction)?;
        created.retain(|object| !before.contains(object));
        let entry = Self {
            version,
            schema: schema.to_owned(),
            created,
            log_id,
            position: Position::START,
            time: Timestamp::default(),
            replayed: head,
        };
        transaction.execute(
            "INSERT INTO tidings_views VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, ?6)",
            params![
                name,
                entry.version,
                entry.schema,
                serde_json::to_string(&entry.created)
                    .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?,
                entry.log_id.as_bytes(),
                entry.replayed.as_u64() as i64,
            ],
        )?;
        transaction.commit()?;
        Ok(entry)
    }

    /// The first entry in the file of which `condition` holds.
    fn find(
        connection: &Connection,
        condition: &str,
        value: impl rusqlite::ToSql,
    ) -> rusqlite::Result<Option<Self>> {
        connection
            .query_row(
                &format!(
                    "SELECT version, schema, created, log_id, position, time, replayed
                     FROM tidings_views WHERE {condition} LIMIT 1"
                ),
                [value],
                |row| {
                    let created: String = row.get(2)?;
                    Ok(Self {
                        version: row.get(0)?,
                        schema: row.get(1)?,
                        created: serde_json::from_str(&created).map_err(|error| {
                            rusqlite::Error::FromSqlConversionFailure(
                                2,
                                rusqlite::types::Type::Text,
                                error.into(),
                            )
                        })?,
                        log_id: Uuid::from_bytes(row.get(3)?),
                        position: Position::new(row.get::<_, i64>(4)? as u64),
                        time: Timestamp::from_micros(row.get::<_, i64>(5)? as u64),
                        replayed: Position::new(row.get::<_, i64>(6)? as u64),
                    })
                },
            )
            .optional()
    }
}

/// Writes the checkpoint of a consumer down, in the open transaction if there is one.
pub(crate) fn save(
    connection: &Connection,
    name: &str,
    position: Position,
    time: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE tidings_views SET position = ?2, time = ?3 WHERE name = ?1")?
        .execute(params![name, position.as_u64() as i64, time.as_micros() as i64])?;
    Ok(())
}

/// Everything that a schema can create, by kind and name.
fn objects(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    connection
        .prepare(
            "SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
