use serde::{Deserialize, Serialize};
use tidings::Event;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.changed")]
struct Changed<T> {
    to: T,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.named")]
struct Named<'a> {
    name: &'a str,
}

fn main() {}
