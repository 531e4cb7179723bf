//! What a workload says that it serves, by the annotation `modelguard.dev/serves` on its pod template.

use super::annotation::{self, Annotation};
use super::{CatalogKey, Need, Problems};
use crate::catalog::EntryName;
use crate::holder::ObjectId;
use crate::names;
use crate::object::{HolderKind, PodTemplate, Workload};
use std::collections::{BTreeMap, BTreeSet};

/// What a workload serves.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Serves {
    catalogs: BTreeMap<CatalogKey, Served>,
    /// What could not be read, and what was expected; `None` if all could.
    pub(super) unreadable: Option<Box<str>>,
}

/// What is served of one catalog.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Served {
    /// Every entry, now and later: `configmap:*`.
    All,
    /// These.
    Entries(BTreeSet<EntryName>),
}

/// What a workload served of one catalog, and would serve after a request; it leaves the difference.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Left {
    was: Served,
    is: Served,
}

/// A workload that serves something.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// Which one.
    pub id: ObjectId,
    /// What.
    pub serves: Serves,
}

/// A server as it was seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerState {
    /// Which one, and what it serves.
    pub server: Server,
    /// Whether it has a ready pod of its current template.
    pub is_ready: bool,
}

// === impl Serves ===

impl Serves {
    /// What a workload of this kind serves while it has pods: nothing unless it is one that is guarded as a server, a
    /// Deployment, StatefulSet or DaemonSet.
    pub fn of(kind: HolderKind, workload: &Workload) -> Self {
        if !kind.can_serve() || workload.replicas() == 0 || workload.metadata.deletion_timestamp.is_some() {
            return Self::default();
        }
        let template = workload.pod_template(kind);
        template.map(|template| Self::of_template(&workload.metadata.namespace, template)).unwrap_or_default()
    }

    pub(super) fn of_template(namespace: &str, template: PodTemplate<'_>) -> Self {
        let text = template.annotations.get(names::SERVES).unwrap_or_default();
        let mut catalogs = BTreeMap::<_, Served>::new();
        let mut problems = Problems::default();
        for item in annotation::parse(Annotation::Serves, namespace, text) {
            match item {
                Ok((catalog, need)) => catalogs.entry(catalog).or_default().add(need),
                Err(problem) => problems.add(&problem),
            }
        }
        Self { catalogs, unreadable: problems.reason() }
    }

    /// Whether it serves nothing that could be read.
    pub fn is_empty(&self) -> bool {
        self.catalogs.is_empty()
    }

    /// Whether it serves any entry of this catalog.
    pub(super) fn serves_any(&self, catalog: &CatalogKey) -> bool {
        self.catalogs.contains_key(catalog)
    }

    /// Whether it serves `entry` of this catalog.
    pub fn includes(&self, catalog: &CatalogKey, entry: &EntryName) -> bool {
        self.catalogs.get(catalog).is_some_and(|served| served.includes(entry))
    }

    /// What it leaves of each catalog when it comes to serve what `new` says.
    pub fn left(self, new: &Self) -> BTreeMap<CatalogKey, Left> {
        let left = self.catalogs.into_iter().filter_map(|(catalog, was)| {
            let is = new.catalogs.get(&catalog).cloned().unwrap_or_default();
            let left = Left { was, is };
            left.is_something().then_some((catalog, left))
        });
        left.collect()
    }
}

// === impl Served ===

impl Served {
    fn add(&mut self, need: Need) {
        match (self, need) {
            (served, Need::All) => *served = Self::All,
            (Self::Entries(entries), Need::Entry(entry)) => drop(entries.insert(entry)),
            (Self::All, Need::Entry(_)) => {}
        }
    }

    fn includes(&self, entry: &EntryName) -> bool {
        match self {
            Self::All => true,
            Self::Entries(entries) => entries.contains(entry),
        }
    }
}

impl Default for Served {
    /// Nothing.
    fn default() -> Self {
        Self::Entries(BTreeSet::new())
    }
}

// === impl Left ===

impl Left {
    /// Whether `entry` is left.
    pub fn includes(&self, entry: &EntryName) -> bool {
        self.was.includes(entry) && !self.is.includes(entry)
    }

    fn is_something(&self) -> bool {
        match &self.was {
            Served::All => self.is != Served::All,
            Served::Entries(entries) => entries.iter().any(|entry| !self.is.includes(entry)),
        }
    }
}

// === impl Server ===

impl Server {
    /// The server that `workload` is, ready or not; `None` if it serves nothing.
    pub fn of(kind: HolderKind, workload: &Workload) -> Option<Self> {
        let serves = Serves::of(kind, workload);
        let metadata = &workload.metadata;
        let id = ObjectId { kind, namespace: metadata.namespace.as_str().into(), name: metadata.name.as_str().into() };
        (!serves.is_empty()).then_some(Self { id, serves })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workload(serves: &str, spec: &str) -> Workload {
        let spec: serde_json::Value = serde_json::from_str(spec).unwrap();
        let mut object = json!({"metadata": {"name": "server", "namespace": "prod"}, "spec": spec});
        object["spec"]["template"] = json!({"metadata": {"annotations": {names::SERVES: serves}}, "spec": {}});
        serde_json::from_value(object).unwrap()
    }

    fn serves(text: &str) -> Serves {
        Serves::of(HolderKind::Deployment, &workload(text, "{}"))
    }

    fn entry(name: &str) -> EntryName {
        EntryName::new(name).unwrap()
    }

    #[test]
    fn what_is_left_is_what_was_served_and_is_not_any_more() {
        for (was, is, left, kept) in [
            ("models:v1", "", "v1", "v2"),
            ("models:v1, models:v2", "models:v2", "v1", "v2"),
            ("models:*", "", "v1", ""),
            ("models:*", "models:v2", "v1", "v2"),
            ("models:*, models:v2", "models:v2", "v1", "v2"),
            ("models:v1", "other:v1", "v1", "v2"),
            ("models:v1", "other/models:v1", "v1", "v2"),
        ] {
            let leaves = serves(was).left(&serves(is));
            let models = &leaves[&CatalogKey::new("prod", "models")];
            assert!(models.includes(&entry(left)), "{was:?} to {is:?}");
            assert!(kept.is_empty() || !models.includes(&entry(kept)), "{was:?} to {is:?}");
        }
        for (was, is) in [
            ("", ""),
            ("", "models:v1"),
            ("models:v1", "models:v2, models:v1"),
            ("models:v1", "models:*"),
            ("m:*", "m:*"),
        ] {
            assert!(serves(was).left(&serves(is)).is_empty(), "{was:?} to {is:?}");
        }
    }

    #[test]
    fn only_what_is_guarded_as_a_server_and_has_pods_serves() {
        let server = |kind, spec| Server::of(kind, &workload("models:v1", spec)).is_some();
        for kind in [HolderKind::Deployment, HolderKind::StatefulSet, HolderKind::DaemonSet] {
            assert!(server(kind, "{}") && server(kind, r#"{"replicas": 2}"#), "{kind}");
        }
        assert!(!server(HolderKind::Deployment, r#"{"replicas": 0}"#));
        assert!(!server(HolderKind::ReplicaSet, "{}"));
        let mut leaving = workload("models:v1", "{}");
        leaving.metadata.deletion_timestamp = Some("2026-11-23T14:00:00Z".to_owned());
        assert_eq!(Server::of(HolderKind::Deployment, &leaving), None);
    }
}
