//! A log or some of its streams go through JSON Lines into another store and lose nothing; every line that was changed, lost or
//! moved on the way is named.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "sqlite", feature = "transfer"))]

use std::ops::ControlFlow;

use proptest::prelude::*;
use tidings::transfer::{ExportError, ImportError, export_log, export_streams, import, verify};
use tidings::{
    CausationId, Codec, CommandId, Commit, CorrelationId, Durability, EventStore, ExpectedVersion,
    Filter, Header, Memory, Position, Recorded, Refused, Sqlite, StreamId, Timestamp, Version,
};

const STREAMS: u8 = 5;

/// One commit: its command, if it has one, and how many events go to which streams.
#[derive(Debug, Clone)]
struct Wish {
    command: Option<u16>,
    parts: Vec<(u8, Vec<Written>)>,
}

#[derive(Debug, Clone)]
struct Written {
    codec: Codec,
    payload: Vec<u8>,
    metadata: Vec<(String, String)>,
    ids: (u128, u128, u64, u32),
}

fn written() -> impl Strategy<Value = Written> {
    let json = prop_oneof![
        Just(r#"{"b":1,"a":1.50,"a":"twice"}"#.as_bytes().to_vec()),
        Just(b"{\n  \"pretty\": true\n}".to_vec()),
        Just(b" 7 ".to_vec()),
        // What an event without fields is.
        Just(b"null".to_vec()),
        Just(Vec::new()),
        Just(br#""a line\nbreak and ,\"sum\":\"""#.to_vec()),
        ".*".prop_map(|text| serde_json::to_vec(&text).unwrap()),
        ".*".prop_map(String::into_bytes),
    ];
    let payload = prop_oneof![
        3 => json.prop_map(|payload| (Codec::Json, payload)),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| (Codec::Cbor, bytes)),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| (Codec::MessagePack, bytes)),
    ];
    let metadata = prop::collection::vec((".*", ".*"), 0..3);
    (payload, metadata, any::<(u128, u128, u64, u32)>())
        .prop_map(|((codec, payload), metadata, ids)| Written { codec, payload, metadata, ids })
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let part = (0..STREAMS, prop::collection::vec(written(), 0..3));
    let wish = (prop::option::of(0..30_u16), prop::collection::vec(part, 1..4))
        .prop_map(|(command, parts)| Wish { command, parts });
    prop::collection::vec(wish, 0..20)
}

fn fill(store: &dyn EventStore, wishes: &[Wish]) {
    for wish in wishes {
        let mut commit = Commit::new();
        for (of, events) in &wish.parts {
            let events = events.iter().map(|written| event(&stream(*of), written)).collect();
            commit = commit.append(stream(*of), ExpectedVersion::Any, events);
        }
        if let Some(command) = wish.command {
            commit = commit.command_id(CommandId::from_name(&command.to_string()));
        }
        match &store.commit(&mut [commit]).unwrap()[0] {
            Ok(_) | Err(Refused::KnownCommand(_)) => {}
            Err(refused) => panic!("{refused}"),
        }
    }
}

fn event(stream: &StreamId, written: &Written) -> Recorded {
    let (correlation, causation, time, schema_version) = written.ids;
    let time = Timestamp::from_micros(time);
    let mut header = Header::new(stream.clone(), "thing.happ\u{e9}ned", schema_version, time);
    header.codec = written.codec;
    if correlation % 2 == 0 {
        header.correlation_id = CorrelationId::from_uuid(uuid::Uuid::from_u128(correlation));
        header.causation_id = CausationId::from_uuid(uuid::Uuid::from_u128(causation));
    }
    for (key, value) in &written.metadata {
        header.metadata.insert(key, value);
    }
    Recorded { header, payload: written.payload.as_slice().into() }
}

fn stream(of: u8) -> StreamId {
    StreamId::new("thing", &format!("№ {of}")).unwrap()
}

fn all(store: &dyn EventStore) -> Vec<Recorded> {
    store.read_log(Position::START, &Filter::All, usize::MAX).unwrap().events
}

fn of_stream(store: &dyn EventStore, stream: &StreamId) -> Vec<Recorded> {
    let mut events = Vec::new();
    store
        .read_stream(stream, Version::EMPTY, &mut |event| {
            events.push(event);
            ControlFlow::Continue(())
        })
        .unwrap();
    events
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn a_log_comes_back_as_it_was(wishes in wishes()) {
        let directory = tempfile::tempdir().unwrap();
        let open = |name| {
            Sqlite::options().durability(Durability::Os).open(directory.path().join(name)).unwrap()
        };
        // From SQLite by a file into memory, and by a file into SQLite again.
        let (first, second, third) = (open("first.db"), Memory::new(), open("third.db"));
        fill(&first, &wishes);
        let mut text = Vec::new();
        let exported = export_log(&first, &mut text).unwrap();
        prop_assert_eq!(exported.events, first.head().unwrap().as_u64());
        prop_assert_eq!(&verify(text.as_slice()).unwrap(), &exported);
        let imported = import(&second, text.as_slice()).unwrap();
        prop_assert_eq!(&imported, &exported);
        let mut again = Vec::new();
        export_log(&second, &mut again).unwrap();
        import(&third, again.as_slice()).unwrap();
        prop_assert_eq!(all(&third), all(&first));
        prop_assert_eq!(all(&second), all(&first));
        for command in 0..30_u16 {
            let id = CommandId::from_name(&command.to_string());
            let known = first.find_command(id).unwrap();
            prop_assert_eq!(&second.find_command(id).unwrap(), &known);
            prop_assert_eq!(&third.find_command(id).unwrap(), &known);
        }
        // What a command has done, it does not do again.
        let before = third.head().unwrap();
        let known: Vec<_> = wishes.iter().filter(|wish| wish.command.is_some()).cloned().collect();
        fill(&third, &known);
        prop_assert_eq!(third.head().unwrap(), before);
        drop(third);
        let checked = Sqlite::check(directory.path().join("third.db"), |_, _| ()).unwrap();
        // Payloads that claim to be JSON and are not are damage to the check.
        let is_sound = checked.damage.iter().all(|damage| damage.what.contains("payload"));
        prop_assert!(is_sound, "{:?}", checked.damage);
        // An import of what is there already does nothing.
        let again = import(&second, text.as_slice()).unwrap();
        prop_assert_eq!(again.known, again.events + again.commands);
        prop_assert_eq!(all(&second), all(&first));
    }

    #[test]
    fn streams_go_into_another_log_with_all_but_their_positions(wishes in wishes(), one in any::<bool>()) {
        let from = Memory::new();
        fill(&from, &wishes);
        let to = Memory::new();
        let stranger = StreamId::new("other", "1").unwrap();
        let written = Written { codec: Codec::Json, payload: vec![b'1'], metadata: vec![], ids: (1, 1, 1, 1) };
        let already = vec![event(&stranger, &written); 3];
        to.commit(&mut [Commit::new().append(stranger, ExpectedVersion::Any, already)]).unwrap();
        let streams: Vec<_> = (0..if one { 1 } else { STREAMS })
            .map(stream)
            .filter(|stream| !of_stream(&from, stream).is_empty())
            .collect();
        let mut text = Vec::new();
        let exported = export_streams(&from, &streams, &mut text).unwrap();
        verify(text.as_slice()).unwrap();
        let imported = import(&to, text.as_slice()).unwrap();
        prop_assert_eq!(imported.events, exported.events);
        let mut count = 3;
        for stream in &streams {
            let (mut found, mut expected) = (of_stream(&to, stream), of_stream(&from, stream));
            count += found.len() as u64;
            for event in found.iter_mut().chain(&mut expected) {
                event.header.position = Position::START;
            }
            prop_assert_eq!(&found, &expected);
            for event in &expected {
                if let Some(id) = event.command_id {
                    prop_assert!(to.find_command(id).unwrap().is_some());
                }
            }
        }
        prop_assert_eq!(to.head().unwrap().as_u64(), count);
        import(&to, text.as_slice()).unwrap();
        prop_assert_eq!(to.head().unwrap().as_u64(), count);
    }
}

/// A file of a log with ten events and two commands without any: 14 lines.
fn sample() -> Vec<u8> {
    let log = Memory::new();
    for number in 0..10_u8 {
        let codec = if number == 4 { Codec::Cbor } else { Codec::Json };
        let payload = vec![b'0' + number];
        let ids = (2, 2, number.into(), 1);
        let written = Written { codec, payload, metadata: vec![("a".into(), "b".into())], ids };
        let wish = |command, events| Wish { command, parts: vec![(number % 3, events)] };
        fill(&log, &[wish(Some(number.into()), vec![written])]);
        if number % 5 == 3 {
            fill(&log, &[wish(Some(100 + u16::from(number)), vec![])]);
        }
    }
    let mut text = Vec::new();
    let exported = export_log(&log, &mut text).unwrap();
    assert_eq!((exported.events, exported.commands), (10, 2));
    text
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

/// The line that both a look-through and an import name.
#[track_caller]
fn named(text: &[u8], whole: &[u8]) -> u64 {
    let log = Memory::new();
    let names =
        [verify(text).unwrap_err(), import(&log, text).unwrap_err()].map(|error| match error {
            ImportError::Changed { line } => line,
            ImportError::Truncated { lines } => lines,
            ImportError::Foreign { .. } => 1,
            other => panic!("{other}"),
        });
    assert_eq!(names[0], names[1]);
    // Nothing of the named line or behind it is there, and what is there is as it was.
    let undamaged = Memory::new();
    import(&undamaged, whole).unwrap();
    let (found, expected) = (all(&log), all(&undamaged));
    assert!(found.len() as u64 <= names[0]);
    assert_eq!(found, expected[..found.len()]);
    names[0]
}

#[test]
fn every_byte_that_is_changed_is_named_with_its_line() {
    let text = sample();
    let mut line = 1;
    for at in 0..text.len() {
        if text[at] == b'\n' {
            line += 1;
            continue;
        }
        // Every place with one change, every seventh with several.
        for change in [1, 0x20, 0x80].into_iter().take(if at % 7 == 0 { 3 } else { 1 }) {
            let mut changed = text.clone();
            changed[at] ^= change;
            if changed[at] == b'\n' {
                continue;
            }
            assert_eq!(named(&changed, &text), line, "byte {at}");
        }
    }
    assert_eq!(line, 15);
}

#[test]
fn every_line_that_is_missing_doubled_or_swapped_is_named() {
    let text = sample();
    let lines = lines(&text);
    assert_eq!(lines.len(), 14);
    for at in 0..lines.len() - 1 {
        let mut missing = lines.clone();
        missing.remove(at);
        assert_eq!(named(&missing.concat(), &text), at as u64 + 1);
        let mut swapped = lines.clone();
        swapped.swap(at, at + 1);
        assert_eq!(named(&swapped.concat(), &text), at as u64 + 1);
    }
    for at in 0..lines.len() {
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at]);
        assert_eq!(named(&doubled.concat(), &text), at as u64 + 2);
    }
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_noticed() {
    let text = sample();
    for cut in 0..text.len() - 1 {
        let whole_lines = text[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
        let line = named(&text[..cut], &text);
        assert!(line == whole_lines || line == whole_lines + 1, "cut at {cut}: line {line}");
    }
    // The line break at its very end says nothing.
    verify(&text[..text.len() - 1]).unwrap();
}

#[test]
fn what_is_no_export_is_refused_as_such() {
    for text in ["", "\n", "{}", "position,stream\n1,account-1\n", "{\"event\":{}}\n"] {
        let error = verify(text.as_bytes()).unwrap_err();
        assert!(matches!(error, ImportError::Foreign { .. }), "{text:?}: {error}");
    }
    let missing = StreamId::new("thing", "none").unwrap();
    let error = export_streams(&Memory::new(), &[missing], Vec::new()).unwrap_err();
    assert!(matches!(error, ExportError::NoSuchStream { .. }), "{error}");
}

#[test]
fn an_import_that_broke_off_goes_on_where_it_ended() {
    let text = sample();
    let mut broken = text.clone();
    let eighth: usize = lines(&text)[..7].iter().map(|line| line.len()).sum();
    broken[eighth + 30] ^= 1;
    let log = Memory::new();
    assert!(matches!(import(&log, broken.as_slice()), Err(ImportError::Changed { line: 8 })));
    // The last event before that line may be one of several of its command.
    assert_eq!(all(&log).len(), 4);
    let imported = import(&log, text.as_slice()).unwrap();
    assert_eq!((imported.events, imported.commands), (10, 2));
    let mut again = Vec::new();
    export_log(&log, &mut again).unwrap();
    // All but the first line, which names the log, and the checksums.
    let contents = |text: &[u8]| {
        let contents = lines(text).into_iter().skip(1).map(|line| line[..line.len() - 75].to_vec());
        contents.collect::<Vec<_>>()
    };
    assert_eq!(contents(&again), contents(&text));
}

#[test]
fn an_import_into_a_log_that_holds_something_else_is_refused_and_changes_nothing() {
    let text = sample();
    let log = Memory::new();
    let written =
        Written { codec: Codec::Json, payload: vec![b'1'], metadata: vec![], ids: (1, 1, 1, 1) };
    fill(&log, &[Wish { command: None, parts: vec![(0, vec![written])] }]);
    let before = all(&log);
    let error = import(&log, text.as_slice()).unwrap_err();
    assert!(matches!(error, ImportError::Conflict { line: 2, .. }), "{error}");
    assert_eq!(all(&log), before);
    // A stream that is there with other events.
    let from = Memory::new();
    import(&from, text.as_slice()).unwrap();
    let mut streams = Vec::new();
    export_streams(&from, &[stream(0)], &mut streams).unwrap();
    let error = import(&log, streams.as_slice()).unwrap_err();
    assert!(matches!(error, ImportError::Conflict { line: 2, .. }), "{error}");
    assert_eq!(all(&log), before);
    // A command that the log knows from elsewhere.
    let log = Memory::new();
    fill(&log, &[Wish { command: Some(0), parts: vec![(4, vec![])] }]);
    let error = import(&log, streams.as_slice()).unwrap_err();
    assert!(matches!(error, ImportError::Conflict { line: 2, .. }), "{error}");
    assert_eq!(all(&log), []);
}

#[test]
fn a_long_log_goes_through_in_pieces() {
    let log = Memory::new();
    for number in 0..1_700_u16 {
        let written = |n: u64| Written {
            codec: Codec::Json,
            payload: n.to_string().into_bytes(),
            metadata: vec![],
            ids: (1, 1, n, 1),
        };
        let parts = (0..3).map(|of| (of, vec![written(of.into()); usize::from(of)])).collect();
        fill(&log, &[Wish { command: Some(number), parts }]);
        if number % 2 == 0 {
            fill(&log, &[Wish { command: Some(10_000 + number), parts: vec![(1, vec![])] }]);
        }
    }
    let mut text = Vec::new();
    let exported = export_log(&log, &mut text).unwrap();
    assert_eq!((exported.events, exported.commands), (5_100, 850));
    let other = Memory::new();
    import(&other, text.as_slice()).unwrap();
    assert_eq!(all(&other), all(&log));
    assert_eq!(
        other.commands_without_events(0, 1_000).unwrap(),
        log.commands_without_events(0, 1_000).unwrap()
    );
}
