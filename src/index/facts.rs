//! Facts: what the index keeps of an object, and all that it ever sees of one.

use crate::catalog::{Catalog, EntryName, Format};
use crate::holder::ObjectId;
use crate::names;
use crate::object::{ConfigMap, HolderKind, Owner, RollbackTarget, Workload};
use crate::reference::{CatalogKey, References};
use crate::retention::Retained;
use crate::revision;
use crate::sharing::Sharing;
use crate::usage::Usage;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::str::FromStr;

/// What one object of a holder kind needs, and what that hangs on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    /// Which object.
    pub id: ObjectId,
    /// Its controller.
    pub owner: Option<Owner>,
    /// What it needs, or why that cannot be read.
    pub references: References,
    /// What pods may still be made from, beside its template: see [`Workload::pending_revision`].
    pub pending_revision: Option<Box<str>>,
    /// Of an old ReplicaSet at zero: whose rollback would need that, for nothing else does, unless a
    /// Rollout goes back, or a paused Deployment goes on.
    pub rollback_target: Option<RollbackTarget>,
    /// By what the Rollout knows it that may go back to it.
    pub rollout_hash: Option<Box<str>>,
    /// When it was made: a Deployment that was paused at zero goes on with the newest.
    pub created: Option<Box<str>>,
}

/// What is kept of a model ConfigMap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CatalogFacts {
    /// Its UID: a ConfigMap that was deleted and made again is another one.
    pub uid: Box<str>,
    /// The revision that a write is conditional on.
    pub resource_version: Box<str>,
    /// Whether it is being deleted.
    pub is_going: bool,
    /// The number of the revision that it stores.
    pub revision: u64,
    /// What it lists; an error if its label names no format, or its content is not of it.
    pub listing: Result<Listing, Box<str>>,
    /// Its usage annotation.
    pub usage: Usage,
    /// When modelguard itself wrote that last, RFC 3339: no entry is marked since later.
    pub usage_written: Option<Box<str>>,
    /// Its retained annotation.
    pub retained: Retained,
    /// Its hold annotation, as people wrote it.
    pub hold: Option<Box<str>>,
    /// Its shared-with annotation, as people wrote it.
    pub shared_with: Option<Box<str>>,
}

/// The entries of a catalog, without their content.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listing {
    /// How the ConfigMap is read.
    pub format: Format,
    /// The names that it lists.
    pub entries: BTreeSet<EntryName>,
}

// === impl Facts ===

impl Facts {
    /// Extracts them; the object is not needed afterwards.
    pub fn of(kind: HolderKind, workload: &Workload) -> Self {
        let metadata = &workload.metadata;
        let rollback_target = workload.rollback_target(kind);
        let is_of_rollout = |target: &&RollbackTarget| *target.owner.kind == *HolderKind::Rollout.kind();
        let hash = rollback_target.as_ref().filter(is_of_rollout).and(metadata.rollout_hash.as_ref());
        let references = if rollback_target.is_some() { References::of_template } else { References::of };
        Self {
            id: ObjectId { kind, namespace: metadata.namespace.as_str().into(), name: metadata.name.as_str().into() },
            owner: workload.controller().cloned(),
            references: references(kind, workload),
            pending_revision: workload.pending_revision(kind).map(Into::into),
            rollout_hash: hash.cloned(),
            created: rollback_target.as_ref().and(metadata.creation_timestamp.as_ref()).cloned(),
            rollback_target,
        }
    }

    /// An object of which no more than its name is known: it holds all of its namespace.
    pub fn unreadable(id: ObjectId, reason: &str) -> Self {
        Self {
            id,
            owner: None,
            references: References::unreadable(reason),
            pending_revision: None,
            rollback_target: None,
            rollout_hash: None,
            created: None,
        }
    }

    /// As [`Facts::unreadable`], of an object in which some `modelguard.dev/uses` was found nevertheless.
    pub(super) fn salvage(id: ObjectId, reason: &str, uses: &str) -> Self {
        let references = References::salvage(reason, &id.namespace, uses);
        Self { references, ..Self::unreadable(id, reason) }
    }

    /// Whether a proof about `catalogs` must take the object into account, by itself or as one end of the link
    /// between a StatefulSet and its ControllerRevision, or a Rollout or paused Deployment and a ReplicaSet at zero.
    pub fn touches(&self, catalogs: &BTreeSet<CatalogKey>) -> bool {
        self.references.unreadable.is_some()
            || self.pending_revision.is_some()
            || self.id.kind == HolderKind::ControllerRevision
            || self.references.needs.iter().any(|reference| catalogs.contains(&reference.catalog))
    }

    /// Whether the index must keep them: an object that needs nothing matters only as a link.
    pub(super) fn matter(&self) -> bool {
        match self.id.kind {
            HolderKind::ControllerRevision => {
                self.owner.as_ref().is_some_and(|owner| *owner.kind == *HolderKind::StatefulSet.kind())
            }
            HolderKind::Pod => !self.references.is_empty(),
            HolderKind::CronJob
            | HolderKind::DaemonSet
            | HolderKind::Deployment
            | HolderKind::Job
            | HolderKind::ReplicaSet
            | HolderKind::ReplicationController
            | HolderKind::Rollout
            | HolderKind::StatefulSet => {
                !self.references.is_empty() || self.owner.is_some() || self.pending_revision.is_some()
            }
        }
    }
}

// === impl CatalogFacts ===

impl CatalogFacts {
    /// Extracts them from a ConfigMap that carries the catalog label.
    pub fn of(config_map: &ConfigMap<'_>) -> Self {
        let metadata = &config_map.metadata;
        let usage = metadata.annotations.get(names::USAGE);
        Self {
            uid: metadata.uid.as_ref().into(),
            resource_version: metadata.resource_version.as_ref().into(),
            is_going: metadata.deletion_timestamp.is_some(),
            revision: revision::number(config_map),
            listing: Listing::of(config_map),
            usage: Usage::parse(usage),
            usage_written: usage.and(metadata.managed_fields).and_then(usage_written),
            retained: Retained::of(config_map),
            hold: metadata.annotations.get(names::HOLD).map(Into::into),
            shared_with: metadata.annotations.get(names::SHARED_WITH).map(Into::into),
        }
    }

    /// Which namespaces' workloads may reference it, where it has this name.
    pub fn sharing(&self, key: &CatalogKey) -> Sharing {
        Sharing::new(&key.namespace, self.shared_with.as_deref())
    }

    /// A ConfigMap that does not decode: nothing is known but that, so every entry is InUse.
    pub fn unreadable(resource_version: &str, reason: &str) -> Self {
        Self {
            uid: "".into(),
            resource_version: resource_version.into(),
            is_going: false,
            revision: 0,
            listing: Err(reason.into()),
            usage: Usage::default(),
            usage_written: None,
            retained: Retained::default(),
            hold: None,
            shared_with: None,
        }
    }
}

// === impl Listing ===

impl Listing {
    fn of(config_map: &ConfigMap<'_>) -> Result<Self, Box<str>> {
        let label = config_map.metadata.labels.get(names::CATALOG_LABEL);
        let format = Format::from_str(label.unwrap_or_default()).map_err(|it| it.to_string())?;
        let catalog = Catalog::parse(format, &config_map.content).map_err(|error| error.to_string())?;
        Ok(Self { format, entries: catalog.names().cloned().collect() })
    }
}

// === helpers ===

/// When our own field manager wrote the usage annotation last.
fn usage_written(managed_fields: &RawValue) -> Option<Box<str>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Entry<'a> {
        #[serde(borrow, default)]
        manager: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        time: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        fields_v1: Option<&'a RawValue>,
    }
    let entries: Vec<Entry<'_>> = serde_json::from_str(managed_fields.get()).ok()?;
    let field = format!("\"f:{}\"", names::USAGE);
    let is_ours = |it: &Entry<'_>| {
        it.manager.as_deref() == Some(names::FIELD_MANAGER) && it.fields_v1.is_some_and(|it| it.get().contains(&field))
    };
    entries.into_iter().filter(is_ours).filter_map(|it| it.time).max().map(Into::into)
}

#[cfg(test)]
mod tests;
