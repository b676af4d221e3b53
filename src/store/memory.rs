//! The log in memory: the reference that every other store is compared with.

use std::fmt;
use std::ops::ControlFlow;

use hashbrown::HashMap;
use parking_lot::RwLock;
use uuid::Uuid;

use super::hash::Prehashed;
use super::{
    Commit, Committed, Durability, EventStore, Filter, KnownCommand, Page, Refused, StoreError,
};
use crate::event::Recorded;
use crate::id::CommandId;
use crate::stream::{Position, StreamId, Version};

/// A log in memory, gone with the process: for tests, and for programs that need the framework but no durability.
///
/// It keeps every event until it is dropped, about 250 bytes and the payload for each. All operations take one lock;
/// a reader holds it for at most 512 events at a time.
///
/// # Examples
/// ```
/// use tidings::{Durability, EventStore, Memory, Position};
///
/// let log = Memory::new();
/// assert_eq!(log.head()?, Position::START);
/// assert_eq!(log.durability(), Durability::Memory);
/// # Ok::<(), tidings::StoreError>(())
/// ```
pub struct Memory {
    id: Uuid,
    log: RwLock<Log>,
}

/// How many events a reader looks at before it lets a waiting commit through: 512 clones take about 20 µs.
const CHUNK: u64 = 512;

/// How many events stand in one segment. Segments never move, so that the log grows without copying what it holds.
const SEGMENT: u64 = 4096;

#[derive(Default)]
struct Log {
    segments: Vec<Vec<Entered>>,
    head: u64,
    heads: Prehashed<StreamId, Head>,
    commands: HashMap<CommandId, Place>,
    /// The commands of the events up to this position are in `commands`.
    entered: u64,
    /// Commands that appended no event.
    bare: Vec<KnownCommand>,
}

struct Entered {
    event: Recorded,
    /// The position of the event before it in its stream; zero for the first.
    previous: u64,
}

#[derive(Clone, Copy, Default)]
struct Head {
    version: u64,
    position: u64,
}

#[derive(Clone, Copy)]
enum Place {
    /// The position of the command's first event.
    Events(u64),
    /// The index in [`Log::bare`].
    Bare(usize),
}

impl Memory {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Memory {
    /// The positions of the stream's events after `after`, the last one first.
    fn positions(&self, stream: &StreamId, after: Version) -> Vec<u64> {
        let head = self.log.read().heads.get(stream).copied().unwrap_or_default();
        let mut left = after.behind(Version::new(head.version));
        let mut positions = Vec::with_capacity(left as usize);
        let mut position = head.position;
        while left > 0 {
            let log = self.log.read();
            for _ in 0..left.min(CHUNK) {
                positions.push(position);
                position = log.at(position).map_or(0, |entered| entered.previous);
            }
            left = left.saturating_sub(CHUNK);
        }
        positions
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { id: crate::id::fresh(), log: RwLock::default() }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.log.read();
        f.debug_struct("Memory")
            .field("id", &self.id)
            .field("events", &log.head)
            .field("streams", &log.heads.len())
            .finish_non_exhaustive()
    }
}

impl EventStore for Memory {
    fn commit(&self, group: &mut [Commit]) -> Result<Vec<Result<Committed, Refused>>, StoreError> {
        let mut log = self.log.write();
        Ok(group.iter_mut().map(|commit| log.commit(commit)).collect())
    }

    fn head(&self) -> Result<Position, StoreError> {
        Ok(Position::new(self.log.read().head))
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        each: &mut dyn FnMut(Recorded) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut positions = self.positions(stream, after);
        let mut chunk = Vec::with_capacity(positions.len().min(CHUNK as usize));
        while !positions.is_empty() {
            {
                let log = self.log.read();
                let rest = positions.len().saturating_sub(CHUNK as usize);
                let wanted = positions.drain(rest..).rev();
                chunk.extend(wanted.filter_map(|at| log.at(at)).map(|found| found.event.clone()));
            }
            // Without the lock: `each` is the caller's code and may come back to this log.
            for event in chunk.drain(..) {
                if each(event).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn read_log(&self, after: Position, filter: &Filter, limit: usize) -> Result<Page, StoreError> {
        let mut events = Vec::new();
        let mut through = after.as_u64();
        while events.len() < limit {
            let log = self.log.read();
            let end = log.head.min(through.saturating_add(CHUNK));
            if through >= end {
                break;
            }
            while through < end && events.len() < limit {
                through += 1;
                if let Some(found) = log.at(through)
                    && filter.admits(&found.event.header)
                {
                    events.push(found.event.clone());
                }
            }
        }
        Ok(Page { events, through: Position::new(through) })
    }

    fn find_command(&self, id: CommandId) -> Result<Option<KnownCommand>, StoreError> {
        Ok(self.log.write().known(id))
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn log_id(&self) -> Uuid {
        self.id
    }
}

impl Log {
    fn commit(&mut self, commit: &mut Commit) -> Result<Committed, Refused> {
        if let Some(id) = commit.doubtful_id()
            && let Some(known) = self.known(id)
        {
            return Err(Refused::KnownCommand(known));
        }
        for (stream, expected) in &commit.expectations {
            let actual = version_of(&self.heads, stream);
            if !expected.admits(actual) {
                return Err(Refused::Conflict {
                    stream: stream.clone(),
                    expected: *expected,
                    actual,
                });
            }
        }
        for event in &mut commit.events {
            self.head += 1;
            let head = match self.heads.get_mut(&event.header.stream) {
                Some(head) => head,
                None => self.heads.entry(event.header.stream.clone()).or_default(),
            };
            head.version += 1;
            let previous = std::mem::replace(&mut head.position, self.head);
            event.header.version = Version::new(head.version);
            event.header.position = Position::new(self.head);
            event.header.command_id = commit.id.get();
            let event = event.clone();
            match self.segments.last_mut() {
                Some(segment) if segment.len() < SEGMENT as usize => {
                    segment.push(Entered { event, previous });
                }
                _ => {
                    let mut segment = Vec::with_capacity(SEGMENT as usize);
                    segment.push(Entered { event, previous });
                    self.segments.push(segment);
                }
            }
        }
        if commit.events.is_empty()
            && let Some(id) = commit.remembered_id()
            && let Some((stream, _)) = commit.expectations.first()
        {
            self.commands.insert(id, Place::Bare(self.bare.len()));
            self.bare.push(KnownCommand {
                stream: stream.clone(),
                version: version_of(&self.heads, stream),
                events: 0,
                position: Position::new(self.head),
            });
        }
        Ok(Committed { last: Position::new(self.head) })
    }

    fn at(&self, position: u64) -> Option<&Entered> {
        let index = position.checked_sub(1)?;
        self.segments.get((index / SEGMENT) as usize)?.get((index % SEGMENT) as usize)
    }

    /// What the log knows of a command.
    fn known(&mut self, id: CommandId) -> Option<KnownCommand> {
        self.enter_commands();
        let first = match *self.commands.get(&id)? {
            Place::Bare(index) => return self.bare.get(index).cloned(),
            Place::Events(first) => first,
        };
        KnownCommand::of_events(
            (first..)
                .map_while(|position| self.at(position))
                .map(|entered| &entered.event.header)
                .take_while(|header| header.command_id == Some(id)),
        )
    }

    /// Enters the commands of the events that were appended since somebody asked last. Most ids are never asked for, and
    /// a log in memory takes a million of them a second.
    fn enter_commands(&mut self) {
        while self.entered < self.head {
            self.entered += 1;
            let Some(entered) = self.at(self.entered) else {
                return;
            };
            if let Some(id) = entered.event.header.command_id {
                self.commands.entry(id).or_insert(Place::Events(self.entered));
            }
        }
    }
}

fn version_of(heads: &Prehashed<StreamId, Head>, stream: &StreamId) -> Version {
    Version::new(heads.get(stream).map_or(0, |head| head.version))
}
