//! What is recorded: commits by their authors, changes by their files, how far the history was read, and which pages it was
//! asked for.
//!
//! Git has decided already: what stands in a history is a fact, and no command here is rejected. So the aggregates keep next to no
//! state. What they give is order, by author and by file, and a guard: the command id of a commit is its hash, so it is
//! recorded once, however often a history is read.

use serde::{Deserialize, Serialize};
use tidings::{Command, CommandId, Event, aggregate};
use uuid::Uuid;

use crate::history::{Change, Commit};

/// The id of the one [`History`] of a log.
pub(crate) const HISTORY: &str = "git";

/// Records a commit; sent to its author.
#[derive(Command, Clone, Debug)]
pub(crate) struct RecordCommit(pub(crate) Committed);

/// An author has made a commit.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "author.committed", version = 1)]
pub(crate) struct Committed {
    /// The commit's hash.
    pub(crate) commit: String,
    pub(crate) author: String,
    /// Seconds since 1970; none if the commit names no date that can be.
    pub(crate) at: Option<i64>,
    pub(crate) subject: String,
}

/// Who makes commits; named by the author's name.
#[derive(Debug, Default)]
pub(crate) struct Author;

#[aggregate(category = "author", events = pub(crate) AuthorEvent)]
impl Author {
    #[command]
    fn record_commit(&self, RecordCommit(committed): RecordCommit) -> Committed {
        committed
    }

    #[apply]
    fn committed(&mut self, _: &Committed) {}
}

/// Records what a commit did to a file; sent to the file.
#[derive(Command, Clone, Debug)]
pub(crate) struct RecordChange(pub(crate) Changed);

/// A commit has changed a file.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "file.changed", version = 1)]
pub(crate) struct Changed {
    pub(crate) path: String,
    /// The commit's hash.
    pub(crate) commit: String,
    pub(crate) author: String,
    /// Seconds since 1970; none if the commit names no date that can be.
    pub(crate) at: Option<i64>,
    pub(crate) lines: Lines,
}

/// How many lines came and went; none of either if the file is not a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lines {
    pub(crate) added: u32,
    pub(crate) deleted: u32,
}

/// A file of the repository; named by its path.
#[derive(Debug, Default)]
pub(crate) struct File;

#[aggregate(category = "file", events = pub(crate) FileEvent)]
impl File {
    #[command]
    fn record_change(&self, RecordChange(changed): RecordChange) -> Changed {
        changed
    }

    #[apply]
    fn changed(&mut self, _: &Changed) {}
}

/// Records that a history was read.
#[derive(Command, Clone, Debug)]
pub(crate) struct RecordRead {
    pub(crate) through: Option<String>,
}

/// A history was read, and all of it is in the log.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "history.read", version = 1)]
pub(crate) struct HistoryRead {
    /// The commit with which it ends: that one and all that it builds on is in the log. None for a file, which does not say
    /// what it leaves out.
    pub(crate) through: Option<String>,
}

/// Asks for the page of what is recorded.
#[derive(Command, Clone, Debug)]
pub(crate) struct RequestPage(pub(crate) PageRequested);

/// The page was asked for: it shows everything that was recorded before.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "history.page_requested", version = 1)]
pub(crate) struct PageRequested {
    /// Where it is to be written, as an absolute path: the one who draws it may stand in another directory.
    pub(crate) file: String,
    pub(crate) title: String,
}

/// How far the history was read, and the pages that it was asked for.
#[derive(Debug, Default)]
pub(crate) struct History {
    through: Option<String>,
}

#[aggregate(category = "history", events = pub(crate) HistoryEvent)]
impl History {
    #[command]
    fn record_read(&self, RecordRead { through }: RecordRead) -> Option<HistoryRead> {
        (through.is_none() || through != self.through).then_some(HistoryRead { through })
    }

    #[command]
    fn request_page(&self, RequestPage(requested): RequestPage) -> PageRequested {
        requested
    }

    #[apply]
    fn history_read(&mut self, event: &HistoryRead) {
        self.through.clone_from(&event.through);
    }

    #[apply]
    fn page_requested(&mut self, _: &PageRequested) {}
}

impl Commit {
    pub(crate) fn command_id(&self) -> CommandId {
        CommandId::from_name(&self.hash)
    }

    pub(crate) fn command(&self) -> RecordCommit {
        RecordCommit(Committed {
            commit: self.hash.clone(),
            author: self.author.clone(),
            at: self.at,
            subject: self.subject.clone(),
        })
    }

    /// The path as git knows it makes the id, since two paths that are not UTF-8 may look the same in a [`Changed`].
    pub(crate) fn command_id_of(&self, change: &Change) -> CommandId {
        CommandId::from_name(&format!("{}/{}", self.hash, change.path.escape_ascii()))
    }

    pub(crate) fn command_of(&self, change: &Change) -> RecordChange {
        RecordChange(Changed {
            path: String::from_utf8_lossy(&change.path).into_owned(),
            commit: self.hash.clone(),
            author: self.author.clone(),
            at: self.at,
            lines: change.lines,
        })
    }
}

/// What the author or the file `name` is called in a stream id, for which some paths are too long.
pub(crate) fn stream_name(name: &str) -> String {
    /// Leaves room for the category and for what tells long names apart.
    const LONGEST: usize = 400;
    if name.len() <= LONGEST {
        return name.into();
    }
    let start = &name[..name.floor_char_boundary(LONGEST)];
    format!("{start}… {}", Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()))
}
