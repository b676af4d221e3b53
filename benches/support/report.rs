//! What the benchmarks share: medians, and how a figure is printed beside its baseline.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::io::Write;
use std::time::Duration;

/// How often each subject is measured; an odd number, so that the median was measured.
pub(crate) const ROUNDS: usize = 5;

/// Prints figures, for people or for programs.
pub(crate) struct Report {
    bench: &'static str,
    json: bool,
    only: Option<String>,
}

impl Report {
    /// Reads the arguments: `--json` prints one object a line; any other word measures only the cases that contain it.
    pub(crate) fn from_args(bench: &'static str) -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let only = arguments.iter().find(|argument| !argument.starts_with('-')).cloned();
        let report = Self { bench, json: arguments.iter().any(|a| a == "--json"), only };
        if !report.json {
            println!("{:<44} {:>14} {:>14} {:>7}", bench, "value", "baseline", "ratio");
        }
        report
    }

    /// Whether this case is to be measured.
    pub(crate) fn wants(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|only| case.contains(only.as_str()))
    }

    /// Prints the medians of `samples`, each a value with the baseline that was measured beside it. The ratio is the
    /// median of the ratios, not the ratio of the medians.
    pub(crate) fn print(&self, case: &str, unit: &str, samples: &[(f64, f64)]) {
        let value = median(samples.iter().map(|(value, _)| *value));
        let baseline = median(samples.iter().map(|(_, baseline)| *baseline));
        let ratio = median(samples.iter().map(|(value, baseline)| value / baseline));
        let bench = self.bench;
        if self.json {
            println!(
                "{{\"bench\":\"{bench}\",\"case\":\"{case}\",\"value\":{value:.1},\"unit\":\"{unit}\",\
                 \"baseline\":{baseline:.1},\"ratio\":{ratio:.3}}}"
            );
        } else {
            println!("{case:<44} {value:>14.1} {baseline:>14.1} {ratio:>7.2}  {unit}");
        }
        // A long run shows what it has got so far.
        let _ = std::io::stdout().flush();
    }

    /// Prints a figure that has no baseline.
    pub(crate) fn note(&self, case: &str, unit: &str, value: f64) {
        let bench = self.bench;
        if self.json {
            println!(
                "{{\"bench\":\"{bench}\",\"case\":\"{case}\",\"value\":{value:.1},\"unit\":\"{unit}\",\
                 \"baseline\":null,\"ratio\":null}}"
            );
        } else {
            println!("{case:<44} {value:>14.1} {:>14} {:>7}  {unit}", "", "");
        }
    }
}

/// The median of `values`.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How many of `count` things were done in a second.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}
