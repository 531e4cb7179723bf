//! Catalogs: what a model ConfigMap lists.
//!
//! ```text
//! Content (data, binaryData) ──Catalog::parse(format)──▶ Catalog: EntryName → {Fingerprint, …}
//!                                                            │ diff(new)
//!                                                            ▼
//!                                     Diff { removed, replaced, added }: sets of EntryName
//! ```
//! An identity may be listed several times (a pool), so each maps to a *set* of fingerprints: the entry is
//! *removed* when none is left, and *replaced* when old and new have no fingerprint in common.
//!
//! What is removed can be kept, and removed later, without touching anything else: [`edit`].

pub mod edit;
mod entry;
mod escape;
mod item;
mod json;
mod keys;
#[cfg(test)]
mod tests;
mod tree;
mod yaml;

pub use entry::{Digest, EntryName, Fingerprint, InvalidDigest, InvalidName, Version};
pub(crate) use escape::{InvalidEscape, unescape};

use crate::object::Content;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// How a model ConfigMap is read; chosen by its label, never guessed.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Format {
    /// `models.json`, or the only key: a JSON array of objects with `name` and `version`.
    Json,
    /// Every key of `data` and `binaryData` is an entry, its value the fingerprint.
    Keys,
    /// `models.yaml`, or the only key: a YAML sequence of mappings with `name` and `version`.
    Yaml,
}

/// The parsed content of a model ConfigMap.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Catalog {
    /// Sorted, each row once; the rows of one name are a pool.
    rows: Vec<Row>,
}

type Row = (EntryName, Fingerprint);

/// What a change of a catalog does to its entries.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Diff {
    /// Had one or more fingerprints, has none.
    pub removed: BTreeSet<EntryName>,
    /// In both, and no fingerprint in common.
    pub replaced: BTreeSet<EntryName>,
    /// Had none, has one or more.
    pub added: BTreeSet<EntryName>,
}

/// Why content is no catalog of its format, and where.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub struct CatalogError {
    /// The ConfigMap key that was read; empty when no single key could be chosen (the place is then 1, 1).
    pub key: String,
    /// Line within the key's value, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What should have stood there, and what stood there instead.
    pub expected: String,
}

/// A label value that names no format; holds the value.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("unknown catalog format {0:?}, expected keys, yaml or json")]
pub struct UnknownFormat(pub String);

// === impl Format ===

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text {
            "json" => Ok(Self::Json),
            "keys" => Ok(Self::Keys),
            "yaml" => Ok(Self::Yaml),
            other => Err(UnknownFormat(other.to_owned())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Keys => "keys",
            Self::Yaml => "yaml",
        })
    }
}

// === impl CatalogError ===

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, line, column, expected } = self;
        if !key.is_empty() {
            write!(f, "key {key:?}, line {line}, column {column}: ")?;
        }
        write!(f, "expected {expected}")
    }
}

// === impl Catalog ===

impl Catalog {
    /// Reads the entries that `content` lists.
    ///
    /// # Errors
    /// [`CatalogError`] names the key, line and column, and what was expected there.
    pub fn parse(format: Format, content: &Content<'_>) -> Result<Self, CatalogError> {
        match format {
            Format::Json => json::parse(content),
            Format::Keys => keys::parse(content),
            Format::Yaml => yaml::parse(content),
        }
    }

    /// The text that a catalog of this format is read from; `None` where that is no single one.
    pub fn text<'c>(format: Format, content: &'c Content<'_>) -> Option<&'c str> {
        match format {
            Format::Json => json::JSON.source(content).ok().map(|(_, text)| text),
            Format::Keys => None,
            Format::Yaml => yaml::YAML.source(content).ok().map(|(_, text)| text),
        }
    }

    /// Whether the catalog lists `entry`.
    pub fn lists(&self, entry: &EntryName) -> bool {
        !self.rows(entry).is_empty()
    }

    /// The names of all entries, sorted.
    pub fn names(&self) -> impl Iterator<Item = &EntryName> {
        self.pools().map(|pool| &pool[0].0)
    }

    /// Whether `entry` has a fingerprint in common with what `other` lists under that name.
    pub fn agrees(&self, other: &Self, entry: &EntryName) -> bool {
        in_common(self.rows(entry), other.rows(entry))
    }

    /// What changing this catalog into `new` removes, replaces and adds.
    pub fn diff(&self, new: &Self) -> Diff {
        let mut diff = Diff::default();
        let (mut was, mut is) = (self.pools().peekable(), new.pools().peekable());
        while let Some(order) = compare(was.peek(), is.peek()) {
            let (was, is) = (was.next_if(|_| order.is_le()), is.next_if(|_| order.is_ge()));
            match (was, is) {
                (Some(was), None) => diff.removed.insert(was[0].0.clone()),
                (None, Some(is)) => diff.added.insert(is[0].0.clone()),
                (Some(was), Some(is)) if !in_common(was, is) => diff.replaced.insert(was[0].0.clone()),
                _ => false,
            };
        }
        diff
    }

    /// The rows of each name, sorted by it.
    fn pools(&self) -> impl Iterator<Item = &[Row]> {
        self.rows.chunk_by(|(a, _), (b, _)| a == b)
    }

    fn rows(&self, entry: &EntryName) -> &[Row] {
        let start = self.rows.partition_point(|(name, _)| name < entry);
        let len = self.rows[start..].iter().take_while(|(name, _)| name == entry).count();
        &self.rows[start..start + len]
    }
}

impl FromIterator<Row> for Catalog {
    fn from_iter<I: IntoIterator<Item = Row>>(rows: I) -> Self {
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort();
        rows.dedup();
        Self { rows }
    }
}

// === helpers ===

fn in_common(some: &[Row], others: &[Row]) -> bool {
    some.iter().any(|row| others.binary_search(row).is_ok())
}

/// Which of two sorted lists of pools goes on with the lesser name; an end is greater than any. `None` at both ends.
fn compare(one: Option<&&[Row]>, other: Option<&&[Row]>) -> Option<Ordering> {
    match (one, other) {
        (None, None) => None,
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (Some(one), Some(other)) => Some(one[0].0.cmp(&other[0].0)),
    }
}
