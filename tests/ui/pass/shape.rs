//! A shape under another path of the crate, of a generic type, and beside an event.
#![deny(warnings)]
#![allow(dead_code)]

use serde::{Deserialize, Serialize};
use ::tidings as other;

mod tidings {}

#[derive(other::Shape, Serialize, Deserialize)]
#[shape(crate = crate::other)]
struct Page<T> {
    items: Vec<T>,
}

#[derive(other::Shape, Serialize, Deserialize)]
#[shape(crate = other, opaque)]
struct ByHand;

struct NoShape;

#[derive(Serialize, Deserialize)]
struct Foreign(u8);

#[derive(other::Shape, Serialize, Deserialize)]
#[shape(crate = other)]
enum Kind {
    Bare,
    Of(#[shape(opaque)] Foreign),
    #[shape(opaque = "list")]
    List { of: Vec<Foreign> },
    #[serde(skip)]
    Hidden(NoShape),
}

#[derive(other::Event, Serialize, Deserialize)]
#[event(name = "page.turned", crate = other)]
struct Turned {
    page: Page<u8>,
    kind: Kind,
    unseen: Foreign,
}

fn main() {
    use other::Event;
    assert_eq!(Turned::shape().unseen().len(), 1);
    assert_eq!(other::Form::of::<Page<Kind>>().unseen().len(), 0);
}
