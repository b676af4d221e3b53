use serde::{Deserialize, Serialize};
use tidings::Event;

#[derive(Event, Serialize, Deserialize)]
struct NoAttribute;

#[derive(Event, Serialize, Deserialize)]
#[event]
struct Bare;

#[derive(Event, Serialize, Deserialize)]
#[event(version = 2)]
struct OnlyVersion;

fn main() {}
