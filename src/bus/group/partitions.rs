//! Who handles which keys of a group, and how far it has got.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::bus::sync::{AtomicU64, Ordering};

/// Into how many parts the keys of a group are divided; members beyond that have nothing to do. With 16 members, more than a
/// process has use for on most machines, one has an eighth more to do than another at most, and what each member keeps of
/// its own parts is a kilobyte.
pub(super) const PARTITIONS: usize = 128;

/// From which sequence on a member handles the events of each partition; [`NEVER`] of those that are not its own.
pub(super) type Own = [u64; PARTITIONS];

/// No event has this sequence.
pub(super) const NEVER: u64 = u64::MAX;

/// How far a member has got: the sequence before which it is done with the events of its partitions. It alone moves it on,
/// with a plain store; backwards only under the lock of [`Partitions`].
pub(super) type Done = CachePadded<AtomicU64>;

/// What the members of a group agree on.
///
/// A partition goes from one member to the next in two steps. Who had it lays it down between two events, with the sequence
/// from which on its events are not handled; who is to have it takes it up from there. Meanwhile nobody handles it, and
/// [`low`](Self::low) stays where it is.
#[derive(Debug)]
pub(super) struct Partitions {
    members: Vec<Seat>,
    /// The number of the member that joined last.
    last: u64,
    partitions: [Partition; PARTITIONS],
    /// Changes with everything that a member has to look at.
    generation: u64,
    /// Whether every event is handled and no more will come.
    over: bool,
}

#[derive(Debug)]
pub(super) struct Seat {
    pub(super) number: u64,
    pub(super) done: Arc<Done>,
    /// Whether it was told to go.
    dismissed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Partition {
    /// The number of the member that is to handle it.
    meant_for: Option<u64>,
    /// The number of the member that handles it.
    held_by: Option<u64>,
    /// While nobody handles it: the sequence from which on its events are not handled.
    from: u64,
}

impl Partitions {
    /// Without members; events from `from` on are to be handled.
    pub(super) fn new(from: u64) -> Self {
        let free = Partition { meant_for: None, held_by: None, from };
        Self {
            members: Vec::new(),
            last: 0,
            partitions: [free; PARTITIONS],
            generation: 0,
            over: false,
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn members(&self) -> &[Seat] {
        &self.members
    }

    /// The sequence before which the group is done with everything.
    pub(super) fn low(&self) -> u64 {
        let members = self.members.iter().map(|seat| seat.done.load(Ordering::Acquire));
        let free = self.partitions.iter().filter(|partition| partition.held_by.is_none());
        members.chain(free.map(|partition| partition.from)).min().unwrap_or(0)
    }

    /// Which partitions this member handles, or nobody.
    pub(super) fn held_by(&self, member: Option<u64>) -> impl Iterator<Item = usize> {
        let partitions = self.partitions.iter().enumerate();
        partitions.filter(move |(_, partition)| partition.held_by == member).map(|(index, _)| index)
    }

    /// A new member that stands at `at`: its number, and what it tells the others with.
    pub(super) fn join(&mut self, at: u64) -> (u64, Arc<Done>) {
        self.last += 1;
        let done = Arc::new(CachePadded::new(AtomicU64::new(at)));
        self.members.push(Seat { number: self.last, done: Arc::clone(&done), dismissed: false });
        self.share_out();
        (self.last, done)
    }

    /// Nothing is meant for this member any more; it is to find out and to leave.
    pub(super) fn dismiss(&mut self, member: u64) {
        if let Some(seat) = self.members.iter_mut().find(|seat| seat.number == member) {
            seat.dismissed = true;
            self.share_out();
        }
    }

    /// A member is gone that is done with every event of its own before `place`.
    pub(super) fn leave(&mut self, member: u64, own: &mut Own, place: u64) {
        self.members.retain(|seat| seat.number != member);
        self.share_out();
        self.lay_down(member, own, place);
    }

    /// No more will come than the events before this sequence: when all of them are done with, it is over for everybody.
    pub(super) fn end_at(&mut self, sequence: u64) {
        if !self.over && self.low() == sequence {
            self.over = true;
            self.generation += 1;
        }
    }

    /// Whether this member has nothing more to do.
    pub(super) fn is_over_for(&self, member: u64) -> bool {
        self.over || self.members.iter().all(|seat| seat.number != member || seat.dismissed)
    }

    /// A member at `place` lays down what is meant for another.
    pub(super) fn lay_down(&mut self, member: u64, own: &mut Own, place: u64) {
        let mut laid_down = false;
        for (partition, own) in self.partitions.iter_mut().zip(own) {
            if partition.held_by == Some(member) && partition.meant_for != Some(member) {
                let from = std::mem::replace(own, NEVER).max(place);
                *partition = Partition { held_by: None, from, ..*partition };
                laid_down = true;
            }
        }
        self.generation += u64::from(laid_down);
    }

    /// A member at `place` takes up what is meant for it and held by nobody. Returns where it reads on: at `place`, or
    /// before, from where it handles only what it has not.
    pub(super) fn take_up(&mut self, member: u64, own: &mut Own, place: u64) -> u64 {
        let mut start = place;
        for (partition, own) in self.partitions.iter_mut().zip(own) {
            if partition.held_by == Some(member) {
                *own = place.max(*own);
            } else if partition.held_by.is_none() && partition.meant_for == Some(member) {
                partition.held_by = Some(member);
                *own = partition.from;
                start = start.min(partition.from);
            }
        }
        if let Some(seat) = self.members.iter().find(|seat| seat.number == member) {
            seat.done.store(start, Ordering::Release);
        }
        start
    }

    /// Means as many partitions for one member as for another, up to one, and changes that for as few as possible.
    fn share_out(&mut self) {
        let staying = self.members.iter().filter(|seat| !seat.dismissed);
        let members = staying.clone().count().max(1);
        let (least, more) = (PARTITIONS / members, PARTITIONS % members);
        // Where it does not come out even, those that joined first have one more: who has most keeps most.
        let share = |(index, seat): (usize, &Seat)| Share {
            member: seat.number,
            open: least + usize::from(index < more),
        };
        let mut shares: Vec<Share> = staying.enumerate().map(share).collect();
        for partition in &mut self.partitions {
            partition.meant_for =
                partition.meant_for.filter(|member| Share::fill(&mut shares, *member));
        }
        for partition in
            self.partitions.iter_mut().filter(|partition| partition.meant_for.is_none())
        {
            // Who still handles it need not lay it down.
            let holder = partition.held_by.filter(|holder| Share::fill(&mut shares, *holder));
            partition.meant_for = holder.or_else(|| {
                let share = shares.iter_mut().find(|share| share.open > 0)?;
                share.open -= 1;
                Some(share.member)
            });
        }
        self.generation += 1;
    }
}

/// How many more partitions a member is to have.
struct Share {
    member: u64,
    open: usize,
}

impl Share {
    /// Gives one more to `member`, if it is among them and has not enough.
    fn fill(shares: &mut [Self], member: u64) -> bool {
        let open = |share: &&mut Self| share.member == member && share.open > 0;
        let share = shares.iter_mut().find(open);
        share.map(|share| share.open -= 1).is_some()
    }
}
