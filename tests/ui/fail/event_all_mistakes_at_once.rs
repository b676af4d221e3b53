use serde::{Deserialize, Serialize};
use tidings::Event;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "", version = 0, colour = "red")]
struct Opened;

fn main() {}
