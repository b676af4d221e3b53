//! The keys that say what a consumer does with events that it cannot handle.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::ParseStream;
use syn::{Ident, LitInt, Path};

use crate::duration::duration;
use crate::errors::Errors;
use crate::keys::Keys;

/// As the attributes of consumers know them.
pub(crate) const RETRY: (&str, &str) =
    ("retry", "retry(attempts = 8, first = \"100 ms\", longest = \"10 s\")");
pub(crate) const CLASSIFY: (&str, &str) = ("classify", "classify = path::to::function");
pub(crate) const ON_FAILURE: (&str, &str) = ("on_failure", "on_failure = stop");
pub(crate) const UNKNOWN: (&str, &str) = ("unknown", "unknown = park");
pub(crate) const MAX_PARKED_KEYS: (&str, &str) = ("max_parked_keys", "max_parked_keys = 1000");

const RETRY_KEYS: Keys = Keys {
    attribute: "retry(…)",
    known: &[
        ("attempts", "attempts = 8"),
        ("first", "first = \"100 ms\""),
        ("longest", "longest = \"10 s\""),
    ],
};

/// What was said; the rest is as the crate has it.
#[derive(Default)]
pub(crate) struct Failures {
    attempts: Option<u32>,
    first: Option<u64>,
    longest: Option<u64>,
    classify: Option<Path>,
    stop: bool,
    max_parked_keys: Option<usize>,
    unknown: Option<Ident>,
}

impl Failures {
    /// Reads the value of `key`; none if the key is none of these.
    pub(crate) fn parse(
        &mut self,
        key: &str,
        input: ParseStream<'_>,
        errors: &mut Errors,
    ) -> Option<syn::Result<()>> {
        Some(match key {
            "retry" => self.retry(input, errors),
            "classify" => input.call(Path::parse_mod_style).map(|path| self.classify = Some(path)),
            "on_failure" => self.on_failure(input),
            "max_parked_keys" => {
                whole_number(input).map(|number| self.max_parked_keys = Some(number))
            }
            "unknown" => unknown(input).map(|policy| self.unknown = Some(policy)),
            _ => return None,
        })
    }

    fn retry(&mut self, input: ParseStream<'_>, errors: &mut Errors) -> syn::Result<()> {
        let content;
        syn::parenthesized!(content in input);
        RETRY_KEYS.parse(content.parse()?, &mut Vec::new(), errors, |key, input| {
            match key {
                "attempts" => self.attempts = Some(whole_number(input)?),
                "first" => self.first = Some(duration(input)?),
                _ => self.longest = Some(duration(input)?),
            }
            Ok(())
        });
        Ok(())
    }

    fn on_failure(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        let what: Ident = input.parse()?;
        if what != "stop" && what != "park" {
            return Err(syn::Error::new(
                what.span(),
                "on failure a consumer parks the key, or stops: write `on_failure = park` or `on_failure = stop`",
            ));
        }
        self.stop = what == "stop";
        Ok(())
    }

    /// `fn failures()` of a consumer's trait, if anything was said; what was not is taken from `default`.
    pub(crate) fn expand(&self, krate: &Path, default: &TokenStream) -> Option<TokenStream> {
        let milliseconds = |number: u64| quote!(::core::time::Duration::from_millis(#number));
        let attempts = self.attempts.map(|number| quote!(__policy.retry.attempts = #number;));
        let first =
            self.first.map(milliseconds).map(|first| quote!(__policy.retry.first = #first;));
        let longest = self.longest.map(milliseconds);
        let longest = longest.map(|longest| quote!(__policy.retry.longest = #longest;));
        let classify = self.classify.as_ref().map(|path| quote!(__policy.classify = #path;));
        let stop = self.stop.then(|| quote!(__policy.on_failure = #krate::OnFailure::Stop;));
        let keys = self.max_parked_keys.map(|keys| quote!(__policy.max_parked_keys = #keys;));
        let unknown = self.unknown.as_ref();
        let unknown =
            unknown.map(|policy| quote!(__policy.unknown = #krate::UnknownEvents::#policy;));
        let said: Vec<_> = [attempts, first, longest, classify, stop, keys, unknown]
            .into_iter()
            .flatten()
            .collect();
        (!said.is_empty()).then(|| {
            quote! {
                fn failures() -> #krate::FailurePolicy {
                    let mut __policy: #krate::FailurePolicy = #default;
                    #(#said)*
                    __policy
                }
            }
        })
    }
}

/// Reads what happens with unknown events: the variant of `UnknownEvents`.
pub(crate) fn unknown(input: ParseStream<'_>) -> syn::Result<Ident> {
    let what: Ident = input.parse()?;
    let variant = match what.to_string().as_str() {
        "refuse" => "Refuse",
        "park" => "Park",
        "ignore" => "Ignore",
        _ => {
            return Err(syn::Error::new(
                what.span(),
                "an event that the program does not know is an error, is parked, or is passed over: write `unknown = refuse`, `unknown = park` or `unknown = ignore`",
            ));
        }
    };
    Ok(Ident::new(variant, what.span()))
}

/// Reads a whole number from 1.
pub(crate) fn whole_number<N: std::str::FromStr + Default + PartialEq>(
    input: ParseStream<'_>,
) -> syn::Result<N>
where
    N::Err: std::fmt::Display,
{
    let number: LitInt = input.parse()?;
    match number.base10_parse::<N>() {
        Ok(value) if value != N::default() => Ok(value),
        _ => Err(syn::Error::new(number.span(), "this is a whole number from 1")),
    }
}
