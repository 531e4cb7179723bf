//! What a workload says that it serves.

use super::annotation::{self, Annotation};
use super::{CatalogKey, Problems};
use crate::names;
use crate::object::PodTemplate;
use std::collections::BTreeSet;

/// The catalogs of which a workload serves entries, by its annotation `modelguard.dev/serves`.
#[derive(Debug, Default)]
pub(super) struct Serves {
    catalogs: BTreeSet<CatalogKey>,
    /// What could not be read, and what was expected; `None` if all could.
    pub(super) unreadable: Option<Box<str>>,
}

// === impl Serves ===

impl Serves {
    pub(super) fn of_template(namespace: &str, template: PodTemplate<'_>) -> Self {
        let text = template.annotations.get(names::SERVES).unwrap_or_default();
        let mut catalogs = BTreeSet::new();
        let mut problems = Problems::default();
        for item in annotation::parse(Annotation::Serves, namespace, text) {
            match item {
                Ok((catalog, _need)) => drop(catalogs.insert(catalog)),
                Err(problem) => problems.add(&problem),
            }
        }
        Self { catalogs, unreadable: problems.reason() }
    }

    /// Whether it serves any entry of this catalog.
    pub(super) fn serves_any(&self, catalog: &CatalogKey) -> bool {
        self.catalogs.contains(catalog)
    }
}
