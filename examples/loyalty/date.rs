//! Days of the calendar.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tidings::Shape;

/// A day, kept as the number that it is written as: 18 January 1997 is 19970118. Days in order are numbers in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Shape)]
#[serde(transparent)]
pub(crate) struct Date(u32);

impl Date {
    pub(crate) fn year(self) -> u32 {
        self.0 / 10_000
    }

    /// The month, as in `1997-01`.
    pub(crate) fn month(self) -> String {
        format!("{:04}-{:02}", self.year(), self.0 / 100 % 100)
    }

    fn exists(self) -> bool {
        let (year, month, day) = (self.year(), self.0 / 100 % 100, self.0 % 100);
        let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
        let days = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => 0,
        };
        year > 0 && (1..=days).contains(&day)
    }
}

/// A text that names no day.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a day of the calendar as in 19970118")]
pub(crate) struct NotADate;

impl FromStr for Date {
    type Err = NotADate;

    fn from_str(text: &str) -> Result<Self, NotADate> {
        let eight_digits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse().map(Self) {
            Ok(date) if eight_digits && date.exists() => Ok(date),
            _ => Err(NotADate),
        }
    }
}

/// As in `1997-01-18`.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:02}", self.month(), self.0 % 100)
    }
}
