//! Whoever is told that a subject is forgotten can rely on it, whenever the process ends and whichever file is restored from a
//! backup; and the log says of each that is forgotten that it is, once.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "personal", feature = "sqlite", feature = "testing"))]

#[path = "support/people.rs"]
mod people;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use people::*;
use tidings::personal::adopt_keys;
use tidings::testing::{Fault, Faulty, Operation};
use tidings::{
    App, EventStore, Filter, ForgetError, Outcome, Position, Sqlite, StartError, StoreError,
    SubjectEvent, SubjectForgotten,
};

/// Of whom the log says that they are forgotten, in its order.
fn told(log: &dyn EventStore) -> Vec<String> {
    let page = log.read_log(Position::START, &Filter::All, usize::MAX).unwrap();
    let told = page.events.iter().filter(|event| event.name == "tidings.subject_forgotten");
    let event = told.map(|event| event.decode::<SubjectEvent>().unwrap());
    event
        .map(|event| match event {
            SubjectEvent::Forgotten(SubjectForgotten { subject, .. }) => subject,
            other => panic!("it is another event: {other:?}"),
        })
        .collect()
}

async fn start(store: impl EventStore) -> App {
    App::builder().store(store).aggregate::<Customer>().start().await.unwrap()
}

#[tokio::test]
async fn a_log_that_cannot_be_told_is_told_when_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let (store, faults) = Faulty::new(Sqlite::open(directory.path().join("bank.db")).unwrap());
    let app = start(store).await;
    app.send("7", Join::new("c-7", "Ada")).await.unwrap();
    faults.fail(Operation::Commit, 1, Fault::Full);
    assert!(matches!(app.forget("c-7").await, Err(ForgetError::Log(_))));
    assert_eq!(ask(&app, "7").await.name, forgotten("c-7"));
    assert_eq!(told(app.store()), [""; 0]);
    assert_eq!(app.forget("c-7").await.unwrap().outcome, Outcome::Applied);
    assert_eq!(told(app.store()), ["c-7"]);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_crash_on_either_side_of_the_commit_is_made_good_at_the_next_start() {
    for fault in [Fault::Crash, Fault::CrashAfterwards] {
        let directory = tempfile::tempdir().unwrap();
        let (store, faults) = Faulty::new(Sqlite::open(directory.path().join("bank.db")).unwrap());
        let app = start(store).await;
        app.send("7", Join::new("c-7", "Ada")).await.unwrap();
        faults.fail(Operation::Commit, 1, fault);
        assert!(matches!(app.forget("c-7").await, Err(ForgetError::Log(_))));
        app.shutdown_within(Duration::ZERO).await.ok();
        drop(app);
        let (store, _) = faults.restart();
        let app = start(store).await;
        assert_eq!(told(app.store()), ["c-7"]);
        assert_eq!(ask(&app, "7").await.name, forgotten("c-7"));
        assert_eq!(app.forget("c-7").await.unwrap().outcome, Outcome::AlreadyKnown);
        app.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn keys_that_cannot_be_written_fail_the_command_and_go_with_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("bank.keys.db");
    let app = start(Sqlite::open(directory.path().join("bank.db")).unwrap()).await;
    app.send("1", Join::new("c-1", "Ada")).await.unwrap();
    // Another program writes to the file, and does not end in time.
    let other = open_keys(&keys);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = app.send("2", Join::new("c-2", "Grace")).await.unwrap_err();
    assert!(texts(&refused).contains("bank.keys.db"), "{}", texts(&refused));
    // Of a known subject there is nothing to write; and what was refused is not in the log.
    other.execute_batch("COMMIT").unwrap();
    app.send("3", Join::new("c-1", "Ada")).await.unwrap();
    app.send("4", Join::new("c-2", "Grace")).await.unwrap();
    assert_eq!(ask(&app, "2").await.name, None);
    app.shutdown().await.unwrap();
    drop(app);
    let app = start(Sqlite::open(directory.path().join("bank.db")).unwrap()).await;
    assert_eq!(ask(&app, "4").await.name, known("Grace"));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_backup_of_either_file_brings_nobody_back() {
    for restored in ["bank.keys.db", "bank.db"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bank.db");
        let app = start(Sqlite::open(&path).unwrap()).await;
        app.send("7", Join::new("c-7", "Ada")).await.unwrap();
        app.send("8", Join::new("c-8", "Grace")).await.unwrap();
        app.shutdown().await.unwrap();
        drop(app);
        let backup = std::fs::read(directory.path().join(restored)).unwrap();
        let app = start(Sqlite::open(&path).unwrap()).await;
        app.forget("c-7").await.unwrap();
        app.send("9", Join::new("c-9", "Mary")).await.unwrap();
        app.shutdown().await.unwrap();
        drop(app);
        std::fs::write(directory.path().join(restored), backup).unwrap();
        let app = start(Sqlite::open(&path).unwrap()).await;
        assert_eq!(ask(&app, "7").await.name, forgotten("c-7"), "{restored}");
        assert_eq!(ask(&app, "8").await.name, known("Grace"), "{restored}");
        assert_eq!(told(app.store()), ["c-7"], "{restored}");
        assert!(app.send("7", Join::new("c-7", "Ada")).await.is_err());
        app.shutdown().await.unwrap();
    }
}

/// An older log that could not be told at once is told later, also when it has grown beyond where it said so before.
#[tokio::test]
async fn a_log_from_a_backup_that_cannot_be_told_at_once_is_told_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bank.db");
    let app = start(Sqlite::open(&path).unwrap()).await;
    app.send("7", Join::new("c-7", "Ada")).await.unwrap();
    app.shutdown().await.unwrap();
    drop(app);
    let backup = std::fs::read(&path).unwrap();
    let app = start(Sqlite::open(&path).unwrap()).await;
    app.forget("c-7").await.unwrap();
    app.shutdown().await.unwrap();
    drop(app);
    std::fs::write(&path, backup).unwrap();
    let (store, faults) = Faulty::new(Sqlite::open(&path).unwrap());
    faults.fail(Operation::Commit, 1, Fault::Full);
    let app = start(store).await;
    for id in ["8", "9"] {
        app.send(id, Join::new("c-8", "Grace")).await.unwrap();
    }
    assert_eq!(told(app.store()), [""; 0]);
    app.shutdown().await.unwrap();
    drop((app, faults));
    let app = start(Sqlite::open(&path).unwrap()).await;
    assert_eq!(told(app.store()), ["c-7"]);
    app.shutdown().await.unwrap();
}

/// An imported log is another one; the keys go to it when somebody says so.
#[cfg(feature = "transfer")]
#[tokio::test]
async fn an_imported_log_is_given_the_keys_and_told_who_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bank.db");
    let app = start(Sqlite::open(&path).unwrap()).await;
    for (id, name) in [("7", "Ada"), ("8", "Grace"), ("9", "Mary")] {
        app.send(id, Join::new(&format!("c-{id}"), name)).await.unwrap();
    }
    app.forget("c-7").await.unwrap();
    let mut export = Vec::new();
    tidings::transfer::export_log(app.store(), &mut export).unwrap();
    app.forget("c-9").await.unwrap();
    app.shutdown().await.unwrap();
    drop(app);

    let other = tempfile::tempdir().unwrap();
    let (path, keys) = (other.path().join("bank.db"), other.path().join("bank.keys.db"));
    tidings::transfer::import(&Sqlite::open(&path).unwrap(), export.as_slice()).unwrap();
    std::fs::copy(directory.path().join("bank.keys.db"), &keys).unwrap();
    let refused = || App::builder().store(Sqlite::open(&path).unwrap()).start();
    assert!(matches!(refused().await, Err(StartError::Keys(StoreError::Foreign { .. }))));
    adopt_keys(&keys, &Sqlite::open(&path).unwrap()).unwrap();
    for _ in 0..2 {
        let app = start(Sqlite::open(&path).unwrap()).await;
        assert_eq!(ask(&app, "7").await.name, forgotten("c-7"));
        assert_eq!(ask(&app, "8").await.name, known("Grace"));
        assert_eq!(ask(&app, "9").await.name, forgotten("c-9"));
        assert_eq!(told(app.store()), ["c-7", "c-9"]);
        let adopted = adopt_keys(&keys, app.store());
        assert!(matches!(adopted, Err(StoreError::Locked { .. })), "{adopted:?}");
        app.shutdown().await.unwrap();
    }
    // What is no file of keys stays as it is.
    let log = Sqlite::open(other.path().join("other.db")).unwrap();
    assert!(matches!(adopt_keys(&path, &log), Err(StoreError::Foreign { .. })));
    assert!(matches!(adopt_keys(other.path().join("none"), &log), Err(StoreError::Failed { .. })));
    assert!(!other.path().join("none").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_are_on_their_way_come_before_or_are_unreadable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bank.db");
    let app = start(Sqlite::open(&path).unwrap()).await;
    let (mut written, mut refused) = (0, 0);
    for number in 0..40_u32 {
        let subject = format!("c-{number}");
        // Its first key may be made, saved and destroyed at the same moment.
        let sends = (0..6).map(|copy| {
            let (app, subject) = (app.clone(), subject.clone());
            tokio::spawn(async move {
                let sent = app.send(format!("{number}/{copy}"), Join::new(&subject, "Ada")).await;
                sent.map_err(|error| texts(&error))
            })
        });
        let sends: Vec<_> = sends.collect();
        if number % 2 == 0 {
            tokio::task::yield_now().await;
        }
        app.forget(&*subject).await.unwrap();
        for copy in 0..6 {
            let name = ask(&app, &format!("{number}/{copy}")).await.name;
            assert!(name.is_none() || name == forgotten(&subject), "{name:?}");
        }
        for sent in sends {
            match sent.await.unwrap() {
                Ok(_) => written += 1,
                Err(error) => {
                    assert!(error.contains("is forgotten"), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(written + refused == 240 && refused > 0, "{written} were written, {refused} refused");
    app.shutdown().await.unwrap();
    drop(app);
    let app = start(Sqlite::open(&path).unwrap()).await;
    for number in 0..40 {
        for copy in 0..6 {
            let name = ask(&app, &format!("{number}/{copy}")).await.name;
            assert!(name.is_none() || name == forgotten(&format!("c-{number}")), "{name:?}");
        }
    }
    assert_eq!(told(app.store()).len(), 40);
    app.shutdown().await.unwrap();
}

const DIRECTORY: &str = "TIDINGS_TEST_DIRECTORY";
const FIRST: &str = "TIDINGS_TEST_FIRST";
const ROUNDS: u64 = 6;

#[test]
fn a_killed_process_keeps_every_key_it_needs_and_none_that_is_destroyed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let first = std::env::var(FIRST).unwrap().parse().unwrap();
        runtime.block_on(work_until_killed(Path::new(&directory), first));
    }
    let directory = tempfile::tempdir().unwrap();
    let (mut joined, mut gone) = (HashSet::new(), HashSet::new());
    let mut first = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("a_killed_process_keeps_every_key_it_needs_and_none_that_is_destroyed")
            .env(DIRECTORY, directory.path())
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        let mut take = |line: String| {
            if let Some(number) = line.strip_prefix("joined ") {
                joined.insert(number.parse::<u64>().unwrap());
            } else if let Some(number) = line.strip_prefix("gone ") {
                gone.insert(number.parse::<u64>().unwrap());
            } else {
                return 0;
            }
            1
        };
        while seen < 10 + round * 7 {
            seen += take(lines.next().expect("the child ended by itself").unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            take(line);
        }
        runtime.block_on(check(directory.path(), &joined, &gone));
        first = joined.iter().max().unwrap() + 1_000;
    }
    assert!(gone.len() as u64 > ROUNDS);
}

async fn work_until_killed(directory: &Path, first: u64) {
    let app = start(Sqlite::open(directory.join("bank.db")).unwrap()).await;
    let say = |what: &str, number: u64| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{what} {number}").unwrap();
        out.flush().unwrap();
    };
    for number in first.. {
        let subject = format!("c-{number}");
        let name = format!("name {number}");
        app.send(number.to_string(), Join::new(&subject, &name)).await.unwrap();
        say("joined", number);
        if number % 3 == 0 {
            app.forget(subject).await.unwrap();
            say("gone", number);
        }
    }
}

async fn check(directory: &Path, joined: &HashSet<u64>, gone: &HashSet<u64>) {
    let app = start(Sqlite::open(directory.join("bank.db")).unwrap()).await;
    let told = told(app.store());
    let once: HashSet<_> = told.iter().cloned().collect();
    assert_eq!(once.len(), told.len(), "the log says it twice");
    for number in joined {
        let subject = format!("c-{number}");
        let name = ask(&app, &number.to_string()).await.name;
        if gone.contains(number) {
            assert_eq!(name, forgotten(&subject));
        }
        // One that was being forgotten is either, and all agree on it.
        match once.contains(&subject) {
            true => assert_eq!(name, forgotten(&subject)),
            false => assert_eq!(name, known(&format!("name {number}"))),
        }
    }
    app.shutdown().await.unwrap();
}
