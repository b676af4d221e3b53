//! Rows, letters and checkpoint of a view in tables, which move together.

use std::error::Error;
use std::sync::Arc;

use super::Target;
use crate::clock::Timestamp;
use crate::letters::rows;
use crate::letters::shelf::{Change, Shelved};
use crate::processor::file::{self, Declared, Entry, ViewsFile};
use crate::processor::rebuild::Replaced;
use crate::processor::{Chunk, Keeper};
use crate::projection::Projection;
use crate::store::StoreError;
use crate::stream::Position;

/// How many positions may be passed without an event for this view before the checkpoint is written down all the same. They
/// are looked through again after a restart, which takes a few milliseconds.
const UNSAVED: u64 = 10_000;

pub(super) struct TableKeeper<P> {
    name: &'static str,
    target: Target<P>,
    file: ViewsFile,
    /// What the file says.
    position: Position,
    time: Timestamp,
    replayed: Position,
    /// The file, if it holds a shadow; it goes when the connection is closed.
    pub(super) shadow: Option<ShadowFile>,
    /// Where a view that is replaced is kept.
    kept: ViewsFile,
    /// The write-ahead log may hold what was deleted when a subject was forgotten.
    #[cfg(feature = "personal")]
    unwiped: bool,
}

/// The file of a shadow, or of a view that is folded to be looked at, which is of no use without it.
pub(super) struct ShadowFile(pub(super) ViewsFile);

impl Drop for ShadowFile {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove() {
            tracing::warn!(%error, file = %self.0, "a view that is of no use any more cannot be removed");
        }
    }
}

impl<P: Projection> TableKeeper<P> {
    pub(super) fn open(
        projection: Arc<P>,
        file: &ViewsFile,
        kept: &ViewsFile,
        declared: &Declared,
    ) -> Result<(Self, Shelved, Entry), StoreError> {
        let mut connection = file.open()?;
        let entry = Entry::prepare(&mut connection, file, declared)?;
        let shelved = rows::load(&connection, P::NAME).map_err(|error| file.failed(error))?;
        let Entry { position, time, replayed, .. } = entry;
        let target = Target { projection, connection };
        let (name, file, kept) = (P::NAME, file.clone(), kept.clone());
        let keeper = Self {
            name,
            target,
            file,
            position,
            time,
            replayed,
            shadow: None,
            kept,
            #[cfg(feature = "personal")]
            unwiped: false,
        };
        Ok((keeper, shelved, entry))
    }

    /// Opens a shadow for which events up to `replayed` are a replay. After a crash it is thrown away, so it need not survive one.
    pub(super) fn open_shadow(
        projection: Arc<P>,
        shadow: ShadowFile,
        declared: &Declared,
        replayed: Position,
    ) -> Result<(Self, Shelved), StoreError> {
        let (mut keeper, shelved, _) = Self::open(projection, &shadow.0, &shadow.0, declared)?;
        // Its rows are copied out of it one by one, and with it goes what it has deleted.
        let settings = "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;
                        PRAGMA cache_size = -65536; PRAGMA secure_delete = OFF;";
        let connection = &keeper.target.connection;
        connection.execute_batch(settings).map_err(|error| shadow.0.failed(error))?;
        keeper.replayed = replayed;
        keeper.shadow = Some(shadow);
        Ok((keeper, shelved))
    }

    /// Writes down, in the open transaction, what has changed and the checkpoint, and commits.
    fn commit(
        &self,
        position: Position,
        time: Timestamp,
        changes: &[Change],
    ) -> rusqlite::Result<()> {
        let connection = &self.target.connection;
        rows::save(connection, self.name, changes)?;
        file::save(connection, self.name, position, time)?;
        connection.execute_batch("COMMIT")
    }
}

#[cfg(feature = "personal")]
impl<P: Projection> TableKeeper<P> {
    /// Empties the write-ahead log if it may hold what was forgotten. A reader that does not end is not waited for longer than
    /// the file's patience; then it is done after the next transaction, or when the view is closed.
    fn wipe(&mut self) {
        if !self.unwiped {
            return;
        }
        let connection = &self.target.connection;
        let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        match busy {
            Ok(false) => self.unwiped = false,
            Ok(true) => tracing::warn!(
                projection = self.name,
                file = %self.file,
                "a query holds the write-ahead log, which may hold what was forgotten; it is emptied later"
            ),
            Err(error) => tracing::warn!(
                projection = self.name,
                file = %self.file,
                %error,
                "the write-ahead log, which may hold what was forgotten, cannot be emptied yet"
            ),
        }
    }
}

impl<P: Projection> Keeper for TableKeeper<P> {
    type Target = Target<P>;

    /// A transaction costs some tens of microseconds, an event a few.
    const CHUNK: usize = 2_048;

    /// Nobody waits for a shadow.
    fn chunk(&self) -> usize {
        if self.shadow.is_none() { Self::CHUNK } else { usize::MAX }
    }

    fn checkpoint(&self) -> (Position, Timestamp) {
        (self.position, self.time)
    }

    fn replayed(&self) -> Position {
        self.replayed
    }

    fn keep(
        &mut self,
        fold: &mut dyn FnMut(&mut Target<P>) -> Chunk,
    ) -> Result<Chunk, Box<dyn Error + Send + Sync>> {
        let file = self.file.clone();
        let _turn = file.turn();
        self.target.connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut chunk = fold(&mut self.target);
        if self.target.connection.is_autocommit() {
            chunk.ended = true;
            return Ok(chunk);
        }
        let passed = self.position.behind(chunk.through);
        let is_idle = chunk.time.is_none() && chunk.changes.is_empty() && passed < UNSAVED;
        if chunk.failure.is_some() || is_idle {
            chunk.changes.clear();
            self.target.connection.execute_batch("ROLLBACK")?;
            return Ok(chunk);
        }
        let (position, time) = (self.position.max(chunk.through), chunk.time.unwrap_or(self.time));
        if let Err(error) = self.commit(position, time, &chunk.changes) {
            if !self.target.connection.is_autocommit() {
                self.target.connection.execute_batch("ROLLBACK")?;
            }
            return Err(error.into());
        }
        (self.position, self.time) = (position, time);
        #[cfg(feature = "personal")]
        {
            self.unwiped |= chunk.forgets;
            self.wipe();
        }
        Ok(chunk)
    }

    fn close(&mut self, position: Position) -> Result<(), Box<dyn Error + Send + Sync>> {
        let _turn = self.file.turn();
        if position > self.position {
            file::save(&self.target.connection, self.name, position, self.time)?;
            self.position = position;
        }
        // Readers may outlive this connection, and only the last one empties the write-ahead log by itself.
        let empty = |_: &rusqlite::Row<'_>| Ok(());
        self.target.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], empty)?;
        Ok(())
    }

    fn install(
        &mut self,
        shadow: &mut Self,
        at: (Position, Timestamp),
        letters: &[Change],
        replaced: Replaced,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        if let Replaced::Kept(letters) = replaced {
            self.file.keep(&self.kept, self.name, &letters)?;
        }
        self.file.install(&shadow.file, self.name, at, letters)?;
        (self.position, self.time) = at;
        self.target.projection = Arc::clone(&shadow.target.projection);
        // What it replaces may have kept what it should not have.
        #[cfg(feature = "personal")]
        {
            self.unwiped = true;
            self.wipe();
        }
        Ok(())
    }
}
