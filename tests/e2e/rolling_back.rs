//! `modelguard rollback`: as people type it, with an app, and gone on with after an interruption.

use crate::moments;
use crate::scene::{Scene, Test, shared};
use crate::support::builders::{deployment, extraction, extraction_models, keys};
use crate::support::kubectl::Output;
use crate::support::process::{Launch, Process};
use crate::support::wait::until;
use serde_json::{Value, json};

const MODELS: &str = "extraction-models";
const APP: &str = "extraction-api";

pub(crate) fn tests() -> Vec<Test> {
    vec![
        shared("rolling_back::one_command_restores_a_revision", one_command_restores_a_revision),
        shared("rolling_back::what_was_deleted_comes_back", what_was_deleted_comes_back),
        shared("rolling_back::app_and_model_go_back_together", app_and_model_go_back_together),
        shared("rolling_back::what_was_interrupted_goes_on", what_was_interrupted_goes_on),
        shared("rolling_back::what_cannot_be_done_is_not_begun", what_cannot_be_done_is_not_begun),
    ]
}

fn one_command_restores_a_revision(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    scene.apply(keys("models", &["v1", "v2"]).to_string()).ok();
    let before = scene.get("configmap", "models");
    let said = rollback(scene, &["models", "--dry-run"]).ok().stdout;
    let namespace = &scene.namespace.name;
    assert!(
        said.starts_with(&format!("{namespace}/models goes back from revision 2 to revision 1, written 2")),
        "{said}"
    );
    assert!(said.ends_with("\n  - v2\nmodels would store revision 1 again, as its revision 3; v2 stays beside it until nobody needs it\n"), "{said}");
    assert_eq!(scene.get("configmap", "models"), before);

    let said = rollback(scene, &["models"]).ok().stdout;
    assert!(
        said.ends_with("models stores revision 1 again, as its revision 3; v2 stays beside it until nobody needs it\n"),
        "{said}"
    );
    assert_eq!(annotation(scene, "models", "revision"), "3");
    let output = rollback(scene, &["models", "--to", "9"]);
    assert_eq!(output.status.code(), Some(2), "{output}");
    output.says(&format!(
        "modelguard: revision 9 of {namespace}/models is not kept; kept are 1, 2, and the current one is 3\n"
    ));
    let output = rollback(scene, &["models", "--to", "3"]);
    output.failed(&format!("{namespace}/models is at revision 3 already; kept are 1, 2, and the current one is 3\n"));
    rollback(scene, &["nothing"])
        .failed(&format!("there is no model ConfigMap {namespace}/nothing, and nothing is kept of one"));
    rollback(scene, &["kube-root-ca.crt"]).failed("is no model ConfigMap: it lacks the label modelguard.dev/catalog");
}

fn what_was_deleted_comes_back(scene: &Scene<'_>) {
    scene.create_object(extraction_models(&["v2"]).to_string()).ok();
    scene.apply(extraction_models(&["v2", "v3"]).to_string()).ok();
    let data = scene.get("configmap", MODELS)["data"].clone();
    scene.armed();
    scene.kubectl(["delete", "configmap", MODELS]).run().ok();
    let said = rollback(scene, &[MODELS]).ok().stdout;
    assert!(said.contains(" is gone, and comes back as revision 2 was, written 2"), "{said}");
    assert!(said.contains(" is made anew, with the label modelguard.dev/catalog and no other"), "{said}");
    let stored = scene.get("configmap", MODELS);
    assert_eq!((&stored["data"], &stored["metadata"]["labels"]), (&data, &json!({"modelguard.dev/catalog": "yaml"})));
}

/// The incident's second half: the release removed the old version, in three steps.
fn app_and_model_go_back_together(scene: &Scene<'_>) {
    let since = moments::now(scene);
    release(scene);
    let said = rollback(scene, &[MODELS, "--with", "deployment/extraction-api", "--to", "1", "--dry-run"]).ok().stdout;
    assert!(said.ends_with("steps 2 and 3 follow; nothing was done\n"), "{said}");
    assert_eq!(scene.get("configmap", MODELS)["data"]["models.yaml"], extraction(&["v3"]));

    let said = rollback(scene, &[MODELS, "--with", "deployment/extraction-api", "--to", "1"]).ok().stdout;
    for step in [
        " goes back from revision 3 to revision 1, written 2",
        "\n  + extraction@v2\n  - extraction@v3\n",
        "\ndeployment/extraction-api goes back to its revision 1 (extraction-api-",
        "\nstep 1, restore: extraction-models stores revision 1 again, as its revision 4; extraction@v3 stays beside it",
        "\nstep 2, roll back: deployment/extraction-api is back\n",
        "\nstep 3, remove: nothing is left of what came since\n",
        &format!("\ndone: {}/extraction-models and deployment/extraction-api are back\n", scene.namespace.name),
    ] {
        assert!(said.contains(step), "{step:?} in {said}");
    }
    assert_eq!(scene.get("configmap", MODELS)["data"]["models.yaml"], extraction(&["v2"]), "exactly");
    assert_eq!(annotation(scene, MODELS, "rolling-back"), "null");
    assert_eq!(moments::uses(&scene.get("deployment", APP)), ["extraction-models:extraction@v2"]);
    moments::nothing_dangled(scene, &since, &moments::APPS);
}

fn what_was_interrupted_goes_on(scene: &Scene<'_>) {
    release(scene);
    // Nothing of the former template becomes available, so that step 2 does not end by itself.
    let slow = |seconds: u32| {
        let patch = json!({"spec": {"minReadySeconds": seconds}}).to_string();
        scene.kubectl(["patch", "deployment", APP, "--type=merge", "-p", &patch]).run().ok();
    };
    slow(500);
    let process = Process::start(Launch {
        name: "modelguard-rollback".to_owned(),
        program: env!("CARGO_BIN_EXE_modelguard").into(),
        args: arguments(scene, &[MODELS, "--with", "deployment/extraction-api"]),
        env: vec![("KUBECONFIG".to_owned(), scene.at.cluster.kubeconfig().into_os_string())],
        log: scene.at.cluster.dir().join(format!("{}.log", scene.namespace.name)),
    });
    let process = process.expect("it starts");
    until("it is in the middle of step 2", || {
        let log = std::fs::read_to_string(process.log()).unwrap_or_default();
        if log.contains("step 2, roll back: ") { Ok(()) } else { Err(log) }
    });
    process.kill();
    let plan = annotation(scene, MODELS, "rolling-back");
    assert!(plan.starts_with(r#"{"with":"deployment/extraction-api","replicaSet":"extraction-api-"#), "{plan}");
    rollback(scene, &[MODELS, "--with", "deployment/other"]).failed("there is no deployment/other");
    rollback(scene, &[MODELS, "--with", "deployment/extraction-api", "--to", "1"])
        .failed("a rollback to revision 2 with deployment/extraction-api is under way: go on with that, or remove the annotation");

    let stopped = rollback(scene, &[MODELS, "--with", "deployment/extraction-api", "--timeout", "1s"]);
    assert_eq!(stopped.status.code(), Some(1), "{stopped}");
    assert!(stopped.stdout.contains("is not there yet, and time is up; ask again to go on"), "{stopped}");
    slow(0);
    let said = rollback(scene, &[MODELS, "--with", "deployment/extraction-api"]).ok().stdout;
    assert!(said.starts_with("going on with the rollback of "), "{said}");
    assert!(said.contains("was restored already\n") && said.contains("\ndone: "), "{said}");
    assert_eq!(scene.get("configmap", MODELS)["data"]["models.yaml"], extraction(&["v2", "v3"]), "as revision 2 was");
    assert_eq!(annotation(scene, MODELS, "revision"), "4", "it was restored once");
}

fn what_cannot_be_done_is_not_begun(scene: &Scene<'_>) {
    release(scene);
    let before = scene.get("configmap", MODELS);
    let with = |app: &str, to: &[&str]| rollback(scene, &[&[MODELS, "--with", app][..], to].concat());
    with("deployment/extraction-api", &["--to", "7"])
        .failed("revision 7 of ")
        .says("is not kept; kept are 1, 2, and the current one is 3\n");
    with("statefulset/x", &[]).failed("expected deployment/NAME or rollout/NAME");
    scene.create_object(deployment("fresh", 0, "").to_string()).ok();
    scene.rolled_out("deployment/fresh");
    with("deployment/fresh", &[]).failed("deployment/fresh has had one template only: there is nothing to go back to");
    // What the app needs is in none of the revisions that are left.
    for number in [1, 2] {
        let name = until("it is kept", || {
            let of = ["get", "controllerrevisions", "-l", "modelguard.dev/history-of=extraction-models", "-o", "json"];
            let list = scene.kubectl(of).run().json();
            let all = list["items"].as_array().cloned().unwrap_or_default();
            let found = all.iter().find(|it| it["revision"] == number);
            found.and_then(|it| it["metadata"]["name"].as_str().map(str::to_owned)).ok_or_else(|| list.to_string())
        });
        scene.kubectl(["delete", "controllerrevision", &name]).run().ok();
    }
    scene.apply(extraction_models(&["v3", "v4"]).to_string()).ok();
    with("deployment/extraction-api", &[]).failed("no kept revision of ").says("needs to go back: extraction@v2");
    with("deployment/extraction-api", &["--to", "3"]).failed("does not list extraction@v2, which the app needs");
    let after = scene.get("configmap", MODELS);
    assert_eq!(after["metadata"]["annotations"]["modelguard.dev/rolling-back"], Value::Null);
    assert_ne!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
}

// === helpers ===

/// v2, then v3 in three steps.
fn release(scene: &Scene<'_>) {
    scene.create_object(extraction_models(&["v2"]).to_string()).ok();
    scene.create_object(deployment(APP, 2, "extraction-models:extraction@v2").to_string()).ok();
    scene.rolled_out("deployment/extraction-api");
    scene.armed();
    scene.apply(extraction_models(&["v2", "v3"]).to_string()).ok();
    let uses = json!([{"op": "replace", "path": "/spec/template/metadata/annotations/modelguard.dev~1uses", "value": "extraction-models:extraction@v3"}]);
    scene.kubectl(["patch", "deployment", APP, "--type=json", "-p", &uses.to_string()]).run().ok();
    scene.rolled_out("deployment/extraction-api");
    until("the old version goes", || scene.apply(extraction_models(&["v3"]).to_string()).passed().map(drop));
}

fn arguments(scene: &Scene<'_>, args: &[&str]) -> Vec<String> {
    ["rollback", "-n", &scene.namespace.name].iter().chain(args).map(|arg| (*arg).to_owned()).collect()
}

/// The command, as the administrator.
fn rollback(scene: &Scene<'_>, args: &[&str]) -> Output {
    scene.modelguard(arguments(scene, args)).run()
}

fn annotation(scene: &Scene<'_>, name: &str, key: &str) -> String {
    let value = scene.get("configmap", name)["metadata"]["annotations"][format!("modelguard.dev/{key}")].take();
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
