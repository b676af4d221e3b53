//! Events: what the user writes, what surrounds each of them, and how they are stored.
//!
//! An [`Event`] is one fact, a plain struct. The events of one aggregate form an [`EventSet`], an enum with one variant
//! for each; topics and streams carry the set. An [`Envelope`] is an event with its [`Header`]: who, when, where, why. In
//! the log the same thing is a [`Recorded`]: the header and the payload's bytes.

mod reading;
mod schema;
pub(crate) mod upcasting;

use std::any::TypeId;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::reading::{Neighbours, ReadAs};
pub use self::schema::EventSchema;
pub use self::upcasting::{Json, Upcasts};
use crate::clock::Timestamp;
use crate::codec::{Codec, CodecError};
use crate::id::{CausationId, CommandId, CorrelationId, EventId};
use crate::shape::Form;
use crate::stream::{Position, StreamId, Version};

/// An immutable fact, named in the past tense: `Deposited`, `OrderPlaced`.
///
/// Derive it with `#[derive(Event)]`. The stored name and the schema version stand apart from the Rust name, so that the
/// type can be renamed while the log stays readable.
///
/// # Changing an event
/// What is stored never changes; how it is read does.
/// - A further field: give it `#[serde(default)]` and leave the version alone. Stored events without it stay readable.
/// - Another shape: raise `version`, and write the step from the older version as one method of an
///   `#[upcasts]` block. Without it the type does not compile. A stored event goes through all steps from its
///   version on, one version at a time; an event of today's version is decoded as ever.
/// - Another name: say the old one with `formerly`. The versions are one line through all names.
/// - Two events out of one, one out of two, or none: `#[upcast(…)]` in the `#[aggregate]` block.
/// - Both shapes for a time: keep the old type beside the new one, with the same name and another version, each with its
///   `#[apply]`. What is stored is read as the type of exactly its version if there is one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "add `#[derive(Event, Serialize, Deserialize)]` and `#[event(name = \"…\", version = 1)]` to the type"
)]
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name in the log, unique in its set, never changed: `"account.deposited"`.
    const NAME: &'static str;
    /// The version of the payload's shape, from 1.
    const VERSION: u32;
    /// The format of the payload in the log.
    const CODEC: Codec = Codec::Json;

    /// What serde writes of it, for the schema lock. The derive describes the fields; parts whose
    /// type has no [`Shape`](crate::Shape) are [unseen](Form::Unseen). An event that is implemented by hand is opaque.
    fn shape() -> Form {
        Form::Opaque(Self::NAME.to_owned())
    }
    /// The names that it had in the log before; its versions are one line through all of them.
    const FORMER_NAMES: &'static [&'static str] = &[];
    /// The oldest version of the payload's shape that it [reads](Self::upcast).
    const OLDEST: u32 = Self::VERSION;

    /// Reads a payload that was stored with a version from [`OLDEST`](Self::OLDEST) up to the one before today's.
    ///
    /// # Errors
    /// [`DecodeError`] if it reads no such version, which is so for all unless this is written; or the payload is not of its shape.
    fn upcast(schema_version: u32, codec: Codec, payload: &[u8]) -> Result<Self, DecodeError> {
        let _ = (codec, payload);
        Err(unknown_version::<Self>(schema_version))
    }
}

/// An event that lives in memory only: it travels on a topic of its own, and no log keeps it.
///
/// Derive it with `#[derive(TransientEvent)]`. It may be of any type: it is handed to its subscribers by reference, and never
/// copied or encoded. A publisher drops it some time after everybody has seen it; its `Drop` must not publish into its own
/// topic.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a transient event",
    label = "not a transient event",
    note = "add `#[derive(TransientEvent)]` to the type",
    note = "a part of an enum of events travels on the topic of the enum: use that, and `batch.of::<{Self}>()`"
)]
pub trait TransientEvent: Send + Sync + 'static {
    /// The name of its topic.
    const NAME: &'static str;

    /// If it is an enum of events that are subscribed to by their own types, the names of these.
    const PARTS: &'static [&'static str] = &[];
}

/// The closed set of the events of one aggregate: the enum that `#[aggregate]` writes, and what its topic carries.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of events",
    label = "not an event enum of an aggregate",
    note = "name the enum that `#[aggregate(events = …)]` writes"
)]
pub trait EventSet: Send + Sync + 'static {
    /// The category of the streams that hold these events; also the name of their topic.
    const CATEGORY: &'static str;
    /// The stored names of all events of the set.
    const NAMES: &'static [&'static str];
    /// Further stored names that the set [reads](Self::read): of events that are called otherwise today, or are no more.
    const FORMER_NAMES: &'static [&'static str] = &[];

    /// Which event of the set this is: the index of its name in [`NAMES`](Self::NAMES).
    fn index(&self) -> usize;

    /// The stored name of this event.
    fn name(&self) -> &'static str;

    /// The schema version of this event.
    fn schema_version(&self) -> u32;

    /// The format that this event's payload is written in.
    fn codec(&self) -> Codec {
        Codec::Json
    }

    /// Appends the event's payload to `bytes`, in its [format](Self::codec).
    ///
    /// # Errors
    /// [`CodecError`] if the payload has no form in this format.
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads the event with this stored name and schema version back from its payload.
    ///
    /// # Errors
    /// [`DecodeError`] if the set knows no such name or version, or the payload is not of its shape.
    fn decode(
        name: &str,
        schema_version: u32,
        codec: Codec,
        payload: &[u8],
    ) -> Result<Self, DecodeError>
    where
        Self: Sized;

    /// Reads a stored event as what it is today: the event that it [decodes](Self::decode) to, unless the set says
    /// otherwise. It is pure: the same stored events are always read as the same ones.
    ///
    /// # Errors
    /// [`DecodeError`], as [`decode`](Self::decode); or a neighbour that it is read with cannot be read.
    fn read(event: &Recorded, neighbours: &dyn Neighbours) -> Result<ReadAs<Self>, DecodeError>
    where
        Self: Sized,
    {
        let _ = neighbours;
        event.decode().map(ReadAs::One)
    }

    /// What each event of the set is written like today, in the order of [`NAMES`](Self::NAMES): what the schema lock and the
    /// golden corpus go by. They refuse a set that does not say it.
    fn schemas() -> Vec<EventSchema>
    where
        Self: Sized,
    {
        Vec::new()
    }
}

/// Says which [`EventSet`] an event belongs to; `#[aggregate]` implements it for each event that has an `#[apply]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event of any aggregate",
    label = "no aggregate applies this event",
    note = "add `#[apply] fn …(&mut self, event: &{Self})` to the aggregate that it belongs to"
)]
pub trait MemberOf: Event {
    /// The set.
    type Set: EventSet;

    /// Which event of the set it is: the index of its name in [`EventSet::NAMES`].
    const INDEX: usize;

    /// The event in `set`, if it is this one.
    fn from_set(set: &Self::Set) -> Option<&Self>;

    /// The same, owned.
    fn take(set: Self::Set) -> Option<Self>;
}

/// A stored event that a set could not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No event of the set has this name.
    #[error("no event of {category} is stored as {name:?}; it knows {known:?}")]
    UnknownName {
        /// The category of the set.
        category: &'static str,
        /// The name in the log.
        name: String,
        /// The names that the set knows.
        known: &'static [&'static str],
    },
    /// The event was written with a schema version that this program does not read.
    #[error(
        "event {name:?} is stored with schema version {found}, this program reads {}: {}",
        versions(*oldest, *known),
        way_out(*found, *known)
    )]
    UnknownVersion {
        /// The event's stored name.
        name: &'static str,
        /// The version in the log.
        found: u32,
        /// The oldest version that the type reads.
        oldest: u32,
        /// The version that the type has.
        known: u32,
    },
    /// The event is read together with one beside it in its stream, which is not there, and nothing reads it alone.
    #[error(
        "event {name:?} (schema version {version}) is read together with an event beside it in its stream, which is not there: \
         write an `#[upcast(event = {name:?}, version = {version})]` that reads it alone"
    )]
    Unpaired {
        /// The event's stored name.
        name: &'static str,
        /// Its schema version.
        version: u32,
    },
    /// The payload is not of the event's shape.
    #[error("the payload of event {name:?} (schema version {version}) does not fit its type")]
    Payload {
        /// The event's stored name.
        name: &'static str,
        /// Its schema version.
        version: u32,
        /// What the codec found.
        source: CodecError,
    },
    /// The payload is in a format that this program was built without.
    #[error(
        "the payload of event {name:?} is in {codec:?}, and this program was built without the feature `{feature}` of tidings, which reads it: enable it"
    )]
    MissingFeature {
        /// The event's stored name.
        name: String,
        /// The format.
        codec: Codec,
        /// The feature that reads it.
        feature: &'static str,
    },
    /// The event is read together with one beside it in its stream, and the log could not be read there.
    #[error("the event beside {name:?} in its stream, which it is read with, cannot be read")]
    Neighbour {
        /// The event's stored name.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The versions that a type reads, in words.
fn versions(oldest: u32, known: u32) -> String {
    match oldest == known {
        true => format!("version {known}"),
        false => format!("versions {oldest} to {known}"),
    }
}

/// What to do about a version that a type does not read.
fn way_out(found: u32, known: u32) -> String {
    match found > known {
        true => "a newer program wrote it, which can read it".to_owned(),
        false => format!(
            "write a step from it, `#[upcast(from = {found})]` under `#[upcasts]`, or read it in the aggregate"
        ),
    }
}

impl DecodeError {
    /// Whether the program does not know the event, since its name or its version is one of another program, mostly a newer one.
    pub(crate) fn is_unknown(&self) -> bool {
        match self {
            Self::UnknownName { .. } => true,
            Self::UnknownVersion { found, known, .. } => found > known,
            _ => false,
        }
    }

    /// Whether that is what `error` says.
    pub(crate) fn says_unknown(error: &(dyn std::error::Error + 'static)) -> bool {
        error.downcast_ref::<Self>().is_some_and(Self::is_unknown)
    }
}

pub(crate) fn unknown_version<E: Event>(found: u32) -> DecodeError {
    DecodeError::UnknownVersion { name: E::NAME, found, oldest: E::OLDEST, known: E::VERSION }
}

/// Decodes the payload of one event type, if need be through the steps from an older version; the helper of
/// [`EventSet::decode`] implementations.
///
/// # Errors
/// [`DecodeError`] if the type does not read this version or the payload is not of its shape.
pub fn decode_event<E: Event>(
    schema_version: u32,
    codec: Codec,
    payload: &[u8],
) -> Result<E, DecodeError> {
    if schema_version != E::VERSION {
        return E::upcast(schema_version, codec, payload);
    }
    upcasting::payload(E::NAME, schema_version, codec, payload)
}

/// What is to be known of a set of events where its type is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetInfo {
    pub(crate) id: TypeId,
    pub(crate) category: &'static str,
    pub(crate) names: &'static [&'static str],
    pub(crate) former_names: &'static [&'static str],
}

impl SetInfo {
    pub(crate) fn of<S: EventSet>() -> Self {
        let (names, former_names) = (S::NAMES, S::FORMER_NAMES);
        Self { id: TypeId::of::<S>(), category: S::CATEGORY, names, former_names }
    }

    /// All stored names that it reads.
    pub(crate) fn stored_names(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.names.iter().chain(self.former_names).copied()
    }

    pub(crate) fn reads(&self, name: &str) -> bool {
        self.names.contains(&name) || self.former_names.contains(&name)
    }

    /// Why an event of its category cannot be read, if its name is unknown.
    pub(crate) fn unknown(&self, event: &Header) -> Option<DecodeError> {
        let is_unknown = event.stream.category() == self.category && !self.reads(&event.name);
        is_unknown.then(|| DecodeError::UnknownName {
            category: self.category,
            name: event.name.clone().into_owned(),
            known: self.names,
        })
    }
}

/// Text that the user attaches to a command and finds on each of its events: a tenant, a user, a client's address.
///
/// Empty metadata takes no memory; cloning shares it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(Option<Arc<BTreeMap<String, String>>>);

impl Metadata {
    /// Sets `key` to `value`.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) {
        Arc::make_mut(self.0.get_or_insert_default()).insert(key.into(), value.into());
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether nothing is attached.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|map| map.is_empty())
    }

    /// All keys with their values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|map| map.iter()).map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

impl fmt::Debug for Metadata {
    /// Names the keys; the values may be personal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(key, _)| key)).finish()
    }
}

/// What is known of an event apart from its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// The event's own identity.
    pub event_id: EventId,
    /// Its stored name.
    pub name: Cow<'static, str>,
    /// The version of its payload's shape.
    pub schema_version: u32,
    /// The format of its payload.
    pub codec: Codec,
    /// The stream that it belongs to.
    pub stream: StreamId,
    /// Its place in the stream.
    pub version: Version,
    /// Its place in the whole log.
    pub position: Position,
    /// When it was decided. Only positions order events; clocks do not.
    pub time: Timestamp,
    /// The command that it was decided for; none if it was written into the log without a command.
    pub command_id: Option<CommandId>,
    /// The story that it belongs to.
    pub correlation_id: CorrelationId,
    /// What directly caused it.
    pub causation_id: CausationId,
    /// What the user attached to the command.
    pub metadata: Metadata,
}

impl Header {
    /// The header of an event that is yet to be committed: the store gives it its version and position.
    ///
    /// It starts a story of its own: correlation and causation are the event itself, until set otherwise.
    pub fn new(
        stream: StreamId,
        name: impl Into<Cow<'static, str>>,
        schema_version: u32,
        time: Timestamp,
    ) -> Self {
        let event_id = EventId::fresh();
        Self {
            event_id,
            name: name.into(),
            schema_version,
            codec: Codec::Json,
            stream,
            version: Version::EMPTY,
            position: Position::START,
            time,
            command_id: None,
            correlation_id: CorrelationId::from_uuid(event_id.into()),
            causation_id: CausationId::from_uuid(event_id.into()),
            metadata: Metadata::default(),
        }
    }

    /// The header of one of the events that a stored one is read as, by its place among them: the first keeps the identity, each
    /// other has one of its own that follows from it.
    pub(crate) fn part(&self, place: usize) -> Cow<'_, Self> {
        match place {
            0 => Cow::Borrowed(self),
            _ => Cow::Owned(Self { event_id: self.event_id.part(place), ..self.clone() }),
        }
    }
}

/// An event with its identity. Dereferences to its [`Header`].
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope<E> {
    /// Who, when, where, why.
    pub header: Header,
    /// The fact itself.
    pub event: E,
}

impl<E> std::ops::Deref for Envelope<E> {
    type Target = Header;

    fn deref(&self) -> &Header {
        &self.header
    }
}

impl<E> fmt::Debug for Envelope<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").field("header", &self.header).finish_non_exhaustive()
    }
}

/// An event as it is stored: the payload's bytes are not decoded yet. Dereferences to its [`Header`].
#[derive(Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Who, when, where, why.
    pub header: Header,
    /// The encoded event; shared, so that a clone copies no bytes.
    pub payload: Arc<[u8]>,
}

impl Recorded {
    /// Decodes the payload.
    ///
    /// # Errors
    /// [`DecodeError`] if `E` knows no event of this name and version, or the payload is not of its shape.
    pub fn decode<E: EventSet>(&self) -> Result<E, DecodeError> {
        let Header { name, schema_version, codec, .. } = &self.header;
        E::decode(name, *schema_version, *codec, &self.payload)
    }
}

impl Recorded {
    /// An event with a payload that a person wrote in place of the stored one: as JSON, whichever format that is in.
    pub(crate) fn edited(header: &Header, payload: Arc<[u8]>) -> Self {
        Self { header: Header { codec: Codec::Json, ..header.clone() }, payload }
    }
}

impl std::ops::Deref for Recorded {
    type Target = Header;

    fn deref(&self) -> &Header {
        &self.header
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded")
            .field("header", &self.header)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}
