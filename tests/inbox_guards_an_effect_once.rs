//! Guarantee 20: an effect with an inbox key in its own transaction takes place once, and each repeat gets the answer that
//! the first call gave.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "macros", feature = "sqlite"))]

use std::cell::Cell;
use std::collections::HashMap;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tidings::sqlite::rusqlite::{
    self, Connection, Savepoint, Transaction, TransactionBehavior, params,
};
use tidings::{
    App, Command, Event, Header, InboxError, Memory, Sqlite, aggregate, idempotent, projection,
};

#[derive(Clone, Serialize)]
struct Charge {
    id: String,
    cents: i64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Charged {
    number: i64,
}

#[derive(Debug, thiserror::Error)]
enum ChargeError {
    #[error("declined")]
    Declined,
    #[error(transparent)]
    Inbox(#[from] InboxError),
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
}

fn request(id: &str, cents: i64) -> Charge {
    Charge { id: id.to_owned(), cents }
}

fn open(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE IF NOT EXISTS charges (number INTEGER PRIMARY KEY, cents INTEGER NOT NULL)",
    )
    .unwrap();
    db
}

fn memory() -> Connection {
    open(Path::new(":memory:"))
}

/// The effect: a new row, and its number.
fn insert(db: &Connection, cents: i64) -> rusqlite::Result<Charged> {
    db.execute("INSERT INTO charges (cents) VALUES (?1)", [cents])?;
    Ok(Charged { number: db.last_insert_rowid() })
}

#[idempotent(name = "charge", key = request.id, keep = "7 days")]
fn charge(tx: &Transaction<'_>, request: &Charge) -> Result<Charged, ChargeError> {
    let charged = insert(tx, request.cents)?;
    match request.cents {
        ..0 => Err(ChargeError::Declined),
        0 => panic!("nothing to charge"),
        _ => Ok(charged),
    }
}

/// Calls in a transaction of its own, and commits whatever comes back.
fn committed<T>(db: &mut Connection, call: impl FnOnce(&Transaction<'_>) -> T) -> T {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let outcome = call(&tx);
    tx.commit().unwrap();
    outcome
}

fn count(db: &Connection, table: &str) -> i64 {
    db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// How many charges there are, and how many keys.
#[track_caller]
fn check(db: &Connection, charges: i64, keys: i64) {
    assert_eq!((count(db, "charges"), count(db, "tidings_inbox")), (charges, keys));
}

/// Lets every key age by this much.
fn age(db: &Connection, by: i64) {
    db.execute("UPDATE tidings_inbox SET expires = expires - ?1", [by]).unwrap();
}

/// Seconds since the Unix epoch.
fn seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

const WEEK: i64 = 7 * 24 * 60 * 60;

#[test]
fn a_repeat_gets_the_first_answer_and_has_no_effect() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    for _ in 0..3 {
        let mut db = open(&path);
        for _ in 0..2 {
            let one = committed(&mut db, |tx| charge(tx, &request("a", 5)));
            assert_eq!(one.unwrap(), Charged { number: 1 });
        }
        let other = committed(&mut db, |tx| charge(tx, &request("b", 5)));
        assert_eq!(other.unwrap(), Charged { number: 2 });
        check(&db, 2, 2);
    }
}

#[test]
fn a_repeat_within_the_same_transaction_has_no_effect_either() {
    let mut db = memory();
    committed(&mut db, |tx| {
        for _ in 0..3 {
            assert_eq!(charge(tx, &request("a", 5)).unwrap(), Charged { number: 1 });
        }
    });
    check(&db, 1, 1);
}

#[test]
fn a_key_with_other_input_is_refused() {
    let mut db = memory();
    committed(&mut db, |tx| charge(tx, &request("a", 5))).unwrap();
    let error = committed(&mut db, |tx| charge(tx, &request("a", 6))).unwrap_err();
    assert!(matches!(
        &error,
        ChargeError::Inbox(InboxError::OtherInput { scope: "charge", key }) if key == "a"
    ));
    assert_eq!(
        error.to_string(),
        "charge was called with key \"a\" before, and with other input: a new request needs a new key"
    );
    check(&db, 1, 1);
}

#[test]
fn an_empty_key_is_refused() {
    let mut db = memory();
    let error = committed(&mut db, |tx| charge(tx, &request("", 5))).unwrap_err();
    assert!(matches!(error, ChargeError::Inbox(InboxError::EmptyKey { scope: "charge" })));
    assert_eq!(count(&db, "charges"), 0);
}

#[test]
fn an_error_leaves_nothing_though_the_transaction_is_committed() {
    let mut db = memory();
    committed(&mut db, |tx| charge(tx, &request("first", 5))).unwrap();
    for _ in 0..2 {
        let error = committed(&mut db, |tx| charge(tx, &request("a", -1))).unwrap_err();
        assert!(matches!(error, ChargeError::Declined));
        check(&db, 1, 1);
    }
    committed(&mut db, |tx| charge(tx, &request("a", 7))).unwrap();
    check(&db, 2, 2);
}

#[test]
fn a_panic_leaves_nothing_though_the_transaction_is_committed() {
    let mut db = memory();
    committed(&mut db, |tx| {
        insert(tx, 1).unwrap();
        charge(tx, &request("first", 5)).unwrap();
        catch_unwind(AssertUnwindSafe(|| charge(tx, &request("a", 0)))).unwrap_err();
    });
    check(&db, 2, 1);
    committed(&mut db, |tx| charge(tx, &request("a", 7))).unwrap();
    check(&db, 3, 2);
}

#[test]
fn a_crash_before_the_commit_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    let mut db = open(&path);
    for _ in 0..3 {
        // The first of them makes the table, and it goes as well.
        let tx = db.transaction().unwrap();
        charge(&tx, &request("a", 5)).unwrap();
        drop(tx);
        assert_eq!(count(&db, "charges"), 0);
    }
    committed(&mut db, |tx| charge(tx, &request("a", 5))).unwrap();
    check(&db, 1, 1);
}

/// While one caller is in the middle of its effect, `other` begins to wait for the lock; then both go on.
#[test]
fn of_two_callers_at_once_one_waits_and_gets_the_answer() {
    static WAITS: AtomicBool = AtomicBool::new(false);

    #[idempotent(name = "charge", key = id, keep = "7 days")]
    fn charge_slowly(tx: &Transaction<'_>, id: &str) -> Result<Charged, ChargeError> {
        let charged = insert(tx, 5)?;
        while !WAITS.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        Ok(charged)
    }

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    let (mut one, mut other) = (open(&path), open(&path));
    committed(&mut one, |tx| charge(tx, &request("first", 1))).unwrap();
    other
        .busy_handler(Some(|_| {
            WAITS.store(true, Ordering::Release);
            std::thread::yield_now();
            true
        }))
        .unwrap();
    let begun = Barrier::new(2);
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| {
            committed(&mut one, |tx| {
                begun.wait();
                charge_slowly(tx, "a")
            })
        });
        let other = scope.spawn(|| {
            begun.wait();
            // The guard itself takes the lock here, not the beginning of the transaction.
            let tx = other.transaction().unwrap();
            let outcome = charge_slowly(&tx, "a");
            tx.commit().unwrap();
            outcome
        });
        (one.join().unwrap(), other.join().unwrap())
    });
    assert!(WAITS.load(Ordering::Acquire));
    assert_eq!((one.unwrap().number, other.unwrap().number), (2, 2));
    check(&open(&path), 2, 2);
}

#[test]
fn many_callers_with_the_same_keys_have_one_effect_for_each() {
    static RUNS: AtomicU64 = AtomicU64::new(0);

    #[idempotent(name = "charge", key = id, keep = "7 days")]
    fn charge_and_count(tx: &Connection, id: u64) -> Result<Charged, ChargeError> {
        RUNS.fetch_add(1, Ordering::Relaxed);
        Ok(insert(tx, 5)?)
    }

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    drop(open(&path));
    let begun = Barrier::new(4);
    let answers: Vec<Vec<_>> = std::thread::scope(|scope| {
        let caller = || {
            let db = Connection::open(&path).unwrap();
            db.busy_timeout(Duration::from_secs(60)).unwrap();
            begun.wait();
            (0..50).map(|id| charge_and_count(&db, id).unwrap().number).collect()
        };
        let callers: Vec<_> = (0..4).map(|_| scope.spawn(caller)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert_eq!(RUNS.load(Ordering::Relaxed), 50);
    check(&open(&path), 50, 50);
    assert!(answers.iter().all(|numbers| *numbers == answers[0]));
}

#[test]
fn a_caller_that_may_not_wait_is_told_that_the_database_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    let (mut one, mut other) = (open(&path), open(&path));
    committed(&mut one, |tx| charge(tx, &request("first", 1))).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    let holding = one.transaction().unwrap();
    charge(&holding, &request("a", 5)).unwrap();
    let tx = other.transaction().unwrap();
    let Err(ChargeError::Inbox(InboxError::Database { scope: "charge", source, .. })) =
        charge(&tx, &request("a", 5))
    else {
        panic!("it did not wait")
    };
    let source = source.downcast_ref::<rusqlite::Error>().unwrap();
    assert_eq!(source.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy));
    drop(tx);
    holding.commit().unwrap();
    assert_eq!(committed(&mut other, |tx| charge(tx, &request("a", 5))).unwrap().number, 2);
}

#[test]
fn a_key_is_kept_for_as_long_as_promised_and_then_free() {
    let mut db = memory();
    let before = seconds();
    committed(&mut db, |tx| charge(tx, &request("a", 5))).unwrap();
    let after = seconds();
    let expires: i64 =
        db.query_row("SELECT expires FROM tidings_inbox", [], |row| row.get(0)).unwrap();
    assert!((before + WEEK..=after + WEEK).contains(&expires));

    // A minute less, for a test that takes its time.
    age(&db, WEEK - 60);
    assert_eq!(committed(&mut db, |tx| charge(tx, &request("a", 5))).unwrap().number, 1);
    age(&db, 61);
    // It is still there and counts as gone: also with other input.
    check(&db, 1, 1);
    assert_eq!(committed(&mut db, |tx| charge(tx, &request("a", 6))).unwrap().number, 2);
    assert_eq!(committed(&mut db, |tx| charge(tx, &request("a", 6))).unwrap().number, 2);
    check(&db, 2, 1);
}

/// Its last second has a part of it to live, since seconds are cut off when it is written.
#[test]
fn a_key_is_kept_through_its_last_second() {
    let mut db = memory();
    committed(&mut db, |tx| charge(tx, &request("a", 5))).unwrap();
    let mut ticked = true;
    while ticked {
        let begun = seconds();
        db.execute("UPDATE tidings_inbox SET expires = ?1", [begun]).unwrap();
        let number = committed(&mut db, |tx| charge(tx, &request("a", 5))).unwrap().number;
        ticked = seconds() != begun;
        assert!(ticked || number == 1);
    }
}

#[test]
fn an_expired_key_whose_new_call_fails_is_as_it_was() {
    let mut db = memory();
    committed(&mut db, |tx| charge(tx, &request("a", 5))).unwrap();
    age(&db, WEEK + 1);
    committed(&mut db, |tx| charge(tx, &request("a", -1))).unwrap_err();
    check(&db, 1, 1);
    assert_eq!(committed(&mut db, |tx| charge(tx, &request("a", 5))).unwrap().number, 2);
}

#[test]
fn each_new_key_clears_a_few_expired_ones() {
    let mut db = memory();
    for id in 0..20 {
        committed(&mut db, |tx| charge(tx, &request(&format!("old {id}"), 5))).unwrap();
    }
    age(&db, WEEK + 1);
    for (id, left) in [(0, 13), (1, 6), (2, 3), (3, 4)] {
        committed(&mut db, |tx| charge(tx, &request(&format!("new {id}"), 5))).unwrap();
        assert_eq!(count(&db, "tidings_inbox"), left);
        // A repeat clears nothing.
        committed(&mut db, |tx| charge(tx, &request(&format!("new {id}"), 5))).unwrap();
        assert_eq!(count(&db, "tidings_inbox"), left);
    }
}

/// As the first release wrote it. The input is the SipHash-1-3 of 128 bits, without a key, of `{"cents":5,"id":"a"}` and a
/// line feed.
const FIRST_RELEASE: &str = r#"
    CREATE TABLE tidings_inbox (
        scope TEXT NOT NULL,
        key TEXT NOT NULL,
        input BLOB NOT NULL,
        answer TEXT,
        expires INTEGER NOT NULL,
        PRIMARY KEY (scope, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tidings_inbox_expires ON tidings_inbox (expires);
    INSERT INTO tidings_inbox VALUES
        ('charge', 'a', X'993E0AF68AD8163288EEFD94B0A22338', '{"number":7}', 9000000000);"#;

#[test]
fn an_inbox_of_the_first_release_guards_still() {
    let mut db = memory();
    db.execute_batch(FIRST_RELEASE).unwrap();
    assert_eq!(committed(&mut db, |tx| charge(tx, &request("a", 5))).unwrap().number, 7);
    check(&db, 0, 1);
}

#[test]
fn an_answer_of_another_type_is_not_taken_for_this_one() {
    let mut db = memory();
    committed(&mut db, |tx| charge(tx, &request("a", 5))).unwrap();
    db.execute("UPDATE tidings_inbox SET answer = '\"paid\"'", []).unwrap();
    let error = committed(&mut db, |tx| charge(tx, &request("a", 5))).unwrap_err();
    assert!(matches!(
        error,
        ChargeError::Inbox(InboxError::Unreadable { scope: "charge", key, .. }) if key == "a"
    ));
    check(&db, 1, 1);
}

#[test]
fn what_cannot_be_written_as_json_leaves_nothing() {
    #[idempotent(name = "pairs", key = id, keep = "30 s", input = request)]
    fn pairs(
        tx: &Transaction<'_>,
        id: &str,
        request: &HashMap<(u8, u8), u8>,
        answer: HashMap<(u8, u8), u8>,
    ) -> Result<HashMap<(u8, u8), u8>, ChargeError> {
        insert(tx, 5)?;
        Ok(answer)
    }

    let (good, bad) = (HashMap::new(), HashMap::from([((1, 2), 3)]));
    let mut db = memory();
    committed(&mut db, |tx| pairs(tx, "a", &good, good.clone())).unwrap();
    for (request, answer, wrong) in [(&bad, &good, "input"), (&good, &bad, "answer")] {
        let error = committed(&mut db, |tx| pairs(tx, "b", request, answer.clone())).unwrap_err();
        assert!(matches!(
            error,
            ChargeError::Inbox(InboxError::Unwritable { what, .. }) if what == wrong
        ));
        check(&db, 1, 1);
    }
}

#[test]
fn the_order_of_a_hash_map_is_no_other_input() {
    #[idempotent(name = "fill", key = "one", keep = "1 hour")]
    fn fill(
        tx: &Transaction<'_>,
        lines: &HashMap<String, HashMap<u32, u32>>,
    ) -> Result<Charged, ChargeError> {
        Ok(insert(tx, lines.len() as i64)?)
    }

    let mut db = memory();
    for _ in 0..20 {
        // Each map has an order of its own.
        let inner: HashMap<_, _> = (0..10).map(|n| (n, n)).collect();
        let lines = (0..10).map(|n| (n.to_string(), inner.clone())).collect();
        committed(&mut db, |tx| fill(tx, &lines)).unwrap();
    }
    check(&db, 1, 1);
}

#[test]
fn arguments_do_not_run_into_each_other() {
    #[idempotent(name = "join", key = "one", keep = "1 minute")]
    fn join(
        tx: &Transaction<'_>,
        a: &str,
        b: &[u8],
        c: Option<u8>,
    ) -> Result<Charged, ChargeError> {
        Ok(insert(tx, (a.len() + b.len()) as i64 + i64::from(c.unwrap_or(0)))?)
    }

    let mut db = memory();
    committed(&mut db, |tx| join(tx, "a", &[1], None)).unwrap();
    committed(&mut db, |tx| join(tx, "a", &[1], None)).unwrap();
    for (a, b, c) in [("a", &[1, 1][..], None), ("a", &[], Some(1)), ("a\n[1]", &[], None)] {
        let refused = committed(&mut db, |tx| join(tx, a, b, c));
        assert!(matches!(refused, Err(ChargeError::Inbox(InboxError::OtherInput { .. }))));
    }
}

#[test]
fn functions_of_different_names_have_keys_of_their_own() {
    #[idempotent(name = "refund", key = request.id, keep = "4 weeks")]
    fn refund(tx: &Transaction<'_>, request: &Charge) -> Result<Charged, ChargeError> {
        Ok(insert(tx, -request.cents)?)
    }

    let mut db = memory();
    for _ in 0..2 {
        assert_eq!(committed(&mut db, |tx| charge(tx, &request("a", 5))).unwrap().number, 1);
        assert_eq!(committed(&mut db, |tx| refund(tx, &request("a", 5))).unwrap().number, 2);
    }
    check(&db, 2, 2);
}

#[test]
fn guarded_functions_may_call_each_other() {
    #[idempotent(name = "order", key = id, keep = "1 day")]
    fn order(tx: &Transaction<'_>, id: &str, cents: i64) -> Result<(), ChargeError> {
        insert(tx, 100)?;
        // What is inside failed, and all that is outside stays.
        let declined = charge(tx, &request("declined", -1));
        assert!(matches!(declined, Err(ChargeError::Declined)));
        charge(tx, &request(id, cents)).map(drop)
    }

    let mut db = memory();
    for _ in 0..2 {
        committed(&mut db, |tx| order(tx, "a", 5)).unwrap();
        check(&db, 2, 2);
    }
    committed(&mut db, |tx| order(tx, "b", -5)).unwrap_err();
    check(&db, 2, 2);
}

#[test]
fn a_function_that_calls_itself_is_refused_inside() {
    #[idempotent(name = "again", key = "one", keep = "1 day")]
    fn again(tx: &Transaction<'_>) -> Result<bool, ChargeError> {
        insert(tx, 1)?;
        match again(tx) {
            Err(ChargeError::Inbox(InboxError::Unfinished { scope: "again", .. })) => Ok(true),
            _ => Ok(false),
        }
    }

    let mut db = memory();
    assert!(committed(&mut db, again).unwrap());
    check(&db, 1, 1);
}

#[test]
fn a_function_that_ends_its_transaction_is_told_and_has_one_effect() {
    #[idempotent(name = "end", key = how, keep = "1 day")]
    fn end(tx: &Connection, how: &str) -> Result<Charged, ChargeError> {
        let charged = insert(tx, 1)?;
        tx.execute_batch(how)?;
        Ok(charged)
    }

    let db = memory();
    let ended = |how: &str| {
        db.execute_batch("BEGIN").unwrap();
        let ended = matches!(
            end(&db, how),
            Err(ChargeError::Inbox(InboxError::EndedTransaction { scope: "end", .. }))
        );
        if !db.is_autocommit() {
            db.execute_batch("ROLLBACK").unwrap();
        }
        ended
    };
    // The first time the table goes with it.
    assert!(ended("ROLLBACK"));
    assert!(ended("ROLLBACK; BEGIN"));
    assert_eq!(count(&db, "charges"), 0);
    assert!(ended("COMMIT"));
    assert!(ended("ROLLBACK"));
    check(&db, 1, 1);
    // What was committed is found.
    assert_eq!(end(&db, "COMMIT").unwrap().number, 1);
    check(&db, 1, 1);
    assert!(ended("COMMIT; BEGIN"));
    assert!(matches!(
        end(&db, "COMMIT; BEGIN"),
        Err(ChargeError::Inbox(InboxError::Unfinished { scope: "end", .. }))
    ));
    check(&db, 2, 2);
}

#[test]
fn without_a_transaction_the_guard_has_one_of_its_own() {
    #[idempotent(name = "charge", key = id, keep = "7 days")]
    fn charge_alone(db: &Connection, id: &str, cents: i64) -> Result<Charged, ChargeError> {
        let charged = insert(db, cents)?;
        if cents < 0 { Err(ChargeError::Declined) } else { Ok(charged) }
    }

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    let db = open(&path);
    for _ in 0..2 {
        assert_eq!(charge_alone(&db, "a", 5).unwrap().number, 1);
        assert!(db.is_autocommit());
        check(&open(&path), 1, 1);
    }
    charge_alone(&db, "b", -5).unwrap_err();
    assert!(db.is_autocommit());
    check(&open(&path), 1, 1);
}

#[test]
fn a_savepoint_is_a_transaction_too() {
    #[idempotent(name = "charge", key = id, keep = "7 days")]
    fn charge_in(inner: &Savepoint<'_>, id: &str) -> Result<Charged, ChargeError> {
        Ok(insert(inner, 5)?)
    }

    let mut db = memory();
    let mut tx = db.transaction().unwrap();
    charge(&tx, &request("first", 1)).unwrap();
    for _ in 0..2 {
        let inner = tx.savepoint().unwrap();
        charge_in(&inner, "a").unwrap();
        drop(inner);
        check(&tx, 1, 1);
    }
    let inner = tx.savepoint().unwrap();
    charge_in(&inner, "a").unwrap();
    inner.commit().unwrap();
    check(&tx, 2, 2);
}

/// A service with a state of its own, which is no part of the input.
struct Till {
    fee: i64,
    shop: &'static str,
    runs: Cell<u32>,
}

impl Till {
    #[idempotent(name = "till.charge", key = format_args!("{}/{}", self.shop, request.id), keep = "24 hours")]
    fn charge(&self, tx: &Transaction<'_>, request: Charge) -> Result<i64, ChargeError> {
        self.runs.set(self.runs.get() + 1);
        insert(tx, request.cents + self.fee)?;
        Ok(request.cents + self.fee)
    }

    #[idempotent(name = "till.refund", key = request.id, keep = "15 minutes", tx = db)]
    async fn refund<C: std::ops::Deref<Target = Connection>>(
        &mut self,
        db: &C,
        mut request: Charge,
    ) -> Result<i64, ChargeError> {
        tokio::task::yield_now().await;
        self.fee += 1;
        if request.cents == 0 {
            return Err(ChargeError::Declined);
        }
        request.cents = -request.cents;
        insert(db, request.cents)?;
        tokio::task::yield_now().await;
        Ok(request.cents)
    }
}

#[test]
fn a_method_is_guarded_whatever_the_state_of_its_owner() {
    let mut db = memory();
    let mut till = Till { fee: 1, shop: "north", runs: Cell::new(0) };
    for _ in 0..2 {
        assert_eq!(committed(&mut db, |tx| till.charge(tx, request("a", 5))).unwrap(), 6);
        till.fee += 10;
    }
    assert_eq!(till.runs.get(), 1);
    till.shop = "south";
    assert_eq!(committed(&mut db, |tx| till.charge(tx, request("a", 5))).unwrap(), 26);
    check(&db, 2, 2);
}

#[tokio::test]
async fn an_async_method_is_guarded_alike() {
    let mut db = memory();
    let mut till = Till { fee: 0, shop: "north", runs: Cell::new(0) };
    for _ in 0..2 {
        let tx = db.transaction().unwrap();
        assert_eq!(till.refund(&tx, request("a", 5)).await.unwrap(), -5);
        let declined = till.refund(&tx, request("b", 0)).await;
        assert!(matches!(declined, Err(ChargeError::Declined)));
        tx.commit().unwrap();
        check(&db, 1, 1);
    }
    assert_eq!(till.fee, 3);
    let tx = db.transaction().unwrap();
    let other = till.refund(&tx, request("a", 6)).await;
    assert!(matches!(other, Err(ChargeError::Inbox(InboxError::OtherInput { .. }))));
}

#[idempotent(name = "slow", key = id, keep = "1 day")]
async fn slow(tx: &Transaction<'_>, id: u8) -> Result<Charged, ChargeError> {
    let charged = insert(tx, 5)?;
    tokio::task::yield_now().await;
    insert(tx, 6)?;
    Ok(charged)
}

#[test]
fn a_future_that_is_dropped_leaves_nothing() {
    let mut db = memory();
    let tx = db.transaction().unwrap();
    charge(&tx, &request("first", 1)).unwrap();
    let mut future = Box::pin(slow(&tx, 1));
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    check(&tx, 2, 2);
    drop(future);
    check(&tx, 1, 1);
    tx.commit().unwrap();
    check(&db, 1, 1);
}

#[test]
fn of_two_futures_in_turns_on_one_transaction_one_is_told() {
    let mut db = memory();
    let context = &mut Context::from_waker(Waker::noop());
    let tx = db.transaction().unwrap();
    let (mut one, mut other) = (Box::pin(slow(&tx, 1)), Box::pin(slow(&tx, 2)));
    assert!(one.as_mut().poll(context).is_pending());
    assert!(other.as_mut().poll(context).is_pending());
    assert!(matches!(one.as_mut().poll(context), Poll::Ready(Ok(_))));
    assert!(matches!(
        other.as_mut().poll(context),
        Poll::Ready(Err(ChargeError::Inbox(InboxError::EndedTransaction { .. })))
    ));
    drop((one, other));
    // Its effect and its key are there together all the same.
    tx.commit().unwrap();
    check(&db, 4, 2);
    committed(&mut db, |tx| {
        let mut again = Box::pin(slow(tx, 2));
        assert!(matches!(again.as_mut().poll(context), Poll::Ready(Ok(Charged { number: 2 }))));
    });
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "shop.sold")]
struct Sold {
    order: String,
    cents: i64,
}

#[derive(Command, Clone)]
struct Sell {
    order: String,
    cents: i64,
}

#[derive(Default)]
struct Shop;

#[aggregate(category = "shop", events = ShopEvent)]
impl Shop {
    #[command]
    fn sell(&self, Sell { order, cents }: Sell) -> Sold {
        Sold { order, cents }
    }

    #[apply]
    fn sold(&mut self, _: &Sold) {}
}

struct Sales;

#[projection(
    name = "sales",
    schema = "CREATE TABLE sales (id TEXT, cents INTEGER NOT NULL)",
    on_failure = stop
)]
impl Sales {
    #[on]
    #[idempotent(name = "sales.sold", key = event.order, keep = "7 days")]
    fn sold(
        &self,
        tx: &tidings::sqlite::Transaction<'_>,
        event: &Sold,
        header: &Header,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        tx.execute("INSERT INTO sales VALUES (?1, ?2)", params![header.stream.id(), event.cents])?;
        Ok(())
    }

    fn total(db: &Connection) -> rusqlite::Result<(i64, i64)> {
        db.query_row("SELECT count(*), sum(cents) FROM sales", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    }
}

async fn check_sales(app: App, second: i64) {
    for (order, cents) in [("a", 5), ("b", 6), ("a", 5), ("a", second)] {
        app.send("1", Sell { order: order.to_owned(), cents }).await.unwrap();
    }
    let sales = app.view::<Sales>().at_least(app.head()).await;
    if second == 5 {
        assert_eq!(sales.unwrap().query(Sales::total).await.unwrap(), (2, 11));
    } else {
        // The refusal is the reason why the projection stopped.
        let error = sales.unwrap_err();
        let mut cause: &dyn Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        assert!(matches!(
            cause.downcast_ref(),
            Some(InboxError::OtherInput { scope: "sales.sold", .. })
        ));
    }
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_handler_of_a_table_projection_is_guarded_in_its_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let file = Sqlite::open(directory.path().join("shop.db")).unwrap();
    let app = App::builder().store(file).aggregate::<Shop>().projection(Sales);
    check_sales(app.start().await.unwrap(), 5).await;
    let app = App::builder().store(Memory::new()).aggregate::<Shop>().projection(Sales);
    check_sales(app.start().await.unwrap(), 6).await;
}
