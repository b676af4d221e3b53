//! The watchdog: says when a consumer stands still, and when it goes on.
//!
//! It lives on a thread that runs nothing of the user's, so it also sees a handler that never returns. It changes nothing.
//! With the feature `metrics` it also writes the figures down, so that no path of a command or an event has to.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::Gauges;
use crate::actor::{ActorHandle, Arbiters};
use crate::processor::gauge::{Finding, Gauge};

/// How often it looks, unless it has to look more often.
const EVERY: Duration = Duration::from_secs(1);

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(1);

/// The owner's hold on it.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Dropped, it ends.
    leash: oneshot::Sender<()>,
    actor: ActorHandle,
}

impl Watchdog {
    /// How long a consumer may stand still, unless told otherwise: longer than a pause of the machine or a large transaction, and
    /// short enough to be told before users tell.
    pub(super) const PATIENCE: Duration = Duration::from_secs(30);

    /// Starts it on the thread that `arbiters` keep for themselves.
    pub(super) fn start(
        arbiters: &Arbiters,
        gauges: &Arc<Gauges>,
        patience: Duration,
    ) -> Option<Self> {
        let ((leash, loose), gauges) = (oneshot::channel(), Arc::clone(gauges));
        let actor = arbiters.spawn_aside(move || run(gauges, patience, loose))?;
        Some(Self { leash, actor })
    }

    /// Lets it end; join what this returns.
    pub(super) fn end(self) -> ActorHandle {
        drop(self.leash);
        self.actor
    }
}

async fn run(gauges: Arc<Gauges>, patience: Duration, mut loose: oneshot::Receiver<()>) {
    let mut looks = tokio::time::interval(EVERY.min(patience / 4).max(SHORTEST));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    #[cfg(feature = "metrics")]
    let mut figures = {
        crate::metrics::describe();
        crate::metrics::Figures::default()
    };
    let mut over = false;
    while !over {
        tokio::select! {
            _ = &mut loose => over = true,
            _ = looks.tick() => {}
        }
        gauges.consumers.iter().for_each(|consumer| look(consumer, patience));
        #[cfg(feature = "metrics")]
        gauges.write_down(&mut figures);
    }
}

#[cfg(feature = "metrics")]
impl Gauges {
    fn write_down(&self, figures: &mut crate::metrics::Figures) {
        figures.sequencer(&self.sequencer.status());
        self.aggregates().iter().for_each(|status| figures.aggregate(status));
        self.consumers.iter().for_each(|consumer| figures.consumer(&consumer.status()));
    }
}

fn look(consumer: &Gauge, patience: Duration) {
    match consumer.look(patience) {
        None => {}
        Some(Finding::Stalled) => {
            let status = consumer.status();
            warn!(
                consumer = status.name,
                kind = status.kind.as_str(),
                state = status.state.as_str(),
                position = status.position.as_u64(),
                lag_events = status.lag_events,
                lag_age = ?status.lag_age,
                trouble = status.trouble,
                "a consumer stands still"
            );
        }
        Some(Finding::GoesOn(stood)) => {
            let (consumer, kind) = (consumer.name(), consumer.kind().as_str());
            info!(consumer, kind, ?stood, "a consumer goes on");
        }
    }
}
