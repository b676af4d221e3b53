//! Orders and parcels, and a consumer of each kind that notices what was handled twice, not at all, or out of order.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::{App, Command, CommandId, Event, Header, aggregate, projection};

use crate::bank::sqlite;
use crate::effects::{Charges, Letterbox, Stamps};

pub(crate) type Failed = Box<dyn Error + Send + Sync>;

/// How many writers there are; each numbers its commands 0, 1, 2 …
pub(crate) const WRITERS: u64 = 8;

/// How many orders they write to.
const ORDERS: u64 = 12;

#[derive(Event, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[event(name = "order.placed")]
pub(crate) struct Placed {
    pub(crate) writer: u64,
    pub(crate) number: u64,
    /// Some commands emit two events; this tells them apart.
    pub(crate) part: u64,
}

#[derive(Command, Clone, Debug)]
pub(crate) struct Place {
    pub(crate) writer: u64,
    pub(crate) number: u64,
}

impl Place {
    /// The same for the same command, in any life of the process.
    pub(crate) fn id(&self) -> CommandId {
        CommandId::from_name(&format!("{} {}", self.writer, self.number))
    }

    /// The order that it goes to: several writers meet in each.
    pub(crate) fn order(&self) -> String {
        ((self.writer + self.number) % ORDERS).to_string()
    }

    /// How many events it emits.
    pub(crate) fn parts(&self) -> u64 {
        if self.number.is_multiple_of(4) { 2 } else { 1 }
    }
}

#[derive(Default)]
pub(crate) struct Order;

#[aggregate(category = "order", events = OrderEvent)]
impl Order {
    #[command]
    fn place(&self, command: Place) -> Vec<Placed> {
        let Place { writer, number } = command;
        (0..command.parts()).map(|part| Placed { writer, number, part }).collect()
    }
    #[apply]
    fn placed(&mut self, _: &Placed) {}
}

/// How many parcels there are.
const PARCELS: u64 = 5;

#[derive(Event, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[event(name = "parcel.packed")]
pub(crate) struct Packed {
    pub(crate) order: Placed,
}

#[derive(Debug, thiserror::Error)]
#[error("number {0} does not go into a parcel")]
pub(crate) struct TooLarge(u64);

/// Packs each order that is placed; it hears of them.
#[derive(Default)]
pub(crate) struct Parcel;

#[aggregate(category = "parcel", events = ParcelEvent, error = TooLarge)]
impl Parcel {
    #[on(to = event.parcel())]
    fn order_placed(&self, event: &Placed) -> Result<Packed, TooLarge> {
        if event.is_odd_one(67, 23) {
            return Err(TooLarge(event.number));
        }
        Ok(Packed { order: event.clone() })
    }
    #[apply]
    fn packed(&mut self, _: &Packed) {}
}

impl Placed {
    /// The parcel that it goes to.
    pub(crate) fn parcel(&self) -> String {
        (self.number % PARCELS).to_string()
    }

    /// Whether it is one of those that cannot be handled: only some writers have such, so that enough goes on behind none.
    fn is_odd_one(&self, modulus: u64, remainder: u64) -> bool {
        self.writer.is_multiple_of(3) && self.number % modulus == remainder
    }
}

/// In memory: the positions of each order, in the order in which they were folded.
#[derive(Default)]
pub(crate) struct Seen(pub(crate) BTreeMap<String, Vec<u64>>);

#[projection(name = "seen")]
impl Seen {
    #[on]
    fn placed(&mut self, _: &Placed, header: &Header) {
        let of = self.0.entry(header.stream.to_string()).or_default();
        of.push(header.position.as_u64());
    }
}

/// In tables: the same. Folding an event twice breaks the primary key.
#[derive(Default)]
pub(crate) struct Book;

#[projection(
    name = "book",
    schema = "CREATE TABLE book (position INTEGER PRIMARY KEY, stream TEXT NOT NULL);
              CREATE TABLE book_length (stream TEXT PRIMARY KEY, length INTEGER NOT NULL);"
)]
impl Book {
    #[on]
    fn placed(&self, tx: &Transaction<'_>, _: &Placed, header: &Header) -> rusqlite::Result<()> {
        let stream = header.stream.as_str();
        tx.execute("INSERT INTO book VALUES (?1, ?2)", (header.position.as_u64() as i64, stream))?;
        tx.execute(
            "INSERT INTO book_length VALUES (?1, 1) ON CONFLICT (stream) DO UPDATE SET length = length + 1",
            [stream],
        )?;
        Ok(())
    }
}

impl Book {
    /// The same shape as the view in memory.
    pub(crate) fn read(db: &Connection) -> rusqlite::Result<BTreeMap<String, Vec<u64>>> {
        let mut book = BTreeMap::<String, Vec<u64>>::new();
        let mut statement = db.prepare("SELECT stream, position FROM book ORDER BY position")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let position: i64 = row.get(1)?;
            book.entry(row.get(0)?).or_default().push(position as u64);
        }
        let mut statement = db.prepare("SELECT stream, length FROM book_length")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (stream, length): (String, i64) = (row.get(0)?, row.get(1)?);
            assert_eq!(book.get(&stream).map(Vec::len), Some(length as usize), "{stream}");
        }
        Ok(book)
    }
}

/// In tables, and it cannot handle every event: those of a writer are kept in order.
pub(crate) struct Picky(Arc<Rules>);

/// Which events a consumer cannot handle.
#[derive(Default)]
pub(crate) struct Rules {
    /// Whether the permanent errors are gone.
    mended: AtomicBool,
    /// How often the others were tried, by position.
    tried: Mutex<HashMap<u64, u32>>,
}

impl Rules {
    pub(crate) fn mend(&self, mended: bool) {
        self.mended.store(mended, Ordering::Relaxed);
    }

    pub(crate) fn check(&self, event: &Placed, position: u64) -> Result<(), Failed> {
        if event.is_odd_one(61, 17) && !self.mended.load(Ordering::Relaxed) {
            return Err(format!("number {} is none that it likes", event.number).into());
        }
        if event.number % 53 == 5 {
            let mut tried = self.tried.lock().unwrap();
            let tried = tried.entry(position).or_default();
            *tried += 1;
            if *tried <= 2 {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
        }
        Ok(())
    }
}

#[projection(
    name = "picky",
    retry(attempts = 4, first = "1 ms", longest = "2 ms"),
    schema = "CREATE TABLE picky (
                  row INTEGER PRIMARY KEY AUTOINCREMENT,
                  position INTEGER NOT NULL UNIQUE,
                  writer INTEGER NOT NULL
              )"
)]
impl Picky {
    #[on(key = event.writer)]
    fn placed(&self, tx: &Transaction<'_>, event: &Placed, header: &Header) -> Result<(), Failed> {
        let position = header.position.as_u64();
        tx.execute(
            "INSERT INTO picky (position, writer) VALUES (?1, ?2)",
            (position as i64, event.writer as i64),
        )?;
        // After it has written: a failure must take that back.
        self.0.check(event, position)
    }
}

impl Picky {
    /// The positions of each writer, in the order in which they were folded.
    pub(crate) fn read(db: &Connection) -> rusqlite::Result<BTreeMap<String, Vec<u64>>> {
        let mut picky = BTreeMap::<String, Vec<u64>>::new();
        let mut statement = db.prepare("SELECT writer, position FROM picky ORDER BY row")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (writer, position): (i64, i64) = (row.get(0)?, row.get(1)?);
            picky.entry(writer.to_string()).or_default().push(position as u64);
        }
        Ok(picky)
    }
}

/// The files of one run.
pub(crate) struct Files(pub(crate) PathBuf);

impl Files {
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("log.db")
    }

    /// How many views are being built anew, or were when the process was killed.
    pub(crate) fn shadows(&self) -> usize {
        let names = std::fs::read_dir(&self.0).unwrap().map(|file| file.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".shadow")).count()
    }

    pub(crate) fn charges(&self) -> PathBuf {
        self.0.join("charges.db")
    }

    pub(crate) fn letterbox(&self) -> PathBuf {
        self.0.join("letterbox.txt")
    }
}

/// What each consumer that cannot handle every event goes by.
#[derive(Default)]
pub(crate) struct AllRules([Arc<Rules>; 4]);

impl AllRules {
    /// Another one of the picky projection, for a rebuild.
    pub(crate) fn picky(&self) -> Picky {
        Picky(Arc::clone(&self.0[0]))
    }

    pub(crate) fn mend(&self, mended: bool) {
        self.0.iter().for_each(|rules| rules.mend(mended));
    }
}

/// An app with all consumers, and what they go by.
pub(crate) async fn start(files: &Files) -> (App, AllRules) {
    let rules = AllRules::default();
    let [picky, stamps, charges, letterbox] = rules.0.clone();
    let app = App::builder()
        .store(sqlite(files.log()))
        .aggregate::<Order>()
        .aggregate::<Parcel>()
        .projection(Seen::default())
        .projection(Book)
        .projection(Picky(picky))
        .reactor(Stamps(stamps))
        .reactor(Charges::open(&files.charges(), charges))
        .reactor(Letterbox::open(&files.letterbox(), letterbox))
        .start()
        .await
        .unwrap();
    (app, rules)
}
