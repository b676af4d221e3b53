//! The check of a log names each damaged position and stream, whatever the damage is, and finds none in a log that is sound.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(feature = "sqlite")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidings::sqlite::rusqlite::Connection;
use tidings::{
    Checked, Codec, CommandId, Commit, EventStore, ExpectedVersion, Header, Recorded, Sqlite,
    StoreError, StreamId, Timestamp,
};

const EVENTS: u64 = 600;

/// A log of 600 events: of streams 0, 1, 2, 0, 1, 2 and so on, some in CBOR, with a command for each, and two commands without.
fn log() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let log = Sqlite::open(&path).unwrap();
    let mut group: Vec<_> = (0..EVENTS)
        .map(|number| {
            let stream = stream(number % 3);
            let time = Timestamp::from_micros(number);
            let mut header = Header::new(stream.clone(), "thing.changed", 1, time);
            let mut payload = format!(r#"{{"number":{number},"text":"{}"}}"#, "x".repeat(200));
            if number % 5 == 4 {
                header.codec = Codec::Cbor;
                payload = "\u{7}".to_owned();
            }
            header.metadata.insert("tenant", "blue");
            let event = Recorded { header, payload: payload.into_bytes().into() };
            let commit = Commit::new().append(stream, ExpectedVersion::Any, vec![event]);
            commit.command_id(CommandId::from_name(&number.to_string()))
        })
        .collect();
    for name in ["check", "look"] {
        let check = Commit::new().append(stream(0), ExpectedVersion::Any, vec![]);
        group.push(check.command_id(CommandId::from_name(name)));
    }
    assert!(log.commit(&mut group).unwrap().iter().all(Result::is_ok));
    drop(log);
    (directory, path)
}

fn stream(number: u64) -> StreamId {
    StreamId::new("thing", &number.to_string()).unwrap()
}

fn stream_at(position: u64) -> StreamId {
    stream((position - 1) % 3)
}

fn check(path: &Path) -> Checked {
    Sqlite::check(path, |_, _| {}).unwrap()
}

fn run(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

/// Damages a log with SQL, and looks for what is named: the position, and words of what is wrong there.
#[track_caller]
fn damaged(sql: &str, named: &[(u64, &str)]) {
    let (_directory, path) = log();
    run(&path, sql);
    let found = check(&path);
    let positions: Vec<_> = found.damage.iter().filter_map(|damage| damage.position).collect();
    let positions: BTreeSet<_> = positions.iter().map(|position| position.as_u64()).collect();
    let expected: BTreeSet<_> = named.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, expected, "{:?}", found.damage);
    for (at, words) in named {
        let is_named = found.damage.iter().any(|damage| {
            damage.position.is_some_and(|position| position.as_u64() == *at)
                && damage.stream.as_ref().is_none_or(|stream| *stream == stream_at(*at))
                && damage.to_string().contains(words)
        });
        assert!(is_named, "{words:?} at {at}: {:?}", found.damage);
    }
    assert!(!found.is_sound());
}

#[test]
fn a_sound_log_is_counted_and_nothing_is_named() {
    let (directory, path) = log();
    let mut told = Vec::new();
    let checked = Sqlite::check(&path, |read, of| told.push((read, of))).unwrap();
    assert!(checked.is_sound(), "{:?}", checked.damage);
    assert_eq!((checked.events, checked.streams, checked.commands), (EVENTS, 3, 2));
    assert_eq!((checked.archived, checked.unread), (0, 0));
    assert_eq!(told.last(), Some(&(EVENTS, EVENTS)));
    // Also while it is open and written to, and when a part of it lies in an archive.
    let log = Sqlite::open(&path).unwrap();
    log.archive(&[stream(1)], "old.db").unwrap();
    let again = CommandId::from_name("later");
    let commit = Commit::new().append(stream(0), ExpectedVersion::Any, vec![]).command_id(again);
    log.commit(&mut [commit]).unwrap()[0].clone().unwrap();
    let checked = check(&path);
    assert!(checked.is_sound(), "{:?}", checked.damage);
    assert_eq!((checked.events, checked.commands, checked.archived), (EVENTS, 3, EVENTS / 3));
    drop(log);
    let empty = directory.path().join("empty.db");
    drop(Sqlite::open(&empty).unwrap());
    assert!(check(&empty).is_sound());
}

#[test]
fn rows_that_are_missing_are_named() {
    // The next one in the stream follows a row that is not there.
    damaged("DELETE FROM events WHERE position = 7", &[(7, "missing"), (10, "follows")]);
    damaged(
        "DELETE FROM events WHERE position BETWEEN 100 AND 102",
        &[
            (100, "missing"),
            (101, "missing"),
            (102, "missing"),
            (103, "follows"),
            (104, "follows"),
            (105, "follows"),
        ],
    );
    damaged("DELETE FROM events WHERE position = 1", &[(1, "missing"), (4, "follows")]);
}

#[test]
fn rows_far_from_the_others_are_named_without_a_walk_through_all_that_lies_between() {
    let far = i64::MAX as u64;
    let missing = "positions 600 to 9223372036854775806 are missing";
    damaged(
        "UPDATE events SET position = 9223372036854775807 WHERE position = 600",
        &[(600, missing)],
    );
    // One of the middle is missing there, and behind the last one it follows what is not the last of its stream.
    let (_directory, path) = log();
    run(&path, "UPDATE events SET position = 9223372036854775807 WHERE position = 7");
    let found = check(&path);
    let positions: Vec<_> = found.damage.iter().filter_map(|damage| damage.position).collect();
    let positions: Vec<_> = positions.iter().map(|position| position.as_u64()).collect();
    assert_eq!(positions, [7, 10, 601, far], "{:?}", found.damage);
}

#[test]
fn rows_before_the_first_position_are_named() {
    for position in ["0", "-7"] {
        let (_directory, path) = log();
        run(&path, &format!("UPDATE events SET position = {position} WHERE position = 600"));
        let found = check(&path);
        let words = format!("a row has position {position}");
        let named: Vec<_> = found.damage.iter().map(ToString::to_string).collect();
        assert!(named.iter().any(|what| what.contains(&words)), "{named:?}");
        // All others as well: then there is no last position.
        run(&path, "DELETE FROM events WHERE position > 0");
        assert!(!check(&path).is_sound());
    }
}

#[test]
fn places_that_contradict_each_other_are_named() {
    damaged(
        "UPDATE events SET version = CASE position WHEN 10 THEN 5 ELSE 4 END WHERE position IN (10, 13)",
        &[
            (10, "it has version 5, where version 4 belongs"),
            (13, "version 4, where version 5 belongs"),
        ],
    );
    damaged("UPDATE events SET version = 99 WHERE position = 600", &[(600, "version 200 belongs")]);
    damaged(
        "UPDATE events SET previous = 5 WHERE position = 10",
        &[(10, "it follows the event at position 5")],
    );
    damaged(
        "UPDATE events SET previous = 0 WHERE position = 10",
        &[(10, "claims to be the first")],
    );
    // An event in the wrong stream breaks both.
    let (_directory, path) = log();
    run(&path, "UPDATE events SET stream = 'other-1' WHERE position = 10");
    let named: Vec<_> = check(&path).damage.iter().map(ToString::to_string).collect();
    assert_eq!(named.len(), 2, "{named:?}");
    assert!(named[0].starts_with("position 10 (other-1): it follows the event at position 7"));
    assert!(named[1].starts_with("position 13 (thing-0): it follows the event at position 10"));
}

#[test]
fn rows_whose_contents_cannot_be_read_are_named() {
    let cases = [
        ("payload = '{\"number\":'", "payload cannot be parsed"),
        ("payload = ''", "payload cannot be parsed"),
        ("payload = '{} {}'", "payload cannot be parsed"),
        ("payload = CAST(x'22ff22' AS TEXT)", "payload cannot be parsed"),
        ("payload = x'02'", "payload cannot be parsed"),
        ("payload = x'020707'", "payload cannot be parsed"),
        ("payload = x'01c1'", "payload cannot be parsed"),
        ("payload = x'c807'", "format 200"),
        ("payload = x''", "no format"),
        ("payload = 1.5", "no format"),
        ("payload = 77", "payload lies in archive 77"),
        ("metadata = '[]'", "metadata"),
        ("stream = 'nothing'", "no valid name"),
        ("name = ''", "no name"),
        ("event_id = x'00'", "event id"),
        ("command_id = x'00'", "command id"),
        ("correlation_id = x'0011'", "correlation id"),
        ("schema_version = -1", "schema version"),
    ];
    for (change, words) in cases {
        let (_directory, path) = log();
        run(&path, &format!("UPDATE events SET {change} WHERE position = 300"));
        let found = check(&path);
        let is_named = found.damage.iter().any(|damage| {
            damage.position.is_some_and(|position| position.as_u64() == 300)
                && damage.to_string().contains(words)
        });
        assert!(is_named, "{change}: {:?}", found.damage);
    }
}

#[test]
fn ids_that_are_there_twice_are_named() {
    damaged(
        "UPDATE events SET event_id = (SELECT event_id FROM events WHERE position = 3) WHERE position = 500",
        &[(3, "the same id"), (500, "the same id")],
    );
    damaged(
        "UPDATE events SET command_id = (SELECT command_id FROM events WHERE position = 3) WHERE position = 500",
        &[(3, "another commit"), (500, "another commit")],
    );
    // Those of one command stand next to each other.
    let (_directory, path) = log();
    run(
        &path,
        "UPDATE events SET command_id = (SELECT command_id FROM events WHERE position = 3) WHERE position = 4",
    );
    assert!(check(&path).is_sound());
}

#[test]
fn commands_that_are_damaged_are_named() {
    let cases = [
        ("DELETE FROM commands WHERE number = 1", "commands 1 to 1 are missing"),
        ("UPDATE commands SET id = x'00' WHERE number = 2", "the id of command 2"),
        ("UPDATE commands SET stream = 'x' WHERE number = 2", "command 2 names stream"),
        ("UPDATE commands SET position = 601 WHERE number = 2", "after the log's end"),
        ("UPDATE commands SET id = (SELECT id FROM commands WHERE number = 1)", "command number 2"),
        (
            "UPDATE commands SET id = (SELECT command_id FROM events) WHERE number = 1",
            "command number 1",
        ),
        ("DELETE FROM meta WHERE key = 'log_id'", "log_id is missing"),
    ];
    for (sql, words) in cases {
        let (_directory, path) = log();
        run(&path, sql);
        let found = check(&path);
        let is_named = found.damage.iter().any(|damage| damage.to_string().contains(words));
        assert!(is_named, "{sql}: {:?}", found.damage);
    }
}

#[test]
fn events_whose_archive_is_lost_or_damaged_are_named() {
    let archived = || {
        let (directory, path) = log();
        Sqlite::open(&path).unwrap().archive(&[stream(1)], "old.db").unwrap();
        let place = directory.path().join("old.db");
        (directory, path, place)
    };
    let names_all_of_its_stream = |path: &Path, words: &str| {
        let found = check(path);
        let of_stream = found.damage.iter().filter(|damage| damage.stream == Some(stream(1)));
        assert_eq!(of_stream.count() as u64, EVENTS / 3, "{:?}", found.damage);
        assert!(
            found
                .damage
                .iter()
                .all(|damage| damage.position.is_none() || damage.stream == Some(stream(1)))
        );
        assert!(
            found.damage.iter().any(|damage| damage.to_string().contains(words)),
            "{:?}",
            found.damage
        );
    };
    let (_directory, path, place) = archived();
    std::fs::remove_file(&place).unwrap();
    names_all_of_its_stream(&path, "old.db, is missing");
    let (_directory, path, place) = archived();
    let (_other, _, elsewhere) = archived();
    std::fs::copy(elsewhere, place).unwrap();
    names_all_of_its_stream(&path, "old.db, is another file");
    let (_directory, path, place) = archived();
    std::fs::write(place, "no database").unwrap();
    names_all_of_its_stream(&path, "archive 1");
    let (_directory, path, place) = archived();
    run(
        &place,
        "DELETE FROM events WHERE position = 5; UPDATE events SET payload = '{' WHERE position = 8",
    );
    let found = check(&path);
    let named: Vec<_> = found.damage.iter().map(ToString::to_string).collect();
    assert_eq!(named.len(), 2, "{named:?}");
    assert!(named[0].starts_with("position 5 (thing-1): it is missing in archive 1"), "{named:?}");
    assert!(named[1].starts_with("position 8 (thing-1): in archive 1: its payload"), "{named:?}");
}

#[test]
fn archives_in_any_number_are_looked_into() {
    let (_directory, path) = log();
    let log = Sqlite::open(&path).unwrap();
    let streams: Vec<_> = (10..110).map(stream).collect();
    // Each of the streams in an archive of its own, and their events in turn.
    for round in 0..2 {
        for (number, stream) in streams.iter().enumerate() {
            let time = Timestamp::from_micros(round);
            let header = Header::new(stream.clone(), "thing.changed", 1, time);
            let event = Recorded { header, payload: b"7".as_slice().into() };
            let commit = Commit::new().append(stream.clone(), ExpectedVersion::Any, vec![event]);
            log.commit(&mut [commit]).unwrap()[0].clone().unwrap();
            if round == 1 {
                log.archive(std::slice::from_ref(stream), format!("{number}.db")).unwrap();
            }
        }
    }
    let missing = log.archives()[0].clone();
    drop(log);
    assert_eq!(check(&path).archived, 200);
    assert!(check(&path).is_sound());
    std::fs::remove_file(missing).unwrap();
    let found = check(&path);
    // The file once, and each of its two events.
    assert_eq!(found.damages, 3, "{:?}", found.damage);
}

#[test]
fn pages_that_were_overwritten_cost_the_rows_on_them_and_no_others() {
    let (_directory, path) = log();
    let bytes = std::fs::read(&path).unwrap();
    let page = 4_096;
    // Where the row at position 301 lies, which is the only one with this number.
    let wanted = br#"{"number":300,"#;
    let at = bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
    let start = at / page * page;
    let mut damaged = bytes.clone();
    damaged[start..start + page].fill(0xa5);
    std::fs::write(&path, &damaged).unwrap();
    let found = check(&path);
    let positions: BTreeSet<_> =
        found.damage.iter().filter_map(|damage| damage.position).map(|at| at.as_u64()).collect();
    // It is named, few others are, and those are its neighbours or come after them in their streams.
    assert!(positions.contains(&301), "{:?}", found.damage);
    assert!(
        positions.len() < 40 && positions.iter().all(|at| at.abs_diff(301) < 40),
        "{positions:?}"
    );
    assert!(found.damage.iter().any(|damage| damage.what.contains("the database")));
    let lost = found.damage.iter().filter(|damage| damage.what.contains("cannot be read"));
    assert_eq!(found.events + lost.count() as u64, EVENTS);

    // A few bytes within a payload, which the database itself does not notice.
    let mut damaged = bytes.clone();
    damaged[at + 1..at + 4].fill(0);
    std::fs::write(&path, &damaged).unwrap();
    let found = check(&path);
    assert_eq!(found.damages, 1, "{:?}", found.damage);
    assert!(found.damage[0].to_string().starts_with("position 301 (thing-0): its payload"));

    // The end of the file is gone.
    std::fs::write(&path, &bytes[..bytes.len() - 10 * page]).unwrap();
    assert!(!check(&path).is_sound());
}

#[test]
fn bytes_changed_anywhere_never_end_the_check_with_a_panic() {
    let (_directory, path) = log();
    let bytes = std::fs::read(&path).unwrap();
    let mut unnoticed = 0;
    for round in 0..60_usize {
        let mut damaged = bytes.clone();
        let at = round * 7_919 % bytes.len();
        let end = bytes.len().min(at + 64);
        damaged[at..end].fill(0xff);
        std::fs::write(&path, &damaged).unwrap();
        match Sqlite::check(&path, |_, _| {}) {
            Ok(checked) => unnoticed += u32::from(checked.is_sound()),
            Err(
                StoreError::Foreign { .. } | StoreError::Format { .. } | StoreError::Damaged { .. },
            ) => {}
            Err(other) => unreachable!("{other:?}"),
        }
    }
    // Pages have room that nothing is written into.
    assert!(unnoticed < 20, "{unnoticed} of 60 were not noticed");
}

#[test]
fn what_is_no_log_is_not_checked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.db");
    let error = Sqlite::check(&path, |_, _| {}).unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    assert!(!path.exists());
    run(&path, "CREATE TABLE other (number INTEGER)");
    let error = Sqlite::check(&path, |_, _| {}).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
    std::fs::write(&path, "no database at all, but long enough").unwrap();
    let error = Sqlite::check(&path, |_, _| {}).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
}
