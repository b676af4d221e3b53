//! Whether a JSON value is of a form.

use serde_json::Value;

use super::{Fields, Form, Tagging, Variant, Variants, Writing};

impl Form {
    /// Checks that serde could have written `value` for a type of this form. What is not described admits every value.
    ///
    /// # Errors
    /// Where the value differs, as the fields that lead there, and what was expected.
    pub fn admits(&self, value: &Value) -> Result<(), String> {
        check(self, value).map_err(|Differs { mut path, expected }| {
            path.reverse();
            match path.is_empty() {
                true => expected,
                false => format!("{}: {expected}", path.join(".")),
            }
        })
    }
}

struct Differs {
    /// From the innermost outwards.
    path: Vec<String>,
    expected: String,
}

impl Differs {
    fn below(mut self, name: impl Into<String>) -> Self {
        self.path.push(name.into());
        self
    }
}

fn check(form: &Form, value: &Value) -> Result<(), Differs> {
    let is = match form {
        Form::Bool => value.is_boolean(),
        Form::I8 => fits::<i8>(value),
        Form::I16 => fits::<i16>(value),
        Form::I32 => fits::<i32>(value),
        Form::I64 => fits::<i64>(value),
        Form::U8 => fits::<u8>(value),
        Form::U16 => fits::<u16>(value),
        Form::U32 => fits::<u32>(value),
        Form::U64 => fits::<u64>(value),
        // A value holds no more than eight bytes of a whole number, and takes larger ones for floating-point numbers.
        Form::I128 | Form::U128 => value.is_number(),
        // What is no number is written as null.
        Form::F32 | Form::F64 => value.is_number() || value.is_null(),
        Form::Char => value.as_str().is_some_and(|text| text.chars().count() == 1),
        Form::Text | Form::Sealed(_) => value.is_string(),
        Form::Bytes => value.as_array().is_some_and(|bytes| bytes.iter().all(fits::<u8>)),
        Form::Uuid => value.as_str().is_some_and(|text| uuid::Uuid::try_parse(text).is_ok()),
        Form::Unit => value.is_null(),
        // Which form is meant counts derived types alone, which a form does not name.
        Form::Any | Form::Opaque(_) | Form::Unseen(_) | Form::Around(_) => true,
        Form::Optional(_) if value.is_null() => true,
        Form::Optional(inner) | Form::Newtype(inner) => return check(inner, value),
        Form::List(item) | Form::Array(item, _) => {
            return match (value.as_array(), form) {
                (Some(values), Form::Array(_, length)) if values.len() != *length => {
                    Err(differs(form, value))
                }
                (Some(values), _) => values.iter().try_for_each(|value| check(item, value)),
                (None, _) => Err(differs(form, value)),
            };
        }
        Form::Map(_, item) => {
            let Some(entries) = value.as_object() else { return Err(differs(form, value)) };
            return entries
                .iter()
                .try_for_each(|(key, value)| check(item, value).map_err(|error| error.below(key)));
        }
        Form::Tuple(forms) => {
            let values = value.as_array().filter(|values| values.len() == forms.len());
            let Some(values) = values else { return Err(differs(form, value)) };
            return forms.iter().zip(values).enumerate().try_for_each(|(place, (form, value))| {
                check(form, value).map_err(|error| error.below(place.to_string()))
            });
        }
        Form::Struct(fields) => return check_fields(form, fields, None, value),
        Form::Enum(variants) => return check_variants(form, variants, value),
    };
    if is { Ok(()) } else { Err(differs(form, value)) }
}

/// `tag` is a field that is there beside those of the form.
fn check_fields(
    form: &Form,
    fields: &Fields,
    tag: Option<&str>,
    value: &Value,
) -> Result<(), Differs> {
    let Some(object) = value.as_object() else { return Err(differs(form, value)) };
    for field in &fields.fields {
        match (object.get(&field.name), field.written) {
            (Some(_), Writing::Never) => {
                return Err(unexpected(&field.name));
            }
            (Some(value), _) => {
                check(&field.form, value).map_err(|error| error.below(&field.name))?;
            }
            (None, Writing::Always) => {
                let expected = format!("expected {}, found nothing", field.form);
                return Err(Differs { path: vec![field.name.clone()], expected });
            }
            (None, _) => {}
        }
    }
    let known =
        |name: &str| tag == Some(name) || fields.fields.iter().any(|field| field.name == name);
    match object.keys().find(|name| !known(name)) {
        // It may be of what is flattened.
        Some(name) if fields.flattened.is_empty() => Err(unexpected(name)),
        _ => Ok(()),
    }
}

fn check_variants(form: &Form, variants: &Variants, value: &Value) -> Result<(), Differs> {
    let mut untagged = variants
        .variants
        .iter()
        .filter(|variant| variant.untagged || variants.tagging == Tagging::Untagged);
    if untagged.any(|variant| check_content(variant, Some(value)).is_ok()) {
        return Ok(());
    }
    let named = |name: Option<&Value>| {
        let name = name.and_then(Value::as_str)?;
        variants.variants.iter().find(|variant| variant.name == name && !variant.untagged)
    };
    match &variants.tagging {
        Tagging::External => {
            let (name, content) = match value
                .as_object()
                .and_then(|object| if object.len() == 1 { object.iter().next() } else { None })
            {
                Some((name, content)) => (Value::from(name.as_str()), Some(content)),
                None => (value.clone(), None),
            };
            let Some(variant) = named(Some(&name)) else { return Err(differs(form, value)) };
            check_content(variant, content).map_err(|error| error.below(&variant.name))
        }
        Tagging::Internal(tag) => {
            let Some(variant) = named(value.get(tag)) else { return Err(differs(form, value)) };
            match &variant.form {
                Some(inner @ Form::Struct(fields)) => check_fields(inner, fields, Some(tag), value),
                // A map, or what is not described: it holds the tag as well.
                _ => Ok(()),
            }
        }
        Tagging::Adjacent { tag, content } => {
            let Some(variant) = named(value.get(tag)) else { return Err(differs(form, value)) };
            check_content(variant, value.get(content)).map_err(|error| error.below(content))
        }
        Tagging::Untagged => Err(differs(form, value)),
    }
}

fn check_content(variant: &Variant, content: Option<&Value>) -> Result<(), Differs> {
    match (&variant.form, content) {
        (Some(form), Some(content)) => check(form, content),
        (None, None) => Ok(()),
        // Without a tag a bare name is written as null.
        (None, Some(content)) if content.is_null() => Ok(()),
        (Some(form), None) => Err(differs(form, &Value::Null)),
        (None, Some(content)) => Err(differs(&Form::Unit, content)),
    }
}

fn fits<T: TryFrom<i128>>(value: &Value) -> bool {
    let whole = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    whole.is_some_and(|whole| T::try_from(whole).is_ok())
}

/// Names the kind of the value: its content may be nobody's business.
fn differs(form: &Form, value: &Value) -> Differs {
    let found = match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "fields",
    };
    Differs { path: Vec::new(), expected: format!("expected {form}, found {found}") }
}

fn unexpected(name: &str) -> Differs {
    Differs { path: vec![name.to_owned()], expected: "expected no such field".to_owned() }
}
