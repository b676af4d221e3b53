//! Hooks on the topic of an aggregate: told what was committed and who handles it, and unable to hold it up.
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

use bank::*;
use tidings::{App, Envelope, Handling, Hook, Memory};

#[derive(Clone, Default)]
struct Tap {
    asked: Arc<AtomicUsize>,
    published: Arc<AtomicUsize>,
    handling: Arc<AtomicUsize>,
}

impl Hook<Envelope<AccountEvent>> for Tap {
    fn admits(&self, _: &'static str, _: &Envelope<AccountEvent>) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        false
    }

    fn published(&self, topic: &'static str, events: usize) {
        assert_eq!(topic, "account");
        self.published.fetch_add(events, Ordering::Relaxed);
    }

    fn handling(&self, delivery: &Handling<'_>, events: &[Envelope<AccountEvent>]) {
        assert_eq!((delivery.subscription, delivery.events), ("auditor", events.len()));
        self.handling.fetch_add(events.len(), Ordering::Relaxed);
    }
}

/// Panics whenever something is published.
struct Rude;

impl Hook<Envelope<AccountEvent>> for Rude {
    fn published(&self, _: &'static str, _: usize) {
        panic!("as asked");
    }
}

#[tokio::test]
async fn they_are_told_of_each_event_once_and_keep_none_from_its_readers() {
    let tap = Tap::default();
    let builder = App::builder().store(Memory::new()).aggregate::<Account>();
    let builder = builder.hook::<AccountEvent>(tap.clone()).hook::<AccountEvent>(Rude);
    let app = builder.projection(Balances::default()).start().await.unwrap();
    let topic = app.topic::<AccountEvent>().unwrap();
    let mut auditor = topic.subscribe().named("auditor").open();
    app.send("a", DepositAll { parts: vec![1, 2, 3] }).await.unwrap();
    let last = app.send("a", Deposit { cents: 4 }).await.unwrap();

    let balances = app.view::<Balances>();
    assert_eq!(soon("the view", balances.at_least(last.position)).await.unwrap().of["a"], 10);
    let mut heard = 0;
    while heard < 4 {
        heard += soon("the events", auditor.next()).await.unwrap().unwrap().len();
    }
    let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    assert_eq!((count(&tap.published), count(&tap.handling), count(&tap.asked)), (4, 4, 0));
    app.shutdown().await.unwrap();
}
