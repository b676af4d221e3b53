use serde::{Deserialize, Serialize};
use tidings::Event;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.opened", version = 2, oldest = 3)]
struct OldestIsNewer;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.opened", oldest = 0)]
struct OldestIsZero;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.opened", formerly = "account.opened")]
struct NamedAsToday;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.opened", formerly = ["account.begun", "account.begun"])]
struct NamedTwice;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.opened", formerly = ["account.begun", ""])]
struct NamedEmpty;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.opened", formerly)]
struct NamedNothing;

fn main() {}
