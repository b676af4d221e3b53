//! Forms as text. The text says everything that the form does, since the digest is made of it; it must never change for a
//! form that is stored somewhere.

use std::fmt::{self, Display, Formatter};

use super::{Field, Fields, Form, Reading, Tagging, Variant, Variants, Writing};

impl Display for Form {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::I8 => f.write_str("i8"),
            Self::I16 => f.write_str("i16"),
            Self::I32 => f.write_str("i32"),
            Self::I64 => f.write_str("i64"),
            Self::I128 => f.write_str("i128"),
            Self::U8 => f.write_str("u8"),
            Self::U16 => f.write_str("u16"),
            Self::U32 => f.write_str("u32"),
            Self::U64 => f.write_str("u64"),
            Self::U128 => f.write_str("u128"),
            Self::F32 => f.write_str("f32"),
            Self::F64 => f.write_str("f64"),
            Self::Char => f.write_str("char"),
            Self::Text => f.write_str("text"),
            Self::Bytes => f.write_str("bytes"),
            Self::Uuid => f.write_str("uuid"),
            Self::Unit => f.write_str("nothing"),
            Self::Any => f.write_str("anything"),
            Self::Optional(form) => write!(f, "{form}?"),
            Self::List(form) => write!(f, "[{form}]"),
            Self::Array(form, length) => write!(f, "[{form}; {length}]"),
            Self::Map(key, value) => write!(f, "[{key} => {value}]"),
            Self::Tuple(forms) => {
                f.write_str("(")?;
                separated(f, ", ", forms.iter())?;
                f.write_str(")")
            }
            Self::Newtype(form) => write!(f, "new({form})"),
            Self::Struct(fields) => fields.fmt(f),
            Self::Enum(variants) => variants.fmt(f),
            Self::Sealed(form) => write!(f, "sealed({form})"),
            Self::Around(levels) => write!(f, "around({levels})"),
            Self::Opaque(name) => write!(f, "opaque({name:?})"),
            Self::Unseen(name) => write!(f, "unseen({name:?})"),
        }
    }
}

impl Display for Fields {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.fields.is_empty() && self.flattened.is_empty() && !self.closed {
            return f.write_str("{}");
        }
        f.write_str("{ ")?;
        separated(f, ", ", self.fields.iter())?;
        let mut first = self.fields.is_empty();
        for form in &self.flattened {
            write!(f, "{}..{form}", if first { "" } else { ", " })?;
            first = false;
        }
        if self.closed {
            write!(f, "{}no other", if first { "" } else { ", " })?;
        }
        f.write_str(" }")
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, form, written, read, read_as_written, aliases } = self;
        write!(f, "{}: {form}", Name(name))?;
        f.write_str(match written {
            Writing::Always => "",
            Writing::Sometimes => " written sometimes",
            Writing::Never => " never written",
        })?;
        f.write_str(match read {
            Reading::Required => "",
            Reading::Defaulted => " = default",
            Reading::Never => " never read",
        })?;
        names(f, *read_as_written, aliases)
    }
}

impl Display for Variants {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("<")?;
        match &self.tagging {
            Tagging::External => {}
            Tagging::Internal(tag) => write!(f, "{}: ", Name(tag))?,
            Tagging::Adjacent { tag, content } => {
                write!(f, "{}, {}: ", Name(tag), Name(content))?;
            }
            Tagging::Untagged => f.write_str("untagged: ")?,
        }
        separated(f, " | ", self.variants.iter())?;
        f.write_str(">")
    }
}

impl Display for Variant {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, form, written, read, read_as_written, aliases, other, untagged } = self;
        Name(name).fmt(f)?;
        if let Some(form) = form {
            write!(f, " {form}")?;
        }
        for (is, text) in [
            (*written != Writing::Always, " never written"),
            (!read, " never read"),
            (*other, " or any other"),
            (*untagged, " untagged"),
        ] {
            f.write_str(if is { text } else { "" })?;
        }
        names(f, *read_as_written, aliases)
    }
}

/// The names that a field or a variant is read under beside the one that it is written under.
fn names(f: &mut Formatter<'_>, read_as_written: bool, aliases: &[String]) -> fmt::Result {
    if !aliases.is_empty() {
        f.write_str(if read_as_written { " or read as " } else { " read as " })?;
        separated(f, " or ", aliases.iter().map(|name| Name(name)))?;
    } else if !read_as_written {
        f.write_str(" read under no name")?;
    }
    Ok(())
}

fn separated(
    f: &mut Formatter<'_>,
    separator: &str,
    items: impl Iterator<Item = impl Display>,
) -> fmt::Result {
    for (place, item) in items.enumerate() {
        if place > 0 {
            f.write_str(separator)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

/// A name, in quotes if it could be taken for something else.
struct Name<'a>(&'a str);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if !self.0.is_empty() && self.0 != "untagged" && self.0.chars().all(plain) {
            f.write_str(self.0)
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}
