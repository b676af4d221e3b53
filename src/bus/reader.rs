//! What every subscription does: read the ring and, where its policy says so, what the ring has let go of.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::batch::{Batch, Held, SharedBatch};
use super::hook::Handling;
use super::latest::Keep;
use super::ring::{Cursor, Item, Join, Ready, Standing, TooOld};
use super::subscription::SubscriptionError;
use super::topic::{History, HistoryError, HistoryPage, Topic};
use crate::actor::Panic;
use crate::stream::Position;

/// How many events are read from the log at once. Large enough to make the way to a thread that may block cheap, small
/// enough that a subscription that starts at the beginning of a long log needs little memory.
const PAGE: usize = 512;

/// One reader of a topic, in whichever shape it is used.
pub(super) struct Reader<T: Item> {
    pub(super) topic: Topic<T>,
    pub(super) standing: Arc<Standing>,
    cursor: Cursor<T>,
    source: Source<T>,
    keep: Option<Arc<dyn Keep<T>>>,
    /// How many events were missed since the last batch.
    missed: u64,
    /// Whether it may keep its thread waiting for the log.
    blocking: bool,
    /// What the hooks were told to be handled.
    in_hand: Option<InHand>,
}

/// What the hooks were told to be handled.
pub(super) struct InHand {
    events: usize,
    missed: u64,
    since: Instant,
}

enum Source<T> {
    Ring,
    /// Everything up to `after` is delivered, the ring begins only after `floor`, and `loading` is on its way.
    Log {
        after: Position,
        floor: Position,
        loading: Option<Loading<T>>,
    },
    Rows(Rows<T>),
}

type Loading<T> = JoinHandle<Result<HistoryPage<T>, HistoryError>>;

/// Events that are not in the ring.
struct Rows<T> {
    events: Arc<Vec<T>>,
    /// The depth of each; empty if all are zero, as those of a log are.
    depths: Vec<u8>,
    /// How many of them are delivered.
    index: usize,
    /// Everything up to here was delivered before them.
    after: Position,
    /// Everything up to here is delivered with them.
    through: Position,
    /// Whether the place in the ring is to be found again behind them.
    from_log: bool,
}

/// What stands before a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Events,
    End,
}

impl<T: Item> Reader<T> {
    pub(super) fn new(
        topic: &Topic<T>,
        standing: Standing,
        join: Join,
        keep: Option<Arc<dyn Keep<T>>>,
    ) -> Self {
        let standing = Arc::new(standing);
        let overrun = keep.clone().map(|keep| keep as _);
        let mut cursor = topic.ring().enroll(join, &standing, overrun);
        let source = match join {
            Join::After(after) => rejoin(&mut cursor, after),
            Join::End | Join::Oldest => Source::Ring,
        };
        Self {
            topic: topic.clone(),
            standing,
            cursor,
            source,
            keep,
            missed: 0,
            blocking: false,
            in_hand: None,
        }
    }

    /// The same reader, which keeps its thread waiting where it must.
    pub(super) fn blocking(mut self) -> Self {
        self.blocking = true;
        self
    }

    /// Everything up to here is delivered.
    pub(super) fn seen(&self) -> Position {
        match &self.source {
            Source::Ring => self.cursor.seen(),
            Source::Log { after, .. } => *after,
            Source::Rows(rows) => rows.seen(),
        }
    }

    /// Waits until [`take`](Self::take) has something to give. What was taken before is done with.
    pub(super) fn poll_ready(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Next, SubscriptionError>> {
        if self.in_hand.is_some() {
            self.handled();
        }
        loop {
            match &mut self.source {
                Source::Ring => match ready!(self.cursor.poll_ready(cx)) {
                    Ready::Closed => return Poll::Ready(Ok(Next::End)),
                    Ready::Next | Ready::Lagged if self.keep.is_some() => self.collect()?,
                    Ready::Next => return Poll::Ready(Ok(Next::Events)),
                    Ready::Lagged if self.standing.goes_to_log() => {
                        let seen = self.cursor.seen();
                        self.source = rejoin(&mut self.cursor, seen);
                    }
                    Ready::Lagged => self.missed += self.cursor.skip_to_oldest(),
                },
                Source::Log { .. } | Source::Rows(_) if self.standing.is_ended() => {
                    return Poll::Ready(Ok(Next::End));
                }
                Source::Log { after, floor, loading } => {
                    let (after, floor) = (*after, *floor);
                    let loaded = if self.blocking {
                        history(&self.topic, after)?(after, PAGE)
                    } else {
                        let pending = match loading {
                            Some(pending) => pending,
                            None => loading.insert(load(&self.topic, after)?),
                        };
                        let loaded = ready!(Pin::new(pending).poll(cx));
                        *loading = None;
                        loaded.unwrap_or_else(|failed| Err(failed.into()))
                    };
                    let page = loaded.map_err(|source| SubscriptionError::Log {
                        topic: self.topic.name(),
                        after,
                        source,
                    })?;
                    let mut page = Rows::checked(&self.topic, after, floor, page)?;
                    page.end_at(self.topic.ring().head());
                    if let Some(keep) = &self.keep {
                        keep.reduce(&mut page.events).map_err(|panic| self.give_up(panic))?;
                    }
                    self.source = Source::Rows(Rows::of_log(page, after));
                }
                Source::Rows(rows) if rows.index < rows.events.len() => {
                    return Poll::Ready(Ok(Next::Events));
                }
                Source::Rows(rows) if rows.from_log => {
                    self.source = rejoin(&mut self.cursor, rows.through);
                }
                Source::Rows(_) => self.source = Source::Ring,
            }
        }
    }

    /// The next poll looks for events, whatever the last one found.
    pub(super) fn look(&mut self) {
        self.cursor.look();
    }

    /// The next events; they are delivered. Empty unless [`poll_ready`](Self::poll_ready) said otherwise.
    #[inline]
    pub(super) fn take(&mut self) -> Batch<'_, T> {
        let missed = std::mem::take(&mut self.missed);
        let (events, depth) = match &mut self.source {
            Source::Ring => self.cursor.take(),
            Source::Log { .. } => (&[][..], 0),
            Source::Rows(rows) => rows.take(),
        };
        if !self.topic.hooks().is_empty() {
            self.in_hand = Some(handling(&self.topic, &self.standing, missed, events));
        }
        Batch { events, missed, depth }
    }

    /// The last `events` of those that were taken last come again.
    pub(super) fn put_back(&mut self, events: usize) {
        if let Some(in_hand) = &mut self.in_hand {
            in_hand.events = in_hand.events.saturating_sub(events);
        }
        match &mut self.source {
            Source::Ring => self.cursor.put_back(events),
            Source::Log { .. } => {}
            Source::Rows(rows) => rows.index = rows.index.saturating_sub(events),
        }
    }

    /// The next events, in a hold of their own; they are delivered. Empty unless [`poll_ready`](Self::poll_ready) said
    /// otherwise.
    pub(super) fn take_shared(&mut self) -> SharedBatch<T> {
        let missed = std::mem::take(&mut self.missed);
        let taken = match &mut self.source {
            Source::Ring => {
                let taken = self.cursor.take_shared();
                taken.map(|(segment, range)| (Held::Segment(segment), range))
            }
            Source::Log { .. } => None,
            Source::Rows(rows) => {
                let (range, _) = rows.step();
                Some((Held::Rows(Arc::clone(&rows.events)), range))
            }
        };
        let (held, range) = taken.unwrap_or_else(|| (Held::Rows(Arc::default()), 0..0));
        let batch = SharedBatch { held, range, missed };
        if !self.topic.hooks().is_empty() {
            self.in_hand = Some(handling(&self.topic, &self.standing, missed, &batch));
        }
        batch
    }

    /// Tells the hooks that what they saw last is handled.
    #[cold]
    fn handled(&mut self) {
        if let Some(in_hand) = self.in_hand.take() {
            handled(&self.topic, &self.standing, &in_hand);
        }
    }

    /// Takes the newest event of each key, of what is there.
    fn collect(&mut self) -> Result<(), SubscriptionError> {
        let Some(keep) = &self.keep else {
            return Ok(());
        };
        let after = self.cursor.seen();
        let collected = keep.collect(&mut self.cursor);
        let (newest, depths) = collected.map_err(|panic| self.give_up(panic))?;
        let through = self.cursor.seen();
        if newest.is_empty() {
            // It lags, and nothing was kept for it: it was sent to the log.
            self.source = rejoin(&mut self.cursor, through);
            return Ok(());
        }
        let events = Arc::new(newest);
        let index = 0;
        self.source = Source::Rows(Rows { events, depths, index, after, through, from_log: false });
        Ok(())
    }

    /// Ends the subscription: what its key function has not seen cannot be had any more.
    fn give_up(&self, panic: Panic) -> SubscriptionError {
        self.topic.ring().strike(&self.standing);
        SubscriptionError::Key { topic: self.topic.name(), panic: panic.message }
    }
}

impl<T: Item> Drop for Reader<T> {
    fn drop(&mut self) {
        self.handled();
    }
}

/// Tells the hooks that these events are about to be handled.
#[cold]
pub(super) fn handling<T: Item>(
    topic: &Topic<T>,
    standing: &Standing,
    missed: u64,
    events: &[T],
) -> InHand {
    let handling = Handling {
        topic: topic.name(),
        subscription: &standing.name,
        events: events.len(),
        missed,
    };
    topic.hooks().iter().for_each(|hook| hook.handling(&handling, events));
    InHand { events: events.len(), missed, since: Instant::now() }
}

/// Tells the hooks that these events are handled.
#[cold]
pub(super) fn handled<T: Item>(topic: &Topic<T>, standing: &Standing, in_hand: &InHand) {
    let InHand { events, missed, since } = *in_hand;
    let handling = Handling { topic: topic.name(), subscription: &standing.name, events, missed };
    let took = since.elapsed();
    topic.hooks().iter().for_each(|hook| hook.handled(&handling, took));
}

impl<T: Item> HistoryPage<T> {
    /// Leaves out what stands behind `head`, that of the ring: a log is ahead of it between a commit and its publication. A
    /// reader that had what the ring is still to get could not tell from a sequence which of it it has missed.
    fn end_at(&mut self, head: Position) {
        let published = self.events.partition_point(|event| event.position() <= head);
        if published < self.events.len() {
            self.events.truncate(published);
            self.through = head;
        }
    }
}

/// Where a reader that has everything up to `after` reads on.
fn rejoin<T: Item>(cursor: &mut Cursor<T>, after: Position) -> Source<T> {
    match cursor.rejoin(after) {
        Ok(()) => Source::Ring,
        Err(TooOld { after, floor }) => Source::Log { after, floor, loading: None },
    }
}

fn history<T: Item>(topic: &Topic<T>, after: Position) -> Result<&History<T>, SubscriptionError> {
    topic.history().ok_or(SubscriptionError::NoLog { topic: topic.name(), after })
}

/// Starts to read a page after `after` on a thread that may block.
fn load<T: Item>(topic: &Topic<T>, after: Position) -> Result<Loading<T>, SubscriptionError> {
    let history = history(topic, after)?.clone();
    let runtime = Handle::try_current()
        .map_err(|_| SubscriptionError::NoRuntime { topic: topic.name(), after })?;
    Ok(runtime.spawn_blocking(move || history(after, PAGE)))
}

impl<T: Item> Rows<T> {
    /// A page of the log after `after`.
    fn of_log(page: HistoryPage<T>, after: Position) -> Self {
        let HistoryPage { events, through } = page;
        let (events, depths) = (Arc::new(events), Vec::new());
        Self { events, depths, index: 0, after, through, from_log: true }
    }

    /// Accepts a page of events after `after` from a log that must reach `floor` at least, since the ring, which is filled
    /// after the log, begins there.
    fn checked(
        topic: &Topic<T>,
        after: Position,
        floor: Position,
        page: HistoryPage<T>,
    ) -> Result<HistoryPage<T>, SubscriptionError> {
        let hole = |what| SubscriptionError::Hole { topic: topic.name(), after, what };
        let mut last = after;
        for event in &page.events {
            // Several may be what one stored event is read as.
            if event.position() < last || event.position() <= after {
                return Err(hole("its events do not stand in the order of their positions"));
            }
            last = event.position();
        }
        if last > page.through {
            return Err(hole("it hands out events that it says it has not reached"));
        }
        if page.through == after && after < floor {
            return Err(hole("it ends before events that were published"));
        }
        Ok(page)
    }

    fn take(&mut self) -> (&[T], u8) {
        let (range, depth) = self.step();
        (self.events.get(range).unwrap_or(&[]), depth)
    }

    /// The next events, those of one depth only, with that depth.
    fn step(&mut self) -> (Range<usize>, u8) {
        let from = self.index;
        let ahead = self.events.len().saturating_sub(from);
        let mut depths = self.depths.iter().skip(from).take(ahead);
        let (depth, taken) = match depths.next() {
            Some(depth) => (*depth, 1 + depths.take_while(|other| *other == depth).count()),
            None => (0, ahead),
        };
        self.index += taken;
        (from..self.index, depth)
    }

    fn seen(&self) -> Position {
        if self.index == self.events.len() {
            return self.through;
        }
        let last = self.index.checked_sub(1);
        last.and_then(|index| self.events.get(index)).map_or(self.after, Item::position)
    }
}
