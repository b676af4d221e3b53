//! Snapshots of a log in SQLite: those that wait for a transaction, and the table.
//!
//! ```text
//!  save ──▶ pending ──with the next group of commits──▶ table `snapshots`
//!             └── too many, or the log is closed: a transaction of their own ──▲
//! ```
//! A snapshot that is saved takes no lock that a commit holds, and no fsync: it waits in memory, newest of each stream, until
//! the writer takes it along. Until it is in the table it is answered from memory. A crash loses what waits, which costs
//! nothing but the time to fold those streams again.
//!
//! # Damage
//! Each row has a hash of all that stands in it, under the secret of the log. A row that was changed, or comes from another log,
//! is reported as damaged and never answered.
//!
//! # What fails
//! A snapshot that cannot be written never fails the commits that it went along with: they are written again without it, and
//! it is dropped with a warning.

use std::hash::Hasher;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};
use siphasher::sip::SipHasher13;

use super::file::{damaged, failed};
use super::tail::Secret;
use crate::store::{Snapshot, StoreError};
use crate::stream::{StreamId, Version};

/// How many snapshots may wait for the next commit, and how many bytes of them: what a log takes that is loaded from and not
/// written to. A group of commits takes all of them along, which adds a millisecond or two to it.
const MOST: usize = 1_024;
const MOST_BYTES: usize = 8 << 20;

/// The snapshots that wait.
#[derive(Default)]
pub(super) struct Pending {
    waiting: Mutex<Waiting>,
    /// As many as wait, so that a commit of a log without snapshots takes no lock.
    count: AtomicUsize,
}

#[derive(Default)]
struct Waiting {
    snapshots: HashMap<StreamId, Snapshot>,
    bytes: usize,
}

impl Pending {
    /// Takes snapshots in. Returns whether there are too many of them.
    pub(super) fn add(&self, snapshots: Vec<Snapshot>) -> bool {
        let mut waiting = self.waiting.lock();
        for snapshot in snapshots {
            waiting.bytes += snapshot.state.len();
            if let Some(earlier) = waiting.snapshots.insert(snapshot.stream.clone(), snapshot) {
                waiting.bytes -= earlier.state.len();
            }
        }
        self.count.store(waiting.snapshots.len(), Ordering::Release);
        waiting.snapshots.len() > MOST || waiting.bytes > MOST_BYTES
    }

    pub(super) fn get(&self, stream: &StreamId) -> Option<Snapshot> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.waiting.lock().snapshots.get(stream).cloned()
    }

    /// Those that wait, which they go on doing: they can be loaded from here until they are in the table.
    pub(super) fn all(&self) -> Vec<Snapshot> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        self.waiting.lock().snapshots.values().cloned().collect()
    }

    /// Lets go of those that are in the table by now, or never will be.
    pub(super) fn remove(&self, done: &[Snapshot]) {
        if done.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock();
        for snapshot in done {
            // One that was saved meanwhile waits for the next group.
            let is_it = |waiting: &Snapshot| Arc::ptr_eq(&waiting.state, &snapshot.state);
            if waiting.snapshots.get(&snapshot.stream).is_some_and(is_it) {
                waiting.snapshots.remove(&snapshot.stream);
                waiting.bytes -= snapshot.state.len();
            }
        }
        self.count.store(waiting.snapshots.len(), Ordering::Release);
    }
}

/// Writes snapshots within a transaction.
pub(super) fn insert(
    log: &Connection,
    secret: Secret,
    snapshots: &[Snapshot],
) -> rusqlite::Result<()> {
    let mut insert = log.prepare_cached(
        "INSERT INTO snapshots (stream, version, shape, state) VALUES (?, ?, ?, ?) ON CONFLICT (stream) \
         DO UPDATE SET version = excluded.version, shape = excluded.shape, state = excluded.state",
    )?;
    for snapshot in snapshots {
        // As text, which JSON is.
        let state = ToSqlOutput::Borrowed(ValueRef::Text(&snapshot.state));
        insert.execute(params![
            snapshot.stream.as_str(),
            snapshot.version.as_u64() as i64,
            stamp(secret, snapshot),
            state
        ])?;
    }
    Ok(())
}

/// The snapshot of a stream in the table.
pub(super) fn select(
    log: &Connection,
    secret: Secret,
    path: &Path,
    stream: &StreamId,
) -> Result<Option<Snapshot>, StoreError> {
    let mut select = log
        .prepare_cached("SELECT version, shape, state FROM snapshots WHERE stream = ?")
        .map_err(|error| failed(path, error))?;
    let found = select
        .query_row([stream.as_str()], |row| {
            let version = Version::new(row.get::<_, i64>(0)? as u64);
            let stamp = row.get_ref(1)?.as_blob()?.to_vec();
            Ok((version, stamp, Arc::from(row.get_ref(2)?.as_bytes()?)))
        })
        .optional();
    let unreadable = |why: &str| damaged(path, format!("the snapshot of stream {stream}: {why}"));
    match found {
        Ok(None) => Ok(None),
        Ok(Some((version, found, state))) => {
            let shape = found.first_chunk().copied().unwrap_or_default();
            let snapshot = Snapshot { stream: stream.clone(), version, shape, state };
            if found == stamp(secret, &snapshot) {
                Ok(Some(snapshot))
            } else {
                Err(unreadable("it is not as it was written"))
            }
        }
        Err(error) if error.sqlite_error_code().is_some() => Err(failed(path, error)),
        Err(error) => Err(unreadable(&error.to_string())),
    }
}

/// What stands in column `shape`: the shape, and the hash of the row.
fn stamp(secret: Secret, snapshot: &Snapshot) -> [u8; 24] {
    let mut hasher = SipHasher13::new_with_key(&secret.0);
    hasher.write_u64(snapshot.version.as_u64());
    hasher.write(&snapshot.shape);
    hasher.write_u64(snapshot.stream.as_str().len() as u64);
    hasher.write(snapshot.stream.as_str().as_bytes());
    hasher.write(&snapshot.state);
    let hash = hasher.finish().to_le_bytes();
    std::array::from_fn(|at| {
        let byte = snapshot.shape.iter().chain(&hash).nth(at);
        byte.copied().unwrap_or_default()
    })
}

/// Deletes all of them from the table.
pub(super) fn delete(log: &Connection) -> rusqlite::Result<()> {
    log.execute("DELETE FROM snapshots", []).map(drop)
}
