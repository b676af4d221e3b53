//! The cursors that read a ring.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::pace::Pace;
use super::segment::{Reader, Segment};
use super::standing::Standing;
use super::{Item, Ring, TooOld};
use crate::bus::doorbell::SeatNumber;
use crate::stream::Position;

/// A reader's place in a ring. It reads on its own, and gives its seat back when dropped.
#[derive(Debug)]
pub(crate) struct Cursor<T: Item> {
    ring: Arc<Ring<T>>,
    seat: SeatNumber,
    place: Place<T>,
    standing: Option<Arc<Standing>>,
    /// The sequence that others know of.
    told: u64,
    /// The sequence from which on waiting publishers are told that there is room.
    ring_at: u64,
    pace: Pace,
}

#[derive(Debug)]
pub(super) struct Place<T> {
    /// The segment that is being read; none between two segments.
    pub(super) segment: Option<Reader<T>>,
    /// The number of that segment or, without one, of the next.
    pub(super) number: u64,
    /// Whether that segment has left the window before the reader came to it.
    pub(super) gone: bool,
    /// How many of the segment's events are done with.
    pub(super) index: usize,
    /// Everything up to here was handed over, apart from what `index` says.
    pub(super) seen: Position,
    /// Events up to `seen` may still come and are not wanted: the reader knows them from the log.
    pub(super) skipping: bool,
}

pub(super) enum Find<T> {
    Here(Arc<Segment<T>>),
    NotYet,
    Gone,
}

/// What stands before a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peek {
    /// The next event, at this position.
    Next(Position),
    /// Nothing yet.
    Empty,
    /// Events that have left the ring: read on in the log after [`Cursor::seen`], then [`Cursor::rejoin`].
    Lagged,
}

/// How far a cursor got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// This many events were handed over.
    Read(usize),
    /// None: the next ones have left the ring.
    Lagged,
}

/// Why a sleeping cursor was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// There is something to read.
    Next,
    /// The next events have left the ring.
    Lagged,
    /// The ring is closed and read to its end, or the subscription is over.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ahead {
    Events,
    Nothing,
    Gone,
}

impl<T: Item> Cursor<T> {
    pub(super) fn new(
        ring: &Arc<Ring<T>>,
        place: Place<T>,
        standing: Option<Arc<Standing>>,
    ) -> Self {
        let told = place.sequence(ring.segment_len);
        Self {
            seat: ring.bell.join(),
            ring: ring.clone(),
            place,
            standing,
            told,
            ring_at: told,
            pace: Pace::new(told),
        }
    }

    /// What stands before the cursor.
    pub(crate) fn peek(&mut self) -> Peek {
        match self.place.advance(&self.ring) {
            Ahead::Events => {
                self.place.ahead().first().map_or(Peek::Empty, |event| Peek::Next(event.position()))
            }
            Ahead::Nothing => Peek::Empty,
            Ahead::Gone => Peek::Lagged,
        }
    }

    /// Hands at most `max` events up to position `through` to `each`, in order.
    ///
    /// It stops early where `each` breaks or panics; the event at which it does is not done with and comes again.
    pub(crate) fn read(
        &mut self,
        through: Position,
        max: usize,
        mut each: impl FnMut(&T) -> ControlFlow<()>,
    ) -> Progress {
        let mut handed = 0;
        while handed < max {
            match self.place.advance(&self.ring) {
                Ahead::Events => {}
                Ahead::Nothing => break,
                Ahead::Gone if handed > 0 => break,
                Ahead::Gone => return Progress::Lagged,
            }
            let Place { segment, index, .. } = &mut self.place;
            let events = segment.as_ref().map_or(&[][..], Reader::known);
            for event in events.iter().skip(*index).take(max - handed) {
                if event.position() > through || each(event).is_break() {
                    return Progress::Read(handed);
                }
                *index += 1;
                handed += 1;
            }
        }
        Progress::Read(handed)
    }

    /// The next events, those of one segment and of one depth only, by reference, with that depth. They are done with when
    /// the cursor is used again.
    #[inline]
    pub(in crate::bus) fn take(&mut self) -> (&[T], u8) {
        match self.step() {
            Some((segment, range, depth)) => (segment.known().get(range).unwrap_or(&[]), depth),
            None => (&[], 0),
        }
    }

    /// The same as [`take`](Self::take), in a hold of its own.
    pub(in crate::bus) fn take_shared(&mut self) -> Option<(Arc<Segment<T>>, Range<usize>)> {
        let (segment, range, _) = self.step()?;
        Some((Arc::clone(segment.segment()), range))
    }

    /// The last `events` of those that were taken last come again.
    #[inline]
    pub(in crate::bus) fn put_back(&mut self, events: usize) {
        self.place.index = self.place.index.saturating_sub(events);
    }

    /// Passes over events while `pass` says so, as far as the cursor knows of them since it was last [ready](Ready::Next).
    /// True if it has come to one that is not to be passed over.
    pub(in crate::bus) fn pass_while(&mut self, mut pass: impl FnMut(&T) -> bool) -> bool {
        let ahead = self.place.ahead();
        let passed = ahead.iter().take_while(|event| pass(event)).count();
        let found = passed < ahead.len();
        self.place.index += passed;
        found
    }

    /// The event that the cursor has come to, with its depth. It is done with when the cursor is used again.
    pub(in crate::bus) fn take_one(&mut self) -> Option<(&T, u8)> {
        let Place { segment: Some(segment), index, .. } = &mut self.place else {
            return None;
        };
        let event = segment.known().get(*index)?;
        let (_, depth) = segment.segment().same_depth(*index, 1);
        *index += 1;
        Some((event, depth))
    }

    #[inline]
    fn step(&mut self) -> Option<(&Reader<T>, Range<usize>, u8)> {
        if self.place.advance(&self.ring) != Ahead::Events {
            return None;
        }
        let Place { segment: Some(segment), index, .. } = &mut self.place else {
            return None;
        };
        let ahead = segment.known().len().saturating_sub(*index);
        let (taken, depth) = segment.segment().same_depth(*index, ahead);
        let range = *index..*index + taken;
        *index = range.end;
        Some((segment, range, depth))
    }

    /// The next poll looks, whatever the last one found.
    pub(in crate::bus) fn look(&mut self) {
        self.pace.look();
    }

    /// Waits until there is something to read, or nothing more to come. The task of the last call is woken.
    pub(crate) fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<Ready> {
        self.poll_ready_or(cx, || false)
    }

    /// The same, but it is [`Ready::Closed`] also when the reader is called away. Who calls rings the bell after that.
    pub(in crate::bus) fn poll_ready_or(
        &mut self,
        cx: &Context<'_>,
        called: impl Fn() -> bool,
    ) -> Poll<Ready> {
        if self.pace.waits() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.tell();
        let Self { ring, seat, place, standing, told, ring_at, pace } = self;
        let ended = || called() || standing.as_ref().is_some_and(|standing| standing.is_ended());
        loop {
            // Before looking: what was published before the end is seen first.
            let closed = ring.is_closed();
            if ended() {
                return Poll::Ready(Ready::Closed);
            }
            match place.advance(ring) {
                Ahead::Events => {
                    pace.found();
                    return Poll::Ready(Ready::Next);
                }
                Ahead::Gone => return Poll::Ready(Ready::Lagged),
                Ahead::Nothing if closed => return Poll::Ready(Ready::Closed),
                Ahead::Nothing => {}
            }
            if pace.lingers(place.sequence(ring.segment_len)) {
                // The task goes to the back of its queue, and everybody else on the thread has a turn first.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if *ring_at != *told && standing.as_ref().is_some_and(|s| s.holds_publishers()) {
                *ring_at = *told;
                ring.room.ring();
            }
            let ready = || ended() || ring.is_closed() || place.advance(ring) != Ahead::Nothing;
            if ring.bell.sleep(seat, cx, ready).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Waits until the reader is called away.
    pub(in crate::bus) fn poll_called(
        &mut self,
        cx: &Context<'_>,
        called: impl Fn() -> bool,
    ) -> Poll<()> {
        self.ring.bell.sleep(&self.seat, cx, called)
    }

    /// Lets others know how far it is.
    #[inline]
    pub(in crate::bus) fn tell(&mut self) {
        let Some(standing) = &self.standing else {
            return;
        };
        let sequence = self.place.sequence(self.ring.segment_len);
        if sequence == self.told {
            return;
        }
        self.told = sequence;
        standing.move_to(sequence);
        // Publishers that wait are told in large steps, and before the reader sleeps: no thread switch for each event.
        if standing.holds_publishers()
            && sequence.saturating_sub(self.ring_at) >= (self.ring.capacity as u64 / 2).max(1)
        {
            self.ring_at = sequence;
            self.ring.room.ring();
        }
    }

    /// Every event up to here is done with.
    pub(crate) fn seen(&self) -> Position {
        self.place.seen()
    }

    /// The sequence of the next event.
    pub(in crate::bus) fn sequence(&self) -> u64 {
        self.place.sequence(self.ring.segment_len)
    }

    /// Goes to the first event after position `after`; the cursor stays where it is if that is gone.
    pub(crate) fn rejoin(&mut self, after: Position) -> Result<(), TooOld> {
        self.place = self.ring.window.lock().after(after)?;
        Ok(())
    }

    /// Goes to the event with this sequence; everything up to position `seen` is done with.
    pub(in crate::bus) fn seek(&mut self, sequence: u64, seen: Position) {
        let seen = seen.max(self.seen());
        self.place = Place { seen, ..self.ring.window.lock().at(sequence) };
        self.tell();
    }

    /// A lagged cursor goes to the oldest event that is retained; returns how many it has missed.
    pub(in crate::bus) fn skip_to_oldest(&mut self) -> u64 {
        let before = self.sequence();
        self.place = {
            let window = self.ring.window.lock();
            window.place(0, 0, window.floor)
        };
        let missed = self.sequence().saturating_sub(before);
        if let Some(standing) = &self.standing {
            standing.miss(missed);
        }
        missed
    }
}

impl<T: Item> Drop for Cursor<T> {
    fn drop(&mut self) {
        self.ring.bell.leave(&self.seat);
        if let Some(standing) = &self.standing {
            self.ring.strike(standing);
        }
    }
}

impl<T: Item> Place<T> {
    /// A place that has left the window.
    pub(super) fn gone(seen: Position) -> Self {
        Self { segment: None, number: 0, gone: true, index: 0, seen, skipping: false }
    }

    #[inline]
    pub(super) fn sequence(&self, segment_len: usize) -> u64 {
        self.number * segment_len as u64 + self.index as u64
    }

    /// Goes to the next event if there is one.
    #[inline]
    fn advance(&mut self, ring: &Ring<T>) -> Ahead {
        match &self.segment {
            Some(segment) if self.index < segment.known().len() => Ahead::Events,
            _ => self.look(ring),
        }
    }

    fn look(&mut self, ring: &Ring<T>) -> Ahead {
        loop {
            if let Some(segment) = &mut self.segment {
                if self.index < segment.known().len() {
                    return Ahead::Events;
                }
                let events = segment.look();
                if self.skipping {
                    self.index = events.partition_point(|event| event.position() <= self.seen);
                    self.skipping = self.index == events.len();
                }
                if self.index < events.len() {
                    return Ahead::Events;
                }
                if !segment.is_complete() {
                    return Ahead::Nothing;
                }
                self.seen = self.seen();
                // Dropped last: it may hold the last events of old, whose drop is the user's code.
                let _passed = self.segment.take();
                self.number += 1;
                self.index = 0;
            }
            if self.gone {
                return Ahead::Gone;
            }
            let found = ring.window.lock().get(self.number);
            match found {
                Find::Here(segment) => self.segment = Some(Reader::new(segment)),
                Find::NotYet => return Ahead::Nothing,
                Find::Gone => self.gone = true,
            }
        }
    }

    /// The events that are still to be read in this segment.
    fn ahead(&self) -> &[T] {
        let events = self.segment.as_ref().map_or(&[][..], Reader::known);
        events.get(self.index..).unwrap_or(&[])
    }

    fn seen(&self) -> Position {
        let done = self.index.checked_sub(1);
        let last = done.and_then(|index| self.segment.as_ref()?.known().get(index));
        last.map_or(self.seen, |event| self.seen.max(event.position()))
    }
}
