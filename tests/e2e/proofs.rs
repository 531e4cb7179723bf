//! Proofs that an entry may go: they end, whoever fails meanwhile, and they lose against a reference, never with it.

use crate::scene::{Scene, Setup, Test, own, shared};
use crate::support::builders::{deployment, keys};
use crate::support::client::client;
use crate::support::control_plane::Shape;
use crate::support::kubectl::Output;
use crate::support::modelguard::{IDENTITY, RELEASE};
use crate::support::wait::until;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) fn tests() -> Vec<Test> {
    let store = Setup { shape: Shape::Store, ..Setup::default() };
    vec![
        own(
            "proofs::a_catalog_that_cannot_be_written_stops_no_other",
            store.clone(),
            a_catalog_that_cannot_be_written_stops_no_other,
        ),
        own("proofs::what_they_rest_on_voids_them", store, what_they_rest_on_voids_them),
        shared("proofs::a_removal_and_a_reference_never_both_pass", a_removal_and_a_reference_never_both_pass),
        shared("proofs::a_hold_keeps_an_entry", a_hold_keeps_an_entry),
    ]
}

/// A label that was away for a while let references pass unseen, and so does a configuration that fails open.
fn what_they_rest_on_voids_them(scene: &Scene<'_>) {
    scene.armed();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    // It names its revision, so it waits for Idle and then fails: what is left is an entry that may go.
    scene.kubectl(["replace", "-f-"]).stdin(keys("models", &["v2"]).to_string()).run().failed("(Conflict)");
    until("v1 is idle", || if usage(scene).contains("idle") { Ok(()) } else { Err(usage(scene)) });
    let guard = |value: &str| {
        let label = format!("modelguard.dev/guard{value}");
        scene.at.cluster.kubectl(["label", "namespace", &scene.namespace.name, &label]).run().ok();
    };
    guard("-");
    guard("=enabled");
    until("the proof is void", || if usage(scene).contains("idle") { Err(usage(scene)) } else { Ok(()) });

    fails(scene, "Ignore");
    until("nothing is proven", || {
        let output = remove(scene, "models", &["v1"]);
        if output.stderr.contains("fails open") { Ok(output) } else { Err(output) }
    })
    .says("MG501");
    fails(scene, "Fail");
    until("it is proven again", || remove(scene, "models", &["v1"]).passed());
}

/// Such as one that another policy guards: it must not keep the entries of all others.
fn a_catalog_that_cannot_be_written_stops_no_other(scene: &Scene<'_>) {
    scene.armed();
    let frozen: Vec<_> = (0..4).map(|number| format!("frozen-{number}")).collect();
    for name in frozen.iter().map(String::as_str).chain(["models"]) {
        scene.create_object(keys(name, &["v1", "v2"]).to_string()).ok();
    }
    scene.at.cluster.kubectl(["create", "-f-"]).stdin(no_idle_for("frozen-").to_string()).run().ok();
    let idle = json!({"metadata": {"annotations": {"modelguard.dev/usage": r#"{"idle":["v1"]}"#}}}).to_string();
    until("the policy is in force", || {
        let asked =
            ["patch", "configmap", "frozen-0", "--dry-run=server", "--type=merge", "-p", &idle, "--as", IDENTITY];
        let output = scene.kubectl(asked).run();
        if output.stderr.contains("frozen") { Ok(()) } else { Err(output) }
    });
    for name in &frozen {
        // It names the revision that it replaces, so it does not wait for Idle: Settling is what we want of it.
        scene.kubectl(["replace", "-f-"]).stdin(keys(name, &["v2"]).to_string()).run().failed("(Conflict)");
    }
    remove(scene, "models", &["v1"]).ok();
}

/// Each entry may go, by its proof, when somebody removes it and somebody else comes to need it, at the same moment.
fn a_removal_and_a_reference_never_both_pass(scene: &Scene<'_>) {
    const TRIALS: usize = 64;
    scene.armed();
    let entries: Vec<_> = (0..TRIALS).map(|trial| format!("e{trial}")).collect();
    let all: Vec<_> = entries.iter().map(String::as_str).chain(["kept"]).collect();
    scene.create_object(keys("models", &all).to_string()).ok();
    scene.kubectl(["replace", "-f-"]).stdin(keys("models", &["kept"]).to_string()).run().failed("(Conflict)");
    until("every entry may go", || {
        let usage = scene.get("configmap", "models")["metadata"]["annotations"]["modelguard.dev/usage"].take();
        let usage: Value = serde_json::from_str(usage.as_str().unwrap_or("{}")).map_err(|error| error.to_string())?;
        match usage["idle"].as_array().map_or(0, Vec::len) {
            TRIALS => Ok(()),
            _ => Err(usage.to_string()),
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let outcomes = runtime.block_on(race(scene, &entries));
    let both: Vec<_> =
        outcomes.iter().filter(|(_, removed, referenced)| removed.is_ok() == referenced.is_ok()).collect();
    assert!(both.is_empty(), "of {TRIALS} trials these did not end with one of the two: {both:#?}");
    let removals = outcomes.iter().filter(|(_, removed, _)| removed.is_ok()).count();
    assert!((1..TRIALS).contains(&removals), "{removals} removals won: these were no races");
    for (_, removed, referenced) in outcomes {
        let loser = removed.and(referenced).expect_err("one of the two lost");
        // MG103 of a removal that came before the index heard of the Deployment.
        assert!(["[MG101]", "[MG103]", "[MG201]"].iter().any(|code| loser.contains(code)), "{loser}");
    }
}

/// Of an entry: what came of its removal, and of a Deployment that needs it.
type Outcome = (String, Result<(), String>, Result<(), String>);

/// Both on open connections, a few milliseconds apart at most: kubectl alone takes longer to start.
async fn race(scene: &Scene<'_>, entries: &[String]) -> Vec<Outcome> {
    let client = client(&scene.at.cluster).await.expect("a client");
    let catalogs: Api<ConfigMap> = Api::namespaced(client.clone(), &scene.namespace.name);
    let apps: Api<Deployment> = Api::namespaced(client, &scene.namespace.name);
    let mut outcomes = Vec::new();
    for (trial, entry) in entries.iter().enumerate() {
        let head_start =
            |first: bool| Duration::from_millis(if first { 0 } else { u64::try_from(trial % 8).unwrap_or(0) });
        let removal = async {
            tokio::time::sleep(head_start(trial % 16 < 8)).await;
            let patch = Patch::Merge(json!({"data": {entry: null}}));
            catalogs.patch("models", &PatchParams::default(), &patch).await.map(drop).map_err(|error| error.to_string())
        };
        let reference = async {
            tokio::time::sleep(head_start(trial % 16 >= 8)).await;
            let app = serde_json::from_value(deployment(entry, 0, &format!("models:{entry}"))).expect("a Deployment");
            apps.create(&PostParams::default(), &app).await.map(drop).map_err(|error| error.to_string())
        };
        let (removed, referenced) = tokio::join!(removal, reference);
        outcomes.push((entry.clone(), removed, referenced));
    }
    outcomes
}

fn a_hold_keeps_an_entry(scene: &Scene<'_>) {
    scene.armed();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.kubectl(["annotate", "configmap", "models", "modelguard.dev/hold=v1=batch clients until Friday"]).run().ok();
    // Only people can end it, so nobody is asked to wait.
    remove(scene, "models", &["v1"]).denied("MG101").says("modelguard.dev/hold");
    let answers = scene.answers("configmaps", "models", "admin");
    assert!(answers.iter().all(|(_, status)| *status != 429), "{answers:?}");
    scene.kubectl(["annotate", "configmap", "models", "modelguard.dev/hold-"]).run().ok();
    remove(scene, "models", &["v1"]).ok();
}

// === steps ===

fn usage(scene: &Scene<'_>) -> String {
    let usage = &scene.get("configmap", "models")["metadata"]["annotations"]["modelguard.dev/usage"];
    usage.as_str().unwrap_or_default().to_owned()
}

/// Sets the failure policy of every validating entry.
fn fails(scene: &Scene<'_>, policy: &str) {
    let patch: Vec<_> = (0..2)
        .map(|entry| json!({"op": "replace", "path": format!("/webhooks/{entry}/failurePolicy"), "value": policy}))
        .collect();
    let patch = Value::from(patch).to_string();
    let asked = ["patch", "validatingwebhookconfiguration", RELEASE, "--type=json", "-p", &patch];
    scene.at.cluster.kubectl(asked).run().ok();
}

/// A policy of somebody else's under which modelguard cannot write Idle to ConfigMaps of these names.
fn no_idle_for(prefix: &str) -> Value {
    let api_version = "admissionregistration.k8s.io/v1";
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["UPDATE"]});
    let expression = format!(
        "!object.metadata.name.startsWith('{prefix}') || request.userInfo.username != '{IDENTITY}' || \
         !object.metadata.?annotations[?'modelguard.dev/usage'].orValue('').contains('idle')"
    );
    let policy = json!({
        "apiVersion": api_version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "frozen"},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": expression, "message": "this one is frozen"}],
        },
    });
    let binding = json!({
        "apiVersion": api_version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "frozen"},
        "spec": {"policyName": "frozen", "validationActions": ["Deny"]},
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [policy, binding]})
}

fn remove(scene: &Scene<'_>, catalog: &str, entries: &[&str]) -> Output {
    let gone: serde_json::Map<_, _> = entries.iter().map(|entry| ((*entry).to_owned(), Value::Null)).collect();
    let patch = json!({"data": gone}).to_string();
    scene.kubectl(["patch", "configmap", catalog, "--type=merge", "-p", &patch]).run()
}
