//! The shape of a type is what serde writes of it: with every attribute of serde, and the same everywhere.
#![cfg(feature = "macros")]
#![allow(dead_code, reason = "the types are described, and not all are made")]

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use tidings::{Event, Form, Shape};

#[track_caller]
fn check<T: Shape>(expected: &str) {
    assert_eq!(Form::of::<T>().to_string(), expected);
}

#[derive(Shape, Serialize, Deserialize)]
struct Plain {
    b: bool,
    a: (i8, u64, f32, char),
    #[serde(rename = "c-c")]
    c: Option<String>,
}

#[derive(Shape, Serialize, Deserialize)]
struct Tree {
    left: Option<Box<Tree>>,
    values: Vec<u8>,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "x.happened")]
struct Happened {
    plain: Plain,
    #[shape(opaque = "date")]
    date: Foreign,
    list: Vec<Foreign>,
}

#[derive(Serialize, Deserialize)]
struct Foreign(i64);

#[test]
fn fields_are_described() {
    check::<Plain>("{ a: (i8, u64, f32, char), b: bool, c-c: text? = default }");
    check::<Tree>("{ left: around(1)? = default, values: [u8] }");
    check::<HashMap<String, BTreeMap<u32, [i64; 4]>>>("[text => [u32 => [i64; 4]]]");
    assert_eq!(
        Happened::shape().to_string(),
        "{ date: opaque(\"date\"), list: unseen(\"Vec<Foreign>\"), \
         plain: { a: (i8, u64, f32, char), b: bool, c-c: text? = default } }"
    );
    assert_eq!(Happened::shape().unseen(), [("list".to_owned(), "Vec<Foreign>")]);
}
