//! A stored ConfigMap, and writes to it as both webhooks see them.

use super::*;
use crate::guard::{Guard, WhileInUse};
use crate::holder::{Holders, Workload};
use crate::policy::{self, Caller, Decision, Facts, Mutation, Prospect, Request};
use crate::reference::CatalogKey;
use crate::usage::Epoch;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;

mod healing;

const EPOCH: &str = "e1";
const OWN: Caller = Caller { own: true, system: false, dry_run: false, put: false };

/// A model ConfigMap that is stored, under a guard that defers.
struct Stored {
    object: Value,
    guard: Guard,
}

impl Stored {
    /// At its first revision.
    fn new(format: &str, data: &Value) -> Self {
        let metadata = json!({
            "name": "models", "namespace": "prod", "labels": {"modelguard.dev/catalog": format},
            "annotations": {"modelguard.dev/revision": "1"},
        });
        Self {
            object: json!({"metadata": metadata, "data": data}),
            guard: Guard { while_in_use: WhileInUse::Defer, ..Guard::default() },
        }
    }

    fn keys<const N: usize>(entries: [(&str, &str); N]) -> Self {
        Self::new("keys", &entries.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect())
    }

    fn yaml(text: &str) -> Self {
        Self::new("yaml", &json!({"models.yaml": text}))
    }

    fn terms(&self) -> Terms {
        Terms { epoch: Ok(Epoch::new(EPOCH)), guard: self.guard, now: Timestamp::UNIX_EPOCH }
    }

    fn change<'a>(old: &'a str, new: &'a str, caller: Caller) -> CatalogChange<'a> {
        let [old, new] = [old, new].map(|json| Some(ConfigMap::parse(json).unwrap()));
        CatalogChange::new(CatalogKey::new("prod", "models"), old, new, caller)
    }

    /// What the mutating webhook makes of a write, which it makes nothing more of when it is asked again.
    fn mutated(&self, new: &Value, caller: Caller) -> (Value, Decision) {
        let (old, mut made) = (self.object.to_string(), new.clone());
        let sent = new.to_string();
        let change = Self::change(&old, &sent, caller);
        let first = policy::mutate(&change, None, &self.terms());
        make(&mut made, &first);
        let json = made.to_string();
        let change = Self::change(&old, &json, caller);
        let again = policy::mutate(&change, None, &self.terms());
        assert!(again.annotations.is_empty() && again.content.is_none(), "asked again: {again:?} of {made:#}");
        (made, first.decision)
    }

    /// What the validating webhook says of it.
    fn judged(&self, new: &Value, caller: Caller) -> Decision {
        let (old, new) = (self.object.to_string(), new.to_string());
        let request = Request::Catalog(Box::new(Self::change(&old, &new, caller)));
        let needs = policy::needs(&request, &self.terms());
        let facts = Facts {
            terminating: needs.namespaces.into_iter().map(|name| (name, Ok(false))).collect(),
            holders: needs.holders.map(|of| Ok(of.entries.into_iter().map(|entry| (entry, held())).collect())),
            prospect: Some(Prospect::Moving(Duration::ZERO)),
            ..Facts::default()
        };
        policy::decide(&request, &facts, &self.terms())
    }

    /// Writes through both; gives the warnings of the mutating one, or the code of the denial.
    fn write(&mut self, new: &Value, caller: Caller) -> Result<Vec<String>, &'static str> {
        let (made, said) = self.mutated(new, caller);
        match self.judged(&made, caller).denial {
            Some(denial) => Err(denial.code.id()),
            None => {
                self.object = made;
                Ok(said.warnings)
            }
        }
    }

    /// A write that leaves `data` so and all else as it is.
    fn put(&mut self, data: Value) -> Result<Vec<String>, &'static str> {
        let mut new = self.object.clone();
        new["data"] = data;
        self.write(&new, Caller::default())
    }

    /// What the controller has found out: nobody needs these.
    fn becomes_idle(&mut self, entries: &[&str]) {
        let usage = json!({"epoch": EPOCH, "idle": entries}).to_string();
        self.object["metadata"]["annotations"]["modelguard.dev/usage"] = usage.into();
    }

    /// The controller's request.
    fn retire(&mut self) -> Result<Vec<String>, &'static str> {
        let mut new = self.object.clone();
        new["metadata"]["annotations"]["modelguard.dev/retire"] = "idle".into();
        self.write(&new, OWN)
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.object["metadata"]["annotations"][format!("modelguard.dev/{name}")].as_str()
    }

    fn retained(&self) -> Option<&str> {
        self.annotation("retained")
    }
}

fn held() -> Holders {
    let workload = Workload {
        kind: "Deployment".into(),
        namespace: "prod".into(),
        name: "api".into(),
        template: true,
        pods: 0,
        pod_names: Vec::new(),
        rollback_target: None,
        unreadable: None,
    };
    Holders { workloads: vec![workload], workloads_total: 1, pods_total: 0 }
}

fn make(object: &mut Value, mutation: &Mutation<'_>) {
    let set = |map: &mut Value, key: &str, value: Option<&String>| {
        let map = map.as_object_mut().unwrap();
        match value {
            Some(value) => drop(map.insert(key.to_owned(), value.as_str().into())),
            None => drop(map.remove(key)),
        }
    };
    for (name, value) in &mutation.annotations {
        set(&mut object["metadata"]["annotations"], name, value.as_ref());
    }
    if let Some(content) = &mutation.content {
        object["data"] = content.data.iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
    }
}

fn listed(versions: &[&str]) -> String {
    versions.iter().map(|version| format!("- {{name: m, version: {version}}}\n")).collect()
}

#[test]
fn what_is_removed_stays_until_nobody_needs_it() {
    let mut stored = Stored::keys([("v1", "a"), ("v2", "b")]);
    let warnings = stored.put(json!({"v2": "b", "v3": "c"})).unwrap();
    assert_eq!(warnings, ["entry v1 may still be needed: modelguard keeps it, and removes it once nobody needs it"]);
    assert_eq!(stored.object["data"], json!({"v1": "a", "v2": "b", "v3": "c"}));
    assert_eq!((stored.retained(), stored.annotation("revision")), (Some(r#"["v1"]"#), Some("2")));
    let prior = stored.annotation("prior-revision").unwrap().to_owned();

    stored.retire().unwrap();
    assert_eq!(stored.retained(), Some(r#"["v1"]"#), "it is not Idle");
    stored.becomes_idle(&["v1", "v2"]);
    stored.retire().unwrap();
    assert_eq!(stored.object["data"], json!({"v2": "b", "v3": "c"}), "v2 is Idle as well, and nobody removed it");
    assert_eq!((stored.retained(), stored.annotation("retire")), (None, None));
    assert_eq!(stored.annotation("revision"), Some("2"), "it completes the revision that deferred it");
    assert_eq!(stored.annotation("prior-revision"), Some(&*prior));
}

#[test]
fn a_text_ends_as_it_was_sent() {
    let mut stored = Stored::yaml(&listed(&["v1"]));
    stored.put(json!({"models.yaml": listed(&["v2"])})).unwrap();
    assert_eq!(stored.object["data"]["models.yaml"], listed(&["v2", "v1"]));
    stored.put(json!({"models.yaml": listed(&["v3"])})).unwrap();
    assert_eq!(stored.retained(), Some(r#"["m@v1","m@v2"]"#));
    stored.becomes_idle(&["m@v1"]);
    stored.retire().unwrap();
    stored.becomes_idle(&["m@v2"]);
    stored.retire().unwrap();
    assert_eq!(stored.object["data"]["models.yaml"], listed(&["v3"]));
}

#[test]
fn what_is_idle_goes_at_once() {
    let mut stored = Stored::keys([("v1", "a"), ("v2", "b")]);
    stored.becomes_idle(&["v1"]);
    assert_eq!(stored.put(json!({"v2": "b"})), Ok(vec![]));
    assert_eq!((&stored.object["data"], stored.retained()), (&json!({"v2": "b"}), None));
}

#[test]
fn what_was_removed_alone_makes_a_revision_all_the_same() {
    let mut stored = Stored::keys([("v1", "a"), ("v2", "b")]);
    stored.put(json!({"v2": "b"})).unwrap();
    assert_eq!(stored.annotation("revision"), Some("2"));
    let before = stored.object.clone();
    stored.put(json!({"v2": "b"})).unwrap();
    assert_eq!(stored.object, before, "once more, it changes nothing");
}

#[test]
fn only_what_is_asked_for_again_stays_for_good() {
    let deferred = || {
        let mut stored = Stored::keys([("v1", "a"), ("v2", "b")]);
        stored.put(json!({"v2": "b", "v3": "c"})).unwrap();
        stored
    };
    let mut patched = deferred();
    patched.put(json!({"v1": "a", "v2": "b", "v3": "c", "v4": "d"})).unwrap();
    assert_eq!(patched.retained(), Some(r#"["v1"]"#), "a patch that does not mention it");

    let mut rolled_back = deferred();
    rolled_back.put(json!({"v1": "a", "v2": "b"})).unwrap();
    assert_eq!(rolled_back.retained(), Some(r#"["v3"]"#), "what was before it");

    let mut applied = deferred();
    let mut new = applied.object.clone();
    let manifest = json!({"data": {"v1": "a", "v2": "b", "v3": "c"}}).to_string();
    new["metadata"]["annotations"][LAST_APPLIED] = manifest.into();
    applied.write(&new, Caller::default()).unwrap();
    assert_eq!(applied.retained(), None, "kubectl apply of a manifest that has it");

    let mut applied = deferred();
    let mut new = applied.object.clone();
    let fields = json!({"f:data": {".": {}, "f:v1": {}, "f:v2": {}, "f:v3": {}}});
    new["metadata"]["managedFields"] = json!([{"manager": "kubectl", "operation": "Apply", "fieldsV1": fields}]);
    applied.write(&new, Caller::default()).unwrap();
    assert_eq!(applied.retained(), None, "server-side apply of a manifest that has it");

    let mut written = Stored::yaml(&listed(&["v1"]));
    written.put(json!({"models.yaml": listed(&["v2"])})).unwrap();
    written.put(json!({"models.yaml": listed(&["v2", "v1", "v3"])})).unwrap();
    assert_eq!(written.retained(), None, "a text that lists it");
}

#[test]
fn a_rollback_restores_what_was_retained_then() {
    let mut stored = Stored::keys([("v1", "a")]);
    stored.put(json!({"v2": "b"})).unwrap();
    stored.put(json!({"v1": "a", "v2": "b", "v3": "c"})).unwrap();
    stored.put(json!({"v1": "a", "v2": "b"})).unwrap();
    assert_eq!(stored.retained(), Some(r#"["v1","v3"]"#), "v1 was retained at that revision, too");
}

/// It could never be removed again.
#[test]
fn nothing_is_kept_in_what_becomes_immutable() {
    let stored = Stored::keys([("v1", "a"), ("v2", "b")]);
    let mut new = stored.object.clone();
    new["data"] = json!({"v2": "b"});
    new["immutable"] = true.into();
    let (made, _) = stored.mutated(&new, Caller::default());
    assert_eq!(made["data"], new["data"]);
    let denial = stored.judged(&made, Caller::default()).denial.unwrap();
    assert_eq!(denial.code.id(), "MG101");
    assert!(denial.message.contains("makes the ConfigMap immutable"), "{}", denial.message);
}

#[test]
fn nothing_is_kept_where_the_guard_does_not_defer() {
    let mut stored = Stored::keys([("v1", "a"), ("v2", "b")]);
    stored.guard = Guard::default();
    assert_eq!(stored.put(json!({"v2": "b"})), Err("MG101"));
}

#[test]
fn what_is_retained_goes_whatever_the_guard_is_by_then() {
    let mut stored = Stored::keys([("v1", "a"), ("v2", "b")]);
    stored.put(json!({"v2": "b"})).unwrap();
    stored.guard = Guard::default();
    stored.becomes_idle(&["v1"]);
    stored.retire().unwrap();
    assert_eq!(stored.object["data"], json!({"v2": "b"}));
}

#[test]
fn what_cannot_be_kept_is_denied_with_the_reason() {
    let mut stored = Stored::yaml(&listed(&["v1", "v2"]));
    let (made, _) = stored.mutated(&with_data(&stored, "null"), Caller::default());
    assert_eq!(made["data"], with_data(&stored, "null")["data"]);
    let denial = stored.judged(&made, Caller::default()).denial.unwrap();
    assert_eq!(denial.code.id(), "MG101");
    assert!(denial.message.contains("It cannot be deferred: key \"models.yaml\", line 1"), "{}", denial.message);
    assert_eq!(stored.put(json!({"models.yaml": "- {name: m, version: v1, uri: x}\n"})), Err("MG102"));
}

fn with_data(stored: &Stored, text: &str) -> Value {
    let mut new = stored.object.clone();
    new["data"] = json!({"models.yaml": text});
    new
}

#[test]
fn what_clients_say_of_it_is_nothing() {
    let mut stored = Stored::keys([("v1", "a"), ("v2", "b")]);
    let mut new = stored.object.clone();
    new["metadata"]["annotations"]["modelguard.dev/retained"] = r#"["v2"]"#.into();
    new["metadata"]["annotations"]["modelguard.dev/retire"] = "idle".into();
    stored.becomes_idle(&["v2"]);
    stored.write(&new, Caller::default()).unwrap();
    assert_eq!((stored.retained(), stored.annotation("retire")), (None, None));
    assert_eq!(stored.object["data"], json!({"v1": "a", "v2": "b"}));
}

#[test]
fn our_own_identity_takes_out_nothing_else() {
    let mut stored = Stored::keys([("v1", "a"), ("v2", "b"), ("v3", "c")]);
    stored.put(json!({"v2": "b", "v3": "c"})).unwrap();
    stored.becomes_idle(&["v1", "v2"]);
    for (data, allowed) in [
        (json!({"v2": "b", "v3": "c"}), true),
        (json!({"v1": "a", "v3": "c"}), false),
        (json!({"v3": "c"}), false),
        (json!({"v2": "b", "v3": "c", "v4": "d"}), false),
        (json!({"v2": "b", "v3": "other"}), false),
    ] {
        let mut new = stored.object.clone();
        new["data"] = data.clone();
        let (made, _) = stored.mutated(&new, OWN);
        assert_eq!(stored.judged(&made, OWN).allowed(), allowed, "{data}");
    }
}

#[test]
fn what_people_hold_is_not_retired() {
    let mut stored = Stored::keys([("v1", "a"), ("v2", "b")]);
    stored.object["metadata"]["annotations"]["modelguard.dev/hold"] = "v1=soak".into();
    stored.becomes_idle(&["v1"]);
    stored.put(json!({"v2": "b"})).unwrap();
    stored.becomes_idle(&["v1"]);
    stored.retire().unwrap();
    assert_eq!(stored.retained(), Some(r#"["v1"]"#));
}

#[test]
fn an_annotation_that_cannot_be_read_retains_nothing() {
    for text in ["", "v1", r#"{"v1":1}"#, r#"["v1", 2]"#, r#"[""]"#] {
        assert_eq!(Retained::parse(Some(text)), Retained::default(), "{text}");
    }
    let some = Retained::parse(Some(r#"["b","a"]"#));
    assert_eq!(some.render().as_deref(), Some(r#"["a","b"]"#));
    assert_eq!(Retained::parse(some.render().as_deref()), some);
}

proptest! {
    /// Whatever is asked for, one after the other: nothing that may be needed goes, and in the end it is what was
    /// asked for last.
    #[test]
    fn nothing_is_lost_and_all_ends_as_sent(
        texts in proptest::collection::vec(proptest::sample::subsequence(vec!["v1", "v2", "v3", "v4"], 1..4), 1..5)
    ) {
        let mut stored = Stored::yaml(&listed(&["v1"]));
        let mut ever = BTreeSet::from(["v1"]);
        let mut last = None;
        for text in &texts {
            // What is there already says nothing of what is retained.
            if stored.object["data"]["models.yaml"] == listed(text) {
                continue;
            }
            last = Some(text);
            stored.put(json!({"models.yaml": listed(text)})).unwrap();
            ever.extend(text);
            let now = stored.object["data"]["models.yaml"].as_str().unwrap();
            for version in &ever {
                prop_assert!(now.contains(&format!("version: {version}}}")), "{version} in {now}");
            }
        }
        let all: Vec<_> = ever.iter().map(|version| format!("m@{version}")).collect();
        stored.becomes_idle(&all.iter().map(String::as_str).collect::<Vec<_>>());
        stored.retire().unwrap();
        prop_assert_eq!(stored.object["data"]["models.yaml"].as_str().unwrap(), last.map_or_else(|| listed(&["v1"]), |text| listed(text)));
    }
}
