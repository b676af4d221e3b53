//! Snapshots: when one of an aggregate is taken, and how its state is written and read.
//!
//! A snapshot is a stored fold of a stream. With one, an aggregate is loaded from it and from the events after it, instead of
//! from all events. It changes nothing else: with all snapshots deleted, every answer is the same.
//!
//! ```text
//! shard ── due: the state as bytes, with the turn ──▶ sequencer ── settled, not failed ──▶ shard ─┐
//! shard ── passivated, all committed: the aggregate itself ───────────────────────────────────────┼─▶ errand ─▶ store
//! errand ─ loaded, which took long ───────────────────────────────────────────────────────────────┘
//! ```
//! # Which states are stored
//! Committed ones only. A shard decides ahead of the commit, so a state that it takes travels with its turn, and is dropped if
//! a commit of its stream in that turn fails.
//!
//! One that has passed over an event which the program does not know (`unknown = ignore`) is not stored either: a program that
//! knows the event folds it.
//!
//! # Another shape
//! The shape of the state stands in the snapshot, with the names and versions of the events that its program knew: an older program,
//! started again, meets what it does not know, and each release that adds an event begins anew. One of another shape, one that cannot be read, and one that claims to
//! have seen more than the stream holds are ignored with a warning, the whole stream is folded, and a new one is taken.
//!
//! # A snapshot that cannot be written
//! There is a warning, and the status counts it. No command waits for it or fails with it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;
use uuid::Uuid;

use super::Aggregate;
use super::loader::Live;
use crate::actor::Panic;
use crate::codec::{Codec, CodecError};
use crate::event::{EventSet, SetInfo};
use crate::shape::{Form, Shape};
use crate::store::{Decoder, Snapshot};
use crate::stream::{StreamId, Version};

/// When snapshots of an aggregate are taken, and how its state is written; see [`Aggregate::snapshots`].
///
/// Any of the occasions may be combined.
///
/// The state is kept as JSON, so it has to come back from that as it was: what serde skips must not matter, a float must be
/// finite, and the keys of a map are texts or whole numbers. Where `apply` or an upcaster is changed so that another state is made of
/// the same events, and no field of the state changes, raise the [`version`](Self::version) or
/// [delete the snapshots](crate::App::delete_snapshots): nothing else shows that they are outdated.
///
/// What it costs: a shard writes the state of an aggregate down once in a turn at most, and only if one is due. In SQLite a snapshot goes along with
/// the next transaction of the log; a transaction of its own it gets only where more than 1,024 wait, or 8 MiB, and no command is
/// sent, and when the log is closed.
///
/// # Examples
#[cfg_attr(feature = "macros", doc = "```")]
#[cfg_attr(not(feature = "macros"), doc = "```ignore")]
/// use serde::{Deserialize, Serialize};
/// use tidings::{App, Command, Event, Memory, Shape, aggregate};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(name = "meter.read", version = 1)]
/// struct Read { watts: u64 }
///
/// #[derive(Command, Clone)]
/// struct Note { watts: u64 }
///
/// #[derive(Default, Shape, Serialize, Deserialize)]
/// struct Meter { total: u64 }
///
/// #[aggregate(category = "meter", events = MeterEvent, snapshot(every = 100, slower_than = "20 ms", on_passivation))]
/// impl Meter {
///     #[command]
///     fn note(&self, Note { watts }: Note) -> Read { Read { watts } }
///     #[apply]
///     fn read(&mut self, event: &Read) { self.total += event.watts }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app = App::builder().store(Memory::new()).aggregate::<Meter>().arbiters(1).start().await?;
/// for watts in 1..=250 {
///     app.send("hall", Note { watts }).await?;
/// }
/// app.shutdown().await?;
/// assert_eq!(app.status().aggregates[0].shards[0].snapshots_written, 2);
/// # Ok(())
/// # }
/// ```
#[must_use = "it has to be returned from `Aggregate::snapshots`"]
pub struct Snapshots<A> {
    shape: [u8; 16],
    every: Option<u32>,
    bytes: Option<u32>,
    slower_than: Option<Duration>,
    on_passivation: bool,
    write: fn(&A, &mut Vec<u8>) -> Result<(), CodecError>,
    read: fn(&[u8]) -> Result<A, CodecError>,
}

impl<A> Snapshots<A> {
    /// Snapshots without an occasion: those that are there are used, and none is taken.
    #[expect(clippy::new_without_default, reason = "the occasions belong to it")]
    pub fn new() -> Self
    where
        A: Shape + Serialize + DeserializeOwned,
    {
        Self {
            shape: Form::of::<A>().digest(),
            every: None,
            bytes: None,
            slower_than: None,
            on_passivation: false,
            write: write_state,
            read: read_state,
        }
    }

    /// Tells states apart that have one shape and another meaning; 0 unless set. A snapshot of another version is ignored as one
    /// of another shape is.
    pub fn version(mut self, version: u32) -> Self {
        for (byte, of_version) in self.shape.iter_mut().zip(version.to_le_bytes()) {
            *byte ^= of_version;
        }
        self
    }

    /// Takes one when the aggregate has applied so many events since the last, from 1; those that it was loaded with count, too.
    pub fn every(mut self, events: u32) -> Self {
        self.every = Some(events.max(1));
        self
    }

    /// Takes one when the payloads of the events since the last come to so many bytes, from 1.
    pub fn bytes(mut self, bytes: u32) -> Self {
        self.bytes = Some(bytes.max(1));
        self
    }

    /// Takes one right after the aggregate was loaded, if reading and folding its events took longer than this; what it took to read
    /// the state back from the last one does not count.
    pub fn slower_than(mut self, time: Duration) -> Self {
        self.slower_than = Some(time);
        self
    }

    /// Takes one when the aggregate leaves the memory, because it was idle or too many are live, and there are events since the
    /// last. When the app ends, none is taken.
    pub fn on_passivation(mut self) -> Self {
        self.on_passivation = true;
        self
    }
}

impl<A> Clone for Snapshots<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Snapshots<A> {}

impl<A> fmt::Debug for Snapshots<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots")
            .field("every", &self.every)
            .field("bytes", &self.bytes)
            .field("slower_than", &self.slower_than)
            .field("on_passivation", &self.on_passivation)
            .finish_non_exhaustive()
    }
}

/// Writes a state down: the only place where this happens.
fn write_state<A: Serialize>(state: &A, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    Codec::Json.encode(state, bytes)
}

/// Reads a state back: the only place where this happens.
fn read_state<A: DeserializeOwned>(bytes: &[u8]) -> Result<A, CodecError> {
    Codec::Json.decode(bytes)
}

/// What an aggregate has applied since its last snapshot. Small, since each live aggregate has one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Since {
    events: u32,
    bytes: u32,
}

impl Since {
    pub(super) fn add(&mut self, events: usize, bytes: usize) {
        self.events = self.events.saturating_add(u32::try_from(events).unwrap_or(u32::MAX));
        self.bytes = self.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    pub(super) fn is_empty(self) -> bool {
        self.events == 0
    }
}

/// The shape of a state folded from the events of `S`. A program that knows other events does not take over what was folded from
/// these: an older one, started again, meets the event that it does not know.
fn of_events<S: EventSet>(shape: [u8; 16]) -> [u8; 16] {
    let versions = S::schemas().into_iter().map(|schema| (schema.name, schema.version));
    let mut known: Vec<_> = SetInfo::of::<S>().stored_names().map(|name| (name, 0)).collect();
    known.extend(versions);
    known.sort_unstable();
    let known: Vec<_> = known.iter().map(|(name, version)| format!("{name} {version}")).collect();
    Uuid::new_v5(&Uuid::from_bytes(shape), known.join("\n").as_bytes()).into_bytes()
}

/// What has become of snapshots.
#[derive(Debug, Default)]
pub(crate) struct SnapshotGauge {
    pub(crate) written: AtomicU64,
    pub(crate) ignored: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// Takes, writes and reads the snapshots of one type of aggregate.
pub(super) struct Keeper<A> {
    decoder: Decoder,
    snapshots: Snapshots<A>,
    gauge: Arc<SnapshotGauge>,
}

impl<A> Clone for Keeper<A> {
    fn clone(&self) -> Self {
        let (decoder, gauge) = (self.decoder.clone(), Arc::clone(&self.gauge));
        Self { decoder, snapshots: self.snapshots, gauge }
    }
}

/// A snapshot to be written.
pub(super) enum Due<A> {
    Taken(Snapshot),
    /// One that left the memory: its state is written down where there is time for it.
    Passivated(StreamId, Live<A>),
}

impl<A> Due<A> {
    pub(super) fn stream(&self) -> &StreamId {
        match self {
            Self::Taken(snapshot) => &snapshot.stream,
            Self::Passivated(stream, _) => stream,
        }
    }
}

impl<A: Aggregate> Keeper<A> {
    /// None if the aggregate has no snapshots.
    pub(super) fn of_aggregate(decoder: &Decoder, gauge: &Arc<SnapshotGauge>) -> Option<Self> {
        let (decoder, gauge) = (decoder.clone(), Arc::clone(gauge));
        let mut snapshots = A::snapshots()?;
        snapshots.shape = of_events::<A::Event>(snapshots.shape);
        Some(Self { decoder, snapshots, gauge })
    }

    pub(super) fn is_due(&self, live: &Live<A>) -> bool {
        let (since, Snapshots { every, bytes, .. }) = (live.since, self.snapshots);
        let is_due = every.is_some_and(|every| since.events >= every)
            || bytes.is_some_and(|bytes| since.bytes >= bytes);
        is_due && live.has_seen_all()
    }

    /// Whether one is taken of an aggregate that has just been loaded, in this time.
    pub(super) fn is_due_after_load(&self, live: &Live<A>, took: Duration) -> bool {
        let slow = self.snapshots.slower_than.is_some_and(|limit| took > limit);
        self.is_due(live) || (slow && !live.since.is_empty() && live.has_seen_all())
    }

    pub(super) fn is_due_on_passivation(&self, live: &Live<A>) -> bool {
        self.snapshots.on_passivation && !live.since.is_empty() && live.has_seen_all()
    }

    pub(super) fn takes_passivated(&self) -> bool {
        self.snapshots.on_passivation
    }

    /// Writes the state down; none if it cannot be written.
    pub(super) fn take(&self, stream: &StreamId, live: &Live<A>) -> Option<Snapshot> {
        let mut state = Vec::new();
        // `Serialize` is the user's code.
        let write = || (self.snapshots.write)(&live.aggregate, &mut state);
        let written = Panic::catch(|| self.decoder.with_keys(write));
        let why = match written {
            Ok(Ok(())) => {
                let shape = self.snapshots.shape;
                return Some(Snapshot::new(stream.clone(), live.version, shape, state));
            }
            Ok(Err(error)) => with_source(&error),
            Err(panic) => panic.message.to_string(),
        };
        warn!(%stream, version = %live.version, why, "the state cannot be written down for a snapshot");
        self.failed(1);
        None
    }

    /// The aggregate as the snapshot of `stream` has it; none if there is none that can be used. Whether the stream holds the
    /// event that it ends with is for the caller to see.
    pub(super) fn load(&self, stream: &StreamId) -> Loaded<A> {
        let snapshot = match self.decoder.store().load_snapshot(stream) {
            Ok(None) => return Loaded::Nothing,
            Ok(Some(snapshot)) => snapshot,
            Err(error) => {
                self.ignore(stream, None, &with_source(&error));
                return Loaded::Ignored;
            }
        };
        let version = snapshot.version;
        let ignored = |why: &str| {
            self.ignore(stream, Some(version), why);
            Loaded::Ignored
        };
        if version == Version::EMPTY || snapshot.stream != *stream {
            return ignored("it is not one of this stream");
        }
        if snapshot.shape != self.snapshots.shape {
            return ignored("the state has another shape by now");
        }
        // `Deserialize` is the user's code.
        let read = || (self.snapshots.read)(&snapshot.state);
        match Panic::catch(|| self.decoder.with_keys(read)) {
            Ok(Ok(aggregate)) => {
                Loaded::Found(Live { aggregate, version, since: Since::default(), ignored: 0 })
            }
            Ok(Err(error)) => ignored(&with_source(&error)),
            Err(panic) => ignored(&panic.message),
        }
    }

    pub(super) fn ignore(&self, stream: &StreamId, version: Option<Version>, why: &str) {
        let version = version.map(|version| version.as_u64());
        warn!(%stream, version, why, "a snapshot is ignored: the whole stream is folded");
        self.gauge.ignored.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes snapshots; blocks.
    pub(super) fn save(&self, due: Vec<Due<A>>) {
        let snapshots: Vec<_> = due
            .into_iter()
            .filter_map(|due| match due {
                Due::Taken(snapshot) => Some(snapshot),
                Due::Passivated(stream, live) => {
                    let snapshot = self.take(&stream, &live);
                    // Its `Drop` is the user's, too.
                    let _ = Panic::catch(|| drop(live));
                    snapshot
                }
            })
            .collect();
        let count = snapshots.len();
        if count == 0 {
            return;
        }
        let saved = Panic::catch(|| self.decoder.store().save_snapshots(snapshots));
        let why = match saved {
            Ok(Ok(())) => {
                self.gauge.written.fetch_add(count as u64, Ordering::Relaxed);
                return;
            }
            Ok(Err(error)) => with_source(&error),
            Err(panic) => panic.message.to_string(),
        };
        warn!(snapshots = count, why, "snapshots cannot be written");
        self.failed(count);
    }

    /// Notes that so many could not be written.
    pub(super) fn failed(&self, count: usize) {
        self.gauge.failed.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// What came of looking for a snapshot.
pub(super) enum Loaded<A> {
    Nothing,
    Found(Live<A>),
    /// There is one that cannot be used.
    Ignored,
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
