//! given / when / then of consumers: events in; rows, views, effects, events and letters out.
//!
//! [`events`] makes a small history. [`project`](Events::project) lets a projection fold it in a real app,
//! [`react`](Events::react) lets a reactor handle it, [`hear`](Events::hear) lets the instances of an aggregate decide on it, and
//! what follows says what must have come of it. All of it blocks, so it stands in a plain `#[test]`; in an async one, what a
//! handler waits for has to run on another thread.
//!
//! # What each run checks besides
//! - **The codec**, as [`given`](super::given()) does: each event is written and read back.
//! - **Delivery twice.** Each event reaches the consumer as it is committed, and once more after a crash that came before the
//!   checkpoint, in a new app with a new instance. All tables must hold the same rows after the second delivery as after the
//!   first, and the same letters must be parked. They are not if a handler looks at a clock, or at something that its
//!   instance keeps beside the tables. A view in memory is folded anew from the log; what is said of it must hold of both.
//!
//! # Errors that pass
//! They are tried again without pauses, as often as the consumer's policy says.
//!
//! # Panics
//! A check that fails panics at the line of the test that called it, with the events as stored.

mod rig;

use std::any::TypeId;
use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::marker::PhantomData;

use self::rig::{Crash, Letters, Rig, Scribe, Sent, blocking, send, show};
use super::chaos::Chaos;
use super::given::Stored;
use crate::aggregate::{Aggregate, IntoDecision};
use crate::app::{App, AppBuilder};
use crate::clock::Timestamp;
use crate::event::EventSet;
use crate::projection::{Handlers, InMemory, Projection, Storage};
use crate::reactor::Reactor;
use crate::stream::StreamId;

/// Begins a history of no events; add to it with [`on`](Events::on).
///
/// # Examples
#[cfg_attr(all(feature = "macros", feature = "sqlite"), doc = "```")]
#[cfg_attr(not(all(feature = "macros", feature = "sqlite")), doc = "```ignore")]
/// use std::collections::BTreeMap;
/// use serde::{Deserialize, Serialize};
/// use tidings::sqlite::Transaction;
/// use tidings::sqlite::rusqlite::{Connection, Result};
/// use tidings::testing::events;
/// use tidings::{Event, Header, aggregate, projection};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(name = "account.deposited", version = 1)]
/// struct Deposited { cents: i64 }
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(name = "account.withdrawn", version = 1)]
/// struct Withdrawn { cents: i64 }
///
/// #[derive(Default)]
/// struct Account;
///
/// #[aggregate(category = "account", events = AccountEvent)]
/// impl Account {
///     #[apply]
///     fn deposited(&mut self, _: &Deposited) {}
///     #[apply]
///     fn withdrawn(&mut self, _: &Withdrawn) {}
/// }
///
/// #[derive(Default)]
/// struct Balances { of: BTreeMap<String, i64> }
///
/// #[projection(name = "balances", version = 1)]
/// impl Balances {
///     #[on]
///     fn deposited(&mut self, event: &Deposited, header: &Header) {
///         *self.of.entry(header.stream.id().into()).or_default() += event.cents;
///     }
///     #[on]
///     fn withdrawn(&mut self, event: &Withdrawn, header: &Header) {
///         *self.of.entry(header.stream.id().into()).or_default() -= event.cents;
///     }
/// }
///
/// events()
///     .on("acc-1", (Deposited { cents: 100 }, Withdrawn { cents: 20 }))
///     .on("acc-2", Deposited { cents: 5 })
///     .project(Balances::default)
///     .then(|balances| assert_eq!(balances.of["acc-1"], 80))
///     .then_letters(&[]);
///
/// struct Deposits;
///
/// #[projection(name = "deposits", version = 1, schema = "CREATE TABLE deposits (cents INTEGER CHECK (cents > 0))")]
/// impl Deposits {
///     #[on]
///     fn deposited(&self, tx: &Transaction<'_>, event: &Deposited) -> Result<usize> {
///         tx.execute("INSERT INTO deposits VALUES (?1)", [event.cents])
///     }
///     fn total(db: &Connection) -> Result<i64> {
///         db.query_row("SELECT sum(cents) FROM deposits", [], |row| row.get(0))
///     }
/// }
///
/// // What cannot be handled is parked, with what comes after it in its stream.
/// events()
///     .on("acc-1", (Deposited { cents: 100 }, Deposited { cents: -1 }, Deposited { cents: 30 }))
///     .on("acc-2", Deposited { cents: 5 })
///     .project(|| Deposits)
///     .then_query(Deposits::total, 105)
///     .then_letters(&[(2, "account-acc-1"), (3, "account-acc-1")]);
/// ```
pub fn events() -> Events {
    Events {
        entries: Vec::new(),
        sets: Vec::new(),
        time: Timestamp::default(),
        metadata: Vec::new(),
    }
}

/// A history of events, of any aggregates.
#[derive(Clone)]
#[must_use = "a history checks little by itself: go on with `project`"]
pub struct Events {
    entries: Vec<Entry>,
    /// What lets an app take the events of each set, by the set's type.
    sets: Vec<(TypeId, Take)>,
    time: Timestamp,
    metadata: Vec<(String, String)>,
}

type Take = fn(AppBuilder) -> AppBuilder;

/// One event of a history.
#[derive(Clone)]
struct Entry {
    id: String,
    category: &'static str,
    stored: Stored,
    time: Timestamp,
    metadata: Vec<(String, String)>,
    send: for<'a> fn(&'a App, &'a Entry) -> Sent<'a>,
}

impl Events {
    /// Adds events of the stream `id`, which is named without its category: one event, several as a tuple, array or `Vec`.
    ///
    /// # Panics
    /// If an event does not survive being stored.
    #[track_caller]
    pub fn on<S: EventSet>(
        mut self,
        id: impl Into<String>,
        events: impl IntoDecision<S, Infallible>,
    ) -> Self {
        let (mut set, id) = (Vec::new(), id.into());
        let Ok(()) = events.into_decision(&mut set);
        if !self.sets.iter().any(|(known, _)| *known == TypeId::of::<S>()) {
            self.sets.push((TypeId::of::<S>(), AppBuilder::aggregate::<Scribe<S>>));
        }
        for event in &set {
            self.entries.push(Entry {
                id: id.clone(),
                category: S::CATEGORY,
                stored: Stored::of(event),
                time: self.time,
                metadata: self.metadata.clone(),
                send: send::<S>,
            });
        }
        self
    }

    /// The time of the events that are added from here on; the Unix epoch, if it is not said.
    pub fn at(mut self, time: Timestamp) -> Self {
        self.time = time;
        self
    }

    /// Attaches metadata to the events that are added from here on.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Brings the events into another order, drawn from `seed`, in which those of one stream stay in order: what consumers that
    /// see several streams must be ready for.
    pub fn shuffled(mut self, seed: u64) -> Self {
        let mut streams: Vec<Vec<Entry>> = Vec::new();
        for entry in self.entries {
            let same = |other: &Entry| (other.category, &other.id) == (entry.category, &entry.id);
            match streams.iter_mut().find(|stream| stream.first().is_some_and(same)) {
                Some(stream) => stream.push(entry),
                None => streams.push(vec![entry]),
            }
        }
        self.entries = Chaos::seeded(seed).interleave(streams);
        self
    }

    /// Lets the projection that `make` makes fold the history, each event twice.
    ///
    /// # Panics
    /// If the app does not start, the projection stops, or its tables or letters are not the same after a second delivery.
    #[track_caller]
    pub fn project<P: Projection>(self, make: impl Fn() -> P + Send) -> Projected<P> {
        let rig = Rig::new(self);
        let wire = move |app: AppBuilder| app.projection(make());
        let projected = blocking(|| async {
            if TypeId::of::<P::Storage>() == TypeId::of::<InMemory>() {
                let (live, anew, letters) = rig.fold_live_and_anew(P::NAME, wire).await?;
                let mut views = vec![live.view::<P>()];
                if !Handlers::<P, P::Storage>::of_projection().differs_in_a_replay {
                    views.push(anew.view::<P>());
                }
                Ok::<_, String>((views, letters))
            } else {
                let letters = rig.deliver_twice(P::NAME, wire, Crash::BeforeTheCommit).await?;
                Ok((Vec::new(), letters))
            }
        });
        match projected {
            Ok((views, letters)) => Projected { rig, views, letters },
            Err(problem) => rig.fail(&problem),
        }
    }

    /// Lets the reactor that `make` makes handle the history, each event twice: the second time after its effects were there, and
    /// before its checkpoint was. What it does outside is the business of its fakes, which see both deliveries, with the same
    /// [id](crate::Delivery::id); what it does through a transaction must be there once.
    ///
    /// # Panics
    /// If the app does not start, the reactor stops, or its tables or letters are not the same after a second delivery.
    ///
    /// # Examples
    #[cfg_attr(all(feature = "macros", feature = "sqlite"), doc = "```")]
    #[cfg_attr(not(all(feature = "macros", feature = "sqlite")), doc = "```ignore")]
    /// use std::collections::BTreeMap;
    /// use std::sync::{Arc, Mutex};
    /// use serde::{Deserialize, Serialize};
    /// use tidings::testing::events;
    /// use tidings::{Delivery, DeliveryId, Event, Reactions, Reactor, aggregate};
    ///
    /// #[derive(Event, Serialize, Deserialize)]
    /// #[event(name = "order.placed", version = 1)]
    /// struct Placed { customer: String }
    ///
    /// #[derive(Default)]
    /// struct Order;
    ///
    /// #[aggregate(category = "order", events = OrderEvent)]
    /// impl Order {
    ///     #[apply]
    ///     fn placed(&mut self, _: &Placed) {}
    /// }
    ///
    /// /// Knows a message that it has sent by its id, as the service does.
    /// #[derive(Clone, Default)]
    /// struct FakeMail(Arc<Mutex<BTreeMap<DeliveryId, String>>>);
    ///
    /// impl FakeMail {
    ///     async fn send(&self, id: DeliveryId, to: &str) -> Result<(), std::io::Error> {
    ///         self.0.lock().unwrap().insert(id, to.to_owned());
    ///         Ok(())
    ///     }
    /// }
    ///
    /// struct Mailer(FakeMail);
    ///
    /// impl Reactor for Mailer {
    ///     const NAME: &'static str = "mailer";
    ///
    ///     fn handlers(handlers: &mut Reactions<Self>) {
    ///         handlers.on(|mailer: &Self, event: &Placed, delivery: &Delivery| {
    ///             Box::pin(mailer.0.send(delivery.id, &event.customer))
    ///         });
    ///     }
    /// }
    ///
    /// let mail = FakeMail::default();
    /// events()
    ///     .on("o-1", Placed { customer: "Ada".into() })
    ///     .react(|| Mailer(mail.clone()))
    ///     .then_letters(&[]);
    /// assert_eq!(mail.0.lock().unwrap().values().collect::<Vec<_>>(), ["Ada"]);
    /// ```
    #[track_caller]
    pub fn react<R: Reactor>(self, make: impl Fn() -> R + Send) -> Reacted<R> {
        let rig = Rig::new(self);
        let wire = move |app: AppBuilder| app.reactor(make());
        let reacted = blocking(|| rig.deliver_twice(R::NAME, wire, Crash::BeforeTheCheckpoint));
        match reacted {
            Ok(letters) => Reacted { rig, letters, reactor: PhantomData },
            Err(problem) => rig.fail(&problem),
        }
    }

    /// Lets the instances of `A` decide on the history, each event twice; the second time changes nothing. Events of `A` itself are
    /// its past, and stand before all others.
    ///
    /// # Panics
    /// If the app does not start, `A` subscribes to none of the events, or a second delivery causes an event or other letters.
    ///
    /// # Examples
    #[cfg_attr(all(feature = "macros", feature = "sqlite"), doc = "```")]
    #[cfg_attr(not(all(feature = "macros", feature = "sqlite")), doc = "```ignore")]
    /// use serde::{Deserialize, Serialize};
    /// use tidings::testing::events;
    /// use tidings::{Event, aggregate};
    ///
    /// #[derive(Event, Serialize, Deserialize)]
    /// #[event(name = "order.placed", version = 1)]
    /// struct Placed { parcel: String }
    ///
    /// #[derive(Default)]
    /// struct Order;
    ///
    /// #[aggregate(category = "order", events = OrderEvent)]
    /// impl Order {
    ///     #[apply]
    ///     fn placed(&mut self, _: &Placed) {}
    /// }
    ///
    /// #[derive(Event, Serialize, Deserialize)]
    /// #[event(name = "shipment.requested", version = 1)]
    /// struct Requested { nth: u32 }
    ///
    /// #[derive(Default)]
    /// struct Shipment { requested: u32 }
    ///
    /// #[aggregate(category = "shipment", events = ShipmentEvent)]
    /// impl Shipment {
    ///     #[on(to = event.parcel.clone())]
    ///     fn placed(&self, _: &Placed) -> Requested { Requested { nth: self.requested + 1 } }
    ///     #[apply]
    ///     fn requested(&mut self, _: &Requested) { self.requested += 1 }
    /// }
    ///
    /// events()
    ///     .on("o-1", Placed { parcel: "p-1".into() })
    ///     .on("o-2", Placed { parcel: "p-1".into() })
    ///     .hear::<Shipment>()
    ///     .then_events("p-1", (Requested { nth: 1 }, Requested { nth: 2 }))
    ///     .then_letters(&[]);
    /// ```
    #[track_caller]
    pub fn hear<A: Aggregate>(self) -> Heard<A> {
        let mut rig = Rig::new(self);
        let heard = match rig.write_past::<A::Event>() {
            Ok(()) => blocking(|| {
                let wire = |app: AppBuilder| app.aggregate::<A>();
                rig.deliver_twice(A::CATEGORY, wire, Crash::BeforeTheCheckpoint)
            }),
            Err(problem) => Err(problem),
        };
        match heard {
            Ok(letters) => Heard { rig, letters, aggregate: PhantomData },
            Err(problem) => rig.fail(&problem),
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("events", &self.entries.len()).finish_non_exhaustive()
    }
}

/// A projection has folded a history; say what must have come of it.
pub struct Projected<P: Projection> {
    rig: Rig,
    /// After one delivery of each event, and after two.
    views: Vec<<P::Storage as Storage>::View<P>>,
    letters: Letters,
}

impl<P: Projection> Projected<P> {
    /// Exactly these events are parked or wait, in the order of the history: each by its place there, from 1, and its key, which
    /// is the whole name of its stream unless the projection declares another.
    ///
    /// # Panics
    /// If they are not.
    #[track_caller]
    pub fn then_letters(self, expected: &[(u64, &str)]) -> Self {
        self.rig.check_letters(&self.letters, expected);
        self
    }
}

impl<P: Projection<Storage = InMemory>> Projected<P> {
    /// Hands the view to `check`, which asserts what it likes: as it is after the first delivery, and, unless a handler runs for
    /// new events only, folded anew.
    pub fn then(self, check: impl Fn(&P)) -> Self {
        for view in &self.views {
            check(&view.read());
        }
        self
    }
}

#[cfg(feature = "sqlite")]
impl<P: Projection<Storage = crate::projection::Tables>> Projected<P> {
    /// Hands a connection to the view's tables to `check`, which asserts what it likes.
    ///
    /// # Panics
    /// If `check` returns an error.
    #[track_caller]
    pub fn then_rows(
        self,
        check: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<()>,
    ) -> Self {
        self.then_query(check, ())
    }

    /// The query returns exactly `expected`.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn then_query<T: PartialEq + fmt::Debug>(
        self,
        query: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
        expected: T,
    ) -> Self {
        self.rig.check_query(query, expected);
        self
    }
}

impl<P: Projection> fmt::Debug for Projected<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projected")
            .field("projection", &P::NAME)
            .field("events", &self.rig.history.entries.len())
            .field("letters", &self.letters.len())
            .finish_non_exhaustive()
    }
}

/// A reactor has handled a history; say what must have come of it.
pub struct Reacted<R> {
    rig: Rig,
    letters: Letters,
    reactor: PhantomData<fn() -> R>,
}

impl<R: Reactor> Reacted<R> {
    /// As [`Projected::then_letters`].
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    pub fn then_letters(self, expected: &[(u64, &str)]) -> Self {
        self.rig.check_letters(&self.letters, expected);
        self
    }

    /// As [`Projected::then_rows`], for what it has written through transactions.
    ///
    /// # Panics
    /// As there.
    #[cfg(feature = "sqlite")]
    #[track_caller]
    pub fn then_rows(
        self,
        check: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<()>,
    ) -> Self {
        self.then_query(check, ())
    }

    /// As [`Projected::then_query`], for what it has written through transactions.
    ///
    /// # Panics
    /// As there.
    #[cfg(feature = "sqlite")]
    #[track_caller]
    pub fn then_query<T: PartialEq + fmt::Debug>(
        self,
        query: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
        expected: T,
    ) -> Self {
        self.rig.check_query(query, expected);
        self
    }
}

impl<R: Reactor> fmt::Debug for Reacted<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reacted")
            .field("reactor", &R::NAME)
            .field("events", &self.rig.history.entries.len())
            .field("letters", &self.letters.len())
            .finish_non_exhaustive()
    }
}

/// The instances of an aggregate have decided on a history; say what must have come of it.
pub struct Heard<A> {
    rig: Rig,
    letters: Letters,
    aggregate: PhantomData<fn() -> A>,
}

impl<A: Aggregate> Heard<A> {
    /// The instance `id` has decided on exactly `events`, in this order: one event, several as a tuple, array or `Vec`.
    ///
    /// # Panics
    /// If it has not, or if an event does not survive being stored.
    #[track_caller]
    pub fn then_events(
        self,
        id: impl AsRef<str>,
        events: impl IntoDecision<A::Event, Infallible>,
    ) -> Self {
        let mut set = Vec::new();
        let Ok(()) = events.into_decision(&mut set);
        let expected: Vec<Stored> = set.iter().map(Stored::of).collect();
        let stream = StreamId::new(A::CATEGORY, id.as_ref());
        let found = stream.map_err(|error| error.to_string()).and_then(|id| self.rig.caused(&id));
        match found {
            Ok(found)
                if found
                    .iter()
                    .map(Stored::of_recorded::<A::Event>)
                    .eq(expected.iter().cloned()) => {}
            Ok(found) => {
                let mut text = format!("{} decided otherwise than expected", id.as_ref());
                for event in &expected {
                    // Writing into a string cannot fail.
                    let _ = write!(text, "\n  expected: {event}");
                }
                for event in &found {
                    let _ = write!(text, "\n  found:    {}", show(event));
                }
                self.rig.fail(&text);
            }
            Err(problem) => self.rig.fail(&problem),
        }
        self
    }

    /// As [`Projected::then_letters`]; the key is the id of the instance, without its category.
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    pub fn then_letters(self, expected: &[(u64, &str)]) -> Self {
        self.rig.check_letters(&self.letters, expected);
        self
    }
}

impl<A: Aggregate> fmt::Debug for Heard<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heard")
            .field("aggregate", &A::CATEGORY)
            .field("events", &self.rig.history.entries.len())
            .field("letters", &self.letters.len())
            .finish_non_exhaustive()
    }
}
