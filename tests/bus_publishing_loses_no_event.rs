//! What is published is published once, and what is not is given back, is still there, or was dropped with the call that
//! was to publish it: also when that call is dropped while it waits.

#![expect(clippy::expect_used, reason = "helpers of tests fail where they panic")]

#[path = "support/settle.rs"]
mod settle;

use std::sync::Arc;

use tidings::{Hook, PublishError, Publisher, Subscription, Topic, TopicOptions, TransientEvent};

use self::settle::Settle;

/// Says how many of its kind are alive.
#[derive(TransientEvent)]
struct Numbered(u32, #[expect(dead_code, reason = "it is counted")] Arc<()>);

struct World {
    alive: Arc<()>,
    topic: Topic<Numbered>,
    publisher: Publisher<Numbered>,
    subscription: Subscription<Numbered>,
}

impl World {
    /// A topic with room for `capacity` events, and a subscription that publishers wait for.
    fn new(capacity: usize) -> Self {
        let topic = Topic::with(TopicOptions::default().capacity(capacity));
        let publisher = topic.publisher("test");
        let subscription = topic.subscribe().open();
        Self { alive: Arc::new(()), topic, publisher, subscription }
    }

    fn event(&self, number: u32) -> Numbered {
        Numbered(number, Arc::clone(&self.alive))
    }

    fn events(&self, numbers: std::ops::Range<u32>) -> Vec<Numbered> {
        numbers.map(|number| self.event(number)).collect()
    }

    fn alive(&self) -> usize {
        Arc::strong_count(&self.alive) - 1
    }

    /// What is there, read to the end; done with.
    fn read(&mut self) -> Vec<u32> {
        read(&mut self.subscription)
    }
}

fn read(subscription: &mut Subscription<Numbered>) -> Vec<u32> {
    let mut seen = Vec::new();
    while let Some(batch) = subscription.next().settled() {
        match batch.expect("no log is read") {
            Some(batch) => seen.extend(numbers(&batch)),
            None => break,
        }
    }
    seen
}

fn numbers(events: &[Numbered]) -> Vec<u32> {
    events.iter().map(|event| event.0).collect()
}

#[test]
fn a_publish_that_is_dropped_before_it_is_polled_publishes_nothing() {
    let mut world = World::new(4);
    drop(world.publisher.publish(world.event(1)));
    assert_eq!((world.read(), world.alive()), (vec![], 0));
    let mut events = world.events(0..3);
    drop(world.publisher.publish_batch(&mut events));
    assert_eq!((numbers(&events), world.read()), (vec![0, 1, 2], vec![]));
}

#[test]
fn a_publish_that_is_dropped_while_it_waits_publishes_nothing_and_wakes_the_others() {
    let mut world = World::new(4);
    for number in 0..4 {
        world.publisher.try_publish(world.event(number)).expect("there is room");
    }
    let mut dropped = world.publisher.publish(world.event(100));
    let mut waits = world.publisher.publish(world.event(4));
    for _ in 0..3 {
        assert!((&mut dropped).settled().is_none());
        assert!((&mut waits).settled().is_none());
    }
    drop(dropped);
    assert_eq!(world.alive(), 5);
    assert_eq!(read(&mut world.subscription), [0, 1, 2, 3]);
    waits.settled().expect("there is room").expect("the topic is open");
    assert_eq!(world.read(), [4]);
}

#[test]
fn a_publish_that_was_ready_has_published_whatever_is_dropped_then() {
    let mut world = World::new(4);
    let mut publish = world.publisher.publish(world.event(1));
    (&mut publish).settled().expect("there is room").expect("the topic is open");
    drop(publish);
    assert_eq!(read(&mut world.subscription), [1]);
}

#[test]
fn a_batch_that_is_dropped_at_any_point_leaves_the_rest_in_the_vector() {
    const EVENTS: u32 = 20;
    for polls in 0..12 {
        let mut world = World::new(3);
        let mut events = world.events(0..EVENTS);
        let mut seen = Vec::new();
        {
            let mut publish = Box::pin(world.publisher.publish_batch(&mut events));
            for _ in 0..polls {
                match publish.as_mut().settled() {
                    Some(outcome) => {
                        outcome.expect("the topic is open");
                        break;
                    }
                    None => seen.extend(read(&mut world.subscription)),
                }
            }
        }
        let (published, left) = (world.topic.status().published, numbers(&events));
        let expected: Vec<_> = (u32::try_from(published).expect("few")..EVENTS).collect();
        assert_eq!(left, expected);
        while world.publisher.try_publish_batch(&mut events).is_err() {
            seen.extend(world.read());
        }
        seen.extend(world.read());
        assert!(seen.iter().copied().eq(0..EVENTS), "{polls} polls: {seen:?}");
    }
}

#[test]
fn a_full_topic_gives_back_the_event_and_leaves_the_rest_of_a_batch() {
    let mut world = World::new(4);
    let mut events = world.events(0..6);
    let outcome = world.publisher.try_publish_batch(&mut events);
    assert!(matches!(outcome, Err(PublishError::Full(()))));
    assert_eq!(numbers(&events), [4, 5]);
    match world.publisher.try_publish(events.remove(0)) {
        Err(PublishError::Full(event)) => assert_eq!(event.0, 4),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.read(), [0, 1, 2, 3]);
}

#[test]
fn a_batch_finds_all_the_room_that_readers_have_made_or_left() {
    let mut world = World::new(4);
    let mut events = world.events(0..3);
    world.publisher.try_publish_batch(&mut events).expect("there is room");
    assert_eq!(world.read(), [0, 1, 2]);
    let mut events = world.events(3..7);
    world.publisher.try_publish_batch(&mut events).expect("there is room for four");
    assert_eq!(world.read(), [3, 4, 5, 6]);

    let World { publisher, subscription, alive, .. } = world;
    drop(subscription);
    let mut events = (0..100).map(|number| Numbered(number, Arc::clone(&alive))).collect();
    publisher.try_publish_batch(&mut events).expect("nobody holds it");
}

#[test]
fn a_batch_of_nothing_waits_for_nobody() {
    struct LeavesOutAll;
    impl Hook<Numbered> for LeavesOutAll {
        fn admits(&self, _: &'static str, event: &Numbered) -> bool {
            event.0 == 0
        }
    }
    let topic = Topic::with(TopicOptions::default().capacity(1).hook(LeavesOutAll));
    let alive = Arc::new(());
    let _holds = topic.subscribe().open();
    let publisher = topic.publisher("test");
    publisher.try_publish(Numbered(0, Arc::clone(&alive))).expect("there is room");

    let mut nothing = Vec::new();
    publisher.try_publish_batch(&mut nothing).expect("nothing is full");
    publisher.publish_batch_blocking(&mut nothing).expect("nothing is full");
    let mut left_out = vec![Numbered(1, alive)];
    let published = publisher.publish_batch(&mut left_out).settled();
    published.expect("nothing waits").expect("nothing is full");
    assert!(left_out.is_empty());
    topic.close();
    let outcome = publisher.try_publish_batch(&mut nothing);
    assert!(matches!(outcome, Err(PublishError::Closed(()))));
}

#[test]
fn a_closed_topic_gives_everything_back_also_to_those_who_wait() {
    let mut world = World::new(2);
    let mut events = world.events(0..5);
    let mut batch = Box::pin(world.publisher.publish_batch(&mut events));
    assert!(batch.as_mut().settled().is_none());
    let mut publish = world.publisher.publish(world.event(100));
    assert!((&mut publish).settled().is_none());
    world.topic.close();

    let outcome = publish.settled().expect("nothing waits in a closed topic");
    assert_eq!(outcome.expect_err("it is closed").into_event().0, 100);
    let outcome = batch.settled().expect("nothing waits in a closed topic");
    assert!(matches!(outcome, Err(PublishError::Closed(()))));
    assert_eq!(numbers(&events), [2, 3, 4]);
    for outcome in [
        world.publisher.try_publish(world.event(6)),
        world.publisher.publish_blocking(world.event(6)),
        world.publisher.publish(world.event(6)).settled().expect("it is closed"),
    ] {
        assert!(matches!(outcome, Err(PublishError::Closed(Numbered(6, _)))));
    }
    let outcome = world.publisher.publish_batch_blocking(&mut events);
    assert!(matches!(outcome, Err(PublishError::Closed(()))));
    assert_eq!(numbers(&events), [2, 3, 4]);
    assert_eq!(world.read(), [0, 1]);
}

#[test]
fn a_capacity_without_bound_is_one() {
    let topic = Topic::with(TopicOptions::default().capacity(usize::MAX));
    let mut subscription = topic.subscribe().open();
    let publisher = topic.publisher("test");
    let alive = Arc::new(());
    for number in 0..10_000 {
        publisher.try_publish(Numbered(number, Arc::clone(&alive))).expect("there is room");
    }
    assert!(read(&mut subscription).into_iter().eq(0..10_000));
}

/// Panics when it is dropped, if it is the second.
#[derive(TransientEvent)]
struct Vengeful(u32);

impl Drop for Vengeful {
    fn drop(&mut self) {
        assert_ne!(self.0, 2, "as asked");
    }
}

#[test]
fn an_old_event_whose_drop_panics_keeps_no_new_one_out() {
    let topic = Topic::with(TopicOptions::default().capacity(2));
    let publisher = topic.publisher("test");
    let mut subscription = topic.subscribe().open();
    let mut seen = Vec::new();
    for first in (1..=9).step_by(2) {
        let mut events = vec![Vengeful(first), Vengeful(first + 1)];
        publisher.try_publish_batch(&mut events).expect("there is room");
        while let Ok(Some(batch)) = subscription.try_next() {
            seen.extend(batch.iter().map(|event| event.0));
        }
    }
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
}
