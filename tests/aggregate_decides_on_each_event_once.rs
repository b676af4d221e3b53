//! Choreography: an event of another aggregate is decided on once, by the instance that it names, over restarts and redelivery; what
//! cannot be decided on parks that instance's events and no others.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(feature = "sqlite")]

#[path = "support/bank.rs"]
mod bank;

use bank::*;
use serde::{Deserialize, Serialize};
use tidings::sqlite::rusqlite;
use tidings::{
    App, Command, Context, Event, EventStore, LetterState, Memory, Recorded, StartError, StreamId,
    Version, aggregate, projection,
};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "order.paid")]
struct Paid {
    shop: String,
    cents: i64,
}

#[derive(Command, Clone)]
struct Pay {
    shop: &'static str,
    cents: i64,
}

#[derive(Default)]
struct Order;

#[aggregate(category = "order", events = OrderEvent)]
impl Order {
    #[command]
    fn pay(&self, command: Pay) -> Paid {
        Paid { shop: command.shop.to_owned(), cents: command.cents }
    }
    #[apply]
    fn paid(&mut self, _: &Paid) {}
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "shop.earned")]
struct Earned {
    cents: i64,
    of: String,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{0} cents are not worth it")]
struct NotWorthIt(i64);

#[derive(Command, Clone)]
struct Open;

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "shop.opened")]
struct Opened {}

#[derive(Default, Debug, PartialEq)]
struct Shop {
    cents: i64,
}

#[aggregate(category = "shop", events = ShopEvent, error = NotWorthIt)]
impl Shop {
    #[command]
    fn open(&self, _: Open) -> Opened {
        Opened {}
    }
    #[on(to = event.shop)]
    fn order_paid(&self, event: &Paid, context: &Context) -> Result<Option<Earned>, NotWorthIt> {
        match event.cents {
            13 => Err(NotWorthIt(13)),
            14 => panic!("fourteen"),
            0 => Ok(None),
            cents => Ok(Some(Earned { cents, of: context.correlation_id.to_string() })),
        }
    }
    #[apply]
    fn opened(&mut self, _: &Opened) {}
    #[apply]
    fn earned(&mut self, event: &Earned) {
        self.cents += event.cents;
    }
}

/// Hands an order back and forth with its mirror for ever.
#[derive(Event, Clone, Serialize, Deserialize)]
#[event(name = "ping.sent")]
struct Pinged {}

#[derive(Event, Clone, Serialize, Deserialize)]
#[event(name = "pong.sent")]
struct Ponged {}

#[derive(Command, Clone)]
struct Serve;

#[derive(Default)]
struct Ping;

#[aggregate(category = "ping", events = PingEvent)]
impl Ping {
    #[command]
    fn serve(&self, _: Serve) -> Pinged {
        Pinged {}
    }
    #[on(to = header.stream.id())]
    fn ponged(&self, _: &Ponged) -> Pinged {
        Pinged {}
    }
    #[apply]
    fn pinged(&mut self, _: &Pinged) {}
}

#[derive(Default)]
struct Pong;

#[aggregate(category = "pong", events = PongEvent)]
impl Pong {
    #[on(to = header.stream.id())]
    fn pinged(&self, _: &Pinged) -> Ponged {
        Ponged {}
    }
    #[apply]
    fn ponged(&mut self, _: &Ponged) {}
}

async fn start(store: impl EventStore) -> App {
    App::builder().store(store).aggregate::<Order>().aggregate::<Shop>().start().await.unwrap()
}

async fn pay(app: &App, payments: &[(&'static str, i64)]) {
    for (number, (shop, cents)) in payments.iter().enumerate() {
        app.send(number.to_string(), Pay { shop, cents: *cents }).await.unwrap();
    }
}

fn stream(app: &App, name: &str) -> Vec<Recorded> {
    let stream: StreamId = name.parse().unwrap();
    let mut events = Vec::new();
    app.store()
        .read_stream(&stream, Version::EMPTY, &mut |event| {
            events.push(event);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    events
}

/// What a shop has earned, in order.
fn earned(app: &App, shop: &str) -> Vec<i64> {
    let events = stream(app, &format!("shop-{shop}"));
    let cents = |event: &Recorded| match event.decode::<ShopEvent>().unwrap() {
        ShopEvent::Earned(earned) => Some(earned.cents),
        ShopEvent::Opened(_) => None,
    };
    events.iter().filter_map(cents).collect()
}

#[tokio::test]
async fn an_event_is_decided_on_by_the_instance_that_it_names() {
    let app = start(Memory::new()).await;
    let paid = app.send("7", Pay { shop: "north", cents: 5 }).metadata("tenant", "acme").await;
    let paid = paid.unwrap();
    pay(&app, &[("south", 1), ("north", 2), ("north", 0), ("south", 3)]).await;
    app.settle().await.unwrap();
    assert_eq!((earned(&app, "north"), earned(&app, "south")), (vec![5, 2], vec![1, 3]));
    // It belongs to the story of what it was caused by.
    let cause = stream(&app, "order-7").remove(0).header;
    let effect = stream(&app, "shop-north").remove(0);
    assert_eq!(effect.header.correlation_id, cause.correlation_id);
    assert_eq!(effect.header.causation_id.as_uuid(), cause.event_id.as_uuid());
    assert_eq!(effect.header.metadata.get("tenant"), Some("acme"));
    assert!(effect.header.position > paid.position);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_event_that_is_delivered_again_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = start(sqlite(&path)).await;
    pay(&app, &[("north", 1), ("south", 2), ("north", 3)]).await;
    app.settle().await.unwrap();
    let head = app.head();
    app.shutdown().await.unwrap();
    drop(app);
    // As after a crash before its checkpoint was written, or when the file beside the log was lost.
    let views = rusqlite::Connection::open(directory.path().join("log.views.db")).unwrap();
    let forgotten = views.execute("UPDATE tidings_views SET position = 0 WHERE name = 'shop'", []);
    assert_eq!(forgotten.unwrap(), 1);
    drop(views);
    let app = start(sqlite(&path)).await;
    app.settle().await.unwrap();
    assert_eq!(app.head(), head);
    pay(&app, &[("north", 4)]).await;
    app.settle().await.unwrap();
    assert_eq!((earned(&app, "north"), earned(&app, "south")), (vec![1, 3, 4], vec![2]));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_was_committed_while_it_was_down_is_decided_on_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let builder = App::builder().store(sqlite(&path)).aggregate::<Order>();
    let app = builder.start().await.unwrap();
    pay(&app, &[("north", 1), ("north", 2)]).await;
    app.shutdown().await.unwrap();
    drop(app);
    let app = start(sqlite(&path)).await;
    app.settle().await.unwrap();
    assert_eq!(earned(&app, "north"), [1, 2]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_event_that_is_rejected_parks_its_instance_and_no_other() {
    for (bad, error) in [(13, "13 cents are not worth it"), (14, "fourteen")] {
        let app = start(Memory::new()).await;
        pay(&app, &[("north", 1), ("north", bad), ("south", 2), ("north", 3)]).await;
        app.settle().await.unwrap();
        assert_eq!((earned(&app, "north"), earned(&app, "south")), (vec![1], vec![2]));
        let letters = app.letters().of("shop").unwrap();
        let listed = letters.of_key("north");
        assert_eq!((listed.len(), letters.list().len()), (2, 2));
        assert_eq!((listed[0].state, listed[1].state), (LetterState::Parked, LetterState::Waiting));
        assert!(listed[0].error().unwrap().contains(error), "{listed:?}");
        // It goes on taking commands.
        app.send("north", Open).await.unwrap();
        let discarded = letters.discard(listed[0].position, "settled by hand").await.unwrap();
        assert_eq!(discarded.handled, 1);
        assert_eq!(earned(&app, "north"), [1, 3]);
        app.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_circle_is_cut_and_parked() {
    let builder = App::builder().store(Memory::new()).aggregate::<Ping>().aggregate::<Pong>();
    let app = builder.start().await.unwrap();
    assert!(app.map().findings().iter().any(|finding| finding.to_string().contains("circle")));
    app.send("a", Serve).await.unwrap();
    app.settle().await.unwrap();
    assert_eq!(app.head().as_u64(), 65);
    let parked: usize = app.letters().consumers().map(|letters| letters.list().len()).sum();
    assert_eq!(parked, 1);
    app.shutdown().await.unwrap();
}

/// A view with the name of an aggregate that subscribes.
#[derive(Default)]
struct Namesake;

#[projection(name = "shop")]
impl Namesake {
    #[on]
    fn paid(&mut self, _: &Paid) {}
}

#[tokio::test]
async fn a_projection_with_the_name_of_an_aggregate_that_subscribes_is_refused() {
    let builder = App::builder().store(Memory::new()).aggregate::<Order>().aggregate::<Shop>();
    let error = builder.projection(Namesake).start().await.unwrap_err();
    assert!(matches!(error, StartError::ConsumerTwice("shop")), "{error}");
}
