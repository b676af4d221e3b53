//! Customers with personal data, and views of them, for the tests of what can be forgotten.
#![allow(dead_code, unused_imports, reason = "each test file that mounts this uses a part of it")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{Connection, Result as Sql, params};
use tidings::{
    App, AppBuilder, Command, Event, EventStore, Header, Personal, PersonalError, SendError, Shape,
    Sqlite, SubjectForgotten, aggregate, projection,
};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "customer.joined", version = 1)]
pub(crate) struct Joined {
    pub(crate) name: Personal<String>,
    pub(crate) tier: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) street: String,
    pub(crate) city: String,
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "customer.moved", version = 1)]
pub(crate) struct Moved {
    pub(crate) to: Personal<Address>,
    /// Of somebody else.
    pub(crate) reported_by: Option<Personal<String>>,
}

#[derive(Command, Clone, Debug)]
pub(crate) struct Join {
    pub(crate) name: Personal<String>,
}

impl Join {
    pub(crate) fn new(subject: &str, name: &str) -> Self {
        Self { name: Personal::new(subject, name.to_owned()) }
    }
}

#[derive(Command, Clone, Debug)]
pub(crate) struct Move {
    pub(crate) to: Personal<Address>,
    pub(crate) reported_by: Option<Personal<String>>,
}

/// Rejected with what the state knows.
#[derive(Command, Clone, Debug)]
pub(crate) struct Ask;

/// Emits the name that the state holds again.
#[derive(Command, Clone, Debug)]
pub(crate) struct JoinAgain;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name is {name:?}, at tier {tier}")]
pub(crate) struct Answer {
    pub(crate) name: Option<Result<String, PersonalError>>,
    pub(crate) tier: u32,
}

#[derive(Default, Clone, Debug, PartialEq, Shape, Serialize, Deserialize)]
pub(crate) struct Customer {
    name: Option<Personal<String>>,
    tier: u32,
}

#[aggregate(category = "customer", events = CustomerEvent, error = Answer, snapshot(every = 1))]
impl Customer {
    #[command]
    fn join(&self, command: Join) -> Joined {
        Joined { name: command.name, tier: self.tier + 1 }
    }
    #[command]
    fn move_to(&self, command: Move) -> Moved {
        Moved { to: command.to, reported_by: command.reported_by }
    }
    #[command]
    fn ask(&self, _: Ask) -> Result<(), Answer> {
        let name = self.name.as_ref().map(|name| name.get().cloned());
        Err(Answer { name, tier: self.tier })
    }
    #[command]
    fn join_again(&self, _: JoinAgain) -> Option<Joined> {
        let name = self.name.clone()?;
        Some(Joined { name, tier: self.tier + 1 })
    }
    #[apply]
    fn joined(&mut self, event: &Joined) {
        self.name = Some(event.name.clone());
        self.tier = event.tier;
    }
    #[apply]
    fn moved(&mut self, _: &Moved) {}
}

/// What the live aggregate `id` knows.
pub(crate) async fn ask(app: &App, id: &str) -> Answer {
    match app.send(id, Ask).await {
        Err(SendError::Rejected(answer)) => answer,
        other => panic!("it was not answered: {other:?}"),
    }
}

pub(crate) fn forgotten(subject: &str) -> Option<Result<String, PersonalError>> {
    Some(Err(PersonalError::Forgotten { subject: subject.to_owned() }))
}

pub(crate) fn known(name: &str) -> Option<Result<String, PersonalError>> {
    Some(Ok(name.to_owned()))
}

/// The names in a table, and the tier of each customer.
pub(crate) struct Table;

const TABLE: &str = "CREATE TABLE names (subject TEXT NOT NULL, name TEXT NOT NULL);
    CREATE TABLE tiers (stream TEXT PRIMARY KEY, tier INTEGER NOT NULL)";

#[projection(name = "table", version = 1, schema = TABLE)]
impl Table {
    #[on]
    fn joined(&self, tx: &Transaction<'_>, event: &Joined, header: &Header) -> Sql<()> {
        let Joined { name, tier } = event;
        if let Ok(value) = name.get() {
            tx.execute("INSERT INTO names VALUES (?, ?)", params![name.subject(), value])?;
        }
        let set = "INSERT INTO tiers VALUES (?, ?) ON CONFLICT DO UPDATE SET tier = excluded.tier";
        tx.execute(set, params![header.stream.as_str(), tier])?;
        Ok(())
    }

    #[on]
    fn forgotten(&self, tx: &Transaction<'_>, event: &SubjectForgotten) -> Sql<usize> {
        tx.execute("DELETE FROM names WHERE subject = ?", [&event.subject])
    }
}

impl Default for Table {
    fn default() -> Self {
        Self
    }
}

/// Everything that the table holds.
pub(crate) fn rows(db: &Connection) -> Sql<Vec<String>> {
    let all = "SELECT subject || ' ' || name FROM names
               UNION ALL SELECT stream || ' ' || tier FROM tiers ORDER BY 1";
    db.prepare(all)?.query_map([], |row| row.get(0))?.collect()
}

/// The values themselves, in memory, of each stream; they are not dropped when somebody is forgotten.
#[derive(Default)]
pub(crate) struct InMind {
    pub(crate) names: BTreeMap<String, Personal<String>>,
    pub(crate) forgotten: Vec<String>,
}

#[projection(name = "in_mind", version = 1)]
impl InMind {
    #[on]
    fn joined(&mut self, event: &Joined, header: &Header) {
        self.names.insert(header.stream.as_str().to_owned(), event.name.clone());
    }

    #[on]
    fn forgotten(&mut self, event: &SubjectForgotten) {
        self.forgotten.push(event.subject.clone());
    }
}

/// Cannot handle who has joined, and says so without a name.
#[derive(Default)]
pub(crate) struct Parking;

#[projection(name = "parking", version = 1)]
impl Parking {
    #[on]
    fn joined(&mut self, _: &Joined) -> Result<(), Box<dyn Error + Send + Sync>> {
        Err("it takes nobody".into())
    }
}

/// An app with all of them.
pub(crate) fn people(store: impl EventStore) -> AppBuilder {
    App::builder()
        .store(store)
        .aggregate::<Customer>()
        .projection(Table)
        .projection(InMind::default())
        .projection(Parking)
}

/// The files of `directory` that hold `needle`.
#[track_caller]
pub(crate) fn holding(directory: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut files = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        files += 1;
        if bytes.windows(needle.len()).any(|window| window[0] == needle[0] && window == needle) {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    assert!(files > 0, "{} is empty", directory.display());
    found.sort();
    found
}

/// The texts of an error and of all its causes.
pub(crate) fn texts(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The cause of type `E` in the chain of `error`.
pub(crate) fn cause<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// A second view of the file of keys, which no app has open.
pub(crate) fn open_keys(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}
