use super::*;
use crate::arming::{Configuration, Webhooks};
use crate::index::Facts;
use crate::object::{ConfigMap, HolderKind, Workload};
use crate::reference::Server;
use crate::usage::{self, SettlingId, Why};
use serde_json::{Value, json};

const NOW: &str = "2026-11-30T12:00:00Z";

/// A cluster of which `prod` is guarded for long.
struct Cluster {
    index: Index,
    arming: Arming,
    servers: Vec<ServerState>,
}

impl Cluster {
    fn new() -> Self {
        let mut index = Index::new(RollbackTargets::Warn);
        index.guard("prod", "1 2026-11-01T00:00:00Z");
        let mut arming = Arming::default();
        for which in [Webhooks::Mutating, Webhooks::Validating] {
            let found = Configuration { uid: "u".to_owned(), generation: 1, defect: None, gap: None };
            arming.configuration(which, Some(found), Duration::ZERO);
        }
        Self { index, arming, servers: Vec::new() }
    }

    /// A model ConfigMap `prod/models` of format `keys` that lists `v1` and `v2`.
    fn models(self, annotations: &Value) -> Self {
        self.config_map(annotations, "keys", &json!({"v1": "", "v2": ""}), &json!({}))
    }

    fn config_map(mut self, annotations: &Value, format: &str, data: &Value, more: &Value) -> Self {
        let mut metadata = json!({
            "name": "models", "namespace": "prod", "labels": {"modelguard.dev/catalog": format},
            "annotations": annotations,
        });
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let json = json!({"metadata": metadata, "data": data}).to_string();
        let facts = CatalogFacts::of(&ConfigMap::parse(&json).unwrap());
        self.index.apply_catalog(key(), facts);
        self
    }

    fn workload(mut self, kind: HolderKind, workload: &Value) -> Self {
        self.index.apply(Facts::of(kind, &Workload::parse(&workload.to_string()).unwrap()));
        self
    }

    /// A Deployment of that name whose template uses that.
    fn deployment(self, name: &str, uses: &str) -> Self {
        let template = json!({"metadata": {"annotations": {"modelguard.dev/uses": uses}}, "spec": {}});
        let metadata = json!({"name": name, "namespace": "prod"});
        self.workload(HolderKind::Deployment, &json!({"metadata": metadata, "spec": {"template": template}}))
    }

    /// A pod that uses that, of an owner.
    fn pod(self, name: &str, uses: &str, owner: (&str, &str)) -> Self {
        let owner = json!({"kind": owner.0, "name": owner.1, "controller": true});
        let annotations = json!({"modelguard.dev/uses": uses});
        let metadata =
            json!({"name": name, "namespace": "prod", "annotations": annotations, "ownerReferences": [owner]});
        self.workload(HolderKind::Pod, &json!({"metadata": metadata, "spec": {}}))
    }

    /// The annotation in which `v1` is marked, in the epoch that is current where rollback targets are treated so.
    fn marked(&self, is_idle: bool, targets: RollbackTargets) -> String {
        let arming = self.arming.clone().under(targets);
        let epoch = arming.epoch_among(self.index.guarded(), &Sharing::new("prod", None), Duration::ZERO).unwrap();
        marked(&epoch, is_idle)
    }

    fn status(&self) -> Status {
        let (index, arming, servers) = (&self.index, &self.arming, &self.servers);
        Look { index, arming, servers, now: NOW.parse().unwrap() }.of(&key()).unwrap()
    }

    fn v1(&self) -> Standing {
        self.status().entries.remove(0)
    }

    #[track_caller]
    fn assert_v1(&self, usage: Usage, removable: Removable, why: &str) {
        let v1 = self.v1();
        assert_eq!((v1.usage, v1.removable, v1.why.as_str()), (usage, removable, why));
    }
}

fn marked(epoch: &Epoch, is_idle: bool) -> String {
    let (v1, id) = (EntryName::new("v1").unwrap(), SettlingId::new("a"));
    let settling = usage::Usage::new(epoch.clone()).settle(epoch, [&v1], Why::Quiet, || id.clone());
    let due = [(v1, id)].into();
    let idle = usage::Settler::conclude(&settling, epoch, &due, &[].into());
    if is_idle { idle.unwrap() } else { settling }.render().unwrap()
}

fn key() -> CatalogKey {
    CatalogKey::new("prod", "models")
}

fn with_usage(usage: &str) -> Value {
    json!({"modelguard.dev/usage": usage})
}

#[test]
fn an_entry_that_nobody_uses_may_be_removed_when_that_is_proven() {
    let unused = Cluster::new().models(&json!({}));
    unused.assert_v1(
        Usage::InUse,
        Removable::AfterProof,
        "nobody uses it: remove it (step 3), and kubectl and Helm wait for the proof of that",
    );
    for targets in [RollbackTargets::Warn, RollbackTargets::Hold] {
        let [settling, idle] = [false, true].map(|is_idle| with_usage(&unused.marked(is_idle, targets)));
        Cluster::new().models(&settling).assert_v1(
            Usage::Settling,
            Removable::AfterProof,
            "nobody uses it, and the proof of that is under way: whoever removes it waits for that",
        );
        Cluster::new().models(&idle).assert_v1(Usage::Idle, Removable::Now, "nobody uses it, and that is proven");
    }
}

#[test]
fn a_mark_of_another_epoch_counts_for_nothing() {
    let before = Cluster::new().marked(true, RollbackTargets::Warn);
    let mut now = Cluster::new();
    now.index.guard("prod", "1 2026-11-02T00:00:00Z");
    now.models(&with_usage(&before)).assert_v1(
        Usage::InUse,
        Removable::AfterProof,
        "nobody uses it, and the proof of that must be made again: the webhook configurations, or the namespaces that \
         may use it, are others than they were",
    );
}

#[test]
fn while_the_webhooks_are_not_as_they_should_be_nothing_can_be_proven() {
    let idle = Cluster::new().marked(true, RollbackTargets::Warn);
    let mut open = Cluster::new().models(&with_usage(&idle));
    open.arming.configuration(Webhooks::Validating, None, Duration::ZERO);
    open.assert_v1(Usage::InUse, Removable::No, "nobody uses it, and that cannot be proven now");
    let expected = "that an entry is used by nobody cannot be proven now: modelguard's \
                    ValidatingWebhookConfiguration: it does not exist";
    assert_eq!(open.status().remarks, [expected]);
}

#[test]
fn an_entry_that_somebody_uses_stays() {
    let models = || Cluster::new().models(&json!({}));
    let used = models().deployment("api", "models:v1").pod("api-1", "models:v1", ("Deployment", "api"));
    used.assert_v1(Usage::InUse, Removable::No, "it is used: finish step 2 (roll out the app) first");
    let holders = used.v1().holders;
    assert_eq!((holders.workloads_total, holders.pods_total, &*holders.workloads[0].name), (1, 1, "api"));

    let old = models().deployment("api", "models:v2").pod("api-1", "models:v1", ("Deployment", "api"));
    old.assert_v1(Usage::InUse, Removable::No, "only pods of an older template use it: wait until these are gone");

    let broken = models().deployment("api", "models:v2, v9");
    let v1 = broken.v1();
    assert_eq!(v1.removable, Removable::No);
    assert!(
        v1.why.starts_with("Deployment prod/api cannot be read, and so counts as using everything: "),
        "{}",
        v1.why
    );
}

#[test]
fn what_people_keep_stays_with_their_reason() {
    let hold = |text: &str| Cluster::new().models(&json!({"modelguard.dev/hold": text}));
    let why = "the annotation modelguard.dev/hold keeps it (mobile clients): take it out there when nobody needs it";
    hold("v1=mobile clients").assert_v1(Usage::InUse, Removable::No, why);
    let why = "the annotation modelguard.dev/hold keeps it: take it out there when nobody needs it";
    hold("v1").assert_v1(Usage::InUse, Removable::No, why);
    let why = "the annotation modelguard.dev/hold cannot be read in full, and so keeps everything: correct it";
    hold("a%2").assert_v1(Usage::InUse, Removable::No, why);
    let why = "it is used: finish step 2 (roll out the app) first; besides, the annotation modelguard.dev/hold keeps \
               it: take it out there when nobody needs it";
    hold("v1").deployment("api", "models:v1").assert_v1(Usage::InUse, Removable::No, why);
    assert_eq!(hold("v1=mobile clients").v1().hold.as_deref(), Some("mobile clients"));
    // Not even what is proven.
    let idle = Cluster::new().marked(true, RollbackTargets::Warn);
    let kept = Cluster::new().models(&json!({"modelguard.dev/hold": "v1", "modelguard.dev/usage": idle}));
    assert_eq!((kept.v1().usage, kept.v1().removable), (Usage::Idle, Removable::No));
}

#[test]
fn what_is_retained_goes_by_itself() {
    let retained = |usage: &str| {
        Cluster::new().models(&json!({"modelguard.dev/retained": r#"["v1"]"#, "modelguard.dev/usage": usage}))
    };
    let why = "its removal was deferred: it goes by itself once nobody uses it";
    retained("").deployment("api", "models:v1").assert_v1(Usage::InUse, Removable::ByItself, why);
    let why = "its removal was deferred: it goes by itself once that nobody uses it is proven";
    retained("").assert_v1(Usage::InUse, Removable::ByItself, why);
    let why = "its removal was deferred, and is made now: nobody uses it";
    let idle = Cluster::new().marked(true, RollbackTargets::Warn);
    retained(&idle).assert_v1(Usage::Idle, Removable::ByItself, why);
}

#[test]
fn who_would_need_it_after_a_rollback_is_named() {
    let owner = json!({"kind": "Deployment", "name": "api", "controller": true});
    let annotations = json!({"deployment.kubernetes.io/revision": "3"});
    let metadata =
        json!({"name": "api-1", "namespace": "prod", "annotations": annotations, "ownerReferences": [owner]});
    let template = json!({"metadata": {"annotations": {"modelguard.dev/uses": "models:v1"}}, "spec": {}});
    let old = json!({"metadata": metadata, "spec": {"replicas": 0, "template": template}});
    let cluster = Cluster::new().models(&json!({})).deployment("api", "models:v2");
    cluster.workload(HolderKind::ReplicaSet, &old).assert_v1(
        Usage::InUse,
        Removable::AfterProof,
        "nobody uses it: remove it (step 3), and kubectl and Helm wait for the proof of that; a rollback of Deployment \
         prod/api (revision 3) would need it",
    );
}

#[test]
fn a_mark_is_as_old_as_our_last_write_at_least() {
    let idle = Cluster::new().marked(true, RollbackTargets::Warn);
    let fields = |name: &str| json!({"f:metadata": {"f:annotations": {name: {}}}});
    let (usage, other) = (fields("f:modelguard.dev/usage"), fields("f:note"));
    let entry =
        |manager: &str, time: &str, fields: &Value| json!({"manager": manager, "time": time, "fieldsV1": fields});
    let managed = json!({"managedFields": [
        entry("modelguard", "2026-11-29T10:00:00Z", &usage),
        entry("modelguard", "2026-11-29T11:00:00Z", &other),
        entry("kubectl", "2026-11-29T12:00:00Z", &usage),
    ]});
    let data = json!({"v1": "", "v2": ""});
    let entries = Cluster::new().config_map(&with_usage(&idle), "keys", &data, &managed).status().entries;
    let since: Vec<_> = entries.iter().map(|it| it.since.as_deref()).collect();
    assert_eq!(since, [Some("2026-11-29T10:00:00Z"), None], "v2 is not marked");
}

#[test]
fn the_servers_of_an_entry_are_named_ready_or_not() {
    let mut cluster = Cluster::new();
    for (namespace, name, serves, is_ready) in [
        ("prod", "one", "models:v1", true),
        ("prod", "two", "models:*", false),
        ("prod", "three", "models:v2", true),
        ("other", "four", "prod/models:v1", true),
    ] {
        let template = json!({"metadata": {"annotations": {"modelguard.dev/serves": serves}}, "spec": {}});
        let object = json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"template": template}});
        let workload = Workload::parse(&object.to_string()).unwrap();
        let server = Server::of(HolderKind::Deployment, &workload).unwrap();
        cluster.servers.push(ServerState { server, is_ready });
    }
    let leaving = usage::Usage::default().departing(&cluster.servers[0].server.id, "1").unwrap().render().unwrap();
    let v1 = cluster.models(&with_usage(&leaving)).v1();
    let servers: Vec<_> = v1.servers.iter().map(|it| (&*it.id.name, it.is_ready, it.is_leaving)).collect();
    assert_eq!(servers, [("one", true, true), ("two", false, false)], "the catalog is not shared with `other`");
}

#[test]
fn what_is_wrong_with_a_catalog_is_remarked() {
    let broken = Cluster::new().config_map(&json!({}), "json", &json!({"models.json": "{"}), &json!({})).status();
    assert_eq!((broken.format, broken.entries.len(), broken.remarks.len()), (None, 0, 1));
    let expected = "cannot be read as a catalog, so no reference to it can be checked: key \"models.json\", line 1";
    assert!(broken.remarks[0].starts_with(expected), "{:?}", broken.remarks);

    let going = json!({"deletionTimestamp": "2026-11-30T11:59:00Z"});
    let going =
        Cluster::new().config_map(&json!({"modelguard.dev/revision": "7"}), "keys", &json!({}), &going).status();
    assert_eq!((going.revision, going.remarks), (Some(7), vec!["is being deleted".to_owned()]));
}

#[test]
fn a_namespace_that_does_not_count_is_remarked() {
    let mut cluster = Cluster::new();
    cluster.index.unguard("prod");
    let alone = cluster.models(&json!({})).status();
    assert_eq!(alone.guarding, Guarding::Missing);
    let expected = "namespace prod lacks the label modelguard.dev/guard=enabled: what its workloads use does not count";
    assert_eq!(alone.remarks, [expected]);

    let mut cluster = Cluster::new();
    cluster.index.unguard("prod");
    cluster.index.guard("canary", "2 2026-11-30T11:59:30Z");
    let shared = cluster.models(&json!({"modelguard.dev/shared-with": "canary, staging"})).status();
    let expected = [
        "namespace prod lacks the label modelguard.dev/guard=enabled: what its own workloads use does not count, and \
         its deletion would take this catalog from those it is shared with unasked",
        "is shared with what lacks the label modelguard.dev/guard=enabled, and so does not count: staging",
        "namespace canary is guarded for less than a minute: what its workloads use counts once `settle` has passed",
    ];
    assert_eq!(shared.remarks, expected);
}
