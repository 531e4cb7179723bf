use super::*;
use crate::guard::{Guard, WhileInUse};
use crate::holder::Workload as HoldingWorkload;
use crate::names;
use crate::object::{HolderKind, Workload};
use crate::policy::{self, Caller, CurrentEpoch, Decision, Request};
use crate::sharing::Sharing;
use crate::usage::{Epoch, Usage};
use jiff::Timestamp;
use serde_json::{Value, json};

fn terms(guard: Guard) -> Terms {
    let epoch: CurrentEpoch = Ok(Epoch::new("e1"));
    Terms { epoch, guard, now: Timestamp::UNIX_EPOCH }
}

fn key() -> CatalogKey {
    CatalogKey::new("prod", "models")
}

fn entry(name: &str) -> EntryName {
    EntryName::new(name).unwrap()
}

fn id(name: &str) -> ObjectId {
    ObjectId { kind: HolderKind::Deployment, namespace: "prod".into(), name: name.into() }
}

/// A Deployment that serves this with one ready pod, unless `changes` says otherwise.
fn workload(name: &str, serves: &str, changes: &Value) -> Workload {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "prod", "generation": 1},
        "spec": {"template": {"metadata": {"annotations": {names::SERVES: serves}}, "spec": {"containers": []}}},
        "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1},
    });
    json_patch::merge(&mut object, changes);
    serde_json::from_value(object).unwrap()
}

fn server(name: &str, serves: &str) -> Server {
    Server::of(HolderKind::Deployment, &workload(name, serves, &json!({}))).unwrap()
}

/// `a` is deleted, and served this.
fn removal(serves: &str) -> WorkloadChange {
    WorkloadChange::removed(id("a"), &workload("a", serves, &json!({})), Caller::default())
}

fn holders(name: &str) -> Holders {
    let workload = HoldingWorkload {
        kind: "Deployment".into(),
        namespace: "prod".into(),
        name: name.into(),
        template: true,
        pods: 3,
        pod_names: vec![format!("{name}-x2x4z").into()],
        unreadable: None,
        rollback_target: None,
    };
    Holders { workloads: vec![workload], workloads_total: 1, pods_total: 3 }
}

/// A catalog with v1 and v2, whose v1 `api` uses, with these other servers.
fn facts(servers: &[(&str, &str)], departing: &[&str]) -> Facts {
    let json = json!({
        "metadata": {"name": "models", "namespace": "prod", "labels": {names::CATALOG_LABEL: "keys"}},
        "data": {"v1": "a", "v2": "b"},
    })
    .to_string();
    let object = crate::object::ConfigMap::parse(&json).unwrap();
    let usage = departing.iter().fold(Usage::default(), |usage, name| usage.departing(&id(name), "5").unwrap());
    let stored = Stored {
        resource_version: "7".to_owned(),
        deleting: false,
        declared: Declared::read(Some("keys"), &object.content),
        usage,
        hold: crate::holder::Hold::default(),
        sharing: Sharing::new("prod", None),
    };
    Facts {
        catalogs: [(key(), Ok(Some(stored)))].into(),
        terminating: [("prod".into(), Ok(false))].into(),
        left: [(key(), Ok([(entry("v1"), holders("api"))].into()))].into(),
        servers: Some(Ok(servers.iter().map(|(name, serves)| server(name, serves)).collect())),
        ..Facts::default()
    }
}

fn decide(change: WorkloadChange, facts: &Facts, guard: Guard) -> Decision {
    policy::decide(&Request::Workload(change.into()), facts, &terms(guard))
}

fn code(decision: &Decision) -> Option<(&'static str, u16)> {
    decision.denial.as_ref().map(|denial| (denial.code.id(), denial.status))
}

const DENIED: Option<(&str, u16)> = Some(("MG301", 403));
const UNREAD: Option<(&str, u16)> = Some(("MG501", 503));

#[test]
fn an_entry_in_use_keeps_a_ready_server() {
    for (what, serves, others, departing, expected) in [
        ("it is the only one", "models:v1", &[("a", "models:v1")][..], &[][..], DENIED),
        ("it serves all", "models:*", &[("a", "models:*")], &[], DENIED),
        ("another serves it", "models:v1", &[("a", "models:v1"), ("b", "models:v1")], &[], None),
        ("another serves all", "models:v1", &[("b", "models:*")], &[], None),
        ("another serves something else", "models:v1", &[("b", "models:v2, other:v1")], &[], DENIED),
        ("another leaves", "models:v1", &[("b", "models:v1")], &["b"], DENIED),
        ("one of two others leaves", "models:v1", &[("b", "models:v1"), ("c", "models:v1")], &["b"], None),
        ("it is recorded itself", "models:v1", &[("b", "models:v1")], &["a"], None),
    ] {
        let decision = decide(removal(serves), &facts(others, departing), Guard::default());
        assert_eq!(code(&decision), expected, "{what}: {decision:?}");
        let recorded: Vec<_> = decision.lifts.iter().map(|lift| lift.usage.departs(&id("a"))).collect();
        assert_eq!(recorded, if expected.is_none() { vec![true] } else { vec![] }, "{what}");
    }
}

#[test]
fn what_is_not_known_denies_and_what_nobody_uses_does_not() {
    let with = |change: fn(&mut Facts)| {
        let mut facts = facts(&[], &[]);
        change(&mut facts);
        code(&decide(removal("models:v1"), &facts, Guard::default()))
    };
    assert_eq!(with(|_| {}), DENIED);
    assert_eq!(with(|facts| facts.left = BTreeMap::new()), UNREAD);
    assert_eq!(with(|facts| facts.left = [(key(), Err(Unread::new("x", "y")))].into()), UNREAD);
    assert_eq!(with(|facts| facts.servers = None), UNREAD);
    assert_eq!(with(|facts| facts.servers = Some(Err(Unread::new("x", "y")))), UNREAD);
    assert_eq!(with(|facts| facts.catalogs = BTreeMap::new()), UNREAD);
    assert_eq!(with(|facts| facts.terminating = BTreeMap::new()), UNREAD);
    assert_eq!(with(|facts| facts.left = [(key(), Ok(BTreeMap::new()))].into()), None, "nobody uses it");
    assert_eq!(with(|facts| facts.left = [(key(), Ok([(entry("v1"), holders("a"))].into()))].into()), None, "itself");
    assert_eq!(with(|facts| facts.terminating = [("prod".into(), Ok(true))].into()), None, "the namespace goes");
    assert_eq!(with(|facts| facts.catalogs = [(key(), Ok(None))].into()), None, "there is no such catalog");
}

#[test]
fn too_many_departures_at_once_are_refused() {
    let names: Vec<_> = (0..40).map(|number| format!("s{number}")).collect();
    let departing: Vec<_> = names.iter().map(String::as_str).collect();
    let decision = decide(removal("models:v1"), &facts(&[("b", "models:v1")], &departing), Guard::default());
    assert_eq!(code(&decision), UNREAD, "{decision:?}");
}

#[test]
fn a_catalog_that_is_not_shared_has_no_server_elsewhere() {
    let mut foreign = facts(&[("b", "models:v1")], &[]);
    let Some(Ok(servers)) = &mut foreign.servers else { panic!("{foreign:?}") };
    servers[0].id.namespace = "other".into();
    assert_eq!(code(&decide(removal("models:v1"), &foreign, Guard::default())), DENIED);
}

#[test]
fn a_departure_is_what_ready_pods_serve_no_more() {
    let change = |old: &Value, serves: &str, new: &Value| {
        let (old, new) = (workload("a", "models:v1", old), workload("a", serves, new));
        code(&decide(
            WorkloadChange::new(id("a"), Some(&old), &new, Caller::default(), Guard::default()),
            &facts(&[], &[]),
            Guard::default(),
        ))
    };
    let zero = || json!({"spec": {"replicas": 0}});
    let unready = || json!({"status": {"readyReplicas": 0}});
    let going = || json!({"metadata": {"deletionTimestamp": "2026-11-23T14:00:00Z"}});
    assert_eq!(change(&json!({}), "models:v1", &zero()), DENIED);
    assert_eq!(change(&json!({}), "models:v2", &json!({})), DENIED);
    assert_eq!(change(&json!({}), "", &json!({})), DENIED);
    assert_eq!(change(&json!({}), "models:*", &json!({"spec": {"replicas": 1}})), None);
    assert_eq!(change(&unready(), "models:v2", &json!({})), None, "it is not ready");
    assert_eq!(change(&zero(), "models:v2", &zero()), None, "it has no pods");
    assert_eq!(change(&going(), "models:v2", &going()), None, "it goes already");
    let created =
        WorkloadChange::new(id("a"), None, &workload("a", "", &json!({})), Caller::default(), Guard::default());
    assert_eq!(created.left, BTreeMap::new());
}

#[test]
fn a_server_is_ready_when_it_has_more_ready_pods_than_old_ones() {
    let ready = |status: Value| workload("a", "models:v1", &json!({"status": status})).has_ready_current_pods();
    assert!(ready(json!({})));
    assert!(!ready(json!({"readyReplicas": null})));
    assert!(!ready(json!({"observedGeneration": 0})), "its controller has not seen the template");
    assert!(!ready(json!({"replicas": 2, "updatedReplicas": 1})), "the ready one may be the old one");
    assert!(ready(json!({"replicas": 2, "updatedReplicas": 1, "readyReplicas": 2})));
    let nodes = |updated: i64| {
        let status = json!({
            "observedGeneration": 1, "currentNumberScheduled": 2, "updatedNumberScheduled": updated, "numberReady": 1,
        });
        let object = json!({"metadata": {"generation": 1}, "status": status});
        serde_json::from_value::<Workload>(object).unwrap().has_ready_current_pods()
    };
    assert!(nodes(2) && !nodes(1));
}

#[test]
fn a_reference_and_a_departure_are_one_write_and_a_rehearsal_writes_nothing() {
    let mut facts = facts(&[("b", "models:v1")], &[]);
    let Some(Ok(Some(stored))) = facts.catalogs.get_mut(&key()) else { panic!("{facts:?}") };
    stored.usage = Usage::parse(Some(r#"{"epoch":"e1","idle":["v2"]}"#));
    let uses = json!({"spec": {"template": {"metadata": {"annotations": {names::USES: "models:v2"}}}}});
    let (old, new) = (workload("a", "models:v1", &json!({})), workload("a", "", &uses));
    let change = |caller| WorkloadChange::new(id("a"), Some(&old), &new, caller, Guard::default());
    let decision = decide(change(Caller::default()), &facts, Guard::default());
    let [lift] = &decision.lifts[..] else { panic!("{decision:?}") };
    assert_eq!((&lift.catalog, &*lift.resource_version), (&key(), "7"));
    assert_eq!(lift.usage.render().unwrap(), r#"{"epoch":"e1","departing":{"Deployment/prod/a":"7"}}"#);
    let rehearsal = Caller { dry_run: true, ..Caller::default() };
    let decision = decide(change(rehearsal), &facts, Guard::default());
    assert!(decision.allowed() && decision.lifts.is_empty());
}

#[test]
fn only_what_is_in_use_is_looked_into() {
    let (known, guard) = (facts(&[], &[]), Guard::default());
    let request = Request::Workload(removal("models:v1").into());
    let first = policy::needs(&request, &terms(guard));
    assert_eq!(first.left.keys().collect::<Vec<_>>(), [&key()]);
    assert!(first.catalogs.is_empty() && first.served.is_empty() && first.namespaces.is_empty());
    let then = policy::needs_then(&request, &known, &terms(guard));
    assert_eq!((then.catalogs, then.served), ([key()].into(), [key()].into()));
    assert_eq!(then.namespaces, ["prod".into()].into());
    let unused = Facts { left: [(key(), Ok(BTreeMap::new()))].into(), ..known };
    assert_eq!(policy::needs_then(&request, &unused, &terms(guard)), Needs::default());
}

#[test]
fn where_the_guard_asks_a_reference_needs_a_ready_server() {
    let guard = Guard { require_served: true, ..Guard::default() };
    let uses = |uses: &str, serves: &str| {
        let annotations = json!({"spec": {"template": {"metadata": {"annotations": {names::USES: uses}}}}});
        WorkloadChange::new(id("a"), None, &workload("a", serves, &annotations), Caller::default(), Guard::default())
    };
    for (what, change, servers, departing, expected) in [
        ("nobody", uses("models:v1", ""), &[][..], &[][..], Some(("MG203", 403))),
        ("another version", uses("models:v1", ""), &[("b", "models:v2")], &[], Some(("MG203", 403))),
        ("somebody", uses("models:v1", ""), &[("b", "models:v1")], &[], None),
        ("somebody who leaves", uses("models:v1", ""), &[("b", "models:*")], &["b"], Some(("MG203", 403))),
        ("itself", uses("models:v1", "models:v1"), &[], &[], None),
        ("an entry that is not listed", uses("models:v9", ""), &[], &[], Some(("MG201", 403))),
    ] {
        let facts = facts(servers, departing);
        assert_eq!(
            policy::needs_then(&Request::Workload(change.clone().into()), &facts, &terms(guard)).served,
            [key()].into()
        );
        let decision = decide(change.clone(), &facts, guard);
        assert_eq!(code(&decision), expected, "{what}: {decision:?}");
        let unasked = decide(change, &facts, Guard::default());
        assert_eq!(code(&unasked), expected.filter(|(code, _)| *code != "MG203"), "{what}");
    }
    let unread = Facts { servers: None, ..facts(&[], &[]) };
    assert_eq!(code(&decide(uses("models:v1", ""), &unread, guard)), UNREAD);
}

/// Or else a removal that carries the proof would still pass.
#[test]
fn what_break_glass_lets_pass_without_a_server_counts_all_the_same() {
    let changes = json!({
        "metadata": {"annotations": {names::BREAK_GLASS: "1970-01-01T00:30:00Z on fire"}},
        "spec": {"template": {"metadata": {"annotations": {names::USES: "models:v1"}}}},
    });
    let change = WorkloadChange::new(id("a"), None, &workload("a", "", &changes), Caller::default(), Guard::default());
    let mut known = Facts { may_override: Some(Ok(true)), ..facts(&[], &[]) };
    let Some(Ok(Some(stored))) = known.catalogs.get_mut(&key()) else { panic!("{known:?}") };
    stored.usage = Usage::parse(Some(r#"{"epoch":"e1","idle":["v1"]}"#));
    let decision = decide(change, &known, Guard { require_served: true, ..Guard::default() });
    assert!(decision.allowed(), "{decision:?}");
    assert_eq!(decision.overlooked.map(|denial| denial.code.id()), Some("MG203"));
    assert!(!decision.lifts[0].usage.marks(&entry("v1")));
}

#[test]
fn a_lenient_guard_lets_the_last_server_go_and_records_it() {
    for (while_in_use, warnings) in [(WhileInUse::Warn, 1), (WhileInUse::Audit, 0)] {
        let guard = Guard { while_in_use, ..Guard::default() };
        let decision = decide(removal("models:v1"), &facts(&[], &[]), guard);
        assert!(decision.allowed(), "{decision:?}");
        assert_eq!(decision.overlooked.as_ref().map(|denial| denial.code.id()), Some("MG301"));
        assert_eq!((decision.warnings.len(), decision.facts.enforcement), (warnings, while_in_use));
        assert!(decision.lifts[0].usage.departs(&id("a")));
    }
}

#[test]
fn messages_say_who_needs_it_and_who_leaves_too() {
    let decision = decide(removal("models:v1"), &facts(&[("b", "models:v1")], &["b"]), Guard::default());
    let denial = decision.denial.unwrap();
    assert_eq!(
        denial.message,
        "[MG301] Deployment prod/a: it is the last ready server of entry v1 of model ConfigMap prod/models, which is still \
         used by 3 pods of Deployment prod/api (api-x2x4z and 2 more); Deployment prod/b is leaving, too.\nThis is step 3 \
         (remove) of a release; finish step 2 (roll out the app) first, or let another server of it become ready."
    );
    assert_eq!((denial.causes.len(), denial.causes[1].field.as_str()), (2, "prod/models:v1"));
    assert_eq!(decision.facts.holders.pods_total, 3);
    let mut two = facts(&[], &[]);
    two.left = [(key(), Ok([(entry("v1"), holders("api")), (entry("v2"), holders("web"))].into()))].into();
    let message = decide(removal("models:*"), &two, Guard::default()).denial.unwrap().message;
    assert!(message.contains("(api-x2x4z and 2 more); and of 1 more: v2.\n"), "{message}");
}
