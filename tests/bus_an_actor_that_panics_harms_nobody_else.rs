//! actix actors as subscribers: they receive in order in their own context, share their thread fairly, and take nobody with
//! them when they stop or panic.

#![expect(clippy::expect_used, reason = "helpers of tests fail where they panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, Running,
};
use tidings::testing::TopicFeed;
use tidings::{
    Batch, BatchSubscriber, Envelope, Handling, Hook, Position, Subscriber, SubscriptionError,
    SubscriptionHandle, Topic, TopicOptions, TransientEvent,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What an actor tells the test.
#[derive(Debug, PartialEq)]
enum Told {
    Received(Vec<u64>),
    Unsubscribed(Option<String>),
    Stopped,
}

type Behaviour = fn(&[u64], &mut Context<Teller>);

struct Teller {
    topic: Topic<Envelope<u64>>,
    behave: Behaviour,
    told: UnboundedSender<Told>,
}

impl Actor for Teller {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let topic = self.topic.clone();
        topic.subscribe().after(Position::START).batch_actor(ctx).detach();
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.tell(Told::Stopped);
    }
}

impl BatchSubscriber<Envelope<u64>> for Teller {
    fn receive(&mut self, batch: Batch<'_, Envelope<u64>>, ctx: &mut Context<Self>) {
        let events: Vec<u64> = batch.iter().map(|envelope| envelope.event).collect();
        (self.behave)(&events, ctx);
        self.tell(Told::Received(events));
    }

    fn unsubscribed(&mut self, outcome: Result<(), SubscriptionError>, _: &mut Context<Self>) {
        self.tell(Told::Unsubscribed(outcome.err().map(|e| e.to_string())));
    }
}

impl Teller {
    fn start_with(feed: &TopicFeed<u64>, behave: Behaviour) -> UnboundedReceiver<Told> {
        let (told, hear) = unbounded_channel();
        let topic = feed.topic();
        Self { topic, behave, told }.start();
        hear
    }

    fn tell(&self, told: Told) {
        self.told.send(told).ok();
    }
}

async fn hear(told: &mut UnboundedReceiver<Told>) -> Option<Told> {
    tokio::time::timeout(Duration::from_secs(10), told.recv())
        .await
        .expect("nothing was told in ten seconds")
}

fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
}

const CALM: Behaviour = |_, _| {};

#[test]
fn an_actor_receives_in_order_and_hears_of_the_end() {
    run(async {
        let feed = TopicFeed::new("numbers", 1_024);
        let mut told = Teller::start_with(&feed, CALM);
        feed.publish(feed.envelopes([1, 2]));
        assert_eq!(hear(&mut told).await, Some(Told::Received(vec![1, 2])));
        feed.publish(feed.envelopes([3]));
        feed.close();
        assert_eq!(hear(&mut told).await, Some(Told::Received(vec![3])));
        assert_eq!(hear(&mut told).await, Some(Told::Unsubscribed(None)));
        assert_eq!(feed.topic().status().subscribers, 0);
    });
}

#[test]
fn a_panic_in_a_handler_ends_its_actor_and_nothing_else() {
    run(async {
        let feed = TopicFeed::new("numbers", 1_024);
        let mut calm = Teller::start_with(&feed, CALM);
        let mut panicking = Teller::start_with(&feed, |events, _| {
            assert!(!events.contains(&2), "as asked");
        });
        feed.publish(feed.envelopes([1]));
        assert_eq!(hear(&mut calm).await, Some(Told::Received(vec![1])));
        assert_eq!(hear(&mut panicking).await, Some(Told::Received(vec![1])));
        assert_eq!(feed.topic().status().subscribers, 2);

        feed.publish(feed.envelopes([2]));
        assert_eq!(hear(&mut calm).await, Some(Told::Received(vec![2])));
        assert_eq!(hear(&mut panicking).await, Some(Told::Stopped));
        assert_eq!(hear(&mut panicking).await, None);
        assert_eq!(feed.topic().status().subscribers, 1);

        feed.publish(feed.envelopes([3]));
        assert_eq!(hear(&mut calm).await, Some(Told::Received(vec![3])));
    });
}

#[test]
fn an_actor_that_refuses_to_stop_while_it_unwinds_is_not_called_again() {
    struct Stubborn(Topic<Envelope<u64>>, Arc<AtomicUsize>);
    impl Actor for Stubborn {
        type Context = Context<Self>;
        fn started(&mut self, ctx: &mut Context<Self>) {
            let topic = self.0.clone();
            topic.subscribe().after(Position::START).batch_actor(ctx).detach();
        }
        fn stopping(&mut self, _: &mut Context<Self>) -> actix::Running {
            if self.1.fetch_add(100, Ordering::Relaxed) < 100 {
                return actix::Running::Continue;
            }
            actix::Running::Stop
        }
    }
    impl BatchSubscriber<Envelope<u64>> for Stubborn {
        fn receive(&mut self, _: Batch<'_, Envelope<u64>>, _: &mut Context<Self>) {
            self.1.fetch_add(1, Ordering::Relaxed);
            panic!("as asked");
        }
    }
    run(async {
        let feed = TopicFeed::new("numbers", 8);
        feed.publish(feed.envelopes([1, 2, 3]));
        let calls = Arc::new(AtomicUsize::new(0));
        Stubborn(feed.topic(), calls.clone()).start();
        let mut calm = Teller::start_with(&feed, CALM);
        assert!(matches!(hear(&mut calm).await, Some(Told::Received(_))));
        assert_eq!(calls.load(Ordering::Relaxed) % 100, 1);
        assert_eq!(feed.topic().status().subscribers, 1);
    });
}

#[test]
fn an_actor_that_stops_receives_nothing_more_and_is_unsubscribed() {
    run(async {
        let feed = TopicFeed::new("numbers", 1_024);
        feed.publish(feed.envelopes(1..=1_000));
        let mut told = Teller::start_with(&feed, |_, ctx| ctx.stop());
        assert!(matches!(hear(&mut told).await, Some(Told::Received(_))));
        assert_eq!(hear(&mut told).await, Some(Told::Stopped));
        assert_eq!(hear(&mut told).await, None);
        assert_eq!(feed.topic().status().subscribers, 0);
    });
}

#[test]
fn dropping_its_handle_ends_a_subscription_while_its_actor_goes_on() {
    struct Leaves(Topic<Envelope<u64>>, Option<SubscriptionHandle>);
    #[derive(Message)]
    #[rtype(result = "()")]
    struct Leave;
    impl Actor for Leaves {
        type Context = Context<Self>;
        fn started(&mut self, ctx: &mut Context<Self>) {
            let topic = self.0.clone();
            self.1 = Some(topic.subscribe().batch_actor(ctx));
        }
    }
    impl BatchSubscriber<Envelope<u64>> for Leaves {
        fn receive(&mut self, _: Batch<'_, Envelope<u64>>, _: &mut Context<Self>) {}
    }
    impl Handler<Leave> for Leaves {
        type Result = ();
        fn handle(&mut self, _: Leave, _: &mut Context<Self>) {
            drop(self.1.take().expect("it is subscribed"));
        }
    }
    run(async {
        let feed = TopicFeed::<u64>::new("numbers", 8);
        let leaves = Leaves(feed.topic(), None).start();
        leaves.send(Leave).await.expect("it lives");
        assert_eq!(feed.topic().status().subscriptions, []);
        assert!(leaves.connected());
    });
}

#[test]
fn what_a_handler_waits_for_is_done_before_the_next_batch() {
    run(async {
        let feed = TopicFeed::new("numbers", 1_024);
        feed.publish(feed.envelopes(1..=1_000));
        let mut told = Teller::start_with(&feed, |_, ctx| {
            let pause = actix::fut::wrap_future::<_, Teller>(tokio::task::yield_now());
            ctx.wait(pause.map(|(), actor, _| actor.tell(Told::Stopped)));
        });
        let mut received = 0;
        while received < 1_000 {
            let Some(Told::Received(events)) = hear(&mut told).await else {
                panic!("a batch was expected");
            };
            received += events.len();
            assert_eq!(hear(&mut told).await, Some(Told::Stopped));
        }
    });
}

#[test]
fn a_mailbox_has_its_turn_while_events_pour_in() {
    #[derive(Message)]
    #[rtype(result = "usize")]
    struct HowMany;
    struct Counts(Topic<Envelope<u64>>, usize);
    impl Actor for Counts {
        type Context = Context<Self>;
        fn started(&mut self, ctx: &mut Context<Self>) {
            let topic = self.0.clone();
            topic.subscribe().after(Position::START).batch_actor(ctx).detach();
        }
    }
    impl BatchSubscriber<Envelope<u64>> for Counts {
        fn receive(&mut self, batch: Batch<'_, Envelope<u64>>, _: &mut Context<Self>) {
            self.1 += batch.len();
        }
    }
    impl Handler<HowMany> for Counts {
        type Result = usize;
        fn handle(&mut self, _: HowMany, _: &mut Context<Self>) -> usize {
            self.1
        }
    }
    run(async {
        let feed = TopicFeed::new("numbers", 100_000);
        feed.publish(feed.envelopes(1..=100_000));
        let counts = Counts(feed.topic(), 0).start();
        let asking = actix::spawn(async move {
            let mut answers = Vec::new();
            while answers.last() != Some(&100_000) {
                answers.push(counts.send(HowMany).await.expect("it lives"));
            }
            answers
        });
        let answers = asking.await.expect("all were counted");
        assert!(answers.len() > 10, "{answers:?}");
    });
}

#[test]
fn an_actor_whose_log_fails_is_told_and_by_default_stops() {
    fn feed() -> TopicFeed<u64> {
        TopicFeed::with_log("numbers", 8, Position::new(5), |_, _| Err("gone".into()))
    }
    struct Defaults(Topic<Envelope<u64>>, UnboundedSender<Told>);
    impl Actor for Defaults {
        type Context = Context<Self>;
        fn started(&mut self, ctx: &mut Context<Self>) {
            let topic = self.0.clone();
            topic.subscribe().after(Position::START).batch_actor(ctx).detach();
        }
        fn stopped(&mut self, _: &mut Context<Self>) {
            self.1.send(Told::Stopped).ok();
        }
    }
    impl BatchSubscriber<Envelope<u64>> for Defaults {
        fn receive(&mut self, _: Batch<'_, Envelope<u64>>, _: &mut Context<Self>) {}
    }
    run(async {
        let feed = feed();
        let mut told = Teller::start_with(&feed, CALM);
        let message = "topic numbers could not read its log after position 0".to_owned();
        assert_eq!(hear(&mut told).await, Some(Told::Unsubscribed(Some(message))));

        let (tell, mut told) = unbounded_channel();
        let _address = Defaults(feed.topic(), tell).start();
        assert_eq!(hear(&mut told).await, Some(Told::Stopped));
        assert_eq!(feed.topic().status().subscribers, 0);
    });
}

#[derive(TransientEvent)]
struct Tick(u64);

/// Panics before or after an event is handled.
struct Rude {
    before: bool,
}

impl Hook<Tick> for Rude {
    fn handling(&self, _: &Handling<'_>, _: &[Tick]) {
        assert!(!self.before, "as asked");
    }

    fn handled(&self, _: &Handling<'_>, _: Duration) {
        assert!(self.before, "as asked");
    }
}

/// Does not want to stop, so that actix polls what it has spawned while a panic unwinds.
struct Stubborn {
    topic: Topic<Tick>,
    in_group: bool,
}

impl Actor for Stubborn {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let subscription = if self.in_group {
            self.topic.group("stubborn", |tick: &Tick| tick.0).actor(ctx)
        } else {
            self.topic.subscribe().actor(ctx)
        };
        subscription.detach();
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        Running::Continue
    }
}

impl Subscriber<Tick> for Stubborn {
    fn receive(&mut self, _: &Tick, _: &mut Context<Self>) {}
}

#[test]
fn a_hook_that_panics_ends_the_actor_and_not_the_process() {
    for (before, in_group) in [(true, false), (false, false), (true, true), (false, true)] {
        let topic = Topic::with(TopicOptions::default().hook(Rude { before }));
        run(async {
            Stubborn { topic: topic.clone(), in_group }.start();
            while topic.status().subscribers == 0 {
                tokio::task::yield_now().await;
            }
            // More than one batch: what comes after the panic must not be handed over.
            let mut ticks: Vec<_> = (0..1_000).map(Tick).collect();
            topic.publisher("clock").publish_batch(&mut ticks).await.expect("there is room");
            while topic.status().subscribers > 0 {
                tokio::task::yield_now().await;
            }
        });
    }
}
