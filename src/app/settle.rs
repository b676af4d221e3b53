//! Waiting until an app has come to rest, for tests.
//!
//! Consumers cause commands, these cause events, and those keep consumers busy. So what is found at rest is looked at once more: only
//! if nothing has moved meanwhile is the app at rest.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, select_all};
use tokio::time::Instant;

use super::{App, Inner};
use crate::processor::gauge::Unrest;

/// How long [`App::settle`] waits, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// An app that is waited for; await it.
#[derive(Debug)]
#[must_use = "waiting does nothing unless it is awaited"]
pub struct Settling {
    app: App,
    patience: Duration,
}

/// An app did not come to rest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the app did not come to rest within {waited:?}: {}", .restless.join("; "))]
#[non_exhaustive]
pub struct Unsettled {
    /// How long it was waited for.
    pub waited: Duration,
    /// A sentence for each part that is not at rest: who it is, and why.
    pub restless: Vec<String>,
}

impl App {
    /// Waits until everything is quiet, for tests: no command is on its way, every consumer is level with the head of the log and
    /// has no letter that is still tried again, and every subscriber has handled what it was to hear. Then whatever was to
    /// follow from what was sent before has followed.
    ///
    /// Parked letters, and what waits behind them, are at rest: they wait for a person. What has not been sent yet, and what
    /// subscriptions of the test itself have not read, does not count.
    ///
    /// # Errors
    /// [`Unsettled`], which names who is not at rest and why: after 30 seconds unless told otherwise with
    /// [`within`](Settling::within), or at once if a consumer has stopped before the head.
    ///
    /// # Cancel safety
    /// Waiting changes nothing; it can be dropped at any time.
    ///
    /// # Examples
    /// ```
    /// # use tidings::{App, Projection, SentTo, View, InMemory};
    /// # async fn check<C: SentTo, P: Projection<Storage = InMemory>>(app: App, command: C) -> Result<(), Box<dyn std::error::Error>> {
    /// let _sent = app.send("acc-1", command).begin();
    /// app.settle().await?;
    /// assert_eq!(app.view::<P>().read().position(), app.head());
    /// # Ok(())
    /// # }
    /// ```
    pub fn settle(&self) -> Settling {
        Settling { app: self.clone(), patience: PATIENCE }
    }
}

impl Settling {
    /// Waits for this long at most.
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl IntoFuture for Settling {
    type Output = Result<(), Unsettled>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (inner, begun) = (&*self.app.inner, Instant::now());
            let settled = tokio::time::timeout(self.patience, inner.settle()).await;
            let (waited, restless) = match settled {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(stopped)) => (begun.elapsed(), stopped),
                Err(_) => (self.patience, inner.restless()),
            };
            Err(Unsettled { waited, restless })
        })
    }
}

impl Inner {
    /// Waits until the app is at rest. If it cannot come to rest, returns who keeps it from that.
    async fn settle(&self) -> Result<(), Vec<String>> {
        loop {
            // From before the look: a change after it is not missed.
            let changes = self.changes();
            let before = self.footprint();
            let unrest = self.unrest();
            let stopped: Vec<_> = unrest.iter().filter_map(for_good).collect();
            if !stopped.is_empty() {
                return Err(stopped);
            }
            if !unrest.is_empty() {
                select_all(changes).await;
                continue;
            }
            for (_, rest) in &self.gauges.rests {
                poll_fn(|cx| rest(cx)).await;
            }
            if self.unrest().is_empty() && self.footprint() == before {
                return Ok(());
            }
            // An app that never rests must not keep the timeout from being noticed.
            tokio::task::yield_now().await;
        }
    }

    /// What everybody has done so far: as long as it is the same, nobody has done anything.
    fn footprint(&self) -> Vec<u64> {
        let head = self.head.borrow().position.as_u64();
        let consumers = self.gauges.consumers.iter().map(|gauge| gauge.status());
        let consumers = consumers.flat_map(|status| [status.position.as_u64(), status.handled]);
        let subscribers = self.gauges.subscribers.iter().map(|(_, gauge)| gauge.heard());
        std::iter::once(head).chain(consumers).chain(subscribers).collect()
    }

    /// Those that are not at rest, apart from aggregates.
    fn unrest(&self) -> Vec<Unrest> {
        let head = self.head.borrow().position;
        let consumers = self.gauges.consumers.iter().map(|gauge| gauge.unrest(head));
        let subscribers = self.subscribers_behind().into_iter().map(Unrest::Moves);
        consumers.chain(subscribers).filter(|unrest| *unrest != Unrest::None).collect()
    }

    fn subscribers_behind(&self) -> Vec<String> {
        if self.gauges.subscribers.is_empty() {
            return Vec::new();
        }
        let topics: Vec<_> = self.topics.status().into_iter().chain(self.bus.status()).collect();
        let subscriptions = || topics.iter().flat_map(|topic| &topic.subscriptions);
        let behind = self.gauges.subscribers.iter().filter_map(|(name, gauge)| {
            let own = subscriptions().filter(|subscription| &*subscription.name == *name);
            let lag: u64 = own.map(|subscription| subscription.lag).sum();
            let rests = gauge.is_over() || (gauge.is_asleep() && lag == 0);
            (!rests).then(|| format!("subscriber {name} has {lag} events to hear"))
        });
        behind.collect()
    }

    /// Who is not at rest, and why.
    fn restless(&self) -> Vec<String> {
        let mut restless: Vec<_> = self.unrest().into_iter().filter_map(text).collect();
        let mut cx = Context::from_waker(Waker::noop());
        let busy = self.gauges.rests.iter().filter(|(_, rest)| rest(&mut cx).is_pending());
        let mut busy: Vec<_> = busy.map(|(category, _)| *category).collect();
        busy.dedup();
        let busy = busy.into_iter();
        restless
            .extend(busy.map(|category| format!("aggregates of {category} have commands in hand")));
        if restless.is_empty() {
            let head = self.head.borrow().position;
            restless.push(format!("the head moves on, and stands at position {head} now"));
        }
        restless
    }

    /// Each ends when something has changed since.
    fn changes(&self) -> Vec<BoxFuture<'static, ()>> {
        /// Who has ended changes no more.
        async fn change<T: Send + Sync>(mut watched: tokio::sync::watch::Receiver<T>) {
            if watched.changed().await.is_err() {
                std::future::pending().await
            }
        }
        fn seen<T: Send + Sync + 'static>(
            mut watched: tokio::sync::watch::Receiver<T>,
        ) -> BoxFuture<'static, ()> {
            watched.mark_unchanged();
            change(watched).boxed()
        }
        let mut changes = vec![seen(self.head.clone())];
        for gauge in &self.gauges.consumers {
            changes.extend([seen(gauge.watch()), seen(gauge.watch_letters())]);
        }
        changes.extend(self.gauges.subscribers.iter().map(|(_, gauge)| seen(gauge.watch())));
        changes
    }
}

fn for_good(unrest: &Unrest) -> Option<String> {
    match unrest {
        Unrest::ForGood(text) => Some(text.clone()),
        _ => None,
    }
}

fn text(unrest: Unrest) -> Option<String> {
    match unrest {
        Unrest::Moves(text) | Unrest::ForGood(text) => Some(text),
        Unrest::None => None,
    }
}
