//! One publisher, two subscribers that hand each event on, and one that joins what both have handed on.

use std::ops::ControlFlow;
use std::sync::mpsc;

use crate::harness::{CAPACITY, Event, Gate, Meter, Run, Sink, publish_all, wait};
use crate::peer::{Handler, Peer, Publish};
use crate::seats::Seats;
use crate::subjects::actix::{DoSend, TrySend};
use crate::subjects::actix_broker::ActixBroker;
use crate::subjects::async_broadcast::AsyncBroadcast;
use crate::subjects::crossbeam::Crossbeam;
use crate::subjects::disruptor::{DisruptorMulti, DisruptorPollMulti};
use crate::subjects::flume::Flume;
use crate::subjects::kameo::{KameoPubSub, KameoTell};
use crate::subjects::kanal::Kanal;
use crate::subjects::multiqueue::Multiqueue;
use crate::subjects::ractor::{RactorCast, RactorPort};
use crate::subjects::std_mpsc::StdMpsc;
use crate::subjects::thingbuf::Thingbuf;
use crate::subjects::tidings::{TidingsActors, TidingsBatchActors, TidingsTasks, TidingsThreads};
use crate::subjects::tokio::{TokioBroadcast, TokioMpsc};
use crate::workloads::{Section, Subject, Unit};

const SIDES: usize = 2;

pub(crate) fn section() -> Section {
    let subjects = vec![
        subject::<TidingsBatchActors>(),
        subject::<TidingsActors>(),
        subject::<TidingsTasks>(),
        subject::<TidingsThreads>(),
        subject::<TokioMpsc>(),
        subject::<TokioBroadcast>(),
        subject::<AsyncBroadcast>(),
        subject::<Flume>(),
        subject::<Kanal>(),
        subject::<Thingbuf>(),
        subject::<DoSend>(),
        subject::<TrySend>(),
        subject::<ActixBroker>(),
        subject::<KameoTell>(),
        subject::<KameoPubSub>(),
        subject::<RactorCast>(),
        subject::<RactorPort>(),
        subject::<StdMpsc>(),
        subject::<Crossbeam>(),
        subject::<Multiqueue>(),
        subject::<DisruptorMulti<disruptor::Sleep>>(),
        subject::<DisruptorPollMulti>(),
    ];
    Section {
        title: "diamond".to_owned(),
        baseline: TokioMpsc::NAME,
        publishers: 1,
        unit: Unit::Millions("events joined"),
        per_event: 1,
        least: 4 * CAPACITY as u64,
        subjects,
    }
}

fn subject<P>() -> Subject
where
    P: Peer,
    P::Publisher: Clone,
{
    Subject::new(P::NAME, run::<P>)
}

fn run<P>(seats: &Seats, events: u64) -> Run
where
    P: Peer,
    P::Publisher: Clone,
{
    let (done, all_done) = mpsc::channel();
    let joiner = Sink::<SIDES>::new(events, done);
    // An event is joined when both sides have handed it on. What is on its way to the joiner fits, with as much to spare as in
    // the pipeline.
    let mut gate = Gate::new(joiner.acks(), CAPACITY / 2 / SIDES);
    let joined = P::open(&seats.first, vec![joiner.handler()]);
    let sides = (0..SIDES as u64).map(|side| hand_on(joined.clone(), side, events)).collect();
    let mut publisher = P::open(&seats.first, sides);
    drop(joined);
    let meter = Meter::start();
    publish_all(&mut publisher, &mut gate, 0, events);
    wait(&all_done, 1);
    meter.end()
}

/// Marks the event with its side.
fn hand_on(mut joined: impl Publish, side: u64, events: u64) -> impl Handler {
    move |event: &Event| {
        joined.forward(Event { from: side, ..*event });
        match event.number < events {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }
}
