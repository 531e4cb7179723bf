//! One shape that every holder kind is read into.
//!
//! ```text
//! JSON ──▶ Workload ──pod_template(kind)──▶ PodTemplate { annotations, spec }
//!              ├─ is_live(kind): whether pods run, or can come, from it
//!              └─ controller, pending_revision: what else it hangs on
//! ```

use super::{HolderKind, Object, Spec, StringMap, Template, nullable, object, objects};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// The annotations by which a Deployment, and a Rollout, numbers its ReplicaSets.
const REVISIONS: [(HolderKind, &str); 2] = [
    (HolderKind::Deployment, "deployment.kubernetes.io/revision"),
    (HolderKind::Rollout, "rollout.argoproj.io/revision"),
];

/// An object of any [`HolderKind`]: the fields that references and holding rest on.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// Its metadata.
    pub metadata: WorkloadMetadata,
    /// Its spec; a ControllerRevision has none.
    pub spec: Option<Spec>,
    /// Its status.
    pub status: WorkloadStatus,
    /// What a ControllerRevision keeps.
    pub data: Option<RevisionData>,
}

/// The metadata of a holder.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadMetadata {
    /// Name; empty on a CREATE with `generateName`.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Namespace; references that name none mean this one. Who reads manifests fills it in.
    #[serde(deserialize_with = "nullable")]
    pub namespace: String,
    /// UID, once the API server has given one.
    #[serde(deserialize_with = "nullable")]
    pub uid: String,
    /// The revision that the next compare-and-swap compares.
    #[serde(deserialize_with = "nullable")]
    pub resource_version: String,
    /// Counts the changes of the spec.
    pub generation: Option<i64>,
    /// When it was made, RFC 3339 in UTC and whole seconds, so that texts compare as times do.
    pub creation_timestamp: Option<Box<str>>,
    /// Set once the object is being deleted; it holds until it is gone.
    pub deletion_timestamp: Option<String>,
    /// Annotations.
    #[serde(deserialize_with = "owned")]
    pub annotations: StringMap<'static>,
    /// The label by which a Rollout knows one of its ReplicaSets.
    #[serde(rename = "labels", deserialize_with = "rollout_hash")]
    pub rollout_hash: Option<Box<str>>,
    /// The one of `ownerReferences` that controls it.
    #[serde(rename = "ownerReferences", deserialize_with = "controller")]
    pub controller: Option<Owner>,
}

/// The status of a holder.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Of a Pod.
    #[serde(deserialize_with = "nullable")]
    pub phase: String,
    /// Of a Job: `Complete` and `Failed` end it.
    #[serde(deserialize_with = "objects")]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that the rest of the status is about.
    #[serde(deserialize_with = "generation")]
    pub observed_generation: Option<i64>,
    /// Of a StatefulSet: the revision that it is coming from.
    #[serde(deserialize_with = "nullable")]
    pub current_revision: String,
    /// Of a StatefulSet: the revision that it is going to.
    #[serde(deserialize_with = "nullable")]
    pub update_revision: String,
    /// Of a Rollout: by what it knows the ReplicaSet that was promoted last.
    #[serde(rename = "stableRS", deserialize_with = "nullable")]
    pub stable_replica_set: String,
    /// Of what has replicas: how many pods there are, how many of them are of the current template, and how many, of
    /// whatever template, are ready.
    #[serde(deserialize_with = "nullable")]
    pub replicas: i64,
    /// See there.
    #[serde(deserialize_with = "nullable")]
    pub updated_replicas: i64,
    /// See there.
    #[serde(deserialize_with = "nullable")]
    pub ready_replicas: i64,
    /// The same of a DaemonSet.
    #[serde(deserialize_with = "nullable")]
    pub current_number_scheduled: i64,
    /// See there.
    #[serde(deserialize_with = "nullable")]
    pub updated_number_scheduled: i64,
    /// See there.
    #[serde(deserialize_with = "nullable")]
    pub number_ready: i64,
}

/// One condition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// What it says.
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    #[serde(deserialize_with = "nullable")]
    pub status: String,
}

/// What a ControllerRevision keeps: any JSON that its controller likes.
#[derive(Clone, Debug)]
pub enum RevisionData {
    /// The patch that StatefulSets and DaemonSets keep: `{"spec":{"template":{…}}}`.
    Template(Box<Template>),
    /// Something else; holds why it is not that patch.
    Other(Box<str>),
}

/// What a Deployment may make pods from that is paused, and at zero: the ReplicaSet that was made last.
pub const NEWEST_REPLICA_SET: &str = "";

/// The controller that owns an object (`metadata.ownerReferences[]` with `controller: true`).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Owner {
    /// Its kind, of any API group.
    pub kind: Box<str>,
    /// Its name, in the object's own namespace.
    pub name: Box<str>,
}

/// An old ReplicaSet at zero, which its Deployment or Rollout keeps to roll back to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RollbackTarget {
    /// Whose it is, in the same namespace.
    pub owner: Owner,
    /// The number that `undo --to-revision` takes.
    pub revision: Option<u64>,
}

/// What a pod is, or is to be made from.
#[derive(Clone, Copy, Debug)]
pub struct PodTemplate<'a> {
    /// Its annotations.
    pub annotations: &'a StringMap<'static>,
    /// Its spec.
    pub spec: &'a Spec,
}

/// Why an object that must have a pod template has none that can be read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum NoTemplate {
    /// The field is not there.
    #[error("expected {0}, found nothing")]
    Missing(&'static str),
    /// The template is there, without its spec.
    #[error("expected {0}.spec, found nothing")]
    NoSpec(&'static str),
    /// A StatefulSet keeps something else in its ControllerRevision than we know.
    #[error("expected data.spec.template: {0}")]
    Revision(Box<str>),
}

// === impl Workload ===

impl<'de> Deserialize<'de> for Workload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Object<WorkloadMetadata>,
            #[serde(default, deserialize_with = "object")]
            spec: Option<Spec>,
            #[serde(default, deserialize_with = "object")]
            status: Option<WorkloadStatus>,
            #[serde(default)]
            data: Option<RevisionData>,
        }
        let Object(wire) = Object::<Wire>::deserialize(deserializer)?;
        Ok(Self {
            metadata: wire.metadata.0,
            spec: wire.spec,
            status: wire.status.unwrap_or_default(),
            data: wire.data,
        })
    }
}

impl Workload {
    /// Reads an object from its JSON.
    ///
    /// # Errors
    /// What could not be read, with line and column. Such an object is never absent, see
    /// [`References::unreadable`](crate::reference::References::unreadable).
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// The controller that owns it.
    pub fn controller(&self) -> Option<&Owner> {
        self.metadata.controller.as_ref()
    }

    /// Whether pods run, or can still come, from it. Only then it holds, or serves, anything.
    ///
    /// An object that is being deleted is live until it is gone. Of a StatefulSet's ControllerRevision only the
    /// StatefulSet knows, by [`Workload::pending_revision`], as a Rollout of its ReplicaSet at zero; a DaemonSet never
    /// goes back to one by itself.
    pub fn is_live(&self, kind: HolderKind) -> bool {
        match kind {
            HolderKind::ControllerRevision => {
                self.controller().is_some_and(|owner| *owner.kind == *HolderKind::StatefulSet.kind())
            }
            HolderKind::Job => !self.is_finished(),
            HolderKind::Pod => !matches!(self.status.phase.as_str(), "Succeeded" | "Failed"),
            HolderKind::ReplicaSet => self.replicas() != 0,
            HolderKind::Rollout => !self.borrows_its_template(),
            HolderKind::CronJob
            | HolderKind::DaemonSet
            | HolderKind::Deployment
            | HolderKind::ReplicationController
            | HolderKind::StatefulSet => true,
        }
    }

    /// Whose rollback would bring it back to life: that of a Deployment or Rollout which keeps it at zero. Both delete what
    /// is older than their `revisionHistoryLimit`, so all that is there is within the history.
    pub fn rollback_target(&self, kind: HolderKind) -> Option<RollbackTarget> {
        let owner = self.controller()?;
        let (_, annotation) = REVISIONS.into_iter().find(|(kind, _)| *owner.kind == *kind.kind())?;
        let is_target = kind == HolderKind::ReplicaSet && !self.is_live(kind);
        let revision = self.metadata.annotations.get(annotation);
        let revision = revision.and_then(|number| number.parse().ok());
        is_target.then(|| RollbackTarget { owner: owner.clone(), revision })
    }

    /// How many pods it wants.
    pub fn replicas(&self) -> i64 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    /// Whether any of its pods is ready, of whatever template.
    pub fn has_ready_pods(&self) -> bool {
        self.status.ready_replicas > 0 || self.status.number_ready > 0
    }

    /// Whether one of its ready pods is of the current template for certain: there are more ready ones than old ones.
    ///
    /// During a rollout that is less than there may be, for a status does not tell old pods that are ready from new ones.
    pub fn has_ready_current_pods(&self) -> bool {
        let status = &self.status;
        let of_replicas = status.ready_replicas > status.replicas - status.updated_replicas;
        let of_nodes = status.number_ready > status.current_number_scheduled - status.updated_number_scheduled;
        let seen = self.metadata.generation.is_none() || self.metadata.generation == status.observed_generation;
        seen && (of_replicas || of_nodes)
    }

    /// What pods may still be made from, beside its template: of a StatefulSet the name of a ControllerRevision, of a
    /// Rollout the `rollout_hash` of a ReplicaSet, of a Deployment [`NEWEST_REPLICA_SET`].
    ///
    /// Until its controller has seen the newest template, both revisions of a StatefulSet's status are the old one, and
    /// pods still come from it. Under `OnDelete` none do, but they would again once that is a rolling update with a partition.
    /// A Rollout may go back to what is stable until something else was promoted, were it at zero meanwhile. A paused
    /// Deployment at zero that is scaled up makes pods from its newest ReplicaSet, where its template has none yet
    /// (`FindActiveOrLatest` in `pkg/controller/deployment/util`).
    pub fn pending_revision(&self, kind: HolderKind) -> Option<&str> {
        let status = &self.status;
        match kind {
            HolderKind::Rollout => Some(status.stable_replica_set.as_str()).filter(|hash| !hash.is_empty()),
            HolderKind::StatefulSet => {
                let current = status.current_revision.as_str();
                let seen = self.metadata.generation.is_none() || self.metadata.generation == status.observed_generation;
                (!current.is_empty() && (!seen || current != status.update_revision)).then_some(current)
            }
            HolderKind::Deployment => {
                let is_paused = self.spec.as_ref().is_some_and(|spec| spec.paused);
                (is_paused && self.replicas() == 0).then_some(NEWEST_REPLICA_SET)
            }
            _ => None,
        }
    }

    /// The pod template, or what takes its place in an object of this kind.
    ///
    /// # Errors
    /// [`NoTemplate`] if there is none; on a server every object of these kinds has one.
    pub fn pod_template(&self, kind: HolderKind) -> Result<PodTemplate<'_>, NoTemplate> {
        let spec = self.spec.as_ref().ok_or(NoTemplate::Missing("spec"));
        match kind {
            HolderKind::ControllerRevision => match &self.data {
                None => Err(NoTemplate::Missing("data")),
                Some(RevisionData::Other(reason)) => Err(NoTemplate::Revision(reason.clone())),
                Some(RevisionData::Template(it)) => view(Some(it), "data.spec.template"),
            },
            HolderKind::CronJob => {
                let job = spec?.job_template.as_ref().and_then(|it| it.spec.as_ref());
                let template = job.and_then(|it| it.template.as_deref());
                view(template, "spec.jobTemplate.spec.template")
            }
            HolderKind::Pod => Ok(PodTemplate { annotations: &self.metadata.annotations, spec: spec? }),
            HolderKind::DaemonSet
            | HolderKind::Deployment
            | HolderKind::Job
            | HolderKind::ReplicaSet
            | HolderKind::ReplicationController
            | HolderKind::Rollout
            | HolderKind::StatefulSet => view(spec?.template.as_deref(), "spec.template"),
        }
    }

    /// Of a Rollout: whether its pods are made from the template of another object, which holds by itself. One that has
    /// a template all the same is refused by its controller; it holds what that says.
    fn borrows_its_template(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| {
            spec.workload_ref.is_some() && spec.template.as_ref().is_none_or(|template| template.spec.is_none())
        })
    }

    /// Of a Job: whether it will start no pod again.
    fn is_finished(&self) -> bool {
        self.status
            .conditions
            .iter()
            .any(|one| matches!(one.kind.as_str(), "Complete" | "Failed") && one.status == "True")
    }
}

// === impl RevisionData ===

impl<'de> Deserialize<'de> for RevisionData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Patch {
            spec: Object<PatchSpec>,
        }
        #[derive(Deserialize)]
        struct PatchSpec {
            template: Object<Box<Template>>,
        }
        // Read in two steps, for another controller's data must not make the object unreadable. Of duplicate
        // keys the last one counts here, as it does for the StatefulSet controller.
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(match Object::<Patch>::deserialize(value) {
            Ok(Object(patch)) => Self::Template(patch.spec.0.template.0),
            Err(error) => Self::Other(error.to_string().into()),
        })
    }
}

// === helpers ===

fn view<'a>(template: Option<&'a Template>, path: &'static str) -> Result<PodTemplate<'a>, NoTemplate> {
    let template = template.ok_or(NoTemplate::Missing(path))?;
    Ok(PodTemplate {
        annotations: &template.metadata.annotations,
        spec: template.spec.as_ref().ok_or(NoTemplate::NoSpec(path))?,
    })
}

fn owned<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StringMap<'static>, D::Error> {
    nullable(deserializer).map(StringMap::into_owned)
}

/// Takes the one label out of `labels`.
fn rollout_hash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<str>>, D::Error> {
    #[derive(Deserialize)]
    struct Labels {
        #[serde(rename = "rollouts-pod-template-hash", default)]
        hash: Option<Box<str>>,
    }
    let labels: Option<Labels> = object(deserializer)?;
    Ok(labels.and_then(|labels| labels.hash))
}

/// A number, or a text as Rollouts write it; what is none was written by a version that hashed the spec instead.
fn generation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Generation {
        Number(i64),
        Text(String),
    }
    let read: Option<Generation> = Option::deserialize(deserializer)?;
    Ok(read.and_then(|read| match read {
        Generation::Number(number) => Some(number),
        Generation::Text(text) => text.parse().ok(),
    }))
}

/// Takes the controller out of `ownerReferences`; the API server allows at most one.
fn controller<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Owner>, D::Error> {
    #[derive(Deserialize)]
    struct OwnerReference {
        kind: Box<str>,
        name: Box<str>,
        #[serde(default)]
        controller: Option<bool>,
    }
    let owners: Vec<OwnerReference> = objects(deserializer)?;
    let controller = owners.into_iter().find(|one| one.controller == Some(true));
    Ok(controller.map(|OwnerReference { kind, name, .. }| Owner { kind, name }))
}

#[cfg(test)]
mod tests;
