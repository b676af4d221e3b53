//! What the index does not hold yet: the heads and command ids of the newest events, in memory.
//!
//! ```text
//!  commit ─▶ active ──freeze──▶ flushing ──the index has it──▶ flushed, flushed …  (a cache, oldest dropped)
//! ```
//! A lookup asks the generations from left to right, and then the index. Each generation but the active one never
//! changes, so the first answer is the newest, and nothing needs to be invalidated. A generation leaves `flushing` only
//! after the index has committed it: who finds nothing here and then looks into the index misses nothing.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::HashMap;
use siphasher::sip128::{Hasher128, SipHasher13};
use uuid::Uuid;

use crate::id::CommandId;
use crate::store::hash::Prehashed;
use crate::stream::StreamId;

/// How many heads or commands, whichever are more, a generation gathers before it goes to the index, unless the options
/// say otherwise.
///
/// A flush rewrites nearly every page of the index when the traffic is spread over all streams, so its cost is shared
/// by the events of a generation. Commits to a million streams run at 0.37 of a bare append with 65,536, and at 0.5 with
/// twice as many. A generation of that size takes up to 17 MB; to read its events again after a crash takes a fraction
/// of a second.
pub(super) const GENERATION: usize = 131_072;

/// How many generations the active one may hold while another is flushed; then commits wait.
const MOST: usize = 2;

/// How many generations' worth of what the index has taken is kept as a cache: the
/// heads of half a million streams, in 20 MB.
const CACHED: usize = 4;

/// A stream, named by 128 bits of SipHash-1-3 under the log's secret key.
///
/// Two streams with one key would need 2^64 streams, or the secret. Streams that agree in the first half only are told
/// apart by the second, here as in the index. Every row that is read is compared with the full name all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamKey {
    pub(super) hash: u64,
    pub(super) rest: u64,
}

impl Hash for StreamKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// The log's secret, under which its streams are hashed.
#[derive(Clone, Copy)]
pub(super) struct Secret(pub(super) [u8; 16]);

impl Secret {
    pub(super) fn key(self, stream: &StreamId) -> StreamKey {
        self.key_of(stream.as_str())
    }

    pub(super) fn key_of(self, stream: &str) -> StreamKey {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(stream.as_bytes());
        let hash = hasher.finish128();
        StreamKey { hash: hash.h1, rest: hash.h2 }
    }
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) version: u64,
    /// Of its last event; zero if it has none.
    pub(super) position: u64,
}

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The position of its first event.
    Events(u64),
    /// The number of its row in `commands`: it appended none.
    Bare(u64),
}

/// How far something has come in the two tables of the log, with the id that stands there: numbers alone would not
/// show that a log was restored and has grown past them again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Through {
    pub(super) position: u64,
    pub(super) event: Uuid,
    pub(super) bare: u64,
    pub(super) bare_id: Uuid,
}

type Heads = Prehashed<StreamKey, Head>;

/// A run of the log's heads and command ids.
#[derive(Default)]
pub(super) struct Generation {
    pub(super) heads: Heads,
    pub(super) commands: HashMap<CommandId, Place>,
    pub(super) through: Through,
    /// The greatest UUIDv7 among all command ids up to here; nil if there is none.
    pub(super) newest: Uuid,
}

impl Generation {
    pub(super) fn insert_command(&mut self, id: CommandId, place: Place) {
        if is_v7(&id) {
            self.newest = self.newest.max(*id.as_uuid());
        }
        self.commands.insert(id, place);
    }

    pub(super) fn len(&self) -> usize {
        self.heads.len().max(self.commands.len())
    }
}

/// Whether ids of this kind sort by the time when they were made.
pub(super) fn is_v7(id: &CommandId) -> bool {
    id.as_uuid().get_version_num() == 7
}

/// The generations in memory.
pub(super) struct Tail {
    /// How large a generation is when it goes to the index.
    size: usize,
    pub(super) active: Generation,
    pub(super) flushing: Option<Arc<Generation>>,
    /// The newest first, and only the heads: a stream that was written to is likely to be written to again.
    flushed: VecDeque<Heads>,
    /// Grows whenever the index has taken a generation: an older view of the index lacks what left `flushing` then.
    pub(super) flushes: u64,
    /// The greatest UUIDv7 among the command ids of the index. A greater one is not in it.
    pub(super) indexed: Uuid,
}

impl Tail {
    /// The tail of a log whose index knows ids up to `indexed`.
    pub(super) fn new(size: usize, active: Generation, indexed: Uuid) -> Self {
        Self { size, active, flushing: None, flushed: VecDeque::new(), flushes: 0, indexed }
    }

    pub(super) fn head(&self, key: &StreamKey) -> Option<Head> {
        self.unflushed()
            .map(|generation| &generation.heads)
            .chain(&self.flushed)
            .find_map(|heads| heads.get(key))
            .copied()
    }

    pub(super) fn command(&self, id: &CommandId) -> Option<Place> {
        self.unflushed().find_map(|generation| generation.commands.get(id)).copied()
    }

    fn unflushed(&self) -> impl Iterator<Item = &Generation> {
        std::iter::once(&self.active).chain(self.flushing.as_deref())
    }

    pub(super) fn is_due(&self) -> bool {
        self.active.len() >= self.size
    }

    pub(super) fn is_full(&self) -> bool {
        self.active.len() >= MOST * self.size && self.flushing.is_some()
    }

    /// Hands the active generation over to be flushed, unless one is being flushed already.
    pub(super) fn freeze(&mut self) {
        if self.flushing.is_none() {
            let next = Generation {
                through: self.active.through,
                newest: self.active.newest,
                ..Generation::default()
            };
            self.flushing = Some(Arc::new(std::mem::replace(&mut self.active, next)));
        }
    }

    /// Notes that the index has taken the generation that was being flushed; what has to be dropped is returned, so
    /// that it is dropped outside the lock.
    #[must_use]
    pub(super) fn retire(&mut self) -> impl Sized + use<> {
        let mut commands = None;
        if let Some(done) = self.flushing.take() {
            self.flushes += 1;
            self.indexed = done.newest;
            // The flusher's own handle is gone by then; if it were not, only the cache would lack the generation, and
            // with it all older ones, which must not answer in its place.
            match Arc::try_unwrap(done) {
                Ok(done) => {
                    self.flushed.push_front(done.heads);
                    commands = Some(done.commands);
                }
                Err(_) => self.flushed.clear(),
            }
        }
        let mut kept = 0;
        let fitting = self.flushed.iter().take_while(|heads| {
            kept += heads.len();
            kept <= CACHED * self.size
        });
        let fitting = fitting.count();
        (commands, self.flushed.split_off(fitting))
    }
}
