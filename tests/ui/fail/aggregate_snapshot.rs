use serde::{Deserialize, Serialize};
use tidings::{Event, Shape, aggregate};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "lamp.lit")]
struct Lit;

#[derive(Default, Shape, Serialize, Deserialize)]
struct Lamp;

#[aggregate(category = "lamp", events = LampEvent, snapshot(version = 2))]
impl Lamp {
    #[apply]
    fn lit(&mut self, _: &Lit) {}
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "bulb.lit")]
struct BulbLit;

#[derive(Default, Shape, Serialize, Deserialize)]
struct Bulb;

#[aggregate(category = "bulb", events = BulbEvent, snapshot(evry = 5, bytes = 0, slower_than = 20, on_passivation = true))]
impl Bulb {
    #[apply]
    fn lit(&mut self, _: &BulbLit) {}
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "torch.lit")]
struct TorchLit;

#[derive(Default)]
struct Torch;

#[aggregate(category = "torch", events = TorchEvent, snapshot(every = 5))]
impl Torch {
    #[apply]
    fn lit(&mut self, _: &TorchLit) {}
}

fn main() {}
