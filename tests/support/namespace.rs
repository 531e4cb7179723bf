//! A namespace for one test.

use super::control_plane::ControlPlane;
use super::kubectl::{Output, Tool};
use super::net::random;
use super::wait::{LONG, until};
use serde_json::{Value, json};

/// A namespace with a random name, and kubectl in it.
pub(crate) struct Namespace<'a> {
    pub(crate) name: String,
    cluster: &'a ControlPlane,
}

/// The object of a namespace that is named after `test` and labelled as asked.
pub(crate) fn object(test: &str, guarded: bool) -> Value {
    // A label allows 63 characters; `::` and `_` are none of them.
    let name = test.replace("::", "-").replace('_', "-");
    let name = format!("{:.50}-{:06x}", name, random() & 0xff_ffff);
    let labels = if guarded { json!({"modelguard.dev/guard": "enabled"}) } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// `--timeout=…` of a kubectl that waits: as long as any condition gets.
pub(crate) fn timeout() -> String {
    format!("--timeout={}s", LONG.as_secs())
}

impl<'a> Namespace<'a> {
    /// Makes one.
    #[track_caller]
    pub(crate) fn create(cluster: &'a ControlPlane, test: &str, guarded: bool) -> Self {
        let object = object(test, guarded);
        cluster.kubectl(["create", "-f-"]).stdin(object.to_string()).run().ok();
        Self::of(cluster, &object)
    }

    /// One that was made before.
    pub(crate) fn of(cluster: &'a ControlPlane, object: &Value) -> Self {
        Self { name: object["metadata"]["name"].as_str().expect("a name").to_owned(), cluster }
    }

    /// `kubectl …` in it.
    pub(crate) fn kubectl<S: Into<String>>(&self, args: impl IntoIterator<Item = S>) -> Tool {
        self.cluster.kubectl(["-n", &self.name]).args(args)
    }

    /// `kubectl apply` of a manifest.
    #[track_caller]
    pub(crate) fn apply(&self, manifest: impl Into<String>) -> Output {
        self.kubectl(["apply", "-f-"]).stdin(manifest).run()
    }

    /// `kubectl create` of a manifest.
    #[track_caller]
    pub(crate) fn create_object(&self, manifest: impl Into<String>) -> Output {
        self.kubectl(["create", "-f-"]).stdin(manifest).run()
    }

    /// An object, as it is stored.
    #[track_caller]
    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        self.kubectl(["get", kind, name, "-o", "json"]).run().json()
    }

    /// Waits until pods can be made here: each names the ServiceAccount that a controller makes.
    #[track_caller]
    pub(crate) fn wait_for_account(&self) {
        until("the default ServiceAccount is there", || {
            self.kubectl(["get", "serviceaccount", "default"]).succeed().map(drop)
        });
    }

    /// Waits until a Deployment, StatefulSet or DaemonSet has nothing but current, ready pods.
    #[track_caller]
    pub(crate) fn rolled_out(&self, workload: &str) {
        self.kubectl(["rollout", "status", workload, &timeout()]).run().ok();
    }

    /// What the API server answered to requests for this object here, oldest first: verb and status.
    pub(crate) fn answers(&self, resource: &str, name: &str, user: &str) -> Vec<(String, u64)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let is_meant = |event: &&Value| {
            let object = &event["objectRef"];
            object["resource"] == resource
                && object["name"] == name
                && object["namespace"] == self.name.as_str()
                && event["user"]["username"] == user
                && event["stage"] == "ResponseComplete"
        };
        let events = self.cluster.audit_events(&self.name);
        let answer =
            |event: &Value| (text(&event["verb"]), event["responseStatus"]["code"].as_u64().unwrap_or_default());
        events.iter().filter(is_meant).map(answer).collect()
    }

    /// What somebody who looks into a failure wants to see.
    pub(crate) fn dump(&self) -> String {
        let show = |args: &[&str]| self.kubectl(args.iter().copied()).run().to_string();
        let catalogs = show(&["get", "configmaps", "-l", "modelguard.dev/catalog", "-o", "yaml"]);
        let objects = show(&["get", "all", "-o", "wide"]);
        let events = show(&["get", "events", "--sort-by=.lastTimestamp"]);
        format!("{catalogs}\n{objects}\n{events}")
    }
}
