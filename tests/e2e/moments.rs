//! Every moment of a release, read back from the API server's store: whether at any of them something was missing.

use crate::scene::Scene;
use crate::support::builders::{deployment, rollout, template, workload};
use crate::support::wait::until;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The model ConfigMap that is looked at.
const MODELS: &str = "extraction-models";

/// An object of each kind that is made when all is over: what has shown it has shown everything before it.
const END: &str = "the-end";

/// The kinds whose pod templates, or pods, may reference it.
pub(crate) const APPS: [&str; 2] = ["/api/v1/pods", "/apis/apps/v1/deployments"];

/// The revision of the whole store, from which on one looks.
pub(crate) fn now(scene: &Scene<'_>) -> String {
    let url = format!("/api/v1/namespaces/{}/configmaps?limit=1", scene.namespace.name);
    let list = scene.at.cluster.kubectl(["get", "--raw", &url]).run().json();
    list["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned()
}

/// At no moment since `since`, when nothing was there yet, did an object of these kinds (`/api/VERSION/RESOURCE`) reference a
/// version that was not listed.
pub(crate) fn nothing_dangled(scene: &Scene<'_>, since: &str, apps: &[&str]) {
    let kinds: Vec<&str> = ["/api/v1/configmaps"].iter().chain(apps).copied().collect();
    for kind in &kinds {
        end(scene, kind);
    }
    let mut events: Vec<_> = kinds.iter().flat_map(|kind| history(scene, kind, since)).collect();
    // One counter numbers the revisions of everything.
    events.sort_by_key(|event| number(&event["object"]));
    let mut listed: BTreeSet<String> = BTreeSet::new();
    let mut needed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut moments = 0;
    for event in &events {
        let object = &event["object"];
        let id = format!("{} {}", object["kind"], object["metadata"]["name"]);
        if object["kind"] == "ConfigMap" {
            if object["metadata"]["name"] == MODELS {
                let stored = object["data"]["models.yaml"].as_str().filter(|_| event["type"] != "DELETED");
                let text = stored.unwrap_or_default();
                let versions = text.lines().filter_map(|line| line.trim().strip_prefix("version: "));
                listed = versions.map(|version| format!("extraction@{version}")).collect();
            }
        } else if event["type"] == "DELETED" {
            needed.remove(&id);
        } else {
            let entries = uses(object).into_iter().filter_map(|it| Some(it.split_once(':')?.1.to_owned()));
            needed.insert(id, entries.collect());
        }
        let dangling: Vec<_> = needed.iter().filter(|(_, entries)| !entries.is_subset(&listed)).collect();
        assert!(dangling.is_empty(), "{dangling:?} while {listed:?} was listed, at {event:#}");
        moments += 1;
    }
    assert!(moments > 10 && !needed.is_empty(), "a release has more moments than {moments}");
}

/// What the annotation of a pod, or of a pod template, says.
pub(crate) fn uses(object: &Value) -> Vec<String> {
    let template = &object["spec"]["template"]["metadata"]["annotations"]["modelguard.dev/uses"];
    let own = &object["metadata"]["annotations"]["modelguard.dev/uses"];
    [template, own].into_iter().filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

/// Ends the history of a kind.
fn end(scene: &Scene<'_>, kind: &str) {
    let object = match kind.rsplit_once('/') {
        Some((_, "configmaps")) => json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": END}}),
        Some((_, "pods")) => workload("Pod", END, 1, template(END, "")),
        Some((_, "deployments")) => deployment(END, 0, ""),
        Some((_, "rollouts")) => rollout(END, 0, ""),
        _ => panic!("nothing is known of {kind}"),
    };
    scene.create_object(object.to_string()).ok();
}

/// All that happened to a kind in the test's namespace since `since`, to its end.
fn history(scene: &Scene<'_>, kind: &str, since: &str) -> Vec<Value> {
    let (version, resource) = kind.rsplit_once('/').expect("a version and a resource");
    let of = format!("{version}/namespaces/{}/{resource}", scene.namespace.name);
    let mut events: Vec<Value> = Vec::new();
    until("its history is read to its end", || {
        // A busy API server may not get there before the time is up: then it goes on from there.
        let since = events.last().map_or_else(|| since.to_owned(), |event| number(&event["object"]).to_string());
        let url = format!("{of}?watch=1&resourceVersion={since}&timeoutSeconds=2");
        let output = scene.at.cluster.kubectl(["get", "--raw", &url]).run().ok();
        for line in output.stdout.lines() {
            let event: Value = serde_json::from_str(line).expect("an event a line");
            assert_ne!(event["object"]["code"], 410, "the API server has forgotten what came after {since}: {event:#}");
            assert_ne!(event["type"], "ERROR", "{event:#}");
            if event["object"]["metadata"]["name"] == END {
                return Ok(());
            }
            events.push(event);
        }
        Err(format!("{} events of {of}", events.len()))
    });
    events
}

fn number(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a number")
}
