use serde::{Deserialize, Serialize};
use tidings::{Event, aggregate, reactor};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.placed")]
struct Placed;

#[derive(Default)]
struct Order;

#[aggregate(category = "order", events = OrderEvent)]
impl Order {
    #[apply]
    fn placed(&mut self, _: &Placed) {}
}

struct Nameless;

#[reactor(concurrency = 0, timeout = "soon", start = now, retries = 8)]
impl Nameless {
    #[on]
    async fn placed(&self, _: &Placed) {}
}

struct Restless;

#[reactor(name = "restless", retry = 8, on_failure = ignore, timeout = 10)]
impl Restless {
    #[on]
    async fn placed(&self, _: &Placed) {}
}

fn main() {}
