//! An event whose name the program does not know, as one of a newer program's is after its deployment was taken back: it is
//! an error, parked or passed over and counted, as the reader declares; it is never passed over without a word.
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

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bank::{Deposited, account, soon};
use serde::{Deserialize, Serialize};
use tidings::{
    App, AppBuilder, Command, Commit, ConsumerState, Delivery, Event, EventStore, ExpectedVersion,
    Header, LetterState, Memory, Position, Recorded, SendError, Sqlite, Timestamp, aggregate,
    projection, reactor,
};

/// Writes what another program wrote: of each line the account and the name of its event.
fn write(store: &dyn EventStore, events: &[(&str, &'static str)]) {
    events.iter().for_each(|(id, name)| write_version(store, id, name, 1));
}

fn write_version(store: &dyn EventStore, id: &str, name: &'static str, version: u32) {
    {
        let stream = account(id);
        let header = Header::new(stream.clone(), name, version, Timestamp::from_micros(1));
        let event = Recorded { header, payload: (*b"{\"cents\":1}").into() };
        let commit = Commit::new().append(stream, ExpectedVersion::Any, vec![event]);
        let outcomes = store.commit(&mut [commit]).expect("the log takes it");
        assert!(outcomes.iter().all(Result::is_ok));
    }
}

/// Position 3 holds what nobody here knows; the event after it is of the same account, the last one of another.
const LOG: [(&str, &str); 5] = [
    ("a", "account.deposited"),
    ("b", "account.deposited"),
    ("a", "account.frozen"),
    ("a", "account.deposited"),
    ("b", "account.deposited"),
];

macro_rules! projections {
    ($($name:ident $stored:literal [$($policy:tt)*];)+) => {$(
        #[derive(Default)]
        struct $name(usize);

        #[projection(name = $stored $($policy)*)]
        impl $name {
            #[on]
            fn deposited(&mut self, _: &Deposited) {
                self.0 += 1;
            }
        }
    )+};
}

projections! {
    Refuses "refuses" [];
    Parks "parks" [, unknown = park];
    Ignores "ignores" [, unknown = ignore];
}

/// The same in tables.
struct Table;

#[projection(
    name = "table",
    unknown = park,
    schema = "CREATE TABLE deposits (position INTEGER PRIMARY KEY) STRICT"
)]
impl Table {
    #[on]
    fn deposited(
        &self,
        tx: &tidings::sqlite::Transaction<'_>,
        _: &Deposited,
        header: &Header,
    ) -> tidings::sqlite::rusqlite::Result<usize> {
        tx.execute("INSERT INTO deposits VALUES (?)", [header.position.as_u64() as i64])
    }
}

#[derive(Clone, Default)]
struct Counts(Arc<AtomicUsize>);

macro_rules! reactors {
    ($($name:ident $stored:literal [$($policy:tt)*];)+) => {$(
        struct $name(Counts);

        #[reactor(name = $stored $($policy)*)]
        impl $name {
            #[on]
            async fn deposited(&self, _: &Deposited, _: &Delivery) {
                self.0.0.fetch_add(1, Ordering::SeqCst);
            }
        }
    )+};
}

reactors! {
    RefusingReactor "refusing reactor" [];
    ParkingReactor "parking reactor" [, unknown = park];
    IgnoringReactor "ignoring reactor" [, unknown = ignore];
}

fn both() -> Vec<(tempfile::TempDir, AppBuilder)> {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let memory = Memory::new();
    write(&memory, &LOG);
    let sqlite = Sqlite::open(two.path().join("bank.db")).unwrap();
    write(&sqlite, &LOG);
    vec![(one, App::builder().store(memory)), (two, App::builder().store(sqlite))]
}

const ALL: Position = Position::new(5);

async fn stops_before_it(app: &App, consumer: &str) {
    soon("it stops", async {
        loop {
            let status = app.status();
            let status = status.consumer(consumer).unwrap();
            if status.state == ConsumerState::Stopped {
                let trouble = status.trouble.clone().unwrap();
                assert!(trouble.contains("account.frozen at position 3 of account-a"), "{trouble}");
                assert_eq!(status.position, Position::new(2));
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(app.letters().of(consumer).unwrap().list().is_empty());
}

fn parks_what_is_behind_it(app: &App, consumer: &str) {
    let letters = app.letters().of(consumer).unwrap().list();
    let found: Vec<_> =
        letters.iter().map(|letter| (letter.position.as_u64(), letter.state)).collect();
    assert_eq!(found, [(3, LetterState::Parked), (4, LetterState::Waiting)], "{consumer}");
    let error = letters[0].error().unwrap();
    assert!(error.contains("no event of account is stored as \"account.frozen\""), "{error}");
    assert_eq!(app.status().consumer(consumer).unwrap().ignored, 0);
}

#[tokio::test]
async fn a_projection_stops_parks_or_counts_as_it_declares() {
    for (_directory, builder) in both() {
        let builder = builder.projection(Refuses::default()).projection(Parks::default());
        let builder = builder.projection(Ignores::default()).projection(Table);
        let app = builder.start().await.unwrap();

        stops_before_it(&app, "refuses").await;
        assert_eq!(app.view::<Refuses>().read().0, 2);

        let parks = app.view::<Parks>();
        assert_eq!(parks.at_least(ALL).await.unwrap().0, 3);
        parks_what_is_behind_it(&app, "parks");
        app.reached("table", ALL, std::time::Duration::from_secs(10)).await.unwrap();
        parks_what_is_behind_it(&app, "table");

        assert_eq!(app.view::<Ignores>().at_least(ALL).await.unwrap().0, 4);
        assert_eq!(app.status().consumer("ignores").unwrap().ignored, 1);
        assert!(app.letters().of("ignores").unwrap().list().is_empty());

        // A retry finds it as unknown as before; once a person has discarded it, what waits behind it goes on.
        let letters = app.letters().of("parks").unwrap();
        assert!(letters.retry(Position::new(3)).await.unwrap().handled == 0);
        parks_what_is_behind_it(&app, "parks");
        letters.discard(Position::new(3), "it is of no use here").await.unwrap();
        letters.retry_key("account-a").await.ok();
        soon("the rest", async {
            while app.view::<Parks>().read().0 < 4 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        app.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_reactor_stops_parks_or_counts_as_it_declares() {
    for (_directory, builder) in both() {
        let counts = [Counts::default(), Counts::default(), Counts::default()];
        let [refuses, parks, ignores] = counts.clone();
        let builder = builder.reactor(RefusingReactor(refuses)).reactor(ParkingReactor(parks));
        let app = builder.reactor(IgnoringReactor(ignores)).start().await.unwrap();
        let reached =
            async |name| app.reached(name, ALL, std::time::Duration::from_secs(10)).await.unwrap();

        stops_before_it(&app, "refusing reactor").await;
        reached("parking reactor").await;
        parks_what_is_behind_it(&app, "parking reactor");
        reached("ignoring reactor").await;
        assert_eq!(app.status().consumer("ignoring reactor").unwrap().ignored, 1);
        let counted = counts.map(|count| count.0.load(Ordering::SeqCst));
        assert_eq!(counted, [2, 3, 4]);
        app.shutdown().await.unwrap();
    }
}

/// Fails at the first event of account a, and refuses what it does not know.
struct Strict;

#[projection(name = "strict", schema = "CREATE TABLE strict (position INTEGER PRIMARY KEY) STRICT")]
impl Strict {
    #[on]
    fn deposited(
        &self,
        tx: &tidings::sqlite::Transaction<'_>,
        _: &Deposited,
        header: &Header,
    ) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
        match header.position.as_u64() {
            1 => Err("no".into()),
            position => Ok(tx.execute("INSERT INTO strict VALUES (?)", [position as i64])?),
        }
    }
}

struct StrictReactor;

#[reactor(name = "strict reactor")]
impl StrictReactor {
    #[on]
    async fn deposited(
        &self,
        _: &Deposited,
        delivery: &Delivery,
    ) -> Result<(), tidings::SendError<std::convert::Infallible>> {
        match delivery.header.position.as_u64() {
            1 => panic!("no"),
            _ => Ok(()),
        }
    }
}

/// What is refused does not slip through behind a letter either.
#[tokio::test]
async fn it_is_refused_also_where_a_letter_is_in_front_of_it() {
    for (_directory, builder) in both() {
        let app = builder.projection(Strict).reactor(StrictReactor).start().await.unwrap();
        for consumer in ["strict", "strict reactor"] {
            soon("it stops", async {
                while app.status().consumer(consumer).unwrap().state != ConsumerState::Stopped {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            let letters = app.letters().of(consumer).unwrap().list();
            let found: Vec<_> = letters.iter().map(|letter| letter.position.as_u64()).collect();
            assert_eq!(found, [1], "{consumer}");
            let status = app.status().consumer(consumer).unwrap().clone();
            let trouble = status.trouble.unwrap();
            assert!(trouble.contains("account.frozen at position 3 of account-a"), "{trouble}");
        }
        app.shutdown().await.ok();
    }
}

#[tokio::test]
async fn a_rebuilt_view_has_the_letters_of_the_one_before_it() {
    for (_directory, builder) in both() {
        let builder = builder.projection(Table).projection(Parks::default());
        let app = builder.projection(Ignores::default()).start().await.unwrap();
        app.reached("table", ALL, std::time::Duration::from_secs(10)).await.unwrap();
        app.rebuild_with(Table).await.unwrap();
        parks_what_is_behind_it(&app, "table");
        app.rebuild::<Parks>().await.unwrap();
        parks_what_is_behind_it(&app, "parks");
        assert_eq!(app.view::<Parks>().at_least(ALL).await.unwrap().0, 3);
        app.rebuild::<Ignores>().await.unwrap();
        assert_eq!(app.view::<Ignores>().at_least(ALL).await.unwrap().0, 4);
        assert_eq!(app.status().consumer("ignores").unwrap().ignored, 1);
        app.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_newer_program_takes_up_what_the_older_one_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bank.db");
    {
        let store = Sqlite::open(&path).unwrap();
        write(&store, &LOG);
        let app = App::builder().store(store).projection(Frozen).start().await.unwrap();
        stops_before_it(&app, "frozen").await;
        app.shutdown().await.unwrap();
    }
    let builder = App::builder().store(Sqlite::open(&path).unwrap()).projection(newer::Frozen);
    let app = builder.aggregate::<newer::Account>().start().await.unwrap();
    app.reached("frozen", ALL, std::time::Duration::from_secs(10)).await.unwrap();
    let accounts: i64 = app
        .view::<newer::Frozen>()
        .read()
        .query(|views| views.query_row("SELECT count(*) FROM frozen", [], |row| row.get(0)))
        .await
        .unwrap();
    assert_eq!(accounts, 1);
    app.shutdown().await.unwrap();
}

/// As the older program has it.
struct Frozen;

#[projection(name = "frozen", schema = "CREATE TABLE frozen (account TEXT PRIMARY KEY) STRICT")]
impl Frozen {
    #[on]
    fn deposited(&self, _: &tidings::sqlite::Transaction<'_>, _: &Deposited) {}
}

mod newer {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "account.deposited")]
    pub(super) struct Deposited {
        cents: i64,
    }

    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "account.frozen")]
    pub(super) struct WasFrozen {
        cents: i64,
    }

    #[derive(Default)]
    pub(super) struct Account;

    #[aggregate(category = "account", events = AccountEvent)]
    impl Account {
        #[apply]
        fn deposited(&mut self, _: &Deposited) {}
        #[apply]
        fn frozen(&mut self, _: &WasFrozen) {}
    }

    pub(super) struct Frozen;

    #[projection(name = "frozen", schema = "CREATE TABLE frozen (account TEXT PRIMARY KEY) STRICT")]
    impl Frozen {
        #[on]
        fn frozen(
            &self,
            tx: &tidings::sqlite::Transaction<'_>,
            _: &WasFrozen,
            header: &Header,
        ) -> tidings::sqlite::rusqlite::Result<usize> {
            tx.execute("INSERT INTO frozen VALUES (?)", [header.stream.id()])
        }
    }
}

#[tokio::test]
async fn a_newer_version_of_a_known_event_is_unknown_too() {
    let memory = Memory::new();
    for (position, (id, _)) in LOG.iter().enumerate() {
        write_version(&memory, id, "account.deposited", if position == 2 { 9 } else { 1 });
    }
    let counts = [Counts::default(), Counts::default(), Counts::default()];
    let [refuses, parks, ignores] = counts.clone();
    let builder = App::builder().store(memory).projection(Refuses::default());
    let builder = builder.projection(Parks::default()).projection(Ignores::default());
    let builder = builder.reactor(RefusingReactor(refuses)).reactor(ParkingReactor(parks));
    let app = builder.reactor(IgnoringReactor(ignores)).start().await.unwrap();
    for consumer in ["refuses", "refusing reactor"] {
        soon("it stops", async {
            while app.status().consumer(consumer).unwrap().state != ConsumerState::Stopped {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let status = app.status();
        let status = status.consumer(consumer).unwrap();
        assert_eq!((status.position.as_u64(), status.letters), (2, 0), "{consumer}");
    }
    for (consumer, letters, ignored) in
        [("parks", 2, 0), ("parking reactor", 2, 0), ("ignores", 0, 1), ("ignoring reactor", 0, 1)]
    {
        app.reached(consumer, ALL, std::time::Duration::from_secs(10)).await.unwrap();
        let status = app.status();
        let status = status.consumer(consumer).unwrap();
        assert_eq!((status.letters, status.ignored), (letters, ignored), "{consumer}");
    }
    assert_eq!(counts.map(|count| count.0.load(Ordering::SeqCst)), [2, 3, 4]);
    app.shutdown().await.unwrap();
}

#[derive(Command, Clone)]
struct Pay;

mod lenient {
    use super::*;

    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "account.deposited")]
    pub(super) struct Deposited {
        cents: i64,
    }

    #[derive(Default)]
    pub(super) struct Account {
        cents: i64,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("it holds {0} cents")]
    pub(super) struct Holds(pub(super) i64);

    #[aggregate(category = "account", events = AccountEvent, error = Holds, unknown = ignore)]
    impl Account {
        #[command]
        fn pay(&self, _: Pay) -> Result<(), Holds> {
            Err(Holds(self.cents))
        }
        #[apply]
        fn deposited(&mut self, event: &Deposited) {
            self.cents += event.cents;
        }
    }
}

#[tokio::test]
async fn an_aggregate_is_not_loaded_or_counts_as_it_declares() {
    for (_directory, builder) in both() {
        let app = builder.aggregate::<lenient::Account>().start().await.unwrap();
        let error = app.send("a", Pay).await.unwrap_err();
        assert!(matches!(error, SendError::Rejected(lenient::Holds(2))), "{error}");
        let ignored: u64 =
            app.status().aggregates[0].shards.iter().map(|shard| shard.ignored).sum();
        assert_eq!(ignored, 1);
        app.shutdown().await.unwrap();
    }
    for (_directory, builder) in both() {
        let app = builder.aggregate::<bank::Account>().start().await.unwrap();
        let error = app.send("a", bank::Deposit { cents: 1 }).await.unwrap_err();
        let SendError::Unreadable { version, .. } = error else { panic!("{error}") };
        assert_eq!(version.as_u64(), 2);
        app.send("b", bank::Deposit { cents: 1 }).await.unwrap();
        app.shutdown().await.unwrap();
    }
}

/// Two programs with one state: the older one passes over what the newer one knows.
macro_rules! account {
    ($program:ident [$($policy:tt)*] { $($known:tt)* }) => {
        mod $program {
            use super::*;
            use tidings::Shape;

            #[derive(Event, Serialize, Deserialize)]
            #[event(name = "account.deposited")]
            pub(super) struct Deposited {
                pub(super) cents: i64,
            }

            #[derive(Event, Serialize, Deserialize)]
            #[event(name = "account.frozen")]
            #[allow(dead_code, reason = "one of the programs alone has it")]
            pub(super) struct Frozen {}

            #[derive(Command, Clone)]
            pub(super) struct Deposit;

            #[derive(Default, Shape, Serialize, Deserialize)]
            pub(super) struct Account {
                pub(super) cents: i64,
                pub(super) is_frozen: bool,
            }

            #[aggregate(category = "account", events = AccountEvent, snapshot(every = 1, on_passivation) $($policy)*)]
            impl Account {
                #[command]
                fn deposit(&self, _: Deposit) -> Deposited {
                    // What it decides on shows in what it decides.
                    Deposited { cents: if self.is_frozen { 100 } else { 1 } }
                }
                #[apply]
                fn deposited(&mut self, event: &Deposited) {
                    self.cents += event.cents;
                }
                $($known)*
            }
        }
    };
}

account!(passing [, unknown = ignore] {});
account!(knowing [] {
    #[apply]
    fn frozen(&mut self, _: &Frozen) {
        self.is_frozen = true;
    }
});

/// A state that has not seen everything must not stand in the way of a program that knows more.
#[tokio::test]
async fn no_snapshot_is_taken_of_a_state_that_an_event_is_missing_from() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bank.db");
    let store = Sqlite::open(&path).unwrap();
    write(&store, &LOG);
    let app = App::builder().store(store).aggregate::<passing::Account>().start().await.unwrap();
    for id in ["a", "a", "b"] {
        app.send(id, passing::Deposit).await.unwrap();
    }
    app.shutdown().await.unwrap();
    let written: u64 =
        app.status().aggregates[0].shards.iter().map(|shard| shard.snapshots_written).sum();
    assert!(written > 0, "of the other account");
    drop(app);

    let builder = App::builder().store(Sqlite::open(&path).unwrap());
    let app = builder.aggregate::<knowing::Account>().start().await.unwrap();
    app.send("a", knowing::Deposit).await.unwrap();
    let found = app.load::<knowing::Account>("a").await.unwrap();
    assert_eq!((found.cents, found.is_frozen), (104, true));
    app.shutdown().await.unwrap();
}
