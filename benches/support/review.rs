//! What the benches judge: a release that adds an entry to a model ConfigMap of 8 KiB.

#![allow(dead_code, reason = "included by several programs, each of which needs a part")]

use jiff::Timestamp;
use modelguard::guard::Guard;
use modelguard::object::ConfigMap;
use modelguard::policy::{self, Caller, CatalogChange, Terms};
use modelguard::reference::CatalogKey;
use modelguard::usage::Epoch;
use serde_json::{Map, Value, json};
use std::ops::Range;

/// How many keys of 190 bytes each are 8 KiB.
const KEYS: usize = 40;

/// One model ConfigMap, as JSON, in three states.
pub(crate) struct Release {
    /// As it is stored, with the revision before it.
    pub(crate) old: String,
    /// As a client sends it: one entry more.
    pub(crate) asked: String,
    /// As the mutating webhook makes it of that.
    pub(crate) new: String,
    /// As a client sends it that takes the first entry away.
    pub(crate) less: String,
}

impl Release {
    /// The third release of the ConfigMap, so that there is a prior revision already.
    pub(crate) fn new() -> Self {
        let first = config_map(1..KEYS, &Map::new());
        let (_, old) = release(&first, 0..KEYS);
        let (asked, new) = release(&old, 0..KEYS + 1);
        let (less, _) = release(&old, 1..KEYS);
        Self { old, asked, new, less }
    }
}

/// Which ConfigMap it is.
pub(crate) fn key() -> CatalogKey {
    CatalogKey::new("prod", "models")
}

/// What it is judged by.
pub(crate) fn terms() -> Terms {
    Terms { epoch: Ok(Epoch::new("e")), guard: Guard::default(), now: Timestamp::UNIX_EPOCH }
}

/// A change as the rules take it.
pub(crate) fn change<'a>(old: &'a str, new: &'a str) -> CatalogChange<'a> {
    let [old, new] = [old, new].map(|json| ConfigMap::parse(json).expect("a ConfigMap"));
    CatalogChange::new(key(), Some(old), Some(new), Caller::default())
}

/// `old` with these keys: as it is asked for, and as the mutating webhook makes it of that.
fn release(old: &str, keys: Range<usize>) -> (String, String) {
    let stored = ConfigMap::parse(old).expect("a ConfigMap").metadata.annotations;
    let mut annotations = stored.iter().map(|(name, value)| (name.to_owned(), value.into())).collect::<Map<_, _>>();
    let asked = config_map(keys.clone(), &annotations);
    for (name, value) in policy::mutate(&change(old, &asked), &terms()).annotations {
        annotations.insert(name.to_owned(), value.expect("nothing to remove").into());
    }
    (asked, config_map(keys, &annotations))
}

/// A model ConfigMap of these keys, with the metadata that the API server keeps.
fn config_map(keys: Range<usize>, annotations: &Map<String, Value>) -> String {
    let names: Vec<_> = keys.map(|key| format!("model-{key:02}")).collect();
    let data: Map<_, _> = names.iter().map(|name| (name.clone(), "x".repeat(190).into())).collect();
    let owned: Map<_, _> = names.iter().map(|name| (format!("f:{name}"), json!({}))).collect();
    let manager = json!({
        "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": owned},
        "manager": "kubectl", "operation": "Update", "time": "2026-11-20T09:12:44Z",
    });
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "annotations": annotations,
            "creationTimestamp": "2026-11-19T08:00:00Z",
            "labels": {"modelguard.dev/catalog": "keys"},
            "managedFields": [manager],
            "name": "models",
            "namespace": "prod",
            "resourceVersion": "4711",
            "uid": "0f5c0a5e-6f3c-4f0b-9d43-2f6f3f6f7a11",
        },
        "data": data,
    })
    .to_string()
}
