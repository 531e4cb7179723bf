//! Each change of content counts a revision and keeps the one before, whoever writes it; nothing else does.

use crate::scene::{Scene, Test, shared};
use crate::support::builders::keys;
use crate::support::kubectl::Output;
use serde_json::{Value, json};

pub(crate) fn tests() -> Vec<Test> {
    let by_writer = WRITERS
        .map(|(name, write)| shared(&format!("revision::{name}"), move |scene| each_change_counts(scene, write)));
    let others = [
        shared("revision::what_changes_nothing_counts_nothing", what_changes_nothing_counts_nothing),
        shared("revision::ownership_stays", ownership_stays),
    ];
    by_writer.into_iter().chain(others).collect()
}

/// Makes the model ConfigMap list these entries.
type Write = fn(&Scene<'_>, &[&str]) -> Output;

const WRITERS: [(&str, Write); 5] = [
    ("apply", apply),
    ("apply_server_side", apply_server_side),
    ("replace", |scene, entries| scene.kubectl(["replace", "-f-"]).stdin(keys("models", entries).to_string()).run()),
    ("patch_merge", |scene, entries| patch(scene, "merge", &json!({"data": keys("models", entries)["data"]}))),
    ("patch_json", |scene, entries| {
        patch(scene, "json", &json!([{"op": "replace", "path": "/data", "value": keys("models", entries)["data"]}]))
    }),
];

fn each_change_counts(scene: &Scene<'_>, write: Write) {
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    let first = scene.get("configmap", "models");
    assert_eq!(revision(&first), "1");
    assert_eq!(prior(&first), Value::Null, "there was nothing before");
    write(scene, &["v1", "v2"]).ok();
    let second = scene.get("configmap", "models");
    assert_eq!(revision(&second), "2");
    keeps(&second, 1, &["v1"]);

    write(scene, &["v1", "v2", "v3"]).ok();
    let third = scene.get("configmap", "models");
    assert_eq!(revision(&third), "3");
    keeps(&third, 2, &["v1", "v2"]);
    assert_ne!(prior(&third)["digest"], prior(&second)["digest"]);
}

fn what_changes_nothing_counts_nothing(scene: &Scene<'_>) {
    apply(scene, &["v1"]).ok();
    for (name, write) in WRITERS {
        write(scene, &["v1", "v2"]).ok();
        let before = scene.get("configmap", "models");
        write(scene, &["v1", "v2"]).ok();
        assert_eq!(scene.get("configmap", "models"), before, "{name}, the same again");
    }
    let before = scene.get("configmap", "models");
    scene.kubectl(["label", "configmap", "models", "team=x"]).run().ok();
    scene.kubectl(["annotate", "configmap", "models", "note=x"]).run().ok();
    let after = scene.get("configmap", "models");
    assert_eq!((revision(&after), prior(&after)), (revision(&before), prior(&before)));
    assert_eq!(after["metadata"]["annotations"]["note"], "x");
}

/// Our annotations belong to nobody, so that no later apply conflicts with them or prunes them.
fn ownership_stays(scene: &Scene<'_>) {
    let apply_as = |manager: &str, entries: &[&str]| {
        let args = ["apply", "--server-side", &format!("--field-manager={manager}"), "-f-"].map(str::to_owned);
        scene.kubectl(args).stdin(keys("models", entries).to_string()).run()
    };
    apply_as("pipeline", &["v1"]).ok();
    apply_as("pipeline", &["v1", "v2"]).ok();
    let stored = scene.kubectl(["get", "configmap", "models", "-o", "json", "--show-managed-fields"]).run().json();
    let managers: Vec<_> = stored["metadata"]["managedFields"].as_array().into_iter().flatten().collect();
    assert_eq!(managers.len(), 1, "{managers:#?}");
    assert!(!managers[0].to_string().contains("modelguard.dev/revision"), "{managers:#?}");
    assert_eq!(prior(&stored)["manager"], "pipeline");
}

// === helpers ===

/// The prior revision is this one, and its content was these entries.
#[track_caller]
fn keeps(stored: &Value, revision: u64, entries: &[&str]) {
    let prior = prior(stored);
    let content = prior["payload"].as_str().map_or_else(
        || prior["payload"].clone(),
        |text| serde_json::from_str(text).unwrap_or_else(|error| panic!("the payload is no JSON ({error}): {prior:#}")),
    );
    assert_eq!(
        (&prior["v"], &prior["revision"], &prior["encoding"]),
        (&json!(1), &json!(revision), &json!("json")),
        "{prior:#}"
    );
    assert_eq!(content["data"], keys("models", entries)["data"], "{prior:#}");
    assert!(prior["digest"].is_string() && prior["time"].is_string() && prior["manager"].is_string(), "{prior:#}");
}

fn revision(stored: &Value) -> &str {
    stored["metadata"]["annotations"]["modelguard.dev/revision"].as_str().unwrap_or("none")
}

fn prior(stored: &Value) -> Value {
    let text = stored["metadata"]["annotations"]["modelguard.dev/prior-revision"].as_str();
    text.map_or(Value::Null, |text| serde_json::from_str(text).expect("one JSON object"))
}

fn apply(scene: &Scene<'_>, entries: &[&str]) -> Output {
    scene.apply(keys("models", entries).to_string())
}

fn apply_server_side(scene: &Scene<'_>, entries: &[&str]) -> Output {
    scene
        .kubectl(["apply", "--server-side", "--force-conflicts", "-f-"])
        .stdin(keys("models", entries).to_string())
        .run()
}

fn patch(scene: &Scene<'_>, kind: &str, patch: &Value) -> Output {
    scene.kubectl(["patch", "configmap", "models", &format!("--type={kind}"), "-p", &patch.to_string()]).run()
}
