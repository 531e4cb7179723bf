//! A cluster that is a folder: what was allowed is written, and pods follow their Deployment.

use super::webhook::Webhook;
use super::{Change, Scene, Step, Told};
use crate::cli::admit::{admit, code};
use crate::guard::Guard;
use crate::names;
use crate::world::standalone::{CarriedUsage, Standalone};
use anyhow::Context as _;
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;

/// How many pods the app has.
pub(super) const PODS: usize = 10;

/// What all steps do.
const OPERATION: &str = "UPDATE";

const NAMESPACE: &str = "prod";
const MODELS: &str = "extraction-models";
const APP: &str = "extraction-api";

/// What the names of pods end with.
const SUFFIXES: [&str; PODS] =
    ["2m8qd", "5kz7v", "7xw4n", "9ttbc", "b6hlr", "f4gsj", "hq2vx", "m9c5p", "rw8kd", "x2x4z"];

/// The objects of one scene.
pub(super) struct Cluster {
    dir: TempDir,
    world: Arc<Standalone>,
    config_map: Value,
    deployment: Value,
    /// The version that each pod references.
    pods: Vec<&'static str>,
}

impl Cluster {
    /// The cluster before the release: v2 is listed, and every pod uses it.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("modelguard-demo-").tempdir().context("make a temporary folder")?;
        let world = Arc::new(Standalone::open(dir.path(), Guard::default(), CarriedUsage::Ignored).await?);
        let (config_map, deployment) = (config_map(&["v2"]), deployment("v2"));
        let cluster = Self { dir, world, config_map, deployment, pods: vec!["v2"; PODS] };
        cluster.write()?;
        Ok(cluster)
    }

    /// What the webhook decides by.
    pub(super) fn world(&self) -> Arc<Standalone> {
        self.world.clone()
    }

    /// Asks for a change, if there is somebody to ask, and makes it if it is allowed.
    pub(super) async fn take(&mut self, scene: Scene, step: &Step, webhook: Option<&Webhook>) -> anyhow::Result<Told> {
        let (old, new) = match step.change {
            Change::Models(versions) => {
                let mut new = self.config_map.clone();
                new["data"] = models(versions);
                (&self.config_map, new)
            }
            Change::App(version, _) => {
                let mut new = self.deployment.clone();
                new["spec"]["template"] = template(version);
                (&self.deployment, new)
            }
        };
        let mut review = review(old, &new);
        let answer = match webhook {
            None => json!({"response": {"allowed": true}}),
            Some(webhook) => admit(&mut review, async |path, body| webhook.post(path, body).await).await?,
        };
        let allowed = answer["response"]["allowed"] == true;
        if allowed {
            self.apply(step.change, review["request"]["object"].take())?;
        }
        let message = answer["response"]["status"]["message"].as_str();
        Ok(Told {
            scene,
            step: step.number,
            operation: OPERATION,
            object: subject(step.change),
            allowed,
            code: message.and_then(code).map(str::to_owned),
            message: message.map(str::to_owned),
            dangling: self.world.dangling().await?.len(),
        })
    }

    /// Makes a change that was allowed: writes the object, and lets as many pods follow as the change says.
    fn apply(&mut self, change: Change, object: Value) -> anyhow::Result<()> {
        match change {
            Change::Models(_) => self.config_map = object,
            Change::App(version, pods) => {
                self.deployment = object;
                self.pods.iter_mut().take(pods).for_each(|pod| *pod = version);
            }
        }
        self.write()
    }

    /// Replaces the manifests, each file in one go: no reader ever sees half of one.
    fn write(&self) -> anyhow::Result<()> {
        let mut workloads = vec![self.deployment.clone()];
        for version in ["v2", "v3"] {
            let pods = self.pods.iter().zip(SUFFIXES).filter(|(of, _)| **of == version);
            let pods: Vec<_> = pods.map(|(_, suffix)| pod(version, suffix)).collect();
            workloads.push(replica_set(version, pods.len()));
            workloads.extend(pods);
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": workloads});
        for (name, manifest) in [("models", &self.config_map), ("workloads", &list)] {
            let hidden = self.dir.path().join(format!(".{name}"));
            let file = self.dir.path().join(format!("{name}.json"));
            let write = || fs::write(&hidden, manifest.to_string()).and_then(|()| fs::rename(&hidden, &file));
            write().with_context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    }
}

// === objects ===

fn config_map(versions: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": MODELS, "namespace": NAMESPACE, "labels": {names::CATALOG_LABEL: "yaml"}},
        "data": models(versions),
    })
}

/// The content of the model ConfigMap.
fn models(versions: &[&str]) -> Value {
    let entry =
        |version: &&str| format!("- name: extraction\n  version: {version}\n  uri: s3://models/extraction/{version}\n");
    json!({"models.yaml": versions.iter().map(entry).collect::<String>()})
}

fn deployment(version: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": APP, "namespace": NAMESPACE},
        "spec": {"replicas": PODS, "selector": {"matchLabels": {"app": APP}}, "template": template(version)},
    })
}

fn template(version: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": APP}, "annotations": {names::USES: format!("{MODELS}:extraction@{version}")}},
        "spec": {"containers": [{"name": "api", "image": format!("registry.example/extraction-api:{version}")}]},
    })
}

fn replica_set(version: &str, replicas: usize) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": metadata(&replica_set_name(version), "Deployment", APP),
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": APP}}, "template": template(version)},
    })
}

fn pod(version: &str, suffix: &str) -> Value {
    let owner = replica_set_name(version);
    let mut metadata = metadata(&format!("{owner}-{suffix}"), "ReplicaSet", &owner);
    let Value::Object(template) = template(version) else { return Value::Null };
    metadata["annotations"] = template["metadata"]["annotations"].clone();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"], "status": {"phase": "Running"}})
}

fn replica_set_name(version: &str) -> String {
    format!("{APP}-{}", if version == "v2" { "7c9f5" } else { "5d8b6" })
}

fn metadata(name: &str, owner_kind: &str, owner: &str) -> Value {
    let owner = json!({"apiVersion": "apps/v1", "kind": owner_kind, "name": owner, "controller": true});
    json!({"name": name, "namespace": NAMESPACE, "ownerReferences": [owner]})
}

// === reviews ===

/// What the API server would send for this change.
fn review(old: &Value, new: &Value) -> Value {
    let (group, version) = match new["apiVersion"].as_str() {
        Some("apps/v1") => ("apps", "v1"),
        _ => ("", "v1"),
    };
    let kind = &new["kind"];
    let plural = if kind == "ConfigMap" { "configmaps" } else { "deployments" };
    let id = std::iter::repeat_with(|| fastrand::digit(16)).take(12).collect::<String>();
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": format!("00000000-0000-4000-8000-{id}"),
            "kind": {"group": group, "version": version, "kind": kind},
            "resource": {"group": group, "version": version, "resource": plural},
            "namespace": NAMESPACE, "name": new["metadata"]["name"],
            "operation": OPERATION, "userInfo": {"username": "release-pipeline"},
            "object": new, "oldObject": old, "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "PatchOptions"},
        },
    })
}

fn subject(change: Change) -> String {
    match change {
        Change::Models(_) => format!("ConfigMap {NAMESPACE}/{MODELS}"),
        Change::App(..) => format!("Deployment {NAMESPACE}/{APP}"),
    }
}
