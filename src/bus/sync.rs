//! The primitives of the protocol between publishers and readers: those of the standard library, or loom's, which explores every interleaving.
//!
//! The switch is a name of its own and not `loom`, since that one changes tokio as well.

#[cfg(not(tidings_loom))]
pub(super) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(tidings_loom))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

#[cfg(tidings_loom)]
pub(super) use self::explored::Mutex;
#[cfg(tidings_loom)]
pub(super) use loom::sync::MutexGuard;
#[cfg(tidings_loom)]
pub(super) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

#[cfg(tidings_loom)]
mod explored {
    /// loom's mutex with the signatures of parking_lot's.
    #[derive(Debug, Default)]
    pub(in crate::bus) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::bus) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(in crate::bus) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}
