//! `#[derive(Event)]`: attribute → keys → the implementation.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::ParseStream;
use syn::{Data, DeriveInput, Ident, LitStr, Meta, Path};

use crate::errors::Errors;
use crate::keys::{self, CRATE, Keys};
use crate::shape;

const KEYS: Keys = Keys {
    attribute: "#[event]",
    known: &[("name", "name = \"account.deposited\""), ("version", "version = 1"), CODEC, CRATE],
};

const CODEC: (&str, &str) = ("codec", "codec = MessagePack");

/// The formats, each with the feature of the crate that it takes.
const CODECS: [(&str, Option<&str>); 3] =
    [("Json", None), ("MessagePack", Some("messagepack")), ("Cbor", Some("cbor"))];

struct Model {
    name: Option<LitStr>,
    version: u32,
    codec: Option<(Ident, Option<&'static str>)>,
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
    let mut model = Model { name: None, version: 1, codec: None, krate: keys::default_path() };
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
            "codec" => codec(input).map(|codec| model.codec = Some(codec)),
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

/// Reads the format of the payload, and which feature it takes.
fn codec(input: ParseStream<'_>) -> syn::Result<(Ident, Option<&'static str>)> {
    let codec: Ident = input.parse()?;
    let known = CODECS.iter().find(|(known, _)| codec == known);
    known.map(|(_, feature)| (codec.clone(), *feature)).ok_or_else(|| {
        syn::Error::new(
            codec.span(),
            format_args!("no such format `{codec}`: write `Json`, `MessagePack` or `Cbor`"),
        )
    })
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
    let Model { version, codec, krate, .. } = model;
    let ident = &input.ident;
    let where_clause = &input.generics.where_clause;
    // Without a name a stub that is unique: another mistake would follow from two equal ones.
    let name = match &model.name {
        Some(name) => quote!(#name),
        None => quote!(::core::concat!(::core::module_path!(), "::", ::core::stringify!(#ident))),
    };
    let format = codec
        .as_ref()
        .map(|(codec, _)| quote!(const CODEC: #krate::Codec = #krate::Codec::#codec;));
    // A format that was not compiled in would be an error of each commit.
    let available = codec.as_ref().and_then(|(codec, feature)| {
        let message = format!(
            "`codec = {codec}` takes the feature `{}` of tidings: enable it in Cargo.toml",
            (*feature)?,
        );
        Some(quote_spanned! {codec.span()=>
            const _: () = ::core::assert!(#krate::Codec::#codec.is_available(), #message);
        })
    });
    quote! {
        #available
        #[automatically_derived]
        impl #krate::Event for #ident #where_clause {
            const NAME: &'static ::core::primitive::str = #name;
            const VERSION: ::core::primitive::u32 = #version;
            fn shape() -> #krate::Form {
                let __describing = &mut #krate::forms::Describing::default();
                #shape
            }
            #format
        }
    }
}
