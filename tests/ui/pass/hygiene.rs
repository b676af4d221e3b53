//! A crate that has names of its own for everything that the macros' code needs.
#![allow(
    dead_code,
    non_camel_case_types,
    non_upper_case_globals,
    unused_imports
)]

use serde::{Deserialize, Serialize};
use tidings::{aggregate, projection, subscriber};

mod shadows {
    pub struct Result;
    pub struct Option;
    pub struct Vec;
    pub struct String;
    pub struct Box;
    pub struct str;
    pub struct u8;
    pub struct u32;
    pub struct usize;
    pub trait Clone {}
    pub trait Debug {}
    pub trait From {}
    pub trait TryFrom {}
    pub trait Into {}
    pub trait Aggregate {}
    pub trait EventSet {}
    pub trait IntoDecision {}
    pub trait MemberOf {}
    pub trait Projection {}
    pub trait SentTo {}
    pub trait Query {}
    pub trait IntoReply {}
    pub struct Connection;
    pub struct Context;
    pub struct Codec;
    pub struct Header;
    pub struct Handlers;
    pub struct Subscriptions;
    pub trait EventSubscriber {}
    pub trait TransientEvent {}
    pub trait Carried {}
    pub struct InMemory;
    pub struct Json;
    pub struct Recorded;
    pub struct ReadAs;
    pub trait Neighbours {}
    pub trait Upcasts {}
    pub const Ok: () = ();
    pub const Err: () = ();
    pub const Some: () = ();
    pub const None: () = ();
    pub const command: () = ();
    pub const context: () = ();
    pub const event: () = ();
    pub const events: () = ();
    pub const header: () = ();
    pub const view: () = ();
    pub const item: () = ();
    pub const to: () = ();
    pub const from: () = ();
    pub const query: () = ();
}

mod core {}
mod std {}
mod tidings_macros {}

mod domain {
    use super::*;

    #[derive(tidings::Event, Serialize, Deserialize)]
    #[event(name = "lamp.lit")]
    pub struct Lit;

    #[derive(tidings::Event, Serialize, Deserialize)]
    #[event(name = "lamp.put_out")]
    pub struct PutOut;

    #[derive(tidings::Event, Serialize, Deserialize)]
    #[event(name = "lamp.dimmed", version = 2, formerly = "lamp.darkened")]
    pub struct Dimmed;

    #[tidings::upcasts]
    impl Dimmed {
        #[upcast(from = 1)]
        fn upcast_steps(old: tidings::Json) -> tidings::Json {
            old
        }
    }

    #[derive(tidings::Command, ::core::clone::Clone)]
    pub struct Light;

    #[derive(tidings::Query)]
    #[query(reply = ::core::primitive::bool)]
    pub struct IsLit;
}

use domain::{Dimmed, IsLit, Light, Lit, PutOut};
use shadows::*;

#[derive(Default)]
pub struct Lamp {
    lit: bool,
}

#[aggregate(category = "lamp", events = LampEvent)]
impl Lamp {
    #[command]
    fn decide(&self, _: Light, _: &tidings::Context) -> ::core::option::Option<(Lit, PutOut)> {
        ::core::option::Option::None
    }

    #[apply]
    fn apply(&mut self, _: &Lit) {
        self.lit = true;
    }

    #[apply]
    fn command_name(&mut self, _: &PutOut) {
        self.lit = false;
    }

    #[apply]
    fn dimmed(&mut self, _: &Dimmed) {}

    #[upcast(event = "lamp.blinked", version = 1)]
    fn read(_: tidings::Json) -> (Lit, PutOut) {
        (Lit, PutOut)
    }

    #[upcast(event = "lamp.on", version = 1, with_next = "lamp.off", next_version = 1)]
    fn decode(_: tidings::Json, _: tidings::Json) {}
}

#[derive(Default)]
struct Lamps;

#[projection(name = "lamps")]
impl Lamps {
    #[on]
    fn handlers(
        &mut self,
        _: &Lit,
        _: &tidings::Header,
    ) -> ::core::result::Result<(), ::std::fmt::Error> {
        ::core::result::Result::Ok(())
    }

    #[on]
    fn put_out(&mut self, _: &PutOut) {}

    #[query]
    fn answer(&self, _: IsLit) -> ::core::primitive::bool {
        false
    }
}

#[derive(tidings::TransientEvent)]
enum Signal {
    Flash(Flash),
    Dark,
}

struct Flash;

#[subscriber(name = "watch", publishes(Signal, Lit), overflow = drop_oldest)]
impl Lamps {
    #[on]
    fn subscriptions(&mut self, _: &Flash) {}

    #[on]
    fn on_with_header(
        &mut self,
        _: &Lit,
        _: &tidings::Header,
    ) -> ::core::result::Result<(), ::std::fmt::Error> {
        ::core::result::Result::Ok(())
    }
}

fn main() {}
