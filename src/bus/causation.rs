//! Who causes what: which handler runs on this thread, and how many handlers stand behind the event that it handles.
//!
//! Followed are handlers that the bus calls itself: actors and closures. What a handler hands to another task or thread is
//! a new beginning there.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::ring::Standing;

/// After how many handlers that cause one another a circle is cut, unless told otherwise: far more than anybody wires on
/// purpose, and reached within a millisecond.
pub(crate) const LIMIT: u8 = 64;

thread_local! {
    /// The depth of an event that is published here: one more than that of the event being handled, zero outside of handlers.
    static DEPTH: Cell<u8> = const { Cell::new(0) };
    /// The subscription whose handler runs.
    static HANDLER: RefCell<Option<Arc<Standing>>> = const { RefCell::new(None) };
}

/// The depth of an event that is published here.
#[inline]
pub(super) fn depth() -> u8 {
    DEPTH.get()
}

/// Notes that the handler that runs here has published into `topic`.
#[cold]
pub(super) fn note(topic: &'static str) {
    HANDLER.with_borrow(|handler| {
        if let Some(handler) = handler {
            handler.publishes_into(topic);
        }
    });
}

/// The depth of a command that is sent here, and whose events go into the durable `topic`; an error if it stands at the end of
/// too many handlers.
pub(crate) fn into_topic(topic: &'static str) -> Result<u8, u8> {
    let depth = depth();
    if depth == 0 {
        return Ok(0);
    }
    note(topic);
    if depth < LIMIT {
        return Ok(depth);
    }
    tracing::error!(topic, depth, "handlers cause one another in a circle, which is cut here");
    Err(depth)
}

/// Runs a handler of `handler` for events of this depth.
pub(super) fn within<R>(
    handler: &mut Option<Arc<Standing>>,
    depth: u8,
    run: impl FnOnce() -> R,
) -> R {
    let _outer = Outer::enter(handler, depth);
    run()
}

/// What ran around a handler; comes back at its end, also when it panics.
struct Outer<'h> {
    depth: u8,
    /// Exchanged with what the thread holds, so that no reference is counted.
    handler: &'h mut Option<Arc<Standing>>,
}

impl<'h> Outer<'h> {
    fn enter(handler: &'h mut Option<Arc<Standing>>, depth: u8) -> Self {
        HANDLER.with_borrow_mut(|running| std::mem::swap(running, handler));
        Self { depth: DEPTH.replace(depth.saturating_add(1)), handler }
    }
}

impl Drop for Outer<'_> {
    fn drop(&mut self) {
        HANDLER.with_borrow_mut(|running| std::mem::swap(running, self.handler));
        DEPTH.set(self.depth);
    }
}

/// Polls the future of an asynchronous handler within it.
pub(super) struct Within<'h, F> {
    pub(super) handler: &'h mut Option<Arc<Standing>>,
    pub(super) depth: u8,
    pub(super) future: Pin<&'h mut F>,
}

impl<F: Future> Future for Within<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { handler, depth, future } = &mut *self;
        within(handler, *depth, || future.as_mut().poll(cx))
    }
}
