//! What people find beside a model ConfigMap when they were not the ones who ran the command.

use crate::scene::{Scene, Test, shared};
use crate::support::builders::{deployment, keys};
use crate::support::kubectl::Output;
use crate::support::wait::until;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        shared("events::a_refused_removal_is_one_event_that_counts", a_refused_removal_is_one_event_that_counts),
        shared("events::an_entry_that_may_be_removed_is_announced", an_entry_that_may_be_removed_is_announced),
    ]
}

fn a_refused_removal_is_one_event_that_counts(scene: &Scene<'_>) {
    const TIMES: u64 = 5;
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    until("its holder is known", || remove(scene, "v1", &["--dry-run=server"]).denies("MG101"));
    let messages: BTreeSet<_> = (0..TIMES).map(|_| denial(&remove(scene, "v1", &[]).denied("MG101"))).collect();
    assert_eq!(messages.len(), 1, "{messages:?}");
    let message = messages.first().expect("a denial");
    let deletion = denial(&scene.kubectl(["delete", "configmap", "models"]).run().denied("MG106"));

    // The last of them was announced after all others.
    let events = until("the deletion is an event, and the removals have been counted", || {
        let events = events(scene, "RemovalRefused");
        let counts =
            events.iter().find(|event| event["note"] == **message).map(|event| event["series"]["count"].as_u64());
        let is_there = events.iter().any(|event| event["note"] == *deletion);
        if is_there && counts == Some(Some(TIMES)) { Ok(events) } else { Err(json!(events)) }
    });
    assert_eq!(events.len(), 2, "one a text, and none of the dry run: {events:#?}");
    let config_map = scene.get("configmap", "models");
    for event in &events {
        assert_eq!((&event["type"], &event["action"]), (&"Warning".into(), &"Remove".into()), "{event:#}");
        assert_eq!(event["regarding"]["uid"], config_map["metadata"]["uid"], "{event:#}");
        assert_eq!(event["reportingController"], "modelguard", "{event:#}");
    }
    // As people look for them.
    let first_line = message.lines().next().expect("a line");
    for look in [&["events", "--for", "configmap/models"][..], &["describe", "configmap", "models"]] {
        let seen = scene.kubectl(look.iter().copied()).run().ok();
        assert!(seen.stdout.contains("RemovalRefused") && seen.stdout.contains(first_line), "{seen}");
    }
}

fn an_entry_that_may_be_removed_is_announced(scene: &Scene<'_>) {
    scene.armed();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    // kubectl waits meanwhile: what is waited for is no refusal.
    remove(scene, "v1", &[]).ok();
    let expected = "entry v1 may be removed now: no pod and no pod template uses it";
    let found = until("it is announced", || match events(scene, "EntryRemovable").as_slice() {
        [event] => Ok(event.clone()),
        other => Err(json!(other)),
    });
    assert_eq!((&found["type"], &found["note"]), (&"Normal".into(), &expected.into()), "{found:#}");
    let seen = scene.kubectl(["events", "--for", "configmap/models"]).run().ok();
    assert!(seen.stdout.contains(expected), "{seen}");
    assert_eq!(events(scene, "RemovalRefused"), Vec::<Value>::new());
}

fn remove(scene: &Scene<'_>, entry: &str, more: &[&str]) -> Output {
    let patch = json!({"data": {entry: null}}).to_string();
    let args = ["patch", "configmap", "models", "--type=merge", "-p", &patch];
    scene.kubectl(args.iter().chain(more).copied()).run()
}

/// The message of a denial, as modelguard wrote it.
fn denial(output: &Output) -> String {
    let start = output.stderr.find("[MG").expect("a code");
    output.stderr[start..].trim_end().to_owned()
}

/// The Events of this reason about the ConfigMap `models`.
fn events(scene: &Scene<'_>, reason: &str) -> Vec<Value> {
    let listed = scene.kubectl(["get", "events.v1.events.k8s.io", "-o", "json"]).run().json();
    let is_meant = |event: &&Value| event["reason"] == reason && event["regarding"]["name"] == "models";
    listed["items"].as_array().into_iter().flatten().filter(is_meant).cloned().collect()
}
