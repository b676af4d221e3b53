//! What the log of orders says, folded naively, and what must hold of it whatever was killed.

use std::collections::BTreeMap;
use std::fmt;

use tidings::{Codec, CommandId, EventId, EventStore, Filter, Position, decode_event};

use crate::Acknowledged;
use crate::orders::{Place, Placed};

/// A log as far as it was read.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct OrdersLog {
    head: u64,
    placed: Vec<Order>,
    /// The last position of each command of a writer, by its number.
    commands: BTreeMap<u64, Vec<u64>>,
}

/// An order in the log.
#[derive(Debug, PartialEq)]
pub(crate) struct Order {
    pub(crate) position: u64,
    pub(crate) event_id: EventId,
    pub(crate) stream: String,
    pub(crate) event: Placed,
}

impl OrdersLog {
    /// Reads what was written since.
    pub(crate) fn read_on(&mut self, store: &dyn EventStore) {
        let page = store.read_log(Position::new(self.head), &Filter::All, usize::MAX).unwrap();
        for recorded in page.events {
            let header = recorded.header;
            self.head += 1;
            assert_eq!(header.position.as_u64(), self.head);
            assert_eq!(header.stream.category(), "order");
            let event = decode_event::<Placed>(1, Codec::Json, &recorded.payload).unwrap();
            self.note_command(&event, header.command_id);
            let (event_id, stream) = (header.event_id, header.stream.to_string());
            self.placed.push(Order { position: self.head, event_id, stream, event });
        }
        assert_eq!(page.through.as_u64(), self.head);
        for order in self.placed.iter().rev().take(1) {
            let Placed { writer, number, part } = order.event;
            assert_eq!(part + 1, Place { writer, number }.parts(), "half a commit");
        }
    }

    /// A writer's commands are there in the order in which it sent them, each once and with all of its events.
    fn note_command(&mut self, event: &Placed, id: Option<CommandId>) {
        let Placed { writer, number, part } = *event;
        let place = Place { writer, number };
        assert_eq!(id, Some(place.id()));
        let commands = self.commands.entry(writer).or_default();
        if part == 0 {
            assert_eq!(number, commands.len() as u64, "of writer {writer}");
            commands.push(self.head);
            return;
        }
        let before = &self.placed.last().unwrap().event;
        assert_eq!(*before, Placed { part: part - 1, ..event.clone() });
        *commands.last_mut().unwrap() = self.head;
    }

    /// What was acknowledged is where the receipts say, and its command ids are known.
    pub(crate) fn check_acknowledged(&self, store: &dyn EventStore, commands: &[Acknowledged]) {
        for Acknowledged { place, position } in commands {
            let of_writer = &self.commands[&place.writer];
            assert_eq!(of_writer.get(place.number as usize), Some(position), "{place:?}");
            let known = store.find_command(place.id()).unwrap().expect("an id that is known");
            assert_eq!((known.position.as_u64(), known.events as u64), (*position, place.parts()));
        }
    }

    /// What was read bit by bit, between kills, is what is there.
    pub(crate) fn check_whole(&self, store: &dyn EventStore) {
        let mut whole = Self::default();
        whole.read_on(store);
        assert!(*self == whole, "the log has changed behind its readers");
    }

    /// The number of the first command of this writer that is not in the log.
    pub(crate) fn next_number(&self, writer: u64) -> u64 {
        self.commands.get(&writer).map_or(0, |commands| commands.len() as u64)
    }

    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    pub(crate) fn placed(&self) -> &[Order] {
        &self.placed
    }

    /// The positions of each order's events.
    pub(crate) fn of_orders(&self) -> BTreeMap<String, Vec<u64>> {
        self.grouped(|order| order.stream.clone())
    }

    /// The positions of each writer's events.
    pub(crate) fn of_writers(&self) -> BTreeMap<String, Vec<u64>> {
        self.grouped(|order| order.event.writer.to_string())
    }

    fn grouped(&self, key: impl Fn(&Order) -> String) -> BTreeMap<String, Vec<u64>> {
        let mut groups = BTreeMap::<_, Vec<_>>::new();
        for order in &self.placed {
            groups.entry(key(order)).or_default().push(order.position);
        }
        groups
    }
}

impl fmt::Display for OrdersLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events of {} orders", self.head, self.placed.len())
    }
}
