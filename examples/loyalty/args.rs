//! What the command line says.

use std::path::PathBuf;

use lexopt::prelude::*;
use tidings::Durability;

use crate::date::{Date, NotADate};
use crate::input::member;

pub(crate) const HELP: &str = "\
Runs a record shop's loyalty programme on a file of purchases.

Usage: loyalty [OPTIONS] [FILE]

FILE has a line for each purchase, with the columns: customer, date, CDs, dollars. A column for the customer's
id in a sample may stand after the first, a header before the first line. Without FILE, it is the sample of the
CDNOW data set that comes with this example. Run it again, also after a crash, and only what is new is recorded.

Options:
  --db PATH                where the events are kept; loyalty.db unless given
  --durability os|fsync    what a recorded purchase survives: the end of the process, or a power cut; fsync
                           unless given
  --memory                 keep nothing
  --as-of DATE             print the members by tier at the end of that day, such as 1997-12-31, in place of the summary
  --history CUSTOMER       print what has happened to that customer in place of the summary
  --json                   print it as one JSON object
  -h, --help               print this
";

/// What the user wants.
pub(crate) enum Wish {
    Help,
    Run(Args),
}

pub(crate) struct Args {
    pub(crate) file: PathBuf,
    pub(crate) store: Place,
    pub(crate) show: Show,
    pub(crate) json: bool,
}

/// What is printed in the end.
pub(crate) enum Show {
    Summary,
    /// The tiers of a day.
    AsOf(Date),
    /// What has happened to the member of this id.
    History(String),
}

/// Where the events are kept.
pub(crate) enum Place {
    Memory,
    File { path: PathBuf, durability: Durability },
}

impl Wish {
    pub(crate) fn from_command_line() -> Result<Self, lexopt::Error> {
        let (mut file, mut db, mut durability) = (None, None, None);
        let (mut memory, mut json, mut show) = (false, false, Show::Summary);
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Short('h') | Long("help") => return Ok(Self::Help),
                Long("db") => db = Some(PathBuf::from(parser.value()?)),
                Long("durability") => {
                    durability = Some(parser.value()?.parse_with(|mode| match mode {
                        "os" => Ok(Durability::Os),
                        "fsync" => Ok(Durability::Fsync),
                        _ => Err("write os or fsync"),
                    })?);
                }
                Long("memory") => memory = true,
                Long("json") => json = true,
                Long("as-of" | "history") if !matches!(show, Show::Summary) => {
                    return Err("choose one of --as-of and --history, once".into());
                }
                Long("as-of") => show = Show::AsOf(parser.value()?.parse_with(day)?),
                Long("history") => show = Show::History(parser.value()?.parse_with(member)?),
                Value(path) if file.is_none() => file = Some(PathBuf::from(path)),
                other => return Err(other.unexpected()),
            }
        }
        if memory && (db.is_some() || durability.is_some()) {
            return Err("--memory keeps nothing: leave --db and --durability out".into());
        }
        let sample =
            || concat!(env!("CARGO_MANIFEST_DIR"), "/examples/loyalty/cdnow-sample.txt").into();
        Ok(Self::Run(Args {
            file: file.unwrap_or_else(sample),
            store: if memory {
                Place::Memory
            } else {
                Place::File {
                    path: db.unwrap_or_else(|| "loyalty.db".into()),
                    durability: durability.unwrap_or(Durability::Fsync),
                }
            },
            show,
            json,
        }))
    }
}

/// A day as it is written in files of purchases, or with hyphens as it is printed.
fn day(text: &str) -> Result<Date, NotADate> {
    let date: Date = text.replace('-', "").parse()?;
    match text.contains('-') && text != date.to_string() {
        true => Err(NotADate),
        false => Ok(date),
    }
}
