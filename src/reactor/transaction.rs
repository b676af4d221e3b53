//! Handlers of reactors that write through a transaction: each takes effect exactly once.
//!
//! An attempt is a transaction of its own on the file of the views. It writes down its delivery beside what the handler
//! writes; an attempt that finds its delivery there does nothing. What is finished by the stored checkpoint, and is no letter, is
//! never delivered again, so each transaction forgets it: the table holds what is in hand.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use parking_lot::Mutex;
use rusqlite::{Connection, params};

use super::Delivery;
use super::route::{Cause, Permanent};
use crate::app::Building;
use crate::processor::Trouble;
use crate::processor::file::ViewsFile;
use crate::projection::Transaction;
use crate::store::StoreError;

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS tidings_handled (
        consumer TEXT NOT NULL,
        position INTEGER NOT NULL,
        delivery BLOB NOT NULL,
        PRIMARY KEY (consumer, position)
    ) WITHOUT ROWID";

/// Nothing is claimed of what is finished: an attempt that an app has left behind at its end may come as late as that. A row of
/// another delivery at the position is one of a later event that an older copy of the log does not hold.
const CLAIM: &str = "
    INSERT INTO tidings_handled SELECT ?1, ?2, ?3
    WHERE ?2 > (SELECT position FROM tidings_views WHERE name = ?1)
        OR EXISTS (SELECT 1 FROM tidings_letters WHERE consumer = ?1 AND position = ?2)
    ON CONFLICT (consumer, position) DO UPDATE SET delivery = excluded.delivery
    WHERE delivery <> excluded.delivery";

const FORGET: &str = "
    DELETE FROM tidings_handled
    WHERE consumer = ?1
        AND position <= (SELECT position FROM tidings_views WHERE name = ?1)
        AND position NOT IN (SELECT position FROM tidings_letters WHERE consumer = ?1)";

/// Where the transactions of one reactor are made.
pub(super) struct Guard {
    name: &'static str,
    file: ViewsFile,
    connection: Mutex<Connection>,
}

impl Guard {
    pub(super) fn open(building: &mut Building, name: &'static str) -> Result<Self, StoreError> {
        let file = building.views_file();
        let connection = file.open()?;
        {
            let _turn = file.turn();
            connection.execute_batch(TABLE).map_err(|error| file.failed(error))?;
        }
        Ok(Self { name, file, connection: Mutex::new(connection) })
    }

    /// Runs `handler` in a transaction, unless this delivery was handled before. Blocks.
    pub(super) fn once(
        &self,
        delivery: &Delivery,
        handler: impl FnOnce(&Transaction<'_>) -> Result<(), Cause>,
    ) -> Result<(), Cause> {
        let _turn = self.file.turn();
        let connection = self.connection.lock();
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let handled =
            catch_unwind(AssertUnwindSafe(|| self.handle(&connection, delivery, handler)));
        let outcome = match handled {
            Ok(Ok(())) if connection.is_autocommit() => {
                Err(Permanent(Trouble::EndedTransaction.into()).into())
            }
            Ok(Ok(())) => connection.execute_batch("COMMIT").map_err(Into::into),
            Ok(Err(error)) => Err(error),
            Err(panic) => {
                undo(&connection);
                resume_unwind(panic);
            }
        };
        undo(&connection);
        outcome
    }

    fn handle(
        &self,
        connection: &Connection,
        delivery: &Delivery,
        handler: impl FnOnce(&Transaction<'_>) -> Result<(), Cause>,
    ) -> Result<(), Cause> {
        connection.prepare_cached(FORGET)?.execute([self.name])?;
        let position = delivery.header.position.as_u64() as i64;
        let claimed = connection.prepare_cached(CLAIM)?.execute(params![
            self.name,
            position,
            delivery.id.as_uuid().as_bytes()
        ])?;
        match claimed {
            0 => Ok(()),
            _ => handler(&Transaction::new(connection)),
        }
    }
}

/// Takes back what is not committed.
fn undo(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "a transaction cannot be taken back");
    }
}
