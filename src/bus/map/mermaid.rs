//! A map as text for Mermaid.

use super::{Grounds, Keeping, Map, MapHearing, MapPublishing};
use crate::bus::subscribe::Overflow;

pub(super) fn text(map: &Map) -> String {
    let mut lines = vec!["flowchart LR".to_owned()];
    for (index, topic) in map.topics.iter().enumerate() {
        let name = escaped(&topic.name);
        lines.push(match topic.keeping {
            Keeping::Transient => format!("    t{index}([\"{name}\"])"),
            Keeping::Durable => format!("    t{index}[(\"{name}\")]"),
        });
    }
    for (index, component) in map.components.iter().enumerate() {
        let stopped = if component.trouble.is_some() { " (in trouble)" } else { "" };
        lines.push(format!("    c{index}[\"{}{stopped}\"]", escaped(&component.name)));
    }
    let number = |name: &str| map.topics.iter().position(|topic| topic.name == name);
    for (index, component) in map.components.iter().enumerate() {
        for publishing in &component.publishes {
            let Some(topic) = number(&publishing.topic) else { continue };
            let arrow = if publishing.grounds == Grounds::Seen { "-.->" } else { "-->" };
            let label = label(&published(map, publishing));
            lines.push(format!("    c{index} {arrow}{label} t{topic}"));
        }
    }
    for (index, component) in map.components.iter().enumerate() {
        for hearing in &component.hears {
            let Some(topic) = number(&hearing.topic) else { continue };
            lines.push(format!("    t{topic} -->{} c{index}", label(&heard(map, hearing))));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn published(map: &Map, publishing: &MapPublishing) -> String {
    some(map, &publishing.topic, &publishing.events)
}

fn heard(map: &Map, hearing: &MapHearing) -> String {
    let events = some(map, &hearing.topic, &hearing.events);
    let subscriptions = hearing.subscriptions.iter().map(|subscription| {
        let policy = match subscription.overflow {
            Overflow::Block => "block",
            Overflow::DropOldest => "drop oldest",
            Overflow::FromLog => "from log",
            Overflow::Latest => "latest",
        };
        let missed = match subscription.missed {
            0 => String::new(),
            missed => format!(", missed {missed}"),
        };
        format!("{policy}, lag {}{missed}", subscription.lag)
    });
    let parts = std::iter::once(events).filter(|events| !events.is_empty()).chain(subscriptions);
    parts.collect::<Vec<_>>().join("; ")
}

/// The names of the events, unless they are all of the topic.
fn some(map: &Map, topic: &str, events: &[&'static str]) -> String {
    let all = map.topic(topic).map_or(0, |topic| topic.events.len());
    if events.len() == all { String::new() } else { events.join(", ") }
}

fn label(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("|\"{}\"|", escaped(text)) }
}

/// What Mermaid or the HTML that it writes would read as more than text becomes an entity.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' => escaped.push_str("#quot;"),
            '#' => escaped.push_str("#35;"),
            '&' => escaped.push_str("#amp;"),
            '<' => escaped.push_str("#lt;"),
            '>' => escaped.push_str("#gt;"),
            '`' => escaped.push_str("#96;"),
            other if other.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
