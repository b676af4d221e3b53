//! Forgetting a subject of personal data.

use super::App;
use crate::command::Receipt;
use crate::personal::{ForgetError, SubjectEvent};

impl App {
    /// Forgets `subject`: destroys its key, durably, and then says so in the log with a
    /// [`SubjectForgotten`](crate::SubjectForgotten), whose receipt this returns.
    ///
    /// From then on no [`Personal`](crate::Personal) value of the subject can be read: in this process at once, and by nobody else who
    /// has the log and its keys. Wait for a consumer to come to the receipt's position to know that it has deleted what it kept. The
    /// [module](crate::personal) says what else there is to do.
    ///
    /// Forgetting a subject again changes nothing and gives the first receipt, as [`AlreadyKnown`](crate::Outcome::AlreadyKnown). One that
    /// was never seen can be forgotten as well: what is sealed for it later is refused.
    ///
    /// # Errors
    /// [`ForgetError`]; if it is anything but [`ForgetError::Subject`], forget the subject again.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropped after it was polled once, the subject is forgotten all the same.
    pub async fn forget(&self, subject: impl Into<String>) -> Result<Receipt, ForgetError> {
        let (app, subject) = (self.clone(), subject.into());
        let forgotten = tokio::task::spawn_blocking(move || app.forget_blocking(&subject)).await;
        // It ends early with its runtime only, or by a panic of the store.
        forgotten.unwrap_or(Err(ForgetError::Ended))
    }

    fn forget_blocking(&self, subject: &str) -> Result<Receipt, ForgetError> {
        let inner = &self.inner;
        let topic = inner.topics.get::<SubjectEvent>();
        let durability = inner.decoder.store().durability();
        inner.forgetting.forget(subject, durability, &inner.gauges.sequencer, topic)
    }

    /// Says in the log what a crash, or a log that was restored, has left unsaid. Blocks.
    pub(super) fn record_forgotten(&self) {
        let unrecorded = match self.inner.forgetting.keys.unrecorded() {
            Ok(unrecorded) => unrecorded,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the keys cannot say who is forgotten and not recorded so"
                );
                return;
            }
        };
        for subject in unrecorded {
            match self.forget_blocking(&subject) {
                Ok(receipt) => tracing::info!(
                    subject,
                    position = %receipt.position,
                    "the log is told of a subject that was forgotten before"
                ),
                Err(error) => tracing::error!(
                    subject,
                    error = &error as &dyn std::error::Error,
                    "a subject is forgotten, and the log cannot be told; it is told when the app starts again"
                ),
            }
        }
    }
}
