//! A store that fails, waits and crashes when it is told to.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use uuid::Uuid;

use crate::event::Recorded;
use crate::id::CommandId;
use crate::store::{
    Commit, Committed, Durability, EventStore, Filter, KnownCommand, Page, Refused, Snapshot,
    StoreError,
};
use crate::stream::{Position, StreamId, Version};

/// A store around another one that fails, waits and crashes when its [`Faults`] say so.
///
/// It proves what a program does when the disk is full, when an answer is lost on its way, and when two things happen in the
/// one order that goes wrong. Without orders it does what the store within does.
///
/// # Waiting
/// An operation that is held blocks the thread that it runs on, as a slow disk does. An app can only be shut down once its
/// operations go on; dropping the [`Gate`] sees to that.
///
/// # Crashing
/// After [`Fault::Crash`] or [`Faults::crash`] every operation fails, as if the process had been killed at that moment. What the
/// log holds then, and the views in the file beside it, outlive it: [`Faults::restart`] opens them for the next app. The crashed
/// app still runs, since it is part of the test, but reaches neither; end it with
/// [`shutdown_within`](crate::App::shutdown_within), and do not count what its handlers do outside after
/// [`has_crashed`](Faults::has_crashed). What a handler had done, and its consumer not yet written down, is done again after
/// the restart: that is how an event is delivered twice.
///
/// # Examples
/// ```
/// use tidings::testing::{Fault, Faulty, Operation};
/// use tidings::{Commit, EventStore, Memory, StoreError};
///
/// let (store, faults) = Faulty::new(Memory::new());
/// faults.fail(Operation::Commit, 2, Fault::Full);
/// assert!(store.commit(&mut [Commit::new()]).is_ok());
/// assert!(matches!(store.commit(&mut [Commit::new()]), Err(StoreError::Full { .. })));
/// assert!(store.commit(&mut [Commit::new()]).is_ok());
/// assert_eq!(faults.count(Operation::Commit), 3);
///
/// // The commit is written, and the process dies before it can tell anybody.
/// faults.fail(Operation::Commit, 1, Fault::CrashAfterwards);
/// assert!(store.commit(&mut [Commit::new()]).is_err());
/// assert!(store.head().is_err());
/// let (store, _) = faults.restart();
/// assert!(store.head().is_ok());
/// ```
pub struct Faulty<S: ?Sized> {
    store: Arc<S>,
    faults: Faults,
}

/// The orders that a [`Faulty`] store obeys. All clones give orders to the same store.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

/// What a store is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`EventStore::commit`].
    Commit,
    /// [`EventStore::read_stream`].
    ReadStream,
    /// [`EventStore::read_log`].
    ReadLog,
    /// [`EventStore::find_command`].
    FindCommand,
    /// [`EventStore::load_snapshot`].
    LoadSnapshot,
    /// [`EventStore::save_snapshots`].
    SaveSnapshots,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// With [`StoreError::Full`]; nothing is written.
    Full,
    /// With [`StoreError::ReadOnly`]; nothing is written.
    ReadOnly,
    /// With [`StoreError::Failed`]; nothing is written.
    Failed,
    /// With [`StoreError::Failed`] after it was done: a commit is written, and its answer is lost on the way.
    FailedAfterwards,
    /// The process crashes before it is done.
    Crash,
    /// The process crashes after it was done: a commit is written, and nobody is told.
    CrashAfterwards,
}

/// An operation that is held; it goes on when this is dropped.
#[must_use = "the gate opens when this is dropped"]
pub struct Gate {
    shared: Arc<Shared>,
    number: u64,
    arrived: watch::Receiver<u64>,
}

struct Shared {
    /// What outlives a crash.
    store: Arc<dyn EventStore>,
    /// The file of the views, if they are in one.
    views: Option<PathBuf>,
    /// Set when a crash begins.
    crashes: AtomicBool,
    /// Set when it is over: where the views are that it left.
    crashed: OnceLock<Result<Option<PathBuf>, Box<dyn Error + Send + Sync>>>,
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Default)]
struct State {
    gates: Vec<Held>,
    next_gate: u64,
    orders: Vec<Order>,
    always: Vec<(Operation, Fault)>,
    counts: HashMap<Operation, u64>,
    commits: u64,
}

struct Held {
    number: u64,
    operation: Operation,
    /// Only reads of this stream.
    stream: Option<StreamId>,
    arrived: watch::Sender<u64>,
    /// How many operations may still pass.
    passes: u64,
}

impl Held {
    fn holds(&self, operation: Operation, stream: Option<&StreamId>) -> bool {
        self.operation == operation && (self.stream.is_none() || self.stream.as_ref() == stream)
    }
}

struct Order {
    operation: Operation,
    /// How many more operations pass before it is obeyed, and this one.
    left: u64,
    fault: Fault,
}

impl State {
    fn count(&mut self, operation: Operation) -> &mut u64 {
        self.counts.entry(operation).or_default()
    }
}

impl<S: EventStore> Faulty<S> {
    /// Puts itself before `store`, and returns the means to give it orders.
    ///
    /// If the store is no file, the views that apps keep on it are in memory, and a crash leaves none of them: they begin
    /// anew, and the crashed app has to be ended and dropped before the next one is started.
    pub fn new(store: S) -> (Self, Faults) {
        let views = store.views_beside();
        Self::before_any(Arc::new(store), views)
    }

    /// The same with the views in the file at `path`, whatever the store is. A crash leaves them in a file beside that, so give it
    /// a directory that is removed after the test.
    pub fn with_views(store: S, path: impl Into<PathBuf>) -> (Self, Faults) {
        Self::before_any(Arc::new(store), Some(path.into()))
    }

    fn before_any(store: Arc<S>, views: Option<PathBuf>) -> (Self, Faults) {
        let faults = Faults::of(Arc::clone(&store) as _, views);
        (Self { store, faults: faults.clone() }, faults)
    }
}

impl Faulty<dyn EventStore> {
    pub(super) fn before(store: Arc<dyn EventStore>, views: Option<PathBuf>) -> (Self, Faults) {
        let faults = Faults::of(Arc::clone(&store), views);
        (Self { store, faults: faults.clone() }, faults)
    }
}

impl Faults {
    fn of(store: Arc<dyn EventStore>, views: Option<PathBuf>) -> Self {
        let (crashes, crashed) = (AtomicBool::new(false), OnceLock::new());
        let (state, opened) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { store, views, crashes, crashed, state, opened }) }
    }

    /// Lets the process crash now, as far as the log and the views beside it can tell.
    ///
    /// The log is cut off first, then the views are kept: as after a real crash, they may be behind the log and are never ahead of
    /// it. A second crash is none.
    pub fn crash(&self) {
        self.shared.crashes.store(true, Ordering::SeqCst);
        self.shared.crashed.get_or_init(|| match &self.shared.views {
            None => Ok(None),
            Some(views) => keep_views(views).map(Some),
        });
    }

    /// Whether the process has crashed. What a handler is about to do outside would not happen then, and what the app answers
    /// nobody would hear. While it crashes, this waits for its end: what was done or answered before is kept, what comes after is
    /// not.
    pub fn has_crashed(&self) -> bool {
        if !self.shared.crashes.load(Ordering::SeqCst) {
            return false;
        }
        self.shared.crashed.wait();
        true
    }

    /// Opens what outlived a crash, or an orderly end, for the next app: the same log, and the views as they were. Orders and gates
    /// are not taken over.
    ///
    /// # Panics
    /// If the file of the views could not be copied when the process crashed.
    ///
    /// # Examples
    #[cfg_attr(all(feature = "macros", feature = "sqlite"), doc = "```")]
    #[cfg_attr(not(all(feature = "macros", feature = "sqlite")), doc = "```ignore")]
    /// use std::time::Duration;
    /// use serde::{Deserialize, Serialize};
    /// use tidings::testing::{Fault, Faulty, Operation};
    /// use tidings::{App, Command, CommandId, Event, Memory, aggregate};
    ///
    /// #[derive(Event, Serialize, Deserialize)]
    /// #[event(name = "till.sold", version = 1)]
    /// struct Sold { cents: i64 }
    ///
    /// #[derive(Command, Clone)]
    /// struct Sell { cents: i64 }
    ///
    /// #[derive(Default)]
    /// struct Till;
    ///
    /// #[aggregate(category = "till", events = TillEvent, error = std::convert::Infallible)]
    /// impl Till {
    ///     #[command]
    ///     fn sell(&self, Sell { cents }: Sell) -> Sold { Sold { cents } }
    ///     #[apply]
    ///     fn sold(&mut self, _: &Sold) {}
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (store, faults) = Faulty::new(Memory::new());
    /// let app = App::builder().store(store).aggregate::<Till>().start().await?;
    /// faults.fail(Operation::Commit, 1, Fault::CrashAfterwards);
    /// let id = CommandId::fresh();
    /// assert!(app.send("1", Sell { cents: 250 }).command_id(id).await.is_err());
    /// // It has crashed, and cannot end in order.
    /// app.shutdown_within(Duration::ZERO).await.ok();
    ///
    /// let (store, _) = faults.restart();
    /// let app = App::builder().store(store).aggregate::<Till>().start().await?;
    /// let receipt = app.send("1", Sell { cents: 250 }).command_id(id).await?;
    /// assert_eq!(receipt.position.as_u64(), 1, "it was sold before, and is not sold twice");
    /// # app.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn restart(&self) -> (Faulty<dyn EventStore>, Faults) {
        let views = match self.shared.crashed.get() {
            None => self.shared.views.clone(),
            Some(Ok(views)) => views.clone(),
            #[expect(clippy::panic, reason = "this is how a test fails, and documented")]
            Some(Err(error)) => panic!("the views could not be kept over the crash: {error}"),
        };
        Faulty::before(Arc::clone(&self.shared.store), views)
    }

    /// Lets the `nth` next `operation` fail, once; 1 is the next one. One that is held counts as yet to come.
    ///
    /// [`Operation::Commit`] counts groups: all commits of a group fail together.
    pub fn fail(&self, operation: Operation, nth: u64, fault: Fault) {
        let mut state = self.shared.state.lock();
        state.orders.push(Order { operation, left: nth.max(1), fault });
    }

    /// Lets each `operation` fail until [`recover`](Self::recover) is called.
    pub fn fail_all(&self, operation: Operation, fault: Fault) {
        let mut state = self.shared.state.lock();
        state.always.retain(|(failing, _)| *failing != operation);
        state.always.push((operation, fault));
    }

    /// Takes back all orders to fail. A crash cannot be taken back.
    pub fn recover(&self) {
        let mut state = self.shared.state.lock();
        state.always.clear();
        state.orders.clear();
    }

    /// Holds each `operation` from now on, until the gate is dropped.
    pub fn hold(&self, operation: Operation) -> Gate {
        self.gate(operation, None)
    }

    /// Holds each reading of `stream` from now on, until the gate is dropped; other streams can be read.
    pub fn hold_stream(&self, stream: StreamId) -> Gate {
        self.gate(Operation::ReadStream, Some(stream))
    }

    fn gate(&self, operation: Operation, stream: Option<StreamId>) -> Gate {
        let mut state = self.shared.state.lock();
        let number = state.next_gate;
        state.next_gate += 1;
        let (arrivals, arrived) = watch::channel(0);
        state.gates.push(Held { number, operation, stream, arrived: arrivals, passes: 0 });
        Gate { shared: Arc::clone(&self.shared), number, arrived }
    }

    /// How many times the store was asked for `operation`, including those that were held or failed.
    pub fn count(&self, operation: Operation) -> u64 {
        *self.shared.state.lock().count(operation)
    }

    /// How many commits stood in the groups that the store was asked to commit.
    pub fn commits(&self) -> u64 {
        self.shared.state.lock().commits
    }

    /// Counts the operation, waits at its gates, and says how it is to fail.
    fn enter(&self, operation: Operation, stream: Option<&StreamId>) -> Option<Fault> {
        let mut state = self.shared.state.lock();
        *state.count(operation) += 1;
        let mut announced = Vec::new();
        loop {
            let closed = state
                .gates
                .iter_mut()
                .find(|gate| gate.holds(operation, stream) && gate.passes == 0);
            let Some(gate) = closed else { break };
            if !announced.contains(&gate.number) {
                announced.push(gate.number);
                gate.arrived.send_modify(|arrived| *arrived += 1);
            }
            self.shared.opened.wait(&mut state);
        }
        for gate in &mut state.gates {
            if gate.holds(operation, stream) {
                gate.passes = gate.passes.saturating_sub(1);
            }
        }
        let mut due = None;
        state.orders.retain_mut(|order| {
            if order.operation == operation {
                order.left -= 1;
            }
            if order.left == 0 {
                due = due.or(Some(order.fault));
            }
            order.left > 0
        });
        if due.is_some() {
            return due;
        }
        let always = state.always.iter().find(|(failing, _)| *failing == operation);
        always.map(|(_, fault)| *fault)
    }
}

impl Gate {
    /// Waits until so many operations have come to the gate since it was closed, counting those that were let through.
    ///
    /// # Cancel safety
    /// Waiting changes nothing; it can be dropped at any time.
    pub async fn reached(&mut self, operations: u64) {
        // The gate lives as long as this does, so there is always a sender.
        let _ = self.arrived.wait_for(|arrived| *arrived >= operations).await;
    }

    /// How many operations have come to the gate since it was closed.
    pub fn arrived(&self) -> u64 {
        *self.arrived.borrow()
    }

    /// Lets `operations` pass, and holds those after them.
    pub fn let_through(&self, operations: u64) {
        let mut state = self.shared.state.lock();
        for gate in &mut state.gates {
            if gate.number == self.number {
                gate.passes += operations;
            }
        }
        drop(state);
        self.shared.opened.notify_all();
    }

    /// Opens the gate.
    pub fn open(self) {}
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.gates.retain(|gate| gate.number != self.number);
        drop(state);
        self.shared.opened.notify_all();
    }
}

impl Fault {
    fn error(self) -> StoreError {
        let place = String::from("the faulty store");
        let source = "it was told to fail".into();
        match self {
            Self::Full => StoreError::Full { place, source },
            Self::ReadOnly => StoreError::ReadOnly { place, source },
            Self::Failed | Self::FailedAfterwards => StoreError::Failed { place, source },
            Self::Crash | Self::CrashAfterwards => {
                StoreError::Failed { place, source: "the process has crashed".into() }
            }
        }
    }
}

/// Copies the views as they are committed to a file beside theirs, and returns its path.
pub(in crate::testing) fn keep_views(
    views: &Path,
) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    let kept = (1_u32..)
        .map(|crash| views.with_extension(format!("crash-{crash}.db")))
        .find(|path| !path.exists())
        .ok_or("there is no free name for a copy")?;
    #[cfg(feature = "sqlite")]
    if views.exists() {
        use rusqlite::{Connection, OpenFlags};
        let connection = Connection::open_with_flags(views, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        // The copy has to survive the end of a test, not a power cut.
        connection.execute_batch("PRAGMA synchronous = OFF")?;
        let path = kept.to_str().ok_or("the path of the views is not UTF-8")?;
        connection.execute("VACUUM INTO ?1", [path])?;
    }
    Ok(kept)
}

impl<S: EventStore + ?Sized> Faulty<S> {
    fn obey<T>(
        &self,
        operation: Operation,
        stream: Option<&StreamId>,
        work: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let fault = self.faults.enter(operation, stream);
        self.lives()?;
        let Some(fault) = fault else {
            return work();
        };
        let done = match fault {
            Fault::FailedAfterwards | Fault::CrashAfterwards => work().map(drop),
            _ => Ok(()),
        };
        if matches!(fault, Fault::Crash | Fault::CrashAfterwards) {
            self.faults.crash();
        }
        done.and(Err(fault.error()))
    }

    fn lives(&self) -> Result<(), StoreError> {
        let crashes = self.faults.shared.crashes.load(Ordering::SeqCst);
        if crashes { Err(Fault::Crash.error()) } else { Ok(()) }
    }
}

impl<S: EventStore + ?Sized> EventStore for Faulty<S> {
    fn commit(&self, group: &mut [Commit]) -> Result<Vec<Result<Committed, Refused>>, StoreError> {
        self.faults.shared.state.lock().commits += group.len() as u64;
        self.obey(Operation::Commit, None, || self.store.commit(group))
    }

    fn head(&self) -> Result<Position, StoreError> {
        self.lives()?;
        self.store.head()
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        each: &mut dyn FnMut(Recorded) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.obey(Operation::ReadStream, Some(stream), || {
            self.store.read_stream(stream, after, each)
        })
    }

    fn read_log(&self, after: Position, filter: &Filter, limit: usize) -> Result<Page, StoreError> {
        self.obey(Operation::ReadLog, None, || self.store.read_log(after, filter, limit))
    }

    fn find_command(&self, id: CommandId) -> Result<Option<KnownCommand>, StoreError> {
        self.obey(Operation::FindCommand, None, || self.store.find_command(id))
    }

    fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        self.obey(Operation::LoadSnapshot, Some(stream), || self.store.load_snapshot(stream))
    }

    fn save_snapshots(&self, snapshots: Vec<Snapshot>) -> Result<(), StoreError> {
        self.obey(Operation::SaveSnapshots, None, || self.store.save_snapshots(snapshots))
    }

    fn delete_snapshots(&self) -> Result<(), StoreError> {
        self.lives()?;
        self.store.delete_snapshots()
    }

    fn durability(&self) -> Durability {
        self.store.durability()
    }

    fn log_id(&self) -> Uuid {
        self.store.log_id()
    }

    fn views_beside(&self) -> Option<PathBuf> {
        self.faults.shared.views.clone()
    }

    fn keys_beside(&self) -> Option<PathBuf> {
        self.store.keys_beside()
    }
}

impl<S: ?Sized> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("faults", &self.faults).finish_non_exhaustive()
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("Faults")
            .field("gates", &state.gates.len())
            .field("orders", &(state.orders.len() + state.always.len()))
            .field("crashed", &self.shared.crashed.get().is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("arrived", &self.arrived()).finish_non_exhaustive()
    }
}
