//! actix actors as members of a group.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use actix::{Actor, ActorContext, ActorFuture, ActorState, AsyncContext};

use super::{Group, Member, Room, Shared};
use crate::bus::actor::{DRAIN, End, Subscriber, SubscriptionHandle};
use crate::bus::causation;
use crate::bus::ring::Standing;
use crate::event::TransientEvent;

impl<T: TransientEvent> Group<T> {
    /// A new member, which hands its events to an actor, one at a time, from within the actor's own context, as in `started`.
    ///
    /// An event is done with when [`receive`](Subscriber::receive) has returned and what it gave to `ctx.wait` is done. The
    /// member ends when the actor stops and when the handle is dropped. It keeps the actor alive.
    pub fn actor<A, C>(&self, ctx: &mut C) -> SubscriptionHandle
    where
        A: Subscriber<T> + Actor<Context = C>,
        C: AsyncContext<A>,
    {
        let member = self.join();
        let handle = Handle { group: Arc::downgrade(&self.0), number: member.number };
        let handler = Some(Arc::clone(&self.0.standing));
        ctx.spawn(Working { member: Some(member), handler });
        SubscriptionHandle(Some(Arc::new(handle)))
    }
}

/// Ends the member of an actor. It does not keep the group alive, since the actor may be gone while somebody has it.
struct Handle<T: TransientEvent> {
    group: Weak<Shared<T>>,
    number: u64,
}

impl<T: TransientEvent> End for Handle<T> {
    fn end(&self) {
        if let Some(group) = self.group.upgrade() {
            group.agree(Room::InLargeSteps, |partitions| partitions.dismiss(self.number));
        }
    }
}

/// The member of an actor; without it once that has ended.
struct Working<T: TransientEvent> {
    member: Option<Member<T>>,
    handler: Option<Arc<Standing>>,
}

// Nothing in it is pinned, whatever the events are.
impl<T: TransientEvent> Unpin for Working<T> {}

impl<T, A> ActorFuture<A> for Working<T>
where
    T: TransientEvent,
    A: Subscriber<T> + Actor<Context: AsyncContext<A>>,
{
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        actor: &mut A,
        ctx: &mut A::Context,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        // All of it: hooks and the drop of an event are the user's code too.
        let worked = catch_unwind(AssertUnwindSafe(|| self.work(actor, ctx, cx)));
        worked.unwrap_or_else(|panic| {
            if let Some(member) = &mut self.member {
                member.give_up();
            }
            // actix polls an actor's futures once more while it unwinds: this one must have nothing left to deliver, or a
            // second panic would end the process.
            self.member = None;
            resume_unwind(panic)
        })
    }
}

impl<T: TransientEvent> Working<T> {
    fn work<A>(&mut self, actor: &mut A, ctx: &mut A::Context, cx: &mut Context<'_>) -> Poll<()>
    where
        A: Subscriber<T> + Actor<Context: AsyncContext<A>>,
    {
        let Self { member: working, handler } = self;
        for _ in 0..DRAIN {
            let Some(member) = working else {
                return Poll::Ready(());
            };
            let found = ready!(member.poll_next(cx));
            let Some((event, depth)) = (if found { member.lend() } else { None }) else {
                *working = None;
                actor.unsubscribed(Ok(()), ctx);
                return Poll::Ready(());
            };
            causation::within(handler, depth, || actor.receive(event, ctx));
            let stops = matches!(ctx.state(), ActorState::Stopping | ActorState::Stopped);
            if stops || !ctx.waiting() {
                member.finish();
            }
            // It stops, or its handler waits for something: what comes next is not for now. actix polls again after the wait.
            if ctx.waiting() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
