//! The events that an engine has in hand, in the order of the log, and the checkpoint that follows from them.

use std::collections::VecDeque;

use crate::clock::Timestamp;
use crate::sequencer::Head;
use crate::stream::Position;

/// How many events an engine reads ahead of its checkpoint at most. It bounds its memory, and how many events are delivered
/// again after a crash; one event that takes long holds the others up when so many have been handled after it.
pub(super) const WINDOW: usize = 1_024;

/// Events from the checkpoint on, those among them that are finished included.
#[derive(Debug)]
pub(super) struct Window {
    events: VecDeque<InHand>,
    /// Everything up to here was read.
    through: Position,
    /// When the last event before those in hand was decided.
    time: Timestamp,
    /// When what stands at `through` was decided, if that is known.
    level: Timestamp,
}

#[derive(Debug)]
struct InHand {
    position: Position,
    time: Timestamp,
    finished: bool,
}

impl Window {
    pub(super) fn new(position: Position, time: Timestamp) -> Self {
        Self { events: VecDeque::new(), through: position, time, level: time }
    }

    /// How many more events may be taken in hand.
    pub(super) fn room(&self) -> usize {
        WINDOW.saturating_sub(self.events.len())
    }

    /// Everything up to here was read.
    pub(super) fn through(&self) -> Position {
        self.through
    }

    /// Takes the next event in hand.
    pub(super) fn add(&mut self, position: Position, time: Timestamp) {
        self.events.push_back(InHand { position, time, finished: false });
    }

    /// Everything up to here was read; `head` says when it was decided, if it is the newest event.
    pub(super) fn reach(&mut self, through: Position, head: &Head) {
        self.through = through;
        if through >= head.position {
            self.level = head.time;
        }
    }

    /// The event at `position` was handled, or stands on the shelf.
    pub(super) fn finish(&mut self, position: Position) {
        let index = self.events.partition_point(|event| event.position < position);
        if let Some(event) = self.events.get_mut(index) {
            event.finished |= event.position == position;
        }
        while let Some(event) = self.events.pop_front_if(|event| event.finished) {
            self.time = event.time;
        }
    }

    /// Every event up to this position is finished; and when the last of them was decided.
    pub(super) fn checkpoint(&self) -> (Position, Timestamp) {
        match self.events.front() {
            None => (self.through, self.time.max(self.level)),
            Some(first) => (Position::new(first.position.as_u64().saturating_sub(1)), self.time),
        }
    }
}
