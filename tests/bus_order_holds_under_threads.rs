//! Several publishers and subscribers on real threads, of mixed shapes and policies, which come and go: the events of each
//! publisher stay in order, those who hold publishers miss nothing, the others know exactly what they missed.

#![expect(clippy::expect_used, reason = "helpers of tests fail where they panic")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use actix::{Actor, ActorContext, Context};
use futures_util::TryStreamExt;
use tidings::{
    Batch, BatchSubscriber, Publisher, SubscriptionError, Topic, TopicOptions, TransientEvent,
};
use tokio::runtime;

const PUBLISHERS: usize = 3;
const EACH: u64 = 3_000;
const ALL: u64 = PUBLISHERS as u64 * EACH;

/// The event of a publisher with this number, from 0 on.
#[derive(Debug, Clone, Copy, TransientEvent)]
struct Said {
    by: usize,
    number: u64,
}

/// What one subscriber has heard.
#[derive(Default)]
struct Heard {
    /// The number of the next event of each publisher, from its first on.
    next: [Option<u64>; PUBLISHERS],
    seen: u64,
    missed: u64,
}

impl Heard {
    /// Without a gap, unless something was missed, and never backwards.
    fn hear(&mut self, events: &[Said], missed: u64, gaps: bool) {
        self.missed += missed;
        for said in events {
            let next = self.next.get_mut(said.by).expect("one of the publishers");
            match *next {
                Some(next) if gaps => assert!(said.number >= next, "{said:?}, expected {next}"),
                Some(next) => assert_eq!(said.number, next, "of {}", said.by),
                None => {}
            }
            *next = Some(said.number + 1);
            self.seen += 1;
        }
    }

    #[track_caller]
    fn assert_all(&self) {
        assert_eq!((self.next, self.seen), ([Some(EACH); PUBLISHERS], ALL));
    }
}

/// One by one, on a thread that waits; in batches, on a thread that waits; one by one, in a task.
fn publish(publisher: Publisher<Said>, by: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || match by {
        0 => {
            for number in 0..EACH {
                publisher.publish_blocking(Said { by, number }).expect("it is open");
            }
        }
        1 => {
            let mut batch = Vec::new();
            for number in 0..EACH {
                batch.push(Said { by, number });
                if number % 37 == 0 || number + 1 == EACH {
                    publisher.publish_batch_blocking(&mut batch).expect("it is open");
                }
            }
        }
        _ => {
            let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                for number in 0..EACH {
                    publisher.publish(Said { by, number }).await.expect("it is open");
                }
            });
        }
    })
}

struct Hears(Arc<Mutex<Heard>>);

impl Actor for Hears {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Context<Self>) {
        actix::System::current().stop();
    }
}

impl BatchSubscriber<Said> for Hears {
    fn receive(&mut self, batch: Batch<'_, Said>, _: &mut Context<Self>) {
        self.0.lock().expect("a list").hear(&batch, batch.missed(), false);
    }

    fn unsubscribed(&mut self, outcome: Result<(), SubscriptionError>, ctx: &mut Context<Self>) {
        outcome.expect("no log");
        ctx.stop();
    }
}

/// Comes and goes until the end, and is sometimes dropped while it sleeps or behind.
fn visit(topic: Topic<Said>, over: Arc<AtomicBool>, blocks: bool) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut visits = 0;
        while !over.load(Ordering::Relaxed) {
            let subscribe = topic.subscribe();
            let subscribe = if blocks { subscribe } else { subscribe.drop_oldest() };
            let from_oldest = visits % 3 == 0;
            let mut subscription =
                if from_oldest { subscribe.from_oldest() } else { subscribe }.open();
            let mut heard = Heard::default();
            runtime.block_on(async {
                for _ in 0..visits % 7 {
                    let Some(batch) = subscription.next().await.expect("no log") else {
                        break;
                    };
                    heard.hear(&batch, batch.missed(), !blocks);
                }
            });
            visits += 1;
        }
        visits
    })
}

#[test]
fn each_subscriber_hears_each_publisher_in_order() {
    for capacity in [1, 64, 1_024] {
        let topic = Topic::<Said>::with(TopicOptions::default().capacity(capacity));
        let over = Arc::new(AtomicBool::new(false));
        let visitors = [true, false].map(|blocks| visit(topic.clone(), over.clone(), blocks));

        let iter = topic.subscribe().iter();
        let on_a_thread = thread::spawn(move || {
            let mut heard = Heard::default();
            iter.for_each(|batch| heard.hear(&batch.expect("no log"), 0, false));
            heard
        });

        let drops = topic.subscribe().drop_oldest().iter();
        let that_drops = thread::spawn(move || {
            let mut heard = Heard::default();
            for batch in drops {
                let batch = batch.expect("no log");
                heard.hear(&batch, batch.missed(), true);
            }
            heard
        });

        let by_an_actor = Arc::new(Mutex::new(Heard::default()));
        let (subscribed, is_subscribed) = std::sync::mpsc::channel();
        let acts = thread::spawn({
            let (topic, heard) = (topic.clone(), by_an_actor.clone());
            move || {
                let system = actix::System::new();
                system.block_on(async {
                    Hears::create(|ctx| {
                        topic.subscribe().batch_actor::<Hears, _>(ctx).detach();
                        subscribed.send(()).expect("the test waits");
                        Hears(heard)
                    });
                });
                system.run().expect("the system");
            }
        });
        is_subscribed.recv().expect("the actor starts");

        let runtime = runtime::Builder::new_multi_thread().worker_threads(2).build();
        let runtime = runtime.expect("a runtime");
        let total = Arc::new(AtomicU64::new(0));
        let sums = Topic::<Sum>::with(TopicOptions::default().capacity(capacity));
        let mut newest_sum = sums.subscribe().latest_by(|_| ()).stream();
        let publishes = sums.publisher("sums");
        let each = topic.subscribe().for_each({
            let total = total.clone();
            async move |batch: Batch<'_, Said>| {
                let events = batch.len() as u64;
                let total = total.fetch_add(events, Ordering::Relaxed) + events;
                publishes.publish(Sum(total)).await.expect("nobody holds it");
            }
        });
        let each = runtime.spawn(each);
        let newest_sum = runtime.spawn(async move {
            let mut newest = 0;
            while let Some(sums) = newest_sum.try_next().await.expect("no log") {
                assert!(sums.len() == 1 && sums.iter().all(|sum| sum.0 > newest));
                newest = sums.first().map_or(0, |sum| sum.0);
            }
            newest
        });

        let publishers: Vec<_> =
            (0..PUBLISHERS).map(|by| publish(topic.publisher("test"), by)).collect();
        publishers.into_iter().for_each(|publisher| publisher.join().expect("a publisher"));
        topic.close();

        on_a_thread.join().expect("a subscriber").assert_all();
        acts.join().expect("the actor");
        by_an_actor.lock().expect("a list").assert_all();
        let heard = that_drops.join().expect("a subscriber");
        assert_eq!(heard.seen + heard.missed, ALL);
        runtime.block_on(each).expect("the task").expect("no log");
        sums.close();
        assert_eq!(total.load(Ordering::Relaxed), ALL);
        assert_eq!(runtime.block_on(newest_sum).expect("the task"), ALL);
        over.store(true, Ordering::Relaxed);
        let visits = visitors.map(|visitor| visitor.join().expect("a visitor"));
        assert!(visits.iter().all(|visits| *visits > 0));
        let status = topic.status();
        assert_eq!((status.published, status.subscribers, status.idle), (ALL, 0, 0));
        assert_eq!((status.subscriptions, status.publishers), (vec![], vec![]));
    }
}

#[derive(Debug, Clone, Copy, TransientEvent)]
struct Sum(u64);
