//! Random sequences of events, against a plain list that is gone through again for each question.

use super::*;
use crate::object::{NEWEST_REPLICA_SET, RollbackTarget};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Event {
    Apply(Facts),
    Delete(ObjectId),
    Guard(&'static str, bool),
    Restart(Source),
    Complete(Source),
}

/// Everything that was ever told, as it was told.
#[derive(Debug, Default)]
struct Model {
    objects: BTreeMap<ObjectId, (Facts, u32)>,
    guarded: BTreeMap<&'static str, u32>,
    lists: BTreeMap<Source, u32>,
}

// === impl Model ===

impl Model {
    fn tell(&mut self, event: &Event) {
        match event {
            Event::Apply(facts) => {
                let list = self.list(facts.id.kind.into());
                self.objects.insert(facts.id.clone(), (facts.clone(), list));
            }
            Event::Delete(id) => drop(self.objects.remove(id)),
            Event::Guard(name, true) => {
                let list = self.list(Source::Namespaces);
                self.guarded.insert(name, list);
            }
            Event::Guard(name, false) => drop(self.guarded.remove(name)),
            Event::Restart(source) => *self.lists.entry(*source).or_default() += 1,
            Event::Complete(source) => {
                let list = self.list(*source);
                if *source == Source::Namespaces {
                    self.guarded.retain(|_, seen| *seen == list);
                }
                self.objects.retain(|id, (_, seen)| Source::from(id.kind) != *source || *seen == list);
            }
        }
    }

    fn list(&self, source: Source) -> u32 {
        self.lists.get(&source).copied().unwrap_or_default()
    }

    fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&Facts> {
        let is = |id: &ObjectId| id.kind.kind() == kind && &*id.namespace == namespace && &*id.name == name;
        self.objects.values().map(|(facts, _)| facts).find(|facts| is(&facts.id))
    }

    fn top<'a>(&'a self, facts: &'a Facts) -> (&'a str, &'a str) {
        let Some(owner) = &facts.owner else {
            return (facts.id.kind.kind(), &facts.id.name);
        };
        match self.get(&owner.kind, &facts.id.namespace, &owner.name) {
            Some(owner) => self.top(owner),
            None => (&owner.kind, &owner.name),
        }
    }

    fn is_of_stateful_set(revision: &Facts, name: &str) -> bool {
        let owner = revision.owner.as_ref();
        owner.is_some_and(|it| &*it.kind == "StatefulSet" && &*it.name == name)
    }

    fn is_newest(&self, facts: &Facts) -> bool {
        let shares = |it: &Facts| !it.references.catalogs().is_disjoint(&facts.references.catalogs());
        let is_of_it = |it: &Facts| {
            (&it.id.namespace, it.id.kind, &it.owner) == (&facts.id.namespace, facts.id.kind, &facts.owner)
                && shares(it)
        };
        let is_target = |it: &Facts| it.rollback_target.is_some() && !it.references.is_empty();
        let all = self.objects.values().map(|(it, _)| it);
        !all.filter(|it| is_of_it(it) && is_target(it)).any(|it| it.created > facts.created)
    }

    /// Why it holds the entry: `None` if it does not, and the reason if that is that it cannot be read.
    fn holds(&self, facts: &Facts, catalog: &CatalogKey, format: Format, entry: &EntryName) -> Option<Option<String>> {
        let Facts { id, references, .. } = facts;
        let is_pending = |kind: &str, revision: &str| {
            let owner = facts.owner.as_ref().filter(|owner| &*owner.kind == kind);
            let owner = owner.and_then(|owner| self.get(kind, &id.namespace, &owner.name));
            owner.is_some_and(|it| it.pending_revision.as_deref() == Some(revision))
        };
        let counts = match (id.kind, &facts.rollback_target) {
            (HolderKind::ControllerRevision, _) => is_pending("StatefulSet", &id.name),
            (_, Some(_)) => {
                facts.rollout_hash.as_ref().is_some_and(|hash| is_pending("Rollout", hash))
                    || (is_pending("Deployment", NEWEST_REPLICA_SET) && self.is_newest(facts))
            }
            (_, None) => true,
        };
        if !counts || !self.guarded.contains_key(&*id.namespace) {
            return None;
        }
        let names = references.needs.iter().any(|it| it.catalog == *catalog);
        let touches = id.namespace == catalog.namespace || names;
        let pending = facts.pending_revision.as_ref().filter(|_| id.kind == HolderKind::StatefulSet);
        let lacks = pending.is_some_and(|revision| {
            let revision = self.get("ControllerRevision", &id.namespace, revision);
            !revision.is_some_and(|it| Self::is_of_stateful_set(it, &id.name))
        });
        let unreadable = references.unreadable.as_deref().map(str::to_owned);
        if touches && unreadable.is_some() {
            return Some(unreadable);
        }
        if touches && lacks {
            return Some(Some(String::new()));
        }
        let needs = references.needs.iter().any(|it| {
            it.catalog == *catalog
                && (it.need == Need::All || it.need == Need::Entry(entry.clone()))
                && (it.origin == Origin::Uses || format == Format::Keys)
        });
        needs.then_some(None)
    }

    fn holders(&self, catalog: &CatalogKey, format: Format, entry: &EntryName) -> Holders {
        let mut all: BTreeMap<(&str, &str, &str), Workload> = BTreeMap::new();
        for (facts, _) in self.objects.values() {
            let Some(unreadable) = self.holds(facts, catalog, format, entry) else {
                continue;
            };
            // What a paused Deployment may wake is told of by itself.
            let is_woken = facts.rollback_target.as_ref().is_some_and(|target| &*target.owner.kind == "Deployment");
            let (kind, name) = if is_woken { (facts.id.kind.kind(), &*facts.id.name) } else { self.top(facts) };
            let it = all.entry((&facts.id.namespace, kind, name)).or_insert_with(|| Workload {
                kind: kind.into(),
                namespace: facts.id.namespace.clone(),
                name: name.into(),
                template: false,
                pods: 0,
                pod_names: Vec::new(),
                rollback_target: None,
                unreadable: None,
            });
            if facts.id.kind == HolderKind::Pod {
                it.pods += 1;
                it.pod_names.push(facts.id.name.clone());
            } else {
                it.template |= facts.owner.is_none() || is_woken;
            }
            if it.unreadable.is_none() {
                it.unreadable = unreadable.map(Into::into);
            }
        }
        let mut holders = Holders {
            workloads_total: all.len(),
            pods_total: all.values().map(|it| it.pods).sum(),
            workloads: all.into_values().collect(),
        };
        holders.workloads.truncate(Holders::MOST);
        for it in &mut holders.workloads {
            it.pod_names.sort();
            it.pod_names.truncate(3);
        }
        holders
    }
}

// === events ===

const NAMESPACES: [&str; 2] = ["apps", "prod"];
const CATALOGS: [&str; 3] = ["apps/models", "prod/models", "prod/others"];
const ENTRIES: [&str; 3] = ["v1", "v2", "v3"];
const KINDS: [HolderKind; 6] = [
    HolderKind::ControllerRevision,
    HolderKind::Deployment,
    HolderKind::Pod,
    HolderKind::ReplicaSet,
    HolderKind::Rollout,
    HolderKind::StatefulSet,
];

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "d"])
}

fn id() -> impl Strategy<Value = ObjectId> {
    let kind = prop::sample::select(KINDS.to_vec());
    let namespace = prop::sample::select(NAMESPACES.to_vec());
    (kind, namespace, name()).prop_map(|(kind, namespace, name)| ObjectId {
        kind,
        namespace: namespace.into(),
        name: name.into(),
    })
}

/// What may own what: no circles, and no owner that the index does not follow.
fn owner(kind: HolderKind) -> impl Strategy<Value = Option<Owner>> {
    let kinds = match kind {
        HolderKind::Pod => vec!["ReplicaSet", "StatefulSet", "Node"],
        HolderKind::ReplicaSet => vec!["Deployment", "Rollout"],
        HolderKind::ControllerRevision => vec!["DaemonSet", "StatefulSet", "StatefulSet"],
        _ => vec!["InferenceService"],
    };
    let owner = (prop::sample::select(kinds), name());
    prop::option::weighted(0.7, owner.prop_map(|(kind, name)| Owner { kind: kind.into(), name: name.into() }))
}

fn reference(namespace: Box<str>) -> impl Strategy<Value = Reference> {
    let need = prop_oneof![
        1 => Just(Need::All),
        3 => prop::sample::select(ENTRIES.to_vec()).prop_map(|name| Need::Entry(entry(name))),
    ];
    (prop::sample::select(CATALOGS.to_vec()), need, any::<bool>()).prop_map(move |(catalog, need, uses)| {
        let catalog = key(catalog);
        let own = catalog.namespace == namespace;
        let origin = if uses || !own { Origin::Uses } else { Origin::Implicit };
        Reference { catalog, need, origin }
    })
}

fn references(namespace: Box<str>) -> impl Strategy<Value = References> {
    let unreadable = prop::option::weighted(0.1, Just("broken".into()));
    (btree_set(reference(namespace), 0..3), unreadable).prop_map(|(needs, unreadable)| References { needs, unreadable })
}

fn facts() -> impl Strategy<Value = Facts> {
    id().prop_flat_map(move |id| {
        let some_name = || prop::option::weighted(0.5, name());
        let created = prop::option::of(prop::sample::select(vec!["2026-11-20T09:12:44Z", "2026-11-21T09:12:44Z"]));
        let names = (some_name(), some_name(), created);
        (owner(id.kind), references(id.namespace.clone()), names, any::<bool>(), Just(id))
    })
    .prop_map(|(owner, references, (pending, hash, created), is_at_zero, id)| {
        let is_target = is_at_zero && id.kind == HolderKind::ReplicaSet;
        let target = |owner: &Owner| RollbackTarget { owner: owner.clone(), revision: None };
        let rollback_target = owner.as_ref().filter(|_| is_target).map(target);
        let pending_revision = pending.and_then(|revision| match id.kind {
            HolderKind::Deployment => Some(NEWEST_REPLICA_SET.into()),
            HolderKind::Rollout | HolderKind::StatefulSet => Some(revision.into()),
            _ => None,
        });
        Facts {
            pending_revision,
            rollout_hash: rollback_target.as_ref().and(hash).map(Into::into),
            created: rollback_target.as_ref().and(created).map(Into::into),
            id,
            owner,
            references,
            rollback_target,
        }
    })
}

fn source() -> impl Strategy<Value = Source> {
    let kinds = KINDS.into_iter().map(Source::Holders);
    prop::sample::select(kinds.chain([Source::Namespaces]).collect::<Vec<_>>())
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => facts().prop_map(Event::Apply),
        4 => id().prop_map(Event::Delete),
        2 => (prop::sample::select(NAMESPACES.to_vec()), prop::bool::weighted(0.8)).prop_map(|(it, on)| Event::Guard(it, on)),
        1 => source().prop_map(Event::Restart),
        1 => source().prop_map(Event::Complete),
    ]
}

// === comparison ===

type Answers = Vec<(CatalogKey, Format, BTreeSet<EntryName>)>;

fn tell(index: &mut Index, event: Event) -> bool {
    match event {
        Event::Apply(facts) => index.apply(facts),
        Event::Delete(id) => index.delete(&id),
        Event::Guard(name, true) => index.guard(name, name),
        Event::Guard(name, false) => index.unguard(name),
        Event::Restart(source) => {
            index.restart(source);
            false
        }
        Event::Complete(source) => index.complete(source),
    }
}

fn held(index: &Index) -> Answers {
    let entries = ENTRIES.map(entry);
    let formats = [Format::Keys, Format::Yaml];
    let questions = CATALOGS.into_iter().flat_map(|name| formats.map(|format| (key(name), format)));
    questions
        .map(|(key, format)| {
            let held = index.held(&key, &everybody(), format, &entries);
            (key, format, held)
        })
        .collect()
}

/// The text of a reason is not compared where a StatefulSet lacks its revision.
fn plain(mut holders: Holders) -> Holders {
    for workload in &mut holders.workloads {
        workload.unreadable = workload.unreadable.as_ref().map(|_| "".into());
    }
    holders
}

fn check(index: &Index, model: &Model) -> Result<(), TestCaseError> {
    for (key, format, held) in held(index) {
        for entry in ENTRIES.map(entry) {
            let expected = model.holders(&key, format, &entry);
            prop_assert_eq!(held.contains(&entry), !expected.is_empty());
            prop_assert_eq!(plain(index.holders(&key, &everybody(), format, &entry)), plain(expected));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_index_answers_as_a_list_that_is_gone_through_again(events in vec(event(), 0..60)) {
        let (mut index, mut model) = (Index::default(), Model::default());
        for event in events {
            let before = held(&index);
            model.tell(&event);
            let changed = tell(&mut index, event.clone());
            check(&index, &model)?;
            prop_assert!(changed || before == held(&index), "{:?} changed what is held and did not say so", event);
        }
        for id in model.objects.into_keys() {
            index.delete(&id);
        }
        prop_assert!(index.namespaces.is_empty());
        prop_assert!(index.needs.is_empty());
    }
}
