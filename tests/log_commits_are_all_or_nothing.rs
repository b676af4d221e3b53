//! Guarantees 4 and 5: of racing commits with one expectation exactly one wins, and a commit over several streams is seen
//! whole or not at all, by every reader at every moment.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic, in its helpers too"
)]

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use tidings::{
    Commit, Durability, EventStore, ExpectedVersion, Filter, Header, Memory, Position, Recorded,
    Sqlite, StreamId, Timestamp, Version,
};

const ACCOUNTS: u64 = 3;
const TRANSFERS: u64 = 100;

#[test]
fn racing_transfers_never_create_or_lose_money_in_memory() {
    transfer_and_watch(&Memory::new());
}

#[test]
fn racing_transfers_never_create_or_lose_money_in_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let options = Sqlite::options().durability(Durability::Os).tail(2);
    transfer_and_watch(&options.open(directory.path().join("log.db")).unwrap());
}

/// Two threads move money between the same accounts, each transfer one commit that expects both streams where it read
/// them; a third thread adds up what it sees.
fn transfer_and_watch(store: &(impl EventStore + ?Sized)) {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|seed| {
                scope.spawn(move || {
                    for transfer in 0..TRANSFERS {
                        let from = (transfer + seed) % ACCOUNTS;
                        let to = (from + 1) % ACCOUNTS;
                        while !try_transfer(store, from, to) {}
                    }
                })
            })
            .collect();
        let watcher = scope.spawn(|| {
            let mut moments = 0_u64;
            while !is_done.load(Ordering::Acquire) || moments == 0 {
                let page = store.read_log(Position::START, &Filter::All, usize::MAX).unwrap();
                assert_eq!(page.events.iter().map(cents).sum::<i64>(), 0, "half a transfer");
                moments += 1;
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        is_done.store(true, Ordering::Release);
        watcher.join().unwrap();
    });
    // Refused ones left nothing behind: two events for each that was accepted, and their versions count up.
    assert_eq!(store.head().unwrap().as_u64(), 2 * 2 * TRANSFERS);
    let versions: u64 = (0..ACCOUNTS).map(|account| version(store, account).as_u64()).sum();
    assert_eq!(versions, 2 * 2 * TRANSFERS);
}

fn try_transfer(store: &(impl EventStore + ?Sized), from: u64, to: u64) -> bool {
    let (here, there) = (version(store, from), version(store, to));
    // Both threads read before either commits, as often as the scheduler lets them.
    std::thread::yield_now();
    let commit = Commit::new()
        .append(stream(from), ExpectedVersion::Exact(here), vec![moved(from, -5)])
        .append(stream(to), ExpectedVersion::Exact(there), vec![moved(to, 5)]);
    let mut group = [commit];
    let outcome = store.commit(&mut group).unwrap().remove(0);
    if let Ok(committed) = &outcome {
        let [first, second] = group[0].events() else {
            panic!("two events");
        };
        assert_eq!(first.header.version, here.next());
        assert_eq!(second.header.version, there.next());
        assert_eq!(second.header.position, first.header.position.next());
        assert_eq!(second.header.position, committed.last);
    }
    outcome.is_ok()
}

fn version(store: &(impl EventStore + ?Sized), account: u64) -> Version {
    let mut version = Version::EMPTY;
    store
        .read_stream(&stream(account), Version::EMPTY, &mut |event| {
            version = version.next();
            assert_eq!(event.header.version, version);
            ControlFlow::Continue(())
        })
        .unwrap();
    version
}

fn stream(account: u64) -> StreamId {
    StreamId::new("account", &account.to_string()).unwrap()
}

fn moved(account: u64, cents: i64) -> Recorded {
    Recorded {
        header: Header::new(stream(account), "account.moved", 1, Timestamp::default()),
        payload: cents.to_string().into_bytes().into(),
    }
}

fn cents(event: &Recorded) -> i64 {
    std::str::from_utf8(&event.payload).unwrap().parse().unwrap()
}
