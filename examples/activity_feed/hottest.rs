//! The hottest files, in a table: which ones are changed the most.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection, params};
use tidings::{Query, projection};

use crate::domain::{Changed, Lines};

/// How often each file was changed; the view is a table.
///
/// It has a mistake until it is mended: it does not understand names that hold a NUL.
#[derive(Debug, Default)]
pub(crate) struct Hottest {
    mended: Arc<AtomicBool>,
}

/// Why a change cannot be counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotCounted {
    #[error("{0:?} is no name of a file")]
    Path(String),
    #[error(transparent)]
    Table(#[from] rusqlite::Error),
}

const FILES: &str = "
    CREATE TABLE files (
        path TEXT PRIMARY KEY,
        changes INTEGER NOT NULL,
        added INTEGER NOT NULL,
        deleted INTEGER NOT NULL,
        newest TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX files_by_changes ON files (changes);";

/// The files that were changed the most, and the sums of all.
#[derive(Query)]
#[query(reply = HotFiles)]
pub(crate) struct HottestFiles {
    pub(crate) limit: u32,
}

#[derive(Debug)]
pub(crate) struct HotFiles {
    /// How many files were ever there, and how often one of them was changed.
    pub(crate) files: u64,
    pub(crate) changes: u64,
    pub(crate) added: u64,
    pub(crate) deleted: u64,
    pub(crate) hottest: Vec<HotFile>,
}

#[derive(Debug)]
pub(crate) struct HotFile {
    pub(crate) path: String,
    pub(crate) changes: u64,
    pub(crate) added: u64,
    pub(crate) deleted: u64,
    /// The commit that changed it last.
    pub(crate) newest: String,
}

impl Hottest {
    /// What mends the view when it is set.
    pub(crate) fn mended(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.mended)
    }
}

#[projection(name = "hottest_files", version = 1, schema = FILES)]
impl Hottest {
    #[on]
    fn changed(&self, tx: &Transaction<'_>, event: &Changed) -> Result<(), NotCounted> {
        if event.path.contains('\0') && !self.mended.load(Ordering::Relaxed) {
            return Err(NotCounted::Path(event.path.clone()));
        }
        let Lines { added, deleted } = event.lines;
        tx.prepare_cached(
            "INSERT INTO files VALUES (?1, 1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET
                changes = changes + 1, added = added + ?2, deleted = deleted + ?3, newest = ?4",
        )?
        .execute(params![event.path, added, deleted, event.commit])?;
        Ok(())
    }

    #[query]
    fn hottest_files(db: &Connection, query: &HottestFiles) -> rusqlite::Result<HotFiles> {
        let mut files = db.prepare_cached(
            "SELECT path, changes, added, deleted, newest FROM files
             ORDER BY changes DESC, path LIMIT ?1",
        )?;
        let hottest = files
            .query_map([query.limit], |row| {
                Ok(HotFile {
                    path: row.get(0)?,
                    changes: count(row, 1)?,
                    added: count(row, 2)?,
                    deleted: count(row, 3)?,
                    newest: row.get(4)?,
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        db.query_row(
            "SELECT count(*), ifnull(sum(changes), 0), ifnull(sum(added), 0), ifnull(sum(deleted), 0)
             FROM files",
            [],
            |row| {
                Ok(HotFiles {
                    files: count(row, 0)?,
                    changes: count(row, 1)?,
                    added: count(row, 2)?,
                    deleted: count(row, 3)?,
                    hottest,
                })
            },
        )
    }
}

/// SQLite counts in `i64`.
fn count(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let count: i64 = row.get(column)?;
    u64::try_from(count).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, count))
}
