//! The bounded channel of the standard library, one for each subscriber, read by threads.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::harness::{CAPACITY, Event};
use crate::peer::{Each, Handler, Peer, Publish, Receive, channels_to_threads};
use crate::seats::Seat;
use crate::subjects::MOST_THREADS;

pub(crate) struct StdMpsc;

impl Peer for StdMpsc {
    const NAME: &'static str = "std sync_channel, threads";
    const MOST_SUBSCRIBERS: usize = MOST_THREADS;
    const WAITS: bool = true;
    type Publisher = Each<SyncSender<Event>>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        channels_to_threads(seat, handlers, || sync_channel(CAPACITY))
    }
}

impl Publish for SyncSender<Event> {
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
