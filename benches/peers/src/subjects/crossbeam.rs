//! crossbeam-channel: a bounded channel for each subscriber, read by threads.

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::harness::{CAPACITY, Event};
use crate::peer::{Each, Handler, Peer, Publish, Receive, channels_to_threads};
use crate::seats::Seat;
use crate::subjects::MOST_THREADS;

pub(crate) struct Crossbeam;

impl Peer for Crossbeam {
    const NAME: &'static str = "crossbeam-channel, threads";
    const MOST_SUBSCRIBERS: usize = MOST_THREADS;
    const WAITS: bool = true;
    type Publisher = Each<Sender<Event>>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        channels_to_threads(seat, handlers, || bounded(CAPACITY))
    }
}

impl Publish for Sender<Event> {
    #[inline]
    fn publish(&mut self, event: Event) {
        self.send(event).expect("the subscriber lives");
    }
}

impl Receive for Receiver<Event> {
    #[inline]
    fn receive(&mut self) -> Event {
        self.recv().expect("the publisher lives")
    }
}
