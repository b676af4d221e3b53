//! The live parts of an app, and how they end.

use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::watchdog::Watchdog;
use crate::actor::{ActorHandle, Arbiters};
use crate::bus::{Bus, Topics};
use crate::processor::Stopping;
use crate::processor::rebuild::Crew;
use crate::sequencer::Sequencer;

/// Every thread and actor of an app, and the means to end them.
pub(crate) struct Running {
    parts: Option<Parts>,
    /// How it ended, once it has.
    ended: watch::Sender<Option<Result<(), ShutdownError>>>,
    ending: Option<JoinHandle<()>>,
}

pub(super) struct Parts {
    pub(super) closing: watch::Sender<bool>,
    pub(super) stopping: watch::Sender<Stopping>,
    pub(super) shards: Vec<(&'static str, ActorHandle)>,
    pub(super) processors: Vec<(&'static str, ActorHandle)>,
    pub(super) reactors: Vec<(&'static str, ActorHandle)>,
    pub(super) subscribers: Vec<(&'static str, ActorHandle)>,
    pub(super) crew: Crew,
    /// The bus to close; none if the app could not be started.
    pub(super) bus: Option<Bus>,
    pub(super) watchdog: Option<Watchdog>,
    /// The way to the sequencer of those who forget a subject.
    #[cfg(feature = "personal")]
    pub(super) notices: Option<crate::sequencer::SequencerInbox>,
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
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts: Some(parts), ended: watch::Sender::new(None), ending: None }
    }

    /// Ends the parts in the order in which work flows through them, unless that has begun already.
    ///
    /// It happens on a thread of its own, so that it goes on if nobody waits for it, and if the runtime of who began it ends.
    pub(super) fn end(
        &mut self,
        within: Duration,
    ) -> watch::Receiver<Option<Result<(), ShutdownError>>> {
        let receiver = self.ended.subscribe();
        if let Some(parts) = self.parts.take() {
            let ended = self.ended.clone();
            let ending =
                std::thread::Builder::new().name("tidings-ending".into()).spawn(move || {
                    let result = parts.end_blocking(within);
                    if let Err(error) = &result
                        && ended.receiver_count() == 0
                    {
                        tracing::error!(%error, "nobody waits for it");
                    }
                    ended.send_replace(Some(result));
                });
            match ending {
                Ok(thread) => self.ending = Some(thread),
                Err(error) => {
                    let problems = vec![format!("no thread to end it on: {error}")];
                    self.ended.send_replace(Some(Err(ShutdownError { problems })));
                }
            }
        }
        receiver
    }

    /// The thread that ends it, to be joined once it has said how it ended.
    pub(super) fn take_ending(&mut self) -> Option<JoinHandle<()>> {
        self.ending.take()
    }
}

impl Drop for Running {
    /// Ends in the background what nobody has shut down.
    fn drop(&mut self) {
        self.end(super::SHUTDOWN);
    }
}

impl Parts {
    fn end_blocking(self, within: Duration) -> Result<(), ShutdownError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(
            |error| ShutdownError { problems: vec![format!("no runtime to end it on: {error}")] },
        )?;
        let result = runtime.block_on(self.end(within));
        if result.is_err() {
            // What did not end in time is not waited for.
            runtime.shutdown_background();
        }
        result
    }

    async fn end(self, within: Duration) -> Result<(), ShutdownError> {
        let deadline = Instant::now() + within;
        let mut problems = Vec::new();
        self.closing.send_replace(true);
        for (category, shard) in self.shards {
            join(format!("a shard of {category}"), shard, deadline, &mut problems).await;
        }
        #[cfg(feature = "personal")]
        drop(self.notices);
        // The shards have dropped the ways to the sequencer; it ends by itself.
        let sequencer = self.sequencer;
        blocking("the sequencer", move || sequencer.join(), deadline, &mut problems).await;
        self.topics.close();
        if let Some(bus) = self.bus {
            bus.close();
        }
        self.stopping.send_replace(Stopping::WhenLevel);
        let stopping = &self.stopping;
        let subscribers =
            self.subscribers.into_iter().map(|(name, actor)| ("subscriber", name, actor));
        let processors =
            self.processors.into_iter().map(|(name, actor)| ("projection", name, actor));
        let reactors = self.reactors.into_iter().map(|(name, actor)| ("reactor", name, actor));
        for (kind, name, mut actor) in reactors.chain(subscribers).chain(processors) {
            match tokio::time::timeout_at(deadline, actor.ended()).await {
                Ok(Ok(())) => {}
                Ok(Err(panic)) => {
                    problems.push(format!("{kind} {name} panicked: {}", panic.message))
                }
                Err(_) => {
                    problems.push(format!("{kind} {name} was not level in time"));
                    stopping.send_replace(Stopping::Now);
                    let grace = Instant::now() + Duration::from_secs(1);
                    join(format!("{kind} {name}"), actor, grace, &mut problems).await;
                }
            }
        }
        let (crew, grace) = (self.crew, deadline.max(Instant::now() + Duration::from_secs(1)));
        blocking("a rebuild", move || crew.join(), grace, &mut problems).await;
        if let Some(watchdog) = self.watchdog {
            let grace = deadline.max(Instant::now() + Duration::from_secs(1));
            join("the watchdog".into(), watchdog.end(), grace, &mut problems).await;
        }
        for arbiters in self.arbiters {
            let grace = deadline.max(Instant::now() + Duration::from_secs(1));
            blocking("an arbiter", move || arbiters.stop(), grace, &mut problems).await;
        }
        if problems.is_empty() { Ok(()) } else { Err(ShutdownError { problems }) }
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
