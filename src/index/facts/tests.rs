use super::*;
use serde_json::{Value, json};

fn facts(kind: HolderKind, object: &Value) -> Facts {
    Facts::of(kind, &Workload::parse(&object.to_string()).unwrap())
}

fn template(uses: &str) -> Value {
    json!({"metadata": {"annotations": {"modelguard.dev/uses": uses}}, "spec": {"containers": []}})
}

fn deployment(uses: &str) -> Facts {
    let metadata = json!({"name": "web", "namespace": "prod"});
    facts(HolderKind::Deployment, &json!({"metadata": metadata, "spec": {"template": template(uses)}}))
}

fn models() -> BTreeSet<CatalogKey> {
    BTreeSet::from([CatalogKey::new("prod", "models")])
}

#[test]
fn an_object_is_its_name_its_controller_and_what_it_needs() {
    let owners = json!([
        {"kind": "Other", "name": "no"},
        {"kind": "ReplicaSet", "name": "web-1", "controller": true},
    ]);
    let annotations = json!({"modelguard.dev/uses": "models:v1"});
    let metadata = json!({"name": "a", "namespace": "prod", "ownerReferences": owners, "annotations": annotations});
    let pod = facts(HolderKind::Pod, &json!({"metadata": metadata, "spec": {"containers": []}}));
    assert_eq!((&*pod.id.namespace, &*pod.id.name), ("prod", "a"));
    let owner = pod.owner.unwrap();
    assert_eq!((&*owner.kind, &*owner.name), ("ReplicaSet", "web-1"));
    assert_eq!(pod.references.needs.len(), 1);
    assert_eq!(pod.pending_revision, None);
}

#[test]
fn of_two_kinds_pods_may_come_from_something_else_than_the_template() {
    let object = json!({
        "metadata": {"name": "db", "namespace": "prod"},
        "spec": {"template": template("models:v1")},
        "status": {"currentRevision": "db-1", "updateRevision": "db-2", "stableRS": "5f7d9"},
    });
    let pending = |kind| facts(kind, &object).pending_revision;
    assert_eq!(pending(HolderKind::StatefulSet).as_deref(), Some("db-1"));
    assert_eq!(pending(HolderKind::Rollout).as_deref(), Some("5f7d9"));
    assert_eq!(pending(HolderKind::Deployment), None);
}

#[test]
fn what_a_rollout_may_go_back_to_is_known_by_its_hash() {
    let of = |owner: &str, replicas: i64| {
        let owner = json!([{"apiVersion": "x/v1", "kind": owner, "name": "api", "uid": "1", "controller": true}]);
        let labels = json!({"app": "api", "rollouts-pod-template-hash": "5f7d9"});
        let metadata = json!({"name": "api-5f7d9", "namespace": "prod", "ownerReferences": owner, "labels": labels});
        let spec = json!({"replicas": replicas, "template": template("models:v1")});
        facts(HolderKind::ReplicaSet, &json!({"metadata": metadata, "spec": spec}))
    };
    assert_eq!(of("Rollout", 0).rollout_hash.as_deref(), Some("5f7d9"));
    assert!(of("Rollout", 0).touches(&models()));
    assert_eq!(of("Rollout", 1).rollout_hash, None, "it holds by itself");
    assert_eq!(of("Deployment", 0).rollout_hash, None);
}

#[test]
fn a_proof_looks_at_what_names_its_catalogs() {
    assert!(deployment("models:v1").touches(&models()));
    assert!(!deployment("others:v1").touches(&models()));
    assert!(!deployment("").touches(&models()));
}

#[test]
fn a_proof_looks_at_what_may_hold_without_naming_anything() {
    let none = deployment("");
    let id = |kind| ObjectId { kind, ..none.id.clone() };
    assert!(deployment("others:v1,,").touches(&models()), "cannot be read in full");
    assert!(Facts::unreadable(id(HolderKind::Deployment), "no").touches(&models()));
    let pending = Facts { pending_revision: Some("db-1".into()), id: id(HolderKind::StatefulSet), ..none.clone() };
    assert!(pending.touches(&models()));
    let revision = Facts { id: id(HolderKind::ControllerRevision), ..none.clone() };
    assert!(revision.touches(&models()), "a StatefulSet may come from it");
}

#[test]
fn a_catalog_is_its_entries_and_the_annotations_about_them() {
    let json = json!({
        "metadata": {
            "name": "models", "namespace": "prod", "uid": "u", "resourceVersion": "5",
            "labels": {"modelguard.dev/catalog": "keys"},
            "annotations": {"modelguard.dev/hold": "v1=soak", "modelguard.dev/usage": r#"{"epoch":"e","idle":["v1"]}"#},
        },
        "data": {"v1": "a", "v2": "b"},
    })
    .to_string();
    let facts = CatalogFacts::of(&ConfigMap::parse(&json).unwrap());
    let listing = facts.listing.unwrap();
    assert_eq!(listing.format, Format::Keys);
    assert_eq!(listing.entries.iter().map(EntryName::as_str).collect::<Vec<_>>(), ["v1", "v2"]);
    assert_eq!(facts.usage.marked().map(EntryName::as_str).collect::<Vec<_>>(), ["v1"]);
    assert_eq!(facts.hold.as_deref(), Some("v1=soak"));
}

#[test]
fn a_catalog_that_cannot_be_read_says_why() {
    let listing = |label: &str, data: Value| {
        let metadata = json!({"name": "models", "labels": {"modelguard.dev/catalog": label}});
        let json = json!({"metadata": metadata, "data": data}).to_string();
        CatalogFacts::of(&ConfigMap::parse(&json).unwrap()).listing.unwrap_err()
    };
    assert!(listing("xml", json!({})).contains("xml"));
    assert!(listing("json", json!({"models.json": "{"})).contains("models.json"));
}
