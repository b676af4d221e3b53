//! A row of slots with one writer and any number of readers, and the lock under which publishers take turns as that writer:
//! all of the unsafe code of this crate.
//!
//! # The slots
//!
//! The same in safe code, with a `OnceLock` in each slot, was measured: a write then takes two read-modify-write
//! instructions and several copies of the event, 60 ns for an envelope of 192 bytes where this takes 15, and readers get
//! an iterator that looks at each slot's state where this gives a slice.
//!
//! Invariants:
//! 1. There is at most one [`Writer`] of a segment: one is made with the segment, and another only from an [`Arc`] that
//!    nobody else holds, which a writer would.
//! 2. The slots before `len` hold events. Once `len` is past a slot, nobody writes to it before the segment is held by one
//!    owner alone.
//! 3. The writer writes to slots from `len` on only. It raises `len` with release order after it has written; readers load
//!    it with acquire order and look at slots before it only. So a read of an event comes after its write.
//!
//! # The lock
//! Most topics have one publisher. [`Turns`] is therefore a lock that is biased to a thread which took it many times in a row:
//! that thread enters and leaves with plain stores and one light [barrier](crate::bus::barrier). Whoever else comes takes a
//! mutex, takes the bias back, passes the heavy barrier and waits until the thread is not inside. Publishing one by one to
//! one reader through a mutex took four times as long, since each of its two read-modify-write instructions first waits for
//! the events written before to reach the other core.
//!
//! Each thread that ever gets the bias has a flag of its own for being inside. It may be held up between its first look at
//! `owner` and its write for so long that another has got the bias meanwhile; with one flag for all it would then say that
//! the other is not inside.
//!
//! ```text
//!  the biased thread                        anybody else
//!  owner me?                                lock the mutex
//!  my inside = true                         owner = nobody
//!  light barrier                            heavy barrier
//!  owner still me?                          wait while its inside
//!    yes: enter ... my inside = false       enter ... unlock
//!    no:  my inside = false, as others
//! ```
//!
//! Invariants:
//! 4. `owner` changes under the mutex only. It becomes a thread by that thread itself.
//! 5. A thread enters without the mutex only if it has set its `inside`, passed a barrier, and still found itself the owner.
//!    Who enters with the mutex has made `owner` nobody, passed a barrier, and then found that owner's `inside` unset. Of two
//!    that pass the barriers one sees the other's write, so no two are in.
//! 6. A thread that is in by its bias and asks again finds its `inside` set, by itself alone, and panics.

#![expect(unsafe_code, reason = "see the figures above")]

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::slice;
use std::sync::Arc;

use crate::bus::barrier;
use crate::bus::sync::{
    AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, thread_token,
    yield_now,
};

/// Events in a row; those that are published can be read.
pub(in crate::bus) struct Segment<T> {
    len: Len,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// Whether any of the events has a depth. Set before `len` shows that event.
    deep: AtomicBool,
    /// Whether nothing more will be written, though there is room.
    sealed: AtomicBool,
    /// How many handlers caused each event one after the other; all zero unless `deep`.
    depths: Box<[AtomicU8]>,
}

/// How many events are published. The writer changes it with each batch, so it shares its cache lines (a pair, as they are
/// fetched) with nothing that a reader needs in between.
#[repr(align(128))]
struct Len(AtomicUsize);

/// A segment as one reader sees it. It looks at the length only when asked to: each look costs the writer, on another core,
/// the sole possession of that cache line.
pub(super) struct Reader<T> {
    segment: Arc<Segment<T>>,
    /// A length that the segment had; it can only have grown since.
    known: usize,
}

// SAFETY: A shared segment hands out `&T` on any thread, which takes `T: Sync`. The last owner drops the events, whichever
// thread it is on, and the writer moves events in from its own, which takes `T: Send`. Invariants 1 to 3 keep writes and
// reads of a slot apart.
unsafe impl<T: Send + Sync> Sync for Segment<T> {}

/// The one that fills a segment.
pub(super) struct Writer<T> {
    segment: Arc<Segment<T>>,
    /// How many slots hold events; at least as many as are published.
    written: usize,
}

impl<T> Segment<T> {
    /// The events that are published.
    #[inline]
    pub(in crate::bus) fn published(&self) -> &[T] {
        let len = self.len.0.load(Ordering::Acquire);
        // SAFETY: `len` was loaded from this segment, which is borrowed.
        unsafe { self.first(len) }
    }

    /// The first `len` events.
    ///
    /// # Safety
    /// This thread has loaded `len`, with acquire order, or has got it from one that has, while somebody kept the segment
    /// alive from then on.
    #[inline]
    unsafe fn first(&self, len: usize) -> &[T] {
        // SAFETY: `UnsafeCell<MaybeUninit<T>>` has the layout of `T`. The first `len` slots hold events and are not written
        // to while the segment is shared (invariant 2), and their writes came before the load (invariant 3).
        unsafe { slice::from_raw_parts(self.slots.as_ptr().cast::<T>(), len) }
    }

    /// How many events it can hold.
    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// How many of the events from `index` on, at most `len`, have the same depth as the first of them, and that depth.
    #[inline]
    pub(super) fn same_depth(&self, index: usize, len: usize) -> (usize, u8) {
        // The reader has loaded a length that shows these events, so it sees what was stored before.
        if self.deep.load(Ordering::Relaxed) { self.run(index, len) } else { (len, 0) }
    }

    #[cold]
    fn run(&self, index: usize, len: usize) -> (usize, u8) {
        let mut depths = self.depths.iter().skip(index).take(len);
        let depth = depths.next().map_or(0, |depth| depth.load(Ordering::Relaxed));
        let same = depths.take_while(|other| other.load(Ordering::Relaxed) == depth).count();
        ((same + 1).min(len), depth)
    }

    fn clear(&mut self) {
        // Relaxed: nobody else holds it. And not `get_mut`, since loom does not see that the count of an `Arc` puts what others
        // did with it before this.
        self.sealed.store(false, Ordering::Relaxed);
        if self.deep.load(Ordering::Relaxed) {
            self.deep.store(false, Ordering::Relaxed);
            self.depths.iter().for_each(|depth| depth.store(0, Ordering::Relaxed));
        }
        // First: after a panic in the drop of an event, when the others are dropped too, nothing may be dropped again.
        let len = self.len.0.load(Ordering::Relaxed);
        self.len.0.store(0, Ordering::Relaxed);
        let events = ptr::slice_from_raw_parts_mut(self.slots.as_mut_ptr().cast::<T>(), len);
        // SAFETY: the first `len` slots hold events (invariant 2), `self` is borrowed mutably, so that nobody reads them, and
        // they are dropped once, since `len` is 0 from now on.
        unsafe { ptr::drop_in_place(events) };
    }
}

impl<T> Reader<T> {
    /// A reader that knows of no event yet.
    pub(super) fn new(segment: Arc<Segment<T>>) -> Self {
        Self { segment, known: 0 }
    }

    /// The events that this reader knows of.
    #[inline]
    pub(super) fn known(&self) -> &[T] {
        // SAFETY: `known` is 0 or was loaded in `look` from the segment that this reader has kept alive since; whoever moved
        // the reader to another thread moved it after that.
        unsafe { self.segment.first(self.known) }
    }

    /// Looks for more; returns all.
    #[inline]
    pub(super) fn look(&mut self) -> &[T] {
        self.known = self.segment.len.0.load(Ordering::Acquire);
        self.known()
    }

    pub(super) fn segment(&self) -> &Arc<Segment<T>> {
        &self.segment
    }

    /// Whether it knows of all events that the segment will ever hold.
    #[inline]
    pub(super) fn is_complete(&self) -> bool {
        self.known == self.segment.capacity() || self.is_sealed()
    }

    fn is_sealed(&self) -> bool {
        // Acquire: the length that is loaded after it is the last.
        self.segment.sealed.load(Ordering::Acquire)
            && self.segment.len.0.load(Ordering::Relaxed) == self.known
    }
}

impl<T> Drop for Segment<T> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<T> Writer<T> {
    /// The writer of a new segment for `capacity` events.
    pub(super) fn new(capacity: usize) -> Self {
        let slot = || UnsafeCell::new(MaybeUninit::uninit());
        Self {
            segment: Arc::new(Segment {
                len: Len(AtomicUsize::new(0)),
                slots: std::iter::repeat_with(slot).take(capacity).collect(),
                deep: AtomicBool::new(false),
                sealed: AtomicBool::new(false),
                depths: std::iter::repeat_with(|| AtomicU8::new(0)).take(capacity).collect(),
            }),
            written: 0,
        }
    }

    /// Drops the events of a segment that nobody else holds, and becomes its writer.
    pub(super) fn reuse(mut segment: Arc<Segment<T>>) -> Result<Self, Arc<Segment<T>>> {
        let Some(alone) = Arc::get_mut(&mut segment) else {
            return Err(segment);
        };
        alone.clear();
        Ok(Self { segment, written: 0 })
    }

    pub(super) fn segment(&self) -> &Arc<Segment<T>> {
        &self.segment
    }

    /// Writes events of this depth into the free slots until either end, and returns how many. Nobody sees them before
    /// [`publish`](Self::publish).
    #[inline]
    pub(super) fn fill(&mut self, depth: u8, events: &mut impl Iterator<Item = T>) -> usize {
        let before = self.written;
        while let Some(slot) = self.segment.slots.get(self.written) {
            let Some(event) = events.next() else {
                break;
            };
            if depth > 0 {
                self.deepen(depth);
            }
            // SAFETY: this is the only writer (invariant 1, and it is borrowed mutably), and `written` is not before `len`,
            // so that no reader looks at the slot (invariant 3). The slot holds no event that would have to be dropped.
            unsafe { slot.get().write(MaybeUninit::new(event)) };
            self.written += 1;
        }
        self.written - before
    }

    #[cold]
    fn deepen(&self, depth: u8) {
        self.segment.deep.store(true, Ordering::Relaxed);
        if let Some(slot) = self.segment.depths.get(self.written) {
            slot.store(depth, Ordering::Relaxed);
        }
    }

    /// Says that nothing more will be written.
    pub(super) fn seal(mut self) {
        self.publish();
        self.segment.sealed.store(true, Ordering::Release);
    }

    /// Lets the readers see what is written.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.segment.len.0.store(self.written, Ordering::Release);
    }
}

impl<T> Drop for Writer<T> {
    /// Publishes, so that what was written is dropped with the segment.
    fn drop(&mut self) {
        self.publish();
    }
}

/// A lock for one thread most of the time.
pub(super) struct Turns<T> {
    /// The thread that enters without the mutex, and its place among those that ever did; zero for nobody.
    owner: AtomicU64,
    /// Whether the thread of each place is in by its bias. It alone sets it.
    inside: [AtomicBool; PLACES],
    mutex: Mutex<Bias>,
    value: UnsafeCell<T>,
}

// SAFETY: the value is handed out to one thread at a time (invariant 5), which may move it, so that it must be `Send`.
unsafe impl<T: Send> Sync for Turns<T> {}

/// How the bias is given.
struct Bias {
    /// Who had the last turn.
    last: u64,
    /// How many turns it had in a row.
    row: u32,
    /// After how many in a row a thread gets the bias. Each time that it has to be taken back it doubles, so that threads
    /// that take turns in long rows pay for it ever more seldom.
    needed: u32,
    /// The threads that ever got it, each at its place; zero where the place is free.
    places: [u64; PLACES],
}

/// How many threads may get the bias of one lock, in its life. A thread needs a row that is twice as long with each that had
/// it before.
const PLACES: usize = 8;

impl Bias {
    /// What `owner` is for the thread that had the last turn, if there is a place for it.
    fn owner(&mut self) -> Option<u64> {
        let Self { last, places, .. } = self;
        let place = places.iter().position(|known| known == last || *known == 0)?;
        *places.get_mut(place)? = *last;
        Some(*last * PLACES as u64 + place as u64)
    }
}

/// After how many turns in a row a thread first gets the bias: enough to pay for taking it back. At once where interleavings
/// are explored, which cannot be long.
const ROW: u32 = if cfg!(tidings_loom) { 0 } else { 256 };

/// The lock, held.
pub(super) struct Turn<'a, T> {
    turns: &'a Turns<T>,
    entered: Entered<'a>,
    /// A mutex's guard is not `Send`, and neither is this one without it.
    _stays: PhantomData<*const ()>,
}

enum Entered<'a> {
    /// The thread has the bias; this is its flag.
    ByBias(&'a AtomicBool),
    ByMutex(MutexGuard<'a, Bias>),
}

impl<T> Turns<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            owner: AtomicU64::new(0),
            inside: std::array::from_fn(|_| AtomicBool::new(false)),
            mutex: Mutex::new(Bias { last: 0, row: 0, needed: ROW, places: [0; PLACES] }),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until nobody else is in, and enters.
    ///
    /// # Panics
    /// If this thread is in by its bias. (Without it, it waits for ever, as with any lock.)
    #[inline]
    pub(super) fn enter(&self) -> Turn<'_, T> {
        let me = thread_token();
        let owner = self.owner.load(Ordering::Relaxed);
        if owner / PLACES as u64 == me {
            let inside = self.inside(owner);
            assert!(
                !inside.load(Ordering::Relaxed),
                "an event that is dropped or compared must not publish into its own topic"
            );
            inside.store(true, Ordering::Relaxed);
            barrier::light();
            // Acquire: what this thread does inside comes after this look.
            if self.owner.load(Ordering::Acquire) == owner {
                return Turn { turns: self, entered: Entered::ByBias(inside), _stays: PhantomData };
            }
            inside.store(false, Ordering::Release);
        }
        self.enter_with_mutex(me)
    }

    #[cold]
    fn enter_with_mutex(&self, me: u64) -> Turn<'_, T> {
        let mut bias = self.mutex.lock();
        let owner = self.owner.load(Ordering::Relaxed);
        if owner != 0 {
            self.owner.store(0, Ordering::Relaxed);
            bias.needed = bias.needed.saturating_mul(2);
            barrier::heavy();
            // Acquire: what the thread did inside comes before what is done here.
            while self.inside(owner).load(Ordering::Acquire) {
                yield_now();
            }
        }
        if bias.last == me {
            bias.row = bias.row.saturating_add(1);
        } else {
            (bias.last, bias.row) = (me, 0);
        }
        Turn { turns: self, entered: Entered::ByMutex(bias), _stays: PhantomData }
    }

    /// Whether the thread that `owner` names is in.
    #[inline]
    fn inside(&self, owner: u64) -> &AtomicBool {
        #[expect(clippy::indexing_slicing, reason = "a remainder is smaller than what divides")]
        &self.inside[owner as usize % PLACES]
    }
}

impl<T> Drop for Turn<'_, T> {
    #[inline]
    fn drop(&mut self) {
        match &mut self.entered {
            Entered::ByBias(inside) => inside.store(false, Ordering::Release),
            Entered::ByMutex(bias) if bias.row >= bias.needed => match bias.owner() {
                Some(owner) => self.turns.owner.store(owner, Ordering::Relaxed),
                None => bias.needed = u32::MAX,
            },
            Entered::ByMutex(_) => {}
        }
    }
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this thread alone is in (invariant 5), as long as the guard lives.
        unsafe { &*self.turns.value.get() }
    }
}

impl<T> DerefMut for Turn<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this thread alone is in (invariant 5), as long as the guard lives, which is borrowed mutably.
        unsafe { &mut *self.turns.value.get() }
    }
}

impl<T> fmt::Debug for Turns<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Turn<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let biased = matches!(self.entered, Entered::ByBias(_));
        f.debug_struct("Turn").field("biased", &biased).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Segment<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("len", &self.len.0)
            .field("capacity", &self.capacity())
            .finish()
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("segment", &self.segment)
            .field("known", &self.known)
            .finish()
    }
}

impl<T> fmt::Debug for Writer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("segment", &self.segment)
            .field("written", &self.written)
            .finish()
    }
}

/// Small enough for Miri, which explores orders of threads and of memory:
/// `MIRIFLAGS=-Zmiri-many-seeds cargo +nightly miri test --lib segment`.
#[cfg(test)]
#[cfg(not(tidings_loom))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn readers_on_other_threads_see_whole_events_in_order_while_the_writer_writes() {
        const LAST: u64 = 16;
        let mut writer = Writer::<Box<u64>>::new(LAST as usize);
        thread::scope(|scope| {
            for _ in 0..2 {
                let mut reader = Reader::new(writer.segment().clone());
                scope.spawn(move || {
                    while !reader.is_complete() {
                        let before = reader.known().len();
                        let seen = reader.look();
                        assert!(seen.len() >= before);
                        let expected: Vec<_> = (1..=seen.len() as u64).collect();
                        assert!(seen.iter().map(|boxed| **boxed).eq(expected));
                        thread::yield_now();
                    }
                });
            }
            for batch in [1..=1, 2..=8, 9..=LAST] {
                writer.fill(0, &mut batch.map(Box::new));
                writer.publish();
            }
        });
    }

    #[test]
    fn each_event_is_dropped_once_read_or_not_and_published_or_not() {
        let event = Arc::new(());
        let mut writer = Writer::new(4);
        assert_eq!(writer.fill(0, &mut vec![event.clone(); 2].into_iter()), 2);
        writer.publish();
        assert_eq!(writer.fill(0, &mut vec![event.clone(); 9].into_iter()), 2);
        assert_eq!(writer.segment().published().len(), 2);
        let segment = writer.segment().clone();
        drop(writer);
        assert_eq!(Arc::strong_count(&event), 5);

        let held = segment.clone();
        let segment = Writer::reuse(segment).expect_err("it is held");
        drop(held);
        let mut writer = Writer::reuse(segment).expect("nobody holds it");
        assert_eq!(Arc::strong_count(&event), 1);
        assert!(writer.segment().published().is_empty());
        writer.fill(0, &mut std::iter::once(event.clone()));
        drop(writer);
        assert_eq!(Arc::strong_count(&event), 1);
    }

    #[test]
    fn a_drop_that_panics_leaves_nothing_behind_and_drops_nothing_twice() {
        struct Panics {
            _counted: Arc<()>,
            does: bool,
        }
        impl Drop for Panics {
            fn drop(&mut self) {
                assert!(!self.does, "as asked");
            }
        }
        let event = Arc::new(());
        let mut writer = Writer::new(3);
        writer.fill(0, &mut (0..3).map(|n| Panics { _counted: event.clone(), does: n == 1 }));
        let segment = writer.segment().clone();
        drop(writer);
        let panicked = thread::spawn(move || drop(Writer::reuse(segment))).join();
        assert!(panicked.is_err());
        assert_eq!(Arc::strong_count(&event), 1);
    }
}

/// Run with `RUSTFLAGS="--cfg tidings_loom" cargo test --release --lib bus`.
#[cfg(test)]
#[cfg(tidings_loom)]
mod explored {
    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::*;

    /// Threads take so many turns each; loom reports two that are in at once, and what one does not see of the other.
    fn turns_are_taken_one_at_a_time(turns_of_each: &'static [usize]) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let turns = Arc::new(Turns::new(UnsafeCell::new(0)));
            let take = |turns: &Turns<UnsafeCell<usize>>| {
                let turn = turns.enter();
                // SAFETY: loom looks whether anybody else is there, which is what this is for.
                turn.with_mut(|taken| unsafe { *taken += 1 });
            };
            let threads: Vec<_> = turns_of_each
                .iter()
                .map(|own| {
                    let turns = Arc::clone(&turns);
                    thread::spawn(move || (0..*own).for_each(|_| take(&turns)))
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
            let all = turns.enter();
            // SAFETY: nobody else is left.
            all.with(|taken| assert_eq!(unsafe { *taken }, turns_of_each.iter().sum::<usize>()));
        });
    }

    #[test]
    fn two_threads_that_take_the_bias_from_each_other_take_turns() {
        turns_are_taken_one_at_a_time(&[3, 2]);
    }

    #[test]
    fn three_threads_that_take_the_bias_from_each_other_take_turns() {
        turns_are_taken_one_at_a_time(&[2, 1, 1]);
    }
}
