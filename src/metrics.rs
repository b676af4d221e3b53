//! The figures that an app shows through the facade of the crate `metrics`, with the feature `metrics`.
//!
//! Install a recorder, such as that of Prometheus, before the app is started. The watchdog writes the figures down every second,
//! and once more when the app ends, so they cost the paths of commands and events nothing.
//!
//! | figure | kind | labels | meaning |
//! |---|---|---|---|
//! | [`tidings_consumer_lag_events`](CONSUMER_LAG_EVENTS) | gauge | `consumer`, `kind` | how many positions lie between it and the head |
//! | [`tidings_consumer_lag_seconds`](CONSUMER_LAG_SECONDS) | gauge | `consumer`, `kind` | how much older the newest event that it has handled is than the newest in the log |
//! | [`tidings_consumer_stalled_seconds`](CONSUMER_STALLED_SECONDS) | gauge | `consumer`, `kind` | for how long it has stood still, once that is reported; 0 before |
//! | [`tidings_consumer_state`](CONSUMER_STATE) | gauge | `consumer`, `kind`, `state` | 1 for the state that it is in, 0 for those that it has been in |
//! | [`tidings_consumer_parked_keys`](CONSUMER_PARKED_KEYS) | gauge | `consumer`, `kind` | how many keys wait for a person |
//! | [`tidings_consumer_retrying_keys`](CONSUMER_RETRYING_KEYS) | gauge | `consumer`, `kind` | how many keys are tried again by themselves |
//! | [`tidings_consumer_letters`](CONSUMER_LETTERS) | gauge | `consumer`, `kind` | how many letters it holds, those that wait included |
//! | [`tidings_consumer_in_flight`](CONSUMER_IN_FLIGHT) | gauge | `consumer`, `kind` | how many attempts have begun and not ended |
//! | [`tidings_consumer_events_total`](CONSUMER_EVENTS) | counter | `consumer`, `kind` | how many events its handlers have handled |
//! | [`tidings_consumer_retries_total`](CONSUMER_RETRIES) | counter | `consumer`, `kind` | how often an event was tried again |
//! | [`tidings_log_head`](LOG_HEAD) | gauge | | the position up to which everything is durable and published |
//! | [`tidings_sequencer_commits_total`](SEQUENCER_COMMITS) | counter | | how many commands were written |
//! | [`tidings_sequencer_groups_total`](SEQUENCER_GROUPS) | counter | | how many transactions held them |
//! | [`tidings_sequencer_failed_groups_total`](SEQUENCER_FAILED_GROUPS) | counter | | how many transactions failed |
//! | [`tidings_sequencer_group_size`](SEQUENCER_GROUP_SIZE) | gauge | | how many commands a transaction held, on average since the last time; 0 if there was none |
//! | [`tidings_aggregate_decisions_total`](AGGREGATE_DECISIONS) | counter | `category` | how many commands were decided |
//! | [`tidings_aggregate_waiting`](AGGREGATE_WAITING) | gauge | `category` | how many commands wait for an aggregate to be loaded, or for their id to be looked up |
//! | [`tidings_aggregate_live`](AGGREGATE_LIVE) | gauge | `category` | how many aggregates are in memory |
//!
//! `kind` is `projection`, `reactor` or `aggregate`. Apps in one process write to the same figures: give their consumers names of
//! their own.

use std::collections::HashSet;

use ::metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::app::{AggregateStatus, ShardStatus};
use crate::processor::ConsumerState;
use crate::processor::gauge::ConsumerStatus;
use crate::sequencer::SequencerStatus;

macro_rules! figures {
    ($($constant:ident, $name:literal, $describe:ident, $unit:ident, $text:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $text, ".")]
            pub const $constant: &str = $name;
        )*

        /// Tells the recorder what the figures are.
        pub(crate) fn describe() {
            $($describe!($constant, Unit::$unit, $text);)*
        }
    };
}

figures! {
    CONSUMER_LAG_EVENTS, "tidings_consumer_lag_events", describe_gauge, Count, "positions between a consumer and the head of the log";
    CONSUMER_LAG_SECONDS, "tidings_consumer_lag_seconds", describe_gauge, Seconds, "how much older the newest event that a consumer has handled is than the newest in the log";
    CONSUMER_STALLED_SECONDS, "tidings_consumer_stalled_seconds", describe_gauge, Seconds, "for how long a consumer has stood still, once that is reported";
    CONSUMER_STATE, "tidings_consumer_state", describe_gauge, Count, "1 for the state that a consumer is in";
    CONSUMER_PARKED_KEYS, "tidings_consumer_parked_keys", describe_gauge, Count, "keys of a consumer that wait for a person";
    CONSUMER_RETRYING_KEYS, "tidings_consumer_retrying_keys", describe_gauge, Count, "keys of a consumer that are tried again by themselves";
    CONSUMER_LETTERS, "tidings_consumer_letters", describe_gauge, Count, "letters that a consumer holds";
    CONSUMER_IN_FLIGHT, "tidings_consumer_in_flight", describe_gauge, Count, "attempts of a consumer that have begun and not ended";
    CONSUMER_EVENTS, "tidings_consumer_events_total", describe_counter, Count, "events that the handlers of a consumer have handled";
    CONSUMER_RETRIES, "tidings_consumer_retries_total", describe_counter, Count, "how often a consumer has tried an event again";
    LOG_HEAD, "tidings_log_head", describe_gauge, Count, "the position up to which everything is durable and published";
    SEQUENCER_COMMITS, "tidings_sequencer_commits_total", describe_counter, Count, "commands that were written";
    SEQUENCER_GROUPS, "tidings_sequencer_groups_total", describe_counter, Count, "transactions that commands were written in";
    SEQUENCER_FAILED_GROUPS, "tidings_sequencer_failed_groups_total", describe_counter, Count, "transactions that failed";
    SEQUENCER_GROUP_SIZE, "tidings_sequencer_group_size", describe_gauge, Count, "commands in a transaction, on average since the last time";
    AGGREGATE_DECISIONS, "tidings_aggregate_decisions_total", describe_counter, Count, "commands that aggregates have decided";
    AGGREGATE_WAITING, "tidings_aggregate_waiting", describe_gauge, Count, "commands that wait for an aggregate to be loaded, or for their id to be looked up";
    AGGREGATE_LIVE, "tidings_aggregate_live", describe_gauge, Count, "aggregates in memory";
}

/// What has to be known of the last time.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    groups: u64,
    commits: u64,
    /// The states that consumers have been in.
    states: HashSet<(&'static str, ConsumerState)>,
}

impl Figures {
    pub(crate) fn sequencer(&mut self, status: &SequencerStatus) {
        gauge!(LOG_HEAD).set(status.head.as_u64() as f64);
        counter!(SEQUENCER_COMMITS).absolute(status.commits);
        counter!(SEQUENCER_GROUPS).absolute(status.groups);
        counter!(SEQUENCER_FAILED_GROUPS).absolute(status.failed_groups);
        let groups = status.groups.saturating_sub(self.groups);
        let commits = status.commits.saturating_sub(self.commits);
        gauge!(SEQUENCER_GROUP_SIZE).set(commits as f64 / groups.max(1) as f64);
        (self.groups, self.commits) = (status.groups, status.commits);
    }

    pub(crate) fn aggregate(&self, status: &AggregateStatus) {
        let sum = |of: fn(&ShardStatus) -> u64| status.shards.iter().map(of).sum::<u64>();
        let category = status.category;
        let decided = sum(|shard| shard.decided);
        counter!(AGGREGATE_DECISIONS, "category" => category).absolute(decided);
        let waiting = sum(|shard| shard.waiting as u64);
        gauge!(AGGREGATE_WAITING, "category" => category).set(waiting as f64);
        gauge!(AGGREGATE_LIVE, "category" => category).set(status.live() as f64);
    }

    pub(crate) fn consumer(&mut self, status: &ConsumerStatus) {
        let labels = [("consumer", status.name), ("kind", status.kind.as_str())];
        gauge!(CONSUMER_LAG_EVENTS, &labels).set(status.lag_events as f64);
        gauge!(CONSUMER_LAG_SECONDS, &labels).set(status.lag_age.as_secs_f64());
        let stalled = status.stalled.unwrap_or_default();
        gauge!(CONSUMER_STALLED_SECONDS, &labels).set(stalled.as_secs_f64());
        gauge!(CONSUMER_PARKED_KEYS, &labels).set(status.parked_keys as f64);
        gauge!(CONSUMER_RETRYING_KEYS, &labels).set(status.retrying_keys as f64);
        gauge!(CONSUMER_LETTERS, &labels).set(status.letters as f64);
        gauge!(CONSUMER_IN_FLIGHT, &labels).set(status.in_flight as f64);
        counter!(CONSUMER_EVENTS, &labels).absolute(status.handled);
        counter!(CONSUMER_RETRIES, &labels).absolute(status.retries);
        self.states.insert((status.name, status.state));
        for (_, state) in self.states.iter().filter(|(name, _)| *name == status.name) {
            let is = if *state == status.state { 1.0 } else { 0.0 };
            let [consumer, kind] = labels;
            gauge!(CONSUMER_STATE, &[consumer, kind, ("state", state.as_str())]).set(is);
        }
    }
}
