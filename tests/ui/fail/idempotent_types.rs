use serde::Serialize;
use tidings::sqlite::rusqlite::{self, Connection};
use tidings::{InboxError, idempotent};

struct Client;

#[derive(Debug, Serialize)]
struct Charged;

#[idempotent(name = "charge", key = id, keep = "7 days")]
fn input_is_not_serialize(tx: &Connection, id: &str, client: &Client) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days", input = client)]
fn chosen_input_is_not_serialize(
    tx: &Connection,
    id: &str,
    client: &Client,
) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days", input = id)]
fn key_is_not_display(tx: &Connection, id: Option<u8>) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
fn answer_is_not_deserialize(tx: &Connection, id: &str) -> Result<Charged, InboxError> {
    Ok(Charged)
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
fn error_is_of_another_type(tx: &Connection, id: &str) -> rusqlite::Result<()> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
async fn error_of_a_future(tx: &Connection, id: &str) -> Result<(), String> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
fn no_result(tx: &Connection, id: &str) -> Option<u8> {
    None
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
fn wrong_body(tx: &Connection, id: &str) -> Result<u8, InboxError> {
    Ok("paid")
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
async fn wrong_body_of_a_future(tx: &Connection, id: &str) -> Result<u8, InboxError> {
    Ok("paid")
}

#[idempotent(name = "charge", key = id, keep = "7 days", tx = db)]
fn no_connection(db: &str, id: &str) -> Result<(), InboxError> {
    Ok(())
}

fn main() {}
