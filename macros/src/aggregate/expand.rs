//! The code that `#[aggregate]` writes, by the trait it implements.
//!
//! Names of the generated code's own variables begin with two underscores: a constant of the user's that is in scope
//! would otherwise turn a pattern into a comparison. What depends on whether a type is an event or a command goes through
//! functions of `__private` that ask for [`MemberOf`] or `SentTo`, so that one missing derive is one error.

use proc_macro2::{Literal, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;

use super::{Decided, Heard, Model, upcasting};

/// `complete` is false if there were mistakes: then the handlers are not called, whose signatures may be wrong.
pub(super) fn expand(model: &Model, complete: bool) -> TokenStream {
    let enums = [event_enum(model), command_enum(model)];
    let event_set = event_set(model, complete);
    let events = each_event(model);
    let commands = each_command(model);
    let aggregate = aggregate(model, complete);
    let unique = unique_names(model).filter(|_| complete);
    let lines = lines(model);
    let upcasts = upcasting::assertions(model, &lines).filter(|_| complete);
    quote! {
        #(#enums)*
        #event_set
        #(#events)*
        #(#commands)*
        #aggregate
        #(#unique)*
        #(#upcasts)*
    }
}

/// The versions that the set's events read, as a constant expression.
fn lines(model: &Model) -> TokenStream {
    let krate = &model.krate;
    let types = model.applied.iter().map(|applied| &applied.event);
    quote!(&[#(#krate::__private::line::<#types>()),*])
}

fn visibility(model: &Model) -> TokenStream {
    match &model.visibility {
        Some(visibility) => visibility.to_token_stream(),
        // As public as the types inside allow: whether those are, the macro cannot see.
        None => quote! {
            #[allow(unreachable_pub, private_interfaces)]
            pub
        },
    }
}

fn event_enum(model: &Model) -> TokenStream {
    let Model { events, ident, derives, .. } = model;
    let doc = format!("The events of `{ident}`, one variant for each.");
    let variants = model.applied.iter().map(|applied| {
        let (variant, event) = (&applied.variant, &applied.event);
        let doc = format!("The event `{variant}`.");
        quote!(#[doc = #doc] #variant(#event))
    });
    let derive = (!derives.is_empty()).then(|| quote!(#[derive(#(#derives),*)]));
    let visibility = visibility(model);
    let debug = debug(events, model.applied.iter().map(|applied| &applied.variant));
    quote! {
        #[doc = #doc]
        #derive
        #[allow(clippy::enum_variant_names, clippy::large_enum_variant)]
        #visibility enum #events { #(#variants,)* }
        #debug
    }
}

fn command_enum(model: &Model) -> TokenStream {
    let Model { commands, ident, krate, .. } = model;
    let doc = format!("The commands of `{ident}`, one variant for each.");
    let variants = model.decided.iter().map(|decided| {
        let (variant, command) = (&decided.variant, &decided.command);
        let doc = format!("The command `{variant}`.");
        quote!(#[doc = #doc] #variant(#command))
    });
    let heard = model.heard.iter().map(|heard| {
        let (variant, event) = (&heard.variant, &heard.event);
        let doc = format!("The event `{}` of another aggregate.", quote!(#event));
        quote!(#[doc = #doc] #variant(#krate::__private::Arc<#event>))
    });
    let clones = model.decided.iter().map(|Decided { variant, .. }| {
        quote! {
            Self::#variant(__command) => Self::#variant(#krate::__private::clone_command(__command))
        }
    });
    let heard_clones = model.heard.iter().map(|Heard { variant, .. }| {
        quote! {
            Self::#variant(__event) => Self::#variant(#krate::__private::Arc::clone(__event))
        }
    });
    let variants = variants.chain(heard);
    let clones = clones.chain(heard_clones);
    let clone = if model.decides_nothing() {
        quote!(match *self {})
    } else {
        quote!(match self { #(#clones,)* })
    };
    let visibility = visibility(model);
    let decided = model.decided.iter().map(|decided| &decided.variant);
    let heard = model.heard.iter().map(|heard| &heard.variant);
    let variants_of_debug: Vec<_> = decided.chain(heard).collect();
    let debug = debug(commands, variants_of_debug.into_iter());
    quote! {
        #[doc = #doc]
        #[allow(clippy::enum_variant_names, clippy::large_enum_variant)]
        #visibility enum #commands { #(#variants,)* }
        #[automatically_derived]
        impl ::core::clone::Clone for #commands {
            fn clone(&self) -> Self { #clone }
        }
        #debug
    }
}

/// `Debug` that names the variant and leaves its payload out.
fn debug<'a>(
    ident: &syn::Ident,
    variants: impl ExactSizeIterator<Item = &'a syn::Ident>,
) -> TokenStream {
    let arms = variants.map(|variant| {
        let text = format!("{variant}(..)");
        quote!(Self::#variant(_) => #text)
    });
    let (formatter, body) = if arms.len() == 0 {
        (quote!(_), quote!(match *self {}))
    } else {
        let body = quote!(__formatter.write_str(match self { #(#arms,)* }));
        (quote!(__formatter), body)
    };
    quote! {
        #[automatically_derived]
        impl ::core::fmt::Debug for #ident {
            fn fmt(&self, #formatter: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                #body
            }
        }
    }
}

fn event_set(model: &Model, complete: bool) -> TokenStream {
    let Model { events, krate, category, .. } = model;
    let types = || model.applied.iter().map(|applied| &applied.event);
    let schemas = schemas(krate, types());
    let types = types();
    let names = quote!(&[#(#krate::__private::name::<#types>()),*]);
    let match_each = |binding: TokenStream, arm: &dyn Fn(usize, &syn::Type) -> TokenStream| {
        if model.applied.is_empty() {
            return quote!(match *self {});
        }
        let arms = model.applied.iter().enumerate().map(|(index, applied)| {
            let (variant, arm) = (&applied.variant, arm(index, &applied.event));
            quote!(Self::#variant(#binding) => #arm)
        });
        quote!(match self { #(#arms,)* })
    };
    let index =
        match_each(quote!(_), &|index, _| Literal::usize_unsuffixed(index).into_token_stream());
    let name = match_each(quote!(_), &|_, event| quote!(#krate::__private::name::<#event>()));
    let version = match_each(quote!(_), &|_, event| quote!(#krate::__private::version::<#event>()));
    let codec = match_each(quote!(_), &|_, event| quote!(#krate::__private::codec::<#event>()));
    let encode =
        match_each(quote!(__event), &|_, _| quote!(#krate::__private::encode(__event, __bytes)));
    let decode = model.applied.iter().map(|applied| {
        let (variant, event) = (&applied.variant, &applied.event);
        quote! {
            if __name == #krate::__private::name::<#event>()
                && __schema_version == #krate::__private::version::<#event>()
            {
                return ::core::result::Result::map(
                    #krate::__private::decode::<#event>(__schema_version, __codec, __payload),
                    Self::#variant,
                );
            }
        }
    });
    let older = model.applied.iter().enumerate().map(|(index, applied)| {
        let (variant, event) = (&applied.variant, &applied.event);
        let index = Literal::usize_unsuffixed(index);
        quote! {
            ::core::option::Option::Some(#index) => ::core::result::Result::map(
                #krate::__private::decode::<#event>(__schema_version, __codec, __payload),
                Self::#variant,
            )
        }
    });
    let lines = lines(model);
    let former_names = former_names(model);
    let read = if complete { upcasting::read(model, &lines) } else { None };
    quote! {
        #[automatically_derived]
        impl #krate::EventSet for #events {
            const CATEGORY: &'static ::core::primitive::str = #category;
            const NAMES: &'static [&'static ::core::primitive::str] = #names;
            #former_names
            fn index(&self) -> ::core::primitive::usize { #index }
            fn name(&self) -> &'static ::core::primitive::str { #name }
            fn schema_version(&self) -> ::core::primitive::u32 { #version }
            fn codec(&self) -> #krate::Codec { #codec }
            fn encode(
                &self,
                __bytes: &mut #krate::__private::Vec<::core::primitive::u8>,
            ) -> ::core::result::Result<(), #krate::CodecError> {
                #encode
            }
            fn decode(
                __name: &::core::primitive::str,
                __schema_version: ::core::primitive::u32,
                __codec: #krate::Codec,
                __payload: &[::core::primitive::u8],
            ) -> ::core::result::Result<Self, #krate::DecodeError> {
                const __LINES: &[#krate::__private::Line] = #lines;
                #(#decode)*
                match #krate::__private::reader(__LINES, __name, __schema_version) {
                    #(#older,)*
                    _ => ::core::result::Result::Err(#krate::__private::unknown_name::<Self>(__name)),
                }
            }
            #schemas
            #read
        }
        #[automatically_derived]
        impl<__R> #krate::IntoDecision<#events, __R> for #events {
            fn into_decision(
                self,
                __events: &mut #krate::__private::Vec<#events>,
            ) -> ::core::result::Result<(), __R> {
                __events.push(self);
                ::core::result::Result::Ok(())
            }
        }
    }
}

fn schemas<'a>(krate: &syn::Path, events: impl Iterator<Item = &'a syn::Type>) -> TokenStream {
    // Asks whether the event has a JSON Schema, without a demand that it has one.
    let each = events.map(|event| {
        quote!(#krate::__private::schema::<#event>(#krate::__private::Probe::<#event>::json_schema()))
    });
    quote! {
        fn schemas() -> #krate::__private::Vec<#krate::EventSchema> {
            #[allow(unused_imports)]
            use #krate::__private::HasNoJsonSchema as _;
            #krate::__private::Vec::from([#(#each),*])
        }
    }
}

/// The names of what is read in another way than the name says, in one constant.
fn former_names(model: &Model) -> TokenStream {
    let krate = &model.krate;
    let types = model.applied.iter().map(|applied| &applied.event);
    let names = upcasting::names(model);
    quote! {
        const FORMER_NAMES: &'static [&'static ::core::primitive::str] = {
            const __NAMES: &[&[&::core::primitive::str]] =
                &[#(#krate::__private::former_names::<#types>(),)* &[#(#names),*]];
            &#krate::__private::concat::<{ #krate::__private::total(__NAMES) }>(__NAMES)
        };
    }
}

fn each_event(model: &Model) -> impl Iterator<Item = TokenStream> {
    let Model { events, krate, .. } = model;
    let alone = model.applied.len() == 1;
    model.applied.iter().enumerate().map(move |(index, applied)| {
        let (variant, event) = (&applied.variant, &applied.event);
        let index = Literal::usize_unsuffixed(index);
        // Spans the event, so that an error about one that is more public than its set stands there.
        let set = quote_spanned!(event.span()=> type Set = #events;);
        let other_ref = (!alone).then(|| quote!(_ => ::core::option::Option::None,));
        let other = (!alone).then(|| quote!(__other => ::core::result::Result::Err(__other),));
        quote! {
            #[automatically_derived]
            impl #krate::MemberOf for #event {
                #set
                const INDEX: ::core::primitive::usize = #index;
                fn from_set(__set: &#events) -> ::core::option::Option<&Self> {
                    match __set {
                        #events::#variant(__event) => ::core::option::Option::Some(__event),
                        #other_ref
                    }
                }
                fn take(__set: #events) -> ::core::option::Option<Self> {
                    match __set {
                        #events::#variant(__event) => ::core::option::Option::Some(__event),
                        #other_ref
                    }
                }
            }
            #[automatically_derived]
            impl<__R> #krate::IntoDecision<#events, __R> for #event {
                fn into_decision(
                    self,
                    __events: &mut #krate::__private::Vec<#events>,
                ) -> ::core::result::Result<(), __R> {
                    __events.push(#events::#variant(self));
                    ::core::result::Result::Ok(())
                }
            }
            #[automatically_derived]
            impl ::core::convert::From<#event> for #events {
                fn from(__event: #event) -> Self {
                    Self::#variant(__event)
                }
            }
            #[automatically_derived]
            impl ::core::convert::TryFrom<#events> for #event {
                type Error = #events;
                fn try_from(__set: #events) -> ::core::result::Result<Self, #events> {
                    match __set {
                        #events::#variant(__event) => ::core::result::Result::Ok(__event),
                        #other
                    }
                }
            }
        }
    })
}

fn each_command(model: &Model) -> impl Iterator<Item = TokenStream> {
    let Model { commands, krate, aggregate, .. } = model;
    model.decided.iter().map(move |decided| {
        let (variant, command) = (&decided.variant, &decided.command);
        // Spans the command, so that an error about a command that is more public than its aggregate stands there.
        let sent_to = quote_spanned!(command.span()=> type Aggregate = #aggregate;);
        quote! {
            #[automatically_derived]
            impl #krate::SentTo for #command {
                #sent_to
            }
            #[automatically_derived]
            impl ::core::convert::From<#command> for #commands {
                fn from(__command: #command) -> Self {
                    Self::#variant(__command)
                }
            }
        }
    })
}

fn aggregate(model: &Model, complete: bool) -> TokenStream {
    let Model { krate, aggregate, category, events, commands, error, .. } = model;
    let (decide, apply) = if complete {
        (decide_body(model), apply_body(model))
    } else {
        let stub = quote!(::core::panic!("this aggregate did not compile"));
        (stub.clone(), stub)
    };
    let command_names = model.decided.iter().map(
        |Decided {
             variant, command, ..
         }| {
            quote!(#commands::#variant(_) => #krate::__private::command_name::<#command>())
        },
    );
    let heard_names = model.heard.iter().map(|Heard { variant, event, .. }| {
        quote!(#commands::#variant(_) => #krate::__private::name::<#event>())
    });
    let command_name = if model.decides_nothing() {
        quote!(match *__command {})
    } else {
        quote!(match __command { #(#command_names,)* #(#heard_names,)* })
    };
    let subscribe = (complete && !model.heard.is_empty()).then(|| subscribe(model));
    let snapshots = model.snapshot.as_ref().filter(|_| complete);
    let snapshots = snapshots.map(|snapshot| snapshot.method(krate));
    let unknown = model.unknown.as_ref().map(|policy| {
        quote! {
            fn unknown_events() -> #krate::UnknownEvents {
                #krate::UnknownEvents::#policy
            }
        }
    });
    let types = quote_spanned! {events.span()=>
        type Event = #events;
        type Command = #commands;
    };
    quote! {
        #[automatically_derived]
        impl #krate::Aggregate for #aggregate {
            const CATEGORY: &'static ::core::primitive::str = #category;
            #types
            type Error = #error;
            fn decide(
                &self,
                __command: #commands,
                __context: &#krate::Context,
                __events: &mut #krate::__private::Vec<#events>,
            ) -> ::core::result::Result<(), #error> {
                #decide
            }
            fn apply(&mut self, __event: &#events) {
                #apply
            }
            fn command_name(__command: &#commands) -> &'static ::core::primitive::str {
                #command_name
            }
            #unknown
            #subscribe
            #snapshots
        }
    }
}

fn subscribe(model: &Model) -> TokenStream {
    let Model { krate, commands, .. } = model;
    let each = model.heard.iter().map(|Heard { event, variant, to, .. }| {
        quote! {
            #krate::AggregateSubscriptions::<Self>::on::<#event>(
                __to,
                #to,
                |__event: #event| #commands::#variant(#krate::__private::Arc::new(__event)),
            );
        }
    });
    quote! {
        fn subscribe(__to: &mut #krate::AggregateSubscriptions<Self>) {
            #(#each)*
        }
    }
}

fn decide_body(model: &Model) -> TokenStream {
    let Model { krate, commands, events, error, .. } = model;
    let arms = model.decided.iter().map(|decided| {
        let Decided { method, variant, .. } = decided;
        // The context spans the argument's type, so that an error about another type stands there.
        let context = decided.context.map(|span| quote_spanned!(span=> , __context));
        // The call spans the handler's return type, so that an error about what it returns stands there.
        let (first, last) = decided.output;
        let call = {
            let callee = quote_spanned!(first=> Self::);
            let method = format_ident!("{method}", span = first);
            let arguments = quote_spanned!(last=> (self, __command #context));
            quote!(#callee #method #arguments)
        };
        quote! {
            #commands::#variant(__command) =>
                #krate::IntoDecision::<#events, #error>::into_decision(#call, __events)
        }
    });
    let heard = model.heard.iter().map(|heard| {
        let Heard { method, variant, .. } = heard;
        let context = heard.context.map(|span| quote_spanned!(span=> , __context));
        let (first, last) = heard.output;
        let call = {
            let callee = quote_spanned!(first=> Self::);
            let method = format_ident!("{method}", span = first);
            let arguments = quote_spanned!(last=> (self, &__event #context));
            quote!(#callee #method #arguments)
        };
        quote! {
            #commands::#variant(__event) =>
                #krate::IntoDecision::<#events, #error>::into_decision(#call, __events)
        }
    });
    let takes_context = model.decided.iter().any(|decided| decided.context.is_some())
        || model.heard.iter().any(|heard| heard.context.is_some());
    let arms = arms.chain(heard);
    if model.decides_nothing() {
        quote! {
            let (_, _) = (__context, __events);
            match __command {}
        }
    } else if takes_context {
        quote!(match __command { #(#arms,)* })
    } else {
        quote! {
            let _ = __context;
            match __command { #(#arms,)* }
        }
    }
}

fn apply_body(model: &Model) -> TokenStream {
    let events = &model.events;
    let arms = model.applied.iter().map(|applied| {
        let (method, variant) = (&applied.method, &applied.variant);
        quote!(#events::#variant(__event) => Self::#method(self, __event))
    });
    quote!(match __event { #(#arms,)* })
}

/// One assertion for each event but the first: no earlier one is stored with the same name and version.
fn unique_names(model: &Model) -> impl Iterator<Item = TokenStream> {
    let Model { krate, events, .. } = model;
    model.applied.iter().enumerate().skip(1).map(move |(index, applied)| {
        let event = &applied.event;
        let earlier = model.applied.iter().take(index).map(|applied| &applied.event);
        let message = format!(
            "`{}` is stored under the name and version of another event of `{events}`: give each `#[event(name = \"…\")]` a name of its own, or another version if they are the same event",
            applied.variant,
        );
        quote_spanned! {event.span()=>
            const _: () = ::core::assert!(
                #krate::__private::is_new_line(
                    &#krate::__private::line::<#event>(),
                    &[#(#krate::__private::line::<#earlier>()),*],
                ),
                #message,
            );
        }
    })
}
