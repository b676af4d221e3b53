//! Days and weeks of the calendar, computed from seconds since 1970 by the civil-from-days algorithm of Howard Hinnant.

use std::fmt;

/// A day, as the number of days since 1 January 1970; negative before it. Any clock gone wrong names one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Day(i64);

/// A week from Monday to Sunday, as the number of weeks since the one in which 1970 began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Week(i64);

impl Day {
    pub(crate) fn of_seconds(seconds: i64) -> Self {
        Self(seconds.div_euclid(86_400))
    }

    /// Year, month and day of the month.
    fn civil(self) -> (i64, i64, i64) {
        // Years begin in March here, so that the leap day is their last; 400 of them, an era, have 146,097 days.
        let days = self.0 + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        (year + era * 400 + next, month, day)
    }
}

/// As in `2025-03-31`.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl Week {
    pub(crate) fn of_seconds(seconds: i64) -> Self {
        // 1 January 1970 was a Thursday.
        Self((Day::of_seconds(seconds).0 + 3).div_euclid(7))
    }

    pub(crate) fn monday(self) -> Day {
        Day(self.0 * 7 - 3)
    }

    /// The week so many weeks before this one.
    pub(crate) fn minus(self, weeks: i64) -> Self {
        Self(self.0 - weeks)
    }

    /// The week so many weeks after this one.
    pub(crate) fn plus(self, weeks: usize) -> Self {
        Self(self.0.saturating_add_unsigned(weeks as u64))
    }

    /// How many weeks this one lies after `earlier`; negative if it lies before it.
    pub(crate) fn since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}
