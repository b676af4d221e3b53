//! `#[derive(Event)]`: attribute → keys → the implementation.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::{Data, DeriveInput, Ident, LitInt, LitStr, Meta, Path, Token};

use crate::errors::Errors;
use crate::keys::{self, CRATE, Keys};
use crate::shape;

const KEYS: Keys = Keys {
    attribute: "#[event]",
    known: &[
        ("name", "name = \"account.deposited\""),
        ("version", "version = 1"),
        ("oldest", "oldest = 1"),
        ("formerly", "formerly = \"account.paid_in\""),
        CODEC,
        CRATE,
    ],
};

const CODEC: (&str, &str) = ("codec", "codec = MessagePack");

/// The formats, each with the feature of the crate that it takes.
const CODECS: [(&str, Option<&str>); 3] =
    [("Json", None), ("MessagePack", Some("messagepack")), ("Cbor", Some("cbor"))];

struct Model {
    name: Option<LitStr>,
    version: u32,
    codec: Option<(Ident, Option<&'static str>)>,
    /// The version as it is written, if it is.
    written: Option<LitInt>,
    /// The oldest version that the type reads.
    oldest: u32,
    formerly: Vec<LitStr>,
    krate: Path,
}

pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let model = parse(input, &mut errors);
    let shape = shape::of_event(input, &model.krate, &mut errors);
    let implementation = expand(input, &model, &shape, errors.is_empty());
    let errors = errors.into_tokens();
    quote!(#implementation #errors)
}

fn parse(input: &DeriveInput, errors: &mut Errors) -> Model {
    let mut model = Model {
        name: None,
        version: 1,
        written: None,
        oldest: 1,
        codec: None,
        formerly: Vec::new(),
        krate: keys::default_path(),
    };
    let mut oldest = None;
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
            "version" => {
                let written: LitInt = input.fork().parse()?;
                model.version = keys::version(input)?;
                model.written = Some(written);
                Ok(())
            }
            "oldest" => {
                let written: LitInt = input.fork().parse()?;
                model.oldest = keys::version(input)?;
                oldest = Some(written);
                Ok(())
            }
            "formerly" => formerly(input).map(|names| model.formerly = names),
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
    if let Some(oldest) = oldest.filter(|_| model.oldest > model.version) {
        errors.at(
            &oldest,
            format_args!(
                "the type is at version {0}, and reads that at least: write `oldest = {0}`, or raise `version`",
                model.version,
            ),
        );
        model.oldest = model.version;
    }
    for (index, former) in model.formerly.iter().enumerate() {
        if model.name.as_ref().is_some_and(|name| name.value() == former.value()) {
            errors
                .at(former, "that is its name today: write one that it had before, or remove this");
        }
        if model.formerly.iter().take(index).any(|earlier| earlier.value() == former.value()) {
            errors.at(former, "this name is given twice: remove one of them");
        }
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

/// Reads one former name, or a list of them in brackets.
fn formerly(input: ParseStream<'_>) -> syn::Result<Vec<LitStr>> {
    if !input.peek(syn::token::Bracket) {
        return Ok(vec![keys::text(input, "former name")?]);
    }
    let content;
    syn::bracketed!(content in input);
    let name = |input: ParseStream<'_>| keys::text(input, "former name");
    let names: Punctuated<LitStr, Token![,]> = content.parse_terminated(name, Token![,])?;
    Ok(names.into_iter().collect())
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

/// `complete` is false if there were mistakes: that steps are not there either would be another.
fn expand(input: &DeriveInput, model: &Model, shape: &TokenStream, complete: bool) -> TokenStream {
    // There is no stub for a generic type: it would be generic too.
    if !input.generics.params.is_empty() {
        return TokenStream::new();
    }
    let Model { version, oldest, formerly, codec, krate, .. } = model;
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
    let former_names = (!formerly.is_empty()).then(|| {
        quote! {
            const FORMER_NAMES: &'static [&'static ::core::primitive::str] = &[#(#formerly),*];
        }
    });
    let older = (oldest < version).then(|| quote!(const OLDEST: ::core::primitive::u32 = #oldest;));
    let upcast = (oldest < version && complete).then(|| {
        // Spans the version, so that the error about steps that are not there stands where it was raised.
        let span = model.written.as_ref().map_or_else(Span::call_site, LitInt::span);
        let upcast = quote_spanned!(span=> #krate::__private::upcast::<Self>);
        quote! {
            fn upcast(
                __schema_version: ::core::primitive::u32,
                __codec: #krate::Codec,
                __payload: &[::core::primitive::u8],
            ) -> ::core::result::Result<Self, #krate::DecodeError> {
                #upcast(__schema_version, __codec, __payload)
            }
        }
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
            #former_names
            #older
            #upcast
        }
    }
}
