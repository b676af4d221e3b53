//! The keys of `#[on(…)]`: what the events are kept in order by, whether only new ones are meant, and which instance of an
//! aggregate they go to.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};
use syn::{Expr, Pat, Path, Type};

use crate::errors::Errors;
use crate::handler::Handler;
use crate::keys::Keys;

const KEYS: Keys = Keys {
    attribute: "#[on]",
    known: &[("key", "key = event.customer"), ("live_only", "live_only")],
};

/// What `#[on(key = event.customer, live_only)]` says.
#[derive(Default)]
pub(crate) struct OnKeys {
    /// An expression of the handler's event, and of its header if it takes that.
    pub(crate) key: Option<Expr>,
    pub(crate) live_only: bool,
}

impl OnKeys {
    pub(crate) fn parse(handler: &Handler, errors: &mut Errors) -> Self {
        let mut found = Self::default();
        if let Some(keys) = &handler.keys {
            KEYS.parse(keys.clone(), &mut Vec::new(), errors, |key, input| {
                match key {
                    "key" => found.key = Some(input.parse()?),
                    _ => found.live_only = true,
                }
                Ok(())
            });
        }
        found
    }

    /// A closure from the event and its header to the key as text, if there is one. `patterns` are how the handler names its
    /// event and what follows it.
    pub(crate) fn key_function(
        &self,
        krate: &Path,
        event: &Type,
        patterns: &[Pat],
    ) -> Option<TokenStream> {
        let key = self.key.as_ref()?;
        let event_pattern = named(patterns.first(), "event");
        let header_pattern = named(patterns.get(1), "header");
        Some(to_text(krate, event, &event_pattern, &header_pattern, key))
    }
}

/// As the handler names its argument; `name` if it does not name it.
fn named(pattern: Option<&Pat>, name: &str) -> TokenStream {
    match pattern {
        None | Some(Pat::Wild(_)) => format_ident!("{name}").into_token_stream(),
        Some(pattern) => quote!(#pattern),
    }
}

/// A closure from an event and its header to `value` as text.
fn to_text(
    krate: &Path,
    event: &Type,
    event_pattern: &TokenStream,
    header_pattern: &TokenStream,
    value: &Expr,
) -> TokenStream {
    // Borrowed, since the value may be a field that is not `Copy`.
    quote! {
        #[allow(unused_variables)]
        |#event_pattern: &#event, #header_pattern: &#krate::Header| {
            ::std::string::ToString::to_string(&(#value))
        }
    }
}

const INSTANCE_KEYS: Keys = Keys { attribute: "#[on]", known: &[("to", "to = event.order")] };

/// What `#[on(to = event.order)]` says.
pub(crate) struct Instance {
    to: Expr,
}

impl Instance {
    /// Reads the keys of an aggregate's event handler; none, and a mistake, if it does not say which instance is meant.
    pub(crate) fn parse(handler: &Handler, errors: &mut Errors) -> Option<Self> {
        let mut to = None;
        let mut seen = Vec::new();
        let keys = handler.keys.clone().unwrap_or_default();
        let only_keys = INSTANCE_KEYS.parse(keys, &mut seen, errors, |_, input| {
            to = Some(input.parse()?);
            Ok(())
        });
        if only_keys && seen.is_empty() {
            INSTANCE_KEYS.missing(handler.ident().span(), "to", errors);
        }
        to.map(|to| Self { to })
    }

    /// A closure from the event, named by `pattern`, and its header, named `header`, to the id of the instance.
    pub(crate) fn function(&self, krate: &Path, event: &Type, pattern: &Pat) -> TokenStream {
        let (event_pattern, header_pattern) = (named(Some(pattern), "event"), quote!(header));
        to_text(krate, event, &event_pattern, &header_pattern, &self.to)
    }
}
