//! Watching a view: a new answer when it changes.
//!
//! A [`Watching`] evaluates its query when it is asked for the next answer: at first at once, then when the view has moved.
//! It yields what differs from the answer before.
//!
//! ```text
//!  projection ── folds, reports its progress ──▶ watch channel: the newest report alone
//!                                                     │ wakes who waits
//!  who asks ── next() ──▶ Watching: waits for a report, evaluates, compares ──▶ an answer, if it is another one
//! ```
//!
//! # Falling behind
//! Nothing is queued. Whatever happened between two calls is one move: who asks seldom skips the answers between and gets
//! the newest. The projection knows nothing of who watches, and does not wait; while a query runs on a view in memory it
//! cannot fold, as with every other read.
//!
//! # Cost
//! A query runs at most once for each move of the view, however many there were between two calls; once more when the
//! projection goes live and when it stops. It does not run while the view stands still or while nobody asks: then there is
//! no timer either. Positions of events that the projection does not handle move its view too, without changing it: its
//! query runs, and nothing is yielded.
//!
//! # Ending
//! It ends when the projection has stopped for good, or the app was shut down, after the answer from the view as it ended. One
//! that stands still because too many keys are parked may go on, and is waited for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::select_all;
use futures_util::stream::{self, BoxStream, Fuse, FusedStream};
use futures_util::{Stream, StreamExt};
use tokio::sync::watch;

use crate::processor::{ConsumerState, Progress};
use crate::stream::Position;

/// A query that is watched: its answer at once, and a new one whenever it has changed. Made by
/// [`View::watch`](crate::View::watch), [`TableView::watch`](crate::TableView::watch) and [`App::watch`](crate::App::watch).
///
/// It is a `Stream` too, for a response that never ends: server-sent events, a web socket. A consumer that asks seldom skips
/// the answers between and gets the newest; it holds up nobody. Dropping it ends the watching.
///
/// Where answers can fail, `A` is a [`Result`]. An error is an answer like any other, yielded each time; the query is run
/// again when the view moves, so an error is not the end.
#[must_use = "a watched query is not evaluated unless it is asked for its next answer"]
pub struct Watching<A> {
    name: &'static str,
    answers: Fuse<BoxStream<'static, A>>,
}

impl<A> Watching<A> {
    /// Watches what `evaluate` says while the views of `progress` move; `name` is that of the query or its projection.
    pub(crate) fn new<T, E, F>(
        name: &'static str,
        progress: impl IntoIterator<Item = watch::Receiver<Progress>>,
        evaluate: impl FnMut() -> F + Send + 'static,
        answer: impl Fn(Result<T, E>) -> A + Copy + Send + 'static,
    ) -> Self
    where
        T: Clone + PartialEq + Send + 'static,
        E: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let views = progress.into_iter().map(Followed::new).collect();
        let watched = Watched { views, evaluate, begun: false, last: None };
        let answers = stream::unfold(watched, move |mut watched| async move {
            let next = watched.next().await?;
            Some((answer(next), watched))
        });
        Self { name, answers: answers.boxed().fuse() }
    }

    /// Waits for the next answer: the first comes at once, each further one when it differs from the one before. `None` when
    /// the projection has stopped and its last answer was yielded.
    ///
    /// # Panics
    /// If the query of a view in memory does: then it is over, and so is every further call. Where the view is in tables,
    /// outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Safe: no answer is lost. What had begun goes on with the next call, so an answer from tables may be one of before that.
    pub async fn next(&mut self) -> Option<A> {
        self.answers.next().await
    }
}

impl<A> Stream for Watching<A> {
    type Item = A;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<A>> {
        self.answers.poll_next_unpin(cx)
    }
}

impl<A> FusedStream for Watching<A> {
    fn is_terminated(&self) -> bool {
        self.answers.is_terminated()
    }
}

impl<A> fmt::Debug for Watching<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching")
            .field("name", &self.name)
            .field("ended", &self.is_terminated())
            .finish_non_exhaustive()
    }
}

/// A query and the views that it depends on.
struct Watched<T, V> {
    /// Those that may still move.
    views: Vec<Followed>,
    evaluate: V,
    /// Whether it was evaluated at all.
    begun: bool,
    /// What was yielded last; none after an error.
    last: Option<T>,
}

impl<T, E, F, V> Watched<T, V>
where
    T: Clone + PartialEq,
    F: Future<Output = Result<T, E>>,
    V: FnMut() -> F,
{
    async fn next(&mut self) -> Option<Result<T, E>> {
        while !self.begun || self.moved().await {
            self.begun = true;
            // Before the query runs: what a view moves meanwhile may be missing in the answer, and is looked at again.
            self.views.iter_mut().for_each(Followed::look);
            match (self.evaluate)().await {
                Ok(answer) if self.last.as_ref() == Some(&answer) => {}
                Ok(answer) => {
                    self.last = Some(answer.clone());
                    return Some(Ok(answer));
                }
                Err(error) => {
                    self.last = None;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// Waits until one of the views has moved; false if none will.
    async fn moved(&mut self) -> bool {
        loop {
            self.views.retain(|view| !view.ended);
            if self.views.is_empty() {
                return false;
            }
            let moves = self.views.iter_mut().map(|view| Box::pin(view.moved()));
            if let (true, ..) = select_all(moves).await {
                return true;
            }
        }
    }
}

/// A view that may move.
struct Followed {
    progress: watch::Receiver<Progress>,
    /// Where it stood when it was looked at.
    position: Position,
    /// Whether its projection said then that it had stopped. It may go on, if it stopped because too many keys were parked.
    stopped: bool,
    /// Whether its projection is gone.
    ended: bool,
}

impl Followed {
    fn new(progress: watch::Receiver<Progress>) -> Self {
        Self { progress, position: Position::START, stopped: false, ended: false }
    }

    /// Takes note of where it stands.
    fn look(&mut self) {
        let progress = self.progress.borrow_and_update();
        self.position = progress.position;
        self.stopped = progress.state == ConsumerState::Stopped;
        drop(progress);
        self.ended = self.progress.has_changed().is_err();
    }

    /// Waits until it may answer differently from when it was looked at; false if it will not any more.
    ///
    /// Every report counts but those of a projection that stands still and tries again. To look at positions alone is not
    /// enough: a letter that is handled later changes what lies behind, a handler that fails leaves what it had changed, and a
    /// view that was built anew may stand where the old one did.
    async fn moved(&mut self) -> bool {
        while self.progress.changed().await.is_ok() {
            let progress = self.progress.borrow();
            let stands = progress.position == self.position;
            if !(stands && progress.state == ConsumerState::Retrying) {
                return true;
            }
        }
        self.ended = true;
        // One that panicked outside of its handlers has not said what its last state was.
        !self.stopped
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::ready;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::FutureExt;

    use super::*;
    use crate::clock::Timestamp;

    /// Watches how often it was evaluated, so that each evaluation is an answer.
    fn evaluations(progress: &watch::Sender<Progress>) -> Watching<u64> {
        let mut runs = 0;
        let evaluate = move || {
            runs += 1;
            ready(Ok::<u64, Infallible>(runs))
        };
        Watching::new("runs", [progress.subscribe()], evaluate, |Ok(runs)| runs)
    }

    fn at(position: u64, state: ConsumerState) -> Progress {
        let (position, time) = (Position::new(position), Timestamp::default());
        let (trouble, rebuild, outdated) = (None, None, false);
        Progress { position, time, state, at: time, trouble, rebuild, outdated }
    }

    fn poll<A>(watching: &mut Watching<A>) -> Option<Option<A>> {
        watching.next().now_or_never()
    }

    #[test]
    fn a_projection_that_stands_still_and_tries_again_is_no_reason_to_evaluate() {
        let progress = watch::Sender::new(at(7, ConsumerState::Live));
        let mut watching = evaluations(&progress);
        assert_eq!(poll(&mut watching), Some(Some(1)));
        for _ in 0..3 {
            progress.send_replace(at(7, ConsumerState::Retrying));
            assert_eq!(poll(&mut watching), None);
        }
        progress.send_replace(at(8, ConsumerState::Retrying));
        assert_eq!(poll(&mut watching), Some(Some(2)));
    }

    #[test]
    fn a_view_that_was_exchanged_where_it_stood_is_evaluated_again() {
        let progress = watch::Sender::new(at(7, ConsumerState::Live));
        let mut watching = evaluations(&progress);
        assert_eq!(poll(&mut watching), Some(Some(1)));
        progress.send_replace(at(7, ConsumerState::Live));
        assert_eq!(poll(&mut watching), Some(Some(2)));
        assert_eq!(poll(&mut watching), None);
        // Even one that is behind what was there before.
        progress.send_replace(at(3, ConsumerState::Live));
        assert_eq!(poll(&mut watching), Some(Some(3)));
    }

    #[test]
    fn a_projection_that_ends_without_a_word_ends_it_after_a_last_answer() {
        let progress = watch::Sender::new(at(7, ConsumerState::Live));
        let (mut watching, mut late) = (evaluations(&progress), evaluations(&progress));
        assert_eq!(poll(&mut watching), Some(Some(1)));
        drop(progress);
        assert_eq!(poll(&mut watching), Some(Some(2)));
        assert_eq!(poll(&mut watching), Some(None));
        assert_eq!(poll(&mut late), Some(Some(1)));
        assert_eq!(poll(&mut late), Some(None));
        assert!(late.is_terminated());
    }

    #[test]
    fn what_moves_while_the_query_runs_is_looked_at_again() {
        let progress = Arc::new(watch::Sender::new(at(1, ConsumerState::Live)));
        let folded = Arc::new(AtomicU64::new(1));
        let mut watching = Watching::new(
            "races",
            [progress.subscribe()],
            move || {
                let answer = folded.load(Ordering::Relaxed);
                // The projection folds and reports right behind the reader.
                if answer < 4 {
                    folded.store(answer + 1, Ordering::Relaxed);
                    progress.send_replace(at(answer + 1, ConsumerState::Live));
                }
                ready(Ok::<u64, Infallible>(answer))
            },
            |Ok(answer)| answer,
        );
        let answers: Vec<_> = std::iter::from_fn(|| poll(&mut watching).flatten()).collect();
        assert_eq!(answers, [1, 2, 3, 4]);
    }

    #[test]
    fn of_several_views_any_can_move_and_all_must_end() {
        let first = watch::Sender::new(at(1, ConsumerState::Live));
        let second = watch::Sender::new(at(1, ConsumerState::Live));
        let mut runs = 0;
        let evaluate = move || {
            runs += 1;
            ready(Ok::<u64, Infallible>(runs))
        };
        let progress = [first.subscribe(), second.subscribe()];
        let mut watching = Watching::new("runs", progress, evaluate, |Ok(runs)| runs);
        assert_eq!(poll(&mut watching), Some(Some(1)));
        second.send_replace(at(2, ConsumerState::Live));
        assert_eq!(poll(&mut watching), Some(Some(2)));
        // Both in one go are one move.
        first.send_replace(at(3, ConsumerState::Stopped));
        second.send_replace(at(3, ConsumerState::Live));
        assert_eq!(poll(&mut watching), Some(Some(3)));
        drop(first);
        assert_eq!(poll(&mut watching), None);
        second.send_replace(at(4, ConsumerState::Stopped));
        assert_eq!(poll(&mut watching), Some(Some(4)));
        drop(second);
        assert_eq!(poll(&mut watching), Some(None));
    }

    #[test]
    fn a_projection_that_stands_still_is_waited_for() {
        let progress = watch::Sender::new(at(7, ConsumerState::Stopped));
        let mut watching = evaluations(&progress);
        assert_eq!(poll(&mut watching), Some(Some(1)));
        assert_eq!(poll(&mut watching), None);
        progress.send_replace(at(7, ConsumerState::CatchingUp));
        assert_eq!(poll(&mut watching), Some(Some(2)));
        assert_eq!(poll(&mut watching), None);
    }
}
