//! `#[derive(Event)]`: attribute → keys → the implementation.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, LitStr, Meta, Path};

use crate::errors::Errors;
use crate::keys::{self, CRATE, Keys};
use crate::shape;

const KEYS: Keys = Keys {
    attribute: "#[event]",
    known: &[("name", "name = \"account.deposited\""), ("version", "version = 1"), CRATE],
};

struct Model {
    name: Option<LitStr>,
    version: u32,
    krate: Path,
}

pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let model = parse(input, &mut errors);
    let shape = shape::of_event(input, &model.krate, &mut errors);
    let implementation = expand(input, &model, &shape);
    let errors = errors.into_tokens();
    quote!(#implementation #errors)
}

fn parse(input: &DeriveInput, errors: &mut Errors) -> Model {
    let mut model = Model { name: None, version: 1, krate: keys::default_path() };
    let mut seen = Vec::new();
    let (mut attributed, mut malformed) = (false, false);
    for attribute in &input.attrs {
        if !attribute.path().is_ident("event") {
            continue;
        }
        attributed = true;
        let Meta::List(list) = &attribute.meta else {
            errors.at(attribute, "write `#[event(name = \"account.deposited\", version = 1)]`");
            malformed = true;
            continue;
        };
        malformed |= !KEYS.parse(list.tokens.clone(), &mut seen, errors, |key, input| match key {
            "name" => keys::text(input, "name").map(|name| model.name = Some(name)),
            "version" => keys::version(input).map(|version| model.version = version),
            _ => keys::path(input).map(|path| model.krate = path),
        });
    }
    if !attributed {
        errors.at(
            &input.ident,
            format_args!(
                "`{}` has no name in the log: write `#[event(name = \"account.deposited\", version = 1)]` under the derive",
                input.ident,
            ),
        );
    } else if !malformed && !seen.iter().any(|key| key == "name") {
        KEYS.missing(input.ident.span(), "name", errors);
    }
    refuse_generics(input, "an event", errors);
    if let Data::Union(union) = &input.data {
        errors.at(union.union_token, "an event is a struct or an enum: serde cannot store a union");
    }
    model
}

/// Refuses type parameters and lifetimes: the name in the log, or in traces, stands for one type.
pub(crate) fn refuse_generics(input: &DeriveInput, what: &str, errors: &mut Errors) {
    if !input.generics.params.is_empty() {
        errors.at(
            &input.generics,
            format_args!(
                "{what} cannot be generic: its one name stands for one type that owns its data"
            ),
        );
    }
}

fn expand(input: &DeriveInput, model: &Model, shape: &TokenStream) -> TokenStream {
    // There is no stub for a generic type: it would be generic too.
    if !input.generics.params.is_empty() {
        return TokenStream::new();
    }
    let Model { version, krate, .. } = model;
    let ident = &input.ident;
    let where_clause = &input.generics.where_clause;
    // Without a name a stub that is unique: another mistake would follow from two equal ones.
    let name = match &model.name {
        Some(name) => quote!(#name),
        None => quote!(::core::concat!(::core::module_path!(), "::", ::core::stringify!(#ident))),
    };
    quote! {
        #[automatically_derived]
        impl #krate::Event for #ident #where_clause {
            const NAME: &'static ::core::primitive::str = #name;
            const VERSION: ::core::primitive::u32 = #version;
            fn shape() -> #krate::Form {
                let __describing = &mut #krate::forms::Describing::default();
                #shape
            }
        }
    }
}
