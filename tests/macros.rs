//! What the macros accept, and what they say about what they do not. The `.stderr` files are reviewed like prose; after a
//! change of wording run with `TRYBUILD=overwrite` and read the difference.
#![cfg(feature = "macros")]

#[test]
fn right_use_compiles_and_wrong_use_says_what_to_write() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
