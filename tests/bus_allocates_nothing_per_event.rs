//! Publishing an event and delivering it allocates nothing once a topic has been used: not for the event, not for the
//! delivery, not to wait and to wake. A test binary of its own, since it counts the allocations of its thread.

#[path = "support/settle.rs"]
mod settle;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::rc::Rc;

use actix::{Actor, Context};
use tidings::{
    Batch, BatchSubscriber, PublishError, Publisher, Subscriber, Topic, TopicOptions,
    TransientEvent,
};

use self::settle::Settle;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator cannot be written otherwise")]
// SAFETY: every call goes to the system's allocator unchanged; a counter without a destructor allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[derive(Debug, Clone, Copy, TransientEvent)]
struct Tick(u64);

const WARM_UP: u64 = 20_000;
const EVENTS: u64 = 100_000;

fn topic() -> (Topic<Tick>, Publisher<Tick>) {
    let topic = Topic::with(TopicOptions::default().capacity(1_024));
    let publisher = topic.publisher("clock");
    (topic, publisher)
}

/// What `work` does with the numbers of the events allocates nothing after a warm-up.
#[track_caller]
fn assert_allocates_nothing(mut work: impl FnMut(u64)) {
    (0..WARM_UP).for_each(&mut work);
    let before = ALLOCATIONS.get();
    (WARM_UP..WARM_UP + EVENTS).for_each(&mut work);
    assert_eq!(ALLOCATIONS.get() - before, 0, "allocations for {EVENTS} events");
}

#[test]
fn allocations_are_counted() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

#[test]
fn publishing_to_nobody() {
    let (_topic, publisher) = topic();
    assert_allocates_nothing(|number| publisher.try_publish(Tick(number)).expect("room"));
}

#[test]
fn publishing_one_by_one_and_reading_at_once_or_behind() {
    // Batches of one, within a segment, over segments, and a good part of the capacity.
    for behind in [1, 5, 300, 800] {
        let (topic, publisher) = topic();
        let mut open = topic.subscribe().open();
        let mut iter = topic.subscribe().iter();
        let mut expected = 0;
        let mut iterated = 0;
        assert_allocates_nothing(|number| {
            publisher.publish(Tick(number)).settled().expect("room").expect("it is open");
            if (number + 1) % behind == 0 {
                while let Some(batch) = open.next().settled() {
                    let batch = batch.expect("no log").expect("it is open");
                    for tick in batch {
                        assert_eq!(tick.0, expected);
                        expected += 1;
                    }
                }
                while iterated < expected {
                    let batch = iter.next().expect("it is open").expect("no log");
                    iterated += batch.len() as u64;
                }
            }
        });
    }
}

#[test]
fn publishing_batches_from_a_vector_that_is_used_again() {
    let (topic, publisher) = topic();
    let mut open = topic.subscribe().open();
    let mut batch = Vec::with_capacity(50);
    let mut seen = 0;
    assert_allocates_nothing(|number| {
        batch.push(Tick(number));
        if batch.len() == 50 {
            publisher.publish_batch(&mut batch).settled().expect("room").expect("open");
            while let Some(batch) = open.next().settled() {
                seen += batch.expect("no log").expect("it is open").len();
            }
        }
    });
    assert_eq!(seen as u64, WARM_UP + EVENTS);
}

#[test]
fn subscribers_that_drop_the_oldest_and_fall_behind() {
    let (topic, publisher) = topic();
    let mut never = topic.subscribe().drop_oldest().open();
    let mut seldom = topic.subscribe().drop_oldest().open();
    let mut passed = 0;
    assert_allocates_nothing(|number| {
        publisher.try_publish(Tick(number)).expect("nobody holds it");
        if number % 3_000 == 0 {
            while let Some(batch) = seldom.next().settled() {
                let batch = batch.expect("no log").expect("it is open");
                passed += batch.missed() + batch.len() as u64;
            }
            assert_eq!(passed, number + 1);
        }
    });
    never.next().settled();
}

#[test]
fn waiting_for_events_and_for_room() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (topic, publisher) = topic();
    let mut subscription = topic.subscribe().open();
    runtime.block_on(async {
        let publishing = async {
            let mut before = 0;
            for number in 0..WARM_UP + EVENTS {
                if number == WARM_UP {
                    before = ALLOCATIONS.get();
                }
                publisher.publish(Tick(number)).await.expect("it is open");
            }
            let after = ALLOCATIONS.get();
            topic.close();
            after - before
        };
        let reading = async {
            let mut seen = 0;
            while let Some(batch) = subscription.next().await.expect("no log") {
                seen += batch.len() as u64;
            }
            seen
        };
        let (allocations, seen) = tokio::join!(publishing, reading);
        assert_eq!((allocations, seen), (0, WARM_UP + EVENTS));
    });
}

#[test]
fn handling_by_a_closure() {
    let (topic, publisher) = topic();
    let mut seen = 0;
    let mut each = Box::pin(topic.subscribe().for_each(async |batch: Batch<'_, Tick>| {
        seen += batch.len() as u64;
    }));
    assert_allocates_nothing(|number| {
        publisher.try_publish(Tick(number)).expect("room");
        if number % 10 == 9 {
            assert!(each.as_mut().settled().is_none());
        }
    });
    drop(each);
    assert_eq!(seen, WARM_UP + EVENTS);
}

struct Counts(Rc<Cell<u64>>);

impl Actor for Counts {
    type Context = Context<Self>;
}

impl Subscriber<Tick> for Counts {
    fn receive(&mut self, _: &Tick, _: &mut Context<Self>) {
        self.0.set(self.0.get() + 1);
    }
}

impl BatchSubscriber<Tick> for Counts {
    fn receive(&mut self, batch: Batch<'_, Tick>, _: &mut Context<Self>) {
        self.0.set(self.0.get() + batch.len() as u64);
    }
}

#[test]
fn receiving_by_actors() {
    for in_batches in [false, true] {
        actix::System::new().block_on(async {
            let (topic, publisher) = topic();
            let seen = Rc::new(Cell::new(0));
            Counts::create(|ctx| {
                let subscribe = topic.subscribe();
                if in_batches {
                    subscribe.batch_actor::<Counts, _>(ctx).detach();
                } else {
                    subscribe.actor::<Counts, _>(ctx).detach();
                }
                Counts(Rc::clone(&seen))
            });
            let mut before = 0;
            for number in 0..WARM_UP + EVENTS {
                if number == WARM_UP {
                    before = ALLOCATIONS.get();
                }
                publisher.publish(Tick(number)).await.expect("it is open");
                if number % 100 == 99 {
                    while seen.get() <= number {
                        tokio::task::yield_now().await;
                    }
                }
            }
            assert_eq!(ALLOCATIONS.get() - before, 0, "in batches: {in_batches}");
        });
    }
}

#[test]
fn an_event_that_is_given_back() {
    let (topic, publisher) = topic();
    let _holds = topic.subscribe().open();
    for number in 0..1_024 {
        publisher.try_publish(Tick(number)).expect("room");
    }
    assert_allocates_nothing(|number| {
        let outcome = publisher.try_publish(Tick(number));
        assert!(matches!(outcome, Err(PublishError::Full(Tick(back))) if back == number));
    });
}

#[test]
fn keeping_the_latest_once_all_keys_were_seen() {
    // A delivery is a list of its own; what nobody takes costs nothing.
    let (topic, publisher) = topic();
    let _never = topic.subscribe().latest_by(|tick: &Tick| tick.0 % 100).open();
    assert_allocates_nothing(|number| publisher.try_publish(Tick(number)).expect("room"));
}
