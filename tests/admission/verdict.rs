//! What is judged, what is written for it, and what is said.

use crate::world::{self, entry, models};
use crate::{Bare, OWN, changed, denial, recorded};
use base64::Engine as _;
use modelguard::audit::Object;
use modelguard::event::{Event, News};
use modelguard::holder::ObjectId;
use modelguard::object::{HolderKind, Workload};
use modelguard::policy::Unread;
use modelguard::reference::Server;
use modelguard::world::LiftError;
use serde_json::{Value, json};

#[tokio::test]
async fn a_removal_that_somebody_needs_is_denied_with_their_names() {
    let bare = Bare::new();
    bare.world.with(|state| state.holders.insert(entry("v1"), world::deployment_holds()));
    let response = bare.ask("/validate", &removal()).await;
    assert_eq!(denial(&response), ("MG101", 403));
    assert_eq!(response["status"]["reason"], "Forbidden");
    assert!(response["status"]["message"].as_str().unwrap().contains("Deployment prod/extraction-api"), "{response}");
    let audit = &response["auditAnnotations"];
    assert_eq!((&audit["decision"], &audit["code"], &audit["step"]), (&"deny".into(), &"MG101".into(), &"3".into()));
    assert_eq!(audit["holders"], "Deployment prod/extraction-api (3 pods)");
    assert!(bare.has_metric(
        "modelguard_admission_requests_total{webhook=\"catalog\",operation=\"UPDATE\",kind=\"ConfigMap\",\
         decision=\"deny\",dry_run=\"false\"} 1"
    ));
    assert!(bare.has_metric("modelguard_admission_denials_total{reason=\"MG101\"} 1"));
    assert!(bare.has_metric("modelguard_admission_in_flight 0"));
}

#[tokio::test]
async fn a_removal_that_only_lacks_its_proof_starts_it() {
    let bare = Bare::new();
    let response = bare.ask("/validate", &removal()).await;
    assert_eq!(denial(&response).0, "MG103");
    let settled = bare.world.with(|state| state.settled.clone());
    assert_eq!(settled, [(models(), [entry("v1")].into())]);
}

#[tokio::test]
async fn a_refused_removal_is_announced_in_the_words_of_the_answer() {
    let bare = Bare::new();
    bare.world.with(|state| state.holders.insert(entry("v1"), world::deployment_holds()));
    let mut deletion = removal();
    let request = &mut deletion["request"];
    (request["operation"], request["object"], request["name"]) = ("DELETE".into(), Value::Null, "".into());
    for (review, code) in [(removal(), "MG101"), (deletion, "MG106")] {
        let response = bare.ask("/validate", &review).await;
        assert_eq!(denial(&response).0, code);
        let expected = Event {
            object: Object::config_map(&models()),
            uid: Some("6e0c1f3e-8a0b-4f0e-9d10-000000000001".into()),
            news: News::Refused,
            note: response["status"]["message"].as_str().unwrap().into(),
        };
        assert_eq!(bare.world.with(|state| std::mem::take(&mut state.events)), [expected]);
    }
}

#[tokio::test]
async fn what_is_no_refused_removal_is_not_announced() {
    let bare = Bare::new();
    bare.world.with(|state| state.holders.insert(entry("v1"), world::deployment_holds()));
    let mut rehearsal = removal();
    rehearsal["request"]["dryRun"] = true.into();
    assert_eq!(denial(&bare.ask("/validate", &rehearsal).await).0, "MG101");
    let invalid = changed("config-map-create", "/object/metadata/labels", json!({"modelguard.dev/catalog": "xml"}));
    assert_eq!(denial(&bare.ask("/validate", &invalid).await).0, "MG104");
    bare.world.with(|state| state.catalogs.clear());
    assert_eq!(denial(&bare.ask("/validate", &recorded("deployment-create")).await).0, "MG202");
    assert_eq!(bare.world.with(|state| std::mem::take(&mut state.events)), []);
}

#[tokio::test]
async fn the_answer_about_ten_thousand_entries_is_short() {
    let entries: Vec<_> = (0..10_000).map(|number| format!("{number:080}")).collect();
    let mut review = removal();
    let request = &mut review["request"];
    request["operation"] = "DELETE".into();
    request["object"] = Value::Null;
    request["oldObject"]["metadata"]["labels"]["modelguard.dev/catalog"] = "keys".into();
    request["oldObject"]["data"] = entries.iter().map(|entry| (entry.clone(), Value::from("x"))).collect();
    for (code, held) in [("MG103", false), ("MG106", true)] {
        let bare = Bare::new();
        if held {
            let hold = |name: &String| (entry(name), world::deployment_holds());
            bare.world.with(|state| state.holders = entries.iter().map(hold).collect());
        }
        let response = bare.ask("/validate", &review).await;
        assert_eq!(denial(&response).0, code);
        let encoded = response.to_string().len();
        assert!(encoded < 32 << 10, "{code}: {encoded} bytes");
        let causes = response["status"]["details"]["causes"].as_array().unwrap();
        assert_eq!(causes.len(), 22, "the code, twenty entries and what else there is");
        assert_eq!(causes[1]["field"], entries[0]);
        assert_eq!(causes[21]["message"], "and 9980 more");
    }
}

#[tokio::test]
async fn a_dry_run_starts_no_proof() {
    let bare = Bare::new();
    let mut review = removal();
    review["request"]["dryRun"] = true.into();
    let response = bare.ask("/validate", &review).await;
    assert_eq!(denial(&response).0, "MG103");
    assert!(bare.world.with(|state| state.settled.is_empty()));
}

#[tokio::test]
async fn an_item_of_a_deletecollection_is_named_by_its_object() {
    let bare = Bare::new();
    bare.world.with(|state| state.holders.insert(entry("v1"), world::deployment_holds()));
    let mut review = removal();
    let request = &mut review["request"];
    (request["operation"], request["object"], request["name"]) = ("DELETE".into(), Value::Null, "".into());
    let response = bare.ask("/validate", &review).await;
    assert_eq!(denial(&response), ("MG106", 403));
    assert!(response["status"]["message"].as_str().unwrap().contains("extraction-models"), "{response}");
    let record = &bare.records().await[0];
    assert_eq!(record["object"]["name"], "extraction-models");
}

#[tokio::test]
async fn a_422_has_no_reason_and_its_code_as_the_first_cause() {
    let bare = Bare::new();
    let review = changed("config-map-create", "/object/metadata/labels", json!({"modelguard.dev/catalog": "xml"}));
    let response = bare.ask("/validate", &review).await;
    assert_eq!(denial(&response), ("MG104", 422));
    assert!(response["status"].get("reason").is_none(), "{response}");
    assert_eq!(response["status"]["details"]["causes"][0]["field"], "MG104");
}

#[tokio::test]
async fn a_reference_to_an_idle_entry_is_allowed_once_it_is_lifted() {
    let bare = Bare::new();
    let response = bare.ask("/validate", &recorded("deployment-create")).await;
    assert_eq!(response["allowed"], true, "{response}");
    assert_eq!(response["auditAnnotations"]["decision"], "allow");
    bare.world.with(|state| {
        assert_eq!((state.lifts.len(), state.reads), (1, 1));
        assert_eq!((&state.lifts[0].catalog, &*state.lifts[0].resource_version), (&models(), "42"));
        assert!(!state.lifts[0].usage.marks(&entry("v1")));
    });
}

#[tokio::test]
async fn a_dry_run_lifts_nothing() {
    let bare = Bare::new();
    let response = bare.ask("/validate", &changed("deployment-create", "/dryRun", true)).await;
    assert_eq!(response["allowed"], true);
    assert!(bare.world.with(|state| state.lifts.is_empty()));
}

#[tokio::test]
async fn a_conflict_makes_it_read_and_decide_again() {
    let bare = Bare::new();
    bare.world.with(|state| state.lift_outcomes.extend([LiftError::Conflict, LiftError::Conflict]));
    let response = bare.ask("/validate", &recorded("deployment-create")).await;
    assert_eq!(response["allowed"], true);
    assert_eq!(bare.world.with(|state| (state.lifts.len(), state.reads)), (3, 3));
}

#[tokio::test]
async fn a_lift_that_fails_denies() {
    let bare = Bare::new();
    let unread = Unread::new("ConfigMap prod/extraction-models", "connection reset");
    bare.world.with(|state| state.lift_outcomes.push_back(unread.into()));
    let response = bare.ask("/validate", &recorded("deployment-create")).await;
    assert_eq!(denial(&response), ("MG501", 503));
    assert_eq!(response["status"]["details"]["retryAfterSeconds"], 2);
    assert!(response["status"]["message"].as_str().unwrap().contains("connection reset"));
}

#[tokio::test]
async fn a_read_that_fails_denies() {
    let bare = Bare::new();
    bare.world.with(|state| state.catalogs.insert(models(), None));
    let response = bare.ask("/validate", &recorded("deployment-create")).await;
    assert_eq!(denial(&response), ("MG501", 503));
    assert_eq!(response["status"]["reason"], "ServiceUnavailable");
    assert_eq!(response["status"]["details"]["retryAfterSeconds"], 2);
}

#[tokio::test]
async fn a_template_that_says_what_it_uses_badly_is_denied() {
    let bare = Bare::new();
    let pointer = "/object/spec/template/metadata/annotations/modelguard.dev~1uses";
    let response = bare.ask("/validate", &changed("deployment-create", pointer, "extraction-models")).await;
    assert_eq!(denial(&response), ("MG204", 422));
    assert!(response["status"].get("reason").is_none());
}

#[tokio::test]
async fn a_workload_without_a_template_is_denied() {
    let bare = Bare::new();
    let review = changed("deployment-create", "/object/spec", json!({"replicas": 1}));
    assert_eq!(denial(&bare.ask("/validate", &review).await), ("MG204", 422));
}

#[tokio::test]
async fn the_deletion_of_a_workload_is_allowed_unseen() {
    let bare = Bare::new();
    let mut review = changed("deployment-create", "/operation", "DELETE");
    review["request"]["oldObject"] = review["request"]["object"].take();
    assert_eq!(bare.ask("/validate", &review).await["allowed"], true);
    assert_eq!(bare.world.with(|state| state.reads), 0);
}

/// An update of a Pod through one of its subresources.
fn pod_update(sub_resource: &str, old: Value, new: Value) -> Value {
    let mut review = recorded("deployment-create");
    let request = &mut review["request"];
    request["kind"] = json!({"group": "", "version": "v1", "kind": "Pod"});
    request["resource"] = json!({"group": "", "version": "v1", "resource": "pods"});
    request["subResource"] = sub_resource.into();
    request["operation"] = "UPDATE".into();
    (request["oldObject"], request["object"]) = (old, new);
    review
}

#[tokio::test]
async fn a_rollout_is_judged_by_its_template() {
    for (uses, verdict) in [("extraction-models:v2", None), ("extraction-models:v0", Some(("MG201", 403)))] {
        let pointer = "/object/spec/template/metadata/annotations/modelguard.dev~1uses";
        let mut review = changed("deployment-create", pointer, uses);
        let request = &mut review["request"];
        request["kind"] = json!({"group": "argoproj.io", "version": "v1alpha1", "kind": "Rollout"});
        request["resource"] = json!({"group": "argoproj.io", "version": "v1alpha1", "resource": "rollouts"});
        request["object"]["status"] = json!({"observedGeneration": "1", "stableRS": "5f7d9"});
        let response = Bare::new().ask("/validate", &review).await;
        assert_eq!(response["allowed"], verdict.is_none(), "{response}");
        assert_eq!(verdict, verdict.map(|_| denial(&response)));
    }
}

#[tokio::test]
async fn an_ephemeral_container_that_needs_an_entry_is_judged() {
    let pod = |containers: Value| json!({"metadata": {"name": "api"}, "spec": {"containers": [], "ephemeralContainers": containers}});
    let key = json!({"name": "extraction-models", "key": "v3"});
    let env = json!([{"name": "debug", "env": [{"name": "M", "valueFrom": {"configMapKeyRef": key}}]}]);
    let review = pod_update("ephemeralcontainers", pod(json!([])), pod(env));
    let response = Bare::new().ask("/validate", &review).await;
    assert_eq!(denial(&response), ("MG201", 403));
}

/// A write to the status of a running Pod that uses v2, which leaves it in `phase` and using what `uses` says.
fn status_update(uses: &str, phase: &str) -> Value {
    let pod = |uses: &str, phase: &str| {
        json!({
            "metadata": {"name": "api", "annotations": {"modelguard.dev/uses": uses}},
            "spec": {"containers": []},
            "status": {"phase": phase},
        })
    };
    pod_update("status", pod("extraction-models:v2", "Running"), pod(uses, phase))
}

#[tokio::test]
async fn a_write_to_a_pods_status_that_names_a_missing_entry_is_denied() {
    let response = Bare::new().ask("/validate", &status_update("extraction-models:v0", "Running")).await;
    assert_eq!(denial(&response), ("MG201", 403));
}

#[tokio::test]
async fn a_write_to_a_pods_status_that_names_an_idle_entry_lifts_it() {
    let bare = Bare::new();
    let response = bare.ask("/validate", &status_update("extraction-models:v1", "Running")).await;
    assert_eq!(response["allowed"], true, "{response}");
    bare.world.with(|state| {
        assert_eq!(state.lifts.len(), 1);
        assert!(!state.lifts[0].usage.marks(&entry("v1")));
    });
}

#[tokio::test]
async fn a_write_to_a_pods_status_that_adds_nothing_needs_no_look() {
    for review in [status_update("extraction-models:v2", "Pending"), status_update("extraction-models:v0", "Succeeded")]
    {
        let bare = Bare::new();
        bare.world.hang(true);
        assert_eq!(bare.ask("/validate", &review).await["allowed"], true);
    }
}

// === scaling up from zero ===

fn replica_set(uses: &str) -> Workload {
    let json = json!({
        "metadata": {"name": "extraction-api-7c9f", "namespace": "prod"},
        "spec": {"replicas": 0, "template": {
            "metadata": {"annotations": {"modelguard.dev/uses": uses}},
            "spec": {"containers": []},
        }},
    });
    Workload::parse(&json.to_string()).unwrap()
}

async fn scale_up(found: Option<Workload>) -> (Bare, Value) {
    let bare = Bare::new();
    let id = ObjectId { kind: HolderKind::ReplicaSet, namespace: "prod".into(), name: "extraction-api-7c9f".into() };
    bare.world.with(|state| state.workloads.extend(found.map(|workload| (id, workload))));
    let response = bare.ask("/validate", &recorded("replica-set-scale")).await;
    (bare, response)
}

#[tokio::test]
async fn scaling_up_from_zero_lifts_what_the_template_needs() {
    let (bare, response) = scale_up(Some(replica_set("extraction-models:v1"))).await;
    assert_eq!(response["allowed"], true, "{response}");
    assert_eq!(bare.world.with(|state| state.lifts.len()), 1);
}

#[tokio::test]
async fn scaling_up_what_needs_a_missing_entry_is_denied() {
    let (_, response) = scale_up(Some(replica_set("extraction-models:v0"))).await;
    assert_eq!(denial(&response), ("MG201", 403));
}

#[tokio::test]
async fn scaling_up_what_is_gone_is_allowed() {
    let (bare, response) = scale_up(None).await;
    assert_eq!(response["allowed"], true);
    assert_eq!(bare.world.with(|state| state.reads), 0);
}

#[tokio::test]
async fn other_changes_of_scale_need_no_look() {
    for (old, new) in
        [(json!({"replicas": 1}), json!({"replicas": 2})), (json!({"replicas": 2}), json!({})), (json!({}), json!({}))]
    {
        let bare = Bare::new();
        let mut review = recorded("replica-set-scale");
        (review["request"]["oldObject"]["spec"], review["request"]["object"]["spec"]) = (old, new);
        bare.world.hang(true);
        assert_eq!(bare.ask("/validate", &review).await["allowed"], true);
    }
}

// === servers ===

/// A Deployment with a ready pod that serves v1.
fn server(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "prod"},
        "spec": {"replicas": 1, "template": {
            "metadata": {"annotations": {"modelguard.dev/serves": "extraction-models:v1"}},
            "spec": {"containers": []},
        }},
        "status": {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1},
    })
}

/// A world in which v1 is in use, and served by these.
fn served_by(names: &[&str]) -> Bare {
    let bare = Bare::new();
    bare.world.with(|state| {
        state.holders.insert(entry("v1"), world::deployment_holds());
        for name in names {
            let workload = Workload::parse(&server(name).to_string()).unwrap();
            state.servers.extend(Server::of(HolderKind::Deployment, &workload));
            let id = ObjectId { kind: HolderKind::Deployment, namespace: "prod".into(), name: (*name).into() };
            state.workloads.insert(id, workload);
        }
    });
    bare
}

fn deletion_of(name: &str) -> Value {
    let mut review = changed("deployment-create", "/operation", "DELETE");
    review["request"]["name"] = name.into();
    review["request"]["object"].take();
    review["request"]["oldObject"] = server("server-a");
    review
}

fn scale_to(replicas: Value) -> Value {
    let mut review = changed("replica-set-scale", "/resource/resource", "deployments");
    review["request"]["name"] = "server-a".into();
    review["request"]["oldObject"]["spec"] = json!({"replicas": 1});
    review["request"]["object"]["spec"] = replicas;
    review
}

#[tokio::test]
async fn the_last_server_of_an_entry_in_use_is_kept() {
    let bare = served_by(&["server-a"]);
    // The items of a deletecollection are named by their object alone.
    for review in [deletion_of("server-a"), deletion_of(""), scale_to(json!({}))] {
        let response = bare.ask("/validate", &review).await;
        assert_eq!(denial(&response), ("MG301", 403));
        let message = response["status"]["message"].as_str().unwrap();
        assert!(
            message.starts_with("[MG301] Deployment prod/server-a: it is the last ready server of entry v1"),
            "{message}"
        );
        assert_eq!(response["status"]["reason"], "Forbidden");
    }
    assert_eq!(bare.world.with(|state| state.lifts.len()), 0);
}

#[tokio::test]
async fn a_departure_is_recorded_before_it_is_allowed() {
    for review in [deletion_of("server-a"), scale_to(json!({"replicas": 0}))] {
        let bare = served_by(&["server-a", "server-b"]);
        bare.world.with(|state| state.lift_outcomes.push_back(LiftError::Conflict));
        assert_eq!(bare.ask("/validate", &review).await["allowed"], true);
        let (lifts, reads) = bare.world.with(|state| (state.lifts.clone(), state.reads));
        assert_eq!((lifts.len(), reads), (2, 2), "after a conflict it is read again");
        let id = ObjectId { kind: HolderKind::Deployment, namespace: "prod".into(), name: "server-a".into() };
        assert!(lifts.iter().all(|lift| lift.usage.departs(&id)), "{lifts:?}");
    }
}

#[tokio::test]
async fn what_is_not_scaled_to_zero_needs_no_look() {
    let bare = served_by(&["server-a"]);
    bare.world.hang(true);
    assert_eq!(bare.ask("/validate", &scale_to(json!({"replicas": 2}))).await["allowed"], true);
    let mut up = scale_to(json!({"replicas": 1}));
    up["request"]["oldObject"]["spec"] = json!({});
    assert_eq!(bare.ask("/validate", &up).await["allowed"], true);
}

// === the mutating webhook ===

fn patched(review: &Value, response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch", "{response}");
    let patch = base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut object = review["request"]["object"].clone();
    json_patch::patch(&mut object, &patch).unwrap();
    object
}

#[tokio::test]
async fn a_new_catalog_gets_its_first_revision() {
    let bare = Bare::new();
    let review = recorded("config-map-create");
    let response = bare.ask("/mutate", &review).await;
    assert_eq!(response["allowed"], true);
    let object = patched(&review, &response);
    assert_eq!(object["metadata"]["annotations"], json!({"modelguard.dev/revision": "1"}));
    assert_eq!(object["data"], review["request"]["object"]["data"]);
    assert_eq!(bare.ask("/mutate", &review).await, response, "asked again, it says the same");
}

#[tokio::test]
async fn what_is_forged_is_taken_away() {
    let bare = Bare::new();
    let annotations = json!({"modelguard.dev/usage": "{}", "a/b": "c"});
    let review = changed(
        "config-map-create",
        "/object/metadata",
        json!({
            "name": "extraction-models", "labels": {"modelguard.dev/catalog": "keys"}, "annotations": annotations,
        }),
    );
    let object = patched(&review, &bare.ask("/mutate", &review).await);
    assert_eq!(object["metadata"]["annotations"], json!({"modelguard.dev/revision": "1", "a/b": "c"}));
}

#[tokio::test]
async fn what_needs_no_change_gets_no_patch() {
    let bare = Bare::new();
    let mut review = recorded("config-map-remove");
    review["request"]["object"] = review["request"]["oldObject"].clone();
    let response = bare.ask("/mutate", &review).await;
    assert_eq!(response["allowed"], true);
    assert!(response.get("patch").is_none() && response.get("patchType").is_none(), "{response}");
}

#[tokio::test]
async fn what_the_mutating_webhook_made_passes_the_validating_one() {
    let bare = Bare::new();
    let mut review = recorded("config-map-create");
    assert_eq!(denial(&bare.ask("/validate", &review).await).0, "MG107", "unmutated");
    let response = bare.ask("/mutate", &review).await;
    review["request"]["object"] = patched(&review, &response);
    assert_eq!(bare.ask("/validate", &review).await["allowed"], true);
}

// === around it ===

#[tokio::test]
async fn a_defect_denies() {
    let bare = Bare::new();
    bare.world.with(|state| state.defect = true);
    let response = bare.ask("/validate", &removal()).await;
    assert_eq!(denial(&response), ("MG501", 500));
    bare.world.with(|state| state.defect = false);
    assert_eq!(denial(&bare.ask("/validate", &removal()).await).0, "MG103");
}

#[tokio::test]
async fn every_decision_is_recorded_without_data() {
    let bare = Bare::new();
    bare.world.with(|state| state.holders.insert(entry("v1"), world::deployment_holds()));
    bare.ask("/validate", &removal()).await;
    bare.ask("/validate", &changed("deployment-create", "/userInfo/username", OWN)).await;
    bare.ask("/mutate", &changed("config-map-create", "/dryRun", true)).await;
    let records = bare.records().await;
    let [removal, deployment, revision] = records.as_slice() else { panic!("{records:?}") };
    let mut removal = removal.clone();
    assert!(removal["ts"].take().as_str().unwrap().ends_with('Z'));
    assert!(removal["latency_us"].take().is_u64());
    let digests = removal["digests"].take();
    assert!(digests["old"] != digests["new"] && digests["old"].as_str().unwrap().len() == 64, "{digests}");
    assert_eq!(
        removal,
        json!({
            "schema": "modelguard.dev/decision/v1", "ts": null, "id": "0b9f0a52-6c5e-4c38-9d2c-3f2f2a5f0002",
            "webhook": "catalog", "operation": "UPDATE", "subresource": "", "dry_run": false,
            "object": {"group": "", "version": "v1", "kind": "ConfigMap", "namespace": "prod", "name": "extraction-models",
                       "uid": "6e0c1f3e-8a0b-4f0e-9d10-000000000001", "resource_version": "42"},
            "user": "ci", "allowed": false, "status": 403, "code": "MG101", "enforcement": "Deny", "step": 3,
            "entries": {"removed": ["v1"], "replaced": [], "added": []}, "entries_total": 1,
            "holders": [{"kind": "Deployment", "namespace": "prod", "name": "extraction-api", "pods": 3}],
            "holders_total": 1, "retry_after_s": null, "digests": null, "latency_us": null,
        })
    );
    assert_eq!(
        (&deployment["allowed"], &deployment["status"], &deployment["user"]),
        (&true.into(), &200.into(), &OWN.into())
    );
    assert_eq!(deployment["digests"], json!({"old": null, "new": null}));
    assert_eq!((&revision["webhook"], &revision["dry_run"]), (&"revision".into(), &true.into()));
    assert_eq!((&revision["digests"]["old"], revision["digests"]["new"].is_string()), (&Value::Null, true));
    assert!(!serde_json::to_string(&records).unwrap().contains("s3://"));
}

/// The permission is looked up by everything that the API server knows of the requester.
#[tokio::test]
async fn break_glass_is_for_whoever_has_the_permission() {
    let bare = Bare::new();
    bare.world.with(|state| state.holders.insert(entry("v1"), world::deployment_holds()));
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(30);
    let mut review = removal();
    let annotations = &mut review["request"]["oldObject"]["metadata"]["annotations"];
    annotations["modelguard.dev/break-glass"] = format!("{until} on fire").into();
    review["request"]["operation"] = "DELETE".into();
    review["request"]["object"] = Value::Null;
    assert_eq!(denial(&bare.ask("/validate", &review).await), ("MG502", 403));

    review["request"]["userInfo"]["groups"] = json!(["firefighters"]);
    let response = bare.ask("/validate", &review).await;
    assert_eq!(response["allowed"], true, "{response}");
    assert!(response["warnings"][0].as_str().unwrap().contains("[MG106]"), "{response}");
    let records = bare.records().await;
    let passed = &records[1];
    assert_eq!((&passed["enforcement"], &passed["reason"]), (&"BreakGlass".into(), &"on fire".into()), "{passed}");
}

/// The removal of `v1`, which the stored object does not say is Idle.
fn removal() -> Value {
    recorded("config-map-remove")
}
