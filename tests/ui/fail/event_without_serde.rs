use serde::Serialize;
use tidings::Event;

#[derive(Event)]
#[event(name = "account.opened")]
struct Opened;

#[derive(Event, Serialize)]
#[event(name = "account.closed")]
struct Closed;

fn main() {}
