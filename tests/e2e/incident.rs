//! The incident, with every client that people and pipelines use: model and app replaced in one go is denied, the
//! three steps pass, and the last one waits by itself until it is safe.

use crate::scene::{Scene, Test, shared};
use crate::support::builders::{deployment, extraction, extraction_models, manifest};
use crate::support::kubectl::{Output, Tool};
use crate::support::leftovers::Dir;
use crate::support::wait::until;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

const MODELS: &str = "extraction-models";
const APP: &str = "extraction-api";

/// A way to release: makes the cluster list these versions and run an app that uses this one.
struct Client {
    name: &'static str,
    release: Release,
    /// Whether it can make the objects too, or somebody has to apply them first.
    installs: bool,
    /// Whether it writes model and app, and goes on to the app when the model was denied.
    goes_on: bool,
}

type Release = fn(&Scene<'_>, &[&str], &str) -> Output;

const CLIENTS: [Client; 7] = [
    Client { name: "apply", release: apply, installs: true, goes_on: true },
    Client { name: "apply_server_side", release: apply_server_side, installs: true, goes_on: true },
    Client { name: "patch_merge", release: patch_merge, installs: false, goes_on: false },
    Client { name: "patch_json", release: patch_json, installs: false, goes_on: false },
    Client { name: "edit", release: edit, installs: false, goes_on: false },
    Client { name: "helm_4", release: helm_4, installs: true, goes_on: false },
    Client { name: "helm_3", release: helm_3, installs: true, goes_on: false },
];

pub(crate) fn tests() -> Vec<Test> {
    let by_client =
        CLIENTS.map(|client| shared(&format!("incident::{}", client.name), move |scene| three_steps(scene, &client)));
    let others = [
        shared("incident::replace_waits_and_passes_when_repeated", replace_waits_and_passes_when_repeated),
        shared("incident::delete", delete),
        shared("incident::replaced_in_place", replaced_in_place),
        shared("incident::rolled_back_to_what_is_gone", rolled_back_to_what_is_gone),
        shared("incident::a_rollback_takes_nothing_away", a_rollback_takes_nothing_away),
        shared("incident::dry_run_is_denied_at_once", dry_run_is_denied_at_once),
    ];
    by_client.into_iter().chain(others).collect()
}

fn three_steps(scene: &Scene<'_>, client: &Client) {
    start(scene, if client.installs { client.release } else { apply });
    replacing_at_once_is_denied(scene, client);

    (client.release)(scene, &["v2", "v3"], "v2").ok();
    (client.release)(scene, &["v2", "v3"], "v3").ok();
    scene.rolled_out("deployment/extraction-api");
    assert!(!statuses(scene).contains(&429), "nobody waited so far: {:?}", statuses(scene));
    until_unused(scene);

    (client.release)(scene, &["v3"], "v3").ok();
    let statuses = statuses(scene);
    let waited = statuses.iter().rev().skip(1).take_while(|status| **status == 429).count();
    assert!(statuses.ends_with(&[429, 200]) && waited <= 10, "expected 429s, then 200: {statuses:?}");
    assert_eq!(models(scene).0, Value::from(extraction(&["v3"])));
}

fn replacing_at_once_is_denied(scene: &Scene<'_>, client: &Client) {
    let before = models(scene);
    let denied = (client.release)(scene, &["v3"], "v3").denied("MG101");
    let denied = denied.says("extraction@v2").says("3 pods of Deployment").says("/extraction-api").says("step 3");
    if client.goes_on {
        // The app is denied as well: it would ask for what is not listed.
        denied.says("[MG201]");
    }
    assert_eq!(statuses(scene).last(), Some(&403));
    assert_eq!(models(scene), before, "nothing of the ConfigMap changed");
    let app = scene.get("deployment", APP);
    assert_eq!(app["spec"]["template"]["metadata"]["annotations"]["modelguard.dev/uses"], uses("v2"));
}

/// PUT names the revision that it replaces, and what is written while it waits makes that one of the past.
fn replace_waits_and_passes_when_repeated(scene: &Scene<'_>) {
    start(scene, apply);
    let denied = replace(scene, &["v3"], "v3").denied("MG101");
    denied.says("3 pods");
    replace(scene, &["v2", "v3"], "v3").ok();
    scene.rolled_out("deployment/extraction-api");
    until_unused(scene);
    replace(scene, &["v3"], "v3").failed("(Conflict)");
    assert!(statuses(scene).ends_with(&[429, 409]), "{:?}", statuses(scene));
    replace(scene, &["v3"], "v3").ok();
    assert_eq!(models(scene).0, Value::from(extraction(&["v3"])));
}

fn delete(scene: &Scene<'_>) {
    start(scene, apply);
    let before = models(scene);
    scene.kubectl(["delete", "configmap", MODELS]).run().denied("MG106").says("3 pods");
    assert_eq!(statuses(scene).last(), Some(&403));
    assert_eq!(models(scene), before);

    scene.kubectl(["delete", "deployment", APP, "--cascade=foreground"]).run().ok();
    until_unused(scene);
    scene.kubectl(["delete", "configmap", MODELS]).run().ok();
    assert!(statuses(scene).ends_with(&[429, 200]), "{:?}", statuses(scene));
}

/// Same name, same version, another model.
fn replaced_in_place(scene: &Scene<'_>) {
    let at = |bucket: &str| {
        let text = extraction(&["v2"]).replace("s3://models", bucket);
        let patch = serde_json::json!({"data": {"models.yaml": text}}).to_string();
        scene.kubectl(["patch", "configmap", MODELS, "--type=merge", "-p", &patch]).run()
    };
    start(scene, apply);
    let before = models(scene);
    at("s3://other").denied("MG102").says("extraction@v2").says("3 pods of Deployment");
    assert_eq!(statuses(scene).last(), Some(&403));
    assert_eq!(models(scene), before);

    scene.kubectl(["delete", "deployment", APP, "--cascade=foreground"]).run().ok();
    until_unused(scene);
    at("s3://other").ok();
    assert!(statuses(scene).ends_with(&[429, 200]), "{:?}", statuses(scene));

    scene.apply(app("v2").to_string()).ok();
    at("s3://third").denied("MG102");
    // What was before is never a replacement: whoever needs it was given the other one by mistake.
    at("s3://models").ok();
    assert_eq!(models(scene).0, before.0);
}

/// The manual rollback of the incident: the app alone cannot go back, the model first, then the app can.
fn rolled_back_to_what_is_gone(scene: &Scene<'_>) {
    start(scene, apply);
    apply(scene, &["v2", "v3"], "v3").ok();
    scene.rolled_out("deployment/extraction-api");
    until_unused(scene);
    apply(scene, &["v3"], "v3").ok();

    let undo = scene.kubectl(["rollout", "undo", "deployment/extraction-api"]);
    undo.run().denied("MG201").says("extraction@v2").says("extraction@v3");
    scene.apply(extraction_models(&["v2", "v3"]).to_string()).ok();
    undo.run().ok();
    scene.rolled_out("deployment/extraction-api");
    until_used(scene, &["v3"]);
    scene.apply(extraction_models(&["v3"]).to_string()).denied("MG101").says("3 pods of Deployment");
}

/// Helm goes back to a catalog without what the app uses by now.
fn a_rollback_takes_nothing_away(scene: &Scene<'_>) {
    scene.armed();
    for helm in ["helm", "helm3"] {
        let release = format!("extraction-{helm}");
        let upgrade = |versions: &[&str], uses: &str| upgrade(scene, (helm, &release), versions, uses).ok();
        upgrade(&["v2"], "v2");
        upgrade(&["v2", "v3"], "v2");
        upgrade(&["v2", "v3"], "v3");
        scene.rolled_out("deployment/extraction-api");
        until_used(scene, &["v2"]);
        let before = models(scene);
        let rollback = scene.at.cluster.tool(helm).args(["rollback", &release, "1", "-n", &scene.namespace.name]);
        rollback.run().denied("MG101").says("extraction@v3 is still used by 3 pods of Deployment").says("step 3");
        assert_eq!(statuses(scene).last(), Some(&403), "{helm}");
        assert_eq!(models(scene), before, "{helm}");
        // Whether Helm had got to the app or not, what that needs is listed. Its objects are the next one's.
        scene.kubectl(["delete", "deployment", APP, "--cascade=foreground"]).run().ok();
        until("its models may go", || scene.kubectl(["delete", "configmap", MODELS]).succeed().map(drop));
    }
}

fn dry_run_is_denied_at_once(scene: &Scene<'_>) {
    start(scene, apply);
    let dry_run = |versions: &[&str]| {
        scene.kubectl(["apply", "--dry-run=server", "-f-"]).stdin(extraction_models(versions).to_string()).run()
    };
    dry_run(&["v3"]).denied("MG101");
    dry_run(&["v2", "v3"]).ok();

    scene.kubectl(["delete", "deployment", APP, "--cascade=foreground"]).run().ok();
    until_unused(scene);
    let before = models(scene);
    // Nothing may be written for it, so waiting would not help: no 429, which a client would repeat.
    dry_run(&["v3"]).denied("MG103");
    assert_eq!(statuses(scene).last(), Some(&403));
    assert_eq!(models(scene), before);
}

// === what is there ===

/// One version, an app of three pods that uses it, and a control plane in which entries can go.
fn start(scene: &Scene<'_>, install: Release) {
    install(scene, &["v2"], "v2").ok();
    scene.rolled_out("deployment/extraction-api");
    scene.armed();
    until_used(scene, &["v3"]);
}

/// Waits until modelguard knows of the three pods that need more than these versions: kubectl may know it earlier.
fn until_used(scene: &Scene<'_>, versions: &[&str]) {
    until("its pods are known", || match rehearse(scene, versions) {
        output if output.stderr.contains("3 pods of Deployment") => Ok(()),
        output => Err(output),
    });
}

/// Waits until modelguard knows that nobody needs v2: pods that terminate do, and `rollout status` waits for none.
fn until_unused(scene: &Scene<'_>) {
    until("nobody needs v2", || rehearse(scene, &["v3"]).denies("MG103"));
}

/// What it would come to if these versions were all. Nobody waits, and nothing is written.
fn rehearse(scene: &Scene<'_>, versions: &[&str]) -> Output {
    let patch = serde_json::json!({"data": {"models.yaml": extraction(versions)}}).to_string();
    scene.kubectl(["patch", "configmap", MODELS, "--type=merge", "--dry-run=server", "-p", &patch]).run()
}

/// Content and revision of the model ConfigMap.
fn models(scene: &Scene<'_>) -> (Value, Value) {
    let mut stored = scene.get("configmap", MODELS);
    (stored["data"]["models.yaml"].take(), stored["metadata"]["resourceVersion"].take())
}

/// What the API server answered to writes of the model ConfigMap.
fn statuses(scene: &Scene<'_>) -> Vec<u64> {
    let answers = scene.answers("configmaps", MODELS, "admin").into_iter();
    answers.filter(|(verb, _)| verb != "get").map(|(_, status)| status).collect()
}

fn uses(version: &str) -> String {
    format!("{MODELS}:extraction@{version}")
}

fn app(version: &str) -> Value {
    deployment(APP, 3, &uses(version))
}

// === clients ===

fn apply(scene: &Scene<'_>, versions: &[&str], uses: &str) -> Output {
    scene.apply(manifest(&[extraction_models(versions), app(uses)]))
}

fn apply_server_side(scene: &Scene<'_>, versions: &[&str], uses: &str) -> Output {
    let both = manifest(&[extraction_models(versions), app(uses)]);
    scene.kubectl(["apply", "--server-side", "-f-"]).stdin(both).run()
}

fn patch_merge(scene: &Scene<'_>, versions: &[&str], uses: &str) -> Output {
    let patch = serde_json::json!({"data": {"models.yaml": extraction(versions)}});
    then_app(scene, &scene.kubectl(["patch", "configmap", MODELS, "--type=merge", "-p", &patch.to_string()]), uses)
}

fn patch_json(scene: &Scene<'_>, versions: &[&str], uses: &str) -> Output {
    let patch = serde_json::json!([{"op": "replace", "path": "/data/models.yaml", "value": extraction(versions)}]);
    then_app(scene, &scene.kubectl(["patch", "configmap", MODELS, "--type=json", "-p", &patch.to_string()]), uses)
}

fn replace(scene: &Scene<'_>, versions: &[&str], uses: &str) -> Output {
    then_app(scene, &scene.kubectl(["replace", "-f-"]).stdin(extraction_models(versions).to_string()), uses)
}

/// Somebody who replaces the text of `models.yaml` in an editor.
fn edit(scene: &Scene<'_>, versions: &[&str], uses: &str) -> Output {
    let dir = Dir::new().expect("a folder");
    let text: String = extraction(versions).lines().map(|line| format!("    {line}\n")).collect();
    let block = dir.write("block", &format!("data:\n  models.yaml: |\n{text}")).expect("a file");
    let script = format!(
        "#!/bin/sh\nawk -v block={} '/^data:/ {{ while ((getline line <block) > 0) print line; skip = 1; next }} \
         /^[^ ]/ {{ skip = 0 }} !skip' \"$1\" >\"$1.new\" && mv \"$1.new\" \"$1\"\n",
        block.display()
    );
    let editor = dir.write("editor", &script).expect("a file");
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).expect("an executable");
    then_app(scene, &scene.kubectl(["edit", "configmap", MODELS]).env("KUBE_EDITOR", editor), uses)
}

/// The app follows when the models went through.
fn then_app(scene: &Scene<'_>, models: &Tool, uses: &str) -> Output {
    let output = models.run();
    if output.status.success() { scene.apply(app(uses).to_string()) } else { output }
}

fn helm_4(scene: &Scene<'_>, versions: &[&str], uses: &str) -> Output {
    upgrade(scene, ("helm", "extraction"), versions, uses)
}

fn helm_3(scene: &Scene<'_>, versions: &[&str], uses: &str) -> Output {
    upgrade(scene, ("helm3", "extraction"), versions, uses)
}

/// One chart with the models and the app.
fn upgrade(scene: &Scene<'_>, (helm, release): (&str, &str), versions: &[&str], uses: &str) -> Output {
    let chart = Dir::new().expect("a folder");
    chart.write("Chart.yaml", "{apiVersion: v2, name: extraction, version: 0.1.0}").expect("a file");
    fs::create_dir(chart.join("templates")).expect("a folder");
    let both = manifest(&[extraction_models(versions), app(uses)]);
    chart.write("templates/all.yaml", &both).expect("a file");
    let chart = chart.path().display().to_string();
    let args = ["upgrade", "--install", release, &chart, "-n", &scene.namespace.name];
    scene.at.cluster.tool(helm).args(args).run()
}
