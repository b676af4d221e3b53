//! Views in SQLite tables.
//!
//! All table projections of an app share one file beside the log. Each keeps its checkpoint there, and every transaction
//! moves rows, letters and checkpoint together, so each event affects the view exactly once over crash and restart.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use tracing::Span;

use super::{Handlers, PATIENCE, Projection, Storage, ViewError, Watching, private, reached};
use crate::actor::Panic;
use crate::app::{Building, Floor, StartError};
use crate::clock::Timestamp;
use crate::event::{Header, MemberOf};
use crate::letters::rows;
use crate::letters::shelf::{Change, Shelved};
use crate::processor::file::{self, Ahead, Declared, Entry, ViewsFile};
use crate::processor::{Chunk, Keeper, Progress};
use crate::projection::HandlerOutcome;
use crate::query::{Answers, IntoReply, Query, QueryContext, QueryError};
use crate::store::StoreError;
use crate::stream::Position;

/// How many positions may be passed without an event for this view before the checkpoint is written down all the same. They
/// are looked through again after a restart, which takes a few milliseconds.
const UNSAVED: u64 = 10_000;

/// A view in SQLite tables.
///
/// All views of an app share one database, so the names of their tables must differ. SQLite's integers are signed, so
/// `rusqlite` takes `i64` and `u32` but no `u64`.
///
/// # Examples
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings::sqlite::Transaction;
/// use tidings::sqlite::rusqlite::{Connection, Result};
/// use tidings::{App, Command, Event, Memory, aggregate, projection};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(name = "till.sold")]
/// struct Sold { cents: i64 }
///
/// #[derive(Command, Clone)]
/// struct Sell { cents: i64 }
///
/// #[derive(Default)]
/// struct Till;
///
/// #[aggregate(category = "till", events = TillEvent)]
/// impl Till {
///     #[command]
///     fn sell(&self, Sell { cents }: Sell) -> Sold { Sold { cents } }
///     #[apply]
///     fn sold(&mut self, _: &Sold) {}
/// }
///
/// struct Sales;
///
/// #[projection(name = "sales", version = 1, schema = "CREATE TABLE sales (cents INTEGER NOT NULL)")]
/// impl Sales {
///     #[on]
///     fn sold(&self, tx: &Transaction<'_>, event: &Sold) -> Result<usize> {
///         tx.execute("INSERT INTO sales VALUES (?1)", [event.cents])
///     }
///
///     fn total(db: &Connection) -> Result<i64> {
///         db.query_row("SELECT sum(cents) FROM sales", [], |row| row.get(0))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
/// let app = App::builder().store(Memory::new()).aggregate::<Till>().projection(Sales).start().await?;
/// let receipt = app.send("1", Sell { cents: 250 }).await?;
/// let sales = app.view::<Sales>().at_least(receipt.position).await?;
/// assert_eq!(sales.query(Sales::total).await?, 250);
/// app.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Tables;

impl Storage for Tables {
    type View<P: Projection<Storage = Self>> = TableView<P>;
}

impl private::Storage for Tables {
    type Target<P: Send + Sync + 'static> = Target<P>;
    type Reader<P: Send + Sync + 'static> = TableReader;

    fn start<P: Projection<Storage = Self>>(
        projection: P,
        building: &mut Building,
    ) -> Result<TableView<P>, StartError> {
        let mut handlers = Handlers::<P, Self>::of_projection();
        let file = building.views_file();
        let declared = Declared {
            name: P::NAME,
            version: P::VERSION,
            schema: handlers.schema.unwrap_or_default(),
            log_id: building.store.log_id(),
            head: building.head.borrow().position,
            ahead: Ahead::BuildAnew,
        };
        let (keeper, shelved) = TableKeeper::open(projection, &file, &declared)
            .map_err(|source| StartError::View { name: P::NAME, source })?;
        let progress = building.start_processor(Floor::Tables, keeper, shelved, &mut handlers)?;
        let anchor = file
            .anchor()
            .map_err(|error| StartError::View { name: P::NAME, source: file.failed(error) })?;
        let inner =
            TableViewInner { name: P::NAME, file, anchor, idle: Mutex::default(), progress };
        let view = TableView { inner: Arc::new(inner), projection: std::marker::PhantomData };
        handlers
            .answers
            .into_iter()
            .try_for_each(|answer| answer(&view.read(), &mut building.answers))?;
        Ok(view)
    }
}

impl<P: Projection<Storage = Tables>> Handlers<P, Tables> {
    /// The SQL that creates the view's tables, indexes and so on. It runs when the view is built, in an empty place: what
    /// it created before is dropped when it, or the projection's version, has changed.
    pub fn schema(&mut self, sql: &'static str) -> &mut Self {
        self.schema = Some(sql);
        self
    }

    /// Folds each event of type `E` with `handler`, which gets the projection, the transaction, the event and its header.
    ///
    /// The transaction holds many events and the checkpoint; the framework commits it.
    pub fn on<E, R>(
        &mut self,
        handler: impl Fn(&P, &Transaction<'_>, &E, &Header) -> R + Send + Sync + 'static,
    ) -> &mut Self
    where
        E: MemberOf,
        R: HandlerOutcome,
    {
        self.add(move |target: &mut Target<P>, event: &E, header: &Header| {
            let transaction = Transaction::new(&target.connection);
            handler(&target.projection, &transaction, event, header).into_result()
        })
    }
}

impl<P: Projection<Storage = Tables>> Handlers<P, Tables> {
    /// Answers each query of type `Q` with `handler`, which gets a connection and the query.
    ///
    /// It runs on a thread for waiting. The connection is read-only, and sees one state of the view throughout.
    pub fn answer<Q, R>(
        &mut self,
        handler: impl Fn(&Connection, Q) -> R + Send + Sync + 'static,
    ) -> &mut Self
    where
        Q: Query,
        R: IntoReply<Q::Reply>,
    {
        let handler = Arc::new(move |connection: &Connection, query: Q| {
            handler(connection, query).into_reply()
        });
        self.answers.push(Box::new(move |reader: &TableReader, answers: &mut Answers| {
            let inner = Arc::clone(&reader.inner);
            let progress = Some(inner.progress.clone());
            answers.add_answerer(progress, move |query: Q, context: QueryContext| {
                let handler = Arc::clone(&handler);
                answer(Arc::clone(&inner), query, context, handler)
            })
        }));
        self
    }
}

/// Answers `query` when the view holds its position.
async fn answer<Q: Query>(
    view: Arc<TableViewInner>,
    query: Q,
    context: QueryContext,
    handler: Arc<
        impl Fn(&Connection, Q) -> Result<Q::Reply, Box<dyn Error + Send + Sync>>
        + Send
        + Sync
        + 'static,
    >,
) -> Result<Q::Reply, QueryError> {
    let QueryContext { position, within, .. } = context;
    let asked = Instant::now();
    reached(view.name, view.progress.clone(), position, within)
        .await
        .map_err(QueryError::of_view::<Q>)?;
    let (reply, answer) = oneshot::channel();
    let span = Span::current();
    tokio::task::spawn_blocking(move || {
        // A query that has waited for its thread until nobody waited for it is not begun.
        if reply.is_closed() {
            return;
        }
        let answer =
            Panic::catch(|| span.in_scope(|| view.query(|connection| handler(connection, query))));
        // The caller may have gone away meanwhile.
        let _ = reply.send(QueryError::unless_answered::<Q, _>(answer));
    });
    match tokio::time::timeout(within.saturating_sub(asked.elapsed()), answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(QueryError::Failed {
            query: Q::NAME,
            source: "the runtime of who asks is shutting down".into(),
        }),
        Err(_) => Err(QueryError::TimedOut { query: Q::NAME, waited: within, view: None }),
    }
}

/// The transaction that a handler of a table projection writes in. Dereferences to its [`Connection`].
///
/// It holds the work of many events, and the checkpoint; the framework commits it. A handler that ends it stops its
/// projection.
#[derive(Debug)]
pub struct Transaction<'a> {
    connection: &'a Connection,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(connection: &'a Connection) -> Self {
        Self { connection }
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

/// What handlers of a table projection fold into.
pub struct Target<P> {
    projection: P,
    connection: Connection,
}

impl<P> fmt::Debug for Target<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").finish_non_exhaustive()
    }
}

struct TableKeeper<P> {
    name: &'static str,
    target: Target<P>,
    file: ViewsFile,
    /// What the file says.
    position: Position,
    time: Timestamp,
    replayed: Position,
}

impl<P: Projection> TableKeeper<P> {
    fn open(
        projection: P,
        file: &ViewsFile,
        declared: &Declared,
    ) -> Result<(Self, Shelved), StoreError> {
        let mut connection = file.open()?;
        let entry = Entry::prepare(&mut connection, file, declared)?;
        let shelved = rows::load(&connection, P::NAME).map_err(|error| file.failed(error))?;
        let Entry { position, time, replayed, .. } = entry;
        let target = Target { projection, connection };
        let keeper = Self { name: P::NAME, target, file: file.clone(), position, time, replayed };
        Ok((keeper, shelved))
    }

    /// Writes down, in the open transaction, what has changed and the checkpoint, and commits.
    fn commit(
        &self,
        position: Position,
        time: Timestamp,
        changes: &[Change],
    ) -> rusqlite::Result<()> {
        let connection = &self.target.connection;
        rows::save(connection, self.name, changes)?;
        file::save(connection, self.name, position, time)?;
        connection.execute_batch("COMMIT")
    }
}

impl<P: Projection> Keeper for TableKeeper<P> {
    type Target = Target<P>;

    /// A transaction costs some tens of microseconds, an event a few.
    const CHUNK: usize = 2_048;

    fn checkpoint(&self) -> (Position, Timestamp) {
        (self.position, self.time)
    }

    fn replayed(&self) -> Position {
        self.replayed
    }

    fn keep(
        &mut self,
        fold: &mut dyn FnMut(&mut Target<P>) -> Chunk,
    ) -> Result<Chunk, Box<dyn Error + Send + Sync>> {
        let file = self.file.clone();
        let _turn = file.turn();
        self.target.connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut chunk = fold(&mut self.target);
        if self.target.connection.is_autocommit() {
            chunk.ended = true;
            return Ok(chunk);
        }
        let passed = self.position.behind(chunk.through);
        let is_idle = chunk.time.is_none() && chunk.changes.is_empty() && passed < UNSAVED;
        if chunk.failure.is_some() || is_idle {
            chunk.changes.clear();
            self.target.connection.execute_batch("ROLLBACK")?;
            return Ok(chunk);
        }
        let (position, time) = (self.position.max(chunk.through), chunk.time.unwrap_or(self.time));
        if let Err(error) = self.commit(position, time, &chunk.changes) {
            if !self.target.connection.is_autocommit() {
                self.target.connection.execute_batch("ROLLBACK")?;
            }
            return Err(error.into());
        }
        (self.position, self.time) = (position, time);
        Ok(chunk)
    }

    fn close(&mut self, position: Position) -> Result<(), Box<dyn Error + Send + Sync>> {
        let _turn = self.file.turn();
        if position > self.position {
            file::save(&self.target.connection, self.name, position, self.time)?;
            self.position = position;
        }
        // Readers may outlive this connection, and only the last one empties the write-ahead log by itself.
        let empty = |_: &rusqlite::Row<'_>| Ok(());
        self.target.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], empty)?;
        Ok(())
    }
}

/// A view in tables, as the rest of the program reads it. Cloning is cheap.
pub struct TableView<P> {
    inner: Arc<TableViewInner>,
    projection: std::marker::PhantomData<fn() -> P>,
}

struct TableViewInner {
    name: &'static str,
    file: ViewsFile,
    #[expect(dead_code, reason = "it is there to be open")]
    anchor: Option<Mutex<Connection>>,
    /// Connections that wait for the next query.
    idle: Mutex<Vec<Connection>>,
    progress: watch::Receiver<Progress>,
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
    /// The view as it stands, which may be behind the log.
    pub fn read(&self) -> TableReader {
        TableReader { inner: Arc::clone(&self.inner) }
    }

    /// The view with everything up to `position` folded in. Waits for it, at most five seconds unless told otherwise with
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
    inner: Arc<TableViewInner>,
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
    fn query<T, E: From<rusqlite::Error>>(
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
