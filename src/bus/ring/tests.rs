use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::cursor::Progress;
use super::*;
use crate::bus::subscribe::Overflow;

/// An event that is nothing but its position.
#[derive(Debug)]
struct At(u64);

impl Item for At {
    fn position(&self) -> Position {
        Position::new(self.0)
    }
}

/// A ring that retains at least `capacity` events, with events at the even positions 12, 14 … `last`; 10 was the
/// head of the log.
fn ring(capacity: usize, last: u64) -> Arc<Ring<At>> {
    let ring = Arc::new(Ring::new(capacity, Position::new(10)));
    ring.publisher().publish((12..=last).step_by(2).map(At));
    ring
}

fn standing(overflow: Overflow) -> Arc<Standing> {
    Arc::new(Standing::new("".into(), overflow))
}

fn read(cursor: &mut Cursor<At>, through: u64, max: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    let progress = cursor.read(Position::new(through), max, |event| {
        seen.push(event.0);
        ControlFlow::Continue(())
    });
    assert_eq!(progress, Progress::Read(seen.len()));
    seen
}

#[track_caller]
fn check_join(ring: &Arc<Ring<At>>, after: u64, expected: Result<&[u64], u64>) {
    let after = Position::new(after);
    match (ring.join(after), expected) {
        (Ok(mut cursor), Ok(events)) => {
            assert_eq!(cursor.seen(), after);
            assert_eq!(read(&mut cursor, u64::MAX, usize::MAX), events);
            let last = events.last().map_or(after, |last| Position::new(*last));
            assert_eq!(cursor.seen(), last);
        }
        (Err(gone), Err(floor)) => {
            let floor = Position::new(floor);
            assert_eq!(gone, TooOld { after, floor });
        }
        (joined, expected) => panic!("{joined:?}, expected {expected:?}"),
    }
}

#[test]
fn a_cursor_joins_exactly_where_the_ring_still_has_everything() {
    let empty = ring(4, 10);
    check_join(&empty, 9, Err(10));
    check_join(&empty, 10, Ok(&[]));
    check_join(&empty, 11, Ok(&[]));

    let fits = ring(4, 18);
    check_join(&fits, 9, Err(10));
    for (after, from) in [(10, 12), (11, 12), (12, 14), (13, 14), (17, 18)] {
        let expected: Vec<_> = (from..=18).step_by(2).collect();
        check_join(&fits, after, Ok(&expected));
    }
    check_join(&fits, 18, Ok(&[]));

    // Capacity 4 keeps one event more while it fills a segment of one.
    let moved = ring(4, 40);
    check_join(&moved, 10, Err(30));
    check_join(&moved, 29, Err(30));
    check_join(&moved, 30, Ok(&[32, 34, 36, 38, 40]));
    check_join(&moved, 39, Ok(&[40]));
}

#[test]
fn a_cursor_that_knows_more_than_was_published_skips_what_it_knows() {
    for published in [10, 12, 14, 400] {
        let ring = ring(32, published);
        let mut cursor = ring.join(Position::new(401)).expect("nothing is gone");
        assert_eq!(cursor.peek(), Peek::Empty);
        let rest = (published + 2..=404).step_by(2);
        for position in rest {
            ring.publisher().publish([At(position)]);
            let _ = cursor.peek();
        }
        assert_eq!(cursor.peek(), Peek::Next(Position::new(402)));
        assert_eq!(read(&mut cursor, u64::MAX, usize::MAX), [402, 404]);
    }
}

#[test]
fn a_cursor_at_the_end_sees_what_is_published_next() {
    for published in [10, 12, 400] {
        let ring = ring(32, published);
        let mut cursor = ring.enroll(Join::End, &standing(Overflow::FromLog), None);
        assert_eq!(cursor.seen(), Position::new(published));
        assert_eq!(cursor.peek(), Peek::Empty);
        ring.publisher().publish([At(500), At(502)]);
        assert_eq!(read(&mut cursor, u64::MAX, usize::MAX), [500, 502]);
    }
}

#[test]
fn reading_stops_at_the_position_and_the_number_asked_for() {
    let ring = ring(64, 80);
    let mut cursor = ring.join(Position::new(10)).expect("nothing is gone");
    assert!(read(&mut cursor, 11, usize::MAX).is_empty());
    assert_eq!(read(&mut cursor, 17, usize::MAX), [12, 14, 16]);
    assert!(read(&mut cursor, 80, 0).is_empty());
    assert_eq!(read(&mut cursor, 80, 2), [18, 20]);
    let rest: Vec<_> = (22..=80).step_by(2).collect();
    assert_eq!(read(&mut cursor, 80, usize::MAX), rest);
    assert_eq!(cursor.peek(), Peek::Empty);
}

#[test]
fn an_event_whose_reader_breaks_or_panics_comes_again() {
    let ring = ring(64, 20);
    let mut cursor = ring.join(Position::new(10)).expect("nothing is gone");
    let progress = cursor.read(Position::new(20), 9, |event| match event.0 {
        16 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert_eq!(progress, Progress::Read(2));
    assert_eq!(cursor.seen(), Position::new(14));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        cursor.read(Position::new(20), 9, |event| {
            assert_eq!(event.0, 16, "as asked");
            ControlFlow::Continue(())
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(cursor.peek(), Peek::Next(Position::new(18)));
}

#[test]
fn a_lagged_cursor_reads_its_segment_to_the_end_and_rejoins_where_it_can() {
    let ring = ring(16, 12);
    let mut cursor = ring.join(Position::new(10)).expect("nothing is gone");
    assert_eq!(cursor.peek(), Peek::Next(Position::new(12)));
    ring.publisher().publish((14..=200).step_by(2).map(At));
    // Segments of two.
    assert_eq!(read(&mut cursor, u64::MAX, usize::MAX), [12, 14]);
    assert_eq!(cursor.peek(), Peek::Lagged);
    let progress = cursor.read(Position::new(200), 9, |_| ControlFlow::Continue(()));
    assert_eq!(progress, Progress::Lagged);
    assert_eq!(cursor.seen(), Position::new(14));

    let floor = ring.extent().floor;
    let after = Position::new(floor.as_u64() - 1);
    assert_eq!(cursor.rejoin(after), Err(TooOld { after, floor }));
    assert_eq!(cursor.seen(), Position::new(14));
    assert_eq!(cursor.rejoin(floor), Ok(()));
    assert_eq!(cursor.peek(), Peek::Next(floor.plus(2)));
}

#[test]
fn publishing_nothing_evicts_nothing() {
    let ring = ring(1, 14);
    let before = ring.extent();
    ring.publisher().publish([]);
    let after = ring.extent();
    assert_eq!((before.retained, before.floor), (after.retained, after.floor));
    assert_eq!((after.published, after.head), (2, Position::new(14)));
}

/// An event whose memory tells whether it is still there.
#[derive(Debug)]
struct Boxed(Box<u64>);

impl Item for Boxed {
    fn position(&self) -> Position {
        Position::START
    }
}

/// Small enough for Miri: `MIRIFLAGS=-Zmiri-many-seeds=0..8 cargo +nightly miri test --lib bus::ring`. Whoever waits spins, so
/// that nothing but the ring itself orders the threads.
#[test]
fn segments_are_used_again_behind_readers_on_other_threads_that_hold_and_that_lag() {
    const EVENTS: u64 = 40;
    for capacity in [1, 3, 17] {
        let ring = Arc::new(Ring::<Boxed>::new(capacity, Position::START));
        let (holds, lags) = (standing(Overflow::Block), standing(Overflow::DropOldest));
        let mut holding = ring.enroll(Join::End, &holds, None);
        let mut lagging = ring.enroll(Join::End, &lags, None);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut next = 0;
                let mut held = None;
                while next < EVENTS {
                    // What it has taken stays as it is, however far the publisher goes on.
                    if let Some((segment, range)) = holding.take_shared() {
                        let events =
                            segment.published().get(range.clone()).expect("they were taken");
                        for event in events {
                            assert_eq!(*event.0, next);
                            next += 1;
                        }
                        held = Some((segment, range, next));
                    }
                    holding.tell();
                    if let Some((segment, range, behind)) = &held {
                        let last = segment.published().get(range.clone()).and_then(<[_]>::last);
                        assert_eq!(last.map(|event| *event.0 + 1), Some(*behind));
                    }
                    std::thread::yield_now();
                }
            });
            scope.spawn(move || {
                let (mut passed, mut missed) = (0, 0);
                while passed < EVENTS {
                    if lagging.peek() == Peek::Lagged {
                        let skipped = lagging.skip_to_oldest();
                        (passed, missed) = (passed + skipped, missed + skipped);
                    }
                    for event in lagging.take().0 {
                        assert_eq!(*event.0, passed);
                        passed += 1;
                    }
                    std::thread::yield_now();
                }
                assert_eq!(lags.missed(), missed);
            });
            let mut batch = Vec::new();
            for number in 0..EVENTS {
                batch.push(Boxed(Box::new(number)));
                while number % 3 == 0 && ring.publish_many(0, &mut batch).is_err() {
                    std::thread::yield_now();
                }
            }
            while ring.publish_many(0, &mut batch).is_err() {
                std::thread::yield_now();
            }
        });
        assert!(ring.standings().is_empty());
    }
}
