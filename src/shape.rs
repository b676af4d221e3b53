//! Shapes: what serde writes of a type, described without a value of it.
//!
//! A [`Form`] is such a description. Types that have one implement [`Shape`]; `#[derive(Shape)]` writes it from the fields and
//! their serde attributes. Two types of equal forms write, and read, the same. The schema lock keeps the form of each event,
//! and a snapshot the [digest](Form::digest) of its state's.
//!
//! # What a form leaves out
//! The names of Rust types, and the order of named fields and of variants that have a name: no format of the log depends on
//! them. What a value may be beyond its type (a text that must be an address) is not in the form either.
//!
//! # What cannot be described
//! A type with hand-written serde implementations, or one of another crate. It is [opaque](Form::Opaque): a name, which stands
//! for what cannot be seen. Two opaque forms of the same name count as equal.

mod build;
#[cfg(feature = "testing")]
pub(crate) mod fit;
mod impls;
mod text;
mod value;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::build::Describing;
#[doc(hidden)]
pub use self::build::{EnumForm, StructForm};

/// A type whose [`Form`] is known.
///
/// Derive it: the serde attributes of the type are honoured. Fields are described by their own `Shape`; one whose type has none is
/// marked with `#[shape(opaque)]`. A type that implements serde's traits by hand is marked as a whole.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings::{Form, Shape};
///
/// #[derive(Shape, Serialize, Deserialize)]
/// #[serde(rename_all = "camelCase")]
/// struct Price {
///     whole_cents: i64,
///     #[serde(default)]
///     note: Option<String>,
/// }
///
/// assert_eq!(Form::of::<Price>().to_string(), "{ note: text? = default, wholeCents: i64 }");
/// ```
#[diagnostic::on_unimplemented(
    message = "the shape of `{Self}` is not known",
    label = "no `Shape`",
    note = "add `#[derive(Shape)]` to `{Self}`, or `#[shape(opaque)]` to the field if the type is of another crate"
)]
pub trait Shape: 'static {
    /// Describes the type; [`Form::of`] calls it.
    fn form(describing: &mut Describing) -> Form;
}

/// What serde writes of a type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Form {
    /// True or false.
    Bool,
    /// A whole number of one byte with a sign.
    I8,
    /// A whole number of two bytes with a sign.
    I16,
    /// A whole number of four bytes with a sign.
    I32,
    /// A whole number of eight bytes with a sign; also `isize`.
    I64,
    /// A whole number of sixteen bytes with a sign.
    I128,
    /// A whole number of one byte.
    U8,
    /// A whole number of two bytes.
    U16,
    /// A whole number of four bytes.
    U32,
    /// A whole number of eight bytes; also `usize`.
    U64,
    /// A whole number of sixteen bytes.
    U128,
    /// A floating-point number of four bytes.
    F32,
    /// A floating-point number of eight bytes.
    F64,
    /// A text of one character.
    Char,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// A UUID: text in JSON, sixteen bytes in other formats.
    Uuid,
    /// Nothing.
    Unit,
    /// Anything: a `serde_json::Value`.
    Any,
    /// A value or nothing.
    Optional(Box<Form>),
    /// Any number of values of one form.
    List(Box<Form>),
    /// So many values of one form.
    Array(Box<Form>, usize),
    /// Keys with values.
    Map(Box<Form>, Box<Form>),
    /// Values of a form each.
    Tuple(Vec<Form>),
    /// A struct of one unnamed field that is optional. Other structs of one unnamed field are what the field is; this one
    /// cannot be left out where the field could.
    Newtype(Box<Form>),
    /// Named fields.
    Struct(Fields),
    /// One of several.
    Enum(Variants),
    /// A value of a form that is sealed with a key: what is written of it is text.
    Sealed(Box<Form>),
    /// One of the forms around this one, which has itself as a part: 1 is the nearest that has a derived [`Shape`].
    Around(usize),
    /// A type that is not described, by its name.
    Opaque(String),
    /// A type that has no [`Shape`], by its name, in an event.
    Unseen(String),
}

/// The named fields of a [`Form`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fields {
    /// In the order of their names.
    pub fields: Vec<Field>,
    /// What is flattened into them and is no struct itself: a map, an enum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flattened: Vec<Form>,
    /// Whether a field that is not among them is refused when it is read.
    #[serde(default, skip_serializing_if = "is_false")]
    pub closed: bool,
}

/// One named field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name as it is written.
    pub name: String,
    /// The form of its value.
    pub form: Form,
    /// Whether it is written.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub written: Writing,
    /// Whether it is read.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub read: Reading,
    /// Whether it is read under the name that it is written under; not if serde is told two different names.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub read_as_written: bool,
    /// Further names that it is read under.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// Whether a field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writing {
    /// With every value.
    #[default]
    Always,
    /// Unless a condition says otherwise.
    Sometimes,
    /// Never: it is only read.
    Never,
}

/// Whether a field is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// It must be there.
    #[default]
    Required,
    /// If it is not there, it has a default.
    #[serde(rename = "default")]
    Defaulted,
    /// It is not looked at.
    Never,
}

/// The variants of a [`Form`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variants {
    /// How a value says which variant it is.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub tagging: Tagging,
    /// In the order of their names; those that are not tagged stand last, in the order in which they are tried.
    pub variants: Vec<Variant>,
}

/// How a value says which variant it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tagging {
    /// The variant's name around its content.
    #[default]
    External,
    /// A field of this name within the content.
    Internal(String),
    /// A field with the variant's name beside one with its content.
    Adjacent {
        /// The name of the first.
        tag: String,
        /// The name of the second.
        content: String,
    },
    /// Not at all: the first variant that fits is taken.
    Untagged,
}

/// One variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// Its name as it is written.
    pub name: String,
    /// Its content; nothing if it is a bare name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
    /// Whether it is written.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub written: Writing,
    /// Whether it is read: not if it is `skip_deserializing`.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub read: bool,
    /// Whether it is read under the name that it is written under.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub read_as_written: bool,
    /// Further names that it is read under.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Whether every name that is no other variant's is read as this one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub other: bool,
    /// Whether it alone is not tagged.
    #[serde(default, skip_serializing_if = "is_false")]
    pub untagged: bool,
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Form {
    /// The form of `T`.
    pub fn of<T: Shape + ?Sized>() -> Self {
        T::form(&mut Describing::default())
    }

    /// Sixteen bytes that stand for the form: equal forms have the same on every platform and in every build, different ones
    /// have different ones, as far as a hash can tell. It is the UUIDv5 of the form's text.
    pub fn digest(&self) -> [u8; 16] {
        /// Where the texts of forms live; it must never change.
        const FORMS: Uuid = Uuid::from_u128(0x9d0e_2a8b_64f3_4c1f_b6a7_31c5_0e9f_7d24);
        Uuid::new_v5(&FORMS, self.to_string().as_bytes()).into_bytes()
    }

    /// The names of the types in it that have no [`Shape`], each with the path of fields that leads there.
    pub fn unseen(&self) -> Vec<(String, &str)> {
        let mut found = Vec::new();
        self.visit("", &mut |path, form| {
            if let Self::Unseen(name) = form {
                found.push((path.to_owned(), name.as_str()));
            }
        });
        found
    }

    fn visit<'a>(&'a self, path: &str, visitor: &mut dyn FnMut(&str, &'a Self)) {
        visitor(path, self);
        let below = |name: &str| match path {
            "" => name.to_owned(),
            _ => format!("{path}.{name}"),
        };
        match self {
            Self::Optional(form)
            | Self::List(form)
            | Self::Array(form, _)
            | Self::Newtype(form)
            | Self::Sealed(form) => {
                form.visit(path, visitor);
            }
            Self::Map(key, value) => {
                key.visit(path, visitor);
                value.visit(path, visitor);
            }
            Self::Tuple(forms) => {
                for (place, form) in forms.iter().enumerate() {
                    form.visit(&below(&place.to_string()), visitor);
                }
            }
            Self::Struct(Fields { fields, flattened, .. }) => {
                for field in fields {
                    field.form.visit(&below(&field.name), visitor);
                }
                for form in flattened {
                    form.visit(path, visitor);
                }
            }
            Self::Enum(Variants { variants, .. }) => {
                for variant in variants {
                    if let Some(form) = &variant.form {
                        form.visit(&below(&variant.name), visitor);
                    }
                }
            }
            _ => {}
        }
    }
}
