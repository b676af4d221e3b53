//! Subscriptions that want the newest event of each key only.
//!
//! While such a reader keeps up it reads the ring like any other. What is about to leave the window before it came there is
//! folded into a map by the publisher that needs the room, so that nothing newest is lost; the reader takes the map and the
//! rest of the ring together. So it holds one event for each key, and nobody waits for it.

use std::hash::Hash;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::ring::{Cursor, Item, Overrun};
use super::sync::{Mutex, MutexGuard};
use crate::actor::Panic;

/// Keeps the newest events of a slow reader.
pub(super) trait Keep<T: Item>: Overrun<T> {
    /// The newest event of each key, in the order in which they were published, each with its depth. The cursor goes behind
    /// all that was looked at.
    ///
    /// # Errors
    /// The key function, or the clone of an event, panicked.
    fn collect(&self, cursor: &mut Cursor<T>) -> Result<(Vec<T>, Vec<u8>), Panic>;

    /// Leaves, of events from the log, only the newest of each key.
    ///
    /// # Errors
    /// The key function panicked.
    fn reduce(&self, events: &mut Vec<T>) -> Result<(), Panic>;
}

/// By a key that a function reads off the event.
pub(super) struct LatestBy<T, K, F> {
    key: F,
    kept: Mutex<Kept<T, K>>,
}

struct Kept<T, K> {
    /// Everything before this sequence is in `newest`, was delivered, or came before the reader.
    next: u64,
    newest: HashMap<K, Newest<T>>,
    panicked: Option<Panic>,
}

struct Newest<T> {
    sequence: u64,
    event: T,
    depth: u8,
}

impl<T, K, F> LatestBy<T, K, F>
where
    T: Item + Clone,
    K: Hash + Eq + Send + 'static,
    F: Fn(&T) -> K + Send + Sync + 'static,
{
    pub(super) fn new(key: F) -> Arc<Self> {
        Arc::new(Self {
            key,
            kept: Mutex::new(Kept { next: 0, newest: HashMap::new(), panicked: None }),
        })
    }

    fn fold(&self, kept: &mut MutexGuard<'_, Kept<T, K>>, sequence: u64, events: &[T], depth: u8) {
        let done = usize::try_from(kept.next.saturating_sub(sequence)).unwrap_or(usize::MAX);
        let folded = Panic::catch(|| {
            for (index, event) in events.iter().enumerate().skip(done) {
                let sequence = sequence + index as u64;
                let newest = Newest { sequence, event: event.clone(), depth };
                kept.newest.insert((self.key)(event), newest);
            }
        });
        kept.next = kept.next.max(sequence + events.len() as u64);
        if let Err(panic) = folded {
            kept.panicked.get_or_insert(panic);
        }
    }
}

impl<T, K, F> Overrun<T> for LatestBy<T, K, F>
where
    T: Item + Clone,
    K: Hash + Eq + Send + 'static,
    F: Fn(&T) -> K + Send + Sync + 'static,
{
    fn begin(&self, sequence: u64) {
        self.kept.lock().next = sequence;
    }

    fn overrun(&self, sequence: u64, events: &[T], depth: u8) {
        let mut kept = self.kept.lock();
        if kept.next < sequence + events.len() as u64 && kept.panicked.is_none() {
            self.fold(&mut kept, sequence, events, depth);
        }
    }
}

impl<T, K, F> Keep<T> for LatestBy<T, K, F>
where
    T: Item + Clone,
    K: Hash + Eq + Send + 'static,
    F: Fn(&T) -> K + Send + Sync + 'static,
{
    fn collect(&self, cursor: &mut Cursor<T>) -> Result<(Vec<T>, Vec<u8>), Panic> {
        // Nothing leaves the window while this is held.
        let mut kept = self.kept.lock();
        // What left the window while the reader got the same from the log.
        let from = cursor.sequence();
        kept.newest.retain(|_, newest| newest.sequence >= from);
        if from < kept.next {
            cursor.seek(kept.next);
        }
        loop {
            let sequence = cursor.sequence();
            let (events, depth) = cursor.take();
            if events.is_empty() {
                break;
            }
            kept.next = kept.next.max(sequence);
            self.fold(&mut kept, sequence, events, depth);
        }
        if let Some(panic) = kept.panicked.take() {
            return Err(panic);
        }
        let mut all: Vec<_> = kept.newest.drain().map(|(_, newest)| newest).collect();
        drop(kept);
        all.sort_unstable_by_key(|newest| newest.sequence);
        Ok(all.into_iter().map(|newest| (newest.event, newest.depth)).unzip())
    }

    fn reduce(&self, events: &mut Vec<T>) -> Result<(), Panic> {
        Panic::catch(|| {
            let keyed = events.iter().enumerate().map(|(index, event)| ((self.key)(event), index));
            let newest: HashMap<K, usize> = keyed.collect();
            let newest: HashSet<usize> = newest.into_values().collect();
            let mut index = 0..;
            events.retain(|_| index.next().is_some_and(|index| newest.contains(&index)));
        })
    }
}
