//! `modelguard history` and `modelguard diff`: which revisions of a model ConfigMap are kept, and what tells two apart.

use crate::scene::{Scene, Test, shared};
use crate::support::builders::{extraction, extraction_models};
use crate::support::kubectl::Output;
use crate::support::wait::until;
use serde_json::{Value, json};

const MODELS: &str = "extraction-models";

pub(crate) fn tests() -> Vec<Test> {
    vec![
        shared("history::every_revision_is_listed_with_what_it_changed", every_revision_is_listed),
        shared("history::what_is_gone_has_a_history", what_is_gone_has_a_history),
    ]
}

fn every_revision_is_listed(scene: &Scene<'_>) {
    scene.create_object(extraction_models(&["v1"]).to_string()).ok();
    scene.apply(extraction_models(&["v1", "v2"]).to_string()).ok();
    let mut third = extraction_models(&["v1", "v2", "v3"]);
    third["binaryData"] = json!({"notes": "AAE="});
    scene.apply(third.to_string()).ok();
    let revisions = until("the first one is kept beside it", || {
        let revisions = revisions(scene);
        if revisions.len() == 3 { Ok(revisions) } else { Err(json!(revisions)) }
    });
    let told = |it: &Value| (it["revision"].clone(), it["current"].clone(), it["entries"].clone());
    assert_eq!(told(&revisions[0]), (json!(1), json!(false), json!(["extraction@v1"])));
    assert_eq!(
        told(&revisions[2]),
        (json!(3), json!(true), json!(["extraction@v1", "extraction@v2", "extraction@v3"]))
    );
    assert_eq!(revisions[1]["changes"], json!({"added": ["extraction@v2"], "removed": [], "replaced": []}));
    assert_eq!(revisions[1]["content"]["data"]["models.yaml"], extraction(&["v1", "v2"]));
    assert_eq!(revisions[2]["content"]["binaryData"], json!({"notes": "AAE="}));

    let table = modelguard(scene, "history", &[]).ok();
    let lines: Vec<_> = table.stdout.lines().collect();
    assert!(lines[0].starts_with("REVISION   WRITTEN"), "{table}");
    let kept = revisions[0]["kept"].as_str().unwrap_or_default();
    assert!(lines[1].starts_with("1   ") && lines[1].ends_with(kept) && kept.starts_with(MODELS), "{table}");
    assert!(lines[2].contains("   2: +extraction@v2   ") && lines[2].ends_with("annotation"), "{table}");
    assert!(lines[3].contains("   3: +extraction@v3   ") && lines[3].ends_with("current"), "{table}");

    let expected = "\
+ entry extraction@v3

--- data[models.yaml] of revision 2
+++ data[models.yaml] of revision 3
@@ -4,3 +4,6 @@
 - name: extraction
   version: v2
   uri: s3://models/extraction/v2
+- name: extraction
+  version: v3
+  uri: s3://models/extraction/v3

binaryData[notes]: nothing, then 2 bytes (sha256 b413f47d13ee2fe6c845b2ee141af81de858df4ec549a58b7970bb96645bc8d2)
";
    assert_eq!(modelguard(scene, "diff", &[]).ok().stdout, expected);
    let far = modelguard(scene, "diff", &["--from=3", "--to=1", "-o=json"]).json();
    assert_eq!(far["entries"]["removed"], json!(["extraction@v2", "extraction@v3"]));
    assert_eq!((&far["from"], &far["to"]), (&json!(3), &json!(1)));
    assert_eq!(modelguard(scene, "diff", &["--to=3", "--from=3"]).ok().stdout, "revision 3 and revision 3 are equal\n");
    let unknown = modelguard(scene, "diff", &["--from=9"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown}");
    unknown.says("revision 9 is not kept: kept are 1, 2, and the current one is 3");
}

fn what_is_gone_has_a_history(scene: &Scene<'_>) {
    let never = modelguard(scene, "history", &[]);
    assert_eq!(never.status.code(), Some(2), "{never}");
    never.says(&format!("there is no model ConfigMap {}/{MODELS}, and nothing is kept of one", scene.namespace.name));
    scene.create_object(extraction_models(&["v1"]).to_string()).ok();
    scene.apply(extraction_models(&["v1", "v2"]).to_string()).ok();
    until("both are kept beside it", || {
        let of = format!("modelguard.dev/history-of={MODELS}");
        let kept = scene.kubectl(["get", "controllerrevisions", "-l", &of, "-o", "name"]).run().ok();
        if kept.stdout.lines().count() == 2 { Ok(()) } else { Err(kept) }
    });
    scene.armed();
    scene.kubectl(["delete", "configmap", MODELS]).run().ok();
    let revisions = revisions(scene);
    let listed: Vec<_> = revisions.iter().map(|it| (&it["revision"], &it["current"])).collect();
    assert_eq!(listed, [(&json!(1), &json!(false)), (&json!(2), &json!(false))]);
    let difference = modelguard(scene, "diff", &[]).ok();
    assert!(difference.stdout.starts_with("+ entry extraction@v2\n"), "{difference}");
}

/// The revisions, as programs get them.
fn revisions(scene: &Scene<'_>) -> Vec<Value> {
    let mut value = modelguard(scene, "history", &["-o", "json"]).json();
    serde_json::from_value(value["revisions"].take()).expect("an array")
}

fn modelguard(scene: &Scene<'_>, command: &str, args: &[&str]) -> Output {
    let of = [command, MODELS, "-n", &scene.namespace.name];
    scene.modelguard(of.iter().chain(args).copied()).run()
}
