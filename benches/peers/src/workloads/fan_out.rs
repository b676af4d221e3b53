//! One publisher, each of its events to every subscriber.

use std::sync::mpsc;

use crate::harness::{CAPACITY, Gate, Meter, Run, Sink, publish_all, wait};
use crate::peer::{Peer, PublishBatch};
use crate::seats::Seats;
use crate::subjects::actix::{DoSend, TrySend};
use crate::subjects::actix_broker::ActixBroker;
use crate::subjects::async_broadcast::AsyncBroadcast;
use crate::subjects::bare_loop;
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

/// What a batch holds.
const BATCH: u64 = 64;

/// The title of the section that the chart shows.
pub(crate) const CHARTED: &str = "1 to 4, one by one";

pub(crate) fn one_by_one(subscribers: usize) -> Section {
    let subjects = [
        subject::<TidingsBatchActors>(subscribers),
        subject::<TidingsActors>(subscribers),
        subject::<TidingsTasks>(subscribers),
        subject::<TidingsThreads>(subscribers),
        subject::<TokioBroadcast>(subscribers),
        subject::<TokioMpsc>(subscribers),
        subject::<AsyncBroadcast>(subscribers),
        subject::<Flume>(subscribers),
        subject::<Kanal>(subscribers),
        subject::<Thingbuf>(subscribers),
        subject::<DoSend>(subscribers),
        subject::<TrySend>(subscribers),
        subject::<ActixBroker>(subscribers),
        subject::<KameoTell>(subscribers),
        subject::<KameoPubSub>(subscribers),
        subject::<RactorCast>(subscribers),
        subject::<RactorPort>(subscribers),
        subject::<StdMpsc>(subscribers),
        subject::<Crossbeam>(subscribers),
        subject::<BusThreads>(subscribers),
        subject::<Multiqueue>(subscribers),
        subject::<Disruptor<disruptor::BusySpin>>(subscribers),
        subject::<Disruptor<disruptor::BusySpinWithSpinLoopHint>>(subscribers),
        subject::<Disruptor<disruptor::Sleep>>(subscribers),
        subject::<DisruptorPoll>(subscribers),
        subject::<Rtrb>(subscribers),
        Some(bare_loop(subscribers, 1)),
    ];
    section(format!("1 to {subscribers}, one by one"), subscribers, subjects.into_iter().flatten())
}

pub(crate) fn in_batches(subscribers: usize) -> Section {
    let subjects = [
        batch_subject::<TidingsBatchActors>(subscribers),
        batch_subject::<TidingsActors>(subscribers),
        batch_subject::<TidingsTasks>(subscribers),
        batch_subject::<TidingsThreads>(subscribers),
        // It has no batches; it is what the rest is divided by.
        subject::<TokioBroadcast>(subscribers),
        batch_subject::<Disruptor<disruptor::BusySpin>>(subscribers),
        batch_subject::<Disruptor<disruptor::BusySpinWithSpinLoopHint>>(subscribers),
        batch_subject::<Disruptor<disruptor::Sleep>>(subscribers),
        batch_subject::<DisruptorPoll>(subscribers),
        batch_subject::<Rtrb>(subscribers),
        Some(bare_loop(subscribers, BATCH)),
    ];
    let title = format!("1 to {subscribers}, batches of {BATCH}");
    section(title, subscribers, subjects.into_iter().flatten())
}

fn section(title: String, subscribers: usize, subjects: impl Iterator<Item = Subject>) -> Section {
    Section {
        title,
        baseline: TokioBroadcast::NAME,
        publishers: 1,
        unit: Unit::Millions("deliveries"),
        per_event: subscribers as u64,
        least: (16 * CAPACITY / subscribers).max(CAPACITY) as u64,
        subjects: subjects.collect(),
    }
}

fn subject<P: Peer>(subscribers: usize) -> Option<Subject> {
    (subscribers <= P::MOST_SUBSCRIBERS).then(|| {
        Subject::new(P::NAME, move |seats, events| {
            run::<P>(seats, subscribers, events, |publisher, gate| {
                publish_all(publisher, gate, 0, events);
            })
        })
    })
}

fn batch_subject<P>(subscribers: usize) -> Option<Subject>
where
    P: Peer,
    P::Publisher: PublishBatch,
{
    (subscribers <= P::MOST_SUBSCRIBERS).then(|| {
        Subject::new(P::NAME, move |seats, events| {
            run::<P>(seats, subscribers, events, |publisher, gate| {
                for after in (0..events).step_by(BATCH as usize) {
                    if after == events / 2 {
                        Meter::half();
                    }
                    gate.pass(after + BATCH);
                    publisher.publish_batch(after, BATCH);
                }
            })
        })
    })
}

fn bare_loop(subscribers: usize, batch: u64) -> Subject {
    Subject::new(bare_loop::NAME, move |_, events| bare_loop::run(subscribers, events, batch))
}

fn run<P: Peer>(
    seats: &Seats,
    subscribers: usize,
    events: u64,
    publish: impl FnOnce(&mut P::Publisher, &mut Gate),
) -> Run {
    let (done, all_done) = mpsc::channel();
    let sinks: Vec<_> = (0..subscribers).map(|_| Sink::<1>::new(events, done.clone())).collect();
    let mut gate = match P::WAITS {
        true => Gate::always_open(),
        false => Gate::new(sinks.iter().flat_map(Sink::acks), CAPACITY),
    };
    let mut publisher = P::open(&seats.first, sinks.into_iter().map(Sink::handler).collect());
    let meter = Meter::start();
    publish(&mut publisher, &mut gate);
    wait(&all_done, subscribers);
    meter.end()
}
