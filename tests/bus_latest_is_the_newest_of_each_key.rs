//! A subscription by key gets, of what it did not see yet, the newest event of each key, and never one that is older than
//! what it got: however far behind it is, whether it joins late or comes from the log, and also when its key function fails.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail where they panic")]

#[path = "support/settle.rs"]
mod settle;

use std::collections::HashMap;

use tidings::testing::TopicFeed;
use tidings::{
    Envelope, Position, Subscription, SubscriptionError, Topic, TopicOptions, TransientEvent,
};
use tokio::runtime;

use self::settle::Settle;

#[derive(Debug, Clone, Copy, PartialEq, Eq, TransientEvent)]
struct Price {
    of: u8,
    cents: u32,
}

fn prices(capacity: usize) -> Topic<Price> {
    Topic::with(TopicOptions::default().capacity(capacity))
}

fn publish(topic: &Topic<Price>, prices: impl IntoIterator<Item = (u8, u32)>) {
    let publisher = topic.publisher("market");
    for (of, cents) in prices {
        publisher.try_publish(Price { of, cents }).expect("nobody holds it");
    }
}

/// The next batch, which must be there.
#[track_caller]
fn next(subscription: &mut Subscription<Price>) -> Vec<(u8, u32)> {
    let batch = subscription.next().settled().expect("something to read");
    let batch = batch.expect("no log is read").expect("the topic is open");
    batch.iter().map(|price| (price.of, price.cents)).collect()
}

#[test]
fn it_is_told_nothing_that_was_published_before_it_joined() {
    let topic = prices(16);
    publish(&topic, [(1, 100), (2, 200), (3, 300)]);
    let mut subscription = topic.subscribe().latest_by(|price: &Price| price.of).open();
    publish(&topic, (0..100).map(|cents| (9, cents)));
    assert_eq!(next(&mut subscription), [(9, 99)]);
}

#[test]
fn it_begins_with_what_is_retained_where_it_asks_for_it() {
    let topic = prices(16);
    publish(&topic, [(1, 100), (2, 200), (1, 101)]);
    let subscribe = topic.subscribe().latest_by(|price: &Price| price.of).from_oldest();
    let mut subscription = subscribe.open();
    publish(&topic, (0..100).map(|cents| (9, cents)));
    assert_eq!(next(&mut subscription), [(2, 200), (1, 101), (9, 99)]);
}

#[test]
fn the_log_gives_the_newest_of_each_key_of_each_page_and_the_ring_nothing_older() {
    const OLD: u64 = 2_000;
    // One key has a single event, which is in the log and passes through the window.
    const ONCE: u64 = OLD + 5;
    let key = |number| if number == ONCE { 7 } else { number % 7 };
    let made = TopicFeed::new("numbers", 1);
    let log: Vec<Envelope<u64>> = made.envelopes(1..=OLD * 2).collect();
    // It was read before the last ten were in it; those come from the ring.
    let old = log[..log.len() - 10].to_vec();
    let feed = TopicFeed::with_log("numbers", 64, Position::new(OLD), move |after, limit| {
        let start = usize::try_from(after.as_u64())?;
        let page: Vec<_> = old[start..].iter().take(limit).cloned().collect();
        let through = page.last().map_or(after, |event| event.position);
        Ok((page, through))
    });
    let subscribe = feed.topic().subscribe().after(Position::START);
    let mut subscription = subscribe.latest_by(move |e: &Envelope<u64>| key(e.event)).open();
    // What passes through the window before the log is read is in the log, too.
    feed.publish(log[2_000..].to_vec());
    feed.close();

    let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut newest = HashMap::new();
    runtime.block_on(async {
        while let Some(batch) = subscription.next().await.expect("the log can be read") {
            assert!(batch.len() <= 8, "{} events of 8 keys", batch.len());
            for event in batch {
                let before = newest.insert(key(event.event), event.event);
                assert!(before < Some(event.event), "{} after {before:?}", event.event);
            }
        }
    });
    assert_eq!(subscription.position(), Position::new(OLD * 2));
    let expected = (OLD * 2 - 6..=OLD * 2).chain([ONCE]);
    let expected = expected.map(|number| (key(number), number)).collect();
    assert_eq!(newest, expected);
}

/// `behind` events lie before it when the key function panics at one of them.
#[track_caller]
fn check_panic(behind: u32) {
    let topic = prices(16);
    let mut subscription = topic
        .subscribe()
        .latest_by(|price: &Price| {
            assert!(price.of != 13, "unlucky");
            price.of
        })
        .open();
    let mut other = topic.subscribe().latest_by(|price: &Price| price.of).open();
    publish(&topic, [(1, 100), (13, 1), (2, 200)]);
    publish(&topic, (0..behind).map(|cents| (1, cents)));
    let outcome = subscription.next().settled().expect("it ends");
    match outcome.expect_err("the key function panicked") {
        SubscriptionError::Key { topic, panic } => {
            assert_eq!((topic, &*panic), (Price::NAME, "unlucky"));
        }
        error => panic!("{error}"),
    }
    let after = subscription.next().settled().expect("it has ended");
    assert!(after.expect("no log is read").is_none());
    publish(&topic, [(13, 2)]);
    let after = subscription.next().settled().expect("it has ended");
    assert!(after.expect("no log is read").is_none());
    assert_eq!(next(&mut other).last(), Some(&(13, 2)));
}

#[test]
fn a_key_function_that_panics_ends_its_own_subscription_only() {
    // In the reader, and in a publisher that needs the room.
    check_panic(0);
    check_panic(100);
}
