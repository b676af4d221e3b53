//! The app: what is wired together, started, asked, and shut down.
//!
//! [`App::builder`] names the store, the aggregates and the projections; `start` brings them to life on threads of their
//! own, whatever runtime the program uses. An [`App`] is a handle: clone it freely.
//!
//! # Ending
//! [`App::shutdown`] takes no more commands, answers those that it has, closes the topics, lets the projections and the
//! subscribers come level and the reactors finish what they have begun, and joins every thread. When the last handle is dropped without it, the same happens in the background.

mod builder;
mod building;
mod running;
#[cfg(feature = "testing")]
pub(crate) mod settle;
mod start_error;
mod watchdog;

use std::any::{Any, TypeId};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

pub use self::builder::AppBuilder;
pub(crate) use self::building::{Building, Floor};
use self::running::Running;
pub use self::running::ShutdownError;
pub use self::start_error::StartError;
use crate::aggregate::directory::Directory;
use crate::aggregate::shard::ShardGauge;
use crate::bus::{Bus, Map, Topic, TopicStatus, Topics, Wired};
use crate::command::{Sending, SentTo};
use crate::event::{Envelope, EventSet};
use crate::http::ReadToken;
use crate::letters::Letters;
use crate::processor::gauge::{ConsumerKind, ConsumerStatus, Gauge};
use crate::processor::{Progress, RebuildError};
use crate::projection::rebuild::Rebuilds;
use crate::projection::{self, Projection, Rebuild, Storage, ViewError, Watching};
use crate::query::{Answers, Asking, Gathering, Query, QueryError};
use crate::sequencer::{Head, SequencerGauge, SequencerStatus};
use crate::store::{Durability, EventStore};
use crate::stream::Position;
use crate::subscriber::{SubscriberGauge, SubscriberStatus};

/// How long [`App::shutdown`] waits.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// A running app; a handle to it.
///
/// Cloning is cheap: give clones to whoever sends or reads. Call [`shutdown`](Self::shutdown) to end it and to wait for
/// that; when the last clone is dropped without it, the same happens in the background.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
}

/// A handle to an app that does not keep it alive, for what the app itself owns.
#[derive(Clone, Default)]
pub(crate) struct WeakApp {
    inner: Weak<Inner>,
}

impl WeakApp {
    /// Whether it leads, or has led, to an app.
    pub(crate) fn is_set(&self) -> bool {
        !Weak::ptr_eq(&self.inner, &Weak::new())
    }

    /// The app, if it is still there.
    pub(crate) fn upgrade(&self) -> Option<App> {
        self.inner.upgrade().map(|inner| App { inner })
    }
}

impl PartialEq for WeakApp {
    fn eq(&self, other: &Self) -> bool {
        Weak::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for WeakApp {}

impl std::fmt::Debug for WeakApp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeakApp").field("is_set", &self.is_set()).finish_non_exhaustive()
    }
}

struct Inner {
    store: Arc<dyn EventStore>,
    head: watch::Receiver<Head>,
    topics: Arc<Topics>,
    /// The directory of each type of aggregate.
    directories: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    /// The view of each type of projection.
    views: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    /// How the view of each type of projection is built anew.
    rebuilds: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    answers: Answers,
    letters: Letters,
    bus: Bus,
    /// Shows the app on the map of its bus as long as it lives.
    _wiring: Arc<Wired>,
    gauges: Arc<Gauges>,
    running: Mutex<Running>,
}

/// What the status is read from.
struct Gauges {
    sequencer: SequencerGauge,
    shards: Vec<(&'static str, Vec<Arc<ShardGauge>>)>,
    /// Waits for each shard to come to rest.
    #[cfg(feature = "testing")]
    rests: Vec<(&'static str, crate::aggregate::inbox::Rest)>,
    consumers: Vec<Arc<Gauge>>,
    subscribers: Vec<(&'static str, Arc<SubscriberGauge>)>,
}

impl Gauges {
    fn aggregates(&self) -> Vec<AggregateStatus> {
        let status = |(category, shards): &(&'static str, Vec<Arc<ShardGauge>>)| AggregateStatus {
            category,
            shards: shards.iter().map(|gauge| ShardStatus::of(gauge)).collect(),
        };
        self.shards.iter().map(status).collect()
    }
}

impl App {
    /// Starts to put an app together.
    pub fn builder() -> AppBuilder {
        AppBuilder::new()
    }

    /// Sends `command` to the aggregate `id`; await what this returns for the receipt.
    ///
    /// The receipt comes when the command's events are as durable as the store makes them.
    pub fn send<C: SentTo>(&self, id: impl AsRef<str>, command: C) -> Sending<C> {
        let directory = self.inner.directories.get(&TypeId::of::<C::Aggregate>());
        let directory =
            directory.and_then(|any| any.downcast_ref::<Arc<Directory<C::Aggregate>>>()).cloned();
        Sending::new(directory, id.as_ref(), command)
    }

    /// The view of a projection.
    ///
    /// # Panics
    /// If `P` was not given to the builder: a mistake in the program's own wiring.
    pub fn view<P: Projection>(&self) -> <P::Storage as Storage>::View<P> {
        match self.try_view::<P>() {
            Some(view) => view,
            #[expect(clippy::panic, reason = "documented: the program's own wiring is wrong")]
            None => panic!(
                "projection {} is not part of this app: give it to `App::builder().projection(…)`",
                P::NAME
            ),
        }
    }

    /// The view of a projection, if `P` was given to the builder.
    pub fn try_view<P: Projection>(&self) -> Option<<P::Storage as Storage>::View<P>> {
        let view = self.inner.views.get(&TypeId::of::<P>())?;
        view.downcast_ref::<<P::Storage as Storage>::View<P>>().cloned()
    }

    /// Builds the view of `P` anew from the start of the log, beside the one that serves. That one is read and goes on
    /// meanwhile; when both are level they are switched, and no reader sees anything in between or from before.
    ///
    /// Handlers that are live-only do not run for what is folded anew: a rebuilt view holds nothing of theirs. Letters are those of the
    /// rebuilt view; what people have decided about letters is kept.
    ///
    /// A projection in tables whose [version](Projection::VERSION) was raised is rebuilt by itself when the app starts.
    pub fn rebuild<P: Projection + Default>(&self) -> Rebuild {
        self.rebuild_with(P::default())
    }

    /// The same as [`rebuild`](Self::rebuild), with a projection that is not the default one. It takes the place of the one that
    /// was given to the builder when the views are switched.
    pub fn rebuild_with<P: Projection>(&self, projection: P) -> Rebuild {
        let rebuilds = self.rebuilds::<P>();
        Rebuild::new(P::NAME, move |old| rebuilds?.rebuild(projection, old))
    }

    /// Ends the rebuild of `P` that runs, whoever began it; false if none does. The view that was there goes on.
    pub fn cancel_rebuild<P: Projection>(&self) -> bool {
        self.rebuilds::<P>().is_ok_and(|rebuilds| rebuilds.cancel())
    }

    /// Goes back to the view that was replaced by a rebuild with [`keep_old`](Rebuild::keep_old). It catches up first, while the
    /// other one serves; so this is a rebuild, too, from where that view had got to.
    pub fn switch_back<P: Projection>(&self) -> Rebuild {
        let rebuilds = self.rebuilds::<P>();
        Rebuild::new(P::NAME, move |old| rebuilds?.switch_back(old))
    }

    /// Frees the view of `P` that was kept; false if there is none.
    pub fn drop_kept<P: Projection>(&self) -> bool {
        self.rebuilds::<P>().is_ok_and(|rebuilds| rebuilds.drop_kept())
    }

    fn rebuilds<P: Projection>(&self) -> Result<Arc<dyn Rebuilds<P>>, RebuildError> {
        let rebuilds = self.inner.rebuilds.get(&TypeId::of::<P>());
        let rebuilds = rebuilds.and_then(|any| any.downcast_ref::<Arc<dyn Rebuilds<P>>>());
        rebuilds.cloned().ok_or(RebuildError::Unknown(P::NAME))
    }

    /// Asks `query` of the one who answers queries of its type: a projection with a `#[query]` method for it, or a handler
    /// that was given to [`AppBuilder::answer`]. Await what this returns for the reply.
    ///
    /// It runs in the task that awaits it, and is answered after a shutdown too, from the views as they ended.
    pub fn query<Q: Query>(&self, query: Q) -> Asking<Q> {
        Asking::new(self.clone(), query)
    }

    /// Asks `query` of everyone who was registered for it with [`AppBuilder::respond`], all at once. Await what this returns
    /// for what they say.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use tidings::{App, Memory, Query};
    ///
    /// #[derive(Query, Clone)]
    /// #[query(reply = u32)]
    /// struct StockOf { article: u32 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::builder()
    ///     .store(Memory::new())
    ///     .respond("Oslo", |query: StockOf, _| async move { Ok(query.article / 10) })
    ///     .respond("Turin", |_: StockOf, _| async move { Err("the line is down".into()) })
    ///     .respond("Lima", |_: StockOf, _| std::future::pending())
    ///     .start()
    ///     .await?;
    /// let stock = app.gather(StockOf { article: 70 }).within(Duration::from_millis(50)).await?;
    /// assert_eq!(stock.replies, [("Oslo", 7)]);
    /// assert_eq!(stock.failed[0].0, "Turin");
    /// assert_eq!(stock.late, ["Lima"]);
    /// # app.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn gather<Q: Query + Clone>(&self, query: Q) -> Gathering<Q> {
        Gathering::new(self.clone(), query)
    }

    /// Watches the reply to `query`: yields it at once, and again whenever it has changed. It ends when the projection that
    /// answers it has stopped.
    ///
    /// Where a closure answers, given to [`AppBuilder::answer`], it is asked again whenever any projection of the app has
    /// moved, and the watching ends when all have stopped: what else its reply depends on is not noticed.
    ///
    /// Each time the query may take five seconds, as when it is [asked](Self::query) once. The errors are those of
    /// [`QueryError`]: yielded each time, and the query is asked again when the view moves. The last reply is kept, to compare.
    ///
    /// It holds a handle to the app: without a [`shutdown`](Self::shutdown) the app does not end before it is dropped.
    ///
    /// # Examples
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use tidings::{App, Command, Event, Memory, Query, aggregate, projection};
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
    /// #[derive(Query, Clone)]
    /// #[query(reply = usize)]
    /// struct SalesAbove { cents: i64 }
    ///
    /// #[derive(Default)]
    /// struct Sales(Vec<i64>);
    ///
    /// #[projection(name = "sales", version = 1)]
    /// impl Sales {
    ///     #[on]
    ///     fn sold(&mut self, event: &Sold) { self.0.push(event.cents) }
    ///
    ///     #[query]
    ///     fn above(&self, query: SalesAbove) -> usize {
    ///         self.0.iter().filter(|cents| **cents > query.cents).count()
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let app = App::builder().store(Memory::new()).aggregate::<Till>().projection(Sales::default());
    /// # let app = app.start().await?;
    /// let mut dear = app.watch(SalesAbove { cents: 200 });
    /// assert_eq!(dear.next().await.transpose()?, Some(0));
    /// app.send("1", Sell { cents: 50 }).await?;
    /// app.send("1", Sell { cents: 250 }).await?;
    /// assert_eq!(dear.next().await.transpose()?, Some(1));
    /// # app.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch<Q>(&self, query: Q) -> Watching<Result<Q::Reply, QueryError>>
    where
        Q: Query + Clone,
        Q::Reply: Clone + PartialEq,
    {
        crate::query::watch(self.clone(), query)
    }

    pub(crate) fn answers(&self) -> &Answers {
        &self.inner.answers
    }

    /// Where each projection shows its progress.
    pub(crate) fn progress_of_projections(&self) -> Vec<watch::Receiver<Progress>> {
        let consumers = self.inner.gauges.consumers.iter();
        let projections = consumers.filter(|gauge| gauge.kind() == ConsumerKind::Projection);
        projections.map(|gauge| gauge.watch()).collect()
    }

    /// The dead letters: events that consumers could not handle, and those that wait behind them.
    pub fn letters(&self) -> &Letters {
        &self.inner.letters
    }

    /// Waits until a consumer has handled everything up to `position`, or set it aside as letters: a projection, a reactor, or the
    /// aggregates of a category that subscribe, by its name. So a program waits for the effects of what it has written.
    ///
    /// # Errors
    /// - [`ViewError::TimedOut`]: it did not get there within `patience`.
    /// - [`ViewError::Stopped`]: it stopped before.
    /// - [`ViewError::Unknown`]: no consumer has this name.
    ///
    /// # Cancel safety
    /// Waiting changes nothing; it can be dropped at any time.
    pub async fn reached(
        &self,
        consumer: &str,
        position: Position,
        patience: Duration,
    ) -> Result<(), ViewError> {
        let consumers = &self.inner.gauges.consumers;
        match consumers.iter().find(|gauge| gauge.name() == consumer) {
            Some(gauge) => {
                projection::reached(gauge.name(), gauge.watch(), position, patience).await
            }
            None => Err(ViewError::Unknown {
                name: consumer.to_owned(),
                known: consumers.iter().map(|gauge| gauge.name()).collect(),
            }),
        }
    }

    /// The topic of an aggregate's events, if one of the app's aggregates or projections has to do with them.
    pub fn topic<E: EventSet>(&self) -> Option<Topic<Envelope<E>>> {
        self.inner.topics.get::<E>()
    }

    /// The bus with the transient topics: the one that was given to the builder, or the app's own.
    pub fn bus(&self) -> &Bus {
        &self.inner.bus
    }

    /// Who publishes what and who hears it, as it is now; the same as the map of its [bus](Self::bus).
    pub fn map(&self) -> Map {
        self.inner.bus.map()
    }

    /// The position up to which every event is durable and published. The positions of all receipts that were handed out
    /// are at or below it, so `view.at_least(app.head())` reads everything that was answered.
    pub fn head(&self) -> Position {
        self.inner.head.borrow().position
    }

    /// `position` as a token of this app's log, for a header or a cookie of an HTTP response: the next request brings it back,
    /// and reads its own write.
    pub fn read_token(&self, position: Position) -> ReadToken {
        ReadToken::new(position, self.inner.store.log_id())
    }

    /// The position of the newest of `tokens`, to be waited for: `view.at_least(app.position_of(tokens))`.
    ///
    /// A token of another log, or one beyond the [head](Self::head), is left out: a browser may hold one of before the log was
    /// exchanged, or restored from an older backup, and must not wait for what does not come. With no token left it is
    /// [`Position::START`], which every view has. Takes what [`ReadToken::from_headers`] finds, and an option, a result or an array
    /// as well.
    pub fn position_of(&self, tokens: impl IntoIterator<Item = ReadToken>) -> Position {
        let (log, head) = (self.inner.store.log_id(), self.head());
        let positions = tokens.into_iter().filter_map(|token| token.position_in(log));
        positions.filter(|position| *position <= head).max().unwrap_or(Position::START)
    }

    /// The store, for reading streams and the log. Committing to it past the app is possible, but nobody is told.
    pub fn store(&self) -> &dyn EventStore {
        &*self.inner.store
    }

    /// What every part of the app is doing.
    pub fn status(&self) -> AppStatus {
        let gauges = &self.inner.gauges;
        AppStatus {
            durability: self.inner.store.durability(),
            sequencer: gauges.sequencer.status(),
            aggregates: gauges.aggregates(),
            topics: {
                let mut topics = self.inner.topics.status();
                topics.extend(self.inner.bus.status());
                topics
            },
            consumers: gauges.consumers.iter().map(|gauge| gauge.status()).collect(),
            subscribers: gauges
                .subscribers
                .iter()
                .map(|(name, gauge)| gauge.status(name))
                .collect(),
        }
    }

    /// Ends the app in order, within 30 seconds; see [`shutdown_within`](Self::shutdown_within).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        self.shutdown_within(SHUTDOWN).await
    }

    /// Ends the app in order: takes no more commands, answers those that it has, closes all topics, lets the projections and
    /// the subscribers come level and the reactors finish what they have begun, and joins every thread. Called again, it waits for
    /// the same end, and returns at once when that has come.
    ///
    /// What a subscriber publishes while it comes level is refused, since the topics are closed: where one feeds another, let the
    /// sources become quiet first. A subscriber that had stopped before is no error here; the status names it.
    ///
    /// The log's file stays open, and locked, until the last clone of the app is dropped.
    ///
    /// # Errors
    /// [`ShutdownError`] if something did not end within `deadline`, with a second of grace for what is cut off then, or ended with a panic. What is committed is safe all the
    /// same, and a projection or a reactor that was cut off resumes from its checkpoint.
    ///
    /// # Cancel safety
    /// Dropped half-way, the rest happens in the background.
    pub async fn shutdown_within(&self, deadline: Duration) -> Result<(), ShutdownError> {
        let mut ended = self.inner.running.lock().end(deadline);
        let result = match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            // The sender stands beside the handle that is in use here.
            Err(_) => Ok(()),
        };
        let thread = self.inner.running.lock().take_ending();
        // It has said its last word, so this does not wait.
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread that ended the app panicked");
        }
        result
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("head", &self.head())
            .field("durability", &self.inner.store.durability())
            .finish_non_exhaustive()
    }
}

/// What every part of an app is doing, as data.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AppStatus {
    /// What an acknowledged command survives.
    pub durability: Durability,
    /// The sequencer.
    pub sequencer: SequencerStatus,
    /// Each type of aggregate.
    pub aggregates: Vec<AggregateStatus>,
    /// Each topic: the durable ones, then those of the bus.
    pub topics: Vec<TopicStatus>,
    /// Each durable consumer: projections, reactors, and aggregates that subscribe.
    pub consumers: Vec<ConsumerStatus>,
    /// Each subscriber by event type.
    pub subscribers: Vec<SubscriberStatus>,
}

impl AppStatus {
    /// The durable consumer of this name; none if there is no such one.
    pub fn consumer(&self, name: &str) -> Option<&ConsumerStatus> {
        self.consumers.iter().find(|consumer| consumer.name == name)
    }
}

/// The state of one type of aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AggregateStatus {
    /// Its category.
    pub category: &'static str,
    /// The actors that own the live ones.
    pub shards: Vec<ShardStatus>,
}

impl AggregateStatus {
    /// How many aggregates are live in all shards.
    pub fn live(&self) -> usize {
        self.shards.iter().map(|shard| shard.live).sum()
    }
}

/// The state of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShardStatus {
    /// How many aggregates it holds in memory.
    pub live: usize,
    /// How many commands wait for an aggregate to be loaded, or for their id to be looked up.
    pub waiting: usize,
    /// How many turns are with the sequencer.
    pub turns: u64,
    /// How many decisions it has made.
    pub decided: u64,
    /// How many events it has passed over while it loaded aggregates, because the program does not know them.
    pub ignored: u64,
}

impl ShardStatus {
    fn of(gauge: &ShardGauge) -> Self {
        use std::sync::atomic::Ordering::Relaxed;
        Self {
            live: gauge.live.load(Relaxed),
            waiting: gauge.waiting.load(Relaxed),
            turns: gauge.turns.load(Relaxed),
            decided: gauge.decided.load(Relaxed),
            ignored: gauge.ignored.load(Relaxed),
        }
    }
}
