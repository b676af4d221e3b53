//! Reading the log in pages, ahead of the one who folds them.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::store::{EventStore, Filter, Page, StoreError};
use crate::stream::Position;

/// How many pages are read at the same time. Reading an event takes two to three times as long as folding it, so that one
/// reader would leave the fold waiting.
const READERS: usize = 2;

/// The pages of the log that one consumer wants, read ahead on threads for waiting.
pub(super) struct ReadAhead {
    store: Arc<dyn EventStore>,
    filter: Filter,
    /// How many events are read at a time.
    page: usize,
    /// Each with the position after which it was read.
    pages: VecDeque<(Position, JoinHandle<Result<Page, StoreError>>)>,
    /// Whether the last page held every position: then it is known where the one after the next begins.
    dense: bool,
}

impl ReadAhead {
    pub(super) fn new(store: Arc<dyn EventStore>, filter: Filter, page: usize) -> Self {
        Self { store, filter, page, pages: VecDeque::new(), dense: false }
    }

    /// The page after `after`. What follows it, as far as `end`, is being read when this returns.
    pub(super) async fn page(
        &mut self,
        after: Position,
        end: Position,
    ) -> Result<Page, StoreError> {
        while self.pages.front().is_some_and(|(start, _)| *start != after) {
            self.pages.pop_front();
        }
        if self.pages.is_empty() {
            self.read(after);
        }
        let Some((_, page)) = self.pages.pop_front() else {
            return Ok(nothing(after));
        };
        let page = page.await.unwrap_or_else(|error| {
            Err(StoreError::Failed { place: "the log".into(), source: error.into() })
        })?;
        self.dense = page.through == after.plus(self.page as u64) && page.events.len() == self.page;
        let mut next = page.through;
        if self.pages.front().is_some_and(|(start, _)| *start != next) {
            self.pages.clear();
        }
        for number in 0..if self.dense { READERS } else { 1 } {
            if number == self.pages.len() && next < end {
                self.read(next);
            }
            next = next.plus(self.page as u64);
        }
        Ok(page)
    }

    fn read(&mut self, after: Position) {
        let (store, filter, limit) = (Arc::clone(&self.store), self.filter.clone(), self.page);
        let page = tokio::task::spawn_blocking(move || store.read_log(after, &filter, limit));
        self.pages.push_back((after, page));
    }
}

fn nothing(through: Position) -> Page {
    Page { events: Vec::new(), through }
}
