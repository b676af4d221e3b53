//! `snapshot(every = 1_000, …)`: when snapshots of an aggregate are taken.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::ParseStream;
use syn::{LitInt, Path};

use crate::duration::duration;
use crate::errors::Errors;
use crate::keys::Keys;

const KEYS: Keys = Keys {
    attribute: "snapshot(…)",
    known: &[
        ("every", "every = 1_000"),
        ("bytes", "bytes = 1_000_000"),
        ("slower_than", "slower_than = \"20 ms\""),
        ("on_passivation", "on_passivation"),
        ("version", "version = 1"),
    ],
};

/// The occasions, as calls of the methods of `Snapshots`.
pub(super) struct Snapshot {
    span: Span,
    calls: Vec<TokenStream>,
}

/// What stands in the parentheses, and where.
pub(super) fn tokens(input: ParseStream<'_>) -> syn::Result<(Span, TokenStream)> {
    let content;
    let parentheses = syn::parenthesized!(content in input);
    Ok((parentheses.span.join(), content.parse()?))
}

impl Snapshot {
    pub(super) fn parse(span: Span, tokens: TokenStream, errors: &mut Errors) -> Self {
        let (mut calls, mut seen) = (Vec::new(), Vec::new());
        let only_keys = KEYS.parse(tokens, &mut seen, errors, |key, input| {
            calls.push(match key {
                "every" => {
                    let events = number(input, "a number of events is")?;
                    quote!(.every(#events))
                }
                "bytes" => {
                    let bytes = number(input, "a number of bytes is")?;
                    quote!(.bytes(#bytes))
                }
                "slower_than" => {
                    let milliseconds = duration(input)?;
                    quote!(.slower_than(::core::time::Duration::from_millis(#milliseconds)))
                }
                "on_passivation" => quote!(.on_passivation()),
                _ => {
                    let version = number(input, "a version is")?;
                    quote!(.version(#version))
                }
            });
            Ok(())
        });
        if only_keys && seen.iter().all(|key| key == "version") {
            errors.span(
                span,
                "a snapshot needs an occasion: write `every = 1_000`, `bytes = 1_000_000`, `slower_than = \"20 ms\"` or `on_passivation`",
            );
        }
        Self { span, calls }
    }

    /// The method of `Aggregate`.
    pub(super) fn method(&self, krate: &Path) -> TokenStream {
        let calls = &self.calls;
        // Where the key stands, so that a state that is not `Serialize` or has no `Shape` is an error there.
        let new = quote_spanned!(self.span=> #krate::Snapshots::<Self>::new());
        quote! {
            fn snapshots() -> ::core::option::Option<#krate::Snapshots<Self>> {
                ::core::option::Option::Some(#new #(#calls)*)
            }
        }
    }
}

/// A whole number from 1.
fn number(input: ParseStream<'_>, what: &str) -> syn::Result<u32> {
    let number: LitInt = input.parse()?;
    match number.base10_parse() {
        Ok(0) | Err(_) => Err(syn::Error::new(
            number.span(),
            format_args!("{what} a whole number from 1 to {}", u32::MAX),
        )),
        Ok(value) => Ok(value),
    }
}
