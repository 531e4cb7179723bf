//! The spec of a pod, or of what pods are made from: the fields that can refer to a ConfigMap.
//!
//! ```text
//! Spec ─┬─ containers, initContainers, ephemeralContainers ──▶ env, envFrom
//!       ├─ volumes ──▶ configMap, projected
//!       └─ template, jobTemplate ──▶ Template { metadata, spec: Spec }
//! ```

use super::workload::WorkloadMetadata;
use super::{nullable, object, objects};
use serde::{Deserialize, Deserializer};

/// The spec of any holder kind; which of its fields mean something depends on the kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// How many pods are wanted; absent means 1.
    pub replicas: Option<i64>,
    /// The pod template of a workload or of a job template.
    #[serde(deserialize_with = "object")]
    pub template: Option<Box<Template>>,
    /// Of a Deployment: its template waits, and what runs is only scaled.
    #[serde(deserialize_with = "nullable")]
    pub paused: bool,
    /// Of a Rollout: whose template it uses instead of one of its own.
    #[serde(deserialize_with = "object")]
    pub workload_ref: Option<WorkloadRef>,
    /// The job template of a CronJob.
    #[serde(deserialize_with = "object")]
    pub job_template: Option<Box<Template>>,
    /// Containers of a pod.
    #[serde(deserialize_with = "objects")]
    pub containers: Vec<Container>,
    /// Containers that run before those, and sidecars.
    #[serde(deserialize_with = "objects")]
    pub init_containers: Vec<Container>,
    /// Containers that were added to a running pod.
    #[serde(deserialize_with = "objects")]
    pub ephemeral_containers: Vec<Container>,
    /// Volumes of a pod.
    #[serde(deserialize_with = "objects")]
    pub volumes: Vec<Volume>,
}

/// Another workload; that there is one is all that counts.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct WorkloadRef {}

/// What objects are made from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Template {
    /// Its metadata; only the annotations are ever set.
    #[serde(deserialize_with = "metadata")]
    pub metadata: WorkloadMetadata,
    /// Its spec.
    #[serde(deserialize_with = "object")]
    pub spec: Option<Spec>,
}

/// A container of any of the three lists.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Single variables.
    #[serde(deserialize_with = "objects")]
    pub env: Vec<EnvVar>,
    /// Sources of many variables.
    #[serde(deserialize_with = "objects")]
    pub env_from: Vec<EnvFrom>,
}

/// One variable.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EnvVar {
    /// Where its value comes from, if it is not written down.
    #[serde(deserialize_with = "object")]
    pub value_from: Option<EnvVarSource>,
}

/// Where a variable's value comes from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EnvVarSource {
    /// One key of a ConfigMap.
    #[serde(deserialize_with = "object")]
    pub config_map_key_ref: Option<ConfigMapKey>,
}

/// One key of a ConfigMap.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigMapKey {
    /// The ConfigMap's name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// The key.
    #[serde(deserialize_with = "nullable")]
    pub key: String,
    /// Whether the pod starts without it.
    #[serde(deserialize_with = "nullable")]
    pub optional: bool,
}

/// A source of many variables.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EnvFrom {
    /// Every key of a ConfigMap.
    #[serde(deserialize_with = "object")]
    pub config_map_ref: Option<ConfigMapSource>,
}

/// A volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    /// A ConfigMap as files.
    #[serde(deserialize_with = "object")]
    pub config_map: Option<ConfigMapSource>,
    /// Several sources in one folder.
    #[serde(deserialize_with = "object")]
    pub projected: Option<Projected>,
}

/// A projected volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Projected {
    /// Its sources.
    #[serde(deserialize_with = "objects")]
    pub sources: Vec<Projection>,
}

/// One source of a projected volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Projection {
    /// A ConfigMap as files.
    #[serde(deserialize_with = "object")]
    pub config_map: Option<ConfigMapSource>,
}

/// A ConfigMap, or some keys of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigMapSource {
    /// The ConfigMap's name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// The keys; none named means all of them.
    #[serde(deserialize_with = "objects")]
    pub items: Vec<KeyToPath>,
    /// Whether the pod starts without it.
    #[serde(deserialize_with = "nullable")]
    pub optional: bool,
}

/// A key that becomes a file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeyToPath {
    /// The key.
    #[serde(deserialize_with = "nullable")]
    pub key: String,
}

// === impl Spec ===

impl Spec {
    /// The containers of all three lists.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().chain(&self.init_containers).chain(&self.ephemeral_containers)
    }
}

// === helpers ===

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WorkloadMetadata, D::Error> {
    object(deserializer).map(Option::unwrap_or_default)
}
