//! What the blocks of `#[aggregate]` and `#[projection]` have in common: methods with an attribute, and their signatures.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::punctuated::Punctuated;
use syn::{
    Attribute, FnArg, GenericArgument, GenericParam, Ident, ImplItem, Item, ItemImpl, Meta,
    PatType, PathArguments, ReceiverKind, ReturnType, Safety, Signature, Token, Type,
};

use crate::errors::Errors;
use crate::keys::alike;

/// The inherent, concrete impl block under an attribute macro, and the name of its type.
pub(crate) struct Block {
    pub(crate) item: ItemImpl,
    pub(crate) ident: Ident,
}

impl Block {
    /// The block in `item`; else what is wrong, with the item as it was.
    pub(crate) fn parse(item: TokenStream, macro_name: &str) -> Result<Self, TokenStream> {
        let parsed = match syn::parse2::<Item>(item.clone()) {
            Ok(parsed) => parsed,
            Err(error) => {
                let error = error.into_compile_error();
                return Err(quote!(#error #item));
            }
        };
        let mut errors = Errors::default();
        let found = Self::check(parsed, macro_name, &mut errors);
        match found {
            Some(block) if errors.is_empty() => Ok(block),
            _ => {
                let errors = errors.into_tokens();
                let item = without_handler_attributes(item);
                Err(quote!(#errors #item))
            }
        }
    }

    fn check(item: Item, macro_name: &str, errors: &mut Errors) -> Option<Self> {
        let Item::Impl(item) = item else {
            errors.span(
                Span::call_site(),
                format_args!(
                    "`#[{macro_name}]` belongs on an `impl` block: write it above the block that holds the handlers"
                ),
            );
            return None;
        };
        if let Some((path, for_token)) = &item.trait_ {
            errors.at(
                quote!(#path #for_token),
                format_args!(
                    "`#[{macro_name}]` writes the trait implementations itself: put it on an `impl` block without a trait"
                ),
            );
        }
        if !item.generics.params.is_empty() {
            errors.at(
                &item.generics,
                format_args!(
                    "a type under `#[{macro_name}]` cannot be generic: its one name in the log stands for one type"
                ),
            );
        }
        let Some(ident) = last_ident(&item.self_ty).cloned() else {
            errors.at(
                &item.self_ty,
                format_args!("`#[{macro_name}]` needs a struct or an enum of this crate"),
            );
            return None;
        };
        Some(Self { item, ident })
    }

    /// Takes the methods that bear one of the attributes in `known` out of the block, attribute by attribute.
    ///
    /// Those in `keyed` take keys, as in `#[on(live_only)]`; the others take nothing. `foreign` are the attributes of the other
    /// macros: rustc would only say that it cannot find them.
    pub(crate) fn take_handlers(
        &mut self,
        macro_name: &str,
        known: &[&'static str],
        keyed: &[&str],
        foreign: &[&str],
        errors: &mut Errors,
    ) -> Vec<(&'static str, Handler)> {
        let mut handlers = Vec::new();
        for item in &mut self.item.items {
            let ImplItem::Fn(method) = item else { continue };
            let mut found: Option<&'static str> = None;
            let mut keys = None;
            method.attrs.retain(|attribute| {
                let path = attribute.path();
                if let Some(name) = known.iter().find(|name| path.is_ident(name)) {
                    if found.is_some() {
                        errors.at(
                            attribute,
                            "a method handles one thing: remove one of its attributes",
                        );
                    } else {
                        keys = attribute_keys(attribute, name, keyed.contains(name), errors);
                    }
                    found = found.or(Some(name));
                    return false;
                }
                let Some(ident) = path.get_ident() else {
                    return true;
                };
                let text = ident.to_string();
                let meant = known.iter().find(|name| alike(name, &text));
                if meant.is_none() && !foreign.contains(&text.as_str()) {
                    return true;
                }
                errors.at(
                    attribute,
                    format_args!(
                        "unknown attribute `{text}`: a method under `#[{macro_name}]` takes {}",
                        known
                            .iter()
                            .map(|name| format!("`#[{name}]`"))
                            .collect::<Vec<_>>()
                            .join(" or "),
                    ),
                );
                if let Meta::List(list) = &attribute.meta {
                    keys = keys.take().or_else(|| Some(list.tokens.clone()));
                }
                found = found.or(meant.copied());
                false
            });
            let Some(name) = found else { continue };
            refuse_cfg(name, &method.attrs, errors);
            // The signature is the framework's choice, not the user's.
            method.attrs.push(syn::parse_quote! {
                #[allow(
                    clippy::needless_pass_by_value,
                    clippy::trivially_copy_pass_by_ref,
                    clippy::unnecessary_wraps,
                    clippy::unused_self,
                )]
            });
            handlers.push((name, Handler { signature: method.sig.clone(), keys }));
        }
        handlers
    }
}

/// What stands between the parentheses of the attribute `name`, if there are any.
fn attribute_keys(
    attribute: &Attribute,
    name: &str,
    takes_keys: bool,
    errors: &mut Errors,
) -> Option<TokenStream> {
    match &attribute.meta {
        Meta::Path(_) => {}
        Meta::List(list) if takes_keys => return Some(list.tokens.clone()),
        _ if takes_keys => {
            errors.at(attribute, format_args!("write `#[{name}]`, or `#[{name}(…)]` with keys"));
        }
        _ => errors.at(attribute, format_args!("`#[{name}]` takes no arguments")),
    }
    None
}

fn refuse_cfg(name: &str, attributes: &[Attribute], errors: &mut Errors) {
    let why = match name {
        "query" => "since its projection answers for it",
        "upcast" => "since the old version stands in the log",
        _ => "since what it handles stands in the log",
    };
    for attribute in attributes {
        if attribute.path().is_ident("cfg") {
            errors.at(
                attribute,
                format_args!("a handler is always there, {why}: put `#[cfg]` into its body"),
            );
        }
    }
}

/// The item with its handlers' attributes removed, if it is an impl block: rustc would complain about each of them.
fn without_handler_attributes(item: TokenStream) -> TokenStream {
    match syn::parse2::<ItemImpl>(item.clone()) {
        Ok(mut block) => {
            for item in &mut block.items {
                if let ImplItem::Fn(method) = item {
                    method.attrs.retain(|attribute| {
                        !["command", "apply", "on", "query", "upcast"]
                            .iter()
                            .any(|name| attribute.path().is_ident(name))
                    });
                }
            }
            block.into_token_stream()
        }
        Err(_) => item,
    }
}

/// How a handler borrows what it belongs to.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Borrow {
    Shared,
    Exclusive,
}

/// A method with one of the attributes.
pub(crate) struct Handler {
    pub(crate) signature: Signature,
    /// What stands between the parentheses of the attribute.
    pub(crate) keys: Option<TokenStream>,
}

impl Handler {
    /// Checks all that does not depend on the arguments.
    pub(crate) fn check(
        &self,
        what: &str,
        borrow: Borrow,
        wrong_borrow: &str,
        why_synchronous: &str,
        errors: &mut Errors,
    ) {
        self.check_form(what, why_synchronous, errors);
        self.check_receiver(what, borrow, wrong_borrow, errors);
    }

    /// Checks all that depends neither on the arguments nor on the receiver of a handler that is synchronous.
    pub(crate) fn check_form(&self, what: &str, why_synchronous: &str, errors: &mut Errors) {
        let signature = &self.signature;
        if let Some(token) = signature.asyncness {
            errors.at(
                token,
                format_args!("{what} is synchronous: remove `async`; {why_synchronous}"),
            );
        }
        self.check_plain(what, errors);
    }

    /// Checks all that depends neither on the arguments nor on the receiver, whether it is asynchronous or not.
    pub(crate) fn check_plain(&self, what: &str, errors: &mut Errors) {
        let signature = &self.signature;
        if let Safety::Unsafe(token) = &signature.safety {
            errors.at(token, format_args!("{what} is called by safe code: remove `unsafe`"));
        }
        for parameter in &signature.generics.params {
            if !matches!(parameter, GenericParam::Lifetime(_)) {
                errors.at(
                    parameter,
                    format_args!("{what} handles one type: remove the type parameter"),
                );
            }
        }
    }

    /// Checks how it borrows what it belongs to.
    pub(crate) fn check_receiver(
        &self,
        what: &str,
        borrow: Borrow,
        wrong: &str,
        errors: &mut Errors,
    ) {
        let written = match borrow {
            Borrow::Shared => "&self",
            Borrow::Exclusive => "&mut self",
        };
        let Some(receiver) = self.signature.receiver() else {
            errors.at(
                &self.signature.ident,
                format_args!("{what} is a method: write `{written}` as its first argument"),
            );
            return;
        };
        let found = match &receiver.kind {
            ReceiverKind::Reference(_, _, None) => Some(Borrow::Shared),
            ReceiverKind::Reference(_, _, Some(_)) => Some(Borrow::Exclusive),
            ReceiverKind::Typed(_, ty) => match &**ty {
                Type::Reference(reference) if reference.mutability.is_some() => {
                    Some(Borrow::Exclusive)
                }
                Type::Reference(_) => Some(Borrow::Shared),
                _ => None,
            },
            _ => None,
        };
        if found != Some(borrow) {
            errors.at(receiver, format_args!("{wrong}: write `{written}`"));
        }
    }

    pub(crate) fn ident(&self) -> &Ident {
        &self.signature.ident
    }

    /// The arguments after `self`.
    pub(crate) fn arguments(&self) -> Vec<&PatType> {
        self.signature
            .inputs
            .iter()
            .filter_map(|argument| match argument {
                FnArg::Typed(argument) => Some(argument),
                FnArg::Receiver(_) => None,
            })
            .collect()
    }

    /// The spans of the first and the last token of the return type; of the method's name if there is none.
    pub(crate) fn output_spans(&self) -> (Span, Span) {
        let tokens = match &self.signature.output {
            ReturnType::Type(_, ty) => ty.to_token_stream(),
            ReturnType::Default => self.signature.ident.to_token_stream(),
        };
        let mut spans = tokens.into_iter().map(|token| token.span());
        let first = spans.next().unwrap_or_else(Span::call_site);
        (first, spans.last().unwrap_or(first))
    }
}

/// The type behind a shared reference, as an event, a context or a header is handed over; `None` and a mistake if it is not
/// a path. Behind a mistake in the way of handing over the type is still found.
pub(crate) fn event_type(argument: &PatType, errors: &mut Errors) -> Option<Type> {
    let ty = plain(&argument.ty);
    let referred = match ty {
        Type::Reference(reference) => plain(&reference.elem),
        other => other,
    };
    let Some(ident) = last_ident(referred) else {
        errors.at(ty, "an event is a type of its own: write `&` and its name");
        return None;
    };
    if let Some(inner) = inside_envelope(referred) {
        let inner_tokens = inner.to_token_stream();
        errors.at(
            ty,
            format_args!(
                "an event and its header come apart: write `&{inner_tokens}`, and `header: &Header` as a further argument of a projection's handler"
            ),
        );
        return Some(inner.clone());
    }
    match ty {
        Type::Reference(reference) => {
            if let Some(token) = &reference.mutability {
                errors.at(
                    token,
                    format_args!("an event has happened and never changes: write `&{ident}`"),
                );
            }
        }
        _ => errors.at(ty, format_args!("an event is handed over by reference: write `&{ident}`")),
    }
    Some(referred.clone())
}

/// Whether the argument is a shared reference; `what` says what to write if it is not.
pub(crate) fn check_reference(argument: &PatType, what: &str, errors: &mut Errors) {
    match plain(&argument.ty) {
        Type::Reference(reference) if reference.mutability.is_none() => {}
        other => errors.at(other, what),
    }
}

fn inside_envelope(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let segment = path.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return None;
    };
    match arguments.args.first() {
        Some(GenericArgument::Type(inner)) if segment.ident == "Envelope" => Some(inner),
        _ => None,
    }
}

/// The type without the parentheses and the invisible groups around it.
pub(crate) fn plain(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => plain(&group.elem),
        Type::Paren(paren) => plain(&paren.elem),
        other => other,
    }
}

/// The last name in the path of a type: the name of the variant that holds it.
pub(crate) fn last_ident(ty: &Type) -> Option<&Ident> {
    match plain(ty) {
        Type::Path(path) if path.qself.is_none() => {
            path.path.segments.last().map(|segment| &segment.ident)
        }
        _ => None,
    }
}

/// The text of a type or path, to compare two of them and to show them in a message.
pub(crate) fn text(tokens: impl ToTokens) -> String {
    tokens.to_token_stream().to_string()
}

/// A list of paths between parentheses.
pub(crate) fn parenthesized(
    input: syn::parse::ParseStream<'_>,
) -> syn::Result<Punctuated<syn::Path, Token![,]>> {
    let content;
    syn::parenthesized!(content in input);
    content.parse_terminated(syn::Path::parse_mod_style, Token![,])
}
