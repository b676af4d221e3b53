//! The primitives of the protocols between publishers and readers: those of the standard library and parking_lot, or loom's,
//! which explores every interleaving.
//!
//! The switch is a name of its own and not `loom`, since that one changes tokio as well.

#[cfg(tidings_loom)]
pub(super) use self::explored::*;
#[cfg(not(tidings_loom))]
pub(super) use self::real::*;

#[cfg(not(tidings_loom))]
mod real {
    use std::cell::Cell;

    pub(in crate::bus) use parking_lot::{Mutex, MutexGuard};
    #[cfg(any(miri, not(target_os = "linux")))]
    pub(in crate::bus) use std::sync::atomic::fence;
    pub(in crate::bus) use std::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering,
    };
    pub(in crate::bus) use std::thread::yield_now;

    thread_local! {
        static TOKEN: Cell<u64> = const { Cell::new(0) };
    }

    /// A number of this thread that no other thread ever has; never zero.
    #[inline]
    pub(in crate::bus) fn thread_token() -> u64 {
        match TOKEN.get() {
            0 => new_token(),
            token => token,
        }
    }

    #[cold]
    fn new_token() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let token = NEXT.fetch_add(1, Ordering::Relaxed);
        TOKEN.set(token);
        token
    }
}

#[cfg(tidings_loom)]
mod explored {
    use std::cell::Cell;

    pub(in crate::bus) use loom::sync::MutexGuard;
    pub(in crate::bus) use loom::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(in crate::bus) use loom::thread::yield_now;

    loom::lazy_static! {
        static ref NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    }

    loom::thread_local! {
        static TOKEN: Cell<u64> = Cell::new(0);
    }

    /// A number of this thread that no other thread of the model has; never zero.
    pub(in crate::bus) fn thread_token() -> u64 {
        TOKEN.with(|token| {
            if token.get() == 0 {
                token.set(NEXT.fetch_add(1, Ordering::Relaxed));
            }
            token.get()
        })
    }

    /// loom's mutex with the signatures of parking_lot's.
    #[derive(Debug, Default)]
    pub(in crate::bus) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::bus) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(in crate::bus) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}
