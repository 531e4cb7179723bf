use super::{CatalogFacts, Facts, Index, Listing, Source};
use crate::catalog::{EntryName, Format};
use crate::holder::{Holders, ObjectId, Workload};
use crate::object::{HolderKind, Owner, Workload as Object};
use crate::reference::{CatalogKey, Need, Origin, Reference, References};
use crate::retention::Retained;
use crate::sharing::Sharing;
use crate::usage::Usage;
use std::collections::BTreeSet;

pub(super) mod fake;
mod model;
mod targets;

// === builders ===

fn object(kind: HolderKind, name: &str) -> Facts {
    Facts {
        id: ObjectId { kind, namespace: "prod".into(), name: name.into() },
        owner: None,
        references: References::default(),
        pending_revision: None,
        rollback_target: None,
        rollout_hash: None,
        created: None,
    }
}

fn pod(name: &str) -> Facts {
    object(HolderKind::Pod, name)
}

fn key(text: &str) -> CatalogKey {
    let (namespace, name) = text.split_once('/').unwrap_or(("prod", text));
    CatalogKey::new(namespace, name)
}

fn entry(text: &str) -> EntryName {
    EntryName::new(text).unwrap()
}

impl Facts {
    fn within(mut self, namespace: &str) -> Self {
        self.id.namespace = namespace.into();
        self
    }

    fn of_owner(mut self, kind: &str, name: &str) -> Self {
        self.owner = Some(Owner { kind: kind.into(), name: name.into() });
        self
    }

    fn needs(mut self, catalog: &str, need: Need, origin: Origin) -> Self {
        self.references.needs.insert(Reference { catalog: key(catalog), need, origin });
        self
    }

    fn uses(self, catalog: &str, name: &str) -> Self {
        self.needs(catalog, Need::Entry(entry(name)), Origin::Uses)
    }

    fn broken(mut self, reason: &str) -> Self {
        self.references.unreadable = Some(reason.into());
        self
    }

    fn pending(mut self, revision: &str) -> Self {
        self.pending_revision = Some(revision.into());
        self
    }
}

impl Index {
    /// The holders of an entry of the `yaml` catalog `prod/models`.
    fn of(&self, name: &str) -> Holders {
        self.holders(&key("models"), &everybody(), Format::Yaml, &entry(name))
    }

    fn holds(&self, name: &str) -> bool {
        self.is_held(&key("models"), Format::Yaml, &entry(name))
    }

    /// Whether anybody holds `entry`.
    pub(super) fn is_held(&self, catalog: &CatalogKey, format: Format, entry: &EntryName) -> bool {
        !self.held(catalog, &everybody(), format, [entry]).is_empty()
    }

    /// How many objects of a kind are kept.
    pub(super) fn count(&self, kind: HolderKind) -> usize {
        self.namespaces.values().map(|it| it.count(kind)).sum()
    }
}

/// An index in which the namespace `prod` is guarded.
fn guarded() -> Index {
    let mut index = Index::default();
    index.guard("prod", "uid-1");
    index
}

fn names(holders: &Holders) -> Vec<String> {
    let name = |it: &Workload| format!("{} {}", it.kind, it.name);
    holders.workloads.iter().map(name).collect()
}

/// A catalog that every namespace may use.
fn everybody() -> Sharing {
    Sharing::new("prod", Some("*"))
}

// === holding ===

#[test]
fn nobody_holds_what_nobody_references() {
    let mut index = guarded();
    assert!(index.apply(pod("a").uses("models", "v1")));
    assert!(!index.holds("v2"));
    assert!(index.of("v2").is_empty());
    assert!(!index.is_held(&key("other"), Format::Yaml, &entry("v1")));
}

#[test]
fn a_bare_pod_is_its_own_workload() {
    let mut index = guarded();
    index.apply(pod("a").uses("models", "v1"));
    let expected = Workload {
        kind: "Pod".into(),
        namespace: "prod".into(),
        name: "a".into(),
        template: false,
        pods: 1,
        pod_names: vec!["a".into()],
        rollback_target: None,
        unreadable: None,
    };
    assert_eq!(index.of("v1").workloads, [expected]);
}

#[test]
fn pods_are_counted_for_the_deployment_behind_their_replica_sets() {
    let mut index = guarded();
    for (pods, set) in [(3, "web-1"), (2, "web-2")] {
        for number in 0..pods {
            let name = format!("{set}-{number}");
            index.apply(pod(&name).of_owner("ReplicaSet", set).uses("models", "v1"));
        }
        let link = object(HolderKind::ReplicaSet, set).of_owner("Deployment", "web");
        assert!(!index.apply(link), "a link needs nothing");
    }
    index.apply(object(HolderKind::Deployment, "web").uses("models", "v1"));
    let holders = index.of("v1");
    assert_eq!((holders.workloads_total, holders.pods_total), (1, 5));
    let web = &holders.workloads[0];
    assert_eq!((&*web.kind, &*web.name, web.pods), ("Deployment", "web", 5));
    assert_eq!(web.pod_names, ["web-1-0", "web-1-1", "web-1-2"].map(Into::into));
    assert!(web.template);
    assert!(!holders.will_go());
}

#[test]
fn what_only_an_older_template_needs_will_go() {
    let mut index = guarded();
    index.apply(object(HolderKind::Deployment, "web").uses("models", "v2"));
    index.apply(object(HolderKind::ReplicaSet, "web-1").of_owner("Deployment", "web").uses("models", "v1"));
    index.apply(pod("web-1-0").of_owner("ReplicaSet", "web-1").uses("models", "v1"));
    assert!(index.of("v1").will_go());
    assert!(!index.of("v2").will_go(), "more pods come of a template");

    index.apply(pod("bare").uses("models", "v1"));
    assert!(!index.of("v1").will_go(), "nobody ends a bare pod");
}

#[test]
fn pods_of_an_owner_that_is_not_known_are_counted_for_it() {
    let mut index = guarded();
    index.apply(pod("a").of_owner("ReplicaSet", "web-1").uses("models", "v1"));
    assert_eq!(names(&index.of("v1")), ["ReplicaSet web-1"]);
}

#[test]
fn owners_of_any_kind_are_followed_to_the_outermost() {
    let mut index = guarded();
    index.apply(pod("a").of_owner("Job", "night-1").uses("models", "v1"));
    index.apply(object(HolderKind::Job, "night-1").of_owner("CronJob", "night"));
    index.apply(object(HolderKind::CronJob, "night").of_owner("Pipeline", "all"));
    assert_eq!(names(&index.of("v1")), ["Pipeline all"]);
}

#[test]
fn owners_that_own_each_other_are_followed_to_an_end() {
    let mut index = guarded();
    index.apply(pod("a").of_owner("Job", "x").uses("models", "v1"));
    index.apply(object(HolderKind::Job, "x").of_owner("CronJob", "y"));
    index.apply(object(HolderKind::CronJob, "y").of_owner("Job", "x"));
    assert_eq!(index.of("v1").pods_total, 1);
}

#[test]
fn a_replica_set_at_zero_holds_nothing_by_itself() {
    let mut index = guarded();
    let set = object(HolderKind::ReplicaSet, "web-1").of_owner("Deployment", "web");
    index.apply(set.clone().uses("models", "v1"));
    assert!(index.holds("v1"));
    assert!(index.apply(set));
    assert!(!index.holds("v1"));
    index.apply(pod("a").of_owner("ReplicaSet", "web-1").uses("models", "v1"));
    assert_eq!(names(&index.of("v1")), ["Deployment web"], "still a link");
}

#[test]
fn a_whole_catalog_is_held_by_who_needs_all_of_it() {
    let mut index = guarded();
    index.apply(pod("a").needs("models", Need::All, Origin::Uses));
    assert!(index.holds("v1"));
    assert!(index.holds("anything"));
}

#[test]
fn implicit_references_count_for_the_format_keys_alone() {
    let mut index = guarded();
    index.apply(pod("a").needs("models", Need::All, Origin::Implicit));
    index.apply(pod("b").needs("models", Need::Entry(entry("v1")), Origin::Implicit));
    assert!(!index.holds("v1"));
    let keys = |name| index.holders(&key("models"), &everybody(), Format::Keys, &entry(name));
    assert_eq!(names(&keys("v1")), ["Pod a", "Pod b"]);
    assert_eq!(names(&keys("v2")), ["Pod a"]);
}

#[test]
fn held_tells_the_held_entries_from_the_others() {
    let mut index = guarded();
    index.apply(pod("a").uses("models", "v1").uses("models", "v3"));
    let entries = ["v1", "v2", "v3"].map(entry);
    let held = index.held(&key("models"), &everybody(), Format::Yaml, &entries);
    assert_eq!(held, BTreeSet::from(["v1", "v3"].map(entry)));
}

#[test]
fn holders_are_as_few_as_the_message_has_room_for() {
    let mut index = guarded();
    for number in 0..100 {
        index.apply(pod(&format!("bare-{number:03}")).uses("models", "v1"));
        let web = object(HolderKind::Deployment, &format!("web-{number:03}"));
        index.apply(web.uses("models", "v1"));
    }
    let holders = index.of("v1");
    assert_eq!(holders.workloads.len(), Holders::MOST);
    assert_eq!((holders.workloads_total, holders.pods_total), (200, 100));
    assert_eq!(&*holders.workloads[0].name, "web-000", "sorted by kind");
}

// === namespaces ===

#[test]
fn references_of_a_namespace_count_while_it_is_guarded() {
    let mut index = Index::default();
    assert!(!index.apply(pod("a").uses("models", "v1")), "not yet");
    assert!(!index.holds("v1"));
    assert!(index.guard("prod", "uid-1"));
    assert!(index.holds("v1"));
    assert!(!index.guard("prod", "uid-1"), "no news");
    assert!(index.unguard("prod"));
    assert!(!index.holds("v1"));
}

#[test]
fn a_namespace_that_was_made_again_is_news() {
    let mut index = guarded();
    assert!(index.guard("prod", "uid-9"));
    assert_eq!(index.guarded().collect::<Vec<_>>(), [("prod", "uid-9")]);
    assert!(index.unguard("prod"));
    assert!(!index.unguard("prod"));
}

#[test]
fn catalogs_are_held_from_other_guarded_namespaces() {
    let mut index = guarded();
    index.apply(pod("a").within("apps").uses("prod/models", "v1"));
    assert!(!index.holds("v1"));
    index.guard("apps", "uid-2");
    assert_eq!(&*index.of("v1").workloads[0].namespace, "apps");
}

#[test]
fn nobody_can_pin_what_is_not_shared_with_them() {
    let mut index = guarded();
    index.guard("apps", "uid-2");
    index.apply(pod("a").within("apps").uses("prod/models", "v1"));
    let held = |shared_with| {
        let sharing = Sharing::new("prod", shared_with);
        let holders = index.holders(&key("models"), &sharing, Format::Yaml, &entry("v1"));
        (holders.pods_total, index.held(&key("models"), &sharing, Format::Yaml, &[entry("v1")]).len())
    };
    assert_eq!(held(None), (0, 0));
    assert_eq!(held(Some("others")), (0, 0));
    assert_eq!(held(Some("apps")), (1, 1));
}

// === what cannot be read ===

#[test]
fn an_unreadable_object_holds_everything_in_its_namespace() {
    let mut index = guarded();
    let id = object(HolderKind::Deployment, "web").id;
    assert!(index.apply(Facts::unreadable(id, "expected a string")));
    let web = &index.of("anything").workloads[0];
    assert_eq!(web.unreadable.as_deref(), Some("expected a string"));
    assert!(web.template);
    assert!(!index.is_held(&key("other/models"), Format::Yaml, &entry("v1")));
}

#[test]
fn an_unreadable_object_holds_all_of_the_catalogs_it_names() {
    let mut index = guarded();
    index.apply(pod("a").uses("shared/models", "v1").broken("and then?"));
    let shared = |name| index.is_held(&key("shared/models"), Format::Yaml, &entry(name));
    assert!(shared("v1"));
    assert!(shared("v2"));
    assert!(!index.is_held(&key("shared/others"), Format::Yaml, &entry("v1")));
}

#[test]
fn an_object_that_can_be_read_again_holds_what_it_needs() {
    let mut index = guarded();
    index.apply(pod("a").broken("expected a string"));
    assert!(index.apply(pod("a").uses("models", "v1")));
    assert!(index.holds("v1"));
    assert!(!index.holds("v2"));
}

// === StatefulSets ===

fn revision(name: &str) -> Facts {
    object(HolderKind::ControllerRevision, name).of_owner("StatefulSet", "db")
}

fn stateful_set() -> Facts {
    object(HolderKind::StatefulSet, "db").uses("models", "v2")
}

#[test]
fn a_controller_revision_counts_while_its_stateful_set_comes_from_it() {
    let mut index = guarded();
    index.apply(revision("db-1").uses("models", "v1"));
    index.apply(revision("db-0").uses("models", "v0"));
    index.apply(stateful_set());
    assert!(!index.holds("v1"));
    assert!(index.apply(stateful_set().pending("db-1")));
    assert_eq!(names(&index.of("v1")), ["StatefulSet db"]);
    assert!(!index.holds("v0"));
    assert!(index.apply(stateful_set()));
    assert!(!index.holds("v1"));
}

#[test]
fn a_stateful_set_whose_controller_revision_is_not_known_is_unreadable() {
    let mut index = guarded();
    assert!(index.apply(stateful_set().pending("db-1")));
    assert!(index.holds("anything"));
    let db = &index.of("anything").workloads[0];
    assert!(db.unreadable.as_deref().unwrap().contains("db-1"), "{db:?}");
    assert!(index.apply(revision("db-1")));
    assert!(!index.holds("anything"));
}

#[test]
fn a_controller_revision_of_another_owner_is_not_known() {
    let mut index = guarded();
    index.apply(stateful_set().pending("db-1"));
    let other = object(HolderKind::ControllerRevision, "db-1");
    index.apply(other.clone().of_owner("StatefulSet", "other"));
    assert!(index.holds("anything"));
    index.apply(other.clone().of_owner("DaemonSet", "db"));
    assert!(index.holds("anything"));
    index.apply(Facts::unreadable(other.id, "expected a string"));
    assert!(index.holds("anything"));
}

#[test]
fn a_stateful_set_that_lacks_its_revision_holds_the_catalogs_it_names() {
    let mut index = guarded();
    let db = object(HolderKind::StatefulSet, "db").uses("shared/models", "v2");
    index.apply(db.pending("db-1"));
    let shared = |name| index.is_held(&key(name), Format::Yaml, &entry("v1"));
    assert!(shared("shared/models"));
    assert!(!shared("shared/others"));
}

// === lists ===

#[test]
fn what_a_list_does_not_show_is_gone_at_its_end_and_not_before() {
    let mut index = guarded();
    index.apply(pod("a").uses("models", "v1"));
    index.apply(pod("b").uses("models", "v2"));
    index.apply(object(HolderKind::Deployment, "web").uses("models", "v3"));
    index.restart(HolderKind::Pod);
    index.apply(pod("b").uses("models", "v2"));
    assert!(index.holds("v1"), "the list is not at its end");
    assert!(index.complete(HolderKind::Pod));
    assert!(!index.holds("v1"));
    assert!(index.holds("v2"));
    assert!(index.holds("v3"), "another kind");
}

#[test]
fn a_list_that_begins_again_forgets_what_it_had_seen() {
    let mut index = guarded();
    index.apply(pod("a").uses("models", "v1"));
    index.restart(HolderKind::Pod);
    index.apply(pod("a").uses("models", "v1"));
    index.restart(HolderKind::Pod);
    index.complete(HolderKind::Pod);
    assert!(!index.holds("v1"));
}

#[test]
fn a_list_that_shows_nothing_new_changes_nothing() {
    let mut index = guarded();
    index.restart(HolderKind::Pod);
    index.apply(pod("a").uses("models", "v1"));
    assert!(index.complete(HolderKind::Pod), "the first one");
    index.restart(HolderKind::Pod);
    assert!(!index.apply(pod("a").uses("models", "v1")));
    assert!(!index.complete(HolderKind::Pod));
    assert!(index.holds("v1"));
}

#[test]
fn a_namespace_that_a_list_does_not_show_is_no_longer_guarded() {
    let mut index = guarded();
    index.apply(pod("a").uses("models", "v1"));
    index.complete(Source::Namespaces);
    index.restart(Source::Namespaces);
    index.guard("other", "uid-3");
    assert!(index.holds("v1"));
    assert!(index.complete(Source::Namespaces));
    assert!(!index.holds("v1"));
    assert_eq!(index.guarded().collect::<Vec<_>>(), [("other", "uid-3")]);
}

#[test]
fn the_index_is_synced_when_every_kind_has_been_listed() {
    let mut index = Index::default();
    for source in Source::all() {
        assert_eq!(index.synced(), source == Source::all().last().unwrap() && index.synced());
        assert!(index.missing().any(|it| it == source));
        index.restart(source);
        assert!(index.missing().any(|it| it == source));
        index.complete(source);
    }
    assert!(index.synced());
    assert_eq!(index.missing().count(), 0);
    index.restart(HolderKind::Pod);
    assert!(index.synced(), "an old list is better than none");
}

#[test]
fn holders_do_not_wait_for_the_list_of_catalogs() {
    let mut index = Index::default();
    let others = Source::all().filter(|source| *source != Source::Catalogs);
    others.for_each(|source| assert!(index.complete(source)));
    assert!(index.synced());
    assert_eq!(index.missing().collect::<Vec<_>>(), [Source::Catalogs]);
}

#[test]
fn a_watch_that_fails_is_named_until_it_gets_on() {
    let mut index = Index::default();
    assert!(index.fail(HolderKind::Job, "forbidden"));
    assert!(!index.fail(HolderKind::Job, "forbidden"), "no news");
    assert!(index.fail(HolderKind::Job, "timeout"));
    let failing = |index: &Index| index.failing().map(|(it, _)| it.to_string()).collect::<Vec<_>>();
    assert_eq!(failing(&index), ["jobs"]);
    index.recover(HolderKind::Job);
    assert_eq!(failing(&index), [""; 0]);
    index.fail(HolderKind::Job, "timeout");
    index.complete(HolderKind::Job);
    assert_eq!(failing(&index), [""; 0]);
}

// === catalogs ===

fn catalog(resource_version: &str) -> CatalogFacts {
    CatalogFacts {
        revision: 1,
        uid: "u".into(),
        resource_version: resource_version.into(),
        is_going: false,
        listing: Ok(Listing { format: Format::Yaml, entries: BTreeSet::from([entry("v1")]) }),
        usage: Usage::default(),
        usage_written: None,
        retained: Retained::default(),
        hold: None,
        shared_with: None,
    }
}

#[test]
fn a_catalog_is_as_it_was_last_seen() {
    let mut index = Index::default();
    assert!(index.apply_catalog(key("models"), catalog("1")));
    assert!(!index.apply_catalog(key("models"), catalog("1")));
    assert!(index.apply_catalog(key("models"), catalog("2")));
    assert_eq!(index.catalog(&key("models")), Some(&catalog("2")));
    assert!(index.delete_catalog(&key("models")));
    assert!(!index.delete_catalog(&key("models")));
    assert_eq!(index.catalogs().count(), 0);
}

#[test]
fn a_catalog_that_a_list_does_not_show_is_gone() {
    let mut index = Index::default();
    index.apply_catalog(key("models"), catalog("1"));
    index.apply_catalog(key("others"), catalog("1"));
    index.complete(Source::Catalogs);
    index.restart(Source::Catalogs);
    index.apply_catalog(key("others"), catalog("1"));
    assert!(index.complete(Source::Catalogs));
    assert_eq!(index.catalogs().map(|(key, _)| key.to_string()).collect::<Vec<_>>(), ["prod/others"]);
}

// === cost ===

#[test]
fn pods_that_need_nothing_are_not_kept() {
    let mut index = guarded();
    assert!(!index.apply(pod("a").of_owner("ReplicaSet", "web-1")));
    assert!(index.namespaces.is_empty());
    index.apply(pod("a").uses("models", "v1"));
    assert_eq!(index.count(HolderKind::Pod), 1);
    assert!(index.apply(pod("a")));
    assert!(index.namespaces.is_empty());
}

#[test]
fn a_pod_is_not_kept_for_the_token_that_every_pod_gets() {
    let object = r#"{
        "metadata": {"name": "a", "namespace": "prod", "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": true}]},
        "spec": {
            "containers": [{"name": "app", "volumeMounts": [{"name": "kube-api-access-x", "mountPath": "/var/run"}]}],
            "volumes": [{"name": "kube-api-access-x", "projected": {"sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}
            ]}}]
        }
    }"#;
    let mut index = guarded();
    let facts = Facts::of(HolderKind::Pod, &Object::parse(object).unwrap());
    assert!(!index.apply(facts));
    assert!(index.namespaces.is_empty());
    assert!(index.needs.is_empty());
}

#[test]
fn an_event_that_changes_no_reference_is_no_news() {
    let mut index = guarded();
    let pod = pod("a").of_owner("ReplicaSet", "web-1").uses("models", "v1");
    assert!(index.apply(pod.clone()));
    assert!(!index.apply(pod.clone()));
    assert!(index.delete(&pod.id));
    assert!(!index.delete(&pod.id));
}

#[test]
fn nothing_is_left_when_everything_is_deleted() {
    let mut index = guarded();
    let facts: Vec<_> = (0..200)
        .map(|number| {
            let name = format!("pod-{number}");
            let (owner, version) = (format!("web-{}", number % 7), format!("v{}", number % 5));
            pod(&name).of_owner("ReplicaSet", &owner).uses("models", &version)
        })
        .chain([stateful_set().pending("db-1"), revision("db-1").broken("no")])
        .collect();
    facts.iter().for_each(|it| assert!(index.apply(it.clone())));
    facts.iter().for_each(|it| assert!(index.delete(&it.id)));
    assert!(index.namespaces.is_empty());
    assert!(index.needs.is_empty());
}
