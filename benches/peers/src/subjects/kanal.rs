//! kanal: a bounded channel for each subscriber, read by tasks.

use kanal::{AsyncReceiver, Sender};

use crate::harness::{CAPACITY, Event};
use crate::peer::{Each, Handler, Peer, Publish, ReceiveAsync, channels_to_tasks};
use crate::seats::Seat;

pub(crate) struct Kanal;

impl Peer for Kanal {
    const NAME: &'static str = "kanal, tasks";
    const WAITS: bool = true;
    type Publisher = Each<Sender<Event>>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        channels_to_tasks(seat, handlers, || {
            let (sender, receiver) = kanal::bounded_async(CAPACITY);
            (sender.to_sync(), receiver)
        })
    }
}

impl Publish for Sender<Event> {
    #[inline]
    fn publish(&mut self, event: Event) {
        self.send(event).expect("the subscriber lives");
    }

    #[inline]
    fn forward(&mut self, event: Event) {
        let sent = self.try_send(event).expect("the subscriber lives");
        assert!(sent, "the channel has room");
    }
}

impl ReceiveAsync for AsyncReceiver<Event> {
    async fn receive(&mut self) -> Event {
        self.recv().await.expect("the publisher lives")
    }
}
