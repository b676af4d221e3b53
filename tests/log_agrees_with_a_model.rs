//! Guarantees 3, 4, 5 and 6: whatever is committed, a store answers as the plainest possible log would, also after it was
//! closed and opened again, and after its index was deleted.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by a panic, in its helpers too"
)]

use std::ops::ControlFlow;
use std::path::PathBuf;

use proptest::prelude::*;
use tidings::{
    CommandId, Commit, Durability, EventStore, ExpectedVersion, Filter, Header, KnownCommand,
    Memory, Position, Recorded, Refused, Sqlite, StreamId, Timestamp, Version,
};

const STREAMS: u8 = 4;
const COMMANDS: u8 = 14;
const NAMES: [&str; 3] = ["thing.made", "thing.used", "thing.lost"];

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Wish>),
    Reopen,
    ReopenWithoutIndex,
}

#[derive(Debug, Clone)]
struct Wish {
    command: Option<u8>,
    /// Stream, expected version, number of events.
    parts: Vec<(u8, Option<u64>, u8)>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let part = (0..STREAMS, prop::option::weighted(0.4, 0..6_u64), 0..3_u8);
    let wish = (prop::option::of(0..COMMANDS), prop::collection::vec(part, 0..4))
        .prop_map(|(command, parts)| Wish { command, parts });
    let step = prop_oneof![
        8 => prop::collection::vec(wish, 0..5).prop_map(Step::Commit),
        1 => Just(Step::Reopen),
        1 => Just(Step::ReopenWithoutIndex),
    ];
    prop::collection::vec(step, 1..25)
}

/// A store that can be closed and opened again, if it is one that can.
trait Subject {
    fn store(&self) -> &dyn EventStore;
    fn reopen(&mut self, without_index: bool);
}

impl Subject for Memory {
    fn store(&self) -> &dyn EventStore {
        self
    }

    fn reopen(&mut self, _: bool) {}
}

struct OnDisk {
    store: Option<Sqlite>,
    directory: PathBuf,
    tail: usize,
}

impl OnDisk {
    fn open(&mut self) {
        let options = Sqlite::options().durability(Durability::Os).tail(self.tail);
        self.store = Some(options.open(self.directory.join("log.db")).unwrap());
    }
}

impl Subject for OnDisk {
    fn store(&self) -> &dyn EventStore {
        self.store.as_ref().unwrap()
    }

    fn reopen(&mut self, without_index: bool) {
        self.store = None;
        if without_index {
            std::fs::remove_file(self.directory.join("log.index.db")).unwrap();
        }
        self.open();
    }
}

/// The plainest possible log: every answer is a scan.
#[derive(Default)]
struct Model {
    events: Vec<Recorded>,
    bare: Vec<(CommandId, KnownCommand)>,
}

impl Model {
    fn version(&self, stream: &StreamId) -> Version {
        let of_stream = self.events.iter().filter(|event| event.header.stream == *stream);
        Version::new(of_stream.count() as u64)
    }

    fn find(&self, id: CommandId) -> Option<KnownCommand> {
        let events: Vec<_> = self
            .events
            .iter()
            .map(|event| &event.header)
            .filter(|header| header.command_id == Some(id))
            .collect();
        match (events.first(), events.last()) {
            (Some(first), Some(last)) => Some(KnownCommand {
                stream: first.stream.clone(),
                version: events
                    .iter()
                    .filter(|header| header.stream == first.stream)
                    .map(|header| header.version)
                    .max()
                    .unwrap(),
                events: events.len() as u32,
                position: last.position,
            }),
            _ => self.bare.iter().find(|(known, _)| *known == id).map(|(_, known)| known.clone()),
        }
    }

    fn commit(&mut self, wish: &Wish, given: &[Recorded]) -> Result<u64, Refused> {
        let id = wish.command.map(command).filter(|_| !wish.parts.is_empty());
        if let Some(known) = id.and_then(|id| self.find(id)) {
            return Err(Refused::KnownCommand(known));
        }
        for (of, expected, _) in &wish.parts {
            let (stream, expected) = (stream(*of), expectation(*expected));
            let actual = self.version(&stream);
            if !expected.admits(actual) {
                return Err(Refused::Conflict { stream, expected, actual });
            }
        }
        for event in given {
            let mut event = event.clone();
            event.header.version = self.version(&event.header.stream).next();
            event.header.position = Position::new(self.events.len() as u64 + 1);
            event.header.command_id = id;
            self.events.push(event);
        }
        if let (Some(id), [], Some((first, ..))) = (id, given, wish.parts.first()) {
            let known = KnownCommand {
                stream: stream(*first),
                version: self.version(&stream(*first)),
                events: 0,
                position: Position::new(self.events.len() as u64),
            };
            self.bare.push((id, known));
        }
        Ok(self.events.len() as u64)
    }
}

/// Even ones sort by time, in the order of their numbers; odd ones do not.
fn command(number: u8) -> CommandId {
    match number % 2 {
        0 => CommandId::from_uuid(uuid(
            0x0198_0000_0000_7000_8000_0000_0000_0000 + u128::from(number),
        )),
        _ => CommandId::from_name(&number.to_string()),
    }
}

fn uuid(bits: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(bits)
}

fn stream(number: u8) -> StreamId {
    StreamId::new("thing", &number.to_string()).unwrap()
}

fn expectation(expected: Option<u64>) -> ExpectedVersion {
    expected.map_or(ExpectedVersion::Any, |version| ExpectedVersion::Exact(Version::new(version)))
}

fn build(wish: &Wish, counter: &mut usize) -> Commit {
    let mut commit = Commit::new();
    if let Some(number) = wish.command {
        commit = commit.command_id(command(number));
    }
    for (of, expected, count) in &wish.parts {
        let mut events = Vec::new();
        for _ in 0..*count {
            *counter += 1;
            let header = Header::new(
                stream(*of),
                NAMES[*counter % 3],
                1,
                Timestamp::from_micros(*counter as u64),
            );
            events.push(Recorded { header, payload: counter.to_string().into_bytes().into() });
        }
        commit = commit.append(stream(*of), expectation(*expected), events);
    }
    commit
}

#[track_caller]
fn check(mut subject: impl Subject, steps: &[Step]) {
    let mut model = Model::default();
    let mut counter = 0;
    for step in steps {
        match step {
            Step::Reopen => subject.reopen(false),
            Step::ReopenWithoutIndex => subject.reopen(true),
            Step::Commit(wishes) => {
                let mut group: Vec<_> =
                    wishes.iter().map(|wish| build(wish, &mut counter)).collect();
                let expected: Vec<_> = wishes
                    .iter()
                    .zip(&group)
                    .map(|(wish, commit)| model.commit(wish, commit.events()))
                    .collect();
                let outcomes: Vec<_> = subject
                    .store()
                    .commit(&mut group)
                    .unwrap()
                    .into_iter()
                    .map(|outcome| outcome.map(|committed| committed.last.as_u64()))
                    .collect();
                assert_eq!(outcomes, expected);
            }
        }
        compare(subject.store(), &model);
    }
}

#[track_caller]
fn compare(store: &dyn EventStore, model: &Model) {
    let head = model.events.len() as u64;
    assert_eq!(store.head().unwrap().as_u64(), head);
    let page = store.read_log(Position::START, &Filter::All, usize::MAX).unwrap();
    assert_eq!(page.events, model.events);
    assert_eq!(page.through.as_u64(), head);
    for after in [0, head / 2] {
        let filter = Filter::Names(vec![NAMES[0], NAMES[2]]);
        let page = store.read_log(Position::new(after), &filter, 3).unwrap();
        let wanted = model.events.iter().skip(after as usize);
        let wanted: Vec<_> =
            wanted.filter(|event| filter.admits(&event.header)).take(3).cloned().collect();
        assert_eq!(page.events, wanted);
    }
    for number in 0..STREAMS {
        for after in [0, 1, 3] {
            let mut events = Vec::new();
            store
                .read_stream(&stream(number), Version::new(after), &mut |event| {
                    events.push(event);
                    ControlFlow::Continue(())
                })
                .unwrap();
            let of_stream =
                model.events.iter().filter(|event| event.header.stream == stream(number));
            assert_eq!(events, of_stream.skip(after as usize).cloned().collect::<Vec<_>>());
        }
    }
    for number in 0..COMMANDS {
        let id = command(number);
        assert_eq!(store.find_command(id).unwrap(), model.find(id), "command {number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_memory_store_answers_as_the_model(steps in steps()) {
        check(Memory::new(), &steps);
    }

    #[test]
    fn the_sqlite_store_answers_as_the_model(steps in steps(), tail in 1..8_usize) {
        let directory = tempfile::tempdir().unwrap();
        let mut subject = OnDisk { store: None, directory: directory.path().to_owned(), tail };
        subject.open();
        check(subject, &steps);
    }
}
