use serde::{Deserialize, Serialize};
use tidings::{Event, Header, aggregate, projection};

struct Transaction<'a>(&'a str);

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

#[projection(name = "open", schema = "CREATE TABLE open (id TEXT)")]
impl Open {
    #[on]
    fn opened(&mut self, tx: Transaction<'_>, _: &Opened) {
        let _ = tx.0;
    }

    #[on]
    fn closed(&self, _: &Closed, header: &Header) {
        let _ = header;
    }

    #[on]
    fn nothing(&self, _: &Transaction<'_>) {}
}

fn main() {}
