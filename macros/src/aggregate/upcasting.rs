//! `#[upcast]` in an `#[aggregate]` block: what stored events are read as that are no event of today by themselves.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Ident, LitStr, Type};

use super::Model;
use crate::errors::Errors;
use crate::handler::Handler;
use crate::keys::{self, Keys};
use crate::upcasts::{is_json, signature};

const KEYS: Keys = Keys {
    attribute: "#[upcast]",
    known: &[
        ("event", "event = \"account.moved\""),
        ("version", "version = 1"),
        ("with_next", "with_next = \"account.city\""),
        ("next_version", "next_version = 1"),
    ],
};

/// One `#[upcast]` function.
pub(super) struct Upcast {
    function: Ident,
    event: Stored,
    /// The event after it in its stream, with which it makes a pair.
    next: Option<Stored>,
    /// What is stored of the event, and of the next if the function reads that too.
    old: Vec<Type>,
    /// Where its return type begins and ends.
    output: (Span, Span),
}

/// What an event is stored as.
struct Stored {
    name: LitStr,
    version: u32,
    /// Where the version is written.
    at: Span,
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        (self.name.value(), self.version) == (other.name.value(), other.version)
    }
}

const UPCAST: &str = "an upcast";

pub(super) fn parse(function: &Handler, errors: &mut Errors) -> Option<Upcast> {
    let (mut name, mut version, mut next_name, mut next_version) = (None, None, None, None);
    let mut seen = Vec::new();
    let tokens = function.keys.clone().unwrap_or_default();
    let only_keys = KEYS.parse(tokens, &mut seen, errors, |key, input| {
        let at = input.span();
        match key {
            "event" => name = Some(keys::text(input, "name")?),
            "with_next" => next_name = Some(keys::text(input, "name")?),
            "version" => version = Some((keys::version(input)?, at)),
            _ => next_version = Some((keys::version(input)?, at)),
        }
        Ok(())
    });
    let has = |key: &str| seen.iter().any(|seen| seen == key);
    if only_keys {
        for (key, is_needed) in [
            ("event", true),
            ("version", true),
            ("with_next", has("next_version")),
            ("next_version", has("with_next")),
        ] {
            if is_needed && !has(key) {
                KEYS.missing(function.ident().span(), key, errors);
            }
        }
    }
    let takes = if has("with_next") { 2 } else { 1 };
    let (old, _) = signature(function, UPCAST, takes, errors)?;
    let stored = |name: Option<LitStr>, version: Option<(u32, Span)>| {
        let (version, at) = version?;
        Some(Stored { name: name?, version, at })
    };
    Some(Upcast {
        function: function.ident().clone(),
        event: stored(name, version)?,
        next: stored(next_name, next_version),
        old,
        output: function.output_spans(),
    })
}

/// Checks what no upcast shows by itself.
pub(super) fn check(upcasts: &[Upcast], errors: &mut Errors) {
    for (index, upcast) in upcasts.iter().enumerate() {
        let Upcast { function, event, next, .. } = upcast;
        let (name, version) = (event.name.value(), event.version);
        let mut earlier = upcasts.iter().take(index);
        if let Some(first) = earlier.find(|first| first.event == *event && first.next == *next) {
            errors.span(
                event.at,
                format_args!(
                    "`{}` and `{function}` both read {name:?} of version {version}: what is stored is read in one way; remove one of them",
                    first.function,
                ),
            );
        }
        let Some(next) = next.as_ref().filter(|_| upcast.old.len() == 2) else { continue };
        if upcasts.iter().any(|other| other.next.is_some() && other.event == *next) {
            errors.span(
                next.at,
                format_args!(
                    "{:?} of version {} begins a pair itself: which two of three make a pair would depend on where a reader begins; read them one by one",
                    next.name.value(),
                    next.version,
                ),
            );
        }
    }
}

/// The stored names that have an upcast: what these are read as may be any event of the set.
pub(super) fn names(model: &Model) -> Vec<&LitStr> {
    let mut names: Vec<&LitStr> = Vec::new();
    for upcast in &model.upcasts {
        // After one that is read alone where the two make a pair, the next stays what it is.
        let next = upcast.next.as_ref().filter(|_| upcast.old.len() == 2);
        let stored = std::iter::once(&upcast.event).chain(next);
        for Stored { name, .. } in stored {
            if !names.iter().any(|known| known.value() == name.value()) {
                names.push(name);
            }
        }
    }
    names
}

/// `EventSet::read`, if there are upcasts; `lines` names the constant that holds the lines of the set's events.
pub(super) fn read(model: &Model, lines: &TokenStream) -> Option<TokenStream> {
    if model.upcasts.is_empty() {
        return None;
    }
    let krate = &model.krate;
    let seconds = model.upcasts.iter().filter_map(|upcast| second(model, upcast, lines));
    let firsts = model.upcasts.iter().filter_map(|upcast| first(model, upcast, lines));
    let alone = model.upcasts.iter().filter(|upcast| upcast.next.is_none()).map(|upcast| {
        let (Stored { name, version, .. }, call) =
            (&upcast.event, call(model, upcast, &[quote!(__event)]));
        quote! {
            if #krate::__private::is(__event, #name, #version) {
                return ::core::result::Result::Ok(#krate::__private::read_as(#call));
            }
        }
    });
    let halves = model.upcasts.iter().filter_map(|upcast| {
        let next = upcast.next.as_ref()?;
        let next = (upcast.old.len() == 2).then_some(next);
        let halves = std::iter::once(&upcast.event).chain(next);
        Some(halves.map(|Stored { name, version, .. }| {
            quote! {
                if #krate::__private::is(__event, #name, #version) {
                    return #krate::__private::alone(#name, #version, __read);
                }
            }
        }))
    });
    let halves = halves.flatten();
    let uses_neighbours = model.upcasts.iter().any(|upcast| upcast.next.is_some());
    let unused = (!uses_neighbours).then(|| quote!(let _ = __neighbours;));
    Some(quote! {
        fn read(
            __event: &#krate::Recorded,
            __neighbours: &dyn #krate::Neighbours,
        ) -> ::core::result::Result<#krate::ReadAs<Self>, #krate::DecodeError> {
            #unused
            #(#seconds)*
            #(#firsts)*
            #(#alone)*
            let __read = ::core::result::Result::map(
                #krate::Recorded::decode::<Self>(__event),
                #krate::ReadAs::One,
            );
            #(#halves)*
            __read
        }
    })
}

/// An event that makes a pair with the one before it is read as both.
fn second(model: &Model, upcast: &Upcast, lines: &TokenStream) -> Option<TokenStream> {
    let (krate, next) = (&model.krate, upcast.next.as_ref()?);
    if upcast.old.len() < 2 {
        return None;
    }
    let (Stored { name, version, .. }, next_name, next_version) =
        (&upcast.event, &next.name, next.version);
    let call = call(model, upcast, &[quote!(&__before), quote!(__event)]);
    Some(quote! {
        if #krate::__private::is(__event, #next_name, #next_version) {
            const __OF_ONE_COMMAND: ::core::primitive::bool =
                #krate::__private::is_current(#lines, #next_name, #next_version);
            if let ::core::option::Option::Some(__before) = #krate::__private::before(
                __event,
                __neighbours,
                (#name, #version),
                __OF_ONE_COMMAND,
            )? {
                return ::core::result::Result::Ok(#krate::__private::read_as(#call));
            }
        }
    })
}

/// An event that makes a pair with the one after it is read as nothing, or as what the function gives that reads it alone.
fn first(model: &Model, upcast: &Upcast, lines: &TokenStream) -> Option<TokenStream> {
    let (krate, next) = (&model.krate, upcast.next.as_ref()?);
    let (Stored { name, version, .. }, next_name, next_version) =
        (&upcast.event, &next.name, next.version);
    let read = match upcast.old.len() {
        1 => {
            let call = call(model, upcast, &[quote!(__event)]);
            quote!(#krate::__private::read_as(#call))
        }
        _ => quote!(#krate::ReadAs::Many(#krate::__private::Vec::new())),
    };
    Some(quote! {
        if #krate::__private::is(__event, #name, #version) {
            const __OF_ONE_COMMAND: ::core::primitive::bool =
                #krate::__private::is_current(#lines, #next_name, #next_version);
            if #krate::__private::is_before(
                __event,
                __neighbours,
                (#next_name, #next_version),
                __OF_ONE_COMMAND,
            )? {
                return ::core::result::Result::Ok(#read);
            }
        }
    })
}

/// Calls the function with the payloads of `events`. The call spans its return type, so that an error about what it returns
/// stands there.
fn call(model: &Model, upcast: &Upcast, events: &[TokenStream]) -> TokenStream {
    let Model { krate, aggregate, .. } = model;
    let names = [Some(&upcast.event), upcast.next.as_ref()];
    let arguments = upcast.old.iter().zip(names.into_iter().flatten()).zip(events).map(
        |((old, Stored { name, .. }), event)| match is_json(old) {
            true => quote_spanned!(old.span()=> #krate::__private::payload_json(#event, #name)?),
            false => {
                quote_spanned!(old.span()=> #krate::__private::payload::<#old>(#event, #name)?)
            }
        },
    );
    let arguments: Vec<_> = arguments.collect();
    let (first, last) = upcast.output;
    let callee = quote_spanned!(first=> <#aggregate>::);
    let function = format_ident!("{}", upcast.function, span = first);
    let arguments = quote_spanned!(last=> (#(#arguments),*));
    quote!(#callee #function #arguments)
}

/// What only the versions of the events tell: an upcast reads what no event reads by itself.
pub(super) fn assertions(model: &Model, lines: &TokenStream) -> impl Iterator<Item = TokenStream> {
    let Model { krate, events, .. } = model;
    model.upcasts.iter().map(move |Upcast { function, event, next, .. }| {
        let Stored { name, version, at } = event;
        let text = name.value();
        let current = format!(
            "an event of `{events}` is stored as {text:?} of version {version} today, so `{function}` would change what is written from now on: raise `version` of the event, or remove this upcast",
        );
        let steps = format!(
            "two steps from version {version} of {text:?}: the event has steps of its own from it under `#[upcasts]`; write `oldest = {}` in its `#[event(…)]`, or remove this upcast",
            u64::from(*version) + 1,
        );
        // What is read with its next falls back on the event's steps when it stands alone.
        let steps = next.is_none().then(|| {
            quote_spanned! {*at=>
                const _: () = ::core::assert!(
                    !#krate::__private::has_steps(#lines, #name, #version),
                    #steps,
                );
            }
        });
        quote_spanned! {*at=>
            const _: () = ::core::assert!(
                !#krate::__private::is_current(#lines, #name, #version),
                #current,
            );
            #steps
        }
    })
}
