//! What parking, reactors and subscribing aggregates cost, each beside the same work without.
//!
//! `cargo bench --bench consumers [-- --json] [-- --events=20000] [-- part of a case's name]`
//!
//! Each case is measured five times, each time with its baseline beside it; who is first changes with each round. What a consumer
//! has done is looked at afterwards: each event must have been handled, once, or stand among its letters, or the run ends.

#![expect(clippy::expect_used, reason = "a benchmark ends where something is wrong")]

#[path = "support/account.rs"]
mod account;
#[path = "consumers/choreography.rs"]
mod choreography;
#[path = "support/deposits.rs"]
mod deposits;
#[path = "consumers/parking.rs"]
mod parking;
#[path = "consumers/reactors.rs"]
mod reactors;
#[path = "support/report.rs"]
mod report;

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use self::report::{ROUNDS, Report, per_second};

/// What a server with many threads should use: a command is allocated by its caller and freed by the sequencer, for which
/// glibc's allocator takes a lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many streams there are. Each log has at least one event of each.
const STREAMS: u64 = 10_000;

fn main() {
    let bench = Bench::from_args();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        parking::measure(&bench).await;
        reactors::measure(&bench).await;
        choreography::measure(&bench).await;
    });
}

/// What all cases share.
struct Bench {
    report: Report,
    /// A log with many events, for what is fast.
    large: Log,
    /// One with a tenth of them, for what is slow.
    small: Log,
}

impl Bench {
    /// Fills the logs: 400,000 events unless `--events=` says otherwise.
    fn from_args() -> Self {
        let report = Report::from_args("consumers");
        let events = std::env::args().find_map(|argument| {
            argument.strip_prefix("--events=").map(|events| events.parse().expect("a number"))
        });
        let events = events.unwrap_or(400_000);
        Self { report, large: Log::fill(events), small: Log::fill(events / 10) }
    }

    /// Measures `subject` and `baseline`, which handle `events` events each, if the case is wanted.
    async fn case(
        &self,
        case: &str,
        unit: &str,
        events: u64,
        subject: impl AsyncFn() -> Duration,
        baseline: impl AsyncFn() -> Duration,
    ) {
        if !self.report.wants(case) {
            return;
        }
        let mut samples = Vec::new();
        for round in 0..ROUNDS {
            let (of_subject, of_baseline) = match round % 2 {
                0 => (subject().await, baseline().await),
                _ => {
                    let of_baseline = baseline().await;
                    (subject().await, of_baseline)
                }
            };
            samples.push((per_second(events, of_subject), per_second(events, of_baseline)));
        }
        self.report.print(case, unit, &samples);
    }
}

/// A log in which the streams have their events in turn.
struct Log {
    directory: TempDir,
    events: u64,
}

impl Log {
    fn fill(events: u64) -> Self {
        let events = events.max(STREAMS);
        let log = Self { directory: folder(), events };
        deposits::fill(&log.path(), events, STREAMS);
        log
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("bank.db")
    }

    /// A copy of it, which can be written to.
    fn copy(&self) -> Self {
        let copy = folder();
        for file in std::fs::read_dir(self.directory.path()).expect("a folder") {
            let file = file.expect("a file");
            std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("a copy");
        }
        Self { directory: copy, events: self.events }
    }
}

/// A folder on the disk that the build writes to; gone when dropped.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

/// Where the consumers of one app keep what they know, apart from the log: with each, they begin anew.
struct Views(TempDir);

impl Views {
    fn new() -> Self {
        Self(folder())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("views.db")
    }
}
