//! Folding a view as of a position, for somebody who only wants to look at it.
//!
//! It is folded as a shadow is, up to the position and not further, and takes nobody's place. Whoever asked waits for it: so what
//! a rebuild would try again until it succeeds, a log that cannot be read or a view that cannot be written, is an error here.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};

use super::{Job, Old, Role, Shadow, Workshop};
use crate::actor::Panic;
use crate::clock::Timestamp;
use crate::letters::Letter;
use crate::letters::desk::ConsumerLetters;
use crate::letters::shelf::Shelf;
use crate::processor::{
    ConsumerState, Keeper, Processor, Progress, RebuildError, RebuildProgress, Stopping, Wiring,
};
use crate::projection::AsOfError;
use crate::stream::Position;

/// A view that was folded.
pub(crate) struct FoldedView<R> {
    /// What became of it.
    pub(crate) made: R,
    /// The events that it does not hold, since they could not be handled.
    pub(crate) letters: Vec<Letter>,
}

impl<K: Keeper> Workshop<K> {
    /// Folds the view that `make` begins, up to `until`, and hands it to `finish` with the progress to show; all of it on a thread
    /// for waiting. Dropping the future ends it.
    pub(crate) fn as_of<R: Send + 'static>(
        &self,
        until: Position,
        make: impl FnOnce() -> Result<Shadow<K>, AsOfError> + Send + 'static,
        finish: impl FnOnce(K, watch::Receiver<Progress>) -> Result<R, AsOfError> + Send + 'static,
    ) -> BoxFuture<'static, Result<FoldedView<R>, AsOfError>> {
        let (name, policy) = (self.name, self.policy);
        let (decoder, clock) = (self.decoder.clone(), Arc::clone(&self.clock));
        let (gauge, head) = (Arc::clone(&self.gauge), self.head.clone());
        let live = Arc::clone(&self.shelf);
        Box::pin(async move {
            // It goes with this future, and the folding with it.
            let (awaited, stopping) = watch::channel(Stopping::No);
            let (reply, answer) = oneshot::channel();
            let work = move || {
                let shadow = make()?;
                let shelf = Arc::clone(&shadow.shelf);
                let (_, clerk) =
                    ConsumerLetters::new(name, shadow.shelf, Arc::clone(decoder.store()));
                let progress = Arc::new(watch::Sender::new(still_at(until, clock.now())));
                let shown = progress.subscribe();
                let gauge = Arc::new(gauge.of_shadow(shown.clone(), Arc::clone(&shelf)));
                let job = job(name, head.clone());
                let mut ending = stopping.clone();
                let wiring =
                    Wiring { name, decoder, head, stopping, progress, gauge, clock, policy, clerk };
                let mut shadow = Processor::new(shadow.keeper, shadow.sources, wiring);
                shadow.role = Role::Shadow(job);
                let failed = |source| AsOfError::View { name, source };
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .map_err(|error| failed(error.into()))?;
                runtime.block_on(async {
                    tokio::select! {
                        biased;
                        _ = ending.changed() => Err(AsOfError::Ended(name)),
                        folded = shadow.fold_as_of(&live, until) => folded,
                    }
                })?;
                let letters = shelf.read().list();
                Ok(FoldedView { made: finish(shadow.keeper, shown)?, letters })
            };
            tokio::task::spawn_blocking(move || {
                let folded = Panic::catch(work).unwrap_or_else(|panic| {
                    let source = super::super::source::panicked(&panic);
                    Err(AsOfError::View { name, source })
                });
                // Whoever has asked may have gone away; what was made goes with the answer.
                let _ = reply.send(folded);
            });
            let folded = answer.await.unwrap_or(Err(AsOfError::Ended(name)));
            drop(awaited);
            folded
        })
    }
}

impl<K: Keeper> Processor<K> {
    /// Folds the log up to `until`, and tries again what may pass. What people have decided about the letters on `shelf` holds.
    async fn fold_as_of(&mut self, shelf: &Shelf, until: Position) -> Result<(), AsOfError> {
        self.adopt(shelf)?;
        self.fold_to(until).await?;
        loop {
            let due = {
                let shelved = self.wiring.clerk.shelf.read();
                shelved.next_due(self.position, |_| true).map(|(due, _)| due)
            };
            if due.is_none() {
                return Ok(());
            }
            self.wiring.clerk.wait(due).await;
            self.attend_shadow().await?;
        }
    }
}

impl From<RebuildError> for AsOfError {
    fn from(error: RebuildError) -> Self {
        match error {
            RebuildError::Unknown(name) => Self::Unknown(name),
            RebuildError::Stopped { name, position, trouble } => {
                Self::Stopped { name, position, trouble }
            }
            RebuildError::View { name, source } => Self::View { name, source },
            RebuildError::Busy(name)
            | RebuildError::Cancelled(name)
            | RebuildError::Decided { name, .. }
            | RebuildError::NothingKept(name)
            | RebuildError::Ended(name) => Self::Ended(name),
        }
    }
}

/// A job that nobody watches.
fn job(name: &'static str, head: watch::Receiver<crate::sequencer::Head>) -> Job {
    let position = Position::START;
    let (shown, _) =
        watch::channel(RebuildProgress { position, head: position, rate: 0, eta: None });
    Job {
        name,
        old: Old::Drop,
        begun: Instant::now(),
        from: position,
        head,
        shown,
        progress: std::sync::Weak::new(),
        cancelled: watch::channel(false).1,
        busy: Arc::new(AtomicBool::new(true)),
        outcome: None,
        insists: false,
    }
}

/// The progress of a view that is folded no further.
fn still_at(position: Position, at: Timestamp) -> Progress {
    Progress {
        position,
        time: Timestamp::default(),
        state: ConsumerState::Stopped,
        at,
        trouble: None,
        rebuild: None,
        outdated: false,
    }
}
