//! A log of the format before this one is taken over where it is: all of it or nothing, with everything that it holds.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(feature = "sqlite")]

use std::ops::ControlFlow;
use std::path::Path;

use tidings::sqlite::rusqlite::Connection;
use tidings::{
    Codec, CommandId, Commit, EventStore, ExpectedVersion, Filter, Header, Position, Recorded,
    Sqlite, StreamId, Timestamp, Version,
};

/// A log as the versions of format 1 wrote it.
const FORMAT_1: &str = r#"
    PRAGMA journal_mode = WAL;
    BEGIN;
    CREATE TABLE events (
        position INTEGER PRIMARY KEY,
        stream TEXT NOT NULL,
        version INTEGER NOT NULL,
        previous INTEGER NOT NULL,
        name TEXT NOT NULL,
        schema_version INTEGER NOT NULL,
        time INTEGER NOT NULL,
        event_id BLOB NOT NULL,
        command_id BLOB,
        correlation_id BLOB,
        causation_id BLOB,
        metadata TEXT,
        payload TEXT NOT NULL
    ) STRICT;
    CREATE TABLE commands (
        number INTEGER PRIMARY KEY,
        id BLOB NOT NULL,
        stream TEXT NOT NULL,
        version INTEGER NOT NULL,
        position INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES ('log_id', x'0198000000007000800000000000aaaa'),
        ('stream_key', x'000102030405060708090a0b0c0d0e0f'), ('codec', 'json');
    INSERT INTO events VALUES
        (1, 'account-1', 1, 0, 'account.opened', 1, 17, x'01980000000070008000000000000001', NULL, NULL, NULL,
            '{"tenant":"blue"}', '{"owner":"Ada"}'),
        (2, 'account-2', 1, 0, 'account.opened', 1, 18, x'01980000000070008000000000000002',
            x'0198000000007000800000000000c002', NULL, x'01980000000070008000000000000001', NULL, '{"owner":"Zoë"}'),
        (3, 'account-1', 2, 1, 'account.closed', 2, 19, x'01980000000070008000000000000003', NULL, NULL, NULL, NULL, '7');
    INSERT INTO commands VALUES (1, x'0198000000007000800000000000c001', 'account-1', 2, 3);
    PRAGMA application_id = 0x54696465;
    PRAGMA user_version = 1;
    COMMIT;"#;

#[test]
fn a_log_of_format_1_keeps_all_that_it_holds_and_takes_new_formats() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    run(&path, FORMAT_1);
    holds_all(&path);
    // Once taken over, it is as if it had been made so.
    let log = Sqlite::open(&path).unwrap();
    let stream = StreamId::new("account", "1").unwrap();
    let mut header = Header::new(stream.clone(), "account.opened", 1, Timestamp::default());
    header.codec = Codec::Cbor;
    let event = Recorded { header, payload: [0xa0].as_slice().into() };
    let expected = ExpectedVersion::Exact(Version::new(2));
    log.commit(&mut [Commit::new().append(stream.clone(), expected, vec![event])]).unwrap()[0]
        .clone()
        .unwrap();
    log.archive(&[stream], "old.db").unwrap();
    assert_eq!(log.read_log(Position::START, &Filter::All, 9).unwrap().events.len(), 4);
    drop(log);
    assert!(Sqlite::check(&path, |_, _| {}).unwrap().is_sound());
}

#[test]
fn what_lies_beside_a_log_of_format_1_stays_valid() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    run(&path, FORMAT_1);
    drop(Sqlite::open(&path).unwrap());
    // The index has seen all of the log of format 1; a mark shows whether it is written anew.
    let index = directory.path().join("log.index.db");
    run(&index, "CREATE TABLE mark (number INTEGER)");
    std::fs::remove_file(&path).unwrap();
    run(&path, FORMAT_1);
    holds_all(&path);
    let marks = "SELECT count(*) FROM sqlite_schema WHERE name = 'mark'";
    let marked: i64 =
        Connection::open(&index).unwrap().query_row(marks, [], |row| row.get(0)).unwrap();
    assert_eq!(marked, 1, "the index was written anew");
}

#[test]
fn a_crash_while_it_is_taken_over_leaves_the_one_format_or_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    run(&path, FORMAT_1);
    // What a crash leaves after each step: the files as they are while the transaction is open. Little memory for pages, so
    // that some of it is in the write-ahead log already.
    let steps = [
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = replace(sql, 'payload TEXT NOT NULL', 'payload ANY NOT NULL') \
         WHERE type = 'table' AND name = 'events'",
        "PRAGMA writable_schema = RESET",
        "CREATE TABLE snapshots (stream TEXT NOT NULL UNIQUE) STRICT",
        "PRAGMA user_version = 2",
    ];
    let open = Connection::open(&path).unwrap();
    open.execute_batch("PRAGMA cache_size = 1; BEGIN IMMEDIATE").unwrap();
    for (number, step) in steps.iter().enumerate() {
        open.execute_batch(step).unwrap();
        let crashed = directory.path().join(format!("{number}.db"));
        for suffix in ["", "-wal"] {
            let of = |path: &Path| format!("{}{suffix}", path.display());
            if Path::new(&of(&path)).exists() {
                std::fs::copy(of(&path), of(&crashed)).unwrap();
            }
        }
        holds_all(&crashed);
    }
    // And of one that was undone the same is left.
    open.execute_batch("ROLLBACK").unwrap();
    drop(open);
    holds_all(&path);
}

#[track_caller]
fn holds_all(path: &Path) {
    let log = Sqlite::open(path).unwrap();
    assert_eq!(log.log_id().as_u128(), 0x0198_0000_0000_7000_8000_0000_0000_aaaa);
    let events = log.read_log(Position::START, &Filter::All, 9).unwrap().events;
    let payloads: Vec<_> = events.iter().map(|event| &*event.payload).collect();
    let expected = [r#"{"owner":"Ada"}"#, r#"{"owner":"Zoë"}"#, "7"];
    assert_eq!(payloads, expected.map(str::as_bytes));
    assert!(events.iter().all(|event| event.codec == Codec::Json));
    assert_eq!(events[0].metadata.get("tenant"), Some("blue"));
    assert_eq!(events[1].causation_id.as_uuid(), events[0].event_id.as_uuid());
    let mut versions = Vec::new();
    let stream = StreamId::new("account", "1").unwrap();
    log.read_stream(&stream, Version::EMPTY, &mut |event| {
        versions.push((event.version.as_u64(), event.time.as_micros(), event.schema_version));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(versions, [(1, 17, 1), (2, 19, 2)]);
    for (id, events) in [(0xc001, 0), (0xc002, 1)] {
        let id = uuid::Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0000 + id);
        let known = log.find_command(CommandId::from_uuid(id)).unwrap().unwrap();
        assert_eq!(known.events, events);
    }
    drop(log);
    let file = Connection::open(path).unwrap();
    let check: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    let format: i64 = file.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!((check.as_str(), format), ("ok", 2));
    drop(file);
    assert!(Sqlite::check(path, |_, _| {}).unwrap().is_sound());
}

fn run(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}
