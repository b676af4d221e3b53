//! Whatever publishers, subscribers and their policies do between each other, in whichever shape they read: under `Block`
//! nothing is missed and publishers stay within the capacity, under `DropOldest` the count of what is missed is exact, under
//! `Latest` what comes is the newest of each key. A model that fits on a page says what must come.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail where they panic"
)]

#[path = "support/settle.rs"]
mod settle;

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;

use actix::{Actor, Context};
use futures_util::StreamExt;
use proptest::prelude::*;
use proptest::sample::Index;
use tidings::{
    Batch, BatchSubscriber, EventIter, EventStream, Overflow, PublishError, Publisher, Subscribe,
    Subscriber, Subscription, SubscriptionError, SubscriptionHandle, Topic, TopicOptions,
    TransientEvent,
};

use self::settle::Settle;

#[derive(Debug, Clone, Copy, PartialEq, Eq, TransientEvent)]
struct Event {
    id: u64,
    key: u8,
}

/// What one call of a subscriber's code got.
struct Delivered {
    missed: u64,
    events: Vec<Event>,
}

type Log = Rc<RefCell<Vec<Delivered>>>;

enum Reader {
    Open(Subscription<Event>),
    Stream(EventStream<Event>),
    Iter(EventIter<Event>),
    ForEach(Pin<Box<dyn Future<Output = Result<(), SubscriptionError>>>>, Log),
    Actor(Option<SubscriptionHandle>, Log),
}

/// An actor of either shape.
struct Notes {
    log: Log,
    missed: u64,
}

impl Actor for Notes {
    type Context = Context<Self>;
}

impl Subscriber<Event> for Notes {
    fn receive(&mut self, event: &Event, _: &mut Context<Self>) {
        let missed = std::mem::take(&mut self.missed);
        self.log.borrow_mut().push(Delivered { missed, events: vec![*event] });
    }

    fn missed(&mut self, events: u64, _: &mut Context<Self>) {
        self.missed += events;
    }
}

impl BatchSubscriber<Event> for Notes {
    fn receive(&mut self, batch: Batch<'_, Event>, _: &mut Context<Self>) {
        self.log
            .borrow_mut()
            .push(Delivered { missed: batch.missed(), events: batch.events().to_vec() });
    }
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Open,
    Stream,
    Iter,
    ForEach,
    Actor,
    BatchActor,
}

impl Reader {
    fn begin(subscribe: Subscribe<Event>, shape: Shape) -> Self {
        let log = Log::default();
        let notes = Notes { log: log.clone(), missed: 0 };
        let mut handle = None;
        match shape {
            Shape::Open => return Self::Open(subscribe.open()),
            Shape::Stream => return Self::Stream(subscribe.stream()),
            Shape::Iter => return Self::Iter(subscribe.iter()),
            Shape::ForEach => {
                let notes = log.clone();
                let each = subscribe.for_each(async move |batch: Batch<'_, Event>| {
                    let delivered =
                        Delivered { missed: batch.missed(), events: batch.events().to_vec() };
                    notes.borrow_mut().push(delivered);
                });
                return Self::ForEach(Box::pin(each), log);
            }
            Shape::Actor => Notes::create(|ctx| {
                handle = Some(subscribe.actor::<Notes, _>(ctx));
                notes
            }),
            Shape::BatchActor => Notes::create(|ctx| {
                handle = Some(subscribe.batch_actor::<Notes, _>(ctx));
                notes
            }),
        };
        Self::Actor(handle, log)
    }

    /// Polls once; an actor runs until it has received the event `last`. `unread` says that there is something.
    async fn read(&mut self, last: Option<Event>, unread: bool) -> Vec<Delivered> {
        let next = match self {
            Self::Open(subscription) => subscription.next().settled().map(|next| {
                next.expect("no log").map(|batch| Delivered {
                    missed: batch.missed(),
                    events: batch.events().to_vec(),
                })
            }),
            Self::Stream(stream) => stream.next().settled().map(|next| {
                next.map(|batch| {
                    let batch = batch.expect("no log");
                    Delivered { missed: batch.missed(), events: batch.to_vec() }
                })
            }),
            Self::Iter(_) if !unread => None,
            Self::Iter(iter) => Some(iter.next().map(|batch| {
                let batch = batch.expect("no log");
                Delivered { missed: batch.missed(), events: batch.to_vec() }
            })),
            Self::ForEach(each, log) => {
                if let Some(end) = each.as_mut().settled() {
                    end.expect("no log");
                }
                return log.take();
            }
            Self::Actor(_, log) => {
                for _ in 0..1_000 {
                    tokio::task::yield_now().await;
                    let received = log.borrow().last().and_then(|d| d.events.last().copied());
                    if received == last || !unread {
                        return log.take();
                    }
                }
                panic!("the actor does not receive");
            }
        };
        next.flatten().into_iter().collect()
    }

    /// Whether one poll takes all that is there, and is done with it.
    fn takes_all(&self) -> bool {
        matches!(self, Self::ForEach(..) | Self::Actor(..))
    }

    fn can_be_asked(&self, unread: bool) -> bool {
        unread || !matches!(self, Self::Iter(_))
    }
}

/// A subscription and what the model says of it.
struct Subscribed {
    reader: Reader,
    name: String,
    overflow: Overflow,
    /// How many of the published events are behind it: delivered, missed, or older than itself.
    passed: usize,
    /// How many of them it has told to be done with.
    done: usize,
    delivered: u64,
    missed: u64,
    since: usize,
}

struct Waiting {
    publish: Pin<Box<dyn Future<Output = Result<(), PublishError<Event>>>>>,
    event: Event,
}

struct World {
    topic: Topic<Event>,
    capacity: usize,
    publishers: Vec<Publisher<Event>>,
    published: Vec<Event>,
    subscribed: Vec<Subscribed>,
    waiting: Vec<Waiting>,
    named: usize,
    made: u64,
}

impl World {
    fn new(capacity: usize) -> Self {
        let topic = Topic::with(TopicOptions::default().capacity(capacity));
        let publishers = ["one", "two", "three"].map(|name| topic.publisher(name)).into();
        Self {
            topic,
            capacity,
            publishers,
            published: Vec::new(),
            subscribed: Vec::new(),
            waiting: Vec::new(),
            named: 0,
            made: 0,
        }
    }

    fn event(&mut self, key: u8) -> Event {
        self.made += 1;
        Event { id: self.made, key }
    }

    /// How many events the model lets publishers write.
    fn room(&self) -> usize {
        let blocking = self.subscribed.iter().filter(|s| s.overflow == Overflow::Block);
        let behind = blocking.map(|s| s.done).min();
        behind
            .map_or(usize::MAX, |done| (done + self.capacity).saturating_sub(self.published.len()))
    }

    #[track_caller]
    fn published_or_full(&mut self, event: Event, outcome: Result<(), PublishError<Event>>) {
        match outcome {
            Ok(()) => {
                assert!(self.room() > 0, "published without room");
                self.published.push(event);
            }
            Err(PublishError::Full(back)) => {
                assert_eq!(self.room(), 0, "given back though there is room");
                assert_eq!(back, event);
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn publish_batch(&mut self, publisher: Index, keys: &[u8]) {
        let events: Vec<_> = keys.iter().map(|key| self.event(*key)).collect();
        let mut left = events.clone();
        let outcome = publisher.get(&self.publishers).try_publish_batch(&mut left);
        let fitting = events.len().min(self.room());
        assert_eq!(left, events[fitting..]);
        match outcome {
            Ok(()) => assert!(left.is_empty()),
            Err(PublishError::Full(())) => assert!(!left.is_empty()),
            Err(other) => panic!("{other:?}"),
        }
        self.published.extend_from_slice(&events[..fitting]);
    }

    fn wait(&mut self, publisher: Index, key: u8) {
        let event = self.event(key);
        let publisher = publisher.get(&self.publishers).clone();
        let publish = Box::pin(async move { publisher.publish(event).await });
        self.waiting.push(Waiting { publish, event });
        self.poll_waiting(self.waiting.len() - 1);
    }

    fn poll_waiting(&mut self, index: usize) {
        let mut waiting = self.waiting.swap_remove(index);
        match waiting.publish.as_mut().settled() {
            Some(outcome) => {
                outcome.expect("a publish that waits ends when it is published");
                assert!(self.room() > 0, "published without room");
                self.published.push(waiting.event);
            }
            None => {
                assert_eq!(self.room(), 0, "waits though there is room");
                self.waiting.push(waiting);
            }
        }
    }

    fn subscribe(&mut self, shape: Shape, overflow: Overflow, from_oldest: bool) {
        self.named += 1;
        let name = self.named.to_string();
        let mut subscribe = self.topic.subscribe().named(&*name);
        subscribe = match overflow {
            Overflow::DropOldest => subscribe.drop_oldest(),
            Overflow::Latest => subscribe.latest_by(|event: &Event| event.key),
            _ => subscribe,
        };
        let mut since = self.published.len();
        if from_oldest {
            subscribe = subscribe.from_oldest();
            since -= self.topic.status().retained;
        }
        let reader = Reader::begin(subscribe, shape);
        let (passed, done) = (since, since);
        let (delivered, missed) = (0, 0);
        self.subscribed.push(Subscribed {
            reader,
            name,
            overflow,
            passed,
            done,
            delivered,
            missed,
            since,
        });
    }

    async fn read(&mut self, index: usize) {
        match self.subscribed[index].reader {
            Reader::Actor(..) => self.read_actors().await,
            _ => self.read_one(index).await,
        }
    }

    /// All of them, since they run whenever the test lets one run.
    async fn read_actors(&mut self) {
        for index in 0..self.subscribed.len() {
            if let Reader::Actor(..) = self.subscribed[index].reader {
                self.read_one(index).await;
            }
        }
    }

    async fn read_one(&mut self, index: usize) {
        let subscribed = &mut self.subscribed[index];
        let unread = subscribed.passed < self.published.len();
        if !subscribed.reader.can_be_asked(unread) {
            return;
        }
        let retained = self.topic.status().retained;
        subscribed.done = subscribed.passed;
        let last = self.published.last().copied();
        let delivered = subscribed.reader.read(last, unread).await;
        assert_eq!(delivered.is_empty(), !unread);
        if subscribed.overflow == Overflow::Latest {
            let events: Vec<_> = delivered.iter().flat_map(|d| d.events.clone()).collect();
            assert_eq!(events, newest_of_each_key(&self.published[subscribed.passed..]));
            assert!(delivered.iter().all(|d| d.missed == 0));
            subscribed.passed = self.published.len();
        } else {
            for Delivered { missed, events } in delivered {
                assert!(!events.is_empty());
                if missed > 0 {
                    assert_eq!(subscribed.overflow, Overflow::DropOldest);
                    assert!(self.published.len() - subscribed.passed > self.capacity);
                    subscribed.passed += usize::try_from(missed).expect("a small number");
                    assert_eq!(subscribed.passed, self.published.len() - retained);
                    subscribed.done = subscribed.passed;
                }
                let end = subscribed.passed + events.len();
                assert_eq!(events, self.published[subscribed.passed..end]);
                subscribed.passed = end;
                subscribed.missed += missed;
                subscribed.delivered += events.len() as u64;
            }
            let seen_or_missed = subscribed.delivered + subscribed.missed;
            assert_eq!(seen_or_missed, (subscribed.passed - subscribed.since) as u64);
        }
        if subscribed.reader.takes_all() {
            assert_eq!(subscribed.passed, self.published.len());
            subscribed.done = subscribed.passed;
        }
    }

    /// What the status says is what the model says.
    fn check(&self) {
        let status = self.topic.status();
        let (published, segment) = (self.published.len(), (self.capacity / 8).max(1));
        assert_eq!(status.published, published as u64);
        assert!(status.retained < self.capacity + 2 * segment);
        assert!(status.retained >= self.capacity.min(published));
        assert_eq!(status.subscriptions.len(), self.subscribed.len());
        for said in status.subscriptions {
            let subscribed = self.subscribed.iter().find(|s| *s.name == *said.name);
            let subscribed = subscribed.expect("it is subscribed");
            let behind = (published - subscribed.done) as u64;
            // What is kept for it by key counts as done.
            let folded = subscribed.overflow == Overflow::Latest && said.lag < behind;
            assert!(said.lag == behind || folded, "{said:?}, expected {behind}");
            // What it will find to be gone counts already.
            let gone = (published - status.retained).saturating_sub(subscribed.done) as u64;
            let gone = if subscribed.overflow == Overflow::DropOldest { gone } else { 0 };
            assert_eq!(said.missed, subscribed.missed + gone);
        }
    }

    async fn end(mut self) {
        self.topic.close();
        for waiting in self.waiting {
            match waiting.publish.settled().expect("closing ends the wait") {
                Err(PublishError::Closed(event)) => assert_eq!(event, waiting.event),
                other => panic!("{other:?}"),
            }
        }
        self.waiting = Vec::new();
        for index in 0..self.subscribed.len() {
            while self.subscribed[index].passed < self.published.len() {
                self.read(index).await;
            }
        }
    }
}

fn newest_of_each_key(events: &[Event]) -> Vec<Event> {
    let newest: HashMap<u8, u64> = events.iter().map(|event| (event.key, event.id)).collect();
    events.iter().filter(|event| newest[&event.key] == event.id).copied().collect()
}

#[derive(Debug, Clone)]
enum Step {
    TryPublish(Index, u8),
    PublishBatch(Index, Vec<u8>),
    /// Publishes, and waits if it must.
    Publish(Index, u8),
    PollWaiting(Index),
    CancelWaiting(Index),
    Subscribe(Shape, Overflow, bool),
    Read(Index),
    ReadAll(Index),
    Leave(Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<Index>;
    let key = 0..5_u8;
    let shape = prop_oneof![
        Just(Shape::Open),
        Just(Shape::Stream),
        Just(Shape::Iter),
        Just(Shape::ForEach),
        Just(Shape::Actor),
        Just(Shape::BatchActor),
    ];
    let overflow =
        prop_oneof![Just(Overflow::Block), Just(Overflow::DropOldest), Just(Overflow::Latest)];
    let batch = prop::collection::vec(key.clone(), 0..90);
    let step = prop_oneof![
        6 => (index(), key.clone()).prop_map(|(publisher, key)| Step::TryPublish(publisher, key)),
        3 => (index(), batch).prop_map(|(publisher, keys)| Step::PublishBatch(publisher, keys)),
        2 => (index(), key).prop_map(|(publisher, key)| Step::Publish(publisher, key)),
        2 => index().prop_map(Step::PollWaiting),
        1 => index().prop_map(Step::CancelWaiting),
        2 => (shape, overflow, any::<bool>()).prop_map(|(s, o, oldest)| Step::Subscribe(s, o, oldest)),
        8 => index().prop_map(Step::Read),
        2 => index().prop_map(Step::ReadAll),
        1 => index().prop_map(Step::Leave),
    ];
    prop::collection::vec(step, 0..120)
}

impl World {
    async fn step(&mut self, step: Step) {
        match step {
            Step::TryPublish(publisher, key) => {
                let event = self.event(key);
                let outcome = publisher.get(&self.publishers).try_publish(event);
                self.published_or_full(event, outcome);
            }
            Step::PublishBatch(publisher, keys) => self.publish_batch(publisher, &keys),
            Step::Publish(publisher, key) => self.wait(publisher, key),
            Step::PollWaiting(_) | Step::CancelWaiting(_) if self.waiting.is_empty() => {}
            Step::PollWaiting(index) => self.poll_waiting(index.index(self.waiting.len())),
            Step::CancelWaiting(index) => {
                let index = index.index(self.waiting.len());
                drop(self.waiting.swap_remove(index));
            }
            Step::Subscribe(shape, overflow, from_oldest) => {
                self.subscribe(shape, overflow, from_oldest);
            }
            Step::Read(_) | Step::ReadAll(_) | Step::Leave(_) if self.subscribed.is_empty() => {}
            Step::Read(index) => self.read(index.index(self.subscribed.len())).await,
            Step::ReadAll(index) => {
                let index = index.index(self.subscribed.len());
                while self.subscribed[index].passed < self.published.len() {
                    self.read(index).await;
                }
            }
            Step::Leave(index) => {
                let index = index.index(self.subscribed.len());
                match self.subscribed.swap_remove(index).reader {
                    Reader::Actor(mut handle, log) => {
                        drop(handle.take());
                        self.read_actors().await;
                        assert!(log.borrow().is_empty(), "received after it has left");
                    }
                    reader => drop(reader),
                }
            }
        }
    }
}

proptest! {
    // A failing case goes into a test of its own, not into a file beside this one.
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_policy_keeps_its_word_in_every_shape(capacity in 1..64_usize, steps in steps()) {
        actix::System::new().block_on(async {
            let mut world = World::new(capacity);
            for step in steps {
                world.step(step).await;
                world.check();
            }
            world.end().await;
        });
    }
}
