//! Guarantee 23, its second half: every state that there has been can be had again. An aggregate at each version and time, the
//! history of a stream, and a projection as of each position and time are what a naive fold of the log is, while the live ones
//! go on untouched.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "sqlite", feature = "testing"))]

#[path = "support/bank.rs"]
mod bank;
#[path = "support/book.rs"]
mod book;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use bank::*;
use book::*;
use proptest::prelude::*;
use tidings::sqlite::Transaction;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::testing::{Fault, Faulty, ManualClock, Operation};
use tidings::{
    Aggregate, App, AppBuilder, AsOfError, Commit, DiffError, EventSet, ExpectedVersion,
    FailurePolicy, Handlers, Header, HistoryError, InMemory, LetterState, Memory, OnFailure,
    Position, Projection, Query, QueryError, Recorded, Tables, Timestamp, Trouble, UnknownEvents,
    Version, projection,
};

/// One command, for one of few accounts, at a time that may lie before that of the last one.
#[derive(Clone, Debug)]
struct Step {
    at: u64,
    id: u8,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Deposit(i64),
    Withdraw(i64),
    Several(Vec<i64>),
    /// Of no interest to the views.
    Book,
}

fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        3 => (0..1_000_i64).prop_map(What::Deposit),
        2 => (0..1_000_i64).prop_map(What::Withdraw),
        1 => prop::collection::vec(0..1_000_i64, 0..4).prop_map(What::Several),
        1 => Just(What::Book),
    ];
    (0..20_u64, 0..3_u8, what).prop_map(|(at, id, what)| Step { at, id, what })
}

async fn take(app: &App, clock: &ManualClock, step: Step) {
    clock.set(Timestamp::from_micros(step.at));
    let id = step.id.to_string();
    match step.what {
        What::Deposit(cents) => drop(app.send(id, Deposit { cents }).await.unwrap()),
        // It may be more than there is.
        What::Withdraw(cents) => drop(app.send(id, Withdraw { cents }).await),
        What::Several(parts) => drop(app.send(id, DepositAll { parts }).await.unwrap()),
        What::Book => drop(app.send(id, Book { number: 1 }).await.unwrap()),
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

/// The naive fold of the first events of a log.
fn balances(log: &[Recorded]) -> Balances {
    let mut balances = Balances::default();
    for recorded in log.iter().filter(|event| event.stream.category() == "account") {
        let cents = match recorded.decode::<AccountEvent>().unwrap() {
            AccountEvent::Deposited(event) => event.cents,
            AccountEvent::Withdrawn(event) => -event.cents,
            AccountEvent::Rigged(_) => continue,
        };
        *balances.of.entry(recorded.stream.id().into()).or_default() += cents;
        balances.seen.push(recorded.position.as_u64());
    }
    balances
}

/// How many events stand before the first that was decided later.
fn until(events: &[Recorded], time: u64) -> usize {
    events.iter().take_while(|event| event.time.as_micros() <= time).count()
}

async fn check_stream(app: &App, id: &str) {
    let events = entries(app.store(), id);
    let Some(last) = events.last() else {
        assert!(app.history::<Account>(id).await.unwrap().is_empty());
        let error = app.load::<Account>(id).await.unwrap_err();
        assert!(matches!(error, HistoryError::NoEvents { .. }), "{error}");
        return;
    };
    let loaded = app.load::<Account>(id).await.unwrap();
    assert_eq!((loaded.version, loaded.position), (last.version, last.position));
    for count in 0..=events.len() {
        let version = Version::new(count as u64);
        let loaded = app.load::<Account>(id).at_version(version).await.unwrap();
        let last = count.checked_sub(1).map(|index| &events[index]);
        assert_eq!(loaded.aggregate, fold(&events[..count]));
        assert_eq!(loaded.version, version);
        assert_eq!(loaded.time, last.map(|event| event.time));
        assert_eq!(loaded.position, last.map(|event| event.position).unwrap_or_default());
    }
    for time in 0..21 {
        let at = app.load::<Account>(id).at_time(Timestamp::from_micros(time)).await.unwrap();
        let count = until(&events, time);
        assert_eq!((at.version.as_u64(), &at.aggregate), (count as u64, &fold(&events[..count])));
    }
    let beyond = app.load::<Account>(id).at_version(last.version.next()).await.unwrap_err();
    assert!(
        matches!(beyond, HistoryError::BeyondStream { actual, .. } if actual == last.version),
        "{beyond}"
    );

    assert_eq!(app.history_of(account(id)).await.unwrap(), events);
    for limit in [1, 2, usize::MAX] {
        let (mut seen, mut after) = (Vec::new(), Version::EMPTY);
        loop {
            let page = app.history::<Account>(id).after(after).limit(limit).await.unwrap();
            assert!(page.len() <= limit);
            let is_last = page.len() < limit;
            after = page.last().map_or(after, |last| last.version);
            seen.extend(page);
            if is_last {
                break;
            }
        }
        assert_eq!(seen.len(), events.len());
        for (envelope, recorded) in seen.iter().zip(&events) {
            assert_eq!(envelope.header, recorded.header);
            let mut payload = Vec::new();
            envelope.event.encode(&mut payload).unwrap();
            assert_eq!(payload, &*recorded.payload);
        }
    }
}

async fn history(builder: AppBuilder, steps: Vec<Step>, meanwhile: Vec<Step>) {
    let clock = ManualClock::at(Timestamp::from_micros(0));
    let app = both(builder.clock(clock.clone())).await;
    for step in steps {
        take(&app, &clock, step).await;
    }
    for id in ["0", "1", "2"] {
        check_stream(&app, id).await;
    }
    let log = whole_log(app.store());
    let mut meanwhile = meanwhile.into_iter();
    for count in 0..=log.len() {
        let (position, right) = (Position::new(count as u64), balances(&log[..count]));
        let memory = app.as_of::<Balances>(position).await.unwrap();
        assert_eq!((&*memory.read(), memory.read().position()), (&right, position));
        let tables = app.as_of_with(Passbook::<1>, position).await.unwrap();
        assert_eq!(tables.read().query(view).await.unwrap(), right);
        assert_eq!((memory.position(), tables.position()), (position, position));
        assert!(memory.letters().is_empty() && tables.letters().is_empty());
        // The live ones go on, and what was folded does not.
        if let Some(step) = meanwhile.next() {
            take(&app, &clock, step).await;
            let right = Balances::of_log(app.store());
            assert_eq!(*app.view::<Balances>().at_least(app.head()).await.unwrap(), right);
            assert_eq!(level::<1>(&app).await, right);
        }
        assert_eq!(*memory.read(), right);
        assert_eq!(tables.read().query(view).await.unwrap(), right);
    }
    let log = whole_log(app.store());
    for time in [0, 7, 12, 20] {
        let right = balances(&log[..until(&log, time)]);
        let time = Timestamp::from_micros(time);
        assert_eq!(*app.as_of::<Balances>(time).await.unwrap().read(), right);
        let tables = app.as_of_with(Passbook::<1>, time).await.unwrap();
        assert_eq!(tables.read().query(view).await.unwrap(), right);
    }
    let right = Balances::of_log(app.store());
    assert_eq!(*app.view::<Balances>().at_least(app.head()).await.unwrap(), right);
    assert_eq!(level::<1>(&app).await, right);
    app.shutdown().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_has_happened(
        steps in prop::collection::vec(step(), 0..25),
        meanwhile in prop::collection::vec(step(), 0..8),
        on_disk: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let builder = match on_disk {
                true => App::builder().store(sqlite(directory.path().join("log.db"))),
                false => App::builder().store(Memory::new()),
            };
            history(builder, steps, meanwhile).await;
            assert_eq!(scratches(directory.path()), 0);
        });
    }
}

/// How many files of views that are looked at there are.
fn scratches(directory: &Path) -> usize {
    let names = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().contains(".as-of-")).count()
}

#[tokio::test]
async fn a_stream_that_cannot_be_read_is_an_error_and_the_live_aggregate_decides_on() {
    let app = App::builder().store(Memory::new()).aggregate::<Account>().start().await.unwrap();
    app.send("a", Deposit { cents: 5 }).await.unwrap();
    app.send("a", Rig { fuse: "history".into() }).await.unwrap();
    app.send("a", Deposit { cents: 7 }).await.unwrap();

    light("history");
    let error = app.load::<Account>("a").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the code that reads stream account-a panicked after version 1: the fuse history was lit"
    );
    assert_eq!(app.load::<Account>("a").at_version(Version::new(1)).await.unwrap().cents, 5);
    // It is live, so it folds nothing anew.
    app.send("a", Check { cents: 12 }).await.unwrap();
    put_out("history");
    assert_eq!(app.load::<Account>("a").await.unwrap().cents, 12);

    let stranger = Recorded {
        header: Header::new(account("b"), "account.eaten", 1, Timestamp::default()),
        payload: b"{}".as_slice().into(),
    };
    let commit = Commit::new().append(account("b"), ExpectedVersion::Any, vec![stranger.clone()]);
    app.store().commit(&mut [commit]).unwrap()[0].as_ref().unwrap();
    let unreadable = |error: HistoryError| matches!(error, HistoryError::Unreadable { version, .. } if version == Version::new(1));
    assert!(unreadable(app.load::<Account>("b").await.unwrap_err()));
    assert!(unreadable(app.history::<Account>("b").await.unwrap_err()));
    let stored = app.history_of(account("b")).await.unwrap();
    assert_eq!(stored[0].event_id, stranger.event_id);
    assert!(matches!(app.load::<Account>("").await.unwrap_err(), HistoryError::InvalidStream(_)));
    app.shutdown().await.unwrap();
    // The log is still there.
    assert_eq!(app.load::<Account>("a").await.unwrap().cents, 12);
}

/// Folds accounts and passes over what it does not know.
#[derive(Default, Debug, PartialEq)]
struct Lenient(i64);

impl Aggregate for Lenient {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;
    type Command = ();
    type Error = std::convert::Infallible;
    fn decide(
        &self,
        (): (),
        _: &tidings::Context,
        _: &mut Vec<AccountEvent>,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
    fn apply(&mut self, event: &AccountEvent) {
        if let AccountEvent::Deposited(event) = event {
            self.0 += event.cents;
        }
    }
    fn command_name((): &()) -> &'static str {
        "none"
    }
    fn unknown_events() -> UnknownEvents {
        UnknownEvents::Ignore
    }
}

#[tokio::test]
async fn what_an_aggregate_passes_over_it_passes_over_here_too() {
    let app = App::builder().store(Memory::new()).aggregate::<Account>().start().await.unwrap();
    app.send("a", Deposit { cents: 5 }).await.unwrap();
    let stranger = Recorded {
        header: Header::new(account("a"), "account.eaten", 1, Timestamp::default()),
        payload: b"{}".as_slice().into(),
    };
    let commit = Commit::new().append(account("a"), ExpectedVersion::Any, vec![stranger]);
    app.store().commit(&mut [commit]).unwrap()[0].as_ref().unwrap();
    let loaded = app.load::<Lenient>("a").await.unwrap();
    assert_eq!((loaded.0, loaded.version, loaded.ignored), (5, Version::new(2), 1));
    assert_eq!(app.history::<Lenient>("a").await.unwrap().len(), 1);
    assert_eq!(app.history_of(account("a")).await.unwrap().len(), 2);
    app.shutdown().await.unwrap();
}

#[derive(Query, Clone)]
#[query(reply = i64)]
struct Total;

#[derive(Query, Clone)]
#[query(reply = BTreeMap<String, i64>)]
struct Accounts;

#[derive(Query, Clone)]
#[query(reply = ())]
struct NobodyKnows;

/// What both kinds of projections cannot fold, and how often yet.
#[derive(Clone, Default)]
struct Rules(Arc<AtomicI64>);

impl Rules {
    fn check(&self, cents: i64) -> Result<(), String> {
        match self.0.load(Ordering::SeqCst) == cents {
            true => Err(format!("{cents} cents are too few")),
            false => Ok(()),
        }
    }
}

#[derive(Default)]
struct Picky {
    rules: Rules,
    of: BTreeMap<String, i64>,
    withdrawals: u64,
}

#[projection(name = "picky", version = 1)]
impl Picky {
    #[on]
    fn deposited(&mut self, event: &Deposited, header: &Header) -> Result<(), String> {
        self.rules.check(event.cents)?;
        *self.of.entry(header.stream.id().into()).or_default() += event.cents;
        Ok(())
    }

    #[on(live_only)]
    fn withdrawn(&mut self, _: &Withdrawn) {
        self.withdrawals += 1;
    }

    #[query]
    fn accounts(&self, _: Accounts) -> BTreeMap<String, i64> {
        self.of.clone()
    }
}

struct PickyRows(Rules);

#[projection(
    name = "picky rows",
    version = 1,
    schema = "CREATE TABLE picky_rows (account TEXT, cents INTEGER)"
)]
impl PickyRows {
    #[on]
    fn deposited(
        &self,
        tx: &Transaction<'_>,
        event: &Deposited,
        header: &Header,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        tx.execute("INSERT INTO picky_rows VALUES (?1, ?2)", (header.stream.id(), event.cents))?;
        Ok(self.0.check(event.cents)?)
    }

    #[query]
    fn total(db: &Connection, _: Total) -> rusqlite::Result<i64> {
        db.query_row("SELECT coalesce(sum(cents), 0) FROM picky_rows", [], |row| row.get(0))
    }
}

async fn picky(builder: AppBuilder, rules: &Rules) -> App {
    builder
        .aggregate::<Account>()
        .projection(Picky { rules: rules.clone(), ..Picky::default() })
        .projection(PickyRows(rules.clone()))
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn what_cannot_be_handled_is_told_and_what_people_have_decided_holds() {
    for on_disk in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let builder = match on_disk {
            true => App::builder().store(sqlite(directory.path().join("log.db"))),
            false => App::builder().store(Memory::new()),
        };
        let rules = Rules::default();
        rules.0.store(20, Ordering::SeqCst);
        let app = picky(builder, &rules).await;
        for cents in [10, 20, 30] {
            app.send("a", Deposit { cents }).await.unwrap();
            app.send("b", Deposit { cents: cents + 100 }).await.unwrap();
        }
        let all = app.head();
        let views = async |at: Position| {
            let memory = app
                .as_of_with(Picky { rules: rules.clone(), ..Picky::default() }, at)
                .await
                .unwrap();
            let tables = app.as_of_with(PickyRows(rules.clone()), at).await.unwrap();
            assert_eq!(memory.letters().len(), tables.letters().len());
            let a = memory.read().of.get("a").copied().unwrap_or_default();
            let b = memory.read().of.get("b").copied().unwrap_or_default();
            assert_eq!(tables.query(Total).await.unwrap(), a + b);
            (a, b, memory.letters().to_vec())
        };
        let (a, b, letters) = views(all).await;
        assert_eq!((a, b), (10, 360));
        assert_eq!(letters[0].position, Position::new(3));
        assert_eq!(letters[0].error(), Some("20 cents are too few"));
        assert_eq!(
            (letters[1].position, letters[1].state),
            (Position::new(5), LetterState::Waiting)
        );
        // Before that there is nothing to tell.
        assert_eq!(views(Position::new(2)).await, (10, 110, vec![]));

        // Those of the live views are their own, and decided about there.
        for consumer in ["picky", "picky rows"] {
            app.reached(consumer, all, PATIENCE).await.unwrap();
            let letters = app.letters().of(consumer).unwrap();
            assert_eq!(letters.list().len(), 2);
            letters.edit(Position::new(3), r#"{"cents":21}"#).await.unwrap();
        }
        assert_eq!(views(all).await, (61, 360, vec![]));
        assert_eq!(views(Position::new(3)).await, (31, 110, vec![]));
        rules.0.store(40, Ordering::SeqCst);
        app.send("a", Deposit { cents: 40 }).await.unwrap();
        assert_eq!(views(app.head()).await.2.len(), 1);
        for consumer in ["picky", "picky rows"] {
            app.reached(consumer, app.head(), PATIENCE).await.unwrap();
            let letters = app.letters().of(consumer).unwrap();
            letters.discard(app.head(), "a slip of the pen").await.unwrap();
        }
        assert_eq!(views(app.head()).await, (61, 360, vec![]));
        app.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn handlers_that_are_live_only_do_not_run() {
    let app = picky(App::builder().store(Memory::new()), &Rules::default()).await;
    app.send("a", Deposit { cents: 10 }).await.unwrap();
    let last = app.send("a", Withdraw { cents: 1 }).await.unwrap();
    assert_eq!(app.view::<Picky>().at_least(last.position).await.unwrap().withdrawals, 1);
    let then = app.as_of::<Picky>(last.position).await.unwrap();
    assert_eq!((then.read().withdrawals, then.read().of["a"]), (0, 10));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn two_points_are_compared() {
    #[derive(Default, serde::Serialize)]
    struct Shown {
        cents: i64,
    }
    impl Aggregate for Shown {
        const CATEGORY: &'static str = "account";
        type Event = AccountEvent;
        type Command = ();
        type Error = std::convert::Infallible;
        fn decide(
            &self,
            (): (),
            _: &tidings::Context,
            _: &mut Vec<AccountEvent>,
        ) -> Result<(), Self::Error> {
            Ok(())
        }
        fn apply(&mut self, event: &AccountEvent) {
            if let AccountEvent::Deposited(event) = event {
                self.cents += event.cents;
            }
        }
        fn command_name((): &()) -> &'static str {
            "none"
        }
    }

    let app = picky(App::builder().store(Memory::new()), &Rules::default()).await;
    let first = app.send("a", Deposit { cents: 10 }).await.unwrap();
    app.send("b", Deposit { cents: 5 }).await.unwrap();
    let last = app.send("a", Deposit { cents: 2 }).await.unwrap();
    let diff = app.diff::<Picky, _>(Accounts, first.position, last.position).await.unwrap();
    assert_eq!(diff.to_string(), "/a: 10 → 12\n/b: nothing → 5");
    let paths: Vec<_> = diff.iter().map(|difference| &*difference.path).collect();
    assert_eq!(paths, ["/a", "/b"]);
    let same = app.diff::<Picky, _>(Accounts, last.position, last.position).await.unwrap();
    assert!(same.is_empty());
    let error = app.diff::<Picky, _>(NobodyKnows, first.position, last.position).await.unwrap_err();
    assert!(matches!(error, DiffError::Query(QueryError::Unanswered("NobodyKnows"))), "{error}");

    let diff = app.diff_aggregate::<Shown>("a", first.version, last.version).await.unwrap();
    assert_eq!(diff.to_string(), "/cents: 10 → 12");
    let beyond = app.diff_aggregate::<Shown>("a", first.version, Version::new(9)).await;
    assert!(matches!(beyond, Err(DiffError::History(HistoryError::BeyondStream { .. }))));
    app.shutdown().await.unwrap();
}

/// Stops at what it cannot fold.
#[derive(Default)]
struct Strict {
    seen: u64,
}

impl Projection for Strict {
    const NAME: &'static str = "strict";
    const VERSION: u32 = 1;
    type Storage = InMemory;

    fn handlers(handlers: &mut Handlers<Self, InMemory>) {
        handlers.on(|view: &mut Self, event: &Deposited, _: &Header| {
            view.seen += 1;
            if event.cents == 13 { Err("unlucky") } else { Ok(()) }
        });
    }

    fn failures() -> FailurePolicy {
        FailurePolicy { on_failure: OnFailure::Stop, ..FailurePolicy::default() }
    }
}

#[tokio::test]
async fn a_projection_that_stops_at_a_failure_is_folded_up_to_it() {
    let app = App::builder().store(Memory::new()).aggregate::<Account>();
    let app = app.projection(Strict::default()).start().await.unwrap();
    for cents in [12, 13, 14] {
        app.send("a", Deposit { cents }).await.unwrap();
    }
    assert_eq!(app.as_of::<Strict>(Position::new(1)).await.unwrap().read().seen, 1);
    let error = app.as_of::<Strict>(Position::new(3)).await.unwrap_err();
    let AsOfError::Stopped { position, trouble, .. } = error else { panic!("{error}") };
    assert_eq!(position, Position::new(1));
    assert!(
        matches!(&*trouble, Trouble::Handler { position, .. } if *position == Position::new(2)),
        "{trouble}"
    );
    let error = app.as_of::<Strict>(Position::new(4)).await.unwrap_err();
    assert!(
        matches!(error, AsOfError::BeyondLog { head, .. } if head == Position::new(3)),
        "{error}"
    );
    let error = app.as_of::<Balances>(Position::START).await.unwrap_err();
    assert!(matches!(error, AsOfError::Unknown("balances")), "{error}");
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_an_error_and_not_waited_for() {
    let (store, faults) = Faulty::new(Memory::new());
    let app = both(App::builder().store(store)).await;
    let last = app.send("a", Deposit { cents: 10 }).await.unwrap();
    app.view::<Balances>().at_least(last.position).await.unwrap();
    faults.fail_all(Operation::ReadLog, Fault::Failed);
    faults.fail_all(Operation::ReadStream, Fault::Failed);
    let failed = soon("an error", app.as_of::<Balances>(last.position)).await.unwrap_err();
    let AsOfError::Stopped { trouble, .. } = failed else { panic!("{failed}") };
    assert!(matches!(*trouble, Trouble::Log(_)), "{trouble}");
    let failed = app.as_of::<Balances>(Timestamp::from_micros(u64::MAX)).await.unwrap_err();
    assert!(matches!(failed, AsOfError::Log(_)), "{failed}");
    assert!(matches!(app.load::<Account>("a").await, Err(HistoryError::Store(_))));
    assert!(matches!(app.history::<Account>("a").await, Err(HistoryError::Store(_))));
    assert!(matches!(app.trace_of(last.position).await, Err(HistoryError::Store(_))));
    faults.recover();
    assert_eq!(app.as_of::<Balances>(last.position).await.unwrap().read().of["a"], 10);
    app.shutdown().await.unwrap();
}

/// A place half-way where a fold waits until it is let on.
#[derive(Default)]
struct Halfway {
    folded: AtomicU64,
    reached: tokio::sync::Notify,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Halfway {
    fn pass(&self) {
        if self.folded.fetch_add(1, Ordering::SeqCst) == 100 {
            self.reached.notify_one();
            drop(self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
        }
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

/// Counts what it folds, and may be held half-way.
struct Counted(Option<Arc<Halfway>>);

impl Projection for Counted {
    const NAME: &'static str = "counted";
    const VERSION: u32 = 1;
    type Storage = Tables;

    fn handlers(handlers: &mut Handlers<Self, Tables>) {
        handlers.schema("CREATE TABLE counted (cents INTEGER)").on(
            |view: &Self, tx: &Transaction<'_>, event: &Deposited, _: &Header| {
                view.0.iter().for_each(|halfway| halfway.pass());
                tx.execute("INSERT INTO counted VALUES (?1)", [event.cents])
            },
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_half_way_it_ends_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let app = App::builder().store(sqlite(directory.path().join("log.db"))).aggregate::<Account>();
    let app = app.projection(Counted(None)).start().await.unwrap();
    const EVENTS: u64 = 30_000;
    app.send("a", DepositAll { parts: vec![1; EVENTS as usize] }).await.unwrap();
    let halfway = Arc::new(Halfway::default());
    let mut folding = Box::pin(app.as_of_with(Counted(Some(Arc::clone(&halfway))), app.head()));
    tokio::select! {
        _ = &mut folding => panic!("it was not held"),
        reached = tokio::time::timeout(PATIENCE, halfway.reached.notified()) => reached.unwrap(),
    }
    assert_eq!(scratches(directory.path()), 1);
    drop(folding);
    halfway.open();
    bank::until("its file is gone", || scratches(directory.path()) == 0).await;
    let at_the_end = halfway.folded.load(Ordering::SeqCst);
    assert!(at_the_end < EVENTS, "it was folded to its end");
    app.shutdown_within(PATIENCE).await.unwrap();
    assert_eq!(halfway.folded.load(Ordering::SeqCst), at_the_end);
}

#[tokio::test]
async fn several_are_looked_at_together_and_what_a_crash_has_left_goes_with_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let app = both(App::builder().store(sqlite(&path))).await;
    for cents in 1..=3 {
        app.send("a", Deposit { cents }).await.unwrap();
    }
    let one = app.as_of_with(Passbook::<1>, Position::new(1)).await.unwrap();
    let two = app.as_of_with(Passbook::<1>, Position::new(2)).await.unwrap();
    assert_eq!(scratches(directory.path()), 2);
    assert_eq!(one.read().query(view).await.unwrap().of["a"], 1);
    // A reader may outlive what it came from.
    let reader = two.read();
    drop(two);
    assert_eq!(reader.query(view).await.unwrap().of["a"], 3);
    drop((one, reader));
    assert_eq!(scratches(directory.path()), 0);
    app.shutdown().await.unwrap();
    drop(app);

    let left = directory.path().join("log.views.db.book.as-of-7");
    for end in ["", "-journal"] {
        std::fs::write(format!("{}{end}", left.display()), "left").unwrap();
    }
    let foreign = directory.path().join("log.views.db.as-of-7");
    std::fs::write(&foreign, "of somebody else").unwrap();
    let app = both(App::builder().store(sqlite(&path))).await;
    assert!(!left.exists() && foreign.exists());
    assert_eq!(scratches(directory.path()), 1);
    // It serves after the shutdown, too: the log is still open.
    app.shutdown().await.unwrap();
    let last = app.as_of_with(Passbook::<1>, app.head()).await.unwrap();
    assert_eq!(last.read().query(view).await.unwrap().of["a"], 6);
    assert_eq!(app.as_of::<Balances>(app.head()).await.unwrap().read().of["a"], 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_look_at_the_same_point_while_commands_are_sent() {
    let directory = tempfile::tempdir().unwrap();
    let app = both(App::builder().store(sqlite(directory.path().join("log.db")))).await;
    for cents in 1..=50 {
        app.send((cents % 3).to_string(), Deposit { cents }).await.unwrap();
    }
    let log = whole_log(app.store());
    let (point, right) = (app.head(), balances(&log));
    let account = fold(&entries(app.store(), "1"));
    let version = Version::new(account.entries);
    let looking = |number: u32| {
        let (app, right, account) = (app.clone(), right.clone(), account.clone());
        tokio::spawn(async move {
            assert_eq!(*app.as_of::<Balances>(point).await.unwrap().read(), right);
            let tables = app.as_of_with(Passbook::<1>, point).await.unwrap();
            assert_eq!(tables.read().query(view).await.unwrap(), right);
            let loaded = app.load::<Account>("1").at_version(version).await.unwrap();
            assert_eq!(loaded.aggregate, account);
            assert!(!app.trace_of(point).await.unwrap().is_empty());
            assert!(app.history::<Account>("1").limit(5).await.unwrap().len() == 5);
            number
        })
    };
    let tasks: Vec<_> = (0..6).map(looking).collect();
    for cents in 51..=150 {
        app.send((cents % 3).to_string(), Deposit { cents }).await.unwrap();
    }
    for (task, number) in tasks.into_iter().zip(0..) {
        assert_eq!(soon("a look", task).await.unwrap(), number);
    }
    assert_eq!(level::<1>(&app).await, Balances::of_log(app.store()));
    assert_eq!(scratches(directory.path()), 0);
    app.shutdown().await.unwrap();
}
