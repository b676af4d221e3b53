//! Guarantees 6, 19, 20, 21, 22 and 23 under SIGKILL: whenever the process is killed, no acknowledged command is lost and none takes
//! effect twice, every view is the fold of its log, every guarded effect is there once, every caused event is there once, and
//! what is parked stays in order.
//!
//! In a file of its own: a process that is about to start shares the lock of every open log for a moment.
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
#[path = "support/effects.rs"]
mod effects;
#[path = "support/orders.rs"]
mod orders;
#[path = "support/orders_log.rs"]
mod orders_log;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bank::{Dice, sqlite, until};
use effects::{Charges, Done, Letterbox, Sent, Stamps};
use futures_util::future::try_join_all;
use orders::{AllRules, Book, Files, Picky, Place, Seen, WRITERS, start};
use orders_log::OrdersLog;
use tidings::{App, ConsumerLetters, Letter, LetterError, LetterState, ResolutionKind};

/// How often the process is killed, unless the variable says otherwise.
const KILLS: u64 = 25;
const KILLS_VARIABLE: &str = "TIDINGS_KILLS";

/// What the killed process is told by: its files, the seed of its dice, and the number that each writer begins with.
const CHILD: &str = "TIDINGS_TEST_FILES_OF_CHILD";
const SEED: &str = "TIDINGS_TEST_SEED_OF_CHILD";
const NUMBERS: &str = "TIDINGS_TEST_NUMBERS_OF_CHILD";

/// How many of its last commands a writer sends again when it begins.
const AGAIN: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_consumer_stands_where_it_should_after_kills_at_any_moment() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return write_until_killed(Path::new(&directory)).await;
    }
    let kills = std::env::var(KILLS_VARIABLE).map_or(KILLS, |kills| kills.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let files = Files(directory.path().to_owned());
    let mut dice = Dice::new(19);
    let mut log = OrdersLog::default();
    let (mut acknowledged, mut letters, mut rebuilds) = (0, 0, 0);
    for kill in 0..kills {
        let commands = run_and_kill(directory.path(), &log, &mut dice);
        acknowledged += commands.len();
        rebuilds += files.shadows();
        // What the next life finds is either what this one has left, or what an app has made of it.
        log.read_on(&sqlite(files.log()));
        log.check_acknowledged(&sqlite(files.log()), &commands);
        let is_last = kill + 1 == kills;
        if is_last || dice.chance(50) {
            letters +=
                check_app(&files, &mut log, is_last || dice.chance(30), is_last || dice.chance(30))
                    .await;
        }
    }
    log.check_whole(&sqlite(files.log()));
    println!(
        "{kills} kills, {acknowledged} acknowledged commands, {rebuilds} rebuilds cut off, {letters} letters, {log}"
    );
    assert!(acknowledged as u64 > kills && letters > 0);
}

/// A command that was answered.
#[derive(Debug)]
struct Acknowledged {
    place: Place,
    position: u64,
}

/// Runs this same test as a child process, kills it at a random moment, and returns what it has acknowledged.
fn run_and_kill(directory: &Path, log: &OrdersLog, dice: &mut Dice) -> Vec<Acknowledged> {
    let numbers: Vec<_> = (0..WRITERS)
        .map(|writer| log.next_number(writer).saturating_sub(AGAIN).to_string())
        .collect();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("every_consumer_stands_where_it_should_after_kills_at_any_moment")
        .env(CHILD, directory)
        .env(SEED, dice.roll().to_string())
        .env(NUMBERS, numbers.join(" "))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    // While it starts, at its first acknowledgements, or in full swing. Each ends in the middle of something else.
    let (wanted, pause) = match dice.below(4) {
        0 => (0, dice.below(50)),
        1 => (1, dice.below(50)),
        _ => (1 + dice.below(300) as usize, dice.below(3)),
    };
    while acknowledged.len() < wanted {
        let line = lines.next().expect("the child ended by itself").unwrap();
        acknowledged.extend(parse(&line));
    }
    std::thread::sleep(Duration::from_millis(pause));
    assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged.extend(lines.map_while(Result::ok).filter_map(|line| parse(&line)));
    acknowledged
}

/// Reads an acknowledgement; the last line may be torn.
fn parse(line: &str) -> Option<Acknowledged> {
    let words = line.strip_prefix("acknowledged ")?.strip_suffix(" end")?.split(' ');
    let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
    let place = Place { writer: numbers[0], number: numbers[1] };
    Some(Acknowledged { place, position: numbers[2] })
}

/// The life of the child.
async fn write_until_killed(directory: &Path) {
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let numbers = std::env::var(NUMBERS).unwrap();
    let (app, rules) = start(&Files(directory.to_owned())).await;
    let rules = Arc::new(rules);
    let writers = numbers.split(' ').zip(0..).map(|(number, writer)| {
        let dice = Dice::new(seed.wrapping_add(writer));
        let number = number.parse().unwrap();
        tokio::spawn(write(app.clone(), Arc::clone(&rules), dice, writer, number))
    });
    // The first that fails ends the process, which the parent notices.
    try_join_all(writers.collect::<Vec<_>>()).await.unwrap();
}

async fn write(app: App, rules: Arc<AllRules>, mut dice: Dice, writer: u64, first: u64) {
    // Far longer than it lives, should nobody kill it.
    let end = Instant::now() + Duration::from_secs(60);
    for number in (first..).take_while(|_| Instant::now() < end) {
        let place = Place { writer, number };
        let id = place.id();
        let receipt = app.send(place.order(), place).command_id(id).await.unwrap();
        println!("acknowledged {writer} {number} {} end", receipt.position);
        if dice.chance(2) {
            meddle(&app, &rules, &mut dice).await;
        }
    }
}

/// Why letters are discarded.
const REASON: &str = "the dice fell so";

/// Does what a person might do meanwhile.
async fn meddle(app: &App, rules: &AllRules, dice: &mut Dice) {
    match dice.chance(30) {
        true => rebuild(app, rules, dice),
        false => look_at_letters(app, rules, dice).await,
    }
}

/// Begins to build a view anew, or goes back to an old one; if that is not possible just now, it is left.
fn rebuild(app: &App, rules: &AllRules, dice: &mut Dice) {
    match dice.below(6) {
        0 => drop(app.rebuild::<Seen>().begin()),
        1 => drop(app.rebuild::<Book>().begin()),
        2 => drop(app.rebuild::<Book>().keep_old().begin()),
        3 => drop(app.switch_back::<Book>().begin()),
        4 => drop(app.rebuild_with(rules.picky()).begin()),
        _ => drop(app.cancel_rebuild::<Book>()),
    }
}

async fn look_at_letters(app: &App, rules: &AllRules, dice: &mut Dice) {
    let consumers: Vec<_> = app.letters().consumers().collect();
    let letters = consumers[dice.below(consumers.len() as u64) as usize];
    let Some(letter) = letters.list().into_iter().find(|letter| letter.tried > 0) else {
        return;
    };
    let outcome = match dice.below(3) {
        0 => letters.retry(letter.position).await,
        1 => letters.discard(letter.position, REASON).await,
        _ => {
            rules.mend(true);
            let outcome = letters.retry_key(&letter.key).await;
            rules.mend(false);
            outcome
        }
    };
    match outcome {
        Ok(_) => {}
        // Another writer was faster, or the letter stands where the consumer has yet to come.
        Err(
            LetterError::NotFound { .. }
            | LetterError::NotFirst { .. }
            | LetterError::NotReached { .. },
        ) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Starts an app on what was left, lets it come to rest, and looks at everything that its consumers keep. Returns how many
/// letters there are.
async fn check_app(files: &Files, log: &mut OrdersLog, rebuilds: bool, mends: bool) -> usize {
    let (app, rules) = start(files).await;
    assert_eq!(files.shadows(), 0, "a rebuild that was cut off is left");
    settle(&app).await;
    log.read_on(app.store());
    check_consumers(&app, files, log).await;
    let letters = app.status().consumers.iter().map(|consumer| consumer.letters).sum();
    if rebuilds {
        app.rebuild::<Seen>().await.unwrap();
        app.rebuild::<Book>().await.unwrap();
        app.rebuild_with(rules.picky()).await.unwrap();
        settle(&app).await;
        check_consumers(&app, files, log).await;
    }
    if mends {
        rules.mend(true);
        drain(&app).await;
        log.read_on(app.store());
        check_consumers(&app, files, log).await;
    }
    app.shutdown().await.unwrap();
    letters
}

/// Deals with all letters.
async fn drain(app: &App) {
    // Some of those behind fail with an error that passes, and have had all of their attempts in earlier lives.
    for _ in 0..100 {
        for letters in app.letters().consumers() {
            for letter in firsts(letters).into_values() {
                let retried = match letters.consumer() {
                    // Its decisions do not change.
                    "parcel" => letters.discard(letter.position, REASON).await,
                    _ => letters.retry(letter.position).await,
                };
                retried.unwrap();
            }
        }
        settle(app).await;
        if app.letters().is_empty() {
            return;
        }
    }
    panic!("letters are left: {:?}", app.letters());
}

/// Waits until nothing moves any more.
async fn settle(app: &App) {
    until("the app has come to rest", || {
        let (status, head) = (app.status(), app.head());
        status.consumers.iter().all(|consumer| consumer.position >= head)
            && app.letters().consumers().all(|letters| {
                firsts(letters).values().all(|first| first.state == LetterState::Parked)
            })
    })
    .await;
}

/// The first letter of each key.
fn firsts(letters: &ConsumerLetters) -> BTreeMap<Arc<str>, Letter> {
    let mut firsts = BTreeMap::new();
    for letter in letters.list() {
        firsts.entry(Arc::clone(&letter.key)).or_insert(letter);
    }
    firsts
}

async fn check_consumers(app: &App, files: &Files, log: &OrdersLog) {
    assert_eq!(app.head().as_u64(), log.head());
    let (of_orders, of_writers) = (log.of_orders(), log.of_writers());
    assert_eq!(app.view::<Seen>().at_least(app.head()).await.unwrap().0, of_orders);
    let book = app.view::<Book>().at_least(app.head()).await.unwrap();
    assert_eq!(book.query(Book::read).await.unwrap(), of_orders);

    let picky = app.view::<Picky>().at_least(app.head()).await.unwrap();
    let picked = picky.query(Picky::read).await.unwrap();
    check_once(app, "picky", &picked, &of_writers, Parked::NotDone);
    let stamped = picky.query(Stamps::read).await.unwrap();
    check_once(app, "stamps", &stamped, &of_writers, Parked::PerhapsDone);
    let charged = Charges::read(&files.charges()).unwrap();
    check_once(app, "charges", &charged, &of_writers, Parked::PerhapsDone);
    check_once(app, "parcel", log.packed(), &log.of_parcels(), Parked::PerhapsDone);
    check_letterbox(app, &Letterbox::read(&files.letterbox()), &of_orders);
}

/// What may be true of events that are parked.
#[derive(PartialEq)]
enum Parked {
    /// They are not done.
    NotDone,
    /// Some may be done: one failed after its effect, or the process was killed before it was written down that they are done.
    PerhapsDone,
}

/// Of each key, what is done and behind it what is parked are all of its events, in order and each once, but those that were
/// discarded.
#[track_caller]
fn check_once(app: &App, consumer: &str, done: &Done, all: &Done, may_be: Parked) {
    let (parked, discarded) = parked(app, consumer);
    let left = |positions: Option<&Vec<u64>>| -> Vec<u64> {
        positions.into_iter().flatten().copied().filter(|p| !discarded.contains(p)).collect()
    };
    for (key, all) in all {
        let done = left(done.get(key));
        let parked = left(parked.get(key));
        let all = left(Some(all));
        let expected = all.len().saturating_sub(parked.len());
        let told = || format!("{consumer} at {key}: done {done:?}, parked {parked:?}, of {all:?}");
        assert!(all.starts_with(&done) && all.ends_with(&parked), "{}", told());
        match may_be {
            Parked::NotDone => assert_eq!(done.len(), expected, "{}", told()),
            Parked::PerhapsDone => assert!(done.len() >= expected, "{}", told()),
        }
    }
}

/// In each life the events of an order were handled one after the other, from one on that was not known to be done. Each was
/// handled, with one id in all lives, but those that are parked or were discarded.
#[track_caller]
fn check_letterbox(app: &App, lives: &[Vec<Sent>], all: &Done) {
    let (parked, discarded) = parked(app, "letterbox");
    let mut ids = HashMap::new();
    let mut done: HashMap<&str, usize> = HashMap::new();
    let left: HashMap<&str, Vec<u64>> = all
        .iter()
        .map(|(key, all)| {
            (&**key, all.iter().copied().filter(|p| !discarded.contains(p)).collect())
        })
        .collect();
    for life in lives {
        let mut next = HashMap::new();
        for Sent { id, position, stream } in life {
            assert_eq!(*ids.entry(*position).or_insert(id), id, "at {position}");
            if discarded.contains(position) {
                continue;
            }
            let left = &left[&**stream];
            let index = left.binary_search(position).unwrap();
            let expected = next.get(&**stream).copied().unwrap_or(index);
            assert_eq!(index, expected, "at {position} of {stream}");
            next.insert(&**stream, index + 1);
            let done = done.entry(stream).or_default();
            assert!(
                index <= *done,
                "nothing was done of {stream} from {} to {position}",
                left[*done]
            );
            *done = (*done).max(index + 1);
        }
    }
    assert_eq!(ids.values().collect::<HashSet<_>>().len(), ids.len());
    for (key, left) in left {
        let done = done.get(key).copied().unwrap_or_default();
        let parked = parked.get(key).map_or(&[][..], |parked| parked);
        assert!(parked.ends_with(&left[done..]), "{key}: {parked:?}, but not {:?}", &left[done..]);
    }
}

/// The positions that are parked, by key, and those that were discarded.
fn parked(app: &App, consumer: &str) -> (Done, HashSet<u64>) {
    let letters = app.letters().of(consumer).unwrap();
    for first in firsts(letters).values() {
        assert!(first.state == LetterState::Parked && first.tried > 0, "{first:?}");
    }
    let mut parked = Done::new();
    for letter in letters.list() {
        parked.entry(letter.key.to_string()).or_default().push(letter.position.as_u64());
    }
    let discarded = letters.resolutions().into_iter().map(|resolution| {
        assert!(matches!(
            resolution.kind,
            ResolutionKind::Discarded { reason } if reason == REASON
        ));
        resolution.position.as_u64()
    });
    (parked, discarded.collect())
}
