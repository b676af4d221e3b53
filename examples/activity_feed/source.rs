//! Where a history comes from: the `git` program, asked about a repository, or a file with what it said once.
//!
//! Git writes as fast as it is read, so that a history of any length takes no more memory here than its largest commit. The
//! options given to it make what it says depend on the commits alone, and on nobody's settings: a commit that is read again
//! must look the same.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::fs::File;
use tokio::io::{AsyncBufRead, BufReader};
use tokio::process::{Child, Command};

use crate::history::{Commit, CommitReader, FORMAT, HistoryError};

/// A merge changes nothing here that its parents did not, and a file that was moved is one that went and one that came. Each
/// commit comes after all that it builds on, so that one of them can stand for all that came before.
const LOG: [&str; 15] = [
    "-c",
    "log.showRoot=true",
    "log",
    "--reverse",
    "--topo-order",
    "--numstat",
    "--no-renames",
    "--no-diff-merges",
    "--diff-algorithm=myers",
    "--no-ext-diff",
    "--no-textconv",
    "--no-relative",
    "--no-color",
    "--no-show-signature",
    "--encoding=UTF-8",
];

/// A history that can be read.
pub(crate) struct Source {
    path: PathBuf,
    name: String,
    /// The commit up to which a repository is read: its head when this was opened. None for a file.
    tip: Option<String>,
}

/// A history that is being read, the oldest commits first.
pub(crate) struct Reading {
    path: PathBuf,
    commits: CommitReader<Box<dyn AsyncBufRead + Unpin>>,
    git: Option<Child>,
    /// How many commits will come, if that is known.
    pub(crate) total: Option<u64>,
    /// The commit that stands for the whole when all of it has been read.
    pub(crate) tip: Option<String>,
}

impl Source {
    /// Finds out what `path` is. A repository must have a commit.
    pub(crate) async fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        let whole =
            tokio::fs::canonicalize(path).await.map_err(|error| cannot_read(path, &error))?;
        let (name, tip) = match whole.is_file() {
            true => (whole.file_stem(), None),
            false => (whole.file_name(), Some(head(path).await?)),
        };
        let name = name.unwrap_or(whole.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { path: path.to_owned(), name, tip })
    }

    /// What the history is called: as its directory or its file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Begins to read what `known`, a commit of an earlier run, does not build on.
    pub(crate) async fn read(&self, known: Option<String>) -> Result<Reading, Box<dyn Error>> {
        let path = &self.path;
        let Some(tip) = &self.tip else {
            let file = File::open(path).await.map_err(|error| cannot_read(path, &error))?;
            let commits = CommitReader::new(Box::new(BufReader::new(file)) as _);
            return Ok(Reading { path: path.clone(), commits, git: None, total: None, tip: None });
        };
        let range = self.range(tip, known).await?;
        let count = ask(path, &["rev-list", "--count", &range]).await?;
        let mut git = command(path);
        git.args(LOG).args([&format!("--format={FORMAT}"), &range, "--"]);
        let mut git = git.stdout(Stdio::piped()).spawn().map_err(cannot_run)?;
        let output = git.stdout.take().ok_or("git has no output")?;
        Ok(Reading {
            path: path.clone(),
            commits: CommitReader::new(Box::new(BufReader::with_capacity(64 * 1024, output))),
            git: Some(git),
            total: text(&count).parse().ok(),
            tip: Some(tip.clone()),
        })
    }

    /// What there is to read: everything up to `tip`, without what `known` builds on if it still belongs to the history.
    async fn range(&self, tip: &str, known: Option<String>) -> Result<String, Box<dyn Error>> {
        let Some(known) = known else {
            return Ok(tip.to_owned());
        };
        let ancestor = ask(&self.path, &["merge-base", "--is-ancestor", &known, tip]).await?;
        if ancestor.status.success() {
            return Ok(format!("{known}..{tip}"));
        }
        eprintln!(
            "activity_feed: the history does not hold commit {known}, up to which it was read before: it was \
             rewritten, or is another one; all of it is read, and what is known is not recorded again"
        );
        Ok(tip.to_owned())
    }
}

impl Reading {
    /// Reads the next commit; none when all have been read.
    pub(crate) async fn next(&mut self) -> Result<Option<Commit>, Box<dyn Error>> {
        let next = self.commits.next_commit().await;
        // A history ends or breaks off when git does, and then git's reason is the one to tell.
        if let Ok(None) | Err(HistoryError::BreaksOff { .. }) = next
            && let Some(git) = &mut self.git
        {
            let status = git.wait().await?;
            if !status.success() {
                let why = format!("git log did not come to its end: {status}");
                return Err(cannot_read(&self.path, &why));
            }
        }
        next.map_err(|error| cannot_read(&self.path, &error))
    }
}

/// The commit at which the repository at `path` stands.
async fn head(path: &Path) -> Result<String, Box<dyn Error>> {
    let found = ask(path, &["rev-parse", "--git-dir"]).await?;
    if !found.status.success() {
        let why = String::from_utf8_lossy(&found.stderr).trim_end().replace('\n', "; ");
        return Err(cannot_read(path, &why));
    }
    let head = ask(path, &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).await?;
    if !head.status.success() {
        return Err(cannot_read(path, &"the repository has no commit yet"));
    }
    Ok(text(&head))
}

/// Asks git about the repository at `path`, and waits for all that it says.
async fn ask(path: &Path, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    command(path).args(arguments).output().await.map_err(cannot_run)
}

fn command(path: &Path) -> Command {
    let mut git = Command::new("git");
    git.args(["--no-pager", "--no-replace-objects", "-c", "core.quotePath=true", "-C"]).arg(path);
    // A hook that runs this program would have it read the hook's repository.
    git.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE");
    git.stdin(Stdio::null()).kill_on_drop(true);
    git
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn cannot_run(error: std::io::Error) -> Box<dyn Error> {
    format!("git cannot be run, is it installed? {error}").into()
}

fn cannot_read(path: &Path, why: &dyn std::fmt::Display) -> Box<dyn Error> {
    format!("{} cannot be read: {why}", path.display()).into()
}
