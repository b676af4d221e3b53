//! An event that the log holds and nobody can decode: readers of its topic meet it in the log, in its place, and everybody
//! else goes on.
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
use tidings::{
    App, Commit, ExpectedVersion, Header, Memory, Position, Recorded, SubscriptionError, Timestamp,
    projection,
};

/// What the ledger says; hears of no account.
#[derive(Default)]
struct Entries(usize);

#[projection(name = "entries")]
impl Entries {
    #[on]
    fn booked(&mut self, _: &Booked) {
        self.0 += 1;
    }
}

/// Writes past the app what no program understands.
fn write_unreadable(app: &App) {
    let stream = account("broken");
    let header = Header::new(stream.clone(), "account.deposited", 1, Timestamp::from_micros(0));
    let event = Recorded { header, payload: (*b"{\"cents\":\"many\"}").into() };
    let commit =
        Commit::new().append(stream, ExpectedVersion::Exact(tidings::Version::EMPTY), vec![event]);
    let outcomes = app.store().commit(&mut [commit]).expect("the log takes it");
    assert!(outcomes.iter().all(Result::is_ok));
}

#[tokio::test]
async fn readers_of_its_topic_meet_it_in_its_place_and_all_others_go_on() {
    let builder = App::builder().store(Memory::new()).aggregate::<Account>().aggregate::<Ledger>();
    let builder = builder.projection(Balances::default()).projection(Entries::default());
    let app = builder.start().await.unwrap();
    let mut accounts = app.topic::<AccountEvent>().unwrap().subscribe().open();
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    let balances = app.view::<Balances>();
    assert_eq!(balances.at_least(app.head()).await.unwrap().of["a"], 1);

    write_unreadable(&app);
    let noted = app.send("l", Book { number: 1 }).await.unwrap();
    let later = app.send("a", Deposit { cents: 10 }).await.unwrap();

    // The head moves on, and so does who has to do with other events.
    assert_eq!(soon("the head", async { app.head() }).await, later.position);
    let entries = app.view::<Entries>();
    assert_eq!(soon("the ledger", entries.at_least(noted.position)).await.unwrap().0, 1);

    // Who reads accounts gets everything before it, and an error that names the place.
    let first = soon("the first", accounts.next()).await.unwrap().unwrap();
    assert_eq!(first.iter().map(|e| e.position.as_u64()).collect::<Vec<_>>(), [1]);
    let Err(SubscriptionError::Log { after, .. }) = soon("the error", accounts.next()).await else {
        panic!("the unreadable event was passed over");
    };
    assert_eq!(after, Position::new(1));
    // The projection of accounts parks it, and folds what came after it.
    assert_eq!(balances.at_least(later.position).await.unwrap().of["a"], 11);
    let status = app.status();
    let found = status.consumer("balances").unwrap();
    assert_eq!((found.lag_events, found.parked_keys, found.letters), (0, 1, 1));
    let letters = app.letters().of("balances").unwrap();
    assert_eq!(letters.at(Position::new(2)).unwrap().stream, account("broken"));
    app.shutdown().await.unwrap();
}
