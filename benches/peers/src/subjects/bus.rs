//! bus: a ring with a single publisher, read by threads.

use bus::{Bus, BusReader};

use crate::harness::{CAPACITY, Event};
use crate::peer::{Handler, Peer, Publish, Receive, threads};
use crate::seats::Seat;
use crate::subjects::MOST_THREADS;

pub(crate) struct BusThreads;

impl Peer for BusThreads {
    const NAME: &'static str = "bus, threads";
    const MOST_SUBSCRIBERS: usize = MOST_THREADS;
    const WAITS: bool = true;
    type Publisher = Bus<Event>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        let mut bus = Bus::new(CAPACITY);
        threads(seat, handlers.into_iter().map(|handler| (bus.add_rx(), handler)));
        bus
    }
}

impl Publish for Bus<Event> {
    #[inline]
    fn publish(&mut self, event: Event) {
        self.broadcast(event);
    }
}

impl Receive for BusReader<Event> {
    #[inline]
    fn receive(&mut self) -> Event {
        self.recv().expect("the publisher lives")
    }
}
