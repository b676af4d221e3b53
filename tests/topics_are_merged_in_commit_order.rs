//! Guarantee 14: what reads several topics sees them merged in commit order, each event once: while it catches up, live, and when
//! it falls behind.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]

#[path = "support/bank.rs"]
mod bank;

use bank::*;
use proptest::prelude::*;
use tidings::testing::{Faulty, Operation};
use tidings::{App, Header, Memory, projection};

/// Every event of both topics, in the order in which it comes.
#[derive(Default)]
struct Chronicle {
    seen: Vec<u64>,
    cents: i64,
    booked: u64,
}

#[projection(name = "chronicle", version = 1)]
impl Chronicle {
    #[on]
    fn deposited(&mut self, event: &Deposited, header: &Header) {
        self.seen.push(header.position.as_u64());
        self.cents += event.cents;
        // Slower than the writers, so that it falls behind.
        std::thread::yield_now();
    }
    #[on]
    fn booked(&mut self, event: &Booked, header: &Header) {
        self.seen.push(header.position.as_u64());
        self.booked += event.number;
    }
}

/// Names no withdrawal: of that topic it wants a part.
#[derive(Default)]
struct Bookings {
    seen: Vec<u64>,
}

#[projection(name = "bookings", version = 1)]
impl Bookings {
    #[on]
    fn booked(&mut self, _: &Booked, header: &Header) {
        self.seen.push(header.position.as_u64());
    }
    #[on]
    fn withdrawn(&mut self, _: &Withdrawn, header: &Header) {
        self.seen.push(header.position.as_u64());
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Deposit(u8),
    DepositMany(u8),
    Withdraw(u8),
    Book(u8),
    /// Holds the reading of the log, or lets it go on.
    Reading(bool),
    /// Waits for everything that was sent.
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Deposit),
        2 => (0..20_u8).prop_map(Step::DepositMany),
        1 => any::<u8>().prop_map(Step::Withdraw),
        4 => any::<u8>().prop_map(Step::Book),
        1 => any::<bool>().prop_map(Step::Reading),
        1 => Just(Step::Settle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_projection_over_two_topics_sees_them_in_commit_order(
        steps in prop::collection::vec(step(), 1..120),
        old in 0..60_usize,
        capacity in 1..20_usize,
    ) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
            .block_on(check(steps, old, capacity));
    }
}

async fn check(steps: Vec<Step>, old: usize, capacity: usize) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.db");
    let (before, after) = steps.split_at(old.min(steps.len()));
    // What an earlier run left is caught up with.
    let builder = App::builder().store(sqlite(&path)).aggregate::<Account>();
    let app = builder.aggregate::<Ledger>().start().await.unwrap();
    let (_, faults) = Faulty::new(Memory::new());
    run(&app, &faults, before).await;
    app.shutdown().await.unwrap();
    drop(app);

    let (store, faults) = Faulty::new(sqlite(&path));
    let app = App::builder()
        .store(store)
        .aggregate::<Account>()
        .aggregate::<Ledger>()
        .projection(Chronicle::default())
        .projection(Bookings::default())
        .topic_capacity(capacity)
        .start()
        .await
        .unwrap();
    run(&app, &faults, after).await;
    let log = whole_log(app.store());
    let of = |names: &[&str]| -> Vec<_> {
        let wanted = log.iter().filter(|event| names.contains(&&*event.name));
        wanted.map(|event| event.position.as_u64()).collect()
    };
    {
        let view = app.view::<Chronicle>();
        let seen = view.at_least(app.head()).await.unwrap();
        assert_eq!(seen.seen, of(&["account.deposited", "ledger.booked"]));
    }
    {
        let view = app.view::<Bookings>();
        let seen = view.at_least(app.head()).await.unwrap();
        assert_eq!(seen.seen, of(&["account.withdrawn", "ledger.booked"]));
    }
    app.shutdown().await.unwrap();
}

async fn run(app: &App, faults: &tidings::testing::Faults, steps: &[Step]) {
    let mut gate = None;
    let mut sends = Vec::new();
    for step in steps {
        let (app, id) = (app.clone(), "a");
        let step = *step;
        match step {
            Step::Reading(false) => gate = Some(faults.hold(Operation::ReadLog)),
            Step::Reading(true) => gate = None,
            Step::Settle => {
                for send in sends.drain(..) {
                    settle(send).await;
                }
            }
            _ => sends.push(
                begin(async move {
                    match step {
                        Step::Deposit(cents) => {
                            let cents = i64::from(cents);
                            app.send(id, Deposit { cents }).await.unwrap();
                        }
                        Step::DepositMany(parts) => {
                            let parts = (0..i64::from(parts)).collect();
                            app.send(id, DepositAll { parts }).await.unwrap();
                        }
                        Step::Withdraw(cents) => {
                            let cents = i64::from(cents);
                            let _ = app.send(id, Withdraw { cents }).await;
                        }
                        Step::Book(number) => {
                            let number = u64::from(number);
                            app.send("l", Book { number }).await.unwrap();
                        }
                        Step::Reading(_) | Step::Settle => {}
                    }
                })
                .await,
            ),
        }
    }
    drop(gate);
    for send in sends {
        settle(send).await;
    }
}

async fn settle<F: Future<Output = ()>>(send: Begun<F>) {
    soon("an answer", send.end()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_to_both_topics_at_once_are_seen_in_commit_order_by_views_and_subscribers() {
    let app = App::builder()
        .store(Memory::new())
        .aggregate::<Account>()
        .aggregate::<Ledger>()
        .projection(Chronicle::default())
        .topic_capacity(16)
        .arbiters(2)
        .start()
        .await
        .unwrap();
    let topic = app.topic::<LedgerEvent>().unwrap();
    let mut subscription = topic.subscribe().open();
    let subscriber = tokio::spawn(async move {
        let mut heard = Vec::new();
        while let Some(batch) = subscription.next().await.unwrap() {
            heard.extend(batch.iter().map(|envelope| envelope.position.as_u64()));
            tokio::task::yield_now().await;
        }
        heard
    });
    let writers = (0..4).map(|writer| {
        let app = app.clone();
        tokio::spawn(async move {
            for number in 0..500 {
                let id = writer.to_string();
                if writer % 2 == 0 {
                    app.send(id, Deposit { cents: 1 }).await.unwrap();
                } else {
                    app.send(id, Book { number }).await.unwrap();
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        soon("a writer", writer).await.unwrap();
    }
    let expected: Vec<_> = (1..=2_000).collect();
    {
        let view = app.view::<Chronicle>();
        let seen = view.at_least(app.head()).await.unwrap();
        assert_eq!(seen.seen, expected);
        assert_eq!((seen.cents, seen.booked), (1_000, 2 * (499 * 500 / 2)));
    }
    app.shutdown().await.unwrap();
    let log = whole_log(app.store());
    let booked = log.iter().filter(|event| event.name == "ledger.booked");
    let booked: Vec<_> = booked.map(|event| event.position.as_u64()).collect();
    assert_eq!(subscriber.await.unwrap(), booked);
}
