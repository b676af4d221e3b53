//! Trouble by a seed: handlers that fail, crashes, other orders.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::faults::{Fault, Faults, Operation};
use crate::event::Header;
use crate::stream::Position;

/// Trouble by a seed, for the handlers and the fakes of a test to ask for: the same seed makes the same trouble.
///
/// What happens to an event depends on the seed, the consumer's name and the event's position alone, not on the time at which it
/// is asked; so threads may take turns as they like. What [`below`](Self::below) and what stands on it draws comes from one
/// sequence for each seed: draw in one task. All clones are the same trouble.
///
/// Nothing happens until it is given a share, in percent of all events; one event has one kind of trouble at most, for one to four
/// attempts. [`mend`](Self::mend) ends it all.
///
/// # What there is for which trouble
/// - A handler fails, panics, or takes long: [`at`](Self::at).
/// - A commit fails, or the process crashes before or after one: [`strike`](Self::strike), or [`Faults`] by hand.
/// - An event is delivered twice: a crash after its handler and before the checkpoint, which is what most crashes are.
/// - Events come late: [`Faults::hold`].
/// - Events of different keys come in another order: [`interleave`](Self::interleave).
///
/// # Examples
/// ```
/// use tidings::testing::Chaos;
/// use tidings::{ErrorClass, Header, Position, StreamId, Timestamp};
///
/// struct FakeMail { chaos: Chaos }
///
/// impl FakeMail {
///     fn send(&self, header: &Header) -> Result<(), Box<dyn std::error::Error>> {
///         self.chaos.at("mailer", header)?;
///         Ok(())
///     }
/// }
///
/// let chaos = Chaos::seeded(7).failing(100);
/// let mail = FakeMail { chaos: chaos.clone() };
/// let stream = StreamId::new("order", "o-1")?;
/// let header = Header::new(stream, "order.placed", 1, Timestamp::from_micros(0));
/// let error = mail.send(&header).expect_err("it fails for each event");
/// assert_eq!(ErrorClass::of(&*error), ErrorClass::Transient);
/// chaos.mend();
/// assert!(mail.send(&header).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Chaos {
    seed: u64,
    failing: u32,
    refusing: u32,
    panicking: u32,
    slow: (u32, Duration),
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    mended: AtomicBool,
    drawn: Mutex<u64>,
    /// How often an event has met its trouble at a consumer.
    met: Mutex<HashMap<(u64, Position), u64>>,
}

/// How many attempts a trouble lasts at most.
const ATTEMPTS: u64 = 4;

/// What a handler fails with by order of a [`Chaos`].
#[derive(Debug, thiserror::Error)]
#[error("{consumer} was told to fail at position {position}")]
pub struct ChaosError {
    consumer: String,
    position: Position,
    /// What makes it pass: [`ErrorClass::of`](crate::ErrorClass::of) finds it here.
    source: Option<io::Error>,
}

impl Chaos {
    /// No trouble yet, drawn from this seed.
    pub fn seeded(seed: u64) -> Self {
        Self {
            seed,
            failing: 0,
            refusing: 0,
            panicking: 0,
            slow: (0, Duration::ZERO),
            shared: Arc::new(Shared {
                mended: AtomicBool::new(false),
                drawn: Mutex::new(mix(seed)),
                met: Mutex::default(),
            }),
        }
    }

    /// At `percent` of the events [`at`](Self::at) fails with an error that passes.
    pub fn failing(mut self, percent: u32) -> Self {
        self.failing = percent;
        self
    }

    /// At `percent` of the events [`at`](Self::at) fails with an error that does not pass by itself: their key is parked.
    pub fn refusing(mut self, percent: u32) -> Self {
        self.refusing = percent;
        self
    }

    /// At `percent` of the events [`at`](Self::at) panics.
    pub fn panicking(mut self, percent: u32) -> Self {
        self.panicking = percent;
        self
    }

    /// At `percent` of the events [`at`](Self::at) blocks its thread for `pause`, as a slow disk or a long computation does.
    pub fn slow(mut self, percent: u32, pause: Duration) -> Self {
        self.slow = (percent, pause);
        self
    }

    /// To be asked by a handler, or by what it calls, for each attempt: does what the seed has for this event at this consumer.
    ///
    /// # Errors
    /// [`ChaosError`] if the seed says so.
    ///
    /// # Panics
    /// If the seed says so.
    pub fn at(&self, consumer: &str, header: &Header) -> Result<(), ChaosError> {
        if self.shared.mended.load(Ordering::Relaxed) {
            return Ok(());
        }
        let name = consumer.bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
        let position = header.position;
        let fate = mix(self.seed ^ mix(name ^ mix(position.as_u64())));
        let (place, lasts) = ((fate % 100) as u32, 1 + mix(fate) % ATTEMPTS);
        let mut shares = 0;
        let mut falls = |share: u32| {
            let before = shares;
            shares += share;
            (before..shares).contains(&place)
        };
        let (slow, failing) = (falls(self.slow.0), falls(self.failing));
        let (refusing, panicking) = (falls(self.refusing), falls(self.panicking));
        if !(slow || failing || refusing || panicking) {
            return Ok(());
        }
        {
            let mut met = self.shared.met.lock();
            let met = met.entry((name, position)).or_default();
            if *met >= lasts {
                return Ok(());
            }
            *met += 1;
        }
        if slow {
            std::thread::sleep(self.slow.1);
            return Ok(());
        }
        #[expect(clippy::panic, reason = "it was asked to, and documented")]
        if panicking {
            panic!("{consumer} was told to panic at position {position}");
        }
        let source = failing.then(|| io::ErrorKind::TimedOut.into());
        Err(ChaosError { consumer: consumer.to_owned(), position, source })
    }

    /// Ends all trouble at handlers.
    pub fn mend(&self) {
        self.shared.mended.store(true, Ordering::Relaxed);
    }

    /// The next number of the seed's sequence, below `bound`; zero if that is zero.
    pub fn below(&self, bound: u64) -> u64 {
        let mut drawn = self.shared.drawn.lock();
        *drawn = drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(*drawn).checked_rem(bound).unwrap_or_default()
    }

    /// Lets one of the next `commits` commits of a store fail or crash the process, before or after it was written, and says how.
    pub fn strike(&self, faults: &Faults, commits: u64) -> Fault {
        const KINDS: [Fault; 4] =
            [Fault::Failed, Fault::FailedAfterwards, Fault::Crash, Fault::CrashAfterwards];
        let kind = self.below(KINDS.len() as u64);
        let fault = KINDS.into_iter().nth(kind as usize).unwrap_or(Fault::Failed);
        faults.fail(Operation::Commit, 1 + self.below(commits), fault);
        fault
    }

    /// Brings what stands under different keys into one order, drawn from the seed; what stands under one key stays in order.
    pub fn interleave<T>(&self, keys: impl IntoIterator<Item = Vec<T>>) -> Vec<T> {
        let mut keys: Vec<_> = keys.into_iter().map(Vec::into_iter).collect();
        let mut ordered = Vec::new();
        loop {
            keys.retain(|left| left.len() > 0);
            let left: u64 = keys.iter().map(|left| left.len() as u64).sum();
            if left == 0 {
                return ordered;
            }
            // By how much is left under each, so that every order is as likely as the others.
            let mut turn = self.below(left);
            for key in &mut keys {
                match turn.checked_sub(key.len() as u64) {
                    Some(rest) => turn = rest,
                    None => {
                        ordered.extend(key.next());
                        break;
                    }
                }
            }
        }
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, *Fast Splittable Pseudorandom Number Generators*, 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
