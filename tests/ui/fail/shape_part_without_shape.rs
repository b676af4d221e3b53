use serde::{Deserialize, Serialize};
use tidings::Shape;

#[derive(Serialize, Deserialize)]
struct Address {
    street: String,
}

#[derive(Shape, Serialize, Deserialize)]
struct Member {
    address: Address,
    former: Vec<Address>,
}

fn main() {}
