//! What cannot be provoked from outside: a full disk, a connection that fails, streams whose hashes collide.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;
use tempfile::TempDir;

use super::index::{Index, IndexWriter};
use super::tail::{Generation, Head, Place, StreamKey, Tail, Through};
use super::*;
use crate::clock::Timestamp;
use crate::event::Header;
use crate::stream::ExpectedVersion;

#[test]
fn a_full_disk_refuses_the_group_and_is_forgotten_when_there_is_room() {
    let (_directory, path) = place();
    let log = Sqlite::open(&path).unwrap();
    one(&log, append("1", 1, 10)).unwrap();
    with_writer(&log, |conn| {
        let pages: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        conn.pragma_update_and_check(None, "max_page_count", pages + 2, |_| Ok(())).unwrap();
    });
    let id = CommandId::fresh();
    for _ in 0..3 {
        let error = one(&log, append("1", 50, 4_000).command_id(id)).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        is_as_before(&log, id, 1);
    }
    // A commit that fits is not held up by the one that did not.
    one(&log, append("1", 1, 10)).unwrap();
    with_writer(&log, |conn| {
        conn.pragma_update_and_check(None, "max_page_count", 1_000_000, |_| Ok(())).unwrap();
    });
    let last = one(&log, append("1", 50, 4_000).command_id(id)).unwrap();
    assert_eq!(last, 52);
    assert_eq!(read(&log, "1"), 52);
    drop(log);
    assert_eq!(read(&Sqlite::open(&path).unwrap(), "1"), 52);
}

#[test]
fn an_archive_that_finds_no_room_to_come_back_to_goes_on_when_there_is_some() {
    let (_directory, path) = place();
    let log = Sqlite::open(&path).unwrap();
    one(&log, append("1", 1_000, 2_000)).unwrap();
    log.archive(&[stream("1")], "old.db").unwrap();
    log.vacuum().unwrap();
    let limit = |pages: Option<i64>| {
        with_writer(&log, |conn| {
            let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
            let taken = conn.pragma_query_value(None, "page_count", count).unwrap();
            let most = pages.map_or(1_000_000, |pages| taken + pages);
            conn.pragma_update_and_check(None, "max_page_count", most, |_| Ok(())).unwrap();
        });
    };
    // Some of the batches have room, and none of them, and all.
    for pages in [200, 3] {
        limit(Some(pages));
        let error = log.restore("old.db").unwrap_err();
        assert!(matches!(error, ArchiveError::Store(StoreError::Full { .. })), "{error:?}");
        assert_eq!(read(&log, "1"), 1_000);
        one(&log, append("2", 1, 10)).unwrap();
    }
    limit(None);
    assert_eq!(log.restore("old.db").unwrap().events, 1_000);
    assert!(log.archives().is_empty() && !path.with_file_name("old.db").exists());
    assert_eq!(read(&log, "1"), 1_000);
}

#[test]
fn an_archive_that_cannot_be_noted_changes_nothing() {
    let (_directory, path) = place();
    let log = Sqlite::open(&path).unwrap();
    one(&log, append("1", 10, 2_000)).unwrap();
    with_writer(&log, |conn| conn.pragma_update(None, "query_only", true).unwrap());
    let error = log.archive(&[stream("1")], "old.db").unwrap_err();
    assert!(matches!(error, ArchiveError::Store(StoreError::ReadOnly { .. })), "{error:?}");
    assert!(log.archives().is_empty() && !path.with_file_name("old.db").exists());
    with_writer(&log, |conn| conn.pragma_update(None, "query_only", false).unwrap());
    assert_eq!(log.archive(&[stream("1")], "old.db").unwrap().events, 10);
    assert_eq!(read(&log, "1"), 10);
}

#[test]
fn a_read_only_log_refuses_commits_answers_reads_and_recovers() {
    let (_directory, path) = place();
    let log = Sqlite::open(&path).unwrap();
    one(&log, append("1", 1, 10)).unwrap();
    with_writer(&log, |conn| conn.pragma_update(None, "query_only", true).unwrap());
    let id = CommandId::fresh();
    let error = one(&log, append("1", 1, 10).command_id(id)).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    is_as_before(&log, id, 1);
    with_writer(&log, |conn| conn.pragma_update(None, "query_only", false).unwrap());
    assert_eq!(one(&log, append("1", 1, 10).command_id(id)).unwrap(), 2);
}

#[test]
fn a_group_that_reached_the_log_though_it_failed_is_taken_up_and_not_written_twice() {
    let (_directory, path) = place();
    let log = Sqlite::open(&path).unwrap();
    one(&log, append("1", 1, 10)).unwrap();
    // What a commit leaves whose outcome the driver did not learn: rows that the store has not taken note of.
    let id = CommandId::fresh();
    {
        let other = Sqlite::open(path.with_file_name("other.db")).unwrap();
        one(&other, append("1", 1, 10)).unwrap();
        one(&other, append("1", 2, 10).command_id(id)).unwrap();
    }
    with_writer(&log, |conn| {
        let other = path.with_file_name("other.db");
        conn.execute("ATTACH ? AS other", [other.to_str().unwrap()]).unwrap();
        conn.execute("INSERT INTO events SELECT * FROM other.events WHERE position > 1", [])
            .unwrap();
        conn.execute("DETACH other", []).unwrap();
    });
    // Its positions are taken: the first commit fails, and the store looks at the log anew.
    let error = one(&log, append("2", 1, 10)).unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    assert!(log.writer.lock().log.is_none());
    let refused = log.commit(&mut [append("1", 2, 10).command_id(id)]).unwrap();
    assert!(
        matches!(refused.first(), Some(Err(Refused::KnownCommand(known))) if known.events == 2)
    );
    assert_eq!(one(&log, append("1", 1, 10)).unwrap(), 4);
    assert_eq!(read(&log, "1"), 4);
}

#[test]
fn an_index_that_cannot_be_written_bounds_the_tail_and_recovers() {
    let (_directory, path) = place();
    let log = Sqlite::options().tail(10).open(&path).unwrap();
    let index = path.with_file_name("log.index.db");
    let other = Connection::open(&index).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON heads BEGIN SELECT RAISE(ABORT, 'refused'); END",
        )
        .unwrap();
    let mut accepted = 0;
    let error = loop {
        match one(&log, append(&accepted.to_string(), 1, 10)) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted <= 31, "the tail has no bound");
    };
    assert!(error.to_string().contains("log.index.db"), "{error}");
    assert!(accepted >= 20);
    assert_eq!(read(&log, "0"), 1);
    other.execute_batch("DROP TRIGGER refuse").unwrap();
    one(&log, append("more", 1, 10)).unwrap();
    drop(log);
    let log = Sqlite::open(&path).unwrap();
    for stream in 0..accepted {
        assert_eq!(read(&log, &stream.to_string()), 1);
    }
}

#[test]
fn a_group_sees_what_leaves_the_tail_while_it_is_decided() {
    let (_directory, path) = place();
    let log = Sqlite::open(&path).unwrap();
    let [id, unknown] = ["known", "unknown"].map(CommandId::from_name);
    one(&log, append("1", 1, 10).command_id(id)).unwrap();
    let mut writer = log.writer.lock();
    // Takes a view of the index, which does not hold the other id yet.
    assert_eq!(writer.known_command(unknown, &[]).unwrap(), None);
    log.shared.tail.write().freeze();
    log.shared.signals.attempt().unwrap();
    assert_eq!(log.shared.tail.read().command(&id), None);
    assert!(writer.known_command(id, &[]).unwrap().is_some());
}

#[test]
fn streams_whose_64_bit_hashes_collide_are_told_apart_in_the_tail_and_in_the_index() {
    let (_directory, path) = place();
    let key = |rest| StreamKey { hash: 7, rest };
    let head = |version| Head { version, position: 100 + version };
    let mut generation = Generation::default();
    for rest in [1, u64::MAX] {
        generation.heads.insert(key(rest), head(rest % 10));
    }
    let (mut writer, _) = IndexWriter::open(&path, Uuid::nil()).unwrap().unwrap();
    writer.flush(&generation).unwrap();
    let index = Index::open(&path).unwrap();
    let tail = Tail::new(10, generation, Uuid::nil());
    for (rest, found) in [(1, Some(head(1))), (2, None), (u64::MAX, Some(head(5)))] {
        assert_eq!(index.head(&key(rest)).unwrap(), found);
        assert_eq!(tail.head(&key(rest)), found);
    }
}

#[test]
fn the_newest_generation_answers_while_an_older_one_is_flushed_and_after() {
    let key = StreamKey { hash: 1, rest: 1 };
    let id = CommandId::fresh();
    let mut tail = Tail::new(1, Generation::default(), Uuid::nil());
    for version in 1..20 {
        let head = Head { version, position: version };
        tail.active.heads.insert(key, head);
        tail.active.insert_command(id, Place::Events(1));
        tail.freeze();
        assert_eq!(tail.head(&key), Some(head));
        drop(tail.retire());
        assert_eq!(tail.head(&key), Some(head));
        // Ids are not cached: the index has them.
        assert_eq!((tail.command(&id), tail.indexed), (None, id.into()));
    }
}

#[test]
fn an_index_says_through_which_event_it_has_come() {
    let (_directory, path) = place();
    let through = Through { position: 3, event: Uuid::max(), bare: 4, bare_id: crate::id::fresh() };
    let generation = Generation { through, newest: crate::id::fresh(), ..Generation::default() };
    let (mut writer, first) = IndexWriter::open(&path, Uuid::max()).unwrap().unwrap();
    assert_eq!(first.through, Through::default());
    writer.flush(&generation).unwrap();
    drop(writer);
    let (_, found) = IndexWriter::open(&path, Uuid::nil()).unwrap().unwrap();
    assert_eq!(
        (found.log_id, found.through, found.newest),
        (Uuid::max(), through, generation.newest)
    );
}

#[test]
fn snapshots_go_along_with_the_next_group_and_take_no_transaction_of_their_own() {
    let (_directory, path) = place();
    let log = Sqlite::open(&path).unwrap();
    one(&log, append("1", 1, 10)).unwrap();
    log.save_snapshots(vec![snapshot("1", 1), snapshot("2", 1)]).unwrap();
    assert_eq!(rows(&path), 0);
    assert_eq!(log.load_snapshot(&stream("1")).unwrap(), Some(snapshot("1", 1)));
    one(&log, append("1", 1, 10)).unwrap();
    assert_eq!(rows(&path), 2);
    assert!(log.shared.snapshots.all().is_empty());
    assert_eq!(log.load_snapshot(&stream("1")).unwrap(), Some(snapshot("1", 1)));
    // Those that still wait are written when the log is closed.
    log.save_snapshots(vec![snapshot("3", 1)]).unwrap();
    drop(log);
    assert_eq!(rows(&path), 3);
}

#[test]
fn snapshots_that_wait_are_bounded() {
    let (_directory, path) = place();
    let log = Sqlite::open(&path).unwrap();
    let many = |count: u32| (0..count).map(|id| snapshot(&id.to_string(), 1)).collect();
    log.save_snapshots(many(1_024)).unwrap();
    assert_eq!(rows(&path), 0);
    log.save_snapshots(many(1_025)).unwrap();
    assert_eq!((rows(&path), log.shared.snapshots.all().len()), (1_025, 0));
    let large = Snapshot::new(stream("large"), Version::new(1), [0; 16], vec![b' '; 9 << 20]);
    log.save_snapshots(vec![large]).unwrap();
    assert_eq!((rows(&path), log.shared.snapshots.all().len()), (1_026, 0));
}

#[test]
fn a_snapshot_that_cannot_be_written_fails_no_commit() {
    let (_directory, path) = place();
    let log = Sqlite::open(&path).unwrap();
    with_writer(&log, |conn| {
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON snapshots BEGIN SELECT RAISE(ABORT, 'refused'); END";
        conn.execute_batch(refuse).unwrap();
    });
    log.save_snapshots(vec![snapshot("1", 1)]).unwrap();
    assert_eq!(one(&log, append("1", 2, 10)).unwrap(), 2);
    assert_eq!((read(&log, "1"), rows(&path)), (2, 0));
    // It is not tried for ever.
    assert_eq!(log.load_snapshot(&stream("1")).unwrap(), None);
    with_writer(&log, |conn| conn.execute_batch("DROP TRIGGER refuse").unwrap());
    // Nor does one that finds no room, where the events do.
    with_writer(&log, |conn| {
        let pages: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        conn.pragma_update_and_check(None, "max_page_count", pages + 2, |_| Ok(())).unwrap();
    });
    let large = Snapshot::new(stream("1"), Version::new(2), [0; 16], vec![b' '; 100_000]);
    log.save_snapshots(vec![large]).unwrap();
    assert_eq!(one(&log, append("1", 1, 10)).unwrap(), 3);
    assert_eq!((read(&log, "1"), rows(&path)), (3, 0));
}

#[test]
fn a_snapshot_that_was_changed_is_damaged() {
    for change in [
        "version = 2",
        "version = -1",
        "version = 'two'",
        "stream = 'thing-2'",
        "shape = zeroblob(24)",
        "shape = X'00'",
        "state = state || ' '",
        "state = X'00'",
        "state = 7",
    ] {
        let (_directory, path) = place();
        let log = Sqlite::open(&path).unwrap();
        log.save_snapshots(vec![snapshot("1", 1)]).unwrap();
        one(&log, append("1", 1, 10)).unwrap();
        let id = if change.starts_with("stream") { "2" } else { "1" };
        with_writer(&log, |conn| {
            if conn.execute(&format!("UPDATE snapshots SET {change}"), []).is_err() {
                conn.execute("UPDATE snapshots SET state = ''", []).unwrap();
            }
        });
        let error = log.load_snapshot(&stream(id)).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{change}: {error:?}");
        assert!(error.to_string().contains(&format!("thing-{id}")), "{error}");
        // The next one takes its place.
        log.save_snapshots(vec![snapshot(id, 2)]).unwrap();
        one(&log, append("1", 1, 10)).unwrap();
        assert_eq!(log.load_snapshot(&stream(id)).unwrap(), Some(snapshot(id, 2)));
    }
}

fn snapshot(id: &str, version: u64) -> Snapshot {
    Snapshot::new(stream(id), Version::new(version), [7; 16], *b"{}")
}

/// How many snapshots are in the file.
fn rows(path: &Path) -> u64 {
    let conn = Connection::open(path).unwrap();
    let rows: i64 = conn.query_row("SELECT count(*) FROM snapshots", [], |row| row.get(0)).unwrap();
    rows as u64
}

#[test]
fn a_log_of_format_1_that_is_read_only_or_altered_is_left_as_it_is() {
    let (_directory, path) = place();
    let mut conn = Connection::open(&path).unwrap();
    conn.execute_batch(
        "CREATE TABLE events (position INTEGER PRIMARY KEY, payload  TEXT NOT NULL) STRICT;
         PRAGMA user_version = 1",
    )
    .unwrap();
    let unchanged = |conn: &Connection| {
        let tables: i64 =
            conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        assert_eq!((tables, file::stamps(conn).unwrap()), (1, (0, 1)));
    };
    let error = failed(&path, file::migrate(&mut conn).unwrap_err());
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    unchanged(&conn);
    conn.pragma_update(None, "query_only", true).unwrap();
    let error = failed(&path, file::migrate(&mut conn).unwrap_err());
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    unchanged(&conn);
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    (directory, path)
}

fn stream(id: &str) -> StreamId {
    StreamId::new("thing", id).unwrap()
}

fn append(id: &str, count: usize, payload: usize) -> Commit {
    let event = Recorded {
        header: Header::new(stream(id), "thing.grew", 1, Timestamp::default()),
        payload: vec![b'7'; payload].into(),
    };
    Commit::new().append(stream(id), ExpectedVersion::Any, vec![event; count])
}

fn one(log: &Sqlite, commit: Commit) -> Result<u64, StoreError> {
    let outcome = log.commit(&mut [commit])?.remove(0);
    Ok(outcome.unwrap().last.as_u64())
}

fn read(log: &Sqlite, id: &str) -> u64 {
    let mut read = 0;
    log.read_stream(&stream(id), Version::EMPTY, &mut |_| {
        read += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    read
}

#[track_caller]
fn is_as_before(log: &Sqlite, id: CommandId, events: u64) {
    assert_eq!(log.head().unwrap().as_u64(), events);
    assert_eq!(read(log, "1"), events);
    assert_eq!(log.find_command(id).unwrap(), None);
    let page = log.read_log(Position::START, &Filter::All, 1_000).unwrap();
    assert_eq!(page.events.len() as u64, events);
}

fn with_writer(log: &Sqlite, work: impl FnOnce(&Connection)) {
    let writer = log.writer.lock();
    work(writer.log.as_ref().unwrap());
}

#[test]
fn a_log_can_be_shared_between_threads() {
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<Sqlite>();
    is_shared::<Arc<dyn EventStore>>();
}
