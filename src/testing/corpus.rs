//! The golden corpus: one stored event of every version that was ever released, and what each is read as.

mod file;

use std::any::type_name;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fs, io};

use self::file::{File, Payload, Stored, Today, differences};
use super::recording::{
    Findings, Recording, conclude, file_name, in_package, one_file_for_two, pretty, replace,
    text_of,
};
use super::schema_lock::released;
use super::sealing::{reading, writing};
use crate::actor::Panic;
use crate::clock::Timestamp;
use crate::codec::Codec;
use crate::event::{EventSchema, EventSet, Header, MemberOf, Neighbours, Recorded};
use crate::id::CommandId;
use crate::stream::{Position, StreamId, Version};

/// Checks that every event that a released version has written is still read, and as what: by a stored example of each version of
/// each event.
///
/// Write one test, with an example of each event, and commit the files that its first run writes into `folder` (from the folder of
/// `Cargo.toml` on):
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tidings::{Event, Shape, aggregate};
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
/// use tidings::testing::golden_corpus;
///
/// # let folder = tempfile::tempdir()?;
/// # let corpus = folder.path().join("corpus");
/// # let golden_corpus = |_| tidings::testing::golden_corpus(&corpus);
/// // #[test]
/// fn every_released_event_is_readable() {
/// # }
/// # {
///     golden_corpus("tests/corpus")
///         .events::<AccountEvent>()
///         .example(Deposited { cents: 500 })
/// #       .recording(tidings::testing::Recording::New)
///         .check();
/// }
/// # let text = std::fs::read_to_string(corpus.join("account.deposited.v1.json"))?;
/// # assert!(text.contains(r#""payload": {"cents":500}"#), "{text}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # The files
/// `account.deposited.v1.json` keeps the stored payload, and the events that it is `read_as` today. The payload is never written
/// again: the example of a version counts once, when the version is new. Each file is read in every run through all steps of the
/// program, and what comes of it is compared.
///
/// An event that is read together with a neighbour needs it in its file: `stored` is a short stream, all of one command, and may be
/// completed by hand. So may the whole file, for a version that was released before there was a corpus: take a payload from a log.
///
/// Personal data is sealed with keys that follow from the subjects, so each run can read it, and so can everybody else: examples are
/// of nobody who exists. A payload that was sealed with the keys of an app cannot be read here.
///
/// # What is found
/// A file that is not read, or is read as something else than before; an event without an example; a version that the
/// [schema lock](super::schema_lock) has and the corpus has not; a payload that is not of the shape that the event says it has. All
/// of it at once.
///
/// # Accepting a change
/// `TIDINGS_ACCEPT=1 cargo test` writes what the events are read as today into the files. An event that is not read is never
/// accepted. With the variable `CI` set nothing is written: a version without a file fails.
pub fn golden_corpus(folder: impl AsRef<Path>) -> GoldenCorpus {
    GoldenCorpus {
        folder: in_package(folder.as_ref()),
        lock: in_package(Path::new("tidings.lock.json")),
        sets: Vec::new(),
        examples: Vec::new(),
        recording: Recording::from_env(),
    }
}

/// A check of the golden corpus; made by [`golden_corpus`].
#[derive(Debug)]
#[must_use = "call `check`"]
pub struct GoldenCorpus {
    folder: PathBuf,
    lock: PathBuf,
    sets: Vec<Set>,
    examples: Vec<Example>,
    recording: Recording,
}

#[derive(Debug)]
struct Set {
    type_name: &'static str,
    category: &'static str,
    names: &'static [&'static str],
    schemas: Vec<EventSchema>,
    read: fn(&[Recorded]) -> Result<Vec<Today>, String>,
}

#[derive(Debug)]
struct Example {
    category: &'static str,
    name: &'static str,
    version: u32,
    codec: Codec,
    payload: Result<Vec<u8>, String>,
}

impl GoldenCorpus {
    /// Checks the events of this set: the enum that `#[aggregate]` writes. Name all sets of the program, one after the other.
    pub fn events<S: EventSet>(mut self) -> Self {
        self.sets.push(Set {
            type_name: type_name::<S>(),
            category: S::CATEGORY,
            names: S::NAMES,
            schemas: S::schemas(),
            read: read::<S>,
        });
        self
    }

    /// An example of an event. One whose fields are all filled shows more than one of defaults.
    pub fn example<E: MemberOf>(mut self, event: E) -> Self {
        let mut bytes = Vec::new();
        let encoded = writing(|| E::CODEC.encode(&event, &mut bytes));
        self.examples.push(Example {
            category: E::Set::CATEGORY,
            name: E::NAME,
            version: E::VERSION,
            codec: E::CODEC,
            payload: encoded.map(|()| bytes).map_err(|error| causes(&error)),
        });
        self
    }

    /// Where the schema lock lies, from the folder of `Cargo.toml` on; `tidings.lock.json` unless given. There need not be one.
    pub fn lock(mut self, path: impl AsRef<Path>) -> Self {
        self.lock = in_package(path.as_ref());
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
        let mut check = Check { findings: Vec::new(), written: BTreeMap::new() };
        match self.files() {
            Ok(files) => self.check_all(files, &mut check),
            Err(error) => check.findings.push(error),
        }
        let title =
            format!("the events in {} are not all read as they were:", self.folder.display());
        if !check.findings.is_empty() {
            return Err(Findings::new(&title, &check.findings));
        }
        for (file, text) in &check.written {
            replace(file, text).map_err(|error| Findings::new(&title, &[error]))?;
        }
        Ok(check.written.into_keys().collect())
    }

    /// The names of the files that are there.
    fn files(&self) -> Result<BTreeSet<String>, String> {
        let failed =
            |error: io::Error| format!("{} cannot be read: {error}", self.folder.display());
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => entries.map_err(failed)?,
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".json") {
                names.insert(name);
            }
        }
        Ok(names)
    }

    fn check_all(&self, files: BTreeSet<String>, check: &mut Check) {
        if self.sets.is_empty() {
            check.findings.push("no events are given\n  → `.events::<AccountEvent>()`".to_owned());
            return;
        }
        let sets = self.sets.iter().map(|set| (set.category, set.names));
        check.findings.extend(one_file_for_two(sets, "`golden_corpus(…)`"));
        for set in &self.sets {
            for schema in &set.schemas {
                self.check_example(set, schema, &files, check);
            }
            for name in set.names {
                if !set.schemas.iter().any(|schema| schema.name == *name) {
                    check.findings.push(format!(
                        "{name}: `{}` does not say what its shape is\n  \
                         → implement `EventSet::schemas`, with `EventSchema::of` for each event",
                        set.type_name,
                    ));
                }
            }
        }
        for name in &files {
            if let Err(finding) = self.check_file(name, check) {
                check.findings.push(format!("{name}: {finding}"));
            }
        }
        match released(&self.lock) {
            Ok(released) => self.check_released(&released, &files, check),
            Err(finding) => check.findings.push(finding),
        }
    }

    /// Every event has an example, and a file of its version.
    fn check_example(
        &self,
        set: &Set,
        schema: &EventSchema,
        files: &BTreeSet<String>,
        check: &mut Check,
    ) {
        let EventSchema { name, version, .. } = schema;
        let mut examples = self.examples.iter().filter(|example| {
            (example.category, example.name, example.version) == (set.category, name, *version)
        });
        let Some(example) = examples.next() else {
            check.findings.push(format!(
                "{name}, version {version}: it has no example\n  → `.example(…)` with one of it",
            ));
            return;
        };
        let file = file_name(name, example.version, "json");
        if !files.contains(&file) {
            match first(set, schema, example) {
                Ok(text) if self.recording != Recording::Nothing => {
                    check.written.insert(self.folder.join(&file), text);
                }
                Ok(_) => check.findings.push(format!(
                    "{file} is missing\n  → run this test without the variable `CI`, and commit the file",
                )),
                Err(finding) => check.findings.push(format!("{name}: {finding}")),
            }
        }
    }

    fn check_file(&self, name: &str, check: &mut Check) -> Result<(), String> {
        let path = self.folder.join(name);
        let Some(text) = text_of(&path)? else { return Ok(()) };
        let mut file: File = serde_json::from_str(&text).map_err(|error| {
            format!("it is no stored event: {error}\n  → restore it from the repository")
        })?;
        let is_called = |stored: &Stored| file_name(&stored.name, stored.version, "json") == name;
        if !file.stored.iter().any(is_called) {
            return Err(
                "it holds no event of its name and version\n  → restore it from the repository"
                    .to_owned(),
            );
        }
        let Some(set) = self.sets.iter().find(|set| set.category == file.category) else {
            return Err(format!(
                "none of the given sets holds the events of category {:?}\n  → name its set: `.events::<…>()`",
                file.category,
            ));
        };
        let today = (set.read)(&stream(&file)?)?;
        let differences = differences(&file.read_as, &today);
        if differences.is_empty() {
            return Ok(());
        }
        if self.recording != Recording::Changes {
            return Err(format!(
                "it is read as something else than before\n  {}\n  \
                 → if it is meant, accept it: `TIDINGS_ACCEPT=1 cargo test`",
                differences.join("\n  "),
            ));
        }
        file.read_as = today;
        check.written.insert(path, pretty(&file)?);
        Ok(())
    }

    /// Every version that the lock has must have a file.
    fn check_released(
        &self,
        released: &[(String, String, u32)],
        files: &BTreeSet<String>,
        check: &mut Check,
    ) {
        for (category, name, version) in released {
            let file = file_name(name, *version, "json");
            let has_set = self.sets.iter().any(|set| set.category == category);
            let is_new = check.written.contains_key(&self.folder.join(&file));
            // That the newest version has no file is a finding already.
            let is_newest = self.examples.iter().any(|example| {
                example.category == category && example.name == name && example.version == *version
            });
            if has_set && !files.contains(&file) && !is_new && !is_newest {
                check.findings.push(format!(
                    "{file} is missing: {} says that this version was released\n  \
                     → write the file by hand, with a payload from a log:\n    \
                     {{\"category\": {category:?}, \"stored\": [{{\"name\": {name:?}, \"version\": {version}, \
                     \"codec\": \"json\", \"payload\": …}}], \"read_as\": []}}\n  \
                     → then `TIDINGS_ACCEPT=1 cargo test` completes it",
                    self.lock.display(),
                ));
            }
        }
    }
}

/// What a check has found, and what it is to write.
struct Check {
    findings: Vec<String>,
    written: BTreeMap<PathBuf, String>,
}

/// The file of a new version.
fn first(set: &Set, schema: &EventSchema, example: &Example) -> Result<String, String> {
    let bytes = example.payload.clone()?;
    let value = example.codec.decode_json(&bytes).map_err(|error| causes(&error))?;
    schema.shape.admits(&value).map_err(|differs| {
        format!(
            "what serde writes is not of the event's shape\n  {differs}\n  \
             → if serde's traits are implemented by hand, `#[shape(opaque)]` on that type",
        )
    })?;
    let stored = Stored {
        name: example.name.to_owned(),
        version: example.version,
        codec: example.codec,
        payload: Payload::of(example.codec, &bytes)?,
    };
    let mut file =
        File { category: example.category.to_owned(), stored: vec![stored], read_as: Vec::new() };
    file.read_as = (set.read)(&stream(&file)?)?;
    pretty(&file)
}

/// The stored events of a file as a stream, which one command has made: some events make a pair only then.
fn stream(file: &File) -> Result<Vec<Recorded>, String> {
    let id = StreamId::new(&file.category, "corpus").map_err(|error| error.to_string())?;
    let command = CommandId::fresh();
    let stored = file.stored.iter().zip(1..);
    let recorded = stored.map(|(stored, place)| {
        let time = Timestamp::default();
        let mut header = Header::new(id.clone(), stored.name.clone(), stored.version, time);
        (header.codec, header.command_id) = (stored.codec, Some(command));
        (header.version, header.position) = (Version::new(place), Position::new(place));
        Ok(Recorded { header, payload: stored.payload.bytes(stored.codec)?.into() })
    });
    recorded.collect()
}

/// What a stream is read as. The steps of the program run in it, and may panic.
fn read<S: EventSet>(stored: &[Recorded]) -> Result<Vec<Today>, String> {
    let neighbours = Beside { stored };
    let mut read = Vec::new();
    for event in stored {
        let today = Panic::catch(|| reading(|| S::read(event, &neighbours)));
        let not_read = |why: &str| {
            format!(
                "event {:?} of version {} is not read\n  {why}",
                event.name, event.schema_version
            )
        };
        let today = today
            .map_err(|panic| not_read(&format!("what reads it panics: {}", panic.message)))?
            .map_err(|error| not_read(&causes(&error)))?;
        for event in today {
            read.push(written(&event).map_err(|why| not_read(&why))?);
        }
    }
    Ok(read)
}

/// An event as it is written today.
fn written<S: EventSet>(event: &S) -> Result<Today, String> {
    let mut bytes = Vec::new();
    writing(|| event.encode(&mut bytes)).map_err(|error| causes(&error))?;
    Ok(Today {
        name: event.name().to_owned(),
        version: event.schema_version(),
        payload: event.codec().decode_json(&bytes).map_err(|error| causes(&error))?,
    })
}

struct Beside<'a> {
    stored: &'a [Recorded],
}

impl Beside<'_> {
    fn at(&self, version: Option<u64>) -> Option<Recorded> {
        let version = Version::new(version?);
        self.stored.iter().find(|event| event.version == version).cloned()
    }
}

impl Neighbours for Beside<'_> {
    fn before(&self, event: &Recorded) -> Result<Option<Recorded>, Box<dyn Error + Send + Sync>> {
        Ok(self.at(event.version.as_u64().checked_sub(1)))
    }

    fn after(&self, event: &Recorded) -> Result<Option<Recorded>, Box<dyn Error + Send + Sync>> {
        Ok(self.at(event.version.as_u64().checked_add(1)))
    }
}

/// An error with what is behind it.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
