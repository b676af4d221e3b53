//! `settle` ends when nothing moves any more: no command, no consumer, no letter, no subscriber. Or it says who moves.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]

#[path = "support/bank.rs"]
mod bank;
#[path = "support/barrier.rs"]
mod barrier;

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bank::*;
use barrier::Barrier;
use tidings::testing::{Faulty, Operation};
use tidings::{App, Header, LetterState, Memory, Position, projection, subscriber};

/// Passes each deposit on to the next account, with one cent less.
struct Chain(Arc<OnceLock<App>>);

#[subscriber(name = "chain")]
impl Chain {
    #[on]
    fn deposited(&mut self, event: &Deposited, header: &Header) {
        let next: u32 = header.stream.id().parse().unwrap();
        if event.cents > 1 {
            let deposit = Deposit { cents: event.cents - 1 };
            drop(self.0.get().unwrap().send((next + 1).to_string(), deposit).begin());
        }
    }
}

#[tokio::test]
async fn what_follows_from_what_was_sent_has_followed() {
    for round in 0..20 {
        let known = Arc::new(OnceLock::new());
        let builder = App::builder().store(Memory::new()).aggregate::<Account>();
        let builder = builder.projection(Balances::default()).subscriber(Chain(known.clone()));
        let app = builder.start().await.unwrap();
        assert!(known.set(app.clone()).is_ok());
        app.settle().await.unwrap();
        assert_eq!(app.head(), Position::START);
        // Sent, and not waited for.
        drop(app.send("0", Deposit { cents: 30 }).begin());
        app.settle().await.unwrap();
        assert_eq!(app.head().as_u64(), 30, "in round {round}");
        let balances = app.view::<Balances>().read();
        assert_eq!((balances.position(), balances.of.len()), (app.head(), 30));
        drop(balances);
        app.shutdown().await.unwrap();
    }
}

#[derive(Default)]
struct Moody {
    failures: Arc<AtomicU32>,
    folded: Vec<i64>,
}

#[projection(name = "moody", retry(attempts = 5, first = "5 ms", longest = "5 ms"))]
impl Moody {
    #[on]
    fn deposited(&mut self, event: &Deposited) -> Result<(), Box<dyn Error + Send + Sync>> {
        if event.cents == 13 {
            return Err("thirteen".into());
        }
        let left = self.failures.load(Ordering::Relaxed);
        if event.cents == 14 && left > 0 {
            self.failures.store(left - 1, Ordering::Relaxed);
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        self.folded.push(event.cents);
        Ok(())
    }
}

#[tokio::test]
async fn a_letter_that_is_tried_again_is_waited_for_and_a_parked_one_is_not() {
    let moody = Moody { failures: Arc::new(AtomicU32::new(3)), ..Moody::default() };
    let builder = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = builder.projection(moody).start().await.unwrap();
    for (id, cents) in [("a", 13), ("a", 1), ("b", 14), ("b", 2)] {
        app.send(id, Deposit { cents }).await.unwrap();
    }
    app.settle().await.unwrap();
    assert_eq!(app.view::<Moody>().read().folded, [14, 2]);
    let states: Vec<_> = app.letters().of("moody").unwrap().list();
    let states: Vec<_> = states.into_iter().map(|letter| letter.state).collect();
    assert_eq!(states, [LetterState::Parked, LetterState::Waiting]);
    app.shutdown().await.unwrap();
    // At rest it stays.
    app.settle().await.unwrap();
}

#[derive(Default)]
struct Held(Barrier);

#[projection(name = "held")]
impl Held {
    #[on]
    fn deposited(&mut self, _: &Deposited) {
        self.0.pass();
    }
}

#[tokio::test]
async fn who_is_not_level_in_time_is_named() {
    let barrier = Barrier::default();
    let builder = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = builder.projection(Held(barrier.clone())).start().await.unwrap();
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    app.settle().await.unwrap();
    barrier.set(true);
    app.send("a", Deposit { cents: 2 }).await.unwrap();
    let unsettled = app.settle().within(Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(
        unsettled.to_string(),
        "the app did not come to rest within 20ms: projection held stands at position 1 of 2, live"
    );
    barrier.set(false);
    app.settle().await.unwrap();
    app.shutdown().await.unwrap();
}

#[derive(Default)]
struct Strict;

#[projection(name = "strict", on_failure = stop)]
impl Strict {
    #[on]
    fn deposited(&mut self, _: &Deposited) -> Result<(), Box<dyn Error + Send + Sync>> {
        Err("nothing will do".into())
    }
}

#[tokio::test]
async fn who_has_stopped_is_not_waited_for() {
    let builder = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = builder.projection(Strict).start().await.unwrap();
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    let settling = app.settle().within(Duration::from_secs(3_600));
    let unsettled = soon("the refusal", settling).await.unwrap_err();
    let [strict] = &unsettled.restless[..] else { panic!("{unsettled}") };
    assert!(
        strict.starts_with("projection strict stands at position 0 of 1, stopped: "),
        "{strict}"
    );
    assert!(strict.ends_with("of account-a: nothing will do"), "{strict}");
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_command_on_its_way_is_waited_for() {
    let (store, faults) = Faulty::new(Memory::new());
    let builder = App::builder().store(store).aggregate::<Account>().aggregate::<Ledger>();
    let app = builder.start().await.unwrap();
    // While it is loaded, and while it is written.
    for operation in [Operation::ReadStream, Operation::Commit] {
        let before = app.head().as_u64();
        let gate = faults.hold(operation);
        let id = format!("{operation:?}");
        let sending = app.send(&id, Deposit { cents: 1 }).begin();
        let unsettled = app.settle().within(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(unsettled.restless, ["aggregates of account have commands in hand"]);
        drop(gate);
        app.settle().await.unwrap();
        assert_eq!(app.head().as_u64(), before + 1);
        sending.await.unwrap();
        // One that is rejected moves no head, and is waited for all the same.
        let refused = app.send(&id, Withdraw { cents: 9 }).begin();
        app.settle().await.unwrap();
        assert!(soon("the refusal", refused).await.is_err());
    }
    app.shutdown().await.unwrap();
}
