//! What came about while nobody asked modelguard: found by the controller and by `modelguard audit`, and over once it is
//! put right.

use crate::scene::{Scene, Setup, Test, own};
use crate::support::builders::{catalog, deployment, keys};
use crate::support::kubectl::{Output, Tool};
use crate::support::wait::until;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the chart's configurations are called.
const CONFIGURATION: &str = "modelguard";

const ROLLBACK_TO: &str = "modelguard.dev/rollback-to";

pub(crate) fn tests() -> Vec<Test> {
    let setup = Setup::default().without_controllers();
    vec![
        own("findings::what_came_about_unseen", setup.clone(), what_came_about_unseen),
        own(
            "findings::what_holders_lack_comes_back_by_itself",
            setup.with("--heal"),
            what_holders_lack_comes_back_by_itself,
        ),
    ]
}

fn what_came_about_unseen(scene: &Scene<'_>) {
    let namespace = &scene.namespace.name;
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    let third = ["patch", "configmap", "models", "--type=merge", r#"-p={"data":{"v3":"weights"}}"#];
    scene.kubectl(third).run().ok();
    let nothing = audit(scene).run().ok();
    assert_eq!(nothing.stdout, "no findings\n", "{nothing}");

    let removed = scene.at.cluster.kubectl(["get", VALIDATING, CONFIGURATION, "-o", "json"]).run().json();
    scene.at.cluster.kubectl(["delete", VALIDATING, CONFIGURATION]).run().ok();
    let alteration = json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}]);
    alter(scene, &alteration);
    scene.kubectl(["patch", "configmap", "models", "--type=merge", r#"-p={"data":{"v1":null}}"#]).run().ok();
    scene.create_object(deployment("lost", 0, "gone:v1").to_string()).ok();
    scene.create_object(catalog("broken", "json", &[("models.json", "{")]).to_string()).ok();
    let broken = "cannot be read as a catalog: ";
    let expected = [
        ("CatalogInvalid", format!("ConfigMap {namespace}/broken"), broken.to_owned()),
        (
            "CatalogMissing",
            format!("Deployment {namespace}/lost"),
            format!(
                "needs model ConfigMap {namespace}/gone, which does not exist or is not labelled modelguard.dev/catalog"
            ),
        ),
        (
            "EntryMissing",
            format!("Deployment {namespace}/api"),
            format!("needs entry v1, which model ConfigMap {namespace}/models does not list"),
        ),
        (
            "WebhooksAltered",
            format!("MutatingWebhookConfiguration {CONFIGURATION}"),
            "does not protect what it should: revision.modelguard.dev is not sent UPDATE of configmaps".to_owned(),
        ),
        (
            "WebhooksMissing",
            format!("ValidatingWebhookConfiguration {CONFIGURATION}"),
            "does not exist, so that requests pass unseen".to_owned(),
        ),
    ];
    let found = audit(scene).run();
    let lines: Vec<_> = found.stdout.lines().collect();
    assert_eq!(lines.len(), 1 + expected.len(), "{found}");
    for (line, (kind, object, message)) in lines[1..].iter().zip(&expected) {
        let columns: Vec<_> = line.split("   ").map(str::trim).filter(|column| !column.is_empty()).collect();
        let [said_kind, said_object, said] = columns[..] else { panic!("{line}") };
        assert_eq!((said_kind, said_object), (*kind, object.as_str()), "{found}");
        assert!(said == message || (message == broken && said.starts_with(broken)), "{found}");
    }
    let value = findings(&audit(scene).args(["-o", "json"]).run());
    assert_eq!(value["total"], 5, "{value:#}");
    assert_eq!(value["findings"][2]["catalog"], format!("{namespace}/models"), "{value:#}");
    assert_eq!(value["findings"][2]["entry"], "v1", "{value:#}");
    counts(scene, 1);
    for (kind, object, _) in &expected {
        until("the log says so", || {
            let logs = scene.at.modelguard.logs();
            let says = |line: &str| line.contains("the audit found something") && line.contains(object.as_str());
            if logs.lines().any(|line| says(line) && line.contains(kind)) { Ok(()) } else { Err(logs) }
        });
    }

    // Beside the ConfigMap, beside who lacks it, and where Events of what is in no namespace are.
    let [mutating, validating] =
        ["mutating", "validating"].map(|kind| format!("{kind}webhookconfiguration/{CONFIGURATION}"));
    for (at, object, reason, says) in [
        (namespace.as_str(), "configmap/models", "EntryMissing", "/api needs entry v1"),
        (namespace, "deployment/api", "EntryMissing", "needs entry v1, which model ConfigMap"),
        (namespace, "deployment/lost", "CatalogMissing", "/gone, which does not exist"),
        (namespace, "configmap/broken", "CatalogInvalid", broken),
        ("default", &mutating, "WebhooksAltered", "is not sent UPDATE of configmaps"),
        ("default", &validating, "WebhooksMissing", "does not exist, so that requests pass unseen"),
    ] {
        until("it is an Event of it", || {
            let seen = scene.at.cluster.kubectl(["events", "-n", at, "--for", object]).run().ok().stdout;
            if seen.contains(reason) && seen.contains(says) { Ok(()) } else { Err(seen) }
        });
    }

    // A rollback that nobody answers is none, and is not made by the next one who writes.
    let rollback =
        |args: &[&str]| scene.modelguard(["rollback", "models", "-n", namespace]).args(args.iter().copied()).run();
    for args in [&[][..], &["--dry-run"]] {
        let output = rollback(args);
        assert_eq!(output.status.code(), Some(1), "{output}");
        assert!(
            output.stdout.contains("\nnothing is restored: the mutating webhook, which would do it, was not asked."),
            "{output}"
        );
        assert_eq!(scene.get("configmap", "models")["metadata"]["annotations"][ROLLBACK_TO], Value::Null);
    }
    scene.kubectl(["annotate", "configmap", "models", &format!("{ROLLBACK_TO}=prior")]).run().ok();
    let output = rollback(&[]);
    assert_eq!(output.status.code(), Some(1), "{output}");
    assert!(
        output.stdout.contains(&format!("kubectl annotate configmap models -n {namespace} {ROLLBACK_TO}-")),
        "{output}"
    );

    scene.kubectl(["delete", "configmap", "broken"]).run().ok();
    scene.kubectl(["delete", "deployment", "lost"]).run().ok();
    scene.kubectl(["patch", "configmap", "models", "--type=merge", r#"-p={"data":{"v1":"weights"}}"#]).run().ok();
    alter(scene, &json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE", "UPDATE"]}]));
    scene.at.cluster.kubectl(["create", "-f", "-"]).stdin(anew(removed).to_string()).run().ok();
    assert_eq!(audit(scene).run().ok().stdout, "no findings\n");
    counts(scene, 0);
    // The first who writes is modelguard itself, which proves that v2 may go.
    let second = ["patch", "configmap", "models", "--type=merge", r#"-p={"data":{"v2":null}}"#];
    scene.kubectl(second).run().ok();
    let stored = scene.get("configmap", "models");
    assert_eq!(stored["data"], json!({"v1": "weights", "v3": "weights"}));
    assert_eq!(stored["metadata"]["annotations"][ROLLBACK_TO], Value::Null);
}

/// Once break-glass is over, by which somebody may have meant it; and only until nobody needs it.
fn what_holders_lack_comes_back_by_itself(scene: &Scene<'_>) {
    scene.armed();
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    let until_when = Timestamp::now() + SignedDuration::from_mins(30);
    let grant = format!("modelguard.dev/break-glass={until_when:.0} INC-1 is on fire");
    scene.kubectl(["annotate", "configmap", "models", &grant]).run().ok();
    scene.kubectl(["patch", "configmap", "models", "--type=merge", r#"-p={"data":{"v1":null}}"#]).run().ok();
    let metric = |name: &str, labels: &[(&str, &str)]| {
        scene.at.modelguard.first().metrics().expect("modelguard answers").sum(name, labels)
    };
    let missing = || metric("modelguard_audit_findings", &[("finding", "EntryMissing")]);
    let restored = || metric("modelguard_entries_restored_total", &[]);
    until("the audit finds it", || if missing() == 1.0 { Ok(()) } else { Err(missing()) });
    assert_eq!((models(scene), restored()), ((json!({"v2": "weights"}), Value::Null, json!("2")), 0.0));

    scene.kubectl(["annotate", "configmap", "models", "modelguard.dev/break-glass-"]).run().ok();
    let back = (json!({"v1": "weights", "v2": "weights"}), json!(r#"["v1"]"#), json!("2"));
    until("it comes back", || if models(scene) == back { Ok(()) } else { Err(scene.get("configmap", "models")) });
    until("the audit finds nothing", || if missing() == 0.0 { Ok(()) } else { Err(missing()) });
    assert_eq!(restored(), 1.0);
    let line = "holders need these entries, which were gone: they were put back";
    assert!(scene.at.modelguard.logs().contains(line));
    until("it is an Event of the ConfigMap", || {
        let seen = scene.kubectl(["events", "--for", "configmap/models"]).run().ok().stdout;
        let says =
            "entry v1 was gone although workloads need it: put back from the prior revision, until nobody needs it";
        if seen.contains("EntryRestored") && seen.contains(says) { Ok(()) } else { Err(seen) }
    });
    // As anything else that is used.
    scene.kubectl(["patch", "configmap", "models", "--type=merge", r#"-p={"data":{"v1":null}}"#]).run().denied("MG101");

    scene.kubectl(["delete", "deployment", "api"]).run().ok();
    let gone = (json!({"v2": "weights"}), Value::Null, json!("2"));
    until("it goes again", || if models(scene) == gone { Ok(()) } else { Err(scene.get("configmap", "models")) });
}

/// What the model ConfigMap stores, what of it is only retained, and which revision that is.
fn models(scene: &Scene<'_>) -> (Value, Value, Value) {
    let stored = scene.get("configmap", "models");
    let annotation = |name: &str| stored["metadata"]["annotations"][format!("modelguard.dev/{name}")].clone();
    (stored["data"].clone(), annotation("retained"), annotation("revision"))
}

const VALIDATING: &str = "validatingwebhookconfiguration";

/// `modelguard audit`, as the administrator.
fn audit(scene: &Scene<'_>) -> Tool {
    scene.modelguard(["audit"])
}

/// What it printed, where it ended with 1.
fn findings(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(1), "{output}");
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"))
}

/// Waits until the controller counts so many of each kind.
fn counts(scene: &Scene<'_>, expected: u32) {
    let kinds = ["CatalogInvalid", "CatalogMissing", "EntryMissing", "WebhooksAltered", "WebhooksMissing"];
    until("the controller counts them", || {
        let metrics = scene.at.modelguard.first().metrics().expect("modelguard answers");
        let count = |kind| (kind, metrics.sum("modelguard_audit_findings", &[("finding", kind)]));
        let counts: BTreeMap<_, _> = kinds.map(count).into();
        if counts.values().all(|count| *count == f64::from(expected)) { Ok(()) } else { Err(format!("{counts:?}")) }
    });
}

fn alter(scene: &Scene<'_>, patch: &Value) {
    let patch = format!("-p={patch}");
    scene
        .at
        .cluster
        .kubectl(["patch", "mutatingwebhookconfiguration", CONFIGURATION, "--type=json", &patch])
        .run()
        .ok();
}

/// An object as it is to be created again.
fn anew(mut object: Value) -> Value {
    for field in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
        object["metadata"].as_object_mut().expect("metadata").remove(field);
    }
    object
}
