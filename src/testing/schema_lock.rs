//! The schema lock: no change of an event goes unnoticed.

mod changes;

use std::any::type_name;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::recording::{
    Findings, Recording, conclude, file_name, in_package, one_file_for_two, pretty, replace,
    text_of,
};
use crate::clock::Timestamp;
use crate::codec::Codec;
use crate::event::{DecodeError, EventSchema, EventSet, Header, Neighbours, Recorded};
use crate::shape::Form;
use crate::stream::StreamId;

/// Checks the events of a program against `tidings.lock.json`, which keeps the name, the version and the shape of every event
/// that was ever released.
///
/// Write one test, and commit the file that its first run writes:
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tidings::{Event, aggregate};
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(name = "account.deposited", version = 1)]
/// # struct Deposited { cents: i64 }
/// # #[derive(Default)]
/// # struct Account;
/// # #[aggregate(category = "account", events = AccountEvent)]
/// # impl Account {
/// #     #[apply]
/// #     fn deposited(&mut self, _: &Deposited) {}
/// # }
/// use tidings::testing::schema_lock;
///
/// # let folder = tempfile::tempdir()?;
/// # let file = folder.path().join("tidings.lock.json");
/// // #[test]
/// fn every_change_of_an_event_is_meant() {
/// # }
/// # {
///     schema_lock()
///         .events::<AccountEvent>()
/// #       .file(&file)
/// #       .recording(tidings::testing::Recording::New)
///         .check();
/// }
/// # let text = std::fs::read_to_string(file)?;
/// # assert!(text.contains("\"name\": \"cents\""), "{text}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is found
/// - A shape that is another while the version is the same. The change is named: compatible in both directions, backward-compatible
///   (this program reads the events that are stored), forward-compatible (programs of the release before read the events that this
///   one writes), or breaking. Each comes with the field and with the line to write.
/// - An event, or a version of one, that was released and is no longer read.
/// - A part whose shape cannot be seen, since its type has no [`Shape`](crate::Shape).
///
/// All of it is found at once.
///
/// # Accepting a change
/// `TIDINGS_ACCEPT=1 cargo test` writes a change into the file if this program reads what is stored. One that breaks this is never
/// accepted: it needs a raised version, and a step from the one before it. New events and raised versions are added without being
/// asked, and the entries of older versions stay. With the variable `CI` set nothing is written: what is not in the file fails.
///
/// A version that was never released may be changed at will: delete its entry from the file.
pub fn schema_lock() -> SchemaLock {
    SchemaLock {
        file: in_package(Path::new("tidings.lock.json")),
        sets: Vec::new(),
        json_schemas: None,
        recording: Recording::from_env(),
    }
}

/// A check against the schema lock; made by [`schema_lock`].
#[derive(Debug)]
#[must_use = "call `check`"]
pub struct SchemaLock {
    file: PathBuf,
    sets: Vec<Set>,
    json_schemas: Option<PathBuf>,
    recording: Recording,
}

/// What an event set says of itself.
#[derive(Debug)]
struct Set {
    type_name: &'static str,
    category: &'static str,
    names: &'static [&'static str],
    schemas: Vec<EventSchema>,
    is_read: fn(&str, u32, Codec) -> bool,
}

impl SchemaLock {
    /// Checks the events of this set: the enum that `#[aggregate]` writes. Name all sets of the program, one after the other.
    pub fn events<S: EventSet>(mut self) -> Self {
        self.sets.push(Set {
            type_name: type_name::<S>(),
            category: S::CATEGORY,
            names: S::NAMES,
            schemas: S::schemas(),
            is_read: is_read::<S>,
        });
        self
    }

    /// Where the lock lies, from the folder of `Cargo.toml` on; `tidings.lock.json` unless given.
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        self.file = in_package(path.as_ref());
        self
    }

    /// Also keeps the JSON Schema of every event in this folder, a file for each version: `account.deposited.v2.json`. The newest
    /// versions are kept level with the program, the others stay. Each event has to derive `schemars::JsonSchema`.
    #[cfg(feature = "schemars")]
    pub fn json_schemas(mut self, folder: impl AsRef<Path>) -> Self {
        self.json_schemas = Some(in_package(folder.as_ref()));
        self
    }

    /// What may be written; [`Recording::from_env`] says it unless given.
    pub fn recording(mut self, recording: Recording) -> Self {
        self.recording = recording;
        self
    }

    /// Checks, and writes what is new.
    ///
    /// # Panics
    /// With everything that is wrong, and what to do about it.
    #[track_caller]
    pub fn check(self) {
        conclude(self.try_check());
    }

    /// Checks as [`check`](Self::check) does, and gives the files that were written.
    ///
    /// # Errors
    /// Everything that is wrong, and what to do about it. Then nothing was written.
    pub fn try_check(self) -> Result<Vec<PathBuf>, Findings> {
        let title = format!("the events of this program do not fit {}:", self.file.display());
        let failed = |finding: String| Findings::new(&title, &[finding]);
        let before = text_of(&self.file).map_err(failed)?;
        let mut lock = match &before {
            Some(text) => LockFile::read(text, &self.file).map_err(failed)?,
            None => LockFile::default(),
        };
        let mut findings = self.compare(&mut lock);
        let mut files = BTreeMap::new();
        if before.as_ref().is_none_or(|text| LockFile::read(text, &self.file).as_ref() != Ok(&lock))
        {
            files.insert(self.file.clone(), pretty(&lock).map_err(failed)?);
        }
        findings.extend(self.compare_json_schemas(&mut files));
        if self.recording == Recording::Nothing {
            findings.extend(files.keys().map(|file| {
                format!(
                    "{} is missing, or not level with the events of this program\n  \
                     → run this test without the variable `CI`, and commit the file",
                    file.display(),
                )
            }));
        }
        if !findings.is_empty() {
            return Err(Findings::new(&title, &findings));
        }
        for (file, text) in &files {
            replace(file, text).map_err(failed)?;
        }
        Ok(files.into_keys().collect())
    }

    /// Brings `lock` level with the program, and says what is against it.
    fn compare(&self, lock: &mut LockFile) -> Vec<String> {
        let mut findings = Vec::new();
        if self.sets.is_empty() {
            findings.push("no events are given\n  → `.events::<AccountEvent>()`".to_owned());
        }
        let mut seen = BTreeMap::new();
        for set in &self.sets {
            if let Some(other) = seen.insert(set.category, set.type_name) {
                if other != set.type_name {
                    findings.push(format!(
                        "category {:?} has two sets, `{other}` and `{}`\n  → one set for each category",
                        set.category, set.type_name,
                    ));
                }
                continue;
            }
            let locked = lock.categories.entry(set.category.to_owned()).or_default();
            self.compare_set(set, locked, &mut findings);
        }
        for (category, events) in &lock.categories {
            if !seen.contains_key(category.as_str()) && !self.sets.is_empty() {
                let names: Vec<_> = events.keys().map(String::as_str).collect();
                findings.push(format!(
                    "category {category:?} is in the lock with {}, and none of the given sets holds its events\n  \
                     → name its set: `.events::<…>()`; \
                     or delete it from the file, if no log has such streams any more",
                    names.join(", "),
                ));
            }
        }
        findings
    }

    fn compare_set(
        &self,
        set: &Set,
        locked: &mut BTreeMap<String, Vec<Entry>>,
        findings: &mut Vec<String>,
    ) {
        for name in set.names {
            if !set.schemas.iter().any(|schema| schema.name == *name) {
                findings.push(format!(
                    "{name}: `{}` does not say what its shape is\n  \
                     → implement `EventSet::schemas`, with `EventSchema::of` for each event",
                    set.type_name,
                ));
            }
        }
        for schema in &set.schemas {
            findings.extend(unseen(schema));
            if set.newest(schema.name).is_none_or(|newest| newest.version == schema.version) {
                findings.extend(version_goes_back(schema, locked));
            }
            findings.extend(self.compare_event(schema, locked));
        }
        for (name, entries) in locked.iter() {
            for entry in entries {
                let today = set.newest(name);
                // That the version went back is a finding of its own.
                if today.is_some_and(|today| today.version < entry.version) {
                    continue;
                }
                let codec = today.map_or(Codec::Json, |schema| schema.codec);
                if !(set.is_read)(name, entry.version, codec) {
                    findings.push(changes::not_read(set, name, entry.version));
                }
            }
        }
    }

    fn compare_event(
        &self,
        schema: &EventSchema,
        locked: &mut BTreeMap<String, Vec<Entry>>,
    ) -> Option<String> {
        let EventSchema { name, version, shape, .. } = schema;
        let released = names(schema).find_map(|called| {
            let entry = locked.get(called)?.iter().find(|entry| entry.version == *version)?;
            Some((called, changes::compare(&entry.shape, shape)))
        });
        if let Some((called, Some(change))) = released {
            let accepts = self.recording == Recording::Changes;
            if !accepts || !change.class.can_be_accepted() {
                return Some(change.describe(name, called, *version));
            }
        }
        let entries = locked.entry((*name).to_owned()).or_default();
        let entry = Entry { version: *version, shape: shape.clone() };
        match entries.binary_search_by_key(version, |entry| entry.version) {
            Ok(place) => entries.splice(place..=place, [entry]).for_each(drop),
            Err(place) => entries.insert(place, entry),
        }
        None
    }

    fn compare_json_schemas(&self, files: &mut BTreeMap<PathBuf, String>) -> Vec<String> {
        let Some(folder) = &self.json_schemas else { return Vec::new() };
        let sets = self.sets.iter().map(|set| (set.category, set.names));
        let mut findings = one_file_for_two(sets, "`.json_schemas(…)`");
        for schema in self.sets.iter().flat_map(|set| &set.schemas) {
            let EventSchema { name, version, .. } = schema;
            let Some(json_schema) = &schema.json_schema else {
                findings.push(format!(
                    "{name}: it has no JSON Schema\n  → `#[derive(schemars::JsonSchema)]` on the event, and on the types of its fields",
                ));
                continue;
            };
            let file = folder.join(file_name(name, *version, "json"));
            match (pretty(json_schema), text_of(&file)) {
                (Ok(text), Ok(before)) if before.as_ref() == Some(&text) => {}
                (Ok(text), Ok(_)) => {
                    files.insert(file, text);
                }
                (Err(error), _) | (_, Err(error)) => findings.push(error),
            }
        }
        findings
    }
}

/// What lies in the repository.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockFile {
    /// How the file itself is laid out.
    format: u32,
    categories: BTreeMap<String, BTreeMap<String, Vec<Entry>>>,
}

/// A version of an event.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    version: u32,
    shape: Form,
}

impl Default for LockFile {
    fn default() -> Self {
        Self { format: LockFile::FORMAT, categories: BTreeMap::new() }
    }
}

impl LockFile {
    const FORMAT: u32 = 1;

    fn read(text: &str, path: &Path) -> Result<Self, String> {
        let mut lock: Self = serde_json::from_str(text).map_err(|error| {
            format!(
                "{} is no schema lock: {error}\n  → restore it from the repository",
                path.display()
            )
        })?;
        if lock.format != Self::FORMAT {
            return Err(format!(
                "{} is of format {}, and this version of Tidings reads format {}\n  → use a newer version of Tidings",
                path.display(),
                lock.format,
                Self::FORMAT,
            ));
        }
        for entries in lock.categories.values_mut().flat_map(BTreeMap::values_mut) {
            entries.sort_by_key(|entry| entry.version);
        }
        Ok(lock)
    }
}

/// The versions of events that a lock has: the category, the name and the version of each.
pub(super) fn released(path: &Path) -> Result<Vec<(String, String, u32)>, String> {
    let Some(text) = text_of(path)? else { return Ok(Vec::new()) };
    let mut released = Vec::new();
    for (category, events) in LockFile::read(&text, path)?.categories {
        for (name, entries) in events {
            for entry in entries {
                released.push((category.clone(), name.clone(), entry.version));
            }
        }
    }
    Ok(released)
}

impl Set {
    /// The newest version of the event that has this name, or had it; older ones may be written beside it for a time.
    fn newest(&self, name: &str) -> Option<&EventSchema> {
        let versions =
            self.schemas.iter().filter(|schema| names(schema).any(|known| known == name));
        versions.max_by_key(|schema| schema.version)
    }
}

/// The name of an event, and those that it had.
fn names(schema: &EventSchema) -> impl Iterator<Item = &'static str> + use<> {
    std::iter::once(schema.name).chain(schema.former_names.iter().copied())
}

fn version_goes_back(
    newest: &EventSchema,
    locked: &BTreeMap<String, Vec<Entry>>,
) -> Option<String> {
    let EventSchema { name, version, .. } = newest;
    let entries = names(newest).filter_map(|name| locked.get(name)).flatten();
    let released =
        entries.map(|entry| entry.version).max().filter(|released| released > version)?;
    Some(format!(
        "{name}: version {version} is older than version {released}, which was released\n  \
         → `#[event(name = {name:?}, version = {released})]`, or a higher one",
    ))
}

fn unseen(schema: &EventSchema) -> Option<String> {
    let unseen = schema.shape.unseen();
    if unseen.is_empty() {
        return None;
    }
    let mut text = format!("{}: a part of it cannot be seen", schema.name);
    for (path, name) in unseen {
        let _ = write!(
            text,
            "\n  {path}: `{name}` has no `Shape`\n    \
             → `#[derive(tidings::Shape)]` on the type, or `#[shape(opaque)]` on the field if it is of another crate",
        );
    }
    Some(text)
}

/// Whether the set reads events of this name and version. It is asked with a payload that no type fits, and says so if it
/// does not even know the version.
fn is_read<S: EventSet>(name: &str, version: u32, codec: Codec) -> bool {
    let Ok(stream) = StreamId::new(S::CATEGORY, "lock") else { return false };
    let mut header = Header::new(stream, name.to_owned(), version, Timestamp::default());
    header.codec = codec;
    let event = Recorded { header, payload: [].into() };
    !matches!(
        S::read(&event, &Alone),
        Err(DecodeError::UnknownName { .. } | DecodeError::UnknownVersion { .. })
    )
}

/// A stream of one event.
struct Alone;

type Beside = Result<Option<Recorded>, Box<dyn std::error::Error + Send + Sync>>;

impl Neighbours for Alone {
    fn before(&self, _: &Recorded) -> Beside {
        Ok(None)
    }

    fn after(&self, _: &Recorded) -> Beside {
        Ok(None)
    }
}
