//! The log: what a store of events must do, whichever database keeps it.
//!
//! An [`EventStore`] keeps commits in one total order. It is synchronous and may block: the framework calls
//! [`commit`](EventStore::commit) from one thread only, and reads from threads that are made for waiting.
//!
//! # What may not happen
//! A commit is all or nothing, also when it spans several streams; its events stand next to each other. Positions are
//! 1, 2, 3 … in commit order, versions 1, 2, 3 … in each stream, both without gaps. A reader never sees a part of a
//! commit, nor an event before its predecessors.
//!
//! # Crashes
//! What [`commit`](EventStore::commit) has acknowledged survives what the store's [`Durability`] says. After a crash
//! the log is a prefix of whole commits that holds everything acknowledged.

mod decoder;
mod hash;
mod memory;
mod snapshot;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "transfer")]
pub mod transfer;

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use uuid::Uuid;

pub(crate) use self::decoder::Decoder;
pub use self::memory::Memory;
pub use self::snapshot::Snapshot;
#[cfg(all(feature = "personal", feature = "sqlite"))]
pub(crate) use self::sqlite::file as sqlite_file;
#[cfg(feature = "sqlite")]
pub use self::sqlite::{ArchiveError, Archived, Checked, Damage, Sqlite, SqliteOptions};
use crate::clock::Timestamp;
use crate::event::{Header, Recorded, SetInfo};
use crate::id::{CommandId, CorrelationId};
use crate::stream::{ExpectedVersion, Position, StreamId, Version};

/// How many events are looked at in one go by what looks at all of them.
const WINDOW: usize = 1_024;

/// A log of events.
pub trait EventStore: Send + Sync + 'static {
    /// Commits a group: its commits one after the other, in one transaction that is durable as a whole.
    ///
    /// Each commit succeeds or is refused by itself; a refused one leaves the others as they are. The outcomes stand in
    /// the order of the commits. Each commit finds the streams as those before it left them; its own expectations are
    /// all checked before its first event. The events of an accepted commit have got their version and position, and
    /// their commit's command id, when this returns; those of a refused one are unchanged.
    ///
    /// # Errors
    /// [`StoreError`] if the transaction failed: then nothing of the group is visible. After [`StoreError::Failed`] a
    /// crash may still bring it to light. Commit the same values again in any case: what is already there is refused
    /// as [`Refused::KnownCommand`].
    fn commit(&self, group: &mut [Commit]) -> Result<Vec<Result<Committed, Refused>>, StoreError>;

    /// The position of the last event; [`Position::START`] for an empty log.
    ///
    /// # Errors
    /// [`StoreError`] if the log cannot be read.
    fn head(&self) -> Result<Position, StoreError>;

    /// Hands the events of `stream` after version `after` to `each`, in order, until the stream ends or `each` breaks off.
    ///
    /// What is handed over is one state of the log. A stream that nobody wrote to is empty.
    ///
    /// # Errors
    /// [`StoreError`] if the log cannot be read, [`StoreError::Damaged`] if it has a hole.
    fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        each: &mut dyn FnMut(Recorded) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Reads on in the whole log after position `after`: at most `limit` events of the kinds that `filter` lets through.
    ///
    /// # Errors
    /// [`StoreError`] if the log cannot be read, [`StoreError::Damaged`] if it has a hole.
    fn read_log(&self, after: Position, filter: &Filter, limit: usize) -> Result<Page, StoreError>;

    /// Reads on in the whole log after position `after` for the events of one story: at most `limit` of them.
    ///
    /// Without an index every event has to be looked at, so one call looks at a part of the log alone, and may come back without
    /// any: read on after [`through`](Page::through) until that is the head.
    ///
    /// # Errors
    /// [`StoreError`] if the log cannot be read, [`StoreError::Damaged`] if it has a hole.
    fn read_story(
        &self,
        story: CorrelationId,
        after: Position,
        limit: usize,
    ) -> Result<Page, StoreError> {
        if limit == 0 {
            return Ok(Page { events: Vec::new(), through: after });
        }
        let mut page = self.read_log(after, &Filter::All, WINDOW)?;
        page.events.retain(|event| event.header.correlation_id == story);
        if page.events.len() > limit {
            page.events.truncate(limit);
            page.through = page.events.last().map_or(after, |last| last.header.position);
        }
        Ok(page)
    }

    /// Where the log stood at `time`: the position before its first event that was decided later; the head if there is none.
    ///
    /// Positions order events, clocks do not: an event of an earlier time may stand further on, and is not counted. Without an
    /// index every event up to there has to be looked at.
    ///
    /// # Errors
    /// [`StoreError`] if the log cannot be read, [`StoreError::Damaged`] if it has a hole.
    fn position_at(&self, time: Timestamp) -> Result<Position, StoreError> {
        let mut through = Position::START;
        loop {
            let page = self.read_log(through, &Filter::All, WINDOW)?;
            for event in &page.events {
                if event.header.time > time {
                    return Ok(through);
                }
                through = event.header.position;
            }
            if page.events.is_empty() {
                return Ok(through);
            }
        }
    }

    /// What is known of a command id, if a command with it was committed.
    ///
    /// # Errors
    /// [`StoreError`] if the log cannot be read.
    fn find_command(&self, id: CommandId) -> Result<Option<KnownCommand>, StoreError>;

    /// The snapshot of `stream` that was saved last; none by default, which costs time and nothing else.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read. Who asks then folds the whole stream.
    fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        let _ = stream;
        Ok(None)
    }

    /// Takes snapshots of committed states over, each in the place of an earlier one of its stream; drops them by default.
    ///
    /// They can be loaded when this returns. They need not be durable then, and may be lost in a crash. What is on the disk is
    /// never ahead of the log there.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be written; some of them may be.
    fn save_snapshots(&self, snapshots: Vec<Snapshot>) -> Result<(), StoreError> {
        drop(snapshots);
        Ok(())
    }

    /// Deletes all snapshots that were saved before this was called.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be deleted; then none is.
    fn delete_snapshots(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The commands that were committed without an event, in the order of their commits: after the first `after` of them at most
    /// `limit`.
    ///
    /// # Errors
    /// [`StoreError`] if the log cannot be read, or if the store keeps no such list, as it does unless it says otherwise.
    fn commands_without_events(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(CommandId, KnownCommand)>, StoreError> {
        let _ = (after, limit);
        Err(StoreError::Failed {
            place: "the log".to_owned(),
            source: "its store cannot list the commands that were committed without an event"
                .into(),
        })
    }

    /// What an acknowledged commit survives.
    fn durability(&self) -> Durability;

    /// The identity of this log; views keep it, to notice when they are put beside another log.
    fn log_id(&self) -> Uuid;

    /// The file in which views are kept beside this log; none if the log is not a file.
    fn views_beside(&self) -> Option<PathBuf> {
        None
    }

    /// The file in which the keys of personal data are kept beside this log; none if the log is not a file. A store around another one
    /// hands this on: without a place for keys, personal data in a log that outlives the process is refused.
    fn keys_beside(&self) -> Option<PathBuf> {
        None
    }
}

/// A store that somebody else holds, too: to do with it what an app does not, such as archiving, while the app runs.
///
/// It hands on every method, those that have a default included.
impl<S: EventStore + ?Sized> EventStore for Arc<S> {
    fn commit(&self, group: &mut [Commit]) -> Result<Vec<Result<Committed, Refused>>, StoreError> {
        S::commit(self, group)
    }

    fn head(&self) -> Result<Position, StoreError> {
        S::head(self)
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        each: &mut dyn FnMut(Recorded) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        S::read_stream(self, stream, after, each)
    }

    fn read_log(&self, after: Position, filter: &Filter, limit: usize) -> Result<Page, StoreError> {
        S::read_log(self, after, filter, limit)
    }

    fn read_story(
        &self,
        story: CorrelationId,
        after: Position,
        limit: usize,
    ) -> Result<Page, StoreError> {
        S::read_story(self, story, after, limit)
    }

    fn position_at(&self, time: Timestamp) -> Result<Position, StoreError> {
        S::position_at(self, time)
    }

    fn find_command(&self, id: CommandId) -> Result<Option<KnownCommand>, StoreError> {
        S::find_command(self, id)
    }

    fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        S::load_snapshot(self, stream)
    }

    fn save_snapshots(&self, snapshots: Vec<Snapshot>) -> Result<(), StoreError> {
        S::save_snapshots(self, snapshots)
    }

    fn delete_snapshots(&self) -> Result<(), StoreError> {
        S::delete_snapshots(self)
    }

    fn commands_without_events(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(CommandId, KnownCommand)>, StoreError> {
        S::commands_without_events(self, after, limit)
    }

    fn durability(&self) -> Durability {
        S::durability(self)
    }

    fn log_id(&self) -> Uuid {
        S::log_id(self)
    }

    fn views_beside(&self) -> Option<PathBuf> {
        S::views_beside(self)
    }

    fn keys_beside(&self) -> Option<PathBuf> {
        S::keys_beside(self)
    }
}

/// What an acknowledged commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Nothing: it is gone with the process.
    Memory,
    /// The end of the process, however it comes; not a power cut.
    Os,
    /// A power cut: it was synced to the disk.
    Fsync,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Os => "os",
            Self::Fsync => "fsync",
        })
    }
}

/// Events to append to one or several streams, all or nothing.
///
/// # Examples
/// ```
/// use tidings::{Commit, EventStore, ExpectedVersion, Header, Memory, Recorded, StreamId, Timestamp, Version};
///
/// let stream = StreamId::new("account", "acc-1")?;
/// let opened = Recorded {
///     header: Header::new(stream.clone(), "account.opened", 1, Timestamp::from_micros(0)),
///     payload: br#"{"owner":"Ada"}"#.as_slice().into(),
/// };
/// let mut group = [Commit::new().append(stream, ExpectedVersion::Exact(Version::EMPTY), vec![opened])];
/// let outcome = Memory::new().commit(&mut group)?;
/// assert_eq!(outcome[0].as_ref().map(|committed| committed.last.as_u64()), Ok(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Commit {
    pub(crate) id: CommitId,
    /// Nearly always one stream.
    pub(crate) expectations: SmallVec<[(StreamId, ExpectedVersion); 1]>,
    pub(crate) events: Vec<Recorded>,
}

/// The command that a commit is for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum CommitId {
    #[default]
    None,
    /// Made just now, so that the log cannot know it.
    Fresh(CommandId),
    /// Perhaps a repeat.
    Given(CommandId),
}

impl CommitId {
    pub(crate) fn get(self) -> Option<CommandId> {
        match self {
            Self::None => None,
            Self::Fresh(id) | Self::Given(id) => Some(id),
        }
    }
}

impl Commit {
    /// A commit of nothing; add to it with [`append`](Self::append).
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the commit a command id: it is refused if the log knows that id already, and the log will know it
    /// afterwards, also if the commit appends no event. It must name a stream, though: a commit of nothing at all is
    /// accepted and leaves nothing behind.
    ///
    /// The store sets the id in the header of each event of the commit.
    #[must_use]
    pub fn command_id(mut self, id: CommandId) -> Self {
        self.id = CommitId::Given(id);
        self
    }

    /// Appends `events` to `stream`, which must stand at `expected`. Without events it only checks.
    ///
    /// Each event's header gets the stream; the store sets version and position there.
    #[must_use]
    pub fn append(
        mut self,
        stream: StreamId,
        expected: ExpectedVersion,
        mut events: Vec<Recorded>,
    ) -> Self {
        for event in &mut events {
            if event.header.stream != stream {
                event.header.stream = stream.clone();
            }
        }
        self.expectations.push((stream, expected));
        if self.events.is_empty() {
            self.events = events;
        } else {
            self.events.extend(events);
        }
        self
    }

    /// The command id, if the log is to know it after this commit.
    pub(crate) fn remembered_id(&self) -> Option<CommandId> {
        self.id.get().filter(|_| !(self.expectations.is_empty() && self.events.is_empty()))
    }

    /// The command id, if the log may know it already.
    pub(crate) fn doubtful_id(&self) -> Option<CommandId> {
        match self.id {
            CommitId::Given(_) => self.remembered_id(),
            CommitId::Fresh(_) | CommitId::None => None,
        }
    }

    /// The events; after an accepted commit with their versions and positions.
    pub fn events(&self) -> &[Recorded] {
        &self.events
    }
}

/// Where an accepted commit stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The position of the log's head after the commit: of the commit's last event, if it has any.
    pub last: Position,
}

/// Why a commit was refused. Nothing of it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// A stream does not stand where the commit expects it. Rehydrate and decide again.
    #[error("stream {stream} is at version {actual}, expected {expected}")]
    Conflict {
        /// The stream.
        stream: StreamId,
        /// What the commit expected.
        expected: ExpectedVersion,
        /// Where the stream stands.
        actual: Version,
    },
    /// The log knows the command id already.
    #[error("the command id is already known, from stream {}", .0.stream)]
    KnownCommand(KnownCommand),
}

/// What a log knows of a command that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCommand {
    /// The stream of its first event; if it appended none, the first stream that its commit named.
    pub stream: StreamId,
    /// The version of that stream after it.
    pub version: Version,
    /// How many events it appended.
    pub events: u32,
    /// The position of its last event; of the log's head at that time if it appended none.
    pub position: Position,
}

impl KnownCommand {
    /// What is known of a command from the headers of its events; nothing if there are none.
    pub(crate) fn of_events<'a>(headers: impl IntoIterator<Item = &'a Header>) -> Option<Self> {
        let mut headers = headers.into_iter();
        let first = headers.next()?;
        let mut known = Self {
            stream: first.stream.clone(),
            version: first.version,
            events: 1,
            position: first.position,
        };
        for header in headers {
            known.events += 1;
            known.position = header.position;
            if header.stream == known.stream {
                known.version = header.version;
            }
        }
        Some(known)
    }
}

/// Which events a reader of the whole log wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Filter {
    /// All of them.
    #[default]
    All,
    /// Those with one of these stored names.
    Names(Vec<&'static str>),
    /// Those with one of some stored names, and those that nobody knows: of certain categories, with none of the names that are
    /// known there.
    NamesAndUnknown {
        /// The names that are wanted.
        names: Vec<&'static str>,
        /// The categories.
        categories: Vec<&'static str>,
        /// All names that are known there.
        known: Vec<&'static str>,
    },
}

impl Filter {
    /// `names`, and what is unknown in the categories of `sets`.
    pub(crate) fn of_sets(
        names: impl IntoIterator<Item = &'static str>,
        sets: impl IntoIterator<Item = SetInfo>,
    ) -> Self {
        let (mut categories, mut known) = (Vec::new(), Vec::new());
        for set in sets {
            categories.push(set.category);
            known.extend(set.stored_names());
        }
        let mut names: Vec<_> = names.into_iter().collect();
        for list in [&mut names, &mut categories, &mut known] {
            list.sort_unstable();
            list.dedup();
        }
        Self::NamesAndUnknown { names, categories, known }
    }

    /// Whether this event is wanted.
    pub fn admits(&self, event: &Header) -> bool {
        let name = &&*event.name;
        match self {
            Self::All => true,
            Self::Names(names) => names.contains(name),
            Self::NamesAndUnknown { names, categories, known } => {
                names.contains(name)
                    || (!known.contains(name) && categories.contains(&event.stream.category()))
            }
        }
    }
}

/// One step of reading the whole log.
#[derive(Debug, Clone)]
pub struct Page {
    /// The events, in commit order.
    pub events: Vec<Recorded>,
    /// Every event up to here was seen and is in `events` if the filter wants it. Read on after this position.
    ///
    /// The log's head when the end was reached, and never before the position that was read after.
    pub through: Position,
}

/// A log that could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk, or the room that the log may take, is full. Nothing was written; make room and try again.
    #[error("{place} has no room left: make room and send again")]
    Full {
        /// The file or database.
        place: String,
        /// What the driver says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The log may not be written to. Nothing was written.
    #[error("{place} is read-only: make it writable and send again")]
    ReadOnly {
        /// The file or database.
        place: String,
        /// What the driver says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The log is open already, in another process or in this one.
    #[error(
        "{place} is in use by another process, or opened twice in this one: close that, or choose another path"
    )]
    Locked {
        /// The file or database.
        place: String,
    },
    /// The file belongs to something else.
    #[error("{place} is not a Tidings {kind}: choose another path")]
    Foreign {
        /// The file or database.
        place: String,
        /// What was expected there.
        kind: &'static str,
    },
    /// The file is of a format that this version of Tidings does not know.
    #[error("{place} has format {found}, this version of Tidings reads format {known}: {advice}")]
    Format {
        /// The file or database.
        place: String,
        /// The format found.
        found: i64,
        /// The format that this version reads.
        known: i64,
        /// What to do.
        advice: &'static str,
    },
    /// What is stored contradicts itself.
    #[error("{place} is damaged: {what}")]
    Damaged {
        /// The file or database.
        place: String,
        /// What is wrong, with positions.
        what: String,
    },
    /// The payloads of events lie in an archive that cannot be read. Nothing else is affected; put the file there, and read again.
    #[error("{place} has moved events into the archive {archive}, which {what}")]
    Archive {
        /// The log.
        place: String,
        /// The archive's file.
        archive: String,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// The database failed otherwise; whether a commit reached the disk is unknown.
    #[error("{place} failed")]
    Failed {
        /// The file or database.
        place: String,
        /// What the driver says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
