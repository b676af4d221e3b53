//! `#[reactor]`: attribute and block → model → checks → the implementation.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Ident, LitStr, Path, Type};

use crate::duration::duration;
use crate::errors::Errors;
use crate::failures::{
    CLASSIFY, Failures, MAX_PARKED_KEYS, ON_FAILURE, RETRY, UNKNOWN, whole_number,
};
use crate::handler::{Block, Borrow, Handler};
use crate::keys::{self, CRATE, Keys};
use crate::projection::{On, is_header, is_transaction, keep_first, on};

const KEYS: Keys = Keys {
    attribute: "#[reactor]",
    known: &[
        ("name", "name = \"mailer\""),
        ("concurrency", "concurrency = 16"),
        ("timeout", "timeout = \"30 s\""),
        ("start", "start = newest"),
        RETRY,
        CLASSIFY,
        ON_FAILURE,
        MAX_PARKED_KEYS,
        UNKNOWN,
        CRATE,
    ],
};

struct Model {
    krate: Path,
    reactor: Type,
    name: LitStr,
    concurrency: Option<usize>,
    /// In milliseconds.
    timeout: Option<u64>,
    newest: bool,
    failures: Failures,
    handlers: Vec<Reaction>,
}

/// One `#[on]` method.
struct Reaction {
    on: On,
    kind: Kind,
    /// Whether it takes the header alone in place of the delivery.
    takes_header: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Asynchronous,
    InTransaction,
}

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut block = match Block::parse(item, "reactor") {
        Ok(block) => block,
        Err(tokens) => return tokens,
    };
    let mut errors = Errors::default();
    let mut model = parse_keys(arguments, &block, &mut errors);
    let foreign = ["apply", "command", "query"];
    for (_, handler) in block.take_handlers("reactor", &["on"], &["on"], &foreign, &mut errors) {
        model.handlers.extend(reaction(&handler, &mut errors));
    }
    if model.handlers.is_empty() && errors.is_empty() {
        errors.span(
            Span::call_site(),
            "a reactor needs handlers: write `#[on] async fn …` for each event that it handles",
        );
    }
    keep_first(&mut model.handlers, |reaction| &reaction.on.event, "handle", &mut errors);

    let generated = implementation(&model, errors.is_empty());
    let block = &block.item;
    let errors = errors.into_tokens();
    quote!(#block #generated #errors)
}

fn parse_keys(arguments: TokenStream, block: &Block, errors: &mut Errors) -> Model {
    let mut model = Model {
        krate: keys::default_path(),
        reactor: (*block.item.self_ty).clone(),
        name: LitStr::new("missing", Span::call_site()),
        concurrency: None,
        timeout: None,
        newest: false,
        failures: Failures::default(),
        handlers: Vec::new(),
    };
    let mut seen = Vec::new();
    let mut inner = Errors::default();
    let only_keys = KEYS.parse(arguments, &mut seen, errors, |key, input| {
        if let Some(parsed) = model.failures.parse(key, input, &mut inner) {
            return parsed;
        }
        match key {
            "name" => model.name = keys::text(input, "name")?,
            "concurrency" => model.concurrency = Some(whole_number(input)?),
            "timeout" => model.timeout = Some(duration(input)?),
            "start" => {
                let from: Ident = input.parse()?;
                if from != "newest" && from != "oldest" {
                    return Err(syn::Error::new(
                        from.span(),
                        "a reactor begins with the oldest event, or with what comes after its first start: write `start = oldest` or `start = newest`",
                    ));
                }
                model.newest = from == "newest";
            }
            _ => model.krate = keys::path(input)?,
        }
        Ok(())
    });
    errors.append(inner);
    if only_keys && !seen.iter().any(|seen| seen == "name") {
        KEYS.missing(Span::call_site(), "name", errors);
    }
    model
}

fn reaction(handler: &Handler, errors: &mut Errors) -> Option<Reaction> {
    let what = "an event handler";
    handler.check_plain(what, errors);
    let shared = "a reactor handles several events at once, so its handlers share it";
    handler.check_receiver(what, Borrow::Shared, shared, errors);
    let arguments = handler.arguments();
    let (kind, rest) = match arguments.split_first() {
        Some((first, rest)) if is_transaction(first) => {
            if let Some(token) = &handler.signature.asyncness {
                errors.at(
                    token,
                    "a handler with a transaction is synchronous: remove `async`; what lies outside the database belongs in a handler without a transaction",
                );
            }
            (Kind::InTransaction, rest)
        }
        _ => {
            if handler.signature.asyncness.is_none() {
                errors.at(
                    handler.signature.fn_token,
                    "a reactor's handler waits for what is outside: write `async fn`, or take `tx: &Transaction<'_>` before the event to write to the database of the views",
                );
            }
            (Kind::Asynchronous, arguments.as_slice())
        }
    };
    let example = match kind {
        Kind::Asynchronous => "&self, event: &…, delivery: &Delivery",
        Kind::InTransaction => "&self, tx: &Transaction<'_>, event: &…, delivery: &Delivery",
    };
    let takes_header = is_header(rest.get(1..).unwrap_or_default());
    let on = on(handler, rest, example, ("its delivery", "&Delivery"), errors)?;
    Some(Reaction { on, kind, takes_header })
}

/// `complete` is false if there were mistakes: then the handlers are not named.
fn implementation(model: &Model, complete: bool) -> TokenStream {
    let Model { krate, reactor, name, .. } = model;
    let handlers = model.handlers.iter().map(|reaction| one(krate, reaction));
    let body = if complete { quote!(#(#handlers)*) } else { quote!(let _ = __handlers;) };
    let failures = model.failures.expand(krate, &quote!(#krate::FailurePolicy::for_effects()));
    let options = options(model);
    quote! {
        #[automatically_derived]
        impl #krate::Reactor for #reactor {
            const NAME: &'static ::core::primitive::str = #name;
            fn handlers(__handlers: &mut #krate::Reactions<Self>) {
                #body
            }
            #options
            #failures
        }
    }
}

/// `fn options()`, if anything was said.
fn options(model: &Model) -> Option<TokenStream> {
    let krate = &model.krate;
    let concurrency = model.concurrency.map(|number| quote!(__options.concurrency = #number;));
    let timeout = model.timeout.map(|milliseconds| {
        quote!(__options.timeout = ::core::time::Duration::from_millis(#milliseconds);)
    });
    let start = model.newest.then(|| quote!(__options.start = #krate::StartFrom::Newest;));
    let said: Vec<_> = [concurrency, timeout, start].into_iter().flatten().collect();
    (!said.is_empty()).then(|| {
        quote! {
            fn options() -> #krate::ReactorOptions {
                let mut __options: #krate::ReactorOptions = ::core::default::Default::default();
                #(#said)*
                __options
            }
        }
    })
}

fn one(krate: &Path, reaction: &Reaction) -> TokenStream {
    let Reaction { on, kind, takes_header } = reaction;
    let On { method, event, takes_header: takes_delivery, output: (first, last), .. } = on;
    let (delivery, argument) = match (takes_delivery, takes_header) {
        (false, _) => (quote!(_), None),
        (true, true) => (quote!(__delivery), Some(quote!(, &__delivery.header))),
        (true, false) => (quote!(__delivery), Some(quote!(, __delivery))),
    };
    // The call spans the handler's return type, so that an error about what it returns stands there.
    let callee = quote_spanned!(*first=> Self::);
    let method = format_ident!("{method}", span = *first);
    let outcome = quote_spanned!(*first=> _);
    let registered = match kind {
        Kind::Asynchronous => {
            let arguments = quote_spanned!(*last=> (__reactor, __event #argument));
            let call = quote_spanned!(*last=> (#callee #method #arguments));
            let boxed = quote_spanned!(*first=> ::std::boxed::Box::pin #call);
            quote! {
                #krate::Reactions::<Self>::on::<#event, #outcome>(
                    __handlers,
                    |__reactor, __event, #delivery| #boxed,
                );
            }
        }
        Kind::InTransaction => {
            let arguments = quote_spanned!(*last=> (__reactor, __tx, __event #argument));
            quote! {
                #krate::Reactions::<Self>::in_transaction::<#event, #outcome>(
                    __handlers,
                    |__reactor, __tx, __event, #delivery| #callee #method #arguments,
                );
            }
        }
    };
    let key = on.keys.key_function(krate, event, &on.patterns).map(
        |function| quote!(#krate::Reactions::<Self>::key::<#event, _>(__handlers, #function);),
    );
    let live_only = on
        .keys
        .live_only
        .then(|| quote!(#krate::Reactions::<Self>::live_only::<#event>(__handlers);));
    quote!(#registered #key #live_only)
}
