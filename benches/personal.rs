//! What it costs that a field of an event is personal: commands and replays of such an event beside the same with plain text.
//!
//! `cargo bench --bench personal [-- --json]`
//!
//! The log is in memory, so that nothing else is slow. Each event has one field of 24 letters and one number. Commands go to 1,000
//! aggregates, each with a subject of its own that is known before; 256 are on their way at a time. A replay folds all events into
//! a view in memory that adds up the lengths of the texts, which must come out right, or the run ends.

#![expect(clippy::expect_used, reason = "a benchmark ends where something is wrong")]

#[path = "support/report.rs"]
mod report;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tidings::{App, Command, Event, Memory, Personal, aggregate, projection};

use self::report::{ROUNDS, Report, per_second};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const COMMANDS: u64 = 200_000;
const AGGREGATES: u64 = 1_000;
const TEXT: &str = "twenty-four letters long";

macro_rules! case {
    ($case:ident, $category:literal, $event:literal, $text:ty, |$subject:ident| $value:expr, |$read:ident| $length:expr) => {
        mod $case {
            use super::*;

            #[derive(Event, Serialize, Deserialize)]
            #[event(name = $event, version = 1)]
            struct Noted {
                text: $text,
                number: u64,
            }

            #[derive(Command, Clone)]
            struct Note {
                number: u64,
            }

            #[derive(Default)]
            struct Person;

            #[aggregate(category = $category, events = PersonEvent)]
            impl Person {
                #[command]
                fn note(&self, command: Note) -> Noted {
                    let $subject = command.number % AGGREGATES;
                    Noted { text: $value, number: command.number }
                }
                #[apply]
                fn noted(&mut self, _: &Noted) {}
            }

            #[derive(Default)]
            struct Lengths(u64, u64);

            #[projection(name = "lengths", version = 1)]
            impl Lengths {
                #[on]
                fn noted(&mut self, event: &Noted) {
                    let $read = &event.text;
                    self.0 += $length as u64;
                    self.1 = self.1.max(event.number);
                }
            }

            /// How long the commands took, and a replay of what came of them.
            pub(super) async fn run() -> (Duration, Duration) {
                let app = App::builder().store(Memory::new()).aggregate::<Person>();
                let app = app.projection(Lengths::default()).start().await.expect("an app");
                send(&app, AGGREGATES).await;
                let start = Instant::now();
                send(&app, COMMANDS).await;
                let sent = start.elapsed();
                check(&app).await;
                let start = Instant::now();
                app.rebuild::<Lengths>().await.expect("a rebuild");
                let replayed = start.elapsed();
                check(&app).await;
                app.shutdown().await.expect("a shutdown");
                (sent, replayed)
            }

            async fn send(app: &App, commands: u64) {
                let sends = futures_util::stream::iter(0..commands).map(|number| {
                    app.send((number % AGGREGATES).to_string(), Note { number }).into_future()
                });
                let mut sends = sends.buffer_unordered(256);
                while let Some(sent) = sends.next().await {
                    sent.expect("a receipt");
                }
            }

            async fn check(app: &App) {
                let view = app.view::<Lengths>().at_least(app.head());
                let view = view.timeout(Duration::from_secs(600)).await.expect("a view");
                assert_eq!(view.0, (COMMANDS + AGGREGATES) * TEXT.len() as u64);
                assert_eq!(view.1, COMMANDS - 1);
            }
        }
    };
}

case!(plain, "plain", "plain.noted", String, |_subject| TEXT.to_owned(), |text| text.len());
case!(
    sealed,
    "sealed",
    "sealed.noted",
    Personal<String>,
    |subject| Personal::new(format!("c-{subject}"), TEXT.to_owned()),
    |text| text.get().expect("a text").len()
);

fn main() {
    let report = Report::from_args("personal");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut commands, mut replays) = (Vec::new(), Vec::new());
    let (mut sealing, mut opening) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (plain_sent, plain_replayed) = runtime.block_on(plain::run());
        let (sent, replayed) = runtime.block_on(sealed::run());
        let rates = |ours, plain| (per_second(COMMANDS, ours), per_second(COMMANDS, plain));
        commands.push(rates(sent, plain_sent));
        replays.push(rates(replayed, plain_replayed));
        let each = |ours: Duration, plain: Duration| {
            (ours.as_nanos() as f64 - plain.as_nanos() as f64) / COMMANDS as f64
        };
        sealing.push(each(sent, plain_sent));
        opening.push(each(replayed, plain_replayed));
    }
    report.print("commands, one sealed field / plain", "commands/s", &commands);
    report.print("replay, one sealed field / plain", "events/s", &replays);
    report.note("sealing a field", "ns", report::median(sealing.into_iter()));
    report.note("opening a field", "ns", report::median(opening.into_iter()));
}
