//! The channels of tokio, read by tasks.

use tokio::sync::{broadcast, mpsc};

use crate::harness::{CAPACITY, Event};
use crate::peer::{Each, Handler, Peer, Publish, ReceiveAsync, channels_to_tasks, tasks};
use crate::seats::Seat;

/// A bounded channel for each subscriber.
pub(crate) struct TokioMpsc;

impl Peer for TokioMpsc {
    const NAME: &'static str = "tokio mpsc, tasks";
    const WAITS: bool = true;
    type Publisher = Each<mpsc::Sender<Event>>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        channels_to_tasks(seat, handlers, || mpsc::channel(CAPACITY))
    }
}

impl Publish for mpsc::Sender<Event> {
    #[inline]
    fn publish(&mut self, event: Event) {
        self.blocking_send(event).expect("the subscriber lives");
    }

    #[inline]
    fn forward(&mut self, event: Event) {
        self.try_send(event).expect("the channel has room");
    }
}

impl ReceiveAsync for mpsc::Receiver<Event> {
    async fn receive(&mut self) -> Event {
        self.recv().await.expect("the publisher lives")
    }
}

/// Overwrites what a subscriber has not read yet, unless the publisher is held back.
pub(crate) struct TokioBroadcast;

impl Peer for TokioBroadcast {
    const NAME: &'static str = "tokio broadcast, tasks";
    const WAITS: bool = false;
    type Publisher = broadcast::Sender<Event>;

    fn open(seat: &Seat, handlers: Vec<impl Handler>) -> Self::Publisher {
        let sender = broadcast::Sender::new(CAPACITY);
        tasks(seat, handlers.into_iter().map(|handler| (sender.subscribe(), handler)));
        sender
    }
}

impl Publish for broadcast::Sender<Event> {
    #[inline]
    fn publish(&mut self, event: Event) {
        self.send(event).expect("a subscriber lives");
    }
}

impl ReceiveAsync for broadcast::Receiver<Event> {
    async fn receive(&mut self) -> Event {
        self.recv().await.expect("nothing is lost")
    }
}
