//! A shard: the actor that owns the live aggregates whose streams hash to it.
//!
//! It drains its inbox in turns. A command whose aggregate is live is decided at once, against the newest state; its events
//! are applied and handed to the sequencer with everything else of the turn, and the shard goes on. It never waits for the
//! disk.
//!
//! # What makes a command wait
//! Its aggregate is not live and is being loaded; its command id came from outside and is being looked up; or a commit that
//! its aggregate's state relied on has failed. It then waits in its aggregate's own queue, with all later commands of that
//! aggregate behind it, and nobody else waits. Loading and looking up happen on threads that are made for waiting.
//!
//! # A commit that fails
//! The aggregate's state is dropped. The store refuses every later commit that was decided on the lost state, since none of
//! them meets the version that it expects. When the last of them has come back, the aggregate is loaded again, and its
//! commands are decided again in their first order. Rejections, and commands accepted without events, are commits
//! without events that check the same version, so that nobody is answered from a state that never was.
//!
//! # Snapshots
//! Where the aggregate asks for them, the state is written down when one is due, as the turn is handed over, and written to the
//! store when the turn has come back without a failure of its stream.
//!
//! # Bounds
//! The inbox, the commands that wait, the turns on their way and the live aggregates are all limited; when a limit is
//! reached, the shard stops draining its inbox and the senders wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tracing::{Span, debug_span};

use super::Aggregate;
use super::inbox::Receiver;
use super::loader::{Errands, Findings, Found, Live, LoadError, Report, Wanted};
use super::snapshot::{Due, Keeper, Since, SnapshotGauge};
use super::turn::{Decided, DecidedTurn, Settled, Verdict, known_command};
use crate::actor::Panic;
use crate::bus::Topic;
use crate::clock::{Clock, Timestamp};
use crate::codec::CodecError;
use crate::command::{Context, Receipt, SendError};
use crate::event::{Envelope, EventSet, Header, Metadata, Recorded};
use crate::id::{CausationId, CommandId, CorrelationId, EventId};
use crate::sequencer::SequencerInbox;
use crate::store::{Commit, CommitId, Decoder, Durability, StoreError};
use crate::stream::{ExpectedVersion, Position, StreamId, Version};
use crate::telemetry;

/// How many commands are taken from the inbox in one turn; enough to share the cost of a turn, few enough that the first of
/// them is not held up by the last.
const TURN: usize = 256;

/// How many turns of a shard may be on their way. While the store writes one group the next is decided; more than a few
/// of them only add to the time until an answer.
pub(crate) const MAX_TURNS: u64 = 16;

/// How many commands of a shard may wait for an aggregate to be loaded, or for a lookup.
const MAX_WAITING: usize = 4_096;

/// How many findings of errands may wait for the shard.
const MAX_FOUND: usize = 128;

/// How often a command is decided before its caller is told that the stream does not hold still. Within one process only
/// a failed commit makes a decision stale, and the command that failed is not decided again.
const MAX_ATTEMPTS: u32 = 8;

/// The limits of a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How many commands its inbox holds.
    pub(crate) inbox: usize,
    /// How many aggregates may be live.
    pub(crate) live: usize,
    /// After how long an unused aggregate is passivated.
    pub(crate) idle: Duration,
}

/// A command in a shard's hands.
pub(crate) struct Incoming<A: Aggregate> {
    pub(crate) stream: StreamId,
    pub(crate) command: A::Command,
    /// Given by the shard if the lookup says that the id is fresh.
    pub(crate) command_id: CommandId,
    pub(crate) lookup: Lookup,
    /// None begins a story with this command.
    pub(crate) correlation_id: Option<CorrelationId>,
    /// None makes the command itself the cause of its events.
    pub(crate) causation_id: Option<CausationId>,
    pub(crate) metadata: Metadata,
    pub(crate) reply: oneshot::Sender<Result<Receipt, SendError<A::Error>>>,
    /// The sender's span.
    pub(crate) span: Span,
    /// How many handlers have caused it one after the other.
    pub(crate) depth: u8,
    /// How often its decision turned out to be stale.
    pub(crate) attempts: u32,
}

impl<A: Aggregate> Incoming<A> {
    fn context(&self, time: Timestamp) -> Context {
        let (stream, command_id) = (self.stream.clone(), self.command_id);
        let mut context = Context::new(stream, time, command_id);
        context.correlation_id = self.correlation_id.unwrap_or(context.correlation_id);
        context.causation_id = self.causation_id.unwrap_or(context.causation_id);
        context.metadata = self.metadata.clone();
        context
    }

    pub(super) fn answer(self, answer: Result<Receipt, SendError<A::Error>>) {
        // A caller that stopped waiting does not want the answer.
        let _ = self.reply.send(answer);
    }
}

/// Whether the log must be asked for a command's id before it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// No: the id was made just now.
    Fresh,
    /// Yes: the id came from outside, so the command may be a repeat.
    Needed,
    /// It was asked, and did not know the id.
    Unknown,
}

/// What a shard shows of itself.
#[derive(Debug, Default)]
pub(crate) struct ShardGauge {
    pub(crate) live: AtomicUsize,
    pub(crate) waiting: AtomicUsize,
    pub(crate) turns: AtomicU64,
    pub(crate) decided: AtomicU64,
    /// How many snapshots wait to be written.
    pub(crate) saving: AtomicUsize,
    pub(crate) snapshots: Arc<SnapshotGauge>,
    pub(crate) ignored: AtomicU64,
}

#[cfg(feature = "testing")]
impl ShardGauge {
    /// Whether it has nothing in hand.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
            && self.turns.load(Ordering::Relaxed) == 0
            && self.saving.load(Ordering::Relaxed) == 0
    }
}

/// What a shard is made of.
pub(crate) struct Shard<A: Aggregate> {
    entries: HashMap<StreamId, Entry<A>>,
    desk: Desk<A>,
    limits: Limits,
    commands: Receiver<Box<Incoming<A>>>,
    closing: watch::Receiver<bool>,
    settled: mpsc::Receiver<Settled<A>>,
    reports: mpsc::Receiver<Report<A>>,
    errands: Errands<A>,
    saves: Saves<A>,
    /// The streams that wait until turns on their way have come back.
    blocked: HashSet<StreamId>,
    /// How many commands wait in the queues of their aggregates.
    waiting: usize,
    started: Instant,
    gauge: Arc<ShardGauge>,
}

/// The snapshots that are to be written.
struct Saves<A> {
    /// The newest of each stream.
    waiting: HashMap<StreamId, Due<A>>,
    /// How many an errand has in hand. There is one such errand at a time.
    running: usize,
}

/// One aggregate of the shard.
struct Entry<A: Aggregate> {
    live: Option<Live<A>>,
    /// Present if commands wait.
    queue: Option<Box<Queue<A>>>,
    /// The last turn that holds a commit of it.
    last_turn: u64,
    /// When it got its last command, in milliseconds since the shard started.
    touched: u64,
}

/// The commands that wait for one aggregate.
struct Queue<A: Aggregate> {
    /// Decided on a lost state; they come before the others.
    again: VecDeque<Box<Incoming<A>>>,
    commands: VecDeque<Box<Incoming<A>>>,
    /// An errand for it is wanted or runs.
    errand: bool,
    /// It goes on when this turn has come back.
    until: u64,
}

impl<A: Aggregate> Default for Queue<A> {
    fn default() -> Self {
        Self { again: VecDeque::new(), commands: VecDeque::new(), errand: false, until: 0 }
    }
}

impl<A: Aggregate> Queue<A> {
    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Box<Incoming<A>>> {
        self.again.iter_mut().chain(&mut self.commands)
    }

    fn pop(&mut self) -> Option<Box<Incoming<A>>> {
        self.again.pop_front().or_else(|| self.commands.pop_front())
    }

    /// Takes out the commands with these ids.
    fn take_known(
        &mut self,
        ids: &HashMap<CommandId, crate::store::KnownCommand>,
        mut each: impl FnMut(Box<Incoming<A>>),
    ) {
        for queue in [&mut self.again, &mut self.commands] {
            for _ in 0..queue.len() {
                let Some(incoming) = queue.pop_front() else {
                    break;
                };
                if incoming.lookup != Lookup::Fresh && ids.contains_key(&incoming.command_id) {
                    each(incoming);
                } else {
                    queue.push_back(incoming);
                }
            }
        }
    }
}

impl<A: Aggregate> Shard<A> {
    #[allow(clippy::too_many_arguments, reason = "called once, where the app is put together")]
    pub(crate) fn new(
        limits: Limits,
        commands: Receiver<Box<Incoming<A>>>,
        closing: watch::Receiver<bool>,
        decoder: Decoder,
        sequencer: SequencerInbox,
        topic: Topic<Envelope<A::Event>>,
        clock: Arc<dyn Clock>,
        gauge: Arc<ShardGauge>,
    ) -> Self {
        let (settled_sender, settled) = mpsc::channel(MAX_TURNS as usize + 1);
        let (report_sender, reports) = mpsc::channel(MAX_FOUND);
        let keeper = Keeper::of_aggregate(&decoder, &gauge.snapshots);
        let errands = Errands::new(decoder.clone(), keeper.clone(), report_sender);
        let durability = decoder.store().durability();
        let desk = Desk {
            #[cfg(feature = "personal")]
            keys: decoder.keys().clone(),
            durability,
            sequencer,
            open: Box::new(DecidedTurn::new(topic.clone(), durability, settled_sender.clone())),
            spare: Vec::new(),
            topic,
            clock,
            settled_sender,
            turn: 1,
            settled: 0,
            now: Timestamp::default(),
            events: Vec::new(),
            in_flight: HashMap::new(),
            in_flight_order: VecDeque::new(),
            bytes: Vec::new(),
            decisions: 0,
            keeper,
            due: HashSet::new(),
        };
        Self {
            entries: HashMap::new(),
            desk,
            limits,
            commands,
            closing,
            settled,
            reports,
            errands,
            saves: Saves { waiting: HashMap::new(), running: 0 },
            blocked: HashSet::new(),
            waiting: 0,
            started: Instant::now(),
            gauge,
        }
    }

    /// The shard's life: until it is told to close and has answered everything that it holds.
    pub(crate) async fn run(mut self) {
        let mut inbox = Vec::with_capacity(TURN);
        let mut drained = false;
        let every = self.limits.idle.clamp(Duration::from_millis(10), Duration::from_secs(40)) / 4;
        let mut sweep = tokio::time::interval(every);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(drained
            && self.waiting == 0
            && self.desk.turns_on_their_way() == 0
            && self.saves.running == 0)
        {
            let may_take = !drained
                && self.desk.turns_on_their_way() < MAX_TURNS
                && self.waiting < MAX_WAITING;
            let mut tick = false;
            tokio::select! {
                biased;
                Some(settled) = self.settled.recv() => self.settle(settled),
                Some(report) = self.reports.recv() => self.report(report),
                () = closed(&mut self.closing), if !self.commands.is_closed() => {
                    self.commands.close();
                }
                taken = self.commands.receive(&mut inbox, TURN), if may_take => {
                    drained = taken == 0;
                }
                _ = sweep.tick() => tick = true,
            }
            while let Ok(settled) = self.settled.try_recv() {
                self.settle(settled);
            }
            while let Ok(report) = self.reports.try_recv() {
                self.report(report);
            }
            self.desk.now = self.desk.clock.now();
            let touched = self.millis();
            for mut incoming in inbox.drain(..) {
                if incoming.lookup == Lookup::Fresh {
                    incoming.command_id = CommandId::made_at(self.desk.now);
                }
                self.accept(incoming, touched);
            }
            self.hand_over();
            if tick || self.entries.len() > self.limits.live {
                self.passivate();
            }
            self.show();
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn show(&self) {
        self.gauge.live.store(self.entries.len(), Ordering::Relaxed);
        self.gauge.waiting.store(self.waiting, Ordering::Relaxed);
        self.gauge.turns.store(self.desk.turns_on_their_way(), Ordering::Relaxed);
        self.gauge.decided.store(self.desk.decisions, Ordering::Relaxed);
        let saving = self.saves.waiting.len() + self.saves.running;
        self.gauge.saving.store(saving, Ordering::Relaxed);
    }

    /// Decides a command, or lets it wait behind what its aggregate waits for.
    fn accept(&mut self, incoming: Box<Incoming<A>>, touched: u64) {
        if let Some(entry) = self.entries.get_mut(&incoming.stream) {
            entry.touched = touched;
            if let Some(queue) = &mut entry.queue {
                queue.commands.push_back(incoming);
                self.waiting += 1;
                return;
            }
            if entry.live.is_some() && incoming.lookup != Lookup::Needed {
                self.desk.decide(entry, incoming);
                return;
            }
        }
        let stream = incoming.stream.clone();
        let entry = self.entries.entry(stream.clone()).or_insert_with(|| Entry {
            live: None,
            queue: None,
            last_turn: 0,
            touched,
        });
        entry.queue.get_or_insert_default().commands.push_back(incoming);
        self.waiting += 1;
        self.advance(&stream);
    }

    /// Decides what waits for an aggregate, as far as it goes without waiting for something else.
    fn advance(&mut self, stream: &StreamId) {
        let Some(entry) = self.entries.get_mut(stream) else {
            return;
        };
        while let Some(queue) = &mut entry.queue {
            if queue.errand {
                return;
            }
            if queue.until > self.desk.settled {
                self.blocked.insert(stream.clone());
                return;
            }
            let Some(front) = queue.iter_mut().next() else {
                entry.queue = None;
                return;
            };
            if let Some(turn) = self.desk.on_its_way(front) {
                // The same id is being committed: its outcome decides whether this one is a repeat.
                front.lookup = Lookup::Needed;
                queue.until = turn;
                continue;
            }
            let look_up = front.lookup == Lookup::Needed;
            if entry.live.is_none() && entry.last_turn > self.desk.settled {
                queue.until = entry.last_turn;
                continue;
            }
            if entry.live.is_none() || look_up {
                let desk = &self.desk;
                let mut ids: Vec<_> = queue
                    .iter_mut()
                    .filter(|waiting| {
                        waiting.lookup == Lookup::Needed && desk.on_its_way(waiting).is_none()
                    })
                    .map(|waiting| waiting.command_id)
                    .take(TURN)
                    .collect();
                ids.sort_unstable();
                ids.dedup();
                queue.errand = true;
                let load = entry.live.is_none();
                self.errands.run(Wanted { stream: stream.clone(), load, ids });
                return;
            }
            if let Some(incoming) = queue.pop() {
                self.waiting -= 1;
                self.desk.decide(entry, incoming);
            }
        }
    }

    /// A turn has come back.
    fn settle(&mut self, settled: Settled<A>) {
        let mut turn = settled.turn;
        self.desk.settled = turn.number;
        if std::mem::take(&mut turn.torn) {
            turn.snapshots.clear();
            // Those with a commit in it are among them; the others are loaded again for nothing.
            for entry in self.entries.values_mut().filter(|entry| entry.last_turn >= turn.number) {
                entry.live = None;
            }
        }
        for snapshot in turn.snapshots.drain(..) {
            // One of a stream with a failure may have seen what is not in the log.
            if settled.failures.iter().all(|failure| failure.stream != snapshot.stream) {
                self.save(Due::Taken(snapshot));
            }
        }
        self.desk.spare.push(turn);
        self.desk.forget_settled_ids();
        for failure in settled.failures {
            let Some(entry) = self.entries.get_mut(&failure.stream) else {
                continue;
            };
            entry.live = None;
            let queue = entry.queue.get_or_insert_default();
            queue.until = queue.until.max(entry.last_turn);
            if let Some(mut again) = failure.again {
                again.attempts += 1;
                if again.attempts < MAX_ATTEMPTS {
                    queue.again.push_back(again);
                    self.waiting += 1;
                } else {
                    let (stream, attempts) = (failure.stream.clone(), again.attempts);
                    again.answer(Err(SendError::Contended { stream, attempts }));
                }
            }
            self.blocked.insert(failure.stream);
        }
        for stream in std::mem::take(&mut self.blocked) {
            self.advance(&stream);
        }
    }

    fn report(&mut self, report: Report<A>) {
        match report {
            Report::Found(found) => self.found(found),
            Report::Saved => {
                self.saves.running = 0;
                self.write_snapshots();
            }
        }
    }

    /// An errand has reported a stream.
    fn found(&mut self, found: Found<A>) {
        let Found { stream, result } = found;
        let Some(entry) = self.entries.get_mut(&stream) else {
            return;
        };
        let Some(queue) = &mut entry.queue else {
            return;
        };
        queue.errand = false;
        let mut snapshot = None;
        match result {
            Ok(Findings { live, snapshot: taken, ids }) => {
                snapshot = taken;
                if let Some(live) = live {
                    self.gauge.ignored.fetch_add(live.ignored, Ordering::Relaxed);
                    entry.live = Some(live);
                }
                let mut known = HashMap::new();
                for (id, command) in ids {
                    if let Some(command) = command {
                        known.insert(id, command);
                    } else if let Some(first) =
                        queue.iter_mut().find(|waiting| waiting.command_id == id)
                    {
                        // Only the first: a second one with the same id is asked for again once this one is committed.
                        first.lookup = Lookup::Unknown;
                    }
                }
                if !known.is_empty() {
                    let (waiting, durability) = (&mut self.waiting, self.desk.durability);
                    queue.take_known(&known, |incoming| {
                        *waiting -= 1;
                        if let Some(command) = known.get(&incoming.command_id) {
                            let answer = known_command(&incoming, command.clone(), durability);
                            incoming.answer(answer);
                        }
                    });
                }
            }
            Err(error) => {
                while let Some(incoming) = queue.pop() {
                    self.waiting -= 1;
                    let answer = Err(error.to_send_error(&stream));
                    incoming.answer(answer);
                }
                entry.queue = None;
            }
        }
        if let Some(snapshot) = snapshot {
            self.save(Due::Taken(snapshot));
        }
        self.advance(&stream);
    }

    /// Lets go of aggregates that were idle for too long, and of the longest unused ones if there are too many. Nothing is
    /// lost: whatever they decided is committed, and their next command loads them again.
    fn passivate(&mut self) {
        let now = self.millis();
        let idle = u64::try_from(self.limits.idle.as_millis()).unwrap_or(u64::MAX);
        let settled = self.desk.settled;
        let mut unused_since = now.checked_sub(idle);
        if self.entries.len() > self.limits.live {
            // A tenth more than needed goes at once, so that the cost of looking through all is shared by many loads.
            let surplus = self.entries.len() - self.limits.live + self.limits.live / 10;
            let mut touched: Vec<_> = self.entries.values().map(|entry| entry.touched).collect();
            let (_, limit, _) = touched.select_nth_unstable(surplus.min(self.entries.len() - 1));
            unused_since = unused_since.max(Some(*limit));
        }
        let Some(unused_since) = unused_since else {
            return;
        };
        let stays = |entry: &Entry<A>| {
            entry.touched > unused_since || entry.queue.is_some() || entry.last_turn > settled
        };
        let keeper = self.desk.keeper.as_ref();
        let Some(keeper) = keeper.filter(|keeper| keeper.takes_passivated()) else {
            self.entries.retain(|_, entry| stays(entry));
            return;
        };
        let gone = self.entries.extract_if(|_, entry| !stays(entry));
        let due = gone.filter_map(|(stream, entry)| {
            let live = entry.live.filter(|live| keeper.is_due_on_passivation(live))?;
            Some(Due::Passivated(stream, live))
        });
        let due: Vec<_> = due.collect();
        due.into_iter().for_each(|due| self.save(due));
    }

    /// Hands over what was decided, with the snapshots that are due.
    fn hand_over(&mut self) {
        if !self.desk.may_hand_over() {
            return;
        }
        let Desk { keeper, due, open, .. } = &mut self.desk;
        if let Some(keeper) = keeper {
            // Now, and not when each of them became due: one for a stream is enough, and this turn holds the last of its commits.
            for stream in due.drain() {
                let live = self.entries.get(&stream).and_then(|entry| entry.live.as_ref());
                open.snapshots.extend(live.and_then(|live| keeper.take(&stream, live)));
            }
        }
        self.desk.hand_over();
    }

    /// Has a snapshot of a committed state written, after those that wait.
    fn save(&mut self, due: Due<A>) {
        // As many as may be live: those that come from the memory were in it before.
        let has_room = self.saves.waiting.len() < self.limits.live;
        if has_room || self.saves.waiting.contains_key(due.stream()) {
            self.saves.waiting.insert(due.stream().clone(), due);
        } else if let Some(keeper) = &self.desk.keeper {
            keeper.failed(1);
        }
        self.write_snapshots();
    }

    /// Has the snapshots written that wait, unless some are being written.
    fn write_snapshots(&mut self) {
        if self.saves.running == 0 && !self.saves.waiting.is_empty() {
            let due: Vec<_> = self.saves.waiting.drain().map(|(_, due)| due).collect();
            self.saves.running = due.len();
            self.errands.save(due);
        }
    }
}

/// Where a shard decides: everything that a decision needs beside the aggregate itself.
struct Desk<A: Aggregate> {
    #[cfg(feature = "personal")]
    keys: crate::personal::Keys,
    durability: Durability,
    sequencer: SequencerInbox,
    topic: Topic<Envelope<A::Event>>,
    clock: Arc<dyn Clock>,
    settled_sender: mpsc::Sender<Settled<A>>,
    /// The number of the turn that is being decided; the first is 1.
    turn: u64,
    /// All turns up to this one have come back.
    settled: u64,
    now: Timestamp,
    /// The turn that is being decided.
    open: Box<DecidedTurn<A>>,
    /// Turns that have come back, to be filled again.
    #[expect(clippy::vec_box, reason = "a turn travels in its box")]
    spare: Vec<Box<DecidedTurn<A>>>,
    /// Where one decision gathers its events.
    events: Vec<A::Event>,
    /// The ids from outside that are on their way, each with its turn.
    in_flight: HashMap<CommandId, u64>,
    in_flight_order: VecDeque<(u64, CommandId)>,
    /// Where payloads are encoded.
    bytes: Vec<u8>,
    decisions: u64,
    /// None if the aggregate has no snapshots.
    keeper: Option<Keeper<A>>,
    /// The streams with a commit in the turn that is being decided of which a snapshot is due.
    due: HashSet<StreamId>,
}

impl<A: Aggregate> Desk<A> {
    fn turns_on_their_way(&self) -> u64 {
        self.turn - 1 - self.settled
    }

    /// The turn that carries the same command id, if one does.
    fn on_its_way(&self, incoming: &Incoming<A>) -> Option<u64> {
        match incoming.lookup {
            Lookup::Fresh => None,
            Lookup::Needed | Lookup::Unknown => self.in_flight.get(&incoming.command_id).copied(),
        }
    }

    fn forget_settled_ids(&mut self) {
        while let Some((turn, id)) =
            self.in_flight_order.pop_front_if(|(turn, _)| *turn <= self.settled)
        {
            if self.in_flight.get(&id) == Some(&turn) {
                self.in_flight.remove(&id);
            }
        }
    }

    /// Decides a command against the live state of its aggregate, and applies what it decided.
    fn decide(&mut self, entry: &mut Entry<A>, incoming: Box<Incoming<A>>) {
        let Some(live) = &mut entry.live else { return };
        self.decisions += 1;
        let context = incoming.context(self.now);
        let _span = debug_span!(
            parent: &incoming.span,
            telemetry::COMMAND,
            command = A::command_name(&incoming.command),
            stream = %context.stream,
            command_id = %context.command_id,
            correlation_id = %context.correlation_id,
            causation_id = %context.causation_id,
        )
        .entered();
        self.events.clear();
        let events = &mut self.events;
        let decision =
            Panic::catch(|| live.aggregate.decide(incoming.command.clone(), &context, events));
        let expected = live.version;
        let verdict = match decision {
            Ok(Ok(())) => Verdict::Accepted(self.events.len()),
            Ok(Err(reason)) if entry.last_turn <= self.settled => {
                incoming.answer(Err(SendError::Rejected(reason)));
                return;
            }
            Ok(Err(reason)) => Verdict::Rejected(reason),
            Err(panic) => {
                entry.live = None;
                let answer = Err(panicked(&incoming.stream, &panic));
                incoming.answer(answer);
                return;
            }
        };
        let mut commit = Commit::new();
        if let Verdict::Accepted(events) = verdict {
            // The code that writes an event down is the user's, too.
            match Panic::catch(|| self.record(&context)) {
                Ok(Ok(recorded)) => commit.events = recorded,
                Ok(Err(source)) => {
                    let stream = incoming.stream.clone();
                    incoming.answer(Err(SendError::Unwritable { stream, source }));
                    return;
                }
                Err(panic) => {
                    let answer = Err(panicked(&incoming.stream, &panic));
                    incoming.answer(answer);
                    return;
                }
            }
            let applied =
                Panic::catch(|| self.events.iter().for_each(|event| live.aggregate.apply(event)));
            if let Err(panic) = applied {
                entry.live = None;
                let answer = Err(panicked(&incoming.stream, &panic));
                incoming.answer(answer);
                return;
            }
            live.version = live.version.plus(events as u64);
            if let Some(keeper) = &self.keeper {
                let bytes = commit.events.iter().map(|event| event.payload.len()).sum();
                live.since.add(events, bytes);
                if keeper.is_due(live) {
                    live.since = Since::default();
                    self.due.insert(context.stream.clone());
                }
            }
            self.open.events.append(&mut self.events);
            commit.id = match incoming.lookup {
                Lookup::Fresh => CommitId::Fresh(incoming.command_id),
                Lookup::Needed | Lookup::Unknown => {
                    self.in_flight.insert(incoming.command_id, self.turn);
                    self.in_flight_order.push_back((self.turn, incoming.command_id));
                    CommitId::Given(incoming.command_id)
                }
            };
        }
        entry.last_turn = self.turn;
        commit.expectations.push((context.stream, ExpectedVersion::Exact(expected)));
        self.open.commits.push(commit);
        self.open.decided.push(Decided { incoming, version: live.version, verdict });
    }

    /// Writes the events down as they will stand in the log; the store adds version and position.
    fn record(&mut self, context: &Context) -> Result<Vec<Recorded>, CodecError> {
        #[cfg(feature = "personal")]
        {
            let keys = self.keys.clone();
            crate::personal::recording(&keys, || self.record_all(context))
        }
        #[cfg(not(feature = "personal"))]
        self.record_all(context)
    }

    fn record_all(&mut self, context: &Context) -> Result<Vec<Recorded>, CodecError> {
        self.events
            .iter()
            .map(|event| {
                self.bytes.clear();
                event.encode(&mut self.bytes)?;
                let header = Header {
                    event_id: EventId::made_at(context.time),
                    name: event.name().into(),
                    schema_version: event.schema_version(),
                    codec: event.codec(),
                    stream: context.stream.clone(),
                    version: Version::EMPTY,
                    position: Position::START,
                    time: context.time,
                    command_id: Some(context.command_id),
                    correlation_id: context.correlation_id,
                    causation_id: context.causation_id,
                    metadata: context.metadata.clone(),
                };
                Ok(Recorded { header, payload: self.bytes.as_slice().into() })
            })
            .collect()
    }

    /// Whether something was decided, and not too many turns are on their way: then it goes with the next one that comes back.
    fn may_hand_over(&self) -> bool {
        !self.open.decided.is_empty() && self.turns_on_their_way() < MAX_TURNS
    }

    /// Hands everything that was decided to the sequencer.
    fn hand_over(&mut self) {
        let next = self.spare.pop().unwrap_or_else(|| {
            Box::new(DecidedTurn::new(
                self.topic.clone(),
                self.durability,
                self.settled_sender.clone(),
            ))
        });
        let mut turn = std::mem::replace(&mut self.open, next);
        turn.number = self.turn;
        self.turn += 1;
        if let Err(turn) = self.sequencer.hand_over(turn) {
            turn.failed(Arc::new(StoreError::Failed {
                place: "the sequencer".into(),
                source: "it has ended".into(),
            }));
        }
    }
}

/// Waits until the app closes its doors, or is gone.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

fn panicked<R>(stream: &StreamId, panic: &Panic) -> SendError<R> {
    SendError::Panicked { stream: stream.clone(), message: panic.message.to_string() }
}

impl LoadError {
    fn to_send_error<R>(&self, stream: &StreamId) -> SendError<R> {
        match self {
            Self::Unreadable { version, source } => SendError::Unreadable {
                stream: stream.clone(),
                version: *version,
                source: Arc::clone(source),
            },
            Self::Panicked(panic) => panicked(stream, panic),
            Self::Store(error) => SendError::Store(Arc::clone(error)),
        }
    }
}
