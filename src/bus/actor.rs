//! actix actors as subscribers. The only place of the public interface that names actix.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use actix::{Actor, ActorContext, ActorFuture, AsyncContext, SpawnHandle};

use super::subscription::{Batch, Next, Reader, Start, SubscriptionError};
use super::topic::Topic;

/// How many events an actor receives at most before its mailbox and its timers have their turn. Measured: bounds of this
/// size and above cost nothing.
const DRAIN: usize = 2_048;

/// An actix actor that receives the events of a [`Topic`] in its own context: by reference, without its mailbox.
///
/// # Handlers that wait
/// What [`receive`](Self::receive) gives to `ctx.wait` is done before the next batch comes.
///
/// # Handlers that panic
/// A panic ends the subscription first, then the actor, as actix has it. The publisher and other subscribers go on.
///
/// # Examples
/// ```
/// # #[cfg(feature = "testing")]
/// # {
/// use actix::{Actor, Context};
/// use tidings::testing::TopicFeed;
/// use tidings::{Batch, Start, Subscriber, Topic};
///
/// struct Counter {
///     topic: Topic<u32>,
///     sum: tokio::sync::watch::Sender<u32>,
/// }
///
/// impl Actor for Counter {
///     type Context = Context<Self>;
///     fn started(&mut self, ctx: &mut Context<Self>) {
///         let topic = self.topic.clone();
///         topic.subscribe_actor::<Self>(Start::Now, ctx);
///     }
/// }
///
/// impl Subscriber<u32> for Counter {
///     fn receive(&mut self, batch: Batch<'_, u32>, _: &mut Context<Self>) {
///         let added: u32 = batch.iter().map(|envelope| envelope.event).sum();
///         self.sum.send_modify(|sum| *sum += added);
///     }
/// }
///
/// actix::System::new().block_on(async {
///     let feed = TopicFeed::new("numbers", 1_024);
///     let (sum, mut seen) = tokio::sync::watch::channel(0);
///     let _counter = Counter { topic: feed.topic(), sum }.start();
///     tokio::task::yield_now().await; // the actor starts and subscribes
///     feed.publish(feed.envelopes([1, 2, 3]));
///     seen.wait_for(|sum| *sum == 6).await.unwrap();
/// });
/// # }
/// ```
pub trait Subscriber<E>: Actor<Context: ActorContext> {
    /// Handles the next events, in order.
    fn receive(&mut self, batch: Batch<'_, E>, ctx: &mut Self::Context);

    /// The subscription is over: the app has shut down and every event was received, or the log failed.
    ///
    /// Unless implemented otherwise a failure is traced and stops the actor, so that it does not go on with a part of
    /// the events.
    fn unsubscribed(&mut self, outcome: Result<(), SubscriptionError>, ctx: &mut Self::Context) {
        if let Err(error) = outcome {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                actor = std::any::type_name::<Self>(),
                "a subscription failed, its actor stops"
            );
            ctx.stop();
        }
    }
}

impl<E: Send + Sync + 'static> Topic<E> {
    /// Subscribes an actor from within its own context, as in `started`.
    ///
    /// It is unsubscribed when it stops, and by `ctx.cancel_future` with the handle that this returns; then it may still
    /// receive what its turn was about to bring, 2,048 events at most. The subscription keeps the actor alive.
    pub fn subscribe_actor<A>(&self, start: Start, ctx: &mut A::Context) -> SpawnHandle
    where
        A: Subscriber<E>,
        A::Context: AsyncContext<A>,
    {
        ctx.spawn(Delivery(Some(Reader::new(self, start))))
    }
}

/// Delivers to one actor; empty once the subscription is over.
struct Delivery<E: Send + Sync + 'static>(Option<Reader<E>>);

// Nothing in it is pinned, whatever the events are.
impl<E: Send + Sync + 'static> Unpin for Delivery<E> {}

impl<E, A> ActorFuture<A> for Delivery<E>
where
    E: Send + Sync + 'static,
    A: Subscriber<E>,
    A::Context: AsyncContext<A>,
{
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        actor: &mut A,
        ctx: &mut A::Context,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let delivery = &mut self.0;
        let mut left = DRAIN;
        loop {
            let Some(reader) = delivery else {
                return Poll::Ready(());
            };
            let outcome = match reader.poll_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Next::Events)) => None,
                Poll::Ready(Ok(Next::End)) => Some(Ok(())),
                Poll::Ready(Err(error)) => Some(Err(error)),
            };
            if let Some(outcome) = outcome {
                *delivery = None;
                actor.unsubscribed(outcome, ctx);
                return Poll::Ready(());
            }
            let batch = reader.take(left);
            left = left.saturating_sub(batch.len());
            let received = catch_unwind(AssertUnwindSafe(|| actor.receive(batch, ctx)));
            if let Err(panic) = received {
                // actix polls an actor's futures once more while it unwinds: this one must have nothing left to deliver,
                // or a second panic would end the process.
                *delivery = None;
                tracing::error!(
                    actor = std::any::type_name::<A>(),
                    "a subscriber panicked, its actor ends"
                );
                resume_unwind(panic);
            }
            // It stops, or a handler waits for something: what comes next is not for now. actix polls again after the wait.
            if ctx.waiting() {
                return Poll::Pending;
            }
            if left == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}
