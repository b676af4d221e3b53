//! What lies outside the store, as the tests of reactors see it: it takes note of what arrives, fails and waits when it is told to.
#![allow(dead_code, reason = "each test file that mounts this uses a part of it")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings::{App, Delivery, FailurePolicy, ReactorStatus, Retry};
use tokio::sync::watch;

/// The outside world. All clones are the same.
#[derive(Clone)]
pub(crate) struct Outside {
    shared: Arc<Mutex<World>>,
    /// Changes whenever something arrives, leaves, or a gate is opened.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct World {
    arrived: Vec<Arrival>,
    done: Vec<Arrival>,
    /// What becomes of the events with so many cents.
    orders: HashMap<i64, Treatment>,
    inside: Vec<Arrival>,
    most_inside: usize,
}

/// An attempt, as it is seen from outside.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) cents: i64,
    pub(crate) delivery: Delivery,
}

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Treatment {
    /// It fails so many times.
    Fail(u32),
    Panic,
    /// It waits until it is released.
    Hold,
}

#[derive(Debug, thiserror::Error)]
#[error("the outside refuses {0} cents")]
pub(crate) struct Refused(pub(crate) i64);

impl Default for Outside {
    fn default() -> Self {
        Self { shared: Arc::default(), changed: watch::Sender::new(0) }
    }
}

/// Takes an attempt out of those that are inside, also when it is dropped.
struct Inside {
    outside: Outside,
    delivery: Delivery,
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut world = self.outside.shared.lock().unwrap();
        world.inside.retain(|seen| seen.delivery != self.delivery);
        drop(world);
        self.outside.changed.send_modify(|n| *n += 1);
    }
}

impl Outside {
    /// An attempt arrives.
    pub(crate) async fn arrive(&self, cents: i64, delivery: &Delivery) -> Result<(), Refused> {
        let arrival = Arrival { cents, delivery: delivery.clone() };
        let _inside = Inside { outside: self.clone(), delivery: delivery.clone() };
        {
            let mut world = self.shared.lock().unwrap();
            world.arrived.push(arrival.clone());
            world.inside.push(arrival.clone());
            world.most_inside = world.most_inside.max(world.inside.len());
        }
        self.changed.send_modify(|n| *n += 1);
        let mut changed = self.changed.subscribe();
        loop {
            let treatment = self.shared.lock().unwrap().orders.get(&cents).copied();
            match treatment {
                Some(Treatment::Hold) => changed.changed().await.unwrap(),
                Some(Treatment::Panic) => panic!("{cents} cents"),
                Some(Treatment::Fail(0)) | None => break,
                Some(Treatment::Fail(times)) => {
                    let order = Treatment::Fail(times.saturating_sub(1));
                    self.shared.lock().unwrap().orders.insert(cents, order);
                    return Err(Refused(cents));
                }
            }
        }
        self.shared.lock().unwrap().done.push(arrival);
        Ok(())
    }

    /// Treats the events with so many cents so from now on.
    pub(crate) fn treat(&self, cents: i64, treatment: Treatment) {
        self.shared.lock().unwrap().orders.insert(cents, treatment);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Lets the events with so many cents pass from now on.
    pub(crate) fn release(&self, cents: i64) {
        self.shared.lock().unwrap().orders.remove(&cents);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Every attempt, in the order of arrival.
    pub(crate) fn arrived(&self) -> Vec<Arrival> {
        self.shared.lock().unwrap().arrived.clone()
    }

    /// The cents of what was done, in this order.
    pub(crate) fn done(&self) -> Vec<i64> {
        self.shared.lock().unwrap().done.iter().map(|seen| seen.cents).collect()
    }

    /// The attempts for events with so many cents.
    pub(crate) fn attempts(&self, cents: i64) -> Vec<Delivery> {
        let arrived = self.arrived().into_iter().filter(|seen| seen.cents == cents);
        arrived.map(|seen| seen.delivery).collect()
    }

    /// The attempts that have begun and not ended.
    pub(crate) fn inside(&self) -> Vec<Arrival> {
        self.shared.lock().unwrap().inside.clone()
    }

    /// How many attempts there were at once.
    pub(crate) fn most_inside(&self) -> usize {
        self.shared.lock().unwrap().most_inside
    }
}

/// Three attempts, with pauses of a millisecond.
pub(crate) fn hasty() -> FailurePolicy {
    let pause = Duration::from_millis(1);
    let retry = Retry { attempts: 3, first: pause, longest: pause };
    FailurePolicy { retry, ..FailurePolicy::for_effects() }
}

/// The state of the app's only reactor.
pub(crate) fn status(app: &App) -> ReactorStatus {
    app.status().reactors.remove(0)
}
