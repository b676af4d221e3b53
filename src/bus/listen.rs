//! A subscription that hands its events to a function: for engines that have several.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::batch::Batch;
use super::causation;
use super::reader::{Next, Reader};
use super::ring::{Item, Standing};
use super::subscribe::Subscribe;
use super::subscription::SubscriptionError;

/// A subscription of an engine; dropping it unsubscribes.
pub(crate) struct Listener<T: Item> {
    reader: Reader<T>,
    handler: Option<Arc<Standing>>,
}

impl<T: Item> Subscribe<T> {
    /// Begins, for an engine that polls.
    pub(crate) fn listen(self) -> Listener<T> {
        let reader = self.begin(None);
        let handler = Some(Arc::clone(&reader.standing));
        Listener { reader, handler }
    }
}

impl<T: Item> Listener<T> {
    /// Hands the next batch to `handle`; none when the topic is closed and everything was handed over.
    pub(crate) fn poll_hear<R>(
        &mut self,
        cx: &mut Context<'_>,
        handle: impl FnOnce(Batch<'_, T>) -> R,
    ) -> Poll<Result<Option<R>, SubscriptionError>> {
        match ready!(self.reader.poll_ready(cx))? {
            Next::End => Poll::Ready(Ok(None)),
            Next::Events => {
                let batch = self.reader.take();
                let depth = batch.causation_depth();
                let handled = causation::within(&mut self.handler, depth, || handle(batch));
                Poll::Ready(Ok(Some(handled)))
            }
        }
    }
}
