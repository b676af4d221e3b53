//! Letters as they are kept in the file of the views.

use rusqlite::types::Type;
use rusqlite::{Connection, Result, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::shelf::{Change, Shelved};
use super::{Letter, LetterState, Resolution};
use crate::stream::Position;

/// The tables; a letter and a resolution stand there as JSON, beside what a person may want to search for.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS tidings_letters (
        consumer TEXT NOT NULL,
        position INTEGER NOT NULL,
        key TEXT NOT NULL,
        state TEXT NOT NULL,
        event TEXT NOT NULL,
        stream TEXT NOT NULL,
        letter TEXT NOT NULL,
        PRIMARY KEY (consumer, position)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS tidings_resolutions (
        consumer TEXT NOT NULL,
        position INTEGER NOT NULL,
        resolution TEXT NOT NULL,
        PRIMARY KEY (consumer, position)
    ) WITHOUT ROWID;";

/// Reads the letters of `consumer`.
pub(crate) fn load(connection: &Connection, consumer: &str) -> Result<Shelved> {
    let mut shelved = Shelved::default();
    connection
        .prepare("SELECT letter FROM tidings_letters WHERE consumer = ?1")?
        .query_map([consumer], from_json::<Letter>)?
        .try_for_each(|letter| letter.map(|letter| shelved.apply(Change::Put(Box::new(letter)))))?;
    connection
        .prepare("SELECT resolution FROM tidings_resolutions WHERE consumer = ?1")?
        .query_map([consumer], from_json::<Resolution>)?
        .try_for_each(|resolution| {
            resolution.map(|resolution| shelved.apply(Change::Resolve(resolution)))
        })?;
    Ok(shelved)
}

/// Writes changes down, in the open transaction if there is one.
pub(crate) fn save(connection: &Connection, consumer: &str, changes: &[Change]) -> Result<()> {
    for change in changes {
        match change {
            Change::Put(letter) => connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO tidings_letters VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    consumer,
                    letter.position.as_u64() as i64,
                    &*letter.key,
                    name(letter.state),
                    &*letter.event,
                    letter.stream.as_str(),
                    to_json(letter)?,
                ])?,
            Change::Remove(_, position) => connection
                .prepare_cached(
                    "DELETE FROM tidings_letters WHERE consumer = ?1 AND position = ?2",
                )?
                .execute(params![consumer, position.as_u64() as i64])?,
            Change::Resolve(resolution) => connection
                .prepare_cached("INSERT OR REPLACE INTO tidings_resolutions VALUES (?1, ?2, ?3)")?
                .execute(params![
                    consumer,
                    resolution.position.as_u64() as i64,
                    to_json(resolution)?,
                ])?,
        };
    }
    Ok(())
}

/// Forgets the letters of a consumer that begins anew; what people have decided stays.
pub(crate) fn forget(connection: &Connection, consumer: &str) -> Result<()> {
    connection.execute("DELETE FROM tidings_letters WHERE consumer = ?1", [consumer])?;
    Ok(())
}

/// Puts `all` in the place of what is known of a consumer, in the open transaction.
pub(crate) fn replace(connection: &Connection, consumer: &str, all: &[Change]) -> Result<()> {
    for table in ["tidings_letters", "tidings_resolutions"] {
        connection.execute(&format!("DELETE FROM {table} WHERE consumer = ?1"), [consumer])?;
    }
    save(connection, consumer, all)
}

/// Forgets what is said of events after `head`.
pub(crate) fn forget_after(connection: &Connection, consumer: &str, head: Position) -> Result<()> {
    for table in ["tidings_letters", "tidings_resolutions"] {
        connection.execute(
            &format!("DELETE FROM {table} WHERE consumer = ?1 AND position > ?2"),
            params![consumer, head.as_u64() as i64],
        )?;
    }
    Ok(())
}

fn name(state: LetterState) -> &'static str {
    match state {
        LetterState::Retrying { .. } => "retrying",
        LetterState::Parked => "parked",
        LetterState::Waiting => "waiting",
    }
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn from_json<T: DeserializeOwned>(row: &Row<'_>) -> Result<T> {
    let text: String = row.get(0)?;
    serde_json::from_str(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, error.into()))
}
