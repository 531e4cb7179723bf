//! Counts holders by their top-level workload, in memory that does not depend on the number of pods.

use super::owner::Controller;
use super::pods::Pods;
use crate::holder::{Holders, Workload};
use crate::object::{HolderKind, Owner, RollbackTarget};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// How many pods of a workload are named.
const NAMES: usize = 3;

/// Holders, counted so far.
#[derive(Debug, Default)]
pub(super) struct Tally<'a> {
    /// By namespace, kind and name.
    workloads: BTreeMap<(&'a str, &'a str, &'a str), Count<'a>>,
    /// Bare pods that are too many to have a place of their own.
    more_bare_pods: usize,
}

#[derive(Debug, Default)]
struct Count<'a> {
    template: bool,
    pods: usize,
    /// The first few, sorted.
    names: Vec<&'a str>,
    /// Who may roll back to it, and to which revision.
    rollback_target: Option<(&'a Controller, Option<u64>)>,
    unreadable: Option<Cow<'a, str>>,
}

// === impl Tally ===

impl<'a> Tally<'a> {
    /// Counts the pod template of something that a workload owns: it holds, and comes to an end by itself.
    pub(super) fn older_template(
        &mut self,
        namespace: &'a str,
        kind: &'a str,
        name: &'a str,
        unreadable: Option<Cow<'a, str>>,
    ) {
        self.count(namespace, kind, name).explain(unreadable);
    }

    /// Counts a workload's own pod template.
    pub(super) fn template(
        &mut self,
        namespace: &'a str,
        kind: &'a str,
        name: &'a str,
        unreadable: Option<Cow<'a, str>>,
    ) {
        let count = self.count(namespace, kind, name);
        count.template = true;
        count.explain(unreadable);
    }

    /// Counts a ReplicaSet that only a rollback would bring back, for itself: its owner may need something else.
    pub(super) fn rollback_target(
        &mut self,
        namespace: &'a str,
        name: &'a str,
        owner: &'a Controller,
        revision: Option<u64>,
    ) {
        let count = self.count(namespace, HolderKind::ReplicaSet.kind(), name);
        count.rollback_target = Some((owner, revision));
    }

    /// Counts pods of one owner.
    pub(super) fn pods(
        &mut self,
        namespace: &'a str,
        kind: &'a str,
        name: &'a str,
        pods: &'a Pods,
        unreadable: Option<&'a str>,
    ) {
        let count = self.count(namespace, kind, name);
        count.pods += pods.len();
        count.names.extend(pods.iter().take(NAMES));
        count.names.sort_unstable();
        count.names.truncate(NAMES);
        count.explain(unreadable.map(Cow::Borrowed));
    }

    /// Counts pods that nobody owns, each for itself. As only the first few holders are named, so are these.
    pub(super) fn bare_pods(&mut self, namespace: &'a str, pods: &'a Pods, unreadable: Option<&'a str>) {
        for name in pods.iter().take(Holders::MOST) {
            let count = self.count(namespace, "Pod", name);
            count.pods += 1;
            count.names = vec![name];
            count.explain(unreadable.map(Cow::Borrowed));
        }
        self.more_bare_pods += pods.len().saturating_sub(Holders::MOST);
    }

    /// The holders.
    pub(super) fn finish(self) -> Holders {
        let pods: usize = self.workloads.values().map(|count| count.pods).sum();
        Holders {
            workloads_total: self.workloads.len() + self.more_bare_pods,
            pods_total: pods + self.more_bare_pods,
            workloads: self
                .workloads
                .into_iter()
                .take(Holders::MOST)
                .map(|((namespace, kind, name), count)| count.named(namespace, kind, name))
                .collect(),
        }
    }

    fn count(&mut self, namespace: &'a str, kind: &'a str, name: &'a str) -> &mut Count<'a> {
        self.workloads.entry((namespace, kind, name)).or_default()
    }
}

// === impl Count ===

impl<'a> Count<'a> {
    /// Keeps one of several reasons, always the same one.
    fn explain(&mut self, reason: Option<Cow<'a, str>>) {
        self.unreadable = match (self.unreadable.take(), reason) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    fn named(self, namespace: &str, kind: &str, name: &str) -> Workload {
        let owner = |it: &Controller| Owner { kind: it.kind().into(), name: it.name().into() };
        let target = |(it, revision): (&Controller, _)| RollbackTarget { owner: owner(it), revision };
        Workload {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
            template: self.template,
            pods: self.pods,
            pod_names: self.names.into_iter().map(Into::into).collect(),
            rollback_target: self.rollback_target.map(target),
            unreadable: self.unreadable.map(Into::into),
        }
    }
}
