//! What the macros write behaves as what a careful person would type.
#![cfg(feature = "macros")]

use serde::{Deserialize, Serialize};
use tidings::{
    Aggregate, Codec, Command, CommandId, Context, DecodeError, Event, EventSet, MemberOf,
    StreamId, Timestamp, aggregate,
};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "account.deposited", version = 3, oldest = 3)]
struct Deposited {
    cents: i64,
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(name = "account.withdrawn")]
struct Withdrawn {
    cents: i64,
}

/// How a command is to be answered.
#[derive(Command, Clone, Debug)]
struct Answer(&'static str);

macro_rules! commands {
    ($($name:ident)+) => { $(#[derive(Command, Clone, Debug)] struct $name;)+ };
}
commands!(One Nothing Perhaps Several Pair Array Either AllInOne Opaque);

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("refused")]
struct Refused;

#[derive(Default)]
struct Account {
    cents: i64,
}

#[aggregate(category = "account", events = AccountEvent, error = Refused, derive(Clone, PartialEq))]
impl Account {
    const LIMIT: i64 = 1000;

    #[command]
    fn one(&self, _: One) -> Deposited {
        Deposited { cents: 1 }
    }

    #[command]
    fn nothing(&self, _: Nothing) {}

    #[command]
    fn perhaps(&self, _: Perhaps) -> Option<Deposited> {
        (self.cents > 0).then_some(Deposited { cents: 2 })
    }

    #[command]
    fn several(&self, _: Several) -> Vec<Deposited> {
        (1..=3).map(|cents| Deposited { cents }).collect()
    }

    #[command]
    fn pair(&self, _: Pair) -> (Deposited, Option<Withdrawn>) {
        (Deposited { cents: 1 }, Some(Withdrawn { cents: 1 }))
    }

    #[command]
    fn array(&self, _: Array) -> [Withdrawn; 2] {
        [Withdrawn { cents: 1 }, Withdrawn { cents: 2 }]
    }

    #[command]
    fn either(&self, _: Either) -> AccountEvent {
        if self.cents < Self::LIMIT {
            Deposited { cents: 5 }.into()
        } else {
            Withdrawn { cents: 5 }.into()
        }
    }

    #[command]
    fn all_in_one(&self, _: AllInOne) -> Result<Vec<(AccountEvent, Option<Deposited>)>, Refused> {
        Ok(vec![
            (Withdrawn { cents: 1 }.into(), Some(Deposited { cents: 2 })),
            (Withdrawn { cents: 3 }.into(), None),
        ])
    }

    #[command]
    fn opaque(&self, _: Opaque) -> impl tidings::IntoDecision<AccountEvent, Refused> + use<> {
        Deposited { cents: 9 }
    }

    #[command]
    fn answer(&self, Answer(how): Answer, context: &Context) -> Result<Deposited, Refused> {
        match how {
            "yes" => Ok(Deposited {
                cents: i64::try_from(context.time.as_micros()).map_err(|_| Refused)?,
            }),
            _ => Err(Refused),
        }
    }

    /// A method that takes no part.
    fn balance(&self) -> i64 {
        self.cents
    }

    #[apply]
    fn deposited(&mut self, Deposited { cents }: &Deposited) {
        self.cents += cents;
    }

    #[apply]
    fn withdrawn(&mut self, event: &Withdrawn) {
        self.cents -= event.cents;
    }
}

#[expect(clippy::expect_used, reason = "this is how a test fails")]
fn context() -> Context {
    let stream = StreamId::new("account", "1").expect("a valid id");
    Context::new(stream, Timestamp::from_micros(77), CommandId::from_name("test"))
}

/// `command`, decided on an account with `cents`, must give `expected`.
#[track_caller]
fn decides<C>(cents: i64, command: C, expected: Result<&[AccountEvent], Refused>)
where
    AccountCommand: From<C>,
{
    let mut events = Vec::new();
    let found = Account { cents }.decide(command.into(), &context(), &mut events);
    assert_eq!(found.map(|()| events.as_slice()), expected);
}

fn deposited(cents: i64) -> AccountEvent {
    Deposited { cents }.into()
}

fn withdrawn(cents: i64) -> AccountEvent {
    AccountEvent::Withdrawn(Withdrawn { cents })
}

#[test]
fn every_shape_of_answer_becomes_its_events_in_order() {
    decides(0, One, Ok(&[deposited(1)]));
    decides(0, Nothing, Ok(&[]));
    decides(0, Perhaps, Ok(&[]));
    decides(1, Perhaps, Ok(&[deposited(2)]));
    decides(0, Several, Ok(&[deposited(1), deposited(2), deposited(3)]));
    decides(0, Pair, Ok(&[deposited(1), withdrawn(1)]));
    decides(0, Array, Ok(&[withdrawn(1), withdrawn(2)]));
    decides(0, Either, Ok(&[deposited(5)]));
    decides(Account::LIMIT, Either, Ok(&[withdrawn(5)]));
    decides(0, AllInOne, Ok(&[withdrawn(1), deposited(2), withdrawn(3)]));
    decides(0, Opaque, Ok(&[deposited(9)]));
    decides(0, Answer("yes"), Ok(&[deposited(77)]));
    decides(0, Answer("no"), Err(Refused));
}

#[test]
fn an_event_reaches_the_apply_handler_of_its_type() {
    let mut account = Account::default();
    account.apply(&deposited(10));
    account.apply(&withdrawn(3));
    assert_eq!(account.balance(), 7);
}

#[test]
fn an_event_survives_the_codec() {
    for event in [deposited(7), withdrawn(8)] {
        let mut bytes = Vec::new();
        event.encode(&mut bytes).expect("it has a form in JSON");
        let read = AccountEvent::decode(event.name(), event.schema_version(), Codec::Json, &bytes);
        assert_eq!(read.ok(), Some(event));
    }
    let mut bytes = b"kept".to_vec();
    deposited(7).encode(&mut bytes).expect("it has a form in JSON");
    assert_eq!(bytes, br#"kept{"cents":7}"#);
}

#[test]
fn an_event_knows_its_place_in_the_set() {
    assert_eq!(AccountEvent::CATEGORY, "account");
    assert_eq!(Account::CATEGORY, "account");
    assert_eq!(AccountEvent::NAMES, ["account.deposited", "account.withdrawn"]);
    assert_eq!((Deposited::INDEX, Withdrawn::INDEX), (0, 1));
    assert_eq!((deposited(1).index(), withdrawn(1).index()), (0, 1));
    assert_eq!((deposited(1).name(), withdrawn(1).name()), (Deposited::NAME, Withdrawn::NAME));
    assert_eq!((deposited(1).schema_version(), withdrawn(1).schema_version()), (3, 1));
}

#[test]
fn an_event_comes_out_of_the_set_only_as_what_it_is() {
    assert_eq!(Deposited::try_from(deposited(1)), Ok(Deposited { cents: 1 }));
    assert_eq!(Deposited::try_from(withdrawn(2)), Err(withdrawn(2)));
    assert_eq!(Withdrawn::from_set(&withdrawn(3)), Some(&Withdrawn { cents: 3 }));
    assert_eq!(Withdrawn::from_set(&deposited(3)), None);
}

#[test]
fn what_the_set_cannot_read_is_an_error_that_says_why() {
    let decode = |name, version, payload: &[u8]| {
        AccountEvent::decode(name, version, Codec::Json, payload).expect_err("it cannot be read")
    };
    assert!(matches!(
        decode("account.closed", 1, b"{}"),
        DecodeError::UnknownName { category: "account", name, known }
            if name == "account.closed" && known == AccountEvent::NAMES
    ));
    assert!(matches!(
        decode("account.deposited", 4, br#"{"cents":1}"#),
        DecodeError::UnknownVersion { name: "account.deposited", found: 4, oldest: 3, known: 3 }
    ));
    assert!(matches!(
        decode("account.withdrawn", 1, br#"{"euros":1}"#),
        DecodeError::Payload { name: "account.withdrawn", version: 1, .. }
    ));
}

#[test]
fn commands_bear_the_names_of_their_types() {
    assert_eq!(Answer::NAME, "Answer");
    assert_eq!(Account::command_name(&Answer("yes").into()), "Answer");
    assert_eq!(Account::command_name(&AccountCommand::Nothing(Nothing).clone()), "Nothing");
}

#[test]
fn debug_names_what_it_is_and_shows_no_payload() {
    assert_eq!(format!("{:?}", deposited(4711)), "Deposited(..)");
    assert_eq!(format!("{:?}", AccountCommand::from(Answer("secret"))), "Answer(..)");
}

#[test]
fn a_command_that_waits_between_threads_can_be_sent() {
    fn sendable<T: Send + 'static>() {}
    sendable::<AccountCommand>();
    sendable::<AccountEvent>();
}
