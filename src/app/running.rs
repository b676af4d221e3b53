//! The live parts of an app, and how they end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::actor::{ActorHandle, Arbiters};
use crate::bus::Topics;
use crate::processor::Stopping;
use crate::sequencer::Sequencer;

/// Every thread and actor of an app, and the means to end them.
pub(crate) struct Running {
    pub(super) parts: Option<Parts>,
}

pub(super) struct Parts {
    pub(super) closing: watch::Sender<bool>,
    pub(super) stopping: watch::Sender<Stopping>,
    pub(super) shards: Vec<(&'static str, ActorHandle)>,
    pub(super) processors: Vec<(&'static str, ActorHandle)>,
    pub(super) sequencer: Sequencer,
    pub(super) topics: Arc<Topics>,
    pub(super) arbiters: Vec<Arc<Arbiters>>,
}

/// What did not end as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the app did not end in order: {}", .problems.join("; "))]
pub struct ShutdownError {
    /// A sentence for each part that was late or panicked.
    pub problems: Vec<String>,
}

impl Running {
    /// Ends the parts in the order in which work flows through them.
    pub(super) async fn shut_down(mut self, within: Duration) -> Result<(), ShutdownError> {
        match self.parts.take() {
            Some(parts) => {
                // In a task of its own, so that it goes on if the caller stops waiting.
                let ending = tokio::spawn(parts.end(within));
                ending.await.unwrap_or_else(|error| {
                    Err(ShutdownError {
                        problems: vec![error.to_string()],
                    })
                })
            }
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    /// Ends in the background what nobody has shut down.
    fn drop(&mut self) {
        let Some(parts) = self.parts.take() else {
            return;
        };
        let ending = std::thread::Builder::new()
            .name("tidings-ending".into())
            .spawn(|| {
                match tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                {
                    Ok(runtime) => {
                        if let Err(error) = runtime.block_on(parts.end(super::SHUTDOWN)) {
                            tracing::error!(%error, "an app was dropped");
                        }
                    }
                    Err(error) => tracing::error!(%error, "an app was dropped and cannot be ended"),
                }
            });
        if let Err(error) = ending {
            tracing::error!(%error, "an app was dropped and cannot be ended");
        }
    }
}

impl Parts {
    async fn end(self, within: Duration) -> Result<(), ShutdownError> {
        let deadline = Instant::now() + within;
        let mut problems = Vec::new();
        self.closing.send_replace(true);
        for (category, shard) in self.shards {
            join(
                format!("a shard of {category}"),
                shard,
                deadline,
                &mut problems,
            )
            .await;
        }
        // The shards have dropped the ways to the sequencer; it ends by itself.
        let sequencer = self.sequencer;
        blocking(
            "the sequencer",
            move || sequencer.join(),
            deadline,
            &mut problems,
        )
        .await;
        self.topics.close();
        self.stopping.send_replace(Stopping::WhenLevel);
        let stopping = &self.stopping;
        for (name, mut processor) in self.processors {
            let joined = tokio::time::timeout_at(deadline, processor.ended()).await;
            if joined.is_err() {
                problems.push(format!("projection {name} was not level in time"));
                stopping.send_replace(Stopping::Now);
                let grace = Instant::now() + Duration::from_secs(1);
                join(
                    format!("projection {name}"),
                    processor,
                    grace,
                    &mut problems,
                )
                .await;
            }
        }
        for arbiters in self.arbiters {
            let grace = deadline.max(Instant::now() + Duration::from_secs(1));
            blocking("an arbiter", move || arbiters.stop(), grace, &mut problems).await;
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ShutdownError { problems })
        }
    }
}

async fn join(who: String, mut actor: ActorHandle, until: Instant, problems: &mut Vec<String>) {
    match tokio::time::timeout_at(until, actor.ended()).await {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => problems.push(format!("{who} panicked: {}", panic.message)),
        Err(_) => problems.push(format!("{who} did not end in time")),
    }
}

async fn blocking(
    who: &str,
    wait: impl FnOnce() + Send + 'static,
    until: Instant,
    problems: &mut Vec<String>,
) {
    let waiting: tokio::task::JoinHandle<()> = tokio::task::spawn_blocking(wait);
    if with_deadline(waiting, until).await.is_none() {
        problems.push(format!("{who} did not end in time"));
    }
}

async fn with_deadline<F: Future>(future: F, until: Instant) -> Option<F::Output> {
    tokio::time::timeout_at(until, future).await.ok()
}
