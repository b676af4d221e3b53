use serde::{Deserialize, Serialize};
use tidings::{Event, Shape};

#[derive(Shape, Serialize, Deserialize)]
#[shape(opaqe)]
struct Member {
    #[shape]
    address: String,
    #[shape(opaque = "")]
    name: String,
    #[shape(opaque = 3)]
    number: u32,
    #[shape(crate = tidings)]
    tier: u8,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "member.enrolled")]
struct Enrolled {
    #[shape(hidden)]
    on: u32,
}

fn main() {}
