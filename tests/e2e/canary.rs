//! The incident, on a real canary of Argo Rollouts: the release changes model and app at once, the canary fails, and
//! somebody rolls both back by hand in the middle of it.

use crate::moments;
use crate::scene::{Scene, Setup, Test, own};
use crate::support::builders::{extraction, extraction_models, manifest, rollout};
use crate::support::control_plane::Shape;
use crate::support::wait::until;
use serde_json::{Value, json};

const MODELS: &str = "extraction-models";
const APP: &str = "extraction-api";

/// Pods, and the templates that people wrote. An old ReplicaSet at zero needs nothing.
const APPS: [&str; 2] = ["/api/v1/pods", "/apis/argoproj.io/v1alpha1/rollouts"];

pub(crate) fn tests() -> Vec<Test> {
    let setup = Setup { shape: Shape::Rollouts, ..Setup::default().with("--while-in-use=defer") };
    vec![own("canary::the_incident_goes_back_both_ways", setup, the_incident_goes_back_both_ways)]
}

fn the_incident_goes_back_both_ways(scene: &Scene<'_>) {
    let since = moments::now(scene);
    scene.wait_for_account();
    release(scene, "v2");
    until_stable(scene, "v2");
    scene.armed();
    let before = content(scene);

    // By hand: the model by its annotation, the app by its old manifest. The canary was aborted before.
    fail_halfway(scene);
    abort(scene);
    scene.kubectl(["annotate", "configmap", MODELS, "modelguard.dev/rollback-to=prior"]).run().ok();
    scene.apply(rollout(APP, 4, &reference("v2")).to_string()).ok();
    until_as_before(scene, &before);

    // By one command, while the canary still runs.
    fail_halfway(scene);
    let said = scene.modelguard(arguments(scene)).run().ok().stdout;
    assert!(said.contains("step 2, roll back: rollout/extraction-api is back\n"), "{said}");
    assert!(said.contains("step 3, remove: nothing is left of what came since\n"), "{said}");
    until_as_before(scene, &before);
    moments::nothing_dangled(scene, &since, &APPS);
}

// === the release ===

/// One manifest, as the incident's pipeline applied it.
fn release(scene: &Scene<'_>, version: &str) {
    let both = [extraction_models(&[version]), rollout(APP, 4, &reference(version))];
    scene.apply(manifest(&both)).ok();
}

/// The release of v3 stands at its canary, with pods of both versions.
fn fail_halfway(scene: &Scene<'_>) {
    release(scene, "v3");
    until("the canary waits halfway", || {
        let pods = pods(scene);
        if pods == ["v2", "v2", "v3", "v3"] { Ok(()) } else { Err(format!("{pods:?}")) }
    });
    assert_eq!(listed(scene), extraction(&["v3", "v2"]), "nobody took v2 from the old pods");
}

/// What the canary's analysis does when it sees errors.
fn abort(scene: &Scene<'_>) {
    let patch = r#"{"status":{"abort":true}}"#;
    scene.kubectl(["patch", "rollout", APP, "--subresource=status", "--type=merge", "-p", patch]).run().ok();
}

// === what there is ===

fn until_stable(scene: &Scene<'_>, version: &str) {
    until("it is stable", || {
        let pods = pods(scene);
        let status = scene.get("rollout", APP)["status"].take();
        let is_stable = status["phase"] == "Healthy" && status["stableRS"] == status["currentPodHash"];
        if is_stable && pods == [version; 4] { Ok(()) } else { Err(format!("{pods:?} {status}")) }
    });
}

/// App and model end exactly where they began.
fn until_as_before(scene: &Scene<'_>, before: &Value) {
    until_stable(scene, "v2");
    until("what came since goes", || {
        let listed = listed(scene);
        if listed == extraction(&["v2"]) { Ok(()) } else { Err(listed) }
    });
    assert_eq!(content(scene), *before);
    assert_eq!(moments::uses(&scene.get("rollout", APP)), [reference("v2")]);
}

/// What the ConfigMap stores.
fn content(scene: &Scene<'_>) -> Value {
    let stored = scene.get("configmap", MODELS);
    let retained = &stored["metadata"]["annotations"]["modelguard.dev/retained"];
    json!([stored["data"], stored["binaryData"], stored["immutable"], retained])
}

fn listed(scene: &Scene<'_>) -> String {
    scene.get("configmap", MODELS)["data"]["models.yaml"].as_str().unwrap_or_default().to_owned()
}

/// The versions that pods use, sorted.
fn pods(scene: &Scene<'_>) -> Vec<String> {
    let list = scene.kubectl(["get", "pods", "-o", "json"]).run().json();
    let pods = list["items"].as_array().into_iter().flatten();
    let version = |uses: String| uses.rsplit('@').next().unwrap_or_default().to_owned();
    let mut versions: Vec<_> = pods.flat_map(moments::uses).map(version).collect();
    versions.sort_unstable();
    versions
}

fn reference(version: &str) -> String {
    format!("{MODELS}:extraction@{version}")
}

fn arguments(scene: &Scene<'_>) -> [String; 6] {
    let namespace = scene.namespace.name.as_str();
    ["rollback", MODELS, "--with", "rollout/extraction-api", "-n", namespace].map(str::to_owned)
}
