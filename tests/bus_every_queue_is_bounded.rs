//! A topic holds its capacity of events, a segment for each reader and each batch that is held, and little more, whatever
//! its subscribers do. Each event is dropped once.

#![expect(clippy::expect_used, reason = "helpers of tests fail where they panic")]

#[path = "support/settle.rs"]
mod settle;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::StreamExt;
use proptest::prelude::*;
use proptest::sample::Index;
use tidings::{EventStream, SharedBatch, Subscription, Topic, TopicOptions, TransientEvent};

use self::settle::Settle;

/// An event that is counted while it is there, and checks that it is dropped once.
#[derive(TransientEvent)]
struct Counted {
    key: u32,
    counts: Arc<Counts>,
    dropped: AtomicBool,
}

#[derive(Default)]
struct Counts {
    alive: AtomicUsize,
    /// Those that are copies of others.
    copies: AtomicUsize,
}

impl Counted {
    fn new(key: u32, counts: &Arc<Counts>) -> Self {
        counts.alive.fetch_add(1, Ordering::Relaxed);
        Self { key, counts: Arc::clone(counts), dropped: AtomicBool::new(false) }
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.counts.copies.fetch_add(1, Ordering::Relaxed);
        Self::new(self.key, &self.counts)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert!(!self.dropped.swap(true, Ordering::Relaxed), "dropped twice");
        self.counts.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

struct World {
    counts: Arc<Counts>,
    topic: Topic<Counted>,
    capacity: usize,
}

/// How many evicted segments a topic keeps to use again, while readers have stood in them.
const SPARE: usize = 4;

impl World {
    fn new(capacity: usize) -> Self {
        let topic = Topic::with(TopicOptions::default().capacity(capacity));
        Self { counts: Arc::default(), topic, capacity }
    }

    fn publish(&self, events: u32) {
        let mut batch = (0..events).map(|key| Counted::new(key, &self.counts)).collect();
        self.topic.publisher("test").try_publish_batch(&mut batch).expect("nobody holds it");
    }

    fn alive(&self) -> usize {
        self.counts.alive.load(Ordering::Relaxed)
    }

    fn segment(&self) -> usize {
        (self.capacity / 8).clamp(1, 128)
    }

    /// No more events are there than the window and so many segments hold.
    #[track_caller]
    fn assert_bounded(&self, held_segments: usize) {
        let bound = self.capacity + (2 + held_segments) * self.segment();
        assert!(self.alive() <= bound, "{} events, at most {bound} may be", self.alive());
    }

    #[track_caller]
    fn assert_nothing_remains(self) {
        let counts = Arc::clone(&self.counts);
        drop(self);
        assert_eq!(counts.alive.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn a_topic_that_nobody_reads_holds_its_capacity() {
    for capacity in [1, 7, 64, 3_000] {
        let world = World::new(capacity);
        for _ in 0..200 {
            world.publish(101);
            world.assert_bounded(0);
        }
        assert!(world.alive() >= capacity);
        world.assert_nothing_remains();
    }
}

#[test]
fn a_batch_that_is_held_keeps_its_own_segment_and_nothing_else() {
    let world = World::new(64);
    let mut stream = world.topic.subscribe().drop_oldest().stream();
    world.publish(20);
    let batch = stream.next().settled().expect("events").expect("open").expect("no log");
    assert_eq!(batch.len(), world.segment());
    drop(stream);
    for _ in 0..100 {
        world.publish(50);
        world.assert_bounded(1);
    }
    assert!(batch.iter().map(|event| event.key).eq(0..8));
    // It outlives its topic, and takes its segment along.
    let counts = Arc::clone(&world.counts);
    drop(world);
    assert_eq!(counts.alive.load(Ordering::Relaxed), batch.len());
    drop(batch);
    assert_eq!(counts.alive.load(Ordering::Relaxed), 0);
}

#[test]
fn batches_that_are_let_go_are_freed_but_for_a_few_segments() {
    let world = World::new(64);
    let mut stream = world.topic.subscribe().drop_oldest().stream();
    let mut batches = Vec::new();
    for _ in 0..50 {
        world.publish(8);
        batches.push(stream.next().settled());
    }
    assert!(world.alive() >= 50 * world.segment());
    drop((stream, batches));
    world.publish(8);
    world.assert_bounded(SPARE);
}

#[test]
fn a_subscriber_that_never_reads_costs_a_segment() {
    let world = World::new(64);
    let _readers: Vec<_> = (0..6)
        .map(|reader| {
            // Each in a segment of its own.
            world.publish(reader * 8);
            world.topic.subscribe().drop_oldest().open()
        })
        .collect();
    for _ in 0..100 {
        world.publish(50);
        world.assert_bounded(6);
    }
}

#[test]
fn a_subscription_by_key_holds_a_copy_for_each_key() {
    let world = World::new(16);
    let mut latest = world.topic.subscribe().latest_by(|event: &Counted| event.key % 5).open();
    for _ in 0..1_000 {
        world.publish(7);
        world.assert_bounded(1 + 5_usize.div_ceil(world.segment()));
    }
    let batch = latest.next().settled().expect("events").expect("no log");
    assert_eq!(batch.expect("it is open").len(), 5);
    // Five are in hand, and five are kept beside them.
    for _ in 0..1_000 {
        world.publish(7);
        world.assert_bounded(1 + 10_usize.div_ceil(world.segment()));
    }
    assert!(world.counts.copies.load(Ordering::Relaxed) > 0);
    drop(latest);
    world.publish(100);
    world.assert_bounded(1);
    world.assert_nothing_remains();
}

#[test]
fn a_subscription_by_key_that_keeps_up_holds_nothing_between_its_batches() {
    let world = World::new(16);
    let mut latest = world.topic.subscribe().latest_by(|event: &Counted| event.key).open();
    world.publish(100);
    latest.next().settled().expect("events").expect("no log").expect("it is open");
    world.publish(0);
    assert!(latest.next().settled().is_none());
    world.assert_bounded(1);
}

#[test]
fn publishers_that_wait_for_a_subscription_fill_the_topic_no_further() {
    let world = World::new(64);
    let mut subscription = world.topic.subscribe().open();
    let publisher = world.topic.publisher("test");
    for round in 0..50 {
        let mut batch = (0..200).map(|key| Counted::new(key, &world.counts)).collect::<Vec<_>>();
        assert!(publisher.try_publish_batch(&mut batch).is_err());
        drop(batch);
        world.assert_bounded(1);
        for _ in 0..round % 3 {
            subscription.next().settled();
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish(u32),
    Join(bool),
    Stream(bool),
    Read(Index),
    Take(Index),
    Leave(Index),
    LeaveStream(Index),
    LetGo(Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<Index>;
    let step = prop_oneof![
        6 => (0..60_u32).prop_map(Step::Publish),
        2 => any::<bool>().prop_map(Step::Join),
        2 => any::<bool>().prop_map(Step::Stream),
        3 => index().prop_map(Step::Read),
        3 => index().prop_map(Step::Take),
        1 => index().prop_map(Step::Leave),
        1 => index().prop_map(Step::LeaveStream),
        1 => index().prop_map(Step::LetGo),
    ];
    prop::collection::vec(step, 0..100)
}

/// Takes one out at random, if there is one.
fn pick<T>(from: &mut Vec<T>, index: Index) -> Option<T> {
    if from.is_empty() { None } else { Some(from.swap_remove(index.index(from.len()))) }
}

proptest! {
    // A failing case goes into a test of its own, not into a file beside this one.
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_is_bounded_by_the_capacity_and_those_who_hold_on(
        capacity in 1..64_usize,
        steps in steps(),
    ) {
        let world = World::new(capacity);
        let mut readers: Vec<Subscription<Counted>> = Vec::new();
        let mut streams: Vec<EventStream<Counted>> = Vec::new();
        let mut batches: Vec<SharedBatch<Counted>> = Vec::new();
        for step in steps {
            let subscribe = |from_oldest| {
                let subscribe = world.topic.subscribe().drop_oldest();
                if from_oldest { subscribe.from_oldest() } else { subscribe }
            };
            match step {
                Step::Publish(events) => world.publish(events),
                Step::Join(from_oldest) => readers.push(subscribe(from_oldest).open()),
                Step::Stream(from_oldest) => streams.push(subscribe(from_oldest).stream()),
                Step::Read(index) => {
                    if let Some(mut reader) = pick(&mut readers, index) {
                        reader.next().settled();
                        readers.push(reader);
                    }
                }
                Step::Take(index) => {
                    if let Some(mut stream) = pick(&mut streams, index) {
                        let batch = stream.next().settled().flatten();
                        batches.extend(batch.map(|batch| batch.expect("no log")));
                        streams.push(stream);
                    }
                }
                Step::Leave(index) => drop(pick(&mut readers, index)),
                Step::LeaveStream(index) => drop(pick(&mut streams, index)),
                Step::LetGo(index) => drop(pick(&mut batches, index)),
            }
            world.assert_bounded(SPARE + readers.len() + streams.len() + batches.len());
        }
        drop((readers, streams, batches));
        world.assert_nothing_remains();
    }
}
