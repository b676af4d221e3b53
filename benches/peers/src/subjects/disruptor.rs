//! The disruptor crate: threads of its own under three ways to wait, and its poll interface on one thread.

use std::marker::PhantomData;
use std::time::Duration;

use disruptor::wait_strategies::WaitStrategy;
use disruptor::{
    BusySpin, BusySpinWithSpinLoopHint, MultiConsumerBarrier, MultiProducer, Producer,
    SingleProducer, Sleep, build_multi_producer, build_single_producer,
};

use crate::harness::{CAPACITY, Event};
use crate::peer::{Handler, Peer, Publish, PublishBatch};
use crate::seats::Seat;
use crate::subjects::{MOST_SPINNING, MOST_THREADS, poll_all};

/// A way to wait, by name.
pub(crate) trait Waiting: 'static {
    const NAME: &'static str;
    const MOST_SUBSCRIBERS: usize;

    fn strategy() -> impl WaitStrategy + 'static;
}

impl Waiting for BusySpin {
    const NAME: &'static str = "disruptor BusySpin, threads";
    const MOST_SUBSCRIBERS: usize = MOST_SPINNING;

    fn strategy() -> impl WaitStrategy + 'static {
        Self
    }
}

impl Waiting for BusySpinWithSpinLoopHint {
    const NAME: &'static str = "disruptor spin hint, threads";
    const MOST_SUBSCRIBERS: usize = MOST_SPINNING;

    fn strategy() -> impl WaitStrategy + 'static {
        Self
    }
}

impl Waiting for Sleep {
    const NAME: &'static str = "disruptor Sleep, threads";
    const MOST_SUBSCRIBERS: usize = MOST_THREADS;

    /// The system makes more than 50 µs of it, in which a ring of this size does not run full.
    fn strategy() -> impl WaitStrategy + 'static {
        Self::new(Duration::from_micros(1))
    }
}

/// Threads that the ring owns and joins; one publisher.
pub(crate) struct Disruptor<W>(PhantomData<W>);

/// The same with a publisher that can be cloned.
pub(crate) struct DisruptorMulti<W>(PhantomData<W>);

/// What the ring's own threads run. They end with the last publisher, not when the handler breaks.
fn callback(mut handler: impl Handler) -> impl FnMut(&Event, i64, bool) + Send + 'static {
    move |event, _, _| {
        let _ = handler(event);
    }
}

macro_rules! build {
    ($builder:expr, $handlers:expr) => {{
        let mut builder = $builder.with_multi_consumer();
        for handler in $handlers {
            builder = builder.handle_events_with(callback(handler));
        }
        builder.build()
    }};
}

impl<W: Waiting> Peer for Disruptor<W> {
    const NAME: &'static str = W::NAME;
    const MOST_SUBSCRIBERS: usize = W::MOST_SUBSCRIBERS;
    const WAITS: bool = true;
    type Publisher = SingleProducer<Event, MultiConsumerBarrier>;

    fn open(_: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        build!(build_single_producer(CAPACITY, Event::default, W::strategy()), handlers)
    }
}

impl<W: Waiting> Peer for DisruptorMulti<W> {
    const NAME: &'static str = W::NAME;
    const MOST_SUBSCRIBERS: usize = W::MOST_SUBSCRIBERS;
    const WAITS: bool = true;
    type Publisher = MultiProducer<Event, MultiConsumerBarrier>;

    fn open(_: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        build!(build_multi_producer(CAPACITY, Event::default, W::strategy()), handlers)
    }
}

impl Publish for SingleProducer<Event, MultiConsumerBarrier> {
    #[inline]
    fn publish(&mut self, event: Event) {
        Producer::publish(self, |slot| *slot = event);
    }
}

impl PublishBatch for SingleProducer<Event, MultiConsumerBarrier> {
    #[inline]
    fn publish_batch(&mut self, after: u64, count: u64) {
        self.batch_publish(count as usize, |slots| {
            for (slot, number) in slots.zip(after + 1..) {
                *slot = Event::nth(0, number);
            }
        });
    }
}

impl Publish for MultiProducer<Event, MultiConsumerBarrier> {
    #[inline]
    fn publish(&mut self, event: Event) {
        Producer::publish(self, |slot| *slot = event);
    }
}

/// One thread of ours polls for all subscribers; one publisher.
pub(crate) struct DisruptorPoll;

/// The same with a publisher that can be cloned.
pub(crate) struct DisruptorPollMulti;

const POLL: &str = "disruptor EventPoller, one polling thread";

macro_rules! build_pollers {
    ($builder:expr, $seat:expr, $handlers:expr) => {{
        let mut builder = $builder.with_multi_consumer();
        let mut pollers = Vec::new();
        for handler in $handlers {
            let (poller, next) = builder.new_event_poller();
            pollers.push((poller, handler));
            builder = next;
        }
        poll_all($seat, pollers, |poller, handler| {
            let mut there = poller.poll().ok()?;
            (&mut there).map(handler).last()
        });
        builder.build()
    }};
}

impl Peer for DisruptorPoll {
    const NAME: &'static str = POLL;
    const WAITS: bool = true;
    type Publisher = SingleProducer<Event, MultiConsumerBarrier>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        build_pollers!(build_single_producer(CAPACITY, Event::default, BusySpin), seat, handlers)
    }
}

impl Peer for DisruptorPollMulti {
    const NAME: &'static str = POLL;
    const WAITS: bool = true;
    type Publisher = MultiProducer<Event, MultiConsumerBarrier>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        build_pollers!(build_multi_producer(CAPACITY, Event::default, BusySpin), seat, handlers)
    }
}
