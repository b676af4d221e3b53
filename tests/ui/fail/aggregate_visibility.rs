use serde::{Deserialize, Serialize};
use tidings::{Command, Event, aggregate};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "lamp.lit")]
pub struct Lit;

#[derive(Command, Clone)]
pub struct Light;

#[derive(Default)]
struct Lamp;

#[aggregate(category = "lamp", events = pub(self) LampEvent)]
impl Lamp {
    #[command]
    fn light(&self, _: Light) -> Lit {
        Lit
    }

    #[apply]
    fn lit(&mut self, _: &Lit) {}
}

fn main() {}
