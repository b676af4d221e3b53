//! What a processor does with letters: parks what fails, tries again what may pass, carries out what a person orders.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::source::{panicked, pass_unknown};
use super::{
    Chunk, Failure, Interrupt, Keeper, PAUSES, Processor, Sorting, Step, Stopping, Trouble, before,
};
use crate::actor::Panic;
use crate::clock::Timestamp;
use crate::event::{DecodeError, Recorded};
use crate::letters::desk::{Clerk, LetterError, Order, Task, What};
use crate::letters::shelf::{Change, Fate};
use crate::letters::{Attempt, Letter};
use crate::retry::{ErrorClass, FailurePolicy, OnFailure, UnknownEvents};
use crate::store::{EventStore, Filter, StoreError};
use crate::stream::Position;
use crate::telemetry::chain;

/// How many letters of a key are tried in one go before other events have their turn.
const DRAIN: usize = 64;

/// After which pause a letter is tried whose event could not be read from the log.
const UNREAD: Duration = Duration::from_secs(1);

impl<K: Keeper> Processor<K> {
    /// Deals with an event that could not be handled: everything before it is folded, and it is parked or, if the consumer may
    /// not pass it, tried again in its place.
    pub(super) async fn put_aside(&mut self, failure: Box<Failure>) -> Result<Step, Interrupt> {
        let mut failure = failure;
        self.leave();
        loop {
            // What was taken back together with the failing event is folded again, up to the one before it.
            match self.catch_up(Some(before(failure.header.position))).await {
                Ok(Step::Stop) => return Ok(Step::Stop),
                Ok(_) => break,
                Err(Interrupt::Failed(earlier)) => failure = earlier,
                Err(trouble) => return Err(trouble),
            }
        }
        let is_unknown = DecodeError::says_unknown(&*failure.source);
        if is_unknown && self.wiring.policy.unknown == UnknownEvents::Refuse {
            return Err(Trouble::unknown(&failure.header).into());
        }
        match self.wiring.policy.on_failure {
            OnFailure::Park => self.park(*failure).map(|()| Step::Behind),
            OnFailure::Stop => self.insist(*failure).await,
        }
    }

    fn park(&mut self, failure: Failure) -> Result<(), Interrupt> {
        let shelf = Arc::clone(&self.wiring.clerk.shelf);
        let (position, key) = (failure.header.position, Arc::clone(&failure.key));
        {
            let shelved = shelf.read();
            let new_key = shelved.first(&key).is_none();
            if shelved.is_full(self.wiring.policy.max_parked_keys, new_key, 1) {
                let (keys, letters) = shelved.count();
                let source = Box::new(Trouble::from(failure));
                return Err(Trouble::TooManyParked { keys, letters, source }.into());
            }
        }
        let mut letter = Letter::waiting(&failure.header, Arc::clone(&key));
        let due = judge(&mut letter, &failure, &self.wiring.policy, self.wiring.clock.now());
        warn!(
            projection = self.wiring.name,
            event = &*letter.event,
            %position,
            key = &*key,
            error = letter.error(),
            retries = due.is_some(),
            "an event could not be handled; its key waits"
        );
        let mut changes = vec![Change::Put(Box::new(letter))];
        let chunk = self.keeper.keep(&mut |_| Chunk {
            changes: std::mem::take(&mut changes),
            ..Chunk::up_to(position)
        });
        self.kept(chunk)?;
        shelf.read().set_due(&key, due);
        Ok(())
    }

    /// Tries an event again in its place, until it is handled or has failed for good.
    async fn insist(&mut self, failure: Failure) -> Result<Step, Interrupt> {
        let mut failure = failure;
        let mut failed = 0;
        loop {
            failed += 1;
            let policy = &self.wiring.policy;
            let pause = match policy.class_of(&*failure.source) {
                ErrorClass::Transient => policy.retry.pause(failed),
                ErrorClass::Permanent => None,
            };
            let Some(pause) = pause else {
                return Err(Trouble::from(failure).into());
            };
            let position = failure.header.position;
            self.report(super::ConsumerState::Retrying, Some(Arc::new(Trouble::from(failure))));
            if self.pause(pause).await {
                return Ok(Step::Stop);
            }
            self.wiring.clerk.shelf.count_retry();
            match self.catch_up(Some(position)).await {
                Err(Interrupt::Failed(again)) if again.header.position == position => {
                    failure = *again;
                }
                other => return other,
            }
        }
    }

    /// Stands still until letters were handled or discarded, or the app stops it.
    pub(super) async fn wait_for_room(&mut self) -> Step {
        self.leave();
        let mut pause = PAUSES.0;
        loop {
            if *self.wiring.stopping.borrow() != Stopping::No {
                return Step::Stop;
            }
            if let Err(Interrupt::Trouble(trouble)) = self.attend().await {
                warn!(
                    projection = self.wiring.name,
                    error = chain(&trouble),
                    "letters have to wait"
                );
                if self.pause(pause).await {
                    return Step::Stop;
                }
                pause = (pause * 2).min(PAUSES.1);
                continue;
            }
            pause = PAUSES.0;
            let max_keys = self.wiring.policy.max_parked_keys;
            if !self.wiring.clerk.shelf.read().is_full(max_keys, true, 1) {
                return Step::Behind;
            }
            tokio::select! {
                stopping = self.wiring.stopping.changed() => if stopping.is_err() {
                    return Step::Stop;
                },
                () = letters(&mut self.wiring.clerk, self.position) => {}
                () = self.role.shadow() => {}
            }
        }
    }

    /// Carries out orders, and tries what is due.
    pub(super) async fn attend(&mut self) -> Result<(), Interrupt> {
        while let Some(order) = self.wiring.clerk.next_order() {
            self.carry_out(order).await?;
        }
        let mut room = DRAIN;
        while room > 0 && *self.wiring.stopping.borrow() != Stopping::Now {
            let due = self.wiring.clerk.shelf.look().and_then(|shelved| {
                let (due, key) = shelved.next_due(self.position, |_| true)?;
                (due <= Instant::now()).then(|| Arc::clone(key))
            });
            let Some(key) = due else { break };
            self.try_first(&key).await?;
            room -= 1;
        }
        self.switch_if_due().await;
        Ok(())
    }

    async fn carry_out(&mut self, order: Order) -> Result<(), Interrupt> {
        let Order { what, reply } = order;
        if let What::Edit(position, payload) = &what
            && let Err(error) = self.check(*position, payload).await
        {
            let _ = reply.send(Err(error));
            return Ok(());
        }
        let (reached, now) = (self.position, self.wiring.clock.now());
        match self.wiring.clerk.weigh(what, reached, now) {
            Ok(Task::Try(key)) => self.wiring.clerk.ask(key, reply),
            Ok(Task::Decide(key, mut changes, next)) => {
                let chunk = self.keeper.keep(&mut |_| Chunk {
                    changes: std::mem::take(&mut changes),
                    ..Chunk::up_to(reached)
                });
                if let Err(error) = &chunk {
                    let (consumer, source) = (self.wiring.name, chain(&**error).into());
                    let _ = reply.send(Err(LetterError::Store { consumer, source }));
                    return self.kept(chunk);
                }
                self.kept(chunk)?;
                self.wiring.clerk.decided(key, next, reply);
            }
            Err(error) => drop(reply.send(Err(error))),
        }
        Ok(())
    }

    /// Whether `payload` is one of the event at `position`.
    async fn check(&self, position: Position, payload: &Arc<[u8]>) -> Result<(), LetterError> {
        let (decoder, consumer) = (&self.wiring.decoder, self.wiring.name);
        let recorded = read_edited(decoder.store(), position, payload, consumer).await?;
        let source = self.routes.get(&*recorded.header.name).and_then(|i| self.sources.get(*i));
        let Some(source) = source else {
            return Ok(());
        };
        Panic::catch(|| source.check(&recorded, decoder))
            .map_err(|panic| LetterError::Store { consumer, source: panicked(&panic) })?
            .map_err(LetterError::Edit)
    }

    /// Tries the first letter of `key`.
    async fn try_first(&mut self, key: &Arc<str>) -> Result<(), Interrupt> {
        let shelf = Arc::clone(&self.wiring.clerk.shelf);
        let first = {
            let shelved = shelf.read();
            shelved.first(key).map(|letter| (letter.clone(), shelved.fate(letter.position)))
        };
        let Some((mut letter, fate)) = first else {
            return Ok(());
        };
        let position = letter.position;
        if letter.tried > 0 {
            shelf.count_retry();
        }
        let mut recorded = match read(self.wiring.decoder.store(), position).await {
            Ok(recorded) => recorded,
            // It is about to be read: it must not be without a letter that the view has handled.
            Err(error) if self.role.is_shadow() => return Err(Trouble::Log(error).into()),
            Err(error) => {
                let (projection, error) = (self.wiring.name, chain(&error));
                warn!(projection, %position, error, "a letter cannot be read");
                // Whoever has asked for it is answered when it was tried; other keys go on meanwhile.
                shelf.read().set_due(key, Some(Instant::now() + UNREAD));
                return Ok(());
            }
        };
        if let Fate::Edited(payload) = fate {
            recorded = Recorded::edited(&recorded.header, payload);
        }
        self.free().await;
        let (sources, routes) = (&self.sources, &self.routes);
        let reached = self.position;
        // A letter is no replay: it would not have been tried then.
        let replayed = Position::START;
        let wiring = &self.wiring;
        let kept = self.keeper.keep(&mut |target| {
            let mut chunk = Chunk::up_to(reached);
            let source = routes.get(&*recorded.header.name).and_then(|i| sources.get(*i));
            let sorting = Sorting::without_letters(&shelf, replayed, wiring);
            match source {
                Some(source) => source.fold_recorded(target, &recorded, &sorting, &mut chunk),
                None => pass_unknown(sources, &recorded, &sorting, &mut chunk),
            }
            if chunk.failure.is_none() {
                chunk.changes.push(Change::Remove(Arc::clone(key), position));
            }
            // It lies behind the checkpoint, whose time it must not set back.
            chunk.time = None;
            chunk
        });
        // Who watches the view does not see by the position that it has changed.
        self.wiring.progress.send_modify(|_| ());
        match self.kept(kept) {
            Ok(()) => {
                self.wiring.clerk.handled(key);
                Ok(())
            }
            Err(Interrupt::Failed(failure)) => {
                let due =
                    judge(&mut letter, &failure, &self.wiring.policy, self.wiring.clock.now());
                let mut changes = vec![Change::Put(Box::new(letter))];
                let chunk = self.keeper.keep(&mut |_| Chunk {
                    changes: std::mem::take(&mut changes),
                    ..Chunk::up_to(reached)
                });
                self.kept(chunk)?;
                shelf.read().set_due(key, due);
                self.wiring.clerk.failed(key);
                Ok(())
            }
            Err(trouble) => Err(trouble),
        }
    }
}

/// Waits until there is something to do with letters, of which those up to `reached` can be tried.
pub(super) async fn letters(clerk: &mut Clerk, reached: Position) {
    let due = clerk.shelf.look().and_then(|shelved| {
        let (due, _) = shelved.next_due(reached, |_| true)?;
        Some(due)
    });
    clerk.wait(due).await;
}

/// Takes note of a failed attempt, and says when the letter is to be tried again by itself.
fn judge(
    letter: &mut Letter,
    failure: &Failure,
    policy: &FailurePolicy,
    now: Timestamp,
) -> Option<Instant> {
    let class = policy.class_of(&*failure.source);
    let attempt = Attempt { at: now, class, error: chain(&*failure.source), span: failure.span };
    letter.tried_in_vain(attempt, &policy.retry)
}

/// Reads one event.
pub(crate) async fn read(
    store: &Arc<dyn EventStore>,
    position: Position,
) -> Result<Recorded, StoreError> {
    let reader = Arc::clone(store);
    let read = move || reader.read_log(before(position), &Filter::All, 1);
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Failed {
        place: "the log".into(),
        source,
    };
    let page = tokio::task::spawn_blocking(read).await.map_err(|error| failed(error.into()))??;
    let event = page.events.into_iter().next().filter(|event| event.header.position == position);
    event.ok_or_else(|| failed(format!("it holds no event at position {position}").into()))
}

/// Reads one event, with `payload` in place of its own.
pub(crate) async fn read_edited(
    store: &Arc<dyn EventStore>,
    position: Position,
    payload: &Arc<[u8]>,
    consumer: &'static str,
) -> Result<Recorded, LetterError> {
    let recorded = read(store, position)
        .await
        .map_err(|error| LetterError::Store { consumer, source: error.into() })?;
    Ok(Recorded::edited(&recorded.header, Arc::clone(payload)))
}
