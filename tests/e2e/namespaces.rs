//! Namespaces: what goes with one, or leaves the guard with it.

use crate::scene::{Scene, Setup, Test, own};
use crate::support::builders::{deployment, keys};
use crate::support::kubectl::Tool;
use crate::support::namespace::Namespace;
use crate::support::wait::until;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Δ, as installations of these tests have it.
const SETTLE: SignedDuration = SignedDuration::from_secs(2);

pub(crate) fn tests() -> Vec<Test> {
    // Namespaces that come and go are changes of the epoch, which void the proofs of everybody else.
    let alone = |name: &str, body: fn(&Scene<'_>)| own(name, Setup::default(), body);
    vec![
        alone("namespaces::one_whose_catalogs_others_need_stays", one_whose_catalogs_others_need_stays),
        alone("namespaces::a_deletion_that_was_given_up_is_forgotten", a_deletion_that_was_given_up_is_forgotten),
        alone("namespaces::the_label_stays_while_workloads_hold_entries", the_label_stays_while_workloads_hold_entries),
        alone("namespaces::one_that_is_going_is_never_held_up", one_that_is_going_is_never_held_up),
    ]
}

fn one_whose_catalogs_others_need_stays(scene: &Scene<'_>) {
    let shared = sharing(scene);
    scene.create_object(app(&shared).to_string()).ok();
    until("its user is known", || deletion(&shared).args(["--dry-run=server"]).run().denies("MG401"));
    deletion(&shared)
        .run()
        .denied("MG401")
        .says("would remove model ConfigMap")
        .says("which is still used by the pod template of Deployment")
        .says("move these workloads to another catalog (step 2) first");
    // Nor does it leave the guard, after which nobody would be asked.
    let opt_out = ["label", "namespace", &shared.name, "modelguard.dev/guard-"];
    shared.kubectl(opt_out).run().denied("MG402").says("nothing would keep it from being deleted any more");
    // By whatever way that the API server has.
    let unlabelled = r#"{"metadata":{"labels":{"modelguard.dev/guard":null}}}"#;
    let by_status = ["patch", "namespace", &shared.name, "--subresource=status", "--type=merge", "-p", unlabelled];
    shared.kubectl(by_status).run().denied("MG402");
    let mut object = shared.kubectl(["get", "namespace", &shared.name, "-o", "json"]).run().json();
    object["metadata"]["labels"].as_object_mut().expect("labels").remove("modelguard.dev/guard");
    let finalize = format!("/api/v1/namespaces/{}/finalize", shared.name);
    shared.kubectl(["replace", "--raw", &finalize, "-f", "-"]).stdin(object.to_string()).run().denied("MG402");

    scene.kubectl(["delete", "deployment", "api"]).run().ok();
    until("nobody is known to use it", || deletion(&shared).args(["--dry-run=server"]).run().denies("MG103"));
    assert_eq!(mark(&shared), Value::Null, "a rehearsal writes nothing");
    // kubectl is told to wait, does, and goes on by itself.
    deletion(&shared).run().ok();
    let answers = deletions(scene, &shared);
    let first = |status: u64| answers.iter().find(|(_, it)| *it == status).map(|(at, _)| *at);
    let waited = first(200).zip(first(429)).map(|(passed, held)| passed.duration_since(held));
    assert!(waited.is_some_and(|waited| waited > SETTLE), "{waited:?}: {answers:?}");
    until("it is gone", || match shared.kubectl(["get", "namespace", &shared.name]).run() {
        gone if gone.to_string().contains("NotFound") => Ok(()),
        there => Err(there.to_string()),
    });
}

fn a_deletion_that_was_given_up_is_forgotten(scene: &Scene<'_>) {
    let shared = sharing(scene);
    scene.armed();
    until("the deletion is held", || {
        deletion(&shared).args(["--request-timeout=1s"]).run();
        let marks = ["models", "more"].map(|catalog| mark_of(&shared, catalog));
        if marks.contains(&Value::Null) { Err(format!("{marks:?}")) } else { Ok(()) }
    });
    // While it may go, nobody may come to need it; the app of its own namespace goes with it, and may.
    scene.create_object(app(&shared).to_string()).denied("MG202").says("whose namespace is about to be deleted");
    shared.create_object(deployment("own", 0, "models:v1").to_string()).ok();
    // Somebody who needs it ends that at once.
    let mut firefighter = app(&shared);
    let grant = format!("{:.0} INC-1 is on fire", Timestamp::now() + SignedDuration::from_mins(30));
    firefighter["metadata"]["annotations"] = serde_json::json!({"modelguard.dev/break-glass": grant});
    scene.create_object(firefighter.to_string()).ok();
    until("the mark is gone", || match mark(&shared) {
        Value::Null => Ok(()),
        mark => Err(mark),
    });
    deletion(&shared).run().denied("MG401");
}

fn the_label_stays_while_workloads_hold_entries(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    let name = scene.namespace.name.as_str();
    let opt_out = scene.kubectl(["label", "namespace", name, "modelguard.dev/guard-"]);
    until("its workload is known", || opt_out.clone().args(["--dry-run=server"]).run().denies("MG402"));
    opt_out
        .run()
        .denied("MG402")
        .says("its workloads would no longer be guarded")
        .says("the pod template of Deployment");
    let other_value = ["label", "--overwrite", "namespace", name, "modelguard.dev/guard=disabled"];
    scene.kubectl(other_value).run().denied("MG402");
    scene.kubectl(["label", "namespace", name, "team=x"]).run().ok();

    let until_when = format!("{:.0} INC-1 is on fire", Timestamp::now() + SignedDuration::from_mins(30));
    let grant = format!("modelguard.dev/break-glass={until_when}");
    let set = scene.kubectl(["annotate", "namespace", name, &grant]);
    scene.kubectl(["create", "clusterrole", "namer", "--verb=get,patch", "--resource=namespaces"]).run().ok();
    scene.kubectl(["create", "clusterrolebinding", "namer", "--clusterrole=namer", "--user=dev"]).run().ok();
    let dev = ["--as=dev", "--as-group=system:authenticated"];
    until("dev may patch it", || set.clone().args(dev).run().denies("MG502"));
    set.run().ok();
    opt_out.run().ok().says("break-glass until").says("[MG402]");
}

fn one_that_is_going_is_never_held_up(scene: &Scene<'_>) {
    // Its catalog is shared with nobody: its own workloads go with it.
    let own = Namespace::create(&scene.at.cluster, "namespaces::going", true);
    own.create_object(keys("models", &["v1"]).to_string()).ok();
    own.create_object(deployment("api", 1, "models:v1").to_string()).ok();
    let finalizer = r#"{"metadata":{"finalizers":["example.com/keep"]}}"#;
    own.kubectl(["patch", "configmap", "models", "--type=merge", "-p", finalizer]).run().ok();
    deletion(&own).args(["--wait=false"]).run().ok();
    until("it is going", || {
        let phase = scene.kubectl(["get", "namespace", &own.name, "-o", "jsonpath={.status.phase}"]).run().to_string();
        if phase.contains("Terminating") { Ok(()) } else { Err(phase) }
    });
    // With nobody there to ask as well.
    scene.at.modelguard.first().kill();
    deletion(&own).args(["--wait=false"]).run().ok();
    scene.at.modelguard.first().restart().expect("it starts");
    own.kubectl(["patch", "configmap", "models", "--type=merge", r#"-p={"metadata":{"finalizers":null}}"#]).run().ok();
    until("it is gone", || match scene.kubectl(["get", "namespace", &own.name]).run() {
        gone if gone.to_string().contains("NotFound") => Ok(()),
        there => Err(there.to_string()),
    });
}

// === what is there, and what is done ===

/// A guarded namespace that shares two catalogs with the scene's.
fn sharing<'a>(scene: &Scene<'a>) -> Namespace<'a> {
    let shared = Namespace::create(&scene.at.cluster, "namespaces::shared", true);
    for name in ["models", "more"] {
        let mut models = keys(name, &["v1"]);
        models["metadata"]["annotations"] = serde_json::json!({"modelguard.dev/shared-with": scene.namespace.name});
        shared.create_object(models.to_string()).ok();
    }
    shared
}

/// A Deployment that uses the first.
fn app(shared: &Namespace<'_>) -> Value {
    deployment("api", 0, &format!("{}/models:v1", shared.name))
}

fn deletion(namespace: &Namespace<'_>) -> Tool {
    namespace.kubectl(["delete", "namespace", &namespace.name])
}

/// What the first catalog says of being closed.
fn mark(shared: &Namespace<'_>) -> Value {
    mark_of(shared, "models")
}

fn mark_of(shared: &Namespace<'_>, catalog: &str) -> Value {
    let models = shared.get("configmap", catalog);
    let usage = models["metadata"]["annotations"]["modelguard.dev/usage"].as_str().unwrap_or("{}");
    serde_json::from_str::<Value>(usage).expect("JSON")["closing"].clone()
}

/// When the API server was asked to delete the namespace, and what it answered (a rehearsal with 403).
fn deletions(scene: &Scene<'_>, shared: &Namespace<'_>) -> Vec<(Timestamp, u64)> {
    let events = scene.at.cluster.audit_events(&shared.name);
    let is_meant = |event: &&Value| event["objectRef"]["resource"] == "namespaces" && event["verb"] == "delete";
    let answer = |event: &Value| {
        let at = event["requestReceivedTimestamp"].as_str().and_then(|at| at.parse().ok());
        (at.expect("a time"), event["responseStatus"]["code"].as_u64().unwrap_or_default())
    };
    events.iter().filter(is_meant).map(answer).collect()
}
