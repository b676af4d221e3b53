//! Where the framework takes the time from: domain code is handed it and never asks.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment in microseconds since the Unix epoch: what the log keeps, so that an event read back equals the one that
/// was published.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment this many microseconds after the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long before `later` this moment was; zero if it was not before.
    pub const fn until(self, later: Self) -> Duration {
        Duration::from_micros(later.0.saturating_sub(self.0))
    }
}

impl Timestamp {
    /// The moment this long after this one.
    pub(crate) fn after(self, pause: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    /// In UTC, as RFC 3339 has it: `1997-01-18T09:30:00.000250Z`. Years beyond 9999 take more digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // The days of a year are counted from 1 March, so that the leap day is the last; an era has 400 years.
        // <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

impl From<SystemTime> for Timestamp {
    /// Drops what is finer than a microsecond; a time before 1970 becomes the epoch.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_micros(timestamp.0)
    }
}

/// A source of the current time.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_as_its_day_and_time() {
        // The seconds are those that GNU date says.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000250Z"),
            (951_782_399, "2000-02-28T23:59:59.000250Z"),
            (951_782_400, "2000-02-29T00:00:00.000250Z"),
            (951_868_800, "2000-03-01T00:00:00.000250Z"),
            (853_579_800, "1997-01-18T09:30:00.000250Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000250Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000250Z"),
            (253_402_300_800, "10000-01-01T00:00:00.000250Z"),
        ] {
            assert_eq!(Timestamp::from_micros(seconds * 1_000_000 + 250).to_string(), expected);
        }
        assert!(Timestamp::from_micros(u64::MAX).to_string().starts_with("586524-01-19T"));
    }
}
