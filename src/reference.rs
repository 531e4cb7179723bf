//! References: what a pod or a pod template needs of model ConfigMaps.
//!
//! ```text
//! Workload ──References::of(kind)──▶ References { needs: {Reference, …}, unreadable }
//!                                        Reference = (CatalogKey, Need, Origin)
//! ```
//! An object that is no holder now (a ReplicaSet at zero, a finished Job or Pod) has none. What cannot be read
//! is not absent: it is `unreadable`, and such an object holds every entry of its own namespace's catalogs
//! beside what could be read. What the cluster puts into every pod (`CLUSTER_MANAGED`) is no reference unless
//! `uses` says so. `serves` is the other side: what the pods offer instead of what they need.

mod annotation;
mod config_map;
mod env;
mod serves;

pub use serves::{Left, Served, Server, ServerState, Serves};

use crate::catalog::{EntryName, InvalidName};
use crate::names;
use crate::object::{HolderKind, PodTemplate, Workload};
use annotation::{Annotation, InvalidItem};
use std::collections::BTreeSet;
use std::fmt;
use thiserror::Error;

/// The most entries that one object may name in its annotation, and the most ConfigMaps in its spec: what is added is read
/// when the object is admitted, and an index keeps all of it.
const MOST: usize = 1000;

/// The longest reason that is kept, in characters: a denial is under 1,000, and an index keeps reasons.
const LONGEST_REASON: usize = 400;

/// ConfigMaps that Kubernetes and OpenShift write into each namespace, with a CA certificate in them, and project
/// into every pod beside its token. They are no model ConfigMaps, for their controllers undo every change; were
/// they references, each pod that starts would cost a read, and the index would keep every pod.
const CLUSTER_MANAGED: [&str; 2] = ["kube-root-ca.crt", "openshift-service-ca.crt"];

/// Namespace and name of a ConfigMap.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CatalogKey {
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
}

/// How much of a catalog is needed.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Need {
    /// Every entry, now and later: `envFrom`, or a mount without `items`.
    All,
    /// One entry.
    Entry(EntryName),
}

/// Where a reference stands; implicit ones count only if the ConfigMap is an opted-in `keys` catalog.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// `configMapKeyRef`, `envFrom`, a volume.
    Implicit,
    /// The annotation `modelguard.dev/uses`.
    Uses,
}

/// One need of one catalog.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Reference {
    /// The ConfigMap.
    pub catalog: CatalogKey,
    /// What is needed of it.
    pub need: Need,
    /// Where this was read.
    pub origin: Origin,
}

/// Everything that one object needs.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct References {
    /// What could be read.
    pub needs: BTreeSet<Reference>,
    /// What could not be read, and what was expected; `None` if all could.
    pub unreadable: Option<Box<str>>,
}

/// A ConfigMap, or one key of it, that a pod spec names without any annotation.
struct Mention<'a> {
    config_map: &'a str,
    /// `None` is all of them.
    key: Option<&'a str>,
}

/// What cannot be read in an object that decodes.
#[derive(Debug, Error)]
enum Unreadable {
    #[error(transparent)]
    Item(#[from] InvalidItem),
    #[error("expected the name of a ConfigMap, found none")]
    NoName,
    #[error("expected at most {MOST} {0}, found more")]
    TooMany(&'static str),
    #[error("ConfigMap {config_map:?}: expected a key, but it {problem}")]
    Key { config_map: String, problem: InvalidName },
}

/// The first problem of an object, and how many more there are.
#[derive(Default)]
struct Problems {
    first: Option<String>,
    more: usize,
}

// === impl CatalogKey ===

impl CatalogKey {
    /// Joins the two.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for CatalogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl Need ===

impl Need {
    /// The one entry, if it is one.
    pub fn entry(&self) -> Option<&EntryName> {
        match self {
            Self::All => None,
            Self::Entry(entry) => Some(entry),
        }
    }
}

// === impl References ===

impl References {
    /// Reads what the object needs; nothing once no pods can come from it.
    ///
    /// A ControllerRevision has the references of its StatefulSet's template at that time; whether the StatefulSet
    /// still makes pods from it is to be asked of [`Workload::pending_revision`].
    pub fn of(kind: HolderKind, workload: &Workload) -> Self {
        if workload.is_live(kind) { Self::of_template(kind, workload) } else { Self::default() }
    }

    /// Reads what pods of its template would need, whether any can come from it now or not.
    pub fn of_template(kind: HolderKind, workload: &Workload) -> Self {
        match workload.pod_template(kind) {
            Ok(template) => Self::read(&workload.metadata.namespace, template),
            Err(error) => Self::unreadable(&error.to_string()),
        }
    }

    /// What is known of an object that does not decode: nothing but that.
    pub fn unreadable(reason: &str) -> Self {
        Self { needs: BTreeSet::new(), unreadable: Some(bounded(reason)) }
    }

    /// As [`References::unreadable`], of an object whose `modelguard.dev/uses` could be got hold of nevertheless.
    ///
    /// That is enough, for only there can another namespace be named.
    pub fn salvage(reason: &str, namespace: &str, uses: &str) -> Self {
        Self { unreadable: Some(bounded(reason)), ..read_uses(namespace, uses).collect() }
    }

    /// The ConfigMaps of which anything is needed.
    pub fn catalogs(&self) -> BTreeSet<&CatalogKey> {
        self.needs.iter().map(|reference| &reference.catalog).collect()
    }

    /// Whether the object needs nothing, for certain.
    pub fn is_empty(&self) -> bool {
        self.needs.is_empty() && self.unreadable.is_none()
    }

    fn read(namespace: &str, template: PodTemplate<'_>) -> Self {
        let serves = Serves::of_template(namespace, template);
        let uses = template.annotations.get(names::USES).unwrap_or_default();
        let mentions = env::mentions(template.spec).chain(config_map::mentions(template.spec));
        let mentions = mentions.filter(|mention| !CLUSTER_MANAGED.contains(&mention.config_map));
        let implicit = mentions.filter_map(|mention| {
            let reference = mention.read(namespace);
            // What a server takes whole is what it offers, not what it needs.
            let offered = |it: &Reference| it.need == Need::All && serves.serves_any(&it.catalog);
            (!reference.as_ref().is_ok_and(offered)).then_some(reference)
        });
        let mut references: Self = read_uses(namespace, uses).chain(bounded_config_maps(implicit)).collect();
        // One more whole mount may be meant by it, and the first of the problems is enough to go on.
        references.unreadable = references.unreadable.or(serves.unreadable);
        references
    }
}

impl FromIterator<Result<Reference, Unreadable>> for References {
    fn from_iter<I: IntoIterator<Item = Result<Reference, Unreadable>>>(all: I) -> Self {
        let mut needs = BTreeSet::new();
        let mut problems = Problems::default();
        for one in all {
            match one {
                Ok(reference) => {
                    needs.insert(reference);
                }
                Err(problem) => problems.add(&problem),
            }
        }
        Self { needs, unreadable: problems.reason() }
    }
}

// === impl Mention ===

impl Mention<'_> {
    /// The API server admits no reference without a name, and no key that is not a valid entry; who reads
    /// something else does not understand the object.
    fn read(&self, namespace: &str) -> Result<Reference, Unreadable> {
        if self.config_map.is_empty() {
            return Err(Unreadable::NoName);
        }
        let need = match self.key.map(EntryName::new).transpose() {
            Ok(key) => key.map_or(Need::All, Need::Entry),
            Err(problem) => {
                let config_map = self.config_map.to_owned();
                return Err(Unreadable::Key { config_map, problem });
            }
        };
        Ok(Reference { catalog: CatalogKey::new(namespace, self.config_map), need, origin: Origin::Implicit })
    }
}

// === impl Problems ===

impl Problems {
    fn add(&mut self, problem: &impl fmt::Display) {
        if self.first.is_none() {
            self.first = Some(problem.to_string());
        } else {
            self.more += 1;
        }
    }

    fn reason(self) -> Option<Box<str>> {
        let first = bounded(&self.first?);
        Some(match self.more {
            0 => first,
            more => format!("{first} (and {more} more)").into(),
        })
    }
}

// === helpers ===

fn read_uses<'a>(namespace: &'a str, text: &'a str) -> impl Iterator<Item = Result<Reference, Unreadable>> + 'a {
    annotation::parse(Annotation::Uses, namespace, text).take(MOST + 1).enumerate().map(|(number, item)| {
        if number == MOST {
            return Err(Unreadable::TooMany("entries in modelguard.dev/uses"));
        }
        let (catalog, need) = item?;
        Ok(Reference { catalog, need, origin: Origin::Uses })
    })
}

/// The references to the first [`MOST`] ConfigMaps, and an error if there are more. Keys are no matter: a ConfigMap is read once.
fn bounded_config_maps(
    implicit: impl Iterator<Item = Result<Reference, Unreadable>>,
) -> impl Iterator<Item = Result<Reference, Unreadable>> {
    let mut known = BTreeSet::new();
    implicit.map(move |reference| {
        let reference = reference?;
        if known.len() < MOST && !known.contains(&reference.catalog) {
            known.insert(reference.catalog.clone());
        }
        if known.contains(&reference.catalog) { Ok(reference) } else { Err(Unreadable::TooMany("ConfigMaps")) }
    })
}

fn bounded(reason: &str) -> Box<str> {
    shortened(reason, LONGEST_REASON).into()
}

/// The first `max` characters, and a mark if there are more.
fn shortened(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests;
