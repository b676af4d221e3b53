//! Three topics in a row: the subscribers of the first two hand each event on to the next.

use std::ops::ControlFlow;
use std::sync::mpsc;

use crate::harness::{CAPACITY, Event, Gate, Meter, Run, Sink, publish_all, wait};
use crate::peer::{Handler, Peer, Publish};
use crate::seats::Seats;
use crate::subjects::actix::{DoSend, TrySend};
use crate::subjects::actix_broker::ActixBroker;
use crate::subjects::async_broadcast::AsyncBroadcast;
use crate::subjects::bus::BusThreads;
use crate::subjects::crossbeam::Crossbeam;
use crate::subjects::disruptor::{Disruptor, DisruptorPoll};
use crate::subjects::flume::Flume;
use crate::subjects::kameo::{KameoPubSub, KameoTell};
use crate::subjects::kanal::Kanal;
use crate::subjects::multiqueue::Multiqueue;
use crate::subjects::ractor::{RactorCast, RactorPort};
use crate::subjects::rtrb::Rtrb;
use crate::subjects::std_mpsc::StdMpsc;
use crate::subjects::thingbuf::Thingbuf;
use crate::subjects::tidings::{TidingsActors, TidingsBatchActors, TidingsTasks, TidingsThreads};
use crate::subjects::tokio::{TokioBroadcast, TokioMpsc};
use crate::workloads::{Section, Subject, Unit};

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
        subject::<BusThreads>(),
        subject::<Multiqueue>(),
        subject::<Disruptor<disruptor::Sleep>>(),
        subject::<DisruptorPoll>(),
        subject::<Rtrb>(),
    ];
    Section {
        title: "pipeline of three".to_owned(),
        baseline: TokioMpsc::NAME,
        publishers: 1,
        unit: Unit::Millions("events through"),
        per_event: 1,
        least: 4 * CAPACITY as u64,
        subjects,
    }
}

fn subject<P: Peer>() -> Subject {
    Subject::new(P::NAME, run::<P>)
}

fn run<P: Peer>(seats: &Seats, events: u64) -> Run {
    let (done, all_done) = mpsc::channel();
    let sink = Sink::<1>::new(events, done);
    // What is on its way fits into each topic, with some to spare for the peers that free a batch of slots only when its
    // last event is handled: handing on never waits.
    let mut gate = Gate::new(sink.acks(), CAPACITY / 2);
    let third = P::open(&seats.first, vec![sink.handler()]);
    let second = P::open(&seats.first, vec![hand_on(third, events)]);
    let mut first = P::open(&seats.first, vec![hand_on(second, events)]);
    let meter = Meter::start();
    publish_all(&mut first, &mut gate, 0, events);
    wait(&all_done, 1);
    meter.end()
}

fn hand_on(mut next: impl Publish, events: u64) -> impl Handler {
    move |event: &Event| {
        next.forward(*event);
        match event.number < events {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }
}
