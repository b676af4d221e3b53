//! The directory: which shard owns the aggregate of a stream.

use std::sync::Arc;

use super::Aggregate;
use super::inbox::Inbox;
use super::shard::Incoming;
use crate::stream::StreamId;

/// The way to the shards of one type of aggregate.
pub(crate) struct Directory<A: Aggregate> {
    shards: Vec<Arc<Inbox<Incoming<A>>>>,
}

impl<A: Aggregate> Directory<A> {
    pub(crate) fn new(shards: Vec<Arc<Inbox<Incoming<A>>>>) -> Self {
        Self { shards }
    }

    /// The inbox of the shard that owns `stream`; always the same one within a process.
    pub(crate) fn shard_of(&self, stream: &StreamId) -> Option<&Arc<Inbox<Incoming<A>>>> {
        // The shards' own tables use the lowest and the highest bits of the hash, so the ones between choose the shard.
        let middle = (stream.hash64() >> 16) & 0xffff_ffff;
        let shard = (middle * self.shards.len() as u64) >> 32;
        self.shards.get(usize::try_from(shard).unwrap_or_default())
    }
}

impl<A: Aggregate> std::fmt::Debug for Directory<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory")
            .field("category", &A::CATEGORY)
            .field("shards", &self.shards.len())
            .finish()
    }
}
