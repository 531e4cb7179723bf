//! `whileInUse`: what becomes of a change that takes away an entry in use.

use crate::scene::{Scene, Setup, Test, own};
use crate::support::builders::{deployment, keys};
use crate::support::kubectl::{Output, Tool};
use crate::support::wait::until;
use serde_json::Value;
use std::thread;

pub(crate) fn tests() -> Vec<Test> {
    let guard = |mode: &str| Setup::default().with(&format!("--while-in-use={mode}"));
    vec![
        own(
            "strictness::wait_holds_the_client_until_the_old_pods_are_gone",
            guard("wait"),
            wait_holds_the_client_until_the_old_pods_are_gone,
        ),
        own(
            "strictness::warn_allows_and_tells_the_user",
            guard("warn").without_controllers(),
            warn_allows_and_tells_the_user,
        ),
        own("strictness::audit_allows_and_records", guard("audit").without_controllers(), audit_allows_and_records),
    ]
}

fn wait_holds_the_client_until_the_old_pods_are_gone(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.apply(deployment("api", 2, "models:v1").to_string()).ok();
    scene.rolled_out("deployment/api");
    scene.armed();
    removal(scene, "v1").run().denied("MG101").says("2 pods of Deployment").says("/api");
    assert_eq!(statuses(scene), [403], "its template would make more such pods: waiting does not help");

    // A paused rollout: the template is the new one, and all pods are still of the old one.
    scene.kubectl(["rollout", "pause", "deployment/api"]).run().ok();
    scene.apply(deployment("api", 2, "models:v2").to_string()).ok();
    // As long as it is thought to be the old one, the removal is refused for good.
    until("the new template is known", || removal(scene, "v2").args(["--dry-run=server"]).run().denies("MG101"));
    thread::scope(|scope| {
        let removed = scope.spawn(|| removal(scene, "v1").run());
        until("the client is held", || if statuses(scene).contains(&429) { Ok(()) } else { Err("not yet") });
        scene.kubectl(["rollout", "resume", "deployment/api"]).run().ok();
        removed.join().expect("kubectl ran").ok();
    });
    assert_eq!(statuses(scene).last(), Some(&200), "the client went on by itself");
    assert_eq!(scene.get("configmap", "models")["data"], serde_json::json!({"v2": "weights"}));
    let held = decisions(scene).into_iter().find(|line| line["status"] == 429).expect("the client was held");
    assert_eq!((&held["code"], &held["enforcement"]), (&"MG101".into(), &"Wait".into()), "{held}");
    assert_eq!(held["retry_after_s"], 30);
}

fn warn_allows_and_tells_the_user(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 2, "models:v1").to_string()).ok();
    until("its holder is known", || known_as_held(scene));
    let told = removal(scene, "v1").run().ok();
    told.says("Warning: modelguard only warns here, and would deny this: [MG101] models: entry v1 is still used by")
        .says("the pod template of Deployment");
    assert_eq!(scene.get("configmap", "models")["data"], serde_json::json!({"v2": "weights"}));
}

fn audit_allows_and_records(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 2, "models:v1").to_string()).ok();
    until("its holder is known", || known_as_held(scene));
    removal(scene, "v1").run().ok().silent_on("Warning");
    let events = scene.at.cluster.audit_events(&scene.namespace.name);
    let is_removal = |event: &&Value| event["verb"] == "patch" && event["objectRef"]["name"] == "models";
    let event = events.iter().rfind(is_removal).expect("an audit event of the removal");
    let annotation = |name: &str| event["annotations"][format!("catalog.modelguard.dev/{name}")].clone();
    assert_eq!((annotation("decision"), annotation("code")), ("audit".into(), "MG101".into()), "{event:#}");
    let line = until("it is on record", || {
        // Not the rehearsals before it.
        let is_meant = |line: &Value| line["operation"] == "UPDATE" && line["dry_run"] == false;
        decisions(scene).into_iter().rfind(is_meant).ok_or("no record")
    });
    assert_eq!((&line["allowed"], &line["code"]), (&true.into(), &"MG101".into()), "{line}");
    assert_eq!(line["enforcement"], "Audit", "{line}");
}

// === what is done, and what came of it ===

fn removal(scene: &Scene<'_>, entry: &str) -> Tool {
    let patch = format!(r#"{{"data":{{"{entry}":null}}}}"#);
    scene.kubectl(["patch", "configmap", "models", "--type=merge", "-p", &patch])
}

/// What a dry run of the removal is recorded as: `Err` while its holder has not been seen.
fn known_as_held(scene: &Scene<'_>) -> Result<(), Output> {
    let dry_run = removal(scene, "v1").args(["--dry-run=server"]).run().ok();
    let line = decisions(scene).into_iter().rfind(|line| line["dry_run"] == true);
    if line.is_some_and(|line| line["code"] == "MG101") { Ok(()) } else { Err(dry_run) }
}

/// What the API server answered to the removals.
fn statuses(scene: &Scene<'_>) -> Vec<u64> {
    let answers = scene.answers("configmaps", "models", "admin").into_iter();
    answers.filter(|(verb, _)| verb == "patch").map(|(_, status)| status).collect()
}

/// The decision records of changes of the model ConfigMap, oldest first.
fn decisions(scene: &Scene<'_>) -> Vec<Value> {
    let logs = scene.at.modelguard.logs();
    let records = logs.lines().filter(|line| line.contains(r#""webhook":"catalog""#));
    let records = records.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_meant = |line: &Value| {
        line["object"]["name"] == "models" && line["object"]["namespace"] == scene.namespace.name.as_str()
    };
    records.filter(is_meant).collect()
}
