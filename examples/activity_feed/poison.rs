//! `--poison`: what becomes of an event that a view cannot handle.
//!
//! A file whose name [`Hottest`] does not understand is changed before the import and twice after it. The first change is
//! parked, the two others wait behind it, and every other file goes on. When the view has been mended, a retry handles
//! the three in their order.

use std::error::Error;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use tidings::{App, LetterState, Position, Projection};

use crate::domain::{Changed, Lines, RecordChange};
use crate::hottest::{Hottest, HottestFiles};
use crate::number::grouped;
use crate::summary::PATIENCE;

/// No file can be called this, so no history holds it.
const PATH: &str = "poison\0.txt";

/// What was seen.
#[derive(Serialize)]
pub(crate) struct Story {
    /// The position of the event that failed.
    failed: u64,
    error: String,
    /// The positions of the events behind it.
    waiting: Vec<u64>,
    /// The changes of other files that the view had counted by then.
    meanwhile: u64,
    /// How many letters were handled when they were tried again, and how many are left.
    handled: u64,
    left: usize,
    /// The commit that changed the file last, as the view sees it in the end: the third if they came in order.
    newest: String,
}

/// Changes the file for the first time.
pub(crate) async fn plant(app: &App) -> Result<(), Box<dyn Error>> {
    change(app, 1).await.map(|_| ())
}

/// Changes the file twice more, looks at the letters, mends the view, and tries them again.
pub(crate) async fn mend(app: &App, mended: &AtomicBool) -> Result<Story, Box<dyn Error>> {
    change(app, 2).await?;
    let last = change(app, 3).await?;
    let meanwhile =
        app.query(HottestFiles { limit: 0 }).at_least(last).within(PATIENCE).await?.changes;
    let letters = app.letters().of(Hottest::NAME).ok_or("the view parks no letters")?;
    let list = letters.list();
    let (first, waiting) = list.split_first().ok_or("the view has parked nothing")?;
    let waiting = waiting.iter().filter(|letter| letter.state == LetterState::Waiting);
    let waiting = waiting.map(|letter| letter.position.as_u64()).collect();

    mended.store(true, Ordering::Relaxed);
    let retried = letters.retry(first.position).await?;
    let files = app.query(HottestFiles { limit: u32::MAX }).at_least(last).within(PATIENCE).await?;
    let file = files.hottest.into_iter().find(|file| file.path == PATH);
    Ok(Story {
        failed: first.position.as_u64(),
        error: first.error().unwrap_or_default().to_owned(),
        waiting,
        meanwhile,
        handled: retried.handled,
        left: letters.list().len(),
        newest: file.map(|file| file.newest).unwrap_or_default(),
    })
}

async fn change(app: &App, number: u32) -> Result<Position, Box<dyn Error>> {
    let changed = Changed {
        path: PATH.into(),
        commit: format!("{number:040}"),
        author: "(nobody)".into(),
        at: None,
        lines: Lines { added: number, deleted: 0 },
    };
    Ok(app.send(PATH, RecordChange(changed)).await?.position)
}

impl Story {
    /// Tells it to a reader.
    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "Event {} was parked: {}", self.failed, self.error)?;
        writeln!(
            out,
            "Events {:?} of the same file wait behind it; {} changes of other files were counted.",
            self.waiting,
            grouped(self.meanwhile),
        )?;
        writeln!(
            out,
            "The view was mended: {} letters were handled, {} are left; the last change is number {}.\n",
            self.handled,
            self.left,
            self.newest.trim_start_matches('0'),
        )
    }
}
