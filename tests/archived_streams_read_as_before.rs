//! Streams that were archived read as before: every read of the log equals that of a twin that nobody archived, before, during and
//! after, wherever a crash comes between; and an archive that is missing is named.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "macros", feature = "sqlite", feature = "testing"))]

#[path = "support/bank.rs"]
mod bank;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bank::{Account, Deposit, Deposited};
use proptest::prelude::*;
use tidings::sqlite::rusqlite::Connection;
use tidings::{
    App, ArchiveError, Codec, CommandId, Commit, CorrelationId, Durability, EventStore,
    ExpectedVersion, Filter, Header, Memory, Position, Recorded, Sqlite, StoreError, StreamId,
    Timestamp, Version, projection,
};

const STREAMS: u64 = 4;
const NAMES: [&str; 3] = ["thing.made", "thing.used", "thing.lost"];

#[derive(Debug, Clone)]
enum Step {
    Commit(u64, u64),
    Archive(BTreeSet<u64>, u8),
    Restore(u8),
    Reopen,
    Vacuum,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..STREAMS, 1..40_u64).prop_map(|(stream, count)| Step::Commit(stream, count)),
        4 => (prop::collection::btree_set(0..STREAMS, 1..3), 0..3_u8)
            .prop_map(|(streams, file)| Step::Archive(streams, file)),
        3 => (0..3_u8).prop_map(Step::Restore),
        1 => Just(Step::Reopen),
        1 => Just(Step::Vacuum),
    ];
    prop::collection::vec(step, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn every_read_equals_that_of_a_twin_that_was_never_archived(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.db");
        let open = || Sqlite::options().durability(Durability::Os).tail(5).open(&path).unwrap();
        let twin = Memory::new();
        let mut log = open();
        let mut number = 0;
        for step in steps {
            match step {
                Step::Commit(of, count) => commit(&[&log, &twin], of, count, &mut number),
                Step::Archive(of, file) => {
                    let streams: Vec<_> = of.iter().map(|of| stream(*of)).collect();
                    match log.archive(&streams, format!("archive-{file}.db")) {
                        Ok(archived) => prop_assert!(archived.events > 0),
                        Err(
                            ArchiveError::Nothing
                            | ArchiveError::Exists { .. }
                            | ArchiveError::NoSuchStream { .. },
                        ) => {}
                        Err(error) => prop_assert!(false, "{error}"),
                    }
                }
                Step::Restore(file) => {
                    let file = directory.path().join(format!("archive-{file}.db"));
                    let is_known = log.archives().contains(&file);
                    match log.restore(&file) {
                        Ok(_) => prop_assert!(is_known && !file.exists()),
                        Err(error) => {
                            let is_unknown = matches!(error, ArchiveError::Unknown { .. });
                            prop_assert!(is_unknown && !is_known, "{error}");
                        }
                    }
                }
                Step::Reopen => {
                    drop(log);
                    log = open();
                }
                Step::Vacuum => log.vacuum().unwrap(),
            }
            same_reads(&log, &twin);
        }
        for file in log.archives() {
            log.restore(file).unwrap();
        }
        same_reads(&log, &twin);
        drop(log);
        let checked = Sqlite::check(&path, |_, _| {}).unwrap();
        prop_assert!(checked.is_sound() && checked.archived == 0, "{checked:?}");
    }
}

fn stream(of: u64) -> StreamId {
    StreamId::new("thing", &of.to_string()).unwrap()
}

/// Commits the same events to all logs: of all names and formats, small and large, with metadata and without.
fn commit(logs: &[&dyn EventStore], of: u64, count: u64, number: &mut u64) {
    let id = CommandId::from_name(&number.to_string());
    let events: Vec<_> = (0..count)
        .map(|_| {
            *number += 1;
            let name = NAMES[(*number % 3) as usize];
            let mut header = Header::new(stream(of), name, 1, Timestamp::from_micros(*number));
            // One story for a stream or, in the first one, for a command.
            let story = if of == 0 { id.into() } else { uuid::Uuid::from_u128(of.into()) };
            header.correlation_id = CorrelationId::from_uuid(story);
            let mut payload = format!(r#"{{"number":{number}}}"#).into_bytes();
            if *number % 4 == 1 {
                header.codec = Codec::Cbor;
                payload = vec![0x18, 7];
            }
            if *number % 5 == 1 {
                header.metadata.insert("tenant", number.to_string());
            }
            if *number % 7 == 1 && header.codec == Codec::Json {
                payload = format!(r#""{}""#, "x".repeat(9_000)).into_bytes();
            }
            Recorded { header, payload: payload.into() }
        })
        .collect();
    for log in logs {
        let commit = Commit::new().append(stream(of), ExpectedVersion::Any, events.clone());
        log.commit(&mut [commit.command_id(id)]).unwrap()[0].clone().unwrap();
    }
}

/// Every question that can be asked of a log.
#[track_caller]
fn same_reads(log: &dyn EventStore, twin: &dyn EventStore) {
    let head = twin.head().unwrap();
    assert_eq!(log.head().unwrap(), head);
    let unknown = Filter::NamesAndUnknown {
        names: vec![NAMES[0]],
        categories: vec!["thing"],
        known: vec![NAMES[0], NAMES[1]],
    };
    let names = [vec![NAMES[0]], vec![NAMES[1], NAMES[2]]].map(Filter::Names);
    for filter in names.into_iter().chain([Filter::All, unknown]) {
        for limit in [7, 10_000] {
            let mut after = Position::START;
            while after < head {
                let (found, expected) =
                    [log, twin].map(|log| log.read_log(after, &filter, limit).unwrap()).into();
                assert_eq!((&found.events, found.through), (&expected.events, expected.through));
                after = expected.through;
            }
        }
    }
    for of in 0..STREAMS {
        for after in [0, 1, 30] {
            let (found, expected): (Vec<_>, Vec<_>) =
                [log, twin].map(|log| read(log, of, after).unwrap()).into();
            assert_eq!(found, expected);
            for event in expected.iter().step_by(17) {
                let id = event.command_id.unwrap();
                assert_eq!(log.find_command(id).unwrap(), twin.find_command(id).unwrap());
            }
            if let Some(last) = expected.last().filter(|_| after == 0) {
                let time = last.time;
                assert_eq!(log.position_at(time).unwrap(), twin.position_at(time).unwrap());
                let of = last.correlation_id;
                assert_eq!(story(log, of, head), story(twin, of, head));
            }
        }
    }
}

fn read(log: &dyn EventStore, of: u64, after: u64) -> Result<Vec<Recorded>, StoreError> {
    let mut events = Vec::new();
    log.read_stream(&stream(of), Version::new(after), &mut |event| {
        events.push(event);
        ControlFlow::Continue(())
    })?;
    Ok(events)
}

fn story(log: &dyn EventStore, story: CorrelationId, head: Position) -> Vec<Recorded> {
    let (mut events, mut after) = (Vec::new(), Position::START);
    while after < head {
        let page = log.read_story(story, after, 7).unwrap();
        events.extend(page.events);
        after = page.through;
    }
    events
}

#[test]
fn readers_notice_nothing_while_streams_are_archived_and_restored() {
    let directory = tempfile::tempdir().unwrap();
    let log =
        Sqlite::options().durability(Durability::Os).open(directory.path().join("log.db")).unwrap();
    let twin = Memory::new();
    let mut number = 0;
    for of in 0..STREAMS {
        commit(&[&log, &twin], of, 400, &mut number);
    }
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for of in 0..3 {
            let (log, twin, is_done) = (&log, &twin, &is_done);
            scope.spawn(move || {
                let expected = read(twin, of, 0).unwrap();
                let all = twin.read_log(Position::START, &Filter::All, 1_600).unwrap().events;
                while !is_done.load(Ordering::Acquire) {
                    assert_eq!(read(log, of, 0).unwrap(), expected);
                    let page = log.read_log(Position::START, &Filter::All, 1_600).unwrap();
                    assert!(page.events == all);
                    let event = &expected[7];
                    let of_story = story(log, event.correlation_id, Position::new(1_600));
                    assert_eq!(of_story, expected);
                    let before = event.position.as_u64();
                    assert_eq!(log.position_at(event.time).unwrap().as_u64(), before);
                    let known = log.find_command(event.command_id.unwrap()).unwrap();
                    assert_eq!(known.unwrap().events, 400);
                }
            });
        }
        let writer = scope.spawn(|| {
            // Of a stream that nobody archives.
            while !is_done.load(Ordering::Acquire) {
                commit(&[&log, &twin], STREAMS - 1, 3, &mut number);
            }
        });
        for _ in 0..6 {
            log.archive(&[stream(0), stream(1)], "a.db").unwrap();
            log.archive(&[stream(2)], "b.db").unwrap();
            log.vacuum().unwrap();
            log.restore("b.db").unwrap();
            log.restore("a.db").unwrap();
        }
        is_done.store(true, Ordering::Release);
        writer.join().unwrap();
    });
    same_reads(&log, &twin);
}

/// Folds what was deposited.
#[derive(Default)]
struct Sums(i64);

#[projection(name = "sums", version = 1)]
impl Sums {
    #[on]
    fn deposited(&mut self, event: &Deposited) {
        self.0 += event.cents;
    }
}

#[tokio::test]
async fn aggregates_and_views_are_built_from_archives_and_streams_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let start = async || {
        let log = Arc::new(Sqlite::open(&path).unwrap());
        let app = App::builder()
            .store(Arc::clone(&log))
            .aggregate::<Account>()
            .projection(Sums::default());
        (app.start().await.unwrap(), log)
    };
    let streams = ["a", "b"].map(|id| StreamId::new("account", id).unwrap());
    let (app, log) = start().await;
    for cents in 1..=10 {
        for id in ["a", "b", "c"] {
            app.send(id, Deposit { cents }).await.unwrap();
        }
    }
    // While the app runs.
    assert_eq!(log.archive(&streams, "closed.db").unwrap().events, 20);
    app.send("a", Deposit { cents: 11 }).await.unwrap();
    app.shutdown().await.unwrap();
    drop((app, log));
    let (app, log) = start().await;
    assert_eq!(app.view::<Sums>().at_least(app.head()).await.unwrap().0, 176);
    // An archived stream takes new events, decided on all of the old ones.
    let receipt = app.send("a", bank::Withdraw { cents: 66 }).await.unwrap();
    assert_eq!(receipt.position, Position::new(32));
    assert!(app.send("a", bank::Withdraw { cents: 1 }).await.is_err());
    log.restore("closed.db").unwrap();
    assert!(app.send("b", bank::Withdraw { cents: 56 }).await.is_err());
    app.send("b", bank::Withdraw { cents: 55 }).await.unwrap();
    app.shutdown().await.unwrap();
}

#[test]
fn an_archive_that_is_missing_or_another_is_named_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let (log, twin, _) = archived(directory.path());
    let [place, away] = ["old.db", "away"].map(|name| directory.path().join(name));
    std::fs::rename(&place, &away).unwrap();
    is_archive_error(read(&log, 0, 0), "old.db, which is missing: put the file back there");
    is_archive_error(log.read_log(Position::START, &Filter::All, 9), "is missing");
    // Whatever does not need it is read.
    assert_eq!(read(&log, 1, 0).unwrap(), read(&twin, 1, 0).unwrap());
    assert!(log.restore("old.db").is_err());
    assert!(log.archive(&[stream(0)], "old.db").is_err());
    assert!(!place.exists(), "nothing was written in its place");

    // The archive of another log, and a file that is none.
    let other = tempfile::tempdir().unwrap();
    drop(archived(other.path()));
    std::fs::copy(other.path().join("old.db"), &place).unwrap();
    is_archive_error(read(&log, 0, 0), "another archive, or of another log");
    std::fs::write(&place, "nothing of the kind").unwrap();
    is_archive_error(read(&log, 0, 0), "another archive, or of another log");
    assert!(log.restore("old.db").is_err());
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "nothing of the kind");

    // Back in its place, all is well.
    std::fs::rename(&away, &place).unwrap();
    same_reads(&log, &twin);
    log.restore("old.db").unwrap();
    same_reads(&log, &twin);
}

#[track_caller]
fn is_archive_error<T: std::fmt::Debug>(result: Result<T, StoreError>, words: &str) {
    match result {
        Err(error @ StoreError::Archive { .. }) => {
            assert!(error.to_string().contains(words), "{error}");
        }
        other => unreachable!("{other:?}"),
    }
}

/// A log whose first stream lies in `old.db`, and its twin.
fn archived(directory: &Path) -> (Sqlite, Memory, u64) {
    let log = Sqlite::open(directory.join("log.db")).unwrap();
    let twin = Memory::new();
    let mut number = 0;
    for of in [0, 1, 0] {
        commit(&[&log, &twin], of, 5, &mut number);
    }
    log.archive(&[stream(0)], "old.db").unwrap();
    (log, twin, number)
}

#[test]
fn what_cannot_be_archived_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (log, twin, mut number) = archived(directory.path());
    let nobody = stream(77);
    for streams in [vec![nobody.clone()], vec![stream(1), nobody]] {
        let refused = log.archive(&streams, "new.db");
        assert!(matches!(refused, Err(ArchiveError::NoSuchStream { .. })), "{refused:?}");
    }
    let refused = log.archive(&[], "new.db");
    assert!(matches!(refused, Err(ArchiveError::Nothing)), "{refused:?}");
    let refused = log.archive(&[stream(0)], "new.db");
    assert!(matches!(refused, Err(ArchiveError::Nothing)), "{refused:?}");
    assert!(!directory.path().join("new.db").exists());
    std::fs::write(directory.path().join("taken.db"), "a letter").unwrap();
    for taken in
        ["taken.db", "old.db", "log.db", "log.views.db", "log.keys.db", "log.db-wal", "log.db.lock"]
    {
        let refused = log.archive(&[stream(1)], taken);
        assert!(matches!(refused, Err(ArchiveError::Exists { .. })), "{taken}: {refused:?}");
    }
    let refused = log.archive(&[stream(1)], "nowhere/new.db");
    assert!(matches!(refused, Err(ArchiveError::Store(_))), "{refused:?}");
    assert_eq!(log.archives().len(), 1, "what cannot be written is forgotten");
    assert_eq!(std::fs::read_to_string(directory.path().join("taken.db")).unwrap(), "a letter");
    assert!(matches!(log.restore("taken.db"), Err(ArchiveError::Unknown { .. })));
    assert_eq!(log.archives(), [directory.path().join("old.db").canonicalize().unwrap()]);
    // To call it again changes nothing; what was added since goes to another file.
    assert_eq!(log.archive(&[stream(0)], "old.db").unwrap().events, 10);
    commit(&[&log, &twin], 0, 5, &mut number);
    assert!(matches!(log.archive(&[stream(0)], "old.db"), Err(ArchiveError::Exists { .. })));
    assert_eq!(log.archive(&[stream(0)], "newer.db").unwrap().events, 5);
    same_reads(&log, &twin);
    drop(log);
    // An archive is opened by its log alone.
    let opened = Sqlite::open(directory.path().join("old.db"));
    assert!(matches!(&opened, Err(StoreError::Foreign { .. })), "{opened:?}");
    // Log and archives can be moved together.
    let moved = tempfile::tempdir().unwrap();
    for file in ["log.db", "old.db", "newer.db"] {
        std::fs::rename(directory.path().join(file), moved.path().join(file)).unwrap();
    }
    same_reads(&Sqlite::open(moved.path().join("log.db")).unwrap(), &twin);
}

#[test]
fn the_room_of_archived_events_is_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let log = Sqlite::options().durability(Durability::Os).open(&path).unwrap();
    // Payloads that share their page with others.
    let fill = |of| {
        let events = (0..5_000).map(|_| {
            let header = Header::new(stream(of), NAMES[0], 1, Timestamp::default());
            let payload = format!(r#""{}""#, "x".repeat(400)).into_bytes();
            Recorded { header, payload: payload.into() }
        });
        let commit = Commit::new().append(stream(of), ExpectedVersion::Any, events.collect());
        log.commit(&mut [commit]).unwrap()[0].clone().unwrap();
    };
    let pages = || {
        let file = Connection::open(&path).unwrap();
        let count =
            |pragma| file.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap();
        (count("page_count"), count("freelist_count"))
    };
    fill(0);
    let (full, _) = pages();
    log.archive(&[stream(0)], "old.db").unwrap();
    let (_, free) = pages();
    assert!(free * 2 > full, "{free} of {full} pages are free");
    fill(1);
    let (grown, _) = pages();
    assert!(
        grown - full < full - free + full / 20,
        "{full} pages, {free} of them free, became {grown}"
    );
    log.archive(&[stream(1)], "older.db").unwrap();
    log.vacuum().unwrap();
    let (small, free) = pages();
    assert!(small < full && free == 0, "{small} pages, {free} free");
    let written = std::fs::metadata(directory.path().join("log.db-wal")).unwrap().len();
    assert_eq!(written, 0, "the write-ahead log keeps the room");
    assert_eq!(read(&log, 0, 0).unwrap().len(), 5_000);
}

#[test]
fn an_archive_that_was_begun_and_not_written_is_gone_on_with_or_taken_back() {
    for is_taken_back in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.db");
        let (log, twin) = (Sqlite::open(&path).unwrap(), Memory::new());
        commit(&[&log, &twin], 0, 30, &mut 0);
        drop(log);
        // The log has taken note of it, and its transaction was in the midst of writing.
        let sql = "INSERT INTO archives VALUES (1, randomblob(16), 'half.db')";
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let writing = Connection::open(directory.path().join("writing.db")).unwrap();
        let sql = "PRAGMA cache_size = 1; BEGIN; CREATE TABLE events (payload); \
                   INSERT INTO events SELECT randomblob(100000) FROM (VALUES (1), (2), (3))";
        writing.execute_batch(sql).unwrap();
        for suffix in ["", "-journal"] {
            let of = |name: &str| directory.path().join(format!("{name}.db{suffix}"));
            std::fs::copy(of("writing"), of("half")).unwrap();
        }
        let log = Sqlite::open(&path).unwrap();
        same_reads(&log, &twin);
        if is_taken_back {
            assert_eq!(log.restore("half.db").unwrap().events, 0);
            assert!(log.archives().is_empty() && !directory.path().join("half.db").exists());
        } else {
            assert_eq!(log.archive(&[stream(0)], "half.db").unwrap().events, 30);
        }
        same_reads(&log, &twin);
        drop(log);
        assert!(Sqlite::check(&path, |_, _| {}).unwrap().is_sound());
    }
}

#[test]
fn an_archive_that_reached_the_log_though_that_failed_is_not_in_the_way_of_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let (log, twin) = (Sqlite::open(&path).unwrap(), Memory::new());
    commit(&[&log, &twin], 0, 30, &mut 0);
    let sql = "INSERT INTO archives VALUES (1, randomblob(16), 'old.db'); \
               INSERT INTO meta VALUES ('last_archive', 1)";
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    assert_eq!(log.archive(&[stream(0)], "old.db").unwrap().events, 30);
    drop(log);
    let log = Sqlite::open(&path).unwrap();
    assert_eq!(log.archives().len(), 1);
    assert_eq!(log.restore("old.db").unwrap().events, 30);
    same_reads(&log, &twin);
}

#[test]
fn a_payload_of_any_bytes_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let log = Sqlite::open(directory.path().join("log.db")).unwrap();
    let payloads = [b"\xff\xfe".as_slice(), b"", b"\0", b"a\0b"];
    let events = payloads.iter().flat_map(|payload| {
        [Codec::Json, Codec::MessagePack, Codec::Cbor].map(|codec| {
            let mut header = Header::new(stream(0), NAMES[0], 1, Timestamp::default());
            header.codec = codec;
            Recorded { header, payload: (*payload).into() }
        })
    });
    let commit = Commit::new().append(stream(0), ExpectedVersion::Any, events.collect());
    log.commit(&mut [commit]).unwrap()[0].clone().unwrap();
    let before = read(&log, 0, 0).unwrap();
    log.archive(&[stream(0)], "old.db").unwrap();
    assert_eq!(read(&log, 0, 0).unwrap(), before);
    log.restore("old.db").unwrap();
    assert_eq!(read(&log, 0, 0).unwrap(), before);
}

const LOG: &str = "TIDINGS_TEST_ARCHIVED_LOG";
const EVENTS: u64 = 700;

#[test]
fn a_process_that_is_killed_while_it_archives_or_restores_loses_no_event() {
    if let Some(path) = std::env::var_os(LOG) {
        archive_until_killed(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let twin = Memory::new();
    let mut number = 0;
    let log = Sqlite::open(&path).unwrap();
    commit(&[&log, &twin], 0, EVENTS, &mut number);
    commit(&[&log, &twin], 1, EVENTS, &mut number);
    drop(log);
    for round in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("a_process_that_is_killed_while_it_archives_or_restores_loses_no_event")
            .env(LOG, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "begun"));
        // Somewhere in the midst of one or the other: a round of both takes some tens of milliseconds.
        std::thread::sleep(Duration::from_millis(round * 7 % 90));
        child.kill().unwrap();
        child.wait().unwrap();
        let log = Sqlite::open(&path).unwrap();
        same_reads(&log, &twin);
        if round % 4 == 0 {
            // To go on, or to go back: both end what was begun.
            match round % 8 {
                0 => drop(log.archive(&[stream(0)], "old.db").unwrap()),
                _ => {
                    for file in log.archives() {
                        log.restore(file).unwrap();
                    }
                }
            }
            same_reads(&log, &twin);
        }
        drop(log);
        let checked = Sqlite::check(&path, |_, _| {}).unwrap();
        assert!(checked.is_sound(), "{:?}", checked.damage);
    }
}

fn archive_until_killed(path: &Path) -> ! {
    let log = Sqlite::open(path).unwrap();
    println!("\nbegun");
    loop {
        log.archive(&[stream(0)], "old.db").unwrap();
        log.archive(&[stream(1)], "older.db").unwrap();
        log.restore("old.db").unwrap();
        log.restore("older.db").unwrap();
    }
}
