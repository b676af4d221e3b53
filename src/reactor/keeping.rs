//! What an engine writes down, on a thread for waiting: its checkpoint and its letters, in one transaction each time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::route::Cause;
use crate::clock::Timestamp;
use crate::letters::desk::{Next, Reply};
use crate::letters::shelf::Change;
use crate::processor::ledger::Ledger;
use crate::stream::Position;

/// After which time, or how many events, the checkpoint is written down. It bounds what is delivered again after a crash
/// beside what was in hand; a write costs some tens of microseconds and the turn of all who write to the file.
const PACE: (Duration, usize) = (Duration::from_millis(50), 512);

/// How many positions may be passed without an event for this consumer before the checkpoint is written down all the same.
const UNSAVED: u64 = 10_000;

/// The first and the longest pause before a write that failed is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The ledger of an engine, and what is to be written into it.
pub(super) struct Keeping {
    /// None while it is being written.
    ledger: Option<Ledger>,
    saving: Option<Saving>,
    /// What has changed on the shelf.
    changes: Vec<Change>,
    decided: Vec<Decided>,
    /// The checkpoint that the file holds.
    saved: Position,
    /// How many events were finished since the checkpoint was written, and since when.
    finished: usize,
    since: Option<Instant>,
    /// When a write that failed is tried again.
    again: Option<Instant>,
    pause: Duration,
}

struct Saving {
    batch: Batch,
    write: JoinHandle<(Ledger, Result<(), Cause>)>,
}

struct Batch {
    checkpoint: (Position, Timestamp),
    changes: Vec<Change>,
    decided: Vec<Decided>,
}

/// What a person has decided about a letter. It counts once it is written down.
pub(super) struct Decided {
    pub(super) key: Arc<str>,
    pub(super) changes: Vec<Change>,
    pub(super) next: Next,
    pub(super) reply: Reply,
}

/// How a write ended.
pub(super) enum Saved {
    /// It is done, and so is what people have decided.
    Done(Vec<Decided>),
    /// It has to be done again; what people have decided is not.
    Failed(Cause, Vec<Decided>),
    /// The ledger is gone.
    Lost(Cause),
}

impl Keeping {
    pub(super) fn new(ledger: Ledger, saved: Position) -> Self {
        Self {
            ledger: Some(ledger),
            saving: None,
            changes: Vec::new(),
            decided: Vec::new(),
            saved,
            finished: 0,
            since: None,
            again: None,
            pause: PAUSES.0,
        }
    }

    /// Takes note of changes that stand on the shelf.
    pub(super) fn note(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.changes.extend(changes);
    }

    /// Takes note of what a person has decided.
    pub(super) fn decide(&mut self, decided: Decided) {
        self.decided.push(decided);
    }

    /// Takes note that an event is finished.
    pub(super) fn finished(&mut self) {
        self.finished += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    /// Whether the last write was done.
    pub(super) fn is_well(&self) -> bool {
        self.again.is_none()
    }

    /// Whether what people have decided is still to be written.
    pub(super) fn is_deciding(&self) -> bool {
        match &self.saving {
            Some(saving) => !saving.batch.decided.is_empty() || !self.decided.is_empty(),
            // Without a ledger it will not be.
            None => self.ledger.is_some() && !self.decided.is_empty(),
        }
    }

    /// When there is something to write next; none while something is written.
    pub(super) fn due(&self, checkpoint: Position) -> Option<Instant> {
        if self.saving.is_some() {
            return None;
        }
        if self.again.is_some() {
            return self.again;
        }
        let passed = self.saved.behind(checkpoint);
        let at_once = !self.changes.is_empty()
            || !self.decided.is_empty()
            || passed >= UNSAVED
            || (passed > 0 && self.finished >= PACE.1);
        if at_once {
            return Some(Instant::now());
        }
        self.since.filter(|_| passed > 0).map(|since| since + PACE.0)
    }

    /// Begins to write down what there is.
    pub(super) fn begin(&mut self, checkpoint: (Position, Timestamp)) {
        let Some(ledger) = self.ledger.take() else {
            return;
        };
        let batch = Batch {
            checkpoint,
            changes: std::mem::take(&mut self.changes),
            decided: std::mem::take(&mut self.decided),
        };
        (self.finished, self.since, self.again) = (0, None, None);
        let write = batch.write(ledger, self.saved);
        self.saving = Some(Saving { batch, write });
    }

    /// Waits until what is being written is written; for ever if nothing is.
    ///
    /// # Cancel safety
    /// The write goes on, and its end is not lost.
    pub(super) async fn saved(&mut self) -> Saved {
        let Some(saving) = &mut self.saving else {
            return std::future::pending().await;
        };
        let written = (&mut saving.write).await;
        let Some(Saving { batch, .. }) = self.saving.take() else {
            return std::future::pending().await;
        };
        let (ledger, outcome) = match written {
            Ok(written) => written,
            Err(error) => {
                // Who waits for what was to be written next learns from the end of it that nothing comes.
                self.decided.clear();
                return Saved::Lost(error.into());
            }
        };
        self.ledger = Some(ledger);
        match outcome {
            Ok(()) => {
                self.saved = batch.checkpoint.0;
                self.pause = PAUSES.0;
                Saved::Done(batch.decided)
            }
            Err(error) => {
                let later = std::mem::replace(&mut self.changes, batch.changes);
                self.changes.extend(later);
                self.again = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(PAUSES.1);
                Saved::Failed(error, batch.decided)
            }
        }
    }

    /// Writes down what is left, and closes the ledger.
    ///
    /// # Errors
    /// It could not be written.
    pub(super) async fn close(mut self, checkpoint: (Position, Timestamp)) -> Result<(), Cause> {
        if self.saving.is_some()
            && let Saved::Lost(error) = self.saved().await
        {
            return Err(error);
        }
        let Some(ledger) = self.ledger.take() else {
            return Ok(());
        };
        let batch = Batch { checkpoint, changes: self.changes, decided: Vec::new() };
        let (ledger, written) = batch.write(ledger, self.saved).await?;
        // Closing the file may take as long as writing to it.
        tokio::task::spawn_blocking(move || {
            let _closed = ledger;
        })
        .await?;
        written
    }
}

impl Batch {
    fn write(
        &self,
        mut ledger: Ledger,
        saved: Position,
    ) -> JoinHandle<(Ledger, Result<(), Cause>)> {
        let checkpoint = (self.checkpoint.0 > saved).then_some(self.checkpoint);
        let decided = self.decided.iter().flat_map(|decided| &decided.changes);
        let changes: Vec<Change> = self.changes.iter().chain(decided).cloned().collect();
        tokio::task::spawn_blocking(move || {
            let written = ledger.save(checkpoint, &changes);
            (ledger, written)
        })
    }
}
