//! Break-glass: who has the permission passes the rules for an hour at most, and everybody can see it afterwards.

use crate::scene::{Scene, Test, shared};
use crate::support::builders::{deployment, keys};
use crate::support::kubectl::Tool;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// The metric that counts it.
const USED: &str = "modelguard_break_glass_total";

pub(crate) fn tests() -> Vec<Test> {
    vec![
        shared("break_glass::whoever_may_passes_and_is_recorded", whoever_may_passes_and_is_recorded),
        shared("break_glass::whoever_may_not_neither_sets_nor_uses_it", whoever_may_not_neither_sets_nor_uses_it),
        shared("break_glass::it_is_for_an_hour_at_most", it_is_for_an_hour_at_most),
        shared("break_glass::a_deletion_goes_by_what_is_stored", a_deletion_goes_by_what_is_stored),
        shared("break_glass::a_workload_passes_too", a_workload_passes_too),
    ]
}

fn whoever_may_passes_and_is_recorded(scene: &Scene<'_>) {
    in_use(scene);
    set(scene, "models", 30).run().ok();
    let used = || scene.at.modelguard.first().metrics().expect("modelguard answers").sum(USED, &[]);
    let before = used();
    let passed = removal(scene).run().ok();
    passed
        .says("Warning: break-glass until ")
        .says("lets pass what modelguard denies: [MG101] models: entry v1 is still used by");
    assert_eq!(scene.get("configmap", "models")["data"], serde_json::json!({"v2": "weights"}));
    assert!(used() > before);

    let logs = scene.at.modelguard.logs();
    let lines = logs.lines().filter(|line| line.contains(r#""enforcement":"BreakGlass""#));
    let mut lines = lines.filter(|line| line.contains(&scene.namespace.name));
    let line: Value = serde_json::from_str(lines.next_back().expect("a decision")).expect("JSON");
    assert_eq!((&line["allowed"], &line["code"]), (&true.into(), &"MG101".into()), "{line}");
    assert_eq!(line["reason"], "INC-1 is on fire", "{line}");
    let events = scene.at.cluster.audit_events(&scene.namespace.name);
    let is_removal = |event: &&Value| event["verb"] == "patch" && event["objectRef"]["name"] == "models";
    let event = events.iter().rfind(is_removal).expect("an audit event of the removal");
    let annotation = event["annotations"]["catalog.modelguard.dev/break-glass"].as_str().unwrap_or_default();
    assert!(annotation.ends_with("INC-1 is on fire"), "{event:#}");
    let said = crate::support::wait::until("it is an Event of the ConfigMap", || {
        let seen = scene.kubectl(["events", "--for", "configmap/models"]).run().ok().stdout;
        if seen.contains("RulesOverridden") { Ok(seen) } else { Err(seen) }
    });
    assert!(
        said.contains("admin passed by break-glass until ") && said.contains("(INC-1 is on fire): [MG101]"),
        "{said}"
    );
}

fn whoever_may_not_neither_sets_nor_uses_it(scene: &Scene<'_>) {
    in_use(scene);
    scene.kubectl(["create", "rolebinding", "dev", "--clusterrole=edit", "--user=dev"]).run().ok();
    let as_dev = |tool: Tool| tool.args(["--as=dev", "--as-group=system:authenticated"]);
    as_dev(set(scene, "models", 30)).run().denied("MG502").says("has not");
    set(scene, "models", 30).run().ok();
    as_dev(removal(scene)).run().denied("MG502").says("It was to pass: [MG101] models: entry v1 is still used by");
    // What needs no break-glass needs no permission either.
    as_dev(scene.kubectl(["label", "configmap", "models", "team=x"])).run().ok();

    let role = ["create", "rolebinding", "dev-override", "--clusterrole=modelguard-override", "--user=dev"];
    scene.kubectl(role).run().ok();
    crate::support::wait::until("the permission counts", || as_dev(removal(scene)).succeed().map(drop));
}

fn it_is_for_an_hour_at_most(scene: &Scene<'_>) {
    in_use(scene);
    set(scene, "models", 90).run().denied("MG502").says("one hour ahead is the most");
    scene.kubectl(["annotate", "configmap", "models", "modelguard.dev/break-glass=now!"]).run().denied("MG502");
    set(scene, "models", -1).run().ok();
    removal(scene).run().denied("MG101");
}

fn a_deletion_goes_by_what_is_stored(scene: &Scene<'_>) {
    in_use(scene);
    let deletion = scene.kubectl(["delete", "configmap", "models"]);
    deletion.run().denied("MG106");
    set(scene, "models", 30).run().ok();
    deletion.run().ok();
}

fn a_workload_passes_too(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    let mut app = deployment("late", 0, "models:v9");
    scene.create_object(app.to_string()).denied("MG201");
    app["metadata"]["annotations"] = serde_json::json!({"modelguard.dev/break-glass": grant(30)});
    scene.create_object(app.to_string()).ok().says("[MG201]");
}

// === what is there, and what is done ===

/// A catalog whose entry v1 is in use.
fn in_use(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    removal(scene).run().denied("MG101");
}

fn removal(scene: &Scene<'_>) -> Tool {
    scene.kubectl(["patch", "configmap", "models", "--type=merge", r#"-p={"data":{"v1":null}}"#])
}

fn set(scene: &Scene<'_>, config_map: &str, minutes: i64) -> Tool {
    let annotation = format!("modelguard.dev/break-glass={}", grant(minutes));
    scene.kubectl(["annotate", "--overwrite", "configmap", config_map, &annotation])
}

/// An annotation that grants until so many minutes from now.
fn grant(minutes: i64) -> String {
    let until = Timestamp::now() + SignedDuration::from_mins(minutes);
    format!("{until:.0} INC-1 is on fire")
}
