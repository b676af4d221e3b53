//! Whichever shape a subscription has, it delivers the same events in the same order, on any thread, and its topic's hooks
//! see what was published and each batch before and after it is handled.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail where they panic"
)]

#[path = "support/settle.rs"]
mod settle;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context};
use futures_util::{StreamExt, TryStreamExt, future, stream};
use tidings::{
    Batch, BatchSubscriber, Handling, Hook, PublishError, Publisher, SharedBatch, Subscribe,
    Subscriber, SubscriptionError, SubscriptionHandle, Topic, TopicOptions, TransientEvent,
};
use tokio::runtime::{self, Runtime};
use tokio::sync::mpsc;

use self::settle::Settle;

#[derive(Debug, Clone, Copy, PartialEq, Eq, TransientEvent)]
struct Tick(u32);

const EVENTS: u32 = 1_000;

fn topic() -> Topic<Tick> {
    Topic::with(TopicOptions::default().capacity(64))
}

fn runtime() -> Runtime {
    runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime")
}

/// Publishes all and closes the topic, on a thread of its own.
fn feed(topic: &Topic<Tick>) -> thread::JoinHandle<()> {
    let topic = topic.clone();
    thread::spawn(move || {
        let publisher = topic.publisher("clock");
        for tick in 0..EVENTS / 2 {
            publisher.publish_blocking(Tick(tick)).expect("the topic is open");
        }
        let mut rest = (EVENTS / 2..EVENTS).map(Tick).collect();
        publisher.publish_batch_blocking(&mut rest).expect("the topic is open");
        topic.close();
    })
}

#[track_caller]
fn assert_all(seen: impl IntoIterator<Item = u32>) {
    assert!(seen.into_iter().eq(0..EVENTS));
}

#[test]
fn a_loop_in_a_task() {
    let topic = topic();
    let mut subscription = topic.subscribe().open();
    let feed = feed(&topic);
    let reading = runtime().block_on(async {
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(batch) = subscription.next().await.expect("no log") {
                seen.extend(batch.into_iter().map(|tick| tick.0));
            }
            seen
        })
        .await
    });
    assert_all(reading.expect("the task"));
    feed.join().expect("the feed");
}

#[test]
fn a_closure_in_a_task_of_many_threads() {
    let topic = topic();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&seen);
    let each = topic.subscribe().for_each(async move |batch: Batch<'_, Tick>| {
        // Moves to another thread between two events.
        for tick in batch {
            if tick.0 % 50 == 0 {
                tokio::task::yield_now().await;
            }
            sees.lock().expect("the list").push(tick.0);
        }
    });
    let feed = feed(&topic);
    let outcome = runtime().block_on(async { tokio::spawn(each).await });
    outcome.expect("the task").expect("no log");
    assert_all(seen.lock().expect("the list").iter().copied());
    feed.join().expect("the feed");
}

#[test]
fn a_closure_that_borrows() {
    let topic = topic();
    let mut sum = 0;
    let each = topic.subscribe().for_each(async |batch: Batch<'_, Tick>| {
        tokio::task::yield_now().await;
        sum += batch.iter().map(|tick| tick.0).sum::<u32>();
    });
    let feed = feed(&topic);
    runtime().block_on(each).expect("no log");
    assert_eq!(sum, (0..EVENTS).sum::<u32>());
    feed.join().expect("the feed");
}

#[test]
fn a_stream_with_its_combinators() {
    let topic = topic();
    let batches = topic.subscribe().stream();
    let feed = feed(&topic);
    let tens = batches
        .map_ok(|batch: SharedBatch<Tick>| {
            stream::iter(batch.to_vec()).map(Ok::<_, SubscriptionError>)
        })
        .try_flatten()
        .try_filter(|tick| future::ready(tick.0 % 10 == 0))
        .map_ok(|tick| tick.0 / 10)
        .try_collect::<Vec<_>>();
    let tens = runtime().block_on(tens).expect("no log");
    assert!(tens.into_iter().eq(0..EVENTS / 10));
    feed.join().expect("the feed");
}

#[test]
fn a_stream_that_has_ended_stays_so() {
    let topic = topic();
    let mut stream = topic.subscribe().stream();
    let mut iter = topic.subscribe().iter();
    topic.close();
    for _ in 0..3 {
        assert!(stream.next().settled().expect("it has ended").is_none());
        assert!(iter.next().is_none());
    }
}

#[test]
fn an_iterator_on_a_thread() {
    let topic = topic();
    let iter = topic.subscribe().iter();
    let reading = thread::spawn(move || {
        let batches: Result<Vec<_>, SubscriptionError> = iter.collect();
        batches.expect("no log").iter().flatten().map(|tick| tick.0).collect::<Vec<_>>()
    });
    feed(&topic).join().expect("the feed");
    assert_all(reading.join().expect("the reader"));
}

struct Tells(mpsc::UnboundedSender<u32>);

impl Actor for Tells {
    type Context = Context<Self>;
}

impl Subscriber<Tick> for Tells {
    fn receive(&mut self, tick: &Tick, _: &mut Context<Self>) {
        self.0.send(tick.0).expect("the test listens");
    }

    fn missed(&mut self, events: u64, _: &mut Context<Self>) {
        for _ in 0..events {
            self.0.send(u32::MAX).expect("the test listens");
        }
    }

    fn unsubscribed(&mut self, _: Result<(), SubscriptionError>, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

impl BatchSubscriber<Tick> for Tells {
    fn receive(&mut self, batch: Batch<'_, Tick>, ctx: &mut Context<Self>) {
        for tick in &batch {
            Subscriber::receive(self, tick, ctx);
        }
    }

    fn unsubscribed(&mut self, _: Result<(), SubscriptionError>, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

/// Everything that an actor is told until it stops.
fn told(begin: impl FnOnce(&mut Context<Tells>)) -> Vec<u32> {
    actix::System::new().block_on(async {
        let (tell, mut told) = mpsc::unbounded_channel();
        Tells::create(|ctx| {
            begin(ctx);
            Tells(tell)
        });
        let mut seen = Vec::new();
        while let Some(tick) = told.recv().await {
            seen.push(tick);
        }
        seen
    })
}

#[test]
fn actors_one_at_a_time_and_in_batches() {
    for in_batches in [false, true] {
        let topic = topic();
        let mut feeding = None;
        let seen = told(|ctx| {
            let subscribe = topic.subscribe();
            if in_batches {
                subscribe.batch_actor::<Tells, _>(ctx).detach();
            } else {
                subscribe.actor::<Tells, _>(ctx).detach();
            }
            feeding = Some(feed(&topic));
        });
        assert_all(seen);
        feeding.expect("it was started").join().expect("the feed");
    }
}

#[test]
fn an_actor_is_told_the_exact_number_before_the_event_behind_the_gap() {
    let topic = topic();
    let seen = told(|ctx| {
        topic.subscribe().drop_oldest().actor::<Tells, _>(ctx).detach();
        let publisher = topic.publisher("clock");
        for tick in 0..EVENTS {
            publisher.try_publish(Tick(tick)).expect("nobody holds it");
        }
        topic.close();
    });
    assert_eq!(seen.len(), EVENTS as usize);
    let missed = seen.iter().take_while(|tick| **tick == u32::MAX).count();
    assert!(missed > 0);
    assert!(seen.into_iter().zip(0..).skip(missed).all(|(seen, tick)| seen == tick));
}

// Hooks.

#[derive(Debug, Clone, PartialEq)]
enum Hooked {
    Published(usize),
    Handling(String, u64, Vec<u32>),
    Handled(String, u64, usize),
}

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<Hooked>>>);

impl Notes {
    fn note(&self, hooked: Hooked) {
        self.0.lock().unwrap().push(hooked);
    }

    fn take(&self) -> Vec<Hooked> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Hook<Tick> for Notes {
    fn admits(&self, topic: &'static str, event: &Tick) -> bool {
        assert_eq!(topic, Tick::NAME);
        event.0 % 10 != 9
    }

    fn published(&self, topic: &'static str, events: usize) {
        assert_eq!(topic, Tick::NAME);
        self.note(Hooked::Published(events));
    }

    fn handling(&self, delivery: &Handling<'_>, events: &[Tick]) {
        assert_eq!((delivery.topic, delivery.events), (Tick::NAME, events.len()));
        let ticks = events.iter().map(|tick| tick.0).collect();
        self.note(Hooked::Handling(delivery.subscription.into(), delivery.missed, ticks));
    }

    fn handled(&self, delivery: &Handling<'_>, took: Duration) {
        assert!(took < Duration::from_secs(60));
        let name = delivery.subscription.into();
        self.note(Hooked::Handled(name, delivery.missed, delivery.events));
    }
}

/// A topic of segments of eight, and what its hooks are told.
fn hooked() -> (Topic<Tick>, Publisher<Tick>, Notes) {
    let notes = Notes::default();
    let topic = Topic::with(TopicOptions::default().capacity(64).hook(notes.clone()));
    let publisher = topic.publisher("clock");
    (topic, publisher, notes)
}

#[test]
fn hooks_leave_events_out_and_count_what_was_published() {
    let (topic, publisher, notes) = hooked();
    let mut subscription = topic.subscribe().open();
    publisher.try_publish(Tick(8)).unwrap();
    publisher.try_publish(Tick(9)).unwrap();
    publisher.publish(Tick(19)).settled().unwrap().unwrap();
    publisher.publish(Tick(20)).settled().unwrap().unwrap();
    publisher.publish_blocking(Tick(29)).unwrap();
    publisher.publish_blocking(Tick(30)).unwrap();
    let mut batch = vec![Tick(31), Tick(39), Tick(32)];
    publisher.try_publish_batch(&mut batch).unwrap();
    assert_eq!(notes.take(), [1, 1, 1, 2].map(Hooked::Published));
    let batch = subscription.next().settled().unwrap().unwrap().unwrap();
    assert_eq!(batch.events(), [8, 20, 30, 31, 32].map(Tick));
    notes.take();
    // What does not fit is not counted, and asked about once only.
    let mut batch = (100..200).map(Tick).collect();
    let full = publisher.try_publish_batch(&mut batch);
    assert!(matches!(full, Err(PublishError::Full(()))));
    assert_eq!((notes.take(), batch.len()), (vec![Hooked::Published(59)], 90 - 59));
    topic.close();
    publisher.try_publish(Tick(0)).expect_err("it is closed");
    assert_eq!(notes.take(), []);
}

/// Each batch was announced, then handled, then the next one; returns the events.
#[track_caller]
fn in_pairs(notes: &Notes, name: &str) -> (u64, Vec<u32>) {
    let mut all = (0, Vec::new());
    let notes = notes.take();
    let mut notes = notes.iter().filter(|note| !matches!(note, Hooked::Published(_)));
    while let Some(note) = notes.next() {
        let Hooked::Handling(to, missed, ticks) = note else {
            panic!("{note:?} without a beginning");
        };
        assert_eq!(to, name);
        assert!(!ticks.is_empty());
        let handled = Hooked::Handled(name.into(), *missed, ticks.len());
        assert_eq!(notes.next(), Some(&handled));
        all.0 += missed;
        all.1.extend(ticks);
    }
    all
}

/// A subscription of some shape that handles what there is, and is over.
type Shape = fn(Subscribe<Tick>, &dyn Fn());

const SHAPES: [(&str, Shape); 6] = [
    ("open", |subscribe, publish| {
        let mut subscription = subscribe.open();
        publish();
        while let Some(Some(_)) = subscription.next().settled().map(Result::unwrap) {}
    }),
    ("stream", |subscribe, publish| {
        let mut stream = subscribe.stream();
        publish();
        while let Some(Some(batch)) = stream.next().settled() {
            batch.unwrap();
        }
    }),
    ("iter", |subscribe, publish| {
        let iter = subscribe.iter();
        publish();
        iter.for_each(|batch| drop(batch.unwrap()));
    }),
    ("for_each", |subscribe, publish| {
        let each = subscribe.for_each(async |_: Batch<'_, Tick>| tokio::task::yield_now().await);
        publish();
        runtime().block_on(each).unwrap();
    }),
    ("actor", |subscribe, publish| {
        told(|ctx| {
            subscribe.actor::<Tells, _>(ctx).detach();
            publish();
        });
    }),
    ("batch actor", |subscribe, publish| {
        told(|ctx| {
            subscribe.batch_actor::<Tells, _>(ctx).detach();
            publish();
        });
    }),
];

#[test]
fn hooks_see_each_batch_of_every_shape_before_and_after() {
    for (name, shape) in SHAPES {
        let (topic, publisher, notes) = hooked();
        shape(topic.subscribe().named(name), &|| {
            let mut batch = (0..60).map(Tick).collect();
            publisher.try_publish_batch(&mut batch).unwrap();
            topic.close();
        });
        let expected: Vec<_> = (0..60).filter(|tick| tick % 10 != 9).collect();
        assert_eq!(in_pairs(&notes, name), (0, expected), "{name}");
    }
}

#[test]
fn hooks_see_what_is_missed_and_what_is_chosen_by_key() {
    for (name, shape) in SHAPES {
        let (topic, publisher, notes) = hooked();
        let publish = || {
            for tick in 0..EVENTS {
                publisher.try_publish(Tick(tick)).unwrap();
            }
            topic.close();
        };
        shape(topic.subscribe().drop_oldest().named(name), &publish);
        let (missed, seen) = in_pairs(&notes, name);
        assert!(missed > 0);
        assert_eq!(missed + seen.len() as u64, u64::from(EVENTS) / 10 * 9, "{name}");

        let (topic, publisher, notes) = hooked();
        let publish = || {
            for tick in 0..EVENTS {
                publisher.try_publish(Tick(tick)).unwrap();
            }
            topic.close();
        };
        shape(topic.subscribe().latest_by(|tick: &Tick| tick.0 % 10).named(name), &publish);
        let newest = (EVENTS - 10..EVENTS - 1).collect();
        assert_eq!(in_pairs(&notes, name), (0, newest), "{name}");
    }
}

#[test]
fn what_is_dropped_while_it_handles_counts_as_handled() {
    let (topic, publisher, notes) = hooked();
    let mut each =
        Box::pin(topic.subscribe().named("pending").for_each(async |_: Batch<'_, Tick>| {
            future::pending::<()>().await;
        }));
    publisher.try_publish(Tick(0)).unwrap();
    assert!(each.as_mut().settled().is_none());
    drop(each);
    assert_eq!(in_pairs(&notes, "pending"), (0, vec![0]));
}

/// Receives one event, and then waits, or drops its handle.
struct Pauses {
    leaves: bool,
    handle: Option<SubscriptionHandle>,
    received: mpsc::UnboundedSender<u32>,
}

impl Actor for Pauses {
    type Context = Context<Self>;
}

impl Subscriber<Tick> for Pauses {
    fn receive(&mut self, tick: &Tick, ctx: &mut Context<Self>) {
        self.received.send(tick.0).unwrap();
        if self.leaves {
            drop(self.handle.take());
        } else {
            ctx.wait(actix::fut::wrap_future(tokio::task::yield_now()));
        }
    }

    fn unsubscribed(&mut self, _: Result<(), SubscriptionError>, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

#[test]
fn hooks_are_told_what_an_actor_has_received_when_it_waits_or_leaves_in_between() {
    for leaves in [false, true] {
        let (topic, publisher, notes) = hooked();
        let (received, mut receives) = mpsc::unbounded_channel();
        actix::System::new().block_on(async {
            Pauses::create(|ctx| {
                let subscribe = topic.subscribe().named("pauses");
                let handle = Some(subscribe.actor::<Pauses, _>(ctx));
                Pauses { leaves, handle, received }
            });
            let mut batch = (0..5).map(Tick).collect();
            publisher.try_publish_batch(&mut batch).unwrap();
            topic.close();
            let mut all = Vec::new();
            while let Some(tick) = receives.recv().await {
                all.push(tick);
            }
            assert_eq!(all, if leaves { vec![0] } else { vec![0, 1, 2, 3, 4] });
        });
        let handled = notes.take().into_iter().filter_map(|note| match note {
            Hooked::Handled(_, _, events) => Some(events),
            _ => None,
        });
        assert_eq!(handled.sum::<usize>(), if leaves { 1 } else { 5 });
    }
}

#[test]
fn a_thread_that_waits_for_events_is_ended_by_the_handle_of_its_subscription() {
    let topic = Topic::<Tick>::new();
    let events = topic.subscribe().named("thread").iter();
    let handle = events.handle();
    let thread =
        std::thread::spawn(move || events.map(|batch| batch.unwrap().len()).sum::<usize>());
    topic.publisher("clock").try_publish(Tick(0)).unwrap();
    // It has read the event and sleeps, or is about to.
    while topic.status().subscriptions[0].lag > 0 {
        std::thread::yield_now();
    }
    drop(handle);
    assert_eq!(thread.join().unwrap(), 1);
    assert_eq!(topic.status().subscriptions, []);
}
