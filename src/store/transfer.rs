//! Logs and streams as JSON Lines with checksums: for backups that outlive every format, for moving a stream into another log,
//! and for looking into with any tool.
//!
//! ```text
//! {"export":{"format":1,"log_id":"0198…"},"sum":"5f1d…"}
//! {"event":{"position":1,"stream":"account-1","version":1,"name":"account.opened",…,"payload":{"owner":"Ada"}},"sum":"9a0c…"}
//! {"command":{"id":"0198…","stream":"account-1","version":1,"position":1},"sum":"77e2…"}
//! {"end":{"events":1,"commands":1},"sum":"c4b8…"}
//! ```
//! One line for each event, with its whole header and its payload: JSON as it is, other formats in base64. One for each command
//! that appended none, so that it has no effect in the new log either. A first line says what is in the file, a last one how much.
//!
//! # Damage
//! `sum` is the SHA-256 of the 32 bytes of the sum before it (zeros before the first line) and of the line's own text up to
//! `,"sum"`: a line that was changed, is missing or stands in another place is found where it is, and named with its number. Without the last line the file is cut off. The
//! checksums are no signature: who writes the whole file anew can compute them, too.
//!
//! # Importing
//! A log is imported into an empty one: positions, ids, times, commands and what they caused are then the same. Streams are
//! imported into any log that does not have them: everything but the positions is then the same. What was imported before is
//! recognised, so an import that broke off, at a damaged line or in a crash, goes on when it is called again; whole commits
//! before that stay in the log. [`verify`] finds damage without importing anything.
//!
//! Nobody else may write to the log meanwhile: import before the app is started.
//!
//! # Personal data
//! It stays sealed in an export, whose lines hold payloads as the log does; the keys are not in it. Keys and views belong to a log of
//! their identity alone. To put them beside a log that is imported, make that with the identity of the one that was exported:
//! [`Transferred::log_id`] says it, and `SqliteOptions::log_id` takes it. Without its keys personal data cannot be read.

use std::borrow::Cow;
use std::io::{self, BufRead, Read, Write};
use std::ops::ControlFlow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Commit, EventStore, Filter, KnownCommand, StoreError};
use crate::clock::Timestamp;
use crate::codec::Codec;
use crate::event::{Header, Metadata, Recorded};
use crate::id::{CausationId, CommandId, CorrelationId, EventId};
use crate::stream::{ExpectedVersion, Position, StreamId, Version};

/// Of the lines; another one needs a reader of this one.
const FORMAT: u32 = 1;

/// How many events or commands are read from a log, or committed to one, in one go.
const CHUNK: usize = 1_000;

/// How many bytes of payloads are committed in one go, as long as no single commit has more.
const CHUNK_BYTES: usize = 16 << 20;

/// The longest line that is read, in bytes. No row of SQLite has more than a billion bytes, which are a third more in base64; what
/// has no line breaks at all is not taken into memory until there is none left.
const LINE_BYTES: u64 = 2 << 30;

/// What the first line begins with.
const FIRST: &[u8] = b"{\"export\":";

/// What stands behind the text of a line: `,"sum":"` and 64 digits and `"}`.
const BEFORE_SUM: &str = ",\"sum\":\"";
const AFTER_SUM: &str = "\"}";
const SUM_BYTES: usize = 64;

type Sum = [u8; 32];

/// What was exported, imported or verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transferred {
    /// The identity of the log that was exported.
    pub log_id: Uuid,
    /// How many events are in the file.
    pub events: u64,
    /// How many commands without events are in the file.
    pub commands: u64,
    /// How many of both the log held already; zero but for an import.
    pub known: u64,
    /// The checksum of the last line, and so of the whole file, in hexadecimal digits.
    pub checksum: String,
}

/// Why a log could not be exported. What was written so far lacks its last line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// There is nothing in the stream. Nothing was written.
    #[error("stream {stream} has no event: only streams of the log can be exported")]
    NoSuchStream {
        /// The stream.
        stream: StreamId,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be written.
    #[error("the export cannot be written")]
    Io(#[from] io::Error),
}

/// Why a file could not be imported or verified.
///
/// Of an import, whole commits that stand before that line may be in the log; mend the cause and import again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It is not an export, or one of a newer version.
    #[error("this is no export that can be read: {what}")]
    Foreign {
        /// What was found.
        what: String,
    },
    /// The checksum does not fit.
    #[error(
        "line {line} does not follow the one before it: one of them was changed, or lines are missing or in another order; take another copy of the export"
    )]
    Changed {
        /// The line, from 1.
        line: u64,
    },
    /// The file ends before its last line.
    #[error("the export is cut off after line {lines}: take a whole copy of it")]
    Truncated {
        /// How many lines there are.
        lines: u64,
    },
    /// The line is as it was written, and contradicts those before it: the log that was exported is damaged.
    #[error("line {line} makes no sense: {what}")]
    Contradiction {
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// The log holds something else where the line belongs.
    #[error("line {line} cannot be imported into this log: {what}")]
    Conflict {
        /// The line, from 1.
        line: u64,
        /// What is in its way.
        what: String,
    },
    /// The log cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be read.
    #[error("the export cannot be read")]
    Io(#[from] io::Error),
}

/// Writes all of a log to `to`, up to the event that is its last one now.
///
/// # Errors
/// [`ExportError`].
///
/// # Examples
/// ```
/// use tidings::{EventStore, Memory, transfer};
///
/// let (from, to) = (Memory::new(), Memory::new());
/// let mut file = Vec::new();
/// let exported = transfer::export_log(&from, &mut file)?;
/// let imported = transfer::import(&to, file.as_slice())?;
/// assert_eq!(imported.checksum, exported.checksum);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn export_log(store: &dyn EventStore, to: impl Write) -> Result<Transferred, ExportError> {
    let mut export = Export::begin(store, to, None)?;
    let head = export.head;
    let mut after = Position::START;
    while after < head {
        let page = store.read_log(after, &Filter::All, CHUNK)?;
        after = page.through;
        for event in page.events.iter().filter(|event| event.position <= head) {
            export.event(event)?;
        }
    }
    export.end()
}

/// Writes some streams to `to`, in the order of the log.
///
/// Streams that are changed by the same commands belong into the same file: a log that knows a command already does not take
/// further events of it. One stream is read by itself; for several, all of the log is looked through.
///
/// # Errors
/// [`ExportError`].
pub fn export_streams(
    store: &dyn EventStore,
    streams: &[StreamId],
    to: impl Write,
) -> Result<Transferred, ExportError> {
    for stream in streams {
        let mut is_empty = true;
        store.read_stream(stream, Version::EMPTY, &mut |_| {
            is_empty = false;
            ControlFlow::Break(())
        })?;
        if is_empty {
            return Err(ExportError::NoSuchStream { stream: stream.clone() });
        }
    }
    let mut export = Export::begin(store, to, Some(streams))?;
    let head = export.head;
    if let [stream] = streams {
        let mut done = Ok(());
        store.read_stream(stream, Version::EMPTY, &mut |event| {
            if event.position > head {
                return ControlFlow::Break(());
            }
            done = export.event(&event);
            if done.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        done?;
        return export.end();
    }
    let wanted: HashSet<&StreamId> = streams.iter().collect();
    let mut after = Position::START;
    while after < head {
        let page = store.read_log(after, &Filter::All, CHUNK)?;
        after = page.through;
        let of_log = page.events.iter().filter(|event| event.position <= head);
        for event in of_log.filter(|event| wanted.contains(&event.stream)) {
            export.event(event)?;
        }
    }
    export.end()
}

/// Reads a file through and says whether it is whole and undamaged; imports nothing.
///
/// # Errors
/// [`ImportError`], with the number of the line.
pub fn verify(from: impl BufRead) -> Result<Transferred, ImportError> {
    let mut lines = Lines::new(from);
    let export = lines.export()?;
    let mut order = Order::of(&export);
    loop {
        match lines.next()? {
            Line::Event(event) => order.event(&event, lines.number)?,
            Line::Command(command) => order.command(&command, lines.number)?,
            Line::End => return Ok(lines.transferred(export.log_id, 0)),
        }
    }
}

/// Imports a file into `store`, or what of it is not there yet; see [the module](self).
///
/// # Errors
/// [`ImportError`], with the number of the line. If the file is damaged there, whole commits that stand before it are in the
/// log; in any case the import goes on when it is called again.
pub fn import(store: &dyn EventStore, from: impl BufRead) -> Result<Transferred, ImportError> {
    let mut lines = Lines::new(from);
    let export = lines.export()?;
    let mut import = Import {
        store,
        order: Order::of(&export),
        head: store.head()?,
        there: HashMap::new(),
        page: Vec::new().into_iter(),
        paged: Position::START,
        open: None,
        group: Vec::new(),
        wanted: Vec::new(),
        events: 0,
        bytes: 0,
        ids: HashSet::new(),
        known: 0,
    };
    loop {
        match lines.next() {
            Ok(Line::Event(event)) => import.event(event, lines.number)?,
            Ok(Line::Command(command)) => import.command(&command, lines.number)?,
            Ok(Line::End) => {
                import.flush()?;
                return Ok(lines.transferred(export.log_id, import.known));
            }
            Err(error) => {
                // The rest of the commit that was being read may stand in what cannot be read.
                import.open = None;
                import.flush()?;
                return Err(error);
            }
        }
    }
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Beginning {
    format: u32,
    log_id: Uuid,
    /// The whole log if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    streams: Option<Vec<StreamId>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventLine<'a> {
    position: Position,
    stream: StreamId,
    version: Version,
    name: Cow<'a, str>,
    schema_version: u32,
    codec: Codec,
    time: Timestamp,
    event_id: EventId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command_id: Option<CommandId>,
    correlation_id: CorrelationId,
    causation_id: CausationId,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata,
    /// As it is, if it is JSON in one line.
    #[serde(borrow, default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// A payload that is `null`, as that of an event without fields is, is one all the same.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandLine {
    id: CommandId,
    stream: StreamId,
    version: Version,
    position: Position,
}

/// The last line.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    events: u64,
    commands: u64,
}

impl<'a> EventLine<'a> {
    fn of(event: &'a Recorded) -> Self {
        let Recorded { header, payload } = event;
        let raw = match header.codec {
            Codec::Json => serde_json::from_slice::<&RawValue>(payload).ok(),
            _ => None,
        };
        // It has to come back as it is, and a line break would end the line.
        let raw = raw.filter(|raw| raw.get().as_bytes() == &**payload && !payload.contains(&b'\n'));
        Self {
            position: header.position,
            stream: header.stream.clone(),
            version: header.version,
            name: Cow::Borrowed(&header.name),
            schema_version: header.schema_version,
            codec: header.codec,
            time: header.time,
            event_id: header.event_id,
            command_id: header.command_id,
            correlation_id: header.correlation_id,
            causation_id: header.causation_id,
            metadata: header.metadata.clone(),
            payload: raw,
            base64: raw.is_none().then(|| STANDARD.encode(payload)),
        }
    }

    fn into_event(self) -> Result<Recorded, String> {
        let payload = match (self.payload, self.base64) {
            (Some(json), None) => json.get().as_bytes().into(),
            (None, Some(text)) => {
                STANDARD.decode(text).map_err(|error| format!("its payload: {error}"))?.into()
            }
            _ => return Err("it has no payload, or two".to_owned()),
        };
        let header = Header {
            event_id: self.event_id,
            name: Cow::Owned(self.name.into_owned()),
            schema_version: self.schema_version,
            codec: self.codec,
            stream: self.stream,
            version: self.version,
            position: self.position,
            time: self.time,
            command_id: self.command_id,
            correlation_id: self.correlation_id,
            causation_id: self.causation_id,
            metadata: self.metadata,
        };
        Ok(Recorded { header, payload })
    }
}

/// A file that is being written.
struct Export<'a, W> {
    store: &'a dyn EventStore,
    to: W,
    /// Of the log when the export began: what came later is not in it.
    head: Position,
    sum: Sum,
    line: Vec<u8>,
    end: End,
    streams: Option<HashSet<StreamId>>,
    /// The commands without events that were read and not written yet, and how many were read.
    commands: std::iter::Peekable<std::vec::IntoIter<(CommandId, KnownCommand)>>,
    read: u64,
}

impl<'a, W: Write> Export<'a, W> {
    fn begin(
        store: &'a dyn EventStore,
        to: W,
        streams: Option<&[StreamId]>,
    ) -> Result<Self, ExportError> {
        let mut export = Self {
            store,
            to,
            head: store.head()?,
            sum: Sum::default(),
            line: Vec::new(),
            end: End::default(),
            streams: streams.map(|streams| streams.iter().cloned().collect()),
            commands: Vec::new().into_iter().peekable(),
            read: 0,
        };
        let streams = streams.map(<[_]>::to_vec);
        let beginning = Beginning { format: FORMAT, log_id: store.log_id(), streams };
        export.write("export", &beginning)?;
        Ok(export)
    }

    fn event(&mut self, event: &Recorded) -> Result<(), ExportError> {
        self.commands_before(event.position)?;
        self.end.events += 1;
        self.write("event", &EventLine::of(event))
    }

    /// Writes the commands that were committed before the event at `position`.
    fn commands_before(&mut self, position: Position) -> Result<(), ExportError> {
        loop {
            if self.commands.peek().is_none() {
                let read = self.store.commands_without_events(self.read, CHUNK)?;
                if read.is_empty() {
                    return Ok(());
                }
                self.read += read.len() as u64;
                self.commands = read.into_iter().peekable();
            }
            let Some((id, known)) = self.commands.next_if(|(_, known)| known.position < position)
            else {
                return Ok(());
            };
            if self.streams.as_ref().is_none_or(|streams| streams.contains(&known.stream)) {
                self.end.commands += 1;
                let KnownCommand { stream, version, position, .. } = known;
                self.write("command", &CommandLine { id, stream, version, position })?;
            }
        }
    }

    fn end(mut self) -> Result<Transferred, ExportError> {
        self.commands_before(self.head.next())?;
        let end = self.end;
        self.write("end", &end)?;
        self.to.flush()?;
        Ok(Transferred {
            log_id: self.store.log_id(),
            events: end.events,
            commands: end.commands,
            known: 0,
            checksum: digits(&self.sum),
        })
    }

    fn write(&mut self, kind: &str, line: &impl Serialize) -> Result<(), ExportError> {
        self.line.clear();
        write!(self.line, "{{\"{kind}\":")?;
        serde_json::to_writer(&mut self.line, line).map_err(io::Error::from)?;
        self.sum = next_sum(&self.sum, &self.line);
        writeln!(self.line, "{BEFORE_SUM}{}{AFTER_SUM}", digits(&self.sum))?;
        Ok(self.to.write_all(&self.line)?)
    }
}

fn next_sum(before: &Sum, text: &[u8]) -> Sum {
    Sha256::new().chain_update(before).chain_update(text).finalize().into()
}

fn digits(sum: &Sum) -> String {
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that is being read.
struct Lines<R> {
    from: R,
    number: u64,
    sum: Sum,
    line: Vec<u8>,
    found: End,
}

enum Line {
    Event(Recorded),
    Command(CommandLine),
    End,
}

impl<R: BufRead> Lines<R> {
    fn new(from: R) -> Self {
        Self { from, number: 0, sum: Sum::default(), line: Vec::new(), found: End::default() }
    }

    /// Reads the first line.
    fn export(&mut self) -> Result<Beginning, ImportError> {
        let foreign = |what: &str| ImportError::Foreign { what: what.to_owned() };
        self.from.by_ref().take(FIRST.len() as u64).read_to_end(&mut self.line)?;
        if self.line.is_empty() {
            return Err(foreign("it is empty"));
        }
        if self.line != FIRST {
            return Err(foreign("its first line does not begin with {\"export\":"));
        }
        self.read_on()?;
        let text = self.text()?;
        let beginning: serde_json::Value = body(text, "{\"export\":")
            .map_err(|error| ImportError::Foreign { what: format!("its first line: {error}") })?;
        match beginning.get("format").and_then(serde_json::Value::as_u64) {
            Some(1) => {}
            found => {
                let found = found.map_or("none".to_owned(), |found| found.to_string());
                return Err(ImportError::Foreign {
                    what: format!("its format is {found}, this version of Tidings reads {FORMAT}"),
                });
            }
        }
        serde_json::from_value(beginning)
            .map_err(|error| ImportError::Foreign { what: format!("its first line: {error}") })
    }

    fn next(&mut self) -> Result<Line, ImportError> {
        if !self.read()? {
            return Err(ImportError::Truncated { lines: self.number });
        }
        let line = self.number;
        let contradiction = |what: String| ImportError::Contradiction { line, what };
        let malformed = |error: serde_json::Error| contradiction(error.to_string());
        let text = self.text()?;
        if text.starts_with(b"{\"event\":") {
            let event: EventLine<'_> = body(text, "{\"event\":").map_err(malformed)?;
            let event = event.into_event().map_err(contradiction)?;
            self.found.events += 1;
            return Ok(Line::Event(event));
        }
        if text.starts_with(b"{\"command\":") {
            let command = body(text, "{\"command\":").map_err(malformed)?;
            self.found.commands += 1;
            return Ok(Line::Command(command));
        }
        let end: End = body(text, "{\"end\":").map_err(malformed)?;
        if end != self.found {
            let End { events, commands } = end;
            let what = format!(
                "it counts {events} events and {commands} commands, there are {} and {}",
                self.found.events, self.found.commands
            );
            return Err(contradiction(what));
        }
        if self.read()? {
            return Err(ImportError::Changed { line: self.number });
        }
        Ok(Line::End)
    }

    /// Reads one line; false at the end.
    fn read(&mut self) -> Result<bool, ImportError> {
        self.line.clear();
        self.read_on()
    }

    /// Reads to the end of the line whose beginning was read.
    fn read_on(&mut self) -> Result<bool, ImportError> {
        let read = self.from.by_ref().take(LINE_BYTES).read_until(b'\n', &mut self.line)?;
        if read == 0 && self.line.is_empty() {
            return Ok(false);
        }
        self.number += 1;
        if read as u64 == LINE_BYTES {
            return Err(ImportError::Changed { line: self.number });
        }
        if self.line.pop_if(|last| *last == b'\n').is_none() && self.number > 1 {
            // A file whose last line break was lost is whole all the same; one that was cut off within a line is not.
            if !self.line.ends_with(AFTER_SUM.as_bytes()) {
                return Err(ImportError::Truncated { lines: self.number - 1 });
            }
        }
        Ok(true)
    }

    /// The text of the line without its checksum, which has to fit.
    fn text(&mut self) -> Result<&[u8], ImportError> {
        let changed = ImportError::Changed { line: self.number };
        let behind = BEFORE_SUM.len() + SUM_BYTES + AFTER_SUM.len();
        let Some((text, behind)) =
            self.line.len().checked_sub(behind).and_then(|text| self.line.split_at_checked(text))
        else {
            return Err(changed);
        };
        let sum = next_sum(&self.sum, text);
        let expected = format!("{BEFORE_SUM}{}{AFTER_SUM}", digits(&sum));
        if behind != expected.as_bytes() {
            return Err(changed);
        }
        self.sum = sum;
        Ok(text)
    }

    fn transferred(&self, log_id: Uuid, known: u64) -> Transferred {
        Transferred {
            log_id,
            events: self.found.events,
            commands: self.found.commands,
            known,
            checksum: digits(&self.sum),
        }
    }
}

fn body<'a, T: Deserialize<'a>>(text: &'a [u8], before: &str) -> Result<T, serde_json::Error> {
    serde_json::from_slice(text.get(before.len()..).unwrap_or_default())
}

/// Whether the lines of a file follow each other as in a log.
struct Order {
    is_log: bool,
    streams: HashMap<StreamId, Version>,
    through: Position,
}

impl Order {
    fn of(beginning: &Beginning) -> Self {
        Self {
            is_log: beginning.streams.is_none(),
            streams: HashMap::new(),
            through: Position::START,
        }
    }

    fn event(&mut self, event: &Recorded, line: u64) -> Result<(), ImportError> {
        let contradiction = |what| Err(ImportError::Contradiction { line, what });
        let (position, through) = (event.position, self.through);
        if position <= through || (self.is_log && position != through.next()) {
            return contradiction(format!("position {position} follows position {through}"));
        }
        let last = self.version(&event.stream);
        if event.version != last.next() {
            let (version, stream) = (event.version, &event.stream);
            return contradiction(format!("version {version} of stream {stream} follows {last}"));
        }
        self.through = position;
        match self.streams.get_mut(&event.stream) {
            Some(version) => *version = event.version,
            None => drop(self.streams.insert(event.stream.clone(), event.version)),
        }
        Ok(())
    }

    fn command(&mut self, command: &CommandLine, line: u64) -> Result<(), ImportError> {
        let last = self.version(&command.stream);
        let is_here = match self.is_log {
            true => command.position == self.through,
            false => command.position >= self.through,
        };
        if command.version == last && is_here {
            return Ok(());
        }
        let what = format!("command {} does not stand where it was committed", command.id);
        Err(ImportError::Contradiction { line, what })
    }

    fn version(&self, stream: &StreamId) -> Version {
        self.streams.get(stream).copied().unwrap_or_default()
    }
}

/// A file that is being imported.
struct Import<'a> {
    store: &'a dyn EventStore,
    order: Order,
    /// Of the log, before anything was imported.
    head: Position,
    /// The events of streams that were there before; for the import of streams.
    there: HashMap<StreamId, Vec<EventId>>,
    /// The events that were there before, from which the import of a log is compared.
    page: std::vec::IntoIter<Recorded>,
    paged: Position,
    /// The commit whose events are being read, with the line of its first.
    open: Option<(Commit, u64)>,
    group: Vec<(Commit, u64)>,
    /// The position of each event of the group in the file, which it has to get.
    wanted: Vec<Position>,
    /// How many are gathered, and the bytes of their payloads.
    events: usize,
    bytes: usize,
    ids: HashSet<CommandId>,
    known: u64,
}

impl Import<'_> {
    fn event(&mut self, event: Recorded, line: u64) -> Result<(), ImportError> {
        self.order.event(&event, line)?;
        if self.is_there(&event, line)? {
            self.known += 1;
            return Ok(());
        }
        let id = event.command_id;
        let continues =
            id.is_some() && self.open.as_ref().is_some_and(|(commit, _)| commit.id.get() == id);
        if !continues {
            self.close()?;
            let commit = match id {
                Some(id) => {
                    self.is_new(id, line)?;
                    Commit::new().command_id(id)
                }
                None => Commit::new(),
            };
            self.open = Some((commit, line));
        }
        self.wanted.push(event.position);
        self.events += 1;
        self.bytes += event.payload.len();
        if let Some((commit, _)) = &mut self.open {
            let stream = event.stream.clone();
            // All expectations of a commit are checked before its first event.
            let is_named = commit.expectations.iter().any(|(named, _)| *named == stream);
            if is_named {
                commit.events.push(event);
            } else {
                let before = Version::new(event.version.as_u64() - 1);
                let expected = ExpectedVersion::Exact(before);
                let taken = std::mem::take(commit);
                *commit = taken.append(stream, expected, vec![event]);
            }
        }
        Ok(())
    }

    fn command(&mut self, command: &CommandLine, line: u64) -> Result<(), ImportError> {
        self.order.command(command, line)?;
        let CommandLine { id, stream, version, position } = command;
        if let Some(known) = self.store.find_command(*id)? {
            let is_same = known.stream == *stream
                && known.version == *version
                && known.events == 0
                && (!self.order.is_log || known.position == *position);
            if is_same {
                self.known += 1;
                return Ok(());
            }
        }
        if self.order.is_log && *position < self.head {
            let what =
                format!("the log is past position {position}, and does not know command {id}");
            return Err(ImportError::Conflict { line, what });
        }
        self.close()?;
        self.is_new(*id, line)?;
        let expected = ExpectedVersion::Exact(*version);
        let commit = Commit::new().append(stream.clone(), expected, Vec::new()).command_id(*id);
        self.events += 1;
        self.group.push((commit, line));
        Ok(())
    }

    /// Whether the event was imported before.
    fn is_there(&mut self, event: &Recorded, line: u64) -> Result<bool, ImportError> {
        let conflict = |what| Err(ImportError::Conflict { line, what });
        if self.order.is_log {
            if event.position > self.head {
                return Ok(false);
            }
            if self.page.len() == 0 {
                let page = self.store.read_log(self.paged, &Filter::All, CHUNK)?;
                self.paged = page.through;
                self.page = page.events.into_iter();
            }
            return match self.page.next() {
                Some(there) if there == *event => Ok(true),
                _ => conflict(format!(
                    "the log holds another event at position {}; import into an empty log",
                    event.position
                )),
            };
        }
        if !self.there.contains_key(&event.stream) {
            let mut ids = Vec::new();
            self.store.read_stream(&event.stream, Version::EMPTY, &mut |there| {
                ids.push(there.event_id);
                ControlFlow::Continue(())
            })?;
            self.there.insert(event.stream.clone(), ids);
        }
        let there = self.there.get(&event.stream).map(Vec::as_slice).unwrap_or_default();
        let index = usize::try_from(event.version.as_u64() - 1).unwrap_or(usize::MAX);
        match there.get(index) {
            None => Ok(false),
            Some(id) if *id == event.event_id => Ok(true),
            Some(_) => conflict(format!(
                "the log holds another event as version {} of stream {}",
                event.version, event.stream
            )),
        }
    }

    /// A command that the log knows would be refused, and what follows it would get other positions.
    fn is_new(&mut self, id: CommandId, line: u64) -> Result<(), ImportError> {
        if self.ids.insert(id) && self.store.find_command(id)?.is_none() {
            return Ok(());
        }
        let what = format!("the log knows command {id} already, with other events");
        Err(ImportError::Conflict { line, what })
    }

    /// The commit that was being read is whole.
    fn close(&mut self) -> Result<(), ImportError> {
        self.group.extend(self.open.take());
        if self.events >= CHUNK || self.bytes >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ImportError> {
        self.group.extend(self.open.take());
        if self.group.is_empty() {
            return Ok(());
        }
        let (mut group, lines): (Vec<_>, Vec<_>) = self.group.drain(..).unzip();
        let outcomes = self.store.commit(&mut group)?;
        for (outcome, line) in outcomes.into_iter().zip(&lines) {
            if let Err(refused) = outcome {
                let what = format!("{refused}; nobody else may write to the log meanwhile");
                return Err(ImportError::Conflict { line: *line, what });
            }
        }
        if self.order.is_log {
            let events = group.iter().flat_map(Commit::events).map(|event| event.position);
            if let Some((found, wanted)) = events.zip(&self.wanted).find(|(a, b)| a != *b) {
                let what = format!(
                    "the event of position {wanted} got position {found}: somebody else has written to the log; import into an empty one"
                );
                let line = lines.first().copied().unwrap_or_default();
                return Err(ImportError::Conflict { line, what });
            }
        }
        self.wanted.clear();
        self.ids.clear();
        self.events = 0;
        self.bytes = 0;
        Ok(())
    }
}
