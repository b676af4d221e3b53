//! Dead letters: events that a consumer could not handle, and those that wait behind them.
//!
//! An event that fails for good is parked under its key, with all attempts. Later events of that key wait behind it, in
//! order; every other key goes on. [`App::letters`](crate::App::letters) lists them, tries them again in their order, lets a
//! payload be edited, or discards one with a reason.
//!
//! # What is kept
//! Letters stand in the file of the views, beside the checkpoint of their consumer, so they survive a restart. A letter that was
//! edited or discarded leaves a record of that, for ever: a view that is built anew folds what a person decided.
//!
//! # Bounds
//! A consumer that would park more keys than its policy allows stops before that event, and goes on when letters have been
//! handled or discarded.

pub(crate) mod desk;
#[cfg(feature = "sqlite")]
pub(crate) mod rows;
pub(crate) mod shelf;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use self::desk::{ConsumerLetters, LetterError, LetterGroup, Letters, Retried};
use crate::clock::Timestamp;
use crate::event::Header;
use crate::id::{CorrelationId, EventId};
use crate::retry::{ErrorClass, Retry};
use crate::stream::{Position, StreamId, Version};

/// How many attempts a letter keeps: beyond, the oldest but the first is dropped. Retries by hand have no end.
pub(crate) const ATTEMPTS: usize = 100;

/// How many bytes of an error are kept for each attempt: it may quote what it was given, and the whole letter is written down
/// with each attempt.
const ERROR: usize = 4_096;

/// An event that a consumer could not handle, or that waits behind one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Letter {
    /// The event's place in the log.
    pub position: Position,
    /// What it is kept in order by: its stream, unless the consumer declares another key.
    pub key: Arc<str>,
    /// Whether it failed or waits.
    pub state: LetterState,
    /// The event's identity.
    pub event_id: EventId,
    /// The event's stored name.
    pub event: Cow<'static, str>,
    /// The event's stream.
    pub stream: StreamId,
    /// The event's place in its stream.
    pub version: Version,
    /// When the event was decided.
    pub time: Timestamp,
    /// The story that the event belongs to.
    pub correlation_id: CorrelationId,
    /// Every time it was tried, in order: the first, and the latest 99. Empty for a letter that waits.
    pub attempts: Vec<Attempt>,
    /// How often it was tried.
    pub tried: u32,
    /// The payload that a person wrote in place of the stored one, as JSON.
    pub edited: Option<Arc<[u8]>>,
}

/// Where a letter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LetterState {
    /// It failed with an error that may pass, and is tried again by itself.
    Retrying {
        /// When, at the earliest.
        at: Timestamp,
    },
    /// It failed for good, and waits for a person.
    Parked,
    /// It was not tried: an earlier event of its key has to be handled first.
    Waiting,
}

/// One time that an event was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attempt {
    /// When it failed.
    pub at: Timestamp,
    /// Whether the error was taken for one that passes.
    pub class: ErrorClass,
    /// The error with all its causes; its first 4 KiB, followed by `…`, if it is longer.
    pub error: String,
    /// The id of the span in which it was handled, if a subscriber of traces gave it one.
    pub span: Option<u64>,
}

impl Letter {
    /// A letter for an event that waits behind an earlier one.
    pub(crate) fn waiting(header: &Header, key: Arc<str>) -> Self {
        Self {
            position: header.position,
            key,
            state: LetterState::Waiting,
            event_id: header.event_id,
            event: header.name.clone(),
            stream: header.stream.clone(),
            version: header.version,
            time: header.time,
            correlation_id: header.correlation_id,
            attempts: Vec::new(),
            tried: 0,
            edited: None,
        }
    }

    /// Takes note of a failed attempt.
    fn failed(&mut self, mut attempt: Attempt, state: LetterState) {
        if attempt.error.len() > ERROR {
            attempt.error.truncate(attempt.error.floor_char_boundary(ERROR));
            attempt.error.push('…');
        }
        if self.attempts.len() >= ATTEMPTS {
            self.attempts.remove(1);
        }
        self.attempts.push(attempt);
        self.tried = self.tried.saturating_add(1);
        self.state = state;
    }

    /// Takes note of a failed attempt, and says when the letter is to be tried again by itself; none if it has failed for good.
    pub(crate) fn tried_in_vain(&mut self, attempt: Attempt, retry: &Retry) -> Option<Instant> {
        let pause = match attempt.class {
            ErrorClass::Transient => retry.pause(self.tried.saturating_add(1)),
            ErrorClass::Permanent => None,
        };
        let state = match pause {
            Some(pause) => LetterState::Retrying { at: attempt.at.after(pause) },
            None => LetterState::Parked,
        };
        self.failed(attempt, state);
        pause.map(|pause| Instant::now() + pause)
    }

    /// What went wrong the last time that it was tried; none if it only waits.
    pub fn error(&self) -> Option<&str> {
        self.attempts.last().map(|attempt| attempt.error.as_str())
    }
}

impl fmt::Debug for Letter {
    /// Leaves out the edited payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letter")
            .field("position", &self.position)
            .field("key", &self.key)
            .field("state", &self.state)
            .field("event", &self.event)
            .field("tried", &self.tried)
            .field("error", &self.error())
            .field("edited", &self.edited.is_some())
            .finish_non_exhaustive()
    }
}

/// What a person decided about a letter; kept for ever.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Resolution {
    /// The event's place in the log.
    pub position: Position,
    /// What was decided.
    pub kind: ResolutionKind,
    /// When.
    pub at: Timestamp,
}

/// What can be decided about a letter.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ResolutionKind {
    /// The consumer goes on without the event.
    Discarded {
        /// Why.
        reason: String,
    },
    /// The consumer handles this payload in place of the stored one.
    Edited {
        /// The payload, as JSON.
        payload: Arc<[u8]>,
    },
}

impl fmt::Debug for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolution")
            .field("position", &self.position)
            .field("kind", &self.kind)
            .field("at", &self.at)
            .finish()
    }
}

impl fmt::Debug for ResolutionKind {
    /// Leaves out the payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discarded { reason } => {
                f.debug_struct("Discarded").field("reason", reason).finish()
            }
            Self::Edited { payload } => {
                f.debug_struct("Edited").field("bytes", &payload.len()).finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_keeps_the_beginning_of_a_long_error() {
        let stream = StreamId::new("account", "a").unwrap();
        let header = Header::new(stream, "account.deposited", 1, Timestamp::default());
        let mut letter = Letter::waiting(&header, "a".into());
        for (length, kept) in [(ERROR, ERROR), (ERROR + 1, ERROR + '…'.len_utf8())] {
            let (at, error) = (Timestamp::default(), "x".repeat(length));
            letter.tried_in_vain(
                Attempt { at, class: ErrorClass::Permanent, error, span: None },
                &Retry::NEVER,
            );
            assert_eq!(letter.error().map(str::len), Some(kept));
        }
        // A character that does not fit as a whole is left out.
        let error = "x".repeat(ERROR - 1) + "é";
        let at = Timestamp::default();
        letter.tried_in_vain(
            Attempt { at, class: ErrorClass::Permanent, error, span: None },
            &Retry::NEVER,
        );
        assert_eq!(letter.error().map(str::len), Some(ERROR - 1 + '…'.len_utf8()));
    }
}
