//! Correlation, causation and metadata flow from a command to its events, and from an event to the command that it causes.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]

#[path = "support/bank.rs"]
mod bank;

use bank::*;
use tidings::{App, CausationId, CommandId, CorrelationId, Memory};

#[tokio::test]
async fn a_command_starts_a_story_and_an_event_carries_it_on() {
    let builder = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = builder.aggregate::<Ledger>().start().await.unwrap();
    let topic = app.topic::<AccountEvent>().unwrap();
    let mut subscription = topic.subscribe().open();

    let first = app
        .send("a", DepositAll { parts: vec![1, 2] })
        .metadata("tenant", "north")
        .metadata("user", "ada")
        .await
        .unwrap();
    let id = uuid::Uuid::from(first.command_id);
    for event in entries(app.store(), "a") {
        assert_eq!(event.command_id, Some(first.command_id));
        assert_eq!(event.correlation_id, CorrelationId::from_uuid(id));
        assert_eq!(event.causation_id, CausationId::from_uuid(id));
        let metadata: Vec<_> = event.metadata.iter().collect();
        assert_eq!(metadata, [("tenant", "north"), ("user", "ada")]);
    }

    let heard = subscription.next().await.unwrap().unwrap();
    let cause = heard.iter().last().unwrap().header.clone();
    let caused = app.send("l", Book { number: 1 }).caused_by(&cause).await.unwrap();
    let event = whole_log(app.store()).pop().unwrap();
    assert_eq!(event.command_id, Some(caused.command_id));
    assert_ne!(caused.command_id, first.command_id);
    assert_eq!(event.correlation_id, cause.correlation_id);
    assert_eq!(event.causation_id, CausationId::from_uuid(cause.event_id.into()));
    assert!(event.metadata.is_empty());

    // A story that began outside goes on here, whatever the cause.
    let outside = CorrelationId::from_uuid(uuid::Uuid::from_u128(7));
    let id = CommandId::from_name("request");
    let send = app.send("l", Book { number: 2 }).correlation_id(outside);
    send.caused_by(&cause).command_id(id).await.unwrap();
    let event = whole_log(app.store()).pop().unwrap();
    assert_eq!(event.correlation_id, outside);
    assert_eq!(event.causation_id, CausationId::from_uuid(cause.event_id.into()));
    assert_eq!(event.command_id, Some(id));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_events_of_one_command_each_have_an_id_of_their_own() {
    let builder = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = builder.start().await.unwrap();
    for _ in 0..10 {
        let parts = vec![1; 10];
        app.send("a", DepositAll { parts }).await.unwrap();
    }
    let log = whole_log(app.store());
    let ids: std::collections::HashSet<_> = log.iter().map(|event| event.event_id).collect();
    assert_eq!(ids.len(), 100);
    app.shutdown().await.unwrap();
}
