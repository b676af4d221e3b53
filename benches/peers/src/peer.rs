//! What a peer must offer to be measured: a topic with subscribers, and a publisher into it.

use std::ops::ControlFlow;

use crate::harness::Event;
use crate::seats::Seat;

/// What a subscriber does with an event; it breaks after its last one.
pub(crate) trait Handler: FnMut(&Event) -> ControlFlow<()> + Send + Unpin + 'static {}

impl<H: FnMut(&Event) -> ControlFlow<()> + Send + Unpin + 'static> Handler for H {}

/// A peer in one of its shapes.
pub(crate) trait Peer: 'static {
    /// The crate, the call and what the subscribers are.
    const NAME: &'static str;

    /// With how many subscribers a run still ends in time: threads, above all those that spin, need cores.
    const MOST_SUBSCRIBERS: usize = usize::MAX;

    /// Whether the publisher waits when a subscriber is a whole capacity behind, and nothing is lost. If not, a gate
    /// holds it back.
    const WAITS: bool;

    type Publisher: Publish;

    /// Opens a topic with a subscriber for each handler. Async subscribers run on the seat, all others on a thread each
    /// unless the name says otherwise.
    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher;
}

/// The publishing side of a topic.
pub(crate) trait Publish: Send + Unpin + 'static {
    /// Publishes from a thread that may wait.
    fn publish(&mut self, event: Event);

    /// Publishes from inside a handler, which must not wait. There is always room: the workloads in which handlers
    /// publish hold back at the source.
    #[inline]
    fn forward(&mut self, event: Event) {
        self.publish(event);
    }
}

/// A publisher that takes several events in one call.
pub(crate) trait PublishBatch: Publish {
    /// Publishes the events of `count` numbers that follow `after`, all of lane 0.
    fn publish_batch(&mut self, after: u64, count: u64);
}

/// A channel for each subscriber.
#[derive(Clone)]
pub(crate) struct Each<S>(pub(crate) Vec<S>);

impl<S: Publish> Publish for Each<S> {
    #[inline]
    fn publish(&mut self, event: Event) {
        for sender in &mut self.0 {
            sender.publish(event);
        }
    }

    #[inline]
    fn forward(&mut self, event: Event) {
        for sender in &mut self.0 {
            sender.forward(event);
        }
    }
}

impl<S: PublishBatch> PublishBatch for Each<S> {
    #[inline]
    fn publish_batch(&mut self, after: u64, count: u64) {
        for sender in &mut self.0 {
            sender.publish_batch(after, count);
        }
    }
}

/// The receiving side of an async channel.
pub(crate) trait ReceiveAsync: Send + 'static {
    fn receive(&mut self) -> impl Future<Output = Event> + Send;
}

/// The receiving side of a channel for threads.
pub(crate) trait Receive: Send + 'static {
    fn receive(&mut self) -> Event;
}

/// Runs a task on the seat for each handler and its receiver.
pub(crate) fn tasks<R: ReceiveAsync>(
    seat: &Seat,
    subscribers: impl IntoIterator<Item = (R, impl Handler)>,
) {
    for (mut receiver, mut handler) in subscribers {
        seat.spawn(async move { while handler(&receiver.receive().await).is_continue() {} });
    }
}

/// Runs a thread for each handler and its receiver.
pub(crate) fn threads<R: Receive>(
    seat: &Seat,
    subscribers: impl IntoIterator<Item = (R, impl Handler)>,
) {
    for (mut receiver, mut handler) in subscribers {
        seat.thread(move || while handler(&receiver.receive()).is_continue() {});
    }
}

/// Makes a channel for each handler, whose receivers are run by a task each.
pub(crate) fn channels_to_tasks<S, R: ReceiveAsync>(
    seat: &Seat,
    handlers: Vec<impl Handler>,
    channel: impl Fn() -> (S, R),
) -> Each<S> {
    let (senders, receivers): (_, Vec<R>) = handlers.iter().map(|_| channel()).unzip();
    tasks(seat, receivers.into_iter().zip(handlers));
    Each(senders)
}

/// Makes a channel for each handler, whose receivers are run by a thread each.
pub(crate) fn channels_to_threads<S, R: Receive>(
    seat: &Seat,
    handlers: Vec<impl Handler>,
    channel: impl Fn() -> (S, R),
) -> Each<S> {
    let (senders, receivers): (_, Vec<R>) = handlers.iter().map(|_| channel()).unzip();
    threads(seat, receivers.into_iter().zip(handlers));
    Each(senders)
}
