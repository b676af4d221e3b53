//! What every case shares: the event, the check, the gate, the meter and the allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::peer::{Handler, Publish};

/// How many events a channel, a mailbox, a ring or the gate's window holds; the same for every peer.
pub(crate) const CAPACITY: usize = 4_096;

/// How often a subscriber tells the gate how far it is. Each time costs both sides a cache line.
const ACK_EVERY: u64 = 64;

/// Longer than the slowest run takes; a run that takes longer has lost something.
const STUCK: Duration = Duration::from_secs(120);

/// What is published: 40 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Event {
    /// The lane: which publisher sent it, or which side of a diamond it took.
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// In the latency workload, when the event was to be sent, in nanoseconds after the begin.
    pub(crate) cents: u64,
    pub(crate) fee: u64,
    /// Counts from one in each lane.
    pub(crate) number: u64,
}

impl Event {
    #[inline]
    pub(crate) fn nth(lane: u64, number: u64) -> Self {
        Self { from: lane, to: number & 3, cents: number, fee: 1, number }
    }
}

/// What a subscriber does with each event of a lane, and how it knows that it was all.
#[derive(Clone, Copy, Default)]
pub(crate) struct Check {
    seen: u64,
    sum: u64,
}

impl Check {
    /// # Panics
    /// If the event is not the next one of its lane.
    #[inline]
    pub(crate) fn see(&mut self, event: &Event) {
        assert_eq!(event.number, self.seen + 1, "out of order");
        self.seen = event.number;
        self.sum += event.cents + event.fee + event.from + event.to;
    }

    /// # Panics
    /// If an event of `lane` was lost or seen twice.
    pub(crate) fn verify(&self, lane: u64, events: u64) {
        let expected: u64 = (1..=events).map(|n| n + 1 + lane + (n & 3)).sum();
        assert_eq!((self.seen, self.sum), (events, expected), "lost or repeated");
    }
}

/// How far a subscriber is; in a cache line pair of its own.
#[repr(align(128))]
#[derive(Default)]
pub(crate) struct Ack(AtomicU64);

/// A subscriber at the end of the way: it checks each event of each of its `LANES` and says when it has all.
pub(crate) struct Sink<const LANES: usize> {
    events: u64,
    checks: [Check; LANES],
    acks: [Arc<Ack>; LANES],
    unfinished: usize,
    done: Sender<()>,
}

impl<const LANES: usize> Sink<LANES> {
    /// A sink for `events` of each lane.
    pub(crate) fn new(events: u64, done: Sender<()>) -> Self {
        let acks = std::array::from_fn(|_| Arc::default());
        Self { events, checks: [Check::default(); LANES], acks, unfinished: LANES, done }
    }

    pub(crate) fn acks(&self) -> [Arc<Ack>; LANES] {
        self.acks.clone()
    }

    #[inline]
    pub(crate) fn see(&mut self, event: &Event) -> ControlFlow<()> {
        let lane = event.from as usize % LANES;
        let check = &mut self.checks[lane];
        check.see(event);
        if check.seen.is_multiple_of(ACK_EVERY) {
            self.acks[lane].0.store(check.seen, Ordering::Release);
        }
        if check.seen < self.events {
            return ControlFlow::Continue(());
        }
        self.finish(lane)
    }

    #[cold]
    fn finish(&mut self, lane: usize) -> ControlFlow<()> {
        self.checks[lane].verify(lane as u64, self.events);
        self.acks[lane].0.store(self.events, Ordering::Release);
        self.unfinished -= 1;
        if self.unfinished > 0 {
            return ControlFlow::Continue(());
        }
        self.done.send(()).expect("the run waits");
        ControlFlow::Break(())
    }

    pub(crate) fn handler(mut self) -> impl Handler {
        move |event: &Event| self.see(event)
    }
}

/// Holds a publisher back when the slowest subscriber is a window behind.
pub(crate) struct Gate {
    acks: Vec<Arc<Ack>>,
    window: u64,
    open_until: u64,
}

impl Gate {
    /// A gate for the peers that would lose events or grow without bound.
    pub(crate) fn new(acks: impl IntoIterator<Item = Arc<Ack>>, window: usize) -> Self {
        let window = window as u64;
        Self { acks: acks.into_iter().collect(), window, open_until: window }
    }

    /// A gate that never closes, for the peers whose publishers wait by themselves.
    pub(crate) fn always_open() -> Self {
        Self { acks: Vec::new(), window: 0, open_until: u64::MAX }
    }

    /// Waits until the event of this number may be published.
    ///
    /// Once the window is full, half of it must be free again: no thread switch for each event.
    #[inline]
    pub(crate) fn pass(&mut self, number: u64) {
        if number <= self.open_until {
            return;
        }
        let mut pause = Pause::default();
        while number + self.window / 2 > self.open_until {
            pause.wait();
            let acks = self.acks.iter().map(|ack| ack.0.load(Ordering::Acquire));
            self.open_until = acks.min().unwrap_or(0) + self.window;
        }
    }
}

/// Tries until it succeeds, for peers whose publisher does not wait by itself.
#[inline]
pub(crate) fn retry<T>(mut attempt: impl FnMut() -> Result<(), T>) {
    let mut pause = Pause::default();
    while attempt().is_err() {
        pause.wait();
    }
}

/// Waits for something that comes soon: spins for some microseconds, then sleeps for as short as the system can.
///
/// It never yields: since Linux 6.18 each yield puts a thread further behind the others that want its core, and one that has
/// waited so for a while gets no time for seconds.
#[derive(Default)]
pub(crate) struct Pause(u32);

impl Pause {
    const SPINS: u32 = 100;

    /// Some 60 µs, in which a subscriber works off a part of what is there.
    const NAP: Duration = Duration::from_micros(1);

    pub(crate) fn wait(&mut self) {
        if self.0 < Self::SPINS {
            self.0 += 1;
            hint::spin_loop();
        } else {
            thread::sleep(Self::NAP);
        }
    }
}

/// Publishes `events` of a lane one by one; the first lane marks the half.
#[inline]
pub(crate) fn publish_all(publisher: &mut impl Publish, gate: &mut Gate, lane: u64, events: u64) {
    for number in 1..=events {
        if lane == 0 && number == events / 2 {
            Meter::half();
        }
        gate.pass(number);
        publisher.publish(Event::nth(lane, number));
    }
}

/// Waits for `senders` signals and gives the last.
///
/// # Panics
/// If they do not come.
pub(crate) fn wait<T>(signal: &Receiver<T>, senders: usize) -> T {
    for _ in 1..senders {
        signal.recv_timeout(STUCK).expect("a subscriber stopped short");
    }
    signal.recv_timeout(STUCK).expect("a subscriber stopped short")
}

/// What a run took.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) elapsed: Duration,
    /// Allocations of the whole process in the second half, when everything is warm; none unless they are counted.
    pub(crate) allocations: u64,
    pub(crate) bytes: u64,
}

/// Measures a run from its creation to its end. There is one at a time.
pub(crate) struct Meter {
    begin: Instant,
}

/// What was counted when everything was warm.
static WARM_ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static WARM_BYTES: AtomicU64 = AtomicU64::new(0);

impl Meter {
    pub(crate) fn start() -> Self {
        Self::half();
        Self { begin: Instant::now() }
    }

    /// Half of the events are published: allocations count from here.
    #[cold]
    pub(crate) fn half() {
        WARM_ALLOCATIONS.store(ALLOCATIONS.load(Ordering::Relaxed), Ordering::Relaxed);
        WARM_BYTES.store(BYTES.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(crate) fn end(self) -> Run {
        let since = |now: &AtomicU64, warm: &AtomicU64| {
            now.load(Ordering::Relaxed) - warm.load(Ordering::Relaxed)
        };
        Run {
            elapsed: self.begin.elapsed(),
            allocations: since(&ALLOCATIONS, &WARM_ALLOCATIONS),
            bytes: since(&BYTES, &WARM_BYTES),
        }
    }
}

/// The median; `NaN` of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Calls `f` while allocations are counted.
pub(crate) fn counting<T>(f: impl FnOnce() -> T) -> T {
    COUNTING.store(true, Ordering::Relaxed);
    let value = f();
    COUNTING.store(false, Ordering::Relaxed);
    value
}

/// The system's allocator, which counts while asked to; a load otherwise.
struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[inline]
fn count(bytes: usize) {
    if COUNTING.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "an allocator cannot be written otherwise")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}
