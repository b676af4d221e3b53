//! Putting an app together.

use std::any::{Any, TypeId};
use std::error::Error;
use std::fmt;
use std::future::Future;
#[cfg(feature = "sqlite")]
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::running::{Parts, Running};
use super::watchdog::Watchdog;
use super::{App, Gauges, Inner, SHUTDOWN, WeakApp};
use crate::actor::{ActorHandle, Arbiters};
use crate::aggregate::Aggregate;
use crate::aggregate::directory::Directory;
use crate::aggregate::inbox::inbox;
use crate::aggregate::shard::{Limits, MAX_TURNS, Shard, ShardGauge};
use crate::aggregate::subscriptions;
use crate::bus::{Bus, ComponentKind, Condition, Declared, Hook, Reference, Routes, Topics, Wired};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::event::{Envelope, EventSet};
use crate::letters::Letters;
use crate::letters::desk::ConsumerLetters;
use crate::letters::shelf::{Shelf, Shelved};
#[cfg(feature = "sqlite")]
use crate::processor::file::ViewsFile;
use crate::processor::gauge::{ConsumerKind, Gauge};
use crate::processor::ledger::Ledger;
use crate::processor::{ConsumerState, Keeper, Processor, Progress, Stopping, Wiring};
use crate::projection::{Handlers, Projection, Storage};
use crate::query::{Answers, Query, QueryContext};
use crate::reactor::{Engine, Plan, Reactions, Reactor, Wiring as EngineWiring};
use crate::sequencer::{Head, Sequencer, SequencerInbox};
use crate::store::{EventStore, Filter, StoreError};
use crate::stream::{Position, StreamId};
use crate::subscriber::{
    Engine as SubscriberEngine, EventSubscriber, SubscriberGauge, Subscriptions,
};

/// Puts an app together: the store, the aggregates, the projections, and what differs from the defaults.
#[must_use = "an app does nothing until it is started"]
pub struct AppBuilder {
    store: Option<Arc<dyn EventStore>>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    hooks: Vec<Step>,
    aggregates: Vec<Step>,
    projections: Vec<Step>,
    reactors: Vec<Step>,
    subscribers: Vec<Step>,
    queries: Vec<Step>,
    bus: Bus,
}

type Step = Box<dyn FnOnce(&mut Building) -> Result<(), StartError> + Send>;

struct Settings {
    arbiters: usize,
    limits: Limits,
    topic_capacity: usize,
    /// How long a consumer may stand still.
    patience: Duration,
    #[cfg(feature = "sqlite")]
    views: Option<PathBuf>,
}

/// Why an app could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No store was given.
    #[error("no store was given: call `.store(…)` with a `Sqlite` or a `Memory`")]
    NoStore,
    /// Two aggregates have the same category, or an aggregate was given twice.
    #[error("category {0:?} is used by two aggregates: each needs its own")]
    CategoryTwice(&'static str),
    /// The aggregates of a category decide twice on the same event.
    #[error("aggregate {category:?} decides twice on event {event:?}: decide on it once")]
    DecidedTwice {
        /// The category.
        category: &'static str,
        /// The event's stored name.
        event: &'static str,
    },
    /// A category cannot stand in a stream id.
    #[error("aggregate category {category:?} is not valid")]
    Category {
        /// The category.
        category: &'static str,
        /// What is wrong with it.
        source: crate::stream::InvalidStreamId,
    },
    /// Two projections have the same name, or a projection was given twice.
    #[error("projection {0:?} exists twice: each needs a name of its own")]
    ProjectionTwice(&'static str),
    /// A projection has no handler.
    #[error("projection {0:?} handles no event: name handlers in `Projection::handlers`")]
    NoHandlers(&'static str),
    /// A projection has two handlers for the same event.
    #[error("projection {projection:?} has two handlers for event {event:?}: merge them into one")]
    HandlerTwice {
        /// The projection.
        projection: &'static str,
        /// The event's stored name.
        event: &'static str,
    },
    /// Something was said of an event that a projection has no handler for.
    #[error(
        "projection {projection:?} has no handler for event {event:?}: name that before its key or `live_only`"
    )]
    Unhandled {
        /// The projection.
        projection: &'static str,
        /// The event's stored name.
        event: &'static str,
    },
    /// Two consumers have the same name: projections, reactors and aggregates that subscribe keep their checkpoints under it.
    #[error(
        "two consumers have the name {0:?}: projections and reactors keep their checkpoints under it, so each needs its own"
    )]
    ConsumerTwice(&'static str),
    /// A reactor has no handler.
    #[error("reactor {0:?} handles no event: name handlers in `Reactor::handlers`")]
    ReactorNoHandlers(&'static str),
    /// A reactor has two handlers for the same event.
    #[error("reactor {reactor:?} has two handlers for event {event:?}: merge them into one")]
    ReactorHandlerTwice {
        /// The reactor.
        reactor: &'static str,
        /// The event's stored name.
        event: &'static str,
    },
    /// Something was said of an event that a reactor has no handler for.
    #[error(
        "reactor {reactor:?} has no handler for event {event:?}: name that before its key or `live_only`"
    )]
    ReactorUnhandled {
        /// The reactor.
        reactor: &'static str,
        /// The event's stored name.
        event: &'static str,
    },
    /// The checkpoint and the letters of a consumer cannot be read.
    #[error("the checkpoint of {name:?} cannot be read")]
    Ledger {
        /// The consumer.
        name: &'static str,
        /// What is wrong.
        source: StoreError,
    },
    /// Two subscribers have the same name, or a subscriber was given twice.
    #[error("subscriber {0:?} exists twice: each needs a name of its own")]
    SubscriberTwice(&'static str),
    /// A subscriber has no handler.
    #[error("subscriber {0:?} handles no event: name handlers in `EventSubscriber::subscriptions`")]
    SubscriberNoHandlers(&'static str),
    /// A subscriber has two handlers for the same event.
    #[error("subscriber {subscriber:?} has two handlers for event {event:?}: merge them into one")]
    SubscriberHandlerTwice {
        /// The subscriber.
        subscriber: &'static str,
        /// The event's name.
        event: &'static str,
    },
    /// Two sets hold events with the same stored name, so that a reader of the log could not tell them apart.
    #[error("event name {0:?} is used by two sets of events: rename one of them")]
    NameTwice(&'static str),
    /// Queries of one type are answered by two projections or handlers.
    #[error(
        "query {0} is answered twice: remove one of its `#[query]` methods and `.answer(…)` handlers"
    )]
    AnswerTwice(&'static str),
    /// Two responders to one query have the same name.
    #[error("query {query} has two responders of the name {responder:?}: each needs its own")]
    ResponderTwice {
        /// The query.
        query: &'static str,
        /// The name.
        responder: &'static str,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Store(#[from] StoreError),
    /// The view of a projection cannot be opened.
    #[error("the view of projection {name:?} cannot be opened")]
    View {
        /// The projection.
        name: &'static str,
        /// What is wrong.
        source: StoreError,
    },
    /// A thread cannot be started.
    #[error("a thread cannot be started")]
    Thread(#[from] std::io::Error),
    /// The framework's own code panicked.
    #[error("starting panicked: {0}")]
    Panicked(String),
}

impl AppBuilder {
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            store: None,
            clock: Arc::new(SystemClock),
            settings: Settings {
                arbiters: cores.div_ceil(2),
                limits: Limits { inbox: 1_024, live: 100_000, idle: Duration::from_secs(300) },
                topic_capacity: Topics::CAPACITY,
                patience: Watchdog::PATIENCE,
                #[cfg(feature = "sqlite")]
                views: None,
            },
            hooks: Vec::new(),
            aggregates: Vec::new(),
            projections: Vec::new(),
            reactors: Vec::new(),
            subscribers: Vec::new(),
            queries: Vec::new(),
            bus: Bus::new(),
        }
    }

    /// The log that keeps the events.
    pub fn store(mut self, store: impl EventStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Where the time of events comes from; the machine's clock unless set.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Takes commands for aggregates of type `A`.
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        self.aggregates.push(Box::new(Building::start_aggregate::<A>));
        self
    }

    /// Keeps the view of `projection`.
    pub fn projection<P: Projection>(mut self, projection: P) -> Self {
        self.projections.push(Box::new(|building| building.start_projection(projection)));
        self
    }

    /// Lets `reactor` handle the events that it names, with their effects outside the store.
    pub fn reactor<R: Reactor>(mut self, reactor: R) -> Self {
        self.reactors.push(Box::new(|building| building.start_reactor(reactor)));
        self
    }

    /// Lets `subscriber` hear what is published from the start of the app on, on threads of its own kind.
    pub fn subscriber<S: EventSubscriber>(mut self, subscriber: S) -> Self {
        self.subscribers.push(Box::new(|building| building.start_subscriber(subscriber)));
        self
    }

    /// The bus with the transient topics; one of its own unless set. The app closes it when it shuts down.
    pub fn bus(mut self, bus: Bus) -> Self {
        self.bus = bus;
        self
    }

    /// Answers queries of type `Q` with `handler`, which gets the query and its [context](QueryContext). What a view can
    /// answer by itself needs none of this: give its projection a `#[query]` method.
    ///
    /// The handler runs in the task of who asks. `?` works on every error in it; a panic reaches its caller alone.
    ///
    /// # Examples
    /// ```
    /// use tidings::{App, Memory, Query};
    ///
    /// #[derive(Query)]
    /// #[query(reply = f64)]
    /// struct Price { net: String }
    ///
    /// #[derive(Query)]
    /// #[query(reply = f64)]
    /// struct Rate;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::builder()
    ///     .store(Memory::new())
    ///     .answer(|_: Rate, _| async { Ok(0.25) })
    ///     .answer(|query: Price, context| async move {
    ///         let net: f64 = query.net.parse()?;
    ///         Ok(net * (1.0 + context.app.query(Rate).await?))
    ///     })
    ///     .start()
    ///     .await?;
    /// assert_eq!(app.query(Price { net: "80".into() }).await?, 100.0);
    /// assert!(app.query(Price { net: "eighty".into() }).await.is_err());
    /// # app.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn answer<Q, A>(
        mut self,
        handler: impl Fn(Q, QueryContext) -> A + Send + Sync + 'static,
    ) -> Self
    where
        Q: Query,
        A: Future<Output = Result<Q::Reply, Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        self.queries.push(Box::new(|building| building.answers.add_handler(handler)));
        self
    }

    /// Adds `handler` to those who respond when queries of type `Q` are [gathered](App::gather), under a name of its own.
    ///
    /// It runs in the task of who asks, at once with the others.
    pub fn respond<Q, A>(
        mut self,
        name: &'static str,
        handler: impl Fn(Q, QueryContext) -> A + Send + Sync + 'static,
    ) -> Self
    where
        Q: Query,
        A: Future<Output = Result<Q::Reply, Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        self.queries.push(Box::new(move |building| building.answers.add_responder(name, handler)));
        self
    }

    /// On how many threads aggregates live; half the cores unless set, at least one. Each type of aggregate has one shard on
    /// each of them. Subscribers live on as many others.
    pub fn arbiters(mut self, arbiters: usize) -> Self {
        self.settings.arbiters = arbiters.max(1);
        self
    }

    /// How many aggregates of each type may be live in memory; 100,000 unless set. The longest unused ones go first.
    pub fn max_live(mut self, aggregates: usize) -> Self {
        self.settings.limits.live = aggregates.max(1);
        self
    }

    /// After how long an unused aggregate leaves the memory; five minutes unless set.
    pub fn passivate_after(mut self, idle: Duration) -> Self {
        self.settings.limits.idle = idle;
        self
    }

    /// How many commands may wait in the inbox of each shard before senders wait; 1,024 unless set.
    pub fn inbox(mut self, commands: usize) -> Self {
        self.settings.limits.inbox = commands.max(1);
        self
    }

    /// How many of its newest events a topic keeps in memory for its readers; 16,384 unless set. A reader that falls further
    /// behind reads from the log.
    pub fn topic_capacity(mut self, events: usize) -> Self {
        self.settings.topic_capacity = events.max(1);
        self
    }

    /// Calls `hook` around publishing and handling on the topic of the events of `S`, after those that were given before. It is
    /// told in the sequencer's thread what was published; projections are not announced as handlers.
    pub fn hook<S: EventSet>(mut self, hook: impl Hook<Envelope<S>>) -> Self {
        let hook = Arc::new(hook);
        self.hooks.push(Box::new(|building| {
            building.topics.hook::<S>(hook);
            Ok(())
        }));
        self
    }

    /// How long a consumer may stand still while it is behind the head of the log, before that is reported; 30 seconds unless
    /// set. One that has stopped with trouble is reported at once.
    ///
    /// It is looked at every second, and at least four times within this time. When a consumer begins to stand still there is a
    /// warning in the traces, with what keeps it; when it goes on there is a notice. Meanwhile the status says for how long:
    /// [`ConsumerStatus::stalled`](crate::ConsumerStatus::stalled). It stops nobody.
    pub fn watchdog(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }

    /// In which file table projections keep their views; beside the log unless set, in memory if the log is in memory.
    #[cfg(feature = "sqlite")]
    pub fn views(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.views = Some(path.into());
        self
    }

    /// Starts everything.
    ///
    /// Projections catch up in the background; their views can be read at once.
    ///
    /// What is strange about the wiring, as far as it was declared and is there by now, is traced as a warning each; see
    /// [`Map::findings`](crate::Map::findings).
    ///
    /// # Errors
    /// [`StartError`] if the parts do not fit together, or the log or a view cannot be opened. Nothing runs then.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropped half-way, what was started ends in the background.
    pub async fn start(self) -> Result<App, StartError> {
        tokio::task::spawn_blocking(|| self.build())
            .await
            .unwrap_or_else(|error| Err(StartError::Panicked(error.to_string())))
    }

    fn build(self) -> Result<App, StartError> {
        let store = self.store.ok_or(StartError::NoStore)?;
        let (head, head_receiver) = watch::channel(read_head(&*store)?);
        let start = head_receiver.borrow().position;
        let origin = time_after(&*store, Position::START)?.unwrap_or_else(|| self.clock.now());
        let max_turns = self.settings.arbiters
            * self.aggregates.len()
            * usize::try_from(MAX_TURNS).unwrap_or(1);
        let published = Arc::new(OnceLock::new());
        let (sequencer, inbox, sequencer_gauge) =
            Sequencer::start(Arc::clone(&store), Arc::clone(&published), head, max_turns)?;
        let mut building = Building {
            topics: Topics::new(Arc::clone(&store), start, self.settings.topic_capacity),
            store,
            clock: self.clock,
            settings: self.settings,
            sequencer: Some(inbox),
            head: head_receiver,
            origin,
            closing: watch::Sender::new(false),
            stopping: watch::Sender::new(Stopping::No),
            arbiters: HashMap::new(),
            shards: Vec::new(),
            processors: Vec::new(),
            engines: Vec::new(),
            app: watch::Sender::new(WeakApp::default()),
            subscribers: Vec::new(),
            bus: self.bus,
            declared: Vec::new(),
            directories: HashMap::new(),
            views: HashMap::new(),
            answers: Answers::default(),
            names: HashMap::new(),
            shard_gauges: Vec::new(),
            #[cfg(feature = "testing")]
            rests: Vec::new(),
            consumers: Vec::new(),
            subscriber_gauges: Vec::new(),
            letters: Vec::new(),
            #[cfg(feature = "sqlite")]
            views_file: None,
        };
        let started = self
            .hooks
            .into_iter()
            .chain(self.aggregates)
            .chain(self.projections)
            .chain(self.reactors)
            .chain(self.subscribers)
            .chain(self.queries)
            .try_for_each(|step| step(&mut building));
        // Last: an app that cannot be started does not close the bus, which would end them.
        // And an app that cannot be started has no effects outside.
        let started =
            started.and_then(|()| Ok((building.spawn_subscribers()?, building.spawn_engines()?)));
        let (started, (subscribers, reactors)) = match started {
            Ok(spawned) => (Ok(()), spawned),
            Err(error) => (Err(error), Default::default()),
        };
        let watchdog = building.watch();
        let (store, head, topics) = (building.store, building.head, Arc::new(building.topics));
        // Set once, here; nobody has sent a command yet.
        let _ = published.set(Arc::clone(&topics));
        // From here on, dropping `running` ends what was started.
        // The last way to the sequencer but those of the shards: it ends when they have ended.
        drop(building.sequencer);
        let mut running = Running::new(Parts {
            closing: building.closing,
            stopping: building.stopping,
            shards: building.shards,
            processors: building.processors,
            reactors,
            subscribers,
            bus: started.is_ok().then(|| building.bus.clone()),
            watchdog,
            sequencer,
            topics: Arc::clone(&topics),
            arbiters: building.arbiters.into_values().collect(),
        });
        if let Err(error) = started {
            running.end(SHUTDOWN);
            if let Some(ending) = running.take_ending()
                && ending.join().is_err()
            {
                tracing::error!("an app that could not be started did not end in order");
            }
            return Err(error);
        }
        let wiring = Arc::new(Wired { topics: Arc::clone(&topics), declared: building.declared });
        building.bus.attach(&wiring);
        for finding in building.bus.map().findings() {
            tracing::warn!("{finding}");
        }
        let app = App {
            inner: Arc::new(Inner {
                store,
                head,
                topics,
                bus: building.bus,
                _wiring: wiring,
                directories: building.directories,
                views: building.views,
                answers: building.answers,
                letters: Letters::new(building.letters),
                gauges: Gauges {
                    sequencer: sequencer_gauge,
                    shards: building.shard_gauges,
                    #[cfg(feature = "testing")]
                    rests: building.rests,
                    consumers: building.consumers,
                    subscribers: building.subscriber_gauges,
                },
                running: Mutex::new(running),
            }),
        };
        building.app.send_replace(WeakApp { inner: Arc::downgrade(&app.inner) });
        Ok(app)
    }
}

impl fmt::Debug for AppBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppBuilder")
            .field("aggregates", &self.aggregates.len())
            .field("projections", &self.projections.len())
            .field("arbiters", &self.settings.arbiters)
            .finish_non_exhaustive()
    }
}

fn read_head(store: &dyn EventStore) -> Result<Head, StoreError> {
    let position = store.head()?;
    let time = match position.as_u64().checked_sub(1) {
        None => Timestamp::default(),
        Some(before) => time_after(store, Position::new(before))?.unwrap_or_default(),
    };
    Ok(Head { position, time })
}

/// When the event behind `position` was decided.
fn time_after(store: &dyn EventStore, position: Position) -> Result<Option<Timestamp>, StoreError> {
    let page = store.read_log(position, &Filter::All, 1)?;
    Ok(page.events.first().map(|event| event.header.time))
}

/// Which threads an actor lives on. Kept apart, so that a long fold or a write to a view's file delays no decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Floor {
    Aggregates,
    Projections,
    Subscribers,
    Reactors,
    /// Projections that write to the views' file: one thread, since the file has one writer.
    #[cfg(feature = "sqlite")]
    Tables,
}

/// An app that is being put together.
pub struct Building {
    pub(crate) store: Arc<dyn EventStore>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    sequencer: Option<SequencerInbox>,
    pub(crate) head: watch::Receiver<Head>,
    /// When the log began.
    origin: Timestamp,
    closing: watch::Sender<bool>,
    stopping: watch::Sender<Stopping>,
    topics: Topics,
    arbiters: HashMap<Floor, Arc<Arbiters>>,
    shards: Vec<(&'static str, ActorHandle)>,
    processors: Vec<(&'static str, ActorHandle)>,
    /// Those that are ready to run.
    engines: Vec<(&'static str, Engine)>,
    /// Where the engines learn of the app that they are part of.
    app: watch::Sender<WeakApp>,
    /// Those that are ready to run.
    subscribers: Vec<(&'static str, Ready)>,
    bus: Bus,
    declared: Vec<Declared>,
    directories: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    views: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    pub(crate) answers: Answers,
    /// The stored names of all events, each with the set that it belongs to.
    names: HashMap<&'static str, TypeId>,
    shard_gauges: Vec<(&'static str, Vec<Arc<ShardGauge>>)>,
    #[cfg(feature = "testing")]
    rests: Vec<(&'static str, crate::aggregate::inbox::Rest)>,
    consumers: Vec<Arc<Gauge>>,
    subscriber_gauges: Vec<(&'static str, Arc<SubscriberGauge>)>,
    /// The letters of each consumer.
    letters: Vec<ConsumerLetters>,
    #[cfg(feature = "sqlite")]
    views_file: Option<ViewsFile>,
}

/// A subscriber that is ready to run, once there is somebody who ends it.
type Ready = Box<dyn FnOnce(&Arbiters, watch::Receiver<Stopping>) -> ActorHandle + Send>;

impl Building {
    fn arbiters(&mut self, floor: Floor) -> Result<Arc<Arbiters>, StartError> {
        if let Some(arbiters) = self.arbiters.get(&floor) {
            return Ok(Arc::clone(arbiters));
        }
        let threads = match floor {
            Floor::Aggregates | Floor::Subscribers | Floor::Reactors => self.settings.arbiters,
            _ => 1,
        };
        let arbiters = Arc::new(Arbiters::start(threads)?);
        self.arbiters.insert(floor, Arc::clone(&arbiters));
        Ok(arbiters)
    }

    /// Keeps two sets from using the same stored name.
    fn claim(&mut self, set: TypeId, names: &[&'static str]) -> Result<(), StartError> {
        match names.iter().find(|name| *self.names.entry(name).or_insert(set) != set) {
            Some(name) => Err(StartError::NameTwice(name)),
            None => Ok(()),
        }
    }

    fn start_aggregate<A: Aggregate>(&mut self) -> Result<(), StartError> {
        if self.shard_gauges.iter().any(|(category, _)| *category == A::CATEGORY) {
            return Err(StartError::CategoryTwice(A::CATEGORY));
        }
        StreamId::new(A::CATEGORY, "1")
            .map_err(|source| StartError::Category { category: A::CATEGORY, source })?;
        self.claim(TypeId::of::<A::Event>(), A::Event::NAMES)?;
        let arbiters = self.arbiters(Floor::Aggregates)?;
        let topic = self.topics.of::<A::Event>();
        let Some(sequencer) = self.sequencer.clone() else {
            return Ok(());
        };
        let mut limits = self.settings.limits;
        limits.live = limits.live.div_ceil(self.settings.arbiters);
        let (mut inboxes, mut gauges) = (Vec::new(), Vec::new());
        for _ in 0..self.settings.arbiters {
            let (inbox, commands) = inbox(limits.inbox);
            let gauge = Arc::new(ShardGauge::default());
            #[cfg(feature = "testing")]
            {
                let gauge = Arc::clone(&gauge);
                self.rests.push((A::CATEGORY, inbox.rest(move || gauge.is_idle())));
            }
            inboxes.push(inbox);
            gauges.push(Arc::clone(&gauge));
            let shard = Shard::<A>::new(
                limits,
                commands,
                self.closing.subscribe(),
                Arc::clone(&self.store),
                sequencer.clone(),
                topic.clone(),
                Arc::clone(&self.clock),
                gauge,
            );
            self.shards.push((A::CATEGORY, arbiters.spawn(move || shard.run())));
        }
        let directory = Arc::new(Directory::new(inboxes));
        self.directories.insert(TypeId::of::<A>(), Box::new(Arc::clone(&directory)));
        self.shard_gauges.push((A::CATEGORY, gauges));
        let publishes = vec![Reference::to_some::<Envelope<A::Event>>(A::Event::NAMES.to_vec())];
        let (hears, routes) = subscriptions::routes(&directory)
            .map_err(|event| StartError::DecidedTwice { category: A::CATEGORY, event })?;
        if routes.is_empty() {
            self.declared.push(Declared {
                name: A::CATEGORY.into(),
                kind: ComponentKind::Aggregate,
                hears: Vec::new(),
                publishes,
                condition: None,
            });
            return Ok(());
        }
        for (set, names) in subscriptions::sets::<A>() {
            self.claim(set, names)?;
        }
        let (options, failures) = subscriptions::options::<A>();
        let plan = Plan { routes, hears, publishes, options, failures };
        self.start_engine(A::CATEGORY, ConsumerKind::Aggregate, plan)
    }

    fn start_projection<P: Projection>(&mut self, projection: P) -> Result<(), StartError> {
        let namesake = self.consumers.iter().find(|gauge| gauge.name() == P::NAME);
        match namesake.map(|gauge| gauge.kind()) {
            None => {}
            Some(ConsumerKind::Projection) => return Err(StartError::ProjectionTwice(P::NAME)),
            Some(_) => return Err(StartError::ConsumerTwice(P::NAME)),
        }
        let view = <P::Storage as crate::projection::private::Storage>::start(projection, self)?;
        self.views.insert(TypeId::of::<P>(), Box::new(view));
        Ok(())
    }

    /// Starts the actor of a projection, and returns where it shows its progress.
    pub(crate) fn start_processor<P, S, K>(
        &mut self,
        floor: Floor,
        keeper: K,
        shelved: Shelved,
        handlers: &mut Handlers<P, S>,
    ) -> Result<watch::Receiver<Progress>, StartError>
    where
        P: Projection<Storage = S>,
        S: Storage<Target<P> = K::Target>,
        K: Keeper,
    {
        let mut sources = handlers.take_sources()?;
        if sources.is_empty() {
            return Err(StartError::NoHandlers(P::NAME));
        }
        let shelf = Arc::new(Shelf::new(shelved));
        let (letters, clerk) = ConsumerLetters::new(P::NAME, Arc::clone(&shelf));
        self.letters.push(letters);
        for source in &mut sources {
            let (set, names) = source.set();
            self.claim(set, names)?;
            source.connect(&mut self.topics);
        }
        let hears = sources.iter().map(|source| source.heard()).collect();
        let (kind, checkpoint) = (ConsumerKind::Projection, keeper.checkpoint());
        let (progress, gauge) = self.consumer(P::NAME, kind, checkpoint, shelf, hears, Vec::new());
        let progress_receiver = progress.subscribe();
        let wiring = Wiring {
            name: P::NAME,
            store: Arc::clone(&self.store),
            head: self.head.clone(),
            stopping: self.stopping.subscribe(),
            progress,
            gauge,
            clock: Arc::clone(&self.clock),
            policy: P::failures(),
            clerk,
        };
        let processor = Processor::new(keeper, sources, wiring);
        let arbiters = self.arbiters(floor)?;
        self.processors.push((P::NAME, arbiters.spawn(move || processor.run())));
        Ok(progress_receiver)
    }

    /// Registers a durable consumer that stands at `checkpoint`, and returns where it reports its progress and counts what it
    /// handles. From here on it shows in the status, on the map and in the figures, and is watched.
    pub(crate) fn consumer(
        &mut self,
        name: &'static str,
        kind: ConsumerKind,
        (position, time): (Position, Timestamp),
        shelf: Arc<Shelf>,
        hears: Vec<Reference>,
        publishes: Vec<Reference>,
    ) -> (watch::Sender<Progress>, Arc<Gauge>) {
        let (progress, receiver) = watch::channel(Progress {
            position,
            time,
            state: ConsumerState::CatchingUp,
            at: self.clock.now(),
            trouble: None,
        });
        let head = self.head.clone();
        let gauge = Arc::new(Gauge::new(name, kind, head, receiver, shelf, self.origin));
        self.consumers.push(Arc::clone(&gauge));
        let shown = Arc::clone(&gauge);
        self.declared.push(Declared {
            name: name.into(),
            kind: match kind {
                ConsumerKind::Projection => ComponentKind::Projection,
                ConsumerKind::Reactor => ComponentKind::Reactor,
                ConsumerKind::Aggregate => ComponentKind::Aggregate,
            },
            hears,
            publishes,
            condition: Some(Arc::new(move || {
                let (lag, trouble) = shown.condition();
                Condition { lag: Some(lag), trouble }
            })),
        });
        (progress, gauge)
    }

    /// Starts the watchdog beside the actors that it watches; none if there are none.
    fn watch(&self) -> Option<Watchdog> {
        let arbiters = self.arbiters.values().next()?;
        Watchdog::start(arbiters, self.consumers.clone(), self.settings.patience)
    }

    fn start_reactor<R: Reactor>(&mut self, reactor: R) -> Result<(), StartError> {
        let reactions = Reactions::<R>::of_reactor();
        reactions.check()?;
        for (set, names) in reactions.sets() {
            self.claim(set, names)?;
        }
        let hears = reactions.heard();
        let routes = reactions.bind(reactor, self)?;
        let (options, failures) = (R::options(), R::failures());
        let plan = Plan { routes, hears, publishes: Vec::new(), options, failures };
        self.start_engine(R::NAME, ConsumerKind::Reactor, plan)
    }

    /// Makes an engine ready that does what `plan` says, and keeps its checkpoint and its letters under `name`. It runs once
    /// everything else has started.
    fn start_engine(
        &mut self,
        name: &'static str,
        kind: ConsumerKind,
        plan: Plan,
    ) -> Result<(), StartError> {
        if self.letters.iter().any(|letters| letters.consumer() == name) {
            return Err(StartError::ConsumerTwice(name));
        }
        let (ledger, mut begin) =
            Ledger::open(self, name, 1).map_err(|source| StartError::Ledger { name, source })?;
        let shelf = Arc::new(Shelf::new(std::mem::take(&mut begin.shelved)));
        let (letters, clerk) = ConsumerLetters::new(name, Arc::clone(&shelf));
        self.letters.push(letters);
        let checkpoint = (begin.position, begin.time);
        let Plan { routes, hears, publishes, options, failures } = plan;
        let (progress, gauge) = self.consumer(name, kind, checkpoint, shelf, hears, publishes);
        let wiring = EngineWiring {
            name,
            store: Arc::clone(&self.store),
            head: self.head.clone(),
            closing: self.closing.subscribe(),
            stopping: self.stopping.subscribe(),
            progress,
            gauge,
            clock: Arc::clone(&self.clock),
            clerk,
            app: self.app.subscribe(),
        };
        self.engines.push((name, Engine::new(routes, options, failures, wiring, ledger, &begin)));
        Ok(())
    }

    fn spawn_engines(&mut self) -> Result<Vec<(&'static str, ActorHandle)>, StartError> {
        let engines = std::mem::take(&mut self.engines);
        if engines.is_empty() {
            return Ok(Vec::new());
        }
        let arbiters = self.arbiters(Floor::Reactors)?;
        let spawn = |engine: Engine| arbiters.spawn(move || engine.run());
        Ok(engines.into_iter().map(|(name, engine)| (name, spawn(engine))).collect())
    }

    /// Begins the subscriptions of a subscriber, which does not run yet.
    fn start_subscriber<S: EventSubscriber>(&mut self, subscriber: S) -> Result<(), StartError> {
        if self.subscribers.iter().any(|(name, _)| *name == S::NAME) {
            return Err(StartError::SubscriberTwice(S::NAME));
        }
        let subscriptions = Subscriptions::<S>::of_subscriber();
        if let Some(event) = subscriptions.twice().first() {
            return Err(StartError::SubscriberHandlerTwice { subscriber: S::NAME, event });
        }
        if subscriptions.is_empty() {
            return Err(StartError::SubscriberNoHandlers(S::NAME));
        }
        for (set, names) in subscriptions.sets() {
            self.claim(set, names)?;
        }
        let (hears, publishes) = (subscriptions.heard(), subscriptions.published());
        let routes = Routes::new(&self.bus, &mut self.topics);
        let engine = SubscriberEngine::new(subscriber, subscriptions, routes);
        let gauge = engine.gauge();
        self.subscriber_gauges.push((S::NAME, Arc::clone(&gauge)));
        self.declared.push(Declared {
            name: S::NAME.into(),
            kind: ComponentKind::Subscriber,
            hears,
            publishes,
            condition: Some(Arc::new(move || Condition { lag: None, trouble: gauge.trouble() })),
        });
        let ready: Ready = Box::new(move |arbiters, mut stopping| {
            arbiters.spawn(move || {
                engine.run(async move {
                    // An app that is gone has ended it before.
                    let _ = stopping.wait_for(|stopping| *stopping == Stopping::Now).await;
                })
            })
        });
        self.subscribers.push((S::NAME, ready));
        Ok(())
    }

    fn spawn_subscribers(&mut self) -> Result<Vec<(&'static str, ActorHandle)>, StartError> {
        let ready = std::mem::take(&mut self.subscribers);
        if ready.is_empty() {
            return Ok(Vec::new());
        }
        let arbiters = self.arbiters(Floor::Subscribers)?;
        let spawn = |ready: Ready| ready(&arbiters, self.stopping.subscribe());
        Ok(ready.into_iter().map(|(name, ready)| (name, spawn(ready))).collect())
    }

    /// The file that consumers keep their views and checkpoints in; in memory if the log is.
    #[cfg(feature = "sqlite")]
    pub(crate) fn views_file(&mut self) -> ViewsFile {
        let (settings, store) = (&self.settings, &self.store);
        let file = self.views_file.get_or_insert_with(|| {
            let path = settings.views.clone().or_else(|| store.views_beside());
            ViewsFile::new(path, store.log_id())
        });
        file.clone()
    }
}

impl fmt::Debug for Building {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Building").finish_non_exhaustive()
    }
}
