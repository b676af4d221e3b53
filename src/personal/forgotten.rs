//! What the log says of a subject that is forgotten, and how it gets there.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::bus::Topic;
use crate::clock::Timestamp;
use crate::codec::{Codec, CodecError};
use crate::command::{Outcome, Receipt};
use crate::event::{
    DecodeError, Envelope, Event, EventSet, Header, MemberOf, Recorded, decode_event,
};
use crate::id::{CausationId, CommandId, CorrelationId};
use crate::sequencer::{self, Turn};
use crate::store::{Commit, Durability, Refused, StoreError};
use crate::stream::{ExpectedVersion, InvalidStreamId, StreamId, Version};

/// A subject was [forgotten](crate::App::forget): none of its [personal](super::Personal) values can be read any more.
///
/// Projections, reactors, aggregates and subscribers handle it with `#[on]` as any other event: a view deletes or blanks here what
/// it keeps of the subject. It stands in the stream `tidings.subject-…` of the subject, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SubjectForgotten {
    /// The subject.
    pub subject: String,
}

impl SubjectForgotten {
    /// That `subject` was forgotten, for a test that hands it to a handler. Publishing it destroys no key.
    pub fn new(subject: impl Into<String>) -> Self {
        Self { subject: subject.into() }
    }
}

/// The events about subjects of personal data: the set of [`SubjectForgotten`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubjectEvent {
    /// The event `SubjectForgotten`.
    Forgotten(SubjectForgotten),
}

impl std::fmt::Debug for SubjectEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Forgotten(..)")
    }
}

impl Event for SubjectForgotten {
    const NAME: &'static str = "tidings.subject_forgotten";
    const VERSION: u32 = 1;
}

impl EventSet for SubjectEvent {
    const CATEGORY: &'static str = "tidings.subject";
    const NAMES: &'static [&'static str] = &[SubjectForgotten::NAME];

    fn index(&self) -> usize {
        0
    }

    fn name(&self) -> &'static str {
        SubjectForgotten::NAME
    }

    fn schema_version(&self) -> u32 {
        SubjectForgotten::VERSION
    }

    fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        let Self::Forgotten(event) = self;
        SubjectForgotten::CODEC.encode(event, bytes)
    }

    fn decode(
        name: &str,
        schema_version: u32,
        codec: Codec,
        payload: &[u8],
    ) -> Result<Self, DecodeError> {
        match name {
            SubjectForgotten::NAME => {
                decode_event(schema_version, codec, payload).map(Self::Forgotten)
            }
            other => Err(DecodeError::UnknownName {
                category: Self::CATEGORY,
                name: other.to_owned(),
                known: Self::NAMES,
            }),
        }
    }
}

impl MemberOf for SubjectForgotten {
    type Set = SubjectEvent;

    const INDEX: usize = 0;

    fn from_set(set: &SubjectEvent) -> Option<&Self> {
        let SubjectEvent::Forgotten(event) = set;
        Some(event)
    }

    fn take(set: SubjectEvent) -> Option<Self> {
        let SubjectEvent::Forgotten(event) = set;
        Some(event)
    }
}

impl<R> crate::aggregate::IntoDecision<SubjectEvent, R> for SubjectForgotten {
    fn into_decision(self, events: &mut Vec<SubjectEvent>) -> Result<(), R> {
        events.push(SubjectEvent::Forgotten(self));
        Ok(())
    }
}

/// The stream that says of `subject` that it is forgotten.
pub(super) fn stream_of(subject: &str) -> Result<StreamId, InvalidStreamId> {
    StreamId::new(SubjectEvent::CATEGORY, subject)
}

/// The id of the one command that forgets `subject`, so that the log says it once.
fn command_of(subject: &str) -> CommandId {
    /// Where the names of subjects live; it must never change.
    const SUBJECTS: Uuid = Uuid::from_u128(0x9c1a_7e05_53d8_4c0b_a6e4_2f90_b7d1_38ce);
    Uuid::new_v5(&SUBJECTS, subject.as_bytes()).into()
}

/// What is handed to the sequencer to have it said in the log that a subject is forgotten.
pub(super) struct Notice {
    commit: Option<Commit>,
    subject: String,
    stream: StreamId,
    durability: Durability,
    topic: Option<Topic<Envelope<SubjectEvent>>>,
    outcome: Option<Result<Receipt, Arc<StoreError>>>,
    reply: oneshot::Sender<Result<Receipt, Arc<StoreError>>>,
}

impl Notice {
    pub(super) fn new(
        subject: &str,
        time: Timestamp,
        durability: Durability,
        topic: Option<Topic<Envelope<SubjectEvent>>>,
        reply: oneshot::Sender<Result<Receipt, Arc<StoreError>>>,
    ) -> Result<Self, NoticeError> {
        let (stream, id) = (stream_of(subject)?, command_of(subject));
        let event = SubjectEvent::Forgotten(SubjectForgotten::new(subject));
        let mut payload = Vec::new();
        event.encode(&mut payload)?;
        let mut header = Header::new(stream.clone(), event.name(), event.schema_version(), time);
        header.codec = event.codec();
        header.command_id = Some(id);
        header.correlation_id = CorrelationId::from_uuid(id.into());
        header.causation_id = CausationId::from_uuid(id.into());
        let recorded = Recorded { header, payload: payload.into() };
        let commit = Commit::new().command_id(id).append(
            stream.clone(),
            ExpectedVersion::Any,
            vec![recorded],
        );
        Ok(Self {
            commit: Some(commit),
            subject: subject.to_owned(),
            stream,
            durability,
            topic,
            outcome: None,
            reply,
        })
    }

    fn receipt(&self, position: crate::stream::Position, version: Version, new: bool) -> Receipt {
        Receipt {
            command_id: command_of(&self.subject),
            stream: self.stream.clone(),
            version,
            events: 1,
            position,
            durability: self.durability,
            outcome: if new { Outcome::Applied } else { Outcome::AlreadyKnown },
        }
    }
}

/// Why a subject cannot be named in the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoticeError {
    #[error(transparent)]
    Stream(#[from] InvalidStreamId),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl Turn for Notice {
    fn commits(&mut self, group: &mut Vec<Commit>) {
        group.extend(self.commit.take());
    }

    fn committed(&mut self, outcomes: &mut dyn Iterator<Item = (Commit, sequencer::Outcome)>) {
        let Some((commit, outcome)) = outcomes.next() else {
            return;
        };
        let answer = match outcome {
            Ok(committed) => {
                // Without events it is published from the log in its turn.
                let header = commit.events.into_iter().next().map(|recorded| recorded.header);
                let version = header.as_ref().map_or(Version::new(1), |header| header.version);
                if let (Some(topic), Some(header)) = (&self.topic, header) {
                    let event = SubjectEvent::Forgotten(SubjectForgotten::new(&*self.subject));
                    topic.publish([Envelope { header, event }]);
                }
                Ok(self.receipt(committed.last, version, true))
            }
            Err(Refused::KnownCommand(known)) => {
                Ok(self.receipt(known.position, known.version, false))
            }
            // It expects nothing of the stream.
            Err(conflict @ Refused::Conflict { .. }) => Err(Arc::new(StoreError::Failed {
                place: "the log".into(),
                source: conflict.into(),
            })),
        };
        self.outcome = Some(answer);
    }

    fn answer(self: Box<Self>) {
        let Self { outcome, reply, .. } = *self;
        if let Some(outcome) = outcome {
            // Whoever forgets waits for it.
            let _ = reply.send(outcome);
        }
    }

    fn failed(self: Box<Self>, error: Arc<StoreError>) {
        let _ = self.reply.send(Err(error));
    }
}
