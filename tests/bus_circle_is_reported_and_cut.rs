//! Handlers that cause one another in a circle are reported when the app starts, and cut when it runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail where they panic"
)]

#[path = "support/bank.rs"]
mod bank;

use std::sync::{Arc, Mutex, OnceLock};

use bank::{Account, Deposit, Deposited};
use tidings::{
    App, Bus, Header, Memory, PublishError, Publisher, SendError, TransientEvent, subscriber,
};

/// At which depth a circle is cut, unless a topic says otherwise.
const CUT: usize = 64;

#[derive(TransientEvent)]
struct Ping;

#[derive(TransientEvent)]
struct Pong;

/// What was traced as a warning, by whichever test of this file.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Warnings;

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Message);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Message;

impl tracing::field::Visit for Message {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            WARNINGS.lock().unwrap().push(format!("{value:?}"));
        }
    }
}

/// Answers each event with one, until it is refused.
struct Left {
    pings: Publisher<Ping>,
    cut: tokio::sync::watch::Sender<Option<u8>>,
}

#[subscriber(name = "left", publishes(Ping))]
impl Left {
    #[on]
    fn pong(&mut self, _: &Pong) {
        answer(&self.pings, Ping, &self.cut);
    }
}

struct Right {
    pongs: Publisher<Pong>,
    cut: tokio::sync::watch::Sender<Option<u8>>,
}

#[subscriber(name = "right", publishes(Pong))]
impl Right {
    #[on]
    fn ping(&mut self, _: &Ping) {
        answer(&self.pongs, Pong, &self.cut);
    }
}

fn answer<T: TransientEvent>(
    publisher: &Publisher<T>,
    event: T,
    cut: &tokio::sync::watch::Sender<Option<u8>>,
) {
    match publisher.try_publish(event) {
        Ok(()) => {}
        Err(PublishError::TooDeep { depth, .. }) => {
            cut.send_replace(Some(depth));
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_circle_of_two_is_reported_at_start_and_cut_after_64_events() {
    let _ = tracing::subscriber::set_global_default(Warnings);
    let bus = Bus::new();
    let (cut, mut was_cut) = tokio::sync::watch::channel(None);
    let pings = bus.topic::<Ping>().publisher("left");
    let left = Left { pings: pings.clone(), cut: cut.clone() };
    let right = Right { pongs: bus.topic().publisher("right"), cut };
    let app = App::builder().store(Memory::new()).bus(bus).subscriber(left).subscriber(right);
    let app = app.start().await.unwrap();
    let circle = app.map().findings().remove(0).to_string();
    assert!(circle.starts_with("left → right → left is a circle"), "{circle}");
    assert!(WARNINGS.lock().unwrap().contains(&circle));

    pings.publish(Ping).await.unwrap();
    let depth = *was_cut.wait_for(Option::is_some).await.unwrap();
    assert_eq!(depth.map(usize::from), Some(CUT));
    let published = |name| {
        let topics = app.status().topics;
        topics.iter().find(|topic| topic.name == name).map(|topic| topic.published)
    };
    // The first event has depth 0, the last depth 63.
    assert_eq!((published("Ping"), published("Pong")), (Some(32), Some(32)));
    app.shutdown().await.unwrap();
    // A circle that is cut stops nobody.
    assert!(app.status().subscribers.iter().all(|status| status.trouble.is_none()));
}

/// Answers each deposit with another one.
struct Generous {
    app: Arc<OnceLock<App>>,
    refused: tokio::sync::mpsc::Sender<SendError<bank::Overdrawn>>,
}

#[subscriber(name = "generous", publishes(Deposited))]
impl Generous {
    #[on]
    fn deposited(&mut self, _: &Deposited, header: &Header) {
        let Some(app) = self.app.get() else { return };
        let sending = app.send("a", Deposit { cents: 1 }).caused_by(header).begin();
        let refused = self.refused.clone();
        tokio::spawn(async move {
            if let Err(error) = sending.await {
                refused.send(error).await.unwrap();
            }
        });
    }
}

#[tokio::test]
async fn a_circle_through_an_aggregate_is_reported_and_cut_after_64_commands() {
    let (refused, mut was_refused) = tokio::sync::mpsc::channel(1);
    let handle = Arc::new(OnceLock::new());
    let generous = Generous { app: Arc::clone(&handle), refused };
    let app = App::builder().store(Memory::new()).aggregate::<Account>().subscriber(generous);
    let app = app.start().await.unwrap();
    handle.set(app.clone()).unwrap();
    let findings = app.map().findings();
    let circle = tidings::Finding::Circle { components: vec!["generous".into()] };
    assert!(findings.contains(&circle), "{findings:?}");

    app.send("a", Deposit { cents: 1 }).await.unwrap();
    let error = was_refused.recv().await.unwrap();
    assert!(matches!(error, SendError::TooDeep { depth } if usize::from(depth) == CUT), "{error}");
    // The last event is handled before the head moves to it.
    bank::until("the head", || app.head().as_u64() >= CUT as u64).await;
    assert_eq!(app.head().as_u64(), CUT as u64);
    app.shutdown().await.unwrap();
    let map = app.map();
    assert!(map.topics.iter().any(|topic| topic.name == "account" && topic.published == 64));
}
