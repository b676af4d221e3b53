//! Tidings: a transient topic whose publishers wait for its subscribers, as they do unless a subscription says otherwise.

use actix::{Addr, Context};
use tidings::{
    Batch, BatchSubscriber, Publisher, SubscriptionHandle, Topic, TopicOptions, TransientEvent,
};

use crate::harness::{CAPACITY, Event};
use crate::peer::{Handler, Peer, Publish, PublishBatch};
use crate::seats::Seat;
use crate::subjects::MOST_THREADS;
use crate::subjects::actix::Subscriber;

impl TransientEvent for Event {
    const NAME: &'static str = "event";
}

/// Actors that receive one event at a time.
pub(crate) struct TidingsActors;

/// Actors that receive batches.
pub(crate) struct TidingsBatchActors;

/// A loop in a task for each subscriber.
pub(crate) struct TidingsTasks;

/// An iterator on a thread for each subscriber.
pub(crate) struct TidingsThreads;

pub(crate) struct Source {
    publisher: Publisher<Event>,
    /// Kept for the next batch.
    batch: Vec<Event>,
}

fn topic() -> Topic<Event> {
    Topic::with(TopicOptions::default().capacity(CAPACITY))
}

impl Peer for TidingsActors {
    const NAME: &'static str = "tidings, actors";
    const WAITS: bool = true;
    type Publisher = Source;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Source {
        open_actors(seat, handlers, |topic, ctx| topic.subscribe().actor(ctx))
    }
}

impl Peer for TidingsBatchActors {
    const NAME: &'static str = "tidings, actors that receive batches";
    const WAITS: bool = true;
    type Publisher = Source;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Source {
        open_actors(seat, handlers, |topic, ctx| topic.subscribe().batch_actor(ctx))
    }
}

fn open_actors<H: Handler>(
    seat: &Seat,
    handlers: Vec<H>,
    subscribe: fn(&Topic<Event>, &mut Context<Subscriber<H>>) -> SubscriptionHandle,
) -> Source {
    let topic = topic();
    let source = Source::new(&topic);
    let _: Vec<Addr<_>> = Subscriber::start_all(seat, handlers, move |_, ctx| {
        subscribe(&topic, ctx).detach();
    });
    source
}

impl<H: Handler> tidings::Subscriber<Event> for Subscriber<H> {
    #[inline]
    fn receive(&mut self, event: &Event, ctx: &mut Context<Self>) {
        self.handle_event(event, ctx);
    }
}

impl<H: Handler> BatchSubscriber<Event> for Subscriber<H> {
    #[inline]
    fn receive(&mut self, batch: Batch<'_, Event>, ctx: &mut Context<Self>) {
        for event in batch.events() {
            self.handle_event(event, ctx);
        }
    }
}

impl Peer for TidingsTasks {
    const NAME: &'static str = "tidings, tasks";
    const WAITS: bool = true;
    type Publisher = Source;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Source {
        let topic = topic();
        for mut handler in handlers {
            let mut subscription = topic.subscribe().open();
            seat.spawn(async move {
                while let Some(batch) = subscription.next().await.expect("no log is read") {
                    if batch.iter().map(&mut handler).any(|flow| flow.is_break()) {
                        return;
                    }
                }
            });
        }
        Source::new(&topic)
    }
}

impl Peer for TidingsThreads {
    const NAME: &'static str = "tidings, threads";
    const MOST_SUBSCRIBERS: usize = MOST_THREADS;
    const WAITS: bool = true;
    type Publisher = Source;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Source {
        let topic = topic();
        for mut handler in handlers {
            let batches = topic.subscribe().iter();
            seat.thread(move || {
                for batch in batches {
                    let batch = batch.expect("no log is read");
                    if batch.iter().map(&mut handler).any(|flow| flow.is_break()) {
                        return;
                    }
                }
            });
        }
        Source::new(&topic)
    }
}

impl Source {
    fn new(topic: &Topic<Event>) -> Self {
        Self { publisher: topic.publisher("source"), batch: Vec::new() }
    }
}

impl Clone for Source {
    fn clone(&self) -> Self {
        Self { publisher: self.publisher.clone(), batch: Vec::new() }
    }
}

impl Publish for Source {
    #[inline]
    fn publish(&mut self, event: Event) {
        self.publisher.publish_blocking(event).expect("the topic is open");
    }

    #[inline]
    fn forward(&mut self, event: Event) {
        self.publisher.try_publish(event).expect("the topic has room");
    }
}

impl PublishBatch for Source {
    #[inline]
    fn publish_batch(&mut self, after: u64, count: u64) {
        self.batch.extend((after + 1..=after + count).map(|number| Event::nth(0, number)));
        self.publisher.publish_batch_blocking(&mut self.batch).expect("the topic is open");
    }
}
