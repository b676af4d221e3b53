//! Polling by hand.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

thread_local! {
    // One for all calls, so that those who count allocations count none of these.
    static WOKEN: Arc<Woken> = Arc::default();
}

pub(crate) trait Settle: Future + Sized {
    /// Polls until it is ready, or sleeps: one that has nothing to read lets its task be polled again some times first.
    fn settled(self) -> Option<Self::Output> {
        let woken = WOKEN.with(Arc::clone);
        let waker = Waker::from(Arc::clone(&woken));
        let mut future = pin!(self);
        loop {
            woken.0.store(false, Ordering::Relaxed);
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => return Some(output),
                Poll::Pending if woken.0.load(Ordering::Relaxed) => {}
                Poll::Pending => return None,
            }
        }
    }
}

impl<F: Future> Settle for F {}
