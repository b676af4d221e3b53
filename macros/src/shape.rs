//! `#[derive(Shape)]`, and the shape that `#[derive(Event)]` writes: serde's own attributes → the calls that put the form
//! together.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use serde_derive_internals::ast::{Container, Data, Field, Style, Variant};
use serde_derive_internals::attr::{Default as SerdeDefault, TagType};
use serde_derive_internals::name::MultiName;
use serde_derive_internals::{Ctxt, Derive};
use syn::spanned::Spanned;
use syn::{Attribute, DeriveInput, ExprPath, LitStr, Meta, Path, Token, Type, parse_quote};

use crate::errors::Errors;
use crate::keys::{self, CRATE};

/// What `#[shape(…)]` says of a type or a field.
#[derive(Default)]
struct Marks {
    /// It is not described; the name that it gets, if there is one.
    opaque: Option<Option<LitStr>>,
    krate: Option<Path>,
}

/// How the types of fields are described.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parts {
    /// By their `Shape`, which they must have.
    Demanded,
    /// By their `Shape` if they have one.
    Probed,
}

pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let krate = marks(&input.attrs, true, &mut errors).krate.unwrap_or_else(keys::default_path);
    let body = body(input, &krate, Parts::Demanded, &mut errors);
    let ident = &input.ident;
    let mut generics = input.generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(#krate::Shape));
    }
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let errors = errors.into_tokens();
    quote! {
        #[automatically_derived]
        impl #impl_generics #krate::Shape for #ident #ty_generics #where_clause {
            fn form(__describing: &mut #krate::forms::Describing) -> #krate::Form {
                #krate::forms::Describing::within::<Self>(__describing, |__describing| #body)
            }
        }
        #errors
    }
}

/// The expression of an event's form: that of its own `Shape` if it has one, or else of its fields.
pub(crate) fn of_event(input: &DeriveInput, krate: &Path, errors: &mut Errors) -> TokenStream {
    let body = body(input, krate, Parts::Probed, errors);
    quote! {{
        #[allow(unused_imports)]
        use #krate::__private::HasNoShape as _;
        #krate::__private::Probe::<Self>::form_or(
            __describing,
            |__describing| #krate::forms::Describing::within::<Self>(__describing, |__describing| #body),
        )
    }}
}

fn body(input: &DeriveInput, krate: &Path, parts: Parts, errors: &mut Errors) -> TokenStream {
    let marks = marks(&input.attrs, true, errors);
    if let Some(name) = marks.opaque {
        return opaque(krate, &name.map_or_else(|| input.ident.to_string(), |name| name.value()));
    }
    // A mistake in an attribute of serde is one that serde reports: the attributes are known only beside a derive of serde.
    let serde = Ctxt::new();
    let private = Ident::new("__private", Span::call_site());
    let container = Container::from_ast(&serde, input, Derive::Deserialize, &private);
    let understood = serde.check().is_ok();
    let expand = Expand { krate, parts, errors };
    match container {
        Some(container) if understood => expand.container(&container),
        _ => opaque(krate, &input.ident.to_string()),
    }
}

fn opaque(krate: &Path, name: &str) -> TokenStream {
    quote!(#krate::__private::opaque(#name))
}

/// Reads `#[shape(…)]`; `of_type` if it stands over a type.
fn marks(attributes: &[Attribute], of_type: bool, errors: &mut Errors) -> Marks {
    let mut marks = Marks::default();
    let help = if of_type {
        format!("write `#[shape(opaque)]` or `#[shape({})]`", CRATE.1)
    } else {
        "write `#[shape(opaque)]`, or `#[shape(opaque = \"date\")]` with a name that stands for the form".to_owned()
    };
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("shape")) {
        let Meta::List(list) = &attribute.meta else {
            errors.at(attribute, &help);
            continue;
        };
        let parsed = list.parse_nested_meta(|meta| {
            if meta.path.is_ident("opaque") {
                let named = meta.input.peek(Token![=]);
                let name = named.then(|| keys::text(meta.value()?, "name")).transpose()?;
                marks.opaque = Some(name);
            } else if of_type && meta.path.is_ident("crate") {
                marks.krate = Some(keys::path(meta.value()?)?);
            } else {
                return Err(meta.error(&help));
            }
            Ok(())
        });
        if let Err(error) = parsed {
            errors.push(error);
        }
    }
    marks
}

struct Expand<'a> {
    krate: &'a Path,
    parts: Parts,
    errors: &'a mut Errors,
}

impl Expand<'_> {
    fn container(mut self, container: &Container<'_>) -> TokenStream {
        let krate = self.krate;
        let attrs = &container.attrs;
        let from = attrs.type_from().or_else(|| attrs.type_try_from());
        match (attrs.type_into(), from) {
            (Some(into), Some(from)) if text(into) != text(from) => {
                let name = format!("written as {}, read from {}", text(into), text(from));
                return opaque(krate, &name);
            }
            (Some(into), Some(_)) => return self.ty(into),
            (Some(into), None) => {
                return opaque(krate, &format!("{} written as {}", container.ident, text(into)));
            }
            (None, Some(from)) => {
                return opaque(krate, &format!("{} read from {}", container.ident, text(from)));
            }
            (None, None) => {}
        }
        match &container.data {
            Data::Enum(variants) => self.variants(container, variants),
            Data::Struct(style, fields) => {
                if attrs.transparent() {
                    let inner = fields.iter().find(|field| field.attrs.transparent());
                    return inner.map_or_else(
                        || quote!(#krate::Form::Unit),
                        |field| self.field_form(field),
                    );
                }
                let tag = match attrs.tag() {
                    TagType::Internal { tag } => Some(tag.as_str()),
                    _ => None,
                };
                let default = !attrs.default().is_none();
                self.content(*style, fields, attrs.deny_unknown_fields(), default, tag)
                    .unwrap_or_else(|| quote!(#krate::Form::Unit))
            }
        }
    }

    /// The form of a struct's or a variant's fields; none if it is a bare name.
    fn content(
        &mut self,
        style: Style,
        fields: &[Field<'_>],
        closed: bool,
        default: bool,
        tag: Option<&str>,
    ) -> Option<TokenStream> {
        let krate = self.krate;
        Some(match style {
            Style::Unit => return None,
            Style::Newtype => {
                let field = fields.first()?;
                if field.attrs.skip_serializing() && field.attrs.skip_deserializing() {
                    return Some(quote!(#krate::Form::Tuple(#krate::__private::Vec::new())));
                }
                let form = self.field_form(field);
                quote!(#krate::Form::newtype(#form))
            }
            Style::Tuple => {
                let forms = fields
                    .iter()
                    .filter(|field| {
                        !(field.attrs.skip_serializing() && field.attrs.skip_deserializing())
                    })
                    .map(|field| self.field_form(field))
                    .collect::<Vec<_>>();
                quote!(#krate::Form::Tuple(#krate::__private::Vec::from([#(#forms),*])))
            }
            Style::Struct => {
                let fields = fields.iter().map(|field| self.field(field, default));
                let fields = fields.collect::<Vec<_>>();
                let closed = closed.then(|| quote!(.closed()));
                let tag = tag.map(|tag| {
                    quote! {
                        .field(
                            #krate::forms::Field::new(#tag, #krate::Form::Text)
                                .read(#krate::forms::Reading::Never)
                        )
                    }
                });
                quote!(#krate::__private::StructForm::new() #closed #tag #(#fields)* .done())
            }
        })
    }

    /// The call that adds a named field.
    fn field(&mut self, field: &Field<'_>, container_default: bool) -> TokenStream {
        let (krate, attrs) = (self.krate, &field.attrs);
        if attrs.skip_serializing() && attrs.skip_deserializing() {
            return TokenStream::new();
        }
        let form = self.field_form(field);
        if attrs.flatten() {
            return quote!(.flatten(#form));
        }
        let name = &attrs.name().serialize_name().value;
        let names = names(attrs.name(), attrs.aliases().iter().map(|name| name.value.as_str()));
        let written = if attrs.skip_serializing() {
            Some("Never")
        } else {
            attrs.skip_serializing_if().map(|_| "Sometimes")
        };
        let read = if attrs.skip_deserializing() {
            Some("Never")
        } else if container_default || !matches!(attrs.default(), SerdeDefault::None) {
            Some("Default")
        } else {
            // A function of the user's does not know of fields that are missing, even if the type is an option.
            attrs.deserialize_with().map(|_| "Required")
        };
        let setter = |method: &str, of: &str, value: Option<&str>| {
            value.map(|value| {
                let call_site = Span::call_site();
                let (method, of) = (Ident::new(method, call_site), Ident::new(of, call_site));
                let value = Ident::new(value, call_site);
                quote!(.#method(#krate::forms::#of::#value))
            })
        };
        let (written, read) =
            (setter("written", "Writing", written), setter("read", "Reading", read));
        quote!(.field(#krate::forms::Field::new(#name, #form) #written #read #names))
    }

    fn variants(&mut self, container: &Container<'_>, variants: &[Variant<'_>]) -> TokenStream {
        let krate = self.krate;
        let tagging = match container.attrs.tag() {
            TagType::External => quote!(External),
            TagType::Internal { tag } => {
                quote!(Internal(::core::convert::From::from(#tag)))
            }
            TagType::Adjacent { tag, content } => quote! {
                Adjacent {
                    tag: ::core::convert::From::from(#tag),
                    content: ::core::convert::From::from(#content),
                }
            },
            TagType::None => quote!(Untagged),
        };
        let variants: Vec<_> =
            variants.iter().map(|variant| self.variant(container, variant)).collect();
        quote! {
            #krate::__private::EnumForm::new(#krate::forms::Tagging::#tagging) #(#variants)* .done()
        }
    }

    /// The call that adds a variant.
    fn variant(&mut self, container: &Container<'_>, variant: &Variant<'_>) -> TokenStream {
        let (krate, attrs) = (self.krate, &variant.attrs);
        if attrs.skip_serializing() && attrs.skip_deserializing() {
            return TokenStream::new();
        }
        let marks = marks(&variant.original.attrs, false, self.errors);
        let with = with(attrs.serialize_with(), attrs.deserialize_with());
        let form = if let Some(name) = marks.opaque {
            let name = name.map_or_else(|| variant.ident.to_string(), |name| name.value());
            Some(opaque(krate, &name))
        } else if let Some(with) = with {
            Some(opaque(krate, &format!("{} {with}", variant.ident)))
        } else {
            let closed = container.attrs.deny_unknown_fields();
            self.content(variant.style, &variant.fields, closed, false, None)
        };
        let form = match form {
            Some(form) => quote!(::core::option::Option::Some(#form)),
            None => quote!(::core::option::Option::None),
        };
        let name = &attrs.name().serialize_name().value;
        let names = names(attrs.name(), attrs.aliases().iter().map(|name| name.value.as_str()));
        let marks = [
            attrs.skip_serializing().then(|| quote!(.not_written())),
            attrs.skip_deserializing().then(|| quote!(.not_read())),
            attrs.other().then(|| quote!(.other())),
            attrs.untagged().then(|| quote!(.untagged())),
        ];
        let marks = marks.iter().flatten();
        quote!(.variant(#krate::forms::Variant::new(#name, #form) #names #(#marks)*))
    }

    /// The form of a field's value.
    fn field_form(&mut self, field: &Field<'_>) -> TokenStream {
        let marks = marks(&field.original.attrs, false, self.errors);
        let ty = text(field.ty);
        if let Some(name) = marks.opaque {
            return opaque(self.krate, &name.map_or(ty, |name| name.value()));
        }
        match with(field.attrs.serialize_with(), field.attrs.deserialize_with()) {
            Some(with) => opaque(self.krate, &format!("{ty} {with}")),
            None => self.ty(field.ty),
        }
    }

    /// The form of a type. The call stands at the type, so that an error about one without a `Shape` does.
    fn ty(&self, ty: &Type) -> TokenStream {
        let krate = self.krate;
        match self.parts {
            Parts::Demanded => {
                quote_spanned!(ty.span()=> <#ty as #krate::Shape>::form(__describing))
            }
            Parts::Probed => {
                let name = text(ty);
                quote! {
                    #krate::__private::Probe::<#ty>::form_or(
                        __describing,
                        |_| #krate::__private::unseen(#name),
                    )
                }
            }
        }
    }
}

/// The call that says under which names something is read; nothing if it is the one that it is written under.
fn names<'a>(name: &'a MultiName, aliases: impl Iterator<Item = &'a str>) -> Option<TokenStream> {
    let written = name.serialize_name().value.as_str();
    // Serde counts the name that is read among the aliases.
    let mut read = vec![name.deserialize_name().value.as_str()];
    read.extend(aliases.filter(|alias| *alias != name.deserialize_name().value));
    (read != [written]).then(|| quote!(.names(&[#(#read),*])))
}

/// The functions that write and read something instead of its type, as text.
fn with(write: Option<&ExprPath>, read: Option<&ExprPath>) -> Option<String> {
    let module = |path: &ExprPath, function: &str| {
        text(path)
            .strip_suffix(function)
            .and_then(|path| path.strip_suffix("::"))
            .map(str::to_owned)
    };
    match (write, read) {
        (None, None) => None,
        (Some(write), None) => Some(format!("written with {}", text(write))),
        (None, Some(read)) => Some(format!("read with {}", text(read))),
        (Some(write), Some(read)) => {
            match (module(write, "serialize"), module(read, "deserialize")) {
                (Some(write), Some(read)) if write == read => Some(format!("with {write}")),
                _ => Some(format!("written with {}, read with {}", text(write), text(read))),
            }
        }
    }
}

/// Tokens as text without the spaces that no one would write: how a compiler prints tokens is not fixed, and this text is stored.
fn text(tokens: impl ToTokens) -> String {
    let printed = tokens.to_token_stream().to_string();
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '\'';
    let mut text = String::new();
    for part in printed.split_whitespace() {
        if text.ends_with(',') || (text.ends_with(word) && part.starts_with(word)) {
            text.push(' ');
        }
        text.push_str(part);
    }
    text
}
