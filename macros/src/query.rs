//! `#[derive(Query)]`: attribute → keys → the implementation.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{DeriveInput, Meta, Path, Type};

use crate::errors::Errors;
use crate::event::refuse_generics;
use crate::keys::{self, CRATE, Keys};

const KEYS: Keys =
    Keys { attribute: "#[query]", known: &[("reply", "reply = Option<i64>"), CRATE] };

struct Model {
    reply: Option<Type>,
    krate: Path,
}

pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let model = parse(input, &mut errors);
    let implementation = expand(input, &model);
    let errors = errors.into_tokens();
    quote!(#implementation #errors)
}

fn parse(input: &DeriveInput, errors: &mut Errors) -> Model {
    let mut model = Model { reply: None, krate: keys::default_path() };
    let mut seen = Vec::new();
    let (mut attributed, mut malformed) = (false, false);
    for attribute in &input.attrs {
        if !attribute.path().is_ident("query") {
            continue;
        }
        attributed = true;
        let Meta::List(list) = &attribute.meta else {
            errors.at(attribute, "write `#[query(reply = Option<i64>)]`");
            malformed = true;
            continue;
        };
        malformed |= !KEYS.parse(list.tokens.clone(), &mut seen, errors, |key, input| match key {
            "reply" => input.parse().map(|reply| model.reply = Some(reply)),
            _ => keys::path(input).map(|path| model.krate = path),
        });
    }
    if !attributed {
        errors.at(
            &input.ident,
            format_args!(
                "`{}` has no reply: write `#[query(reply = Option<i64>)]` under the derive",
                input.ident,
            ),
        );
    } else if !malformed && !seen.iter().any(|key| key == "reply") {
        KEYS.missing(input.ident.span(), "reply", errors);
    }
    refuse_generics(input, "a query", errors);
    model
}

fn expand(input: &DeriveInput, model: &Model) -> TokenStream {
    // There is no stub for a generic type: it would be generic too.
    if !input.generics.params.is_empty() {
        return TokenStream::new();
    }
    let krate = &model.krate;
    let ident = &input.ident;
    let name = ident.unraw().to_string();
    let where_clause = &input.generics.where_clause;
    let reply = match &model.reply {
        Some(reply) => quote!(#reply),
        None => quote!(()),
    };
    quote! {
        #[automatically_derived]
        impl #krate::Query for #ident #where_clause {
            type Reply = #reply;
            const NAME: &'static ::core::primitive::str = #name;
        }
    }
}
