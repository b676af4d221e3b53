//! The names under which the framework traces; payloads are never recorded. And how errors are written out.

use std::error::Error;

use crate::actor::Panic;

/// The span around the decision of one command.
pub(crate) const COMMAND: &str = "tidings.command";
/// The span around one group commit.
pub(crate) const COMMIT: &str = "tidings.commit";
/// The span around a batch that a projection folds.
pub(crate) const FOLD: &str = "tidings.fold";
/// The span around the answer to one query.
pub(crate) const QUERY: &str = "tidings.query";
/// The span around the handling of one event.
pub(crate) const HANDLE: &str = "tidings.handle";

/// The text of an error with all its causes. It is often the user's code that writes it: if that panics, the text says so.
pub(crate) fn chain(error: &dyn Error) -> String {
    let whole = || {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    };
    let panicked =
        |panic: Panic| format!("an error that panics when it is shown: {}", panic.message);
    Panic::catch(whole).unwrap_or_else(panicked)
}
