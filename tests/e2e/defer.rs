//! `whileInUse: Defer`: a release that does all at once loses nothing, and the catalog becomes what was asked for.

use crate::moments;
use crate::scene::{Scene, Setup, Test, own};
use crate::support::builders::{deployment, extraction, extraction_models, keys, manifest};
use crate::support::kubectl::Output;
use crate::support::leftovers::Dir;
use crate::support::wait::until;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::fs;

const MODELS: &str = "extraction-models";
const APP: &str = "extraction-api";

pub(crate) fn tests() -> Vec<Test> {
    let test = |name: &str, body: fn(&Scene<'_>)| own(name, Setup::default().with("--while-in-use=defer"), body);
    vec![
        test("defer::a_combined_release_loses_nothing", a_combined_release_loses_nothing),
        test("defer::a_rollback_in_the_middle_loses_nothing", a_rollback_in_the_middle_loses_nothing),
        test("defer::helm_and_modelguard_go_back_to_the_same", helm_and_modelguard_go_back_to_the_same),
        test("defer::whoever_owns_the_data_goes_on_to", whoever_owns_the_data_goes_on_to),
        test("defer::what_cannot_be_deferred_is_denied", what_cannot_be_deferred_is_denied),
    ]
}

fn a_combined_release_loses_nothing(scene: &Scene<'_>) {
    let since = moments::now(scene);
    helm(scene, "v2", 1).ok();
    scene.rolled_out("deployment/extraction-api");
    scene.armed();
    helm(scene, "v3", 1).ok();
    let stored = scene.get("configmap", MODELS);
    assert_eq!(stored["data"]["models.yaml"], extraction(&["v3", "v2"]), "nobody took v2 from the old pods");
    assert_eq!(annotation(&stored, "retained"), r#"["extraction@v2"]"#);
    scene.rolled_out("deployment/extraction-api");
    until_listed(scene, &["v3"]);

    let stored = scene.get("configmap", MODELS);
    assert_eq!(annotation(&stored, "revision"), "2", "the removal completed the revision that deferred it");
    assert_eq!(annotation(&stored, "retained"), Value::Null);
    assert_eq!(annotation(&stored, "retire"), Value::Null);
    let kept = annotation(&stored, "prior-revision");
    let kept: Value = serde_json::from_str(kept.as_str().expect("a prior revision")).expect("JSON");
    assert_eq!(kept["payload"]["data"]["models.yaml"], extraction(&["v2"]));
    moments::nothing_dangled(scene, &since, &moments::APPS);
}

/// The new version takes for ever to become available, and is given up.
fn a_rollback_in_the_middle_loses_nothing(scene: &Scene<'_>) {
    let since = moments::now(scene);
    helm(scene, "v2", 1).ok();
    scene.rolled_out("deployment/extraction-api");
    scene.armed();
    helm(scene, "v3", 500).ok();
    until("a pod of the new version runs", || {
        let pods = scene.kubectl(["get", "pods", "-o", "json"]).run().json();
        let count = |version: &str| items(&pods).filter(|pod| moments::uses(pod).contains(&reference(version))).count();
        if count("v3") > 0 && count("v2") > 0 { Ok(()) } else { Err(pods.to_string()) }
    });
    let args = ["rollback", "extraction", "1", "-n", &scene.namespace.name];
    scene.at.cluster.helm(args).run().ok();
    let stored = scene.get("configmap", MODELS);
    assert_eq!(stored["data"]["models.yaml"], extraction(&["v2", "v3"]), "nobody took v3 from its pods");
    assert_eq!(annotation(&stored, "retained"), r#"["extraction@v3"]"#, "v2 is asked for again");
    scene.rolled_out("deployment/extraction-api");
    until_listed(scene, &["v2"]);
    moments::nothing_dangled(scene, &since, &moments::APPS);
}

/// And Helm goes on from there as if it had done it itself.
fn helm_and_modelguard_go_back_to_the_same(scene: &Scene<'_>) {
    let content = || {
        let stored = scene.get("configmap", MODELS);
        (stored["data"].clone(), stored["binaryData"].clone(), stored["immutable"].clone())
    };
    let release = |version: &str, more: &[&str]| {
        upgrade(scene, version, 1, more).ok();
        scene.rolled_out("deployment/extraction-api");
        until_listed(scene, &[version]);
    };
    let since = moments::now(scene);
    release("v2", &[]);
    scene.armed();
    let first = content();
    release("v3", &[]);
    scene.at.cluster.helm(["rollback", "extraction", "1", "-n", &scene.namespace.name]).run().ok();
    until_listed(scene, &["v2"]);
    assert_eq!(content(), first, "by Helm");
    release("v3", &[]);
    let args = ["rollback", MODELS, "--with", "deployment/extraction-api", "-n", &scene.namespace.name];
    scene.modelguard(args).run().ok();
    assert_eq!(content(), first, "by modelguard");
    // The app's template was changed by somebody else than Helm, as by `kubectl rollout undo`.
    release("v3", &["--force-conflicts"]);
    moments::nothing_dangled(scene, &since, &moments::APPS);
}

fn whoever_owns_the_data_goes_on_to(scene: &Scene<'_>) {
    let apply = |versions: &[&str]| {
        let models = extraction_models(versions).to_string();
        scene.kubectl(["apply", "--server-side", "-f-"]).stdin(models).run()
    };
    apply(&["v2"]).ok();
    scene.create_object(deployment(APP, 1, &reference("v2")).to_string()).ok();
    scene.armed();
    apply(&["v3"]).ok().says("Warning: entry extraction@v2 may still be needed");
    let revision = || scene.get("configmap", MODELS)["metadata"]["resourceVersion"].clone();
    let before = revision();
    apply(&["v3"]).ok();
    assert_eq!(revision(), before, "applied again, it changes nothing");

    scene.kubectl(["delete", "deployment", APP, "--cascade=foreground"]).run().ok();
    until_listed(scene, &["v3"]);
    let managers = scene.kubectl(["get", "configmap", MODELS, "-o", "json", "--show-managed-fields"]).run().json();
    let owners = managers["metadata"]["managedFields"].as_array().into_iter().flatten();
    let owners: Vec<_> =
        owners.filter(|it| !it["fieldsV1"]["f:data"].is_null()).map(|it| it["manager"].clone()).collect();
    assert_eq!(owners, ["kubectl"], "{managers:#}");
    apply(&["v3", "v4"]).ok();
    assert_eq!(scene.get("configmap", MODELS)["data"]["models.yaml"], extraction(&["v3", "v4"]));
}

fn what_cannot_be_deferred_is_denied(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    let patch = |patch: &str| scene.kubectl(["patch", "configmap", "models", "--type=merge", "-p", patch]).run();
    patch(r#"{"data":{"v1":"another"}}"#).denied("MG102").says("It cannot be deferred: one version cannot have two");
    scene
        .kubectl(["delete", "configmap", "models"])
        .run()
        .denied("MG106")
        .says("It cannot be deferred: a deletion leaves nothing to keep it in");
    patch(r#"{"data":{"v1":null}}"#).ok().says("entry v1 may still be needed");
    // Somebody who does not ask for it leaves it as it is; somebody who does keeps it.
    patch(r#"{"data":{"v3":"new"}}"#).ok();
    let stored = scene.get("configmap", "models");
    assert_eq!(stored["data"], json!({"v1": "weights", "v2": "weights", "v3": "new"}));
    assert_eq!(annotation(&stored, "retained"), r#"["v1"]"#);
    scene.apply(keys("models", &["v1", "v2", "v3"]).to_string()).ok();
    assert_eq!(annotation(&scene.get("configmap", "models"), "retained"), Value::Null);
    // Whoever may pass the rules means it, and it goes at once; for everybody else it is as before.
    let grant = format!("modelguard.dev/break-glass={:.0} INC-1", Timestamp::now() + SignedDuration::from_mins(30));
    scene.kubectl(["annotate", "configmap", "models", &grant]).run().ok();
    let removal = r#"{"data":{"v1":null}}"#;
    scene.kubectl(["create", "rolebinding", "dev", "--clusterrole=edit", "--user=dev"]).run().ok();
    let by_dev = ["patch", "configmap", "models", "--type=merge", "-p", removal, "--as=dev"];
    until("dev may edit", || scene.kubectl(["auth", "can-i", "patch", "configmaps", "--as=dev"]).succeed().map(drop));
    scene.kubectl(by_dev).run().ok().says("entry v1 may still be needed");
    patch(removal).ok().says("lets pass what modelguard denies: [MG101]").silent_on("It cannot be deferred");
    let stored = scene.get("configmap", "models");
    assert_eq!(stored["data"], json!({"v2": "weights", "v3": "weights"}));
    // What a client says of it itself is nothing.
    let forged = r#"{"metadata":{"annotations":{"modelguard.dev/retained":"[\"v2\"]","modelguard.dev/retire":"now"}}}"#;
    patch(forged).ok();
    let stored = scene.get("configmap", "models");
    assert_eq!((annotation(&stored, "retained"), annotation(&stored, "retire")), (Value::Null, Value::Null));
}

// === releases ===

/// One chart with the models and the app, both of one version; a pod of it counts as available after so many seconds.
fn helm(scene: &Scene<'_>, version: &str, min_ready_seconds: u32) -> Output {
    upgrade(scene, version, min_ready_seconds, &[])
}

/// The same with more flags.
fn upgrade(scene: &Scene<'_>, version: &str, min_ready_seconds: u32, more: &[&str]) -> Output {
    let chart = Dir::new().expect("a folder");
    chart.write("Chart.yaml", "{apiVersion: v2, name: extraction, version: 0.1.0}").expect("a file");
    fs::create_dir(chart.join("templates")).expect("a folder");
    let mut app = deployment(APP, 3, &reference(version));
    app["spec"]["minReadySeconds"] = min_ready_seconds.into();
    let both = manifest(&[extraction_models(&[version]), app]);
    chart.write("templates/all.yaml", &both).expect("a file");
    let chart = chart.path().display().to_string();
    let args = ["upgrade", "--install", "extraction", &chart, "-n", &scene.namespace.name];
    scene.at.cluster.helm(args).args(more.iter().copied()).run()
}

fn reference(version: &str) -> String {
    format!("{MODELS}:extraction@{version}")
}

fn until_listed(scene: &Scene<'_>, versions: &[&str]) {
    until("the catalog is what was asked for", || {
        let stored = scene.get("configmap", MODELS);
        if stored["data"]["models.yaml"] == extraction(versions) { Ok(()) } else { Err(stored.to_string()) }
    });
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn annotation(object: &Value, name: &str) -> Value {
    object["metadata"]["annotations"][format!("modelguard.dev/{name}")].clone()
}
