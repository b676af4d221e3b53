//! A log of deposits, in which the streams have their events in turn.

use std::path::Path;

use tidings::{
    Commit, CommandId, Durability, EventSet, EventStore, ExpectedVersion, Header, Recorded, Sqlite,
    StreamId, Timestamp,
};

use crate::account::{AccountEvent, Deposited};

/// The id of the stream that the event of this number belongs to: neighbours are far apart.
pub(crate) fn stream(number: u64, streams: u64) -> String {
    format!("acc-{}", (number * 7_919) % streams)
}

/// Writes a log of `events` events over `streams` streams.
pub(crate) fn fill(path: &Path, events: u64, streams: u64) {
    let store = Sqlite::options().durability(Durability::Os).open(path).expect("a log");
    let numbers: Vec<u64> = (0..events).collect();
    for numbers in numbers.chunks(4_096) {
        let mut group: Vec<_> = numbers
            .iter()
            .map(|number| {
                let payer = "a customer of the bank".to_owned();
                let event = AccountEvent::from(Deposited { cents: 1, payer });
                let stream = StreamId::new("account", &stream(*number, streams)).expect("a stream");
                let mut payload = Vec::new();
                event.encode(store.codec(), &mut payload).expect("a payload");
                let now = Timestamp::from(std::time::SystemTime::now());
                let header = Header::new(stream.clone(), event.name(), event.schema_version(), now);
                let recorded = Recorded { header, payload: payload.into() };
                Commit::new().command_id(CommandId::fresh()).append(
                    stream,
                    ExpectedVersion::Any,
                    vec![recorded],
                )
            })
            .collect();
        let outcomes = store.commit(&mut group).expect("a commit");
        assert!(outcomes.iter().all(Result::is_ok));
    }
}
