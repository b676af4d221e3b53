//! `#[upcasts]`: the steps of one event → their chain → the implementation.
//!
//! Which versions the type has, only its derive knows: what depends on them is asserted in constants, one for each mistake. That
//! every step leads to the next version leaves no way to write a cycle.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Ident, Path, ReturnType, Type};

use crate::errors::Errors;
use crate::handler::{Block, Handler, last_ident, plain, text};
use crate::keys::{self, CRATE, Keys};

const KEYS: Keys = Keys { attribute: "#[upcasts]", known: &[CRATE] };

const STEP_KEYS: Keys = Keys { attribute: "#[upcast]", known: &[("from", "from = 1")] };

/// One `#[upcast(from = 1)]` function.
struct Step {
    function: Ident,
    from: u32,
    /// Where the version is written.
    at: Span,
    old: Type,
    new: Type,
    /// Where its return type begins and ends.
    output: (Span, Span),
}

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut block = match Block::parse(item, "upcasts") {
        Ok(block) => block,
        Err(tokens) => return tokens,
    };
    let mut errors = Errors::default();
    let mut krate = keys::default_path();
    KEYS.parse(arguments, &mut Vec::new(), &mut errors, |_, input| {
        keys::path(input).map(|path| krate = path)
    });
    let functions = block.take_handlers("upcasts", &["upcast"], &["upcast"], &[], &mut errors);
    let is_empty = functions.is_empty();
    let (mut steps, mut broken) = (Vec::new(), Vec::new());
    for (_, function) in &functions {
        let from = version(function, &mut errors);
        match step(function, from, &mut errors) {
            Some(step) => steps.push(step),
            None => broken.extend(from.map(|(from, _)| from)),
        }
    }
    if is_empty && errors.is_empty() {
        errors.span(
            Span::call_site(),
            "an event of several versions needs steps: write `#[upcast(from = 1)] fn …(old: Json) -> Json` for each older version",
        );
    }
    steps.sort_by_key(|step: &Step| step.from);
    check(&steps, &broken, &mut errors);

    let ty = &block.item.self_ty;
    let generated = implementation(&krate, ty, &steps, errors.is_empty());
    let block = &block.item;
    let errors = errors.into_tokens();
    quote!(#block #generated #errors)
}

fn step(function: &Handler, from: Option<(u32, Span)>, errors: &mut Errors) -> Option<Step> {
    let (old, new) = signature(function, "a step", 1, errors)?;
    if new.is_none() {
        let name = function.ident();
        errors.at(
            name,
            format_args!("a step gives the shape of the next version: write `fn {name}(…) -> Json`, or its own type in the place of `Json`"),
        );
    }
    let (from, at) = from?;
    Some(Step {
        function: function.ident().clone(),
        from,
        at,
        old: old.into_iter().next()?,
        new: new?,
        output: function.output_spans(),
    })
}

fn version(function: &Handler, errors: &mut Errors) -> Option<(u32, Span)> {
    let mut from = None;
    let mut seen = Vec::new();
    let tokens = function.keys.clone().unwrap_or_default();
    let only_keys = STEP_KEYS.parse(tokens, &mut seen, errors, |_, input| {
        let at = input.span();
        keys::version(input).map(|version| from = Some((version, at)))
    });
    if only_keys && seen.is_empty() {
        STEP_KEYS.missing(function.ident().span(), "from", errors);
    }
    from
}

/// Checks that a function is pure and total as far as its signature shows it; the types that it takes, and the type that it gives
/// if that is written. `takes` is how many stored events it may read.
pub(crate) fn signature(
    function: &Handler,
    what: &str,
    takes: usize,
    errors: &mut Errors,
) -> Option<(Vec<Type>, Option<Type>)> {
    function.check_form(what, "what is stored is all that it looks at", errors);
    let name = function.ident();
    if let Some(receiver) = function.signature.receiver() {
        errors.at(
            receiver,
            format_args!("{what} is a function of what is stored, and there is no event yet: remove this argument"),
        );
    }
    let arguments = function.arguments();
    if arguments.is_empty() {
        errors.at(
            name,
            format_args!("{what} reads what is stored: write `fn {name}(old: Json) -> …`, or the older shape's own type in the place of `Json`"),
        );
        return None;
    }
    for extra in arguments.iter().skip(takes) {
        errors.at(
            extra,
            format_args!("{what} is a function of what is stored alone: remove this argument"),
        );
    }
    let old = arguments.iter().take(takes).map(|argument| match plain(&argument.ty) {
        Type::Reference(reference) => {
            let owned = plain(&reference.elem);
            errors.at(
                &argument.ty,
                format_args!("what is stored is handed over by value: write `{}`", text(owned)),
            );
            owned.clone()
        }
        other => other.clone(),
    });
    let old = old.collect();
    let new = match &function.signature.output {
        ReturnType::Default => None,
        ReturnType::Type(_, ty) => {
            let ty = plain(ty);
            if last_ident(ty).is_some_and(|ident| ident == "Result") {
                errors.at(
                    ty,
                    format_args!(
                        "{what} has an answer for everything that was ever stored: return the value itself, and give a default where something is missing"
                    ),
                );
            }
            Some(ty.clone())
        }
    };
    Some((old, new))
}

/// Checks the chain as far as the steps alone show it; `broken` are the versions of those with another mistake.
fn check(steps: &[Step], broken: &[u32], errors: &mut Errors) {
    for pair in steps.windows(2) {
        let [earlier, later] = pair else { continue };
        if earlier.from == later.from {
            errors.span(
                later.at,
                format_args!(
                    "two steps from version {}, `{}` and `{}`: a step leads to the next version, so there is one from each; remove one of them",
                    later.from, earlier.function, later.function,
                ),
            );
        }
        // A slip of the pen in a number is one mistake, so only the first version in the hole is named.
        let mut hole = earlier.from.saturating_add(1)..later.from;
        if let Some(missing) = hole.find(|version| !broken.contains(version)) {
            errors.span(
                later.at,
                format_args!(
                    "no step leads from version {missing} to version {}: write `#[upcast(from = {missing})] fn …(old: Json) -> Json`",
                    missing + 1,
                ),
            );
        }
    }
}

fn implementation(krate: &Path, ty: &Type, steps: &[Step], complete: bool) -> TokenStream {
    let (body, assertions) = match complete {
        true => (chain(krate, ty, steps), assertions(krate, ty, steps)),
        false => (quote!(::core::panic!("these steps did not compile")), TokenStream::new()),
    };
    quote! {
        #[automatically_derived]
        impl #krate::Upcasts for #ty {
            fn upcast_steps(
                __version: ::core::primitive::u32,
                __codec: #krate::Codec,
                __payload: &[::core::primitive::u8],
            ) -> ::core::result::Result<Self, #krate::DecodeError> {
                #body
            }
        }
        #assertions
    }
}

/// One expression for each step around the one before: what was stored with the step's version, or what the earlier steps gave.
fn chain(krate: &Path, ty: &Type, steps: &[Step]) -> TokenStream {
    let mut given: Option<(&Step, TokenStream)> = None;
    for step in steps {
        let (old, from) = (&step.old, step.from);
        let stored = match is_json(old) {
            true => quote_spanned! {old.span()=>
                #krate::__private::stored_json::<#ty>(#from, __codec, __payload)?
            },
            false => quote_spanned! {old.span()=>
                #krate::__private::stored::<#ty, #old>(#from, __codec, __payload)?
            },
        };
        let taken = match given {
            None => stored,
            Some((earlier, value)) => {
                let handed = hand_on(krate, ty, earlier, &value, old);
                quote!(if __version < #from { #handed } else { #stored })
            }
        };
        given = Some((step, call(step, &taken)));
    }
    let event = given.map(|(last, value)| hand_on(krate, ty, last, &value, ty));
    let versions = steps.iter().map(|step| step.from);
    quote! {
        if !::core::matches!(__version, #(#versions)|*) {
            return ::core::result::Result::Err(#krate::__private::unknown_version::<Self>(__version));
        }
        let __event = #event;
        ::core::result::Result::Ok(__event)
    }
}

/// The call spans the return type, so that an error about what the step gives stands there.
fn call(step: &Step, argument: &TokenStream) -> TokenStream {
    let (first, last) = step.output;
    let callee = quote_spanned!(first=> Self::);
    let function = format_ident!("{}", step.function, span = first);
    let arguments = quote_spanned!(last=> (#argument));
    quote!(#callee #function #arguments)
}

/// What `step` gave, as the next one takes it.
fn hand_on(krate: &Path, ty: &Type, step: &Step, value: &TokenStream, to: &Type) -> TokenStream {
    let from = step.from;
    let to_json = is_json(to);
    match is_json(&step.new) {
        true if !to_json => {
            quote_spanned!(to.span()=> #krate::__private::typed::<#ty, #to>(#from, #value)?)
        }
        false if to_json => {
            let new = &step.new;
            quote_spanned!(new.span()=> #krate::__private::untyped::<#ty, _>(#from, #value)?)
        }
        // An error about two types that do not agree stands at what the step gives.
        _ => {
            let new_span = step.output.0;
            let bound = quote_spanned!(new_span=> let __value: #to = #value;);
            quote!({ #bound __value })
        }
    }
}

/// Whether a type is JSON, by how it is written: `Json`, or `serde_json::Value`.
pub(crate) fn is_json(ty: &Type) -> bool {
    let Type::Path(path) = plain(ty) else { return false };
    let segments = &path.path.segments;
    let mut last = segments.iter().rev();
    match (last.next(), last.next()) {
        (Some(last), _) if last.ident == "Json" => true,
        (Some(last), Some(before)) => last.ident == "Value" && before.ident == "serde_json",
        _ => false,
    }
}

/// What only the event's version tells.
fn assertions(krate: &Path, ty: &Type, steps: &[Step]) -> TokenStream {
    let name = text(ty);
    let assert = |at: Span, condition: TokenStream, message: String| quote_spanned!(at=> const _: () = ::core::assert!(#condition, #message););
    let version = quote!(<#ty as #krate::Event>::VERSION);
    let oldest = quote!(<#ty as #krate::Event>::OLDEST);
    let mut assertions = TokenStream::new();
    for Step { from, at, .. } in steps {
        let message = format!(
            "a step from version {from} leads to version {}, and `{name}` has not got that far: steps lead from older versions up to the one in `#[event(…)]`, and none leads back; raise `version` there, or remove this step",
            u64::from(*from) + 1,
        );
        assertions.extend(assert(*at, quote!(#from < #version), message));
        // Where the first mistake stands, this one would follow from it.
        let message = format!(
            "`{name}` does not read version {from}: remove this step, or write `oldest = {from}` in `#[event(…)]`"
        );
        assertions.extend(assert(*at, quote!(#from >= #oldest || #from >= #version), message));
    }
    if let Some(first) = steps.first() {
        let (from, at) = (first.from, first.at);
        let missing = from.saturating_sub(1);
        let message = format!(
            "no step leads from version {missing} to version {from}: write `#[upcast(from = {missing})] fn …(old: Json) -> Json`; if older versions were never stored, write `oldest = {from}` in `#[event(…)]`"
        );
        assertions.extend(assert(at, quote!(#from <= #oldest || #from >= #version), message));
    }
    if let Some(last) = steps.last() {
        let (next, at) = (u64::from(last.from) + 1, last.at);
        let message = format!(
            "no step leads from version {next} to version {}: write `#[upcast(from = {next})] fn …(old: Json) -> Json`",
            next + 1,
        );
        let condition = quote!(#next >= #version as ::core::primitive::u64);
        assertions.extend(assert(at, condition, message));
    }
    assertions
}
