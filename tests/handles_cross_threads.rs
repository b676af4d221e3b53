//! Handles can be sent to other threads and shared with them.

use tidings::{
    App, Group, InMemory, InboxError, Member, Memory, Receipt, Sending, Sqlite, TableView, Topic,
    View,
};
use tidings::{AppStatus, Command, Event, EventStore, Header, Projection, StoreError, aggregate};
use tidings::{Asking, Gathered, Gathering, Query, QueryContext, QueryError, TransientEvent};
use tidings::{Bus, Component, Map, ReadToken, Watching};

#[derive(Event, serde::Serialize, serde::Deserialize)]
#[event(name = "door.opened")]
struct Opened;

#[derive(Command, Clone)]
struct Open;

#[derive(Query, Clone)]
#[query(reply = bool)]
struct IsOpen;

#[derive(TransientEvent)]
struct Rang;

#[derive(Default)]
struct Door;

#[aggregate(category = "door", events = DoorEvent)]
impl Door {
    #[command]
    fn open(&self, _: Open) -> Opened {
        Opened
    }
    #[apply]
    fn opened(&mut self, _: &Opened) {}
}

struct Openings;

impl Projection for Openings {
    const NAME: &'static str = "openings";
    const VERSION: u32 = 1;
    type Storage = InMemory;

    fn handlers(handlers: &mut tidings::Handlers<Self, InMemory>) {
        handlers.on(|_: &mut Self, _: &Opened, _: &Header| {});
    }
}

fn shared<T: Send + Sync + 'static>() {}
fn sent<T: Send + 'static>() {}

#[test]
fn handles_are_send_and_sync() {
    shared::<App>();
    shared::<AppStatus>();
    shared::<Memory>();
    shared::<Sqlite>();
    shared::<Box<dyn EventStore>>();
    shared::<StoreError>();
    shared::<InboxError>();
    shared::<Receipt>();
    shared::<ReadToken>();
    shared::<Topic<DoorEvent>>();
    shared::<Group<Rang>>();
    shared::<Member<Rang>>();
    shared::<Bus>();
    shared::<Component>();
    shared::<Map>();
    shared::<View<Openings>>();
    shared::<TableView<Openings>>();
    shared::<QueryContext>();
    shared::<QueryError>();
    shared::<Asking<IsOpen>>();
    shared::<Gathering<IsOpen>>();
    shared::<Gathered<IsOpen>>();
    sent::<<Asking<IsOpen> as IntoFuture>::IntoFuture>();
    sent::<<Gathering<IsOpen> as IntoFuture>::IntoFuture>();
    sent::<Sending<Open>>();
    sent::<Watching<bool>>();
}
