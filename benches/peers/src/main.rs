//! Tidings beside its peers: the README says what is measured, and how.

mod harness;
mod peer;
mod report;
mod seats;
mod subjects;
mod workloads;

use std::path::PathBuf;
use std::process;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::harness::{counting, median};
use crate::report::{Form, Row};
use crate::seats::Seats;
use crate::workloads::latency::Latency;
use crate::workloads::{Section, Subject, fan_out, latency};

const USAGE: &str = "\
cargo run --release --manifest-path benches/peers/Cargo.toml [-- OPTIONS] [WORD]

  WORD         only the cases whose \"workload: subject\" contains it, and what they are divided by
  --rounds N   how often each subject is measured [5]
  --quick      fewer rounds and events
  --json       one JSON object a line
  --svg FILE   also writes a chart of the section \"1 to 4, one by one\"";

/// More events than any subject gets through in a run.
const MOST_EVENTS: u64 = 1 << 24;

struct Options {
    form: Form,
    svg: Option<PathBuf>,
    rounds: usize,
    /// How long a run is to take; runs of slow subjects take longer.
    run: Duration,
    latency_run: Duration,
    word: Option<String>,
}

impl Options {
    fn parse() -> Result<Self, lexopt::Error> {
        let mut options = Self {
            form: Form::Table,
            svg: None,
            rounds: 5,
            run: Duration::from_millis(100),
            latency_run: Duration::from_secs(1),
            word: None,
        };
        let mut arguments = Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Arg::Long("json") => options.form = Form::Json,
                Arg::Long("svg") => options.svg = Some(arguments.value()?.into()),
                Arg::Long("rounds") => options.rounds = arguments.value()?.parse()?,
                Arg::Long("quick") => {
                    options.rounds = 3;
                    options.run = Duration::from_millis(30);
                    options.latency_run = Duration::from_millis(200);
                }
                Arg::Long("help") => {
                    println!("{USAGE}");
                    process::exit(0);
                }
                Arg::Value(word) if options.word.is_none() => options.word = Some(word.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }

    fn wants(&self, title: &str, subject: &str) -> bool {
        let word = self.word.as_deref().unwrap_or_default();
        format!("{title}: {subject}").contains(word)
    }
}

fn main() -> Result<(), lexopt::Error> {
    let options = Options::parse()?;
    end_on_panic();
    let seats = Seats::new();
    for mut section in workloads::sections() {
        let Section { title, baseline, subjects, .. } = &mut section;
        if subjects.iter().any(|subject| options.wants(title, subject.name)) {
            subjects
                .retain(|subject| subject.name == *baseline || options.wants(title, subject.name));
            let rows = measure(&seats, &section, &options);
            if let Some(file) = options.svg.as_ref().filter(|_| section.title == fan_out::CHARTED) {
                let chart = report::chart(&section.title, section.unit, &rows);
                std::fs::write(file, chart).expect("the chart can be written");
            }
        }
    }
    for rate in latency::RATES {
        let title = latency::title(rate);
        let mut subjects = latency::subjects();
        subjects.retain(|subject| options.wants(&title, subject.name));
        let mut rounds = vec![Vec::new(); subjects.len()];
        for _ in 0..latency::ROUNDS {
            for (subject, rounds) in subjects.iter().zip(&mut rounds) {
                rounds.push(seats.publisher(|| (subject.run)(&seats, rate, options.latency_run)));
            }
        }
        if !subjects.is_empty() {
            options.form.latency_head(&title);
        }
        for (subject, rounds) in subjects.iter().zip(&rounds) {
            options.form.latency(&title, subject.name, &Latency::of_rounds(rounds));
        }
    }
    seats.close();
    Ok(())
}

/// A mistake in any thread ends the run, also where a peer would catch the panic.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        process::exit(101);
    }));
}

/// Measures each subject once a round, so that a change of the machine's speed falls on all of them.
fn measure(seats: &Seats, section: &Section, options: &Options) -> Vec<Row> {
    options.form.head(&section.title, section.baseline, section.unit);
    let subjects: Vec<_> = section
        .subjects
        .iter()
        .map(|subject| (subject, fitting_events(seats, section, subject, options.run)))
        .collect();
    let mut rates = vec![Vec::new(); subjects.len()];
    for _ in 0..options.rounds {
        for ((subject, events), rates) in subjects.iter().zip(&mut rates) {
            let run = subject.run(seats, *events);
            let counted = events * section.publishers * section.per_event;
            rates.push(counted as f64 / run.elapsed.as_secs_f64());
        }
    }
    let baseline = subjects
        .iter()
        .zip(&rates)
        .find(|((subject, _), _)| subject.name == section.baseline)
        .map(|(_, rates)| rates.clone())
        .expect("each section has its baseline");
    let mut rows = Vec::new();
    for ((subject, events), rates) in subjects.iter().zip(&rates) {
        let counted = counting(|| subject.run(seats, *events));
        let warm = (events * section.publishers / 2) as f64;
        let row = Row {
            subject: subject.name,
            per_second: median(rates.iter().copied()),
            between: rates
                .iter()
                .fold((f64::INFINITY, 0.0), |(low, high), &rate| (rate.min(low), rate.max(high))),
            ratio: median(rates.iter().zip(&baseline).map(|(rate, baseline)| rate / baseline)),
            baseline_per_second: median(baseline.iter().copied()),
            allocations_per_event: counted.allocations as f64 / warm,
            bytes_per_event: counted.bytes as f64 / warm,
        };
        options.form.row(&section.title, section.unit, &row);
        rows.push(row);
    }
    rows
}

/// How many events make a run as long as wished. Finding out also warms the subject up.
fn fitting_events(seats: &Seats, section: &Section, subject: &Subject, wished: Duration) -> u64 {
    // Halves, batches and acknowledgements come out even.
    const MULTIPLE: u64 = 128;
    let mut events = (section.least / 4).next_multiple_of(MULTIPLE);
    loop {
        let took = subject.run(seats, events).elapsed.as_secs_f64();
        let factor = wished.as_secs_f64() / took;
        let fitting = (events as f64 * factor.min(16.0)) as u64;
        let fitting = fitting.clamp(section.least, MOST_EVENTS).next_multiple_of(MULTIPLE);
        if factor < 4.0 || fitting == events {
            return fitting;
        }
        events = fitting;
    }
}
