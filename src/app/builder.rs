//! Putting an app together.

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

use super::building::{Building, Settings};
use super::running::{Parts, Running};
use super::watchdog::Watchdog;
use super::{App, Gauges, Inner, SHUTDOWN, StartError, WeakApp};
use crate::aggregate::Aggregate;
use crate::aggregate::shard::{Limits, MAX_TURNS};
use crate::bus::{Bus, Hook, Topics, Wired};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::event::{Envelope, EventSet};
use crate::letters::Letters;
#[cfg(feature = "personal")]
use crate::personal::{Forgetting, Keys};
use crate::processor::Stopping;
use crate::processor::rebuild::Crew;
#[cfg(feature = "sqlite")]
use crate::processor::rebuild::Old;
use crate::projection::Projection;
use crate::query::{Answers, Query, QueryContext};
use crate::reactor::Reactor;
use crate::sequencer::{Head, Sequencer};
use crate::store::{Decoder, EventStore, Filter, StoreError};
use crate::stream::Position;
use crate::subscriber::EventSubscriber;

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
                pauses: true,
                #[cfg(feature = "sqlite")]
                views: None,
                #[cfg(feature = "sqlite")]
                old_views: Old::Drop,
                #[cfg(feature = "personal")]
                keys: None,
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

    /// Lets consumers try an event again at once, whatever their policies say.
    #[cfg(feature = "testing")]
    pub(crate) fn without_pauses(mut self) -> Self {
        self.settings.pauses = false;
        self
    }

    /// In which file table projections keep their views; beside the log unless set, in memory if the log is in memory.
    #[cfg(feature = "sqlite")]
    pub fn views(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.views = Some(path.into());
        self
    }

    /// Keeps a view in tables that one of a raised version with the same schema replaces, in a file beside the others: a program of
    /// the earlier version that is started again then goes on from it, and need not build it anew.
    #[cfg(feature = "sqlite")]
    pub fn keep_old_views(mut self) -> Self {
        self.settings.old_views = Old::Keep;
        self
    }

    /// In which file the keys of [personal data](crate::personal) are kept: beside the log unless set, so that it can be backed up, and
    /// guarded, apart from it. It is made when there is something to seal. A log in memory keeps its keys there, whatever is said here.
    #[cfg(all(feature = "personal", feature = "sqlite"))]
    pub fn keys(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.keys = Some(path.into());
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
        #[cfg(feature = "personal")]
        let keys = Keys::of(&store, self.settings.keys.clone()).map_err(StartError::Keys)?;
        let (sequencer, inbox, sequencer_gauge) = Sequencer::start(
            Arc::clone(&store),
            #[cfg(feature = "personal")]
            keys.clone(),
            Arc::clone(&published),
            head,
            max_turns,
        )?;
        let decoder = Decoder::new(
            Arc::clone(&store),
            #[cfg(feature = "personal")]
            keys.clone(),
        );
        #[cfg(feature = "personal")]
        let forgetting = Forgetting { keys, clock: Arc::clone(&self.clock) };
        let mut building = Building {
            topics: Topics::new(decoder.clone(), start, self.settings.topic_capacity),
            store,
            decoder,
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
            rebuilds: HashMap::new(),
            crew: Crew::default(),
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
        #[cfg(feature = "personal")]
        building.declare_subjects();
        // Last: an app that cannot be started does not close the bus, which would end them.
        // And an app that cannot be started has no effects outside.
        let started =
            started.and_then(|()| Ok((building.spawn_subscribers()?, building.spawn_engines()?)));
        let (started, (subscribers, reactors)) = match started {
            Ok(spawned) => (Ok(()), spawned),
            Err(error) => (Err(error), Default::default()),
        };
        let gauges = Arc::new(Gauges {
            sequencer: sequencer_gauge,
            shards: building.shard_gauges,
            #[cfg(feature = "testing")]
            rests: building.rests,
            consumers: building.consumers,
            subscribers: building.subscriber_gauges,
        });
        // Beside the actors that it watches; if there are none, nothing can stand still.
        let arbiters = building.arbiters.values().next();
        let patience = building.settings.patience;
        let watchdog = arbiters.and_then(|arbiters| Watchdog::start(arbiters, &gauges, patience));
        let (head, topics) = (building.head, Arc::new(building.topics));
        // Set once, here; nobody has sent a command yet.
        let _ = published.set(Arc::clone(&topics));
        // From here on, dropping `running` ends what was started.
        // The last way to the sequencer but those of the shards: it ends when they have ended.
        #[cfg(not(feature = "personal"))]
        drop(building.sequencer);
        let mut running = Running::new(Parts {
            closing: building.closing,
            stopping: building.stopping,
            shards: building.shards,
            processors: building.processors,
            reactors,
            subscribers,
            crew: building.crew,
            bus: started.is_ok().then(|| building.bus.clone()),
            watchdog,
            #[cfg(feature = "personal")]
            notices: building.sequencer,
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
                decoder: building.decoder,
                head,
                topics,
                bus: building.bus,
                _wiring: wiring,
                directories: building.directories,
                views: building.views,
                rebuilds: building.rebuilds,
                answers: building.answers,
                letters: Letters::new(building.letters),
                gauges,
                #[cfg(feature = "personal")]
                forgetting,
                running: Mutex::new(running),
            }),
        };
        building.app.send_replace(WeakApp { inner: Arc::downgrade(&app.inner) });
        #[cfg(feature = "personal")]
        app.record_forgotten();
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
