//! Every store keeps the same contract.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic, in its helpers too")]

use std::cell::Cell;

use tidings::testing::store_contract;
use tidings::{Durability, Memory, Sqlite, SqliteOptions};

#[test]
fn the_memory_store_keeps_the_contract() {
    store_contract(Memory::new);
}

#[test]
fn the_sqlite_store_keeps_the_contract_synced() {
    sqlite_contract(Sqlite::options());
}

#[test]
fn the_sqlite_store_keeps_the_contract_unsynced() {
    sqlite_contract(Sqlite::options().durability(Durability::Os));
}

#[test]
fn the_sqlite_store_keeps_the_contract_when_all_goes_through_the_index() {
    sqlite_contract(Sqlite::options().durability(Durability::Os).tail(1));
}

#[track_caller]
fn sqlite_contract(options: SqliteOptions) {
    let directory = tempfile::tempdir().unwrap();
    let made = Cell::new(0);
    store_contract(|| {
        made.set(made.get() + 1);
        let path = directory.path().join(format!("{}.db", made.get()));
        options.clone().open(path).unwrap()
    });
}
