//! What a consumer without tables of its own keeps: its checkpoint and its letters.

use std::error::Error;

use crate::app::Building;
use crate::clock::Timestamp;
use crate::letters::shelf::{Change, Shelved};
#[cfg(feature = "sqlite")]
use crate::processor::file::{self, Ahead, Declared, Entry, Outdated, ViewsFile};
use crate::store::StoreError;
use crate::stream::Position;

/// Where a consumer begins.
#[derive(Debug)]
pub(crate) struct Begin {
    pub(crate) position: Position,
    pub(crate) time: Timestamp,
    /// Events up to here are a replay to it.
    pub(crate) replayed: Position,
    pub(crate) shelved: Shelved,
}

/// The checkpoint and the letters of one consumer; without the feature `sqlite` they last as long as the process.
#[derive(Debug)]
pub(crate) struct Ledger {
    #[cfg(feature = "sqlite")]
    file: ViewsFile,
    #[cfg(feature = "sqlite")]
    connection: rusqlite::Connection,
    #[cfg(feature = "sqlite")]
    name: &'static str,
}

impl Ledger {
    /// Opens the ledger of a consumer.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be opened, or belongs to another log.
    #[cfg(feature = "sqlite")]
    pub(crate) fn open(
        building: &mut Building,
        name: &'static str,
        version: u32,
    ) -> Result<(Self, Begin), StoreError> {
        let file = building.views_file();
        let mut connection = file.open()?;
        let declared = Declared {
            name,
            version,
            schema: "",
            log_id: building.store.log_id(),
            head: building.head.borrow().position,
            outdated: Outdated::BuildAnew,
            ahead: Ahead::GoOn,
        };
        let entry = Entry::prepare(&mut connection, &file, &declared)?;
        let shelved =
            crate::letters::rows::load(&connection, name).map_err(|error| file.failed(error))?;
        let Entry { position, time, replayed, .. } = entry;
        Ok((Self { file, connection, name }, Begin { position, time, replayed, shelved }))
    }

    /// Opens the ledger of a consumer.
    #[cfg(not(feature = "sqlite"))]
    pub(crate) fn open(
        building: &mut Building,
        _: &'static str,
        _: u32,
    ) -> Result<(Self, Begin), StoreError> {
        let begin = Begin {
            position: Position::START,
            time: Timestamp::default(),
            replayed: building.head.borrow().position,
            shelved: Shelved::default(),
        };
        Ok((Self {}, begin))
    }

    /// Writes changes down, and the checkpoint if it has moved: all of it, or nothing.
    ///
    /// # Errors
    /// The file could not be written; it says what it said.
    #[cfg(feature = "sqlite")]
    pub(crate) fn save(
        &mut self,
        checkpoint: Option<(Position, Timestamp)>,
        changes: &[Change],
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        if checkpoint.is_none() && changes.is_empty() {
            return Ok(());
        }
        let _turn = self.file.turn();
        let behavior = rusqlite::TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        crate::letters::rows::save(&transaction, self.name, changes)?;
        if let Some((position, time)) = checkpoint {
            file::save(&transaction, self.name, position, time)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Keeps nothing: there is no file.
    ///
    /// # Errors
    /// None.
    #[cfg(not(feature = "sqlite"))]
    pub(crate) fn save(
        &mut self,
        _: Option<(Position, Timestamp)>,
        _: &[Change],
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }

    /// Puts `letters` in the place of all that it keeps: all of it, or nothing.
    ///
    /// # Errors
    /// The file could not be written; it says what it said.
    #[cfg(feature = "sqlite")]
    pub(crate) fn replace(
        &mut self,
        letters: &[Change],
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let _turn = self.file.turn();
        let behavior = rusqlite::TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        crate::letters::rows::replace(&transaction, self.name, letters)?;
        transaction.commit()?;
        Ok(())
    }

    /// Keeps nothing: there is no file.
    ///
    /// # Errors
    /// None.
    #[cfg(not(feature = "sqlite"))]
    pub(crate) fn replace(&mut self, _: &[Change]) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }
}
