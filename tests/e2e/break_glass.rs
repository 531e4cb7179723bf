//! Break-glass: who has the permission passes the rules for an hour at most, and everybody can see it afterwards.

use crate::scene::{Scene, Setup, Test, own, shared};
use crate::support::builders::{deployment, keys, template, workload};
use crate::support::kubectl::Tool;
use crate::support::namespace::{Namespace, timeout};
use crate::support::wait::until;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The metric that counts it.
const USED: &str = "modelguard_break_glass_total";

pub(crate) fn tests() -> Vec<Test> {
    vec![
        shared("break_glass::whoever_may_passes_and_is_recorded", whoever_may_passes_and_is_recorded),
        shared("break_glass::whoever_may_not_neither_sets_nor_uses_it", whoever_may_not_neither_sets_nor_uses_it),
        shared("break_glass::it_is_for_an_hour_at_most", it_is_for_an_hour_at_most),
        shared("break_glass::a_deletion_goes_by_what_is_stored", a_deletion_goes_by_what_is_stored),
        shared("break_glass::a_workload_passes_too", a_workload_passes_too),
        // It deletes a guarded namespace.
        own("break_glass::it_is_one_for_all", Setup::default(), it_is_one_for_all),
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
    assert_eq!(scene.get("configmap", "models")["data"], json!({"v2": "weights"}));
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
    let said = until("it is an Event of the ConfigMap", || {
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
    as_dev(set(scene, "models", 30)).run().denied("MG502").says("does not have");
    scene.create_object(deployment("other", 0, "").to_string()).ok();
    scene.kubectl(["create", "role", "status", "--verb=patch", "--resource=deployments/status"]).run().ok();
    scene.kubectl(["create", "rolebinding", "dev-status", "--role=status", "--user=dev"]).run().ok();
    let said = json!({"metadata": {"annotations": {"modelguard.dev/break-glass": grant(30)}}}).to_string();
    for subresource in [&[][..], &["--subresource=status"]] {
        let patch = scene.kubectl(["patch", "deployment", "other", "--type=merge", "-p", &said]);
        as_dev(patch.args(subresource.iter().copied())).run().denied("MG502").says("does not have");
    }
    set(scene, "models", 30).run().ok();
    as_dev(removal(scene)).run().denied("MG502").says("It was to pass: [MG101] models: entry v1 is still used by");
    // What needs no break-glass needs no permission either.
    as_dev(scene.kubectl(["label", "configmap", "models", "team=x"])).run().ok();

    let role = ["create", "rolebinding", "dev-override", "--clusterrole=modelguard-override", "--user=dev"];
    scene.kubectl(role).run().ok();
    until("the permission counts", || as_dev(removal(scene)).succeed().map(drop));
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
    app["metadata"]["annotations"] = json!({"modelguard.dev/break-glass": grant(30)});
    scene.create_object(app.to_string()).ok().says("[MG201]");
}

/// A request that a rule denies, and the object on which break-glass for it stands.
struct Way<'a> {
    on: [&'a str; 2],
    code: &'a str,
    request: Tool,
}

/// Whatever the rule and the request, it is the same permission, the same hour, and the same record.
fn it_is_one_for_all(scene: &Scene<'_>) {
    let shared = Namespace::create(&scene.at.cluster, "break_glass::shared", true);
    let uses = stage(scene, &shared);
    scene.create_object(deployment("users", 0, &uses).to_string()).ok();
    for (name, serves) in [("scaled", "served:v1"), ("stopped", "served:v2")] {
        let mut server = deployment(name, 1, "");
        server["spec"]["template"]["metadata"]["annotations"] = json!({"modelguard.dev/serves": serves});
        scene.create_object(server.to_string()).ok();
        scene.rolled_out(&format!("deployment/{name}"));
    }
    scene.create_object(deployment("app", 0, "").to_string()).ok();
    // At zero it needs nothing yet.
    scene.create_object(workload("ReplicaSet", "old", 0, template("old", "patched:v9")).to_string()).ok();

    let kubectl = |args: &[&str]| scene.kubectl(args.iter().copied());
    let patch = |on: [&str; 2], patch: &str| kubectl(&["patch", on[0], on[1], "--type=merge", "-p", patch]);
    let another = json!({"metadata": {"annotations": {"modelguard.dev/uses": "patched:v9"}}});
    let another = json!({"spec": {"template": another}}).to_string();
    let home = &*scene.namespace.name;
    let ways = [
        (["configmap", "patched"], "MG101", patch(["configmap", "patched"], r#"{"data":{"v1":null}}"#)),
        (["configmap", "replaced"], "MG102", patch(["configmap", "replaced"], r#"{"data":{"v1":"other"}}"#)),
        (["configmap", "opted-out"], "MG105", kubectl(&["label", "configmap", "opted-out", "modelguard.dev/catalog-"])),
        (["configmap", "deleted"], "MG106", kubectl(&["delete", "configmap", "deleted"])),
        (["deployment", "app"], "MG201", patch(["deployment", "app"], &another)),
        (["replicaset", "old"], "MG201", kubectl(&["scale", "replicaset", "old", "--replicas=1"])),
        (["deployment", "scaled"], "MG301", kubectl(&["scale", "deployment", "scaled", "--replicas=0"])),
        (["deployment", "stopped"], "MG301", kubectl(&["delete", "deployment", "stopped"])),
        (["namespace", &shared.name], "MG401", kubectl(&["delete", "namespace", &shared.name, &timeout()])),
        (["namespace", home], "MG402", kubectl(&["label", "namespace", home, "modelguard.dev/guard-"])),
    ];
    let used = || scene.at.modelguard.first().metrics().expect("modelguard answers").sum(USED, &[]);
    for (on, code, request) in ways {
        let before = used();
        passes_for_who_may(scene, &Way { on, code, request });
        assert!(used() > before, "{on:?}");
        is_recorded(scene, on[1], code);
        if ![["configmap", "deleted"], ["deployment", "stopped"], ["namespace", &shared.name]].contains(&on) {
            is_told(scene, on, code);
        }
    }
}

/// The decision log says so, and the API server's audit log.
fn is_recorded(scene: &Scene<'_>, name: &str, code: &str) {
    let record = until("the decision is on stdout", || {
        let logs = scene.at.modelguard.logs();
        let passed = logs.lines().filter(|line| line.contains(r#""enforcement":"BreakGlass""#));
        let mut records = passed.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_meant = |record: &Value| record["object"]["name"] == name && record["code"] == code;
        records.find(|record| is_meant(record) && record["dry_run"] == false).ok_or(name)
    });
    assert_eq!((&record["allowed"], &record["reason"]), (&true.into(), &"INC-1 is on fire".into()), "{record}");
    let key = format!("{}.modelguard.dev/break-glass", record["webhook"].as_str().unwrap_or_default());
    let events = scene.at.cluster.audit_events(name);
    let said = events.iter().filter_map(|event| event["annotations"][&key].as_str());
    assert!(said.into_iter().any(|said| said.ends_with("INC-1 is on fire")), "no {key} of {name}: {events:#?}");
}

/// It is an Event of the object; where that is in no namespace, in the one of such Events.
fn is_told(scene: &Scene<'_>, [kind, name]: [&str; 2], code: &str) {
    let at = if kind == "namespace" { "default" } else { &scene.namespace.name };
    until("it is an Event of the object", || {
        let seen = scene.at.cluster.kubectl(["events", "-n", at, "--for", &format!("{kind}/{name}")]).run().ok().stdout;
        let says = seen.contains("admin passed by break-glass until ") && seen.contains(&format!("[{code}]"));
        if says && seen.contains("RulesOverridden") { Ok(()) } else { Err(seen) }
    });
}

fn passes_for_who_may(scene: &Scene<'_>, Way { on: [kind, name], code, request }: &Way<'_>) {
    let set = |minutes| {
        let annotation = format!("modelguard.dev/break-glass={}", grant(minutes));
        scene.kubectl(["annotate", "--overwrite", kind, name, &annotation])
    };
    let as_dev = |tool: &Tool| tool.clone().args(["--as=dev", "--as-group=system:authenticated"]);
    until("its users are known", || request.clone().args(["--dry-run=server"]).run().denies(code));
    // The administrator of the whole cluster passes no more than others do, unless it is said so.
    request.run().denied(code);
    set(61).run().denied("MG502").says("one hour ahead is the most");
    set(-1).run().ok();
    request.run().denied(code);
    as_dev(&set(30)).run().denied("MG502").says("which the requester does not have");
    set(30).run().ok();
    as_dev(request).run().denied("MG502").says(&format!("It was to pass: [{code}]"));
    request.run().ok().says("Warning: break-glass until ").says(&format!("lets pass what modelguard denies: [{code}]"));
}

/// Catalogs in both namespaces, what uses all of them, and somebody who may do everything but override.
fn stage(scene: &Scene<'_>, shared: &Namespace<'_>) -> String {
    let own = ["patched", "replaced", "opted-out", "deleted", "served"];
    for name in own {
        scene.create_object(keys(name, &["v1", "v2"]).to_string()).ok();
    }
    let mut models = keys("models", &["v1"]);
    models["metadata"]["annotations"] = json!({"modelguard.dev/shared-with": scene.namespace.name});
    shared.create_object(models.to_string()).ok();
    let resources =
        "configmaps,namespaces,deployments.apps,deployments.apps/scale,replicasets.apps,replicasets.apps/scale";
    let role = ["--verb=get,list,watch,patch,update,delete", &format!("--resource={resources}")].map(str::to_owned);
    scene.kubectl(["create", "clusterrole", "operator"]).args(role).run().ok();
    scene.kubectl(["create", "clusterrolebinding", "dev", "--clusterrole=operator", "--user=dev"]).run().ok();
    until("dev may delete namespaces", || {
        scene.kubectl(["auth", "can-i", "delete", "namespaces", "--as=dev"]).succeed().map(drop)
    });
    let uses = own.map(|name| format!("{name}:v1")).join(", ");
    format!("{uses}, served:v2, {}/models:v1", shared.name)
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
