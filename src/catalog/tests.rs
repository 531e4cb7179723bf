//! What holds for catalogs of every format.

use super::tree::{Node, Value as Tree};
use super::yaml::read as tree_of;
use super::{Catalog, CatalogError, Diff, EntryName, Fingerprint, Format, UnknownFormat};
use crate::object::{Content, StringMap};
use proptest::prelude::*;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

pub(super) fn content<'a, const N: usize, const M: usize>(
    data: [(&'a str, &'a str); N],
    binary_data: [(&'a str, &'a str); M],
) -> Content<'a> {
    Content { data: data.into_iter().collect(), binary_data: binary_data.into_iter().collect(), immutable: None }
}

/// Where a catalog was refused and what was expected there, as `line:column expected`.
pub(super) fn refusal(result: Result<Catalog, CatalogError>) -> String {
    let error = result.unwrap_err();
    format!("{}:{} {}", error.line, error.column, error.expected)
}

/// The names in a catalog or in a part of a diff.
pub(super) fn names<'a>(entries: impl Names<'a>) -> Vec<&'a str> {
    entries.names()
}

pub(super) trait Names<'a> {
    fn names(self) -> Vec<&'a str>;
}

impl<'a> Names<'a> for &'a Catalog {
    fn names(self) -> Vec<&'a str> {
        Catalog::names(self).map(EntryName::as_str).collect()
    }
}

impl<'a> Names<'a> for &'a BTreeSet<EntryName> {
    fn names(self) -> Vec<&'a str> {
        self.iter().map(EntryName::as_str).collect()
    }
}

pub(super) fn yaml(text: &str) -> Result<Catalog, CatalogError> {
    Catalog::parse(Format::Yaml, &content([("models.yaml", text)], []))
}

pub(super) fn json(text: &str) -> Result<Catalog, CatalogError> {
    Catalog::parse(Format::Json, &content([("models.json", text)], []))
}

/// A catalog from names and fingerprints, one letter and one digit each: `a1 a2 b1` is a pool and an entry.
fn pools(text: &str) -> Catalog {
    text.split_whitespace().map(row).collect()
}

fn row(pair: &str) -> (EntryName, Fingerprint) {
    let (name, fingerprint) = pair.split_at(1);
    (EntryName::new(name).unwrap(), Fingerprint::of_parts([fingerprint.as_bytes()]))
}

// === formats and errors ===

#[test]
fn a_format_is_its_label_value() {
    for (format, text) in [(Format::Json, "json"), (Format::Keys, "keys"), (Format::Yaml, "yaml")] {
        assert_eq!(text.parse(), Ok(format));
        assert_eq!(format.to_string(), text);
    }
    for text in ["", "YAML", "yml", "litellm", " keys"] {
        let error = text.parse::<Format>().unwrap_err();
        assert_eq!(error, UnknownFormat(text.to_owned()));
        assert!(error.to_string().ends_with("expected keys, yaml or json"));
    }
}

#[test]
fn an_error_names_key_line_column_and_what_was_expected() {
    let error = yaml("models:\n- name: a\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "key \"models.yaml\", line 1, column 1: expected a sequence of models (found a mapping)"
    );
}

// === diffs ===

#[test]
fn removed_is_none_left_replaced_is_none_in_common_added_is_none_before() {
    let cases = [
        // old, new, removed, replaced, added
        ("a1 b1", "a1 b1", "", "", ""),
        ("a1 b1", "b1", "a", "", ""),
        ("b1", "a1 b1", "", "", "a"),
        ("a1", "a2", "", "a", ""),
        ("a1", "b1", "a", "", "b"),
        ("a1 a2", "a2", "", "", ""),
        ("a1", "a1 a2", "", "", ""),
        ("a1 a2", "a2 a3", "", "", ""),
        ("a1 a2", "a3 a4", "", "a", ""),
        ("a1 a2 b1 c1", "b2 d1 d2", "ac", "b", "d"),
        ("", "a1", "", "", "a"),
        ("a1", "", "a", "", ""),
        ("", "", "", "", ""),
    ];
    for (old, new, removed, replaced, added) in cases {
        let diff = pools(old).diff(&pools(new));
        assert_eq!(names(&diff.removed).concat(), removed, "{old} -> {new}");
        assert_eq!(names(&diff.replaced).concat(), replaced, "{old} -> {new}");
        assert_eq!(names(&diff.added).concat(), added, "{old} -> {new}");
    }
}

#[test]
fn a_catalog_knows_its_entries_and_their_fingerprints() {
    let catalog = pools("b1 a1 a2");
    let name = |text| EntryName::new(text).unwrap();
    assert_eq!(names(&catalog), ["a", "b"]);
    assert!(catalog.lists(&name("a")) && !catalog.lists(&name("c")));
    assert_eq!(catalog, pools("a2 b1 a1 a2"));
    for (other, agrees) in [("a2 c1", true), ("a3 b1", false), ("b1", false), ("", false)] {
        assert_eq!(catalog.agrees(&pools(other), &name("a")), agrees, "{other}");
    }
}

// === properties ===

fn any_pools() -> impl Strategy<Value = Catalog> {
    proptest::collection::vec("[a-e][0-3]", 0..12).prop_map(|pairs| pools(&pairs.join(" ")))
}

/// A list of models as JSON, each name once.
pub(super) fn any_models(len: Range<usize>) -> impl Strategy<Value = Vec<Value>> {
    let text = "[ -~é\n\t]{0,6}";
    let leaf =
        prop_oneof![Just(Value::Null), text.prop_map(Value::from), Just(Value::from(1.5)), Just(Value::from(true))];
    let value = leaf.prop_recursive(3, 12, 3, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map(text, inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let fields = proptest::collection::btree_map("[a-m]{1,3}", value, 0..4);
    let models = proptest::collection::btree_map("[a-z]{1,4}", (proptest::option::of("v[0-9]"), fields), len);
    models.prop_map(|models| {
        models
            .into_iter()
            .map(|(name, (version, fields))| {
                let mut model = fields.into_iter().collect::<Map<_, _>>();
                model.insert("name".to_owned(), name.into());
                model.extend(version.map(|version| ("version".to_owned(), version.into())));
                Value::Object(model)
            })
            .collect()
    })
}

/// Writes a value with its keys in reverse order, as block YAML where `block` is set.
pub(super) fn reversed(value: &Value, indent: usize, block: bool) -> String {
    let line = format!("\n{}", " ".repeat(indent));
    match value {
        Value::Array(items) if !items.is_empty() => {
            let items = items.iter().map(|item| reversed(item, indent + 2, block)).collect::<Vec<_>>();
            if !block {
                return format!("[{}]", items.join(" ,"));
            }
            items.iter().map(|item| format!("{line}-  {item} # comment, of the {{list")).collect()
        }
        Value::Object(fields) if !fields.is_empty() => {
            let field = |(key, value): (&String, &Value)| {
                format!("{} : {}", Value::from(key.as_str()), reversed(value, indent + 2, block))
            };
            let fields = fields.iter().rev().map(field).collect::<Vec<_>>();
            if !block {
                return format!("{{ {} }}", fields.join(","));
            }
            fields.iter().map(|field| format!("{line}{field}")).collect()
        }
        Value::String(text) if block && !text.contains('\n') => {
            format!("'{}'", text.replace('\'', "''"))
        }
        scalar => scalar.to_string(),
    }
}

proptest! {
    #[test]
    fn a_catalog_does_not_differ_from_itself(catalog in any_pools()) {
        prop_assert_eq!(catalog.diff(&catalog), Diff::default());
    }

    #[test]
    fn a_diff_is_the_mirror_of_the_way_back(old in any_pools(), new in any_pools()) {
        let (there, back) = (old.diff(&new), new.diff(&old));
        prop_assert_eq!(there.removed, back.added);
        prop_assert_eq!(there.replaced, back.replaced);
        prop_assert_eq!(there.added, back.removed);
    }

    #[test]
    fn the_parts_of_a_diff_say_what_is_listed(old in any_pools(), new in any_pools()) {
        let diff = old.diff(&new);
        for name in old.names().chain(new.names()) {
            prop_assert_eq!(diff.removed.contains(name), !new.lists(name));
            prop_assert_eq!(diff.added.contains(name), !old.lists(name));
            prop_assert!(!diff.replaced.contains(name) || old.lists(name) && new.lists(name));
        }
    }

    #[test]
    fn one_more_row_of_a_pool_replaces_nothing(catalog in any_pools(), row in "[a-e][0-3]") {
        let more = catalog.rows.iter().cloned().chain([self::row(&row)]).collect();
        let diff = catalog.diff(&more);
        prop_assert!(diff.removed.is_empty() && diff.replaced.is_empty());
    }

    #[test]
    fn a_catalog_survives_reordering_and_another_way_of_writing(models in any_models(0..5)) {
        let written = Value::from(models.clone()).to_string();
        let catalog = json(&written).unwrap();
        prop_assert_eq!(catalog.names().count(), models.len());
        let turned = Value::from(models.into_iter().rev().collect::<Vec<_>>());
        for text in [reversed(&turned, 0, false), written] {
            prop_assert_eq!(&json(&text).unwrap(), &catalog, "{}", text);
            prop_assert_eq!(&yaml(&text).unwrap(), &catalog, "{}", text);
        }
        let block = reversed(&turned, 0, true);
        prop_assert_eq!(&yaml(&block).unwrap(), &catalog, "{}", block);
    }

    #[test]
    fn a_change_of_one_field_replaces_that_entry_alone(models in any_models(1..5), pick in any::<prop::sample::Index>()) {
        let old = json(&Value::from(models.clone()).to_string()).unwrap();
        let mut changed = models;
        let index = pick.index(changed.len());
        changed[index]["z"] = Value::from("new");
        let new = yaml(&Value::from(changed).to_string()).unwrap();
        let diff = old.diff(&new);
        prop_assert_eq!((diff.removed.len(), diff.replaced.len(), diff.added.len()), (0, 1, 0));
    }
}

// === real files ===

/// Reads the real ConfigMaps that lie beside some checkouts: what people write must not be refused.
#[test]
fn real_files_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let Ok(index) = std::fs::read_to_string(folder.join("INDEX.tsv")) else {
        return;
    };
    for row in index.lines().skip(1) {
        let columns = row.split('\t').collect::<Vec<_>>();
        let (file, format) = (columns[0], columns[3]);
        if format.contains("malformed") || format.contains("template") {
            continue;
        }
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        for document in text.split("\n---") {
            let root = tree_of(document).unwrap_or_else(|fault| panic!("{file}: {fault:?}"));
            check_config_map(&root, format);
        }
    }
}

fn check_config_map(root: &Node<'_>, format: &str) {
    let Tree::Map(fields) = &root.value else {
        return;
    };
    let (Some(kind), Some(data)) = (fields.get("kind"), fields.get("data")) else {
        return;
    };
    let (Tree::Text(kind), Tree::Map(data)) = (&kind.value, &data.value) else {
        panic!("no manifest: {root:?}");
    };
    if kind != "ConfigMap" {
        return;
    }
    let pairs = data.iter().map(|field| match &field.node.value {
        Tree::Text(text) => (&*field.key, &**text),
        other => panic!("no text: {other:?}"),
    });
    let data = pairs.collect::<StringMap<'_>>();
    for (_, text) in data.iter().filter(|(key, _)| key.ends_with(".yaml")) {
        tree_of(text).unwrap();
    }
    if let Some(keys) = format.strip_prefix("env-keys(") {
        let content = Content { data, ..Content::default() };
        let catalog = Catalog::parse(Format::Keys, &content).unwrap();
        for key in keys.trim_end_matches(')').split(',') {
            assert!(catalog.lists(&EntryName::new(key).unwrap()), "{key}");
        }
    }
}
