//! A turn: what a shard decided in one go, on its way through the sequencer and back.

use std::cell::Cell;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Aggregate;
use super::shard::Incoming;
use crate::bus::Topic;
use crate::command::{Outcome, Receipt, SendError};
use crate::event::{Envelope, Recorded};
use crate::sequencer::{self, Turn};
use crate::store::{Commit, Durability, KnownCommand, Refused, Snapshot, StoreError};
use crate::stream::{StreamId, Version};

/// A command that was decided, with what it became if its commit goes through.
pub(super) struct Decided<A: Aggregate> {
    pub(super) incoming: Box<Incoming<A>>,
    /// The stream's version after it.
    pub(super) version: Version,
    pub(super) verdict: Verdict<A::Error>,
}

pub(super) enum Verdict<R> {
    /// With so many events.
    Accepted(usize),
    Rejected(R),
}

/// What a shard hands to the sequencer. The commits and the decided commands stand in the same order, and so do the events
/// of all of them. It comes back to the shard empty, to be filled again.
pub(super) struct DecidedTurn<A: Aggregate> {
    pub(super) number: u64,
    pub(super) commits: Vec<Commit>,
    pub(super) decided: Vec<Decided<A>>,
    pub(super) events: Vec<A::Event>,
    /// States of its streams as they are after it.
    pub(super) snapshots: Vec<Snapshot>,
    /// The code that drops an event is the user's, and has panicked: which commits were refused is not known any more.
    pub(super) torn: bool,
    ended: Vec<Ended<A>>,
    topic: Topic<Envelope<A::Event>>,
    durability: Durability,
    settled: mpsc::Sender<Settled<A>>,
}

/// How a decided command ended.
enum Ended<A: Aggregate> {
    Answered {
        incoming: Box<Incoming<A>>,
        answer: Result<Receipt, SendError<A::Error>>,
        /// The events that its aggregate has applied are not in the log.
        lost: bool,
    },
    /// Its commit was refused, because the state that it was decided on is not the log's.
    Stale(Box<Incoming<A>>),
}

/// What a shard gets back when a turn has ended.
pub(super) struct Settled<A: Aggregate> {
    pub(super) turn: Box<DecidedTurn<A>>,
    pub(super) failures: Vec<Failure<A>>,
}

/// An aggregate whose state is not what the log holds.
pub(super) struct Failure<A: Aggregate> {
    pub(super) stream: StreamId,
    /// The command to decide again, unless its caller has been answered.
    pub(super) again: Option<Box<Incoming<A>>>,
}

impl<A: Aggregate> DecidedTurn<A> {
    pub(super) fn new(
        topic: Topic<Envelope<A::Event>>,
        durability: Durability,
        settled: mpsc::Sender<Settled<A>>,
    ) -> Self {
        Self {
            number: 0,
            commits: Vec::new(),
            decided: Vec::new(),
            events: Vec::new(),
            snapshots: Vec::new(),
            torn: false,
            ended: Vec::new(),
            topic,
            durability,
            settled,
        }
    }

    fn settle(mut self: Box<Self>, failures: Vec<Failure<A>>) {
        self.events.clear();
        let settled = self.settled.clone();
        // The channel has room for every turn that may be on its way; it is closed only when the shard has ended, and then
        // nobody decides on a lost state any more.
        let _ = settled.try_send(Settled { turn: self, failures });
    }
}

impl<A: Aggregate> Turn for DecidedTurn<A> {
    fn commits(&mut self, group: &mut Vec<Commit>) {
        group.append(&mut self.commits);
    }

    fn committed(&mut self, outcomes: &mut dyn Iterator<Item = (Commit, sequencer::Outcome)>) {
        // Unless it comes to the end of this.
        self.torn = true;
        let caused_by_handlers = self.decided.iter().any(|decided| decided.incoming.depth > 0);
        let mut decided = self.decided.drain(..);
        let mut events = self.events.drain(..);
        let (ended, durability) = (&mut self.ended, self.durability);
        let mut recorded = Vec::new().into_iter();
        let depth = Cell::new(0);
        let envelopes = std::iter::from_fn(|| {
            loop {
                if let Some(Recorded { header, .. }) = recorded.next() {
                    return events.next().map(|event| Envelope { header, event });
                }
                let (decided, (commit, outcome)) = decided.next().zip(outcomes.next())?;
                let (accepted, published) = match &decided.verdict {
                    Verdict::Accepted(accepted) => (*accepted, commit.events.len()),
                    Verdict::Rejected(_) => (0, 0),
                };
                depth.set(decided.incoming.depth);
                if outcome.is_ok() && accepted == published {
                    recorded = commit.events.into_iter();
                } else {
                    // Refused, or to be published from the log in its turn.
                    events.by_ref().take(accepted).for_each(drop);
                }
                ended.push(Ended::new(decided, outcome, durability));
            }
        });
        if caused_by_handlers {
            self.topic.publish_deep(envelopes.map(|envelope| (depth.get(), envelope)));
        } else {
            self.topic.publish(envelopes);
        }
        self.torn = false;
    }

    fn answer(mut self: Box<Self>) {
        let failures = self.ended.drain(..).filter_map(Ended::answer).collect();
        self.settle(failures);
    }

    fn failed(mut self: Box<Self>, error: Arc<StoreError>) {
        let failures = self.decided.drain(..).map(|Decided { incoming, .. }| {
            let stream = incoming.stream.clone();
            incoming.answer(Err(SendError::Store(Arc::clone(&error))));
            Failure { stream, again: None }
        });
        let failures = failures.collect();
        self.settle(failures);
    }
}

impl<A: Aggregate> Ended<A> {
    fn new(decided: Decided<A>, outcome: sequencer::Outcome, durability: Durability) -> Self {
        let Decided { incoming, version, verdict } = decided;
        let (answer, lost) = match (outcome, verdict) {
            (Ok(committed), Verdict::Accepted(events)) => {
                let receipt = Receipt {
                    command_id: incoming.command_id,
                    stream: incoming.stream.clone(),
                    version,
                    events: u32::try_from(events).unwrap_or(u32::MAX),
                    position: committed.last,
                    durability,
                    outcome: Outcome::Applied,
                };
                (Ok(receipt), false)
            }
            (Ok(_), Verdict::Rejected(reason)) => (Err(SendError::Rejected(reason)), false),
            (Err(Refused::KnownCommand(known)), _) => {
                (known_command(&incoming, known, durability), true)
            }
            (Err(Refused::Conflict { .. }), _) => return Self::Stale(incoming),
        };
        Self::Answered { incoming, answer, lost }
    }

    /// Answers the caller, unless the command is to be decided again. Returns what the shard must know.
    fn answer(self) -> Option<Failure<A>> {
        match self {
            Self::Answered { incoming, answer, lost } => {
                let stream = lost.then(|| incoming.stream.clone());
                incoming.answer(answer);
                stream.map(|stream| Failure { stream, again: None })
            }
            Self::Stale(incoming) => {
                Some(Failure { stream: incoming.stream.clone(), again: Some(incoming) })
            }
        }
    }
}

/// The answer to a command whose id the log knows already.
pub(super) fn known_command<A: Aggregate>(
    incoming: &Incoming<A>,
    known: KnownCommand,
    durability: Durability,
) -> Result<Receipt, SendError<A::Error>> {
    let KnownCommand { stream, version, events, position } = known;
    if stream != incoming.stream {
        return Err(SendError::CommandIdReused {
            command_id: incoming.command_id,
            first: stream,
            stream: incoming.stream.clone(),
        });
    }
    Ok(Receipt {
        command_id: incoming.command_id,
        stream,
        version,
        events,
        position,
        durability,
        outcome: Outcome::AlreadyKnown,
    })
}
