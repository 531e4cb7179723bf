//! Rollback targets: what an old ReplicaSet at zero counts for.

use super::{Index, entry, everybody, key, object};
use crate::catalog::Format;
use crate::guard::RollbackTargets;
use crate::holder::Holders;
use crate::index::{Demand, Facts};
use crate::object::{HolderKind, NEWEST_REPLICA_SET, Owner, RollbackTarget};
use crate::sharing::Sharing;

fn deployment(uses: &str) -> Facts {
    object(HolderKind::Deployment, "api").uses("models", uses)
}

fn old_replica_set(name: &str, uses: &str, revision: u64) -> Facts {
    old_replica_set_of("Deployment", name, uses, revision)
}

fn old_replica_set_of(kind: &str, name: &str, uses: &str, revision: u64) -> Facts {
    let owner = Owner { kind: kind.into(), name: "api".into() };
    let facts = object(HolderKind::ReplicaSet, name).uses("models", uses).of_owner(kind, "api");
    Facts { rollback_target: Some(RollbackTarget { owner, revision: Some(revision) }), ..facts }
}

/// As the Rollout knows it by `hash`.
fn old_replica_set_of_rollout(hash: &str, uses: &str, revision: u64) -> Facts {
    let facts = old_replica_set_of("Rollout", &format!("api-{hash}"), uses, revision);
    Facts { rollout_hash: Some(hash.into()), ..facts }
}

/// A Rollout that would go back to the ReplicaSet of that hash.
fn rollout(uses: &str, stable: &str) -> Facts {
    let facts = object(HolderKind::Rollout, "api").uses("models", uses);
    Facts { pending_revision: Some(stable.into()), ..facts }
}

/// A Deployment that came from v1 to v2.
fn rolled_out(mode: RollbackTargets) -> Index {
    let mut index = Index::new(mode);
    index.guard("prod", "uid-1");
    index.apply(deployment("v2"));
    index.apply(old_replica_set("api-1", "v1", 1));
    index
}

fn targets(index: &Index, name: &str) -> Vec<(Box<str>, Option<u64>)> {
    let all = index.rollback_targets(&key("models"), &everybody(), Format::Yaml, [&entry(name)]);
    let targets = all.into_values().flat_map(|holders| holders.workloads);
    targets.filter_map(|it| it.rollback_target).map(|it| (it.owner.name, it.revision)).collect()
}

#[test]
fn a_rollback_target_is_named_and_holds_nothing() {
    let mut index = rolled_out(RollbackTargets::Warn);
    assert!(!index.holds("v1"));
    assert_eq!(index.of("v1"), Holders::default());
    assert_eq!(targets(&index, "v1"), [("api".into(), Some(1))]);
    assert_eq!(targets(&index, "v2"), [], "the Deployment needs it as it is");
    assert!(index.apply(old_replica_set("api-1", "v3", 1)), "it may come to hold");
    assert_eq!(targets(&index, "v1"), []);
    assert_eq!(targets(&index, "v3"), [("api".into(), Some(1))]);
}

#[test]
fn a_rollback_target_holds_where_the_guard_says_so() {
    let mut index = rolled_out(RollbackTargets::Hold);
    assert!(index.holds("v1"));
    let holders = index.of("v1");
    let named: Vec<_> = holders.workloads.iter().map(|it| (&*it.kind, &*it.name, it.template, it.pods)).collect();
    assert_eq!(named, [("ReplicaSet", "api-1", false, 0)]);
    assert!(!holders.will_go(), "no rollout takes it away");
    assert!(index.apply(old_replica_set("api-1", "v3", 1)), "v1 is free");
    assert!(!index.holds("v1"));
    assert!(index.delete(&old_replica_set("api-1", "v3", 1).id));
    assert!(!index.holds("v3"));
}

#[test]
fn a_rollback_target_that_is_ignored_is_not_named() {
    let index = rolled_out(RollbackTargets::Ignore);
    assert!(!index.holds("v1"));
    assert_eq!(targets(&index, "v1"), []);
}

#[test]
fn a_replica_set_is_a_rollback_target_while_it_is_at_zero() {
    for mode in RollbackTargets::ALL {
        let mut index = rolled_out(mode);
        let alive = Facts { rollback_target: None, ..old_replica_set("api-1", "v1", 1) };
        assert_eq!(index.apply(alive), mode != RollbackTargets::Hold || index.holds("v1"), "{mode}");
        assert!(index.holds("v1"), "{mode}");
        assert_eq!(targets(&index, "v1"), [], "{mode}");
        index.apply(old_replica_set("api-1", "v1", 1));
        assert_eq!(index.holds("v1"), mode.hold(), "{mode}");
    }
}

#[test]
fn what_is_stable_holds_at_zero_until_something_else_is_promoted() {
    for mode in RollbackTargets::ALL {
        let mut index = Index::new(mode);
        index.guard("prod", "uid-1");
        assert!(index.apply(old_replica_set_of_rollout("aaa", "v1", 1)), "it may come to hold");
        assert_eq!(index.holds("v1"), mode.hold(), "{mode}: of that no Rollout is known");
        assert!(index.apply(rollout("v2", "aaa")), "{mode}");
        assert!(index.holds("v1"), "{mode}");
        let holders = index.of("v1");
        let named: Vec<_> = holders.workloads.iter().map(|it| (&*it.kind, &*it.name, it.template)).collect();
        assert!(named.contains(&("Rollout", "api", false)), "{mode}: {named:?}");
        assert_eq!(targets(&index, "v1"), [], "{mode}: no rollback needs it, the Rollout does");
        assert_eq!(index.demands().filter(|it| !Demand::holders(&[*it]).is_empty()).count(), 2, "{mode}");

        assert!(index.apply(rollout("v2", "bbb")), "{mode}");
        assert_eq!(index.holds("v1"), mode.hold(), "{mode}");
        let expected = if mode == RollbackTargets::Ignore { vec![] } else { vec![("api".into(), Some(1))] };
        assert_eq!(targets(&index, "v1"), expected, "{mode}");
        assert_eq!(targets(&index, "v2"), [], "{mode}");

        index.apply(rollout("v2", "aaa"));
        assert!(index.delete(&rollout("v2", "aaa").id), "{mode}");
        assert_eq!(index.holds("v1"), mode.hold(), "{mode}");
    }
}

#[test]
fn what_a_deployment_kept_holds_while_that_is_paused_at_zero() {
    for mode in RollbackTargets::ALL {
        let mut index = rolled_out(mode);
        let paused = Facts { pending_revision: Some(NEWEST_REPLICA_SET.into()), ..deployment("v2") };
        assert!(index.apply(paused.clone()), "{mode}");
        assert!(index.holds("v1"), "{mode}");
        let holders = index.of("v1");
        let named: Vec<_> = holders.workloads.iter().map(|it| (&*it.kind, &*it.name, it.template)).collect();
        assert!(named.contains(&("ReplicaSet", "api-1", true)), "{mode}: {named:?}");
        assert!(!holders.will_go(), "{mode}: nobody who waits is helped");
        assert_eq!(targets(&index, "v1"), [], "{mode}: it takes no rollback");
        let demands: Vec<_> = index.demands().map(|it| Demand::holders(&[it]).workloads_total).collect();
        assert_eq!(demands.iter().sum::<usize>(), 1, "{mode}: nobody lacks what is not there, but for the template");
        let newer = old_replica_set("api-3", "v3", 3);
        index.apply(Facts { created: Some("2026-11-20T09:12:44Z".into()), ..newer.clone() });
        assert_eq!((index.holds("v1"), index.holds("v3")), (mode.hold(), true), "{mode}: the newest is the one");
        index.delete(&newer.id);

        assert!(index.apply(deployment("v2")), "{mode}");
        assert_eq!(index.holds("v1"), mode.hold(), "{mode}");
        index.apply(paused.clone());
        index.apply(old_replica_set_of("Rollout", "api-1", "v1", 1));
        assert_eq!(index.holds("v1"), mode.hold(), "{mode}: it is another one's");
    }
}

#[test]
fn nothing_is_stable_but_a_replica_set_of_a_rollout_by_its_hash() {
    let of = |facts: Facts| {
        let mut index = Index::new(RollbackTargets::Warn);
        index.guard("prod", "uid-1");
        index.apply(rollout("v2", "aaa"));
        index.apply(facts);
        index.holds("v1")
    };
    let stable = old_replica_set_of_rollout("aaa", "v1", 1);
    assert!(of(stable.clone()));
    assert!(of(Facts { id: object(HolderKind::ReplicaSet, "adopted-5").id, ..stable.clone() }), "by whatever name");
    assert!(!of(Facts { rollout_hash: None, ..stable.clone() }));
    assert!(!of(Facts { rollout_hash: Some("bbb".into()), ..stable.clone() }));
    let other = |kind: &str, name: &str| stable.clone().of_owner(kind, name);
    assert!(!of(other("Rollout", "another")));
    assert!(!of(other("Deployment", "api")));
    assert!(!of(stable.within("apps")));
}

#[test]
fn a_rollout_lacks_nothing_whose_stable_replica_set_is_not_there() {
    let mut index = Index::default();
    index.guard("prod", "uid-1");
    index.apply(rollout("v2", "aaa"));
    assert!(!index.holds("v1"));
    assert!(index.holds("v2"));
}

#[test]
fn whoever_the_catalog_is_not_shared_with_is_no_target() {
    let mut index = Index::new(RollbackTargets::Warn);
    index.guard("apps", "uid-1");
    index.apply(old_replica_set("api-1", "v1", 1).within("apps"));
    let shared =
        |with| index.rollback_targets(&key("models"), &Sharing::new("prod", with), Format::Yaml, [&entry("v1")]);
    assert!(shared(None).is_empty());
    assert_eq!(shared(Some("apps")).len(), 1);
}
