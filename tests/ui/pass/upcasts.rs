//! Each form of a step, of a former name, and of an upcast in an aggregate.
use serde::{Deserialize, Serialize};
use tidings::{Event, EventSet, Json, aggregate, upcasts};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited", version = 7, oldest = 2, formerly = ["account.paid_in", "account.credited"])]
struct Deposited {
    cents: i64,
}

#[derive(Serialize, Deserialize)]
struct V3 {
    cents: i64,
}

#[derive(Serialize, Deserialize)]
struct V4 {
    cents: i64,
}

mod shapes {
    pub type Alias = super::V4;
}

#[upcasts]
impl Deposited {
    pub const LIMIT: i64 = 7;

    #[upcast(from = 6)]
    fn json_to_self(old: Json) -> Json {
        old
    }

    #[upcast(from = 2)]
    pub fn json_to_typed(_: tidings::Json) -> V3 {
        V3 { cents: Self::LIMIT }
    }

    #[upcast(from = 3)]
    fn typed_to_typed(old: V3) -> V4 {
        V4 { cents: old.cents }
    }

    #[upcast(from = 4)]
    fn typed_to_json(V4 { cents }: shapes::Alias) -> serde_json::Value {
        serde_json::json!({ "cents": cents })
    }

    #[upcast(from = 5)]
    fn json_to_json(mut old: serde_json::Value) -> Json {
        old["cents"] = 8.into();
        old
    }

    fn helper(&self) -> i64 {
        self.cents
    }
}

/// The last step may name the type, or say `Self`.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.withdrawn", version = 2, formerly = "account.paid_out")]
struct Withdrawn;

#[upcasts]
impl Withdrawn {
    #[upcast(from = 1)]
    fn first(_: Json) -> Self {
        Self
    }
}

/// Older versions were never stored.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.closed", version = 2, oldest = 2)]
struct Closed;

/// The version before, side by side.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.closed")]
struct ClosedV1;

#[derive(Default)]
struct Account {
    cents: i64,
}

#[aggregate(category = "account", events = AccountEvent)]
impl Account {
    #[apply]
    fn deposited(&mut self, event: &Deposited) {
        self.cents += event.helper();
    }

    #[apply]
    fn withdrawn(&mut self, _: &Withdrawn) {}

    #[apply]
    fn closed(&mut self, _: &Closed) {}

    #[apply]
    fn closed_v1(&mut self, _: &ClosedV1) {}

    #[upcast(event = "account.pinged", version = 1)]
    fn dropped(_: Json) {}

    #[upcast(event = "account.split", version = 1)]
    fn split(old: V3) -> (Deposited, Option<Withdrawn>) {
        (Deposited { cents: old.cents }, None)
    }

    #[upcast(event = "account.split", version = 2)]
    fn many(_: Json) -> Vec<Deposited> {
        Vec::new()
    }

    #[upcast(event = "account.first", version = 1, with_next = "account.second", next_version = 1)]
    fn merged(first: V3, _: Json) -> AccountEvent {
        Deposited { cents: first.cents }.into()
    }

    #[upcast(event = "account.first", version = 1)]
    fn alone(first: V3) -> Deposited {
        Deposited { cents: first.cents }
    }

    #[upcast(event = "account.copied", version = 1, with_next = "account.deposited", next_version = 7)]
    fn copy(_: Json) {}

    /// Alone it goes through the event's own steps.
    #[upcast(event = "account.deposited", version = 2, with_next = "account.second", next_version = 1)]
    fn with_steps(_: Json, _: Json) -> [Withdrawn; 1] {
        [Withdrawn]
    }
}

fn main() {
    let decode = |version| {
        let json = br#"{"cents":5}"#;
        match AccountEvent::decode("account.credited", version, tidings::Codec::Json, json) {
            Ok(AccountEvent::Deposited(event)) => event.cents,
            _ => panic!("it is read as what it is"),
        }
    };
    assert_eq!([2, 3, 4, 5, 6, 7].map(decode), [8, 8, 8, 8, 5, 5]);
    let names = AccountEvent::FORMER_NAMES;
    assert!(["account.paid_in", "account.paid_out", "account.second"].iter().all(|name| names.contains(name)));
}
