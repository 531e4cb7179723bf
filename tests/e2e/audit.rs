//! What stays behind: the API server's audit log says why it refused, as the decision log does, and that we never asked
//! for what we may not; and metrics.

use crate::scene::{Scene, Test, shared};
use crate::support::builders::{deployment, keys};
use crate::support::modelguard::IDENTITY;
use crate::support::wait::until;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that the API server asks.
const WEBHOOKS: [&str; 5] = ["catalog", "namespace", "revision", "scale", "workload"];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        shared("audit::a_denied_catalog_change", a_denied_catalog_change),
        shared("audit::a_denied_workload", a_denied_workload),
        shared("audit::the_audit_log_says_what_the_decision_log_says", the_audit_log_says_what_the_decision_log_says),
        shared("audit::promtool_finds_nothing_to_criticize", promtool_finds_nothing_to_criticize),
        shared("audit::our_rights_suffice", our_rights_suffice),
    ]
}

fn a_denied_catalog_change(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    scene.kubectl(["patch", "configmap", "models", "--type=merge", r#"-p={"data":{"v1":null}}"#]).run().denied("MG101");
    let event = denial(scene, "configmaps");
    assert_eq!(event["annotations"]["catalog.modelguard.dev/code"], "MG101", "{event:#}");
    assert!(event["responseStatus"]["message"].as_str().is_some_and(|text| text.contains("[MG101]")), "{event:#}");
}

fn a_denied_workload(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v9").to_string()).denied("MG201");
    let event = denial(scene, "deployments");
    assert_eq!(event["annotations"]["workload.modelguard.dev/code"], "MG201", "{event:#}");
}

/// Of every review of this namespace: allowed, denied, only rehearsed, of each webhook.
fn the_audit_log_says_what_the_decision_log_says(scene: &Scene<'_>) {
    every_kind_of_review(scene);
    let mut seen = BTreeSet::new();
    for event in scene.at.cluster.audit_events(&scene.namespace.name) {
        for webhook in WEBHOOKS {
            let annotations = annotations(&event, webhook);
            let Some(id) = annotations.get("id") else { continue };
            let record = until("the decision is on stdout", || record(scene, id).ok_or(id));
            assert_eq!(annotations, facts(&record), "{record:#}\n{event:#}");
            assert_eq!((&record["webhook"], &record["user"]), (&webhook.into(), &event["user"]["username"]));
            assert_eq!(record["object"]["name"], event["objectRef"]["name"], "{event:#}");
            seen.insert((webhook, annotations["decision"].clone(), record["dry_run"] == true));
        }
    }
    let both = |webhook| ["allow", "deny"].map(|decision| (webhook, decision.to_owned(), false));
    let rehearsed = [("catalog", "deny".to_owned(), true), ("revision", "allow".to_owned(), true)];
    let expected = both("catalog").into_iter().chain(both("workload")).chain(rehearsed);
    let others = [("revision", "allow", false), ("scale", "allow", false), ("namespace", "deny", true)];
    let others = others.map(|(webhook, decision, rehearsed)| (webhook, decision.to_owned(), rehearsed));
    for kind in expected.chain(others) {
        assert!(seen.contains(&kind), "no {kind:?} among {seen:?}");
    }
}

fn promtool_finds_nothing_to_criticize(scene: &Scene<'_>) {
    every_kind_of_review(scene);
    let page = scene.at.modelguard.first().metrics_page().expect("metrics");
    for webhook in WEBHOOKS {
        let sample = format!("modelguard_admission_duration_seconds_count{{webhook=\"{webhook}\"");
        assert!(page.contains(&sample), "{sample} is not in\n{page}");
    }
    let check = scene.at.cluster.tool("promtool").args(["check", "metrics"]);
    let checked = check.clone().stdin(page).run().ok();
    assert_eq!((&*checked.stdout, &*checked.stderr), ("", ""), "{checked}");
    check.stdin("# HELP a_count A gauge\n# TYPE a_count gauge\na_count 1\n").run().failed("a_count");
}

/// The API server's answers to modelguard so far, in this test's namespace and all others.
fn our_rights_suffice(scene: &Scene<'_>) {
    scene.armed();
    let events = scene.at.cluster.audit_events(IDENTITY);
    let ours: Vec<_> = events.iter().filter(|event| event["user"]["username"] == IDENTITY).collect();
    assert!(ours.iter().any(|event| event["verb"] == "patch"), "it wrote what made the removal possible");
    // A quota, or a namespace that goes, refuses what a role allows.
    let is_forbidden = |event: &&&Value| event["annotations"]["authorization.k8s.io/decision"] == "forbid";
    let refused: Vec<_> = ours.iter().filter(is_forbidden).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    // Annotations only: data of a model ConfigMap is never written by us.
    let verbs = json!(["patch", "get", "list", "watch", "create", "update"]);
    let is_usual = |event: &Value| {
        verbs.as_array().is_some_and(|verbs| verbs.contains(&event["verb"]))
            || (event["verb"] == "delete" && event["objectRef"]["resource"] == "controllerrevisions")
    };
    let strange: Vec<_> = ours.iter().filter(|event| !is_usual(event)).collect();
    assert!(strange.is_empty(), "{strange:#?}");
}

fn denial(scene: &Scene<'_>, resource: &str) -> Value {
    let events = scene.at.cluster.audit_events(&scene.namespace.name);
    let is_meant =
        |event: &&Value| event["objectRef"]["resource"] == resource && event["responseStatus"]["code"] == 403;
    events.iter().rfind(is_meant).cloned().expect("an audit event of the denial")
}

/// Asks each webhook for something that it allows, the validating ones for something that they deny, and for a rehearsal.
fn every_kind_of_review(scene: &Scene<'_>) {
    const REMOVAL: &str = r#"-p={"data":{"v1":null}}"#;
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    scene.create_object(deployment("other", 0, "models:v9").to_string()).denied("MG201");
    let removal = ["patch", "configmap", "models", "--type=merge", REMOVAL];
    scene.kubectl(removal).run().denied("MG101");
    scene.kubectl(removal).args(["--dry-run=server"]).run().denied("MG101");
    scene.create_object(deployment("scaled", 1, "").to_string()).ok();
    scene.kubectl(["scale", "deployment", "scaled", "--replicas=0"]).run().ok();
    let opt_out = ["label", "namespace", &scene.namespace.name, "modelguard.dev/guard-", "--dry-run=server"];
    until("its workload is known", || scene.kubectl(opt_out).run().denies("MG402"));
}

/// What a webhook said of a request, as it is in the audit log.
fn annotations(event: &Value, webhook: &str) -> BTreeMap<String, String> {
    let prefix = format!("{webhook}.modelguard.dev/");
    let ours = event["annotations"].as_object().into_iter().flatten();
    let ours =
        ours.filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?.to_owned(), value.as_str()?.to_owned())));
    ours.collect()
}

/// The line of the decision log with this id.
fn record(scene: &Scene<'_>, id: &str) -> Option<Value> {
    let logs = scene.at.modelguard.logs();
    let lines = logs.lines().filter(|line| line.starts_with('{') && line.contains(id));
    lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|record| record["id"] == id)
}

/// The facts of a record, as the audit log has them.
fn facts(record: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut facts = BTreeMap::new();
    facts.insert("decision", if record["allowed"] == true { "allow" } else { "deny" }.to_owned());
    for key in ["id", "enforcement", "status", "code", "step", "retry_after_s"] {
        facts.insert(key, text(&record[key]));
    }
    let entries = ["removed", "replaced", "added"].map(|how| (how, array(&record["entries"][how])));
    let entries = entries
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(how, names)| format!("{how} {}", names.iter().map(text).collect::<Vec<_>>().join(", ")));
    facts.insert("entries", entries.collect::<Vec<_>>().join("; "));
    let holder = |one: &Value| {
        let [kind, namespace, name, pods] = ["kind", "namespace", "name", "pods"].map(|key| text(&one[key]));
        format!("{kind} {namespace}/{name} ({pods} pods)")
    };
    facts.insert("holders", array(&record["holders"]).iter().map(holder).collect::<Vec<_>>().join(", "));
    let digests = ["old", "new"].map(|which| (which, &record["digests"][which]));
    let digests = digests.iter().filter(|(_, digest)| digest.is_string());
    let digests = digests.map(|(which, digest)| format!("{which} {}", text(digest)));
    facts.insert("digests", digests.collect::<Vec<_>>().join("; "));
    let said = facts.into_iter().filter(|(_, value)| !value.is_empty() && value != "null");
    said.map(|(key, value)| (key.to_owned(), value)).collect()
}
