//! Drawing the page: the one effect outside of the log and its views.

use std::error::Error;
use std::path::Path;

use tidings::{App, Position};

use crate::html;
use crate::summary::Summary;

/// Writes the page of what the views say when they hold everything up to `position`, and returns that.
///
/// Done twice it does no harm, and who opens the page meanwhile sees the whole of the last one.
pub(crate) async fn draw(
    app: &App,
    position: Position,
    name: &str,
    file: &Path,
) -> Result<Summary, Box<dyn Error>> {
    let summary = Summary::read(app, position).await?;
    let part = file.with_added_extension("part");
    let written = match tokio::fs::write(&part, html::render(name, &summary)?).await {
        Ok(()) => tokio::fs::rename(&part, file).await,
        failed => failed,
    };
    written.map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
    Ok(summary)
}
