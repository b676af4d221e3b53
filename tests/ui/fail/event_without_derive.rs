use serde::{Deserialize, Serialize};
use tidings::aggregate;

#[derive(Serialize, Deserialize)]
struct Lit;

#[derive(Serialize, Deserialize)]
struct Unlit;

#[derive(Default)]
struct Lamp;

#[aggregate(category = "lamp", events = LampEvent)]
impl Lamp {
    #[apply]
    fn lit(&mut self, _: &Lit) {}

    #[apply]
    fn unlit(&mut self, _: &Unlit) {}
}

fn main() {}
