//! The sequencer: the one place where commits get their positions, become durable in groups, and are then published.
//!
//! ```text
//! shard ─ turn ─┐                       ┌─ publish, in commit order ─▶ topics
//! shard ─ turn ─┼─▶ group ─▶ store ─────┼─ move the head ────────────▶ processors
//! shard ─ turn ─┘   (one transaction)   └─ answer ───────────────────▶ callers, shards
//! ```
//!
//! A shard hands over a [`Turn`]: all that it decided in one go. While the store writes one group, turns gather for the next;
//! nobody waits for company, so a lone command is committed alone and at once.
//!
//! # A commit that fails
//! Nothing of the group is published. Each turn gets the error and answers its callers with it. Turns that were decided on
//! the lost state expect versions that the log never reached; the store refuses them, and their shard decides again.
//!
//! # A commit whose outcome is unknown
//! A store may have written what it reports as failed, and something else may write to the log past the app. Positions are
//! without gaps, so the sequencer notices: it publishes from the log what it did not publish itself, before anything that
//! comes after. While the log cannot be read, nothing is published and callers are answered all the same; readers are late
//! then, and miss nothing. An event that was written so and cannot be decoded sends the readers of its own topic to the log,
//! where they meet it in its place.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tracing::{debug_span, error, warn};

use crate::actor::Panic;
use crate::bus::Topics;
use crate::clock::Timestamp;
#[cfg(feature = "personal")]
use crate::personal::Keys;
use crate::store::{Commit, Committed, EventStore, Filter, Refused, StoreError};
use crate::stream::Position;
use crate::telemetry;

/// How many commits are written in one transaction at most. It bounds the memory of a group and how long one caller waits for
/// the work of others; beyond a thousand rows a larger transaction saves little (the sync is below a tenth of its cost).
const MAX_GROUP: usize = 4_096;

/// The first and the longest pause before the log is read again for what was not published.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// What one shard decided in one go.
pub(crate) trait Turn: Send {
    /// Moves the commits to the end of `group`.
    fn commits(&mut self, group: &mut Vec<Commit>);

    /// The commits are durable or were refused one by one: publishes the accepted ones.
    ///
    /// `outcomes` are those of this turn's commits, in their order.
    fn committed(&mut self, outcomes: &mut dyn Iterator<Item = (Commit, Outcome)>);

    /// The head has moved: answers the callers and the shard.
    fn answer(self: Box<Self>);

    /// The transaction failed, nothing was written: answers the callers and the shard.
    fn failed(self: Box<Self>, error: Arc<StoreError>);
}

/// How one commit ended.
pub(crate) type Outcome = Result<Committed, Refused>;

/// The end of the log that subscribers may see: everything up to it is durable and stands in its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) position: Position,
    /// When the newest event was decided.
    pub(crate) time: Timestamp,
}

/// The sequencer's thread.
#[derive(Debug)]
pub(crate) struct Sequencer {
    thread: JoinHandle<()>,
}

/// What a shard needs of the sequencer.
#[derive(Clone)]
pub(crate) struct SequencerInbox {
    turns: mpsc::Sender<Box<dyn Turn>>,
}

impl std::fmt::Debug for SequencerInbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SequencerInbox").finish_non_exhaustive()
    }
}

impl SequencerInbox {
    /// Hands over a turn. Gives it back if the sequencer has ended; there is always room, since a shard limits how many
    /// of its turns are on their way.
    pub(crate) fn hand_over(&self, turn: Box<dyn Turn>) -> Result<(), Box<dyn Turn>> {
        self.turns.try_send(turn).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(turn) | mpsc::error::TrySendError::Closed(turn) => turn,
        })
    }
}

/// What the sequencer has done so far.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    groups: AtomicU64,
    commits: AtomicU64,
    failed_groups: AtomicU64,
}

/// The state of the sequencer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SequencerStatus {
    /// The position up to which everything is durable and published.
    pub head: Position,
    /// How many transactions were written; each is one sync of the disk where the durability asks for it.
    pub groups: u64,
    /// How many commands these held.
    pub commits: u64,
    /// How many transactions failed.
    pub failed_groups: u64,
    /// How many turns of shards wait for the next transaction.
    pub queued_turns: usize,
}

/// A reader of the sequencer's state.
#[derive(Debug, Clone)]
pub(crate) struct SequencerGauge {
    counters: Arc<Counters>,
    turns: mpsc::WeakSender<Box<dyn Turn>>,
    head: watch::Receiver<Head>,
}

impl SequencerGauge {
    /// The way to the sequencer, unless it has ended.
    #[cfg(feature = "personal")]
    pub(crate) fn inbox(&self) -> Option<SequencerInbox> {
        self.turns.upgrade().map(|turns| SequencerInbox { turns })
    }

    pub(crate) fn status(&self) -> SequencerStatus {
        SequencerStatus {
            head: self.head.borrow().position,
            groups: self.counters.groups.load(Ordering::Relaxed),
            commits: self.counters.commits.load(Ordering::Relaxed),
            failed_groups: self.counters.failed_groups.load(Ordering::Relaxed),
            queued_turns: self
                .turns
                .upgrade()
                .map_or(0, |turns| turns.max_capacity() - turns.capacity()),
        }
    }
}

impl Sequencer {
    /// Starts the thread. It ends when every inbox is dropped and all that was handed over is done.
    ///
    /// `max_turns` is the sum of what all shards may have on their way. `topics` are set before the first command is taken.
    pub(crate) fn start(
        store: Arc<dyn EventStore>,
        #[cfg(feature = "personal")] keys: Keys,
        topics: Arc<OnceLock<Arc<Topics>>>,
        head: watch::Sender<Head>,
        max_turns: usize,
    ) -> std::io::Result<(Self, SequencerInbox, SequencerGauge)> {
        // One more has room: that of a subject that is forgotten.
        let (turns, inbox) = mpsc::channel(max_turns + 1);
        let counters = Arc::new(Counters::default());
        let gauge = SequencerGauge {
            counters: Arc::clone(&counters),
            turns: turns.downgrade(),
            head: head.subscribe(),
        };
        let written = head.borrow().position;
        let engine = Engine {
            store,
            #[cfg(feature = "personal")]
            keys,
            topics,
            written,
            head,
            counters,
            inbox,
            group: Vec::new(),
            turns: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("tidings-sequencer".into())
            .spawn(move || engine.run())?;
        Ok((Self { thread }, SequencerInbox { turns }, gauge))
    }

    /// Waits until the thread has ended; blocks.
    pub(crate) fn join(self) {
        if self.thread.join().is_err() {
            error!("the sequencer ended with a panic");
        }
    }
}

struct Engine {
    store: Arc<dyn EventStore>,
    #[cfg(feature = "personal")]
    keys: Keys,
    topics: Arc<OnceLock<Arc<Topics>>>,
    /// The end of the log as far as it is known; beyond the head if something was not published.
    written: Position,
    head: watch::Sender<Head>,
    counters: Arc<Counters>,
    inbox: mpsc::Receiver<Box<dyn Turn>>,
    group: Vec<Commit>,
    /// The turns of the group, each with the number of its commits.
    turns: Vec<(Box<dyn Turn>, usize)>,
}

impl Engine {
    fn run(mut self) {
        while let Some(turn) = self.next() {
            self.gather(turn);
            while self.group.len() < MAX_GROUP
                && let Ok(turn) = self.inbox.try_recv()
            {
                self.gather(turn);
            }
            self.commit();
        }
    }

    /// Waits for a turn; none when there will not be another one.
    fn next(&mut self) -> Option<Box<dyn Turn>> {
        let mut pause = PAUSES.0;
        while self.head.borrow().position < self.written {
            match self.inbox.try_recv() {
                Ok(turn) => return Some(turn),
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.publish_from_log(self.written);
                    return None;
                }
                Err(mpsc::error::TryRecvError::Empty) => {}
            }
            if !self.publish_from_log(self.written) {
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSES.1);
            }
        }
        self.inbox.blocking_recv()
    }

    fn gather(&mut self, mut turn: Box<dyn Turn>) {
        let before = self.group.len();
        turn.commits(&mut self.group);
        self.turns.push((turn, self.group.len() - before));
    }

    fn commit(&mut self) {
        let span = debug_span!(telemetry::COMMIT, commits = self.group.len());
        let _entered = span.enter();
        let result = Panic::catch(|| self.write()).unwrap_or_else(|panic| {
            Err(StoreError::Failed {
                place: "the store".into(),
                source: format!("it panicked: {}", panic.message).into(),
            })
        });
        match result {
            Ok(outcomes) => self.publish(outcomes),
            Err(error) => {
                self.counters.failed_groups.fetch_add(1, Ordering::Relaxed);
                self.group.clear();
                let error = Arc::new(error);
                for (turn, _) in self.turns.drain(..) {
                    contain(|| turn.failed(Arc::clone(&error)));
                }
                // It may have been written all the same. If this fails too, the next commit brings it to light.
                if let Ok(Ok(written)) = Panic::catch(|| self.store.head()) {
                    self.written = self.written.max(written);
                }
            }
        }
    }

    fn write(&mut self) -> Result<Vec<Outcome>, StoreError> {
        // What is sealed with a key that does not outlive a crash would be lost by one.
        #[cfg(feature = "personal")]
        self.keys.save()?;
        self.store.commit(&mut self.group)
    }

    /// Publishes before it answers, so that a caller with a receipt finds its events in the topics.
    fn publish(&mut self, outcomes: Vec<Outcome>) {
        self.counters.groups.fetch_add(1, Ordering::Relaxed);
        self.counters.commits.fetch_add(self.group.len() as u64, Ordering::Relaxed);
        let position = outcomes.iter().rev().find_map(|outcome| outcome.as_ref().ok());
        let position = position.map(|committed| committed.last);
        if let Some(position) = position {
            let accepted = self.group.iter().zip(&outcomes);
            let events: usize = accepted
                .filter(|(_, outcome)| outcome.is_ok())
                .map(|(commit, _)| commit.events.len())
                .sum();
            self.written = self.written.max(position);
            let before = Position::new(position.as_u64().saturating_sub(events as u64));
            if !self.publish_from_log(before) {
                // It has to wait for its turn in the log; the receipts do not depend on it.
                self.group.iter_mut().for_each(|commit| commit.events.clear());
            }
        }
        let time = self.group.iter().rev().find_map(|commit| commit.events.last());
        let time = time.map(|event| event.header.time);
        let published = time.is_some();
        let mut outcomes = self.group.drain(..).zip(outcomes);
        for (turn, commits) in &mut self.turns {
            let mut outcomes = outcomes.by_ref().take(*commits);
            contain(|| turn.committed(&mut outcomes));
            // Whatever it left: the next turn's stand behind them.
            outcomes.for_each(drop);
        }
        drop(outcomes);
        if let Some(position) = position
            && published
        {
            self.head.send_if_modified(|head| {
                let moved = position > head.position;
                if moved {
                    *head = Head { position, time: time.unwrap_or(head.time) };
                }
                moved
            });
        }
        for (turn, _) in self.turns.drain(..) {
            contain(|| turn.answer());
        }
    }

    /// Publishes what stands in the log up to `through` and was not published when it was committed. False if it cannot
    /// be read.
    fn publish_from_log(&self, through: Position) -> bool {
        loop {
            let head = *self.head.borrow();
            let missing = usize::try_from(head.position.behind(through)).unwrap_or(MAX_GROUP);
            if missing == 0 {
                return true;
            }
            let Some(topics) = self.topics.get() else {
                return false;
            };
            let limit = missing.min(MAX_GROUP);
            let page = Panic::catch(|| self.store.read_log(head.position, &Filter::All, limit));
            let events = match page {
                Ok(Ok(page)) => page.events,
                Ok(Err(error)) => {
                    warn!(%error, after = %head.position, "the log cannot be read to publish from it");
                    return false;
                }
                Err(panic) => {
                    error!(message = %panic.message, "the store panicked");
                    return false;
                }
            };
            let Some(last) = events.last() else {
                error!(after = %head.position, %through, "the log ends before what it holds");
                return false;
            };
            let reached = Head { position: last.header.position, time: last.header.time };
            topics.publish(&events);
            self.head.send_replace(reached);
        }
    }
}

/// Keeps a panic in a turn from the others: the code that drops a command or an event is the user's.
fn contain(step: impl FnOnce()) {
    if let Err(panic) = Panic::catch(step) {
        error!(
            panic = &*panic.message,
            "a turn panicked; its callers are told that the app is gone"
        );
    }
}
