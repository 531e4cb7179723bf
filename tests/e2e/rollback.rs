//! Revisions are kept beside their ConfigMap, and come back byte for byte in the write that asks for them.

use crate::scene::{Scene, Test, shared};
use crate::support::builders::{deployment, extraction, extraction_models, keys};
use crate::support::client::{client, code};
use crate::support::kubectl::Output;
use crate::support::wait::until;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const MODELS: &str = "extraction-models";

pub(crate) fn tests() -> Vec<Test> {
    vec![
        shared("rollback::each_content_is_kept_beside_its_config_map", each_content_is_kept_beside_its_config_map),
        shared("rollback::kubectl_annotate_goes_back", kubectl_annotate_goes_back),
        shared("rollback::what_is_in_use_stays_until_it_is_not", what_is_in_use_stays_until_it_is_not),
        shared("rollback::what_is_not_kept_is_named", what_is_not_kept_is_named),
        shared("rollback::a_mebibyte_of_noise_comes_back", a_mebibyte_of_noise_comes_back),
        shared("rollback::where_nothing_can_be_kept_a_change_is_denied", where_nothing_can_be_kept_a_change_is_denied),
        shared("rollback::what_is_immutable_stays", what_is_immutable_stays),
        shared("rollback::every_revision_comes_back_to_equal_bytes", every_revision_comes_back_to_equal_bytes),
    ]
}

fn each_content_is_kept_beside_its_config_map(scene: &Scene<'_>) {
    let mut models = keys("models", &["v1"]);
    models["metadata"]["labels"]["app.kubernetes.io/instance"] = "release".into();
    scene.create_object(models.to_string()).ok();
    for number in 2..=13 {
        let patch = json!({"data": {format!("v{number}"): "weights"}}).to_string();
        scene.kubectl(["patch", "configmap", "models", "--type=merge", "-p", &patch]).run().ok();
    }
    // Ten besides the current one, and nothing of the first two.
    let kept = kept(scene, "models", &(3..=13).collect::<Vec<_>>());
    let metadata = &kept[0]["metadata"];
    assert_eq!(metadata["labels"], json!({"modelguard.dev/history-of": "models"}), "no label is copied");
    assert_eq!(metadata["ownerReferences"], Value::Null);
    assert_eq!((&kept[0]["data"]["configMap"], &kept[0]["data"]["catalog"]), (&json!("models"), &json!("keys")));
    assert_eq!(kept[0]["data"]["payload"]["data"], keys("models", &["v1", "v2", "v3"])["data"]);

    // Its history outlives it, and a namesake begins anew.
    scene.armed();
    scene.kubectl(["delete", "configmap", "models"]).run().ok();
    until("its revisions are marked", || {
        let all = revisions(scene, "models");
        let mark = |it: &Value| it["metadata"]["annotations"]["modelguard.dev/orphaned-since"].is_string();
        if all.len() == 11 && all.iter().all(mark) { Ok(()) } else { Err(json!(all).to_string()) }
    });
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    assert_eq!(annotation(scene, "models", "revision"), "1");
    to(scene, "models", "5")
        .denied("MG108")
        .says("revision 5 is not kept; no other is kept, and the current one is 1.");
}

fn kubectl_annotate_goes_back(scene: &Scene<'_>) {
    let apply = |models: &Value| {
        scene.kubectl(["apply", "--server-side", "--field-manager=pipeline", "-f-"]).stdin(models.to_string()).run()
    };
    let exact = json!({"models.yaml": "# ours \r\n- {name: m, version: v1}\n", "notes": "", "NOTES.md": "\t\u{2028} "});
    let mut models = extraction_models(&[]);
    models["data"] = exact.clone();
    models["binaryData"] = json!({"weights.bin": "AP/+gA=="});
    apply(&models).ok();
    models["data"] = json!({"models.yaml": "- {name: m, version: v1}\n"});
    models["binaryData"] = Value::Null;
    apply(&models).ok();
    let before = scene.get("configmap", MODELS);
    let rehearsed = scene
        .kubectl([
            "annotate",
            "configmap",
            MODELS,
            "modelguard.dev/rollback-to=prior",
            "--dry-run=server",
            "-o",
            "json",
        ])
        .run()
        .json();
    assert_eq!((&rehearsed["data"], scene.get("configmap", MODELS)), (&exact, before));

    to(scene, MODELS, "prior").ok().says("Warning: extraction-models goes back to revision 1, written 2");
    let stored = scene.kubectl(["get", "configmap", MODELS, "-o", "json", "--show-managed-fields"]).run().json();
    assert_eq!((&stored["data"], &stored["binaryData"]), (&exact, &json!({"weights.bin": "AP/+gA=="})));
    let annotations = &stored["metadata"]["annotations"];
    assert_eq!(annotations["modelguard.dev/rollback-to"], Value::Null);
    assert_eq!(annotations["modelguard.dev/revision"], "3");
    let owners = stored["metadata"]["managedFields"].as_array().into_iter().flatten();
    let owners: Vec<_> =
        owners.filter(|it| !it["fieldsV1"]["f:data"].is_null()).map(|it| it["manager"].clone()).collect();
    assert_eq!(owners, ["pipeline"], "nobody's ownership changed: {stored:#}");
    apply(&models).ok();
    let stored = scene.get("configmap", MODELS);
    assert_eq!(stored["data"]["models.yaml"], models["data"]["models.yaml"], "the owner goes on");
    assert_eq!(stored["data"]["notes"], "", "a key that came back belongs to nobody, and stays");
    to(scene, MODELS, "3").ok();
    assert_eq!(scene.get("configmap", MODELS)["data"], exact, "a rollback is a revision");
}

fn what_is_in_use_stays_until_it_is_not(scene: &Scene<'_>) {
    scene.create_object(extraction_models(&["v2"]).to_string()).ok();
    scene.apply(extraction_models(&["v2", "v3"]).to_string()).ok();
    scene.create_object(deployment("extraction-api", 1, "extraction-models:extraction@v3").to_string()).ok();
    scene.rolled_out("deployment/extraction-api");
    scene.armed();
    to(scene, MODELS, "prior").ok().says("entry extraction@v3 may still be needed");
    let stored = scene.get("configmap", MODELS);
    assert_eq!(stored["data"]["models.yaml"], extraction(&["v2", "v3"]));
    assert_eq!(annotation(scene, MODELS, "retained"), r#"["extraction@v3"]"#);
    let back = json!([{"op": "replace", "path": "/spec/template/metadata/annotations/modelguard.dev~1uses", "value": "extraction-models:extraction@v2"}]);
    scene.kubectl(["patch", "deployment", "extraction-api", "--type=json", "-p", &back.to_string()]).run().ok();
    scene.rolled_out("deployment/extraction-api");
    until("v3 goes", || {
        let stored = scene.get("configmap", MODELS);
        if stored["data"]["models.yaml"] == extraction(&["v2"]) { Ok(()) } else { Err(stored.to_string()) }
    });
    assert_eq!(annotation(scene, MODELS, "revision"), "3", "that completed the rollback");
}

fn what_is_not_kept_is_named(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    to(scene, "models", "prior").denied("MG108").says("there is no revision before the current one");
    for entries in [&["v1", "v2"][..], &["v1", "v2", "v3"]] {
        scene.apply(keys("models", entries).to_string()).ok();
    }
    let kept = kept(scene, "models", &[1, 2, 3]);
    let before = scene.get("configmap", "models");
    to(scene, "models", "3").denied("MG108").says("revision 3 is the current one.");
    to(scene, "models", "latest").denied("MG108").says("expected `prior` or the number of a revision");
    to(scene, "models", "7").denied("MG108").says("revision 7 is not kept; kept are 1, 2, and the current one is 3.");
    let name = kept[0]["metadata"]["name"].as_str().expect("a name");
    scene
        .kubectl(["patch", "controllerrevision", name, "--type=merge", r#"-p={"data":{"v":2}}"#])
        .run()
        .failed("field is immutable");
    let forged = r#"modelguard.dev/revisions=[{"uid":"x","revision":1}]"#;
    scene
        .kubectl(["annotate", "controllerrevision", name, "--overwrite", forged])
        .run()
        .failed("the revisions of model ConfigMaps are written by modelguard alone");
    scene.kubectl(["delete", "controllerrevision", name]).run().ok();
    to(scene, "models", "1").denied("MG108").says("revision 1 is not kept; kept is 2, and");
    assert_eq!(scene.get("configmap", "models"), before, "nothing is done by half");
    assert!(scene.answers("configmaps", "models", "admin").contains(&("patch".to_owned(), 422)));
}

fn a_mebibyte_of_noise_comes_back(scene: &Scene<'_>) {
    let noise = base64(&mut fastrand::Rng::with_seed(7), 700_000);
    let mut models = keys("models", &["v1"]);
    models["binaryData"] = json!({"noise": noise});
    scene.create_object(models.to_string()).ok();
    let patch = |patch: &str| scene.kubectl(["patch", "configmap", "models", "--type=merge", "-p", patch]).run();
    patch(r#"{"data":{"v2":"weights"}}"#).ok();
    let prior: Value = serde_json::from_str(&annotation(scene, "models", "prior-revision")).expect("JSON");
    assert_eq!((&prior["encoding"], &prior["payload"]), (&json!("ref"), &Value::Null));
    patch(r#"{"binaryData":{"noise":null}}"#).ok();
    to(scene, "models", "1").ok();
    let stored = scene.get("configmap", "models");
    assert!(stored["binaryData"]["noise"] == noise.as_str(), "700 kB of noise");
    // v2 was added since, and nobody has proven yet that it may go.
    assert_eq!(stored["data"], keys("models", &["v1", "v2"])["data"]);
}

fn where_nothing_can_be_kept_a_change_is_denied(scene: &Scene<'_>) {
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "nothing"},
        "spec": {"hard": {"count/controllerrevisions.apps": "0"}},
    });
    scene.create_object(quota.to_string()).ok();
    until("the quota counts", || {
        let quota = scene.get("resourcequota", "nothing");
        if quota["status"]["used"].is_object() { Ok(()) } else { Err(quota.to_string()) }
    });
    let noise = base64(&mut fastrand::Rng::with_seed(8), 100_000);
    let mut large = keys("large", &["v1"]);
    large["binaryData"] = json!({"noise": noise});
    scene.create_object(large.to_string()).ok();
    scene.create_object(keys("small", &["v1"]).to_string()).ok();
    let add = |name: &str| {
        scene.kubectl(["patch", "configmap", name, "--type=merge", r#"-p={"data":{"v2":"weights"}}"#]).run()
    };
    add("large").denied("MG107").says("the revision before this change could not be kept").says("exceeded quota");
    assert_eq!(scene.get("configmap", "large")["data"], keys("large", &["v1"])["data"]);
    // Of a small one the annotation is enough.
    add("small").ok();
    to(scene, "small", "prior").ok();
    // Nor may it go without a trace.
    scene.armed();
    scene.kubectl(["delete", "configmap", "small"]).run().denied("MG107");
}

fn what_is_immutable_stays(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    scene.kubectl(["patch", "configmap", "models", "--type=merge", r#"-p={"immutable":true}"#]).run().ok();
    to(scene, "models", "prior").failed("field is immutable when `immutable` is set");
    scene.kubectl(["annotate", "configmap", "models", "note=x"]).run().ok();
    assert_eq!(annotation(scene, "models", "note"), Value::Null.to_string());
}

/// Sequences of changes and rollbacks, each of a model ConfigMap of its own.
fn every_revision_comes_back_to_equal_bytes(scene: &Scene<'_>) {
    const SEQUENCES: u64 = 200;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let rollbacks = runtime.block_on(async {
        let client = client(&scene.at.cluster).await.expect("a client");
        let config_maps: Api<ConfigMap> = Api::namespaced(client, &scene.namespace.name);
        let mut rollbacks = 0;
        for seed in 0..SEQUENCES {
            rollbacks += sequence(&config_maps, seed).await;
        }
        rollbacks
    });
    println!("{SEQUENCES} sequences with {rollbacks} rollbacks on a real API server");
    assert!(rollbacks > SEQUENCES, "{rollbacks}");
}

/// Changes texts that are no entries, so that nobody must wait for a proof; gives the number of rollbacks.
async fn sequence(config_maps: &Api<ConfigMap>, seed: u64) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let name = format!("models-{seed}");
    let mut stored = BTreeMap::new();
    let mut object: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"modelguard.dev/catalog": "yaml"}},
        "data": any_data(&mut random),
    }))
    .expect("a ConfigMap");
    object = config_maps.create(&PostParams::default(), &object).await.expect("created");
    let mut rollbacks = 0;
    for _ in 0..6 {
        let current = number(&object);
        stored.entry(current).or_insert_with(|| content(&object));
        let target = random.u64(1..=current);
        if random.bool() && target != current {
            let back = json!({"metadata": {"annotations": {"modelguard.dev/rollback-to": target.to_string()}}});
            object = match config_maps.patch(&name, &PatchParams::default(), &Patch::Merge(back)).await {
                Ok(object) => object,
                Err(error) => panic!("seed {seed}, back to {target}: {} {error}", code(&error)),
            };
            assert_eq!(content(&object), stored[&target], "seed {seed}: revision {target}");
            rollbacks += 1;
        } else {
            object.data = serde_json::from_value(any_data(&mut random)).expect("data");
            object.metadata.managed_fields = None;
            object = config_maps.replace(&name, &PostParams::default(), &object).await.expect("replaced");
        }
    }
    rollbacks
}

// === helpers ===

/// One entry, and texts around it as people may write them, some of them large.
fn any_data(random: &mut fastrand::Rng) -> Value {
    let texts = ["", " ", "\r\n", "a\tb ", "é\u{1}\u{2028}", "\"\\/"];
    let mut data: BTreeMap<String, String> = (0..random.usize(..6))
        .map(|key| (format!("note-{key}"), texts[random.usize(..6)].repeat([1, 3, 2_000][random.usize(..3)])))
        .collect();
    data.insert("models.yaml".to_owned(), format!("# {}\n- {{name: m, version: v1}}\n", random.u32(..)));
    json!(data)
}

/// So many random bytes, as the API server writes them.
fn base64(random: &mut fastrand::Rng, len: usize) -> String {
    use base64::Engine as _;
    let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn content(object: &ConfigMap) -> Value {
    json!({"data": object.data, "binaryData": object.binary_data, "immutable": object.immutable})
}

fn number(object: &ConfigMap) -> u64 {
    let annotation = object.metadata.annotations.as_ref().and_then(|all| all.get("modelguard.dev/revision"));
    annotation.and_then(|text| text.parse().ok()).expect("a revision")
}

fn to(scene: &Scene<'_>, name: &str, revision: &str) -> Output {
    scene.kubectl(["annotate", "configmap", name, &format!("modelguard.dev/rollback-to={revision}")]).run()
}

fn annotation(scene: &Scene<'_>, name: &str, key: &str) -> String {
    let value = scene.get("configmap", name)["metadata"]["annotations"][format!("modelguard.dev/{key}")].take();
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Waits until these revisions are kept, and no other; gives the ControllerRevisions in this order.
#[track_caller]
fn kept(scene: &Scene<'_>, name: &str, expected: &[u64]) -> Vec<Value> {
    until("its revisions are kept", || {
        let mut all = revisions(scene, name);
        all.sort_by_key(|it| it["revision"].as_u64());
        let numbers: Vec<_> = all.iter().filter_map(|it| it["revision"].as_u64()).collect();
        if numbers == expected { Ok(all) } else { Err(format!("{numbers:?}")) }
    })
}

fn revisions(scene: &Scene<'_>, name: &str) -> Vec<Value> {
    let of = format!("modelguard.dev/history-of={name}");
    let list = scene.kubectl(["get", "controllerrevisions", "-l", &of, "-o", "json"]).run().json();
    list["items"].as_array().cloned().unwrap_or_default()
}
