//! A barrier of two unequal halves: one that costs nothing for who passes all the time, one that pays for both.
//!
//! Of two threads that each write something, pass their half, and then read what the other has written, at least one sees
//! the other's write. A fence on both sides does that, and costs the side that passes with every event more than all the
//! rest of its work. On Linux the rare side instead asks the kernel to let every thread of the process that runs pass a
//! fence (`membarrier(2)`, private expedited; a tenth of a microsecond to some microseconds); the frequent side then only
//! keeps the compiler from changing the order. The method is that of Dice, Huang and Yang, "Asymmetric Dekker
//! synchronization", 2001; folly's `AsymmetricThreadFence` and liburcu do the same.
//!
//! Where the kernel does not offer it, under Miri and under loom both halves are fences.

#[cfg(all(target_os = "linux", not(miri), not(tidings_loom)))]
pub(super) use self::asymmetric::{heavy, light, prepare};
#[cfg(not(all(target_os = "linux", not(miri), not(tidings_loom))))]
pub(super) use self::symmetric::{heavy, light, prepare};

#[cfg(all(target_os = "linux", not(miri), not(tidings_loom)))]
mod asymmetric {
    use std::sync::atomic::{AtomicU8, Ordering, compiler_fence, fence};
    use std::time::Duration;

    use rustix::thread::{MembarrierCommand, membarrier};

    const UNKNOWN: u8 = 0;
    const OFFERED: u8 = 1;
    const MISSING: u8 = 2;

    /// Ten thousand times what a processor takes to make a write visible.
    const GRACE: Duration = Duration::from_millis(1);

    /// Whether the kernel offers it. It changes once: both halves learn it before they rely on it.
    static KERNEL: AtomicU8 = AtomicU8::new(UNKNOWN);

    /// Finds out what the kernel offers; both halves are fences before.
    pub(in crate::bus) fn prepare() {
        if KERNEL.load(Ordering::Relaxed) == UNKNOWN {
            ask();
        }
    }

    /// The half of the side that passes often.
    #[inline]
    pub(in crate::bus) fn light() {
        if KERNEL.load(Ordering::Relaxed) == OFFERED {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// The half of the side that passes rarely.
    #[cold]
    pub(in crate::bus) fn heavy() {
        prepare();
        if KERNEL.load(Ordering::Relaxed) == OFFERED
            && membarrier(MembarrierCommand::PrivateExpedited).is_err()
        {
            // It was there before: the memory for it is short, or a sandbox has closed. Both halves are fences from here on.
            // Who has passed the light half without one gets the time that its writes need to arrive.
            KERNEL.store(MISSING, Ordering::SeqCst);
            std::thread::sleep(GRACE);
        }
        fence(Ordering::SeqCst);
    }

    /// Announces the process to the kernel, which may refuse: an old one, or a sandbox.
    #[cold]
    fn ask() {
        let announced = membarrier(MembarrierCommand::RegisterPrivateExpedited)
            .and_then(|()| membarrier(MembarrierCommand::PrivateExpedited));
        let known = if announced.is_ok() { OFFERED } else { MISSING };
        KERNEL.store(known, Ordering::Relaxed);
    }
}

#[cfg(not(all(target_os = "linux", not(miri), not(tidings_loom))))]
mod symmetric {
    use crate::bus::sync::{Ordering, fence};

    pub(in crate::bus) fn prepare() {}

    pub(in crate::bus) fn light() {
        fence(Ordering::SeqCst);
    }

    pub(in crate::bus) fn heavy() {
        fence(Ordering::SeqCst);
    }
}
