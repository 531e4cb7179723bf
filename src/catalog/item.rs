//! A list of models, as the generic text formats write it.
//!
//! ```text
//! - name: extraction      ─┐
//!   version: 1.10         ─┴─▶ EntryName  extraction@1.10
//!   path: s3://models/e   ─┐
//!   params: {beam: 4}     ─┴─▶ Fingerprint over all other fields, in any order
//! ```
//! An entry with no other field has the fingerprint of nothing: it can be removed, never replaced.

use super::edit::List;
use super::tree::{Fault, Fields, Node, Place, Value};
use super::{Catalog, CatalogError, EntryName, Fingerprint, InvalidName, Version};
use crate::object::Content;
use std::collections::BTreeMap;

pub(super) const NAME: &str = "name";
pub(super) const VERSION: &str = "version";

/// Names of ConfigMap keys that a message quotes at most; each may have 253 characters.
const MOST_KEYS: usize = 3;

/// What was read, and where the list's elements stand; no list if the text is null.
pub(super) type Outlined<'t> = (Node<'t>, Option<List>);

/// A way to write lists of models: where they stand, how they are read and what their parts are called.
pub(super) struct Notation {
    /// The key of `data` that is read; without it the only key is.
    pub(super) key: &'static str,
    pub(super) read: fn(&str) -> Result<Node<'_>, Fault>,
    /// Reads as `read` does, and finds the elements in the text.
    pub(super) outline: fn(&str) -> Result<Outlined<'_>, Fault>,
    pub(super) list: &'static str,
    pub(super) map: &'static str,
    pub(super) scalar: &'static str,
}

// === impl Notation ===

impl Notation {
    /// Reads the catalog that `content` holds in this notation.
    ///
    /// # Errors
    /// [`CatalogError`] if no key can be chosen, or at the first thing that is not as expected.
    pub(super) fn parse(&self, content: &Content<'_>) -> Result<Catalog, CatalogError> {
        let (key, text) = self.source(content)?;
        (self.read)(text).and_then(|root| self.catalog(&root)).map_err(|fault| fault.in_key(key))
    }

    /// What `node` is called in this notation.
    pub(super) fn kind(&self, node: &Node<'_>) -> &'static str {
        match node.value {
            Value::List(_) => self.list,
            Value::Map(_) => self.map,
            Value::Null => "null",
            Value::Text(_) => self.scalar,
        }
    }

    pub(super) fn source<'c>(&self, content: &'c Content<'_>) -> Result<(&'c str, &'c str), CatalogError> {
        let mut keys = content.data.iter();
        match (content.data.get(self.key), keys.next(), keys.next()) {
            (Some(text), ..) => Ok((self.key, text)),
            (None, Some(only), None) => Ok(only),
            _ => Err(self.no_source(content)),
        }
    }

    fn no_source(&self, content: &Content<'_>) -> CatalogError {
        let keys = content.data.iter().map(|(key, _)| format!("{key:?}"));
        let mut found = keys.take(MOST_KEYS).collect::<Vec<_>>().join(", ");
        match content.data.iter().len() {
            0 => found.push_str("none"),
            len if len > MOST_KEYS => found += &format!(" and {} more", len - MOST_KEYS),
            _ => {}
        }
        if !content.binary_data.is_empty() {
            found.push_str("; binaryData is not read");
        }
        let expected = format!("the key {:?} or a single key in data (found {found})", self.key);
        Fault::new(Place::START, expected).in_key("")
    }

    pub(super) fn catalog(&self, root: &Node<'_>) -> Result<Catalog, Fault> {
        let items = match &root.value {
            Value::List(items) => items.as_slice(),
            // An empty YAML document is null, and so is how Go writes an empty list in JSON.
            Value::Null => &[],
            Value::Map(_) | Value::Text(_) => {
                let expected = format!("{} of models (found {})", self.list, self.kind(root));
                return Err(Fault::new(root.place, expected));
            }
        };
        let mut entries = BTreeMap::new();
        let mut bytes = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let (name, fields) = self.identity(item)?;
            if entries.contains_key(&name) {
                return Err(self.listed_twice(&items[..index], item, &name));
            }
            bytes.clear();
            fields.encode(&mut bytes, |key| key != NAME && key != VERSION);
            entries.insert(name, Fingerprint::of_parts([&bytes]));
        }
        Ok(entries.into_iter().collect())
    }

    pub(super) fn identity<'n, 'a>(&self, item: &'n Node<'a>) -> Result<(EntryName, &'n Fields<'a>), Fault> {
        let Value::Map(fields) = &item.value else {
            let expected = format!("{} with `{NAME}` (found {})", self.map, self.kind(item));
            return Err(Fault::new(item.place, expected));
        };
        let Some(node) = fields.get(NAME) else {
            let expected = format!("{} with `{NAME}` (found one without it)", self.map);
            return Err(Fault::new(item.place, expected));
        };
        let name = self.text(node, NAME, EntryName::new)?;
        let Some(version) = fields.get(VERSION) else {
            return Ok((name, fields));
        };
        let version = self.text(version, VERSION, Version::new)?;
        let full = EntryName::versioned(&name, &version);
        let full = full.map_err(|reason| invalid(node, "name and version", &reason))?;
        Ok((full, fields))
    }

    fn text<T>(&self, node: &Node<'_>, field: &str, make: fn(&str) -> Result<T, InvalidName>) -> Result<T, Fault> {
        let Value::Text(text) = &node.value else {
            let expected = format!("{} as `{field}` (found {})", self.scalar, self.kind(node));
            return Err(Fault::new(node.place, expected));
        };
        make(text).map_err(|reason| invalid(node, field, &reason))
    }

    fn listed_twice(&self, before: &[Node<'_>], item: &Node<'_>, name: &EntryName) -> Fault {
        let first = before.iter().find(|other| self.identity(other).is_ok_and(|(other, _)| other == *name));
        let line = first.unwrap_or(item).place.line;
        let expected = format!("each entry once ({name} is listed at line {line} already)");
        Fault::new(item.place, expected)
    }
}

// === helpers ===

fn invalid(node: &Node<'_>, field: &str, reason: &InvalidName) -> Fault {
    Fault::new(node.place, format!("a valid `{field}` (found one that {reason})"))
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::{content, json, names, refusal, yaml};
    use super::*;

    #[test]
    fn the_named_key_is_read_else_the_only_one() {
        let (listed, other) = ("[{\"name\": \"a\"}]", "no list");
        for format in [Format::Json, Format::Yaml] {
            let named = format!("models.{format}");
            let contents = [
                content([(named.as_str(), listed)], []),
                content([(named.as_str(), listed), ("a", other), ("z", other)], []),
                content([("catalog.txt", listed)], []),
                content([("catalog.txt", listed)], [(named.as_str(), "AA==")]),
            ];
            for content in contents {
                assert_eq!(names(&Catalog::parse(format, &content).unwrap()), ["a"]);
            }
        }
    }

    #[test]
    fn without_such_a_key_the_error_says_which_there_are() {
        let cases = [
            (content([], []), "none"),
            (content([], [("models.yaml", "AA==")]), "none; binaryData is not read"),
            (content([("b", ""), ("a", "")], []), "\"a\", \"b\""),
            (content([("b", ""), ("a", ""), ("c", ""), ("d", "")], []), "\"a\", \"b\", \"c\" and 1 more"),
        ];
        for (content, found) in cases {
            let error = Catalog::parse(Format::Yaml, &content).unwrap_err();
            let expected = format!("expected the key \"models.yaml\" or a single key in data (found {found})");
            assert_eq!(error.to_string(), expected);
            assert_eq!((error.key.as_str(), error.line, error.column), ("", 1, 1));
        }
    }

    #[test]
    fn both_notations_refuse_the_same_lists_in_their_own_words() {
        let cases = [
            ("{}", "SEQ of models (found MAP)"),
            ("\"a\"", "SEQ of models (found SCALAR)"),
            ("1", "SEQ of models (found SCALAR)"),
            ("[1]", "MAP with `name` (found SCALAR)"),
            ("[null]", "MAP with `name` (found null)"),
            ("[[]]", "MAP with `name` (found SEQ)"),
            ("[{}]", "MAP with `name` (found one without it)"),
            ("[{\"Name\": \"a\"}]", "MAP with `name` (found one without it)"),
            ("[{\"name\": null}]", "SCALAR as `name` (found null)"),
            ("[{\"name\": [\"a\"]}]", "SCALAR as `name` (found SEQ)"),
            ("[{\"name\": \"a\", \"version\": {}}]", "SCALAR as `version` (found MAP)"),
            ("[{\"name\": \"a\", \"version\": null}]", "SCALAR as `version` (found null)"),
            ("[{\"name\": \"\"}]", "a valid `name` (found one that is empty)"),
            ("[{\"name\": \"a\", \"version\": \"\"}]", "a valid `version` (found one that is empty)"),
        ];
        for (text, expected) in cases {
            let words = |list, map, scalar| {
                let words = expected.replace("SEQ", list).replace("MAP", map);
                words.replace("SCALAR", scalar)
            };
            let found = yaml(text).unwrap_err().expected;
            assert_eq!(found, words("a sequence", "a mapping", "a scalar"), "{text}");
            let found = json(text).unwrap_err().expected;
            assert_eq!(found, words("an array", "an object", "a string, number or boolean"), "{text}");
        }
    }

    #[test]
    fn an_invalid_name_has_a_place_of_its_own() {
        let long = "a".repeat(400);
        let cases = [
            ("[{\"x\": 1},\n {\"name\": 1}]".to_owned(), "1:2 "),
            ("[{\"name\": 1},\n {\"x\": \"é\", \"name\": \" a\"}]".to_owned(), "2:21 "),
            ("[{\"name\": \"é\",\n \"version\": \"a\\n\"}]".to_owned(), "2:13 "),
            (format!("[{{\"name\":\n\"{long}\", \"version\": \"{long}\"}}]"), "2:1 "),
        ];
        for (text, place) in cases {
            for refusal in [refusal(yaml(&text)), refusal(json(&text))] {
                assert!(refusal.starts_with(place), "{refusal}");
            }
        }
    }

    #[test]
    fn an_entry_that_is_listed_twice_is_refused() {
        let cases = [
            "[{\"name\": \"a\", \"version\": 1},\n{\"name\": \"a\", \"version\": 2},\n {\"name\": \"a\", \"version\": \"1\", \"x\": 1}]",
            "[{\"name\": \"a@1\"},\n{\"name\": \"a\"},\n {\"name\": \"a\", \"version\": 1}]",
        ];
        for text in cases {
            let error = "3:2 each entry once (a@1 is listed at line 1 already)";
            assert_eq!(refusal(yaml(text)), error);
            assert_eq!(refusal(json(text)), error);
        }
    }

    #[test]
    fn every_field_but_name_and_version_is_fingerprinted() {
        let old = json(r#"[{"name":"a","version":"1","x":"p"},{"name":"b"},{"name":"c","x":{"name":"p"}}]"#).unwrap();
        let new = json(r#"[{"name":"a","version":"1","x":"q"},{"name":"b"},{"name":"c","x":{"name":"q"}}]"#).unwrap();
        assert_eq!(names(&old.diff(&new).replaced), ["a@1", "c"]);
        let renamed =
            json(r#"[{"name":"a","version":"2","x":"p"},{"name":"b"},{"name":"c","x":{"name":"p"}}]"#).unwrap();
        assert_eq!(names(&old.diff(&renamed).removed), ["a@1"]);
        assert_eq!(names(&old.diff(&renamed).added), ["a@2"]);
        assert_eq!(old.rows[0].1, renamed.rows[0].1);
    }
}
