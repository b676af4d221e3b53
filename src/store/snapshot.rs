//! What a store keeps of a snapshot.

use std::fmt;
use std::sync::Arc;

use crate::stream::{StreamId, Version};

/// A stored fold of a stream up to a version. It is a cache: whatever becomes of it, the events say the same.
///
/// An app writes and reads these by itself for the aggregates that ask for it; see
/// [`Aggregate::snapshots`](crate::Aggregate::snapshots).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The stream.
    pub stream: StreamId,
    /// The version of the last event that is folded in.
    pub version: Version,
    /// The shape of the state that was written; a state of another shape cannot be read from it.
    pub shape: [u8; 16],
    /// The state as JSON.
    pub state: Arc<[u8]>,
}

impl Snapshot {
    /// A snapshot of `stream` at `version`.
    pub fn new(
        stream: StreamId,
        version: Version,
        shape: [u8; 16],
        state: impl Into<Arc<[u8]>>,
    ) -> Self {
        Self { stream, version, shape, state: state.into() }
    }
}

/// Without the state, which is a payload.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("stream", &self.stream)
            .field("version", &self.version)
            .field("bytes", &self.state.len())
            .finish_non_exhaustive()
    }
}
