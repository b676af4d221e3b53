//! ractor actors, whose mailboxes have no bound: cast one by one, and through an output port.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, OutputPort};

use crate::harness::Event;
use crate::peer::{Each, Handler, Peer, Publish};
use crate::seats::Seat;

/// An actor that hands what it gets to its handler.
struct Subscriber<H>(std::marker::PhantomData<fn(H)>);

impl<H: Handler> Actor for Subscriber<H> {
    type Msg = Event;
    type State = H;
    type Arguments = H;

    async fn pre_start(&self, _: ActorRef<Event>, handler: H) -> Result<H, ActorProcessingErr> {
        Ok(handler)
    }

    async fn handle(
        &self,
        myself: ActorRef<Event>,
        event: Event,
        handler: &mut H,
    ) -> Result<(), ActorProcessingErr> {
        if handler(&event).is_break() {
            myself.stop(None);
        }
        Ok(())
    }
}

fn subscribers<H: Handler>(seat: &Seat, handlers: Vec<H>) -> Vec<ActorRef<Event>> {
    let spawn = |handler| {
        let subscriber = Subscriber::<H>(std::marker::PhantomData);
        let spawned = Actor::spawn(None, subscriber, handler);
        seat.runtime.block_on(spawned).expect("the actor starts").0
    };
    handlers.into_iter().map(spawn).collect()
}

pub(crate) struct RactorCast;

impl Peer for RactorCast {
    const NAME: &'static str = "ractor cast, actors";
    const WAITS: bool = false;
    type Publisher = Each<ActorRef<Event>>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        Each(subscribers(seat, handlers))
    }
}

impl Publish for ActorRef<Event> {
    #[inline]
    fn publish(&mut self, event: Event) {
        self.cast(event).expect("the actor lives");
    }
}

/// The second version, which loses nothing.
pub(crate) struct RactorPort;

impl Peer for RactorPort {
    const NAME: &'static str = "ractor output port, actors";
    const WAITS: bool = false;
    type Publisher = Arc<OutputPort<Event>>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        let actors = subscribers(seat, handlers);
        let _inside = seat.runtime.enter();
        let port = OutputPort::default();
        for actor in actors {
            port.subscribe(actor, Some);
        }
        Arc::new(port)
    }
}

impl Publish for Arc<OutputPort<Event>> {
    #[inline]
    fn publish(&mut self, event: Event) {
        self.send(event);
    }
}
