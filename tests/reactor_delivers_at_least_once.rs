//! Guarantee 20: effects outside happen at least once, each attempt with the same delivery id.
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
#[path = "support/outside.rs"]
mod outside;

use bank::*;
use outside::*;
use tidings::{App, Delivery, DeliveryId, FailurePolicy, Memory, Reactions, Reactor};

/// Tells the outside of each deposit.
struct Teller(Outside);

impl Reactor for Teller {
    const NAME: &'static str = "teller";

    fn handlers(handlers: &mut Reactions<Self>) {
        handlers.on(|teller: &Self, event: &Deposited, delivery: &Delivery| {
            Box::pin(teller.0.arrive(event.cents, delivery))
        });
    }

    fn failures() -> FailurePolicy {
        hasty()
    }
}

#[tokio::test]
async fn each_event_is_handled_with_an_id_of_its_own() {
    let outside = Outside::default();
    let app = App::builder()
        .store(Memory::new())
        .aggregate::<Account>()
        .reactor(Teller(outside.clone()))
        .start()
        .await
        .unwrap();
    for cents in 1..=3 {
        app.send("a", Deposit { cents }).await.unwrap();
    }
    until("all have arrived", || outside.arrived().len() == 3).await;
    let arrived = outside.arrived();
    assert_eq!(arrived.iter().map(|seen| seen.cents).collect::<Vec<_>>(), [1, 2, 3]);
    for seen in arrived {
        assert_eq!(seen.delivery.id, DeliveryId::of("teller", seen.delivery.event_id));
        assert_eq!(seen.delivery.attempt, 1);
    }
    until("it is level", || app.status().reactors[0].lag_events == 0).await;
    app.shutdown().await.unwrap();
}
