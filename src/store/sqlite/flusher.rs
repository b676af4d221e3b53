//! The thread that brings the tail into the index.
//!
//! ```text
//!  commit ── a generation is full: freeze, wake ──▶ flusher ── one transaction in the index file ──▶ retire
//!    ▲                                                 │
//!    └── waits only if the next one is full, too ◀─────┘
//! ```
//! While it works it holds no lock that a commit or a reader wants. What it fails to write stays in memory and is
//! tried again; when there is no room for more, commits get the error.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::Shared;
use super::file::failed;
use super::index::IndexWriter;
use crate::store::StoreError;

/// What the flusher and the committing thread tell each other.
#[derive(Default)]
pub(super) struct Signals {
    state: Mutex<State>,
    wake: Condvar,
    done: Condvar,
}

#[derive(Default)]
struct State {
    is_wanted: bool,
    is_closing: bool,
    /// How many attempts have ended.
    attempts: u64,
    failure: Option<StoreError>,
}

impl Signals {
    pub(super) fn want(&self) {
        self.state.lock().is_wanted = true;
        self.wake.notify_one();
    }

    fn close(&self) {
        self.state.lock().is_closing = true;
        self.wake.notify_one();
    }

    /// Waits until an attempt that begins after this call has ended.
    ///
    /// # Errors
    /// Why it failed.
    pub(super) fn attempt(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let before = state.attempts;
        state.failure = None;
        state.is_wanted = true;
        self.wake.notify_one();
        while state.attempts == before {
            self.done.wait(&mut state);
        }
        state.failure.take().map_or(Ok(()), Err)
    }

    /// Waits for work; false when there will be none any more.
    fn next(&self) -> bool {
        let mut state = self.state.lock();
        while !state.is_wanted && !state.is_closing {
            self.wake.wait(&mut state);
        }
        std::mem::take(&mut state.is_wanted)
    }

    fn ended(&self, result: Result<(), StoreError>) {
        let mut state = self.state.lock();
        state.attempts += 1;
        state.failure = result.err();
        self.done.notify_all();
    }
}

/// The running thread; dropping it flushes what is left and joins it.
pub(super) struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start(shared: Arc<Shared>, index: IndexWriter) -> std::io::Result<Self> {
        let thread = std::thread::Builder::new().name("tidings-index".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || run(&shared, index)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.signals.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(index = %self.shared.files.index.display(), "the index thread panicked");
        }
    }
}

fn run(shared: &Shared, mut index: IndexWriter) {
    let mut is_failing = false;
    while shared.signals.next() {
        let result = flush(shared, &mut index);
        match &result {
            Err(error) if !is_failing => tracing::warn!(
                error = error as &dyn std::error::Error,
                "the index cannot be written; what it lacks is kept in memory and tried again"
            ),
            Ok(()) if is_failing => tracing::info!("the index is written again"),
            _ => {}
        }
        is_failing = result.is_err();
        shared.signals.ended(result);
    }
    // The rest goes to the index as well, so that the next one to open the log need not read it again. If this fails
    // it will do just that.
    for _ in 0..2 {
        shared.tail.write().freeze();
        if flush(shared, &mut index).is_err() {
            break;
        }
    }
}

fn flush(shared: &Shared, index: &mut IndexWriter) -> Result<(), StoreError> {
    let generation = shared.tail.read().flushing.clone();
    let Some(generation) = generation else {
        return Ok(());
    };
    index.flush(&generation).map_err(|error| failed(&shared.files.index, error))?;
    drop(generation);
    let dropped = shared.tail.write().retire();
    // Outside the lock: freeing a hundred thousand entries takes milliseconds.
    drop(dropped);
    Ok(())
}
