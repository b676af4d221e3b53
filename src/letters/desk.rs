//! Where a person and a consumer deal with letters: the handle on one side, the orders on the other.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tracing::info;

use super::shelf::{Change, Shelf};
use super::{Letter, LetterState, Resolution, ResolutionKind};
use crate::clock::Timestamp;
use crate::codec::Codec;
use crate::event::DecodeError;
use crate::store::EventStore;
use crate::stream::Position;

/// How many orders may wait for a consumer; whoever gives one more waits.
const ORDERS: usize = 16;

/// What a person wants done with letters.
pub(crate) struct Order {
    pub(crate) what: What,
    pub(crate) reply: Reply,
}

pub(crate) type Reply = oneshot::Sender<Result<Retried, LetterError>>;

pub(crate) enum What {
    /// Try the letters of a key, in order.
    Retry(Arc<str>),
    /// Take this payload in place of the stored one, and try.
    Edit(Position, Arc<[u8]>),
    /// Go on without it, for this reason.
    Discard(Position, String),
}

/// What an order comes to.
pub(crate) enum Task {
    /// The letters of this key are tried.
    Try(Arc<str>),
    /// These changes to the letters of this key are written down.
    Decide(Arc<str>, Vec<Change>, Next),
}

/// What follows a change to the letters of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// They are tried.
    Try,
    /// Nothing: the first has failed, and was not meant.
    Rest,
}

/// What became of letters that were tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retried {
    /// How many were handled.
    pub handled: u64,
    /// The letters that failed again, with what stands behind them still waiting; at most one for each key.
    pub failed: Vec<Letter>,
}

/// Parked keys that failed at the same type of event with the same error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LetterGroup {
    /// The stored name of the events.
    pub event: String,
    /// The error, with all its causes.
    pub error: String,
    /// The keys, in the order in which they failed in the log.
    pub keys: Vec<Arc<str>>,
    /// How many letters they hold, those that wait included.
    pub letters: usize,
}

/// Why an order about letters was not carried out. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LetterError {
    /// There is no letter.
    #[error("{consumer} holds no letter for {what}: list its letters to see what it holds")]
    NotFound {
        /// The consumer.
        consumer: &'static str,
        /// The position or key that was asked for.
        what: String,
    },
    /// An earlier letter of the same key has to be handled first.
    #[error(
        "the letter at position {position} waits behind the one at {first}: retry or discard that first"
    )]
    NotFirst {
        /// The letter that was asked for.
        position: Position,
        /// The first of its key.
        first: Position,
    },
    /// A view in memory is folded anew, and has not reached the letter yet.
    #[error(
        "{consumer} is still catching up and has not reached position {position}: try again when it has"
    )]
    NotReached {
        /// The consumer.
        consumer: &'static str,
        /// The letter's position.
        position: Position,
    },
    /// A letter is discarded without a reason.
    #[error(
        "the letter at position {position} needs a reason to be discarded for: it is kept for ever"
    )]
    NoReason {
        /// The letter.
        position: Position,
    },
    /// The edited payload is none of the event's type.
    #[error("the edited payload does not fit the event")]
    Edit(#[source] DecodeError),
    /// The letter, or its record, cannot be read or written.
    #[error("{consumer} cannot reach its letters")]
    Store {
        /// The consumer.
        consumer: &'static str,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The consumer has ended with its app, or has stopped for another reason.
    #[error("{consumer} has stopped: start the app again and give the order then")]
    Stopped {
        /// The consumer.
        consumer: &'static str,
    },
}

/// The dead letters of all consumers of an app.
#[derive(Debug, Clone)]
pub struct Letters {
    desks: Arc<[ConsumerLetters]>,
}

impl Letters {
    pub(crate) fn new(desks: Vec<ConsumerLetters>) -> Self {
        Self { desks: desks.into() }
    }

    /// The letters of each consumer that parks events.
    pub fn consumers(&self) -> impl Iterator<Item = &ConsumerLetters> {
        self.desks.iter()
    }

    /// The letters of the consumer of this name: of a projection, a reactor, or of the aggregates of a category that
    /// subscribe. None if there is no such consumer.
    pub fn of(&self, consumer: &str) -> Option<&ConsumerLetters> {
        self.desks.iter().find(|desk| desk.consumer == consumer)
    }

    /// Whether no consumer holds a letter.
    pub fn is_empty(&self) -> bool {
        self.desks.iter().all(|desk| desk.shelf.read().count().1 == 0)
    }
}

/// The dead letters of one consumer. Cloning is cheap.
#[derive(Clone)]
pub struct ConsumerLetters {
    consumer: &'static str,
    shelf: Arc<Shelf>,
    orders: mpsc::Sender<Order>,
    store: Arc<dyn EventStore>,
}

impl ConsumerLetters {
    /// The handle, and the consumer's side of it.
    pub(crate) fn new(
        consumer: &'static str,
        shelf: Arc<Shelf>,
        store: Arc<dyn EventStore>,
    ) -> (Self, Clerk) {
        let (orders, receiver) = mpsc::channel(ORDERS);
        let clerk = Clerk {
            consumer,
            shelf: Arc::clone(&shelf),
            orders: receiver,
            next: None,
            asked: HashMap::new(),
        };
        (Self { consumer, shelf, orders, store }, clerk)
    }

    /// The consumer's name.
    pub fn consumer(&self) -> &'static str {
        self.consumer
    }

    /// All letters, in the order of the log.
    pub fn list(&self) -> Vec<Letter> {
        self.shelf.read().list()
    }

    /// The letters of `key`, in order.
    pub fn of_key(&self, key: &str) -> Vec<Letter> {
        self.shelf.read().of_key(key)
    }

    /// The letter at `position`.
    pub fn at(&self, position: Position) -> Option<Letter> {
        self.shelf.read().at(position).cloned()
    }

    /// The keys that have failed, by event and error; the largest group first.
    pub fn groups(&self) -> Vec<LetterGroup> {
        let mut firsts: Vec<(Letter, usize)> = {
            let shelved = self.shelf.read();
            shelved
                .firsts()
                .filter(|letter| letter.state != LetterState::Waiting)
                .map(|letter| (letter.clone(), shelved.of_key(&letter.key).len()))
                .collect()
        };
        firsts.sort_unstable_by_key(|(letter, _)| letter.position);
        let mut groups: Vec<LetterGroup> = Vec::new();
        for (letter, letters) in firsts {
            let error = letter.error().unwrap_or_default();
            let known =
                groups.iter_mut().find(|group| group.event == letter.event && group.error == error);
            match known {
                Some(group) => {
                    group.keys.push(letter.key);
                    group.letters += letters;
                }
                None => groups.push(LetterGroup {
                    event: letter.event.to_string(),
                    error: error.to_owned(),
                    keys: vec![letter.key],
                    letters,
                }),
            }
        }
        groups.sort_by_key(|group| std::cmp::Reverse(group.letters));
        groups
    }

    /// What the consumer is handed of the letter at `position`, as JSON: the payload as it is stored, or as it was edited. One that
    /// is stored in another format is converted.
    ///
    /// # Errors
    /// [`LetterError::NotFound`] if there is no such letter, [`LetterError::Store`] if the log or the payload cannot be read.
    ///
    /// # Cancel safety
    /// Reading changes nothing.
    pub async fn payload(&self, position: Position) -> Result<Vec<u8>, LetterError> {
        let letter = self.letter(position)?;
        match letter.edited {
            Some(edited) => Ok(edited.to_vec()),
            None => {
                let consumer = self.consumer;
                let recorded = crate::processor::read(&self.store, position)
                    .await
                    .map_err(|error| LetterError::Store { consumer, source: error.into() })?;
                let codec = recorded.header.codec;
                match codec {
                    // As it is: a person sees what was written, be it JSON or not.
                    Codec::Json => Ok(recorded.payload.to_vec()),
                    _ => codec
                        .decode_json(&recorded.payload)
                        .map(|json| json.to_string().into_bytes())
                        .map_err(|error| LetterError::Store { consumer, source: error.into() }),
                }
            }
        }
    }

    /// What people have decided about letters, in the order of the log.
    pub fn resolutions(&self) -> Vec<Resolution> {
        self.shelf.read().resolutions()
    }

    /// Tries the letter at `position` again, and if that goes well those of its key that wait behind it, in order.
    ///
    /// # Errors
    /// [`LetterError`]; that it fails again is no error, and shows in what is returned.
    ///
    /// # Cancel safety
    /// Dropped, the letters are tried all the same.
    pub async fn retry(&self, position: Position) -> Result<Retried, LetterError> {
        let key = self.first_of_key(position)?;
        self.order(What::Retry(key)).await
    }

    /// Tries the letters of `key` again, in order, until one fails.
    ///
    /// # Errors
    /// As [`retry`](Self::retry).
    ///
    /// # Cancel safety
    /// As there.
    pub async fn retry_key(&self, key: &str) -> Result<Retried, LetterError> {
        self.order(What::Retry(self.key(key)?)).await
    }

    /// Tries all keys of a group again, each in order.
    ///
    /// # Errors
    /// As [`retry`](Self::retry); a key that is no longer parked is none.
    ///
    /// # Cancel safety
    /// Dropped, the key that is being tried is tried to its end, and the rest is not.
    pub async fn retry_group(&self, group: &LetterGroup) -> Result<Retried, LetterError> {
        let mut all = Retried { handled: 0, failed: Vec::new() };
        for key in &group.keys {
            match self.retry_key(key).await {
                Ok(retried) => {
                    all.handled += retried.handled;
                    all.failed.extend(retried.failed);
                }
                Err(LetterError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Lets the consumer take `payload`, which is JSON whichever format the event is stored in, in place of the stored one, for
    /// ever, and tries again as [`retry`](Self::retry) does.
    /// The log is not changed.
    ///
    /// # Errors
    /// [`LetterError::Edit`] if the payload is none of the event's type, else as [`retry`](Self::retry).
    ///
    /// # Cancel safety
    /// Dropped, it happens all the same.
    pub async fn edit(
        &self,
        position: Position,
        payload: impl Into<Vec<u8>>,
    ) -> Result<Retried, LetterError> {
        self.first_of_key(position)?;
        self.order(What::Edit(position, payload.into().into())).await
    }

    /// Lets the consumer go on without the letter, and, if it was the first of its key, tries those that wait behind it. The reason
    /// is kept for ever.
    ///
    /// # Errors
    /// [`LetterError::NoReason`] if the reason is empty, else as [`retry`](Self::retry).
    ///
    /// # Cancel safety
    /// Dropped, it happens all the same.
    pub async fn discard(
        &self,
        position: Position,
        reason: impl Into<String>,
    ) -> Result<Retried, LetterError> {
        self.letter(position)?;
        let reason = reason.into();
        if reason.trim().is_empty() {
            return Err(LetterError::NoReason { position });
        }
        self.order(What::Discard(position, reason)).await
    }

    fn letter(&self, position: Position) -> Result<Letter, LetterError> {
        self.at(position).ok_or_else(|| LetterError::NotFound {
            consumer: self.consumer,
            what: format!("position {position}"),
        })
    }

    fn first_of_key(&self, position: Position) -> Result<Arc<str>, LetterError> {
        let letter = self.letter(position)?;
        let first = self.shelf.read().first(&letter.key).map(|first| first.position);
        match first {
            Some(first) if first < position => Err(LetterError::NotFirst { position, first }),
            _ => Ok(letter.key),
        }
    }

    fn key(&self, key: &str) -> Result<Arc<str>, LetterError> {
        self.shelf.read().first(key).map(|letter| Arc::clone(&letter.key)).ok_or_else(|| {
            LetterError::NotFound { consumer: self.consumer, what: format!("key {key:?}") }
        })
    }

    async fn order(&self, what: What) -> Result<Retried, LetterError> {
        let (reply, answer) = oneshot::channel();
        let stopped = || LetterError::Stopped { consumer: self.consumer };
        self.orders.send(Order { what, reply }).await.map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl fmt::Debug for ConsumerLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keys, letters) = self.shelf.read().count();
        f.debug_struct("ConsumerLetters")
            .field("consumer", &self.consumer)
            .field("keys", &keys)
            .field("letters", &letters)
            .finish_non_exhaustive()
    }
}

/// The consumer's side: takes orders, and answers them when their letters have been tried.
pub(crate) struct Clerk {
    consumer: &'static str,
    pub(crate) shelf: Arc<Shelf>,
    orders: mpsc::Receiver<Order>,
    /// An order that was received and not taken yet.
    next: Option<Order>,
    /// Who waits for the letters of a key to be tried.
    asked: HashMap<Arc<str>, Asked>,
}

#[derive(Default)]
struct Asked {
    handled: u64,
    replies: Vec<Reply>,
}

impl Clerk {
    /// The next order, if there is one.
    pub(crate) fn next_order(&mut self) -> Option<Order> {
        self.next.take().or_else(|| self.orders.try_recv().ok())
    }

    /// Waits for an order, or until `due`.
    ///
    /// # Cancel safety
    /// No order is lost.
    pub(crate) async fn wait(&mut self, due: Option<Instant>) {
        if self.next.is_some() {
            return;
        }
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The app holds a sender as long as it lives; without one there are no orders.
            Some(order) = self.orders.recv() => self.next = Some(order),
            () = due => {}
        }
    }

    /// What is to be done for an order of a consumer that has reached this position; a payload was checked before.
    pub(crate) fn weigh(
        &self,
        what: What,
        reached: Position,
        now: Timestamp,
    ) -> Result<Task, LetterError> {
        let consumer = self.consumer;
        let shelved = self.shelf.read();
        let (position, kind) = match what {
            What::Retry(key) => {
                let first = shelved.first(&key).map(|letter| letter.position);
                return match first {
                    Some(position) if position > reached => {
                        Err(LetterError::NotReached { consumer, position })
                    }
                    _ => Ok(Task::Try(key)),
                };
            }
            What::Edit(position, payload) => (position, ResolutionKind::Edited { payload }),
            What::Discard(position, reason) => {
                info!(consumer, %position, reason, "a letter is discarded");
                (position, ResolutionKind::Discarded { reason })
            }
        };
        let discards = matches!(kind, ResolutionKind::Discarded { .. });
        let decided = shelved.resolve(position, kind, now);
        let not_found = || LetterError::NotFound { consumer, what: format!("position {position}") };
        let (key, changes) = decided.ok_or_else(not_found)?;
        let is_first = shelved.first(&key).is_some_and(|first| first.position == position);
        let next = if discards && !is_first { Next::Rest } else { Next::Try };
        Ok(Task::Decide(key, changes, next))
    }

    /// What a person has decided about a letter of `key` is written down: lets `reply` be answered after what is next.
    pub(crate) fn decided(&mut self, key: Arc<str>, next: Next, reply: Reply) {
        match next {
            Next::Try => self.ask(key, reply),
            Next::Rest => answer(vec![reply], 0, None),
        }
    }

    /// Lets the letters of `key` be tried now, and `reply` be answered then.
    pub(crate) fn ask(&mut self, key: Arc<str>, reply: Reply) {
        let mut shelved = self.shelf.read();
        if shelved.first(&key).is_none() {
            drop(shelved);
            // Others may wait for the letters that are gone.
            self.asked.entry(Arc::clone(&key)).or_default().replies.push(reply);
            return self.failed(&key);
        }
        shelved.set_due(&key, Some(Instant::now()));
        drop(shelved);
        self.asked.entry(key).or_default().replies.push(reply);
    }

    /// The first letter of `key` was handled, and is no longer on the shelf.
    pub(crate) fn handled(&mut self, key: &Arc<str>) {
        // One that had failed for good before what stood in front of it is not tried with that.
        let next = self.shelf.read().first(key).map(|letter| letter.state);
        if let Some(asked) = self.asked.get_mut(key) {
            asked.handled += 1;
        }
        if matches!(next, None | Some(LetterState::Parked)) {
            self.failed(key);
        }
    }

    /// The letters are others than before: answers those who wait for what is not among them.
    pub(crate) fn settle(&mut self) {
        let gone = {
            let shelved = self.shelf.read();
            self.asked.extract_if(|key, _| shelved.first(key).is_none()).collect::<Vec<_>>()
        };
        for (_, asked) in gone {
            answer(asked.replies, asked.handled, None);
        }
    }

    /// The first letter of `key`, if there is one, is not tried again for who has asked.
    pub(crate) fn failed(&mut self, key: &Arc<str>) {
        if let Some(asked) = self.asked.remove(key) {
            let left = self.shelf.read().first(key).cloned();
            answer(asked.replies, asked.handled, left);
        }
    }
}

fn answer(replies: Vec<Reply>, handled: u64, failed: Option<Letter>) {
    for reply in replies {
        let failed = failed.iter().cloned().collect();
        // Whoever gave the order may have gone away.
        let _ = reply.send(Ok(Retried { handled, failed }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::shelf::Shelved;
    use super::*;
    use crate::event::Header;
    use crate::stream::StreamId;

    fn letter(position: u64, key: &str) -> Change {
        let stream = StreamId::new("account", key).unwrap();
        let mut header = Header::new(stream, "account.deposited", 1, Timestamp::default());
        header.position = Position::new(position);
        Change::Put(Box::new(Letter::waiting(&header, key.into())))
    }

    #[test]
    fn whoever_waits_for_a_letter_that_is_discarded_meanwhile_is_answered() {
        let shelf = Arc::new(Shelf::new(Shelved::default()));
        shelf.apply(vec![letter(7, "a")]);
        let (_letters, mut clerk) =
            ConsumerLetters::new("till", Arc::clone(&shelf), Arc::new(crate::store::Memory::new()));
        let key: Arc<str> = "a".into();
        let (retry, mut retried) = oneshot::channel();
        let (discard, mut discarded) = oneshot::channel();
        clerk.ask(Arc::clone(&key), retry);
        shelf.apply(vec![Change::Remove(Arc::clone(&key), Position::new(7))]);
        clerk.ask(key, discard);
        let nothing = Retried { handled: 0, failed: Vec::new() };
        assert_eq!(discarded.try_recv().unwrap().unwrap(), nothing);
        assert_eq!(retried.try_recv().unwrap().unwrap(), nothing);
    }
}
