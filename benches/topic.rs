//! One publisher, subscribers that check what they get: the topic beside `tokio::sync::broadcast` doing the same work.
//!
//! `cargo bench --bench topic --features testing [-- --json]`
//!
//! Each figure is the median of five rounds; a round measures every subject once, so that a change of the machine's
//! speed falls on all of them. Each subscriber checks order, count and sum; a mistake ends the run. The event has 40
//! bytes and travels in an `Envelope`, as in an app. Publishers hold back when a subscriber is a whole window behind, in
//! every subject, so that nothing is lost and the topic's log is never needed. Allocations are counted in a round of
//! its own, after a first half that fills the window. The baseline carries the same type; broadcast clones it for each
//! receiver. Broadcast of an `Arc` of it, which copies less and allocates for each event, stands beside it.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark ends where something is wrong"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, Arbiter, Context};
use tidings::testing::TopicFeed;
use tidings::{
    Batch, BatchSubscriber, Envelope, Header, Position, StreamId, Timestamp, Topic, Version,
};
use tokio::sync::broadcast;

const EVENTS: u64 = 1 << 20;
const WINDOW: usize = 4_096;
const ROUNDS: usize = 5;

#[derive(Clone, Copy)]
struct Moved {
    from: u64,
    to: u64,
    cents: u64,
    fee: u64,
    number: u64,
}

/// Makes the events of one run; the same for every subject.
struct Source {
    blank: Header,
    number: u64,
}

impl Source {
    fn new() -> Self {
        let stream = StreamId::new("account", "1").expect("a stream");
        let blank = Header::new(stream, "account.moved", 1, Timestamp::from_micros(0));
        Self { blank, number: 0 }
    }

    #[inline]
    fn next(&mut self) -> Envelope<Moved> {
        self.number += 1;
        let number = self.number;
        let mut header = self.blank.clone();
        header.position = Position::new(number);
        header.version = Version::new(number);
        let event = Moved { from: number & 7, to: number & 3, cents: number, fee: 1, number };
        Envelope { header, event }
    }
}

/// What a subscriber does with each event, and how it knows that it was all.
#[derive(Default)]
struct Check {
    seen: u64,
    sum: u64,
}

impl Check {
    #[inline]
    fn see(&mut self, envelope: &Envelope<Moved>) {
        let event = &envelope.event;
        assert_eq!(event.number, self.seen + 1, "out of order");
        self.seen = event.number;
        self.sum += event.cents + event.fee + event.from + event.to;
    }

    fn verify(&self, events: u64) {
        let expected: u64 = (1..=events).map(|n| n + 1 + (n & 7) + (n & 3)).sum();
        assert_eq!((self.seen, self.sum), (events, expected), "lost or repeated");
    }
}

/// How far a subscriber is; in a cache line pair of its own.
#[repr(align(128))]
#[derive(Default)]
struct Ack(AtomicU64);

/// Holds the publisher back when the slowest subscriber is a window behind.
struct Gate {
    acks: Vec<Arc<Ack>>,
    open_until: u64,
}

impl Gate {
    fn new(subscribers: usize) -> Self {
        let acks = (0..subscribers).map(|_| Arc::default()).collect();
        Self { acks, open_until: WINDOW as u64 }
    }

    /// Once the window is full, half of it must be free again: no thread switch for each event.
    #[inline]
    fn pass(&mut self, number: u64) {
        if number <= self.open_until {
            return;
        }
        while number + WINDOW as u64 / 2 > self.open_until {
            let acks = self.acks.iter().map(|ack| ack.0.load(Ordering::Acquire));
            self.open_until = acks.min().unwrap_or(0) + WINDOW as u64;
            thread::yield_now();
        }
    }
}

struct Folder {
    topic: Topic<Envelope<Moved>>,
    events: u64,
    check: Check,
    ack: Arc<Ack>,
    started: Sender<()>,
    done: Sender<()>,
}

impl Actor for Folder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.topic.subscribe().batch_actor(ctx).detach();
        self.started.send(()).expect("the bench waits");
    }
}

impl BatchSubscriber<Envelope<Moved>> for Folder {
    fn receive(&mut self, batch: Batch<'_, Envelope<Moved>>, ctx: &mut Context<Self>) {
        for envelope in batch {
            self.check.see(envelope);
        }
        self.ack.0.store(self.check.seen, Ordering::Release);
        if self.check.seen == self.events {
            self.check.verify(self.events);
            self.done.send(()).expect("the bench waits");
            ctx.stop();
        }
    }
}

struct Run {
    elapsed: Duration,
    /// Allocations of the whole process after the first half, in which the window was filled.
    allocations: u64,
}

/// Publishes all events through `publish`, which gets the number of the first and how many there are.
fn drive(events: u64, batch: u64, gate: &mut Gate, mut publish: impl FnMut(u64)) -> (Instant, u64) {
    let begin = Instant::now();
    let mut number = 0;
    let mut before = 0;
    while number < events {
        if number == events / 2 {
            before = ALLOCATIONS.load(Ordering::Relaxed);
        }
        let n = batch.min(events - number);
        number += n;
        gate.pass(number);
        publish(n);
    }
    (begin, before)
}

fn wait(subscribers: usize, signal: &mpsc::Receiver<()>) {
    for _ in 0..subscribers {
        signal.recv_timeout(Duration::from_secs(60)).expect("a subscriber stopped short");
    }
}

fn publish_all(feed: &TopicFeed<Moved>, batch: u64, gate: &mut Gate) -> (Instant, u64) {
    let mut source = Source::new();
    let mut publisher = feed.publisher();
    drive(EVENTS, batch, gate, |n| {
        publisher.publish((0..n).map(|_| source.next()));
    })
}

fn topic_actors(arbiter: &Arbiter, batch: u64, subscribers: usize) -> Run {
    let feed = TopicFeed::<Moved>::new("account", WINDOW);
    let mut gate = Gate::new(subscribers);
    let (done, all_done) = mpsc::channel();
    let (started, all_started) = mpsc::channel();
    for ack in &gate.acks {
        let folder = Folder {
            topic: feed.topic(),
            events: EVENTS,
            check: Check::default(),
            ack: ack.clone(),
            started: started.clone(),
            done: done.clone(),
        };
        Folder::start_in_arbiter(&arbiter.handle(), move |_| folder);
    }
    wait(subscribers, &all_started);
    let (begin, before) = publish_all(&feed, batch, &mut gate);
    wait(subscribers, &all_done);
    Run::end(begin, before)
}

fn topic_tasks(arbiter: &Arbiter, batch: u64, subscribers: usize) -> Run {
    let feed = TopicFeed::<Moved>::new("account", WINDOW);
    let mut gate = Gate::new(subscribers);
    let (done, all_done) = mpsc::channel();
    for ack in &gate.acks {
        let (ack, done) = (ack.clone(), done.clone());
        let mut subscription = feed.topic().subscribe().open();
        arbiter.spawn(async move {
            let mut check = Check::default();
            while check.seen < EVENTS {
                let batch = subscription.next().await.expect("no log is read");
                batch.into_iter().flatten().for_each(|e| check.see(e));
                ack.0.store(check.seen, Ordering::Release);
            }
            check.verify(EVENTS);
            done.send(()).expect("the bench waits");
        });
    }
    let (begin, before) = publish_all(&feed, batch, &mut gate);
    wait(subscribers, &all_done);
    Run::end(begin, before)
}

/// `wrap` says how the envelope travels, `see` how it is looked at.
fn tokio_broadcast<T: Clone + Send + 'static>(
    arbiter: &Arbiter,
    subscribers: usize,
    wrap: fn(Envelope<Moved>) -> T,
    see: fn(&T) -> &Envelope<Moved>,
) -> Run {
    let (sender, _) = broadcast::channel(WINDOW);
    let mut gate = Gate::new(subscribers);
    let (done, all_done) = mpsc::channel();
    for ack in &gate.acks {
        let (ack, done) = (ack.clone(), done.clone());
        let mut receiver = sender.subscribe();
        arbiter.spawn(async move {
            let mut check = Check::default();
            while check.seen < EVENTS {
                let envelope = receiver.recv().await.expect("nothing is lost");
                check.see(see(&envelope));
                if check.seen.is_multiple_of(64) {
                    ack.0.store(check.seen, Ordering::Release);
                }
            }
            check.verify(EVENTS);
            done.send(()).expect("the bench waits");
        });
    }
    let mut source = Source::new();
    let (begin, before) = drive(EVENTS, 1, &mut gate, |_| {
        let sent = sender.send(wrap(source.next()));
        assert!(sent.is_ok(), "a subscriber is gone");
    });
    wait(subscribers, &all_done);
    Run::end(begin, before)
}

/// The limit: one thread writes events into a slice and folds them with every subscriber's check.
fn bare_loop(batch: u64, subscribers: usize) -> Run {
    let mut source = Source::new();
    let mut slice: Vec<_> = (0..WINDOW).map(|_| source.next()).collect();
    source.number = 0;
    let mut checks: Vec<_> = (0..subscribers).map(|_| Check::default()).collect();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let begin = Instant::now();
    let mut at = 0;
    for _ in 0..EVENTS / batch {
        let written = &mut slice[at..at + batch as usize];
        for slot in &mut *written {
            *slot = source.next();
        }
        let written = black_box(written);
        for check in &mut checks {
            for envelope in &*written {
                check.see(envelope);
            }
        }
        at = (at + batch as usize) % WINDOW;
    }
    let run = Run::end(begin, before);
    checks.iter().for_each(|check| check.verify(EVENTS));
    run
}

impl Run {
    fn end(begin: Instant, before: u64) -> Self {
        Self { elapsed: begin.elapsed(), allocations: ALLOCATIONS.load(Ordering::Relaxed) - before }
    }
}

type Subject = Box<dyn Fn(&Arbiter) -> Run>;

const BASELINE: &str = "tokio broadcast, envelopes";

fn subjects(batch: u64, subscribers: usize) -> Vec<(&'static str, Subject)> {
    vec![
        (
            BASELINE,
            Box::new(move |arbiter| {
                tokio_broadcast(arbiter, subscribers, |envelope| envelope, |envelope| envelope)
            }),
        ),
        (
            "tokio broadcast, Arc of envelope",
            Box::new(move |arbiter| {
                tokio_broadcast(arbiter, subscribers, Arc::new, |envelope| envelope)
            }),
        ),
        ("topic, actix actors", Box::new(move |arbiter| topic_actors(arbiter, batch, subscribers))),
        ("topic, tasks", Box::new(move |arbiter| topic_tasks(arbiter, batch, subscribers))),
        ("bare loop over a slice, one thread", Box::new(move |_| bare_loop(batch, subscribers))),
    ]
}

fn main() {
    let json = std::env::args().any(|arg| arg == "--json");
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let _system = actix::System::new();
    let arbiter = Arbiter::new();
    for (setting, batch, subscribers) in [
        ("4 subscribers, one by one", 1, 4),
        ("4 subscribers, batches of 64", 64, 4),
        ("1 subscriber, one by one", 1, 1),
        ("64 subscribers, batches of 64", 64, 64),
    ] {
        let mut subjects = subjects(batch, subscribers);
        if let Some(filter) = &filter {
            subjects.retain(|(subject, _)| format!("{setting}: {subject}").contains(filter));
        }
        let mut seconds = vec![Vec::new(); subjects.len()];
        for _ in 0..ROUNDS {
            for ((_, run), seconds) in subjects.iter().zip(&mut seconds) {
                seconds.push(run(&arbiter).elapsed.as_secs_f64());
            }
        }
        let deliveries = (EVENTS * subscribers as u64) as f64;
        let rates: Vec<f64> = seconds.into_iter().map(|s| deliveries / median(s)).collect();
        let baseline = rates.first().copied().unwrap_or(f64::NAN);
        if !json {
            println!("\n1 publisher, {setting}");
            println!(
                "{:36} {:>14} {:>9} {:>9} {:>14}",
                "", "M deliveries/s", "ns each", "ratio", "allocs/event"
            );
        }
        for ((subject, run), rate) in subjects.iter().zip(&rates) {
            COUNTING.store(true, Ordering::Relaxed);
            let allocations = run(&arbiter).allocations as f64 / (EVENTS / 2) as f64;
            COUNTING.store(false, Ordering::Relaxed);
            let ratio = rate / baseline;
            if json {
                println!(
                    r#"{{"bench":"topic","case":"{setting}: {subject}","value":{:.2},"unit":"M deliveries/s","baseline":{:.2},"ratio":{ratio:.2},"allocations_per_event":{allocations:.4}}}"#,
                    rate / 1e6,
                    baseline / 1e6,
                );
            } else {
                println!(
                    "{subject:36} {:14.1} {:9.2} {ratio:9.2} {allocations:14.4}",
                    rate / 1e6,
                    1e9 / rate
                );
            }
        }
    }
    arbiter.stop();
    arbiter.join().expect("the arbiter panicked");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Counts allocations while asked to; a load otherwise.
struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator cannot be written otherwise")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTING.load(Ordering::Relaxed) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}
