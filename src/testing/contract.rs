//! The contract that every store keeps, as one suite.

#![expect(clippy::panic, reason = "the suite runs in tests, and a broken promise is a panic there")]

use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event::{Header, Recorded};
use crate::id::{CausationId, CommandId, CorrelationId};
use crate::store::{
    Commit, Committed, EventStore, Filter, KnownCommand, Page, Refused, StoreError,
};
use crate::stream::{ExpectedVersion, Position, StreamId, Version};

/// Checks that a store keeps every promise of [`EventStore`] that can be seen from outside, one after the other.
///
/// `make` is called for each of them and has to make an empty store.
///
/// # Panics
/// With what was promised and what was found, if the store breaks a promise.
///
/// # Examples
/// ```
/// tidings::testing::store_contract(tidings::Memory::new);
/// ```
pub fn store_contract<S: EventStore>(make: impl Fn() -> S) {
    an_empty_store_answers_every_question(&make());
    positions_and_versions_count_up_without_gaps(&make());
    a_wrong_expectation_is_refused_and_leaves_no_trace(&make());
    of_two_commits_with_one_expectation_one_wins(&make());
    of_two_racing_threads_one_wins(&make());
    a_commit_over_several_streams_is_all_or_nothing(&make());
    a_commit_finds_what_its_group_did_before_it(&make());
    a_command_id_takes_effect_once(&make());
    a_command_without_events_is_known_too(&make());
    a_command_over_several_streams_is_known_by_its_first(&make());
    ids_of_every_kind_are_known(&make());
    a_commit_that_names_nothing_leaves_nothing(&make());
    every_header_and_payload_comes_back_as_it_was(&make());
    pages_follow_each_other_without_gaps(&make());
    a_filter_lets_through_what_it_names(&make());
    a_filter_finds_what_is_unknown(&make());
    a_stream_is_read_from_any_version(&make());
    a_long_stream_among_others_is_read_in_order(&make());
    a_reader_may_break_off_and_come_back_to_the_store(&make());
    readers_see_whole_commits_and_a_prefix(&make());
}

fn an_empty_store_answers_every_question(store: &impl EventStore) {
    same("head", ok(store.head()), Position::START);
    same("stream", read(store, &stream("none", "1"), 0).len(), 0);
    same("page", page(store, 0, &Filter::All, 10), (vec![], 0));
    same("page after the end", page(store, 7, &Filter::All, 10), (vec![], 7));
    same("command", ok(store.find_command(CommandId::fresh())), None);
    same("empty group", ok(store.commit(&mut [])).len(), 0);
    same("log id", store.log_id(), store.log_id());
}

fn positions_and_versions_count_up_without_gaps(store: &impl EventStore) {
    let streams = [stream("a", "1"), stream("a", "2"), stream("b", "1")];
    let mut position = 0;
    for round in 0..20_u64 {
        let mut group: Vec<_> = streams.iter().map(|id| append(id, round % 3 + 1)).collect();
        for outcome in ok(store.commit(&mut group)) {
            accepted(&outcome);
        }
        for event in group.iter().flat_map(Commit::events) {
            position += 1;
            same("position", event.header.position.as_u64(), position);
        }
    }
    same("head", ok(store.head()).as_u64(), position);
    let (all, through) = page(store, 0, &Filter::All, usize::MAX);
    same("through", through, position);
    for (event, expected) in all.iter().zip(1..) {
        same("position read", event.header.position.as_u64(), expected);
    }
    for id in &streams {
        let events = read(store, id, 0);
        let of_log = all.iter().filter(|event| event.header.stream == *id);
        same("stream and log", events.iter().collect::<Vec<_>>(), of_log.collect());
        for (event, expected) in events.iter().zip(1..) {
            same("version", event.header.version.as_u64(), expected);
        }
    }
}

fn a_wrong_expectation_is_refused_and_leaves_no_trace(store: &impl EventStore) {
    let id = stream("account", "1");
    accepted(&one(store, append_at(&id, 0, 2)));
    for wrong in [0, 1, 3] {
        let command = CommandId::fresh();
        let mut group = [append_at(&id, wrong, 1).command_id(command)];
        let before = group[..].iter().flat_map(Commit::events).cloned().collect::<Vec<_>>();
        let outcome = ok(store.commit(&mut group)).pop();
        let refused = Refused::Conflict {
            stream: id.clone(),
            expected: ExpectedVersion::Exact(Version::new(wrong)),
            actual: Version::new(2),
        };
        same("refusal", outcome, Some(Err(refused)));
        let after = group[..].iter().flat_map(Commit::events).cloned().collect();
        same("refused events", before, after);
        same("command of a refused commit", ok(store.find_command(command)), None);
    }
    same("head", ok(store.head()).as_u64(), 2);
    same("stream", read(store, &id, 0).len(), 2);
    // Checks without events are refused in the same way, and named streams are checked even if others are appended to.
    let other = stream("account", "2");
    let check = |version| Commit::new().append(id.clone(), exact(version), vec![]);
    refused(&one(store, check(1)));
    accepted(&one(store, check(2)));
    refused(&one(store, append_to(check(1), &other, 1)));
    accepted(&one(store, append_to(check(2), &other, 1)));
    same("head", ok(store.head()).as_u64(), 3);
}

fn of_two_commits_with_one_expectation_one_wins(store: &impl EventStore) {
    let id = stream("account", "1");
    for version in 0..5 {
        let mut group = [append_at(&id, version, 1), append_at(&id, version, 1)];
        let outcomes = ok(store.commit(&mut group));
        accepted_count(&outcomes, 1);
        outcomes.first().map(accepted);
    }
    same("stream", read(store, &id, 0).len(), 5);
}

fn of_two_racing_threads_one_wins(store: &impl EventStore) {
    let id = stream("account", "1");
    for version in 0..20 {
        let start = Barrier::new(2);
        let race = || {
            start.wait();
            one(store, append_at(&id, version, 1)).is_ok()
        };
        let (left, right) = std::thread::scope(|scope| {
            let left = scope.spawn(race);
            let right = race();
            (left.join().unwrap_or_default(), right)
        });
        same("exactly one wins", left ^ right, true);
    }
    same("stream", read(store, &id, 0).len(), 20);
}

fn a_commit_over_several_streams_is_all_or_nothing(store: &impl EventStore) {
    let (from, to) = (stream("account", "1"), stream("account", "2"));
    accepted(&one(store, append_to(append_at(&from, 0, 2), &to, 3)));
    let positions = |id| {
        let events = read(store, id, 0);
        events.iter().map(|event| event.header.position.as_u64()).collect::<Vec<_>>()
    };
    same("first stream", positions(&from), vec![1, 2]);
    same("second stream", positions(&to), vec![3, 4, 5]);
    // The first stream is as expected, the second is not.
    let half = append_at(&from, 2, 1).append(to.clone(), exact(0), events(&to, 1));
    refused(&one(store, half));
    same("first stream", positions(&from).len(), 2);
    same("head", ok(store.head()).as_u64(), 5);
}

fn a_commit_finds_what_its_group_did_before_it(store: &impl EventStore) {
    let (id, other) = (stream("account", "1"), stream("account", "2"));
    let mut group =
        [append_at(&id, 0, 2), append_at(&id, 1, 1), append_at(&id, 2, 1), append_at(&other, 0, 1)];
    let outcomes = ok(store.commit(&mut group));
    let lasts: Vec<_> = outcomes.iter().map(last).collect();
    same("outcomes", lasts, vec![Some(2), None, Some(3), Some(4)]);
    same("stream", read(store, &id, 0).len(), 3);
}

fn a_command_id_takes_effect_once(store: &impl EventStore) {
    let (id, other) = (stream("account", "1"), stream("account", "2"));
    accepted(&one(store, append(&other, 1)));
    let command = CommandId::fresh();
    let known = KnownCommand {
        stream: id.clone(),
        version: Version::new(2),
        events: 2,
        position: Position::new(3),
    };
    let again = Err(Refused::KnownCommand(known.clone()));
    let mut group =
        [append_at(&id, 0, 2).command_id(command), append_at(&id, 2, 2).command_id(command)];
    let mut outcomes = ok(store.commit(&mut group));
    same("again in its group", outcomes.pop(), Some(again.clone()));
    outcomes.first().map(accepted);
    accepted(&one(store, append(&id, 1)));
    same("found", ok(store.find_command(command)), Some(known));
    // Known comes before conflict, on whichever stream: the caller wants its first receipt.
    for commit in [append_at(&id, 0, 2), append_at(&other, 9, 1), append(&other, 1)] {
        same("again", one(store, commit.command_id(command)), again.clone());
    }
    same("head", ok(store.head()).as_u64(), 4);
    for event in read(store, &id, 0).iter().take(2) {
        same("id on its events", event.header.command_id, Some(command));
    }
}

fn a_command_without_events_is_known_too(store: &impl EventStore) {
    let id = stream("account", "1");
    accepted(&one(store, append(&id, 3)));
    let command = CommandId::fresh();
    let check = || Commit::new().append(id.clone(), exact(3), vec![]).command_id(command);
    let known = KnownCommand {
        stream: id.clone(),
        version: Version::new(3),
        events: 0,
        position: Position::new(3),
    };
    let again = Err(Refused::KnownCommand(known.clone()));
    let mut group = [check(), check()];
    let outcomes = ok(store.commit(&mut group));
    same("first", outcomes.first().map(last), Some(Some(3)));
    same("again in its group", outcomes.get(1), Some(&again));
    accepted(&one(store, append(&id, 1)));
    same("again", one(store, check()), again);
    same("found", ok(store.find_command(command)), Some(known));
    same("head", ok(store.head()).as_u64(), 4);
}

fn a_command_over_several_streams_is_known_by_its_first(store: &impl EventStore) {
    let (from, to) = (stream("account", "1"), stream("account", "2"));
    let command = CommandId::fresh();
    let commit = append_to(append_to(append_at(&from, 0, 2), &to, 2), &from, 1);
    let mut group = [append(&to, 1), commit.command_id(command), append(&from, 1)];
    accepted_count(&ok(store.commit(&mut group)), 3);
    let known = KnownCommand {
        stream: from,
        version: Version::new(3),
        events: 5,
        position: Position::new(6),
    };
    same("found", ok(store.find_command(command)), Some(known));
}

fn ids_of_every_kind_are_known(store: &impl EventStore) {
    let id = stream("account", "1");
    let older = CommandId::fresh();
    let ids = [
        CommandId::fresh(),
        CommandId::from_uuid(Uuid::max()),
        CommandId::from_uuid(Uuid::nil()),
        CommandId::from_name("line 1"),
        CommandId::from_name("line 2"),
        older,
        CommandId::from_uuid(Uuid::from_u128(u128::MAX ^ (8 << 76))),
    ];
    for command in ids {
        same("fresh", ok(store.find_command(command)), None);
        accepted(&one(store, append(&id, 1).command_id(command)));
    }
    for (command, version) in ids.into_iter().zip(1..) {
        let known = ok(store.find_command(command));
        same("version", known.map(|known| known.version.as_u64()), Some(version));
        refused(&one(store, append(&id, 1).command_id(command)));
    }
}

fn a_commit_that_names_nothing_leaves_nothing(store: &impl EventStore) {
    let command = CommandId::fresh();
    same("first", last(&one(store, Commit::new().command_id(command))), Some(0));
    same("found", ok(store.find_command(command)), None);
    same("head", ok(store.head()), Position::START);
}

fn every_header_and_payload_comes_back_as_it_was(store: &impl EventStore) {
    let id = stream("order", "naïve-№ 7/'\"\u{1F980}");
    let odd = u64::MAX - 3;
    let mut event = Recorded {
        header: Header::new(id.clone(), "order.plaçed", u32::MAX, Timestamp::from_micros(odd)),
        payload: r#"{"text":"zoë \u0000 ' \" ☃"}"#.as_bytes().into(),
    };
    event.header.correlation_id = CorrelationId::from_uuid(Uuid::nil());
    event.header.causation_id = CausationId::from_uuid(Uuid::max());
    event.header.metadata.insert("tenant", "a \"quoted\" näme\n");
    event.header.metadata.insert("", "");
    let plain = Recorded {
        header: Header::new(id.clone(), String::from("order.paid"), 0, Timestamp::default()),
        payload: [].into(),
    };
    let command = CommandId::from_name("x");
    let mut group = [
        Commit::new().append(id.clone(), exact(0), vec![event.clone()]).command_id(command),
        Commit::new().append(id.clone(), exact(1), vec![plain.clone()]),
    ];
    accepted_count(&ok(store.commit(&mut group)), 2);
    event.header.version = Version::new(1);
    event.header.position = Position::new(1);
    event.header.command_id = Some(command);
    let mut plain = plain;
    plain.header.version = Version::new(2);
    plain.header.position = Position::new(2);
    let expected = vec![event, plain];
    let given = group.iter().flat_map(Commit::events).cloned().collect::<Vec<_>>();
    same("given back", &given, &expected);
    same("from the stream", &read(store, &id, 0), &expected);
    same("from the log", &page(store, 0, &Filter::All, 9).0, &expected);
    for (stored, expected) in page(store, 0, &Filter::All, 9).0.iter().zip(&expected) {
        same("payload", &stored.payload, &expected.payload);
        let metadata =
            |event: &Recorded| format!("{:?}", event.header.metadata.iter().collect::<Vec<_>>());
        same("metadata", metadata(stored), metadata(expected));
    }
}

fn pages_follow_each_other_without_gaps(store: &impl EventStore) {
    let id = stream("account", "1");
    accepted(&one(store, append(&id, 1_000)));
    for limit in [1, 7, 333, 1_000, 5_000] {
        let (mut after, mut seen) = (0, 0);
        while after < 1_000 {
            let (events, through) = page(store, after, &Filter::All, limit);
            same("page size", events.len() as u64, through - after);
            same("full pages", events.len(), limit.min(1_000 - after as usize));
            for event in events {
                seen += 1;
                same("position", event.header.position.as_u64(), seen);
            }
            after = through;
        }
        same("all seen", seen, 1_000);
    }
    same("no room", page(store, 3, &Filter::All, 0), (vec![], 3));
}

fn a_filter_lets_through_what_it_names(store: &impl EventStore) {
    const NAMES: [&str; 3] = ["a.one", "a.two", "a.three"];
    let id = stream("a", "1");
    let events = (0..900_usize).map(|at| named(&id, NAMES.get(at % 3).unwrap_or(&""))).collect();
    accepted(&one(store, Commit::new().append(id.clone(), ExpectedVersion::Any, events)));
    let cases: [&[&'static str]; 5] = [
        &["a.two"],
        &["a.three", "a.one"],
        &["a.one", "a.two", "a.three", "a.four"],
        &["a.four"],
        &[],
    ];
    for names in cases {
        let filter = Filter::Names(names.to_vec());
        let wanted = (1..=900_u64).filter(|position| {
            let index = (position - 1) % 3;
            NAMES.get(index as usize).is_some_and(|name| filter.admits(&named(&id, name).header))
        });
        let wanted: Vec<_> = wanted.collect();
        for limit in [1, 10, 250, 2_000] {
            let (mut after, mut seen) = (0, vec![]);
            while after < 900 {
                let (events, through) = page(store, after, &filter, limit);
                same("goes on", through > after, true);
                same("keeps to its limit", events.len() <= limit, true);
                if events.len() < limit {
                    same("stops early at the end only", through, 900);
                }
                seen.extend(events.iter().map(|event| event.header.position.as_u64()));
                after = through;
            }
            same("filtered", &seen, &wanted);
        }
    }
}

fn a_filter_finds_what_is_unknown(store: &impl EventStore) {
    let streams = [stream("a", "1"), stream("ab", "1"), stream("b", "1")];
    for (place, id) in streams.iter().cycle().take(600).enumerate() {
        let name = ["a.one", "a.two", "new", "b.one"].get(place / 3 % 4).copied().unwrap_or("");
        let commit = Commit::new();
        let events = vec![named(id, name)];
        accepted(&one(store, commit.append(id.clone(), ExpectedVersion::Any, events)));
    }
    let all = page(store, 0, &Filter::All, 1_000).0;
    let cases: [(&[&'static str], &[&'static str]); 4] =
        [(&["a.one"], &["a"]), (&[], &["a", "b"]), (&["new"], &[]), (&["b.one"], &["ab", "none"])];
    for (names, categories) in cases {
        let filter = Filter::NamesAndUnknown {
            names: names.to_vec(),
            categories: categories.to_vec(),
            known: vec!["a.one", "a.two"],
        };
        let wanted = all.iter().filter(|event| filter.admits(&event.header));
        let wanted: Vec<_> = wanted.map(|event| event.header.position).collect();
        let found = page(store, 0, &filter, 1_000).0;
        let found: Vec<_> = found.iter().map(|event| event.header.position).collect();
        same("wanted or unknown", &found, &wanted);
    }
}

fn a_stream_is_read_from_any_version(store: &impl EventStore) {
    let (id, other) = (stream("account", "1"), stream("account", "2"));
    for _ in 0..5 {
        accepted(&one(store, append_to(append(&id, 2), &other, 3)));
    }
    for after in 0..13 {
        let versions: Vec<_> =
            read(store, &id, after).iter().map(|event| event.header.version.as_u64()).collect();
        same("versions", versions, (after + 1..=10).collect());
    }
}

fn a_long_stream_among_others_is_read_in_order(store: &impl EventStore) {
    let (id, other) = (stream("account", "1"), stream("account", "2"));
    // Runs, single events, and gaps of every width, over more than one chunk of any store.
    for round in 0..600 {
        accepted(&one(store, append_to(append(&id, round % 7 + 1), &other, round % 11 + 1)));
    }
    let expected: Vec<_> = page(store, 0, &Filter::All, usize::MAX)
        .0
        .into_iter()
        .filter(|event| event.header.stream == id)
        .collect();
    for after in [0, 1, 2, 100, 1_900, expected.len() - 1] {
        let rest = expected.iter().skip(after).cloned().collect::<Vec<_>>();
        same("long stream", read(store, &id, after as u64), rest);
    }
}

fn a_reader_may_break_off_and_come_back_to_the_store(store: &impl EventStore) {
    let id = stream("account", "1");
    accepted(&one(store, append(&id, 1_000)));
    for wanted in [1, 2, 700] {
        let mut seen = 0;
        ok(store.read_stream(&id, Version::EMPTY, &mut |event| {
            seen += 1;
            same("version", event.header.version.as_u64(), seen);
            same("inner read", read(store, &id, 998).len(), 2);
            match seen < wanted {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        }));
        same("broke off", seen, wanted);
    }
}

fn readers_see_whole_commits_and_a_prefix(store: &impl EventStore) {
    let (from, to) = (stream("account", "1"), stream("account", "2"));
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            let mut rounds = 0;
            while !is_done.load(Ordering::Acquire) || rounds < 3 {
                rounds += 1;
                let first = read(store, &from, 0).len();
                // Read later, so it must show at least the same commits.
                let second = read(store, &to, 0).len();
                same("both sides of a commit", second >= first, true);
                let head = ok(store.head()).as_u64();
                same("head after streams", head >= 2 * first as u64, true);
                let (events, through) = page(store, 0, &Filter::All, usize::MAX);
                same("no going back", through >= head.max(seen), true);
                same("whole commits", through % 4, 0);
                same("a prefix", events.len() as u64, through);
                seen = through;
                same("streams after the log", read(store, &from, 0).len() as u64 >= seen / 2, true);
            }
        });
        for round in 0..150 {
            let mut group: Vec<_> =
                (0..round % 4 + 1).map(|_| append_to(append(&from, 2), &to, 2)).collect();
            accepted_count(&ok(store.commit(&mut group)), group.len());
        }
        is_done.store(true, Ordering::Release);
        if let Err(cause) = reader.join() {
            std::panic::resume_unwind(cause);
        }
    });
}

fn stream(category: &str, id: &str) -> StreamId {
    match StreamId::new(category, id) {
        Ok(stream) => stream,
        Err(error) => panic!("{error}"),
    }
}

fn named(stream: &StreamId, name: &'static str) -> Recorded {
    let header = Header::new(stream.clone(), name, 1, Timestamp::from_micros(1));
    let payload = format!(r#"{{"id":"{}"}}"#, header.event_id);
    Recorded { header, payload: payload.into_bytes().into() }
}

fn events(stream: &StreamId, count: u64) -> Vec<Recorded> {
    (0..count).map(|_| named(stream, "thing.happened")).collect()
}

fn append(stream: &StreamId, count: u64) -> Commit {
    append_to(Commit::new(), stream, count)
}

fn append_to(commit: Commit, stream: &StreamId, count: u64) -> Commit {
    commit.append(stream.clone(), ExpectedVersion::Any, events(stream, count))
}

fn append_at(stream: &StreamId, version: u64, count: u64) -> Commit {
    Commit::new().append(stream.clone(), exact(version), events(stream, count))
}

fn exact(version: u64) -> ExpectedVersion {
    ExpectedVersion::Exact(Version::new(version))
}

#[track_caller]
fn one(store: &impl EventStore, commit: Commit) -> Result<Committed, Refused> {
    match ok(store.commit(&mut [commit])).pop() {
        Some(outcome) => outcome,
        None => panic!("a group of one commit has one outcome"),
    }
}

#[track_caller]
fn read(store: &impl EventStore, stream: &StreamId, after: u64) -> Vec<Recorded> {
    let mut events = Vec::new();
    ok(store.read_stream(stream, Version::new(after), &mut |event| {
        events.push(event);
        ControlFlow::Continue(())
    }));
    events
}

#[track_caller]
fn page(
    store: &impl EventStore,
    after: u64,
    filter: &Filter,
    limit: usize,
) -> (Vec<Recorded>, u64) {
    let Page { events, through } = ok(store.read_log(Position::new(after), filter, limit));
    (events, through.as_u64())
}

fn last(outcome: &Result<Committed, Refused>) -> Option<u64> {
    outcome.as_ref().ok().map(|committed| committed.last.as_u64())
}

#[track_caller]
fn accepted(outcome: &Result<Committed, Refused>) {
    if let Err(refused) = outcome {
        panic!("refused: {refused}");
    }
}

#[track_caller]
fn refused(outcome: &Result<Committed, Refused>) {
    same("refused", outcome.is_err(), true);
}

#[track_caller]
fn accepted_count(outcomes: &[Result<Committed, Refused>], expected: usize) {
    let accepted = outcomes.iter().filter(|outcome| outcome.is_ok());
    same("accepted", accepted.count(), expected);
}

#[track_caller]
fn ok<T>(result: Result<T, StoreError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

#[track_caller]
fn same<T: PartialEq + Debug>(what: &str, found: T, expected: T) {
    assert!(found == expected, "{what}: found {found:?}, expected {expected:?}");
}
