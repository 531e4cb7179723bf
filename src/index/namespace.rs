//! One namespace of the index: its objects, and what they need.
//!
//! Nothing here knows whether the namespace is guarded; every question is asked of one reference set at a time.

use super::facts::Facts;
use super::needs::Needs;
use super::owner::Controller;
use super::pods::Pods;
use super::table::{Id, Table};
use super::tally::Tally;
use super::target::Target;
use crate::guard::RollbackTargets;
use crate::object::{HolderKind, NEWEST_REPLICA_SET};
use crate::reference::References;
use std::collections::btree_map::{BTreeMap, Entry};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// A reference set of one namespace.
pub(super) type SetId = Id<References>;

/// What pods of one row have in common.
type Group = (SetId, Option<Id<Controller>>);

/// Owners of owners are followed no further than this: ReplicaSet, Deployment, and what an operator puts on top.
const DEEPEST: usize = 8;

/// Tables that shrank below a quarter of this many rows or less are left as they are.
const SMALL: usize = 64;

/// What is known of one namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    name: Arc<str>,
    objects: BTreeMap<HolderKind, HashMap<Arc<str>, Object>>,
    owners: Table<Controller>,
    sets: Table<References>,
    /// The sets that could not be read in full.
    unreadable: BTreeSet<SetId>,
    /// The names of the pods that have one owner and one set in common.
    pods: BTreeMap<Group, Pods>,
    /// The objects of the other kinds, by set.
    templates: BTreeMap<SetId, BTreeSet<(HolderKind, Arc<str>)>>,
    /// But for ReplicaSets at zero, which only a rollback would bring back, or the Rollout to which they are stable, or the
    /// Deployment that was paused there.
    targets: BTreeMap<SetId, BTreeMap<Arc<str>, Target>>,
    /// What the others of these count for.
    rollback_targets: RollbackTargets,
    /// StatefulSets, Rollouts and Deployments that may still make pods from what is not their template, and from what.
    pending: BTreeMap<HolderKind, BTreeMap<Arc<str>, Box<str>>>,
}

/// One row: twelve bytes, for there may be a million of them.
#[derive(Clone, Copy, Debug)]
struct Object {
    owner: Option<Id<Controller>>,
    /// `None` if it needs nothing and is only a link to its owner.
    set: Option<SetId>,
    /// The list in which it was last seen.
    seen: u32,
}

// === impl Namespace ===

impl Namespace {
    pub(super) fn new(name: &str, rollback_targets: RollbackTargets) -> Self {
        Self {
            name: name.into(),
            objects: BTreeMap::new(),
            owners: Table::default(),
            sets: Table::default(),
            unreadable: BTreeSet::new(),
            pods: BTreeMap::new(),
            templates: BTreeMap::new(),
            targets: BTreeMap::new(),
            rollback_targets,
            pending: BTreeMap::new(),
        }
    }

    /// What it is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes in what an object is now; says whether what is needed may have changed.
    pub(super) fn apply(&mut self, facts: Facts, seen: u32, needs: &mut Needs) -> bool {
        let kind = facts.id.kind;
        if !facts.matter() {
            return self.delete(kind, &facts.id.name, needs);
        }
        if self.is_known(&facts) {
            if let Some(object) = self.object_mut(kind, &facts.id.name) {
                object.seen = seen;
            }
            return false;
        }
        let had_needs = self.delete(kind, &facts.id.name, needs);
        self.insert(facts, seen, needs) || had_needs
    }

    /// Forgets an object; says whether it held anything.
    pub(super) fn delete(&mut self, kind: HolderKind, name: &str, needs: &mut Needs) -> bool {
        let Some(objects) = self.objects.get_mut(&kind) else {
            return false;
        };
        let Some((name, object)) = objects.remove_entry(name) else {
            return false;
        };
        if objects.is_empty() {
            self.objects.remove(&kind);
        } else if objects.capacity() > SMALL && objects.len() < objects.capacity() / 4 {
            objects.shrink_to(objects.len() * 2);
        }
        self.unlink(kind, &name, object, needs)
    }

    /// Forgets the objects of `kind` that were not seen in the list of that number; says whether one of them
    /// held anything.
    pub(super) fn sweep(&mut self, kind: HolderKind, seen: u32, needs: &mut Needs) -> bool {
        let unseen: Vec<_> = self
            .objects
            .get(&kind)
            .into_iter()
            .flatten()
            .filter(|(_, object)| object.seen != seen)
            .map(|(name, _)| Arc::clone(name))
            .collect();
        let mut changed = false;
        for name in &unseen {
            changed |= self.delete(kind, name, needs);
        }
        changed
    }

    /// Whether nothing is known of it.
    pub(super) fn is_empty(&self) -> bool {
        let empty = self.objects.is_empty();
        debug_assert!(!empty || self.tables_are_empty());
        empty
    }

    /// Every reference set, in no order.
    pub(super) fn sets(&self) -> impl Iterator<Item = (SetId, &References)> {
        self.sets.iter()
    }

    /// The sets that could not be read in full.
    pub(super) fn unreadable(&self) -> impl Iterator<Item = SetId> {
        self.unreadable.iter().copied()
    }

    /// Whether an object that counts has the references of `set`.
    pub(super) fn is_held(&self, set: SetId) -> bool {
        self.pod_groups(set).next().is_some()
            || self.templates_of(set).next().is_some()
            || self.targets_of(set, Self::is_stable).next().is_some()
            || self.targets_of(set, Self::may_wake).next().is_some()
            || (self.rollback_targets.hold() && self.targets.contains_key(&set))
    }

    /// Whether there may be anything that only a rollback would need.
    pub(super) fn has_targets(&self) -> bool {
        self.rollback_targets != RollbackTargets::Ignore && !self.targets.is_empty()
    }

    /// The StatefulSets whose pods may be made from a ControllerRevision that is not known.
    pub(super) fn lacking(&self) -> impl Iterator<Item = Lacking<'_>> {
        let pending = self.pending.get(&HolderKind::StatefulSet).into_iter().flatten();
        pending.filter(|(name, revision)| !self.is_revision_of(revision, name)).map(|(name, revision)| Lacking {
            name,
            revision,
            set: self.object(HolderKind::StatefulSet, name).and_then(|object| object.set),
        })
    }

    /// Adds everybody with the references of `set` to `tally`.
    pub(super) fn tally<'a>(&'a self, set: SetId, tally: &mut Tally<'a>) {
        self.tally_present(set, tally);
        let reason = self.sets.get(set).and_then(|references| references.unreadable.as_deref());
        for name in self.targets_of(set, Self::may_wake) {
            // Not as an older template of its owner: no rollout takes it away.
            tally.template(&self.name, HolderKind::ReplicaSet.kind(), name, reason.map(Into::into));
        }
        if self.rollback_targets.hold() {
            self.tally_targets(&BTreeSet::from([set]), tally);
        }
    }

    /// Adds everybody who has the references of `set` as it is, and would not only after a rollback, or once a paused
    /// Deployment is scaled up.
    pub(super) fn tally_present<'a>(&'a self, set: SetId, tally: &mut Tally<'a>) {
        let reason = self.sets.get(set).and_then(|references| references.unreadable.as_deref());
        for (owner, pods) in self.pod_groups(set) {
            match owner {
                Some(owner) => {
                    let top = self.top(owner);
                    tally.pods(&self.name, top.kind(), top.name(), pods, reason);
                }
                None => tally.bare_pods(&self.name, pods, reason),
            }
        }
        for (kind, name) in self.templates_of(set) {
            self.tally_template(kind, name, reason.map(Into::into), tally);
        }
        for name in self.targets_of(set, Self::is_stable) {
            self.tally_template(HolderKind::ReplicaSet, name, reason.map(Into::into), tally);
        }
    }

    /// Adds everybody who would have the references of one of `sets` after a rollback, and has not as it is.
    pub(super) fn tally_targets<'a>(&'a self, sets: &BTreeSet<SetId>, tally: &mut Tally<'a>) {
        let targets = sets.iter().filter_map(|set| self.targets.get(set)).flatten();
        let only_by_rollback =
            |name: &str, target: &Target| !self.is_stable(name, target) && !self.may_wake(name, target);
        for (name, target) in targets.filter(|(name, target)| only_by_rollback(name, target)) {
            let Some(owner) = self.owner(HolderKind::ReplicaSet, name) else { continue };
            let current = owner.watched().and_then(|kind| self.object(kind, owner.name())?.set);
            if current.is_none_or(|set| !sets.contains(&set)) {
                tally.rollback_target(&self.name, name, owner, target.revision);
            }
        }
    }

    /// Adds a StatefulSet that cannot be told what it needs.
    pub(super) fn tally_lacking<'a>(&'a self, lacking: &Lacking<'a>, tally: &mut Tally<'a>) {
        let reason =
            format!("its ControllerRevision {}, which pods may still be made from, is not known", lacking.revision);
        self.tally_template(HolderKind::StatefulSet, lacking.name, Some(reason.into()), tally);
    }

    fn tally_template<'a>(
        &'a self,
        kind: HolderKind,
        name: &'a str,
        reason: Option<std::borrow::Cow<'a, str>>,
        tally: &mut Tally<'a>,
    ) {
        match self.owner(kind, name) {
            Some(owner) => {
                let top = self.top(owner);
                tally.older_template(&self.name, top.kind(), top.name(), reason);
            }
            None => tally.template(&self.name, kind.kind(), name, reason),
        }
    }

    // --- rows ---

    fn object(&self, kind: HolderKind, name: &str) -> Option<&Object> {
        self.objects.get(&kind)?.get(name)
    }

    fn object_mut(&mut self, kind: HolderKind, name: &str) -> Option<&mut Object> {
        self.objects.get_mut(&kind)?.get_mut(name)
    }

    /// Whether the facts are what is known already.
    fn is_known(&self, facts: &Facts) -> bool {
        let name = &*facts.id.name;
        let Some(object) = self.object(facts.id.kind, name) else {
            return false;
        };
        let owner = object.owner.and_then(|id| self.owners.get(id));
        let same_owner = match (owner, &facts.owner) {
            (Some(known), Some(owner)) => *known == *owner,
            (known, owner) => known.is_none() && owner.is_none(),
        };
        let same_references = match object.set {
            Some(set) => self.sets.get(set) == Some(&facts.references),
            None => facts.references.is_empty(),
        };
        let target = object.set.filter(|_| facts.id.kind == HolderKind::ReplicaSet);
        let target = target.and_then(|set| self.targets.get(&set)?.get(name));
        same_references
            && same_owner
            && target == Target::of(facts).as_ref()
            && self.pending_of(facts.id.kind, name) == facts.pending_revision.as_deref()
    }

    fn pending_of(&self, kind: HolderKind, name: &str) -> Option<&str> {
        self.pending.get(&kind)?.get(name).map(|revision| &**revision)
    }

    /// Enters an object that is not there; says whether it holds anything.
    fn insert(&mut self, facts: Facts, seen: u32, needs: &mut Needs) -> bool {
        let kind = facts.id.kind;
        let target = Target::of(&facts);
        let name: Arc<str> = facts.id.name.into();
        let owner = facts.owner.map(|owner| self.owners.acquire(owner.into()).0);
        let set = (!facts.references.is_empty()).then(|| self.acquire(facts.references, needs));
        if let Some(set) = set {
            let name = Arc::clone(&name);
            if kind == HolderKind::Pod {
                self.insert_pod((set, owner), name);
            } else if let Some(target) = target {
                self.targets.entry(set).or_default().insert(name, target);
            } else {
                self.templates.entry(set).or_default().insert((kind, name));
            }
        }
        let holds_anything = set.is_some() || facts.pending_revision.is_some();
        if let Some(revision) = facts.pending_revision {
            self.pending.entry(kind).or_default().insert(Arc::clone(&name), revision);
        }
        let object = Object { owner, set, seen };
        self.objects.entry(kind).or_default().insert(name, object);
        holds_anything || kind == HolderKind::ControllerRevision
    }

    /// Takes a removed row out of all tables; says whether it held anything.
    fn unlink(&mut self, kind: HolderKind, name: &Arc<str>, object: Object, needs: &mut Needs) -> bool {
        let held = object.set.is_some();
        if let Some(set) = object.set {
            if kind == HolderKind::Pod {
                self.remove_pod((set, object.owner), name);
            } else if !self.remove_target(kind, set, name) {
                remove_from(&mut self.templates, set, &(kind, Arc::clone(name)));
            }
            self.release(set, needs);
        }
        if let Some(owner) = object.owner {
            self.owners.release(owner);
        }
        let was_pending = self.remove_pending(kind, name);
        held || was_pending || kind == HolderKind::ControllerRevision
    }

    fn insert_pod(&mut self, group: Group, name: Arc<str>) {
        match self.pods.entry(group) {
            Entry::Vacant(vacant) => drop(vacant.insert(Pods::One(name))),
            Entry::Occupied(mut pods) => pods.get_mut().insert(name),
        }
    }

    fn remove_pod(&mut self, group: Group, name: &str) {
        if self.pods.get_mut(&group).is_some_and(|pods| pods.remove(name)) {
            self.pods.remove(&group);
        }
    }

    /// Says whether it was one.
    fn remove_target(&mut self, kind: HolderKind, set: SetId, name: &str) -> bool {
        let targets = self.targets.get_mut(&set).filter(|_| kind == HolderKind::ReplicaSet);
        let Some(targets) = targets else { return false };
        let was_one = targets.remove(name).is_some();
        if targets.is_empty() {
            self.targets.remove(&set);
        }
        was_one
    }

    /// Says whether there was anything.
    fn remove_pending(&mut self, kind: HolderKind, name: &str) -> bool {
        let Some(pending) = self.pending.get_mut(&kind) else { return false };
        let was_pending = pending.remove(name).is_some();
        if pending.is_empty() {
            self.pending.remove(&kind);
        }
        was_pending
    }

    fn acquire(&mut self, references: References, needs: &mut Needs) -> SetId {
        let (id, first) = self.sets.acquire(references);
        if let Some(references) = self.sets.get(id).filter(|_| first) {
            needs.add(&self.name, id, references);
            if references.unreadable.is_some() {
                self.unreadable.insert(id);
            }
        }
        id
    }

    fn release(&mut self, id: SetId, needs: &mut Needs) {
        if let Some(references) = self.sets.release(id) {
            needs.remove(&self.name, id, &references);
            self.unreadable.remove(&id);
        }
    }

    fn tables_are_empty(&self) -> bool {
        self.owners.is_empty()
            && self.sets.is_empty()
            && self.unreadable.is_empty()
            && self.pods.is_empty()
            && self.templates.is_empty()
            && self.targets.is_empty()
            && self.pending.is_empty()
    }

    // --- holders ---

    fn pod_groups(&self, set: SetId) -> impl Iterator<Item = (Option<&Controller>, &Pods)> {
        self.pods
            .range((set, None)..)
            .take_while(move |((of, _), _)| *of == set)
            .map(|((_, owner), pods)| (owner.and_then(|id| self.owners.get(id)), pods))
    }

    /// The objects with a pod template that have the references of `set` and count now.
    fn templates_of(&self, set: SetId) -> impl Iterator<Item = (HolderKind, &str)> {
        let templates = self.templates.get(&set).into_iter().flatten();
        templates.map(|(kind, name)| (*kind, &**name)).filter(|(kind, name)| self.counts(*kind, name))
    }

    /// A ControllerRevision counts while its StatefulSet may still make pods from it, all others always.
    fn counts(&self, kind: HolderKind, name: &str) -> bool {
        kind != HolderKind::ControllerRevision || self.is_pending(HolderKind::StatefulSet, kind, name, name)
    }

    /// The ReplicaSets at zero that have the references of `set` and are that.
    fn targets_of(&self, set: SetId, is_it: impl Fn(&Self, &str, &Target) -> bool) -> impl Iterator<Item = &str> {
        let targets = self.targets.get(&set).into_iter().flatten();
        targets.filter(move |(name, target)| is_it(self, name, target)).map(|(name, _)| &**name)
    }

    /// Whether its Rollout may go back to it.
    fn is_stable(&self, name: &str, target: &Target) -> bool {
        let hash = target.rollout_hash.as_deref();
        hash.is_some_and(|hash| self.is_pending(HolderKind::Rollout, HolderKind::ReplicaSet, name, hash))
    }

    /// Whether it is the newest of a Deployment that is paused at zero, among those that reference the same catalog: whoever
    /// proves something of that sees no others.
    fn may_wake(&self, name: &str, target: &Target) -> bool {
        if !self.is_pending(HolderKind::Deployment, HolderKind::ReplicaSet, name, NEWEST_REPLICA_SET) {
            return false;
        }
        let of = |name: &str| self.object(HolderKind::ReplicaSet, name).map(|object| (object.owner, object.set));
        let Some((owner, set)) = of(name) else { return false };
        let catalogs = |set: Option<SetId>| self.sets.get(set?).map(References::catalogs);
        let shares = |other: Option<SetId>| {
            catalogs(set).zip(catalogs(other)).is_some_and(|(own, other)| !own.is_disjoint(&other))
        };
        let is_newer = |(other, it): (&Arc<str>, &Target)| {
            it.created > target.created && of(other).is_some_and(|(its, set)| its == owner && shares(set))
        };
        !self.targets.values().flatten().any(is_newer)
    }

    /// Whether the object is what its owner, of kind `by`, may still make pods from, and calls `revision`.
    fn is_pending(&self, by: HolderKind, kind: HolderKind, name: &str, revision: &str) -> bool {
        let owner = self.owner(kind, name).filter(|owner| owner.watched() == Some(by));
        owner.is_some_and(|owner| self.pending_of(by, owner.name()) == Some(revision))
    }

    fn is_revision_of(&self, revision: &str, stateful_set: &str) -> bool {
        self.owner(HolderKind::ControllerRevision, revision)
            .is_some_and(|owner| owner.watched() == Some(HolderKind::StatefulSet) && owner.name() == stateful_set)
    }

    fn owner(&self, kind: HolderKind, name: &str) -> Option<&Controller> {
        let object = self.object(kind, name)?;
        self.owners.get(object.owner?)
    }

    /// The outermost controller that is known.
    fn top<'a>(&'a self, owner: &'a Controller) -> &'a Controller {
        let mut top = owner;
        for _ in 0..DEEPEST {
            match top.watched().and_then(|kind| self.owner(kind, top.name())) {
                Some(owner) => top = owner,
                None => break,
            }
        }
        top
    }
}

/// A StatefulSet that may make pods from a ControllerRevision that is not known. (A Rollout whose stable ReplicaSet is
/// not there can make no pods from it: it is all that has its template.)
#[derive(Clone, Copy, Debug)]
pub(super) struct Lacking<'a> {
    /// The StatefulSet.
    name: &'a str,
    /// The ControllerRevision.
    revision: &'a str,
    /// What the StatefulSet's own template needs.
    pub(super) set: Option<SetId>,
}

// === helpers ===

fn remove_from<V: Ord>(map: &mut BTreeMap<SetId, BTreeSet<V>>, set: SetId, value: &V) {
    if let Some(values) = map.get_mut(&set) {
        values.remove(value);
        if values.is_empty() {
            map.remove(&set);
        }
    }
}

#[cfg(test)]
impl Namespace {
    /// How many objects of `kind` are kept.
    pub(super) fn count(&self, kind: HolderKind) -> usize {
        self.objects.get(&kind).map_or(0, HashMap::len)
    }
}
