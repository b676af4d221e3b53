//! What is seen while the import runs: a bar, if somebody looks at a terminal.

use std::fmt;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cents::grouped;

/// The rate is written anew after so many lines; a terminal shows a few of these changes in a second.
const LINES: u64 = 256;

/// A bar on the standard error, which is drawn only if that is a terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    /// A bar for a file of so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}  {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self { bar: ProgressBar::new(bytes).with_style(style), started: Instant::now() }
    }

    /// So many bytes and lines have been read.
    pub(crate) fn set(&self, bytes: u64, lines: u64) {
        if lines.is_multiple_of(LINES) {
            let rate = lines as f64 / self.started.elapsed().as_secs_f64();
            self.bar.set_message(format!(
                "{} lines, {} lines/s",
                grouped(lines),
                grouped(rate as u64)
            ));
            self.bar.set_position(bytes);
        }
    }

    /// Writes a line to the standard error, above the bar.
    pub(crate) fn note(&self, note: fmt::Arguments<'_>) {
        self.bar.suspend(|| eprintln!("{note}"));
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
