//! The page, drawn by a reactor: the one effect outside of the log and its views.
//!
//! A run asks for its page with an event, and whoever handles that draws. So a page that was asked for is drawn, if need be
//! by the run after a kill. It may be drawn twice then, which does no harm: it is the same page.

use std::error::Error;
use std::io;
use std::path::Path;

use tidings::{App, Delivery, Position, Reactor, reactor};

use crate::domain::PageRequested;
use crate::html;
use crate::summary::{PATIENCE, Summary};

/// Draws each page that was asked for.
///
/// It tries once, since the program does not stay to see what a second attempt comes to, and waits for the views as long as the
/// program does. Should the views be lost, and its checkpoint with them, it begins with what is new: what was drawn long ago
/// is left alone.
#[derive(Debug)]
pub(crate) struct Page;

#[reactor(name = "page", start = newest, retry(attempts = 1), timeout = "10 min")]
impl Page {
    /// A file that cannot be written holds up no other.
    #[on(key = event.file)]
    async fn page_requested(
        &self,
        event: &PageRequested,
        delivery: &Delivery,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let app = delivery.app().ok_or("the app has ended")?;
        let summary = Summary::read(&app, delivery.position).await?;
        write(Path::new(&event.file), &html::render(&event.title, &summary)?)
            .await
            .map_err(|source| NotWritten { file: event.file.clone(), source })?;
        Ok(())
    }
}

/// The file of a page could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{file} cannot be written")]
struct NotWritten {
    file: String,
    source: io::Error,
}

/// Waits until the page that was asked for at `position` is drawn into `file`.
///
/// An earlier run may have failed at the same file, and this request wait behind that letter: starting the program again is
/// the retry. What fails again is told as the letter has it.
pub(crate) async fn drawn(app: &App, position: Position, file: &str) -> Result<(), Box<dyn Error>> {
    app.reached(Page::NAME, position, PATIENCE).await?;
    let letters = app.letters().of(Page::NAME).ok_or("the page keeps no letters")?;
    if letters.at(position).is_none() {
        return Ok(());
    }
    let retried = letters.retry_key(file).await?;
    match retried.failed.first() {
        None => Ok(()),
        Some(letter) => Err(letter.error().unwrap_or_default().into()),
    }
}

/// Writes `page` to `file`. Who opens the file meanwhile sees the whole of the last page.
async fn write(file: &Path, page: &str) -> io::Result<()> {
    let part = file.with_added_extension("part");
    tokio::fs::write(&part, page).await?;
    tokio::fs::rename(&part, file).await
}
