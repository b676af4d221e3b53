//! `#[aggregate]`: attribute and block → model → checks → the enums and implementations.

mod expand;
mod snapshot;
mod upcasting;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::parse::ParseStream;
use syn::spanned::Spanned;
use syn::{Ident, LitStr, Path, ReturnType, Token, Type, Visibility};

use self::snapshot::Snapshot;
use self::upcasting::Upcast;
use crate::errors::Errors;
use crate::failures;
use crate::handler::{
    Block, Borrow, Handler, check_reference, event_type, last_ident, parenthesized, plain, text,
};
use crate::keys::{self, CRATE, Keys};
use crate::on::Instance;

const KEYS: Keys = Keys {
    attribute: "#[aggregate]",
    known: &[
        ("category", "category = \"account\""),
        ("events", "events = AccountEvent"),
        ("error", "error = BankError"),
        ("derive", "derive(Clone, PartialEq)"),
        ("snapshot", "snapshot(every = 1_000)"),
        ("unknown", "unknown = ignore"),
        CRATE,
    ],
};

/// What the generated code is made from.
struct Model {
    krate: Path,
    aggregate: Type,
    ident: Ident,
    category: LitStr,
    /// The visibility of both enums, if the user states one.
    visibility: Option<Visibility>,
    events: Ident,
    commands: Ident,
    error: TokenStream,
    derives: Vec<Path>,
    snapshot: Option<Snapshot>,
    /// The variant of `UnknownEvents`, if it is stated.
    unknown: Option<Ident>,
    applied: Vec<Applied>,
    decided: Vec<Decided>,
    heard: Vec<Heard>,
    upcasts: Vec<Upcast>,
}

impl Model {
    /// Whether its enum of commands is empty.
    fn decides_nothing(&self) -> bool {
        self.decided.is_empty() && self.heard.is_empty()
    }
}

/// One `#[apply]` method.
struct Applied {
    method: Ident,
    event: Type,
    variant: Ident,
}

/// One `#[command]` method.
struct Decided {
    method: Ident,
    command: Type,
    variant: Ident,
    /// Where the type of its second argument begins, if it takes the context.
    context: Option<Span>,
    /// Where its return type begins and ends.
    output: (Span, Span),
}

/// One `#[on]` method: it decides on the event of another aggregate.
struct Heard {
    method: Ident,
    event: Type,
    /// In the enum of commands.
    variant: Ident,
    /// From the event and its header to the id of the instance that decides on it.
    to: TokenStream,
    /// Where the type of its second argument begins, if it takes the context.
    context: Option<Span>,
    output: (Span, Span),
}

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut block = match Block::parse(item, "aggregate") {
        Ok(block) => block,
        Err(tokens) => return tokens,
    };
    let mut errors = Errors::default();
    let mut model = parse_keys(arguments, &block, &mut errors);
    let methods = block.take_handlers(
        "aggregate",
        &["command", "apply", "on", "upcast"],
        &["on", "upcast"],
        &["query"],
        &mut errors,
    );
    for (name, handler) in methods {
        match name {
            "command" => model.decided.extend(command(&handler, &mut errors)),
            "on" => model.heard.extend(heard(&handler, &model.krate, &mut errors)),
            "upcast" => model.upcasts.extend(upcasting::parse(&handler, &mut errors)),
            _ => model.applied.extend(apply(&handler, &mut errors)),
        }
    }
    check(&mut model, &mut errors);
    upcasting::check(&model.upcasts, &mut errors);

    let generated = expand::expand(&model, errors.is_empty());
    let block = &block.item;
    let errors = errors.into_tokens();
    quote!(#block #generated #errors)
}

fn parse_keys(arguments: TokenStream, block: &Block, errors: &mut Errors) -> Model {
    let ident = &block.ident;
    let mut model = Model {
        krate: keys::default_path(),
        aggregate: (*block.item.self_ty).clone(),
        ident: ident.clone(),
        category: LitStr::new("missing", Span::call_site()),
        visibility: None,
        events: format_ident!("{ident}Event"),
        commands: format_ident!("{ident}Command"),
        error: quote!(::core::convert::Infallible),
        derives: Vec::new(),
        snapshot: None,
        unknown: None,
        applied: Vec::new(),
        decided: Vec::new(),
        heard: Vec::new(),
        upcasts: Vec::new(),
    };
    let mut seen = Vec::new();
    let mut snapshot = None;
    let only_keys = KEYS.parse(arguments, &mut seen, errors, |key, input| {
        match key {
            "category" => model.category = category(input)?,
            "events" => {
                if input.peek(Token![pub]) {
                    model.visibility = Some(input.parse()?);
                }
                model.events = input.parse()?;
            }
            "error" => model.error = input.parse::<Type>()?.into_token_stream(),
            "derive" => model.derives = derives(input)?,
            "snapshot" => snapshot = Some(snapshot::tokens(input)?),
            "unknown" => model.unknown = Some(unknown(input)?),
            _ => model.krate = keys::path(input)?,
        }
        Ok(())
    });
    model.snapshot = snapshot.map(|(span, tokens)| Snapshot::parse(span, tokens, errors));
    for key in ["category", "events"] {
        if only_keys && !seen.iter().any(|seen| seen == key) {
            KEYS.missing(Span::call_site(), key, errors);
        }
    }
    model
}

fn category(input: ParseStream<'_>) -> syn::Result<LitStr> {
    let category = keys::text(input, "category")?;
    if category.value().contains('-') {
        return Err(syn::Error::new(
            category.span(),
            format_args!(
                "a category holds no hyphen, since the first hyphen of a stream id ends it: write `{:?}`",
                category.value().replace('-', "_"),
            ),
        ));
    }
    Ok(category)
}

fn unknown(input: ParseStream<'_>) -> syn::Result<Ident> {
    let policy = failures::unknown(input)?;
    if policy == "Park" {
        return Err(syn::Error::new(
            policy.span(),
            "an aggregate has nothing to park: write `unknown = refuse` or `unknown = ignore`",
        ));
    }
    Ok(policy)
}

fn derives(input: ParseStream<'_>) -> syn::Result<Vec<Path>> {
    let paths = parenthesized(input)?;
    for path in &paths {
        let name = path.segments.last().map(|segment| segment.ident.to_string());
        if name.as_deref() == Some("Debug") {
            return Err(syn::Error::new_spanned(
                path,
                "remove `Debug`: the enum has it already, and it names the event without its payload",
            ));
        }
    }
    Ok(paths.into_iter().collect())
}

const COMMAND: &str = "a command handler";

fn command(handler: &Handler, errors: &mut Errors) -> Option<Decided> {
    handler.check(
        COMMAND,
        Borrow::Shared,
        "a command handler decides and leaves changes to the `#[apply]` handlers",
        "what it needs from outside comes in with the command",
        errors,
    );
    let method = handler.ident();
    let arguments = handler.arguments();
    let Some(first) = arguments.first() else {
        errors.at(
            method,
            format_args!(
                "a command handler decides a command: write `fn {method}(&self, command: …)` with the command's type"
            ),
        );
        return None;
    };
    if let Some(second) = arguments.get(1) {
        check_reference(
            second,
            "a command handler's second argument is the command's context: write `&Context`",
            errors,
        );
    }
    for extra in arguments.iter().skip(2) {
        errors.at(
            extra,
            "a command handler takes the command and `&Context`: remove this argument and put its value into the command",
        );
    }
    let command = match plain(&first.ty) {
        Type::Reference(reference) => {
            let owned = plain(&reference.elem);
            errors.at(
                &first.ty,
                format_args!("a command is handed over by value: write `{}`", text(owned)),
            );
            owned
        }
        other => other,
    };
    let Some(variant) = last_ident(command) else {
        errors.at(command, "a command is a type of its own: write its name");
        return None;
    };
    Some(Decided {
        method: method.clone(),
        command: command.clone(),
        variant: variant.clone(),
        context: arguments.get(1).map(|argument| argument.ty.span()),
        output: handler.output_spans(),
    })
}

const APPLY: &str = "an apply handler";

fn apply(handler: &Handler, errors: &mut Errors) -> Option<Applied> {
    handler.check(
        APPLY,
        Borrow::Exclusive,
        "an apply handler folds the event into the aggregate",
        "the event has happened, there is nothing to wait for",
        errors,
    );
    if let ReturnType::Type(_, ty) = &handler.signature.output {
        let is_unit = matches!(&**ty, Type::Tuple(tuple) if tuple.elems.is_empty());
        if !is_unit {
            errors.at(
                ty,
                "an apply handler returns nothing, since the event has happened: remove the return type and reject in the command handler",
            );
        }
    }
    let method = handler.ident();
    let arguments = handler.arguments();
    let Some(first) = arguments.first() else {
        errors.at(
            method,
            format_args!(
                "an apply handler folds an event: write `fn {method}(&mut self, event: &…)` with the event's type"
            ),
        );
        return None;
    };
    for extra in arguments.iter().skip(1) {
        errors.at(
            extra,
            "an apply handler takes the event alone: remove this argument and put its value into the event",
        );
    }
    let event = event_type(first, errors)?;
    let variant = last_ident(&event)?.clone();
    Some(Applied { method: method.clone(), event, variant })
}

const HEARD: &str = "an aggregate's event handler";

fn heard(handler: &Handler, krate: &Path, errors: &mut Errors) -> Option<Heard> {
    handler.check(
        HEARD,
        Borrow::Shared,
        "an aggregate's event handler decides and leaves changes to the `#[apply]` handlers",
        "what it needs from outside comes in with the event",
        errors,
    );
    let method = handler.ident();
    let to = Instance::parse(handler, errors);
    let arguments = handler.arguments();
    let Some(first) = arguments.first() else {
        errors.at(
            method,
            format_args!(
                "an aggregate's event handler decides on an event: write `fn {method}(&self, event: &…)` with the event's type"
            ),
        );
        return None;
    };
    if let Some(second) = arguments.get(1) {
        check_reference(second, "after the event comes the context: write `&Context`", errors);
    }
    for extra in arguments.iter().skip(2) {
        errors.at(
            extra,
            "an aggregate's event handler takes the event and `&Context`: remove this argument",
        );
    }
    let event = event_type(first, errors)?;
    let variant = format_ident!("On{}", last_ident(&event)?);
    Some(Heard {
        method: method.clone(),
        to: to?.function(krate, &event, &first.pat),
        event,
        variant,
        context: arguments.get(1).map(|argument| argument.ty.span()),
        output: handler.output_spans(),
    })
}

/// Checks what no handler shows by itself, and removes what would make a second error of the same mistake.
fn check(model: &mut Model, errors: &mut Errors) {
    if model.applied.is_empty() && errors.is_empty() {
        errors.span(
            Span::call_site(),
            "an aggregate needs events: write `#[apply] fn …(&mut self, event: &…)` for each of them",
        );
    }
    let mut seen: Vec<(String, String)> = Vec::new();
    model.applied.retain(|applied| {
        let fresh = is_fresh(&mut seen, &applied.variant, &applied.event, "event", errors);
        if fresh == Fresh::Twice {
            errors.at(
                &applied.event,
                format_args!(
                    "`{}` is applied twice: fold it in one `#[apply]` handler",
                    applied.variant
                ),
            );
        }
        fresh == Fresh::Yes
    });
    seen.clear();
    model.decided.retain(|decided| {
        let fresh = is_fresh(&mut seen, &decided.variant, &decided.command, "command", errors);
        if fresh == Fresh::Twice {
            errors.at(
                &decided.command,
                format_args!(
                    "`{}` is decided twice: decide it in one `#[command]` handler",
                    decided.variant
                ),
            );
        }
        fresh == Fresh::Yes
    });
    model.heard.retain(|heard| {
        let fresh = is_fresh(&mut seen, &heard.variant, &heard.event, "event", errors);
        if fresh == Fresh::Twice {
            errors.at(
                &heard.event,
                format_args!(
                    "`{}` is decided on twice: decide on it in one `#[on]` handler",
                    text(&heard.event)
                ),
            );
        }
        fresh == Fresh::Yes
    });
}

#[derive(PartialEq)]
enum Fresh {
    Yes,
    Twice,
    NameTaken,
}

fn is_fresh(
    seen: &mut Vec<(String, String)>,
    variant: &Ident,
    ty: &Type,
    what: &str,
    errors: &mut Errors,
) -> Fresh {
    let (name, ty_text) = (variant.to_string(), text(ty));
    let fresh = match seen.iter().find(|(seen, _)| *seen == name) {
        None => Fresh::Yes,
        Some((_, first)) if *first == ty_text => Fresh::Twice,
        Some(_) => {
            errors.at(
                ty,
                format_args!(
                    "another {what} is called `{name}` too: import one of them under a name of its own, `use … as …`"
                ),
            );
            Fresh::NameTaken
        }
    };
    seen.push((name, ty_text));
    fresh
}
