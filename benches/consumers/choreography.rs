//! An aggregate that subscribes to the events of another, beside a loop that reads them and sends the same commands by hand.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use tidings::{App, Command, CommandId, Event, Filter, Position, Sqlite, aggregate};

use crate::account::{Account, Deposited};
use crate::{Bench, Log, deposits};

/// How many commands are sent by hand but not answered at any time: as many as a subscription has in hand.
const IN_FLIGHT: usize = 1_024;

/// Longer than a case takes.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) async fn measure(bench: &Bench) {
    let log = &bench.small;
    bench
        .case(
            "subscribing aggregate, fsync / commands by hand",
            "events caused/s",
            log.events,
            async || subscribe(log.copy()).await,
            async || send(log.copy()).await,
        )
        .await;
}

/// Something stands in a statement.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "statement.noted")]
struct Noted {
    cents: i64,
}

/// A statement for each account, which hears of its deposits.
#[derive(Default)]
struct Statement {
    cents: i64,
}

#[aggregate(category = "statement", events = StatementEvent)]
impl Statement {
    #[on(to = header.stream.id())]
    fn deposited(&self, event: &Deposited) -> Noted {
        Noted { cents: event.cents }
    }

    #[apply]
    fn noted(&mut self, event: &Noted) {
        self.cents += event.cents;
    }
}

/// How long it takes from the start of the app until each deposit stands in a statement.
async fn subscribe(log: Log) -> Duration {
    let store = Sqlite::open(log.path()).expect("a log");
    let start = Instant::now();
    let builder = App::builder().store(store).aggregate::<Account>().aggregate::<Statement>();
    let app = builder.start().await.expect("an app");
    // The engine goes by the name of the category, and is level once it has passed what was there when it began.
    app.reached("statement", app.head(), PATIENCE).await.expect("a level consumer");
    let elapsed = start.elapsed();
    app.shutdown().await.expect("a shutdown");
    check(&app, &log, Noted::NAME);
    elapsed
}

/// Something stands in a slip.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "slip.written")]
struct Written {
    cents: i64,
}

/// Writes it there.
#[derive(Command, Clone)]
struct Write {
    cents: i64,
}

/// The same as a statement, but it hears of nothing.
#[derive(Default)]
struct Slip {
    cents: i64,
}

#[aggregate(category = "slip", events = SlipEvent)]
impl Slip {
    #[command]
    fn write(&self, command: Write) -> Written {
        Written { cents: command.cents }
    }

    #[apply]
    fn written(&mut self, event: &Written) {
        self.cents += event.cents;
    }
}

/// How long it takes from the start of the app until a command was sent and answered for each deposit.
async fn send(log: Log) -> Duration {
    let store = Sqlite::open(log.path()).expect("a log");
    let start = Instant::now();
    let builder = App::builder().store(store).aggregate::<Account>().aggregate::<Slip>();
    let app = builder.start().await.expect("an app");
    let sent = deposits::read(app.store()).map(|(header, event)| {
        let id = CommandId::from_name(&header.event_id.to_string());
        let command = Write { cents: event.cents };
        app.send(header.stream.id(), command).command_id(id).into_future()
    });
    let receipts: Vec<_> = stream::iter(sent).buffer_unordered(IN_FLIGHT).collect().await;
    assert!(receipts.iter().all(Result::is_ok));
    let elapsed = start.elapsed();
    app.shutdown().await.expect("a shutdown");
    check(&app, &log, Written::NAME);
    elapsed
}

/// Each deposit has caused one event, of its own story if the framework says what caused it.
fn check(app: &App, log: &Log, name: &'static str) {
    let filter = Filter::Names(vec![name]);
    let page = app.store().read_log(Position::START, &filter, usize::MAX).expect("a page");
    let commands: HashSet<_> = page.events.iter().map(|event| event.header.command_id).collect();
    assert_eq!((page.events.len(), commands.len()), (log.events as usize, log.events as usize));
}
