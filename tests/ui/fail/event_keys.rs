use serde::{Deserialize, Serialize};
use tidings::Event;

#[derive(Event, Serialize, Deserialize)]
#[event(nmae = "account.opened", version = 1)]
struct UnknownKey;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.opened", name = "account.closed")]
struct Twice;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "")]
struct Empty;

#[derive(Event, Serialize, Deserialize)]
#[event(name = 7)]
struct Number;

#[derive(Event, Serialize, Deserialize)]
#[event(name)]
struct NoValue;

#[derive(Event, Serialize, Deserialize)]
#[event("account.opened")]
struct NoKey;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.opened" version = 2)]
struct NoComma;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.opened", version = 0)]
struct VersionZero;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.opened", version = "1")]
struct VersionText;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.opened", version = 4294967296)]
struct VersionTooLarge;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.opened", crate = "tidings")]
struct CrateText;

fn main() {}
