//! actix actors as subscribers. The only place of the public interface that names actix.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix::{Actor, ActorContext, ActorFuture, AsyncContext};

use super::batch::Batch;
use super::causation;
use super::reader::{Next, Reader};
use super::ring::{Item, Ring, Standing};
use super::subscribe::Subscribe;
use super::subscription::SubscriptionError;

/// How many events an actor receives at most before its mailbox and its timers have their turn. Measured: bounds of this
/// size and above cost nothing.
pub(super) const DRAIN: usize = 2_048;

/// An actix actor that receives the events of a [`Topic`](crate::Topic) one at a time, in its own context: by reference,
/// without its mailbox. Begun with [`Subscribe::actor`].
///
/// # Handlers that wait
/// What [`receive`](Self::receive) gives to `ctx.wait` is done before the next event comes.
///
/// # Handlers that panic
/// A panic ends the subscription first, then the actor, as actix has it. The publisher and other subscribers go on.
///
/// # Examples
/// ```
/// use actix::{Actor, Context};
/// use tidings::{Subscriber, SubscriptionHandle, Topic, TransientEvent};
///
/// #[derive(TransientEvent)]
/// struct Paid(u64);
///
/// struct Till {
///     topic: Topic<Paid>,
///     subscription: Option<SubscriptionHandle>,
///     sum: tokio::sync::watch::Sender<u64>,
/// }
///
/// impl Actor for Till {
///     type Context = Context<Self>;
///     fn started(&mut self, ctx: &mut Context<Self>) {
///         self.subscription = Some(self.topic.subscribe().actor(ctx));
///     }
/// }
///
/// impl Subscriber<Paid> for Till {
///     fn receive(&mut self, paid: &Paid, _: &mut Context<Self>) {
///         self.sum.send_modify(|sum| *sum += paid.0);
///     }
/// }
///
/// actix::System::new().block_on(async {
///     let topic = Topic::<Paid>::new();
///     let (sum, mut seen) = tokio::sync::watch::channel(0);
///     let _till = Till { topic: topic.clone(), subscription: None, sum }.start();
///     tokio::task::yield_now().await; // the actor starts and subscribes
///     let publisher = topic.publisher("cashier");
///     for cents in [1, 2, 3] {
///         publisher.publish(Paid(cents)).await.unwrap();
///     }
///     seen.wait_for(|sum| *sum == 6).await.unwrap();
/// });
/// ```
pub trait Subscriber<T>: Actor<Context: ActorContext> {
    /// Handles the next event, in order.
    fn receive(&mut self, event: &T, ctx: &mut Self::Context);

    /// So many events were missed before the next one; only where the subscription drops the oldest. They are traced unless
    /// it is implemented otherwise.
    fn missed(&mut self, events: u64, ctx: &mut Self::Context) {
        let _ = ctx;
        tracing::warn!(events, actor = std::any::type_name::<Self>(), "a subscriber missed events");
    }

    /// The subscription is over: its topic is closed and every event was received, or the log failed. It is not called when
    /// the handle was dropped.
    ///
    /// Unless implemented otherwise a failure is traced and stops the actor, so that it does not go on with a part of
    /// the events.
    fn unsubscribed(&mut self, outcome: Result<(), SubscriptionError>, ctx: &mut Self::Context) {
        stop_on_failure::<Self>(outcome, ctx);
    }
}

/// An actix actor that receives the events of a [`Topic`](crate::Topic) in batches, otherwise like a [`Subscriber`]. Begun
/// with [`Subscribe::batch_actor`]. The fastest way for an actor.
pub trait BatchSubscriber<T>: Actor<Context: ActorContext> {
    /// Handles the next events, in order: what is there, at most a few hundred.
    fn receive(&mut self, batch: Batch<'_, T>, ctx: &mut Self::Context);

    /// The subscription is over; as [`Subscriber::unsubscribed`].
    fn unsubscribed(&mut self, outcome: Result<(), SubscriptionError>, ctx: &mut Self::Context) {
        stop_on_failure::<Self>(outcome, ctx);
    }
}

fn stop_on_failure<A>(outcome: Result<(), SubscriptionError>, ctx: &mut A::Context)
where
    A: Actor<Context: ActorContext>,
{
    if let Err(error) = outcome {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            actor = std::any::type_name::<A>(),
            "a subscription failed, its actor stops"
        );
        ctx.stop();
    }
}

/// Holds a subscription from outside; dropping it unsubscribes.
///
/// Then an actor receives nothing more, and a loop, stream or iterator ends, apart from the batch that it is handling; publishers do not even wait for that.
#[must_use = "dropping the handle unsubscribes; `detach` it to let the subscription live as long as its actor"]
pub struct SubscriptionHandle(pub(super) Option<Arc<dyn End>>);

impl SubscriptionHandle {
    /// Lets the subscription live until the actor stops or the topic is closed.
    pub fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for SubscriptionHandle {
    fn drop(&mut self) {
        if let Some(subscription) = self.0.take() {
            subscription.end();
        }
    }
}

impl fmt::Debug for SubscriptionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionHandle").finish_non_exhaustive()
    }
}

/// Ends a subscription from outside.
pub(super) trait End: Send + Sync {
    fn end(&self);
}

struct Held<T> {
    ring: Arc<Ring<T>>,
    standing: Arc<Standing>,
}

impl<T: Item> End for Held<T> {
    fn end(&self) {
        self.ring.strike(&self.standing);
        // The reader may sleep; it is to find out and go.
        self.ring.bell.ring();
    }
}

impl SubscriptionHandle {
    /// Holds the subscription of `reader`.
    pub(super) fn of<T: Item>(reader: &Reader<T>) -> Self {
        let (ring, standing) = (Arc::clone(reader.topic.ring()), Arc::clone(&reader.standing));
        Self(Some(Arc::new(Held { ring, standing })))
    }
}

impl<T: Item> Subscribe<T> {
    /// Begins, for an actor that receives one event at a time, from within its own context, as in `started`.
    ///
    /// It ends when the actor stops and when the handle is dropped. The subscription keeps the actor alive.
    pub fn actor<A, C>(self, ctx: &mut C) -> SubscriptionHandle
    where
        A: Subscriber<T> + Actor<Context = C>,
        C: AsyncContext<A>,
    {
        self.spawn::<A, OneByOne>(ctx)
    }

    /// Begins, for an actor that receives batches; otherwise like [`actor`](Self::actor).
    pub fn batch_actor<A, C>(self, ctx: &mut C) -> SubscriptionHandle
    where
        A: BatchSubscriber<T> + Actor<Context = C>,
        C: AsyncContext<A>,
    {
        self.spawn::<A, InBatches>(ctx)
    }

    fn spawn<A, S>(self, ctx: &mut A::Context) -> SubscriptionHandle
    where
        A: Actor<Context: AsyncContext<A>>,
        S: Shape<A, T>,
    {
        let reader = self.begin(Some(short_name::<A>()));
        let standing = Arc::clone(&reader.standing);
        let handle = SubscriptionHandle::of(&reader);
        let delivery = Delivery::<T, S> {
            reader: Some(reader),
            handler: Some(Arc::clone(&standing)),
            standing,
            shape: PhantomData,
        };
        ctx.spawn(delivery);
        handle
    }
}

/// The last name in the path of a type.
fn short_name<A>() -> &'static str {
    let name = std::any::type_name::<A>();
    let plain = name.split('<').next().unwrap_or(name);
    plain.rsplit("::").next().unwrap_or(plain)
}

/// How an actor takes what is there.
trait Shape<A: Actor, T>: 'static {
    /// Hands over events of `batch`, while `goes_on` says so, and returns how many.
    fn receive(
        actor: &mut A,
        batch: Batch<'_, T>,
        ctx: &mut A::Context,
        goes_on: impl Fn(&A::Context) -> bool,
    ) -> usize;

    fn unsubscribed(actor: &mut A, outcome: Result<(), SubscriptionError>, ctx: &mut A::Context);
}

struct OneByOne;

impl<A: Subscriber<T>, T> Shape<A, T> for OneByOne {
    #[inline]
    fn receive(
        actor: &mut A,
        batch: Batch<'_, T>,
        ctx: &mut A::Context,
        goes_on: impl Fn(&A::Context) -> bool,
    ) -> usize {
        if batch.missed() > 0 {
            actor.missed(batch.missed(), ctx);
        }
        let mut received = 0;
        for event in batch {
            actor.receive(event, ctx);
            received += 1;
            if !goes_on(ctx) {
                break;
            }
        }
        received
    }

    fn unsubscribed(actor: &mut A, outcome: Result<(), SubscriptionError>, ctx: &mut A::Context) {
        actor.unsubscribed(outcome, ctx);
    }
}

struct InBatches;

impl<A: BatchSubscriber<T>, T> Shape<A, T> for InBatches {
    #[inline]
    fn receive(
        actor: &mut A,
        batch: Batch<'_, T>,
        ctx: &mut A::Context,
        _: impl Fn(&A::Context) -> bool,
    ) -> usize {
        actor.receive(batch, ctx);
        batch.len()
    }

    fn unsubscribed(actor: &mut A, outcome: Result<(), SubscriptionError>, ctx: &mut A::Context) {
        actor.unsubscribed(outcome, ctx);
    }
}

/// Delivers to one actor; without a reader once the subscription is over.
struct Delivery<T: Item, S> {
    reader: Option<Reader<T>>,
    standing: Arc<Standing>,
    /// The same; it is with the thread while the handler runs.
    handler: Option<Arc<Standing>>,
    shape: PhantomData<S>,
}

// Nothing in it is pinned, whatever the events are.
impl<T: Item, S> Unpin for Delivery<T, S> {}

impl<T, A, S> ActorFuture<A> for Delivery<T, S>
where
    T: Item,
    A: Actor<Context: AsyncContext<A>>,
    S: Shape<A, T>,
{
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        actor: &mut A,
        ctx: &mut A::Context,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        // All of it: hooks and the drop of an event are the user's code too.
        let delivered = catch_unwind(AssertUnwindSafe(|| self.deliver(actor, ctx, cx)));
        delivered.unwrap_or_else(|panic| {
            // actix polls an actor's futures once more while it unwinds: this one must have nothing left to deliver, or a
            // second panic would end the process.
            self.reader = None;
            tracing::error!(
                actor = std::any::type_name::<A>(),
                "a subscriber panicked, its actor ends"
            );
            resume_unwind(panic)
        })
    }
}

impl<T: Item, S> Delivery<T, S> {
    fn deliver<A>(&mut self, actor: &mut A, ctx: &mut A::Context, cx: &mut Context<'_>) -> Poll<()>
    where
        A: Actor<Context: AsyncContext<A>>,
        S: Shape<A, T>,
    {
        let Self { reader: delivery, standing, handler, shape: PhantomData } = self;
        let mut left = DRAIN;
        loop {
            let Some(reader) = delivery else {
                return Poll::Ready(());
            };
            let outcome = match reader.poll_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Next::Events)) => None,
                // Not the topic has ended, but the handle was dropped, by someone who knows.
                Poll::Ready(Ok(Next::End)) if reader.standing.is_ended() => {
                    *delivery = None;
                    return Poll::Ready(());
                }
                Poll::Ready(Ok(Next::End)) => Some(Ok(())),
                Poll::Ready(Err(error)) => Some(Err(error)),
            };
            if let Some(outcome) = outcome {
                *delivery = None;
                S::unsubscribed(actor, outcome, ctx);
                return Poll::Ready(());
            }
            let batch = reader.take();
            let (taken, depth) = (batch.len(), batch.causation_depth());
            let received = causation::within(handler, depth, || {
                S::receive(actor, batch, ctx, |ctx| !ctx.waiting() && !standing.is_ended())
            });
            reader.put_back(taken - received);
            left = left.saturating_sub(received);
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
