//! The shelf: the letters of one consumer, by key and in order.
//!
//! Its consumer alone changes it, together with its checkpoint; everybody else reads it. While nothing is parked, looking at it
//! costs one load of a flag.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};

use super::{Letter, LetterState, Resolution, ResolutionKind};
use crate::clock::Timestamp;
use crate::event::Header;
use crate::stream::{Position, StreamId};

/// How many letters one consumer may hold, those that wait included: each takes a few hundred bytes of memory.
const MAX_LETTERS: usize = 100_000;

/// The letters of a consumer, as its consumer and everybody else see them.
#[derive(Debug)]
pub(crate) struct Shelf {
    /// Whether there is nothing to look up.
    empty: AtomicBool,
    letters: Mutex<Shelved>,
    /// How often an event was tried again.
    retries: AtomicU64,
    /// Changes with the letters.
    #[cfg(feature = "testing")]
    changed: tokio::sync::watch::Sender<()>,
}

/// What stands on a shelf.
#[derive(Debug, Default)]
pub(crate) struct Shelved {
    keys: HashMap<Arc<str>, Parked>,
    /// The key of each letter.
    letters: BTreeMap<Position, Arc<str>>,
    resolved: BTreeMap<Position, Resolution>,
    filter: Filter,
}

/// What a consumer has to know of its letters while it folds, without a lock: nothing on its shelf changes meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct Glance {
    pub(crate) has_letters: bool,
    pub(crate) has_resolved: bool,
    /// The last letter. Events up to here may be letters themselves: a view in memory meets them again.
    pub(crate) last: Position,
    filter: Filter,
}

impl Glance {
    /// Whether the key with this hash may be parked.
    pub(crate) fn may_hold(&self, hash: u64) -> bool {
        self.filter.holds(hash)
    }
}

/// A Bloom filter of one hash over the parked keys: of 1,024 bits, so that one key in 10,000 costs the others a look-up in a
/// thousand.
#[derive(Debug, Default, Clone)]
struct Filter([u64; 16]);

impl Filter {
    fn add(&mut self, hash: u64) {
        if let Some(word) = self.0.get_mut(Self::word(hash)) {
            *word |= 1 << (hash & 63);
        }
    }

    fn holds(&self, hash: u64) -> bool {
        self.0.get(Self::word(hash)).is_some_and(|word| word & (1 << (hash & 63)) != 0)
    }

    fn word(hash: u64) -> usize {
        ((hash >> 6) & 15) as usize
    }
}

/// The letters of one key; never empty.
#[derive(Debug, Default)]
struct Parked {
    letters: BTreeMap<Position, Letter>,
    /// When the first is tried again by itself; none if it waits for a person.
    due: Option<Instant>,
}

/// A change to a shelf, to be kept with the checkpoint.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// A new or changed letter.
    Put(Box<Letter>),
    /// It was handled, or discarded.
    Remove(Arc<str>, Position),
    /// A person has decided.
    Resolve(Resolution),
}

/// What becomes of an event that a consumer has reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is handled.
    Handle,
    /// It is handled with this payload in place of its own.
    Edited(Arc<[u8]>),
    /// A person has discarded it.
    Discarded,
}

impl Shelf {
    pub(crate) fn new(shelved: Shelved) -> Self {
        let empty = AtomicBool::new(shelved.is_empty());
        Self {
            empty,
            letters: Mutex::new(shelved),
            retries: AtomicU64::new(0),
            #[cfg(feature = "testing")]
            changed: tokio::sync::watch::Sender::new(()),
        }
    }

    /// Tells of each change of the letters.
    #[cfg(feature = "testing")]
    pub(crate) fn watch(&self) -> tokio::sync::watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// An event is tried again.
    pub(crate) fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// How often an event was tried again.
    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// What stands on it; none if that is nothing.
    pub(crate) fn look(&self) -> Option<MutexGuard<'_, Shelved>> {
        (!self.is_empty()).then(|| self.letters.lock())
    }

    /// Whether nothing is parked, and nothing was decided by a person.
    pub(crate) fn is_empty(&self) -> bool {
        // The consumer that asks is the one that changes it.
        self.empty.load(Ordering::Relaxed)
    }

    /// What a fold has to know of it; none if nothing is parked, and nothing was decided by a person.
    pub(crate) fn glance(&self) -> Option<Glance> {
        let shelved = self.look()?;
        Some(Glance {
            has_letters: !shelved.letters.is_empty(),
            has_resolved: !shelved.resolved.is_empty(),
            last: shelved.letters.last_key_value().map(|(last, _)| *last).unwrap_or_default(),
            filter: shelved.filter.clone(),
        })
    }

    /// What stands on it.
    pub(crate) fn read(&self) -> MutexGuard<'_, Shelved> {
        self.letters.lock()
    }

    /// Carries out changes that were kept.
    pub(crate) fn apply(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let mut shelved = self.letters.lock();
        for change in changes {
            shelved.apply(change);
        }
        self.empty.store(shelved.is_empty(), Ordering::Relaxed);
        #[cfg(feature = "testing")]
        self.changed.send_replace(());
    }

    /// Puts other letters in place of those on it.
    pub(crate) fn replace(&self, other: Shelved) {
        let mut shelved = self.letters.lock();
        *shelved = other;
        self.empty.store(shelved.is_empty(), Ordering::Relaxed);
        #[cfg(feature = "testing")]
        self.changed.send_replace(());
    }
}

impl Shelved {
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.resolved.is_empty()
    }

    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Put(letter) => {
                self.filter.add(StreamId::hash_of(&letter.key));
                let parked = self.keys.entry(Arc::clone(&letter.key)).or_default();
                let position = letter.position;
                let front = parked.letters.first_key_value().map(|(front, _)| *front);
                self.letters.insert(position, Arc::clone(&letter.key));
                parked.letters.insert(position, *letter);
                if front.is_none_or(|front| position <= front) {
                    parked.schedule();
                }
            }
            Change::Remove(key, position) => {
                let Some(parked) = self.keys.get_mut(&key) else {
                    return;
                };
                self.letters.remove(&position);
                parked.letters.remove(&position);
                if parked.letters.is_empty() {
                    self.keys.remove(&key);
                    self.filter = Filter::default();
                    for key in self.keys.keys() {
                        self.filter.add(StreamId::hash_of(key));
                    }
                } else {
                    parked.schedule();
                }
            }
            Change::Resolve(resolution) => {
                self.resolved.insert(resolution.position, resolution);
            }
        }
    }

    /// Whether an event of `key` at `position` has to wait behind a letter, or is one.
    pub(crate) fn waits(&self, key: &str, position: Position) -> bool {
        self.keys.get(key).is_some_and(|parked| {
            parked.letters.first_key_value().is_some_and(|(first, _)| *first <= position)
        })
    }

    /// A letter for an event that has to wait; none if it is on the shelf already.
    pub(crate) fn wait(&self, key: &str, header: &Header) -> Option<Letter> {
        let (key, parked) = self.keys.get_key_value(key)?;
        let known = parked.letters.contains_key(&header.position);
        (!known).then(|| Letter::waiting(header, Arc::clone(key)))
    }

    /// What a person has decided about the event at `position`.
    pub(crate) fn fate(&self, position: Position) -> Fate {
        match self.resolved.get(&position).map(|resolution| &resolution.kind) {
            None => Fate::Handle,
            Some(ResolutionKind::Edited { payload }) => Fate::Edited(Arc::clone(payload)),
            Some(ResolutionKind::Discarded { .. }) => Fate::Discarded,
        }
    }

    /// Whether `new` letters, one of them of a new key if `new_key`, are more than a consumer may hold.
    pub(crate) fn is_full(&self, max_keys: usize, new_key: bool, new: usize) -> bool {
        (new_key && self.keys.len() >= max_keys) || self.letters.len() + new > MAX_LETTERS
    }

    /// The first letter of `key`.
    pub(crate) fn first(&self, key: &str) -> Option<&Letter> {
        self.keys.get(key)?.letters.first_key_value().map(|(_, letter)| letter)
    }

    /// The key whose first letter is to be tried again next, and when: among those whose first letter stands at or before
    /// `reached`, and of which `free` holds.
    pub(crate) fn next_due(
        &self,
        reached: Position,
        free: impl Fn(&str) -> bool,
    ) -> Option<(Instant, &Arc<str>)> {
        self.reached(reached)
            .filter_map(|(key, parked)| Some((parked.due?, key)))
            .filter(|(_, key)| free(key))
            .min_by_key(|(due, _)| *due)
    }

    /// What changes when a person has decided about the letter at `position`, with its key; none if there is no such letter.
    pub(crate) fn resolve(
        &self,
        position: Position,
        kind: ResolutionKind,
        at: Timestamp,
    ) -> Option<(Arc<str>, Vec<Change>)> {
        let letter = self.at(position)?;
        let key = Arc::clone(&letter.key);
        let changed = match &kind {
            ResolutionKind::Discarded { .. } => Change::Remove(Arc::clone(&key), position),
            ResolutionKind::Edited { payload } => {
                let mut letter = letter.clone();
                letter.edited = Some(Arc::clone(payload));
                Change::Put(Box::new(letter))
            }
        };
        Some((key, vec![changed, Change::Resolve(Resolution { position, kind, at })]))
    }

    /// The keys whose first letter stands at `reached` or before. A view that is folded anew holds letters that it has yet to
    /// reach.
    fn reached(&self, reached: Position) -> impl Iterator<Item = (&Arc<str>, &Parked)> {
        self.keys.iter().filter(move |(_, parked)| {
            parked.letters.first_key_value().is_some_and(|(first, _)| *first <= reached)
        })
    }

    /// Lets the first letter of `key` be tried at `due`.
    pub(crate) fn set_due(&mut self, key: &str, due: Option<Instant>) {
        if let Some(parked) = self.keys.get_mut(key) {
            parked.due = due;
        }
    }

    /// All letters, in the order of the log.
    pub(crate) fn list(&self) -> Vec<Letter> {
        self.letters.keys().filter_map(|position| self.at(*position).cloned()).collect()
    }

    /// The first letter of each key.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = &Letter> {
        self.keys
            .values()
            .filter_map(|parked| parked.letters.first_key_value().map(|(_, letter)| letter))
    }

    /// The letter at `position`.
    pub(crate) fn at(&self, position: Position) -> Option<&Letter> {
        self.keys.get(self.letters.get(&position)?)?.letters.get(&position)
    }

    /// The letters of `key`, in order.
    pub(crate) fn of_key(&self, key: &str) -> Vec<Letter> {
        let letters = self.keys.get(key).map(|parked| parked.letters.values().cloned().collect());
        letters.unwrap_or_default()
    }

    /// What a person has decided about the event at `position`, as it is kept.
    pub(crate) fn resolution(&self, position: Position) -> Option<&Resolution> {
        self.resolved.get(&position)
    }

    /// All that people have decided, in the order of the log.
    pub(crate) fn resolutions(&self) -> Vec<Resolution> {
        self.resolved.values().cloned().collect()
    }

    /// All that stands on it.
    pub(crate) fn all(&self) -> Vec<Change> {
        let letters = self.list().into_iter().map(|letter| Change::Put(Box::new(letter)));
        letters.chain(self.resolutions().into_iter().map(Change::Resolve)).collect()
    }

    /// How many keys are tried again by themselves.
    pub(crate) fn retrying(&self) -> usize {
        self.keys.values().filter(|parked| parked.due.is_some()).count()
    }

    /// How many keys are parked, and how many letters there are in all.
    pub(crate) fn count(&self) -> (usize, usize) {
        (self.keys.len(), self.letters.len())
    }
}

impl FromIterator<Change> for Shelved {
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Self {
        let mut shelved = Self::default();
        changes.into_iter().for_each(|change| shelved.apply(change));
        shelved
    }
}

impl Parked {
    /// Lets the first letter be tried at once, unless it waits for a person. A consumer that has just failed to handle it sets a
    /// later time with [`Shelved::set_due`].
    fn schedule(&mut self) {
        let first = self.letters.first_key_value().map(|(_, letter)| letter.state);
        self.due = match first {
            Some(LetterState::Parked) | None => None,
            // A letter that has come to the front, or that was being tried when the app ended.
            Some(LetterState::Waiting | LetterState::Retrying { .. }) => Some(Instant::now()),
        };
    }
}
