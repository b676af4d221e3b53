//! thingbuf: a bounded channel for each subscriber, read by tasks. Its async sender cannot block a thread, so the
//! publisher tries again while the channel is full.

use thingbuf::mpsc::{Receiver, Sender, channel};

use crate::harness::{CAPACITY, Event, retry};
use crate::peer::{Each, Handler, Peer, Publish, ReceiveAsync, channels_to_tasks};
use crate::seats::Seat;

pub(crate) struct Thingbuf;

impl Peer for Thingbuf {
    const NAME: &'static str = "thingbuf mpsc, tasks";
    const WAITS: bool = true;
    type Publisher = Each<Sender<Event>>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        channels_to_tasks(seat, handlers, || channel(CAPACITY))
    }
}

impl Publish for Sender<Event> {
    #[inline]
    fn publish(&mut self, event: Event) {
        retry(|| self.try_send(event));
    }

    #[inline]
    fn forward(&mut self, event: Event) {
        self.try_send(event).expect("the channel has room");
    }
}

impl ReceiveAsync for Receiver<Event> {
    async fn receive(&mut self) -> Event {
        self.recv().await.expect("the publisher lives")
    }
}
