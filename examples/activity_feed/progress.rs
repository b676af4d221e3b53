//! What is seen while the import runs: a bar, if somebody looks at a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on the standard error, which is drawn only if that is a terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar for so many commits, if it is known how many.
    pub(crate) fn new(commits: Option<u64>) -> Self {
        let (bar, template) = match commits {
            Some(commits) => (
                ProgressBar::new(commits),
                "{bar:40} {percent:>3} %  {human_pos} commits, {per_sec}  {eta} left",
            ),
            None => (ProgressBar::no_length(), "{spinner} {human_pos} commits, {per_sec}"),
        };
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self { bar: bar.with_style(style) }
    }

    /// So many commits have been sent.
    pub(crate) fn set(&self, commits: u64) {
        self.bar.set_position(commits);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
