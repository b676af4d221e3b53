//! The import: each commit goes to its author as a command, each of its changes to its file, many at a time.
//!
//! # A crash
//! The log then holds some of the commits that were on their way, and of each of these some of its changes. So the import
//! records, now and then and at the end, a commit up to which everything was answered: the next run reads on after that one. What
//! it reads twice is answered from its command id.

use std::collections::VecDeque;
use std::error::Error;
use std::ops::ControlFlow;

use tidings::{Aggregate, App, Outcome, Receipt, Sending, StreamId, Version};

use crate::domain::{
    HISTORY, History, HistoryEvent, HistoryRead, RecordChange, RecordCommit, RecordRead,
    stream_name,
};
use crate::history::Commit;
use crate::progress::Progress;
use crate::source::Reading;

/// How many commands are on their way at most: enough for a large group commit.
const IN_FLIGHT: usize = 1_024;

/// So many commits, and those that were on their way, are read once more after a crash.
const COMMITS_AT_RISK: u64 = 1_024;

/// What became of a history in one run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How many commits were read.
    pub(crate) read: u64,
    /// How many of these the log knew.
    pub(crate) already_known: u64,
    /// How many events were appended to the log.
    pub(crate) appended: u64,
}

/// What was sent, in the order of the history.
enum Sent {
    Commit(Sending<RecordCommit>),
    Change(Sending<RecordChange>),
    /// All of the history up to this commit was sent before; of a file, if it is none.
    Through(Option<String>),
}

/// The commit up to which earlier runs have read a repository, as the log says.
pub(crate) fn read_before(app: &App) -> Result<Option<String>, Box<dyn Error>> {
    let (log, stream) = (app.store(), StreamId::new(History::CATEGORY, HISTORY)?);
    let mut last = Ok(None);
    log.read_stream(&stream, Version::EMPTY, &mut |recorded| {
        match recorded.decode() {
            Ok(HistoryEvent::HistoryRead(HistoryRead { through: Some(commit) })) => {
                last = Ok(Some(commit));
            }
            Ok(_) => {}
            Err(error) => last = Err(error),
        }
        if last.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(last?)
}

/// Records what `reading` brings, and waits until all of it is answered.
pub(crate) async fn import(app: &App, mut reading: Reading) -> Result<Tally, Box<dyn Error>> {
    let progress = Progress::new(reading.total);
    let mut import = Import { app, sent: VecDeque::new(), tally: Tally::default() };
    while let Some(commit) = reading.next().await? {
        import.send(&commit).await?;
        progress.set(import.tally.read);
        // If git should have died in the middle of this commit, the next call says so before the queue gets to this place.
        if reading.tip.is_some() && import.tally.read.is_multiple_of(COMMITS_AT_RISK) {
            import.push(Sent::Through(Some(commit.hash))).await?;
        }
    }
    while let Some(oldest) = import.sent.pop_front() {
        import.settle(oldest).await?;
    }
    if reading.tip.is_some() || import.tally.appended > 0 {
        import.settle(Sent::Through(reading.tip)).await?;
    }
    progress.finish();
    Ok(import.tally)
}

struct Import<'a> {
    app: &'a App,
    sent: VecDeque<Sent>,
    tally: Tally,
}

impl Import<'_> {
    async fn send(&mut self, commit: &Commit) -> Result<(), Box<dyn Error>> {
        self.tally.read += 1;
        let author = stream_name(&commit.author);
        let sending = self.app.send(author, commit.command()).command_id(commit.command_id());
        self.push(Sent::Commit(sending.begin())).await?;
        for change in &commit.changes {
            let command = commit.command_of(change);
            let file = stream_name(&command.0.path);
            let sending = self.app.send(file, command).command_id(commit.command_id_of(change));
            self.push(Sent::Change(sending.begin())).await?;
        }
        Ok(())
    }

    /// Adds to what is on its way, and waits for the oldest if that is too much.
    async fn push(&mut self, sent: Sent) -> Result<(), Box<dyn Error>> {
        self.sent.push_back(sent);
        if self.sent.len() > IN_FLIGHT
            && let Some(oldest) = self.sent.pop_front()
        {
            self.settle(oldest).await?;
        }
        Ok(())
    }

    async fn settle(&mut self, sent: Sent) -> Result<(), Box<dyn Error>> {
        match sent {
            Sent::Commit(sending) => {
                let receipt = sending.await?;
                self.tally.already_known += u64::from(receipt.outcome == Outcome::AlreadyKnown);
                self.count(&receipt);
            }
            Sent::Change(sending) => self.count(&sending.await?),
            Sent::Through(through) => {
                self.count(&self.app.send(HISTORY, RecordRead { through }).await?);
            }
        }
        Ok(())
    }

    fn count(&mut self, receipt: &Receipt) {
        if receipt.outcome == Outcome::Applied {
            self.tally.appended += u64::from(receipt.events);
        }
    }
}
