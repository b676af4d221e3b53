//! The durable loop behind reactors: reads the log, has its events handled, several keys at once, and keeps the checkpoint.
//!
//! ```text
//!            pages                 lanes, one for each key
//!  the log ────────▶ window ──▶ ┌ a: 4, 9, 12 ┐ the earliest of the keys   ┌ attempt of 4 ┐  handled: finished
//!                  (in hand)    ├ b: 5        ├──────────────────────────▶├ attempt of 5 ├─ failed: a letter, and all
//!                               └ c: 7, 8     ┘ for which nothing is done  └ …            ┘  that wait in its lane
//!                                    letters that are due ────────────────▶ (as many as the options say)
//! ```
//!
//! The engine is one actor and polls all attempts itself. Reading the log and writing the checkpoint happen on threads for
//! waiting, so that a slow disk does not keep an attempt from going on. The checkpoint is the last position up to which every event is
//! finished: handled, set aside as a letter, or discarded.

mod parking;

use std::collections::VecDeque;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{Instrument, debug, error, trace_span, warn};

use super::keeping::{Decided, Keeping, Saved};
use super::lanes::{Item, Lanes, Work};
use super::route::{Cause, Limit, Permanent, Prepared, Routes};
use super::window::{WINDOW, Window};
use super::{Delivery, ReactorOptions};
use crate::actor::Panic;
use crate::app::WeakApp;
use crate::clock::Clock;
use crate::event::{DecodeError, Header, Recorded};
use crate::id::DeliveryId;
use crate::letters::desk::{Clerk, LetterError, Order};
use crate::letters::shelf::{Change, Fate};
use crate::letters::{Letter, LetterState};
use crate::processor::gauge::Gauge;
use crate::processor::ledger::{Begin, Ledger};
use crate::processor::{ConsumerState, Progress, Stopping, Trouble, before, read};
use crate::retry::{ErrorClass, FailurePolicy, OnFailure, UnknownEvents};
use crate::sequencer::Head;
use crate::store::{Decoder, Filter, Page, StoreError};
use crate::stream::Position;
use crate::telemetry::{self, chain};

/// The first and the longest pause before the log is read again after it failed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How many orders of people may wait until nothing else is done for their key.
const ORDERS: usize = 16;

/// How many steps it takes at most before others on its thread have their turn.
const STEPS: u32 = 256;

/// Everything that an engine needs from the app.
pub(crate) struct Wiring {
    pub(crate) name: &'static str,
    pub(crate) decoder: Decoder,
    pub(crate) head: watch::Receiver<Head>,
    /// True when the app takes no more commands.
    pub(crate) closing: watch::Receiver<bool>,
    pub(crate) stopping: watch::Receiver<Stopping>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) clerk: Clerk,
    /// The app, once it has started.
    pub(crate) app: watch::Receiver<WeakApp>,
}

/// The loop.
pub(crate) struct Engine {
    routes: Arc<Routes>,
    filter: Filter,
    options: ReactorOptions,
    failures: FailurePolicy,
    wiring: Wiring,
    /// Events up to here are a replay.
    replayed: Position,
    /// The last event of which a letter stood on the shelf in the beginning.
    shelved: Position,
    window: Window,
    lanes: Lanes,
    running: FuturesUnordered<Pin<Box<dyn Future<Output = Ended> + Send>>>,
    /// Events that are tried again in their place, after a pause.
    pausing: Vec<Pausing>,
    /// Events that failed and cannot be parked, since too many are.
    homeless: VecDeque<(Letter, Option<Instant>)>,
    /// Orders about keys for which something else is done.
    held: Vec<Order>,
    reading: Option<JoinHandle<Result<Page, StoreError>>>,
    read_again: Option<Instant>,
    read_pause: Duration,
    keeping: Keeping,
    /// Whether a letter comes before a new event at the next choice: they take turns.
    letter_first: bool,
    /// Why it tries again.
    trouble: Option<Arc<Trouble>>,
    /// What it may not pass: it ends when everything before that is finished.
    refused: Option<Trouble>,
    /// Why it ends.
    over: Option<Trouble>,
}

/// An event whose turn comes again.
struct Pausing {
    until: Instant,
    key: Arc<str>,
    item: Item,
    failed: u32,
}

/// Something that was done for a key.
enum Ended {
    Event { key: Arc<str>, item: Item, attempt: u32, outcome: Result<(), Failed> },
    Letter { key: Arc<str>, position: Position, outcome: Result<Result<(), Failed>, StoreError> },
    Checked { key: Arc<str>, order: Order, outcome: Result<(), LetterError> },
}

/// An attempt in vain.
struct Failed {
    cause: Cause,
    /// If it does not depend on the consumer's classification.
    class: Option<ErrorClass>,
    span: Option<u64>,
}

/// What wakes the loop.
enum Wake {
    Ended(Ended),
    Read(Result<Page, StoreError>),
    Saved(Saved),
    /// There may be something to do.
    Look,
    /// There is nobody left for whom anything could be done.
    Gone,
}

/// An attempt took longer than it may.
#[derive(Debug, thiserror::Error)]
#[error("it was not done within {0:?}")]
struct TimedOut(Duration);

impl Engine {
    pub(crate) fn new(
        routes: Routes,
        options: ReactorOptions,
        failures: FailurePolicy,
        wiring: Wiring,
        ledger: Ledger,
        begin: &Begin,
    ) -> Self {
        let filter = routes.filter();
        let position = match options.start {
            super::StartFrom::Oldest => begin.position,
            super::StartFrom::Newest => begin.position.max(begin.replayed),
        };
        let shelved = wiring.clerk.shelf.read().list().last().map(|letter| letter.position);
        Self {
            routes: Arc::new(routes),
            filter,
            options,
            failures,
            wiring,
            replayed: begin.replayed,
            shelved: shelved.unwrap_or_default(),
            window: Window::new(position, begin.time),
            lanes: Lanes::default(),
            running: FuturesUnordered::new(),
            pausing: Vec::new(),
            homeless: VecDeque::new(),
            held: Vec::new(),
            reading: None,
            read_again: None,
            read_pause: PAUSES.0,
            keeping: Keeping::new(ledger, begin.position),
            letter_first: true,
            trouble: None,
            refused: None,
            over: None,
        }
    }

    /// The engine's life: until the app stops it, or an event does.
    pub(crate) async fn run(mut self) {
        if self.wiring.app.wait_for(WeakApp::is_set).await.is_err() {
            return;
        }
        let mut steps = 0;
        loop {
            self.take_orders();
            self.shelve();
            self.begin_attempts();
            self.begin_reading();
            self.begin_saving();
            self.report();
            self.refuse();
            if self.is_over() {
                break;
            }
            match self.wake().await {
                Wake::Ended(ended) => self.ended(ended),
                Wake::Read(page) => self.take_page(page),
                Wake::Saved(saved) => self.saved(saved),
                Wake::Look => {}
                Wake::Gone => break,
            }
            steps += 1;
            if steps == STEPS {
                steps = 0;
                tokio::task::yield_now().await;
            }
        }
        self.end().await;
    }

    async fn end(mut self) {
        // What has not ended by now is not waited for; it is delivered again. Its drop is the user's code.
        if let Err(panic) = Panic::catch(|| self.running.clear()) {
            warn!(reactor = self.wiring.name, panic = &*panic.message, "an attempt panicked");
        }
        self.wiring.gauge.set_in_flight(0);
        let checkpoint = self.window.checkpoint();
        let kept = self.keeping.close(checkpoint).await.map_err(Trouble::Ledger).err();
        let trouble = self.over.or(kept);
        if let Some(trouble) = &trouble {
            error!(reactor = self.wiring.name, error = chain(trouble), "stopped");
        }
        let (position, time) = checkpoint;
        let (state, trouble) = (ConsumerState::Stopped, trouble.map(Arc::new));
        let at = self.wiring.clock.now();
        self.wiring.progress.send_modify(|progress| {
            *progress = Progress { position, time, state, at, trouble, ..progress.clone() };
        });
    }

    /// Whether nothing new is to be begun.
    fn is_ending(&self) -> bool {
        self.over.is_some()
            || *self.wiring.closing.borrow()
            || *self.wiring.stopping.borrow() != Stopping::No
    }

    fn is_over(&self) -> bool {
        *self.wiring.stopping.borrow() == Stopping::Now
            || (self.is_ending() && self.running.is_empty() && !self.keeping.is_deciding())
    }

    async fn wake(&mut self) -> Wake {
        let until = self.next_due();
        let is_ending = self.is_ending();
        let Self { running, reading, keeping, held, wiring, .. } = self;
        let Wiring { head, closing, stopping, clerk, .. } = wiring;
        tokio::select! {
            Some(ended) = running.next() => Wake::Ended(ended),
            page = page(reading) => Wake::Read(page),
            saved = keeping.saved() => Wake::Saved(saved),
            // When the sequencer is gone, whoever tells it to end is not.
            Ok(()) = head.changed() => Wake::Look,
            told = closing.changed() => told.map_or(Wake::Gone, |()| Wake::Look),
            told = stopping.changed() => told.map_or(Wake::Gone, |()| Wake::Look),
            () = clerk.wait(None), if !is_ending && held.len() < ORDERS => Wake::Look,
            () = reached(until) => Wake::Look,
        }
    }

    /// When there is something to do that nothing else wakes it for.
    fn next_due(&self) -> Option<Instant> {
        let (checkpoint, _) = self.window.checkpoint();
        let saving = self.keeping.due(checkpoint);
        if self.is_ending() {
            return saving.filter(|_| self.keeping.is_deciding());
        }
        let pausing = self.pausing.iter().map(|pausing| pausing.until).min();
        let letter = self.has_slot().then(|| self.next_letter().map(|(due, _)| due)).flatten();
        // One that has passed waits for room in the window or on the shelf.
        let reading = self.read_again.filter(|again| *again > Instant::now());
        [saving, pausing, letter, reading].into_iter().flatten().min()
    }

    /// Whether one more attempt may be begun.
    fn has_slot(&self) -> bool {
        self.running.len() + self.pausing.len() < self.options.concurrency.max(1)
    }

    fn next_letter(&self) -> Option<(Instant, Arc<str>)> {
        let shelved = self.wiring.clerk.shelf.look()?;
        let reached = self.window.through();
        let next = shelved.next_due(reached, |key| self.lanes.is_free(key));
        next.map(|(due, key)| (due, Arc::clone(key)))
    }

    // Attempts.

    fn begin_attempts(&mut self) {
        if self.is_ending() {
            return;
        }
        let now = Instant::now();
        while let Some(due) = self.pausing.iter().position(|pausing| pausing.until <= now) {
            let Pausing { key, item, failed, .. } = self.pausing.swap_remove(due);
            self.wiring.clerk.shelf.count_retry();
            self.begin_event(key, item, failed + 1);
        }
        while self.has_slot() {
            let letter = self.letter_first && self.begin_next_letter();
            if !letter && !self.begin_next_event() && !self.begin_next_letter() {
                break;
            }
            self.letter_first = !self.letter_first;
        }
        self.wiring.gauge.set_in_flight(self.running.len());
    }

    fn begin_next_event(&mut self) -> bool {
        // What cannot be written down is done again after a crash, and what cannot be parked stands in the way.
        if !self.homeless.is_empty() || !self.keeping.is_well() {
            return false;
        }
        let Some((key, item)) = self.lanes.next() else {
            return false;
        };
        self.begin_event(key, item, 1);
        true
    }

    fn begin_event(&mut self, key: Arc<str>, mut item: Item, attempt: u32) {
        let delivery = self.delivery(&item.header, attempt);
        let timeout = self.options.timeout;
        self.running.push(Box::pin(async move {
            let outcome = try_once(&mut item.work, delivery, timeout).await;
            Ended::Event { key, item, attempt, outcome }
        }));
    }

    fn begin_next_letter(&mut self) -> bool {
        let Some((_, key)) = self.next_letter().filter(|(due, _)| *due <= Instant::now()) else {
            return false;
        };
        let shelf = Arc::clone(&self.wiring.clerk.shelf);
        let shelved = shelf.read();
        let Some(letter) = shelved.first(&key) else {
            return false;
        };
        let (position, tried) = (letter.position, letter.tried);
        let fate = shelved.fate(position);
        // It stays due, as everybody can see; the busy lane keeps it from being tried twice at once.
        drop(shelved);
        if tried > 0 {
            shelf.count_retry();
        }
        self.lanes.seize(Arc::clone(&key));
        let (decoder, routes) = (self.wiring.decoder.clone(), Arc::clone(&self.routes));
        let (name, replayed, timeout) = (self.wiring.name, self.replayed, self.options.timeout);
        let app = self.wiring.app.borrow().clone();
        self.running.push(Box::pin(async move {
            let mut recorded = match read(decoder.store(), position).await {
                Ok(recorded) => recorded,
                Err(error) => return Ended::Letter { key, position, outcome: Err(error) },
            };
            if let Fate::Edited(payload) = fate {
                recorded = Recorded::edited(&recorded.header, payload);
            }
            let mut work = prepare(&routes, &decoder, &recorded).1.into();
            let delivery = deliver(name, &recorded.header, tried.saturating_add(1), replayed, app);
            let outcome = Ok(try_once(&mut work, delivery, timeout).await);
            Ended::Letter { key, position, outcome }
        }));
        true
    }

    fn delivery(&self, header: &Header, attempt: u32) -> Delivery {
        let app = self.wiring.app.borrow().clone();
        deliver(self.wiring.name, header, attempt, self.replayed, app)
    }

    fn ended(&mut self, ended: Ended) {
        self.wiring.gauge.set_in_flight(self.running.len());
        match ended {
            Ended::Event { key, item, outcome: Ok(()), .. } => {
                self.recover(|trouble| matches!(trouble, Trouble::Handler { .. }));
                self.wiring.gauge.count(1);
                self.finish(item.header.position);
                self.lanes.release(&key);
            }
            // It is not known whether it would have failed in an app that is not ending: it is delivered again.
            Ended::Event { outcome: Err(_), .. } | Ended::Letter { outcome: Ok(Err(_)), .. }
                if self.is_ending() => {}
            Ended::Event { key, item, attempt, outcome: Err(failed) } => {
                match self.failures.on_failure {
                    OnFailure::Park => self.park(key, &item.header, failed),
                    OnFailure::Stop => self.insist(key, item, attempt, failed),
                }
            }
            Ended::Letter { key, position, outcome } => {
                self.letter_ended(&key, position, outcome);
                self.lanes.release(&key);
            }
            Ended::Checked { key, order, outcome } => {
                self.lanes.release(&key);
                match outcome {
                    Ok(()) => self.carry_out(order),
                    Err(error) => drop(order.reply.send(Err(error))),
                }
            }
        }
    }

    fn letter_ended(
        &mut self,
        key: &Arc<str>,
        position: Position,
        outcome: Result<Result<(), Failed>, StoreError>,
    ) {
        match outcome {
            Ok(Ok(())) => {
                self.wiring.gauge.count(1);
                self.change(vec![Change::Remove(Arc::clone(key), position)]);
                self.wiring.clerk.handled(key);
            }
            Ok(Err(failed)) => {
                let letter = self.wiring.clerk.shelf.read().at(position).cloned();
                let Some(mut letter) = letter else { return };
                let due = self.judge(&mut letter, &failed);
                debug!(
                    reactor = self.wiring.name,
                    %position,
                    error = letter.error(),
                    retries = due.is_some(),
                    "a letter could not be handled"
                );
                self.change(vec![Change::Put(Box::new(letter))]);
                self.wiring.clerk.shelf.read().set_due(key, due);
                self.wiring.clerk.failed(key);
            }
            Err(error) => {
                warn!(reactor = self.wiring.name, error = chain(&error), "a letter cannot be read");
                {
                    let mut shelved = self.wiring.clerk.shelf.read();
                    // One that waits for a person goes on waiting for one.
                    let waits = shelved.at(position).map(|letter| letter.state);
                    let again = waits != Some(LetterState::Parked);
                    shelved.set_due(key, again.then(|| Instant::now() + PAUSES.1));
                }
                self.wiring.clerk.failed(key);
            }
        }
    }

    fn finish(&mut self, position: Position) {
        self.window.finish(position);
        self.keeping.finished();
    }

    /// Carries out what changes on the shelf, and has it written down.
    fn change(&mut self, changes: Vec<Change>) {
        self.keeping.note(changes.iter().cloned());
        self.wiring.clerk.shelf.apply(changes);
    }

    // The log.

    fn begin_reading(&mut self) {
        let (head, after) = (self.wiring.head.borrow_and_update().position, self.window.through());
        let room = self.window.room();
        // What is over must not wake it again, whether or not there is room to read.
        self.read_again = self.read_again.filter(|again| *again > Instant::now());
        let is_busy = self.reading.is_some() || self.read_again.is_some() || room < WINDOW / 2;
        if is_busy || self.refused.is_some() || after >= head || self.is_ending() || self.is_full()
        {
            return;
        }
        let (store, filter) = (Arc::clone(self.wiring.decoder.store()), self.filter.clone());
        let read = move || store.read_log(after, &filter, room);
        self.reading = Some(tokio::task::spawn_blocking(read));
    }

    /// Ends before an event that it may not pass, once all before it are finished.
    fn refuse(&mut self) {
        if self.refused.is_some() && self.window.checkpoint().0 == self.window.through() {
            self.over = self.over.take().or(self.refused.take());
        }
    }

    /// Whether no more events can be set aside.
    fn is_full(&self) -> bool {
        let shelved = self.wiring.clerk.shelf.look();
        shelved.is_some_and(|shelved| shelved.is_full(usize::MAX, false, 0))
    }

    fn take_page(&mut self, page: Result<Page, StoreError>) {
        match page {
            Ok(page) => {
                self.read_pause = PAUSES.0;
                self.recover(|trouble| matches!(trouble, Trouble::Log(_)));
                self.accept(page);
            }
            Err(error) => {
                warn!(reactor = self.wiring.name, error = chain(&error), "the log cannot be read");
                self.trouble = Some(Arc::new(Trouble::Log(error)));
                self.read_again = Some(Instant::now() + self.read_pause);
                self.read_pause = (self.read_pause * 2).min(PAUSES.1);
            }
        }
    }

    /// Takes the events of a page in hand.
    fn accept(&mut self, page: Page) {
        // Beyond the head the store may hold what the sequencer has not published yet.
        let head = *self.wiring.head.borrow();
        let through = page.through.min(head.position);
        let shelf = Arc::clone(&self.wiring.clerk.shelf);
        for mut recorded in page.events {
            let position = recorded.header.position;
            if position > through {
                break;
            }
            let route = self.routes.get(&recorded.header.name);
            if route.is_some_and(|route| route.live_only && position <= self.replayed) {
                continue;
            }
            // Whatever its key is by now: what became a letter before the app ended is one.
            if position <= self.shelved && shelf.read().at(position).is_some() {
                continue;
            }
            match shelf.look().map_or(Fate::Handle, |shelved| shelved.fate(position)) {
                Fate::Handle => {}
                Fate::Edited(payload) => recorded = Recorded::edited(&recorded.header, payload),
                Fate::Discarded => continue,
            }
            let (key, prepared) = prepare(&self.routes, &self.wiring.decoder, &recorded);
            let cause = prepared.as_ref().err();
            if cause.is_some_and(|cause| DecodeError::says_unknown(&**cause)) {
                match self.failures.unknown {
                    UnknownEvents::Ignore => {
                        self.wiring.gauge.ignore(1);
                        continue;
                    }
                    UnknownEvents::Park => {}
                    UnknownEvents::Refuse => {
                        self.refused = Some(Trouble::unknown(&recorded.header));
                        return self.window.reach(before(position), &head);
                    }
                }
            }
            let (header, work) = (recorded.header, prepared.into());
            let waiting = shelf.look().and_then(|shelved| {
                shelved.waits(&key, position).then(|| shelved.wait(&key, &header))
            });
            match waiting {
                Some(letter) => {
                    self.change(
                        letter.map(|letter| Change::Put(Box::new(letter))).into_iter().collect(),
                    );
                }
                None => {
                    self.window.add(position, header.time);
                    self.lanes.push(key, Item { header, work });
                }
            }
        }
        self.window.reach(through, &head);
    }

    // What is kept, and what is shown.

    fn begin_saving(&mut self) {
        let checkpoint = self.window.checkpoint();
        if self.keeping.due(checkpoint.0).is_some_and(|due| due <= Instant::now()) {
            self.keeping.begin(checkpoint);
        }
    }

    fn saved(&mut self, saved: Saved) {
        match saved {
            Saved::Done(decided) => {
                for Decided { key, changes, next, reply } in decided {
                    self.wiring.clerk.shelf.apply(changes);
                    self.wiring.clerk.decided(Arc::clone(&key), next, reply);
                    self.lanes.release(&key);
                }
                self.recover(|trouble| matches!(trouble, Trouble::Ledger(_)));
            }
            Saved::Failed(error, decided) => {
                let text = chain(&*error);
                for Decided { key, reply, .. } in decided {
                    let (consumer, source) = (self.wiring.name, text.clone().into());
                    let _ = reply.send(Err(LetterError::Store { consumer, source }));
                    self.lanes.release(&key);
                }
                warn!(reactor = self.wiring.name, error = text, "its checkpoint cannot be written");
                self.trouble = Some(Arc::new(Trouble::Ledger(error)));
            }
            Saved::Lost(error) => self.over = Some(Trouble::Ledger(error)),
        }
    }

    /// Forgets its trouble, if it is this kind.
    fn recover(&mut self, kind: impl Fn(&Trouble) -> bool) {
        if self.trouble.as_deref().is_some_and(kind) {
            self.trouble = None;
        }
    }

    fn report(&self) {
        let (position, time) = self.window.checkpoint();
        let (state, trouble) = self.state();
        self.wiring.progress.send_if_modified(|progress| {
            let same_trouble = match (&progress.trouble, &trouble) {
                (None, None) => true,
                (Some(shown), Some(trouble)) => Arc::ptr_eq(shown, trouble),
                _ => false,
            };
            let is_known = progress.position == position && progress.state == state && same_trouble;
            if state == ConsumerState::Stopped && progress.state != state {
                let error = trouble.as_deref().map(|trouble| chain(trouble));
                error!(reactor = self.wiring.name, error, "stands still");
            }
            if !is_known {
                let at = self.wiring.clock.now();
                *progress = Progress { position, time, state, at, trouble, ..progress.clone() };
            }
            !is_known
        });
    }

    fn state(&self) -> (ConsumerState, Option<Arc<Trouble>>) {
        let shelf = &self.wiring.clerk.shelf;
        if !self.homeless.is_empty() || self.is_full() {
            let (keys, letters) = shelf.read().count();
            let source = match self.homeless.front().and_then(|(letter, _)| letter.error()) {
                Some(error) => error.into(),
                None => "too many events wait behind a parked key".into(),
            };
            let trouble = Trouble::TooManyParked { keys, letters, source };
            return (ConsumerState::Stopped, Some(Arc::new(trouble)));
        }
        if self.trouble.is_some() {
            return (ConsumerState::Retrying, self.trouble.clone());
        }
        match self.window.through() < self.wiring.head.borrow().position {
            true => (ConsumerState::CatchingUp, None),
            false => (ConsumerState::Live, None),
        }
    }
}

/// Tries to have an event handled.
async fn try_once(work: &mut Work, delivery: Delivery, timeout: Duration) -> Result<(), Failed> {
    let (attempt, limit) = match work {
        Work::Attempt(attempt, limit) => (attempt, *limit),
        Work::Unreadable(cause) => {
            let cause = cause.take().unwrap_or_else(|| "it cannot be read".into());
            return Err(Failed { cause, class: Some(ErrorClass::Permanent), span: None });
        }
    };
    let span = trace_span!(
        telemetry::HANDLE,
        event = &*delivery.header.name,
        event_id = %delivery.header.event_id,
        position = delivery.header.position.as_u64(),
        correlation_id = %delivery.header.correlation_id,
        delivery_id = %delivery.id,
        attempt = delivery.attempt,
    );
    let span_id = span.id().map(|id| id.into_u64());
    // The attempt is also dropped in there: that is the user's code as well.
    let whole = async move {
        match limit {
            Limit::Timeout => tokio::time::timeout(timeout, attempt(delivery)).await.ok(),
            Limit::None => Some(attempt(delivery).await),
        }
    };
    let ended = AssertUnwindSafe(whole.instrument(span)).catch_unwind().await;
    let (cause, class) = match ended {
        Ok(Some(Ok(()))) => return Ok(()),
        Ok(Some(Err(cause))) => match cause.downcast::<Permanent>() {
            Ok(permanent) => (permanent.0, Some(ErrorClass::Permanent)),
            Err(cause) => (cause, None),
        },
        Ok(None) => (TimedOut(timeout).into(), Some(ErrorClass::Transient)),
        Err(payload) => (panicked(&Panic::new(payload)), Some(ErrorClass::Permanent)),
    };
    Err(Failed { cause, class, span: span_id })
}

/// Reads an event: its key, and how it is handled. What cannot be read is kept in order by its stream: nothing else is known of it.
fn prepare(
    routes: &Routes,
    decoder: &Decoder,
    recorded: &Recorded,
) -> (Arc<str>, Result<Prepared, Cause>) {
    let prepared = match routes.get(&recorded.header.name) {
        Some(route) => Panic::catch(|| (route.prepare)(recorded, decoder))
            .map_err(|panic| panicked(&panic))
            .and_then(|prepared| prepared.map_err(Into::into)),
        None => match routes.unknown(&recorded.header) {
            Some(unknown) => Err(unknown.into()),
            // The handler is gone that it once had, or the event was unknown to an earlier program.
            None => Ok(Prepared::of("", Vec::new())),
        },
    };
    let key = match &prepared {
        Ok(prepared) => prepared.key.as_deref(),
        Err(_) => None,
    };
    let key = key.unwrap_or_else(|| recorded.header.stream.as_str()).into();
    (key, prepared)
}

fn deliver(
    reactor: &str,
    header: &Header,
    attempt: u32,
    replayed: Position,
    app: WeakApp,
) -> Delivery {
    Delivery {
        id: DeliveryId::of(reactor, header.event_id),
        attempt,
        is_replay: header.position <= replayed,
        header: header.clone(),
        app,
    }
}

fn panicked(panic: &Panic) -> Cause {
    format!("it panicked: {}", panic.message).into()
}

fn trouble(header: &Header, failed: Failed) -> Trouble {
    Trouble::Handler {
        position: header.position,
        event_id: header.event_id,
        name: header.name.to_string(),
        stream: header.stream.clone(),
        source: failed.cause,
    }
}

/// Waits for a page that is being read; for ever if none is.
async fn page(
    reading: &mut Option<JoinHandle<Result<Page, StoreError>>>,
) -> Result<Page, StoreError> {
    let Some(handle) = reading else {
        return pending().await;
    };
    let page = handle.await;
    *reading = None;
    page.unwrap_or_else(|error| {
        Err(StoreError::Failed { place: "the log".into(), source: error.into() })
    })
}

/// Waits until then; for ever if there is no such time.
async fn reached(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => pending().await,
    }
}
