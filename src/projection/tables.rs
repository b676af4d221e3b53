//! Views in SQLite tables.
//!
//! All table projections of an app share one file beside the log. Each keeps its checkpoint there, and every transaction
//! moves rows and checkpoint together, so each event affects the view exactly once over crash and restart. The file is in
//! WAL mode with `synchronous=NORMAL`: after a power cut it may be a little older, and folds those events again.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tokio::sync::{oneshot, watch};
use tracing::{Span, info, warn};
use uuid::Uuid;

use super::{Handlers, PATIENCE, Projection, Storage, ViewError, Watching, private, reached};
use crate::actor::Panic;
use crate::app::{Building, Floor, StartError};
use crate::clock::Timestamp;
use crate::event::{Header, MemberOf};
use crate::processor::{Chunk, Keeper, Progress, Trouble};
use crate::projection::HandlerOutcome;
use crate::query::{Answers, IntoReply, Query, QueryContext, QueryError};
use crate::store::StoreError;
use crate::stream::Position;

/// What marks a file as a file of views: "TIDV".
const APPLICATION_ID: i64 = 0x5449_4456;

/// The format of the file's own table.
const FORMAT: i64 = 1;

/// How many positions may be passed without an event for this view before the checkpoint is written down all the same. They
/// are looked through again after a restart, which takes a few milliseconds.
const UNSAVED: u64 = 10_000;

/// How long a write waits for another program that writes to the file, before the projection says that it tries again.
const BUSY: Duration = Duration::from_secs(1);

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
        let Handlers { sources, twice, answers, schema, .. } = Handlers::<P, Self>::of_projection();
        let file = ViewsFile::beside(building);
        let head = building.head.borrow().position;
        let keeper = TableKeeper::open(
            projection,
            &file,
            schema.unwrap_or_default(),
            building.store.log_id(),
            head,
        )
        .map_err(|source| StartError::View { name: P::NAME, source })?;
        let progress = building.start_processor::<P, _>(Floor::Tables, keeper, sources, &twice)?;
        let anchor = file
            .anchor()
            .map_err(|error| StartError::View { name: P::NAME, source: file.failed(error) })?;
        let inner =
            TableViewInner { name: P::NAME, file, anchor, idle: Mutex::default(), progress };
        let view = TableView { inner: Arc::new(inner), projection: std::marker::PhantomData };
        answers.into_iter().try_for_each(|answer| answer(&view.read(), &mut building.answers))?;
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
            let transaction = Transaction { connection: &target.connection };
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

/// Where views are kept.
#[derive(Debug, Clone)]
enum ViewsFile {
    Path(PathBuf),
    /// In memory, under the log's identity, for as long as a connection is open.
    Memory(Uuid),
}

impl ViewsFile {
    fn beside(building: &Building) -> Self {
        match building.views_path() {
            Some(path) => Self::Path(path),
            None => Self::Memory(building.store.log_id()),
        }
    }

    fn connect(&self, access: OpenFlags) -> rusqlite::Result<Connection> {
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match self {
            Self::Path(path) => Connection::open_with_flags(path, flags)?,
            Self::Memory(log) => Connection::open_with_flags(
                Path::new(&format!("file:/tidings-views-{log}?vfs=memdb")),
                flags | OpenFlags::SQLITE_OPEN_URI,
            )?,
        };
        connection.busy_timeout(BUSY)?;
        Ok(connection)
    }

    /// A connection that keeps views in memory alive when their projections have ended.
    fn anchor(&self) -> rusqlite::Result<Option<Mutex<Connection>>> {
        match self {
            Self::Path(_) => Ok(None),
            Self::Memory(_) => {
                self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY).map(|open| Some(Mutex::new(open)))
            }
        }
    }

    /// Opens the file for writing, and makes it one of views if it is new.
    fn open(&self) -> Result<Connection, StoreError> {
        let access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = self.connect(access).map_err(|error| self.failed(error))?;
        let number = |pragma: &str| {
            connection
                .pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
                .map_err(|error| self.failed(error))
        };
        let (application, format) = (number("application_id")?, number("user_version")?);
        let tables = objects(&connection).map_err(|error| self.failed(error))?;
        // A file without stamps and tables is new, or was begun by a program that was killed.
        let is_new = (application, format) == (0, 0) && tables.is_empty();
        if !is_new && application != APPLICATION_ID {
            return Err(StoreError::Foreign { place: self.to_string(), kind: "file of views" });
        }
        if !is_new && format != FORMAT {
            return Err(StoreError::Format {
                place: self.to_string(),
                found: format,
                known: FORMAT,
                advice: "delete the file to have its views built anew from the log",
            });
        }
        let begin = |connection: &mut Connection| {
            connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            transaction.execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID};
                 PRAGMA user_version = {FORMAT};
                 CREATE TABLE IF NOT EXISTS tidings_views (
                     name TEXT PRIMARY KEY,
                     version INTEGER NOT NULL,
                     schema TEXT NOT NULL,
                     created TEXT NOT NULL,
                     log_id BLOB NOT NULL,
                     position INTEGER NOT NULL,
                     time INTEGER NOT NULL
                 ) WITHOUT ROWID;"
            ))?;
            transaction.commit()
        };
        begin(&mut connection).map_err(|error| self.failed(error))?;
        Ok(connection)
    }

    fn failed(&self, error: rusqlite::Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => {
                StoreError::Foreign { place: self.to_string(), kind: "file of views" }
            }
            _ => StoreError::Failed { place: self.to_string(), source: error.into() },
        }
    }
}

impl fmt::Display for ViewsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Memory(_) => f.write_str("the views in memory"),
        }
    }
}

struct TableKeeper<P> {
    name: &'static str,
    target: Target<P>,
    /// What the file says.
    position: Position,
    time: Timestamp,
}

impl<P: Projection> TableKeeper<P> {
    fn open(
        projection: P,
        file: &ViewsFile,
        schema: &str,
        log_id: Uuid,
        head: Position,
    ) -> Result<Self, StoreError> {
        let mut connection = file.open()?;
        let view = View::prepare::<P>(&mut connection, schema, log_id, head)
            .map_err(|error| file.failed(error))?;
        if view.log_id != log_id {
            return Err(StoreError::Foreign {
                place: file.to_string(),
                kind: "file of views of this log",
            });
        }
        let target = Target { projection, connection };
        Ok(Self { name: P::NAME, target, position: view.position, time: view.time })
    }

    /// Writes the checkpoint down, in the open transaction.
    fn save(&self, position: Position, time: Timestamp) -> rusqlite::Result<()> {
        self.target
            .connection
            .prepare_cached("UPDATE tidings_views SET position = ?2, time = ?3 WHERE name = ?1")?
            .execute(params![self.name, position.as_u64() as i64, time.as_micros() as i64])?;
        Ok(())
    }
}

/// What the file knows of a view.
struct View {
    version: u32,
    schema: String,
    created: Vec<(String, String)>,
    log_id: Uuid,
    position: Position,
    time: Timestamp,
}

impl View {
    /// Finds the view, or builds its tables if it is new or its past is of no use. If the file belongs to another log, it is
    /// left as it is, and one of that log's views is returned.
    fn prepare<P: Projection>(
        connection: &mut Connection,
        schema: &str,
        log_id: Uuid,
        head: Position,
    ) -> rusqlite::Result<Self> {
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        if let Some(stranger) = Self::find(&transaction, "log_id <> ?1", log_id.as_bytes())? {
            return Ok(stranger);
        }
        if let Some(view) = Self::find(&transaction, "name = ?1", P::NAME)? {
            let reason = if view.version != P::VERSION {
                "its version has changed"
            } else if view.schema != schema {
                "its schema has changed"
            } else if view.position > head {
                "it is ahead of the log, which must be an older copy"
            } else {
                return Ok(view);
            };
            warn!(projection = P::NAME, position = %view.position, reason, "the view is built anew");
            for (kind, name) in view.created.iter().rev() {
                let name = name.replace('"', "\"\"");
                transaction.execute_batch(&format!("DROP {kind} IF EXISTS \"{name}\""))?;
            }
            transaction.execute("DELETE FROM tidings_views WHERE name = ?1", [P::NAME])?;
        } else {
            info!(projection = P::NAME, "the view is built");
        }
        let before = objects(&transaction)?;
        transaction.execute_batch(schema)?;
        let mut created = objects(&transaction)?;
        created.retain(|object| !before.contains(object));
        let view = Self {
            version: P::VERSION,
            schema: schema.to_owned(),
            created,
            log_id,
            position: Position::START,
            time: Timestamp::default(),
        };
        transaction.execute(
            "INSERT INTO tidings_views VALUES (?1, ?2, ?3, ?4, ?5, 0, 0)",
            params![
                P::NAME,
                view.version,
                view.schema,
                serde_json::to_string(&view.created)
                    .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?,
                view.log_id.as_bytes(),
            ],
        )?;
        transaction.commit()?;
        Ok(view)
    }

    /// The first view in the file of which `condition` holds.
    fn find(
        connection: &Connection,
        condition: &str,
        value: impl rusqlite::ToSql,
    ) -> rusqlite::Result<Option<Self>> {
        connection
            .query_row(
                &format!(
                    "SELECT version, schema, created, log_id, position, time FROM tidings_views
                     WHERE {condition} LIMIT 1"
                ),
                [value],
                |row| {
                    let created: String = row.get(2)?;
                    Ok(Self {
                        version: row.get(0)?,
                        schema: row.get(1)?,
                        created: serde_json::from_str(&created).map_err(|error| {
                            rusqlite::Error::FromSqlConversionFailure(
                                2,
                                rusqlite::types::Type::Text,
                                error.into(),
                            )
                        })?,
                        log_id: Uuid::from_bytes(row.get(3)?),
                        position: Position::new(row.get::<_, i64>(4)? as u64),
                        time: Timestamp::from_micros(row.get::<_, i64>(5)? as u64),
                    })
                },
            )
            .optional()
    }
}

/// Everything that a schema can create, by kind and name.
fn objects(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    connection
        .prepare(
            "SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

impl<P: Projection> Keeper for TableKeeper<P> {
    type Target = Target<P>;

    /// A transaction costs some tens of microseconds, an event a few.
    const CHUNK: usize = 2_048;

    fn checkpoint(&self) -> (Position, Timestamp) {
        (self.position, self.time)
    }

    fn keep(
        &mut self,
        fold: &mut dyn FnMut(&mut Target<P>) -> Chunk,
    ) -> Result<Chunk, Box<dyn Error + Send + Sync>> {
        self.target.connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut chunk = fold(&mut self.target);
        if self.target.connection.is_autocommit() {
            chunk.failure = Some(Trouble::EndedTransaction);
            return Ok(chunk);
        }
        let passed = self.position.behind(chunk.through);
        if chunk.failure.is_some() || (chunk.time.is_none() && passed < UNSAVED) {
            self.target.connection.execute_batch("ROLLBACK")?;
            return Ok(chunk);
        }
        let (position, time) = (self.position.max(chunk.through), chunk.time.unwrap_or(self.time));
        let saved =
            self.save(position, time).and_then(|()| self.target.connection.execute_batch("COMMIT"));
        if let Err(error) = saved {
            if !self.target.connection.is_autocommit() {
                self.target.connection.execute_batch("ROLLBACK")?;
            }
            return Err(error.into());
        }
        (self.position, self.time) = (position, time);
        Ok(chunk)
    }

    fn close(&mut self, position: Position) -> Result<(), Box<dyn Error + Send + Sync>> {
        if position > self.position {
            self.save(position, self.time)?;
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
            None => self.file.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)?,
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
