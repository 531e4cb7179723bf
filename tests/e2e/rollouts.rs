//! Argo Rollouts, its real controller included: what a Rollout holds, by its template and by what is stable.
//!
//! ```text
//! v1 stable ──template v2──▶ canary, paused halfway ──promote──▶ v2 stable
//!                              └──abort──▶ v1 again, while the template still says v2
//! ```

use crate::scene::{Scene, Setup, Test, own, shared_with_rollouts};
use crate::support::builders::{deployment, keys, rollout};
use crate::support::kubectl::Tool;
use crate::support::wait::{poll, until};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

/// Modelguard notices within a minute that a kind was installed; the rest is for a busy machine.
const NOTICED: Duration = Duration::from_secs(90);

pub(crate) fn tests() -> Vec<Test> {
    vec![
        shared_with_rollouts("rollouts::a_template_holds_at_any_count", a_template_holds_at_any_count),
        shared_with_rollouts("rollouts::a_canary_holds_both_versions", a_canary_holds_both_versions),
        shared_with_rollouts("rollouts::an_aborted_canary_holds_both_versions", an_aborted_canary_holds_both_versions),
        shared_with_rollouts("rollouts::what_is_stable_holds_at_zero", what_is_stable_holds_at_zero),
        shared_with_rollouts("rollouts::a_template_may_be_borrowed", a_template_may_be_borrowed),
        own("rollouts::the_kind_may_come_and_go", Setup::default().without_controllers(), the_kind_may_come_and_go),
    ]
}

fn a_template_holds_at_any_count(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(rollout("api", 0, "models:v9").to_string()).denied("MG201").says("v9").says("v1").says("v2");
    assert_eq!(scene.answers("rollouts", "api", "admin"), [("create".to_owned(), 403)]);
    scene.create_object(rollout("api", 0, "models:v1").to_string()).ok();
    scene.apply(rollout("api", 0, "models:v9").to_string()).denied("MG201");
    removal(scene, "v1").run().denied("MG101").says(&format!("Rollout {}/api", scene.namespace.name));
}

fn a_canary_holds_both_versions(scene: &Scene<'_>) {
    start_canary(scene);
    let by_pods = format!("pod of Rollout {}/api (api-", scene.namespace.name);
    for version in ["v1", "v2"] {
        removal(scene, version).run().denied("MG101").says(&by_pods);
    }
    status(scene, &json!({"promoteFull": true}));
    wait_until_stable(scene, "models:v2");
    let warning = format!(
        "entry v1 is what a rollback of Rollout {}/api (revision 1) would need; add it again before you roll back",
        scene.namespace.name
    );
    scene.armed();
    until("v1 may go", || removal(scene, "v1").succeed().map(|told| drop(told.says(&warning))));
    assert_eq!(scene.get("configmap", "models")["data"], json!({"v2": "weights"}));
    scene.apply(rollout("api", 2, "models:v1").to_string()).denied("MG201");
    removal(scene, "v2").run().denied("MG101");
}

/// The canary fails, and goes back by itself; then somebody takes the template back.
fn an_aborted_canary_holds_both_versions(scene: &Scene<'_>) {
    start_canary(scene);
    status(scene, &json!({"abort": true}));
    until("only v1 has pods", || {
        let sets = replicas(scene);
        if sets == [(1, 2), (2, 0)] { Ok(()) } else { Err(format!("{sets:?}")) }
    });
    removal(scene, "v1").run().denied("MG101").says("2 pods of Rollout");
    removal(scene, "v2").run().denied("MG101").says("the pod template of Rollout");
    scene.apply(rollout("api", 2, "models:v1").to_string()).ok();
    wait_until_stable(scene, "models:v1");
    scene.armed();
    until("v2 may go", || removal(scene, "v2").succeed().map(drop));
    assert_eq!(scene.get("configmap", "models")["data"], json!({"v1": "weights"}));
}

fn what_is_stable_holds_at_zero(scene: &Scene<'_>) {
    start_canary(scene);
    scene.kubectl(["scale", "rollout", "api", "--replicas=0"]).run().ok();
    until("nothing has pods", || {
        let pods = scene.kubectl(["get", "pods", "-o", "name"]).run().ok().stdout;
        let sets = replicas(scene);
        if sets == [(1, 0), (2, 0)] && pods.is_empty() { Ok(()) } else { Err(format!("{sets:?} {pods}")) }
    });
    let by_template = format!("the pod template of Rollout {}/api", scene.namespace.name);
    for version in ["v1", "v2"] {
        until("its pods are known to be gone", || {
            let denied = removal(scene, version).run().denied("MG101");
            if denied.stderr.contains(&by_template) { Ok(()) } else { Err(denied) }
        });
    }
    // Nor does a proof go through, were it tried for as long as it takes where nobody holds anything.
    scene.armed();
    removal(scene, "v1").run().denied("MG101");
    scene.kubectl(["scale", "rollout", "api", "--replicas=2"]).run().ok();
    until("both have pods again", || {
        let sets = replicas(scene);
        if sets == [(1, 1), (2, 1)] { Ok(()) } else { Err(format!("{sets:?}")) }
    });
}

/// The Deployment whose template it is holds, and what the Rollout made of it.
fn a_template_may_be_borrowed(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("base", 0, "models:v1").to_string()).ok();
    let mut borrower = rollout("api", 1, "");
    let spec = borrower["spec"].as_object_mut().expect("a spec");
    spec.remove("template");
    spec.insert("selector".to_owned(), json!({"matchLabels": {"app": "base"}}));
    spec.insert("workloadRef".to_owned(), json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "base"}));
    scene.create_object(borrower.to_string()).ok();
    wait_until_stable(scene, "");
    removal(scene, "v1").run().denied("MG101").says("/base").says("1 pod of Rollout");
    scene.armed();
    until("nobody needs v2", || removal(scene, "v2").succeed().map(drop));
}

/// Modelguard started before the kind was there. The second time its watch is one that saw the kind go.
fn the_kind_may_come_and_go(scene: &Scene<'_>) {
    let cluster = &scene.at.cluster;
    let kinds = fs::read_to_string(cluster.assets().path("rollouts-crds.yaml")).expect("it can be read");
    let kind =
        kinds.split("\n---\n").find(|kind| kind.contains("\n  name: rollouts.argoproj.io\n")).expect("one of them");
    scene.armed();
    scene.create_object(keys("models", &["v1", "v2", "v3", "v4"]).to_string()).ok();
    removal(scene, "v4").run().ok();
    let not_installed = || scene.at.modelguard.logs().matches("not installed").count();
    assert_eq!(not_installed(), 1, "said, and said once");

    for version in ["v1", "v2"] {
        cluster.kubectl(["create", "-f-"]).stdin(kind).run().ok();
        let unknown = rollout("api", 0, "models:v9").to_string();
        until("the kind is served, and guarded", || scene.create_object(&*unknown).denies("MG201"));
        scene.create_object(rollout("api", 0, &format!("models:{version}")).to_string()).ok();
        let holder = format!("the pod template of Rollout {}/api", scene.namespace.name);
        let named = || {
            let denied = removal(scene, version).run();
            if denied.stderr.contains(&holder) { Ok(denied) } else { Err(denied) }
        };
        poll("the Rollout is known", NOTICED, named).expect("it is named").denied("MG101");

        cluster.kubectl(["delete", "crd", "rollouts.argoproj.io"]).run().ok();
        poll("nobody holds it", NOTICED, || removal(scene, version).run().passed()).expect("it may go");
    }
    assert_eq!(scene.get("configmap", "models")["data"], json!({"v3": "weights"}));
    until("that is said each time once", || match not_installed() {
        3 => Ok(()),
        count => Err(count),
    });
    scene.at.modelguard.first().check().expect("it runs since the beginning");
}

// === what is there ===

/// A Rollout that came to v1, and stands halfway to v2.
fn start_canary(scene: &Scene<'_>) {
    scene.wait_for_account();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(rollout("api", 2, "models:v1").to_string()).ok();
    wait_until_stable(scene, "models:v1");
    scene.apply(rollout("api", 2, "models:v2").to_string()).ok();
    until("the canary waits", || {
        let api = scene.get("rollout", "api");
        let waits = api["status"]["pauseConditions"][0]["reason"] == "CanaryPauseStep" && has_seen(&api);
        if waits && replicas(scene) == [(1, 1), (2, 1)] { Ok(()) } else { Err(api["status"].to_string()) }
    });
}

/// Waits until the Rollout is of that version, and of no other.
fn wait_until_stable(scene: &Scene<'_>, uses: &str) {
    until("it is stable", || {
        let api = scene.get("rollout", "api");
        let status = &api["status"];
        let now = &api["spec"]["template"]["metadata"]["annotations"]["modelguard.dev/uses"];
        let is_stable = status["phase"] == "Healthy" && status["stableRS"] == status["currentPodHash"];
        let counts = replicas(scene).into_iter().filter(|(_, count)| *count > 0).count();
        let is_of_it = now.as_str().unwrap_or_default() == uses && has_seen(&api);
        if is_stable && is_of_it && counts == 1 { Ok(()) } else { Err(status.to_string()) }
    });
}

/// Whether the status is about the spec as it is; it says so by a text.
fn has_seen(api: &Value) -> bool {
    let generation = &api["metadata"]["generation"];
    api["status"]["observedGeneration"].as_str() == Some(&generation.to_string())
}

/// Of each revision, in order: its number, and how many pods it has.
fn replicas(scene: &Scene<'_>) -> Vec<(u64, u64)> {
    let list = scene.kubectl(["get", "replicasets", "-o", "json"]).run().json();
    let revision = |set: &Value| {
        let number = set["metadata"]["annotations"]["rollout.argoproj.io/revision"].as_str()?.parse().ok()?;
        Some((number, set["status"]["replicas"].as_u64().unwrap_or_default()))
    };
    let mut sets: Vec<_> = list["items"].as_array().into_iter().flatten().filter_map(revision).collect();
    sets.sort_unstable();
    sets
}

/// What `kubectl argo rollouts` writes to promote or abort.
fn status(scene: &Scene<'_>, status: &Value) {
    let patch = json!({"status": status}).to_string();
    scene.kubectl(["patch", "rollout", "api", "--subresource=status", "--type=merge", "-p", &patch]).run().ok();
}

fn removal(scene: &Scene<'_>, version: &str) -> Tool {
    let patch = json!({"data": {version: null}}).to_string();
    scene.kubectl(["patch", "configmap", "models", "--type=merge", "-p", &patch])
}
