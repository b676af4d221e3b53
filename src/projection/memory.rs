//! Views in memory.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::ready;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::{ArcRwLockReadGuard, Mutex, RawRwLock, RwLock};
use tokio::sync::watch;

use super::rebuild::Rebuilds;
use super::{
    AsOf, AsOfError, Handlers, PATIENCE, Projection, Storage, ViewError, Watching, private, reached,
};
use crate::actor::Panic;
use crate::app::{App, Building, Floor, StartError};
use crate::clock::Timestamp;
use crate::event::{Header, MemberOf};
use crate::letters::shelf::{Change, Shelf, Shelved};
use crate::processor::ledger::Ledger;
use crate::processor::rebuild::{Begun, FoldedView, Old, Replaced, Shadow, Workshop};
use crate::processor::{Chunk, Keeper, Progress, RebuildError};
use crate::projection::HandlerOutcome;
use crate::query::{Answers, IntoReply, Query, QueryContext, QueryError};
use crate::stream::Position;

/// A view in memory: the projection itself, read while it folds.
#[derive(Debug, Clone, Copy)]
pub struct InMemory;

impl Storage for InMemory {
    type View<P: Projection<Storage = Self>> = View<P>;
}

impl private::Storage for InMemory {
    type Target<P: Send + Sync + 'static> = P;
    type Reader<P: Send + Sync + 'static> = View<P>;

    fn start<P: Projection<Storage = Self>>(
        projection: P,
        building: &mut Building,
    ) -> Result<(View<P>, Arc<dyn Rebuilds<P>>), StartError> {
        let mut handlers = Handlers::<P, Self>::of_projection();
        let folded = Arc::new(RwLock::new(Folded {
            projection,
            position: Position::START,
            time: Timestamp::default(),
        }));
        let (ledger, begin) = Ledger::open(building, P::NAME, P::VERSION)
            .map_err(|source| StartError::View { name: P::NAME, source })?;
        let replayed = building.head.borrow().position;
        let kept = Slot::<P>::default();
        let keeper = MemoryKeeper {
            folded: Arc::clone(&folded),
            ledger: Some(ledger),
            replayed,
            kept: Arc::clone(&kept),
            comes_from: None,
        };
        let (floor, shelved) = (Floor::Projections, begin.shelved);
        let (progress, workshop) =
            building.start_processor(floor, keeper, shelved, &mut handlers, false)?;
        let view = View { folded, progress };
        handlers.answers.into_iter().try_for_each(|answer| answer(&view, &mut building.answers))?;
        Ok((view, Arc::new(MemoryRebuilds { workshop, kept })))
    }
}

/// How views in memory are built anew.
struct MemoryRebuilds<P: Projection<Storage = InMemory>> {
    workshop: Workshop<MemoryKeeper<P>>,
    kept: Slot<P>,
}

impl<P: Projection<Storage = InMemory>> MemoryRebuilds<P> {
    fn begin(
        &self,
        old: Old,
        kept: impl FnOnce(&Slot<P>) -> Option<Kept<P>> + Send + 'static,
    ) -> Result<Begun, RebuildError> {
        let slot = Arc::clone(&self.kept);
        self.workshop.begin(old, move || {
            let Kept { folded, letters } = kept(&slot).ok_or(RebuildError::NothingKept(P::NAME))?;
            let is_kept = folded.read().position > Position::START;
            let shelf = Arc::new(Shelf::new(letters.into_iter().collect()));
            let comes_from = is_kept.then(|| Arc::clone(&shelf));
            let replayed = Position::new(u64::MAX);
            let keeper = MemoryKeeper { folded, ledger: None, replayed, kept: slot, comes_from };
            let sources = Handlers::<P, InMemory>::of_projection()
                .take_sources()
                .map_err(|error| RebuildError::View { name: P::NAME, source: error.into() })?;
            Ok(Shadow { keeper, sources, shelf })
        })
    }
}

impl<P: Projection<Storage = InMemory>> Rebuilds<P> for MemoryRebuilds<P> {
    fn rebuild(&self, projection: P, old: Old) -> Result<Begun, RebuildError> {
        let (position, time) = (Position::START, Timestamp::default());
        let folded = Arc::new(RwLock::new(Folded { projection, position, time }));
        self.begin(old, |_| Some(Kept { folded, letters: Vec::new() }))
    }

    fn switch_back(&self, old: Old) -> Result<Begun, RebuildError> {
        self.begin(old, |slot| slot.lock().take())
    }

    fn as_of(
        &self,
        projection: P,
        until: Position,
        app: App,
    ) -> BoxFuture<'static, Result<AsOf<P>, AsOfError>> {
        let unusable =
            |source: Box<dyn Error + Send + Sync>| AsOfError::View { name: P::NAME, source };
        let make = move || {
            let (position, time) = (Position::START, Timestamp::default());
            let folded = Arc::new(RwLock::new(Folded { projection, position, time }));
            let replayed = Position::new(u64::MAX);
            let (kept, comes_from) = (Slot::default(), None);
            let keeper = MemoryKeeper { folded, ledger: None, replayed, kept, comes_from };
            let sources = Handlers::<P, InMemory>::of_projection()
                .take_sources()
                .map_err(|error| unusable(error.into()))?;
            Ok(Shadow { keeper, sources, shelf: Arc::new(Shelf::new(Shelved::default())) })
        };
        let folding = self.workshop.as_of(until, make, move |keeper, progress| {
            // What was passed without an event for it counts as well.
            keeper.folded.write().position = until;
            Ok(View { folded: Arc::clone(&keeper.folded), progress })
        });
        Box::pin(async move {
            let FoldedView { made: view, letters } = folding.await?;
            let answers = Handlers::<P, InMemory>::answers(&view);
            let answers = answers.map_err(|error| unusable(error.into()))?;
            Ok(AsOf::new(view, answers, letters, until, app))
        })
    }

    fn cancel(&self) -> bool {
        self.workshop.cancel()
    }

    fn drop_kept(&self) -> bool {
        self.kept.lock().take().is_some()
    }
}

impl<P: Projection<Storage = InMemory>> Handlers<P, InMemory> {
    /// Folds each event of type `E` with `handler`, which gets the view, the event and its header.
    pub fn on<E, R>(
        &mut self,
        handler: impl Fn(&mut P, &E, &Header) -> R + Send + Sync + 'static,
    ) -> &mut Self
    where
        E: MemberOf,
        R: HandlerOutcome,
    {
        self.add(move |view: &mut P, event: &E, header: &Header| {
            handler(view, event, header).into_result()
        })
    }
}

impl<P: Projection<Storage = InMemory>> Handlers<P, InMemory> {
    /// Answers each query of type `Q` with `handler`, which gets the view and the query.
    ///
    /// While it runs this projection cannot fold, and other readers may have to wait.
    pub fn answer<Q, R>(
        &mut self,
        handler: impl Fn(&P, Q) -> R + Send + Sync + 'static,
    ) -> &mut Self
    where
        Q: Query,
        R: IntoReply<Q::Reply>,
    {
        let handler = Arc::new(handler);
        self.answers.push(Box::new(move |view: &View<P>, answers: &mut Answers| {
            let view = view.clone();
            let progress = Some(view.progress.clone());
            answers.add_answerer(progress, move |query: Q, context: QueryContext| {
                let (view, handler) = (view.clone(), Arc::clone(&handler));
                async move {
                    reached(P::NAME, view.progress.clone(), context.position, context.within)
                        .await
                        .map_err(QueryError::of_view::<Q>)?;
                    let handled = Panic::catch(|| handler(&view.read(), query).into_reply());
                    QueryError::unless_answered::<Q, _>(handled)
                }
            })
        }));
        self
    }
}

struct Folded<P> {
    projection: P,
    position: Position,
    time: Timestamp,
}

/// A view that was replaced, with its letters.
struct Kept<P> {
    folded: Arc<RwLock<Folded<P>>>,
    letters: Vec<Change>,
}

type Slot<P> = Arc<Mutex<Option<Kept<P>>>>;

struct MemoryKeeper<P> {
    folded: Arc<RwLock<Folded<P>>>,
    /// None for a shadow, which has nothing to write down.
    ledger: Option<Ledger>,
    replayed: Position,
    /// Where a view that is replaced is kept.
    kept: Slot<P>,
    /// The letters of a shadow that was kept there, to which it goes back unless it is used.
    comes_from: Option<Arc<Shelf>>,
}

impl<P> Drop for MemoryKeeper<P> {
    fn drop(&mut self) {
        if let Some(shelf) = self.comes_from.take() {
            let (folded, letters) = (Arc::clone(&self.folded), shelf.read().all());
            self.kept.lock().get_or_insert(Kept { folded, letters });
        }
    }
}

impl<P: Send + Sync + 'static> Keeper for MemoryKeeper<P> {
    type Target = P;

    /// How long a reader may have to wait for the fold: some tens of microseconds.
    const CHUNK: usize = 256;

    /// Nobody reads a shadow.
    fn chunk(&self) -> usize {
        if self.ledger.is_some() { Self::CHUNK } else { usize::MAX }
    }

    /// Waits a millisecond at most: a guard that is held for long must not hold up the other projections of the thread.
    fn is_free(&self) -> bool {
        self.folded.try_write_for(Duration::from_millis(1)).is_some()
    }

    fn checkpoint(&self) -> (Position, Timestamp) {
        let folded = self.folded.read();
        (folded.position, folded.time)
    }

    fn replayed(&self) -> Position {
        self.replayed
    }

    /// What is folded cannot be taken back. A letter that cannot be written down is kept in memory alone; after a restart its event
    /// is folded again, and fails again. What a person has decided is written down, or does not count.
    fn keep(
        &mut self,
        fold: &mut dyn FnMut(&mut P) -> Chunk,
    ) -> Result<Chunk, Box<dyn Error + Send + Sync>> {
        let mut folded = self.folded.write();
        let chunk = fold(&mut folded.projection);
        folded.position = folded.position.max(chunk.through);
        folded.time = chunk.time.unwrap_or(folded.time);
        drop(folded);
        if let Some(ledger) = &mut self.ledger
            && let Err(error) = ledger.save(None, &chunk.changes)
        {
            // Nothing is folded together with it, and it counts once it is written down.
            if chunk.changes.iter().any(|change| matches!(change, Change::Resolve(_))) {
                return Err(error);
            }
            tracing::error!(%error, "letters of a view in memory cannot be written down");
        }
        Ok(chunk)
    }

    fn close(&mut self, _: Position) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }

    /// Letters that cannot be written down are kept in memory alone, as above.
    fn install(
        &mut self,
        shadow: &mut Self,
        at: (Position, Timestamp),
        letters: &[Change],
        replaced: Replaced,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        shadow.comes_from = None;
        {
            let (mut ours, mut theirs) = (self.folded.write(), shadow.folded.write());
            std::mem::swap(&mut *ours, &mut *theirs);
            (ours.position, ours.time) = at;
        }
        if let Replaced::Kept(letters) = replaced {
            let folded = Arc::clone(&shadow.folded);
            *self.kept.lock() = Some(Kept { folded, letters });
        }
        if let Some(ledger) = &mut self.ledger
            && let Err(error) = ledger.replace(letters)
        {
            tracing::error!(error, "letters of a view in memory cannot be written down");
        }
        Ok(())
    }
}

/// A view in memory, as the rest of the program reads it. Cloning is cheap.
pub struct View<P> {
    folded: Arc<RwLock<Folded<P>>>,
    progress: watch::Receiver<Progress>,
}

impl<P> Clone for View<P> {
    fn clone(&self) -> Self {
        Self { folded: Arc::clone(&self.folded), progress: self.progress.clone() }
    }
}

impl<P: Projection> fmt::Debug for View<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self.progress.borrow().position;
        f.debug_struct("View")
            .field("name", &P::NAME)
            .field("position", &position)
            .finish_non_exhaustive()
    }
}

impl<P: Projection> View<P> {
    /// The view as it stands, which may be behind the log.
    ///
    /// While the guard lives this projection cannot fold, and other readers may have to wait: read what you need and drop it,
    /// before the next `.await`.
    pub fn read(&self) -> ViewRef<P> {
        ViewRef { folded: RwLock::read_arc(&self.folded) }
    }

    /// The view with everything up to `position` folded in but what stands among its [letters](crate::Letters): an event that is
    /// parked, or waits behind one, is not waited for. Waits at most five seconds unless told otherwise with
    /// [`timeout`](AtLeast::timeout).
    ///
    /// # Errors
    /// - [`ViewError::TimedOut`]: the projection is further behind; ask again, or look at the app's status.
    /// - [`ViewError::Stopped`]: it stopped before the position.
    ///
    /// # Cancel safety
    /// Waiting changes nothing; it can be dropped at any time.
    pub fn at_least(&self, position: Position) -> AtLeast<P> {
        AtLeast { view: self.clone(), position, patience: PATIENCE }
    }

    /// Watches the answer to `query`: yields it at once, and again whenever it has changed. It ends when the projection has
    /// stopped.
    ///
    /// The query runs in the task that asks for the next answer, at most once for each move of the view; while it runs this
    /// projection cannot fold. The last answer is kept, to compare.
    ///
    /// # Examples
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use tidings::{App, Command, Event, Memory, aggregate, projection};
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
    /// let app = App::builder().store(Memory::new()).aggregate::<Till>().projection(Sales::default());
    /// let app = app.start().await?;
    /// let mut total = app.view::<Sales>().watch(|sales: &Sales| sales.cents);
    /// assert_eq!(total.next().await, Some(0));
    /// app.send("1", Sell { cents: 250 }).await?;
    /// assert_eq!(total.next().await, Some(250));
    /// app.shutdown().await?;
    /// assert_eq!(total.next().await, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch<T: Clone + PartialEq + Send + 'static>(
        &self,
        mut query: impl FnMut(&P) -> T + Send + 'static,
    ) -> Watching<T> {
        let view = self.clone();
        let answer = move || ready(Ok::<T, Infallible>(query(&view.read())));
        Watching::new(P::NAME, [self.progress.clone()], answer, |Ok(answer)| answer)
    }
}

/// A read that waits for its position; await it.
#[must_use = "a read does nothing unless it is awaited"]
pub struct AtLeast<P> {
    view: View<P>,
    position: Position,
    patience: Duration,
}

impl<P> AtLeast<P> {
    /// Waits for this long at most.
    pub fn timeout(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl<P> fmt::Debug for AtLeast<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtLeast")
            .field("position", &self.position)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

impl<P: Projection> IntoFuture for AtLeast<P> {
    type Output = Result<ViewRef<P>, ViewError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let progress = self.view.progress.clone();
            reached(P::NAME, progress, self.position, self.patience).await?;
            Ok(self.view.read())
        })
    }
}

/// A view that is being read. Dereferences to the projection.
pub struct ViewRef<P> {
    folded: ArcRwLockReadGuard<RawRwLock, Folded<P>>,
}

impl<P> ViewRef<P> {
    /// The position up to which every event is folded into what is read here.
    pub fn position(&self) -> Position {
        self.folded.position
    }
}

impl<P> Deref for ViewRef<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.folded.projection
    }
}

impl<P> fmt::Debug for ViewRef<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewRef").field("position", &self.position()).finish_non_exhaustive()
    }
}
