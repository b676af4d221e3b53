//! Several publishers, one subscriber, which checks the order of each.

use std::sync::{Barrier, mpsc};
use std::thread;

use actix::System;

use crate::harness::{CAPACITY, Gate, Meter, Run, Sink, publish_all, wait};
use crate::peer::Peer;
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

const PUBLISHERS: usize = 3;

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
        subject::<DisruptorMulti<disruptor::BusySpinWithSpinLoopHint>>(),
        subject::<DisruptorMulti<disruptor::Sleep>>(),
        subject::<DisruptorPollMulti>(),
    ];
    Section {
        title: format!("{PUBLISHERS} to 1, one by one"),
        baseline: TokioMpsc::NAME,
        publishers: PUBLISHERS as u64,
        unit: Unit::Millions("deliveries"),
        per_event: 1,
        least: 2 * CAPACITY as u64,
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

/// Each publisher sends so many `events`. The gates share the window.
fn run<P>(seats: &Seats, events: u64) -> Run
where
    P: Peer,
    P::Publisher: Clone,
{
    let (done, all_done) = mpsc::channel();
    let sink = Sink::<PUBLISHERS>::new(events, done);
    let gates = sink.acks().map(|ack| match P::WAITS {
        true => Gate::always_open(),
        false => Gate::new([ack], CAPACITY / PUBLISHERS),
    });
    let publisher = P::open(&seats.first, vec![sink.handler()]);
    let all_here = Barrier::new(PUBLISHERS);
    let system = System::current();
    // What the threads take to start is a thousandth of a run.
    let meter = Meter::start();
    thread::scope(|scope| {
        for (lane, mut gate) in gates.into_iter().enumerate() {
            let (mut publisher, system) = (publisher.clone(), system.clone());
            let all_here = &all_here;
            scope.spawn(move || {
                // actix-broker looks the system up when it publishes.
                System::set_current(system);
                all_here.wait();
                publish_all(&mut publisher, &mut gate, lane as u64, events);
            });
        }
        wait(&all_done, 1);
    });
    meter.end()
}
