//! What the views say, read when they hold everything up to one position.

use std::time::Duration;

use tidings::{App, Position, QueryError};

use crate::activity::{ActivityChart, Chart};
use crate::feed::{FeedEntry, FeedOf};
use crate::hottest::{HotFiles, HottestFiles};

/// A year of weeks, and the one that has just begun.
const WEEKS: usize = 53;
const AUTHORS: usize = 12;
const FILES: u32 = 15;
/// How many followers' feeds are shown.
const FEEDS: usize = 3;
const ENTRIES: u32 = 8;

/// How long a view may take to come level with a log that other runs have filled.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// What is shown of a history.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) chart: Chart,
    pub(crate) files: HotFiles,
    /// The feeds of the most active authors.
    pub(crate) feeds: Vec<FollowerFeed>,
}

#[derive(Debug)]
pub(crate) struct FollowerFeed {
    pub(crate) follower: String,
    pub(crate) entries: Vec<FeedEntry>,
}

impl Summary {
    /// Asks the three views, each as soon as it holds everything up to `position`.
    pub(crate) async fn read(app: &App, position: Position) -> Result<Self, QueryError> {
        let chart = app.query(ActivityChart { weeks: WEEKS, authors: AUTHORS });
        let chart = chart.at_least(position).within(PATIENCE).await?;
        let files = app.query(HottestFiles { limit: FILES });
        let files = files.at_least(position).within(PATIENCE).await?;
        let mut feeds = Vec::new();
        for row in chart.rows.iter().take(FEEDS) {
            let follower = row.author.clone();
            let entries = app.query(FeedOf { follower: follower.clone(), limit: ENTRIES });
            let entries = entries.at_least(position).within(PATIENCE).await?;
            feeds.push(FollowerFeed { follower, entries });
        }
        Ok(Self { chart, files, feeds })
    }
}
