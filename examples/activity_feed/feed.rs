//! The followers' feed, in tables: what others did to the files that an author has worked on.
//!
//! Nobody has to follow anybody: who changes a file follows it from then on. A feed is put together when it is read, so
//! that a file with a thousand followers costs no more than one with none.

use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection, params};
use tidings::{Query, projection};

use crate::domain::{Changed, Committed};

/// What the followers see; the view is all tables.
#[derive(Debug)]
pub(crate) struct Feed;

const FEED: &str = "
    CREATE TABLE feed_commits (
        hash TEXT PRIMARY KEY,
        subject TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE feed_changes (
        at INTEGER,
        hash TEXT NOT NULL,
        author TEXT NOT NULL,
        path TEXT NOT NULL
    ) STRICT;
    CREATE INDEX feed_changes_by_time ON feed_changes (at, hash);
    CREATE TABLE feed_follows (
        author TEXT NOT NULL,
        path TEXT NOT NULL,
        PRIMARY KEY (author, path)
    ) STRICT, WITHOUT ROWID;";

/// The newest entries of an author's feed.
#[derive(Query)]
#[query(reply = Vec<FeedEntry>)]
pub(crate) struct FeedOf {
    pub(crate) follower: String,
    pub(crate) limit: u32,
}

/// A commit of somebody else.
#[derive(Debug)]
pub(crate) struct FeedEntry {
    pub(crate) commit: String,
    pub(crate) author: String,
    /// Seconds since 1970, if the commit names a date.
    pub(crate) at: Option<i64>,
    pub(crate) subject: String,
    /// How many of the followed files it changes, and one of them.
    pub(crate) files: u64,
    pub(crate) file: String,
}

#[projection(name = "feed", version = 1, schema = FEED)]
impl Feed {
    #[on]
    fn committed(&self, tx: &Transaction<'_>, event: &Committed) -> rusqlite::Result<usize> {
        tx.prepare_cached("INSERT INTO feed_commits VALUES (?1, ?2)")?
            .execute(params![event.commit, event.subject])
    }

    #[on]
    fn changed(&self, tx: &Transaction<'_>, event: &Changed) -> rusqlite::Result<usize> {
        tx.prepare_cached("INSERT INTO feed_changes VALUES (?1, ?2, ?3, ?4)")?.execute(params![
            event.at,
            event.commit,
            event.author,
            event.path
        ])?;
        tx.prepare_cached("INSERT INTO feed_follows VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
            .execute(params![event.author, event.path])
    }

    /// Commits and files reach the log on their own, so an entry is ordered by its date, not by its place in the log.
    #[query]
    fn feed_of(db: &Connection, query: &FeedOf) -> rusqlite::Result<Vec<FeedEntry>> {
        let mut entries = db.prepare_cached(
            "SELECT hash, changes.author, at, subject, count(*), min(changes.path)
             FROM feed_changes AS changes JOIN feed_commits USING (hash)
             JOIN feed_follows AS follows
                 ON follows.author = ?1 AND follows.path = changes.path
             WHERE changes.author <> ?1
             GROUP BY at, hash ORDER BY at DESC, hash DESC LIMIT ?2",
        )?;
        let entries = entries.query_map(params![query.follower, query.limit], |row| {
            Ok(FeedEntry {
                commit: row.get(0)?,
                author: row.get(1)?,
                at: row.get(2)?,
                subject: row.get(3)?,
                files: row.get::<_, u32>(4)?.into(),
                file: row.get(5)?,
            })
        })?;
        entries.collect()
    }
}
