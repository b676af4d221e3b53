//! Reading your own write over HTTP: where a view must have got, in a header and a cookie.
//!
//! A browser sends a command with one request and reads a view with the next. The receipt's position must travel with it, or
//! the page may come from a view that does not hold the write yet. A [`ReadToken`] is that position as a text, bound to the
//! log that it belongs to: the response to the command sets it as a cookie, and the browser brings it back by itself. A client
//! with its own code may send it as a header instead. [`App::position_of`](crate::App::position_of) makes a position of what
//! a request brought, and `at_least` waits for it.
//!
//! # What comes from outside
//! A token is not a secret and proves nothing: everybody can make one up, and it tells how many events the log holds. So
//! nothing depends on it but how long a read waits, and a read never waits for more than the head of the log at that time. What
//! is no token is passed over.
//!
//! # A log that was exchanged or restored
//! A browser keeps its cookie when the log is exchanged, or restored from an older backup. The position would then not be
//! reached for long, and every page would wait in vain. So a token of another log and one beyond the head are not waited for.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::stream::Position;

/// How long a browser keeps the cookie, in seconds: every view has long caught up then.
const MAX_AGE: u32 = 60;

/// A position of a log as a text for a header or a cookie, such as `42.9b5a5d1c7a3e4f60`.
///
/// [`App::read_token`](crate::App::read_token) makes it of a receipt's position,
/// [`App::position_of`](crate::App::position_of) turns it back. The text holds digits, letters and one dot only, 37 bytes at
/// most, so it can stand in a header, a cookie or a URL as it is.
///
/// # Examples
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tidings::{App, Command, Event, Memory, ReadToken, aggregate, projection};
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
/// # #[derive(Default)]
/// # struct Sales { cents: i64 }
/// # #[projection(name = "sales", version = 1)]
/// # impl Sales {
/// #     #[on]
/// #     fn sold(&mut self, event: &Sold) { self.cents += event.cents }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let app = App::builder().store(Memory::new()).aggregate::<Till>().projection(Sales::default());
/// # let app = app.start().await?;
/// // POST: the response to a command brings the token, for browsers and for other clients.
/// let receipt = app.send("1", Sell { cents: 250 }).await?;
/// let token = app.read_token(receipt.position);
/// let response = [("Set-Cookie", token.set_cookie()), (ReadToken::HEADER, token.to_string())];
///
/// // GET: the request brings it back, among others. With axum and actix-web this is `headers.iter()`.
/// let cookies = format!("theme=dark; {}={token}", ReadToken::COOKIE);
/// let request = [("Host", "till.example"), ("Cookie", &cookies)];
/// let position = app.position_of(ReadToken::from_headers(request));
/// let sales = app.view::<Sales>().at_least(position).await?;
/// assert_eq!(sales.cents, 250);
/// # drop(sales);
/// # assert_eq!(position, receipt.position);
/// # assert!(response[0].1.starts_with("tidings-position=1."));
/// # app.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReadToken {
    position: Position,
    /// The last half of the log's id: as good as the whole to tell two logs apart.
    log: u64,
}

impl ReadToken {
    /// The name of the header that brings a token, in either direction.
    ///
    /// A page of another origin reads it from a response only if that lists it in `Access-Control-Expose-Headers`.
    pub const HEADER: &str = "tidings-position";

    /// The name of the cookie that brings a token.
    pub const COOKIE: &str = "tidings-position";

    pub(crate) fn new(position: Position, log: Uuid) -> Self {
        Self { position, log: log.as_u64_pair().1 }
    }

    /// The position, if it is one of this log.
    pub(crate) fn position_in(self, log: Uuid) -> Option<Position> {
        (self == Self::new(self.position, log)).then_some(self.position)
    }

    /// The value of a `Set-Cookie` header that makes a browser bring the token for a minute, with every request to this host.
    ///
    /// Scripts do not see it, and other sites do not make a browser send it with more than a link. It says nothing of
    /// `Secure`, which would keep it from a server without TLS: the token is not a secret. Add `; Secure` if your cookies must
    /// have it.
    pub fn set_cookie(&self) -> String {
        format!("{}={self}; Path=/; Max-Age={MAX_AGE}; HttpOnly; SameSite=Lax", Self::COOKIE)
    }

    /// All tokens that the headers of a request bring, by themselves or among the cookies; what is no token is passed over.
    ///
    /// Takes what the iterators of the `HeaderMap`s of axum, hyper and actix-web yield, and any other pairs of a name and a
    /// value. Hand the tokens to [`App::position_of`](crate::App::position_of), which takes the newest that is of its log.
    ///
    /// # Examples
    /// ```
    /// use tidings::ReadToken;
    ///
    /// let cookies: &[u8] = b"session=\xff; tidings-position=42.9b5a5d1c7a3e4f60";
    /// let headers = [("Accept", b"text/html".as_slice()), ("Cookie", cookies)];
    /// let token = ReadToken::from_headers(headers).next();
    /// assert_eq!(token, Some("42.9b5a5d1c7a3e4f60".parse()?));
    /// # Ok::<(), tidings::InvalidReadToken>(())
    /// ```
    pub fn from_headers<N: AsRef<str>, V: AsRef<[u8]>>(
        headers: impl IntoIterator<Item = (N, V)>,
    ) -> impl Iterator<Item = Self> {
        headers.into_iter().flat_map(|(name, value)| {
            let (name, value) = (name.as_ref(), value.as_ref());
            if name.eq_ignore_ascii_case(Self::HEADER) {
                // What stands between a client and a server may join headers of one name.
                value.split(|byte| *byte == b',').filter_map(Self::from_bytes).collect()
            } else if name.eq_ignore_ascii_case("cookie") {
                value.split(|byte| *byte == b';').filter_map(Self::from_cookie).collect()
            } else {
                Vec::new()
            }
        })
    }

    /// What a cookie brings, if it is the right one.
    fn from_cookie(cookie: &[u8]) -> Option<Self> {
        let value = cookie.trim_ascii().strip_prefix(Self::COOKIE.as_bytes())?;
        Self::from_bytes(value.strip_prefix(b"=")?)
    }

    fn from_bytes(text: &[u8]) -> Option<Self> {
        std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
    }
}

impl fmt::Display for ReadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.position, self.log)
    }
}

impl FromStr for ReadToken {
    type Err = InvalidReadToken;

    /// # Errors
    /// [`InvalidReadToken`] for everything that is not, byte for byte, what `Display` writes.
    fn from_str(text: &str) -> Result<Self, InvalidReadToken> {
        let (position, log) = text.split_once('.').ok_or(InvalidReadToken)?;
        let token = Self {
            position: Position::new(position.parse().map_err(|_| InvalidReadToken)?),
            log: u64::from_str_radix(log, 16).map_err(|_| InvalidReadToken)?,
        };
        // The standard library also reads signs, zeros in front and capital letters.
        if token.to_string() == text { Ok(token) } else { Err(InvalidReadToken) }
    }
}

/// A text is not a [`ReadToken`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a read token, which is a position and half of a log's id, such as 42.9b5a5d1c7a3e4f60: take it from `App::read_token`"
)]
#[non_exhaustive]
pub struct InvalidReadToken;
