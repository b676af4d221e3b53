//! Whether what is written in one form can be read as another.
//!
//! The rules are those of serde's derives and of self-describing formats, in which fields have names: an unknown field is ignored,
//! a missing one is an error unless it has a default, a whole number fits where its range does.

use std::fmt;

use super::{Field, Fields, Form, Reading, Tagging, Variant, Variants, Writing};

/// Something that a reader makes of what a writer writes, other than the same.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fit {
    /// The fields that lead there, by the writer's names.
    pub(crate) path: Path,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// The reader needs a field that is not written, or not always.
    Missing { always: bool },
    /// The reader refuses a field that it does not know.
    Refused,
    /// The reader has another form, which does not hold every value of the writer's.
    Form { from: Form, to: Form },
    /// The reader knows no such variant.
    NoVariant { name: String },
    /// The reader looks for the variant's name elsewhere.
    Tagging,
    /// One of the two is not described.
    Unjudged { from: Form, to: Form },
    /// The reader has a field that is not written, and takes its default.
    Defaulted,
    /// The reader does not look at a field that is written.
    Ignored,
    /// The reader knows the field by another name.
    Renamed { to: String },
    /// The reader has another form, which holds every value of the writer's.
    Widened { from: Form, to: Form },
    /// The reader knows a variant that is not written.
    MoreVariants { name: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Every value is read.
    Reads,
    /// Nobody can say.
    Unjudged,
    /// Some values are not read, or not as what they are.
    Breaks,
}

impl Fit {
    pub(crate) fn severity(&self) -> Severity {
        match self.kind {
            Kind::Missing { .. }
            | Kind::Refused
            | Kind::Form { .. }
            | Kind::NoVariant { .. }
            | Kind::Tagging => Severity::Breaks,
            Kind::Unjudged { .. } => Severity::Unjudged,
            Kind::Defaulted
            | Kind::Ignored
            | Kind::Renamed { .. }
            | Kind::Widened { .. }
            | Kind::MoreVariants { .. } => Severity::Reads,
        }
    }
}

/// The names of fields, from the outermost inwards; empty for the event itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Path(Vec<String>);

impl Path {
    fn then(&self, name: impl Into<String>) -> Self {
        Self(self.0.iter().cloned().chain([name.into()]).collect())
    }

    /// Without the last name.
    pub(crate) fn parent(&self) -> &[String] {
        self.0.split_last().map_or(&[], |(_, parent)| parent)
    }

    pub(crate) fn last(&self) -> Option<&str> {
        self.0.last().map(String::as_str)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// All that a reader of the form `to` makes of what a writer of the form `from` writes.
pub(crate) fn fit(from: &Form, to: &Form) -> Vec<Fit> {
    let mut found = Vec::new();
    form(from, to, &Path::default(), &mut found);
    found
}

fn form(from: &Form, to: &Form, path: &Path, found: &mut Vec<Fit>) {
    if from == to {
        return;
    }
    let mut push = |kind| found.push(Fit { path: path.clone(), kind });
    let widened = || Kind::Widened { from: from.clone(), to: to.clone() };
    match (from, to) {
        (Form::Newtype(from), to) => form(from, to, path, found),
        (from, Form::Newtype(to)) => form(from, to, path, found),
        (_, Form::Any) => push(widened()),
        (Form::Optional(from), Form::Optional(to)) => form(from, to, path, found),
        (Form::Unit, Form::Optional(_)) => push(widened()),
        (from, Form::Optional(inner)) => {
            let before = found.len();
            form(from, inner, path, found);
            if found.len() == before {
                found.push(Fit { path: path.clone(), kind: widened() });
            }
        }
        (Form::Opaque(_) | Form::Unseen(_) | Form::Around(_), _)
        | (_, Form::Opaque(_) | Form::Unseen(_) | Form::Around(_)) => {
            push(Kind::Unjudged { from: from.clone(), to: to.clone() });
        }
        (Form::List(from), Form::List(to))
        | (Form::Array(from, _), Form::List(to))
        | (Form::Sealed(from), Form::Sealed(to)) => {
            form(from, to, path, found);
        }
        (Form::Array(from, a), Form::Array(to, b)) if a == b => form(from, to, path, found),
        (Form::Map(from_key, from), Form::Map(to_key, to)) => {
            form(from_key, to_key, path, found);
            form(from, to, path, found);
        }
        (Form::Tuple(from), Form::Tuple(to)) if from.len() == to.len() => {
            for (place, (from, to)) in from.iter().zip(to).enumerate() {
                form(from, to, &path.then(place.to_string()), found);
            }
        }
        (Form::Tuple(from), Form::List(to)) => {
            for (place, from) in from.iter().enumerate() {
                form(from, to, &path.then(place.to_string()), found);
            }
        }
        (Form::Struct(from), Form::Struct(to)) => fields(from, to, path, found),
        (Form::Enum(from), Form::Enum(to)) => variants(from, to, path, found),
        // What is tried one after the other may read anything, or another variant than the one that was meant.
        (Form::Enum(Variants { tagging: Tagging::Untagged, .. }), _)
        | (_, Form::Enum(Variants { tagging: Tagging::Untagged, .. })) => {
            push(Kind::Unjudged { from: from.clone(), to: to.clone() });
        }
        _ if holds(from, to) => push(widened()),
        _ => push(Kind::Form { from: from.clone(), to: to.clone() }),
    }
}

/// Whether `to` holds every value of the plain form `from`.
fn holds(from: &Form, to: &Form) -> bool {
    match (whole(from), whole(to), to) {
        (Some((signed, bits)), Some((to_signed, to_bits)), _) => {
            bits < to_bits && (to_signed || !signed)
        }
        // All of a whole number's digits: 24 bits of the small one are digits, 53 of the large one.
        (Some((_, bits)), None, Form::F32) => bits <= 16,
        (Some((_, bits)), None, Form::F64) => bits <= 32,
        _ => matches!((from, to), (Form::F32, Form::F64) | (Form::Char, Form::Text)),
    }
}

/// Whether it has a sign, and its bits.
fn whole(form: &Form) -> Option<(bool, u32)> {
    Some(match form {
        Form::I8 => (true, 8),
        Form::I16 => (true, 16),
        Form::I32 => (true, 32),
        Form::I64 => (true, 64),
        Form::I128 => (true, 128),
        Form::U8 => (false, 8),
        Form::U16 => (false, 16),
        Form::U32 => (false, 32),
        Form::U64 => (false, 64),
        Form::U128 => (false, 128),
        _ => return None,
    })
}

impl Field {
    fn reads(&self, name: &str) -> bool {
        (self.read_as_written && self.name == name)
            || self.aliases.iter().any(|alias| alias == name)
    }
}

fn fields(from: &Fields, to: &Fields, path: &Path, found: &mut Vec<Fit>) {
    let written = || from.fields.iter().filter(|field| field.written != Writing::Never);
    for reader in to.fields.iter().filter(|field| field.read != Reading::Never) {
        let writer = written().find(|writer| reader.reads(&writer.name));
        let has_default = reader.read == Reading::Defaulted;
        let at = |kind| Fit { path: path.then(&reader.name), kind };
        match writer {
            None if has_default => found.push(at(Kind::Defaulted)),
            None => found.push(at(Kind::Missing { always: true })),
            Some(writer) => {
                if writer.written == Writing::Sometimes && !has_default {
                    found.push(at(Kind::Missing { always: false }));
                }
                let path = path.then(&writer.name);
                if reader.name != writer.name {
                    let kind = Kind::Renamed { to: reader.name.clone() };
                    found.push(Fit { path: path.clone(), kind });
                }
                form(&writer.form, &reader.form, &path, found);
            }
        }
    }
    let unread = |writer: &&Field| {
        !to.fields.iter().any(|reader| reader.read != Reading::Never && reader.reads(&writer.name))
    };
    for writer in written().filter(unread) {
        let path = path.then(&writer.name);
        // A map that is flattened takes what is left.
        let rest = to.flattened.iter().find_map(|flattened| match flattened {
            Form::Map(_, value) => Some(value),
            _ => None,
        });
        match rest {
            Some(rest) => form(&writer.form, rest, &path, found),
            None if to.closed => found.push(Fit { path, kind: Kind::Refused }),
            None => found.push(Fit { path, kind: Kind::Ignored }),
        }
    }
    if from.flattened != to.flattened {
        let whole = |fields: &Fields| Form::Struct(fields.clone());
        let kind = Kind::Unjudged { from: whole(from), to: whole(to) };
        found.push(Fit { path: path.clone(), kind });
    }
}

impl Variant {
    fn reads(&self, name: &str) -> bool {
        self.read
            && ((self.read_as_written && self.name == name)
                || self.aliases.iter().any(|alias| alias == name))
    }
}

fn variants(from: &Variants, to: &Variants, path: &Path, found: &mut Vec<Fit>) {
    let mut push = |kind| found.push(Fit { path: path.clone(), kind });
    if from.tagging != to.tagging {
        return push(Kind::Tagging);
    }
    let untagged = |variants: &Variants| {
        variants.tagging == Tagging::Untagged || variants.variants.iter().any(|v| v.untagged)
    };
    if untagged(from) || untagged(to) {
        let whole = |variants: &Variants| Form::Enum(variants.clone());
        return push(Kind::Unjudged { from: whole(from), to: whole(to) });
    }
    let written = || from.variants.iter().filter(|variant| variant.written != Writing::Never);
    for reader in to.variants.iter().filter(|variant| variant.read) {
        if !written().any(|writer| reader.reads(&writer.name)) {
            push(Kind::MoreVariants { name: reader.name.clone() });
        }
    }
    for writer in written() {
        let named = to.variants.iter().find(|reader| reader.reads(&writer.name));
        let other = || to.variants.iter().find(|reader| reader.other);
        match named {
            Some(reader) => content(&from.tagging, writer, reader, path, found),
            None if other().is_some() => {
                found.push(Fit { path: path.then(&writer.name), kind: Kind::Ignored });
            }
            None => {
                let kind = Kind::NoVariant { name: writer.name.clone() };
                found.push(Fit { path: path.clone(), kind });
            }
        }
    }
}

fn content(
    tagging: &Tagging,
    writer: &Variant,
    reader: &Variant,
    path: &Path,
    found: &mut Vec<Fit>,
) {
    let path = path.then(&writer.name);
    // Beside its tag, a bare name is a struct without fields.
    let none = match tagging {
        Tagging::Internal(_) => {
            Form::Struct(Fields { fields: Vec::new(), flattened: Vec::new(), closed: false })
        }
        _ => Form::Unit,
    };
    match (&writer.form, &reader.form) {
        (None, None) => {}
        (Some(from), Some(to)) => form(from, to, &path, found),
        (from, to) => {
            let form_of = |form: &Option<Form>| form.clone().unwrap_or_else(|| none.clone());
            let (from, to) = (form_of(from), form_of(to));
            match tagging {
                Tagging::Internal(_) => form(&from, &to, &path, found),
                _ => found.push(Fit { path, kind: Kind::Form { from, to } }),
            }
        }
    }
}
