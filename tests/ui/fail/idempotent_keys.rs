use tidings::sqlite::rusqlite::Connection;
use tidings::{InboxError, idempotent};

#[idempotent(nmae = "charge", key = id, keep = "7 days")]
fn unknown_key(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days", keep = "8 days")]
fn twice(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "", key = , keep = 7)]
fn no_values(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent]
fn no_keys(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge")]
fn no_key_and_keep(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent("charge", id)]
fn no_key_at_all(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id keep = "7 days")]
fn no_comma(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "a week")]
fn no_number(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7")]
fn no_unit(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "2 months")]
fn other_unit(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "1.5 hours")]
fn not_whole(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "0 days")]
fn no_time(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "1500 ms")]
fn no_whole_seconds(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "99999999999999999999 s")]
fn too_many_digits(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days", tx = "db")]
fn text_as_name(db: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

fn main() {}
