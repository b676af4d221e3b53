//! One event there, one back, and only then the next.

use std::ops::ControlFlow;
use std::sync::mpsc;

use crate::harness::{Event, Meter, Run, Sink, wait};
use crate::peer::{Peer, Publish};
use crate::seats::{Seat, Seats};
use crate::subjects::actix::{DoSend, TrySend};
use crate::subjects::actix_broker::ActixBroker;
use crate::subjects::async_broadcast::AsyncBroadcast;
use crate::subjects::bus::BusThreads;
use crate::subjects::crossbeam::Crossbeam;
use crate::subjects::disruptor::DisruptorPoll;
use crate::subjects::flume::Flume;
use crate::subjects::kameo::{KameoPubSub, KameoTell};
use crate::subjects::kanal::Kanal;
use crate::subjects::multiqueue::Multiqueue;
use crate::subjects::ractor::{RactorCast, RactorPort};
use crate::subjects::rtrb::Rtrb;
use crate::subjects::std_mpsc::StdMpsc;
use crate::subjects::thingbuf::Thingbuf;
use crate::subjects::tidings::{TidingsActors, TidingsTasks, TidingsThreads};
use crate::subjects::tokio::{TokioBroadcast, TokioMpsc};
use crate::workloads::{Section, Subject, Unit};

/// Two actors that cause each other are a circle, which a topic cuts. A task is none of its handlers.
const TIDINGS: &str = "tidings, an actor and a task";

pub(crate) fn between_threads() -> Section {
    let subjects = vec![
        apart_as::<TidingsActors, TidingsTasks>(TIDINGS),
        apart::<TidingsTasks>(),
        apart::<TidingsThreads>(),
        apart::<TokioMpsc>(),
        apart::<TokioBroadcast>(),
        apart::<AsyncBroadcast>(),
        apart::<Flume>(),
        apart::<Kanal>(),
        apart::<Thingbuf>(),
        apart::<DoSend>(),
        apart::<TrySend>(),
        apart::<ActixBroker>(),
        apart::<KameoTell>(),
        apart::<KameoPubSub>(),
        apart::<RactorCast>(),
        apart::<RactorPort>(),
        apart::<StdMpsc>(),
        apart::<Crossbeam>(),
        apart::<BusThreads>(),
        apart::<Multiqueue>(),
        apart::<DisruptorPoll>(),
        apart::<Rtrb>(),
    ];
    section("ping-pong between two threads", subjects)
}

pub(crate) fn on_one_thread() -> Section {
    let subjects = vec![
        together_as::<TidingsActors, TidingsTasks>(TIDINGS),
        together::<TidingsTasks>(),
        together::<TokioMpsc>(),
        together::<TokioBroadcast>(),
        together::<AsyncBroadcast>(),
        together::<Flume>(),
        together::<Kanal>(),
        together::<Thingbuf>(),
        together::<DoSend>(),
        together::<TrySend>(),
        together::<ActixBroker>(),
        together::<KameoTell>(),
        together::<KameoPubSub>(),
        together::<RactorCast>(),
        together::<RactorPort>(),
    ];
    section("ping-pong on one thread", subjects)
}

fn section(title: &str, subjects: Vec<Subject>) -> Section {
    Section {
        title: title.to_owned(),
        baseline: TokioMpsc::NAME,
        publishers: 1,
        unit: Unit::Ones("round trips"),
        per_event: 1,
        least: 1_024,
        subjects,
    }
}

fn apart<P: Peer>() -> Subject {
    apart_as::<P, P>(P::NAME)
}

fn apart_as<Near: Peer, Far: Peer>(name: &'static str) -> Subject {
    Subject::new(name, |seats: &Seats, trips| {
        let [near, far] = &seats.apart;
        run::<Near, Far>(near, far, trips)
    })
}

fn together<P: Peer>() -> Subject {
    together_as::<P, P>(P::NAME)
}

fn together_as<Near: Peer, Far: Peer>(name: &'static str) -> Subject {
    Subject::new(name, |seats: &Seats, trips| run::<Near, Far>(&seats.first, &seats.first, trips))
}

/// The publisher's thread sends the first ping and has no further part in it.
fn run<Near: Peer, Far: Peer>(near: &Seat, far: &Seat, trips: u64) -> Run {
    let (done, all_done) = mpsc::channel();
    let mut sink = Sink::<1>::new(trips, done);
    let (hand_over, handed_over) = mpsc::channel::<Far::Publisher>();
    let mut pings_out = None;
    let mut pongs = Some(Near::open(
        near,
        vec![move |pong: &Event| {
            let flow = sink.see(pong);
            if flow.is_break() {
                // The two sides hold each other's publisher; each lets go after its last.
                pings_out = None;
                return flow;
            }
            let pings = pings_out
                .get_or_insert_with(|| handed_over.recv().expect("the first ping has been sent"));
            if pong.number == trips / 2 {
                Meter::half();
            }
            pings.forward(Event::nth(0, pong.number + 1));
            flow
        }],
    ));
    let mut pings = Far::open(
        far,
        vec![move |ping: &Event| {
            if let Some(pongs) = &mut pongs {
                pongs.forward(*ping);
            }
            if ping.number < trips {
                return ControlFlow::Continue(());
            }
            pongs = None;
            ControlFlow::Break(())
        }],
    );
    let meter = Meter::start();
    pings.publish(Event::nth(0, 1));
    hand_over.send(pings).expect("the near side waits for it");
    wait(&all_done, 1);
    meter.end()
}
