//! What the manifests of a folder say, all together.

use super::folder::File;
use crate::audit;
use crate::guard::RollbackTargets;
use crate::holder::{Hold, ObjectId};
use crate::index::{CatalogFacts, Facts, Index};
use crate::manifest::{self, Manifest, ManifestError};
use crate::names;
use crate::object::{ConfigMap, HolderKind, Workload};
use crate::policy::{Declared, Stored};
use crate::reference::{CatalogKey, Reference, References};
use crate::sharing::Sharing;
use crate::usage::Usage;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The manifests of one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Every ConfigMap.
    pub(super) catalogs: BTreeMap<CatalogKey, Stored>,
    /// Every object that can hold.
    pub(super) workloads: BTreeMap<ObjectId, Workload>,
    /// Namespaces that are being deleted.
    pub(super) terminating: BTreeSet<Box<str>>,
    /// Who holds what.
    pub(super) index: Index,
}

/// Why nobody knows what the manifests say.
#[derive(Debug, Error)]
pub enum ManifestsError {
    /// Reading them was cut short.
    #[error("a defect in modelguard kept them from being read: {0}")]
    Defect(String),
    /// A file is no manifest.
    #[error("manifest {}", path.display())]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// Where in it, and what was expected.
        #[source]
        source: ManifestError,
    },
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Reads the objects of one file after the other.
#[derive(Default)]
struct Reader {
    snapshot: Snapshot,
    /// Where each object was found.
    places: BTreeMap<(String, String, String, String), String>,
}

// === impl Snapshot ===

impl Snapshot {
    /// Reads every object that matters.
    pub(super) fn of(files: &[File], rollback_targets: RollbackTargets) -> Result<Self, ManifestsError> {
        let mut reader = Reader::default();
        reader.snapshot.index = Index::new(rollback_targets);
        for file in files {
            let fail = |source| ManifestsError::Manifest { path: file.path.clone(), source };
            let text = std::str::from_utf8(&file.bytes).map_err(|error| fail(not_utf8(&file.bytes, error)))?;
            for manifest in manifest::read(file.notation, text).map_err(fail)? {
                reader.enter(&file.path, &manifest).map_err(|expected| fail(at(&manifest, &expected)))?;
            }
        }
        Ok(reader.snapshot)
    }

    /// The pods that reference an entry, or a model ConfigMap, that is not there.
    pub(super) fn dangling(&self) -> Vec<ObjectId> {
        let pods = self.workloads.iter().filter(|(id, _)| id.kind == HolderKind::Pod);
        let lacks = |id: &ObjectId, it: &Reference| audit::lack(&self.index, &id.namespace, it).is_some();
        let dangles = |id: &ObjectId, pod: &Workload| References::of(id.kind, pod).needs.iter().any(|it| lacks(id, it));
        pods.filter(|(id, pod)| dangles(id, pod)).map(|(id, _)| id.clone()).collect()
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let catalogs = self.catalogs.values().filter(|stored| stored.declared != Declared::Ordinary).count();
        write!(f, "{catalogs} model ConfigMaps, {} workloads", self.workloads.len())
    }
}

// === impl Reader ===

impl Reader {
    /// Takes in one object; the error says what was expected.
    fn enter(&mut self, path: &Path, manifest: &Manifest) -> Result<(), String> {
        let holder = HolderKind::from_kind(&manifest.group, &manifest.kind);
        let is_ours =
            holder.is_some() || (manifest.group.is_empty() && matches!(&*manifest.kind, "ConfigMap" | "Namespace"));
        if !is_ours {
            return Ok(());
        }
        self.once(path, manifest)?;
        let read = match (holder, &*manifest.kind) {
            (Some(kind), _) => self.workload(kind, manifest),
            (None, "Namespace") => self.namespace(manifest),
            (None, _) => self.config_map(manifest),
        };
        read.map_err(|error| format!("{manifest} as Kubernetes has it ({})", manifest::without_place(&error)))
    }

    /// Of two objects of one name nobody knows which one counts.
    fn once(&mut self, path: &Path, manifest: &Manifest) -> Result<(), String> {
        if manifest.name.is_empty() {
            return Err(format!("metadata.name of the {} (found none)", manifest.kind));
        }
        let key = [&manifest.group, &manifest.kind, &manifest.namespace, &manifest.name].map(Clone::clone);
        let place = format!("{}, {}", path.display(), manifest.place);
        match self.places.insert(key.into(), place) {
            None => Ok(()),
            Some(first) => Err(format!("each object once (found {manifest} again, first in {first})")),
        }
    }

    fn config_map(&mut self, manifest: &Manifest) -> Result<(), serde_json::Error> {
        let object = ConfigMap::parse(&manifest.json)?;
        let metadata = &object.metadata;
        let stored = Stored {
            resource_version: metadata.resource_version.clone().into_owned(),
            deleting: metadata.deletion_timestamp.is_some(),
            declared: Declared::read(metadata.labels.get(names::CATALOG_LABEL), &object.content),
            // What others have proven elsewhere is not asked for here, so there is nothing to lift either.
            usage: Usage::default(),
            hold: Hold::parse(metadata.annotations.get(names::HOLD)),
            sharing: Sharing::new(&manifest.namespace, metadata.annotations.get(names::SHARED_WITH)),
        };
        let key = CatalogKey::new(&manifest.namespace, &manifest.name);
        if stored.declared != Declared::Ordinary {
            self.snapshot.index.apply_catalog(key.clone(), CatalogFacts::of(&object));
        }
        self.snapshot.catalogs.insert(key, stored);
        Ok(())
    }

    fn workload(&mut self, kind: HolderKind, manifest: &Manifest) -> Result<(), serde_json::Error> {
        let mut workload = Workload::parse(&manifest.json)?;
        workload.metadata.namespace.clone_from(&manifest.namespace);
        let facts = Facts::of(kind, &workload);
        let id = facts.id.clone();
        self.snapshot.index.guard(&manifest.namespace, &manifest.namespace);
        self.snapshot.index.apply(facts);
        self.snapshot.workloads.insert(id, workload);
        Ok(())
    }

    fn namespace(&mut self, manifest: &Manifest) -> Result<(), serde_json::Error> {
        #[derive(Deserialize)]
        struct Namespace {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            #[serde(default)]
            deletion_timestamp: Option<String>,
        }
        let namespace: Namespace = serde_json::from_str(&manifest.json)?;
        if namespace.metadata.deletion_timestamp.is_some() {
            self.snapshot.terminating.insert(manifest.name.as_str().into());
        }
        Ok(())
    }
}

// === helpers ===

fn at(manifest: &Manifest, expected: &str) -> ManifestError {
    let item = manifest.place.item.map_or_else(String::new, |item| format!(", in item {item} of the list"));
    ManifestError { line: manifest.place.line, column: 1, expected: format!("{expected}{item}") }
}

fn not_utf8(bytes: &[u8], error: std::str::Utf8Error) -> ManifestError {
    let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
    ManifestError { line, column: 1, expected: "UTF-8 (found something else in this line)".to_owned() }
}

#[cfg(test)]
mod tests;
