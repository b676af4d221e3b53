//! Writing the log: one connection, one transaction for each group of commits.
//!
//! A group is decided in memory first, against the heads and command ids that are known; only what is accepted is
//! written. What changed becomes visible to readers in one step, after the transaction is durable. If it fails, what
//! is in memory is as before it.

use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ErrorCode, params};
use smallvec::SmallVec;
use uuid::Uuid;

use super::Shared;
use super::file::{self, damaged, failed, own_id};
use super::index::Index;
use super::reader::known;
use super::snapshots;
use super::tail::{Generation, Head, Place, Secret, StreamKey, Through, is_v7};
use crate::event::Recorded;
use crate::id::CommandId;
use crate::store::hash::Prehashed;
use crate::store::{Commit, Committed, Durability, KnownCommand, Refused, Snapshot, StoreError};
use crate::stream::{Position, StreamId, Version};

const INSERT_EVENT: &str = "INSERT INTO events (position, stream, version, previous, name, schema_version, time, \
     event_id, command_id, correlation_id, causation_id, metadata, payload) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

type Outcomes = Vec<Result<Committed, Refused>>;

/// The writing end of a log.
pub(super) struct Writer {
    shared: Arc<Shared>,
    durability: Durability,
    /// None after a failure that leaves the connection, or what the log holds, in doubt.
    pub(super) log: Option<Connection>,
    index: Index,
    /// Where the log stands.
    through: Through,
    group: Group,
}

/// What the group that is being committed changes, for its own later commits to see.
#[derive(Default)]
struct Group {
    through: Through,
    heads: Prehashed<StreamKey, GroupHead>,
    commands: HashMap<CommandId, (Place, Source)>,
    /// The commands without events, in the order of their numbers.
    bare: Vec<(CommandId, KnownCommand)>,
    /// For each accepted event the position of the one before it in its stream.
    previous: Vec<u64>,
    /// How often the index had been flushed when the view of it was taken in which this group looks things up.
    pinned: Option<u64>,
}

#[derive(Clone, Copy)]
struct GroupHead {
    head: Head,
    is_changed: bool,
}

/// Where in the group a command is.
#[derive(Clone, Copy)]
enum Source {
    Commit(usize),
    Bare(usize),
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        durability: Durability,
        log: Connection,
        through: Through,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            index: Index::open(&shared.files.index)?,
            shared,
            durability,
            log: Some(log),
            through,
            group: Group::default(),
        })
    }

    pub(super) fn commit(&mut self, commits: &mut [Commit]) -> Result<Outcomes, StoreError> {
        self.recover()?;
        self.shared.make_room()?;
        self.group.begin(self.through);
        let outcomes = self.decide_all(commits);
        self.unpin()?;
        let outcomes = outcomes?;
        if self.group.is_empty() {
            return Ok(outcomes);
        }
        self.write(commits, &outcomes)?;
        self.publish();
        Ok(outcomes)
    }

    /// Opens the log anew after a failure, and takes up what of the failed group reached it nevertheless.
    fn recover(&mut self) -> Result<(), StoreError> {
        if self.log.is_some() {
            return Ok(());
        }
        let path = &self.shared.files.log;
        let (log, identity) = file::open_log(path, self.durability, None)?;
        let is_same = identity.log_id == self.shared.log_id
            && super::holds(&log, &self.through).map_err(|error| failed(path, error))?;
        if !is_same {
            return Err(damaged(path, "another file has taken its place".to_owned()));
        }
        // A sync that failed may have left frames in the write-ahead log that are not on the disk and never will be, and what is
        // written behind them would be lost with them. So nothing is: it begins anew.
        file::empty_wal(&log).map_err(|error| failed(path, error))?;
        let mut late = Generation { through: self.through, ..Generation::default() };
        catch_up(&log, &self.shared, &mut late, &mut |_| Ok(()))?;
        let mut tail = self.shared.tail.write();
        for (key, head) in late.heads {
            tail.active.heads.insert(key, head);
        }
        for (id, place) in late.commands {
            tail.active.insert_command(id, place);
        }
        tail.active.through = late.through;
        self.through = late.through;
        self.shared.set_head(late.through.position);
        drop(tail);
        self.log = Some(log);
        Ok(())
    }

    fn decide_all(&mut self, commits: &mut [Commit]) -> Result<Outcomes, StoreError> {
        let mut outcomes = Vec::with_capacity(commits.len());
        for at in 0..commits.len() {
            let (earlier, rest) = commits.split_at_mut(at);
            if let Some(commit) = rest.first_mut() {
                outcomes.push(self.decide(commit, earlier)?);
            }
        }
        Ok(outcomes)
    }

    fn decide(
        &mut self,
        commit: &mut Commit,
        earlier: &[Commit],
    ) -> Result<Result<Committed, Refused>, StoreError> {
        let id = commit.remembered_id();
        if let Some(id) = commit.doubtful_id()
            && let Some(known) = self.known_command(id, earlier)?
        {
            return Ok(Err(Refused::KnownCommand(known)));
        }
        let mut named = SmallVec::<[StreamKey; 1]>::new();
        for (stream, expected) in &commit.expectations {
            let key = self.shared.secret.key(stream);
            let actual = Version::new(self.head(key)?.version);
            if !expected.admits(actual) {
                return Ok(Err(Refused::Conflict {
                    stream: stream.clone(),
                    expected: *expected,
                    actual,
                }));
            }
            named.push(key);
        }
        // Nothing has been changed up to here, and nothing below can fail.
        let first = self.group.through.position + 1;
        let Commit { id: command, expectations, events } = &mut *commit;
        for event in events {
            // Each event is of a stream that the commit names, and nearly every commit names only one.
            let mut streams = expectations.iter().zip(&named);
            let found = streams.find(|((stream, _), _)| *stream == event.header.stream);
            let Some((_, key)) = found else { continue };
            event.header.command_id = command.get();
            self.group.append(*key, event);
        }
        if let Some(id) = id {
            let entry = match commit.expectations.first() {
                Some((stream, _)) if commit.events.is_empty() => {
                    let version = self.head(self.shared.secret.key(stream))?.version;
                    self.group.bare_command(id, stream, version)
                }
                _ => (Place::Events(first), Source::Commit(earlier.len())),
            };
            self.group.commands.insert(id, entry);
        }
        Ok(Ok(Committed { last: Position::new(self.group.through.position) }))
    }

    /// What this group or the log knows of a command.
    pub(super) fn known_command(
        &mut self,
        id: CommandId,
        earlier: &[Commit],
    ) -> Result<Option<KnownCommand>, StoreError> {
        if let Some((_, source)) = self.group.commands.get(&id) {
            return Ok(match *source {
                Source::Bare(index) => self.group.bare.get(index).map(|(_, known)| known.clone()),
                Source::Commit(index) => earlier.get(index).and_then(|commit| {
                    KnownCommand::of_events(commit.events.iter().map(|event| &event.header))
                }),
            });
        }
        let (place, newest, flushes) = {
            let tail = self.shared.tail.read();
            (tail.command(&id), tail.indexed, tail.flushes)
        };
        let place = match place {
            Some(place) => Some(place),
            // Ids that sort by time need no look-up when they are newer than all that the index holds.
            None if is_v7(&id) && *id.as_uuid() > newest => None,
            None => {
                self.pin(flushes)?;
                self.index.command(&id).map_err(|error| failed(&self.shared.files.index, error))?
            }
        };
        let (Some(place), Some(log)) = (place, &self.log) else {
            return Ok(None);
        };
        known(log, &self.shared.files.log, id, place).map(Some)
    }

    /// Where a stream stands, with what the group has appended to it.
    fn head(&mut self, key: StreamKey) -> Result<Head, StoreError> {
        if let Some(known) = self.group.heads.get(&key) {
            return Ok(known.head);
        }
        let (head, flushes) = {
            let tail = self.shared.tail.read();
            (tail.head(&key), tail.flushes)
        };
        let head = match head {
            Some(head) => head,
            None => {
                self.pin(flushes)?;
                self.index
                    .head(&key)
                    .map_err(|error| failed(&self.shared.files.index, error))?
                    .unwrap_or_default()
            }
        };
        self.group.heads.insert(key, GroupHead { head, is_changed: false });
        Ok(head)
    }

    /// Takes one view of the index for the whole group, and a new one if the tail let go of something since.
    fn pin(&mut self, flushes: u64) -> Result<(), StoreError> {
        if self.group.pinned != Some(flushes) {
            self.index.pin().map_err(|error| failed(&self.shared.files.index, error))?;
            self.group.pinned = Some(flushes);
        }
        Ok(())
    }

    fn unpin(&mut self) -> Result<(), StoreError> {
        self.group.pinned = None;
        self.index.unpin().map_err(|error| failed(&self.shared.files.index, error))
    }

    fn write(&mut self, commits: &[Commit], outcomes: &Outcomes) -> Result<(), StoreError> {
        let Some(log) = &self.log else {
            return Ok(());
        };
        let mut snapshots = self.shared.snapshots.all();
        loop {
            let write = |log: &_| self.group.write(log, commits, outcomes, self.through.bare);
            let written = transaction(log, self.shared.secret, &snapshots, write);
            let Err(Failure { error, of_snapshots }) = written else {
                self.shared.snapshots.remove(&snapshots);
                return Ok(());
            };
            let is_clean = log.is_autocommit() || log.execute_batch("ROLLBACK").is_ok();
            let error = failed(&self.shared.files.log, error);
            let is_harmless =
                matches!(error, StoreError::Full { .. } | StoreError::ReadOnly { .. });
            if is_clean && !snapshots.is_empty() && (of_snapshots || is_harmless) {
                // It may go without them.
                warn_dropped(&error, snapshots.len());
                self.shared.snapshots.remove(&std::mem::take(&mut snapshots));
                continue;
            }
            if !(is_clean && is_harmless) {
                self.log = None;
            }
            return Err(error);
        }
    }

    /// Writes the snapshots that wait in a transaction of their own.
    ///
    /// # Errors
    /// Why they cannot be written; then they are dropped.
    pub(super) fn write_snapshots(&mut self) -> Result<(), StoreError> {
        self.recover()?;
        let snapshots = self.shared.snapshots.all();
        if snapshots.is_empty() {
            return Ok(());
        }
        let secret = self.shared.secret;
        let written = self.alone(|log| snapshots::insert(log, secret, &snapshots));
        self.shared.snapshots.remove(&snapshots);
        written
    }

    pub(super) fn delete_snapshots(&mut self) -> Result<(), StoreError> {
        self.recover()?;
        let snapshots = self.shared.snapshots.all();
        self.alone(snapshots::delete)?;
        self.shared.snapshots.remove(&snapshots);
        Ok(())
    }

    /// One transaction for snapshots alone.
    fn alone(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        let Some(log) = &self.log else {
            return Ok(());
        };
        match transaction(log, self.shared.secret, &[], work) {
            Ok(()) => Ok(()),
            Err(Failure { error, .. }) => Err(self.gave_up(error)),
        }
    }

    /// Does `work` in a transaction of its own, between two groups.
    pub(super) fn maintain<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.between_groups(|log| {
            log.prepare_cached("BEGIN IMMEDIATE")?.raw_execute()?;
            let done = work(log)?;
            log.prepare_cached("COMMIT")?.raw_execute()?;
            Ok(done)
        })
    }

    /// The same, and synced in every mode, with all that was committed before.
    pub(super) fn maintain_synced<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.between_groups(|log| log.pragma_update(None, "synchronous", "FULL"))?;
        let done = self.maintain(work);
        let usual = file::synchronous(self.durability);
        self.between_groups(|log| log.pragma_update(None, "synchronous", usual))?;
        done
    }

    /// Writes the file anew, without the room that is free in it.
    pub(super) fn vacuum(&mut self) -> Result<(), StoreError> {
        self.between_groups(|log| {
            log.execute_batch("VACUUM")?;
            // Emptied and not only copied: all of the log went through it, and it would keep that room until the log is closed.
            match file::empty_wal(log) {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(()),
                done => done,
            }
        })
    }

    fn between_groups<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.recover()?;
        let Some(log) = &self.log else {
            return Err(damaged(&self.shared.files.log, "it is not open".to_owned()));
        };
        work(log).map_err(|error| self.gave_up(error))
    }

    /// Undoes what was begun, and gives the connection up if that leaves it, or what the log holds, in doubt.
    fn gave_up(&mut self, error: rusqlite::Error) -> StoreError {
        let is_clean = self
            .log
            .as_ref()
            .is_some_and(|log| log.is_autocommit() || log.execute_batch("ROLLBACK").is_ok());
        let error = failed(&self.shared.files.log, error);
        let is_harmless = matches!(error, StoreError::Full { .. } | StoreError::ReadOnly { .. });
        if !(is_clean && is_harmless) {
            self.log = None;
        }
        error
    }

    /// Shows the group to readers: all of it in one step.
    fn publish(&mut self) {
        self.through = self.group.through;
        let mut tail = self.shared.tail.write();
        for (key, known) in self.group.heads.drain() {
            if known.is_changed {
                tail.active.heads.insert(key, known.head);
            }
        }
        for (id, (place, _)) in self.group.commands.drain() {
            tail.active.insert_command(id, place);
        }
        tail.active.through = self.through;
        self.shared.set_head(self.through.position);
        if tail.is_due() {
            tail.freeze();
            drop(tail);
            self.shared.flush_soon();
        }
    }
}

impl Group {
    fn begin(&mut self, through: Through) {
        self.through = through;
        self.heads.clear();
        self.commands.clear();
        self.bare.clear();
        self.previous.clear();
    }

    fn is_empty(&self) -> bool {
        self.previous.is_empty() && self.bare.is_empty()
    }

    fn append(&mut self, key: StreamKey, event: &mut Recorded) {
        self.through.position += 1;
        self.through.event = event.header.event_id.into();
        let known =
            self.heads.entry(key).or_insert(GroupHead { head: Head::default(), is_changed: true });
        known.is_changed = true;
        known.head.version += 1;
        self.previous.push(known.head.position);
        known.head.position = self.through.position;
        event.header.version = Version::new(known.head.version);
        event.header.position = Position::new(self.through.position);
    }

    fn bare_command(&mut self, id: CommandId, stream: &StreamId, version: u64) -> (Place, Source) {
        self.through.bare += 1;
        self.through.bare_id = id.into();
        let known = KnownCommand {
            stream: stream.clone(),
            version: Version::new(version),
            events: 0,
            position: Position::new(self.through.position),
        };
        self.bare.push((id, known));
        (Place::Bare(self.through.bare), Source::Bare(self.bare.len() - 1))
    }

    fn write(
        &self,
        log: &Connection,
        commits: &[Commit],
        outcomes: &Outcomes,
        bare: u64,
    ) -> rusqlite::Result<()> {
        {
            let mut insert = log.prepare_cached(INSERT_EVENT)?;
            let accepted = commits
                .iter()
                .zip(outcomes)
                .filter(|(_, outcome)| outcome.is_ok())
                .flat_map(|(commit, _)| &commit.events);
            for (event, previous) in accepted.zip(&self.previous) {
                insert_event(&mut insert, event, *previous)?;
            }
        }
        if !self.bare.is_empty() {
            let mut insert = log.prepare_cached("INSERT INTO commands VALUES (?, ?, ?, ?, ?)")?;
            for ((id, known), number) in self.bare.iter().zip(bare + 1..) {
                insert.execute(params![
                    number as i64,
                    id.as_uuid().as_bytes(),
                    known.stream.as_str(),
                    known.version.as_u64() as i64,
                    known.position.as_u64() as i64,
                ])?;
            }
        }
        Ok(())
    }
}

/// Why a transaction was not written.
struct Failure {
    error: rusqlite::Error,
    /// It was a snapshot that could not be written.
    of_snapshots: bool,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self { error, of_snapshots: false }
    }
}

/// Does `work` and writes `snapshots` in one transaction; leaves it open if something fails.
fn transaction(
    log: &Connection,
    secret: Secret,
    snapshots: &[Snapshot],
    work: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<(), Failure> {
    log.prepare_cached("BEGIN IMMEDIATE")?.raw_execute()?;
    work(log)?;
    if !snapshots.is_empty() {
        snapshots::insert(log, secret, snapshots)
            .map_err(|error| Failure { error, of_snapshots: true })?;
    }
    log.prepare_cached("COMMIT")?.raw_execute()?;
    Ok(())
}

fn warn_dropped(error: &StoreError, snapshots: usize) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        snapshots,
        "snapshots cannot be written and are dropped"
    );
}

fn insert_event(
    insert: &mut CachedStatement<'_>,
    event: &Recorded,
    previous: u64,
) -> rusqlite::Result<()> {
    let header = &event.header;
    let command_id = header.command_id.as_ref().map(|id| id.as_uuid().as_bytes());
    insert.raw_bind_parameter(1, header.position.as_u64() as i64)?;
    insert.raw_bind_parameter(2, header.stream.as_str())?;
    insert.raw_bind_parameter(3, header.version.as_u64() as i64)?;
    insert.raw_bind_parameter(4, previous as i64)?;
    insert.raw_bind_parameter(5, &*header.name)?;
    insert.raw_bind_parameter(6, header.schema_version)?;
    insert.raw_bind_parameter(7, header.time.as_micros() as i64)?;
    insert.raw_bind_parameter(8, header.event_id.as_uuid().as_bytes())?;
    insert.raw_bind_parameter(9, command_id)?;
    let own = own_id(header.event_id, header.command_id);
    let not_own = |id: Uuid| (id != own).then(|| id.into_bytes());
    insert.raw_bind_parameter(10, not_own(header.correlation_id.into()))?;
    insert.raw_bind_parameter(11, not_own(header.causation_id.into()))?;
    let metadata = match header.metadata.is_empty() {
        true => None,
        false => Some(
            serde_json::to_string(&header.metadata)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?,
        ),
    };
    insert.raw_bind_parameter(12, metadata)?;
    // As text, which JSON is, so that the payload can be read with any tool.
    match file::tag(header.codec) {
        None => {
            let payload = ToSqlOutput::Borrowed(ValueRef::Text(&event.payload));
            insert.raw_bind_parameter(13, payload)?;
        }
        Some(tag) => insert.raw_bind_parameter(13, [&[tag], &*event.payload].concat())?,
    }
    insert.raw_execute().map(drop)
}

/// Reads the heads and command ids after `generation.through` from the log into `generation`.
///
/// Whenever it holds enough it is given to `full`, which may empty it; never between two events of one command, since
/// the first of them is the command's place.
pub(super) fn catch_up(
    log: &Connection,
    shared: &Shared,
    generation: &mut Generation,
    full: &mut dyn FnMut(&mut Generation) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let path = &shared.files.log;
    let refused = |error| failed(path, error);
    let mut select = log
        .prepare(
            "SELECT position, stream, version, event_id, command_id FROM events WHERE position > ? \
             ORDER BY position",
        )
        .map_err(refused)?;
    let mut rows = select.query([generation.through.position as i64]).map_err(refused)?;
    let mut last_command: Option<CommandId> = None;
    while let Some(row) = rows.next().map_err(refused)? {
        let read = || -> rusqlite::Result<_> {
            Ok((
                row.get::<_, i64>(0)? as u64,
                shared.secret.key_of(row.get_ref(1)?.as_str()?),
                row.get::<_, i64>(2)? as u64,
                Uuid::from_bytes(row.get(3)?),
                row.get::<_, Option<[u8; 16]>>(4)?
                    .map(|id| CommandId::from_uuid(Uuid::from_bytes(id))),
            ))
        };
        let expected = generation.through.position + 1;
        let (position, key, version, event, command) = read()
            .map_err(|error| damaged(path, format!("the event at position {expected}: {error}")))?;
        if position != expected {
            return Err(damaged(path, format!("the event at position {expected} is missing")));
        }
        let begins_command = command != last_command;
        if (begins_command || command.is_none()) && generation.len() >= shared.generation {
            full(generation)?;
        }
        generation.heads.insert(key, Head { version, position });
        if let Some(id) = command
            && begins_command
        {
            generation.insert_command(id, Place::Events(position));
        }
        last_command = command;
        generation.through.position = position;
        generation.through.event = event;
    }
    drop(rows);
    let mut select = log
        .prepare("SELECT number, id FROM commands WHERE number > ? ORDER BY number")
        .map_err(refused)?;
    let mut rows = select.query([generation.through.bare as i64]).map_err(refused)?;
    while let Some(row) = rows.next().map_err(refused)? {
        if generation.len() >= shared.generation {
            full(generation)?;
        }
        let number = row.get::<_, i64>(0).map_err(refused)? as u64;
        let id = CommandId::from_uuid(Uuid::from_bytes(row.get(1).map_err(refused)?));
        generation.insert_command(id, Place::Bare(number));
        generation.through.bare = number;
        generation.through.bare_id = id.into();
    }
    Ok(())
}
