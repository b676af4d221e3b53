//! `#[idempotent]`: attribute and function → model → checks → the function with a guard around its body.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::ParseStream;
use syn::{
    Expr, FnArg, GenericArgument, Ident, Item, ItemFn, LitStr, Pat, PatType, Path, PathArguments,
    ReturnType, Signature, Type,
};

use crate::duration::duration;
use crate::errors::Errors;
use crate::handler::{last_ident, plain};
use crate::keys::{self, CRATE, Keys};

const KEYS: Keys = Keys {
    attribute: "#[idempotent]",
    known: &[
        ("name", "name = \"charge\""),
        ("key", "key = request.id"),
        ("keep", "keep = \"7 days\""),
        ("input", "input = request"),
        ("tx", "tx = db"),
        CRATE,
    ],
};

/// The last names of the types that a transaction is handed over in.
const TRANSACTIONS: [&str; 3] = ["Transaction", "Connection", "Savepoint"];

/// The last names of the types that say how an event or a command got here: another attempt has another one.
const SURROUNDINGS: [&str; 3] = ["Delivery", "Header", "Context"];

struct Model {
    krate: Path,
    name: LitStr,
    key: Option<Expr>,
    /// In seconds.
    keep: u64,
    input: Option<Expr>,
    tx: Option<Ident>,
}

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let model = parse_keys(arguments, &mut errors);
    let Ok(mut function) = syn::parse2::<ItemFn>(item.clone()) else {
        errors.push(not_a_function(item.clone()));
        let errors = errors.into_tokens();
        return quote!(#item #errors);
    };
    let signature = &function.sig;
    check_signature(signature, &mut errors);
    let transaction = transaction(&model, signature, &mut errors);
    let input = input(&model, signature, transaction, &mut errors);
    if errors.is_empty()
        && let (Some(transaction), Some(key)) = (transaction, &model.key)
    {
        let body = guarded(&model, &function, transaction, key, &input);
        *function.block = syn::parse_quote!({ #body });
    }
    if !errors.is_empty() {
        // What the key or the input would have used.
        function.attrs.push(syn::parse_quote!(#[allow(unused_variables)]));
    }
    let errors = errors.into_tokens();
    quote!(#function #errors)
}

fn parse_keys(arguments: TokenStream, errors: &mut Errors) -> Model {
    let mut model = Model {
        krate: keys::default_path(),
        name: LitStr::new("missing", Span::call_site()),
        key: None,
        keep: 0,
        input: None,
        tx: None,
    };
    let mut seen = Vec::new();
    let only_keys = KEYS.parse(arguments, &mut seen, errors, |key, input| {
        match key {
            "name" => model.name = keys::text(input, "name")?,
            "key" => model.key = Some(input.parse()?),
            "keep" => model.keep = seconds(input)?,
            "input" => model.input = Some(input.parse()?),
            "tx" => model.tx = Some(input.parse()?),
            _ => model.krate = keys::path(input)?,
        }
        Ok(())
    });
    for needed in ["name", "key", "keep"] {
        if only_keys && !seen.iter().any(|seen| seen == needed) {
            KEYS.missing(Span::call_site(), needed, errors);
        }
    }
    model
}

/// Reads how long a key is kept: expiry is written in seconds.
fn seconds(input: ParseStream<'_>) -> syn::Result<u64> {
    let span = input.span();
    let milliseconds = duration(input)?;
    if milliseconds % 1_000 != 0 {
        return Err(syn::Error::new(span, "a key is kept for whole seconds: write \"2 s\""));
    }
    Ok(milliseconds / 1_000)
}

fn not_a_function(item: TokenStream) -> syn::Error {
    match syn::parse2::<Item>(item.clone()) {
        Err(error) if syn::parse2::<syn::TraitItemFn>(item).is_err() => error,
        _ => syn::Error::new(
            Span::call_site(),
            "`#[idempotent]` belongs on a function or a method with a body",
        ),
    }
}

fn check_signature(signature: &Signature, errors: &mut Errors) {
    if let Some(token) = &signature.constness {
        errors.at(token, "an idempotent function reads and writes a database: remove `const`");
    }
    match &signature.output {
        ReturnType::Default => errors.at(
            &signature.ident,
            "an idempotent function can be refused, for a key that was used with other input: write `-> Result<(), E>` with an error that is `From<tidings::InboxError>`",
        ),
        ReturnType::Type(_, output) => {
            if let Some(Type::Reference(answer)) = first_argument(output).map(plain) {
                errors.at(
                    answer,
                    "the answer is kept, and read back for a repeat: write a type that owns its data, such as `String`",
                );
            }
        }
    }
}

/// The `T` of a `Result<T, E>`, whatever it is called.
fn first_argument(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = plain(ty) else { return None };
    let PathArguments::AngleBracketed(arguments) = &path.path.segments.last()?.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// The arguments after `self`.
fn arguments(signature: &Signature) -> impl Iterator<Item = &PatType> {
    signature.inputs.iter().filter_map(|argument| match argument {
        FnArg::Typed(argument) => Some(argument),
        FnArg::Receiver(_) => None,
    })
}

/// The argument that the guard's row is written through.
fn transaction<'a>(
    model: &Model,
    signature: &'a Signature,
    errors: &mut Errors,
) -> Option<&'a Ident> {
    let found: Vec<_> = match &model.tx {
        Some(tx) => arguments(signature).filter(|argument| name(argument) == Some(tx)).collect(),
        None => arguments(signature).filter(|argument| is_any(argument, &TRANSACTIONS)).collect(),
    };
    let [argument] = found.as_slice() else {
        match (&model.tx, found.get(1)) {
            (Some(tx), _) => errors.at(
                tx,
                format_args!("there is no argument `{tx}`: write the name of the one that is the transaction"),
            ),
            (None, Some(second)) => errors.at(
                second,
                "this and an earlier argument could both be the transaction: say which one is, with `tx = …`",
            ),
            (None, None) => errors.at(
                &signature.ident,
                "the guard is written in the transaction of the effect: write an argument `tx: &Transaction<'_>`, or say which one it is with `tx = …`",
            ),
        }
        return None;
    };
    // Under another name the type may be anything that stands for a reference.
    let is_shared = match plain(&argument.ty) {
        Type::Reference(reference) => reference.mutability.is_none(),
        _ => model.tx.is_some(),
    };
    if !is_shared {
        errors.at(
            &argument.ty,
            "the caller commits the transaction, and the guard needs it beside the body: write a shared reference, such as `&Transaction<'_>`",
        );
    }
    let name = name(argument);
    if name.is_none() {
        errors.at(&argument.pat, "the guard is written through the transaction: give it a name");
    }
    name
}

/// What is compared with that of an earlier call.
fn input(
    model: &Model,
    signature: &Signature,
    transaction: Option<&Ident>,
    errors: &mut Errors,
) -> Vec<TokenStream> {
    if let Some(input) = &model.input {
        return vec![input.to_token_stream()];
    }
    let mut compared = Vec::new();
    for argument in arguments(signature) {
        let is_transaction = model.tx.is_none() && is_any(argument, &TRANSACTIONS);
        if is_transaction || is_any(argument, &SURROUNDINGS) {
            continue;
        }
        match name(argument) {
            Some(name) if Some(name) == transaction => {}
            Some(name) => compared.push(name.to_token_stream()),
            None => errors.at(
                &argument.pat,
                "it is part of the input that tells two calls apart: give it a name, or say with `input = …` what to compare",
            ),
        }
    }
    compared
}

/// The body, run once for each key.
///
/// It stays in the function, so that its arguments may be of any form; only `return` and `?` need a closure around it.
fn guarded(
    model: &Model,
    function: &ItemFn,
    transaction: &Ident,
    key: &Expr,
    input: &[TokenStream],
) -> TokenStream {
    let Model { krate, name, keep, .. } = model;
    let ItemFn { block, sig, .. } = function;
    let ReturnType::Type(_, output) = &sig.output else {
        return block.to_token_stream();
    };
    let key = borrowed(key);
    let input = input.iter().map(borrowed);
    let call = quote! {{
        let mut __call = #krate::__private::Call::new(#name, #keep, #key);
        #(__call.input(#input);)*
        __call
    }};
    // The call spans the return type, so that an error about what is returned stands there.
    let (first, last) = spans(output);
    let krate = spanned(krate, first);
    if sig.asyncness.is_none() {
        let once = quote_spanned!(first=> #krate::__private::once::);
        let arguments = quote_spanned!(last=> (#transaction, #call, move || -> #output #block));
        return quote!(#once<#output> #arguments);
    }
    let begin = quote_spanned!(first=> #krate::__private::begin::);
    let arguments = quote_spanned!(last=> (#transaction, #call));
    let settle = quote_spanned!(first=> #krate::__private::settle::);
    quote! {
        match #begin<#output> #arguments {
            ::core::ops::ControlFlow::Continue(__claim) => #settle<#output>(
                __claim,
                async move {
                    // An `async` block cannot say what it returns, so that `?` would not know its error.
                    if let ::core::option::Option::Some(__output) =
                        ::core::option::Option::None::<#output>
                    {
                        return __output;
                    }
                    #block
                }
                .await,
            ),
            ::core::ops::ControlFlow::Break(__output) => __output,
        }
    }
}

/// A reference to what `tokens` say; errors about its type stand there.
fn borrowed(tokens: impl ToTokens) -> TokenStream {
    let (first, last) = spans(&tokens);
    let reference = quote_spanned!(first=> &);
    let value = quote_spanned!(last=> (#tokens));
    quote!(#reference #value)
}

/// The same tokens at another place.
fn spanned(tokens: impl ToTokens, span: Span) -> TokenStream {
    let at_span = |mut token: TokenTree| {
        token.set_span(span);
        token
    };
    tokens.to_token_stream().into_iter().map(at_span).collect()
}

/// The spans of the first and the last token.
fn spans(tokens: impl ToTokens) -> (Span, Span) {
    let mut spans = tokens.to_token_stream().into_iter().map(|token| token.span());
    let first = spans.next().unwrap_or_else(Span::call_site);
    (first, spans.last().unwrap_or(first))
}

/// The argument's name, if it has one.
fn name(argument: &PatType) -> Option<&Ident> {
    match &*argument.pat {
        Pat::Ident(pattern) if pattern.subpat.is_none() => Some(&pattern.ident),
        _ => None,
    }
}

/// Whether the last name of the argument's type, or of the type behind a reference, is one of `names`.
fn is_any(argument: &PatType, names: &[&str]) -> bool {
    let mut ty = plain(&argument.ty);
    while let Type::Reference(reference) = ty {
        ty = plain(&reference.elem);
    }
    last_ident(ty).is_some_and(|ident| names.iter().any(|name| ident == name))
}
