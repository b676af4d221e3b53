//! Views in tables, as the rest of the program reads them.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::watch;

use super::keeper::{ShadowFile, TableKeeper};
use crate::processor::Progress;
use crate::processor::file::ViewsFile;
use crate::projection::{PATIENCE, Projection, ViewError, Watching, reached};
use crate::store::StoreError;
use crate::stream::Position;

/// A view in tables, as the rest of the program reads it. Cloning is cheap.
pub struct TableView<P> {
    inner: Arc<TableViewInner>,
    projection: std::marker::PhantomData<fn() -> P>,
}

pub(super) struct TableViewInner {
    pub(super) name: &'static str,
    file: ViewsFile,
    #[expect(dead_code, reason = "it is there to be open")]
    anchor: Option<Mutex<Connection>>,
    /// Connections that wait for the next query.
    idle: Mutex<Vec<Connection>>,
    pub(super) progress: watch::Receiver<Progress>,
    /// The file, if it is there for this view alone; it goes when all connections are closed.
    _scratch: Option<ShadowFile>,
}

/// How many connections wait for the next query; more are closed after use.
const IDLE: usize = 4;

impl<P> Clone for TableView<P> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), projection: self.projection }
    }
}

impl<P> fmt::Debug for TableView<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self.inner.progress.borrow().position;
        f.debug_struct("TableView")
            .field("name", &self.inner.name)
            .field("position", &position)
            .finish_non_exhaustive()
    }
}

impl<P: Projection> TableView<P> {
    pub(super) fn new(
        file: ViewsFile,
        progress: watch::Receiver<Progress>,
    ) -> Result<Self, StoreError> {
        Self::open(file, progress, None)
    }

    /// A view of what `keeper` has folded, which is folded no further.
    pub(super) fn of_scratch(
        file: ViewsFile,
        progress: watch::Receiver<Progress>,
        mut keeper: TableKeeper<P>,
    ) -> Result<Self, StoreError> {
        // The keeper's connection stays open until this one is: a file in memory needs one.
        let scratch = keeper.shadow.take();
        Self::open(file, progress, scratch)
    }

    fn open(
        file: ViewsFile,
        progress: watch::Receiver<Progress>,
        scratch: Option<ShadowFile>,
    ) -> Result<Self, StoreError> {
        let anchor = file.anchor().map_err(|error| file.failed(error))?;
        let (name, idle) = (P::NAME, Mutex::default());
        let inner = TableViewInner { name, file, anchor, idle, progress, _scratch: scratch };
        Ok(Self { inner: Arc::new(inner), projection: std::marker::PhantomData })
    }

    /// The view as it stands, which may be behind the log.
    pub fn read(&self) -> TableReader {
        TableReader { inner: Arc::clone(&self.inner) }
    }

    /// The view with everything up to `position` folded in but what stands among its [letters](crate::Letters): an event that is
    /// parked, or waits behind one, is not waited for. Waits at most five seconds unless told otherwise with
    /// [`timeout`](TableAtLeast::timeout).
    ///
    /// # Errors
    /// - [`ViewError::TimedOut`]: the projection is further behind; ask again, or look at the app's status.
    /// - [`ViewError::Stopped`]: it stopped before the position.
    ///
    /// # Cancel safety
    /// Waiting changes nothing; it can be dropped at any time.
    pub fn at_least(&self, position: Position) -> TableAtLeast {
        TableAtLeast { reader: self.read(), position, patience: PATIENCE }
    }

    /// Watches the answer to `query`: yields it at once, and again whenever it has changed. It ends when the projection has
    /// stopped.
    ///
    /// The query runs as those of [`TableReader::query`], at most once for each move of the view. The last answer is kept, to
    /// compare. The errors are those of [`TableReader::query`]: yielded each time, and the query is run again when the view
    /// moves.
    ///
    /// # Examples
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use tidings::sqlite::Transaction;
    /// # use tidings::sqlite::rusqlite::{Connection, Result};
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
    /// # struct Sales;
    /// # #[projection(name = "sales", version = 1, schema = "CREATE TABLE sales (cents INTEGER NOT NULL)")]
    /// # impl Sales {
    /// #     #[on]
    /// #     fn sold(&self, tx: &Transaction<'_>, event: &Sold) -> Result<usize> {
    /// #         tx.execute("INSERT INTO sales VALUES (?1)", [event.cents])
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    /// # let app = App::builder().store(Memory::new()).aggregate::<Till>().projection(Sales).start().await?;
    /// let mut total = app.view::<Sales>().watch(|db: &Connection| {
    ///     db.query_row("SELECT coalesce(sum(cents), 0) FROM sales", [], |row| row.get::<_, i64>(0))
    /// });
    /// assert_eq!(total.next().await.transpose()?, Some(0));
    /// app.send("1", Sell { cents: 250 }).await?;
    /// assert_eq!(total.next().await.transpose()?, Some(250));
    /// # app.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch<T: Clone + PartialEq + Send + 'static>(
        &self,
        query: impl Fn(&Connection) -> rusqlite::Result<T> + Send + Sync + 'static,
    ) -> Watching<Result<T, ViewError>> {
        let (inner, query) = (Arc::clone(&self.inner), Arc::new(query));
        let answer = move || {
            let (reader, query) = (TableReader { inner: Arc::clone(&inner) }, Arc::clone(&query));
            async move { reader.query(move |connection| query(connection)).await }
        };
        Watching::new(P::NAME, [self.inner.progress.clone()], answer, |answer| answer)
    }
}

/// A read that waits for its position; await it.
#[must_use = "a read does nothing unless it is awaited"]
#[derive(Debug)]
pub struct TableAtLeast {
    reader: TableReader,
    position: Position,
    patience: Duration,
}

impl TableAtLeast {
    /// Waits for this long at most.
    pub fn timeout(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl IntoFuture for TableAtLeast {
    type Output = Result<TableReader, ViewError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let inner = &self.reader.inner;
            reached(inner.name, inner.progress.clone(), self.position, self.patience).await?;
            Ok(self.reader)
        })
    }
}

/// A view in tables that can be queried.
pub struct TableReader {
    pub(super) inner: Arc<TableViewInner>,
}

impl fmt::Debug for TableReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableReader").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl TableReader {
    /// Runs `query` on a thread for waiting, with a read-only connection that sees one state of the view throughout.
    ///
    /// # Errors
    /// [`ViewError::Query`] with what `query` or the database says.
    ///
    /// # Cancel safety
    /// Dropped, the query still runs to its end; its answer is lost.
    pub async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ViewError> {
        let inner = Arc::clone(&self.inner);
        let failed = |source: Arc<dyn Error + Send + Sync>| ViewError::Query {
            name: self.inner.name,
            source,
        };
        tokio::task::spawn_blocking(move || inner.query(query))
            .await
            .map_err(|error| failed(Arc::new(error)))?
            .map_err(|error| failed(Arc::new(error)))
    }
}

impl TableViewInner {
    pub(super) fn query<T, E: From<rusqlite::Error>>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.file.read_only()?,
        };
        connection.execute_batch("BEGIN")?;
        let answer = query(&connection);
        // A query may have ended the transaction itself.
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK")?;
        }
        let mut idle = self.idle.lock();
        if idle.len() < IDLE {
            idle.push(connection);
        }
        answer
    }
}
