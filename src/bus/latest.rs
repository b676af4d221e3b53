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
use crate::stream::Position;

/// Keeps the newest events of a slow reader.
pub(super) trait Keep<T: Item>: Overrun<T> {
    /// The newest event of each key, in the order in which they were published, each with its depth. The cursor goes behind
    /// all that was looked at. None if what comes next must be read from the log.
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
    /// The position of the last event that was folded.
    seen: Position,
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
            kept: Mutex::new(Kept {
                next: 0,
                seen: Position::START,
                newest: HashMap::new(),
                panicked: None,
            }),
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
        kept.seen = events.last().map_or(kept.seen, |last| kept.seen.max(last.position()));
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
            cursor.seek(kept.next, kept.seen);
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

#[cfg(test)]
#[cfg(not(tidings_loom))]
mod tests {
    use std::future::poll_fn;
    use std::task::{Context, Waker};

    use super::*;
    use crate::bus::topic::{HistoryPage, Topic};
    use crate::clock::Timestamp;
    use crate::event::{Envelope, Header};
    use crate::stream::StreamId;

    #[test]
    fn a_reader_that_is_sent_to_the_log_gets_what_was_kept_and_reads_on_there() {
        let stream = StreamId::new("numbers", "1").expect("a stream");
        let blank = Header::new(stream, "number", 1, Timestamp::from_micros(0));
        let event = move |number: u64| {
            let mut header = blank.clone();
            header.position = Position::new(number);
            Envelope { header, event: number }
        };
        let in_log = event.clone();
        let history = move |after: Position, limit| {
            let numbers = after.as_u64() + 1..=30;
            let events: Vec<_> = numbers.take(limit).map(&in_log).collect();
            let through = events.last().map_or(after, |event| event.header.position);
            Ok(HistoryPage { events, through })
        };
        for published in [0, 3, 20] {
            let history = Arc::new(history.clone());
            let topic =
                Topic::durable("numbers", 8, Position::START, Some(history), Box::default());
            let subscribe = topic.subscribe().latest_by(|event: &Envelope<u64>| event.event % 2);
            let mut reader = subscribe.begin(None).blocking();
            topic.publish((1..=published).map(&event));
            topic.send_to_log(Position::new(25));
            topic.publish((26..=30).map(&event));
            topic.end();
            let mut seen = Vec::new();
            futures_executor::block_on(async {
                while let Ok(crate::bus::reader::Next::Events) =
                    poll_fn(|cx| reader.poll_ready(cx)).await
                {
                    seen.extend(reader.take().iter().map(|event| event.event));
                }
            });
            // Of what was published, and of what the log gives behind it.
            let newest = |last: u64| (last.saturating_sub(1).max(1)..=last).filter(|n| *n > 0);
            let mut expected: Vec<_> = newest(published).collect();
            expected.extend(newest(30));
            assert_eq!(seen, expected, "{published} were published");
            assert_eq!(reader.seen(), Position::new(30));
        }
    }

    /// What a reader gets, and how many it is told to have missed, until it sleeps.
    fn read(reader: &mut crate::bus::reader::Reader<Envelope<u64>>) -> (Vec<u64>, u64) {
        let (mut seen, mut missed) = (Vec::new(), 0);
        // A level reader has its task polled again before it sleeps.
        for _ in 0..10_000 {
            let mut cx = Context::from_waker(Waker::noop());
            if reader.poll_ready(&mut cx).is_ready() {
                let batch = reader.take();
                missed += batch.missed();
                seen.extend(batch.iter().map(|event| event.event));
            }
        }
        (seen, missed)
    }

    #[test]
    fn a_reader_that_comes_from_a_log_ahead_of_the_ring_gets_nothing_twice_and_counts_exactly() {
        let stream = StreamId::new("numbers", "1").expect("a stream");
        let blank = Header::new(stream, "number", 1, Timestamp::from_micros(0));
        let event = move |number: u64| {
            let mut header = blank.clone();
            header.position = Position::new(number);
            Envelope { header, event: number }
        };
        let in_log = event.clone();
        let history = Arc::new(move |after: Position, limit| {
            let events: Vec<_> = (after.as_u64() + 1..=30).take(limit).map(&in_log).collect();
            let through = events.last().map_or(after, |event| event.header.position);
            Ok(HistoryPage { events, through })
        });
        for latest in [true, false] {
            let history = Some(history.clone() as _);
            let topic = Topic::durable("numbers", 8, Position::START, history, Box::default());
            topic.publish((1..=20).map(&event));
            let subscribe = topic.subscribe().after(Position::START);
            let subscribe = if latest {
                subscribe.latest_by(|event: &Envelope<u64>| event.event)
            } else {
                subscribe.drop_oldest()
            };
            let mut reader = subscribe.begin(None).blocking();
            let (mut seen, missed) = read(&mut reader);
            assert_eq!(missed, 0);
            topic.publish((21..=60).map(&event));
            let (more, missed) = read(&mut reader);
            seen.extend(more);
            assert!(seen.is_sorted_by(|a, b| a < b), "twice: {seen:?}");
            assert_eq!(seen.len() as u64 + missed, 60, "{seen:?}");
        }
    }
}
