//! Files that a check writes into the user's repository.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fmt, fs, io};

/// What a check may write into the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recording {
    /// Nothing: what is not recorded yet fails the check. This is what a build on a server does.
    Nothing,
    /// What is new. What differs from what is recorded fails the check.
    New,
    /// Also what differs, as far as it can be accepted.
    Changes,
}

impl Recording {
    /// `Nothing` if the variable `CI` is set, as build servers do; `Changes` with `TIDINGS_ACCEPT=1`; `New` otherwise.
    pub fn from_env() -> Self {
        let is_set = |name| {
            let value = env::var_os(name).unwrap_or_default();
            !["", "0", "false"].map(OsStr::new).contains(&value.as_os_str())
        };
        if is_set("CI") {
            Self::Nothing
        } else if is_set("TIDINGS_ACCEPT") {
            Self::Changes
        } else {
            Self::New
        }
    }
}

/// What a check found: all of it, each with what to do. Its text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings(String);

impl Findings {
    /// Under `title`, each as a paragraph.
    pub(super) fn new(title: &str, findings: &[String]) -> Self {
        let mut text = title.to_owned();
        for finding in findings {
            text.push_str("\n\n");
            text.push_str(finding);
        }
        Self(text)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Findings {}

/// How the checks end in a test.
#[track_caller]
#[expect(clippy::panic, reason = "this is how a test fails, and documented")]
pub(super) fn conclude(checked: Result<Vec<PathBuf>, Findings>) {
    match checked {
        Ok(written) => {
            for file in written {
                eprintln!("wrote {}: commit it", file.display());
            }
        }
        Err(findings) => panic!("{findings}"),
    }
}

/// Beside the caller's `Cargo.toml`; where the program runs if cargo does not run it.
pub(super) fn in_package(path: &Path) -> PathBuf {
    match env::var_os("CARGO_MANIFEST_DIR") {
        Some(package) => Path::new(&package).join(path),
        None => path.to_owned(),
    }
}

/// The text of a file; none if there is no file.
pub(super) fn text_of(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

/// Replaces a file as a whole, so that one that is cut off is never left.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), String> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = path.with_file_name(name);
        fs::write(&new, text)?;
        fs::rename(&new, path)
    };
    write().map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

/// A name of an event as part of a file's name: what may mean something to a file system is written as its number.
pub(super) fn file_name(event: &str, version: u32, ending: &str) -> String {
    let mut name = String::new();
    for byte in event.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                name.push(char::from(byte));
            }
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("{name}.v{version}.{ending}")
}

/// Says which events of `sets`, each a category with its names, would share a file; `folder` is how their folder is given.
pub(super) fn one_file_for_two<'s>(
    sets: impl IntoIterator<Item = (&'s str, &'s [&'s str])>,
    folder: &str,
) -> Vec<String> {
    let (mut owners, mut findings) = (BTreeMap::new(), Vec::new());
    for (category, names) in sets {
        for name in names {
            let owner = *owners.entry(*name).or_insert(category);
            if owner != category {
                findings.push(format!(
                    "{name}: categories {owner:?} and {category:?} both have an event of this name\n  \
                     → check their sets one by one, each with a folder of its own: {folder}",
                ));
            }
        }
    }
    findings
}

/// JSON as it lies in a repository.
pub(super) fn pretty(value: &impl serde::Serialize) -> Result<String, String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    Ok(text + "\n")
}
