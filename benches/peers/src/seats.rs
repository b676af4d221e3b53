//! Where subscribers run: on the thread of an actix arbiter, which is a current-thread tokio runtime.

use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use actix::{Arbiter, ArbiterHandle, System};
use core_affinity::CoreId;
use tokio::runtime::Handle;

/// Places for subscribers beside the publisher's thread. Nothing wakes the thread of a seat that a case does not use.
pub(crate) struct Seats {
    /// Where subscribers run.
    pub(crate) first: Seat,
    /// Two seats on a core each: two threads that wait for each other would share one in some runs and not in others.
    pub(crate) apart: [Seat; 2],
    system: System,
    threads: Vec<JoinHandle<()>>,
}

/// One place for subscribers: all async ones share it.
pub(crate) struct Seat {
    pub(crate) arbiter: ArbiterHandle,
    pub(crate) runtime: Handle,
    core: Option<CoreId>,
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Seats {
    /// Starts the threads, and makes the actix system known to this one: actix-broker asks for it when it publishes. The
    /// system's own arbiter is the first seat, because the broker always runs there.
    pub(crate) fn new() -> Self {
        let (started, ready) = mpsc::channel();
        let runner = thread::spawn(move || {
            let runner = System::new();
            started.send(System::current()).expect("the seats wait");
            runner.run().expect("the system ended in order");
        });
        let system = ready.recv().expect("the system starts");
        System::set_current(system.clone());
        let mut threads = vec![runner];
        let first = Seat::new(system.arbiter().clone(), None);
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let apart = [cores.first(), cores.get(1)].map(|core| {
            let arbiter = Arbiter::new();
            let seat = Seat::new(arbiter.handle(), core.copied());
            threads.push(thread::spawn(move || arbiter.join().expect("it ended in order")));
            seat
        });
        Self { first, apart, system, threads }
    }

    /// Runs a case, whose publisher is the thread that `case` is called on, and waits until nothing of it is left.
    ///
    /// The thread is a new one: what the scheduler holds against it for spinning and yielding falls on no other case.
    pub(crate) fn publisher<T: Send>(&self, case: impl FnOnce() -> T + Send) -> T {
        let outcome = thread::scope(|scope| {
            let publisher = scope.spawn(|| {
                System::set_current(self.system.clone());
                case()
            });
            publisher.join().expect("the publisher panicked")
        });
        self.settle();
        outcome
    }

    /// Waits until nothing of a run is left.
    ///
    /// # Panics
    /// If a subscriber has.
    fn settle(&self) {
        self.first.settle();
        self.apart.iter().for_each(Seat::settle);
    }

    /// Ends the threads.
    pub(crate) fn close(self) {
        let Self { apart, system, threads, .. } = self;
        for seat in &apart {
            seat.arbiter.stop();
        }
        system.stop();
        for thread in threads {
            thread.join().expect("a seat ended in order");
        }
    }
}

impl Seat {
    fn new(arbiter: ArbiterHandle, core: Option<CoreId>) -> Self {
        let (started, ready) = mpsc::channel();
        arbiter.spawn_fn(move || {
            stay_on(core);
            started.send(Handle::current()).expect("the seat waits");
        });
        let runtime = ready.recv().expect("the arbiter runs");
        Self { arbiter, runtime, core, tasks: Mutex::default(), threads: Mutex::default() }
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.runtime.spawn(task);
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    pub(crate) fn thread(&self, body: impl FnOnce() + Send + 'static) {
        let core = self.core;
        let thread = thread::spawn(move || {
            stay_on(core);
            body();
        });
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    fn settle(&self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            self.runtime.block_on(task).expect("a subscriber panicked");
        }
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            thread.join().expect("a subscriber panicked");
        }
        // Actors that have stopped are dropped before the arbiter comes to this.
        let (done, settled) = mpsc::channel();
        self.arbiter.spawn_fn(move || done.send(()).expect("the seat waits"));
        settled.recv().expect("the arbiter runs");
    }
}

/// Keeps the thread on the core, if there is one and the system allows it.
fn stay_on(core: Option<CoreId>) {
    if let Some(core) = core {
        core_affinity::set_for_current(core);
    }
}
