//! The derive and attribute macros of Tidings; use them through the crate `tidings`.

mod aggregate;
mod command;
mod errors;
mod event;
mod handler;
mod keys;
mod projection;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// Event.
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    event::derive(&parse_macro_input!(input)).into()
}

/// Command.
#[proc_macro_derive(Command, attributes(command))]
pub fn derive_command(input: TokenStream) -> TokenStream {
    command::derive(&parse_macro_input!(input)).into()
}

/// Aggregate.
#[proc_macro_attribute]
pub fn aggregate(arguments: TokenStream, item: TokenStream) -> TokenStream {
    aggregate::expand(arguments.into(), item.into()).into()
}

/// Projection.
#[proc_macro_attribute]
pub fn projection(arguments: TokenStream, item: TokenStream) -> TokenStream {
    projection::expand(arguments.into(), item.into()).into()
}
