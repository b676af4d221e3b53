//! Looking back; see [`crate::history`].

use std::sync::Arc;

use serde::Serialize;

use super::App;
use crate::aggregate::Aggregate;
use crate::event::{Envelope, Recorded};
use crate::history::{
    self, Diff, DiffError, History, HistoryError, Loading, StreamPoint, Trace, aside,
};
use crate::id::CorrelationId;
use crate::projection::{AsOf, AsOfError, LogPoint, Projection};
use crate::query::Query;
use crate::store::{Decoder, StoreError};
use crate::stream::{Position, StreamId};

impl App {
    fn decoder(&self) -> Decoder {
        self.inner.decoder.clone()
    }

    /// Looks at the aggregate `id` as it is in the log now, or was at a [version](Loading::at_version) or a
    /// [time](Loading::at_time); await what this returns for a [`Loaded`](crate::Loaded).
    ///
    /// Its stream is folded on a thread for waiting, from its first event also where there is a snapshot, beside the live aggregate,
    /// which is neither asked nor held up. `A` need not be part of this app. The state at a time is that of everything before the first event of the stream that was decided later:
    /// versions order events, clocks do not.
    ///
    /// # Errors
    /// - [`HistoryError::NoEvents`]: nothing has ever happened to it. A point before its first event is no error: there it is as
    ///   it began.
    /// - [`HistoryError::BeyondStream`]: the stream has no such version yet.
    /// - [`HistoryError::Unreadable`], [`HistoryError::Panicked`]: an event cannot be read or applied.
    /// - [`HistoryError::InvalidStream`], [`HistoryError::Store`].
    ///
    /// # Panics
    /// Outside of a tokio runtime, when it is awaited.
    ///
    /// # Cancel safety
    /// It changes nothing, so it can be dropped at any time; the thread ends with the event that it is at.
    ///
    /// # Examples
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use tidings::{App, Command, Event, Memory, aggregate};
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # #[event(name = "till.sold")]
    /// # struct Sold { cents: i64 }
    /// # #[derive(Command, Clone)]
    /// # struct Sell { cents: i64 }
    /// #[derive(Default)]
    /// struct Till { cents: i64 }
    /// # #[aggregate(category = "till", events = TillEvent)]
    /// # impl Till {
    /// #     #[command]
    /// #     fn sell(&self, Sell { cents }: Sell) -> Sold { Sold { cents } }
    /// #     #[apply]
    /// #     fn sold(&mut self, event: &Sold) { self.cents += event.cents }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let app = App::builder().store(Memory::new()).aggregate::<Till>().start().await?;
    /// let first = app.send("1", Sell { cents: 250 }).await?;
    /// app.send("1", Sell { cents: 300 }).await?;
    ///
    /// assert_eq!(app.load::<Till>("1").await?.cents, 550);
    /// let then = app.load::<Till>("1").at_version(first.version).await?;
    /// assert_eq!((then.cents, then.position), (250, first.position));
    /// # app.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn load<A: Aggregate>(&self, id: impl AsRef<str>) -> Loading<A> {
        Loading::new(self.decoder(), id.as_ref())
    }

    /// Reads what has happened to the aggregate `id`; await what this returns for the events, in their order, each with who, when
    /// and why in its header. A stream without events is empty. Events that the program does not know are left out if the aggregate
    /// [ignores](Aggregate::unknown_events) such.
    ///
    /// # Errors
    /// - [`HistoryError::Unreadable`], [`HistoryError::Panicked`]: an event cannot be read; [`history_of`](Self::history_of)
    ///   reads it as it is stored.
    /// - [`HistoryError::InvalidStream`], [`HistoryError::Store`].
    ///
    /// # Panics
    /// Outside of a tokio runtime, when it is awaited.
    ///
    /// # Cancel safety
    /// It changes nothing, so it can be dropped at any time.
    ///
    /// # Examples
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use tidings::{App, Command, Event, Memory, aggregate};
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
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let app = App::builder().store(Memory::new()).aggregate::<Till>().start().await?;
    /// app.send("1", Sell { cents: 250 }).metadata("clerk", "Ada").await?;
    /// app.send("1", Sell { cents: 300 }).metadata("clerk", "Grace").await?;
    ///
    /// for entry in app.history::<Till>("1").await? {
    ///     let TillEvent::Sold(sold) = &entry.event;
    ///     println!("{} {:?} sold for {}", entry.time, entry.metadata.get("clerk"), sold.cents);
    /// }
    /// let page = app.history::<Till>("1").limit(1).await?;
    /// let next = app.history::<Till>("1").after(page[0].version).limit(1).await?;
    /// assert_eq!(next[0].metadata.get("clerk"), Some("Grace"));
    /// # app.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn history<A: Aggregate>(&self, id: impl AsRef<str>) -> History<Envelope<A::Event>> {
        History::typed::<A>(self.decoder(), id.as_ref())
    }

    /// Reads the events of any stream as they are stored. Otherwise as [`history`](Self::history).
    pub fn history_of(&self, stream: StreamId) -> History<Recorded> {
        History::stored(self.decoder(), stream)
    }

    /// Reads the story `id`: its events and the commands that they were decided for, each below what caused it; see [`Trace`]. An id that
    /// the log does not know is an empty story.
    ///
    /// The log has no index over stories, so that commits need not keep one up: this looks through it, from a day before the time in the
    /// id (of a UUIDv7, as fresh ones are), or from its start. A million events in SQLite take 0.35 seconds of a busy machine with two
    /// cores, as long as a bare scan; `cargo bench --bench history` measures it.
    ///
    /// # Errors
    /// [`HistoryError::Store`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// It changes nothing, so it can be dropped at any time.
    pub async fn trace(&self, id: CorrelationId) -> Result<Trace, HistoryError> {
        let store = Arc::clone(self.inner.decoder.store());
        aside(move |awaited| history::trace(&*store, id, awaited)).await
    }

    /// Reads the story that the event at `position` belongs to. Otherwise as [`trace`](Self::trace).
    ///
    /// # Errors
    /// [`HistoryError::BeyondLog`] if there is no such event; [`HistoryError::Store`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// It changes nothing, so it can be dropped at any time.
    pub async fn trace_of(&self, position: Position) -> Result<Trace, HistoryError> {
        let store = Arc::clone(self.inner.decoder.store());
        aside(move |awaited| {
            let story = history::story_at(&*store, position)?;
            history::trace(&*store, story, awaited)
        })
        .await
    }

    /// Folds the view of `P` up to a position or a time, beside the one that serves, which is neither asked nor held up; see [`AsOf`].
    ///
    /// At a time it holds everything before the first event of the whole log that was decided later, whether it is for this
    /// projection or not: positions order events, clocks do not. To find that one every event up to it is looked at.
    ///
    /// # Errors
    /// - [`AsOfError::BeyondLog`]: the log has no such position yet.
    /// - [`AsOfError::Stopped`]: an event cannot be handled, and the projection stops at such; or the log cannot be read, or the view not be
    ///   written.
    /// - [`AsOfError::View`], [`AsOfError::Log`], [`AsOfError::Unknown`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping it ends the folding; nothing is left of it. The search for a time comes to its end on its thread.
    pub async fn as_of<P: Projection + Default>(
        &self,
        point: impl Into<LogPoint>,
    ) -> Result<AsOf<P>, AsOfError> {
        self.as_of_with(P::default(), point).await
    }

    /// The same as [`as_of`](Self::as_of), with a projection that is not the default one.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn as_of_with<P: Projection>(
        &self,
        projection: P,
        point: impl Into<LogPoint>,
    ) -> Result<AsOf<P>, AsOfError> {
        let Ok(rebuilds) = self.rebuilds::<P>() else {
            return Err(AsOfError::Unknown(P::NAME));
        };
        let head = self.head();
        let until = match point.into() {
            LogPoint::Position(wanted) if wanted > head => {
                return Err(AsOfError::BeyondLog { wanted, head });
            }
            LogPoint::Position(position) => position,
            LogPoint::Time(time) => {
                let store = Arc::clone(self.inner.decoder.store());
                let position = tokio::task::spawn_blocking(move || store.position_at(time)).await;
                let position = position.unwrap_or_else(|error| {
                    let (place, source) = ("the log".into(), error.into());
                    Err(StoreError::Failed { place, source })
                });
                // What is not published yet has not happened yet.
                position.map_err(AsOfError::Log)?.min(head)
            }
        };
        rebuilds.as_of(projection, until, self.clone()).await
    }

    /// Asks `query` of the view of `P` as it was at two points, and says what differs between the replies. The view is folded twice.
    ///
    /// # Errors
    /// [`DiffError::AsOf`], as [`as_of`](Self::as_of); [`DiffError::Query`] if it was not answered; [`DiffError::Value`] if a reply has
    /// no form as JSON, such as one with a personal value.
    ///
    /// # Panics
    /// As [`as_of`](Self::as_of).
    ///
    /// # Cancel safety
    /// As that of [`as_of`](Self::as_of).
    pub async fn diff<P, Q>(
        &self,
        query: Q,
        from: impl Into<LogPoint>,
        to: impl Into<LogPoint>,
    ) -> Result<Diff, DiffError>
    where
        P: Projection + Default,
        Q: Query + Clone,
        Q::Reply: Serialize,
    {
        let before = self.as_of::<P>(from).await?.query(query.clone()).await?;
        let after = self.as_of::<P>(to).await?.query(query).await?;
        Diff::of(&before, &after)
    }

    /// Says what differs between the states of the aggregate `id` at two points of its stream.
    ///
    /// # Errors
    /// [`DiffError::History`], as [`load`](Self::load); [`DiffError::Value`] if the state has no form as JSON, such as one with a
    /// personal value.
    ///
    /// # Panics
    /// As [`load`](Self::load).
    ///
    /// # Cancel safety
    /// It changes nothing, so it can be dropped at any time.
    pub async fn diff_aggregate<A: Aggregate + Serialize>(
        &self,
        id: impl AsRef<str>,
        from: impl Into<StreamPoint>,
        to: impl Into<StreamPoint>,
    ) -> Result<Diff, DiffError> {
        let before = self.load::<A>(&id).at(from).await?;
        let after = self.load::<A>(&id).at(to).await?;
        Diff::of(&before.aggregate, &after.aggregate)
    }
}
