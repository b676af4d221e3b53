//! Files of purchases: a line for each, columns divided by blanks.
//!
//! ```text
//!  00004 0001 19970101  2   29.33     customer, customer's id in the sample, date, CDs, dollars
//!  00004 19970101  2   29.33          the same without the second column, as in the full data set
//! ```
//! The first purchase of a file says which of the two it is written in. Lines may end in LF or CRLF; blank lines are passed
//! over, and so is a first line that has only words in its columns: a header.
//!
//! # A line that cannot be read
//! It comes out as [`Malformed`] with its number, and the reading goes on behind it.
//!
//! # What makes a line one purchase
//! Two identical lines of a file are two purchases, while the same line of the same file, read again, is the same one. So a
//! purchase's command id is made from its line's number, the text of its columns, and the first purchase of the file, which
//! tells one file from another. It follows that
//! - the same file is recognised under any name, at any place, and with other line ends;
//! - lines that were added at the end, and malformed ones that were corrected, are the only new ones of a file;
//! - two files are different if they begin with different purchases, even where they hold the same line at the same place.

use std::fmt;
use std::io::{self, BufRead, Read};

use tidings::CommandId;

use crate::cents::{Cents, NotDollars};
use crate::date::NotADate;
use crate::domain::Purchase;

/// How many bytes of a line are kept; a line of purchases has some 35, and a file without line ends should not fill the memory.
const LONGEST: u64 = 1_024;

/// Reads the purchases of a file.
pub(crate) struct PurchaseReader<R> {
    input: R,
    line: Vec<u8>,
    /// The number of `line` in the file; the first is 1.
    number: u64,
    bytes: u64,
    /// Nothing but blank lines has been read.
    at_start: bool,
    first: Option<FirstPurchase>,
}

/// What the first purchase says of its file.
struct FirstPurchase {
    columns: usize,
    text: String,
}

/// One line that is neither blank nor a header.
#[derive(Debug)]
pub(crate) struct Line {
    /// Its number in the file.
    pub(crate) number: u64,
    pub(crate) content: Result<Entry, Malformed>,
}

/// A purchase of the file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: CommandId,
    pub(crate) member: String,
    pub(crate) purchase: Purchase,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
    #[error("it is not UTF-8")]
    NotText,
    #[error("it has {found} columns, not {expected}")]
    Columns { found: usize, expected: Columns },
    #[error("customer id {0:?} is not a whole number")]
    Customer(String),
    #[error("date {0:?}: {1}")]
    Date(String, NotADate),
    #[error("number of CDs {0:?} is not a whole number up to {max}", max = u32::MAX)]
    Cds(String),
    #[error("dollars {0:?}: {1}")]
    Dollars(String, NotDollars),
}

/// How many columns a line should have.
#[derive(Debug)]
pub(crate) enum Columns {
    FourOrFive,
    AsTheFirst(usize),
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FourOrFive => f.write_str("4 or 5"),
            Self::AsTheFirst(columns) => write!(f, "{columns} as the first purchase of the file"),
        }
    }
}

impl<R: BufRead> PurchaseReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, line: Vec::new(), number: 0, bytes: 0, at_start: true, first: None }
    }

    /// How many bytes of the file have been read.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads the next line that is neither blank nor a header; none at the end of the file.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            let Some(whole) = self.read_line()? else {
                return Ok(None);
            };
            let at_start = self.at_start;
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            self.at_start = false;
            let content = match std::str::from_utf8(&self.line) {
                _ if !whole => Err(Malformed::TooLong),
                Err(_) => Err(Malformed::NotText),
                Ok(text) => {
                    let columns: Vec<_> =
                        text.trim_start_matches('\u{feff}').split_ascii_whitespace().collect();
                    if at_start && is_header(&columns) {
                        continue;
                    }
                    parse(&columns, self.number, &mut self.first)
                }
            };
            return Ok(Some(Line { number: self.number, content }));
        }
    }

    /// Reads one line, and says whether it was short enough to be kept as a whole.
    fn read_line(&mut self) -> io::Result<Option<bool>> {
        self.line.clear();
        let mut start = self.input.by_ref().take(LONGEST);
        let kept = start.read_until(b'\n', &mut self.line)?;
        if kept == 0 {
            return Ok(None);
        }
        let mut rest = 0;
        if kept as u64 == LONGEST && !self.line.ends_with(b"\n") {
            rest = self.input.skip_until(b'\n')?;
        }
        self.number += 1;
        self.bytes += (kept + rest) as u64;
        Ok(Some(rest == 0))
    }
}

fn is_header(columns: &[&str]) -> bool {
    columns.iter().all(|column| column.starts_with(char::is_alphabetic))
}

fn parse(
    columns: &[&str],
    number: u64,
    first: &mut Option<FirstPurchase>,
) -> Result<Entry, Malformed> {
    let wrong_columns = |expected| Malformed::Columns { found: columns.len(), expected };
    if let Some(first) = first.as_ref().filter(|first| first.columns != columns.len()) {
        return Err(wrong_columns(Columns::AsTheFirst(first.columns)));
    }
    let (customer, date, cds, dollars) = match *columns {
        [customer, date, cds, dollars] => (customer, date, cds, dollars),
        [customer, in_sample, date, cds, dollars] => {
            customer_number(in_sample)?;
            (customer, date, cds, dollars)
        }
        _ => return Err(wrong_columns(Columns::FourOrFive)),
    };
    let member = member(customer)?;
    let purchase = Purchase {
        on: date.parse().map_err(|error| Malformed::Date(date.into(), error))?,
        cds: cds.parse().map_err(|_| Malformed::Cds(cds.into()))?,
        price: dollars
            .parse::<Cents>()
            .map_err(|error| Malformed::Dollars(dollars.into(), error))?,
    };
    let text = columns.join(" ");
    let first =
        first.get_or_insert_with(|| FirstPurchase { columns: columns.len(), text: text.clone() });
    Ok(Entry {
        id: CommandId::from_name(&format!("{}\n{number}\n{text}", first.text)),
        member,
        purchase,
    })
}

/// The id of a customer as a member.
pub(crate) fn member(customer: &str) -> Result<String, Malformed> {
    Ok(format!("{:05}", customer_number(customer)?))
}

fn customer_number(text: &str) -> Result<u64, Malformed> {
    text.parse().map_err(|_| Malformed::Customer(text.into()))
}
