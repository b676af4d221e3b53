//! Where an event stands: in its stream, and in the whole log.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use hashbrown::DefaultHashBuilder;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The stream of one aggregate: its category, a hyphen, its id, as in `account-42`.
///
/// The category holds no hyphen, so that the first one divides the two; the id may hold any character. Cloning is
/// cheap: the text is shared.
///
/// # Examples
/// ```
/// use tidings::StreamId;
///
/// let stream = StreamId::new("account", "acc-1")?;
/// assert_eq!(stream.as_str(), "account-acc-1");
/// assert_eq!((stream.category(), stream.id()), ("account", "acc-1"));
/// # Ok::<(), tidings::InvalidStreamId>(())
/// ```
#[derive(Clone)]
pub struct StreamId {
    text: Arc<str>,
    /// The hash of the text under a key of this process; computed once, since each command needs it several times.
    hash: u64,
}

/// Keyed anew in each process, so that nobody outside can choose ids that collide.
static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

impl StreamId {
    /// The longest stream id in bytes: it stands in every row of the log.
    pub const MAX_BYTES: usize = 512;

    /// Names the stream of the aggregate `id` of `category`.
    ///
    /// # Errors
    /// [`InvalidStreamId`] if the category is empty or holds a hyphen, the id is empty, or both together are longer than
    /// [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn new(category: &str, id: &str) -> Result<Self, InvalidStreamId> {
        if category.is_empty() || category.contains('-') {
            return Err(InvalidStreamId::Category(category.to_owned()));
        }
        if id.is_empty() {
            return Err(InvalidStreamId::EmptyId(category.to_owned()));
        }
        let bytes = category.len() + 1 + id.len();
        if bytes > Self::MAX_BYTES {
            return Err(InvalidStreamId::TooLong { bytes });
        }
        let mut text = String::with_capacity(bytes);
        text.push_str(category);
        text.push('-');
        text.push_str(id);
        Ok(Self::from_valid(text.into()))
    }

    /// The stream of this name, read from a log; none if it is not a name that [`new`](Self::new) makes.
    #[cfg(feature = "sqlite")]
    pub(crate) fn from_stored(name: &str) -> Option<Self> {
        let (category, id) = name.split_once('-')?;
        let valid = !category.is_empty() && !id.is_empty() && name.len() <= Self::MAX_BYTES;
        valid.then(|| Self::from_valid(name.into()))
    }

    fn from_valid(text: Arc<str>) -> Self {
        let hash = Self::hash_of(&text);
        Self { text, hash }
    }

    /// The whole name: category, hyphen, id.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before the first hyphen: the kind of aggregate.
    pub fn category(&self) -> &str {
        self.parts().0
    }

    /// The part after the first hyphen: which aggregate of its kind.
    pub fn id(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.text.split_once('-').unwrap_or((&self.text, ""))
    }

    /// The hash of the name; differs from process to process.
    pub(crate) fn hash64(&self) -> u64 {
        self.hash
    }

    /// The hash that a stream of the name `text` would have.
    pub(crate) fn hash_of(text: &str) -> u64 {
        HASHER.hash_one(text)
    }
}

impl std::str::FromStr for StreamId {
    type Err = InvalidStreamId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('-') {
            Some((category, id)) => Self::new(category, id),
            None => Err(InvalidStreamId::NoHyphen(text.to_owned())),
        }
    }
}

impl PartialEq for StreamId {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Eq for StreamId {}

impl PartialOrd for StreamId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StreamId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for StreamId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for StreamId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Why a text cannot name a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidStreamId {
    /// The category is empty or holds a hyphen.
    #[error(
        "category {0:?} must not be empty and must not hold a hyphen: the first hyphen ends it"
    )]
    Category(String),
    /// The id within the category is empty.
    #[error("the id of a stream of category {0:?} must not be empty")]
    EmptyId(String),
    /// There is no hyphen to divide category and id.
    #[error("stream id {0:?} has no hyphen between category and id")]
    NoHyphen(String),
    /// Longer than [`StreamId::MAX_BYTES`].
    #[error("a stream id of {bytes} bytes is longer than {} bytes", StreamId::MAX_BYTES)]
    TooLong {
        /// How long it would have been.
        bytes: usize,
    },
}

macro_rules! place {
    ($(#[$doc:meta])* $name:ident, $zero:ident: $zero_doc:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            #[doc = $zero_doc]
            pub const $zero: Self = Self(0);

            /// The place with this number.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number of this place.
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// The place `n` further on.
            #[must_use]
            pub const fn plus(self, n: u64) -> Self {
                Self(self.0 + n)
            }

            /// The place after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                self.plus(1)
            }

            /// How many places this one lies behind `ahead`; zero if it does not.
            pub const fn behind(self, ahead: Self) -> u64 {
                ahead.0.saturating_sub(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

place! {
    /// The place of an event in its stream: 1, 2, 3 … without gaps.
    Version, EMPTY: "The version of a stream that has no event yet."
}

place! {
    /// The place of an event in the whole log: 1, 2, 3 … without gaps, in commit order.
    Position, START: "The place before the first event."
}

/// What a commit expects of a stream before it appends to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// Whatever stands there.
    Any,
    /// Exactly this version; [`Version::EMPTY`] for a stream that must not exist yet.
    Exact(Version),
}

impl ExpectedVersion {
    /// Whether a stream that stands at `actual` is as expected.
    pub fn admits(self, actual: Version) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(expected) => expected == actual,
        }
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::Exact(version) => version.fmt(f),
        }
    }
}
