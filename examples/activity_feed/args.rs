//! What the command line says.

use std::path::PathBuf;

use lexopt::prelude::*;

pub(crate) const HELP: &str = "\
Makes a page of who did what from the history of a git repository.

Usage: activity_feed [OPTIONS] [HISTORY]

HISTORY is a git repository, or a file with what `git log` says of one, as the README beside this example shows.
Without it, it is the history of an invented project that comes with this example.

Options:
  --db FILE      keep the events in FILE: the next run, also one after a crash, reads only what is new. A file for
                 each repository. Without it, nothing is kept but the page
  --html FILE    where the page is written; beside the file of --db or among the temporary files unless given
  --json         print one JSON object in place of the summary
  --poison       record events that a view cannot handle, and show what becomes of them; not with --db
  -h, --help     print this
";

/// What the user wants.
pub(crate) enum Wish {
    Help,
    Run(Args),
}

pub(crate) struct Args {
    /// A repository, or an export of one.
    pub(crate) history: PathBuf,
    /// Where the events are kept; in memory if there is none.
    pub(crate) db: Option<PathBuf>,
    /// Where the page is written: an absolute path.
    pub(crate) html: String,
    pub(crate) json: bool,
    pub(crate) poison: bool,
}

impl Wish {
    pub(crate) fn from_command_line() -> Result<Self, lexopt::Error> {
        let (mut history, mut db, mut html) = (None, None, None);
        let (mut json, mut poison) = (false, false);
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Short('h') | Long("help") => return Ok(Self::Help),
                Long("db") => db = Some(PathBuf::from(parser.value()?)),
                Long("html") => html = Some(PathBuf::from(parser.value()?)),
                Long("json") => json = true,
                Long("poison") => poison = true,
                Value(path) if history.is_none() => history = Some(PathBuf::from(path)),
                other => return Err(other.unexpected()),
            }
        }
        if poison && db.is_some() {
            return Err("--poison spoils what it is recorded with: leave --db out".into());
        }
        let invented =
            || concat!(env!("CARGO_MANIFEST_DIR"), "/examples/activity_feed/history.txt").into();
        // Two runs at a time must not write the same file, so that one among the temporary files bears the run's number.
        let page = || match &db {
            Some(db) => db.with_extension("html"),
            None => std::env::temp_dir().join(format!("activity-{}.html", std::process::id())),
        };
        let html = std::path::absolute(html.unwrap_or_else(page))
            .map_err(|error| format!("the page cannot be written there: {error}"))?;
        Ok(Self::Run(Args {
            history: history.unwrap_or_else(invented),
            html: html.into_os_string().into_string()?,
            db,
            json,
            poison,
        }))
    }
}
