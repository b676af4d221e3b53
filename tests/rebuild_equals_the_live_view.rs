//! Guarantee 23, its first half: a rebuilt view is what the live one is at the same position, and what a naive fold of the log is,
//! whatever is sent, parked and decided meanwhile; tables come back with all that belongs to them.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(feature = "sqlite")]

#[path = "support/bank.rs"]
mod bank;
#[path = "support/book.rs"]
mod book;

use bank::*;
use book::*;
use proptest::prelude::*;
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::{App, AppBuilder, Handlers, Header, Memory, Projection, Tables};

/// One command, for one of few accounts.
#[derive(Clone, Debug)]
enum Step {
    Deposit(u8, i64),
    Withdraw(u8, i64),
    Several(u8, Vec<i64>),
    /// Of no interest to the views.
    Book(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (account, cents) = (0..5_u8, 0..1_000_i64);
    prop_oneof![
        4 => (account.clone(), cents.clone()).prop_map(|(id, cents)| Step::Deposit(id, cents)),
        2 => (account.clone(), cents.clone()).prop_map(|(id, cents)| Step::Withdraw(id, cents)),
        1 => (account, prop::collection::vec(cents, 0..20))
            .prop_map(|(id, parts)| Step::Several(id, parts)),
        1 => any::<u64>().prop_map(Step::Book),
    ]
}

async fn take(app: &App, step: Step) {
    match step {
        Step::Deposit(id, cents) => {
            app.send(id.to_string(), Deposit { cents }).await.unwrap();
        }
        // It may be more than there is.
        Step::Withdraw(id, cents) => drop(app.send(id.to_string(), Withdraw { cents }).await),
        Step::Several(id, parts) => {
            app.send(id.to_string(), DepositAll { parts }).await.unwrap();
        }
        Step::Book(number) => {
            app.send("1", Book { number }).await.unwrap();
        }
    }
}

async fn both(builder: AppBuilder) -> App {
    builder
        .aggregate::<Account>()
        .aggregate::<Ledger>()
        .projection(Balances::default())
        .projection(Passbook::<1>)
        .start()
        .await
        .unwrap()
}

async fn views(app: &App) -> [Balances; 2] {
    let memory = app.view::<Balances>().at_least(app.head()).await.unwrap().clone();
    [memory, level::<1>(app).await]
}

/// Sends `before`, then `during` while both views are rebuilt, `rounds` times.
async fn history(builder: AppBuilder, before: Vec<Step>, during: Vec<Step>, rounds: usize) {
    let app = both(builder).await;
    for step in before {
        take(&app, step).await;
    }
    for _ in 0..rounds {
        let memory = app.rebuild::<Balances>().begin();
        let tables = app.rebuild_with(Passbook::<1>).begin();
        for step in during.clone() {
            take(&app, step).await;
        }
        let live = views(&app).await;
        let [memory, tables] =
            [soon("a rebuild", memory).await.unwrap(), soon("a rebuild", tables).await.unwrap()];
        assert!(memory.position <= app.head() && tables.position <= app.head());
        let right = Balances::of_log(app.store());
        for view in live.into_iter().chain(views(&app).await) {
            assert_eq!(view, right);
        }
    }
    // What comes after the switch is folded into the rebuilt view, once.
    for step in during {
        take(&app, step).await;
    }
    let right = Balances::of_log(app.store());
    assert_eq!(views(&app).await, [right.clone(), right]);
    app.shutdown().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_history(
        before in prop::collection::vec(step(), 0..60),
        during in prop::collection::vec(step(), 0..60),
        rounds in 1..3_usize,
        on_disk: bool,
        topic_capacity in 1..200_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let builder = App::builder().topic_capacity(topic_capacity);
            let builder = match on_disk {
                true => builder.store(sqlite(directory.path().join("log.db"))),
                false => builder.store(Memory::new()),
            };
            history(builder, before, during, rounds).await;
        });
    }
}

/// Uses what SQLite has to offer.
struct Rich;

const RICH: &str = "
    CREATE TABLE rich_parent (id TEXT PRIMARY KEY, cents INTEGER NOT NULL CHECK (cents >= 0)) WITHOUT ROWID;
    CREATE TABLE \"rich child\" (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        parent TEXT NOT NULL REFERENCES rich_parent (id) DEFERRABLE INITIALLY DEFERRED,
        cents INTEGER NOT NULL,
        twice INTEGER GENERATED ALWAYS AS (cents * 2) STORED
    );
    CREATE INDEX rich_by_cents ON \"rich child\" (cents) WHERE cents > 5;
    CREATE UNIQUE INDEX rich_once ON \"rich child\" (number, parent);
    CREATE TABLE rich_log (what TEXT);
    CREATE TABLE rich_seed (n INTEGER);
    INSERT INTO rich_seed VALUES (1), (2);
    CREATE TRIGGER rich_noted AFTER INSERT ON \"rich child\" BEGIN
        INSERT INTO rich_log VALUES ('child ' || new.number);
    END;
    CREATE VIEW rich_sums AS SELECT parent, sum(twice) AS twice FROM \"rich child\" GROUP BY parent;
    CREATE VIRTUAL TABLE rich_text USING fts5 (body);
";

impl Projection for Rich {
    const NAME: &'static str = "rich/ones & more";
    const VERSION: u32 = 1;
    type Storage = Tables;

    fn handlers(handlers: &mut Handlers<Self, Tables>) {
        handlers.schema(RICH).on(
            |_: &Self, tx: &Transaction<'_>, event: &Deposited, header: &Header| {
                let (id, cents) = (header.stream.id(), event.cents);
                tx.execute("INSERT OR IGNORE INTO rich_parent VALUES (?1, 0)", [id])?;
                tx.execute("UPDATE rich_parent SET cents = cents + ?2 WHERE id = ?1", (id, cents))?;
                let child = "INSERT INTO \"rich child\" (parent, cents) VALUES (?1, ?2)";
                tx.execute(child, (id, cents))?;
                // Leaves gaps among the rowids, and a sequence that is further than the rows.
                tx.execute("DELETE FROM \"rich child\" WHERE cents % 3 = 0", [])?;
                tx.execute("DELETE FROM rich_log WHERE rowid % 4 = 1", [])?;
                let body = format!("account {id} got number{cents}");
                tx.execute("INSERT INTO rich_text VALUES (?1)", [body])
            },
        );
    }
}

/// All that is in the tables, and what they are.
fn all(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut found = Vec::new();
    let queries = [
        "SELECT type || name || coalesce(sql, '') FROM sqlite_schema WHERE name LIKE 'rich%' ORDER BY name",
        "SELECT id || ' ' || cents FROM rich_parent ORDER BY id",
        "SELECT number || ' ' || parent || ' ' || cents || ' ' || twice FROM \"rich child\" ORDER BY number",
        "SELECT rowid || ' ' || what FROM rich_log ORDER BY rowid",
        "SELECT n || '' FROM rich_seed ORDER BY n",
        "SELECT name || ' ' || seq FROM sqlite_sequence ORDER BY name",
        "SELECT parent || ' ' || twice FROM rich_sums ORDER BY parent",
        "SELECT rowid || ' ' || body FROM rich_text WHERE rich_text MATCH 'number7 OR account' ORDER BY rowid",
        "PRAGMA integrity_check",
        "SELECT count(*) || ' strays' FROM pragma_foreign_key_check",
    ];
    for query in queries {
        let mut statement = connection.prepare(query)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        for row in rows {
            found.push(row?);
        }
    }
    Ok(found)
}

#[tokio::test]
async fn tables_come_back_with_all_that_belongs_to_them() {
    for on_disk in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let builder = match on_disk {
            true => App::builder().store(sqlite(directory.path().join("log.db"))),
            false => App::builder().store(Memory::new()),
        };
        let app = builder.aggregate::<Account>().projection(Rich).start().await.unwrap();
        let rows = async || {
            let reader = app.view::<Rich>().at_least(app.head()).await.unwrap();
            reader.query(all).await.unwrap()
        };
        for cents in 1..=30 {
            app.send((cents % 4).to_string(), Deposit { cents }).await.unwrap();
        }
        let live = rows().await;
        assert!(live.contains(&"rich child 30".to_owned()) && live.contains(&"ok".to_owned()));
        soon("the rebuild", app.rebuild_with(Rich).keep_old()).await.unwrap();
        assert_eq!(rows().await, live);
        // Handlers, triggers and sequences go on where they were.
        for cents in 31..=40 {
            app.send((cents % 4).to_string(), Deposit { cents }).await.unwrap();
        }
        let live = rows().await;
        assert!(live.contains(&"rich child 40".to_owned()));
        soon("another rebuild", app.rebuild_with(Rich)).await.unwrap();
        assert_eq!(rows().await, live);
        soon("the switch back", app.switch_back::<Rich>()).await.unwrap();
        assert_eq!(rows().await, live);
        app.shutdown().await.unwrap();
    }
}
