//! The handle of a rebuild.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;

use super::{AsOf, AsOfError, Projection};
use crate::app::App;
use crate::processor::rebuild::{Begun, Old};
use crate::processor::{RebuildError, RebuildProgress, Rebuilt};
use crate::stream::Position;

/// How the view of `P` is built anew, in place of the one that serves or beside it.
pub trait Rebuilds<P: Projection>: Send + Sync {
    fn rebuild(&self, projection: P, old: Old) -> Result<Begun, RebuildError>;

    /// The same, from the view that was kept.
    fn switch_back(&self, old: Old) -> Result<Begun, RebuildError>;

    /// Folds it up to `until`, for `app` to look at.
    fn as_of(
        &self,
        projection: P,
        until: Position,
        app: App,
    ) -> BoxFuture<'static, Result<AsOf<P>, AsOfError>>;

    /// Ends the rebuild that runs; false if none does.
    fn cancel(&self) -> bool;

    /// Frees the view that was kept; false if none was.
    fn drop_kept(&self) -> bool;
}

/// A view that is being built anew beside the one that serves; await it for the switch.
///
/// It begins when it is awaited, or with [`begin`](Self::begin).
///
/// # Cancel safety
/// Once begun, dropping it changes nothing: the rebuild goes on and the views are switched. [`cancel`](Self::cancel) ends it.
///
/// # Examples
/// ```
/// use tidings::{App, RebuildError};
/// # use serde::{Deserialize, Serialize};
/// # use tidings::{Command, Event, Memory, aggregate, projection};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(name = "till.sold")]
/// # struct Sold { cents: i64 }
/// # #[derive(Command, Clone)]
/// # struct Sell { cents: i64 }
/// # #[derive(Default)]
/// # struct Till;
/// # #[aggregate(category = "till", events = TillEvent)]
/// # impl Till {
/// #     #[command]
/// #     fn sell(&self, Sell { cents }: Sell) -> Sold { Sold { cents } }
/// #     #[apply]
/// #     fn sold(&mut self, _: &Sold) {}
/// # }
///
/// #[derive(Default)]
/// struct Sales { cents: i64 }
///
/// #[projection(name = "sales", version = 1)]
/// impl Sales {
///     #[on]
///     fn sold(&mut self, event: &Sold) { self.cents += event.cents }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let app = App::builder().store(Memory::new()).aggregate::<Till>().projection(Sales::default()).start().await?;
/// # app.send("1", Sell { cents: 250 }).await?;
/// let mut rebuild = app.rebuild::<Sales>().keep_old().begin();
/// while let Some(progress) = rebuild.progressed().await {
///     println!("{} of {}, {:?} left", progress.position, progress.head, progress.eta);
/// }
/// let rebuilt = rebuild.await?;
/// assert_eq!(rebuilt.position, app.head());
/// assert_eq!(app.view::<Sales>().read().cents, 250);
/// # app.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a rebuild does nothing unless it is begun or awaited"]
pub struct Rebuild {
    name: &'static str,
    old: Old,
    state: State,
}

enum State {
    Unbegun(Box<dyn FnOnce(Old) -> Result<Begun, RebuildError> + Send + Sync>),
    Begun(Begun),
    Refused(RebuildError),
    Done,
}

impl Rebuild {
    pub(crate) fn new(
        name: &'static str,
        begin: impl FnOnce(Old) -> Result<Begun, RebuildError> + Send + Sync + 'static,
    ) -> Self {
        Self { name, old: Old::Drop, state: State::Unbegun(Box::new(begin)) }
    }

    /// Keeps the view that is replaced, in place of one that was kept before, for
    /// [`App::switch_back`](crate::App::switch_back). Has no effect once it has begun.
    pub fn keep_old(mut self) -> Self {
        self.old = Old::Keep;
        self
    }

    /// Begins without waiting for the end.
    pub fn begin(mut self) -> Self {
        self.state = self.state.begin(self.old);
        self
    }

    /// How far it has got; at the start of the log before it begins.
    pub fn progress(&self) -> RebuildProgress {
        match &self.state {
            State::Begun(begun) => *begun.progress.borrow(),
            _ => RebuildProgress {
                position: Position::START,
                head: Position::START,
                rate: 0,
                eta: None,
            },
        }
    }

    /// Waits until it has got further; none once it has ended, and before it has begun. What was passed meanwhile is skipped.
    ///
    /// # Cancel safety
    /// Nothing is lost but what newer progress replaces.
    pub async fn progressed(&mut self) -> Option<RebuildProgress> {
        match &mut self.state {
            State::Begun(begun) => {
                begun.progress.changed().await.ok()?;
                Some(*begun.progress.borrow_and_update())
            }
            _ => None,
        }
    }

    /// Ends it, unless the views have been switched; awaiting it says which. The view that was there goes on as if nothing had
    /// been.
    pub fn cancel(&self) {
        if let State::Begun(begun) = &self.state {
            begun.cancel.send_replace(true);
        }
    }
}

impl State {
    fn begin(self, old: Old) -> Self {
        match self {
            Self::Unbegun(begin) => match begin(old) {
                Ok(begun) => Self::Begun(begun),
                Err(error) => Self::Refused(error),
            },
            begun => begun,
        }
    }
}

impl Future for Rebuild {
    type Output = Result<Rebuilt, RebuildError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (name, old) = (self.name, self.old);
        match std::mem::replace(&mut self.state, State::Done).begin(old) {
            State::Begun(mut begun) => match Pin::new(&mut begun.outcome).poll(cx) {
                Poll::Ready(outcome) => {
                    Poll::Ready(outcome.unwrap_or(Err(RebuildError::Ended(name))))
                }
                Poll::Pending => {
                    self.state = State::Begun(begun);
                    Poll::Pending
                }
            },
            State::Refused(error) => Poll::Ready(Err(error)),
            #[expect(clippy::panic, reason = "documented: the contract of every future")]
            State::Unbegun(_) | State::Done => panic!("a rebuild was polled after its end"),
        }
    }
}

impl fmt::Debug for Rebuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rebuild")
            .field("projection", &self.name)
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}
