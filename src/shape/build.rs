//! Putting forms together: what the implementations of [`Shape`](super::Shape) call.

use std::any::TypeId;

use super::{Field, Fields, Form, Reading, Tagging, Variant, Variants, Writing};

/// The types that are being described, from the outermost inwards: so that one that has itself as a part comes to an end.
#[derive(Debug, Default)]
pub struct Describing {
    types: Vec<TypeId>,
}

impl Describing {
    /// Describes `T` with `form`, which calls the parts' [`Shape::form`](super::Shape::form). Within itself `T` is
    /// [`Form::Around`].
    pub fn within<T: ?Sized + 'static>(&mut self, form: impl FnOnce(&mut Self) -> Form) -> Form {
        let this = TypeId::of::<T>();
        if let Some(around) = self.types.iter().rev().position(|outer| *outer == this) {
            return Form::Around(around + 1);
        }
        self.types.push(this);
        let form = form(self);
        self.types.pop();
        form
    }
}

/// The fields of a struct, one after the other.
#[derive(Debug)]
pub struct StructForm {
    fields: Vec<Field>,
    flattened: Vec<Form>,
    closed: bool,
}

impl Default for StructForm {
    fn default() -> Self {
        Self::new()
    }
}

impl StructForm {
    /// No field yet.
    pub fn new() -> Self {
        Self { fields: Vec::new(), flattened: Vec::new(), closed: false }
    }

    /// Fields that are not among them are refused.
    pub fn closed(mut self) -> Self {
        self.closed = true;
        self
    }

    /// Adds a field.
    pub fn field(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }

    /// Adds the fields of `form`; what is no struct stays as it is.
    pub fn flatten(mut self, form: Form) -> Self {
        match form {
            Form::Struct(inner) => {
                self.fields.extend(inner.fields);
                self.flattened.extend(inner.flattened);
            }
            // Nothing is written for none, and what is missing makes it none.
            Form::Optional(inner) if matches!(*inner, Form::Struct(_)) => {
                if let Form::Struct(inner) = *inner {
                    self.fields.extend(inner.fields.into_iter().map(|field| Field {
                        written: match field.written {
                            Writing::Always => Writing::Sometimes,
                            written => written,
                        },
                        read: match field.read {
                            Reading::Required => Reading::Defaulted,
                            read => read,
                        },
                        ..field
                    }));
                    self.flattened.extend(inner.flattened);
                }
            }
            Form::Unit => {}
            form => self.flattened.push(form),
        }
        self
    }

    /// The form of them all.
    pub fn done(mut self) -> Form {
        self.fields.sort_by(|a, b| a.name.cmp(&b.name));
        let Self { fields, flattened, closed } = self;
        Form::Struct(Fields { fields, flattened, closed })
    }
}

impl Field {
    /// A field that is always written and must be there; one that is optional may be missing.
    pub fn new(name: &str, form: Form) -> Self {
        let read = match form {
            Form::Optional(_) => Reading::Defaulted,
            _ => Reading::Required,
        };
        Self {
            name: name.to_owned(),
            form,
            written: Writing::Always,
            read,
            read_as_written: true,
            aliases: Vec::new(),
        }
    }

    /// It is written so.
    #[must_use]
    pub fn written(mut self, written: Writing) -> Self {
        self.written = written;
        self
    }

    /// It is read so.
    #[must_use]
    pub fn read(mut self, read: Reading) -> Self {
        self.read = read;
        self
    }

    /// It is read under these names, which need not hold the one that it is written under.
    #[must_use]
    pub fn names(mut self, names: &[&str]) -> Self {
        (self.read_as_written, self.aliases) = split(&self.name, names);
        self
    }
}

impl Variant {
    /// A variant that is written and read under its name.
    pub fn new(name: &str, form: Option<Form>) -> Self {
        Self {
            name: name.to_owned(),
            form,
            written: Writing::Always,
            read: true,
            read_as_written: true,
            aliases: Vec::new(),
            other: false,
            untagged: false,
        }
    }

    /// It is never written.
    #[must_use]
    pub fn not_written(mut self) -> Self {
        self.written = Writing::Never;
        self
    }

    /// It is never read.
    #[must_use]
    pub fn not_read(mut self) -> Self {
        self.read = false;
        self
    }

    /// It is read under these names, which need not hold the one that it is written under.
    #[must_use]
    pub fn names(mut self, names: &[&str]) -> Self {
        (self.read_as_written, self.aliases) = split(&self.name, names);
        self
    }

    /// Names that are no other variant's are read as this one.
    #[must_use]
    pub fn other(mut self) -> Self {
        self.other = true;
        self
    }

    /// It alone is not tagged.
    #[must_use]
    pub fn untagged(mut self) -> Self {
        self.untagged = true;
        self
    }
}

/// Whether `written` is among the names that are read, and the others.
fn split(written: &str, names: &[&str]) -> (bool, Vec<String>) {
    let mut others: Vec<String> =
        names.iter().filter(|name| **name != written).map(|&name| name.to_owned()).collect();
    others.sort_unstable();
    others.dedup();
    (names.contains(&written), others)
}

/// The variants of an enum, one after the other.
#[derive(Debug)]
pub struct EnumForm {
    tagging: Tagging,
    variants: Vec<Variant>,
}

impl EnumForm {
    /// No variant yet.
    pub fn new(tagging: Tagging) -> Self {
        Self { tagging, variants: Vec::new() }
    }

    /// Adds a variant.
    pub fn variant(mut self, variant: Variant) -> Self {
        self.variants.push(variant);
        self
    }

    /// The form of them all.
    pub fn done(mut self) -> Form {
        let Self { tagging, variants } = &mut self;
        if *tagging != Tagging::Untagged {
            // The sort is stable: those that are not tagged are tried in the order in which they are written down.
            variants.sort_by(|a, b| match (a.untagged, b.untagged) {
                (false, false) => a.name.cmp(&b.name),
                (a, b) => a.cmp(&b),
            });
        }
        Form::Enum(Variants { tagging: self.tagging, variants: self.variants })
    }
}

impl Form {
    /// The form of a struct of one unnamed field.
    pub fn newtype(inner: Self) -> Self {
        match inner {
            Self::Optional(_) => Self::Newtype(Box::new(inner)),
            inner => inner,
        }
    }

    /// The form of an enum with the name of its variant around the content.
    pub(super) fn externally_tagged(variants: Vec<Variant>) -> Self {
        variants.into_iter().fold(EnumForm::new(Tagging::External), EnumForm::variant).done()
    }

    /// The form of a struct of these fields.
    pub(crate) fn fields(fields: Vec<Field>) -> Self {
        fields.into_iter().fold(StructForm::new(), StructForm::field).done()
    }
}
