//! `#[projection]`: attribute and block → model → checks → the implementation.

mod query;

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Expr, Ident, LitStr, Pat, PatType, Path, Type};

use crate::errors::Errors;
use crate::failures::{CLASSIFY, Failures, MAX_PARKED_KEYS, ON_FAILURE, RETRY, UNKNOWN};
use crate::handler::{
    Block, Borrow, Handler, check_reference, event_type, last_ident, plain, text,
};
use crate::keys::{self, CRATE, Keys};
use crate::on::OnKeys;

const KEYS: Keys = Keys {
    attribute: "#[projection]",
    known: &[
        ("name", "name = \"balances\""),
        ("version", "version = 1"),
        ("schema", "schema = \"CREATE TABLE …\""),
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
    view: Type,
    name: LitStr,
    version: u32,
    schema: Option<Expr>,
    failures: Failures,
    handlers: Vec<On>,
    answers: Vec<query::Answer>,
}

/// One `#[on]` method.
pub(crate) struct On {
    pub(crate) method: Ident,
    pub(crate) event: Type,
    pub(crate) takes_header: bool,
    /// How it names the event and the header.
    pub(crate) patterns: Vec<Pat>,
    pub(crate) keys: OnKeys,
    /// The spans of the first and the last token of what it returns.
    pub(crate) output: (Span, Span),
}

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut block = match Block::parse(item, "projection") {
        Ok(block) => block,
        Err(tokens) => return tokens,
    };
    let mut errors = Errors::default();
    let mut model = parse_keys(arguments, &block, &mut errors);
    let methods = block.take_handlers(
        "projection",
        &["on", "query"],
        &["on"],
        &["apply", "command"],
        &mut errors,
    );
    for (name, handler) in methods {
        match (name, &model.schema) {
            ("query", None) => model.answers.extend(query::in_memory(&handler, &mut errors)),
            ("query", Some(_)) => model.answers.extend(query::in_tables(&handler, &mut errors)),
            (_, None) => model.handlers.extend(on_in_memory(&handler, &mut errors)),
            (_, Some(_)) => model.handlers.extend(on_in_tables(&handler, &mut errors)),
        }
    }
    check(&mut model, &mut errors);

    let generated = implementation(&model, errors.is_empty());
    let block = &block.item;
    let errors = errors.into_tokens();
    quote!(#block #generated #errors)
}

fn parse_keys(arguments: TokenStream, block: &Block, errors: &mut Errors) -> Model {
    let mut model = Model {
        krate: keys::default_path(),
        view: (*block.item.self_ty).clone(),
        name: LitStr::new("missing", Span::call_site()),
        version: 1,
        schema: None,
        failures: Failures::default(),
        handlers: Vec::new(),
        answers: Vec::new(),
    };
    let mut seen = Vec::new();
    let mut inner = Errors::default();
    let only_keys = KEYS.parse(arguments, &mut seen, errors, |key, input| {
        if let Some(parsed) = model.failures.parse(key, input, &mut inner) {
            return parsed;
        }
        match key {
            "name" => model.name = keys::text(input, "name")?,
            "version" => model.version = keys::version(input)?,
            "schema" => model.schema = Some(input.parse()?),
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

fn check_method(handler: &Handler, borrow: Borrow, wrong: &str, errors: &mut Errors) {
    handler.check("an event handler", borrow, wrong, "a view is folded from events alone", errors);
}

fn on_in_memory(handler: &Handler, errors: &mut Errors) -> Option<On> {
    let arguments = handler.arguments();
    if let Some(transaction) = arguments.first().filter(|argument| is_transaction(argument)) {
        errors.at(
            transaction,
            "a handler with a transaction needs tables: add `schema = \"CREATE TABLE …\"` to `#[projection]`",
        );
        let rest = arguments.get(1..).unwrap_or_default();
        return on(handler, rest, "&mut self, event: &…", HEADER, errors);
    }
    check_method(handler, Borrow::Exclusive, "a view in memory is changed by its handlers", errors);
    on(handler, &arguments, "&mut self, event: &…", HEADER, errors)
}

fn on_in_tables(handler: &Handler, errors: &mut Errors) -> Option<On> {
    check_method(
        handler,
        Borrow::Shared,
        "a projection with a `schema` keeps its view in tables, which its handlers change through the transaction",
        errors,
    );
    let arguments = handler.arguments();
    let Some((first, rest)) = arguments.split_first() else {
        return on(handler, &[], TABLES_EXAMPLE, HEADER, errors);
    };
    if !is_transaction(first) && (rest.is_empty() || is_header(rest)) {
        errors.at(
            handler.ident(),
            "a projection with a `schema` writes through a transaction: write `tx: &Transaction<'_>` before the event",
        );
        return on(handler, &arguments, TABLES_EXAMPLE, HEADER, &mut Errors::default());
    }
    check_reference(
        first,
        "a handler's transaction is handed over by reference: write `&Transaction<'_>`",
        errors,
    );
    on(handler, rest, TABLES_EXAMPLE, HEADER, errors)
}

const TABLES_EXAMPLE: &str = "&self, tx: &Transaction<'_>, event: &…";

/// What may come after the event: in words, and as it is written.
pub(crate) const HEADER: (&str, &str) = ("its header", "&Header");

/// Reads the event and what comes after it.
pub(crate) fn on(
    handler: &Handler,
    arguments: &[&PatType],
    example: &str,
    (what, written): (&str, &str),
    errors: &mut Errors,
) -> Option<On> {
    let method = handler.ident();
    let Some((event, rest)) = arguments.split_first() else {
        errors.at(
            method,
            format_args!(
                "an event handler handles an event: write `fn {method}({example})` with the event's type"
            ),
        );
        return None;
    };
    if let Some(header) = rest.first() {
        let wrong = format!("after the event comes {what}: write `{written}`");
        check_reference(header, &wrong, errors);
    }
    for extra in rest.iter().skip(1) {
        errors.at(
            extra,
            format_args!("an event handler takes the event and `{written}`: remove this argument"),
        );
    }
    Some(On {
        method: method.clone(),
        event: event_type(event, errors)?,
        takes_header: !rest.is_empty(),
        patterns: arguments.iter().map(|argument| (*argument.pat).clone()).collect(),
        keys: OnKeys::parse(handler, errors),
        output: handler.output_spans(),
    })
}

/// Whether the argument is the transaction of a database.
pub(crate) fn is_transaction(argument: &PatType) -> bool {
    referred_name(argument).is_some_and(|ident| ident == "Transaction")
}

/// Whether the next argument is a header, so that the one before it must be the event.
pub(crate) fn is_header(arguments: &[&PatType]) -> bool {
    arguments
        .first()
        .and_then(|argument| referred_name(argument))
        .is_some_and(|ident| ident == "Header")
}

/// The last name behind the reference, if the argument is one.
fn referred_name(argument: &PatType) -> Option<&Ident> {
    match plain(&argument.ty) {
        Type::Reference(reference) => last_ident(&reference.elem),
        other => last_ident(other),
    }
}

fn check(model: &mut Model, errors: &mut Errors) {
    if model.handlers.is_empty() && errors.is_empty() {
        errors.span(
            Span::call_site(),
            "a projection needs handlers: write `#[on] fn …` for each event that it folds",
        );
    }
    keep_first(&mut model.handlers, |on| &on.event, "fold", errors);
    query::check(&mut model.answers, errors);
}

/// Refuses a second handler for the same event; `verb` is what handlers do with it.
pub(crate) fn keep_first<H>(
    handlers: &mut Vec<H>,
    event_of: impl Fn(&H) -> &Type,
    verb: &str,
    errors: &mut Errors,
) {
    let mut seen = Vec::new();
    handlers.retain(|handler| {
        let event = text(event_of(handler));
        let twice = seen.contains(&event);
        if twice {
            errors.at(
                event_of(handler),
                format_args!("`{event}` is handled twice: {verb} it in one `#[on]` handler"),
            );
        }
        seen.push(event);
        !twice
    });
}

/// `complete` is false if there were mistakes: then the handlers are not named.
fn implementation(model: &Model, complete: bool) -> TokenStream {
    let Model { krate, view, name, version, schema, failures, .. } = model;
    let failures = failures.expand(krate, &quote!(::core::default::Default::default()));
    let storage = match schema {
        None => quote!(#krate::InMemory),
        Some(_) => quote!(#krate::Tables),
    };
    let schema = schema
        .as_ref()
        .map(|schema| quote!(#krate::Handlers::<Self, #storage>::schema(__handlers, #schema);));
    let handlers = model.handlers.iter().map(|handler| one(model, handler, &storage));
    let answers = model.answers.iter().map(|answer| query::expand(model, answer, &storage));
    let body = if complete {
        quote!(#schema #(#handlers)* #(#answers)*)
    } else {
        quote!(let _ = __handlers;)
    };
    quote! {
        #[automatically_derived]
        impl #krate::Projection for #view {
            const NAME: &'static ::core::primitive::str = #name;
            const VERSION: ::core::primitive::u32 = #version;
            type Storage = #storage;
            fn handlers(__handlers: &mut #krate::Handlers<Self, #storage>) {
                #body
            }
            #failures
        }
    }
}

fn one(model: &Model, handler: &On, storage: &TokenStream) -> TokenStream {
    let krate = &model.krate;
    let On { method, event, .. } = handler;
    let (header, header_argument) = if handler.takes_header {
        (quote!(__header), quote!(, __header))
    } else {
        (quote!(_), TokenStream::new())
    };
    let (view, tx, tx_argument) = match model.schema {
        None => (quote!(&mut Self), None, None),
        Some(_) => (
            quote!(&Self),
            Some(quote!(__tx: &#krate::sqlite::Transaction<'_>,)),
            Some(quote!(, __tx)),
        ),
    };
    // The call spans the handler's return type, so that an error about what it returns stands there.
    let (first, last) = handler.output;
    let call = {
        let callee = quote_spanned!(first=> Self::);
        let method = format_ident!("{method}", span = first);
        let arguments = quote_spanned!(last=> (__view #tx_argument, __event #header_argument));
        quote!(#callee #method #arguments)
    };
    let outcome = quote_spanned!(first=> _);
    let key = handler.keys.key_function(krate, event, &handler.patterns).map(|function| {
        quote!(#krate::Handlers::<Self, #storage>::key::<#event, _>(__handlers, #function);)
    });
    let live_only = handler
        .keys
        .live_only
        .then(|| quote!(#krate::Handlers::<Self, #storage>::live_only::<#event>(__handlers);));
    quote! {
        #krate::Handlers::<Self, #storage>::on::<#event, #outcome>(
            __handlers,
            |__view: #view, #tx __event: &#event, #header: &#krate::Header| #call,
        );
        #key
        #live_only
    }
}
