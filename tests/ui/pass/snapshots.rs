//! Each occasion for a snapshot, alone and with the others.

#![deny(warnings)]

use serde::{Deserialize, Serialize};
use tidings::{Aggregate, Event, Shape, aggregate};

macro_rules! counter {
    ($module:ident, $category:literal, $name:literal, $($snapshot:tt)*) => {
        mod $module {
            use super::*;

            #[derive(Event, Serialize, Deserialize)]
            #[event(name = $name)]
            pub struct Counted;

            #[derive(Default, Shape, Serialize, Deserialize)]
            pub struct Counter {
                pub count: u64,
            }

            #[aggregate(category = $category, events = CounterEvent, snapshot($($snapshot)*))]
            impl Counter {
                #[apply]
                fn counted(&mut self, _: &Counted) {
                    self.count += 1;
                }
            }
        }
    };
}

counter!(every, "every", "every.counted", every = 1_000);
counter!(bytes, "bytes", "bytes.counted", bytes = 1_000_000);
counter!(slow, "slow", "slow.counted", slower_than = "20ms");
counter!(passivated, "passivated", "passivated.counted", on_passivation);
counter!(all, "all", "all.counted", every = 5, bytes = 9, slower_than = "1 s", on_passivation, version = 2,);

fn main() {
    for snapshots in [
        format!("{:?}", every::Counter::snapshots()),
        format!("{:?}", bytes::Counter::snapshots()),
        format!("{:?}", slow::Counter::snapshots()),
        format!("{:?}", passivated::Counter::snapshots()),
    ] {
        assert!(snapshots.starts_with("Some("), "{snapshots}");
    }
    assert_eq!(
        format!("{:?}", all::Counter::snapshots()),
        "Some(Snapshots { every: Some(5), bytes: Some(9), slower_than: Some(1s), on_passivation: true, .. })"
    );
    assert_eq!(all::Counter::default().count, 0);
}
