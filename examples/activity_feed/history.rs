//! What `git log` says of a history: a few lines for each commit, then a line for each file that it changes.
//!
//! ```text
//! commit 8c04dd0e2c9f5f6e1f3bd0a86e1a5d9d1b0a3c55
//! author Ada Lovelace
//! time 1700000000                   seconds since 1970; may be missing, since commits can be damaged
//! subject Fix the tides of leap years
//!
//! 12      3       src/tide.rs       lines added, lines deleted, path
//! -       -       "h\303\251l.png"  not a text; a path with unusual bytes, quoted as in C
//! ```
//! Neither name nor subject nor path can hold a line end, so that each line tells by its place and start what it is. None
//! of it need be UTF-8: it is read as bytes, and what is not text becomes � where it is shown.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::domain::Lines;

/// What makes `git log` speak as above.
pub(crate) const FORMAT: &str = "commit %H%nauthor %an%ntime %at%nsubject %s";

/// A subject is cut behind so many bytes: it is a line of a page, and some people write their whole message in it.
const LONGEST_SUBJECT: usize = 500;

/// A commit of the history.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) hash: String,
    pub(crate) author: String,
    /// Seconds since 1970; none if it names no date that can be.
    pub(crate) at: Option<i64>,
    pub(crate) subject: String,
    /// None for a merge, which changes nothing that its parents did not.
    pub(crate) changes: Vec<Change>,
}

/// What a commit does to one file.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) path: Vec<u8>,
    pub(crate) lines: Lines,
}

/// Why a history cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    #[error(
        "line {line} should be `{expected}`, as `git log` writes it with the format of this example"
    )]
    Malformed { line: u64, expected: &'static str },
    #[error("it breaks off in the middle of a commit, at line {line}")]
    BreaksOff { line: u64 },
    #[error(transparent)]
    Input(#[from] io::Error),
}

/// Reads the commits of a history, one after the other.
pub(crate) struct CommitReader<R> {
    input: R,
    /// What was read last, without its line end; the start of the next commit once one is complete.
    line: Vec<u8>,
    number: u64,
}

impl<R: AsyncBufRead + Unpin> CommitReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, line: Vec::new(), number: 0 }
    }

    /// Reads the next commit; none at the end of the history.
    pub(crate) async fn next_commit(&mut self) -> Result<Option<Commit>, HistoryError> {
        while self.line.is_empty() {
            if !self.next_line().await? {
                return Ok(None);
            }
        }
        let hash = self.field("commit ", "commit HASH")?;
        if !(hash.len() >= 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            return Err(self.malformed("commit HASH"));
        }
        self.must_go_on().await?;
        let mut author = self.field("author ", "author NAME")?;
        if author.is_empty() {
            author.push_str("(no name)");
        }
        self.must_go_on().await?;
        let at = self.field("time ", "time SECONDS")?.parse().ok();
        self.must_go_on().await?;
        let mut subject = self.field("subject ", "subject TEXT")?;
        subject.truncate(subject.floor_char_boundary(LONGEST_SUBJECT));
        let mut commit = Commit { hash, author, at, subject, changes: Vec::new() };
        while self.next_line().await? && !self.line.starts_with(b"commit ") {
            if !self.line.is_empty() {
                let change = parse_change(&self.line);
                commit.changes.push(change.ok_or_else(|| self.malformed("ADDED DELETED PATH"))?);
            }
        }
        Ok(Some(commit))
    }

    /// The text behind the `label` of this line, fit to be shown: without control characters.
    fn field(&self, label: &str, expected: &'static str) -> Result<String, HistoryError> {
        let value = self.line.strip_prefix(label.as_bytes());
        let value = String::from_utf8_lossy(value.ok_or_else(|| self.malformed(expected))?);
        Ok(value.replace(char::is_control, " ").trim().to_owned())
    }

    async fn must_go_on(&mut self) -> Result<(), HistoryError> {
        match self.next_line().await? {
            true => Ok(()),
            false => Err(HistoryError::BreaksOff { line: self.number }),
        }
    }

    /// Reads a line; says whether there was one.
    ///
    /// A line without an end is the rest of a `git log` that was killed: what it says may be half the truth.
    async fn next_line(&mut self) -> Result<bool, HistoryError> {
        self.line.clear();
        if self.input.read_until(b'\n', &mut self.line).await? == 0 {
            return Ok(false);
        }
        self.number += 1;
        if self.line.pop() != Some(b'\n') {
            return Err(HistoryError::BreaksOff { line: self.number });
        }
        self.line.pop_if(|byte| *byte == b'\r');
        Ok(true)
    }

    fn malformed(&self, expected: &'static str) -> HistoryError {
        HistoryError::Malformed { line: self.number, expected }
    }
}

fn parse_change(line: &[u8]) -> Option<Change> {
    let mut columns = line.splitn(3, |byte| *byte == b'\t');
    let mut lines = || match columns.next()? {
        b"-" => Some(0),
        digits => std::str::from_utf8(digits).ok()?.parse().ok(),
    };
    let lines = Lines { added: lines()?, deleted: lines()? };
    let path = unquote(columns.next()?)?;
    (!path.is_empty()).then_some(Change { path, lines })
}

/// The path that git has quoted if it was unusual: `"a\tb"`, `"h\303\251l"`. None if a quote is not one of git's.
fn unquote(path: &[u8]) -> Option<Vec<u8>> {
    let Some(quoted) = path.strip_prefix(b"\"") else {
        return Some(path.into());
    };
    let mut bytes = quoted.strip_suffix(b"\"")?.iter().copied();
    let mut path = Vec::with_capacity(quoted.len());
    while let Some(byte) = bytes.next() {
        path.push(match byte {
            b'\\' => match bytes.next()? {
                b'a' => 0x07,
                b'b' => 0x08,
                b't' => b'\t',
                b'n' => b'\n',
                b'v' => 0x0b,
                b'f' => 0x0c,
                b'r' => b'\r',
                digit @ b'0'..=b'3' => {
                    let mut octal = || bytes.next().filter(|byte| (b'0'..=b'7').contains(byte));
                    let (second, third) = (octal()?, octal()?);
                    ((digit - b'0') << 6) | ((second - b'0') << 3) | (third - b'0')
                }
                other @ (b'"' | b'\\') => other,
                _ => return None,
            },
            other => other,
        });
    }
    Some(path)
}
