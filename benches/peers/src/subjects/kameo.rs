//! kameo actors with bounded mailboxes: told one by one, and through the publish-subscribe actor of kameo_actors.

use kameo::Actor;
use kameo::actor::{ActorRef, Spawn};
use kameo::error::Infallible;
use kameo::mailbox;
use kameo::message::{Context, Message};
use kameo_actors::DeliveryStrategy;
use kameo_actors::pubsub::{self, PubSub};

use crate::harness::{CAPACITY, Event};
use crate::peer::{Each, Handler, Peer, Publish};
use crate::seats::Seat;

/// An actor that hands what it gets to its handler, which is boxed so that the publisher's type does not name it.
pub(crate) struct Subscriber(Box<dyn Handler>);

impl Actor for Subscriber {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(state: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(state)
    }
}

impl Message<Event> for Subscriber {
    type Reply = ();

    async fn handle(&mut self, event: Event, ctx: &mut Context<Self, ()>) {
        if (self.0)(&event).is_break() {
            ctx.stop();
        }
    }
}

fn subscribers(seat: &Seat, handlers: Vec<impl Handler>) -> Vec<ActorRef<Subscriber>> {
    let _inside = seat.runtime.enter();
    let spawn = |handler| {
        Subscriber::spawn_with_mailbox(Subscriber(Box::new(handler)), mailbox::bounded(CAPACITY))
    };
    handlers.into_iter().map(spawn).collect()
}

pub(crate) struct KameoTell;

impl Peer for KameoTell {
    const NAME: &'static str = "kameo tell, actors";
    const WAITS: bool = true;
    type Publisher = Each<ActorRef<Subscriber>>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        Each(subscribers(seat, handlers))
    }
}

impl Publish for ActorRef<Subscriber> {
    #[inline]
    fn publish(&mut self, event: Event) {
        self.tell(event).blocking_send().expect("the actor lives");
    }

    #[inline]
    fn forward(&mut self, event: Event) {
        self.tell(event).try_send().expect("the mailbox has room");
    }
}

/// The publish-subscribe actor runs beside its subscribers and waits for full mailboxes.
pub(crate) struct KameoPubSub;

impl Peer for KameoPubSub {
    const NAME: &'static str = "kameo pubsub, actors";
    const WAITS: bool = true;
    type Publisher = ActorRef<PubSub<Event>>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        let mut topic = PubSub::new(DeliveryStrategy::Guaranteed);
        for subscriber in subscribers(seat, handlers) {
            topic.subscribe(subscriber);
        }
        let _inside = seat.runtime.enter();
        PubSub::spawn_with_mailbox(topic, mailbox::bounded(CAPACITY))
    }
}

impl Publish for ActorRef<PubSub<Event>> {
    #[inline]
    fn publish(&mut self, event: Event) {
        self.tell(pubsub::Publish(event)).blocking_send().expect("the actor lives");
    }

    #[inline]
    fn forward(&mut self, event: Event) {
        self.tell(pubsub::Publish(event)).try_send().expect("the mailbox has room");
    }
}
