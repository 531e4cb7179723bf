//! Edits of a catalog that leave every other byte as it is.
//!
//! ```text
//! keep:    old's elements ── their source, else rendered ──▶ at the end of new's list ──┐
//! remove:  content's list ── without the elements ────────────────────────────────────┤
//!                                     Vec<Edit>, or CannotEdit ◀── read back, compared ─┘
//! ```
//! What [`keep`] makes of a text has been read again: it lists what it should, [`remove`] gives back exactly the
//! text that it was made from, and the same text over the result gives the same result. Otherwise it is refused.
//!
//! Without its key, a text format has no list to keep an entry in: such content is no catalog, and is refused as that.

mod element;
mod list;
#[cfg(test)]
mod tests;
mod text;

pub(super) use list::{List, Shape, line_end, line_start};

use super::{Catalog, CatalogError, EntryName, Format, json, keys, yaml};
use crate::object::Content;
use std::collections::BTreeSet;
use thiserror::Error;

/// The field of a ConfigMap that an [`Edit`] changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Field {
    /// `data`
    Data,
    /// `binaryData`
    BinaryData,
}

/// One value of a ConfigMap, set or taken away.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Edit {
    /// Where the key stands.
    pub field: Field,
    /// The key.
    pub key: Box<str>,
    /// The whole value that it has now (base64 in `binaryData`); none if the key is gone.
    pub value: Option<String>,
}

/// Why entries can be neither kept nor removed, and where.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("key {key:?}, line {line}, column {column}: {reason}")]
pub struct CannotEdit {
    /// The ConfigMap key; empty when no single key could be chosen (the place is then 1, 1).
    pub key: String,
    /// Line within the key's value, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is in the way, and what would help.
    pub reason: String,
}

/// Puts `entries`, which `old` lists, back into `new`, which does not: at the end, in the order that they have in
/// `old`, each with all its fingerprints.
///
/// # Errors
/// [`CannotEdit`] if one of the two is no catalog, or has no place for the entries.
pub fn keep(
    format: Format,
    old: &Content<'_>,
    new: &Content<'_>,
    entries: &BTreeSet<EntryName>,
) -> Result<Vec<Edit>, CannotEdit> {
    match format {
        Format::Json => json::JSON.keep(old, new, entries),
        Format::Keys => keys::keep(old, new, entries),
        Format::Yaml => yaml::YAML.keep(old, new, entries),
    }
}

/// Takes `entries` out of `content`; those that it does not list are out of it already.
///
/// # Errors
/// [`CannotEdit`] if `content` is no catalog, or if what is left would be read as something else.
pub fn remove(format: Format, content: &Content<'_>, entries: &BTreeSet<EntryName>) -> Result<Vec<Edit>, CannotEdit> {
    match format {
        Format::Json => json::JSON.remove(content, entries),
        Format::Keys => Ok(keys::remove(content, entries)),
        Format::Yaml => yaml::YAML.remove(content, entries),
    }
}

/// Makes `edits` in `content`.
pub fn apply(edits: impl IntoIterator<Item = Edit>, content: &mut Content<'_>) {
    for Edit { field, key, value } in edits {
        let map = match field {
            Field::Data => &mut content.data,
            Field::BinaryData => &mut content.binary_data,
        };
        match value {
            Some(value) => map.insert(String::from(key), value),
            None => map.remove(&key),
        };
    }
}

// === impl CannotEdit ===

impl CannotEdit {
    /// For what is wrong with the content that is stored, and not with the one that somebody writes.
    pub(super) fn stored(error: CatalogError) -> Self {
        let Self { key, line, column, reason } = error.into();
        Self { key, line, column, reason: format!("the stored catalog: {reason}") }
    }

    /// An entry to keep that the stored catalog does not list.
    pub(super) fn not_stored(key: &str, entry: &EntryName) -> Self {
        Self::at_start(key, format!("entry {entry} cannot be kept, for the stored catalog does not list it"))
    }

    /// An entry to keep that the new content lists itself.
    pub(super) fn listed_already(key: &str, entry: &EntryName) -> Self {
        Self::at_start(key, format!("entry {entry} needs not be kept, for the new content lists it"))
    }

    fn at_start(key: &str, reason: String) -> Self {
        Self { key: key.to_owned(), line: 1, column: 1, reason }
    }
}

impl From<CatalogError> for CannotEdit {
    fn from(error: CatalogError) -> Self {
        let CatalogError { key, line, column, expected } = error;
        Self { key, line, column, reason: format!("expected {expected}") }
    }
}

// === impl Catalog ===

impl Catalog {
    /// The part of this catalog that lists the entries which `chosen` accepts.
    fn part(&self, chosen: impl Fn(&EntryName) -> bool) -> Self {
        self.rows.iter().filter(|(name, _)| chosen(name)).cloned().collect()
    }

    /// The part that lists `name` alone.
    fn part_of(&self, name: &EntryName) -> Self {
        self.rows(name).iter().cloned().collect()
    }

    /// This catalog and the entries of `other`.
    fn and(self, other: Self) -> Self {
        self.rows.into_iter().chain(other.rows).collect()
    }
}
