//! An aggregate as it was.

use std::fmt;
use std::ops::{ControlFlow, Deref};
use std::pin::Pin;

use serde::Serialize;

use super::{Awaited, HistoryError, aside};
use crate::actor::Panic;
use crate::aggregate::Aggregate;
use crate::clock::Timestamp;
use crate::event::Recorded;
use crate::store::Decoder;
use crate::stream::{InvalidStreamId, Position, StreamId, Version};

/// A place in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamPoint {
    /// Its end.
    Now,
    /// After the event with this version.
    Version(Version),
    /// Before its first event that was decided later than this.
    Time(Timestamp),
}

impl From<Version> for StreamPoint {
    fn from(version: Version) -> Self {
        Self::Version(version)
    }
}

impl From<Timestamp> for StreamPoint {
    fn from(time: Timestamp) -> Self {
        Self::Time(time)
    }
}

/// An aggregate as it was, and where it stood. Dereferences to the aggregate.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Loaded<A> {
    /// Its state.
    pub aggregate: A,
    /// Its stream.
    pub stream: StreamId,
    /// The version of the last event in it; [`Version::EMPTY`] before the first.
    pub version: Version,
    /// When that event was decided; none before the first.
    pub time: Option<Timestamp>,
    /// The position of that event; [`Position::START`] before the first.
    pub position: Position,
    /// How many events were passed over, because the program does not know them and the aggregate
    /// [ignores](crate::Aggregate::unknown_events) such.
    pub ignored: u64,
}

impl<A> Deref for Loaded<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.aggregate
    }
}

impl<A> fmt::Debug for Loaded<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("stream", &self.stream)
            .field("version", &self.version)
            .field("time", &self.time)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// A look at an aggregate; await it. Made by [`App::load`](crate::App::load).
#[must_use = "nothing is loaded unless it is awaited"]
pub struct Loading<A> {
    decoder: Decoder,
    stream: Result<StreamId, InvalidStreamId>,
    until: StreamPoint,
    aggregate: std::marker::PhantomData<fn() -> A>,
}

impl<A: Aggregate> Loading<A> {
    pub(crate) fn new(decoder: Decoder, id: &str) -> Self {
        let stream = StreamId::new(A::CATEGORY, id);
        Self { decoder, stream, until: StreamPoint::Now, aggregate: std::marker::PhantomData }
    }

    /// As it was after the event with this version; [`Version::EMPTY`] is how it began.
    pub fn at_version(self, version: Version) -> Self {
        self.at(version)
    }

    /// As it was at this time: with everything before its first event that was decided later.
    pub fn at_time(self, time: Timestamp) -> Self {
        self.at(time)
    }

    /// As it was at this point.
    pub fn at(mut self, point: impl Into<StreamPoint>) -> Self {
        self.until = point.into();
        self
    }
}

impl<A> fmt::Debug for Loading<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loading")
            .field("stream", &self.stream)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

impl<A: Aggregate> IntoFuture for Loading<A> {
    type Output = Result<Loaded<A>, HistoryError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { decoder, stream, until, .. } = self;
        Box::pin(async move {
            let stream = stream?;
            aside(move |awaited| load(&decoder, stream, until, awaited)).await
        })
    }
}

impl<A: Aggregate> Loaded<A> {
    /// From where a load goes on: what it holds is the fold of all events up to its version.
    fn begin(stream: &StreamId) -> Self {
        Self {
            aggregate: A::default(),
            stream: stream.clone(),
            version: Version::EMPTY,
            time: None,
            position: Position::START,
            ignored: 0,
        }
    }

    fn apply(&mut self, recorded: &Recorded, decoder: &Decoder) -> Result<(), HistoryError> {
        let header = &recorded.header;
        match super::read::<A::Event>(decoder, recorded, A::unknown_events())? {
            Some(read) => read.as_slice().iter().for_each(|event| self.aggregate.apply(event)),
            None => self.ignored += 1,
        }
        self.version = header.version;
        self.time = Some(header.time);
        self.position = header.position;
        Ok(())
    }
}

/// Folds the stream up to `until`.
fn load<A: Aggregate>(
    decoder: &Decoder,
    stream: StreamId,
    until: StreamPoint,
    awaited: &dyn Awaited,
) -> Result<Loaded<A>, HistoryError> {
    let panicked = |version, panic: Panic| HistoryError::Panicked {
        stream: stream.clone(),
        version,
        message: panic.message.to_string(),
    };
    let mut loaded = Panic::catch(|| Loaded::<A>::begin(&stream))
        .map_err(|panic| panicked(Version::EMPTY, panic))?;
    let mut is_empty = loaded.version == Version::EMPTY;
    let mut folded = Ok(());
    decoder.store().read_stream(&stream, loaded.version, &mut |recorded| {
        is_empty = false;
        let is_wanted = match until {
            StreamPoint::Now => true,
            StreamPoint::Version(last) => recorded.header.version <= last,
            StreamPoint::Time(last) => recorded.header.time <= last,
        };
        if !is_wanted || !awaited.is_awaited() {
            return ControlFlow::Break(());
        }
        let version = loaded.version;
        // User code is in here: its `Deserialize`, its `apply`.
        folded = Panic::catch(|| loaded.apply(&recorded, decoder))
            .unwrap_or_else(|panic| Err(panicked(version, panic)));
        match folded {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    folded?;
    match until {
        _ if is_empty => Err(HistoryError::NoEvents { stream }),
        StreamPoint::Version(wanted) if loaded.version < wanted => {
            Err(HistoryError::BeyondStream { stream, wanted, actual: loaded.version })
        }
        _ => Ok(loaded),
    }
}
