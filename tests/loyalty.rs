//! The loyalty programme keeps its promises on real purchases: exact totals, nothing twice, nothing lost to a kill.
//!
//! The tests run the example as a program of its own, which `cargo test` builds beside them. If only this file is tested,
//! build it first: `cargo build --example loyalty`.
#![cfg(all(feature = "macros", feature = "sqlite"))]
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what helps a test may panic as the test itself"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidings::sqlite::rusqlite::{Connection, types::Value as Sql};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/loyalty/cdnow-sample.txt");

#[test]
fn the_totals_of_the_sample_are_exact() {
    let directory = directory();
    let totals = run(&directory, &[]);
    assert_sample(&totals);
    assert_eq!(totals["already_known"], 0);
    assert_eq!(totals["appended"], totals["events"]);
    assert_eq!(totals["rejected"], 0);
    assert_eq!(totals["malformed"], 0);
}

#[test]
fn the_views_agree_with_a_count_of_the_file() {
    let directory = directory();
    run(&directory, &[]);
    let of_months = "SELECT sum(purchases), sum(cds), sum(cents), count(*) FROM months";
    assert_eq!(
        rows(&directory, "loyalty.views.db", of_months),
        [[6_919, 16_479, 24_409_194, 18].map(Sql::Integer)]
    );
    let march = "SELECT purchases, cds, cents FROM months WHERE month = '1997-03'";
    assert_eq!(
        rows(&directory, "loyalty.views.db", march),
        [counted(|_, date| date.starts_with("199703"))]
    );
    let customer = "SELECT purchases, cds, cents FROM customers WHERE member = '19339'";
    assert_eq!(
        rows(&directory, "loyalty.views.db", customer),
        [counted(|customer, _| customer == "19339")]
    );
}

#[test]
fn a_second_run_appends_nothing_and_says_so() {
    let directory = directory();
    let first = run(&directory, &[]);
    let second = run(&directory, &[]);
    assert_sample(&second);
    assert_eq!(second["appended"], 0);
    assert_eq!(second["already_known"], 6_919);
    assert_eq!(second["events"], first["events"]);

    let summary = succeed(loyalty(&directory, &[]));
    let text = String::from_utf8_lossy(&summary.stdout);
    assert!(text.contains("Nothing new"), "{text}");
}

#[test]
fn the_same_file_is_known_under_another_name_and_with_other_line_ends() {
    let directory = directory();
    run(&directory, &[]);
    let text = fs::read_to_string(SAMPLE).unwrap().replace("\r\n", "\n");
    let totals = run(&directory, &[&file(&directory, "renamed.txt", text)]);
    assert_sample(&totals);
    assert_eq!(totals["appended"], 0);
}

#[test]
fn of_a_file_that_has_grown_only_the_new_lines_are_recorded() {
    let directory = directory();
    let text = fs::read_to_string(SAMPLE).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let totals = run(&directory, &[&file(&directory, "p.txt", lines[..4_000].concat())]);
    assert_eq!(totals["purchases"], 4_000);
    let totals = run(&directory, &[&file(&directory, "p.txt", &text)]);
    assert_sample(&totals);
    assert_eq!(totals["already_known"], 4_000);
}

#[test]
fn another_file_does_not_collide_with_the_first() {
    let directory = directory();
    let first = file(&directory, "a", "00001 19970101 1 10.00\n00002 19970101 1 10.00\n");
    let second = file(&directory, "b", "00003 19970101 1 10.00\n00002 19970101 1 10.00\n");
    assert_eq!(run(&directory, &[&first])["purchases"], 2);
    assert_eq!(run(&directory, &[&second])["purchases"], 4);
    assert_eq!(run(&directory, &[&first])["appended"], 0);
}

#[cfg(unix)]
#[test]
fn a_run_that_is_killed_at_any_moment_ends_as_one_that_is_not() {
    use std::os::unix::process::ExitStatusExt;

    const SIGKILL: i32 = 9;
    let undisturbed = directory();
    let started = Instant::now();
    let expected = run(&undisturbed, &[]);
    let usual = started.elapsed();
    let mut random = Random(0x7469_6469_6e67_7321);
    for durability in ["os", "fsync", "os", "fsync"] {
        let directory = directory();
        let arguments = ["--durability", durability];
        let mut kills = 0;
        let mut delays = Vec::new();
        while kills < 5 {
            let delay = usual.mul_f64(random.fraction() * 0.9);
            delays.push(delay);
            let mut child = loyalty(&directory, &arguments)
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
        assert_sample(&totals);
        assert_eq!(totals["events"], expected["events"], "killed after {delays:?}");
        for (file, sql) in [
            ("loyalty.views.db", "SELECT * FROM months ORDER BY month"),
            ("loyalty.views.db", "SELECT * FROM customers ORDER BY member"),
            (
                "loyalty.db",
                "SELECT stream, version, name, payload, command_id FROM events ORDER BY stream, version",
            ),
        ] {
            assert!(
                rows(&directory, file, sql) == rows(&undisturbed, file, sql),
                "{sql} differs from an undisturbed run's after kills at {delays:?}"
            );
        }
    }
}

#[test]
fn malformed_lines_are_counted_and_named_and_nothing_else_is_lost() {
    let directory = directory();
    let lines: [(&[u8], &str); 20] = [
        (b" 00004 0001 19970101  2   29.33\r", ""),
        (b"", ""),
        (b"   \t \r", ""),
        (b"00004 0001 19970101 2", "has 4 columns, not 5"),
        (b"00004 19970101 2 29.33", "has 4 columns, not 5"),
        (b"00004 0001 19970101 2 29.33 1", "has 6 columns, not 5"),
        (b"00004 0001 19970230 2 29.33", "date \"19970230\""),
        (b"00004 0001 19971301 2 29.33", "date \"19971301\""),
        (b"00004 0001 1997-01-01 2 29.33", "date \"1997-01-01\""),
        (b"00004 0001 19970101 -2 29.33", "number of CDs \"-2\""),
        (b"00004 0001 19970101 99999999999999999999 1.00", "number of CDs"),
        (b"00004 0001 19970101 2 99999999999999999999999.00", "a billion dollars or more"),
        (b"00004 0001 19970101 2 29.333", "finer than a cent"),
        (b"00004 0001 19970101 2 2e3", "dollars \"2e3\""),
        (b"customer one bought two CDs", "customer id"),
        (b"0000\xff 0001 19970101 2 29.33", "not UTF-8"),
        (&[b'7'; 5_000], "longer than 1024 bytes"),
        (b"\0\0\0\0 0 0 0 0", "customer id"),
        (b"00004 0001 20000229 2 0.00", ""),
        (b"00004 0001 20000301 1 0.5", ""),
    ];
    let path = file(&directory, "broken.txt", lines.map(|(line, _)| line).join(&b'\n'));
    let output = succeed(loyalty(&directory, &["--json", &path]));
    let totals = totals(&output);
    assert_eq!(totals["malformed"], 15, "{totals}");
    assert_eq!(totals["purchases"], 3);
    assert_eq!(totals["lines"], 18);
    assert_eq!(totals["cents"], 2_933 + 50);
    let errors = String::from_utf8_lossy(&output.stderr);
    let mut errors = errors.lines();
    for (number, (_, why)) in (1..).zip(lines).filter(|(_, (_, why))| !why.is_empty()) {
        let error = errors.next().unwrap_or_default();
        let start = format!("line {number}: malformed: ");
        assert!(error.starts_with(&start) && error.contains(why), "{error}");
    }
    assert_eq!(errors.next(), None);
}

#[test]
fn a_corrected_line_is_the_only_new_one() {
    let directory = directory();
    let broken = "00004 19970101 2 29.33\n00005 1997O101 1 10.00\n00006 19970101 1 5.00\n";
    let totals = run(&directory, &[&file(&directory, "p.txt", broken)]);
    assert_eq!((&totals["purchases"], &totals["malformed"]), (&json!(2), &json!(1)));
    let corrected = broken.replace('O', "0");
    let totals = run(&directory, &[&file(&directory, "p.txt", corrected)]);
    assert_eq!((&totals["purchases"], &totals["already_known"]), (&json!(3), &json!(2)));
}

#[test]
fn rejected_lines_are_counted_and_stay_rejected() {
    let directory = directory();
    let path = file(
        &directory,
        "p.txt",
        "00004 19970201 2 29.33\n\
         00004 19970131 1 10.00\n\
         00004 19970202 1 -10.00\n\
         00004 19970201 2 29.33\n\
         00005 19970101 1 7.00\n",
    );
    for appended in [json!(5), json!(0)] {
        let output = succeed(loyalty(&directory, &["--json", &path]));
        let totals = totals(&output);
        assert_eq!(totals["rejected"], 2);
        assert_eq!(totals["purchases"], 3);
        assert_eq!(totals["cents"], 2 * 2_933 + 700);
        assert_eq!(totals["appended"], appended);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("line 2: rejected: "), "{errors}");
        assert!(errors.contains("line 3: rejected: a purchase cannot cost -$10.00"), "{errors}");
    }
}

#[test]
fn points_expire_and_a_tier_is_lost_at_the_turn_of_the_year() {
    let directory = directory();
    let path = file(
        &directory,
        "p.txt",
        "00001 19970101 9 120.99\n\
         00001 19971231 1 10.00\n\
         00001 19980101 1 50.00\n",
    );
    run(&directory, &[&path]);
    let events = rows(
        &directory,
        "loyalty.db",
        "SELECT name || ' ' || payload FROM events ORDER BY position",
    );
    let events: Vec<_> = events.into_iter().flatten().collect();
    // 120 points make silver, which earns 12 for 10 dollars; of 132 half expires, and 66 are not enough for silver; 50
    // more are.
    let expected = [
        r#"member.enrolled {"on":19970101}"#,
        r#"member.purchased {"on":19970101,"cds":9,"price":12099,"points":120}"#,
        r#"member.tier_reached {"tier":"silver"}"#,
        r#"member.purchased {"on":19971231,"cds":1,"price":1000,"points":12}"#,
        r#"member.points_expired {"points":66}"#,
        r#"member.tier_lost {"tier":"basic"}"#,
        r#"member.purchased {"on":19980101,"cds":1,"price":5000,"points":50}"#,
        r#"member.tier_reached {"tier":"silver"}"#,
    ];
    assert_eq!(events, expected.map(|event| Sql::Text(event.into())));
}

#[test]
fn the_format_of_the_full_data_set_is_read_too() {
    let directory = directory();
    let mut text = "ID DATE CDS DOLLARS\r\n".to_owned();
    for line in fs::read_to_string(SAMPLE).unwrap().lines() {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [customer, _, date, cds, dollars] = columns[..] else {
            panic!("{line}");
        };
        text += &format!(" {customer} {date} {cds:>2} {dollars:>7}\r\n");
    }
    let path = file(&directory, "full.txt", text);
    assert_sample(&run(&directory, &[&path]));
    assert_eq!(run(&directory, &[&path])["appended"], 0);
}

#[test]
fn a_file_without_purchases_is_no_error() {
    let directory = directory();
    let totals = run(&directory, &[&file(&directory, "empty.txt", "")]);
    assert_eq!((&totals["lines"], &totals["cents"]), (&json!(0), &json!(0)));
}

#[test]
fn in_memory_the_totals_are_the_same_and_nothing_is_left() {
    let directory = directory();
    assert_sample(&run(&directory, &["--memory"]));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn the_summary_says_what_was_sold_and_where_the_data_lies() {
    let directory = directory();
    let summary = succeed(loyalty(&directory, &["--db", "shop.db"]));
    let text = String::from_utf8_lossy(&summary.stdout);
    for part in [
        "6,919 purchases of 2,357 customers: 16,479 CDs for $244,091.94",
        "1997-03      $43,472.10  ████",
        "silver",
        "19339         $6,552.70",
        "shop.db",
        "shop.views.db",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(summary.stderr.is_empty(), "the bar belongs on a terminal only");
}

#[test]
fn the_tiers_of_any_day_agree_with_a_count_of_the_file() {
    let directory = directory();
    for day in [19961231, 19970101, 19970315, 19971231, 19980101, 19980630] {
        let printed = run(&directory, &["--as-of", &day.to_string()]);
        let day_shown = format!("{}-{:02}-{:02}", day / 10_000, day / 100 % 100, day % 100);
        assert_eq!(printed["as_of"], day_shown.as_str());
        let tiers: Vec<_> = printed["tiers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|totals| {
                let number = |key: &str| totals[key].as_i64().unwrap();
                (totals["tier"].as_str().unwrap().to_owned(), number("members"), number("points"))
            })
            .collect();
        assert_eq!(tiers, tiers_of(day), "{day}");
    }
    // The day is printed as it may be written, and the views that serve are as they were.
    let shown = succeed(loyalty(&directory, &["--as-of", "1997-03-15"]));
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.starts_with("Members by tier at the end of 1997-03-15\n  basic "), "{shown}");
    assert_sample(&run(&directory, &[]));
}

/// The members of each tier and their points at the end of a day, counted from the file by the rules of the programme.
fn tiers_of(day: u32) -> Vec<(String, i64, i64)> {
    let mut members = std::collections::HashMap::<String, (u32, i64)>::new();
    let tier = |points: i64| match points {
        300.. => 2,
        100.. => 1,
        _ => 0,
    };
    for line in fs::read_to_string(SAMPLE).unwrap().lines() {
        let columns: Vec<_> = line.split_whitespace().collect();
        let (on, cents): (u32, i64) =
            (columns[2].parse().unwrap(), columns[4].replace('.', "").parse().unwrap());
        if on > day {
            continue;
        }
        let (year, points) = members.entry(columns[0].to_owned()).or_insert((on / 10_000, 0));
        *points >>= on / 10_000 - std::mem::replace(year, on / 10_000);
        *points += cents / 100 * [100, 125, 150][tier(*points)] / 100;
    }
    let mut tiers = ["basic", "silver", "gold"].map(|name| (name.to_owned(), 0, 0));
    for (_, points) in members.into_values() {
        tiers[tier(points)].1 += 1;
        tiers[tier(points)].2 += points;
    }
    tiers.into()
}

#[test]
fn a_members_story_tells_what_happened_when_and_from_which_line() {
    let directory = directory();
    let path = file(
        &directory,
        "p.txt",
        "00001 19970101 9 120.99\n\
         00002 19970101 1 5.00\n\
         00001 19971231 1 10.00\n\
         00001 19980101 1 50.00\n",
    );
    let shown = succeed(loyalty(&directory, &["--history", "1", &path]));
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let blocks: Vec<_> = shown.split("\n\n").collect();
    assert_eq!(blocks[0], "The story of customer 00001");
    let expected = [
        (
            "1997-01-01",
            1,
            "joined the programme\n  bought 9 CDs for $120.99 and earned 120 points\n  rose to silver",
        ),
        ("1997-12-31", 3, "bought 1 CD for $10.00 and earned 12 points"),
        (
            "1998-01-01",
            4,
            "lost 66 points at the turn of the year\n  fell to basic\n  \
             bought 1 CD for $50.00 and earned 50 points\n  rose to silver",
        ),
    ];
    for (block, (day, line, what)) in blocks[1..].iter().zip(expected) {
        let (head, told) = block.split_once('\n').unwrap();
        assert!(head.starts_with(&format!("{day}, recorded at 20")), "{head}");
        assert!(head.ends_with(&format!("Z from line {line} of p.txt")), "{head}");
        assert_eq!(told, format!("  {what}"));
    }
    assert_eq!(blocks[4..], ["That makes 116 points: silver.\n"]);

    let told = run(&directory, &["--history", "1", &path]);
    assert_eq!((&told["customer"], &told["points"]), (&json!("00001"), &json!(116)));
    assert_eq!(told["chapters"][2]["on"], "1998-01-01");
    assert_eq!(told["chapters"][2]["what"].as_array().unwrap().len(), 4);
    assert_eq!(told["chapters"][2]["line"], "4");
    fail(&directory, &["--history", "3", &path], 1, "no purchase of customer 00003 is recorded");
}

#[test]
fn the_story_of_a_customer_of_the_sample_has_a_chapter_for_each_line() {
    let directory = directory();
    let told = run(&directory, &["--memory", "--history", "00111"]);
    let purchases: i64 = match counted(|customer, _| customer == "00111")[0] {
        Sql::Integer(purchases) => purchases,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(told["chapters"].as_array().unwrap().len() as i64, purchases);
    assert_eq!(told["chapters"][0]["file"], "cdnow-sample.txt");
    assert_eq!(told["chapters"][0]["line"], "10");
}

#[test]
fn wrong_use_is_answered_with_one_line_and_exit_code_2() {
    let directory = directory();
    for arguments in [
        &["--frobnicate"][..],
        &["--durability", "paper"],
        &["--db"],
        &["--memory", "--db", "loyalty.db"],
        &["one.txt", "two.txt"],
        &["--as-of", "1997-02-30"],
        &["--as-of", "1-9970101"],
        &["--as-of"],
        &["--history", "Ada"],
        &["--history", "1", "--as-of", "19970101"],
    ] {
        fail(&directory, arguments, 2, "loyalty: ");
    }
    let help = succeed(loyalty(&directory, &["--help"]));
    assert!(String::from_utf8_lossy(&help.stdout).contains("--durability os|fsync"));
}

#[test]
fn what_cannot_be_opened_is_answered_with_one_line_and_exit_code_1() {
    let directory = directory();
    fail(&directory, &["missing.txt"], 1, "missing.txt cannot be read");
    fail(&directory, &["."], 1, ". cannot be read: it is a directory");
    let note = file(&directory, "note.txt", "not a database, but a note".repeat(99));
    fail(&directory, &["--db", &note], 1, "is not a Tidings");
    fail(&directory, &["--db", "no/such.db"], 1, "no/such.db");

    let held = tidings::Sqlite::open(directory.path().join("held.db")).unwrap();
    fail(&directory, &["--db", "held.db"], 1, "is in use");
    drop(held);
    run(&directory, &["--db", "held.db"]);
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The example, to be run in `directory`.
fn loyalty(directory: &TempDir, arguments: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let program = test
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples")
        .join(format!("loyalty{}", std::env::consts::EXE_SUFFIX));
    assert!(
        program.exists(),
        "{} is missing: run `cargo build --example loyalty` first",
        program.display()
    );
    let mut command = Command::new(program);
    command.current_dir(directory).args(arguments);
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
    let output = loyalty(directory, arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    assert!(
        error.starts_with("loyalty: ") && error.contains(why) && error.lines().count() == 1,
        "{arguments:?}: {error}"
    );
}

/// Runs the example to its end, and returns the object that it prints.
#[track_caller]
fn run(directory: &TempDir, arguments: &[&str]) -> Value {
    let arguments = [&["--json"], arguments].concat();
    totals(&succeed(loyalty(directory, &arguments)))
}

#[track_caller]
fn totals(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// The totals are those of the whole sample.
#[track_caller]
fn assert_sample(totals: &Value) {
    for (key, expected) in [
        ("lines", 6_919),
        ("purchases", 6_919),
        ("customers", 2_357),
        ("cds", 16_479),
        ("cents", 24_409_194),
    ] {
        assert_eq!(totals[key], expected, "{key} of {totals}");
    }
}

/// Writes a file into `directory`, and returns its path.
fn file(directory: &TempDir, name: &str, content: impl AsRef<[u8]>) -> String {
    let path: PathBuf = directory.path().join(name);
    fs::write(&path, content).unwrap();
    path.into_os_string().into_string().unwrap()
}

/// Purchases, CDs and cents of those lines of the sample whose customer and date `wanted` picks.
fn counted(wanted: impl Fn(&str, &str) -> bool) -> Vec<Sql> {
    let mut counts = [0, 0, 0];
    for line in fs::read_to_string(SAMPLE).unwrap().lines() {
        let columns: Vec<_> = line.split_whitespace().collect();
        if wanted(columns[0], columns[2]) {
            counts[0] += 1;
            counts[1] += columns[3].parse::<i64>().unwrap();
            counts[2] += columns[4].replace('.', "").parse::<i64>().unwrap();
        }
    }
    counts.map(Sql::Integer).to_vec()
}

fn rows(directory: &TempDir, file: impl AsRef<Path>, sql: &str) -> Vec<Vec<Sql>> {
    let database = Connection::open(directory.path().join(file)).unwrap();
    let mut query = database.prepare(sql).unwrap();
    let columns = query.column_count();
    let rows =
        query.query_map([], |row| (0..columns).map(|column| row.get(column)).collect()).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
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
