//! Hooks around publishing and handling.

use std::time::Duration;

/// Is called around what happens on a topic: to measure, to trace, to keep an audit, to leave events out.
///
/// A topic has its hooks from the beginning ([`TopicOptions::hook`](crate::TopicOptions::hook)), and calls them in that
/// order, in the thread that publishes or handles. A topic without hooks looks at one pointer and goes on.
///
/// # Hooks that panic
/// A panic goes to who publishes or handles: it ends an actor or a subscriber as one in its handler does. What an app has
/// committed is published all the same.
pub trait Hook<T>: Send + Sync + 'static {
    /// Says whether `event` is to be published. One that is left out counts as published for its publisher. It is asked once
    /// for each call that is to publish the event, also where that finds the topic full or closed, and not about durable
    /// events, which have happened.
    fn admits(&self, topic: &'static str, event: &T) -> bool {
        let _ = (topic, event);
        true
    }

    /// So many events were published in one go.
    fn published(&self, topic: &'static str, events: usize) {
        let _ = (topic, events);
    }

    /// `events` are about to be handled.
    fn handling(&self, handling: &Handling<'_>, events: &[T]) {
        let _ = (handling, events);
    }

    /// They were handled, as far as it can be seen: the subscription asked for the next ones, or was dropped. An actor that
    /// receives one at a time, and began to wait or left in between, has handled fewer; the others are announced again.
    fn handled(&self, handling: &Handling<'_>, took: Duration) {
        let _ = (handling, took);
    }
}

/// What is handed to a subscription.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Handling<'a> {
    /// The topic's name.
    pub topic: &'static str,
    /// The subscription's name.
    pub subscription: &'a str,
    /// How many events it gets.
    pub events: usize,
    /// How many it has missed just before them.
    pub missed: u64,
}
