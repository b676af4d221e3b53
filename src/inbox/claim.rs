//! The key of a call, in its table and within a savepoint of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, ErrorCode, params};

use super::{Call, InboxError};
use crate::clock::{Clock, SystemClock};
use crate::telemetry::chain;

/// How many expired keys a new one deletes at most. With one the table would not grow beyond what is kept; with eight it
/// shrinks to that in a seventh as many calls as have expired at once. More would make some call pay for others.
const CLEARED: i64 = 8;

/// `input` tells whether two calls wanted the same, see [`Call::fingerprint`]; `answer` is JSON, NULL while the body runs;
/// `expires` is in seconds since the Unix epoch.
const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS tidings_inbox (
        scope TEXT NOT NULL,
        key TEXT NOT NULL,
        input BLOB NOT NULL,
        answer TEXT,
        expires INTEGER NOT NULL,
        PRIMARY KEY (scope, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS tidings_inbox_expires ON tidings_inbox (expires);";

/// A key that has expired but is still there counts as gone. Seconds are cut off, so a key whose second has come may
/// still have a part of it to live.
const CLAIM: &str = "
    INSERT INTO tidings_inbox (scope, key, input, expires) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (scope, key) DO UPDATE SET input = excluded.input, answer = NULL, expires = excluded.expires
    WHERE expires < ?5";

const FIND: &str = "SELECT input, answer FROM tidings_inbox WHERE scope = ?1 AND key = ?2";

const KEEP: &str = "
    UPDATE tidings_inbox SET answer = ?3 WHERE scope = ?1 AND key = ?2 AND answer IS NULL";

const CLEAR: &str = "
    DELETE FROM tidings_inbox WHERE (scope, key) IN
    (SELECT scope, key FROM tidings_inbox WHERE expires < ?1 ORDER BY expires LIMIT ?2)";

/// Guards of one transaction that are not nested, as those of two futures that are polled in turns, must not end each
/// other's savepoint unnoticed: so each has a name of its own.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// How a call begins.
#[derive(Debug)]
pub(super) enum Begun<'c> {
    First(Claim<'c>),
    Again(Kept),
}

/// What the first call answered.
#[derive(Debug)]
pub struct Kept {
    pub(super) scope: &'static str,
    pub(super) key: String,
    pub(super) answer: String,
}

/// The first call for a key, while its body runs. Dropped, it undoes everything since it began.
#[derive(Debug)]
pub struct Claim<'c> {
    connection: &'c Connection,
    savepoint: String,
    scope: &'static str,
    key: String,
    is_open: bool,
}

impl<'c> Claim<'c> {
    /// Claims the key, unless it is there already.
    pub(super) fn begin(connection: &'c Connection, call: Call) -> Result<Begun<'c>, InboxError> {
        let (scope, fingerprint) = (call.scope, call.fingerprint());
        if call.key.is_empty() {
            return Err(InboxError::EmptyKey { scope });
        }
        let Call { key, keep, unwritable, .. } = call;
        if let Some(error) = unwritable {
            return Err(InboxError::Unwritable { scope, key, what: "input", source: error.into() });
        }
        let savepoint = format!("tidings_inbox_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut claim = Self { connection, savepoint, scope, key, is_open: false };
        connection
            .execute_batch(&format!("SAVEPOINT {}", claim.savepoint))
            .map_err(|error| claim.failed(error))?;
        claim.is_open = true;
        let now = now();
        let insert = || {
            connection.prepare_cached(CLAIM)?.execute(params![
                scope,
                claim.key,
                fingerprint,
                now.saturating_add_unsigned(keep),
                now
            ])
        };
        let inserted = match insert() {
            // There is no code of its own for a table that is not there.
            Err(error) if is_sql_error(&error) => {
                connection.execute_batch(TABLE).and_then(|()| insert())
            }
            outcome => outcome,
        };
        if inserted.map_err(|error| claim.failed(error))? > 0 {
            return Ok(Begun::First(claim));
        }
        let (found, answer): ([u8; 16], Option<String>) = connection
            .prepare_cached(FIND)
            .and_then(|mut find| {
                find.query_row(params![scope, claim.key], |row| Ok((row.get(0)?, row.get(1)?)))
            })
            .map_err(|error| claim.failed(error))?;
        claim.release()?;
        let key = std::mem::take(&mut claim.key);
        match answer {
            _ if found != fingerprint => Err(InboxError::OtherInput { scope, key }),
            Some(answer) => Ok(Begun::Again(Kept { scope, key, answer })),
            None => Err(InboxError::Unfinished { scope, key }),
        }
    }

    /// Keeps the answer with the effect.
    pub(super) fn keep(mut self, answer: serde_json::Result<String>) -> Result<(), InboxError> {
        let answer = answer.map_err(|error| InboxError::Unwritable {
            scope: self.scope,
            key: self.key.clone(),
            what: "answer",
            source: error.into(),
        })?;
        let kept = self
            .connection
            .prepare_cached(KEEP)
            .and_then(|mut keep| keep.execute(params![self.scope, self.key, answer]));
        match kept {
            Ok(0) => return Err(self.ended()),
            Ok(_) => {}
            // The table itself is gone, if this very transaction had made it.
            Err(error) if is_sql_error(&error) => return Err(self.ended()),
            Err(error) => return Err(self.failed(error)),
        }
        self.connection
            .prepare_cached(CLEAR)
            .and_then(|mut clear| clear.execute([now(), CLEARED]))
            .map_err(|error| self.failed(error))?;
        self.release()
    }

    /// Ends the savepoint, and with it the transaction if there is none around it.
    fn release(&mut self) -> Result<(), InboxError> {
        match self.connection.execute_batch(&format!("RELEASE {}", self.savepoint)) {
            Ok(()) => {
                self.is_open = false;
                Ok(())
            }
            // There is no code of its own for a savepoint that is not there.
            Err(error) if is_sql_error(&error) => {
                self.is_open = false;
                Err(self.ended())
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: rusqlite::Error) -> InboxError {
        InboxError::Database { scope: self.scope, key: self.key.clone(), source: error.into() }
    }

    fn ended(&self) -> InboxError {
        InboxError::EndedTransaction { scope: self.scope, key: self.key.clone() }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // Without a transaction there is nothing left to undo: SQLite itself ends it after some failures, as a full disk.
        if !self.is_open || self.connection.is_autocommit() {
            return;
        }
        let undo = format!("ROLLBACK TO {0}; RELEASE {0}", self.savepoint);
        if let Err(error) = self.connection.execute_batch(&undo) {
            // If this is committed, the key is refused from now on, or found with its effect: it does not run twice.
            tracing::error!(
                function = self.scope,
                key = self.key,
                error = chain(&error),
                "an idempotent function failed, and what it wrote cannot be undone: roll back its transaction"
            );
        }
    }
}

/// Seconds since the Unix epoch.
fn now() -> i64 {
    i64::try_from(SystemClock.now().as_micros() / 1_000_000).unwrap_or(i64::MAX)
}

/// Whether SQLite refuses the statement, rather than failing to carry it out.
fn is_sql_error(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_none_or(|code| code == ErrorCode::Unknown)
}
