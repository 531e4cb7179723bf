//! What a catalog is made of: an entry's name and the fingerprint of its content.

use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The longest entry name, in bytes. A ConfigMap key has at most 253; a repository path with a version may be longer.
const LONGEST: usize = 512;

/// Up to here a fingerprint is the bytes themselves: comparing them costs less than hashing them, and what is kept of
/// an entry stays bounded.
const PLAIN: usize = 256;

/// The identity of an entry as people write it: `name@version`, or `name` where the format has no version.
///
/// Two entries are the same iff these texts are equal; versions are text, so `1.10` is not `1.1`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryName(Box<str>);

/// A version as the catalog writes it: text, never a number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Version(Box<str>);

const HEX: &[u8; 16] = b"0123456789abcdef";

/// What makes an entry the model that it is: equal iff the fingerprinted fields are.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint(Fields);

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Fields {
    /// The fields, each with its length.
    Plain(Box<[u8]>),
    /// The same, hashed.
    Hashed(Digest),
}

/// A SHA-256.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest([u8; 32]);

/// Why a text is no entry name or version.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum InvalidName {
    /// Nothing is there.
    #[error("is empty")]
    Empty,
    /// It cannot be told from another one when people read or type it.
    #[error("has leading or trailing white space, or a character that is not visible")]
    Unprintable,
    /// It is longer than any real name.
    #[error("is longer than {LONGEST} bytes")]
    TooLong,
}

/// A text that is no SHA-256 in hexadecimal.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("has a digest that is not 64 hexadecimal digits")]
pub struct InvalidDigest;

// === impl EntryName ===

impl EntryName {
    /// Takes the text of an identity, as in `uses: models:extraction@v2`.
    ///
    /// # Errors
    /// [`InvalidName`] if it is empty, unprintable or too long.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        printable(text)?;
        Ok(Self(text.into()))
    }

    /// Joins a name and its version.
    ///
    /// # Errors
    /// [`InvalidName`] if the two together are too long.
    pub fn versioned(name: &Self, version: &Version) -> Result<Self, InvalidName> {
        Self::new(&format!("{name}@{}", version.0))
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Version ===

impl Version {
    /// Takes a version as the catalog writes it.
    ///
    /// # Errors
    /// [`InvalidName`] if it is empty, unprintable or too long.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        printable(text)?;
        Ok(Self(text.into()))
    }
}

// === impl Fingerprint ===

impl Fingerprint {
    /// Takes the fields so that where one ends and the next begins matters.
    pub fn of_parts<const N: usize>(parts: [&[u8]; N]) -> Self {
        let len: usize = parts.iter().map(|part| size_of::<u64>() + part.len()).sum();
        if len > PLAIN {
            return Self(Fields::Hashed(Digest::of_parts(parts)));
        }
        let mut bytes = Vec::with_capacity(len);
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        Self(Fields::Plain(bytes.into()))
    }
}

// === impl Digest ===

impl Digest {
    /// Hashes parts so that where one ends and the next begins matters.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// The first `len` hexadecimal digits, at most 64.
    pub fn short(&self, len: usize) -> String {
        let mut text = self.to_string();
        text.truncate(len);
        text
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    /// Reads what [`Digest`] writes.
    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let digit = |byte: u8| HEX.iter().position(|digit| *digit == byte).and_then(|at| u8::try_from(at).ok());
        let (mut bytes, mut digits) = ([0; 32], text.bytes().map(digit));
        for byte in &mut bytes {
            let mut next = || digits.next().flatten().ok_or(InvalidDigest);
            *byte = next()? << 4 | next()?;
        }
        if digits.next().is_none() { Ok(Self(bytes)) } else { Err(InvalidDigest) }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each decision says some digests: a `write!` a byte took 1 µs each.
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
        }
        f.write_str(str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short(12))
    }
}

// === helpers ===

fn printable(text: &str) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty);
    }
    if text.len() > LONGEST {
        return Err(InvalidName::TooLong);
    }
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain && (text.trim() != text || text.chars().any(is_invisible)) {
        return Err(InvalidName::Unprintable);
    }
    Ok(())
}

/// Control characters, all white space but the plain space, and what Unicode shows as nothing or as another order.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_text() {
        for text in ["a", "extraction@v2", "org/model:8b", "Llama 3", "modèle-é", "1.10", "a@b@c"] {
            assert_eq!(EntryName::new(text).unwrap().as_str(), text);
            assert_eq!(EntryName::new(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_text_that_people_cannot_tell_from_another_is_no_name() {
        let unprintable = [" a", "a ", "\u{a0}a", "a\nb", "a\tb", "a\0", "a\u{7f}", "a\u{85}b", " "];
        let invisible = ["a\u{200b}", "a\u{202e}b", "a\u{2028}b", "\u{feff}a", "a\u{a0}b", "a\u{ad}"];
        for text in unprintable.into_iter().chain(invisible) {
            assert_eq!(EntryName::new(text), Err(InvalidName::Unprintable), "{text:?}");
            assert_eq!(Version::new(text), Err(InvalidName::Unprintable), "{text:?}");
        }
    }

    #[test]
    fn a_name_is_neither_empty_nor_longer_than_any_real_one() {
        assert_eq!(EntryName::new(""), Err(InvalidName::Empty));
        assert_eq!(Version::new(""), Err(InvalidName::Empty));
        assert!(EntryName::new(&"a".repeat(LONGEST)).is_ok());
        assert_eq!(EntryName::new(&"a".repeat(LONGEST + 1)), Err(InvalidName::TooLong));
    }

    #[test]
    fn a_version_makes_another_identity_by_its_text() {
        let name = EntryName::new("extraction").unwrap();
        let versioned = |text| EntryName::versioned(&name, &Version::new(text).unwrap()).unwrap();
        assert_eq!(versioned("1.10").as_str(), "extraction@1.10");
        assert_ne!(versioned("1.10"), versioned("1.1"));
    }

    #[test]
    fn name_and_version_together_have_the_same_limit() {
        let name = EntryName::new(&"a".repeat(LONGEST - 2)).unwrap();
        let versioned = |text| EntryName::versioned(&name, &Version::new(text).unwrap());
        assert!(versioned("1").is_ok());
        assert_eq!(versioned("12"), Err(InvalidName::TooLong));
    }

    #[test]
    fn a_digest_depends_on_where_its_parts_end() {
        let of = |parts: &[&str]| Digest::of_parts(parts.iter().map(|part| part.as_bytes()));
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab"]), of(&["ab", ""]));
        assert_ne!(of(&[]), of(&[""]));
    }

    #[test]
    fn a_fingerprint_depends_on_every_byte_whether_short_or_long() {
        for len in [0, 1, PLAIN - 17, PLAIN - 16, PLAIN - 15, 4 * PLAIN] {
            let text = "a".repeat(len);
            let of = |last: &str| Fingerprint::of_parts([text.as_bytes(), last.as_bytes()]);
            assert_eq!(of("b"), of("b"), "{len}");
            assert_ne!(of("b"), of("c"), "{len}");
            assert_ne!(of("b"), of("bb"), "{len}");
            assert_ne!(of("ab"), Fingerprint::of_parts([format!("{text}a").as_bytes(), b"b"]), "{len}");
        }
    }

    #[test]
    fn a_digest_is_a_sha_256_in_hexadecimal() {
        let nothing = Digest::of_parts([]);
        assert!(nothing.to_string().starts_with("e3b0c44298fc1c149afbf4c8996fb924"));
        assert_eq!(nothing.to_string().len(), 64);
        assert_eq!(nothing.short(4), "e3b0");
        assert_eq!(nothing.short(100).len(), 64);
        assert_eq!(format!("{nothing:?}"), "Digest(e3b0c44298fc)");
        let text = nothing.to_string();
        assert_eq!(text.parse(), Ok(nothing));
        for wrong in ["", &text[1..], &text.replace('e', "g"), &format!("{text}0"), &text.to_uppercase()] {
            assert_eq!(wrong.parse::<Digest>(), Err(InvalidDigest), "{wrong}");
        }
    }
}
