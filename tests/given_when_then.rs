//! given/when/then passes what is right, and says what is wrong, in the words of the log.
#![cfg(all(feature = "macros", feature = "testing"))]

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};
use tidings::testing::{given, given_nothing};
use tidings::{Command, Context, Event, Timestamp, aggregate};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited")]
struct Deposited {
    cents: i64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.withdrawn", version = 2, oldest = 2)]
struct Withdrawn {
    cents: i64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.noted")]
struct Noted {
    by: String,
    at: u64,
    tags: HashMap<String, u64>,
}

/// Forgets what it is told.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.whispered")]
struct Whispered {
    #[serde(skip)]
    cents: i64,
}

/// Writes something else than it reads.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.garbled")]
struct Garbled {
    #[serde(serialize_with = "one_more")]
    cents: i64,
}

fn one_more<S: serde::Serializer>(cents: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(cents + 1)
}

/// Reads nothing that it writes.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.weighed")]
struct Weighed {
    grams: f64,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.mapped")]
struct Mapped {
    by: HashMap<Vec<u8>, u8>,
}

#[derive(Command, Clone)]
struct Withdraw {
    cents: i64,
}

#[derive(Command, Clone)]
struct Note;

#[derive(Command, Clone)]
struct Guess;

#[derive(Command, Clone)]
struct Whisper;

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("overdrawn by {short}")]
struct Overdrawn {
    short: i64,
}

#[derive(Debug, Default, PartialEq)]
struct Account {
    cents: i64,
    notes: usize,
}

thread_local! {
    static GUESSES: Cell<i64> = const { Cell::new(0) };
}

#[aggregate(category = "account", events = AccountEvent, error = Overdrawn)]
impl Account {
    #[command]
    fn withdraw(&self, command: Withdraw) -> Result<Option<Withdrawn>, Overdrawn> {
        match command.cents - self.cents {
            short @ 1.. => Err(Overdrawn { short }),
            _ if command.cents == 0 => Ok(None),
            _ => Ok(Some(Withdrawn { cents: command.cents })),
        }
    }

    #[command]
    fn note(&self, _: Note, context: &Context) -> Noted {
        let by = context.metadata.get("by").unwrap_or("nobody");
        Noted {
            by: format!("{by} in {}", context.stream),
            at: context.time.as_micros(),
            tags: (0..10).map(|n| (n.to_string(), n)).collect(),
        }
    }

    #[command]
    fn guess(&self, _: Guess) -> Deposited {
        GUESSES.set(GUESSES.get() + 1);
        Deposited { cents: GUESSES.get() }
    }

    #[command]
    fn whisper(&self, _: Whisper) -> Whispered {
        Whispered { cents: 7 }
    }

    #[apply]
    fn deposited(&mut self, event: &Deposited) {
        self.cents += event.cents;
    }

    #[apply]
    fn withdrawn(&mut self, event: &Withdrawn) {
        self.cents -= event.cents;
    }

    #[apply]
    fn noted(&mut self, _: &Noted) {
        self.notes += 1;
    }

    #[apply]
    fn whispered(&mut self, event: &Whispered) {
        self.cents += event.cents;
    }

    #[apply]
    fn garbled(&mut self, _: &Garbled) {}

    #[apply]
    fn weighed(&mut self, _: &Weighed) {}

    #[apply]
    fn mapped(&mut self, _: &Mapped) {}
}

#[test]
fn what_is_right_passes_and_goes_on() {
    given::<Account>([Deposited { cents: 100 }, Deposited { cents: 20 }])
        .and(Withdrawn { cents: 20 })
        .and(vec![AccountEvent::from(Deposited { cents: 1 })])
        .when(Withdraw { cents: 50 })
        .then(Withdrawn { cents: 50 })
        .then_state(|account| assert_eq!(account.cents, 51))
        .when(Withdraw { cents: 0 })
        .then_nothing()
        .when(Withdraw { cents: 52 })
        .then_rejected(Overdrawn { short: 1 })
        .when(Withdraw { cents: 60 })
        .then_rejected_with(|overdrawn| overdrawn.short == 9);
}

#[test]
fn the_context_is_what_the_test_says() {
    let noted = |by: &str, at| Noted {
        by: by.to_owned(),
        at,
        tags: (0..10).map(|n| (n.to_string(), n)).collect(),
    };
    given_nothing::<Account>()
        .at(Timestamp::from_micros(5))
        .stream_id("acc-1")
        .metadata("by", "Ada")
        .when(Note)
        .then(noted("Ada in account-acc-1", 5))
        .at(Timestamp::from_micros(6))
        .when(Note)
        .then(noted("Ada in account-acc-1", 6));
    given_nothing::<Account>().when(Note).then(noted("nobody in account-given", 0));
}

/// `test` must panic with exactly `message`.
#[track_caller]
#[expect(clippy::expect_used, reason = "this is how a test fails")]
fn fails(test: impl FnOnce(), message: &str) {
    let panic = catch_unwind(AssertUnwindSafe(test)).expect_err("it should have failed");
    let found = panic.downcast_ref::<String>().expect("a formatted message");
    assert_eq!(found, message);
}

#[test]
fn other_events_than_expected_fail() {
    fails(
        || {
            given::<Account>(Deposited { cents: 100 })
                .when(Withdraw { cents: 50 })
                .then((Withdrawn { cents: 40 }, Deposited { cents: 1 }));
        },
        "Withdraw was not decided as expected
  expected: 2 events
    account.withdrawn v2 {\"cents\":40}
    account.deposited v1 {\"cents\":1}
  found: 1 event
    account.withdrawn v2 {\"cents\":50}",
    );
}

#[test]
fn an_event_of_the_same_payload_but_another_name_fails() {
    fails(
        || {
            given::<Account>(Deposited { cents: 100 })
                .when(Withdraw { cents: 50 })
                .then(Deposited { cents: 50 });
        },
        "Withdraw was not decided as expected
  expected: 1 event
    account.deposited v1 {\"cents\":50}
  found: 1 event
    account.withdrawn v2 {\"cents\":50}",
    );
}

#[test]
fn an_event_where_none_is_expected_fails() {
    fails(
        || {
            given::<Account>(Deposited { cents: 100 }).when(Withdraw { cents: 50 }).then_nothing();
        },
        "Withdraw was not decided as expected
  expected: no event
  found: 1 event
    account.withdrawn v2 {\"cents\":50}",
    );
}

#[test]
fn a_rejection_where_events_are_expected_fails() {
    fails(
        || {
            given_nothing::<Account>().when(Withdraw { cents: 50 }).then(Withdrawn { cents: 50 });
        },
        "Withdraw was not decided as expected
  expected: 1 event
    account.withdrawn v2 {\"cents\":50}
  found: rejected: Overdrawn { short: 50 }",
    );
}

#[test]
fn another_rejection_than_expected_fails() {
    fails(
        || {
            given_nothing::<Account>()
                .when(Withdraw { cents: 50 })
                .then_rejected(Overdrawn { short: 1 });
        },
        "Withdraw was not rejected as expected
  expected: rejected: Overdrawn { short: 1 }
  found: rejected: Overdrawn { short: 50 }",
    );
    fails(
        || {
            given_nothing::<Account>()
                .when(Withdraw { cents: 50 })
                .then_rejected_with(|overdrawn| overdrawn.short == 1);
        },
        "Withdraw was not rejected as expected
  found: rejected: Overdrawn { short: 50 }",
    );
}

#[test]
fn events_where_a_rejection_is_expected_fail() {
    fails(
        || {
            given::<Account>(Deposited { cents: 1 })
                .when(Withdraw { cents: 1 })
                .then_rejected(Overdrawn { short: 1 });
        },
        "Withdraw was not rejected as expected
  expected: rejected: Overdrawn { short: 1 }
  found: 1 event
    account.withdrawn v2 {\"cents\":1}",
    );
}

#[test]
fn a_state_that_a_replay_does_not_give_fails() {
    let message = "a replay of the events gives another state: `apply` may depend only on the state and on what of the \
                   event is stored
  live:     Account { cents: 7, notes: 0 }
  replayed: Account { cents: 0, notes: 0 }
  events: 1 event
    account.whispered v1 {}";
    fails(
        || {
            let _ = given_nothing::<Account>().when(Whisper);
        },
        message,
    );
    fails(
        || {
            let _ = given::<Account>(Whispered { cents: 7 }).when(Whisper);
        },
        message,
    );
}

#[test]
fn a_decision_that_differs_from_time_to_time_fails() {
    fails(
        || {
            let _ = given_nothing::<Account>().when(Guess);
        },
        "Guess is not decided the same way twice: a decision may depend only on the state, the command and its context
  first: 1 event
    account.deposited v1 {\"cents\":1}
  again: 1 event
    account.deposited v1 {\"cents\":2}",
    );
}

#[test]
fn an_event_that_does_not_survive_the_codec_fails() {
    fails(
        || {
            let _ = given::<Account>(Garbled { cents: 1 });
        },
        "account.garbled is another event after it was stored and read back: its `Serialize` and `Deserialize` do not \
         fit together
  stored: account.garbled v1 {\"cents\":2}
  again:  account.garbled v1 {\"cents\":3}",
    );
    fails(
        || {
            let _ = given::<Account>(Weighed { grams: f64::NAN });
        },
        "an event cannot be read back: the payload of event \"account.weighed\" (schema version 1) does not fit its \
         type: the payload does not fit its type: invalid type: null, expected f64 at line 1 column 13
  stored: account.weighed v1 {\"grams\":null}",
    );
    fails(
        || {
            let _ = given::<Account>(Mapped { by: HashMap::from([(vec![1], 1)]) });
        },
        "account.mapped cannot be stored: the payload does not fit its type: key must be a string",
    );
}

#[test]
fn an_id_that_names_no_stream_fails() {
    fails(
        || {
            let _ = given_nothing::<Account>().stream_id("").when(Note);
        },
        "the stream id is not valid: the id of a stream of category \"account\" must not be empty",
    );
}

#[test]
fn a_failure_stands_at_the_line_of_the_test() {
    let location = std::sync::Arc::new(std::sync::Mutex::new(None));
    let seen = std::sync::Arc::clone(&location);
    let thread = std::thread::current().id();
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == thread {
            let place = info.location().map(|at| (at.file().to_owned(), at.line()));
            *seen.lock().expect("no panic inside") = place;
        } else {
            previous(info);
        }
    }));
    let line = line!() + 3;
    let _ = catch_unwind(|| {
        let when = given_nothing::<Account>().when(Withdraw { cents: 0 });
        when.then(Withdrawn { cents: 1 });
    });
    drop(std::panic::take_hook());
    let location = location.lock().expect("no panic inside").clone();
    assert_eq!(location, Some((file!().to_owned(), line)));
}
