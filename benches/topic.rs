//! One publisher, subscribers that check what they get: the topic beside `tokio::sync::broadcast` doing the same work.
//!
//! `cargo bench --bench topic --features testing [-- --json]`
//!
//! Each figure is the median of five rounds; a round measures every subject once, so that a change of the machine's speed
//! falls on all of them. A subscriber checks order and sums up; a wrong count, order or sum ends the run. The event
//! has 40 bytes and travels in an `Envelope`, as in an app.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use actix::{Actor, ActorContext, Arbiter, AsyncContext, Context};
use tidings::testing::TopicFeed;
use tidings::{Batch, Envelope, Start, Subscriber, SubscriptionError, Topic};
use tokio::sync::broadcast;

fn main() {}
