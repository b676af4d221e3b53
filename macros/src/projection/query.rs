//! The `#[query]` methods of a projection.

use proc_macro2::{Delimiter, Group, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{GenericArgument, Ident, PatType, PathArguments, ReturnType, Type};

use super::{Model, is_transaction, referred_name};
use crate::errors::Errors;
use crate::handler::{Borrow, Handler, check_reference, last_ident, plain, text};

const QUERY: &str = "a query handler";

const QUERY_IS_SYNCHRONOUS: &str = "what it answers from is there already";

const MEMORY_QUERY: &str = "&self, query: …";

const TABLES_QUERY: &str = "db: &Connection, query: …";

/// One `#[query]` method.
pub(super) struct Answer {
    method: Ident,
    query: Type,
    by_reference: bool,
    output: (Span, Span),
}

pub(super) fn in_memory(handler: &Handler, errors: &mut Errors) -> Option<Answer> {
    let arguments = handler.arguments();
    if let Some(connection) = arguments.first().filter(|argument| reads_tables(argument)) {
        errors.at(
            connection,
            "a query handler with a connection needs tables: add `schema = \"CREATE TABLE …\"` to `#[projection]`",
        );
        handler.check_form(QUERY, QUERY_IS_SYNCHRONOUS, errors);
        return answer(handler, arguments.get(1..).unwrap_or_default(), MEMORY_QUERY, errors);
    }
    handler.check(QUERY, Borrow::Shared, "a query changes nothing", QUERY_IS_SYNCHRONOUS, errors);
    answer(handler, &arguments, MEMORY_QUERY, errors)
}

pub(super) fn in_tables(handler: &Handler, errors: &mut Errors) -> Option<Answer> {
    handler.check_form(QUERY, QUERY_IS_SYNCHRONOUS, errors);
    let arguments = handler.arguments();
    if let Some(receiver) = handler.signature.receiver() {
        let has_connection = arguments.first().is_some_and(|argument| reads_tables(argument));
        errors.at(
            receiver,
            format_args!(
                "the tables of a projection with a `schema` are queried apart from it: {}",
                if has_connection { "remove `self`" } else { "write `db: &Connection` instead" },
            ),
        );
    }
    match arguments.as_slice() {
        [] => answer(handler, &[], TABLES_QUERY, errors),
        [only] if !reads_tables(only) => {
            // The receiver stands where the connection belongs.
            if handler.signature.receiver().is_none() {
                errors.at(
                    handler.ident(),
                    "a projection with a `schema` is queried through a connection: write `db: &Connection` before the query",
                );
            }
            answer(handler, &[only], TABLES_QUERY, errors)
        }
        [first, rest @ ..] => {
            if is_transaction(first) {
                errors.at(
                    &first.ty,
                    "a query changes nothing, so there is no transaction to write in: write `&Connection`",
                );
            } else {
                check_reference(
                    first,
                    "a query handler's connection is handed over by reference: write `&Connection`",
                    errors,
                );
            }
            answer(handler, rest, TABLES_QUERY, errors)
        }
    }
}

/// Keeps one method for each query.
pub(super) fn check(answers: &mut Vec<Answer>, errors: &mut Errors) {
    let mut seen = Vec::new();
    answers.retain(|answer| {
        let query = text(&answer.query);
        let twice = seen.contains(&query);
        if twice {
            errors.at(
                &answer.query,
                format_args!("`{query}` is answered twice: keep one of its `#[query]` methods"),
            );
        }
        seen.push(query);
        !twice
    });
}

pub(super) fn expand(model: &Model, answer: &Answer, storage: &TokenStream) -> TokenStream {
    let krate = &model.krate;
    let Answer { method, query, by_reference, .. } = answer;
    let from = match model.schema {
        None => quote!(&Self),
        Some(_) => quote!(&#krate::sqlite::rusqlite::Connection),
    };
    let borrow = by_reference.then(|| quote!(&));
    // The call spans the handler's return type, so that an error about what it returns stands there; what stands around it
    // spans the query, so that an error about one that is none stands there. The variables keep their own place: within a
    // macro of the user's they would otherwise not be found.
    let (first, last) = answer.output;
    let method = format_ident!("{method}", span = first);
    let callee = quote_spanned!(first=> Self::#method);
    let arguments = parenthesized(quote!(__from, #borrow __query), last);
    let reply = quote_spanned!(first=> _);
    let place = query.span();
    let register = quote_spanned! {place=>
        <#krate::Handlers::<Self, #storage>>::answer::<#query, #reply>
    };
    let closure = quote!(__handlers, |__from: #from, __query: #query| #callee #arguments);
    let registered = parenthesized(closure, place);
    quote!(#register #registered;)
}

fn parenthesized(tokens: TokenStream, place: Span) -> Group {
    let mut group = Group::new(Delimiter::Parenthesis, tokens);
    group.set_span(place);
    group
}

/// Reads the query and the return type.
fn answer(
    handler: &Handler,
    arguments: &[&PatType],
    example: &str,
    errors: &mut Errors,
) -> Option<Answer> {
    let method = handler.ident();
    let Some((argument, rest)) = arguments.split_first() else {
        errors.at(
            method,
            format_args!(
                "a query handler answers a query: write `fn {method}({example})` with the query's type"
            ),
        );
        return None;
    };
    for extra in rest {
        errors.at(
            extra,
            "a query handler takes the query alone: remove this argument and put its value into the query",
        );
    }
    if let ReturnType::Type(_, ty) = &handler.signature.output
        && let Some(borrowed) = borrowed(ty)
    {
        errors.at(borrowed, "a reply leaves the view behind: return an owned value");
    }
    let (query, by_reference) = match plain(&argument.ty) {
        Type::Reference(reference) => {
            if let Some(token) = &reference.mutability {
                errors.at(token, "a query is not changed by its answer: remove `mut`");
            }
            (plain(&reference.elem), true)
        }
        other => (other, false),
    };
    if last_ident(query).is_none() {
        errors.at(query, "a query is a type of its own: write its name");
        return None;
    }
    Some(Answer {
        method: method.clone(),
        query: query.clone(),
        by_reference,
        output: handler.output_spans(),
    })
}

/// The first reference in a return type that does not live for ever; in the places where one usually stands.
fn borrowed(ty: &Type) -> Option<&Type> {
    match plain(ty) {
        Type::Reference(reference) => {
            let lives_on = reference.lifetime.as_ref().is_some_and(|name| name.ident == "static");
            if lives_on { None } else { Some(ty) }
        }
        Type::Tuple(tuple) => tuple.elems.iter().find_map(borrowed),
        Type::Path(path) => match &path.path.segments.last()?.arguments {
            PathArguments::AngleBracketed(arguments) => {
                arguments.args.iter().find_map(|argument| match argument {
                    GenericArgument::Type(ty) => borrowed(ty),
                    _ => None,
                })
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether the argument is what a query of tables reads through, or what somebody takes for it.
fn reads_tables(argument: &PatType) -> bool {
    is_transaction(argument) || referred_name(argument).is_some_and(|ident| ident == "Connection")
}
