//! What an engine does with the events of one name: it reads one, finds its key, and tries to have it handled.

use std::error::Error;
use std::pin::Pin;

use hashbrown::HashMap;

use super::Delivery;
use crate::codec::Codec;
use crate::event::{DecodeError, Recorded};

/// Why an attempt failed.
pub(crate) type Cause = Box<dyn Error + Send + Sync>;

/// What an engine handles, by the stored names of the events.
pub(crate) type Routes = HashMap<&'static str, Route>;

/// How the events of one name are handled.
pub(crate) struct Route {
    /// Reads an event, and says what is to be done with it.
    pub(crate) prepare: Box<Prepare>,
    /// Not for what was in the log when the consumer began.
    pub(crate) live_only: bool,
}

pub(crate) type Prepare = dyn Fn(&Recorded, Codec) -> Result<Prepared, DecodeError> + Send + Sync;

/// An event that was read and can be handled.
pub(crate) struct Prepared {
    /// What it is kept in order by; its stream if this is none.
    pub(crate) key: Option<String>,
    /// Begins one attempt to handle it. An error passes unless the consumer classifies it otherwise or it is [`Permanent`].
    pub(crate) attempt: Box<dyn Fn(Delivery) -> Attempting + Send>,
    /// Whether an attempt can be cut short.
    pub(crate) limit: Limit,
}

/// One attempt. It may be dropped half-way, unless it has no limit.
pub(crate) type Attempting = Pin<Box<dyn Future<Output = Result<(), Cause>> + Send>>;

/// How long an attempt may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// As long as the consumer's options say.
    Timeout,
    /// To its end: dropping it would not stop it.
    None,
}

/// Marks an error that does not pass, whatever the consumer's classification says.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Permanent(pub(crate) Cause);
