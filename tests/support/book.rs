//! A projection in tables that notices when an event is folded twice.
#![allow(dead_code, reason = "each test file that mounts this uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;

use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection, params};
use tidings::{App, Handlers, Header, Projection, Tables};

use crate::bank::*;

/// Balances in a table, and every position that was folded in another: folding one twice breaks its primary key.
pub(crate) struct Passbook<const VERSION: u32>;

impl<const VERSION: u32> Projection for Passbook<VERSION> {
    const NAME: &'static str = "book";
    const VERSION: u32 = VERSION;
    type Storage = Tables;

    fn handlers(handlers: &mut Handlers<Self, Tables>) {
        handlers
            .schema(
                "CREATE TABLE book_balance (account TEXT PRIMARY KEY, cents INTEGER NOT NULL);
                 CREATE TABLE book_seen (position INTEGER PRIMARY KEY, version INTEGER NOT NULL);",
            )
            .on(|_: &Self, tx: &Transaction<'_>, event: &Deposited, header: &Header| {
                Self::add(tx, header, event.cents)
            })
            .on(|_: &Self, tx: &Transaction<'_>, event: &Withdrawn, header: &Header| {
                Self::add(tx, header, -event.cents)
            });
    }
}

impl<const VERSION: u32> Passbook<VERSION> {
    fn add(tx: &Transaction<'_>, header: &Header, cents: i64) -> rusqlite::Result<()> {
        tx.execute(
            "INSERT INTO book_balance VALUES (?1, ?2)
             ON CONFLICT (account) DO UPDATE SET cents = cents + excluded.cents",
            params![header.stream.id(), cents],
        )?;
        tx.execute(
            "INSERT INTO book_seen VALUES (?1, ?2)",
            params![header.position.as_u64() as i64, VERSION],
        )?;
        Ok(())
    }
}

/// The view as it stands in the tables; the same shape as the naive one.
pub(crate) fn view(connection: &Connection) -> rusqlite::Result<Balances> {
    let of = connection
        .prepare("SELECT account, cents FROM book_balance")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    let seen = connection
        .prepare("SELECT position FROM book_seen ORDER BY position")?
        .query_map([], |row| row.get::<_, i64>(0).map(|p| p as u64))?
        .collect::<Result<_, _>>()?;
    Ok(Balances { of, seen })
}

/// An app that keeps the book beside the log at `path`.
pub(crate) async fn start<const VERSION: u32>(path: &Path) -> App {
    App::builder()
        .store(sqlite(path))
        .aggregate::<Account>()
        .projection(Passbook::<VERSION>)
        .start()
        .await
        .unwrap()
}

/// The view at the head of the log.
pub(crate) async fn level<const VERSION: u32>(app: &App) -> Balances {
    let reader = app.view::<Passbook<VERSION>>().at_least(app.head()).await;
    reader.unwrap().query(view).await.unwrap()
}
