//! The index file beside the log: where each stream ends, and where each command stands.
//!
//! Everything in it is derived from the log and says through which position. It may be deleted at any time the log is
//! closed: the next one to open the log writes it anew, and every answer is the same.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::file::{self, failed};
use super::tail::{Generation, Head, Place, StreamKey, Through};
use crate::id::CommandId;
use crate::store::StoreError;

/// "Tidx": tells an index from a log and from the files of other programs.
pub(super) const APPLICATION: i64 = 0x5469_6478;
const FORMAT: i64 = 1;

/// 16 MiB: the inner pages and a good part of the leaves of a million heads.
const READ_CACHE_KIB: i64 = 16 * 1024;

const SCHEMA: &str = "
    CREATE TABLE heads (hash INTEGER, rest INTEGER, version INTEGER, position INTEGER,
                        PRIMARY KEY (hash, rest)) WITHOUT ROWID;
    CREATE TABLE commands (id BLOB PRIMARY KEY, place INTEGER) WITHOUT ROWID;
    CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), log_id BLOB, position INTEGER, event BLOB,
                        bare INTEGER, bare_id BLOB, newest BLOB);";

/// One connection to the index.
pub(super) struct Index {
    conn: Connection,
}

/// How far an index has come.
pub(super) struct Indexed {
    pub(super) log_id: Uuid,
    pub(super) through: Through,
    pub(super) newest: Uuid,
}

impl Index {
    /// Opens the index to read it while another connection writes it.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let conn = file::connect_to_read(path)?;
        conn.pragma_update(None, "cache_size", -READ_CACHE_KIB)
            .map_err(|error| failed(path, error))?;
        Ok(Self { conn })
    }

    pub(super) fn head(&self, key: &StreamKey) -> rusqlite::Result<Option<Head>> {
        self.conn
            .prepare_cached("SELECT version, position FROM heads WHERE hash = ? AND rest = ?")?
            .query_row(params![key.hash as i64, key.rest as i64], |row| {
                Ok(Head {
                    version: row.get::<_, i64>(0)? as u64,
                    position: row.get::<_, i64>(1)? as u64,
                })
            })
            .optional()
    }

    pub(super) fn command(&self, id: &CommandId) -> rusqlite::Result<Option<Place>> {
        self.conn
            .prepare_cached("SELECT place FROM commands WHERE id = ?")?
            .query_row([id.as_uuid().as_bytes()], |row| {
                let place: i64 = row.get(0)?;
                Ok(match place {
                    0.. => Place::Events(place as u64),
                    _ => Place::Bare(place.unsigned_abs()),
                })
            })
            .optional()
    }

    /// Makes all lookups until [`unpin`](Self::unpin) see one state: one lock for all of them.
    pub(super) fn pin(&self) -> rusqlite::Result<()> {
        self.unpin()?;
        self.conn.prepare_cached("BEGIN")?.raw_execute().map(drop)
    }

    pub(super) fn unpin(&self) -> rusqlite::Result<()> {
        if !self.conn.is_autocommit() {
            self.conn.prepare_cached("COMMIT")?.raw_execute()?;
        }
        Ok(())
    }
}

/// The connection that writes the index.
pub(super) struct IndexWriter {
    conn: Connection,
}

impl IndexWriter {
    /// Opens the index to write it; an empty file becomes an empty index of `log_id`.
    ///
    /// None if the file is no index, or of another format.
    pub(super) fn open(path: &Path, log_id: Uuid) -> rusqlite::Result<Option<(Self, Indexed)>> {
        let mut conn = file::connect_to_write(path)?;
        if file::is_new(&conn)? {
            file::use_wal(&conn)?;
            let tx = conn.transaction()?;
            tx.execute_batch(SCHEMA)?;
            tx.execute(
                "INSERT INTO state VALUES (1, ?, 0, ?, 0, ?, ?)",
                params![log_id.as_bytes(), NIL, NIL, NIL],
            )?;
            file::stamp(&tx, APPLICATION, FORMAT)?;
            tx.commit()?;
        } else if file::stamps(&conn)? != (APPLICATION, FORMAT) {
            return Ok(None);
        } else {
            file::use_wal(&conn)?;
        }
        // NORMAL: a power cut may take the last flushes, which only makes the index older. It never mixes states.
        conn.pragma_update(None, "synchronous", "NORMAL")?;
        // Checkpointed after each flush, not in the middle of the commit that ends it.
        conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        let indexed = conn.query_row(
            "SELECT log_id, position, event, bare, bare_id, newest FROM state",
            [],
            |row| {
                let uuid = |at| Ok::<_, rusqlite::Error>(Uuid::from_bytes(row.get(at)?));
                Ok(Indexed {
                    log_id: uuid(0)?,
                    through: Through {
                        position: row.get::<_, i64>(1)? as u64,
                        event: uuid(2)?,
                        bare: row.get::<_, i64>(3)? as u64,
                        bare_id: uuid(4)?,
                    },
                    newest: uuid(5)?,
                })
            },
        )?;
        Ok(Some((Self { conn }, indexed)))
    }

    /// Takes a generation in, in one transaction, each table in the order of its keys: each page is touched once.
    pub(super) fn flush(&mut self, generation: &Generation) -> rusqlite::Result<()> {
        let mut heads: Vec<_> = generation
            .heads
            .iter()
            .map(|(key, head)| (key.hash as i64, key.rest as i64, *head))
            .collect();
        heads.sort_unstable_by_key(|(hash, rest, _)| (*hash, *rest));
        let mut commands: Vec<_> = generation.commands.iter().collect();
        commands.sort_unstable_by_key(|(id, _)| **id);

        let tx = self.conn.transaction()?;
        {
            let mut insert =
                tx.prepare_cached("INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?)")?;
            for (hash, rest, head) in heads {
                insert.execute([hash, rest, head.version as i64, head.position as i64])?;
            }
            let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO commands VALUES (?, ?)")?;
            for (id, place) in commands {
                let place = match *place {
                    Place::Events(position) => position as i64,
                    Place::Bare(number) => -(number as i64),
                };
                insert.execute(params![id.as_uuid().as_bytes(), place])?;
            }
        }
        let through = generation.through;
        tx.execute(
            "UPDATE state SET position = ?, event = ?, bare = ?, bare_id = ?, newest = ?",
            params![
                through.position as i64,
                through.event.as_bytes(),
                through.bare as i64,
                through.bare_id.as_bytes(),
                generation.newest.as_bytes(),
            ],
        )?;
        tx.commit()?;
        file::checkpoint(&self.conn)
    }
}

const NIL: &[u8; 16] = Uuid::nil().as_bytes();
