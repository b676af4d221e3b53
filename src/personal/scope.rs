//! Where values can be sealed and opened: around the encoding and decoding that the framework does, and nowhere else.
//!
//! What serialises a value knows nothing of an app. So a thread that writes or reads events says beforehand whose keys are
//! meant; that costs a few nanoseconds, and nothing more as long as no personal value is met.

use std::cell::Cell;

use uuid::Uuid;

use super::SealError;
use super::keys::{Keys, Vault};

/// What is written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Events on their way into the log: nothing is written for a subject that was forgotten.
    Record,
    /// What is kept beside the log, or read: what was forgotten stays so.
    Keep,
}

#[derive(Debug, Clone, Copy)]
struct Scope {
    keys: Uuid,
    purpose: Purpose,
}

thread_local! {
    static SCOPE: Cell<Option<Scope>> = const { Cell::new(None) };
    /// Why a personal value could not be written or read. The formats keep the text of an error only.
    static FAILURE: Cell<Option<Box<SealError>>> = const { Cell::new(None) };
}

/// Puts back the scope that was there before, after a panic too.
struct Before(Option<Scope>);

impl Drop for Before {
    fn drop(&mut self) {
        SCOPE.set(self.0);
    }
}

/// Lets personal values be sealed and opened with `keys` while `work` runs on this thread: for what is read, and for what is
/// kept beside the log, such as states. What is forgotten is written as that.
pub(crate) fn with_keys<R>(keys: &Keys, work: impl FnOnce() -> R) -> R {
    within(keys, Purpose::Keep, work)
}

/// The same for events on their way into the log: what belongs to a forgotten subject is refused.
pub(crate) fn recording<R>(keys: &Keys, work: impl FnOnce() -> R) -> R {
    within(keys, Purpose::Record, work)
}

fn within<R>(keys: &Keys, purpose: Purpose, work: impl FnOnce() -> R) -> R {
    FAILURE.set(None);
    let _before = Before(SCOPE.replace(Some(Scope { keys: keys.id(), purpose })));
    work()
}

/// The keys of this thread's scope, and what for; none outside of one.
pub(super) fn current() -> Option<(std::sync::Arc<Vault>, Purpose)> {
    let Scope { keys, purpose } = SCOPE.get()?;
    Some((Vault::find(keys)?, purpose))
}

/// Takes note of why a personal value could not be written or read.
pub(super) fn failed(error: SealError) {
    FAILURE.set(Some(Box::new(error)));
}

/// Why, if that is what has failed on this thread.
pub(crate) fn take_failure() -> Option<Box<SealError>> {
    FAILURE.take()
}
