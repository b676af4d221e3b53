//! given/when/then of consumers passes what is right, delivers each event twice, and says what is wrong with the history.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "macros", feature = "sqlite", feature = "testing"))]

#[path = "support/bank.rs"]
mod bank;

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use bank::*;
use serde::{Deserialize, Serialize};
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::testing::{Chaos, Events, events};
use tidings::{
    Delivery, DeliveryId, Event, Header, Reactions, Reactor, Timestamp, aggregate, projection,
};

/// Runs a test that has to fail, and returns what it says.
#[track_caller]
fn fails<T>(test: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).err().expect("it passes");
    *panic.downcast::<String>().expect("a panic with a formatted message")
}

#[track_caller]
fn check_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in:\n{said}");
    }
}

fn history() -> Events {
    events()
        .on("a", (Deposited { cents: 100 }, Withdrawn { cents: 20 }))
        .on("b", Deposited { cents: 5 })
        .at(Timestamp::from_micros(7))
        .metadata("teller", "Ada")
        .on("a", Deposited { cents: 1 })
}

/// The deposits as they came, with what surrounds them. It would wait an hour before it tries one again.
struct Deposits(Chaos);

#[projection(
    name = "deposits",
    version = 1,
    retry(attempts = 5, first = "1 h", longest = "1 h"),
    schema = "CREATE TABLE deposits (number INTEGER PRIMARY KEY, id TEXT, cents INT, at INT, teller TEXT)"
)]
impl Deposits {
    #[on]
    fn deposited(
        &self,
        tx: &Transaction<'_>,
        event: &Deposited,
        header: &Header,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let at = header.time.as_micros() as i64;
        let row = (header.stream.id(), event.cents, at, header.metadata.get("teller"));
        tx.execute("INSERT INTO deposits (id, cents, at, teller) VALUES (?1, ?2, ?3, ?4)", row)?;
        Ok(self.0.at("deposits", header)?)
    }

    fn all(db: &Connection) -> rusqlite::Result<Vec<Row>> {
        db.prepare("SELECT id, cents, at, teller FROM deposits ORDER BY number")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
            .collect()
    }
}

/// The account, the amount, the time and the teller.
type Row = (String, i64, i64, Option<String>);

fn deposits() -> Deposits {
    Deposits(Chaos::seeded(0))
}

#[test]
fn a_view_in_memory_is_folded_live_and_anew() {
    let mut looks = Vec::new();
    let looked = std::cell::RefCell::new(&mut looks);
    history()
        .project(Balances::default)
        .then(|balances| {
            looked.borrow_mut().push(balances.seen.clone());
            assert_eq!(
                balances.of.clone().into_iter().collect::<Vec<_>>(),
                [("a".into(), 81), ("b".into(), 5)]
            );
        })
        .then_letters(&[]);
    assert_eq!(looks, [[1, 2, 3, 4], [1, 2, 3, 4]]);
}

#[test]
fn rows_hold_what_surrounds_the_events() {
    let ada = Some("Ada".to_owned());
    history()
        .project(deposits)
        .then_query(
            Deposits::all,
            vec![("a".into(), 100, 0, None), ("b".into(), 5, 0, None), ("a".into(), 1, 7, ada)],
        )
        .then_rows(|db| {
            let rows: i64 = db.query_row("SELECT count(*) FROM deposits", [], |row| row.get(0))?;
            assert_eq!(rows, 3);
            Ok(())
        });
}

#[test]
fn an_expectation_that_fails_shows_the_history() {
    let said = fails(|| history().project(deposits).then_query(Deposits::all, Vec::new()));
    check_says(
        &said,
        &[
            "the query returns something else than expected",
            "expected: []",
            "(\"b\", 5, 0, None)",
            r#"2 account-a account.withdrawn v1 {"cents":20}"#,
        ],
    );
    let said = fails(|| history().project(deposits).then_letters(&[(1, "account-a")]));
    check_says(&said, &["expected: [(1, \"account-a\")]", "found:    []"]);
    let said = fails(|| {
        history()
            .project(deposits)
            .then_query(|db| db.query_row("SELECT 1 FROM nowhere", [], |_| Ok(())), ())
    });
    check_says(&said, &["the query failed", "nowhere"]);
}

/// Numbers its rows by what its instance remembers.
#[derive(Default)]
struct Numbered(AtomicI64);

#[projection(
    name = "numbered",
    version = 1,
    schema = "CREATE TABLE numbered (number INT, cents INT)"
)]
impl Numbered {
    #[on]
    fn deposited(&self, tx: &Transaction<'_>, event: &Deposited) -> rusqlite::Result<usize> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        tx.execute("INSERT INTO numbered VALUES (?1, ?2)", (number, event.cents))
    }
}

#[test]
fn a_handler_that_depends_on_its_instance_is_found_out() {
    static MADE: AtomicI64 = AtomicI64::new(0);
    let make = || Numbered(AtomicI64::new(MADE.fetch_add(10, Ordering::Relaxed)));
    let said = fails(|| history().project(make));
    check_says(
        &said,
        &["not the same after a second delivery", "first: numbered: [", "again: numbered: ["],
    );
}

#[test]
fn what_cannot_be_handled_is_parked_and_what_passes_is_tried_again_at_once() {
    // Every event is refused, and waits for a person.
    history()
        .project(|| Deposits(Chaos::seeded(1).refusing(100)))
        .then_letters(&[(1, "account-a"), (3, "account-b"), (4, "account-a")])
        .then_query(Deposits::all, Vec::new());
    // Every event fails up to four times.
    history().project(|| Deposits(Chaos::seeded(1).failing(100))).then_letters(&[]).then_rows(
        |db| {
            assert_eq!(Deposits::all(db)?.len(), 3);
            Ok(())
        },
    );
}

/// Rings for what is new.
#[derive(Default)]
struct Bell {
    rung: u32,
}

#[projection(name = "bell", version = 1)]
impl Bell {
    #[on(live_only)]
    fn deposited(&mut self, _: &Deposited) {
        self.rung += 1;
    }
}

#[test]
fn a_handler_for_what_is_new_sees_each_event_once() {
    history().project(Bell::default).then(|bell| assert_eq!(bell.rung, 3));
}

/// Writes each deposit down once, and counts all deliveries outside.
struct Booker {
    seen: Arc<Mutex<Vec<(u64, DeliveryId)>>>,
    chaos: Chaos,
}

impl Reactor for Booker {
    const NAME: &'static str = "booker";

    fn handlers(handlers: &mut Reactions<Self>) {
        handlers.in_transaction(
            |booker: &Self, tx: &Transaction<'_>, event: &Deposited, delivery: &Delivery| {
                booker.chaos.at(Self::NAME, &delivery.header)?;
                tx.execute_batch("CREATE TABLE IF NOT EXISTS booked (cents INT)")?;
                tx.execute("INSERT INTO booked VALUES (?1)", [event.cents])?;
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            },
        );
        handlers.on(|booker: &Self, _: &Withdrawn, delivery: &Delivery| {
            Box::pin(async move {
                booker.chaos.at(Self::NAME, &delivery.header)?;
                booker.seen.lock().unwrap().push((delivery.position.as_u64(), delivery.id));
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            })
        });
    }
}

#[test]
fn a_reactor_gets_each_event_twice_and_writes_it_down_once() {
    let seen = Arc::default();
    let booker = |chaos: Chaos| {
        let seen = Arc::clone(&seen);
        move || Booker { seen: Arc::clone(&seen), chaos: chaos.clone() }
    };
    let booked = |db: &Connection| {
        let sql = "SELECT cents FROM booked ORDER BY rowid";
        db.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()
    };
    let history = || history().on("b", Withdrawn { cents: 3 });
    history().react(booker(Chaos::seeded(0))).then_letters(&[]).then_query(booked, vec![100, 5, 1]);
    let deliveries = std::mem::take(&mut *seen.lock().unwrap());
    let positions: Vec<_> = deliveries.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, [2, 2, 5, 5]);
    assert_eq!((deliveries[0], deliveries[2]), (deliveries[1], deliveries[3]));

    // What it panics at waits for a person, and what comes after it in its stream waits behind it.
    history().react(booker(Chaos::seeded(0).panicking(100))).then_letters(&[
        (1, "account-a"),
        (2, "account-a"),
        (3, "account-b"),
        (4, "account-a"),
        (5, "account-b"),
    ]);
    assert_eq!(*seen.lock().unwrap(), []);
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "audit.noted", version = 1)]
struct Noted {
    cents: i64,
    before: i64,
}

#[derive(Debug, thiserror::Error)]
#[error("{0} cents are too few to note")]
struct TooFew(i64);

/// Notes the deposits of all accounts, by the number of digits.
#[derive(Default)]
struct Audit {
    noted: i64,
}

#[aggregate(category = "audit", events = AuditEvent, error = TooFew)]
impl Audit {
    #[on(to = event.cents.to_string().len())]
    fn deposited(&self, event: &Deposited) -> Result<Noted, TooFew> {
        match event.cents {
            ..0 => Err(TooFew(event.cents)),
            cents => Ok(Noted { cents, before: self.noted }),
        }
    }
    #[apply]
    fn noted(&mut self, event: &Noted) {
        self.noted += event.cents;
    }
}

#[test]
fn an_aggregate_decides_once_on_each_event_that_it_hears_twice() {
    let heard = || {
        history()
            .on("1", Noted { cents: 40, before: 0 })
            .on("b", (Deposited { cents: 99 }, Deposited { cents: -10 }, Deposited { cents: -2 }))
            .hear::<Audit>()
    };
    heard()
        .then_events("1", (Noted { cents: 5, before: 40 }, Noted { cents: 1, before: 45 }))
        .then_events("2", Noted { cents: 99, before: 0 })
        .then_events("3", Noted { cents: 100, before: 0 })
        .then_events("4", ())
        // The history as it stands in the log: what the aggregate had noted comes first.
        .then_letters(&[(7, "3"), (8, "2")]);
    let said = fails(|| heard().then_events("2", Noted { cents: 98, before: 0 }));
    check_says(
        &said,
        &[
            "2 decided otherwise than expected",
            r#"expected: audit.noted v1 {"cents":98,"before":0}"#,
            r#"found:    audit-2 audit.noted v1 {"cents":99,"before":0}"#,
            r#"1 audit-1 audit.noted v1 {"cents":40,"before":0}"#,
        ],
    );
    check_says(&fails(|| history().hear::<Account>()), &["account hears of no event"]);
}

/// Does not pass what it cannot handle.
struct Strict;

#[projection(name = "strict", version = 1, on_failure = stop)]
impl Strict {
    #[on]
    fn withdrawn(&mut self, _: &Withdrawn) -> Result<(), Box<dyn Error + Send + Sync>> {
        Err("no money leaves this house".into())
    }
}

#[test]
fn a_projection_that_stops_fails_the_test() {
    let said = fails(|| history().project(|| Strict));
    check_says(
        &said,
        &["stands still", "no money leaves this house", "4 account-a account.deposited"],
    );
}

#[test]
fn shuffled_events_keep_the_order_of_their_stream() {
    let many = || {
        let deposits =
            |from: i64| (from..from + 4).map(|cents| Deposited { cents }).collect::<Vec<_>>();
        events().on("a", deposits(0)).on("b", deposits(10)).on("c", deposits(20))
    };
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..3 {
        let found = std::cell::RefCell::new(Vec::new());
        many().shuffled(seed).project(deposits).then_rows(|db| {
            found.borrow_mut().extend(Deposits::all(db)?.into_iter().map(|row| row.1));
            Ok(())
        });
        let found = found.into_inner();
        for from in [0, 10, 20] {
            let of_one: Vec<_> =
                found.iter().filter(|cents| (from..from + 4).contains(*cents)).collect();
            assert!(of_one.is_sorted() && of_one.len() == 4, "{found:?}");
        }
        orders.insert(found);
    }
    assert!(orders.len() > 1, "{orders:?}");
}
