//! A file of the corpus.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::codec::Codec;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) category: String,
    /// As they lay in the log, one after the other in one stream.
    pub(super) stored: Vec<Stored>,
    /// What they are read as.
    pub(super) read_as: Vec<Today>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) codec: Codec,
    pub(super) payload: Payload,
}

/// The bytes of a payload: JSON as it stands, other formats as text of the hexadecimal digits.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Payload(Box<RawValue>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Today {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) payload: Value,
}

impl Payload {
    pub(super) fn of(codec: Codec, bytes: &[u8]) -> Result<Self, String> {
        let text = match codec {
            Codec::Json => String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())?,
            #[allow(unreachable_patterns, reason = "other formats come with features")]
            _ => {
                let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
                format!("\"{}\"", digits.collect::<String>())
            }
        };
        RawValue::from_string(text).map(Self).map_err(|error| error.to_string())
    }

    pub(super) fn bytes(&self, codec: Codec) -> Result<Vec<u8>, String> {
        let text = self.0.get();
        if codec == Codec::Json {
            return Ok(text.as_bytes().to_vec());
        }
        let digits = text.trim_matches('"');
        let pairs = digits.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2);
            pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
        });
        pairs.collect::<Option<_>>().ok_or_else(|| {
            "its payload is no text of hexadecimal digits\n  → restore it from the repository"
                .to_owned()
        })
    }
}

/// How what stored events are read as differs from what they were, a line for each difference.
pub(super) fn differences(before: &[Today], today: &[Today]) -> Vec<String> {
    let mut found = Vec::new();
    if before.len() != today.len() {
        let names = |events: &[Today]| match events {
            [] => "no event".to_owned(),
            events => events.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", "),
        };
        found.push(format!("was {}, is {}", names(before), names(today)));
        return found;
    }
    for (before, today) in before.iter().zip(today) {
        let event = &today.name;
        if before.name != *event {
            found.push(format!("was {}, is {event}", before.name));
            continue;
        }
        if before.version != today.version {
            found.push(format!(
                "{event} was of version {}, is of version {}",
                before.version, today.version
            ));
        }
        compare(event, Some(&before.payload), Some(&today.payload), &mut found);
    }
    found
}

fn compare(path: &str, before: Option<&Value>, today: Option<&Value>, found: &mut Vec<String>) {
    let text = |value: Option<&Value>| match value {
        Some(value) => value.to_string(),
        None => "nothing".to_owned(),
    };
    match (before, today) {
        (Some(Value::Object(before)), Some(Value::Object(today))) => {
            let gone = before.keys();
            let new = today.keys().filter(|key| !before.contains_key(*key));
            for key in gone.chain(new) {
                compare(&format!("{path}.{key}"), before.get(key), today.get(key), found);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(today))) => {
            for place in 0..before.len().max(today.len()) {
                compare(&format!("{path}[{place}]"), before.get(place), today.get(place), found);
            }
        }
        (before, today) if before == today => {}
        (before, today) => {
            found.push(format!("{path} was {}, is {}", text(before), text(today)));
        }
    }
}
