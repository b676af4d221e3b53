//! What is measured: sections of subjects that do the same work.

mod diamond;
mod fan_in;
pub(crate) mod fan_out;
pub(crate) mod latency;
mod ping_pong;
mod pipeline;

use crate::harness::Run;
use crate::seats::Seats;

/// A workload, and all that do it.
pub(crate) struct Section {
    pub(crate) title: String,
    /// The subject that the others are divided by.
    pub(crate) baseline: &'static str,
    /// Each of them publishes the events of a run.
    pub(crate) publishers: u64,
    /// What is counted, and how many of it an event makes.
    pub(crate) unit: Unit,
    pub(crate) per_event: u64,
    /// The fewest events of a run: enough to fill each ring, and to let the gate close, more than once.
    pub(crate) least: u64,
    pub(crate) subjects: Vec<Subject>,
}

/// What a section counts.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// So many that they are shown in millions a second, and in nanoseconds each.
    Millions(&'static str),
    /// So few that they are shown one by one, and in microseconds each.
    Ones(&'static str),
}

/// Runs so many events.
type Measure = dyn Fn(&Seats, u64) -> Run + Sync;

/// One row of a section.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    run: Box<Measure>,
}

impl Subject {
    fn new(name: &'static str, run: impl Fn(&Seats, u64) -> Run + Sync + 'static) -> Self {
        Self { name, run: Box::new(run) }
    }

    /// Runs so many events, and waits until nothing of them is left.
    pub(crate) fn run(&self, seats: &Seats, events: u64) -> Run {
        seats.publisher(|| (self.run)(seats, events))
    }
}

/// All sections that count deliveries or round trips; latency has a form of its own.
pub(crate) fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = [1, 4, 16, 64, 256].map(fan_out::one_by_one).into();
    sections.extend([1, 4].map(fan_out::in_batches));
    sections.extend([fan_in::section(), pipeline::section(), diamond::section()]);
    sections.extend([ping_pong::between_threads(), ping_pong::on_one_thread()]);
    sections
}
