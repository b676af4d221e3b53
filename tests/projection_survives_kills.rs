//! Guarantee 19 under SIGKILL: whenever the process is killed, each event affects the view exactly once.
//!
//! In a file of its own: a process that is about to start shares the lock of every open log for a moment.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "sqlite", unix))]

#[path = "support/bank.rs"]
mod bank;
#[path = "support/book.rs"]
mod book;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bank::*;
use book::*;

/// What the killed process is told by.
const CHILD: &str = "TIDINGS_TEST_LOG_OF_CHILD";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_again_and_again_folds_each_event_once() {
    if let Some(path) = std::env::var_os(CHILD) {
        return commit_until_killed(Path::new(&path)).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let mut dice = Dice::new(19);
    let mut heads = vec![0];
    for _ in 0..60 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("a_process_that_is_killed_again_and_again_folds_each_event_once")
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It is killed at any point once it has acknowledged something.
        let lines = 1 + dice.below(60) as usize;
        let output = BufReader::new(child.stdout.take().unwrap());
        let acknowledged = output
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok())
            .take(lines)
            .last();
        child.kill().unwrap();
        child.wait().unwrap();

        let app = start::<1>(&path).await;
        let head = app.head().as_u64();
        assert!(head >= acknowledged.expect("the child ended by itself"));
        assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
        heads.push(head);
        app.shutdown().await.unwrap();
    }
    assert!(heads.is_sorted_by(|a, b| a < b), "{heads:?}");
}

async fn commit_until_killed(path: &Path) {
    let app = start::<1>(path).await;
    // Several writers, so that the view is busy at any moment.
    let writers = (0..8).map(|writer| {
        let app = app.clone();
        tokio::spawn(async move {
            // Far longer than it lives, should nobody kill it.
            let end = std::time::Instant::now() + Duration::from_secs(60);
            while std::time::Instant::now() < end {
                let receipt = app.send(writer.to_string(), Deposit { cents: 1 }).await;
                println!("acknowledged {}", receipt.unwrap().position);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}
