//! async-broadcast: a bounded queue with a copy for each subscriber, read by tasks.

use async_broadcast::{Receiver, Sender};

use crate::harness::{CAPACITY, Event};
use crate::peer::{Handler, Peer, Publish, ReceiveAsync, tasks};
use crate::seats::Seat;

pub(crate) struct AsyncBroadcast;

impl Peer for AsyncBroadcast {
    const NAME: &'static str = "async-broadcast, tasks";
    const WAITS: bool = true;
    type Publisher = Sender<Event>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        let (sender, receiver) = async_broadcast::broadcast(CAPACITY);
        tasks(seat, handlers.into_iter().map(|handler| (receiver.clone(), handler)));
        sender
    }
}

impl Publish for Sender<Event> {
    #[inline]
    fn publish(&mut self, event: Event) {
        self.broadcast_blocking(event).expect("a subscriber lives");
    }

    #[inline]
    fn forward(&mut self, event: Event) {
        self.try_broadcast(event).expect("the queue has room");
    }
}

impl ReceiveAsync for Receiver<Event> {
    async fn receive(&mut self) -> Event {
        self.recv_direct().await.expect("the publisher lives")
    }
}
