//! flume: a bounded channel for each subscriber, read by tasks.

use flume::{Receiver, Sender};

use crate::harness::{CAPACITY, Event};
use crate::peer::{Each, Handler, Peer, Publish, ReceiveAsync, channels_to_tasks};
use crate::seats::Seat;

pub(crate) struct Flume;

impl Peer for Flume {
    const NAME: &'static str = "flume, tasks";
    const WAITS: bool = true;
    type Publisher = Each<Sender<Event>>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        channels_to_tasks(seat, handlers, || flume::bounded(CAPACITY))
    }
}

impl Publish for Sender<Event> {
    #[inline]
    fn publish(&mut self, event: Event) {
        self.send(event).expect("the subscriber lives");
    }

    #[inline]
    fn forward(&mut self, event: Event) {
        self.try_send(event).expect("the channel has room");
    }
}

impl ReceiveAsync for Receiver<Event> {
    async fn receive(&mut self) -> Event {
        self.recv_async().await.expect("the publisher lives")
    }
}
