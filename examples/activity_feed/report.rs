//! What is printed at the end of a run.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::import::Tally;
use crate::number::grouped;
use crate::poison::Story;
use crate::summary::Summary;
use crate::week::Day;

/// How many lines each list has.
const LINES: usize = 5;

/// A run, and what is known after it.
pub(crate) struct Report {
    pub(crate) tally: Tally,
    /// How many events the log holds.
    pub(crate) events: u64,
    pub(crate) summary: Summary,
    /// How many events could not be handled by a view, or by the page, or wait behind one that could not.
    pub(crate) letters: usize,
    pub(crate) poison: Option<Story>,
    pub(crate) html: String,
    pub(crate) elapsed: Duration,
}

/// The report for a program.
#[derive(Serialize)]
struct Totals<'a> {
    commits: u64,
    authors: u64,
    undated: u64,
    files: u64,
    changes: u64,
    added: u64,
    deleted: u64,
    events: u64,
    read: u64,
    already_known: u64,
    appended: u64,
    letters: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    poison: Option<&'a Story>,
    html: &'a str,
    elapsed_ms: u128,
}

impl Report {
    /// Writes the report for a program: one JSON object on one line.
    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let (tally, Summary { chart, files, .. }) = (&self.tally, &self.summary);
        let totals = Totals {
            commits: chart.commits,
            authors: chart.authors,
            undated: chart.undated,
            files: files.files,
            changes: files.changes,
            added: files.added,
            deleted: files.deleted,
            events: self.events,
            read: tally.read,
            already_known: tally.already_known,
            appended: tally.appended,
            letters: self.letters,
            poison: self.poison.as_ref(),
            html: &self.html,
            elapsed_ms: self.elapsed.as_millis(),
        };
        writeln!(out, "{}", serde_json::to_string(&totals)?)
    }

    /// Writes the report for a reader.
    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let Summary { chart, files, feeds } = &self.summary;
        if let Some(story) = &self.poison {
            story.write_text(out)?;
        }
        writeln!(
            out,
            "{} commits of {} authors: {} files were changed {} times, with {} lines added and {} deleted.",
            grouped(chart.commits),
            grouped(chart.authors),
            grouped(files.files),
            grouped(files.changes),
            grouped(files.added),
            grouped(files.deleted),
        )?;
        writeln!(out, "\nMost active authors, and when in the last year")?;
        for row in chart.rows.iter().take(LINES) {
            let (commits, weeks) = (grouped(row.commits), sparkline(&row.weeks));
            writeln!(out, "  {:<18} {commits:>7} {weeks}", row.author)?;
        }
        writeln!(out, "\nHottest files")?;
        for file in files.hottest.iter().take(LINES) {
            writeln!(out, "  {:>7} changes  {}", grouped(file.changes), file.path.escape_debug())?;
        }
        if let Some(feed) = feeds.first() {
            writeln!(out, "\nWhat {} hears of", feed.follower)?;
            if feed.entries.is_empty() {
                writeln!(out, "  nothing: nobody else has changed their files")?;
            }
            for entry in feed.entries.iter().take(LINES) {
                let day = entry.at.map_or("undated".into(), |at| Day::of_seconds(at).to_string());
                writeln!(out, "  {day:<10}  {}: {}", entry.author, entry.subject)?;
            }
        }
        self.write_run(out)
    }

    fn write_run(&self, out: &mut impl Write) -> io::Result<()> {
        let Tally { read, already_known, appended } = &self.tally;
        writeln!(
            out,
            "\n{} commits read in {:.2} s, {} of them recorded before.",
            grouped(*read),
            self.elapsed.as_secs_f64(),
            grouped(*already_known),
        )?;
        match appended {
            0 => writeln!(out, "Nothing new was recorded.")?,
            1 => writeln!(out, "1 event was recorded.")?,
            appended => writeln!(out, "{} events were recorded.", grouped(*appended))?,
        }
        match self.letters {
            0 => {}
            1 => writeln!(out, "1 event is parked: it could not be handled.")?,
            letters => writeln!(out, "{letters} events are parked: they could not be handled.")?,
        }
        writeln!(out, "The page is {}", self.html)
    }
}

/// A character for each week, as high as its commits.
fn sparkline(weeks: &[u64]) -> String {
    let most = weeks.iter().copied().max().unwrap_or_default().max(1);
    let height = |commits: &u64| match (commits * 8).div_ceil(most) {
        0 => ' ',
        1 => '▁',
        2 => '▂',
        3 => '▃',
        4 => '▄',
        5 => '▅',
        6 => '▆',
        7 => '▇',
        _ => '█',
    };
    weeks.iter().map(height).collect()
}
