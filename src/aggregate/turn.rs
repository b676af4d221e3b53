//! A turn: what a shard decided in one go, on its way through the sequencer and back.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Aggregate;
use super::shard::Incoming;
use crate::bus::Topic;
use crate::command::{Outcome, Receipt, SendError};
use crate::event::Envelope;
use crate::sequencer::{self, Turn};
use crate::store::{Commit, Durability, KnownCommand, Refused, StoreError};
use crate::stream::{StreamId, Version};

/// A command that was decided, with what it became if its commit goes through.
pub(super) struct Decided<A: Aggregate> {
    pub(super) incoming: Box<Incoming<A>>,
    /// The stream's version after it.
    pub(super) version: Version,
    pub(super) verdict: Verdict<A>,
}

pub(super) enum Verdict<A: Aggregate> {
    Accepted(Vec<A::Event>),
    Rejected(A::Error),
}

/// What a shard hands to the sequencer. The commits and the decided commands stand in the same order.
pub(super) struct DecidedTurn<A: Aggregate> {
    pub(super) number: u64,
    pub(super) commits: Vec<Commit>,
    pub(super) decided: Vec<Decided<A>>,
    pub(super) ended: Vec<Ended<A>>,
    pub(super) topic: Topic<A::Event>,
    pub(super) durability: Durability,
    pub(super) settled: mpsc::Sender<Settled<A>>,
}

/// How a decided command ended.
pub(super) enum Ended<A: Aggregate> {
    Answered {
        incoming: Box<Incoming<A>>,
        answer: Result<Receipt, SendError<A::Error>>,
        lost: bool,
    },
    /// Its commit was refused, because the state that it was decided on is not the log's.
    Stale(Box<Incoming<A>>),
}

/// What a shard gets back when a turn has ended.
pub(super) struct Settled<A: Aggregate> {
    pub(super) number: u64,
    pub(super) failures: Vec<Failure<A>>,
}

/// An aggregate whose state is not what the log holds.
pub(super) struct Failure<A: Aggregate> {
    pub(super) stream: StreamId,
    /// The command to decide again, unless its caller has been answered.
    pub(super) again: Option<Box<Incoming<A>>>,
}

impl<A: Aggregate> Turn for DecidedTurn<A> {
    fn commits(&mut self, group: &mut Vec<Commit>) {
        group.append(&mut self.commits);
    }

    fn committed(&mut self, outcomes: &mut dyn Iterator<Item = (Commit, sequencer::Outcome)>) {
        let (ended, durability) = (&mut self.ended, self.durability);
        let events =
            self.decided
                .drain(..)
                .zip(outcomes)
                .flat_map(|(decided, (commit, outcome))| {
                    let Decided {
                        incoming,
                        version,
                        verdict,
                    } = decided;
                    let (headers, events) = match (outcome, verdict) {
                        (Ok(committed), Verdict::Accepted(events)) => {
                            let receipt = Receipt {
                                command_id: incoming.command_id,
                                stream: incoming.stream.clone(),
                                version,
                                events: u32::try_from(events.len()).unwrap_or(u32::MAX),
                                position: committed.last,
                                durability,
                                outcome: Outcome::Applied,
                            };
                            ended.push(Ended::Answered {
                                incoming,
                                answer: Ok(receipt),
                                lost: false,
                            });
                            (commit.events, events)
                        }
                        (Ok(_), Verdict::Rejected(reason)) => {
                            let answer = Err(SendError::Rejected(reason));
                            ended.push(Ended::Answered {
                                incoming,
                                answer,
                                lost: false,
                            });
                            Default::default()
                        }
                        (Err(Refused::KnownCommand(known)), _) => {
                            let answer = known_command(&incoming, known, durability);
                            ended.push(Ended::Answered {
                                incoming,
                                answer,
                                lost: true,
                            });
                            Default::default()
                        }
                        (Err(Refused::Conflict { .. }), _) => {
                            ended.push(Ended::Stale(incoming));
                            Default::default()
                        }
                    };
                    let headers = headers.into_iter().map(|recorded| recorded.header);
                    headers
                        .zip(events)
                        .map(|(header, event)| Envelope { header, event })
                });
        self.topic.publish(events);
    }

    fn answer(mut self: Box<Self>) {
        let failures = self
            .ended
            .drain(..)
            .filter_map(|ended| match ended {
                Ended::Answered {
                    incoming,
                    answer,
                    lost,
                } => {
                    let stream = lost.then(|| incoming.stream.clone());
                    incoming.answer(answer);
                    stream.map(|stream| Failure {
                        stream,
                        again: None,
                    })
                }
                Ended::Stale(incoming) => Some(Failure {
                    stream: incoming.stream.clone(),
                    again: Some(incoming),
                }),
            })
            .collect();
        self.settle(failures);
    }

    fn failed(mut self: Box<Self>, error: Arc<StoreError>) {
        let failures = self
            .decided
            .drain(..)
            .map(|decided| {
                let stream = decided.incoming.stream.clone();
                decided
                    .incoming
                    .answer(Err(SendError::Store(Arc::clone(&error))));
                Failure {
                    stream,
                    again: None,
                }
            })
            .collect();
        self.settle(failures);
    }
}

impl<A: Aggregate> DecidedTurn<A> {
    fn settle(&self, failures: Vec<Failure<A>>) {
        // The channel has room for every turn that may be on its way; it is closed only when the shard has ended, and then
        // nobody decides on a lost state any more.
        let _ = self.settled.try_send(Settled {
            number: self.number,
            failures,
        });
    }
}

/// The answer to a command whose id the log knows already.
pub(super) fn known_command<A: Aggregate>(
    incoming: &Incoming<A>,
    known: KnownCommand,
    durability: Durability,
) -> Result<Receipt, SendError<A::Error>> {
    let KnownCommand {
        stream,
        version,
        events,
        position,
    } = known;
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
