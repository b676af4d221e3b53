//! One topic of a processor, with the handlers for its events.

use std::any::{Any, TypeId};
use std::error::Error;
use std::ops::ControlFlow;

use tracing::trace_span;

use super::{Chunk, Trouble};
use crate::actor::Panic;
use crate::bus::{Cursor, Peek, Reference, Topic, Topics};
use crate::codec::Codec;
use crate::event::{Envelope, EventSet, Header, Recorded};
use crate::stream::Position;
use crate::telemetry;

/// A topic whose events are folded into a `T`.
pub(crate) trait Source<T>: Send {
    /// The stored names of the events that have a handler.
    fn names(&self) -> Vec<&'static str>;

    /// The set of events, with the stored names of all of them.
    fn set(&self) -> (TypeId, &'static [&'static str]);

    /// The events that have a handler, for the map.
    fn heard(&self) -> Reference;

    /// Finds the topic.
    fn connect(&mut self, topics: &mut Topics);

    /// Stands behind `after` in the ring, so that neither an event is missed nor one seen twice. False if the ring has let go
    /// of what comes next.
    fn join(&mut self, after: Position) -> bool;

    /// Lets go of the ring.
    fn leave(&mut self);

    /// What comes next in the ring.
    fn peek(&mut self) -> Peek;

    /// Folds what the ring holds up to `through`, at most `room` events, and takes note in `chunk`.
    fn fold_live(&mut self, target: &mut T, through: Position, room: &mut usize, chunk: &mut Chunk);

    /// Folds an event from the log.
    fn fold_recorded(&self, target: &mut T, event: &Recorded, codec: Codec) -> Result<(), Trouble>;

    /// For finding the source of a set again while handlers are named.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

/// What a handler does with one event of set `S`.
pub(crate) type Handler<T, S> =
    Box<dyn Fn(&mut T, &S, &Header) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync>;

/// The source of the events of set `S`.
pub(crate) struct TypedSource<T, S: EventSet> {
    /// By the index of the event in its set.
    handlers: Vec<Option<Handler<T, S>>>,
    topic: Option<Topic<Envelope<S>>>,
    cursor: Option<Cursor<S>>,
}

impl<T, S: EventSet> TypedSource<T, S> {
    pub(crate) fn new() -> Self {
        let handlers = S::NAMES.iter().map(|_| None).collect();
        Self { handlers, topic: None, cursor: None }
    }

    /// Sets the handler of the event with this index; false if it has one already.
    pub(crate) fn handle(&mut self, index: usize, handler: Handler<T, S>) -> bool {
        match self.handlers.get_mut(index) {
            Some(free @ None) => {
                *free = Some(handler);
                true
            }
            Some(Some(_)) | None => false,
        }
    }
}

impl<T: 'static, S: EventSet> Source<T> for TypedSource<T, S> {
    fn names(&self) -> Vec<&'static str> {
        let named = S::NAMES.iter().zip(&self.handlers);
        named.filter(|(_, handler)| handler.is_some()).map(|(name, _)| *name).collect()
    }

    fn set(&self) -> (TypeId, &'static [&'static str]) {
        (TypeId::of::<S>(), S::NAMES)
    }

    fn heard(&self) -> Reference {
        Reference::to_some::<Envelope<S>>(self.names())
    }

    fn connect(&mut self, topics: &mut Topics) {
        self.topic = Some(topics.of::<S>());
    }

    fn join(&mut self, after: Position) -> bool {
        self.cursor = self.topic.as_ref().and_then(|topic| topic.join(after).ok());
        self.cursor.is_some()
    }

    fn leave(&mut self) {
        self.cursor = None;
    }

    fn peek(&mut self) -> Peek {
        self.cursor.as_mut().map_or(Peek::Lagged, Cursor::peek)
    }

    fn fold_live(
        &mut self,
        target: &mut T,
        through: Position,
        room: &mut usize,
        chunk: &mut Chunk,
    ) {
        let Some(cursor) = &mut self.cursor else {
            return;
        };
        let handlers = &self.handlers;
        // A reader that was overtaken meanwhile learns it from its next peek.
        let _ = cursor.read(through, *room, |envelope| {
            *room -= 1;
            match fold(handlers, target, &envelope.event, &envelope.header) {
                Ok(()) => {
                    chunk.through = envelope.header.position;
                    chunk.time = Some(envelope.header.time);
                    ControlFlow::Continue(())
                }
                Err(failure) => {
                    chunk.failure = Some(failure);
                    ControlFlow::Break(())
                }
            }
        });
    }

    fn fold_recorded(&self, target: &mut T, event: &Recorded, codec: Codec) -> Result<(), Trouble> {
        let decoded = match Panic::catch(|| event.decode::<S>(codec)) {
            Ok(Ok(decoded)) => decoded,
            Ok(Err(error)) => return Err(failure(&event.header, error.into())),
            Err(panic) => return Err(panicked(&event.header, &panic)),
        };
        fold(&self.handlers, target, &decoded, &event.header)
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// Hands one event to its handler, if it has one.
fn fold<T, S: EventSet>(
    handlers: &[Option<Handler<T, S>>],
    target: &mut T,
    event: &S,
    header: &Header,
) -> Result<(), Trouble> {
    let Some(Some(handler)) = handlers.get(event.index()) else {
        return Ok(());
    };
    let _span = trace_span!(
        telemetry::HANDLE,
        event = &*header.name,
        event_id = %header.event_id,
        position = header.position.as_u64(),
        correlation_id = %header.correlation_id,
    )
    .entered();
    match Panic::catch(|| handler(target, event, header)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failure(header, error)),
        Err(panic) => Err(panicked(header, &panic)),
    }
}

fn panicked(header: &Header, panic: &Panic) -> Trouble {
    failure(header, format!("it panicked: {}", panic.message).into())
}

fn failure(header: &Header, source: Box<dyn Error + Send + Sync>) -> Trouble {
    Trouble::Handler {
        position: header.position,
        event_id: header.event_id,
        name: header.name.clone().into_owned(),
        stream: header.stream.clone(),
        source,
    }
}
