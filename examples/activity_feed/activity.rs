//! The activity by author and week, in memory: folded from the log with each start.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use tidings::{Header, Query, projection};

use crate::domain::Committed;
use crate::week::Week;

/// How many commits each author made in each week.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    authors: HashMap<String, AuthorActivity>,
    commits: u64,
    undated: u64,
    /// The newest week that was not in the future when its commit was recorded: clocks go wrong.
    newest: Option<Week>,
}

#[derive(Debug, Default)]
struct AuthorActivity {
    commits: u64,
    weeks: BTreeMap<Week, u64>,
}

/// The newest weeks of the most active authors.
#[derive(Query)]
#[query(reply = Chart)]
pub(crate) struct ActivityChart {
    pub(crate) weeks: usize,
    pub(crate) authors: usize,
}

/// Commits by author and week.
#[derive(Debug)]
pub(crate) struct Chart {
    /// All commits of all authors; some may lie outside of the weeks shown.
    pub(crate) commits: u64,
    /// How many of them name no date.
    pub(crate) undated: u64,
    /// How many authors there are.
    pub(crate) authors: u64,
    /// The first week shown; none if no commit has a date.
    pub(crate) first: Option<Week>,
    /// The commits of everybody in each week.
    pub(crate) everybody: Vec<u64>,
    /// The most active authors, with the commits of each in each week.
    pub(crate) rows: Vec<ChartRow>,
}

#[derive(Debug)]
pub(crate) struct ChartRow {
    pub(crate) author: String,
    pub(crate) commits: u64,
    pub(crate) weeks: Vec<u64>,
}

#[projection(name = "activity", version = 1)]
impl Activity {
    #[on]
    fn committed(&mut self, event: &Committed, header: &Header) {
        self.commits += 1;
        let author = self.authors.entry(event.author.clone()).or_default();
        author.commits += 1;
        let Some(week) = event.at.map(Week::of_seconds) else {
            self.undated += 1;
            return;
        };
        *author.weeks.entry(week).or_default() += 1;
        let recorded = i64::try_from(header.time.as_micros() / 1_000_000).unwrap_or(i64::MAX);
        if week <= Week::of_seconds(recorded) {
            self.newest = self.newest.max(Some(week));
        }
    }

    #[query]
    fn chart(&self, query: &ActivityChart) -> Chart {
        let weeks = i64::try_from(query.weeks).unwrap_or(i64::MAX);
        let first = self.newest.map(|newest| newest.minus(weeks - 1));
        let mut chart = Chart {
            commits: self.commits,
            undated: self.undated,
            authors: self.authors.len() as u64,
            first,
            everybody: vec![0; query.weeks],
            rows: Vec::new(),
        };
        let mut authors: Vec<_> = self.authors.iter().collect();
        authors.sort_unstable_by_key(|(name, author)| (Reverse(author.commits), *name));
        for (place, (name, activity)) in authors.into_iter().enumerate() {
            let mut row = ChartRow {
                author: name.clone(),
                commits: activity.commits,
                weeks: vec![0; query.weeks],
            };
            for (week, commits) in &activity.weeks {
                let column = first.and_then(|first| usize::try_from(week.since(first)).ok());
                let Some(column) = column else { continue };
                for weeks in [&mut chart.everybody, &mut row.weeks] {
                    if let Some(sum) = weeks.get_mut(column) {
                        *sum += commits;
                    }
                }
            }
            if place < query.authors {
                chart.rows.push(row);
            }
        }
        chart
    }
}
