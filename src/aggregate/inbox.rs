//! The inbox of a shard: a bounded queue that keeps the order in which commands were sent.
//!
//! A sender that finds it full leaves its command in a place of the waiting line. The shard takes the commands of the line
//! in their order as soon as it has room; nobody has to be woken for that, since the sender waits for its answer anyway.
//! (Tokio's channel wakes a waiting sender and lets it send, and meanwhile a later command may take the free room.)
//!
//! # Bounds
//! The queue holds at most its capacity. A command in the line belongs to its sender, who is waiting, and leaves the line
//! when the sender goes away.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Makes an inbox that holds `capacity` commands.
pub(crate) fn inbox<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = State {
        queue: VecDeque::new(),
        line: VecDeque::new(),
        asleep: None,
        #[cfg(feature = "testing")]
        onlookers: Vec::new(),
        closed: false,
    };
    let shared = Arc::new(Shared { capacity: capacity.max(1), state: Mutex::new(state) });
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

struct Shared<T> {
    capacity: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    queue: VecDeque<T>,
    line: VecDeque<Arc<Mutex<Option<T>>>>,
    /// The shard, if it sleeps because the queue is empty.
    asleep: Option<Waker>,
    /// Who wants to know when it sleeps.
    #[cfg(feature = "testing")]
    onlookers: Vec<Waker>,
    closed: bool,
}

/// The side of those who send.
pub(crate) struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// The side of the shard. Dropping it closes the inbox and drops what it holds.
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

/// What became of a command.
pub(crate) enum Sent<T> {
    /// It is in the queue.
    Queued,
    /// The queue is full: it waits in line as long as its place is kept.
    InLine(Place<T>),
    /// Nobody takes commands any more.
    Closed,
}

/// A place in the line. Dropping it takes the command back, unless the shard has it already.
pub(crate) struct Place<T> {
    place: Arc<Mutex<Option<T>>>,
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        let withdrawn = self.place.lock().take();
        drop(withdrawn);
    }
}

impl<T> Sender<T> {
    /// Puts `value` behind everything that was sent before it.
    pub(crate) fn send(&self, value: T) -> Sent<T> {
        let mut state = self.shared.state.lock();
        if state.closed {
            return Sent::Closed;
        }
        if state.queue.len() >= self.shared.capacity || !state.line.is_empty() {
            // Places that were given up are cleared away before the line takes more memory.
            if state.line.len() == state.line.capacity() {
                state.line.retain(|place| place.lock().is_some());
            }
            let place = Arc::new(Mutex::new(Some(value)));
            state.line.push_back(Arc::clone(&place));
            return Sent::InLine(Place { place });
        }
        state.queue.push_back(value);
        let asleep = state.asleep.take();
        drop(state);
        if let Some(shard) = asleep {
            shard.wake();
        }
        Sent::Queued
    }
}

#[cfg(feature = "testing")]
impl<T: Send + 'static> Sender<T> {
    /// What waits until the shard sleeps in front of an empty inbox while `is_idle` holds of it, or takes no more commands.
    ///
    /// The shard shows that it is idle before it sleeps, so that nothing slips through between the two.
    pub(crate) fn rest(&self, is_idle: impl Fn() -> bool + Send + Sync + 'static) -> Rest {
        let shared = Arc::clone(&self.shared);
        Box::new(move |cx| {
            let mut state = shared.state.lock();
            let empty = state.queue.is_empty() && state.line.is_empty();
            if state.closed || (empty && state.asleep.is_some() && is_idle()) {
                return Poll::Ready(());
            }
            state.onlookers.push(cx.waker().clone());
            Poll::Pending
        })
    }
}

/// Polls whether a shard has come to rest.
#[cfg(feature = "testing")]
pub(crate) type Rest = Box<dyn Fn(&mut Context<'_>) -> Poll<()> + Send + Sync>;

impl<T> Receiver<T> {
    /// Takes up to `limit` commands and returns how many; zero if the inbox is closed and empty.
    ///
    /// # Cancel safety
    /// Nothing is taken before it is ready.
    pub(crate) async fn receive(&mut self, into: &mut Vec<T>, limit: usize) -> usize {
        poll_fn(|cx| self.poll_receive(cx, into, limit)).await
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<T>,
        limit: usize,
    ) -> Poll<usize> {
        let mut state = self.shared.state.lock();
        let taken = state.queue.len().min(limit);
        into.extend(state.queue.drain(..taken));
        while state.queue.len() < self.shared.capacity
            && let Some(place) = state.line.pop_front()
        {
            let value = place.lock().take();
            state.queue.extend(value);
        }
        if taken == 0 && !state.closed {
            state.asleep = Some(cx.waker().clone());
            #[cfg(feature = "testing")]
            state.onlookers.drain(..).for_each(Waker::wake);
            return Poll::Pending;
        }
        Poll::Ready(taken)
    }

    /// Refuses what comes from now on, and whoever stands in line; what is in the queue can still be received.
    pub(crate) fn close(&mut self) {
        let line = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            #[cfg(feature = "testing")]
            state.onlookers.drain(..).for_each(Waker::wake);
            std::mem::take(&mut state.line)
        };
        for place in line {
            let refused = place.lock().take();
            drop(refused);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.shared.state.lock().closed
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
        let queue = std::mem::take(&mut self.shared.state.lock().queue);
        drop(queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(receiver: &mut Receiver<u32>, limit: usize) -> Option<Vec<u32>> {
        let mut into = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        match receiver.poll_receive(&mut cx, &mut into, limit) {
            Poll::Ready(_) => Some(into),
            Poll::Pending => None,
        }
    }

    #[test]
    fn commands_that_wait_for_room_keep_their_order() {
        let (sender, mut receiver) = inbox(2);
        let sent: Vec<_> = (0..7).map(|number| sender.send(number)).collect();
        assert_eq!(receive(&mut receiver, 1), Some(vec![0]));
        // There is room, and a line: a new one must not overtake it.
        let last = sender.send(7);
        assert!(matches!(last, Sent::InLine(_)));
        let mut received = Vec::new();
        while let Some(some) = receive(&mut receiver, 2) {
            received.extend(some);
        }
        assert_eq!(received, [1, 2, 3, 4, 5, 6, 7]);
        drop(sent);
    }

    #[test]
    fn a_sender_that_goes_away_takes_its_command_with_it() {
        let (sender, mut receiver) = inbox(1);
        let _queued = sender.send(0);
        drop(sender.send(1));
        let _waiting = sender.send(2);
        assert_eq!(receive(&mut receiver, 9), Some(vec![0]));
        assert_eq!(receive(&mut receiver, 9), Some(vec![2]));
        assert_eq!(receive(&mut receiver, 9), None);
    }

    #[test]
    fn places_that_were_given_up_take_no_memory() {
        let (sender, _receiver) = inbox(1);
        let _queued = sender.send(0);
        for number in 0..100_000 {
            drop(sender.send(number));
        }
        assert!(sender.shared.state.lock().line.capacity() < 100);
    }

    #[test]
    fn a_closed_inbox_hands_out_its_queue_and_refuses_the_rest() {
        let (sender, mut receiver) = inbox(1);
        let _queued = sender.send(0);
        let _waiting = sender.send(1);
        receiver.close();
        assert!(matches!(sender.send(2), Sent::Closed));
        assert_eq!(receive(&mut receiver, 9), Some(vec![0]));
        assert_eq!(receive(&mut receiver, 9), Some(vec![]));
    }
}
