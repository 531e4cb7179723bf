//! Small manifests. JSON is YAML, so kubectl reads them too.

use serde_json::{Value, json};

/// `models.yaml` with one entry for each version of `extraction`.
pub(crate) fn extraction(versions: &[&str]) -> String {
    let entry =
        |version: &&str| format!("- name: extraction\n  version: {version}\n  uri: s3://models/extraction/{version}\n");
    versions.iter().map(entry).collect()
}

/// A model ConfigMap.
pub(crate) fn catalog(name: &str, format: &str, data: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<_, _> = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"modelguard.dev/catalog": format}},
        "data": data,
    })
}

/// A model ConfigMap of format `keys`: each entry is a key.
pub(crate) fn keys(name: &str, entries: &[&str]) -> Value {
    let data: Vec<_> = entries.iter().map(|entry| (*entry, "weights")).collect();
    catalog(name, "keys", &data)
}

/// A model ConfigMap of format `yaml` that lists versions of `extraction`.
pub(crate) fn extraction_models(versions: &[&str]) -> Value {
    catalog("extraction-models", "yaml", &[("models.yaml", &extraction(versions))])
}

/// A pod template whose annotation says what it uses; an empty text leaves the annotation out.
pub(crate) fn template(app: &str, uses: &str) -> Value {
    let mut template = json!({
        "metadata": {"labels": {"app": app}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "app", "image": "registry.invalid/app:1"}],
        },
    });
    if !uses.is_empty() {
        template["metadata"]["annotations"] = json!({"modelguard.dev/uses": uses});
    }
    template
}

/// A Deployment whose pods use something.
pub(crate) fn deployment(name: &str, replicas: u32, uses: &str) -> Value {
    workload("Deployment", name, replicas, template(name, uses))
}

/// A Rollout whose pods use something. Each later version of it stops halfway: as a canary, until it is promoted.
pub(crate) fn rollout(name: &str, replicas: u32, uses: &str) -> Value {
    workload("Rollout", name, replicas, template(name, uses))
}

/// A workload of any kind that can hold, with this pod template.
pub(crate) fn workload(kind: &str, name: &str, replicas: u32, mut template: Value) -> Value {
    let api_version = match kind {
        "Pod" | "ReplicationController" => "v1",
        "Job" | "CronJob" => "batch/v1",
        "Rollout" => "argoproj.io/v1alpha1",
        _ => "apps/v1",
    };
    if matches!(kind, "Job" | "CronJob") {
        template["spec"]["restartPolicy"] = "Never".into();
    }
    let labels = template["metadata"]["labels"].clone();
    let mut metadata = json!({"name": name});
    let spec = match kind {
        "Pod" => {
            metadata["labels"] = labels;
            metadata["annotations"] = template["metadata"]["annotations"].take();
            template["spec"].take()
        }
        // A selector of its own is not allowed here.
        "Job" => json!({"template": template}),
        // Never by itself while a test runs.
        "CronJob" => json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}}),
        "DaemonSet" => json!({"selector": {"matchLabels": labels}, "template": template}),
        "ReplicationController" => json!({"replicas": replicas, "selector": labels, "template": template}),
        "Rollout" => {
            let canary = json!({"steps": [{"setWeight": 50}, {"pause": {}}]});
            json!({"replicas": replicas, "selector": {"matchLabels": labels}, "template": template,
                   "strategy": {"canary": canary}})
        }
        "StatefulSet" => {
            json!({"replicas": replicas, "serviceName": name, "selector": {"matchLabels": labels}, "template": template})
        }
        _ => json!({"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}),
    };
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})
}

/// One manifest of several objects, in this order.
pub(crate) fn manifest(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object:#}\n")).collect()
}
