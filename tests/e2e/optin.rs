//! Nothing without the two labels: what is not opted in never reaches the webhook, and is not in its way when it is
//! down. What is opted in can neither be broken nor slip out.

use crate::scene::{Scene, Setup, Test, own, shared};
use crate::support::builders::{catalog, deployment, keys, template, workload};
use crate::support::kubectl::Output;
use crate::support::namespace::{Namespace, timeout};
use crate::support::wait::until;
use serde_json::{Value, json};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        own("optin::others_are_not_in_the_way", Setup::default(), others_are_not_in_the_way),
        shared("optin::an_invalid_catalog_is_refused", an_invalid_catalog_is_refused),
        shared("optin::a_catalog_cannot_become_invalid", a_catalog_cannot_become_invalid),
        shared("optin::the_label_stays_while_entries_are_used", the_label_stays_while_entries_are_used),
        shared("optin::the_label_may_go_when_nobody_uses_an_entry", the_label_may_go_when_nobody_uses_an_entry),
        shared("optin::a_catalog_in_use_is_not_deleted", a_catalog_in_use_is_not_deleted),
        shared("optin::labelling_counts_what_is_there", labelling_counts_what_is_there),
        shared("optin::a_namespace_goes_with_its_catalogs", a_namespace_goes_with_its_catalogs),
    ]
}

fn others_are_not_in_the_way(scene: &Scene<'_>) {
    let plain = Namespace::create(&scene.at.cluster, "optin::plain", false);
    let replica = scene.at.modelguard.first();
    scene.wait_for_account();
    plain.wait_for_account();
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    scene.create_object(deployment("api", 2, "models:v1").to_string()).ok();
    scene.rolled_out("deployment/api");

    let requests = || replica.metrics().expect("modelguard answers").requests();
    let before = requests();
    assert!(before > 0.0, "a catalog and a workload were counted");
    everyday_writes(scene, &plain, "up");
    assert_eq!(requests(), before, "none of these is for the webhook");
    scene.create_object(keys("counted", &["v1"]).to_string()).ok();
    assert!(requests() > before, "this one is");

    replica.kill();
    everyday_writes(scene, &plain, "down");
    let failing = "failed calling webhook";
    scene.create_object(keys("late", &["v1"]).to_string()).failed(failing).says("catalog.modelguard.dev");
    remove(scene, "models", "v1").failed(failing);
    scene.kubectl(["delete", "configmap", "models"]).run().failed(failing);
    scene.kubectl(["label", "configmap", "models", "modelguard.dev/catalog-"]).run().failed(failing);
    scene.create_object(deployment("late", 0, "").to_string()).failed(failing).says("workload.modelguard.dev");

    replica.restart().expect("modelguard starts");
    scene.create_object(keys("late", &["v1"]).to_string()).ok();
    scene.create_object(deployment("late", 0, "late:v1").to_string()).ok();
}

/// What must go on whatever modelguard does, with names that end in `round`.
fn everyday_writes(scene: &Scene<'_>, plain: &Namespace<'_>, round: &str) {
    let name = format!("everyday-{round}");
    let ordinary = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}});
    for namespace in [&scene.namespace, plain] {
        namespace.create_object(ordinary.to_string()).ok();
        namespace
            .kubectl(["patch", "configmap", &name, "--type=merge", r#"-p={"data":{"a":null,"b":"2"}}"#])
            .run()
            .ok();
        namespace.kubectl(["label", "configmap", &name, "team=x"]).run().ok();
        namespace.kubectl(["delete", "configmap", &name]).run().ok();
    }
    // Namespaces come and go, with what is in them; and ours opts in and out of nothing.
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    scene.at.cluster.kubectl(["create", "-f-"]).stdin(namespace.to_string()).run().ok();
    scene.at.cluster.kubectl(["create", "configmap", "inside", "-n", &name, "--from-literal=a=1"]).run().ok();
    scene.at.cluster.kubectl(["delete", "namespace", &name, &timeout()]).run().ok();
    scene.kubectl(["label", "--overwrite", "namespace", &scene.namespace.name, &format!("round={round}")]).run().ok();
    // Other kinds, where workloads are guarded, too.
    for namespace in [&scene.namespace, plain] {
        namespace.kubectl(["create", "secret", "generic", &name, "--from-literal=a=1"]).run().ok();
        namespace.kubectl(["create", "service", "clusterip", &name, "--tcp=80"]).run().ok();
        namespace.kubectl(["create", "serviceaccount", &name]).run().ok();
        namespace.kubectl(["delete", &format!("secret/{name}"), &format!("service/{name}")]).run().ok();
    }
    // In the namespaces of the cluster itself even the label opts in nothing.
    let system = scene.at.cluster.kubectl(["create", "-n", "kube-system", "-f-"]);
    system.stdin(keys(&name, &["v1"]).to_string()).run().ok();
    scene.at.cluster.kubectl(["delete", "configmap", &name, "-n", "kube-system"]).run().ok();
    // Nodes register, and say that they live; leaders say that they lead.
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    scene.at.cluster.kubectl(["create", "-f-"]).stdin(node.to_string()).run().ok();
    // That of the node is made by who runs it.
    let lease_name = format!("{name}-lease");
    for namespace in ["kube-node-lease", "kube-system", &plain.name, &scene.namespace.name] {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": lease_name, "namespace": namespace},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40},
        });
        scene.at.cluster.kubectl(["create", "-f-"]).stdin(lease.to_string()).run().ok();
        let renewal = r#"-p={"spec":{"leaseTransitions":1}}"#;
        scene.at.cluster.kubectl(["patch", "lease", &lease_name, "-n", namespace, "--type=merge", renewal]).run().ok();
    }
    scene.at.cluster.kubectl(["delete", "node", &name]).run().ok();
    // Where nobody opted in, even references to nothing are nobody's business.
    plain.create_object(deployment(&name, 1, "nowhere:v1").to_string()).ok();
    plain.create_object(workload("Pod", &name, 1, template(&name, "does not parse")).to_string()).ok();
    plain.rolled_out(&format!("deployment/{name}"));
    plain.kubectl(["scale", "deployment", &name, "--replicas=2"]).run().ok();
    plain.kubectl(["delete", "deployment", &name]).run().ok();
    // In a guarded namespace: what cannot change a reference, and the cluster healing itself.
    scene.kubectl(["annotate", "deployment", "api", "--overwrite", &format!("round={round}")]).run().ok();
    let pods = scene.kubectl(["get", "pods", "-l", "app=api", "-o", "name"]).run().ok().stdout;
    let victim = pods.lines().next().expect("a pod of the app");
    scene.kubectl(["delete", victim]).run().ok();
    until("the pod was replaced", || {
        let now = scene.kubectl(["get", "pods", "-l", "app=api", "-o", "name"]).run().ok().stdout;
        if now.lines().count() == 2 && !now.contains(victim) { Ok(()) } else { Err(now) }
    });
    scene.kubectl(["scale", "deployment", "api", "--replicas=3"]).run().ok();
    scene.rolled_out("deployment/api");
    scene.kubectl(["scale", "deployment", "api", "--replicas=2"]).run().ok();
    scene.rolled_out("deployment/api");
}

fn an_invalid_catalog_is_refused(scene: &Scene<'_>) {
    let cases = [
        ("yaml", "models.yaml", "- name: extraction\n  version: [v1\n", "line 3"),
        ("yaml", "models.yaml", "- name: extraction\n  version: v1\n- version: v2\n", "line 3, column 3"),
        ("yaml", "models.yaml", "extraction: v1\n", "line 1, column 1"),
        ("json", "models.json", "[\n  {\"name\": \"extraction\",}\n]", "line 2"),
        ("json", "models.json", "{}", "line 1, column 1"),
    ];
    for (number, (format, key, text, place)) in cases.into_iter().enumerate() {
        let name = format!("invalid-{number}");
        let object = catalog(&name, format, &[(key, text)]);
        scene.create_object(object.to_string()).denied("MG104").says(key).says(place);
        assert_eq!(scene.answers("configmaps", &name, "admin"), [("create".to_owned(), 422)], "{format} {text:?}");
    }
}

fn a_catalog_cannot_become_invalid(scene: &Scene<'_>) {
    let valid = catalog("models", "yaml", &[("models.yaml", "- name: extraction\n  version: v1\n")]);
    scene.apply(valid.to_string()).ok();
    let before = scene.get("configmap", "models");
    let broken = catalog("models", "yaml", &[("models.yaml", "- name: extraction\n  version: [v1\n")]);
    scene.apply(broken.to_string()).denied("MG104").says("models.yaml");
    assert_eq!(scene.answers("configmaps", "models", "admin").last(), Some(&("patch".to_owned(), 422)));
    // A format that nobody knows is no way to opt out.
    let unknown = ["label", "configmap", "models", "--overwrite", "modelguard.dev/catalog=other"];
    scene.kubectl(unknown).run().denied("MG104").says("other");
    assert_eq!(scene.get("configmap", "models"), before);
}

fn the_label_stays_while_entries_are_used(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    let before = scene.get("configmap", "models");
    for label in ["modelguard.dev/catalog-", "modelguard.dev/catalog=yaml", "modelguard.dev/catalog=other"] {
        let output = scene.kubectl(["label", "configmap", "models", "--overwrite", label]).run();
        output.denied("MG105").says("/api");
        assert_eq!(scene.answers("configmaps", "models", "admin").last(), Some(&("patch".to_owned(), 403)), "{label}");
    }
    // Without the label at all, as a file of an older time would have it.
    let mut bare = keys("models", &["v1", "v2"]);
    bare["metadata"]["labels"].take();
    scene.kubectl(["replace", "-f-"]).stdin(bare.to_string()).run().denied("MG105");
    assert_eq!(scene.get("configmap", "models"), before);
}

fn the_label_may_go_when_nobody_uses_an_entry(scene: &Scene<'_>) {
    scene.armed();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.kubectl(["label", "configmap", "models", "modelguard.dev/catalog-"]).run().ok();
    let statuses: Vec<_> =
        scene.answers("configmaps", "models", "admin").into_iter().map(|(_, status)| status).collect();
    assert!(statuses.ends_with(&[429, 200]), "{statuses:?}");
}

fn a_catalog_in_use_is_not_deleted(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    scene.kubectl(["delete", "configmap", "models"]).run().denied("MG106").says("/api");
    assert_eq!(scene.answers("configmaps", "models", "admin").last(), Some(&("delete".to_owned(), 403)));
    let collection = format!("--raw=/api/v1/namespaces/{}/configmaps", scene.namespace.name);
    scene.kubectl(["delete", &collection]).run().denied("MG106");
    scene.get("configmap", "models");
}

/// Labels change nothing by themselves, but from then on what exists counts.
fn labelling_counts_what_is_there(scene: &Scene<'_>) {
    let key_ref = json!({"name": "MODEL", "valueFrom": {"configMapKeyRef": {"name": "models", "key": "v1"}}});
    let mut early = template("early", "");
    early["spec"]["containers"][0]["env"] = json!([key_ref]);
    scene.create_object(workload("Deployment", "early", 0, early).to_string()).ok();
    let ordinary = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "models"}, "data": {"v1": "w", "v2": "w"}});
    scene.create_object(ordinary.to_string()).ok();
    remove(scene, "models", "v2").ok();
    scene.kubectl(["label", "configmap", "models", "modelguard.dev/catalog=keys"]).run().ok();
    remove(scene, "models", "v1").denied("MG101").says("/early");
}

/// A namespace that is being deleted takes everything with it, entries in use included.
fn a_namespace_goes_with_its_catalogs(scene: &Scene<'_>) {
    let going = Namespace::create(&scene.at.cluster, "optin::going", false);
    going.create_object(keys("models", &["v1"]).to_string()).ok();
    let in_use: Value = going.get("configmap", "models");
    assert_eq!(in_use["metadata"]["annotations"]["modelguard.dev/usage"], Value::Null);
    scene.at.cluster.kubectl(["delete", "namespace", &going.name, "--wait=false"]).run().ok();
    until("the model ConfigMap is gone", || {
        let left = going.kubectl(["get", "configmap", "models", "--ignore-not-found", "-o", "name"]).run().ok();
        if left.stdout.is_empty() { Ok(()) } else { Err(left) }
    });
}

fn remove(scene: &Scene<'_>, catalog: &str, entry: &str) -> Output {
    let patch = json!({"data": {entry: null}});
    scene.kubectl(["patch", "configmap", catalog, "--type=merge", "-p", &patch.to_string()]).run()
}
