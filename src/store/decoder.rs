//! Reading stored events as what they are today.

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::{EventStore, Filter, StoreError};
use crate::event::{DecodeError, EventSet, Neighbours, ReadAs, Recorded};
#[cfg(feature = "personal")]
use crate::personal::{self, Keys};
use crate::stream::{Position, Version};

/// Reads the events of a log: everything that this takes beside the stored event itself.
#[derive(Clone)]
pub(crate) struct Decoder {
    store: Arc<dyn EventStore>,
    #[cfg(feature = "personal")]
    keys: Keys,
}

impl Decoder {
    pub(crate) fn new(store: Arc<dyn EventStore>, #[cfg(feature = "personal")] keys: Keys) -> Self {
        Self {
            store,
            #[cfg(feature = "personal")]
            keys,
        }
    }

    /// What personal data in the log is sealed with.
    #[cfg(feature = "personal")]
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) fn store(&self) -> &Arc<dyn EventStore> {
        &self.store
    }

    /// What `event` is today. The code that finds out is the user's, and may panic.
    pub(crate) fn read<S: EventSet>(&self, event: &Recorded) -> Result<ReadAs<S>, DecodeError> {
        self.with_keys(|| S::read(event, self))
    }

    /// Lets `work` write and read what is kept beside the log, personal data included.
    pub(crate) fn with_keys<R>(&self, work: impl FnOnce() -> R) -> R {
        #[cfg(feature = "personal")]
        return personal::with_keys(&self.keys, work);
        #[cfg(not(feature = "personal"))]
        work()
    }
}

impl Neighbours for Decoder {
    fn before(&self, event: &Recorded) -> Result<Option<Recorded>, Box<dyn Error + Send + Sync>> {
        match event.version.as_u64().checked_sub(2) {
            None => Ok(None),
            Some(after) => Ok(self.neighbour(event, event.position.as_u64() - 1, after)?),
        }
    }

    fn after(&self, event: &Recorded) -> Result<Option<Recorded>, Box<dyn Error + Send + Sync>> {
        Ok(self.neighbour(event, event.position.as_u64() + 1, event.version.as_u64())?)
    }
}

impl Decoder {
    /// The event after version `after` in the stream of `event`. Those that were committed together stand next to each other
    /// in the log, so it is looked for at `position` first: finding it through its stream takes a walk from the stream's end.
    fn neighbour(
        &self,
        event: &Recorded,
        position: u64,
        after: u64,
    ) -> Result<Option<Recorded>, StoreError> {
        let page = self.store.read_log(Position::new(position - 1), &Filter::All, 1)?;
        let beside = page.events.into_iter().next();
        if let Some(beside) = beside.filter(|beside| beside.stream == event.stream) {
            return Ok(Some(beside));
        }
        let mut found = None;
        self.store.read_stream(&event.stream, Version::new(after), &mut |recorded| {
            found = Some(recorded);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }
}
