//! Guarantees 1, 2, 5 and 6: a process that is killed at any moment loses nothing that was acknowledged, leaves no half
//! commit, and forgets no command id.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by a panic, in its helpers too"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidings::{
    CommandId, Commit, EventStore, ExpectedVersion, Filter, Header, Position, Recorded, Refused,
    Sqlite, StreamId, Timestamp,
};

const LOG: &str = "TIDINGS_TEST_LOG";
const SEED: &str = "TIDINGS_TEST_SEED";
const STREAMS: u64 = 7;
const ROUNDS: u64 = 20;

#[test]
fn a_killed_process_loses_nothing_acknowledged_and_leaves_no_half_commit() {
    if let Some(path) = std::env::var_os(LOG) {
        commit_until_killed(&PathBuf::from(path), std::env::var(SEED).unwrap().parse().unwrap());
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bank.db");
    let mut random = Random(0x5eed);
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let wanted = random.below(60) + 1;
        acknowledged.extend(run_and_kill(&path, random.next(), wanted));
        if round % 3 == 2 {
            for suffix in ["", "-wal", "-shm"] {
                let _ =
                    std::fs::remove_file(directory.path().join(format!("bank.index.db{suffix}")));
            }
        }
        check(&path, &acknowledged);
    }
    assert!(acknowledged.len() as u64 > ROUNDS);
}

/// What the child said about one commit.
struct Acknowledged {
    id: CommandId,
    last: u64,
    events: u32,
}

/// Runs this same test as a child process, reads `wanted` acknowledgements, and kills it in the middle of whatever it
/// does then.
fn run_and_kill(path: &Path, seed: u64, wanted: u64) -> Vec<Acknowledged> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("a_killed_process_loses_nothing_acknowledged_and_leaves_no_half_commit")
        .env(LOG, path)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    while (acknowledged.len() as u64) < wanted {
        let line = lines.next().expect("the child ended by itself").unwrap();
        acknowledged.extend(parse(&line));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it wrote between the last line above and its end was acknowledged as well, except for a torn last line.
    for line in lines.map_while(Result::ok) {
        acknowledged.extend(parse(&line));
    }
    acknowledged
}

fn parse(line: &str) -> Option<Acknowledged> {
    let mut words = line.strip_prefix("ack ")?.strip_suffix(" end")?.split(' ');
    Some(Acknowledged {
        id: CommandId::from_uuid(words.next()?.parse().ok()?),
        last: words.next()?.parse().ok()?,
        events: words.next()?.parse().ok()?,
    })
}

fn commit_until_killed(path: &Path, seed: u64) -> ! {
    let mut random = Random(seed);
    // Small generations, so that the process dies within flushes of the index, too.
    let tail = if random.below(2) == 0 { 4 } else { 64 };
    let log = Sqlite::options().tail(tail).open(path).unwrap();
    let mut out = std::io::stdout();
    writeln!(out).unwrap();
    loop {
        let ids: Vec<_> = (0..=random.below(4)).map(|_| id(&mut random)).collect();
        let mut group: Vec<_> = ids.iter().map(|id| commit(&mut random).command_id(*id)).collect();
        let outcomes = log.commit(&mut group).unwrap();
        for ((commit, id), outcome) in group.iter().zip(&ids).zip(outcomes) {
            let last = outcome.unwrap().last;
            writeln!(out, "ack {id} {last} {} end", commit.events().len()).unwrap();
        }
        out.flush().unwrap();
    }
}

/// Half of the ids sort by time, half do not.
fn id(random: &mut Random) -> CommandId {
    match random.below(2) {
        0 => CommandId::fresh(),
        _ => CommandId::from_name(&CommandId::fresh().to_string()),
    }
}

/// One to three streams, up to three events each; sometimes none at all. Each event says how many its commit has, so
/// that a half commit shows.
fn commit(random: &mut Random) -> Commit {
    let parts: Vec<_> =
        (0..=random.below(3)).map(|_| (random.below(STREAMS), random.below(4))).collect();
    let total: u64 = parts.iter().map(|(_, count)| count).sum();
    parts.into_iter().fold(Commit::new(), |commit, (stream, count)| {
        let stream = StreamId::new("account", &stream.to_string()).unwrap();
        let event = |_| Recorded {
            header: Header::new(stream.clone(), "account.moved", 1, Timestamp::default()),
            payload: total.to_string().into_bytes().into(),
        };
        let events = (0..count).map(event).collect();
        commit.append(stream.clone(), ExpectedVersion::Any, events)
    })
}

#[track_caller]
fn check(path: &Path, acknowledged: &[Acknowledged]) {
    let log = Sqlite::open(path).unwrap();
    let page = log.read_log(Position::START, &Filter::All, usize::MAX).unwrap();
    let mut versions = HashMap::<StreamId, u64>::new();
    for (event, position) in page.events.iter().zip(1..) {
        assert_eq!(event.header.position.as_u64(), position);
        let version = versions.entry(event.header.stream.clone()).or_default();
        *version += 1;
        assert_eq!(event.header.version.as_u64(), *version);
    }
    for commit in page.events.chunk_by(|a, b| a.header.command_id == b.header.command_id) {
        let total = std::str::from_utf8(&commit[0].payload).unwrap();
        assert_eq!(commit.len().to_string(), total, "a half commit");
    }
    for (stream, version) in &versions {
        let mut read = 0;
        let each = &mut |_| {
            read += 1;
            std::ops::ControlFlow::Continue(())
        };
        log.read_stream(stream, tidings::Version::EMPTY, each).unwrap();
        assert_eq!(read, *version);
    }
    for expected in acknowledged {
        let known =
            log.find_command(expected.id).unwrap().expect("an acknowledged command is known");
        assert_eq!(known.position.as_u64(), expected.last);
        assert_eq!(known.events, expected.events);
    }
    let stream = StreamId::new("account", "0").unwrap();
    for expected in acknowledged.iter().rev().take(20) {
        let again = Commit::new()
            .append(stream.clone(), ExpectedVersion::Any, vec![])
            .command_id(expected.id);
        let outcome = log.commit(&mut [again]).unwrap().remove(0);
        assert!(matches!(outcome, Err(Refused::KnownCommand(_))), "{outcome:?}");
    }
    assert_eq!(log.head().unwrap(), page.through);
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
