use serde::{Deserialize, Serialize};
use tidings::{Event, Json, upcasts};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.deposited", version = 5)]
struct Deposited {
    cents: i64,
}

#[upcasts]
impl Deposited {
    #[upcast(from = 1)]
    fn first(old: Json) -> Json {
        old
    }

    #[upcast(from = 4)]
    fn fourth(old: Json) -> Json {
        old
    }

    #[upcast(from = 1)]
    fn again(old: Json) -> Json {
        old
    }

    #[upcast(from = 0)]
    fn zeroth(old: Json) -> Json {
        old
    }
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "account.closed", version = 2)]
struct Closed;

#[upcasts]
impl Closed {
    fn helper(old: Json) -> Json {
        old
    }
}

fn main() {
    Closed::helper(Json::Null);
}
