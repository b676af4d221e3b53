//! What an app does with its snapshots as a whole.

use std::sync::Arc;

use super::App;
use crate::store::StoreError;

impl App {
    /// Deletes all snapshots of all aggregates. Nothing changes but the time that the next loads take; new ones are taken as
    /// before.
    ///
    /// One that is being written while this runs may stay.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be deleted; then none is.
    ///
    /// # Cancel safety
    /// Dropped half-way, they are deleted all the same, or none is.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tidings::{App, Memory};
    ///
    /// let app = App::builder().store(Memory::new()).start().await?;
    /// app.delete_snapshots().await?;
    /// app.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete_snapshots(&self) -> Result<(), StoreError> {
        let store = Arc::clone(&self.inner.store);
        tokio::task::spawn_blocking(move || store.delete_snapshots()).await.unwrap_or_else(
            |error| Err(StoreError::Failed { place: "the store".into(), source: error.into() }),
        )
    }
}
