//! The crate under another name: re-exported from a module, with nothing in scope that is called `tidings`.
mod framework {
    pub mod events {
        pub use tidings::*;
    }
}

use serde::{Deserialize, Serialize};

mod tidings {}

#[derive(framework::events::Event, Serialize, Deserialize)]
#[event(name = "lamp.lit", crate = crate::framework::events)]
struct Lit;

#[derive(framework::events::Event, Serialize, Deserialize)]
#[event(name = "lamp.dimmed", version = 2, crate = crate::framework::events)]
struct Dimmed;

#[framework::events::upcasts(crate = crate::framework::events)]
impl Dimmed {
    #[upcast(from = 1)]
    fn first(_: framework::events::Json) -> Dimmed {
        Dimmed
    }
}

#[derive(framework::events::Command, Clone)]
#[command(crate = framework::events)]
struct Light;

#[derive(framework::events::Query)]
#[query(reply = bool, crate = framework::events)]
struct IsLit;

#[derive(Default)]
struct Lamp;

#[framework::events::aggregate(category = "lamp", events = LampEvent, crate = framework::events)]
impl Lamp {
    #[command]
    fn light(&self, _: Light) -> Lit {
        Lit
    }

    #[apply]
    fn lit(&mut self, _: &Lit) {}

    #[apply]
    fn dimmed(&mut self, _: &Dimmed) {}

    #[upcast(event = "lamp.blinked", version = 1)]
    fn blinked(_: framework::events::Json) {}
}

struct Lamps;

#[framework::events::projection(name = "lamps", crate = framework::events)]
impl Lamps {
    #[on]
    fn lit(&mut self, _: &Lit) {}

    #[query]
    fn is_lit(&self, _: IsLit) -> bool {
        true
    }
}

#[derive(framework::events::TransientEvent)]
#[event(crate = framework::events)]
enum Signal {
    Flash(Flash),
}

struct Flash;

struct Watch;

#[framework::events::subscriber(name = "watch", publishes(Signal), crate = framework::events)]
impl Watch {
    #[on]
    fn lit(&mut self, _: &Lit) {}

    #[on]
    fn flash(&mut self, _: &Flash) {}
}

fn main() {
    use framework::events::Aggregate as _;

    Lamp.apply(&Lit.into());
}
