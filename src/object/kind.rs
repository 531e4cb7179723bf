//! The kinds of object that can hold entries, and what the API server calls them.

use std::fmt;

/// The kinds of object whose pod template, or itself, can hold entries.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum HolderKind {
    /// `batch/v1`
    CronJob,
    /// `apps/v1`; holds only for the StatefulSet that still recreates pods from it.
    ControllerRevision,
    /// `apps/v1`
    DaemonSet,
    /// `apps/v1`
    Deployment,
    /// `batch/v1`
    Job,
    /// `v1`
    Pod,
    /// `apps/v1`
    ReplicaSet,
    /// `v1`
    ReplicationController,
    /// `argoproj.io/v1alpha1`, where Argo Rollouts is installed.
    Rollout,
    /// `apps/v1`
    StatefulSet,
}

// === impl HolderKind ===

impl HolderKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::CronJob,
        Self::ControllerRevision,
        Self::DaemonSet,
        Self::Deployment,
        Self::Job,
        Self::Pod,
        Self::ReplicaSet,
        Self::ReplicationController,
        Self::Rollout,
        Self::StatefulSet,
    ];

    /// The kind of that API group (`""` for core) and Kubernetes kind.
    ///
    /// The version is not asked for: webhooks are registered for one, and the API server converts to it.
    pub fn from_kind(group: &str, kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|holder| holder.group() == group && holder.kind() == kind)
    }

    /// Whether every API server knows it; the others are there once somebody installs them, and may go again.
    pub const fn is_built_in(self) -> bool {
        !matches!(self, Self::Rollout)
    }

    /// Whether a workload of this kind is guarded as a server.
    pub const fn can_serve(self) -> bool {
        matches!(self, Self::DaemonSet | Self::Deployment | Self::StatefulSet)
    }

    /// The API group, `""` for core.
    pub const fn group(self) -> &'static str {
        match self {
            Self::CronJob | Self::Job => "batch",
            Self::ControllerRevision | Self::DaemonSet | Self::Deployment | Self::ReplicaSet | Self::StatefulSet => {
                "apps"
            }
            Self::Pod | Self::ReplicationController => "",
            Self::Rollout => "argoproj.io",
        }
    }

    /// The API version that is read, within the group.
    pub const fn version(self) -> &'static str {
        match self {
            Self::Rollout => "v1alpha1",
            _ => "v1",
        }
    }

    /// Group and version, as `apiVersion` writes them.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::CronJob | Self::Job => "batch/v1",
            Self::ControllerRevision | Self::DaemonSet | Self::Deployment | Self::ReplicaSet | Self::StatefulSet => {
                "apps/v1"
            }
            Self::Pod | Self::ReplicationController => "v1",
            Self::Rollout => "argoproj.io/v1alpha1",
        }
    }

    /// The Kubernetes kind.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::CronJob => "CronJob",
            Self::ControllerRevision => "ControllerRevision",
            Self::DaemonSet => "DaemonSet",
            Self::Deployment => "Deployment",
            Self::Job => "Job",
            Self::Pod => "Pod",
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
            Self::Rollout => "Rollout",
            Self::StatefulSet => "StatefulSet",
        }
    }

    /// The resource, as it stands in URLs.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::CronJob => "cronjobs",
            Self::ControllerRevision => "controllerrevisions",
            Self::DaemonSet => "daemonsets",
            Self::Deployment => "deployments",
            Self::Job => "jobs",
            Self::Pod => "pods",
            Self::ReplicaSet => "replicasets",
            Self::ReplicationController => "replicationcontrollers",
            Self::Rollout => "rollouts",
            Self::StatefulSet => "statefulsets",
        }
    }
}

impl fmt::Display for HolderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_is_found_again() {
        for kind in HolderKind::ALL {
            assert_eq!(HolderKind::from_kind(kind.group(), kind.kind()), Some(kind));
            assert_eq!(kind.to_string(), kind.kind());
        }
    }

    #[test]
    fn all_lists_each_kind_once() {
        let all = BTreeSet::from(HolderKind::ALL);
        assert_eq!(all.len(), HolderKind::ALL.len());
    }

    #[test]
    fn an_api_version_is_group_and_version() {
        for kind in HolderKind::ALL {
            let joined = format!("{}/{}", kind.group(), kind.version());
            assert_eq!(kind.api_version(), joined.trim_start_matches('/'));
        }
    }

    #[test]
    fn the_same_name_in_another_group_is_another_kind() {
        for (group, kind) in [
            ("", "Deployment"),
            ("apps", "Pod"),
            ("apps.kruise.io", "StatefulSet"),
            ("apps", "deployment"),
            ("rollouts.kruise.io", "Rollout"),
        ] {
            assert_eq!(HolderKind::from_kind(group, kind), None, "{group}/{kind}");
        }
    }
}
