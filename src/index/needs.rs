//! From a catalog to the reference sets that need something of it: the way that questions go.

use super::namespace::SetId;
use crate::catalog::{EntryName, Format};
use crate::reference::{CatalogKey, Need, Origin, References};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Who needs what, by catalog and by the namespace of those who need it.
#[derive(Debug, Default)]
pub(super) struct Needs {
    catalogs: HashMap<CatalogKey, BTreeMap<Arc<str>, Wanted>>,
}

/// What the reference sets of one namespace want of one catalog.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    all: Sets,
    entries: BTreeMap<EntryName, Sets>,
}

/// Reference sets, apart by whether they count for every format.
#[derive(Debug, Default)]
struct Sets {
    /// These count only if the catalog is of the format `keys`.
    implicit: BTreeSet<SetId>,
    /// These count for every format.
    explicit: BTreeSet<SetId>,
}

// === impl Needs ===

impl Needs {
    /// Enters a reference set that came into use.
    pub(super) fn add(&mut self, namespace: &Arc<str>, id: SetId, references: &References) {
        let readable = references.unreadable.is_none();
        for reference in &references.needs {
            let wanted =
                self.catalogs.entry(reference.catalog.clone()).or_default().entry(Arc::clone(namespace)).or_default();
            let sets = match &reference.need {
                Need::Entry(entry) if readable => wanted.entries.entry(entry.clone()).or_default(),
                // What names a catalog and cannot be read in full may need any of it.
                Need::All | Need::Entry(_) => &mut wanted.all,
            };
            sets.of(reference.origin, readable).insert(id);
        }
    }

    /// Takes out a reference set that is no longer in use.
    pub(super) fn remove(&mut self, namespace: &str, id: SetId, references: &References) {
        for reference in &references.needs {
            let Some(namespaces) = self.catalogs.get_mut(&reference.catalog) else {
                continue;
            };
            if let Some(wanted) = namespaces.get_mut(namespace) {
                wanted.remove(id, &reference.need);
                if wanted.is_empty() {
                    namespaces.remove(namespace);
                }
            }
            if namespaces.is_empty() {
                self.catalogs.remove(&reference.catalog);
            }
        }
    }

    /// What is wanted of `catalog`, by namespace.
    pub(super) fn of(&self, catalog: &CatalogKey) -> impl Iterator<Item = (&str, &Wanted)> {
        let namespaces = self.catalogs.get(catalog).into_iter().flatten();
        namespaces.map(|(namespace, wanted)| (&**namespace, wanted))
    }

    /// Whether nothing is needed of any catalog.
    pub(super) fn is_empty(&self) -> bool {
        self.catalogs.is_empty()
    }
}

// === impl Wanted ===

impl Wanted {
    /// The sets that need all entries of a catalog of this format.
    pub(super) fn all(&self, format: Format) -> impl Iterator<Item = SetId> {
        self.all.counting(format)
    }

    /// The sets that need `entry` by name.
    pub(super) fn entry(&self, format: Format, entry: &EntryName) -> impl Iterator<Item = SetId> {
        let sets = self.entries.get(entry);
        sets.into_iter().flat_map(move |sets| sets.counting(format))
    }

    /// The sets that need anything of a catalog of this format.
    pub(super) fn any(&self, format: Format) -> impl Iterator<Item = SetId> {
        std::iter::once(&self.all).chain(self.entries.values()).flat_map(move |sets| sets.counting(format))
    }

    /// Whether the set names the catalog at all.
    pub(super) fn names(&self, id: SetId) -> bool {
        let mut sets = std::iter::once(&self.all).chain(self.entries.values());
        sets.any(|sets| sets.implicit.contains(&id) || sets.explicit.contains(&id))
    }

    fn remove(&mut self, id: SetId, need: &Need) {
        self.all.remove(id);
        if let Need::Entry(entry) = need
            && let Some(sets) = self.entries.get_mut(entry)
        {
            sets.remove(id);
            if sets.is_empty() {
                self.entries.remove(entry);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.all.is_empty() && self.entries.is_empty()
    }
}

// === impl Sets ===

impl Sets {
    fn of(&mut self, origin: Origin, readable: bool) -> &mut BTreeSet<SetId> {
        match origin {
            Origin::Implicit if readable => &mut self.implicit,
            Origin::Implicit | Origin::Uses => &mut self.explicit,
        }
    }

    fn counting(&self, format: Format) -> impl Iterator<Item = SetId> {
        let implicit = (format == Format::Keys).then_some(&self.implicit);
        let sets = std::iter::once(&self.explicit).chain(implicit);
        sets.flatten().copied()
    }

    fn remove(&mut self, id: SetId) {
        self.implicit.remove(&id);
        self.explicit.remove(&id);
    }

    fn is_empty(&self) -> bool {
        self.implicit.is_empty() && self.explicit.is_empty()
    }
}
