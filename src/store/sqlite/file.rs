//! The files of a log: their names, who may open them, and how each connection is set up.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::tail::Secret;
use crate::codec::Codec;
use crate::id::{CommandId, EventId};
use crate::store::{Durability, StoreError};

/// "Tide": tells a log from the files of other programs.
const APPLICATION: i64 = 0x5469_6465;
/// The format of the log's tables. Another one needs a migration, and a fixture of this one for its test.
///
/// Format 1 had payloads of text alone, and no table but `events`, `commands` and `meta`.
pub(super) const FORMAT: i64 = 2;

/// Positions are row ids, and there is no second index: an append touches the last page only. `payload` stands last,
/// so that all else is read without following it into overflow pages: JSON as text, other formats as a blob whose first byte
/// names them, and in the place of one that lies in an archive the number of that. `previous` is the position of the stream's
/// event before this one, 0 for its first. `correlation_id` and `causation_id` are NULL where a story begins: where they are
/// the id of the command or, without one, of the event itself.
const SCHEMA: &str = "
    CREATE TABLE events (
        position INTEGER PRIMARY KEY,
        stream TEXT NOT NULL,
        version INTEGER NOT NULL,
        previous INTEGER NOT NULL,
        name TEXT NOT NULL,
        schema_version INTEGER NOT NULL,
        time INTEGER NOT NULL,
        event_id BLOB NOT NULL,
        command_id BLOB,
        correlation_id BLOB,
        causation_id BLOB,
        metadata TEXT,
        payload ANY NOT NULL
    ) STRICT;
    CREATE TABLE commands (
        number INTEGER PRIMARY KEY,
        id BLOB NOT NULL,
        stream TEXT NOT NULL,
        version INTEGER NOT NULL,
        position INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;";

/// What format 2 has beside the tables of format 1. A snapshot may be deleted at any time; `shape` holds the shape of its state
/// and a hash of the row.
const SINCE_2: &str = "
    CREATE TABLE snapshots (
        stream TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL,
        shape BLOB NOT NULL,
        state ANY NOT NULL
    ) STRICT;
    CREATE TABLE archives (
        number INTEGER PRIMARY KEY,
        id BLOB NOT NULL,
        file TEXT NOT NULL
    ) STRICT;";

/// From format 1. The types of a table's columns are a matter of its text alone: values that are stored carry their own, and
/// `ANY` admits all. <https://www.sqlite.org/lang_altertable.html#otheralter>
const TO_2: &str = "
    PRAGMA writable_schema = ON;
    UPDATE sqlite_schema SET sql = replace(sql, 'payload TEXT NOT NULL', 'payload ANY NOT NULL')
        WHERE type = 'table' AND name = 'events';
    PRAGMA writable_schema = RESET;";

/// The first byte of a payload that is not JSON. These numbers stand in every log: none is ever given to another format.
const MESSAGE_PACK: u8 = 1;
const CBOR: u8 = 2;

/// The byte that names a format in the log; none for JSON, which is text there.
pub(super) fn tag(codec: Codec) -> Option<u8> {
    match codec {
        Codec::Json => None,
        Codec::MessagePack => Some(MESSAGE_PACK),
        Codec::Cbor => Some(CBOR),
    }
}

/// The format that a byte names.
pub(super) fn of_tag(tag: u8) -> Option<Codec> {
    match tag {
        MESSAGE_PACK => Some(Codec::MessagePack),
        CBOR => Some(Codec::Cbor),
        _ => None,
    }
}

/// How long a connection waits for a lock that a foreign reader or a checkpoint holds.
const PATIENCE: Duration = Duration::from_secs(5);

/// A WAL of 16 MiB before it is copied into the log: a page that is appended to in many groups is then copied once, and
/// the two fsyncs of a copy are shared by more groups. Worth a few percent over SQLite's own 4 MiB; 64 MiB bring no more.
const CHECKPOINT_PAGES: i64 = 4096;

/// How often, and how long apart, a taken lock is tried again. A process that is being spawned holds copies of its parent's
/// files for a moment, and with them a lock that the parent has let go of.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The smallest page of SQLite, in bytes: no database is smaller, unless it is empty.
pub(crate) const SMALLEST: u64 = 512;

/// The names of a log's files.
pub(crate) struct Files {
    pub(crate) log: PathBuf,
    pub(super) index: PathBuf,
    pub(super) views: PathBuf,
    pub(super) keys: PathBuf,
    lock: PathBuf,
}

/// Held while a log is open; the operating system lets go of it when the process ends, however it does.
///
/// It is a file of its own: POSIX drops all locks that a process has on a file when it closes any handle to it, and
/// SQLite keeps its locks on the database itself.
pub(crate) struct Lock {
    _file: File,
    path: PathBuf,
    is_ours: bool,
}

/// What a log says of itself.
pub(super) struct Identity {
    pub(super) log_id: Uuid,
    pub(super) secret: Secret,
}

impl Files {
    /// Resolves links, so that one log has one name.
    pub(crate) fn at(path: &Path) -> Result<Self, StoreError> {
        let refused = |error| io_failed(path, error);
        let name = path.file_name().ok_or_else(|| {
            refused(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))
        })?;
        let log = match path.canonicalize() {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = match path.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => parent,
                    _ => Path::new("."),
                };
                let directory = parent.canonicalize().map_err(|error| {
                    refused(io::Error::new(
                        error.kind(),
                        format!("its directory {} cannot be entered: {error}", parent.display()),
                    ))
                })?;
                directory.join(name)
            }
            Err(error) => return Err(refused(error)),
        };
        Ok(Self {
            index: sibling(&log, "index"),
            views: sibling(&log, "views"),
            keys: sibling(&log, "keys"),
            lock: beside(&log, ".lock"),
            log,
        })
    }

    pub(crate) fn lock(&self) -> Result<Lock, StoreError> {
        let is_ours = !self.lock.exists();
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.lock)
            .map_err(|error| io_failed(&self.lock, error))?;
        let mut tries = 0;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file, path: self.lock.clone(), is_ours }),
                Err(TryLockError::WouldBlock) if tries < LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Locked { place: place(&self.log) });
                }
                Err(TryLockError::Error(error)) => return Err(io_failed(&self.lock, error)),
            }
        }
    }

    /// Whether the file in the place of the index may be deleted: it bears the stamp of an index, or holds nothing yet.
    pub(super) fn index_is_ours(&self) -> Result<bool, StoreError> {
        let refused = |error| io_failed(&self.index, error);
        let mut file = match File::open(&self.index) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(refused(error)),
        };
        let bytes = file.metadata().map_err(refused)?.len();
        if bytes == 0 {
            return Ok(true);
        }
        // The database header, <https://www.sqlite.org/fileformat2.html#the_database_header>.
        let mut header = [0; 100];
        let read = io::Read::read(&mut file, &mut header).map_err(refused)?;
        let field = |at: usize| {
            let field = header.get(at..at + 4).and_then(|field| field.try_into().ok());
            i64::from(u32::from_be_bytes(field.unwrap_or_default()))
        };
        let is_database = read == header.len() && header.starts_with(b"SQLite format 3\0");
        let (pages, application) = (field(28), field(68));
        // A database of one page without a stamp is one whose first transaction never came to its end.
        let is_begun = application == 0 && pages <= 1;
        Ok(is_database && (application == super::index::APPLICATION || is_begun))
    }

    /// Whether a file of this log, or one that it may have, bears the name.
    pub(super) fn are_taken(&self, path: &Path) -> bool {
        [&self.log, &self.index, &self.views, &self.keys].into_iter().any(|taken| {
            taken == path
                || ["-wal", "-shm", "-journal"].iter().any(|suffix| beside(taken, suffix) == path)
        }) || self.lock == path
    }

    pub(super) fn delete_index(&self) -> Result<(), StoreError> {
        for path in [self.index.clone(), beside(&self.index, "-wal"), beside(&self.index, "-shm")] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_failed(&path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Lock {
    /// Leaves nothing beside a file that turned out to be foreign.
    pub(crate) fn withdraw(self) {
        if self.is_ours {
            // Best effort: an empty file that stays behind does no harm.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Opens the log to write it, and makes it first if there is none; of the identity `wanted`, if that is said.
pub(super) fn open_log(
    path: &Path,
    durability: Durability,
    wanted: Option<Uuid>,
) -> Result<(Connection, Identity), StoreError> {
    let refused = |error| failed(path, error);
    // SQLite takes a file of one byte for an empty one. Only its size is asked for: opening and closing the file here
    // would drop the locks that another connection of this process has on it.
    if std::fs::metadata(path).is_ok_and(|file| (1..SMALLEST).contains(&file.len())) {
        return Err(foreign(path));
    }
    let mut conn = connect_to_write(path).map_err(refused)?;
    if is_new(&conn).map_err(refused)? {
        use_wal(&conn).map_err(refused)?;
        create_log(&mut conn, wanted.unwrap_or_else(crate::id::fresh)).map_err(refused)?;
    }
    let (application, mut format) = stamps(&conn).map_err(refused)?;
    if application != APPLICATION {
        return Err(foreign(path));
    }
    if format == 1 {
        migrate(&mut conn).map_err(refused)?;
        format = FORMAT;
    }
    if format != FORMAT {
        return Err(of_another_format(path, format));
    }
    if archive_of(&conn).map_err(refused)?.is_some() {
        return Err(is_archive(path));
    }
    use_wal(&conn).map_err(refused)?;
    conn.pragma_update(None, "synchronous", synchronous(durability)).map_err(refused)?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(refused)?;
    let identity = Identity {
        log_id: Uuid::from_bytes(meta(&conn, "log_id").map_err(refused)?),
        secret: Secret(meta(&conn, "stream_key").map_err(refused)?),
    };
    if wanted.is_some_and(|wanted| wanted != identity.log_id) {
        return Err(StoreError::Foreign {
            place: place(path),
            kind: "log of the identity that was asked for",
        });
    }
    Ok((conn, identity))
}

/// Whether an open database is a log of this format, as far as it can be read.
pub(super) fn is_log(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    match stamps(conn).map_err(|error| failed(path, error)) {
        Ok((APPLICATION, FORMAT)) | Err(StoreError::Damaged { .. }) => {}
        Ok((APPLICATION, found)) => return Err(of_another_format(path, found)),
        Ok(_) => return Err(foreign(path)),
        Err(error) => return Err(error),
    }
    match archive_of(conn) {
        Ok(Some(_)) => Err(is_archive(path)),
        _ => Ok(()),
    }
}

fn is_archive(path: &Path) -> StoreError {
    StoreError::Foreign {
        place: place(path),
        kind: "log but an archive of one, which reads it where it is",
    }
}

fn of_another_format(path: &Path, found: i64) -> StoreError {
    StoreError::Format {
        place: place(path),
        found,
        known: FORMAT,
        advice: match found {
            1 => "open it with this version once, which migrates it",
            ..FORMAT => "migrate it with the version that came after the one that wrote it",
            _ => "open it with the version that wrote it, or a newer one",
        },
    }
}

/// How SQLite calls it.
pub(super) fn synchronous(durability: Durability) -> &'static str {
    match durability {
        Durability::Fsync => "FULL",
        Durability::Os | Durability::Memory => "NORMAL",
    }
}

/// All or nothing: a crash leaves an empty database, which counts as new.
fn create_log(conn: &mut Connection, log_id: Uuid) -> rusqlite::Result<()> {
    let tx = conn.transaction()?;
    tx.execute_batch(SCHEMA)?;
    tx.execute_batch(SINCE_2)?;
    tx.execute(
        "INSERT INTO meta VALUES ('log_id', ?), ('stream_key', randomblob(16))",
        params![log_id.as_bytes()],
    )?;
    stamp(&tx, APPLICATION, FORMAT)?;
    tx.commit()
}

/// Makes an archive of the log `log_id`: a log that says which archive it is, with rows for some positions only.
pub(super) fn create_archive(
    tx: &Transaction<'_>,
    log_id: Uuid,
    archive_id: Uuid,
) -> rusqlite::Result<()> {
    tx.execute_batch(SCHEMA)?;
    tx.execute_batch(SINCE_2)?;
    tx.execute(
        "INSERT INTO meta VALUES ('log_id', ?), ('archive_id', ?)",
        params![log_id.as_bytes(), archive_id.as_bytes()],
    )?;
    stamp(tx, APPLICATION, FORMAT)
}

/// The log that an archive belongs to, and which archive it is; none if the file is none.
pub(super) fn archive_of(conn: &Connection) -> rusqlite::Result<Option<(Uuid, Uuid)>> {
    if stamps(conn)? != (APPLICATION, FORMAT) {
        return Ok(None);
    }
    let id = |key: &str| -> rusqlite::Result<Option<Uuid>> {
        let mut select = conn.prepare("SELECT value FROM meta WHERE key = ?")?;
        let found: Option<[u8; 16]> = select.query_row([key], |row| row.get(0)).optional()?;
        Ok(found.map(Uuid::from_bytes))
    };
    Ok(id("log_id")?.zip(id("archive_id")?))
}

/// All or nothing, like [`create_log`]; it takes no longer for a large log.
pub(super) fn migrate(conn: &mut Connection) -> rusqlite::Result<()> {
    let tx = conn.transaction()?;
    tx.execute_batch(TO_2)?;
    tx.execute_batch(SINCE_2)?;
    stamp(&tx, APPLICATION, FORMAT)?;
    // The text of the table is replaced by what it says: one that says otherwise would stay as it is.
    let column: String = tx.query_row(
        "SELECT type FROM pragma_table_info('events') WHERE name = 'payload'",
        [],
        |row| row.get(0),
    )?;
    match column.as_str() {
        "ANY" => tx.commit(),
        _ => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            Some("its table of events is not as format 1 had it".to_owned()),
        )),
    }
}

fn meta(conn: &Connection, key: &str) -> rusqlite::Result<[u8; 16]> {
    conn.query_row("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0))
}

/// A path is a path here: never a `file:` address with options.
pub(crate) fn connect_to_write(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(PATIENCE)?;
    Ok(conn)
}

pub(crate) fn connect_to_read(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connect = || {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(PATIENCE)?;
        // One statement for each number of names in a filter, and about ten others.
        conn.set_prepared_statement_cache_capacity(64);
        Ok(conn)
    };
    connect().map_err(|error| failed(path, error))
}

/// Whether nobody has written anything into the database yet.
pub(crate) fn is_new(conn: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables == 0 && stamps(conn)? == (0, 0))
}

/// The application and the format that the file says it is of.
pub(crate) fn stamps(conn: &Connection) -> rusqlite::Result<(i64, i64)> {
    Ok((
        conn.pragma_query_value(None, "application_id", |row| row.get(0))?,
        conn.pragma_query_value(None, "user_version", |row| row.get(0))?,
    ))
}

pub(crate) fn stamp(conn: &Connection, application: i64, format: i64) -> rusqlite::Result<()> {
    conn.pragma_update(None, "application_id", application)?;
    conn.pragma_update(None, "user_version", format)
}

pub(crate) fn use_wal(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
}

/// Copies what it can of the WAL into the database, without waiting for anybody.
pub(super) fn checkpoint(conn: &Connection) -> rusqlite::Result<()> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// What an error of SQLite means for the caller.
pub(crate) fn failed(path: &Path, error: rusqlite::Error) -> StoreError {
    let place = place(path);
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { place, source: error.into() },
        Some(ErrorCode::ReadOnly) => StoreError::ReadOnly { place, source: error.into() },
        Some(ErrorCode::NotADatabase) => foreign(path),
        Some(ErrorCode::DatabaseCorrupt) => damaged(path, error.to_string()),
        _ => StoreError::Failed { place, source: error.into() },
    }
}

pub(crate) fn damaged(path: &Path, what: String) -> StoreError {
    StoreError::Damaged { place: place(path), what }
}

fn foreign(path: &Path) -> StoreError {
    StoreError::Foreign { place: place(path), kind: "log" }
}

pub(super) fn io_failed(path: &Path, error: io::Error) -> StoreError {
    let place = place(path);
    let source = Box::new(error);
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full { place, source }
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            StoreError::ReadOnly { place, source }
        }
        _ => StoreError::Failed { place, source },
    }
}

fn place(path: &Path) -> String {
    path.display().to_string()
}

/// The file beside the log with `kind` before its extension.
fn sibling(log: &Path, kind: &str) -> PathBuf {
    match log.extension() {
        Some(extension) => {
            let mut extended = OsString::from(kind);
            extended.push(".");
            extended.push(extension);
            log.with_extension(extended)
        }
        None => log.with_extension(kind),
    }
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// The id with which the story of an event begins: of its command or, without one, its own.
pub(super) fn own_id(event: EventId, command: Option<CommandId>) -> Uuid {
    command.map_or_else(|| event.into(), Uuid::from)
}

/// Moves all of the write-ahead log into the database, synced, and begins it anew.
pub(crate) fn empty_wal(connection: &Connection) -> rusqlite::Result<()> {
    let is_busy: bool =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    match is_busy {
        false => Ok(()),
        true => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
            Some("a reader holds the write-ahead log".to_owned()),
        )),
    }
}
