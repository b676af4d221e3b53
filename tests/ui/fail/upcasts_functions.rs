use serde::{Deserialize, Serialize};
use tidings::{Event, Json, upcasts};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited", version = 9)]
struct Deposited {
    cents: i64,
}

#[upcasts]
impl Deposited {
    #[upcast(from = 1)]
    fn method(self, old: Json) -> Json {
        old
    }

    #[upcast(from = 2)]
    fn nothing() -> Json {
        Json::Null
    }

    #[upcast(from = 3)]
    fn two(old: Json, _now: u64) -> Json {
        old
    }

    #[upcast(from = 4)]
    fn fails(old: Json) -> Result<Json, String> {
        Ok(old)
    }

    #[upcast(from = 5)]
    async fn waits(old: Json) -> Json {
        old
    }

    #[upcast(from = 6)]
    fn borrows(old: &Json) -> Json {
        old.clone()
    }

    #[upcast(from = 7)]
    fn gives_nothing(_: Json) {}

    #[upcast]
    fn from_nowhere(old: Json) -> Json {
        old
    }

    #[upcast(from = 8, to = 9)]
    fn to_somewhere<T: Into<Json>>(old: T) -> Json {
        old.into()
    }

    #[upcasts(from = 8)]
    fn misspelt(old: Json) -> Json {
        old
    }
}

fn main() {}
