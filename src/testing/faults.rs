//! A store that fails, and waits, when it is told to.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use uuid::Uuid;

use crate::codec::Codec;
use crate::event::Recorded;
use crate::id::CommandId;
use crate::store::{
    Commit, Committed, Durability, EventStore, Filter, KnownCommand, Page, Refused, StoreError,
};
use crate::stream::{Position, StreamId, Version};

/// A store around another one that fails, and waits, when its [`Faults`] say so.
///
/// It proves what a program does when the disk is full, when an answer is lost on its way, and when two things happen in the
/// one order that goes wrong. Without orders it does what the store within does.
///
/// # Waiting
/// An operation that is held blocks the thread that it runs on, as a slow disk does. An app can only be shut down once its
/// operations go on; dropping the [`Gate`] sees to that.
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
/// ```
pub struct Faulty<S> {
    store: S,
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
}

/// An operation that is held; it goes on when this is dropped.
#[must_use = "the gate opens when this is dropped"]
pub struct Gate {
    shared: Arc<Shared>,
    number: u64,
    arrived: watch::Receiver<u64>,
}

#[derive(Default)]
struct Shared {
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
    pub fn new(store: S) -> (Self, Faults) {
        let faults = Faults { shared: Arc::default() };
        let faulty = Self { store, faults: faults.clone() };
        (faulty, faults)
    }
}

impl Faults {
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

    /// Takes back all orders to fail.
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
        }
    }
}

impl<S: EventStore> Faulty<S> {
    fn obey<T>(
        &self,
        operation: Operation,
        stream: Option<&StreamId>,
        work: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self.faults.enter(operation, stream) {
            None => work(),
            Some(fault @ Fault::FailedAfterwards) => work().and(Err(fault.error())),
            Some(fault) => Err(fault.error()),
        }
    }
}

impl<S: EventStore> EventStore for Faulty<S> {
    fn commit(&self, group: &mut [Commit]) -> Result<Vec<Result<Committed, Refused>>, StoreError> {
        self.faults.shared.state.lock().commits += group.len() as u64;
        self.obey(Operation::Commit, None, || self.store.commit(group))
    }

    fn head(&self) -> Result<Position, StoreError> {
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

    fn durability(&self) -> Durability {
        self.store.durability()
    }

    fn log_id(&self) -> Uuid {
        self.store.log_id()
    }

    fn views_beside(&self) -> Option<PathBuf> {
        self.store.views_beside()
    }

    fn codec(&self) -> Codec {
        self.store.codec()
    }
}

impl<S: fmt::Debug> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("store", &self.store).field("faults", &self.faults).finish()
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("Faults")
            .field("gates", &state.gates.len())
            .field("orders", &(state.orders.len() + state.always.len()))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("arrived", &self.arrived()).finish_non_exhaustive()
    }
}
