//! Each change of content counts a revision and keeps the one before, whoever writes it; nothing else does.

use crate::scene::{Scene, Test, shared};
use crate::support::builders::keys;
use crate::support::kubectl::Output;
use crate::support::leftovers::Dir;
use crate::support::wait::until;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

pub(crate) fn tests() -> Vec<Test> {
    let by_writer = WRITERS
        .map(|(name, write)| shared(&format!("revision::{name}"), move |scene| each_change_counts(scene, write)));
    let by_helm =
        [("helm4", false, false), ("helm4_force", false, true), ("helm3", true, false), ("helm3_force", true, true)];
    let by_helm = by_helm.map(|(name, is_3, forces)| {
        shared(&format!("revision::{name}"), move |scene| each_release_counts(scene, is_3, forces))
    });
    let others = [
        shared("revision::a_pipeline_that_compares_sees_no_difference", a_pipeline_that_compares_sees_no_difference),
        shared("revision::what_changes_nothing_counts_nothing", what_changes_nothing_counts_nothing),
        shared("revision::ownership_stays", ownership_stays),
    ];
    by_writer.into_iter().chain(by_helm).chain(others).collect()
}

/// Makes the model ConfigMap list these entries.
type Write = fn(&Scene<'_>, &[&str]) -> Output;

const WRITERS: [(&str, Write); 6] = [
    ("edit", edit),
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

/// Upgrades, and a rollback, of a release that has the model ConfigMap in it.
fn each_release_counts(scene: &Scene<'_>, is_3: bool, forces: bool) {
    let helm = |args: &[&str]| {
        let namespace = ["-n", scene.namespace.name.as_str()];
        let args = args.iter().chain(&namespace).copied();
        scene.at.cluster.tool(if is_3 { "helm3" } else { "helm" }).args(args).run()
    };
    let force: &[&str] = match (is_3, forces) {
        (_, false) => &[],
        (true, true) => &["--force"],
        // Of server-side apply there is no replacing.
        (false, true) => &["--force-replace", "--server-side=false"],
    };
    let upgrade = |entries: &[&str]| {
        let chart = Dir::new().expect("a folder");
        chart.write("Chart.yaml", "{apiVersion: v2, name: models, version: 0.1.0}").expect("a file");
        fs::create_dir(chart.join("templates")).expect("a folder");
        chart.write("templates/models.yaml", &keys("models", entries).to_string()).expect("a file");
        let path = chart.path().display().to_string();
        helm(&[&["upgrade", "--install", "models", &path][..], force].concat()).ok();
    };
    upgrade(&["v1"]);
    upgrade(&["v1", "v2"]);
    keeps(&scene.get("configmap", "models"), 1, &["v1"]);
    upgrade(&["v1", "v2", "v3"]);
    keeps(&scene.get("configmap", "models"), 2, &["v1", "v2"]);
    // Nobody uses v3, so that all three go back; Helm waits where it must, and a replacement is repeated.
    scene.armed();
    let back = [&["rollback", "models", "2"][..], force].concat();
    until("the release goes back", || helm(&back).passed().map(drop));
    let stored = scene.get("configmap", "models");
    assert_eq!((revision(&stored), &stored["data"]), ("4", &keys("models", &["v1", "v2"])["data"]));
    keeps(&stored, 3, &["v1", "v2", "v3"]);
}

/// Argo CD and Flux apply again and again what they compare: by three-way and by server-side apply, with pruning.
fn a_pipeline_that_compares_sees_no_difference(scene: &Scene<'_>) {
    let labelled = |entries: &[&str]| {
        let mut models = keys("models", entries);
        models["metadata"]["labels"]["app.kubernetes.io/instance"] = "models".into();
        models.to_string()
    };
    let three_way: &[&str] = &[
        "apply",
        "--prune",
        "-l",
        "app.kubernetes.io/instance=models",
        "--prune-allowlist=core/v1/ConfigMap",
        "--prune-allowlist=apps/v1/ControllerRevision",
    ];
    let server_side: &[&str] = &["apply", "--server-side", "--force-conflicts", "--field-manager=kustomize-controller"];
    for (apply, diff) in [
        (three_way, &["diff"][..]),
        (server_side, &["diff", "--server-side", "--force-conflicts", "--field-manager=kustomize-controller"]),
    ] {
        for entries in [&["v1"][..], &["v1", "v2"], &["v1", "v2", "v3"]] {
            let manifest = labelled(entries);
            scene.kubectl(apply.iter().chain(&["-f-"]).copied()).stdin(&*manifest).run().ok();
            let before = scene.get("configmap", "models");
            // It ends with 1 where there is a difference.
            scene.kubectl(diff.iter().chain(&["-f-"]).copied()).stdin(&*manifest).run().ok();
            scene.kubectl(apply.iter().chain(&["-f-"]).copied()).stdin(&*manifest).run().ok();
            assert_eq!(scene.get("configmap", "models"), before, "{apply:?}: applied again, it changes nothing");
        }
        let kept = until("its revisions are kept", || {
            let of = ["get", "controllerrevisions", "-l", "modelguard.dev/history-of=models", "-o", "name"];
            let names = scene.kubectl(of).run().ok().stdout;
            if names.lines().count() == 3 { Ok(names) } else { Err(names) }
        });
        assert!(kept.starts_with("controllerrevision.apps/models-"), "nothing prunes them: {kept}");
        scene.armed();
        scene.kubectl(["delete", "configmap", "models"]).run().ok();
    }
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

/// Somebody whose editor leaves the object with these entries.
fn edit(scene: &Scene<'_>, entries: &[&str]) -> Output {
    let dir = Dir::new().expect("a folder");
    let mut edited = scene.get("configmap", "models");
    edited["data"] = keys("models", entries)["data"].take();
    let edited = dir.write("models.json", &edited.to_string()).expect("a file");
    let editor = dir.write("editor", &format!("#!/bin/sh\ncp {} \"$1\"\n", edited.display())).expect("a file");
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).expect("an executable");
    scene.kubectl(["edit", "configmap", "models", "-o", "json"]).env("KUBE_EDITOR", editor).run()
}

fn patch(scene: &Scene<'_>, kind: &str, patch: &Value) -> Output {
    scene.kubectl(["patch", "configmap", "models", &format!("--type={kind}"), "-p", &patch.to_string()]).run()
}
