//! `#[subscriber]`: attribute and block → model → checks → the implementation.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Ident, LitStr, Path, Type};

use crate::errors::Errors;
use crate::handler::{Block, Borrow, parenthesized, text};
use crate::keys::{self, CRATE, Keys};
use crate::projection::{HEADER, On, keep_first, on};

const KEYS: Keys = Keys {
    attribute: "#[subscriber]",
    known: &[
        ("name", "name = \"risk\""),
        ("publishes", "publishes(Alert)"),
        ("overflow", "overflow = drop_oldest"),
        CRATE,
    ],
};

struct Model {
    krate: Path,
    subscriber: Type,
    name: LitStr,
    publishes: Vec<Path>,
    drop_oldest: bool,
    handlers: Vec<On>,
}

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut block = match Block::parse(item, "subscriber") {
        Ok(block) => block,
        Err(tokens) => return tokens,
    };
    let mut errors = Errors::default();
    let mut model = parse_keys(arguments, &block, &mut errors);
    let methods = block.take_handlers(
        "subscriber",
        &["on"],
        &[],
        &["apply", "command", "query"],
        &mut errors,
    );
    for (_, handler) in methods {
        handler.check(
            "an event handler",
            Borrow::Exclusive,
            "a subscriber handles one event after the other",
            "start what has to wait as a task",
            &mut errors,
        );
        let arguments = handler.arguments();
        model.handlers.extend(on(
            &handler,
            &arguments,
            "&mut self, event: &…",
            HEADER,
            &mut errors,
        ));
    }
    if model.handlers.is_empty() && errors.is_empty() {
        errors.span(
            Span::call_site(),
            "a subscriber needs handlers: write `#[on] fn …` for each event that it handles",
        );
    }
    keep_first(&mut model.handlers, |on| &on.event, "handle", &mut errors);

    let generated = implementation(&model, errors.is_empty());
    let block = &block.item;
    let errors = errors.into_tokens();
    quote!(#block #generated #errors)
}

fn parse_keys(arguments: TokenStream, block: &Block, errors: &mut Errors) -> Model {
    let mut model = Model {
        krate: keys::default_path(),
        subscriber: (*block.item.self_ty).clone(),
        name: LitStr::new("missing", Span::call_site()),
        publishes: Vec::new(),
        drop_oldest: false,
        handlers: Vec::new(),
    };
    let mut seen = Vec::new();
    let only_keys = KEYS.parse(arguments, &mut seen, errors, |key, input| {
        match key {
            "name" => model.name = keys::text(input, "name")?,
            "publishes" => model.publishes = parenthesized(input)?.into_iter().collect(),
            "overflow" => {
                let policy: Ident = input.parse()?;
                if policy != "drop_oldest" {
                    return Err(syn::Error::new(
                        policy.span(),
                        "the only other policy is `drop_oldest`: remove the key for that of the topics",
                    ));
                }
                model.drop_oldest = true;
            }
            _ => model.krate = keys::path(input)?,
        }
        Ok(())
    });
    if only_keys && !seen.iter().any(|seen| seen == "name") {
        KEYS.missing(Span::call_site(), "name", errors);
    }
    let mut published = Vec::new();
    for event in &model.publishes {
        let name = text(event);
        if published.contains(&name) {
            errors.at(event, format_args!("`{name}` is named twice: remove one of them"));
        }
        published.push(name);
    }
    model
}

/// `complete` is false if there were mistakes: then the handlers are not named.
fn implementation(model: &Model, complete: bool) -> TokenStream {
    let Model { krate, subscriber, name, publishes, .. } = model;
    let handlers = model.handlers.iter().map(|handler| one(krate, handler));
    let drop_oldest =
        model.drop_oldest.then(|| quote!(#krate::Subscriptions::<Self>::drop_oldest(__to);));
    let body = if complete {
        quote! {
            #(#handlers)*
            #(#krate::Subscriptions::<Self>::publishes::<#publishes>(__to);)*
            #drop_oldest
        }
    } else {
        quote!(let _ = __to;)
    };
    quote! {
        #[automatically_derived]
        impl #krate::EventSubscriber for #subscriber {
            const NAME: &'static ::core::primitive::str = #name;
            fn subscriptions(__to: &mut #krate::Subscriptions<Self>) {
                #body
            }
        }
    }
}

fn one(krate: &Path, handler: &On) -> TokenStream {
    let On { method, event, takes_header, output: (first, last), .. } = handler;
    let (registration, header, header_argument) = if *takes_header {
        (
            quote!(on_with_header),
            Some(quote!(, __header: &#krate::Header)),
            Some(quote_spanned!(*last=> , __header)),
        )
    } else {
        (quote!(on), None, None)
    };
    // The call spans the handler's return type, so that an error about what it returns stands there.
    let callee = quote_spanned!(*first=> Self::);
    let method = format_ident!("{method}", span = *first);
    let arguments = quote_spanned!(*last=> (__subscriber, __event #header_argument));
    let outcome = quote_spanned!(*first=> _);
    quote! {
        #krate::Subscriptions::<Self>::#registration::<#event, #outcome>(
            __to,
            |__subscriber: &mut Self, __event: &#event #header| #callee #method #arguments,
        );
    }
}
