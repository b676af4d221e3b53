//! Handlers as rarely written, and a domain that another macro writes.
#![allow(unused_parens)]

use serde::{Deserialize, Serialize};
use tidings::{
    Aggregate, Command, Context, Event, EventSet as _, Header, Query, aggregate, projection,
};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "door.moved", version = 4_294_967_295, oldest = 4_294_967_295)]
enum Moved {
    Opened,
    Closed,
}

#[derive(Command, Clone)]
enum Move {
    Open,
    Close,
}

#[derive(Default)]
enum Door {
    Open,
    #[default]
    Closed,
}

type Ctx = Context;

#[aggregate(category = "door", events = pub(crate) DoorEvent, error = std::fmt::Error,)]
impl self::Door {
    #[command]
    const fn go<'a>(self: &'a Self, command: (Move), _: &'a Ctx) -> Result<Moved, std::fmt::Error> {
        match (self, command) {
            (Door::Closed, Move::Open) => Ok(Moved::Opened),
            (Door::Open, Move::Close) => Ok(Moved::Closed),
            _ => Err(std::fmt::Error),
        }
    }

    #[apply]
    #[inline]
    fn moved(self: &mut Self, event: &(self::Moved)) -> () {
        *self = match event {
            Moved::Opened => Door::Open,
            Moved::Closed => Door::Closed,
        };
    }
}

macro_rules! lamp {
    ($lamp:ident, $set:ident, $event:ty, $command:ty, $query:ty, $reply:ty, $category:literal) => {
        #[derive(Default)]
        struct $lamp(u8);

        #[aggregate(category = $category, events = $set)]
        impl $lamp {
            #[command]
            fn light(&self, _: $command) -> Vec<$event> {
                Vec::new()
            }

            #[apply]
            fn lit(&mut self, _: &$event) {
                self.0 += 1;
            }
        }

        #[projection(name = $category)]
        impl $set {
            #[on]
            fn lit(&mut self, _: &$event, _: &Header) {}

            #[query]
            fn names(&self, _: $query) -> $reply {
                <$reply>::default()
            }
        }
    };
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "lamp.lit")]
struct Lit;

#[derive(Command, Clone)]
struct Light;

#[derive(Query)]
#[query(reply = Vec<String>)]
struct Names;

lamp!(
    Lamp,
    LampEvent,
    Lit,
    Light,
    Names,
    Vec<String>,
    "lamp"
);

#[derive(Query)]
#[query(reply = Result<&'static str, Vec<(u8, [bool; 2])>>,)]
enum r#Name<> {
    Short,
    Long { with: &'static str },
}

#[derive(Query)]
#[query(reply = ())]
struct Ping;

#[derive(Default)]
struct Doors;

#[projection(name = "doors")]
impl Doors {
    #[on]
    fn moved(&mut self, _: &Moved) {}

    #[query]
    fn name<'a>(self: &'a Self, query: &(self::Name)) -> Result<&'static str, Vec<(u8, [bool; 2])>> {
        match query {
            Name::Short => Ok("D"),
            Name::Long { with } => Ok(with),
        }
    }

    #[query]
    #[inline]
    fn ping(&self, _: Ping) {}
}

struct DoorTable;

#[projection(name = "door_table", schema = "CREATE TABLE door (id TEXT)")]
impl DoorTable {
    #[on]
    fn moved(&self, _: &tidings::sqlite::Transaction<'_>, _: &Moved) {}

    #[query]
    fn name(
        db: &tidings::sqlite::rusqlite::Connection,
        _: &Name,
    ) -> tidings::sqlite::rusqlite::Result<<Name as Query>::Reply> {
        db.query_row("SELECT 1", [], |_| Ok(Ok("one")))
    }
}

fn main() {
    let mut door = Door::default();
    assert_eq!(Moved::VERSION, u32::MAX);
    door.apply(&Moved::Opened.into());
    assert!(matches!(door, Door::Open));
    door.apply(&Moved::Closed.into());
    assert!(matches!(door, Door::Closed));
    assert!(door.go(Move::Close, &context()).is_err());
    assert!(door.go(Move::Open, &context()).is_ok());
    let mut lamp = Lamp::default();
    lamp.apply(&Lit.into());
    assert_eq!(
        (
            lamp.0,
            LampEvent::CATEGORY,
            Lamp::command_name(&Light.into())
        ),
        (1, "lamp", "Light")
    );
}

fn context() -> Context {
    Context::new(
        "door-1".parse().unwrap(),
        tidings::Timestamp::default(),
        tidings::CommandId::from_name("test"),
    )
}
