//! What a reactor's handlers may look like, and all its keys.
#![deny(warnings)]

use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite;
use tidings::{
    Delivery, ErrorClass, Event, Header, OnFailure, Reactor, StartFrom, aggregate, reactor,
};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.placed")]
struct Placed {
    customer: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.paid")]
struct Paid {
    cents: i64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.shipped")]
struct Shipped;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.lost")]
struct Lost {
    by: String,
}

#[derive(Default)]
struct Order;

#[aggregate(category = "order", events = OrderEvent)]
impl Order {
    #[apply]
    fn placed(&mut self, _: &Placed) {}
    #[apply]
    fn paid(&mut self, _: &Paid) {}
    #[apply]
    fn shipped(&mut self, _: &Shipped) {}
    #[apply]
    fn lost(&mut self, _: &Lost) {}
}

struct Mailer {
    from: String,
}

fn classify(_: &(dyn Error + 'static)) -> ErrorClass {
    ErrorClass::Permanent
}

#[reactor(
    name = "mailer",
    concurrency = 8,
    timeout = "2 minutes",
    start = newest,
    retry(attempts = 3, first = "500 ms", longest = "10 s"),
    classify = crate::classify,
    on_failure = stop,
    max_parked_keys = 10,
)]
impl Mailer {
    // The key is no copy, and the handler is not asked for its value.
    #[on(key = event.customer)]
    async fn placed(&self, event: &Placed, delivery: &Delivery) -> std::io::Result<()> {
        std::future::ready(()).await;
        let _ = (&self.from, &event.customer, delivery.id, delivery.event_id);
        Ok(())
    }

    #[on(key = header.stream.as_str(), live_only)]
    async fn shipped(&self, _: &Shipped, header: &Header) {
        let _ = header.position;
    }

    #[on(key = by)]
    async fn lost(&self, Lost { by }: &Lost) -> Result<(), Box<dyn Error + Send + Sync>> {
        Err(self.letter(by).into())
    }

    #[on]
    fn paid(&self, tx: &Transaction<'_>, event: &Paid, _: &Delivery) -> rusqlite::Result<usize> {
        tx.execute("INSERT INTO paid VALUES (?1)", [event.cents])
    }

    fn letter(&self, to: &str) -> String {
        format!("from {} to {to}", self.from)
    }
}

/// Keys that are not given are as the crate has them.
struct Plain;

#[reactor(name = "plain")]
impl Plain {
    #[on]
    async fn placed(&self, _: &Placed) {}
}

fn main() {
    let (options, failures) = (Mailer::options(), Mailer::failures());
    assert_eq!((options.concurrency, options.start), (8, StartFrom::Newest));
    assert_eq!(options.timeout, Duration::from_secs(120));
    assert_eq!((failures.retry.attempts, failures.max_parked_keys), (3, 10));
    assert_eq!(failures.on_failure, OnFailure::Stop);
    let error = std::fmt::Error;
    assert_eq!((failures.classify)(&error), ErrorClass::Permanent);

    let (options, failures) = (Plain::options(), Plain::failures());
    assert_eq!((options.concurrency, options.start), (16, StartFrom::Oldest));
    assert_eq!((failures.classify)(&error), ErrorClass::Transient);
}
