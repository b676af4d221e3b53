//! From an event as it was stored to the events of today.

use std::error::Error;

use super::Recorded;

/// What a stored event is read as: nearly always one event; none if its kind was given up, several if it was split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadAs<S> {
    /// One event.
    One(S),
    /// Any other number, in their order.
    Many(Vec<S>),
}

impl<S> ReadAs<S> {
    /// The events, in their order.
    pub fn as_slice(&self) -> &[S] {
        match self {
            Self::One(event) => std::slice::from_ref(event),
            Self::Many(events) => events,
        }
    }
}

impl<S> IntoIterator for ReadAs<S> {
    type Item = S;
    type IntoIter = std::iter::Chain<std::option::IntoIter<S>, std::vec::IntoIter<S>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, many) = match self {
            Self::One(event) => (Some(event), Vec::new()),
            Self::Many(events) => (None, events),
        };
        one.into_iter().chain(many)
    }
}

/// The events beside a stored one in its stream, for kinds of events that are read together with a neighbour.
pub trait Neighbours {
    /// The event before `event` in its stream; none if it is the first.
    ///
    /// # Errors
    /// Why the log cannot be read.
    fn before(&self, event: &Recorded) -> Result<Option<Recorded>, Box<dyn Error + Send + Sync>>;

    /// The event after `event` in its stream; none if it is the last.
    ///
    /// # Errors
    /// Why the log cannot be read.
    fn after(&self, event: &Recorded) -> Result<Option<Recorded>, Box<dyn Error + Send + Sync>>;
}
