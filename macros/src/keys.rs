//! The keys of an attribute: `name = "…", version = 1`.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Ident, LitInt, LitStr, Path, Token};

use crate::errors::Errors;

/// The keys that an attribute takes.
pub(crate) struct Keys {
    /// The attribute as the user writes it: `#[event]`.
    pub(crate) attribute: &'static str,
    /// Each key with an example of how to write it; one whose example is its name stands alone.
    pub(crate) known: &'static [(&'static str, &'static str)],
}

/// Where the generated code finds the crate.
pub(crate) const CRATE: (&str, &str) = ("crate", "crate = ::tidings");

impl Keys {
    /// Parses `tokens` key by key. `value` reads what follows the key's name, if anything does, and says whether it could.
    ///
    /// `seen` are the keys of earlier attributes of the same kind; a mistake in one key does not hide those in others.
    /// False if there is something that is no key: a key that seems to be missing may be meant by it.
    pub(crate) fn parse(
        &self,
        tokens: TokenStream,
        seen: &mut Vec<Ident>,
        errors: &mut Errors,
        mut value: impl FnMut(&str, ParseStream<'_>) -> syn::Result<()>,
    ) -> bool {
        let mut only_keys = true;
        let parser = |input: ParseStream<'_>| {
            while !input.is_empty() {
                only_keys &= self.parse_one(input, seen, errors, &mut value)?;
                skip_to_comma(input)?;
            }
            Ok(())
        };
        if let Err(error) = parser.parse2(tokens) {
            errors.push(error);
            return false;
        }
        only_keys
    }

    fn parse_one(
        &self,
        input: ParseStream<'_>,
        seen: &mut Vec<Ident>,
        errors: &mut Errors,
        value: &mut impl FnMut(&str, ParseStream<'_>) -> syn::Result<()>,
    ) -> syn::Result<bool> {
        if !input.peek(Ident::peek_any) {
            let found: TokenTree = input.parse()?;
            errors.at(found, format_args!("`{}` takes {}", self.attribute, self.list()));
            return Ok(false);
        }
        let key = input.call(Ident::parse_any)?;
        let Some((name, example)) = self.known.iter().find(|(name, _)| key == name) else {
            let text = key.to_string();
            if let Some((meant, _)) = self.known.iter().find(|(name, _)| alike(name, &text)) {
                seen.push(Ident::new(meant, key.span()));
            }
            errors.at(
                &key,
                format_args!("unknown key `{key}`: `{}` takes {}", self.attribute, self.list()),
            );
            return Ok(true);
        };
        if seen.contains(&key) {
            errors.at(&key, format_args!("`{key}` is given twice: remove one of them"));
            return Ok(true);
        }
        let span = key.span();
        seen.push(key);
        let (is_list, is_alone) = (example.contains('('), example == name);
        let has_value = !is_list && !is_alone;
        if is_list != input.peek(syn::token::Paren) || has_value != input.peek(Token![=]) {
            errors.span(span, format_args!("write `{example}`"));
            return Ok(true);
        }
        if has_value {
            input.parse::<Token![=]>()?;
        }
        let value_span =
            if input.is_empty() || input.peek(Token![,]) { span } else { input.span() };
        if let Err(error) = value(name, input) {
            // A value that is missing or of another kind gets the example, a mistake within the value its own message.
            let message = error.to_string();
            if message.starts_with("expected") || message.starts_with("unexpected") {
                errors.span(value_span, format_args!("write `{example}`"));
            } else {
                errors.push(error);
            }
        } else if !input.is_empty() && !input.peek(Token![,]) {
            errors.span(input.span(), format_args!("expected `,` before this: write `{example}`"));
        }
        Ok(true)
    }

    /// The error for a key that must be there; `others` says how the attribute looks with it.
    pub(crate) fn missing(&self, span: Span, key: &str, errors: &mut Errors) {
        if let Some((_, example)) = self.known.iter().find(|(name, _)| *name == key) {
            errors
                .span(span, format_args!("`{}` needs `{key}`: write `{example}`", self.attribute));
        }
    }

    fn list(&self) -> String {
        let mut list = String::new();
        for (i, (_, example)) in self.known.iter().enumerate() {
            if i > 0 {
                list.push_str(if i + 1 == self.known.len() { " and " } else { ", " });
            }
            list.push('`');
            list.push_str(example);
            list.push('`');
        }
        list
    }
}

fn skip_to_comma(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() {
        if input.peek(Token![,]) {
            input.parse::<Token![,]>()?;
            break;
        }
        input.parse::<TokenTree>()?;
    }
    Ok(())
}

/// Reads a text that must not be empty.
pub(crate) fn text(input: ParseStream<'_>, what: &str) -> syn::Result<LitStr> {
    let text: LitStr = input.parse()?;
    if text.value().is_empty() {
        return Err(syn::Error::new(text.span(), format_args!("the {what} must not be empty")));
    }
    Ok(text)
}

/// Reads a version: a whole number from 1.
pub(crate) fn version(input: ParseStream<'_>) -> syn::Result<u32> {
    let number: LitInt = input.parse()?;
    match number.base10_parse() {
        Ok(0) => Err(syn::Error::new(number.span(), "versions start at 1")),
        Ok(version) if number.suffix().is_empty() || number.suffix() == "u32" => Ok(version),
        _ => Err(syn::Error::new(
            number.span(),
            format_args!("a version is a whole number from 1 to {}", u32::MAX),
        )),
    }
}

/// Reads the path under which the generated code finds the crate.
pub(crate) fn path(input: ParseStream<'_>) -> syn::Result<Path> {
    input.call(Path::parse_mod_style)
}

/// The crate's own path, unless the user gives another.
pub(crate) fn default_path() -> Path {
    syn::parse_quote!(::tidings)
}

/// `text` could be a slip of the pen for `name`: one letter is missing, wrong or too many, or two are swapped.
pub(crate) fn alike(name: &str, text: &str) -> bool {
    // A slip in a word of two or three letters may as well be another word.
    if name.len() < 4 || name == text {
        return false;
    }
    let common = name.chars().zip(text.chars()).take_while(|(a, b)| a == b).count();
    let rest = |text: &str, skip: usize| text.chars().skip(common + skip).collect::<Vec<_>>();
    let same_after = |in_name, in_text| rest(name, in_name) == rest(text, in_text);
    let swapped = matches!(
        (rest(name, 0).as_slice(), rest(text, 0).as_slice()),
        ([a, b, ..], [c, d, ..]) if (a, b) == (d, c)
    ) && same_after(2, 2);
    swapped || same_after(1, 1) || same_after(1, 0) || same_after(0, 1)
}
