//! What a workload says that it serves.

use super::annotation::{self, Annotation};
use super::{CatalogKey, Need, Problems, bounded};
use crate::catalog::EntryName;
use crate::names;
use crate::object::{HolderKind, PodTemplate, Workload};
use std::collections::{BTreeMap, BTreeSet};

/// The entries that a workload serves, by its annotation `modelguard.dev/serves`.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Serves {
    /// What could be read.
    pub catalogs: BTreeMap<CatalogKey, Served>,
    /// What could not be read, and what was expected; `None` if all could.
    pub unreadable: Option<Box<str>>,
}

/// How much of a catalog is served.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Served {
    /// Every entry, now and later: `configmap:*`.
    All,
    /// These entries.
    Entries(BTreeSet<EntryName>),
}

// === impl Serves ===

impl Serves {
    /// Reads what the object serves; nothing once no pods can come from it.
    pub fn of(kind: HolderKind, workload: &Workload) -> Self {
        if !workload.is_live(kind) {
            return Self::default();
        }
        match workload.pod_template(kind) {
            Ok(template) => Self::of_template(&workload.metadata.namespace, template),
            Err(error) => Self { unreadable: Some(bounded(&error.to_string())), ..Self::default() },
        }
    }

    pub(super) fn of_template(namespace: &str, template: PodTemplate<'_>) -> Self {
        let text = template.annotations.get(names::SERVES).unwrap_or_default();
        let mut serves = Self::default();
        let mut problems = Problems::default();
        for item in annotation::parse(Annotation::Serves, namespace, text) {
            match item {
                Ok((catalog, need)) => serves.insert(catalog, need),
                Err(problem) => problems.add(&problem),
            }
        }
        serves.unreadable = problems.reason();
        serves
    }

    /// Whether it serves this entry.
    pub fn serves(&self, catalog: &CatalogKey, entry: &EntryName) -> bool {
        self.catalogs.get(catalog).is_some_and(|served| served.includes(entry))
    }

    /// Whether it serves any entry of this catalog.
    pub fn serves_any(&self, catalog: &CatalogKey) -> bool {
        self.catalogs.contains_key(catalog)
    }

    /// Whether it serves nothing, for certain.
    pub fn is_empty(&self) -> bool {
        self.catalogs.is_empty() && self.unreadable.is_none()
    }

    fn insert(&mut self, catalog: CatalogKey, need: Need) {
        let served = self.catalogs.entry(catalog).or_insert_with(|| Served::Entries(BTreeSet::new()));
        match (served, need) {
            (served, Need::All) => *served = Served::All,
            (Served::Entries(entries), Need::Entry(entry)) => {
                entries.insert(entry);
            }
            (Served::All, Need::Entry(_)) => {}
        }
    }
}

// === impl Served ===

impl Served {
    /// Whether this entry is among them.
    pub fn includes(&self, entry: &EntryName) -> bool {
        match self {
            Self::All => true,
            Self::Entries(entries) => entries.contains(entry),
        }
    }
}
