//! The events of a stream, as they happened.

use std::fmt;
use std::ops::ControlFlow;
use std::pin::Pin;

use super::{Awaited, HistoryError, aside};
use crate::actor::Panic;
use crate::aggregate::Aggregate;
use crate::event::{Envelope, EventSet, Recorded};
use crate::retry::UnknownEvents;
use crate::store::Decoder;
use crate::stream::{InvalidStreamId, StreamId, Version};

/// A look at the events of a stream; await it for them, in their order. Made by [`App::history`](crate::App::history) and
/// [`App::history_of`](crate::App::history_of).
#[must_use = "nothing is read unless it is awaited"]
pub struct History<E> {
    decoder: Decoder,
    stream: Result<StreamId, InvalidStreamId>,
    after: Version,
    limit: usize,
    unknown: UnknownEvents,
    read: Read<E>,
}

/// Reads a stored event as those of today, of which there may be none or several.
type Read<E> = fn(&Decoder, Recorded, UnknownEvents, &mut Vec<E>) -> Result<(), HistoryError>;

impl<S: EventSet> History<Envelope<S>> {
    pub(crate) fn typed<A: Aggregate<Event = S>>(decoder: Decoder, id: &str) -> Self {
        let stream = StreamId::new(A::CATEGORY, id);
        Self::new(decoder, stream, A::unknown_events(), read::<S>)
    }
}

impl History<Recorded> {
    pub(crate) fn stored(decoder: Decoder, stream: StreamId) -> Self {
        Self::new(decoder, Ok(stream), UnknownEvents::Refuse, |_, recorded, _, events| {
            events.push(recorded);
            Ok(())
        })
    }
}

impl<E> History<E> {
    fn new(
        decoder: Decoder,
        stream: Result<StreamId, InvalidStreamId>,
        unknown: UnknownEvents,
        read: Read<E>,
    ) -> Self {
        Self { decoder, stream, after: Version::EMPTY, limit: usize::MAX, unknown, read }
    }

    /// Begins after the event with this version: that of the last one seen, for the next page.
    pub fn after(mut self, version: Version) -> Self {
        self.after = version;
        self
    }

    /// Reads so many events; all of them unless set, which are in memory at once then. Fewer come back at the end of the stream only.
    ///
    /// What one stored event is read as is never divided, so a few more may come back.
    pub fn limit(mut self, events: usize) -> Self {
        self.limit = events;
        self
    }
}

impl<E> fmt::Debug for History<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("stream", &self.stream)
            .field("after", &self.after)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<E: Send + 'static> IntoFuture for History<E> {
    type Output = Result<Vec<E>, HistoryError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let stream = self.stream.clone()?;
            aside(move |awaited| self.collect(&stream, awaited)).await
        })
    }
}

impl<E> History<E> {
    fn collect(&self, stream: &StreamId, awaited: &dyn Awaited) -> Result<Vec<E>, HistoryError> {
        let mut events = Vec::new();
        if self.limit == 0 {
            return Ok(events);
        }
        let mut outcome = Ok(());
        let mut version = self.after;
        self.decoder.store().read_stream(stream, self.after, &mut |recorded| {
            let next = recorded.header.version;
            // User code is in here: its `Deserialize`.
            outcome =
                Panic::catch(|| (self.read)(&self.decoder, recorded, self.unknown, &mut events))
                    .unwrap_or_else(|panic| {
                        let (stream, message) = (stream.clone(), panic.message.to_string());
                        Err(HistoryError::Panicked { stream, version, message })
                    });
            version = next;
            match outcome {
                Ok(()) if events.len() < self.limit && awaited.is_awaited() => {
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            }
        })?;
        outcome?;
        Ok(events)
    }
}

fn read<S: EventSet>(
    decoder: &Decoder,
    recorded: Recorded,
    unknown: UnknownEvents,
    events: &mut Vec<Envelope<S>>,
) -> Result<(), HistoryError> {
    let read = super::read::<S>(decoder, &recorded, unknown)?;
    events.extend(read.into_iter().flatten().enumerate().map(|(place, event)| {
        let header = recorded.header.part(place).into_owned();
        Envelope { header, event }
    }));
    Ok(())
}
