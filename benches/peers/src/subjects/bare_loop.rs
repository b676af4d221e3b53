//! A limit: one thread writes events into a slice and folds them with the check of every subscriber.

use std::hint::black_box;

use crate::harness::{CAPACITY, Check, Event, Meter, Run};

pub(crate) const NAME: &str = "limit: bare loop over a slice, one thread";

pub(crate) fn run(subscribers: usize, events: u64, batch: u64) -> Run {
    let mut slice = vec![Event::default(); CAPACITY];
    let mut checks = vec![Check::default(); subscribers];
    let meter = Meter::start();
    let mut number = 0;
    while number < events {
        if number == events / 2 {
            Meter::half();
        }
        let at = number as usize % CAPACITY;
        let count = batch.min(events - number);
        let written = &mut slice[at..at + count as usize];
        for slot in &mut *written {
            number += 1;
            *slot = Event::nth(0, number);
        }
        let written = black_box(written);
        for check in &mut checks {
            written.iter().for_each(|event| check.see(event));
        }
    }
    let run = meter.end();
    checks.iter().for_each(|check| check.verify(0, events));
    run
}
