//! What a client writes into modelguard's own annotations has no effect, and a proof is good for one removal only.

use crate::scene::{Scene, Setup, Test, own, shared};
use crate::support::builders::{deployment, keys, manifest};
use crate::support::kubectl::Output;
use crate::support::namespace::Namespace;
use crate::support::wait::until;
use anyhow::Result;
use axum::http::Request;
use axum::http::header::CONTENT_TYPE;
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use serde_json::{Value, json};
use std::thread;

const USAGE: &str = "modelguard.dev/usage";

pub(crate) fn tests() -> Vec<Test> {
    let mut slow = Setup::default();
    // Long enough to do something meanwhile.
    slow.options.settle = "5s".to_owned();
    vec![
        shared("forgery::usage_at_creation_is_dropped", usage_at_creation_is_dropped),
        shared("forgery::usage_in_an_update_is_dropped", usage_in_an_update_is_dropped),
        shared("forgery::revisions_are_ours", revisions_are_ours),
        shared("forgery::reviews_of_strangers_keep_nothing", reviews_of_strangers_keep_nothing),
        shared("forgery::an_entry_that_comes_back_is_in_use", an_entry_that_comes_back_is_in_use),
        shared("forgery::opting_out_and_in_again_proves_nothing", opting_out_and_in_again_proves_nothing),
        own("forgery::a_namespace_that_opts_in_during_a_removal", slow, a_namespace_that_opts_in_during_a_removal),
    ]
}

fn usage_at_creation_is_dropped(scene: &Scene<'_>) {
    for (name, usage) in forged(scene) {
        let name = format!("created-{name}");
        let forged = with_annotation(keys(&name, &["v1", "v2"]), USAGE, &usage);
        scene.create_object(forged.to_string()).ok();
        is_in_use(scene, &name);
    }
}

fn usage_in_an_update_is_dropped(scene: &Scene<'_>) {
    let forged = forged(scene);
    type Write = fn(&Scene<'_>, &Value, &str) -> Output;
    let writes: [(&str, Write); 4] = [
        ("apply", |scene, object, _| scene.apply(object.to_string())),
        ("ssa", |scene, object, _| {
            scene.kubectl(["apply", "--server-side", "--force-conflicts", "-f-"]).stdin(object.to_string()).run()
        }),
        ("replace", |scene, object, _| scene.kubectl(["replace", "-f-"]).stdin(object.to_string()).run()),
        ("annotate", |scene, object, usage| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            scene.kubectl(["annotate", "configmap", name, "--overwrite", &format!("{USAGE}={usage}")]).run()
        }),
    ];
    for (how, write) in writes {
        for (epoch, usage) in &forged {
            let name = format!("{how}-{epoch}");
            scene.apply(keys(&name, &["v1", "v2"]).to_string()).ok();
            write(scene, &with_annotation(keys(&name, &["v1", "v2"]), USAGE, usage), usage).ok();
            is_in_use(scene, &name);
        }
    }
    // The proof and the removal in one write.
    for (epoch, usage) in &forged {
        let name = format!("at-once-{epoch}");
        scene.apply(keys(&name, &["v1", "v2"]).to_string()).ok();
        hold(scene, &name);
        let patch = json!({"metadata": {"annotations": {USAGE: usage}}, "data": {"v1": null}});
        scene.kubectl(["patch", "configmap", &name, "--type=merge", "-p", &patch.to_string()]).run().denied("MG101");
    }
}

fn revisions_are_ours(scene: &Scene<'_>) {
    let forged = |object: Value| {
        let object = with_annotation(object, "modelguard.dev/revision", "99");
        let object = with_annotation(object, "modelguard.dev/retained", "v7");
        with_annotation(object, "modelguard.dev/prior-revision", r#"{"v":1,"revision":98,"encoding":"json"}"#)
    };
    scene.apply(forged(keys("models", &["v1"])).to_string()).ok();
    let created = annotations(scene, "models");
    assert_eq!(created["modelguard.dev/revision"], "1", "{created:#}");
    assert!(created.get("modelguard.dev/prior-revision").is_none(), "{created:#}");
    assert!(created.get("modelguard.dev/retained").is_none(), "{created:#}");

    scene.apply(forged(keys("models", &["v1", "v2"])).to_string()).ok();
    let updated = annotations(scene, "models");
    assert_eq!(updated["modelguard.dev/revision"], "2", "{updated:#}");
    assert!(!updated["modelguard.dev/prior-revision"].as_str().unwrap_or_default().contains("98"), "{updated:#}");
    assert!(updated.get("modelguard.dev/retained").is_none(), "{updated:#}");

    let wipe = ["annotate", "configmap", "models", "modelguard.dev/revision-", "modelguard.dev/prior-revision-"];
    scene.kubectl(wipe).run().ok();
    assert_eq!(annotations(scene, "models"), updated);
}

/// Whoever reaches its port can send it a review of what was never stored: no rollback brings that about.
fn reviews_of_strangers_keep_nothing(scene: &Scene<'_>) {
    let namespace = &scene.namespace.name;
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    let kept = || {
        let of = ["get", "controllerrevisions", "-l", "modelguard.dev/history-of=models", "-o", "json"];
        scene.kubectl(of).run().json()["items"].clone()
    };
    until("its first revision is kept", || {
        if kept().as_array().is_some_and(|it| it.len() == 1) { Ok(()) } else { Err(kept()) }
    });
    let before = kept();

    let stored = scene.get("configmap", "models");
    let forged = |data: Value| {
        let mut object = stored.clone();
        object["data"] = data;
        object
    };
    let review = |operation: &str, old: Value, new: Value| {
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "705ab4f5", "operation": operation, "name": "models", "namespace": namespace,
                "kind": {"group": "", "version": "v1", "kind": "ConfigMap"},
                "resource": {"group": "", "version": "v1", "resource": "configmaps"},
                "userInfo": {"username": "stranger"}, "oldObject": old, "object": new,
            },
        })
    };
    let send = |path: &str, review: &Value| ask(scene, path, review).expect("modelguard answers")["response"].clone();
    let update = review("UPDATE", forged(json!({"v1": "evil"})), forged(json!({"v1": "evil", "v2": ""})));
    let answer = send("/mutate?timeout=5s", &update);
    assert_eq!(answer["allowed"], true, "the annotation keeps it, for whoever sends it back: {answer:#}");
    let deletion = send("/validate?timeout=5s", &review("DELETE", forged(json!({})), Value::Null));
    let message = deletion["status"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("what is stored is another revision than the review says"), "{deletion:#}");
    assert_eq!((&deletion["allowed"], &deletion["status"]["code"]), (&false.into(), &503.into()), "{deletion:#}");
    assert_eq!(kept(), before);
}

fn an_entry_that_comes_back_is_in_use(scene: &Scene<'_>) {
    scene.armed();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    for round in ["first", "second"] {
        remove(scene, "models", "v1").ok();
        let statuses: Vec<_> =
            scene.answers("configmaps", "models", "admin").into_iter().map(|(_, status)| status).collect();
        assert!(statuses.ends_with(&[429, 200]), "{round} removal: {statuses:?}");
        let back = r#"{"data":{"v1":"weights"}}"#;
        scene.kubectl(["patch", "configmap", "models", "--type=merge", "-p", back]).run().ok();
        assert!(!usage(scene, "models").contains("v1"), "{round} time that it is back");
    }
    // And who comes to need it is safe at once.
    hold(scene, "models");
    remove(scene, "models", "v1").denied("MG101");
}

fn opting_out_and_in_again_proves_nothing(scene: &Scene<'_>) {
    let (_, usage) = forged(scene).swap_remove(0);
    scene.create_object(r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "models"}, "data": {"v1": "w", "v2": "w"}}"#).ok();
    // An ordinary ConfigMap is nobody's business, so this annotation stays as it is written.
    scene.kubectl(["annotate", "configmap", "models", &format!("{USAGE}={usage}")]).run().ok();
    assert_eq!(self::usage(scene, "models"), usage);
    scene.kubectl(["label", "configmap", "models", "modelguard.dev/catalog=keys"]).run().ok();
    is_in_use(scene, "models");
}

/// Its pods begin to count while the proof that nobody needs v1 is on its way.
fn a_namespace_that_opts_in_during_a_removal(scene: &Scene<'_>) {
    let plain = Namespace::create(&scene.at.cluster, "forgery::plain", false);
    let models = with_annotation(keys("models", &["v1", "v2"]), "modelguard.dev/shared-with", &plain.name);
    scene.create_object(models.to_string()).ok();
    let needs = deployment("api", 1, &format!("{}/models:v1", scene.namespace.name));
    plain.apply(needs.to_string()).ok();
    plain.rolled_out("deployment/api");
    scene.armed();

    thread::scope(|threads| {
        let removal = threads.spawn(|| remove(scene, "models", "v1"));
        until("the removal is under way", || {
            if usage(scene, "models").contains("v1") { Ok(()) } else { Err("no proof yet") }
        });
        let label = ["label", "namespace", &plain.name, "modelguard.dev/guard=enabled"];
        scene.at.cluster.kubectl(label).run().ok();
        removal.join().expect("kubectl ran").denied("MG101").says("/api");
    });
    assert_eq!(scene.get("configmap", "models")["data"]["v1"], "weights");
}

// === steps ===

/// What modelguard answers to a review that no API server sent.
fn ask(scene: &Scene<'_>, path: &str, review: &Value) -> Result<Value> {
    let modelguard = &scene.at.modelguard;
    let cluster = json!({
        "server": format!("https://{}", modelguard.first().listen()),
        "certificate-authority": modelguard.certificates().authority(),
        "tls-server-name": "localhost",
    });
    let kubeconfig = serde_json::from_value(json!({
        "clusters": [{"name": "it", "cluster": cluster}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "users": [{"name": "it", "user": {}}],
        "current-context": "it",
    }))?;
    let request = Request::post(path).header(CONTENT_TYPE, "application/json").body(review.to_string().into_bytes())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?.request(request).await?)
    })
}

/// Usage that says v1 may go: in the epoch that is, and in one that is not.
fn forged(scene: &Scene<'_>) -> Vec<(&'static str, String)> {
    let usage = |epoch: &str| json!({"epoch": epoch, "idle": ["v1"]}).to_string();
    vec![("right", usage(&epoch(scene))), ("wrong", usage("000000"))]
}

/// The epoch, as modelguard itself writes it while a removal waits.
fn epoch(scene: &Scene<'_>) -> String {
    scene.armed();
    scene.create_object(keys("source", &["v1", "v2"]).to_string()).ok();
    thread::scope(|threads| {
        let removal = threads.spawn(|| remove(scene, "source", "v1"));
        let epoch = until("modelguard writes its usage", || {
            let usage: Value = serde_json::from_str(&usage(scene, "source")).map_err(|error| error.to_string())?;
            usage["epoch"].as_str().map(str::to_owned).ok_or_else(|| usage.to_string())
        });
        removal.join().expect("kubectl ran").ok();
        epoch
    })
}

/// The annotation of a ConfigMap is gone, and its v1 is InUse: whoever needs it keeps it.
#[track_caller]
fn is_in_use(scene: &Scene<'_>, name: &str) {
    assert_eq!(usage(scene, name), "", "usage of {name}");
    hold(scene, name);
    remove(scene, name, "v1").denied("MG101");
}

#[track_caller]
fn hold(scene: &Scene<'_>, catalog: &str) {
    scene.create_object(manifest(&[deployment(&format!("api-{catalog}"), 0, &format!("{catalog}:v1"))])).ok();
}

fn remove(scene: &Scene<'_>, catalog: &str, entry: &str) -> Output {
    let patch = json!({"data": {entry: null}});
    scene.kubectl(["patch", "configmap", catalog, "--type=merge", "-p", &patch.to_string()]).run()
}

fn annotations(scene: &Scene<'_>, name: &str) -> Value {
    let mut annotations = scene.get("configmap", name)["metadata"]["annotations"].take();
    // kubectl's own copy of what was applied.
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    annotations
}

fn usage(scene: &Scene<'_>, name: &str) -> String {
    annotations(scene, name)[USAGE].as_str().unwrap_or_default().to_owned()
}

fn with_annotation(mut object: Value, name: &str, value: &str) -> Value {
    object["metadata"]["annotations"][name] = value.into();
    object
}
