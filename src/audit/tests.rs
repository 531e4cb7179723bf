use super::*;
use crate::arming::Configuration;
use crate::guard::RollbackTargets;
use crate::holder::Holders;
use crate::index::Facts;
use crate::object::{ConfigMap, HolderKind, Workload};
use serde_json::{Value, json};
use std::time::Duration;

/// An index in which `prod` and `canary` are guarded.
fn index() -> Index {
    let mut index = Index::default();
    index.guard("prod", "1");
    index.guard("canary", "2");
    index
}

/// A model ConfigMap `prod/models`.
fn catalog(index: &mut Index, format: &str, data: &Value, shared_with: &str) {
    let metadata = json!({
        "name": "models", "namespace": "prod", "labels": {"modelguard.dev/catalog": format},
        "annotations": {"modelguard.dev/shared-with": shared_with},
    });
    let json = json!({"metadata": metadata, "data": data}).to_string();
    let facts = CatalogFacts::of(&ConfigMap::parse(&json).unwrap());
    index.apply_catalog(CatalogKey::new("prod", "models"), facts);
}

/// A Deployment of that namespace and name, whose template has this annotation and this container.
fn deploy(index: &mut Index, namespace: &str, name: &str, uses: &str, container: &Value) {
    let template = json!({
        "metadata": {"annotations": {"modelguard.dev/uses": uses}}, "spec": {"containers": [container]},
    });
    apply(index, HolderKind::Deployment, namespace, name, &json!({"template": template}));
}

fn apply(index: &mut Index, kind: HolderKind, namespace: &str, name: &str, spec: &Value) {
    let json = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec}).to_string();
    index.apply(Facts::of(kind, &Workload::parse(&json).unwrap()));
}

fn app(index: &mut Index, namespace: &str, uses: &str) {
    deploy(index, namespace, "api", uses, &json!({}));
}

/// A container that takes a variable from the key `v9`.
fn variable(config_map: &str) -> Value {
    json!({"env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": config_map, "key": "v9"}}}]})
}

fn found(index: &Index) -> Findings {
    look(index, &Arming::default(), "modelguard")
}

/// `Kind object: message` of each.
fn said(findings: &Findings) -> Vec<String> {
    findings.listed().map(|it| format!("{} {}: {}", it.kind.name(), it.object, it.message)).collect()
}

#[test]
fn a_cluster_in_which_everything_is_there_has_no_findings() {
    let mut index = index();
    assert_eq!(found(&index), Findings::default());
    catalog(&mut index, "keys", &json!({"v1": ""}), "canary");
    app(&mut index, "prod", "models:v1");
    app(&mut index, "canary", "prod/models:v1");
    assert_eq!(found(&index), Findings::default());
}

#[test]
fn a_holder_of_an_entry_that_is_not_listed_is_found_by_its_workload() {
    let mut index = index();
    catalog(&mut index, "keys", &json!({"v1": ""}), "canary");
    app(&mut index, "prod", "models:v1, models:v2, models:v3");
    app(&mut index, "canary", "prod/models:v2");
    let needs = |who: &str, entry: &str| {
        format!("EntryMissing Deployment {who}: needs entry {entry}, which model ConfigMap prod/models does not list")
    };
    let findings = found(&index);
    assert_eq!(said(&findings), [needs("canary/api", "v2"), needs("prod/api", "v2"), needs("prod/api", "v3")]);
    assert_eq!((findings.total(), findings.count(Kind::EntryMissing)), (3, 3));
    let missing: Vec<_> = findings.missing().collect();
    let entries = ["v2", "v3"].map(|name| EntryName::new(name).unwrap()).into();
    assert_eq!(missing, [(&CatalogKey::new("prod", "models"), &entries)]);
    let first = findings.listed().next().unwrap();
    assert_eq!(first.catalog, Some(CatalogKey::new("prod", "models")));
    assert_eq!(first.entry, Some(EntryName::new("v2").unwrap()));
}

#[test]
fn pods_of_one_owner_are_one_finding() {
    let mut index = index();
    catalog(&mut index, "keys", &json!({}), "");
    for number in 0..3 {
        let owner = json!({"kind": "ReplicaSet", "name": "api-7c9f5", "controller": true});
        let metadata = json!({
            "name": format!("api-{number}"), "namespace": "prod", "ownerReferences": [owner],
            "annotations": {"modelguard.dev/uses": "models:v1"},
        });
        let pod = json!({"metadata": metadata, "spec": {"containers": []}}).to_string();
        index.apply(Facts::of(HolderKind::Pod, &Workload::parse(&pod).unwrap()));
    }
    let expected =
        "EntryMissing ReplicaSet prod/api-7c9f5: needs entry v1, which model ConfigMap prod/models does not list";
    assert_eq!(said(&found(&index)), [expected]);
}

#[test]
fn a_catalog_that_is_not_there_or_not_for_this_namespace_is_found_in_words_that_tell_no_other_apart() {
    let own = "CatalogMissing Deployment prod/api: needs model ConfigMap prod/models, \
               which does not exist or is not labelled modelguard.dev/catalog";
    let foreign = "CatalogMissing Deployment canary/api: needs model ConfigMap prod/models, which is not one that \
                   namespace canary may use: it must exist, be labelled modelguard.dev/catalog, and name this \
                   namespace in its annotation modelguard.dev/shared-with";
    let mut index = index();
    app(&mut index, "prod", "models:v1, models:v2");
    app(&mut index, "canary", "prod/models:v1");
    assert_eq!(said(&found(&index)), [foreign, own], "it does not exist");
    catalog(&mut index, "keys", &json!({"v1": "", "v2": ""}), "");
    assert_eq!(said(&found(&index)), [foreign], "it is not shared");
    catalog(&mut index, "keys", &json!({"v1": "", "v2": ""}), "*");
    assert_eq!(said(&found(&index)), <[&str; 0]>::default());
}

#[test]
fn a_catalog_that_does_not_parse_is_one_finding_whoever_needs_it() {
    let mut index = index();
    catalog(&mut index, "json", &json!({"models.json": "{"}), "");
    app(&mut index, "prod", "models:v1");
    let findings = found(&index);
    let said = said(&findings);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("CatalogInvalid ConfigMap prod/models: cannot be read as a catalog: "), "{said:?}");
    assert!(said[0].contains("models.json"), "{said:?}");
    catalog(&mut index, "xml", &json!({}), "");
    assert_eq!(found(&index).count(Kind::CatalogInvalid), 1);
}

#[test]
fn references_count_in_guarded_namespaces_and_implicit_ones_for_catalogs_of_keys() {
    let mut index = index();
    app(&mut index, "elsewhere", "models:v1");
    deploy(&mut index, "prod", "api", "", &variable("models"));
    assert_eq!(said(&found(&index)), <[&str; 0]>::default(), "an ordinary ConfigMap, which may be gone");
    catalog(&mut index, "json", &json!({"models.json": "[]"}), "");
    assert_eq!(said(&found(&index)), <[&str; 0]>::default(), "a key of another format is no entry");
    catalog(&mut index, "keys", &json!({"v1": ""}), "");
    let expected = "EntryMissing Deployment prod/api: needs entry v9, which model ConfigMap prod/models does not list";
    assert_eq!(said(&found(&index)), [expected]);
    index.unguard("prod");
    assert_eq!(said(&found(&index)), <[&str; 0]>::default());
}

#[test]
fn what_does_not_hold_now_is_no_finding() {
    let mut index = index();
    let template =
        json!({"metadata": {"annotations": {"modelguard.dev/uses": "models:v1"}}, "spec": {"containers": []}});
    for (replicas, total) in [(0, 0), (1, 1)] {
        let spec = json!({"replicas": replicas, "template": template});
        apply(&mut index, HolderKind::ReplicaSet, "prod", "api-7c9f5", &spec);
        assert_eq!(found(&index).total(), total, "{replicas} replicas");
    }
}

#[test]
fn what_only_a_rollback_would_need_is_no_finding_even_where_it_holds() {
    let mut index = Index::new(RollbackTargets::Hold);
    index.guard("prod", "1");
    catalog(&mut index, "keys", &json!({"v2": ""}), "");
    app(&mut index, "prod", "models:v2");
    let template =
        json!({"metadata": {"annotations": {"modelguard.dev/uses": "models:v1"}}, "spec": {"containers": []}});
    let owner = json!({"kind": "Deployment", "name": "api", "controller": true});
    let metadata = json!({"name": "api-7c9f5", "namespace": "prod", "ownerReferences": [owner]});
    for (replicas, total) in [(0, 0), (1, 1)] {
        let replica_set = json!({"metadata": metadata, "spec": {"replicas": replicas, "template": template}});
        index.apply(Facts::of(HolderKind::ReplicaSet, &Workload::parse(&replica_set.to_string()).unwrap()));
        let v1 = [EntryName::new("v1").unwrap()];
        let held = index.held(&CatalogKey::new("prod", "models"), &Sharing::new("prod", None), Format::Keys, &v1);
        assert_eq!(held.len(), 1, "{replicas} replicas");
        assert_eq!(found(&index).total(), total, "{replicas} replicas");
    }
}

#[test]
fn webhook_configurations_are_found_once_they_were_read() {
    let sound = Configuration { uid: "u".to_owned(), generation: 1, defect: None, gap: None };
    let altered = Configuration { defect: Some("catalog.modelguard.dev fails open".to_owned()), ..sound.clone() };
    let open = Configuration { gap: Some("it lacks scale.modelguard.dev".to_owned()), ..sound.clone() };
    let said_of = |which, found: Option<Configuration>| {
        let mut arming = Arming::default();
        arming.configuration(which, found, Duration::ZERO);
        said(&look(&Index::default(), &arming, "guard"))
    };
    assert_eq!(said_of(Webhooks::Mutating, Some(sound)), <[&str; 0]>::default());
    let expected = "WebhooksAltered ValidatingWebhookConfiguration guard: \
                    does not protect what it should: catalog.modelguard.dev fails open";
    assert_eq!(said_of(Webhooks::Validating, Some(altered)), [expected]);
    let expected = "WebhooksAltered ValidatingWebhookConfiguration guard: \
                    does not protect what it should: it lacks scale.modelguard.dev";
    assert_eq!(said_of(Webhooks::Validating, Some(open)), [expected]);
    let expected = "WebhooksMissing MutatingWebhookConfiguration guard: does not exist, so that requests pass unseen";
    assert_eq!(said_of(Webhooks::Mutating, None), [expected]);
}

#[test]
fn what_two_looks_agree_on_is_found() {
    let mut index = index();
    catalog(&mut index, "keys", &json!({"v1": ""}), "");
    app(&mut index, "prod", "models:v1, models:v2");
    let first = found(&index);
    assert_eq!(first.also_in(&first), first);
    assert_eq!(first.also_in(&Findings::default()), Findings::default());
    catalog(&mut index, "keys", &json!({"v2": ""}), "");
    let second = found(&index);
    assert_eq!((first.total(), second.total()), (1, 1));
    assert_eq!(second.also_in(&first).total(), 0, "each lacks another entry");
}

#[test]
fn thousands_are_counted_and_the_first_of_them_named() {
    let mut index = index();
    let entries: Vec<_> = (0..MOST).map(|number| format!("models:v{number}")).collect();
    for number in 0..2 * Holders::MOST {
        deploy(&mut index, "prod", &format!("api-{number:02}"), "models:v1", &json!({}));
    }
    let findings = found(&index);
    assert_eq!((findings.total(), findings.listed().len()), (2 * Holders::MOST, Holders::MOST));
    assert_eq!(findings.also_in(&findings), findings);
    catalog(&mut index, "keys", &json!({}), "");
    deploy(&mut index, "prod", "all", &entries.join(","), &json!({}));
    let findings = found(&index);
    assert_eq!((findings.total(), findings.listed().len()), (MOST + 2 * Holders::MOST, MOST));
    assert_eq!(findings.also_in(&findings), findings);
}
