//! What a change of a shape means, in words.

use std::fmt::Write;

use super::Set;
use crate::shape::Form;
use crate::shape::fit::{Fit, Kind, Severity, fit};

/// Who reads what after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Old and new programs read each other's events.
    Both,
    /// New programs read old events.
    Backward,
    /// Old programs read new events.
    Forward,
    /// Neither.
    Breaking,
    /// A part that is not described has changed.
    Unjudged,
}

impl Class {
    fn of(backward: Severity, forward: Severity) -> Self {
        match (backward, forward) {
            (Severity::Reads, Severity::Reads) => Self::Both,
            (Severity::Reads, _) => Self::Backward,
            (Severity::Unjudged, _) => Self::Unjudged,
            (Severity::Breaks, Severity::Reads) => Self::Forward,
            (Severity::Breaks, _) => Self::Breaking,
        }
    }

    /// The log is read for ever: a change may stand if this program reads all that is stored.
    pub(super) fn can_be_accepted(self) -> bool {
        match self {
            Self::Both | Self::Backward | Self::Unjudged => true,
            Self::Forward | Self::Breaking => false,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Both => {
                "compatible in both directions\n  this program and the release before it read each other's events"
            }
            Self::Backward => {
                "backward-compatible\n  this program reads what is stored; the release before it does not read what this one writes"
            }
            Self::Forward => {
                "forward-compatible, but not backward\n  the release before it reads what this program writes; this program does not read what is stored"
            }
            Self::Breaking => {
                "breaking\n  this program does not read what is stored, and the release before it does not read what this one writes"
            }
            Self::Unjudged => "cannot be judged\n  a part has changed that is not described",
        }
    }
}

/// A shape that is another than the lock has.
pub(super) struct Change {
    pub(super) class: Class,
    /// What this program makes of stored events.
    backward: Vec<Fit>,
    /// What the release before it makes of this one's.
    forward: Vec<Fit>,
}

/// How `new` differs from `old`; none if they are equal.
pub(super) fn compare(old: &Form, new: &Form) -> Option<Change> {
    if old == new {
        return None;
    }
    let worst = |found: &[Fit]| found.iter().map(Fit::severity).max().unwrap_or(Severity::Reads);
    let (backward, forward) = (fit(old, new), fit(new, old));
    let class = Class::of(worst(&backward), worst(&forward));
    Some(Change { class, backward, forward })
}

impl Change {
    /// `called` is what the event was called when the version was released.
    pub(super) fn describe(&self, event: &str, called: &str, version: u32) -> String {
        let mut text = format!("{event}, version {version}: {}", self.class.text());
        if called != event {
            let _ = write!(text, "\n  it was called {called}");
        }
        for found in &self.backward {
            self.backward(found, &mut text);
        }
        for found in &self.forward {
            forward(found, &mut text);
        }
        if self.backward.is_empty() && self.forward.is_empty() {
            text.push_str("\n  what is written differs in no value");
        }
        let next = version.saturating_add(1);
        let raise = format!(
            "raise the version: `#[event(name = {event:?}, version = {next})]`, and `#[upcast(from = {version})]` in its `#[upcasts]`",
        );
        let _ = match self.class {
            Class::Both | Class::Backward => {
                write!(text, "\n  → if it is meant, accept it: `TIDINGS_ACCEPT=1 cargo test`")
            }
            Class::Unjudged => write!(
                text,
                "\n  → if serde writes the same as before, accept it: `TIDINGS_ACCEPT=1 cargo test`\n  → or {raise}",
            ),
            Class::Forward | Class::Breaking => write!(
                text,
                "\n  → or {raise}\n  → or, if version {version} was never released, delete its entry from the lock",
            ),
        };
        text
    }

    /// What this program makes of stored events, and the line that mends it.
    fn backward(&self, found: &Fit, text: &mut String) {
        let Fit { path, kind } = found;
        let place = match path.last() {
            Some(_) => format!("`{path}`"),
            None => "the event".to_owned(),
        };
        let name = path.last().unwrap_or_default();
        let _ = match kind {
            Kind::Missing { always: true } => {
                let _ = write!(
                    text,
                    "\n  {place} is new and has no default: stored events have no such field\n    \
                     → `#[serde(default)]` on `{name}`",
                );
                match self.gone_beside(found) {
                    Some(gone) => write!(
                        text,
                        "; or `#[serde(rename = {gone:?})]`, if it is what `{gone}` was",
                    ),
                    None => Ok(()),
                }
            }
            Kind::Missing { always: false } => write!(
                text,
                "\n  {place} has no default, and not all stored events have the field\n    → `#[serde(default)]` on `{name}`",
            ),
            Kind::Refused => write!(
                text,
                "\n  {place} is gone, and `deny_unknown_fields` refuses it in stored events\n    \
                 → restore `{name}`, or remove `#[serde(deny_unknown_fields)]`",
            ),
            Kind::Form { from, to } => write!(
                text,
                "\n  {place} was {from} and is {to}: not all that is stored fits\n    → restore `{name}`: {from}",
            ),
            Kind::NoVariant { name } => write!(
                text,
                "\n  {place} could be `{name}`, which is gone\n    \
                 → restore the variant `{name}`, or `#[serde(alias = {name:?})]` on the one that took its place",
            ),
            Kind::Tagging => write!(
                text,
                "\n  {place} says in another way which variant it is\n    \
                 → restore `#[serde(tag = …, content = …, untagged)]` on its type",
            ),
            Kind::Unjudged { from, to } => write!(
                text,
                "\n  {place} was {from} and is {to}: what serde writes of it cannot be seen\n    \
                 → `#[shape(opaque = \"…\")]` gives it a name that stays; `#[derive(Shape)]` describes it",
            ),
            Kind::Defaulted => write!(
                text,
                "\n  {place} is new: stored events have no such field, and are read with its default",
            ),
            Kind::Ignored => {
                let _ = write!(text, "\n  {place} is gone: what is stored of it is not read");
                match self.new_beside(found) {
                    Some(new) => write!(
                        text,
                        "\n    → `#[serde(alias = {name:?})]` on `{new}`, if that is what it was",
                    ),
                    None => Ok(()),
                }
            }
            Kind::Renamed { to } => {
                write!(text, "\n  {place} is called `{to}`, and is read under both names")
            }
            Kind::Widened { from, to } => write!(text, "\n  {place} was {from} and is {to}"),
            Kind::MoreVariants { name } => {
                write!(text, "\n  {place} can also be `{name}`, which is new")
            }
        };
    }

    /// A field beside `found` that is no longer read.
    fn gone_beside(&self, found: &Fit) -> Option<&str> {
        self.beside(found, |kind| matches!(kind, Kind::Ignored | Kind::Refused))
    }

    /// A field beside `found` that stored events have not.
    fn new_beside(&self, found: &Fit) -> Option<&str> {
        self.beside(found, |kind| matches!(kind, Kind::Defaulted))
    }

    fn beside(&self, found: &Fit, is: fn(&Kind) -> bool) -> Option<&str> {
        let mut beside = self
            .backward
            .iter()
            .filter(|other| is(&other.kind) && other.path.parent() == found.path.parent());
        beside.next()?.path.last()
    }
}

/// Why the release before does not read what this program writes. What it does read needs no words.
fn forward(found: &Fit, text: &mut String) {
    let Fit { path, kind } = found;
    let place = match path.last() {
        Some(_) => format!("`{path}`"),
        None => "the event".to_owned(),
    };
    let _ = match kind {
        Kind::Missing { always: true } => {
            write!(text, "\n  the release before needs {place}, which is no longer written")
        }
        Kind::Missing { always: false } => {
            write!(text, "\n  the release before needs {place}, which is not always written")
        }
        Kind::Refused => {
            write!(text, "\n  the release before refuses {place}, which it does not know")
        }
        Kind::Form { from, to } => {
            write!(text, "\n  the release before takes {to} for {place}, and not every {from}")
        }
        Kind::NoVariant { name } => {
            write!(text, "\n  the release before does not know {place} as `{name}`")
        }
        Kind::Tagging
        | Kind::Unjudged { .. }
        | Kind::Defaulted
        | Kind::Ignored
        | Kind::Renamed { .. }
        | Kind::Widened { .. }
        | Kind::MoreVariants { .. } => Ok(()),
    };
}

/// The finding for a released version that the set does not read.
pub(super) fn not_read(set: &Set, name: &str, version: u32) -> String {
    let today = set.newest(name);
    match today {
        Some(_) => format!(
            "{name}, version {version}: breaking: it was released, and is no longer read\n  \
             → `#[upcast(from = {version})]` in the `#[upcasts]` of the event, which leads to version {}",
            version.saturating_add(1),
        ),
        None => format!(
            "{name}, version {version}: breaking: it was released, and the set of category {:?} has no such event\n  \
             → restore it; or, if it is called otherwise today, `formerly = {name:?}` in the `#[event(…)]` of that\n  \
             → or read it as what took its place: `#[upcast(event = {name:?}, version = {version})]` in the `#[aggregate]`",
            set.category,
        ),
    }
}
