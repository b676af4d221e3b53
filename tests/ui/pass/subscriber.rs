//! What a subscriber's handlers may look like, and which variants of an enum are events of their own.
#![deny(warnings)]

use serde::{Deserialize, Serialize};
use tidings::{
    Carried, Event, EventSubscriber, Header, TransientEvent, aggregate, subscriber,
};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited")]
struct Deposited {
    cents: i64,
}

#[derive(Default)]
struct Account;

#[aggregate(category = "account", events = AccountEvent)]
impl Account {
    #[apply]
    fn deposited(&mut self, _: &Deposited) {}
}

mod feed {
    pub struct Quote(pub u64);
    pub struct Trade;
}

#[derive(TransientEvent)]
#[event(name = "market")]
pub enum Market {
    Quote(feed::Quote),
    Trade(feed::Trade),
    Halted,
    Two(u8, u8),
    Named { name: String },
    Text(String),
    Many(Vec<u8>),
}

#[derive(TransientEvent)]
enum Single {
    Only(Only),
}

struct Only;

#[derive(TransientEvent)]
struct r#Tick;

struct Desk {
    cents: i64,
}

#[subscriber(name = "desk", publishes(r#Tick, Only, feed::Quote), overflow = drop_oldest)]
impl Desk {
    #[on]
    fn quote(&mut self, &feed::Quote(cents): &feed::Quote) {
        self.cents = i64::try_from(cents).unwrap_or(0);
    }

    #[on]
    fn market<'a>(self: &mut Self, market: &'a Market) -> Result<(), String> {
        match market {
            Market::Halted => Err("halted".into()),
            Market::Named { name } | Market::Text(name) if name.is_empty() => Err(name.clone()),
            Market::Two(1, 2) => Ok(()),
            Market::Many(bytes) if bytes.is_empty() => Ok(()),
            _ => Ok(()),
        }
    }

    #[on]
    fn only(&mut self, _: &Only) -> Result<(), std::fmt::Error> {
        Ok(())
    }

    /// It has documentation.
    #[on]
    fn deposited(&mut self, event: &Deposited, header: &Header) {
        let _ = header;
        self.not_a_handler(event.cents);
    }

    fn not_a_handler(&mut self, cents: i64) {
        self.cents += cents;
    }
}

fn main() {
    assert_eq!(Desk::NAME, "desk");
    assert_eq!(Market::PARTS, ["Quote", "Trade"]);
    assert_eq!(Single::PARTS, ["Only"]);
    assert_eq!(<Market as TransientEvent>::NAME, "market");
    let market = Market::from(feed::Quote(7));
    assert_eq!(feed::Quote::find(&market).map(|quote| quote.0), Some(7));
    assert!(feed::Quote::find(&Market::Trade(feed::Trade)).is_none());
    assert!(Only::find(&Only.into()).is_some());
    let _ = (Market::Halted, Market::Two(1, 2), Market::Named { name: "n".into() });
    let _ = (Market::Text("t".into()), Market::Many(vec![1]), Desk { cents: 1 }.cents);
}
