//! Where subscribers run: an actix arbiter and a current-thread tokio runtime, each on a thread of its own.

use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use actix::{Arbiter, ArbiterHandle, System};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Two places for subscribers beside the main thread. Nothing wakes the threads of the seat that a case does not use.
pub(crate) struct Seats {
    pub(crate) first: Seat,
    pub(crate) second: Seat,
    system: System,
    threads: Vec<JoinHandle<()>>,
}

/// One place for subscribers: all async ones share it.
pub(crate) struct Seat {
    pub(crate) arbiter: ArbiterHandle,
    pub(crate) runtime: Handle,
    /// Ends the runtime's thread when it is dropped.
    _until: oneshot::Sender<()>,
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Seats {
    /// Starts the threads, and makes the actix system known to this one: actix-broker asks for it when it publishes. The
    /// system's own arbiter is the first seat, because the broker always runs there.
    pub(crate) fn new() -> Self {
        let (started, ready) = mpsc::channel();
        let system = thread::spawn(move || {
            let runner = System::new();
            started.send(System::current()).expect("the seats wait");
            runner.run().expect("the system ended in order");
        });
        let current = ready.recv().expect("the system starts");
        System::set_current(current.clone());
        let second = Arbiter::new();
        let (first_seat, first_thread) = Seat::new(current.arbiter().clone());
        let (second_seat, second_thread) = Seat::new(second.handle());
        let arbiter = thread::spawn(move || second.join().expect("the arbiter ended in order"));
        Self {
            first: first_seat,
            second: second_seat,
            system: current,
            threads: vec![system, arbiter, first_thread, second_thread],
        }
    }

    /// Waits until nothing of a run is left.
    ///
    /// # Panics
    /// If a subscriber has.
    pub(crate) fn settle(&self) {
        self.first.settle();
        self.second.settle();
    }

    /// Ends the threads.
    pub(crate) fn close(self) {
        let Self { first, second, system, threads } = self;
        second.arbiter.stop();
        system.stop();
        drop((first, second));
        for thread in threads {
            thread.join().expect("a seat ended in order");
        }
    }
}

impl Seat {
    fn new(arbiter: ArbiterHandle) -> (Self, JoinHandle<()>) {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        let (until, closed) = oneshot::channel();
        // The sender is never used: it is dropped.
        let thread = thread::spawn(move || drop(runtime.block_on(closed)));
        let (tasks, threads) = (Mutex::default(), Mutex::default());
        (Self { arbiter, runtime: handle, _until: until, tasks, threads }, thread)
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.runtime.spawn(task);
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    pub(crate) fn thread(&self, body: impl FnOnce() + Send + 'static) {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread::spawn(body));
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
