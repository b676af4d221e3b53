//! How often a level reader looks whether there is something new, and when it sleeps.
//!
//! Each look takes a line from the publisher's core, and the publisher's next event has to bring it back: some hundred
//! nanoseconds for both, where an event costs ten. So a reader of a dense stream leaves the ring alone for twice as long before
//! the next look, until it finds enough at one; that of a sparse stream, half as long. A dense stream so comes in batches, and
//! a sparse event is seen at once. Measured, four readers then got 120 instead of 40 million events a second, one by one.
//!
//! It goes by the clock and not by the number of polls, so that one who polls seldom never waits.

use std::time::{Duration, Instant};

/// For how long a level reader may leave the ring alone, at least if at all, and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_nanos(60), Duration::from_micros(16));

/// The longest time between two looks where nothing came.
const GLANCE: Duration = Duration::from_micros(4);

/// A stream whose events come further apart does not gain from patience.
const DENSE: Duration = Duration::from_nanos(250);

/// As many events at one look are enough: what a look costs is then a small part of what the events cost.
const ENOUGH: u64 = 512;

/// How long a level reader has its task polled again before it sleeps: briefly, or, where the last event came soon after it
/// had gone to sleep, for about as long as it takes to wake a thread. Without either a reader that is faster than its
/// publisher sleeps after every few events.
const LINGER: (Duration, Duration) = (Duration::from_nanos(500), Duration::from_micros(15));

/// How soon is soon: about what it takes to wake a thread and to be woken by it, so that two that answer each other stay
/// awake, and wait a microsecond instead of fifty.
const SOON: Duration = Duration::from_micros(60);

/// The pace of one reader.
#[derive(Debug)]
pub(super) struct Pace {
    /// For how long the ring is left alone.
    patience: Duration,
    /// Until when it is, now.
    until: Option<Instant>,
    level: Level,
    /// The sequence at which it last became level, and when.
    last: (u64, Option<Instant>),
    /// For how long it lingers.
    linger: Duration,
    /// Since when it sleeps.
    asleep: Option<Instant>,
}

/// Whether a reader is level, and since when as far as anybody asked.
#[derive(Debug, Clone, Copy)]
enum Level {
    No,
    JustNow,
    Since(Instant),
}

impl Pace {
    pub(super) fn new(sequence: u64) -> Self {
        Self {
            patience: Duration::ZERO,
            until: None,
            level: Level::No,
            last: (sequence, None),
            linger: LINGER.0,
            asleep: None,
        }
    }

    /// Whether this poll is to pass without a look.
    #[inline]
    pub(super) fn waits(&mut self) -> bool {
        let waits = self.until.is_some_and(|until| Instant::now() < until);
        if !waits {
            self.until = None;
        }
        waits
    }

    /// The next poll looks.
    pub(super) fn look(&mut self) {
        self.until = None;
    }

    /// There was something new.
    #[inline]
    pub(super) fn found(&mut self) {
        self.level = Level::No;
        if let Some(asleep) = self.asleep.take() {
            self.linger = if asleep.elapsed() < SOON { LINGER.1 } else { LINGER.0 };
        }
    }

    /// There was nothing new at `sequence`. False once it is time to sleep.
    pub(super) fn lingers(&mut self, sequence: u64) -> bool {
        // Of no interest where interleavings are explored: each would be explored again.
        if cfg!(tidings_loom) {
            return false;
        }
        match self.level {
            Level::No => {
                self.level = Level::JustNow;
                self.adapt(sequence);
                true
            }
            Level::JustNow => {
                self.level = Level::Since(Instant::now());
                true
            }
            Level::Since(level) => {
                let now = Instant::now();
                if now - level < self.linger {
                    self.until = Some(now + (now - level).clamp(PATIENCE.0, GLANCE));
                    return true;
                }
                self.asleep.get_or_insert(now);
                false
            }
        }
    }

    /// Takes note of how many events came since the reader was level the last time.
    fn adapt(&mut self, sequence: u64) {
        let (before, since) = self.last;
        let events = sequence.saturating_sub(before);
        if events <= 1 {
            // Sparse, without a look at the clock.
            self.patience /= 2;
            self.last = (sequence, None);
            return;
        }
        let now = Instant::now();
        self.last = (sequence, Some(now));
        let took = since.map_or(Duration::MAX, |since| now - since);
        if DENSE.saturating_mul(u32::try_from(events).unwrap_or(u32::MAX)) < took {
            self.patience /= 2;
        } else if events < ENOUGH {
            self.patience = (self.patience * 2).clamp(PATIENCE.0, PATIENCE.1);
        }
        if self.patience >= PATIENCE.0 {
            self.until = Some(now + self.patience);
        }
    }
}
