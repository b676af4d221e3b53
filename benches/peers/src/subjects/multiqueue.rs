//! multiqueue2: a ring after the Disruptor, read by threads. Its sender never waits, so the publisher tries again while the
//! ring is full.
//!
//! Read with `recv`, which clones: `recv_view`, which does not, hands out events that are being overwritten. The check found
//! one in a few million.

use multiqueue2::{BroadcastSender, BroadcastUniReceiver, broadcast_queue};

use crate::harness::{CAPACITY, Event, retry};
use crate::peer::{Handler, Peer, Publish, Receive, threads};
use crate::seats::Seat;
use crate::subjects::MOST_THREADS;

pub(crate) struct Multiqueue;

impl Peer for Multiqueue {
    const NAME: &'static str = "multiqueue2, threads";
    const MOST_SUBSCRIBERS: usize = MOST_THREADS;
    const WAITS: bool = true;
    type Publisher = BroadcastSender<Event>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        let (sender, first) = broadcast_queue(CAPACITY as u64);
        let stream = |handler| {
            let Ok(receiver) = first.add_stream().into_single() else {
                panic!("a stream is read by its only receiver");
            };
            (receiver, handler)
        };
        threads(seat, handlers.into_iter().map(stream).collect::<Vec<_>>());
        // It would hold back the rest.
        first.unsubscribe();
        sender
    }
}

impl Publish for BroadcastSender<Event> {
    #[inline]
    fn publish(&mut self, event: Event) {
        retry(|| self.try_send(event));
    }
}

impl Receive for BroadcastUniReceiver<Event> {
    #[inline]
    fn receive(&mut self) -> Event {
        self.recv().expect("the publisher lives")
    }
}
