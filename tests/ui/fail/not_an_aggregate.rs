use serde::{Deserialize, Serialize};
use tidings::{Aggregate, Event, EventSet, MemberOf, Projection, SentTo};

struct NotOne;

fn takes_aggregate<A: Aggregate>() {}
fn takes_projection<P: Projection>() {}
fn takes_event<E: Event>(_: E) {}
fn takes_events<S: EventSet>() {}
fn takes_member<E: MemberOf>() {}
fn takes_command<C: SentTo>(_: C) {}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.lost")]
struct Lost;

fn main() {
    takes_aggregate::<NotOne>();
    takes_projection::<NotOne>();
    takes_event(NotOne);
    takes_events::<NotOne>();
    takes_member::<Lost>();
    takes_command(NotOne);
}
