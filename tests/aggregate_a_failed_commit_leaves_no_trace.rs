//! Guarantee 9: a failed commit leaves no trace. No event of it is visible, nobody is told that it succeeded, and the next
//! command decides on what is committed.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]

#[path = "support/bank.rs"]
mod bank;

use std::collections::HashMap;
use std::time::Duration;

use bank::*;
use futures_util::future::join_all;
use tidings::testing::{Fault, Faults, Faulty, Operation};
use tidings::{
    App, CommandId, EventStore, Memory, Outcome, Position, Receipt, Recorded, SendError, StoreError,
};

type Answer = Result<Receipt, SendError<Overdrawn>>;

async fn faulty() -> (App, Faults) {
    let (store, faults) = Faulty::new(Memory::new());
    let app = App::builder()
        .store(store)
        .aggregate::<Account>()
        .projection(Balances::default())
        .arbiters(1)
        .start()
        .await
        .unwrap();
    (app, faults)
}

#[tokio::test]
async fn the_caller_is_told_and_no_event_is_visible() {
    let (app, faults) = faulty().await;
    faults.fail(Operation::Commit, 1, Fault::Failed);
    let answer = app.send("a", Deposit { cents: 5 }).await;
    assert!(
        matches!(answer, Err(SendError::Store(error)) if matches!(*error, StoreError::Failed { .. }))
    );
    assert_eq!(app.head(), Position::START);
    assert_eq!(app.store().head().unwrap(), Position::START);

    // The next one decides on the empty account.
    let answer = app.send("a", Withdraw { cents: 1 }).await;
    let lacking = Overdrawn { cents: 0, entries: 0 };
    assert!(matches!(answer, Err(SendError::Rejected(reason)) if reason == lacking));
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_full_or_read_only_disk_is_reported_to_every_caller_and_the_app_goes_on_afterwards() {
    for fault in [Fault::Full, Fault::ReadOnly] {
        let (app, faults) = faulty().await;
        app.send("a", Deposit { cents: 5 }).await.unwrap();
        faults.fail_all(Operation::Commit, fault);
        let sends = (0..50).map(|n| app.send(format!("{}", n % 7), Deposit { cents: 1 }));
        for answer in join_all(sends).await {
            let Err(SendError::Store(error)) = answer else {
                panic!("{answer:?}");
            };
            match fault {
                Fault::Full => assert!(matches!(*error, StoreError::Full { .. })),
                _ => assert!(matches!(*error, StoreError::ReadOnly { .. })),
            }
        }
        assert_eq!(app.store().head().unwrap().as_u64(), 1);
        // What needs no commit is answered as ever.
        assert!(matches!(app.send("a", Withdraw { cents: 6 }).await, Err(SendError::Rejected(_))));

        faults.recover();
        let receipt = app.send("a", Withdraw { cents: 5 }).await.unwrap();
        assert_eq!(receipt.version.as_u64(), 2);
        let view = app.view::<Balances>();
        assert_eq!(view.at_least(receipt.position).await.unwrap().of["a"], 0);
        app.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn commands_decided_on_the_lost_state_are_decided_again() {
    let (app, faults) = faulty().await;
    let mut gate = faults.hold(Operation::Commit);
    let mut lost = app.send("a", Deposit { cents: 10 });
    not_yet("the answer", &mut lost).await;
    gate.reached(1).await;

    // All of these are decided on the ten cents that will never be.
    let mut accepted = app.send("a", Withdraw { cents: 4 });
    not_yet("the answer", &mut accepted).await;
    let mut rejected = app.send("a", Withdraw { cents: 7 });
    not_yet("the answer", &mut rejected).await;
    let mut checked = app.send("a", Check { cents: 6 });
    not_yet("the answer", &mut checked).await;
    let mut kept = app.send("a", Deposit { cents: 3 });
    not_yet("the answer", &mut kept).await;
    until("all are decided", || decided(&app) == 5).await;
    faults.fail(Operation::Commit, 0, Fault::Failed);
    drop(gate);

    let lacking = |answer: Answer| match answer {
        Err(SendError::Rejected(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let empty = Overdrawn { cents: 0, entries: 0 };
    assert!(matches!(lost.await, Err(SendError::Store(_))));
    assert_eq!(lacking(accepted.await), empty);
    assert_eq!(lacking(rejected.await), empty);
    assert_eq!(lacking(checked.await), empty);
    assert_eq!(kept.await.unwrap().version.as_u64(), 1);
    assert_eq!(fold(&entries(app.store(), "a")).cents, 3);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_commit_that_was_written_though_reported_as_failed_reaches_every_reader() {
    let (app, faults) = faulty().await;
    let topic = app.topic::<AccountEvent>().unwrap();
    let mut subscription = topic.subscribe().open();
    app.send("a", Deposit { cents: 1 }).await.unwrap();
    faults.fail(Operation::Commit, 1, Fault::FailedAfterwards);
    let id = CommandId::from_name("unknown outcome");
    let answer = app.send("a", Deposit { cents: 10 }).command_id(id).await;
    assert!(matches!(answer, Err(SendError::Store(_))));

    // Sent again with the same id, its outcome comes out.
    let again = app.send("a", Deposit { cents: 10 }).command_id(id).await.unwrap();
    assert_eq!((again.outcome, again.version.as_u64()), (Outcome::AlreadyKnown, 2));
    let view = app.view::<Balances>();
    assert_eq!(view.at_least(again.position).await.unwrap().of["a"], 11);

    let last = app.send("a", Deposit { cents: 100 }).await.unwrap();
    assert_eq!(view.at_least(last.position).await.unwrap().of["a"], 111);
    assert_eq!(view.read().seen, [1, 2, 3]);
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let batch = soon("the events", subscription.next()).await.unwrap().unwrap();
        heard.extend(batch.iter().map(|envelope| envelope.position.as_u64()));
    }
    assert_eq!(heard, [1, 2, 3]);
    app.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_seeded_faults_leave_no_trace_in_memory() {
    for app_seed in 0..40 {
        let (store, faults) = Faulty::new(Memory::new());
        check_schedules(store, faults, app_seed, 50).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeded_faults_leave_no_trace_in_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    for app_seed in 1_000..1_006 {
        let path = directory.path().join(format!("{app_seed}.db"));
        let (store, faults) = Faulty::new(sqlite(path));
        check_schedules(store, faults, app_seed, 30).await;
    }
}

fn decided(app: &App) -> u64 {
    let status = app.status();
    status.aggregates[0].shards.iter().map(|s| s.decided).sum()
}

/// Runs `rounds` schedules against one app, each on accounts of its own.
async fn check_schedules(
    store: Faulty<impl EventStore>,
    faults: Faults,
    app_seed: u64,
    rounds: u64,
) {
    let mut dice = Dice::new(app_seed);
    let app = App::builder()
        .store(store)
        .aggregate::<Account>()
        .projection(Balances::default())
        .arbiters(1 + dice.below(2) as usize)
        .max_live(1 + dice.below(20) as usize)
        .inbox(1 + dice.below(20) as usize)
        .topic_capacity(1 + dice.below(30) as usize)
        .passivate_after(Duration::from_millis(dice.below(20)))
        .start()
        .await
        .unwrap();
    let mut subscription =
        app.topic::<AccountEvent>().unwrap().subscribe().after(Position::START).open();
    let heard = tokio::spawn(async move {
        let mut heard = Vec::new();
        while let Some(batch) = subscription.next().await.unwrap() {
            heard.extend(batch.iter().map(|envelope| envelope.position.as_u64()));
        }
        heard
    });
    for round in 0..rounds {
        check_schedule(&app, &faults, app_seed * 1_000 + round).await;
    }
    // Nothing of what is written stays unpublished, and views and subscribers have all of it.
    let head = app.store().head().unwrap();
    until("all is published", || app.head() == head).await;
    let view = app.view::<Balances>();
    let folded = view.at_least(head).await.unwrap().clone();
    assert_eq!(folded, Balances::of_log(app.store()), "seed {app_seed}");
    app.shutdown().await.unwrap();
    let all: Vec<_> = (1..=head.as_u64()).collect();
    assert_eq!(heard.await.unwrap(), all, "seed {app_seed}");
}

/// What was sent.
#[derive(Debug, Clone)]
enum Wish {
    Deposit(i64),
    Withdraw(i64),
    DepositAll(Vec<i64>),
    Check(i64),
}

struct Sent {
    id: CommandId,
    account: String,
    wish: Wish,
    answer: Answer,
}

async fn check_schedule(app: &App, faults: &Faults, seed: u64) {
    let mut dice = Dice::new(seed);
    let accounts = 1 + dice.below(4);
    let mut sent: Vec<Sent> = Vec::new();
    let mut wishes: HashMap<CommandId, (String, Wish)> = HashMap::new();
    for wave in 0..3 {
        let mut gate = dice.chance(70).then(|| faults.hold(Operation::Commit));
        for _ in 0..dice.below(4) {
            let fault = [Fault::Full, Fault::ReadOnly, Fault::Failed, Fault::FailedAfterwards]
                [dice.below(4) as usize];
            faults.fail(Operation::Commit, dice.below(5), fault);
        }
        if dice.chance(10) {
            faults.fail(Operation::ReadStream, dice.below(4), Fault::Failed);
        }
        if dice.chance(10) {
            faults.fail(Operation::FindCommand, dice.below(4), Fault::Failed);
        }
        let mut answers = Vec::new();
        for number in 0..5 + dice.below(20) {
            let fresh = dice.chance(60);
            let name = match fresh {
                true => format!("{seed}:{wave}:{number}"),
                // The same wish under the same id, now and then.
                false => format!("{seed}:repeated:{}", dice.below(6)),
            };
            let id = CommandId::from_name(&name);
            let (account, wish) = wishes
                .entry(id)
                .or_insert_with(|| {
                    let cents = 1 + dice.below(1_000_000) as i64;
                    let wish = match dice.below(4) {
                        0 => Wish::Deposit(cents),
                        1 => Wish::Withdraw(cents),
                        2 => Wish::DepositAll(
                            (0..dice.below(4)).map(|_| dice.below(1_000_000) as i64).collect(),
                        ),
                        _ => Wish::Check(cents),
                    };
                    (format!("{seed}.{}", dice.below(accounts)), wish)
                })
                .clone();
            // In a task of its own, so that it goes on whatever this one waits for.
            let app = app.clone();
            answers.push(tokio::spawn(async move {
                let answer = send(&app, &account, wish.clone(), id).await;
                Sent { id, account, wish, answer }
            }));
            if let Some(gate) = &gate
                && dice.chance(20)
            {
                gate.let_through(1);
                tokio::task::yield_now().await;
            }
            if dice.chance(5) {
                gate.take();
            }
        }
        drop(gate);
        for answer in answers {
            sent.push(soon("an answer", answer).await.unwrap());
        }
    }
    faults.recover();
    for number in 0..accounts {
        let account = format!("{seed}.{number}");
        // Whatever happened, it goes on.
        let receipt = soon("an answer", app.send(&account, Deposit { cents: 1 })).await.unwrap();
        let log = entries(app.store(), &account);
        assert_eq!(receipt.version.as_u64(), log.len() as u64, "seed {seed}");
        let sent: Vec<_> = sent.iter().filter(|sent| sent.account == account).collect();
        check_account(&log[..log.len() - 1], &sent, &wishes, seed);
    }
}

async fn send(app: &App, account: &str, wish: Wish, id: CommandId) -> Answer {
    match wish {
        Wish::Deposit(cents) => app.send(account, Deposit { cents }).command_id(id).await,
        Wish::Withdraw(cents) => app.send(account, Withdraw { cents }).command_id(id).await,
        Wish::DepositAll(parts) => app.send(account, DepositAll { parts }).command_id(id).await,
        Wish::Check(cents) => app.send(account, Check { cents }).command_id(id).await,
    }
}

/// What a naive account does with a wish.
fn naive(state: &Account, wish: &Wish) -> Result<Vec<i64>, Overdrawn> {
    let has = |cents: i64| match cents > state.cents {
        true => Err(Overdrawn { cents: state.cents, entries: state.entries }),
        false => Ok(()),
    };
    match wish {
        Wish::Deposit(cents) => Ok(vec![*cents]),
        Wish::Withdraw(cents) => has(*cents).map(|()| vec![-*cents]),
        Wish::DepositAll(parts) => Ok(parts.clone()),
        Wish::Check(cents) => has(*cents).map(|()| Vec::new()),
    }
}

#[track_caller]
fn check_account(
    log: &[Recorded],
    sent: &[&Sent],
    wishes: &HashMap<CommandId, (String, Wish)>,
    seed: u64,
) {
    // The log holds each command once and whole, decided on the fold of all before it.
    let mut states = vec![Account::default()];
    let mut places: HashMap<CommandId, (usize, usize)> = HashMap::new();
    let mut rest = log;
    while let Some(first) = rest.first() {
        let id = first.header.command_id.unwrap();
        let before = states.last().unwrap().clone();
        let expected = naive(&before, &wishes[&id].1).unwrap();
        let (these, others) = rest.split_at(expected.len());
        let found: Vec<_> = these
            .iter()
            .map(|event| {
                assert_eq!(event.header.command_id, Some(id), "seed {seed}");
                match event.decode::<AccountEvent>().unwrap() {
                    AccountEvent::Deposited(event) => event.cents,
                    AccountEvent::Withdrawn(event) => -event.cents,
                    AccountEvent::Rigged(_) => unreachable!(),
                }
            })
            .collect();
        assert_eq!(found, expected, "seed {seed}");
        for cents in found {
            let mut state = states.last().unwrap().clone();
            state.cents += cents;
            state.entries += 1;
            states.push(state);
        }
        let twice = places.insert(id, (states.len() - 1, expected.len()));
        assert_eq!(twice, None, "seed {seed}: {id} took effect twice");
        rest = others;
    }
    // Each answer is true.
    for Sent { id, wish, answer, .. } in sent {
        let context = format!("seed {seed}: {wish:?} was answered with {answer:?}");
        match answer {
            Ok(receipt) => {
                let version = receipt.version.as_u64() as usize;
                let before = &states[version - receipt.events as usize];
                let events = naive(before, wish).expect(&context);
                assert_eq!(events.len(), receipt.events as usize, "{context}");
                if receipt.events > 0 {
                    assert_eq!(places.get(id), Some(&(version, events.len())), "{context}");
                    assert_eq!(log[version - 1].position, receipt.position, "{context}");
                }
            }
            Err(SendError::Rejected(reason)) => {
                // It was decided on a state that was committed.
                let state = &states[reason.entries as usize];
                assert_eq!(state.cents, reason.cents, "{context}");
                assert_eq!(naive(state, wish), Err(reason.clone()), "{context}");
            }
            Err(SendError::Store(error)) => {
                let known = sent.iter().filter(|other| other.id == *id).count() > 1;
                if !known && !matches!(**error, StoreError::Failed { .. }) {
                    assert_eq!(places.get(id), None, "{context}");
                }
            }
            Err(SendError::Contended { .. }) => {}
            Err(_) => panic!("{context}"),
        }
    }
    // Nothing stands in the log that nobody sent, or that was answered with a rejection only.
    for id in places.keys() {
        let answered = sent.iter().filter(|sent| sent.id == *id);
        assert!(
            answered
                .into_iter()
                .any(|sent| matches!(sent.answer, Ok(_) | Err(SendError::Store(_)))),
            "seed {seed}: {id} is in the log"
        );
    }
}
