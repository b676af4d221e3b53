//! The keys of `#[on(…)]`: what the events are kept in order by, and whether only new ones are meant.

use proc_macro2::TokenStream;
use quote::quote;
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
        let wild = || quote!(_);
        let pattern = |i: usize| patterns.get(i).map_or_else(wild, |pattern| quote!(#pattern));
        let (event_pattern, header_pattern) = (pattern(0), pattern(1));
        // Borrowed, since the key may be a field that is not `Copy`.
        Some(quote! {
            #[allow(unused_variables)]
            |#event_pattern: &#event, #header_pattern: &#krate::Header| {
                ::std::string::ToString::to_string(&(#key))
            }
        })
    }
}
