//! What goes with something else: with a collection, with its owner, with its namespace.

use crate::scene::{Scene, Setup, Test, own, shared};
use crate::support::builders::{deployment, keys, template, workload};
use crate::support::namespace::{Namespace, timeout};
use crate::support::wait::until;
use serde_json::{Value, json};

/// Whoever deletes what its owner leaves behind.
const COLLECTOR: &str = "system:serviceaccount:kube-system:generic-garbage-collector";

const KINDS: [&str; 8] =
    ["CronJob", "DaemonSet", "Deployment", "Job", "Pod", "ReplicaSet", "ReplicationController", "StatefulSet"];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        shared("deletions::a_collection_goes_but_for_what_is_used", a_collection_goes_but_for_what_is_used),
        shared("deletions::what_is_owned_goes_once_it_is_not_used", what_is_owned_goes_once_it_is_not_used),
        own(
            "deletions::a_namespace_goes_with_all_kinds_of_holders",
            Setup::default(),
            a_namespace_goes_with_all_kinds_of_holders,
        ),
    ]
}

/// By kubectl, which deletes one by one, and by the API server, which stops at the first that is refused.
fn a_collection_goes_but_for_what_is_used(scene: &Scene<'_>) {
    scene.armed();
    scene.create_object(deployment("free", 0, "").to_string()).ok();
    for used in ["used-a", "used-b"] {
        scene.create_object(keys(used, &["v1", "v2"]).to_string()).ok();
        scene.create_object(deployment(used, 0, &format!("{used}:v1")).to_string()).ok();
    }
    let ordinary = |name: &str| scene.kubectl(["create", "configmap", name, "--from-literal=a=1"]).run().ok();
    ordinary("ordinary-1");
    scene.create_object(keys("unused", &["v1"]).to_string()).ok();
    let label = ["label", "configmaps", "--all", "round=1"];
    scene.kubectl(label).run().ok();
    let denied = scene.kubectl(["delete", "configmaps", "-l", "round=1"]).run().denied("MG106");
    for used in ["used-a", "used-b"] {
        denied.clone().says(&format!("[MG106] {used}: ")).says(&format!("/{used}"));
    }
    left(scene, &["used-a", "used-b"]);

    ordinary("ordinary-2");
    let collection = format!("--raw=/api/v1/namespaces/{}/configmaps", scene.namespace.name);
    let denied = scene.kubectl(["delete", &collection]).run();
    denied.denied("MG106").says("entry v1 is still used by the pod template of Deployment").says("/used-");
    for used in ["used-a", "used-b"] {
        assert_eq!(scene.get("configmap", used)["data"], json!({"v1": "weights", "v2": "weights"}));
        scene.kubectl(["delete", "deployment", used]).run().ok();
    }
    // What was refused may go once nobody uses it; the collection is asked for again, as a person would.
    until("the collection goes", || scene.kubectl(["delete", &collection]).succeed().map(drop));
    left(scene, &[]);
}

/// These ConfigMaps are there, beside what the controllers put into every namespace.
#[track_caller]
fn left(scene: &Scene<'_>, expected: &[&str]) {
    let list = scene.kubectl(["get", "configmaps", "-o", "json"]).run().json();
    let names = list["items"].as_array().into_iter().flatten().filter_map(|it| it["metadata"]["name"].as_str());
    let names: Vec<_> = names.filter(|name| !["armed", "kube-root-ca.crt"].contains(name)).collect();
    assert_eq!(names, expected);
}

/// The garbage collector is refused as everybody is, and comes back by itself.
fn what_is_owned_goes_once_it_is_not_used(scene: &Scene<'_>) {
    scene.armed();
    scene.kubectl(["create", "configmap", "owner", "--from-literal=a=1"]).run().ok();
    let owner = scene.get("configmap", "owner")["metadata"]["uid"].clone();
    let mut models = keys("models", &["v1", "v2"]);
    models["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner}]);
    scene.create_object(models.to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    scene.kubectl(["delete", "configmap", "owner"]).run().ok();
    let deletions = || {
        let answers = scene.answers("configmaps", "models", COLLECTOR);
        answers.into_iter().filter(|(verb, _)| verb == "delete").map(|(_, status)| status).collect::<Vec<_>>()
    };
    until("it is refused", || if deletions().contains(&403) { Ok(()) } else { Err(format!("{:?}", deletions())) });
    assert_eq!(scene.get("configmap", "models")["data"], json!({"v1": "weights", "v2": "weights"}));
    let refusal = until("it is on record", || {
        let logs = scene.at.modelguard.logs();
        let mine = |line: &&str| line.contains(&scene.namespace.name) && line.contains(r#""operation":"DELETE""#);
        let records = logs.lines().filter(mine).filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.into_iter().find(|record| record["user"] == COLLECTOR).ok_or("no record")
    });
    assert_eq!((&refusal["code"], &refusal["status"]), (&"MG106".into(), &403.into()), "{refusal}");

    scene.kubectl(["delete", "deployment", "api"]).run().ok();
    until("it is gone", || {
        let left = scene.kubectl(["get", "configmap", "models", "--ignore-not-found", "-o", "name"]).run().ok();
        if left.stdout.is_empty() { Ok(()) } else { Err(left) }
    });
    assert_eq!(deletions().last(), Some(&200));
}

/// Catalogs in use, what people hold, the last server, and every kind that can need something: all of it goes.
fn a_namespace_goes_with_all_kinds_of_holders(scene: &Scene<'_>) {
    let going = Namespace::create(&scene.at.cluster, "deletions::going", true);
    going.wait_for_account();
    let mut held = keys("models", &["v1", "v2"]);
    held["metadata"]["annotations"] = json!({"modelguard.dev/hold": "v2=batch clients until Friday"});
    going.create_object(held.to_string()).ok();
    for kind in KINDS {
        let mut object = workload(kind, "api", 1, template(&kind.to_lowercase(), "models:v1"));
        if kind == "Job" {
            object["spec"]["suspend"] = true.into();
        }
        going.create_object(object.to_string()).ok();
    }
    let mut server = deployment("server", 1, "");
    server["spec"]["template"]["metadata"]["annotations"] = json!({"modelguard.dev/serves": "models:v1"});
    going.create_object(server.to_string()).ok();
    going.rolled_out("deployment/server");
    going.kubectl(["delete", "configmap", "models"]).run().denied("MG106").says("entry v1 is still used by");
    let rehearsal = going.kubectl(["delete", "deployment", "server", "--dry-run=server"]);
    until("its users are known", || rehearsal.run().denies("MG301"));
    going.kubectl(["delete", "namespace", &going.name, &timeout()]).run().ok();
    let gone = scene.at.cluster.kubectl(["get", "namespace", &going.name]).run();
    gone.failed("NotFound");
}
