//! Subscriptions that want the newest event of each key only.
//!
//! While such a reader keeps up it reads the ring like any other. What is about to leave the window before it came there is
//! folded into a map by the publisher that needs the room, so that nothing newest is lost; the reader takes the map and the
//! rest of the ring together. So it holds one event for each key, and nobody waits for it.

use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};

use super::ring::{Cursor, Item, Overrun};
use crate::actor::Panic;

/// Keeps the newest events of a slow reader.
pub(super) trait Keep<T: Item>: Overrun<T> {
    /// Moves the newest event of each key to `newest`, in the order in which they were published, and the cursor behind
    /// all that was looked at.
    ///
    /// # Errors
    /// The key function, or the clone of an event, panicked.
    fn collect(&self, cursor: &mut Cursor<T>, newest: &mut Vec<T>) -> Result<(), Panic>;
}

/// By a key that a function reads off the event.
pub(super) struct LatestBy<T, K, F> {
    key: F,
    kept: Mutex<Kept<T, K>>,
}

struct Kept<T, K> {
    /// Everything before this sequence is in `newest` or was delivered.
    next: u64,
    newest: HashMap<K, (u64, T)>,
    panicked: Option<Panic>,
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

    fn fold(&self, kept: &mut MutexGuard<'_, Kept<T, K>>, sequence: u64, events: &[T]) {
        let done = usize::try_from(kept.next.saturating_sub(sequence)).unwrap_or(usize::MAX);
        let folded = Panic::catch(|| {
            for (index, event) in events.iter().enumerate().skip(done) {
                kept.newest.insert((self.key)(event), (sequence + index as u64, event.clone()));
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
    fn overrun(&self, sequence: u64, events: &[T]) {
        let mut kept = self.kept.lock();
        if kept.next < sequence + events.len() as u64 && kept.panicked.is_none() {
            self.fold(&mut kept, sequence, events);
        }
    }
}

impl<T, K, F> Keep<T> for LatestBy<T, K, F>
where
    T: Item + Clone,
    K: Hash + Eq + Send + 'static,
    F: Fn(&T) -> K + Send + Sync + 'static,
{
    fn collect(&self, cursor: &mut Cursor<T>, newest: &mut Vec<T>) -> Result<(), Panic> {
        // Nothing leaves the window while this is held.
        let mut kept = self.kept.lock();
        if cursor.sequence() < kept.next {
            cursor.seek(kept.next);
        }
        loop {
            let sequence = cursor.sequence();
            let (events, _) = cursor.take();
            if events.is_empty() {
                break;
            }
            kept.next = kept.next.max(sequence);
            self.fold(&mut kept, sequence, events);
        }
        if let Some(panic) = kept.panicked.take() {
            return Err(panic);
        }
        let mut all: Vec<_> = kept.newest.drain().map(|(_, event)| event).collect();
        drop(kept);
        all.sort_unstable_by_key(|(sequence, _)| *sequence);
        newest.extend(all.into_iter().map(|(_, event)| event));
        Ok(())
    }
}
