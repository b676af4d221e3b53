//! Where a reader stands: what others may know of it, and whether publishers wait for it.

use std::fmt;

use crossbeam_utils::CachePadded;

use crate::bus::subscribe::Overflow;
use crate::bus::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};

/// A reader as others see it.
///
/// The reader alone moves it, with a plain store to a line of its own; publishers look at that line only when they have no
/// room left that they know of.
#[derive(Debug)]
pub(in crate::bus) struct Standing {
    pub(in crate::bus) name: Box<str>,
    pub(in crate::bus) overflow: Overflow,
    /// The sequence before which it is done with everything.
    done: CachePadded<AtomicU64>,
    /// How many events it has missed.
    missed: AtomicU64,
    /// Whether it is over: it will not be given anything any more, and nobody waits for it.
    ended: AtomicBool,
    /// Into which topics it was seen to publish.
    publishes: Mutex<Vec<&'static str>>,
    /// How many members it has, if it is that of a group.
    members: Option<AtomicUsize>,
}

impl Standing {
    pub(in crate::bus) fn new(name: Box<str>, overflow: Overflow) -> Self {
        Self {
            name,
            overflow,
            done: CachePadded::new(AtomicU64::new(0)),
            missed: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            publishes: Mutex::new(Vec::new()),
            members: None,
        }
    }

    /// That of a group, which has no member yet and holds publishers.
    pub(in crate::bus) fn of_group(name: Box<str>) -> Self {
        Self { members: Some(AtomicUsize::new(0)), ..Self::new(name, Overflow::Block) }
    }

    pub(in crate::bus) fn members(&self) -> Option<usize> {
        self.members.as_ref().map(|members| members.load(Ordering::Relaxed))
    }

    pub(in crate::bus) fn count_members(&self, count: usize) {
        if let Some(members) = &self.members {
            members.store(count, Ordering::Relaxed);
        }
    }

    pub(in crate::bus) fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// Says that everything before `sequence` is done with. Release order: what the reader did comes before a publisher's
    /// use of the room.
    #[inline]
    pub(in crate::bus) fn move_to(&self, sequence: u64) {
        self.done.store(sequence, Ordering::Release);
    }

    /// Whether publishers wait for it when it is a capacity behind.
    pub(super) fn holds_publishers(&self) -> bool {
        self.overflow == Overflow::Block
    }

    /// Whether it reads in the log what it missed.
    pub(in crate::bus) fn goes_to_log(&self) -> bool {
        self.overflow == Overflow::FromLog
    }

    /// The sequence that publishers must not be a capacity past, if it holds them.
    pub(super) fn holds_before(&self) -> Option<u64> {
        (self.holds_publishers() && !self.is_ended()).then(|| self.done())
    }

    pub(in crate::bus) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    pub(super) fn miss(&self, events: u64) {
        // The reader alone writes it.
        self.missed.store(self.missed() + events, Ordering::Relaxed);
    }

    /// Notes that its handler has published into `topic`.
    pub(in crate::bus) fn publishes_into(&self, topic: &'static str) {
        let mut topics = self.publishes.lock();
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }

    pub(in crate::bus) fn published_into(&self) -> Vec<&'static str> {
        self.publishes.lock().clone()
    }

    #[inline]
    pub(in crate::bus) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// Wants to know which events are about to leave the window.
pub(in crate::bus) trait Overrun<T>: Send + Sync {
    /// Its reader begins with the event of this sequence. Called before the other.
    fn begin(&self, sequence: u64);

    /// `events` begin with `sequence` and are of this depth. A publisher calls it and waits.
    fn overrun(&self, sequence: u64, events: &[T], depth: u8);
}

impl<T> fmt::Debug for dyn Overrun<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Overrun")
    }
}
