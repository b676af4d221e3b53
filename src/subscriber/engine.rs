//! What a subscriber by event type lives on: a listener on each topic, polled in turn.

use std::any::Any;
use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tracing::trace_span;

use super::{EventSubscriber, SubscriberStatus, Subscriptions};
use crate::actor::Panic;
use crate::bus::{Batch, Listener, Reference, Routed, Routes, SubscriptionError};
use crate::event::SetInfo;
use crate::processor::ConsumerState;
use crate::telemetry::{self, chain};

/// How many events it handles at most before others on its thread have their turn; the same as actors do.
const DRAIN: usize = 2_048;

/// A handler of one type of event, on a topic of `T`.
pub(super) struct Handler<S, T> {
    pub(super) heard: Reference,
    pub(super) event: &'static str,
    pub(super) call: Box<Call<S, T>>,
}

/// Handles what a topic carries. None if it is another event.
type Call<S, T> = dyn Fn(&mut S, &T) -> Option<Result<(), Box<dyn Error + Send + Sync>>> + Send;

/// The handlers for one topic, before the subscription begins.
pub(super) trait Hearing<S>: Any + Send {
    fn heard(&self) -> Vec<Reference>;

    /// The set of events, if they are durable, with their stored names.
    fn set(&self) -> Option<SetInfo>;

    fn begin(
        self: Box<Self>,
        name: &'static str,
        drop_oldest: bool,
        routes: &mut Routes<'_>,
    ) -> Box<dyn Listening<S>>;
}

pub(super) struct TypedHearing<S, T> {
    pub(super) handlers: Vec<Handler<S, T>>,
}

impl<S: EventSubscriber, T: Routed> Hearing<S> for TypedHearing<S, T> {
    fn heard(&self) -> Vec<Reference> {
        self.handlers.iter().map(|handler| handler.heard.clone()).collect()
    }

    fn set(&self) -> Option<SetInfo> {
        T::set()
    }

    fn begin(
        self: Box<Self>,
        name: &'static str,
        drop_oldest: bool,
        routes: &mut Routes<'_>,
    ) -> Box<dyn Listening<S>> {
        let topic = T::topic(routes);
        let mut subscribe = topic.subscribe().named(name);
        if drop_oldest {
            subscribe = subscribe.drop_oldest();
        }
        let listener = subscribe.listen();
        Box::new(TypedListening { name, listener, handlers: self.handlers })
    }
}

/// The handlers for one topic, with their subscription.
pub(super) trait Listening<S>: Send {
    /// Handles a batch, and says of how many events; none at the end of the topic.
    fn poll(
        &mut self,
        subscriber: &mut S,
        gauge: &SubscriberGauge,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<usize>, Trouble>>;
}

struct TypedListening<S, T: Routed> {
    name: &'static str,
    listener: Listener<T>,
    handlers: Vec<Handler<S, T>>,
}

/// Why a subscriber cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("it could not handle event {event} of topic {topic}")]
    Handler {
        event: &'static str,
        topic: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error(transparent)]
    Subscription(SubscriptionError),
    /// Around a handler: a hook of a topic, or the drop of an event.
    #[error("what surrounds its handlers panicked: {0}")]
    Surroundings(Arc<str>),
}

impl From<Panic> for Trouble {
    fn from(panic: Panic) -> Self {
        Self::Surroundings(panic.message)
    }
}

impl<S: EventSubscriber, T: Routed> Listening<S> for TypedListening<S, T> {
    fn poll(
        &mut self,
        subscriber: &mut S,
        gauge: &SubscriberGauge,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<usize>, Trouble>> {
        let Self { name, listener, handlers } = self;
        let handled = listener.poll_hear(cx, |batch| {
            if batch.missed() > 0 {
                let events = batch.missed();
                tracing::warn!(subscriber = name, topic = T::TOPIC, events, "missed events");
            }
            let mut heard = 0;
            let outcome = handle(handlers, subscriber, &batch, &mut heard);
            gauge.heard.fetch_add(heard as u64, Ordering::Relaxed);
            outcome.map(|()| heard)
        });
        handled.map(|handled| handled.map_err(Trouble::Subscription)?.transpose())
    }
}

fn handle<S, T: Routed>(
    handlers: &[Handler<S, T>],
    subscriber: &mut S,
    batch: &Batch<'_, T>,
    heard: &mut usize,
) -> Result<(), Trouble> {
    // Which handler is running, for what a panic cannot say itself.
    let mut running = "";
    let failed = |event, source| Err(Trouble::Handler { event, topic: T::TOPIC, source });
    let outcome = Panic::catch(|| {
        for item in batch {
            *heard += 1;
            let _span = item.header().map(|header| {
                trace_span!(
                    telemetry::HANDLE,
                    event = &*header.name,
                    event_id = %header.event_id,
                    position = header.position.as_u64(),
                    correlation_id = %header.correlation_id,
                )
                .entered()
            });
            for handler in handlers {
                running = handler.event;
                if let Some(Err(error)) = (handler.call)(subscriber, item) {
                    return Err(error);
                }
            }
        }
        Ok(())
    });
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => failed(running, error),
        Err(panic) => failed(running, format!("it panicked: {}", panic.message).into()),
    }
}

/// What a subscriber shows of itself.
#[derive(Debug, Default)]
pub(crate) struct SubscriberGauge {
    heard: AtomicU64,
    /// Set when it has ended, with the trouble if there was any.
    ended: OnceLock<Option<String>>,
    /// Whether it waits for something to hear.
    #[cfg(feature = "testing")]
    asleep: tokio::sync::watch::Sender<bool>,
}

impl SubscriberGauge {
    pub(crate) fn status(&self, name: &'static str) -> SubscriberStatus {
        let ended = self.ended.get();
        SubscriberStatus {
            name,
            state: if ended.is_some() { ConsumerState::Stopped } else { ConsumerState::Live },
            heard: self.heard.load(Ordering::Relaxed),
            trouble: self.trouble(),
        }
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.ended.get().cloned().flatten()
    }
}

#[cfg(feature = "testing")]
impl SubscriberGauge {
    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.ended.get().is_some()
    }

    pub(crate) fn is_asleep(&self) -> bool {
        *self.asleep.borrow()
    }

    /// Tells when it falls asleep, and when it wakes.
    pub(crate) fn watch(&self) -> tokio::sync::watch::Receiver<bool> {
        self.asleep.subscribe()
    }
}

/// A subscriber with its subscriptions, which have begun.
pub(crate) struct Engine<S> {
    subscriber: S,
    topics: Vec<Box<dyn Listening<S>>>,
    gauge: Arc<SubscriberGauge>,
}

impl<S: EventSubscriber> Engine<S> {
    /// Begins its subscriptions.
    pub(crate) fn new(
        subscriber: S,
        subscriptions: Subscriptions<S>,
        mut routes: Routes<'_>,
    ) -> Self {
        let drop_oldest = subscriptions.drop_oldest;
        let hearings = subscriptions.hearings.into_iter();
        let topics = hearings.map(|hearing| hearing.begin(S::NAME, drop_oldest, &mut routes));
        Self { subscriber, topics: topics.collect(), gauge: Arc::default() }
    }

    pub(crate) fn gauge(&self) -> Arc<SubscriberGauge> {
        Arc::clone(&self.gauge)
    }

    /// Handles what comes until the topics are closed and all was handled, a handler fails, or `stop` is over.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let trouble = poll_fn(|cx| match stop.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => Panic::catch(|| self.poll(cx))
                .unwrap_or_else(|panic| Poll::Ready(Some(Trouble::from(panic)))),
        })
        .await;
        // It ends before it is known to have ended: who looks at the status finds nobody waiting for it any more.
        let left = Panic::catch(|| self.topics.clear());
        let trouble = trouble.or_else(|| left.err().map(Trouble::from)).map(|trouble| {
            let text = chain(&trouble);
            tracing::error!(subscriber = S::NAME, error = text, "a subscriber stopped");
            text
        });
        // Set here alone.
        let _ = self.gauge.ended.set(trouble);
        #[cfg(feature = "testing")]
        self.gauge.asleep.send_replace(true);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Trouble>> {
        #[cfg(feature = "testing")]
        self.gauge.asleep.send_replace(false);
        let mut room = DRAIN;
        loop {
            let mut heard = 0;
            let mut trouble = None;
            self.topics.retain_mut(|topic| {
                if trouble.is_some() {
                    return true;
                }
                match topic.poll(&mut self.subscriber, &self.gauge, cx) {
                    Poll::Pending => true,
                    Poll::Ready(Ok(Some(events))) => {
                        heard += events;
                        true
                    }
                    Poll::Ready(Ok(None)) => false,
                    Poll::Ready(Err(found)) => {
                        trouble = Some(found);
                        false
                    }
                }
            });
            if trouble.is_some() || self.topics.is_empty() {
                return Poll::Ready(trouble);
            }
            if heard == 0 {
                #[cfg(feature = "testing")]
                self.gauge.asleep.send_replace(true);
                return Poll::Pending;
            }
            room = room.saturating_sub(heard);
            if room == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}
