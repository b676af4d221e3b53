//! Building a view in tables anew: in a file of its own, which is copied into the one that is read.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use tracing::warn;

use super::keeper::{ShadowFile, TableKeeper};
use super::{TableView, Tables};
use crate::app::App;
use crate::letters::shelf::Shelf;
use crate::processor::RebuildError;
use crate::processor::file::{Declared, Outdated, ViewsFile};
use crate::processor::rebuild::{Begun, FoldedView, Old, Shadow, Workshop};
use crate::projection::rebuild::Rebuilds;
use crate::projection::{AsOf, AsOfError, Handlers, Projection};
use crate::store::StoreError;
use crate::stream::Position;

/// How the view of `P` is built anew.
pub(super) struct TableRebuilds<P: Projection<Storage = Tables>> {
    pub(super) workshop: Workshop<TableKeeper<P>>,
    pub(super) file: ViewsFile,
    /// Holds the view that was replaced.
    pub(super) kept: ViewsFile,
    pub(super) declared: Declared,
    /// The one that the app was started with.
    pub(super) projection: Arc<P>,
    /// Events up to here were handled by the view that another version of the program has left, or were a replay to it.
    pub(super) handled: Position,
}

/// What views are called that are folded to be looked at, with a number behind it.
pub(super) const SCRATCH: &str = "as-of-";

/// How many of them this process has begun.
static SCRATCHES: AtomicU64 = AtomicU64::new(1);

/// Where a shadow begins.
enum From {
    Start,
    Kept,
}

impl<P: Projection<Storage = Tables>> TableRebuilds<P> {
    /// Builds the view of this version, while that of another version is read.
    pub(super) fn replace_outdated(&self, old: Old) -> Result<(), StoreError> {
        let failed = |source: Box<dyn Error + Send + Sync>| StoreError::Failed {
            place: self.file.to_string(),
            source,
        };
        let kept = self.kept_fits().map_err(|error| failed(error.into()))?;
        let from = if kept { From::Kept } else { From::Start };
        warn!(
            projection = P::NAME,
            position = %self.handled,
            kept,
            "its version has changed: the old view is read until the new one is level"
        );
        // Nobody waits for it; its end shows in the status.
        self.begin(Arc::clone(&self.projection), from, old)
            .map(drop)
            .map_err(|error| failed(error.into()))
    }

    fn kept_fits(&self) -> rusqlite::Result<bool> {
        let Declared { name, version, schema, log_id, .. } = self.declared;
        let head = self.workshop.head.borrow().position;
        let kept = self.kept.holds(name, log_id)?;
        Ok(kept.is_some_and(|kept| kept.fits(version, schema) && kept.position <= head))
    }

    fn begin(&self, projection: Arc<P>, from: From, old: Old) -> Result<Begun, RebuildError> {
        let shadow = self.file.beside(P::NAME, "shadow");
        let (kept, head) = (self.kept.clone(), self.workshop.head.borrow().position);
        let declared = Declared { head, outdated: Outdated::BuildAnew, ..self.declared };
        // Nobody has handled what an outdated view has not reached.
        let replayed = match self.workshop.is_outdated() {
            true => self.handled,
            false => Position::new(u64::MAX),
        };
        let unusable =
            |source: Box<dyn Error + Send + Sync>| RebuildError::View { name: P::NAME, source };
        self.workshop.begin(old, move || {
            let shadow = ShadowFile(shadow);
            shadow.0.remove().map_err(|error| unusable(error.into()))?;
            if let From::Kept = from {
                kept.copy_to(&shadow.0).map_err(unusable)?;
            }
            let (keeper, shelved) =
                TableKeeper::open_shadow(projection, shadow, &declared, replayed)
                    .map_err(|error| unusable(error.into()))?;
            let sources = Handlers::<P, Tables>::of_projection()
                .take_sources()
                .map_err(|error| unusable(error.into()))?;
            Ok(Shadow { keeper, sources, shelf: Arc::new(Shelf::new(shelved)) })
        })
    }
}

impl<P: Projection<Storage = Tables>> Rebuilds<P> for TableRebuilds<P> {
    fn rebuild(&self, projection: P, old: Old) -> Result<Begun, RebuildError> {
        self.begin(Arc::new(projection), From::Start, old)
    }

    fn switch_back(&self, old: Old) -> Result<Begun, RebuildError> {
        match self.kept_fits() {
            Ok(true) => self.begin(Arc::clone(&self.projection), From::Kept, old),
            Ok(false) => Err(RebuildError::NothingKept(P::NAME)),
            Err(error) => Err(RebuildError::View { name: P::NAME, source: error.into() }),
        }
    }

    fn as_of(
        &self,
        projection: P,
        until: Position,
        app: App,
    ) -> BoxFuture<'static, Result<AsOf<P>, AsOfError>> {
        let unusable =
            |source: Box<dyn Error + Send + Sync>| AsOfError::View { name: P::NAME, source };
        // Each has a file of its own: several may be looked at together.
        let number = SCRATCHES.fetch_add(1, Ordering::Relaxed);
        let file = self.file.beside(P::NAME, &format!("{SCRATCH}{number}"));
        let head = self.workshop.head.borrow().position;
        let declared = Declared { head, outdated: Outdated::BuildAnew, ..self.declared };
        let scratch = file.clone();
        let make = move || {
            let scratch = ShadowFile(scratch);
            scratch.0.remove().map_err(|error| unusable(error.into()))?;
            let projection = Arc::new(projection);
            let all = Position::new(u64::MAX);
            let (keeper, shelved) = TableKeeper::open_shadow(projection, scratch, &declared, all)
                .map_err(|error| unusable(error.into()))?;
            let sources = Handlers::<P, Tables>::of_projection()
                .take_sources()
                .map_err(|error| unusable(error.into()))?;
            Ok(Shadow { keeper, sources, shelf: Arc::new(Shelf::new(shelved)) })
        };
        let folding = self.workshop.as_of(until, make, move |keeper, progress| {
            TableView::of_scratch(file, progress, keeper).map_err(|error| unusable(error.into()))
        });
        Box::pin(async move {
            let FoldedView { made: view, letters } = folding.await?;
            let answers = Handlers::<P, Tables>::answers(&view.read());
            let answers = answers.map_err(|error| unusable(error.into()))?;
            Ok(AsOf::new(view, answers, letters, until, app))
        })
    }

    fn cancel(&self) -> bool {
        self.workshop.cancel()
    }

    fn drop_kept(&self) -> bool {
        let was_kept = self.kept.exists();
        if let Err(error) = self.kept.remove() {
            warn!(%error, file = %self.kept, "a view that was kept cannot be removed");
            return false;
        }
        was_kept
    }
}
