//! What personal data is sealed with in tests: keys that follow from the subjects, the same in each run, so that what is written
//! can be compared with what was written before.

#[cfg(feature = "personal")]
use std::sync::LazyLock;

#[cfg(feature = "personal")]
use crate::personal::{self, Keys};

#[cfg(feature = "personal")]
static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::for_tests(uuid::Uuid::nil()));

/// Lets `work` write events.
pub(super) fn writing<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(feature = "personal")]
    return personal::recording(&KEYS, work);
    #[cfg(not(feature = "personal"))]
    work()
}

/// Lets `work` read events.
pub(super) fn reading<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(feature = "personal")]
    return personal::with_keys(&KEYS, work);
    #[cfg(not(feature = "personal"))]
    work()
}
