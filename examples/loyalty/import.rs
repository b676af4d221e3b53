//! The import: the lines of a file go to their members as commands, many at a time.
//!
//! The commands of one member must arrive in the order of their lines. So they are begun one after the other from here; their
//! answers are awaited afterwards, in the same order.
//!
//! # A crash
//! The log then holds, of each member, the purchases up to some line of the file. The next run sends all lines again: known
//! ones are answered from their command id, the others go on where the log ends.

use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use tidings::{App, Outcome, Receipt, SendError, Sending};

use crate::domain::{Purchase, Refusal};
use crate::input::{Entry, PurchaseReader};
use crate::progress::Progress;

/// How many commands are on their way at most: enough for a large group commit.
const IN_FLIGHT: usize = 1_024;

type Answer = Result<Receipt, SendError<Refusal>>;

/// What became of the lines of a file in one run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The lines that are neither blank nor a header.
    pub(crate) lines: u64,
    pub(crate) malformed: u64,
    pub(crate) rejected: u64,
    /// How many events were appended to the log.
    pub(crate) appended: u64,
    /// How many purchases the log knew already.
    pub(crate) already_known: u64,
}

/// A file of purchases, open.
pub(crate) struct Import {
    reader: PurchaseReader<BufReader<File>>,
    progress: Progress,
    /// The name of the file, for those who ask later where a purchase was read.
    name: String,
    /// The commands that were sent, each with the number of its line.
    in_flight: VecDeque<(u64, Sending<Purchase>)>,
    tally: Tally,
}

impl Import {
    pub(crate) fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|error| cannot_read(path, &error))?;
        if metadata.is_dir() {
            return Err(cannot_read(path, &"it is a directory"));
        }
        Ok(Self {
            reader: PurchaseReader::new(BufReader::new(file)),
            progress: Progress::new(metadata.len()),
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            in_flight: VecDeque::with_capacity(IN_FLIGHT),
            tally: Tally::default(),
        })
    }

    /// Sends every purchase of the file to its member, and waits until all are answered.
    pub(crate) async fn run(mut self, app: &App) -> Result<Tally, Box<dyn Error>> {
        while let Some(line) = self.reader.next_line()? {
            self.tally.lines += 1;
            match line.content {
                Ok(entry) => self.send(app, line.number, entry).await?,
                Err(malformed) => {
                    self.tally.malformed += 1;
                    self.progress
                        .note(format_args!("line {}: malformed: {malformed}", line.number));
                }
            }
            self.progress.set(self.reader.bytes(), self.tally.lines);
        }
        while let Some((number, sending)) = self.in_flight.pop_front() {
            self.settle(number, sending.await)?;
        }
        self.progress.finish();
        Ok(self.tally)
    }

    async fn send(&mut self, app: &App, number: u64, entry: Entry) -> Result<(), Box<dyn Error>> {
        if self.in_flight.len() == IN_FLIGHT
            && let Some((number, oldest)) = self.in_flight.pop_front()
        {
            self.settle(number, oldest.await)?;
        }
        let sending = app.send(&entry.member, entry.purchase).command_id(entry.id);
        let sending = sending.metadata("file", &self.name).metadata("line", number.to_string());
        let sending = sending.begin();
        self.in_flight.push_back((number, sending));
        Ok(())
    }

    /// Counts the answer to the command of line `number`.
    fn settle(&mut self, number: u64, answer: Answer) -> Result<(), Box<dyn Error>> {
        match answer {
            Ok(receipt) if receipt.outcome == Outcome::AlreadyKnown => {
                self.tally.already_known += 1;
            }
            Ok(receipt) => self.tally.appended += u64::from(receipt.events),
            Err(SendError::Rejected(reason)) => {
                self.tally.rejected += 1;
                self.progress.note(format_args!("line {number}: rejected: {reason}"));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

fn cannot_read(path: &Path, why: &dyn std::fmt::Display) -> Box<dyn Error> {
    format!("{} cannot be read: {why}", path.display()).into()
}
