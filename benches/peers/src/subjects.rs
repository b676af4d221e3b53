//! The peers, a file for each crate.

pub(crate) mod actix;
pub(crate) mod actix_broker;
pub(crate) mod async_broadcast;
pub(crate) mod bare_loop;
pub(crate) mod bus;
pub(crate) mod crossbeam;
pub(crate) mod disruptor;
pub(crate) mod flume;
pub(crate) mod kameo;
pub(crate) mod kanal;
pub(crate) mod multiqueue;
pub(crate) mod ractor;
pub(crate) mod rtrb;
pub(crate) mod std_mpsc;
pub(crate) mod thingbuf;
pub(crate) mod tidings;
pub(crate) mod tokio;

use std::hint;
use std::ops::ControlFlow;
use std::thread;

use crate::peer::Handler;
use crate::seats::Seat;

/// With more threads than this a run measures the scheduler.
const MOST_THREADS: usize = 16;

/// Threads that spin take the cores from each other.
const MOST_SPINNING: usize = 4;

/// How often a polling thread finds nothing before it lets others run; a few microseconds.
const SPINS: u32 = 256;

/// Polls all subscribers from one thread until each handler has broken. `poll` hands over what is there, and says what
/// the handler said last.
fn poll_all<R: Send + 'static, H: Handler>(
    seat: &Seat,
    mut subscribers: Vec<(R, H)>,
    poll: impl Fn(&mut R, &mut H) -> Option<ControlFlow<()>> + Send + 'static,
) {
    seat.thread(move || {
        let mut idle = 0;
        while !subscribers.is_empty() {
            idle += 1;
            subscribers.retain_mut(|(receiver, handler)| {
                let Some(flow) = poll(receiver, handler) else { return true };
                idle = 0;
                flow.is_continue()
            });
            if idle < SPINS {
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    });
}
