//! A handler that returns an error or panics stops its subscriber, which shows why and holds up nobody.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use tidings::{
    App, Bus, ConsumerState, Handling, Hook, Memory, TopicOptions, TransientEvent, subscriber,
};

#[derive(TransientEvent)]
struct Tick(u64);

#[derive(TransientEvent)]
struct Tock;

#[derive(Debug, thiserror::Error)]
#[error("{0} is unlucky")]
struct Unlucky(u64);

struct Failing;

#[subscriber(name = "failing")]
impl Failing {
    #[on]
    fn tick(&mut self, tick: &Tick) -> Result<(), Unlucky> {
        if tick.0 == 13 { Err(Unlucky(13)) } else { Ok(()) }
    }
    #[on]
    fn tock(&mut self, _: &Tock) {}
}

struct Panicking;

#[subscriber(name = "panicking")]
impl Panicking {
    #[on]
    fn tick(&mut self, tick: &Tick) {
        assert!(tick.0 < 17, "boom at {}", tick.0);
    }
}

struct Well(Sender<u64>);

#[subscriber(name = "well")]
impl Well {
    #[on]
    fn tick(&mut self, tick: &Tick) {
        assert!(self.0.send(tick.0).is_ok(), "the test listens");
    }
}

#[tokio::test]
async fn an_error_and_a_panic_stop_their_subscribers_alone_and_are_shown() {
    let bus = Bus::new();
    // A small topic: whoever stood still would hold its publisher up.
    let options = TopicOptions::default().capacity(4);
    let clock = bus.topic_with::<Tick>(options).unwrap().publisher("clock");
    let (sender, heard) = channel();
    let app = App::builder()
        .store(Memory::new())
        .bus(bus.clone())
        .subscriber(Failing)
        .subscriber(Panicking)
        .subscriber(Well(sender))
        .start()
        .await
        .unwrap();
    for number in 0..1_000 {
        let published = clock.publish(Tick(number));
        tokio::time::timeout(Duration::from_secs(30), published).await.expect("held up").unwrap();
    }
    let stopped = || {
        let status = app.status().subscribers;
        status.iter().filter(|status| status.state == ConsumerState::Stopped).count()
    };
    while stopped() < 2 {
        tokio::task::yield_now().await;
    }
    let names = |topic: &tidings::TopicStatus| {
        topic.subscriptions.iter().map(|status| status.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&bus.topic::<Tick>().status()), ["well".into()]);
    assert_eq!(names(&bus.topic::<Tock>().status()), []);
    app.shutdown().await.unwrap();
    assert_eq!(heard.iter().collect::<Vec<_>>(), (0..1_000).collect::<Vec<_>>());

    let status = app.status().subscribers;
    let shown: Vec<_> = status
        .iter()
        .map(|status| (status.name, status.state, status.heard, status.trouble.as_deref()))
        .collect();
    let failed = "it could not handle event Tick of topic Tick: 13 is unlucky";
    let panicked = "it could not handle event Tick of topic Tick: it panicked: boom at 17";
    assert_eq!(
        shown,
        [
            ("failing", ConsumerState::Stopped, 14, Some(failed)),
            ("panicking", ConsumerState::Stopped, 18, Some(panicked)),
            ("well", ConsumerState::Stopped, 1_000, None),
        ]
    );
    let map = app.map();
    let troubles: Vec<_> =
        map.components.iter().filter_map(|part| part.trouble.as_deref()).collect();
    assert_eq!(troubles, [failed, panicked]);
}

/// Panics before or after an event is handled.
struct Rude {
    before: bool,
}

impl Hook<Tick> for Rude {
    fn handling(&self, _: &Handling<'_>, _: &[Tick]) {
        assert!(!self.before, "rude before");
    }

    fn handled(&self, _: &Handling<'_>, _: Duration) {
        assert!(self.before, "rude after");
    }
}

#[tokio::test]
async fn a_hook_that_panics_stops_the_subscriber_and_is_shown() {
    for before in [true, false] {
        let bus = Bus::new();
        let options = TopicOptions::default().capacity(4).hook(Rude { before });
        let clock = bus.topic_with::<Tick>(options).unwrap().publisher("clock");
        let builder = App::builder().store(Memory::new()).bus(bus.clone());
        let app = builder.subscriber(Failing).start().await.unwrap();
        let status = || app.status().subscribers.pop().unwrap();
        let published = async {
            for number in 100..200 {
                clock.publish(Tick(number)).await.unwrap();
            }
            while status().state != ConsumerState::Stopped {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), published).await.expect("it is not shown");
        let trouble = status().trouble.unwrap();
        assert!(trouble.contains(if before { "rude before" } else { "rude after" }), "{trouble}");
        app.shutdown().await.unwrap();
    }
}
