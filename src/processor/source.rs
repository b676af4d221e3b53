//! One topic of a processor, with the handlers for its events.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::ops::ControlFlow;

use tracing::trace_span;

use super::{Chunk, Failure, Sorting};
use crate::actor::Panic;
use crate::bus::{Cursor, Peek, Reference, Topic, Topics};
#[cfg(feature = "personal")]
use crate::event::Event;
use crate::event::{DecodeError, Envelope, EventSet, Header, Recorded, SetInfo};
use crate::letters::shelf::Fate;
#[cfg(feature = "personal")]
use crate::personal::SubjectForgotten;
use crate::retry::UnknownEvents;
use crate::store::Decoder;
use crate::stream::{Position, StreamId};
use crate::telemetry;

/// A topic whose events are folded into a `T`.
pub(crate) trait Source<T>: Send {
    /// The stored names of the events that have a handler.
    fn names(&self) -> Vec<&'static str>;

    /// Whether the events of this stored name are not handled in a replay; none if it is not the same for all of them.
    fn is_live_only(&self, name: &str) -> Option<bool>;

    /// Whether the event is not handled in a replay. One that cannot be read is not.
    fn is_event_live_only(&self, event: &Recorded, decoder: &Decoder) -> bool;

    /// The set of events.
    fn set(&self) -> SetInfo;

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
    fn fold_live(
        &mut self,
        target: &mut T,
        through: Position,
        sorting: &Sorting<'_>,
        room: &mut usize,
        chunk: &mut Chunk,
    );

    /// Folds an event from the log, and takes note in `chunk`.
    fn fold_recorded(
        &self,
        target: &mut T,
        event: &Recorded,
        sorting: &Sorting<'_>,
        chunk: &mut Chunk,
    );

    /// Whether the event can be read.
    ///
    /// # Errors
    /// Why it cannot.
    fn check(&self, event: &Recorded, decoder: &Decoder) -> Result<(), DecodeError>;

    /// For finding the source of a set again while handlers are named.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

/// All topics of a processor.
pub(crate) type Sources<T> = Vec<Box<dyn Source<T>>>;

/// What a consumer does with one event of set `S`.
pub(crate) struct Handler<T, S> {
    pub(crate) call: Box<Call<T, S>>,
    /// By what the events are kept in order; by their stream if it is not said.
    pub(crate) key: Option<Box<KeyOf<S>>>,
    /// It does not run in a replay.
    pub(crate) live_only: bool,
}

pub(crate) type Call<T, S> =
    dyn Fn(&mut T, &S, &Header) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync;

pub(crate) type KeyOf<S> = dyn Fn(&S, &Header) -> String + Send + Sync;

impl<T, S> Handler<T, S> {
    fn key<'h>(&self, event: &S, header: &'h Header) -> Result<Cow<'h, str>, Panic> {
        match &self.key {
            None => Ok(header.stream.as_str().into()),
            Some(key) => Panic::catch(|| key(event, header).into()),
        }
    }
}

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

    /// The handler of the event with this index.
    pub(crate) fn handler(&mut self, index: usize) -> Option<&mut Handler<T, S>> {
        self.handlers.get_mut(index)?.as_mut()
    }
}

impl<T: 'static, S: EventSet> Source<T> for TypedSource<T, S> {
    fn names(&self) -> Vec<&'static str> {
        let named = S::NAMES.iter().zip(&self.handlers);
        named.filter(|(_, handler)| handler.is_some()).map(|(name, _)| *name).collect()
    }

    fn is_live_only(&self, name: &str) -> Option<bool> {
        let live_only = |handler: &Handler<T, S>| handler.live_only;
        if !self.handlers.iter().flatten().any(live_only) {
            return Some(false);
        }
        if S::FORMER_NAMES.contains(&name) {
            return None;
        }
        let named = S::NAMES.iter().zip(&self.handlers).filter(|(known, _)| **known == name);
        let mut handlers = named.filter_map(|(_, handler)| handler.as_ref()).map(live_only);
        let first = handlers.next()?;
        handlers.all(|live_only| live_only == first).then_some(first)
    }

    fn is_event_live_only(&self, event: &Recorded, decoder: &Decoder) -> bool {
        let Ok(Ok(read)) = Panic::catch(|| decoder.read::<S>(event)) else {
            return false;
        };
        let events = read.as_slice().iter();
        let mut handlers = events.filter_map(|event| self.handlers.get(event.index())?.as_ref());
        handlers.next().is_some_and(|first| first.live_only)
            && handlers.all(|handler| handler.live_only)
    }

    fn set(&self) -> SetInfo {
        SetInfo::of::<S>()
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
        sorting: &Sorting<'_>,
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
            let Envelope { event, header } = envelope;
            let folded = match sorting.fate(header.position) {
                Fate::Handle => {
                    fold(handlers, target, std::slice::from_ref(event), header, sorting, chunk)
                }
                Fate::Discarded => Ok(()),
                Fate::Edited(payload) => {
                    let edited = Recorded::edited(header, payload);
                    fold_stored(handlers, target, &edited, sorting, chunk)
                }
            };
            match folded {
                Ok(()) => {
                    chunk.through = envelope.header.position;
                    ControlFlow::Continue(())
                }
                Err(failure) => {
                    chunk.failure = Some(failure);
                    ControlFlow::Break(())
                }
            }
        });
    }

    fn fold_recorded(
        &self,
        target: &mut T,
        event: &Recorded,
        sorting: &Sorting<'_>,
        chunk: &mut Chunk,
    ) {
        let folded = match sorting.fate(event.position) {
            Fate::Handle => fold_stored(&self.handlers, target, event, sorting, chunk),
            Fate::Edited(payload) => {
                let edited = Recorded::edited(&event.header, payload);
                fold_stored(&self.handlers, target, &edited, sorting, chunk)
            }
            Fate::Discarded => Ok(()),
        };
        chunk.failure = folded.err();
    }

    fn check(&self, event: &Recorded, decoder: &Decoder) -> Result<(), DecodeError> {
        decoder.read::<S>(event).map(drop)
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// Reads a stored event and folds what it is today.
fn fold_stored<T, S: EventSet>(
    handlers: &[Option<Handler<T, S>>],
    target: &mut T,
    event: &Recorded,
    sorting: &Sorting<'_>,
    chunk: &mut Chunk,
) -> Result<(), Box<Failure>> {
    let header = &event.header;
    let source = match Panic::catch(|| sorting.decoder.read::<S>(event)) {
        Ok(Ok(read)) => return fold(handlers, target, read.as_slice(), header, sorting, chunk),
        Ok(Err(error)) if error.is_unknown() && sorting.unknown == UnknownEvents::Ignore => {
            chunk.ignored += 1;
            return Ok(());
        }
        Ok(Err(error)) => error.into(),
        Err(panic) => panicked(&panic),
    };
    without_key(header, source, sorting, chunk)
}

/// Hands what an event is read as to its handlers, if nothing stands in its way. All of it is kept in order by the key of the
/// first that has a handler, and handled or set aside as one.
fn fold<T, S: EventSet>(
    handlers: &[Option<Handler<T, S>>],
    target: &mut T,
    events: &[S],
    header: &Header,
    sorting: &Sorting<'_>,
    chunk: &mut Chunk,
) -> Result<(), Box<Failure>> {
    let is_replay = header.position <= sorting.replayed;
    let handled = |(place, event): (usize, &'_ S)| {
        let handler = handlers.get(event.index())?.as_ref()?;
        (!(handler.live_only && is_replay)).then_some((place, handler))
    };
    let mut rest = events.iter().enumerate().filter_map(|event| Some((event.1, handled(event)?)));
    let Some(first) = rest.next() else {
        return Ok(());
    };
    let (event, (place, handler)) = first;
    let part = header.part(place);
    if sorting.letters().is_some() {
        let aside = match &handler.key {
            None => {
                let stream = &header.stream;
                sorting.sets_aside(stream.as_str(), stream.hash64(), header, chunk)
            }
            Some(_) => match handler.key(event, &part) {
                Ok(key) => sorting.sets_aside(&key, StreamId::hash_of(&key), header, chunk),
                Err(panic) => return without_key(header, panicked(&panic), sorting, chunk),
            },
        };
        if aside {
            return Ok(());
        }
    }
    let failed = |(source, span)| {
        let key = handler.key(event, &part).unwrap_or_else(|_| header.stream.as_str().into());
        failure(header, key, source, span)
    };
    call(target, handler, event, &part, chunk).map_err(failed)?;
    for (event, (place, handler)) in rest {
        call(target, handler, event, &header.part(place), chunk).map_err(failed)?;
    }
    Ok(())
}

/// Calls one handler; a failure comes with the span that it happened in.
fn call<T, S: EventSet>(
    target: &mut T,
    handler: &Handler<T, S>,
    event: &S,
    header: &Header,
    chunk: &mut Chunk,
) -> Result<(), (Box<dyn Error + Send + Sync>, Option<u64>)> {
    let span = trace_span!(
        telemetry::HANDLE,
        event = &*header.name,
        event_id = %header.event_id,
        position = header.position.as_u64(),
        correlation_id = %header.correlation_id,
    );
    let entered = span.enter();
    let outcome = Panic::catch(|| (handler.call)(target, event, header));
    drop(entered);
    let source = match outcome {
        Ok(Ok(())) => {
            chunk.time = Some(header.time);
            chunk.handled += 1;
            #[cfg(feature = "personal")]
            {
                chunk.forgets |= header.name == SubjectForgotten::NAME;
            }
            return Ok(());
        }
        Ok(Err(error)) => error,
        Err(panic) => panicked(&panic),
    };
    Err((source, span.id().map(|id| id.into_u64())))
}

/// Deals with an event that no source has a handler for: the program does not know it, unless the handler is gone that it
/// once had.
pub(super) fn pass_unknown<T>(
    sources: &Sources<T>,
    event: &Recorded,
    sorting: &Sorting<'_>,
    chunk: &mut Chunk,
) {
    let header = &event.header;
    if matches!(sorting.fate(header.position), Fate::Discarded) {
        return;
    }
    let Some(unknown) = sources.iter().find_map(|source| source.set().unknown(header)) else {
        return;
    };
    match sorting.unknown {
        UnknownEvents::Ignore => chunk.ignored += 1,
        // Not behind a letter either, unless it became one itself when the policy was another.
        UnknownEvents::Refuse if !sorting.is_letter(header.position) => {
            let key = header.stream.as_str().into();
            chunk.failure = Some(failure(header, key, unknown.into(), None));
        }
        UnknownEvents::Refuse | UnknownEvents::Park => {
            chunk.failure = without_key(header, unknown.into(), sorting, chunk).err();
        }
    }
}

/// Deals with an event that cannot be handled and whose key is not known: it is kept in order by its stream.
fn without_key(
    header: &Header,
    source: Box<dyn Error + Send + Sync>,
    sorting: &Sorting<'_>,
    chunk: &mut Chunk,
) -> Result<(), Box<Failure>> {
    let stream = &header.stream;
    match sorting.sets_aside(stream.as_str(), stream.hash64(), header, chunk) {
        true => Ok(()),
        false => Err(failure(header, stream.as_str().into(), source, None)),
    }
}

/// What is said of user code that panicked.
pub(super) fn panicked(panic: &Panic) -> Box<dyn Error + Send + Sync> {
    format!("it panicked: {}", panic.message).into()
}

fn failure(
    header: &Header,
    key: Cow<'_, str>,
    source: Box<dyn Error + Send + Sync>,
    span: Option<u64>,
) -> Box<Failure> {
    Box::new(Failure { header: header.clone(), key: key.into(), source, span })
}
