//! Personal data that can be forgotten, in a log that is never changed.
//!
//! A [`Personal`] field of an event is sealed with a key of the person whom it is about, the *subject*. The keys are kept apart
//! from the log. [`App::forget`](crate::App::forget) destroys the key of a subject: what the log holds of it can then be read by nobody, and
//! the log itself stays as it is.
//!
//! ```text
//!            bank.db                              bank.keys.db
//! events: {"name":{"subject":"c-7",      c-7 ─▶ key   ──── forget("c-7") ───▶  0000…
//!          "sealed":"AU1c…"}, "tier":2}
//! ```
//! # What is readable when
//! Inside an app, and inside [`given`](crate::testing::given()) and [`events`](crate::testing::events()), values are sealed when
//! an event is written and opened when it is read, without a word from the user. Elsewhere there are no keys: serialising a value is an error,
//! and one that is deserialised stays sealed. Plaintext is never written and never accepted.
//!
//! # Forgetting
//! When [`forget`](crate::App::forget) returns, the key is destroyed, and the log says so with [`SubjectForgotten`]. From then on
//! each [`get`](Personal::get) in the process says [`PersonalError::Forgotten`], in live aggregates, topics and views in memory as well
//! as in what is read later; events of the subject are read as before, with the other fields as they were. A command that decides on an
//! event with a value of the subject is refused, for ever.
//!
//! An event that is being committed at that moment stands in the log before the [`SubjectForgotten`] or behind it, and is unreadable in
//! either case: its key is gone first.
//!
//! A crash on the way is made good when the app starts again, or when it is asked to forget again: that the subject is to be forgotten
//! is written down together with the end of its key.
//!
//! # What the app cannot do for its user
//! - **Views.** What a handler has copied out of an event is its own: delete it on [`SubjectForgotten`]. What is deleted from a view in tables
//!   is overwritten in its file, and after that event the file's write-ahead log is emptied; a query that runs for longer than a second
//!   at that moment delays it until the view is written next, or the app ends. A projection that is not part of the app at that moment deletes
//!   nothing until it is part of one again. A view that is kept beside another one
//!   ([`Rebuild::keep_old`](crate::Rebuild::keep_old)) is told when it is switched back to: drop it instead. One that is looked at
//!   [as of an earlier point](crate::AsOf) keeps what it was folded with until it is dropped.
//! - **Other places.** What a reactor has sent away, a file that a program wrote, its traces: none of them is known here. The text of an error
//!   of the user's own code is kept in letters and traces as it is, so it should not quote what it was handed.
//! - **The subject itself.** Its id stands in the log and in the file of keys in plaintext, and so does its length what a value has in JSON, to
//!   the byte. Use an id that says nothing, such as a customer number; not an address.
//! - **Backups.** A backup of the keys opens a backup of the log, or the log. Keep those of the keys for as short a time as a
//!   request to be forgotten may take, and apart from those of the log. A file of keys that is restored takes over from the log whom it has
//!   to forget before it is used. Without the keys the data is gone: a log without its `bank.keys.db` is not whole. Events that hold
//!   some of it cannot be read then, until their subjects are forgotten.
//! - **Exports.** What is exported is sealed, and the keys are not in it. An imported log is another one, unless it is made with the
//!   [identity](crate::SqliteOptions::log_id) of the exported one: then it takes a copy of its keys. The keys of streams that are imported into a log which has keys of its own stay behind.
//! - **Disks.** The key is overwritten where the file has it. What a journaling or copying file system, a snapshot of one, or the spare blocks of
//!   a flash disk still hold of older contents is out of reach; encrypt the disk against that.
//! - **Power cuts.** Under [`Durability::Os`](crate::Durability) one may take a new key and leave the event that is sealed with it. That event
//!   cannot be read until its subject is forgotten.
//! - **Values made anew.** A value that user code makes with [`Personal::new`] from others, say in an `apply`, is forgotten from when on it is
//!   first written, into an event or a snapshot; one that never was is only dropped.
//! - **What was stored before.** To make a field personal does not seal what the log holds of it already: that stays there in plaintext, and
//!   a step that makes a `Personal` of it hands out a value that is readable after its subject is forgotten.
//! - **Handlers.** A projection that answers [`Personal::get`] with `?` parks the events of everybody who is forgotten when it is rebuilt:
//!   let it leave the value out.
//! - **Memory.** Keys are wiped when they are dropped. Values are the user's types and are only dropped, when the last event or
//!   state that holds them goes; swap and core dumps may hold them.
//!
//! Giving a subject a new key, and handing a subject all that is kept of it, are not part of this.
//!
//! # What it costs
//! Sealing or opening a short value takes a few microseconds beside the JSON of its event. The first value of a subject adds a key,
//! which must be durable before the event is: with [`Durability::Fsync`](crate::Durability) a group of commits that brings new subjects takes a second sync of
//! the disk. An app without personal data opens no file and pays nothing. When the file is made, and each time that it is opened, the log
//! is looked through for who was forgotten, from where the file has seen it: a new file takes as long as a scan of the whole log.
//!
//! # Examples
#![cfg_attr(all(feature = "macros", feature = "sqlite"), doc = "```")]
#![cfg_attr(not(all(feature = "macros", feature = "sqlite")), doc = "```ignore")]
//! use serde::{Deserialize, Serialize};
//! use tidings::sqlite::Transaction;
//! use tidings::sqlite::rusqlite::{Connection, Result, params};
//! use tidings::{
//!     App, Command, Event, Personal, PersonalError, Sqlite, SubjectForgotten, aggregate, projection,
//! };
//!
//! #[derive(Event, Serialize, Deserialize)]
//! #[event(name = "customer.joined", version = 1)]
//! struct Joined {
//!     customer: u32,
//!     name: Personal<String>,
//! }
//!
//! #[derive(Command, Clone)]
//! struct Join { customer: u32, name: String }
//!
//! #[derive(Default)]
//! struct Customer { name: Option<Personal<String>> }
//!
//! #[aggregate(category = "customer", events = CustomerEvent)]
//! impl Customer {
//!     #[command]
//!     fn join(&self, Join { customer, name }: Join) -> Joined {
//!         // The subject is an id that says nothing by itself.
//!         Joined { customer, name: Personal::new(format!("customer {customer}"), name) }
//!     }
//!     #[apply]
//!     fn joined(&mut self, event: &Joined) { self.name = Some(event.name.clone()) }
//! }
//!
//! struct Names;
//!
//! const NAMES: &str = "CREATE TABLE names (subject TEXT PRIMARY KEY, name TEXT NOT NULL)";
//!
//! #[projection(name = "names", version = 1, schema = NAMES)]
//! impl Names {
//!     #[on]
//!     fn joined(&self, tx: &Transaction<'_>, event: &Joined) -> Result<()> {
//!         match event.name.get() {
//!             Ok(name) => tx.execute(
//!                 "INSERT INTO names VALUES (?1, ?2)",
//!                 params![event.name.subject(), name],
//!             )?,
//!             // A view that is built anew meets events of those who are forgotten by then.
//!             Err(_) => 0,
//!         };
//!         Ok(())
//!     }
//!
//!     #[on]
//!     fn forgotten(&self, tx: &Transaction<'_>, event: &SubjectForgotten) -> Result<usize> {
//!         tx.execute("DELETE FROM names WHERE subject = ?1", [&event.subject])
//!     }
//!
//!     fn count(db: &Connection) -> Result<u32> {
//!         db.query_row("SELECT count(*) FROM names", [], |row| row.get(0))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("bank.db");
//! let app = App::builder()
//!     .store(Sqlite::open(&path)?)
//!     .aggregate::<Customer>()
//!     .projection(Names)
//!     .start()
//!     .await?;
//! let joined = app.send("7", Join { customer: 7, name: "Ada Lovelace".into() }).await?;
//! let names = app.view::<Names>().at_least(joined.position).await?;
//! assert_eq!(names.query(Names::count).await?, 1);
//!
//! let receipt = app.forget("customer 7").await?;
//! let names = app.view::<Names>().at_least(receipt.position).await?;
//! assert_eq!(names.query(Names::count).await?, 0);
//! // Nobody seals anything for the customer any more.
//! assert!(app.send("7", Join { customer: 7, name: "Ada".into() }).await.is_err());
//! # app.shutdown().await?;
//! # let _: Option<PersonalError> = None;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "sqlite")]
mod file;
mod forgotten;
mod keys;
mod scope;
mod seal;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use tokio::sync::oneshot;

use self::forgotten::Notice;
pub use self::forgotten::{SubjectEvent, SubjectForgotten};
use self::keys::Key;
pub(crate) use self::keys::Keys;
use self::scope::{Purpose, current};
pub(crate) use self::scope::{recording, take_failure, with_keys};
use self::seal::{Text, refuse_scalars};
use crate::bus::Topic;
use crate::clock::Clock;
use crate::command::Receipt;
use crate::event::{Envelope, Event};
use crate::sequencer::SequencerGauge;
use crate::shape::{Describing, Field, Form, Shape};
use crate::store::{Durability, StoreError};
use crate::stream::InvalidStreamId;

/// A value about a person, the subject, that is readable until the subject is [forgotten](crate::App::forget).
///
/// It is a field of events, and of the states that are folded from them. `T` is any type that has a form in JSON. Cloning is cheap and
/// shares the value. It shows its subject in `Debug`, and never the value.
/// See the [module](crate::personal) for how to use it.
///
/// Two are equal if their subjects are, and their values, or if neither can be read.
///
/// # Examples
/// ```
/// use tidings::{Personal, PersonalError};
///
/// let name = Personal::new("customer 7", "Ada Lovelace".to_owned());
/// assert_eq!(name.get().map(String::as_str), Ok("Ada Lovelace"));
/// assert_eq!(format!("{name:?}"), r#"Personal { subject: "customer 7", .. }"#);
/// // It is written by an app, and by nobody else.
/// assert!(serde_json::to_string(&name).is_err());
///
/// // What was sealed is opened by an app, too.
/// let sealed = r#"{"subject":"customer 7","sealed":"AU1c"}"#;
/// let sealed: Personal<String> = serde_json::from_str(sealed)?;
/// assert_eq!(sealed.get(), Err(PersonalError::Sealed { subject: "customer 7".into() }));
/// # Ok::<(), serde_json::Error>(())
/// ```
pub struct Personal<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    subject: Arc<str>,
    content: Content<T>,
}

enum Content<T> {
    Open {
        value: T,
        bound: Bound,
    },
    /// It was forgotten when it was read.
    Forgotten,
    /// It was read where there are no keys.
    Sealed(Vec<u8>),
}

/// The keys that a value was sealed or opened with: one, unless it went from app to app.
#[derive(Default)]
struct Bound(OnceLock<Box<(Arc<Key>, Bound)>>);

impl Bound {
    fn to(&self, key: &Arc<Key>) {
        let mut bound = self;
        loop {
            let (known, next) =
                &**bound.0.get_or_init(|| Box::new((Arc::clone(key), Self::default())));
            if Arc::ptr_eq(known, key) {
                return;
            }
            bound = next;
        }
    }

    fn is_forgotten(&self) -> bool {
        let mut bound = self;
        while let Some(link) = bound.0.get() {
            let (key, next) = &**link;
            if key.is_forgotten() {
                return true;
            }
            bound = next;
        }
        false
    }
}

impl<T> Personal<T> {
    /// `value`, which is about `subject`: the id of a person, which says nothing by itself and has at most
    /// [`MAX_SUBJECT_BYTES`](Self::MAX_SUBJECT_BYTES).
    pub fn new(subject: impl Into<Arc<str>>, value: T) -> Self {
        let content = Content::Open { value, bound: Bound::default() };
        Self { inner: Arc::new(Inner { subject: subject.into(), content }) }
    }

    /// The longest id of a subject in bytes: it is part of the id of a stream.
    pub const MAX_SUBJECT_BYTES: usize = 496;

    /// Whom the value is about.
    pub fn subject(&self) -> &str {
        &self.inner.subject
    }

    /// The value.
    ///
    /// # Errors
    /// - [`PersonalError::Forgotten`]: the subject is forgotten. Go on without the value.
    /// - [`PersonalError::Sealed`]: the value was read outside of an app, where there are no keys.
    pub fn get(&self) -> Result<&T, PersonalError> {
        let subject = || self.inner.subject.to_string();
        match &self.inner.content {
            Content::Open { value, bound } if !bound.is_forgotten() => Ok(value),
            Content::Open { .. } | Content::Forgotten => {
                Err(PersonalError::Forgotten { subject: subject() })
            }
            Content::Sealed(_) => Err(PersonalError::Sealed { subject: subject() }),
        }
    }

    /// Whether the subject is forgotten.
    pub fn is_forgotten(&self) -> bool {
        match &self.inner.content {
            Content::Open { bound, .. } => bound.is_forgotten(),
            Content::Forgotten => true,
            Content::Sealed(_) => false,
        }
    }
}

impl<T> Clone for Personal<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> fmt::Debug for Personal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Personal").field("subject", &self.inner.subject).finish_non_exhaustive()
    }
}

impl<T: PartialEq> PartialEq for Personal<T> {
    fn eq(&self, other: &Self) -> bool {
        self.subject() == other.subject()
            && match (&self.inner.content, &other.inner.content) {
                (Content::Sealed(a), Content::Sealed(b)) => a == b,
                _ => self.get().ok() == other.get().ok(),
            }
    }
}

impl<T: Eq> Eq for Personal<T> {}

/// A value that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PersonalError {
    /// The subject is forgotten, and its values with it.
    #[error("subject {subject:?} is forgotten")]
    Forgotten {
        /// The subject.
        subject: String,
    },
    /// The value was read where there are no keys, by something else than an app.
    #[error(
        "a value of subject {subject:?} is sealed: it was read outside of an app, which has the keys"
    )]
    Sealed {
        /// The subject.
        subject: String,
    },
}

/// A value that could not be sealed or opened. Found behind a [`CodecError`](crate::CodecError) as its source; none of its texts
/// quotes a value.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The subject is forgotten: nothing is written for it any more.
    #[error("subject {subject:?} is forgotten: nothing is sealed for it any more")]
    Forgotten {
        /// The subject.
        subject: String,
    },
    /// It is serialised where there are no keys, by something else than an app.
    #[error(
        "a value of subject {subject:?} is serialised outside of an app, which has the keys: take what is needed with `get`"
    )]
    Outside {
        /// The subject.
        subject: String,
    },
    /// It was read where there are no keys, and is to be written into a log as it is.
    #[error(
        "a value of subject {subject:?} is sealed with keys that may not be those of this log: read it inside an app"
    )]
    Sealed {
        /// The subject.
        subject: String,
    },
    /// The id of the subject is empty or too long.
    #[error("the id of a subject has {bytes} bytes: it must have 1 to 496")]
    Subject {
        /// How many bytes it has.
        bytes: usize,
    },
    /// There is no such key, and the subject was not forgotten either.
    #[error(
        "{keys} holds no key of subject {subject:?}, though something was sealed with one: restore that file from a backup"
    )]
    Missing {
        /// The subject.
        subject: String,
        /// The file that should hold it.
        keys: String,
    },
    /// What is sealed is not what was sealed, or not for this subject, or not with this key.
    #[error(
        "a value of subject {subject:?} was changed, or sealed for another subject or with another key than that in {keys}: \
         restore what was changed from a backup"
    )]
    Changed {
        /// The subject.
        subject: String,
        /// Where its key is kept.
        keys: String,
    },
    /// What is sealed is of no form that this version of Tidings knows.
    #[error(
        "a value of subject {subject:?} is not sealed in a form that this version of Tidings reads: \
         use the version that wrote it, or restore it from a backup"
    )]
    Form {
        /// The subject.
        subject: String,
    },
    /// The value has no form in JSON, or what was sealed is none of the type. Nothing more is said, so as not to quote it.
    #[error(
        "a value of subject {subject:?} does not fit type {shape}: read it as the type that it was written as"
    )]
    Shape {
        /// The subject.
        subject: String,
        /// The type.
        shape: &'static str,
    },
    /// The log is kept, and it was not said where its keys are.
    #[error(
        "the log outlives the process and has no place for keys: name a file with `App::builder().keys(…)`"
    )]
    NoPlace,
    /// The keys cannot be read.
    #[error("the keys of personal data cannot be read")]
    Keys(#[source] Arc<StoreError>),
}

/// Why a subject was not forgotten, or not to the end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForgetError {
    /// The id of the subject is empty or too long; nothing has changed.
    #[error("a subject of this id cannot be")]
    Subject(#[source] InvalidStreamId),
    /// The app has ended, and takes no more commands; nothing has changed.
    #[error("the app has ended: start it again and forget the subject then")]
    Ended,
    /// The keys could not be written. Whether the key is destroyed is unknown: forget the subject again.
    #[error("the key could not be destroyed for certain: forget the subject again")]
    Keys(#[source] StoreError),
    /// The key is destroyed, and nothing of the subject can be read. The log could not be told: forget the subject again, or let the
    /// app do it when it starts the next time.
    #[error("the key is destroyed, and the log could not be told: forget the subject again")]
    Log(#[source] Arc<StoreError>),
}

fn subject_is_valid(subject: &str) -> bool {
    (1..=Personal::<()>::MAX_SUBJECT_BYTES).contains(&subject.len())
}

/// What forgetting needs of an app.
pub(crate) struct Forgetting {
    pub(crate) keys: Keys,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Forgetting {
    /// Destroys the key of `subject` and has it said in the log; blocks.
    pub(crate) fn forget(
        &self,
        subject: &str,
        durability: Durability,
        sequencer: &SequencerGauge,
        topic: Option<Topic<Envelope<SubjectEvent>>>,
    ) -> Result<Receipt, ForgetError> {
        let (reply, answer) = oneshot::channel();
        let now = self.clock.now();
        let notice =
            Notice::new(subject, now, durability, topic, reply).map_err(|error| match error {
                forgotten::NoticeError::Stream(error) => ForgetError::Subject(error),
                // It is a text in a structure; no format refuses that.
                forgotten::NoticeError::Codec(error) => {
                    ForgetError::Log(Arc::new(StoreError::Failed {
                        place: SubjectForgotten::NAME.into(),
                        source: error.into(),
                    }))
                }
            })?;
        // One after the other: the sequencer has room for one.
        let _forgetting = self.keys.forgetting();
        let inbox = sequencer.inbox().ok_or(ForgetError::Ended)?;
        self.keys.destroy(subject, now).map_err(ForgetError::Keys)?;
        let ended = || {
            ForgetError::Log(Arc::new(StoreError::Failed {
                place: "the sequencer".into(),
                source: "it has ended".into(),
            }))
        };
        inbox.hand_over(Box::new(notice)).map_err(|_| ended())?;
        drop(inbox);
        let receipt = answer.blocking_recv().map_err(|_| ended())?.map_err(ForgetError::Log)?;
        if let Err(error) = self.keys.recorded(subject, receipt.position) {
            // It only means that the log is told again when the app starts, which changes nothing then.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the keys could not take note of where the log says that a subject is forgotten"
            );
        }
        Ok(receipt)
    }
}

impl fmt::Debug for Forgetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forgetting").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl<T: Serialize> Inner<T> {
    /// What is written of it: nothing of what is forgotten.
    fn sealed(&self) -> Result<Vec<u8>, SealError> {
        let subject = || self.subject.to_string();
        let scope = current();
        let forgotten = |purpose| match purpose {
            Purpose::Keep => Ok(Vec::new()),
            Purpose::Record => Err(SealError::Forgotten { subject: subject() }),
        };
        match (&self.content, scope) {
            (Content::Sealed(_), Some((_, Purpose::Record))) => {
                Err(SealError::Sealed { subject: subject() })
            }
            (Content::Sealed(sealed), _) => Ok(sealed.clone()),
            (_, None) => Err(SealError::Outside { subject: subject() }),
            (Content::Forgotten, Some((_, purpose))) => forgotten(purpose),
            (Content::Open { bound, .. }, Some((_, purpose))) if bound.is_forgotten() => {
                forgotten(purpose)
            }
            (Content::Open { value, bound }, Some((keys, purpose))) => {
                let key = keys.key_to_seal(&self.subject)?;
                bound.to(&key);
                match key.seal(keys.nonces(), value) {
                    Err(SealError::Forgotten { .. }) => forgotten(purpose),
                    sealed => sealed,
                }
            }
        }
    }
}

/// What a value is called in formats that keep such names.
const NAME: &str = "Personal";

impl<T: Serialize> Serialize for Personal<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sealed = self.inner.sealed().map_err(|error| {
            let text = ser::Error::custom(&error);
            scope::failed(error);
            text
        })?;
        let mut fields = serializer.serialize_struct(NAME, 2)?;
        fields.serialize_field("subject", &*self.inner.subject)?;
        fields.serialize_field("sealed", &Text(sealed))?;
        fields.end()
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Personal<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (subject, sealed) = deserializer.deserialize_any(Fields)?;
        let inner = Inner::read(subject.into(), sealed).map_err(|error| {
            let text = de::Error::custom(&error);
            scope::failed(error);
            text
        })?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl<T: DeserializeOwned> Inner<T> {
    fn read(subject: Arc<str>, sealed: Vec<u8>) -> Result<Self, SealError> {
        let Some((keys, _)) = current() else {
            return Ok(Self { subject, content: Content::Sealed(sealed) });
        };
        let key = keys.key_to_open(&subject)?;
        let content = match key.open(&sealed, || keys.place())? {
            Some(value) => {
                let bound = Bound::default();
                bound.to(&key);
                Content::Open { value, bound }
            }
            None => Content::Forgotten,
        };
        Ok(Self { subject, content })
    }
}

/// What was sealed has a shape, too: another one cannot be read.
impl<T: Shape> Shape for Personal<T> {
    fn form(describing: &mut Describing) -> Form {
        let sealed = Field::new("sealed", Form::Sealed(Box::new(T::form(describing))));
        Form::fields(vec![sealed, Field::new("subject", Form::Text)])
    }
}

/// A sealed value as it stands in a payload of JSON.
#[cfg(feature = "schemars")]
impl<T> schemars::JsonSchema for Personal<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        NAME.into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A value about a person, sealed with a key of that person.",
            "type": "object",
            "properties": {
                "subject": { "type": "string", "minLength": 1, "maxLength": 496 },
                "sealed": { "type": "string", "contentEncoding": "base64" }
            },
            "required": ["subject", "sealed"]
        })
    }
}

/// Reads subject and sealed value. What stands in their place is never quoted: it may be what should have been sealed.
struct Fields;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Name {
    Subject,
    Sealed,
    #[serde(other)]
    Other,
}

impl<'de> Visitor<'de> for Fields {
    type Value = (String, Vec<u8>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sealed value with its subject")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut subject, mut sealed) = (None, None);
        while let Some(field) = map.next_key()? {
            match field {
                Name::Subject => subject = Some(map.next_value::<Subject>()?.0),
                Name::Sealed => sealed = Some(map.next_value::<Text<Vec<u8>>>()?.0),
                Name::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let subject = subject.ok_or_else(|| de::Error::missing_field("subject"))?;
        Ok((subject, sealed.ok_or_else(|| de::Error::missing_field("sealed"))?))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let subject = fields.next_element::<Subject>()?;
        let subject = subject.ok_or_else(|| de::Error::invalid_length(0, &self))?.0;
        let sealed = fields.next_element::<Text<Vec<u8>>>()?;
        Ok((subject, sealed.ok_or_else(|| de::Error::invalid_length(1, &self))?.0))
    }

    refuse_scalars!(
        visit_bool(bool),
        visit_i64(i64),
        visit_i128(i128),
        visit_u64(u64),
        visit_u128(u128),
        visit_f64(f64),
        visit_str(&str),
        visit_bytes(&[u8])
    );
}

/// The id of a subject in a payload.
struct Subject(String);

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SubjectVisitor)
    }
}

struct SubjectVisitor;

impl Visitor<'_> for SubjectVisitor {
    type Value = Subject;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the id of a subject")
    }

    fn visit_str<E: de::Error>(self, subject: &str) -> Result<Self::Value, E> {
        Ok(Subject(subject.to_owned()))
    }

    refuse_scalars!(
        visit_bool(bool),
        visit_i64(i64),
        visit_i128(i128),
        visit_u64(u64),
        visit_u128(u128),
        visit_f64(f64),
        visit_bytes(&[u8])
    );
}
