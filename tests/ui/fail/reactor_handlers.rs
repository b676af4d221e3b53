use serde::{Deserialize, Serialize};
use tidings::sqlite::Transaction;
use tidings::{Delivery, Event, aggregate, reactor};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.placed")]
struct Placed;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.paid")]
struct Paid;

#[derive(Default)]
struct Order;

#[aggregate(category = "order", events = OrderEvent)]
impl Order {
    #[apply]
    fn placed(&mut self, _: &Placed) {}
    #[apply]
    fn paid(&mut self, _: &Paid) {}
}

struct Mailer;

#[reactor(name = "mailer")]
impl Mailer {
    #[on]
    fn placed(&self, event: &Placed) {}

    #[on]
    async fn placed_again(&mut self, event: &Placed) {}

    #[on]
    async fn paid(&self, tx: &Transaction<'_>, event: &Paid) {}

    #[on]
    async fn by_value(&self, event: Placed, delivery: Delivery, third: &str) {}

    #[on(kee = event.customer)]
    async fn misspelt(&self) {}

    #[query]
    async fn asked(&self, event: &Placed) {}
}

struct Idle;

#[reactor(name = "idle")]
impl Idle {}

fn main() {}
