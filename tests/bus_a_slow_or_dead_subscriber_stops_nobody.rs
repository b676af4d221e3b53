//! Only a subscription that blocks holds publishers, only when it is a whole capacity behind, and only as long as it lives:
//! it lets all of them go when it reads on, is dropped, panics, stops or is ended by its handle, and when the topic closes.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail where they panic")]

#[path = "support/settle.rs"]
mod settle;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use actix::{Actor, ActorContext};
use futures_util::StreamExt;
use tidings::testing::TopicFeed;
use tidings::{
    Batch, BatchSubscriber, PublishError, Publisher, Subscriber, SubscriptionError,
    SubscriptionHandle, Topic, TopicOptions, TransientEvent,
};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};

use self::settle::Settle;

#[derive(Debug, Clone, Copy, PartialEq, Eq, TransientEvent)]
struct Tick(u32);

/// Segments hold two events then.
const CAPACITY: u32 = 16;

fn topic() -> (Topic<Tick>, Publisher<Tick>) {
    let topic = Topic::with(TopicOptions::default().capacity(CAPACITY as usize));
    let publisher = topic.publisher("clock");
    (topic, publisher)
}

fn publish(publisher: &Publisher<Tick>, ticks: std::ops::Range<u32>) {
    for tick in ticks {
        publisher.try_publish(Tick(tick)).expect("there is room");
    }
}

#[track_caller]
fn assert_full(publisher: &Publisher<Tick>) {
    match publisher.try_publish(Tick(999)) {
        Err(PublishError::Full(Tick(999))) => {}
        other => panic!("{other:?}"),
    }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A publisher that waits for room, and knows whether it was woken since it was polled.
struct Waiting {
    publish: Pin<Box<dyn Future<Output = Result<(), PublishError<Tick>>> + Send>>,
    woken: Arc<Woken>,
    polled_at: u32,
}

impl Waiting {
    /// Waits, since there is no room.
    #[track_caller]
    fn begin(publisher: &Publisher<Tick>, tick: u32) -> Self {
        let publisher = publisher.clone();
        let publish = Box::pin(async move { publisher.publish(Tick(tick)).await });
        let mut waiting = Self { publish, woken: Arc::default(), polled_at: 0 };
        assert!(waiting.poll().is_none(), "there is room");
        assert!(!waiting.is_woken());
        waiting
    }

    fn poll(&mut self) -> Option<Result<(), PublishError<Tick>>> {
        self.polled_at = self.woken.0.load(Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&self.woken));
        match self.publish.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Relaxed) > self.polled_at
    }
}

/// All of them were woken and can publish.
#[track_caller]
fn assert_let_go(waiting: Vec<Waiting>) {
    assert!(waiting.iter().all(Waiting::is_woken), "one that waits was not woken");
    for mut waiting in waiting {
        waiting.poll().expect("there is room").expect("the topic is open");
    }
}

/// Fills the topic, which a subscription holds, and lets three publishers wait for it.
#[track_caller]
fn fill(publisher: &Publisher<Tick>) -> Vec<Waiting> {
    publish(publisher, 0..CAPACITY);
    assert_full(publisher);
    (0..3).map(|n| Waiting::begin(publisher, CAPACITY + n)).collect()
}

fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(async {
        let test = tokio::time::timeout(Duration::from_secs(30), test);
        test.await.expect("the test hangs");
    });
}

// Those that hold nobody.

#[test]
fn a_subscription_that_drops_the_oldest_or_keeps_the_latest_never_holds_a_publisher() {
    let (topic, publisher) = topic();
    let _never_reads = topic.subscribe().drop_oldest().open();
    let _never_reads = topic.subscribe().drop_oldest().from_oldest().stream();
    let _never_reads = topic.subscribe().latest_by(|tick: &Tick| tick.0 % 3).open();
    let mut reads_once = topic.subscribe().drop_oldest().open();
    publish(&publisher, 0..1);
    let batch = reads_once.next().settled().expect("an event").expect("no log");
    publish(&publisher, 1..1_000);
    assert_eq!(batch.expect("an event").events(), [Tick(0)]);
    assert_eq!(topic.status().published, 1_000);
}

#[test]
fn a_subscription_that_goes_to_the_log_never_holds_its_publisher() {
    let feed = TopicFeed::<u32>::new("numbers", 4);
    let _never_reads = feed.topic().subscribe().open();
    feed.publish(feed.envelopes(0..1_000));
    assert_eq!(feed.topic().status().published, 1_000);
}

#[test]
fn an_actor_that_never_gets_to_its_events_holds_nobody_when_it_drops_the_oldest() {
    struct Busy;
    impl Actor for Busy {
        type Context = actix::Context<Self>;
    }
    impl Subscriber<Tick> for Busy {
        fn receive(&mut self, _: &Tick, _: &mut actix::Context<Self>) {
            panic!("it has no turn");
        }
    }
    run(async {
        let (topic, publisher) = topic();
        Busy::create(|ctx| {
            topic.subscribe().drop_oldest().actor::<Busy, _>(ctx).detach();
            Busy
        });
        publish(&publisher, 0..1_000);
    });
}

// Those that hold, and let go.

#[test]
fn a_subscription_that_stops_reading_holds_all_publishers_until_it_reads_on() {
    let (topic, publisher) = topic();
    let mut slow = topic.subscribe().open();
    let mut fast = topic.subscribe().open();
    let mut waiting = fill(&publisher);
    while fast.next().settled().is_some() {}
    assert!(waiting.iter_mut().all(|waiting| waiting.poll().is_none()), "the slow one holds them");
    // What it was given is not done with before it asks for more.
    slow.next().settled().expect("events").expect("no log");
    assert_full(&publisher);
    while slow.next().settled().is_some() {}
    assert_let_go(waiting);
    assert_eq!(topic.status().published, u64::from(CAPACITY) + 3);
}

#[test]
fn a_stream_and_an_iterator_let_publishers_go_when_they_read_on() {
    let (topic, publisher) = topic();
    let mut stream = topic.subscribe().stream();
    let mut iter = topic.subscribe().iter();
    let waiting = fill(&publisher);
    while stream.next().settled().is_some() {}
    let mut seen = 0;
    while seen < CAPACITY as usize {
        seen += iter.next().expect("events").expect("no log").len();
    }
    assert_let_go(waiting);
}

#[test]
fn publishers_that_wait_on_threads_are_let_go_when_it_reads_on() {
    let (topic, publisher) = topic();
    let iter = topic.subscribe().iter();
    publish(&publisher, 0..CAPACITY);
    assert_full(&publisher);
    let threads: Vec<_> = (0..3)
        .map(|thread: u32| {
            let publisher = publisher.clone();
            thread::spawn(move || {
                for tick in 0..50 {
                    publisher.publish_blocking(Tick(thread * 100 + tick)).expect("it is open");
                }
                let mut batch = (50..100).map(|tick| Tick(thread * 100 + tick)).collect();
                publisher.publish_batch_blocking(&mut batch).expect("it is open");
            })
        })
        .collect();
    let mut seen = Vec::new();
    for batch in iter {
        seen.extend(batch.expect("no log").iter().map(|tick| tick.0));
        if seen.len() == CAPACITY as usize + 300 {
            break;
        }
    }
    threads.into_iter().for_each(|thread| thread.join().expect("a publisher"));
    for thread in 0..3 {
        let own = seen.iter().skip(CAPACITY as usize).filter(|tick| *tick / 100 == thread);
        assert!(own.copied().eq(thread * 100..(thread + 1) * 100));
    }
}

#[test]
fn dropping_a_subscription_of_any_shape_lets_publishers_go() {
    let (topic, publisher) = topic();
    let open = topic.subscribe().open();
    let waiting = fill(&publisher);
    drop(open);
    assert_let_go(waiting);

    let stream = topic.subscribe().stream();
    let waiting = fill(&publisher);
    drop(stream);
    assert_let_go(waiting);

    let iter = topic.subscribe().iter();
    let waiting = fill(&publisher);
    drop(iter);
    assert_let_go(waiting);

    let for_each = topic.subscribe().for_each(async |_: Batch<'_, Tick>| {});
    let waiting = fill(&publisher);
    drop(for_each);
    assert_let_go(waiting);
}

#[test]
fn a_reader_that_goes_half_way_lets_publishers_go_for_as_much() {
    let (topic, publisher) = topic();
    let mut subscription = topic.subscribe().open();
    let mut waiting = fill(&publisher);
    waiting.extend((0..7).map(|n| Waiting::begin(&publisher, 100 + n)));
    for _ in 0..5 {
        // Eight events are done with then.
        subscription.next().settled().expect("events").expect("no log");
    }
    assert!(waiting.iter().all(Waiting::is_woken));
    let outcomes: Vec<_> = waiting.iter_mut().map(|w| w.poll().is_some()).collect();
    assert_eq!(outcomes, [[true; 8].as_slice(), &[false; 2]].concat());
    drop(subscription);
    assert_let_go(waiting.split_off(8));
}

#[test]
fn a_task_that_is_aborted_while_its_closure_waits_lets_publishers_go() {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).build();
    runtime.expect("a runtime").block_on(async {
        let (topic, publisher) = topic();
        let (entered, mut enters) = mpsc::channel(1);
        let each = topic.subscribe().for_each(async move |_: Batch<'_, Tick>| {
            entered.send(()).await.expect("the test listens");
            std::future::pending::<()>().await;
        });
        let task = tokio::spawn(each);
        publish(&publisher, 0..1);
        enters.recv().await.expect("it handles the first");
        publish(&publisher, 1..CAPACITY);
        assert_full(&publisher);
        let waiting = vec![Waiting::begin(&publisher, 4), Waiting::begin(&publisher, 5)];
        task.abort();
        assert!(task.await.expect_err("it was aborted").is_cancelled());
        assert_let_go(waiting);
    });
}

#[test]
fn a_closure_that_panics_lets_publishers_go() {
    let (topic, publisher) = topic();
    let mut each = Box::pin(topic.subscribe().for_each(async |_: Batch<'_, Tick>| {
        panic!("as asked");
    }));
    let waiting = fill(&publisher);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        each.as_mut().settled();
    }));
    assert!(panicked.is_err());
    // What the future held was dropped with it, though the future is still there.
    assert_let_go(waiting);
}

// Actors.

/// What an actor does with what it receives.
enum Does {
    Panics,
    Stops,
    /// Says that it is busy, and goes on when it is told to.
    Waits(std::sync::mpsc::Sender<u32>, std::sync::mpsc::Receiver<()>),
}

struct Acts {
    does: Does,
    told: mpsc::UnboundedSender<Told>,
}

#[derive(Debug, PartialEq)]
enum Told {
    Received(u32),
    Unsubscribed,
    Stopped,
}

impl Acts {
    fn act(&mut self, tick: u32, ctx: &mut actix::Context<Self>) {
        self.told.send(Told::Received(tick)).ok();
        match &self.does {
            Does::Panics => panic!("as asked"),
            Does::Stops => ctx.stop(),
            Does::Waits(busy, go_on) => {
                busy.send(tick).expect("the test listens");
                go_on.recv().ok();
            }
        }
    }
}

impl Actor for Acts {
    type Context = actix::Context<Self>;

    fn stopped(&mut self, _: &mut actix::Context<Self>) {
        self.told.send(Told::Stopped).ok();
    }
}

impl Subscriber<Tick> for Acts {
    fn receive(&mut self, tick: &Tick, ctx: &mut actix::Context<Self>) {
        self.act(tick.0, ctx);
    }

    fn unsubscribed(
        &mut self,
        outcome: Result<(), SubscriptionError>,
        _: &mut actix::Context<Self>,
    ) {
        outcome.expect("no log is read");
        self.told.send(Told::Unsubscribed).ok();
    }
}

impl BatchSubscriber<Tick> for Acts {
    fn receive(&mut self, batch: Batch<'_, Tick>, ctx: &mut actix::Context<Self>) {
        let first = batch.first().expect("a batch is not empty");
        self.act(first.0, ctx);
    }
}

/// An actor of the current system that subscribes in one shape or the other.
fn act(
    topic: &Topic<Tick>,
    does: Does,
    in_batches: bool,
) -> (SubscriptionHandle, mpsc::UnboundedReceiver<Told>) {
    let (told, hear) = mpsc::unbounded_channel();
    let mut handle = None;
    Acts::create(|ctx| {
        handle = Some(if in_batches {
            topic.subscribe().batch_actor::<Acts, _>(ctx)
        } else {
            topic.subscribe().actor::<Acts, _>(ctx)
        });
        Acts { does, told }
    });
    (handle.expect("it subscribes"), hear)
}

#[test]
fn an_actor_that_panics_lets_publishers_go() {
    for in_batches in [false, true] {
        run(async {
            let (topic, publisher) = topic();
            let (handle, mut told) = act(&topic, Does::Panics, in_batches);
            handle.detach();
            let waiting = fill(&publisher);
            assert_eq!(told.recv().await, Some(Told::Received(0)));
            assert_eq!(told.recv().await, Some(Told::Stopped));
            assert_let_go(waiting);
            assert_eq!(topic.status().subscribers, 0);
        });
    }
}

#[test]
fn an_actor_that_stops_lets_publishers_go() {
    for in_batches in [false, true] {
        run(async {
            let (topic, publisher) = topic();
            let (handle, mut told) = act(&topic, Does::Stops, in_batches);
            let waiting = fill(&publisher);
            assert_eq!(told.recv().await, Some(Told::Received(0)));
            assert_eq!(told.recv().await, Some(Told::Stopped));
            assert_eq!(told.recv().await, None);
            assert_let_go(waiting);
            assert_eq!(topic.status().subscribers, 0);
            drop(handle);
        });
    }
}

#[test]
fn a_handle_that_is_dropped_while_its_actor_is_busy_lets_publishers_go_at_once() {
    for in_batches in [false, true] {
        let (topic, publisher) = topic();
        let (busy, is_busy) = std::sync::mpsc::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel();
        let (give_handle, handle) = std::sync::mpsc::channel();
        let actors = thread::spawn({
            let topic = topic.clone();
            move || {
                let mut received = Vec::new();
                run(async {
                    let does = Does::Waits(busy, goes_on);
                    let (handle, mut told) = act(&topic, does, in_batches);
                    give_handle.send(handle).expect("the test takes it");
                    while let Some(told) = told.recv().await {
                        received.push(told);
                    }
                });
                received
            }
        });
        let handle = handle.recv().expect("the actor starts");
        let waiting = fill(&publisher);
        assert_eq!(is_busy.recv(), Ok(0));
        assert!(!waiting.iter().any(Waiting::is_woken));

        drop(handle);
        assert_let_go(waiting);
        assert_eq!(topic.status().subscriptions, []);
        go_on.send(()).expect("the actor waits for it");
        let received = actors.join().expect("the actors");
        assert_eq!(received, [Told::Received(0), Told::Stopped], "batches: {in_batches}");
    }
}

#[test]
fn a_handle_that_its_own_actor_drops_ends_what_it_receives() {
    struct Leaves(Option<SubscriptionHandle>, Option<oneshot::Sender<Vec<u32>>>, Vec<u32>);
    impl Actor for Leaves {
        type Context = actix::Context<Self>;
        fn stopped(&mut self, _: &mut actix::Context<Self>) {
            let received = std::mem::take(&mut self.2);
            self.1.take().expect("it stops once").send(received).ok();
        }
    }
    impl Subscriber<Tick> for Leaves {
        fn receive(&mut self, tick: &Tick, _: &mut actix::Context<Self>) {
            self.2.push(tick.0);
            if tick.0 == 2 {
                drop(self.0.take());
            }
        }
    }
    run(async {
        let (topic, publisher) = topic();
        let (received, receives) = oneshot::channel();
        Leaves::create(|ctx| {
            Leaves(Some(topic.subscribe().actor::<Leaves, _>(ctx)), Some(received), Vec::new())
        });
        let waiting = fill(&publisher);
        // In the middle of a batch.
        assert_eq!(receives.await, Ok(vec![0, 1, 2]));
        assert_let_go(waiting);
    });
}

// The end.

#[test]
fn closing_wakes_publishers_and_subscriptions_deliver_what_there_was_and_end() {
    let (topic, publisher) = topic();
    let mut open = topic.subscribe().open();
    let mut stream = topic.subscribe().stream();
    let iter = topic.subscribe().iter();
    let waiting = fill(&publisher);
    topic.close();
    assert!(waiting.iter().all(Waiting::is_woken));
    for (mut waiting, tick) in waiting.into_iter().zip(CAPACITY..) {
        let outcome = waiting.poll().expect("nothing waits in a closed topic");
        let given_back = outcome.expect_err("it is closed");
        assert!(matches!(given_back, PublishError::Closed(Tick(back)) if back == tick));
    }

    let expected: Vec<_> = (0..CAPACITY).map(Tick).collect();
    let mut seen = Vec::new();
    while let Some(batch) = open.next().settled().expect("closed").expect("no log") {
        seen.extend_from_slice(batch.events());
    }
    assert_eq!(seen, expected);
    assert!(open.next().settled().expect("closed").expect("no log").is_none());
    let mut seen = Vec::new();
    while let Some(batch) = stream.next().settled().expect("closed") {
        seen.extend_from_slice(&batch.expect("no log"));
    }
    assert_eq!(seen, expected);
    let seen: Vec<_> = iter.flat_map(|batch| batch.expect("no log").to_vec()).collect();
    assert_eq!(seen, expected);
}

#[test]
fn closing_wakes_those_who_sleep() {
    let (topic, publisher) = topic();
    let iter = topic.subscribe().iter();
    let (seen, sees) = std::sync::mpsc::channel();
    let reads = thread::spawn(move || {
        for batch in iter {
            seen.send(batch.expect("no log").len()).expect("the test listens");
        }
    });
    publish(&publisher, 0..1);
    assert_eq!(sees.recv(), Ok(1));
    while topic.status().idle == 0 {
        thread::yield_now();
    }
    topic.close();
    reads.join().expect("it ends");
}

#[test]
fn actors_hear_of_the_end_once_they_have_received_everything() {
    run(async {
        let (topic, publisher) = topic();
        let (busy, _is_busy) = std::sync::mpsc::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel();
        drop(go_on);
        let (handle, mut told) = act(&topic, Does::Waits(busy, goes_on), false);
        publish(&publisher, 0..2);
        topic.close();
        for expected in [Told::Received(0), Told::Received(1), Told::Unsubscribed] {
            assert_eq!(told.recv().await, Some(expected));
        }
        drop(handle);
    });
}
