//! What the benches judge: a release that adds an entry to a model ConfigMap of 8 KiB. "Of 8 KiB" can mean two things:
//! the object as it is stored, with all that is in its metadata, or its data alone; both are measured.

#![allow(dead_code, reason = "included by several programs, each of which needs a part")]

use jiff::Timestamp;
use modelguard::guard::Guard;
use modelguard::object::ConfigMap;
use modelguard::policy::{self, Caller, CatalogChange, Terms};
use modelguard::reference::CatalogKey;
use modelguard::usage::Epoch;
use serde_json::{Map, Value, json};
use std::ops::Range;

/// What is of 8 KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Size {
    /// The ConfigMap as it is stored: its data, the prior revision of it, and managedFields.
    Stored,
    /// Its data alone; with the prior revision and managedFields it is stored as 18 KB.
    Data,
}

impl Size {
    pub(crate) const ALL: [Self; 2] = [Self::Stored, Self::Data];

    /// How many keys of 190 bytes each that are.
    const fn keys(self) -> usize {
        match self {
            Self::Stored => 17,
            Self::Data => 40,
        }
    }

    /// In words.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stored => "8 KiB stored",
            Self::Data => "8 KiB of data",
        }
    }
}

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
    pub(crate) fn new(size: Size) -> Self {
        let keys = size.keys();
        let first = config_map(1..keys, &Map::new());
        let (_, old) = release(&first, 0..keys);
        let (asked, new) = release(&old, 0..keys + 1);
        let (less, _) = release(&old, 1..keys);
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
    for (name, value) in policy::mutate(&change(old, &asked), None, &terms()).annotations {
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
