//! What the README shows is what the repository holds.

const README: &str = include_str!("../README.md");

#[test]
fn the_quickstart_is_the_bank_example() {
    let bank = include_str!("../examples/bank.rs");
    assert!(
        README.contains(&format!("```rust\n{bank}```")),
        "copy examples/bank.rs into the README"
    );
    assert!(bank.lines().count() <= 60);
}

#[test]
fn every_test_that_proves_a_promise_exists() {
    let rows = README.lines().filter(|line| line.starts_with("| ") && line.contains("](tests/"));
    let mut proofs = 0;
    for link in rows.flat_map(|row| row.split("](").skip(1)) {
        let path = link.split(')').next().unwrap_or_default();
        let test = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        assert!(test.is_file(), "{path} does not exist");
        proofs += 1;
    }
    assert!(proofs >= 16, "{proofs} proofs");
}
