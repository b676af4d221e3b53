//! The activity feed keeps its promises on histories as they are: exact totals, nothing twice, nothing lost to a kill.
//!
//! The tests run the example as a program of its own, which `cargo test` builds beside them, on its invented history and on
//! repositories that they make with `git`, which must be installed. If only this file is tested, build the example first:
//! `cargo build --example activity_feed`.
#![cfg(all(feature = "macros", feature = "sqlite"))]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what helps a test may panic as the test itself"
)]

use std::collections::{BTreeMap, BTreeSet};
#[cfg(target_os = "linux")]
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidings::sqlite::rusqlite::{Connection, types::Value as Sql};

const EXPORT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/activity_feed/history.txt");

#[test]
fn the_totals_of_the_invented_history_are_exact() {
    let directory = directory();
    let commits = exported(&fs::read_to_string(EXPORT).unwrap());
    let totals = run(&directory, &["--html", "page.html"]);
    let changes = || commits.iter().flat_map(|commit| &commit.changes);
    let lines = |column: fn(&Change) -> u64| changes().map(column).sum::<u64>();
    for (key, expected) in [
        ("commits", commits.len() as u64),
        ("authors", set(commits.iter().map(|commit| &commit.author)).len() as u64),
        ("undated", 0),
        ("files", set(changes().map(|change| &change.path)).len() as u64),
        ("changes", changes().count() as u64),
        ("added", lines(|change| change.added)),
        ("deleted", lines(|change| change.deleted)),
        ("read", commits.len() as u64),
        ("already_known", 0),
        // The last one says that the history was read.
        ("appended", (commits.len() + changes().count() + 1) as u64),
        // The last one asks for the page.
        ("events", (commits.len() + changes().count() + 2) as u64),
        ("letters", 0),
    ] {
        assert_eq!(totals[key], expected, "{key} of {totals}");
    }
    assert!(commits.len() > 250 && set(commits.iter().map(|commit| &commit.author)).len() > 4);
}

#[test]
fn the_views_agree_with_a_count_of_the_file() {
    let directory = directory();
    let commits = exported(&fs::read_to_string(EXPORT).unwrap());
    run(&directory, &["--db", "feed.db"]);

    let mut files: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    let mut follows = BTreeSet::new();
    for commit in &commits {
        for change in &commit.changes {
            let sums = files.entry(change.path.clone()).or_default();
            for (sum, more) in sums.iter_mut().zip([1, change.added, change.deleted]) {
                *sum += more;
            }
            follows.insert((&commit.author, &change.path));
        }
    }
    let row = |(path, sums): (&String, &[u64; 3])| {
        let sums = sums.map(|sum| Sql::Integer(sum.try_into().unwrap()));
        [vec![text(path)], sums.to_vec()].concat()
    };
    let table = "SELECT path, changes, added, deleted FROM files ORDER BY path";
    assert_eq!(rows(&directory, "feed.views.db", table), files.iter().map(row).collect::<Vec<_>>());
    let follows = follows.into_iter().map(|(author, path)| vec![text(author), text(path)]);
    let follows = follows.collect::<Vec<_>>();
    let table = "SELECT author, path FROM feed_follows ORDER BY author, path";
    assert_eq!(rows(&directory, "feed.views.db", table), follows);
}

#[test]
fn a_feed_is_what_others_did_to_the_files_that_an_author_has_changed() {
    let directory = directory();
    let commits = exported(&fs::read_to_string(EXPORT).unwrap());
    let follower = "Ines Okafor";
    let of = |commit: &&Exported| commit.author == follower;
    let followed =
        set(commits.iter().filter(of).flat_map(|c| &c.changes).map(|change| &change.path));
    let mut heard: Vec<_> = commits
        .iter()
        .filter(|commit| !of(commit))
        .filter(|commit| commit.changes.iter().any(|change| followed.contains(&change.path)))
        .collect();
    heard.sort_by_key(|commit| std::cmp::Reverse((commit.time, &commit.hash)));
    let expected: Vec<_> = heard
        .iter()
        .take(5)
        .map(|c| format!("  {}  {}: {}", calendar("date", c.time), c.author, c.subject))
        .collect();

    let output = succeed(activity_feed(&directory, &["--db", "feed.db"]));
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, feed) = output.split_once(&format!("What {follower} hears of\n")).unwrap();
    assert_eq!(feed.lines().take(5).collect::<Vec<_>>(), expected);

    let alone = file(&directory, "alone.txt", header(1, "Ada", "1", "text") + "\n");
    let output = succeed(activity_feed(&directory, &["--html", "page.html", &alone]));
    let output = String::from_utf8_lossy(&output.stdout);
    assert!(output.contains("What Ada hears of\n  nothing: "), "{output}");
}

#[test]
fn the_chart_has_every_author_and_week() {
    let directory = directory();
    let mut expected: BTreeMap<_, u64> = BTreeMap::new();
    for commit in exported(&fs::read_to_string(EXPORT).unwrap()) {
        let monday = calendar("monday", commit.time);
        *expected.entry((commit.author, monday)).or_default() += 1;
    }
    let expected = expected.into_iter().map(|((author, monday), commits)| {
        let s = if commits == 1 { "" } else { "s" };
        format!("{author}: {commits} commit{s} in the week of {monday}")
    });
    run(&directory, &["--html", "page.html"]);
    let page = fs::read_to_string(directory.path().join("page.html")).unwrap();
    check_page(&page);
    let titles = page.split("<title>").skip(1).map(|title| title.split('<').next().unwrap());
    let squares = titles.filter(|title| title.contains(": ") && title.contains("week"));
    assert_eq!(set(squares.map(str::to_owned)), set(expected));
}

#[test]
fn a_second_run_records_nothing_new_and_says_so() {
    let directory = directory();
    let first = run(&directory, &["--db", "feed.db"]);
    let second = run(&directory, &["--db", "feed.db"]);
    assert_eq!(second["already_known"], first["commits"]);
    // All that is new in the log asks for the page.
    let events = first["events"].as_u64().unwrap() + 1;
    assert_eq!((&second["appended"], &second["events"]), (&json!(0), &json!(events)));
    assert_same_totals(&first, &second);
    let output = succeed(activity_feed(&directory, &["--db", "feed.db"]));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Nothing new was recorded"));
}

#[test]
fn without_a_file_for_the_events_only_the_page_is_left() {
    let directory = directory();
    run(&directory, &["--html", "page.html"]);
    assert_eq!(names(&directory), ["page.html"]);
    // It lies beside the events if there is such a file.
    let totals = run(&directory, &["--db", "feed.db"]);
    let page = fs::canonicalize(directory.path().join("feed.html")).unwrap();
    assert_eq!(fs::canonicalize(totals["html"].as_str().unwrap()).unwrap(), page);
}

#[test]
fn a_real_repository_is_read_with_everything_that_is_odd_in_it() {
    let directory = directory();
    let git = Repository::new(&directory);
    git.write("plain.txt", "one\ntwo\n");
    git.write("tab\tquote\"line\nend.txt", "odd\n");
    git.write("picture.png", b"\x89PNG\0\xff");
    let first = git.commit("Ada", "first line\nsecond line of the subject\n\nbody\n\ncommit 0\n");
    git.remove("plain.txt");
    git.write("moved {a => b}.txt", "one\ntwo\n");
    let renamed = git.commit("Bo <b", "a\ttab and \x1b[31mred");
    let branch = git.raw(&[&first], "Ada <a@b> 99999999999999 +0000", b"a day that never comes");
    let merge = git.raw(&[&renamed, &branch], " <> 1700000000 +0000", b"nobody merges");
    let damaged = git.raw(&[&merge], "Cy <c@d> yesterday", b"no date, and no text: \xff\xfe");
    let ancient = git.raw(&[&damaged], "Cy <c@d> -5 +0000", b"");
    git.reset(&ancient);
    // Other systems have no such names.
    #[cfg(target_os = "linux")]
    git.write(OsStr::from_bytes(b"n\xffm.txt"), "not text\n");
    #[cfg(not(target_os = "linux"))]
    git.write("name.txt", "not text\n");
    git.commit("Ada", "the last");

    let totals = run(&directory, &["--db", "feed.db", git.path()]);
    for (key, expected) in [
        ("commits", 7),
        // Ada, Bo, Cy and nobody.
        ("authors", 4),
        ("undated", 2),
        ("files", 5),
        ("changes", 6),
        ("added", 2 + 1 + 2 + 1),
        ("deleted", 2),
        ("events", 7 + 6 + 2),
        ("letters", 0),
    ] {
        assert_eq!(totals[key], expected, "{key} of {totals}");
    }
    let commits = "SELECT subject FROM feed_commits ORDER BY subject";
    let commits: Vec<_> = rows(&directory, "feed.views.db", commits).concat();
    let expected = [
        "",
        "a day that never comes",
        "a tab and  [31mred",
        "first line second line of the subject",
        "no date, and no text: \u{fffd}\u{fffd}",
        "nobody merges",
        "the last",
    ];
    assert_eq!(commits, expected.map(text));
    check_page(&fs::read_to_string(directory.path().join("feed.html")).unwrap());

    // The export of the same repository holds the same commits.
    let readme = include_str!("../examples/activity_feed/README.md");
    let command = readme.lines().find_map(|line| line.strip_prefix("git ")).unwrap();
    let (options, format) = command.split_once(" --format='").unwrap();
    let format = format!("--format={}", format.trim_end_matches('\''));
    let export = git.run(&[&options.split(' ').collect::<Vec<_>>()[..], &[&format]].concat());
    fs::write(directory.path().join("export.txt"), export.stdout).unwrap();
    let again = run(&directory, &["--db", "feed.db", "export.txt"]);
    assert_eq!((&again["already_known"], &again["appended"]), (&json!(7), &json!(0)));
    assert_same_totals(&totals, &again);
}

#[test]
fn a_run_reads_only_the_commits_that_are_new() {
    let directory = directory();
    let git = Repository::new(&directory);
    for number in 0..5 {
        git.write("a.txt", number.to_string());
        git.commit("Ada", "more");
    }
    let arguments = ["--db", "feed.db", git.path()];
    assert_eq!(run(&directory, &arguments)["read"], 5);
    assert_eq!(run(&directory, &arguments)["read"], 0);
    git.write("b.txt", "b");
    git.commit("Bo", "one more");
    let totals = run(&directory, &arguments);
    assert_eq!((&totals["read"], &totals["already_known"]), (&json!(1), &json!(0)));
    // The commit, its change, and how far the history was read.
    assert_eq!((&totals["appended"], &totals["commits"]), (&json!(3), &json!(6)));

    // A directory of the repository stands for all of it.
    git.write("inner/c.txt", "c");
    git.commit("Bo", "deeper");
    let inner = format!("{}/inner", git.path());
    assert_eq!(run(&directory, &["--db", "feed.db", &inner])["commits"], 7);
}

#[test]
fn a_history_that_was_rewritten_is_read_anew_and_nothing_is_recorded_twice() {
    let directory = directory();
    let git = Repository::new(&directory);
    for number in 0..5 {
        git.write("a.txt", number.to_string());
        git.commit("Ada", "more");
    }
    let arguments = ["--json", "--db", "feed.db", git.path()];
    succeed(activity_feed(&directory, &arguments));
    git.run(&["commit", "--quiet", "--amend", "--allow-empty", "-m", "said otherwise"]);
    let output = succeed(activity_feed(&directory, &arguments));
    assert!(String::from_utf8_lossy(&output.stderr).contains("was rewritten"), "{output:?}");
    let again = totals(&output);
    assert_eq!((&again["read"], &again["already_known"]), (&json!(5), &json!(4)));
    // What was committed has happened, also if the history keeps quiet about it.
    assert_eq!((&again["commits"], &again["changes"]), (&json!(6), &json!(6)));
    assert_eq!(run(&directory, &arguments[1..])["read"], 0);

    // Another history is told from a rewritten one by nobody; its commits are new all the same.
    let elsewhere = self::directory();
    let other = Repository::new(&elsewhere);
    other.write("a.txt", "other");
    other.commit("Cy", "elsewhere");
    let output = succeed(activity_feed(&directory, &["--json", "--db", "feed.db", other.path()]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("was rewritten"), "{output:?}");
    assert_eq!(totals(&output)["commits"], 7);
}

#[cfg(unix)]
#[test]
fn a_run_that_is_killed_at_any_moment_ends_as_one_that_is_not() {
    use std::os::unix::process::ExitStatusExt;

    const SIGKILL: i32 = 9;
    let origin = directory();
    let git = Repository::large(&origin, 2_500);
    let undisturbed = directory();
    let arguments = ["--db", "feed.db", git.path()];
    let started = Instant::now();
    let expected = run(&undisturbed, &arguments);
    let usual = started.elapsed();
    assert_eq!((&expected["commits"], &expected["changes"]), (&json!(2_500), &json!(5_000)));
    let mut random = Random(0x7469_6469_6e67_7321);
    for _ in 0..2 {
        let directory = directory();
        let mut kills = 0;
        let mut delays = Vec::new();
        while kills < 5 {
            let delay = usual.mul_f64(random.fraction() * 0.9);
            delays.push(delay);
            let mut child = activity_feed(&directory, &arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(delay);
            child.kill().unwrap();
            // A run that was over before the kill does not count.
            if child.wait().unwrap().signal() == Some(SIGKILL) {
                kills += 1;
            }
            assert!(delays.len() < 100, "hardly a run was killed in time: {delays:?}");
        }
        let totals = run(&directory, &arguments);
        assert_same_totals(&totals, &expected);
        for (file, sql) in [
            ("feed.views.db", "SELECT * FROM files ORDER BY path"),
            ("feed.views.db", "SELECT * FROM feed_commits ORDER BY hash"),
            ("feed.views.db", "SELECT * FROM feed_changes ORDER BY hash, path"),
            ("feed.views.db", "SELECT * FROM feed_follows ORDER BY author, path"),
            (
                "feed.db",
                "SELECT stream, version, name, payload, command_id FROM events
                 WHERE name NOT LIKE 'history.%' ORDER BY stream, version",
            ),
        ] {
            assert!(
                rows(&directory, file, sql) == rows(&undisturbed, file, sql),
                "{sql} differs from an undisturbed run's after kills at {delays:?}"
            );
        }
    }
}

#[cfg(unix)]
#[test]
fn a_git_that_dies_half_way_is_reported_and_the_next_run_completes_the_history() {
    use std::os::unix::fs::PermissionsExt;

    let origin = directory();
    let git = Repository::large(&origin, 500);
    let bytes = git.run(&["log", "--numstat", "--format=%H%n%an%n%at%n%s%ncommit"]).stdout.len();
    let directory = directory();
    let real = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|path| path.join("git"))
        .find(|path| path.is_file())
        .expect("git is needed by this test");
    let expected = run(&self::directory(), &["--html", "page.html", git.path()]);
    let bin = directory.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for cut in [0, 10, 41, 1_001, bytes / 3, bytes / 2, bytes / 2 + 7] {
        // Says what git says, but breaks off the history after so many bytes.
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *' log '*) '{0}' \"$@\" | head -c {cut}; exit 3;; esac\nexec '{0}' \"$@\"\n",
            real.display()
        );
        fs::write(bin.join("git"), script).unwrap();
        fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut broken = activity_feed(&directory, &["--db", "feed.db", git.path()]);
        let path = std::env::var("PATH").unwrap();
        let output = broken.env("PATH", format!("{}:{path}", bin.display())).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("git log did not come to its end: exit status: 3"), "{error}");
    }
    let totals = run(&directory, &["--db", "feed.db", git.path()]);
    assert_same_totals(&totals, &expected);
}

#[cfg(unix)]
#[test]
fn a_page_that_a_run_was_killed_over_is_drawn_by_the_next_one() {
    let directory = directory();
    // With names as long as they may be the page is larger than what a pipe holds, so that it is not written in one go.
    let name = |number: usize| format!("{number}{}", "&".repeat(4_000));
    let changes: Vec<_> = (0..15).map(|number| format!("1\t0\t{}\n", name(number))).collect();
    let export = header(1, "Ada", "1", "text") + "\n\n" + &changes.concat();
    let export = file(&directory, "export.txt", export);
    let part = directory.path().join("first.html.part");
    let made = Command::new("mkfifo").arg(&part).status().unwrap();
    assert!(made.success(), "mkfifo is needed by this test");

    let mut run_that_is_killed =
        activity_feed(&directory, &["--db", "feed.db", "--html", "first.html", &export]);
    let mut child = run_that_is_killed.stderr(Stdio::null()).spawn().unwrap();
    let (sender, drawing) = std::sync::mpsc::channel();
    std::thread::spawn({
        let part = part.clone();
        move || {
            // Opens when the program begins to draw.
            let mut pipe = fs::File::open(part).unwrap();
            pipe.read_exact(&mut [0]).unwrap();
            sender.send(pipe).unwrap();
        }
    });
    let pipe = drawing.recv_timeout(Duration::from_secs(60));
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    let pipe = pipe.expect("the page should have been begun");
    fs::remove_file(&part).unwrap();
    drop(pipe);
    assert!(!directory.path().join("first.html").exists());

    run(&directory, &["--db", "feed.db", "--html", "second.html", &export]);
    let page = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    check_page(&page("first.html"));
    assert!(page("first.html") == page("second.html"));
}

#[test]
fn a_page_that_was_drawn_is_left_alone_also_when_the_views_are_lost() {
    let directory = directory();
    run(&directory, &["--db", "feed.db", "--html", "first.html"]);
    let first = directory.path().join("first.html");
    fs::remove_file(&first).unwrap();
    let expected = run(&directory, &["--db", "feed.db", "--html", "second.html"]);
    assert!(!first.exists());
    for name in names(&directory).iter().filter(|name| name.starts_with("feed.views.db")) {
        fs::remove_file(directory.path().join(name)).unwrap();
    }
    let totals = run(&directory, &["--db", "feed.db", "--html", "second.html"]);
    assert_same_totals(&totals, &expected);
    assert!(!first.exists());
}

#[test]
fn a_page_that_cannot_be_written_fails_the_run_and_is_tried_again_by_the_next() {
    let directory = directory();
    let arguments = ["--db", "feed.db", "--html", "later/page.html"];
    for _ in 0..2 {
        fail(&directory, &arguments, 1, "later/page.html cannot be written");
    }
    // No other page waits for it.
    assert_eq!(run(&directory, &arguments[..2])["letters"], 2);
    let output = succeed(activity_feed(&directory, &arguments[..2]));
    assert!(String::from_utf8_lossy(&output.stdout).contains("2 events are parked"), "{output:?}");

    fs::create_dir(directory.path().join("later")).unwrap();
    assert_eq!(run(&directory, &arguments)["letters"], 0);
    check_page(&fs::read_to_string(directory.path().join("later/page.html")).unwrap());
}

#[test]
fn an_event_that_a_view_cannot_handle_parks_its_file_and_no_other() {
    let directory = directory();
    let expected = run(&directory, &["--html", "page.html"]);
    let totals = run(&directory, &["--html", "page.html", "--poison"]);
    let story = &totals["poison"];
    let events = expected["events"].as_u64().unwrap();
    assert_eq!(
        (&story["failed"], &story["waiting"]),
        (&json!(1), &json!([events + 1, events + 2]))
    );
    assert_eq!(story["meanwhile"], expected["changes"]);
    assert_eq!((&story["handled"], &story["left"]), (&json!(3), &json!(0)));
    // The last of the three was handled last.
    assert_eq!(story["newest"].as_str().unwrap().trim_start_matches('0'), "3");
    assert_eq!(totals["letters"], 0);
    let more = |key: &str| totals[key].as_u64().unwrap() - expected[key].as_u64().unwrap();
    assert_eq!([more("files"), more("changes"), more("added")], [1, 3, 1 + 2 + 3]);

    let output = succeed(activity_feed(&directory, &["--html", "page.html", "--poison"]));
    let output = String::from_utf8_lossy(&output.stdout);
    assert!(output.contains("was parked: \"poison\\0.txt\" is no name of a file"), "{output}");
}

#[test]
fn nothing_that_stands_in_a_history_is_taken_for_html() {
    let directory = directory();
    let hostile = "</title><script>alert('\"&')</script>";
    let export = format!(
        "{}\n1\t2\t{hostile}\n{}\n3\t4\t{hostile}\n",
        header(1, hostile, "1700000000", hostile),
        header(2, "Bo", "1700000001", hostile),
    );
    let export = file(&directory, "<i>&amp;.txt", export);
    run(&directory, &["--html", "page.html", &export]);
    let page = fs::read_to_string(directory.path().join("page.html")).unwrap();
    check_page(&page);
    assert!(page.contains("<h1>&lt;i&gt;&amp;amp;</h1>"), "{page}");
    let escaped = "&lt;/title&gt;&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;";
    assert!(page.matches(escaped).count() >= 5, "{page}");
}

#[test]
fn a_page_about_nothing_and_one_of_all_times_are_pages() {
    let directory = directory();
    let times = ["-9223372036854775808", "-1", "0", "1700000000", "9223372036854775807", "1e9"];
    let of_all_times =
        times.iter().enumerate().map(|(n, time)| header(n, "Ada", time, "") + "\n\n");
    for (export, commits, undated) in [
        (String::new(), 0, 0),
        (header(1, "Ada", "", "no date"), 1, 1),
        (of_all_times.collect(), 6, 1),
    ] {
        let export = file(&directory, "export.txt", export + "\n");
        let totals = run(&directory, &["--html", "page.html", &export]);
        assert_eq!((&totals["commits"], &totals["undated"]), (&json!(commits), &json!(undated)));
        check_page(&fs::read_to_string(directory.path().join("page.html")).unwrap());
        succeed(activity_feed(&directory, &["--html", "page.html", &export]));
    }
    // The last page ends with the newest week that is not in the future.
    let page = fs::read_to_string(directory.path().join("page.html")).unwrap();
    assert!(page.contains("Ada: 1 commit in the week of 2023-11-13"), "{page}");
}

#[test]
fn what_is_no_history_is_answered_with_one_line_and_exit_code_1() {
    let directory = directory();
    fail(&directory, &["missing"], 1, "missing cannot be read");
    // Beside the repository that the tests may stand in, so that git does not find that one.
    fail(&directory, &["."], 1, ". cannot be read: fatal: not a git repository");
    git(directory.path(), &["init", "--quiet", "empty"]);
    fail(&directory, &["empty"], 1, "empty cannot be read: the repository has no commit yet");
    let note = file(&directory, "note.txt", "not a history, but a note\n");
    fail(&directory, &[&note], 1, "line 1 should be `commit HASH`");
    let whole = header(1, "Ada", "1", "text");
    for (export, why) in [
        (whole.replace("author", "writer"), "line 2 should be `author NAME`"),
        (whole.replace(&"0".repeat(30), ""), "line 1 should be `commit HASH`"),
        (whole.clone() + "\n\n1\tx\tpath", "line 6 should be `ADDED DELETED PATH`"),
        (whole.clone() + "\n\n1\t2\t\"pa\\qth\"", "line 6 should be `ADDED DELETED PATH`"),
        (whole.split("\ntime").next().unwrap().into(), "breaks off in the middle of a commit"),
    ] {
        let export = file(&directory, "export.txt", export + "\n");
        fail(&directory, &[&export], 1, why);
    }
    let broken = file(&directory, "export.txt", whole + "\n\n1\t2\tpat");
    fail(&directory, &[&broken], 1, "breaks off in the middle of a commit, at line 6");
    fail(&directory, &["--html", "no/such/page.html"], 1, "no/such/page.html cannot be written");
    fail(&directory, &["--db", &note], 1, "is not a Tidings");

    let mut without_git = activity_feed(&directory, &["empty"]);
    let output = without_git.env("PATH", "").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("git cannot be run, is it installed?"), "{error}");
}

#[test]
fn wrong_use_is_answered_with_one_line_and_exit_code_2() {
    let directory = directory();
    for arguments in
        [&["--frobnicate"][..], &["--db"], &["one", "two"], &["--poison", "--db", "feed.db"]]
    {
        fail(&directory, arguments, 2, "activity_feed: ");
    }
    assert_eq!(names(&directory), [""; 0]);
    let help = succeed(activity_feed(&directory, &["--help"]));
    assert!(String::from_utf8_lossy(&help.stdout).contains("--db FILE"));
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The example, to be run in `directory`.
fn activity_feed(directory: &TempDir, arguments: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let program = test
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples")
        .join(format!("activity_feed{}", std::env::consts::EXE_SUFFIX));
    assert!(
        program.exists(),
        "{} is missing: run `cargo build --example activity_feed` first",
        program.display()
    );
    let mut command = Command::new(program);
    command.current_dir(directory).args(arguments);
    command.env("GIT_CEILING_DIRECTORIES", directory.path().parent().unwrap()).env("LC_ALL", "C");
    command
}

#[track_caller]
fn succeed(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

#[track_caller]
fn fail(directory: &TempDir, arguments: &[&str], code: i32, why: &str) {
    let output = activity_feed(directory, arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    assert!(
        error.starts_with("activity_feed: ") && error.contains(why) && error.lines().count() == 1,
        "{arguments:?}: {error}"
    );
}

/// Runs the example to its end, and returns the object that it prints.
#[track_caller]
fn run(directory: &TempDir, arguments: &[&str]) -> Value {
    let arguments = [&["--json"], arguments].concat();
    totals(&succeed(activity_feed(directory, &arguments)))
}

#[track_caller]
fn totals(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// What the views say is the same.
#[track_caller]
fn assert_same_totals(left: &Value, right: &Value) {
    for key in ["commits", "authors", "undated", "files", "changes", "added", "deleted", "letters"]
    {
        assert_eq!(left[key], right[key], "{key} of {left} and {right}");
    }
}

/// It is one page that needs nothing else: every tag is closed where it should be, and nothing is loaded or run.
#[track_caller]
fn check_page(page: &str) {
    let body = page.strip_prefix("<!DOCTYPE html>").unwrap();
    let mut open = Vec::new();
    for tag in body.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap_or_else(|| panic!("a tag has no end: {tag}"));
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        assert!(!["script", "link", "iframe", "img"].contains(&name), "{tag}");
        assert!(!["src=", "href=", " on"].iter().any(|part| tag.contains(part)), "{tag}");
    }
    assert_eq!(open, [""; 0]);
    assert!(!page.contains("url(") && !page.contains("@import"));
    assert!(page.chars().all(|character| character == '\n' || !character.is_control()));
}

/// A commit as the export says it.
struct Exported {
    hash: String,
    author: String,
    time: i64,
    subject: String,
    changes: Vec<Change>,
}

struct Change {
    path: String,
    added: u64,
    deleted: u64,
}

/// The commits of an export that is as it should be; only paths in Latin script are unquoted.
fn exported(export: &str) -> Vec<Exported> {
    let commits = export.split("commit ").filter(|commit| commit.contains("\nauthor "));
    let commit = |text: &str| {
        let mut lines = text.lines();
        let mut field = |label: &str| lines.next().unwrap().strip_prefix(label).unwrap().to_owned();
        let (hash, author) = (field(""), field("author "));
        let (time, subject) = (field("time ").parse().unwrap(), field("subject "));
        let changes = lines.filter(|line| !line.is_empty()).map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            let lines = |column: &str| column.parse().unwrap_or(0);
            let path = columns[2].trim_matches('"');
            let path = path.replace(r"\303\266", "ö").replace(r"\305\202", "ł");
            Change { path, added: lines(columns[0]), deleted: lines(columns[1]) }
        });
        Exported { hash, author, time, subject, changes: changes.collect() }
    };
    commits.map(commit).collect()
}

/// The first lines of a commit in an export.
fn header(number: usize, author: &str, time: &str, subject: &str) -> String {
    format!("commit {number:040}\nauthor {author}\ntime {time}\nsubject {subject}")
}

/// The day, or the Monday of the week, as SQLite's calendar has it.
fn calendar(what: &str, seconds: i64) -> String {
    let sql = match what {
        "monday" => "SELECT date(?1, 'unixepoch', 'weekday 0', '-6 days')",
        _ => "SELECT date(?1, 'unixepoch')",
    };
    let calendar = Connection::open_in_memory().unwrap();
    calendar.query_row(sql, [seconds], |row| row.get(0)).unwrap()
}

/// Writes a file into `directory`, and returns its name.
fn file(directory: &TempDir, name: &str, content: impl AsRef<[u8]>) -> String {
    fs::write(directory.path().join(name), content).unwrap();
    name.to_owned()
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn rows(directory: &TempDir, file: &str, sql: &str) -> Vec<Vec<Sql>> {
    let database = Connection::open(directory.path().join(file)).unwrap();
    let mut query = database.prepare(sql).unwrap();
    let columns = query.column_count();
    let rows =
        query.query_map([], |row| (0..columns).map(|column| row.get(column)).collect()).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn text(text: &str) -> Sql {
    Sql::Text(text.into())
}

fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    items.into_iter().collect()
}

/// A repository that a test makes.
struct Repository {
    path: String,
}

impl Repository {
    fn new(directory: &TempDir) -> Self {
        git(directory.path(), &["init", "--quiet", "repository"]);
        Self { path: directory.path().join("repository").to_str().unwrap().to_owned() }
    }

    /// One with so many commits by 7 authors; each changes two of 40 files.
    fn large(directory: &TempDir, commits: usize) -> Self {
        let repository = Self::new(directory);
        let mut stream = String::new();
        for number in 0..commits {
            let who = format!("Author {} <a@b> {} +0000", number % 7, 1_600_000_000 + number * 999);
            stream += &format!("commit HEAD\nauthor {who}\ncommitter {who}\n");
            stream += &format!("data <<END\nnumber {number}\nEND\n");
            for file in [number % 23, 23 + number % 17] {
                stream += &format!("M 644 inline {file}.txt\ndata <<END\n{number}\nEND\n");
            }
        }
        let mut import = command(Path::new(&repository.path), &["fast-import", "--quiet"]);
        let mut import = import.stdin(Stdio::piped()).spawn().unwrap();
        import.stdin.take().unwrap().write_all(stream.as_bytes()).unwrap();
        assert!(import.wait().unwrap().success());
        repository
    }

    fn path(&self) -> &str {
        &self.path
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Output {
        git(Path::new(&self.path), arguments)
    }

    fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = Path::new(&self.path).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(Path::new(&self.path).join(name)).unwrap();
    }

    /// Commits what was written and removed, and returns the hash.
    #[track_caller]
    fn commit(&self, author: &str, message: &str) -> String {
        self.run(&["add", "--all"]);
        let name = format!("user.name={author}");
        self.run(&["-c", &name, "commit", "--quiet", "-m", message]);
        self.said(&["rev-parse", "HEAD"])
    }

    /// Writes a commit that changes nothing, with an author as no `git commit` would take it, and returns the hash.
    #[track_caller]
    fn raw(&self, parents: &[&str], author: &str, message: &[u8]) -> String {
        let first = parents.first().expect("a parent");
        let mut commit =
            format!("tree {}\n", self.said(&["rev-parse", &format!("{first}^{{tree}}")]));
        for parent in parents {
            commit += &format!("parent {parent}\n");
        }
        commit += &format!("author {author}\ncommitter C <c@d> 1700000000 +0000\n\n");
        let content = [commit.as_bytes(), message].concat();
        fs::write(Path::new(&self.path).join(".git/raw"), content).unwrap();
        self.said(&["hash-object", "-t", "commit", "-w", "--literally", ".git/raw"])
    }

    fn reset(&self, commit: &str) {
        self.run(&["reset", "--quiet", "--hard", commit]);
    }

    #[track_caller]
    fn said(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.run(arguments).stdout).unwrap().trim().to_owned()
    }
}

#[track_caller]
fn git(directory: &Path, arguments: &[&str]) -> Output {
    succeed(command(directory, arguments))
}

/// Git without anybody's settings.
fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut git = Command::new("git");
    git.current_dir(directory).args(["-c", "user.email=a@b", "-c", "user.name=x"]).args(arguments);
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", directory.join("none"));
    git.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").env_remove("GIT_INDEX_FILE");
    git
}

/// Numbers that look random, the same in each run (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    /// A number from 0 up to 1.
    fn fraction(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as f64 / u64::MAX as f64
    }
}
