//! Members of a group share the events of a topic: each event is handled by one of them, those of one key in order, whoever
//! joins, leaves, is dropped or panics.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail where they panic"
)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message};
use futures_util::FutureExt;
use proptest::prelude::*;
use tidings::{
    Group, Handling, Hook, Member, PublishError, Subscriber, SubscriptionHandle, Topic,
    TopicOptions, TransientEvent,
};
use tokio::runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// One of the events of a key, which are numbered from 0 on.
#[derive(TransientEvent, Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    key: u64,
    number: u64,
}

fn topic(capacity: usize) -> Topic<Step> {
    Topic::with(TopicOptions::default().capacity(capacity))
}

fn group(topic: &Topic<Step>) -> Group<Step> {
    topic.group("workers", |step: &Step| step.key)
}

/// What a member has at once, without waiting: it lingers for some polls before it looks again.
#[track_caller]
fn at_once(member: &mut Member<Step>) -> Option<Step> {
    (0..300).find_map(|_| {
        let next = member.next().now_or_never();
        next.map(|step| *step.expect("the topic is open"))
    })
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it took 20 seconds")
}

/// A step of each of these keys, all of them the first.
fn firsts(keys: impl IntoIterator<Item = u64>) -> Vec<Step> {
    keys.into_iter().map(|key| Step { key, number: 0 }).collect()
}

// What may happen to a group, against a naive model of it.

#[derive(Debug, Clone)]
enum Happens {
    /// Events of these keys, as far as there is room.
    Publish(Vec<u64>),
    Join,
    /// A member is done with what it has, and asks so often.
    Ask(prop::sample::Index, usize),
    Drop(prop::sample::Index),
    Leave(prop::sample::Index),
    Panic(prop::sample::Index),
}

fn happenings() -> impl Strategy<Value = Vec<Happens>> {
    let index = any::<prop::sample::Index>;
    let happens = prop_oneof![
        6 => prop::collection::vec(0..12_u64, 1..20).prop_map(Happens::Publish),
        2 => Just(Happens::Join),
        12 => (index(), 1..8_usize).prop_map(|(member, times)| Happens::Ask(member, times)),
        1 => index().prop_map(Happens::Drop),
        1 => index().prop_map(Happens::Leave),
        1 => index().prop_map(Happens::Panic),
    ];
    prop::collection::vec(happens, 0..120)
}

/// What is published, and how far each key is.
#[derive(Default)]
struct Model {
    published: Vec<Step>,
    next: BTreeMap<u64, u64>,
    handled: BTreeMap<u64, u64>,
}

impl Model {
    fn publish(&mut self, topic: &Topic<Step>, key: u64) {
        let number = self.next.get(&key).copied().unwrap_or(0);
        let step = Step { key, number };
        let published = topic.publisher("host").try_publish(step);
        if !matches!(published, Err(PublishError::Full(_))) {
            published.expect("the topic is open");
            self.next.insert(key, number + 1);
            self.published.push(step);
        }
    }

    fn is_handled(&self, step: &Step) -> bool {
        self.handled.get(&step.key).is_some_and(|handled| step.number < *handled)
    }

    /// How many events there are from the first on that is not handled.
    fn behind(&self) -> usize {
        let first = self.published.iter().position(|step| !self.is_handled(step));
        first.map_or(0, |first| self.published.len() - first)
    }
}

struct Worker {
    member: Member<Step>,
    has: Option<Step>,
}

impl Worker {
    fn done(&mut self, model: &mut Model) {
        if let Some(step) = self.has.take() {
            *model.handled.entry(step.key).or_default() += 1;
        }
    }

    /// True if it is over.
    fn ask(&mut self, model: &mut Model) -> Result<bool, TestCaseError> {
        self.done(model);
        match self.member.next().now_or_never() {
            None => {}
            Some(None) => return Ok(true),
            Some(Some(step)) => {
                // In order, none twice, none left out, and none that another has in hand, which would not be handled yet.
                let handled = model.handled.get(&step.key).copied().unwrap_or(0);
                prop_assert_eq!(step.number, handled, "of key {}", step.key);
                self.has = Some(*step);
            }
        }
        Ok(false)
    }
}

/// No key is in the hands of two.
fn check_hands(workers: &[Worker]) -> Result<(), TestCaseError> {
    let mut keys: Vec<u64> = workers.iter().flat_map(|worker| worker.has).map(|s| s.key).collect();
    keys.sort_unstable();
    let held = keys.len();
    keys.dedup();
    prop_assert_eq!(keys.len(), held);
    Ok(())
}

proptest! {
    // A failing case goes into a test of its own, not into a file beside this one.
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_event_is_handled_once_and_in_the_order_of_its_key(
        capacity in 1..=64_usize,
        happenings in happenings(),
    ) {
        let topic = topic(capacity);
        let group = group(&topic);
        let mut model = Model::default();
        let mut workers = Vec::new();
        for happens in happenings {
            match happens {
                Happens::Publish(keys) => {
                    keys.into_iter().for_each(|key| model.publish(&topic, key));
                }
                Happens::Join => workers.push(Worker { member: group.join(), has: None }),
                _ if workers.is_empty() => {}
                Happens::Ask(index, times) => {
                    for _ in 0..times {
                        index.get_mut(&mut workers).ask(&mut model)?;
                        check_hands(&workers)?;
                    }
                }
                Happens::Drop(index) => {
                    // What it has in hand comes again.
                    workers.swap_remove(index.index(workers.len()));
                }
                Happens::Leave(index) => {
                    let mut worker = workers.swap_remove(index.index(workers.len()));
                    worker.done(&mut model);
                    worker.member.leave();
                }
                Happens::Panic(index) => {
                    let mut worker = workers.swap_remove(index.index(workers.len()));
                    worker.done(&mut model);
                    let panicked = catch_unwind(AssertUnwindSafe(move || {
                        let _worker = worker;
                        resume_unwind(Box::new("as asked"));
                    }));
                    prop_assert!(panicked.is_err());
                }
            }
            prop_assert!(model.behind() <= capacity, "publishers went past the group");
            prop_assert_eq!(group.status().members.len(), workers.len());
        }

        topic.close();
        if workers.is_empty() {
            workers.push(Worker { member: group.join(), has: None });
        }
        let mut turns = 0;
        while !workers.is_empty() {
            turns += 1;
            prop_assert!(turns < 10_000, "the group does not come to an end");
            let mut over = Vec::new();
            for worker in &mut workers {
                over.push(worker.ask(&mut model)?);
            }
            check_hands(&workers)?;
            if over.contains(&true) {
                prop_assert_eq!(model.behind(), 0);
            }
            let mut over = over.into_iter();
            workers.retain(|_| over.next() == Some(false));
        }
        prop_assert_eq!(model.behind(), 0);
        let mut late = group.join();
        prop_assert!((0..300).any(|_| late.next().now_or_never() == Some(None)), "who is late");
    }
}

// One thing at a time.

#[test]
fn a_key_changes_hands_between_two_of_its_events_while_other_keys_go_on() {
    let topic = topic(1_024);
    let group = group(&topic);
    let publisher = topic.publisher("host");
    let mut first = group.join();
    publisher.try_publish_batch(&mut firsts(0..64)).expect("there is room");
    let in_hand = at_once(&mut first).expect("an event");

    // The second one gets nothing while the first is at work, since all keys are in its hands.
    let mut second = group.join();
    assert_eq!(at_once(&mut second), None);
    // From its next event on, the two work side by side.
    let mut seen = vec![in_hand.key, at_once(&mut first).expect("an event").key];
    let other: Vec<u64> = std::iter::from_fn(|| at_once(&mut second)).map(|s| s.key).collect();
    assert!(other.len() > 16, "{other:?}");
    seen.extend(other);
    seen.extend(std::iter::from_fn(|| at_once(&mut first)).map(|s| s.key));
    seen.sort_unstable();
    assert_eq!(seen, (0..64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "current_thread")]
async fn a_member_that_sleeps_is_woken_for_the_keys_of_one_that_is_aborted() {
    let topic = topic(8);
    let group = group(&topic);
    let (told, mut hear) = unbounded_channel();
    let mut members = Vec::new();
    for _ in 0..2 {
        let (member, told) = (group.join(), told.clone());
        let number = member.number();
        members.push(tokio::spawn(member.for_each(async move |step: &Step| {
            told.send((number, *step)).expect("the test listens");
            std::future::pending::<()>().await;
        })));
    }
    tokio::task::yield_now().await;
    let step = Step { key: 1, number: 0 };
    topic.publisher("host").try_publish(step).expect("there is room");
    let (number, heard) = soon(hear.recv()).await.expect("a member");
    assert_eq!(heard, step);
    while topic.status().idle == 0 {
        tokio::task::yield_now().await;
    }

    members[usize::from(number == 2)].abort();
    assert_eq!(soon(hear.recv()).await, Some((3 - number, step)));
    members[usize::from(number == 1)].abort();
}

#[tokio::test(flavor = "current_thread")]
async fn without_a_member_publishers_wait_and_the_next_one_gets_everything() {
    let topic = topic(4);
    let group = group(&topic);
    let publisher = topic.publisher("host");
    let mut steps = firsts(0..5);
    assert!(matches!(publisher.try_publish_batch(&mut steps), Err(PublishError::Full(()))));
    assert_eq!((steps.len(), group.status().lag), (1, 4));
    assert_eq!(group.status().unassigned.len(), 128);

    let publishing = tokio::spawn(async move { publisher.publish_batch(&mut steps).await.is_ok() });
    let mut first = group.join();
    let mut seen: Vec<_> = (0..2).map(|_| at_once(&mut first).expect("an event").key).collect();
    // The second event comes again.
    drop(first);
    let mut next = group.join();
    while seen.len() < 6 {
        seen.push(soon(next.next()).await.expect("the topic is open").key);
    }
    assert_eq!(seen, [0, 1, 1, 2, 3, 4]);
    assert!(soon(publishing).await.expect("it does not panic"));
}

#[tokio::test(flavor = "current_thread")]
async fn publishers_go_on_when_the_last_handle_and_the_last_member_are_dropped() {
    let topic = topic(2);
    let group = group(&topic);
    let member = group.join();
    let publisher = topic.publisher("host");
    publisher.try_publish_batch(&mut firsts(0..2)).expect("there is room");
    let publishing = tokio::spawn(async move {
        publisher.publish(Step { key: 3, number: 0 }).await.expect("the topic is open");
    });
    tokio::task::yield_now().await;
    drop(group);
    tokio::task::yield_now().await;
    assert!(!publishing.is_finished());
    drop(member);
    soon(publishing).await.expect("it is published");
    assert_eq!(topic.status().subscriptions, []);
}

#[test]
fn a_group_that_has_handled_everything_leaves_all_the_room_to_publishers() {
    let topic = topic(32);
    let group = group(&topic);
    let publisher = topic.publisher("host");
    let (mut first, mut second) = (group.join(), group.join());
    // Each has its keys.
    assert_eq!([at_once(&mut second), at_once(&mut first), at_once(&mut second)], [None; 3]);
    publisher.try_publish_batch(&mut firsts([1, 2, 3])).expect("there is room");
    let first_has = std::iter::from_fn(|| at_once(&mut first)).count();
    let second_has = std::iter::from_fn(|| at_once(&mut second)).count();
    assert_eq!(first_has + second_has, 3);
    assert_eq!(topic.status().subscriptions[0].lag, 0);
    let publish_all = || {
        for step in firsts(0..32) {
            publisher.try_publish(step).expect("there is room");
        }
    };
    publish_all();

    // The same where one takes over from the other.
    while at_once(&mut first).is_some() {}
    assert!(at_once(&mut second).is_some());
    drop(second);
    while at_once(&mut first).is_some() {}
    assert_eq!(topic.status().subscriptions[0].lag, 0);
    publish_all();
}

#[test]
fn publishers_go_on_while_a_group_works_off_what_is_there() {
    let topic = topic(16);
    let group = group(&topic);
    let publisher = topic.publisher("host");
    let mut member = group.join();
    publisher.try_publish_batch(&mut firsts(0..16)).expect("there is room");
    for key in 0..9 {
        assert_eq!(at_once(&mut member).map(|step| step.key), Some(key));
    }
    // Eight are done with, and one is in hand.
    for step in firsts(16..24) {
        publisher.try_publish(step).expect("there is room");
    }
    let full = publisher.try_publish(Step { key: 24, number: 0 });
    assert!(matches!(full, Err(PublishError::Full(_))));
}

#[test]
fn keys_are_spread_evenly_and_few_change_hands_when_a_member_comes_or_goes() {
    const KEYS: u64 = 8_000;
    let topic = topic(10_000);
    let group = group(&topic);
    let partitions = |group: &Group<Step>| -> BTreeMap<usize, u64> {
        let members = group.status().members.into_iter();
        members.flat_map(|m| m.partitions.into_iter().map(move |p| (p, m.number))).collect()
    };
    let mut members: Vec<_> = (0..4).map(|_| group.join()).collect();
    let settle = |members: &mut Vec<Member<Step>>| {
        for _ in 0..2 {
            members.iter_mut().for_each(|member| assert_eq!(at_once(member), None));
        }
        let shares: Vec<_> = group.status().members.iter().map(|m| m.partitions.len()).collect();
        let even = 128 / members.len();
        assert!(shares.iter().all(|share| [even, even + 1].contains(share)), "{shares:?}");
        assert!(group.status().unassigned.is_empty());
        partitions(&group)
    };
    let moved = |before: &BTreeMap<usize, u64>, after: &BTreeMap<usize, u64>| {
        before.iter().filter(|(partition, member)| after[partition] != **member).count()
    };
    let four = settle(&mut members);

    topic.publisher("host").try_publish_batch(&mut firsts(0..KEYS)).expect("there is room");
    for member in &mut members {
        let share = std::iter::from_fn(|| at_once(member)).count();
        assert!((1_800..2_200).contains(&share), "{share}");
    }

    members.push(group.join());
    let five = settle(&mut members);
    // A fifth of 128 goes to the new one, and nothing else moves.
    assert_eq!(moved(&four, &five), 25);
    assert!(five.iter().all(|(partition, member)| *member == 5 || four[partition] == *member));

    let gone = members.remove(1).number();
    let again = settle(&mut members);
    let had = five.values().filter(|member| **member == gone).count();
    assert_eq!(moved(&five, &again), had);
}

#[test]
fn an_event_whose_key_cannot_be_read_is_handled_once() {
    let topic = topic(64);
    let group = topic.group("workers", |step: &Step| {
        assert!(step.key % 8 != 3, "as asked");
        step.key
    });
    let mut members = [group.join(), group.join(), group.join()];
    topic.publisher("host").try_publish_batch(&mut firsts(0..32)).expect("there is room");
    let mut seen = Vec::new();
    for _ in 0..3 {
        for member in &mut members {
            seen.extend(std::iter::from_fn(|| at_once(member)).map(|step| step.key));
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..32).collect::<Vec<_>>());
}

#[test]
fn the_status_and_the_hooks_show_a_group_under_its_name() {
    #[derive(Default)]
    struct Audit(Mutex<Vec<String>>);
    struct Audited(Arc<Audit>);
    impl Hook<Step> for Audited {
        fn handling(&self, delivery: &Handling<'_>, events: &[Step]) {
            let note = format!("{} gets {}", delivery.subscription, events[0].key);
            self.0.0.lock().expect("the audit").push(note);
        }
        fn handled(&self, delivery: &Handling<'_>, _: Duration) {
            let note = format!("{} is done with {}", delivery.subscription, delivery.events);
            self.0.0.lock().expect("the audit").push(note);
        }
    }
    #[derive(TransientEvent)]
    #[expect(dead_code, reason = "nobody reads it")]
    struct Echo(u64);

    let audit = Arc::new(Audit::default());
    let topic = Topic::<Step>::with(TopicOptions::default().hook(Audited(audit.clone())));
    let echoes = Topic::<Echo>::new();
    let group = group(&topic);
    let (member, echo) = (group.join(), echoes.publisher("workers"));
    topic.publisher("host").try_publish_batch(&mut firsts([4, 5])).expect("there is room");
    topic.close();
    let subscription = &topic.status().subscriptions[0];
    assert_eq!((&*subscription.name, subscription.members), ("workers", Some(1)));
    assert_eq!(subscription.lag, 2);

    let worked = member.for_each(async |step: &Step| {
        echo.try_publish(Echo(step.key)).expect("there is room");
    });
    worked.now_or_never().expect("the topic is closed");
    let subscription = &topic.status().subscriptions[0];
    assert_eq!((subscription.lag, &*subscription.publishes), (0, &[Echo::NAME][..]));
    assert_eq!(
        *audit.0.lock().expect("the audit"),
        ["workers gets 4", "workers is done with 1", "workers gets 5", "workers is done with 1"]
    );
}

#[test]
fn handlers_of_a_group_that_cause_one_another_in_a_circle_are_cut() {
    let topic = Topic::<Step>::with(TopicOptions::default().causation_depth(5));
    let (group, publisher) = (group(&topic), topic.publisher("workers"));
    publisher.try_publish(Step { key: 0, number: 0 }).expect("there is room");
    let mut handled = 0;
    let worked = group.join().for_each(async |step: &Step| {
        handled += 1;
        let next = Step { number: step.number + 1, ..*step };
        if let Err(PublishError::TooDeep { .. }) = publisher.try_publish(next) {
            topic.close();
        }
    });
    worked.now_or_never().expect("the circle is cut, and the topic closed");
    assert_eq!(handled, 5);
}

// Actors.

type Behaviour = fn(&Step, &mut Context<Clerk>);

struct Clerk {
    group: Group<Step>,
    behave: Behaviour,
    told: UnboundedSender<Step>,
    member: Option<SubscriptionHandle>,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Leave;

impl Actor for Clerk {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.member = Some(self.group.actor(ctx));
    }
}

impl Subscriber<Step> for Clerk {
    fn receive(&mut self, step: &Step, ctx: &mut Context<Self>) {
        self.told.send(*step).ok();
        (self.behave)(step, ctx);
    }
}

impl Handler<Leave> for Clerk {
    type Result = ();
    fn handle(&mut self, _: Leave, _: &mut Context<Self>) {
        self.member = None;
    }
}

impl Clerk {
    fn start_in(
        group: &Group<Step>,
        behave: Behaviour,
    ) -> (actix::Addr<Self>, UnboundedReceiver<Step>) {
        let (told, hear) = unbounded_channel();
        let clerk = Self { group: group.clone(), behave, told, member: None };
        (clerk.start(), hear)
    }
}

/// What is left for another member once an actor has received the first of three events of one key.
#[track_caller]
fn left_after_an_actor_that(behave: Behaviour, left: &[u64]) {
    let steps: Vec<_> = (0..3).map(|number| Step { key: 7, number }).collect();
    let seen = actix::System::new().block_on(async {
        let topic = topic(8);
        let group = group(&topic);
        let (_clerk, mut hear) = Clerk::start_in(&group, behave);
        topic.publisher("host").publish_batch(&mut steps.clone()).await.expect("it is open");
        assert_eq!(soon(hear.recv()).await, Some(steps[0]));
        topic.close();
        while !group.status().members.is_empty() {
            tokio::task::yield_now().await;
        }
        let mut seen = Vec::new();
        let mut member = group.join();
        while let Some(step) = soon(member.next()).await {
            seen.push(step.number);
        }
        seen
    });
    assert_eq!(seen, left);
}

#[test]
fn the_keys_of_an_actor_that_panics_go_on_after_the_event_at_which_it_did() {
    left_after_an_actor_that(|_, _| panic!("as asked"), &[1, 2]);
}

#[test]
fn the_keys_of_an_actor_that_stops_go_on_after_what_it_has_received() {
    left_after_an_actor_that(|_, ctx| ctx.stop(), &[1, 2]);
}

#[test]
fn what_an_actor_was_still_waiting_for_when_it_stopped_is_handled_again() {
    let waits: Behaviour = |_, ctx| {
        let pause = actix::fut::wrap_future::<_, Clerk>(tokio::task::yield_now());
        ctx.wait(pause.map(|(), _, ctx: &mut Context<Clerk>| ctx.terminate()));
    };
    left_after_an_actor_that(waits, &[0, 1, 2]);
}

#[test]
fn dropping_its_handle_hands_over_the_keys_of_an_actor_that_goes_on() {
    actix::System::new().block_on(async {
        let topic = topic(8);
        let group = group(&topic);
        let (clerk, mut hear) = Clerk::start_in(&group, |_, _| {});
        let publisher = topic.publisher("host");
        publisher.publish_batch(&mut firsts(0..8)).await.expect("it is open");
        for key in 0..8 {
            assert_eq!(soon(hear.recv()).await.map(|step| step.key), Some(key));
        }
        clerk.send(Leave).await.expect("it lives");
        let mut member = group.join();
        for key in 0..8 {
            publisher.publish(Step { key, number: 1 }).await.expect("it is open");
            assert_eq!(soon(member.next()).await, Some(&Step { key, number: 1 }));
        }
        assert!(clerk.connected());
    });
}

// All at once, on several threads.

/// How far each key is, as those who handle its events see it.
struct Ledger {
    keys: Vec<(AtomicBool, AtomicU64)>,
    handled: AtomicUsize,
}

/// A key is in hand until this is dropped.
struct InHand<'l>(&'l AtomicBool);

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Ledger {
    fn new(keys: u64) -> Self {
        let keys = (0..keys).map(|_| (AtomicBool::new(false), AtomicU64::new(0)));
        Self { keys: keys.collect(), handled: AtomicUsize::new(0) }
    }

    fn begin(&self, step: &Step) -> InHand<'_> {
        let (in_hand, handled) = &self.keys[step.key as usize];
        assert!(!in_hand.swap(true, Ordering::AcqRel), "{step:?} while another is in hand");
        assert_eq!(handled.load(Ordering::Acquire), step.number, "of key {}", step.key);
        InHand(in_hand)
    }

    fn finish(&self, step: &Step) {
        self.keys[step.key as usize].1.fetch_add(1, Ordering::AcqRel);
        self.handled.fetch_add(1, Ordering::AcqRel);
    }

    /// Handles an event in a while, in which it may be aborted.
    async fn handle(&self, step: &Step) {
        let in_hand = self.begin(step);
        if step.number.is_multiple_of(3) {
            tokio::task::yield_now().await;
        }
        self.finish(step);
        drop(in_hand);
    }
}

/// Panics at every hundredth event of a key, after it is done with it.
struct Nervous(Group<Step>, Arc<Ledger>, Option<oneshot::Sender<()>>);

impl Actor for Nervous {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Context<Self>) {
        self.0.actor(ctx).detach();
    }
}

impl Subscriber<Step> for Nervous {
    fn receive(&mut self, step: &Step, _: &mut Context<Self>) {
        let in_hand = self.1.begin(step);
        self.1.finish(step);
        drop(in_hand);
        if step.number % 100 == 99 {
            resume_unwind(Box::new("as asked"));
        }
    }
    fn unsubscribed(&mut self, _: Result<(), tidings::SubscriptionError>, _: &mut Context<Self>) {
        self.2.take();
    }
}

#[test]
fn members_on_many_threads_come_and_go_and_no_key_gets_out_of_order() {
    const KEYS: u64 = 50;
    for (capacity, events) in [(1, 120), (16, 400), (1_024, 2_000)] {
        let topic = topic(capacity);
        let group = group(&topic);
        let ledger = Arc::new(Ledger::new(KEYS));
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(3)
            .enable_time()
            .build()
            .expect("a runtime");
        let nervous = thread::spawn({
            let (group, ledger) = (group.clone(), ledger.clone());
            move || {
                actix::System::new().block_on(async move {
                    // Another comes when one has panicked, until one has seen the end.
                    loop {
                        let (alive, ended) = oneshot::channel();
                        Nervous(group.clone(), ledger.clone(), Some(alive)).start();
                        ended.await.ok();
                        if ledger.handled.load(Ordering::Acquire) == (KEYS * events) as usize {
                            break;
                        }
                    }
                });
            }
        });
        let steady = (0..2).map(|_| {
            let (member, ledger) = (group.join(), ledger.clone());
            let handle = async move |step: &Step| ledger.handle(step).await;
            runtime.spawn(member.for_each(handle))
        });
        let steady: Vec<_> = steady.collect();
        let fickle = (1..4_usize).map(|patience| {
            let (group, ledger) = (group.clone(), ledger.clone());
            runtime.spawn(async move {
                loop {
                    let mut member = group.join();
                    for _ in 0..patience * 7 {
                        match member.next().await {
                            Some(step) => ledger.handle(step).await,
                            None => return,
                        }
                    }
                    member.leave();
                }
            })
        });
        let fickle: Vec<_> = fickle.collect();
        let publishers: Vec<_> = (0..2)
            .map(|side| {
                let publisher = topic.publisher("host");
                thread::spawn(move || {
                    for number in 0..events {
                        for key in (0..KEYS).filter(|key| key % 2 == side) {
                            let step = Step { key, number };
                            publisher.publish_blocking(step).expect("the topic is open");
                        }
                    }
                })
            })
            .collect();
        runtime.block_on(async {
            // Members that are dropped with an event in hand.
            let mut aborted = 0_u64;
            while !publishers.iter().all(thread::JoinHandle::is_finished) {
                let (member, ledger) = (group.join(), ledger.clone());
                let handle = async move |step: &Step| ledger.handle(step).await;
                let working = tokio::spawn(member.for_each(handle));
                for _ in 0..aborted % 50 {
                    tokio::task::yield_now().await;
                }
                working.abort();
                let outcome = working.await;
                assert!(outcome.is_ok() || outcome.is_err_and(|error| error.is_cancelled()));
                aborted += 1;
            }
            topic.close();
            for working in steady.into_iter().chain(fickle) {
                tokio::time::timeout(Duration::from_secs(60), working)
                    .await
                    .expect("the group does not come to an end")
                    .expect("a member panicked");
            }
        });
        nervous.join().expect("the actors' thread");
        for publisher in publishers {
            publisher.join().expect("a publisher");
        }
        assert!(ledger.keys.iter().all(|key| key.1.load(Ordering::Acquire) == events));
        drop(group);
        assert_eq!(topic.status().subscriptions, []);
        assert_eq!(topic.status().subscribers, 0);
    }
}
