//! A projection with a `schema`: any expression of type `&'static str`, handlers with and without the header.
//!
//! It stands on a stand-in for the engine, so that it says which calls the macro writes, and no database is needed.
use serde::{Deserialize, Serialize};
use tidings::{Event, aggregate};

mod engine {
    pub use tidings::{Event, HandlerOutcome, Header, MemberOf};

    pub trait Projection: Sized + 'static {
        const NAME: &'static str;
        const VERSION: u32;
        type Storage;
        fn handlers(handlers: &mut Handlers<Self, Self::Storage>);
    }

    pub struct Tables;

    pub mod sqlite {
        pub struct Transaction<'a>(pub &'a str);
    }

    pub struct Handlers<P, S> {
        pub schema: &'static str,
        pub names: Vec<&'static str>,
        pub of: std::marker::PhantomData<(P, S)>,
    }

    impl<P: Projection<Storage = Tables>> Handlers<P, Tables> {
        pub fn schema(&mut self, sql: &'static str) -> &mut Self {
            self.schema = sql;
            self
        }

        pub fn on<E: MemberOf, R: HandlerOutcome>(
            &mut self,
            _: impl Fn(&P, &sqlite::Transaction<'_>, &E, &Header) -> R + Send + Sync + 'static,
        ) -> &mut Self {
            self.names.push(E::NAME);
            self
        }
    }
}

use engine::Projection as _;
use engine::sqlite::Transaction;
use tidings::Header;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.opened")]
struct Opened;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.closed")]
struct Closed;

#[derive(Default)]
struct Account;

#[aggregate(category = "account", events = AccountEvent)]
impl Account {
    #[apply]
    fn opened(&mut self, _: &Opened) {}

    #[apply]
    fn closed(&mut self, _: &Closed) {}
}

struct Open;

#[tidings::projection(
    name = "open",
    version = 2,
    schema = concat!("CREATE TABLE open", " (id TEXT)"),
    crate = engine
)]
impl Open {
    #[on]
    fn opened(&self, tx: &Transaction<'_>, _: &Opened) -> Result<(), std::fmt::Error> {
        let _ = tx.0;
        Ok(())
    }

    #[on]
    fn closed(&self, _: &Transaction<'_>, _: &Closed, header: &Header) {
        let _ = &header.stream;
    }
}

fn main() {
    let mut handlers = engine::Handlers {
        schema: "",
        names: Vec::new(),
        of: std::marker::PhantomData,
    };
    Open::handlers(&mut handlers);
    assert_eq!(handlers.schema, "CREATE TABLE open (id TEXT)");
    assert_eq!(handlers.names, ["account.opened", "account.closed"]);
    assert_eq!((Open::NAME, Open::VERSION), ("open", 2));
}
