//! Who sleeps, and how each sleeper is woken once.
//!
//! Two sides use it in both directions: readers sleep until there is an event, publishers until there is room.
//!
//! ```text
//!  sleeper                                  ringer
//!  1  put my waker down, idle += 1          a  change what the sleeper waits for (Release)
//!  2  barrier (the heavy half)              b  barrier (the light half)
//!  3  look at what I wait for (Acquire)     c  idle == 0?  then nobody is to be woken
//!       it came: take the waker back           else: take all wakers, idle = 0, wake them
//!       not yet: sleep
//! ```
//!
//! # Why no wake-up is lost
//! The [barriers](super::barrier) of 2 and b stand in one order. If b comes first, then 3 sees what a has changed, and the
//! sleeper does not sleep. If 2 does, then c sees the count of 1, and the waker is found under the lock. Who is woken for
//! nothing looks, finds nothing, and begins at 1 again.
//!
//! # Why it is cheap
//! One who rings while everybody is awake pays one load of a line that only sleeping writes to. With a fence in its place,
//! publishing an event took twice as long. Once woken, a sleeper is not woken again before it went back to sleep: its waker
//! is gone.

use std::task::{Context, Poll, Waker};

use crossbeam_utils::CachePadded;

use super::barrier;
use super::sync::{AtomicUsize, Mutex, Ordering};
use crate::actor::Panic;

/// The sleepers of one side.
#[derive(Debug, Default)]
pub(super) struct Doorbell {
    /// How many seats hold a waker. Changed under the lock of `seats` only.
    idle: CachePadded<AtomicUsize>,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    /// A seat keeps its index as long as it is taken.
    taken: Vec<Seat>,
    free: Vec<usize>,
    /// Room to collect wakers in, so that no ring allocates; taken and brought back by who rings.
    wakers: Vec<Waker>,
}

#[derive(Debug)]
enum Seat {
    Free,
    Awake,
    Asleep(Waker),
}

/// The place of one sleeper at a [`Doorbell`]; give it back with [`Doorbell::leave`].
#[derive(Debug)]
pub(super) struct SeatNumber(usize);

impl Doorbell {
    /// Takes a seat for one that is awake.
    pub(super) fn join(&self) -> SeatNumber {
        let mut seats = self.seats.lock();
        let seats = &mut *seats;
        if let Some(index) = seats.free.pop()
            && let Some(seat) = seats.taken.get_mut(index)
        {
            *seat = Seat::Awake;
            return SeatNumber(index);
        }
        seats.taken.push(Seat::Awake);
        SeatNumber(seats.taken.len() - 1)
    }

    /// Gives the seat back.
    pub(super) fn leave(&self, seat: &SeatNumber) {
        let left = {
            let mut seats = self.seats.lock();
            let left = self.put(&mut seats, seat, Seat::Free);
            seats.free.push(seat.0);
            left
        };
        // Outside the lock: dropping a waker may run any code, such as the drop of another reader.
        drop(left);
    }

    /// How many seats are taken.
    pub(super) fn readers(&self) -> usize {
        let seats = self.seats.lock();
        seats.taken.len() - seats.free.len()
    }

    /// How many readers sleep.
    pub(super) fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }

    /// Sends the one on `seat` to sleep unless `ready` says that it need not.
    ///
    /// After `Pending` the next [`ring`](Self::ring) wakes the task.
    pub(super) fn sleep(
        &self,
        seat: &SeatNumber,
        cx: &Context<'_>,
        ready: impl FnOnce() -> bool,
    ) -> Poll<()> {
        let asleep = Seat::Asleep(cx.waker().clone());
        let before = self.put(&mut self.seats.lock(), seat, asleep);
        drop(before);
        barrier::heavy();
        if !ready() {
            return Poll::Pending;
        }
        let taken_back = self.put(&mut self.seats.lock(), seat, Seat::Awake);
        drop(taken_back);
        Poll::Ready(())
    }

    /// Wakes everybody who sleeps. Call it after the change that they wait for.
    #[inline]
    pub(super) fn ring(&self) {
        barrier::light();
        if self.idle.load(Ordering::Relaxed) != 0 {
            self.wake_all();
        }
    }

    #[cold]
    fn wake_all(&self) {
        let mut wakers = {
            let mut seats = self.seats.lock();
            let mut wakers = std::mem::take(&mut seats.wakers);
            for seat in &mut seats.taken {
                if matches!(seat, Seat::Asleep(_))
                    && let Seat::Asleep(waker) = std::mem::replace(seat, Seat::Awake)
                {
                    wakers.push(waker);
                }
            }
            self.idle.store(0, Ordering::Relaxed);
            wakers
        };
        // Outside the lock: a waker may run any code, such as the drop of a task with its reader.
        // One that panics keeps no other from being woken.
        for waker in wakers.drain(..) {
            if let Err(panic) = Panic::catch(|| waker.wake()) {
                tracing::error!(panic = &*panic.message, "waking a task panicked");
            }
        }
        let mut seats = self.seats.lock();
        if seats.wakers.capacity() < wakers.capacity() {
            seats.wakers = wakers;
        }
    }

    /// Puts `state` on the seat and keeps count; returns what was there.
    fn put(&self, seats: &mut Seats, seat: &SeatNumber, state: Seat) -> Option<Seat> {
        let place = seats.taken.get_mut(seat.0)?;
        let sleeps = usize::from(matches!(state, Seat::Asleep(_)));
        let before = std::mem::replace(place, state);
        let slept = usize::from(matches!(before, Seat::Asleep(_)));
        if sleeps != slept {
            let idle = self.idle.load(Ordering::Relaxed) + sleeps - slept;
            self.idle.store(idle, Ordering::Relaxed);
        }
        Some(before)
    }
}

#[cfg(test)]
#[cfg(not(tidings_loom))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    struct Rung(AtomicUsize);

    impl Wake for Rung {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_sleeper_is_woken_once_and_not_again_before_it_sleeps_again() {
        let bell = Doorbell::default();
        let rung = Arc::new(Rung(AtomicUsize::new(0)));
        let waker = Waker::from(rung.clone());
        let cx = Context::from_waker(&waker);
        let seat = bell.join();

        assert!(bell.sleep(&seat, &cx, || false).is_pending());
        assert!(bell.sleep(&seat, &cx, || false).is_pending());
        assert_eq!(bell.idle(), 1);
        bell.ring();
        bell.ring();
        assert_eq!((rung.0.load(Ordering::Relaxed), bell.idle()), (1, 0));

        assert!(bell.sleep(&seat, &cx, || true).is_ready());
        bell.ring();
        assert_eq!((rung.0.load(Ordering::Relaxed), bell.idle()), (1, 0));
    }

    #[test]
    fn a_reader_that_leaves_asleep_is_neither_counted_nor_woken_and_its_seat_is_taken_again() {
        let bell = Doorbell::default();
        let rung = Arc::new(Rung(AtomicUsize::new(0)));
        let waker = Waker::from(rung.clone());
        let cx = Context::from_waker(&waker);
        let (first, second) = (bell.join(), bell.join());
        assert!(bell.sleep(&first, &cx, || false).is_pending());
        bell.leave(&first);
        assert_eq!((bell.readers(), bell.idle()), (1, 0));
        bell.ring();
        assert_eq!(rung.0.load(Ordering::Relaxed), 0);
        let third = bell.join();
        assert_eq!((bell.readers(), third.0), (2, 0));
        bell.leave(&second);
        bell.leave(&third);
        assert_eq!(bell.readers(), 0);
    }
}

/// Run with `RUSTFLAGS="--cfg tidings_loom" cargo test --release --lib doorbell`.
#[cfg(test)]
#[cfg(tidings_loom)]
mod explored {
    use std::sync::Arc;

    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    use super::*;

    /// A publisher publishes `1..=last`, each value with a ring; the readers read until they have seen `last`. A lost
    /// wake-up is a deadlock, which loom reports.
    fn every_reader_sees_the_last_of(last: usize, readers: usize) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let bell = Arc::new(Doorbell::default());
            let published = Arc::new(AtomicUsize::new(0));
            let threads: Vec<_> = (0..readers)
                .map(|_| {
                    let (bell, published) = (bell.clone(), published.clone());
                    let seat = bell.join();
                    thread::spawn(move || {
                        let mut seen = 0;
                        loom::future::block_on(std::future::poll_fn(|cx| {
                            loop {
                                seen = published.load(Ordering::Acquire).max(seen);
                                if seen == last {
                                    return Poll::Ready(());
                                }
                                let ready = || published.load(Ordering::Acquire) > seen;
                                if bell.sleep(&seat, cx, ready).is_pending() {
                                    return Poll::Pending;
                                }
                            }
                        }));
                        bell.leave(&seat);
                    })
                })
                .collect();
            for value in 1..=last {
                published.store(value, Ordering::Release);
                bell.ring();
            }
            for thread in threads {
                thread.join().expect("a reader panicked");
            }
            assert_eq!((bell.readers(), bell.idle()), (0, 0));
        });
    }

    #[test]
    fn no_wake_up_is_lost_by_one_reader() {
        every_reader_sees_the_last_of(2, 1);
    }

    #[test]
    fn no_wake_up_is_lost_by_two_readers() {
        every_reader_sees_the_last_of(1, 2);
    }
}
