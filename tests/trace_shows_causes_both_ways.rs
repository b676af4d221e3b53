//! A story can be told: which command led to which event, what that has caused, up to the root and down to the last effect; of any
//! number of stories that happen at once, over reactors and aggregates that subscribe.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "sqlite", feature = "testing"))]

#[path = "support/bank.rs"]
mod bank;

use std::collections::BTreeSet;
use std::time::Duration;

use bank::*;
use serde::{Deserialize, Serialize};
use tidings::testing::ManualClock;
use tidings::{
    App, AppBuilder, CausationId, Command, Commit, CorrelationId, Delivery, Event, EventStore,
    ExpectedVersion, Header, HistoryError, Memory, Position, Recorded, StreamId, SystemClock,
    Timestamp, Trace, TraceNode, Traced, aggregate, reactor,
};
use uuid::Uuid;

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "order.placed")]
struct Placed {
    shop: String,
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "order.shipped")]
struct Shipped {}

#[derive(Command, Clone)]
struct Place {
    shop: String,
}

#[derive(Command, Clone)]
struct Ship;

#[derive(Default)]
struct Order;

#[aggregate(category = "order", events = OrderEvent)]
impl Order {
    #[command]
    fn place(&self, command: Place) -> Placed {
        Placed { shop: command.shop }
    }
    #[command]
    fn ship(&self, _: Ship) -> Shipped {
        Shipped {}
    }
    #[apply]
    fn placed(&mut self, _: &Placed) {}
    #[apply]
    fn shipped(&mut self, _: &Shipped) {}
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "shop.counted")]
struct Counted {}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "shop.thanked")]
struct Thanked {}

/// Subscribes to orders: two events for each.
#[derive(Default)]
struct Shop;

#[aggregate(category = "shop", events = ShopEvent)]
impl Shop {
    #[on(to = event.shop)]
    fn order_placed(&self, event: &Placed) -> (Counted, Thanked) {
        let _ = event;
        (Counted {}, Thanked {})
    }
    #[apply]
    fn counted(&mut self, _: &Counted) {}
    #[apply]
    fn thanked(&mut self, _: &Thanked) {}
}

/// Ships each order that was placed.
struct Shipping;

#[reactor(name = "shipping")]
impl Shipping {
    #[on]
    async fn placed(
        &self,
        _: &Placed,
        delivery: &Delivery,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let app = delivery.app().ok_or("the app is gone")?;
        let ship = app.send(delivery.stream.id(), Ship);
        ship.command_id(delivery.command_id("ship")).caused_by(delivery).await?;
        Ok(())
    }
}

async fn start(builder: AppBuilder) -> App {
    builder
        .aggregate::<Order>()
        .aggregate::<Shop>()
        .aggregate::<Account>()
        .reactor(Shipping)
        .start()
        .await
        .unwrap()
}

/// Waits until the log holds so many events.
async fn grown(app: &App, events: u64) {
    until("everything has come to its effects", || app.head() >= Position::new(events)).await;
}

/// The log at `events`, to be looked up in.
fn event<'l>(log: &'l [Recorded], stream: &str, name: &str) -> &'l Header {
    let mut events = log.iter().filter(|event| event.stream.as_str() == stream);
    &events.find(|event| event.name == name).unwrap().header
}

/// A node in short: how deep, and what.
fn short(node: &TraceNode) -> (usize, String) {
    let what = match &node.what {
        Traced::Event { name, stream, .. } => format!("{stream} {name}"),
        Traced::Command { .. } => "command".to_owned(),
        _ => "unknown".to_owned(),
    };
    (node.depth, what)
}

fn shorts<'n>(nodes: impl IntoIterator<Item = &'n TraceNode>) -> Vec<(usize, String)> {
    nodes.into_iter().map(short).collect()
}

/// All that the log says of a story, whatever the trace says.
fn naive(log: &[Recorded], story: CorrelationId) -> BTreeSet<Position> {
    let events = log.iter().filter(|event| event.correlation_id == story);
    events.map(|event| event.position).collect()
}

fn positions(trace: &Trace) -> BTreeSet<Position> {
    let events = trace.events().map(|node| match &node.what {
        Traced::Event { position, .. } => *position,
        other => panic!("{other}"),
    });
    events.collect()
}

#[tokio::test]
async fn of_stories_that_happen_at_once_each_is_told_whole() {
    for on_disk in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let app = start(match on_disk {
            true => App::builder().store(sqlite(directory.path().join("log.db"))),
            false => App::builder().store(Memory::new()),
        })
        .await;
        const ORDERS: u64 = 40;
        let mut sent = Vec::new();
        for number in 0..ORDERS {
            let place = Place { shop: format!("s{}", number % 3) };
            sent.push(app.send(format!("o{number}"), place).begin());
            // What belongs to nothing else.
            app.send("a", Deposit { cents: 1 }).await.unwrap();
        }
        let mut receipts = Vec::new();
        for sending in sent {
            receipts.push(sending.await.unwrap());
        }
        grown(&app, ORDERS * 5).await;
        let log = whole_log(app.store());
        for (number, receipt) in receipts.iter().enumerate() {
            let (order, shop) = (format!("order-o{number}"), format!("shop-s{}", number % 3));
            let story = CorrelationId::from_uuid(receipt.command_id.into());
            let trace = app.trace(story).await.unwrap();
            assert_eq!(trace, app.trace_of(receipt.position).await.unwrap());
            assert_eq!((trace.correlation_id(), trace.is_empty()), (story, false));
            assert_eq!(positions(&trace), naive(&log, story));

            // The two effects of the event come in any order.
            let placed = event(&log, &order, "order.placed");
            let mut nodes = shorts(trace.nodes());
            assert_eq!(nodes[..2], [(0, "command".into()), (1, format!("{order} order.placed"))]);
            if nodes[3].1.starts_with("order") {
                nodes[2..].rotate_left(2);
            }
            let expected = [
                (2, "command".to_owned()),
                (3, format!("{shop} shop.counted")),
                (3, format!("{shop} shop.thanked")),
                (2, "command".to_owned()),
                (3, format!("{order} order.shipped")),
            ];
            assert_eq!(nodes[2..], expected);
            assert_eq!(trace.roots().count(), 1);

            // Down, and up.
            assert_eq!(trace.effects(placed.event_id), &trace.nodes()[2..]);
            assert_eq!(trace.effects(receipt.command_id), &trace.nodes()[1..]);
            let shipped = event(&log, &order, "order.shipped");
            assert!(trace.effects(shipped.event_id).is_empty());
            let causes = trace.causes(shipped.event_id);
            let ids: Vec<_> = causes.iter().map(|cause| cause.what.id()).collect();
            let ship = shipped.command_id.unwrap();
            let expected: [Uuid; 3] =
                [ship.into(), placed.event_id.into(), receipt.command_id.into()];
            assert_eq!(ids, expected);
            assert!(trace.causes(receipt.command_id).is_empty());
            assert!(trace.node(shipped.event_id).is_some());
            // Others are strangers to it.
            let other = log.iter().find(|event| event.correlation_id != story).unwrap();
            assert!(trace.node(other.event_id).is_none());
            assert!(trace.causes(other.event_id).is_empty());
            assert!(trace.effects(other.event_id).is_empty());
        }
        let unknown = app.trace(CorrelationId::from_uuid(Uuid::max())).await.unwrap();
        assert!(unknown.is_empty() && unknown.nodes().is_empty());
        for position in [0, ORDERS * 5 + 1] {
            let error = app.trace_of(Position::new(position)).await.unwrap_err();
            assert!(matches!(error, HistoryError::BeyondLog { .. }), "{error}");
        }
        app.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_story_is_written_as_a_tree_without_what_is_personal() {
    let clock = ManualClock::at(Timestamp::from_micros(853_579_800_000_000));
    let app = start(App::builder().store(Memory::new()).clock(clock)).await;
    let place = Place { shop: "secret".into() };
    let receipt = app.send("o", place).metadata("user", "private").await.unwrap();
    grown(&app, 4).await;
    let trace = app.trace_of(receipt.position).await.unwrap();
    let text = trace.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 8, "{text}");
    assert_eq!(lines[0], format!("story {}: 4 events", receipt.command_id));
    assert_eq!(lines[1], format!("  command {}", receipt.command_id));
    assert_eq!(
        lines[2],
        "    1997-01-18T09:30:00.000000Z order.placed in order-o, version 1, position 1"
    );
    assert!(lines[3].starts_with("      command "), "{text}");
    let json = serde_json::to_value(&trace).unwrap();
    assert_eq!(json["nodes"][0]["kind"], "command");
    assert_eq!(json["nodes"][1]["kind"], "event");
    assert_eq!(json["nodes"][1]["depth"], 1);
    assert_eq!(json["nodes"][1]["name"], "order.placed");
    assert_eq!(json["nodes"][1]["stream"], "order-o");
    for told in [text, json.to_string(), format!("{trace:?}")] {
        // The stream's name is its own affair.
        let told = told.replace("shop-secret", "");
        assert!(!told.contains("secret") && !told.contains("private"), "{told}");
    }
    app.shutdown().await.unwrap();
}

/// Writes an event past the app, as an import does.
fn write(
    store: &dyn EventStore,
    time: Timestamp,
    story: Option<Uuid>,
    cause: Option<Uuid>,
) -> Uuid {
    let stream = StreamId::new("import", "1").unwrap();
    let mut header = Header::new(stream.clone(), "import.seen", 1, time);
    if let Some(story) = story {
        header.correlation_id = CorrelationId::from_uuid(story);
    }
    if let Some(cause) = cause {
        header.causation_id = CausationId::from_uuid(cause);
    }
    let id = header.event_id.into();
    let events = vec![Recorded { header, payload: b"{}".as_slice().into() }];
    let commit = Commit::new().append(stream, ExpectedVersion::Any, events);
    store.commit(&mut [commit]).unwrap()[0].as_ref().unwrap();
    id
}

#[tokio::test]
async fn a_story_is_found_whatever_clocks_and_ids_say() {
    for on_disk in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let app = start(match on_disk {
            true => App::builder().store(sqlite(directory.path().join("log.db"))),
            false => App::builder().store(Memory::new()),
        })
        .await;
        let store = app.store();
        let now = tidings::Clock::now(&SystemClock);
        let days = |days: u64| {
            let micros = Duration::from_secs(days * 24 * 60 * 60).as_micros() as u64;
            Timestamp::from_micros(now.as_micros() - micros)
        };
        // A story that begins with an event, and goes on days later, after the clock was set back, and back again.
        let root = write(store, now, None, None);
        for day in [9, 5, 0] {
            for _ in 0..50 {
                write(store, days(day), None, None);
            }
            write(store, days(day), Some(root), Some(root));
        }
        // One that began outside, with an id of today: its first events are older than a day.
        let millis = now.as_micros() / 1_000;
        let outside = uuid::Builder::from_unix_timestamp_millis(millis, &[7; 10]).into_uuid();
        let first = write(store, days(7), Some(outside), None);
        for _ in 0..50 {
            write(store, now, None, None);
        }
        write(store, now, Some(outside), Some(first));
        // One whose clock stands still in 1970, while its id is of today.
        let still = write(store, Timestamp::from_micros(5), None, None);
        write(store, Timestamp::from_micros(5), Some(still), Some(still));
        // One with an id that says nothing of time.
        let named = Uuid::from_u128(7);
        write(store, now, Some(named), Some(Uuid::max()));

        let log = whole_log(store);
        for (story, events) in [(root, 4), (outside, 2), (still, 2), (named, 1)] {
            let story = CorrelationId::from_uuid(story);
            let trace = app.trace(story).await.unwrap();
            assert_eq!(trace.events().count(), events);
            assert_eq!(positions(&trace), naive(&log, story));
        }
        let trace = app.trace(CorrelationId::from_uuid(named)).await.unwrap();
        assert!(trace.to_string().ends_with(&format!(
            "position {}, caused by {}, which is not part of the story",
            log.len(),
            Uuid::max()
        )));
        app.shutdown().await.unwrap();
    }
}
