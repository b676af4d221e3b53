use tidings::sqlite::rusqlite::Connection;
use tidings::{InboxError, idempotent};

#[idempotent(name = "charge", key = id, keep = "7 days")]
struct Charge {
    id: String,
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
impl Charge {}

trait Charges {
    #[idempotent(name = "charge", key = id, keep = "7 days")]
    fn charge(&self, tx: &Connection, id: &str) -> Result<(), InboxError>;
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
fn returns_nothing(tx: &Connection, id: &str) {}

#[idempotent(name = "charge", key = id, keep = "7 days")]
const fn constant(tx: &Connection, id: &str) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
fn without_names(tx: &Connection, id: &str, _: u8, (a, b): (u8, u8)) -> Result<(), InboxError> {
    Ok(())
}

#[idempotent(name = "charge", key = id, keep = "7 days")]
fn answer_is_borrowed<'a>(tx: &Connection, id: &'a str) -> Result<&'a str, InboxError> {
    Ok(id)
}

// All mistakes of one function at once.
#[idempotent(name = "charge", keep = "a week", inptu = id)]
const fn everything(tx: &mut Connection, _: u8) {}

fn main() {}
