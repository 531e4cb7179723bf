use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn workload(value: Value) -> Workload {
    Workload::deserialize(value).unwrap()
}

fn owned_by(kind: &str) -> Value {
    json!([{"apiVersion": "x/v1", "kind": kind, "name": "it", "uid": "1", "controller": true}])
}

#[test]
fn the_fields_are_found_where_kubernetes_writes_them() {
    let pod = Workload::parse(
        r#"{
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "api", "namespace": "prod", "uid": "u1", "resourceVersion": "42", "generation": 3,
                "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30,
                "labels": {"app": "api"}, "annotations": {"a": "b\n"},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "2"},
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "api-1", "uid": "3", "controller": true}
                ]
            },
            "spec": {"containers": [{}], "initContainers": [{}], "ephemeralContainers": [{}], "volumes": [{}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        }"#,
    )
    .unwrap();
    assert_eq!(pod.metadata.name, "api");
    assert_eq!(pod.metadata.namespace, "prod");
    assert_eq!(pod.metadata.uid, "u1");
    assert_eq!(pod.metadata.resource_version, "42");
    assert_eq!(pod.metadata.generation, Some(3));
    assert!(pod.metadata.deletion_timestamp.is_some());
    assert_eq!(pod.metadata.annotations.get("a"), Some("b\n"));
    let owner = pod.controller().unwrap();
    assert_eq!((&*owner.kind, &*owner.name), ("ReplicaSet", "api-1"));
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.all_containers().count(), 3);
    assert_eq!(spec.volumes.len(), 1);
    assert_eq!(pod.status.phase, "Running");
    assert_eq!(pod.status.conditions.len(), 1);
}

#[test]
fn null_is_absent_in_every_field() {
    let json = r#"{
        "metadata": {
            "name": null, "namespace": null, "uid": null, "resourceVersion": null, "generation": null,
            "deletionTimestamp": null, "labels": null, "annotations": null, "ownerReferences": null
        },
        "spec": {
            "replicas": null, "workloadRef": null, "jobTemplate": null,
            "containers": [{"env": null, "envFrom": null}, {
                "env": [{"valueFrom": null}, {"valueFrom": {"configMapKeyRef": null}},
                        {"valueFrom": {"configMapKeyRef": {"name": null, "key": null, "optional": null}}}],
                "envFrom": [{"configMapRef": null}, {"configMapRef": {"name": null, "optional": null}}]
            }],
            "initContainers": null, "ephemeralContainers": null,
            "volumes": [{"configMap": null, "projected": null},
                        {"configMap": {"name": null, "items": null, "optional": null}},
                        {"projected": {"sources": null}}, {"projected": {"sources": [{"configMap": null}]}}],
            "template": {"metadata": null, "spec": {"containers": null, "volumes": null}}
        },
        "status": {
            "phase": null, "conditions": null, "observedGeneration": null,
            "currentRevision": null, "updateRevision": null, "stableRS": null
        },
        "data": null
    }"#;
    let read = Workload::parse(json).unwrap();
    assert!(read.controller().is_none());
    assert!(read.metadata.annotations.is_empty());
    assert_eq!(read.replicas(), 1);
    assert!(read.pod_template(HolderKind::Deployment).is_ok());
    let read = Workload::parse(r#"{"metadata": {}, "spec": null, "status": null}"#).unwrap();
    assert!(read.spec.is_none());
}

#[test]
fn a_field_of_the_wrong_type_or_written_twice_is_an_error() {
    for json in [
        r"{}",
        r"[]",
        r#"{"metadata": null}"#,
        r#"{"metadata": {"name": 1}}"#,
        r#"{"metadata": {"annotations": []}}"#,
        r#"{"metadata": {"annotations": {"a": 1}}}"#,
        r#"{"metadata": {"annotations": {"a": "1", "a": "2"}}}"#,
        r#"{"metadata": {"labels": []}}"#,
        r#"{"metadata": {"labels": {"rollouts-pod-template-hash": 1}}}"#,
        r#"{"metadata": {}, "spec": {"workloadRef": []}}"#,
        r#"{"metadata": {}, "status": {"stableRS": 1}}"#,
        r#"{"metadata": {"ownerReferences": {}}}"#,
        r#"{"metadata": {"ownerReferences": [{"controller": true}]}}"#,
        r#"{"metadata": {"ownerReferences": [{"kind": "A", "name": "a", "controller": "true"}]}}"#,
        r#"[{}]"#,
        r#"{"metadata": []}"#,
        r#"{"metadata": {}, "status": []}"#,
        r#"{"metadata": {}, "spec": []}"#,
        r#"{"metadata": {}, "spec": {"template": []}}"#,
        r#"{"metadata": {}, "spec": {"template": {"metadata": []}}}"#,
        r#"{"metadata": {}, "spec": {"template": {"spec": []}}}"#,
        r#"{"metadata": {}, "spec": {"jobTemplate": []}}"#,
        r#"{"metadata": {}, "spec": {"containers": [[]]}}"#,
        r#"{"metadata": {}, "spec": {"initContainers": [{"env": [[]]}]}}"#,
        r#"{"metadata": {}, "spec": {"initContainers": [{"env": [{"valueFrom": []}]}]}}"#,
        r#"{"metadata": {}, "spec": {"ephemeralContainers": [{"envFrom": [[]]}]}}"#,
        r#"{"metadata": {}, "spec": {"ephemeralContainers": [{"envFrom": [{"configMapRef": []}]}]}}"#,
        r#"{"metadata": {}, "spec": {"volumes": [[]]}}"#,
        r#"{"metadata": {}, "spec": {"volumes": [{"configMap": []}]}}"#,
        r#"{"metadata": {}, "spec": {"volumes": [{"configMap": {"items": [[]]}}]}}"#,
        r#"{"metadata": {}, "spec": {"volumes": [{"projected": []}]}}"#,
        r#"{"metadata": {}, "spec": {"volumes": [{"projected": {"sources": [[]]}}]}}"#,
        r#"{"metadata": {}, "spec": {"replicas": "1"}}"#,
        r#"{"metadata": {}, "spec": {"replicas": 1e999}}"#,
        r#"{"metadata": {}, "spec": {"containers": {}}}"#,
        r#"{"metadata": {}, "spec": {"containers": [null]}}"#,
        r#"{"metadata": {}, "spec": {"containers": [], "containers": []}}"#,
        r#"{"metadata": {}, "spec": {"containers": [{"env": [{"valueFrom": {"configMapKeyRef": "a"}}]}]}}"#,
        r#"{"metadata": {}, "spec": {"volumes": [{"configMap": {"optional": "no"}}]}}"#,
        r#"{"metadata": {}, "status": {"phase": {}}}"#,
        r#"{"metadata": {}, "status": {"conditions": {}}}"#,
        r#"{"metadata": {}, "spec": {}"#,
    ] {
        assert!(Workload::parse(json).is_err(), "{json}");
    }
}

#[test]
fn it_is_read_the_same_through_a_buffer() {
    // Watch events and untagged shapes arrive through serde's own buffer, where nothing can be borrowed.
    #[derive(Deserialize)]
    #[serde(tag = "type", content = "object")]
    enum Event {
        Added(Workload),
    }
    let json = r#"{"object": {"metadata": {"name": "a", "annotations": {"k": "v", "n": "1\n"}}, "data": {"spec":
        {"template": {"spec": {}}}}, "spec": {"replicas": 2}}, "type": "Added"}"#;
    let Event::Added(read) = serde_json::from_str(json).unwrap();
    assert_eq!(read.metadata.annotations.get("n"), Some("1\n"));
    assert_eq!(read.replicas(), 2);
    assert!(matches!(read.data, Some(RevisionData::Template(_))));
}

#[test]
fn each_kind_is_live_as_long_as_pods_can_come_from_it() {
    use HolderKind::*;
    let condition = |kind, status| json!({"status": {"conditions": [{"type": kind, "status": status}]}});
    let replicas = |count| json!({"spec": {"replicas": count}});
    let phase = |phase| json!({"status": {"phase": phase}});
    for (what, kind, fields, live) in [
        ("a pod that waits", Pod, phase("Pending"), true),
        ("a pod that runs", Pod, phase("Running"), true),
        ("a pod of a lost node", Pod, phase("Unknown"), true),
        ("a pod that is new", Pod, json!({}), true),
        ("a pod that is done", Pod, phase("Succeeded"), false),
        ("a pod that failed", Pod, phase("Failed"), false),
        ("a job that is new", Job, json!({}), true),
        ("a job that is suspended", Job, condition("Suspended", "True"), true),
        ("a job that is about to fail", Job, condition("FailureTarget", "True"), true),
        ("a job that is not complete", Job, condition("Complete", "False"), true),
        ("a job that is complete", Job, condition("Complete", "True"), false),
        ("a job that failed", Job, condition("Failed", "True"), false),
        ("a ReplicaSet at its default", ReplicaSet, json!({}), true),
        ("a ReplicaSet with pods", ReplicaSet, replicas(3), true),
        ("a ReplicaSet at zero", ReplicaSet, replicas(0), false),
        ("a Deployment at zero", Deployment, replicas(0), true),
        ("a StatefulSet at zero", StatefulSet, replicas(0), true),
        ("a ReplicationController at zero", ReplicationController, replicas(0), true),
        ("a DaemonSet", DaemonSet, json!({}), true),
        ("a Rollout at zero", Rollout, replicas(0), true),
        ("a Rollout that borrows its template", Rollout, json!({"spec": {"workloadRef": {"name": "a"}}}), false),
        ("the same, with an empty one", Rollout, json!({"spec": {"workloadRef": {}, "template": {}}}), false),
        ("the same, with one", Rollout, json!({"spec": {"workloadRef": {}, "template": {"spec": {}}}}), true),
        ("a CronJob that is suspended", CronJob, json!({"spec": {"suspend": true}}), true),
        ("a revision that nothing owns", ControllerRevision, json!({}), false),
    ] {
        let mut object = json!({"metadata": {}});
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        assert_eq!(workload(object.clone()).is_live(kind), live, "{what}");
        object["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(workload(object).is_live(kind), live, "{what}, being deleted");
    }
    for (owner, live) in [("StatefulSet", true), ("DaemonSet", false), ("Other", false)] {
        let revision = workload(json!({"metadata": {"ownerReferences": owned_by(owner)}}));
        assert_eq!(revision.is_live(ControllerRevision), live, "{owner}");
    }
}

#[test]
fn a_revision_is_pending_while_pods_may_come_from_it() {
    for (what, generation, status, pending) in [
        ("new", Some(1), json!({}), None),
        ("settled", Some(1), json!({"observedGeneration": 1, "currentRevision": "a", "updateRevision": "a"}), None),
        (
            "rolling out",
            Some(2),
            json!({"observedGeneration": 2, "currentRevision": "a", "updateRevision": "b"}),
            Some("a"),
        ),
        (
            "its template not yet seen",
            Some(2),
            json!({"observedGeneration": 1, "currentRevision": "a", "updateRevision": "a"}),
            Some("a"),
        ),
        ("never seen", Some(2), json!({"currentRevision": "a", "updateRevision": "a"}), Some("a")),
        ("no generation", None, json!({"currentRevision": "a", "updateRevision": "a"}), None),
        ("going nowhere yet", None, json!({"currentRevision": "a"}), Some("a")),
        ("coming from nowhere", None, json!({"updateRevision": "b"}), None),
    ] {
        let set = workload(json!({"metadata": {"generation": generation}, "status": status}));
        assert_eq!(set.pending_revision(HolderKind::StatefulSet), pending, "{what}");
    }
}

#[test]
fn a_paused_deployment_at_zero_may_wake_what_it_kept() {
    for (spec, pending) in [
        (json!({"paused": true, "replicas": 0}), Some(NEWEST_REPLICA_SET)),
        (json!({"paused": true, "replicas": 1}), None),
        (json!({"paused": true}), None),
        (json!({"replicas": 0}), None),
    ] {
        let object = workload(json!({"metadata": {}, "spec": spec}));
        assert_eq!(object.pending_revision(HolderKind::Deployment), pending, "{spec}");
        assert_eq!(object.pending_revision(HolderKind::StatefulSet), None, "{spec}");
    }
}

#[test]
fn a_rollout_may_go_back_to_what_is_stable() {
    for (what, status, pending) in [
        ("new", json!({}), None),
        ("not stable yet", json!({"stableRS": "", "currentPodHash": "a"}), None),
        ("a canary", json!({"stableRS": "a", "currentPodHash": "b", "observedGeneration": "7"}), Some("a")),
        ("promoted", json!({"stableRS": "b", "currentPodHash": "b", "observedGeneration": "5f7d9"}), Some("b")),
    ] {
        let rollout = workload(json!({"metadata": {"generation": 7}, "status": status}));
        assert_eq!(rollout.pending_revision(HolderKind::Rollout), pending, "{what}");
        assert_eq!(rollout.pending_revision(HolderKind::Deployment), None, "{what}");
    }
}

#[test]
fn a_generation_is_a_number_or_a_text() {
    let observed = |value: Value| {
        let read = Workload::deserialize(json!({"metadata": {}, "status": {"observedGeneration": value}}));
        read.map(|read| read.status.observed_generation).ok()
    };
    assert_eq!(observed(json!(7)), Some(Some(7)));
    assert_eq!(observed(json!("7")), Some(Some(7)));
    assert_eq!(observed(json!("5f7d9")), Some(None), "a hash, as Rollouts wrote it once");
    assert_eq!(observed(Value::Null), Some(None));
    assert_eq!(observed(json!({})), None);
    assert_eq!(observed(json!(1.5)), None);
}

#[test]
fn a_rollback_target_is_at_zero_and_kept_by_what_numbers_it() {
    let target = |kind: &str, replicas: i64, annotation: &str| {
        let set = workload(json!({
            "metadata": {"ownerReferences": owned_by(kind), "annotations": {annotation: "3"}},
            "spec": {"replicas": replicas},
        }));
        set.rollback_target(HolderKind::ReplicaSet).map(|it| (it.owner.kind, it.revision))
    };
    for (kind, annotation) in
        [("Deployment", "deployment.kubernetes.io/revision"), ("Rollout", "rollout.argoproj.io/revision")]
    {
        assert_eq!(target(kind, 0, annotation), Some((kind.into(), Some(3))));
        assert_eq!(target(kind, 0, "other"), Some((kind.into(), None)));
        assert_eq!(target(kind, 1, annotation), None);
        assert_eq!(target("Other", 0, annotation), None);
    }
}

#[test]
fn a_missing_template_is_named() {
    for (kind, fields, expected) in [
        (HolderKind::Pod, json!({}), "expected spec, found nothing"),
        (HolderKind::Deployment, json!({}), "expected spec, found nothing"),
        (HolderKind::Rollout, json!({"spec": {}}), "expected spec.template, found nothing"),
        (HolderKind::Job, json!({"spec": {}}), "expected spec.template, found nothing"),
        (HolderKind::Job, json!({"spec": {"template": {}}}), "expected spec.template.spec, found nothing"),
        (
            HolderKind::CronJob,
            json!({"spec": {"template": {"spec": {}}}}),
            "expected spec.jobTemplate.spec.template, found nothing",
        ),
        (HolderKind::ControllerRevision, json!({}), "expected data, found nothing"),
        (
            HolderKind::ControllerRevision,
            json!({"data": 1}),
            "expected data.spec.template: invalid type: integer `1`, expected an object",
        ),
        (
            HolderKind::ControllerRevision,
            json!({"data": {"spec": {}}}),
            "expected data.spec.template: missing field `template`",
        ),
    ] {
        let mut object = json!({"metadata": {}});
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let error = workload(object).pod_template(kind).unwrap_err();
        assert_eq!(error.to_string(), expected, "{kind}");
    }
}

#[test]
fn depth_and_size_are_errors_or_fine_but_never_a_panic() {
    let deep = "[".repeat(200_000);
    for json in [
        deep.clone(),
        format!(r#"{{"metadata": {deep}"#),
        format!(r#"{{"metadata": {{}}, "data": {deep}"#),
        format!(r#"{{"metadata": {{}}, "other": {deep}"#),
        r#"{"metadata": {}, "spec": {"template": {"spec": "#.to_owned() + &r#"{"template": {"spec": "#.repeat(100_000),
    ] {
        assert!(Workload::parse(&json).is_err());
    }
    let containers = vec![r#"{"env": [{"name": "a"}]}"#; 20_000].join(",");
    let json = format!(r#"{{"metadata": {{}}, "spec": {{"containers": [{containers}]}}}}"#);
    let count = |read: Workload| read.spec.map(|spec| spec.containers.len());
    assert_eq!(Workload::parse(&json).map(count).unwrap(), Some(20_000));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in any::<String>()) {
        let _ = Workload::parse(&text);
    }

    #[test]
    fn damaged_objects_are_read_or_refused_without_a_panic(cut in 0..400_usize, with in "[\\[\\]{}:,\"0-9a-z]{0,3}") {
        let mut json = json!({
            "metadata": {"name": "a", "annotations": {"modelguard.dev/uses": "models:a"}, "ownerReferences": owned_by("X")},
            "spec": {"template": {"spec": {"containers": [{"envFrom": [{"configMapRef": {"name": "models"}}]}]}}},
        })
        .to_string();
        let cut = cut.min(json.len());
        json.replace_range(cut..(cut + with.len()).min(json.len()), &with);
        let _ = Workload::parse(&json);
    }
}
