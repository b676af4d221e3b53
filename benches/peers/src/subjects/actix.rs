//! actix actors, one recipient for each subscriber.

#![expect(clippy::disallowed_methods, reason = "`do_send` is one of the subjects")]

use std::sync::mpsc;

use actix::{Actor, ActorContext, Addr, Context, Message, Recipient};

use crate::harness::{CAPACITY, Event, retry, wait};
use crate::peer::{Each, Handler, Peer, Publish};
use crate::seats::Seat;

impl Message for Event {
    type Result = ();
}

/// An actor that hands what it gets to its handler.
pub(super) struct Subscriber<H>(H);

impl<H: Handler> Subscriber<H> {
    /// Starts one for each handler, calls `prepare` with each, and waits until all have begun.
    pub(super) fn start_all(
        seat: &Seat,
        handlers: Vec<H>,
        prepare: impl Fn(&Self, &mut Context<Self>) + Clone + Send + 'static,
    ) -> Vec<Addr<Self>> {
        let (begun, all_begun) = mpsc::channel();
        let start = |handler| {
            let (prepare, begun) = (prepare.clone(), begun.clone());
            Self::start_in_arbiter(&seat.arbiter, move |ctx| {
                let subscriber = Self(handler);
                ctx.set_mailbox_capacity(CAPACITY);
                prepare(&subscriber, ctx);
                begun.send(()).expect("the run waits");
                subscriber
            })
        };
        let addresses: Vec<_> = handlers.into_iter().map(start).collect();
        wait(&all_begun, addresses.len());
        addresses
    }

    #[inline]
    pub(super) fn handle_event(&mut self, event: &Event, ctx: &mut Context<Self>) {
        if (self.0)(event).is_break() {
            ctx.stop();
        }
    }
}

impl<H: Handler> Actor for Subscriber<H> {
    type Context = Context<Self>;
}

impl<H: Handler> actix::Handler<Event> for Subscriber<H> {
    type Result = ();

    fn handle(&mut self, event: Event, ctx: &mut Context<Self>) {
        self.handle_event(&event, ctx);
    }
}

fn recipients(seat: &Seat, handlers: Vec<impl Handler>) -> Vec<Recipient<Event>> {
    let addresses = Subscriber::start_all(seat, handlers, |_, _| ());
    addresses.into_iter().map(Addr::recipient).collect()
}

/// Ignores the mailbox's bound.
pub(crate) struct DoSend;

#[derive(Clone)]
pub(crate) struct DoSender(Recipient<Event>);

impl Peer for DoSend {
    const NAME: &'static str = "actix do_send, actors";
    const WAITS: bool = false;
    type Publisher = Each<DoSender>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        Each(recipients(seat, handlers).into_iter().map(DoSender).collect())
    }
}

impl Publish for DoSender {
    #[inline]
    fn publish(&mut self, event: Event) {
        self.0.do_send(event);
    }
}

/// Tries again while the mailbox is full.
pub(crate) struct TrySend;

#[derive(Clone)]
pub(crate) struct TrySender(Recipient<Event>);

impl Peer for TrySend {
    const NAME: &'static str = "actix try_send, actors";
    const WAITS: bool = true;
    type Publisher = Each<TrySender>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        Each(recipients(seat, handlers).into_iter().map(TrySender).collect())
    }
}

impl Publish for TrySender {
    #[inline]
    fn publish(&mut self, event: Event) {
        retry(|| self.0.try_send(event));
    }

    #[inline]
    fn forward(&mut self, event: Event) {
        self.0.try_send(event).expect("the mailbox has room");
    }
}
