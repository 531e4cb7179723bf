//! What stays behind: the API server's audit log says why it refused, and that we never asked for what we may not.

use crate::scene::{Scene, Test, shared};
use crate::support::builders::{deployment, keys};
use crate::support::modelguard::IDENTITY;
use serde_json::{Value, json};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        shared("audit::a_denied_catalog_change", a_denied_catalog_change),
        shared("audit::a_denied_workload", a_denied_workload),
        shared("audit::our_rights_suffice", our_rights_suffice),
    ]
}

fn a_denied_catalog_change(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    scene.kubectl(["patch", "configmap", "models", "--type=merge", r#"-p={"data":{"v1":null}}"#]).run().denied("MG101");
    let event = denial(scene, "configmaps");
    assert_eq!(event["annotations"]["catalog.modelguard.dev/code"], "MG101", "{event:#}");
    assert!(event["responseStatus"]["message"].as_str().is_some_and(|text| text.contains("[MG101]")), "{event:#}");
}

fn a_denied_workload(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v9").to_string()).denied("MG201");
    let event = denial(scene, "deployments");
    assert_eq!(event["annotations"]["workload.modelguard.dev/code"], "MG201", "{event:#}");
}

/// The API server's answers to modelguard so far, in this test's namespace and all others.
fn our_rights_suffice(scene: &Scene<'_>) {
    scene.armed();
    let events = scene.at.cluster.audit_events(IDENTITY);
    let ours: Vec<_> = events.iter().filter(|event| event["user"]["username"] == IDENTITY).collect();
    assert!(ours.iter().any(|event| event["verb"] == "patch"), "it wrote what made the removal possible");
    let refused: Vec<_> = ours.iter().filter(|event| event["responseStatus"]["code"] == 403).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    // Annotations only: data of a model ConfigMap is never written by us.
    let verbs = json!(["patch", "get", "list", "watch", "create", "update"]);
    let strange: Vec<_> =
        ours.iter().filter(|event| !verbs.as_array().is_some_and(|verbs| verbs.contains(&event["verb"]))).collect();
    assert!(strange.is_empty(), "{strange:#?}");
}

fn denial(scene: &Scene<'_>, resource: &str) -> Value {
    let events = scene.at.cluster.audit_events(&scene.namespace.name);
    let is_meant =
        |event: &&Value| event["objectRef"]["resource"] == resource && event["responseStatus"]["code"] == 403;
    events.iter().rfind(is_meant).cloned().expect("an audit event of the denial")
}
