//! Every way to need an entry, on every kind that can: unknown entries are refused, known ones are kept.

use crate::scene::{Scene, Setup, Test, own, shared};
use crate::support::builders::{deployment, keys, template, workload};
use crate::support::kubectl::Output;
use crate::support::namespace::{Namespace, timeout};
use crate::support::wait::until;
use serde_json::{Value, json};

const KINDS: [&str; 8] =
    ["CronJob", "DaemonSet", "Deployment", "Job", "Pod", "ReplicaSet", "ReplicationController", "StatefulSet"];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        shared("references::each_way_is_checked", each_way_is_checked),
        shared("references::each_way_holds", each_way_holds),
        shared("references::whole_catalogs_are_held", whole_catalogs_are_held),
        shared("references::optional_ones_are_not_held", optional_ones_are_not_held),
        shared("references::each_kind_is_checked", each_kind_is_checked),
        shared("references::each_kind_holds", each_kind_holds),
        shared("references::updates_are_checked", updates_are_checked),
        shared("references::ephemeral_containers", ephemeral_containers),
        shared("references::a_write_to_a_pods_status", a_write_to_a_pods_status),
        shared("references::a_pod_that_comes_to_use_something_else", a_pod_that_comes_to_use_something_else),
        shared("references::what_an_autoscaler_took_to_zero_holds", what_an_autoscaler_took_to_zero_holds),
        shared("references::what_a_paused_deployment_kept_holds_at_zero", what_a_paused_deployment_kept_holds_at_zero),
        shared("references::both_halves_of_a_partitioned_update_hold", both_halves_of_a_partitioned_update_hold),
        shared("references::a_replica_set_scaled_up_from_zero", a_replica_set_scaled_up_from_zero),
        shared("references::a_finished_job_holds_nothing", a_finished_job_holds_nothing),
        shared("references::a_terminating_pod_holds", a_terminating_pod_holds),
        shared("references::unknown_catalogs", unknown_catalogs),
        shared("references::shared_catalogs", shared_catalogs),
        own(
            "references::nobody_pins_what_is_not_shared_with_them",
            Setup::default().without_controllers(),
            nobody_pins_what_is_not_shared_with_them,
        ),
        shared("references::what_does_not_parse", what_does_not_parse),
        shared("references::ordinary_config_maps_are_free", ordinary_config_maps_are_free),
    ]
}

/// A pod template that needs an entry of the `keys` catalog `models`.
type Way = fn(&str) -> Value;

const WAYS: [(&str, Way); 6] = [
    ("uses", |entry| template("app", &format!("models:{entry}"))),
    ("key-ref", |entry| with_env(&["containers"], entry, false)),
    ("init", |entry| with_env(&["initContainers"], entry, false)),
    ("volume", |entry| with_volume(json!({"configMap": {"name": "models", "items": items(entry)}}))),
    ("projected", |entry| {
        let sources = json!([{"configMap": {"name": "models", "items": items(entry)}}]);
        with_volume(json!({"projected": {"sources": sources}}))
    }),
    ("two-places", |entry| with_env(&["containers", "initContainers"], entry, false)),
];

fn each_way_is_checked(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    for (way, template) in WAYS {
        let unknown = workload("Deployment", way, 0, template("v9"));
        scene.create_object(unknown.to_string()).denied("MG201").says("v9").says("v1").says("v2");
        assert_eq!(scene.answers("deployments", way, "admin"), [("create".to_owned(), 403)], "{way}");
    }
}

fn each_way_holds(scene: &Scene<'_>) {
    scene.create_object(keys("models", &WAYS.map(|(way, _)| way)).to_string()).ok();
    for (way, template) in WAYS {
        scene.create_object(workload("Deployment", way, 0, template(way)).to_string()).ok();
    }
    for (way, _) in WAYS {
        remove(scene, "models", way).denied("MG101").says(way).says(&format!("/{way}"));
    }
}

fn whole_catalogs_are_held(scene: &Scene<'_>) {
    let mut env_from = template("app", "");
    env_from["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "env-from"}}]);
    let mut init = template("app", "");
    init["spec"]["initContainers"] = json!([{"name": "init", "image": "registry.invalid/init:1"}]);
    init["spec"]["initContainers"][0]["envFrom"] = json!([{"configMapRef": {"name": "init-env-from"}}]);
    let ways = [
        ("env-from", env_from),
        ("init-env-from", init),
        ("mount", with_volume(json!({"configMap": {"name": "mount"}}))),
        (
            "projected-mount",
            with_volume(json!({"projected": {"sources": [{"configMap": {"name": "projected-mount"}}]}})),
        ),
    ];
    for (name, template) in ways {
        scene.create_object(keys(name, &["v1", "v2"]).to_string()).ok();
        scene.create_object(workload("Deployment", name, 0, template).to_string()).ok();
        remove(scene, name, "v1").denied("MG101").says(&format!("/{name}"));
        // What is added later is mounted as well.
        scene.kubectl(["patch", "configmap", name, "--type=merge", r#"-p={"data":{"v3":"weights"}}"#]).run().ok();
        remove(scene, name, "v3").denied("MG101");
    }
}

fn optional_ones_are_not_held(scene: &Scene<'_>) {
    scene.armed();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    let optional_source = json!({"configMap": {"name": "models", "items": items("v1"), "optional": true}});
    let ways = [
        ("key-ref", with_env(&["containers"], "v1", true)),
        ("volume", with_volume(optional_source.clone())),
        ("projected", with_volume(json!({"projected": {"sources": [optional_source]}}))),
        ("missing", with_env(&["containers"], "v9", true)),
    ];
    for (name, template) in ways {
        scene.create_object(workload("Deployment", name, 0, template).to_string()).ok();
    }
    remove(scene, "models", "v1").ok();
}

fn each_kind_is_checked(scene: &Scene<'_>) {
    scene.wait_for_account();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    for kind in KINDS {
        let unknown = workload(kind, "unknown", 1, template("unknown", "models:v9"));
        scene.create_object(unknown.to_string()).denied("MG201").says("v9").says("v1").says("v2");
    }
}

fn each_kind_holds(scene: &Scene<'_>) {
    scene.wait_for_account();
    let entry = |kind: &str| format!("for-{}", kind.to_lowercase());
    let entries = KINDS.map(entry);
    scene.create_object(keys("models", &entries.each_ref().map(String::as_str)).to_string()).ok();
    for kind in KINDS {
        let mut object = workload(kind, "known", 1, template(&entry(kind), &format!("models:{}", entry(kind))));
        if kind == "Job" {
            // It would be done at once.
            object["spec"]["suspend"] = true.into();
        }
        scene.create_object(object.to_string()).ok();
    }
    for kind in KINDS {
        remove(scene, "models", &entry(kind)).denied("MG101").says(kind).says("/known");
    }
}

fn updates_are_checked(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.apply(deployment("api", 0, "models:v1").to_string()).ok();
    scene.apply(deployment("api", 0, "models:v9").to_string()).denied("MG201");
    let unknown = json!({"spec": {"template": {"metadata": {"annotations": {"modelguard.dev/uses": "models:v8"}}}}});
    scene.kubectl(["patch", "deployment", "api", "-p", &unknown.to_string()]).run().denied("MG201").says("v8");
    scene.apply(deployment("api", 0, "models:v2").to_string()).ok();
    remove(scene, "models", "v2").denied("MG101");
}

fn ephemeral_containers(scene: &Scene<'_>) {
    scene.wait_for_account();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(workload("Pod", "app", 1, template("app", "")).to_string()).ok();
    let debug = |entry: &str| {
        let file = scene.at.cluster.dir().join(format!("{}-{entry}.json", scene.namespace.name));
        std::fs::write(&file, json!({"env": [key_ref(entry, false)]}).to_string()).expect("a file");
        let custom = format!("--custom={}", file.display());
        scene
            .kubectl([
                "debug",
                "app",
                "--image=registry.invalid/debug:1",
                "--profile=general",
                "--attach=false",
                "-q",
                &custom,
            ])
            .run()
    };
    debug("v9").denied("MG201").says("v9");
    debug("v1").ok();
    remove(scene, "models", "v1").denied("MG101").says("/app");
}

fn a_pod_that_comes_to_use_something_else(scene: &Scene<'_>) {
    scene.wait_for_account();
    scene.create_object(keys("models", &["v1", "v2", "v3"]).to_string()).ok();
    scene.create_object(workload("Pod", "app", 1, template("app", "models:v1")).to_string()).ok();
    let uses = |entry: &str| {
        scene.kubectl(["annotate", "--overwrite", "pod", "app", &format!("modelguard.dev/uses=models:{entry}")]).run()
    };
    uses("v9").denied("MG201").says("v9");
    remove(scene, "models", "v1").denied("MG101").says("/app");
    uses("v2").ok();
    remove(scene, "models", "v2").denied("MG101").says("/app");
    until("what it used before may go", || remove(scene, "models", "v1").passed());
}

/// It comes back by itself, and nobody asks then.
fn what_an_autoscaler_took_to_zero_holds(scene: &Scene<'_>) {
    scene.wait_for_account();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 1, "models:v1").to_string()).ok();
    scene.rolled_out("deployment/api");
    let autoscaler = ["--as=system:serviceaccount:kube-system:horizontal-pod-autoscaler", "--as-group=system:masters"];
    let scale = |replicas: &str| scene.kubectl(["scale", "deployment", "api", replicas]).args(autoscaler).run();
    scale("--replicas=0").ok();
    until_no_pods(scene);
    remove(scene, "models", "v1").denied("MG101").says("Deployment");
    scale("--replicas=1").ok();
    scene.rolled_out("deployment/api");
}

/// What it kept is scaled up again, where its template has no ReplicaSet yet.
fn what_a_paused_deployment_kept_holds_at_zero(scene: &Scene<'_>) {
    scene.wait_for_account();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 1, "models:v1").to_string()).ok();
    scene.rolled_out("deployment/api");
    let patch = |spec: Value| {
        let patch = json!({"spec": spec}).to_string();
        scene.kubectl(["patch", "deployment", "api", "--type=merge", "-p", &patch]).run().ok();
    };
    patch(json!({"replicas": 0}));
    until_no_pods(scene);
    let uses = json!({"metadata": {"annotations": {"modelguard.dev/uses": "models:v2"}}});
    patch(json!({"paused": true, "template": uses}));
    until("the template is known", || remove(scene, "models", "v2").denies("MG101"));
    remove(scene, "models", "v1").denied("MG101").says("the pod template of ReplicaSet");

    patch(json!({"replicas": 1}));
    let path = "jsonpath={range .items[*]}{.metadata.annotations.modelguard\\.dev/uses} {end}";
    until("a pod of the former template runs", || {
        match &*scene.kubectl(["get", "pods", "-o", path]).run().ok().stdout {
            "models:v1 " => Ok(()),
            pods => Err(pods.to_owned()),
        }
    });
    remove(scene, "models", "v1").denied("MG101").says("Deployment");
}

fn until_no_pods(scene: &Scene<'_>) {
    until("its pods are gone", || match &*scene.kubectl(["get", "pods", "-o", "name"]).run().ok().stdout {
        "" => Ok(()),
        pods => Err(pods.to_owned()),
    });
}

/// Below the partition, missing pods are made from the older revision.
fn both_halves_of_a_partitioned_update_hold(scene: &Scene<'_>) {
    scene.wait_for_account();
    scene.create_object(keys("models", &["v1", "v2", "v3"]).to_string()).ok();
    let mut set = workload("StatefulSet", "app", 2, template("app", "models:v1"));
    set["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    scene.create_object(set.to_string()).ok();
    let pods = |expected: [&str; 2]| {
        until("its pods are of these revisions", || {
            let path = "jsonpath={range .items[*]}{.metadata.name}={.metadata.annotations.modelguard\\.dev/uses} {end}";
            let pods = scene.kubectl(["get", "pods", "-o", path]).run().ok().stdout;
            let found: Vec<_> = pods.split_whitespace().collect();
            if found == expected { Ok(()) } else { Err(pods) }
        });
    };
    pods(["app-0=models:v1", "app-1=models:v1"]);
    let patch = |spec: Value| {
        let patch = json!({"spec": spec}).to_string();
        scene.kubectl(["patch", "statefulset", "app", "--type=merge", "-p", &patch]).run().ok();
    };
    patch(json!({"template": {"metadata": {"annotations": {"modelguard.dev/uses": "models:v2"}}}}));
    pods(["app-0=models:v1", "app-1=models:v2"]);
    for entry in ["v1", "v2"] {
        remove(scene, "models", entry).denied("MG101").says("StatefulSet");
    }
    let before = scene.get("pod", "app-0")["metadata"]["uid"].clone();
    scene.kubectl(["delete", "pod", "app-0"]).run().ok();
    pods(["app-0=models:v1", "app-1=models:v2"]);
    assert_ne!(scene.get("pod", "app-0")["metadata"]["uid"], before, "it was made anew");
    remove(scene, "models", "v1").denied("MG101").says("StatefulSet");
    patch(json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}}));
    pods(["app-0=models:v2", "app-1=models:v2"]);
    until("the older revision may go", || remove(scene, "models", "v1").passed());
}

/// The API server keeps the annotations that such a write brings.
fn a_write_to_a_pods_status(scene: &Scene<'_>) {
    scene.wait_for_account();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(workload("Pod", "app", 1, template("app", "")).to_string()).ok();
    let uses = |entry: &str| {
        let patch = json!({"metadata": {"annotations": {"modelguard.dev/uses": format!("models:{entry}")}}});
        scene.kubectl(["patch", "pod", "app", "--subresource=status", "-p", &patch.to_string()]).run()
    };
    uses("v9").denied("MG201").says("v9");
    uses("v1").ok();
    remove(scene, "models", "v1").denied("MG101").says("/app");
}

/// At zero it holds nothing, so its entry may go; then it must not come back to life.
fn a_replica_set_scaled_up_from_zero(scene: &Scene<'_>) {
    scene.armed();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(workload("ReplicaSet", "old", 0, template("old", "models:v1")).to_string()).ok();
    scene.kubectl(["scale", "replicaset", "old", "--replicas=1"]).run().ok();
    remove(scene, "models", "v1").denied("MG101");
    scene.kubectl(["scale", "replicaset", "old", "--replicas=0"]).run().ok();
    // Its status counts none that terminates, and such a one still holds.
    until_no_pods(scene);
    until("nothing holds it", || remove(scene, "models", "v1").passed());
    scene.kubectl(["scale", "replicaset", "old", "--replicas=1"]).run().denied("MG201").says("v1").says("v2");
    scene.kubectl(["patch", "replicaset", "old", r#"-p={"spec":{"replicas":2}}"#]).run().denied("MG201");
    assert_eq!(scene.get("replicaset", "old")["spec"]["replicas"], 0);
}

fn a_finished_job_holds_nothing(scene: &Scene<'_>) {
    scene.armed();
    scene.wait_for_account();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(workload("Job", "batch", 1, template("batch", "models:v1")).to_string()).ok();
    scene.kubectl(["wait", "--for=condition=Complete", "job/batch", &timeout()]).run().ok();
    until("that it has finished is known", || remove(scene, "models", "v1").passed());
}

fn a_terminating_pod_holds(scene: &Scene<'_>) {
    scene.armed();
    scene.wait_for_account();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    let mut pod = workload("Pod", "slow", 1, template("slow", "models:v1"));
    pod["metadata"]["finalizers"] = json!(["example.com/still-answering"]);
    scene.create_object(pod.to_string()).ok();
    scene.kubectl(["delete", "pod", "slow", "--wait=false"]).run().ok();
    remove(scene, "models", "v1").denied("MG101").says("/slow");
    scene.kubectl(["patch", "pod", "slow", "--type=merge", r#"-p={"metadata":{"finalizers":null}}"#]).run().ok();
    scene.kubectl(["wait", "--for=delete", "pod/slow", &timeout()]).run().ok();
    until("that it is gone is known", || remove(scene, "models", "v1").passed());
}

fn unknown_catalogs(scene: &Scene<'_>) {
    let elsewhere = Namespace::create(&scene.at.cluster, "references::elsewhere", false);
    elsewhere.create_object(keys("models", &["secret-v1"]).to_string()).ok();
    scene
        .create_object(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ordinary"}, "data": {"v1": "x"}})
                .to_string(),
        )
        .ok();
    let foreign = format!("{}/models:secret-v1", elsewhere.name);
    let foreign_unknown = format!("{}/models:v9", elsewhere.name);
    for (name, uses) in [
        ("missing", "nowhere:v1"),
        ("ordinary", "ordinary:v1"),
        ("foreign", &foreign),
        // The same answer as for one that is listed, or it would tell what is.
        ("foreign-unknown", &foreign_unknown),
    ] {
        let denied = scene.create_object(deployment(name, 0, uses).to_string()).denied("MG202");
        if name == "foreign-unknown" {
            denied.silent_on("secret-v1");
        }
        assert_eq!(scene.answers("deployments", name, "admin"), [("create".to_owned(), 403)], "{name}");
    }
}

fn shared_catalogs(scene: &Scene<'_>) {
    let elsewhere = Namespace::create(&scene.at.cluster, "references::shared", false);
    for (name, with) in [("named", format!("other, {}", scene.namespace.name)), ("all", "*".to_owned())] {
        let mut models = keys(name, &["v1", "v2"]);
        models["metadata"]["annotations"] = json!({"modelguard.dev/shared-with": with});
        elsewhere.create_object(models.to_string()).ok();
        let uses = |entry: &str| format!("{}/{name}:{entry}", elsewhere.name);
        scene.create_object(deployment(name, 0, &uses("v1")).to_string()).ok();
        scene.create_object(deployment("unknown", 0, &uses("v9")).to_string()).denied("MG201").says("v1").says("v2");
        let patch = ["patch", "configmap", name, "--type=merge", r#"-p={"data":{"v1":null}}"#];
        elsewhere.kubectl(patch).run().denied("MG101").says(&format!("{}/{name}", scene.namespace.name));
    }
}

/// What a namespace had before it was guarded nobody was asked about, and it holds nothing of others' catalogs.
fn nobody_pins_what_is_not_shared_with_them(scene: &Scene<'_>) {
    let cluster = &scene.at.cluster;
    let foreign = Namespace::create(cluster, "references::foreign", false);
    let home = &scene.namespace.name;
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    foreign.create_object(deployment("pins", 1, &format!("{home}/models:v1")).to_string()).ok();
    cluster.kubectl(["label", "namespace", &foreign.name, "modelguard.dev/guard=enabled"]).run().ok();
    scene.armed();
    let foreigner = deployment("api", 1, &format!("{home}/models:v2")).to_string();
    foreign.create_object(foreigner.as_str()).denied("MG202");
    scene.kubectl(["patch", "configmap", "models", "--type=merge", r#"-p={"data":{"v1":null}}"#]).run().ok();

    let share = |with: &str| scene.kubectl(["annotate", "--overwrite", "configmap", "models", with]);
    share(&format!("modelguard.dev/shared-with={}", foreign.name)).run().ok();
    foreign.create_object(foreigner).ok();
    until("its holder is known", || {
        let rehearsed = share("modelguard.dev/shared-with-").args(["--dry-run=server"]).run();
        if rehearsed.status.success() { Err(rehearsed) } else { Ok(()) }
    });
    share("modelguard.dev/shared-with-").run().denied("MG101").says("it cannot be taken from namespaces").says("/api");
}

fn what_does_not_parse(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    for (number, uses) in
        ["models", "models:", ":v1", "a/b/models:v1", "models:v1,,models:v1", "models:%zz"].into_iter().enumerate()
    {
        let name = format!("broken-{number}");
        let denied = scene.create_object(deployment(&name, 0, uses).to_string());
        denied.denied("MG204").says("modelguard.dev/uses");
        assert_eq!(scene.answers("deployments", &name, "admin"), [("create".to_owned(), 422)], "{uses:?}");
    }
    let mut serves = deployment("serves", 0, "");
    serves["spec"]["template"]["metadata"]["annotations"] = json!({"modelguard.dev/serves": "models"});
    scene.create_object(serves.to_string()).denied("MG204").says("modelguard.dev/serves");
}

/// An implicit reference to what is no catalog, or not there yet, is nobody's business.
fn ordinary_config_maps_are_free(scene: &Scene<'_>) {
    scene.create_object(workload("Deployment", "early", 0, with_env(&["containers"], "v1", false)).to_string()).ok();
    let ordinary =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "models"}, "data": {"v2": "x"}});
    scene.create_object(ordinary.to_string()).ok();
    scene.create_object(workload("Deployment", "ordinary", 0, with_env(&["containers"], "v9", false)).to_string()).ok();
    remove(scene, "models", "v2").ok();
}

// === builders ===

fn items(entry: &str) -> Value {
    json!([{"key": entry, "path": "model"}])
}

fn key_ref(entry: &str, optional: bool) -> Value {
    json!({"name": "MODEL", "valueFrom": {"configMapKeyRef": {"name": "models", "key": entry, "optional": optional}}})
}

fn with_env(places: &[&str], entry: &str, optional: bool) -> Value {
    let mut template = template("app", "");
    template["spec"]["initContainers"] = json!([{"name": "init", "image": "registry.invalid/init:1"}]);
    for place in places {
        template["spec"][*place][0]["env"] = json!([key_ref(entry, optional)]);
    }
    template
}

fn with_volume(mut source: Value) -> Value {
    let mut template = template("app", "");
    source["name"] = "models".into();
    template["spec"]["volumes"] = json!([source]);
    template
}

fn remove(scene: &Scene<'_>, catalog: &str, entry: &str) -> Output {
    let patch = json!({"data": {entry: null}});
    scene.kubectl(["patch", "configmap", catalog, "--type=merge", "-p", &patch.to_string()]).run()
}
