//! The domain that is measured: an account that keeps snapshots as it is told when the app starts.

use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};
use tidings::{Aggregate, Command, Context, Event, EventSet, SentTo, Shape, Snapshots, aggregate};

/// After how many events a snapshot is taken; none is if this is 0.
static EVERY: AtomicU32 = AtomicU32::new(0);

/// Has apps that are started from now on keep snapshots, or not.
pub(crate) fn keep_every(events: u32) {
    EVERY.store(events, Ordering::SeqCst);
}

/// Money came in.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "savings.saved", version = 1)]
pub(crate) struct Saved {
    /// How much.
    pub(crate) cents: i64,
    /// From whom.
    pub(crate) payer: String,
}

/// Takes money in.
#[derive(Command, Clone)]
pub(crate) struct Save {
    /// How much.
    pub(crate) cents: i64,
}

/// Asks for more than there is, and is told how much there is.
#[derive(Command, Clone)]
pub(crate) struct Spend;

/// What there is.
#[derive(Debug, thiserror::Error)]
#[error("there are {cents} cents after {events} events")]
pub(crate) struct Poor {
    /// The balance.
    pub(crate) cents: i64,
    /// How many events it is the sum of.
    pub(crate) events: u64,
}

/// The state: small, as states are.
#[derive(Default, Shape, Serialize, Deserialize)]
pub(crate) struct Plain {
    cents: i64,
    events: u64,
}

#[aggregate(category = "savings", events = SavingsEvent, error = Poor)]
impl Plain {
    #[command]
    fn save(&self, command: Save) -> Saved {
        Saved { cents: command.cents, payer: "a customer of the bank".to_owned() }
    }

    #[command]
    fn spend(&self, _: Spend) -> Result<(), Poor> {
        Err(Poor { cents: self.cents, events: self.events })
    }

    #[apply]
    fn saved(&mut self, event: &Saved) {
        self.cents += event.cents;
        self.events += 1;
    }
}

/// The same with snapshots.
#[derive(Default, Shape, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Savings(Plain);

impl Savings {
    /// The balance and the number of events.
    pub(crate) fn state(&self) -> (i64, u64) {
        (self.0.cents, self.0.events)
    }
}

impl Aggregate for Savings {
    const CATEGORY: &'static str = Plain::CATEGORY;
    type Event = SavingsEvent;
    type Command = PlainCommand;
    type Error = Poor;

    fn decide(
        &self,
        command: PlainCommand,
        context: &Context,
        events: &mut Vec<SavingsEvent>,
    ) -> Result<(), Poor> {
        self.0.decide(command, context, events)
    }

    fn apply(&mut self, event: &SavingsEvent) {
        self.0.apply(event);
    }

    fn command_name(command: &PlainCommand) -> &'static str {
        Plain::command_name(command)
    }

    fn snapshots() -> Option<Snapshots<Self>> {
        match EVERY.load(Ordering::SeqCst) {
            0 => None,
            every => Some(Snapshots::new().every(every)),
        }
    }
}

/// A command for an account with snapshots.
#[derive(Clone)]
pub(crate) struct To<C>(pub(crate) C);

impl<C: Command> Command for To<C> {
    const NAME: &'static str = C::NAME;
}

impl<C: Command> SentTo for To<C>
where
    PlainCommand: From<C>,
{
    type Aggregate = Savings;
}

impl<C> From<To<C>> for PlainCommand
where
    PlainCommand: From<C>,
{
    fn from(To(command): To<C>) -> Self {
        command.into()
    }
}

/// The state that a bare query folds into, in the same way.
pub(crate) fn fold(state: &mut (i64, u64), name: &str, payload: &[u8]) {
    assert_eq!([name], SavingsEvent::NAMES);
    state.0 += serde_json::from_slice::<Saved>(payload).expect("an event").cents;
    state.1 += 1;
}
