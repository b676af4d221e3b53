//! The derive and attribute macros of Tidings; use them through the crate `tidings`, which re-exports them.
//!
//! Each works in four steps: the attribute and the item are parsed, made into a model, checked, and expanded. All mistakes
//! are reported at once, each where it was made; the types and implementations are written in any case, so that code
//! that uses them does not add errors of its own.

mod aggregate;
mod command;
mod duration;
mod errors;
mod event;
mod failures;
mod handler;
mod idempotent;
mod keys;
mod on;
mod projection;
mod query;
mod reactor;
mod shape;
mod subscriber;
mod transient;
mod upcasts;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// Describes what serde writes of a type: implements `tidings::Shape`.
///
/// The attributes of serde are honoured. The types of the fields must be described as well.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use serde::{Deserialize, Serialize};
/// use tidings::{Form, Shape};
///
/// #[derive(Shape, Serialize, Deserialize)]
/// #[serde(rename_all = "snake_case")]
/// enum Tier {
///     Basic,
///     Gold { points: u32 },
/// }
///
/// #[derive(Shape, Serialize, Deserialize)]
/// struct Member {
///     tier: Tier,
///     #[shape(opaque)]
///     address: std::net::IpAddr,
/// }
///
/// let form = Form::of::<BTreeMap<String, Member>>();
/// assert_eq!(
///     form.to_string(),
///     r#"[text => { address: opaque("std::net::IpAddr"), tier: <basic | gold { points: u32 }> }]"#,
/// );
/// ```
///
/// # Keys of `#[shape(…)]`
/// - `opaque`, at a field, a variant or the type: it is not described, and its Rust type stands for it. For types of other crates
///   and for hand-written implementations of serde's traits.
/// - `opaque = "date"`: the same, with a name that does not change with the Rust type.
/// - `crate = path`, at the type: where to find the crate, if not at `::tidings`.
#[proc_macro_derive(Shape, attributes(shape))]
pub fn derive_shape(input: TokenStream) -> TokenStream {
    shape::derive(&parse_macro_input!(input)).into()
}

/// Makes a struct or an enum an event: implements `tidings::Event`.
///
/// The type must also be `Serialize` and `DeserializeOwned`, and cannot be generic.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings::Event;
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(name = "account.deposited", version = 1)]
/// struct Deposited {
///     cents: i64,
/// }
///
/// assert_eq!((Deposited::NAME, Deposited::VERSION), ("account.deposited", 1));
/// ```
///
/// # Keys of `#[event(…)]`
/// - `name = "account.deposited"`: the name in the log. It stands apart from the Rust name, so that the type can be
///   renamed; it must never change itself.
/// - `version = 2`: the version of the payload's shape, from 1, which is also the default. If it is raised, steps lead to it from each
///   older version: write them under `#[upcasts]`, or the type does not compile.
/// - `oldest = 2`: the oldest version that the type reads, 1 unless given: older ones were never stored, or the aggregate reads them.
/// - `formerly = "account.paid_in"`, or a list `formerly = ["account.paid_in", "account.credited"]`: the names in the log that it had before.
///   The versions are one line through all of them: a new name alone does not raise the version.
/// - `codec = MessagePack`, or `Cbor`: the format of what is written from now on, JSON unless given. It takes the feature `messagepack` or `cbor`.
/// - `crate = path`: where to find the crate, if not at `::tidings`.
#[proc_macro_derive(Event, attributes(event, shape))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    event::derive(&parse_macro_input!(input)).into()
}

/// Makes the functions of an `impl` block the steps of an event from its older versions: implements `tidings::Upcasts`.
///
/// `#[derive(Event)]` asks for them if `version` is above the oldest version that the type reads. A stored event goes through
/// all steps from its version on; an event of today's version is decoded directly. Functions without an attribute stay as they are.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings::{Codec, Event, Json, decode_event, upcasts};
///
/// #[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
/// #[event(name = "account.deposited", version = 3)]
/// struct Deposited {
///     cents: i64,
///     source: Option<String>,
/// }
///
/// #[derive(Deserialize)]
/// struct DepositedV2 {
///     cents: i64,
/// }
///
/// #[upcasts]
/// impl Deposited {
///     #[upcast(from = 1)]
///     fn in_cents(mut old: Json) -> Json {
///         old["cents"] = (old["euros"].as_i64().unwrap_or_default() * 100).into();
///         old
///     }
///
///     #[upcast(from = 2)]
///     fn with_source(old: DepositedV2) -> Deposited {
///         Deposited { cents: old.cents, source: None }
///     }
/// }
///
/// let deposited: Deposited = decode_event(1, Codec::Json, br#"{"euros":7}"#)?;
/// assert_eq!(deposited, Deposited { cents: 700, source: None });
/// # Ok::<(), tidings::DecodeError>(())
/// ```
///
/// # Functions
/// `#[upcast(from = 2)] fn with_source(old: DepositedV2) -> Deposited` leads from version 2 to version 3. There is one for each version
/// from the oldest that the type reads to the one before today's; a hole, two from one version, and one from today's version or
/// above do not compile. It takes what is stored by value and returns the value itself: it is total, and it looks at nothing else.
///
/// What it takes and gives is a type that serde knows, or `tidings::Json` (`serde_json::Value`, called by one of these two names) for
/// shapes whose type is gone. A typed step hands its value to a typed one as it is; between the two kinds it is converted.
///
/// # Keys
/// - `crate = path`: where to find the crate, if not at `::tidings`.
#[proc_macro_attribute]
pub fn upcasts(arguments: TokenStream, item: TokenStream) -> TokenStream {
    upcasts::expand(arguments.into(), item.into()).into()
}

/// Makes a type a transient event: implements `tidings::TransientEvent` and `tidings::Carried`. It cannot be generic.
///
/// ```
/// use tidings::TransientEvent;
///
/// #[derive(TransientEvent)]
/// struct Tick {
///     cents: u64,
/// }
///
/// assert_eq!(Tick::NAME, "Tick");
/// ```
///
/// # Enums of events
/// A variant that is named as the one type in it makes that type an event of its own, on the topic of the enum: `Carried` is
/// implemented for it, and `From` it for the enum. It needs no derive, and must be a type of the same crate that is no event
/// otherwise. Variants of any other form belong to the enum alone.
///
/// ```
/// use tidings::{Carried, TransientEvent};
///
/// #[derive(Debug, PartialEq)]
/// struct Quote {
///     cents: u64,
/// }
///
/// #[derive(TransientEvent)]
/// enum Market {
///     Quote(Quote),
///     Name(String),
/// }
///
/// let market = Market::from(Quote { cents: 7 });
/// assert_eq!(Quote::find(&market), Some(&Quote { cents: 7 }));
/// assert_eq!(Market::PARTS, ["Quote"]);
/// assert_eq!(Quote::find(&Market::Name("ACME".into())), None);
/// ```
///
/// # Keys of `#[event(…)]`
/// - `name = "tick"`: the name of its topic, as the status shows it; the name of the type unless given.
/// - `crate = path`: where to find the crate, if not at `::tidings`.
#[proc_macro_derive(TransientEvent, attributes(event))]
pub fn derive_transient_event(input: TokenStream) -> TokenStream {
    transient::derive(&parse_macro_input!(input)).into()
}

/// Makes a type a command: implements `tidings::Command`, whose `NAME` is the name of the type.
///
/// The type must also be `Clone`, since a command is decided again if the commit that it relied on fails, and cannot be
/// generic.
///
/// ```
/// use tidings::Command;
///
/// #[derive(Command, Clone)]
/// struct Withdraw {
///     cents: i64,
/// }
///
/// assert_eq!(Withdraw::NAME, "Withdraw");
/// ```
///
/// # Keys of `#[command(…)]`
/// - `crate = path`: where to find the crate, if not at `::tidings`. The attribute is needed for nothing else.
#[proc_macro_derive(Command, attributes(command))]
pub fn derive_command(input: TokenStream) -> TokenStream {
    command::derive(&parse_macro_input!(input)).into()
}

/// Makes a type a query: implements `tidings::Query`, whose `NAME` is the name of the type.
///
/// The type cannot be generic.
///
/// ```
/// use tidings::Query;
///
/// #[derive(Query)]
/// #[query(reply = Option<i64>)]
/// struct BalanceOf {
///     account: String,
/// }
///
/// assert_eq!(BalanceOf::NAME, "BalanceOf");
/// ```
///
/// # Keys of `#[query(…)]`
/// - `reply = Option<i64>`: the type that it is answered with.
/// - `crate = path`: where to find the crate, if not at `::tidings`.
#[proc_macro_derive(Query, attributes(query))]
pub fn derive_query(input: TokenStream) -> TokenStream {
    query::derive(&parse_macro_input!(input)).into()
}

/// Makes the type of an `impl` block an aggregate, from the block's `#[command]` and `#[apply]` methods.
///
/// The type itself must be `Default`: that is the state before the first event. Events and commands must be of the same
/// crate, and each belongs to one aggregate. Methods without an attribute stay as they are.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings::{Aggregate, Command, Context, Event, aggregate};
///
/// #[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
/// #[event(name = "account.withdrawn")]
/// struct Withdrawn {
///     cents: i64,
///     at: u64,
/// }
///
/// #[derive(Command, Clone)]
/// struct Withdraw {
///     cents: i64,
/// }
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("overdrawn")]
/// struct Overdrawn;
///
/// #[derive(Default)]
/// struct Account {
///     cents: i64,
/// }
///
/// #[aggregate(category = "account", events = AccountEvent, error = Overdrawn, derive(Clone, PartialEq))]
/// impl Account {
///     #[command]
///     fn withdraw(&self, command: Withdraw, context: &Context) -> Result<Withdrawn, Overdrawn> {
///         if command.cents > self.cents {
///             return Err(Overdrawn);
///         }
///         Ok(Withdrawn { cents: command.cents, at: context.time.as_micros() })
///     }
///
///     #[apply]
///     fn withdrawn(&mut self, event: &Withdrawn) {
///         self.cents -= event.cents;
///     }
/// }
///
/// let mut account = Account { cents: 100 };
/// let event = AccountEvent::from(Withdrawn { cents: 40, at: 0 });
/// account.apply(&event);
/// assert_eq!(account.cents, 60);
/// assert_eq!(Withdrawn::try_from(event), Ok(Withdrawn { cents: 40, at: 0 }));
/// ```
///
/// # Methods
/// - `#[command] fn withdraw(&self, command: Withdraw) -> …`, if need be with a further argument `context: &Context`,
///   decides a command. It returns one event, several as a tuple, array or `Vec`, perhaps one as an `Option`, none as
///   `()`, or a `Result` of any of these with the error of the aggregate. It changes nothing.
/// - `#[apply] fn withdrawn(&mut self, event: &Withdrawn)` folds an event. There is one for each event of the aggregate.
/// - `#[on(to = event.order)] fn paid(&self, event: &Paid) -> …`, if need be with `context: &Context`, decides on the event of another
///   aggregate. `to` names the instance that it goes to by its id: an expression of the event, called as the argument is or else
///   `event`, and of its `header`; what it gives is `Display`. It decides as a command does, and returns what a command handler may return; its command id
///   is derived from the event, so it takes effect once. The first start with it begins with the oldest event in the log.
///
/// - `#[upcast(event = "account.moved", version = 1)] fn moved(old: MovedV1) -> (StreetChanged, CityChanged)` reads stored events of that name
///   and version that are no event of today: as several, as one, or as none. It returns what a command handler may return, but no
///   `Result`, and takes the old shape's own type, or `tidings::Json`. It has no `self`, and looks at nothing else.
/// - `#[upcast(event = "account.street", version = 1, with_next = "account.city", next_version = 1)] fn address(street: StreetV1, city: CityV1) -> AddressChanged`
///   reads two that stand next to each other in their stream, in the place of the second. The first alone is read by another `#[upcast]` of
///   its name and version, or by the event of that name through its steps, and the second alone in the same way; if there is none, that is an error.
///   With one argument, `fn copied(old: Json)`, it reads only the first, where that next follows; the next stays what it is, and is read at no
///   further cost. If the next is an event of today, the two make a pair only if one command has made both.
///
/// # What it writes
/// - `enum AccountEvent` with a variant for each event, named as its type; its `EventSet`; `From` each event and
///   `TryFrom` to each, which gives the value back if it is another event. Its `Debug` names the event and leaves out the
///   payload.
/// - `enum AccountCommand` in the same way, named after the aggregate, and `SentTo` for each command.
/// - `Aggregate`, with a `decide` and an `apply` that call the methods.
/// - For each event, that it is a `MemberOf` the enum and may be returned by the command handlers.
///
/// Two events with one stored name do not compile, unless their versions differ: then they are two versions of one event, side by side,
/// and a stored event is read as the one of exactly its version. Without that it goes through the steps of the next newer one.
///
/// # Events that were stored otherwise
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings::{Event, Json, aggregate};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(name = "person.street_changed")]
/// struct StreetChanged {
///     street: String,
/// }
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(name = "person.city_changed")]
/// struct CityChanged {
///     city: String,
/// }
///
/// #[derive(Deserialize)]
/// struct MovedV1 {
///     street: String,
///     city: String,
/// }
///
/// #[derive(Default)]
/// struct Person {
///     street: String,
///     city: String,
/// }
///
/// #[aggregate(category = "person", events = PersonEvent)]
/// impl Person {
///     #[apply]
///     fn street(&mut self, event: &StreetChanged) {
///         self.street.clone_from(&event.street);
///     }
///
///     #[apply]
///     fn city(&mut self, event: &CityChanged) {
///         self.city.clone_from(&event.city);
///     }
///
///     /// Was split.
///     #[upcast(event = "person.moved", version = 1)]
///     fn moved(old: MovedV1) -> (StreetChanged, CityChanged) {
///         (StreetChanged { street: old.street }, CityChanged { city: old.city })
///     }
///
///     /// Was given up.
///     #[upcast(event = "person.pinged", version = 1)]
///     fn pinged(_: Json) {}
/// }
/// ```
///
/// # Keys
/// - `category = "account"`: the category of the streams, without a hyphen. It stands in the log and must never change.
/// - `events = AccountEvent`: the name of the enum, if need be with a visibility, as in `events = pub(crate) AccountEvent`;
///   both enums are `pub` otherwise.
/// - `error = BankError`: why commands are rejected; `Infallible` otherwise.
/// - `derive(Clone, PartialEq)`: derives for the enum of events; each event needs them too.
/// - `snapshot(every = 1_000, bytes = 1_000_000, slower_than = "20 ms", on_passivation)`, any of these: when snapshots of the state are
///   taken, from which it is then loaded; see `tidings::Snapshots`. The state must be `Serialize`, `Deserialize` and `Shape`. With
///   `version = 2` those of other versions are ignored: raise it when an `#[apply]` method makes another state of the same events and
///   the fields stay.
/// - `unknown = ignore`: passes over events in its streams that the program does not know; without it an aggregate that has one
///   cannot be loaded. See `tidings::UnknownEvents`.
/// - `crate = path`: where to find the crate, if not at `::tidings`.
#[proc_macro_attribute]
pub fn aggregate(arguments: TokenStream, item: TokenStream) -> TokenStream {
    aggregate::expand(arguments.into(), item.into()).into()
}

/// Makes the type of an `impl` block a projection, from the block's `#[on]` and `#[query]` methods: implements
/// `tidings::Projection`.
///
/// Events may come from any number of aggregates. Methods without an attribute stay as they are.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tidings::{Event, aggregate};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(name = "account.deposited")]
/// # struct Deposited { cents: i64 }
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(name = "account.withdrawn")]
/// # struct Withdrawn { cents: i64 }
/// # #[derive(Default)]
/// # struct Account;
/// # #[aggregate(category = "account", events = AccountEvent)]
/// # impl Account {
/// #     #[apply]
/// #     fn deposited(&mut self, _: &Deposited) {}
/// #     #[apply]
/// #     fn withdrawn(&mut self, _: &Withdrawn) {}
/// # }
/// use std::collections::HashMap;
///
/// use tidings::{Header, Query, projection};
///
/// #[derive(Query)]
/// #[query(reply = Option<i64>)]
/// struct BalanceOf {
///     account: String,
/// }
///
/// #[derive(Default)]
/// struct Balances {
///     by_account: HashMap<String, i64>,
///     withdrawals: usize,
/// }
///
/// #[projection(name = "balances", version = 1)]
/// impl Balances {
///     #[on]
///     fn deposited(&mut self, event: &Deposited, header: &Header) {
///         *self.by_account.entry(header.stream.id().to_owned()).or_default() += event.cents;
///     }
///
///     #[on]
///     fn withdrawn(&mut self, _: &Withdrawn) {
///         self.withdrawals += 1;
///     }
///
///     #[query]
///     fn balance_of(&self, query: BalanceOf) -> Option<i64> {
///         self.by_account.get(&query.account).copied()
///     }
/// }
/// ```
///
/// # Methods
/// - In memory: `#[on] fn deposited(&mut self, event: &Deposited)`, if need be with a further argument `header: &Header`.
/// - In tables, which `schema` creates: `#[on] fn deposited(&self, tx: &Transaction<'_>, event: &Deposited)`, and again
///   `header: &Header`. What it writes through the transaction is committed together with the projection's checkpoint.
///
/// Each returns nothing, or a `Result` of nothing with any error. There is one for each event that the view folds.
///
/// - `#[on(key = event.customer)]`: when the event fails, those with the same key wait behind it, rather than those of the same stream.
///   The expression names the event, and the header, as the method's arguments do (`event` and `header` where these are `_` or not
///   there); what it gives is `Display`.
/// - `#[on(live_only)]`: the handler does not run for what was in the log when the view was begun or is built anew.
///
/// - In memory: `#[query] fn balance_of(&self, query: BalanceOf) -> Option<i64>`.
/// - In tables: `#[query] fn balance_of(db: &Connection, query: BalanceOf) -> Result<Option<i64>>`. The connection is read-only
///   and sees one state of the view.
///
/// Each returns the query's reply, or a `Result` of it with any error; `query: &BalanceOf` does as well. The projection then
/// answers that query in its app.
///
/// # Keys
/// - `name = "balances"`: its checkpoint is kept under it, so it must never change.
/// - `version = 1`: raise it when the handlers or the tables change, and the view is built anew; 1 if it is not given. Tables with the
///   same schema text are read until the new ones are level.
/// - `schema = "CREATE TABLE …"`: the tables of the view, as text or as an expression such as `include_str!("view.sql")`. If the text
///   changes, the old tables are dropped and the view is built anew in their place. Needs the feature `sqlite` of the crate.
/// - `retry(attempts = 8, first = "100 ms", longest = "10 s")`: how often an event is tried after an error that may pass.
/// - `classify = path::to::function`: which errors may pass, as `tidings::ErrorClass::of` says it.
/// - `on_failure = stop`: an event that fails for good stops the projection; its key is parked otherwise.
/// - `unknown = park`, or `ignore`: what happens with an event of its categories that the program does not know; the projection
///   stops before it otherwise. See `tidings::UnknownEvents`.
/// - `max_parked_keys = 1000`: how many keys may be parked.
/// - `crate = path`: where to find the crate, if not at `::tidings`.
#[proc_macro_attribute]
pub fn projection(arguments: TokenStream, item: TokenStream) -> TokenStream {
    projection::expand(arguments.into(), item.into()).into()
}

/// Makes the type of an `impl` block a reactor, from the block's `#[on]` methods: implements `tidings::Reactor`.
///
/// Events may come from any number of aggregates. Methods without an attribute stay as they are.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tidings::{Event, aggregate};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(name = "order.placed")]
/// # struct Placed { customer: String }
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(name = "order.shipped")]
/// # struct Shipped { address: String }
/// # #[derive(Default)]
/// # struct Order;
/// # #[aggregate(category = "order", events = OrderEvent)]
/// # impl Order {
/// #     #[apply]
/// #     fn placed(&mut self, _: &Placed) {}
/// #     #[apply]
/// #     fn shipped(&mut self, _: &Shipped) {}
/// # }
/// # struct Smtp;
/// # impl Smtp {
/// #     async fn send(&self, _: &str, _: String) -> std::io::Result<()> { Ok(()) }
/// # }
/// use tidings::{Delivery, reactor};
///
/// struct Mailer {
///     smtp: Smtp,
/// }
///
/// #[reactor(name = "mailer", concurrency = 8, timeout = "10 s")]
/// impl Mailer {
///     #[on(key = event.customer)]
///     async fn placed(&self, event: &Placed, delivery: &Delivery) -> std::io::Result<()> {
///         // The service knows a message that it has sent by its id.
///         self.smtp.send(&event.customer, delivery.id.to_string()).await
///     }
///
///     #[on(live_only)]
///     async fn shipped(&self, event: &Shipped, delivery: &Delivery) -> std::io::Result<()> {
///         self.smtp.send(&event.address, delivery.id.to_string()).await
///     }
/// }
/// ```
///
/// # Methods
/// - `#[on] async fn placed(&self, event: &Placed)`, if need be with a further argument `delivery: &Delivery` or
///   `header: &Header`. It has its effects outside the store, at least once for each event.
/// - `#[on] fn paid(&self, tx: &Transaction<'_>, event: &Paid)`, if need be with the same argument after it. What it writes
///   through the transaction takes effect exactly once. Needs the feature `sqlite` of the crate.
///
/// Each returns nothing, or a `Result` of nothing with any error. There is one for each event that the reactor handles.
///
/// # Keys of `#[on(…)]`
/// - `key = event.customer`: what the events are kept in order by, an expression of the arguments; their stream otherwise.
/// - `live_only`: not for what was in the log when the reactor was started for the first time.
///
/// # Keys
/// - `name = "mailer"`: its checkpoint is kept under it and the ids of its deliveries are made of it, so it must never change.
/// - `concurrency = 8`: how many events may be handled at once, each of another key; 16 unless given.
/// - `timeout = "10 s"`: how long one attempt may take; 30 seconds unless given.
/// - `start = newest`: begins with what is committed after its first start; with the oldest event unless given.
/// - `retry(attempts = 8, first = "100 ms", longest = "10 s")`: how often an event is tried when its error may pass, and after
///   which pauses: they double from the first to the longest.
/// - `classify = path::to::function`: which errors pass, a `fn(&(dyn Error + 'static)) -> ErrorClass`; all of them unless given.
/// - `on_failure = stop`: stops before an event that fails for good, instead of parking its key.
/// - `unknown = park`, or `ignore`: what happens with an event of its categories that the program does not know; the reactor
///   stops before it otherwise. See `tidings::UnknownEvents`.
/// - `max_parked_keys = 1000`: it stands still before it would park one more key.
/// - `crate = path`: where to find the crate, if not at `::tidings`.
#[proc_macro_attribute]
pub fn reactor(arguments: TokenStream, item: TokenStream) -> TokenStream {
    reactor::expand(arguments.into(), item.into()).into()
}

/// Makes the type of an `impl` block a subscriber by event type, from the block's `#[on]` methods: implements
/// `tidings::EventSubscriber`.
///
/// Events may come from any number of topics, transient and durable ones. Methods without an attribute stay as they are.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tidings::{Event, aggregate};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(name = "account.deposited")]
/// # struct Deposited { cents: i64 }
/// # #[derive(Default)]
/// # struct Account;
/// # #[aggregate(category = "account", events = AccountEvent)]
/// # impl Account {
/// #     #[apply]
/// #     fn deposited(&mut self, _: &Deposited) {}
/// # }
/// use tidings::{Header, PublishError, Publisher, TransientEvent, subscriber};
///
/// #[derive(TransientEvent)]
/// struct Quote {
///     cents: i64,
/// }
///
/// #[derive(TransientEvent)]
/// struct Alert {
///     account: String,
/// }
///
/// struct Risk {
///     limit: i64,
///     alerts: Publisher<Alert>,
/// }
///
/// #[subscriber(name = "risk", publishes(Alert))]
/// impl Risk {
///     #[on]
///     fn quote(&mut self, quote: &Quote) {
///         self.limit = quote.cents * 100;
///     }
///
///     #[on]
///     fn deposited(&mut self, event: &Deposited, header: &Header) -> Result<(), PublishError<Alert>> {
///         if event.cents <= self.limit {
///             return Ok(());
///         }
///         match self.alerts.try_publish(Alert { account: header.stream.id().to_owned() }) {
///             // Nobody looks at the alerts; an error would stop the subscriber.
///             Err(PublishError::Full(_)) => Ok(()),
///             outcome => outcome,
///         }
///     }
/// }
/// ```
///
/// # Methods
/// `#[on] fn quote(&mut self, quote: &Quote)`, for an event of an aggregate if need be with a further argument
/// `header: &Header`. It returns nothing, or a `Result` of nothing with any error, which stops the subscriber. There is one for
/// each event.
///
/// # Keys
/// - `name = "risk"`: its name in the status and on the map. Publishers and subscriptions of the same name belong to it.
/// - `publishes(Alert, …)`: the events that its handlers publish, or cause by commands that they send, for the map.
/// - `overflow = drop_oldest`: what happens when it falls behind: the oldest events are missed. Unless given, publishers of
///   transient events wait, and durable ones are read from the log.
/// - `crate = path`: where to find the crate, if not at `::tidings`.
#[proc_macro_attribute]
pub fn subscriber(arguments: TokenStream, item: TokenStream) -> TokenStream {
    subscriber::expand(arguments.into(), item.into()).into()
}

/// Makes a function take effect once for each key: a repeat gets the answer that the first call gave, and the body does not
/// run.
///
/// It is for functions and methods, `async` or not, that write through a transaction of SQLite. The key is written in that
/// same transaction, into the table `tidings_inbox`, which is made when it is first needed. So the effect and its key are
/// committed together, or not at all. Needs the feature `sqlite` of the crate.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings::sqlite::rusqlite::{self, Connection, Transaction};
/// use tidings::{InboxError, idempotent};
///
/// #[derive(Serialize)]
/// struct Charge {
///     id: String,
///     cents: i64,
/// }
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Charged {
///     number: i64,
/// }
///
/// #[derive(Debug, thiserror::Error)]
/// enum ChargeError {
///     #[error(transparent)]
///     Inbox(#[from] InboxError),
///     #[error(transparent)]
///     Database(#[from] rusqlite::Error),
/// }
///
/// #[idempotent(name = "charge", key = request.id, keep = "7 days")]
/// fn charge(tx: &Transaction<'_>, request: &Charge) -> Result<Charged, ChargeError> {
///     tx.execute("INSERT INTO charges (cents) VALUES (?1)", [request.cents])?;
///     Ok(Charged { number: tx.last_insert_rowid() })
/// }
///
/// let mut db = Connection::open_in_memory()?;
/// db.execute_batch("CREATE TABLE charges (number INTEGER PRIMARY KEY, cents INTEGER NOT NULL)")?;
/// let mut request = Charge { id: "4711".to_owned(), cents: 250 };
/// for _ in 0..2 {
///     let tx = db.transaction()?;
///     assert_eq!(charge(&tx, &request)?, Charged { number: 1 });
///     tx.commit()?;
/// }
///
/// request.cents = 300;
/// let tx = db.transaction()?;
/// let refused = charge(&tx, &request);
/// assert!(matches!(refused, Err(ChargeError::Inbox(InboxError::OtherInput { .. }))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # The function
/// - One argument is the transaction: a shared reference to a type that is called `Transaction`, `Connection` or
///   `Savepoint`, such as the `tidings::sqlite::Transaction` that handlers get; or the one that `tx` names, if it dereferences
///   to rusqlite's `Connection`. A connection without an open transaction does as well: then each call is a transaction of
///   its own.
/// - It returns a `Result`. The answer is `Serialize` and `DeserializeOwned`, since it is kept as JSON; the error is
///   `From<tidings::InboxError>`, which says why a call was refused.
/// - The other arguments are `Serialize`. They are what a call wants: a key that comes again with others is refused. Left out
///   are `self`, and arguments whose type is called `Delivery`, `Header` or `Context`. They are compared as JSON, so a
///   release that changes their form refuses repeats of earlier calls; `input` says what to compare instead. A `HashSet` has
///   another order each time: compare a sorted list, or take a `BTreeSet`.
///
/// # An error, a panic, a dropped future
/// Nothing is left, of the key or of what the body wrote, also if the transaction is committed all the same. The next call
/// runs the body again.
///
/// # Two callers at once
/// The first statement takes SQLite's write lock. The other caller waits for it as long as the busy timeout of its
/// connection says, and then gets the answer. A transaction that has read before cannot wait: SQLite refuses it at once if
/// another has written since. Begin it with `TransactionBehavior::Immediate`, or call the guarded function first.
///
/// # Effects elsewhere
/// The guard covers what is written through the transaction, and nothing else: a message that the body sends to another
/// system is sent again by the next call if the commit fails.
///
/// # In a projection
/// A projection needs no guard, since each event affects its view once. When it is built anew from the log its keys are still
/// there, so that a guarded handler would leave out what they stand for.
///
/// # `async`
/// A future that holds a `&Transaction` cannot be moved to another thread, as SQLite's connections cannot be shared by threads.
/// It runs on a `LocalSet` or an actor; in `tokio::spawn` it does not compile. There write a function that is not `async`, and
/// call it within `spawn_blocking`. Two guarded futures must not run in turns on one transaction.
///
/// # Keys
/// - `name = "charge"`: the keys are kept under it, so it must never change. It stands apart from the name of the function: a
///   key that is not found since the function was renamed would let its effect take place twice. Functions of the same name
///   share their keys.
/// - `key = request.id`: tells one request from another; any expression over the arguments that is `Display`. An empty one is
///   refused.
/// - `keep = "7 days"`: how long a key is kept, at least: for longer than anybody repeats a request. It is a promise to callers
///   and has no default. Write whole seconds (`"30 s"`), minutes, hours, days or weeks. Each new key deletes up to eight that
///   have expired, so that the table does not grow beyond what is kept.
/// - `input = request`: an expression that is compared instead of the arguments, such as `input = (account, cents)`.
/// - `tx = db`: the argument that is the transaction, if its type does not tell.
/// - `crate = path`: where to find the crate, if not at `::tidings`.
#[proc_macro_attribute]
pub fn idempotent(arguments: TokenStream, item: TokenStream) -> TokenStream {
    idempotent::expand(arguments.into(), item.into()).into()
}
