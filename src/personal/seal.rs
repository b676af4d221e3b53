//! How a value is sealed, and how what is sealed looks in a payload.
//!
//! A sealed value is one byte that names the form, a random nonce of 24 bytes, and the value as JSON under
//! XChaCha20-Poly1305 (<https://datatracker.ietf.org/doc/html/draft-irtf-cfrg-xchacha>). A nonce of that length may be drawn at
//! random for every value that a key will ever seal. The subject is bound to it as associated data: under another subject it
//! cannot be opened.

use base64::Engine;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::{AeadInPlace, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use serde::de::{DeserializeOwned, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

/// The key of one subject.
pub(super) type Secret = Zeroizing<[u8; SECRET]>;

/// How many bytes a key has.
pub(super) const SECRET: usize = 32;

const FORM: u8 = 1;
const NONCE: usize = 24;
const HEAD: usize = 1 + NONCE;
const TAG: usize = 16;

/// Stands before the subject in the associated data, so that a key used by something else opens nothing here.
const DOMAIN: &[u8] = b"tidings.personal.1:";

/// Where the nonce comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nonces {
    Random,
    /// From the value itself, so that equal values look equal when they are sealed: for tests that compare payloads.
    #[cfg(feature = "testing")]
    Derived,
}

/// Methods of a visitor that refuse what is not sealed. Those that a visitor has by default quote it, and so do formats when they
/// are asked for anything but what is there.
macro_rules! refuse_scalars {
    ($($visit:ident($scalar:ty)),+) => {$(
        fn $visit<E: de::Error>(self, _: $scalar) -> Result<Self::Value, E> {
            $crate::personal::seal::unsealed(&self)
        }
    )+};
}
pub(super) use refuse_scalars;

/// Why a value was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// It is not of this form.
    Form,
    /// It was changed, or sealed for another subject, or with another key.
    Changed,
    /// What was sealed is no value of the type. Nothing more is said: the reason would quote it.
    Shape,
}

/// Seals `value` for `subject`. None if it has no form in JSON; why is not said, since the reason might quote it.
pub(super) fn seal<T: Serialize>(
    secret: &Secret,
    subject: &str,
    nonces: Nonces,
    value: &T,
) -> Option<Vec<u8>> {
    // What a growing buffer leaves behind cannot be wiped, so it rarely grows.
    let mut sealed = Vec::with_capacity(256);
    sealed.push(FORM);
    sealed.extend([0; NONCE]);
    if serde_json::to_writer(&mut sealed, value).is_err() {
        zeroize::Zeroize::zeroize(&mut sealed);
        return None;
    }
    let (head, text) = sealed.split_at_mut(HEAD);
    let (_, nonce) = head.split_at_mut(1);
    match nonces {
        Nonces::Random => rand::Rng::fill_bytes(&mut rand::rng(), nonce),
        #[cfg(feature = "testing")]
        Nonces::Derived => {
            let derived = uuid::Uuid::new_v5(&uuid::Uuid::nil(), text);
            nonce.iter_mut().zip(derived.as_bytes()).for_each(|(byte, from)| *byte = *from);
        }
    }
    let cipher = XChaCha20Poly1305::new((&**secret).into());
    let tag = cipher.encrypt_in_place_detached(XNonce::from_slice(nonce), &bound(subject), text);
    sealed.extend(tag.ok()?);
    Some(sealed)
}

/// Opens what was sealed for `subject`.
pub(super) fn open<T: DeserializeOwned>(
    secret: &Secret,
    subject: &str,
    sealed: &[u8],
) -> Result<T, Closed> {
    let (form, rest) = sealed.split_first().ok_or(Closed::Form)?;
    let (nonce, rest) = rest.split_at_checked(NONCE).ok_or(Closed::Form)?;
    let length = rest.len().checked_sub(TAG).ok_or(Closed::Form)?;
    if *form != FORM {
        return Err(Closed::Form);
    }
    let (text, tag) = rest.split_at(length);
    let mut text = Zeroizing::new(text.to_vec());
    let cipher = XChaCha20Poly1305::new((&**secret).into());
    let (nonce, tag) = (XNonce::from_slice(nonce), Tag::from_slice(tag));
    cipher
        .decrypt_in_place_detached(nonce, &bound(subject), &mut text, tag)
        .map_err(|_| Closed::Changed)?;
    serde_json::from_slice(&text).map_err(|_| Closed::Shape)
}

fn bound(subject: &str) -> Vec<u8> {
    [DOMAIN, subject.as_bytes()].concat()
}

/// A sealed value in a payload: text in formats that people read, bytes in others.
pub(super) struct Text<B>(pub(super) B);

impl<B: AsRef<[u8]>> Serialize for Text<B> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.as_ref();
        match serializer.is_human_readable() {
            true => serializer.collect_str(&Base64Display::new(bytes, &STANDARD)),
            false => serializer.serialize_bytes(bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Text<Vec<u8>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<Vec<u8>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a sealed value")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        STANDARD.decode(text).map(Text).or_else(|_| unsealed(&self))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Text(bytes.to_vec()))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
        Ok(Text(bytes))
    }

    refuse_scalars!(
        visit_bool(bool),
        visit_i64(i64),
        visit_i128(i128),
        visit_u64(u64),
        visit_u128(u128),
        visit_f64(f64)
    );
}

/// Refuses what stands in the place of a sealed value without quoting it: it may be what should have been sealed.
pub(super) fn unsealed<T, E: de::Error>(expected: &dyn de::Expected) -> Result<T, E> {
    Err(E::invalid_type(Unexpected::Other("a value that is not sealed"), expected))
}
