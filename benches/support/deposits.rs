//! A log of deposits, in which the streams have their events in turn.

use std::path::Path;

use tidings::{
    CommandId, Commit, Durability, Event, EventSet, EventStore, ExpectedVersion, Filter, Header,
    Position, Recorded, Sqlite, StreamId, Timestamp, decode_event,
};

use crate::account::{AccountEvent, Deposited};

/// How many events are read at a time.
const PAGE: usize = 1_024;

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
                event.encode(&mut payload).expect("a payload");
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

/// The deposits in a log, a page at a time.
pub(crate) fn read(store: &dyn EventStore) -> impl Iterator<Item = (Header, Deposited)> {
    let filter = Filter::Names(vec![Deposited::NAME]);
    let mut position = Position::START;
    let pages = std::iter::from_fn(move || {
        let page = store.read_log(position, &filter, PAGE).expect("a page");
        position = page.through;
        (!page.events.is_empty()).then_some(page.events)
    });
    pages.flatten().map(|Recorded { header, payload }| {
        let event = decode_event(header.schema_version, header.codec, &payload);
        (header, event.expect("an event"))
    })
}
