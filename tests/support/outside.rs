//! What lies outside the store, as the tests of reactors see it: it takes note of what arrives, and fails, panics and waits when it
//! is told to.
#![allow(dead_code, reason = "each test file that mounts this uses a part of it")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tidings::{App, ConsumerKind, ConsumerLetters, ConsumerStatus, Delivery};
use tokio::sync::watch;

/// The outside. All clones are the same.
#[derive(Clone)]
pub(crate) struct Outside {
    world: Arc<Mutex<World>>,
    /// Changes whenever somebody may have to look again.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct World {
    arrived: Vec<Arrival>,
    done: Vec<Arrival>,
    inside: Vec<Arrival>,
    most_inside: usize,
    /// What becomes of the events with so many cents.
    orders: HashMap<i64, Treatment>,
}

/// An attempt, as it is seen from outside.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Arrival {
    pub(crate) cents: i64,
    pub(crate) delivery: Delivery,
}

/// What becomes of attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Treatment {
    /// So many fail, and the others pass.
    Fail(u32),
    /// They fail with an error that does not pass.
    Refuse,
    Panic,
    /// They wait until they are treated otherwise.
    Hold,
}

/// What the outside says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Answer {
    #[error("{0} cents are too much today")]
    NotNow(i64),
    #[error("{0} cents are never taken")]
    Never(i64),
}

/// Takes an attempt out of those that are inside, also when it is dropped.
struct Inside<'o>(&'o Outside, Arrival);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.world.lock().unwrap().inside.retain(|inside| *inside != self.1);
    }
}

impl Default for Outside {
    fn default() -> Self {
        Self { world: Arc::default(), changed: watch::Sender::new(0) }
    }
}

impl Outside {
    /// An attempt arrives.
    pub(crate) async fn arrive(&self, cents: i64, delivery: &Delivery) -> Result<(), Answer> {
        let arrival = Arrival { cents, delivery: delivery.clone() };
        let _inside = Inside(self, arrival.clone());
        {
            let mut world = self.world.lock().unwrap();
            world.arrived.push(arrival.clone());
            world.inside.push(arrival.clone());
            world.most_inside = world.most_inside.max(world.inside.len());
        }
        let mut changed = self.changed.subscribe();
        loop {
            match self.treatment(cents) {
                Some(Treatment::Hold) => changed.changed().await.unwrap(),
                Some(Treatment::Panic) => panic!("{cents} cents"),
                Some(Treatment::Refuse) => return Err(Answer::Never(cents)),
                Some(Treatment::Fail(1..)) => return Err(Answer::NotNow(cents)),
                Some(Treatment::Fail(0)) | None => break,
            }
        }
        self.world.lock().unwrap().done.push(arrival);
        Ok(())
    }

    fn treatment(&self, cents: i64) -> Option<Treatment> {
        let mut world = self.world.lock().unwrap();
        let treatment = world.orders.get_mut(&cents)?;
        let found = *treatment;
        if let Treatment::Fail(times) = treatment {
            *times = times.saturating_sub(1);
        }
        Some(found)
    }

    /// Treats the events with so many cents so from now on.
    pub(crate) fn treat(&self, cents: i64, treatment: Treatment) {
        self.world.lock().unwrap().orders.insert(cents, treatment);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Lets the events with so many cents pass from now on.
    pub(crate) fn release(&self, cents: i64) {
        self.treat(cents, Treatment::Fail(0));
    }

    /// Every attempt, in the order of arrival.
    pub(crate) fn arrived(&self) -> Vec<Arrival> {
        self.world.lock().unwrap().arrived.clone()
    }

    /// The attempts for events with so many cents.
    pub(crate) fn attempts(&self, cents: i64) -> Vec<Delivery> {
        let arrived = self.arrived().into_iter().filter(|arrival| arrival.cents == cents);
        arrived.map(|arrival| arrival.delivery).collect()
    }

    /// The cents of what was done, in this order.
    pub(crate) fn done(&self) -> Vec<i64> {
        self.world.lock().unwrap().done.iter().map(|arrival| arrival.cents).collect()
    }

    /// The cents of the attempts that have begun and not ended, in order.
    pub(crate) fn inside(&self) -> Vec<i64> {
        self.world.lock().unwrap().inside.iter().map(|arrival| arrival.cents).collect()
    }

    /// How many attempts there were at once.
    pub(crate) fn most_inside(&self) -> usize {
        self.world.lock().unwrap().most_inside
    }
}

/// The state of the app's only reactor.
pub(crate) fn status(app: &App) -> ConsumerStatus {
    let consumers = app.status().consumers.into_iter();
    let mut reactors = consumers.filter(|consumer| consumer.kind == ConsumerKind::Reactor);
    reactors.next().expect("the app has a reactor")
}

/// The letters of the app's only reactor.
pub(crate) fn letters(app: &App) -> ConsumerLetters {
    app.letters().of(status(app).name).expect("it has letters").clone()
}
