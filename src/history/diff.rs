//! What differs between two values.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::HistoryError;
use crate::projection::AsOfError;
use crate::query::QueryError;

/// What differs between two values of one kind, such as the state of an aggregate at two versions.
///
/// The values are compared in the form that they have as JSON: structs and maps by their keys, sequences place by place. So what
/// is put in at the front of a sequence changes all places behind it; a map by id shows such changes better.
///
/// # Examples
/// ```
/// use serde::Serialize;
/// use tidings::Diff;
///
/// #[derive(Serialize)]
/// struct Account { cents: i64, owners: Vec<&'static str> }
///
/// let before = Account { cents: 250, owners: vec!["Ada"] };
/// let after = Account { cents: 300, owners: vec!["Ada", "Grace"] };
/// let diff = Diff::of(&before, &after)?;
/// assert_eq!(diff.to_string(), "/cents: 250 → 300\n/owners/1: nothing → \"Grace\"");
/// assert!(Diff::of(&after, &after)?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diff {
    differences: Vec<Difference>,
}

/// One place where two values differ.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// The place, as a JSON pointer (RFC 6901): `/owners/1`. Empty for the value as a whole.
    pub path: String,
    /// What stood there, as JSON; none if there was nothing.
    pub before: Option<String>,
    /// What stands there, as JSON; none if there is nothing.
    pub after: Option<String>,
}

impl Diff {
    /// Compares two values.
    ///
    /// # Errors
    /// [`DiffError::Value`] if one has no form as JSON: a map whose keys are structs, for instance.
    pub fn of<T: Serialize + ?Sized>(before: &T, after: &T) -> Result<Self, DiffError> {
        let value =
            |value: &T| serde_json::to_value(value).map_err(|error| DiffError::Value(error.into()));
        let mut differences = Vec::new();
        compare(String::new(), Some(&value(before)?), Some(&value(after)?), &mut differences);
        Ok(Self { differences })
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.differences.is_empty()
    }

    /// What differs, in the order of the paths' keys and places.
    pub fn iter(&self) -> impl Iterator<Item = &Difference> {
        self.differences.iter()
    }
}

fn compare(path: String, before: Option<&Value>, after: Option<&Value>, to: &mut Vec<Difference>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            for key in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
                let escaped = key.replace('~', "~0").replace('/', "~1");
                compare(format!("{path}/{escaped}"), before.get(key), after.get(key), to);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
            for place in 0..before.len().max(after.len()) {
                compare(format!("{path}/{place}"), before.get(place), after.get(place), to);
            }
        }
        (before, after) => {
            let (before, after) = (before.map(Value::to_string), after.map(Value::to_string));
            to.push(Difference { path, before, after });
        }
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no difference");
        }
        for (number, difference) in self.differences.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            difference.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "{}: {} → {}", self.path, shown(&self.before), shown(&self.after))
    }
}

impl fmt::Debug for Difference {
    /// Leaves out the values, which may be personal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Difference").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Why two points could not be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// A value has no form as JSON.
    #[error("what is to be compared cannot be written as JSON")]
    Value(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An aggregate could not be loaded.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A projection could not be folded.
    #[error(transparent)]
    AsOf(#[from] AsOfError),
    /// The query was not answered.
    #[error(transparent)]
    Query(#[from] QueryError),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(before: Value, after: Value, expected: &str) {
        assert_eq!(Diff::of(&before, &after).unwrap().to_string(), expected);
    }

    #[test]
    fn every_kind_of_difference_is_told_with_its_path() {
        check(json!({"a": 1}), json!({"a": 1}), "no difference");
        check(json!(1), json!("1"), ": 1 → \"1\"");
        check(json!({"a": [1, 2]}), json!({"a": [1, 3, 4]}), "/a/1: 2 → 3\n/a/2: nothing → 4");
        check(json!({"a": {"b": null}}), json!({"a": {}}), "/a/b: null → nothing");
        check(json!({"a": [1]}), json!({"a": {"0": 1}}), "/a: [1] → {\"0\":1}");
        check(json!({"~/": 1}), json!({"~/": 2}), "/~0~1: 1 → 2");
    }

    #[test]
    fn a_value_without_a_form_is_refused() {
        let odd = BTreeMap::from([((1, 2), 3)]);
        assert!(matches!(Diff::of(&odd, &odd), Err(DiffError::Value(_))));
    }
}
