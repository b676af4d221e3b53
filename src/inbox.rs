//! The inbox: what a function answered the first time, kept in the transaction of its effect.
//!
//! `#[idempotent]` writes a call of [`once`] around the body of a function that writes through a transaction. The first
//! call with a key runs the body, and every later one gets the answer that the first gave. The key stands in the table
//! `tidings_inbox` of the same database, written by the same transaction, so the key and the effect are committed
//! together or not at all.
//!
//! ```text
//! SAVEPOINT ─ insert the key ─ the body ─ keep its answer ─ delete a few expired keys ─ RELEASE
//!                  │               └ Err, panic, dropped future: ROLLBACK TO the savepoint
//!                  └ it is there already: the kept answer, or a refusal if the input is another
//! ```
//!
//! # An error or a panic
//! All that the body wrote is undone together with the key, even if the transaction is committed all the same: else the
//! next call would take effect on top of one half of this one. That is what the savepoint is for; outside of a transaction
//! it begins one and commits it, so that a plain connection is guarded alike.
//!
//! # Two callers at once
//! The key is inserted before anything is read, which takes SQLite's write lock. The other caller waits for it as long as
//! its connection's busy timeout says, and then finds the answer.
//!
//! # A table that grows
//! Each new key deletes up to eight that have expired. So the table holds what is kept, and what is left of a crowd
//! that expired at once gets smaller with each call.

mod claim;

use std::error::Error;
use std::fmt::{self, Display};
use std::hash::Hasher;
use std::ops::ControlFlow;

use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use siphasher::sip128::{Hasher128, SipHasher13};

use self::claim::{Begun, Claim, Kept};

/// Why an idempotent function neither took effect nor gave the answer that it gave before.
///
/// The error of each `#[idempotent]` function must be `From` it. Whenever a function returns it, the function left nothing
/// behind in its transaction, except after [`EndedTransaction`](Self::EndedTransaction).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// The key was used before, with other input. The mistake is the caller's: the same call will be refused until the key
    /// expires.
    #[error(
        "{scope} was called with key {key:?} before, and with other input: a new request needs a new key"
    )]
    OtherInput {
        /// The name of the function.
        scope: &'static str,
        /// The key.
        key: String,
    },
    /// The key is an empty text, as of a request without one: two such requests could not be told apart.
    #[error("{scope} was called with an empty key: each request needs a key of its own")]
    EmptyKey {
        /// The name of the function.
        scope: &'static str,
    },
    /// A call with this key has begun in this transaction and has not ended: the function calls itself. Or it committed
    /// its transaction before it ended, so that its effect is there and its answer is not.
    #[error(
        "{scope} with key {key:?} has begun and not ended: it calls itself, or it committed its transaction halfway"
    )]
    Unfinished {
        /// The name of the function.
        scope: &'static str,
        /// The key.
        key: String,
    },
    /// The function committed its transaction or rolled it back, or a guarded call that ran in turns with it did. Roll back
    /// what is left and call again: what was committed is found.
    #[error(
        "{scope} with key {key:?} ended the transaction that it was given: leave that to its caller"
    )]
    EndedTransaction {
        /// The name of the function.
        scope: &'static str,
        /// The key.
        key: String,
    },
    /// The function took effect before, but its answer cannot be read: its type has changed since.
    #[error("the answer that {scope} gave to key {key:?} cannot be read back")]
    Unreadable {
        /// The name of the function.
        scope: &'static str,
        /// The key.
        key: String,
        /// Why it cannot.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The input or the answer has no form in JSON: a map whose keys are no texts for one, or an input with a number beyond
    /// 64 bits.
    #[error("the {what} of {scope} with key {key:?} cannot be written as JSON")]
    Unwritable {
        /// The name of the function.
        scope: &'static str,
        /// The key.
        key: String,
        /// Which of the two: `input` or `answer`.
        what: &'static str,
        /// Why it cannot.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The database failed; if another writer kept it locked for longer than the busy timeout, roll back and call again.
    #[error("the inbox of {scope} failed at key {key:?}")]
    Database {
        /// The name of the function.
        scope: &'static str,
        /// The key.
        key: String,
        /// What the database says.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// One call of an idempotent function: its key, and what it wants.
pub struct Call {
    scope: &'static str,
    key: String,
    /// In seconds.
    keep: u64,
    /// The arguments one after the other, each followed by a line feed.
    input: Vec<u8>,
    unwritable: Option<serde_json::Error>,
}

impl Call {
    /// A call with `key`, whose answer is kept for `keep` seconds.
    pub fn new(scope: &'static str, keep: u64, key: &(impl Key + ?Sized)) -> Self {
        Self { scope, key: key.text(), keep, input: Vec::new(), unwritable: None }
    }

    /// Adds an argument to what is compared.
    pub fn input(&mut self, argument: &(impl Input + ?Sized)) {
        if let Err(error) = argument.write(&mut self.input) {
            self.unwritable.get_or_insert(error);
        }
        self.input.push(b'\n');
    }

    /// What tells this input from another one: its SipHash of 128 bits, which suffices against chance. There is no secret
    /// in it, since it must be the same in every process; who constructs a collision gets the answer to a key of his own.
    fn fingerprint(&self) -> [u8; 16] {
        let mut hasher = SipHasher13::new();
        hasher.write(&self.input);
        hasher.finish128().as_bytes()
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("scope", &self.scope)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Runs `body` unless it ran before for this call.
pub fn once<R: Outcome>(connection: &Connection, call: Call, body: impl FnOnce() -> R) -> R {
    match begin(connection, call) {
        ControlFlow::Continue(claim) => settle(claim, body()),
        ControlFlow::Break(outcome) => outcome,
    }
}

/// Claims the key of the call, or breaks with what it gave before.
pub fn begin<R: Outcome>(connection: &Connection, call: Call) -> ControlFlow<R, Claim<'_>> {
    match Claim::begin(connection, call) {
        Ok(Begun::First(claim)) => ControlFlow::Continue(claim),
        Ok(Begun::Again(kept)) => ControlFlow::Break(R::again(kept)),
        Err(error) => ControlFlow::Break(R::refused(error)),
    }
}

/// Keeps the answer of the body, or undoes what it did.
pub fn settle<R: Outcome>(claim: Claim<'_>, outcome: R) -> R {
    outcome.settle(claim)
}

/// What an idempotent function may return.
#[diagnostic::on_unimplemented(
    message = "an idempotent function cannot return `{Self}`",
    label = "not a `Result`",
    note = "return `Result<T, E>`, where `T` is `Serialize` and `DeserializeOwned` and `E` is `From<tidings::InboxError>`"
)]
pub trait Outcome: Sized {
    /// Keeps the answer, or undoes everything if there is none.
    fn settle(self, claim: Claim<'_>) -> Self;

    /// The answer of the first time.
    fn again(kept: Kept) -> Self;

    /// The guard's own error.
    fn refused(error: InboxError) -> Self;
}

impl<T: Answer, E: Refusal> Outcome for Result<T, E> {
    fn settle(self, claim: Claim<'_>) -> Self {
        // Without an answer the claim is dropped, which undoes everything.
        let answer = self?;
        claim.keep(answer.write()).map_err(E::refusal)?;
        Ok(answer)
    }

    fn again(kept: Kept) -> Self {
        let Kept { scope, key, answer } = kept;
        T::read(&answer).map_err(|error| {
            E::refusal(InboxError::Unreadable { scope, key, source: error.into() })
        })
    }

    fn refused(error: InboxError) -> Self {
        Err(E::refusal(error))
    }
}

/// What tells one request from another.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not `Display`, so it cannot be a key",
    label = "not `Display`",
    note = "write an expression that is: `key = request.id`, `key = format_args!(\"{{shop}}/{{number}}\")`"
)]
pub trait Key {
    /// The key as it is kept.
    fn text(&self) -> String;
}

#[diagnostic::do_not_recommend]
impl<T: Display + ?Sized> Key for T {
    fn text(&self) -> String {
        self.to_string()
    }
}

/// An argument that two calls can be compared by.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not `Serialize`, so the inputs of two calls cannot be compared",
    label = "part of the input, and not `Serialize`",
    note = "derive `serde::Serialize` for it, or name what is to be compared: `input = request`, `input = (id, cents)`"
)]
pub trait Input {
    /// Appends the argument as JSON; the fields of maps and structs in the order of their names, since that of a hash map
    /// changes from process to process.
    ///
    /// # Errors
    /// It has no form in JSON.
    fn write(&self, bytes: &mut Vec<u8>) -> serde_json::Result<()>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> Input for T {
    fn write(&self, bytes: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut value = serde_json::to_value(self)?;
        value.sort_all_objects();
        serde_json::to_writer(bytes, &value)
    }
}

/// An answer that can be kept.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept: an idempotent function gives its first answer again",
    label = "the answer is not both `Serialize` and `DeserializeOwned`",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or return `Result<(), …>`"
)]
pub trait Answer: Sized {
    /// The answer as JSON.
    ///
    /// # Errors
    /// It has no form in JSON.
    fn write(&self) -> serde_json::Result<String>;

    /// The answer that was kept.
    ///
    /// # Errors
    /// It is one of another type.
    fn read(json: &str) -> serde_json::Result<Self>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Answer for T {
    fn write(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn read(json: &str) -> serde_json::Result<Self> {
        serde_json::from_str(json)
    }
}

/// An error that the guard's own can be told by.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not `From<tidings::InboxError>`, so it cannot say why the guard refused a call",
    label = "the error is not `From<tidings::InboxError>`",
    note = "give it a variant for it, with thiserror: `#[error(transparent)] Inbox(#[from] tidings::InboxError)`"
)]
pub trait Refusal {
    /// The error of the function.
    fn refusal(error: InboxError) -> Self;
}

#[diagnostic::do_not_recommend]
impl<E: From<InboxError>> Refusal for E {
    fn refusal(error: InboxError) -> Self {
        error.into()
    }
}
