//! The file beside the log in which consumers keep what they know: views in tables, checkpoints, letters.
//!
//! All consumers of an app share it. It is in WAL mode with `synchronous=NORMAL`: after a power cut it may be a little older,
//! and what came after is handled again.
//!
//! # One writer at a time
//! SQLite admits one writer, and lets others poll for their turn. The consumers of an app take turns by a lock of their own
//! instead, which hands over at once.

mod switch;

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
    /// Keeps a file in memory alive.
    alive: Arc<Mutex<Option<Connection>>>,
}

/// Where the file is.
#[derive(Debug, Clone)]
enum Place {
    Path(PathBuf),
    /// In memory, under this name, for as long as a connection is open.
    Memory(String),
}

impl ViewsFile {
    /// The file at `path`; without one, in memory for the log of this identity.
    pub(crate) fn new(path: Option<PathBuf>, log_id: Uuid) -> Self {
        Self::at(path.map_or_else(|| Place::Memory(format!("tidings-views-{log_id}")), Place::Path))
    }

    fn at(place: Place) -> Self {
        Self { place, turn: Arc::default(), alive: Arc::default() }
    }

    /// A file beside this one for the view of one projection, `what` it is to it.
    pub(crate) fn beside(&self, projection: &str, what: &str) -> Self {
        let mut end = String::from(".");
        for byte in projection.bytes() {
            match byte {
                // Letters that no file system and no URI takes for anything else.
                b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => end.push(byte.into()),
                other => end.push_str(&format!("~{other:02x}")),
            }
        }
        end.push('.');
        end.push_str(what);
        Self::at(match &self.place {
            Place::Path(path) => {
                let mut path = path.clone().into_os_string();
                path.push(end);
                Place::Path(path.into())
            }
            Place::Memory(name) => Place::Memory(name.clone() + &end),
        })
    }

    /// Deletes the file, if it exists; one in memory ends with its last connection.
    pub(crate) fn remove(&self) -> std::io::Result<()> {
        *self.alive.lock() = None;
        let Place::Path(path) = &self.place else {
            return Ok(());
        };
        for end in ["", "-journal", "-wal", "-shm"] {
            let mut path = path.clone().into_os_string();
            path.push(end);
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes the files beside this one for the view of `projection` whose name begins with `what`.
    pub(crate) fn remove_all_beside(&self, projection: &str, what: &str) {
        let Place::Path(path) = self.beside(projection, what).place else {
            return;
        };
        let (Some(directory), Some(begin)) = (path.parent(), path.file_name()) else {
            return;
        };
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        // What cannot be listed or removed is in nobody's way.
        for file in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = file.file_name();
            if name.as_encoded_bytes().starts_with(begin.as_encoded_bytes())
                && let Err(error) = std::fs::remove_file(file.path())
            {
                warn!(%error, file = %file.path().display(), "a view that is of no use any more cannot be removed");
            }
        }
    }

    /// Whether there is such a file.
    pub(crate) fn exists(&self) -> bool {
        match &self.place {
            Place::Path(path) => path.exists(),
            Place::Memory(_) => self.alive.lock().is_some(),
        }
    }

    /// Keeps a file in memory until it is removed.
    fn keep_alive(&self) -> rusqlite::Result<()> {
        if let Place::Memory(_) = self.place {
            let access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
            *self.alive.lock() = Some(self.connect(access)?);
        }
        Ok(())
    }

    /// What SQLite finds the file by in a statement.
    fn name(&self) -> rusqlite::Result<String> {
        match &self.place {
            Place::Path(path) => match path.to_str() {
                Some(path) => Ok(path.to_owned()),
                None => Err(rusqlite::Error::InvalidPath(path.clone())),
            },
            Place::Memory(name) => Ok(format!("file:/{name}?vfs=memdb")),
        }
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
            Place::Memory(_) => Connection::open_with_flags(
                Path::new(&self.name()?),
                flags | OpenFlags::SQLITE_OPEN_URI,
            )?,
        };
        connection.busy_timeout(BUSY)?;
        // What a view deletes when a subject is forgotten is to be gone from the file.
        #[cfg(feature = "personal")]
        if access.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) {
            connection.execute_batch("PRAGMA secure_delete = ON")?;
        }
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
        #[cfg(feature = "personal")]
        self.empty_wal(&connection).map_err(|error| self.failed(error))?;
        Ok(connection)
    }

    /// Empties the write-ahead log: what a crash has left in it may have been deleted when a subject was forgotten. Whoever reads the
    /// file just then is not waited for; it is emptied when a view is closed, too.
    #[cfg(feature = "personal")]
    fn empty_wal(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.busy_timeout(Duration::ZERO)?;
        let emptied = connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        match emptied {
            Ok(false) => {}
            Ok(true) => {
                warn!(file = %self, "somebody reads the write-ahead log, so it is emptied later")
            }
            Err(error) => warn!(file = %self, %error, "the write-ahead log cannot be emptied yet"),
        }
        connection.busy_timeout(BUSY)
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
    /// What is done if another version of the program folded it, into the same tables.
    pub(crate) outdated: Outdated,
    /// What is done if it stands further than the log, which is then an older copy.
    pub(crate) ahead: Ahead,
}

/// What a consumer does whose tables are of another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outdated {
    /// Its view is built anew.
    BuildAnew,
    /// They are read until a view of its own version takes their place.
    Serve,
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
    pub(crate) version: u32,
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
        let Declared { name, version, schema, log_id, head, outdated, ahead } = *declared;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let stranger = Self::find(&transaction, "main", "log_id <> ?1", log_id.as_bytes())?;
        if let Some(stranger) = stranger {
            return Ok(stranger);
        }
        // Letters beyond the head are of events that an older copy of the log does not hold.
        rows::forget_after(&transaction, name, head)?;
        if let Some(mut entry) = Self::find(&transaction, "main", "name = ?1", name)? {
            let is_ahead = entry.position > head;
            let serves = outdated == Outdated::Serve && entry.schema == schema && !is_ahead;
            let reason = if entry.version != version && !serves {
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
            entry.drop_created(&transaction)?;
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
        entry.insert(&transaction, name)?;
        transaction.commit()?;
        Ok(entry)
    }

    /// Writes it down as that of `name`, in the open transaction.
    fn insert(&self, connection: &Connection, name: &str) -> rusqlite::Result<()> {
        connection.execute(
            "INSERT INTO main.tidings_views VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                name,
                self.version,
                self.schema,
                serde_json::to_string(&self.created)
                    .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?,
                self.log_id.as_bytes(),
                self.position.as_u64() as i64,
                self.time.as_micros() as i64,
                self.replayed.as_u64() as i64,
            ],
        )?;
        Ok(())
    }

    /// Drops what its schema created.
    fn drop_created(&self, connection: &Connection) -> rusqlite::Result<()> {
        let virtuals: Vec<String> = connection
            .prepare(
                "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'virtual'",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let (firsts, others): (Vec<_>, Vec<_>) =
            self.created.iter().rev().partition(|(_, name)| virtuals.contains(name));
        // A virtual table drops those behind it, and cannot be dropped without them.
        for (kind, name) in firsts.into_iter().chain(others) {
            connection.execute_batch(&format!("DROP {kind} IF EXISTS main.{}", quoted(name)))?;
        }
        Ok(())
    }

    /// The first entry in the file that is known as `file` of which `condition` holds.
    fn find(
        connection: &Connection,
        file: &str,
        condition: &str,
        value: impl rusqlite::ToSql,
    ) -> rusqlite::Result<Option<Self>> {
        connection
            .query_row(
                &format!(
                    "SELECT version, schema, created, log_id, position, time, replayed
                     FROM {file}.tidings_views WHERE {condition} LIMIT 1"
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

/// A name as SQL takes it whatever it holds.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
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
