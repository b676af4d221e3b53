use serde::{Deserialize, Serialize};
use tidings::Event;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.opened", codec = Bson)]
struct Opened;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.closed", codec = "Cbor")]
struct Closed;

fn main() {}
