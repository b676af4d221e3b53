//! A view as it was.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::{Projection, Storage};
use crate::app::App;
use crate::clock::Timestamp;
use crate::letters::Letter;
use crate::processor::Trouble;
use crate::query::{Answers, Query, QueryError};
use crate::store::StoreError;
use crate::stream::Position;

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPoint {
    /// After the event at this position; [`Position::START`] is before the first.
    Position(Position),
    /// Before the first event of the whole log that was decided later than this.
    Time(Timestamp),
}

impl From<Position> for LogPoint {
    fn from(position: Position) -> Self {
        Self::Position(position)
    }
}

impl From<Timestamp> for LogPoint {
    fn from(time: Timestamp) -> Self {
        Self::Time(time)
    }
}

/// A view as it was at a position, beside the one that serves and apart from it. Made by [`App::as_of`].
///
/// It dereferences to a view of the kind that [`App::view`] returns, so it is read in the same way: `as_of.read()`. It is folded no
/// further. Views in tables lie in a file of their own beside the others, which goes when this and all readers of it have been
/// dropped, or with the next start of the app after a crash.
///
/// It holds a handle to the app: without a [`shutdown`](App::shutdown) the app does not end before it is dropped.
///
/// # Handlers that are live-only
/// They do not run, as in a rebuild: the view holds nothing of theirs.
///
/// # Events that cannot be handled
/// They are treated as the projection's policy says: tried again while the error may pass, and then parked with what comes behind
/// them, or the end of the folding. What people have decided about letters holds, at whatever time they did so: a discarded event is
/// left out, an edited one is folded as it was edited. What is missing is among the [`letters`](Self::letters), which are those of
/// this view alone.
///
/// # Examples
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tidings::{App, Command, Event, Memory, Query, aggregate, projection};
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
/// #[derive(Query, Clone)]
/// #[query(reply = usize)]
/// struct SalesAbove { cents: i64 }
///
/// #[derive(Default)]
/// struct Sales(Vec<i64>);
///
/// #[projection(name = "sales", version = 1)]
/// impl Sales {
///     #[on]
///     fn sold(&mut self, event: &Sold) { self.0.push(event.cents) }
///
///     #[query]
///     fn above(&self, query: SalesAbove) -> usize {
///         self.0.iter().filter(|cents| **cents > query.cents).count()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let app = App::builder().store(Memory::new()).aggregate::<Till>().projection(Sales::default());
/// # let app = app.start().await?;
/// let first = app.send("1", Sell { cents: 250 }).await?;
/// let second = app.send("1", Sell { cents: 300 }).await?;
///
/// let then = app.as_of::<Sales>(first.position).await?;
/// assert_eq!(then.read().0, [250]);
/// assert_eq!(then.query(SalesAbove { cents: 200 }).await?, 1);
/// assert!(then.letters().is_empty());
///
/// let query = SalesAbove { cents: 200 };
/// let diff = app.diff::<Sales, _>(query, first.position, second.position).await?;
/// assert_eq!(diff.to_string(), ": 1 → 2");
/// # app.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub struct AsOf<P: Projection> {
    view: <P::Storage as Storage>::View<P>,
    answers: Answers,
    letters: Vec<Letter>,
    position: Position,
    app: App,
}

impl<P: Projection> AsOf<P> {
    pub(super) fn new(
        view: <P::Storage as Storage>::View<P>,
        answers: Answers,
        letters: Vec<Letter>,
        position: Position,
        app: App,
    ) -> Self {
        Self { view, answers, letters, position, app }
    }

    /// The position up to which every event is folded, or stands among the letters.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The events that are missing, since they could not be handled or wait behind such a one; each with its position and its
    /// errors.
    pub fn letters(&self) -> &[Letter] {
        &self.letters
    }

    /// Asks `query` of this view: the projection's own `#[query]` method answers it.
    ///
    /// # Errors
    /// [`QueryError`]; [`QueryError::Unanswered`] if this projection answers no such queries.
    ///
    /// # Cancel safety
    /// As that of [`App::query`].
    pub async fn query<Q: Query>(&self, query: Q) -> Result<Q::Reply, QueryError> {
        self.answers.ask(query, self.app.clone()).await
    }
}

impl<P: Projection> Deref for AsOf<P> {
    type Target = <P::Storage as Storage>::View<P>;

    fn deref(&self) -> &Self::Target {
        &self.view
    }
}

impl<P: Projection> fmt::Debug for AsOf<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsOf")
            .field("name", &P::NAME)
            .field("position", &self.position)
            .field("letters", &self.letters.len())
            .finish_non_exhaustive()
    }
}

/// Why a view as it was cannot be had. The one that serves is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AsOfError {
    /// The app has no such projection.
    #[error("projection {0} is not part of this app: give it to `App::builder().projection(…)`")]
    Unknown(&'static str),
    /// The log has not got so far.
    #[error("the log stands at position {head} and has no position {wanted} yet")]
    BeyondLog {
        /// The position that was asked for.
        wanted: Position,
        /// The position of its last event.
        head: Position,
    },
    /// It met what it may not pass: an event that cannot be handled, and the projection stops at such or has too many of them; or
    /// the log cannot be read, or the view not be written.
    #[error("projection {name} could not be folded beyond position {position}")]
    Stopped {
        /// The projection's name.
        name: &'static str,
        /// Every event up to here was folded.
        position: Position,
        /// What it met.
        #[source]
        trouble: Arc<Trouble>,
    },
    /// The view cannot be opened or read.
    #[error("the view of projection {name} as it was cannot be used")]
    View {
        /// The projection's name.
        name: &'static str,
        /// What is wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The log cannot be read, to find out where it stood at a time.
    #[error("the log cannot be read")]
    Log(#[source] StoreError),
    /// The runtime of who asks is shutting down.
    #[error("projection {0} is folded no further: the runtime of who asks is shutting down")]
    Ended(&'static str),
}
