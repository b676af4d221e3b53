//! A subscriber's handlers get the events of their types, from all topics, each in order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail where they panic"
)]

#[path = "support/bank.rs"]
mod bank;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bank::{Account, Book, Booked, Deposit, Deposited, Ledger, Withdraw};
use tidings::{
    App, Bus, ConsumerState, EventSubscriber, Header, Memory, StartError, Subscriptions,
    TopicOptions, TransientEvent, subscriber,
};

#[derive(Debug, PartialEq)]
struct Quote(u64);

#[derive(Debug, PartialEq)]
struct Trade(u64);

#[derive(TransientEvent, Debug, PartialEq)]
enum Market {
    Quote(Quote),
    Trade(Trade),
    Opened,
}

#[derive(TransientEvent)]
struct Tick(u64);

#[derive(Debug, PartialEq)]
enum Heard {
    Quote(u64),
    Trade(u64),
    Tick(u64),
    Deposited(i64, String),
    Booked(u64),
}

struct Desk(Sender<Heard>);

#[subscriber(name = "desk")]
impl Desk {
    #[on]
    fn quote(&mut self, quote: &Quote) {
        self.say(Heard::Quote(quote.0));
    }
    #[on]
    fn trade(&mut self, trade: &Trade) {
        self.say(Heard::Trade(trade.0));
    }
    #[on]
    fn tick(&mut self, tick: &Tick) {
        self.say(Heard::Tick(tick.0));
    }
    #[on]
    fn deposited(&mut self, event: &Deposited, header: &Header) {
        self.say(Heard::Deposited(event.cents, header.stream.to_string()));
    }
    #[on]
    fn booked(&mut self, event: &Booked) {
        self.say(Heard::Booked(event.number));
    }
}

impl Desk {
    fn say(&self, heard: Heard) {
        assert!(self.0.send(heard).is_ok(), "the test listens");
    }
}

fn all(heard: &Receiver<Heard>) -> Vec<Heard> {
    heard.iter().collect()
}

fn only<T>(heard: &[Heard], pick: impl Fn(&Heard) -> Option<T>) -> Vec<T> {
    heard.iter().filter_map(pick).collect()
}

#[tokio::test]
async fn events_of_every_topic_reach_the_handlers_of_their_types_in_order() {
    let bus = Bus::new();
    let (sender, heard) = channel();
    let app = App::builder()
        .store(Memory::new())
        .bus(bus.clone())
        .aggregate::<Account>()
        .aggregate::<Ledger>()
        .subscriber(Desk(sender))
        .start()
        .await
        .unwrap();
    let market = bus.topic::<Market>().publisher("exchange");
    let clock = bus.topic::<Tick>().publisher("clock");
    for number in 0..1_000 {
        market.publish(Quote(number).into()).await.unwrap();
        market.publish(Market::Opened).await.unwrap();
        market.publish(Trade(number).into()).await.unwrap();
        clock.publish(Tick(number)).await.unwrap();
        if number % 100 == 0 {
            app.send("a", Deposit { cents: 5 }).await.unwrap();
            app.send("a", Withdraw { cents: 1 }).await.unwrap();
            app.send("b", Book { number }).await.unwrap();
        }
    }
    app.shutdown().await.unwrap();

    let heard = all(&heard);
    let numbers: Vec<u64> = (0..1_000).collect();
    let market = only(&heard, |heard| match heard {
        Heard::Quote(number) => Some((0, *number)),
        Heard::Trade(number) => Some((1, *number)),
        _ => None,
    });
    let expected: Vec<_> = numbers.iter().flat_map(|number| [(0, *number), (1, *number)]).collect();
    assert_eq!(market, expected);
    let ticks = only(&heard, |heard| match heard {
        Heard::Tick(number) => Some(*number),
        _ => None,
    });
    assert_eq!(ticks, numbers);
    let deposited = only(&heard, |heard| match heard {
        Heard::Deposited(cents, stream) => Some((*cents, stream.clone())),
        _ => None,
    });
    assert_eq!(deposited, vec![(5, "account-a".to_owned()); 10]);
    let booked = only(&heard, |heard| match heard {
        Heard::Booked(number) => Some(*number),
        _ => None,
    });
    assert_eq!(booked, (0..10).map(|hundred| hundred * 100).collect::<Vec<_>>());
    let status = &app.status().subscribers[0];
    assert_eq!((status.name, status.state), ("desk", ConsumerState::Stopped));
    assert_eq!((status.heard, &status.trouble), (4 * 1_000 + 30, &None));
}

#[tokio::test]
async fn a_subscriber_hears_durable_events_from_the_head_of_the_log_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bank.db");
    let first = App::builder()
        .store(tidings::Sqlite::open(&path).unwrap())
        .aggregate::<Account>()
        .start()
        .await
        .unwrap();
    first.send("a", Deposit { cents: 1 }).await.unwrap();
    first.shutdown().await.unwrap();
    drop(first);

    let (sender, heard) = channel();
    let second = App::builder()
        .store(tidings::Sqlite::open(&path).unwrap())
        .aggregate::<Account>()
        .subscriber(Desk(sender))
        .start()
        .await
        .unwrap();
    second.send("a", Deposit { cents: 2 }).await.unwrap();
    second.shutdown().await.unwrap();
    assert_eq!(all(&heard), [Heard::Deposited(2, "account-a".into())]);
}

/// Handles nothing before its gate is opened, which is when the other end of it is dropped.
struct Gated {
    gate: Receiver<()>,
    heard: Sender<u64>,
}

#[subscriber(name = "gated")]
impl Gated {
    #[on]
    fn tick(&mut self, tick: &Tick) {
        pass(&self.gate);
        assert!(self.heard.send(tick.0).is_ok(), "the test listens");
    }
}

struct Careless(Gated);

#[subscriber(name = "careless", overflow = drop_oldest)]
impl Careless {
    #[on]
    fn tick(&mut self, tick: &Tick) {
        self.0.tick(tick);
    }
}

fn pass(gate: &Receiver<()>) {
    assert!(gate.recv().is_err(), "nobody sends anything");
}

fn gated() -> (Gated, Sender<()>, Receiver<u64>) {
    let (open, gate) = channel();
    let (heard, hearing) = channel();
    (Gated { gate, heard }, open, hearing)
}

#[tokio::test]
async fn a_shutdown_lets_a_subscriber_handle_what_was_published_before() {
    let (gated, open, heard) = gated();
    let app = App::builder().store(Memory::new()).subscriber(gated).start().await.unwrap();
    let clock = app.bus().topic::<Tick>().publisher("clock");
    for number in 0..2_000 {
        clock.publish(Tick(number)).await.unwrap();
    }
    let ending = tokio::spawn({
        let app = app.clone();
        async move { app.shutdown().await }
    });
    while clock.try_publish(Tick(2_000)).is_ok() {
        tokio::task::yield_now().await;
    }
    drop(open);
    ending.await.unwrap().unwrap();
    let heard: Vec<_> = heard.iter().filter(|number| *number < 2_000).collect();
    assert_eq!(heard, (0..2_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_subscriber_that_is_not_level_in_time_is_named() {
    let (gated, open, _heard) = gated();
    let app = App::builder().store(Memory::new()).subscriber(gated).start().await.unwrap();
    app.bus().topic::<Tick>().publisher("clock").publish(Tick(1)).await.unwrap();
    let error = app.shutdown_within(Duration::from_millis(10)).await.unwrap_err();
    drop(open);
    assert!(error.problems.contains(&"subscriber gated was not level in time".into()), "{error}");
}

#[tokio::test]
async fn a_subscriber_that_drops_the_oldest_holds_up_nobody_and_counts() {
    let bus = Bus::new();
    let options = TopicOptions::default().capacity(16);
    let clock = bus.topic_with::<Tick>(options).unwrap().publisher("clock");
    let (gated, open, heard) = gated();
    let app = App::builder().store(Memory::new()).bus(bus.clone()).subscriber(Careless(gated));
    let app = app.start().await.unwrap();
    for number in 0..10_000 {
        clock.try_publish(Tick(number)).unwrap();
    }
    drop(open);
    let mut last = None;
    let mut count = 0;
    while last != Some(9_999) {
        let next = heard.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(last < Some(next), "{next} came after {last:?}");
        last = Some(next);
        count += 1;
    }
    let missed = bus.topic::<Tick>().status().subscriptions[0].missed;
    assert_eq!(count + missed, 10_000);
    assert!(missed > 0);
    app.shutdown().await.unwrap();
}

struct ByHand;

impl EventSubscriber for ByHand {
    const NAME: &'static str = "by hand";
    fn subscriptions(to: &mut Subscriptions<Self>) {
        to.on(|_: &mut Self, _: &Tick| {}).on(|_: &mut Self, _: &Tick| {});
    }
}

struct Deaf;

impl EventSubscriber for Deaf {
    const NAME: &'static str = "deaf";
    fn subscriptions(_: &mut Subscriptions<Self>) {}
}

#[tokio::test]
async fn a_subscriber_that_does_not_fit_is_refused_and_leaves_the_bus_open() {
    let bus = Bus::new();
    let builder = || App::builder().store(Memory::new()).bus(bus.clone());
    let twice = builder().subscriber(ByHand).start().await.unwrap_err();
    assert!(matches!(
        twice,
        StartError::SubscriberHandlerTwice { subscriber: "by hand", event: "Tick" }
    ));
    let deaf = builder().subscriber(Deaf).start().await.unwrap_err();
    assert!(matches!(deaf, StartError::SubscriberNoHandlers("deaf")));
    let (sender, _heard) = channel();
    let desks = builder().subscriber(Desk(sender.clone())).subscriber(Desk(sender));
    let same = desks.start().await.unwrap_err();
    assert!(matches!(same, StartError::SubscriberTwice("desk")));

    // The first desk's subscription is gone with it.
    let topic = bus.topic::<Tick>();
    assert_eq!(topic.status().subscriptions, []);
    topic.publisher("clock").publish(Tick(1)).await.unwrap();
}

#[tokio::test]
async fn a_batch_hands_out_its_events_by_type() {
    let bus = Bus::new();
    let app = App::builder().store(Memory::new()).bus(bus.clone()).aggregate::<Account>();
    let app = app.start().await.unwrap();
    let mut accounts = app.topic::<bank::AccountEvent>().unwrap().subscribe().open();
    let mut market = bus.topic::<Market>().subscribe().open();
    let exchange = bus.topic::<Market>().publisher("exchange");
    for number in [1, 2] {
        exchange.publish(Quote(number).into()).await.unwrap();
        exchange.publish(Trade(number).into()).await.unwrap();
        app.send("a", Deposit { cents: 9 }).await.unwrap();
        app.send("a", Withdraw { cents: 1 }).await.unwrap();
    }
    app.shutdown().await.unwrap();

    let batch = market.next().await.unwrap().unwrap();
    assert_eq!(batch.of::<Trade>().collect::<Vec<_>>(), [&Trade(1), &Trade(2)]);
    assert_eq!(batch.of::<Market>().count(), 4);
    let mut deposited = Vec::new();
    while let Some(batch) = accounts.next().await.unwrap() {
        deposited.extend(
            batch
                .with_headers_of::<Deposited>()
                .map(|(event, header)| (event.cents, header.version)),
        );
        assert!(batch.of::<Deposited>().all(|event| event.cents == 9));
    }
    assert_eq!(deposited.iter().map(|(_, version)| version.as_u64()).collect::<Vec<_>>(), [1, 3]);
}
