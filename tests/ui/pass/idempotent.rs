//! Guarded functions as rarely written, in a crate that has names of its own for everything that the macro's code needs, and
//! with the crate under another name.
#![allow(dead_code, non_camel_case_types, non_upper_case_globals, unused_parens)]

mod framework {
    pub use tidings::sqlite::rusqlite::{Connection, Savepoint, Transaction};
    pub use tidings::*;
}

use ::std::rc::Rc;

use framework::{InboxError, idempotent};

mod tidings {}
mod core {}
mod std {}

struct Option;
struct Some;
const None: () = ();
const call: () = ();
trait Input {}
trait Display {}

type Answer<T> = Result<T, InboxError>;
type Tx<'a> = &'a framework::Transaction<'a>;

struct Id<'a>(&'a str);

/// Any form of arguments, if `input` says what to compare.
#[inline]
#[must_use]
#[idempotent(
    name = "patterns",
    crate = framework,
    input = (id, [first, second]),
    key = ::std::format!("{id}/{first}"),
    keep = " 30s ",
)]
pub(crate) fn patterns(
    tx: &(framework::Transaction<'_>),
    Id(id): Id<'_>,
    [first, mut second]: [u8; 2],
    _: Rc<u8>,
    drop: impl FnOnce(u8),
) -> Answer<u8> {
    #![allow(unused_assignments)]
    let _ = tx;
    second += 1;
    if second > 9 {
        return Ok(second);
    }
    drop(first);
    second = "7".parse().unwrap_or(8);
    Ok(second)
}

#[idempotent(name = "alias", key = number, keep = "1 second", tx = tx, crate = framework)]
fn alias(tx: Tx<'_>, mut number: u64) -> Answer<Vec<u64>> {
    let _ = tx;
    number += 1;
    Ok(vec![number])
}

struct Counter<T> {
    of: T,
}

impl<T: ::std::fmt::Display + Clone> Counter<T> {
    #[idempotent(name = "by_value", key = self.of, keep = "24 hours", crate = framework)]
    fn by_value(self, inner: &&framework::Savepoint<'_>) -> Result<(), Box<dyn ::std::error::Error>>
    where
        T: 'static,
    {
        let _ = inner;
        let of: Self = self;
        of.of.to_string().parse::<u8>()?;
        Ok(())
    }

    #[idempotent(name = "exclusive", key = self.of, keep = "2 weeks", crate = framework)]
    async fn exclusive<'a>(
        self: &'a mut Self,
        header: &framework::Header,
        r#type: &'a T,
        tx: &framework::Connection,
    ) -> Result<(), Box<dyn ::std::error::Error + Send + Sync>>
    where
        T: serde::Serialize,
    {
        let _ = (header, tx);
        self.of = r#type.clone();
        let number: u8 = self.of.to_string().parse()?;
        ::std::future::ready(number).await.checked_add(1).ok_or("too many")?;
        Ok(())
    }
}

/// Of the same name as what surrounds a handler, and not `Serialize`.
struct Delivery {
    id: u128,
}

struct Context;

impl Counter<String> {
    #[idempotent(name = "delivery", key = delivery.id, keep = "1 week", crate = framework)]
    fn handler(
        &self,
        tx: &framework::Transaction<'_>,
        _event: &str,
        delivery: &Delivery,
        _: Context,
    ) -> Result<(), InboxError> {
        tx.is_autocommit();
        Ok(())
    }
}

trait Charge {
    fn charge(&self, tx: &framework::Connection, id: &str) -> Answer<String>;
}

impl Charge for Counter<u8> {
    #[idempotent(name = "in_trait", key = id, keep = "1 minute", crate = framework)]
    fn charge(&self, tx: &framework::Connection, id: &str) -> Answer<String> {
        tx.changes();
        Ok(id.to_owned())
    }
}

macro_rules! guarded {
    ($function:ident, $tx:ident, $ty:ty, $name:literal, $key:expr, $keep:literal) => {
        #[idempotent(name = $name, key = $key, keep = $keep, crate = framework)]
        fn $function($tx: $ty) -> Answer<bool> {
            Ok($tx.is_autocommit())
        }
    };
}

guarded!(by_macro, db, &framework::Connection, "by_macro", 1 + 1, "4 weeks");

fn main() {
    let mut db = framework::Connection::open_in_memory().unwrap();
    assert!(!by_macro(&db).unwrap());
    let tx = db.transaction().unwrap();
    for _ in 0..2 {
        assert_eq!(patterns(&tx, Id("a"), [1, 2], Rc::new(1), |_| {}).unwrap(), 7);
        assert_eq!(alias(&tx, 1).unwrap(), [2]);
    }
    let mut tx = tx;
    Counter { of: 1 }.by_value(&&tx.savepoint().unwrap()).unwrap();
    assert_eq!(Counter { of: 1 }.charge(&tx, "id").unwrap(), "id");
}
