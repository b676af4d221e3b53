//! A story: what has caused what.
//!
//! ```text
//!  command ── decides ──▶ event ── caused ──▶ command ── decides ──▶ event …
//!     id = command_id      command_id          a reactor sent it       causation_id = the event
//!                                              with `caused_by`, or
//!                                              an aggregate subscribes
//! ```
//! Events name their command and what caused that; the commands themselves are not in the log. So a command that was rejected, or
//! accepted without an event, is in no story.
//!
//! # Finding a story
//! The log has no index over stories: commits would pay for it. The events that may belong to one are looked through. Where the
//! story's id says when it began (a UUIDv7, as all fresh ones are), that is from a day before then on, and from the start of
//! the log only if its beginning is not found there.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::{Awaited, HistoryError};
use crate::clock::Timestamp;
use crate::event::{Header, Recorded};
use crate::id::{CausationId, CommandId, CorrelationId, EventId};
use crate::store::{EventStore, Filter, StoreError};
use crate::stream::{Position, StreamId, Version};

/// How far clocks may be apart, or set back, before a story is looked for in the whole log.
const SLACK: Duration = Duration::from_secs(24 * 60 * 60);

/// How many events of a story are read at a time: as many as stores look at in one go.
const PAGE: usize = 65_536;

/// How many of the events that one stored event is read as are recognised as causes.
const PARTS: usize = 16;

/// How deep a node is indented at most; beyond that its depth is written before it. A story may be as deep as it is long: its text
/// would grow with the square of that, and beyond 65,535 columns the formatter panics.
const INDENTED: usize = 64;

/// A story: its commands and events, each below what caused it.
///
/// Its text is the tree, a line for each, with time, name, stream, version and position; it holds no payload and no metadata. What
/// stands deeper than 64 has its depth before it and is indented no further.
///
/// It is in memory as a whole, with about half a kilobyte for each event; while it is read, with the payloads of up to 65,536 events at
/// a time.
///
/// # Examples
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tidings::{App, Command, Event, Memory, aggregate};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(name = "till.sold")]
/// # struct Sold { cents: i64 }
/// # #[derive(Command, Clone)]
/// # struct Sell { cents: i64 }
/// # #[derive(Default)]
/// # struct Till;
/// # #[aggregate(category = "till", events = TillEvent)]
/// # impl Till {
/// #     #[command]
/// #     fn sell(&self, Sell { cents }: Sell) -> Sold { Sold { cents } }
/// #     #[apply]
/// #     fn sold(&mut self, _: &Sold) {}
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let app = App::builder().store(Memory::new()).aggregate::<Till>().start().await?;
/// let receipt = app.send("1", Sell { cents: 250 }).await?;
/// let sold = &app.history::<Till>("1").await?[0];
/// app.send("2", Sell { cents: 10 }).caused_by(&sold.header).await?;
///
/// let trace = app.trace_of(receipt.position).await?;
/// println!("{trace}");
/// // The command, its event, the command that this has caused, and that one's event.
/// assert_eq!(trace.nodes().len(), 4);
/// assert_eq!(trace.effects(sold.event_id).len(), 2);
/// assert_eq!(trace.causes(sold.event_id).len(), 1);
/// # app.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trace {
    correlation_id: CorrelationId,
    /// Depth first: what a node has caused stands right behind it, and is deeper.
    nodes: Vec<TraceNode>,
    /// Where each stands.
    #[serde(skip)]
    places: HashMap<Uuid, usize>,
}

/// A command or an event of a story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TraceNode {
    /// How many nodes stand above it, up to the one with which this branch of the story begins.
    pub depth: usize,
    /// What it is.
    #[serde(flatten)]
    pub what: Traced,
    #[serde(skip)]
    parent: Option<usize>,
}

/// What stands in a story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Traced {
    /// A command that was accepted. Its events stand below it.
    #[non_exhaustive]
    Command {
        /// Its identity.
        command_id: CommandId,
        /// The event that caused it; none if it was sent from outside.
        cause: Option<CausationId>,
    },
    /// An event. What it has caused stands below it.
    #[non_exhaustive]
    Event {
        /// Its identity.
        event_id: EventId,
        /// Its stored name.
        name: String,
        /// Its stream.
        stream: StreamId,
        /// Its place in the stream.
        version: Version,
        /// Its place in the log.
        position: Position,
        /// When it was decided.
        time: Timestamp,
        /// What caused it, if it was written without a command; none if nothing did.
        cause: Option<CausationId>,
    },
}

impl Traced {
    /// The id of the command or the event.
    pub fn id(&self) -> Uuid {
        match self {
            Self::Command { command_id, .. } => (*command_id).into(),
            Self::Event { event_id, .. } => (*event_id).into(),
        }
    }

    fn cause(&self) -> Option<CausationId> {
        match self {
            Self::Command { cause, .. } | Self::Event { cause, .. } => *cause,
        }
    }
}

impl Trace {
    /// The story.
    pub fn correlation_id(&self) -> CorrelationId {
        self.correlation_id
    }

    /// Whether the log holds nothing of it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All commands and events, each right before what it has caused; otherwise in the order of the log.
    pub fn nodes(&self) -> &[TraceNode] {
        &self.nodes
    }

    /// The events, in the same order.
    pub fn events(&self) -> impl Iterator<Item = &TraceNode> {
        self.nodes.iter().filter(|node| matches!(node.what, Traced::Event { .. }))
    }

    /// With what the story begins: what nothing in it has caused.
    pub fn roots(&self) -> impl Iterator<Item = &TraceNode> {
        self.nodes.iter().filter(|node| node.depth == 0)
    }

    /// The event or command with this id; none if it is not part of the story.
    pub fn node(&self, id: impl Into<Uuid>) -> Option<&TraceNode> {
        self.nodes.get(*self.places.get(&id.into())?)
    }

    /// What led to the event or command with this id: first what caused it directly, last the root. Empty for a root, and for an id
    /// that is not part of the story.
    pub fn causes(&self, id: impl Into<Uuid>) -> Vec<&TraceNode> {
        let node = self.node(id);
        let above = |node: &&TraceNode| self.nodes.get(node.parent?);
        std::iter::successors(node, above).skip(1).collect()
    }

    /// All that the event or command with this id has led to, as it stands in the story. Empty if that is nothing, and for an id that is
    /// not part of the story.
    pub fn effects(&self, id: impl Into<Uuid>) -> &[TraceNode] {
        let Some(place) = self.places.get(&id.into()) else {
            return &[];
        };
        let (above, below) = self.nodes.split_at(place + 1);
        let depth = above.last().map_or(0, |node| node.depth);
        let end = below.iter().position(|node| node.depth <= depth).unwrap_or(below.len());
        below.get(..end).unwrap_or_default()
    }

    /// Puts the events of a story, in the order of the log, below what has caused them.
    fn of(correlation_id: CorrelationId, events: &[Header]) -> Self {
        let mut plan = Plan::default();
        let mut commands = HashMap::new();
        for header in events {
            let parent = header.command_id.map(|id| {
                *commands.entry(id).or_insert_with(|| {
                    let cause = own_or_none(header, id.into());
                    plan.add(Traced::Command { command_id: id, cause }, None)
                })
            });
            let cause = match parent {
                Some(_) => None,
                None => own_or_none(header, header.event_id.into()),
            };
            let event = Traced::Event {
                event_id: header.event_id,
                name: header.name.clone().into_owned(),
                stream: header.stream.clone(),
                version: header.version,
                position: header.position,
                time: header.time,
                cause,
            };
            plan.add(event, parent);
        }
        plan.find_causes();
        let nodes = plan.in_order();
        let places = nodes.iter().enumerate().map(|(place, node)| (node.what.id(), place));
        Self { correlation_id, places: places.collect(), nodes }
    }
}

/// What caused `own`, the command of the event or the event itself, unless nothing did.
fn own_or_none(header: &Header, own: Uuid) -> Option<CausationId> {
    Some(header.causation_id).filter(|cause| *cause.as_uuid() != own)
}

/// A story that is being put together, in the order of the log: what stands later cannot have caused what stands earlier.
#[derive(Default)]
struct Plan {
    things: Vec<(Traced, Option<usize>)>,
}

impl Plan {
    fn add(&mut self, what: Traced, parent: Option<usize>) -> usize {
        self.things.push((what, parent));
        self.things.len() - 1
    }

    fn find_causes(&mut self) {
        let mut known: HashMap<Uuid, usize> = HashMap::new();
        for (place, (what, _)) in self.things.iter().enumerate() {
            known.entry(what.id()).or_insert(place);
        }
        let open = |(what, parent): &(Traced, Option<usize>)| match parent {
            None => what.cause().map(Uuid::from),
            Some(_) => None,
        };
        let mut missing: HashSet<Uuid> = self.things.iter().filter_map(open).collect();
        missing.retain(|cause| !known.contains_key(cause));
        if !missing.is_empty() {
            // A handler of one of the events that a stored one is read as names that one as the cause.
            for (place, (what, _)) in self.things.iter().enumerate() {
                if let Traced::Event { event_id, .. } = what {
                    let parts = (1..PARTS).map(|part| Uuid::from(event_id.part(part)));
                    known.extend(parts.filter(|part| missing.contains(part)).map(|id| (id, place)));
                }
            }
        }
        for place in 0..self.things.len() {
            if let Some(thing) = self.things.get_mut(place)
                && let Some(cause) = open(thing)
            {
                thing.1 = known.get(&cause).copied().filter(|cause| *cause < place);
            }
        }
    }

    /// Depth first, and what has the same cause in the order of the log.
    fn in_order(self) -> Vec<TraceNode> {
        let mut below: HashMap<Option<usize>, Vec<usize>> = HashMap::new();
        for (place, (_, parent)) in self.things.iter().enumerate().rev() {
            below.entry(*parent).or_default().push(place);
        }
        let mut things: Vec<_> = self.things.into_iter().map(|(what, _)| Some(what)).collect();
        let mut nodes = Vec::with_capacity(things.len());
        // Not by recursion: a story may be as deep as it is long.
        let mut left: Vec<(usize, usize, Option<usize>)> = Vec::new();
        let next = |parent, depth, shown, left: &mut Vec<_>, below: &mut HashMap<_, Vec<usize>>| {
            let places = below.remove(&parent).unwrap_or_default();
            left.extend(places.into_iter().map(|place| (place, depth, shown)));
        };
        next(None, 0, None, &mut left, &mut below);
        while let Some((place, depth, parent)) = left.pop() {
            let Some(what) = things.get_mut(place).and_then(Option::take) else { continue };
            let shown = nodes.len();
            nodes.push(TraceNode { depth, what, parent });
            next(Some(place), depth + 1, Some(shown), &mut left, &mut below);
        }
        nodes
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.events().count();
        let s = if events == 1 { "" } else { "s" };
        write!(f, "story {}: {events} event{s}", self.correlation_id)?;
        for node in &self.nodes {
            write!(f, "\n{:indent$}", "", indent = 2 * (node.depth.min(INDENTED) + 1))?;
            if node.depth > INDENTED {
                write!(f, "[{}] ", node.depth)?;
            }
            node.what.fmt(f)?;
            if node.depth == 0
                && let Some(cause) = node.what.cause()
            {
                write!(f, ", caused by {cause}, which is not part of the story")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { command_id, .. } => write!(f, "command {command_id}"),
            Self::Event { name, stream, version, position, time, .. } => {
                write!(f, "{time} {name} in {stream}, version {version}, position {position}")
            }
        }
    }
}

/// The story of the event at `position`.
pub(crate) fn story_at(
    store: &dyn EventStore,
    position: Position,
) -> Result<CorrelationId, HistoryError> {
    match event_at(store, position)? {
        Some(event) => Ok(event.header.correlation_id),
        None => Err(HistoryError::BeyondLog { wanted: position, head: store.head()? }),
    }
}

/// Reads a story and puts it in order.
pub(crate) fn trace(
    store: &dyn EventStore,
    story: CorrelationId,
    awaited: &dyn Awaited,
) -> Result<Trace, HistoryError> {
    let head = store.head()?;
    let begin = match began(story) {
        Some(time) => first_since(store, time, head)?,
        None => Position::START,
    };
    let mut events = read(store, story, (begin, head), awaited)?;
    let begins_there = events.first().is_some_and(|first| {
        let own = first.command_id.map_or_else(|| first.event_id.into(), Uuid::from);
        own == *story.as_uuid()
    });
    if begin > Position::START && !begins_there {
        let earlier = read(store, story, (Position::START, begin), awaited)?;
        events.splice(..0, earlier);
    }
    Ok(Trace::of(story, &events))
}

/// When the story began, as its id says.
fn began(story: CorrelationId) -> Option<Timestamp> {
    let (seconds, nanos) = match story.as_uuid().get_version_num() {
        7 => story.as_uuid().get_timestamp()?.to_unix(),
        _ => return None,
    };
    let micros = seconds.saturating_mul(1_000_000).saturating_add(u64::from(nanos / 1_000));
    let slack = u64::try_from(SLACK.as_micros()).unwrap_or(u64::MAX);
    Some(Timestamp::from_micros(micros.saturating_sub(slack)))
}

/// A position before all events since `time`, if times stand in order; if they do not, some position.
fn first_since(
    store: &dyn EventStore,
    time: Timestamp,
    head: Position,
) -> Result<Position, StoreError> {
    let (mut before, mut since) = (0, head.as_u64());
    while before < since {
        let middle = before + (since - before) / 2;
        match event_at(store, Position::new(middle + 1))? {
            Some(event) if event.header.time < time => before = middle + 1,
            _ => since = middle,
        }
    }
    Ok(Position::new(before))
}

fn event_at(store: &dyn EventStore, position: Position) -> Result<Option<Recorded>, StoreError> {
    match position.as_u64().checked_sub(1) {
        Some(before) => {
            let page = store.read_log(Position::new(before), &Filter::All, 1)?;
            Ok(page.events.into_iter().next())
        }
        None => Ok(None),
    }
}

/// The headers of a story's events between two positions.
fn read(
    store: &dyn EventStore,
    story: CorrelationId,
    (mut after, end): (Position, Position),
    awaited: &dyn Awaited,
) -> Result<Vec<Header>, StoreError> {
    let mut headers = Vec::new();
    while after < end && awaited.is_awaited() {
        let page = store.read_story(story, after, PAGE)?;
        let events = page.events.into_iter().map(|event| event.header);
        headers.extend(events.filter(|header| header.position <= end));
        after = page.through;
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(position: u64, command: Option<u128>, cause: Option<u128>) -> Header {
        let stream = StreamId::new("a", "1").unwrap();
        let mut header = Header::new(stream, "a.one", 1, Timestamp::from_micros(position));
        header.event_id = EventId::from_uuid(Uuid::from_u128(position.into()));
        (header.position, header.version) = (Position::new(position), Version::new(position));
        header.command_id = command.map(|id| CommandId::from_uuid(Uuid::from_u128(id)));
        let own = command.unwrap_or(position.into());
        header.causation_id = CausationId::from_uuid(Uuid::from_u128(cause.unwrap_or(own)));
        header
    }

    #[track_caller]
    fn check(headers: &[Header], expected: &[(usize, u128)]) {
        let story = CorrelationId::from_uuid(Uuid::nil());
        let trace = Trace::of(story, headers);
        let shown = trace.nodes().iter().map(|node| (node.depth, node.what.id().as_u128()));
        assert_eq!(shown.collect::<Vec<_>>(), expected, "{trace}");
    }

    #[test]
    fn what_is_caused_stands_below_its_cause() {
        check(
            &[
                header(1, Some(100), None),
                header(2, Some(100), None),
                header(3, Some(200), Some(1)),
                header(4, Some(300), Some(2)),
                header(5, Some(400), Some(1)),
                header(6, None, Some(3)),
            ],
            &[
                (0, 100),
                (1, 1),
                (2, 200),
                (3, 3),
                (4, 6),
                (2, 400),
                (3, 5),
                (1, 2),
                (2, 300),
                (3, 4),
            ],
        );
    }

    #[test]
    fn circles_and_strangers_are_roots() {
        // The first names a later one as its cause, the second itself by way of its command, the third one of another story.
        check(
            &[header(1, None, Some(2)), header(2, Some(200), Some(2)), header(3, None, Some(99))],
            &[(0, 1), (0, 200), (1, 2), (0, 3)],
        );
    }

    #[test]
    fn a_part_of_an_event_stands_for_the_event() {
        let first = header(1, None, None);
        let mut second = header(2, None, None);
        second.causation_id = CausationId::from_uuid(first.event_id.part(2).into());
        check(&[first, second], &[(0, 1), (1, 2)]);
    }

    #[test]
    fn a_story_as_deep_as_it_is_long_is_put_in_order() {
        let headers: Vec<_> =
            (1..=50_000).map(|at| header(at, None, (at > 1).then(|| u128::from(at) - 1))).collect();
        let trace = Trace::of(CorrelationId::from_uuid(Uuid::nil()), &headers);
        assert_eq!(trace.nodes().last().map(|node| node.depth), Some(49_999));
        assert_eq!(trace.causes(Uuid::from_u128(50_000)).len(), 49_999);
        assert_eq!(trace.effects(Uuid::from_u128(1)).len(), 49_999);
        // Its text grows with its length, not with the square of it.
        assert!(trace.to_string().len() < 50_000 * 400);
    }
}
