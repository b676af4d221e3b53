//! The file that keeps the keys, apart from the log: `bank.keys.db` beside `bank.db`.
//!
//! ```text
//! keys       a row for each subject: its key, or 32 zeros in its place
//! forgotten  who was forgotten, when, and where the log says so
//! meta       which log it belongs to, and up to where it has seen whom that log names as forgotten
//! ```
//! # Destroying a key
//! Its bytes are overwritten in their place in the table, and the write-ahead log, which may hold older copies of that page, is copied
//! into the file and cut to nothing. Rows are only ever added at the end, so no page is rearranged that could leave a copy behind;
//! `secure_delete` is on besides. What the file system, the disk or a backup keeps of older contents is beyond it.
//!
//! # Restored from a backup
//! A file of keys that is older than its log knows keys that were destroyed since. So it takes over whom the log names as forgotten
//! before anything is opened with it. A log that is older than its keys lacks that, and is told again.

use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::forgotten::SubjectForgotten;
use super::seal::{SECRET, Secret};
use crate::clock::Timestamp;
use crate::event::Event;
use crate::store::sqlite_file::{
    self, Files, Lock, connect_to_read, connect_to_write, damaged, empty_wal, failed, is_new,
};
use crate::store::{Durability, EventStore, Filter, StoreError};
use crate::stream::Position;

/// "TIDK": tells a file of keys from those of other programs.
const APPLICATION: i64 = 0x5449_444b;
/// The format of its tables.
const FORMAT: i64 = 1;

/// A key is overwritten in its place because the new value is of the same size and `subject` does not change.
const SCHEMA: &str = "
    CREATE TABLE keys (
        number INTEGER PRIMARY KEY,
        subject TEXT NOT NULL UNIQUE,
        key BLOB NOT NULL
    ) STRICT;
    CREATE TABLE forgotten (
        subject TEXT PRIMARY KEY,
        time INTEGER NOT NULL,
        position INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;";

/// How many events are read at a time to learn who was forgotten.
const PAGE: usize = 1_000;

/// A file of keys, open.
pub(super) struct KeysFile {
    path: PathBuf,
    reader: Mutex<Connection>,
    writer: Mutex<Connection>,
    _lock: Lock,
}

/// What the file knows of a subject.
pub(super) enum Found {
    Key(Secret),
    Forgotten,
    Nothing,
}

impl KeysFile {
    /// Opens the file at `path`, or makes it, for the keys of `log`.
    ///
    /// # Errors
    /// [`StoreError`]: `Locked` if it is open already, `Foreign` or `Format` if it is none of this version or belongs to another
    /// log, else what the database says.
    pub(super) fn open(
        path: &Path,
        durability: Durability,
        log: &dyn EventStore,
    ) -> Result<Self, StoreError> {
        let files = Files::at(path)?;
        let lock = files.lock()?;
        let path = files.log;
        match Self::open_locked(&path, durability, log) {
            Ok((writer, reader)) => {
                let (reader, writer) = (Mutex::new(reader), Mutex::new(writer));
                Ok(Self { path, reader, writer, _lock: lock })
            }
            Err(error) => {
                lock.withdraw();
                Err(error)
            }
        }
    }

    fn open_locked(
        path: &Path,
        durability: Durability,
        log: &dyn EventStore,
    ) -> Result<(Connection, Connection), StoreError> {
        let refused = |error| refused(path, error);
        if !path.exists() && log.head()? > Position::START {
            tracing::warn!(
                keys = %path.display(),
                "a file of keys is begun beside a log that holds events: if there was one before, stop and restore that"
            );
        }
        let mut writer = connect(path, Some(log.log_id()))?;
        let owner: Option<[u8; 16]> = writer
            .query_row("SELECT value FROM meta WHERE key = 'log_id'", [], |row| row.get(0))
            .optional()
            .map_err(refused)?;
        if owner.map(Uuid::from_bytes) != Some(log.log_id()) {
            return Err(StoreError::Foreign {
                place: path.display().to_string(),
                kind: "file of the keys of this log",
            });
        }
        sqlite_file::use_wal(&writer).map_err(refused)?;
        let synchronous = match durability {
            Durability::Fsync => "FULL",
            Durability::Os | Durability::Memory => "NORMAL",
        };
        writer.pragma_update(None, "synchronous", synchronous).map_err(refused)?;
        writer.pragma_update_and_check(None, "secure_delete", "ON", |_| Ok(())).map_err(refused)?;
        take_over(&mut writer, path, log)?;
        let reader = connect_to_read(path)?;
        Ok((writer, reader))
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock()
    }

    pub(super) fn find(&self, subject: &str) -> Result<Found, StoreError> {
        let reader = self.reader.lock();
        // No row is None, and a key that is none is its length.
        let look = || -> rusqlite::Result<Option<Option<Result<Secret, usize>>>> {
            let is_forgotten = reader
                .prepare_cached("SELECT 1 FROM forgotten WHERE subject = ?")?
                .exists([subject])?;
            if is_forgotten {
                return Ok(None);
            }
            let key = reader
                .prepare_cached("SELECT key FROM keys WHERE subject = ?")?
                .query_row([subject], |row| {
                    let bytes = row.get_ref(0)?.as_blob()?;
                    let mut secret = Secret::default();
                    if bytes.len() != SECRET || bytes.iter().all(|byte| *byte == 0) {
                        return Ok(Err(bytes.len()));
                    }
                    secret.copy_from_slice(bytes);
                    Ok(Ok(secret))
                })
                .optional()?;
            Ok(Some(key))
        };
        match look().map_err(|error| failed(&self.path, error))? {
            None => Ok(Found::Forgotten),
            Some(Some(Ok(secret))) => Ok(Found::Key(secret)),
            Some(None) => Ok(Found::Nothing),
            Some(Some(Err(bytes))) => Err(damaged(
                &self.path,
                format!(
                    "the key of subject {subject:?} has {bytes} bytes, or nothing in them; restore the file from a backup"
                ),
            )),
        }
    }

    /// Writes new keys down in one transaction, as durable as the log is.
    pub(super) fn save<'k>(
        &self,
        writer: &mut Connection,
        keys: impl Iterator<Item = (&'k str, Secret)>,
    ) -> Result<(), StoreError> {
        let save = || {
            let transaction = writer.transaction()?;
            let mut insert =
                transaction.prepare_cached("INSERT INTO keys (subject, key) VALUES (?, ?)")?;
            for (subject, secret) in keys {
                insert.execute(params![subject, &secret[..]])?;
            }
            drop(insert);
            transaction.commit()
        };
        save().map_err(|error| failed(&self.path, error))
    }

    /// Overwrites the key of `subject`, and writes down that it is forgotten.
    pub(super) fn destroy(
        &self,
        writer: &mut Connection,
        subject: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut destroy = || {
            let transaction = writer.transaction()?;
            destroy(&transaction, subject, now, None)?;
            transaction.commit()
        };
        destroy().map_err(|error| failed(&self.path, error))
    }

    /// Leaves nothing of older pages in the write-ahead log, and syncs.
    pub(super) fn wipe(&self, writer: &Connection) -> Result<(), StoreError> {
        empty_wal(writer).map_err(|error| failed(&self.path, error))
    }

    pub(super) fn recorded(&self, subject: &str, position: Position) -> Result<(), StoreError> {
        let update = "UPDATE forgotten SET position = ? WHERE subject = ?";
        let done = self.writer().execute(update, params![position.as_u64() as i64, subject]);
        done.map(drop).map_err(|error| failed(&self.path, error))
    }

    pub(super) fn unrecorded(&self) -> Result<Vec<String>, StoreError> {
        let find = || {
            self.writer()
                .prepare("SELECT subject FROM forgotten WHERE position IS NULL ORDER BY time")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()
        };
        find().map_err(|error| failed(&self.path, error))
    }
}

/// Opens a file of keys of this version; if there is none, and it is said for which log, it is made.
fn connect(path: &Path, new_for: Option<Uuid>) -> Result<Connection, StoreError> {
    let refused = |error| refused(path, error);
    if std::fs::metadata(path).is_ok_and(|file| (1..sqlite_file::SMALLEST).contains(&file.len())) {
        return Err(foreign(path.display().to_string()));
    }
    let mut writer = connect_to_write(path).map_err(refused)?;
    if let Some(log_id) = new_for
        && is_new(&writer).map_err(refused)?
    {
        sqlite_file::use_wal(&writer).map_err(refused)?;
        create(&mut writer, log_id).map_err(refused)?;
    }
    let (application, format) = sqlite_file::stamps(&writer).map_err(refused)?;
    if application != APPLICATION {
        return Err(foreign(path.display().to_string()));
    }
    if format != FORMAT {
        return Err(StoreError::Format {
            place: path.display().to_string(),
            found: format,
            known: FORMAT,
            advice: "open it with the version that wrote it, or a newer one",
        });
    }
    Ok(writer)
}

fn refused(path: &Path, error: rusqlite::Error) -> StoreError {
    match failed(path, error) {
        StoreError::Foreign { place, .. } => foreign(place),
        other => other,
    }
}

/// All or nothing: a crash leaves an empty database, which counts as new.
fn create(writer: &mut Connection, log_id: Uuid) -> rusqlite::Result<()> {
    let transaction = writer.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction
        .execute("INSERT INTO meta VALUES ('log_id', ?), ('seen', 0)", [log_id.as_bytes()])?;
    sqlite_file::stamp(&transaction, APPLICATION, FORMAT)?;
    transaction.commit()
}

fn destroy(
    transaction: &Connection,
    subject: &str,
    time: Timestamp,
    position: Option<Position>,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE keys SET key = zeroblob(length(key)) WHERE subject = ?")?
        .execute([subject])?;
    transaction
        .prepare_cached(
            "INSERT INTO forgotten VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET position = coalesce(?3, position)",
        )?
        .execute(params![
            subject,
            time.as_micros() as i64,
            position.map(|position| position.as_u64() as i64)
        ])?;
    Ok(())
}

/// Takes over from the log whom it names as forgotten and the file does not know of yet.
fn take_over(writer: &mut Connection, path: &Path, log: &dyn EventStore) -> Result<(), StoreError> {
    let refused = |error| failed(path, error);
    let seen: i64 = writer
        .query_row("SELECT value FROM meta WHERE key = 'seen'", [], |row| row.get(0))
        .map_err(refused)?;
    let (mut after, head) = (Position::new(seen as u64), log.head()?);
    // A log that was restored from a backup may end before. It does not say any more what it said beyond, also when it has grown
    // again by the time at which it can be told.
    writer
        .execute("UPDATE forgotten SET position = NULL WHERE position > ?", [head.as_u64() as i64])
        .map_err(refused)?;
    after = after.min(head);
    if after.as_u64() == seen as u64 && after == head {
        return Ok(());
    }
    let transaction = writer.transaction().map_err(refused)?;
    let mut found = false;
    while after < head {
        let page = log.read_log(after, &Filter::Names(vec![SubjectForgotten::NAME]), PAGE)?;
        for event in &page.events {
            let forgotten: SubjectForgotten =
                event.header.codec.decode(&event.payload).map_err(|source| {
                    let what = "an event that says who was forgotten cannot be read";
                    damaged(
                        path,
                        format!("{what}, at position {} of its log: {source}", event.position),
                    )
                })?;
            destroy(
                &transaction,
                &forgotten.subject,
                event.header.time,
                Some(event.header.position),
            )
            .map_err(refused)?;
            found = true;
        }
        after = page.through;
    }
    transaction
        .execute("UPDATE meta SET value = ? WHERE key = 'seen'", [after.as_u64() as i64])
        .map_err(refused)?;
    transaction.commit().map_err(refused)?;
    if found {
        empty_wal(writer).map_err(refused)?;
    }
    Ok(())
}

fn foreign(place: String) -> StoreError {
    StoreError::Foreign { place, kind: "file of keys" }
}
