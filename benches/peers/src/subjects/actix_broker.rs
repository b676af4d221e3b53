//! actix-broker: one actor for all topics, which the message's type tells apart.

use std::sync::atomic::{AtomicUsize, Ordering};

use actix::{Context, Message};
use actix_broker::{Broker, BrokerSubscribe, SystemBroker};

use crate::harness::Event;
use crate::peer::{Handler, Peer, Publish};
use crate::seats::Seat;
use crate::subjects::actix::Subscriber;

/// The broker runs on the system's arbiter, which is the first seat.
pub(crate) struct ActixBroker;

/// An event of one topic.
#[derive(Clone)]
struct Issued<const TOPIC: usize>(Event);

/// More than any case opens at once; they take turns.
const TOPICS: usize = 4;

#[derive(Clone)]
pub(crate) struct Issuer {
    topic: usize,
}

impl Peer for ActixBroker {
    const NAME: &'static str = "actix-broker, actors";
    const WAITS: bool = false;
    type Publisher = Issuer;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Issuer {
        static OPENED: AtomicUsize = AtomicUsize::new(0);
        let topic = OPENED.fetch_add(1, Ordering::Relaxed) % TOPICS;
        match topic {
            0 => subscribe::<0, _>(seat, handlers),
            1 => subscribe::<1, _>(seat, handlers),
            2 => subscribe::<2, _>(seat, handlers),
            _ => subscribe::<3, _>(seat, handlers),
        }
        Issuer { topic }
    }
}

fn subscribe<const TOPIC: usize, H: Handler>(seat: &Seat, handlers: Vec<H>) {
    Subscriber::start_all(seat, handlers, |subscriber, ctx: &mut Context<Subscriber<H>>| {
        subscriber.subscribe_system_async::<Issued<TOPIC>>(ctx);
    });
}

impl Publish for Issuer {
    #[inline]
    fn publish(&mut self, event: Event) {
        match self.topic {
            0 => Broker::<SystemBroker>::issue_async(Issued::<0>(event)),
            1 => Broker::<SystemBroker>::issue_async(Issued::<1>(event)),
            2 => Broker::<SystemBroker>::issue_async(Issued::<2>(event)),
            _ => Broker::<SystemBroker>::issue_async(Issued::<3>(event)),
        }
    }
}

impl<const TOPIC: usize> Message for Issued<TOPIC> {
    type Result = ();
}

impl<const TOPIC: usize, H: Handler> actix::Handler<Issued<TOPIC>> for Subscriber<H> {
    type Result = ();

    fn handle(&mut self, issued: Issued<TOPIC>, ctx: &mut Context<Self>) {
        self.handle_event(&issued.0, ctx);
    }
}
