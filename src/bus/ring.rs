//! The window of the newest events of a topic, and the cursors that read it.
//!
//! ```text
//!              window: the newest segments                  evicted: free when no cursor is in it
//!  publisher ─▶ [ 7: ■■■■□□□□ ] [ 6: ■■■■■■■■ ] [ 5: ■■■■■■■■ ]     [ 4: ■■■■■■■■ ] ─▶ cleared and used again
//!                       ▲ length                     ▲                     ▲
//!                 cursor, level                cursor, behind       cursor, lagged at its end
//! ```
//!
//! A segment is a fixed row of events that are written once, and the length up to which they may be read. A cursor keeps
//! the one segment alive in which it stands. So a publisher never waits for a reader and never touches what one may be
//! reading; memory is bounded by the window and one segment for each reader; a reader may hold what it reads by reference
//! for as long as it likes. Only the way from one segment to the next takes a lock, once for each segment.
//!
//! # Lagging
//! A cursor whose next segment has left the window is lagged. It has still handed over every event up to
//! [`Cursor::seen`], and finds its way back with [`Cursor::rejoin`].

mod segment;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};

use self::segment::{Reader, Segment, Writer};
use super::doorbell::{Doorbell, SeatNumber};
use crate::event::Envelope;
use crate::stream::Position;

/// How many events a segment of a large ring holds. The lock and the search in the window are paid once for so many
/// events, and a reader keeps at most so many alive beside the window.
const SEGMENT: usize = 128;

/// A small ring has this many segments at least, so that it evicts in steps that are small against what it retains.
const SEGMENTS: usize = 8;

/// How many evicted segments are kept for use again. More than one is needed only while readers stand in them.
const SPARE: usize = 4;

/// How often a level reader lets its task be polled again before it sleeps: about as long as it takes to wake a thread, so
/// that it costs at most twice what the better choice would have. Without it a reader that is faster than its publisher
/// sleeps after every few events; measured, four subscribers then got 30 instead of 50 to 70 million events a second. Any
/// number from 2 to 64 did the same.
const LINGER: u32 = 8;

/// Something that has a place in the log.
pub(crate) trait Placed {
    /// Its place; ascending in a ring.
    fn position(&self) -> Position;
}

impl<E> Placed for Envelope<E> {
    fn position(&self) -> Position {
        self.header.position
    }
}

/// The newest events of a topic.
#[derive(Debug)]
pub(super) struct Ring<T> {
    capacity: usize,
    segment_len: usize,
    producer: Mutex<Producer<T>>,
    window: Mutex<Window<T>>,
    pub(super) bell: Doorbell,
    closed: AtomicBool,
}

/// What a ring holds at one moment.
#[derive(Debug)]
pub(super) struct Extent {
    /// How many events are retained.
    pub(super) retained: usize,
    /// How many were published in all.
    pub(super) published: u64,
    /// The position of the last event that is not retained.
    pub(super) floor: Position,
    /// The position of the newest event, or the floor.
    pub(super) head: Position,
}

#[derive(Debug)]
struct Producer<T> {
    /// Fills the last segment of the window.
    writer: Option<Writer<T>>,
    /// Evicted segments that may be used again as soon as no cursor stands in them.
    spare: VecDeque<Arc<Segment<T>>>,
    /// Room for the wakers of one ring of the bell.
    wakers: Vec<Waker>,
}

#[derive(Debug)]
struct Window<T> {
    segments: VecDeque<Arc<Segment<T>>>,
    /// The number of the first segment.
    first: u64,
    /// The position of the last event that is gone, or that never was here.
    floor: Position,
}

/// The events that a cursor asked for are gone: read them from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events after position {after} are gone; the ring begins after {floor}")]
pub(crate) struct TooOld {
    /// After which position the cursor wanted to read.
    pub(crate) after: Position,
    /// The position of the last event that is gone.
    pub(crate) floor: Position,
}

impl<T: Placed> Ring<T> {
    /// An empty ring that retains at least the newest `capacity` events (at least one), and less than two segments more.
    /// Those up to `after` never were in it.
    pub(super) fn new(capacity: usize, after: Position) -> Self {
        let capacity = capacity.max(1);
        let segment_len = (capacity / SEGMENTS).clamp(1, SEGMENT);
        Self {
            capacity,
            segment_len,
            producer: Mutex::new(Producer {
                writer: None,
                spare: VecDeque::new(),
                wakers: Vec::new(),
            }),
            window: Mutex::new(Window { segments: VecDeque::new(), first: 0, floor: after }),
            bell: Doorbell::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// The one publisher; whoever else wants to publish waits until this is dropped.
    pub(super) fn publisher(&self) -> Publisher<'_, T> {
        Publisher { producer: self.producer.lock(), ring: self }
    }

    /// Says that nothing will be published any more: readers that are level have reached the end.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.bell.ring(&mut Vec::new());
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// What the ring holds.
    pub(super) fn extent(&self) -> Extent {
        let window = self.window.lock();
        let retained = window.segments.iter().map(|s| s.published().len()).sum();
        Extent {
            retained,
            // A segment leaves the window full.
            published: window.first * self.segment_len as u64 + retained as u64,
            floor: window.floor,
            head: window.head(),
        }
    }

    /// A cursor before the first event after position `after`.
    pub(super) fn join(self: &Arc<Self>, after: Position) -> Result<Cursor<T>, TooOld> {
        let place = self.window.lock().after(after)?;
        Ok(Cursor::new(self, place))
    }

    /// A cursor before the next event to be published.
    pub(super) fn join_at_end(self: &Arc<Self>) -> Cursor<T> {
        let place = self.window.lock().end();
        Cursor::new(self, place)
    }

    /// A cursor that is lagged and has seen everything up to `seen`.
    pub(super) fn join_lagged(self: &Arc<Self>, seen: Position) -> Cursor<T> {
        Cursor::new(self, Place { segment: None, number: None, index: 0, seen, skipping: false })
    }
}

impl<T: Placed> Window<T> {
    fn head(&self) -> Position {
        let newest = |s: &Arc<Segment<T>>| s.published().last().map(Placed::position);
        self.segments.iter().rev().find_map(newest).map_or(self.floor, |head| head.max(self.floor))
    }

    fn get(&self, number: u64) -> Find<T> {
        let Some(offset) = number.checked_sub(self.first) else {
            return Find::Gone;
        };
        usize::try_from(offset)
            .ok()
            .and_then(|offset| self.segments.get(offset))
            .map_or(Find::NotYet, |segment| Find::Here(segment.clone()))
    }

    fn after(&self, after: Position) -> Result<Place<T>, TooOld> {
        if after < self.floor {
            return Err(TooOld { after, floor: self.floor });
        }
        // The segment in which the first event after `after` may stand is the last that begins at or before it.
        let begins_before = |s: &Arc<Segment<T>>| {
            s.published().first().is_some_and(|event| event.position() <= after)
        };
        let index = self.segments.partition_point(begins_before).saturating_sub(1);
        Ok(self.place(index, 0, after))
    }

    fn end(&self) -> Place<T> {
        let index = self.segments.len().saturating_sub(1);
        let len = self.segments.get(index).map_or(0, |s| s.published().len());
        self.place(index, len, self.head())
    }

    fn place(&self, segment: usize, index: usize, seen: Position) -> Place<T> {
        Place {
            segment: self.segments.get(segment).cloned().map(Reader::new),
            number: Some(self.first + segment as u64),
            index,
            seen,
            skipping: true,
        }
    }
}

enum Find<T> {
    Here(Arc<Segment<T>>),
    NotYet,
    Gone,
}

/// The right to publish into a ring.
#[derive(Debug)]
pub(super) struct Publisher<'a, T> {
    producer: MutexGuard<'a, Producer<T>>,
    ring: &'a Ring<T>,
}

impl<T: Placed> Publisher<'_, T> {
    /// Publishes `events`, in ascending positions, and wakes who sleeps.
    pub(super) fn publish(&mut self, events: impl IntoIterator<Item = T>) {
        let producer = &mut *self.producer;
        let mut events = events.into_iter();
        loop {
            if let Some(writer) = &mut producer.writer {
                writer.fill(&mut events);
                writer.publish();
            }
            // A segment is opened with an event in hand: none leaves the window for nothing.
            let Some(event) = events.next() else {
                break;
            };
            let writer = self.ring.open_segment(producer);
            writer.fill(&mut std::iter::once(event));
        }
        self.ring.bell.ring(&mut producer.wakers);
    }
}

impl<T> Producer<T> {
    /// The writer of an empty segment: a spare one in which no cursor stands, or a new one.
    fn empty_segment(&mut self, len: usize) -> Writer<T> {
        for _ in 0..self.spare.len() {
            let Some(spare) = self.spare.pop_front() else {
                break;
            };
            match Writer::reuse(spare) {
                Ok(writer) => return writer,
                Err(held) => self.spare.push_back(held),
            }
        }
        Writer::new(len)
    }
}

impl<T: Placed> Ring<T> {
    /// Adds an empty segment to the window, after making room for it.
    fn open_segment<'a>(&self, producer: &'a mut Producer<T>) -> &'a mut Writer<T> {
        {
            let mut window = self.window.lock();
            // What remains without the oldest segment must be as much as was promised.
            while window.segments.len().saturating_sub(1) * self.segment_len >= self.capacity {
                let Some(evicted) = window.segments.pop_front() else {
                    break;
                };
                window.first += 1;
                window.floor = evicted.published().last().map_or(window.floor, Placed::position);
                producer.spare.push_back(evicted);
            }
        }
        // Outside the lock of the window, since it drops the events of old. Until the segment stands in the window,
        // readers that look for it find that nothing is there yet.
        producer.writer = None;
        let writer = producer.empty_segment(self.segment_len);
        producer.spare.truncate(SPARE);
        self.window.lock().segments.push_back(writer.segment().clone());
        producer.writer.insert(writer)
    }
}

/// A reader's place in a ring. It reads on its own, and gives its seat back when dropped.
#[derive(Debug)]
pub(crate) struct Cursor<T: Placed> {
    ring: Arc<Ring<T>>,
    seat: SeatNumber,
    place: Place<T>,
    /// How often in a row the task was polled for nothing.
    lingered: u32,
}

#[derive(Debug)]
struct Place<T> {
    /// The segment that is being read; none between two segments.
    segment: Option<Reader<T>>,
    /// The number of that segment or, without one, of the next; none once it has left the window.
    number: Option<u64>,
    /// How many of the segment's events are done with.
    index: usize,
    /// Everything up to here was handed over, apart from what `index` says.
    seen: Position,
    /// Events up to `seen` may still come and are not wanted: the reader knows them from the log.
    skipping: bool,
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
    /// The ring is closed and read to its end.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ahead {
    Events,
    Nothing,
    Gone,
}

impl<T: Placed> Cursor<T> {
    fn new(ring: &Arc<Ring<T>>, place: Place<T>) -> Self {
        Self { seat: ring.bell.join(), ring: ring.clone(), place, lingered: 0 }
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

    /// The next events, at most `max` and those of one segment only, by reference. They are done with.
    #[inline]
    pub(super) fn take(&mut self, max: usize) -> &[T] {
        if self.place.advance(&self.ring) != Ahead::Events {
            return &[];
        }
        let Place { segment, index, .. } = &mut self.place;
        let events = segment.as_ref().map_or(&[][..], Reader::known);
        let ahead = events.get(*index..).unwrap_or(&[]);
        let taken = ahead.get(..max).unwrap_or(ahead);
        *index += taken.len();
        taken
    }

    /// Waits until there is something to read, or nothing more to come. The task of the last call is woken.
    pub(crate) fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<Ready> {
        let Self { ring, seat, place, lingered } = self;
        loop {
            // Before looking: what was published before the end is seen first.
            let closed = ring.is_closed();
            match place.advance(ring) {
                Ahead::Events => {
                    *lingered = 0;
                    return Poll::Ready(Ready::Next);
                }
                Ahead::Gone => return Poll::Ready(Ready::Lagged),
                Ahead::Nothing if closed => return Poll::Ready(Ready::Closed),
                Ahead::Nothing => {}
            }
            if *lingered < LINGER {
                // The task goes to the back of its queue, and everybody else on the thread has a turn first.
                *lingered += 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let ready = || ring.is_closed() || place.advance(ring) != Ahead::Nothing;
            if ring.bell.sleep(seat, cx, ready).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Every event up to here is done with.
    pub(crate) fn seen(&self) -> Position {
        self.place.seen()
    }

    /// Goes to the first event after position `after`; the cursor stays where it is if that is gone.
    pub(crate) fn rejoin(&mut self, after: Position) -> Result<(), TooOld> {
        self.place = self.ring.window.lock().after(after)?;
        Ok(())
    }
}

impl<T: Placed> Drop for Cursor<T> {
    fn drop(&mut self) {
        self.ring.bell.leave(&self.seat);
    }
}

impl<T: Placed> Place<T> {
    /// Goes to the next event if there is one.
    fn advance(&mut self, ring: &Ring<T>) -> Ahead {
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
                self.segment = None;
                self.number = self.number.map(|number| number + 1);
                self.index = 0;
            }
            let Some(number) = self.number else {
                return Ahead::Gone;
            };
            let found = ring.window.lock().get(number);
            match found {
                Find::Here(segment) => self.segment = Some(Reader::new(segment)),
                Find::NotYet => return Ahead::Nothing,
                Find::Gone => self.number = None,
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

#[cfg(test)]
#[cfg(not(tidings_loom))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// An event that is nothing but its position.
    #[derive(Debug)]
    struct At(u64);

    impl Placed for At {
        fn position(&self) -> Position {
            Position::new(self.0)
        }
    }

    /// A ring that retains at least `capacity` events, with events at the even positions 12, 14 … `last`; 10 was the
    /// head of the log.
    fn ring(capacity: usize, last: u64) -> Arc<Ring<At>> {
        let ring = Arc::new(Ring::new(capacity, Position::new(10)));
        ring.publisher().publish((12..=last).step_by(2).map(At));
        ring
    }

    fn read(cursor: &mut Cursor<At>, through: u64, max: usize) -> Vec<u64> {
        let mut seen = Vec::new();
        let progress = cursor.read(Position::new(through), max, |event| {
            seen.push(event.0);
            ControlFlow::Continue(())
        });
        assert_eq!(progress, Progress::Read(seen.len()));
        seen
    }

    #[track_caller]
    fn check_join(ring: &Arc<Ring<At>>, after: u64, expected: Result<&[u64], u64>) {
        let after = Position::new(after);
        match (ring.join(after), expected) {
            (Ok(mut cursor), Ok(events)) => {
                assert_eq!(cursor.seen(), after);
                assert_eq!(read(&mut cursor, u64::MAX, usize::MAX), events);
                let last = events.last().map_or(after, |last| Position::new(*last));
                assert_eq!(cursor.seen(), last);
            }
            (Err(gone), Err(floor)) => {
                let floor = Position::new(floor);
                assert_eq!(gone, TooOld { after, floor });
            }
            (joined, expected) => panic!("{joined:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_cursor_joins_exactly_where_the_ring_still_has_everything() {
        let empty = ring(4, 10);
        check_join(&empty, 9, Err(10));
        check_join(&empty, 10, Ok(&[]));
        check_join(&empty, 11, Ok(&[]));

        let fits = ring(4, 18);
        check_join(&fits, 9, Err(10));
        for (after, from) in [(10, 12), (11, 12), (12, 14), (13, 14), (17, 18)] {
            let expected: Vec<_> = (from..=18).step_by(2).collect();
            check_join(&fits, after, Ok(&expected));
        }
        check_join(&fits, 18, Ok(&[]));

        // Capacity 4 keeps one event more while it fills a segment of one.
        let moved = ring(4, 40);
        check_join(&moved, 10, Err(30));
        check_join(&moved, 29, Err(30));
        check_join(&moved, 30, Ok(&[32, 34, 36, 38, 40]));
        check_join(&moved, 39, Ok(&[40]));
    }

    #[test]
    fn a_cursor_that_knows_more_than_was_published_skips_what_it_knows() {
        for published in [10, 12, 14, 400] {
            let ring = ring(32, published);
            let mut cursor = ring.join(Position::new(401)).expect("nothing is gone");
            assert_eq!(cursor.peek(), Peek::Empty);
            let rest = (published + 2..=404).step_by(2);
            for position in rest {
                ring.publisher().publish([At(position)]);
                let _ = cursor.peek();
            }
            assert_eq!(cursor.peek(), Peek::Next(Position::new(402)));
            assert_eq!(read(&mut cursor, u64::MAX, usize::MAX), [402, 404]);
        }
    }

    #[test]
    fn a_cursor_at_the_end_sees_what_is_published_next() {
        for published in [10, 12, 400] {
            let ring = ring(32, published);
            let mut cursor = ring.join_at_end();
            assert_eq!(cursor.seen(), Position::new(published));
            assert_eq!(cursor.peek(), Peek::Empty);
            ring.publisher().publish([At(500), At(502)]);
            assert_eq!(read(&mut cursor, u64::MAX, usize::MAX), [500, 502]);
        }
    }

    #[test]
    fn reading_stops_at_the_position_and_the_number_asked_for() {
        let ring = ring(64, 80);
        let mut cursor = ring.join(Position::new(10)).expect("nothing is gone");
        assert!(read(&mut cursor, 11, usize::MAX).is_empty());
        assert_eq!(read(&mut cursor, 17, usize::MAX), [12, 14, 16]);
        assert!(read(&mut cursor, 80, 0).is_empty());
        assert_eq!(read(&mut cursor, 80, 2), [18, 20]);
        let rest: Vec<_> = (22..=80).step_by(2).collect();
        assert_eq!(read(&mut cursor, 80, usize::MAX), rest);
        assert_eq!(cursor.peek(), Peek::Empty);
    }

    #[test]
    fn an_event_whose_reader_breaks_or_panics_comes_again() {
        let ring = ring(64, 20);
        let mut cursor = ring.join(Position::new(10)).expect("nothing is gone");
        let progress = cursor.read(Position::new(20), 9, |event| match event.0 {
            16 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert_eq!(progress, Progress::Read(2));
        assert_eq!(cursor.seen(), Position::new(14));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            cursor.read(Position::new(20), 9, |event| {
                assert_eq!(event.0, 16, "as asked");
                ControlFlow::Continue(())
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(cursor.peek(), Peek::Next(Position::new(18)));
    }

    #[test]
    fn a_lagged_cursor_reads_its_segment_to_the_end_and_rejoins_where_it_can() {
        let ring = ring(16, 12);
        let mut cursor = ring.join(Position::new(10)).expect("nothing is gone");
        assert_eq!(cursor.peek(), Peek::Next(Position::new(12)));
        ring.publisher().publish((14..=200).step_by(2).map(At));
        // Segments of two.
        assert_eq!(read(&mut cursor, u64::MAX, usize::MAX), [12, 14]);
        assert_eq!(cursor.peek(), Peek::Lagged);
        let progress = cursor.read(Position::new(200), 9, |_| ControlFlow::Continue(()));
        assert_eq!(progress, Progress::Lagged);
        assert_eq!(cursor.seen(), Position::new(14));

        let floor = ring.extent().floor;
        let after = Position::new(floor.as_u64() - 1);
        assert_eq!(cursor.rejoin(after), Err(TooOld { after, floor }));
        assert_eq!(cursor.seen(), Position::new(14));
        assert_eq!(cursor.rejoin(floor), Ok(()));
        assert_eq!(cursor.peek(), Peek::Next(floor.plus(2)));
    }

    #[test]
    fn publishing_nothing_evicts_nothing() {
        let ring = ring(1, 14);
        let before = ring.extent();
        ring.publisher().publish([]);
        let after = ring.extent();
        assert_eq!((before.retained, before.floor), (after.retained, after.floor));
        assert_eq!((after.published, after.head), (2, Position::new(14)));
    }
}
