//! The map shows who publishes what and who hears it, and its findings what is strange about that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail where they panic"
)]

#[path = "support/bank.rs"]
mod bank;

use bank::{Account, Balances, Deposit, Deposited};
use tidings::{
    App, Bus, Finding, Grounds, Keeping, Map, Memory, PublishError, Publisher, TopicExists,
    TopicOptions, TransientEvent, subscriber,
};

#[derive(TransientEvent)]
struct Alert;

struct Quote;
struct Trade;

#[derive(TransientEvent)]
enum Market {
    Quote(Quote),
    Trade(Trade),
}

struct Risk(Publisher<Alert>);

#[subscriber(name = "risk", publishes(Alert))]
impl Risk {
    #[on]
    fn quote(&mut self, _: &Quote) -> Result<(), PublishError<Alert>> {
        self.0.try_publish(Alert)
    }
    #[on]
    fn deposited(&mut self, _: &Deposited) {}
}

#[derive(TransientEvent)]
struct Ping;

#[derive(TransientEvent)]
struct Pong;

struct Left;

#[subscriber(name = "left", publishes(Ping))]
impl Left {
    #[on]
    fn pong(&mut self, _: &Pong) {}
}

struct Right;

#[subscriber(name = "right", publishes(Pong))]
impl Right {
    #[on]
    fn ping(&mut self, _: &Ping) {}
}

#[track_caller]
fn check(findings: &[Finding], expected: &[&str]) {
    let texts: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(texts, expected);
}

#[tokio::test]
async fn a_small_wiring_is_drawn_whole_and_has_no_findings() {
    let bus = Bus::new();
    let exchange = bus.topic::<Market>().publisher("the \"exchange\" <1>");
    let audit = bus.topic::<Market>().subscribe().named("audit").drop_oldest().open();
    let display = bus.topic::<Alert>().subscribe().open();
    let risk = Risk(bus.topic().publisher("risk"));
    let app = App::builder()
        .store(Memory::new())
        .bus(bus)
        .aggregate::<Account>()
        .projection(Balances::default())
        .subscriber(risk);
    let app = app.start().await.unwrap();
    // Two events of an account have no hearer but the log's own.
    let rigged = "nobody hears account.rigged on topic account, which account publishes: handle it, subscribe before the app starts, or declare who hears it with `bus.component(…).hears::<…>()`";
    check(&app.map().findings(), &[rigged]);
    app.bus().component("ledger").hears::<bank::Rigged>();
    check(&app.map().findings(), &[]);

    exchange.publish(Quote.into()).await.unwrap();
    exchange.publish(Trade.into()).await.unwrap();
    let receipt = app.send("a", Deposit { cents: 1 }).await.unwrap();
    app.view::<Balances>().at_least(receipt.position).await.unwrap();
    let at_rest = |map: &Map| {
        let risk = map.components.iter().find(|part| part.name == "risk").unwrap();
        let mut subscriptions = risk.hears.iter().flat_map(|hearing| &hearing.subscriptions);
        subscriptions.all(|subscription| subscription.lag == 0)
    };
    while app.status().subscribers[0].heard < 3 || !at_rest(&app.map()) {
        tokio::task::yield_now().await;
    }
    let drawn = app.map().to_mermaid();
    assert_eq!(
        drawn,
        r##"flowchart LR
    t0(["Alert"])
    t1(["Market"])
    t2[("account")]
    c0["account"]
    c1["audit"]
    c2["balances"]
    c3["ledger"]
    c4["risk"]
    c5["subscription 1 of Alert, without a name"]
    c6["the #quot;exchange#quot; #lt;1#gt;"]
    c0 --> t2
    c4 --> t0
    c6 --> t1
    t1 -->|"drop oldest, lag 2"| c1
    t2 -->|"account.deposited, account.withdrawn; from log, lag 0"| c2
    t2 -->|"account.rigged"| c3
    t1 -->|"Quote; block, lag 0"| c4
    t2 -->|"account.deposited; from log, lag 0"| c4
    t0 -->|"block, lag 1"| c5
"##
    );
    assert_eq!(app.bus().map(), app.map());
    app.shutdown().await.unwrap();
    drop((audit, display));
}

#[tokio::test]
async fn the_map_is_data() {
    let bus = Bus::new();
    let clock = bus.topic::<Ping>().publisher("clock");
    clock.publish(Ping).await.unwrap();
    let map = serde_json::to_value(bus.map()).unwrap();
    assert_eq!(
        map,
        serde_json::json!({
            "topics": [{
                "name": "Ping",
                "keeping": "transient",
                "carries": std::any::type_name::<Ping>(),
                "events": ["Ping"],
                "capacity": 4096,
                "published": 1,
            }],
            "components": [{
                "name": "clock",
                "kind": "other",
                "hears": [],
                "publishes": [{ "topic": "Ping", "events": ["Ping"], "grounds": "live" }],
                "trouble": null,
            }],
        })
    );
}

#[test]
fn an_event_that_nobody_hears_is_found_where_it_is_declared() {
    let bus = Bus::new();
    let _publisher = bus.topic::<Ping>().publisher("left");
    check(&bus.map().findings(), &[]);
    bus.component("left").publishes::<Ping>();
    let unheard = "nobody hears Ping on topic Ping, which left publishes: handle it, subscribe before the app starts, or declare who hears it with `bus.component(…).hears::<…>()`";
    check(&bus.map().findings(), &[unheard]);
    let _subscription = bus.topic::<Ping>().subscribe().open();
    check(&bus.map().findings(), &[]);
}

#[test]
fn a_handler_for_what_nobody_publishes_is_found_where_it_is_declared() {
    let bus = Bus::new();
    let _subscription = bus.topic::<Market>().subscribe().named("display").open();
    check(&bus.map().findings(), &[]);
    bus.component("display").hears::<Quote>();
    let unpublished = "nobody publishes Quote on topic Market, which display handles: make its publisher before the app starts, or declare who publishes it with `bus.component(…).publishes::<…>()`";
    check(&bus.map().findings(), &[unpublished]);
    // A publisher of the topic publishes whatever is on it.
    let _publisher = bus.topic::<Market>().publisher("exchange");
    check(&bus.map().findings(), &[]);
}

#[tokio::test]
async fn a_handler_for_events_of_an_aggregate_that_is_not_there_is_found() {
    let app = App::builder().store(Memory::new()).projection(Balances::default()).start().await;
    let app = app.unwrap();
    let text = |event| {
        format!(
            "nobody publishes {event} on topic account, which balances handles: give its aggregate to `App::builder().aggregate::<…>()`, or remove the handler"
        )
    };
    let (deposited, withdrawn) = (text("account.deposited"), text("account.withdrawn"));
    check(&app.map().findings(), &[&deposited, &withdrawn]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_program_that_keeps_a_log_and_nothing_else_has_no_findings() {
    let app = App::builder().store(Memory::new()).aggregate::<Account>().start().await.unwrap();
    check(&app.map().findings(), &[]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn circles_are_found_in_order_and_once() {
    let app = App::builder().store(Memory::new()).subscriber(Right).subscriber(Left).start().await;
    let app = app.unwrap();
    let circle = "left → right → left is a circle: make sure that an event comes to rest in it, or it is cut when too many handlers have caused one another";
    check(&app.map().findings(), &[circle]);

    app.bus().component("echo").hears::<Alert>().publishes::<Alert>();
    let circles: Vec<_> = app
        .map()
        .findings()
        .into_iter()
        .filter_map(|finding| match finding {
            Finding::Circle { components } => Some(components.join(" ")),
            _ => None,
        })
        .collect();
    assert_eq!(circles, ["echo", "left right"]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_was_only_seen_is_dotted_and_counts_for_circles() {
    let bus = Bus::new();
    let pings = bus.topic::<Ping>().publisher("pings");
    let again = pings.clone();
    let echoing = bus.topic::<Ping>().subscribe().named("echo").for_each(async |batch| {
        if batch.causation_depth() == 0 {
            again.publish(Ping).await.unwrap();
        }
    });
    pings.publish(Ping).await.unwrap();
    let drawn = async {
        while bus.topic::<Ping>().status().published < 2 {
            tokio::task::yield_now().await;
        }
        let map = bus.map();
        bus.close();
        map
    };
    let (echoed, map) = tokio::join!(echoing, drawn);
    echoed.unwrap();
    let echo = map.components.iter().find(|part| part.name == "echo").unwrap();
    assert_eq!(echo.publishes[0].grounds, Grounds::Seen);
    assert!(map.to_mermaid().contains("c0 -.-> t0\n"), "{}", map.to_mermaid());
    assert_eq!(map.findings(), [Finding::Circle { components: vec!["echo".into()] }]);
}

mod other {
    #[derive(tidings::TransientEvent)]
    pub(super) struct Ping;
}

#[tokio::test]
async fn two_types_of_one_name_are_told_apart_and_named() {
    let bus = Bus::new();
    let mut mine = bus.topic::<Ping>().subscribe().open();
    let _mine = bus.topic::<Ping>().publisher("mine");
    bus.topic::<other::Ping>().publisher("other").publish(other::Ping).await.unwrap();
    bus.close();
    assert!(mine.next().await.unwrap().is_none(), "it was published on the other topic");

    let map = bus.map();
    let names: Vec<_> = map.topics.iter().map(|topic| topic.name.as_str()).collect();
    let (one, two) = (std::any::type_name::<Ping>(), std::any::type_name::<other::Ping>());
    assert_eq!(names, [format!("Ping ({one})"), format!("Ping ({two})")]);
    assert_eq!(map.findings(), [Finding::SameName { name: "Ping", types: vec![one, two] }]);
    assert!(map.topics.iter().all(|topic| topic.keeping == Keeping::Transient));
}

#[test]
fn a_topic_is_made_once_and_closed_with_its_bus() {
    let bus = Bus::new();
    let topic = bus.topic_with::<Ping>(TopicOptions::default().capacity(8)).unwrap();
    assert_eq!(bus.topic::<Ping>().status().capacity, 8);
    let exists = bus.topic_with::<Ping>(TopicOptions::default()).unwrap_err();
    assert_eq!(exists, TopicExists { topic: "Ping" });
    bus.close();
    let closed = topic.publisher("clock").try_publish(Ping);
    assert!(matches!(closed, Err(PublishError::Closed(Ping))));
    let late = bus.topic::<Pong>().publisher("clock").try_publish(Pong);
    assert!(matches!(late, Err(PublishError::Closed(Pong))));
}
