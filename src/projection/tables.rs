//! Views in SQLite tables.
//!
//! All table projections of an app share one file beside the log. Each keeps its checkpoint there, and every transaction
//! moves rows, letters and checkpoint together, so each event affects the view exactly once over crash and restart.

mod keeper;
mod rebuild;
mod view;

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::oneshot;
use tracing::Span;

use self::keeper::{ShadowFile, TableKeeper};
use self::rebuild::{SCRATCH, TableRebuilds};
use self::view::TableViewInner;
pub use self::view::{TableAtLeast, TableReader, TableView};
use super::rebuild::Rebuilds;
use super::{Handlers, Projection, Storage, private, reached};
use crate::actor::Panic;
use crate::app::{Building, Floor, StartError};
use crate::event::{Header, MemberOf};
use crate::processor::file::{Ahead, Declared, Outdated};
use crate::projection::HandlerOutcome;
use crate::query::{Answers, IntoReply, Query, QueryContext, QueryError};

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
    ) -> Result<(TableView<P>, Arc<dyn Rebuilds<P>>), StartError> {
        let failed = |source| StartError::View { name: P::NAME, source };
        let mut handlers = Handlers::<P, Self>::of_projection();
        let file = building.views_file();
        let declared = Declared {
            name: P::NAME,
            version: P::VERSION,
            schema: handlers.schema.unwrap_or_default(),
            log_id: building.store.log_id(),
            head: building.head.borrow().position,
            outdated: Outdated::Serve,
            ahead: Ahead::BuildAnew,
        };
        let projection = Arc::new(projection);
        let kept = file.beside(P::NAME, "kept");
        let (keeper, shelved, entry) =
            TableKeeper::open(Arc::clone(&projection), &file, &kept, &declared).map_err(failed)?;
        // What a rebuild has left that did not come to its end.
        drop(ShadowFile(file.beside(P::NAME, "shadow")));
        file.remove_all_beside(P::NAME, SCRATCH);
        let outdated = !entry.fits(declared.version, declared.schema);
        let (progress, workshop) =
            building.start_processor(Floor::Tables, keeper, shelved, &mut handlers, outdated)?;
        let handled = entry.position.max(entry.replayed);
        let rebuilds =
            TableRebuilds { workshop, file: file.clone(), kept, declared, projection, handled };
        if outdated {
            rebuilds.replace_outdated(building.old_views()).map_err(failed)?;
        }
        let view = TableView::new(file, progress).map_err(failed)?;
        handlers
            .answers
            .into_iter()
            .try_for_each(|answer| answer(&view.read(), &mut building.answers))?;
        Ok((view, Arc::new(rebuilds)))
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
    projection: Arc<P>,
    connection: Connection,
}

impl<P> fmt::Debug for Target<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").finish_non_exhaustive()
    }
}
