//! The bare database that the log is measured against: the same rows in the same columns, and no secondary index.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::path::Path;
use std::time::{Duration, Instant};

use tidings::sqlite::rusqlite::types::Value;
use tidings::sqlite::rusqlite::{Connection, Result, params_from_iter};

/// A row of the log, as it stands there.
pub(crate) type Row = Vec<Value>;

/// Reads up to `limit` rows out of a log, from position `first` on.
pub(crate) fn read(log: &Path, first: u64, limit: usize) -> Result<Vec<Row>> {
    let connection = Connection::open(log)?;
    let mut statement = connection
        .prepare("SELECT * FROM events WHERE position >= ?1 ORDER BY position LIMIT ?2")?;
    let columns = statement.column_count();
    let rows = statement.query_map([first as i64, limit as i64], |row| {
        (0..columns).map(|column| row.get(column)).collect()
    })?;
    rows.collect()
}

/// A database with the log's table of events and nothing else, in WAL mode with `synchronous=FULL`.
pub(crate) struct Bare {
    connection: Connection,
    insert: String,
    next: i64,
}

impl Bare {
    /// Makes the database at `path`, with the table as `log` has it.
    pub(crate) fn create(path: &Path, log: &Path) -> Result<Self> {
        let table: String = Connection::open(log)?.query_row(
            "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = 'events'",
            [],
            |row| row.get(0),
        )?;
        let connection = Connection::open(path)?;
        connection.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {table};"
        ))?;
        let columns = connection.prepare("SELECT * FROM events")?.column_count();
        let places = vec!["?"; columns].join(", ");
        Ok(Self { connection, insert: format!("INSERT INTO events VALUES ({places})"), next: 1 })
    }

    /// Appends `rows` in transactions of `size` rows each, and says how long it took.
    pub(crate) fn append(&mut self, rows: &[Row], size: usize) -> Result<Duration> {
        let start = Instant::now();
        for rows in rows.chunks(size.max(1)) {
            let transaction = self.connection.transaction()?;
            {
                let mut insert = transaction.prepare_cached(&self.insert)?;
                for row in rows {
                    let position = [Value::Integer(self.next)];
                    insert.execute(params_from_iter(position.iter().chain(row.iter().skip(1))))?;
                    self.next += 1;
                }
            }
            transaction.commit()?;
        }
        Ok(start.elapsed())
    }
}
