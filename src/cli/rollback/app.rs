//! The app that goes back: a Deployment or an Argo Rollout, and the template that it had before.
//!
//! ```text
//! workload ─┬─ its ReplicaSets, numbered by an annotation ──▶ the one before the newest: a Deployment's, as `kubectl rollout undo`
//!           └─ status.stableRS ───────────────────────────▶ what a Rollout's canary has not replaced yet
//! ```

use super::{Refusal, patient};
use crate::cli::connect::Cluster;
use crate::object::{HolderKind, Workload};
use crate::reference::{CatalogKey, Need, References};
use anyhow::{Context as _, bail};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Who changes the template, as `kubectl-rollout` does by `kubectl rollout undo`: whoever applies it next may conflict with
/// that, and learns who it was.
const MANAGER: &str = "modelguard-rollback";

/// The kinds of app that can go back, with what differs between them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Deployment,
    Rollout,
}

/// An app, as `--with` names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AppRef {
    kind: Kind,
    name: String,
}

/// An app as it is now.
pub(super) struct App {
    pub(super) name: AppRef,
    object: Value,
    replica_sets: Vec<Value>,
}

/// A template that it had, and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Former {
    /// The ReplicaSet that keeps it.
    pub(super) replica_set: String,
    /// The number that the app's kind gives it.
    pub(super) revision: String,
    template: Value,
}

// === impl Kind ===

impl Kind {
    fn resource(self) -> ApiResource {
        match self {
            Self::Deployment => ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment")),
            Self::Rollout => ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::Rollout => "rollout",
        }
    }

    /// The annotation by which it numbers its ReplicaSets.
    fn revision(self) -> &'static str {
        match self {
            Self::Deployment => "deployment.kubernetes.io/revision",
            Self::Rollout => "rollout.argoproj.io/revision",
        }
    }

    /// The label that it gives the pods of one template.
    fn hash(self) -> &'static str {
        match self {
            Self::Deployment => "pod-template-hash",
            Self::Rollout => "rollouts-pod-template-hash",
        }
    }
}

// === impl AppRef ===

impl FromStr for AppRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').unwrap_or_default();
        let kind = match kind {
            "deployment" | "deployments" | "deploy" => Some(Kind::Deployment),
            "rollout" | "rollouts" | "ro" => Some(Kind::Rollout),
            _ => None,
        };
        match kind.filter(|_| !name.is_empty()) {
            Some(kind) => Ok(Self { kind, name: name.to_owned() }),
            None => Err("expected deployment/NAME or rollout/NAME".to_owned()),
        }
    }
}

impl fmt::Display for AppRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.name(), self.name)
    }
}

impl AppRef {
    fn api(&self, cluster: &Cluster) -> Api<DynamicObject> {
        Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &self.kind.resource())
    }
}

// === impl App ===

impl App {
    /// Reads the app and its ReplicaSets.
    pub(super) async fn read(cluster: &Cluster, name: &AppRef) -> anyhow::Result<Self> {
        let found = name.api(cluster).get_opt(&name.name).await.with_context(|| format!("read {name}"))?;
        let found = found.with_context(|| format!("there is no {name} in namespace {}", cluster.namespace))?;
        let object = serde_json::to_value(found).with_context(|| format!("read {name}"))?;
        let uid = &object["metadata"]["uid"];
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "ReplicaSet"));
        let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource);
        let listed = api.list(&ListParams::default()).await.context("list ReplicaSets")?;
        let is_its = |it: &Value| {
            it["metadata"]["ownerReferences"].as_array().is_some_and(|owners| owners.iter().any(|it| it["uid"] == *uid))
        };
        let all = listed.items.into_iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>();
        let replica_sets = all.context("read the ReplicaSets")?.into_iter().filter(is_its).collect();
        Ok(Self { name: name.clone(), object, replica_sets })
    }

    /// The template before the newest one; of a Rollout in the middle of a canary the one that is still stable.
    pub(super) fn former(&self) -> anyhow::Result<Former> {
        let mut all = self.replica_sets.iter().map(|it| self.former_of(it)).collect::<Vec<_>>();
        all.sort_by_key(|former| former.revision.parse::<u64>().unwrap_or_default());
        let stable = self.object["status"]["stableRS"].as_str().unwrap_or_default();
        let is_canary = !stable.is_empty() && self.object["status"]["currentPodHash"] != stable;
        let is_stable = |it: &&Value| it["metadata"]["labels"][self.name.kind.hash()] == stable;
        if self.name.kind == Kind::Rollout && is_canary {
            let found = self.replica_sets.iter().find(is_stable).map(|it| self.former_of(it));
            return found.with_context(|| format!("{} has no ReplicaSet of its stable template {stable}", self.name));
        }
        if all.len() < 2 {
            bail!("{} has had one template only: there is nothing to go back to", self.name);
        }
        Ok(all.swap_remove(all.len() - 2))
    }

    /// The template that this ReplicaSet keeps.
    pub(super) fn kept_by(&self, replica_set: &str) -> anyhow::Result<Former> {
        let found = self.replica_sets.iter().find(|it| it["metadata"]["name"] == replica_set);
        let found = found.map(|it| self.former_of(it));
        found.with_context(|| {
            format!("{} no longer has ReplicaSet {replica_set}, which keeps what to go back to", self.name)
        })
    }

    fn former_of(&self, replica_set: &Value) -> Former {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut template = replica_set["spec"]["template"].clone();
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove(self.name.kind.hash());
        }
        Former {
            replica_set: text(&replica_set["metadata"]["name"]),
            revision: text(&replica_set["metadata"]["annotations"][self.name.kind.revision()]),
            template,
        }
    }

    /// Whether it has this template.
    pub(super) fn has(&self, former: &Former) -> bool {
        self.object["spec"]["template"] == former.template
    }

    /// Whether all its pods are of its template, and available; else how far that is.
    pub(super) fn progress(&self) -> Result<(), String> {
        let (spec, status) = (&self.object["spec"], &self.object["status"]);
        let number = |value: &Value| value.as_i64().unwrap_or_default();
        let wanted = spec["replicas"].as_i64().unwrap_or(1);
        let [updated, available, all] =
            ["updatedReplicas", "availableReplicas", "replicas"].map(|field| number(&status[field]));
        let generation = number(&self.object["metadata"]["generation"]);
        // Argo writes it as a text.
        let observed = &status["observedGeneration"];
        let observed = observed.as_i64().or_else(|| observed.as_str()?.parse().ok()).unwrap_or_default();
        let is_whole = match self.name.kind {
            Kind::Deployment => updated >= wanted && all <= updated && available >= wanted,
            Kind::Rollout => status["stableRS"] == status["currentPodHash"] && updated >= wanted && available >= wanted,
        };
        if observed >= generation && is_whole {
            return Ok(());
        }
        Err(format!("{updated} of {wanted} pods have the former template, {available} are available, {all} in all"))
    }

    /// Gives it this template.
    pub(super) async fn roll_back(&self, cluster: &Cluster, former: &Former, dry_run: bool) -> Result<(), Refusal> {
        let patch = json!([{"op": "replace", "path": "/spec/template", "value": former.template}]);
        let patch: json_patch::Patch = serde_json::from_value(patch).context("make a patch")?;
        let params = PatchParams { dry_run, field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.name.api(cluster);
        let patch = Patch::Json::<()>(patch);
        patient(async || api.patch(&self.name.name, &params, &patch).await).await.map(drop)
    }
}

// === impl Former ===

impl Former {
    /// What it needs of one catalog.
    pub(super) fn needs(&self, namespace: &str, catalog: &CatalogKey) -> anyhow::Result<BTreeSet<Need>> {
        let object = json!({
            "metadata": {"name": self.replica_set, "namespace": namespace},
            "spec": {"template": self.template},
        });
        let workload = Workload::parse(&object.to_string()).context("read the former template")?;
        let references = References::of_template(HolderKind::ReplicaSet, &workload);
        if let Some(problem) = references.unreadable {
            bail!("what the former template of ReplicaSet {} needs cannot be read: {problem}", self.replica_set);
        }
        Ok(references.needs.into_iter().filter(|it| it.catalog == *catalog).map(|it| it.need).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica_set(kind: Kind, name: &str, revision: &str, uses: &str) -> Value {
        json!({
            "metadata": {"name": name, "labels": {kind.hash(): name}, "annotations": {kind.revision(): revision}},
            "spec": {"template": {
                "metadata": {"labels": {"app": "api", kind.hash(): name}, "annotations": {"modelguard.dev/uses": uses}},
                "spec": {"containers": []},
            }},
        })
    }

    fn app(kind: Kind, status: &Value) -> App {
        let sets = [("b", "2", "models:v2"), ("c", "10", "models:v3"), ("a", "1", "models:v1")];
        let replica_sets = sets.map(|(name, revision, uses)| replica_set(kind, name, revision, uses)).to_vec();
        let name = AppRef { kind, name: "api".to_owned() };
        App {
            name,
            object: json!({"metadata": {"generation": 4}, "spec": {"replicas": 3}, "status": status}),
            replica_sets,
        }
    }

    #[test]
    fn an_app_is_named_as_kubectl_names_it() {
        assert_eq!("deploy/api".parse::<AppRef>().unwrap().to_string(), "deployment/api");
        assert_eq!("rollout/api".parse::<AppRef>().unwrap().to_string(), "rollout/api");
        for wrong in ["api", "statefulset/api", "deployment/", ""] {
            assert!(wrong.parse::<AppRef>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_former_template_is_the_one_before_the_newest() {
        let former = app(Kind::Deployment, &Value::Null).former().unwrap();
        assert_eq!((&*former.replica_set, &*former.revision), ("b", "2"));
        assert_eq!(former.template["metadata"]["labels"], json!({"app": "api"}), "without the hash");
        let needs = former.needs("prod", &CatalogKey::new("prod", "models")).unwrap();
        assert_eq!(needs.iter().filter_map(Need::entry).map(|it| it.as_str()).collect::<Vec<_>>(), ["v2"]);
        assert!(former.needs("prod", &CatalogKey::new("prod", "others")).unwrap().is_empty());
    }

    #[test]
    fn the_former_template_of_a_canary_is_the_stable_one() {
        let middle = app(Kind::Rollout, &json!({"stableRS": "a", "currentPodHash": "c"}));
        assert_eq!(middle.former().unwrap().replica_set, "a");
        let promoted = app(Kind::Rollout, &json!({"stableRS": "c", "currentPodHash": "c"}));
        assert_eq!(promoted.former().unwrap().replica_set, "b");
    }

    #[test]
    fn an_app_with_one_template_has_nothing_to_go_back_to() {
        let mut app = app(Kind::Deployment, &Value::Null);
        app.replica_sets.truncate(1);
        assert_eq!(
            app.former().unwrap_err().to_string(),
            "deployment/api has had one template only: there is nothing to go back to"
        );
    }

    #[test]
    fn an_app_is_back_when_all_its_pods_are() {
        let of = |kind, status: &Value| app(kind, status).progress();
        let whole = json!({"observedGeneration": 4, "updatedReplicas": 3, "availableReplicas": 3, "replicas": 3});
        assert_eq!(of(Kind::Deployment, &whole), Ok(()));
        for (field, value) in
            [("observedGeneration", 3), ("updatedReplicas", 2), ("availableReplicas", 2), ("replicas", 4)]
        {
            let mut status = whole.clone();
            status[field] = value.into();
            assert!(of(Kind::Deployment, &status).is_err(), "{field}");
        }
        let mut rollout = whole;
        rollout["observedGeneration"] = "4".into();
        rollout["stableRS"] = "a".into();
        rollout["currentPodHash"] = "c".into();
        let far = "3 of 3 pods have the former template, 3 are available, 3 in all".to_owned();
        assert_eq!(of(Kind::Rollout, &rollout), Err(far));
        rollout["currentPodHash"] = "a".into();
        assert_eq!(of(Kind::Rollout, &rollout), Ok(()));
    }
}
