//! A limit: a plain ring with one producer and one consumer for each subscriber, all read by one thread.

use std::ops::ControlFlow;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::harness::{CAPACITY, Event, Pause, retry};
use crate::peer::{Each, Handler, Peer, Publish, PublishBatch};
use crate::seats::Seat;
use crate::subjects::poll_all;

pub(crate) struct Rtrb;

impl Peer for Rtrb {
    const NAME: &'static str = "limit: rtrb rings, one polling thread";
    /// More rings than this do not fit into a cache together, and are no limit of anything.
    const MOST_SUBSCRIBERS: usize = 4;
    const WAITS: bool = true;
    type Publisher = Each<Producer<Event>>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        let rings = handlers.iter().map(|_| RingBuffer::new(CAPACITY));
        let (producers, consumers): (_, Vec<_>) = rings.unzip();
        poll_all(seat, consumers.into_iter().zip(handlers).collect(), poll);
        Each(producers)
    }
}

/// Hands over what is there.
fn poll(ring: &mut Consumer<Event>, handler: &mut impl Handler) -> Option<ControlFlow<()>> {
    let there = ring.slots();
    let chunk = ring.read_chunk(there).expect("as many are there");
    let (first, second) = chunk.as_slices();
    let flow = first.iter().chain(second).map(handler).last();
    chunk.commit_all();
    flow
}

impl Publish for Producer<Event> {
    #[inline]
    fn publish(&mut self, event: Event) {
        retry(|| self.push(event));
    }
}

impl PublishBatch for Producer<Event> {
    #[inline]
    fn publish_batch(&mut self, after: u64, count: u64) {
        let mut number = after;
        let mut pause = Pause::default();
        while number < after + count {
            let free = self.slots().min((after + count - number) as usize);
            if free == 0 {
                pause.wait();
                continue;
            }
            let chunk = self.write_chunk_uninit(free).expect("as many are free");
            let events = (number + 1..).map(|number| Event::nth(0, number));
            number += chunk.fill_from_iter(events) as u64;
        }
    }
}
