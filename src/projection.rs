//! Projections: events folded into views that answer queries.
//!
//! A [`Projection`] names its handlers, one for each event that it cares about, from any number of aggregates. Their
//! events reach it in commit order, each once: first from the log, then live. It keeps its view either [`InMemory`],
//! where it starts from the beginning with each start of the app, or in SQLite [`Tables`], where it resumes from the
//! checkpoint that it keeps beside its rows.
//!
//! # A handler that fails
//! An error or a panic stops this projection before that event, says so in its status, and leaves all others alone.

use std::error::Error;

use crate::event::{Header, MemberOf};

/// Events folded into a view (read model).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a projection",
    label = "not a projection",
    note = "put `#[projection(name = \"…\", version = 1)]` on an `impl {Self}` block with `#[on]` handlers"
)]
pub trait Projection: Send + Sync + Sized + 'static {
    /// Its name, unique in the app, never changed: its checkpoint is kept under it.
    const NAME: &'static str;

    /// Raise it when the handlers or the tables change: the view is then built anew from the log.
    const VERSION: u32;

    /// Where the view lives: [`InMemory`] or `Tables`.
    type Storage: Storage;

    /// Names the handlers.
    fn handlers(handlers: &mut Handlers<Self, Self::Storage>);
}

/// Where a view can live; closed.
pub trait Storage: private::Storage {}

/// A view in memory: the projection itself, read while it folds.
#[derive(Debug, Clone, Copy)]
pub struct InMemory;

impl Storage for InMemory {}
impl private::Storage for InMemory {}

mod private {
    pub trait Storage: 'static {}
}

/// The handlers of a projection, one for each event that it cares about.
#[derive(Debug)]
pub struct Handlers<P, S> {
    _todo: std::marker::PhantomData<(P, S)>,
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
        let _ = handler;
        self
    }
}

/// What a handler may return: nothing, or a [`Result`] of nothing with any error.
#[diagnostic::on_unimplemented(
    message = "an event handler cannot return `{Self}`",
    label = "neither `()` nor a `Result<(), _>`",
    note = "return `()` or `Result<(), E>` with an error that converts into `Box<dyn std::error::Error + Send + Sync>`"
)]
pub trait HandlerOutcome {
    /// The same as a plain result.
    ///
    /// # Errors
    /// The handler's own.
    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>>;
}

impl HandlerOutcome for () {
    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> HandlerOutcome for Result<(), E> {
    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.map_err(Into::into)
    }
}
