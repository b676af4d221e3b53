//! From the time at which an event was to be published to the time at which its subscriber has it.
//!
//! The publisher follows a schedule. If it is late, because the peer held it back or the machine did, the wait counts: no
//! coordinated omission.

use std::hint;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::harness::{CAPACITY, Event, Gate, Sink, median, wait};
use crate::peer::{Peer, Publish};
use crate::seats::Seats;
use crate::subjects::actix::{DoSend, TrySend};
use crate::subjects::actix_broker::ActixBroker;
use crate::subjects::async_broadcast::AsyncBroadcast;
use crate::subjects::crossbeam::Crossbeam;
use crate::subjects::disruptor::DisruptorPoll;
use crate::subjects::flume::Flume;
use crate::subjects::kameo::KameoTell;
use crate::subjects::kanal::Kanal;
use crate::subjects::ractor::RactorCast;
use crate::subjects::rtrb::Rtrb;
use crate::subjects::std_mpsc::StdMpsc;
use crate::subjects::thingbuf::Thingbuf;
use crate::subjects::tidings::{TidingsActors, TidingsTasks, TidingsThreads};
use crate::subjects::tokio::{TokioBroadcast, TokioMpsc};

/// Events offered a second.
pub(crate) const RATES: [u64; 3] = [1_000, 100_000, 1_000_000];

/// The publisher sleeps while the next event is further away than this, and spins for the rest: a sleep ends late.
const SLEEP_ABOVE: Duration = Duration::from_micros(200);

/// Rounds, each with all subjects; more would show more of the rarest, and take longer.
pub(crate) const ROUNDS: usize = 3;

/// How much later than the schedule a run may end.
const LATE: f64 = 1.2;

pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Seats, u64, Duration) -> Latency,
}

/// How late a subject was at one rate, in microseconds.
#[derive(Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// Whether it ended in time.
    pub(crate) sustained: bool,
}

impl Latency {
    fn new(histogram: &Histogram<u64>, sustained: bool) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0), sustained }
    }

    /// The median of each quantile, and the most of all: what disturbs one round is not the subject's.
    pub(crate) fn of_rounds(rounds: &[Self]) -> Self {
        let typical = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure));
        Self {
            p50: typical(|round| round.p50),
            p99: typical(|round| round.p99),
            p999: typical(|round| round.p999),
            max: rounds.iter().map(|round| round.max).fold(0.0, f64::max),
            sustained: rounds.iter().filter(|round| round.sustained).count() * 2 > rounds.len(),
        }
    }
}

pub(crate) fn title(rate: u64) -> String {
    format!("latency at {rate} events/s")
}

pub(crate) fn subjects() -> Vec<Subject> {
    vec![
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
        subject::<RactorCast>(),
        subject::<StdMpsc>(),
        subject::<Crossbeam>(),
        subject::<DisruptorPoll>(),
        subject::<Rtrb>(),
    ]
}

fn subject<P: Peer>() -> Subject {
    Subject { name: P::NAME, run: run::<P> }
}

fn run<P: Peer>(seats: &Seats, rate: u64, time: Duration) -> Latency {
    let events = rate * time.as_millis() as u64 / 1_000;
    let (done, all_done) = mpsc::channel();
    let (measured, measurement) = mpsc::channel();
    let mut sink = Sink::<1>::new(events, done);
    let mut gate = match P::WAITS {
        true => Gate::always_open(),
        false => Gate::new(sink.acks(), CAPACITY),
    };
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("sound bounds");
    let begin = Instant::now() + Duration::from_millis(5);
    let handler = move |event: &Event| {
        let due = Duration::from_nanos(event.cents);
        let late = begin.elapsed().saturating_sub(due);
        histogram.saturating_record(late.as_nanos() as u64);
        // The sink sums what it would have got without the time.
        let flow = sink.see(&Event { cents: event.number, ..*event });
        if flow.is_break() {
            measured.send(histogram.clone()).expect("the run waits");
        }
        flow
    };
    let mut publisher = P::open(&seats.first, vec![handler]);
    for number in 1..=events {
        let due = Duration::from_nanos(1_000_000_000 * (number - 1) / rate);
        wait_until(begin + due);
        gate.pass(number);
        publisher.publish(Event { cents: due.as_nanos() as u64, ..Event::nth(0, number) });
    }
    wait(&all_done, 1);
    let sustained = begin.elapsed().as_secs_f64() < LATE * time.as_secs_f64();
    let histogram = wait(&measurement, 1);
    Latency::new(&histogram, sustained)
}

#[inline]
fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        } else if left > SLEEP_ABOVE {
            thread::sleep(left - SLEEP_ABOVE);
        } else {
            hint::spin_loop();
        }
    }
}
