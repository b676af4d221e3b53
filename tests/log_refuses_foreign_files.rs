//! A file that is not a log of this format, or is in use, is refused with the reason and left as it is.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by a panic, in its helpers too"
)]

use std::path::Path;
use std::process::{Command, Stdio};

use std::io::{BufRead, BufReader};
use tidings::{CommandId, Commit, EventStore, ExpectedVersion, Sqlite, StoreError, StreamId};

const HOLD: &str = "TIDINGS_TEST_HOLD";

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    for content in ["hello\n".repeat(300), "x".to_owned()] {
        std::fs::write(&path, &content).unwrap();
        is_foreign(Sqlite::open(&path));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        is_alone(&path);
    }
}

#[test]
fn a_database_of_another_program_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.db");
    sql(&path, "CREATE TABLE events (position INTEGER PRIMARY KEY)");
    let before = std::fs::read(&path).unwrap();
    is_foreign(Sqlite::open(&path));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    is_alone(&path);
}

#[test]
fn the_index_of_a_log_is_not_taken_for_a_log() {
    let directory = tempfile::tempdir().unwrap();
    drop(Sqlite::open(directory.path().join("log.db")).unwrap());
    is_foreign(Sqlite::open(directory.path().join("log.index.db")));
}

#[test]
fn a_log_of_another_format_is_refused_with_both_formats() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    drop(Sqlite::open(&path).unwrap());
    sql(&path, "PRAGMA user_version = 3");
    match Sqlite::open(&path) {
        Err(error @ StoreError::Format { found: 3, known: 2, .. }) => {
            assert!(error.to_string().contains("log.db has format 3"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_is_opened_once_in_a_process_whatever_it_is_called() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let log = Sqlite::open(&path).unwrap();
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    is_locked(Sqlite::open(&path));
    is_locked(Sqlite::open(&link));
    is_locked(Sqlite::open(directory.path().join(".").join("log.db")));
    // The refused attempts must not have taken the first one's locks away with them.
    accepts(&log);
    is_locked(Sqlite::open(&path));
    drop(log);
    accepts(&Sqlite::open(&link).unwrap());
}

#[test]
fn a_log_that_another_process_has_open_is_refused_until_that_ends() {
    if let Some(path) = std::env::var_os(HOLD) {
        let _log = Sqlite::open(path).unwrap();
        println!("\nheld");
        // Until it is killed.
        loop {
            std::thread::park();
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("a_log_that_another_process_has_open_is_refused_until_that_ends")
        .env(HOLD, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));
    is_locked(Sqlite::open(&path));
    child.kill().unwrap();
    child.wait().unwrap();
    accepts(&Sqlite::open(&path).unwrap());
}

#[test]
fn a_directory_that_does_not_exist_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = Sqlite::open(directory.path().join("none/log.db")).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("none cannot be entered"), "{error}: {cause}");
}

#[test]
fn an_index_of_another_log_is_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let [ours, other] = ["ours.db", "other.db"].map(|name| directory.path().join(name));
    let command = CommandId::from_name("first");
    let log = Sqlite::open(&ours).unwrap();
    assert!(log.commit(&mut [check(command)]).unwrap()[0].is_ok());
    drop(log);
    drop(Sqlite::open(&other).unwrap());
    let index = directory.path().join("ours.index.db");
    std::fs::copy(directory.path().join("other.index.db"), &index).unwrap();
    knows(&ours, command);
    // Nothing was written into it before its program was killed.
    std::fs::write(&index, "").unwrap();
    knows(&ours, command);
}

#[test]
fn a_file_that_has_the_name_of_the_index_and_is_none_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let ours = directory.path().join("ours.db");
    let index = directory.path().join("ours.index.db");
    // Another log could be named like that.
    let command = CommandId::from_name("first");
    let log = Sqlite::open(&index).unwrap();
    assert!(log.commit(&mut [check(command)]).unwrap()[0].is_ok());
    drop(log);
    assert!(matches!(Sqlite::open(&ours), Err(StoreError::Foreign { .. })));
    knows(&index, command);
    std::fs::remove_file(&index).unwrap();
    std::fs::write(&index, "no database at all").unwrap();
    assert!(matches!(Sqlite::open(&ours), Err(StoreError::Foreign { .. })));
    assert_eq!(std::fs::read_to_string(&index).unwrap(), "no database at all");
}

#[test]
fn a_closed_log_is_one_file_that_can_be_copied() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let log = Sqlite::open(&path).unwrap();
    let command = CommandId::from_name("first");
    assert!(log.commit(&mut [check(command)]).unwrap()[0].is_ok());
    assert!(log.find_command(command).unwrap().is_some());
    log.read_log(tidings::Position::START, &tidings::Filter::All, 10).unwrap();
    drop(log);
    assert!(!directory.path().join("log.db-wal").exists());
    let copy = directory.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    knows(&copy, command);
}

#[test]
fn an_index_that_is_ahead_of_a_restored_log_is_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let [path, backup] = ["log.db", "backup"].map(|name| directory.path().join(name));
    let (kept, lost) = (CommandId::from_name("kept"), CommandId::from_name("lost"));
    let commit = |command| {
        let log = Sqlite::open(&path).unwrap();
        log.commit(&mut [check(command)]).unwrap()[0].is_ok()
    };
    assert!(commit(kept));
    std::fs::copy(&path, &backup).unwrap();
    assert!(commit(lost));
    std::fs::copy(&backup, &path).unwrap();
    knows(&path, kept);
    assert!(commit(lost), "the restored log does not know this command");

    // Restored again, and grown past the index by other commands: only the ids tell.
    std::fs::copy(directory.path().join("log.index.db"), directory.path().join("old.index"))
        .unwrap();
    std::fs::copy(&backup, &path).unwrap();
    assert!(commit(CommandId::from_name("another")));
    assert!(commit(CommandId::from_name("and another")));
    std::fs::copy(directory.path().join("old.index"), directory.path().join("log.index.db"))
        .unwrap();
    assert!(commit(lost));
}

fn check(command: CommandId) -> Commit {
    let stream = StreamId::new("account", "1").unwrap();
    Commit::new().append(stream, ExpectedVersion::Any, vec![]).command_id(command)
}

#[track_caller]
fn knows(path: &Path, command: CommandId) {
    let log = Sqlite::open(path).unwrap();
    assert!(log.find_command(command).unwrap().is_some());
    assert!(log.commit(&mut [check(command)]).unwrap()[0].is_err());
}

#[track_caller]
fn accepts(log: &Sqlite) {
    assert!(log.commit(&mut [check(CommandId::fresh())]).unwrap()[0].is_ok());
}

#[track_caller]
fn is_foreign(result: Result<Sqlite, StoreError>) {
    assert!(matches!(result, Err(StoreError::Foreign { kind: "log", .. })), "{result:?}");
}

#[track_caller]
fn is_locked(result: Result<Sqlite, StoreError>) {
    assert!(matches!(result, Err(StoreError::Locked { .. })), "{result:?}");
}

#[track_caller]
fn is_alone(path: &Path) {
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap();
    let names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names, [path.file_name().unwrap()]);
}

fn sql(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
}
