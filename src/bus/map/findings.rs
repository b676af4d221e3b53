//! What is strange about a wiring.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use serde::Serialize;

use super::{ComponentKind, Grounds, Keeping, Map, MapComponent, MapTopic};

/// Something about a wiring that is probably not meant so. What it displays says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Finding {
    /// Topics of different types have the same name, so that names do not tell them apart.
    SameName {
        /// The name.
        name: &'static str,
        /// The types that the topics carry.
        types: Vec<&'static str>,
    },
    /// An event is published that nobody hears.
    Unheard {
        /// The topic, by its name on the map.
        topic: String,
        /// The event.
        event: &'static str,
        /// Who publishes it.
        publishers: Vec<String>,
    },
    /// An event is handled that nobody publishes.
    Unpublished {
        /// The topic, by its name on the map.
        topic: String,
        /// The event.
        event: &'static str,
        /// Who handles it.
        hearers: Vec<String>,
        /// Whether it would have to come from an aggregate.
        keeping: Keeping,
    },
    /// Each component's events may make the next one publish, and those of the last the first: one event might never come
    /// to rest.
    Circle {
        /// The components in order, from the first in the alphabet; the last is heard by the first.
        components: Vec<String>,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameName { name, types } => write!(
                f,
                "{} topics are named {name} ({}): give all but one another name with `#[event(name = \"…\")]`",
                types.len(),
                types.join(", ")
            ),
            Self::Unheard { topic, event, publishers } => write!(
                f,
                "nobody hears {event} on topic {topic}, which {} publishes: handle it, subscribe before the app starts, or declare who hears it with `bus.component(…).hears::<…>()`",
                publishers.join(" and "),
            ),
            Self::Unpublished { topic, event, hearers, keeping: Keeping::Transient } => write!(
                f,
                "nobody publishes {event} on topic {topic}, which {} handles: make its publisher before the app starts, or declare who publishes it with `bus.component(…).publishes::<…>()`",
                hearers.join(" and "),
            ),
            Self::Unpublished { topic, event, hearers, keeping: Keeping::Durable } => write!(
                f,
                "nobody publishes {event} on topic {topic}, which {} handles: give its aggregate to `App::builder().aggregate::<…>()`, or remove the handler",
                hearers.join(" and "),
            ),
            Self::Circle { components } => write!(
                f,
                "{} → {} is a circle: make sure that an event comes to rest in it, or it is cut when too many handlers have caused one another",
                components.join(" → "),
                components.first().map_or("", String::as_str),
            ),
        }
    }
}

pub(super) fn of(map: &Map) -> Vec<Finding> {
    let mut findings = same_names(map);
    let consumed = map.components.iter().any(|part| {
        use ComponentKind::{Projection, Reactor, Subscriber};
        matches!(part.kind, Projection | Reactor | Subscriber)
    });
    for topic in map.topics.iter().filter(|topic| topic.keeping == Keeping::Transient || consumed) {
        findings.extend(topic.events.iter().filter_map(|event| unheard(map, topic, event)));
    }
    for topic in &map.topics {
        findings.extend(topic.events.iter().filter_map(|event| unpublished(map, topic, event)));
    }
    findings.extend(circles(map));
    findings
}

fn same_names(map: &Map) -> Vec<Finding> {
    let names: BTreeSet<_> = map.topics.iter().map(|topic| topic.plain).collect();
    let types = names.into_iter().map(|name| {
        let named = map.topics.iter().filter(|topic| topic.plain == name);
        (name, named.map(|topic| topic.carries).collect::<Vec<_>>())
    });
    let several = types.filter(|(_, types)| types.len() > 1);
    several.map(|(name, types)| Finding::SameName { name, types }).collect()
}

fn unheard(map: &Map, topic: &MapTopic, event: &'static str) -> Option<Finding> {
    let declared =
        map.components.iter().filter(|part| part.publishes_event(topic, event, Grounds::Declared));
    let publishers: Vec<_> = declared.map(|part| part.name.clone()).collect();
    let heard = map.components.iter().any(|part| part.hears_event(topic, event, Grounds::Seen));
    (!publishers.is_empty() && !heard).then(|| Finding::Unheard {
        topic: topic.name.clone(),
        event,
        publishers,
    })
}

fn unpublished(map: &Map, topic: &MapTopic, event: &'static str) -> Option<Finding> {
    let declared =
        map.components.iter().filter(|part| part.hears_event(topic, event, Grounds::Declared));
    let hearers: Vec<_> = declared.map(|part| part.name.clone()).collect();
    let published =
        map.components.iter().any(|part| part.publishes_event(topic, event, Grounds::Seen));
    (!hearers.is_empty() && !published).then(|| {
        let (topic, keeping) = (topic.name.clone(), topic.keeping);
        Finding::Unpublished { topic, event, hearers, keeping }
    })
}

impl MapComponent {
    /// Whether it hears the event, on these grounds or better ones.
    fn hears_event(&self, topic: &MapTopic, event: &str, worst: Grounds) -> bool {
        let mut hears = self.hears.iter().filter(|hearing| hearing.grounds <= worst);
        hears.any(|hearing| hearing.topic == topic.name && hearing.events.contains(&event))
    }

    /// Whether it publishes the event, on these grounds or better ones.
    fn publishes_event(&self, topic: &MapTopic, event: &str, worst: Grounds) -> bool {
        let mut publishes = self.publishes.iter().filter(|known| known.grounds <= worst);
        publishes.any(|known| known.topic == topic.name && known.events.contains(&event))
    }

    /// Whether something that it publishes is heard by `other`.
    fn causes(&self, other: &Self) -> bool {
        self.publishes.iter().any(|publishing| {
            let same = other.hears.iter().filter(|hearing| hearing.topic == publishing.topic);
            same.into_iter()
                .any(|hearing| hearing.events.iter().any(|event| publishing.events.contains(event)))
        })
    }
}

/// For each component that stands in a circle a shortest one through it; each circle once.
fn circles(map: &Map) -> Vec<Finding> {
    let components = &map.components;
    let next: Vec<Vec<usize>> = components
        .iter()
        .map(|from| {
            let caused = components.iter().enumerate().filter(|(_, to)| from.causes(to));
            caused.map(|(index, _)| index).collect()
        })
        .collect();
    let circles: BTreeSet<_> =
        (0..components.len()).filter_map(|start| shortest_circle(&next, start)).collect();
    let name = |index: &usize| components.get(*index).map(|part| part.name.clone());
    let named = circles.iter().map(|circle| circle.iter().filter_map(name).collect());
    named.map(|components| Finding::Circle { components }).collect()
}

/// Breadth first from `start` back to it. The circle begins with its lowest number, so that it is the same from everywhere.
fn shortest_circle(next: &[Vec<usize>], start: usize) -> Option<Vec<usize>> {
    let mut from: Vec<Option<usize>> = vec![None; next.len()];
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for &to in next.get(at)? {
            if to == start {
                let mut circle = vec![at];
                while let Some(&last) = circle.last()
                    && last != start
                {
                    circle.push((*from.get(last)?)?);
                }
                circle.reverse();
                let lowest = circle.iter().enumerate().min_by_key(|(_, number)| **number)?.0;
                circle.rotate_left(lowest);
                return Some(circle);
            }
            let before = from.get_mut(to)?;
            if before.is_none() {
                *before = Some(at);
                queue.push_back(to);
            }
        }
    }
    None
}
