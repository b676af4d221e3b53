//! Groups: several members share the events of one topic, and the events of one key stay in order.
//!
//! ```text
//!   topic     a1 b1 a2 c1 b2 a3 …        partitions: a → 17, b → 90, c → 3
//!              │
//!   member 1   ▼  17, 90                  a1 b1 a2 b2 a3
//!   member 2   ▼  3                       c1
//! ```
//!
//! The key of an event says to which of 128 partitions it belongs. At any time at most one member handles a partition. Each
//! member reads the ring on its own and passes over what is not its own, so members share nothing that an event changes; they
//! look at one number between two events, and take the lock of the group when it has changed, when they have gone on by a
//! segment or so, and before they sleep.
//!
//! # Members that come and go
//! When partitions are meant for another member, the one that has them lays them down before its next event, and says from
//! where on their events are not handled; the other takes them up there, and reads those events again for it. Nobody else
//! stops for that. To the ring the whole group is one reader, which stands where the last of its members, or a partition that
//! nobody has, stands: so no event is gone that somebody still has to handle.

mod actor;
mod member;
mod partitions;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crossbeam_utils::CachePadded;
use serde::Serialize;

pub use self::member::Member;
use self::partitions::{PARTITIONS, Partitions};
use super::ring::Standing;
use super::sync::{AtomicU64, Mutex, Ordering};
use super::topic::Topic;
use crate::actor::Panic;
use crate::event::TransientEvent;

/// After so many events a member tells the group how far it is: as often as it comes to a new segment of a large ring.
const STEP: u64 = 128;

/// A small ring has room for so many of these steps, so that publishers wait at most so much earlier than they must.
const STEPS: u64 = 8;

/// Members that share the events of a [`Topic`]: each event goes to one of them, and those of one key in order, one after the
/// other. Made by [`Topic::group`].
///
/// A member [joins](Self::join) as a loop in a task, or is an [actix actor](Self::actor). Members may come and go at any time.
/// Cloning the handle is cheap; all clones are the same group.
///
/// # Order
/// The events of one key are handled in the order in which they were published, the next one not before the one before it
/// is done with, whoever handles them. There is no order between keys.
///
/// # Keys and members
/// Keys are hashed with [`DefaultHasher::new`] (SipHash-1-3 with a key of zeros) into 128 partitions, and the members have as
/// many partitions as each other, up to one. The hash is the same in every run of one build of a program, and nothing that
/// outlives the process depends on it. When a member comes or goes, as few partitions change hands as possible. An event whose
/// key cannot be read, because the function panics, is traced and handled as if all such events had one key.
///
/// # Falling behind
/// A group makes publishers wait when one of its members is a capacity of the topic behind, up to an eighth earlier: nothing
/// is missed. As long as it has no member, events wait for one. A member that is not asked for its next event holds up the
/// events of its keys, and then the publishers.
///
/// # Members that end
/// Keys of a member that is dropped go to the others at once. An event that it had in hand, because it was lent and the next
/// one was not asked for, is given to another member: so one may be handled again of which a task that was aborted had
/// handled a part, or all. A member that [leaves](Member::leave) is done with it.
///
/// # Members that panic
/// If a member is dropped because its thread panics, the event that it had in hand counts as handled, and an error with its
/// sequence is traced. It would end one member after the other.
///
/// # The end
/// When the topic is closed, members end when the group has handled everything, so that they can still take over from each
/// other. When all handles and members are dropped, the group is no more, and publishers do not wait for it.
///
/// # Examples
/// ```
/// use tidings::{Topic, TransientEvent};
///
/// #[derive(TransientEvent)]
/// struct Order { customer: u64, item: &'static str }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let topic = Topic::<Order>::new();
/// let group = topic.group("packers", |order: &Order| order.customer);
/// let packers: Vec<_> = (0..2)
///     .map(|_| {
///         let mut member = group.join();
///         tokio::spawn(async move {
///             let mut packed = Vec::new();
///             while let Some(order) = member.next().await {
///                 packed.push((order.customer, order.item));
///             }
///             packed
///         })
///     })
///     .collect();
///
/// let publisher = topic.publisher("shop");
/// for (customer, item) in [(1, "hat"), (2, "coat"), (1, "gloves")] {
///     publisher.publish(Order { customer, item }).await?;
/// }
/// topic.close();
///
/// let mut packed = Vec::new();
/// for packer in packers {
///     packed.extend(packer.await?);
/// }
/// packed.sort_by_key(|(customer, _)| *customer);
/// assert_eq!(packed, [(1, "hat"), (1, "gloves"), (2, "coat")]);
/// # Ok(()) }
/// ```
#[must_use = "a group makes publishers wait until it has members, or is dropped"]
pub struct Group<T: TransientEvent>(Arc<Shared<T>>);

struct Shared<T: TransientEvent> {
    topic: Topic<T>,
    /// That of the group as a whole.
    standing: Arc<Standing>,
    partition: Box<dyn Fn(&T) -> usize + Send + Sync>,
    /// That of `agreed`, for a look without the lock.
    generation: CachePadded<AtomicU64>,
    agreed: Mutex<Agreed>,
    /// After how many events a member tells the others how far it is.
    step: u64,
}

#[derive(Debug)]
struct Agreed {
    partitions: Partitions,
    /// The sequence for which publishers that wait were told last that there is room.
    room: u64,
}

/// What a [`Group`] is at, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupStatus {
    /// Its name.
    pub name: Box<str>,
    /// How many of the topic's newest events are not all done with yet.
    pub lag: u64,
    /// The partitions that nobody has now, because they change hands or there is no member.
    pub unassigned: Vec<usize>,
    /// The members, in the order in which they joined.
    pub members: Vec<MemberStatus>,
}

/// What a member of a [`Group`] is at, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemberStatus {
    /// The first that joined has 1. No number is given twice.
    pub number: u64,
    /// The partitions whose events it handles.
    pub partitions: Vec<usize>,
    /// How many of the topic's events, its own and others, it has not looked at or is not done with yet.
    pub lag: u64,
}

impl<T: TransientEvent> Topic<T> {
    /// A group whose members share the events from now on, those of one `key` in order. The status shows it as a subscription
    /// of this name.
    ///
    /// Each member calls `key`, with each event. It must say the same each time, and must not use the topic.
    pub fn group<K: Hash>(
        &self,
        name: impl Into<Box<str>>,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
    ) -> Group<T> {
        Group::new(self, name.into(), Box::new(move |event| partition(&key(event))))
    }
}

/// The partition of a key.
fn partition(key: &impl Hash) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % PARTITIONS as u64).unwrap_or(0)
}

impl<T: TransientEvent> Group<T> {
    fn new(
        topic: &Topic<T>,
        name: Box<str>,
        partition: Box<dyn Fn(&T) -> usize + Send + Sync>,
    ) -> Self {
        let standing = Arc::new(Standing::of_group(name));
        let start = topic.ring().enroll_alone(&standing);
        Self(Arc::new(Shared {
            topic: topic.clone(),
            standing,
            partition,
            generation: CachePadded::new(AtomicU64::new(0)),
            agreed: Mutex::new(Agreed { partitions: Partitions::new(start), room: start }),
            step: (topic.ring().capacity() as u64 / STEPS).clamp(1, STEP),
        }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.standing.name
    }

    /// A new member. Some keys are its own from now on: those that no other has at once, those of others when these have done
    /// with what they have in hand and ask for more. A member that does not ask keeps its keys waiting.
    pub fn join(&self) -> Member<T> {
        Member::new(&self.0)
    }

    /// What the group is at. It takes short locks; ask it as often as a person looks.
    pub fn status(&self) -> GroupStatus {
        let published = self.0.topic.ring().extent().published;
        let agreed = self.0.agreed.lock();
        let partitions = &agreed.partitions;
        let members = partitions.members().iter().map(|seat| MemberStatus {
            number: seat.number,
            partitions: partitions.held_by(Some(seat.number)).collect(),
            lag: published.saturating_sub(seat.done.load(Ordering::Acquire)),
        });
        GroupStatus {
            name: self.0.standing.name.clone(),
            lag: published.saturating_sub(partitions.low()),
            unassigned: partitions.held_by(None).collect(),
            members: members.collect(),
        }
    }
}

impl<T: TransientEvent> Clone for Group<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: TransientEvent> fmt::Debug for Group<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("topic", &self.0.topic.name())
            .field("name", &self.0.standing.name)
            .finish_non_exhaustive()
    }
}

/// When publishers that wait are told that there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// When there is a lot: no thread switch for each event.
    InLargeSteps,
    /// When there is any: the member is about to sleep.
    Now,
}

impl<T: TransientEvent> Shared<T> {
    /// Reads or changes what the members agree on, lets publishers know how far the group is, and wakes whom that concerns.
    fn agree<R>(&self, room: Room, change: impl FnOnce(&mut Partitions) -> R) -> R {
        let ring = self.topic.ring();
        let large = (ring.capacity() as u64 / 2).max(1);
        let (result, changed, room) = {
            let mut agreed = self.agreed.lock();
            let result = change(&mut agreed.partitions);
            let low = agreed.partitions.low();
            debug_assert!(low >= self.standing.done(), "publishers may have gone past it");
            self.standing.move_to(low);
            self.standing.count_members(agreed.partitions.members().len());
            let room = low >= agreed.room + if room == Room::Now { 1 } else { large };
            if room {
                agreed.room = low;
            }
            let generation = agreed.partitions.generation();
            let changed = self.is_past(generation);
            self.generation.store(generation, Ordering::Release);
            (result, changed, room)
        };
        if changed {
            ring.bell.ring();
        }
        if room {
            ring.room.ring();
        }
        result
    }

    /// Whether there is something newer than this in what the members agree on.
    fn is_past(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Acquire) != generation
    }

    fn partition_of(&self, event: &T) -> usize {
        Panic::catch(|| (self.partition)(event)).unwrap_or_else(|panic| {
            tracing::error!(
                topic = self.topic.name(),
                group = &*self.standing.name,
                panic = &*panic.message,
                "the key of an event could not be read; it is handled as one of partition 0"
            );
            0
        })
    }
}

impl<T: TransientEvent> Drop for Shared<T> {
    fn drop(&mut self) {
        self.topic.ring().strike(&self.standing);
    }
}
