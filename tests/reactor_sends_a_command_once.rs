//! A command that a reactor sends takes effect once, however often its event is delivered.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]

#[path = "support/bank.rs"]
mod bank;

use std::error::Error;
use std::sync::{Arc, Mutex};

use bank::*;
use tidings::{App, Delivery, Memory, Outcome, reactor};

/// Books every deposit, and then fails the first two times.
struct Bookkeeper {
    outcomes: Arc<Mutex<Vec<Outcome>>>,
}

#[reactor(name = "bookkeeper", retry(first = "1 ms", longest = "1 ms"))]
impl Bookkeeper {
    #[on]
    async fn deposited(
        &self,
        event: &Deposited,
        delivery: &Delivery,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let app = delivery.app().ok_or("the app is gone")?;
        let booked = app.send("main", Book { number: event.cents as u64 });
        let receipt = booked.command_id(delivery.command_id("book")).caused_by(delivery).await?;
        self.outcomes.lock().unwrap().push(receipt.outcome);
        if delivery.attempt < 3 { Err("the answer was lost".into()) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_command_with_a_derived_id_takes_effect_once() {
    let outcomes = Arc::default();
    let app = App::builder()
        .store(Memory::new())
        .aggregate::<Account>()
        .aggregate::<Ledger>()
        .reactor(Bookkeeper { outcomes: Arc::clone(&outcomes) })
        .start()
        .await
        .unwrap();
    let deposit = app.send("a", Deposit { cents: 7 }).await.unwrap();
    app.settle().await.unwrap();
    let (first, repeat) = (Outcome::Applied, Outcome::AlreadyKnown);
    assert_eq!(*outcomes.lock().unwrap(), [first, repeat, repeat]);
    let log = whole_log(app.store());
    assert_eq!(log.len(), 2);
    assert_eq!(log[1].stream.as_str(), "ledger-main");
    assert_eq!(log[1].correlation_id, log[0].correlation_id);
    assert_eq!(log[1].causation_id.as_uuid(), log[0].event_id.as_uuid());
    assert_eq!(deposit.position, log[0].position);
    assert!(app.letters().is_empty());
    app.shutdown().await.unwrap();
}
