//! Guarantee 20 under SIGKILL: whenever the process is killed, an effect and its key are both there or both gone, and whoever
//! calls again gets the answer that was given.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "macros", feature = "sqlite", unix))]

#[path = "support/bank.rs"]
mod bank;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bank::Dice;
use tidings::sqlite::rusqlite::{self, Connection, TransactionBehavior};
use tidings::{InboxError, idempotent};

/// What the killed process is told by.
const CHILD: &str = "TIDINGS_TEST_DATABASE_OF_CHILD";

/// How many ids a process calls that others have called before it.
const REPEATED: i64 = 20;

#[derive(Debug, thiserror::Error)]
enum ChargeError {
    #[error(transparent)]
    Inbox(#[from] InboxError),
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
}

/// Two rows, so that an effect can be cut in half.
#[idempotent(name = "charge", key = id, keep = "7 days")]
fn charge(db: &Connection, id: i64) -> Result<i64, ChargeError> {
    db.execute("INSERT INTO charges (id) VALUES (?1)", [id])?;
    let number = db.last_insert_rowid();
    db.execute("INSERT INTO receipts VALUES (?1, ?2)", [id, number])?;
    Ok(number)
}

fn open(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(60)).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = OFF;
         CREATE TABLE IF NOT EXISTS charges (number INTEGER PRIMARY KEY, id INTEGER NOT NULL);
         CREATE TABLE IF NOT EXISTS receipts (id INTEGER NOT NULL, number INTEGER NOT NULL);",
    )
    .unwrap();
    db
}

fn pairs(db: &Connection, sql: &str) -> Vec<(i64, i64)> {
    let mut rows = db.prepare(sql).unwrap();
    let pairs = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    pairs.map(Result::unwrap).collect()
}

#[test]
fn a_process_that_is_killed_again_and_again_has_each_effect_once() {
    if let Some(path) = std::env::var_os(CHILD) {
        return charge_until_killed(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    let mut dice = Dice::new(20);
    let mut answers = BTreeMap::new();
    for _ in 0..40 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("a_process_that_is_killed_again_and_again_has_each_effect_once")
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It is killed at any point once it has given an answer to something new.
        let lines = 2 * REPEATED as usize + 1 + dice.below(100) as usize;
        let output = BufReader::new(child.stdout.take().unwrap());
        let given: Vec<(i64, i64)> = output
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| {
                let (id, number) = line.strip_prefix("charged ")?.split_once(' ')?;
                Some((id.parse().ok()?, number.parse().ok()?))
            })
            .take(lines)
            .collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(given.len(), lines, "the child ended by itself");
        for (id, number) in given {
            assert_eq!(*answers.entry(id).or_insert(number), number);
        }

        let db = open(&path);
        let charges = pairs(&db, "SELECT id, number FROM charges ORDER BY id");
        assert!(charges.windows(2).all(|pair| pair[0].0 < pair[1].0), "an effect took place twice");
        assert_eq!(pairs(&db, "SELECT id, number FROM receipts ORDER BY id"), charges);
        let kept =
            "SELECT CAST(key AS INTEGER), CAST(answer AS INTEGER) FROM tidings_inbox ORDER BY 1";
        assert_eq!(pairs(&db, kept), charges);
        let charges = BTreeMap::from_iter(charges);
        assert!(answers.iter().all(|(id, number)| charges.get(id) == Some(number)));
    }
}

fn charge_until_killed(path: &Path) {
    let known: i64 =
        open(path).query_row("SELECT count(*) FROM charges", [], |row| row.get(0)).unwrap();
    let first = known.saturating_sub(REPEATED).max(0);
    // Far longer than it lives, should nobody kill it.
    let end = Instant::now() + Duration::from_secs(60);
    let calls = || (first..).take_while(|_| Instant::now() < end);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let db = open(path);
            for id in calls() {
                println!("charged {id} {}", charge(&db, id).unwrap());
            }
        });
        scope.spawn(|| {
            let mut db = open(path);
            for id in calls() {
                let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
                let number = charge(&tx, id).unwrap();
                tx.commit().unwrap();
                println!("charged {id} {number}");
            }
        });
    });
}
