//! Guarantee 34: what an earlier program has stored is read as what it is today, whether it was split, merged, dropped or renamed;
//! and each reader reads the same, wherever it begins.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "macros", feature = "sqlite"))]

#[path = "support/stored.rs"]
mod stored;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use stored::{KINDS, Old, append, append_together, commit_together, log, old, stream};
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::testing::Faults;
use tidings::{
    App, Command, CommandId, ConsumerState, Delivery, DeliveryId, ErrorClass, Event, EventId,
    Header, Json, LetterState, Position, StreamId, aggregate, projection, reactor, upcasts,
};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "person.street_changed")]
struct StreetChanged {
    street: String,
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "person.city_changed")]
struct CityChanged {
    city: String,
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "person.address_changed")]
struct AddressChanged {
    street: String,
    city: String,
}

/// Was called `person.called` up to a part of version 2.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "person.renamed", version = 2, formerly = "person.called")]
struct Renamed {
    first: String,
    last: String,
}

#[upcasts]
impl Renamed {
    #[upcast(from = 1)]
    fn two_names(old: Json) -> Json {
        let name = old["name"].as_str().unwrap_or_default();
        let (first, last) = name.split_once(' ').unwrap_or(("", name));
        json!({ "first": first, "last": last })
    }
}

#[derive(Deserialize)]
struct MovedV1 {
    street: String,
    city: String,
}

#[derive(Deserialize)]
struct StreetV1 {
    street: String,
}

#[derive(Deserialize)]
struct CityV1 {
    city: String,
}

#[derive(Command, Clone)]
struct Move(&'static str);

#[derive(Debug, Default, Clone, PartialEq)]
struct Person {
    name: String,
    street: String,
    city: String,
    changes: u32,
}

#[aggregate(category = "person", events = PersonEvent, derive(Clone, PartialEq))]
impl Person {
    #[command]
    fn change_city(&self, command: Move) -> CityChanged {
        // What the aggregate has folded shows in what it decides.
        let Self { name, street, city, changes } = self;
        CityChanged { city: format!("{} after {changes}: {name}, {street}, {city}", command.0) }
    }

    #[apply]
    fn street(&mut self, event: &StreetChanged) {
        self.street = event.street.clone();
        self.changes += 1;
    }

    #[apply]
    fn city(&mut self, event: &CityChanged) {
        self.city = event.city.clone();
        self.changes += 1;
    }

    #[apply]
    fn both(&mut self, event: &AddressChanged) {
        (self.street, self.city) = (event.street.clone(), event.city.clone());
        self.changes += 1;
    }

    #[apply]
    fn renamed(&mut self, event: &Renamed) {
        self.name = format!("{}, {}", event.last, event.first);
        self.changes += 1;
    }

    #[upcast(event = "person.moved", version = 1)]
    fn moved(old: MovedV1) -> (StreetChanged, CityChanged) {
        (StreetChanged { street: old.street }, CityChanged { city: old.city })
    }

    #[upcast(event = "person.pinged", version = 1)]
    fn pinged(_: Json) {}

    #[upcast(event = "person.street", version = 1, with_next = "person.city", next_version = 1)]
    fn address(street: StreetV1, city: CityV1) -> AddressChanged {
        AddressChanged { street: street.street, city: city.city }
    }

    #[upcast(event = "person.street", version = 1)]
    fn street_alone(old: StreetV1) -> Option<StreetChanged> {
        (!old.street.is_empty()).then_some(StreetChanged { street: old.street })
    }
}

/// Which texts fail for good.
#[derive(Clone, Default)]
struct Refusals(Arc<Mutex<Vec<&'static str>>>);

impl Refusals {
    fn of(texts: &[&'static str]) -> Self {
        Self(Arc::new(Mutex::new(texts.to_vec())))
    }

    fn mend(&self) {
        self.0.lock().unwrap().clear();
    }

    fn check(&self, text: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        match self.0.lock().unwrap().contains(&text) {
            true => Err(format!("{text:?} is refused").into()),
            false => Ok(()),
        }
    }
}

fn for_good(_: &(dyn Error + 'static)) -> ErrorClass {
    ErrorClass::Permanent
}

macro_rules! seen {
    ($ty:ident, $name:literal, $table:literal $(, $key:ident)*) => {
        struct $ty(Refusals);

        #[projection(
            name = $name,
            schema = concat!("CREATE TABLE ", $table, " (number INTEGER PRIMARY KEY, position INTEGER, event TEXT, text TEXT)"),
            classify = for_good
            $(, $key = stop)*
        )]
        impl $ty {
            fn row(&self, tx: &Transaction<'_>, header: &Header, text: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
                let row = (i64::try_from(header.position.as_u64())?, header.event_id.to_string(), text);
                tx.execute(concat!("INSERT INTO ", $table, " (position, event, text) VALUES (?1, ?2, ?3)"), row)?;
                self.0.check(text)
            }

            #[on]
            fn street(&self, tx: &Transaction<'_>, event: &StreetChanged, header: &Header) -> Result<(), Box<dyn Error + Send + Sync>> {
                self.row(tx, header, &event.street)
            }

            #[on]
            fn city(&self, tx: &Transaction<'_>, event: &CityChanged, header: &Header) -> Result<(), Box<dyn Error + Send + Sync>> {
                self.row(tx, header, &event.city)
            }

            #[on]
            fn both(&self, tx: &Transaction<'_>, event: &AddressChanged, header: &Header) -> Result<(), Box<dyn Error + Send + Sync>> {
                self.row(tx, header, &format!("{} + {}", event.street, event.city))
            }

            #[on]
            fn renamed(&self, tx: &Transaction<'_>, event: &Renamed, header: &Header) -> Result<(), Box<dyn Error + Send + Sync>> {
                self.row(tx, header, &format!("{} {}", event.first, event.last))
            }
        }

        impl $ty {
            async fn rows(app: &App) -> Rows {
                let view = app.view::<Self>().at_least(app.head()).await.unwrap();
                view.query(|connection| rows(connection, $table)).await.unwrap()
            }
        }
    };
}
seen!(Seen, "seen", "seen");
seen!(Strict, "strict", "strict_seen", on_failure);

/// Position, event id and text of what was handled, in order.
type Rows = Vec<(i64, String, String)>;

fn rows(connection: &Connection, table: &str) -> rusqlite::Result<Rows> {
    connection
        .prepare(&format!("SELECT position, event, text FROM {table} ORDER BY number"))?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect()
}

fn texts(rows: &Rows) -> Vec<(i64, &str)> {
    rows.iter().map(|(position, _, text)| (*position, text.as_str())).collect()
}

async fn start(log: &Faults, refusals: &Refusals) -> App {
    let (store, _) = log.restart();
    let builder = App::builder().store(store).aggregate::<Person>();
    builder.projection(Seen(refusals.clone())).start().await.unwrap()
}

fn street<'a>(stream: &'a StreamId, street: &str) -> Old<'a> {
    old(stream, "person.street", 1, json!({ "street": street }))
}

fn city<'a>(stream: &'a StreamId, city: &str) -> Old<'a> {
    old(stream, "person.city", 1, json!({ "city": city }))
}

fn moved<'a>(stream: &'a StreamId, street: &str, city: &str) -> Old<'a> {
    old(stream, "person.moved", 1, json!({ "street": street, "city": city }))
}

/// What a topic hands out from the beginning of the log: positions, ids, events.
async fn heard(app: &App) -> Vec<(i64, String, PersonEvent)> {
    let topic = app.topic::<PersonEvent>().unwrap();
    let mut subscription = topic.subscribe().after(Position::START).open();
    let mut heard = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_millis(200), subscription.next()).await;
        let Ok(batch) = next else { return heard };
        for envelope in batch.unwrap().unwrap().events() {
            let id = envelope.event_id.to_string();
            heard.push((envelope.position.as_u64() as i64, id, envelope.event.clone()));
        }
    }
}

#[tokio::test]
async fn every_reader_reads_the_same() {
    for kind in KINDS {
        let directory = tempfile::tempdir().unwrap();
        let log = log(kind, directory.path());
        let (ada, bob) = (stream("person", "ada"), stream("person", "bob"));
        append(
            &log,
            [
                old(&ada, "person.called", 1, json!({ "name": "Ada Byron" })),
                moved(&ada, "Marylebone", "London"),
                old(&ada, "person.pinged", 1, json!(null)),
                // A pair with another stream between.
                street(&ada, "Piccadilly"),
                street(&bob, "Broadway"),
                city(&ada, "Bath"),
                // A street alone, since what comes after it is no city; and one that says nothing.
                street(&bob, ""),
                old(&bob, "person.called", 2, json!({ "first": "Bob", "last": "Jones" })),
                old(&ada, "person.renamed", 1, json!({ "name": "Ada King" })),
            ],
        );
        // A pair that one command has made.
        let head = append_together(&log, [street(&bob, "Bond"), city(&bob, "York")]);
        assert_eq!(head.as_u64(), 11);
        let app = start(&log, &Refusals::default()).await;

        let rows = Seen::rows(&app).await;
        let expected = [
            (1, "Ada Byron"),
            (2, "Marylebone"),
            (2, "London"),
            (5, "Broadway"),
            (6, "Piccadilly + Bath"),
            (8, "Bob Jones"),
            (9, "Ada King"),
            (11, "Bond + York"),
        ];
        assert_eq!(texts(&rows), expected, "{kind:?}");
        // Each has an id of its own: the stored one, but for further parts.
        let mut ids: Vec<_> = rows.iter().map(|(_, id, _)| id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), rows.len());

        let heard = heard(&app).await;
        let of_topic: Vec<_> = heard.iter().map(|(position, id, _)| (*position, id)).collect();
        let of_rows: Vec<_> = rows.iter().map(|(position, id, _)| (*position, id)).collect();
        assert_eq!(of_topic, of_rows, "{kind:?}");
        assert!(
            heard[4].2
                == AddressChanged { street: "Piccadilly".into(), city: "Bath".into() }.into()
        );

        // The aggregate has folded it, and goes on with events of today.
        app.send("ada", Move("Ockham")).await.unwrap();
        app.send("bob", Move("Hull")).await.unwrap();
        let rows = Seen::rows(&app).await;
        let last = [
            (12, "Ockham after 5: King, Ada, Piccadilly, Bath"),
            (13, "Hull after 3: Jones, Bob, Bond, York"),
        ];
        assert_eq!(texts(&rows)[8..], last, "{kind:?}");
        app.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_merge_is_the_same_if_the_projection_begins_again_between_its_halves() {
    for kind in KINDS {
        let directory = tempfile::tempdir().unwrap();
        let log = log(kind, directory.path());
        let (ada, bob) = (stream("person", "ada"), stream("person", "bob"));
        append(&log, [street(&ada, "Piccadilly"), moved(&bob, "stop", "here"), city(&ada, "Bath")]);
        let begin = |refusals: &Refusals| {
            let builder = App::builder().store(log.restart().0).aggregate::<Person>();
            builder.projection(Strict(refusals.clone())).start()
        };
        let app = begin(&Refusals::of(&["stop"])).await.unwrap();
        let status = || app.status().consumer("strict").unwrap().clone();
        until("it has stopped", || status().state == ConsumerState::Stopped).await;
        assert_eq!(status().position.as_u64(), 1, "its checkpoint is between the halves");
        app.shutdown().await.unwrap();
        drop(app);

        let app = begin(&Refusals::default()).await.unwrap();
        let rows = Strict::rows(&app).await;
        assert_eq!(texts(&rows), [(2, "stop"), (2, "here"), (3, "Piccadilly + Bath")], "{kind:?}");
        app.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn the_parts_of_a_split_event_are_set_aside_and_handled_as_one() {
    for kind in KINDS {
        let directory = tempfile::tempdir().unwrap();
        let log = log(kind, directory.path());
        let (ada, bob) = (stream("person", "ada"), stream("person", "bob"));
        append(
            &log,
            [
                moved(&ada, "Marylebone", "refused"),
                moved(&ada, "Piccadilly", "Bath"),
                moved(&bob, "Broadway", "York"),
            ],
        );
        let refusals = Refusals::of(&["refused"]);
        let app = start(&log, &refusals).await;
        // The first part has left no trace, though it did not fail itself; the second event waits behind it with both parts.
        assert_eq!(texts(&Seen::rows(&app).await), [(3, "Broadway"), (3, "York")], "{kind:?}");
        let letters = app.letters().of("seen").unwrap();
        let states: Vec<_> =
            letters.list().iter().map(|l| (l.position.as_u64(), l.state)).collect();
        assert_eq!(states, [(1, LetterState::Parked), (2, LetterState::Waiting)]);

        refusals.mend();
        let retried = letters.retry(Position::new(1)).await.unwrap();
        assert_eq!((retried.handled, retried.failed), (2, vec![]));
        let rows = Seen::rows(&app).await;
        let expected = [
            (3, "Broadway"),
            (3, "York"),
            (1, "Marylebone"),
            (1, "refused"),
            (2, "Piccadilly"),
            (2, "Bath"),
        ];
        assert_eq!(texts(&rows), expected, "{kind:?}");
        app.shutdown().await.unwrap();
    }
}

/// Keeps cities in order by their names.
struct Cities(Refusals);

#[projection(
    name = "cities",
    schema = "CREATE TABLE cities (number INTEGER PRIMARY KEY, position INTEGER, event TEXT, text TEXT)",
    classify = for_good
)]
impl Cities {
    fn row(tx: &Transaction<'_>, header: &Header, text: &str) -> rusqlite::Result<usize> {
        let row = (header.position.as_u64() as i64, header.event_id.to_string(), text);
        tx.execute("INSERT INTO cities (position, event, text) VALUES (?1, ?2, ?3)", row)
    }

    #[on]
    fn street(
        &self,
        tx: &Transaction<'_>,
        event: &StreetChanged,
        header: &Header,
    ) -> rusqlite::Result<usize> {
        Self::row(tx, header, &event.street)
    }

    #[on(key = event.city)]
    fn city(
        &self,
        tx: &Transaction<'_>,
        event: &CityChanged,
        header: &Header,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Self::row(tx, header, &event.city)?;
        self.0.check(&event.city)
    }
}

/// Whoever appends to the log of a running app may append what an earlier program would have.
#[tokio::test]
async fn the_parts_of_an_event_that_comes_live_are_handled_as_one_too() {
    for kind in KINDS {
        let directory = tempfile::tempdir().unwrap();
        let log = log(kind, directory.path());
        let (ada, bob) = (stream("person", "ada"), stream("person", "bob"));
        let refusals = Refusals::of(&["York"]);
        let builder = App::builder().store(log.restart().0).aggregate::<Person>();
        let app = builder.projection(Cities(refusals.clone())).start().await.unwrap();
        let mut subscription = app.topic::<PersonEvent>().unwrap().subscribe().open();
        // What was appended beside the app is published with what the app appends.
        let append = async |event: Old<'_>| {
            commit_together(app.store(), [event]);
            let after = app.send("eve", Move("Ely")).await.unwrap().position;
            app.view::<Cities>().at_least(after).await.unwrap();
            let live = || app.status().consumer("cities").unwrap().state == ConsumerState::Live;
            until("it is live", live).await;
        };
        append(old(&ada, "person.city_changed", 1, json!({ "city": "York" }))).await;
        refusals.mend();
        append(moved(&bob, "Broadway", "York")).await;

        let letters = app.letters().of("cities").unwrap();
        let waiting: Vec<_> = letters.list().iter().map(|l| l.position.as_u64()).collect();
        assert_eq!(waiting, [1], "{kind:?}: an event is kept in order by its first part");
        letters.retry(Position::new(1)).await.unwrap();
        let view = app.view::<Cities>().at_least(app.head()).await.unwrap();
        let rows = view.query(|connection| rows(connection, "cities")).await.unwrap();
        let rows: Vec<_> =
            texts(&rows).into_iter().filter(|(_, text)| !text.starts_with("Ely")).collect();
        assert_eq!(rows, [(3, "Broadway"), (3, "York"), (1, "York")], "{kind:?}");

        // A subscription that was there all the time has both parts as well.
        let mut heard = Vec::new();
        while heard.len() < 5 {
            let batch = subscription.next().await.unwrap().unwrap();
            heard.extend(batch.iter().map(|envelope| envelope.position.as_u64()));
        }
        assert_eq!(heard, [1, 2, 3, 3, 4], "{kind:?}");
        app.shutdown().await.unwrap();
    }
}

#[derive(Default)]
struct Postman {
    delivered: Arc<Mutex<Vec<(DeliveryId, EventId, String)>>>,
    has_failed: AtomicBool,
}

#[reactor(name = "postman", retry(attempts = 5, first = "1 ms", longest = "2 ms"))]
impl Postman {
    #[on]
    async fn street(&self, event: &StreetChanged, delivery: &Delivery) {
        self.took(delivery, &event.street);
    }

    #[on]
    async fn city(&self, event: &CityChanged, delivery: &Delivery) -> std::io::Result<()> {
        self.took(delivery, &event.city);
        match self.has_failed.swap(true, Ordering::SeqCst) {
            false => Err(std::io::Error::from(std::io::ErrorKind::TimedOut)),
            true => Ok(()),
        }
    }
}

impl Postman {
    fn took(&self, delivery: &Delivery, text: &str) {
        let delivered = (delivery.id, delivery.header.event_id, text.to_owned());
        self.delivered.lock().unwrap().push(delivered);
    }
}

#[tokio::test]
async fn a_reactor_gets_each_part_as_a_delivery_of_its_own() {
    for kind in KINDS {
        let directory = tempfile::tempdir().unwrap();
        let log = log(kind, directory.path());
        let ada = stream("person", "ada");
        append(&log, [moved(&ada, "Marylebone", "London")]);
        let postman = Postman::default();
        let delivered = Arc::clone(&postman.delivered);
        let builder = App::builder().store(log.restart().0).aggregate::<Person>();
        let app = builder.reactor(postman).start().await.unwrap();
        until("it is done", || app.status().consumer("postman").unwrap().handled > 0).await;
        let delivered = delivered.lock().unwrap().clone();
        let texts: Vec<_> = delivered.iter().map(|(_, _, text)| text.as_str()).collect();
        assert_eq!(texts, ["Marylebone", "London", "Marylebone", "London"], "{kind:?}");
        let [first, second, again_first, again_second] = &delivered[..] else { panic!() };
        assert_eq!((first, second), (again_first, again_second));
        assert_ne!(first.0, second.0);
        assert_ne!(first.1, second.1);
        for (delivery, event, _) in &delivered {
            assert_eq!(*delivery, DeliveryId::of("postman", *event));
        }
        app.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn half_a_pair_that_nothing_reads_alone_is_an_error_that_says_what_to_write() {
    for kind in KINDS {
        let directory = tempfile::tempdir().unwrap();
        let log = log(kind, directory.path());
        let ada = stream("person", "ada");
        append(&log, [city(&ada, "Bath")]);
        let app = start(&log, &Refusals::default()).await;
        let letters = app.letters().of("seen").unwrap();
        until("it is parked", || !letters.list().is_empty()).await;
        let error = letters.list()[0].error().unwrap().to_owned();
        let way_out =
            "write an `#[upcast(event = \"person.city\", version = 1)]` that reads it alone";
        assert!(error.contains(way_out), "{error}");
        assert!(app.send("ada", Move("Ockham")).await.is_err());
        app.shutdown().await.unwrap();
    }
}

/// The same account in three programs: before, between and after.
mod account {
    use super::*;

    pub(super) type Sums = BTreeMap<String, i64>;

    macro_rules! program {
        ($program:ident, { $($items:item)* }) => {
            pub(super) mod $program {
                use super::*;

                $($items)*

                #[derive(Command, Clone)]
                pub(in super::super) struct Deposit(pub(in super::super) i64);

                #[derive(Default)]
                pub(in super::super) struct Sum {
                    pub(in super::super) of: Sums,
                }

                #[projection(name = "sum")]
                impl Sum {
                    #[on]
                    fn newest(&mut self, event: &Deposited, header: &Header) {
                        *self.of.entry(header.stream.id().to_owned()).or_default() += event.amount();
                    }
                }
            }
        };
    }

    program!(before, {
        #[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[event(name = "account.deposited")]
        pub(in super::super) struct Deposited {
            pub(in super::super) euros: i64,
        }

        impl Deposited {
            fn amount(&self) -> i64 {
                self.euros * 100
            }
        }

        #[derive(Default)]
        pub(in super::super) struct Account;

        #[aggregate(category = "account", events = pub(in super::super) AccountEvent)]
        impl Account {
            #[command]
            fn deposit(&self, command: Deposit) -> Deposited {
                Deposited { euros: command.0 }
            }

            #[apply]
            fn deposited(&mut self, _: &Deposited) {}
        }
    });

    program!(between, {
        #[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[event(name = "account.deposited")]
        pub(in super::super) struct DepositedV1 {
            euros: i64,
        }

        #[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[event(name = "account.deposited", version = 2, oldest = 2)]
        pub(in super::super) struct Deposited {
            cents: i64,
        }

        impl Deposited {
            /// Everything is there as version 1, which counts; this one is beside it.
            fn amount(&self) -> i64 {
                0
            }
        }

        #[derive(Default)]
        pub(in super::super) struct Account {
            euros: i64,
        }

        #[aggregate(category = "account", events = pub(in super::super) AccountEvent)]
        impl Account {
            #[command]
            fn deposit(&self, command: Deposit) -> (DepositedV1, Deposited) {
                assert_eq!(self.euros % 10, 0, "each was folded");
                (DepositedV1 { euros: command.0 }, Deposited { cents: command.0 * 100 })
            }

            #[apply]
            fn old(&mut self, event: &DepositedV1) {
                self.euros += event.euros;
            }

            #[apply]
            fn newer(&mut self, _: &Deposited) {}
        }

        /// Names the older type, and the newer one.
        #[derive(Default)]
        pub(in super::super) struct Both {
            pub(in super::super) seen: Vec<String>,
        }

        #[projection(name = "both")]
        impl Both {
            #[on]
            fn old(&mut self, event: &DepositedV1, header: &Header) {
                self.seen.push(format!("{} euros, version {}", event.euros, header.schema_version));
            }

            #[on]
            fn newer(&mut self, event: &Deposited, header: &Header) {
                self.seen.push(format!("{} cents, version {}", event.cents, header.schema_version));
            }
        }

        /// A reactor to both.
        #[derive(Default)]
        pub(in super::super) struct Teller(pub(in super::super) Arc<Mutex<Vec<String>>>);

        #[reactor(name = "teller", concurrency = 1)]
        impl Teller {
            #[on]
            async fn old(&self, event: &DepositedV1) {
                self.0.lock().unwrap().push(format!("{} euros", event.euros));
            }

            #[on]
            async fn newer(&self, event: &Deposited) {
                self.0.lock().unwrap().push(format!("{} cents", event.cents));
            }
        }
    });

    program!(after, {
        #[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[event(name = "account.deposited", version = 2, oldest = 2)]
        pub(in super::super) struct Deposited {
            cents: i64,
        }

        impl Deposited {
            fn amount(&self) -> i64 {
                self.cents
            }
        }

        #[derive(Default)]
        pub(in super::super) struct Account {
            cents: i64,
        }

        #[aggregate(category = "account", events = pub(in super::super) AccountEvent)]
        impl Account {
            #[command]
            fn deposit(&self, command: Deposit) -> Deposited {
                assert_eq!(self.cents % 1000, 0, "each was folded");
                Deposited { cents: command.0 * 100 }
            }

            #[apply]
            fn newer(&mut self, event: &Deposited) {
                self.cents += event.cents;
            }

            /// The old copy of the one that follows it.
            #[upcast(
                event = "account.deposited",
                version = 1,
                with_next = "account.deposited",
                next_version = 2
            )]
            fn copied(_: Json) {}

            #[upcast(event = "account.deposited", version = 1)]
            fn alone(old: Json) -> Deposited {
                Deposited { cents: old["euros"].as_i64().unwrap_or_default() * 100 }
            }
        }
    });

    program!(merging, {
        #[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[event(name = "account.deposited", version = 2)]
        pub(in super::super) struct Deposited {
            cents: i64,
        }

        #[upcasts]
        impl Deposited {
            #[upcast(from = 1)]
            fn cents(old: Json) -> Json {
                json!({ "cents": old["euros"].as_i64().unwrap_or_default() * 100 })
            }
        }

        impl Deposited {
            fn amount(&self) -> i64 {
                self.cents
            }
        }

        #[derive(Default)]
        pub(in super::super) struct Account {
            cents: i64,
        }

        #[aggregate(category = "account", events = pub(in super::super) AccountEvent)]
        impl Account {
            #[command]
            fn deposit(&self, command: Deposit) -> Deposited {
                assert_eq!(self.cents % 1000, 0, "each was folded");
                Deposited { cents: command.0 * 100 }
            }

            #[apply]
            fn newer(&mut self, event: &Deposited) {
                self.cents += event.cents;
            }

            #[upcast(
                event = "account.deposited",
                version = 1,
                with_next = "account.deposited",
                next_version = 2
            )]
            fn pair(_: Json, new: Deposited) -> Deposited {
                new
            }
        }
    });
}

#[tokio::test]
async fn two_versions_side_by_side_are_read_once_by_the_program_that_has_one() {
    for kind in KINDS {
        let directory = tempfile::tempdir().unwrap();
        let log = log(kind, directory.path());
        macro_rules! run {
            ($program:ident, $amounts:expr $(, $consumer:expr)*) => {{
                use account::$program::{Account, Deposit, Sum};
                let builder = App::builder().store(log.restart().0).aggregate::<Account>();
                $(let builder = $consumer(builder);)*
                let app = builder.projection(Sum::default()).start().await.unwrap();
                for euros in $amounts {
                    app.send("a", Deposit(euros)).command_id(CommandId::fresh()).await.unwrap();
                }
                let sums = app.view::<Sum>().at_least(app.head()).await.unwrap().of.clone();
                (app, sums.get("a").copied().unwrap_or_default())
            }};
        }
        let (app, sum) = run!(before, [10, 20]);
        assert_eq!(sum, 3000);
        app.shutdown().await.unwrap();

        // Two that stand alone, and then two pairs.
        use account::between::{Both, Teller};
        let teller = Teller::default();
        let told = Arc::clone(&teller.0);
        let add =
            |builder: tidings::AppBuilder| builder.projection(Both::default()).reactor(teller);
        let (app, _) = run!(between, [30, 40], add);
        let seen = app.view::<Both>().at_least(app.head()).await.unwrap().seen.clone();
        let expected = [
            "10 euros, version 1",
            "20 euros, version 1",
            "30 euros, version 1",
            "3000 cents, version 2",
            "40 euros, version 1",
            "4000 cents, version 2",
        ];
        assert_eq!(seen, expected, "{kind:?}");
        app.reached("teller", app.head(), Duration::from_secs(30)).await.unwrap();
        let expected = ["10 euros", "20 euros", "30 euros", "3000 cents", "40 euros", "4000 cents"];
        assert_eq!(*told.lock().unwrap(), expected, "{kind:?}");
        let map = app.map();
        let topic = map.topics.iter().find(|topic| topic.name == "account").unwrap();
        assert_eq!(topic.events, ["account.deposited"], "the map names it once");
        app.shutdown().await.unwrap();
        drop(app);

        let (app, sum) = run!(after, [50]);
        assert_eq!(sum, 15_000, "{kind:?}");
        app.shutdown().await.unwrap();
        drop(app);
        let (app, sum) = run!(merging, [60]);
        assert_eq!(sum, 21_000, "{kind:?}");
        app.shutdown().await.unwrap();
    }
}

/// The last event of the older version stands alone, whatever is appended after it: otherwise it would be there when the
/// program begins, and be gone with the first event of today.
#[tokio::test]
async fn an_old_event_is_no_half_of_what_another_command_appends_after_it() {
    use account::merging::{Account, Deposit, Sum};
    for kind in KINDS {
        let directory = tempfile::tempdir().unwrap();
        let log = log(kind, directory.path());
        let stream = stream("account", "a");
        append(&log, [old(&stream, "account.deposited", 1, json!({ "euros": 10 }))]);
        for (restart, sum) in [(0, 3000), (1, 5000)] {
            let builder = App::builder().store(log.restart().0).aggregate::<Account>();
            let app = builder.projection(Sum::default()).start().await.unwrap();
            app.send("a", Deposit(20)).await.unwrap();
            let sums = app.view::<Sum>().at_least(app.head()).await.unwrap().of.clone();
            assert_eq!(sums["a"], sum, "{kind:?}, restart {restart}");
            app.shutdown().await.unwrap();
        }
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// An event that had another name, in a format that is not JSON, with a handler that is not for replays.
#[cfg(feature = "messagepack")]
mod visits {
    use super::*;
    use tidings::{Codec, Commit, ExpectedVersion, Recorded, Timestamp};

    #[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[event(name = "visit.ended", formerly = "visit.left", codec = MessagePack)]
    struct Ended {
        minutes: i64,
    }

    #[derive(Command, Clone)]
    struct End;

    #[derive(Default)]
    struct Visit;

    #[aggregate(category = "visit", events = VisitEvent)]
    impl Visit {
        #[command]
        fn end(&self, _: End) -> Ended {
            Ended { minutes: 1 }
        }

        #[apply]
        fn ended(&mut self, _: &Ended) {}
    }

    #[derive(Default)]
    struct Minutes;

    #[projection(name = "minutes", classify = for_good)]
    impl Minutes {
        #[on(live_only)]
        fn ended(&mut self, event: &Ended) -> Result<(), Box<dyn Error + Send + Sync>> {
            match event.minutes {
                ..10 => Ok(()),
                minutes => Err(format!("{minutes} are too many").into()),
            }
        }
    }

    #[tokio::test]
    async fn an_edited_letter_of_a_handler_that_is_not_for_replays_outlives_a_rebuild() {
        let builder = App::builder().store(tidings::Memory::new()).aggregate::<Visit>();
        let app = builder.projection(Minutes).start().await.unwrap();
        let stream = stream("visit", "1");
        let mut payload = Vec::new();
        Codec::MessagePack.encode(&Ended { minutes: 13 }, &mut payload).unwrap();
        let mut header = Header::new(stream.clone(), "visit.left", 1, Timestamp::from_micros(1));
        header.codec = Codec::MessagePack;
        let event = Recorded { header, payload: payload.into() };
        let commit = Commit::new().append(stream, ExpectedVersion::Any, vec![event]);
        app.store().commit(&mut [commit]).unwrap();
        app.send("2", End).await.unwrap();

        let letters = app.letters().of("minutes").unwrap();
        until("it is parked", || !letters.list().is_empty()).await;
        let edited = letters.edit(Position::new(1), r#"{"minutes":14}"#).await;
        let error = letters.at(Position::new(1)).unwrap().error().unwrap().to_owned();
        assert!(error.contains("14 are too many"), "{error} {edited:?}");
        app.rebuild::<Minutes>().await.unwrap();
        assert!(letters.at(Position::new(1)).is_some(), "the letter is gone");
        letters.edit(Position::new(1), r#"{"minutes":5}"#).await.unwrap();
        assert!(letters.list().is_empty());
        app.shutdown().await.unwrap();
    }
}
