//! Rollback targets: what is said, and what is denied, where only a rollback would need what goes.

use super::{Case, NONE, entry, idle, json};
use crate::catalog::EntryName;
use crate::guard::{Guard, RollbackTargets, WhileInUse};
use crate::holder::{Holders, ObjectId, Workload};
use crate::object::{HolderKind, Owner, RollbackTarget, Workload as Object};
use crate::policy::{Caller, TargetsOf, WorkloadChange, needs};
use std::collections::BTreeMap;

impl Case {
    fn targets(self, targets: &'static [(&'static str, u64)]) -> Self {
        Self { targets, ..self }
    }

    fn rollback_targets(self, rollback_targets: RollbackTargets) -> Self {
        Self { guard: Guard { rollback_targets, ..self.guard }, ..self }
    }

    /// Those of the case's targets that were asked for.
    pub(super) fn targets_among(&self, of: &TargetsOf) -> BTreeMap<EntryName, Holders> {
        let known = self.targets.iter().map(|(name, revision)| (entry(name), old_replica_set(*revision)));
        known.filter(|(name, _)| of.entries.contains(name)).collect()
    }

    /// The case's target that needs `wanted`, where targets hold.
    pub(super) fn held_target(&self, wanted: &EntryName) -> Option<Holders> {
        let mut targets = self.targets.iter().filter(|_| self.guard.rollback_targets.hold());
        targets.find(|(name, _)| *name == wanted.as_str()).map(|(_, revision)| old_replica_set(*revision))
    }
}

fn old_replica_set(revision: u64) -> Holders {
    let workload = Workload {
        kind: "ReplicaSet".into(),
        namespace: "prod".into(),
        name: format!("api-{revision}").into(),
        template: false,
        pods: 0,
        pod_names: Vec::new(),
        rollback_target: Some(RollbackTarget {
            owner: Owner { kind: "Deployment".into(), name: "api".into() },
            revision: Some(revision),
        }),
        unreadable: None,
    };
    Holders { workloads: vec![workload], workloads_total: 1, pods_total: 0 }
}

/// v1 goes, which is proven Idle.
fn removal() -> Case {
    let old = json(Some("keys"), &idle(r#""v1""#), r#"{"v1":"a","v2":"b"}"#);
    Case::new(Some(old), Some(json(Some("keys"), NONE, r#"{"v2":"b"}"#)))
}

#[test]
fn whoever_removes_what_a_rollback_needs_is_told() {
    let decision = removal().targets(&[("v1", 4)]).decide();
    assert!(decision.allowed(), "{decision:?}");
    assert_eq!(
        decision.warnings,
        [
            "modelguard: entry v1 is what a rollback of Deployment prod/api (revision 4) would need; add it again before \
             you roll back"
        ]
    );
}

#[test]
fn nobody_is_told_of_what_no_rollback_needs() {
    for case in [
        removal().targets(&[]),
        removal().targets(&[("v2", 4)]),
        removal().targets(&[("v1", 4)]).rollback_targets(RollbackTargets::Ignore),
        removal().targets(&[("v1", 4)]).rollback_targets(RollbackTargets::Hold),
    ] {
        let decision = case.decide();
        assert!(decision.allowed() && decision.warnings.is_empty(), "{decision:?}");
    }
}

#[test]
fn a_deletion_and_a_deferred_removal_tell_of_it_as_well() {
    let all_idle = Some(json(Some("keys"), &idle(r#""v1","v2""#), r#"{"v1":"a","v2":"b"}"#));
    let deleted = Case::new(all_idle, None).targets(&[("v1", 4), ("v2", 5)]).decide();
    assert!(deleted.allowed(), "{deleted:?}");
    assert_eq!(
        deleted.warnings,
        ["modelguard: entries v1, v2 are what a rollback of Deployment prod/api (revisions 4, 5) would need; \
             add them again before you roll back"]
    );
    let ours = Case { caller: Caller { own: true, ..Caller::default() }, ..removal() };
    assert!(ours.targets(&[("v1", 4)]).decide().warnings.is_empty(), "nobody reads it");
}

#[test]
fn a_rollback_target_that_holds_is_named_with_the_way_out() {
    let old = json(Some("keys"), NONE, r#"{"v1":"a","v2":"b"}"#);
    let new = json(Some("keys"), NONE, r#"{"v2":"b"}"#);
    for while_in_use in [WhileInUse::Deny, WhileInUse::Wait] {
        let guard = Guard { while_in_use, rollback_targets: RollbackTargets::Hold, ..Guard::default() };
        let case = Case { guard, ..Case::new(Some(old.clone()), Some(new.clone())) };
        let decision = case.targets(&[("v1", 4)]).decide();
        let denial = decision.denial.expect("a denial");
        assert_eq!((denial.code.id(), denial.status, denial.retry_after), ("MG101", 403, None), "{while_in_use}");
        assert_eq!(
            denial.message,
            "[MG101] models: entry v1 is still used by rollback target ReplicaSet prod/api-4 of Deployment api (revision 4).\n\
             This is step 3 (remove) of a release. Only a rollback would need it: lower its owner's \
             revisionHistoryLimit, or delete the old ReplicaSet, if nobody is to roll back to it. See: kubectl modelguard \
             status models -n prod"
        );
    }
}

#[test]
fn a_replica_set_at_zero_brings_what_it_needs_only_where_rollback_targets_hold() {
    let object = Object::parse(
        r#"{"metadata":{"name":"api-1","namespace":"prod","ownerReferences":[{"apiVersion":"apps/v1","kind":"Deployment",
            "name":"api","uid":"1","controller":true}]},
            "spec":{"replicas":0,"template":{"metadata":{"annotations":{"modelguard.dev/uses":"models:v1"}},
                "spec":{"containers":[]}}}}"#,
    )
    .unwrap();
    let id = ObjectId { kind: HolderKind::ReplicaSet, namespace: "prod".into(), name: "api-1".into() };
    for rollback_targets in RollbackTargets::ALL {
        let guard = Guard { rollback_targets, ..Guard::default() };
        let change = WorkloadChange::new(id.clone(), None, &object, Caller::default(), guard);
        assert_eq!(change.added().count() == 1, rollback_targets.hold(), "{rollback_targets}");
        let kept = WorkloadChange::new(id.clone(), Some(&object), &object, Caller::default(), guard);
        assert_eq!(kept.added().count(), 0, "{rollback_targets}");
        let asks = needs(&crate::policy::Request::Workload(change.into()), &super::terms());
        assert_eq!(asks.catalogs.len() == 1, rollback_targets.hold(), "{rollback_targets}");
    }
}
