//! What a subscription hands over.

use std::fmt;
use std::ops::{Deref, Range};
use std::slice;
use std::sync::Arc;

use super::ring::Segment;

/// Some events of a topic, in order, by reference: dereferences to a slice, which is never empty when it is delivered.
pub struct Batch<'a, T> {
    pub(super) events: &'a [T],
    pub(super) missed: u64,
    pub(super) depth: u8,
}

impl<'a, T> Batch<'a, T> {
    /// The events; they live as long as the subscription is not asked for more.
    pub fn events(&self) -> &'a [T] {
        self.events
    }

    /// How many events were published between the batch before and this one that this subscription has missed. Always zero
    /// unless it [drops the oldest](crate::Subscribe::drop_oldest), which says where it is not exact.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// How many handlers caused these events one after the other; zero for what was not published in a handler.
    pub fn causation_depth(&self) -> u8 {
        self.depth
    }
}

impl<T> Deref for Batch<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.events
    }
}

impl<T> Clone for Batch<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Batch<'_, T> {}

impl<T> fmt::Debug for Batch<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("events", &self.events.len())
            .field("missed", &self.missed)
            .finish_non_exhaustive()
    }
}

impl<'a, T> IntoIterator for Batch<'a, T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.events.iter()
    }
}

impl<'a, T> IntoIterator for &Batch<'a, T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.events.iter()
    }
}

/// Some events of a topic, in order, held in common with the topic instead of copied: dereferences to a slice.
///
/// It may be kept and sent to other threads. As long as it lives the memory of its events is not used again: that of some
/// hundred events, whichever of them it shows.
pub struct SharedBatch<T> {
    pub(super) held: Held<T>,
    pub(super) range: Range<usize>,
    pub(super) missed: u64,
}

pub(super) enum Held<T> {
    Segment(Arc<Segment<T>>),
    Rows(Arc<Vec<T>>),
}

impl<T> SharedBatch<T> {
    /// How many events were published between the batch before and this one that this subscription has missed. Always zero
    /// unless it [drops the oldest](crate::Subscribe::drop_oldest).
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

impl<T> Deref for SharedBatch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let events = match &self.held {
            Held::Segment(segment) => segment.published(),
            Held::Rows(rows) => rows.as_slice(),
        };
        events.get(self.range.clone()).unwrap_or(&[])
    }
}

impl<T> Clone for SharedBatch<T> {
    fn clone(&self) -> Self {
        let held = match &self.held {
            Held::Segment(segment) => Held::Segment(Arc::clone(segment)),
            Held::Rows(rows) => Held::Rows(Arc::clone(rows)),
        };
        Self { held, range: self.range.clone(), missed: self.missed }
    }
}

impl<T> fmt::Debug for SharedBatch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBatch")
            .field("events", &self.range.len())
            .field("missed", &self.missed)
            .finish_non_exhaustive()
    }
}

impl<'a, T> IntoIterator for &'a SharedBatch<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
