//! An app that is being put together: what each part needs from the others, and what is started of it.

use std::any::{Any, TypeId};
use std::fmt;
#[cfg(feature = "sqlite")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::watch;

use super::{StartError, WeakApp};
use crate::actor::{ActorHandle, Arbiters};
use crate::aggregate::Aggregate;
use crate::aggregate::directory::Directory;
use crate::aggregate::inbox::inbox;
use crate::aggregate::shard::{Limits, Shard, ShardGauge};
use crate::aggregate::subscriptions::{self, Subscribing};
use crate::bus::{Bus, ComponentKind, Condition, Declared, Reference, Routes, Topics};
use crate::clock::{Clock, Timestamp};
use crate::event::{Envelope, EventSet, SetInfo};
use crate::letters::desk::ConsumerLetters;
use crate::letters::shelf::{Shelf, Shelved};
#[cfg(feature = "sqlite")]
use crate::processor::file::ViewsFile;
use crate::processor::gauge::{ConsumerKind, Gauge};
use crate::processor::ledger::Ledger;
#[cfg(feature = "sqlite")]
use crate::processor::rebuild::Old;
use crate::processor::rebuild::{Crew, Workshop};
use crate::processor::{ConsumerState, Keeper, Processor, Progress, Stopping, Wiring};
use crate::projection::{Handlers, Projection, Storage};
use crate::query::Answers;
use crate::reactor::{Engine, Plan, Reactions, Reactor, Wiring as EngineWiring};
use crate::retry::FailurePolicy;
use crate::sequencer::{Head, SequencerInbox};
use crate::store::{Decoder, EventStore};
use crate::stream::{Position, StreamId};
use crate::subscriber::{
    Engine as SubscriberEngine, EventSubscriber, SubscriberGauge, Subscriptions,
};

/// What differs from the defaults.
pub(super) struct Settings {
    pub(super) arbiters: usize,
    pub(super) limits: Limits,
    pub(super) topic_capacity: usize,
    /// How long a consumer may stand still.
    pub(super) patience: Duration,
    /// Whether consumers wait before they try an event again.
    pub(super) pauses: bool,
    #[cfg(feature = "sqlite")]
    pub(super) views: Option<PathBuf>,
    #[cfg(feature = "sqlite")]
    pub(super) old_views: Old,
    #[cfg(feature = "personal")]
    pub(super) keys: Option<std::path::PathBuf>,
}

impl Settings {
    /// What a consumer with this policy does with events that it cannot handle.
    fn policy(&self, mut policy: FailurePolicy) -> FailurePolicy {
        if !self.pauses {
            (policy.retry.first, policy.retry.longest) = (Duration::ZERO, Duration::ZERO);
        }
        policy
    }
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
    /// Reads its events.
    pub(crate) decoder: Decoder,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: Settings,
    pub(super) sequencer: Option<SequencerInbox>,
    pub(crate) head: watch::Receiver<Head>,
    /// When the log began.
    pub(super) origin: Timestamp,
    pub(super) closing: watch::Sender<bool>,
    pub(super) stopping: watch::Sender<Stopping>,
    pub(super) topics: Topics,
    pub(super) arbiters: HashMap<Floor, Arc<Arbiters>>,
    pub(super) shards: Vec<(&'static str, ActorHandle)>,
    pub(super) processors: Vec<(&'static str, ActorHandle)>,
    /// Those that are ready to run.
    pub(super) engines: Vec<(&'static str, Engine)>,
    /// Where the engines learn of the app that they are part of.
    pub(super) app: watch::Sender<WeakApp>,
    /// Those that are ready to run.
    pub(super) subscribers: Vec<(&'static str, Ready)>,
    pub(super) bus: Bus,
    pub(super) declared: Vec<Declared>,
    pub(super) directories: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    pub(super) views: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    pub(super) rebuilds: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    pub(super) crew: Crew,
    pub(crate) answers: Answers,
    /// The stored names of all events, each with the set that it belongs to.
    pub(super) names: HashMap<&'static str, TypeId>,
    pub(super) shard_gauges: Vec<(&'static str, Vec<Arc<ShardGauge>>)>,
    #[cfg(feature = "testing")]
    pub(super) rests: Vec<(&'static str, crate::aggregate::inbox::Rest)>,
    pub(super) consumers: Vec<Arc<Gauge>>,
    pub(super) subscriber_gauges: Vec<(&'static str, Arc<SubscriberGauge>)>,
    /// The letters of each consumer.
    pub(super) letters: Vec<ConsumerLetters>,
    #[cfg(feature = "sqlite")]
    pub(super) views_file: Option<ViewsFile>,
}

/// A subscriber that is ready to run, once there is somebody who ends it.
pub(super) type Ready = Box<dyn FnOnce(&Arbiters, watch::Receiver<Stopping>) -> ActorHandle + Send>;

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

    /// Shows who publishes that subjects are forgotten, if anybody hears it.
    #[cfg(feature = "personal")]
    pub(super) fn declare_subjects(&mut self) {
        use crate::personal::SubjectEvent;
        if self.topics.get::<SubjectEvent>().is_some() {
            let names = SubjectEvent::NAMES.to_vec();
            self.declared.push(Declared {
                name: SubjectEvent::CATEGORY.into(),
                kind: ComponentKind::Aggregate,
                hears: Vec::new(),
                publishes: vec![Reference::to_some::<Envelope<SubjectEvent>>(names)],
                condition: None,
            });
        }
    }

    /// Keeps two sets from using the same stored name. One set may have it several times, for versions of an event.
    fn claim(&mut self, set: SetInfo) -> Result<(), StartError> {
        let (id, names) = (set.id, &mut self.names);
        match set.stored_names().find(|name| *names.entry(name).or_insert(id) != id) {
            Some(name) => Err(StartError::NameTwice(name)),
            None => Ok(()),
        }
    }

    pub(super) fn start_aggregate<A: Aggregate>(&mut self) -> Result<(), StartError> {
        if self.shard_gauges.iter().any(|(category, _)| *category == A::CATEGORY) {
            return Err(StartError::CategoryTwice(A::CATEGORY));
        }
        StreamId::new(A::CATEGORY, "1")
            .map_err(|source| StartError::Category { category: A::CATEGORY, source })?;
        self.claim(SetInfo::of::<A::Event>())?;
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
                self.decoder.clone(),
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
        let Subscribing { hears, sets, routes } = subscriptions::routes(&directory)
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
        for set in sets {
            self.claim(set)?;
        }
        let (options, failures) = subscriptions::options::<A>();
        let plan = Plan { routes, hears, publishes, options, failures };
        self.start_engine(A::CATEGORY, ConsumerKind::Aggregate, plan)
    }

    pub(super) fn start_projection<P: Projection>(
        &mut self,
        projection: P,
    ) -> Result<(), StartError> {
        let namesake = self.consumers.iter().find(|gauge| gauge.name() == P::NAME);
        match namesake.map(|gauge| gauge.kind()) {
            None => {}
            Some(ConsumerKind::Projection) => return Err(StartError::ProjectionTwice(P::NAME)),
            Some(_) => return Err(StartError::ConsumerTwice(P::NAME)),
        }
        let (view, rebuilds) =
            <P::Storage as crate::projection::private::Storage>::start(projection, self)?;
        self.rebuilds.insert(TypeId::of::<P>(), Box::new(rebuilds));
        self.views.insert(TypeId::of::<P>(), Box::new(view));
        Ok(())
    }

    /// Starts the actor of a projection, and returns where it shows its progress and where it is built anew. One that is
    /// `outdated` is folded no further before it was.
    pub(crate) fn start_processor<P, S, K>(
        &mut self,
        floor: Floor,
        keeper: K,
        shelved: Shelved,
        handlers: &mut Handlers<P, S>,
        outdated: bool,
    ) -> Result<(watch::Receiver<Progress>, Workshop<K>), StartError>
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
        let (letters, clerk) =
            ConsumerLetters::new(P::NAME, Arc::clone(&shelf), Arc::clone(&self.store));
        self.letters.push(letters);
        for source in &mut sources {
            self.claim(source.set())?;
            source.connect(&mut self.topics);
        }
        let hears = sources.iter().map(|source| source.heard()).collect();
        let (kind, checkpoint) = (ConsumerKind::Projection, keeper.checkpoint());
        let (progress, gauge) = self.consumer(P::NAME, kind, checkpoint, shelf, hears, Vec::new());
        if outdated {
            progress.send_modify(|progress| {
                progress.state = ConsumerState::Rebuilding;
                progress.outdated = true;
            });
        }
        let progress_receiver = progress.subscribe();
        let wiring = Wiring {
            name: P::NAME,
            decoder: self.decoder.clone(),
            head: self.head.clone(),
            stopping: self.stopping.subscribe(),
            progress: Arc::new(progress),
            gauge,
            clock: Arc::clone(&self.clock),
            policy: self.settings.policy(P::failures()),
            clerk,
        };
        let mut processor = Processor::new(keeper, sources, wiring);
        let workshop = Workshop::of(&mut processor, self.crew.clone(), outdated);
        let arbiters = self.arbiters(floor)?;
        self.processors.push((P::NAME, arbiters.spawn(move || processor.run())));
        Ok((progress_receiver, workshop))
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
            rebuild: None,
            outdated: false,
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

    pub(super) fn start_reactor<R: Reactor>(&mut self, reactor: R) -> Result<(), StartError> {
        let reactions = Reactions::<R>::of_reactor();
        reactions.check()?;
        for set in reactions.sets() {
            self.claim(set)?;
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
        let (letters, clerk) =
            ConsumerLetters::new(name, Arc::clone(&shelf), Arc::clone(&self.store));
        self.letters.push(letters);
        let checkpoint = (begin.position, begin.time);
        let Plan { routes, hears, publishes, options, failures } = plan;
        let (progress, gauge) = self.consumer(name, kind, checkpoint, shelf, hears, publishes);
        let wiring = EngineWiring {
            name,
            decoder: self.decoder.clone(),
            head: self.head.clone(),
            closing: self.closing.subscribe(),
            stopping: self.stopping.subscribe(),
            progress,
            gauge,
            clock: Arc::clone(&self.clock),
            clerk,
            app: self.app.subscribe(),
        };
        let failures = self.settings.policy(failures);
        self.engines.push((name, Engine::new(routes, options, failures, wiring, ledger, &begin)));
        Ok(())
    }

    pub(super) fn spawn_engines(&mut self) -> Result<Vec<(&'static str, ActorHandle)>, StartError> {
        let engines = std::mem::take(&mut self.engines);
        if engines.is_empty() {
            return Ok(Vec::new());
        }
        let arbiters = self.arbiters(Floor::Reactors)?;
        let spawn = |engine: Engine| arbiters.spawn(move || engine.run());
        Ok(engines.into_iter().map(|(name, engine)| (name, spawn(engine))).collect())
    }

    /// Begins the subscriptions of a subscriber, which does not run yet.
    pub(super) fn start_subscriber<S: EventSubscriber>(
        &mut self,
        subscriber: S,
    ) -> Result<(), StartError> {
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
        for set in subscriptions.sets() {
            self.claim(set)?;
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

    pub(super) fn spawn_subscribers(
        &mut self,
    ) -> Result<Vec<(&'static str, ActorHandle)>, StartError> {
        let ready = std::mem::take(&mut self.subscribers);
        if ready.is_empty() {
            return Ok(Vec::new());
        }
        let arbiters = self.arbiters(Floor::Subscribers)?;
        let spawn = |ready: Ready| ready(&arbiters, self.stopping.subscribe());
        Ok(ready.into_iter().map(|(name, ready)| (name, spawn(ready))).collect())
    }

    /// What becomes of views that are replaced by those of a raised version.
    #[cfg(feature = "sqlite")]
    pub(crate) fn old_views(&self) -> Old {
        self.settings.old_views
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
