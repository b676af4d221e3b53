//! `#[derive(Command)]`: attribute → keys → the implementation.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{DeriveInput, Meta};

use crate::errors::Errors;
use crate::event::refuse_generics;
use crate::keys::{self, CRATE, Keys};

const KEYS: Keys = Keys { attribute: "#[command]", known: &[CRATE] };

pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let mut krate = keys::default_path();
    let mut seen = Vec::new();
    for attribute in &input.attrs {
        if !attribute.path().is_ident("command") {
            continue;
        }
        let Meta::List(list) = &attribute.meta else {
            errors.at(attribute, "remove it: `#[derive(Command)]` needs no attribute beside it");
            continue;
        };
        KEYS.parse(list.tokens.clone(), &mut seen, &mut errors, |_, input| {
            keys::path(input).map(|path| krate = path)
        });
    }
    refuse_generics(input, "a command", &mut errors);
    let errors_tokens = errors.into_tokens();
    if !input.generics.params.is_empty() {
        return errors_tokens;
    }
    let ident = &input.ident;
    let name = ident.unraw().to_string();
    let where_clause = &input.generics.where_clause;
    quote! {
        #[automatically_derived]
        impl #krate::Command for #ident #where_clause {
            const NAME: &'static ::core::primitive::str = #name;
        }
        #errors_tokens
    }
}
