//! Looking back: the tiers of a day, and what has happened to one member.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};

use serde::Serialize;
use tidings::{App, Envelope, Header};

use crate::cents::grouped;
use crate::date::Date;
use crate::domain::{
    Enrolled, Member, MemberEvent, PointsExpired, Purchased, Tier, TierLost, TierReached,
};
use crate::import::Import;
use crate::report::write_tiers;
use crate::views::{Standings, TierTotals};

/// How the members stood at the end of a day.
#[derive(Serialize)]
pub(crate) struct Past {
    #[serde(serialize_with = "shown")]
    as_of: Date,
    tiers: Vec<TierTotals>,
}

/// Records the purchases, and folds a view of that day beside the one that serves.
pub(crate) async fn tiers_of(app: &App, import: Import, day: Date) -> Result<Past, Box<dyn Error>> {
    import.run(app).await?;
    let standings = app.as_of_with(Standings::of_day(day), app.head()).await?;
    if let Some(letter) = standings.letters().first() {
        let error = letter.error().unwrap_or_default();
        return Err(format!("the event at position {} is missing: {error}", letter.position).into());
    }
    let tiers = standings.read().by_tier();
    Ok(Past { as_of: day, tiers })
}

impl Past {
    pub(crate) fn write(&self, json: bool, out: &mut impl Write) -> io::Result<()> {
        if json {
            return writeln!(out, "{}", serde_json::to_string(self)?);
        }
        writeln!(out, "Members by tier at the end of {}", self.as_of)?;
        write_tiers(&self.tiers, out)
    }
}

/// What has happened to a member.
#[derive(Serialize)]
pub(crate) struct Story {
    customer: String,
    chapters: Vec<Chapter>,
    points: i64,
    tier: Tier,
}

/// What one purchase has brought about.
#[derive(Serialize)]
struct Chapter {
    /// The day of the purchase.
    #[serde(serialize_with = "shown")]
    on: Date,
    /// When it was recorded, and from where.
    recorded: String,
    file: Option<String>,
    line: Option<String>,
    what: Vec<String>,
}

/// Records the purchases, and reads the stream of one member.
pub(crate) async fn story_of(
    app: &App,
    import: Import,
    member: &str,
) -> Result<Story, Box<dyn Error>> {
    import.run(app).await?;
    let history = app.history::<Member>(member).await?;
    if history.is_empty() {
        return Err(format!("no purchase of customer {member} is recorded").into());
    }
    // The events of one purchase are those of one command, and stand beside each other.
    let chapters = history.chunk_by(|one, next| one.command_id == next.command_id);
    let now = app.load::<Member>(member).await?;
    let (points, tier) = now.standing();
    Ok(Story {
        customer: member.to_owned(),
        chapters: chapters.filter_map(Chapter::of).collect(),
        points,
        tier,
    })
}

impl Chapter {
    fn of(events: &[Envelope<MemberEvent>]) -> Option<Self> {
        let on = events.iter().find_map(|entry| match &entry.event {
            MemberEvent::Purchased(event) => Some(event.on),
            _ => None,
        })?;
        let header: &Header = events.first()?;
        let said = |key: &str| header.metadata.get(key).map(str::to_owned);
        Some(Self {
            on,
            recorded: header.time.to_string(),
            file: said("file"),
            line: said("line"),
            what: events.iter().map(|entry| entry.event.to_string()).collect(),
        })
    }
}

impl Story {
    pub(crate) fn write(&self, json: bool, out: &mut impl Write) -> io::Result<()> {
        if json {
            return writeln!(out, "{}", serde_json::to_string(self)?);
        }
        writeln!(out, "The story of customer {}", self.customer)?;
        for Chapter { on, recorded, file, line, what } in &self.chapters {
            write!(out, "\n{on}, recorded at {recorded}")?;
            if let (Some(file), Some(line)) = (file, line) {
                write!(out, " from line {line} of {file}")?;
            }
            writeln!(out)?;
            for event in what {
                writeln!(out, "  {event}")?;
            }
        }
        let Self { points, tier, .. } = self;
        writeln!(out, "\nThat makes {} points: {tier}.", grouped(points))
    }
}

/// In the words of the programme's members.
impl fmt::Display for MemberEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enrolled(Enrolled { .. }) => f.write_str("joined the programme"),
            Self::PointsExpired(PointsExpired { points }) => {
                write!(f, "lost {} points at the turn of the year", grouped(points))
            }
            Self::TierLost(TierLost { tier }) => write!(f, "fell to {tier}"),
            Self::Purchased(Purchased { cds, price, points, .. }) => {
                let s = if *cds == 1 { "" } else { "s" };
                let earned = grouped(points);
                write!(f, "bought {} CD{s} for {price} and earned {earned} points", grouped(cds))
            }
            Self::TierReached(TierReached { tier }) => write!(f, "rose to {tier}"),
        }
    }
}

fn shown<S: serde::Serializer>(value: &impl fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}
