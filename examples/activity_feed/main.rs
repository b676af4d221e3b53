//! Who does what in a git repository: git is event sourcing, so its history is a log of events to begin with.
//!
//! ```text
//! git log ─ source ─▶ import ─ commands ─▶ domain: Author, File, History ─ events ─▶ the log
//!                                                                                     │
//!                  report ◀─ summary ◀─ queries ─ views: Feed, Activity, Hottest ◀────┤
//!                               │                                                     │
//!                the page ◀─ html ◀─────────────────────────── a reactor: Page ◀──────┘
//! ```
//! Each commit and each change of a file becomes an event. Three views that know nothing of each other make something of them,
//! and a reactor draws what the views say when a page is asked for. Kill the program at any moment and start it again: it ends
//! with the same result. Run it again after the next commit: it reads that one.

mod activity;
mod args;
mod domain;
mod feed;
mod history;
mod hottest;
mod html;
mod import;
mod number;
mod page;
mod poison;
mod progress;
mod report;
mod source;
mod summary;
mod week;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tidings::{App, Memory, Sqlite};

use crate::activity::Activity;
use crate::args::{Args, HELP, Wish};
use crate::domain::{Author, File, HISTORY, History, PageRequested, RequestPage};
use crate::feed::Feed;
use crate::hottest::Hottest;
use crate::page::Page;
use crate::report::Report;
use crate::source::Source;
use crate::summary::Summary;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = match Wish::from_command_line() {
        Ok(Wish::Help) => print(|out| out.write_all(HELP.as_bytes())),
        Ok(Wish::Run(args)) => run(args).await,
        Err(error) => {
            eprintln!("activity_feed: {error}; --help says what there is");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("activity_feed: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let source = Source::open(&args.history).await?;
    let app = App::builder();
    let app = match &args.db {
        Some(path) => app.store(Sqlite::open(path)?),
        None => app.store(Memory::new()),
    };
    let hottest = Hottest::default();
    let mended = hottest.mended();
    let app = app
        .aggregate::<Author>()
        .aggregate::<File>()
        .aggregate::<History>()
        .projection(Feed)
        .projection(Activity::default())
        .projection(hottest)
        .reactor(Page)
        .start()
        .await?;
    let done = record(&app, &source, &args, &mended).await;
    app.shutdown().await?;
    let report = Report { elapsed: started.elapsed(), ..done? };
    print(|out| match args.json {
        true => report.write_json(out),
        false => report.write_text(out),
    })
}

/// Records what is new in the history, and has the page drawn when all of it is in the views.
async fn record(
    app: &App,
    source: &Source,
    args: &Args,
    mended: &AtomicBool,
) -> Result<Report, Box<dyn Error>> {
    if args.poison {
        poison::plant(app).await?;
    }
    let reading = source.read(import::read_before(app)?).await?;
    let tally = import::import(app, reading).await?;
    let poison = if args.poison { Some(poison::mend(app, mended).await?) } else { None };
    let request = PageRequested { file: args.html.clone(), title: source.name().to_owned() };
    let position = app.send(HISTORY, RequestPage(request)).await?.position;
    let summary = Summary::read(app, position).await?;
    page::drawn(app, position, &args.html).await?;
    Ok(Report {
        tally,
        events: position.as_u64(),
        summary,
        letters: app.letters().consumers().map(|letters| letters.list().len()).sum(),
        poison,
        html: args.html.clone(),
        elapsed: Default::default(),
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
