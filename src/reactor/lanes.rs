//! Events in hand by key: those of one key one after the other, those of different keys at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;

use super::Delivery;
use super::route::{Attempting, Cause, Limit, Prepared};
use crate::event::Header;
use crate::stream::Position;

/// An event in hand.
pub(super) struct Item {
    pub(super) header: Header,
    pub(super) work: Work,
}

/// How an event is handled.
pub(super) enum Work {
    Attempt(Box<dyn Fn(Delivery) -> Attempting + Send>, Limit),
    /// It cannot be read, for this reason.
    Unreadable(Option<Cause>),
}

impl From<Result<Prepared, Cause>> for Work {
    fn from(prepared: Result<Prepared, Cause>) -> Self {
        match prepared {
            Ok(Prepared { attempt, limit, .. }) => Self::Attempt(attempt, limit),
            Err(cause) => Self::Unreadable(Some(cause)),
        }
    }
}

/// The keys for which there is something to do. Only one thing is done for a key at a time.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: HashMap<Arc<str>, Lane>,
    /// The keys for which nothing is done, by their first event: the earliest comes first.
    ready: BTreeMap<Position, Arc<str>>,
}

#[derive(Default)]
struct Lane {
    /// In the order of the log.
    waiting: VecDeque<Item>,
    /// Whether something is done for the key.
    busy: bool,
}

impl Lanes {
    /// Puts an event at the end of the lane of its key.
    pub(super) fn push(&mut self, key: Arc<str>, item: Item) {
        let position = item.header.position;
        let lane = self.lanes.entry(Arc::clone(&key)).or_default();
        if lane.waiting.is_empty() && !lane.busy {
            self.ready.insert(position, key);
        }
        lane.waiting.push_back(item);
    }

    /// Takes the earliest event that may be handled; its key is busy until it is [released](Self::release).
    pub(super) fn next(&mut self) -> Option<(Arc<str>, Item)> {
        let (_, key) = self.ready.pop_first()?;
        let lane = self.lanes.get_mut(&key)?;
        lane.busy = true;
        Some((key, lane.waiting.pop_front()?))
    }

    /// Whether nothing is in hand or done for `key`.
    pub(super) fn is_free(&self, key: &str) -> bool {
        !self.lanes.contains_key(key)
    }

    /// Makes a key busy for which nothing is done; its events in hand wait.
    pub(super) fn seize(&mut self, key: Arc<str>) {
        let lane = self.lanes.entry(key).or_default();
        lane.busy = true;
        if let Some(item) = lane.waiting.front() {
            self.ready.remove(&item.header.position);
        }
    }

    /// What was done for `key` is done.
    pub(super) fn release(&mut self, key: &Arc<str>) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        lane.busy = false;
        match lane.waiting.front() {
            Some(item) => {
                self.ready.insert(item.header.position, Arc::clone(key));
            }
            None => {
                self.lanes.remove(key);
            }
        }
    }

    /// How many events wait behind what is done for `key`.
    pub(super) fn behind(&self, key: &str) -> usize {
        self.lanes.get(key).map_or(0, |lane| lane.waiting.len())
    }

    /// Ends what is done for `key`, and takes all events that wait behind it.
    pub(super) fn clear(&mut self, key: &str) -> VecDeque<Item> {
        self.lanes.remove(key).map(|lane| lane.waiting).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::stream::StreamId;

    fn item(position: u64) -> Item {
        let stream = StreamId::new("account", "a").unwrap();
        let mut header = Header::new(stream, "account.deposited", 1, Timestamp::default());
        header.position = Position::new(position);
        Item { header, work: Work::Unreadable(None) }
    }

    fn next(lanes: &mut Lanes) -> Option<u64> {
        lanes.next().map(|(_, item)| item.header.position.as_u64())
    }

    #[test]
    fn events_of_a_key_that_is_seized_wait_until_it_is_released() {
        let (mut lanes, key): (_, Arc<str>) = (Lanes::default(), "a".into());
        lanes.seize(Arc::clone(&key));
        lanes.push(Arc::clone(&key), item(6));
        lanes.push(Arc::clone(&key), item(7));
        // A payload was checked, and is to be written down.
        lanes.release(&key);
        lanes.seize(Arc::clone(&key));
        assert_eq!(next(&mut lanes), None);
        lanes.release(&key);
        assert_eq!(next(&mut lanes), Some(6));
        assert_eq!(next(&mut lanes), None);
        lanes.release(&key);
        assert_eq!(next(&mut lanes), Some(7));
    }
}
