//! `rollbackTargets`: what an old ReplicaSet counts for, which a rollback would bring back.

use crate::scene::{Scene, Setup, Test, own, shared};
use crate::support::builders::{deployment, keys};
use crate::support::kubectl::Tool;
use crate::support::wait::until;
use serde_json::{Value, json};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        shared(
            "targets::whoever_removes_what_a_rollback_needs_is_warned",
            whoever_removes_what_a_rollback_needs_is_warned,
        ),
        own(
            "targets::a_rollback_target_holds_until_it_leaves_the_history",
            Setup::default().with("--rollback-targets=hold"),
            a_rollback_target_holds_until_it_leaves_the_history,
        ),
        own(
            "targets::a_rollback_target_that_is_ignored_is_not_spoken_of",
            Setup::default().with("--rollback-targets=ignore"),
            a_rollback_target_that_is_ignored_is_not_spoken_of,
        ),
    ]
}

fn whoever_removes_what_a_rollback_needs_is_warned(scene: &Scene<'_>) {
    roll_out(scene);
    scene.armed();
    let warning = format!(
        "modelguard: entry v1 is what a rollback of Deployment {}/api (revision 1) would need; add it again before you roll back",
        scene.namespace.name
    );
    until("the removal is allowed", || removal(scene).succeed().map(|told| drop(told.says(&warning))));
    assert_eq!(scene.get("configmap", "models")["data"], json!({"v2": "weights"}));
    // And so it is: the guard does not let the rollback through before.
    scene.kubectl(["rollout", "undo", "deployment/api"]).run().denied("MG201").says("v1");
    // Nor does it let somebody scale up by hand what the Deployment left behind.
    let old = old(scene);
    let by_hand = scene.kubectl(["scale", &old, "--replicas=1"]).run().denied("MG201");
    by_hand.says("entry v1").says("This is step 2 (roll out the app) of a release");
    scene.kubectl(["patch", &old, r#"-p={"spec":{"replicas":1}}"#]).run().denied("MG201").says("entry v1");
    scene.kubectl(["patch", "configmap", "models", "--type=merge", r#"-p={"data":{"v1":"weights"}}"#]).run().ok();
    scene.kubectl(["rollout", "undo", "deployment/api"]).run().ok();
    scene.rolled_out("deployment/api");
}

fn a_rollback_target_holds_until_it_leaves_the_history(scene: &Scene<'_>) {
    roll_out(scene);
    scene.armed();
    let denied = removal(scene).run().denied("MG101");
    denied
        .says("entry v1 is still used by rollback target ReplicaSet")
        .says("of Deployment api (revision 1).")
        .says("lower its owner's revisionHistoryLimit, or delete the old ReplicaSet");
    scene
        .kubectl(["patch", "deployment", "api", "--type=merge", r#"-p={"spec":{"revisionHistoryLimit":0}}"#])
        .run()
        .ok();
    until("the removal is allowed", || removal(scene).succeed().map(drop));
    assert_eq!(scene.get("configmap", "models")["data"], json!({"v2": "weights"}));
}

fn a_rollback_target_that_is_ignored_is_not_spoken_of(scene: &Scene<'_>) {
    roll_out(scene);
    scene.armed();
    until("the removal is allowed", || removal(scene).succeed().map(|told| drop(told.silent_on("modelguard"))));
    assert_eq!(scene.get("configmap", "models")["data"], json!({"v2": "weights"}));
    // It counts for nothing while it is at zero; what would come of it is judged as ever.
    scene.kubectl(["rollout", "undo", "deployment/api"]).run().denied("MG201").says("v1");
}

/// A Deployment that came from v1 to v2, of which the old pods are gone.
fn roll_out(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.apply(deployment("api", 1, "models:v1").to_string()).ok();
    scene.rolled_out("deployment/api");
    scene.apply(deployment("api", 1, "models:v2").to_string()).ok();
    scene.rolled_out("deployment/api");
    until("only the new ReplicaSet has pods", || {
        let list = scene.kubectl(["get", "replicasets", "-o", "json"]).run().json();
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let alive = |set: &&Value| set["status"]["replicas"] != 0;
        if all.len() == 2 && all.iter().filter(alive).count() == 1 { Ok(()) } else { Err(list.to_string()) }
    });
}

/// The ReplicaSet that its Deployment scaled down.
fn old(scene: &Scene<'_>) -> String {
    let list = scene.kubectl(["get", "replicasets", "-o", "json"]).run().json();
    let all = list["items"].as_array().into_iter().flatten();
    let mut old = all.filter(|set| set["spec"]["replicas"] == 0).filter_map(|set| set["metadata"]["name"].as_str());
    format!("replicaset/{}", old.next().expect("an old ReplicaSet"))
}

fn removal(scene: &Scene<'_>) -> Tool {
    scene.kubectl(["patch", "configmap", "models", "--type=merge", r#"-p={"data":{"v1":null}}"#])
}
