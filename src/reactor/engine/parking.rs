//! What an engine does with events that fail, and with what people order about letters.

use std::sync::Arc;
use std::time::Instant;

use tracing::warn;

use super::{Ended, Engine, Failed, ORDERS, Pausing, panicked, trouble};
use crate::actor::Panic;
use crate::event::Header;
use crate::letters::desk::{LetterError, Order, Task, What};
use crate::letters::shelf::Change;
use crate::letters::{Attempt, Letter};
use crate::processor::read_edited;
use crate::reactor::keeping::Decided;
use crate::reactor::lanes::Item;
use crate::retry::ErrorClass;
use crate::telemetry::chain;

impl Engine {
    /// Takes note of a failed attempt, and says when the letter is to be tried again by itself.
    pub(super) fn judge(&self, letter: &mut Letter, failed: &Failed) -> Option<Instant> {
        let failures = &self.failures;
        let class = failed.class.unwrap_or_else(|| failures.class_of(&*failed.cause));
        let (at, error) = (self.wiring.clock.now(), chain(&*failed.cause));
        letter.tried_in_vain(Attempt { at, class, error, span: failed.span }, &failures.retry)
    }

    pub(super) fn park(&mut self, key: Arc<str>, header: &Header, failed: Failed) {
        let mut letter = Letter::waiting(header, key);
        let due = self.judge(&mut letter, &failed);
        warn!(
            reactor = self.wiring.name,
            event = &*letter.event,
            position = %letter.position,
            key = &*letter.key,
            error = letter.error(),
            retries = due.is_some(),
            "an event could not be handled; its key waits"
        );
        self.homeless.push_back((letter, due));
    }

    /// Parks what has failed, with all that waits in its lane, as long as there is room.
    pub(super) fn shelve(&mut self) {
        while let Some((letter, _)) = self.homeless.front() {
            let shelf = Arc::clone(&self.wiring.clerk.shelf);
            let max_keys = self.failures.max_parked_keys;
            {
                let shelved = shelf.read();
                let (new_key, behind) =
                    (shelved.first(&letter.key).is_none(), self.lanes.behind(&letter.key));
                if shelved.is_full(max_keys, new_key, 1 + behind) {
                    return;
                }
            }
            let Some((letter, due)) = self.homeless.pop_front() else {
                return;
            };
            let (key, position) = (Arc::clone(&letter.key), letter.position);
            let behind = self.lanes.clear(&key);
            let behind = behind.iter().map(|item| Letter::waiting(&item.header, Arc::clone(&key)));
            let letters: Vec<_> = std::iter::once(letter).chain(behind).collect();
            letters.iter().for_each(|letter| self.finish(letter.position));
            self.change(letters.into_iter().map(|letter| Change::Put(Box::new(letter))).collect());
            let mut shelved = shelf.read();
            // An earlier letter of the key, of an event that was not read again yet, does not come before its turn.
            if shelved.first(&key).is_some_and(|first| first.position == position) {
                shelved.set_due(&key, due);
            }
        }
    }

    /// Tries an event again in its place, or stops before it.
    pub(super) fn insist(&mut self, key: Arc<str>, item: Item, attempt: u32, failed: Failed) {
        let failures = &self.failures;
        let class = failed.class.unwrap_or_else(|| failures.class_of(&*failed.cause));
        let pause = match class {
            ErrorClass::Transient => failures.retry.pause(attempt),
            ErrorClass::Permanent => None,
        };
        let trouble = trouble(&item.header, failed);
        match pause {
            Some(pause) => {
                warn!(reactor = self.wiring.name, error = chain(&trouble), "tries again");
                self.trouble = Some(Arc::new(trouble));
                let until = Instant::now() + pause;
                self.pausing.push(Pausing { until, key, item, failed: attempt });
            }
            None => self.over = Some(trouble),
        }
    }

    pub(super) fn take_orders(&mut self) {
        if self.is_ending() {
            return;
        }
        while self.held.len() < ORDERS
            && let Some(order) = self.wiring.clerk.next_order()
        {
            self.held.push(order);
        }
        for order in std::mem::take(&mut self.held) {
            let key = match &order.what {
                What::Retry(_) => None,
                What::Edit(position, _) | What::Discard(position, _) => {
                    let shelved = self.wiring.clerk.shelf.read();
                    shelved.at(*position).map(|letter| Arc::clone(&letter.key))
                }
            };
            match key {
                Some(key) if !self.lanes.is_free(&key) => self.held.push(order),
                Some(key) if matches!(order.what, What::Edit(..)) => self.check(key, order),
                _ => self.carry_out(order),
            }
        }
    }

    /// Finds out whether the payload that a person wrote can be read.
    pub(super) fn check(&mut self, key: Arc<str>, order: Order) {
        let What::Edit(position, payload) = &order.what else {
            return;
        };
        let (position, payload) = (*position, Arc::clone(payload));
        self.lanes.seize(Arc::clone(&key));
        let (decoder, routes) = (self.wiring.decoder.clone(), Arc::clone(&self.routes));
        let consumer = self.wiring.name;
        self.running.push(Box::pin(async move {
            let checked = async {
                let recorded = read_edited(decoder.store(), position, &payload, consumer).await?;
                let Some(route) = routes.get(&recorded.header.name) else {
                    return Ok(());
                };
                let prepared = Panic::catch(|| (route.prepare)(&recorded, &decoder).map(drop));
                prepared
                    .map_err(|panic| LetterError::Store { consumer, source: panicked(&panic) })?
                    .map_err(LetterError::Edit)
            };
            let outcome = checked.await;
            Ended::Checked { key, order, outcome }
        }));
    }

    pub(super) fn carry_out(&mut self, order: Order) {
        let Order { what, reply } = order;
        let (reached, now) = (self.window.through(), self.wiring.clock.now());
        match self.wiring.clerk.weigh(what, reached, now) {
            Ok(Task::Try(key)) => self.wiring.clerk.ask(key, reply),
            Ok(Task::Decide(key, changes, next)) => {
                // Until it is written down, nothing else is done for the key.
                self.lanes.seize(Arc::clone(&key));
                self.keeping.decide(Decided { key, changes, next, reply });
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }
}
