//! Logs that an earlier program has written: their events are appended as they would stand there.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::Path;

use serde_json::Value;
use tidings::testing::{Faults, Faulty};
use tidings::{
    CommandId, Commit, Durability, EventStore, ExpectedVersion, Header, Memory, Position, Recorded,
    Sqlite, StreamId, Timestamp,
};

/// The kinds of logs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Memory,
    Sqlite,
}

pub(crate) const KINDS: [Kind; 2] = [Kind::Memory, Kind::Sqlite];

/// A log that can be opened again and again, with its views in a file in `directory`.
pub(crate) fn log(kind: Kind, directory: &Path) -> Faults {
    let views = directory.join("views.db");
    match kind {
        Kind::Memory => Faulty::with_views(Memory::new(), views).1,
        Kind::Sqlite => {
            let options = Sqlite::options().durability(Durability::Os);
            Faulty::with_views(options.open(directory.join("log.db")).unwrap(), views).1
        }
    }
}

/// An event as an earlier program has stored it.
pub(crate) struct Old<'a> {
    pub(crate) stream: &'a StreamId,
    pub(crate) name: &'a str,
    pub(crate) version: u32,
    pub(crate) payload: Value,
}

pub(crate) fn old<'a>(
    stream: &'a StreamId,
    name: &'a str,
    version: u32,
    payload: Value,
) -> Old<'a> {
    Old { stream, name, version, payload }
}

/// Appends events, each in a commit of its own.
pub(crate) fn append<'a>(log: &Faults, events: impl IntoIterator<Item = Old<'a>>) -> Position {
    events.into_iter().map(|event| append_together(log, [event])).last().unwrap()
}

/// Appends events of one stream as one command has made them.
pub(crate) fn append_together<'a>(
    log: &Faults,
    events: impl IntoIterator<Item = Old<'a>>,
) -> Position {
    commit_together(&log.restart().0, events)
}

/// The same in a store that is in use.
pub(crate) fn commit_together<'a>(
    store: &dyn EventStore,
    events: impl IntoIterator<Item = Old<'a>>,
) -> Position {
    let (id, mut target) = (CommandId::fresh(), None);
    let recorded = events.into_iter().map(|Old { stream, name, version, payload }| {
        target = Some(stream.clone());
        let time = Timestamp::from_micros(1);
        let mut header = Header::new(stream.clone(), name.to_owned(), version, time);
        header.command_id = Some(id);
        Recorded { header, payload: payload.to_string().into_bytes().into() }
    });
    let recorded: Vec<_> = recorded.collect();
    let commit =
        Commit::new().command_id(id).append(target.unwrap(), ExpectedVersion::Any, recorded);
    let outcome = store.commit(&mut [commit]).unwrap();
    outcome.into_iter().next().unwrap().unwrap().last
}

pub(crate) fn stream(category: &str, id: &str) -> StreamId {
    StreamId::new(category, id).unwrap()
}
