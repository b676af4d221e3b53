//! What the log of orders says, folded naively, and what must hold of it whatever was killed.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use tidings::{
    CausationId, Codec, CommandId, EventStore, Filter, Header, Position, Recorded, decode_event,
};

use crate::Acknowledged;
use crate::orders::{Packed, Place, Placed};

/// A log as far as it was read.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct OrdersLog {
    head: u64,
    placed: Vec<Order>,
    /// Where an order stands in the list, by what it is as a cause.
    causes: HashMap<CausationId, usize>,
    /// The positions of the events that each parcel has decided on, in order.
    packed: BTreeMap<String, Vec<u64>>,
    /// The last position of each command of a writer, by its number.
    commands: BTreeMap<u64, Vec<u64>>,
}

/// An order in the log.
#[derive(Debug, PartialEq)]
struct Order {
    position: u64,
    stream: String,
    event: Placed,
}

impl OrdersLog {
    /// Reads what was written since.
    pub(crate) fn read_on(&mut self, store: &dyn EventStore) {
        let page = store.read_log(Position::new(self.head), &Filter::All, usize::MAX).unwrap();
        for Recorded { header, payload } in page.events {
            self.head += 1;
            assert_eq!(header.position.as_u64(), self.head);
            if header.stream.category() == "parcel" {
                let Packed { order } = decode_event(1, Codec::Json, &payload).unwrap();
                self.note_effect(&order, &header);
            } else {
                let event = decode_event(1, Codec::Json, &payload).unwrap();
                self.note_command(&event, header.command_id);
                let (event_id, stream) = (header.event_id, header.stream.to_string());
                self.causes.insert(CausationId::from_uuid(event_id.into()), self.placed.len());
                self.placed.push(Order { position: self.head, stream, event });
            }
        }
        assert_eq!(page.through.as_u64(), self.head);
        if let Some(Placed { writer, number, part }) = self.placed.last().map(|order| &order.event)
        {
            let place = Place { writer: *writer, number: *number };
            assert_eq!(part + 1, place.parts(), "half a commit");
        }
    }

    /// What one event of an order has caused is there once, and names its cause.
    fn note_effect(&mut self, order: &Placed, header: &Header) {
        let cause = self.causes.get(&header.causation_id).expect("a cause that lies before it");
        let cause = &self.placed[*cause];
        assert_eq!((&cause.event, &*order.parcel()), (order, header.stream.id()));
        let packed = self.packed.entry(order.parcel()).or_default();
        assert!(packed.last() < Some(&cause.position), "{order:?} behind {:?}", packed.last());
        packed.push(cause.position);
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

    /// The positions of the events that each parcel has decided on.
    pub(crate) fn packed(&self) -> &BTreeMap<String, Vec<u64>> {
        &self.packed
    }

    /// The positions of each order's events.
    pub(crate) fn of_orders(&self) -> BTreeMap<String, Vec<u64>> {
        self.grouped(|order| order.stream.clone())
    }

    /// The positions of each writer's events.
    pub(crate) fn of_writers(&self) -> BTreeMap<String, Vec<u64>> {
        self.grouped(|order| order.event.writer.to_string())
    }

    /// The positions of the events that go to each parcel.
    pub(crate) fn of_parcels(&self) -> BTreeMap<String, Vec<u64>> {
        self.grouped(|order| order.event.parcel())
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
        let packed: usize = self.packed.values().map(Vec::len).sum();
        write!(f, "{} events, {} placed and {packed} packed", self.head, self.placed.len())
    }
}
