//! The page as HTML: one file with charts that needs nothing else, no script and no network.
//!
//! Whatever stands in a history may stand on the page, and nothing of it is taken for HTML: all text goes through [`Text`].

use std::fmt::{self, Write};

use crate::activity::Chart;
use crate::feed::FeedEntry;
use crate::hottest::HotFiles;
use crate::number::grouped;
use crate::summary::{FollowerFeed, Summary};
use crate::week::Day;

const STYLE: &str = include_str!("html.css");

/// The side of a week's square, and its distance to the next one.
const SQUARE: usize = 14;
const STEP: usize = SQUARE + 3;
/// Where the first week stands: the names of the authors are to the left of it.
const LEFT: usize = 170;
/// The height of the bars of everybody's commits.
const BARS: u64 = 70;

/// The page about the history called `name`.
pub(crate) fn render(name: &str, summary: &Summary) -> Result<String, fmt::Error> {
    let mut html = String::new();
    write_page(&mut html, name, summary)?;
    Ok(html)
}

fn write_page(html: &mut String, name: &str, summary: &Summary) -> fmt::Result {
    let (name, Summary { chart, files, feeds }) = (Text(name), summary);
    write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width\"/>\n\
         <title>Activity of {name}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>{name}</h1>\n<ul class=\"totals\">\n"
    )?;
    for (number, what) in [
        (chart.commits, "commits"),
        (chart.authors, "authors"),
        (files.files, "files"),
        (files.changes, "changes of a file"),
        (files.added, "lines added"),
        (files.deleted, "lines deleted"),
    ] {
        writeln!(html, "<li><b>{}</b> {what}</li>", grouped(number))?;
    }
    html.write_str("</ul>\n<h2>Commits by author and week</h2>\n")?;
    write_chart(html, chart)?;
    html.write_str("<h2>The hottest files</h2>\n")?;
    write_files(html, files)?;
    html.write_str("<h2>Followers' feeds</h2>\n")?;
    html.write_str("<p>Who has changed a file follows it, and hears what others do to it.</p>\n")?;
    html.write_str("<div class=\"feeds\">\n")?;
    feeds.iter().try_for_each(|feed| write_feed(html, feed))?;
    html.write_str("</div>\n</body>\n</html>\n")
}

/// A bar for each week, and below it a square for each author.
fn write_chart(html: &mut String, chart: &Chart) -> fmt::Result {
    let Some(first) = chart.first else {
        return html.write_str("<p>No commit has a date.</p>\n");
    };
    let (columns, rows) = (chart.everybody.len(), chart.rows.len());
    let (width, top) = (LEFT + columns * STEP, BARS as usize + 10);
    let height = top + rows * STEP + 20;
    writeln!(html, "<div class=\"wide\"><svg viewBox=\"0 0 {width} {height}\" width=\"{width}\">")?;
    let most = chart.everybody.iter().copied().max().unwrap_or_default().max(1);
    for (column, commits) in chart.everybody.iter().enumerate().filter(|(_, n)| **n > 0) {
        let (x, bar) = (LEFT + column * STEP, (commits * BARS / most).max(1));
        let week = first.plus(column).monday();
        writeln!(
            html,
            "<rect class=\"bar\" x=\"{x}\" y=\"{}\" width=\"{SQUARE}\" height=\"{bar}\">\
             <title>{} in the week of {week}</title></rect>",
            BARS - bar,
            counted(*commits, "commit"),
        )?;
    }
    let most = chart.rows.iter().flat_map(|row| &row.weeks).copied().max().unwrap_or_default();
    for (row, author) in chart.rows.iter().enumerate() {
        let (y, name) = (top + row * STEP, Text(&author.author));
        let (x, base) = (LEFT - 8, y + SQUARE - 3);
        writeln!(
            html,
            "<text class=\"name\" x=\"{x}\" y=\"{base}\">{}<title>{name}: {}</title></text>",
            Text(&shortened(&author.author, 22)),
            counted(author.commits, "commit"),
        )?;
        for (column, commits) in author.weeks.iter().enumerate() {
            let (x, heat) = (LEFT + column * STEP, (commits * 4).div_ceil(most.max(1)));
            let square = format_args!("x=\"{x}\" y=\"{y}\" width=\"{SQUARE}\" height=\"{SQUARE}\"");
            match commits {
                0 => writeln!(html, "<rect class=\"heat0\" {square}/>")?,
                _ => writeln!(
                    html,
                    "<rect class=\"heat{heat}\" {square}><title>{name}: {} in the week of {}</title></rect>",
                    counted(*commits, "commit"),
                    first.plus(column).monday(),
                )?,
            }
        }
    }
    // A date below every thirteenth week: four in a year.
    for column in (0..columns).step_by(13) {
        let (x, y) = (LEFT + column * STEP, height - 6);
        let monday = first.plus(column).monday();
        writeln!(html, "<text class=\"date\" x=\"{x}\" y=\"{y}\">{monday}</text>")?;
    }
    html.write_str("</svg></div>\n")?;
    match chart.undated {
        0 => Ok(()),
        undated => writeln!(html, "<p>{} without a date.</p>", counted(undated, "commit")),
    }
}

fn write_files(html: &mut String, files: &HotFiles) -> fmt::Result {
    let most = files.hottest.first().map_or(1, |file| file.changes.max(1));
    html.write_str("<table>\n")?;
    for file in &files.hottest {
        writeln!(
            html,
            "<tr title=\"last changed by {}\"><td class=\"path\">{}</td><td class=\"number\">{}</td>\
             <td class=\"track\"><div style=\"width:{}%\"></div></td>\
             <td class=\"added\">+{}</td><td class=\"deleted\">−{}</td></tr>",
            Text(&file.newest),
            Text(&file.path),
            grouped(file.changes),
            file.changes * 100 / most,
            grouped(file.added),
            grouped(file.deleted),
        )?;
    }
    html.write_str("</table>\n")
}

fn write_feed(html: &mut String, feed: &FollowerFeed) -> fmt::Result {
    writeln!(html, "<section><h3>{}</h3>\n<ul>", Text(&feed.follower))?;
    if feed.entries.is_empty() {
        html.write_str("<li>Nobody else has changed their files.</li>\n")?;
    }
    for FeedEntry { commit, author, at, subject, files, file } in &feed.entries {
        write!(html, "<li title=\"{}\"><b>{}</b> ", Text(commit), Text(author))?;
        match at {
            Some(at) => write!(html, "<i>{}</i>", Day::of_seconds(*at))?,
            None => html.write_str("<i>undated</i>")?,
        }
        write!(html, "<br/>{}<br/><code>{}</code>", Text(subject), Text(file))?;
        if let more @ 1.. = files.saturating_sub(1) {
            write!(html, " and {more} more")?;
        }
        html.write_str("</li>\n")?;
    }
    html.write_str("</ul></section>\n")
}

fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// The first `longest` characters of a name that has more.
fn shortened(name: &str, longest: usize) -> String {
    match name.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.into(),
    }
}

/// Text that stands for itself wherever it is written on the page.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                control if control.is_control() => f.write_char('\u{fffd}')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}
