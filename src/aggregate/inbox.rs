//! A shard's inbox: bounded, and first come, first served.
//!
//! ```text
//! put ─▶ [ waiting, in order: as many as there are senders ] ─▶ [ inside: `capacity` at most ] ─▶ take
//! ```
//!
//! A command that finds no room waits outside and belongs to its sender: dropping the sender's [`Waiting`] takes it back. The
//! shard lets it in when there is room, without the sender's help. So a sender that is not polled holds up nobody, and no
//! command overtakes one that came before it.
//!
//! A channel with permits was tried and does neither: it hands free room to senders that may not be polled for long, and one that
//! comes just then passes those who have room but have not used it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The inbox, shared by its senders and its one reader.
pub(crate) struct Inbox<T> {
    capacity: usize,
    state: Mutex<State<T>>,
    arrived: Notify,
}

struct State<T> {
    inside: VecDeque<T>,
    /// By the number of their arrival.
    waiting: BTreeMap<u64, T>,
    next: u64,
    closed: bool,
}

impl<T> State<T> {
    fn let_in(&mut self, capacity: usize) {
        while self.inside.len() < capacity
            && let Some((_, item)) = self.waiting.pop_first()
        {
            self.inside.push_back(item);
        }
    }
}

/// A place outside of an inbox that was full. Dropping it takes the item back, unless it has been let in.
pub(crate) struct Waiting<T> {
    inbox: Arc<Inbox<T>>,
    number: u64,
}

impl<T> Waiting<T> {
    /// Whether it is still outside.
    pub(crate) fn is_outside(&self) -> bool {
        self.inbox.state.lock().waiting.contains_key(&self.number)
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        let item = self.inbox.state.lock().waiting.remove(&self.number);
        // Without the lock: it may be the user's code that drops it.
        drop(item);
    }
}

impl<T> Inbox<T> {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            state: Mutex::new(State {
                inside: VecDeque::new(),
                waiting: BTreeMap::new(),
                next: 0,
                closed: false,
            }),
            arrived: Notify::new(),
        })
    }

    /// Puts `item` behind all that came before it: inside, or outside if there is no room. Gives it back if the inbox is closed.
    pub(crate) fn put(self: &Arc<Self>, item: T) -> Result<Option<Waiting<T>>, T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        // Nobody is outside while there is room.
        if state.inside.len() < self.capacity {
            state.inside.push_back(item);
            let first = state.inside.len() == 1;
            drop(state);
            if first {
                self.arrived.notify_one();
            }
            return Ok(None);
        }
        let number = state.next;
        state.next += 1;
        state.waiting.insert(number, item);
        drop(state);
        Ok(Some(Waiting {
            inbox: Arc::clone(self),
            number,
        }))
    }

    /// Waits for items and moves at most `max` of them to `taken`, in order. Returns how many; zero when the inbox is closed
    /// and empty.
    ///
    /// # Cancel safety
    /// Dropped before it returns, it has taken nothing.
    pub(crate) async fn take(&self, taken: &mut Vec<T>, max: usize) -> usize {
        loop {
            {
                let mut state = self.state.lock();
                let count = state.inside.len().min(max);
                if count > 0 || state.closed {
                    taken.extend(state.inside.drain(..count));
                    state.let_in(self.capacity);
                    return count;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Lets nothing in any more; what is outside is dropped.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
        self.arrived.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}

/// The reader's end: the inbox is closed, and what is in it dropped, when this is.
pub(crate) struct Reader<T>(pub(crate) Arc<Inbox<T>>);

impl<T> std::ops::Deref for Reader<T> {
    type Target = Inbox<T>;

    fn deref(&self) -> &Inbox<T> {
        &self.0
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.0.close();
        let inside = std::mem::take(&mut self.0.state.lock().inside);
        drop(inside);
    }
}
