//! An event that a handler publishes is one deeper than the event that it handles, whichever shape the handler has and
//! whatever it waits for. So a circle of handlers ends at the depth that was stated, and nothing else does.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail where they panic")]

#[path = "support/settle.rs"]
mod settle;

use std::cell::RefCell;
use std::future::ready;
use std::rc::Rc;

use actix::{Actor, Context};
use tidings::{
    Batch, BatchSubscriber, PublishError, Publisher, Subscribe, Subscriber, Topic, TopicOptions,
    TransientEvent,
};

use self::settle::Settle;

struct Hop<const FROM: u8>;

impl<const FROM: u8> TransientEvent for Hop<FROM> {
    const NAME: &'static str = if FROM == 0 { "ping" } else { "pong" };
}

type Ping = Hop<0>;
type Pong = Hop<1>;

impl<const FROM: u8> Clone for Hop<FROM> {
    fn clone(&self) -> Self {
        Self
    }
}

/// One half of a circle: publishes into the other topic for each event of its own.
#[derive(Clone)]
struct Half<const TO: u8> {
    into: Publisher<Hop<TO>>,
    /// The depth of each event that was published, or refused.
    told: Rc<RefCell<Vec<Result<u8, u8>>>>,
}

impl<const TO: u8> Half<TO> {
    /// Notes how an answer to an event of `depth` ended.
    fn note(&self, depth: Option<u8>, outcome: Result<(), PublishError<Hop<TO>>>) {
        let told = match outcome {
            Ok(()) => Ok(depth.map_or(0, |depth| depth + 1)),
            Err(PublishError::TooDeep { depth, .. }) => Err(depth),
            Err(error) => panic!("{error}"),
        };
        self.told.borrow_mut().push(told);
    }

    fn answer(&self, depth: Option<u8>) {
        self.note(depth, self.into.try_publish(Hop));
    }
}

impl<const TO: u8> Actor for Half<TO> {
    type Context = Context<Self>;
}

impl<const FROM: u8, const TO: u8> BatchSubscriber<Hop<FROM>> for Half<TO> {
    fn receive(&mut self, batch: Batch<'_, Hop<FROM>>, _: &mut Context<Self>) {
        batch.iter().for_each(|_| self.answer(Some(batch.causation_depth())));
    }
}

impl<const FROM: u8, const TO: u8> Subscriber<Hop<FROM>> for Half<TO> {
    fn receive(&mut self, _: &Hop<FROM>, _: &mut Context<Self>) {
        self.answer(None);
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Actor,
    BatchActor,
    AsyncClosure,
    ClosureThatReturnsAFuture,
    LatestActor,
}

fn begin<const FROM: u8, const TO: u8>(
    shape: Shape,
    subscribe: Subscribe<Hop<FROM>>,
    half: Half<TO>,
) {
    match shape {
        Shape::Actor => {
            Half::create(|ctx| {
                subscribe.actor::<Half<TO>, _>(ctx).detach();
                half
            });
        }
        Shape::BatchActor => {
            Half::create(|ctx| {
                subscribe.batch_actor::<Half<TO>, _>(ctx).detach();
                half
            });
        }
        Shape::LatestActor => {
            Half::create(|ctx| {
                subscribe.latest_by(|_| ()).batch_actor::<Half<TO>, _>(ctx).detach();
                half
            });
        }
        Shape::AsyncClosure => {
            actix::spawn(subscribe.for_each(async move |batch: Batch<'_, Hop<FROM>>| {
                for _ in batch {
                    tokio::task::yield_now().await;
                    let publish = half.into.publish(Hop);
                    tokio::task::yield_now().await;
                    half.note(Some(batch.causation_depth()), publish.await);
                }
            }));
        }
        Shape::ClosureThatReturnsAFuture => {
            actix::spawn(subscribe.for_each(move |batch: Batch<'_, Hop<FROM>>| {
                batch.iter().for_each(|_| half.answer(Some(batch.causation_depth())));
                ready(())
            }));
        }
    }
}

#[track_caller]
fn check_circle(there: Shape, back: Shape, depth: u8) {
    actix::System::new().block_on(async {
        let ping = Topic::<Ping>::with(TopicOptions::default().causation_depth(depth).capacity(8));
        let pong = Topic::<Pong>::with(TopicOptions::default().causation_depth(depth).capacity(8));
        let told = Rc::default();
        let half = Half { into: pong.publisher("there"), told: Rc::clone(&told) };
        begin(there, ping.subscribe(), half);
        let half = Half { into: ping.publisher("back"), told: Rc::clone(&told) };
        begin(back, pong.subscribe(), half);
        ping.publisher("first").publish(Hop).await.expect("there is room");

        for _ in 0..10_000 {
            tokio::task::yield_now().await;
            if told.borrow().last().is_some_and(Result::is_err) {
                break;
            }
        }
        let told = told.borrow();
        let refused = told.last().copied();
        assert_eq!(refused, Some(Err(depth)), "{there:?} and {back:?}");
        // The first one and each answer.
        let published = ping.status().published + pong.status().published;
        assert_eq!((told.len(), published), (usize::from(depth), u64::from(depth)));
        if there != Shape::Actor && back != Shape::Actor {
            let depths = told.iter().filter_map(|told| told.ok());
            assert!(depths.eq(1..depth), "{told:?}");
        }
        let status = ping.status();
        let publishes = status.subscriptions.iter().map(|known| known.publishes.clone());
        assert_eq!(publishes.collect::<Vec<_>>(), [["pong"]]);
    });
}

#[test]
fn two_topics_whose_handlers_answer_each_other_stop_at_the_stated_depth() {
    let shapes = [
        Shape::Actor,
        Shape::BatchActor,
        Shape::AsyncClosure,
        Shape::ClosureThatReturnsAFuture,
        Shape::LatestActor,
    ];
    for there in shapes {
        for back in shapes {
            check_circle(there, back, 7);
        }
    }
}

#[test]
fn the_depth_is_as_stated_from_one_to_the_most() {
    for depth in [1, 2, 64, 254, 255] {
        check_circle(Shape::BatchActor, Shape::AsyncClosure, depth);
    }
}

#[test]
fn a_topic_that_says_nothing_cuts_at_sixty_four() {
    actix::System::new().block_on(async {
        let topic = Topic::<Ping>::new();
        let told = Rc::default();
        let half = Half { into: topic.publisher("echo"), told: Rc::clone(&told) };
        begin(Shape::BatchActor, topic.subscribe(), half);
        topic.publisher("first").publish(Hop).await.expect("there is room");
        while told.borrow().last() != Some(&Err(64)) {
            tokio::task::yield_now().await;
        }
        assert_eq!(topic.status().published, 64);
    });
}

/// Of ten events into `into`, each third comes from a handler.
fn each_third_from_a_handler(into: &Topic<Pong>) {
    let cause = Topic::<Ping>::new();
    let publisher = into.publisher("both");
    let mut each = Box::pin(cause.subscribe().for_each(async |batch: Batch<'_, Ping>| {
        for _ in batch {
            publisher.publish(Hop).await.expect("there is room");
        }
    }));
    for number in 0..10 {
        if number % 3 == 2 {
            cause.publisher("cause").try_publish(Hop).expect("there is room");
            assert!(each.as_mut().settled().is_none());
        } else {
            publisher.try_publish(Hop).expect("there is room");
        }
    }
}

#[test]
fn what_no_handler_has_published_stays_at_zero_beside_what_one_has() {
    let expected = [(2, 0), (1, 1), (2, 0), (1, 1), (2, 0), (1, 1), (1, 0)];
    for latest in [false, true] {
        // All in one segment of sixteen.
        let topic = Topic::<Pong>::with(TopicOptions::default().capacity(128));
        let mut subscribe = topic.subscribe();
        if latest {
            let number = std::sync::atomic::AtomicU64::new(0);
            let each = move |_: &_| number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            subscribe = subscribe.latest_by(each);
        }
        let mut subscription = subscribe.open();
        each_third_from_a_handler(&topic);
        topic.close();
        let mut seen = Vec::new();
        while let Some(batch) = subscription.next().settled().expect("closed").expect("no log") {
            seen.push((batch.len(), batch.causation_depth()));
        }
        assert_eq!(seen, expected);
    }
}

#[test]
fn what_a_publisher_folds_for_a_slow_subscription_by_key_keeps_its_depth() {
    let topic = Topic::<Pong>::with(TopicOptions::default().capacity(1));
    let number = std::sync::atomic::AtomicU64::new(0);
    let each = move |_: &_| number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut subscription = topic.subscribe().latest_by(each).open();
    each_third_from_a_handler(&topic);
    topic.close();
    let mut seen = Vec::new();
    while let Some(batch) = subscription.next().settled().expect("closed").expect("no log") {
        seen.push((batch.len(), batch.causation_depth()));
    }
    assert_eq!(seen, [(2, 0), (1, 1), (2, 0), (1, 1), (2, 0), (1, 1), (1, 0)]);
}

#[test]
fn a_member_whose_closure_publishes_before_it_returns_its_future_is_followed() {
    let topic = Topic::<Ping>::with(TopicOptions::default().causation_depth(3));
    let publisher = topic.publisher("itself");
    let depths = RefCell::new(Vec::new());
    let group = topic.group("members", |_: &Ping| 0);
    publisher.try_publish(Hop).expect("there is room");
    let mut each = Box::pin(group.join().for_each(|_: &Ping| {
        let outcome = publisher.try_publish(Hop);
        if let Err(PublishError::TooDeep { depth, .. }) = &outcome {
            depths.borrow_mut().push(*depth);
        }
        if outcome.is_err() || topic.status().published > 9 {
            topic.close();
        }
        ready(())
    }));
    each.as_mut().settled();
    drop(each);
    assert_eq!((topic.status().published, depths.into_inner()), (3, vec![3]));
}

#[test]
fn what_runs_around_a_handler_has_its_own_depth_again_behind_it() {
    let topic = Topic::<Ping>::with(TopicOptions::default().causation_depth(1));
    let other = Topic::<Pong>::with(TopicOptions::default().causation_depth(1));
    let publisher = other.publisher("both");
    let mut each = Box::pin(topic.subscribe().for_each(async |batch: Batch<'_, Ping>| {
        for _ in batch {
            let refused = publisher.publish(Hop).await;
            assert!(matches!(refused, Err(PublishError::TooDeep { depth: 1, .. })));
        }
        panic!("as asked");
    }));
    topic.publisher("cause").try_publish(Hop).expect("there is room");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        each.as_mut().settled();
    }));
    assert!(panicked.is_err());
    publisher.try_publish(Hop).expect("no handler has caused it");
}
