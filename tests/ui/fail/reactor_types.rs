use std::rc::Rc;

use serde::{Deserialize, Serialize};
use tidings::{App, Event, aggregate, reactor};

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
    // What it returns is no outcome.
    #[on(key = event.nothing)]
    async fn placed(&self, event: &Placed) -> bool {
        true
    }

    // It cannot move to another thread while it waits.
    #[on]
    async fn paid(&self, _: &Paid) {
        let local = Rc::new(());
        std::future::ready(()).await;
        drop(local);
    }
}

struct Plain;

fn main() {
    let _ = App::builder().reactor(Plain);
}
