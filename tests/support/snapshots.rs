//! A ledger whose state is anything but small, under one policy of snapshots or another, and a store that spoils snapshots.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidings::{
    Aggregate, App, AppBuilder, Command, Commit, Committed, Context, Durability, Event, EventStore,
    Filter, KnownCommand, Page, Position, Receipt, Recorded, Refused, SendError, SentTo, Shape,
    Snapshot, Snapshots, StoreError, StreamId, Version, aggregate,
};

#[derive(Event, Clone, Serialize, Deserialize)]
#[event(name = "ledger.deposited", version = 1)]
pub(crate) struct Deposited {
    pub(crate) cents: i64,
}

#[derive(Event, Clone, Serialize, Deserialize)]
#[event(name = "ledger.withdrawn", version = 1)]
pub(crate) struct Withdrawn {
    pub(crate) cents: i64,
}

#[derive(Event, Clone, Serialize, Deserialize)]
#[event(name = "ledger.grown", version = 1)]
pub(crate) struct Grown {
    pub(crate) rate: f64,
}

/// After this the state has no form in JSON.
#[derive(Event, Clone, Serialize, Deserialize)]
#[event(name = "ledger.jammed", version = 1)]
pub(crate) struct Jammed;

#[derive(Debug, Clone)]
pub(crate) enum Wish {
    /// So many events of so many cents.
    Deposit(i64, u8),
    Withdraw(i64),
    Grow(f64),
    Jam,
    Show,
}

#[derive(Command, Clone, Debug)]
pub(crate) struct Do(pub(crate) Wish);

/// Why it rejects, with the state that it was decided on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("not with {0:?}")]
pub(crate) struct Refusal(pub(crate) Box<Ledger>);

/// Its fold depends on the order of the events, on their number, and on the last bit of a float.
#[derive(Debug, Clone, Default, PartialEq, Shape, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) cents: i64,
    pub(crate) entries: u64,
    value: f64,
    trail: u64,
    by_size: BTreeMap<i64, u64>,
    last: Option<Last>,
    jams: BTreeMap<String, Jam>,
}

#[derive(Debug, Clone, PartialEq, Shape, Serialize, Deserialize)]
enum Last {
    Deposit { cents: i64 },
    Withdrawal(i64),
    Growth,
}

#[derive(Debug, Clone, PartialEq, Shape, Deserialize)]
#[shape(opaque)]
struct Jam;

impl Serialize for Jam {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("jammed"))
    }
}

impl Ledger {
    fn enter(&mut self, cents: i64, last: Last) {
        self.cents += cents;
        self.entries += 1;
        self.value = (self.value + cents as f64) * 1.000_1;
        self.trail = self.trail.wrapping_mul(31).wrapping_add(cents as u64);
        *self.by_size.entry(cents / 10).or_default() += 1;
        self.last = Some(last);
    }
}

#[aggregate(category = "ledger", events = LedgerEvent, error = Refusal)]
impl Ledger {
    #[command]
    fn act(&self, Do(wish): Do) -> Result<Vec<LedgerEvent>, Refusal> {
        Ok(match wish {
            Wish::Deposit(cents, parts) => (0..parts).map(|_| Deposited { cents }.into()).collect(),
            Wish::Withdraw(cents) if cents <= self.cents => vec![Withdrawn { cents }.into()],
            Wish::Grow(rate) => vec![Grown { rate }.into()],
            Wish::Jam => vec![Jammed.into()],
            Wish::Withdraw(_) | Wish::Show => return Err(Refusal(Box::new(self.clone()))),
        })
    }

    #[apply]
    fn deposited(&mut self, event: &Deposited) {
        self.enter(event.cents, Last::Deposit { cents: event.cents });
    }

    #[apply]
    fn withdrawn(&mut self, event: &Withdrawn) {
        self.enter(-event.cents, Last::Withdrawal(event.cents));
    }

    #[apply]
    fn grown(&mut self, event: &Grown) {
        self.value += self.value * event.rate;
        self.entries += 1;
        self.last = Some(Last::Growth);
    }

    #[apply]
    fn jammed(&mut self, _: &Jammed) {
        self.entries += 1;
        self.jams.insert("here".into(), Jam);
    }
}

pub(crate) const NO_SNAPSHOTS: usize = 0;
pub(crate) const NO_OCCASION: usize = 1;
pub(crate) const EVERY_1: usize = 2;
pub(crate) const EVERY_3: usize = 3;
pub(crate) const BYTES_40: usize = 4;
pub(crate) const SLOWER_THAN_NOTHING: usize = 5;
pub(crate) const ON_PASSIVATION: usize = 6;
/// Those above, and one with all occasions.
pub(crate) const POLICIES: usize = 8;

/// The ledger with the snapshots of one policy.
#[derive(Default, Shape, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Kept<const POLICY: usize>(Ledger);

macro_rules! delegate {
    () => {
        const CATEGORY: &'static str = Ledger::CATEGORY;
        type Event = LedgerEvent;
        type Command = LedgerCommand;
        type Error = Refusal;

        fn command_name(command: &LedgerCommand) -> &'static str {
            Ledger::command_name(command)
        }
    };
}

impl<const POLICY: usize> Aggregate for Kept<POLICY> {
    delegate!();

    fn decide(
        &self,
        command: LedgerCommand,
        context: &Context,
        events: &mut Vec<LedgerEvent>,
    ) -> Result<(), Refusal> {
        self.0.decide(command, context, events)
    }

    fn apply(&mut self, event: &LedgerEvent) {
        self.0.apply(event);
    }

    fn snapshots() -> Option<Snapshots<Self>> {
        let snapshots = Snapshots::new();
        match POLICY {
            NO_SNAPSHOTS => None,
            NO_OCCASION => Some(snapshots),
            EVERY_1 => Some(snapshots.every(1)),
            EVERY_3 => Some(snapshots.every(3)),
            BYTES_40 => Some(snapshots.bytes(40)),
            SLOWER_THAN_NOTHING => Some(snapshots.slower_than(Duration::ZERO)),
            ON_PASSIVATION => Some(snapshots.on_passivation()),
            _ => Some(
                snapshots
                    .every(5)
                    .bytes(100)
                    .slower_than(Duration::from_micros(50))
                    .on_passivation(),
            ),
        }
    }
}

#[derive(Clone)]
struct To<const POLICY: usize>(Do);

impl<const POLICY: usize> Command for To<POLICY> {
    const NAME: &'static str = "To";
}

impl<const POLICY: usize> SentTo for To<POLICY> {
    type Aggregate = Kept<POLICY>;
}

impl<const POLICY: usize> From<To<POLICY>> for LedgerCommand {
    fn from(To(command): To<POLICY>) -> Self {
        command.into()
    }
}

macro_rules! for_policy {
    ($policy:expr, $p:ident => $work:expr) => {
        for_policy!(@ $policy, $p => $work, 0 1 2 3 4 5 6 7)
    };
    (@ $policy:expr, $p:ident => $work:expr, $($n:literal)*) => {
        match $policy {
            $($n => {
                const $p: usize = $n;
                $work
            })*
            other => panic!("there is no policy {other}"),
        }
    };
}

pub(crate) fn with_policy(builder: AppBuilder, policy: usize) -> AppBuilder {
    for_policy!(policy, P => builder.aggregate::<Kept<P>>())
}

pub(crate) async fn send(
    app: &App,
    policy: usize,
    id: &str,
    wish: Wish,
) -> Result<Receipt, SendError<Refusal>> {
    for_policy!(policy, P => app.send(id, To::<P>(Do(wish))).await)
}

/// The state of a ledger, as its aggregate has it.
pub(crate) async fn state(app: &App, policy: usize, id: &str) -> Ledger {
    match send(app, policy, id, Wish::Show).await {
        Err(SendError::Rejected(Refusal(ledger))) => *ledger,
        other => panic!("{other:?}"),
    }
}

/// The fold of all events of a ledger.
pub(crate) fn replay(store: &dyn EventStore, id: &str) -> Ledger {
    let mut ledger = Ledger::default();
    store
        .read_stream(&StreamId::new("ledger", id).unwrap(), Version::EMPTY, &mut |recorded| {
            ledger.apply(&recorded.decode().unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
    ledger
}

/// A state that the ledger may have become since.
pub(crate) trait Former: Aggregate {
    async fn ask(app: &App, id: &str) -> (i64, u64);
}

macro_rules! former {
    ($state:ident, $to:ident, $($snapshots:tt)*) => {
        impl Aggregate for $state {
            delegate!();

            fn decide(
                &self,
                _: LedgerCommand,
                _: &Context,
                _: &mut Vec<LedgerEvent>,
            ) -> Result<(), Refusal> {
                let (cents, entries) = self.seen();
                Err(Refusal(Box::new(Ledger { cents, entries, ..Ledger::default() })))
            }

            fn apply(&mut self, event: &LedgerEvent) {
                match event {
                    LedgerEvent::Deposited(event) => self.add(event.cents),
                    other => panic!("{other:?} was not sent"),
                }
            }

            fn snapshots() -> Option<Snapshots<Self>> {
                Some(Snapshots::new()$($snapshots)*)
            }
        }

        #[derive(Clone)]
        struct $to;

        impl Command for $to {
            const NAME: &'static str = stringify!($to);
        }

        impl SentTo for $to {
            type Aggregate = $state;
        }

        impl From<$to> for LedgerCommand {
            fn from(_: $to) -> Self {
                Do(Wish::Show).into()
            }
        }

        impl Former for $state {
            async fn ask(app: &App, id: &str) -> (i64, u64) {
                match app.send(id, $to).await {
                    Err(SendError::Rejected(Refusal(ledger))) => (ledger.cents, ledger.entries),
                    other => panic!("{other:?}"),
                }
            }
        }
    };
}

/// A field has another name; both are there if they are missing.
#[derive(Default, Shape, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Renamed {
    total: i64,
    entries: u64,
}

impl Renamed {
    fn seen(&self) -> (i64, u64) {
        (self.total, self.entries)
    }

    fn add(&mut self, cents: i64) {
        (self.total, self.entries) = (self.total + cents, self.entries + 1);
    }
}

/// A field has come that is zero where it is missing, and is not when it is folded.
#[derive(Default, Shape, Serialize, Deserialize)]
pub(crate) struct Extended {
    cents: i64,
    #[serde(default)]
    deposits: u64,
}

impl Extended {
    fn seen(&self) -> (i64, u64) {
        (self.cents, self.deposits)
    }

    fn add(&mut self, cents: i64) {
        (self.cents, self.deposits) = (self.cents + cents, self.deposits + 1);
    }
}

/// A field has another type, in which what was stored can be read.
#[derive(Default, Shape, Serialize, Deserialize)]
pub(crate) struct Retyped {
    cents: f64,
    entries: u64,
    value: f64,
    trail: u64,
}

impl Retyped {
    fn seen(&self) -> (i64, u64) {
        (self.cents as i64, self.entries)
    }

    fn add(&mut self, cents: i64) {
        (self.cents, self.entries) = (self.cents + cents as f64, self.entries + 1);
    }
}

/// The same fields with another meaning, which only its author can know.
#[derive(Default, Shape, Serialize, Deserialize)]
pub(crate) struct Revised(Ledger);

impl Revised {
    fn seen(&self) -> (i64, u64) {
        (self.0.cents, self.0.entries)
    }

    fn add(&mut self, cents: i64) {
        self.0.enter(cents, Last::Growth);
    }
}

former!(Renamed, ToRenamed,);
former!(Extended, ToExtended,);
former!(Retyped, ToRetyped,);
former!(Revised, ToRevised, .version(2));

mod forgetful {
    use super::*;

    #[derive(Event, Clone, Serialize, Deserialize)]
    #[event(name = "ledger.deposited", version = 1)]
    pub(crate) struct Deposited {
        cents: i64,
    }

    #[derive(Command, Clone)]
    pub(crate) struct Touch;

    /// Knows deposits only.
    #[derive(Default, Shape, Serialize, Deserialize)]
    pub(crate) struct Forgetful {
        cents: i64,
    }

    #[aggregate(
        category = "ledger",
        events = ForgetfulEvent,
        snapshot(every = 1, slower_than = "1 week", on_passivation),
        unknown = ignore
    )]
    impl Forgetful {
        #[command]
        fn touch(&self, _: Touch) -> Deposited {
            Deposited { cents: 1 }
        }

        #[apply]
        fn deposited(&mut self, event: &Deposited) {
            self.cents += event.cents;
        }
    }
}
pub(crate) use forgetful::{Forgetful, Touch};

/// How a snapshot comes back from the store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Spoilt {
    Gone,
    OtherShape,
    /// Only the first half of its bytes.
    Cut,
    TooNew,
    OfAnother,
    /// The store fails.
    Unreadable,
}

/// Spoils snapshots as it is told, and counts the events that are read.
#[derive(Clone, Default)]
pub(crate) struct Meddler {
    shared: Arc<Mutex<(Option<Spoilt>, u64, u64)>>,
}

impl Meddler {
    pub(crate) fn spoil(&self, spoilt: Spoilt, times: u64) {
        let mut shared = self.shared.lock();
        (shared.0, shared.1) = (Some(spoilt), times);
    }

    pub(crate) fn events_read(&self) -> u64 {
        self.shared.lock().2
    }

    fn meddle(&self, snapshot: Snapshot) -> Result<Option<Snapshot>, StoreError> {
        let mut shared = self.shared.lock();
        let (Some(spoilt), 1..) = (shared.0, shared.1) else {
            return Ok(Some(snapshot));
        };
        shared.1 -= 1;
        let mut snapshot = snapshot;
        match spoilt {
            Spoilt::Gone => return Ok(None),
            Spoilt::OtherShape => snapshot.shape[3] ^= 1,
            Spoilt::Cut => snapshot.state = snapshot.state[..snapshot.state.len() / 2].into(),
            Spoilt::TooNew => snapshot.version = snapshot.version.plus(1_000_000),
            Spoilt::OfAnother => snapshot.stream = StreamId::new("ledger", "another").unwrap(),
            Spoilt::Unreadable => {
                let what = "it was told to be".to_owned();
                return Err(StoreError::Damaged { place: "the store".into(), what });
            }
        }
        Ok(Some(snapshot))
    }
}

pub(crate) struct Meddled<S> {
    store: S,
    meddler: Meddler,
}

impl<S> Meddled<S> {
    pub(crate) fn new(store: S, meddler: &Meddler) -> Self {
        Self { store, meddler: meddler.clone() }
    }
}

/// A store that outlives its app.
pub(crate) struct Shared<S>(pub(crate) Arc<S>);

macro_rules! forward {
    ($self:ident => $store:expr) => {
        fn commit(
            &$self,
            group: &mut [Commit],
        ) -> Result<Vec<Result<Committed, Refused>>, StoreError> {
            $store.commit(group)
        }

        fn head(&$self) -> Result<Position, StoreError> {
            $store.head()
        }

        fn read_log(&$self, after: Position, filter: &Filter, limit: usize) -> Result<Page, StoreError> {
            $store.read_log(after, filter, limit)
        }

        fn find_command(&$self, id: tidings::CommandId) -> Result<Option<KnownCommand>, StoreError> {
            $store.find_command(id)
        }

        fn save_snapshots(&$self, snapshots: Vec<Snapshot>) -> Result<(), StoreError> {
            $store.save_snapshots(snapshots)
        }

        fn delete_snapshots(&$self) -> Result<(), StoreError> {
            $store.delete_snapshots()
        }

        fn durability(&$self) -> Durability {
            $store.durability()
        }

        fn log_id(&$self) -> uuid::Uuid {
            $store.log_id()
        }

        fn views_beside(&$self) -> Option<PathBuf> {
            $store.views_beside()
        }
    };
}

impl<S: EventStore> EventStore for Meddled<S> {
    forward!(self => self.store);

    fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        each: &mut dyn FnMut(Recorded) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.store.read_stream(stream, after, &mut |event| {
            self.meddler.shared.lock().2 += 1;
            each(event)
        })
    }

    fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        match self.store.load_snapshot(stream)? {
            None => Ok(None),
            Some(snapshot) => self.meddler.meddle(snapshot),
        }
    }
}

impl<S: EventStore> EventStore for Shared<S> {
    forward!(self => self.0);

    fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        each: &mut dyn FnMut(Recorded) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.0.read_stream(stream, after, each)
    }

    fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        self.0.load_snapshot(stream)
    }
}

/// Waits until `holds` does.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
