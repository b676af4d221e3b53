//! What each member of a group does: read the whole ring, handle what is its own, and agree with the others.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::slice;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;

use super::partitions::{Done, NEVER, Own, PARTITIONS};
use super::{Room, Shared};
use crate::bus::causation::{self, Within};
use crate::bus::reader::{self, InHand};
use crate::bus::ring::{Cursor, Ready};
use crate::bus::sync::Ordering;
use crate::event::TransientEvent;
use crate::stream::Position;

/// One of those who share the events of a [`Group`](crate::Group). Dropping it hands its keys over to the others.
#[must_use = "the events of a member's keys wait until it is asked for them, or is dropped"]
pub struct Member<T: TransientEvent> {
    group: Arc<Shared<T>>,
    pub(super) number: u64,
    cursor: Cursor<T>,
    own: Own,
    done: Arc<Done>,
    /// The generation of what the members agree on that it has looked at.
    seen: u64,
    /// How far it was when it last told the others.
    told: u64,
    /// Where it had nothing more to read when it last told publishers that wait.
    level_at: u64,
    /// Whether the event before its place is lent.
    lent: bool,
    /// Whether nothing more will come.
    over: bool,
    /// What the hooks were told to be handled.
    in_hand: Option<InHand>,
}

impl<T: TransientEvent> Member<T> {
    pub(super) fn new(group: &Arc<Shared<T>>) -> Self {
        let mut own = [NEVER; PARTITIONS];
        // Where the whole group stands is retained, and nothing before it is wanted.
        let (number, done, place) = group.agree(Room::InLargeSteps, |partitions| {
            let low = partitions.low();
            let (number, done) = partitions.join(low);
            (number, done, partitions.take_up(number, &mut own, low))
        });
        let cursor = group.topic.ring().join_at(place);
        Self {
            group: Arc::clone(group),
            number,
            cursor,
            own,
            done,
            // Of none: it looks before its first event.
            seen: NEVER,
            told: place,
            level_at: NEVER,
            lent: false,
            over: false,
            in_hand: None,
        }
    }

    /// Its number in the [status](crate::Group::status).
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits for the next event of its keys, and lends it until it is asked again: only then it is done with. `None` when the
    /// topic is closed and the group has handled everything.
    ///
    /// # Cancel safety
    /// Safe: a call that is dropped before it returns has lent nothing. With its first poll the event before is done with.
    pub async fn next(&mut self) -> Option<&T> {
        if !poll_fn(|cx| self.poll_next(cx)).await {
            return None;
        }
        self.lend().map(|(event, _)| event)
    }

    /// Leaves the group, done with the event that it has in hand. Dropping a member instead gives that event to another.
    pub fn leave(mut self) {
        self.finish();
    }

    /// Calls `handle` with each event of its keys, the next one when the last call is done, until the topic is closed and the
    /// group has handled everything.
    ///
    /// # Cancel safety
    /// Dropping the future ends the member, and drops the future of a call that is being made: its event goes to another
    /// member.
    ///
    /// # Examples
    /// ```
    /// use tidings::{Topic, TransientEvent};
    ///
    /// #[derive(TransientEvent)]
    /// struct Deposit { account: u64, cents: u64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let topic = Topic::<Deposit>::new();
    /// let group = topic.group("clerks", |deposit: &Deposit| deposit.account);
    /// let publisher = topic.publisher("counter");
    /// publisher.publish(Deposit { account: 7, cents: 50 }).await?;
    /// topic.close();
    ///
    /// let mut sum = 0;
    /// group.join().for_each(async |deposit: &Deposit| sum += deposit.cents).await;
    /// assert_eq!(sum, 50);
    /// # Ok(()) }
    /// ```
    pub async fn for_each(mut self, mut handle: impl AsyncFnMut(&T)) {
        let mut handler = Some(Arc::clone(&self.group.standing));
        while poll_fn(|cx| self.poll_next(cx)).await {
            let Some((event, depth)) = self.lend() else {
                break;
            };
            // A closure that returns a future may publish before that.
            let future = pin!(causation::within(&mut handler, depth, || handle(event)));
            Within { handler: &mut handler, depth, future }.await;
        }
    }

    /// Waits until [`lend`](Self::lend) has something to lend; false if nothing more will come. What was lent is done with.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.finish();
        loop {
            if self.is_called() {
                self.settle();
            } else if self.cursor.sequence() >= self.told + self.group.step {
                self.tell(Room::InLargeSteps);
            }
            if self.over {
                return Poll::Ready(false);
            }
            if self.find() {
                return Poll::Ready(true);
            }
            let (group, seen) = (&self.group, self.seen);
            let called = || group.is_past(seen);
            match self.cursor.poll_ready_or(cx, called) {
                Poll::Ready(Ready::Next) => {}
                Poll::Ready(Ready::Closed) if called() => {}
                Poll::Ready(Ready::Closed) => {
                    // Nothing comes from publishers, but keys of other members may.
                    let end = self.cursor.sequence();
                    group.agree(Room::Now, |partitions| partitions.end_at(end));
                    ready!(self.cursor.poll_called(cx, called));
                }
                Poll::Ready(Ready::Lagged) => {
                    debug_assert!(false, "publishers went past a group");
                    self.cursor.skip_to_oldest();
                }
                Poll::Pending => {
                    if self.level_at != self.cursor.sequence() {
                        self.tell(Room::Now);
                        self.level_at = self.told;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Passes over what is not its own, as far as it knows of it; true if it has come to an event that is.
    fn find(&mut self) -> bool {
        let Self { group, cursor, own, .. } = self;
        let mut sequence = cursor.sequence();
        let found = cursor.pass_while(|event| {
            let from = own.get(group.partition_of(event)).copied().unwrap_or(NEVER);
            let passes = sequence < from;
            sequence += u64::from(passes);
            passes
        });
        self.done.store(sequence, Ordering::Release);
        found
    }

    /// Lends the event that it has come to, with its depth.
    pub(super) fn lend(&mut self) -> Option<(&T, u8)> {
        let Self { group, cursor, lent, in_hand, .. } = self;
        let (event, depth) = cursor.take_one()?;
        *lent = true;
        if !group.topic.hooks().is_empty() {
            let events = slice::from_ref(event);
            *in_hand = Some(reader::handling(&group.topic, &group.standing, 0, events));
        }
        Some((event, depth))
    }

    /// What was lent is done with.
    pub(super) fn finish(&mut self) {
        if std::mem::take(&mut self.lent) {
            self.done.store(self.cursor.sequence(), Ordering::Release);
        }
        if let Some(in_hand) = self.in_hand.take() {
            reader::handled(&self.group.topic, &self.group.standing, &in_hand);
        }
    }

    /// What was lent counts as done with, because its handler panicked.
    pub(super) fn give_up(&mut self) {
        if std::mem::take(&mut self.lent) {
            tracing::error!(
                topic = self.group.topic.name(),
                group = &*self.group.standing.name,
                member = self.number,
                sequence = self.cursor.sequence().saturating_sub(1),
                "a member of a group panicked, and the event that it had in hand counts as handled"
            );
        }
    }

    /// Whether there is something new in what the members agree on.
    fn is_called(&self) -> bool {
        self.group.is_past(self.seen)
    }

    /// Hands over what is meant for others, and takes what is meant for it. Nothing is lent.
    fn settle(&mut self) {
        let (number, own, place) = (self.number, &mut self.own, self.cursor.sequence());
        let (start, over, seen) = self.group.agree(Room::InLargeSteps, |partitions| {
            partitions.lay_down(number, own, place);
            let start = partitions.take_up(number, own, place);
            (start, partitions.is_over_for(number), partitions.generation())
        });
        // Not under the lock: the last reader of a segment drops its events.
        if start != place {
            // Its events have no place in a log.
            self.cursor.seek(start, Position::START);
        }
        self.told = start;
        self.level_at = NEVER;
        self.over = over;
        self.seen = seen;
    }

    fn tell(&mut self, room: Room) {
        self.told = self.cursor.sequence();
        self.group.agree(room, |_| ());
    }
}

impl<T: TransientEvent> Drop for Member<T> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.give_up();
        }
        let place = self.cursor.sequence() - u64::from(self.lent);
        let (number, own) = (self.number, &mut self.own);
        self.group.agree(Room::Now, |partitions| partitions.leave(number, own, place));
        self.finish();
    }
}

impl<T: TransientEvent> fmt::Debug for Member<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("topic", &self.group.topic.name())
            .field("group", &self.group.standing.name)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
