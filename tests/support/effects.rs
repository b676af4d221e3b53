//! Reactors whose effects can be counted: guarded by the framework's transaction, guarded by an inbox, and not guarded at all.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::{Delivery, DeliveryId, ErrorClass, InboxError, idempotent, reactor};

use crate::orders::{Failed, Placed, Rules};

/// What was done for each key, in order: the positions of the events.
pub(crate) type Done = BTreeMap<String, Vec<u64>>;

fn done(db: &Connection, sql: &str) -> rusqlite::Result<Done> {
    let mut done = Done::new();
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (writer, position): (i64, i64) = (row.get(0)?, row.get(1)?);
        done.entry(writer.to_string()).or_default().push(position as u64);
    }
    Ok(done)
}

/// Writes to the file of the views, in the transaction that it is given.
pub(crate) struct Stamps(pub(crate) Arc<Rules>);

#[reactor(
    name = "stamps",
    concurrency = 4,
    retry(attempts = 4, first = "1 ms", longest = "2 ms"),
    classify = ErrorClass::of
)]
impl Stamps {
    #[on(key = event.writer)]
    fn placed(
        &self,
        tx: &Transaction<'_>,
        event: &Placed,
        delivery: &Delivery,
    ) -> Result<(), Failed> {
        let position = delivery.position.as_u64();
        tx.execute_batch(
            "CREATE TABLE IF NOT EXISTS stamps (
                 row INTEGER PRIMARY KEY AUTOINCREMENT, position INTEGER, writer INTEGER
             )",
        )?;
        tx.execute(
            "INSERT INTO stamps (position, writer) VALUES (?1, ?2)",
            (position as i64, event.writer as i64),
        )?;
        // After it has written: a failure must take that back.
        self.0.check(event, position)
    }
}

impl Stamps {
    /// What it has done, by writer.
    pub(crate) fn read(db: &Connection) -> rusqlite::Result<Done> {
        if !db.table_exists(None, "stamps")? {
            return Ok(Done::new());
        }
        done(db, "SELECT writer, position FROM stamps ORDER BY row")
    }
}

/// Writes to a database of the user's own, guarded by the delivery's id.
pub(crate) struct Charges {
    db: Arc<Mutex<Connection>>,
    rules: Arc<Rules>,
}

#[derive(Debug, thiserror::Error)]
enum ChargeError {
    #[error(transparent)]
    Inbox(#[from] InboxError),
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
fn charge(
    tx: &rusqlite::Transaction<'_>,
    id: DeliveryId,
    writer: u64,
    position: u64,
) -> Result<(), ChargeError> {
    tx.execute(
        "INSERT INTO charges (position, writer) VALUES (?1, ?2)",
        (position as i64, writer as i64),
    )?;
    Ok(())
}

#[reactor(
    name = "charges",
    concurrency = 4,
    retry(attempts = 4, first = "1 ms", longest = "2 ms"),
    classify = ErrorClass::of
)]
impl Charges {
    #[on(key = event.writer)]
    async fn placed(&self, event: &Placed, delivery: &Delivery) -> Result<(), Failed> {
        let (db, rules) = (Arc::clone(&self.db), Arc::clone(&self.rules));
        let (event, id, position) = (event.clone(), delivery.id, delivery.position.as_u64());
        let work = move || {
            let mut db = db.lock().unwrap();
            let tx = db.transaction()?;
            charge(&tx, id, event.writer, position)?;
            tx.commit()?;
            // After its effect: it must not be repeated by the next attempt.
            rules.check(&event, position)
        };
        tokio::task::spawn_blocking(work).await?
    }
}

impl Charges {
    pub(crate) fn open(path: &Path, rules: Arc<Rules>) -> Self {
        let db = Connection::open(path).unwrap();
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             CREATE TABLE IF NOT EXISTS charges (
                 row INTEGER PRIMARY KEY AUTOINCREMENT, position INTEGER, writer INTEGER
             )",
        )
        .unwrap();
        Self { db: Arc::new(Mutex::new(db)), rules }
    }

    /// What it has done, by writer.
    pub(crate) fn read(path: &Path) -> rusqlite::Result<Done> {
        done(&Connection::open(path)?, "SELECT writer, position FROM charges ORDER BY row")
    }
}

/// Appends to a file, which knows no transaction.
pub(crate) struct Letterbox {
    file: File,
    rules: Arc<Rules>,
}

#[reactor(
    name = "letterbox",
    concurrency = 4,
    retry(attempts = 4, first = "1 ms", longest = "2 ms"),
    classify = ErrorClass::of
)]
impl Letterbox {
    #[on]
    async fn placed(&self, event: &Placed, delivery: &Delivery) -> Result<(), Failed> {
        let position = delivery.position.as_u64();
        self.rules.check(event, position)?;
        // Others have their turn, of other keys, and perhaps the process ends here.
        tokio::task::yield_now().await;
        let line = format!("{} {position} {} end\n", delivery.id, delivery.stream);
        (&self.file).write_all(line.as_bytes())?;
        Ok(())
    }
}

impl Letterbox {
    /// Begins a new life in the file.
    pub(crate) fn open(path: &Path, rules: Arc<Rules>) -> Self {
        let file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        // The last line of the life before may be torn.
        (&file).write_all(b"\nlife\n").unwrap();
        Self { file, rules }
    }

    /// What each life has done, in order.
    pub(crate) fn read(path: &Path) -> Vec<Vec<Sent>> {
        let text = std::fs::read_to_string(path).unwrap();
        let mut lives = Vec::new();
        for line in text.lines() {
            if line == "life" {
                lives.push(Vec::new());
            }
            let Some(line) = line.strip_suffix(" end") else {
                continue;
            };
            let words: Vec<_> = line.split(' ').collect();
            let (id, position) = (words[0].to_owned(), words[1].parse().unwrap());
            let life: &mut Vec<_> = lives.last_mut().unwrap();
            life.push(Sent { id, position, stream: words[2].to_owned() });
        }
        lives
    }
}

/// An effect that was not guarded.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The id of the delivery.
    pub(crate) id: String,
    pub(crate) position: u64,
    pub(crate) stream: String,
}
