//! What becomes of an event that a consumer could not handle: how often it is tried again, and what happens when it fails
//! for good.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tracing::error;

use crate::actor::Panic;
use crate::event::DecodeError;

/// Whether it may help to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// It may: a network, a lock, a disk that is full.
    Transient,
    /// It does not: the event does not fit the code.
    Permanent,
}

impl ErrorClass {
    /// The class of an error by what stands in its chain of causes: transient if there is an input or output error that passes
    /// (time is over, a connection was refused, reset or aborted, the disk is full) or a database that is busy, full or out
    /// of memory; permanent otherwise.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if passes(error) {
                return Self::Transient;
            }
            cause = error.source();
        }
        Self::Permanent
    }
}

fn passes(error: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "sqlite")]
    if let Some(error) = error.downcast_ref::<rusqlite::Error>() {
        use rusqlite::ErrorCode::{
            DatabaseBusy, DatabaseLocked, DiskFull, FileLockingProtocolFailed, OutOfMemory,
            SystemIoFailure,
        };
        return matches!(
            error.sqlite_error_code(),
            Some(
                DatabaseBusy
                    | DatabaseLocked
                    | DiskFull
                    | FileLockingProtocolFailed
                    | OutOfMemory
                    | SystemIoFailure
            )
        );
    }
    error.downcast_ref::<io::Error>().is_some_and(|error| {
        use io::ErrorKind::{
            AddrNotAvailable, BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset,
            HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable, NotConnected,
            ResourceBusy, StorageFull, TimedOut, WouldBlock,
        };
        matches!(
            error.kind(),
            AddrNotAvailable
                | BrokenPipe
                | ConnectionAborted
                | ConnectionRefused
                | ConnectionReset
                | HostUnreachable
                | Interrupted
                | NetworkDown
                | NetworkUnreachable
                | NotConnected
                | ResourceBusy
                | StorageFull
                | TimedOut
                | WouldBlock
        )
    })
}

/// The longest pause that is kept to: an app seldom runs longer, and the sum of a moment and a pause has to be one.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How often an event is tried again after a transient error, and after which pauses.
///
/// The n-th pause is `first * 2^(n-1)`, at most `longest`, of which a random half to whole is waited ("equal jitter", Marc
/// Brooker, *Exponential Backoff And Jitter*, 2015), so that what failed together does not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often an event is tried in all, the first time included; 1 tries nothing again.
    pub attempts: u32,
    /// The pause after the first attempt.
    pub first: Duration,
    /// The longest pause; at most thirty days.
    pub longest: Duration,
}

impl Retry {
    /// One attempt.
    pub const NEVER: Self = Self { attempts: 1, first: Duration::ZERO, longest: Duration::ZERO };

    /// The pause after so many attempts have failed; none if it was tried often enough.
    pub fn pause(&self, failed: u32) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        let doubled = 2_u32.saturating_pow(failed.saturating_sub(1));
        let whole = self.first.saturating_mul(doubled).min(self.longest).min(LONGEST);
        Some(whole.mul_f64(rand::rng().random_range(0.5..=1.0)))
    }
}

impl Default for Retry {
    /// Eight attempts within about 10 to 20 seconds.
    fn default() -> Self {
        Self { attempts: 8, first: Duration::from_millis(100), longest: Duration::from_secs(10) }
    }
}

/// What a consumer does with an event that fails for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// It parks the event and, behind it, all later ones of the same key; every other key goes on.
    #[default]
    Park,
    /// It stops before the event: for consumers that need all events in one order.
    Stop,
}

/// What a reader of a category does with an event whose stored name the program does not know, or whose schema version is newer
/// than the one that it knows. Another program wrote it: mostly a newer one, whose deployment was taken back.
///
/// Consumers, aggregates and histories declare it. A [subscription](crate::Subscription) gets the events that the program knows, and
/// passes over all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownEvents {
    /// It is an error. A consumer handles what comes before the event, stops, and goes on when a program that knows it is
    /// started; an aggregate whose stream holds it cannot be loaded.
    #[default]
    Refuse,
    /// A consumer parks the events of its stream from there on, and goes on with all others. An aggregate refuses.
    Park,
    /// It is passed over and counted, in [`ConsumerStatus::ignored`](crate::ConsumerStatus::ignored) and
    /// [`ShardStatus::ignored`](crate::ShardStatus::ignored).
    ///
    /// A consumer that has passed it over does not come back to it, also when a later program knows it.
    Ignore,
}

/// What a consumer does with events that it cannot handle.
#[derive(Clone, Copy)]
pub struct FailurePolicy {
    /// How often they are tried again.
    pub retry: Retry,
    /// What happens when they fail for good.
    pub on_failure: OnFailure,
    /// How many keys may be parked; the consumer stops before it would park one more.
    pub max_parked_keys: usize,
    /// Which errors pass. One that it panics at does not.
    pub classify: fn(&(dyn Error + 'static)) -> ErrorClass,
    /// What happens with events of a name that the program does not know, in the categories whose events it handles.
    pub unknown: UnknownEvents,
}

impl FailurePolicy {
    /// For effects outside the store: as the default, but every error passes.
    pub fn for_effects() -> Self {
        Self { classify: |_| ErrorClass::Transient, ..Self::default() }
    }

    /// The class of an error; a permanent one if the classification panics, or if the program does not know the event.
    pub(crate) fn class_of(&self, error: &(dyn Error + 'static)) -> ErrorClass {
        if DecodeError::says_unknown(error) {
            return ErrorClass::Permanent;
        }
        Panic::catch(|| (self.classify)(error)).unwrap_or_else(|panic| {
            error!(panic = &*panic.message, "an error could not be classified");
            ErrorClass::Permanent
        })
    }
}

impl Default for FailurePolicy {
    /// [`Retry::default`], parks, up to 1,000 keys, errors by [`ErrorClass::of`], refuses unknown events.
    fn default() -> Self {
        Self {
            retry: Retry::default(),
            on_failure: OnFailure::default(),
            max_parked_keys: 1_000,
            classify: ErrorClass::of,
            unknown: UnknownEvents::default(),
        }
    }
}

impl fmt::Debug for FailurePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailurePolicy")
            .field("retry", &self.retry)
            .field("on_failure", &self.on_failure)
            .field("max_parked_keys", &self.max_parked_keys)
            .field("unknown", &self.unknown)
            .finish_non_exhaustive()
    }
}
