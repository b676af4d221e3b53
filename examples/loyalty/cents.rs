//! Money, exact: whole cents, read without a detour over floating-point numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tidings::Shape;

/// An amount of money in cents.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, Shape,
)]
#[serde(transparent)]
pub(crate) struct Cents(pub(crate) i64);

impl Cents {
    pub(crate) const ZERO: Self = Self(0);
}

/// Why a text is not an amount of dollars.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotDollars {
    #[error("write dollars as in 29.33")]
    Malformed,
    #[error("it is finer than a cent")]
    TooFine,
    #[error("it is a billion dollars or more")]
    TooLarge,
}

impl FromStr for Cents {
    type Err = NotDollars;

    /// Reads dollars: `29.33`, `29.3`, `29` or `-29.33`, below a billion, so that sums of a hundred million amounts fit.
    fn from_str(text: &str) -> Result<Self, NotDollars> {
        let (sign, unsigned) = match text.strip_prefix('-') {
            Some(unsigned) => (-1, unsigned),
            None => (1, text),
        };
        let (dollars, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "00"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(dollars) || !digits(fraction) {
            return Err(NotDollars::Malformed);
        }
        if fraction.len() > 2 {
            return Err(NotDollars::TooFine);
        }
        match format!("{dollars}{fraction:0<2}").parse() {
            Ok(cents @ 0..100_000_000_000) => Ok(Self(sign * cents)),
            _ => Err(NotDollars::TooLarge),
        }
    }
}

/// As in `$1,234.50`.
impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let cents = self.0.unsigned_abs();
        f.pad(&format!("{sign}${}.{:02}", grouped(cents / 100), cents % 100))
    }
}

/// Writes a whole number with a comma before each group of three digits.
pub(crate) fn grouped(number: impl fmt::Display) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
