use super::*;
use proptest::prelude::*;
use serde::Deserialize as _;
use serde_json::{Value, json};

/// The object of this kind, in `prod`, that has this pod template (or is it).
fn holder(kind: HolderKind, template: Value) -> Value {
    let metadata = json!({"name": "api", "namespace": "prod"});
    match kind {
        HolderKind::ControllerRevision => json!({
            "metadata": {
                "namespace": "prod",
                "ownerReferences": [{"kind": "StatefulSet", "name": "api", "controller": true}],
            },
            "data": {"spec": {"template": template}},
        }),
        HolderKind::CronJob => {
            json!({"metadata": metadata, "spec": {"jobTemplate": {"spec": {"template": template}}}})
        }
        HolderKind::Pod => {
            let mut pod = template;
            for (key, value) in metadata.as_object().unwrap() {
                pod["metadata"][key] = value.clone();
            }
            pod
        }
        _ => json!({"metadata": metadata, "spec": {"template": template}}),
    }
}

fn references(kind: HolderKind, object: Value) -> References {
    References::of(kind, &Workload::deserialize(object).unwrap())
}

/// The references of a Deployment in `prod` with this pod template.
fn of(template: Value) -> References {
    references(HolderKind::Deployment, holder(HolderKind::Deployment, template))
}

fn template(uses: &str, serves: &str, spec: Value) -> Value {
    let annotations = json!({"modelguard.dev/uses": uses, "modelguard.dev/serves": serves});
    let mut template = json!({"metadata": {"annotations": annotations}});
    template["spec"] = spec;
    template
}

/// Needs as text: `namespace/configmap:entry`, `=` before it where an annotation says so, `*` for all.
fn shown(references: &References) -> Vec<String> {
    let show = |reference: &Reference| {
        let mark = match reference.origin {
            Origin::Implicit => "",
            Origin::Uses => "=",
        };
        match &reference.need {
            Need::All => format!("{mark}{}:*", reference.catalog),
            Need::Entry(entry) => format!("{mark}{}:{entry}", reference.catalog),
        }
    };
    references.needs.iter().map(show).collect()
}

fn key_ref(key: &str) -> Value {
    json!([{"env": [{"name": "M", "valueFrom": {"configMapKeyRef": {"name": "models", "key": key}}}]}])
}

fn env_from(source: Value) -> Value {
    let mut spec = json!({"containers": [{"envFrom": [{}]}]});
    spec["containers"][0]["envFrom"][0]["configMapRef"] = source;
    spec
}

fn volume(volume: Value) -> Value {
    let mut spec = json!({"containers": [], "volumes": [{}]});
    spec["volumes"][0] = volume;
    spec
}

#[test]
fn every_way_to_refer_to_an_entry_is_found() {
    let env = |source| json!({"containers": [{"env": [{"valueFrom": source}]}]});
    let projected = |sources| volume(json!({"name": "v", "projected": {"sources": sources}}));
    for (what, spec, expected) in [
        ("nothing", json!({}), &[][..]),
        ("a key of a container", json!({"containers": key_ref("a")}), &["prod/models:a"]),
        ("a key of an init container", json!({"initContainers": key_ref("a")}), &["prod/models:a"]),
        ("a key of an ephemeral container", json!({"ephemeralContainers": key_ref("a")}), &["prod/models:a"]),
        (
            "a key of a ConfigMap that may be missing",
            env(json!({"configMapKeyRef": {"name": "models", "key": "a", "optional": true}})),
            &[],
        ),
        (
            "a key of a ConfigMap that may not",
            env(json!({"configMapKeyRef": {"name": "models", "key": "a", "optional": false}})),
            &["prod/models:a"],
        ),
        ("a key of a Secret", env(json!({"secretKeyRef": {"name": "models", "key": "a"}})), &[]),
        ("a plain value", json!({"containers": [{"env": [{"name": "M", "value": "a"}]}]}), &[]),
        ("envFrom", env_from(json!({"name": "models"})), &["prod/models:*"]),
        (
            "envFrom with a prefix",
            json!({"initContainers": [{"envFrom": [{"prefix": "P_", "configMapRef": {"name": "models"}}]}]}),
            &["prod/models:*"],
        ),
        ("envFrom that may be missing", env_from(json!({"name": "models", "optional": true})), &[]),
        ("envFrom of a Secret", json!({"containers": [{"envFrom": [{"secretRef": {"name": "models"}}]}]}), &[]),
        ("a volume", volume(json!({"configMap": {"name": "models"}})), &["prod/models:*"]),
        (
            "a volume with no items in its list",
            volume(json!({"configMap": {"name": "models", "items": []}})),
            &["prod/models:*"],
        ),
        (
            "a volume of some keys",
            volume(
                json!({"configMap": {"name": "models", "items": [{"key": "a", "path": "x"}, {"key": "b", "path": "y"}]}}),
            ),
            &["prod/models:a", "prod/models:b"],
        ),
        ("a volume that may be missing", volume(json!({"configMap": {"name": "models", "optional": true}})), &[]),
        (
            "a volume of keys that may be missing",
            volume(json!({"configMap": {"name": "models", "optional": true, "items": [{"key": "a"}]}})),
            &[],
        ),
        ("a volume of another type", volume(json!({"emptyDir": {}})), &[]),
        ("a projected volume", projected(json!([{"configMap": {"name": "models"}}])), &["prod/models:*"]),
        (
            "a projected volume of some keys",
            projected(json!([{"configMap": {"name": "models", "items": [{"key": "a"}]}}])),
            &["prod/models:a"],
        ),
        (
            "a projected volume that may be missing",
            projected(json!([{"configMap": {"name": "models", "optional": true}}])),
            &[],
        ),
        (
            "a projected volume of several sources",
            projected(
                json!([{"secret": {"name": "s"}}, {"configMap": {"name": "m1"}}, {"configMap": {"name": "m2", "items": [{"key": "a"}]}}]),
            ),
            &["prod/m1:*", "prod/m2:a"],
        ),
        (
            "a volume of which single files are mounted",
            json!({"containers": [{"volumeMounts": [{"name": "v", "subPath": "a"}]}], "volumes": [{"name": "v", "configMap": {"name": "models"}}]}),
            &["prod/models:*"],
        ),
        ("the same key twice", json!({"containers": key_ref("a"), "initContainers": key_ref("a")}), &["prod/models:a"]),
        (
            "a key and all",
            json!({"containers": key_ref("a"), "volumes": [{"configMap": {"name": "models"}}]}),
            &["prod/models:*", "prod/models:a"],
        ),
    ] {
        let references = of(template("", "", spec));
        assert_eq!(shown(&references), expected, "{what}");
        assert_eq!(references.unreadable.as_deref(), None, "{what}");
    }
}

#[test]
fn the_annotation_adds_to_what_the_spec_says() {
    let both = of(template("models:a, shared/models:b", "", json!({"containers": key_ref("a")})));
    assert_eq!(shown(&both), ["prod/models:a", "=prod/models:a", "=shared/models:b"]);
}

#[test]
fn what_the_cluster_puts_into_every_pod_is_a_reference_only_where_an_annotation_says_so() {
    for name in ["kube-root-ca.crt", "openshift-service-ca.crt"] {
        let source = json!({"configMap": {"name": name, "items": [{"key": "ca.crt", "path": "ca.crt"}]}});
        let token = json!({"serviceAccountToken": {"path": "token"}});
        let spec = || volume(json!({"name": "kube-api-access-x", "projected": {"sources": [token, source]}}));
        assert!(of(template("", "", spec())).is_empty(), "{name}");
        assert!(of(template("", "", volume(json!({"configMap": {"name": name}})))).is_empty(), "{name}");
        assert!(of(template("", "", env_from(json!({"name": name})))).is_empty(), "{name}");
        let uses = format!("{name}:ca.crt");
        assert_eq!(shown(&of(template(&uses, "", spec()))), [format!("=prod/{uses}")]);
    }
    let alike = volume(json!({"configMap": {"name": "kube-root-ca.crt.models"}}));
    assert_eq!(shown(&of(template("", "", alike))), ["prod/kube-root-ca.crt.models:*"]);
}

#[test]
fn every_kind_of_holder_is_read_where_its_pod_template_is() {
    for kind in HolderKind::ALL {
        let template = template("models:b", "", json!({"containers": key_ref("a")}));
        let references = references(kind, holder(kind, template));
        assert_eq!(shown(&references), ["prod/models:a", "=prod/models:b"], "{kind}");
    }
}

#[test]
fn annotations_count_on_the_pod_template_and_nowhere_else() {
    let annotated = json!({"annotations": {"modelguard.dev/uses": "models:a"}});
    for kind in HolderKind::ALL {
        let mut object = holder(kind, json!({"metadata": {}, "spec": {}}));
        object["metadata"]["annotations"] = annotated["annotations"].clone();
        let expected: &[&str] = match kind {
            HolderKind::Pod => &["=prod/models:a"],
            _ => &[],
        };
        assert_eq!(shown(&references(kind, object)), expected, "{kind}");
    }
    let object = json!({
        "metadata": {"namespace": "prod"},
        "spec": {"jobTemplate": {"metadata": annotated, "spec": {"template": {"spec": {}}}}},
    });
    assert!(references(HolderKind::CronJob, object).is_empty());
}

#[test]
fn what_can_start_no_pod_needs_nothing() {
    let needy = || template("models:b, what is this", "", json!({"containers": key_ref("a")}));
    let done = json!({"conditions": [{"type": "Complete", "status": "True"}]});
    for (what, kind, pointer, value) in [
        ("a ReplicaSet at zero", HolderKind::ReplicaSet, "/spec/replicas", json!(0)),
        ("a Job that is complete", HolderKind::Job, "/status", done),
        ("a Pod that is done", HolderKind::Pod, "/status", json!({"phase": "Succeeded"})),
        (
            "a revision of a DaemonSet",
            HolderKind::ControllerRevision,
            "/metadata/ownerReferences/0/kind",
            json!("DaemonSet"),
        ),
    ] {
        let mut object = holder(kind, needy());
        assert!(!references(kind, object.clone()).is_empty(), "{what}");
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key] = value;
        assert!(references(kind, object).is_empty(), "{what}");
    }
}

#[test]
fn what_another_controller_keeps_in_its_revisions_is_no_problem() {
    for data in [json!(null), json!("text"), json!({"payload": [1]}), json!({"spec": {"template": 1}})] {
        let mut object = holder(HolderKind::ControllerRevision, json!({}));
        object["data"] = data;
        let unknown = references(HolderKind::ControllerRevision, object.clone());
        assert!(unknown.unreadable.as_deref().is_some(), "{object}");
        object["metadata"]["ownerReferences"][0]["kind"] = json!("DaemonSet");
        assert!(references(HolderKind::ControllerRevision, object).is_empty());
    }
}

#[test]
fn the_revision_of_a_stateful_set_is_a_patch() {
    let mut patch = template("models:b", "", json!({"containers": key_ref("a")}));
    patch["$patch"] = json!("replace");
    let object = holder(HolderKind::ControllerRevision, patch);
    let references = references(HolderKind::ControllerRevision, object);
    assert_eq!(shown(&references), ["prod/models:a", "=prod/models:b"]);
}

#[test]
fn what_a_server_takes_whole_it_does_not_need() {
    let whole = || env_from(json!({"name": "models"}));
    let mount = || volume(json!({"configMap": {"name": "models"}}));
    let item = || volume(json!({"configMap": {"name": "models", "items": [{"key": "a"}]}}));
    let key = || json!({"containers": key_ref("a")});
    for (what, serves, spec, expected) in [
        ("envFrom of what it serves whole", "models:*", whole(), &[][..]),
        ("envFrom of what it serves in part", "models:a", whole(), &[]),
        ("a mount of what it serves whole", "models:*", mount(), &[]),
        ("a mount of what it serves, its namespace written out", "prod/models:*", mount(), &[]),
        ("a mount of what another namespace has too", "shared/models:*", mount(), &["prod/models:*"]),
        ("a mount of something else", "others:*", mount(), &["prod/models:*"]),
        ("one key of what it serves", "models:*", key(), &["prod/models:a"]),
        ("one item of what it serves", "models:*", item(), &["prod/models:a"]),
    ] {
        assert_eq!(shown(&of(template("", serves, spec))), expected, "{what}");
    }
    let server = of(template("models:a", "models:*", whole()));
    assert_eq!(shown(&server), ["=prod/models:a"], "what it says that it uses");
}

#[test]
fn what_cannot_be_read_is_told_beside_what_can() {
    let long = "b".repeat(600);
    for (what, template, needs, reason) in [
        (
            "an item",
            template("models:a, models", "", json!({})),
            &["=prod/models:a"][..],
            "modelguard.dev/uses, item 2, \"models\": expected",
        ),
        ("several items", template("x, models:a, y, z", "", json!({})), &["=prod/models:a"], "(and 2 more)"),
        (
            "an item of serves",
            template("models:a", "models", json!({})),
            &["=prod/models:a"],
            "modelguard.dev/serves, item 1",
        ),
        (
            "a mount that serves may be about",
            template("", "models:", volume(json!({"configMap": {"name": "models"}}))),
            &["prod/models:*"],
            "modelguard.dev/serves, item 1",
        ),
        (
            "a key that is empty",
            template("", "", json!({"containers": key_ref("")})),
            &[],
            "ConfigMap \"models\": expected a key, but it is empty",
        ),
        (
            "a key that is too long",
            template("", "", json!({"containers": key_ref(&long)})),
            &[],
            "is longer than 512 bytes",
        ),
        (
            "a ConfigMap without a name",
            template("", "", env_from(json!({}))),
            &[],
            "expected the name of a ConfigMap, found none",
        ),
        (
            "an item without a key",
            template("", "", volume(json!({"configMap": {"name": "models", "items": [{}]}}))),
            &[],
            "but it is empty",
        ),
        ("a template without a spec", json!({}), &[], "expected spec.template.spec, found nothing"),
    ] {
        let references = of(template);
        let error = references.unreadable.as_deref().unwrap();
        assert!(error.contains(reason), "{what}: {error}");
        assert_eq!(shown(&references), needs, "{what}");
        assert!(!references.is_empty(), "{what}");
    }
}

#[test]
fn a_reason_stays_short_whatever_is_wrong() {
    let hostile = "\u{7}".repeat(100_000);
    let uses = of(template(&hostile, "", json!({})));
    let undecoded = References::unreadable(&hostile);
    for references in [uses, undecoded] {
        let reason = references.unreadable.as_deref().unwrap();
        assert!(reason.chars().count() <= LONGEST_REASON + 1, "{reason}");
    }
}

#[test]
fn of_an_object_that_does_not_decode_the_annotation_is_saved() {
    let nothing = References::unreadable("line 1: not JSON");
    assert_eq!(shown(&nothing), [""; 0]);
    assert_eq!(nothing.unreadable.as_deref(), Some("line 1: not JSON"));
    let some = References::salvage("line 1: not JSON", "prod", "models:a, ?, shared/models:b");
    assert_eq!(shown(&some), ["=prod/models:a", "=shared/models:b"]);
    assert_eq!(some.unreadable.as_deref(), Some("line 1: not JSON"));
}

/// Any JSON, made of the words that mean something in a pod spec.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "containers",
        "initContainers",
        "volumes",
        "env",
        "envFrom",
        "valueFrom",
        "configMapKeyRef",
        "configMapRef",
        "configMap",
        "projected",
        "sources",
        "items",
        "key",
        "name",
        "optional",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(8, 64, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(word.clone().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_pod_spec_is_read_or_refused_without_a_panic(spec in any_json(), uses in any::<String>()) {
        for kind in HolderKind::ALL {
            let object = holder(kind, template(&uses, &uses, spec.clone()));
            if let Ok(read) = Workload::deserialize(object) {
                References::of(kind, &read);
            }
        }
    }
}

#[test]
fn what_references_too_much_is_read_no_further() {
    let uses = |count: usize| (0..count).map(|number| format!("models-{number}:v1")).collect::<Vec<_>>().join(", ");
    let read = |count| {
        let annotations = json!({"modelguard.dev/uses": uses(count)});
        let pod = json!({"metadata": {"namespace": "prod", "annotations": annotations}, "spec": {"containers": []}});
        References::of(HolderKind::Pod, &Workload::parse(&pod.to_string()).unwrap())
    };
    let most = read(MOST);
    assert_eq!((most.needs.len(), most.unreadable), (MOST, None));
    let more = read(MOST + 1);
    assert_eq!(more.needs.len(), MOST);
    let mounting = |volumes: Vec<Value>| of(template("", "", json!({"containers": [], "volumes": volumes})));
    let keys = (0..=MOST).map(|number| json!({"key": format!("k{number}"), "path": "p"})).collect::<Vec<_>>();
    let one = mounting(vec![json!({"name": "v", "configMap": {"name": "ordinary", "items": keys}})]);
    assert_eq!((one.needs.len(), one.unreadable), (MOST + 1, None), "however many keys of one ConfigMap");
    let volume = |number: usize| json!({"name": "v", "configMap": {"name": format!("ordinary-{number}")}});
    let many = mounting((0..MOST + 2).map(volume).collect());
    assert_eq!(many.needs.len(), MOST);
    assert_eq!(many.unreadable.as_deref(), Some("expected at most 1000 ConfigMaps, found more (and 1 more)"));
    assert_eq!(more.unreadable.as_deref(), Some("expected at most 1000 entries in modelguard.dev/uses, found more"));
}
