//! Guarantee 3: positions are 1, 2, 3 … in commit order, and a reader that meets a hole says so and never skips it.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic, in its helpers too"
)]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tidings::{
    CommandId, Commit, CorrelationId, Durability, EventStore, ExpectedVersion, Filter, Header,
    Memory, Position, Recorded, Sqlite, StoreError, StreamId, Timestamp, Version,
};

#[test]
fn a_reader_that_has_seen_n_has_seen_all_up_to_n_while_threads_commit_in_memory() {
    follow_while_committing(&Memory::new());
}

#[test]
fn a_reader_that_has_seen_n_has_seen_all_up_to_n_while_threads_commit_to_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let options = Sqlite::options().durability(Durability::Os).tail(100);
    follow_while_committing(&options.open(directory.path().join("log.db")).unwrap());
}

#[test]
fn a_missing_event_is_reported_by_every_kind_of_reader() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let log = Sqlite::open(&path).unwrap();
    log.commit(&mut [commit(0, 600), commit(1, 600)]).unwrap();
    tamper(&path, "DELETE FROM events WHERE position = 300");

    let damaged = "the event at position 300 is missing";
    is_damaged(log.read_log(Position::START, &Filter::All, 5_000), damaged);
    is_damaged(log.read_log(Position::new(299), &Filter::All, 1), damaged);
    let names = Filter::Names(vec!["thing.happened"]);
    is_damaged(log.read_log(Position::START, &names, 5_000), damaged);
    is_damaged(log.read_log(Position::new(10), &Filter::Names(vec!["none.such"]), 1), damaged);
    let story = CorrelationId::from_uuid(CommandId::fresh().into());
    is_damaged(log.read_story(story, Position::START, 5_000), damaged);
    is_damaged(log.position_at(Timestamp::from_micros(u64::MAX)), damaged);
    is_damaged(read(&log, 0, 0), damaged);
    is_damaged(read(&log, 0, 299), damaged);
    // What lies on either side of it is as good as before.
    assert_eq!(log.read_log(Position::START, &Filter::All, 299).unwrap().events.len(), 299);
    assert_eq!(log.read_log(Position::new(300), &names, 5_000).unwrap().events.len(), 900);
    assert!(log.read_story(story, Position::new(300), 5_000).unwrap().events.is_empty());
    assert_eq!(read(&log, 0, 300).unwrap(), 300);
    assert_eq!(read(&log, 1, 0).unwrap(), 600);
}

#[test]
fn a_log_with_a_hole_is_not_opened_when_its_index_has_to_be_made_from_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let log = Sqlite::open(&path).unwrap();
    log.commit(&mut [commit(0, 10)]).unwrap();
    drop(log);
    tamper(&path, "DELETE FROM events WHERE position = 4");
    std::fs::remove_file(directory.path().join("log.index.db")).unwrap();
    is_damaged(Sqlite::open(&path), "the event at position 4 is missing");
}

#[test]
fn an_event_of_another_stream_or_version_in_the_chain_of_a_stream_is_reported() {
    for (change, said) in [
        ("stream = 'thing-9'", "position 2 holds version 2 of stream thing-9"),
        ("version = 7", "position 2 holds version 7 of stream thing-0"),
        ("previous = 5", "position"),
        ("event_id = x'00'", "an id of the event at position 2"),
        ("metadata = '{'", "metadata of the event at position 2"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.db");
        let log = Sqlite::open(&path).unwrap();
        log.commit(&mut [commit(0, 3)]).unwrap();
        tamper(&path, &format!("UPDATE events SET {change} WHERE position = 2"));
        is_damaged(read(&log, 0, 0), said);
    }
}

fn follow_while_committing(store: &(impl EventStore + ?Sized)) {
    const EACH: u64 = 120;
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|stream| {
                scope.spawn(move || {
                    for round in 0..EACH {
                        store.commit(&mut [commit(stream, round % 3 + 1)]).unwrap();
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut seen = Position::START;
            loop {
                let is_last = is_done.load(Ordering::Acquire);
                let page = store.read_log(seen, &Filter::All, 7).unwrap();
                for event in &page.events {
                    assert_eq!(event.header.position, seen.next());
                    seen = event.header.position;
                }
                assert_eq!(page.through, seen);
                if is_last && page.events.is_empty() {
                    return seen;
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        is_done.store(true, Ordering::Release);
        assert_eq!(reader.join().unwrap().as_u64(), 3 * EACH * 2);
    });
}

fn commit(stream: u64, events: u64) -> Commit {
    let stream = StreamId::new("thing", &stream.to_string()).unwrap();
    let event = |_| Recorded {
        header: Header::new(stream.clone(), "thing.happened", 1, Timestamp::default()),
        payload: b"{}".as_slice().into(),
    };
    let events = (0..events).map(event).collect();
    Commit::new().append(stream.clone(), ExpectedVersion::Any, events)
}

fn read(log: &Sqlite, stream: u64, after: u64) -> Result<u64, StoreError> {
    let mut read = 0;
    let stream = StreamId::new("thing", &stream.to_string()).unwrap();
    log.read_stream(&stream, Version::new(after), &mut |_| {
        read += 1;
        ControlFlow::Continue(())
    })?;
    Ok(read)
}

fn tamper(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[track_caller]
fn is_damaged<T: std::fmt::Debug>(result: Result<T, StoreError>, said: &str) {
    match result {
        Err(StoreError::Damaged { what, .. }) => assert!(what.contains(said), "{what}"),
        other => panic!("expected damage ({said}), found {other:?}"),
    }
}
