//! `modelguard status`: who uses an entry, whether it may be removed, and why; also as kubectl's plugin.

use crate::scene::{Scene, Test, shared};
use crate::support::builders::{catalog, deployment, keys, template, workload};
use crate::support::kubectl::Output;
use crate::support::leftovers::Dir;
use crate::support::namespace::Namespace;
use crate::support::process::{Launch, Process};
use crate::support::wait::{LONG, until};
use serde_json::{Value, json};
use std::env;
use std::fs;
use std::os::unix::fs::symlink;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        shared("status::each_entry_says_who_uses_it_and_whether_it_may_go", each_entry_says_whether_it_may_go),
        shared("status::a_denial_names_the_command_that_says_more", a_denial_names_the_command_that_says_more),
        shared("status::what_cannot_be_shown_ends_with_2", what_cannot_be_shown_ends_with_2),
        shared("status::what_is_not_as_it_should_be_is_remarked", what_is_not_as_it_should_be_is_remarked),
        shared("status::a_watch_prints_what_changes_until_ctrl_c", a_watch_prints_what_changes_until_ctrl_c),
    ]
}

fn each_entry_says_whether_it_may_go(scene: &Scene<'_>) {
    let namespace = scene.namespace.name.as_str();
    scene.create_object(keys("models", &["v1", "v2", "v3"]).to_string()).ok();
    scene.create_object(deployment("api", 2, "models:v1").to_string()).ok();
    let mut server = template("server", "");
    server["metadata"]["annotations"] = json!({"modelguard.dev/serves": "models:*"});
    scene.create_object(workload("Deployment", "server", 1, server).to_string()).ok();
    scene.kubectl(["annotate", "configmap", "models", "modelguard.dev/hold=v3=mobile clients"]).run().ok();
    scene.rolled_out("deployment/api");
    scene.rolled_out("deployment/server");
    scene.armed();
    let v2 = &entries(scene)[1];
    assert_eq!((&v2["usage"], &v2["removable"], &v2["since"]), (&"InUse".into(), &"AfterProof".into(), &Value::Null));

    // It names its revision, so it waits for Idle and then fails.
    scene.kubectl(["replace", "-f-"]).stdin(keys("models", &["v1", "v3"]).to_string()).run().failed("(Conflict)");
    let entries = until("v2 is Idle", || {
        let entries = entries(scene);
        if entries[1]["usage"] == "Idle" { Ok(entries) } else { Err(json!(entries)) }
    });
    let server =
        json!({"kind": "Deployment", "namespace": namespace, "name": "server", "ready": true, "leaving": false});
    let [v1, v2, v3] = &entries[..] else { panic!("{entries:#?}") };
    assert_eq!((&v1["entry"], &v1["usage"], &v1["removable"]), (&"v1".into(), &"InUse".into(), &"No".into()));
    let api = json!({
        "kind": "Deployment", "namespace": namespace, "name": "api", "pods": 2, "template": true, "unreadable": null,
    });
    assert_eq!((&v1["holders"], &v1["pods_total"]), (&json!([api]), &json!(2)));
    assert_eq!((&v2["removable"], &v2["servers"]), (&"Now".into(), &json!([server])));
    assert!(v2["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{v2:#}");
    assert_eq!((&v3["removable"], &v3["hold"]), (&"No".into(), &"mobile clients".into()));

    let table = answer(scene, &["models", "-n", namespace]);
    let lines: Vec<_> = lasting(&table.stdout).map(cells).collect();
    let heading = format!("ConfigMap {namespace}/models: format keys, revision 1, namespace guarded");
    assert!(lines[0][0].starts_with(&heading), "{table}");
    assert_eq!(lines[1][..3], ["ENTRY", "USAGE", "SINCE"], "{table}");
    let serves = format!("Deployment {namespace}/server (ready)");
    let uses = format!("2 pods: Deployment {namespace}/api");
    let why = "it is used: finish step 2 (roll out the app) first";
    assert_eq!(lines[2], ["v1", "InUse", "-", &uses, &serves, "no", why], "{table}");
    let since = v2["since"].as_str().unwrap_or_default();
    assert_eq!(lines[3], ["v2", "Idle", since, "-", &serves, "now", "nobody uses it, and that is proven"], "{table}");
}

/// What a denial says can be pasted, where the plugin is installed as README has it.
fn a_denial_names_the_command_that_says_more(scene: &Scene<'_>) {
    let namespace = &scene.namespace.name;
    scene.create_object(keys("models", &["v1", "v2"]).to_string()).ok();
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    let removal = ["patch", "configmap", "models", "--type=merge", r#"-p={"data":{"v1":null}}"#];
    let denied = scene.kubectl(removal).run().denied("MG101");
    let (_, command) = denied.stderr.trim_end().rsplit_once("See: kubectl ").expect("a command");
    assert_eq!(command, format!("modelguard status models -n {namespace}"));

    let folder = Dir::new().expect("a folder");
    symlink(env!("CARGO_BIN_EXE_modelguard"), folder.join("kubectl-modelguard")).expect("a link");
    let mut path = folder.path().as_os_str().to_owned();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    let plugin = |command: &str| scene.at.cluster.kubectl(command.split(' ')).env("PATH", &path).run();
    let shown = plugin(command).ok();
    let v1 = shown.stdout.lines().map(cells).find(|line| line[0] == "v1").expect("v1");
    assert_eq!((v1[3], v1[5]), (&*format!("0 pods: Deployment {namespace}/api"), "no"), "{shown}");

    let failed = plugin(&format!("modelguard status model -n {namespace}"));
    assert_eq!(failed.status.code(), Some(2), "{failed}");
    failed.says(&format!("kubectl modelguard: there is no model ConfigMap {namespace}/model: perhaps models is meant"));
    plugin("modelguard stat").failed("Usage: kubectl modelguard <COMMAND>");
}

fn what_cannot_be_shown_ends_with_2(scene: &Scene<'_>) {
    let namespace = scene.namespace.name.as_str();
    let refused = |args: &[&str], says: &str| {
        let output = scene.modelguard(["status"]).args(args.iter().copied()).run().failed(says);
        assert_eq!((output.status.code(), &*output.stdout), (Some(2), ""), "{output}");
    };
    let nothing = answer(scene, &["-n", namespace]);
    assert_eq!(nothing.stdout, format!("no model ConfigMaps in namespace {namespace}\n"));
    refused(&["models", "-n", namespace], &format!("there is no model ConfigMap {namespace}/models: "));
    let mut plain = keys("plain", &["v1"]);
    plain["metadata"]["labels"] = json!({});
    scene.create_object(plain.to_string()).ok();
    let unlabelled = format!("ConfigMap {namespace}/plain is not labelled modelguard.dev/catalog");
    refused(&["plain", "-n", namespace], &unlabelled);
    refused(&["--context", "elsewhere"], "elsewhere");

    // Somebody who may see nothing is told what.
    let token = scene.kubectl(["create", "token", "default"]);
    scene.wait_for_account();
    let kubeconfig = scene.at.cluster.kubeconfig_for(namespace, token.run().ok().stdout.trim()).expect("a file");
    refused(&["-n", namespace, "--kubeconfig", &kubeconfig.display().to_string()], "list the webhook configurations: ");
}

fn what_is_not_as_it_should_be_is_remarked(scene: &Scene<'_>) {
    let elsewhere = Namespace::create(&scene.at.cluster, "status-elsewhere", false);
    let mut shared = keys("shared", &["v1"]);
    shared["metadata"]["annotations"] = json!({"modelguard.dev/shared-with": scene.namespace.name});
    elsewhere.create_object(shared.to_string()).ok();
    elsewhere.create_object(catalog("empty", "yaml", &[("models.yaml", "[]")]).to_string()).ok();
    // The namespace of a context is where one looks who says none.
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(scene.at.cluster.kubeconfig()).expect("a file")).expect("JSON");
    config["contexts"][0]["context"]["namespace"] = elsewhere.name.as_str().into();
    let file = scene.at.cluster.dir().write("elsewhere.kubeconfig", &config.to_string()).expect("a file");
    let shown = answer(scene, &["--kubeconfig", &file.display().to_string()]);
    let expected = format!(
        "ConfigMap {0}/empty: format yaml, revision 1, namespace not guarded\n\
         ! namespace {0} lacks the label modelguard.dev/guard=enabled: what its workloads use does not count\n\
         lists nothing\n\
         \n\
         ConfigMap {0}/shared: format keys, revision 1, namespace not guarded\n\
         ! namespace {0} lacks the label modelguard.dev/guard=enabled: what its own workloads use does not count, and \
         its deletion would take this catalog from those it is shared with unasked\n\
         ENTRY",
        elsewhere.name
    );
    let lines = lasting(&shown.stdout).collect::<Vec<_>>().join("\n");
    assert!(lines.starts_with(&expected), "{expected}\n{shown}");
    let everywhere = answer(scene, &["-A", "-o", "json"]).json();
    let all = everywhere["config_maps"].as_array().expect("an array");
    let remarks = |name: &str| all.iter().find(|it| it["name"] == name && it["namespace"] == *elsewhere.name);
    assert_eq!(remarks("shared").expect("it is listed")["guarding"], "Missing");
}

fn a_watch_prints_what_changes_until_ctrl_c(scene: &Scene<'_>) {
    scene.create_object(keys("models", &["v1"]).to_string()).ok();
    let log = scene.at.cluster.dir().join(format!("{}.log", scene.namespace.name));
    let args = ["status", "models", "-n", &scene.namespace.name, "--watch", "-o", "json"];
    let watch = Process::start(Launch {
        name: "modelguard status --watch".to_owned(),
        program: env!("CARGO_BIN_EXE_modelguard").into(),
        args: args.map(str::to_owned).into(),
        env: vec![("KUBECONFIG".to_owned(), scene.at.cluster.kubeconfig().into_os_string())],
        log: log.clone(),
    });
    let watch = watch.expect("it starts");
    let removable = |count: usize| {
        until("it is printed", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut said: Vec<_> =
                lines.map(|value| value["config_maps"][0]["entries"][0]["removable"].clone()).collect();
            // What else changes is printed as well: when the namespace becomes a minute old, a remark goes.
            said.dedup();
            if said.len() >= count { Ok(said) } else { Err(text) }
        })
    };
    assert_eq!(removable(1), ["AfterProof"]);
    scene.create_object(deployment("api", 0, "models:v1").to_string()).ok();
    assert_eq!(removable(2), ["AfterProof", "No"]);
    watch.signal("INT").expect("it runs");
    assert_eq!(watch.wait(LONG).expect("it ends").code(), Some(0));
    let text = fs::read_to_string(&log).expect("a file");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.windows(2).all(|pair| pair[0] != pair[1]), "printed once each: {text}");
}

// === helpers ===

/// What `modelguard status` says: a busy API server may take longer than it waits.
fn answer(scene: &Scene<'_>, args: &[&str]) -> Output {
    until("it can look", || scene.modelguard(["status"]).args(args.iter().copied()).run().passed())
}

/// The entries of `models`, as programs get them.
fn entries(scene: &Scene<'_>) -> Vec<Value> {
    let mut value = answer(scene, &["models", "-n", &scene.namespace.name, "-o", "json"]).json();
    serde_json::from_value(value["config_maps"][0]["entries"].take()).expect("an array")
}

/// What does not hang on whether the tests have run for a minute, which is how long it takes to be sure of a namespace.
fn lasting(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter(|line| !(line.starts_with('!') && line.contains("for less than a minute")))
}

/// The cells of a line of a table.
fn cells(line: &str) -> Vec<&str> {
    line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}
