//! The format `keys`: every key of `data` and `binaryData` is an entry, its value the fingerprint.

use super::edit::{CannotEdit, Edit, Field};
use super::tree::{Fault, Place};
use super::{Catalog, CatalogError, EntryName, Fingerprint};
use crate::object::Content;
use std::collections::BTreeSet;

/// Reads each key as an entry. `binaryData` is fingerprinted as the base64 that it is stored in, apart from `data`:
/// moving a value from one to the other replaces the entry, for files and environment variables differ there.
pub(super) fn parse(content: &Content<'_>) -> Result<Catalog, CatalogError> {
    let Content { data, binary_data, .. } = content;
    // No API server stores such content: it is a manifest that was never applied.
    if let Some((key, _)) = binary_data.iter().find(|(key, _)| data.get(key).is_some()) {
        return Err(error(key, "a key of data or of binaryData (found it in both)"));
    }
    let fields = [("data", data), ("binaryData", binary_data)];
    let mut rows = Vec::with_capacity(data.iter().len() + binary_data.iter().len());
    for (field, map) in fields {
        for (key, value) in map.iter() {
            // Nor this.
            let name = EntryName::new(key).map_err(|it| error(key, format!("a valid key (found one that {it})")))?;
            rows.push((name, Fingerprint::of_parts([field.as_bytes(), value.as_bytes()])));
        }
    }
    Ok(Catalog::from_iter(rows))
}

/// Puts each key back where `old` has it, with the value that it has there.
pub(super) fn keep(
    old: &Content<'_>,
    new: &Content<'_>,
    entries: &BTreeSet<EntryName>,
) -> Result<Vec<Edit>, CannotEdit> {
    let edit = |entry: &EntryName| {
        let key = entry.as_str();
        if field_of(new, key).is_some() {
            return Err(CannotEdit::listed_already(key, entry));
        }
        let (field, value) = field_of(old, key).ok_or_else(|| CannotEdit::not_stored(key, entry))?;
        Ok(Edit { field, key: key.into(), value: Some(value.to_owned()) })
    };
    entries.iter().map(edit).collect()
}

/// Takes each key away.
pub(super) fn remove(content: &Content<'_>, entries: &BTreeSet<EntryName>) -> Vec<Edit> {
    let keys = entries.iter().map(EntryName::as_str);
    keys.filter_map(|key| Some(Edit { field: field_of(content, key)?.0, key: key.into(), value: None })).collect()
}

fn field_of<'c>(content: &'c Content<'_>, key: &str) -> Option<(Field, &'c str)> {
    let data = content.data.get(key).map(|value| (Field::Data, value));
    data.or_else(|| content.binary_data.get(key).map(|value| (Field::BinaryData, value)))
}

fn error(key: &str, expected: impl Into<String>) -> CatalogError {
    Fault::new(Place::START, expected).in_key(key)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{content, names};
    use super::*;
    use proptest::prelude::*;

    fn listed<const N: usize, const M: usize>(data: [(&str, &str); N], binary_data: [(&str, &str); M]) -> Catalog {
        parse(&content(data, binary_data)).unwrap()
    }

    #[test]
    fn every_key_of_data_and_binary_data_is_an_entry() {
        let catalog = listed([("b", "1"), ("a.v2", "")], [("c", "AAEC")]);
        assert_eq!(names(&catalog), ["a.v2", "b", "c"]);
        assert_eq!(listed([], []), Catalog::default());
    }

    #[test]
    fn a_changed_value_replaces_its_entry() {
        let old = listed([("a", "1"), ("b", "1")], [("c", "AA==")]);
        let new = listed([("a", "1"), ("b", "2")], [("c", "AQ==")]);
        assert_eq!(names(&old.diff(&new).replaced), ["b", "c"]);
    }

    #[test]
    fn data_and_binary_data_never_have_the_same_fingerprint() {
        let (old, new) = (listed([("a", "AA==")], []), listed([], [("a", "AA==")]));
        assert_eq!(names(&old.diff(&new).replaced), ["a"]);
    }

    #[test]
    fn what_no_api_server_stores_is_an_error_that_names_the_key() {
        let cases = [
            (content([("a", "1")], [("a", "AA==")]), "a", "a key of data or of binaryData (found it in both)"),
            (content([("", "1")], []), "", "a valid key (found one that is empty)"),
        ];
        for (content, key, expected) in cases {
            let error = parse(&content).unwrap_err();
            assert_eq!((error.line, error.column), (1, 1));
            assert_eq!((error.key.as_str(), error.expected.as_str()), (key, expected));
        }
    }

    proptest! {
        #[test]
        fn the_entries_are_the_keys(keys in proptest::collection::btree_set("[-._a-zA-Z0-9]{1,20}", 0..20)) {
            let data = keys.iter().map(|key| (key.as_str(), "value")).collect();
            let catalog = parse(&Content { data, ..Content::default() }).unwrap();
            prop_assert!(catalog.names().map(EntryName::as_str).eq(keys.iter().map(String::as_str)));
        }
    }
}
