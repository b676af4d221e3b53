//! The window of the newest events of a topic, the publishers that fill it, and the cursors that read it.
//!
//! ```text
//!              window: the newest segments                  evicted: free when no cursor is in it
//!  publisher ─▶ [ 7: ■■■■□□□□ ] [ 6: ■■■■■■■■ ] [ 5: ■■■■■■■■ ]     [ 4: ■■■■■■■■ ] ─▶ cleared and used again
//!                       ▲ length                     ▲                     ▲
//!                 cursor, level                cursor, behind       cursor, lagged at its end
//! ```
//!
//! A segment is a fixed row of events that are written once, and the length up to which they may be read. A cursor keeps
//! the one segment alive in which it stands. So a publisher never touches what a reader may be reading; memory is bounded
//! by the window, one segment for each reader, and a few that are kept for use again; a reader may hold what it reads by
//! reference for as long as it likes. The way from one segment to the next takes a lock, once for each segment; nothing
//! else that a reader does takes one.
//!
//! Publishers take turns under one lock. Each event has a sequence, its number in the ring from 0 on, which says in which
//! slot of which segment it stands.
//!
//! # Readers that hold publishers up
//! A publisher may write up to a capacity past the reader that is furthest behind among those that [hold](Standing) it. It
//! knows up to where it may write, and looks at the readers only when it has come there.
//!
//! # Lagging
//! A cursor whose next segment has left the window is lagged. It has still handed over every event before that, and finds
//! its way back with [`Cursor::rejoin`] or [`Cursor::skip_to_oldest`].

mod cursor;
mod pace;
mod segment;
mod standing;

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

pub(crate) use self::cursor::{Cursor, Peek, Ready};
use self::cursor::{Find, Place};
pub(super) use self::segment::Segment;
use self::segment::{Reader, Turns, Writer};
pub(super) use self::standing::{Overrun, Standing};
use super::barrier;
use super::doorbell::Doorbell;
use super::sync::{AtomicBool, Mutex, Ordering};
use crate::actor::Panic;
use crate::event::{Envelope, TransientEvent};
use crate::stream::Position;

/// How many events a segment of a large ring holds. The lock and the search in the window are paid once for so many
/// events, and a reader keeps at most so many alive beside the window.
const SEGMENT: usize = 128;

/// A small ring has this many segments at least, so that it evicts in steps that are small against what it retains.
const SEGMENTS: usize = 8;

/// How many evicted segments are kept for use again, with their events until then. More than one is needed only while
/// readers stand in them.
const SPARE: usize = 4;

/// What a ring can hold.
pub trait Item: Send + Sync + 'static {
    /// Its place in the log, ascending in a ring; [`Position::START`] if it has none.
    fn position(&self) -> Position;
}

impl<E: Send + Sync + 'static> Item for Envelope<E> {
    fn position(&self) -> Position {
        self.header.position
    }
}

impl<T: TransientEvent> Item for T {
    fn position(&self) -> Position {
        Position::START
    }
}

/// The newest events of a topic.
#[derive(Debug)]
pub(super) struct Ring<T> {
    capacity: usize,
    segment_len: usize,
    producer: CachePadded<Turns<Producer<T>>>,
    window: CachePadded<Mutex<Window<T>>>,
    /// Where each reader stands that is known by name.
    readers: Mutex<Vec<Enrolled<T>>>,
    /// For readers that wait for events.
    pub(super) bell: Doorbell,
    /// For publishers that wait for room.
    pub(super) room: Doorbell,
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
    /// The sequence of the next event.
    next: u64,
    /// The sequence before which events may be written without a look at the readers.
    limit: u64,
}

#[derive(Debug)]
struct Window<T> {
    segments: VecDeque<Arc<Segment<T>>>,
    /// The number of the first segment.
    first: u64,
    segment_len: u64,
    /// The position of the last event that is gone, or that never was here.
    floor: Position,
}

struct Enrolled<T> {
    standing: Arc<Standing>,
    overrun: Option<Arc<dyn Overrun<T>>>,
}

impl<T> std::fmt::Debug for Enrolled<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.standing.fmt(f)
    }
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

/// Why a ring did not take an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A reader that holds publishers up is a capacity behind.
    Full,
    /// Nothing will be published any more.
    Closed,
}

/// Where a new cursor is to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    /// Before the next event.
    End,
    /// Before the oldest event that is retained.
    Oldest,
    /// Before the first event after this position, or lagged if that is gone.
    After(Position),
}

impl<T: Item> Ring<T> {
    /// An empty ring that retains at least the newest `capacity` events (at least one), and less than two segments more.
    /// Those up to `after` never were in it.
    pub(super) fn new(capacity: usize, after: Position) -> Self {
        barrier::prepare();
        let capacity = capacity.max(1);
        let segment_len = (capacity / SEGMENTS).clamp(1, SEGMENT);
        let producer = Producer { writer: None, spare: VecDeque::new(), next: 0, limit: u64::MAX };
        let window = Window {
            segments: VecDeque::new(),
            first: 0,
            segment_len: segment_len as u64,
            floor: after,
        };
        Self {
            capacity,
            segment_len,
            producer: CachePadded::new(Turns::new(producer)),
            window: CachePadded::new(Mutex::new(window)),
            readers: Mutex::new(Vec::new()),
            bell: Doorbell::default(),
            room: Doorbell::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// The right to publish; whoever else wants to publish waits until this is dropped.
    pub(super) fn publisher(&self) -> Turn<'_, T> {
        Turn { producer: self.producer.enter(), ring: self }
    }

    /// Publishes one event of this depth.
    #[inline]
    pub(super) fn publish_one(&self, depth: u8, event: T) -> Result<(), (Refusal, T)> {
        let _bell = Rings(&self.bell);
        let mut turn = self.publisher();
        if let Err(refusal) = turn.admit(1) {
            return Err((refusal, event));
        }
        turn.write(depth, std::iter::once(event));
        Ok(())
    }

    /// Publishes those of `events` that there is room for, and leaves the others.
    pub(super) fn publish_many(&self, depth: u8, events: &mut Vec<T>) -> Result<(), Refusal> {
        if events.is_empty() {
            return if self.is_closed() { Err(Refusal::Closed) } else { Ok(()) };
        }
        let _bell = Rings(&self.bell);
        let mut turn = self.publisher();
        let room = turn.admit(events.len() as u64)?;
        let fitting = usize::try_from(room).unwrap_or(usize::MAX).min(events.len());
        turn.write(depth, events.drain(..fitting));
        drop(turn);
        if events.is_empty() { Ok(()) } else { Err(Refusal::Full) }
    }

    /// Lets go of all events: what comes up to position `through` must be read from the log. Readers read what they stand in
    /// to its end and are lagged then, also those that are level.
    pub(super) fn send_to_log(&self, through: Position) {
        let mut producer = self.producer.enter();
        if let Some(writer) = producer.writer.take() {
            writer.seal();
        }
        let leaving: Vec<_> = {
            let window = self.window.lock();
            let sequences = (window.first..).map(|number| number * window.segment_len);
            sequences.zip(window.segments.iter().cloned()).collect()
        };
        leaving.iter().for_each(|(sequence, segment)| self.overrun(*sequence, segment));
        let gone = {
            let mut window = self.window.lock();
            // One number that never is: those who wait for the next segment find that it is gone.
            window.first += window.segments.len() as u64 + 1;
            window.floor = window.floor.max(through);
            producer.next = window.first * window.segment_len;
            std::mem::take(&mut window.segments)
        };
        drop(producer);
        drop(gone);
        self.bell.ring();
    }

    /// Says that nothing will be published any more: readers that are level have reached the end.
    pub(super) fn close(&self) {
        {
            let _turn = self.producer.enter();
            self.closed.store(true, Ordering::Release);
        }
        self.bell.ring();
        self.room.ring();
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
            published: window.first * window.segment_len + retained as u64,
            floor: window.floor,
            head: window.head(),
        }
    }

    /// The position of the newest event that was published, or that is only in the log.
    pub(super) fn head(&self) -> Position {
        self.window.lock().head()
    }

    /// Each reader that is known by name.
    pub(super) fn standings(&self) -> Vec<Arc<Standing>> {
        let readers = self.readers.lock();
        readers.iter().map(|enrolled| Arc::clone(&enrolled.standing)).collect()
    }

    /// A cursor for a reader without a name, which holds nobody up, before the first event after position `after`.
    pub(super) fn join(self: &Arc<Self>, after: Position) -> Result<Cursor<T>, TooOld> {
        let place = self.window.lock().after(after)?;
        Ok(Cursor::new(self, place, None))
    }

    /// A cursor for a reader without a name, which holds nobody up, before the event with this sequence.
    pub(super) fn join_at(self: &Arc<Self>, sequence: u64) -> Cursor<T> {
        let place = self.window.lock().at(sequence);
        Cursor::new(self, place, None)
    }

    /// A cursor for a reader that is known by name until it is dropped. `overrun` is told what is about to leave the window.
    pub(super) fn enroll(
        self: &Arc<Self>,
        join: Join,
        standing: &Arc<Standing>,
        overrun: Option<Arc<dyn Overrun<T>>>,
    ) -> Cursor<T> {
        let place = self.list(join, standing, overrun);
        Cursor::new(self, place, Some(Arc::clone(standing)))
    }

    /// Makes a reader known by name that has no cursor of its own, before the next event, and returns the sequence of that.
    pub(super) fn enroll_alone(&self, standing: &Arc<Standing>) -> u64 {
        self.list(Join::End, standing, None).sequence(self.segment_len)
    }

    fn list(
        &self,
        join: Join,
        standing: &Arc<Standing>,
        overrun: Option<Arc<dyn Overrun<T>>>,
    ) -> Place<T> {
        // Under the publishers' lock, so that none of them is already past what this reader has not seen.
        let mut producer = self.producer.enter();
        let place = {
            let window = self.window.lock();
            match join {
                Join::End => window.end(),
                Join::Oldest => window.place(0, 0, window.floor),
                Join::After(after) => window
                    .after(after)
                    .unwrap_or_else(|_| Place { number: window.first, ..Place::gone(after) }),
            }
        };
        let sequence = place.sequence(self.segment_len);
        standing.move_to(sequence);
        if let Some(overrun) = &overrun {
            overrun.begin(sequence);
        }
        if standing.holds_publishers() {
            producer.limit = producer.limit.min(sequence.saturating_add(self.capacity as u64));
        }
        self.readers.lock().push(Enrolled { standing: Arc::clone(standing), overrun });
        drop(producer);
        place
    }

    /// Takes a reader off the list; publishers no longer wait for it.
    pub(super) fn strike(&self, standing: &Arc<Standing>) {
        standing.end();
        let mut readers = self.readers.lock();
        let index = readers.iter().position(|known| Arc::ptr_eq(&known.standing, standing));
        let struck = index.map(|index| readers.swap_remove(index));
        drop(readers);
        // Outside the lock: dropping what it kept may run any code.
        drop(struck);
        self.room.ring();
    }

    /// Whether a publisher would find room.
    pub(super) fn has_room(&self) -> bool {
        self.is_closed() || self.publisher().room(1) > 0
    }
}

impl<T: Item> Window<T> {
    fn head(&self) -> Position {
        let newest = |s: &Arc<Segment<T>>| s.published().last().map(Item::position);
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
        Ok(Place { skipping: true, ..self.place(index, 0, after) })
    }

    fn end(&self) -> Place<T> {
        let index = self.segments.len().saturating_sub(1);
        let len = self.segments.get(index).map_or(0, |s| s.published().len());
        self.place(index, len, self.head())
    }

    fn at(&self, sequence: u64) -> Place<T> {
        let (number, index) = (sequence / self.segment_len, sequence % self.segment_len);
        let index = usize::try_from(index).unwrap_or(0);
        match usize::try_from(number.wrapping_sub(self.first)) {
            Ok(segment) if number >= self.first => self.place(segment, index, self.floor),
            _ => Place { number, index, ..Place::gone(self.floor) },
        }
    }

    fn place(&self, segment: usize, index: usize, seen: Position) -> Place<T> {
        Place {
            segment: self.segments.get(segment).cloned().map(Reader::new),
            number: self.first + segment as u64,
            gone: false,
            index,
            seen,
            skipping: false,
        }
    }
}

/// Rings when it is dropped: also when the drop of an event of old, or the iterator that makes the new ones, panics after some
/// were written.
struct Rings<'a>(&'a Doorbell);

impl Drop for Rings<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.ring();
    }
}

/// The right to publish into a ring, one at a time.
#[derive(Debug)]
pub(super) struct Turn<'a, T> {
    producer: segment::Turn<'a, Producer<T>>,
    ring: &'a Ring<T>,
}

impl<T: Item> Turn<'_, T> {
    /// Publishes `events`, in ascending positions, whether or not a reader is behind, and wakes who sleeps.
    /// Returns how many they were.
    pub(super) fn publish(&mut self, events: impl IntoIterator<Item = T>) -> usize {
        let _bell = Rings(&self.ring.bell);
        let before = self.producer.next;
        self.write(0, events.into_iter());
        usize::try_from(self.producer.next - before).unwrap_or(usize::MAX)
    }

    /// Publishes one event of this depth, otherwise in the same way.
    pub(super) fn publish_at(&mut self, depth: u8, event: T) {
        let _bell = Rings(&self.ring.bell);
        self.write(depth, std::iter::once(event));
    }

    /// Writes events and lets the readers see them; they are still to be woken.
    #[inline]
    fn write(&mut self, depth: u8, mut events: impl Iterator<Item = T>) {
        let producer = &mut *self.producer;
        loop {
            if let Some(writer) = &mut producer.writer {
                producer.next += writer.fill(depth, &mut events) as u64;
                writer.publish();
            }
            // A segment is opened with an event in hand: none leaves the window for nothing.
            let Some(event) = events.next() else {
                break;
            };
            let writer = self.ring.open_segment(producer);
            producer.next += writer.fill(depth, &mut std::iter::once(event)) as u64;
        }
    }

    /// How many events may be written; at least one. It is exact where it is less than `wanted`.
    #[inline]
    fn admit(&mut self, wanted: u64) -> Result<u64, Refusal> {
        if self.ring.closed.load(Ordering::Relaxed) {
            return Err(Refusal::Closed);
        }
        match self.room(wanted) {
            0 => Err(Refusal::Full),
            room => Ok(room),
        }
    }

    /// How many events may be written. It is exact where it is less than `wanted`.
    #[inline]
    fn room(&mut self, wanted: u64) -> u64 {
        let producer = &mut *self.producer;
        if producer.limit.saturating_sub(producer.next) < wanted {
            producer.limit = self.ring.limit();
        }
        producer.limit.saturating_sub(producer.next)
    }
}

impl<T> Producer<T> {
    /// The writer of an empty segment: a spare one in which no cursor stands, or a new one.
    fn empty_segment(&mut self, len: usize) -> Writer<T> {
        for _ in 0..self.spare.len() {
            let Some(spare) = self.spare.pop_front() else {
                break;
            };
            // It drops events of long ago, whose panic is not that of who publishes; nor may it keep out what is published.
            match Panic::catch(|| Writer::reuse(spare)) {
                Ok(Ok(writer)) => return writer,
                Ok(Err(held)) => self.spare.push_back(held),
                Err(panic) => {
                    tracing::error!(panic = &*panic.message, "the drop of an event panicked");
                }
            }
        }
        Writer::new(len)
    }
}

impl<T: Item> Ring<T> {
    /// The sequence before which every reader that holds publishers up lets them write.
    #[cold]
    fn limit(&self) -> u64 {
        let readers = self.readers.lock();
        let standings = readers.iter().map(|enrolled| &enrolled.standing);
        let behind = standings.filter_map(|standing| standing.holds_before()).min();
        behind.map_or(u64::MAX, |sequence| sequence.saturating_add(self.capacity as u64))
    }

    /// Adds an empty segment to the window, after making room for it.
    #[cold]
    fn open_segment<'a>(&self, producer: &'a mut Producer<T>) -> &'a mut Writer<T> {
        // What is opened has room for less than a segment of what is retained beside it.
        let enough = self.capacity.div_ceil(self.segment_len) + 1;
        loop {
            let (oldest, sequence) = {
                let window = self.window.lock();
                match window.segments.front() {
                    Some(oldest) if window.segments.len() >= enough => {
                        (Arc::clone(oldest), window.first * window.segment_len)
                    }
                    _ => break,
                }
            };
            // Outside the lock of the window, which a reader that is told may need.
            self.overrun(sequence, &oldest);
            let mut window = self.window.lock();
            window.segments.pop_front();
            window.first += 1;
            window.floor = oldest.published().last().map_or(window.floor, Item::position);
            producer.spare.push_back(oldest);
        }
        // Outside the lock of the window, since it drops the events of old. Until the segment stands in the window,
        // readers that look for it find that nothing is there yet.
        producer.writer = None;
        let writer = producer.empty_segment(self.segment_len);
        producer.spare.truncate(SPARE);
        self.window.lock().segments.push_back(writer.segment().clone());
        producer.writer.insert(writer)
    }

    /// Tells who wants to know it that a segment is about to leave the window.
    fn overrun(&self, sequence: u64, oldest: &Segment<T>) {
        let readers = self.readers.lock();
        for overrun in readers.iter().filter_map(|enrolled| enrolled.overrun.as_ref()) {
            let mut told = 0;
            while let Some(events @ [_, ..]) = oldest.published().get(told..) {
                let (len, depth) = oldest.same_depth(told, events.len());
                overrun.overrun(sequence + told as u64, events.get(..len).unwrap_or(events), depth);
                told += len;
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(tidings_loom))]
mod tests;
