//! given / when / then, and its like for consumers, work with personal data as with any other.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "personal", feature = "sqlite", feature = "testing"))]

#[path = "support/people.rs"]
mod people;

use people::*;
use tidings::testing::{events, given, given_nothing};
use tidings::{Personal, SubjectForgotten};

fn name(subject: &str, name: &str) -> Personal<String> {
    Personal::new(subject, name.to_owned())
}

#[test]
fn an_aggregate_is_tested_with_plain_values() {
    given_nothing::<Customer>()
        .when(Join::new("c-7", "Ada"))
        .then(Joined { name: name("c-7", "Ada"), tier: 1 })
        .when(Join::new("c-7", "Augusta"))
        .then(Joined { name: name("c-7", "Augusta"), tier: 2 })
        .when(Ask)
        .then_rejected(Answer { name: known("Augusta"), tier: 2 });
    given::<Customer>(Joined { name: name("c-7", "Ada"), tier: 1 })
        .when(JoinAgain)
        .then(Joined { name: name("c-7", "Ada"), tier: 2 });
}

#[test]
#[should_panic(expected = "was not decided as expected")]
fn another_value_is_another_event() {
    given_nothing::<Customer>()
        .when(Join::new("c-7", "Ada"))
        .then(Joined { name: name("c-7", "Grace"), tier: 1 });
}

#[test]
#[should_panic(expected = "was not decided as expected")]
fn another_subject_is_another_event() {
    given_nothing::<Customer>()
        .when(Join::new("c-7", "Ada"))
        .then(Joined { name: name("c-8", "Ada"), tier: 1 });
}

#[test]
fn a_projection_is_told_of_a_subject_that_is_forgotten() {
    let left = ["c-8 Grace", "customer-7 1", "customer-8 3"].map(str::to_owned);
    events()
        .on("7", Joined { name: name("c-7", "Ada"), tier: 1 })
        .on("8", Joined { name: name("c-8", "Grace"), tier: 3 })
        .on("c-7", SubjectForgotten::new("c-7"))
        .project(|| Table)
        .then_query(rows, left.to_vec());
}
