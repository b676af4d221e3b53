//! A record shop's loyalty programme, run on the purchases that its customers really made.
//!
//! ```text
//! file ─ input ─▶ import ─ commands ─▶ domain: Member ─ events ─▶ loyalty.db ─▶ views: Standings, Sales ─▶ report
//! ```
//! Each line of the file is a command to its customer's aggregate. Kill the program at any moment and start it again: it ends
//! with the same result. Run it twice: the second run appends nothing.

mod args;
mod cents;
mod date;
mod domain;
mod import;
mod input;
mod past;
mod progress;
mod report;
mod views;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tidings::{App, Memory, Sqlite};

use crate::args::{Args, HELP, Place, Show, Wish};
use crate::domain::Member;
use crate::import::Import;
use crate::past::{Past, Story};
use crate::report::Report;
use crate::views::{Sales, Standings};

/// How long the views may take to come level with a log that other runs have filled.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = match Wish::from_command_line() {
        Ok(Wish::Help) => print(|out| out.write_all(HELP.as_bytes())),
        Ok(Wish::Run(args)) => run(args).await,
        Err(error) => {
            eprintln!("loyalty: {error}; --help says what there is");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loyalty: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let import = Import::open(&args.file)?;
    let app = App::builder();
    let app = match &args.store {
        Place::Memory => app.store(Memory::new()),
        Place::File { path, durability } => {
            app.store(Sqlite::options().durability(*durability).open(path)?)
        }
    };
    let app = app
        .aggregate::<Member>()
        .projection(Standings::default())
        .projection(Sales)
        .start()
        .await?;
    let done = match &args.show {
        Show::Summary => record(&app, import).await.map(Done::Report),
        Show::AsOf(day) => past::tiers_of(&app, import, *day).await.map(Done::Past),
        Show::History(member) => past::story_of(&app, import, member).await.map(Done::Story),
    };
    app.shutdown().await?;
    let report = match done? {
        Done::Report(report) => report,
        Done::Past(past) => return print(|out| past.write(args.json, out)),
        Done::Story(story) => return print(|out| story.write(args.json, out)),
    };
    let report = Report {
        files: match args.store {
            Place::Memory => None,
            Place::File { path, .. } => {
                let log = std::path::absolute(path)?;
                app.store().views_beside().map(|views| (log, views))
            }
        },
        elapsed: started.elapsed(),
        ..report
    };
    print(|out| match args.json {
        true => report.write_json(out),
        false => report.write_text(out),
    })
}

/// What a run comes to.
enum Done {
    Report(Report),
    Past(Past),
    Story(Story),
}

/// Records the purchases, and reads the views when everything is in them.
async fn record(app: &App, import: Import) -> Result<Report, Box<dyn Error>> {
    let tally = import.run(app).await?;
    let head = app.head();
    let sales = app.view::<Sales>().at_least(head).timeout(PATIENCE).await?;
    let (sales, months, top_customers) = sales
        .query(|view| Ok((Sales::totals(view)?, Sales::months(view)?, Sales::top_customers(view)?)))
        .await?;
    let standings = app.view::<Standings>();
    let standings = standings.at_least(head).timeout(PATIENCE).await?;
    Ok(Report {
        tally,
        events: head.as_u64(),
        sales,
        months,
        top_customers,
        tiers: standings.by_tier(),
        tiers_reached: standings.tiers_reached(),
        tiers_lost: standings.tiers_lost(),
        files: None,
        elapsed: Duration::ZERO,
    })
}

/// Writes to the standard output. A reader that has seen enough and gone, such as `head`, is no error.
fn print(
    write: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>,
) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The error with what caused it, on one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
