use tidings::sqlite::rusqlite::{Connection, Savepoint, Transaction};
use tidings::{InboxError, idempotent};

#[idempotent(name = "charge", key = id, keep = "7 days")]
fn none(id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
fn two(tx: &Transaction<'_>, other: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
fn by_value(tx: Transaction<'_>, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
fn exclusive(tx: &mut Savepoint<'_>, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
fn without_a_name(_: &Transaction<'_>, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days", tx = db)]
fn named_wrongly(database: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days", tx = id)]
fn names_another(database: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

fn main() {}
