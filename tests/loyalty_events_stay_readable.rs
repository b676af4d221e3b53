//! The events of the loyalty programme, which users keep in files, are held by the schema lock and the golden corpus: as any
//! program of a user's would do it.
#![cfg(all(feature = "macros", feature = "testing"))]
#![allow(dead_code, reason = "the programme is here for its events, and does not run")]
#![allow(clippy::unwrap_used, reason = "what helps a test may panic as the test itself")]

#[path = "../examples/loyalty/cents.rs"]
mod cents;
#[path = "../examples/loyalty/date.rs"]
mod date;
#[path = "../examples/loyalty/domain.rs"]
mod domain;

use tidings::testing::{golden_corpus, schema_lock};

use cents::Cents;
use date::Date;
use domain::{Enrolled, MemberEvent, PointsExpired, Purchased, Tier, TierLost, TierReached};

const LOCK: &str = "examples/loyalty/tidings.lock.json";

#[test]
fn every_change_of_an_event_is_meant() {
    schema_lock().events::<MemberEvent>().file(LOCK).check();
}

#[test]
fn every_released_event_is_readable() {
    let on: Date = "19970118".parse().unwrap();
    golden_corpus("examples/loyalty/corpus")
        .lock(LOCK)
        .events::<MemberEvent>()
        .example(Enrolled { on })
        .example(Purchased { on, cds: 2, price: Cents(2_933), points: 29 })
        .example(TierReached { tier: Tier::Silver })
        .example(PointsExpired { points: 15 })
        .example(TierLost { tier: Tier::Basic })
        .check();
}
