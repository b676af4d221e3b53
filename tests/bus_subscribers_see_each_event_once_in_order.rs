//! A subscriber sees each event from its start on once, in order, with none missing: whenever it joins, however far it falls
//! behind, wherever the window and the log meet.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail where they panic"
)]

use std::sync::{Arc, Mutex};
use std::thread;

use futures_util::FutureExt;
use proptest::prelude::*;
use tidings::testing::TopicFeed;
use tidings::{Envelope, Header, Position, StreamId, Subscription, SubscriptionError, Timestamp};
use tokio::runtime;

/// A log and the topic that is fed from it, as an app has them.
struct Fed {
    log: Arc<Mutex<Vec<Envelope<u64>>>>,
    feed: TopicFeed<u64>,
    blank: Header,
    /// How many events of the log are published.
    published: usize,
}

impl Fed {
    /// The log holds `old` events that were committed before the app started.
    fn new(capacity: usize, old: &[u64]) -> Self {
        let stream = StreamId::new("test", "1").expect("a stream");
        let blank = Header::new(stream, "test.happened", 1, Timestamp::from_micros(0));
        let log = Arc::new(Mutex::new(Vec::<Envelope<u64>>::new()));
        push(&log, &blank, old);
        let reads = log.clone();
        let head = head(&log);
        let feed = TopicFeed::with_log("test", capacity, head, move |after, limit| {
            let log = reads.lock().expect("the log");
            let start = log.partition_point(|event| event.position <= after);
            // Smaller pages than asked for meet the window in more places.
            let events: Vec<_> = log[start..].iter().take(limit.min(5)).cloned().collect();
            let through = events.last().map_or(after, |event| event.position);
            Ok((events, through))
        });
        Self { published: old.len(), log, feed, blank }
    }

    /// Commits an event for each gap: as many positions are left to other topics before it.
    fn commit(&self, gaps: &[u64]) {
        push(&self.log, &self.blank, gaps);
    }

    /// Publishes the next `count` committed events as one batch.
    fn publish(&mut self, count: usize) {
        let log = self.log.lock().expect("the log");
        let end = log.len().min(self.published.saturating_add(count));
        let batch = log[self.published..end].to_vec();
        drop(log);
        self.published = end;
        self.feed.publish(batch);
    }

    fn published_position(&self) -> Position {
        let log = self.log.lock().expect("the log");
        let last = self.published.checked_sub(1);
        last.map_or(Position::START, |last| log[last].position)
    }

    fn after(&self, start: Position) -> Vec<Position> {
        let log = self.log.lock().expect("the log");
        let positions = log.iter().map(|event| event.position);
        positions.filter(|position| *position > start).collect()
    }
}

fn push(log: &Mutex<Vec<Envelope<u64>>>, blank: &Header, gaps: &[u64]) {
    let mut log = log.lock().expect("the log");
    for gap in gaps {
        let last = log.last().map_or(Position::START, |event| event.position);
        let mut header = blank.clone();
        header.position = last.plus(1 + gap);
        let event = header.position.as_u64();
        log.push(Envelope { header, event });
    }
}

fn head(log: &Mutex<Vec<Envelope<u64>>>) -> Position {
    let log = log.lock().expect("the log");
    log.last().map_or(Position::START, |event| event.position)
}

struct Reader {
    subscription: Subscription<Envelope<u64>>,
    start: Position,
    seen: Vec<Position>,
}

impl Reader {
    fn from_now(fed: &Fed) -> Self {
        let subscription = fed.feed.topic().subscribe().open();
        Self { subscription, start: fed.published_position(), seen: Vec::new() }
    }

    fn after(fed: &Fed, start: Position) -> Self {
        let subscription = fed.feed.topic().subscribe().after(start).open();
        Self { subscription, start, seen: Vec::new() }
    }

    async fn read(&mut self) -> bool {
        let batch = self.subscription.next().await.expect("the log can be read");
        let Some(batch) = batch else { return false };
        assert!(!batch.is_empty());
        self.seen.extend(batch.iter().map(|event| event.position));
        let last = *self.seen.last().expect("a batch");
        assert!(self.subscription.position() >= last);
        true
    }

    /// Polls until the reader sleeps, which it does not at once.
    fn sleep(&mut self, fed: &Fed) {
        let topic = fed.feed.topic();
        let idle = topic.status().idle;
        for _ in 0..100 {
            assert_eq!(self.read().now_or_never(), None);
        }
        assert_eq!(topic.status().idle, idle + 1);
    }

    async fn read_to_the_end(mut self, fed: &Fed) {
        while self.read().await {}
        assert_eq!(self.seen, fed.after(self.start));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<u64>),
    Publish(usize),
    Join,
    /// After the position of the event at this share of the log, or a bit further.
    JoinAfter(f64, u64),
    /// Reads, unless the next events are still on their way from the log.
    Read(prop::sample::Index),
    Leave(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec(0..3_u64, 1..12).prop_map(Step::Commit),
        4 => (1..12_usize).prop_map(Step::Publish),
        1 => Just(Step::Join),
        1 => (0.0..1.0, 0..3_u64).prop_map(|(share, more)| Step::JoinAfter(share, more)),
        6 => any::<prop::sample::Index>().prop_map(Step::Read),
        1 => any::<prop::sample::Index>().prop_map(Step::Leave),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    // A failing case goes into a test of its own, not into a file beside this one.
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_between_the_log_and_the_window(
        capacity in 1..40_usize,
        old in prop::collection::vec(0..3_u64, 0..20),
        steps in steps(),
    ) {
        let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut fed = Fed::new(capacity, &old);
            let mut readers = vec![
                Reader::after(&fed, Position::START),
                Reader::from_now(&fed),
            ];
            for step in steps {
                match step {
                    Step::Commit(gaps) => fed.commit(&gaps),
                    Step::Publish(count) => fed.publish(count),
                    Step::Join => readers.push(Reader::from_now(&fed)),
                    Step::JoinAfter(share, more) => {
                        let after = (head(&fed.log).as_u64() as f64 * share) as u64 + more;
                        let after = Position::new(after).min(head(&fed.log));
                        readers.push(Reader::after(&fed, after));
                    }
                    Step::Read(_) | Step::Leave(_) if readers.is_empty() => {}
                    Step::Read(index) => {
                        index.get_mut(&mut readers).read().now_or_never();
                    }
                    Step::Leave(index) => {
                        let reader = readers.swap_remove(index.index(readers.len()));
                        let expected = fed.after(reader.start);
                        prop_assert_eq!(&reader.seen, &expected[..reader.seen.len()]);
                    }
                }
                let status = fed.feed.topic().status();
                prop_assert_eq!(status.subscribers, readers.len());
                prop_assert!(status.retained < capacity + 2 * (capacity / 8).max(1));
                prop_assert!(status.retained >= capacity.min(status.published as usize));
            }
            fed.publish(usize::MAX);
            fed.feed.close();
            for reader in readers {
                reader.read_to_the_end(&fed).await;
            }
            Ok(())
        })?;
    }
}

#[test]
fn readers_on_other_threads_come_and_go_while_the_window_runs_away_from_them() {
    const EVENTS: usize = 30_000;
    for capacity in [1, 16, 1_024] {
        let runtime =
            runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
        let mut fed = Fed::new(capacity, &[0; 7]);
        let topic = fed.feed.topic();
        let readers: Vec<_> = (0..6_u64)
            .map(|n| {
                let topic = topic.clone();
                runtime.spawn(async move {
                    let mut seen = Vec::new();
                    let mut position = Position::START;
                    // Leaves and comes back every few batches, as after a restart.
                    'joined: loop {
                        let mut subscription = topic.subscribe().after(position).open();
                        for turn in 0..=(n * 40) {
                            match subscription.next().await.expect("the log can be read") {
                                Some(batch) => seen.extend(batch.iter().map(|e| e.position)),
                                None => break 'joined,
                            }
                            position = subscription.position();
                            if (turn + n) % 3 == 0 {
                                tokio::task::yield_now().await;
                            }
                        }
                    }
                    seen
                })
            })
            .collect();
        let mut left = EVENTS;
        let mut size = 1;
        while left > 0 {
            let batch = size.min(left);
            let gaps: Vec<u64> = (0..batch as u64).map(|n| n % 2).collect();
            fed.commit(&gaps);
            fed.publish(batch);
            left -= batch;
            size = size * 7 % 61 + 1;
            if size.is_multiple_of(4) {
                thread::yield_now();
            }
        }
        fed.feed.close();
        let expected = fed.after(Position::START);
        for reader in readers {
            let seen = runtime.block_on(reader).expect("a reader");
            assert!(seen == expected, "capacity {capacity}");
        }
        assert_eq!(topic.status().subscribers, 0);
    }
}

#[test]
fn every_wake_up_arrives_when_a_reader_sleeps_after_each_event() {
    const ROUNDS: u64 = 20_000;
    let fed = Fed::new(64, &[]);
    let feed = fed.feed;
    let mut there = feed.topic().subscribe().open();
    let back = TopicFeed::<u64>::new("back", 64);
    let mut home = back.topic().subscribe().open();
    let echo = thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async move {
            while let Some(batch) = there.next().await.expect("no log is read") {
                let events: Vec<u64> = batch.iter().map(|envelope| envelope.event).collect();
                back.publish(back.envelopes(events));
            }
        });
    });
    let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        for round in 1..=ROUNDS {
            feed.publish(feed.envelopes([round]));
            let batch = home.next().await.expect("no log is read");
            let events: Vec<u64> = batch.into_iter().flatten().map(|e| e.event).collect();
            assert_eq!(events, [round]);
        }
    });
    feed.close();
    echo.join().expect("the echo");
}

#[test]
fn a_batch_is_readable_however_far_the_window_moves_on() {
    let mut fed = Fed::new(8, &[]);
    let mut reader = fed.feed.topic().subscribe().open();
    fed.commit(&[0; 100]);
    fed.publish(1);
    let batch = reader.next().now_or_never().expect("an event");
    let batch = batch.expect("no log is read").expect("a batch");
    fed.publish(99);
    assert_eq!(batch[0].event, 1);
    assert_eq!(fed.feed.topic().status().floor, Position::new(91));
}

#[test]
fn a_call_that_is_dropped_while_it_waits_delivers_nothing_and_loses_nothing() {
    let mut fed = Fed::new(8, &[]);
    let mut reader = Reader::from_now(&fed);
    reader.sleep(&fed);
    fed.commit(&[0]);
    fed.publish(1);
    assert_eq!(reader.read().now_or_never(), Some(true));
    assert_eq!(reader.seen, [Position::new(1)]);
}

#[test]
fn dropping_a_subscription_unsubscribes_also_when_it_sleeps() {
    let fed = Fed::new(8, &[]);
    let topic = fed.feed.topic();
    let mut asleep = Reader::from_now(&fed);
    let awake = Reader::from_now(&fed);
    asleep.sleep(&fed);
    assert_eq!((topic.status().subscribers, topic.status().idle), (2, 1));
    drop(asleep);
    assert_eq!((topic.status().subscribers, topic.status().idle), (1, 0));
    drop(awake);
    assert_eq!((topic.status().subscribers, topic.status().idle), (0, 0));
}

/// Reads the topic of a log that does as `log` says, from the beginning, while events up to position 10 are gone.
#[track_caller]
fn check_error(
    log: impl Fn(Position) -> Result<(Vec<Envelope<u64>>, Position), &'static str>
    + Send
    + Sync
    + 'static,
    message: &str,
) {
    let feed = TopicFeed::with_log("test", 8, Position::new(10), move |after, _| {
        log(after).map_err(Into::into)
    });
    let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut subscription = feed.topic().subscribe().after(Position::START).open();
    let outcome = runtime.block_on(subscription.next());
    let error = outcome.expect_err("the log is of no use");
    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
    assert_eq!(format!("{error}{}", source.unwrap_or_default()), message);
    assert_eq!(subscription.position(), Position::START);
}

fn at(positions: &[u64]) -> Vec<Envelope<u64>> {
    let fed = Fed::new(1, &[0]);
    let event = |position| {
        let mut header = fed.blank.clone();
        header.position = Position::new(position);
        Envelope { header, event: position }
    };
    positions.iter().copied().map(event).collect()
}

#[test]
fn a_log_that_cannot_be_read_is_an_error_and_never_a_gap() {
    check_error(
        |_| Err("disk on fire"),
        "topic test could not read its log after position 0: disk on fire",
    );
    check_error(
        |after| Ok((Vec::new(), after)),
        "the log of topic test has a hole after position 0: it ends before events that were published",
    );
    check_error(
        |_| Ok((at(&[2, 1]), Position::new(2))),
        "the log of topic test has a hole after position 0: its events do not stand in the order of their positions",
    );
    check_error(
        |_| Ok((at(&[2, 3]), Position::new(2))),
        "the log of topic test has a hole after position 0: it hands out events that it says it has not reached",
    );
}

#[test]
fn without_a_log_or_a_runtime_to_read_it_the_reader_is_told() {
    let feed = TopicFeed::new("test", 1);
    let mut reader = feed.topic().subscribe().open();
    feed.publish(feed.envelopes(0..10_u64));
    let error = reader.next().now_or_never().expect("an answer").err();
    assert!(matches!(error, Some(SubscriptionError::NoLog { .. })));

    let fed = Fed::new(8, &[0; 10]);
    let mut reader = fed.feed.topic().subscribe().after(Position::START).open();
    let error = reader.next().now_or_never().expect("an answer").err();
    assert!(matches!(error, Some(SubscriptionError::NoRuntime { .. })));
}

#[test]
fn a_log_that_comes_back_is_read_on_where_it_failed() {
    let events = at(&[1, 2, 3]);
    let broken = Arc::new(Mutex::new(true));
    let fails = broken.clone();
    let feed = TopicFeed::with_log("test", 8, Position::new(3), move |_, _| {
        if *fails.lock().expect("a flag") {
            return Err("not now".into());
        }
        Ok((events.clone(), Position::new(3)))
    });
    let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut subscription = feed.topic().subscribe().after(Position::START).open();
    assert!(runtime.block_on(subscription.next()).is_err());
    *broken.lock().expect("a flag") = false;
    let batch = runtime.block_on(subscription.next()).expect("it is back");
    assert_eq!(batch.map(|batch| batch.len()), Some(3));
}
