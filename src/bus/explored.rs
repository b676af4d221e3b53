//! Topics under every interleaving of their publishers and readers, and every order of memory that their atomics allow.
//!
//! Run with `RUSTFLAGS="--cfg tidings_loom" cargo test --release --lib bus`, best into a target directory of its own. A lost
//! wake-up is a deadlock, which loom reports. Capacities are so small that a segment holds one event, so that each event opens
//! a segment, and from the second or third on evicts one and uses it again. Miri sees the slots of the segments, loom does not.

use std::sync::Arc;

use loom::future::block_on;
use loom::thread;

use super::ring::Standing;
use super::subscription::Subscription;
use super::topic::{Topic, TopicOptions};
use super::{Batch, PublishError, Publisher};
use crate::event::TransientEvent;

#[derive(Debug, Clone, PartialEq)]
struct Tick(u64);

impl TransientEvent for Tick {
    const NAME: &'static str = "tick";
}

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

fn topic(capacity: usize) -> (Topic<Tick>, Publisher<Tick>) {
    let topic = Topic::with(TopicOptions::default().capacity(capacity));
    let publisher = topic.publisher("");
    (topic, publisher)
}

/// Publishes these, and waits for room.
fn publishes(publisher: &Publisher<Tick>, ticks: impl IntoIterator<Item = u64>) {
    for tick in ticks {
        block_on(publisher.publish(Tick(tick))).expect("the topic is open");
    }
}

/// Publishes these where there is room.
fn publishes_at_once(publisher: &Publisher<Tick>, ticks: impl IntoIterator<Item = u64>) {
    for tick in ticks {
        publisher.try_publish(Tick(tick)).expect("there is room");
    }
}

fn next(subscription: &mut Subscription<Tick>) -> Option<Batch<'_, Tick>> {
    block_on(subscription.next()).expect("no log is read")
}

/// Reads at least so many events.
fn read(subscription: &mut Subscription<Tick>, events: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.len() < events {
        let batch = next(subscription).expect("the topic is open");
        assert_eq!(batch.missed(), 0);
        seen.extend(batch.iter().map(|tick| tick.0));
    }
    seen
}

/// As the handle of an actor's subscription does.
fn end(topic: &Topic<Tick>, standing: &Arc<Standing>) {
    topic.ring().strike(standing);
    topic.ring().bell.ring();
}

#[test]
fn a_publisher_that_waits_and_a_reader_that_sleeps_wake_each_other() {
    for capacity in [1, 2] {
        explore(2, move || {
            let (topic, publisher) = topic(capacity);
            let mut subscription = topic.subscribe().open();
            let publishing = thread::spawn(move || publishes(&publisher, 0..3));
            assert_eq!(read(&mut subscription, 3), [0, 1, 2]);
            publishing.join().expect("the publisher");
        });
    }
}

#[test]
fn two_publishers_that_wait_are_both_let_go() {
    explore(1, || {
        let (topic, publisher) = topic(1);
        let mut subscription = topic.subscribe().open();
        publishes_at_once(&publisher, [0]);
        let other = publisher.clone();
        let one = thread::spawn(move || publishes(&publisher, [1]));
        let two = thread::spawn(move || publishes(&other, [2]));
        let mut seen = read(&mut subscription, 3);
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
        one.join().expect("a publisher");
        two.join().expect("a publisher");
    });
}

#[test]
fn a_publisher_waits_for_the_slower_of_two_readers() {
    explore(1, || {
        let (topic, publisher) = topic(1);
        let mut one = topic.subscribe().open();
        let mut two = topic.subscribe().open();
        let publishing = thread::spawn(move || publishes(&publisher, 0..2));
        let reading = thread::spawn(move || read(&mut two, 2));
        assert_eq!(read(&mut one, 2), [0, 1]);
        // It asks for no more; while it is there, nothing else may be lost.
        drop(one);
        assert_eq!(reading.join().expect("a reader"), [0, 1]);
        publishing.join().expect("the publisher");
    });
}

#[test]
fn a_publisher_that_waits_is_let_go_when_the_reader_is_dropped() {
    explore(3, || {
        let (topic, publisher) = topic(1);
        let subscription = topic.subscribe().open();
        let publishing = thread::spawn(move || publishes(&publisher, 0..3));
        drop(subscription);
        publishing.join().expect("the publisher");
        assert_eq!(topic.status().published, 3);
    });
}

#[test]
fn ending_a_subscription_from_outside_lets_its_publisher_go_and_wakes_its_reader() {
    explore(3, || {
        let (topic, publisher) = topic(1);
        let reader = topic.subscribe().begin(None);
        let standing = Arc::clone(&reader.standing);
        let mut subscription = Subscription::new(reader);
        let publishing = thread::spawn(move || publishes(&publisher, 0..2));
        let reading = thread::spawn(move || {
            let mut seen = 0;
            while let Some(batch) = next(&mut subscription) {
                assert_eq!(batch.events(), [Tick(seen)]);
                seen += 1;
            }
        });
        end(&topic, &standing);
        publishing.join().expect("the publisher");
        reading.join().expect("the reader");
    });
}

#[test]
fn what_is_seen_and_what_is_missed_is_all_there_was() {
    explore(2, || {
        let (topic, publisher) = topic(1);
        let mut subscription = topic.subscribe().drop_oldest().open();
        let publishing = thread::spawn(move || publishes_at_once(&publisher, 0..5));
        let mut next_tick = 0;
        while next_tick < 5 {
            let batch = next(&mut subscription).expect("the topic is open");
            next_tick += batch.missed();
            for tick in batch {
                assert_eq!(tick.0, next_tick);
                next_tick += 1;
            }
        }
        publishing.join().expect("the publisher");
    });
}

#[test]
fn what_is_kept_by_key_is_the_newest_and_comes_once() {
    explore(2, || {
        let (topic, publisher) = topic(1);
        let mut subscription = topic.subscribe().latest_by(|tick: &Tick| tick.0 % 2).open();
        let publishing = thread::spawn(move || publishes_at_once(&publisher, 1..6));
        let mut newest = [0; 2];
        while newest != [4, 5] {
            for tick in next(&mut subscription).expect("the topic is open") {
                let before = &mut newest[usize::from(tick.0 % 2 == 1)];
                assert!(*before < tick.0, "{} after {before}", tick.0);
                *before = tick.0;
            }
        }
        publishing.join().expect("the publisher");
    });
}

#[test]
fn closing_ends_all_who_wait_and_delivers_what_was_published() {
    explore(3, || {
        let (topic, publisher) = topic(1);
        let mut subscription = topic.subscribe().open();
        let publishing = thread::spawn(move || {
            let outcome = |tick| block_on(publisher.publish(Tick(tick)));
            let published = (0..2).take_while(|tick| match outcome(*tick) {
                Ok(()) => true,
                Err(PublishError::Closed(back)) => {
                    assert_eq!(back, Tick(*tick));
                    false
                }
                Err(error) => panic!("{error}"),
            });
            published.count()
        });
        let reading = thread::spawn(move || {
            let mut seen = 0;
            while let Some(batch) = next(&mut subscription) {
                seen += batch.len();
            }
            seen
        });
        topic.close();
        let published = publishing.join().expect("the publisher");
        assert_eq!(reading.join().expect("the reader"), published);
    });
}

#[test]
fn one_who_joins_while_others_publish_sees_all_from_there_on() {
    explore(2, || {
        let (topic, publisher) = topic(2);
        let publishing = thread::spawn({
            let topic = topic.clone();
            move || {
                publishes(&publisher, 0..4);
                topic.close();
            }
        });
        let mut subscription = topic.subscribe().open();
        let mut seen = Vec::new();
        while let Some(batch) = next(&mut subscription) {
            seen.extend(batch.iter().map(|tick| tick.0));
        }
        publishing.join().expect("the publisher");
        assert!(seen.iter().copied().eq(4 - seen.len() as u64..4), "{seen:?}");
    });
}
