//! `#[derive(TransientEvent)]`: attribute → keys → the implementation.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{DeriveInput, LitStr, Meta};

use crate::errors::Errors;
use crate::event::refuse_generics;
use crate::keys::{self, CRATE, Keys};

const KEYS: Keys = Keys { attribute: "#[event]", known: &[("name", "name = \"tick\""), CRATE] };

pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let ident = &input.ident;
    let mut name = LitStr::new(&ident.unraw().to_string(), ident.span());
    let mut krate = keys::default_path();
    let mut seen = Vec::new();
    for attribute in &input.attrs {
        if !attribute.path().is_ident("event") {
            continue;
        }
        let Meta::List(list) = &attribute.meta else {
            errors.at(attribute, "write `#[event(name = \"tick\")]`, or remove it");
            continue;
        };
        KEYS.parse(list.tokens.clone(), &mut seen, &mut errors, |key, input| match key {
            "name" => keys::text(input, "name").map(|text| name = text),
            _ => keys::path(input).map(|path| krate = path),
        });
    }
    refuse_generics(input, "a transient event", &mut errors);
    let errors = errors.into_tokens();
    if !input.generics.params.is_empty() {
        return errors;
    }
    let where_clause = &input.generics.where_clause;
    quote! {
        #[automatically_derived]
        impl #krate::TransientEvent for #ident #where_clause {
            const NAME: &'static ::core::primitive::str = #name;
        }
        #errors
    }
}
