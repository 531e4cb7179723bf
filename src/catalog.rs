//! Catalogs: what a model ConfigMap lists.
//!
//! ```text
//! Content (data, binaryData) ──Catalog::parse(format)──▶ Catalog: EntryName → {Digest, …}
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

pub use entry::{Digest, EntryName, InvalidName, Version};
pub(crate) use escape::{InvalidEscape, unescape};

use crate::object::Content;
use std::collections::{BTreeMap, BTreeSet};
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
    entries: BTreeMap<EntryName, BTreeSet<Digest>>,
}

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

    /// Whether the catalog lists `entry`.
    pub fn lists(&self, entry: &EntryName) -> bool {
        self.entries.contains_key(entry)
    }

    /// The names of all entries, sorted.
    pub fn names(&self) -> impl Iterator<Item = &EntryName> {
        self.entries.keys()
    }

    /// The fingerprints of `entry`, if it is listed.
    pub fn fingerprints(&self, entry: &EntryName) -> Option<&BTreeSet<Digest>> {
        self.entries.get(entry)
    }

    /// What changing this catalog into `new` removes, replaces and adds.
    pub fn diff(&self, new: &Self) -> Diff {
        let mut diff = Diff::default();
        for (name, old) in &self.entries {
            match new.entries.get(name) {
                None => diff.removed.insert(name.clone()),
                Some(new) if old.is_disjoint(new) => diff.replaced.insert(name.clone()),
                Some(_) => false,
            };
        }
        let added = new.names().filter(|name| !self.lists(name));
        diff.added.extend(added.cloned());
        diff
    }

    /// Lists one more fingerprint under `name`; says whether the name is new.
    fn insert(&mut self, name: EntryName, fingerprint: Digest) -> bool {
        let fingerprints = self.entries.entry(name).or_default();
        let is_new = fingerprints.is_empty();
        fingerprints.insert(fingerprint);
        is_new
    }
}
