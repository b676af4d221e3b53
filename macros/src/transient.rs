//! `#[derive(TransientEvent)]`: attribute → keys → the implementation.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Data, DeriveInput, Fields, Ident, LitStr, Meta, Path, PathArguments, Type, TypePath, Variant,
};

use crate::errors::Errors;
use crate::event::refuse_generics;
use crate::handler::plain;
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
    let parts = parts(&input.data);
    let names = parts.iter().map(|(variant, _)| variant.unraw().to_string());
    let carried_parts = parts.iter().map(|(variant, ty)| part(&krate, ident, variant, ty));
    quote! {
        #[automatically_derived]
        impl #krate::TransientEvent for #ident #where_clause {
            const NAME: &'static ::core::primitive::str = #name;
            const PARTS: &'static [&'static ::core::primitive::str] = &[#(#names),*];
        }
        #[automatically_derived]
        impl #krate::Carried for #ident #where_clause {
            type On = Self;
            const EVENT: &'static ::core::primitive::str = #name;
            fn find(__item: &Self) -> ::core::option::Option<&Self> {
                ::core::option::Option::Some(__item)
            }
        }
        #(#carried_parts)*
        #errors
    }
}

/// The variants of an enum that are named as the type in them.
fn parts(data: &Data) -> Vec<(&Ident, &TypePath)> {
    let Data::Enum(data) = data else {
        return Vec::new();
    };
    data.variants
        .iter()
        .filter_map(|variant: &Variant| {
            let Fields::Unnamed(fields) = &variant.fields else { return None };
            let field = fields.unnamed.first().filter(|_| fields.unnamed.len() == 1)?;
            let Type::Path(path) = plain(&field.ty) else { return None };
            let last = path.path.segments.last()?;
            let named = path.qself.is_none()
                && matches!(last.arguments, PathArguments::None)
                && last.ident == variant.ident;
            named.then_some((&variant.ident, path))
        })
        .collect()
}

/// What makes the type of a variant an event of its own, on the topic of the enum.
fn part(krate: &Path, topic: &Ident, variant: &Ident, ty: &TypePath) -> TokenStream {
    let name = variant.unraw().to_string();
    // Errors about the type of a variant, such as that it is no type of this crate, stand at that type.
    let carried = quote_spanned! {ty.span()=>
        impl #krate::Carried for #ty
    };
    quote! {
        #[automatically_derived]
        #carried {
            type On = #topic;
            const EVENT: &'static ::core::primitive::str = #name;
            #[allow(unreachable_patterns)]
            fn find(__item: &#topic) -> ::core::option::Option<&Self> {
                match __item {
                    #topic::#variant(__event) => ::core::option::Option::Some(__event),
                    _ => ::core::option::Option::None,
                }
            }
        }
        #[automatically_derived]
        impl ::core::convert::From<#ty> for #topic {
            fn from(__event: #ty) -> Self {
                Self::#variant(__event)
            }
        }
    }
}
