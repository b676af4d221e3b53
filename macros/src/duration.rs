//! Durations as text: `"250 ms"`, `"10 s"`, `"7 days"`.

use syn::LitStr;
use syn::parse::ParseStream;

/// The units, each with its milliseconds.
const UNITS: &[(&[&str], u64)] = &[
    (&["ms", "millisecond", "milliseconds"], 1),
    (&["s", "second", "seconds"], 1_000),
    (&["min", "minute", "minutes"], 60 * 1_000),
    (&["h", "hour", "hours"], 60 * 60 * 1_000),
    (&["day", "days"], 24 * 60 * 60 * 1_000),
    (&["week", "weeks"], 7 * 24 * 60 * 60 * 1_000),
];

/// Reads a duration longer than zero; in milliseconds.
pub(crate) fn duration(input: ParseStream<'_>) -> syn::Result<u64> {
    let text: LitStr = input.parse()?;
    let value = text.value();
    let value = value.trim();
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let unit = unit.trim();
    let milliseconds = UNITS.iter().find(|(names, _)| names.contains(&unit)).map(|(_, each)| *each);
    match number.parse::<u64>().ok().zip(milliseconds) {
        Some((0, _)) => Err(syn::Error::new(text.span(), "a duration is longer than zero")),
        Some((number, each)) if number.checked_mul(each).is_some() => Ok(number * each),
        _ => Err(syn::Error::new(
            text.span(),
            "a duration is a whole number and a unit: write \"250 ms\", \"10 s\", \"15 min\", \"24 hours\" or \"7 days\"",
        )),
    }
}
